//! What a prune tells sessions, and hears of them: plans by their numbers, the
//! sessions that are announced, and the tombstone that ends one. What is
//! condemned, and who is given up, is not decided here.
//!
//! A plan is created only if its number is free, so of two prunes one is told.
//! It is emptied when all is done, never deleted, and its number is never used
//! again: a prune that slept finds the number taken.

use super::{Repository, SnapshotObject, absent};
use crate::clock::Timestamp;
use crate::crypto::random;
use crate::error::{Error, Result, StoreFault};
use crate::format::header::ObjectType;
use crate::format::names::last_part;
use crate::format::records::{LeftPack, Plan, SessionRecord};
use crate::id::SnapshotId;
use crate::limits;
use crate::store::Listed;
use std::collections::BTreeSet;

/// The plans of a tenant.
#[derive(Debug, Default)]
pub struct Plans {
    /// The number of the next one: the least above every plan of a full key that no object has. What others
    /// call theirs takes none away.
    pub next: u64,
    /// The newest plan of a full key, if it is in force.
    pub in_force: Option<Plan>,
    /// Packs that the newest plan of a full key says were left, whether it is in force or not.
    pub left: Vec<LeftPack>,
    /// Plans above it that cannot be read: what they condemn is unknown.
    pub damaged: Vec<Error>,
    /// Plans above it that no full key signed: they count for nothing, and hide nothing.
    pub strange: Vec<String>,
}

/// A session whose object is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// The name of the snapshot that it will create.
    pub id: SnapshotId,
    /// Its machine, and its process there; `None` where its object cannot be read.
    pub owner: Option<(String, u32)>,
    /// The plan that it has seen; 0 for none.
    pub seen: u64,
    /// When its object was written last, by the store's clock.
    pub heard: Timestamp,
}

/// What has become of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It may still commit.
    Open,
    /// Its snapshot is there, or something else that it cannot replace.
    Committed,
    /// A tombstone stands there: it never will.
    Ended,
}

impl Repository {
    /// Reads the plans that count, from the newest down to the first that a full key signed.
    ///
    /// # Errors
    /// The store's.
    pub fn plans(&self) -> Result<Plans> {
        self.plans_among(&self.store.list(&self.names.plans())?)
    }

    /// The same, from a listing of their folder.
    pub(super) fn plans_among(&self, listed: &[Listed]) -> Result<Plans> {
        let numbers: BTreeSet<u64> = listed.iter().filter_map(|o| self.names.plan_number(&o.name)).collect();
        let (mut plans, mut last) = (Plans::default(), 0);
        for number in numbers.iter().rev().copied() {
            let name = self.names.plan(number);
            let read = || {
                let bytes = self.store.read(&name, limits::LIST_RECORD_MAX)?;
                let opened = self.realm().open_shared(ObjectType::Plan, Some(&name), &name, &bytes)?;
                let plan = Plan::decode(&opened.payload).map_err(|e| e.of(&*name))?;
                Ok((opened.signer, plan))
            };
            match read() {
                Ok((signer, plan)) if self.is_full(&signer) && plan.number == number => {
                    plans.left.clone_from(&plan.left);
                    plans.in_force = (!plan.done).then_some(plan);
                    last = number;
                    break;
                }
                Ok(_) => plans.strange.push(name),
                Err(e @ Error::Damaged { .. }) => plans.damaged.push(e),
                Err(e) => return Err(e),
            }
        }
        plans.next = (last + 1..).find(|number| !numbers.contains(number)).unwrap_or(u64::MAX);
        Ok(plans)
    }

    /// Puts a plan into force.
    ///
    /// # Errors
    /// [`Error::Busy`] if its number is taken: another prune was faster. [`Error::NotAllowed`] with a writer
    /// key, or the store's: then it may be in force.
    pub fn begin_plan(&self, plan: &Plan) -> Result<()> {
        let name = self.names.plan(plan.number);
        let object = self.sealed_plan(&name, plan)?;
        if object.len() as u64 > limits::LIST_RECORD_MAX {
            return Err(Error::Invalid("a plan of more than a prune may condemn at once".into()));
        }
        absent::create(&*self.store, &name, &object.into()).map_err(|e| match e.fault {
            StoreFault::Exists => Error::Busy { what: name },
            _ => e.into(),
        })
    }

