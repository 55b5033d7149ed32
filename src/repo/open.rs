//! Opening a repository for one tenant: record, slot, signers. Three small
//! reads and a listing; nothing grows with the repository.

use super::create::{decode_tenant, repository_id};
use super::met::Meeting;
use super::{FrameCache, FullKeys, LocalFolder, Repository, keys};
use crate::chunker::Chunker;
use crate::clock::Clock;
use crate::crypto::aead::KeyBytes;
use crate::crypto::derive::IdKeys;
use crate::crypto::envelope::Realm;
use crate::crypto::hpke::{PrivateKey, PublicKey};
use crate::crypto::sign::Signing;
use crate::crypto::slot::{self, Credential};
use crate::error::{Error, Result, StoreFault};
use crate::format::header::Cipher;
use crate::format::key::{Bundle, Signer, SignerList, SlotKind};
use crate::format::names::TenantNames;
use crate::format::records::TenantRecord;
use crate::id::{SignerId, SlotId};
use crate::index::Index;
use crate::limits;
use crate::store::Store;
use std::path::PathBuf;
use std::sync::Arc;
use zeroize::Zeroizing;

/// How to get in.
pub struct Access {
    /// Where the repository lies.
    pub store: Arc<dyn Store>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The tenant's name.
    pub tenant: String,
    /// What opens a slot.
    pub credential: Credential,
    /// Where local state is kept; `None` keeps nothing.
    pub cache: Option<PathBuf>,
}

impl Repository {
    /// Opens a repository.
    ///
    /// # Errors
    /// [`Error::NoRepository`], [`Error::NoTenant`], [`Error::WrongKey`], [`Error::Newer`],
    /// [`Error::Damaged`], or the store's.
    pub fn open(access: Access) -> Result<Self> {
        let Access { store, clock, tenant, credential, cache } = access;
        let names = TenantNames::new(&tenant)?;
        let id = repository_id(&*store)?;
        let (cipher, record) = read_tenant(&*store, &names)?;
        let (slot_id, kind, bundle) = find_slot(&*store, &names, &record, &credential)?;
        if bundle.tenant_verifying != record.verifying {
            return Err(Error::damaged(names.tenant(), "it is not the record that this key's tenant signed"));
        }
        let tenant_verifying = SignerId(record.verifying);
        let public = PublicKey::from_bytes(&record.public_key).map_err(|e| e.of(names.tenant()))?;
        let keys = IdKeys::new(&bundle.id_key);
        let full = full_keys(&bundle, &public, &names)?;
        let meeting = Meeting {
            place: store.describe(),
            repository: id,
            name: &tenant,
            tenant: record.id,
            fingerprint: tenant_verifying,
            proven: kind != SlotKind::Recipient,
        };
        let memory = meeting.check(cache.as_deref())?;
        let local = LocalFolder::new(cache.as_deref(), id, &tenant, record.id)?;

        let realm = Realm { tenant: record.id, keys: &keys };
        let (_, newest) = keys::list_keys(&*store, &names)?;
        let signers = match (newest, &full) {
            (0, Some(full)) => {
                // The tenant's making was interrupted: this key, which made it, completes it. One that
                // has been used had a list, which somebody took away.
                if !store.list(&names.snapshots())?.is_empty() || !store.list(&names.indexes())?.is_empty() {
                    return Err(Error::Missing { object: names.signers(1) });
                }
                let list = SignerList { version: 1, signers: vec![own_entry(&bundle, slot_id, kind, &*clock)] };
                local.check_seen(&tenant, tenant_verifying, 1)?;
                keys::write_signers(&*store, &names, cipher, &realm, &full.tenant_signing, &list)?;
                list
            }
            (0, None) => return Err(Error::Missing { object: names.signers(1) }),
            _ => keys::read_signers(&*store, &names, &realm, tenant_verifying, newest)?,
        };
        local.check_seen(&tenant, tenant_verifying, signers.version)?;
        let signing = Signing::from_seed(&bundle.signer_seed);
        keys::check_admitted(&signers, &signing.id(), &tenant)?;
        if let Some(memory) = memory {
            memory.keep()?;
        }
        let index = match local.path() {
            Some(folder) => Index::open(folder)?,
            None => Index::in_memory()?,
        };
        let chunker = Chunker::new(&keys.gear);
        Ok(Self {
            store,
            clock,
            id,
            names,
            tenant: record.id,
            tenant_verifying,
            cipher,
            keys,
            public,
            full,
            signing,
            signers,
            index,
            local,
            chunker,
            frames: FrameCache::new(limits::TREE_CACHE_BYTES),
            id_key: Zeroizing::new(bundle.id_key),
        })
    }
}

