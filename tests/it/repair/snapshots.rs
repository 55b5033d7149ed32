//! `estrato repair snapshots`: what is lost goes, what is left stands under a snapshot of its own.

use super::{Tree, days, largest, tree};
use crate::support::{Place, change, noise};
use serde_json::Value;
use std::fs;

#[track_caller]
fn repair(place: &Place, more: &[&str], code: i32) -> Value {
    place.run(&[&["repair", "snapshots", "--json"], more].concat()).expect_code(code).json()
}

/// A repository of two folders in packs of their own, and one snapshot of both.
fn folders() -> (Place, Tree) {
    let place = Place::with_repository();
    for (folder, files) in [("one", &["a", "b"][..]), ("two", &["c"])] {
        for name in files {
            place.write(format!("source/{folder}/{name}"), noise(name, 3000));
        }
        place.snapshot(&[]);
    }
    let first = place.run(&["snapshots", "--json"]).json()[0]["id"].as_str().unwrap().to_owned();
    place.run(&["forget", &first]).expect_code(0);
    let files = tree(&place.path("source"));
    (place, files)
}

/// The pack of data that was written first: `one/a` and `one/b` lie there.
fn first_data(place: &Place) -> std::path::PathBuf {
    let mut packs = place.objects("packs");
    packs.sort_by_key(|path| fs::metadata(path).unwrap().modified().unwrap());
    largest(packs[..2].to_vec())
}

#[track_caller]
fn restored(place: &Place, id: &str) -> Tree {
    let _ = fs::remove_dir_all(place.path("out"));
    let ran = place.run(&["--cache-dir", "another", "restore", id, "--target", "out"]).expect_code(0);
    assert!(!ran.stderr().contains("error"), "{}", ran.stderr());
    tree(&place.path("out"))
}

#[test]
fn healthy_snapshots_stay_as_they_are() {
    let (place, _) = days(3);
    let before = tree(&place.path("repo"));
    for more in [&[][..], &["--dry-run"], &["latest"]] {
        let done = repair(&place, more, 0);
        assert_eq!(done["mended"], Value::Array(Vec::new()), "{done}");
        assert!(tree(&place.path("repo")) == before, "it was changed");
    }
    let text = place.run(&["repair", "snapshots"]).expect_code(0).stdout();
    assert_eq!(text, "3 snapshots looked at: nothing is lost\n");
}

#[test]
fn a_snapshot_without_its_lost_files_stands_beside_it_and_is_the_latest() {
    let (place, files) = folders();
    let old = place.run(&["snapshots", "--json"]).json()[0]["id"].as_str().unwrap().to_owned();
    fs::remove_file(first_data(&place)).unwrap();
    let before = tree(&place.path("repo"));
    let dry = repair(&place, &["--dry-run"], 4);
    assert_eq!((&dry["mended"][0]["files"], &dry["mended"][0]["by"]), (&2.into(), &Value::Null), "{dry}");
    assert!(tree(&place.path("repo")) == before);

    let done = repair(&place, &[], 0);
    let mended = &done["mended"][0];
    assert_eq!(
        (&mended["snapshot"], &mended["files"], &mended["bytes"]),
        (&old.clone().into(), &2.into(), &6000.into())
    );
    assert_eq!(mended["dropped"][0]["path"], "/one/a");
    let new = mended["by"].as_str().unwrap().to_owned();
    let left: Tree =
        files.iter().filter(|(name, _)| name.ends_with("c")).map(|(n, b)| (n.clone(), b.clone())).collect();
    assert!(restored(&place, &new) == left && restored(&place, "latest") == left);
    // The old manifest is as it was, and the new one says what it is.
    assert_eq!(
        fs::read(place.path(format!("repo/tenants/default/snapshots/{old}"))).unwrap(),
        before[std::path::Path::new(&format!("tenants/default/snapshots/{old}"))]
    );
    let listed = place.run(&["snapshots", "--json"]).expect_code(0).json();
    assert_eq!((listed[0]["id"].as_str(), listed[1]["id"].as_str()), (Some(&*old), Some(&*new)));
    let (was, is) = (&listed[0]["manifest"], &listed[1]["manifest"]);
    for same in ["time", "started", "host", "paths", "source", "tags", "kind", "user"] {
        assert_eq!(was[same], is[same], "{same}");
    }
    assert_eq!((&is["repaired"]["of"], &is["repaired"]["files"]), (&old.clone().into(), &2.into()));
    let text = place.run(&["snapshots"]).expect_code(0).stdout();
    assert!(
        text.contains(&format!("{} is {} without 2 files (6.0 kB), which are lost\n", &new[..8], &old[..8])),
        "{text}"
    );
    let checked = place.run(&["check"]).expect_code(4).stdout();
    let told = format!("snapshot {} is incomplete: {} stands for it, without what is lost\n", &old[..8], &new[..8]);
    assert!(checked.contains(&told), "{checked}");
    assert!(!checked.contains(&format!("needed by snapshot {}", &new[..8])), "{checked}");

    // Once is enough.
    let again = tree(&place.path("repo"));
    let done = repair(&place, &[], 0);
    assert_eq!((&done["mended"][0]["was_there"], &done["mended"][0]["by"]), (&true.into(), &new.clone().into()));
    assert!(tree(&place.path("repo")) == again);
    // Without the old one all is well, and a prune runs.
    place.run(&["forget", &old]).expect_code(0);
    place.run(&["repair", "index"]).expect_code(0);
    let checked = place.run(&["check"]);
    assert!(!checked.stdout().contains("needed by"), "{}", checked.stdout());
    place.run(&["prune"]).expect_code(0);
    assert!(restored(&place, "latest") == left);
}

