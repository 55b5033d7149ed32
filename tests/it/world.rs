//! A repository in memory for tests through the library, in a store to which things happen.

use crate::support::files_below;
use bytes::Bytes;
use estrato::backup::{self, Options, Outcome, Selection, Source};
use estrato::clock::{Clock, Timestamp};
use estrato::crypto::keyfile::KeyFile;
use estrato::crypto::sign::Signing;
use estrato::crypto::slot::{self, Credential};
use estrato::error::{Result, StoreError, StoreFault};
use estrato::format::header::{self, Cipher, Header, ObjectType};
use estrato::format::index::IndexObject;
use estrato::format::key::{Bundle, Role, Slot};
use estrato::format::manifest::{Manifest, SnapshotKind};
use estrato::format::pack::BlobKind;
use estrato::format::records::{Plan, SessionRecord};
use estrato::id::{IndexName, PackName, SnapshotId};
use estrato::monitor::{Event, Monitor, Silent};
use estrato::repo::{self, Access, Deltas, NewKey, Repository, Secret, Session, Stored, Writer, WriterState};
use estrato::restore;
use estrato::store::{Listed, Memory, Store};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use zeroize::Zeroizing;

/// A clock that stands until it is moved.
#[derive(Default)]
pub struct Hand(Mutex<u64>);

impl Hand {
    /// Moves it.
    pub fn forward(&self, seconds: u64) {
        *self.0.lock().unwrap() += seconds;
    }
}

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp { seconds: 1_700_000_000 + i64::try_from(*self.0.lock().unwrap()).unwrap(), nanos: 0 }
    }

    fn elapsed(&self) -> Duration {
        Duration::from_secs(*self.0.lock().unwrap())
    }
}

/// What befalls a request.
pub enum Fate {
    Done,
    /// It is done, but the answer is lost.
    Lost,
    /// It is not done, and there is no answer.
    Unheard,
    /// The condition is ignored.
    Overwrites,
    /// It is not done, since somebody else's object is said to be there.
    Taken,
}

type Decide = dyn Fn(&str) -> Fate + Send + Sync;

/// A store whose `create` may go wrong.
pub struct Fateful {
    inner: Memory,
    decide: Mutex<Box<Decide>>,
    is_far: AtomicBool,
    read: AtomicU64,
}

impl Fateful {
    /// An empty one, to which nothing happens.
    pub fn new() -> Arc<Self> {
        let decide = Mutex::new(Box::new(|_: &str| Fate::Done) as Box<Decide>);
        Arc::new(Self { inner: Memory::default(), decide, is_far: false.into(), read: 0.into() })
    }

    /// Lies far away from now on.
    pub fn moves_away(&self) {
        self.is_far.store(true, Ordering::Relaxed);
    }

    /// Bytes that were read of parts of objects.
    pub fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// What happens from now on to every `create`.
    pub fn henceforth(&self, decide: impl Fn(&str) -> Fate + Send + Sync + 'static) {
        *self.decide.lock().unwrap() = Box::new(decide);
    }
}

impl Store for Fateful {
    fn describe(&self) -> String {
        "a store with a fate".into()
    }
    fn is_far(&self) -> bool {
        self.is_far.load(Ordering::Relaxed)
    }
    fn create(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        let fate = (self.decide.lock().unwrap())(name);
        let fault = StoreFault::Unavailable;
        let none = StoreError { fault, operation: "create", object: name.into(), why: "no answer".into() };
        match fate {
            Fate::Done => self.inner.create(name, data),
            Fate::Lost => self.inner.create(name, data).and(Err(none)),
            Fate::Unheard => Err(none),
            Fate::Overwrites => self.inner.write(name, data),
            Fate::Taken => Err(StoreError { fault: StoreFault::Exists, why: "it is there".into(), ..none }),
        }
    }
    fn write(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        self.inner.write(name, data)
    }
    fn read(&self, name: &str, max: u64) -> Result<Bytes, StoreError> {
        self.inner.read(name, max)
    }
    fn read_range(&self, name: &str, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        self.read.fetch_add(len as u64, Ordering::Relaxed);
        self.inner.read_range(name, offset, len)
    }
    fn size(&self, name: &str) -> Result<u64, StoreError> {
        self.inner.size(name)
    }
    fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        self.inner.list(folder)
    }
    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.inner.delete(name)
    }
}

