//! Where blobs lie, kept on this machine in SQLite so that it never has to fit
//! in memory. Everything here follows from the index objects in the store: if
//! it is lost, old or damaged it is made again, within the call that found it
//! so. It holds no names of files and no plaintext, and it never touches the
//! store: whoever opens it brings a [`Keeper`] that does.

mod blocks;
mod closing;
mod content;
mod db;
mod fault;
mod filter;
mod loaded;
pub mod lock;
mod map;
mod recent;
mod rows;
mod trust;

pub use db::{open_private_file, plan_once, remove_files};
pub use fault::is_damage;
pub use loaded::{BlobCopy, PackMap, Place};

use crate::error::{Error, Result};
use crate::format::index::{IndexObject, PackEntry, Vouched};
use crate::id::{BaseId, BlobId, IndexName, PackName, SignerId};
use crate::limits;
use db::Db;
use fault::Fault;
use loaded::{Group, GroupNumber, Wanted};
use recent::Recent;
use std::collections::{HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use trust::Trust;

/// Number of a pack's entry in the local database. A pack that two index
/// objects name has two.
pub type EntryNumber = i64;

/// An index object that the local database holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownObject {
    /// Its name.
    pub name: IndexName,
    /// Who signed it.
    pub signer: SignerId,
}

/// What the local database knows of a pack, without its frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownPack {
    /// The entry.
    pub number: EntryNumber,
    /// The index object that brought it.
    pub object: IndexName,
    /// The pack.
    pub name: PackName,
    /// Its size in bytes.
    pub size: u64,
    /// Who signed the entry.
    pub signer: SignerId,
}

impl KnownPack {
    /// What vouches for it.
    pub fn vouched(&self) -> Vouched {
        Vouched { index: self.object, pack: self.name }
    }
}

/// Frames that a thread met last; most blobs of a stream lie where the one before lay, or behind it.
#[derive(Default)]
pub struct Hint(VecDeque<Arc<Group>>);

const HINTS: usize = 4;

impl Hint {
    fn keep(&mut self, group: Arc<Group>) {
        if self.0.len() == HINTS {
            self.0.pop_back();
        }
        self.0.push_front(group);
    }
}

struct Cache {
    groups: Recent<Group>,
    packs: Recent<PackMap>,
}

/// What befell the index on this machine.
#[derive(Debug)]
pub enum Trouble {
    /// Its file is damaged; it is made again.
    Damaged(String),
    /// Its file cannot be written or read; this process goes on without it.
    Unusable(Error),
}

/// Takes in one index object.
pub type Take<'a> = dyn FnMut(&IndexName, &SignerId, &IndexObject) -> Result<()> + 'a;

/// Makes the index again from the store, and hears what befell it.
pub trait Keeper: Send + Sync {
    /// Takes note.
    fn told(&self, trouble: Trouble);

    /// Gives every sound index object of the store to `take`, and returns the names of those that
    /// others of them replace. Must not call the index.
    ///
    /// # Errors
    /// The store's, and those of `take`.
    fn refill(&self, take: &mut Take<'_>) -> Result<HashSet<IndexName>>;
}

/// The index on this machine.
pub struct Index {
    db: Mutex<Db>,
    cache: Mutex<Cache>,
    folder: Option<PathBuf>,
    /// Why the file had to be made anew when it was opened.
    lost: Option<String>,
    keeper: OnceLock<Box<dyn Keeper>>,
    trust: Trust,
    /// How often it was made again.
    made: AtomicU32,
}

/// A poisoned lock means a panic elsewhere; the data behind these locks is valid between calls.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Index {
    /// Opens the database in `folder`, or makes it anew where it is damaged or of another version.
    ///
    /// # Errors
    /// [`crate::error::Error::Local`] where the folder cannot be written.
    pub fn open(folder: &Path) -> Result<Self> {
        let (db, lost) = Db::open(folder)?;
        Ok(Self { lost, folder: Some(folder.to_path_buf()), ..Self::over(db) })
    }

    /// An index that is forgotten with the process. What does not fit in a few megabytes of memory
    /// lies in a temporary file without a name.
    ///
    /// # Errors
    /// [`crate::error::Error::Local`] where SQLite fails.
    pub fn in_memory() -> Result<Self> {
        Ok(Self::over(Db::private(HashMap::new())?))
    }

