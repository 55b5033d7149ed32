//! Publishing the index without what is condemned. Old index objects go only
//! once new ones stand that hold what remains of their entries; whatever no full
//! key has answered for is read and proved before one does.

use crate::error::{Error, Result};
use crate::format::index::{IndexObject, PackEntry, Vouched};
use crate::id::{IndexName, PackName};
use crate::index::{EntryNumber, blobs_of};
use crate::limits;
use crate::maintenance::packs::{self, Job};
use crate::monitor::Monitor;
use crate::repo::Repository;
use std::collections::{BTreeMap, HashMap, HashSet};

/// What takes the place of index objects.
pub(super) struct Replacement {
    /// How many are replaced.
    pub old: usize,
    /// The entries that stay.
    kept: Vec<PackEntry>,
    /// The last object, which says what is replaced; without entries yet.
    last: IndexObject,
}

/// Reads the index objects that name a condemned pack, and many small ones, and proves what stays of them, but
/// for what is `proved` already.
///
/// # Errors
/// [`Error::Damaged`] where one cannot be read, or an entry that is to be kept is wrong; the store's.
pub(super) fn gather(
    repo: &Repository,
    condemned: &HashSet<PackName>,
    listed: &HashMap<PackName, u64>,
    proved: &mut HashSet<EntryNumber>,
    monitor: &dyn Monitor,
) -> Result<Replacement> {
    let names: HashMap<EntryNumber, PackName> =
        repo.index().packs()?.into_iter().map(|pack| (pack.number, pack.name)).collect();
    let old = to_replace(repo, condemned, &names)?;
    let replaced: HashSet<IndexName> = old.iter().copied().collect();
    let (stored, _) = repo.listed_indexes()?;
    let vouched = repo.vouched()?;
    // Of one pack different things may be said, and a part of the truth is true too: all of them stay.
    let mut kept: BTreeMap<PackName, Vec<PackEntry>> = BTreeMap::new();
    let mut last = IndexObject { supersedes: old.clone(), ..IndexObject::default() };
    let mut unproved: Vec<Job> = Vec::new();
    for name in &old {
        if monitor.cancelled() {
            return Err(Error::Interrupted);
        }
        let (signer, object) = repo.read_index(name)?;
        let is_full = repo.is_full(&signer);
        if is_full {
            last.supersedes.extend(object.supersedes.iter().filter(|name| stored.contains_key(name)));
            let stays = |v: &&Vouched| !condemned.contains(&v.pack) && !replaced.contains(&v.index);
            last.vouched.extend(object.vouched.iter().filter(stays));
        }
        let entries = repo.index().entries_of(name)?;
        for pack in object.packs {
            if condemned.contains(&pack.name) || listed.get(&pack.name) != Some(&pack.size) {
                continue;
            }
            let same = kept.entry(pack.name).or_default();
            if same.contains(&pack) {
                continue;
            }
            if !is_full && !vouched.contains(&Vouched { index: *name, pack: pack.name }) {
                let of_pack = entries.iter().filter(|entry| names.get(entry) == Some(&pack.name)).copied();
                let entries = of_pack.filter(|entry| !proved.contains(entry)).collect();
                unproved.push(Job { name: pack.name, size: pack.size, entries });
            }
            same.push(pack);
        }
    }
    prove(repo, unproved, proved, monitor)?;
    last.supersedes.sort_unstable();
    last.supersedes.dedup();
    last.vouched.sort_unstable();
    last.vouched.dedup();
    Ok(Replacement { old: old.len(), kept: kept.into_values().flatten().collect(), last })
}

/// The index objects that name a condemned pack, and small ones of full keys if there are many.
fn to_replace(
    repo: &Repository,
    condemned: &HashSet<PackName>,
    packs: &HashMap<EntryNumber, PackName>,
) -> Result<Vec<IndexName>> {
    let (mut old, mut small) = (Vec::new(), Vec::new());
    for object in repo.index().objects()? {
        let entries = repo.index().entries_of(&object.name)?;
        if entries.iter().filter_map(|entry| packs.get(entry)).any(|pack| condemned.contains(pack)) {
            old.push(object.name);
            continue;
        }
        let mut blobs = 0;
        for entry in &entries {
            blobs += repo.index().pack(*entry)?.map_or(0, |map| map.blobs());
            if blobs >= limits::INDEX_BLOBS_TARGET / 4 {
                break;
            }
        }
        if blobs < limits::INDEX_BLOBS_TARGET / 4 && repo.is_full(&object.signer) {
            small.push(object.name);
        }
    }
    if small.len() >= limits::PRUNE_SMALL_INDEXES {
        old.append(&mut small);
    }
    old.sort_unstable();
    Ok(old)
}

/// Reads packs that only writers have indexed: who signs these entries next answers for them.
fn prove(
    repo: &Repository,
    mut jobs: Vec<Job>,
    proved: &mut HashSet<EntryNumber>,
    monitor: &dyn Monitor,
) -> Result<()> {
    jobs.retain(|job| !job.entries.is_empty());
    for found in packs::read_all(repo, &jobs, monitor)? {
        let object = repo.names().pack(&found.name);
        if let Some(problem) = found.problems.first() {
            return Err(Error::damaged(object, &problem.why));
        }
        if found.is_frozen || found.on_frozen > 0 || !found.resting.is_empty() {
            return Err(Error::damaged(object, "what only a writer has indexed cannot be proved"));
        }
    }
    proved.extend(jobs.iter().flat_map(|job| &job.entries));
    Ok(())
}

impl Replacement {
    /// Publishes entries in objects of a fair size; the last one says what they replace.
    ///
    /// # Errors
    /// The store's: until the last one is there, all is as it was.
    pub fn publish(self, repo: &Repository) -> Result<()> {
        let Self { old, kept, mut last } = self;
        if old == 0 {
            return Ok(());
        }
        for pack in kept {
            if !last.packs.is_empty() && blobs_of(&last.packs) + pack.blobs() > limits::INDEX_BLOBS_TARGET {
                let packs = std::mem::take(&mut last.packs);
                repo.publish_index(&IndexObject { packs, ..IndexObject::default() })?;
            }
            last.packs.push(pack);
        }
        repo.publish_index(&last).map(|_| ())
    }
}
