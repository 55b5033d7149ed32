//! Forgetting snapshots by a policy: which groups there are, what the policy
//! keeps of each, and that the rest goes. What they needed is not freed here.
//!
//! Groups are formed by who signed, and only then by what a manifest claims: a
//! stolen writer's key pushes out nobody else's snapshots. Within its own group
//! it may claim any time; one that the store's own time speaks against counts,
//! where it lies ahead, by the store's, and takes no place from any other.
//!
//! A repaired snapshot stands in the group of the one that it repairs. It is as
//! believable as that one, which takes no place from others any more.

use crate::error::{Error, Result};
use crate::id::{SignerId, SnapshotId};
use crate::monitor::Monitor;
use crate::repo::{Forgot, Repository};
use crate::snapshot::retention::{self, Candidate, Reason, Rules};
use crate::snapshot::{Filter, Listing, Snapshot};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// What forms groups, beside who signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupBy {
    /// The machine.
    pub host: bool,
    /// The source: absolute paths, or the stream's name.
    pub paths: bool,
    /// All tags together.
    pub tags: bool,
}

/// What the snapshots of a group have in common. What does not form groups is none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Common {
    /// Who signed.
    pub signer: SignerId,
    /// The machine.
    pub host: Option<String>,
    /// The source.
    pub paths: Option<Vec<Vec<u8>>>,
    /// The tags, in order.
    pub tags: Option<Vec<String>>,
}

/// A group, and what the policy says of it.
#[derive(Debug, Clone)]
pub struct Group {
    /// What its snapshots have in common.
    pub common: Common,
    /// Its snapshots, oldest first.
    pub choices: Vec<Choice>,
    /// True if no rule keeps any of them.
    pub is_emptied: bool,
}

/// What the policy says of a snapshot.
#[derive(Debug, Clone)]
pub struct Choice {
    /// Which.
    pub snapshot: Snapshot,
    /// Why it is kept; nothing, and it is dropped.
    pub reasons: BTreeSet<Reason>,
    /// True if it is under hold.
    pub is_held: bool,
}

impl Common {
    fn of(s: &Snapshot, by: GroupBy) -> Self {
        let sorted = |tags: &[String]| tags.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
        Self {
            signer: s.owner,
            host: by.host.then(|| s.manifest.host.clone()),
            paths: by.paths.then(|| s.manifest.source.clone()),
            tags: by.tags.then(|| sorted(&s.manifest.tags)),
        }
    }
}

/// Says of each snapshot that passes the filter whether the rules keep it.
pub fn choose(
    listing: &Listing,
    filter: &Filter,
    rules: &Rules,
    by: GroupBy,
    held: &HashSet<SnapshotId>,
) -> Vec<Group> {
    let snapshots: Vec<&Snapshot> = listing.filtered(filter).collect();
    let repaired = listing.repaired();
    let claims: HashMap<SnapshotId, bool> =
        listing.snapshots.iter().map(|s| (s.id, s.is_postdated() || s.is_backdated())).collect();
    // A repair is always late: what counts is how late the snapshot was that it repairs.
    let is_late = |s: &Snapshot| {
        let of = s.manifest.repaired.map_or(s.id, |repaired| repaired.of);
        claims.get(&of).or_else(|| claims.get(&s.id)).copied().unwrap_or_default()
    };
    let candidates: Vec<Candidate<Common>> = snapshots
        .iter()
        .map(|s| Candidate {
            id: s.id,
            time: s.moment(),
            ended: s.manifest.ended,
            is_doubtful: is_late(s) || repaired.contains_key(&s.id),
            group: Common::of(s, by),
            tags: s.manifest.tags.clone(),
            is_held: held.contains(&s.id),
        })
        .collect();
    let verdicts = retention::decide(rules, &candidates);
    let mut groups: BTreeMap<Common, Group> = BTreeMap::new();
    for ((s, candidate), verdict) in snapshots.into_iter().zip(candidates).zip(verdicts) {
        let Candidate { group: common, is_held, .. } = candidate;
        let new = || Group { common: common.clone(), choices: Vec::new(), is_emptied: verdict.group_is_emptied };
        let group = groups.entry(common.clone()).or_insert_with(new);
        group.choices.push(Choice { snapshot: s.clone(), reasons: verdict.reasons, is_held });
    }
    groups.into_values().collect()
}

/// The snapshots that a policy drops, oldest first.
pub fn dropped(groups: &[Group]) -> Vec<SnapshotId> {
    let choices = groups.iter().flat_map(|group| &group.choices);
    let mut dropped: Vec<&Snapshot> = choices.filter(|c| c.reasons.is_empty()).map(|c| &c.snapshot).collect();
    dropped.sort_by_key(|s| (s.moment(), s.id));
    dropped.into_iter().map(|s| s.id).collect()
}

/// Forgets these snapshots of a listing, in their order; what is not in it is gone already.
///
/// # Errors
/// [`Error::Invalid`] for one under hold, before any is touched; else those of [`Repository::forget`].
pub fn forget(
    repo: &Repository,
    listing: &Listing,
    doomed: &[SnapshotId],
    held: &HashSet<SnapshotId>,
    monitor: &dyn Monitor,
) -> Result<Forgot> {
    if let Some(id) = doomed.iter().find(|id| held.contains(id)) {
        return Err(Error::Invalid(format!("snapshot {} is under hold: it is not forgotten", id.short())));
    }
    let there: Vec<_> = listing.snapshots.iter().map(|s| (s.id, &s.manifest, s.signer)).collect();
    let listed: HashSet<SnapshotId> =
        there.iter().map(|(id, ..)| *id).chain(listing.damaged.iter().map(|(id, _)| *id)).collect();
    let doomed: Vec<SnapshotId> = doomed.iter().copied().filter(|id| listed.contains(id)).collect();
    // One that cannot be read and is to go rests on nothing any more.
    let is_whole = listing.damaged.iter().all(|(id, _)| doomed.contains(id));
    repo.forget(&doomed, &there, is_whole, monitor)
}
