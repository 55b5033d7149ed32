//! Files that cannot be read, or that change while they are read.

use super::tree::{entries, noise, prose, same_tree};
use super::{mode, place, summary};
use crate::support::{Place, Ran, is_root};
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

/// The number that stands for nobody.
const NOBODY: u32 = 65_534;

/// A place that belongs to nobody, where mode bits bind the program.
fn place_of_nobody() -> (Place, impl Fn(&[&str]) -> Command) {
    let place = place();
    let program = place.path("estrato");
    if is_root() {
        fs::copy(env!("CARGO_BIN_EXE_estrato"), &program).unwrap();
        let folder = place.path("");
        give_to_nobody(&folder);
    } else {
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_estrato"), &program).unwrap();
    }
    let pattern = place.command_in("source", &[]);
    let environment: Vec<_> =
        pattern.get_envs().map(|(k, v)| (k.to_owned(), v.unwrap_or_default().to_owned())).collect();
    let source = place.path("source");
    let command = move |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.args(arguments).current_dir(&source).env_clear().envs(environment.clone());
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    };
    (place, command)
}

fn give_to_nobody(path: &Path) {
    chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            give_to_nobody(&entry.unwrap().path());
        }
    }
}

#[test]
fn what_cannot_be_read_is_named_and_the_rest_comes_back() {
    let (place, command) = place_of_nobody();
    let source = place.path("source");
    for name in ["locked\nfile", "open", "z"] {
        fs::write(source.join(name), name).unwrap();
    }
    for name in ["locked folder", "other"] {
        fs::create_dir(source.join(name)).unwrap();
        fs::write(source.join(name).join("in it"), name).unwrap();
    }
    give_everything(&source);
    mode(&source.join("locked\nfile"), 0o000);
    mode(&source.join("locked folder"), 0o000);
    for _ in 0..2 {
        let ran = Ran::of(&mut command(&["snapshot", ".", "--json"])).expect_code(3);
        let told = ran.stderr();
        assert!(told.contains("locked\\nfile") && told.contains("locked folder"), "{told}");
        assert_eq!(told.matches("ermission denied").count(), 2, "{told}");
        let document = ran.json();
        assert_eq!(summary(&document, &["unreadable"]), 2);
        assert_eq!(summary(&document, &["total", "entries"]), 4, "what is left out is not in it: {document}");
        assert_eq!(document["troubles"].as_array().unwrap().len(), 2);
    }
    let told = Ran::of(&mut command(&["snapshot", "."])).expect_code(3).stderr();
    assert!(told.contains("locked\\nfile") || told.contains("locked\nfile"), "{told}");
    assert!(told.contains("2 entries were not stored"), "{told}");
    let target = place.path("out");
    Ran::of(&mut command(&["restore", "latest", "--target", target.to_str().unwrap()])).expect_code(0);
    let back: Vec<_> = entries(&target).into_keys().collect();
    assert_eq!(back, ["open", "other", "other/in it", "z"].map(std::path::PathBuf::from));
    // Once it can be read again, it is there again.
    mode(&source.join("locked\nfile"), 0o600);
    mode(&source.join("locked folder"), 0o700);
    Ran::of(&mut command(&["snapshot", "."])).expect_code(0);
    let whole = place.path("whole");
    Ran::of(&mut command(&["restore", "latest", "--target", whole.to_str().unwrap()])).expect_code(0);
    same_tree(&source, &whole);
}

fn give_everything(path: &Path) {
    if is_root() {
        give_to_nobody(path);
    }
}

#[test]
fn a_folder_that_was_named_and_cannot_be_read_makes_no_snapshot() {
    let (place, command) = place_of_nobody();
    fs::write(place.path("source/file"), "x").unwrap();
    give_everything(&place.path("source"));
    mode(&place.path("source"), 0o100);
    let ran = Ran::of(&mut command(&["snapshot", "."])).expect_code(1);
    mode(&place.path("source"), 0o700);
    assert!(ran.stderr().contains("ermission denied"), "{}", ran.stderr());
    let ran = Ran::of(&mut command(&["snapshots", "--json"])).expect_code(0);
    assert_eq!(ran.json().as_array().unwrap().len(), 0);
}

