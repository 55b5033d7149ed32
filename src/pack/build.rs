//! A pack that grows in memory until it is closed.
//!
//! Its data key is fresh, so a pack that is built again, after a failed upload
//! or an answer that was lost, is another pack with another name.

use super::codec::EncodedFrame;
use super::parity;
use crate::crypto::aead::Sealer;
use crate::crypto::envelope::Realm;
use crate::crypto::hpke::PublicKey;
use crate::error::{Error, Result};
use crate::format::header::{self, Cipher, Header, ObjectType, associated_data, ordinal};
use crate::format::index::PackEntry;
use crate::format::pack::{Directory, Frame, StorageClass, TRAILER_LEN, Trailer};
use crate::format::parity::{Layout, Parity};
use crate::id::{PackName, TenantId};
use crate::limits;

/// A pack under construction.
pub struct PackBuilder {
    header: Header,
    tenant: TenantId,
    sealer: Sealer,
    bytes: Vec<u8>,
    directory: Directory,
    blobs: usize,
    target: usize,
    parity: Parity,
}

/// A pack that can be uploaded, and its entry for the index.
pub struct FinishedPack {
    /// The object.
    pub bytes: Vec<u8>,
    /// Its entry.
    pub entry: PackEntry,
}

impl PackBuilder {
    /// An empty pack with a fresh data key.
    ///
    /// # Errors
    /// Where the machine has no random bytes.
    pub fn new(realm: &Realm<'_>, cipher: Cipher, class: StorageClass, to: &PublicKey) -> Result<Self> {
        Self::within(Vec::new(), realm, cipher, class, to)
    }

    /// The same in the memory of a `buffer`, whatever it held.
    ///
    /// # Errors
    /// As [`PackBuilder::new`].
    pub fn within(
        mut buffer: Vec<u8>,
        realm: &Realm<'_>,
        cipher: Cipher,
        class: StorageClass,
        to: &PublicKey,
    ) -> Result<Self> {
        let header = Header { object: ObjectType::Pack, cipher };
        let (key, head) = realm.new_data_key(header, None, to)?;
        let target = match class {
            StorageClass::Data => limits::PACK_TARGET,
            StorageClass::Trees => limits::TREE_PACK_TARGET,
        };
        // Room for the frame that fills it and for the directory: a pack that grew by doubling would
        // take its size twice while it is copied. Pages that stay unused cost nothing.
        buffer.clear();
        buffer.reserve_exact(target + limits::FRAME_STORED_MAX + limits::DIRECTORY_MAX / 8);
        buffer.extend_from_slice(&header.encode());
        buffer.extend_from_slice(&head);
        Ok(Self {
            header,
            tenant: realm.tenant,
            sealer: Sealer::new(cipher, &key),
            bytes: buffer,
            directory: Directory { class, frames: Vec::new() },
            blobs: 0,
            target,
            parity: Parity::NONE,
        })
    }

    /// The same with so much parity.
    #[must_use]
    pub fn protected(mut self, parity: Parity) -> Self {
        self.parity = parity;
        // As above; marks and descriptors take no more than the directory's room.
        let shards = self.target / 1000 * usize::from(parity.number());
        let full = self.target + limits::FRAME_STORED_MAX + limits::DIRECTORY_MAX / 8 + shards;
        self.bytes.reserve_exact(full.saturating_sub(self.bytes.len()));
        self
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// True while no frame was added.
    pub fn is_empty(&self) -> bool {
        self.directory.frames.is_empty()
    }

    /// True if the pack should be closed rather than take another frame.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= self.target
            || self.directory.frames.len() >= limits::PACK_FRAMES_MAX
            || self.blobs + limits::FRAME_BLOBS_MAX > limits::PACK_BLOBS_MAX
    }

    /// Seals a frame, and adds it. Frame n uses nonce n.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a frame that no reader would take.
    pub fn push(&mut self, frame: EncodedFrame) -> Result<()> {
        let number = self.directory.frames.len() as u64;
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&frame.payload);
        let aad = associated_data(self.header, self.tenant, number, None);
        self.sealer.seal(number, &aad, &mut self.bytes, start);
        let stored = self.bytes.len() - start;
        if stored > limits::FRAME_STORED_MAX || frame.kind.class() != self.directory.class {
            return Err(Error::Invalid(format!("a frame of {stored} bytes does not fit into this pack")));
        }
        self.blobs += frame.lens.len();
        self.directory.frames.push(Frame {
            stored: stored as u32,
            codec: frame.codec,
            kind: frame.kind,
            depth: frame.depth,
            bases: frame.bases,
            lens: frame.lens,
            ids: frame.ids,
        });
        Ok(())
    }

    /// Closes the pack: parity, directory, trailer, hash.
    ///
    /// # Errors
    /// [`Error::Invalid`] if its parity cannot be computed.
    pub fn finish(mut self) -> Result<FinishedPack> {
        let mut directory = Vec::new();
        self.directory.write_to(&mut directory, false);
        self.seal(ordinal::DIRECTORY, &mut directory, 0);
        let (front, back) = (self.bytes.len() as u64, (directory.len() + TRAILER_LEN) as u64);
        // A pack that would be too large for any goes without.
        let layout = match self.parity.is_none() {
            true => None,
            false => Layout::choose(front, back, self.parity),
        };
        let parity = layout.map_or(0, |layout| layout.parity_len() as u64);
        let trailer = Trailer { directory: directory.len() as u64, parity };
        let (start, mut back) = (directory.len(), directory);
        back.extend_from_slice(&trailer.encode());
        self.seal(ordinal::TRAILER, &mut back, start);
        if let Some(layout) = layout {
            parity::append(layout, &mut self.bytes, &back)?;
        }
        self.bytes.extend_from_slice(&back);
        let name = PackName(header::close(&mut self.bytes));
        let entry = PackEntry { name, size: self.bytes.len() as u64, directory: self.directory };
        Ok(FinishedPack { bytes: self.bytes, entry })
    }

    fn seal(&self, ordinal: u64, bytes: &mut Vec<u8>, start: usize) {
        let aad = associated_data(self.header, self.tenant, ordinal, None);
        self.sealer.seal(ordinal, &aad, bytes, start);
    }
}
