//! One key, one cipher, many messages: each under a nonce that counts, and
//! bound to its place by associated data. A key is fresh for every object and
//! every attempt to write it, so no nonce repeats under a key.

use crate::error::Malformed;
use crate::format::header::Cipher;
use crate::format::pack::TAG_LEN;
use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{AeadInOut, KeyInit, Nonce, Tag, inout::InOutBuf};
use chacha20poly1305::ChaCha20Poly1305;
use zeroize::Zeroizing;

enum State {
    Aes(Box<Aes256Gcm>),
    ChaCha(Box<ChaCha20Poly1305>),
}

/// A key, ready to seal and open. Wiped when dropped.
pub struct Sealer {
    state: State,
}

/// A key's 32 bytes, wiped when dropped.
pub type KeyBytes = Zeroizing<[u8; 32]>;

/// The cipher for new tenants on this machine: AES where the processor has instructions for it.
pub fn preferred() -> Cipher {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    let has_aes = std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    let has_aes = std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    let has_aes = false;
    if has_aes { Cipher::Aes256Gcm } else { Cipher::ChaCha20Poly1305 }
}

fn nonce(ordinal: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&ordinal.to_le_bytes());
    nonce
}

impl Sealer {
    /// Takes up a key.
    pub fn new(cipher: Cipher, key: &[u8; 32]) -> Self {
        let state = match cipher {
            Cipher::Aes256Gcm => State::Aes(Box::new(Aes256Gcm::new(key.into()))),
            Cipher::ChaCha20Poly1305 => State::ChaCha(Box::new(ChaCha20Poly1305::new(key.into()))),
        };
        Self { state }
    }

    /// Seals what stands in `buffer` from `start` on, in place, and appends the tag.
    /// Each ordinal is used once in a key's life.
    pub fn seal(&self, ordinal: u64, aad: &[u8], buffer: &mut Vec<u8>, start: usize) {
        let nonce = nonce(ordinal);
        let message = InOutBuf::from(&mut buffer[start..]);
        let tag: Result<[u8; TAG_LEN], _> = match &self.state {
            State::Aes(c) => c.encrypt_inout_detached(&Nonce::<Aes256Gcm>::from(nonce), aad, message).map(Into::into),
            State::ChaCha(c) => {
                c.encrypt_inout_detached(&Nonce::<ChaCha20Poly1305>::from(nonce), aad, message).map(Into::into)
            }
        };
        match tag {
            Ok(tag) => buffer.extend_from_slice(&tag),
            // Both ciphers take messages of at least 64 GiB; `limits` keeps ours a thousandfold below.
            Err(_) => unreachable!("a message longer than the cipher takes"),
        }
    }

    /// Opens a message in place; what is returned is its plaintext.
    ///
    /// # Errors
    /// If the message is not what was sealed under this key, ordinal and associated data.
    pub fn open<'a>(&self, ordinal: u64, aad: &[u8], sealed: &'a mut [u8]) -> Result<&'a mut [u8], Malformed> {
        let (message, tag) = sealed
            .split_last_chunk_mut::<TAG_LEN>()
            .ok_or_else(|| Malformed::new("a sealed message shorter than its tag"))?;
        let nonce = nonce(ordinal);
        let opened = match &self.state {
            State::Aes(c) => c.decrypt_inout_detached(
                &Nonce::<Aes256Gcm>::from(nonce),
                aad,
                InOutBuf::from(&mut *message),
                &Tag::<Aes256Gcm>::from(*tag),
            ),
            State::ChaCha(c) => c.decrypt_inout_detached(
                &Nonce::<ChaCha20Poly1305>::from(nonce),
                aad,
                InOutBuf::from(&mut *message),
                &Tag::<ChaCha20Poly1305>::from(*tag),
            ),
        };
        opened.map_err(|_| Malformed::new("does not open: changed, moved, or sealed under another key"))?;
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_at_its_place() {
        for cipher in [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
            let sealer = Sealer::new(cipher, &[7; 32]);
            let mut message = b"head:secret".to_vec();
            sealer.seal(3, b"place", &mut message, 5);
            assert_eq!(&message[..5], b"head:");
            assert!(!message.windows(6).any(|w| w == b"secret"));
            let sealed = message[5..].to_vec();
            assert_eq!(sealer.open(3, b"place", &mut sealed.clone()).unwrap(), b"secret");
            assert!(sealer.open(4, b"place", &mut sealed.clone()).is_err());
            assert!(sealer.open(3, b"other", &mut sealed.clone()).is_err());
            assert!(Sealer::new(cipher, &[8; 32]).open(3, b"place", &mut sealed.clone()).is_err());
            for at in 0..sealed.len() {
                let mut changed = sealed.clone();
                changed[at] ^= 1;
                assert!(sealer.open(3, b"place", &mut changed).is_err());
            }
            assert!(sealer.open(3, b"place", &mut [0; 15]).is_err());
        }
    }
}
