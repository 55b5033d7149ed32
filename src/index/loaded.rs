//! Frames of the index in memory, arranged for look-ups.

use super::EntryNumber;
use crate::format::pack::{Frame, StorageClass};
use crate::id::{BlobId, PackName};
use std::sync::{Arc, OnceLock};

/// Number of a group in the local database. Groups of one pack have numbers in a row, and none is
/// ever given twice.
pub(super) type GroupNumber = i64;

/// Frames of a pack that lie one after the other: what one row holds.
pub(super) struct Group {
    pub(super) number: GroupNumber,
    pub(super) entry: EntryNumber,
    pub(super) pack: PackName,
    /// The number of the first in the pack.
    pub(super) first: u32,
    /// With their offsets in the pack.
    pub(super) frames: Vec<(u64, Frame)>,
    /// The first eight bytes of each id, and where it stands: frame, and blob. Sorted.
    order: OnceLock<Vec<(u64, u32, u32)>>,
    blobs: usize,
}

/// Groups of more blobs than this are arranged before they are searched again and again.
const UNSORTED_MAX: usize = 128;

impl Group {
    /// `offset` is the first one's.
    pub(super) fn new(
        (number, entry, pack): (GroupNumber, EntryNumber, PackName),
        (first, offset): (u32, u64),
        frames: Vec<Frame>,
    ) -> Self {
        let frames = frames.into_iter().scan(offset, |at, frame| {
            let begin = *at;
            *at = at.saturating_add(frame.stored.into());
            Some((begin, frame))
        });
        let frames: Vec<_> = frames.collect();
        let blobs = frames.iter().map(|(_, frame)| frame.lens.len()).sum();
        Self { number, entry, pack, first, frames, order: OnceLock::new(), blobs }
    }

    pub(super) fn blobs(&self) -> usize {
        self.blobs
    }

    fn copy(self: &Arc<Self>, frame: usize, blob: usize) -> BlobCopy {
        let lens = &self.frames[frame].1.lens;
        BlobCopy { group: Arc::clone(self), frame, blob, at: lens[..blob].iter().sum() }
    }

    /// Every copy of `id` in this group.
    pub(super) fn copies(self: &Arc<Self>, id: &BlobId) -> Vec<BlobCopy> {
        let mut found = Vec::new();
        for (n, (_, frame)) in self.frames.iter().enumerate() {
            found.extend(frame.ids.iter().enumerate().filter(|(_, i)| *i == id).map(|(blob, _)| self.copy(n, blob)));
        }
        found
    }

    /// A copy of `id` in a plain frame of this group. Arranges a large one at the first call: for
    /// groups that are asked often.
    pub(super) fn plain_copy(self: &Arc<Self>, id: &BlobId) -> Option<BlobCopy> {
        if self.blobs <= UNSORTED_MAX {
            let mut plain = self.frames.iter().enumerate().filter(|(_, (_, frame))| frame.depth == 0);
            return plain.find_map(|(n, (_, frame))| {
                frame.ids.iter().position(|found| found == id).map(|blob| self.copy(n, blob))
            });
        }
        let order = self.order.get_or_init(|| {
            let plain = self.frames.iter().enumerate().filter(|(_, (_, frame))| frame.depth == 0);
            let mut order: Vec<_> = plain
                .flat_map(|(n, (_, frame))| {
                    frame.ids.iter().enumerate().map(move |(blob, id)| (begin(id), n as u32, blob as u32))
                })
                .collect();
            order.sort_unstable();
            order
        });
        let from = order.partition_point(|(key, ..)| *key < begin(id));
        let same = order[from..].iter().take_while(|(key, ..)| *key == begin(id));
        let mut places = same.map(|(_, frame, blob)| (*frame as usize, *blob as usize));
        let (frame, blob) = places.find(|(frame, blob)| self.frames[*frame].1.ids[*blob] == *id)?;
        Some(self.copy(frame, blob))
    }
}

fn begin(id: &BlobId) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = id.0;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// A copy of a blob: where it lies, and what its frame is.
#[derive(Clone)]
pub struct BlobCopy {
    group: Arc<Group>,
    frame: usize,
    blob: usize,
    at: u32,
}

impl BlobCopy {
    pub(super) fn group(&self) -> &Arc<Group> {
        &self.group
    }

    /// True if the blob is the last one of its group: the next of a stream lies in the next one.
    pub(super) fn is_last(&self) -> bool {
        self.frame + 1 == self.group.frames.len() && self.blob + 1 == self.frame().lens.len()
    }

    /// The pack's entry.
    pub fn entry(&self) -> EntryNumber {
        self.group.entry
    }

    /// The pack.
    pub fn pack(&self) -> PackName {
        self.group.pack
    }

    /// The frame's number in the pack.
    pub fn frame_number(&self) -> u32 {
        self.group.first + self.frame as u32
    }

    /// The frame's record.
    pub fn frame(&self) -> &Frame {
        &self.group.frames[self.frame].1
    }

    /// Where the frame's bytes begin in the pack.
    pub fn offset(&self) -> u64 {
        self.group.frames[self.frame].0
    }

    /// Where the blob begins in the frame's plaintext.
    pub fn at(&self) -> u32 {
        self.at
    }

    /// The blob's length.
    pub fn size(&self) -> u32 {
        self.frame().lens[self.blob]
    }
}

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

/// One pack's entry.
pub struct PackMap {
    /// The entry's number in the local database.
    pub number: EntryNumber,
    /// The pack.
    pub name: PackName,
    /// Its size in bytes.
    pub size: u64,
    /// What it holds.
    pub class: StorageClass,
    pub(super) frames: Vec<(u64, Frame)>,
}

impl PackMap {
    /// A frame's offset in the pack, and its record.
    pub fn frame(&self, number: u32) -> Option<(u64, &Frame)> {
        self.frames.get(number as usize).map(|(at, frame)| (*at, frame))
    }

    /// All frames with their offsets.
    pub fn frames(&self) -> &[(u64, Frame)] {
        &self.frames
    }

    /// Blobs in the pack.
    pub fn blobs(&self) -> usize {
        self.frames.iter().map(|(_, frame)| frame.lens.len()).sum()
    }

    /// Every blob and its place, in the pack's order. One that stands in it twice comes twice.
    pub fn places(&self) -> impl Iterator<Item = (&BlobId, Place)> {
        self.frames.iter().enumerate().flat_map(|(n, (_, frame))| {
            let begins = frame.lens.iter().scan(0, move |at, len| {
                let begin = *at;
                *at += len;
                Some(Place { frame: n as u32, at: begin, len: *len })
            });
            frame.ids.iter().zip(begins)
        })
    }
}