/// Takes snapshots while `change` changes the file `source/file` over and over, until one is said to be incomplete.
fn until_seen(place: &Place, word: &str, change: impl Fn(&Path) + Sync) {
    let path = place.path("source/file");
    let stop = AtomicBool::new(false);
    let told = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                change(&path);
            }
        });
        let mut told = String::new();
        for _ in 0..20 {
            let ran = Ran::of(&mut place.command_in("source", &["snapshot", ".", "--kind", "full"]));
            assert!([0, 3].contains(&ran.code()), "{}: {}", ran.code(), ran.stderr());
            if ran.code() == 3 {
                assert!(ran.stderr().contains("file: it "), "{}", ran.stderr());
            }
            told.push_str(&ran.stderr());
            if told.contains(word) {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        told
    });
    assert!(told.contains(word), "never seen: {told}");
}

#[test]
fn a_file_that_grows_is_told_and_stored_as_it_was() {
    let place = place();
    fs::write(place.path("source/beside"), "beside").unwrap();
    fs::write(place.path("source/file"), noise(1, 20_000_000)).unwrap();
    let more = prose(100);
    until_seen(&place, "it grew while it was read", |path| {
        File::options().append(true).open(path).unwrap().write_all(&more).unwrap();
        std::thread::yield_now();
    });
    place.run(&["restore", "latest", "--target", "out", "--verify"]).expect_code(0);
    let (now, then) = (fs::read(place.path("source/file")).unwrap(), fs::read(place.path("out/file")).unwrap());
    assert!(then.len() >= 20_000_000 && now.starts_with(&then));
    assert_eq!(fs::read(place.path("out/beside")).unwrap(), b"beside");
    // Standing still, it is whole again, without being touched.
    place.snapshot(&[]);
    place.restore("whole", &[]);
    same_tree(&place.path("source"), &place.path("whole"));
    place.run(&["check", "--read-data"]).expect_code(0);
}

#[test]
fn a_file_that_shrinks_is_told_and_restores() {
    let place = place();
    fs::write(place.path("source/beside"), "beside").unwrap();
    let whole = noise(1, 20_000_000);
    fs::write(place.path("source/file"), &whole).unwrap();
    until_seen(&place, "it shrank while it was read", |path| {
        let file = File::options().write(true).open(path).unwrap();
        file.set_len(1000).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &whole, 0).unwrap();
    });
    place.run(&["restore", "latest", "--target", "out", "--verify"]).expect_code(0);
    assert_eq!(fs::read(place.path("out/beside")).unwrap(), b"beside");
    place.snapshot(&[]);
    place.restore("whole", &[]);
    same_tree(&place.path("source"), &place.path("whole"));
    place.run(&["check", "--read-data"]).expect_code(0);
}

#[test]
fn files_that_come_and_go_cost_no_snapshot() {
    let place = place();
    fs::write(place.path("source/stays"), "stays").unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for number in 0..200 {
                    fs::write(place.path(format!("source/{number}")), noise(number, 3000)).unwrap();
                }
                for number in 0..200 {
                    fs::remove_file(place.path(format!("source/{number}"))).unwrap();
                }
            }
        });
        for _ in 0..5 {
            let ran = Ran::of(&mut place.command_in("source", &["snapshot", "."]));
            assert!([0, 3].contains(&ran.code()), "{}", ran.stderr());
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(place.snapshots(), 5);
    place.run(&["restore", "latest", "--target", "out", "--verify"]).expect_code(0);
    assert_eq!(fs::read(place.path("out/stays")).unwrap(), b"stays");
    place.run(&["check", "--read-data"]).expect_code(0);
}
