//! A set of frames, a bit for each: so that it may hold those of a whole repository.

use crate::index::{BlobCopy, EntryNumber};
use std::collections::HashMap;

/// Frames by their packs' entries and their numbers there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FrameSet(HashMap<EntryNumber, Vec<u64>>);

impl FrameSet {
    /// Adds a frame; false if it was there.
    pub fn insert(&mut self, entry: EntryNumber, number: u32) -> bool {
        let (word, bit) = place(number);
        let words = self.0.entry(entry).or_default();
        if words.len() <= word {
            words.resize(word + 1, 0);
        }
        let was_there = words[word] & bit != 0;
        words[word] |= bit;
        !was_there
    }

    /// True if a copy lies in one of them.
    pub fn holds(&self, copy: &BlobCopy) -> bool {
        self.contains(copy.entry(), copy.frame_number())
    }

    /// True if the frame was added.
    pub fn contains(&self, entry: EntryNumber, number: u32) -> bool {
        let (word, bit) = place(number);
        self.0.get(&entry).and_then(|words| words.get(word)).is_some_and(|word| word & bit != 0)
    }
}

/// The word in which a frame's bit stands, and the bit. Of a pack there are `limits::PACK_FRAMES_MAX` at
/// the most: what the index on this machine gives was counted.
fn place(number: u32) -> (usize, u64) {
    (number as usize / 64, 1 << (number % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_there_and_nothing_else() {
        let mut set = FrameSet::default();
        for (entry, number) in [(1, 0), (1, 63), (1, 64), (2, 65_535), (-1, 5)] {
            assert!(!set.contains(entry, number));
            assert!(set.insert(entry, number) && !set.insert(entry, number));
            assert!(set.contains(entry, number));
        }
        for (entry, number) in [(1, 1), (1, 62), (1, 65), (2, 0), (3, 0), (1, u32::MAX)] {
            assert!(!set.contains(entry, number), "{entry} {number}");
        }
    }
}
