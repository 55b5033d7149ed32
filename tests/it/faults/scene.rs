//! Repositories on which faults are tried, and what is done with them.

mod repair;

use super::assert_clear;
use crate::support::{files_below, noise};
use bytes::Bytes;
use estrato::backup::{self, Options, Selection, Source, Stream};
use estrato::clock::{Clock, SystemClock};
use estrato::crypto::keyfile::KeyFile;
use estrato::crypto::sign::Signing;
use estrato::crypto::slot::{self, Credential};
use estrato::error::{Error, Result};
use estrato::format::header::{self, Cipher, Header, ObjectType};
use estrato::format::key::{Role, Slot};
use estrato::format::manifest::SnapshotKind;
use estrato::format::parity::Parity;
use estrato::format::records::Plan;
use estrato::id::SnapshotId;
use estrato::maintenance::prune::{self, Bounds, Optimise};
use estrato::maintenance::repair::{Wanted, repair_packs};
use estrato::maintenance::{self, Damage, Depth};
use estrato::monitor::Silent;
use estrato::repo::{self, Access, NewKey, Repository, Secret, Session};
use estrato::restore;
use estrato::snapshot;
use estrato::store::{Fault, Faulty, Memory, Store};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

const FULL: u8 = 1;
const WRITER: u8 = 2;
const SPARE: u8 = 3;
const NEW: u8 = 4;

fn key(n: u8) -> KeyFile {
    KeyFile(Zeroizing::new([n; 32]))
}

/// A command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    Init,
    Snapshot,
    WriterSnapshot,
    Stream,
    Restore,
    Check,
    AddKey,
    RemoveKey,
    AddTenant,
    Forget,
    Prune,
    /// It leaves there what it condemned.
    PruneLeaving,
    /// What rests badly is written anew first.
    Optimise,
    MendPacks,
    SalvagePacks,
    RepairIndex,
    RepairSnapshots,
}

/// The files below a folder, with their bytes.
type Tree = BTreeMap<PathBuf, Vec<u8>>;

fn tree(folder: &Path) -> Tree {
    let relative = |path: PathBuf| (path.strip_prefix(folder).unwrap().to_path_buf(), fs::read(path).unwrap());
    files_below(folder).into_iter().map(relative).collect()
}

/// A repository at rest, this machine's state, a source, and what each reported snapshot holds.
pub struct Scene {
    pub name: &'static str,
    objects: Vec<(String, Bytes)>,
    place: tempfile::TempDir,
    reported: Vec<(SnapshotId, Tree)>,
    /// Snapshots that are to be forgotten.
    doomed: Vec<SnapshotId>,
    /// A pack is damaged, and nothing is lost by it.
    is_damaged: bool,
    /// Snapshots that have lost something, and what they have not lost.
    incomplete: Vec<(SnapshotId, Tree)>,
}

/// A repository that lives: faults befall it.
pub struct Stage<'s> {
    pub label: String,
    scene: &'s Scene,
    store: Arc<Faulty>,
    /// A copy of the scene's local state, and a target.
    place: tempfile::TempDir,
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in files_below(from) {
        let at = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::copy(file, at).unwrap();
    }
}

