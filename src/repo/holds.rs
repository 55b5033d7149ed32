//! Legal holds: a snapshot under hold is not forgotten, by no rule and no name.
//!
//! A hold is an object with its snapshot's name. Whatever lies there holds, even
//! if it does not open: damage must not end a hold, and nobody but a full key
//! needs to be able to create any. Who makes one creates it first, and then looks
//! whether somebody is about to forget the snapshot; who forgets does it the
//! other way round.

use super::Repository;
use super::absent;
use super::forgotten::Standing;
use crate::error::{Error, Result, StoreFault};
use crate::format::header::ObjectType;
use crate::format::names::{Kind, kind_of, last_part};
use crate::format::standing::Hold;
use crate::id::SnapshotId;
use crate::limits;
use std::collections::HashSet;

/// A hold that stands.
#[derive(Debug)]
pub struct Held {
    /// On which snapshot.
    pub snapshot: SnapshotId,
    /// What it says, or what is wrong with it; it holds all the same.
    pub hold: Result<Hold>,
}

impl Repository {
    /// The snapshots under hold.
    ///
    /// # Errors
    /// The store's.
    pub fn held(&self) -> Result<HashSet<SnapshotId>> {
        let listed = self.store.list(&self.names.holds())?;
        let named = listed.iter().filter(|o| kind_of(&o.name) == Some(Kind::Hold));
        Ok(named.filter_map(|o| last_part(&o.name).parse().ok()).collect())
    }

    /// The holds that stand, by their snapshots.
    ///
    /// # Errors
    /// The store's.
    pub fn holds(&self) -> Result<Vec<Held>> {
        let mut held: Vec<SnapshotId> = self.held()?.into_iter().collect();
        held.sort_unstable();
        let mut holds = Vec::with_capacity(held.len());
        for snapshot in held {
            match self.read_hold(&snapshot) {
                Err(e) if e.is_not_found() => {}
                Err(e) if !e.is_damage() => return Err(e),
                hold => holds.push(Held { snapshot, hold }),
            }
        }
        Ok(holds)
    }

    fn read_hold(&self, id: &SnapshotId) -> Result<Hold> {
        let name = self.names.hold(id);
        let bytes = self.store.read(&name, limits::RECORD_MAX)?;
        let opened = self.realm().open_shared(ObjectType::Hold, Some(&name), &name, &bytes)?;
        if !self.is_full(&opened.signer) {
            return Err(Error::damaged(name, "a hold that no full key signed"));
        }
        Hold::decode(&opened.payload).map_err(|e| e.of(name))
    }

    /// Puts a snapshot under hold. One that is under hold already keeps what its hold says.
    ///
    /// # Errors
    /// [`Error::NotAllowed`] with a writer key, [`Error::NotFound`] where there is no such snapshot any more,
    /// [`Error::Busy`] while somebody may be forgetting it: the hold stands then, and whether the snapshot does
    /// must be looked at again. Or the store's.
    pub fn hold(&self, id: &SnapshotId, why: &str) -> Result<()> {
        let signing = self.tenant_signing("put snapshots under hold")?;
        if why.len() > limits::NAME_MAX {
            return Err(Error::Invalid(format!("a reason has at most {} bytes", limits::NAME_MAX)));
        }
        let gone = || Error::NotFound(format!("snapshot {} is not there any more", id.short()));
        if !self.stands(id)? {
            return Err(gone());
        }
        let name = self.names.hold(id);
        let hold = Hold { time: self.clock.now(), why: why.into() };
        let object = self.realm().seal_shared(self.header(ObjectType::Hold), Some(&name), signing, &hold.encode())?;
        match absent::create(&*self.store, &name, &object.into()) {
            Err(e) if e.fault == StoreFault::Exists => drop(self.read_hold(id)?),
            made => made?,
        }
        let (history, _) = self.history()?;
        let is_doomed = history.contains(id);
        if !self.stands(id)? {
            self.store.delete(&name)?;
            return Err(gone());
        }
        if is_doomed {
            self.withdraw(id)?;
            return Err(Error::Busy {
                what: format!(
                    "snapshot {} is under hold now, but a forget has named it before, which broke off or still runs: \
                     whether it stays must be looked at again; it",
                    id.short()
                ),
            });
        }
        Ok(())
    }

    /// True if a snapshot lies under the name.
    fn stands(&self, id: &SnapshotId) -> Result<bool> {
        match self.snapshot(id) {
            Ok(object) => Ok(object.manifest().is_some()),
            Err(e) if e.is_not_found() => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Takes a snapshot that was not deleted out of the records of what was forgotten.
    fn withdraw(&self, id: &SnapshotId) -> Result<()> {
        let history = self.history()?.0.without(id);
        self.note_forgotten(&history, &[], &Standing { read: Vec::new(), is_whole: false })
    }

    /// Ends a hold.
    ///
    /// # Errors
    /// [`Error::NotAllowed`] with a writer key, [`Error::NotFound`] where there is none, or the store's.
    pub fn end_hold(&self, id: &SnapshotId) -> Result<()> {
        self.tenant_signing("end a hold")?;
        let name = self.names.hold(id);
        // Asked for first: not every store tells of a delete that it found nothing.
        match self.store.size(&name).and_then(|_| self.store.delete(&name)) {
            Err(e) if e.fault == StoreFault::NotFound => {
                Err(Error::NotFound(format!("snapshot {} is not under hold", id.short())))
            }
            done => Ok(done?),
        }
    }

    /// What is wrong with holds, and the snapshots under hold that are not there. `listed` holds every name
    /// under `snapshots/`, `buried` those of tombstones.
    ///
    /// # Errors
    /// The store's.
    pub fn check_holds(&self, listed: &HashSet<SnapshotId>, buried: &HashSet<SnapshotId>) -> Result<Vec<Error>> {
        let mut found = Vec::new();
        for Held { snapshot, hold } in self.holds()? {
            found.extend(hold.err());
            if !listed.contains(&snapshot) || buried.contains(&snapshot) {
                let why = "it is missing, and under hold";
                found.push(Error::damaged(self.names.snapshot(&snapshot), why));
            }
        }
        Ok(found)
    }
}