pub const FULL: u8 = 1;
pub const WRITER: u8 = 2;

/// The key file of that number.
pub fn key(n: u8) -> KeyFile {
    KeyFile(Zeroizing::new([n; 32]))
}

/// A repository with a full key and a writer's.
pub struct World {
    /// Where it lies.
    pub store: Arc<Fateful>,
    /// Its time.
    pub clock: Arc<Hand>,
}

impl World {
    /// The repository, its tenant `default`.
    pub fn new() -> Self {
        let world = Self { store: Fateful::new(), clock: Arc::default() };
        let new = NewKey::full(Secret::KeyFile(key(FULL)), "full");
        repo::init(&*world.store, &*world.clock, "default", Cipher::Aes256Gcm, &new).unwrap();
        let writer = NewKey { role: Role::Writer, label: "writer".into(), secret: Secret::KeyFile(key(WRITER)) };
        world.open(FULL).add_key(&writer).unwrap();
        world
    }

    /// Opens it with the key of that number on a machine that keeps its state in `cache`.
    pub fn try_open(&self, n: u8, cache: Option<PathBuf>) -> Result<Repository> {
        let credential = Credential::KeyFile(key(n));
        let store: Arc<dyn Store> = Arc::<Fateful>::clone(&self.store);
        let clock: Arc<dyn Clock> = Arc::<Hand>::clone(&self.clock);
        Repository::open(Access { store, clock, tenant: "default".into(), credential, cache })
    }

    /// What is wrong with the tenant for this key: why it is refused, or what is damaged of what it may
    /// only read; nothing, if it may do all.
    #[track_caller]
    pub fn trouble(&self, n: u8, cache: Option<PathBuf>) -> String {
        match self.try_open(n, cache) {
            Err(e) => e.to_string(),
            Ok(repo) => {
                let damaged: Vec<String> = repo.salvaged().iter().map(ToString::to_string).collect();
                assert_eq!(damaged.is_empty(), repo.writable().is_ok());
                assert!(damaged.is_empty() || Session::begin(&repo, "host").is_err(), "nothing is written then");
                damaged.join("; ")
            }
        }
    }

    /// The same, where it must open.
    #[track_caller]
    pub fn open_with(&self, n: u8, cache: Option<PathBuf>) -> Repository {
        self.try_open(n, cache).unwrap()
    }

    /// The same, on a machine that has never seen it and keeps nothing.
    #[track_caller]
    pub fn open(&self, n: u8) -> Repository {
        self.open_with(n, None)
    }

    /// What a key's slot holds.
    pub fn bundle(&self, repo: &Repository, n: u8) -> Bundle {
        let id = slot::key_file_slots(&key(n), repo.tenant())[0];
        let object = self.store.read(&repo.names().slot(&id), 1 << 20).unwrap();
        let slot = Slot::decode(&header::opened(&object).unwrap()[header::HEADER_LEN..]).unwrap();
        slot::open(&Credential::KeyFile(key(n)), repo.tenant(), &id, &slot).unwrap().unwrap()
    }

    /// The signing key of the key of that number.
    pub fn signing(&self, repo: &Repository, n: u8) -> Signing {
        Signing::from_seed(&self.bundle(repo, n).signer_seed)
    }

    /// Seals a shared record as whoever holds `signing` would, and writes it.
    pub fn write(&self, repo: &Repository, object: ObjectType, name: &str, signing: &Signing, payload: &[u8]) {
        let header = Header { object, cipher: repo.cipher() };
        let sealed = repo.realm().seal_shared(header, Some(name), signing, payload).unwrap();
        self.store.write(name, sealed.into()).unwrap();
    }

