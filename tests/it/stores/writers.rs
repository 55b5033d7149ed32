//! Several processes that back up into one tenant at once, on S3, and are killed at any moment: every snapshot
//! that was reported restores.

use super::double::Fate;
use super::far::Far;
use crate::support::{Draw, is_long, noise, say};
use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const WRITERS: usize = 8;

/// A writer's files: some that all have, some of its own, some new in each round.
fn change(far: &Far, writer: usize, round: usize) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for n in 0..4 {
        files.insert(format!("all/{n}"), noise(&format!("all {n} {}", round / 5), 40_000));
        files.insert(format!("own/{n}"), noise(&format!("own {writer} {n}"), 20_000));
    }
    files.insert("new".into(), noise(&format!("{writer} {round}"), 10_000));
    for (name, bytes) in &files {
        far.place.write(format!("w{writer}/source/{name}"), bytes);
    }
    files
}

/// A machine of its own: caches below another home.
fn begin(far: &Far, writer: usize) -> Child {
    let mut command: Command = far.command(&["snapshot", "source", "--json", "--host"]);
    command.arg(format!("w{writer}")).current_dir(far.place.path(format!("w{writer}")));
    command.env("HOME", far.place.path(format!("w{writer}"))).env("ESTRATO_KEY_FILE", far.place.path("key"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn eight_writers_that_are_killed_lose_nothing_that_was_reported() {
    let far = Far::new();
    let rounds = if is_long() { 200 } else { 12 };
    let mut draw = Draw(7);
    let mut reported: Vec<(String, BTreeMap<String, Vec<u8>>)> = Vec::new();
    let mut killed = 0;
    for round in 0..rounds {
        let files: Vec<_> = (0..WRITERS).map(|writer| change(&far, writer, round)).collect();
        let began = Instant::now();
        let mut running: Vec<(usize, Child, Option<Duration>)> = (0..WRITERS)
            .map(|writer| {
                // Most of them, at any moment of what a run takes.
                let end = (draw.below(3) > 0).then(|| Duration::from_millis(draw.below(600)));
                (writer, begin(&far, writer), end)
            })
            .collect();
        running.sort_by_key(|(_, _, end)| end.unwrap_or(Duration::MAX));
        for (writer, mut child, end) in running {
            if let Some(end) = end {
                std::thread::sleep(end.saturating_sub(began.elapsed()));
                child.kill().unwrap();
            }
            let output = child.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            match output.status.code() {
                Some(0) => {
                    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
                    reported.push((document["snapshot"].as_str().unwrap().to_owned(), files[writer].clone()));
                }
                None => killed += 1,
                Some(code) => panic!("round {round}, writer {writer}: {code}: {said}"),
            }
        }
    }
    assert!(killed >= rounds && reported.len() >= rounds, "{killed} killed, {} reported", reported.len());
    far.double.decide(|_| Fate::Done);
    far.run(&["check", "--read-data"]).expect_code(0);
    // Each that was reported is there; of many, some are restored.
    let listed = far.run(&["snapshots", "--json"]).expect_code(0).json();
    let listed: Vec<&str> = listed.as_array().unwrap().iter().map(|s| s["id"].as_str().unwrap()).collect();
    for (at, (id, files)) in reported.iter().enumerate() {
        assert!(listed.contains(&id.as_str()), "{id} is not listed");
        if !is_long() && at % 7 != 0 {
            continue;
        }
        let target = format!("target/{at}");
        far.run(&["restore", id, "--target", &target]).expect_code(0);
        for (name, bytes) in files {
            let back = std::fs::read(far.place.path(format!("{target}/source/{name}"))).unwrap();
            assert!(back == *bytes, "{id}: {name}");
        }
    }
    let count = reported.len();
    say(&format!("writers: {rounds} rounds of {WRITERS}, {killed} killed, {count} snapshots reported and there"));
}
