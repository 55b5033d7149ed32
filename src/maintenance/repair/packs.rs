//! Mending packs that are damaged or gone.
//!
//! 1. The index is read, and packs are listed. Those are read that the newest record
//!    of damage names, that have another size than the index says, or all.
//! 2. One that does not hash to its name is made again, of what is left of it by its
//!    parity, or of another repository's, and put under its own name. So is one that is
//!    gone.
//! 3. The record of damage is brought up to date: what was mended counts again, what
//!    was not counts no more.
//! 4. What is whole of the others is copied (see [`super::salvage`]).
//!
//! What a crash leaves: packs that were mended and do not count yet, or copies that
//! stand twice; doing it again goes on.
//!
//! Beside a prune: a pack that is put back may be on a plan's list, of a prune that
//! goes on or sleeps. Then it is deleted again, and nobody misses it: no index object
//! names what a plan condemned once its packs are deleted. A session counts a pack that
//! was mended only once the record of damage names it no more.
//!
//! No index object is replaced here, and no pack deleted: whatever relies on an entry
//! still finds it, and what it says of lost frames tells `check` what is lost. A damaged
//! pack of which nothing is needed any more the next prune deletes, under its plan.

use super::salvage::{Salvaged, Sick, salvage};
use crate::error::{Error, Result};
use crate::format::header;
use crate::format::pack::StorageClass;
use crate::id::PackName;
use crate::index::EntryNumber;
use crate::limits;
use crate::maintenance::cores;
use crate::monitor::{Event, Monitor};
use crate::pack::{self, is_itself};
use crate::repo::Repository;
use crate::store::Store;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// What is to be done.
#[derive(Default)]
pub struct Wanted<'w> {
    /// Every pack is read, and not only those that are known to be damaged.
    pub all: bool,
    /// Another repository with the same packs, to take from it what is damaged here.
    pub from: Option<&'w dyn Store>,
    /// Nothing is written.
    pub is_dry: bool,
}

/// What is done about a damaged pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Remedy {
    /// It is mended by its parity.
    Parity,
    /// It is taken from the other repository.
    Other,
    /// What is whole of it, and lay nowhere else, lies elsewhere now.
    Copied,
    /// Nothing: it is gone, or all of it is damaged.
    Nothing,
    /// Nothing: no index object names it.
    Unneeded,
}

/// A pack that was damaged or gone.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Treated {
    /// Its name in the store.
    pub object: String,
    /// What was wrong with it.
    pub why: String,
    /// What is done about it.
    pub remedy: Remedy,
    /// Frames that were copied.
    pub copied_frames: u64,
    /// Frames that are damaged or gone, and hold what lay nowhere else.
    pub lost_frames: u64,
}

/// What was found and done.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Outcome {
    /// Packs in the store.
    pub packs: u64,
    /// Those that were read.
    pub read_packs: u64,
    /// Their bytes.
    pub read_bytes: u64,
    /// Packs that must be thawed before they can be read: nothing is known of them.
    pub frozen_packs: u64,
    /// Packs that were damaged or gone: the first `limits::REPORT_MAX`.
    pub damaged: Vec<Treated>,
    /// Such in all.
    pub damages: u64,
    /// Those that are as they were.
    pub mended: u64,
    /// Bytes of new packs, of what was copied.
    pub written_bytes: u64,
    /// Blobs of which no whole copy is left in the repository.
    pub lost_blobs: u64,
}

/// A pack that is looked at.
struct Job {
    name: PackName,
    /// `None` if it is gone.
    size: Option<u64>,
    class: StorageClass,
    entries: Vec<EntryNumber>,
}

/// What came of one.
enum Found {
    Whole(u64),
    Frozen,
    Mended(Remedy, String),
    Damaged(String),
    Gone,
}

