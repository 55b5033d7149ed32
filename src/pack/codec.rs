//! A frame's plaintext, compressed and back. Contexts are reused; every frame
//! is decoded again and compared before anyone relies on it.

use crate::error::{Error, Malformed, Result};
use crate::format::index::one_frame;
use crate::format::pack::{BlobKind, Codec, Frame, TAG_LEN};
use crate::id::{BaseId, BlobId};
use crate::limits;
use zstd::zstd_safe::{self, CCtx, CParameter, DCtx};

/// zstd level of delta frames.
const DELTA_LEVEL: i32 = 3;
/// Bytes that a frame of its own costs besides its bases: its tag, and its two records.
const FRAME_COST: usize = 48;
/// The smallest window that zstd takes.
const WINDOW_LOG_MIN: u32 = 10;

/// Blobs that wait to be stored together.
pub struct PlainFrame {
    /// What they are.
    pub kind: BlobKind,
    /// Their plaintexts, one after the other.
    pub bytes: Vec<u8>,
    /// Their lengths.
    pub lens: Vec<u32>,
    /// Their ids.
    pub ids: Vec<BlobId>,
}

impl PlainFrame {
    /// An empty frame.
    pub fn new(kind: BlobKind) -> Self {
        Self { kind, bytes: Vec::new(), lens: Vec::new(), ids: Vec::new() }
    }

    /// True if a blob of `len` bytes still fits.
    pub fn fits(&self, len: usize) -> bool {
        self.lens.len() < limits::FRAME_BLOBS_MAX && self.bytes.len() + len <= limits::FRAME_PLAIN_MAX
    }

    /// The blobs, in order.
    pub fn blobs(&self) -> impl Iterator<Item = (BlobId, &[u8])> {
        let mut rest = &self.bytes[..];
        self.ids.iter().zip(&self.lens).map(move |(id, len)| {
            let (blob, more) = rest.split_at(*len as usize);
            rest = more;
            (*id, blob)
        })
    }

    /// The same with those of its blobs for which `keep` says so.
    #[must_use]
    pub fn only(&self, keep: &[bool]) -> Self {
        let mut frame = Self::new(self.kind);
        self.blobs().zip(keep).filter(|(_, keep)| **keep).for_each(|((id, blob), _)| frame.push(id, blob));
        frame
    }

    /// Adds a blob that fits.
    pub fn push(&mut self, id: BlobId, blob: &[u8]) {
        debug_assert!(self.fits(blob.len()), "a frame holds at most FRAME_PLAIN_MAX");
        self.bytes.extend_from_slice(blob);
        self.lens.push(blob.len() as u32);
        self.ids.push(id);
    }
}

/// The old blobs that a delta frame is compressed against.
#[derive(Default)]
pub struct Bases {
    /// Their names, in order.
    pub ids: Vec<BaseId>,
    /// Their plaintexts, one after the other.
    pub plain: Vec<u8>,
    /// The depth of the deepest copy that was read for them.
    pub depth: u8,
}

/// A frame, ready to be sealed into a pack.
pub struct EncodedFrame {
    /// How `payload` holds the plaintext.
    pub codec: Codec,
    /// What the blobs are.
    pub kind: BlobKind,
    /// The bytes to seal.
    pub payload: Vec<u8>,
    /// 0 for a plain frame; more than the depth of its bases for a delta.
    pub depth: u8,
    /// The bases of a delta.
    pub bases: Vec<BaseId>,
    /// Lengths of the blobs.
    pub lens: Vec<u32>,
    /// Ids of the blobs.
    pub ids: Vec<BlobId>,
}

impl EncodedFrame {
    /// A frame that rests on no others.
    pub fn plain(codec: Codec, kind: BlobKind, payload: Vec<u8>, lens: Vec<u32>, ids: Vec<BlobId>) -> Self {
        Self { codec, kind, payload, depth: 0, bases: Vec::new(), lens, ids }
    }
}

/// A reused compression context, with the decoder that checks it.
pub struct Compressor {
    zstd: zstd::bulk::Compressor<'static>,
    check: Decompressor,
    packed: Vec<u8>,
}

