//! Giving a key another secret: a new slot in the place of the old one.
//!
//! The new slot is written, read back from the store and opened; then one change
//! of the list of signers gives its place to it; then the old slot is deleted.
//! Until the change the old key opens the tenant, and after it the new one: never
//! none, and no list in which both stand. What a crash leaves is a slot that no
//! list names, and doing it again deletes it.
//!
//! The full key in use stays the same signer: what it signs is worth no more than
//! the tenant's own signature, which every full key can make, and another signer's
//! packs and chains would begin anew. Any other key becomes a new signer, since
//! nobody else knows its seed; what a writer's old seed signs counts no more.

use super::Repository;
use super::keys::{self, NewKey, Secret, delete_slot, find_present, list_keys, present, read_slot};
use super::open::find_slot;
use crate::crypto::random;
use crate::crypto::slot::{self, Credential};
use crate::error::{Error, Result};
use crate::format::key::{Signer, Slot, SlotKind};
use crate::id::SlotId;
use zeroize::Zeroizing;

/// A key that was given another secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotated {
    /// As the list had it before.
    pub old: Signer,
    /// As it has it now.
    pub new: Signer,
}

impl Rotated {
    /// True for one that is a new signer now: what it stored counts again once a full key has answered for it.
    pub fn begins_anew(&self) -> bool {
        self.old.id != self.new.id
    }
}

impl Secret {
    /// What opens a slot that was made for this; nothing for somebody else's key.
    pub fn credential(&self) -> Option<Credential> {
        match self {
            Secret::KeyFile(key) => Some(Credential::KeyFile(key.again())),
            Secret::Password(password) => Some(Credential::Password(password.clone())),
            Secret::Recipient(_) => None,
        }
    }
}

impl Repository {
    /// Gives a key another secret: that in use, or the one whose slot, signer or label begins with `which`.
    /// Its role and label stay. Doing again what was interrupted completes it.
    ///
    /// # Errors
    /// [`Error::NotAllowed`] with a writer key, [`Error::NotFound`], [`Error::Invalid`] if the secret is the
    /// old one, [`Error::Exists`] if it opens another slot already, [`Error::Busy`] if others go on changing
    /// the signers.
    pub fn rotate_key(&mut self, which: Option<&str>, secret: Secret) -> Result<Rotated> {
        self.tenant_signing("rotate keys")?;
        let old = match which {
            None => present(&self.signers).find(|s| s.id == self.signing.id()).cloned(),
            Some(which) => Some(find_present(&self.signers, which)?.clone()),
        };
        let old = old.ok_or_else(|| Error::NotFound("the key in use is not among the signers".into()))?;
        let is_own = old.id == self.signing.id();
        let seed = if is_own { self.signing.seed() } else { Zeroizing::new(random::bytes()?) };
        let bundle = self.bundle(old.role, &seed);
        let key = NewKey { role: old.role, label: old.label.clone(), secret };
        let (id, sealed) = slot::seal(&key.holder(), &bundle)?;
        self.check_is_new(&key.secret, &old, &id)?;
        self.clear_leftovers(&key.secret, &id)?;
        keys::write_slot(&*self.store, &self.names, self.cipher, &id, &sealed)?;
        let proved = self.prove_slot(&key.secret, &id, &sealed);
        self.drop_slot_unless_listed(&proved, &id);
        proved?;

        let entry = keys::signer_entry(&bundle, &key, id, sealed.kind, self.clock.now());
        let entry = Signer { is_operator: old.is_operator, ..entry };
        let now = self.clock.now();
        let changed = self.change_signers("rotate keys", |list| {
            let unchanged = |s: &&mut Signer| s.id == old.id && s.slot == old.slot && s.removed.is_none();
            let place = list.signers.iter_mut().find(unchanged);
            let place = place.ok_or_else(|| Error::Busy { what: format!("key {}", old.slot.short()) })?;
            if is_own {
                *place = Signer { added: old.added, ..entry.clone() };
                return Ok(place.clone());
            }
            place.removed = Some(now);
            list.signers.push(entry.clone());
            Ok(entry.clone())
        });
        self.drop_slot_unless_listed(&changed, &id);
        let new = changed?;
        if is_own {
            self.slot = id;
        }
        delete_slot(&*self.store, &self.names, &old.slot)?;
        Ok(Rotated { old, new })
    }

