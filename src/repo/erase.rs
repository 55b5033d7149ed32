//! Erasing a tenant: what opens it first, then what it holds.
//!
//! 1. Holds are listed: while there is one, nothing is done.
//! 2. The slots are deleted, at every place that is given, before anything else:
//!    from then on nobody can open what is left, nor any copy that was made of it
//!    without the slots. Then the lists of signers.
//! 3. Under the name of the snapshot of each session an object is put, so that a
//!    backup that runs cannot finish.
//! 4. Snapshots, index objects, packs, then all the rest; all is listed again
//!    until nothing more turns up.
//! 5. The tenant's own object, if nothing else is left.
//!
//! A crash leaves less and less. While there is a slot, erasing again takes a key;
//! once there is none, nobody has one, and it takes none. Nothing is opened here:
//! a tenant whose keys are lost can be erased too.

use super::absent;
use super::create;
use super::keys::{self, list_keys};
use super::retained::{Retained, delete_all};
use crate::clock::{Clock, Timestamp};
use crate::crypto::aead;
use crate::error::{Error, Result, StoreFault};
use crate::format::header::{self, Header, ObjectType};
use crate::format::key::SlotKind;
use crate::format::names::{Kind, TENANTS, TenantNames, kind_of, last_part};
use crate::id::{RepositoryId, SlotId, SnapshotId, TenantId};
use crate::limits;
use crate::monitor::{Event, Monitor};
use crate::store::{Listed, Protection, Store};
use std::collections::{BTreeMap, HashSet};

/// How often what is left is listed, while others write.
const LOOKS: usize = 4;

/// What lies below a tenant's name at one place.
pub struct Survey {
    names: TenantNames,
    /// Where.
    pub place: String,
    /// The repository, if its own object says so.
    pub repository: Option<RepositoryId>,
    /// The tenant, if its own object says so.
    pub tenant: Option<TenantId>,
    /// Its slots; the kind of those that can be read.
    pub slots: Vec<(SlotId, Option<SlotKind>)>,
    /// Objects among the holds: whatever lies there holds.
    pub holds: usize,
    /// Objects, and their bytes.
    pub sum: Sum,
}

/// Objects, and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Sum {
    /// How many.
    pub objects: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Sum {
    fn add(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes += bytes;
    }
}

/// A slot that was there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErasedSlot {
    /// Its id.
    pub slot: SlotId,
    /// What opens it, if that could be read.
    pub kind: Option<SlotKind>,
    /// False if the store would not delete it.
    pub deleted: bool,
    /// Until when the store keeps it under a lock, as an old version or as it is, where it tells.
    pub kept_until: Option<Timestamp>,
}

/// What was erased at one place, and what was not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// When it began, by this machine's clock.
    pub when: Timestamp,
    /// Where.
    pub place: String,
    /// The repository.
    pub repository: Option<RepositoryId>,
    /// The tenant's name.
    pub name: String,
    /// Its id.
    pub tenant: Option<TenantId>,
    /// The slots that were there.
    pub slots: Vec<ErasedSlot>,
    /// What was deleted, by what it was.
    pub deleted: BTreeMap<&'static str, Sum>,
    /// What the store keeps under locks, the first [`limits::RECEIPT_OBJECTS_MAX`] of them.
    pub retained: Vec<Retained>,
    /// All that it keeps.
    pub retained_sum: Sum,
    /// Objects that were written while all was deleted, and are there.
    pub late: u64,
    /// Backups that ran: under the names of their snapshots an object stays, so that they end with an error.
    pub running: Vec<SnapshotId>,
    /// Whether the store can give back what was deleted.
    pub protection: Protection,
}

impl Receipt {
    /// True if nothing is left below the tenant's name.
    pub fn is_whole(&self) -> bool {
        self.retained_sum.objects == 0 && self.late == 0 && self.running.is_empty()
    }
}

fn folder(names: &TenantNames) -> String {
    format!("{TENANTS}/{}", names.name())
}

