//! A cache that is not this machine's, or not of now: old, copied, of another repository, tenant or key.

use super::{Kept, copy, expect_equal, opened, replace, tenant_folder, warnings};
use crate::support::{Place, Ran, change, files_below, noise};
use estrato::repo::SnapshotObject;
use std::fs;
use std::path::{Path, PathBuf};

/// The place of every snapshot in its chain.
fn counters(place: &Place) -> Vec<([u8; 16], u64)> {
    let repo = opened(place, None, |store| store);
    let of = |id| match repo.snapshot(&id).unwrap() {
        SnapshotObject::Manifest(manifest, _) => (manifest.chain, manifest.counter),
        SnapshotObject::Tombstone(_) => panic!("nothing was forgotten"),
    };
    repo.snapshot_ids().unwrap().into_iter().map(of).collect()
}

/// Changes a file without changing its size, and puts the time of its content back.
fn change_unseen(path: &Path) {
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    change(path, |bytes| bytes.iter_mut().take(100).for_each(|b| *b ^= 0x55));
    fs::File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
}

#[test]
fn a_cache_put_back_from_a_backup_skips_nothing_that_changed() {
    let kept = Kept::new();
    let place = &kept.place;
    let old = place.path("old");
    copy(&kept.root(), &old);
    // What the old notes know changes, and the repository moves on.
    change_unseen(&place.path("source/text"));
    place.write("source/new", noise("new", 50_000));
    fs::remove_file(place.path("source/folder 1/later")).unwrap();
    kept.snapshot();
    change_unseen(&place.path("source/folder 2/small 2"));
    for round in 0..3 {
        replace(&kept.root(), Some(&old));
        place.write("source/round", noise(&format!("round {round}"), 3000));
        let manifest = kept.run_snapshot(&[]).json()["manifest"].clone();
        assert_ne!(manifest["summary"]["changed"]["entries"], 0, "{manifest}");
        kept.expect_whole();
        replace(&kept.root(), None);
        kept.expect_whole();
    }
}

#[test]
fn a_file_changed_as_the_noted_snapshot_began_is_read_again_by_old_notes_too() {
    let kept = Kept::new();
    let place = &kept.place;
    // Written, and at once noted: its times are not to be believed yet.
    let racy = place.write("source/racy", "one");
    kept.run_snapshot(&[]);
    let old = place.path("old");
    copy(&kept.root(), &old);
    fs::write(&racy, "two").unwrap();
    kept.run_snapshot(&[]);
    replace(&kept.root(), Some(&old));
    kept.run_snapshot(&[]);
    kept.expect_whole();
}

#[test]
fn two_machines_with_one_cache_and_one_name_harm_neither() {
    let kept = Kept::new();
    let place = &kept.place;
    let clones = ["one", "two"].map(|name| place.path(name));
    clones.iter().for_each(|clone| copy(&kept.root(), clone));
    for round in 0..3 {
        for clone in &clones {
            let more = ["--cache-dir", clone.to_str().unwrap()];
            change_unseen(&place.path("source/text"));
            place.write("source/round", noise(&format!("{round} {}", clone.display()), 70_000));
            let ran = kept.run_snapshot(&more);
            assert_eq!(ran.stderr(), "");
            let told = kept.expect_restored(&more);
            assert_eq!(told, "");
            place.run(&[&more[..], &["check", "--read-data"]].concat()).expect_code(0);
        }
    }
    kept.expect_whole();
    assert_eq!(place.snapshots(), 8);
    // A copied file begins a chain of its own: no number is given twice.
    let mut counters = counters(place);
    let all = counters.len();
    counters.sort();
    counters.dedup();
    assert_eq!(counters.len(), all);
}

#[test]
fn a_repository_put_back_from_a_backup_is_not_taken_for_the_newer_one() {
    let kept = Kept::new();
    let place = &kept.place;
    let old = place.path("old-repo");
    copy(&place.path("repo"), &old);
    place.write("source/newer", noise("newer", 400_000));
    change_unseen(&place.path("source/text"));
    kept.snapshot();
    // The cache knows index objects, packs and a snapshot that are not there any more.
    replace(&place.path("repo"), Some(&old));
    let told = place.run(&["ls"]).expect_code(0).stderr();
    assert!(told.contains("old state") && warnings(&told) == 1, "{told}");
    let ran = kept.run_snapshot(&[]);
    assert!(ran.stderr().contains("old state"), "{}", ran.stderr());
    place.run(&["check", "--read-data"]).expect_code(4);
    place.run(&["restore", "latest", "--target", "out after"]).expect_code(0);
    // A machine without a memory has nothing to miss but what the newest snapshot names.
    replace(&kept.root(), None);
    kept.run_snapshot(&[]);
    place.run(&["restore", "latest", "--target", "out anew"]).expect_code(0);
}

