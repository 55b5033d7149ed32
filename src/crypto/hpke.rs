//! Sealing a short secret to a public key: HPKE with X-Wing (ML-KEM-768 and
//! X25519 together), HKDF-SHA256 and ChaCha20-Poly1305, with or without a
//! pre-shared key.

use super::aead::KeyBytes;
use crate::error::{Error, Malformed, Result};
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::XWing;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, PskBundle, Serializable};
use std::sync::atomic::{AtomicUsize, Ordering};
use zeroize::Zeroizing;

const INFO: &[u8] = b"estrato 0 hpke";

/// A public key, checked.
#[derive(Clone)]
pub struct PublicKey(<XWing as Kem>::PublicKey);

/// A private key, and those that came before it: what was sealed to any of them is opened. Wiped when dropped.
pub struct PrivateKey {
    keys: Vec<<XWing as Kem>::PrivateKey>,
    /// Which opened something last: what lies together was mostly sealed to the same.
    last: AtomicUsize,
}

impl PublicKey {
    /// Reads a public key.
    ///
    /// # Errors
    /// If the bytes are none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        <XWing as Kem>::PublicKey::from_bytes(bytes)
            .map(Self)
            .map_err(|_| Malformed::new("not a public key of this suite"))
    }

    /// The key's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.to_bytes().to_vec()
    }
}

impl PrivateKey {
    /// Takes up a private key, and computes its public half.
    ///
    /// # Errors
    /// [`Error::Invalid`] never for 32 bytes that this suite made; kept because the library says so.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<(Self, PublicKey)> {
        let key = <XWing as Kem>::PrivateKey::from_bytes(bytes)
            .map_err(|_| Error::Invalid("not a private key of this suite".into()))?;
        let public = XWing::sk_to_pk(&key);
        Ok((Self { keys: vec![key], last: AtomicUsize::new(0) }, PublicKey(public)))
    }

    /// Takes up several: the first is the key, the others came before it. Computes their public halves.
    ///
    /// # Errors
    /// See [`PrivateKey::from_bytes`].
    pub fn from_all(all: &[[u8; 32]]) -> Result<(Self, Vec<PublicKey>)> {
        // It never grows: a copy would stay behind in the memory that was too small.
        let (mut keys, mut publics) = (Vec::with_capacity(all.len()), Vec::with_capacity(all.len()));
        for bytes in all {
            let key = <XWing as Kem>::PrivateKey::from_bytes(bytes)
                .map_err(|_| Error::Invalid("not a private key of this suite".into()))?;
            publics.push(PublicKey(XWing::sk_to_pk(&key)));
            keys.push(key);
        }
        Ok((Self { keys, last: AtomicUsize::new(0) }, publics))
    }
}

/// A key pair that follows from 32 secret bytes.
pub fn pair_from_seed(seed: &[u8; 32]) -> (KeyBytes, PublicKey) {
    let (private, public) = XWing::derive_keypair(seed);
    let mut bytes = Zeroizing::new([0; 32]);
    private.write_exact(&mut *bytes);
    (bytes, PublicKey(public))
}

/// A pre-shared key and the name that it goes by.
pub struct Psk<'a> {
    /// 32 secret bytes.
    pub key: &'a [u8; 32],
    /// Not secret.
    pub name: &'a [u8],
}

fn bundle<'a>(psk: &'a Psk<'a>) -> Result<PskBundle<'a>, Malformed> {
    PskBundle::new(psk.key, psk.name).map_err(|_| Malformed::new("a pre-shared key without a name"))
}

/// Seals `secret`; returns the encapsulated key and the sealed bytes.
///
/// # Errors
/// If the public key takes nothing.
pub fn seal(
    to: &PublicKey,
    psk: Option<&Psk<'_>>,
    secret: &[u8],
    aad: &[u8],
) -> Result<(Vec<u8>, Vec<u8>), Malformed> {
    let mode = match psk {
        Some(psk) => OpModeS::<XWing>::Psk(bundle(psk)?),
        None => OpModeS::Base,
    };
    let (encapsulated, sealed) =
        hpke::single_shot_seal::<ChaCha20Poly1305, HkdfSha256, XWing>(&mode, &to.0, INFO, secret, aad)
            .map_err(|_| Malformed::new("the public key takes no secret"))?;
    Ok((encapsulated.to_bytes().to_vec(), sealed))
}

