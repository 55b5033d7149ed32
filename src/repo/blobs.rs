//! Getting a blob: from any copy that hashes to its id, through a bounded
//! cache of decoded frames and of packs' opened keys.

use super::Repository;
use crate::error::{Error, Result};
use crate::format::pack::{BlobKind, FRAMES_AT};
use crate::id::BlobId;
use crate::index::{EntryNumber, PackMap, Place};
use crate::pack::{Decompressor, PackKey};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Opened pack keys that are kept.
const KEYS_MAX: usize = 512;

type FrameName = (EntryNumber, u32);

#[derive(Default)]
struct Inner {
    frames: HashMap<FrameName, (Arc<Vec<u8>>, u64)>,
    bytes: usize,
    keys: HashMap<EntryNumber, Arc<PackKey>>,
    tick: u64,
}

/// Decoded frames, bounded in bytes.
pub struct FrameCache {
    max: usize,
    inner: Mutex<Inner>,
}

impl FrameCache {
    /// An empty cache that holds at most `max` bytes of plaintext (and one frame at the least).
    pub fn new(max: usize) -> Self {
        Self { max, inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, name: FrameName) -> Option<Arc<Vec<u8>>> {
        let mut inner = self.lock();
        inner.tick += 1;
        let tick = inner.tick;
        inner.frames.get_mut(&name).map(|(frame, used)| {
            *used = tick;
            Arc::clone(frame)
        })
    }

    fn keep(&self, name: FrameName, frame: &Arc<Vec<u8>>) {
        let mut inner = self.lock();
        inner.tick += 1;
        let tick = inner.tick;
        inner.bytes += frame.len();
        if let Some((old, _)) = inner.frames.insert(name, (Arc::clone(frame), tick)) {
            inner.bytes -= old.len();
        }
        while inner.bytes > self.max && inner.frames.len() > 1 {
            let oldest = inner.frames.iter().min_by_key(|(_, (_, used))| *used).map(|(name, _)| *name);
            if let Some((gone, _)) = oldest.and_then(|name| inner.frames.remove(&name)) {
                inner.bytes -= gone.len();
            }
        }
    }
}

impl Repository {
    /// The opened data key of a pack.
    ///
    /// # Errors
    /// [`Error::NotAllowed`] with a writer key, [`Error::Damaged`], or the store's.
    pub fn pack_key(&self, pack: &PackMap) -> Result<Arc<PackKey>> {
        if let Some(key) = self.frames.lock().keys.get(&pack.number) {
            return Ok(Arc::clone(key));
        }
        let private = self.private_key()?;
        let head = self.store.read_range(&self.names.pack(&pack.name), 0, FRAMES_AT as usize)?;
        let key = PackKey::open(&self.realm(), private, &pack.name, &head).map_err(|e| match e {
            Error::Damaged { why, .. } => Error::damaged(self.names.pack(&pack.name), why),
            Error::Newer { found, known, .. } => Error::Newer { object: self.names.pack(&pack.name), found, known },
            other => other,
        });
        let key = Arc::new(key?);
        let mut inner = self.frames.lock();
        if inner.keys.len() >= KEYS_MAX {
            inner.keys.clear();
        }
        inner.keys.insert(pack.number, Arc::clone(&key));
        Ok(key)
    }

    /// The plaintext of a frame, through the cache.
    ///
    /// # Errors
    /// See [`Repository::pack_key`].
    pub fn frame(&self, pack: &PackMap, number: u32) -> Result<Arc<Vec<u8>>> {
        let name = (pack.number, number);
        if let Some(frame) = self.frames.get(name) {
            return Ok(frame);
        }
        let object = || self.names.pack(&pack.name);
        let (at, frame) = pack.frame(number).ok_or_else(|| Error::damaged(object(), "it has no such frame"))?;
        let key = self.pack_key(pack)?;
        let mut sealed = self.store.read_range(&object(), at, frame.stored as usize)?.to_vec();
        let mut decompressor = Decompressor::new()?;
        let plain = key
            .frame(number.into(), frame, &mut sealed, &mut decompressor)
            .map_err(|e| Error::damaged(object(), format!("frame {number} {e}")))?;
        let plain = Arc::new(plain.to_vec());
        self.frames.keep(name, &plain);
        Ok(plain)
    }

    /// A blob's plaintext: from the first copy that hashes to its id.
    ///
    /// # Errors
    /// [`Error::Missing`] or [`Error::Damaged`] of a pack if no copy is right, and
    /// [`Repository::unindexed`] if the index knows none.
    pub fn blob(&self, kind: BlobKind, id: &BlobId) -> Result<Vec<u8>> {
        let mut last = self.unindexed(kind, id);
        if let Some(blob) = self.any_copy(kind, id, &mut last)? {
            return Ok(blob);
        }
        // The index on this machine may have lost a copy: what the store says counts.
        if self.index.renew()?
            && let Some(blob) = self.any_copy(kind, id, &mut last)?
        {
            self.index.condemn(format!("it does not name every copy of a {}", kind_name(kind)));
            return Ok(blob);
        }
        Err(last)
    }

    fn any_copy(&self, kind: BlobKind, id: &BlobId, last: &mut Error) -> Result<Option<Vec<u8>>> {
        for (pack, place) in self.index.copies(id)? {
            match self.copy_of(kind, id, &pack, &place) {
                Ok(blob) => return Ok(Some(blob)),
                Err(e) if e.is_damage() => *last = e,
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }

    /// The error of a blob that no index object names: nobody can tell in which it stood.
    pub fn unindexed(&self, kind: BlobKind, id: &BlobId) -> Error {
        Error::damaged(self.names.indexes(), format!("no index object names {} {id}", kind_name(kind)))
    }

    fn copy_of(&self, kind: BlobKind, id: &BlobId, pack: &PackMap, place: &Place) -> Result<Vec<u8>> {
        let frame = self.frame(pack, place.frame)?;
        let end = place.at as usize + place.len as usize;
        let blob = frame.get(place.at as usize..end).unwrap_or_default();
        if self.keys.blob_id(kind, blob) != *id {
            return Err(Error::damaged(
                self.names.pack(&pack.name),
                format!("what lies there for {} {id} is something else", kind_name(kind)),
            ));
        }
        Ok(blob.to_vec())
    }
}

/// A kind of blob, for people.
pub(super) fn kind_name(kind: BlobKind) -> &'static str {
    match kind {
        BlobKind::Chunk => "chunk",
        BlobKind::Tree => "tree",
        BlobKind::List => "content list",
    }
}
