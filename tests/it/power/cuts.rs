//! Power cuts at any moment of a repository's life: whatever the disk kept, what was reported is
//! there whole, and everything goes on from there.

use super::forgetful::{Forgetful, Image, Names, Request, lay_out};
use super::mount::{Fate, Mounted};
use super::{assert_same, copy, is_long, reported, sample};
use crate::support::{Place, Ran, files_below, noise};
use std::sync::atomic::{AtomicUsize, Ordering};

/// What one command did, with what is known once it has succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Done {
    Init,
    /// The snapshot's id, and the folder that holds what was its source then.
    Snapshot(String, String),
    KeyAdd,
    TenantAdd,
    Check,
}

/// A repository's life on a forgetful disk.
struct History {
    place: Place,
    disk: Mounted,
    /// What succeeded, in order.
    done: Vec<Done>,
    /// For each, how many states a cut could have left when it was reported, of either kind.
    moments: Vec<[usize; 2]>,
}

/// A state that a cut could have left.
#[derive(Debug, Clone, Copy)]
struct Cut {
    names: Names,
    at: usize,
    /// How many commands had succeeded by then.
    done: usize,
    newer_cache: bool,
}

impl History {
    fn new() -> Option<Self> {
        let place = Place::new();
        let disk = Mounted::new(Forgetful::new(), &place.path("disk"))?;
        let mut history = Self { place, disk, done: Vec::new(), moments: Vec::new() };
        history.ran(&["init", "--new-key-file", "key"], |_| Done::Init);
        history.snapshot("first", "key", &[("a", 60_000), ("folder/b", 20_000), ("folder/deep/c", 10)]);
        history.snapshot("second", "key", &[("a", 61_000), ("folder/d", 150_000), ("folder/deep/c", 0)]);
        history.ran(&["key", "add", "--new-key-file", "second-key"], |_| Done::KeyAdd);
        history.ran(&["tenant", "add", "other", "--new-key-file", "other-key"], |_| Done::TenantAdd);
        history.snapshot("third", "second-key", &[("e", 30_000), ("folder/b", 21_000)]);
        history.ran(&["check"], |_| Done::Check);
        Some(history)
    }

    fn snapshot(&mut self, name: &str, key: &str, files: &[(&str, usize)]) {
        for (path, len) in files {
            self.place.write(format!("source/{path}"), noise(&format!("{name} {path}"), *len));
        }
        copy(&self.place.path("source"), &self.place.path(name));
        let arguments = ["--key-file", key, "snapshot", "source", "--json"];
        self.ran(&arguments, |ran| Done::Snapshot(reported(&ran.stdout()).unwrap(), name.into()));
    }

    /// Runs a command to its success, and keeps the local state as it was then.
    fn ran(&mut self, arguments: &[&str], done: impl FnOnce(&Ran) -> Done) {
        let all = [&["-r", "disk/repo", "--cache-dir", "cache"], arguments].concat();
        let ran = self.place.run(&all).expect_code(0);
        self.done.push(done(&ran));
        let disk = self.disk.disk();
        self.moments.push([Names::Synced, Names::Early].map(|names| disk.cuts(names).len()));
        if self.place.path("cache").exists() {
            copy(&self.place.path("cache"), &self.place.path(format!("cache-{}", self.done.len())));
        }
    }

    /// All states that cuts could have left, and how many of them the machine's own local state will
    /// be tried with.
    fn cuts(&self) -> Vec<Cut> {
        let mut cuts = Vec::new();
        for (kind, names) in [Names::Synced, Names::Early].into_iter().enumerate() {
            for at in 0..self.disk.disk().cuts(names).len() {
                // The state that stood when a command was reported counts as one after it.
                let done = self.moments.iter().filter(|moment| moment[kind] <= at + 1).count();
                cuts.push(Cut { names, at, done, newer_cache: at % 2 == 1 });
            }
        }
        cuts
    }

