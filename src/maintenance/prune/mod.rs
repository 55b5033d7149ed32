//! Deleting what no snapshot needs, beside backups that do not stop.
//!
//! 1. Plans are listed. One in force is taken up at 6; otherwise the number of
//!    the new one is fixed now.
//! 2. Snapshots are listed, then the index is read, then packs are listed; all
//!    that snapshots need is walked. What is damaged or missing stops it here.
//! 3. Packs are chosen: those of which nothing is needed, and those whose rest is
//!    worth writing anew.
//! 4. What is needed of the latter is copied, and the copies are indexed.
//! 5. The plan is created under its number: it condemns the chosen packs. If the
//!    number is taken, another prune was faster.
//! 6. Sessions are listed. Each that has not seen the plan must be gone, or have
//!    its snapshot, or be ended by a tombstone, if nothing was heard of it for
//!    long. Where one is alive, the plan stays in force, and the next prune goes
//!    on.
//! 7. Snapshots, index and packs are listed again, and the snapshots that the
//!    plan did not see are walked: all, if it is another's plan.
//! 8. What they need of condemned packs is copied. A condemned pack is never
//!    spared: another prune may sleep with it on its list.
//! 9. The index is published without what is condemned.
//! 10. Replaced index objects are deleted, then packs; the plan is emptied, but for
//!     those packs that are left there: because the store keeps them locked, or
//!     for readers that planned before and are slow. Each later plan names them,
//!     and no copy in them counts for anybody, until one has deleted them.
//!
//! What a crash leaves: until 5, packs that stand twice; after it a plan in force,
//! which the next prune takes up, and which makes sessions store again what it
//! condemns. Nothing is deleted before what remains is whole without it.

mod choose;
pub(in crate::maintenance) mod copy;
mod live;
mod optimise;
mod replace;
mod sweep;

pub use choose::Bounds;
pub use optimise::{Optimise, Optimised, Rewritten, optimise};

use crate::error::{Error, Result};
use crate::format::records::{LeftPack, Plan};
use crate::id::{PackName, SnapshotId};
use crate::index::{EntryNumber, KnownPack};
use crate::limits;
use crate::monitor::{Event, Monitor};
use crate::repo::{Announced, Repository, Retained};
use crate::snapshot::{self, Snapshot};
use choose::{Choice, PackUse, choose};
use live::{Live, Standing, Walk, live_bytes};
use std::collections::{HashMap, HashSet};
use std::time::Duration;
use sweep::Sweep;

/// Packs, and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Sum {
    /// How many.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Sum {
    fn of(packs: &[PackUse]) -> Self {
        Self { packs: packs.len() as u64, bytes: packs.iter().map(|p| p.size).sum() }
    }
}

/// How a prune goes about it.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How much may stay unused, and how much be written anew.
    pub bounds: Bounds,
    /// Packs that readers may know of are deleted only once no index object has named them for so long, by the
    /// store's clock. `None`: at once.
    pub keep_condemned: Option<Duration>,
    /// All packs that are sealed to a key pair which the tenant had before are written anew, whatever the bounds.
    /// Reads the head of each pack. Where a plan is in force that one is taken up, and this must be asked for again.
    pub is_rekeyed: bool,
    /// Only to be thought out: nothing is written, not even to learn what time it is by the store's clock.
    pub is_dry: bool,
    /// Packs whose copies are taken before others: those that `optimise` has written.
    pub preferred: HashSet<PackName>,
    /// Snapshots that are taken to be forgotten already; only where it is dry.
    pub forgotten: HashSet<SnapshotId>,
}

impl From<Bounds> for Options {
    fn from(bounds: Bounds) -> Self {
        Self { bounds, ..Self::default() }
    }
}

/// What a prune is about to do.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct Summary {
    /// The plan that is taken up, if one is in force.
    pub taken_up: Option<u64>,
    /// Snapshots that were walked.
    pub snapshots: u64,
    /// Packs of which nothing is needed: deleted.
    pub unused: Sum,
    /// Packs of which a part is needed: that is written anew, and they are deleted.
    pub repacked: Sum,
    /// Bytes of these that are needed: read, and written anew.
    pub rewritten: u64,
    /// Packs that stay.
    pub kept: Sum,
    /// Bytes of these that nothing needs.
    pub idle: u64,
    /// Packs that no index object names, and that may belong to a backup which runs now: they stay.
    pub spared: Sum,
    /// Packs that were condemned before, and are left there for readers that know of them: they stay, too.
    pub left: Sum,
}

