//! A running backup, and the order that keeps it safe beside a prune.
//!
//! 1. The session's object is created, and the answer awaited. Only then are
//!    plans listed, and the newest in force is noted in the session's object.
//! 2. Only then is the index read, and after it the packs are listed.
//! 3. A copy counts only if a key that may vouch for it did, its pack is listed,
//!    no check has found the pack damaged, and no plan in force condemns it.
//! 4. Packs, then index objects, then the snapshot: creating it is the commit.
//!
//! A prune that gives the session up creates the snapshot's name itself, so
//! exactly one of the two succeeds. What a crash leaves: after 1 a session
//! object, which a prune removes; after packs, packs that nothing names; after
//! index objects, blobs that the next run finds and does not send again.

use super::Repository;
use super::absent::{self, refuses_twice};
use super::plans::Fate;
use crate::crypto::random;
use crate::error::{Error, Result, StoreFault};
use crate::format::header::ObjectType;
use crate::format::manifest::Manifest;
use crate::format::pack::Frame;
use crate::format::records::{Plan, SessionRecord};
use crate::id::{PackName, SnapshotId};
use crate::index::{BlobCopy, EntryNumber, Index, KnownPack};
use crate::limits;
use crate::store::Listed;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;

/// What is said of a store that ignores the condition of a create.
pub const UNABLE: &str = "replaces objects that it was asked to create only if absent: several may back up there at a \
time, but keys must be changed, and tenants made, by one at a time, and whoever writes can undo what others wrote";

/// Delta frames of which a session remembers whether they count.
const DELTAS_REMEMBERED: usize = 1 << 20;

/// Which copies count as stored.
#[derive(Debug, Default)]
pub struct Counting {
    /// Entries that count: those that did when the session began, and its own. Whatever another
    /// process on this machine takes into the index meanwhile was never weighed, and does not count.
    counted: RwLock<HashSet<EntryNumber>>,
    /// Delta frames of which is known whether all that they rest on counts.
    deltas: Mutex<HashMap<(EntryNumber, u32), bool>>,
    /// The plan in force, if any.
    plan: Option<Plan>,
    /// Packs that plans condemned and left in the store.
    left: HashSet<PackName>,
    /// A plan is in force that cannot be read: nothing that was there before counts.
    distrust: bool,
    /// Packs that counted entries name, and the store does not list with the size that they had, or a check
    /// has found damaged.
    missing: HashSet<PackName>,
}

impl Counting {
    /// True if the copy counts as stored, for deduplication.
    ///
    /// # Errors
    /// The local index's.
    pub fn counts(&self, index: &Index, copy: &BlobCopy) -> Result<bool> {
        let name = (copy.entry(), copy.frame_number());
        if !self.counted.read().unwrap_or_else(PoisonError::into_inner).contains(&name.0) {
            return Ok(false);
        }
        if copy.depth() == 0 {
            return Ok(true);
        }
        if let Some(known) = self.deltas.lock().unwrap_or_else(PoisonError::into_inner).get(&name) {
            return Ok(*known);
        }
        let counts = self.bases_count(index, copy.frame())?;
        let mut deltas = self.deltas.lock().unwrap_or_else(PoisonError::into_inner);
        if deltas.len() >= DELTAS_REMEMBERED {
            deltas.clear();
        }
        deltas.insert(name, counts);
        Ok(counts)
    }

    /// Depths strictly descend: no circle makes itself count. Nor does what no reader takes.
    fn bases_count(&self, index: &Index, frame: &Frame) -> Result<bool> {
        let mut plain = 0;
        for base in &frame.bases {
            let mut size = None;
            for copy in index.base_copies(base)?.iter().filter(|copy| copy.depth() < frame.depth) {
                if self.counts(index, copy)? {
                    size = Some(copy.size() as usize);
                    break;
                }
            }
            let Some(size) = size else { return Ok(false) };
            plain += size;
        }
        Ok(plain <= limits::FRAME_BASE_PLAIN_MAX)
    }

    /// Makes this session's own entries count.
    pub(super) fn accept(&self, own: Vec<EntryNumber>) {
        self.counted.write().unwrap_or_else(PoisonError::into_inner).extend(own);
    }

