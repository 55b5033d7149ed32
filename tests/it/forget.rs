//! Forgetting through the program: what a policy keeps, what is refused, that nobody misses what was
//! forgotten and everybody what was taken away, and that no claimed time pushes out an honest snapshot.

mod holds;
mod store;

use crate::support::{Place, Ran};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// Takes a snapshot of a source whose content is this text, with a key; its id.
fn take_as(place: &Place, key: &str, text: &str, more: &[&str]) -> String {
    place.write("source/a", text);
    let arguments = [&["snapshot", ".", "--json", "--host", "db1"], more].concat();
    let mut command = place.command_in("source", &arguments);
    let ran = Ran::of(command.env("ESTRATO_KEY_FILE", place.path(key))).expect_code(0);
    assert!(!ran.stderr().contains("missing"), "{arguments:?}: {}", ran.stderr());
    ran.json()["snapshot"].as_str().unwrap().to_owned()
}

fn take(place: &Place, text: &str, more: &[&str]) -> String {
    take_as(place, "key", text, more)
}

fn object(place: &Place, id: &str) -> PathBuf {
    place.path("repo/tenants/default/snapshots").join(id)
}

/// Sets when the store took a snapshot, as if it had been then.
fn taken_at(place: &Place, id: &str, time: &str) {
    let time: jiff::Timestamp = time.parse().unwrap();
    let file = fs::File::options().write(true).open(object(place, id)).unwrap();
    file.set_modified(std::time::SystemTime::from(time)).unwrap();
}

/// What is said of each snapshot: action and reasons, by its id.
fn said<'j>(json: &'j Value, id: &str) -> (&'j str, Vec<&'j str>) {
    let groups = json["groups"].as_array().unwrap().iter();
    let mut all = groups.flat_map(|group| group["snapshots"].as_array().unwrap());
    let one = all.find(|s| s["id"] == id).unwrap();
    let reasons = one["reasons"].as_array().unwrap().iter().map(|r| r.as_str().unwrap()).collect();
    (one["action"].as_str().unwrap(), reasons)
}

fn ids(json: &Value) -> Vec<&str> {
    json.as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect()
}

/// Nothing is missed, on any machine, and everything is whole.
fn assert_fine(place: &Place, snapshots: usize) {
    for more in [&[][..], &["--cache-dir", "another machine"]] {
        let run = |arguments: &[&str]| place.run(&[more, arguments].concat());
        let ran = run(&["snapshots"]).expect_code(0);
        assert_eq!(ran.stdout().lines().count(), snapshots + 1, "{}", ran.stdout());
        assert_eq!(ran.stderr().lines().count(), 1, "{}", ran.stderr());
        let ran = run(&["check", "--read-data"]).expect_code(0);
        assert!(ran.stdout().contains("no damage"), "{}", ran.stdout());
    }
}

fn assert_missed(place: &Place, id: &str) {
    for more in [&[][..], &["--cache-dir", "another machine"]] {
        let listed = place.run(&[more, &["snapshots"]].concat()).expect_code(4);
        assert!(listed.stderr().contains(&id[..8]) && listed.stderr().contains("missing"), "{}", listed.stderr());
        let checked = place.run(&[more, &["check"]].concat()).expect_code(4);
        assert!(checked.stdout().contains(&format!("snapshots/{id}")), "{}", checked.stdout());
    }
}

