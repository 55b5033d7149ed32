//! A disk that is full at any point of a command, the repository's or the local state's. Room is
//! made and nothing else: the next run goes on.

use super::{assert_same, copy, reported, sample};
use crate::bad_input::disk::Mounted;
use crate::support::{Place, Ran, noise};
use std::fs;
use std::path::PathBuf;

/// What a file system in memory gives out at once.
const PAGE: u64 = 4096;

/// A disk, and beside it a repository that was made with room.
struct Tight {
    place: Place,
    disk: Mounted,
    /// The snapshot that the repository holds; `first` is what it was taken of.
    snapshot: String,
    tried: usize,
    failed: usize,
}

impl Tight {
    fn new() -> Option<Self> {
        let place = Place::with_repository();
        let disk = Mounted::new(place.path("disk"), 8)?;
        place.write("source/a", noise("a", 60_000));
        place.write("source/folder/b", noise("b", 5_000));
        copy(&place.path("source"), &place.path("first"));
        let snapshot = reported(&place.run(&["snapshot", "source", "--json"]).expect_code(0).stdout()).unwrap();
        place.write("source/c", noise("c", 80_000));
        place.write("source/folder/b", noise("b2", 6_000));
        Some(Self { place, disk, snapshot, tried: 0, failed: 0 })
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.place.run(&[&["-r", "disk/repo", "--cache-dir", "disk-cache"], arguments].concat())
    }

    /// Puts the repository on the disk anew, and forgets what the machine knew.
    fn anew(&self, with_repository: bool) {
        for folder in ["disk/repo", "disk-cache", "out"] {
            let _ = fs::remove_dir_all(self.place.path(folder));
        }
        for key in ["added", "again"] {
            let _ = fs::remove_file(self.place.path(key));
        }
        if with_repository {
            copy(&self.place.path("repo"), &self.place.path("disk/repo"));
        }
    }

    fn restores(&self, id: &str, then: &str) {
        self.run(&["restore", id, "--target", "out"]).expect_code(0);
        assert_same(&self.place.path(then), &self.place.path("out/source"));
        fs::remove_dir_all(self.place.path("out")).unwrap();
    }

    /// How many pages a command writes where there is room.
    fn pages(&self, command: &[&str]) -> u64 {
        self.anew(command[0] != "init");
        let before = self.disk.free();
        self.run(command).expect_code(0);
        (before - self.disk.free()).div_ceil(PAGE)
    }

    /// Runs a command where the disk is full after so many pages, makes room, and goes on.
    fn full_after(&mut self, command: &[&str], pages: u64) {
        self.anew(command[0] != "init");
        let filler = self.disk.fill(pages * PAGE);
        let ran = self.run(command);
        fs::remove_file(filler).unwrap();
        self.tried += 1;
        if ran.code() != 0 {
            self.failed += 1;
            assert_eq!(ran.code(), 1, "{command:?}: {}", ran.stderr());
            let told = ran.stderr();
            assert!(told.contains("No space left") && told.contains("make room where the repository lies"), "{told}");
            assert_eq!(ran.stdout(), "", "{told}");
        }
        let or_exists =
            |ran: Ran| assert!(ran.code() == 0 || ran.stderr().contains("exists already"), "{}", ran.stderr());
        match command[0] {
            "init" => or_exists(self.run(&["init"])),
            "key" => drop(self.run(&["key", "add", "--new-key-file", "again"]).expect_code(0)),
            "tenant" => {
                or_exists(self.run(&["tenant", "add", "other"]));
                self.run(&["-t", "other", "check", "--read-data"]).expect_code(0);
            }
            _ => {}
        }
        self.run(&["check", "--read-data"]).expect_code(0);
        if command[0] != "init" {
            self.restores(&self.snapshot, "first");
        }
        if let Some(id) = reported(&ran.stdout()) {
            self.restores(&id, "source");
        }
        let next = self.run(&["snapshot", "source", "--json"]).expect_code(0);
        assert_eq!(next.stderr(), "");
        self.restores(&reported(&next.stdout()).unwrap(), "source");
        self.run(&["check", "--read-data"]).expect_code(0);
    }
}