/// What a prune has done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Sessions that must end before anything is deleted.
    pub waiting: Vec<Announced>,
    /// Sessions that were given up.
    pub ended: Vec<SnapshotId>,
    /// Packs that were deleted, or were gone.
    pub deleted: u64,
    /// Packs that were condemned and are left there, for readers that know of them.
    pub left: u64,
    /// What was written anew.
    pub written: u64,
    /// Index objects that were replaced.
    pub indexes: u64,
    /// Objects that the store would not delete yet. Nothing needs them; the next prune tries again.
    pub retained: Vec<Retained>,
    /// How the store keeps what was deleted for a while, in words, if it told that it does.
    pub kept_by_store: Option<String>,
}

/// A prune that was thought out, and has changed nothing.
pub struct Prepared<'r> {
    repo: &'r Repository,
    leaves: bool,
    summary: Summary,
    work: Work,
}

enum Work {
    TakeUp(Plan),
    Begin(Box<Begin>),
}

/// A plan that is to be made.
struct Begin {
    number: u64,
    choice: Choice,
    live: Live,
    /// Packs that stand, and their bytes.
    listed: HashMap<PackName, u64>,
    seen: Vec<SnapshotId>,
    /// What earlier plans left there, and this one does not condemn.
    left: Vec<LeftPack>,
    /// Of those that are chosen, packs that no reader can need.
    needless: HashSet<PackName>,
}

/// The repository as it is now.
struct Seen {
    snapshots: Vec<Snapshot>,
    listed: HashMap<PackName, u64>,
}

/// Lists snapshots, but for those that are known, then reads the index, then lists packs.
///
/// # Errors
/// [`Error::Damaged`] where not all can be known that snapshots need.
fn look(repo: &Repository, known: &HashSet<SnapshotId>) -> Result<Seen> {
    let mut listing = snapshot::list_but(repo, known)?;
    if !listing.damaged.is_empty() {
        return Err(listing.damaged.swap_remove(0).1);
    }
    if let Some(gone) = listing.gone.first() {
        return Err(Error::damaged(&*gone.object, gone.why()));
    }
    let mut problems = repo.sync_index()?;
    if !problems.is_empty() {
        return Err(problems.swap_remove(0));
    }
    let known = repo.index().packs()?;
    let listed: HashMap<PackName, u64> = repo.list_packs()?.into_iter().collect();
    if listed.is_empty() && !known.is_empty() {
        return Err(Error::damaged(repo.names().packs(), "the store lists no packs, and the index names some"));
    }
    Ok(Seen { snapshots: listing.snapshots, listed })
}

/// The entries whose packs are there as they were, as far as any check has found, and what each is worth.
fn standings(
    repo: &Repository,
    listed: &HashMap<PackName, u64>,
    condemned: &HashSet<PackName>,
) -> Result<HashMap<EntryNumber, Standing>> {
    let (vouched, damaged) = (repo.vouched()?, repo.known_damage()?.packs);
    let is_there = |pack: &KnownPack| listed.get(&pack.name) == Some(&pack.size) && !damaged.contains(&pack.name);
    let packs = repo.index().packs()?.into_iter().filter(is_there);
    let standing = |pack: KnownPack| {
        let is_trusted = repo.is_full(&pack.signer) || vouched.contains(&pack.vouched());
        (pack.number, Standing { is_trusted, is_condemned: condemned.contains(&pack.name) })
    };
    Ok(packs.map(standing).collect())
}