    fn over(db: Db) -> Self {
        let max = limits::INDEX_CACHE_BLOBS;
        let cache = Cache { groups: Recent::new(max), packs: Recent::new(max) };
        Self {
            db: Mutex::new(db),
            cache: Mutex::new(cache),
            folder: None,
            lost: None,
            keeper: OnceLock::new(),
            trust: Trust::default(),
            made: AtomicU32::new(0),
        }
    }

    /// The same, with somebody who can make it again: from here on a damaged file, or one that cannot
    /// be written, is no error any more.
    pub fn kept(mut self, keeper: Box<dyn Keeper>) -> Self {
        if let Some(why) = self.lost.take() {
            keeper.told(Trouble::Damaged(why));
        }
        self.keeper = OnceLock::from(keeper);
        self
    }

    /// Asks the database; where it fails, makes it again from the store and asks once more.
    fn ask<T>(&self, mut call: impl FnMut(&mut Db) -> Result<T, Fault>) -> Result<T> {
        // Held while it is made again: what is added meanwhile must not go to the old one.
        let mut db = lock(&self.db);
        let fault = match call(&mut db) {
            Ok(answer) => return Ok(answer),
            Err(Fault::Other(e)) => return Err(e),
            Err(fault) => fault,
        };
        let Some(keeper) = self.keeper.get().filter(|_| !db.is_private()) else { return Err(db.error(fault)) };
        match fault {
            Fault::Damaged(why) => self.condemn(why),
            fault => keeper.told(Trouble::Unusable(db.error(fault))),
        }
        *db = refilled(&db, &**keeper)?;
        self.made.fetch_add(1, Ordering::AcqRel);
        call(&mut db).map_err(|fault| db.error(fault))
    }

    /// Makes the index again from the store, for this process, unless all of it came from there just
    /// now; true if it did. For whoever misses a blob that must be there: a damaged row of the file
    /// may be why.
    ///
    /// # Errors
    /// The store's.
    pub fn renew(&self) -> Result<bool> {
        let mut db = lock(&self.db);
        let Some(keeper) = self.keeper.get().filter(|_| !db.is_fresh()) else { return Ok(false) };
        *db = refilled(&db, &**keeper)?;
        self.made.fetch_add(1, Ordering::AcqRel);
        Ok(true)
    }

    /// Notes that the file is damaged: the next command makes it anew.
    pub fn condemn(&self, why: String) {
        if let Some(folder) = &self.folder {
            Db::condemn(folder);
        }
        if let Some(keeper) = self.keeper.get() {
            keeper.told(Trouble::Damaged(why));
        }
    }

    /// The index objects whose entries are here.
    ///
    /// # Errors
    /// [`crate::error::Error::Local`], as every call here; with a [`Keeper`], the store's.
    pub fn objects(&self) -> Result<Vec<KnownObject>> {
        self.ask(|db| {
            db.catch_up()?;
            db.objects()
        })
    }

    /// Takes in an object's entries, and returns their numbers; once is enough, and twice does no harm.
    ///
    /// # Errors
    /// See [`Index::objects`].
    pub fn add(&self, name: &IndexName, signer: &SignerId, object: &IndexObject) -> Result<Vec<EntryNumber>> {
        let added = self.ask(|db| db.add(name, signer, object));
        self.trust.hear(signer, object);
        added
    }

    /// Drops objects that are no longer in the store, and their entries.
    ///
    /// # Errors
    /// See [`Index::objects`].
    pub fn remove(&self, names: &[IndexName]) -> Result<()> {
        self.ask(|db| db.remove(names))?;
        let mut cache = lock(&self.cache);
        cache.groups.clear();
        cache.packs.clear();
        Ok(())
    }

    /// The entries of one object.
    ///
    /// # Errors
    /// See [`Index::objects`].
    pub fn entries_of(&self, name: &IndexName) -> Result<Vec<EntryNumber>> {
        self.ask(|db| db.packs_of(name))
    }

