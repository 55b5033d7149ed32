//! Wrapping a tenant's secrets under a key that a person holds.

use super::aead::{KeyBytes, Sealer};
use super::hpke::{self, PrivateKey, PublicKey};
use super::keyfile::KeyFile;
use super::random;
use crate::error::{Error, Malformed, Result};
use crate::format::header::{Cipher, Header, ObjectType, associated_data, ordinal};
use crate::format::key::{Bundle, LaterKeys, STRETCH, Slot, SlotKind, Stretch};
use crate::id::{SlotId, TenantId};
use argon2::{Algorithm, Argon2, Params, Version};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

/// What a person brings to open a slot.
pub enum Credential {
    /// A key file: opens its own slot, or one made for it as a recipient.
    KeyFile(KeyFile),
    /// A password.
    Password(SecretString),
}

/// What a new slot is made for.
pub enum Holder<'a> {
    /// A key file at hand.
    KeyFile(&'a KeyFile),
    /// A password.
    Password(&'a SecretString),
    /// Someone whose public half is known.
    Recipient(&'a PublicKey),
}

const HEADER: Header = Header { object: ObjectType::Slot, cipher: Cipher::ChaCha20Poly1305 };

fn named(context: &str, key: &[u8], tenant: TenantId) -> SlotId {
    let mut id = [0; 16];
    let mut hasher = blake3::Hasher::new_derive_key(context);
    hasher.update(key).update(tenant.as_bytes());
    hasher.finalize_xof().fill(&mut id);
    SlotId(id)
}

/// The name of the slot of a recipient, which anyone can tell who knows its public key.
pub fn recipient_slot(key: &PublicKey, tenant: TenantId) -> SlotId {
    named("estrato 0 slot of a recipient", &key.to_bytes(), tenant)
}

/// The slots that a key file could open, the likelier first: found by name, without a listing.
pub fn key_file_slots(key: &KeyFile, tenant: TenantId) -> [SlotId; 2] {
    [key_file_slot(key, tenant), recipient_slot(&key.recipient().1, tenant)]
}

fn key_file_slot(key: &KeyFile, tenant: TenantId) -> SlotId {
    named("estrato 0 slot of a key file", &*key.0, tenant)
}

fn aad(tenant: TenantId, slot: &SlotId, ordinal: u64) -> Vec<u8> {
    associated_data(HEADER, tenant, ordinal, Some(&slot.to_string()))
}

fn stretched(password: &SecretString, salt: &[u8; 32], cost: Stretch) -> Result<KeyBytes, Malformed> {
    let bad = |e: argon2::Error| Malformed(format!("a slot whose Argon2 parameters are none: {e}"));
    let params = Params::new(cost.memory, cost.passes, cost.lanes, Some(32)).map_err(bad)?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password.expose_secret().as_bytes(), salt, &mut *key)
        .map_err(bad)?;
    Ok(key)
}

fn salted(secret: &[u8; 32], salt: &[u8; 32]) -> KeyBytes {
    Zeroizing::new(*blake3::keyed_hash(secret, salt).as_bytes())
}

/// Seals a bundle; returns the slot and its name.
///
/// # Errors
/// Where the machine has no random bytes.
pub fn seal(holder: &Holder<'_>, bundle: &Bundle) -> Result<(SlotId, Slot)> {
    let id = match holder {
        Holder::KeyFile(key) => key_file_slot(key, bundle.tenant),
        Holder::Password(_) => SlotId(random::bytes()?),
        Holder::Recipient(key) => recipient_slot(key, bundle.tenant),
    };
    Ok((id, seal_as(holder, bundle, id)?))
}

/// Seals a bundle for a slot that has a name already: the one that follows from the key, or a password's.
///
/// # Errors
/// Where the machine has no random bytes.
pub fn seal_as(holder: &Holder<'_>, bundle: &Bundle, id: SlotId) -> Result<Slot> {
    let salt = random::bytes()?;
    let kind = match holder {
        Holder::KeyFile(_) => SlotKind::KeyFile,
        Holder::Password(_) => SlotKind::Password,
        Holder::Recipient(_) => SlotKind::Recipient,
    };
    let aad = aad(bundle.tenant, &id, ordinal::RECORD);
    let object = || format!("slot {id}");
    let (encapsulated, sealed) = (Vec::new(), Vec::new());
    let mut slot = Slot { kind, salt, stretch: None, encapsulated, sealed, tenant: bundle.tenant, later: None };
    let key = match holder {
        Holder::KeyFile(key) => salted(&key.0, &salt),
        Holder::Password(password) => {
            slot.stretch = Some(STRETCH);
            stretched(password, &salt, STRETCH).map_err(|e| e.of(object()))?
        }
        Holder::Recipient(key) => {
            (slot.encapsulated, slot.sealed) =
                hpke::seal(key, None, &bundle.encode(), &aad).map_err(|e| e.of(object()))?;
            return Ok(slot);
        }
    };
    // Sealed where it lies, and only then is the tag appended: no plaintext stays behind.
    slot.sealed = bundle.encode().to_vec();
    Sealer::new(HEADER.cipher, &key).seal(ordinal::RECORD, &aad, &mut slot.sealed, 0);
    Ok(slot)
}

/// Adds private keys to a recipient's slot, for whoever cannot open it: what it holds already stays as it is.
///
/// # Errors
/// If the public key takes nothing.
pub fn add_later(slot: &mut Slot, id: &SlotId, to: &PublicKey, keys: &LaterKeys) -> Result<()> {
    let aad = aad(slot.tenant, id, ordinal::LATER_KEYS);
    let sealed = hpke::seal(to, None, &keys.encode(), &aad).map_err(|e| e.of(format!("slot {id}")))?;
    slot.later = Some(sealed);
    Ok(())
}

/// Opens a slot; `None` if the credential is not the slot's.
///
/// # Errors
/// [`Error::Damaged`] if the slot opens but does not hold what it should.
pub fn open(credential: &Credential, tenant: TenantId, id: &SlotId, slot: &Slot) -> Result<Option<Bundle>> {
    let aad_of = |ordinal| aad(tenant, id, ordinal);
    let aad = aad_of(ordinal::RECORD);
    let object = || format!("slot {id}");
    let key = match (credential, slot.kind, slot.stretch) {
        (Credential::KeyFile(key), SlotKind::KeyFile, _) => salted(&key.0, &slot.salt),
        (Credential::Password(password), SlotKind::Password, Some(cost)) => {
            stretched(password, &slot.salt, cost).map_err(|e| e.of(object()))?
        }
        (Credential::KeyFile(key), SlotKind::Recipient, _) => {
            let (private, _) = PrivateKey::from_bytes(&key.recipient().0)?;
            let Ok(plain) = hpke::open(&private, None, &slot.encapsulated, &slot.sealed, &aad) else {
                return Ok(None);
            };
            let mut bundle = bundle(&plain, tenant, id)?;
            if let Some((encapsulated, sealed)) = &slot.later
                && bundle.private_key.is_some()
            {
                let later = hpke::open(&private, None, encapsulated, sealed, &aad_of(ordinal::LATER_KEYS));
                let later = later.and_then(|plain| LaterKeys::decode(&plain)).map_err(|e| e.of(object()))?;
                bundle.add_later(&later.0);
            }
            return Ok(Some(bundle));
        }
        _ => return Ok(None),
    };
    let mut sealed = Zeroizing::new(slot.sealed.clone());
    match Sealer::new(HEADER.cipher, &key).open(ordinal::RECORD, &aad, &mut sealed) {
        Ok(plain) => bundle(plain, tenant, id).map(Some),
        Err(_) => Ok(None),
    }
}

fn bundle(plain: &[u8], tenant: TenantId, id: &SlotId) -> Result<Bundle> {
    let object = || format!("slot {id}");
    let bundle = Bundle::decode(plain).map_err(|e| e.of(object()))?;
    if bundle.tenant != tenant {
        return Err(Error::damaged(object(), "it holds the keys of another tenant"));
    }
    Ok(bundle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::key::Role;

    const TENANT: TenantId = TenantId([1; 16]);

    fn a_bundle() -> Bundle {
        Bundle {
            role: Role::Writer,
            tenant: TENANT,
            id_key: [2; 32],
            tenant_verifying: [3; 32],
            signer_seed: [4; 32],
            private_key: None,
            tenant_seed: None,
            former_keys: Vec::new(),
        }
    }

    fn key(n: u8) -> KeyFile {
        KeyFile(Zeroizing::new([n; 32]))
    }

    #[test]
    fn each_kind_opens_with_its_own_only() {
        let password = SecretString::from("correct horse");
        let (id, slot) = seal(&Holder::KeyFile(&key(1)), &a_bundle()).unwrap();
        assert_eq!(key_file_slots(&key(1), TENANT)[0], id);
        assert!(open(&Credential::KeyFile(key(1)), TENANT, &id, &slot).unwrap() == Some(a_bundle()));
        assert!(open(&Credential::KeyFile(key(2)), TENANT, &id, &slot).unwrap().is_none());
        assert!(open(&Credential::Password(password.clone()), TENANT, &id, &slot).unwrap().is_none());
        assert!(open(&Credential::KeyFile(key(1)), TenantId([9; 16]), &id, &slot).unwrap().is_none());

        let (id, slot) = seal(&Holder::Password(&password), &a_bundle()).unwrap();
        assert!(open(&Credential::Password(password), TENANT, &id, &slot).unwrap() == Some(a_bundle()));
        assert!(open(&Credential::Password("wrong".into()), TENANT, &id, &slot).unwrap().is_none());

        let recipient = key(3).recipient().1;
        let (id, slot) = seal(&Holder::Recipient(&recipient), &a_bundle()).unwrap();
        assert_eq!(key_file_slots(&key(3), TENANT)[1], id);
        assert!(open(&Credential::KeyFile(key(3)), TENANT, &id, &slot).unwrap() == Some(a_bundle()));
        assert!(open(&Credential::KeyFile(key(1)), TENANT, &id, &slot).unwrap().is_none());
    }

    #[test]
    fn each_slot_is_sealed_anew() {
        let password = SecretString::from("correct horse");
        for holder in
            [Holder::KeyFile(&key(1)), Holder::Password(&password), Holder::Recipient(&key(3).recipient().1)]
        {
            let (first, second) = (seal(&holder, &a_bundle()).unwrap(), seal(&holder, &a_bundle()).unwrap());
            assert_ne!(first.1.salt, second.1.salt);
            assert_ne!(first.1.sealed, second.1.sealed);
            // A key finds its slot by name; a password's name tells nothing, and is drawn.
            assert_eq!(first.0 == second.0, !matches!(holder, Holder::Password(_)));
        }
    }

    #[test]
    fn a_slot_that_holds_another_tenants_keys_is_damaged() {
        let holder = key(1);
        let (id, mut slot) = seal(&Holder::KeyFile(&holder), &a_bundle()).unwrap();
        let foreign = Bundle { tenant: TenantId([9; 16]), former_keys: Vec::new(), ..a_bundle() };
        slot.sealed = foreign.encode().to_vec();
        let aad = aad(TENANT, &id, ordinal::RECORD);
        Sealer::new(HEADER.cipher, &salted(&holder.0, &slot.salt)).seal(ordinal::RECORD, &aad, &mut slot.sealed, 0);
        let opened = open(&Credential::KeyFile(holder), TENANT, &id, &slot);
        assert!(opened.is_err_and(|e| e.to_string().contains("another tenant")));
    }

    #[test]
    fn later_keys_are_added_to_a_recipients_slot_by_who_cannot_open_it() {
        let mut full = Bundle { former_keys: Vec::new(), ..a_bundle() };
        (full.role, full.private_key, full.tenant_seed) = (Role::Full, Some([5; 32]), Some([6; 32]));
        let recipient = key(3).recipient().1;
        let (id, mut slot) = seal(&Holder::Recipient(&recipient), &full).unwrap();
        let sealed = slot.sealed.clone();
        add_later(&mut slot, &id, &recipient, &LaterKeys(vec![[8; 32], [5; 32]])).unwrap();
        assert_eq!(slot.sealed, sealed);
        let opened = open(&Credential::KeyFile(key(3)), TENANT, &id, &slot).unwrap().unwrap();
        assert_eq!((opened.private_key, opened.former_keys.clone()), (Some([8; 32]), vec![[5; 32]]));
        assert_eq!(opened.signer_seed, full.signer_seed);
        // What is sealed as the one does not pass for the other.
        let swapped = Slot { later: Some((slot.encapsulated.clone(), slot.sealed.clone())), ..slot.clone() };
        assert!(open(&Credential::KeyFile(key(3)), TENANT, &id, &swapped).is_err());
        // A writer is given no private key by anybody.
        let (id, mut slot) = seal(&Holder::Recipient(&recipient), &a_bundle()).unwrap();
        add_later(&mut slot, &id, &recipient, &LaterKeys(vec![[8; 32]])).unwrap();
        assert!(open(&Credential::KeyFile(key(3)), TENANT, &id, &slot).unwrap() == Some(a_bundle()));
    }

    #[test]
    fn nothing_of_the_bundle_shows() {
        let (_, slot) = seal(&Holder::KeyFile(&key(1)), &a_bundle()).unwrap();
        assert!(!slot.encode().windows(8).any(|w| w == [2; 8] || w == [4; 8]));
    }
}
