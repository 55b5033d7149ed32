//! Which paths a snapshot takes, where it puts them, what it leaves out.

use super::tree::{entries, same_tree};
use super::{place, summary};
use crate::support::{Place, Ran, is_root};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Takes a snapshot in the folder `source`.
#[track_caller]
fn taken(place: &Place, arguments: &[&str]) -> Ran {
    Ran::of(&mut place.command_in("source", &[&["snapshot"], arguments].concat())).expect_code(0)
}

/// A place whose source holds some files in folders.
fn filled() -> Place {
    let place = place();
    for path in ["a/one.txt", "a/two.log", "a/deep/three.txt", "b/four.txt", "b/cache/five", "six.log"] {
        let path = place.path("source").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, path.as_os_str().as_encoded_bytes()).unwrap();
    }
    place
}

/// Paths of everything that a restore of the newest snapshot makes.
#[track_caller]
fn restored(place: &Place, target: &str) -> Vec<PathBuf> {
    place.restore(target, &[]);
    entries(&place.path(target)).into_keys().collect()
}

fn paths(names: &[&str]) -> Vec<PathBuf> {
    names.iter().map(PathBuf::from).collect()
}

#[test]
fn the_current_folder_is_stored_as_what_it_holds() {
    let place = filled();
    for (number, path) in [".", "./", "././"].iter().enumerate() {
        taken(&place, &[path]);
        let target = format!("out-{number}");
        place.restore(&target, &[]);
        same_tree(&place.path("source"), &place.path(target));
    }
}

#[test]
fn a_relative_path_is_stored_as_it_was_given() {
    let place = filled();
    taken(&place, &["a/deep", "./b/four.txt"]);
    assert_eq!(restored(&place, "out"), paths(&["a", "a/deep", "a/deep/three.txt", "b", "b/four.txt"]));
    taken(&place, &["six.log"]);
    assert_eq!(restored(&place, "single"), paths(&["six.log"]));
}

#[test]
fn an_absolute_path_is_stored_below_its_full_name() {
    let place = filled();
    let source = place.path("source");
    let (a, b) = (source.join("a"), source.join("b/four.txt"));
    taken(&place, &[a.to_str().unwrap(), b.to_str().unwrap()]);
    let back = restored(&place, "out");
    let below = Path::new("out").join(source.strip_prefix("/").unwrap());
    same_tree(&a, &place.path(below.join("a")));
    assert_eq!(fs::read(place.path(below.join("b/four.txt"))).unwrap(), fs::read(&b).unwrap());
    assert!(!back.iter().any(|p| p.ends_with("six.log") || p.ends_with("cache")), "{back:?}");
    // The folders above have what they have.
    let mode = |path: &Path| std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).unwrap().permissions());
    assert_eq!(mode(&place.path(below)), mode(&source));
}

#[test]
fn a_path_that_climbs_is_stored_below_its_full_name() {
    let place = filled();
    fs::create_dir(place.path("beside")).unwrap();
    fs::write(place.path("beside/file"), "beside").unwrap();
    taken(&place, &["../beside"]);
    place.restore("out", &[]);
    let below = place.path("out").join(place.path("beside").strip_prefix("/").unwrap());
    same_tree(&place.path("beside"), &below);
}

#[test]
fn links_above_a_named_path_are_followed_and_a_named_link_is_kept() {
    let place = filled();
    std::os::unix::fs::symlink("a", place.path("source/link")).unwrap();
    taken(&place, &["link/deep"]);
    let back = restored(&place, "out");
    assert_eq!(back, paths(&["link", "link/deep", "link/deep/three.txt"]));
    taken(&place, &["link"]);
    assert_eq!(restored(&place, "alone"), paths(&["link"]));
    assert_eq!(fs::read_link(place.path("alone/link")).unwrap(), Path::new("a"));
}

