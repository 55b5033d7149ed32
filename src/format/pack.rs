//! The inside of a pack: its directory of frames, and its trailer.
//!
//! A pack is: header, sealed data key, frames, parity if the tenant wants it
//! ([`super::parity`]), sealed directory, sealed trailer, hash. Frames lie one after the other, so the
//! directory gives lengths and a reader adds them up. The directory leaves
//! out the blobs' ids: whoever opens the frames can compute them, and the
//! index holds them; the same record with ids is the index's own.

use super::cbor::{Fields, Record, count, finished, within};
use super::header::{HASH_LEN, HEADER_LEN};
use crate::error::Malformed;
use crate::id::{BaseId, BlobId};
use crate::limits;
use minicbor::decode::Decoder;

/// Length of an AEAD tag.
pub const TAG_LEN: usize = 16;
/// Length of the sealed data key: encapsulated key, key, tag.
pub const SEALED_KEY_LEN: usize = 1120 + 32 + TAG_LEN;
/// Where the first frame begins.
pub const FRAMES_AT: u64 = (HEADER_LEN + SEALED_KEY_LEN) as u64;
/// Length of the sealed trailer: directory length, parity length, tag.
pub const TRAILER_LEN: usize = 16 + TAG_LEN;
/// What the end of a pack takes beside its directory.
pub const TAIL_LEN: usize = TRAILER_LEN + HASH_LEN;

/// What a pack holds, and so where a store may put it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum StorageClass {
    /// Chunks: read by restores, may go to colder storage.
    Data = 0,
    /// Trees and content lists: read by every listing.
    Trees = 1,
}

impl StorageClass {
    /// The class of that number.
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::Data, Self::Trees].into_iter().find(|c| *c as u8 == byte)
    }
}

/// What a blob is; each kind has an id key of its own, so that none is taken for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum BlobKind {
    /// A piece of a file.
    Chunk = 0,
    /// A segment of a tree.
    Tree = 1,
    /// A content list.
    List = 2,
}

impl BlobKind {
    /// The kind of that number.
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::Chunk, Self::Tree, Self::List].into_iter().find(|k| *k as u8 == byte)
    }

    /// The class of pack that holds it.
    pub fn class(self) -> StorageClass {
        match self {
            Self::Chunk => StorageClass::Data,
            Self::Tree | Self::List => StorageClass::Trees,
        }
    }
}

/// How a frame's plaintext is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    /// As it is.
    Raw = 0,
    /// One zstd frame.
    Zstd = 1,
}

impl Codec {
    /// The codec of that number.
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::Raw, Self::Zstd].into_iter().find(|c| *c as u8 == byte)
    }
}

/// What a frame's record says, and of its lists how long they are.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// See [`Frame::stored`].
    pub stored: u32,
    /// See [`Frame::codec`].
    pub codec: Codec,
    /// See [`Frame::depth`].
    pub depth: u8,
    /// How many bases it names.
    pub bases: usize,
    /// How many blobs it holds.
    pub blobs: usize,
    /// Bytes of its plaintext.
    pub plain: u64,
}

impl Shape {
    /// Holds it against what every frame must keep.
    ///
    /// # Errors
    /// [`Malformed`]: what it does not keep.
    pub fn check(&self) -> Result<(), Malformed> {
        let bad = if self.stored as usize > limits::FRAME_STORED_MAX || (self.stored as usize) < TAG_LEN {
            "a frame of impossible size"
        } else if self.plain > limits::FRAME_PLAIN_MAX as u64 {
            "a frame that claims too much plaintext"
        } else if self.codec == Codec::Raw && self.plain + TAG_LEN as u64 != u64::from(self.stored) {
            "a raw frame whose sizes differ"
        } else if self.blobs == 0 {
            // Three bytes would become a hundred in memory, and an index object holds many.
            "a frame without blobs"
        } else if (self.depth > 0) == (self.bases == 0) {
            "a frame whose depth and bases do not fit"
        } else if self.depth > limits::FRAME_DEPTH_MAX {
            "a frame that rests on too many others"
        } else if self.depth > 0 && self.codec == Codec::Raw {
            "a raw frame with bases"
        } else {
            return Ok(());
        };
        Err(Malformed::new(bad))
    }
}

