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

/// Publishes index objects that replace every one that names a condemned pack, and many small ones; returns
/// how many are replaced.
///
/// # Errors
/// [`Error::Damaged`] where an entry that is to be kept is wrong; the store's.
pub(super) fn replace(
    repo: &Repository,
    condemned: &HashSet<PackName>,
    listed: &HashMap<PackName, u64>,
    monitor: &dyn Monitor,
) -> Result<usize> {
    let old = to_replace(repo, condemned)?;
    if old.is_empty() {
        return Ok(0);
    }
    let (stored, _) = repo.listed_indexes()?;
    let vouched = repo.vouched()?;
    let mut kept: BTreeMap<PackName, PackEntry> = BTreeMap::new();
    let mut last = IndexObject { supersedes: old.clone(), ..IndexObject::default() };
    let mut unproved: HashSet<PackName> = HashSet::new();
    let mut doubtful = Vec::new();
    for name in &old {
        if monitor.cancelled() {
            return Err(Error::Interrupted);
        }
        let (signer, object) = repo.read_index(name)?;
        let is_full = repo.is_full(&signer);
        if is_full {
            last.supersedes.extend(object.supersedes.iter().filter(|name| stored.contains(name)));
            let stays = |v: &&Vouched| !condemned.contains(&v.pack) && !old.contains(&v.index);
            last.vouched.extend(object.vouched.iter().filter(stays));
        }
        for pack in object.packs {
            if condemned.contains(&pack.name) || listed.get(&pack.name) != Some(&pack.size) {
                continue;
            }
            let is_proved = is_full || vouched.contains(&Vouched { index: *name, pack: pack.name });
            match kept.get(&pack.name) {
                // Of several that name one pack, one that a full key answers for.
                Some(_) if !is_proved || !unproved.contains(&pack.name) => continue,
                _ => {}
            }
            if is_proved {
                unproved.remove(&pack.name);
            } else {
                unproved.insert(pack.name);
                doubtful.extend(entries_of(repo, name, &pack.name)?.map(|entry| (entry, pack.name, pack.size)));
            }
            kept.insert(pack.name, pack);
        }
    }
    doubtful.retain(|(_, pack, _)| unproved.contains(pack));
    prove(repo, &doubtful, monitor)?;
    last.supersedes.sort_unstable();
    last.supersedes.dedup();
    last.vouched.sort_unstable();
    last.vouched.dedup();
    publish(repo, kept.into_values().collect(), last)?;
    Ok(old.len())
}

/// The index objects that name a condemned pack, and small ones of full keys if there are many.
fn to_replace(repo: &Repository, condemned: &HashSet<PackName>) -> Result<Vec<IndexName>> {
    let packs: HashMap<EntryNumber, PackName> =
        repo.index().packs()?.into_iter().map(|pack| (pack.number, pack.name)).collect();
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

fn entries_of(repo: &Repository, object: &IndexName, pack: &PackName) -> Result<Option<EntryNumber>> {
    for entry in repo.index().entries_of(object)? {
        if repo.index().pack(entry)?.is_some_and(|map| map.name == *pack) {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

/// Reads packs that only writers have indexed: who signs these entries next answers for them.
fn prove(repo: &Repository, doubtful: &[(EntryNumber, PackName, u64)], monitor: &dyn Monitor) -> Result<()> {
    let job =
        |(entry, name, size): &(EntryNumber, PackName, u64)| Job { name: *name, size: *size, entries: vec![*entry] };
    let jobs: Vec<Job> = doubtful.iter().map(job).collect();
    for found in packs::read_all(repo, &jobs, monitor)? {
        let object = repo.names().pack(&found.name);
        if let Some(problem) = found.problems.first() {
            return Err(Error::damaged(object, &problem.why));
        }
        if found.is_frozen || found.on_frozen > 0 || !found.resting.is_empty() {
            return Err(Error::damaged(object, "what only a writer has indexed cannot be proved"));
        }
    }
    Ok(())
}

/// Publishes entries in objects of a fair size; the last one says what they replace.
fn publish(repo: &Repository, kept: Vec<PackEntry>, mut last: IndexObject) -> Result<()> {
    for pack in kept {
        if !last.packs.is_empty() && blobs_of(&last.packs) + pack.blobs() > limits::INDEX_BLOBS_TARGET {
            let packs = std::mem::take(&mut last.packs);
            repo.publish_index(&IndexObject { packs, ..IndexObject::default() })?;
        }
        last.packs.push(pack);
    }
    repo.publish_index(&last).map(|_| ())
}
