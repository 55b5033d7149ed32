//! Getting a blob: from any copy that hashes to its id, through a bounded
//! cache of decoded frames. A delta frame's bases are blobs like any other, and
//! believed like any other: by their ids.

use super::Repository;
use crate::error::{Error, Result, StoreError};
use crate::format::pack::{BlobKind, Frame, StorageClass};
use crate::id::{BaseId, BlobId};
use crate::index::{BlobCopy, EntryNumber, Hint};
use crate::limits;
use crate::pack::Decompressor;
use bytes::Bytes;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Packs that are gone for which the index is read again.
const MISSED_MAX: usize = 64;

/// Decompression contexts that are kept.
const SPARE_MAX: usize = 4;

type FrameName = (EntryNumber, u32);

#[derive(Default)]
struct Inner {
    frames: HashMap<FrameName, (Arc<Vec<u8>>, u64)>,
    bytes: usize,
    spare: Vec<Decompressor>,
    tick: u64,
    /// Packs that were gone when something in them was asked for.
    missed: HashSet<String>,
}

impl Inner {
    /// Drops what was used longest ago, a quarter more than need be: to look for each one alone would take
    /// long where frames are small.
    fn drop_oldest(&mut self, max: usize) {
        let mut ages: Vec<(u64, FrameName)> = self.frames.iter().map(|(name, (_, used))| (*used, *name)).collect();
        ages.sort_unstable();
        // The newest stays, however large.
        ages.pop();
        for (_, name) in ages {
            if self.bytes <= max / 4 * 3 {
                break;
            }
            if let Some((gone, _)) = self.frames.remove(&name) {
                self.bytes -= gone.len();
            }
        }
    }
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

    /// A context that was used before, if there is one: to make one takes as long as to decode a small frame.
    fn decompressor(&self) -> Result<Decompressor> {
        match self.lock().spare.pop() {
            Some(spare) => Ok(spare),
            None => Decompressor::new(),
        }
    }

    fn give_back(&self, decompressor: Decompressor) {
        let mut inner = self.lock();
        if inner.spare.len() < SPARE_MAX {
            inner.spare.push(decompressor);
        }
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
        if inner.bytes > self.max {
            inner.drop_oldest(self.max);
        }
    }
}

impl Repository {
    /// The same with a cache of at most `bytes` of decoded frames (and one frame at the least).
    #[must_use]
    pub fn with_frame_cache(mut self, bytes: usize) -> Self {
        self.frames = FrameCache::new(bytes);
        self
    }

    /// The plaintext of the frame in which a copy lies, through the cache.
    ///
    /// # Errors
    /// See [`Repository::pack_key`]; of a delta frame also those of its bases.
    pub fn frame(&self, copy: &BlobCopy) -> Result<Arc<Vec<u8>>> {
        self.frame_within(copy, &mut Budget::default())
    }

    fn frame_within(&self, copy: &BlobCopy, budget: &mut Budget) -> Result<Arc<Vec<u8>>> {
        let name = (copy.entry(), copy.frame_number());
        if let Some(frame) = self.frames.get(name) {
            return Ok(frame);
        }
        if let Some(known) = budget.failed.get(&(name, None)).and_then(Error::retold) {
            return Err(known);
        }
        if !budget.takes_one() {
            let object = self.names.pack(&copy.pack());
            return Err(Error::damaged(object, format!("frame {} rests on too many others", name.1)));
        }
        let unfinished = budget.unfinished;
        let decoded = self.decoded_within(name, copy, budget);
        if let Err(e) = &decoded {
            budget.note_failed((name, None), e, unfinished);
        }
        decoded
    }

    fn decoded_within(&self, name: FrameName, copy: &BlobCopy, budget: &mut Budget) -> Result<Arc<Vec<u8>>> {
        let object = || self.names.pack(&copy.pack());
        let frame = copy.frame();
        let bases = self.bases_within(frame, budget)?;
        let damaged = |e| Error::damaged(object(), format!("frame {} {e}", name.1));
        let open = || -> Result<Vec<u8>> {
            // Before the key, which then is at hand where all of the pack is fetched.
            let mut sealed = self.sealed(frame.kind, &object(), copy.offset(), frame.stored as usize)?.to_vec();
            let key = self.pack_key(copy.entry(), &copy.pack())?;
            let len = key.payload(name.1.into(), &mut sealed).map_err(damaged)?.len();
            sealed.truncate(len);
            Ok(sealed)
        };
        let payload = match open() {
            Err(e) if e.is_damage() => match self.mended(copy.entry(), &copy.pack())? {
                Some(pack) => {
                    let mut sealed = pack.sealed(copy.offset(), frame);
                    pack.key.payload(name.1.into(), &mut sealed).map_err(damaged)?.to_vec()
                }
                None => return Err(e),
            },
            opened => opened?,
        };
        let mut decompressor = self.frames.decompressor()?;
        let plain = Arc::new(decompressor.decode(frame, &payload, &bases).map_err(damaged)?.to_vec());
        self.frames.give_back(decompressor);
        self.frames.keep(name, &plain);
        Ok(plain)
    }

