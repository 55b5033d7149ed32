//! A fault at every request to the target of a copy, and to both places of a mirror: afterwards everything
//! that was kept restores at both, and the same command completes.

use crate::support::{files_below, is_long, noise, say};
use estrato::backup::{self, Options, Selection, Source};
use estrato::clock::{Clock, SystemClock};
use estrato::crypto::keyfile::KeyFile;
use estrato::crypto::slot::Credential;
use estrato::error::{Error, Result, StoreFault};
use estrato::format::header::Cipher;
use estrato::format::manifest::SnapshotKind;
use estrato::format::names::TENANTS;
use estrato::id::SnapshotId;
use estrato::maintenance::copy::{self, MirrorOptions};
use estrato::maintenance::prune::{self, Bounds};
use estrato::maintenance::{self, Depth, Part};
use estrato::monitor::Silent;
use estrato::repo::{self, Access, NewKey, Repository, Secret};
use estrato::restore;
use estrato::snapshot;
use estrato::store::{Fault, Faulty, Memory, Store};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

const FAULTS: [Fault; 8] = [
    Fault::CrashBefore,
    Fault::CrashAfter,
    Fault::Fail(StoreFault::Unavailable),
    Fault::LoseAnswer,
    Fault::Tear,
    Fault::Duplicate,
    Fault::Reorder,
    Fault::Delay(Duration::from_millis(1)),
];

type Tree = BTreeMap<PathBuf, Vec<u8>>;

fn tree(folder: &Path) -> Tree {
    let relative = |path: PathBuf| (path.strip_prefix(folder).unwrap().to_path_buf(), fs::read(path).unwrap());
    files_below(folder).into_iter().map(relative).collect()
}

fn secret(n: u8) -> Secret {
    Secret::KeyFile(KeyFile(Zeroizing::new([n; 32])))
}

fn open(store: &Arc<dyn Store>, n: u8, cache: Option<PathBuf>) -> Result<Repository> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let credential = Credential::KeyFile(KeyFile(Zeroizing::new([n; 32])));
    Repository::open(Access { store: Arc::clone(store), clock, tenant: "default".into(), credential, cache })
}

fn options(kind: SnapshotKind) -> Options {
    Options {
        kind,
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
    }
}

/// A repository of some snapshots, and what each holds.
struct Site {
    store: Arc<dyn Store>,
    folder: tempfile::TempDir,
    taken: Vec<(SnapshotId, Tree)>,
}

impl Site {
    fn of(days: usize) -> Self {
        let store: Arc<dyn Store> = Arc::new(Memory::default());
        let key = NewKey::full(secret(1), "full");
        repo::init(&*store, &SystemClock::default(), "default", Cipher::Aes256Gcm, &key).unwrap();
        let mut site = Self { store, folder: tempfile::tempdir().unwrap(), taken: Vec::new() };
        for n in 0..days {
            site.day(n);
        }
        site
    }

    fn day(&mut self, n: usize) {
        let source = self.folder.path().join("source");
        fs::create_dir_all(source.join("below")).unwrap();
        let mut table = noise("table", 120_000);
        table[n * 20_000..n * 20_000 + 300].copy_from_slice(&noise(&format!("row {n}"), 300));
        fs::write(source.join("table"), table).unwrap();
        fs::write(source.join(format!("below/{n}")), noise(&format!("{n}"), 9_000)).unwrap();
        let repo = open(&self.store, 1, None).unwrap();
        let selection = Source::Files(Selection::new(std::slice::from_ref(&source)).unwrap());
        let done = backup::run(&repo, selection, &options(SnapshotKind::Incremental), &Silent).unwrap();
        self.taken.push((done.snapshot.unwrap(), tree(&source)));
    }

    fn objects(store: &dyn Store) -> Vec<(String, bytes::Bytes)> {
        let listed = store.list("").unwrap();
        listed.into_iter().map(|o| (o.name.clone(), store.read(&o.name, 1 << 30).unwrap())).collect()
    }

    /// A store with the same objects.
    fn twin(store: &dyn Store) -> Arc<Faulty> {
        let twin = Memory::default();
        for (name, bytes) in Self::objects(store) {
            twin.create(&name, bytes).unwrap();
        }
        Arc::new(Faulty::new(Arc::new(twin)))
    }

    fn holds(&self, repo: &Repository, id: &SnapshotId, expected: &Tree, label: &str) {
        let object = repo.snapshot(id).unwrap();
        repo.sync_index().unwrap();
        let out = tempfile::tempdir().unwrap();
        let root = &object.manifest().unwrap().root;
        let done = restore::run(repo, root, None, out.path(), &restore::Options::default(), &Silent).unwrap();
        assert_eq!(done.failed, Vec::<String>::new(), "{label}");
        let source = self.folder.path().join("source");
        assert!(tree(&out.path().join(source.strip_prefix("/").unwrap())) == *expected, "{label}: {id}");
    }
}

