//! An index object: which packs there are, and which blobs lie where in them.

use super::cbor::{Fields, Record, count, exact, finished};
use super::pack::Directory;
use crate::error::Malformed;
use crate::id::{IndexName, PackName};
use crate::limits;
use minicbor::decode::Decoder;
use std::io::Read as _;
use zstd::zstd_safe;

/// A pack and its directory, ids included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackEntry {
    /// The pack.
    pub name: PackName,
    /// The object's size in bytes.
    pub size: u64,
    /// Its frames.
    pub directory: Directory,
}

impl PackEntry {
    /// Appends the record: 0 name, 1 size, 2 directory.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let mut directory = Vec::new();
        self.directory.write_to(&mut directory, true);
        let mut r = Record::new();
        r.bytes(0, self.name.as_bytes()).u64(1, self.size);
        r.raw(2, &directory);
        r.write_to(out);
    }

    /// Reads the record that begins at `d`, and moves behind it.
    pub fn read(d: &mut Decoder<'_>) -> Result<Self, Malformed> {
        let (mut name, mut size, mut directory) = (None, 0, None);
        let mut f = Fields::begin(d.clone())?;
        while let Some(key) = f.next(&[0, 1, 2])? {
            match key {
                0 => name = Some(PackName(f.array()?)),
                1 => size = f.value().u64()?,
                _ => directory = Some(Directory::read(f.value(), true)?),
            }
        }
        *d = f.end();
        let (Some(name), Some(directory)) = (name, directory) else {
            return Err(Malformed::new("a pack's entry without a name or directory"));
        };
        if size > limits::PACK_MAX || size < directory.frames_end() {
            return Err(Malformed::new("a pack's entry with an impossible size"));
        }
        Ok(Self { name, size, directory })
    }

    /// Blobs in the pack.
    pub fn blobs(&self) -> usize {
        self.directory.frames.iter().map(|f| f.lens.len()).sum()
    }
}

/// A pack's entries in one index object, which say what is so. Whoever could name packs alone would vouch for
/// whatever somebody says of them later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vouched {
    /// The index object.
    pub index: IndexName,
    /// The pack.
    pub pack: PackName,
}

impl Vouched {
    /// Bytes of it.
    pub const LEN: usize = 64;

    /// One name after the other.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..32].copy_from_slice(&self.index.0);
        bytes[32..].copy_from_slice(&self.pack.0);
        bytes
    }

    /// Reads it.
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        let (mut index, mut pack) = ([0; 32], [0; 32]);
        index.copy_from_slice(&bytes[..32]);
        pack.copy_from_slice(&bytes[32..]);
        Self { index: IndexName(index), pack: PackName(pack) }
    }
}

/// The plaintext of an index object, before compression.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IndexObject {
    /// The packs whose entries this object brings.
    pub packs: Vec<PackEntry>,
    /// Objects whose entries this one replaces; counts only if signed by a full key.
    pub supersedes: Vec<IndexName>,
    /// Entries of other index objects that a full key has found true; counts only if signed by one.
    pub vouched: Vec<Vouched>,
}

impl IndexObject {
    /// The record: 0 packs, 1 supersedes, 2 vouched.
    pub fn encode(&self) -> Vec<u8> {
        let mut packs = Vec::new();
        for pack in &self.packs {
            pack.write_to(&mut packs);
        }
        let mut r = Record::new();
        r.put(0, |e| {
            e.array(self.packs.len() as u64)?;
            e.writer_mut().extend_from_slice(&packs);
            Ok(())
        });
        if !self.supersedes.is_empty() {
            r.list(1, &self.supersedes);
        }
        if !self.vouched.is_empty() {
            let vouched: Vec<_> = self.vouched.iter().map(|vouched| vouched.to_bytes()).collect();
            r.list(2, &vouched);
        }
        r.finish()
    }

