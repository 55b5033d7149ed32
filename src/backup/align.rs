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
    /// So much of the last blob that was taken so stands for what comes next.
    over: u64,
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
            over: 0,
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
        let mut run: Vec<BlobId> = self.replaced(self.guessed.max(self.first));
        let mut bytes = self.over;
        while bytes < len {
            let Some(extent) = self.at(self.guessed.max(self.first)) else { break };
            bytes = bytes.saturating_add(extent.len);
            run.extend(extent.id);
            self.guessed = self.guessed.max(self.first) + 1;
        }
        self.over = bytes.saturating_sub(len);
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

    /// The blobs from the last one that both streams had, or the last guess, to `place`. One of which a
    /// part only was guessed is among them: two runs may rest on it.
    fn replaced(&self, place: u64) -> Vec<BlobId> {
        let begin = self.first.max(self.guessed) - u64::from(self.over > 0);
        (begin..place).filter_map(|at| self.at(at)?.id).collect()
    }

    /// The new stream is at `place`, for sure.
    fn pass(&mut self, place: u64) {
        self.drop_until(place);
        self.guessed = self.first;
        self.over = 0;
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
        // What confirms a place at the very end stands behind it. The old stream comes near by steps: without
        // this one more, every place that it came to would be such an end.
        let most = limits::ALIGN_WINDOW + usize::from(self.far.is_some());
        while !self.ended && self.window.len() < most {
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

#[cfg(test)]
mod tests {
    use super::super::tests::repository;
    use super::*;
    use crate::format::content::Content;
    use crate::repo::Repository;
    use crate::snapshot::leaves;
    use std::ops::Range;

    /// Each blob stands for so many bytes.
    const LEN: u64 = 10;

    fn id(n: u32) -> BlobId {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&n.to_le_bytes());
        BlobId(id)
    }

    fn number(id: &BlobId) -> u32 {
        id.0[..4].try_into().map(u32::from_le_bytes).unwrap()
    }

    /// A stream of these blobs, and nothing that was met of it.
    fn old(repo: &Repository, blobs: impl IntoIterator<Item = u32>) -> Align<'_> {
        let extents = blobs.into_iter().map(|n| Extent { id: Some(id(n)), len: LEN }).collect();
        Align::new(leaves(repo, &Content { level: 0, extents }))
    }

    impl Align<'_> {
        /// What a stored blob ends, by numbers.
        fn met(&mut self, n: u32) -> Option<Vec<u32>> {
            self.meet(&id(n), true).unwrap().map(|run| run.iter().map(number).collect())
        }

        /// A blob that the old stream does not have.
        fn new_blob(&mut self) {
            assert_eq!(self.meet(&id(u32::MAX), false).unwrap(), None);
        }

        fn guessed(&mut self, blobs: u64) -> Vec<u32> {
            self.guess(blobs * LEN).iter().map(number).collect()
        }
    }

    /// What each blob of a new stream of letters ends of an old one; `-` for those that end nothing. What
    /// the old one has is stored.
    fn held(old_one: &str, new: &str) -> Vec<String> {
        let repo = repository();
        let mut align = old(&repo, old_one.chars().map(u32::from));
        let ended = new.chars().map(|c| {
            let run = align.meet(&id(c.into()), old_one.contains(c)).unwrap();
            run.map_or("-".into(), |run| run.iter().map(|id| char::from_u32(number(id)).unwrap()).collect())
        });
        ended.collect()
    }

    #[test]
    fn what_stands_between_two_blobs_of_both_is_replaced() {
        assert_eq!(held("abc", "abc"), ["", "", ""]);
        assert_eq!(held("abcd", "abXcd"), ["", "", "-", "", ""], "an insertion replaces nothing");
        assert_eq!(held("abcd", "ad"), ["", "bc"], "a deletion");
        assert_eq!(held("abcde", "aXYde"), ["", "-", "-", "bc", ""], "a replacement");
        assert_eq!(held("abc", "Xc"), ["-", "ab"], "at the beginning");
        assert_eq!(held("abc", "aX"), ["", "-"], "at the end nobody says what is replaced");
        assert_eq!(held("", "X"), ["-"]);
        assert_eq!(held("abcdef", "adefbc"), ["", "bc", "", "", "-", "-"], "a part that moved back is not ahead");
    }

    #[test]
    fn blobs_that_repeat_lead_nowhere() {
        assert_eq!(held("a000b", "a000b"), ["", "", "", "", ""]);
        assert_eq!(held("a000b", "a00000b"), ["", "", "", "", "-", "-", ""], "more of them");
        assert_eq!(held("a000b", "a0b"), ["", "", "00"], "fewer");
        assert_eq!(held("a0b0c", "aX0c"), ["", "-", "", "b0"], "the first of them that is ahead");
    }

    #[test]
    fn a_jump_is_believed_once_the_next_blob_confirms_it() {
        let repo = repository();
        let mut align = old(&repo, 0..1000);
        assert_eq!(align.met(0), Some(vec![]));
        // Near enough by itself, and then one further than that.
        let near = NEAR as u32 + 1;
        assert_eq!(align.met(near), Some((1..near).collect()));
        assert_eq!(align.met(near + 2 + NEAR as u32), None);
        assert_eq!(align.met(near + 1), Some(vec![]), "nothing was skipped");
        assert_eq!(align.met(500), None);
        assert_eq!(align.met(700), None);
        assert_eq!(align.met(701), Some((near + 2..700).collect()));
        assert_eq!(align.met(702), Some(vec![]));
        assert_eq!(align.met(900), None);
        align.new_blob();
        assert_eq!(align.met(901), None, "a confirmation must follow at once");
    }

    #[test]
    fn a_deletion_longer_than_the_window_is_gone_through() {
        let repo = repository();
        let window = limits::ALIGN_WINDOW as u32;
        let mut align = old(&repo, 0..6 * window);
        assert_eq!(align.met(0), Some(vec![]));
        let begin = 2 * window;
        let caught = (begin..6 * window).find(|n| align.met(*n).is_some()).unwrap();
        // The old stream goes on two for each one of the new, from one window behind.
        assert!(caught <= begin + window + 3 * STRAY, "{caught}");
        assert_eq!(align.met(caught + 1), Some(vec![]));
        assert_eq!(align.met(caught + 3), Some(vec![caught + 2]));
        // What is stored and stands nowhere in it does not leave the old stream behind.
        let mut align = old(&repo, 0..100);
        assert_eq!(align.met(0), Some(vec![]));
        (0..2 * STRAY).for_each(|n| assert_eq!(align.met(5000 + n), None));
        assert_eq!(align.met(5), Some((1..5).collect()), "its end is in sight");
    }

    #[test]
    fn a_stream_that_is_new_from_end_to_end_goes_along_the_old_one() {
        let repo = repository();
        let end = 3 * limits::ALIGN_WINDOW as u32;
        let mut align = old(&repo, 0..end);
        let mut at = 0;
        while at < end - 100 {
            align.new_blob();
            let expected: Range<u32> = at..at + 50;
            assert_eq!(align.guessed(50), expected.clone().collect::<Vec<_>>());
            at = expected.end;
        }
        // What both have is found beyond the guess, and what was guessed is not replaced twice.
        assert_eq!(align.met(at + 10), Some((at..at + 10).collect()));
        align.new_blob();
        assert_eq!(align.guessed(5), (at + 11..at + 16).collect::<Vec<_>>());
        assert_eq!(align.met(at + 13), Some(vec![]), "inside of what was guessed");
        assert_eq!(align.guessed(2), [at + 14, at + 15], "from where both are");
        align.new_blob();
        let left: Vec<u32> = (at + 16..end).collect();
        assert_eq!(align.guessed(1000), left, "no more than there is");
        assert_eq!(align.guessed(1000), [0; 0]);
    }

    #[test]
    fn guesses_go_along_byte_by_byte_though_blobs_are_not_divided() {
        let repo = repository();
        let mut align = old(&repo, 0..1000);
        align.new_blob();
        assert_eq!(align.guess(LEN / 2).iter().map(number).collect::<Vec<_>>(), [0]);
        assert_eq!(align.guess(LEN).iter().map(number).collect::<Vec<_>>(), [0, 1], "half of each");
        assert_eq!(align.guess(LEN / 5).iter().map(number).collect::<Vec<_>>(), [1]);
        // However many there are, the last is where the new stream is.
        let last = (0..300).map(|_| align.guess(LEN + LEN / 2).last().map(number)).last();
        assert_eq!(last, Some(Some(451)));
        assert_eq!(align.met(453), Some(vec![451, 452]));
        assert_eq!(align.guessed(1), [454], "nothing is left over where both are");
    }

    #[test]
    fn holes_are_no_blobs_and_count_by_their_length() {
        let repo = repository();
        let blob = |n| Extent { id: Some(id(n)), len: LEN };
        let hole = Extent { id: None, len: 1000 };
        let content = Content { level: 0, extents: vec![blob(0), hole, blob(1), hole, blob(2)] };
        let mut align = Align::new(leaves(&repo, &content));
        assert_eq!(align.met(0), Some(vec![]));
        assert_eq!(align.met(2), Some(vec![1]));
        let mut align = Align::new(leaves(&repo, &content));
        align.new_blob();
        assert_eq!(align.guessed(1), [0]);
        assert_eq!(align.guessed(90), [0; 0]);
        assert_eq!(align.guessed(10), [0; 0], "the hole is as long");
        assert_eq!(align.guessed(1), [1]);
    }
}
