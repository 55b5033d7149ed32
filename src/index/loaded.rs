//! Frames of the index in memory, arranged for look-ups.

use super::EntryNumber;
use super::closing::sum;
use crate::format::pack::{BlobKind, Codec, Frame, StorageClass};
use crate::id::{BaseId, BlobId, PackName};
use std::sync::{Arc, OnceLock};

/// Number of a group in the local database. Groups of one pack have numbers in a row, and none is
/// ever given twice.
pub(super) type GroupNumber = i64;

/// A frame of a group: its record, and where its lists begin among those of the group.
pub(super) struct Head {
    /// Where its bytes begin in the pack.
    pub(super) offset: u64,
    pub(super) stored: u32,
    pub(super) codec: Codec,
    pub(super) kind: BlobKind,
    pub(super) depth: u8,
    pub(super) bases: usize,
    pub(super) blobs: usize,
    /// The whole, once somebody asked for it: most are passed over.
    pub(super) frame: OnceLock<Box<Frame>>,
}

/// Frames of a pack that lie one after the other: what one row holds.
pub(super) struct Group {
    pub(super) number: GroupNumber,
    pub(super) entry: EntryNumber,
    pub(super) pack: PackName,
    /// The number of the first in the pack.
    pub(super) first: u32,
    /// One for each frame, in the order of the pack.
    pub(super) heads: Vec<Head>,
    /// Of all frames, one after the other; so are the lists that follow.
    pub(super) lens: Vec<u32>,
    pub(super) bases: Vec<BaseId>,
    pub(super) ids: Box<[u8]>,
    /// The hash of the ids. One that is found whole is right whatever befell the others, so it is held
    /// against them only where one is not found, or found by half of it, or all are taken.
    pub(super) hash: [u8; 16],
    /// Whether it matches, once somebody asked.
    pub(super) whole: OnceLock<bool>,
    /// The first eight bytes of each id of a plain frame, and its number. Sorted.
    pub(super) order: OnceLock<Vec<(u64, u32)>>,
}

/// What is looked for.
#[derive(Clone, Copy)]
pub(super) enum Wanted<'a> {
    /// A blob. Where its id is found it is right, whatever befell the others.
    Blob(&'a BlobId),
    /// A blob on which others rest: half of its id is found, and the other half is to be believed.
    Base(&'a BaseId),
}

impl Wanted<'_> {
    /// What the map knows it by.
    pub(super) fn base(self) -> BaseId {
        match self {
            Self::Blob(id) => id.base(),
            Self::Base(id) => *id,
        }
    }

    /// True if what is found need not be held against the hash of its group's ids.
    pub(super) fn is_whole_id(self) -> bool {
        matches!(self, Self::Blob(_))
    }

    fn is(self, id: &[u8; BlobId::LEN]) -> bool {
        match self {
            Self::Blob(wanted) => *id == wanted.0,
            Self::Base(wanted) => id.starts_with(&wanted.0),
        }
    }

    fn begin(self) -> u64 {
        begin(&self.base().0)
    }
}

/// Groups of more blobs than this are arranged before they are searched again and again.
const UNSORTED_MAX: usize = 128;

impl Group {
    pub(super) fn blobs(&self) -> usize {
        self.lens.len()
    }

    fn ids(&self) -> &[[u8; BlobId::LEN]] {
        self.ids.as_chunks().0
    }

    /// The frame that holds a blob.
    fn frame_of(&self, blob: usize) -> usize {
        self.heads.partition_point(|head| head.blobs <= blob).saturating_sub(1)
    }

    fn record(&self, number: usize) -> Frame {
        let (head, next) = (&self.heads[number], self.heads.get(number + 1));
        let bases = head.bases..next.map_or(self.bases.len(), |next| next.bases);
        let blobs = head.blobs..next.map_or(self.lens.len(), |next| next.blobs);
        Frame {
            stored: head.stored,
            codec: head.codec,
            kind: head.kind,
            depth: head.depth,
            bases: self.bases[bases].to_vec(),
            lens: self.lens[blobs.clone()].to_vec(),
            ids: self.ids()[blobs].iter().map(|id| BlobId(*id)).collect(),
        }
    }