#[test]
fn a_policy_keeps_what_it_says_and_nobody_misses_the_rest() {
    let place = Place::with_repository();
    let times = ["2026-11-18T09:00Z", "2026-11-18T23:30Z", "2026-11-19T09:00Z", "2026-11-20T09:00Z"];
    let all: Vec<String> = times.iter().map(|time| take(&place, time, &["--time", time])).collect();
    let policy = ["forget", "--keep-daily", "2", "--keep-weekly", "1", "--json", "--timezone"];
    let dry = place.run(&[&policy[..], &["UTC", "--dry-run"]].concat()).expect_code(0).json();
    assert_eq!(ids(&dry["drop"]), [&all[0], &all[1]]);
    assert_eq!(said(&dry, &all[0]), ("drop", vec![]));
    assert_eq!(said(&dry, &all[2]), ("keep", vec!["daily"]));
    assert_eq!(said(&dry, &all[3]), ("keep", vec!["daily", "weekly"]));
    assert_eq!((&dry["dry_run"], &dry["timezone"]), (&true.into(), &"UTC".into()));
    assert_eq!((place.snapshots(), place.objects("forgotten").len()), (4, 0), "it was only told");
    let first = place.run(&["forget", "--keep-daily", "9", "--timezone", "UTC", "--dry-run", "--json"]).json();
    assert_eq!(ids(&first["drop"]), [&all[0]]);
    let first = ["forget", "--keep-daily", "9", "--timezone", "CET-1", "--dry-run", "--json"];
    // In Berlin the second was taken on the day of the third.
    assert_eq!(ids(&place.run(&first).expect_code(0).json()["drop"]), [&all[1]]);

    let done = place.run(&[&policy[..], &["UTC"]].concat()).expect_code(0).json();
    assert_eq!(done["forgotten"], dry["drop"]);
    assert_fine(&place, 2);
    // Nobody asked for a second answer: the same again does nothing.
    let records = place.objects("forgotten");
    assert_eq!(ids(&place.run(&[&policy[..], &["UTC"]].concat()).expect_code(0).json()["forgotten"]), [""; 0]);
    assert_eq!((records.len(), &place.objects("forgotten")), (1, &records));
    place.restore("out", &[]);
    assert_eq!(fs::read(place.path("out/a")).unwrap(), times[3].as_bytes());
    take(&place, "and on it goes", &[]);
    assert_fine(&place, 3);
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_touched() {
    let place = Place::with_repository();
    let id = take(&place, "one", &[]);
    for arguments in [
        &[][..],
        &["--keep-last", "0"],
        &["--keep-last", "-1"],
        &["--keep-last", "99999999999"],
        &["--keep-within", "5"],
        &["--keep-within", "1d1d"],
        &["--keep-last", "1", "--timezone", "Mars/Olympus"],
        &["--keep-last", "1", "--group-by", "colour"],
        &[&id, "--keep-last", "1"],
        &["abc"],
        &["--keep-tag", "x"],
    ] {
        let ran = place.run(&[&["forget"], arguments].concat()).expect_code(2);
        assert!(ran.stderr().len() > 20, "{arguments:?}: {}", ran.stderr());
    }
    place.run(&["forget", "ffffffff"]).expect_code(1);
    assert_eq!((place.snapshots(), place.objects("forgotten").len()), (1, 0));
    // Who lists nothing needs no key to be told so.
    let ran = place.run(&["--key-file", "nowhere", "forget"]).expect_code(2);
    assert!(ran.stderr().contains("--keep-daily 7"), "{}", ran.stderr());
}

#[test]
fn a_writer_forgets_nothing_and_holds_nothing() {
    let place = Place::with_repository();
    place.run(&["key", "add", "--role", "writer", "--new-key-file", "writer"]).expect_code(0);
    let id = take_as(&place, "writer", "one", &[]);
    for arguments in [
        &["forget", "--keep-last", "1"][..],
        &["forget", "--keep-last", "1", "--dry-run"],
        &["forget", &id],
        &["hold", "add", &id],
        &["hold", "remove", &id],
    ] {
        let ran = place.run_as("writer", arguments).expect_code(12);
        assert!(ran.stderr().contains("a writer key cannot"), "{}", ran.stderr());
    }
    place.run_as("writer", &["hold", "list"]).expect_code(0);
    assert_fine(&place, 1);
}

#[test]
fn a_group_is_emptied_only_where_that_is_allowed() {
    let place = Place::with_repository();
    take(&place, "one", &["--tag", "x"]);
    take(&place, "two", &[]);
    place.write("other/b", "b");
    Ran::of(&mut place.command_in("other", &["snapshot", "."])).expect_code(0);
    // Of the first group the tag keeps something, and with it stays the newest; of the other nothing.
    let refused = place.run(&["forget", "--keep-tag", "x"]).expect_code(2);
    assert!(refused.stderr().contains("--allow-empty-group") && refused.stderr().contains("other"));
    let dry = place.run(&["forget", "--keep-tag", "x", "--dry-run"]).expect_code(2);
    assert!(dry.stdout().contains("drop") && dry.stdout().contains("newest"), "{}", dry.stdout());
    assert_eq!(place.snapshots(), 3);
    place.run(&["forget", "--keep-tag", "x", "--allow-empty-group"]).expect_code(0);
    assert_fine(&place, 2);
    // Without groups by path it was the newest of all.
    place.run(&["forget", "--keep-tag", "y", "--group-by", "", "--allow-empty-group"]).expect_code(0);
    assert_fine(&place, 0);
    take(&place, "three", &[]);
    assert_fine(&place, 1);
}

#[test]
fn what_was_taken_away_is_missed_though_what_came_after_it_was_forgotten() {
    let place = Place::with_repository();
    let all: Vec<String> = ["one", "two", "three", "four", "five"].iter().map(|t| take(&place, t, &[])).collect();
    place.run(&["forget", &all[3][..6]]).expect_code(0);
    place.run(&["forget", &all[2], "latest~9"]).expect_code(1);
    place.run(&["forget", &all[2]]).expect_code(0);
    assert_fine(&place, 3);
    assert_eq!(place.objects("forgotten").len(), 1, "one record for all");
    let one = fs::read(object(&place, &all[1])).unwrap();
    fs::remove_file(object(&place, &all[1])).unwrap();
    assert_missed(&place, &all[1]);
    // Nor does forgetting others hide it.
    place.run(&["forget", &all[0]]).expect_code(0);
    assert_missed(&place, &all[1]);
    fs::write(object(&place, &all[1]), one).unwrap();
    assert_fine(&place, 2);
    // A record that is withheld makes more be missed, not less.
    for record in place.objects("forgotten") {
        fs::remove_file(record).unwrap();
    }
    assert_missed(&place, &all[3]);
}

#[test]
fn a_chain_that_ended_is_missed_by_nobody_who_remembers_it() {
    let place = Place::with_repository();
    place.run(&["key", "add", "--role", "writer", "--new-key-file", "writer"]).expect_code(0);
    let all: Vec<String> = ["one", "two"].iter().map(|text| take_as(&place, "writer", text, &[])).collect();
    place.run(&["snapshots"]).expect_code(0);
    place.run(&["forget", &all[0], &all[1]]).expect_code(0);
    assert_fine(&place, 0);
    place.run_as("writer", &["check"]).expect_code(0);
    // It goes on where it was, and reads everything.
    take_as(&place, "writer", "two", &[]);
    assert_fine(&place, 1);
    place.restore("out", &[]);
    // One that a stranger forges ends nothing.
    let record = place.objects("forgotten").remove(0);
    fs::write(&record, [&fs::read(&record).unwrap()[..60], &[7; 200]].concat()).unwrap();
    assert_missed(&place, &all[1]);
}

#[test]
fn what_is_damaged_is_forgotten_by_name_alone() {
    let place = Place::with_repository();
    let all: Vec<String> = ["one", "two", "three"].iter().map(|text| take(&place, text, &[])).collect();
    crate::support::change(&object(&place, &all[1]), |bytes| bytes[1300] ^= 1);
    let ran = place.run(&["forget", "--keep-last", "1"]).expect_code(0);
    assert!(ran.stderr().contains("damaged"), "{}", ran.stderr());
    assert!(object(&place, &all[1]).exists() && !object(&place, &all[0]).exists());
    place.run(&["forget", &all[1]]).expect_code(0);
    assert_fine(&place, 1);
}

/// Honest snapshots of three days by one writer, taken when they say.
fn honest(place: &Place) -> Vec<String> {
    place.run(&["key", "add", "--role", "writer", "--label", "w", "--new-key-file", "writer"]).expect_code(0);
    let mut all = Vec::new();
    for day in [16, 17, 18] {
        let time = format!("2026-11-{day}T03:00:00Z");
        let id = take_as(place, "writer", &time, &["--time", &time]);
        taken_at(place, &id, &time);
        all.push(id);
    }
    all
}

#[test]
fn claimed_times_of_a_stolen_writers_key_push_out_no_honest_snapshot() {
    let place = Place::with_repository();
    let honest = honest(&place);
    let mut bogus = Vec::new();
    for time in [
        "2026-11-16T23:59:00Z",
        "2026-11-17T23:59:00Z",
        "2026-11-18T23:59:00Z",
        "2100-01-01T00:00:00Z",
        "2100-01-02T00:00:00Z",
        "2100-01-03T00:00:00Z",
    ] {
        // Not on the same machine: its own snapshots rest on its memory.
        let id = take_as(&place, "writer", time, &["--time", time, "--cache-dir", "../stolen"]);
        taken_at(&place, &id, "2026-11-21T03:00:00Z");
        bogus.push(id);
    }
    for policy in [["--keep-daily", "3"], ["--keep-last", "3"], ["--keep-weekly", "1"], ["--keep-within", "60h"]] {
        let rules = [&["forget", "--timezone", "UTC", "--dry-run", "--json"][..], &policy].concat();
        let json = place.run(&rules).expect_code(0).json();
        let dropped = ids(&json["drop"]);
        let kept = if policy[0] == "--keep-weekly" { 1 } else { 3 };
        let stay = honest.iter().filter(|id| !dropped.contains(&id.as_str())).count();
        assert!(stay >= kept, "{policy:?}: {json}");
    }
    let policy = ["forget", "--keep-daily", "3", "--timezone", "UTC"];
    let json = place.run(&[&policy[..], &["--dry-run", "--json"]].concat()).expect_code(0).json();
    let flags = |id: &str| {
        let all = json["groups"][0]["snapshots"].as_array().unwrap();
        let one = all.iter().find(|s| s["id"] == id).unwrap();
        (one["backdated"].as_bool().unwrap(), one["postdated"].as_bool().unwrap())
    };
    for (nth, id) in bogus.iter().enumerate() {
        assert_eq!(flags(id), (nth < 3, nth >= 3));
    }
    assert!(honest.iter().all(|id| flags(id) == (false, false)));
    let ran = place.run(&policy).expect_code(0);
    let marked = |mark: &str| ran.stdout().lines().filter(|line| line.contains(mark)).count();
    assert_eq!((marked("(late)"), marked("(!)")), (3, 3), "{}", ran.stdout());
    assert!(ran.stderr().contains("3 snapshots claim") && ran.stderr().contains("takes the place of another"));
    assert!(honest.iter().all(|id| object(&place, id).exists()));
    assert!(bogus.iter().filter(|id| object(&place, id).exists()).count() <= 3, "nor are all of those kept");
}

#[test]
fn whoever_signs_pushes_out_nothing_that_another_signed() {
    let place = Place::with_repository();
    let honest = honest(&place);
    place.run(&["key", "add", "--role", "writer", "--label", "mallory", "--new-key-file", "mallory"]).expect_code(0);
    let other = ["--host", "db1", "--cache-dir", "../mallory's"];
    let forged: Vec<String> =
        ["x", "y", "z"].iter().map(|text| take_as(&place, "mallory", text, &other[2..])).collect();
    place.run(&["forget", "--keep-last", "1"]).expect_code(0);
    assert!(object(&place, &honest[2]).exists() && object(&place, &forged[2]).exists());
    assert_eq!(place.snapshots(), 2);
}

#[test]
fn a_repository_that_was_moved_is_kept_by_the_times_that_it_claims() {
    let place = Place::with_repository();
    let all: Vec<String> = (10..20)
        .map(|day| {
            let time = format!("2026-10-{day}T03:00:00Z");
            take(&place, &time, &["--time", &time])
        })
        .collect();
    // A copy of objects: the store took all of them today.
    let policy = ["forget", "--keep-daily", "3", "--timezone", "UTC"];
    place.run(&policy).expect_code(0);
    let left: Vec<&String> = all.iter().filter(|id| object(&place, id).exists()).collect();
    assert_eq!(left, all[7..].iter().collect::<Vec<_>>());
    assert!(Path::new(&place.path("repo")).exists());
}
