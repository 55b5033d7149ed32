//! Choosing what a new run of blobs rests on: the blobs that it replaces, or
//! what those rest on themselves. To rest on the run before costs the fewest
//! bytes and makes chains grow; to rest further down costs the changes since
//! then once more, and keeps them short.

use super::worth::{Far, Worth};
use super::{Counting, Repository};
use crate::error::Result;
use crate::format::pack::{BlobKind, Frame};
use crate::id::{BaseId, BlobId};
use crate::index::{BlobCopy, Hint};
use crate::limits;
use crate::pack::Bases;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

/// Steps that one delta takes the place of once so many of a size lie on one another.
const ALIKE_MAX: usize = 3;
/// Steps are of a size if none is more than so many times the smallest.
const ALIKE: u64 = 3;
/// And only if together they are no more than this part of the run: what changes all the time would be
/// repeated all the time.
const MERGED: u64 = 8;
/// What is less than this part of a run is repeated rather than rested on.
const REPEATED: u64 = 64;
/// A chain that is this deep is not made deeper.
const CHAIN_MAX: u8 = 8;
/// The same for trees and lists, which are few.
const LIST_CHAIN_MAX: u8 = 12;
/// Bytes by which what faces each other in a frame and in its bases may have moved.
const SLACK: u64 = 1024;

/// What a run could rest on.
struct Candidate {
    copies: Vec<BlobCopy>,
    /// Stored bytes of the frames between it and the candidate above: about what a run's delta grows by
    /// if it rests here.
    step: u64,
}

impl Candidate {
    fn depth(&self) -> u8 {
        self.copies.iter().map(BlobCopy::depth).max().unwrap_or(0)
    }

    fn plain(&self) -> usize {
        self.copies.iter().map(|copy| copy.size() as usize).sum()
    }

    /// True if a run of `len` bytes can rest on it.
    fn has_room(&self, len: usize) -> bool {
        let room = limits::FRAME_BASE_PLAIN_MAX.min(len * limits::BASES_PER_RUN + limits::PIECE_MAX);
        !self.copies.is_empty() && self.plain() <= room && self.copies.len() <= limits::FRAME_BASES_MAX
    }
}