#[test]
fn of_a_folder_whose_segment_is_lost_the_rest_stays() {
    let (place, files) = folders();
    // The trees of the first snapshot: that of `one` is among them, and needed by the second.
    let mut packs = place.objects("packs");
    packs.sort_by_key(|path| fs::metadata(path).unwrap().modified().unwrap());
    let trees = packs[..2].iter().min_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    fs::remove_file(trees).unwrap();
    let done = repair(&place, &[], 0);
    let mended = &done["mended"][0];
    assert_eq!((&mended["files"], &mended["folders"]), (&0.into(), &1.into()), "{done}");
    assert_eq!((&mended["dropped"][0]["path"], &mended["dropped"][0]["bytes"]), (&"/one".into(), &Value::Null));
    let left: Tree =
        files.iter().filter(|(name, _)| name.ends_with("c")).map(|(n, b)| (n.clone(), b.clone())).collect();
    let new = mended["by"].as_str().unwrap();
    assert!(restored(&place, new) == left);
    assert!(place.path("out/one").is_dir(), "the folder itself is known");
    let text = place.run(&["repair", "snapshots"]).expect_code(0).stdout();
    assert!(text.contains("part of folder /one: ") && text.contains("was repaired before"), "{text}");
    assert_eq!(repair(&place, &[], 0)["mended"][0]["was_there"], true);
}

#[test]
fn what_a_damaged_pack_still_gives_stays() {
    let (place, all) = days(4);
    let data = largest(place.objects("packs"));
    let flip = |at: usize| change(&data, |bytes| bytes[at] ^= 1);
    // Its trailer, which no reader needs who has the index: on record, and all of it can be read.
    let trailer = fs::metadata(&data).unwrap().len() as usize - 50;
    flip(trailer);
    place.run(&["check", "--read-data"]).expect_code(4);
    assert_eq!(repair(&place, &[], 0)["mended"], Value::Array(Vec::new()));
    // Its first frame.
    flip(1200);
    let done = repair(&place, &[], 0);
    assert_eq!(done["mended"].as_array().unwrap().len(), 4, "each rests on it: {done}");
    for mended in done["mended"].as_array().unwrap() {
        let (_, files) = all.iter().find(|(id, _)| *id == mended["snapshot"].as_str().unwrap()).unwrap();
        let lost: Vec<&str> =
            mended["dropped"].as_array().unwrap().iter().map(|d| d["path"].as_str().unwrap()).collect();
        let is_left = |name: &std::path::Path| !lost.contains(&format!("/{}", name.display()).as_str());
        let left: Tree = files.iter().filter(|(n, _)| is_left(n)).map(|(n, b)| (n.clone(), b.clone())).collect();
        assert!(!lost.is_empty() && restored(&place, mended["by"].as_str().unwrap()) == left, "{mended}");
    }
}

#[test]
fn more_loss_makes_another_and_what_comes_back_is_used() {
    let (place, files) = folders();
    let first = first_data(&place);
    let whole = fs::read(&first).unwrap();
    fs::remove_file(&first).unwrap();
    let one = repair(&place, &[], 0)["mended"][0]["by"].as_str().unwrap().to_owned();
    // The trees that the repair has written, and what it stands for, stay as they are; it loses them.
    let old = place.run(&["snapshots", "--json"]).json()[0]["id"].as_str().unwrap().to_owned();
    let packs = place.objects("packs");
    let newest = packs.iter().max_by_key(|path| fs::metadata(path).unwrap().modified().unwrap()).unwrap();
    fs::remove_file(newest).unwrap();
    let done = repair(&place, &[], 0);
    assert_eq!(done["mended"].as_array().unwrap().len(), 1, "the old one alone: {done}");
    let mended = &done["mended"][0];
    assert_eq!((&mended["snapshot"], &mended["was_there"]), (&old.clone().into(), &false.into()), "{done}");
    assert_ne!(mended["by"], one.as_str());
    fs::write(&first, whole).unwrap();
    assert_eq!(repair(&place, &[&*old], 0)["mended"], Value::Array(Vec::new()));
    assert!(restored(&place, &old) == files);
}

