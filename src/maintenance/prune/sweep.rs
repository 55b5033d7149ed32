//! Carrying a plan out: steps 6 to 10 of a prune (see the module above), whoever made the plan. Chooses nothing.

use super::live::{Live, Walk};
use super::{Outcome, Seen, copy, entries_in, look, replace, standings};
use crate::error::{Error, Result};
use crate::format::records::{LeftPack, Plan};
use crate::id::{IndexName, PackName, SnapshotId};
use crate::index::EntryNumber;
use crate::limits;
use crate::monitor::{Event, Monitor};
use crate::repo::{self, Fate, Packed, Repository};
use crate::store::Protection;
use std::collections::{HashMap, HashSet};

/// How often a repository is looked at in which another prune works.
const LOOKS: usize = 3;

/// A plan, and what who carries it out knows beyond it.
pub(super) struct Sweep<'s> {
    pub repo: &'s Repository,
    pub plan: Plan,
    /// It was made by this prune, and so its snapshots were walked by it.
    pub is_own: bool,
    /// Packs that no reader can need: no index object has named them for long enough.
    pub needless: HashSet<PackName>,
    /// All others are left in the store: a later prune deletes them.
    pub leaves: bool,
    pub monitor: &'s dyn Monitor,
}

impl Sweep<'_> {
    /// Carries the plan out.
    ///
    /// # Errors
    /// Those of a prune: then the plan stays in force.
    pub fn run(&self, proved: &mut HashSet<EntryNumber>, outcome: &mut Outcome) -> Result<()> {
        let Self { repo, plan, monitor, .. } = self;
        settle_sessions(repo, plan, outcome)?;
        if !outcome.waiting.is_empty() {
            return Ok(());
        }
        monitor.event(Event::Phase { name: "reading what new snapshots need", total_bytes: None });
        let condemned: HashSet<PackName> = plan.condemned.iter().copied().collect();
        let left: HashSet<PackName> = plan.left.iter().map(|left| left.pack).collect();
        let live = self.new_needs(&condemned, &left)?;
        let Packed { bytes, .. } = copy::copy(repo, &live, &entries_in(repo, &live, &condemned)?, *monitor)?;
        outcome.written += bytes;
        let listed: HashMap<PackName, u64> = repo.list_packs()?.into_iter().collect();
        let standing = listed.iter().filter(|(name, _)| !left.contains(name)).map(|(name, size)| (*name, *size));
        let replacement = replace::gather(repo, &condemned, &standing.collect(), proved, *monitor)?;
        outcome.indexes = replacement.old as u64;
        replacement.publish(repo)?;
        // The index on this machine forgets what is replaced before it is gone.
        repo.sync_index()?;
        self.delete(&listed, outcome)?;
        if outcome.deleted > 0
            && repo.store().is_far()
            && let Protection::Stands(means) = repo.store().protection()
        {
            outcome.kept_by_store = Some(means);
        }
        Ok(())
    }

    /// Deletes index objects that are replaced, then packs, and ends the plan.
    fn delete(&self, listed: &HashMap<PackName, u64>, outcome: &mut Outcome) -> Result<()> {
        let Self { repo, plan, monitor, .. } = self;
        monitor.event(Event::Phase { name: "deleting", total_bytes: None });
        let (sizes, superseded) = repo.listed_indexes()?;
        let sized = |name: &IndexName| (repo.names().index(name), sizes.get(name).copied().unwrap_or_default());
        let superseded: Vec<(String, u64)> = superseded.iter().map(sized).collect();
        outcome.retained = repo::delete_all(&**repo.store(), &superseded, *monitor)?;
        let stays = |name: &PackName| self.leaves && !self.needless.contains(name);
        let (staying, going): (Vec<PackName>, Vec<PackName>) = plan.condemned.iter().copied().partition(stays);
        let mut left: Vec<PackName> = staying.into_iter().filter(|name| listed.contains_key(name)).collect();
        outcome.left = left.len() as u64;
        let sized = |name: &PackName| (repo.names().pack(name), listed.get(name).copied().unwrap_or_default());
        let objects: Vec<(String, u64)> = going.iter().map(sized).collect();
        let retained = repo::delete_all(&**repo.store(), &objects, *monitor)?;
        outcome.deleted = (going.len() - retained.len()) as u64;
        // They stand, and must count for nobody, whoever publishes what names them.
        left.extend(going.iter().filter(|name| retained.iter().any(|o| o.name == repo.names().pack(name))));
        outcome.retained.extend(retained);
        let since = if left.is_empty() { 0 } else { repo.store_time(plan.number)?.seconds };
        let before = plan.left.iter().copied().filter(|left| listed.contains_key(&left.pack));
        let left = before.chain(left.into_iter().map(|pack| LeftPack { pack, since }));
        repo.end_plan(plan.number, left.collect())
    }

    /// What snapshots need that the plan did not see. Where another prune carries out the same plan, what it
    /// replaces and deletes between two listings looks like damage: then all is listed again.
    fn new_needs(&self, condemned: &HashSet<PackName>, left: &HashSet<PackName>) -> Result<Live> {
        let seen: HashSet<SnapshotId> = self.plan.seen.iter().copied().filter(|_| self.is_own).collect();
        let needs = || {
            let Seen { snapshots, mut listed } = look(self.repo, &seen)?;
            listed.retain(|name, _| !left.contains(name));
            let mut walk = Walk::new(self.repo, standings(self.repo, &listed, condemned)?, self.monitor);
            walk.snapshots(snapshots.iter())?;
            Ok(walk.live)
        };
        let mut found = needs();
        for _ in 1..LOOKS {
            match &found {
                Err(e) if Error::is_damage(e) => found = needs(),
                _ => break,
            }
        }
        found
    }
}

/// Sees to it that no session is left that may rely on what the plan condemns, or names those that are.
fn settle_sessions(repo: &Repository, plan: &Plan, outcome: &mut Outcome) -> Result<()> {
    // Before they are listed: whoever is heard of later is alive.
    let now = repo.store_time(plan.number)?;
    for session in repo.announced()? {
        if session.seen >= plan.number {
            continue;
        }
        let is_dead = now.seconds.saturating_sub(session.heard.seconds) >= limits::SESSION_DEAD_SECONDS;
        match repo.fate(&session.id)? {
            Fate::Committed => continue,
            Fate::Ended => {}
            Fate::Open if is_dead => {
                repo.fence(&session.id)?;
                if repo.fate(&session.id)? == Fate::Committed {
                    // It was faster.
                    continue;
                }
                outcome.ended.push(session.id);
            }
            Fate::Open => {
                outcome.waiting.push(session);
                continue;
            }
        }
        // One that is alive finds the tombstone, and removes its object itself.
        if is_dead {
            repo.remove_session(&session.id)?;
        }
    }
    Ok(())
}