    /// Reads the record.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut object = Self::default();
        let mut f = Fields::begin(Decoder::new(bytes))?;
        while let Some(key) = f.next(&[0, 1, 2])? {
            let n = count(f.value(), bytes.len())?;
            for _ in 0..n {
                match key {
                    0 => object.packs.push(PackEntry::read(f.value())?),
                    1 => object.supersedes.push(IndexName(exact(f.value())?)),
                    _ => object.vouched.push(Vouched::from_bytes(&exact(f.value())?)),
                }
            }
        }
        finished(&f.end())?;
        Ok(object)
    }
}

/// What one zstd frame holds: an index object's payload, or an entry as it is kept on this machine.
///
/// What the frame claims to hold, and how far back it claims to look, is not believed: memory grows
/// with what is really there, up to [`limits::INDEX_PLAIN_MAX`].
///
/// # Errors
/// If it does not decode, holds more, or looks back further than [`limits::INDEX_WINDOW_LOG_MAX`].
pub fn unpack(packed: &[u8]) -> Result<Vec<u8>, Malformed> {
    one_frame(packed)?;
    let failed = |e: std::io::Error| Malformed(format!("does not decompress: {e}"));
    let mut decoder = zstd::stream::read::Decoder::with_buffer(packed).map_err(failed)?;
    decoder.window_log_max(limits::INDEX_WINDOW_LOG_MAX).map_err(failed)?;
    let max = limits::INDEX_PLAIN_MAX as u64;
    let mut plain = Vec::with_capacity(packed.len().saturating_mul(2));
    decoder.take(max + 1).read_to_end(&mut plain).map_err(failed)?;
    if plain.len() as u64 > max {
        return Err(Malformed(format!("decompresses to more than {max} bytes")));
    }
    Ok(plain)
}

