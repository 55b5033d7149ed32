//! Where a new stream goes along an old one, and where it leaves it: between
//! two blobs that both streams have, a run of the new one replaces a run of the
//! old one. Looks ahead in the old stream by a bounded number of blobs; holds
//! ids and lengths, never content.

use crate::error::Result;
use crate::format::content::Extent;
use crate::id::BlobId;
use crate::limits;
use crate::snapshot::Leaves;
use std::collections::{HashMap, VecDeque};

/// A blob that stands further ahead than this is believed only if the next one stands there too: one
/// blob that both streams happen to have (zeros, say) must not skip half of the old stream.
const NEAR: u64 = 64;
/// So many blobs that are stored but not ahead: the old stream is further on than it seems.
const STRAY: u32 = 64;

/// The old stream, and where the new one is in it.
pub struct Align<'r> {
    old: Leaves<'r>,
    ended: bool,
    /// What is ahead.
    window: VecDeque<Extent>,
    /// The number of the window's first extent in the old stream.
    first: u64,
    /// The first place in the window of each blob.
    places: HashMap<BlobId, u64>,
    /// Up to here the old stream was taken as replaced without a blob that both have.
    guessed: u64,
    /// A place far ahead that waits for the next blob to confirm it.
    far: Option<u64>,
    strays: u32,
}

impl<'r> Align<'r> {
    /// Goes along `old`.
    pub fn new(old: Leaves<'r>) -> Self {
        Self {
            old,
            ended: false,
            window: VecDeque::new(),
            first: 0,
            places: HashMap::new(),
            guessed: 0,
            far: None,
            strays: 0,
        }
    }

    /// Takes the next blob of the new stream. If the old stream goes on with it, returns the run
    /// between it and the last blob that both had, less what was guessed.
    ///
    /// # Errors
    /// Where a list of the old stream cannot be read.
    pub fn meet(&mut self, id: &BlobId, is_stored: bool) -> Result<Option<Vec<BlobId>>> {
        self.fill()?;
        if let Some(far) = self.far.take()
            && self.at(far + 1).is_some_and(|e| e.id == Some(*id))
        {
            let replaced = self.replaced(far);
            self.pass(far + 2);
            return Ok(Some(replaced));
        }
        let place = match self.window.front() {
            Some(front) if front.id == Some(*id) => Some(self.first),
            _ => self.places.get(id).copied(),
        };
        match place {
            Some(place) if place <= self.first.max(self.guessed) + NEAR => {
                let replaced = self.replaced(place);
                self.pass(place + 1);
                Ok(Some(replaced))
            }
            Some(place) => {
                self.far = Some(place);
                Ok(None)
            }
            None => {
                self.stray(is_stored);
                Ok(None)
            }
        }
    }

    /// The part of the old stream that a run of `len` bytes may be taken to replace, where no blob says
    /// so. Blobs that both streams have are still found in it.
    pub fn guess(&mut self, len: u64) -> Vec<BlobId> {
        let (mut run, mut bytes) = (Vec::new(), 0);
        while bytes < len {
            let Some(extent) = self.at(self.guessed.max(self.first)) else { break };
            bytes += extent.len;
            run.extend(extent.id);
            self.guessed = self.guessed.max(self.first) + 1;
        }
        // The old stream has to come along with one that is new from end to end.
        let half = limits::ALIGN_WINDOW as u64 / 2;
        if self.guessed > self.first + half {
            self.drop_until(self.guessed - half);
        }
        run
    }

    fn at(&self, place: u64) -> Option<&Extent> {
        place.checked_sub(self.first).and_then(|n| self.window.get(usize::try_from(n).ok()?))
    }

    /// The blobs from the last one that both streams had, or the last guess, to `place`.
    fn replaced(&self, place: u64) -> Vec<BlobId> {
        (self.first.max(self.guessed)..place).filter_map(|at| self.at(at)?.id).collect()
    }

    /// The new stream is at `place`, for sure.
    fn pass(&mut self, place: u64) {
        self.drop_until(place);
        self.guessed = self.first;
        self.strays = 0;
    }

    fn drop_until(&mut self, place: u64) {
        while self.first < place {
            let Some(extent) = self.window.pop_front() else { break };
            if let Some(id) = extent.id
                && self.places.get(&id) == Some(&self.first)
            {
                self.places.remove(&id);
            }
            self.first += 1;
        }
    }

    /// Blobs that are stored and not ahead may lie behind the window: it goes on to meet them.
    fn stray(&mut self, is_stored: bool) {
        self.strays = if is_stored { self.strays + 1 } else { self.strays };
        if self.strays > STRAY && !self.ended {
            self.drop_until(self.first + 2);
        }
    }

    fn fill(&mut self) -> Result<()> {
        while !self.ended && self.window.len() < limits::ALIGN_WINDOW {
            match self.old.next().transpose()? {
                None => self.ended = true,
                Some(extent) => {
                    if let Some(id) = extent.id {
                        self.places.entry(id).or_insert(self.first + self.window.len() as u64);
                    }
                    self.window.push_back(extent);
                }
            }
        }
        Ok(())
    }
}
