//! What must hold for any policy on any snapshots, and what calendars do.

use super::*;
use proptest::prelude::*;

fn berlin() -> TimeZone {
    TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
}

fn at(text: &str) -> Timestamp {
    let time: jiff::Timestamp = text.parse().unwrap();
    Timestamp { seconds: time.as_second(), nanos: 0 }
}

fn candidate(n: usize, time: Timestamp) -> Candidate<u8> {
    let id = SnapshotId(u128::try_from(n).unwrap().to_be_bytes());
    Candidate { id, time, ended: time, is_doubtful: false, group: 0, tags: Vec::new(), is_held: false }
}

fn candidates(times: &[&str]) -> Vec<Candidate<u8>> {
    times.iter().enumerate().map(|(n, time)| candidate(n, at(time))).collect()
}

/// Which are kept, by their places.
fn kept(rules: &Rules, candidates: &[Candidate<u8>]) -> Vec<usize> {
    let verdicts = decide(rules, candidates);
    (0..candidates.len()).filter(|at| verdicts[*at].keeps()).collect()
}

fn rules(change: impl FnOnce(&mut Rules)) -> Rules {
    let mut rules = Rules::none(berlin());
    change(&mut rules);
    rules
}

#[test]
fn the_newest_of_each_period_is_kept() {
    let all = candidates(&[
        "2026-11-20T08:00:00Z",
        "2026-11-20T09:10:00Z",
        "2026-11-20T09:50:00Z",
        "2026-11-21T09:00:00Z",
        "2026-11-22T09:00:00Z",
        "2026-11-23T09:00:00Z",
    ]);
    assert_eq!(kept(&rules(|r| r.last = 2), &all), [4, 5]);
    assert_eq!(kept(&rules(|r| r.hourly = 4), &all), [2, 3, 4, 5]);
    assert_eq!(kept(&rules(|r| r.hourly = 9), &all), [0, 2, 3, 4, 5]);
    assert_eq!(kept(&rules(|r| r.daily = 3), &all), [3, 4, 5]);
    assert_eq!(kept(&rules(|r| r.weekly = 2), &all), [4, 5], "the 22nd is a Sunday");
    assert_eq!(kept(&rules(|r| r.monthly = 7), &all), [5]);
    let tagged = rules(|r| r.tags = vec!["x".into()]);
    assert!(kept(&tagged, &all).is_empty() && decide(&tagged, &all).iter().all(|v| v.group_is_emptied));
    let within = |span: Span| kept(&rules(|r| r.within = Some(span)), &all);
    assert_eq!(within(Span::new().days(2)), [3, 4, 5]);
    assert_eq!(within(Span::new().hours(47)), [4, 5]);
    assert_eq!(within(Span::new()), [5]);
    assert_eq!(within(Span::new().years(19_000)), [0, 1, 2, 3, 4, 5], "before all that a calendar has");
}

#[test]
fn days_begin_by_the_zone_and_hours_that_are_repeated_are_two() {
    // Clocks went back at 01:00 UTC; the day has 25 hours.
    let all = candidates(&[
        "2026-10-24T21:59:00Z",
        "2026-10-24T22:01:00Z",
        "2026-10-25T00:30:00Z",
        "2026-10-25T01:30:00Z",
        "2026-10-25T22:59:00Z",
        "2026-10-25T23:01:00Z",
    ]);
    assert_eq!(kept(&rules(|r| r.daily = 9), &all), [0, 4, 5]);
    assert_eq!(kept(&rules(|r| r.hourly = 9), &all), [0, 1, 2, 3, 4, 5]);
    let utc = Rules { daily: 9, ..Rules::none(TimeZone::UTC) };
    assert_eq!(kept(&utc, &all), [1, 5]);
    // A day back over the change is a day of the calendar, and not 24 hours.
    let spring = candidates(&["2026-03-28T11:00:00Z", "2026-03-29T10:00:00Z"]);
    assert_eq!(kept(&rules(|r| r.within = Some(Span::new().days(1))), &spring), [0, 1]);
    assert_eq!(kept(&rules(|r| r.within = Some(Span::new().hours(22))), &spring), [1]);
}

