//! Whole objects, sealed and signed.
//!
//! A *shared* record (index, session, signers, plan, tombstone) is sealed under
//! a key that every key of the tenant can derive. A *private* one (a snapshot)
//! has a data key of its own that only the tenant's private key opens. Both
//! hold, sealed: signer, signature, payload. Who may sign what is decided by
//! the caller, who knows the signers.

use super::aead::{KeyBytes, Sealer};
use super::derive::IdKeys;
use super::hpke::{self, PrivateKey, Psk, PublicKey};
use super::random;
use super::sign::{self, Place, Signing};
use crate::error::{Error, Malformed, Result};
use crate::format::header::{self, Cipher, HEADER_LEN, Header, ObjectType, associated_data, ordinal};
use crate::format::key::Signed;
use crate::format::names::within_tenant;
use crate::format::pack::SEALED_KEY_LEN;
use crate::id::{SignerId, TenantId};
use zeroize::Zeroizing;

const SALT_LEN: usize = 32;
const ENCAPSULATED_LEN: usize = 1120;

/// A tenant as its envelopes need it.
pub struct Realm<'a> {
    /// The tenant.
    pub tenant: TenantId,
    /// The keys that every key of the tenant derives.
    pub keys: &'a IdKeys,
}

/// A record that opened: who signed it, and what it says.
pub struct Opened {
    /// The signer; the signature is verified.
    pub signer: SignerId,
    /// The record.
    pub payload: Vec<u8>,
}

fn signed(signing: &Signing, place: &Place<'_>, payload: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(Signed::OVERHEAD + payload.len() + 64);
    plain.extend_from_slice(signing.id().as_bytes());
    plain.extend_from_slice(&signing.sign(place, payload));
    plain.extend_from_slice(payload);
    plain
}

fn verified(plain: &[u8], place: &Place<'_>) -> Result<Opened, Malformed> {
    let signed = Signed::decode(plain)?;
    sign::verify(&signed.signer, &signed.signature, place, signed.payload)?;
    Ok(Opened { signer: signed.signer, payload: signed.payload.to_vec() })
}

fn expect(bytes: &[u8], object: ObjectType, name: &str) -> Result<Header> {
    let header = Header::of_whole(bytes, name)?;
    if header.object != object {
        return Err(Error::damaged(name, format!("it is a {:?}, not a {object:?}", header.object)));
    }
    Ok(header)
}