/// Looks at what lies below a tenant's name. Changes nothing, and opens nothing.
///
/// # Errors
/// [`Error::NoRepository`], [`Error::NoTenant`] if nothing is there at all, or the store's.
pub fn survey(store: &dyn Store, tenant: &str) -> Result<Survey> {
    let names = TenantNames::new(tenant)?;
    let repository = match create::record(store) {
        Ok(record) => Some(record.id),
        Err(e @ (Error::NoRepository { .. } | Error::Newer { .. } | Error::Store(_))) => return Err(e),
        Err(_) => None,
    };
    let listed = store.list(&folder(&names))?;
    if listed.is_empty() {
        return Err(Error::NoTenant { name: tenant.into() });
    }
    let tenant = match store.read(&names.tenant(), limits::RECORD_MAX) {
        Ok(bytes) => create::decode_tenant(&bytes, &names.tenant()).ok().map(|(_, record)| record.id),
        Err(e) if matches!(e.fault, StoreFault::NotFound | StoreFault::Size) => None,
        Err(e) => return Err(e.into()),
    };
    let mut slots = Vec::new();
    for id in list_keys(store, &names)?.0 {
        match keys::read_slot(store, &names, &id) {
            Ok(slot) => slots.push((id, slot.map(|slot| slot.kind))),
            Err(e) if e.is_damage() => slots.push((id, None)),
            Err(e) => return Err(e),
        }
    }
    let mut sum = Sum::default();
    listed.iter().for_each(|o| sum.add(o.size));
    let holds = holds_among(&names, &listed);
    Ok(Survey { names, place: store.describe(), repository, tenant, slots, holds, sum })
}

fn holds_among(names: &TenantNames, listed: &[Listed]) -> usize {
    let holds = format!("{}/", names.holds());
    listed.iter().filter(|o| o.name.starts_with(&holds)).count()
}

/// What an object is, for the receipt, and when its turn comes.
fn class(names: &TenantNames, name: &str) -> (u8, &'static str) {
    match kind_of(name) {
        Some(Kind::Key) if last_part(name).contains('.') => (1, "lists of signers"),
        Some(Kind::Key) => (0, "slots"),
        Some(Kind::Snapshot) => (2, "snapshots"),
        Some(Kind::Index) => (3, "index objects"),
        Some(Kind::Pack) => (4, "packs"),
        Some(Kind::Forgotten) => (5, "records of what was forgotten"),
        Some(Kind::Plan) => (5, "plans"),
        Some(Kind::Damage) => (5, "damage records"),
        Some(Kind::Session) => (6, "sessions"),
        Some(Kind::Tenant) => (8, "the tenant's object"),
        _ if name == names.tenant() => (8, "the tenant's object"),
        // Whatever lies among the keys may be a slot under another name.
        _ if name.starts_with(&format!("{}/", names.keys())) => (0, "other objects"),
        _ => (7, "other objects"),
    }
}

/// A tenant that is being erased at one place.
pub struct Erasure<'s> {
    store: &'s dyn Store,
    names: TenantNames,
    receipt: Receipt,
    /// Objects that stand in the way of backups that run.
    fences: HashSet<String>,
}

impl<'s> Erasure<'s> {
    /// Deletes the slots, and nothing else.
    ///
    /// # Errors
    /// [`Error::Invalid`] while there is a hold; the store's, with [`StoreFault::Denied`] for whoever may not
    /// delete.
    pub fn begin(store: &'s dyn Store, survey: Survey, clock: &dyn Clock, monitor: &dyn Monitor) -> Result<Self> {
        let Survey { names, place, repository, tenant, slots, .. } = survey;
        // Again: a hold may have come since.
        let listed = store.list(&folder(&names))?;
        let holds = holds_among(&names, &listed);
        if holds > 0 {
            return Err(held(names.name(), &place, holds));
        }
        let receipt = Receipt {
            when: clock.now(),
            place,
            repository,
            name: names.name().to_owned(),
            tenant,
            slots: Vec::new(),
            deleted: BTreeMap::new(),
            retained: Vec::new(),
            retained_sum: Sum::default(),
            late: 0,
            running: Vec::new(),
            protection: store.protection(),
        };
        let mut erasure = Self { store, names, receipt, fences: HashSet::new() };
        // Asked before: of what is deleted it tells nothing more.
        let slots = slots.into_iter().map(|(slot, kind)| {
            let kept_until = erasure.kept_until(&erasure.names.slot(&slot));
            ErasedSlot { slot, kind, deleted: true, kept_until }
        });
        erasure.receipt.slots = slots.collect();
        monitor.event(Event::Phase { name: "deleting the slots", total_bytes: None });
        let first: Vec<Listed> = listed.into_iter().filter(|o| class(&erasure.names, &o.name).0 == 0).collect();
        let kept = erasure.delete(&first, monitor)?;
        for slot in &mut erasure.receipt.slots {
            slot.deleted = !kept.contains(&erasure.names.slot(&slot.slot));
        }
        Ok(erasure)
    }

