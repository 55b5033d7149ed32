//! Slots and signers: admitting a key, listing, removing.
//!
//! A key is admitted slot first, list second: a crash between leaves a slot
//! that opens but whose signatures nobody counts, and admitting again is safe.
//! It is removed list first, slot second: a crash between leaves a slot whose
//! signatures no longer count. The list is versioned objects, each created only
//! if absent, so that two keys changed at once cannot undo one another.

use super::{Repository, absent};
use crate::clock::Timestamp;
use crate::crypto::envelope::Realm;
use crate::crypto::hpke::PublicKey;
use crate::crypto::keyfile::KeyFile;
use crate::crypto::random;
use crate::crypto::sign::Signing;
use crate::crypto::slot::{self, Credential, Holder};
use crate::error::{Error, Result, StoreFault};
use crate::format::header::{self, Cipher, Header, ObjectType};
use crate::format::key::{Bundle, Role, Signer, SignerList, Slot, SlotKind};
use crate::format::names::{TenantNames, last_part};
use crate::format::parity::Parity;
use crate::id::{SignerId, SlotId};
use crate::limits;
use crate::store::Store;
use bytes::Bytes;
use secrecy::SecretString;

/// How often a change of the list is tried, while others change it too.
const CHANGE_TRIES: usize = 10;

/// What a new key's slot is made for.
pub enum Secret {
    /// A key file at hand.
    KeyFile(KeyFile),
    /// A password.
    Password(SecretString),
    /// Someone whose public half is known.
    Recipient(Box<PublicKey>),
}

/// A key to admit.
pub struct NewKey {
    /// What it may do.
    pub role: Role,
    /// What people call it.
    pub label: String,
    /// What opens its slot.
    pub secret: Secret,
}

impl NewKey {
    pub(super) fn holder(&self) -> Holder<'_> {
        match &self.secret {
            Secret::KeyFile(key) => Holder::KeyFile(key),
            Secret::Password(password) => Holder::Password(password),
            Secret::Recipient(key) => Holder::Recipient(key),
        }
    }
}

pub(super) fn signer_entry(bundle: &Bundle, key: &NewKey, slot: SlotId, kind: SlotKind, added: Timestamp) -> Signer {
    Signer {
        id: Signing::from_seed(&bundle.signer_seed).id(),
        role: bundle.role,
        label: key.label.clone(),
        slot,
        kind,
        added,
        removed: None,
        recipient: match &key.secret {
            Secret::Recipient(public) => Some(public.to_bytes()),
            _ => None,
        },
        is_operator: false,
    }
}

/// Slots are sealed by themselves; the object adds header and hash.
pub(super) fn slot_object(cipher: Cipher, slot: &Slot) -> Bytes {
    let mut object = Header { object: ObjectType::Slot, cipher }.encode().to_vec();
    object.extend_from_slice(&slot.encode());
    header::close(&mut object);
    object.into()
}

pub(super) fn write_slot(
    store: &dyn Store,
    names: &TenantNames,
    cipher: Cipher,
    id: &SlotId,
    slot: &Slot,
) -> Result<()> {
    match absent::create(store, &names.slot(id), &slot_object(cipher, slot)) {
        Ok(()) => Ok(()),
        Err(e) if e.fault == StoreFault::Exists => Err(Error::Exists { what: format!("a slot for this key ({id})") }),
        Err(e) => Err(e.into()),
    }
}

/// Deletes a slot, if it is there.
pub(super) fn delete_slot(store: &dyn Store, names: &TenantNames, id: &SlotId) -> Result<()> {
    match store.delete(&names.slot(id)) {
        Err(e) if e.fault != StoreFault::NotFound => Err(e.into()),
        _ => Ok(()),
    }
}

