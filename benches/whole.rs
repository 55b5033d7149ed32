//! Whole verbs on a tree of 64 MB: four tables of 15 MB and 2,000 files of about
//! 2 kB, from and to folders of this machine, every object synced to the disk.
//!
//! `backup/first` stores everything in a new repository. `backup/unchanged` takes
//! another snapshot with the notes of the one before. `restore` writes everything
//! to an empty folder. Throughput counts the tree's bytes.

mod data;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use data::Numbers;
use estrato::backup::{self, Selection, Source};
use estrato::clock::SystemClock;
use estrato::crypto::aead;
use estrato::crypto::keyfile::KeyFile;
use estrato::crypto::slot::Credential;
use estrato::format::manifest::{Manifest, SnapshotKind};
use estrato::limits;
use estrato::monitor::Silent;
use estrato::repo::{self, Access, NewKey, Repository, Secret};
use estrato::restore;
use estrato::store::Local;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

const TABLES: u64 = 4;
const TABLE: usize = 15_000_000;
const SMALL_FILES: u64 = 2000;

/// The tree, and its bytes.
fn tree() -> (TempDir, u64) {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = 0;
    let mut write = |path: String, content: Vec<u8>| {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        bytes += content.len() as u64;
        fs::write(path, content).unwrap();
    };
    for n in 0..TABLES {
        write(format!("tables/{n}.csv"), data::table(n, TABLE));
    }
    let mut numbers = Numbers(1);
    for n in 0..SMALL_FILES {
        write(format!("small/{:02}/{n}.txt", n % 40), data::table(100 + n, 1000 + numbers.below(2000) as usize));
    }
    // Files that changed just before a snapshot are read again by the next one.
    std::thread::sleep(Duration::from_nanos(limits::RACY_NANOS as u64 * 2));
    (folder, bytes)
}

fn key() -> KeyFile {
    KeyFile([1; 32].into())
}

/// A place with a new repository and its local state.
fn new_repository() -> TempDir {
    let place = tempfile::tempdir().unwrap();
    let store = Local::new(place.path().join("repo")).unwrap();
    let key = NewKey::full(Secret::KeyFile(key()), "bench");
    repo::init(&store, &SystemClock::default(), "default", aead::preferred(), &key).unwrap();
    place
}

fn open(place: &TempDir) -> Repository {
    Repository::open(Access {
        store: Arc::new(Local::new(place.path().join("repo")).unwrap()),
        clock: Arc::new(SystemClock::default()),
        tenant: "default".into(),
        credential: Credential::KeyFile(key()),
        cache: Some(place.path().join("cache")),
    })
    .unwrap()
}

fn back_up(repo: &Repository, tree: &Path) -> Manifest {
    let options = backup::Options {
        kind: SnapshotKind::Incremental,
        host: "bench".into(),
        user: "bench".into(),
        tags: Vec::new(),
        time: None,
        exclude: Vec::new(),
        exclude_files: Vec::new(),
        one_file_system: false,
        dry_run: false,
        level: limits::ZSTD_LEVEL,
        delta: Default::default(),
        program: "bench".into(),
    };
    let source = Source::Files(Selection::new(&[tree.to_path_buf()]).unwrap());
    let outcome = backup::run(repo, source, &options, &Silent).unwrap();
    assert!(outcome.troubles.is_empty());
    outcome.manifest
}

fn whole(c: &mut Criterion) {
    let (tree, bytes) = tree();

    let mut group = c.benchmark_group("backup");
    group.throughput(Throughput::Bytes(bytes));
    group.bench_function("first", |b| {
        let fresh = || {
            let place = new_repository();
            (open(&place), place)
        };
        let first = |(repo, place): (Repository, TempDir)| {
            assert!(back_up(&repo, tree.path()).summary.read_bytes >= bytes);
            (repo, place)
        };
        b.iter_batched(fresh, first, BatchSize::PerIteration);
    });
    let place = new_repository();
    let manifest = back_up(&open(&place), tree.path());
    group.bench_function("unchanged", |b| {
        b.iter_batched(
            || open(&place),
            |repo| {
                assert_eq!(back_up(&repo, tree.path()).summary.read_bytes, 0);
                repo
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();

    let mut group = c.benchmark_group("restore");
    group.throughput(Throughput::Bytes(bytes));
    group.bench_function("to an empty folder", |b| {
        b.iter_batched(
            || (open(&place), tempfile::tempdir().unwrap()),
            |(repo, target)| {
                let options = restore::Options::default();
                let outcome = restore::run(&repo, &manifest.root, None, target.path(), &options, &Silent).unwrap();
                assert_eq!((outcome.failures, outcome.bytes), (0, bytes));
                (repo, target)
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = whole
}
criterion_main!(benches);