/// That these bytes are one zstd frame of RFC 8878, and nothing else: none that is to be skipped, none of an older
/// kind, and nothing behind it.
///
/// # Errors
/// If they are not.
pub fn one_frame(packed: &[u8]) -> Result<(), Malformed> {
    let is_frame = packed.starts_with(&zstd_safe::MAGICNUMBER.to_le_bytes());
    if !is_frame || zstd_safe::find_frame_compressed_size(packed) != Ok(packed.len()) {
        return Err(Malformed::new("is not one zstd frame and nothing else"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::pack::{BlobKind, Codec, Frame, StorageClass};
    use crate::id::BlobId;
    use proptest::prelude::*;

    fn object(packs: u8) -> IndexObject {
        let frame = Frame {
            stored: 400,
            codec: Codec::Zstd,
            kind: BlobKind::Tree,
            depth: 0,
            bases: Vec::new(),
            lens: vec![100, 200],
            ids: vec![BlobId([2; 32]), BlobId([3; 32])],
        };
        let directory = Directory { class: StorageClass::Trees, frames: vec![frame] };
        IndexObject {
            packs: (0..packs)
                .map(|n| PackEntry { name: PackName([n; 32]), size: 5000, directory: directory.clone() })
                .collect(),
            supersedes: vec![IndexName([4; 32])],
            vouched: vec![Vouched { index: IndexName([5; 32]), pack: PackName([6; 32]) }],
        }
    }

    #[test]
    fn one_zstd_frame_is_taken_and_nothing_else() {
        let frame = zstd::bulk::compress(b"hello", 1).unwrap();
        assert_eq!(unpack(&frame).unwrap(), b"hello");
        let skipped = [0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 7];
        for other in [
            Vec::new(),
            frame[..frame.len() - 1].to_vec(),
            [&frame[..], &[0]].concat(),
            [&frame[..], &frame].concat(),
            [&frame[..], &skipped].concat(),
            [&skipped, &frame[..]].concat(),
            skipped.to_vec(),
        ] {
            assert!(one_frame(&other).is_err() && unpack(&other).is_err(), "{other:x?}");
        }
    }

    proptest! {
        #[test]
        fn there_and_back(packs in 0u8..5) {
            prop_assert_eq!(IndexObject::decode(&object(packs).encode()).unwrap(), object(packs));
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = IndexObject::decode(&bytes);
        }

        #[test]
        fn changed_bytes_never_panic(at in any::<prop::sample::Index>(), bit in 0..8u8) {
            let mut bytes = object(2).encode();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let _ = IndexObject::decode(&bytes);
        }
    }

    /// A zstd frame whose header claims 128 MiB, and which ends there.
    const CLAIMS: [u8; 12] = [0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0x00, 0x00, 0x00, 0x08, 0x01, 0x00, 0x00];

    #[test]
    fn what_a_compressed_frame_claims_is_not_believed() {
        assert_eq!(zstd::zstd_safe::get_frame_content_size(&CLAIMS).ok().flatten(), Some(128 << 20));
        let e = unpack(&CLAIMS).unwrap_err();
        assert!(e.0.contains("memory"), "refused for the window that it wants, before it is made: {e}");
        let cut_short = &zstd::bulk::compress(&vec![7; 1 << 20], 1).unwrap()[..20];
        assert!(unpack(cut_short).is_err());
    }

    #[test]
    fn compressed_records_come_back_at_any_size() {
        for (len, level) in [(0, 1), (10, 1), (100_000, 3), (5_000_000, 1), (5_000_000, 3)] {
            let mut plain = vec![0; len];
            blake3::Hasher::new().finalize_xof().fill(&mut plain[..len / 2]);
            assert_eq!(unpack(&zstd::bulk::compress(&plain, level).unwrap()).unwrap(), plain, "{len} at {level}");
        }
        let bomb = zstd::bulk::compress(&vec![0; limits::INDEX_PLAIN_MAX + 1], 1).unwrap();
        assert!(unpack(&bomb).unwrap_err().0.contains("more than"));
    }

    #[test]
    fn lists_that_are_empty_are_left_out() {
        assert_eq!(IndexObject::default().encode(), [0xa1, 0, 0x80]);
        let bytes = IndexObject { packs: Vec::new(), ..object(0) }.encode();
        let superseded = [&[1, 0x81, 0x58, 32][..], &[4; 32]].concat();
        let vouched = [&[2, 0x81, 0x58, 64][..], &[5; 32], &[6; 32]].concat();
        assert_eq!(bytes, [vec![0xa3, 0, 0x80], superseded, vouched].concat());
    }

    #[test]
    fn a_packs_size_is_within_its_frames_and_the_bound() {
        let end = object(1).packs[0].directory.frames_end();
        for (size, good) in [(end - 1, false), (end, true), (limits::PACK_MAX, true), (limits::PACK_MAX + 1, false)] {
            let mut o = object(1);
            o.packs[0].size = size;
            assert_eq!(IndexObject::decode(&o.encode()).ok(), good.then_some(o), "{size}");
        }
    }

    #[test]
    fn an_entry_without_a_name_or_directory_is_refused() {
        let whole = &object(1).packs[0];
        let mut directory = Vec::new();
        whole.directory.write_to(&mut directory, true);
        for (name, with_directory, good) in [(true, true, true), (false, true, false), (true, false, false)] {
            let mut r = Record::new();
            if name {
                r.bytes(0, whole.name.as_bytes());
            }
            r.u64(1, whole.size);
            if with_directory {
                r.raw(2, &directory);
            }
            assert_eq!(PackEntry::read(&mut Decoder::new(&r.finish())).is_ok(), good, "{name} {with_directory}");
        }
    }

    #[test]
    fn a_packs_blobs_are_those_of_all_its_frames() {
        let mut entry = object(1).packs.remove(0);
        entry.directory.frames.push(entry.directory.frames[0].clone());
        assert_eq!(entry.blobs(), 4);
    }

    #[test]
    fn a_pack_smaller_than_its_frames_is_refused() {
        let mut o = object(1);
        o.packs[0].size = 100;
        assert!(IndexObject::decode(&o.encode()).is_err());
    }
}
