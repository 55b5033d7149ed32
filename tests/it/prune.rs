//! Pruning through the program: what nothing needs goes and everything else restores, who stands in its
//! way is named, and what cannot be known stops it.

mod beside;
mod left;
mod optimised;

use crate::support::{Place, Ran, change, files_below, noise};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// A source with a day's changes: some files are new, one large one changes in part, one goes.
fn day(place: &Place, n: usize) {
    let mut table = noise("table", 400_000);
    for change in 0..=n {
        let at = change * 37_000 % 390_000;
        table[at..at + 200].copy_from_slice(&noise(&format!("row {change}"), 200));
    }
    place.write("source/table", table);
    place.write(format!("source/new/{n}"), noise(&format!("new {n}"), 30_000));
    place.write("source/always", noise(&format!("always {n}"), 60_000));
    let _ = fs::remove_file(place.path(format!("source/new/{}", n.wrapping_sub(3))));
}

type Tree = BTreeMap<PathBuf, Vec<u8>>;

fn tree(folder: PathBuf) -> Tree {
    let files = files_below(&folder).into_iter();
    files.map(|path| (path.strip_prefix(&folder).unwrap().to_owned(), fs::read(&path).unwrap())).collect()
}

/// Takes a snapshot; its id, and what it holds.
fn take(place: &Place, more: &[&str]) -> (String, Tree) {
    let id = place.snapshot(more)["snapshot"].as_str().unwrap().to_owned();
    (id, tree(place.path("source")))
}

#[track_caller]
fn prune(place: &Place, more: &[&str]) -> Value {
    place.run(&[&["prune", "--json"], more].concat()).expect_code(0).json()
}

/// Everything that is kept restores, and a check of all data finds nothing.
#[track_caller]
fn assert_whole(place: &Place, kept: &[(String, Tree)]) {
    let checked = place.run(&["check", "--read-data"]).expect_code(0);
    assert!(checked.stdout().contains("no damage"), "{}", checked.stdout());
    assert_eq!(place.snapshots(), kept.len());
    for (n, (id, expected)) in kept.iter().enumerate() {
        let target = format!("restored/{n}");
        let _ = fs::remove_dir_all(place.path(&target));
        place.run(&["restore", id, "--target", &target]).expect_code(0);
        assert!(tree(place.path(&target)) == *expected, "snapshot {id} gives back something else");
    }
}

fn stored(place: &Place) -> u64 {
    place.objects("packs").iter().map(|pack| fs::metadata(pack).unwrap().len()).sum()
}

/// Days of snapshots, of which the last `keep` are kept and the others forgotten.
fn forgotten(days: usize, keep: usize) -> (Place, Vec<(String, Tree)>) {
    let place = Place::with_repository();
    let mut all = Vec::new();
    for n in 0..days {
        day(&place, n);
        all.push(take(&place, &[]));
    }
    place.run(&["forget", "--keep-last", &keep.to_string()]).expect_code(0);
    (place, all.split_off(days - keep))
}

#[test]
fn what_no_snapshot_needs_goes_and_what_is_left_is_little_more_than_a_fresh_repository() {
    let (place, kept) = forgotten(8, 1);
    let before = stored(&place);
    let done = prune(&place, &[]);
    assert_eq!(done["waiting"], Value::Array(Vec::new()));
    assert!(done["deleted_packs"].as_u64().unwrap() > 0, "{done}");
    assert_whole(&place, &kept);
    let fresh = Place::with_repository();
    for (name, bytes) in &kept[0].1 {
        fresh.write(PathBuf::from("source").join(name), bytes);
    }
    fresh.snapshot(&[]);
    let (left, needed) = (stored(&place), stored(&fresh));
    assert!(left * 10 <= needed * 11 && left < before, "{left} bytes of {before}, {needed} in a fresh one");
    // Once more: there is nothing to do, and no plan is made for it.
    let plans = place.objects("prune");
    assert_eq!(prune(&place, &[])["deleted_packs"], 0);
    assert_eq!(place.objects("prune"), plans);
    // And it is a repository like any other.
    day(&place, 20);
    let next = take(&place, &[]);
    assert_whole(&place, &[kept, vec![next]].concat());
}

#[test]
fn what_is_needed_of_a_pack_stays_however_little_it_is() {
    let place = Place::with_repository();
    place.write("source/one byte", "x");
    place.write("source/empty", "");
    place.write("source/large", "all alike, and packed to next to nothing\n".repeat(4_000));
    place.snapshot(&[]);
    fs::remove_file(place.path("source/large")).unwrap();
    let kept = take(&place, &[]);
    place.run(&["forget", "--keep-last", "1"]).expect_code(0);
    for more in [&[][..], &["--max-unused", "0%"]] {
        prune(&place, more);
        assert_whole(&place, std::slice::from_ref(&kept));
    }
}

#[test]
fn a_dry_run_changes_nothing() {
    let (place, kept) = forgotten(4, 2);
    let before = tree(place.path("repo"));
    let said = place.run(&["prune", "--dry-run"]).expect_code(0);
    assert!(said.stdout().contains("no snapshot needs any of it"), "{}", said.stdout());
    let planned = prune(&place, &["--dry-run"]);
    assert!(planned["planned"]["unused"]["packs"].as_u64().unwrap() > 0, "{planned}");
    assert!(tree(place.path("repo")) == before);
    assert_whole(&place, &kept);
}

