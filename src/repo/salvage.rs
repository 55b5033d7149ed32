//! Opening what is left of a repository: with a full key everything can be read
//! though `repo.json`, the tenant's record or the newest list of signers is
//! damaged or gone. Nothing is written then: what was lost would be missed.

use super::Repository;
use super::keys;
use super::open::{Unlocked, find_slot};
use crate::crypto::envelope::Realm;
use crate::crypto::hpke::PrivateKey;
use crate::crypto::slot::Credential;
use crate::error::{Error, Result};
use crate::format::key::SignerList;
use crate::format::names::TenantNames;
use crate::format::records::TenantRecord;
use crate::id::{SignerId, TenantId};
use crate::store::Store;

/// True if there is a way around the error. None leads around what a newer program wrote.
pub(super) fn is_possible(e: &Error) -> bool {
    e.is_damage() && !matches!(e, Error::Newer { .. })
}

/// Makes the tenant's record anew from a slot that the key opens; `None` if it opens none, or holds no
/// private key.
///
/// # Errors
/// The store's.
pub(super) fn tenant(
    store: &dyn Store,
    names: &TenantNames,
    credential: &Credential,
) -> Result<Option<(TenantRecord, Unlocked)>> {
    let mut tried: Vec<TenantId> = Vec::new();
    let slots = keys::list_keys(store, names)?.0;
    for slot in &slots {
        let id = match keys::read_slot(store, names, slot) {
            Ok(Some(slot)) if !tried.contains(&slot.tenant) => slot.tenant,
            Err(e) if !e.is_damage() => return Err(e),
            _ => continue,
        };
        tried.push(id);
        let unlocked = match find_slot(store, names, id, credential, &slots) {
            Ok(unlocked) => unlocked,
            Err(e) if e.is_damage() || matches!(e, Error::WrongKey { .. }) => continue,
            Err(e) => return Err(e),
        };
        let Some(private) = &unlocked.bundle.private_key else { continue };
        // The record has the key pair with which the tenant was made.
        let first = unlocked.bundle.former_keys.last().unwrap_or(private);
        let public_key = PrivateKey::from_bytes(first)?.1.to_bytes();
        let record = TenantRecord { id, public_key, verifying: unlocked.bundle.tenant_verifying };
        return Ok(Some((record, unlocked)));
    }
    Ok(None)
}

/// The newest list of signers that can be read, below one that cannot, if there is one. Whoever it admits was
/// admitted, so what they signed may be read.
///
/// # Errors
/// The store's.
pub(super) fn signers(
    store: &dyn Store,
    names: &TenantNames,
    realm: &Realm<'_>,
    verifying: SignerId,
    newest: u64,
) -> Result<Option<SignerList>> {
    // Names may lie; only those that are there are tried.
    let mut versions = keys::list_versions(store, names)?;
    versions.retain(|version| *version < newest);
    for version in versions.into_iter().rev() {
        match keys::read_signers(store, names, realm, verifying, version) {
            Ok(list) => return Ok(Some(list)),
            Err(e) if e.is_damage() => {}
            Err(e) => return Err(e),
        }
    }
    Ok(None)
}

impl Repository {
    /// What is damaged or gone, and did not keep the repository from being opened for reading.
    pub fn salvaged(&self) -> &[Error] {
        &self.salvaged
    }

    /// That the repository may be written to.
    ///
    /// # Errors
    /// The first of [`Repository::salvaged`].
    pub fn writable(&self) -> Result<()> {
        match self.salvaged.first() {
            None => Ok(()),
            Some(Error::Missing { object }) => Err(Error::Missing { object: object.clone() }),
            Some(Error::Damaged { object, why }) => Err(Error::damaged(object, why)),
            Some(e) => Err(Error::Invalid(e.to_string())),
        }
    }
}