fn options() -> Options {
    Options {
        kind: SnapshotKind::Incremental,
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

const DUMP: &str = "dump.sql";

fn dump() -> Vec<u8> {
    noise("dump", 50_000)
}

impl Scene {
    fn build(name: &'static str, grow: impl FnOnce(&mut Stage<'_>, &mut Vec<(SnapshotId, Tree)>)) -> Self {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir_all(place.path().join("source/below")).unwrap();
        fs::create_dir_all(place.path().join("cache")).unwrap();
        let mut scene = Self {
            name,
            objects: Vec::new(),
            place,
            reported: Vec::new(),
            doomed: Vec::new(),
            is_damaged: false,
            incomplete: Vec::new(),
        };
        let mut reported = Vec::new();
        let mut stage = scene.stage(name);
        grow(&mut stage, &mut reported);
        let store = Arc::clone(&stage.store);
        fs::remove_dir_all(scene.place.path().join("cache")).unwrap();
        copy(&stage.cache(), &scene.place.path().join("cache"));
        drop(stage);
        let listed = store.list("").unwrap();
        scene.objects = listed.into_iter().map(|o| (o.name.clone(), store.read(&o.name, 1 << 30).unwrap())).collect();
        scene.reported = reported;
        scene
    }

    /// No repository yet.
    pub fn nothing() -> Self {
        Self::build("nothing", |_, _| {})
    }

    /// A repository without a snapshot.
    pub fn bare() -> Self {
        Self::build("a bare repository", |stage, _| {
            stage.make();
            stage.edit("a", 40_000);
        })
    }

    fn grow(stage: &mut Stage<'_>, reported: &mut Vec<(SnapshotId, Tree)>) {
        stage.make();
        for (name, len) in [("a", 30_000), ("below/b", 700), ("a", 25_000)] {
            stage.edit(name, len);
            for act in [Act::Snapshot, Act::WriterSnapshot] {
                reported.push((stage.act(act).unwrap().unwrap(), tree(&stage.source())));
            }
        }
        reported.push((stage.act(Act::Stream).unwrap().unwrap(), [(DUMP.into(), dump())].into()));
        // A backup that was killed long ago.
        std::mem::forget(Session::begin(&stage.open(FULL).unwrap(), "db1").unwrap());
        stage.edit("new", 20_000);
        stage.edit("below/b", 900);
    }

    /// Snapshots by two keys, and a session that was left behind.
    pub fn grown() -> Self {
        Self::build("a grown repository", Self::grow)
    }

    /// The same, and this machine has lost what it knew.
    pub fn forgotten_by_this_machine() -> Self {
        Self::build("a machine without memory", |stage, reported| {
            Self::grow(stage, reported);
            fs::remove_dir_all(stage.cache()).unwrap();
            fs::create_dir(stage.cache()).unwrap();
        })
    }

    /// The same, and a prune has condemned the first pack.
    pub fn beside_a_plan() -> Self {
        Self::build("a repository with a plan in force", |stage, reported| {
            Self::grow(stage, reported);
            let repo = stage.open(FULL).unwrap();
            let condemned = vec![repo.list_packs().unwrap()[0].0];
            let seen = repo.snapshot_ids().unwrap();
            let plan = Plan { number: 1, condemned, seen, ..Plan::default() };
            let name = repo.names().plan(1);
            let id = slot::key_file_slots(&key(FULL), repo.tenant())[0];
            let object = stage.store.read(&repo.names().slot(&id), 1 << 20).unwrap();
            let slot = Slot::decode(&header::opened(&object).unwrap()[header::HEADER_LEN..]).unwrap();
            let bundle = slot::open(&Credential::KeyFile(key(FULL)), repo.tenant(), &id, &slot).unwrap().unwrap();
            let header = Header { object: ObjectType::Plan, cipher: repo.cipher() };
            let signing = Signing::from_seed(&bundle.signer_seed);
            let sealed = repo.realm().seal_shared(header, Some(&name), &signing, &plan.encode()).unwrap();
            stage.store.create(&name, sealed.into()).unwrap();
        })
    }

    /// Snapshots of which every second one is to be forgotten.
    pub fn to_forget() -> Self {
        let mut all = Vec::new();
        let mut scene = Self::build("a repository of old snapshots", |stage, _| {
            stage.make();
            for (name, len) in [("a", 30_000), ("below/b", 700), ("a", 25_000), ("below/c", 20_000)] {
                stage.edit(name, len);
                for act in [Act::Snapshot, Act::WriterSnapshot] {
                    all.push((stage.act(act).unwrap().unwrap(), tree(&stage.source())));
                }
            }
            all.push((stage.act(Act::Stream).unwrap().unwrap(), [(DUMP.into(), dump())].into()));
        });
        let (doomed, kept): (Vec<_>, Vec<_>) = all.into_iter().enumerate().partition(|(n, _)| n % 3 < 2);
        scene.doomed = doomed.into_iter().map(|(_, (id, _))| id).collect();
        scene.reported = kept.into_iter().map(|(_, reported)| reported).collect();
        scene
    }

    /// The same, and they are forgotten.
    pub fn to_prune() -> Self {
        let mut scene = Self::to_forget();
        let stage = scene.stage("forgetting");
        stage.act(Act::Forget).unwrap();
        let listed = stage.store.list("").unwrap();
        let read = |name: &str| stage.store.read(name, 1 << 30).unwrap();
        let objects = listed.into_iter().map(|o| (o.name.clone(), read(&o.name))).collect();
        drop(stage);
        scene.objects = objects;
        scene.name = "a repository of forgotten snapshots";
        scene
    }

    /// A repository with so much parity, of which a pack was damaged, as a check has found. All its frames are
    /// whole.
    pub fn damaged(parity: u64) -> Self {
        let mut scene = Self::build("a repository with a damaged pack", |stage, reported| {
            stage.make();
            stage.open(FULL).unwrap().set_parity(Parity::per_mille(parity).unwrap()).unwrap();
            for len in [30_000, 25_000] {
                stage.edit("a", len);
                reported.push((stage.act(Act::Snapshot).unwrap().unwrap(), tree(&stage.source())));
            }
            let packs = stage.open(FULL).unwrap().list_packs().unwrap();
            let (pack, size) = packs.into_iter().max_by_key(|(_, size)| *size).unwrap();
            let object = stage.open(FULL).unwrap().names().pack(&pack);
            let mut bytes = stage.store.read(&object, size).unwrap().to_vec();
            *bytes.last_mut().unwrap() ^= 1;
            stage.store.write(&object, bytes.into()).unwrap();
            stage.act(Act::Check).unwrap();
        });
        scene.is_damaged = true;
        scene
    }

    /// A source that fills several packs.
    pub fn large() -> Self {
        Self::build("a source of several packs", |stage, reported| {
            stage.make();
            stage.edit("a", 5_000);
            reported.push((stage.act(Act::Snapshot).unwrap().unwrap(), tree(&stage.source())));
            stage.edit("large", 36_000_000);
            stage.edit("a", 6_000);
        })
    }

    /// The repository, brought to life.
    pub fn stage(&self, label: &str) -> Stage<'_> {
        let inner = Memory::default();
        for (name, bytes) in &self.objects {
            inner.create(name, bytes.clone()).unwrap();
        }
        let place = tempfile::tempdir().unwrap();
        copy(&self.place.path().join("cache"), &place.path().join("cache"));
        Stage { label: label.into(), scene: self, store: Arc::new(Faulty::new(Arc::new(inner))), place }
    }
}