    /// Where nothing keeps what is deleted there is nothing to ask.
    fn kept_until(&self, name: &str) -> Option<Timestamp> {
        match self.receipt.protection {
            Protection::Stands(_) => self.store.retained_until(name),
            Protection::Missing | Protection::Unknown(_) => None,
        }
    }

    /// Deletes the rest.
    ///
    /// # Errors
    /// [`Error::Interrupted`], or the store's: doing it again goes on.
    pub fn finish(mut self, monitor: &dyn Monitor) -> Result<Receipt> {
        self.fence_sessions()?;
        monitor.event(Event::Phase { name: "deleting", total_bytes: None });
        let names = self.names.clone();
        let turn = |o: &Listed| class(&names, &o.name).0;
        let own = names.tenant();
        let mut kept: HashSet<String> = HashSet::new();
        for _ in 0..LOOKS {
            let mut left = self.store.list(&folder(&names))?;
            left.retain(|o| o.name != own && !self.fences.contains(&o.name) && !kept.contains(&o.name));
            if left.is_empty() {
                break;
            }
            left.sort_by_key(turn);
            // One kind after the other: a snapshot is gone before what it needs.
            for same in left.chunk_by(|a, b| turn(a) == turn(b)) {
                kept.extend(self.delete(same, monitor)?);
            }
        }
        let (last, left): (Vec<Listed>, Vec<Listed>) =
            self.store.list(&folder(&names))?.into_iter().partition(|o| o.name == own);
        let is_late = |o: &&Listed| !self.fences.contains(&o.name) && !kept.contains(&o.name);
        self.receipt.late = left.iter().filter(is_late).count() as u64;
        // While anything is left the tenant is listed, so that whoever erased it sees that it is not done.
        if left.is_empty() {
            self.delete(&last, monitor)?;
        }
        Ok(self.receipt)
    }

    /// Puts an object under the name of each session's snapshot: whoever creates it last has failed. Those of
    /// sessions that may be alive stay, by the store's own clock.
    fn fence_sessions(&mut self) -> Result<()> {
        let sessions = self.store.list(&self.names.sessions())?;
        let mut object = Header { object: ObjectType::Tombstone, cipher: aead::preferred() }.encode().to_vec();
        header::close(&mut object);
        let object = bytes::Bytes::from(object);
        let ids: Vec<(SnapshotId, Timestamp)> =
            sessions.iter().filter_map(|o| Some((last_part(&o.name).parse().ok()?, o.modified))).collect();
        for (id, _) in &ids {
            match absent::create(self.store, &self.names.snapshot(id), &object) {
                Err(e) if e.fault != StoreFault::Exists => return Err(e.into()),
                _ => {}
            }
        }
        if ids.is_empty() {
            return Ok(());
        }
        let now = self.store.list(&self.names.snapshots())?.iter().map(|o| o.modified.seconds).max().unwrap_or(0);
        for (id, heard) in ids {
            if now.saturating_sub(heard.seconds) < limits::SESSION_DEAD_SECONDS {
                self.fences.insert(self.names.snapshot(&id));
                self.receipt.running.push(id);
            }
        }
        Ok(())
    }

    /// Deletes objects; gives back the names of those that the store keeps under locks.
    fn delete(&mut self, objects: &[Listed], monitor: &dyn Monitor) -> Result<HashSet<String>> {
        let sized: Vec<(String, u64)> = objects.iter().map(|o| (o.name.clone(), o.size)).collect();
        let retained = delete_all(self.store, &sized, monitor)?;
        let kept: HashSet<String> = retained.iter().map(|object| object.name.clone()).collect();
        for object in objects.iter().filter(|o| !kept.contains(&o.name)) {
            self.receipt.deleted.entry(class(&self.names, &object.name).1).or_default().add(object.size);
        }
        for object in retained {
            self.receipt.retained_sum.add(object.bytes);
            if self.receipt.retained.len() < limits::RECEIPT_OBJECTS_MAX {
                self.receipt.retained.push(object);
            }
        }
        Ok(kept)
    }
}

/// What is said of a tenant that may not be erased.
pub fn held(tenant: &str, place: &str, holds: usize) -> Error {
    let many = if holds == 1 { "a legal hold".to_owned() } else { format!("{holds} legal holds") };
    Error::Invalid(format!("tenant {tenant} at {place} has {many} ('estrato hold list'): end that first, or keep it"))
}
