//! The program on a store that is far: everything that it does in a folder, and what it says when it
//! cannot.

use super::servers::Server;
use super::{ID, SECRET, assert_hides_secrets};
use crate::support::{Place, Ran, noise};
use std::time::{Duration, Instant};

/// Runs the program with credentials in its environment.
pub fn run(place: &Place, location: &str, arguments: &[&str]) -> Ran {
    let mut command = place.command(arguments);
    command.env("ESTRATO_REPO", location).env("AWS_ACCESS_KEY_ID", ID).env("AWS_SECRET_ACCESS_KEY", SECRET);
    Ran::of(&mut command)
}

#[test]
fn a_repository_lives_on_s3() {
    let Some(moto) = Server::moto(false) else { return };
    let place = Place::new();
    let location = format!("s3://bucket/backups/of us?endpoint={}&region=eu-west-1", moto.endpoint());
    let ran = |arguments: &[&str]| run(&place, &location, arguments);
    let run = |arguments: &[&str]| ran(arguments).expect_code(0);
    run(&["init", "--new-key-file", "key"]);
    for n in 0..40 {
        place.write(format!("source/{n}"), noise(&n.to_string(), 1000 + n * 7000));
    }
    // Two packs of data.
    place.write("source/large", noise("large", 20_000_000));
    run(&["snapshot", "source", "--json"]);
    place.write("source/7", noise("changed", 50_000));
    run(&["snapshot", "source", "--json"]);
    assert_eq!(run(&["snapshots", "--json"]).json().as_array().unwrap().len(), 2);
    run(&["check", "--read-data"]);
    // This machine, and one that has never seen the repository.
    run(&["restore", "latest", "--target", "here"]);
    run(&["--cache-dir", "another", "restore", "latest", "--target", "there"]);
    run(&["--cache-dir", "another", "restore", "latest~1", "--target", "before"]);
    for n in 0..40 {
        let now = std::fs::read(place.path(format!("source/{n}"))).unwrap();
        for target in ["here", "there"] {
            assert_eq!(std::fs::read(place.path(format!("{target}/source/{n}"))).unwrap(), now, "{target} {n}");
        }
    }
    assert_eq!(std::fs::read(place.path("there/source/large")).unwrap(), noise("large", 20_000_000));
    assert_eq!(std::fs::read(place.path("before/source/7")).unwrap(), noise("7", 1000 + 7 * 7000));
    let again = ran(&["init", "--new-key-file", "other"]);
    assert!(again.expect_code(1).stderr().contains("exists already"));
}

#[test]
fn what_is_wrong_with_a_store_is_said_in_a_line_without_secrets() {
    let place = Place::new();
    let began = Instant::now();
    let mut said = Vec::new();
    let mut fails = |location: &str, code: i32, words: &str| {
        let ran = run(&place, location, &["init", "--new-key-file", "key"]).expect_code(code);
        assert!(ran.stderr().contains(words), "{location}: {}", ran.stderr());
        said.push(ran.stderr() + &ran.stdout());
    };
    fails("s3://bucket/a?endpoint=http://127.0.0.1:1", 1, "cannot be reached: Connection refused");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    fails("s3://AKIA:topsecret@bucket/a", 2, "holds no credentials");
    fails("s3://bucket/a?secret_access_key=topsecret", 2, "no option secret_access_key");
    if let Some(moto) = Server::moto(true) {
        fails(&format!("s3://bucket/a?endpoint={}", moto.endpoint()), 1, "does not know the access key");
    }
    let folder = tempfile::tempdir().unwrap();
    if let Some(rclone) = Server::rclone(folder.path(), ID, "another secret") {
        fails(&format!("s3://bucket/a?endpoint={}", rclone.endpoint()), 1, "");
    }
    for text in said {
        assert_hides_secrets(&text);
    }
    assert!(!place.path("key").exists(), "a key of no repository");
}

#[test]
fn what_a_store_can_do_is_found_out_before_a_repository_lies_there() {
    let place = Place::new();
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("bucket")).unwrap();
    if let Some(rclone) = Server::rclone(folder.path(), ID, SECRET) {
        let location = format!("s3://bucket/a?endpoint={}", rclone.endpoint());
        let tested = run(&place, "unused", &["store", "test", &location]).expect_code(0);
        let line = |what: &str| tested.stdout().lines().find(|line| line.starts_with(what)).unwrap().to_owned();
        assert!(
            line("create if absent, twice").contains("no ") && line("ranges").contains("yes"),
            "{}",
            tested.stdout()
        );
        assert!(tested.stdout().contains("a repository can lie here, with care"), "{}", tested.stdout());
        // Each command says it, and all of it works.
        place.write("source/a", noise("a", 100_000));
        for arguments in [
            &["init", "--new-key-file", "key"][..],
            &["snapshot", "source"],
            &["snapshots"],
            &["key", "add", "--new-key-file", "key 2"],
            &["restore", "latest", "--target", "target"],
            &["check", "--read-data"],
        ] {
            let ran = run(&place, &location, arguments).expect_code(0);
            let says = ran.stderr().matches("only if absent").count();
            assert_eq!(says, usize::from(arguments[0] != "init"), "{arguments:?}: {}", ran.stderr());
        }
        assert_eq!(std::fs::read(place.path("target/source/a")).unwrap(), noise("a", 100_000));
        std::fs::remove_file(place.path("key")).unwrap();
    }
    if let Some(moto) = Server::moto(false) {
        let location = format!("s3://bucket/a?endpoint={}", moto.endpoint());
        let tested = run(&place, &location, &["store", "test"]).expect_code(0);
        assert!(tested.stdout().ends_with("a repository can lie here\n"), "{}", tested.stdout());
        let tested = run(&place, &location, &["store", "test", "--json"]).expect_code(0).json();
        assert_eq!(
            (tested["suitable"].as_bool(), tested["abilities"].as_array().map(Vec::len)),
            (Some(true), Some(7))
        );
    }
    // A folder of this machine needs no server.
    let tested = place.run(&["store", "test", "folder"]).expect_code(0);
    assert!(tested.stdout().contains("list after write"), "{}", tested.stdout());
}