#[test]
fn weeks_are_isos() {
    // A Thursday, a Friday and a Sunday of one week over two years, and the Monday after.
    let all =
        candidates(&["2026-12-31T12:00:00Z", "2027-01-01T12:00:00Z", "2027-01-03T12:00:00Z", "2027-01-04T12:00:00Z"]);
    assert_eq!(kept(&rules(|r| r.weekly = 9), &all), [2, 3]);
    assert_eq!(kept(&rules(|r| r.yearly = 9), &all), [0, 3]);
    assert_eq!(kept(&rules(|r| r.monthly = 9), &all), [0, 3]);
}

#[test]
fn moments_that_no_calendar_has_harm_nobody() {
    let mut all =
        vec![candidate(0, Timestamp { seconds: i64::MIN, nanos: 0 }), candidate(1, at("2026-01-01T00:00:00Z"))];
    all.push(candidate(2, Timestamp { seconds: i64::MAX, nanos: 999_999_999 }));
    assert_eq!(kept(&rules(|r| r.yearly = 9), &all), [0, 1, 2]);
    assert_eq!(kept(&rules(|r| r.within = Some(Span::new().days(1))), &all), [2]);
}

#[test]
fn what_cannot_be_believed_takes_no_place() {
    let mut all = candidates(&["2026-11-20T09:00:00Z", "2026-11-21T09:00:00Z", "2026-11-22T09:00:00Z"]);
    for n in 0..50 {
        // Later on each of the days, and after all of them.
        let day = 20 + n % 10;
        all.push(Candidate {
            is_doubtful: true,
            ..candidate(100 + n, at(&format!("2026-11-{day}T23:{:02}:00Z", n)))
        });
    }
    for policy in [rules(|r| r.daily = 3), rules(|r| r.last = 3), rules(|r| r.hourly = 3)] {
        let kept = kept(&policy, &all);
        assert_eq!(&kept[..3], [0, 1, 2], "{policy:?}");
        assert!(kept.len() < 10, "nor are they all kept: {kept:?}");
    }
    // Where all are late, as in a repository that was moved, they are what there is.
    all.drain(..3);
    assert_eq!(kept(&rules(|r| r.daily = 3), &all).len(), 3);
}

#[test]
fn what_is_held_is_kept_and_saves_no_group() {
    let mut all = candidates(&["2026-11-20T09:00:00Z", "2026-11-21T09:00:00Z"]);
    all[0].is_held = true;
    let verdicts = decide(&rules(|r| r.last = 1), &all);
    assert_eq!(verdicts[0].reasons, [Reason::Held].into());
    let verdicts = decide(&rules(|r| r.tags = vec!["x".into()]), &all);
    assert!(verdicts[0].keeps() && !verdicts[1].keeps() && verdicts[1].group_is_emptied);
}

fn any_candidates() -> impl Strategy<Value = Vec<Candidate<u8>>> {
    // Close together and far apart, so that periods are shared and are not.
    let time = prop_oneof![0..4_000_000i64, 0..200_000_000i64, any::<i64>()];
    let tags = proptest::collection::vec(prop_oneof![Just("a".to_owned()), Just("b".to_owned())], 0..2);
    let one = (time, any::<bool>(), 0..3u8, tags, proptest::bool::weighted(0.1));
    proptest::collection::vec(one, 0..40).prop_map(|all| {
        let made = all.into_iter().enumerate().map(|(n, (seconds, is_doubtful, group, tags, is_held))| Candidate {
            is_doubtful,
            group,
            tags,
            is_held,
            ..candidate(n, Timestamp { seconds, nanos: 0 })
        });
        made.collect()
    })
}

fn any_rules() -> impl Strategy<Value = Rules> {
    let counts = proptest::array::uniform6(prop_oneof![Just(0), 0..6u32]);
    let within = proptest::option::of(0..100i64);
    let tags = proptest::sample::subsequence(vec!["a".to_owned(), "b".to_owned()], 0..=2);
    (counts, within, tags).prop_map(|([last, hourly, daily, weekly, monthly, yearly], within, tags)| Rules {
        last,
        hourly,
        daily,
        weekly,
        monthly,
        yearly,
        within: within.map(|days| Span::new().days(days)),
        tags,
        zone: berlin(),
    })
}

