//! What full keys have forgotten, by the records that they left of it. Without
//! them, a snapshot that was forgotten would be missed like one that was taken
//! away: the one after it names it, and machines remember it.
//!
//! A record is written before anything is deleted, under a name that nobody else
//! would choose, and holds what all records before it held; those are then
//! deleted. Two who forget at once leave two records, and all that are there
//! count together. Of long chains a record keeps what leads from one snapshot
//! that stands to the next.

use super::Repository;
use super::absent;
use super::chains::{Gone, Proof};
use crate::crypto::random;
use crate::error::{Error, Result, StoreFault};
use crate::format::header::ObjectType;
use crate::format::manifest::Manifest;
use crate::format::names::{Kind, kind_of};
use crate::format::standing::{Forgotten, ForgottenSnapshot};
use crate::id::{ForgottenId, SignerId, SnapshotId};
use crate::limits;
use std::collections::{HashMap, HashSet};

/// What was forgotten, as far as records say.
#[derive(Debug, Default)]
pub(super) struct History {
    snapshots: Vec<ForgottenSnapshot>,
    /// Where each stands; several records may say different things of one, and all are true of their time.
    places: HashMap<SnapshotId, Vec<usize>>,
    /// The objects that say so.
    objects: Vec<String>,
}

/// The snapshots that stand once others are forgotten.
pub(super) struct Standing<'m> {
    /// Those that could be read.
    pub read: Vec<(SnapshotId, &'m Manifest, SignerId)>,
    /// False if some could not be: what they rest on is unknown.
    pub is_whole: bool,
}

/// Where a chain leads behind what was forgotten.
enum End {
    /// To this snapshot, which was not forgotten.
    Snapshot(SnapshotId),
    /// To its beginning.
    Beginning,
}

impl History {
    fn new(snapshots: Vec<ForgottenSnapshot>, objects: Vec<String>) -> Self {
        let mut places: HashMap<SnapshotId, Vec<usize>> = HashMap::new();
        for (at, forgotten) in snapshots.iter().enumerate() {
            places.entry(forgotten.snapshot).or_default().push(at);
        }
        Self { snapshots, places, objects }
    }

    /// True if the snapshot was forgotten.
    pub fn contains(&self, id: &SnapshotId) -> bool {
        self.places.contains_key(id)
    }

    /// True if of this chain as new a snapshot was forgotten.
    pub fn reaches(&self, signer: &SignerId, chain: &[u8; 16], counter: u64) -> bool {
        self.snapshots.iter().any(|s| s.signer == *signer && s.chain == *chain && s.counter >= counter)
    }

    /// Follows a chain from `id` on, as long as what is there was forgotten. Where records differ, one way
    /// that ends well is enough: the others were right before more was forgotten.
    fn follow(&self, id: SnapshotId, stop: impl Fn(&SnapshotId) -> bool) -> End {
        match self.places.contains_key(&id) && !stop(&id) {
            true => self.behind(id, stop),
            false => End::Snapshot(id),
        }
    }

    /// The same from what was before `id`, which was forgotten.
    fn behind(&self, id: SnapshotId, stop: impl Fn(&SnapshotId) -> bool) -> End {
        let mut seen = HashSet::new();
        let mut missing = None;
        let mut open = vec![id];
        while let Some(id) = open.pop() {
            // Nobody is asked twice, so that no record leads round in a circle.
            let first = seen.is_empty();
            if !seen.insert(id) {
                continue;
            }
            if !first && stop(&id) {
                return End::Snapshot(id);
            }
            let Some(places) = self.places.get(&id) else {
                missing = missing.or(Some(id));
                continue;
            };
            for forgotten in places.iter().filter_map(|at| self.snapshots.get(*at)) {
                match forgotten.before {
                    Some(before) => open.push(before),
                    None => return End::Beginning,
                }
            }
        }
        missing.map_or(End::Beginning, End::Snapshot)
    }

    /// The same, where this snapshot was not forgotten.
    pub fn without(self, id: &SnapshotId) -> Self {
        let Self { mut snapshots, objects, .. } = self;
        snapshots.retain(|s| s.snapshot != *id);
        Self::new(snapshots, objects)
    }