fn copy_all(source: &Repository, target: &Repository) -> Result<copy::Outcome> {
    let listing = snapshot::list(source)?;
    source.sync_index()?;
    let all: Vec<SnapshotId> = listing.snapshots.iter().map(|s| s.id).collect();
    let (host, program) = ("db2".to_owned(), "test".to_owned());
    let options = copy::Options { host, dry_run: false, again: false, level: 1, program };
    copy::copy(source, target, (&listing.snapshots, &all), &options, &Silent)
}

fn target_like(site: &Site, same_ids: bool) -> Arc<dyn Store> {
    let store: Arc<dyn Store> = Arc::new(Memory::default());
    let id_key = open(&site.store, 1, None).unwrap().id_key();
    let key = NewKey::full(secret(2), "full");
    let like = (&key, same_ids.then_some(&id_key));
    repo::init_like(&*store, &SystemClock::default(), "default", Cipher::ChaCha20Poly1305, like).unwrap();
    store
}

/// All that stands at the target restores, and is whole; how many copies there are.
fn assert_copies(site: &Site, store: &Arc<dyn Store>, label: &str) -> usize {
    let repo = open(store, 2, None).unwrap();
    let report = maintenance::check(&repo, Depth::AllData, &Silent).unwrap();
    assert_eq!(report.damages, 0, "{label}: {:?}", report.damage);
    let listing = snapshot::list(&repo).unwrap();
    assert!(listing.gone.is_empty() && listing.damaged.is_empty(), "{label}");
    for s in &listing.snapshots {
        let original = s.manifest.origin.unwrap().snapshot;
        let (_, expected) = site.taken.iter().find(|(id, _)| *id == original).unwrap();
        site.holds(&repo, &s.id, expected, label);
    }
    listing.snapshots.len()
}

/// A copy in which one fault befalls the target, and the run after it.
fn copy_with(site: &Site, empty: &dyn Store, label: &str, fault: impl FnOnce(&Faulty)) -> bool {
    let store = Site::twin(empty);
    let shared: Arc<dyn Store> = Arc::<Faulty>::clone(&store);
    let cache = tempfile::tempdir().unwrap();
    let cache = || Some(cache.path().to_path_buf());
    let source = open(&site.store, 1, None).unwrap();
    fault(&store);
    let ran = open(&shared, 2, cache()).and_then(|target| copy_all(&source, &target));
    if let Err(e) = &ran {
        assert!(e.to_string().len() > 10 && !e.to_string().contains("panick"), "{label}: {e}");
    }
    store.heal();
    let done = assert_copies(site, &shared, label);
    assert!(ran.as_ref().is_ok_and(|ran| ran.failed.is_empty()) <= (done == site.taken.len()), "{label}");
    // A commit whose answer was lost is known.
    let again = copy_all(&source, &open(&shared, 2, cache()).unwrap()).unwrap_or_else(|e| panic!("{label}: {e}"));
    assert_eq!(again.copied.len() + done, site.taken.len(), "{label}");
    assert_eq!(assert_copies(site, &shared, label), site.taken.len(), "{label}");
    let source = open(&site.store, 1, None).unwrap();
    for (id, expected) in &site.taken {
        site.holds(&source, id, expected, label);
    }
    ran.is_ok()
}

#[test]
fn a_fault_at_every_request_to_the_target_of_a_copy() {
    let site = Site::of(2);
    for same_ids in [false, true] {
        let empty = target_like(&site, same_ids);
        let mut requests = 0;
        copy_with(&site, &*empty, "without faults", |store| store.heal());
        {
            let store = Site::twin(&*empty);
            let shared: Arc<dyn Store> = Arc::<Faulty>::clone(&store);
            let source = open(&site.store, 1, None).unwrap();
            store.heal();
            copy_all(&source, &open(&shared, 2, None).unwrap()).unwrap();
            requests += store.requests();
        }
        let faults = if is_long() { &FAULTS[..] } else { &FAULTS[1..4] };
        let mut tried = 0;
        for number in 1..=requests + 1 {
            for fault in faults {
                let label = format!("copy, same ids {same_ids}, request {number}: {fault:?}");
                copy_with(&site, &*empty, &label, |store| store.at(number, *fault));
                tried += 1;
            }
        }
        say(&format!("faults, copy with same ids {same_ids}: {tried} points tried"));
    }
}

#[test]
fn a_target_that_is_full() {
    let site = Site::of(2);
    for same_ids in [false, true] {
        let empty = target_like(&site, same_ids);
        for room in (0..200_000).step_by(if is_long() { 4_000 } else { 25_000 }) {
            copy_with(&site, &*empty, &format!("room for {room}"), |store| store.fill_after(room));
        }
    }
}

fn mirror(source: &dyn Store, target: &dyn Store, delete: bool) -> Result<copy::Mirrored> {
    copy::mirror(source, target, &MirrorOptions { delete, ..MirrorOptions::default() }, &Silent)
}

/// What belongs in a mirror.
fn mirrored(store: &dyn Store) -> Vec<(String, bytes::Bytes)> {
    let own = |name: &str| name.contains("/sessions/") || name.contains("/prune/") || !name.starts_with(TENANTS);
    Site::objects(store).into_iter().filter(|(name, _)| !own(name)).collect()
}