    /// All packs' entries.
    ///
    /// # Errors
    /// See [`Index::objects`].
    pub fn packs(&self) -> Result<Vec<KnownPack>> {
        self.ask(|db| {
            db.catch_up()?;
            db.packs()
        })
    }

    /// Entries that the given signers vouch for.
    ///
    /// # Errors
    /// See [`Index::objects`].
    pub fn vouched(&self, by: &HashSet<SignerId>) -> Result<HashSet<Vouched>> {
        self.ask(|db| db.vouched(by))
    }

    /// Objects that objects by the given signers replace.
    ///
    /// # Errors
    /// See [`Index::objects`].
    pub fn superseded(&self, by: &HashSet<SignerId>) -> Result<HashSet<IndexName>> {
        self.ask(|db| db.superseded(by))
    }

    /// One pack's entry; `None` if it was dropped meanwhile, by this process or another.
    ///
    /// # Errors
    /// See [`Index::objects`].
    pub fn pack(&self, number: EntryNumber) -> Result<Option<Arc<PackMap>>> {
        if let Some(pack) = lock(&self.cache).packs.get(number) {
            return Ok(Some(pack));
        }
        let Some(pack) = self.ask(|db| db.entry(number))? else { return Ok(None) };
        let pack = Arc::new(pack);
        lock(&self.cache).packs.keep(number, &pack, pack.blobs());
        Ok(Some(pack))
    }

    /// One group of frames; `None` if its pack was dropped meanwhile.
    fn group(&self, number: GroupNumber) -> Result<Option<Arc<Group>>> {
        if let Some(group) = lock(&self.cache).groups.get(number) {
            return Ok(Some(group));
        }
        let Some(group) = self.ask(|db| db.group(number))? else { return Ok(None) };
        let group = Arc::new(group);
        lock(&self.cache).groups.keep(number, &group, group.blobs());
        Ok(Some(group))
    }

    /// Every copy of a blob: those first that the key in use, or a full key, has indexed or vouched for, and of
    /// these and of all others those first that rest on the fewest.
    ///
    /// # Errors
    /// See [`Index::objects`].
    pub fn copies(&self, id: &BlobId) -> Result<Vec<BlobCopy>> {
        self.known_copies(Wanted::Blob(id), true)
    }

    /// Every copy of a blob on which others rest, in the same order.
    ///
    /// # Errors
    /// See [`Index::objects`].
    pub fn base_copies(&self, id: &BaseId) -> Result<Vec<BlobCopy>> {
        self.known_copies(Wanted::Base(id), true)
    }

    /// The same; what others have added since this process looked last is found only if `surely`.
    fn known_copies(&self, wanted: Wanted<'_>, surely: bool) -> Result<Vec<BlobCopy>> {
        loop {
            let made = self.made.load(Ordering::Acquire);
            let mut found =
                self.ask(|db| db.look_up(wanted, surely, |number| lock(&self.cache).groups.get(number)))?;
            for group in found.iter().map(BlobCopy::group) {
                lock(&self.cache).groups.keep(group.number, group, group.blobs());
            }
            // Of each signer's plain copies first: they rest on nothing.
            let doubtful = match &found[..] {
                [first, others @ ..] if others.iter().any(|copy| copy.entry() != first.entry()) => self.doubtful()?,
                _ => Arc::default(),
            };
            found.sort_by_key(|copy| (doubtful.contains(&copy.entry()), copy.depth(), copy.group().number));
            // Numbers that a damaged file gave stand for nothing in the one that took its place.
            if self.made.load(Ordering::Acquire) == made {
                return Ok(found);
            }
        }
    }

    /// A copy of a blob in a pack that `counts` accepts; looks first where the last ones were found.
    /// What another process added since this one last asked for objects or packs may be missed: for
    /// whoever stores, it does not count anyway.
    ///
    /// # Errors
    /// See [`Index::objects`].
    pub fn find(
        &self,
        id: &BlobId,
        hint: &mut Hint,
        counts: impl Fn(&BlobCopy) -> Result<bool>,
    ) -> Result<Option<BlobCopy>> {
        self.find_wanted(Wanted::Blob(id), hint, counts)
    }