    /// All frames with their offsets.
    pub(super) fn frames(&self) -> impl Iterator<Item = (u64, Frame)> {
        self.heads.iter().enumerate().map(|(n, head)| (head.offset, self.record(n)))
    }

    fn copy(self: &Arc<Self>, blob: usize) -> BlobCopy {
        let frame = self.frame_of(blob);
        let at = self.lens[self.heads[frame].blobs..blob].iter().sum();
        BlobCopy { group: Arc::clone(self), frame, blob, at }
    }

    /// Every copy of a blob in this group.
    pub(super) fn copies(self: &Arc<Self>, wanted: Wanted<'_>) -> impl Iterator<Item = BlobCopy> {
        self.ids().iter().enumerate().filter(move |(_, found)| wanted.is(found)).map(|(blob, _)| self.copy(blob))
    }

    /// True if the ids are those that were written.
    pub(super) fn is_whole(&self) -> bool {
        *self.whole.get_or_init(|| sum(&[self.number], &[&self.ids]) == self.hash)
    }

    fn is_plain(&self, blob: usize) -> bool {
        self.heads[self.frame_of(blob)].depth == 0
    }

    /// A copy of a blob in a plain frame of this group. Arranges a large one at the first call: for
    /// groups that are asked often.
    pub(super) fn plain_copy(self: &Arc<Self>, wanted: Wanted<'_>) -> Option<BlobCopy> {
        let ids = self.ids();
        if ids.len() <= UNSORTED_MAX {
            let blob = (0..ids.len()).find(|blob| wanted.is(&ids[*blob]) && self.is_plain(*blob))?;
            return Some(self.copy(blob));
        }
        let order = self.order.get_or_init(|| {
            let plain = (0..ids.len()).filter(|blob| self.is_plain(*blob));
            let mut order: Vec<_> = plain.map(|blob| (begin(&ids[blob]), blob as u32)).collect();
            order.sort_unstable();
            order
        });
        let from = order.partition_point(|(key, _)| *key < wanted.begin());
        let mut same = order[from..].iter().take_while(|(key, _)| *key == wanted.begin());
        let (_, blob) = same.find(|(_, blob)| wanted.is(&ids[*blob as usize]))?;
        Some(self.copy(*blob as usize))
    }
}

fn begin<const N: usize>(id: &[u8; N]) -> u64 {
    id.first_chunk().map_or(0, |begin| u64::from_be_bytes(*begin))
}

/// A copy of a blob: where it lies, and what its frame is.
#[derive(Clone)]
pub struct BlobCopy {
    group: Arc<Group>,
    frame: usize,
    /// Its number in the group.
    blob: usize,
    at: u32,
}

impl BlobCopy {
    pub(super) fn group(&self) -> &Arc<Group> {
        &self.group
    }

    /// True if the blob is the last one of its group: the next of a stream lies in the next one.
    pub(super) fn is_last(&self) -> bool {
        self.blob + 1 == self.group.blobs()
    }

    /// The blob's id.
    pub fn id(&self) -> BlobId {
        BlobId(self.group.ids()[self.blob])
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
        self.group.heads[self.frame].frame.get_or_init(|| Box::new(self.group.record(self.frame)))
    }

    /// The frame's depth; asks for less than its record.
    pub fn depth(&self) -> u8 {
        self.group.heads[self.frame].depth
    }

    /// Where the frame's bytes begin in the pack.
    pub fn offset(&self) -> u64 {
        self.group.heads[self.frame].offset
    }

    /// Where the blob begins in the frame's plaintext.
    pub fn at(&self) -> u32 {
        self.at
    }

    /// The blob's length.
    pub fn size(&self) -> u32 {
        self.group.lens[self.blob]
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