    /// Makes entries count no more, since something in their packs could not be read.
    pub fn doubt(&self, entries: &[EntryNumber]) {
        let mut counted = self.counted.write().unwrap_or_else(PoisonError::into_inner);
        for entry in entries {
            counted.remove(entry);
        }
        self.deltas.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// True if what a snapshot holds may be taken unread.
    pub fn trusts(&self, snapshot: &SnapshotId) -> bool {
        self.keeps(snapshot) && self.missing.is_empty()
    }

    /// True if no plan is in force that has not seen a snapshot: what it needs is not deleted.
    pub fn keeps(&self, snapshot: &SnapshotId) -> bool {
        !self.distrust && self.plan.as_ref().is_none_or(|plan| plan.seen.contains(snapshot))
    }

    /// Packs that the index names, and the store does not list with the size that they had, or a check has
    /// found damaged.
    pub fn missing(&self) -> &HashSet<PackName> {
        &self.missing
    }
}

/// A running backup.
pub struct Session<'r> {
    repo: &'r Repository,
    id: SnapshotId,
    record: Mutex<(SessionRecord, Duration)>,
    counting: Counting,
    warnings: Vec<String>,
}

impl<'r> Session<'r> {
    /// Announces a backup, reads the index, and finds out what counts as stored.
    ///
    /// # Errors
    /// The store's.
    pub fn begin(repo: &'r Repository, host: &str) -> Result<Self> {
        let mut session = Self::create(repo, host)?;
        match session.settle() {
            Ok(()) => Ok(session),
            Err(e) => {
                session.end_quietly();
                Err(e)
            }
        }
    }

    /// Announces somebody who stores no blobs and commits no snapshot, but names packs in the index: a prune
    /// waits for him, or ends him, before it deletes what it condemns, and what is condemned already he is told.
    /// The index is not read, and nothing counts as stored.
    ///
    /// # Errors
    /// The store's.
    pub fn announce(repo: &'r Repository, host: &str) -> Result<Self> {
        let mut session = Self::create(repo, host)?;
        match session.heed() {
            Ok(_) => Ok(session),
            Err(e) => {
                session.end_quietly();
                Err(e)
            }
        }
    }

    /// Creates the session's object, and awaits the answer.
    fn create(repo: &'r Repository, host: &str) -> Result<Self> {
        repo.writable()?;
        repo.not_a_mirror()?;
        let record = SessionRecord {
            owner: random::bytes()?,
            started: repo.clock.now(),
            host: host.to_owned(),
            pid: std::process::id(),
            seen: 0,
            renewed: 0,
        };
        let mut session = Self {
            repo,
            id: SnapshotId(random::bytes()?),
            record: Mutex::new((record, repo.clock.elapsed())),
            counting: Counting::default(),
            warnings: Vec::new(),
        };
        let bytes = bytes::Bytes::from(session.sealed(&session.lock().0)?);
        let name = repo.names.session(&session.id);
        let made = absent::create(&*repo.store, &name, &bytes).map_err(Error::from);
        if let Err(e) = made.and_then(|()| session.prove(&name)) {
            // Without an answer it may be there all the same.
            session.end_quietly();
            return Err(e);
        }
        Ok(session)
    }

    /// Some stores ignore the condition of a create. One that is far and heeded it is believed for a while:
    /// it takes a request to ask. Where it is ignored, nobody can end this session by creating its
    /// snapshot; a prune must find that out for itself, and wait.
    fn prove(&mut self, name: &str) -> Result<()> {
        if !self.repo.creates_if_absent {
            return Ok(());
        }
        let (store, local) = (&*self.repo.store, &self.repo.local);
        let place = store.describe();
        if store.is_far() && local.is_proven(&place) {
            return Ok(());
        }
        let other = self.sealed(&self.lock().0)?;
        if !refuses_twice(store, name, &other.into())? {
            self.warnings.push(format!("{place} {UNABLE}"));
        } else if store.is_far() {
            local.note_proven(&place);
        }
        Ok(())
    }

