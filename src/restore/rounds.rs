//! One round is written while the next one is planned: planning is one thread's
//! work, and the cores have else nothing to do meanwhile. Rounds are written in
//! the order in which they were planned, never two at a time. What follows from
//! a round, links and the attributes of folders, is its planner's, who is given
//! it back.

use super::fetch;
use super::plan::{Link, Round, Written};
use super::target::{Owners, TargetFolder};
use crate::error::{Error, Result};
use crate::format::node::Node;
use crate::monitor::Monitor;
use crate::repo::Repository;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::sync::Arc;
use std::thread;

/// A round that was written.
pub(super) struct Settled {
    pub written: Written,
    /// Names to link, whose first names are there now.
    pub links: Vec<Link>,
    /// Folders in which nothing will be made any more, innermost first.
    pub finished: Vec<(Arc<TargetFolder>, Node)>,
}

/// The way of rounds to whoever writes them, and back.
pub(super) struct Rounds {
    to: Sender<Round>,
    done: Receiver<Result<Settled>>,
    underway: bool,
}

/// Plans with a thread beside that writes.
///
/// # Errors
/// Those of `plan`; [`Error::Invalid`] if the writing thread panicked.
pub(super) fn alongside<T>(
    repo: &Repository,
    owners: &Owners,
    monitor: &dyn Monitor,
    plan: impl FnOnce(Rounds) -> Result<T>,
) -> Result<T> {
    thread::scope(|scope| {
        let (to, rounds) = bounded::<Round>(0);
        let (tell, done) = bounded(1);
        let writer = scope.spawn(move || {
            for mut round in rounds {
                let written = fetch::write(repo, &mut round, owners, monitor);
                let Round { links, finished, .. } = round;
                if tell.send(written.map(|written| Settled { written, links, finished })).is_err() {
                    return;
                }
            }
        });
        let planned = plan(Rounds { to, done, underway: false });
        writer.join().map_err(|_| panicked())?;
        planned
    })
}

fn panicked() -> Error {
    Error::Invalid("a writing thread panicked".into())
}

impl Rounds {
    /// True if nothing is being written.
    pub fn is_idle(&self) -> bool {
        !self.underway || !self.done.is_empty()
    }

    /// Waits until the round underway is written, and gives it back; `None` if there is none.
    ///
    /// # Errors
    /// The store's, a full disk, [`Error::Interrupted`].
    pub fn settle(&mut self) -> Result<Option<Settled>> {
        if !std::mem::take(&mut self.underway) {
            return Ok(None);
        }
        self.done.recv().map_err(|_| panicked())?.map(Some)
    }

    /// Has a round written. The one before must be settled.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the writing thread panicked.
    pub fn begin(&mut self, round: Round) -> Result<()> {
        self.to.send(round).map_err(|_| panicked())?;
        self.underway = true;
        Ok(())
    }
}
