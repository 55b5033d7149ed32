//! A store that shows less than it once held: each object that remains is genuine, and yet the lack
//! is told.

use crate::support::{Place, Ran, files_below};
use std::fs;
use std::path::{Path, PathBuf};

fn take(place: &Place, text: &str) -> String {
    place.write("source/a", text);
    place.snapshot(&[])["snapshot"].as_str().unwrap().to_owned()
}

fn object(place: &Place, id: &str) -> PathBuf {
    place.objects("snapshots").into_iter().find(|p| p.ends_with(id)).unwrap()
}

fn copy(from: &Path, to: &Path) {
    for file in files_below(from) {
        let at = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::copy(file, at).unwrap();
    }
}

/// What each command that looks at snapshots says of one that is missing.
fn assert_told(place: &Place, id: &str, more: &[&str]) {
    let short = &id[..8];
    let told = |ran: &Ran, text: &str| assert!(text.contains(short) && text.contains("missing"), "{}", ran.stderr());
    let ran = place.run(&[more, &["snapshots"]].concat()).expect_code(4);
    told(&ran, &ran.stderr());
    for command in [&["ls"][..], &["restore", "latest", "--target", "out"]] {
        let ran = place.run(&[more, command].concat()).expect_code(0);
        told(&ran, &ran.stderr());
    }
    for deep in [&["check"][..], &["check", "--read-data"]] {
        let ran = place.run(&[more, deep].concat()).expect_code(4);
        told(&ran, &ran.stdout());
        assert!(ran.stdout().contains(&format!("snapshots/{id}")), "{}", ran.stdout());
    }
}

#[test]
fn a_snapshot_that_was_taken_out_of_the_middle_is_missed_by_every_machine() {
    let place = Place::with_repository();
    let ids: Vec<String> = ["one", "two", "three"].iter().map(|text| take(&place, text)).collect();
    fs::remove_file(object(&place, &ids[1])).unwrap();
    assert_told(&place, &ids[1], &[]);
    assert_told(&place, &ids[1], &["--cache-dir", "another machine"]);
}

#[test]
fn an_old_state_of_the_whole_store_is_told_by_who_saw_a_newer_one() {
    let place = Place::with_repository();
    take(&place, "one");
    copy(&place.path("repo"), &place.path("old"));
    let newest = take(&place, "two");
    fs::rename(place.path("repo"), place.path("new")).unwrap();
    copy(&place.path("old"), &place.path("repo"));
    assert_told(&place, &newest, &[]);
    // It is told until it is mended; and one that was put back is missed no more.
    assert_told(&place, &newest, &[]);
    fs::remove_dir_all(place.path("repo")).unwrap();
    fs::rename(place.path("new"), place.path("repo")).unwrap();
    place.run(&["check", "--read-data"]).expect_code(0);
    assert_eq!(place.snapshots(), 2);
}

#[test]
fn a_snapshot_tells_that_the_one_before_it_is_missing_and_goes_on() {
    let place = Place::with_repository();
    take(&place, "one");
    let newest = take(&place, "two");
    fs::remove_file(object(&place, &newest)).unwrap();
    place.write("source/b", "more");
    let ran = Ran::of(&mut place.command_in("source", &["snapshot", "."])).expect_code(0);
    assert!(ran.stderr().contains(&newest[..8]) && ran.stderr().contains("missing"), "{}", ran.stderr());
    // It names the one that is gone as the one before it.
    assert_told(&place, &newest, &["--cache-dir", "another machine"]);
}

#[test]
fn a_writer_misses_what_it_took_itself() {
    let place = Place::with_repository();
    place.run(&["key", "add", "--role", "writer", "--new-key-file", "writer", "--label", "w"]).expect_code(0);
    place.write("source/a", "one");
    let id = Ran::of(
        place.command_in("source", &["snapshot", ".", "--json"]).env("ESTRATO_KEY_FILE", place.path("writer")),
    )
    .expect_code(0)
    .json()["snapshot"]
        .as_str()
        .unwrap()
        .to_owned();
    place.run_as("writer", &["check"]).expect_code(0);
    fs::remove_file(object(&place, &id)).unwrap();
    let ran = place.run_as("writer", &["check"]).expect_code(4);
    assert!(ran.stdout().contains(&id), "{}", ran.stdout());
}

#[test]
fn a_lost_memory_is_no_alarm() {
    let place = Place::with_repository();
    take(&place, "one");
    let chains = files_below(&place.path(".cache")).into_iter().find(|p| p.ends_with("chains.json")).unwrap();
    for rubbish in [&b"rubbish"[..], b"{}", b""] {
        fs::write(&chains, rubbish).unwrap();
        place.run(&["check"]).expect_code(0);
    }
    fs::remove_file(&chains).unwrap();
    place.run(&["check"]).expect_code(0);
    take(&place, "two");
    place.run(&["check"]).expect_code(0);
}
