//! Which snapshots a policy keeps, and for what reason. A pure function: no
//! repository, no clock, and the same answer in whatever order it is asked.
//!
//! A rule such as `daily: 7` goes through a group from its newest snapshot to
//! its oldest, and keeps the newest one of each of the first seven days that
//! have any. Periods follow the calendar of a time zone, weeks are ISO's, and an
//! hour that a clock repeats is two hours.
//!
//! Snapshots whose time cannot be believed take no place from others: the rules
//! are asked twice, of all and of those that can be believed, and what either
//! answer keeps is kept.

use crate::clock::Timestamp;
use crate::id::SnapshotId;
use jiff::tz::TimeZone;
use jiff::{Span, Zoned};
use std::collections::BTreeSet;

/// What to keep of each group. A number of 0, and no tags, are no rule.
#[derive(Debug, Clone)]
pub struct Rules {
    /// So many of the newest.
    pub last: u32,
    /// The newest of so many hours that have any.
    pub hourly: u32,
    /// The same of days.
    pub daily: u32,
    /// The same of ISO weeks.
    pub weekly: u32,
    /// The same of months.
    pub monthly: u32,
    /// The same of years.
    pub yearly: u32,
    /// All that are no older than this before the newest of their group.
    pub within: Option<Span>,
    /// All that have one of these tags.
    pub tags: Vec<String>,
    /// Whose calendar says when a day begins.
    pub zone: TimeZone,
}

impl Rules {
    /// None, by the calendar of this zone.
    pub fn none(zone: TimeZone) -> Self {
        Self { last: 0, hourly: 0, daily: 0, weekly: 0, monthly: 0, yearly: 0, within: None, tags: Vec::new(), zone }
    }

    /// True if nothing would be kept by them.
    pub fn is_empty(&self) -> bool {
        let counts = [self.last, self.hourly, self.daily, self.weekly, self.monthly, self.yearly];
        counts.iter().all(|n| *n == 0) && self.within.is_none() && self.tags.is_empty()
    }
}

/// A snapshot, as the policy sees it.
#[derive(Debug, Clone)]
pub struct Candidate<G> {
    /// Which.
    pub id: SnapshotId,
    /// The moment by which it counts.
    pub time: Timestamp,
    /// When it was complete: of two with one moment the later one is the newer.
    pub ended: Timestamp,
    /// True if that moment is its writer's word, and the store's own time for it speaks against it.
    pub is_doubtful: bool,
    /// What it is held against: rules count within a group.
    pub group: G,
    /// Its tags.
    pub tags: Vec<String>,
    /// True if it must not be forgotten.
    pub is_held: bool,
}

/// Why a snapshot is kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// It is under hold.
    Held,
    /// It is one of the newest.
    Last,
    /// It is the newest of an hour.
    Hourly,
    /// It is the newest of a day.
    Daily,
    /// It is the newest of an ISO week.
    Weekly,
    /// It is the newest of a month.
    Monthly,
    /// It is the newest of a year.
    Yearly,
    /// It is young enough.
    Within,
    /// It has this tag.
    Tag(String),
    /// No rule keeps it, but it is the newest of a group of which rules keep something.
    Newest,
}

impl Reason {
    /// In a word or two, as people give the rule.
    pub fn name(&self) -> String {
        match self {
            Self::Held => "hold".into(),
            Self::Last => "last".into(),
            Self::Hourly => "hourly".into(),
            Self::Daily => "daily".into(),
            Self::Weekly => "weekly".into(),
            Self::Monthly => "monthly".into(),
            Self::Yearly => "yearly".into(),
            Self::Within => "within".into(),
            Self::Tag(tag) => format!("tag {tag}"),
            Self::Newest => "newest".into(),
        }
    }
}

/// What the policy says of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    /// Why it is kept; none where it is not.
    pub reasons: BTreeSet<Reason>,
    /// True if no rule keeps anything of its group.
    pub group_is_emptied: bool,
}

impl Verdict {
    /// True if it is kept.
    pub fn keeps(&self) -> bool {
        !self.reasons.is_empty()
    }
}

