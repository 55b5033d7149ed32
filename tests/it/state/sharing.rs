//! One cache and several processes, some of which end in the middle.

use super::{Kept, copy, replace, warnings};
use crate::support::{Place, Ran, files_below, noise};
use std::fs;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn start(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for all of them; each must have succeeded, without a word but those allowed.
#[track_caller]
fn expect_success(children: Vec<Child>, allowed: &[&str]) {
    for child in children {
        let out = child.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&out.stderr).into_owned();
        let said = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success(), "{}: {told}{said}", out.status);
        for line in told.lines().filter(|line| warnings(line) > 0) {
            assert!(allowed.iter().any(|allowed| line.contains(allowed)), "{line}");
        }
    }
}

/// A snapshot of standard input that is running and waits for more.
fn waiting(place: &Place, begin: &[u8]) -> Child {
    let mut command = place.command(&["snapshot", "--stdin", "--name", "n", "--json"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(begin).unwrap();
    let began = Instant::now();
    // Its session is announced after the index was opened.
    while place.objects("sessions").is_empty() {
        assert!(child.try_wait().unwrap().is_none() && began.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(2));
    }
    child
}

/// Gives it the rest, and waits for it; what it told.
fn finish(mut child: Child, rest: &[u8]) -> (String, String) {
    child.stdin.take().unwrap().write_all(rest).unwrap();
    let out = child.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{told}");
    let document: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    (document["snapshot"].as_str().unwrap().to_owned(), told)
}

fn expect_stream(place: &Place, snapshot: &str, whole: &[u8]) {
    let out = place.path("stream");
    place.run(&["restore", snapshot, "--target", out.to_str().unwrap(), "--verify"]).expect_code(0);
    assert!(fs::read(out.join("n")).unwrap() == whole);
    fs::remove_dir_all(&out).unwrap();
}

#[test]
fn first_opens_at_once_make_one_cache() {
    let kept = Kept::new();
    for _ in 0..3 {
        fs::remove_dir_all(kept.root()).unwrap();
        let commands: [&[&str]; 4] = [&["ls"], &["snapshots"], &["check"], &["key", "list"]];
        let start = |n: usize| start(&mut kept.place.command(commands[n % 4]));
        expect_success((0..8).map(start).collect(), &[]);
        assert!(kept.cache().join("index.db").exists());
    }
    kept.expect_whole();
}

#[test]
fn snapshots_of_several_sources_at_once_share_an_index() {
    let place = Place::with_repository();
    for n in 0..4 {
        place.write(format!("{n}/a"), noise("the same", 300_000));
        place.write(format!("{n}/b"), noise(&n.to_string(), 900_000));
    }
    for round in 0..2 {
        let start = |n: u32| {
            start(&mut place.command_in(n.to_string(), &["snapshot", ".", "--quiet", "--tag", &n.to_string()]))
        };
        let mut children: Vec<_> = (0..4).map(start).collect();
        children.push(self::start(&mut place.command(&["check", "--read-data"])));
        expect_success(children, &[]);
        for n in 0..4 {
            place.write(format!("{n}/c"), noise(&format!("{n} {round}"), 20_000));
        }
    }
    assert_eq!(place.snapshots(), 8);
    place.run(&["check", "--read-data"]).expect_code(0);
    for n in 0..4 {
        let out = format!("out {n}");
        place.run(&["restore", "latest", "--tag", &n.to_string(), "--target", &out, "--verify"]).expect_code(0);
        assert_eq!(fs::read(place.path(&out).join("b")).unwrap(), noise(&n.to_string(), 900_000));
        assert_eq!(fs::read(place.path(&out).join("c")).unwrap(), noise(&format!("{n} 0"), 20_000));
    }
}

#[test]
fn snapshots_of_one_source_at_once_all_succeed() {
    let kept = Kept::new();
    kept.settle();
    let start = |_| start(&mut kept.place.command_in("source", &["snapshot", ".", "--quiet"]));
    expect_success((0..4).map(start).collect(), &["another snapshot of the same source is running"]);
    assert_eq!(kept.place.snapshots(), 6);
    kept.expect_whole();
    assert_eq!(kept.snapshot()["summary"]["read_bytes"], 0, "somebody's notes stand");
}

#[test]
fn a_cache_whose_users_are_killed_serves_the_next() {
    let kept = Kept::new();
    let rounds: u32 = if std::env::var_os("ESTRATO_LONG_TESTS").is_some() { 120 } else { 16 };
    for round in 0..rounds {
        if round % 5 == 4 {
            fs::remove_dir_all(kept.root()).unwrap();
        }
        kept.place.write("source/round", noise(&format!("round {round}"), 150_000));
        let mut children = vec![start(&mut kept.place.command_in("source", &["snapshot", ".", "--quiet"]))];
        if round % 2 == 0 {
            children.push(start(&mut kept.place.command(&["check"])));
        }
        // Any moment, from the first open to the last note.
        std::thread::sleep(Duration::from_millis(u64::from(round * 29 % 160)));
        for mut child in children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        if round % 4 == 3 {
            assert_eq!(kept.expect_restored_newest(), "");
            kept.expect_whole();
        }
    }
    let left: Vec<_> =
        files_below(&kept.root()).into_iter().filter(|p| p.to_string_lossy().ends_with(".new")).collect();
    assert!(left.len() <= rounds as usize, "{left:?}");
}

impl Kept {
    /// Takes a snapshot, and what it told.
    fn expect_restored_newest(&self) -> String {
        let ran = self.run_snapshot(&[]);
        self.expect_restored(&[]);
        ran.stderr()
    }
}

#[test]
fn an_index_damaged_under_a_running_snapshot_harms_neither_it_nor_others() {
    let kept = Kept::new();
    let place = &kept.place;
    let whole = noise("stream", 6_000_000);
    let running = waiting(place, &whole[..2_000_000]);
    let file = kept.cache().join("index.db");
    rusqlite::Connection::open(&file).unwrap().execute_batch("UPDATE frames SET row = zeroblob(20)").unwrap();
    let inode = |path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    let before = inode(&file);
    // Each of them finds it damaged, and goes without it: the running one still has it open.
    for _ in 0..2 {
        let told = kept.expect_restored(&[]);
        assert!(told.contains("made again") && warnings(&told) == 1, "{told}");
        assert_eq!(inode(&file), before);
    }
    let (snapshot, told) = finish(running, &whole[2_000_000..]);
    assert!(warnings(&told) <= 1, "{told}");
    expect_stream(place, &snapshot, &whole);
    // The first that has it to itself makes it anew.
    assert!(!kept.cache().join("index.damaged").exists());
    kept.snapshot();
    kept.expect_whole();
}

#[test]
fn a_cache_removed_under_a_running_snapshot_is_made_again_beside_it() {
    let kept = Kept::new();
    let place = &kept.place;
    let whole = noise("stream", 6_000_000);
    let aside = place.path("aside");
    copy(&kept.root(), &aside);
    for put_back in [false, true] {
        let running = waiting(place, &whole[..3_000_000]);
        replace(&kept.root(), put_back.then_some(&*aside));
        let second = waiting_for(place, "second");
        let (snapshot, _) = finish(running, &whole[3_000_000..]);
        expect_stream(place, &snapshot, &whole);
        expect_success(vec![second], &[]);
        place.run(&["check", "--read-data"]).expect_code(0);
    }
}

/// A snapshot of a file, running beside another.
fn waiting_for(place: &Place, name: &str) -> Child {
    place.write(format!("{name}/file"), noise(name, 2_000_000));
    start(&mut place.command_in(name, &["snapshot", ".", "--quiet"]))
}

#[test]
fn half_written_small_files_are_swept_up() {
    let kept = Kept::new();
    let day = Duration::from_secs(86_400);
    for (name, age) in [("seen.json.0011223344556677.new", day * 2), ("seen.json.8899aabbccddeeff.new", day / 2)] {
        let path = kept.cache().join(name);
        let file = fs::File::create(path).unwrap();
        file.set_modified(std::time::SystemTime::now() - age).unwrap();
    }
    let stamp = fs::File::options().write(true).open(kept.root().join("swept")).unwrap();
    stamp.set_modified(std::time::SystemTime::now() - day * 2).unwrap();
    kept.place.run(&["ls"]).expect_code(0);
    assert!(!kept.cache().join("seen.json.0011223344556677.new").exists());
    assert!(kept.cache().join("seen.json.8899aabbccddeeff.new").exists(), "somebody may be writing it");
    let _ = Ran::of(&mut kept.place.command(&["ls"])).expect_code(0);
}
