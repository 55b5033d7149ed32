//! Reading packs: a frame at a time by someone who knows the index, or a whole
//! pack by someone who knows nothing but the tenant's private key.

use super::codec::Decompressor;
use crate::crypto::aead::Sealer;
use crate::crypto::envelope::Realm;
use crate::crypto::hpke::PrivateKey;
use crate::error::{Malformed, Result};
use crate::format::header::{self, HASH_LEN, HEADER_LEN, Header, ObjectType, associated_data, ordinal};
use crate::format::pack::{Directory, FRAMES_AT, Frame, TRAILER_LEN, Trailer};
use crate::id::{PackName, TenantId};

/// A pack's data key, opened.
pub struct PackKey {
    header: Header,
    tenant: TenantId,
    sealer: Sealer,
}

fn label(name: &PackName) -> String {
    format!("pack {name}")
}

impl PackKey {
    /// Opens the key in the first [`FRAMES_AT`] bytes of a pack.
    ///
    /// # Errors
    /// [`crate::error::Error::Damaged`] or [`crate::error::Error::Newer`].
    pub fn open(realm: &Realm<'_>, key: &PrivateKey, name: &PackName, head: &[u8]) -> Result<Self> {
        let header = Header::decode(head, &label(name))?;
        let open = || -> Result<Self, Malformed> {
            if header.object != ObjectType::Pack {
                return Err(Malformed::new("it is no pack"));
            }
            let sealed = head
                .get(HEADER_LEN..FRAMES_AT as usize)
                .ok_or_else(|| Malformed::new("shorter than its sealed key"))?;
            let key = realm.open_data_key(header, None, key, sealed)?;
            Ok(Self { header, tenant: realm.tenant, sealer: Sealer::new(header.cipher, &key) })
        };
        open().map_err(|e| e.of(label(name)))
    }

    fn unseal<'a>(&self, ordinal: u64, sealed: &'a mut [u8]) -> Result<&'a mut [u8], Malformed> {
        let aad = associated_data(self.header, self.tenant, ordinal, None);
        self.sealer.open(ordinal, &aad, sealed)
    }

    /// The plaintext of frame `number`, whose bases have the plaintext `bases` (empty if it has none);
    /// its sealed bytes are opened in place.
    ///
    /// # Errors
    /// If the frame does not open or decode.
    pub fn frame<'a>(
        &self,
        number: u64,
        frame: &Frame,
        sealed: &'a mut [u8],
        bases: &[u8],
        decompressor: &'a mut Decompressor,
    ) -> Result<&'a [u8], Malformed> {
        decompressor.decode(frame, self.payload(number, sealed)?, bases)
    }

    /// What frame `number` holds, still compressed; its sealed bytes are opened in place.
    ///
    /// # Errors
    /// If the frame does not open.
    pub fn payload<'a>(&self, number: u64, sealed: &'a mut [u8]) -> Result<&'a [u8], Malformed> {
        self.unseal(number, sealed).map(|payload| &*payload)
    }
}

/// A pack that was read whole and whose hash is right.
pub struct WholePack {
    /// Its data key.
    pub key: PackKey,
    /// Its own directory, without ids.
    pub directory: Directory,
}

impl WholePack {
    /// Opens a pack from all its bytes.
    ///
    /// # Errors
    /// [`crate::error::Error::Damaged`] or [`crate::error::Error::Newer`].
    pub fn open(realm: &Realm<'_>, key: &PrivateKey, name: &PackName, bytes: &[u8]) -> Result<Self> {
        let damaged = |e: Malformed| e.of(label(name));
        let body = header::opened(bytes).map_err(damaged)?;
        if bytes.last_chunk::<HASH_LEN>() != Some(&name.0) {
            return Err(damaged(Malformed::new("it is another pack, under this one's name")));
        }
        let key = PackKey::open(realm, key, name, body)?;
        let directory = Self::directory(&key, body).map_err(damaged)?;
        Ok(Self { key, directory })
    }

    /// Opens a pack whose hash is wrong, as far as its key and its directory are what they were: each frame then
    /// opens by itself, or does not.
    ///
    /// # Errors
    /// See [`WholePack::open`].
    pub fn salvage(realm: &Realm<'_>, key: &PrivateKey, name: &PackName, bytes: &[u8]) -> Result<Self> {
        let damaged = |e: Malformed| e.of(label(name));
        let body = bytes.len().checked_sub(HASH_LEN).and_then(|end| bytes.get(..end));
        let body = body.ok_or_else(|| damaged(Malformed::new("shorter than its parts")))?;
        let key = PackKey::open(realm, key, name, body)?;
        let directory = Self::directory(&key, body).map_err(damaged)?;
        Ok(Self { key, directory })
    }

