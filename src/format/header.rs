//! The eight bytes that every binary object begins with, the hash that it ends
//! in, and the associated data that binds a sealed message to its place.

use super::FORMAT;
use crate::error::{Error, Malformed, Result};
use crate::id::TenantId;

/// The first four bytes of every binary object.
pub const MAGIC: [u8; 4] = *b"estr";
/// Length of the header.
pub const HEADER_LEN: usize = 8;
/// Length of the closing hash.
pub const HASH_LEN: usize = 32;

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ObjectType {
    /// Frames and their directory.
    Pack = 1,
    /// Where blobs lie.
    Index = 2,
    /// A snapshot's manifest.
    Snapshot = 3,
    /// A running backup.
    Session = 4,
    /// Who may sign.
    Signers = 5,
    /// A tenant's secrets, under one key.
    Slot = 6,
    /// A tenant's public record.
    Tenant = 7,
    /// What a prune will delete.
    Plan = 8,
    /// A snapshot that must not come to be, or is no more.
    Tombstone = 9,
    /// Packs that checks have found damaged.
    Damage = 10,
    /// A hold that keeps a snapshot from being forgotten.
    Hold = 11,
    /// Which snapshots were forgotten.
    Forgotten = 12,
}

impl ObjectType {
    fn from_byte(byte: u8) -> Option<Self> {
        use ObjectType::*;
        [Pack, Index, Snapshot, Session, Signers, Slot, Tenant, Plan, Tombstone, Damage, Hold, Forgotten]
            .into_iter()
            .find(|t| *t as u8 == byte)
    }
}

/// The AEAD that seals an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[repr(u8)]
pub enum Cipher {
    /// AES-256-GCM.
    #[serde(rename = "aes-256-gcm")]
    Aes256Gcm = 1,
    /// ChaCha20-Poly1305.
    #[serde(rename = "chacha20-poly1305")]
    ChaCha20Poly1305 = 2,
}

impl Cipher {
    /// The cipher of this number.
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Aes256Gcm),
            2 => Some(Self::ChaCha20Poly1305),
            _ => None,
        }
    }

    /// Its name, as people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "aes-256-gcm",
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
        }
    }
}

/// An object's first eight bytes: magic, format, type, cipher, zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the object is.
    pub object: ObjectType,
    /// What seals it.
    pub cipher: Cipher,
}

impl Header {
    /// The bytes.
    pub fn encode(self) -> [u8; HEADER_LEN] {
        let [a, b, c, d] = MAGIC;
        [a, b, c, d, FORMAT, self.object as u8, self.cipher as u8, 0]
    }

    /// Reads the header of the object called `name`.
    ///
    /// # Errors
    /// [`Error::Newer`] for a newer format, [`Error::Damaged`] for anything that is no header.
    pub fn decode(bytes: &[u8], name: &str) -> Result<Self> {
        let Some(&[a, b, c, d, format, object, cipher, flags]) = bytes.first_chunk::<HEADER_LEN>() else {
            return Err(Error::damaged(name, "shorter than a header"));
        };
        if [a, b, c, d] != MAGIC {
            return Err(Error::damaged(name, "does not begin as an Estrato object"));
        }
        if format > FORMAT {
            return Err(Error::Newer { object: name.into(), found: format.into(), known: FORMAT.into() });
        }
        match (ObjectType::from_byte(object), Cipher::from_byte(cipher), flags) {
            (Some(object), Some(cipher), 0) => Ok(Self { object, cipher }),
            _ => Err(Error::damaged(name, "its header names an unknown type, cipher or flag")),
        }
    }
}

impl Header {
    /// Reads the header of a whole object. Only one whose hash is right can be newer: in any other
    /// that byte is as likely to be wrong as the rest.
    ///
    /// # Errors
    /// As [`Header::decode`].
    pub fn of_whole(bytes: &[u8], name: &str) -> Result<Self> {
        match Self::decode(bytes, name) {
            Err(newer @ Error::Newer { .. }) => Err(opened(bytes).map_or_else(|e| e.of(name), |_| newer)),
            other => other,
        }
    }
}

/// Appends the hash that closes an object, and returns it.
pub fn close(object: &mut Vec<u8>) -> [u8; HASH_LEN] {
    let hash = *blake3::hash(object).as_bytes();
    object.extend_from_slice(&hash);
    hash
}

/// What an object holds before its closing hash, if that hash is right.
pub fn opened(object: &[u8]) -> Result<&[u8], Malformed> {
    let (body, hash) =
        object.split_last_chunk::<HASH_LEN>().ok_or_else(|| Malformed::new("shorter than its closing hash"))?;
    if blake3::hash(body).as_bytes() != hash {
        return Err(Malformed::new("its closing hash does not match: bytes were changed or lost"));
    }
    Ok(body)
}