    /// Sealed bytes of a pack, from a frame of this kind on: of trees more will be read.
    pub(super) fn sealed(&self, kind: BlobKind, pack: &str, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        match kind.class() {
            StorageClass::Trees => self.store.read_lasting(pack, offset, len),
            StorageClass::Data => self.store.read_range(pack, offset, len),
        }
    }

    /// A frame that is in the cache.
    pub(super) fn cached_frame(&self, entry: EntryNumber, number: u32) -> Option<Arc<Vec<u8>>> {
        self.frames.get((entry, number))
    }

    /// Puts a frame into the cache.
    pub(super) fn cache_frame(&self, entry: EntryNumber, number: u32, plain: &Arc<Vec<u8>>) {
        self.frames.keep((entry, number), plain);
    }

    /// The plaintexts of a frame's bases, one after the other; nothing for a plain frame.
    ///
    /// # Errors
    /// See [`Repository::blob`]: what is wrong is the base, not the frame.
    pub fn bases(&self, frame: &Frame) -> Result<Vec<u8>> {
        self.bases_within(frame, &mut Budget::default())
    }

    fn bases_within(&self, frame: &Frame, budget: &mut Budget) -> Result<Vec<u8>> {
        let (mut plain, mut hint) = (Vec::new(), Hint::default());
        for id in &frame.bases {
            let base = self.base_within(frame, id, &mut hint, budget)?;
            if plain.len() + base.len() > limits::FRAME_BASE_PLAIN_MAX {
                let what = format!("{} {id}", kind_name(frame.kind));
                return Err(Error::damaged(what, "a frame rests on it and on more than any frame may"));
            }
            plain.extend_from_slice(&base);
        }
        Ok(plain)
    }

    /// One base's plaintext. Frames of which is known that they failed are not tried again, and those that
    /// fail now are added.
    ///
    /// # Errors
    /// See [`Repository::blob`].
    pub fn base(&self, frame: &Frame, id: &BaseId, failed: &mut Failed) -> Result<Vec<u8>> {
        if failed.len() >= limits::READ_FAILED_MAX {
            failed.clear();
        }
        let mut budget = Budget { failed: std::mem::take(failed), ..Budget::default() };
        let base = self.base_within(frame, id, &mut Hint::default(), &mut budget);
        *failed = budget.failed;
        base
    }

    /// A base's plaintext: from a copy of strictly lower depth, so that no circle is ever followed.
    fn base_within(&self, frame: &Frame, id: &BaseId, hint: &mut Hint, budget: &mut Budget) -> Result<Vec<u8>> {
        let below = self.index.find_base(id, hint, |copy| Ok(copy.depth() < frame.depth))?;
        if let Some(copy) = below {
            match self.copy_of(frame.kind, &copy, budget) {
                Err(e) if e.is_damage() || e.is_frozen() => {}
                other => return other,
            }
        }
        let mut last = self.unindexed(frame.kind, id);
        for copy in self.index.base_copies(id)?.iter().filter(|copy| copy.depth() < frame.depth) {
            match self.copy_of(frame.kind, copy, budget) {
                Ok(blob) => return Ok(blob),
                Err(e) if e.is_damage() || e.is_frozen() => last = e,
                Err(e) => return Err(e),
            }
        }
        Err(last)
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
        if self.may_have_moved(&last)?
            && let Some(blob) = self.any_copy(kind, id, &mut last)?
        {
            return Ok(blob);
        }
        // The index on this machine may have lost a copy: what the store says counts.
        if !last.is_frozen()
            && self.index.renew()?
            && let Some(blob) = self.any_copy(kind, id, &mut last)?
        {
            self.index.condemn(format!("it does not name every copy of a {}", kind_name(kind)));
            return Ok(blob);
        }
        Err(last)
    }

    /// Reads what is new in the index where a pack is gone: a prune beside this may have written what is
    /// needed of it anew. False if the pack is there, or was asked for before, or the index is as it was.
    fn may_have_moved(&self, e: &Error) -> Result<bool> {
        let Error::Missing { object } = e else { return Ok(false) };
        let is_new = {
            let missed = &mut self.frames.lock().missed;
            missed.len() < MISSED_MAX && missed.insert(object.clone())
        };
        if !is_new {
            return Ok(false);
        }
        // What was written anew is named by an index object that is new.
        let (held, (listed, _)) = (self.indexes_held()?, self.listed_indexes()?);
        let has_moved = listed.keys().any(|name| !held.contains(name));
        if has_moved {
            self.sync_index()?;
        }
        Ok(has_moved)
    }