#[test]
fn what_cannot_be_repaired_is_told() {
    let (place, _) = folders();
    let id = place.snapshot(&["--tag", "x"])["snapshot"].as_str().unwrap().to_owned();
    change(&place.path(format!("repo/tenants/default/snapshots/{id}")), |bytes| bytes[1300] ^= 1);
    let done = repair(&place, &[], 4);
    assert_eq!(
        (&done["damaged"][0], &done["looked"]),
        (&format!("tenants/default/snapshots/{id}").into(), &1.into())
    );
    fs::remove_file(place.path(format!("repo/tenants/default/snapshots/{id}"))).unwrap();
    // All trees of the other one.
    let trees: Vec<_> =
        place.objects("packs").into_iter().filter(|p| fs::metadata(p).unwrap().len() < 2500).collect();
    assert!(!trees.is_empty());
    trees.iter().for_each(|path| fs::remove_file(path).unwrap());
    let snapshots = place.objects("snapshots");
    let done = repair(&place, &[], 4);
    assert_eq!(done["mended"][0]["why_not"], "nothing of it can be read", "{done}");
    assert_eq!(place.objects("snapshots"), snapshots);
}

#[test]
fn what_only_the_index_lacks_is_not_lost() {
    let (place, _) = days(2);
    let objects = place.objects("index");
    let kept = fs::read(&objects[0]).unwrap();
    change(&objects[0], |bytes| bytes[100] ^= 1);
    let said = place.run(&["--cache-dir", "fresh", "repair", "snapshots"]).expect_code(1);
    assert!(said.stderr().contains("the index is to be repaired before"), "{}", said.stderr());
    fs::remove_file(&objects[0]).unwrap();
    let snapshots = place.objects("snapshots");
    let said = place.run(&["--cache-dir", "fresh", "repair", "snapshots"]).expect_code(1);
    assert!(said.stderr().contains("may hold what is missed"), "{}", said.stderr());
    assert_eq!(place.objects("snapshots"), snapshots);
    fs::write(&objects[0], kept).unwrap();
}

#[test]
fn retention_counts_a_repaired_snapshot_in_the_place_of_the_one_that_it_repairs() {
    let place = Place::with_repository();
    place.run(&["key", "add", "--role", "writer", "--label", "writer", "--new-key-file", "writer"]).expect_code(0);
    for n in 0..4 {
        place.write("source/always", noise("always", 3000));
        place.write(format!("source/{n}"), noise(&format!("{n}"), 3000));
        let time = format!("2020-01-0{}T00:00:00Z", n + 1);
        let mut command = place.command_in("source", &["snapshot", ".", "--time", &time]);
        crate::support::Ran::of(command.env("ESTRATO_KEY_FILE", place.path("writer"))).expect_code(0);
    }
    let mut packs = place.objects("packs");
    packs.sort_by_key(|path| fs::metadata(path).unwrap().modified().unwrap());
    // What the second has that the first has not.
    fs::remove_file(largest(packs[2..4].to_vec())).unwrap();
    let done = repair(&place, &[], 0);
    assert_eq!(done["mended"].as_array().unwrap().len(), 3, "{done}");
    // By days each repaired one takes the place of its own: the damaged ones go, and no day with them.
    let dry = place.run(&["forget", "--keep-daily", "4", "--dry-run", "--json"]).expect_code(0).json();
    let groups = dry["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 1, "one group, though other keys have signed: {dry}");
    place.run(&["forget", "--keep-daily", "4"]).expect_code(0);
    let left = place.run(&["snapshots", "--json"]).expect_code(0).json();
    let mut days: Vec<&str> =
        left.as_array().unwrap().iter().map(|s| s["manifest"]["time"].as_str().unwrap()).collect();
    days.dedup();
    assert_eq!(days.len(), 4, "{left}");
    for mended in done["mended"].as_array().unwrap() {
        assert!(left.as_array().unwrap().iter().any(|s| s["id"] == mended["by"]), "{left}");
    }
}