fn no_context(e: std::io::Error) -> Error {
    Error::Invalid(format!("zstd gives no context: {e}"))
}

impl Compressor {
    /// A context for this zstd level.
    ///
    /// # Errors
    /// [`Error::Invalid`] where memory is short.
    pub fn new(level: i32) -> Result<Self> {
        Ok(Self {
            zstd: zstd::bulk::Compressor::new(level).map_err(no_context)?,
            check: Decompressor::new()?,
            packed: Vec::with_capacity(zstd::zstd_safe::compress_bound(limits::FRAME_PLAIN_MAX)),
        })
    }

    /// Compresses a frame, decodes it again and compares. The plaintext's buffer comes back, to be reused.
    ///
    /// # Errors
    /// [`Error::Invalid`] if zstd fails or its output does not decode to the input.
    pub fn encode(&mut self, plain: PlainFrame) -> Result<(EncodedFrame, Vec<u8>)> {
        let failed =
            |why: String| Error::Invalid(format!("zstd failed on a frame of {} bytes: {why}", plain.bytes.len()));
        self.packed.clear();
        self.zstd.compress_to_buffer(&plain.bytes, &mut self.packed).map_err(|e| failed(e.to_string()))?;
        let smaller = self.packed.len() < plain.bytes.len();
        let payload = if smaller {
            let decoded = self.check.zstd(&self.packed, plain.bytes.len()).map_err(|e| failed(e.0))?;
            if decoded != plain.bytes {
                return Err(failed("what it packed decodes to something else".into()));
            }
            with_room(&self.packed)
        } else {
            plain.bytes.clone()
        };
        let codec = if smaller { Codec::Zstd } else { Codec::Raw };
        let PlainFrame { kind, bytes, lens, ids } = plain;
        Ok((EncodedFrame::plain(codec, kind, payload, lens, ids), bytes))
    }

    /// Compresses a frame against its bases, decodes it again and compares. `None` where that is not
    /// clearly smaller than the frame alone, and so not worth resting on others.
    ///
    /// # Errors
    /// As [`Compressor::encode`].
    pub fn delta(&mut self, plain: &PlainFrame, bases: &Bases) -> Result<Option<EncodedFrame>> {
        let failed = |why: String| {
            let (len, on) = (plain.bytes.len(), bases.plain.len());
            Error::Invalid(format!("zstd failed on a frame of {len} bytes against {on}: {why}"))
        };
        let zstd = |code| failed(zstd_safe::get_error_name(code).to_owned());
        self.packed.clear();
        // A context cannot outlive the prefix that it looks at; a small one costs some microseconds.
        let mut context = CCtx::create();
        context.set_parameter(CParameter::CompressionLevel(DELTA_LEVEL)).map_err(zstd)?;
        let window = (bases.plain.len() + plain.bytes.len()).max(1).ilog2() + 1;
        context.set_parameter(CParameter::WindowLog(window.max(WINDOW_LOG_MIN))).map_err(zstd)?;
        context.ref_prefix(&bases.plain).map_err(zstd)?;
        context.compress2(&mut self.packed, &plain.bytes).map_err(zstd)?;
        if !self.is_worth_it(plain, bases).map_err(failed)? {
            return Ok(None);
        }
        let decoded = self.check.delta(&self.packed, plain.bytes.len(), &bases.plain).map_err(|e| failed(e.0))?;
        if decoded != plain.bytes {
            return Err(failed("what it packed decodes to something else".into()));
        }
        Ok(Some(EncodedFrame {
            codec: Codec::Zstd,
            kind: plain.kind,
            payload: with_room(&self.packed),
            depth: bases.depth + 1,
            bases: bases.ids.clone(),
            lens: plain.lens.clone(),
            ids: plain.ids.clone(),
        }))
    }