/// Ordinals of sealed messages that are not frames; frames count up from 0.
pub mod ordinal {
    /// The only message of a record.
    pub const RECORD: u64 = 0;
    /// Private keys that came later than a recipient's slot, in it.
    pub const LATER_KEYS: u64 = 1;
    /// A pack's directory.
    pub const DIRECTORY: u64 = u64::MAX;
    /// A pack's trailer.
    pub const TRAILER: u64 = u64::MAX - 1;
    /// The envelope that seals a data key.
    pub const DATA_KEY: u64 = u64::MAX - 2;
}

/// The associated data of one sealed message.
///
/// `"estrato"`, format, type, cipher, tenant id, ordinal (little endian), and
/// the object's name where it was chosen before the object was written.
pub fn associated_data(header: Header, tenant: TenantId, ordinal: u64, name: Option<&str>) -> Vec<u8> {
    let mut aad = Vec::with_capacity(64);
    aad.extend_from_slice(b"estrato");
    aad.extend_from_slice(&[FORMAT, header.object as u8, header.cipher as u8]);
    aad.extend_from_slice(tenant.as_bytes());
    aad.extend_from_slice(&ordinal.to_le_bytes());
    aad.extend_from_slice(name.unwrap_or_default().as_bytes());
    aad
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header { object: ObjectType::Pack, cipher: Cipher::Aes256Gcm };

    #[test]
    fn every_type_and_cipher_has_its_number() {
        use ObjectType::*;
        let types = [Pack, Index, Snapshot, Session, Signers, Slot, Tenant, Plan, Tombstone, Damage, Hold, Forgotten];
        for (number, object) in (1..).zip(types) {
            for (cipher, byte) in [(Cipher::Aes256Gcm, 1), (Cipher::ChaCha20Poly1305, 2)] {
                let header = Header { object, cipher };
                assert_eq!(header.encode(), [b'e', b's', b't', b'r', 0, number, byte, 0]);
                assert_eq!(Header::decode(&header.encode(), "x").unwrap(), header);
            }
        }
        for (at, byte) in [(5, 0), (5, 13), (6, 0), (6, 3), (7, 1)] {
            let mut bytes = HEADER.encode();
            bytes[at] = byte;
            assert!(matches!(Header::decode(&bytes, "x"), Err(Error::Damaged { .. })), "byte {at} is {byte}");
        }
    }

    #[test]
    fn ciphers_are_called_by_their_usual_names() {
        assert_eq!(Cipher::Aes256Gcm.name(), "aes-256-gcm");
        assert_eq!(Cipher::ChaCha20Poly1305.name(), "chacha20-poly1305");
    }

    #[test]
    fn ordinals_beside_frames_count_down_from_the_last() {
        assert_eq!(ordinal::RECORD, 0);
        assert_eq!([ordinal::DIRECTORY, ordinal::TRAILER, ordinal::DATA_KEY].map(|n| n.wrapping_neg()), [1, 2, 3]);
    }

    #[test]
    fn associated_data_binds_type_cipher_tenant_ordinal_and_name() {
        let header = Header { object: ObjectType::Slot, cipher: Cipher::ChaCha20Poly1305 };
        let expected = [&b"estrato"[..], &[0, 6, 2], &[9; 16], &[2, 1, 0, 0, 0, 0, 0, 0], b"name"].concat();
        assert_eq!(associated_data(header, TenantId([9; 16]), 0x0102, Some("name")), expected);
        assert_eq!(associated_data(header, TenantId([9; 16]), 0x0102, None), expected[..34]);
    }

    #[test]
    fn header_and_back() {
        assert_eq!(Header::decode(&HEADER.encode(), "x").unwrap(), HEADER);
    }

    #[test]
    fn a_newer_format_is_said_to_be_newer() {
        let mut bytes = HEADER.encode();
        bytes[4] = FORMAT + 1;
        assert!(matches!(Header::decode(&bytes, "x"), Err(Error::Newer { found: 1, known: 0, .. })));
        // A bit that flipped makes nothing newer.
        let mut whole = bytes.to_vec();
        close(&mut whole);
        assert!(matches!(Header::of_whole(&whole, "x"), Err(Error::Newer { .. })));
        whole[5] ^= 1;
        assert!(matches!(Header::of_whole(&whole, "x"), Err(Error::Damaged { .. })));
    }

    #[test]
    fn every_other_byte_counts() {
        for at in [0, 3, 5, 6, 7] {
            let mut bytes = HEADER.encode();
            bytes[at] ^= 0x40;
            assert!(matches!(Header::decode(&bytes, "x"), Err(Error::Damaged { .. })), "byte {at}");
        }
        assert!(Header::decode(&[], "x").is_err());
    }

    #[test]
    fn closing_hash() {
        let mut object = b"body".to_vec();
        close(&mut object);
        assert_eq!(opened(&object).unwrap(), b"body");
        object[0] ^= 1;
        assert!(opened(&object).is_err());
        assert!(opened(b"short").is_err());
    }
}
