//! Whether what a run could rest on is worth reading, where reading costs: on a
//! store that is far, the frames below a run may well be larger than what it
//! saves to rest on them. What is read serves all runs that rest on the same
//! frames; nobody knows beforehand how many those will be. So each run adds what
//! it would save to the accounts of the frames that it would read, and they are
//! read once that is as much as they cost. Reads nothing itself.

use crate::index::EntryNumber;
use crate::limits;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// A frame that is not at hand: its pack's entry, its number, its stored bytes.
pub(super) type Far = (EntryNumber, u32, u64);

/// The accounts of a writer.
#[derive(Default)]
pub(super) struct Worth {
    saved: Mutex<HashMap<(EntryNumber, u32), u64>>,
}

/// What is stored is sent once, kept as long as anyone needs it, and read by every check: a byte less of
/// it is worth so many bytes that are read now.
const STORED: u64 = 2;

/// What it costs to read a frame, bytes.
fn cost(frame: &Far) -> u64 {
    frame.2.saturating_add(limits::READ_REQUEST_COST)
}

impl Worth {
    /// Adds what one more run would save by these frames; true if they are worth reading now.
    pub(super) fn pays(&self, frames: &[Far], saving: u64) -> bool {
        let saving = saving.saturating_mul(STORED);
        let total = frames.iter().map(cost).fold(0, u64::saturating_add);
        if total <= saving {
            return true;
        }
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        if saved.len() + frames.len() > limits::READ_ACCOUNTS_MAX {
            saved.clear();
        }
        let mut sum = 0u64;
        for frame in frames {
            let share = u128::from(saving) * u128::from(cost(frame)) / u128::from(total);
            let account = saved.entry((frame.0, frame.1)).or_default();
            *account = account.saturating_add(u64::try_from(share).unwrap_or(u64::MAX));
            sum = sum.saturating_add(*account);
        }
        let pays = sum >= total;
        if pays {
            // Whoever finds them gone from the cache pays again.
            for frame in frames {
                saved.remove(&(frame.0, frame.1));
            }
        }
        pays
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(number: u32, stored: u64) -> Far {
        (EntryNumber::default(), number, stored)
    }

    #[test]
    fn what_saves_more_than_it_costs_is_read_at_once() {
        let cost = limits::READ_REQUEST_COST + 1000;
        assert!(Worth::default().pays(&[], 0), "what is at hand costs nothing");
        assert!(Worth::default().pays(&[frame(0, 1000)], cost.div_ceil(STORED)));
        assert!(!Worth::default().pays(&[frame(0, 1000)], (cost - 1) / STORED));
    }

    #[test]
    fn runs_pay_together_and_then_anew() {
        let worth = Worth::default();
        let third = (limits::READ_REQUEST_COST + 1000) / STORED / 3 + 1;
        for _ in 0..2 {
            let pays: Vec<bool> = (0..3).map(|_| worth.pays(&[frame(0, 1000)], third)).collect();
            assert_eq!(pays, [false, false, true]);
        }
        assert!(!worth.pays(&[frame(1, 1000)], third), "each frame for itself");
    }

    #[test]
    fn accounts_are_bounded() {
        let worth = Worth::default();
        let frames: Vec<Far> = (0..limits::READ_ACCOUNTS_MAX as u32).map(|n| frame(n, 1000)).collect();
        assert!(!worth.pays(&frames, 1000));
        assert!(!worth.pays(&[frame(u32::MAX, 1000)], 1000));
        assert_eq!(worth.saved.lock().unwrap().len(), 1);
    }
}