    /// Holds what a cut left to what was reported before it.
    fn assert_survives(&self, cut: Cut) {
        let image = self.disk.disk().cuts(cut.names)[cut.at].clone();
        let after = Place::new();
        lay_out(&image, &after.path("disk"));
        for key in ["key", "second-key", "other-key"] {
            std::fs::copy(self.place.path(key), after.path(key)).unwrap();
        }
        // What the machine knows may come from a command whose end the disk never saw.
        let cache = self.place.path(format!("cache-{}", self.done.len().min(cut.done + 1)));
        if cut.newer_cache && cache.exists() {
            copy(&cache, &after.path("cache"));
        }
        let run = |arguments: &[&str]| after.run(&[&["-r", "disk/repo", "--cache-dir", "cache"], arguments].concat());
        let done = &self.done[..cut.done];
        if done.is_empty() {
            // It completes what was begun, or finds it complete.
            let init = run(&["init"]);
            assert!(init.code() == 0 || init.stderr().contains("exists already"), "{}", init.stderr());
        }
        let checked = run(&["check", "--read-data"]);
        if cut.newer_cache && checked.code() == 4 {
            // The machine knows more than the disk has: it says so, and finds nothing else.
            let told = checked.stdout();
            if told.contains("a rollback") {
                // Of the signers: then nothing is written until somebody has looked.
                return;
            }
            let damaged = told.lines().filter(|line| line.starts_with("tenants/"));
            assert!(damaged.clone().count() > 0, "{told}");
            assert!(damaged.clone().all(|line| line.contains("this machine has seen it")), "{told}");
        } else {
            checked.expect_code(0);
        }
        let restores = |id: &str, then: &str| {
            let target = format!("out-{id}");
            run(&["restore", id, "--target", &target]).expect_code(0);
            assert_same(&self.place.path(then), &after.path(&target).join("source"));
        };
        for done in done {
            match done {
                Done::Snapshot(id, then) => restores(id, then),
                Done::KeyAdd => drop(run(&["--key-file", "second-key", "ls"]).expect_code(0)),
                Done::TenantAdd => {
                    run(&["-t", "other", "--key-file", "other-key", "check", "--read-data"]).expect_code(0);
                }
                Done::Init | Done::Check => {}
            }
        }
        if self.done.get(cut.done) == Some(&Done::TenantAdd) {
            let again = run(&["--key-file", "other-key", "tenant", "add", "other"]);
            assert!(again.code() == 0 || again.stderr().contains("exists already"), "{}", again.stderr());
            run(&["-t", "other", "--key-file", "other-key", "check"]).expect_code(0);
        }
        // The same source, which the machine's own state knows.
        let (repo, cache) = (after.path("disk/repo"), after.path("cache"));
        let there = ["-r", repo.to_str().unwrap(), "--cache-dir", cache.to_str().unwrap()];
        let next = self.place.run(&[&there[..], &["snapshot", "source", "--json"]].concat()).expect_code(0);
        // That it is on one disk with its source is all there is to say.
        let ahead = |line: &str| cut.newer_cache && (line.contains("missing") || line.contains("are gone"));
        assert!(next.stderr().lines().all(|line| line.contains("the same disk") || ahead(line)), "{}", next.stderr());
        restores(&reported(&next.stdout()).unwrap(), "third");
        run(&["key", "add", "--new-key-file", "third-key"]).expect_code(0);
        let checked = run(&["check", "--read-data"]);
        assert!(checked.code() == 0 || cut.newer_cache && checked.code() == 4, "{}", checked.stdout());
    }
}

#[test]
fn a_power_cut_at_any_moment_takes_nothing_that_was_reported() {
    let Some(history) = History::new() else { return };
    let all = history.cuts();
    let tried = sample(&all, 60);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(cut) = tried.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let told =
                        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| history.assert_survives(*cut)));
                    assert!(told.is_ok(), "after {cut:?}, during {:?}", history.done.get(cut.done));
                }
            });
        }
    });
    let requests = history.disk.disk().requests.len();
    eprintln!("power cuts: {} of {} states, after {requests} requests", tried.len(), all.len());
}

