//! Snapshots of streams: standard input, and what a command prints.

use crate::support::{Place, Ran};
use std::fs::{self, File};
use std::process::{Command, Stdio};

fn summary(document: &serde_json::Value, name: &str) -> u64 {
    document["manifest"]["summary"][name].as_u64().unwrap()
}

/// A place with that many bytes in the file `data`: half of it noise, half of it text.
fn place_with_data(size: usize) -> Place {
    let place = Place::with_repository();
    let mut data = vec![0; size / 2];
    blake3::Hasher::new().update(b"streams").finalize_xof().fill(&mut data);
    while data.len() < size {
        let line = format!("INSERT INTO t VALUES ({}, 'some text that repeats');\n", data.len());
        data.extend_from_slice(line.as_bytes());
    }
    fs::write(place.path("data"), data).unwrap();
    place
}

/// Restores the newest snapshot; true if its one file is what `data` holds.
fn is_data(place: &Place, name: &str) -> bool {
    place.restore("out", &["--verify"]);
    fs::read(place.path("out").join(name)).unwrap() == fs::read(place.path("data")).unwrap()
}

#[test]
fn a_large_standard_input_comes_back_and_the_same_again_stores_next_to_nothing() {
    let place = place_with_data(50_000_000);
    let mut command = place.command(&["snapshot", "--stdin", "--name", "dump.sql", "--json"]);
    let first = Ran::of(command.stdin(File::open(place.path("data")).unwrap())).expect_code(0).json();
    assert!(summary(&first, "read_bytes") >= 50_000_000 && summary(&first, "stored_bytes") > 20_000_000);
    assert!(is_data(&place, "dump.sql"));
    // Through a pipe, in whatever parts it comes.
    let mut cat = Command::new("cat").arg(place.path("data")).stdout(Stdio::piped()).spawn().unwrap();
    let mut command = place.command(&["snapshot", "--stdin", "--name", "dump.sql", "--json"]);
    let second = Ran::of(command.stdin(cat.stdout.take().unwrap())).expect_code(0).json();
    assert!(cat.wait().unwrap().success());
    assert!(summary(&second, "stored_bytes") < 10_000, "{second}");
    assert_eq!(place.snapshots(), 2);
    assert!(is_data(&place, "dump.sql"));
}

#[test]
fn an_empty_standard_input_is_an_empty_file() {
    let place = Place::with_repository();
    Ran::of(place.command(&["snapshot", "--stdin", "--name", "empty"]).stdin(Stdio::null())).expect_code(0);
    place.restore("out", &[]);
    assert_eq!(fs::metadata(place.path("out/empty")).unwrap().len(), 0);
}

#[test]
fn what_a_command_prints_comes_back_whether_named_before_or_after_the_dashes() {
    let place = place_with_data(3_000_000);
    for words in [&["--command", "--", "cat", "data"][..], &["--command=cat", "--", "data"]] {
        let arguments = [&["snapshot", "--name", "out.txt", "--json"], words].concat();
        let taken = place.run(&arguments).expect_code(0).json();
        assert_eq!(taken["manifest"]["source_kind"], "command");
        assert!(is_data(&place, "out.txt"));
    }
    place.run(&["check", "--read-data"]).expect_code(0);
}

#[test]
fn a_command_gets_its_arguments_as_they_are_and_no_input() {
    let place = Place::with_repository();
    let script = "cat; printf '%s|' \"$@\"; echo told >&2";
    let ran =
        place.run(&["snapshot", "--name", "n", "--command", "--", "sh", "-c", script, "sh", "a b", "--json", "*"]);
    let told = ran.expect_code(0).stderr();
    assert!(told.contains("told"), "what a command complains of is shown: {told}");
    place.restore("out", &[]);
    assert_eq!(fs::read(place.path("out/n")).unwrap(), b"a b|--json|*|");
}

/// Runs a command that fails after it has printed much, and another that ends well.
fn fails_harmlessly(script: &str, say: &str) {
    let place = place_with_data(3_000_000);
    let ran = place.run(&["snapshot", "--name", "n", "--command", "--", "sh", "-c", script]).expect_code(1);
    assert!(ran.stderr().contains(say), "{}", ran.stderr());
    assert!(!ran.stdout().contains("snapshot"), "{}", ran.stdout());
    assert_eq!(place.snapshots(), 0);
    place.run(&["restore", "latest", "--target", "out"]).expect_code(1);
    place.run(&["check", "--read-data"]).expect_code(0);
    place.run(&["snapshot", "--name", "n", "--command", "--", "cat", "data"]).expect_code(0);
    assert!(is_data(&place, "n"));
    assert_eq!(place.snapshots(), 1);
    place.run(&["check", "--read-data"]).expect_code(0);
}

#[test]
fn a_command_that_fails_after_much_output_makes_no_snapshot() {
    fails_harmlessly("cat data; exit 7", "exit status: 7");
}

#[test]
fn a_command_that_a_signal_ends_makes_no_snapshot() {
    fails_harmlessly("cat data; kill -9 $$", "signal: 9");
}

#[test]
fn a_command_that_fails_after_it_closed_its_output_makes_no_snapshot() {
    fails_harmlessly("exec >&-; exit 3", "exit status: 3");
}

#[test]
fn a_program_that_is_not_there_makes_no_snapshot() {
    let place = Place::with_repository();
    let ran = place.run(&["snapshot", "--name", "n", "--command", "--", "no-such-program"]).expect_code(1);
    assert!(ran.stderr().contains("no-such-program"), "{}", ran.stderr());
    assert_eq!(place.snapshots(), 0);
}

#[test]
fn an_input_that_cannot_be_read_makes_no_snapshot() {
    let place = Place::with_repository();
    let folder = File::open(place.path("")).unwrap();
    let ran = Ran::of(place.command(&["snapshot", "--stdin", "--name", "n"]).stdin(folder)).expect_code(1);
    assert!(ran.stderr().contains("standard input"), "{}", ran.stderr());
    assert_eq!(place.snapshots(), 0);
}

#[test]
fn wrong_usage_is_refused_before_anything_runs() {
    let place = Place::with_repository();
    let touch = ["--command", "--", "touch", "made"];
    for name in ["a/b", "", ".", "..", "/"] {
        let ran = place.run(&[&["snapshot", "--name", name][..], &touch].concat());
        assert_eq!(ran.code(), 2, "{name:?}: {}", ran.stderr());
    }
    for wrong in [
        &["snapshot", "--stdin"][..],
        &["snapshot", "--name", "n"],
        &["snapshot", "--stdin", "--name", "n", "path"],
        &["snapshot", "--name", "n", "--command"],
        &["snapshot", "--command", "--", "true"],
        &["snapshot", "--stdin", "--name", "n", "--command", "--", "true"],
        &["snapshot", "--stdin", "--name", "n", "--dry-run"],
    ] {
        let ran = place.run(wrong);
        assert_eq!(ran.code(), 2, "{wrong:?}: {}", ran.stderr());
    }
    let dry = place.run(&[&["snapshot", "--name", "n", "--dry-run"][..], &touch].concat());
    assert_eq!(dry.code(), 2, "{}", dry.stderr());
    assert!(!place.path("made").exists());
    assert_eq!(place.snapshots(), 0);
}
