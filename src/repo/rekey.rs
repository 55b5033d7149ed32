//! A new key pair for a tenant: what is written from then on is sealed to it,
//! and what was written before stays readable, since full keys keep the private
//! keys that came before.
//!
//! The new private key goes into the slots of full keys first; each is written
//! over with one that holds more than before. The key in use is proved by opening
//! its slot from the store. Then the next list of signers names the new public
//! key: from then on every session seals to it. A crash before leaves slots with
//! a private key that nothing is sealed to. Keys that cannot be given it are
//! removed in the same list, and their slots deleted last.

use super::Repository;
use super::keys::{self, delete_slot, list_keys, present, read_slot, slot_object};
use super::open::full_keys;
use super::side::ask;
use crate::crypto::hpke::{self, PrivateKey, PublicKey};
use crate::crypto::keyfile::KeyFile;
use crate::crypto::random;
use crate::crypto::slot::{self, Credential, Holder};
use crate::error::{Error, Result, StoreFault};
use crate::format::key::{Bundle, LaterKeys, Role, Signer, Slot, SlotKind};
use crate::format::pack::FRAMES_AT;
use crate::id::{PackName, SlotId};
use crate::limits;
use crate::pack::PackKey;
use bytes::Bytes;
use zeroize::Zeroizing;

/// What is at hand to give full keys the new private key.
pub struct Rekey<'a> {
    /// What opened the tenant.
    pub credential: &'a Credential,
    /// Other full keys.
    pub key_files: &'a [KeyFile],
    /// Public halves of recipients that were admitted before the list of signers kept them.
    pub recipients: &'a [PublicKey],
    /// Keys that cannot be given it are removed.
    pub drop_others: bool,
}

/// What becomes of a full key's slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// It opened the tenant, and is sealed anew.
    InUse,
    /// Its key file is at hand, and it is sealed anew.
    AtHand,
    /// The new private key is added, sealed to its public key.
    Added,
    /// The key is removed.
    Dropped,
}

/// How a slot is written over.
enum Way<'a> {
    InUse,
    KeyFile(&'a KeyFile),
    Recipient(Box<PublicKey>),
    Dropped,
}

impl Way<'_> {
    fn fate(&self) -> Fate {
        match self {
            Way::InUse => Fate::InUse,
            Way::KeyFile(_) => Fate::AtHand,
            Way::Recipient(_) => Fate::Added,
            Way::Dropped => Fate::Dropped,
        }
    }
}

/// A tenant that was given a new key pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rekeyed {
    /// Full keys, and what became of each.
    pub keys: Vec<(Signer, Fate)>,
    /// How many key pairs the tenant has had.
    pub pairs: usize,
}

impl Repository {
    /// What becomes of each full key. Changes nothing.
    ///
    /// # Errors
    /// [`Error::NotAllowed`] with a writer key; [`Error::Invalid`] where keys cannot be given the new private
    /// key and are not to be removed, or the tenant has had as many key pairs as there may be.
    pub fn plan_rekey(&self, how: &Rekey<'_>) -> Result<Vec<(Signer, Fate)>> {
        Ok(self.ways(how)?.into_iter().map(|(signer, way)| (signer, way.fate())).collect())
    }

