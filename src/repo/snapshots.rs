//! Snapshot objects: which there are, and what one says.

use super::Repository;
use crate::error::{Error, Result};
use crate::format::header::{Header, ObjectType};
use crate::format::manifest::Manifest;
use crate::format::names::last_part;
use crate::format::records::Tombstone;
use crate::id::{SignerId, SnapshotId};
use crate::limits;

/// What lies under a snapshot's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotObject {
    /// A snapshot, and who signed it.
    Manifest(Box<Manifest>, SignerId),
    /// A snapshot that was forgotten, or must not come to be.
    Tombstone(Tombstone),
}

impl Repository {
    /// The names under `snapshots/`, tombstones included.
    ///
    /// # Errors
    /// The store's.
    pub fn snapshot_ids(&self) -> Result<Vec<SnapshotId>> {
        let listed = self.store.list(&self.names.snapshots())?;
        Ok(listed.iter().filter_map(|o| last_part(&o.name).parse().ok()).collect())
    }

    /// What stands in a snapshot's place once it is forgotten, or given up. By the tenant's own key: it counts
    /// whatever becomes of the one in use.
    ///
    /// # Errors
    /// [`Error::NotAllowed`] with a writer key.
    pub(super) fn sealed_tombstone(&self, id: &SnapshotId, why: &str) -> Result<Vec<u8>> {
        let name = self.names.snapshot(id);
        let grave = Tombstone { time: self.clock.now(), why: why.into() };
        let signing = self.tenant_signing("end snapshots and sessions")?;
        self.realm().seal_shared(self.header(ObjectType::Tombstone), Some(&name), signing, &grave.encode())
    }

    /// Reads a snapshot object.
    ///
    /// # Errors
    /// [`Error::NotAllowed`] with a writer key, [`Error::Damaged`], or the store's.
    pub fn snapshot(&self, id: &SnapshotId) -> Result<SnapshotObject> {
        let name = self.names.snapshot(id);
        let bytes = self.store.read(&name, limits::MANIFEST_MAX)?;
        if Header::of_whole(&bytes, &name)?.object == ObjectType::Tombstone {
            let opened = self.realm().open_shared(ObjectType::Tombstone, Some(&name), &name, &bytes)?;
            if !self.is_full(&opened.signer) {
                return Err(Error::damaged(name, "a tombstone that no full key signed"));
            }
            return Tombstone::decode(&opened.payload).map(SnapshotObject::Tombstone).map_err(|e| e.of(name));
        }
        let opened = self.realm().open_private(ObjectType::Snapshot, &name, self.private_key()?, &bytes)?;
        if !self.is_admitted(&opened.signer) {
            return Err(Error::damaged(name, format!("signed by {}, who was never admitted", opened.signer.short())));
        }
        let manifest = Manifest::decode(&opened.payload).map_err(|e| e.of(name))?;
        Ok(SnapshotObject::Manifest(Box::new(manifest), opened.signer))
    }
}

impl SnapshotObject {
    /// The manifest, if it is one.
    pub fn manifest(&self) -> Option<&Manifest> {
        match self {
            Self::Manifest(manifest, _) => Some(manifest),
            Self::Tombstone(_) => None,
        }
    }
}