/// Reads a slot; `None` if there is none of this name.
pub(super) fn read_slot(store: &dyn Store, names: &TenantNames, id: &SlotId) -> Result<Option<Slot>> {
    let name = names.slot(id);
    let bytes = match store.read(&name, limits::RECORD_MAX) {
        Ok(bytes) => bytes,
        Err(e) if e.fault == StoreFault::NotFound => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    if Header::of_whole(&bytes, &name)?.object != ObjectType::Slot {
        return Err(Error::damaged(name, "it is no slot"));
    }
    let body = header::opened(&bytes).map_err(|e| e.of(&*name))?;
    Slot::decode(body.get(header::HEADER_LEN..).unwrap_or_default()).map(Some).map_err(|e| e.of(name))
}

/// The slots that there are, and the newest version of the list of signers (0 for none).
pub(super) fn list_keys(store: &dyn Store, names: &TenantNames) -> Result<(Vec<SlotId>, u64)> {
    let (mut slots, mut newest) = (Vec::new(), 0);
    for object in store.list(&names.keys())? {
        // Only a name that this program would write: anything else is somebody's litter.
        if let Some(version) = names.signers_version(&object.name) {
            newest = newest.max(version);
        } else if let Ok(slot) = last_part(&object.name).parse() {
            slots.push(slot);
        }
    }
    if slots.len() > limits::SLOTS_MAX {
        return Err(Error::damaged(names.keys(), format!("{} slots, more than anyone has", slots.len())));
    }
    Ok((slots, newest))
}

/// The versions of the list of signers that there are, ascending.
pub(super) fn list_versions(store: &dyn Store, names: &TenantNames) -> Result<Vec<u64>> {
    let listed = store.list(&names.keys())?;
    let mut versions: Vec<u64> = listed.iter().filter_map(|o| names.signers_version(&o.name)).collect();
    versions.sort_unstable();
    Ok(versions)
}

/// Publishes a version of the list; the tenant's own key signs.
pub(super) fn write_signers(
    store: &dyn Store,
    names: &TenantNames,
    cipher: Cipher,
    realm: &Realm<'_>,
    signing: &Signing,
    list: &SignerList,
) -> Result<()> {
    let name = names.signers(list.version);
    let header = Header { object: ObjectType::Signers, cipher };
    let object = realm.seal_shared(header, Some(&name), signing, &list.encode())?;
    match absent::create(store, &name, &object.into()) {
        Ok(()) => Ok(()),
        Err(e) if e.fault == StoreFault::Exists => Err(Error::Busy { what: "the list of signers".into() }),
        Err(e) => Err(e.into()),
    }
}

/// Reads a version of the list; only the tenant's own signature counts.
pub(super) fn read_signers(
    store: &dyn Store,
    names: &TenantNames,
    realm: &Realm<'_>,
    tenant: SignerId,
    version: u64,
) -> Result<SignerList> {
    let name = names.signers(version);
    let bytes = store.read(&name, limits::LIST_RECORD_MAX)?;
    let opened = realm.open_shared(ObjectType::Signers, Some(&name), &name, &bytes)?;
    if opened.signer != tenant {
        return Err(Error::damaged(name, "the tenant's key did not sign it"));
    }
    let list = SignerList::decode(&opened.payload).map_err(|e| e.of(&*name))?;
    if list.version != version {
        return Err(Error::damaged(name, "it is another version than its name says"));
    }
    Ok(list)
}

/// A slot that opens is not enough: it may be left over, or put back by the store.
pub(super) fn check_admitted(list: &SignerList, signer: &SignerId, slot: &SlotId, tenant: &str) -> Result<()> {
    let why = match list.signers.iter().find(|s| s.id == *signer) {
        Some(s) if s.removed.is_none() && s.slot == *slot => return Ok(()),
        Some(s) if s.removed.is_none() => {
            format!("this key is not in use in tenant {tenant}: another has its place (slot {})", s.slot.short())
        }
        Some(_) => format!("this key was removed from tenant {tenant}"),
        None => format!("this key is not among the signers of tenant {tenant}: admit it again"),
    };
    Err(Error::NoKey { why })
}

/// The signers that were not removed.
pub(super) fn present(list: &SignerList) -> impl Iterator<Item = &Signer> {
    list.signers.iter().filter(|s| s.removed.is_none())
}

/// The one key that `which` names, and that was not removed.
pub(super) fn find_present<'l>(list: &'l SignerList, which: &str) -> Result<&'l Signer> {
    let matches: Vec<&Signer> = present(list).filter(|s| is_named(s, which)).collect();
    match matches[..] {
        [one] => Ok(one),
        [] => Err(no_key(which)),
        _ => Err(Error::Invalid(format!("{} keys match {which}; give more digits", matches.len()))),
    }
}

