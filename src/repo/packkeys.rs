//! Opened data keys of packs: bounded in number, and each asked for by one thread, while others that need
//! it wait. Where a pack's first frames are read, its head is read with them.

use super::Repository;
use crate::error::{Error, Result, StoreError};
use crate::format::pack::{BlobKind, FRAMES_AT};
use crate::id::PackName;
use crate::index::EntryNumber;
use crate::limits;
use crate::pack::PackKey;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Opened keys that are kept.
const KEYS_MAX: usize = 512;

/// The key of one pack, once it is known. Whoever asks for it holds the lock meanwhile.
type Slot = Mutex<Option<Arc<PackKey>>>;

/// See the module.
#[derive(Default)]
pub(super) struct PackKeys(Mutex<HashMap<EntryNumber, Arc<Slot>>>);

impl PackKeys {
    fn slot(&self, entry: EntryNumber) -> Arc<Slot> {
        let mut slots = lock(&self.0);
        if slots.len() >= KEYS_MAX && !slots.contains_key(&entry) {
            slots.clear();
        }
        Arc::clone(slots.entry(entry).or_default())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Repository {
    /// The opened data key of the pack that an entry names.
    ///
    /// # Errors
    /// [`Error::NotAllowed`] with a writer key, [`Error::Damaged`], or the store's.
    pub fn pack_key(&self, entry: EntryNumber, pack: &PackName) -> Result<Arc<PackKey>> {
        let slot = self.pack_keys.slot(entry);
        let mut known = lock(&slot);
        if let Some(key) = &*known {
            return Ok(Arc::clone(key));
        }
        self.private_key()?;
        let head = self.store.read_range(&self.names.pack(pack), 0, FRAMES_AT as usize)?;
        let key = Arc::new(self.open_head(pack, &head)?);
        *known = Some(Arc::clone(&key));
        Ok(key)
    }

    fn open_head(&self, pack: &PackName, head: &[u8]) -> Result<PackKey> {
        PackKey::open(&self.realm(), self.private_key()?, pack, head).map_err(|e| match e {
            Error::Damaged { why, .. } => Error::damaged(self.names.pack(pack), why),
            Error::Newer { found, known, .. } => Error::Newer { object: self.names.pack(pack), found, known },
            other => other,
        })
    }

    /// Sealed bytes of a pack, from a frame of this kind on, and where they begin: at the pack's beginning,
    /// if that is near and its key is not known yet.
    pub(super) fn sealed_with_key(
        &self,
        kind: BlobKind,
        (entry, pack): (EntryNumber, &PackName),
        offset: u64,
        len: usize,
    ) -> Result<(Bytes, u64), StoreError> {
        let object = self.names.pack(pack);
        if offset > FRAMES_AT + limits::GAP_MAX {
            return Ok((self.sealed(kind, &object, offset, len)?, offset));
        }
        let slot = self.pack_keys.slot(entry);
        let mut known = lock(&slot);
        if known.is_some() {
            drop(known);
            return Ok((self.sealed(kind, &object, offset, len)?, offset));
        }
        let bytes = self.sealed(kind, &object, 0, offset as usize + len)?;
        // Whoever needs a key that is none asks for it again, and tells why.
        let head = bytes.get(..FRAMES_AT as usize).unwrap_or_default();
        *known = self.open_head(pack, head).ok().map(Arc::new);
        Ok((bytes, 0))
    }
}