/// One frame: some blobs, sealed together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Bytes in the pack, tag included.
    pub stored: u32,
    /// How the plaintext is stored.
    pub codec: Codec,
    /// What its blobs are.
    pub kind: BlobKind,
    /// 0: plain. n: the deepest of its bases has depth n − 1.
    pub depth: u8,
    /// The old blobs, in order, that the plaintext was compressed against; empty if plain.
    pub bases: Vec<BaseId>,
    /// Lengths of its blobs, one after the other in the plaintext.
    pub lens: Vec<u32>,
    /// Ids of its blobs; empty in a pack's own directory.
    pub ids: Vec<BlobId>,
}

impl Frame {
    /// Bytes of plaintext.
    pub fn plain_len(&self) -> usize {
        self.lens.iter().map(|len| *len as usize).sum()
    }

    /// Appends the record: 0 stored, 1 codec, 2 kind, 3 depth, 4 bases, 5 lengths, 6 ids.
    pub fn write_to(&self, out: &mut Vec<u8>, with_ids: bool) {
        let mut r = Record::new();
        r.u64(0, self.stored.into()).u64(1, self.codec as u64).u64(2, self.kind as u64);
        if self.depth > 0 {
            r.u64(3, self.depth.into()).bytes(4, &concat(&self.bases));
        }
        r.put(5, |e| {
            e.array(self.lens.len() as u64)?;
            for len in &self.lens {
                e.u32(*len)?;
            }
            Ok(())
        });
        if with_ids {
            r.bytes(6, &concat(&self.ids));
        }
        r.write_to(out);
    }

    /// Reads the record that begins at `d`, and moves behind it.
    pub fn read(d: &mut Decoder<'_>, with_ids: bool) -> Result<Self, Malformed> {
        let mut frame = Frame {
            stored: 0,
            codec: Codec::Raw,
            kind: BlobKind::Chunk,
            depth: 0,
            bases: Vec::new(),
            lens: Vec::new(),
            ids: Vec::new(),
        };
        let mut f = Fields::begin(d.clone())?;
        while let Some(key) = f.next(&[0, 1, 2, 3, 4, 5, 6])? {
            match key {
                0 => frame.stored = f.value().u32()?,
                1 => {
                    let codec = f.value().u8()?;
                    frame.codec = Codec::from_byte(codec)
                        .ok_or_else(|| Malformed(format!("a frame with unknown codec {codec}")))?;
                }
                2 => {
                    let kind = f.value().u8()?;
                    frame.kind = BlobKind::from_byte(kind)
                        .ok_or_else(|| Malformed(format!("a frame of unknown blob kind {kind}")))?;
                }
                3 => frame.depth = f.value().u8()?,
                4 => {
                    frame.bases =
                        split(within(f.value(), limits::FRAME_BASES_MAX * BaseId::LEN)?)?.map(BaseId).collect()
                }
                5 => {
                    let count = count(f.value(), limits::FRAME_BLOBS_MAX)?;
                    frame.lens.reserve_exact(count);
                    for _ in 0..count {
                        frame.lens.push(f.value().u32()?);
                    }
                }
                _ => {
                    frame.ids =
                        split(within(f.value(), limits::FRAME_BLOBS_MAX * BlobId::LEN)?)?.map(BlobId).collect()
                }
            }
        }
        *d = f.end();
        frame.check(with_ids)?;
        Ok(frame)
    }

    fn check(&self, with_ids: bool) -> Result<(), Malformed> {
        let shape = Shape {
            stored: self.stored,
            codec: self.codec,
            depth: self.depth,
            bases: self.bases.len(),
            blobs: self.lens.len(),
            plain: self.lens.iter().map(|len| u64::from(*len)).sum(),
        };
        shape.check()?;
        if self.ids.len() != if with_ids { self.lens.len() } else { 0 } {
            return Err(Malformed::new("a frame with other numbers of ids and lengths"));
        }
        Ok(())
    }
}

fn concat<T: AsRef<[u8]>>(ids: &[T]) -> Vec<u8> {
    ids.iter().flat_map(AsRef::as_ref).copied().collect()
}

fn split<const N: usize>(bytes: &[u8]) -> Result<impl Iterator<Item = [u8; N]>, Malformed> {
    let (ids, rest) = bytes.as_chunks();
    if !rest.is_empty() {
        return Err(Malformed::new("a list of ids with a part of one"));
    }
    Ok(ids.iter().copied())
}