/// Marks the one key that `which` names as removed.
fn mark_removed(list: &mut SignerList, which: &str, now: Timestamp) -> Result<Signer> {
    let Signer { id, role, .. } = *find_present(list, which)?;
    if role == Role::Full && present(list).filter(|s| s.role == Role::Full).count() == 1 {
        return Err(Error::Invalid("this is the tenant's last full key: without it nothing can be restored".into()));
    }
    let mut removed = None;
    for signer in list.signers.iter_mut().filter(|s| s.id == id) {
        signer.removed = Some(now);
        removed = Some(signer.clone());
    }
    removed.ok_or_else(|| no_key(which))
}

fn is_named(signer: &Signer, which: &str) -> bool {
    signer.label == which
        || which.len() >= 4
            && (signer.slot.to_string().starts_with(which) || signer.id.to_string().starts_with(which))
}

pub(super) fn no_key(which: &str) -> Error {
    Error::NotFound(format!("no key is called {which}, nor begins with it (4 digits at least)"))
}

impl Repository {
    /// What is wrong with the slots of the tenant's keys, and with each version of its list of signers;
    /// and how many slots no key has: left by an interruption, or put back. What is sealed in another
    /// key's slot only that key can tell.
    ///
    /// # Errors
    /// The store's.
    pub fn check_keys(&self) -> Result<(Vec<Error>, u64)> {
        let mut found = Vec::new();
        let mut note = |checked: Result<()>| match checked {
            Err(e) if e.is_damage() => {
                found.push(e);
                Ok(())
            }
            other => other,
        };
        let (slots, _) = list_keys(&*self.store, &self.names)?;
        let present: Vec<&Signer> = self.signers.signers.iter().filter(|s| s.removed.is_none()).collect();
        let (ours, unused): (Vec<&SlotId>, Vec<&SlotId>) =
            slots.iter().partition(|id| present.iter().any(|s| s.slot == **id));
        for id in ours {
            note(read_slot(&*self.store, &self.names, id).and_then(|slot| match slot {
                Some(slot) if slot.tenant != self.tenant => {
                    Err(Error::damaged(self.names.slot(id), "it is another tenant's slot"))
                }
                _ => Ok(()),
            }))?;
        }
        for signer in present.iter().filter(|s| !slots.contains(&s.slot)) {
            note(Err(Error::Missing { object: self.names.slot(&signer.slot) }))?;
        }
        for version in 1..self.signers.version {
            let read = read_signers(&*self.store, &self.names, &self.realm(), self.tenant_verifying, version);
            note(read.map(|_| ()))?;
        }
        Ok((found, unused.len() as u64))
    }

    /// Admits a key.
    ///
    /// # Errors
    /// [`Error::NotAllowed`] with a writer key, [`Error::Exists`] if the key has a slot already,
    /// [`Error::Busy`] if others go on changing the signers.
    pub fn add_key(&mut self, key: &NewKey) -> Result<Signer> {
        self.admit(key, false)
    }