#[test]
fn a_disk_that_is_full_at_any_point_harms_nothing() {
    let Some(mut tight) = Tight::new() else { return };
    let commands: [(&[&str], usize); 5] = [
        (&["init"], 6),
        (&["snapshot", "source", "--json"], 18),
        (&["key", "add", "--new-key-file", "added"], 6),
        (&["tenant", "add", "other"], 6),
        (&["check"], 2),
    ];
    for (command, points) in commands {
        let needs = tight.pages(command);
        // What a file takes while it is written may be more than what stays.
        let all: Vec<u64> = (0..=needs + 2).collect();
        for pages in sample(&all, points) {
            tight.full_after(command, pages);
        }
    }
    eprintln!("full disks: {} points, {} runs failed", tight.tried, tight.failed);
    assert!(tight.failed >= 10, "the disk is never full");
}

/// Runs a backup whose local state has room for so many pages; true if it succeeded.
fn with_tight_cache(place: &Place, cache: &Mounted, before: Option<&PathBuf>, pages: u64) -> bool {
    for folder in ["repo", "out", "cache/state"] {
        let _ = fs::remove_dir_all(place.path(folder));
    }
    copy(&place.path("prepared"), &place.path("repo"));
    if let Some(before) = before {
        copy(before, &place.path("cache/state"));
    }
    let run = |arguments: &[&str]| place.run(&[&["--cache-dir", "cache/state"], arguments].concat());
    let holds = |id: &str, fresh: &str| {
        place.run(&["--cache-dir", fresh, "restore", id, "--target", "out", "--verify"]).expect_code(0);
        assert_same(&place.path("source"), &place.path("out/source"));
        fs::remove_dir_all(place.path("out")).unwrap();
    };
    let filler = cache.fill(pages * PAGE);
    let ran = run(&["snapshot", "source", "--json"]);
    let read = run(&["snapshots"]);
    fs::remove_file(filler).unwrap();
    for ran in [&ran, &read] {
        if ran.code() != 0 {
            assert_eq!(ran.code(), 1, "{}", ran.stderr());
            assert!(ran.stderr().contains("cache/state"), "which folder it is: {}", ran.stderr());
        }
    }
    // What was stored is held without what the machine knew, and then with it.
    if let Some(id) = reported(&ran.stdout()) {
        holds(&id, "fresh");
        holds(&id, "cache/state");
    } else {
        assert_ne!(ran.code(), 0);
    }
    place.run(&["--cache-dir", "fresh", "check", "--read-data"]).expect_code(0);
    let next = run(&["snapshot", "source", "--json"]).expect_code(0);
    holds(&reported(&next.stdout()).unwrap(), "fresh");
    run(&["check", "--read-data"]).expect_code(0);
    fs::remove_dir_all(place.path("fresh")).unwrap();
    ran.code() == 0
}

#[test]
fn local_state_that_is_full_at_any_point_spoils_no_backup() {
    let place = Place::with_repository();
    for n in 0..60 {
        place.write(format!("source/{}/{n}", n % 7), noise(&format!("{n}"), 2_000));
    }
    let Some(cache) = Mounted::new(place.path("cache"), 16) else { return };
    let run = |arguments: &[&str]| place.run(&[&["--cache-dir", "cache/state"], arguments].concat()).expect_code(0);
    run(&["snapshot", "source"]);
    copy(&place.path("repo"), &place.path("prepared"));
    copy(&place.path("cache/state"), &place.path("known"));
    let free = cache.free();
    fs::remove_dir_all(place.path("cache/state")).unwrap();
    // A database takes more while it is written than what stays.
    let all: Vec<u64> = (0..=(cache.free() - free).div_ceil(PAGE) * 2).collect();
    let (mut tried, mut failed) = (0, 0);
    for n in 0..60 {
        place.write(format!("source/{}/{n}", n % 5), noise(&format!("changed {n}"), 2_500));
    }
    for before in [None, Some(place.path("known"))] {
        for pages in sample(&all, 10) {
            tried += 1;
            failed += usize::from(!with_tight_cache(&place, &cache, before.as_ref(), pages));
        }
    }
    eprintln!("full local state: {tried} points, {failed} runs failed");
    assert_eq!(failed, 0, "local state stops nothing");
}
