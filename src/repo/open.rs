//! Opening a repository for one tenant: record, slot, signers. Three small
//! reads and a listing; nothing grows with the repository.

use super::create::{self, decode_tenant};
use super::mended::MendedPacks;
use super::met::{Meeting, Memory};
use super::packkeys::PackKeys;
use super::sync::StoreKeeper;
use super::{FrameCache, FullKeys, LocalFolder, Repository, full_signers, keys, salvage};
use crate::chunker::Chunker;
use crate::clock::Clock;
use crate::crypto::aead::KeyBytes;
use crate::crypto::derive::IdKeys;
use crate::crypto::envelope::Realm;
use crate::crypto::hpke::{PrivateKey, PublicKey};
use crate::crypto::sign::Signing;
use crate::crypto::slot::{self, Credential};
use crate::crypto::stack;
use crate::error::{Error, Result, StoreFault};
use crate::format::header::Cipher;
use crate::format::key::{Bundle, Signer, SignerList, SlotKind};
use crate::format::names::TenantNames;
use crate::format::records::{RepoRecord, TenantRecord};
use crate::id::{RepositoryId, SignerId, SlotId, TenantId};
use crate::index::Index;
use crate::limits;
use crate::store::{Looking, Store};
use std::path::{Path, PathBuf};
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
        let opened = Self::unlock(access);
        stack::wipe();
        opened
    }

    #[inline(never)]
    fn unlock(access: Access) -> Result<Self> {
        let Access { store, clock, tenant, credential, cache } = access;
        let names = TenantNames::new(&tenant)?;
        let mut salvaged = Vec::new();
        let (store, place, creates_if_absent) = known_store(store, &mut salvaged)?;
        // Before the slot: where copies are kept, one counts by what is listed.
        let (slots, newest) = keys::list_keys(&*store, &names)?;
        let Tenant { cipher, record, unlocked, full } =
            open_tenant(&*store, &names, &credential, &slots, &mut salvaged)?;
        let Unlocked { slot: slot_id, kind, bundle } = unlocked;
        let tenant_verifying = SignerId(record.verifying);
        let keys = Box::new(IdKeys::new(&bundle.id_key));
        let mut meeting = Meeting {
            place: store.describe(),
            name: &tenant,
            tenant: record.id,
            fingerprint: tenant_verifying,
            proven: kind != SlotKind::Recipient,
            mirror: None,
        };
        let (id, local) = open_local(cache.clone(), &mut meeting, place, &mut salvaged)?;
        let memory = meet(&meeting, cache.as_deref(), &local)?;

        let realm = Realm { tenant: record.id, keys: &keys };
        let signers = match (newest, &full) {
            (0, Some(full)) => {
                // Where the tenant was used already, its list is missing.
                if !salvaged.is_empty() || is_used(&*store, &names)? {
                    return Err(Error::Missing { object: names.signers(1) });
                }
                local.check_seen(&tenant, tenant_verifying, 1)?;
                let own = own_entry(&bundle, slot_id, kind, &*clock);
                complete_making(&*store, &names, cipher, &realm, full, own)?
            }
            (0, None) => return Err(Error::Missing { object: names.signers(1) }),
            _ => newest_list(&*store, &names, &realm, tenant_verifying, newest, &mut salvaged)?,
        };
        check_list(&local, &tenant, (tenant_verifying, signers.version), full.is_some(), &mut salvaged)?;
        let signing = Box::new(Signing::from_seed(&bundle.signer_seed));
        is_present(&signers, (signing.id(), slot_id), &tenant, !salvaged.is_empty())?;
        let public = current_public(&signers, &record, &names)?;
        salvaged.extend(full.as_ref().and_then(|full| lacking(full, &public, &names, &slot_id)));
        memory.and_then(|memory| memory.keep().err()).iter().for_each(|e| local.unusable(e));
        let keeper = StoreKeeper::new(
            (&store, &names),
            (record.id, &bundle.id_key),
            (&signers, tenant_verifying),
            (&local, meeting.mirror.is_some()),
        );
        let full_signers = full_signers(&signers, tenant_verifying);
        let index = open_index(&local)?.kept(Box::new(keeper)).trusting(signing.id(), full_signers);
        let chunker = Chunker::new(&keys.gear);
        Ok(Self {
            store,
            clock,
            creates_if_absent,
            is_mirror: meeting.mirror.is_some(),
            id,
            names,
            tenant: record.id,
            tenant_verifying,
            cipher,
            slot: slot_id,
            keys,
            public,
            full,
            signing,
            signers,
            index,
            local,
            chunker,
            salvaged,
            frames: FrameCache::new(limits::TREE_CACHE_BYTES),
            pack_keys: PackKeys::default(),
            mended: MendedPacks::default(),
            id_key: Box::new(Zeroizing::new(bundle.id_key)),
        })
    }
}

