//! Making a repository and its tenants.
//!
//! `repo.json` first, then for a tenant: a slot, the tenant's record, the list
//! of signers. The record is the commit. A crash before it leaves a slot that
//! nothing names; a crash after it leaves a tenant whose list the first full
//! key that opens it writes. Doing it again is safe at every step.

use super::absent;
use super::keys::{self, NewKey, Secret};
use crate::clock::Clock;
use crate::crypto::aead::KeyBytes;
use crate::crypto::derive::IdKeys;
use crate::crypto::envelope::Realm;
use crate::crypto::hpke;
use crate::crypto::random;
use crate::crypto::sign::{Place, Signing};
use crate::crypto::slot;
use crate::error::{Error, Result, StoreFault};
use crate::format::header::{self, Cipher, Header, ObjectType};
use crate::format::key::{Bundle, Role, SignerList};
use crate::format::names::{self, TenantNames};
use crate::format::parity::Parity;
use crate::format::records::{RepoRecord, TenantRecord};
use crate::id::{RepositoryId, SignerId, TenantId};
use crate::limits;
use crate::store::Store;
use bytes::Bytes;
use zeroize::Zeroizing;

/// The key from which a tenant's ids follow, to be given to another tenant. Every key of a tenant holds it.
pub struct IdKey(pub(super) KeyBytes);

/// A tenant that was made.
pub struct NewTenant {
    /// Its id.
    pub id: TenantId,
    /// The public half of its signing key.
    pub fingerprint: SignerId,
}

/// How a new tenant's objects are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// What seals them.
    pub cipher: Cipher,
    /// How much parity its packs get. If its making is interrupted before the list of signers is there, none.
    pub parity: Parity,
}

impl From<Cipher> for Terms {
    fn from(cipher: Cipher) -> Self {
        Self { cipher, parity: Parity::NONE }
    }
}

/// Makes a repository, and its first tenant. One whose making was interrupted is completed.
///
/// # Errors
/// [`Error::Exists`] if it is complete already.
pub fn init(
    store: &dyn Store,
    clock: &dyn Clock,
    tenant: &str,
    terms: impl Into<Terms>,
    key: &NewKey,
) -> Result<(RepositoryId, NewTenant)> {
    init_like(store, clock, tenant, terms, (key, None))
}

/// The same with the id key of another tenant, if one is given: then equal content has equal ids in both.
///
/// # Errors
/// See [`init`].
pub fn init_like(
    store: &dyn Store,
    clock: &dyn Clock,
    tenant: &str,
    terms: impl Into<Terms>,
    (key, id_key): (&NewKey, Option<&IdKey>),
) -> Result<(RepositoryId, NewTenant)> {
    let tenant_names = TenantNames::new(tenant)?;
    if let Err(e @ Error::Missing { .. }) = repository_id(store) {
        return Err(e);
    }
    let record = RepoRecord { id: RepositoryId(random::bytes()?), create_if_absent: true, mirror: None };
    let id = if create_record(store, record)? {
        record.id
    } else {
        let id = repository_id(store)?;
        if !store.list(names::TENANTS)?.iter().all(|o| !o.name.ends_with("/tenant")) {
            return Err(Error::Exists { what: format!("a repository at {}", store.describe()) });
        }
        id
    };
    Ok((id, make_tenant(store, clock, &tenant_names, terms.into(), (key, id_key))?))
}

