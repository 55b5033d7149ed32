//! Choosing what a new run of blobs rests on: the blobs that it replaces, or
//! what those rest on themselves. To rest on the run before costs the fewest
//! bytes and makes chains grow; to rest further down costs the changes since
//! then once more, and keeps them short.

use super::{Counting, Repository};
use crate::error::Result;
use crate::format::pack::BlobKind;
use crate::id::BlobId;
use crate::index::BlobCopy;
use crate::limits;
use crate::pack::Bases;
use std::collections::HashSet;

/// A chain that is this deep is not made deeper.
const CHAIN_MAX: u8 = 8;
/// A run rests further down as long as that repeats less than this part of it.
const STEP: u64 = 64;

/// What a run could rest on.
struct Candidate {
    copies: Vec<(BlobId, BlobCopy)>,
    /// Stored bytes of the frames below which it goes: about what the run's own delta grows by.
    passed: u64,
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
}

impl Chooser<'_> {
    /// The bases of a run of `len` bytes that replaces these blobs; `None` if there are none.
    ///
    /// # Errors
    /// The store's, and the damage of a base.
    pub fn bases(&self, kind: BlobKind, replaced: &[BlobId], len: usize) -> Result<Option<Bases>> {
        let mut chosen = Candidate { copies: Vec::new(), passed: 0 };
        for id in replaced {
            if let Some(copy) = self.copy(id, limits::FRAME_DEPTH_MAX)? {
                chosen.copies.push((*id, copy));
            }
        }
        while chosen.depth() > 0 {
            let lower = self.below(&chosen)?;
            if chosen.depth() <= self.deepest && !goes_lower(&chosen, &lower, len) {
                break;
            }
            chosen = lower;
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

    /// The copy of a blob that counts and rests on the fewest others.
    fn copy(&self, id: &BlobId, deepest: u8) -> Result<Option<BlobCopy>> {
        let index = self.repo.index();
        for copy in index.copies(id)? {
            if copy.frame().depth <= deepest && self.counting.counts(index, &copy)? {
                return Ok(Some(copy));
            }
        }
        Ok(None)
    }

    /// The same with its deepest frames replaced by what they rest on.
    fn below(&self, above: &Candidate) -> Result<Candidate> {
        let depth = above.depth();
        let mut lower = Candidate { copies: Vec::new(), passed: above.passed };
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
            lower.passed += u64::from(copy.frame().stored);
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

/// True if a run of `len` bytes should rest on `lower` rather than on `upper`.
fn goes_lower(upper: &Candidate, lower: &Candidate, len: usize) -> bool {
    upper.depth() >= CHAIN_MAX || lower.passed * STEP <= len as u64
}