/// The store, with as much care as it takes; the repository's own object, and whether the store heeds the
/// condition of a create, as far as that is there to say so.
fn known_store(
    store: Arc<dyn Store>,
    salvaged: &mut Vec<Error>,
) -> Result<(Arc<dyn Store>, Option<RepoRecord>, bool)> {
    let record = repo_record(&*store, salvaged)?;
    let creates_if_absent = record.is_none_or(|record| record.create_if_absent);
    let store = if creates_if_absent { store } else { Arc::new(Looking(store)) };
    Ok((store, record, creates_if_absent))
}

/// The repository's own object; none where it is lost.
fn repo_record(store: &dyn Store, salvaged: &mut Vec<Error>) -> Result<Option<RepoRecord>> {
    match create::record(store) {
        Err(e) if salvage::is_possible(&e) => {
            salvaged.push(e);
            Ok(None)
        }
        other => other.map(Some),
    }
}

/// Holds the tenant against what this machine has met, if it can be remembered.
fn meet(meeting: &Meeting<'_>, cache: Option<&Path>, local: &LocalFolder) -> Result<Option<Memory>> {
    match meeting.check(cache) {
        Err(e @ Error::Local { .. }) => {
            local.unusable(&e);
            Ok(None)
        }
        other => other,
    }
}

/// True for a tenant that has been used: it had a list of signers, whoever took it away.
fn is_used(store: &dyn Store, names: &TenantNames) -> Result<bool> {
    Ok(!store.list(&names.snapshots())?.is_empty() || !store.list(&names.indexes())?.is_empty())
}

/// The newest list of signers, or the newest that can be read.
fn newest_list(
    store: &dyn Store,
    names: &TenantNames,
    realm: &Realm<'_>,
    tenant: SignerId,
    newest: u64,
    salvaged: &mut Vec<Error>,
) -> Result<SignerList> {
    match keys::read_signers(store, names, realm, tenant, newest) {
        Err(e) if salvage::is_possible(&e) => match salvage::signers(store, names, realm, tenant, newest)? {
            Some(list) => {
                salvaged.push(e);
                Ok(list)
            }
            None => Err(e),
        },
        other => other,
    }
}

/// The index on this machine; where its folder cannot be used, one that is forgotten with the process.
fn open_index(local: &LocalFolder) -> Result<Index> {
    let Some(folder) = local.path() else { return Index::in_memory() };
    match Index::open(folder) {
        Err(e @ Error::Local { .. }) => {
            local.unusable(&e);
            Index::in_memory()
        }
        opened => opened,
    }
}

/// The local state of the tenant, below the id under which this machine has met it, or that of the mirror.
fn open_local(
    cache: Option<PathBuf>,
    meeting: &mut Meeting<'_>,
    record: Option<RepoRecord>,
    salvaged: &mut Vec<Error>,
) -> Result<(RepositoryId, LocalFolder)> {
    let (name, tenant, named) = (meeting.name, meeting.tenant, record.map(|record| record.id));
    let before = cache.as_deref().and_then(|root| meeting.met_before(root));
    meeting.mirror = record.and_then(|record| record.mirror).or(before.flatten());
    if let (Some(before), Some(record), Some(root)) = (before, record, &cache)
        && before.is_some() != record.mirror.is_some()
    {
        // Whoever holds the store could give a memory away by calling it another place.
        let (what, met) =
            if before.is_some() { ("the repository itself", "a mirror of it") } else { ("a mirror", "no mirror") };
        let file = meeting.place_file(root);
        let why = format!(
            "it says that {what} lies there, and this machine has met {met}; if that is right, remove {}",
            file.display()
        );
        salvaged.push(Error::damaged(crate::format::names::REPO, why));
        meeting.mirror = before;
    }
    if let (Some(mirror), Some(root)) = (meeting.mirror, &cache) {
        let local = LocalFolder::of_mirror(root, mirror, name, tenant)?;
        if before.flatten().is_some_and(|before| before != mirror) && local.is_new() {
            let told = "another mirror lies there than this machine has met: nothing is known here of what it held";
            local.warn(told.into());
        }
        return Ok((named.unwrap_or(mirror), local));
    }
    let met = LocalFolder::repository_of(cache.as_deref(), tenant, named);
    if let (Some(_), Some(met), Some(cache)) = (named, met, &cache)
        && named != Some(met)
    {
        let why = format!(
            "it is another repository's than that in which this machine has met the tenant; if it was really moved, remove {}",
            cache.join(met.to_string()).join(tenant.to_string()).display()
        );
        salvaged.push(Error::damaged(crate::format::names::REPO, why));
    }
    let id = met.or(named);
    // Without an id there is no place for it.
    let cache = cache.filter(|_| id.is_some());
    let id = id.unwrap_or(RepositoryId([0; 16]));
    Ok((id, LocalFolder::new(cache.as_deref(), id, name, tenant)?))
}