/// Thinks out what a prune would do. Changes nothing.
///
/// # Errors
/// [`Error::NotAllowed`] with a writer key; [`Error::Damaged`] or [`Error::Missing`] where not all can be known
/// that snapshots need; [`Error::Interrupted`], or the store's.
pub fn prepare<'r>(repo: &'r Repository, options: &Options, monitor: &dyn Monitor) -> Result<Prepared<'r>> {
    repo.private_key().map_err(|_| Error::NotAllowed { what: "prune" })?;
    repo.not_a_mirror()?;
    monitor.event(Event::Phase { name: "reading what snapshots need", total_bytes: None });
    let mut plans = repo.plans()?;
    if !plans.damaged.is_empty() {
        return Err(plans.damaged.swap_remove(0));
    }
    let leaves = options.keep_condemned.is_some();
    if let Some(plan) = plans.in_force {
        let summary = Summary { taken_up: Some(plan.number), ..Summary::default() };
        return Ok(Prepared { repo, leaves, summary, work: Work::TakeUp(plan) });
    }
    let number = plans.next;
    if number > limits::NUMBER_MAX {
        return Err(Error::Invalid("plans have no more numbers".into()));
    }
    let Seen { mut snapshots, mut listed } = look(repo, &HashSet::new())?;
    if options.is_dry {
        snapshots.retain(|s| !options.forgotten.contains(&s.id));
    }
    // Nobody relies on what was left.
    let was_left: HashMap<PackName, LeftPack> = plans.left.into_iter().map(|left| (left.pack, left)).collect();
    let (aside, rest): (HashMap<_, _>, HashMap<_, _>) =
        listed.into_iter().partition(|(name, _)| was_left.contains_key(name));
    listed = rest;
    let known = repo.index().packs()?;
    let preferred = known.iter().filter(|pack| options.preferred.contains(&pack.name)).map(|pack| pack.number);
    let standing = standings(repo, &listed, &HashSet::new())?;
    let mut walk = Walk::new(repo, standing, monitor).preferring(preferred.collect());
    walk.snapshots(snapshots.iter())?;
    let live = walk.live;
    // After packs: whose packs are not indexed yet was announced before.
    let is_alone = repo.announced()?.is_empty();
    let Uses { mut packs, mut needless, spared } = uses(repo, &listed, &live, is_alone)?;
    let oldest = oldest_left(repo, options, number, aside.is_empty())?;
    let (due, left): (Vec<_>, Vec<_>) = aside.into_iter().partition(|(name, _)| was_left[name].since <= oldest);
    needless.extend(due.iter().map(|(name, _)| *name));
    packs.extend(due.into_iter().map(|(name, size)| PackUse::unnamed(name, size)));
    if options.is_rekeyed {
        mark_outdated(repo, &mut packs)?;
    }
    let mut choice = choose(packs, options.bounds);
    choice.unused.truncate(limits::PRUNE_PACKS_MAX);
    choice.repacked.truncate(limits::PRUNE_PACKS_MAX - choice.unused.len());
    let summary = Summary {
        taken_up: None,
        snapshots: snapshots.len() as u64,
        unused: Sum::of(&choice.unused),
        repacked: Sum::of(&choice.repacked),
        rewritten: choice.repacked.iter().map(|p| p.needed).sum(),
        kept: Sum::of(&choice.kept),
        idle: choice.kept.iter().map(PackUse::idle).sum(),
        spared,
        left: Sum { packs: left.len() as u64, bytes: left.iter().map(|(_, size)| size).sum() },
    };
    let seen = snapshots.iter().map(|s| s.id).collect();
    let left = left.into_iter().map(|(name, _)| was_left[&name]).collect();
    let begin = Begin { number, choice, live, listed, seen, left, needless };
    Ok(Prepared { repo, leaves, summary, work: Work::Begin(Box::new(begin)) })
}

/// What was left so long ago, or before, is deleted now: seconds by the store's clock.
fn oldest_left(repo: &Repository, options: &Options, number: u64, nothing_left: bool) -> Result<i64> {
    let Some(keep) = options.keep_condemned.filter(|_| !nothing_left) else { return Ok(i64::MAX) };
    let now = if options.is_dry { repo.clock().now() } else { repo.store_time(number)? };
    Ok(now.seconds.saturating_sub_unsigned(keep.as_secs()))
}

/// How much is needed of packs.
struct Uses {
    packs: Vec<PackUse>,
    /// Those of them that no index object names.
    needless: HashSet<PackName>,
    /// Such that may belong to a backup which runs now.
    spared: Sum,
}