#[test]
fn a_path_that_is_not_there_makes_no_snapshot() {
    let place = filled();
    for wrong in [&["missing"][..], &["a", "missing"], &["/no/such"], &["six.log/below"], &["a", "b/five"]] {
        let ran = Ran::of(&mut place.command_in("source", &[&["snapshot"], wrong].concat())).expect_code(1);
        let named = wrong.last().unwrap();
        assert!(ran.stderr().contains(named), "{wrong:?}: {}", ran.stderr());
    }
    for usage in [&[][..], &[".", "a"]] {
        Ran::of(&mut place.command_in("source", &[&["snapshot"], usage].concat())).expect_code(2);
    }
    assert_eq!(place.snapshots(), 0);
}

#[test]
fn what_matches_a_pattern_is_left_out() {
    let place = filled();
    fs::write(place.path("patterns"), "# a comment\n\ncache/\n!two.log\n").unwrap();
    let file = place.path("patterns");
    taken(&place, &[".", "--exclude", "*.log", "--exclude", "/a/deep", "--exclude-file", file.to_str().unwrap()]);
    assert_eq!(restored(&place, "out"), paths(&["a", "a/one.txt", "a/two.log", "b", "b/four.txt"]));
    // What was left out is not said to be removed, and is new when it comes in.
    let all = taken(&place, &[".", "--json"]).json();
    assert_eq!(summary(&all, &["added", "entries"]), 5);
    let less = taken(&place, &[".", "--json", "--exclude", "*.txt"]).json();
    assert_eq!((summary(&less, &["removed", "entries"]), summary(&less, &["total", "entries"])), (3, 7));
    let wrong = Ran::of(&mut place.command_in("source", &["snapshot", ".", "--exclude-file", "/no/such"]));
    assert!(![0, 3].contains(&wrong.code()));
}

#[test]
fn a_dry_run_tells_and_stores_nothing() {
    let place = filled();
    let objects = || entries(&place.path("repo"));
    for prepared in [false, true] {
        if prepared {
            taken(&place, &["."]);
            fs::write(place.path("source/new"), "12345").unwrap();
            super::let_times_grow_old();
        }
        let before = objects();
        let told = taken(&place, &[".", "--dry-run", "--json"]).json();
        assert_eq!(told["snapshot"], serde_json::Value::Null);
        assert_eq!(summary(&told, &["total", "entries"]), if prepared { 11 } else { 10 });
        assert_eq!(summary(&told, &["added", "entries"]), if prepared { 1 } else { 10 });
        assert!(before == objects(), "something was stored");
    }
    // It spoils no notes: the next snapshot is right.
    let next = taken(&place, &[".", "--json"]).json();
    assert_eq!((summary(&next, &["added", "entries"]), summary(&next, &["added", "bytes"])), (1, 5));
    place.restore("out", &[]);
    same_tree(&place.path("source"), &place.path("out"));
}

/// A small file system in a folder, gone with this value.
struct Mounted(PathBuf);

impl Mounted {
    fn at(path: PathBuf) -> Option<Self> {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&path).status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(path))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn another_file_system_is_left_out_but_for_its_mount_point() {
    let place = filled();
    let Some(mounted) = is_root().then(|| Mounted::at(place.path("source/a/deep"))).flatten() else {
        eprintln!("skipped: nothing can be mounted here");
        return;
    };
    fs::write(place.path("source/a/deep/mounted"), "x").unwrap();
    taken(&place, &[".", "--one-file-system"]);
    let back = restored(&place, "out");
    assert!(back.contains(&"a/deep".into()) && !back.contains(&"a/deep/mounted".into()), "{back:?}");
    taken(&place, &["."]);
    assert!(restored(&place, "all").contains(&"a/deep/mounted".into()));
    // A mount point that was named is gone into.
    taken(&place, &["a/deep", "--one-file-system"]);
    assert_eq!(restored(&place, "named"), paths(&["a", "a/deep", "a/deep/mounted"]));
    let full = place.path("source/a");
    taken(&place, &[full.to_str().unwrap(), "--one-file-system"]);
    assert!(!restored(&place, "above").iter().any(|p| p.ends_with("mounted")));
    drop(mounted);
}
