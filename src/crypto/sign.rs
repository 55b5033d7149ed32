//! Ed25519 signatures: who wrote a record, bound to the record's place.

use super::aead::KeyBytes;
use crate::error::Malformed;
use crate::format::header::ObjectType;
use crate::id::{SignerId, TenantId};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use zeroize::Zeroizing;

/// What a signature is about.
pub struct Place<'a> {
    /// The object's type.
    pub object: ObjectType,
    /// The tenant.
    pub tenant: TenantId,
    /// What makes this object's key fresh: its salt, or its encapsulated key.
    pub fresh: &'a [u8],
    /// The object's name, where it was chosen before the object was written.
    pub name: Option<&'a str>,
}

fn message(place: &Place<'_>, payload: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("estrato 0 signature");
    hasher.update(&[place.object as u8]);
    hasher.update(place.tenant.as_bytes());
    let name = place.name.unwrap_or_default().as_bytes();
    for part in [place.fresh, name, payload] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

/// A signing key. Wiped when dropped.
pub struct Signing(SigningKey);

impl Signing {
    /// The key that grows from this seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The public half.
    pub fn id(&self) -> SignerId {
        SignerId(self.0.verifying_key().to_bytes())
    }

    /// The seed, so that the key can be put into another slot.
    pub fn seed(&self) -> KeyBytes {
        Zeroizing::new(self.0.to_bytes())
    }

    /// Signs.
    pub fn sign(&self, place: &Place<'_>, payload: &[u8]) -> [u8; 64] {
        self.0.sign(&message(place, payload)).to_bytes()
    }
}

/// True if the coordinate of a point is written in the one way there is, below 2^255 - 19: a signer is known by its
/// bytes.
fn is_reduced(point: &[u8; 32]) -> bool {
    let [least, middle @ .., most] = point;
    *least < 0xed || most & 0x7f != 0x7f || middle.iter().any(|byte| *byte != 0xff)
}

/// Checks a signature.
///
/// # Errors
/// If it is not that signer's, or about something else.
pub fn verify(signer: &SignerId, signature: &[u8; 64], place: &Place<'_>, payload: &[u8]) -> Result<(), Malformed> {
    let key = VerifyingKey::from_bytes(&signer.0).ok().filter(|_| is_reduced(&signer.0));
    let key = key.ok_or_else(|| Malformed::new("its signer's key is none"))?;
    key.verify_strict(&message(place, payload), &Signature::from_bytes(signature))
        .map_err(|_| Malformed::new("its signature is wrong"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place<'a>(name: &'a str, fresh: &'a [u8]) -> Place<'a> {
        Place { object: ObjectType::Index, tenant: TenantId([1; 16]), fresh, name: Some(name) }
    }

    #[test]
    fn binds_everything() {
        let key = Signing::from_seed(&[1; 32]);
        let signature = key.sign(&place("a", b"s"), b"payload");
        assert!(verify(&key.id(), &signature, &place("a", b"s"), b"payload").is_ok());
        assert!(verify(&key.id(), &signature, &place("b", b"s"), b"payload").is_err());
        assert!(verify(&key.id(), &signature, &place("a", b"t"), b"payload").is_err());
        assert!(verify(&key.id(), &signature, &place("a", b"s"), b"other").is_err());
        let session = Place { object: ObjectType::Session, ..place("a", b"s") };
        assert!(verify(&key.id(), &signature, &session, b"payload").is_err());
        let other = Signing::from_seed(&[2; 32]).id();
        assert!(verify(&other, &signature, &place("a", b"s"), b"payload").is_err());
        assert!(verify(&SignerId([0xff; 32]), &signature, &place("a", b"s"), b"payload").is_err());
    }

    #[test]
    fn a_point_has_one_encoding() {
        let last = |least: u8| -> [u8; 32] { [&[least][..], &[0xff; 30], &[0x7f]].concat().try_into().unwrap() };
        let mut other = last(0xff);
        other[17] = 0xfe;
        for (point, good) in [
            (last(0xec), true),
            (last(0xed), false),
            (last(0xff), false),
            (other, true),
            ([0xff; 32], false),
            ([0; 32], true),
            (Signing::from_seed(&[1; 32]).id().0, true),
        ] {
            assert_eq!(is_reduced(&point), good, "{point:x?}");
        }
    }

    #[test]
    fn what_anybody_could_have_signed_is_no_signature() {
        // The neutral point signs everything by R = S = nothing.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let signature: [u8; 64] = [neutral, [0; 32]].concat().try_into().unwrap();
        assert!(verify(&SignerId(neutral), &signature, &place("a", b"s"), b"payload").is_err());
        // S and S plus the order of the group are one number, and the second is refused.
        let key = Signing::from_seed(&[1; 32]);
        let mut signature = key.sign(&place("a", b"s"), b"payload");
        let order = u128::from_le_bytes(*b"\xed\xd3\xf5\x5c\x1a\x63\x12\x58\xd6\x9c\xf7\xa2\xde\xf9\xde\x14");
        let (low, high) = signature[32..].split_at_mut(16);
        let (sum, carry) = u128::from_le_bytes(low.try_into().unwrap()).overflowing_add(order);
        let more = u128::from_le_bytes(high.try_into().unwrap()) + (1 << 124) + u128::from(carry);
        low.copy_from_slice(&sum.to_le_bytes());
        high.copy_from_slice(&more.to_le_bytes());
        assert!(verify(&key.id(), &signature, &place("a", b"s"), b"payload").is_err());
    }
}