    fn any_copy(&self, kind: BlobKind, id: &BlobId, last: &mut Error) -> Result<Option<Vec<u8>>> {
        let mut of_deltas = Budget::default();
        for copy in self.index.copies(id)? {
            // However many plain ones are false, each costs one frame.
            let mut of_plain = Budget::default();
            let budget = if copy.depth() == 0 { &mut of_plain } else { &mut of_deltas };
            match self.copy_of(kind, &copy, budget) {
                Ok(blob) => return Ok(Some(blob)),
                Err(e) if e.is_damage() || e.is_frozen() => *last = e,
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }

    /// The error of a blob that no index object names: nobody can tell in which it stood.
    pub fn unindexed(&self, kind: BlobKind, id: &impl fmt::Display) -> Error {
        Error::damaged(self.names.indexes(), format!("no index object names {} {id}", kind_name(kind)))
    }

    /// A blob's plaintext from this copy and no other.
    ///
    /// # Errors
    /// See [`Repository::frame`]; and [`Error::Damaged`] if what lies there does not hash to the id.
    pub(super) fn blob_copy(&self, kind: BlobKind, copy: &BlobCopy) -> Result<Vec<u8>> {
        self.copy_of(kind, copy, &mut Budget::default())
    }

    fn copy_of(&self, kind: BlobKind, copy: &BlobCopy, budget: &mut Budget) -> Result<Vec<u8>> {
        let name = ((copy.entry(), copy.frame_number()), Some((copy.at(), kind, copy.id())));
        if let Some(known) = budget.failed.get(&name).and_then(Error::retold) {
            return Err(known);
        }
        let (before, unfinished) = (budget.left, budget.unfinished);
        let found = self.copy_within(kind, copy, budget);
        if let Err(e) = &found {
            budget.note_failed(name, e, unfinished);
            budget.give_back(before, unfinished);
        }
        found
    }

    fn copy_within(&self, kind: BlobKind, copy: &BlobCopy, budget: &mut Budget) -> Result<Vec<u8>> {
        let frame = self.frame_within(copy, budget)?;
        let end = copy.at() as usize + copy.size() as usize;
        let blob = frame.get(copy.at() as usize..end).unwrap_or_default();
        let id = copy.id();
        if self.keys.blob_id(kind, blob) != id {
            return Err(Error::damaged(
                self.names.pack(&copy.pack()),
                format!("what lies there for {} {id} is something else", kind_name(kind)),
            ));
        }
        Ok(blob.to_vec())
    }
}

/// What may still be done for one blob: whoever writes index entries could make one rest on more than
/// anyone could go through.
struct Budget {
    /// Frames that may still be decoded for a copy that is right.
    left: usize,
    /// The same for copies that are found to be none.
    in_vain: usize,
    /// How often no more could be decoded: what came of it says nothing of a frame.
    unfinished: usize,
    failed: Failed,
}

/// Frames that failed, and copies in frames that did not, by where they begin and what they were asked for as;
/// and why. Many ways may lead to one, and to take each of them would use up what is left before a copy is tried
/// that is right. That a list is no tree, as somebody's false frame has it, says nothing of it as a list.
pub type Failed = HashMap<(FrameName, Option<(u32, BlobKind, BlobId)>), Error>;

impl Default for Budget {
    fn default() -> Self {
        let (left, in_vain) = (limits::BLOB_FRAMES_MAX, limits::BLOB_FRAMES_IN_VAIN);
        Self { left, in_vain, unfinished: 0, failed: Failed::default() }
    }
}

impl Budget {
    fn takes_one(&mut self) -> bool {
        let left = self.left > 0;
        self.left = self.left.saturating_sub(1);
        self.unfinished += usize::from(!left);
        left
    }

    /// What failed is not tried again, unless it failed for want of what may be decoded: `unfinished` is how
    /// often that had happened before it was tried.
    fn note_failed(&mut self, what: (FrameName, Option<(u32, BlobKind, BlobId)>), e: &Error, unfinished: usize) {
        if self.unfinished == unfinished
            && self.failed.len() < limits::READ_FAILED_MAX
            && let Some(e) = e.retold()
        {
            self.failed.insert(what, e);
        }
    }

    /// A copy was none: what it cost is not missed where the next is tried, unless there is no end to it.
    fn give_back(&mut self, before: usize, unfinished: usize) {
        // Of one that was not gone through to its end nothing is known.
        let known = self.unfinished == unfinished;
        let spent = if known { before.saturating_sub(self.left) } else { 0 };
        let back = spent.min(self.in_vain);
        self.in_vain -= back;
        self.left += back;
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
