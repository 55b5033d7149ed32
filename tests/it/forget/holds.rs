//! Legal holds, through the program: no rule and no name forgets what is under hold.

use super::{assert_fine, ids, object, said, take};
use crate::support::{Place, change};
use std::fs;

#[test]
fn what_is_under_hold_is_forgotten_by_no_rule_and_no_name() {
    let place = Place::with_repository();
    let all: Vec<String> = ["one", "two", "three"].iter().map(|text| take(&place, text, &[])).collect();
    let added = place.run(&["hold", "add", &all[0], "latest~1", "--why", "case 17"]).expect_code(0);
    assert!(added.stdout().contains(&all[0][..8]) && added.stdout().contains(&all[1][..8]));
    place.run(&["hold", "remove", &all[1][..8]]).expect_code(0);
    // Again is no error, and changes no word of it.
    place.run(&["hold", "add", &all[0], "--why", "another"]).expect_code(0);
    let held = place.run(&["hold", "list", "--json"]).expect_code(0).json();
    assert_eq!(held.as_array().unwrap().len(), 1);
    assert_eq!((&held[0]["snapshot"], &held[0]["why"]), (&all[0].as_str().into(), &"case 17".into()));
    assert_eq!(held[0]["state"], "there");

    let refused = place.run(&["forget", &all[1], &all[0]]).expect_code(2);
    assert!(refused.stderr().contains("under hold") && refused.stderr().contains("hold remove"));
    assert_eq!(place.snapshots(), 3, "none of them");
    let json = place.run(&["forget", "--keep-last", "1", "--json"]).expect_code(0).json();
    assert_eq!(ids(&json["forgotten"]), [&all[1]]);
    assert_eq!(said(&json, &all[0]), ("keep", vec!["hold"]));
    assert_fine(&place, 2);
    place.run(&["forget", "--keep-tag", "x", "--allow-empty-group"]).expect_code(0);
    assert_fine(&place, 1);

    place.run(&["hold", "remove", &all[0]]).expect_code(0);
    place.run(&["hold", "remove", &all[0]]).expect_code(1);
    place.run(&["forget", &all[0]]).expect_code(0);
    place.run(&["hold", "add", &all[0]]).expect_code(1);
    assert_eq!(place.run(&["hold", "list", "--json"]).expect_code(0).json(), serde_json::json!([]));
    assert_fine(&place, 0);
}

#[test]
fn a_hold_that_is_damaged_holds_and_is_told() {
    let place = Place::with_repository();
    let all: Vec<String> = ["one", "two"].iter().map(|text| take(&place, text, &[])).collect();
    place.run(&["hold", "add", &all[0]]).expect_code(0);
    let hold = place.objects("holds").remove(0);
    assert!(hold.ends_with(&all[0]));
    for damage in [&b"garbage"[..], b""] {
        fs::write(&hold, damage).unwrap();
        place.run(&["forget", "--keep-last", "1"]).expect_code(0);
        assert_eq!(place.snapshots(), 2);
        let listed = place.run(&["hold", "list"]).expect_code(4);
        assert!(listed.stdout().contains(&all[0][..8]), "{}", listed.stdout());
        let checked = place.run(&["check"]).expect_code(4);
        assert!(checked.stdout().contains(&format!("holds/{}", all[0])), "{}", checked.stdout());
    }
    place.run(&["hold", "remove", &all[0]]).expect_code(0);
    // One that was moved to another snapshot is told, and holds.
    place.run(&["hold", "add", &all[0]]).expect_code(0);
    fs::rename(&hold, hold.with_file_name(&all[1])).unwrap();
    let checked = place.run(&["check"]).expect_code(4);
    assert!(checked.stdout().contains(&format!("holds/{}", all[1])), "{}", checked.stdout());
    place.run(&["forget", &all[1]]).expect_code(2);
}

#[test]
fn a_snapshot_under_hold_that_was_taken_away_is_told() {
    let place = Place::with_repository();
    let all: Vec<String> = ["one", "two"].iter().map(|text| take(&place, text, &[])).collect();
    place.run(&["hold", "add", &all[1]]).expect_code(0);
    fs::remove_file(object(&place, &all[1])).unwrap();
    // A machine without memory: nothing else names the newest.
    let fresh = ["--cache-dir", "another machine"];
    let checked = place.run(&[&fresh[..], &["check"]].concat()).expect_code(4);
    assert!(checked.stdout().contains(&format!("snapshots/{}: it is missing, and under hold", all[1])));
    let listed = place.run(&[&fresh[..], &["hold", "list"]].concat()).expect_code(4);
    assert!(listed.stdout().contains("missing"), "{}", listed.stdout());
    place.run(&["hold", "add", &all[1]]).expect_code(1);
    change(&object(&place, &all[0]), |bytes| bytes[1300] ^= 1);
    place.run(&["hold", "add", &all[0]]).expect_code(1);
}