    /// Lists plans, and notes the one in force in the session's object; returns what lies in their folder.
    fn heed(&mut self) -> Result<Vec<Listed>> {
        let full_keys_said = self.repo.store.list(&self.repo.names.plans())?;
        self.heed_plans(&full_keys_said)?;
        if let Some(plan) = &self.counting.plan {
            let bytes = {
                let mut record = self.lock();
                record.0.seen = plan.number;
                self.sealed(&record.0)?
            };
            self.repo.store.write(&self.repo.names.session(&self.id), bytes.into())?;
        }
        Ok(full_keys_said)
    }

    fn settle(&mut self) -> Result<()> {
        let full_keys_said = self.heed()?;
        let damage = self.repo.damage_among(&full_keys_said)?;
        let mut problems = self.repo.sync_index()?;
        problems.extend(damage.problems);
        // Where a newer program has written, an older one should write no more.
        if let Some(newer) = problems.iter().position(|e| matches!(e, Error::Newer { .. })) {
            return Err(problems.swap_remove(newer));
        }
        self.warnings.extend(problems.iter().map(Error::to_string));
        // In this order: another session on this machine adds entries of packs that a listing from before
        // does not have.
        let known = self.repo.index.packs()?;
        let listed: HashMap<PackName, u64> = self.repo.list_packs()?.into_iter().collect();
        self.count(known, &listed, &damage.packs)
    }

    fn count(
        &mut self,
        known: Vec<KnownPack>,
        listed: &HashMap<PackName, u64>,
        damaged: &BTreeSet<PackName>,
    ) -> Result<()> {
        let repo = self.repo;
        let vouched = repo.index.vouched(&repo.full_signers())?;
        let condemned = self.condemned();
        let mut counted = Vec::new();
        for pack in known {
            let word =
                pack.signer == repo.signing.id() || repo.is_full(&pack.signer) || vouched.contains(&pack.vouched());
            // One that was cut short is as good as lost.
            let there = listed.get(&pack.name) == Some(&pack.size) && !damaged.contains(&pack.name);
            if word && !there {
                self.counting.missing.insert(pack.name);
            }
            if !self.counting.distrust && word && there && !condemned.contains(&pack.name) {
                counted.push(pack.number);
            }
        }
        self.counting.accept(counted);
        let (found, missing): (Vec<_>, Vec<_>) =
            self.counting.missing.iter().partition(|name| damaged.contains(name));
        for (packs, what) in [(missing, "missing or cut short"), (found, "damaged, as a check has found")] {
            let Some(first) = packs.iter().min() else { continue };
            let first = repo.names().pack(first);
            let (which, verb) = match packs.len() {
                1 => (first, "is"),
                n => (format!("{first} and {} more", n - 1), "are"),
            };
            self.warnings
                .push(format!("{which} {verb} {what}; everything is read again, and what was lost is stored again"));
        }
        Ok(())
    }