/// Mends what can be mended.
///
/// # Errors
/// [`Error::NotAllowed`] with a writer key, [`Error::Interrupted`], [`Error::Fenced`] if a prune gave the copying
/// up, or a store's. What was done until then stays, and doing it again goes on.
pub fn repair_packs(repo: &Repository, wanted: &Wanted<'_>, monitor: &dyn Monitor) -> Result<Outcome> {
    repo.private_key().map_err(|_| Error::NotAllowed { what: "repair packs" })?;
    if !wanted.is_dry {
        repo.writable()?;
    }
    let (jobs, mut outcome) = look(repo, wanted, monitor)?;
    let total = jobs.iter().filter_map(|job| job.size).sum();
    monitor.event(Event::Phase { name: "reading packs", total_bytes: Some(total) });
    let mut found: Vec<(&Job, Found)> = cores::on_all(&jobs, monitor, |job| {
        let found = treat(repo, wanted, job)?;
        monitor.event(Event::Bytes(job.size.unwrap_or(0)));
        Ok((job, found))
    })?;
    found.sort_by_key(|(job, _)| job.name);
    if !wanted.is_dry {
        publish(repo, &found)?;
    }
    let sick: Sick = found
        .iter()
        .filter(|(_, found)| matches!(found, Found::Damaged(_) | Found::Gone))
        .map(|(job, found)| (job.name, matches!(found, Found::Damaged(_))))
        .collect();
    let salvaged = salvage(repo, &sick, wanted.is_dry, monitor)?;
    tell(repo, found, &salvaged, &mut outcome);
    Ok(outcome)
}

/// The packs that are to be read, or are gone.
fn look(repo: &Repository, wanted: &Wanted<'_>, monitor: &dyn Monitor) -> Result<(Vec<Job>, Outcome)> {
    monitor.event(Event::Phase { name: "index", total_bytes: None });
    let condemned: HashSet<PackName> = repo.plans()?.in_force.into_iter().flat_map(|plan| plan.condemned).collect();
    for problem in repo.sync_index()? {
        monitor.event(Event::Warning(format!("{problem}; packs that it alone names are not looked at")));
    }
    // In this order: packs that a backup stores meanwhile are not missed.
    let known = repo.index().packs()?;
    let mut listed: HashMap<PackName, u64> = repo.list_packs()?.into_iter().collect();
    let recorded = repo.known_damage()?.packs;
    let outcome = Outcome { packs: listed.len() as u64, ..Outcome::default() };
    let mut named: BTreeMap<PackName, (HashSet<u64>, Vec<EntryNumber>)> = BTreeMap::new();
    for pack in known {
        let (sizes, entries) = named.entry(pack.name).or_default();
        sizes.insert(pack.size);
        entries.push(pack.number);
    }
    let mut jobs = Vec::new();
    for (name, (sizes, entries)) in named {
        let size = listed.remove(&name);
        let is_suspect = match size {
            // A prune may be about to delete it, or has done so.
            None => !condemned.contains(&name),
            Some(size) => wanted.all || recorded.contains(&name) || sizes.iter().any(|known| *known != size),
        };
        if !is_suspect {
            continue;
        }
        let class = match entries.first() {
            Some(entry) => repo.index().pack(*entry)?.map(|map| map.class),
            None => None,
        };
        jobs.push(Job { name, size, class: class.unwrap_or(StorageClass::Data), entries });
    }
    if wanted.all {
        let unnamed = |(name, size)| Job { name, size: Some(size), class: StorageClass::Data, entries: Vec::new() };
        jobs.extend(listed.into_iter().map(unnamed));
    }
    Ok((jobs, outcome))
}