    /// The same, for the key of whoever keeps the repository too.
    pub(super) fn admit(&mut self, key: &NewKey, is_operator: bool) -> Result<Signer> {
        self.tenant_signing("admit keys")?;
        let passwords = self.signers.signers.iter().filter(|s| s.removed.is_none() && s.kind == SlotKind::Password);
        if matches!(key.secret, Secret::Password(_)) && passwords.count() >= limits::PASSWORD_SLOTS_MAX {
            let most = limits::PASSWORD_SLOTS_MAX;
            return Err(Error::Invalid(format!("the tenant has {most} passwords, and no more are tried")));
        }
        let bundle = self.bundle(key.role, &random::bytes()?);
        let (slot_id, slot) = slot::seal(&key.holder(), &bundle)?;
        self.clear_leftovers(&key.secret, &slot_id)?;
        write_slot(&*self.store, &self.names, self.cipher, &slot_id, &slot)?;
        let signer = Signer { is_operator, ..signer_entry(&bundle, key, slot_id, slot.kind, self.clock.now()) };
        let admitted = self.change_signers("admit keys", |list| {
            list.signers.push(signer.clone());
            Ok(signer.clone())
        });
        self.drop_slot_unless_listed(&admitted, &slot_id);
        admitted
    }

    /// A bundle of the tenant's secrets, as a role allows, for a key that signs with this seed.
    pub(super) fn bundle(&self, role: Role, signer_seed: &[u8; 32]) -> Bundle {
        let full = self.full.as_ref().filter(|_| role == Role::Full);
        let private_keys: &[[u8; 32]] = full.map_or(&[], |full| full.private_keys.as_slice());
        Bundle {
            role,
            tenant: self.tenant,
            id_key: **self.id_key,
            tenant_verifying: self.tenant_verifying.0,
            signer_seed: *signer_seed,
            private_key: private_keys.first().copied(),
            tenant_seed: full.map(|full| *full.tenant_seed),
            former_keys: private_keys.get(1..).unwrap_or_default().to_vec(),
        }
    }

    /// Deletes slots of a new key that an admission left which was interrupted: nothing counts what they sign,
    /// and a password would open them before the slot that counts.
    pub(super) fn clear_leftovers(&mut self, secret: &Secret, slot: &SlotId) -> Result<()> {
        let (slots, newest) = list_keys(&*self.store, &self.names)?;
        let mut left = Vec::new();
        for id in slots.iter().filter(|id| !present(&self.signers).any(|s| s.slot == **id)) {
            let is_left = match secret {
                Secret::KeyFile(_) | Secret::Recipient(_) => id == slot,
                Secret::Password(password) => self.opens(&Credential::Password(password.clone()), id)?,
            };
            if is_left {
                left.push(*id);
            }
        }
        // It may have been admitted since this one was opened.
        if !left.is_empty() && newest != self.signers.version {
            self.read_newest_signers()?;
        }
        left.retain(|id| !present(&self.signers).any(|s| s.slot == *id));
        left.iter().try_for_each(|id| delete_slot(&*self.store, &self.names, id))
    }

    /// True if the key opens the slot.
    pub(super) fn opens(&self, credential: &Credential, id: &SlotId) -> Result<bool> {
        match read_slot(&*self.store, &self.names, id) {
            Ok(Some(slot)) => Ok(slot::open(credential, self.tenant, id, &slot).is_ok_and(|b| b.is_some())),
            Err(e) if !e.is_damage() => Err(e),
            Ok(None) | Err(_) => Ok(false),
        }
    }

    /// A slot that no list names opens nothing; one that stays behind is replaced the next time. If the store
    /// failed, the list may have been written, and then it names the slot.
    pub(super) fn drop_slot_unless_listed<T>(&self, listed: &Result<T>, id: &SlotId) {
        if matches!(listed, Err(e) if !matches!(e, Error::Store(_)))
            && let Err(e) = self.store.delete(&self.names.slot(id))
        {
            tracing::debug!("slot {id} stays behind: {e}");
        }
    }

    /// Removes the key whose slot, signer or label begins with `which`. What it signed stays readable.
    ///
    /// # Errors
    /// [`Error::NotAllowed`] with a writer key, [`Error::NotFound`], and [`Error::Invalid`] for the
    /// last full key.
    pub fn remove_key(&mut self, which: &str) -> Result<Signer> {
        self.tenant_signing("remove keys")?;
        let now = self.clock.now();
        let removed = match self.change_signers("remove keys", |list| mark_removed(list, which, now)) {
            Err(Error::NotFound(_)) => return self.finish_removal(which),
            changed => changed?,
        };
        delete_slot(&*self.store, &self.names, &removed.slot)?;
        Ok(removed)
    }