/// Where something is `lost`, it may be the list that admits the key, or gives it the slot that it has now.
fn is_present(signers: &SignerList, (key, slot): (SignerId, SlotId), tenant: &str, lost: bool) -> Result<()> {
    let listed = signers.signers.iter().find(|s| s.id == key);
    match listed {
        None if lost => Ok(()),
        Some(listed) if lost => keys::check_admitted(signers, &key, &listed.slot, tenant),
        _ => keys::check_admitted(signers, &key, &slot, tenant),
    }
}

/// The public key that new objects are sealed to: who rekeyed the tenant has named it in the list of signers,
/// which the tenant's own key signs.
pub(super) fn current_public(signers: &SignerList, record: &TenantRecord, names: &TenantNames) -> Result<PublicKey> {
    let (bytes, object) = match &signers.public_key {
        Some(bytes) => (bytes, names.signers(signers.version)),
        None => (&record.public_key, names.tenant()),
    };
    PublicKey::from_bytes(bytes).map_err(|e| e.of(object))
}

/// That this machine has seen no newer list of signers of the tenant; a full key may read on if it has.
fn check_list(
    local: &LocalFolder,
    tenant: &str,
    (verifying, version): (SignerId, u64),
    is_full: bool,
    salvaged: &mut Vec<Error>,
) -> Result<()> {
    match local.check_seen(tenant, verifying, version) {
        Err(e) if local.is_rollback(verifying, version) => salvaged.push(e),
        other => other?,
    }
    // A writer reads nothing that could be salvaged for it.
    if !is_full && !salvaged.is_empty() {
        return Err(salvaged.remove(0));
    }
    Ok(())
}

/// What is wrong with a full key that was not given the private half of that public key.
fn lacking(full: &FullKeys, public: &PublicKey, names: &TenantNames, slot: &SlotId) -> Option<Error> {
    let why =
        "it lacks the tenant's latest private key: let another full key run 'key rekey', or admit this one again";
    (!full.holds(public)).then(|| Error::damaged(names.slot(slot), why))
}