/// Puts the files of one tenant's folder in the place of another's, but for those of `but`.
fn transplant(from: &Path, to: &Path, but: &[&str]) {
    for file in files_below(from) {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        if !but.iter().any(|but| name.starts_with(but)) {
            fs::copy(&file, to.join(&name)).unwrap();
        }
    }
}

/// The notes in a folder.
fn notes(folder: &Path) -> PathBuf {
    let is_notes = |p: &PathBuf| p.file_name().unwrap().to_string_lossy().starts_with("source-");
    files_below(folder).into_iter().find(is_notes).unwrap()
}

#[test]
fn the_cache_of_another_repository_says_nothing_of_this_one() {
    let kept = Kept::new();
    let place = &kept.place;
    place.run(&["-r", "other", "init", "--new-key-file", "other-key"]).expect_code(0);
    let other = |arguments: &[&str]| {
        let mut command = place.command_in("source", &[&["--cache-dir", "../other-cache"], arguments].concat());
        Ran::of(command.env("ESTRATO_REPO", place.path("other")).env("ESTRATO_KEY_FILE", place.path("other-key")))
    };
    other(&["snapshot", "."]).expect_code(0);
    let (theirs, ours) = (tenant_folder(&place.path("other-cache")), kept.cache());
    let mine = notes(&ours);
    transplant(&theirs, &ours, &["source-"]);
    fs::copy(notes(&theirs), &mine).unwrap();
    change_unseen(&place.path("source/text"));
    let ran = kept.run_snapshot(&[]);
    assert!(ran.stderr().contains("another source"), "{}", ran.stderr());
    kept.expect_whole();
    // With the whole cache under this one's names.
    replace(&ours, Some(&theirs));
    change_unseen(&place.path("source/text"));
    kept.run_snapshot(&[]);
    kept.expect_whole();
}

#[test]
fn the_cache_of_another_tenant_says_nothing_of_this_one() {
    let kept = Kept::new();
    let place = &kept.place;
    let ours = kept.cache();
    place.run(&["tenant", "add", "other", "--new-key-file", "other-key"]).expect_code(0);
    let as_other = |arguments: &[&str]| {
        let mut command = place.command_in("source", &[&["-t", "other"], arguments].concat());
        Ran::of(command.env("ESTRATO_KEY_FILE", place.path("other-key")))
    };
    as_other(&["snapshot", "."]).expect_code(0);
    let above = ours.parent().unwrap();
    let is_folder = |p: &PathBuf| p.is_dir() && *p != ours;
    let theirs = fs::read_dir(above).unwrap().map(|e| e.unwrap().path()).find(is_folder).unwrap();
    transplant(&theirs, &ours, &[]);
    change_unseen(&place.path("source/text"));
    kept.run_snapshot(&[]);
    kept.expect_whole();
    let mine = notes(&ours);
    transplant(&ours, &theirs, &["source-"]);
    fs::copy(&mine, notes(&theirs)).unwrap();
    as_other(&["snapshot", "."]).expect_code(0);
    let out = place.path("theirs");
    as_other(&["restore", "latest", "--target", out.to_str().unwrap(), "--verify"]).expect_code(0);
    expect_equal(&place.path("source"), &out);
    as_other(&["check", "--read-data"]).expect_code(0);
}

#[test]
fn the_notes_of_another_key_say_nothing_to_this_one() {
    let kept = Kept::new();
    let place = &kept.place;
    place.run(&["key", "add", "--role", "writer", "--new-key-file", "writer"]).expect_code(0);
    let as_writer = || {
        Ran::of(
            place.command_in("source", &["snapshot", ".", "--json"]).env("ESTRATO_KEY_FILE", place.path("writer")),
        )
        .expect_code(0)
    };
    let full = notes(&kept.cache());
    kept.settle();
    as_writer();
    let writer = files_below(&kept.cache())
        .into_iter()
        .find(|p| p.file_name().unwrap().to_string_lossy().starts_with("source-") && *p != full)
        .unwrap();
    change_unseen(&place.path("source/text"));
    kept.settle();
    // The writer's notes as the full key's, and the other way around.
    let mine = fs::read(&full).unwrap();
    fs::copy(&writer, &full).unwrap();
    let ran = kept.run_snapshot(&[]);
    assert!(ran.stderr().contains("another source"), "{}", ran.stderr());
    kept.expect_whole();
    fs::write(&writer, mine).unwrap();
    change_unseen(&place.path("source/text"));
    let ran = as_writer();
    assert!(ran.stderr().contains("another source"), "{}", ran.stderr());
    kept.expect_whole();
    replace(&kept.root(), None);
    kept.expect_whole();
}