    /// The same for a blob on which others rest.
    ///
    /// # Errors
    /// See [`Index::objects`].
    pub fn find_base(
        &self,
        id: &BaseId,
        hint: &mut Hint,
        counts: impl Fn(&BlobCopy) -> Result<bool>,
    ) -> Result<Option<BlobCopy>> {
        self.find_wanted(Wanted::Base(id), hint, counts)
    }

    fn find_wanted(
        &self,
        wanted: Wanted<'_>,
        hint: &mut Hint,
        counts: impl Fn(&BlobCopy) -> Result<bool>,
    ) -> Result<Option<BlobCopy>> {
        for at in 0..hint.0.len() {
            // There may be a plain copy elsewhere: another one will not do.
            let plain = hint.0[at].plain_copy(wanted);
            let plain = plain.filter(|copy| wanted.is_whole_id() || copy.group().is_whole());
            if let Some(copy) = plain
                && counts(&copy)?
            {
                if at > 0 {
                    hint.0.swap(0, at);
                }
                self.look_ahead(&copy, hint)?;
                return Ok(Some(copy));
            }
        }
        let found = first(self.known_copies(wanted, false)?, &counts)?;
        if let Some(copy) = &found {
            if let Some(at) = hint.0.iter().position(|group| group.number == copy.group().number) {
                hint.0.swap(0, at);
            } else {
                hint.keep(Arc::clone(copy.group()));
            }
            self.look_ahead(copy, hint)?;
        }
        Ok(found)
    }

    /// Where a stream has come to the end of a group, it goes on in the next one.
    fn look_ahead(&self, copy: &BlobCopy, hint: &mut Hint) -> Result<()> {
        let next = copy.group().number + 1;
        if copy.is_last()
            && hint.0.iter().all(|group| group.number != next)
            && let Some(group) = self.group(next)?
        {
            hint.keep(group);
        }
        Ok(())
    }

    /// A copy of a blob that must be there, and that `counts` accepts: where the file knows none, the
    /// store is asked before it is believed.
    ///
    /// # Errors
    /// See [`Index::renew`].
    pub fn find_surely(&self, id: &BlobId, counts: impl Fn(&BlobCopy) -> Result<bool>) -> Result<Option<BlobCopy>> {
        self.find_wanted_surely(Wanted::Blob(id), counts)
    }

    /// The same for a blob on which others rest.
    ///
    /// # Errors
    /// See [`Index::renew`].
    pub fn find_base_surely(
        &self,
        id: &BaseId,
        counts: impl Fn(&BlobCopy) -> Result<bool>,
    ) -> Result<Option<BlobCopy>> {
        self.find_wanted_surely(Wanted::Base(id), counts)
    }

    fn find_wanted_surely(
        &self,
        wanted: Wanted<'_>,
        counts: impl Fn(&BlobCopy) -> Result<bool>,
    ) -> Result<Option<BlobCopy>> {
        let find = || first(self.known_copies(wanted, true)?, &counts);
        if let Some(found) = find()? {
            return Ok(Some(found));
        }
        let found = if self.renew()? { find()? } else { None };
        if found.is_some() {
            self.condemn("it does not name a blob that is there".into());
        }
        Ok(found)
    }
}

/// The first copy that counts.
fn first(copies: Vec<BlobCopy>, counts: impl Fn(&BlobCopy) -> Result<bool>) -> Result<Option<BlobCopy>> {
    for copy in copies {
        if counts(&copy)? {
            return Ok(Some(copy));
        }
    }
    Ok(None)
}

/// Another database with what the store holds; entries keep the numbers by which this process knows them.
fn refilled(old: &Db, keeper: &dyn Keeper) -> Result<Db> {
    let mut new = Db::private(old.numbers())?;
    let replaced = keeper.refill(&mut |name, signer, object| match new.add(name, signer, object) {
        Ok(_) => Ok(()),
        Err(fault) => Err(new.error(fault)),
    })?;
    let replaced: Vec<IndexName> = replaced.into_iter().collect();
    new.remove(&replaced).map_err(|fault| new.error(fault))?;
    Ok(new)
}

/// The number of blobs that entries name.
pub fn blobs_of(packs: &[PackEntry]) -> usize {
    packs.iter().map(PackEntry::blobs).sum()
}

#[cfg(test)]
mod tests;