    /// Notes the plan in force, if any, and what plans have left. One that anybody but a full key wrote above it
    /// hides it from nobody.
    fn heed_plans(&mut self, listed: &[Listed]) -> Result<()> {
        let plans = self.repo.plans_among(listed)?;
        let strange =
            plans.strange.iter().map(|name| format!("{name} was not signed by a full key: it does not count"));
        self.warnings.extend(strange);
        let damaged = plans.damaged.iter();
        self.warnings
            .extend(damaged.map(|e| format!("{e}; everything is stored again, to be safe from what it may delete")));
        self.counting.distrust = !plans.damaged.is_empty();
        self.counting.left = plans.left.iter().map(|left| left.pack).collect();
        self.counting.plan = plans.in_force;
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (SessionRecord, Duration)> {
        self.record.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn sealed(&self, record: &SessionRecord) -> Result<Vec<u8>> {
        let repo = self.repo;
        let name = repo.names.session(&self.id);
        repo.realm().seal_shared(repo.header(ObjectType::Session), Some(&name), &repo.signing, &record.encode())
    }

    /// The name of the snapshot that this session will create.
    pub fn id(&self) -> SnapshotId {
        self.id
    }

    /// What counts as stored.
    pub fn counting(&self) -> &Counting {
        &self.counting
    }

    /// The packs that the plan in force condemns, and those that earlier ones condemned and left there.
    pub fn condemned(&self) -> HashSet<PackName> {
        self.counting.plan.iter().flat_map(|plan| &plan.condemned).chain(&self.counting.left).copied().collect()
    }

    /// That no prune has ended the session.
    ///
    /// # Errors
    /// [`Error::Fenced`] if one has, or the store's.
    pub fn still_open(&self) -> Result<()> {
        match self.repo.fate(&self.id)? {
            Fate::Ended => Err(Error::Fenced { session: self.id.to_string() }),
            Fate::Open | Fate::Committed => Ok(()),
        }
    }

    /// The repository.
    pub fn repository(&self) -> &'r Repository {
        self.repo
    }

    /// What was wrong and did not stop the session; each is told once.
    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// Shows that the session lives, if that is due.
    ///
    /// # Errors
    /// The store's.
    pub fn renew_if_due(&self) -> Result<()> {
        let bytes = {
            let mut record = self.lock();
            let now = self.repo.clock.elapsed();
            if now.saturating_sub(record.1) < Duration::from_secs(limits::SESSION_RENEW_SECONDS) {
                return Ok(());
            }
            record.1 = now;
            record.0.renewed += 1;
            self.sealed(&record.0)?
        };
        self.repo.store.write(&self.repo.names.session(&self.id), bytes.into())?;
        Ok(())
    }

    /// Creates the snapshot: after this it exists, before it does not.
    ///
    /// # Errors
    /// [`Error::Fenced`] if a prune gave the session up, or the store's.
    pub fn commit(self, manifest: &Manifest) -> Result<SnapshotId> {
        let repo = self.repo;
        let name = repo.names.snapshot(&self.id);
        let header = repo.header(ObjectType::Snapshot);
        let object = bytes::Bytes::from(repo.realm().seal_private(
            header,
            &name,
            &repo.signing,
            &repo.public,
            &manifest.encode(),
        )?);
        if object.len() as u64 > limits::MANIFEST_MAX {
            self.end_quietly();
            return Err(Error::Invalid("the snapshot has more paths and tags than a manifest holds".into()));
        }
        // What lies there is a tombstone, if a prune was faster. Without an answer the snapshot may exist:
        // then the session's object must stay for a prune to see.
        absent::create(&*repo.store, &name, &object).map_err(|e| match e.fault {
            StoreFault::Exists => Error::Fenced { session: self.id.to_string() },
            _ => e.into(),
        })?;
        self.end_quietly();
        Ok(self.id)
    }

    /// Gives the backup up: nothing of it counts.
    pub fn abandon(self) {
        self.end_quietly();
    }

    /// A session's object that stays behind is removed by a prune; failing to delete it harms nothing.
    fn end_quietly(&self) {
        if let Err(e) = self.repo.store.delete(&self.repo.names.session(&self.id)) {
            tracing::debug!("session {} stays behind: {e}", self.id);
        }
    }
}

impl Repository {
    /// Reads the object of a session, by its name.
    ///
    /// # Errors
    /// [`Error::Missing`] if it has ended, [`Error::Damaged`], or the store's.
    pub(super) fn session_record(&self, name: &str) -> Result<SessionRecord> {
        let bytes = self.store.read(name, limits::RECORD_MAX)?;
        let opened = self.realm().open_shared(ObjectType::Session, Some(name), name, &bytes)?;
        SessionRecord::decode(&opened.payload).map_err(|e| e.of(name))
    }

    /// What is wrong with the objects of sessions. One that ends meanwhile is none.
    ///
    /// # Errors
    /// The store's.
    pub fn check_sessions(&self) -> Result<Vec<Error>> {
        let mut found = Vec::new();
        for object in self.store.list(&self.names.sessions())? {
            match self.session_record(&object.name) {
                Err(Error::Missing { .. }) | Ok(_) => {}
                Err(e) if e.is_damage() => found.push(e),
                Err(e) => return Err(e),
            }
        }
        Ok(found)
    }
}