/// At least as much of each.
fn more(a: &Rules, b: &Rules) -> Rules {
    let days = |r: &Rules| r.within.map(|span| span.get_days());
    Rules {
        last: a.last.max(b.last),
        hourly: a.hourly.max(b.hourly),
        daily: a.daily.max(b.daily),
        weekly: a.weekly.max(b.weekly),
        monthly: a.monthly.max(b.monthly),
        yearly: a.yearly.max(b.yearly),
        within: days(a).max(days(b)).map(|days| Span::new().days(days)),
        tags: [&a.tags[..], &b.tags].concat(),
        zone: berlin(),
    }
}

fn ids(rules: &Rules, all: &[Candidate<u8>]) -> BTreeSet<SnapshotId> {
    kept(rules, all).into_iter().map(|at| all[at].id).collect()
}

proptest! {
    #[test]
    fn the_newest_of_a_group_is_never_dropped(rules in any_rules(), all in any_candidates()) {
        let verdicts = decide(&rules, &all);
        for group in 0..3 {
            let of_group = || all.iter().zip(&verdicts).filter(|(c, _)| c.group == group);
            for doubtful_too in [true, false] {
                let newest = of_group().filter(|(c, _)| doubtful_too || !c.is_doubtful).max_by_key(|(c, _)| (c.time, c.id));
                let Some((_, newest)) = newest else { continue };
                // Unless nothing is kept of it, which is told.
                prop_assert!(newest.keeps() || newest.group_is_emptied);
            }
            let by_rule = |v: &Verdict| v.reasons.iter().any(|r| *r != Reason::Held);
            prop_assert!(of_group().all(|(_, v)| !v.group_is_emptied || !by_rule(v)));
        }
        let counts = rules.last + rules.hourly + rules.daily + rules.weekly + rules.monthly + rules.yearly;
        if counts > 0 || rules.within.is_some() {
            prop_assert!(verdicts.iter().all(|v| !v.group_is_emptied), "only tags empty a group");
        }
    }

    #[test]
    fn the_order_of_the_candidates_says_nothing(rules in any_rules(), (all, other) in any_candidates().prop_flat_map(|all| {
        let other = Just(all.clone()).prop_shuffle();
        (Just(all), other)
    })) {
        let of = |list: &[Candidate<u8>]| {
            let mut said: Vec<_> = list.iter().map(|c| c.id).zip(decide(&rules, list)).collect();
            said.sort_by_key(|(id, _)| *id);
            said
        };
        prop_assert_eq!(of(&all), of(&other));
    }

    #[test]
    fn keeping_more_never_drops_more(a in any_rules(), b in any_rules(), all in any_candidates()) {
        prop_assert!(ids(&a, &all).is_subset(&ids(&more(&a, &b), &all)));
    }

    #[test]
    fn what_is_doubtful_never_pushes_out_what_is_not(rules in any_rules(), all in any_candidates()) {
        let sure: Vec<Candidate<u8>> = all.iter().filter(|c| !c.is_doubtful).cloned().collect();
        prop_assert!(ids(&rules, &sure).is_subset(&ids(&rules, &all)));
    }

    #[test]
    fn groups_are_apart_and_what_is_held_is_kept(rules in any_rules(), all in any_candidates()) {
        let verdicts = decide(&rules, &all);
        prop_assert!(all.iter().zip(&verdicts).all(|(c, v)| !c.is_held || v.reasons.contains(&Reason::Held)));
        let one: Vec<Candidate<u8>> = all.iter().filter(|c| c.group == 1).cloned().collect();
        let alone = decide(&rules, &one);
        let among: Vec<Verdict> = all.iter().zip(verdicts).filter(|(c, _)| c.group == 1).map(|(_, v)| v).collect();
        prop_assert_eq!(alone, among);
    }

    #[test]
    fn nothing_is_kept_without_rules_but_what_is_held(all in any_candidates()) {
        let none = Rules::none(berlin());
        prop_assert!(none.is_empty());
        prop_assert!(decide(&none, &all).iter().zip(&all).all(|(v, c)| v.keeps() == c.is_held));
    }
}