    /// Ends a plan: all that it condemned is gone, or among those `left` in the store.
    ///
    /// # Errors
    /// [`Error::NotAllowed`] with a writer key, or the store's.
    pub fn end_plan(&self, number: u64, left: Vec<LeftPack>) -> Result<()> {
        let name = self.names.plan(number);
        let object = self.sealed_plan(&name, &Plan { number, done: true, left, ..Plan::default() })?;
        Ok(self.store.write(&name, object.into())?)
    }

    fn sealed_plan(&self, name: &str, plan: &Plan) -> Result<Vec<u8>> {
        let signing = self.tenant_signing("prune")?;
        self.realm().seal_shared(self.header(ObjectType::Plan), Some(name), signing, &plan.encode())
    }

    /// What time it is by the store's clock, as an object tells that is written now: a session that has seen
    /// `plan`, so that it stands in no prune's way. What a crash leaves of it is ended like any that has died.
    ///
    /// # Errors
    /// [`Error::Missing`] if what was written is not listed, or the store's.
    pub fn store_time(&self, plan: u64) -> Result<Timestamp> {
        let id = SnapshotId(random::bytes()?);
        let name = self.names.session(&id);
        let record = SessionRecord {
            owner: random::bytes()?,
            started: self.clock.now(),
            host: "prune".into(),
            pid: std::process::id(),
            seen: plan,
            renewed: 0,
        };
        let header = self.header(ObjectType::Session);
        let object = self.realm().seal_shared(header, Some(&name), &self.signing, &record.encode())?;
        absent::create(&*self.store, &name, &object.into())?;
        let listed = self.store.list(&self.names.sessions())?;
        let found = listed.iter().find(|o| o.name == name).map(|o| o.modified);
        self.remove_session(&id)?;
        found.ok_or(Error::Missing { object: name })
    }

    /// The sessions whose objects are there.
    ///
    /// # Errors
    /// The store's.
    pub fn announced(&self) -> Result<Vec<Announced>> {
        let mut found = Vec::new();
        for object in self.store.list(&self.names.sessions())? {
            let name = &object.name;
            let Ok(id) = last_part(name).parse::<SnapshotId>() else { continue };
            match self.session_record(name) {
                Ok(r) => {
                    found.push(Announced { id, owner: Some((r.host, r.pid)), seen: r.seen, heard: object.modified })
                }
                // It has ended meanwhile.
                Err(e) if e.is_not_found() => {}
                // Whoever it is, it has seen nothing that one could know of.
                Err(e) if e.is_damage() => found.push(Announced { id, owner: None, seen: 0, heard: object.modified }),
                Err(e) => return Err(e),
            }
        }
        Ok(found)
    }

    /// What lies under the name of a session's snapshot.
    ///
    /// # Errors
    /// The store's.
    pub fn fate(&self, session: &SnapshotId) -> Result<Fate> {
        match self.snapshot(session) {
            Ok(SnapshotObject::Tombstone(_)) => Ok(Fate::Ended),
            Err(e) if e.is_not_found() => Ok(Fate::Open),
            // Whatever is there, the session can put nothing in its place.
            Ok(SnapshotObject::Manifest(..)) => Ok(Fate::Committed),
            Err(e) if e.is_damage() => Ok(Fate::Committed),
            Err(e) => Err(e),
        }
    }

    /// Ends a session: its snapshot can come to be no more, unless it has by now.
    ///
    /// # Errors
    /// [`Error::NotAllowed`] with a writer key; [`Error::Invalid`] where the store replaces what it is asked
    /// to create only if absent, so that nobody can; or the store's: then it may have ended.
    pub fn fence(&self, session: &SnapshotId) -> Result<()> {
        if !self.creates_if_absent {
            return Err(Error::Invalid(format!(
                "session {session} has died, and this store cannot end it: it replaces what it is asked to create \
                 only if absent"
            )));
        }
        let grave = self.sealed_tombstone(session, "given up by a prune")?;
        match absent::create(&*self.store, &self.names.snapshot(session), &grave.into()) {
            Err(e) if e.fault != StoreFault::Exists => Err(e.into()),
            _ => Ok(()),
        }
    }

    /// Removes the object of a session in whose snapshot's place a tombstone stands, or that will create none.
    /// While a snapshot stands there it must not go: its owner may not have been told, and a forget that saw no session would let it
    /// come back.
    ///
    /// # Errors
    /// The store's.
    pub fn remove_session(&self, session: &SnapshotId) -> Result<()> {
        match self.store.delete(&self.names.session(session)) {
            Err(e) if e.fault != StoreFault::NotFound => Err(e.into()),
            _ => Ok(()),
        }
    }
}
