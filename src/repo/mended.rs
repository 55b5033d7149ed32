//! Packs that are damaged and can be mended by their parity: in memory, for whoever
//! reads, and under their own names again, for who repairs. A few that were mended are
//! kept, and which could not be is remembered, so that a damaged pack is read whole
//! once. Nothing passes for a pack but bytes that hash to its name.

use super::Repository;
use crate::error::{Error, Result, StoreFault};
use crate::format::pack::{FRAMES_AT, Frame, StorageClass, TAG_LEN, TAIL_LEN};
use crate::id::PackName;
use crate::index::{EntryNumber, PackMap};
use crate::limits;
use crate::pack::{self, PackKey};
use bytes::Bytes;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a directory's record takes beside its frames at the most. No parity is as short.
const DIRECTORY_HEAD: usize = 16;

/// A damaged pack as it was before.
pub(super) struct MendedPack {
    name: PackName,
    bytes: Vec<u8>,
    /// Its data key.
    pub key: PackKey,
}

impl MendedPack {
    /// The sealed bytes of a frame.
    pub fn sealed(&self, offset: u64, frame: &Frame) -> Vec<u8> {
        let begin = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = begin.saturating_add(frame.stored as usize);
        self.bytes.get(begin..end).unwrap_or_default().to_vec()
    }
}

#[derive(Default)]
struct Inner {
    /// The newest last.
    kept: Vec<Arc<MendedPack>>,
    in_vain: HashSet<PackName>,
}

/// See the module.
#[derive(Default)]
pub(super) struct MendedPacks(Mutex<Inner>);

impl MendedPacks {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// True if an entry says of a pack that it holds more than its frames and their directory.
fn has_parity(map: &PackMap) -> bool {
    let mut directory = Vec::new();
    map.frames().iter().for_each(|(_, frame)| frame.write_to(&mut directory, false));
    let frames: u64 = map.frames().iter().map(|(_, frame)| u64::from(frame.stored)).sum();
    let rest = (directory.len() + DIRECTORY_HEAD + TAG_LEN + TAIL_LEN) as u64;
    map.size > FRAMES_AT + frames + rest
}

impl Repository {
    /// True if a pack that an entry names is damaged and can be mended by its parity.
    ///
    /// # Errors
    /// [`Error::NotAllowed`] with a writer key, the store's, or the local index's.
    pub fn is_mendable(&self, entry: EntryNumber, name: &PackName) -> Result<bool> {
        Ok(self.mended(entry, name)?.is_some())
    }

    /// A pack that an entry names as it was before it was damaged; `None` if it is not damaged, or cannot be
    /// mended. Others that ask wait meanwhile.
    ///
    /// # Errors
    /// See [`Repository::is_mendable`].
    pub(super) fn mended(&self, entry: EntryNumber, name: &PackName) -> Result<Option<Arc<MendedPack>>> {
        let mut known = self.mended.lock();
        if let Some(kept) = known.kept.iter().find(|kept| kept.name == *name) {
            return Ok(Some(Arc::clone(kept)));
        }
        if known.in_vain.contains(name) || known.in_vain.len() >= limits::MENDED_IN_VAIN {
            return Ok(None);
        }
        let mended = match self.index.pack(entry)? {
            Some(map) if has_parity(&map) => self.mend(name)?,
            _ => None,
        };
        let Some(mended) = mended.map(Arc::new) else {
            known.in_vain.insert(*name);
            return Ok(None);
        };
        if known.kept.len() >= limits::MENDED_PACKS {
            known.kept.remove(0);
        }
        known.kept.push(Arc::clone(&mended));
        Ok(Some(mended))
    }

    fn mend(&self, name: &PackName) -> Result<Option<MendedPack>> {
        let left = match self.left_of_pack(name) {
            Ok(left) => left,
            Err(e) if e.is_damage() || e.is_frozen() => return Ok(None),
            Err(e) => return Err(e),
        };
        if pack::is_itself(name, &left) {
            return Ok(None);
        }
        let Ok(mended) = pack::mend(name, &[&left]) else { return Ok(None) };
        match PackKey::open(&self.realm(), self.private_key()?, name, &mended.bytes) {
            Ok(key) => Ok(Some(MendedPack { name: *name, bytes: mended.bytes, key })),
            // Another tenant's, or of no data key that was ever sealed for this one.
            Err(e) if e.is_damage() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// All that lies under a pack's name; of what is larger than any pack the begin.
    ///
    /// # Errors
    /// The store's.
    pub fn left_of_pack(&self, name: &PackName) -> Result<Bytes> {
        let object = self.names.pack(name);
        match self.store.read(&object, limits::PACK_MAX) {
            Err(e) if e.fault == StoreFault::Size => {
                Ok(self.store.read_range(&object, 0, limits::PACK_MAX as usize)?)
            }
            read => Ok(read?),
        }
    }

    /// Puts a pack under its name again: in the place of what `is_there`, or where nothing is. A crash leaves
    /// what was there, or the pack.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the bytes do not hash to the name: then nothing is written. Or the store's.
    pub fn put_back(&self, name: &PackName, bytes: Bytes, class: StorageClass, is_there: bool) -> Result<()> {
        self.writable()?;
        self.private_key()?;
        if !pack::is_itself(name, &bytes) {
            return Err(Error::Invalid(format!("these bytes are not pack {name}")));
        }
        let object = self.names.pack(name);
        if !is_there {
            let created = match class {
                StorageClass::Data => self.store.create_cold(&object, bytes.clone()),
                StorageClass::Trees => self.store.create(&object, bytes.clone()),
            };
            match created {
                // Whoever put it there: it is to be these bytes.
                Err(e) if e.fault == StoreFault::Exists => {}
                created => return Ok(created?),
            }
        }
        Ok(self.store.write(&object, bytes)?)
    }
}