/// Finds bases for a session.
pub(super) struct Chooser<'r> {
    pub repo: &'r Repository,
    pub counting: &'r Counting,
    /// No base may lie deeper.
    pub deepest: u8,
    /// Where reading costs: what has been saved so far. `None`: everything is read.
    pub worth: Option<&'r Worth>,
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
            chosen.copies.extend(self.copy(id, limits::FRAME_DEPTH_MAX)?);
        }
        let mut chosen = self.chosen(kind, chosen, len)?;
        while chosen.depth() > self.deepest {
            chosen = self.below(&chosen)?;
        }
        if !chosen.has_room(len) {
            return Ok(None);
        }
        if let Some(worth) = self.worth {
            let (far, saving) = self.far(&chosen, len)?;
            if !worth.pays(&far, saving) {
                return Ok(None);
            }
        }
        self.read(kind, &chosen).map(Some)
    }

    /// The bases of a frame that is stored: what lies below those that it has, as far down as it takes until
    /// each copy may be rested on.
    ///
    /// # Errors
    /// See [`Chooser::bases`].
    pub fn lower(&mut self, frame: &Frame, may_rest: &dyn Fn(&BlobCopy) -> bool) -> Result<Option<Bases>> {
        let mut chosen = Candidate { copies: Vec::new(), step: 0 };
        for base in &frame.bases {
            chosen.copies.extend(self.base_copy(base, frame.depth.saturating_sub(1))?);
        }
        while chosen.depth() > self.deepest || !chosen.copies.iter().all(|c| c.depth() == 0 || may_rest(c)) {
            chosen = self.below(&chosen)?;
        }
        if chosen.has_room(frame.plain_len()) { self.read(frame.kind, &chosen).map(Some) } else { Ok(None) }
    }

    fn read(&self, kind: BlobKind, chosen: &Candidate) -> Result<Bases> {
        let mut bases = Bases { depth: chosen.depth(), ..Bases::default() };
        for copy in &chosen.copies {
            bases.plain.extend_from_slice(&self.repo.blob_copy(kind, copy)?);
            bases.ids.push(copy.id().base());
        }
        Ok(bases)
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
        let depths: Vec<u8> = chain.iter().map(Candidate::depth).collect();
        let down = match kind {
            BlobKind::Chunk => steps_down(&steps, &depths, len as u64),
            // Ids, mostly: what is repeated of them cannot be compressed.
            BlobKind::Tree | BlobKind::List if depths.first().is_none_or(|depth| *depth < LIST_CHAIN_MAX) => 0,
            BlobKind::Tree | BlobKind::List => steps.len(),
        };
        Ok(chain.swap_remove(down))
    }

    /// The frames that have to be read for a candidate, and what a run of `len` bytes saves by it: about
    /// what it would be packed to by itself, as the plain frames at the end of its chain were.
    fn far(&mut self, chosen: &Candidate, len: usize) -> Result<(Vec<Far>, u64)> {
        let (mut far, mut seen) = (Vec::new(), HashSet::new());
        let (mut stored, mut plain) = (0u64, 0u64);
        let mut open: Vec<BlobCopy> = chosen.copies.clone();
        while let Some(copy) = open.pop() {
            let (entry, number, frame) = (copy.entry(), copy.frame_number(), copy.frame());
            if !seen.insert((entry, number)) || seen.len() > limits::BLOB_FRAMES_MAX {
                continue;
            }
            if frame.depth == 0 {
                stored += u64::from(frame.stored);
                plain += frame.plain_len() as u64;
            }
            if self.repo.cached_frame(entry, number).is_some() {
                continue;
            }
            far.push((entry, number, frame.stored.into()));
            for base in &frame.bases {
                open.extend(self.base_copy(base, frame.depth.saturating_sub(1))?);
            }
        }
        // Where what is at hand hides the end of the chain: as tables are packed, mostly.
        let (stored, plain) = if plain == 0 { (1, 4) } else { (stored.min(plain), plain) };
        Ok((far, len as u64 * stored / plain))
    }

    /// The copy of a blob that counts and rests on the fewest others.
    fn copy(&mut self, id: &BlobId, deepest: u8) -> Result<Option<BlobCopy>> {
        let (index, counting) = (self.repo.index(), self.counting);
        index.find(id, &mut self.hint, |copy| Ok(copy.depth() <= deepest && counting.counts(index, copy)?))
    }

    /// The same of a blob on which another rests.
    fn base_copy(&mut self, id: &BaseId, deepest: u8) -> Result<Option<BlobCopy>> {
        let (index, counting) = (self.repo.index(), self.counting);
        index.find_base(id, &mut self.hint, |copy| Ok(copy.depth() <= deepest && counting.counts(index, copy)?))
    }

    /// A candidate with its deepest frames replaced by what faces it of what they rest on.
    fn below(&mut self, above: &Candidate) -> Result<Candidate> {
        let depth = above.depth();
        let frame_of = |copy: &BlobCopy| (copy.entry(), copy.frame_number());
        let mut wanted: HashMap<_, Vec<Range<u64>>> = HashMap::new();
        for copy in above.copies.iter().filter(|copy| copy.depth() == depth) {
            let begin = u64::from(copy.at());
            wanted.entry(frame_of(copy)).or_default().push(begin..begin + u64::from(copy.size()));
        }
        let mut lower = Candidate { copies: Vec::new(), step: 0 };
        let mut ids = HashSet::new();
        for copy in &above.copies {
            if copy.depth() < depth {
                if ids.insert(copy.id()) {
                    lower.copies.push(copy.clone());
                }
                continue;
            }
            // The first of its frame stands for the others.
            let Some(wanted) = wanted.remove(&frame_of(copy)) else { continue };
            let frame = copy.frame();
            lower.step += u64::from(frame.stored);
            let mut below = Vec::with_capacity(frame.bases.len());
            for base in &frame.bases {
                below.extend(self.base_copy(base, depth - 1)?);
            }
            let sizes: Vec<u64> = below.iter().map(|copy| u64::from(copy.size())).collect();
            let faces = facing(&wanted, frame.plain_len() as u64, &sizes);
            let faced = below.into_iter().zip(faces).filter_map(|(base, faces)| faces.then_some(base));
            lower.copies.extend(faced.filter(|base| ids.insert(base.id())));
        }
        Ok(lower)
    }
}

