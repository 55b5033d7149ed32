//! A frame's plaintext, compressed and back. Contexts are reused; every frame
//! is decoded again and compared before anyone relies on it.

use crate::error::{Error, Malformed, Result};
use crate::format::pack::{BlobKind, Codec, Frame};
use crate::id::BlobId;
use crate::limits;

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

    /// Adds a blob that fits.
    pub fn push(&mut self, id: BlobId, blob: &[u8]) {
        debug_assert!(self.fits(blob.len()), "a frame holds at most FRAME_PLAIN_MAX");
        if self.bytes.capacity() == 0 {
            self.bytes.reserve_exact(limits::FRAME_PLAIN_MAX);
        }
        self.bytes.extend_from_slice(blob);
        self.lens.push(blob.len() as u32);
        self.ids.push(id);
    }
}

/// A frame, ready to be sealed into a pack.
pub struct EncodedFrame {
    /// How `payload` holds the plaintext.
    pub codec: Codec,
    /// What the blobs are.
    pub kind: BlobKind,
    /// The bytes to seal.
    pub payload: Vec<u8>,
    /// Lengths of the blobs.
    pub lens: Vec<u32>,
    /// Ids of the blobs.
    pub ids: Vec<BlobId>,
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
            // Room for the tag, so that sealing does not move the bytes.
            let mut payload = Vec::with_capacity(self.packed.len() + 16);
            payload.extend_from_slice(&self.packed);
            payload
        } else {
            plain.bytes.clone()
        };
        let codec = if smaller { Codec::Zstd } else { Codec::Raw };
        let PlainFrame { kind, bytes, lens, ids } = plain;
        Ok((EncodedFrame { codec, kind, payload, lens, ids }, bytes))
    }
}

/// A reused decompression context.
pub struct Decompressor {
    zstd: zstd::bulk::Decompressor<'static>,
    plain: Vec<u8>,
}

impl Decompressor {
    /// A context.
    ///
    /// # Errors
    /// [`Error::Invalid`] where memory is short.
    pub fn new() -> Result<Self> {
        Ok(Self { zstd: zstd::bulk::Decompressor::new().map_err(no_context)?, plain: Vec::new() })
    }

    fn zstd(&mut self, packed: &[u8], len: usize) -> Result<&[u8], Malformed> {
        self.plain.clear();
        self.plain.reserve(len);
        self.zstd.decompress_to_buffer(packed, &mut self.plain).map_err(|e| Malformed(format!("zstd: {e}")))?;
        if self.plain.len() != len {
            return Err(Malformed::new("decodes to another length"));
        }
        Ok(&self.plain)
    }

    /// The plaintext of an opened frame. Allocates no more than the directory's (bounded) length.
    ///
    /// # Errors
    /// If it does not decode to the length that the directory gives, or is a delta frame.
    pub fn decode<'a>(&'a mut self, frame: &Frame, payload: &'a [u8]) -> Result<&'a [u8], Malformed> {
        if frame.depth > 0 {
            return Err(Malformed::new("a delta frame: this program does not read them"));
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
            depth: 0,
            bases: Vec::new(),
            lens: e.lens.clone(),
            ids: e.ids.clone(),
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
            assert_eq!(d.decode(&directory_entry(&encoded), &encoded.payload).unwrap(), bytes);
        }
    }

    #[test]
    fn a_bomb_is_refused_without_its_allocation() {
        let (encoded, _) = Compressor::new(1).unwrap().encode(frame(&vec![0; 1_000_000])).unwrap();
        let mut d = Decompressor::new().unwrap();
        let mut entry = directory_entry(&encoded);
        entry.lens = vec![100];
        assert!(d.decode(&entry, &encoded.payload).is_err());
        assert!(d.plain.capacity() < 10_000);
    }
}
