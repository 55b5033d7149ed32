//! Where blobs lie, kept on this machine in SQLite so that it never has to fit
//! in memory. Everything here follows from the index objects in the store: if
//! it is lost, old or damaged it is made again. It holds no names of files and
//! no plaintext, and it never touches the store.

mod db;
mod loaded;

pub use loaded::{PackMap, Place};

use crate::error::Result;
use crate::format::index::{IndexObject, PackEntry};
use crate::id::{BlobId, IndexName, PackName, SignerId};
use crate::limits;
use db::Db;
use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    /// The pack.
    pub name: PackName,
    /// Its size in bytes.
    pub size: u64,
    /// Who signed the entry.
    pub signer: SignerId,
}

/// Packs that a thread met last; most blobs of a stream lie where the one before lay.
#[derive(Default)]
pub struct Hint(VecDeque<Arc<PackMap>>);

const HINTS: usize = 4;

struct Cache {
    packs: HashMap<EntryNumber, (Arc<PackMap>, u64)>,
    blobs: usize,
    tick: u64,
}

/// The index on this machine.
pub struct Index {
    db: Mutex<Db>,
    cache: Mutex<Cache>,
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
        Ok(Self::with(Db::open(folder)?))
    }

    /// An index that is forgotten with the process.
    ///
    /// # Errors
    /// [`crate::error::Error::Local`] where SQLite fails.
    pub fn in_memory() -> Result<Self> {
        Ok(Self::with(Db::in_memory()?))
    }

    fn with(db: Db) -> Self {
        let cache = Cache { packs: HashMap::new(), blobs: 0, tick: 0 };
        Self { db: Mutex::new(db), cache: Mutex::new(cache) }
    }

    /// The index objects whose entries are here.
    ///
    /// # Errors
    /// [`crate::error::Error::Local`], as every call here.
    pub fn objects(&self) -> Result<Vec<KnownObject>> {
        lock(&self.db).objects()
    }

    /// Takes in an object's entries, and returns their numbers; once is enough, and twice does no harm.
    ///
    /// # Errors
    /// See [`Index::objects`].
    pub fn add(&self, name: &IndexName, signer: &SignerId, object: &IndexObject) -> Result<Vec<EntryNumber>> {
        lock(&self.db).add(name, signer, object)
    }

    /// Drops objects that are no longer in the store, and their entries.
    ///
    /// # Errors
    /// See [`Index::objects`].
    pub fn remove(&self, names: &[IndexName]) -> Result<()> {
        lock(&self.db).remove(names)?;
        let mut cache = lock(&self.cache);
        cache.packs.clear();
        cache.blobs = 0;
        Ok(())
    }

    /// The entries of one object.
    ///
    /// # Errors
    /// See [`Index::objects`].
    pub fn entries_of(&self, name: &IndexName) -> Result<Vec<EntryNumber>> {
        lock(&self.db).packs_of(&[*name])
    }

    /// All packs' entries.
    ///
    /// # Errors
    /// See [`Index::objects`].
    pub fn packs(&self) -> Result<Vec<KnownPack>> {
        lock(&self.db).packs()
    }

    /// Packs that the given signers vouch for.
    ///
    /// # Errors
    /// See [`Index::objects`].
    pub fn vouched(&self, by: &HashSet<SignerId>) -> Result<HashSet<PackName>> {
        lock(&self.db).vouched(by)
    }

    /// Objects that objects by the given signers replace.
    ///
    /// # Errors
    /// See [`Index::objects`].
    pub fn superseded(&self, by: &HashSet<SignerId>) -> Result<HashSet<IndexName>> {
        lock(&self.db).superseded(by)
    }

    /// One pack's entry; `None` if it was dropped meanwhile, by this process or another.
    ///
    /// # Errors
    /// See [`Index::objects`].
    pub fn pack(&self, number: EntryNumber) -> Result<Option<Arc<PackMap>>> {
        if let Some(pack) = self.cached(number) {
            return Ok(Some(pack));
        }
        let Some(entry) = lock(&self.db).entry(number)? else { return Ok(None) };
        let pack = Arc::new(PackMap::new(number, &entry));
        self.keep(&pack);
        Ok(Some(pack))
    }

    fn cached(&self, number: EntryNumber) -> Option<Arc<PackMap>> {
        let mut cache = lock(&self.cache);
        cache.tick += 1;
        let tick = cache.tick;
        cache.packs.get_mut(&number).map(|(pack, used)| {
            *used = tick;
            Arc::clone(pack)
        })
    }

    fn keep(&self, pack: &Arc<PackMap>) {
        let mut cache = lock(&self.cache);
        cache.tick += 1;
        let tick = cache.tick;
        if cache.packs.insert(pack.number, (Arc::clone(pack), tick)).is_none() {
            cache.blobs += pack.blobs();
        }
        while cache.blobs > limits::INDEX_CACHE_BLOBS && cache.packs.len() > 1 {
            let oldest = cache.packs.iter().min_by_key(|(_, (_, used))| *used).map(|(number, _)| *number);
            if let Some((gone, _)) = oldest.and_then(|number| cache.packs.remove(&number)) {
                cache.blobs -= gone.blobs();
            }
        }
    }

    /// Every copy of a blob.
    ///
    /// # Errors
    /// See [`Index::objects`].
    pub fn copies(&self, id: &BlobId) -> Result<Vec<(Arc<PackMap>, Place)>> {
        let numbers = lock(&self.db).candidates(id)?;
        let mut found = Vec::new();
        for number in numbers {
            let Some(pack) = self.pack(number)? else { continue };
            if let Some(place) = pack.place(id) {
                found.push((pack, place));
            }
        }
        Ok(found)
    }

    /// A copy of a blob in a pack that `counts` accepts; looks first where the last ones were found.
    ///
    /// # Errors
    /// See [`Index::objects`].
    pub fn find(
        &self,
        id: &BlobId,
        hint: &mut Hint,
        counts: impl Fn(&PackMap, &Place) -> bool,
    ) -> Result<Option<(Arc<PackMap>, Place)>> {
        for at in 0..hint.0.len() {
            let pack = &hint.0[at];
            if let Some(place) = pack.place(id).filter(|place| counts(pack, place)) {
                let pack = Arc::clone(pack);
                if at > 0 {
                    hint.0.swap(0, at);
                }
                return Ok(Some((pack, place)));
            }
        }
        for (pack, place) in self.copies(id)? {
            if counts(&pack, &place) {
                if hint.0.len() == HINTS {
                    hint.0.pop_back();
                }
                hint.0.push_front(Arc::clone(&pack));
                return Ok(Some((pack, place)));
            }
        }
        Ok(None)
    }
}

/// The number of blobs that entries name.
pub fn blobs_of(packs: &[PackEntry]) -> usize {
    packs.iter().map(PackEntry::blobs).sum()
}

#[cfg(test)]
mod tests;