/// Which of a frame's bases, of these sizes, the wanted parts of its `plain` bytes face: what stood where
/// they stand now, give or take what came and went.
fn facing(wanted: &[Range<u64>], plain: u64, sizes: &[u64]) -> Vec<bool> {
    let total: u64 = sizes.iter().sum();
    let slack = SLACK + total.abs_diff(plain);
    let scaled = |at: u64| (u128::from(at) * u128::from(total) / u128::from(plain.max(1))) as u64;
    let mut at = 0;
    sizes
        .iter()
        .map(|size| {
            let base = at..at + size;
            at += size;
            wanted.iter().any(|want| {
                base.start < scaled(want.end).saturating_add(slack)
                    && scaled(want.start) < base.end.saturating_add(slack)
            })
        })
        .collect()
}

/// How many steps down a chain a run of `len` bytes goes; the steps' sizes, and the depths before and
/// after each of them, from the top.
fn steps_down(steps: &[u64], depths: &[u8], len: u64) -> usize {
    let mut down = 0;
    // What costs next to nothing is repeated.
    let mut repeated = 0;
    while let Some(step) = steps.get(down).filter(|step| (repeated + **step) * REPEATED <= len) {
        repeated += step;
        down += 1;
    }
    let smallest = steps.iter().min().copied().unwrap_or(0);
    let alike: Vec<u64> = steps.iter().copied().take_while(|step| *step <= smallest * ALIKE).collect();
    if alike.len() >= ALIKE_MAX && alike.iter().sum::<u64>() * MERGED <= len {
        down = down.max(alike.len());
    }
    if depths.get(down).is_some_and(|depth| *depth >= CHAIN_MAX) { steps.len() } else { down }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Depths of a chain in which each step is one deeper.
    fn down(steps: &[u64], len: u64) -> usize {
        let depths: Vec<u8> = (0..=steps.len() as u8).rev().collect();
        steps_down(steps, &depths, len)
    }

    #[test]
    fn one_delta_takes_the_place_of_some_that_are_alike() {
        assert_eq!(down(&[], 100_000), 0);
        assert_eq!(down(&[2000, 2500], 100_000), 0);
        assert_eq!(down(&[2000, 2500, 2000], 100_000), 3);
        assert_eq!(down(&[2000, 2500, 2000, 9000], 100_000), 3);
        assert_eq!(down(&[2000, 2500, 9000, 9000], 100_000), 0);
    }

    #[test]
    fn what_changes_all_the_time_is_not_repeated_all_the_time() {
        assert_eq!(down(&[4000, 4000, 4500], 100_000), 3);
        assert_eq!(down(&[4000, 4000, 4600], 100_000), 0);
        assert_eq!(down(&[9000; 7], 100_000), 0);
    }

    #[test]
    fn what_costs_next_to_nothing_is_repeated() {
        assert_eq!(down(&[500, 500, 500, 9000], 100_000), 3);
        assert_eq!(down(&[1500], 100_000), 1);
        assert_eq!(down(&[1600], 100_000), 0);
    }

    #[test]
    fn chains_end() {
        assert_eq!(down(&[9000; 8], 100_000), 8);
        // Frames below may lie deeper than there are steps.
        assert_eq!(steps_down(&[9000, 9000], &[8, 5, 0], 100_000), 2);
        assert_eq!(steps_down(&[9000, 9000], &[7, 5, 0], 100_000), 0);
    }

    #[test]
    fn a_part_of_a_frame_faces_a_part_of_its_bases() {
        let faces = |wanted: Range<u64>, plain, sizes: &[u64]| facing(&[wanted], plain, sizes);
        assert_eq!(faces(0..10_000, 40_000, &[10_000, 10_000, 20_000]), [true, true, false]);
        assert_eq!(faces(12_000..18_000, 40_000, &[10_000, 10_000, 20_000]), [false, true, false]);
        assert_eq!(faces(0..40_000, 40_000, &[10_000, 10_000, 20_000]), [true, true, true]);
        // What came or went may have moved the rest.
        assert_eq!(faces(12_000..18_000, 40_000, &[10_000, 10_000, 40_000]), [true, true, true]);
        assert_eq!(faces(0..10, 10, &[]), [false; 0]);
        assert_eq!(faces(0..u64::from(u32::MAX), 0, &[u64::from(u32::MAX)]), [true]);
    }
}