/// A moment, or the nearest to it that a calendar has.
fn zoned(time: Timestamp, zone: &TimeZone) -> Zoned {
    let nanos = i32::try_from(time.nanos).unwrap_or_default();
    let nearest = if time.seconds < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
    jiff::Timestamp::new(time.seconds, nanos).unwrap_or(nearest).to_zoned(zone.clone())
}

/// What tells one period from another.
type Period = (i64, i64, i64);

fn hour(t: &Zoned) -> Period {
    let day = i64::from(t.year()) * 1000 + i64::from(t.day_of_year());
    (day, t.hour().into(), t.offset().seconds().into())
}

fn day(t: &Zoned) -> Period {
    (t.year().into(), t.day_of_year().into(), 0)
}

fn week(t: &Zoned) -> Period {
    let week = t.date().iso_week_date();
    (week.year().into(), week.week().into(), 0)
}

fn month(t: &Zoned) -> Period {
    (t.year().into(), t.month().into(), 0)
}

fn year(t: &Zoned) -> Period {
    (t.year().into(), 0, 0)
}

/// Says of each candidate, in their order, whether it is kept and why.
pub fn decide<G: Ord>(rules: &Rules, candidates: &[Candidate<G>]) -> Vec<Verdict> {
    let times: Vec<Zoned> = candidates.iter().map(|c| zoned(c.time, &rules.zone)).collect();
    let mut verdicts = vec![Verdict::default(); candidates.len()];
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    // The newest first; of equal times the id decides.
    let place = |at: &usize| {
        let c = &candidates[*at];
        (&c.group, std::cmp::Reverse((c.time, c.ended, c.id)))
    };
    order.sort_by(|a, b| place(a).cmp(&place(b)));
    for group in order.chunk_by(|a, b| candidates[*a].group == candidates[*b].group) {
        let sure: Vec<usize> = group.iter().copied().filter(|at| !candidates[*at].is_doubtful).collect();
        for members in [group, &sure[..]] {
            apply(rules, candidates, &times, members, &mut verdicts);
        }
        let is_emptied = !group.iter().any(|at| verdicts[*at].keeps());
        for newest in [group.first(), sure.first()].into_iter().flatten() {
            if !is_emptied && !verdicts[*newest].keeps() {
                verdicts[*newest].reasons.insert(Reason::Newest);
            }
        }
        for at in group {
            verdicts[*at].group_is_emptied = is_emptied;
            if candidates[*at].is_held {
                verdicts[*at].reasons.insert(Reason::Held);
            }
        }
    }
    verdicts
}

/// Notes what each rule keeps of `members`, which are of one group, the newest first.
fn apply<G>(
    rules: &Rules,
    candidates: &[Candidate<G>],
    times: &[Zoned],
    members: &[usize],
    verdicts: &mut [Verdict],
) {
    let mut keep = |at: usize, reason: Reason| {
        verdicts[at].reasons.insert(reason);
    };
    let count = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
    for at in members.iter().take(count(rules.last)) {
        keep(*at, Reason::Last);
    }
    type PeriodOf = fn(&Zoned) -> Period;
    let periods: [(u32, PeriodOf, Reason); 5] = [
        (rules.hourly, hour, Reason::Hourly),
        (rules.daily, day, Reason::Daily),
        (rules.weekly, week, Reason::Weekly),
        (rules.monthly, month, Reason::Monthly),
        (rules.yearly, year, Reason::Yearly),
    ];
    for (n, period, reason) in periods {
        // Times descend, and so each period is one run of them.
        let firsts = members.chunk_by(|a, b| period(&times[*a]) == period(&times[*b]));
        for at in firsts.filter_map(|run| run.first()).take(count(n)) {
            keep(*at, reason.clone());
        }
    }
    if let (Some(span), Some(newest)) = (rules.within, members.first()) {
        // What lies before all that a calendar has is not dropped for it.
        let since = times[*newest].checked_sub(span).map_or(jiff::Timestamp::MIN, |t| t.timestamp());
        for at in members.iter().filter(|at| times[**at].timestamp() >= since) {
            keep(*at, Reason::Within);
        }
    }
    for at in members {
        for tag in rules.tags.iter().filter(|tag| candidates[*at].tags.contains(tag)) {
            keep(*at, Reason::Tag(tag.clone()));
        }
    }
}

#[cfg(test)]
mod tests;