/// The tenant's making was interrupted before there was a list of signers: the full key that opens it first,
/// which made it, writes the first one.
fn complete_making(
    store: &dyn Store,
    names: &TenantNames,
    cipher: Cipher,
    realm: &Realm<'_>,
    full: &FullKeys,
    own: Signer,
) -> Result<SignerList> {
    let list = SignerList { version: 1, signers: vec![own], ..SignerList::default() };
    keys::write_signers(store, names, cipher, realm, &full.tenant_signing, &list)?;
    Ok(list)
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
        recipient: None,
        is_operator: false,
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

/// A tenant whose slot was opened.
struct Tenant {
    cipher: Cipher,
    record: TenantRecord,
    unlocked: Unlocked,
    full: Option<Box<FullKeys>>,
}

/// A slot that was opened.
pub(super) struct Unlocked {
    pub slot: SlotId,
    pub kind: SlotKind,
    pub bundle: Bundle,
}

/// Reads the tenant's record and opens a slot; where the record is lost, a full key makes it anew.
fn open_tenant(
    store: &dyn Store,
    names: &TenantNames,
    credential: &Credential,
    slots: &[SlotId],
    salvaged: &mut Vec<Error>,
) -> Result<Tenant> {
    let open = || {
        let (cipher, record) = read_tenant(store, names)?;
        let unlocked = match find_slot(store, names, record.id, credential, slots) {
            Err(Error::WrongKey { .. }) if is_alone(store, names, record.id)? => {
                return Err(Error::damaged(names.tenant(), "no slot beside it is of the tenant that it names"));
            }
            other => other?,
        };
        if unlocked.bundle.tenant_verifying != record.verifying {
            return Err(Error::damaged(names.tenant(), "it is not the record that this key's tenant signed"));
        }
        Ok((cipher, record, unlocked))
    };
    let (cipher, record, unlocked) = match open() {
        Err(e) if salvage::is_possible(&e) && e.object() == Some(&names.tenant()) => {
            let Some((record, unlocked)) = salvage::tenant(store, names, credential)? else { return Err(e) };
            salvaged.push(e);
            (crate::crypto::aead::preferred(), record, unlocked)
        }
        other => other?,
    };
    let public = PublicKey::from_bytes(&record.public_key).map_err(|e| e.of(names.tenant()))?;
    let full = full_keys(&unlocked.bundle, &public, names)?;
    Ok(Tenant { cipher, record, unlocked, full })
}

/// `first` is the public key with which the tenant was made.
pub(super) fn full_keys(bundle: &Bundle, first: &PublicKey, names: &TenantNames) -> Result<Option<Box<FullKeys>>> {
    let (Some(private), Some(seed)) = (&bundle.private_key, &bundle.tenant_seed) else { return Ok(None) };
    let mut private_keys = Zeroizing::new(Vec::with_capacity(1 + bundle.former_keys.len()));
    private_keys.push(*private);
    private_keys.extend_from_slice(&bundle.former_keys);
    let (private, publics) = PrivateKey::from_all(&private_keys)?;
    let tenant_seed: KeyBytes = Zeroizing::new(*seed);
    let full = FullKeys { private, publics, tenant_signing: Signing::from_seed(seed), private_keys, tenant_seed };
    if !full.holds(first) {
        return Err(Error::damaged(names.tenant(), "its public key is not the tenant's"));
    }
    Ok(Some(Box::new(full)))
}

impl FullKeys {
    /// True if what is sealed to this public key can be opened.
    pub(super) fn holds(&self, public: &PublicKey) -> bool {
        let bytes = public.to_bytes();
        self.publics.iter().any(|own| own.to_bytes() == bytes)
    }
}

/// A key file's slot is found by its name; for a password every slot that is listed is tried.
pub(super) fn find_slot(
    store: &dyn Store,
    names: &TenantNames,
    tenant: TenantId,
    credential: &Credential,
    listed: &[SlotId],
) -> Result<Unlocked> {
    let (candidates, by_name) = match credential {
        Credential::KeyFile(key) => (slot::key_file_slots(key, tenant).to_vec(), true),
        Credential::Password(_) => (listed.to_vec(), false),
    };
    let (mut damaged, mut passwords) = (None, 0);
    for &id in &candidates {
        let opened = match keys::read_slot(store, names, &id) {
            // Left by a making that was interrupted; it is not worth the time that a password takes.
            Ok(Some(slot)) if !by_name && slot.tenant != tenant => continue,
            Ok(Some(slot)) if slot.tenant != tenant => {
                Err(Error::damaged(names.slot(&id), "it is another tenant's slot"))
            }
            Ok(Some(slot)) if !by_name && slot.kind == SlotKind::Password => {
                passwords += 1;
                if passwords > limits::PASSWORD_SLOTS_MAX {
                    let why = format!("more than {} slots for passwords: no more are tried", passwords - 1);
                    return Err(Error::damaged(names.keys(), why));
                }
                slot::open(credential, tenant, &id, &slot).map(|b| b.map(|b| (slot.kind, b)))
            }
            Ok(Some(slot)) => slot::open(credential, tenant, &id, &slot).map(|b| b.map(|b| (slot.kind, b))),
            Ok(None) => continue,
            Err(e) => Err(e),
        };
        match opened {
            Ok(Some((kind, bundle))) => return Ok(Unlocked { slot: id, kind, bundle }),
            // Nobody else's slot has a name that follows from this key.
            Ok(None) if by_name => damaged = Some(Error::damaged(names.slot(&id), "does not open: it was changed")),
            Ok(None) => {}
            // Another slot may still open; if none does, this is what the user must hear.
            Err(e) => damaged = Some(e),
        }
    }
    let why = match candidates.first().filter(|_| by_name) {
        // Erasing begins with the slots.
        _ if listed.is_empty() => "it has no slot at all: the tenant was erased, or is being erased".into(),
        Some(id) => format!("it has no slot there ({})", names.slot(id)),
        None => "no slot opens with the password".into(),
    };
    Err(damaged.unwrap_or_else(|| Error::WrongKey { tenant: names.name().into(), why }))
}

/// True if there are slots, and none of them is this tenant's: the record is another's.
fn is_alone(store: &dyn Store, names: &TenantNames, tenant: TenantId) -> Result<bool> {
    let mut others = false;
    for id in keys::list_keys(store, names)?.0 {
        match keys::read_slot(store, names, &id) {
            Ok(Some(slot)) if slot.tenant == tenant => return Ok(false),
            Ok(Some(_)) => others = true,
            Err(e) if !e.is_damage() => return Err(e),
            Ok(None) | Err(_) => {}
        }
    }
    Ok(others)
}