impl Stage<'_> {
    fn source(&self) -> PathBuf {
        self.scene.place.path().join("source")
    }

    fn cache(&self) -> PathBuf {
        self.place.path().join("cache")
    }

    fn edit(&self, name: &str, len: usize) {
        fs::write(self.source().join(name), noise(&format!("{name} {len}"), len)).unwrap();
    }

    fn access(&self, n: u8, tenant: &str, cache: Option<PathBuf>) -> Access {
        let store: Arc<dyn Store> = Arc::<Faulty>::clone(&self.store);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        Access { store, clock, tenant: tenant.into(), credential: Credential::KeyFile(key(n)), cache }
    }

    fn open(&self, n: u8) -> Result<Repository> {
        Repository::open(self.access(n, "default", Some(self.cache())))
    }

    /// A repository with three keys.
    fn make(&self) {
        self.act(Act::Init).unwrap();
        let mut repo = self.open(FULL).unwrap();
        for (n, role, label) in [(WRITER, Role::Writer, "writer"), (SPARE, Role::Writer, "spare")] {
            repo.add_key(&NewKey { role, label: label.into(), secret: Secret::KeyFile(key(n)) }).unwrap();
        }
    }

    /// Does what the command does; the snapshot, if it reports one.
    fn act(&self, act: Act) -> Result<Option<SnapshotId>> {
        let full = || NewKey::full(Secret::KeyFile(key(FULL)), "full");
        let clock = SystemClock::default();
        match act {
            Act::Init => repo::init(&*self.store, &clock, "default", Cipher::Aes256Gcm, &full()).map(|_| None),
            Act::AddTenant => {
                repo::add_tenant(&*self.store, &clock, "other", Cipher::ChaCha20Poly1305, &full()).map(|_| None)
            }
            Act::Snapshot | Act::WriterSnapshot => {
                let repo = self.open(if act == Act::Snapshot { FULL } else { WRITER })?;
                let source = Source::Files(Selection::new(&[self.source()])?);
                backup::run(&repo, source, &options(), &Silent).map(|o| o.snapshot)
            }
            Act::Stream => {
                let repo = self.open(FULL)?;
                let input = Box::new(std::io::Cursor::new(dump()));
                let source = Source::Stream(Stream::input(DUMP, input)?);
                backup::run(&repo, source, &options(), &Silent).map(|o| o.snapshot)
            }
            Act::Restore => self.restore_newest(&self.place.path().join("target")).map(|()| None),
            Act::Check => {
                maintenance::check(&self.open(FULL)?, Depth::AllData, &Silent)?;
                Ok(None)
            }
            Act::AddKey => {
                let new = NewKey { role: Role::Full, label: "new".into(), secret: Secret::KeyFile(key(NEW)) };
                self.open(FULL)?.add_key(&new).map(|_| None)
            }
            Act::RemoveKey => self.open(FULL)?.remove_key("spare").map(|_| None),
            Act::Forget => {
                let repo = self.open(FULL)?;
                let listing = snapshot::list(&repo)?;
                let there: Vec<_> = listing.snapshots.iter().map(|s| (s.id, &s.manifest, s.signer)).collect();
                repo.forget(&self.scene.doomed, &there, true, &Silent).map(|_| None)
            }
            Act::Prune | Act::PruneLeaving => {
                let repo = self.open(FULL)?;
                let options = prune::Options {
                    bounds: Bounds { unused_percent: 0.0, repack: None },
                    keep_condemned: (act == Act::PruneLeaving).then_some(Duration::from_secs(60)),
                    ..prune::Options::default()
                };
                let outcome = prune::prepare(&repo, &options, &Silent)?.execute(&Silent)?;
                assert!(outcome.waiting.is_empty(), "{}: {:?}", self.label, outcome.waiting);
                Ok(None)
            }
            Act::Optimise => {
                let repo = self.open(FULL)?;
                let optimised = prune::optimise(&repo, Optimise { deepest: 0 }, false, &Silent)?;
                let bounds = Bounds { unused_percent: 0.0, repack: None };
                let options = prune::Options { preferred: optimised.packs, ..bounds.into() };
                // One that was killed while it stored is waited for, as a backup would be.
                prune::prepare(&repo, &options, &Silent)?.execute(&Silent)?;
                Ok(None)
            }
            Act::MendPacks | Act::SalvagePacks => {
                repair_packs(&self.open(FULL)?, &Wanted::default(), &Silent).map(|_| None)
            }
            Act::RepairIndex => self.repair_index().map(|()| None),
            Act::RepairSnapshots => self.repair_snapshots().map(|()| None),
        }
    }

    /// Restores the newest snapshot of the files; an error if not all of it came.
    fn restore_newest(&self, target: &Path) -> Result<()> {
        let repo = self.open(FULL)?;
        let listing = snapshot::list(&repo)?;
        let newest = listing.snapshots.iter().rev().find(|s| s.manifest.paths[0] != DUMP.as_bytes());
        let newest = newest.ok_or_else(|| Error::NotFound("no snapshot could be read".into()))?;
        repo.sync_index()?;
        let options = restore::Options::default();
        let outcome = restore::run(&repo, &newest.manifest.root, None, target, &options, &Silent)?;
        match outcome.failed.first() {
            None => Ok(()),
            Some(first) => Err(Error::Missing { object: first.clone() }),
        }
    }

    /// How many requests the command makes when nothing goes wrong.
    pub fn requests(&self, act: Act) -> u64 {
        self.store.heal();
        self.act(act).unwrap();
        self.store.requests()
    }

    /// How many bytes the command adds to the store.
    pub fn bytes(&self, act: Act) -> u64 {
        let sum = || self.store.list("").unwrap().iter().map(|o| o.size).sum::<u64>();
        let before = sum();
        self.act(act).unwrap();
        sum() - before
    }

    /// Does it with one fault, and asserts what must hold afterwards; true if it succeeded.
    pub fn at(self, number: u64, fault: Fault, act: Act) -> bool {
        self.store.at(number, fault);
        self.finish(act)
    }

    /// The same on a store with that much room.
    pub fn full(self, room: u64, act: Act) -> bool {
        self.store.fill_after(room);
        self.finish(act)
    }

    fn finish(self, act: Act) -> bool {
        let outcome = self.act(act);
        let mut reported = self.scene.reported.clone();
        match &outcome {
            Ok(Some(id)) => reported.push((*id, self.expected(act))),
            Ok(None) => {}
            Err(e) => assert_clear(&self, e),
        }
        self.store.heal();
        // Until it is repaired, something is wrong.
        let is_repair = act == Act::RepairIndex || act == Act::RepairSnapshots;
        if act != Act::Init && !is_repair {
            self.assert_whole(&reported, Some(self.cache()));
        }
        // Again, as a user would: what is done already may say so.
        match self.act(act) {
            Ok(Some(id)) => reported.push((id, self.expected(act))),
            Ok(None) => {}
            Err(Error::Exists { .. }) if matches!(act, Act::Init | Act::AddKey | Act::AddTenant) => {}
            Err(Error::NotFound(_)) if act == Act::RemoveKey => {}
            Err(e) => panic!("{}: the next run failed: {e}", self.label),
        }
        match act {
            Act::RepairSnapshots => self.assert_repaired(),
            _ => self.assert_whole(&reported, None),
        }
        self.assert_done(act);
        outcome.is_ok()
    }

    fn expected(&self, act: Act) -> Tree {
        if act == Act::Stream { [(DUMP.into(), dump())].into() } else { tree(&self.source()) }
    }

    /// What the command was for is there.
    fn assert_done(&self, act: Act) {
        let opens = |n, tenant: &str| Repository::open(self.access(n, tenant, None)).map(|_| ());
        match act {
            Act::Restore => {
                let source = self.place.path().join("target").join(self.source().strip_prefix("/").unwrap());
                let newest = self.scene.reported.iter().rev().find(|(_, tree)| !tree.contains_key(Path::new(DUMP)));
                assert_eq!(tree(&source), newest.unwrap().1, "{}", self.label);
            }
            Act::AddKey => opens(NEW, "default").unwrap(),
            Act::AddTenant => opens(FULL, "other").unwrap(),
            Act::RemoveKey => assert!(opens(SPARE, "default").is_err(), "{}", self.label),
            Act::Forget => {
                let left = snapshot::list(&self.open(FULL).unwrap()).unwrap();
                assert!(!left.snapshots.iter().any(|s| self.scene.doomed.contains(&s.id)), "{}", self.label);
            }
            Act::Prune | Act::PruneLeaving => {
                let repo = self.open(FULL).unwrap();
                assert_eq!(repo.plans().unwrap().in_force, None, "{}", self.label);
            }
            Act::MendPacks => {
                let report = maintenance::check(&self.open(FULL).unwrap(), Depth::AllData, &Silent).unwrap();
                assert_eq!(report.damages, 0, "{}: {:?}", self.label, report.damage);
                assert!(self.open(FULL).unwrap().known_damage().unwrap().packs.is_empty(), "{}", self.label);
            }
            Act::SalvagePacks => {
                // All that it held lies elsewhere.
                let repo = self.open(FULL).unwrap();
                let outcome = repair_packs(&repo, &Wanted::default(), &Silent).unwrap();
                assert_eq!((outcome.written_bytes, outcome.lost_blobs), (0, 0), "{}: {outcome:?}", self.label);
                for pack in repo.known_damage().unwrap().packs {
                    self.store.delete(&repo.names().pack(&pack)).unwrap();
                }
                self.assert_whole(&self.scene.reported, None);
            }
            _ => {}
        }
        opens(FULL, "default").unwrap();
        let spare = act == Act::Init || act == Act::RemoveKey;
        assert!(spare || opens(WRITER, "default").is_ok(), "{}: no other key is lost", self.label);
    }

    /// All data is whole, and every reported snapshot is listed and restores.
    fn assert_whole(&self, reported: &[(SnapshotId, Tree)], cache: Option<PathBuf>) {
        let repo = Repository::open(self.access(FULL, "default", cache)).unwrap();
        let report = maintenance::check(&repo, Depth::AllData, &Silent).unwrap();
        let needed = report.damage.iter().filter(|damage| !self.scene.is_damaged || damage.lost_blobs > 0);
        assert_eq!(needed.collect::<Vec<_>>(), Vec::<&Damage>::new(), "{}", self.label);
        let listing = snapshot::list(&repo).unwrap();
        for (id, expected) in reported {
            let found = listing.snapshots.iter().find(|s| s.id == *id);
            let found = found.unwrap_or_else(|| panic!("{}: snapshot {id} is gone", self.label));
            let out = tempfile::tempdir().unwrap();
            let options = restore::Options::default();
            let outcome = restore::run(&repo, &found.manifest.root, None, out.path(), &options, &Silent).unwrap();
            assert_eq!(outcome.failed, Vec::<String>::new(), "{}", self.label);
            let at = if expected.contains_key(Path::new(DUMP)) {
                out.path().to_path_buf()
            } else {
                out.path().join(self.source().strip_prefix("/").unwrap())
            };
            assert!(tree(&at) == *expected, "{}: snapshot {id} gives back something else", self.label);
        }
    }
}
