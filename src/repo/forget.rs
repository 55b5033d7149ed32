//! Forgetting snapshots: in which order, so that whatever breaks off harms
//! nobody. Which ones is not decided here.
//!
//! 1. A record says which will be gone: from here on nobody misses them.
//! 2. Holds are listed. Whoever puts a snapshot under hold creates the hold first
//!    and then looks at the records, so one of the two sees the other.
//! 3. Sessions are listed. One that is not there after its snapshot was listed has
//!    ended, and will not commit again.
//! 4. The snapshots are deleted, the oldest first. One whose session's object is
//!    there becomes a tombstone instead: a commit that is sent again would bring
//!    it back. Where the store cannot create only if absent, a tombstone stops
//!    nobody, and the snapshot stays. Each is read once more before it is deleted:
//!    in the place of one whose session is gone another forget may have put a
//!    tombstone, for whose sake a prune removed the session. Tombstones stay.
//!
//! What a crash leaves: after 1 a record of snapshots that stand, which nobody
//! would miss until they are forgotten again or held; after some of 4, fewer
//! snapshots.

use super::forgotten::Standing;
use super::{Fate, Repository};
use crate::error::{Error, Result, StoreFault};
use crate::format::manifest::Manifest;
use crate::format::names::last_part;
use crate::format::standing::ForgottenSnapshot;
use crate::id::{SignerId, SnapshotId};
use crate::monitor::Monitor;
use std::collections::{HashMap, HashSet};

/// What became of the snapshots that were to be forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Forgot {
    /// Those that are gone.
    pub gone: Vec<SnapshotId>,
    /// Those of them in whose place a tombstone stands.
    pub buried: Vec<SnapshotId>,
    /// Those that stay: meanwhile somebody put them under hold.
    pub held: Vec<SnapshotId>,
    /// Those that stay: the store keeps their objects locked.
    pub retained: Vec<SnapshotId>,
    /// Those that stay: their sessions' objects are there, on a store that cannot create only if absent.
    pub unfinished: Vec<SnapshotId>,
}

impl Repository {
    /// Forgets snapshots, in this order; `there` are all that could be read, `is_whole` says that there are no
    /// others. Of those that are under hold, or are put there meanwhile, none is touched.
    ///
    /// # Errors
    /// [`Error::NotAllowed`] with a writer key, [`Error::Interrupted`], or the store's: then some are gone.
    pub fn forget(
        &self,
        doomed: &[SnapshotId],
        there: &[(SnapshotId, &Manifest, SignerId)],
        is_whole: bool,
        monitor: &dyn Monitor,
    ) -> Result<Forgot> {
        self.tenant_signing("forget snapshots")?;
        let mut outcome = Forgot::default();
        if doomed.is_empty() {
            return Ok(outcome);
        }
        self.announce(doomed, there, is_whole)?;
        let (held, sessions) = (self.held()?, self.sessions()?);
        for id in doomed {
            if monitor.cancelled() {
                return Err(Error::Interrupted);
            }
            match (held.contains(id), sessions.contains(id)) {
                (true, _) => outcome.held.push(*id),
                (false, true) if !self.creates_if_absent => outcome.unfinished.push(*id),
                (false, true) => {
                    self.bury(id)?;
                    outcome.gone.push(*id);
                    outcome.buried.push(*id);
                }
                (false, false) => match self.drop_snapshot(id) {
                    Err(Error::Store(e)) if e.fault == StoreFault::Retained => outcome.retained.push(*id),
                    dropped => {
                        dropped?;
                        outcome.gone.push(*id);
                    }
                },
            }
        }
        Ok(outcome)
    }

    fn drop_snapshot(&self, id: &SnapshotId) -> Result<()> {
        if self.fate(id)? == Fate::Ended {
            return Ok(());
        }
        match self.store.delete(&self.names.snapshot(id)) {
            // Somebody else was faster.
            Err(e) if e.fault != StoreFault::NotFound => Err(e.into()),
            _ => Ok(()),
        }
    }

    fn announce(
        &self,
        doomed: &[SnapshotId],
        there: &[(SnapshotId, &Manifest, SignerId)],
        is_whole: bool,
    ) -> Result<()> {
        let known: HashMap<SnapshotId, (&Manifest, SignerId)> =
            there.iter().map(|(id, m, s)| (*id, (*m, *s))).collect();
        let new = doomed.iter().map(|id| match known.get(id) {
            Some((m, signer)) => ForgottenSnapshot {
                snapshot: *id,
                signer: *signer,
                chain: m.chain,
                counter: m.counter,
                before: m.previous,
            },
            None => ForgottenSnapshot {
                snapshot: *id,
                signer: SignerId([0; 32]),
                chain: [0; 16],
                counter: 0,
                before: None,
            },
        });
        let new: Vec<ForgottenSnapshot> = new.collect();
        let going: HashSet<&SnapshotId> = doomed.iter().collect();
        let read = there.iter().filter(|(id, ..)| !going.contains(id)).copied().collect();
        let (history, problems) = self.history()?;
        // A record of a newer program would be lost in what takes its place.
        if let Some(newer) = problems.into_iter().find(|e| matches!(e, Error::Newer { .. })) {
            return Err(newer);
        }
        self.note_forgotten(&history, &new, &Standing { read, is_whole })
    }

    /// The sessions whose objects are there.
    fn sessions(&self) -> Result<HashSet<SnapshotId>> {
        let listed = self.store.list(&self.names.sessions())?;
        Ok(listed.iter().filter_map(|o| last_part(&o.name).parse().ok()).collect())
    }

    /// Puts a tombstone where a snapshot is.
    fn bury(&self, id: &SnapshotId) -> Result<()> {
        let grave = self.sealed_tombstone(id, "forgotten")?;
        Ok(self.store.write(&self.names.snapshot(id), grave.into())?)
    }
}