    /// The list says already that the key is removed; its slot may have been left behind.
    pub(super) fn finish_removal(&self, which: &str) -> Result<Signer> {
        let removed = self.signers.signers.iter().find(|s| is_named(s, which)).cloned();
        let removed = removed.ok_or_else(|| no_key(which))?;
        let slot = self.names.slot(&removed.slot);
        // Asked for first: not every store tells of a delete that it found nothing.
        match self.store.size(&slot).and_then(|_| self.store.delete(&slot)) {
            Ok(()) => Ok(removed),
            Err(e) if e.fault == StoreFault::NotFound => Err(no_key(which)),
            Err(e) => Err(e.into()),
        }
    }

    /// Publishes the next version of the list. If somebody else published it first, the change is made
    /// again, to what they wrote, unless they removed this key: it would still know how to sign.
    pub(super) fn change_signers<T>(
        &mut self,
        what: &'static str,
        change: impl Fn(&mut SignerList) -> Result<T>,
    ) -> Result<T> {
        let mut outcome = Err(Error::Busy { what: "the list of signers".into() });
        for _ in 0..CHANGE_TRIES {
            check_admitted(&self.signers, &self.signing.id(), &self.slot, self.names.name())?;
            let mut list = self.signers.clone();
            let changed = change(&mut list)?;
            let last = || Error::Invalid("the list of signers has the last version that there is".into());
            list.version = list.version.checked_add(1).filter(|v| *v <= limits::NUMBER_MAX).ok_or_else(last)?;
            let signing = self.tenant_signing(what)?;
            match write_signers(&*self.store, &self.names, self.cipher, &self.realm(), signing, &list) {
                Err(e @ Error::Busy { .. }) => outcome = Err(e),
                Err(e) => return Err(e),
                Ok(()) => {
                    self.signers = list;
                    self.note_signers_quietly();
                    return Ok(changed);
                }
            }
            self.read_newest_signers()?;
        }
        outcome
    }

    /// Has new packs get so much parity from now on, whoever writes them; those that are there stay as they are.
    /// False if it was so already.
    ///
    /// # Errors
    /// [`Error::NotAllowed`] with a writer key, [`Error::Busy`] if others go on changing the list of signers.
    pub fn set_parity(&mut self, parity: Parity) -> Result<bool> {
        self.tenant_signing("change what new packs are made of")?;
        self.read_newest_signers()?;
        if self.signers.parity == parity {
            return Ok(false);
        }
        self.change_signers("change what new packs are made of", |list| {
            list.parity = parity;
            Ok(true)
        })
    }

    /// Reads the list again.
    ///
    /// # Errors
    /// [`Error::Busy`] if the tenant was given a key pair meanwhile: what this one would put into slots is
    /// not all.
    pub(super) fn read_newest_signers(&mut self) -> Result<()> {
        let (_, newest) = list_keys(&*self.store, &self.names)?;
        let list = read_signers(&*self.store, &self.names, &self.realm(), self.tenant_verifying, newest)?;
        if list.public_key != self.signers.public_key {
            return Err(Error::Busy { what: "the tenant's key pair".into() });
        }
        self.signers = list;
        self.note_signers()
    }

    /// The same after the list was written: that stands, whatever becomes of the note.
    pub(super) fn note_signers_quietly(&self) {
        if let Err(e) = self.note_signers() {
            tracing::warn!("the new list of signers was not noted on this machine: {e}");
        }
    }

    /// Remembers the version of the list on this machine, which refuses older ones from then on.
    fn note_signers(&self) -> Result<()> {
        self.local.check_seen(self.names.name(), self.tenant_verifying, self.signers.version)
    }
}