    /// True if the delta in `packed` saves enough against the frame alone.
    fn is_worth_it(&mut self, plain: &PlainFrame, bases: &Bases) -> Result<bool, String> {
        // What a frame of its own costs in the directory and in the index.
        let stored = self.packed.len() + FRAME_COST + 2 * BaseId::LEN * bases.ids.len();
        // Nothing that zstd packs to an eighth against old rows packs as well without them.
        if stored * 8 <= plain.bytes.len() {
            return Ok(true);
        }
        let alone = self.zstd.compress(&plain.bytes).map_err(|e| e.to_string())?.len().min(plain.bytes.len());
        Ok(stored * 4 <= alone * 3)
    }
}

/// A copy with room for the tag, so that sealing does not move the bytes.
fn with_room(packed: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(packed.len() + TAG_LEN);
    payload.extend_from_slice(packed);
    payload
}

/// A reused decompression context.
pub struct Decompressor {
    zstd: zstd::bulk::Decompressor<'static>,
    /// For delta frames: to make one takes as long as to decode a small frame.
    delta: Option<DCtx<'static>>,
    plain: Vec<u8>,
}

impl Decompressor {
    /// A context.
    ///
    /// # Errors
    /// [`Error::Invalid`] where memory is short.
    pub fn new() -> Result<Self> {
        let zstd = zstd::bulk::Decompressor::new().map_err(no_context)?;
        Ok(Self { zstd, delta: None, plain: Vec::new() })
    }

    fn zstd(&mut self, packed: &[u8], len: usize) -> Result<&[u8], Malformed> {
        one_frame(packed)?;
        self.plain.clear();
        self.plain.reserve(len);
        self.zstd.decompress_to_buffer(packed, &mut self.plain).map_err(|e| Malformed(format!("zstd: {e}")))?;
        if self.plain.len() != len {
            return Err(Malformed::new("decodes to another length"));
        }
        Ok(&self.plain)
    }

    fn delta(&mut self, packed: &[u8], len: usize, bases: &[u8]) -> Result<&[u8], Malformed> {
        let zstd = |code| Malformed(format!("zstd: {}", zstd_safe::get_error_name(code)));
        one_frame(packed)?;
        self.plain.clear();
        self.plain.reserve(len);
        if bases.starts_with(&zstd_safe::MAGIC_DICTIONARY.to_le_bytes()) {
            // A context that is used again would take these for a dictionary.
            let mut context = DCtx::create();
            context.ref_prefix(bases).map_err(zstd)?;
            context.decompress(&mut self.plain, packed).map_err(zstd)?;
        } else {
            let context = self.delta.get_or_insert_with(DCtx::create);
            context.decompress_using_dict(&mut self.plain, packed, bases).map_err(zstd)?;
        }
        if self.plain.len() != len {
            return Err(Malformed::new("decodes to another length"));
        }
        Ok(&self.plain)
    }