/// A pack's frames, in the order of their bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// What the pack holds.
    pub class: StorageClass,
    /// The frames.
    pub frames: Vec<Frame>,
}

impl Directory {
    /// Appends the record: 0 class, 1 frames.
    pub fn write_to(&self, out: &mut Vec<u8>, with_ids: bool) {
        let mut r = Record::new();
        r.u64(0, self.class as u64);
        r.put(1, |e| {
            e.array(self.frames.len() as u64)?;
            for frame in &self.frames {
                frame.write_to(e.writer_mut(), with_ids);
            }
            Ok(())
        });
        r.write_to(out);
    }

    /// Reads the record that begins at `d`, and moves behind it.
    pub fn read(d: &mut Decoder<'_>, with_ids: bool) -> Result<Self, Malformed> {
        let (mut class, mut frames, mut blobs) = (StorageClass::Data, Vec::new(), 0);
        let mut f = Fields::begin(d.clone())?;
        while let Some(key) = f.next(&[0, 1])? {
            if key == 0 {
                let byte = f.value().u8()?;
                class = StorageClass::from_byte(byte)
                    .ok_or_else(|| Malformed(format!("a pack of unknown class {byte}")))?;
                continue;
            }
            for _ in 0..count(f.value(), limits::PACK_FRAMES_MAX)? {
                let frame = Frame::read(f.value(), with_ids)?;
                blobs += frame.lens.len();
                if frame.kind.class() != class {
                    return Err(Malformed::new("a frame in a pack of another class"));
                }
                if blobs > limits::PACK_BLOBS_MAX {
                    return Err(Malformed::new("a pack with too many blobs"));
                }
                frames.push(frame);
            }
        }
        *d = f.end();
        Ok(Self { class, frames })
    }

    /// Reads a pack's own directory.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut d = Decoder::new(bytes);
        let directory = Self::read(&mut d, false)?;
        finished(&d)?;
        Ok(directory)
    }

    /// Where the bytes of each frame begin in the pack.
    pub fn offsets(&self) -> impl Iterator<Item = (u64, &Frame)> {
        self.frames.iter().scan(FRAMES_AT, |at, frame| {
            let begin = *at;
            *at += u64::from(frame.stored);
            Some((begin, frame))
        })
    }

    /// Where the last frame ends.
    pub fn frames_end(&self) -> u64 {
        FRAMES_AT + self.frames.iter().map(|f| u64::from(f.stored)).sum::<u64>()
    }
}

/// The plaintext of a pack's trailer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// Bytes of the sealed directory.
    pub directory: u64,
    /// Bytes of parity between the frames and the directory; 0 for none.
    pub parity: u64,
}

impl Trailer {
    /// Both numbers, little endian.
    pub fn encode(self) -> [u8; 16] {
        let mut out = [0; 16];
        out[..8].copy_from_slice(&self.directory.to_le_bytes());
        out[8..].copy_from_slice(&self.parity.to_le_bytes());
        out
    }