fn own_entry(bundle: &Bundle, slot: SlotId, kind: SlotKind, clock: &dyn Clock) -> Signer {
    Signer {
        id: Signing::from_seed(&bundle.signer_seed).id(),
        role: bundle.role,
        label: String::new(),
        slot,
        kind,
        added: clock.now(),
        removed: None,
    }
}

fn read_tenant(store: &dyn Store, names: &TenantNames) -> Result<(Cipher, TenantRecord)> {
    let name = names.tenant();
    match store.read(&name, limits::RECORD_MAX) {
        Ok(bytes) => decode_tenant(&bytes, &name).map(|(header, record)| (header.cipher, record)),
        // Slots come before the record: without it they are left by a making that was interrupted. What
        // comes after it shows that it was there.
        Err(e) if e.fault == StoreFault::NotFound && keys::list_keys(store, names)?.1 == 0 => {
            Err(Error::NoTenant { name: names.name().into() })
        }
        Err(e) => Err(e.into()),
    }
}

fn full_keys(bundle: &Bundle, public: &PublicKey, names: &TenantNames) -> Result<Option<FullKeys>> {
    let (Some(private), Some(seed)) = (&bundle.private_key, &bundle.tenant_seed) else { return Ok(None) };
    let (private_key, its_public) = PrivateKey::from_bytes(private)?;
    if its_public.to_bytes() != public.to_bytes() {
        return Err(Error::damaged(names.tenant(), "its public key is not the tenant's"));
    }
    let copy = |bytes: &[u8; 32]| -> KeyBytes { Zeroizing::new(*bytes) };
    Ok(Some(FullKeys {
        private: private_key,
        tenant_signing: Signing::from_seed(seed),
        private_bytes: copy(private),
        tenant_seed: copy(seed),
    }))
}

/// A key file's slot is found by its name; for a password every password slot is tried.
fn find_slot(
    store: &dyn Store,
    names: &TenantNames,
    record: &TenantRecord,
    credential: &Credential,
) -> Result<(SlotId, SlotKind, Bundle)> {
    let (candidates, by_name) = match credential {
        Credential::KeyFile(key) => (slot::key_file_slots(key, record.id).to_vec(), true),
        Credential::Password(_) => (keys::list_keys(store, names)?.0, false),
    };
    let mut damaged = None;
    for &id in &candidates {
        let opened = match keys::read_slot(store, names, &id) {
            Ok(Some(slot)) => slot::open(credential, record.id, &id, &slot).map(|b| b.map(|b| (slot.kind, b))),
            Ok(None) => continue,
            Err(e) => Err(e),
        };
        match opened {
            Ok(Some((kind, bundle))) => return Ok((id, kind, bundle)),
            // Nobody else's slot has a name that follows from this key.
            Ok(None) if by_name => damaged = Some(Error::damaged(names.slot(&id), "does not open: it was changed")),
            Ok(None) => {}
            // Another slot may still open; if none does, this is what the user must hear.
            Err(e) => damaged = Some(e),
        }
    }
    match damaged {
        Some(e) => Err(e),
        None => Err(no_slot(store, names, record, candidates.first().filter(|_| by_name))?),
    }
}

/// Why no slot opens: the record is another tenant's, or the key has none.
fn no_slot(store: &dyn Store, names: &TenantNames, record: &TenantRecord, named: Option<&SlotId>) -> Result<Error> {
    let mut theirs = false;
    for id in keys::list_keys(store, names)?.0 {
        match keys::read_slot(store, names, &id) {
            Ok(Some(slot)) if slot.tenant != record.id => theirs = true,
            Ok(Some(_)) => {
                theirs = false;
                break;
            }
            Err(e) if !e.is_damage() => return Err(e),
            Ok(None) | Err(_) => {}
        }
    }
    if theirs {
        return Ok(Error::damaged(names.tenant(), "no slot beside it is of the tenant that it names"));
    }
    let why = match named {
        Some(id) => format!("it has no slot there ({})", names.slot(id)),
        None => "no slot opens with the password".into(),
    };
    Ok(Error::WrongKey { tenant: names.name().into(), why })
}
