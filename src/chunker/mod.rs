//! Content-defined cuts: where a stream is divided into chunks, so that equal
//! content is cut equally wherever it stands. Pure; keeps no data.
//!
//! One pass of FastCDC finds *pieces* of 16 KiB on average. Where a piece ends
//! on a fingerprint that meets a stronger condition, a *group* ends too (at the
//! latest after 1 MiB). A group that does not look compressible is one chunk:
//! images, films and archives do not change in place, and large chunks keep
//! the index small. Any other group's pieces are chunks. Both decisions look at
//! the group's bytes alone, so a change disturbs nothing beyond its group.

mod entropy;
mod gear;

pub use entropy::looks_random;
use gear::Gear;

use crate::limits::{GROUP_MAX, PIECE_AVG, PIECE_MAX, PIECE_MIN};
use fastcdc::v2020::{Normalization, cut_gear, select_masks};

// `cut_gear` asserts this in debug builds only.
const _: () = {
    assert!(PIECE_MIN.is_multiple_of(2) && PIECE_AVG.is_power_of_two() && PIECE_MAX.is_multiple_of(2));
    assert!(PIECE_MIN < PIECE_AVG && PIECE_AVG < PIECE_MAX && PIECE_MAX <= GROUP_MAX);
};

/// A group ends where these bits of a piece's closing fingerprint are zero: after 32 pieces
/// on average. FastCDC's own masks use none of them.
const GROUP_MASK: u64 = 0xf800_0000_0000_0000;

/// Bytes that [`Chunker::group`] must see, unless the stream ends before.
pub const LOOK_AHEAD: usize = GROUP_MAX + PIECE_MAX;

/// Cuts streams, with a table that only holders of the tenant's id key know.
pub struct Chunker {
    gear: Gear,
    mask_s: u64,
    mask_l: u64,
}

impl Chunker {
    /// A chunker whose table grows from `key`.
    pub fn new(key: &[u8; 32]) -> Self {
        let (mask_s, mask_l) = select_masks(PIECE_AVG, Normalization::Level2);
        Self { gear: Gear::new(key), mask_s, mask_l }
    }

    /// The closing fingerprint and the length of the piece at the start of `data`.
    fn piece(&self, data: &[u8]) -> (u64, usize) {
        let (fingerprint, len) = cut_gear(
            data,
            PIECE_MIN,
            PIECE_AVG,
            PIECE_MAX,
            self.mask_s,
            self.mask_l,
            self.mask_s << 1,
            self.mask_l << 1,
            &self.gear.table[..],
            &self.gear.shifted[..],
        );
        (fingerprint, len.clamp(1, data.len()))
    }

    /// Appends the lengths of the chunks of the group at the start of `data` to `chunks`, and
    /// returns the group's length.
    ///
    /// `data` holds at least [`LOOK_AHEAD`] bytes, or all that is left of the stream; not nothing.
    pub fn group(&self, data: &[u8], chunks: &mut Vec<usize>) -> usize {
        if data.is_empty() {
            return 0;
        }
        let first = chunks.len();
        let mut end = 0;
        while end < data.len() {
            let (fingerprint, len) = self.piece(&data[end..]);
            if end + len > GROUP_MAX {
                break;
            }
            chunks.push(len);
            end += len;
            if fingerprint & GROUP_MASK == 0 {
                break;
            }
        }
        if chunks.len() - first > 1 && looks_random(&data[..end]) {
            chunks.truncate(first);
            chunks.push(end);
        }
        end
    }

    /// Lengths of all chunks of a stream that is in memory.
    pub fn cut_all(&self, mut data: &[u8]) -> Vec<usize> {
        let mut chunks = Vec::new();
        while !data.is_empty() {
            let end = self.group(data, &mut chunks);
            data = &data[end..];
        }
        chunks
    }
}

#[cfg(test)]
mod tests;
