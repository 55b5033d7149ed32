//! The operator of a repository: whoever keeps it, with a full key that has a
//! slot in every tenant. In each tenant's own list of signers it is marked as
//! such. Which key it is nobody takes from the store, nor from one tenant's list
//! for another tenant: a machine knows what it was told there by its user.

use super::Repository;
use super::create::{decode_tenant, tenants};
use super::keys::{NewKey, Secret, list_keys, present, read_slot};
use super::local::write_replacing;
use super::sweep::MET;
use crate::crypto::hpke::PublicKey;
use crate::crypto::keyfile::{recipient_from_text, recipient_to_text};
use crate::crypto::slot;
use crate::error::{Error, Result, StoreFault};
use crate::format::key::{Role, Signer, SlotKind};
use crate::format::names::TenantNames;
use crate::id::RepositoryId;
use crate::limits;
use crate::store::Store;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// What an operator's key is called.
const LABEL: &str = "operator";

fn memory(root: &Path, repository: RepositoryId) -> PathBuf {
    root.join(MET).join(format!("operator-{repository}"))
}

/// The operator that this machine was told of for a repository.
///
/// # Errors
/// [`Error::Local`]; what is damaged is as good as lost.
pub fn known_operator(root: &Path, repository: RepositoryId) -> Result<Option<PublicKey>> {
    let path = memory(root, repository);
    match std::fs::read(&path) {
        Ok(bytes) => Ok(std::str::from_utf8(&bytes).ok().and_then(|text| recipient_from_text(text).ok())),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::Local { path, why: e.to_string() }),
    }
}

/// Remembers on this machine who the operator of a repository is: tenants that are made here give it a slot.
///
/// # Errors
/// [`Error::Local`].
pub fn remember_operator(root: &Path, repository: RepositoryId, operator: &PublicKey) -> Result<()> {
    let path = memory(root, repository);
    let write = || {
        let folder = root.join(MET);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        write_replacing(&path, recipient_to_text(operator).as_bytes())
    };
    write().map_err(|e| Error::Local { path: path.clone(), why: e.to_string() })
}

/// The tenants in which this operator has no slot. Whether one that is there opens, only its key tells.
///
/// # Errors
/// The store's.
pub fn lacking_operator(store: &dyn Store, operator: &PublicKey) -> Result<Vec<String>> {
    let mut lacking = Vec::new();
    for tenant in tenants(store)? {
        let names = TenantNames::new(&tenant)?;
        let name = names.tenant();
        let bytes = match store.read(&name, limits::RECORD_MAX) {
            Ok(bytes) => bytes,
            Err(e) if e.fault == StoreFault::NotFound => continue,
            Err(e) => return Err(e.into()),
        };
        let has_slot = match decode_tenant(&bytes, &name) {
            Ok((_, record)) => match store.size(&names.slot(&slot::recipient_slot(operator, record.id))) {
                Ok(_) => true,
                Err(e) if e.fault == StoreFault::NotFound => false,
                Err(e) => return Err(e.into()),
            },
            Err(e) if e.is_damage() => false,
            Err(e) => return Err(e),
        };
        if !has_slot {
            lacking.push(tenant);
        }
    }
    Ok(lacking)
}

/// The first of these tenants that has a slot for a recipient, who may be the operator.
///
/// # Errors
/// The store's.
pub fn with_recipient(store: &dyn Store, among: &[String]) -> Result<Option<String>> {
    for tenant in among.iter().take(limits::OPERATOR_LOOKS) {
        let names = TenantNames::new(tenant)?;
        for id in list_keys(store, &names)?.0 {
            match read_slot(store, &names, &id) {
                Ok(Some(slot)) if slot.kind == SlotKind::Recipient => return Ok(Some(tenant.clone())),
                Err(e) if !e.is_damage() => return Err(e),
                _ => {}
            }
        }
    }
    Ok(None)
}

impl Repository {
    /// Gives the repository's operator a full key of this tenant; one that has a full key already is marked.
    ///
    /// # Errors
    /// [`Error::NotAllowed`] with a writer key; [`Error::Exists`] if it is marked already, or another key is;
    /// those of [`Repository::add_key`].
    pub fn add_operator(&mut self, operator: &PublicKey) -> Result<Signer> {
        self.tenant_signing("admit keys")?;
        let slot = slot::recipient_slot(operator, self.tenant);
        if let Some(there) = present(&self.signers).find(|s| s.is_operator) {
            let what = match there.slot == slot {
                true => "a slot for this operator".to_owned(),
                false => format!("an operator's key ({}): remove it first; it", there.slot.short()),
            };
            return Err(Error::Exists { what });
        }
        if !present(&self.signers).any(|s| s.slot == slot && s.role == Role::Full) {
            let secret = Secret::Recipient(Box::new(operator.clone()));
            return self.admit(&NewKey { role: Role::Full, label: LABEL.into(), secret }, true);
        }
        self.change_signers("admit keys", |list| {
            let place = list.signers.iter_mut().find(|s| s.slot == slot && s.removed.is_none());
            let place = place.ok_or_else(|| Error::NotFound("the key was removed meanwhile".into()))?;
            place.is_operator = true;
            place.recipient = Some(operator.to_bytes());
            Ok(place.clone())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hpke::pair_from_seed;

    #[test]
    fn each_repository_has_its_own_operator_and_damage_makes_none() {
        let root = tempfile::tempdir().unwrap();
        let (one, other) = (RepositoryId([1; 16]), RepositoryId([2; 16]));
        let public = pair_from_seed(&[7; 32]).1;
        assert!(known_operator(root.path(), one).unwrap().is_none());
        remember_operator(root.path(), one, &public).unwrap();
        assert_eq!(known_operator(root.path(), one).unwrap().unwrap().to_bytes(), public.to_bytes());
        assert!(known_operator(root.path(), other).unwrap().is_none());
        let path = memory(root.path(), one);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[400] = if bytes[400] == b'7' { b'8' } else { b'7' };
        std::fs::write(&path, bytes).unwrap();
        assert!(known_operator(root.path(), one).unwrap().is_none());
    }
}