impl Realm<'_> {
    /// Seals a shared record. `name` where it was chosen before the object was written; what the object is bound
    /// to is its name within the tenant's folder, here as everywhere.
    ///
    /// # Errors
    /// Where the machine has no random bytes.
    pub fn seal_shared(
        &self,
        header: Header,
        name: Option<&str>,
        signing: &Signing,
        payload: &[u8],
    ) -> Result<Vec<u8>> {
        let name = name.map(within_tenant);
        let salt: [u8; SALT_LEN] = random::bytes()?;
        let place = Place { object: header.object, tenant: self.tenant, fresh: &salt, name };
        let plain = signed(signing, &place, payload);
        let mut out = Vec::with_capacity(HEADER_LEN + SALT_LEN + plain.len() + 64);
        out.extend_from_slice(&header.encode());
        out.extend_from_slice(&salt);
        let start = out.len();
        out.extend_from_slice(&plain);
        self.shared_sealer(header.cipher, &salt).seal(
            ordinal::RECORD,
            &associated_data(header, self.tenant, ordinal::RECORD, name),
            &mut out,
            start,
        );
        header::close(&mut out);
        Ok(out)
    }

    fn shared_sealer(&self, cipher: Cipher, salt: &[u8; SALT_LEN]) -> Sealer {
        let key: KeyBytes = Zeroizing::new(*blake3::keyed_hash(&self.keys.shared, salt).as_bytes());
        Sealer::new(cipher, &key)
    }

    /// Opens a shared record of the given type. `label` names it in errors, `name` is what it is bound to.
    ///
    /// # Errors
    /// [`Error::Damaged`] or [`Error::Newer`].
    pub fn open_shared(&self, object: ObjectType, name: Option<&str>, label: &str, bytes: &[u8]) -> Result<Opened> {
        let header = expect(bytes, object, label)?;
        let name = name.map(within_tenant);
        let open = || -> Result<Opened, Malformed> {
            let body = header::opened(bytes)?;
            let body = body.get(HEADER_LEN..).unwrap_or_default();
            let (salt, sealed) =
                body.split_first_chunk::<SALT_LEN>().ok_or_else(|| Malformed::new("shorter than its salt"))?;
            let mut sealed = sealed.to_vec();
            let aad = associated_data(header, self.tenant, ordinal::RECORD, name);
            let plain = self.shared_sealer(header.cipher, salt).open(ordinal::RECORD, &aad, &mut sealed)?;
            verified(plain, &Place { object, tenant: self.tenant, fresh: salt, name })
        };
        open().map_err(|e| e.of(label))
    }

    /// A fresh data key, and its sealed form for the head of the object.
    ///
    /// # Errors
    /// Where the machine has no random bytes, or the public key takes nothing.
    pub fn new_data_key(&self, header: Header, name: Option<&str>, to: &PublicKey) -> Result<(KeyBytes, Vec<u8>)> {
        let key: KeyBytes = Zeroizing::new(random::bytes()?);
        let aad = associated_data(header, self.tenant, ordinal::DATA_KEY, name.map(within_tenant));
        let (mut head, sealed) =
            hpke::seal(to, Some(&self.psk()), &*key, &aad).map_err(|e| e.of("the tenant's public key"))?;
        head.extend_from_slice(&sealed);
        debug_assert_eq!(head.len(), SEALED_KEY_LEN);
        Ok((key, head))
    }

    fn psk(&self) -> Psk<'_> {
        Psk { key: &self.keys.psk, name: self.tenant.as_bytes() }
    }

    /// Opens a data key from its sealed form.
    ///
    /// # Errors
    /// If it was not sealed to this tenant, by someone who knows the id key.
    pub fn open_data_key(
        &self,
        header: Header,
        name: Option<&str>,
        key: &PrivateKey,
        head: &[u8],
    ) -> Result<KeyBytes, Malformed> {
        let (encapsulated, sealed) =
            head.split_at_checked(ENCAPSULATED_LEN).ok_or_else(|| Malformed::new("a sealed key cut short"))?;
        let aad = associated_data(header, self.tenant, ordinal::DATA_KEY, name.map(within_tenant));
        let opened = hpke::open(key, Some(&self.psk()), encapsulated, sealed, &aad)?;
        let key: [u8; 32] =
            opened.as_slice().try_into().map_err(|_| Malformed::new("a data key of another length"))?;
        Ok(Zeroizing::new(key))
    }

    /// Seals a private record under a data key of its own.
    ///
    /// # Errors
    /// As [`Realm::new_data_key`].
    pub fn seal_private(
        &self,
        header: Header,
        name: &str,
        signing: &Signing,
        to: &PublicKey,
        payload: &[u8],
    ) -> Result<Vec<u8>> {
        let name = within_tenant(name);
        let (key, head) = self.new_data_key(header, Some(name), to)?;
        let place = Place { object: header.object, tenant: self.tenant, fresh: &head, name: Some(name) };
        let plain = signed(signing, &place, payload);
        let mut out = Vec::with_capacity(HEADER_LEN + head.len() + plain.len() + 64);
        out.extend_from_slice(&header.encode());
        out.extend_from_slice(&head);
        let start = out.len();
        out.extend_from_slice(&plain);
        let aad = associated_data(header, self.tenant, ordinal::RECORD, Some(name));
        Sealer::new(header.cipher, &key).seal(ordinal::RECORD, &aad, &mut out, start);
        header::close(&mut out);
        Ok(out)
    }

    /// Opens a private record with the tenant's private key.
    ///
    /// # Errors
    /// [`Error::Damaged`] or [`Error::Newer`].
    pub fn open_private(&self, object: ObjectType, name: &str, key: &PrivateKey, bytes: &[u8]) -> Result<Opened> {
        let header = expect(bytes, object, name)?;
        let (label, name) = (name, within_tenant(name));
        let open = || -> Result<Opened, Malformed> {
            let body = header::opened(bytes)?;
            let body = body.get(HEADER_LEN..).unwrap_or_default();
            let (head, sealed) =
                body.split_at_checked(SEALED_KEY_LEN).ok_or_else(|| Malformed::new("shorter than its sealed key"))?;
            let data_key = self.open_data_key(header, Some(name), key, head)?;
            let mut sealed = sealed.to_vec();
            let aad = associated_data(header, self.tenant, ordinal::RECORD, Some(name));
            let plain = Sealer::new(header.cipher, &data_key).open(ordinal::RECORD, &aad, &mut sealed)?;
            verified(plain, &Place { object, tenant: self.tenant, fresh: head, name: Some(name) })
        };
        open().map_err(|e| e.of(label))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: TenantId = TenantId([1; 16]);

    fn header(object: ObjectType) -> Header {
        Header { object, cipher: Cipher::Aes256Gcm }
    }

    #[test]
    fn shared_records_open_at_their_name_only() {
        let keys = IdKeys::new(&[1; 32]);
        let realm = Realm { tenant: TENANT, keys: &keys };
        let signing = Signing::from_seed(&[2; 32]);
        let object =
            realm.seal_shared(header(ObjectType::Session), Some("sessions/a"), &signing, b"payload").unwrap();
        let opened = realm.open_shared(ObjectType::Session, Some("sessions/a"), "a", &object).unwrap();
        assert_eq!((opened.signer, &opened.payload[..]), (signing.id(), &b"payload"[..]));
        assert!(realm.open_shared(ObjectType::Session, Some("sessions/b"), "b", &object).is_err());
        assert!(realm.open_shared(ObjectType::Plan, Some("sessions/a"), "a", &object).is_err());
        for (name, good) in [("tenants/t/sessions/a", true), ("tenants/u/sessions/a", true), ("tenants/a", false)] {
            let opened = realm.open_shared(ObjectType::Session, Some(name), name, &object);
            assert_eq!(opened.is_ok(), good, "{name}");
        }
        let other = IdKeys::new(&[9; 32]);
        let other = Realm { tenant: TENANT, keys: &other };
        assert!(other.open_shared(ObjectType::Session, Some("sessions/a"), "a", &object).is_err());
        for at in 0..object.len() {
            let mut changed = object.clone();
            changed[at] ^= 4;
            assert!(realm.open_shared(ObjectType::Session, Some("sessions/a"), "a", &changed).is_err());
            assert!(realm.open_shared(ObjectType::Session, Some("sessions/a"), "a", &object[..at]).is_err());
        }
    }

    #[test]
    fn private_records_open_with_the_private_key_only() {
        let keys = IdKeys::new(&[1; 32]);
        let realm = Realm { tenant: TENANT, keys: &keys };
        let signing = Signing::from_seed(&[2; 32]);
        let (private, public) = hpke::pair_from_seed(&[3; 32]);
        let (private, _) = PrivateKey::from_bytes(&private).unwrap();
        let object =
            realm.seal_private(header(ObjectType::Snapshot), "snapshots/a", &signing, &public, b"root").unwrap();
        let opened = realm.open_private(ObjectType::Snapshot, "snapshots/a", &private, &object).unwrap();
        assert_eq!((opened.signer, &opened.payload[..]), (signing.id(), &b"root"[..]));
        assert!(realm.open_private(ObjectType::Snapshot, "snapshots/b", &private, &object).is_err());
        let (stranger, _) = PrivateKey::from_bytes(&hpke::pair_from_seed(&[4; 32]).0).unwrap();
        assert!(realm.open_private(ObjectType::Snapshot, "snapshots/a", &stranger, &object).is_err());
    }
}
