//! Blocks of the map in memory. A block never changes, and whoever asks for
//! blobs at random comes back to each: those that were read last are kept.

use std::collections::{HashMap, VecDeque};

/// What a block takes in memory beside its bytes.
const COST: usize = 64;

/// Blocks by the numbers of their rows, bounded in bytes. The one that came first goes first: keys
/// are hashes, so none is asked for more often than another.
pub(super) struct Blocks {
    by_row: HashMap<i64, Box<[u8]>>,
    order: VecDeque<i64>,
    bytes: usize,
    max: usize,
}

impl Blocks {
    pub(super) fn new(max: usize) -> Self {
        Self { by_row: HashMap::new(), order: VecDeque::new(), bytes: 0, max }
    }

    pub(super) fn get(&self, row: i64) -> Option<&[u8]> {
        self.by_row.get(&row).map(|block| &**block)
    }

    /// Keeps a block that is not here yet.
    pub(super) fn keep(&mut self, row: i64, block: &[u8]) {
        while self.bytes + block.len() + COST > self.max {
            let Some(first) = self.order.pop_front() else { return };
            self.bytes -= self.by_row.remove(&first).map_or(0, |block| block.len() + COST);
        }
        self.by_row.insert(row, block.into());
        self.order.push_back(row);
        self.bytes += block.len() + COST;
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new(self.max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_last_stays_and_the_bytes_are_bounded() {
        let mut blocks = Blocks::new(10 * (COST + 100));
        for row in 0..1000 {
            blocks.keep(row, &vec![row as u8; 50 + row as usize % 50]);
            assert!(blocks.bytes <= blocks.max);
            assert_eq!(blocks.bytes, blocks.by_row.values().map(|block| block.len() + COST).sum::<usize>());
            assert_eq!(blocks.by_row.len(), blocks.order.len());
            for kept in (row - 9).max(0)..=row {
                assert_eq!(blocks.get(kept).unwrap()[0], kept as u8);
            }
        }
        assert!(blocks.get(0).is_none());
        blocks.keep(2000, &[0; 5000]);
        assert!(blocks.get(2000).is_none(), "larger than all that may be kept");
        blocks.keep(2001, &[1]);
        assert_eq!(blocks.get(2001), Some(&[1][..]));
        blocks.clear();
        assert!(blocks.get(2001).is_none() && blocks.bytes == 0);
    }
}