    fn ways<'a>(&self, how: &Rekey<'a>) -> Result<Vec<(Signer, Way<'a>)>> {
        self.tenant_signing("rekey a tenant")?;
        let had = self.full.as_ref().map_or(0, |full| full.private_keys.len());
        if had >= limits::KEY_PAIRS_MAX {
            return Err(Error::Invalid(format!("the tenant has had {had} key pairs, as many as there may be")));
        }
        let mut ways = Vec::new();
        let mut left: Vec<String> = Vec::new();
        for signer in present(&self.signers).filter(|s| s.role == Role::Full) {
            let at_hand = |key: &&KeyFile| slot::key_file_slots(key, self.tenant).contains(&signer.slot);
            let way = if signer.slot == self.slot {
                Way::InUse
            } else if let Some(key) = how.key_files.iter().find(at_hand) {
                Way::KeyFile(key)
            } else if let Some(public) = self.recipient_of(signer, how.recipients) {
                Way::Recipient(Box::new(public))
            } else {
                left.push(format!("{} ({}, {:?})", signer.slot.short(), signer.kind.name(), signer.label));
                Way::Dropped
            };
            ways.push((signer.clone(), way));
        }
        if !left.is_empty() && !how.drop_others {
            return Err(Error::Invalid(format!(
                "these full keys cannot be given the new private key: {}; give their key files \
                 (--key-file-too PATH), or remove them (--drop-others)",
                left.join(", ")
            )));
        }
        Ok(ways)
    }

    fn recipient_of(&self, signer: &Signer, given: &[PublicKey]) -> Option<PublicKey> {
        let listed = signer.recipient.as_deref().and_then(|bytes| PublicKey::from_bytes(bytes).ok());
        let is_theirs = |public: &PublicKey| slot::recipient_slot(public, self.tenant) == signer.slot;
        let kind = signer.kind == SlotKind::Recipient;
        listed.into_iter().chain(given.iter().cloned()).find(|public| kind && is_theirs(public))
    }

    /// Gives the tenant a new key pair.
    ///
    /// # Errors
    /// Those of [`Repository::plan_rekey`]; [`Error::Busy`] if others change the signers meanwhile. Until the
    /// new list is written nothing has changed but that slots hold a private key more.
    pub fn rekey(&mut self, how: &Rekey<'_>) -> Result<Rekeyed> {
        let ways = self.ways(how)?;
        let signing = self.tenant_signing("rekey a tenant")?;
        let busy = || Error::Busy { what: "the list of signers".into() };
        let (private, public) = hpke::pair_from_seed(&Zeroizing::new(random::bytes()?));
        let mut bundle = self.bundle(Role::Full, &self.signing.seed());
        bundle.add_later(&[*private]);
        let mut written: Vec<(SlotId, Bytes)> = Vec::new();
        for (signer, way) in &ways {
            // Who else rekeys, or admits a full key, must not be run over.
            if list_keys(&*self.store, &self.names)?.1 != self.signers.version {
                return Err(busy());
            }
            let Some(slot) = self.resealed(signer, way, how.credential, &bundle)? else { continue };
            let object = slot_object(self.cipher, &slot);
            self.store.write(&self.names.slot(&signer.slot), object.clone())?;
            written.push((signer.slot, object));
        }
        self.prove_own(how.credential, &private)?;

        let mut list = self.signers.clone();
        let now = self.clock.now();
        let dropped: Vec<SlotId> =
            ways.iter().filter(|(_, way)| way.fate() == Fate::Dropped).map(|(signer, _)| signer.slot).collect();
        for signer in list.signers.iter_mut().filter(|s| s.removed.is_none() && dropped.contains(&s.slot)) {
            signer.removed = Some(now);
        }
        list.version = list.version.checked_add(1).ok_or_else(busy)?;
        list.public_key = Some(public.to_bytes());
        keys::write_signers(&*self.store, &self.names, self.cipher, &self.realm(), signing, &list)?;
        self.signers = list;
        self.full = full_keys(&bundle, &public, &self.names)?;
        self.public = public;
        self.note_signers_quietly();
        // One who rekeyed at once, and was slower, may have written over what the list is about.
        for (id, object) in &written {
            let name = self.names.slot(id);
            if self.store.read(&name, limits::RECORD_MAX).is_ok_and(|found| found != *object) {
                self.store.write(&name, object.clone())?;
            }
        }
        dropped.iter().try_for_each(|id| delete_slot(&*self.store, &self.names, id))?;
        let keys = ways.into_iter().map(|(signer, way)| (signer, way.fate())).collect();
        Ok(Rekeyed { keys, pairs: 1 + bundle.former_keys.len() })
    }

    /// A full key's slot with all that `bundle` has of private keys; nothing for one that is dropped.
    fn resealed(
        &self,
        signer: &Signer,
        way: &Way<'_>,
        credential: &Credential,
        bundle: &Bundle,
    ) -> Result<Option<Slot>> {
        let all = || {
            let mut all = LaterKeys(Vec::with_capacity(1 + bundle.former_keys.len()));
            all.0.extend(bundle.private_key);
            all.0.extend_from_slice(&bundle.former_keys);
            all
        };
        let found = || {
            let name = self.names.slot(&signer.slot);
            read_slot(&*self.store, &self.names, &signer.slot)?.ok_or(Error::Missing { object: name })
        };
        let by_key_file = |key: &KeyFile, bundle: &Bundle| match signer.kind {
            SlotKind::Recipient => slot::seal_as(&Holder::Recipient(&key.recipient().1), bundle, signer.slot),
            _ => slot::seal_as(&Holder::KeyFile(key), bundle, signer.slot),
        };
        match (way, credential) {
            (Way::InUse, Credential::KeyFile(key)) => by_key_file(key, bundle).map(Some),
            (Way::InUse, Credential::Password(password)) => {
                slot::seal_as(&Holder::Password(password), bundle, signer.slot).map(Some)
            }
            (Way::KeyFile(key), _) => {
                let opened = slot::open(&Credential::KeyFile(key.again()), self.tenant, &signer.slot, &found()?)?;
                let wrong = || Error::damaged(self.names.slot(&signer.slot), "it does not open with its key file");
                let mut theirs = opened.ok_or_else(wrong)?;
                theirs.add_later(&all().0);
                by_key_file(key, &theirs).map(Some)
            }
            (Way::Recipient(public), _) => {
                let mut slot = found()?;
                slot::add_later(&mut slot, &signer.slot, public, &all())?;
                Ok(Some(slot))
            }
            (Way::Dropped, _) => Ok(None),
        }
    }

    /// That the key in use opens its slot as the store has it, and finds the new private key there: whatever
    /// befalls the others, one key can read what will be written.
    fn prove_own(&self, credential: &Credential, private: &[u8; 32]) -> Result<()> {
        let name = self.names.slot(&self.slot);
        let slot = read_slot(&*self.store, &self.names, &self.slot)?;
        let slot = slot.ok_or_else(|| Error::Missing { object: name.clone() })?;
        let opened = slot::open(credential, self.tenant, &self.slot, &slot)?;
        if opened.is_some_and(|bundle| bundle.private_key.as_ref() == Some(private)) {
            return Ok(());
        }
        Err(Error::damaged(name, "it was sealed anew, and does not hold what was put there"))
    }

    /// Those of these packs that are sealed to a key pair which the tenant had before. Reads the head of each.
    /// What is damaged, gone or frozen is left out.
    ///
    /// # Errors
    /// [`Error::NotAllowed`] with a writer key, or the store's.
    pub fn sealed_to_former(&self, packs: &[PackName]) -> Result<Vec<PackName>> {
        let full = self.full.as_ref().ok_or(Error::NotAllowed { what: "read what was stored" })?;
        if full.private_keys.len() < 2 {
            return Ok(Vec::new());
        }
        let latest = self.public.to_bytes();
        let place = full.publics.iter().position(|public| public.to_bytes() == latest);
        let lacks = || Error::damaged(self.names.slot(&self.slot), "it lacks the tenant's latest private key");
        let latest = place.and_then(|n| full.private_keys.get(n)).ok_or_else(lacks)?;
        let latest = PrivateKey::from_bytes(latest)?.0;
        let mut former = Vec::new();
        ask(
            &*self.store,
            packs,
            |pack| self.store.read_range(&self.names.pack(pack), 0, FRAMES_AT as usize),
            |pack, head| {
                let head = match head {
                    Ok(head) => head,
                    Err(e) if matches!(e.fault, StoreFault::NotFound | StoreFault::Size | StoreFault::Frozen) => {
                        return Ok(());
                    }
                    Err(e) => return Err(e.into()),
                };
                let opens = |key: &PrivateKey| PackKey::open(&self.realm(), key, pack, &head).is_ok();
                if !opens(&latest) && opens(&full.private) {
                    former.push(*pack);
                }
                Ok(())
            },
        )?;
        Ok(former)
    }
}