/// How much is needed of each pack; packs that no index object names are spared, unless nobody else is there.
fn uses(repo: &Repository, listed: &HashMap<PackName, u64>, live: &Live, is_alone: bool) -> Result<Uses> {
    let mut found: HashMap<PackName, PackUse> = HashMap::new();
    for pack in repo.index().packs()? {
        if !listed.contains_key(&pack.name) {
            continue;
        }
        let Some(map) = repo.index().pack(pack.number)? else { continue };
        let needed = live_bytes(repo, live, pack.number)?;
        let holds = map.frames().iter().map(|(_, frame)| u64::from(frame.stored)).sum();
        let (name, class, size) = (pack.name, map.class, listed[&pack.name]);
        let new = || PackUse { name, class, size, holds, needed: 0, is_outdated: false };
        let place = found.entry(pack.name).or_insert_with(new);
        place.needed = place.needed.saturating_add(needed).min(place.holds);
    }
    let (mut spared, mut needless) = (Sum::default(), HashSet::new());
    for (name, size) in listed {
        if found.contains_key(name) {
            continue;
        }
        if is_alone {
            found.insert(*name, PackUse::unnamed(*name, *size));
            needless.insert(*name);
        } else {
            spared.packs += 1;
            spared.bytes += size;
        }
    }
    Ok(Uses { packs: found.into_values().collect(), needless, spared })
}

/// Marks packs that are needed and sealed to a key pair which the tenant had before.
fn mark_outdated(repo: &Repository, packs: &mut [PackUse]) -> Result<()> {
    let needed: Vec<PackName> = packs.iter().filter(|p| p.needed > 0).map(|p| p.name).collect();
    let former: HashSet<PackName> = repo.sealed_to_former(&needed)?.into_iter().collect();
    packs.iter_mut().for_each(|p| p.is_outdated = former.contains(&p.name));
    Ok(())
}

impl Prepared<'_> {
    /// What it will do.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Does it.
    ///
    /// # Errors
    /// [`Error::Busy`] if another prune was faster; those of [`prepare`]. What was not done yet is done by the
    /// next prune.
    pub fn execute(self, monitor: &dyn Monitor) -> Result<Outcome> {
        let repo = self.repo;
        repo.writable()?;
        let (mut outcome, mut proved) = (Outcome::default(), HashSet::new());
        let (plan, needless, is_own) = match self.work {
            Work::TakeUp(plan) => (plan, HashSet::new(), false),
            Work::Begin(begin) => {
                let Begin { number, choice, live, listed, seen, left, needless } = *begin;
                let gone: Vec<&PackUse> = choice.unused.iter().chain(&choice.repacked).collect();
                if gone.is_empty() {
                    return Ok(outcome);
                }
                // What cannot be replaced stops it before there is a plan, which would stay in force.
                let condemned: HashSet<PackName> = gone.iter().map(|p| p.name).collect();
                replace::gather(repo, &condemned, &listed, &mut proved, monitor)?;
                let entries = entries_in(repo, &live, &condemned)?;
                monitor.event(Event::Phase { name: "copying", total_bytes: Some(self.summary.rewritten) });
                outcome.written += copy::copy(repo, &live, &entries, monitor)?.bytes;
                let condemned = gone.iter().map(|p| p.name).collect();
                let plan = Plan { number, condemned, superseded: Vec::new(), seen, done: false, left };
                repo.begin_plan(&plan)?;
                (plan, needless, true)
            }
        };
        let sweep = Sweep { repo, plan, is_own, needless, leaves: self.leaves, monitor };
        sweep.run(&mut proved, &mut outcome)?;
        Ok(outcome)
    }
}

/// The entries of these packs of which something is needed, in the order in which they were added.
fn entries_in(repo: &Repository, live: &Live, packs: &HashSet<PackName>) -> Result<Vec<EntryNumber>> {
    let needed: HashSet<EntryNumber> = live.entries().collect();
    let known = repo.index().packs()?.into_iter();
    let mut entries: Vec<EntryNumber> =
        known.filter(|p| packs.contains(&p.name) && needed.contains(&p.number)).map(|p| p.number).collect();
    entries.sort_unstable();
    Ok(entries)
}