/// A repository with one snapshot, all of it durable.
fn prepared(place: &Place) -> Option<Image> {
    place.write("source/a", noise("a", 100_000));
    let disk = Mounted::new(Forgetful::new(), &place.path("disk"))?;
    let run = |arguments: &[&str]| place.run(&[&["-r", "disk/repo"], arguments].concat()).expect_code(0);
    run(&["init", "--new-key-file", "key"]);
    run(&["snapshot", "source"]);
    let image = disk.disk().cuts(Names::Early).last().unwrap().clone();
    Some(image)
}

/// One run is ended after its n-th request of a kind, and another succeeds; then the power is cut.
/// False if there was no such request.
fn survives_both(image: &Image, key: &Place, command: &[&str], request: Request, nth: usize, fate: Fate) -> bool {
    let place = Place::new();
    std::fs::copy(key.path("key"), place.path("key")).unwrap();
    place.write("source/a", noise("a", 100_000));
    place.write("source/b", noise("b", 70_000));
    let run = |arguments: &[&str]| place.run(&[&["-r", "disk/repo"], arguments].concat());
    let reached;
    let left = {
        let disk = Mounted::new(Forgetful::with(image), &place.path("disk")).unwrap();
        if !image.is_empty() {
            // The machine has met this repository before.
            run(&["check"]).expect_code(0);
        }
        disk.henceforth(request, nth, fate);
        run(command);
        reached = !disk.is_spared();
        if image.is_empty() {
            let init = run(&["init"]);
            assert!(init.code() == 0 || init.stderr().contains("exists already"), "{}", init.stderr());
        }
        let told = run(&["snapshot", "source", "--json"]).expect_code(0).stdout();
        assert!(reported(&told).is_some());
        let disk = disk.disk();
        disk.cuts(Names::Synced).last().unwrap().clone()
    };
    lay_out(&left, &place.path("after"));
    for cache in ["fresh", ".cache/estrato"] {
        let run = |arguments: &[&str]| {
            let all = [&["-r", "after/repo", "--cache-dir", cache], arguments].concat();
            place.run(&all).expect_code(0)
        };
        run(&["check", "--read-data"]);
        let out = format!("out-{}", cache.len());
        run(&["restore", "latest", "--target", &out, "--verify"]);
        assert_same(&place.path("source"), &place.path(&out).join("source"));
    }
    reached
}

#[test]
fn what_a_killed_run_left_is_durable_before_another_relies_on_it() {
    let key = Place::new();
    let Some(image) = prepared(&key) else { return };
    let nothing = Image::new();
    let commands: [(&Image, &[&str]); 3] = [
        (&nothing, &["init"]),
        (&image, &["snapshot", "source"]),
        (&image, &["key", "add", "--new-key-file", "more"]),
    ];
    // What has its name, and is not known to keep it.
    let mut fates =
        vec![(Request::Link, Fate::Killed), (Request::Folder, Fate::Killed), (Request::SyncFolder, Fate::Told)];
    if is_long() {
        let others = [Request::Create, Request::Write, Request::Sync, Request::Unlink];
        fates.extend(others.iter().flat_map(|&request| [(request, Fate::Killed), (request, Fate::Told)]));
        fates.extend([(Request::Folder, Fate::Told), (Request::SyncFolder, Fate::Killed)]);
    }
    let mut tried = 0;
    for (image, command) in commands {
        for &(request, fate) in &fates {
            let points = (0..).take_while(|&nth| survives_both(image, &key, command, request, nth, fate)).count();
            assert!(points > 0 || request == Request::Folder, "{command:?} makes no {request:?}");
            tried += points;
        }
    }
    eprintln!("killed, then another run, then a power cut: {tried} points");
}

#[test]
fn no_upload_is_left_on_the_disk_by_runs_that_succeed() {
    let Some(history) = History::new() else { return };
    let last = history.disk.disk().cuts(Names::Early).last().unwrap().clone();
    lay_out(&last, &history.place.path("last"));
    let left: Vec<_> = files_below(&history.place.path("last"))
        .into_iter()
        .filter(|path| path.to_string_lossy().contains('#'))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