/// Reads a pack; if it is damaged or gone, makes it again, if that can be done.
fn treat(repo: &Repository, wanted: &Wanted<'_>, job: &Job) -> Result<Found> {
    let left = match job.size {
        None => None,
        Some(size) => match repo.left_of_pack(&job.name) {
            // An answer that broke off must not pass for a pack that was cut short.
            Ok(left) if left.len() as u64 != size.min(limits::PACK_MAX) => Some(repo.left_of_pack(&job.name)?),
            Ok(left) => Some(left),
            Err(e) if e.is_frozen() => return Ok(Found::Frozen),
            // It went meanwhile.
            Err(e) if e.is_not_found() => None,
            Err(e) => return Err(e),
        },
    };
    if let Some(left) = left.as_ref().filter(|left| is_itself(&job.name, left)) {
        return Ok(Found::Whole(left.len() as u64));
    }
    let why = match &left {
        None => "it is missing".to_owned(),
        Some(left) => match header::opened(left) {
            Err(e) => e.to_string(),
            Ok(_) => "it is another object, under this one's name".into(),
        },
    };
    let put = |bytes: Bytes| match wanted.is_dry {
        true => Ok(()),
        false => repo.put_back(&job.name, bytes, job.class, left.is_some()),
    };
    if let Some(mended) = left.as_ref().and_then(|left| pack::mend(&job.name, &[left]).ok()) {
        put(mended.bytes.into())?;
        let shards = format!("{why} ({} of {} shards)", mended.damaged, mended.shards);
        return Ok(Found::Mended(Remedy::Parity, shards));
    }
    let Some(other) = wanted.from.map(|from| of_other(repo, from, &job.name)).transpose()?.flatten() else {
        return Ok(if left.is_some() { Found::Damaged(why) } else { Found::Gone });
    };
    if is_itself(&job.name, &other) {
        put(other)?;
        return Ok(Found::Mended(Remedy::Other, why));
    }
    // Two that are damaged may make a whole one.
    let both: Vec<&[u8]> = left.iter().chain([&other]).map(|bytes| &bytes[..]).collect();
    if let Ok(mended) = pack::mend(&job.name, &both) {
        put(mended.bytes.into())?;
        return Ok(Found::Mended(Remedy::Other, why));
    }
    Ok(if left.is_some() { Found::Damaged(why) } else { Found::Gone })
}

/// What the other repository has under the pack's name.
fn of_other(repo: &Repository, from: &dyn Store, name: &PackName) -> Result<Option<Bytes>> {
    match from.read(&repo.names().pack(name), limits::PACK_MAX).map_err(Error::from) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.is_damage() || e.is_frozen() => Ok(None),
        Err(e) => Err(e),
    }
}

/// What was read counts again if it is whole now, and no more if it is not.
fn publish(repo: &Repository, found: &[(&Job, Found)]) -> Result<()> {
    let of = |is: fn(&Found) -> bool| -> BTreeSet<PackName> {
        let some = found.iter().filter(|(job, found)| is(found) && !job.entries.is_empty());
        some.map(|(job, _)| job.name).collect()
    };
    let sound = of(|found| matches!(found, Found::Whole(_) | Found::Mended(..)));
    let damaged = of(|found| matches!(found, Found::Damaged(_)));
    repo.publish_damage(|packs| {
        packs.retain(|name| !sound.contains(name));
        packs.extend(&damaged);
    })?;
    Ok(())
}

fn tell(repo: &Repository, found: Vec<(&Job, Found)>, salvaged: &Salvaged, outcome: &mut Outcome) {
    outcome.written_bytes = salvaged.bytes;
    outcome.lost_blobs = salvaged.lost_blobs;
    for (job, found) in found {
        let (why, remedy) = match found {
            Found::Frozen => {
                outcome.frozen_packs += 1;
                continue;
            }
            Found::Whole(bytes) => {
                (outcome.read_packs, outcome.read_bytes) = (outcome.read_packs + 1, outcome.read_bytes + bytes);
                continue;
            }
            Found::Mended(remedy, why) => {
                outcome.mended += 1;
                (why, remedy)
            }
            Found::Damaged(why) if !salvaged.named.contains(&job.name) => (why, Remedy::Unneeded),
            Found::Damaged(why) => match salvaged.of(&job.name).0 {
                0 => (why, Remedy::Nothing),
                _ => (why, Remedy::Copied),
            },
            // A prune has deleted it meanwhile.
            Found::Gone if !salvaged.named.contains(&job.name) => continue,
            Found::Gone => ("it is missing".into(), Remedy::Nothing),
        };
        if let Some(size) = job.size {
            (outcome.read_packs, outcome.read_bytes) = (outcome.read_packs + 1, outcome.read_bytes + size);
        }
        let (copied_frames, lost_frames) = salvaged.of(&job.name);
        outcome.damages += 1;
        if outcome.damaged.len() < limits::REPORT_MAX {
            let object = repo.names().pack(&job.name);
            outcome.damaged.push(Treated { object, why, remedy, copied_frames, lost_frames });
        }
    }
}