    /// The snapshot that is missing where `id`, which is not listed, should be; `None` where it was
    /// forgotten, and the chain goes on behind it.
    pub fn missing(&self, id: SnapshotId, listed: &HashSet<SnapshotId>) -> Option<SnapshotId> {
        match self.follow(id, |id| listed.contains(id)) {
            End::Snapshot(end) => Some(end).filter(|end| !listed.contains(end)),
            End::Beginning => None,
        }
    }

    /// Everything that is missing by what the records themselves say.
    fn all_missing(&self, listed: &HashSet<SnapshotId>) -> Vec<(SnapshotId, SnapshotId)> {
        let ends = self.snapshots.iter().filter(|s| !listed.contains(&s.snapshot));
        ends.filter_map(|s| Some((self.missing(s.snapshot, listed)?, s.snapshot))).collect()
    }

    /// What a record must say once `new` is forgotten too: each of these, and of those before, the ones to
    /// which a snapshot that stands leads, and the newest of each chain, which machines remember. One that
    /// still stands is kept too: whoever wrote that it will be gone may be about to delete it.
    fn merged(&self, new: &[ForgottenSnapshot], standing: &Standing<'_>) -> Vec<ForgottenSnapshot> {
        let stands: HashSet<SnapshotId> = standing.read.iter().map(|(id, ..)| *id).collect();
        let all = Self::new(self.snapshots.iter().chain(new).copied().collect(), Vec::new());
        if !standing.is_whole {
            return all.snapshots;
        }
        let fresh: HashSet<SnapshotId> = new.iter().map(|s| s.snapshot).collect();
        // Those that are to go stand until they are deleted, and name what was before them as others do.
        let named = standing.read.iter().filter_map(|(_, m, _)| m.previous);
        let linked: HashSet<SnapshotId> = named.chain(new.iter().filter_map(|s| s.before)).collect();
        let mut newest: HashMap<(SignerId, [u8; 16]), u64> = HashMap::new();
        let of_standing = standing.read.iter().map(|(_, m, signer)| (*signer, m.chain, m.counter.saturating_add(1)));
        let of_all = all.snapshots.iter().map(|s| (s.signer, s.chain, s.counter));
        for (signer, chain, counter) in of_standing.chain(of_all) {
            let known = newest.entry((signer, chain)).or_default();
            *known = counter.max(*known);
        }
        let mut done = HashSet::new();
        let mut merged: Vec<(bool, ForgottenSnapshot)> = Vec::new();
        for s in &all.snapshots {
            let ends_chain = newest.get(&(s.signer, s.chain)).is_some_and(|newest| s.counter >= *newest);
            let is_open = |id: &SnapshotId| fresh.contains(id) || stands.contains(id);
            let is_linked = linked.contains(&s.snapshot) || is_open(&s.snapshot);
            if !(is_linked || ends_chain) || !done.insert(s.snapshot) {
                continue;
            }
            // Not past one that may stay after all.
            let before = match all.behind(s.snapshot, is_open) {
                End::Snapshot(id) => Some(id),
                End::Beginning => None,
            };
            merged.push((is_linked, ForgottenSnapshot { before, ..*s }));
        }
        // Chains that ended long ago are what a machine may still remember; the oldest go first.
        let mut beyond = merged.len().saturating_sub(limits::FORGOTTEN_MAX);
        merged.retain(|(is_linked, _)| {
            let goes = !is_linked && beyond > 0;
            beyond -= usize::from(goes);
            !goes
        });
        merged.truncate(limits::FORGOTTEN_MAX);
        merged.into_iter().map(|(_, s)| s).collect()
    }
}

