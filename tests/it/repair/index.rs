//! `estrato repair index`: the index comes back from packs alone.

use super::{days, is_whole, largest, tree};
use crate::support::{Place, change};
use serde_json::Value;
use std::fs;

#[track_caller]
fn repair(place: &Place, more: &[&str], code: i32) -> Value {
    place.run(&[&["repair", "index", "--json"], more].concat()).expect_code(code).json()
}

#[test]
fn a_healthy_index_stays_as_it_is() {
    let (place, all) = days(3);
    let before = tree(&place.path("repo"));
    for more in [&[][..], &["--dry-run"]] {
        let done = repair(&place, more, 0);
        assert_eq!(
            (&done["packs"], &done["replaced"], &done["deleted"]),
            (&0.into(), &0.into(), &0.into()),
            "{done}"
        );
        assert!(tree(&place.path("repo")) == before, "it was changed");
    }
    let text = place.run(&["repair", "index"]).expect_code(0).stdout();
    assert_eq!(text, "nothing is wrong with the index\n");
    is_whole(&place, &all);
}

#[test]
fn an_index_that_is_gone_comes_back_from_packs() {
    for cache in ["kept", "fresh"] {
        let (place, all) = days(5);
        let stats = |place: &Place| place.run(&["stats", "--json"]).expect_code(0).json();
        let before = stats(&place);
        place.objects("index").iter().for_each(|object| fs::remove_file(object).unwrap());
        let packs = place.objects("packs").len();
        if cache == "fresh" {
            fs::remove_dir_all(place.path(".cache")).unwrap();
        }
        let dry = repair(&place, &["--dry-run"], if cache == "fresh" { 0 } else { 4 });
        assert_eq!((&dry["packs"], place.objects("index").len()), (&packs.into(), 0), "{dry}");
        assert!(place.objects("sessions").is_empty());
        let done = repair(&place, &[], 0);
        assert_eq!((&done["named"], &done["unread_all"]), (&packs.into(), &0.into()), "{done}");
        assert!(place.objects("sessions").is_empty());
        let after = stats(&place);
        assert_eq!(before["frames"], after["frames"], "every frame, deltas as deltas");
        let again = tree(&place.path("repo"));
        repair(&place, &[], 0);
        assert!(tree(&place.path("repo")) == again, "once is enough");
        is_whole(&place, &all);
    }
}

#[test]
fn a_damaged_object_goes_once_packs_have_said_what_it_said() {
    let (place, all) = days(4);
    let objects = place.objects("index");
    change(&objects[0], |bytes| bytes[100] ^= 1);
    change(&objects[1], |bytes| bytes.truncate(50));
    place.write("repo/tenants/default/index/litter", b"litter");
    place.run(&["prune"]).expect_code(1);
    place.run(&["--cache-dir", "fresh", "check"]).expect_code(4);
    let done = repair(&place, &[], 0);
    assert_eq!((done["damaged"].as_array().unwrap().len(), &done["deleted"]), (3, &3.into()), "{done}");
    assert!(objects[..2].iter().all(|object| !object.exists()));
    is_whole(&place, &all);
    // Nor does a machine that knew them miss them.
    place.run(&["check"]).expect_code(0);
}

#[test]
fn what_a_machine_remembers_of_an_object_does_not_pass_for_the_object() {
    let (place, all) = days(2);
    place.run(&["check"]).expect_code(0);
    change(&place.objects("index")[0], |bytes| bytes[100] ^= 1);
    let done = repair(&place, &[], 0);
    assert_eq!(done["damaged"].as_array().unwrap().len(), 1, "{done}");
    is_whole(&place, &all);
}

#[test]
fn packs_that_no_object_names_are_indexed_and_their_blobs_not_sent_again() {
    let (place, _) = days(1);
    let objects = place.objects("index");
    objects.iter().for_each(|object| fs::remove_file(object).unwrap());
    place.objects("snapshots").iter().for_each(|object| fs::remove_file(object).unwrap());
    // Like a first backup that died before it came to its index.
    fs::remove_dir_all(place.path(".cache")).unwrap();
    assert_eq!(repair(&place, &["--dry-run"], 0)["packs"], 2);
    repair(&place, &[], 0);
    let packs = place.objects("packs");
    place.snapshot(&[]);
    assert_eq!(place.objects("packs"), packs, "all of it was there");
}

