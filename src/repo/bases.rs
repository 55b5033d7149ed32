//! Choosing what a new run of blobs rests on: the blobs that it replaces, or
//! what those rest on themselves. To rest on the run before costs the fewest
//! bytes and makes chains grow; to rest further down costs the changes since
//! then once more, and keeps them short.

use super::{Counting, Repository};
use crate::error::Result;
use crate::format::pack::BlobKind;
use crate::id::BlobId;
use crate::index::{BlobCopy, Hint};
use crate::limits;
use crate::pack::Bases;
use std::collections::HashSet;

/// Steps that one delta takes the place of once so many of a size lie on one another.
const ALIKE_MAX: usize = 4;
/// Steps are of a size if none is more than so many times the smallest.
const ALIKE: u64 = 3;
/// What is less than this part of a run is repeated rather than rested on.
const REPEATED: u64 = 64;
/// A chain that is this deep is not made deeper.
const CHAIN_MAX: usize = 8;
/// The same for trees and lists, which are few.
const LIST_CHAIN_MAX: usize = 12;

/// What a run could rest on.
struct Candidate {
    copies: Vec<(BlobId, BlobCopy)>,
    /// Stored bytes of the frames between it and the candidate above: about what a run's delta grows by
    /// if it rests here.
    step: u64,
}

impl Candidate {
    fn depth(&self) -> u8 {
        self.copies.iter().map(|(_, copy)| copy.frame().depth).max().unwrap_or(0)
    }

    fn plain(&self) -> usize {
        self.copies.iter().map(|(_, copy)| copy.size() as usize).sum()
    }
}

/// Finds bases for a session.
pub(super) struct Chooser<'r> {
    pub repo: &'r Repository,
    pub counting: &'r Counting,
    /// No base may lie deeper.
    pub deepest: u8,
    pub hint: Hint,
}

impl Chooser<'_> {
    /// The bases of a run of `len` bytes that replaces these blobs; `None` if there are none.
    ///
    /// # Errors
    /// The store's, and the damage of a base.
    pub fn bases(&mut self, kind: BlobKind, replaced: &[BlobId], len: usize) -> Result<Option<Bases>> {
        let mut chosen = Candidate { copies: Vec::new(), step: 0 };
        for id in replaced {
            if let Some(copy) = self.copy(id, limits::FRAME_DEPTH_MAX)? {
                chosen.copies.push((*id, copy));
            }
        }
        let mut chosen = self.chosen(kind, chosen, len)?;
        while chosen.depth() > self.deepest {
            chosen = self.below(&chosen)?;
        }
        let room = limits::FRAME_BASE_PLAIN_MAX.min(len * limits::BASES_PER_RUN + limits::PIECE_MAX);
        if chosen.copies.is_empty() || chosen.plain() > room || chosen.copies.len() > limits::FRAME_BASES_MAX {
            return Ok(None);
        }
        let mut bases = Bases { depth: chosen.depth(), ..Bases::default() };
        for (id, copy) in &chosen.copies {
            bases.plain.extend_from_slice(&self.repo.blob_copy(kind, id, copy)?);
            bases.ids.push(*id);
        }
        Ok(Some(bases))
    }

    /// How far down the chain a run of `len` bytes should rest. The deltas of a chain are of all sizes:
    /// once some of the smallest lie on top of one another, one delta takes the place of them all, and
    /// of those it makes in turn. So a chain stays as deep as the logarithm of its length, and what was
    /// changed is repeated as often.
    fn chosen(&mut self, kind: BlobKind, top: Candidate, len: usize) -> Result<Candidate> {
        let mut chain = vec![top];
        while let Some(last) = chain.last()
            && last.depth() > 0
        {
            chain.push(self.below(last)?);
        }
        // The steps from one candidate to the next, the newest first.
        let steps: Vec<u64> = chain.iter().skip(1).map(|lower| lower.step).collect();
        let down = match kind {
            BlobKind::Chunk => steps_down(&steps, len as u64),
            // Ids, mostly: what is repeated of them cannot be compressed.
            BlobKind::Tree | BlobKind::List if steps.len() < LIST_CHAIN_MAX => 0,
            BlobKind::Tree | BlobKind::List => steps.len(),
        };
        Ok(chain.swap_remove(down))
    }

    /// The copy of a blob that counts and rests on the fewest others.
    fn copy(&mut self, id: &BlobId, deepest: u8) -> Result<Option<BlobCopy>> {
        let (index, counting) = (self.repo.index(), self.counting);
        index.find(id, &mut self.hint, |copy| Ok(copy.frame().depth <= deepest && counting.counts(index, copy)?))
    }

    /// The same with its deepest frames replaced by what they rest on.
    fn below(&mut self, above: &Candidate) -> Result<Candidate> {
        let depth = above.depth();
        let mut lower = Candidate { copies: Vec::new(), step: 0 };
        let (mut ids, mut frames) = (HashSet::new(), HashSet::new());
        for (id, copy) in &above.copies {
            if copy.frame().depth < depth {
                if ids.insert(*id) {
                    lower.copies.push((*id, copy.clone()));
                }
                continue;
            }
            if !frames.insert((copy.entry(), copy.frame_number())) {
                continue;
            }
            lower.step += u64::from(copy.frame().stored);
            for base in &copy.frame().bases {
                if ids.insert(*base)
                    && let Some(found) = self.copy(base, depth - 1)?
                {
                    lower.copies.push((*base, found));
                }
            }
        }
        Ok(lower)
    }
}

/// How many steps down a chain a run of `len` bytes goes; the steps' sizes, from the top.
fn steps_down(steps: &[u64], len: u64) -> usize {
    let mut down = 0;
    // What costs next to nothing is repeated.
    let mut repeated = 0;
    while let Some(step) = steps.get(down).filter(|step| (repeated + **step) * REPEATED <= len) {
        repeated += step;
        down += 1;
    }
    let smallest = steps.iter().min().copied().unwrap_or(0);
    let alike = steps.iter().take_while(|step| **step <= smallest * ALIKE).count();
    if alike >= ALIKE_MAX {
        down = down.max(alike);
    }
    if steps.len() - down >= CHAIN_MAX { steps.len() } else { down }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_delta_takes_the_place_of_some_that_are_alike() {
        assert_eq!(steps_down(&[], 100_000), 0);
        assert_eq!(steps_down(&[2000, 2500, 2000], 100_000), 0);
        assert_eq!(steps_down(&[2000, 2500, 2000, 2100], 100_000), 4);
        assert_eq!(steps_down(&[2000, 2500, 2000, 2100, 9000], 100_000), 4);
        assert_eq!(steps_down(&[2000, 2500, 2000, 9000, 9000], 100_000), 0);
        assert_eq!(steps_down(&[9000, 9000, 9000, 9000], 100_000), 4);
    }

    #[test]
    fn what_costs_next_to_nothing_is_repeated() {
        assert_eq!(steps_down(&[500, 500, 500, 9000], 100_000), 3);
        assert_eq!(steps_down(&[1500], 100_000), 1);
        assert_eq!(steps_down(&[1600], 100_000), 0);
    }

    #[test]
    fn chains_end() {
        assert_eq!(steps_down(&[2000, 7000, 2000, 7000, 2000, 7000, 2000, 7000], 100_000), 8);
    }
}