impl Repository {
    /// Reads what was forgotten, and tells which records could not be read: they do not count. Whoever may
    /// not list them knows of none.
    ///
    /// # Errors
    /// The store's.
    pub(super) fn history(&self) -> Result<(History, Vec<Error>)> {
        let (mut snapshots, mut objects, mut problems) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..limits::FORGOTTEN_TRIES {
            (snapshots, objects, problems) = (Vec::new(), Vec::new(), Vec::new());
            let listed = match self.store.list(&self.names.forgotten_records()) {
                Err(e) if e.fault == StoreFault::Denied => break,
                listed => listed?,
            };
            let mut is_merged = false;
            for object in listed.iter().filter(|o| kind_of(&o.name) == Some(Kind::Forgotten)) {
                match self.forgotten_record(&object.name) {
                    Ok(record) => {
                        snapshots.extend(record.snapshots);
                        objects.push(object.name.clone());
                    }
                    Err(e) if e.is_damage() => {
                        is_merged |= e.is_not_found();
                        problems.push(e);
                    }
                    Err(e) => return Err(e),
                }
            }
            // One that is gone again was merged into another, which a listing from before may lack.
            if !is_merged {
                break;
            }
        }
        Ok((History::new(snapshots, objects), problems))
    }

    fn forgotten_record(&self, name: &str) -> Result<Forgotten> {
        let bytes = self.store.read(name, limits::LIST_RECORD_MAX)?;
        let opened = self.realm().open_shared(ObjectType::Forgotten, Some(name), name, &bytes)?;
        if !self.is_full(&opened.signer) {
            return Err(Error::damaged(name, "a record of what was forgotten that no full key signed"));
        }
        Forgotten::decode(&opened.payload).map_err(|e| e.of(name))
    }

    /// Writes what was forgotten with `new`, in the place of all records that `history` was read from.
    pub(super) fn note_forgotten(
        &self,
        history: &History,
        new: &[ForgottenSnapshot],
        standing: &Standing<'_>,
    ) -> Result<()> {
        let record = Forgotten { snapshots: history.merged(new, standing) };
        if record.snapshots.len() > limits::FORGOTTEN_MAX {
            return Err(Error::Invalid(
                "more was forgotten than a record names; name fewer snapshots, or mend those that are damaged".into(),
            ));
        }
        let name = self.names.forgotten(&ForgottenId(random::bytes()?));
        // By the tenant's own key: it counts whatever becomes of the one in use.
        let signing = self.tenant_signing("forget snapshots")?;
        let header = self.header(ObjectType::Forgotten);
        let object = self.realm().seal_shared(header, Some(&name), signing, &record.encode())?;
        absent::create(&*self.store, &name, &object.into())?;
        for merged in &history.objects {
            // What stays behind says nothing else, and goes with the next.
            if let Err(e) = self.store.delete(merged) {
                tracing::debug!("{merged} stays behind: {e}");
            }
        }
        Ok(())
    }

    /// True if a full key has forgotten the snapshot.
    ///
    /// # Errors
    /// The store's.
    pub fn is_forgotten(&self, id: &SnapshotId) -> Result<bool> {
        Ok(self.history()?.0.contains(id))
    }