#[test]
fn frames_that_open_are_indexed_beside_one_that_does_not() {
    let (place, all) = days(4);
    let data = largest(place.objects("packs"));
    place.objects("index").iter().for_each(|object| fs::remove_file(object).unwrap());
    // In the first frame of the pack.
    change(&data, |bytes| bytes[1200] ^= 1);
    let done = repair(&place, &[], 4);
    let told: Vec<&Value> = done["unread"].as_array().unwrap().iter().filter(|u| u["frame"] == 0).collect();
    assert!(!told.is_empty(), "{done}");
    let name = data.file_name().unwrap().to_str().unwrap();
    assert!(told.iter().any(|unread| unread["pack"].as_str().unwrap().ends_with(name)), "{done}");
    // What the other frames hold is there, and what is damaged is on record: a backup stores it again.
    let id = &all[3].0;
    let ran = place.run(&["--cache-dir", "fresh", "restore", id, "--target", "part"]).expect_code(1);
    assert!(ran.stderr().contains("no index object names"), "{}", ran.stderr());
    assert!(!tree(&place.path("part")).is_empty());
    place.run(&["check", "--read-data"]).expect_code(4);
    let again = tree(&place.path("repo"));
    assert_eq!(repair(&place, &[], 4)["named"], 0);
    assert!(tree(&place.path("repo")) == again, "there is nothing more to win");
    let whole = place.snapshot(&["--kind", "full"])["snapshot"].as_str().unwrap().to_owned();
    place.run(&["--cache-dir", "fresh", "restore", &whole, "--target", "healed"]).expect_code(0);
    assert!(tree(&place.path("healed")) == all[3].1);
}

#[test]
fn what_a_damaged_object_may_have_said_of_an_unreadable_pack_is_not_given_up_unasked() {
    let (place, _) = days(3);
    let data = largest(place.objects("packs"));
    let whole = fs::read(&data).unwrap();
    let object = place.objects("index").into_iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    place.objects("index").iter().for_each(|path| change(path, |bytes| bytes[100] ^= 1));
    fs::remove_dir_all(place.path(".cache")).unwrap();
    // Its trailer.
    change(&data, |bytes| {
        let at = bytes.len() - 50;
        bytes[at] ^= 1;
    });
    let done = repair(&place, &[], 4);
    assert_eq!((&done["deleted"], &done["replaced"]), (&0.into(), &0.into()), "{done}");
    assert!(done["kept"][0].as_str().unwrap().contains(data.file_name().unwrap().to_str().unwrap()), "{done}");
    assert!(object.exists());
    // The pack comes back, and with it what the object had said.
    fs::write(&data, &whole).unwrap();
    let done = repair(&place, &[], 0);
    assert!(done["named"].as_u64().unwrap() >= 1, "with all that rests on it: {done}");
    assert!(!object.exists());
    place.run(&["check", "--read-data"]).expect_code(0);
}

#[test]
fn it_can_be_given_up() {
    let (place, all) = days(2);
    change(&place.objects("index")[0], |bytes| bytes[100] ^= 1);
    let litter = format!("repo/tenants/default/packs/aa/{}", "a".repeat(64));
    place.write(&litter, b"litter");
    assert!(!repair(&place, &[], 4)["kept"].as_array().unwrap().is_empty());
    place.run(&["--cache-dir", "fresh", "prune"]).expect_code(1);
    let done = repair(&place, &["--abandon-unreadable"], 4);
    assert_eq!((&done["deleted"], &done["kept"]), (&1.into(), &Value::Array(Vec::new())), "{done}");
    place.run(&["prune"]).expect_code(0);
    assert!(!place.path(&litter).exists());
    is_whole(&place, &all);
}

#[test]
fn it_needs_a_full_key_and_some_packs() {
    let (place, _) = days(1);
    place.run(&["key", "add", "--role", "writer", "--new-key-file", "writer"]).expect_code(0);
    let before = tree(&place.path("repo"));
    let said = place.run_as("writer", &["repair", "index"]).expect_code(12);
    assert!(said.stderr().contains("full key"), "{}", said.stderr());
    assert!(tree(&place.path("repo")) == before);
    place.objects("packs").iter().for_each(|pack| fs::remove_file(pack).unwrap());
    let said = place.run(&["repair", "index"]).expect_code(1);
    assert!(said.stderr().contains("lists no packs"), "{}", said.stderr());
    assert!(place.objects("sessions").is_empty());
}
