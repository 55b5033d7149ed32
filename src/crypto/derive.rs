//! The keys that follow from a tenant's id key, one for each use, and the
//! hashes that name blobs.

use super::aead::KeyBytes;
use crate::format::pack::BlobKind;
use crate::id::BlobId;
use zeroize::Zeroizing;

/// Derives a key for the use that `context` names.
pub fn subkey(context: &str, key: &[u8]) -> KeyBytes {
    Zeroizing::new(blake3::derive_key(context, key))
}

/// What every key of a tenant can compute: blob ids, cuts, shared records.
pub struct IdKeys {
    chunk: KeyBytes,
    tree: KeyBytes,
    list: KeyBytes,
    /// Seeds the chunker's table.
    pub gear: KeyBytes,
    /// Seals what all keys of the tenant read: index objects, sessions, the signers.
    pub shared: KeyBytes,
    /// The pre-shared key of HPKE.
    pub psk: KeyBytes,
    /// Names in the local state.
    pub state: KeyBytes,
}

impl IdKeys {
    /// All of them.
    pub fn new(id_key: &[u8; 32]) -> Self {
        Self {
            chunk: subkey("estrato 0 chunk id", id_key),
            tree: subkey("estrato 0 tree id", id_key),
            list: subkey("estrato 0 list id", id_key),
            gear: subkey("estrato 0 gear table", id_key),
            shared: subkey("estrato 0 shared record", id_key),
            psk: subkey("estrato 0 hpke psk", id_key),
            state: subkey("estrato 0 local state", id_key),
        }
    }

    /// The id of a blob.
    pub fn blob_id(&self, kind: BlobKind, plaintext: &[u8]) -> BlobId {
        let key = match kind {
            BlobKind::Chunk => &self.chunk,
            BlobKind::Tree => &self.tree,
            BlobKind::List => &self.list,
        };
        BlobId(*blake3::keyed_hash(key, plaintext).as_bytes())
    }

    /// A name in the local state: tells nothing to whoever lacks the id key.
    pub fn state_name(&self, parts: &[&[u8]]) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_keyed(&self.state);
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let mut out = [0; 16];
        hasher.finalize_xof().fill(&mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_never_share_an_id() {
        let keys = IdKeys::new(&[1; 32]);
        let ids = [BlobKind::Chunk, BlobKind::Tree, BlobKind::List].map(|k| keys.blob_id(k, b"x"));
        assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
        assert_ne!(ids[0], IdKeys::new(&[2; 32]).blob_id(BlobKind::Chunk, b"x"));
    }

    #[test]
    fn state_names_keep_parts_apart() {
        let keys = IdKeys::new(&[1; 32]);
        assert_ne!(keys.state_name(&[b"ab", b"c"]), keys.state_name(&[b"a", b"bc"]));
    }
}