    /// What is wrong with the records of what was forgotten, and the snapshots that are missing by what they
    /// say. `listed` holds every name under `snapshots/`.
    ///
    /// # Errors
    /// The store's.
    pub fn check_forgotten(&self, listed: &HashSet<SnapshotId>) -> Result<(Vec<Error>, Vec<Gone>)> {
        let (history, problems) = self.history()?;
        let gone = history.all_missing(listed).into_iter().map(|(snapshot, later)| Gone {
            snapshot,
            object: self.names.snapshot(&snapshot),
            proof: Proof::Successor(later),
        });
        Ok((problems, gone.filter(|gone| !self.is_there(&gone.object)).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNER: SignerId = SignerId([1; 32]);

    fn id(n: u8) -> SnapshotId {
        SnapshotId([n; 16])
    }

    /// Snapshot `n` of the one chain, whose number in it is `n` too.
    fn manifest(n: u8) -> Manifest {
        let previous = (n > 1).then(|| id(n - 1));
        Manifest { chain: [7; 16], counter: n.into(), previous, ..Manifest::default() }
    }

    fn forgotten(n: u8, before: u8) -> ForgottenSnapshot {
        let before = (before > 0).then(|| id(before));
        ForgottenSnapshot { snapshot: id(n), signer: SIGNER, chain: [7; 16], counter: n.into(), before }
    }

    /// The pairs that a record holds once `new` is forgotten, each by its manifest, and these stand.
    fn merged(known: &[ForgottenSnapshot], new: &[u8], standing: &[u8], is_whole: bool) -> Vec<(u8, u8)> {
        let manifests: Vec<(u8, Manifest)> = standing.iter().map(|n| (*n, manifest(*n))).collect();
        let read = manifests.iter().map(|(n, m)| (id(*n), m, SIGNER)).collect();
        let new: Vec<ForgottenSnapshot> = new.iter().map(|n| forgotten(*n, n - 1)).collect();
        let merged = History::new(known.to_vec(), Vec::new()).merged(&new, &Standing { read, is_whole });
        merged.iter().map(|s| (s.snapshot.0[0], s.before.map_or(0, |b| b.0[0]))).collect()
    }

    fn missing(known: &[ForgottenSnapshot], from: u8, listed: &[u8]) -> Option<u8> {
        let listed = listed.iter().map(|n| id(*n)).collect();
        History::new(known.to_vec(), Vec::new()).missing(id(from), &listed).map(|id| id.0[0])
    }

    #[test]
    fn behind_what_was_forgotten_the_chain_goes_on() {
        let known = [forgotten(4, 3), forgotten(3, 2)];
        assert_eq!(missing(&known, 4, &[2, 5]), None);
        assert_eq!(missing(&known, 4, &[5]), Some(2), "it was taken away");
        assert_eq!(missing(&known, 9, &[2, 5]), Some(9));
        assert_eq!(missing(&[forgotten(4, 0)], 4, &[]), None, "the first of its chain");
        // A circle, which nobody writes, ends.
        assert_eq!(missing(&[forgotten(4, 3), forgotten(3, 4)], 4, &[]), None);
    }

    #[test]
    fn records_of_two_who_forgot_at_once_count_together() {
        // One shortened the way to 2 while the other forgot that.
        let known = [forgotten(4, 2), forgotten(4, 1), forgotten(2, 1)];
        assert_eq!(missing(&known, 4, &[1]), None);
        assert_eq!(missing(&[forgotten(4, 2), forgotten(4, 1)], 4, &[1]), None, "one way that ends well is enough");
        assert_eq!(missing(&known, 4, &[]), Some(1));
    }

    #[test]
    fn a_record_does_not_grow_with_what_was_forgotten_between_two_that_stand() {
        // 6 is forgotten; 5 and 4 were before; 3 and 7 stand.
        let known = [forgotten(4, 3), forgotten(5, 3)];
        // 6 names 5 until it is deleted.
        assert_eq!(merged(&known, &[6], &[1, 2, 3, 7], true), [(5, 3), (6, 3)]);
        let known = [forgotten(5, 3), forgotten(6, 3)];
        assert_eq!(merged(&known, &[2], &[1, 3, 7], true), [(6, 3), (2, 1)]);
        // The chain's newest is remembered by machines, and so kept.
        assert_eq!(merged(&known, &[2], &[1, 3], true), [(6, 3), (2, 1)]);
        // Those that are to go now may yet stay; the next record leads past them.
        let known = [forgotten(6, 3), forgotten(3, 2), forgotten(2, 1)];
        assert_eq!(merged(&known[..1], &[3, 2], &[1, 7], true), [(6, 3), (3, 2), (2, 1)]);
        assert_eq!(merged(&known, &[1], &[7], true), [(6, 1), (1, 0)]);
        // One that stands: whoever wrote that down is about to delete it, or died before.
        assert_eq!(merged(&[forgotten(4, 3)], &[6], &[3, 4, 5], true), [(4, 3), (6, 5)]);
        let known = [forgotten(4, 3), forgotten(5, 3)];
        // What cannot be read may need any of them.
        assert_eq!(merged(&known, &[6], &[3, 7], false), [(4, 3), (5, 3), (6, 5)]);
    }

    #[test]
    fn what_is_missing_stays_missing() {
        // 3 was taken away, and never forgotten.
        assert_eq!(merged(&[forgotten(4, 3)], &[5], &[6], true), [(4, 3), (5, 3)]);
        assert_eq!(missing(&[forgotten(5, 3)], 5, &[6]), Some(3));
    }
}