/// Creates the repository's own object; false if there is one.
///
/// # Errors
/// The store's.
pub(super) fn create_record(store: &dyn Store, record: RepoRecord) -> Result<bool> {
    match absent::create(store, names::REPO, &Bytes::from(record.encode())) {
        Ok(()) => {
            // A store that ignores the condition says so itself: this is there then.
            let unable = RepoRecord { create_if_absent: false, ..record };
            absent::refuses_twice(store, names::REPO, &unable.encode().into())?;
            Ok(true)
        }
        Err(e) if e.fault == StoreFault::Exists => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Makes another tenant.
///
/// # Errors
/// [`Error::NoRepository`], [`Error::Exists`], or the store's.
pub fn add_tenant(
    store: &dyn Store,
    clock: &dyn Clock,
    tenant: &str,
    terms: impl Into<Terms>,
    key: &NewKey,
) -> Result<NewTenant> {
    add_tenant_like(store, clock, tenant, terms, (key, None))
}

/// The same with the id key of another tenant, if one is given: then equal content has equal ids in both.
///
/// # Errors
/// See [`add_tenant`].
pub fn add_tenant_like(
    store: &dyn Store,
    clock: &dyn Clock,
    tenant: &str,
    terms: impl Into<Terms>,
    (key, id_key): (&NewKey, Option<&IdKey>),
) -> Result<NewTenant> {
    repository_id(store)?;
    make_tenant(store, clock, &TenantNames::new(tenant)?, terms.into(), (key, id_key))
}

/// The id of the repository in a store.
///
/// # Errors
/// [`Error::NoRepository`] if there is none, [`Error::Missing`] if there are tenants without it;
/// [`Error::Newer`], [`Error::Damaged`].
pub fn repository_id(store: &dyn Store) -> Result<RepositoryId> {
    record(store).map(|record| record.id)
}

/// The repository's own object in a store.
///
/// # Errors
/// See [`repository_id`].
pub(super) fn record(store: &dyn Store) -> Result<RepoRecord> {
    match store.read(names::REPO, limits::REPO_OBJECT_MAX) {
        Ok(bytes) => RepoRecord::decode(&bytes, names::REPO),
        // It is written first: tenants without it have lost it, and must not be taken for nothing.
        Err(e) if e.fault == StoreFault::NotFound => match store.list(names::TENANTS)?.is_empty() {
            true => Err(Error::NoRepository { place: store.describe() }),
            false => Err(Error::Missing { object: names::REPO.into() }),
        },
        Err(e) => Err(e.into()),
    }
}

/// The names of all tenants, sorted.
///
/// # Errors
/// [`Error::NoRepository`], or the store's.
pub fn tenants(store: &dyn Store) -> Result<Vec<String>> {
    repository_id(store)?;
    let mut found = Vec::new();
    for object in store.list(names::TENANTS)? {
        let mut parts = object.name.split('/').skip(1);
        if let (Some(name), Some("tenant"), None) = (parts.next(), parts.next(), parts.next()) {
            found.push(name.to_owned());
        }
    }
    Ok(found)
}

fn make_tenant(
    store: &dyn Store,
    clock: &dyn Clock,
    tenant_names: &TenantNames,
    terms: Terms,
    (key, id_key): (&NewKey, Option<&IdKey>),
) -> Result<NewTenant> {
    let cipher = terms.cipher;
    let exists = || Error::Exists { what: format!("a tenant named {}", tenant_names.name()) };
    match store.size(&tenant_names.tenant()) {
        Ok(_) => return Err(exists()),
        Err(e) if e.fault == StoreFault::NotFound => {}
        Err(e) => return Err(e.into()),
    }
    let id = TenantId(random::bytes()?);
    let (private, public) = hpke::pair_from_seed(&Zeroizing::new(random::bytes()?));
    let tenant_seed = Zeroizing::new(random::bytes()?);
    let tenant_signing = Signing::from_seed(&tenant_seed);
    let bundle = Bundle {
        role: Role::Full,
        tenant: id,
        id_key: match id_key {
            Some(id_key) => *id_key.0,
            None => random::bytes()?,
        },
        tenant_verifying: tenant_signing.id().0,
        signer_seed: random::bytes()?,
        private_key: Some(*private),
        tenant_seed: Some(*tenant_seed),
        former_keys: Vec::new(),
    };
    let (slot_id, slot) = slot::seal(&key.holder(), &bundle)?;
    keys::write_slot(store, tenant_names, cipher, &slot_id, &slot)?;

    let record = TenantRecord { id, public_key: public.to_bytes(), verifying: tenant_signing.id().0 };
    let object = encode_tenant(&record, cipher, &tenant_signing);
    match absent::create(store, &tenant_names.tenant(), &object.into()) {
        Ok(()) => {}
        Err(e) if e.fault == StoreFault::Exists => return Err(exists()),
        Err(e) => return Err(e.into()),
    }
    let signer = keys::signer_entry(&bundle, key, slot_id, slot.kind, clock.now());
    let list = SignerList { version: 1, signers: vec![signer], parity: terms.parity, public_key: None };
    let id_keys = IdKeys::new(&bundle.id_key);
    keys::write_signers(store, tenant_names, cipher, &Realm { tenant: id, keys: &id_keys }, &tenant_signing, &list)?;
    Ok(NewTenant { id, fingerprint: tenant_signing.id() })
}

/// A tenant's record has nothing fresh; its header stands there, so that its cipher is signed too.
fn place(id: TenantId, header: &[u8]) -> Place<'_> {
    Place { object: ObjectType::Tenant, tenant: id, fresh: header, name: None }
}

/// The tenant's object: header, record, signature, hash.
fn encode_tenant(record: &TenantRecord, cipher: Cipher, signing: &Signing) -> Vec<u8> {
    let payload = record.encode();
    let header = Header { object: ObjectType::Tenant, cipher }.encode();
    let mut object = header.to_vec();
    object.extend_from_slice(&payload);
    object.extend_from_slice(&signing.sign(&place(record.id, &header), &payload));
    header::close(&mut object);
    object
}

/// Reads a tenant's object, and checks that its signature is by the key that it names. Whether
/// that is the right key only a slot tells.
pub(super) fn decode_tenant(bytes: &[u8], name: &str) -> Result<(Header, TenantRecord)> {
    let header = Header::of_whole(bytes, name)?;
    let decode = || {
        let body = header::opened(bytes)?;
        let body = body.get(header::HEADER_LEN..).unwrap_or_default();
        let (payload, signature) = body
            .split_last_chunk::<64>()
            .ok_or_else(|| crate::error::Malformed::new("shorter than its signature"))?;
        let record = TenantRecord::decode(payload)?;
        crate::crypto::sign::verify(
            &SignerId(record.verifying),
            signature,
            &place(record.id, &header.encode()),
            payload,
        )?;
        Ok(record)
    };
    let record = decode().map_err(|e: crate::error::Malformed| e.of(name))?;
    if header.object != ObjectType::Tenant {
        return Err(Error::damaged(name, "it is no tenant's record"));
    }
    Ok((header, record))
}

/// Needed where a key is made together with its repository.
impl NewKey {
    /// A full key.
    pub fn full(secret: Secret, label: impl Into<String>) -> Self {
        Self { role: Role::Full, label: label.into(), secret }
    }
}