    /// Reads both.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let bytes: &[u8; 16] = bytes.try_into().map_err(|_| Malformed::new("a trailer of another length"))?;
        let (numbers, _) = bytes.as_chunks::<8>();
        let trailer = Self { directory: u64::from_le_bytes(numbers[0]), parity: u64::from_le_bytes(numbers[1]) };
        if trailer.directory > limits::DIRECTORY_MAX as u64 || trailer.parity > limits::PACK_MAX {
            return Err(Malformed::new("a trailer with impossible lengths"));
        }
        Ok(trailer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn directory(ids: bool) -> Directory {
        let frame = |depth: u8| Frame {
            stored: 500,
            codec: Codec::Zstd,
            kind: BlobKind::Chunk,
            depth,
            bases: vec![BaseId([1; 16]); depth.into()],
            lens: vec![100, 200],
            ids: if ids { vec![BlobId([2; 32]), BlobId([3; 32])] } else { Vec::new() },
        };
        Directory { class: StorageClass::Data, frames: vec![frame(0), frame(2)] }
    }

    fn bytes(directory: &Directory, ids: bool) -> Vec<u8> {
        let mut out = Vec::new();
        directory.write_to(&mut out, ids);
        out
    }

    #[test]
    fn there_and_back() {
        assert_eq!(Directory::decode(&bytes(&directory(false), false)).unwrap(), directory(false));
        let with_ids = bytes(&directory(true), true);
        assert_eq!(Directory::read(&mut Decoder::new(&with_ids), true).unwrap(), directory(true));
    }

    #[test]
    fn a_packs_parts_have_the_lengths_of_the_page() {
        assert_eq!((SEALED_KEY_LEN, FRAMES_AT), (1168, 1176));
        assert_eq!((TRAILER_LEN, TAIL_LEN), (32, 64));
    }

    #[test]
    fn kinds_lie_in_their_class_of_pack() {
        let kinds = [BlobKind::Chunk, BlobKind::Tree, BlobKind::List];
        assert_eq!(kinds.map(BlobKind::class), [StorageClass::Data, StorageClass::Trees, StorageClass::Trees]);
        for (number, kind) in (0..).zip(kinds) {
            assert_eq!((kind as u8, BlobKind::from_byte(number)), (number, Some(kind)));
            let frame = Frame { kind, ..directory(false).frames.remove(0) };
            for class in [StorageClass::Data, StorageClass::Trees] {
                let d = Directory { class, frames: vec![frame.clone()] };
                assert_eq!(Directory::decode(&bytes(&d, false)).ok(), (class == kind.class()).then_some(d));
            }
        }
        assert_eq!(BlobKind::from_byte(3), None);
    }

    #[test]
    fn only_what_is_unusual_is_written() {
        let plain = [0xa4, 0, 0x19, 0x01, 0xf4, 1, 1, 2, 0, 5, 0x82, 0x18, 100, 0x18, 200];
        let mut d = directory(false);
        d.frames.truncate(1);
        assert_eq!(bytes(&d, false), [&[0xa2, 0, 0, 1, 0x81][..], &plain].concat());
        assert_eq!(d.frames[0].plain_len(), 300);
    }

    /// A directory of one frame, changed.
    fn of_one(ids: bool, change: impl FnOnce(&mut Frame)) -> Directory {
        let mut d = directory(ids);
        d.frames.truncate(1);
        change(&mut d.frames[0]);
        d
    }

    /// Expects one frame to be read, or not to be.
    #[track_caller]
    fn expect(good: bool, change: impl FnOnce(&mut Frame)) {
        let d = of_one(false, change);
        assert_eq!(Directory::decode(&bytes(&d, false)).ok(), good.then_some(d));
    }

    #[test]
    fn frames_are_as_large_as_the_bounds_say() {
        let stored = u32::try_from(limits::FRAME_STORED_MAX).unwrap();
        let plain = u32::try_from(limits::FRAME_PLAIN_MAX).unwrap();
        expect(true, |f| f.stored = stored);
        expect(false, |f| f.stored = stored + 1);
        expect(true, |f| f.stored = 16);
        expect(false, |f| f.stored = 15);
        expect(true, |f| f.lens = vec![plain - 1, 1]);
        expect(false, |f| f.lens = vec![plain, 1]);
        expect(false, |f| f.lens = Vec::new());
    }

    #[test]
    fn a_raw_frame_is_as_long_as_its_blobs_and_a_tag() {
        for (stored, good) in [(315, false), (316, true), (317, false)] {
            expect(good, |f| (f.codec, f.stored) = (Codec::Raw, stored));
        }
    }

    #[test]
    fn a_frame_has_bases_if_and_only_if_it_has_depth() {
        let base = BaseId([1; 16]);
        expect(true, |f| (f.depth, f.bases) = (1, vec![base]));
        expect(true, |f| (f.depth, f.bases) = (limits::FRAME_DEPTH_MAX, vec![base; limits::FRAME_BASES_MAX]));
        expect(false, |f| (f.depth, f.bases) = (limits::FRAME_DEPTH_MAX + 1, vec![base]));
        expect(false, |f| (f.depth, f.bases) = (1, vec![base; limits::FRAME_BASES_MAX + 1]));
        expect(false, |f| (f.depth, f.bases) = (1, Vec::new()));
        // This writer leaves bases out where there is no depth; another may not.
        let mut r = Record::new();
        r.u64(0, 16).u64(1, 1).bytes(4, &base.0).raw(5, &[0x80]);
        assert!(Frame::read(&mut Decoder::new(&r.finish()), false).is_err());
    }

    #[test]
    fn a_frame_of_an_index_has_an_id_for_every_blob() {
        for (lens, ids, good) in [
            (2, 2, true),
            (2, 1, false),
            (1, 2, false),
            (limits::FRAME_BLOBS_MAX, limits::FRAME_BLOBS_MAX, true),
            (limits::FRAME_BLOBS_MAX + 1, limits::FRAME_BLOBS_MAX + 1, false),
        ] {
            let d = of_one(true, |f| (f.lens, f.ids) = (vec![3; lens], vec![BlobId([2; 32]); ids]));
            let decoded = Directory::read(&mut Decoder::new(&bytes(&d, true)), true);
            assert_eq!(decoded.ok(), good.then_some(d), "{lens} {ids}");
        }
        let d = of_one(true, |f| f.ids.clear());
        assert!(Directory::read(&mut Decoder::new(&bytes(&d, false)), true).is_err());
        assert!(Directory::decode(&bytes(&d, false)).is_ok());
        assert!(split::<32>(&[1; 33]).is_err() && split::<32>(&[1; 31]).is_err());
        assert_eq!(split(&[1; 64]).unwrap().collect::<Vec<_>>(), [[1; 32]; 2]);
    }

    #[test]
    fn a_pack_has_no_more_blobs_than_its_bound() {
        let full = of_one(false, |f| f.lens = vec![1; limits::FRAME_BLOBS_MAX]).frames.remove(0);
        let mut d = directory(false);
        d.frames = vec![full; limits::PACK_BLOBS_MAX / limits::FRAME_BLOBS_MAX];
        assert!(Directory::decode(&bytes(&d, false)).is_ok_and(|read| read == d));
        d.frames.push(of_one(false, |f| f.lens = vec![1]).frames.remove(0));
        assert!(Directory::decode(&bytes(&d, false)).is_err_and(|e| e.0.contains("too many blobs")));
    }

    #[test]
    fn a_trailers_lengths_end_at_their_bound() {
        for (directory, parity, good) in [
            (0, 0, true),
            (limits::DIRECTORY_MAX as u64, limits::PACK_MAX, true),
            (limits::DIRECTORY_MAX as u64 + 1, 0, false),
            (0, limits::PACK_MAX + 1, false),
        ] {
            let trailer = Trailer { directory, parity };
            assert_eq!(Trailer::decode(&trailer.encode()).ok(), good.then_some(trailer), "{directory} {parity}");
        }
        assert_eq!(Trailer { directory: 1, parity: 2 }.encode(), [1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        assert!(Trailer::decode(&[0; 15]).is_err() && Trailer::decode(&[0; 17]).is_err());
    }

    #[test]
    fn offsets_add_up() {
        let d = directory(false);
        let at: Vec<u64> = d.offsets().map(|(at, _)| at).collect();
        assert_eq!(at, [FRAMES_AT, FRAMES_AT + 500]);
        assert_eq!(d.frames_end(), FRAMES_AT + 1000);
    }

    #[test]
    fn a_packs_own_directory_holds_no_ids() {
        assert!(Directory::decode(&bytes(&directory(true), true)).is_err());
        let without = bytes(&directory(false), false);
        assert!(Directory::read(&mut Decoder::new(&without), true).is_err());
    }

    #[test]
    fn impossible_frames_are_refused() {
        let broken: [fn(&mut Frame); 6] = [
            |f| f.stored = u32::MAX,
            |f| f.lens = vec![u32::MAX, 1],
            |f| f.codec = Codec::Raw,
            |f| f.depth = 1,
            |f| f.kind = BlobKind::Tree,
            |f| f.lens = Vec::new(),
        ];
        for (n, breaks) in broken.into_iter().enumerate() {
            let mut d = directory(false);
            breaks(&mut d.frames[0]);
            assert!(Directory::decode(&bytes(&d, false)).is_err(), "{n}");
        }
        assert!(Trailer::decode(&Trailer { directory: u64::MAX, parity: 0 }.encode()).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Directory::decode(&bytes);
            let _ = Directory::read(&mut Decoder::new(&bytes), true);
            let _ = Trailer::decode(&bytes);
        }

        #[test]
        fn changed_bytes_never_panic(at in any::<prop::sample::Index>(), bit in 0..8u8) {
            let mut bytes = bytes(&directory(true), true);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let _ = Directory::read(&mut Decoder::new(&bytes), true);
        }
    }
}