    fn directory(key: &PackKey, body: &[u8]) -> Result<Directory, Malformed> {
        let short = || Malformed::new("shorter than its parts");
        let at = body.len().checked_sub(TRAILER_LEN).ok_or_else(short)?;
        let (rest, trailer) = body.split_at(at);
        let mut trailer = trailer.to_vec();
        let trailer = Trailer::decode(key.unseal(ordinal::TRAILER, &mut trailer)?)?;
        let at =
            rest.len().checked_sub(usize::try_from(trailer.directory).unwrap_or(usize::MAX)).ok_or_else(short)?;
        let mut sealed = rest[at..].to_vec();
        let directory = Directory::decode(key.unseal(ordinal::DIRECTORY, &mut sealed)?)?;
        if directory.frames_end() + trailer.parity != at as u64 {
            return Err(Malformed::new("its frames and its directory do not meet"));
        }
        Ok(directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::derive::IdKeys;
    use crate::crypto::hpke::{self, PublicKey};
    use crate::format::header::Cipher;
    use crate::format::pack::{BlobKind, StorageClass};
    use crate::format::parity::Parity;
    use crate::id::BlobId;
    use crate::pack::{Compressor, FinishedPack, PackBuilder, PlainFrame};

    struct Tenant {
        keys: IdKeys,
        private: PrivateKey,
        public: PublicKey,
    }

    impl Tenant {
        fn new(n: u8) -> Self {
            let (private, public) = hpke::pair_from_seed(&[n; 32]);
            Self { keys: IdKeys::new(&[n; 32]), private: PrivateKey::from_bytes(&private).unwrap().0, public }
        }

        fn realm(&self) -> Realm<'_> {
            Realm { tenant: TenantId([1; 16]), keys: &self.keys }
        }

        fn pack(&self, cipher: Cipher) -> FinishedPack {
            self.pack_with(cipher, Parity::NONE)
        }

        fn pack_with(&self, cipher: Cipher, parity: Parity) -> FinishedPack {
            let builder = PackBuilder::new(&self.realm(), cipher, StorageClass::Data, &self.public).unwrap();
            let mut builder = builder.protected(parity);
            let mut compressor = Compressor::new(1).unwrap();
            for n in 0..3u8 {
                let mut frame = PlainFrame::new(BlobKind::Chunk);
                frame.push(BlobId([n; 32]), &vec![n; 5000]);
                frame.push(BlobId([n + 10; 32]), b"tail");
                builder.push(compressor.encode(frame).unwrap().0).unwrap();
            }
            builder.finish().unwrap()
        }
    }

    #[test]
    fn frames_come_back() {
        for cipher in [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
            let tenant = Tenant::new(1);
            let pack = tenant.pack(cipher);
            assert_eq!(pack.entry.size, pack.bytes.len() as u64);
            let whole = WholePack::open(&tenant.realm(), &tenant.private, &pack.entry.name, &pack.bytes).unwrap();
            let mut decompressor = Decompressor::new().unwrap();
            for (n, (at, frame)) in pack.entry.directory.offsets().enumerate() {
                assert_eq!(whole.directory.frames[n].lens, frame.lens);
                let mut sealed = pack.bytes[at as usize..][..frame.stored as usize].to_vec();
                let plain = whole.key.frame(n as u64, frame, &mut sealed, &[], &mut decompressor).unwrap();
                assert_eq!(plain, [&vec![n as u8; 5000][..], b"tail"].concat());
                let mut moved = pack.bytes[at as usize..][..frame.stored as usize].to_vec();
                assert!(whole.key.frame(n as u64 + 1, frame, &mut moved, &[], &mut decompressor).is_err());
            }
        }
    }

    /// Whoever knows nothing of parity finds the frames where the directory says, and the directory at the end.
    #[test]
    fn a_pack_with_parity_is_read_like_any_other_and_mended_without_its_key() {
        let tenant = Tenant::new(1);
        let parity = Parity::per_mille(300).unwrap();
        let (pack, bare) = (tenant.pack_with(Cipher::Aes256Gcm, parity), tenant.pack(Cipher::Aes256Gcm));
        assert!(pack.entry.size > bare.entry.size + 1000 && pack.entry.size == pack.bytes.len() as u64);
        let name = pack.entry.name;
        let whole = WholePack::open(&tenant.realm(), &tenant.private, &name, &pack.bytes).unwrap();
        let mut decompressor = Decompressor::new().unwrap();
        for (n, (at, frame)) in pack.entry.directory.offsets().enumerate() {
            let mut sealed = pack.bytes[at as usize..][..frame.stored as usize].to_vec();
            let plain = whole.key.frame(n as u64, frame, &mut sealed, &[], &mut decompressor).unwrap();
            assert_eq!(plain, [&vec![n as u8; 5000][..], b"tail"].concat());
        }
        for at in 0..pack.bytes.len() {
            let mut changed = pack.bytes.clone();
            changed[at] ^= 1;
            assert!(WholePack::open(&tenant.realm(), &tenant.private, &name, &changed).is_err(), "byte {at}");
            assert!(crate::pack::mend(&name, &[&changed]).unwrap().bytes == pack.bytes, "byte {at}");
        }
        assert!(crate::pack::mend(&bare.entry.name, &[&bare.bytes[1..]]).is_err());
    }

    #[test]
    fn every_bit_counts() {
        let tenant = Tenant::new(1);
        let pack = tenant.pack(Cipher::Aes256Gcm);
        for at in (0..pack.bytes.len()).step_by(7) {
            let mut changed = pack.bytes.clone();
            changed[at] ^= 1;
            assert!(WholePack::open(&tenant.realm(), &tenant.private, &pack.entry.name, &changed).is_err());
            assert!(WholePack::open(&tenant.realm(), &tenant.private, &pack.entry.name, &pack.bytes[..at]).is_err());
        }
        let other = tenant.pack(Cipher::Aes256Gcm);
        assert_ne!(other.entry.name, pack.entry.name, "the same frames make another pack each time");
        assert!(WholePack::open(&tenant.realm(), &tenant.private, &pack.entry.name, &other.bytes).is_err());
        let stranger = Tenant::new(2);
        assert!(WholePack::open(&stranger.realm(), &stranger.private, &pack.entry.name, &pack.bytes).is_err());
    }
}