    /// A new secret must be one: what opens the old slot would be deleted with it.
    fn check_is_new(&self, secret: &Secret, old: &Signer, id: &SlotId) -> Result<()> {
        let same = match secret {
            Secret::Password(_) if old.kind == SlotKind::Password => match secret.credential() {
                Some(credential) => self.opens(&credential, &old.slot)?,
                None => false,
            },
            _ => *id == old.slot,
        };
        if same {
            return Err(Error::Invalid("the new key is the one that it is to replace".into()));
        }
        if present(&self.signers).any(|s| s.slot == *id) {
            return Err(Error::Exists { what: format!("a slot for this key ({id})") });
        }
        Ok(())
    }

    /// Reads a slot back from the store, and opens it as whoever has the secret will. Of somebody else's only
    /// the bytes can be looked at.
    pub(super) fn prove_slot(&self, secret: &Secret, id: &SlotId, written: &Slot) -> Result<()> {
        let wrong = |why: &str| Error::damaged(self.names.slot(id), why);
        let found = read_slot(&*self.store, &self.names, id)?.ok_or_else(|| wrong("it was written, and is gone"))?;
        if found != *written {
            return Err(wrong("it is another one than was written"));
        }
        if let Some(credential) = secret.credential()
            && slot::open(&credential, self.tenant, id, &found)?.is_none()
        {
            return Err(wrong("it does not open with the new key"));
        }
        Ok(())
    }

    /// Deletes the slot that this key still opens, though another has its place, or it was removed: what an
    /// interrupted rotation left. `None` if the key opens no slot, or one that is in use.
    ///
    /// # Errors
    /// [`Error::NotAllowed`] with a writer key, or the store's.
    pub fn remove_replaced(&mut self, old: &Credential) -> Result<Option<SlotId>> {
        self.tenant_signing("remove keys")?;
        let (slots, _) = list_keys(&*self.store, &self.names)?;
        let found = match find_slot(&*self.store, &self.names, self.tenant, old, &slots) {
            Ok(unlocked) => unlocked.slot,
            Err(Error::WrongKey { .. }) => return Ok(None),
            Err(e) => return Err(e),
        };
        self.remove_unlisted(&found)
    }

    /// Deletes the slot whose name begins with `which` (4 digits at least) and that no key has: what an
    /// interruption left, or the store put back.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none such; [`Error::NotAllowed`] with a writer key, or the store's.
    pub fn remove_unused_slot(&mut self, which: &str) -> Result<SlotId> {
        self.tenant_signing("remove keys")?;
        let (slots, _) = list_keys(&*self.store, &self.names)?;
        let named = |id: &&SlotId| which.len() >= 4 && id.to_string().starts_with(which);
        let matches: Vec<&SlotId> =
            slots.iter().filter(named).filter(|id| !present(&self.signers).any(|s| s.slot == **id)).collect();
        match matches[..] {
            [one] => self.remove_unlisted(one)?.ok_or_else(|| keys::no_key(which)),
            _ => Err(keys::no_key(which)),
        }
    }

    fn remove_unlisted(&mut self, id: &SlotId) -> Result<Option<SlotId>> {
        let (_, newest) = list_keys(&*self.store, &self.names)?;
        if newest != self.signers.version {
            self.read_newest_signers()?;
        }
        if present(&self.signers).any(|s| s.slot == *id) {
            return Ok(None);
        }
        delete_slot(&*self.store, &self.names, id)?;
        Ok(Some(*id))
    }
}
