//! Backups that were ended: killed at any moment, or asked to stop.

use crate::support::{Place, Ran, noise};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::Write as _;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Waits until this is so; panics where the program ends before, or after a long time.
fn until(child: &mut Child, mut so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(child.try_wait().unwrap().is_none(), "it has ended before");
        assert!(began.elapsed() < Duration::from_secs(60), "it does not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn interrupt(child: &Child) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
}

#[test]
fn a_killed_backup_leaves_nothing_that_harms_the_next() {
    let place = Place::with_repository();
    place.write("source/a", noise("a", 100_000));
    place.snapshot(&[]);
    place.write("source/b", noise("b", 40_000_000));
    for round in 0..8 {
        let mut command = place.command_in("source", &["snapshot", "."]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let packs = place.objects("packs").len();
        match round {
            0 => until(&mut child, || !place.objects("sessions").is_empty()),
            1 | 2 => until(&mut child, || place.objects("packs").len() >= packs + round),
            // Any moment: it may even have ended.
            _ => std::thread::sleep(Duration::from_millis(37 * round as u64)),
        }
        child.kill().unwrap();
        let whole = child.wait().unwrap().success();
        assert!(!whole || round > 2);
        place.run(&["check"]).expect_code(0);
        if round % 3 == 2 {
            place.write("source/c", noise(&format!("c{round}"), 1000));
            place.snapshot(&[]);
        }
    }
    place.snapshot(&[]);
    place.restore("out", &["--verify"]);
    assert_eq!(fs::read(place.path("out/b")).unwrap(), noise("b", 40_000_000));
    place.run(&["check", "--read-data"]).expect_code(0);
}

/// A running `snapshot --stdin` that has stored a pack already, and wants more.
fn reading(place: &Place) -> Child {
    let mut command = place.command(&["snapshot", "--stdin", "--name", "n"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(&noise("stdin", 24_000_000)).unwrap();
    until(&mut child, || !place.objects("packs").is_empty() && !place.objects("sessions").is_empty());
    child
}

fn was_interrupted(place: &Place, child: Child) {
    let out = child.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(130), "{told}");
    assert!(told.contains("interrupted") && out.stdout.is_empty(), "{told}");
    assert_eq!(place.snapshots(), 0);
    assert!(place.objects("sessions").is_empty(), "its session object is still there");
    place.run(&["check", "--read-data"]).expect_code(0);
}

#[test]
fn an_interrupted_stream_makes_no_snapshot() {
    let place = Place::with_repository();
    let mut child = reading(&place);
    interrupt(&child);
    // It may still read what it was reading, but comes to an end without the end of its input.
    let mut input = child.stdin.take().unwrap();
    let more = noise("more", 1 << 20);
    let began = Instant::now();
    while input.write_all(&more).is_ok() {
        assert!(began.elapsed() < Duration::from_secs(60), "it reads on");
    }
    drop(input);
    was_interrupted(&place, child);
}

#[test]
fn a_second_interrupt_ends_a_program_that_waits_for_its_input() {
    let place = Place::with_repository();
    let mut child = reading(&place);
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(began.elapsed() < Duration::from_secs(60), "it does not end");
        interrupt(&child);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(place.snapshots(), 0);
    // What it could not tidy up harms nobody.
    place.write("source/a", "x");
    place.snapshot(&[]);
    place.run(&["check", "--read-data"]).expect_code(0);
}

#[test]
fn an_interrupted_backup_of_files_makes_no_snapshot() {
    let place = Place::with_repository();
    place.write("source/a", noise("a", 64_000_000));
    let mut command = place.command_in("source", &["snapshot", "."]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until(&mut child, || !place.objects("sessions").is_empty());
    interrupt(&child);
    was_interrupted(&place, child);
    place.snapshot(&[]);
    place.restore("out", &["--verify"]);
}

#[test]
fn an_interrupted_restore_can_be_run_again() {
    let place = Place::with_repository();
    place.write("source/a", noise("a", 64_000_000));
    place.snapshot(&[]);
    let mut command = place.command(&["restore", "latest", "--target", "out"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until(&mut child, || place.path("out/a").exists());
    interrupt(&child);
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(130), "{}", String::from_utf8_lossy(&out.stderr));
    let ran = Ran::of(&mut place.command(&["restore", "latest", "--target", "out", "--verify"])).expect_code(0);
    assert_eq!(ran.stderr(), "");
    assert_eq!(fs::read(place.path("out/a")).unwrap(), noise("a", 64_000_000));
}
