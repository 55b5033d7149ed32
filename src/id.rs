//! Names that are bytes: typed, so that one kind cannot stand for another,
//! and printed as lower-case hexadecimal. Nothing here hashes or looks up.

use std::fmt;

/// An id whose text is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an id of {expected} hexadecimal digits")]
pub struct BadId {
    /// Digits that this kind of id has.
    pub expected: usize,
}

fn digit(c: u8) -> Option<u8> {
    match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    }
}

/// Bytes as lower-case hexadecimal.
pub fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(bytes.len() * 2);
    for b in bytes {
        out.push(char::from(DIGITS[usize::from(b >> 4)]));
        out.push(char::from(DIGITS[usize::from(b & 15)]));
    }
    out
}

/// Lower-case hexadecimal as bytes; `None` where it is not that, or another length.
pub fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let text = text.as_bytes();
    if text.len() != N * 2 {
        return None;
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// The id whose bytes these are; `None` for another length.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// The id as bytes.
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }

            /// The first eight digits: enough for a person to tell ids apart.
            pub fn short(&self) -> String {
                to_hex(&self.0[..4])
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&to_hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), to_hex(&self.0))
            }
        }

        impl std::str::FromStr for $name {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                from_hex(text).map(Self).ok_or(BadId { expected: $len * 2 })
            }
        }
    };
}

id!(
    /// A blob: the keyed hash of its plaintext.
    BlobId,
    32
);
id!(
    /// A blob on which others rest: the first half of its id. Blobs of one tenant that share it would
    /// take 2^64 hashes to find, with the tenant's keys; whoever takes one for the other notices, since
    /// what rests on it hashes to something else.
    BaseId,
    16
);
id!(
    /// A pack: the BLAKE3 hash of the object's bytes.
    PackName,
    32
);
id!(
    /// An index object: the BLAKE3 hash of its bytes.
    IndexName,
    32
);
id!(
    /// A snapshot, and the session that announced it: random.
    SnapshotId,
    16
);
id!(
    /// A record of what was forgotten: random.
    ForgottenId,
    16
);
id!(
    /// A repository: random.
    RepositoryId,
    16
);
id!(
    /// A tenant: random, so that a tenant made anew under an old name is another one.
    TenantId,
    16
);
id!(
    /// A key slot: derived from the key that opens it.
    SlotId,
    16
);
id!(
    /// Who signed: an Ed25519 public key.
    SignerId,
    32
);

impl BlobId {
    /// The name under which other blobs rest on it.
    pub fn base(&self) -> BaseId {
        let mut half = [0; BaseId::LEN];
        half.copy_from_slice(&self.0[..BaseId::LEN]);
        BaseId(half)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let id = SlotId([0xab; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.short(), "abababab");
    }

    #[test]
    fn refuses_other_text() {
        for bad in ["", "ab", "AB".repeat(16).as_str(), "zz".repeat(16).as_str(), "é".repeat(16).as_str()] {
            assert_eq!(bad.parse::<SlotId>(), Err(BadId { expected: 32 }));
        }
    }
}
