//! A store in memory that keeps a journal of what it was asked to list and to change, and that fails,
//! or is overtaken by somebody else, where a test says so.

use crate::world::{Hand, key};
use bytes::Bytes;
use estrato::clock::Clock;
use estrato::crypto::sign::Signing;
use estrato::crypto::slot::{self, Credential};
use estrato::error::{Error, Result, StoreError, StoreFault};
use estrato::format::header::{self, Cipher, Header, ObjectType};
use estrato::format::key::{Bundle, Role, Slot};
use estrato::id::RepositoryId;
use estrato::repo::{self, Access, NewKey, NewTenant, Repository, Secret};
use estrato::store::{Listed, Memory, Store};
use std::sync::{Arc, Mutex};

/// Sees every request before it is done, and what lies below; a fault that it returns is the answer.
type Decide = dyn Fn(&Memory, &str, &str) -> Option<StoreFault> + Send + Sync;

/// The store.
pub struct Journal {
    inner: Memory,
    decide: Mutex<Box<Decide>>,
    lines: Mutex<Vec<String>>,
}

/// What an object is, as the journal calls it.
fn short(name: &str) -> &str {
    let below = name.strip_prefix("tenants/default/").unwrap_or(name);
    match below.split_once('/') {
        Some(("keys", list)) if list.starts_with("signers.") => list,
        Some(("keys", _)) => "slot",
        Some((folder, _)) => folder,
        None => below,
    }
}

impl Journal {
    /// Shows every request to `decide` from now on.
    pub fn henceforth(&self, decide: impl Fn(&Memory, &str, &str) -> Option<StoreFault> + Send + Sync + 'static) {
        *self.decide.lock().unwrap() = Box::new(decide);
    }

    /// Fails every such request from now on, and no other.
    pub fn fail(&self, operation: &'static str, part: &'static str, fault: StoreFault) {
        self.henceforth(move |_, asked, name| (asked == operation && name.contains(part)).then_some(fault));
    }

    /// Fails nothing from now on.
    pub fn works(&self) {
        self.henceforth(|_, _, _| None);
    }

    /// What was listed and changed since the last time.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.lines.lock().unwrap())
    }

    /// What was changed since the last time.
    pub fn changes(&self) -> Vec<String> {
        self.take().into_iter().filter(|line| !line.starts_with("list ")).collect()
    }

    /// The names of the objects below a folder.
    pub fn names(&self, folder: &str) -> Vec<String> {
        self.inner.list(folder).unwrap().into_iter().map(|o| o.name).collect()
    }

    fn ask<T>(
        &self,
        operation: &'static str,
        name: &str,
        request: impl FnOnce(&Memory) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if let Some(fault) = (self.decide.lock().unwrap())(&self.inner, operation, name) {
            return Err(StoreError { fault, operation, object: name.into(), why: "as the test says".into() });
        }
        let answer = request(&self.inner)?;
        if matches!(operation, "create" | "write" | "delete" | "list") {
            self.lines.lock().unwrap().push(format!("{operation} {}", short(name)));
        }
        Ok(answer)
    }
}

impl Store for Journal {
    fn describe(&self) -> String {
        "a journal".into()
    }
    fn create(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        self.ask("create", name, |inner| inner.create(name, data))
    }
    fn write(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        self.ask("write", name, |inner| inner.write(name, data))
    }
    fn read(&self, name: &str, max: u64) -> Result<Bytes, StoreError> {
        self.ask("read", name, |inner| inner.read(name, max))
    }
    fn read_range(&self, name: &str, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        self.ask("read", name, |inner| inner.read_range(name, offset, len))
    }
    fn size(&self, name: &str) -> Result<u64, StoreError> {
        self.ask("size", name, |inner| inner.size(name))
    }
    fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        self.ask("list", folder, |inner| inner.list(folder))
    }
    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.ask("delete", name, |inner| inner.delete(name))
    }
}

/// The number of the full key that makes the tenant.
pub const FULL: u8 = 1;
/// The number of a writer's.
pub const WRITER: u8 = 2;

/// A store, and a clock that stands until it is moved.
pub struct Ground {
    pub store: Arc<Journal>,
    pub clock: Arc<Hand>,
}

impl Ground {
    /// Nothing.
    pub fn empty() -> Self {
        let decide: Box<Decide> = Box::new(|_, _, _| None);
        let store = Journal { inner: Memory::default(), decide: Mutex::new(decide), lines: Mutex::default() };
        Self { store: Arc::new(store), clock: Arc::default() }
    }

    /// A repository with a full key and a writer's, and an empty journal.
    pub fn new() -> Self {
        let ground = Self::empty();
        ground.init().unwrap();
        ground.open(FULL).add_key(&ground.new_key(WRITER, Role::Writer)).unwrap();
        ground.store.take();
        ground
    }

    /// Makes the repository and its tenant.
    pub fn init(&self) -> Result<(RepositoryId, NewTenant)> {
        let key = self.new_key(FULL, Role::Full);
        repo::init(&*self.store, &*self.clock, "default", Cipher::Aes256Gcm, &key)
    }

    /// A key to admit, called by its number.
    pub fn new_key(&self, n: u8, role: Role) -> NewKey {
        NewKey { role, label: format!("key {n}"), secret: Secret::KeyFile(key(n)) }
    }

    /// Opens the repository with a key.
    pub fn try_open(&self, n: u8) -> Result<Repository> {
        let credential = Credential::KeyFile(key(n));
        let store: Arc<dyn Store> = Arc::<Journal>::clone(&self.store);
        let clock: Arc<dyn Clock> = Arc::<Hand>::clone(&self.clock);
        Repository::open(Access { store, clock, tenant: "default".into(), credential, cache: None })
    }

    /// The same, where it must open.
    #[track_caller]
    pub fn open(&self, n: u8) -> Repository {
        self.try_open(n).unwrap()
    }

    /// What a key's slot holds.
    pub fn bundle(&self, repo: &Repository, n: u8) -> Bundle {
        let id = slot::key_file_slots(&key(n), repo.tenant())[0];
        let object = self.store.read(&repo.names().slot(&id), 1 << 20).unwrap();
        let slot = Slot::decode(&header::opened(&object).unwrap()[header::HEADER_LEN..]).unwrap();
        slot::open(&Credential::KeyFile(key(n)), repo.tenant(), &id, &slot).unwrap().unwrap()
    }

    /// A key's own signing key.
    pub fn signing(&self, repo: &Repository, n: u8) -> Signing {
        Signing::from_seed(&self.bundle(repo, n).signer_seed)
    }

    /// Writes a shared record as whoever holds `signing` would.
    pub fn write(&self, repo: &Repository, object: ObjectType, name: &str, signing: &Signing, payload: &[u8]) {
        let header = Header { object, cipher: repo.cipher() };
        let sealed = repo.realm().seal_shared(header, Some(name), signing, payload).unwrap();
        self.store.write(name, sealed.into()).unwrap();
    }
}

/// The fault of the store that an error tells.
#[track_caller]
pub fn fault<T>(result: Result<T>) -> StoreFault {
    match result {
        Err(Error::Store(e)) => e.fault,
        Err(e) => panic!("not the store's: {e}"),
        Ok(_) => panic!("nothing failed"),
    }
}