    /// Seals and writes a plan.
    pub fn plan(&self, repo: &Repository, plan: &Plan, signing: &Signing) {
        self.write(repo, ObjectType::Plan, &repo.names().plan(plan.number), signing, &plan.encode());
    }

    /// Seals and writes an index object.
    pub fn index(&self, repo: &Repository, object: &IndexObject, signing: &Signing) -> IndexName {
        let payload = zstd::bulk::compress(&object.encode(), 1).unwrap();
        let header = Header { object: ObjectType::Index, cipher: repo.cipher() };
        let sealed = repo.realm().seal_shared(header, None, signing, &payload).unwrap();
        let name = IndexName(*sealed.last_chunk().unwrap());
        self.store.write(&repo.names().index(&name), sealed.into()).unwrap();
        name
    }

    /// The names of the objects below a folder.
    pub fn names(&self, folder: &str) -> Vec<String> {
        self.store.list(folder).unwrap().into_iter().map(|o| o.name).collect()
    }

    /// Takes a snapshot of these blobs, each a file's worth, as one stream; what was new.
    pub fn snapshot(&self, repo: &Repository, blobs: &[&[u8]]) -> (SnapshotId, Vec<Stored>) {
        let session = Session::begin(repo, "host").unwrap();
        let stored = put(&session, blobs).unwrap();
        (session.commit(&manifest()).unwrap(), stored)
    }
}

/// A manifest of nothing.
pub fn manifest() -> Manifest {
    let time = Timestamp { seconds: 5, nanos: 0 };
    let (paths, source) = (vec![b"x".to_vec()], vec![b"/x".to_vec()]);
    Manifest {
        time,
        started: time,
        ended: time,
        host: "host".into(),
        paths,
        source,
        chain: [1; 16],
        ..Manifest::default()
    }
}

/// Puts blobs through a writer of the session, and waits until they are indexed.
pub fn put<B: AsRef<[u8]>>(session: &Session<'_>, blobs: &[B]) -> Result<Vec<Stored>> {
    let state = WriterState::new(Deltas::Chains, &Silent);
    std::thread::scope(|scope| {
        let writer = Writer::start(scope, session, &state, 1, 1);
        let mut lane = writer.lane();
        let stored: Result<Vec<Stored>> =
            blobs.iter().map(|b| lane.put(BlobKind::Chunk, b.as_ref()).map(|(_, stored)| stored)).collect();
        let closed = lane.finish();
        writer.finish()?;
        closed?;
        stored
    })
}

/// Two blobs.
pub const BLOBS: [&[u8]; 2] = [b"one blob", b"another blob"];
/// Both were new.
pub const NEW: [Stored; 2] = [Stored::New; 2];
/// Both were known.
pub const KNOWN: [Stored; 2] = [Stored::Known; 2];

/// The packs in the store.
pub fn packs(repo: &Repository) -> Vec<PackName> {
    repo.list_packs().unwrap().into_iter().map(|(name, _)| name).collect()
}

/// What a session's object says.
pub fn record(repo: &Repository, id: &SnapshotId) -> SessionRecord {
    let name = repo.names().session(id);
    let bytes = repo.store().read(&name, 1 << 20).unwrap();
    let opened = repo.realm().open_shared(ObjectType::Session, Some(&name), &name, &bytes).unwrap();
    assert_eq!(opened.signer, repo.signer());
    SessionRecord::decode(&opened.payload).unwrap()
}