#[test]
fn little_is_written_anew_where_that_is_bounded() {
    let (place, kept) = forgotten(6, 2);
    let done = prune(&place, &["--max-repack", "0"]);
    assert_eq!((&done["written_bytes"], &done["planned"]["repacked"]["packs"]), (&0.into(), &0.into()));
    assert_whole(&place, &kept);
    let done = prune(&place, &["--max-unused", "0%"]);
    assert!(done["written_bytes"].as_u64().unwrap() > 0, "{done}");
    assert_whole(&place, &kept);
    assert_eq!(place.run(&["prune", "--max-unused", "101%"]).code(), 2);
}

#[test]
fn many_small_packs_and_index_objects_become_few() {
    let place = Place::with_repository();
    let mut kept = Vec::new();
    for n in 0..20 {
        day(&place, n);
        kept.push(take(&place, &[]));
    }
    let before = (place.objects("packs").len(), place.objects("index").len());
    prune(&place, &[]);
    let after = (place.objects("packs").len(), place.objects("index").len());
    assert!(after.0 * 4 < before.0 && after.1 * 4 < before.1, "{before:?} {after:?}");
    assert_whole(&place, &kept);
}

#[test]
fn a_writers_key_prunes_nothing() {
    let (place, kept) = forgotten(3, 1);
    place.run(&["key", "add", "--role", "writer", "--label", "w", "--new-key-file", "w"]).expect_code(0);
    let before = tree(place.path("repo"));
    place.run_as("w", &["prune"]).expect_code(12);
    place.run_as("w", &["prune", "--dry-run"]).expect_code(12);
    assert!(tree(place.path("repo")) == before);
    assert_whole(&place, &kept);
}

#[test]
fn what_a_writer_has_stored_is_proved_before_a_full_key_answers_for_it() {
    let place = Place::with_repository();
    place.run(&["key", "add", "--role", "writer", "--label", "w", "--new-key-file", "w"]).expect_code(0);
    let mut kept = Vec::new();
    for n in 0..4 {
        day(&place, n);
        let mut command = place.command_in("source", &["snapshot", ".", "--json"]);
        let ran = Ran::of(command.env("ESTRATO_KEY_FILE", place.path("w"))).expect_code(0);
        kept.push((ran.json()["snapshot"].as_str().unwrap().to_owned(), tree(place.path("source"))));
    }
    place.run(&["forget", "--keep-last", "1"]).expect_code(0);
    let kept = kept.split_off(3);
    prune(&place, &["--max-unused", "0%"]);
    assert_whole(&place, &kept);
    // A pack of the writer's is not what its entry says: nothing goes, and nobody answers for it.
    let old = place.objects("packs");
    let snapshot = |n| {
        day(&place, n);
        let mut command = place.command_in("source", &["snapshot", ".", "--json"]);
        let ran = Ran::of(command.env("ESTRATO_KEY_FILE", place.path("w"))).expect_code(0);
        ran.json()["snapshot"].as_str().unwrap().to_owned()
    };
    let doomed = snapshot(9);
    let new = place.objects("packs").into_iter().filter(|pack| !old.contains(pack));
    let largest = new.max_by_key(|pack| fs::metadata(pack).unwrap().len()).unwrap();
    snapshot(10);
    change(&largest, |bytes| bytes.iter_mut().skip(1_500).step_by(500).for_each(|b| *b ^= 1));
    place.run(&["forget", &doomed]).expect_code(0);
    let (before, plans) = (tree(place.path("repo/tenants/default/packs")), place.objects("prune"));
    let told = place.run(&["prune", "--max-unused", "0%"]).expect_code(1);
    assert!(told.stderr().contains("is damaged"), "{}", told.stderr());
    let after = tree(place.path("repo/tenants/default/packs"));
    assert!(before.iter().all(|(name, bytes)| after.get(name) == Some(bytes)), "a pack was deleted");
    assert_eq!(place.objects("prune"), plans, "and no plan is in force for ever");
}

#[test]
fn what_cannot_be_known_stops_it() {
    let (place, _) = forgotten(4, 2);
    let repo = place.path("repo");
    let whole = tree(repo.clone());
    let put = |objects: &Tree| {
        fs::remove_dir_all(&repo).unwrap();
        objects.iter().for_each(|(name, bytes)| drop(place.write(PathBuf::from("repo").join(name), bytes)));
    };
    let mut spoilt = Vec::new();
    for folder in ["snapshots", "index"] {
        let is_meant = |name: &PathBuf| name.to_string_lossy().contains(&format!("/{folder}/"));
        let mut damaged = whole.clone();
        damaged.iter_mut().filter(|(name, _)| is_meant(name)).for_each(|(_, bytes)| bytes[60] ^= 1);
        let mut missing = whole.clone();
        missing.retain(|name, _| !is_meant(name));
        spoilt.extend([(folder, damaged), (folder, missing)]);
    }
    let mut without_packs = whole.clone();
    without_packs.retain(|name, _| !name.to_string_lossy().contains("/packs/"));
    let mut with_litter = whole.clone();
    with_litter.insert("tenants/default/prune/00000001".into(), b"litter".to_vec());
    spoilt.extend([("packs", without_packs), ("plans", with_litter)]);
    for (what, objects) in spoilt {
        put(&objects);
        let said = place.run(&["prune"]);
        assert_eq!(said.code(), 1, "{what}: {}{}", said.stdout(), said.stderr());
        let now = tree(repo.clone());
        let changed: Vec<_> = now.keys().chain(objects.keys()).filter(|n| now.get(*n) != objects.get(*n)).collect();
        assert!(changed.is_empty(), "{what}: {changed:?}: {}{}", said.stdout(), said.stderr());
    }
    put(&whole);
    prune(&place, &[]);
}