/// Opens what was sealed to a private key.
///
/// # Errors
/// If it was not sealed to this key, with this pre-shared key and associated data.
pub fn open(
    key: &PrivateKey,
    psk: Option<&Psk<'_>>,
    encapsulated: &[u8],
    sealed: &[u8],
    aad: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Malformed> {
    let fails = || Malformed::new("does not open: changed, moved, or sealed to another key");
    let mode = match psk {
        Some(psk) => OpModeR::<XWing>::Psk(bundle(psk)?),
        None => OpModeR::Base,
    };
    let encapsulated = <XWing as Kem>::EncappedKey::from_bytes(encapsulated).map_err(|_| fails())?;
    // Decapsulation by a wrong key gives another secret, and the seal does not open: the next is tried.
    let last = key.last.load(Ordering::Relaxed);
    let others = (0..key.keys.len()).filter(|n| *n != last);
    for n in std::iter::once(last).chain(others) {
        let Some(private) = key.keys.get(n) else { continue };
        let opened = hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, XWing>(
            &mode,
            private,
            &encapsulated,
            INFO,
            sealed,
            aad,
        );
        if let Ok(plain) = opened {
            key.last.store(n, Ordering::Relaxed);
            return Ok(Zeroizing::new(plain));
        }
    }
    Err(fails())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_with_both_secrets_only() {
        let (private, public) = pair_from_seed(&[1; 32]);
        let (key, again) = PrivateKey::from_bytes(&private).unwrap();
        assert_eq!(again.to_bytes(), public.to_bytes());
        let psk = Psk { key: &[2; 32], name: b"tenant" };
        let (enc, sealed) = seal(&public, Some(&psk), b"data key", b"place").unwrap();
        assert_eq!((enc.len(), sealed.len()), (1120, 8 + 16));
        assert_eq!(&**open(&key, Some(&psk), &enc, &sealed, b"place").unwrap(), b"data key");
        let other = Psk { key: &[3; 32], name: b"tenant" };
        assert!(open(&key, Some(&other), &enc, &sealed, b"place").is_err());
        assert!(open(&key, None, &enc, &sealed, b"place").is_err());
        assert!(open(&key, Some(&psk), &enc, &sealed, b"elsewhere").is_err());
        let (stranger, _) = PrivateKey::from_bytes(&pair_from_seed(&[9; 32]).0).unwrap();
        assert!(open(&stranger, Some(&psk), &enc, &sealed, b"place").is_err());
        assert!(open(&key, Some(&psk), &enc[1..], &sealed, b"place").is_err());
    }

    #[test]
    fn what_was_sealed_to_a_former_key_opens_and_nothing_else() {
        let of = |n: u8| PrivateKey::from_bytes(&pair_from_seed(&[n; 32]).0).unwrap();
        let sealed_to = |n: u8| seal(&of(n).1, None, &[n], b"place").unwrap();
        let bytes = [1, 2, 3].map(|n| *pair_from_seed(&[n; 32]).0);
        let (key, publics) = PrivateKey::from_all(&bytes).unwrap();
        assert!(publics.iter().zip([1, 2, 3]).all(|(public, n)| public.to_bytes() == of(n).1.to_bytes()));
        for n in [3, 1, 2, 2, 3, 1] {
            let (enc, sealed) = sealed_to(n);
            assert_eq!(**open(&key, None, &enc, &sealed, b"place").unwrap(), [n]);
        }
        let (enc, sealed) = sealed_to(4);
        assert!(open(&key, None, &enc, &sealed, b"place").is_err());
        let (enc, sealed) = sealed_to(2);
        assert!(open(&of(1).0, None, &enc, &sealed, b"place").is_err(), "the key alone");
    }

    #[test]
    fn foreign_bytes_are_no_key() {
        assert!(PublicKey::from_bytes(&[1; 10]).is_err());
        assert!(PublicKey::from_bytes(&[0xff; 1216]).is_err());
    }
}
