//! Whole cycles of edits, snapshots and restores on generated trees, held against a file system of
//! its own: every snapshot of a series gives back what the model had at its moment, whatever became
//! of this machine's state between.

mod disk;
mod tree;

use crate::support::{is_long, say};
use disk::Disk;
use estrato::backup::{self, Options, Selection, Source};
use estrato::clock::{Clock, SystemClock};
use estrato::crypto::keyfile::KeyFile;
use estrato::crypto::slot::Credential;
use estrato::format::header::Cipher;
use estrato::format::key::Role;
use estrato::format::manifest::SnapshotKind;
use estrato::id::SnapshotId;
use estrato::maintenance::{self, Depth};
use estrato::monitor::Silent;
use estrato::repo::{self, Access, NewKey, Repository, Secret};
use estrato::store::{Memory, Store};
use estrato::{restore, snapshot};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tree::{Edit, Tree};
use zeroize::Zeroizing;

/// What becomes of this machine's state before a snapshot.
#[derive(Debug, Clone, Copy)]
enum State {
    Kept,
    Lost,
    /// As it was before the snapshot before.
    Old,
}

/// A snapshot, and what happens before it.
#[derive(Debug, Clone)]
struct Step {
    edits: Vec<Edit>,
    kind: SnapshotKind,
    memory: State,
    by_writer: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let kind = prop_oneof![
        5 => Just(SnapshotKind::Incremental),
        1 => Just(SnapshotKind::Full),
        2 => Just(SnapshotKind::Differential),
    ];
    let memory = prop_oneof![6 => Just(State::Kept), 1 => Just(State::Lost), 2 => Just(State::Old)];
    let step = (proptest::collection::vec(tree::edit(), 0..14), kind, memory, prop::bool::weighted(0.2));
    let step = step.prop_map(|(edits, kind, memory, by_writer)| Step { edits, kind, memory, by_writer });
    proptest::collection::vec(step, 2..6)
}

/// A repository, this machine's state, and a source.
struct World {
    place: tempfile::TempDir,
    store: Arc<dyn Store>,
}

impl World {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("source")).unwrap();
        let store: Arc<dyn Store> = Arc::new(Memory::default());
        let world = Self { place, store };
        let full = NewKey::full(Secret::KeyFile(key(1)), "full");
        repo::init(&*world.store, &SystemClock::default(), "default", Cipher::Aes256Gcm, &full).unwrap();
        let writer = NewKey { role: Role::Writer, label: "writer".into(), secret: Secret::KeyFile(key(2)) };
        world.open(1, None).add_key(&writer).unwrap();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn open(&self, n: u8, cache: Option<PathBuf>) -> Repository {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let credential = Credential::KeyFile(key(n));
        let store = Arc::clone(&self.store);
        Repository::open(Access { store, clock, tenant: "default".into(), credential, cache }).unwrap()
    }

    /// What becomes of the state, and a copy of what it is now for a later `Old`.
    fn remember(&self, memory: State) {
        let (now, before) = (self.path("cache"), self.path("before"));
        let kept = self.path("kept");
        let _ = fs::remove_dir_all(&kept);
        copy(&now, &kept);
        match memory {
            State::Kept => {}
            State::Lost => fs::remove_dir_all(&now).unwrap_or_default(),
            State::Old => {
                let _ = fs::remove_dir_all(&now);
                copy(&before, &now);
            }
        }
        let _ = fs::remove_dir_all(&before);
        fs::rename(kept, before).unwrap();
    }

    fn snapshot(&self, step: &Step) -> SnapshotId {
        let options = Options {
            kind: step.kind,
            host: "db1".into(),
            user: String::new(),
            tags: Vec::new(),
            time: None,
            exclude: Vec::new(),
            exclude_files: Vec::new(),
            one_file_system: false,
            dry_run: false,
            level: 1,
            delta: Default::default(),
            program: "test".into(),
        };
        let repo = self.open(if step.by_writer { 2 } else { 1 }, Some(self.path("cache")));
        let source = Source::Files(Selection::new(&[self.path("source")]).unwrap());
        let outcome = backup::run(&repo, source, &options, &Silent).unwrap();
        assert_eq!(outcome.troubles, []);
        outcome.snapshot.unwrap()
    }

    /// What a snapshot gives back.
    fn restored(&self, repo: &Repository, id: &SnapshotId) -> Tree {
        let listing = snapshot::list(repo).unwrap();
        let found = listing.snapshots.iter().find(|s| s.id == *id).unwrap();
        let out = tempfile::tempdir().unwrap();
        let options = restore::Options { verify: true, ..restore::Options::default() };
        let outcome = restore::run(repo, &found.manifest.root, None, out.path(), &options, &Silent).unwrap();
        assert!(outcome.failed.is_empty() && outcome.warnings.is_empty(), "{outcome:?}");
        disk::read(&out.path().join(self.path("source").strip_prefix("/").unwrap()))
    }
}

fn key(n: u8) -> KeyFile {
    KeyFile(Zeroizing::new([n; 32]))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in crate::support::files_below(from) {
        let at = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::copy(file, at).unwrap();
    }
}

fn cycle(steps: &[Step]) {
    let world = World::new();
    let mut model = Tree::default();
    let mut disk = Disk::new(world.path("source"));
    let mut taken = Vec::new();
    for step in steps {
        for edit in &step.edits {
            if let Some(change) = model.plan(edit) {
                disk.apply(&change);
                model.apply(change, &disk);
            }
        }
        disk.settle(&mut model);
        assert!(
            disk::read(&world.path("source")) == model,
            "the model and the disk went apart: a fault of this test"
        );
        world.remember(step.memory);
        taken.push((world.snapshot(step), model.clone()));
    }
    let repo = world.open(1, None);
    let report = maintenance::check(&repo, Depth::AllData, &Silent).unwrap();
    assert_eq!(report.damages, 0, "{:?}", report.damage);
    for (at, (id, expected)) in taken.iter().enumerate() {
        let restored = world.restored(&repo, id);
        assert!(restored == *expected, "snapshot {at}: {}", expected.difference(&restored));
    }
}

#[test]
fn every_snapshot_of_a_series_of_edits_gives_back_its_moment() {
    let cases = if is_long() { 1_500 } else { 30 };
    let snapshots = AtomicUsize::new(0);
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 400, ..Config::default() };
    let outcome = TestRunner::new(config).run(&steps(), |steps| {
        snapshots.fetch_add(steps.len(), Ordering::Relaxed);
        cycle(&steps);
        Ok(())
    });
    if let Err(e) = outcome {
        panic!("{e}");
    }
    say(&format!("model: {cases} series, {} snapshots restored", snapshots.into_inner()));
}