/// A mirror, however far it has come, is a repository in which all that it lists restores.
fn assert_mirror(site: &Site, store: &Arc<dyn Store>, label: &str) {
    if repo::tenants(&**store).unwrap_or_default().is_empty() {
        return;
    }
    let report = maintenance::check_store(&**store, Part::All, &Silent).unwrap();
    assert_eq!(report.damages, 0, "{label}: {:?}", report.damage);
    let repo = open(store, 1, None).unwrap_or_else(|e| panic!("{label}: {e}"));
    let listing = snapshot::list(&repo).unwrap();
    assert!(listing.damaged.is_empty(), "{label}");
    repo.sync_index().unwrap();
    for s in &listing.snapshots {
        let (_, expected) = site.taken.iter().find(|(id, _)| *id == s.id).unwrap();
        site.holds(&repo, &s.id, expected, label);
    }
}

#[test]
fn a_mirror_is_whole_after_every_single_request() {
    let mut site = Site::of(3);
    let mut tried = 0;
    // From nothing, and then with what a prune has left.
    let mut before: Arc<dyn Store> = Arc::new(Memory::default());
    for (delete, prunes) in [(false, false), (true, true)] {
        if prunes {
            site.day(3);
            let repo = open(&site.store, 1, None).unwrap();
            let listing = snapshot::list(&repo).unwrap();
            let there: Vec<_> = listing.snapshots.iter().map(|s| (s.id, &s.manifest, s.signer)).collect();
            repo.forget(&[site.taken[0].0, site.taken[1].0], &there, true, &Silent).unwrap();
            let bounds = Bounds { unused_percent: 0.0, repack: None };
            prune::prepare(&repo, &bounds.into(), &Silent).unwrap().execute(&Silent).unwrap();
        }
        let whole = Site::twin(&*before);
        whole.heal();
        mirror(&*site.store, &*whole, delete).unwrap();
        let requests = whole.requests();
        for fault in if is_long() { &FAULTS[..6] } else { &FAULTS[1..2] } {
            for number in 1..=requests {
                let label = format!("mirror, delete {delete}, request {number}: {fault:?}");
                let store = Site::twin(&*before);
                store.at(number, *fault);
                let ran = mirror(&*site.store, &*store, delete);
                store.heal();
                let shared: Arc<dyn Store> = Arc::<Faulty>::clone(&store);
                assert_mirror(&site, &shared, &label);
                if let Err(e) = ran {
                    assert!(
                        matches!(e, Error::Store(_) | Error::Damaged { .. } | Error::Missing { .. }),
                        "{label}: {e}"
                    );
                }
                mirror(&*site.store, &*store, delete).unwrap_or_else(|e| panic!("{label}: {e}"));
                assert!(mirrored(&*store) == mirrored(&*site.store), "{label}");
                tried += 1;
            }
        }
        before = whole;
    }
    say(&format!("faults, mirror: {tried} points tried"));
}

#[test]
fn what_vanishes_at_the_source_has_it_listed_again() {
    let mut site = Site::of(3);
    site.day(3);
    // At its n-th request the source is pruned by somebody else.
    let pruned = Site::twin(&*site.store);
    {
        let shared: Arc<dyn Store> = Arc::<Faulty>::clone(&pruned);
        let repo = open(&shared, 1, None).unwrap();
        let listing = snapshot::list(&repo).unwrap();
        let there: Vec<_> = listing.snapshots.iter().map(|s| (s.id, &s.manifest, s.signer)).collect();
        repo.forget(&[site.taken[0].0, site.taken[2].0], &there, true, &Silent).unwrap();
        let bounds = Bounds { unused_percent: 0.0, repack: None };
        prune::prepare(&repo, &bounds.into(), &Silent).unwrap().execute(&Silent).unwrap();
    }
    let after = Site::objects(&*pruned);
    for number in 1..40 {
        let inner = Arc::new(Memory::default());
        for (name, bytes) in Site::objects(&*site.store) {
            inner.create(&name, bytes).unwrap();
        }
        let (moved, now) = (Arc::clone(&inner), after.clone());
        let store = Faulty::new(inner);
        store.decide(move |request| {
            if request.number == number {
                for object in moved.list("").unwrap() {
                    if !now.iter().any(|(name, _)| *name == object.name) {
                        moved.delete(&object.name).unwrap();
                    }
                }
                for (name, bytes) in &now {
                    moved.write(name, bytes.clone()).unwrap();
                }
            }
            None
        });
        let target: Arc<dyn Store> = Arc::new(Memory::default());
        mirror(&store, &*target, false).unwrap_or_else(|e| panic!("pruned at request {number}: {e}"));
        assert_mirror(&site, &target, &format!("pruned at request {number}"));
        // Whether it came so far or not: now it is.
        store.heal();
        let done = mirror(&store, &*target, true).unwrap();
        assert!(done.withheld.is_empty(), "{:?}", done.withheld);
        let names = |store: &dyn Store| mirrored(store).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(&*target), names(&store), "pruned at request {number}: {done:?}");
        assert!(mirrored(&*target) == mirrored(&store), "pruned at request {number}");
    }
}
