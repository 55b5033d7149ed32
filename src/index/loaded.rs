//! One pack's entry in memory, arranged for look-ups.

use super::EntryNumber;
use crate::format::index::PackEntry;
use crate::format::pack::{Frame, StorageClass};
use crate::id::{BlobId, PackName};
use std::collections::HashMap;
use std::sync::Arc;

/// Where a blob lies in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The frame's number.
    pub frame: u32,
    /// Where it begins in the frame's plaintext.
    pub at: u32,
    /// Its length.
    pub len: u32,
}

/// A copy of a blob: where it lies, and what its frame is.
#[derive(Clone)]
pub struct BlobCopy {
    pack: Arc<PackMap>,
    place: Place,
}

impl BlobCopy {
    /// A copy of `id` in this pack, if there is one.
    pub(super) fn in_pack(pack: &Arc<PackMap>, id: &BlobId) -> Option<Self> {
        // A place points at a frame that there is: both come from one entry.
        pack.place(id).map(|place| Self { pack: Arc::clone(pack), place })
    }

    pub(super) fn shared(&self) -> Arc<PackMap> {
        Arc::clone(&self.pack)
    }

    /// The pack's entry.
    pub fn entry(&self) -> EntryNumber {
        self.pack.number
    }

    /// The pack.
    pub fn pack(&self) -> PackName {
        self.pack.name
    }

    /// The frame's number in the pack.
    pub fn frame_number(&self) -> u32 {
        self.place.frame
    }

    /// The frame's record, without ids.
    pub fn frame(&self) -> &Frame {
        &self.pack.frames[self.place.frame as usize].1
    }

    /// Where the frame's bytes begin in the pack.
    pub fn offset(&self) -> u64 {
        self.pack.frames[self.place.frame as usize].0
    }

    /// Where the blob begins in the frame's plaintext.
    pub fn at(&self) -> u32 {
        self.place.at
    }

    /// The blob's length.
    pub fn size(&self) -> u32 {
        self.place.len
    }
}

/// A pack's frames, and the place of each of its blobs.
pub struct PackMap {
    /// The entry's number in the local database.
    pub number: EntryNumber,
    /// The pack.
    pub name: PackName,
    /// Its size in bytes.
    pub size: u64,
    /// What it holds.
    pub class: StorageClass,
    frames: Vec<(u64, Frame)>,
    /// Hashed with a secret of this process: ids are hashes, but an index object may name what nobody
    /// hashed, and many that agree in some bytes would make every look-up a search.
    blobs: HashMap<BlobId, Place>,
}

impl PackMap {
    pub(super) fn new(number: EntryNumber, entry: &PackEntry) -> Self {
        let mut blobs = HashMap::with_capacity(entry.blobs());
        let mut frames = Vec::with_capacity(entry.directory.frames.len());
        for (n, (offset, frame)) in entry.directory.offsets().enumerate() {
            let mut at = 0;
            for (id, len) in frame.ids.iter().zip(&frame.lens) {
                blobs.insert(*id, Place { frame: n as u32, at, len: *len });
                at += len;
            }
            // The map has the ids; keeping them twice would double the cache.
            frames.push((offset, Frame { ids: Vec::new(), ..frame.clone() }));
        }
        Self { number, name: entry.name, size: entry.size, class: entry.directory.class, frames, blobs }
    }

    /// Where a blob lies, if it lies here.
    pub fn place(&self, id: &BlobId) -> Option<Place> {
        self.blobs.get(id).copied()
    }

    /// A frame's offset in the pack, and its record (without ids).
    pub fn frame(&self, number: u32) -> Option<(u64, &Frame)> {
        self.frames.get(number as usize).map(|(at, frame)| (*at, frame))
    }

    /// All frames with their offsets.
    pub fn frames(&self) -> &[(u64, Frame)] {
        &self.frames
    }

    /// Blobs in the pack.
    pub fn blobs(&self) -> usize {
        self.blobs.len()
    }

    /// Every blob and its place, in no order.
    pub fn places(&self) -> impl Iterator<Item = (&BlobId, &Place)> {
        self.blobs.iter()
    }
}
