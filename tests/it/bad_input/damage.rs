//! Objects that were changed, swapped or lost in the store: what the matrix of damage does not show.

use crate::support::{Place, Ran, noise};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

/// A place with two snapshots: the first of `a`, the second of `a` and `b`; and the data pack and
/// index object that the first stored.
struct Two {
    place: Place,
    first: String,
    second: String,
    pack: PathBuf,
    index: PathBuf,
}

fn largest(paths: &[PathBuf]) -> PathBuf {
    paths.iter().max_by_key(|p| fs::metadata(p).unwrap().len()).unwrap().clone()
}

impl Two {
    fn new() -> Self {
        let place = Place::with_repository();
        place.write("source/a", noise("a", 300_000));
        let id = |v: Value| v["snapshot"].as_str().unwrap().to_owned();
        let first = id(place.snapshot(&[]));
        let (pack, index) = (largest(&place.objects("packs")), place.objects("index")[0].clone());
        place.write("source/b", noise("b", 200_000));
        let second = id(place.snapshot(&[]));
        Self { place, first, second, pack, index }
    }

    fn object(&self, id: &str) -> PathBuf {
        self.place.path("repo/tenants/default/snapshots").join(id)
    }

    fn listed(&self) -> (BTreeSet<String>, String) {
        let ran = self.place.run(&["snapshots", "--json"]).expect_code(4);
        let ids = ran.json().as_array().unwrap().iter().map(|s| s["id"].as_str().unwrap().to_owned()).collect();
        (ids, ran.stderr())
    }

    fn is_whole(&self, target: &str, snapshot: &str, names: &[&str]) {
        self.place.run(&["restore", snapshot, "--target", target, "--verify"]).expect_code(0);
        for name in names {
            assert_eq!(
                fs::read(self.place.path(target).join(name)).unwrap(),
                fs::read(self.place.path("source").join(name)).unwrap()
            );
        }
    }

    /// `check` finds damage to an object whose name ends so; the paths that need it, by snapshot.
    fn damage(&self, arguments: &[&str], end: &str) -> Value {
        let ran = self.place.run(&[&["check", "--json"], arguments].concat()).expect_code(4);
        let report = ran.json();
        let damage =
            report["damage"].as_array().unwrap().iter().find(|d| d["object"].as_str().unwrap().ends_with(end));
        damage.unwrap_or_else(|| panic!("no {end} in {report}"))["needed_by"].clone()
    }
}

#[test]
fn a_damaged_snapshot_is_named_and_hides_no_other() {
    let two = Two::new();
    let object = two.object(&two.first);
    let good = fs::read(&object).unwrap();
    let half = good.len() / 2;
    let mut flipped: Vec<Vec<u8>> = Vec::new();
    for at in [0, 4, 8, half, good.len() - 1] {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        flipped.push(bytes);
    }
    let cut = [good[..half].to_vec(), good[..7].to_vec(), Vec::new()];
    let other = fs::read(two.object(&two.second)).unwrap();
    for bytes in flipped.into_iter().chain(cut).chain([other]) {
        fs::write(&object, bytes).unwrap();
        let (ids, told) = two.listed();
        assert_eq!(ids, BTreeSet::from([two.second.clone()]));
        assert!(told.contains("warning") && told.contains(&format!("snapshot {}", &two.first[..8])), "{told}");
    }
    two.is_whole("out", "latest", &["a", "b"]);
    assert_eq!(two.place.run(&["restore", &two.first, "--target", "none"]).code(), 1);
    assert_eq!(two.damage(&[], &two.first), serde_json::json!({}));
    // It is never taken for one that was forgotten, and does not stop the next.
    two.place.snapshot(&[]);
    two.is_whole("again", "latest", &["a", "b"]);
}

#[test]
fn swapped_snapshots_are_both_refused() {
    let two = Two::new();
    let aside = two.place.path("aside");
    fs::rename(two.object(&two.first), &aside).unwrap();
    fs::rename(two.object(&two.second), two.object(&two.first)).unwrap();
    fs::rename(&aside, two.object(&two.second)).unwrap();
    assert_eq!(two.listed().0, BTreeSet::new());
    let ran = two.place.run(&["restore", "latest", "--target", "out"]).expect_code(1);
    assert!(ran.stderr().contains(&two.first[..8]), "{}", ran.stderr());
    assert!(!two.place.path("out").exists());
}

#[test]
fn a_lost_pack_is_named_with_the_paths_that_need_it_and_the_next_snapshot_mends_it() {
    let two = Two::new();
    fs::remove_file(&two.pack).unwrap();
    let name = two.pack.file_name().unwrap().to_str().unwrap();
    let needed = two.damage(&[], name);
    assert_eq!(needed[&two.first]["paths"], serde_json::json!(["/a"]));
    assert_eq!(needed[&two.second]["paths"], serde_json::json!(["/a"]));
    let ran = two.place.run(&["check"]).expect_code(4);
    assert!(ran.stdout().contains(name) && ran.stdout().contains(&two.second[..8]), "{}", ran.stdout());

    let ran = two.place.run(&["restore", "latest", "--target", "out"]).expect_code(1);
    assert!(ran.stderr().contains("error: ") && ran.stderr().contains("/a"), "{}", ran.stderr());
    assert_eq!(fs::read(two.place.path("out/b")).unwrap(), noise("b", 200_000));
    mended(&two);
}

/// The next snapshot stores what was lost again, and is whole.
fn mended(two: &Two) {
    let ran = Ran::of(&mut two.place.command_in("source", &["snapshot", ".", "--json"])).expect_code(0);
    let summary = &ran.json()["manifest"]["summary"];
    let new = summary["new_bytes"].as_u64().unwrap();
    assert!((300_000..490_000).contains(&new), "what was lost, and no more: {summary}");
    two.is_whole("mended", "latest", &["a", "b"]);
    // Nothing is lost any more, and nothing is read again for it.
    let next = two.place.snapshot(&[]);
    assert_eq!(next["manifest"]["summary"]["new_bytes"], 0, "{next}");
}

#[test]
fn a_lost_index_object_is_found_and_the_next_snapshot_mends_it() {
    let two = Two::new();
    fs::remove_file(&two.index).unwrap();
    let ran = two.place.run(&["check", "--json"]).expect_code(4);
    let told = ran.stdout();
    assert!(told.contains("\"/a\"") && told.contains(&two.first) && told.contains(&two.second), "{told}");
    two.place.run(&["restore", "latest", "--target", "out"]).expect_code(1);
    assert_eq!(fs::read(two.place.path("out/b")).unwrap(), noise("b", 200_000));
    mended(&two);
}

#[test]
fn a_store_that_lists_no_index_at_all_is_an_error_and_not_an_empty_repository() {
    let two = Two::new();
    for index in two.place.objects("index") {
        fs::remove_file(index).unwrap();
    }
    let commands: [&[&str]; 3] = [&["snapshot", "source"], &["ls"], &["restore", "latest", "--target", "out"]];
    for command in commands {
        let ran = two.place.run(command).expect_code(1);
        assert!(ran.stderr().contains("lists no index objects"), "{}", ran.stderr());
    }
    // A check goes on with what this machine remembers, and names what each of them knew.
    let needed = two.damage(&[], two.index.file_name().unwrap().to_str().unwrap());
    assert_eq!(needed[&two.second]["paths"], serde_json::json!(["/a"]));
    assert_eq!(two.place.objects("snapshots").len(), 2);
}