    /// The plaintext of an opened frame, whose bases have the plaintext `bases` (empty if it has none).
    /// Allocates no more than the directory's (bounded) length.
    ///
    /// # Errors
    /// If it does not decode to the length that the directory gives.
    pub fn decode<'a>(&'a mut self, frame: &Frame, payload: &'a [u8], bases: &[u8]) -> Result<&'a [u8], Malformed> {
        if frame.depth > 0 {
            return self.delta(payload, frame.plain_len(), bases);
        }
        match frame.codec {
            Codec::Raw if payload.len() == frame.plain_len() => Ok(payload),
            Codec::Raw => Err(Malformed::new("a raw frame of another length")),
            Codec::Zstd => self.zstd(payload, frame.plain_len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(bytes: &[u8]) -> PlainFrame {
        let mut frame = PlainFrame::new(BlobKind::Chunk);
        frame.push(BlobId([1; 32]), bytes);
        frame
    }

    fn directory_entry(e: &EncodedFrame) -> Frame {
        Frame {
            stored: e.payload.len() as u32 + 16,
            codec: e.codec,
            kind: e.kind,
            depth: e.depth,
            bases: e.bases.clone(),
            lens: e.lens.clone(),
            ids: e.ids.clone(),
        }
    }

    #[test]
    fn a_frame_is_one_zstd_frame_and_nothing_else() {
        let mut c = Compressor::new(1).unwrap();
        let bytes = vec![7; 100_000];
        let (plain, _) = c.encode(frame(&bytes)).unwrap();
        let mut noise = vec![0; 10_000];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        let bases = Bases { ids: vec![BaseId([9; 16])], plain: noise.clone(), depth: 0 };
        let delta = c.delta(&frame(&noise), &bases).unwrap().unwrap();
        let skipped = [0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 7];
        let mut d = Decompressor::new().unwrap();
        for (encoded, bases) in [(&plain, &[][..]), (&delta, &noise)] {
            let entry = directory_entry(encoded);
            assert!(d.decode(&entry, &encoded.payload, bases).is_ok());
            for more in [&skipped[..], &[0], &zstd::bulk::compress(b"", 1).unwrap()] {
                assert!(d.decode(&entry, &[&encoded.payload[..], more].concat(), bases).is_err(), "{more:x?}");
                assert!(d.decode(&entry, &[more, &encoded.payload[..]].concat(), bases).is_err(), "{more:x?}");
            }
        }
    }

    #[test]
    fn there_and_back() {
        let mut c = Compressor::new(1).unwrap();
        let mut noise = vec![0; 10_000];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        for (bytes, codec) in [(vec![7; 100_000], Codec::Zstd), (noise, Codec::Raw), (Vec::new(), Codec::Raw)] {
            let (encoded, plain) = c.encode(frame(&bytes)).unwrap();
            assert_eq!((encoded.codec, &plain), (codec, &bytes));
            let mut d = Decompressor::new().unwrap();
            assert_eq!(d.decode(&directory_entry(&encoded), &encoded.payload, &[]).unwrap(), bytes);
        }
    }

    #[test]
    fn a_delta_is_read_with_its_bases_and_with_nothing_else() {
        let mut c = Compressor::new(1).unwrap();
        let mut old = vec![0; 200_000];
        blake3::Hasher::new().finalize_xof().fill(&mut old);
        let mut new = old[1000..].to_vec();
        new[5000] ^= 1;
        let mut bases = Bases { ids: vec![BaseId([7; 16])], plain: old, depth: 2 };
        let encoded = c.delta(&frame(&new), &bases).unwrap().unwrap();
        assert!(encoded.payload.len() < 100, "{}", encoded.payload.len());
        assert_eq!((encoded.depth, &encoded.bases), (3, &bases.ids));
        let mut d = Decompressor::new().unwrap();
        let entry = directory_entry(&encoded);
        assert_eq!(d.decode(&entry, &encoded.payload, &bases.plain).unwrap(), new);
        assert!(d.decode(&entry, &encoded.payload, &[]).is_err());
        bases.plain.truncate(150_000);
        assert!(d.decode(&entry, &encoded.payload, &bases.plain).map_or(true, |plain| plain != new));
        // What the bases do not help with is not worth resting on them.
        let mut other = vec![0; 50_000];
        blake3::Hasher::new_keyed(&[1; 32]).finalize_xof().fill(&mut other);
        assert!(c.delta(&frame(&other), &bases).unwrap().is_none());
    }

    #[test]
    fn a_base_that_begins_like_a_dictionary_is_taken_as_it_is() {
        let mut old = vec![0x37, 0xa4, 0x30, 0xec];
        old.extend((0..50_000u32).flat_map(u32::to_le_bytes));
        let bases = Bases { ids: vec![BaseId([7; 16])], plain: old.clone(), depth: 0 };
        let encoded = Compressor::new(1).unwrap().delta(&frame(&old), &bases).unwrap().unwrap();
        let mut d = Decompressor::new().unwrap();
        assert_eq!(d.decode(&directory_entry(&encoded), &encoded.payload, &old).unwrap(), old);
    }

    #[test]
    fn a_bomb_is_refused_without_its_allocation() {
        let (encoded, _) = Compressor::new(1).unwrap().encode(frame(&vec![0; 1_000_000])).unwrap();
        let mut d = Decompressor::new().unwrap();
        let mut entry = directory_entry(&encoded);
        entry.lens = vec![100];
        assert!(d.decode(&entry, &encoded.payload, &[]).is_err());
        assert!(d.plain.capacity() < 10_000);
    }
}