/// How backups are taken here.
pub fn options() -> Options {
    Options {
        kind: SnapshotKind::Incremental,
        host: "database-host".into(),
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

/// Keeps the warnings.
#[derive(Default)]
pub struct Heard(Mutex<Vec<String>>);

impl Monitor for Heard {
    fn event(&self, event: Event) {
        if let Event::Warning(warning) = event {
            self.0.lock().unwrap().push(warning);
        }
    }
}

/// The files below a folder, by their names from there.
pub fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let below = |path: PathBuf| (path.strip_prefix(folder).unwrap().to_path_buf(), std::fs::read(&path).unwrap());
    files_below(folder).into_iter().map(below).collect()
}

impl World {
    /// The same, where the clock shows today: files that were written before are older than the next snapshot.
    pub fn today() -> Self {
        let world = Self::new();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        world.clock.forward(now.as_secs() - 1_700_000_000 + 3600);
        world
    }

    /// Everything that is stored.
    pub fn objects(&self) -> BTreeMap<String, Bytes> {
        let all = self.store.list("").unwrap();
        all.into_iter().map(|o| (o.name.clone(), self.store.read(&o.name, 1 << 30).unwrap())).collect()
    }

    /// Makes the store hold exactly this.
    pub fn show(&self, objects: &BTreeMap<String, Bytes>) {
        for name in self.names("") {
            self.store.delete(&name).unwrap();
        }
        for (name, object) in objects {
            self.store.write(name, object.clone()).unwrap();
        }
    }

    /// Another world with the same objects.
    pub fn twin(&self) -> Self {
        let twin = Self { store: Fateful::new(), clock: Arc::clone(&self.clock) };
        twin.show(&self.objects());
        twin
    }

    /// Backs up a folder; what happened, and the warnings.
    pub fn try_backup(&self, repo: &Repository, folder: &Path) -> Result<(Outcome, Vec<String>)> {
        let heard = Heard::default();
        let source = Source::Files(Selection::new(&[folder.to_path_buf()])?);
        let outcome = backup::run(repo, source, &options(), &heard)?;
        self.clock.forward(60);
        Ok((outcome, heard.0.into_inner().unwrap()))
    }

    /// The same, where it must succeed; the snapshot.
    #[track_caller]
    pub fn backup(&self, repo: &Repository, folder: &Path) -> (SnapshotId, Manifest, Vec<String>) {
        let (outcome, warnings) = self.try_backup(repo, folder).unwrap();
        assert!(outcome.troubles.is_empty(), "{:?}", outcome.troubles);
        (outcome.snapshot.unwrap(), outcome.manifest, warnings)
    }

    /// Restores a snapshot of a folder: what came back, and everything that was told on the way.
    pub fn try_restore(&self, repo: &Repository, id: &SnapshotId, folder: &Path) -> Restored {
        let target = tempfile::tempdir().unwrap();
        let mut told = Vec::new();
        let outcome = repo.sync_index().and_then(|problems| {
            told.extend(problems.iter().map(ToString::to_string));
            let object = repo.snapshot(id)?;
            let Some(manifest) = object.manifest() else {
                return Ok(restore::Outcome { failures: 1, ..Default::default() });
            };
            restore::run(repo, &manifest.root, None, target.path(), &restore::Options::default(), &Silent)
        });
        let failures = match outcome {
            Ok(outcome) => {
                told.extend(outcome.failed);
                outcome.failures
            }
            Err(e) => {
                told.push(e.to_string());
                1
            }
        };
        let below = target.path().join(folder.strip_prefix("/").unwrap());
        Restored { files: contents(&below), failures, told }
    }

    /// Asserts that this repository gives a snapshot of a folder back byte for byte.
    #[track_caller]
    pub fn restores(&self, repo: &Repository, id: &SnapshotId, files: &BTreeMap<PathBuf, Vec<u8>>, folder: &Path) {
        let restored = self.try_restore(repo, id, folder);
        assert_eq!(restored.failures, 0, "{:?}", restored.told);
        assert!(restored.files == *files, "the files differ: {:?}", restored.told);
    }
}

/// What a restore gave.
pub struct Restored {
    /// The files that came back.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    /// How many entries did not.
    pub failures: u64,
    /// Problems and errors.
    pub told: Vec<String>,
}
