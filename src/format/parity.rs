//! How a pack's parity is laid out: a descriptor, recovery shards, the descriptor
//! again. It stands between the frames and the directory, in the clear, so that a
//! pack is mended with no key, by whoever finds one of the descriptors, wherever it
//! lies. Computes nothing, and believes nothing of what it reads: sizes are bounded
//! here, and what was mended must hash to the pack's name.
//!
//! What is protected is cut into shards of one size: first what comes before the
//! parity (header, sealed key, frames), then what comes after it (directory and
//! trailer), the last shard of each filled up with zeros. A mark for each shard says
//! whether it is whole.

use super::header::HASH_LEN;
use super::pack::{FRAMES_AT, TAG_LEN, TRAILER_LEN};
use crate::error::Malformed;
use crate::limits;

/// The first bytes of a descriptor.
pub const MAGIC: [u8; 8] = *b"estrpar0";
/// Bytes of a descriptor before its marks.
const HEAD: usize = 32;
/// Bytes of a mark.
pub const MARK_LEN: usize = 16;

/// The begin of the BLAKE3 hash of a shard, zeros included.
pub type Mark = [u8; MARK_LEN];

/// How much parity the packs of a tenant get: recovery shards for a thousand others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
pub struct Parity(u16);

impl Parity {
    /// None.
    pub const NONE: Self = Self(0);

    /// So many in a thousand; `None` for more than `limits::PARITY_MAX`.
    pub fn per_mille(number: u64) -> Option<Self> {
        u16::try_from(number).ok().filter(|n| *n <= limits::PARITY_MAX).map(Self)
    }

    /// Recovery shards for a thousand others.
    pub fn number(self) -> u16 {
        self.0
    }

    /// True if there are none.
    pub fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// The sizes of a pack with parity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Bytes before the parity.
    pub front: u64,
    /// Bytes of the sealed directory and trailer.
    pub back: u64,
    /// Bytes of a shard.
    pub shard: u32,
    /// Recovery shards.
    pub recovery: u32,
}

/// Shards of this size that bytes fill.
fn shards(bytes: u64, shard: u32) -> u64 {
    bytes.div_ceil(u64::from(shard).max(1))
}

impl Layout {
    /// The sizes that a writer chooses: about a thousand shards, of 512 bytes to 16 KiB, and two recovery
    /// shards at the least, so that a pack that lost its end is mended too. `None` if a pack would be larger than
    /// any may be.
    pub fn choose(front: u64, back: u64, parity: Parity) -> Option<Self> {
        let shard = ((front + back) / limits::PARITY_SHARDS as u64)
            .next_power_of_two()
            .clamp(limits::PARITY_SHARD_MIN, limits::PARITY_SHARD_MAX) as u32;
        let data = shards(front, shard) + shards(back, shard);
        let recovery = (data * u64::from(parity.number())).div_ceil(1000).max(2);
        let layout = Self { front, back, shard, recovery: u32::try_from(recovery).ok()? };
        layout.check().ok().map(|()| layout)
    }

    /// Shards of what comes before the parity.
    pub fn front_shards(&self) -> usize {
        shards(self.front, self.shard) as usize
    }

    /// Shards of all that is protected.
    pub fn data_shards(&self) -> usize {
        self.front_shards() + shards(self.back, self.shard) as usize
    }

    /// Bytes of a descriptor.
    pub fn descriptor_len(&self) -> usize {
        HEAD + (self.data_shards() + self.recovery as usize) * MARK_LEN + HASH_LEN
    }

    /// Bytes of the recovery shards.
    pub fn recovery_len(&self) -> usize {
        self.recovery as usize * self.shard as usize
    }

    /// Bytes of the parity.
    pub fn parity_len(&self) -> usize {
        2 * self.descriptor_len() + self.recovery_len()
    }

    /// Bytes of the pack.
    pub fn pack_len(&self) -> u64 {
        self.front + self.parity_len() as u64 + self.back + HASH_LEN as u64
    }

    /// Where the two descriptors begin in the pack.
    pub fn descriptors_at(&self) -> [u64; 2] {
        [self.front, self.front + (self.descriptor_len() + self.recovery_len()) as u64]
    }

    /// Where a shard lies in the pack, and how many of its bytes: all but the zeros. Recovery shards count on
    /// from the others.
    pub fn shard_at(&self, number: usize) -> (u64, usize) {
        let size = u64::from(self.shard);
        let part = |begin: u64, len: u64, nth: usize| {
            let at = nth as u64 * size;
            (begin + at, size.min(len.saturating_sub(at)) as usize)
        };
        let (front, data) = (self.front_shards(), self.data_shards());
        if number < front {
            part(0, self.front, number)
        } else if number < data {
            part(self.front + self.parity_len() as u64, self.back, number - front)
        } else {
            let begin = self.front + self.descriptor_len() as u64;
            part(begin, self.recovery_len() as u64, number - data)
        }
    }

    /// That it is a pack's, and none larger than any may be.
    fn check(&self) -> Result<(), Malformed> {
        let least = (TAG_LEN + TRAILER_LEN) as u64;
        // In this order: what is counted after these fits into any number.
        let is_bounded = (FRAMES_AT..=limits::PACK_MAX).contains(&self.front)
            && (least..=limits::DIRECTORY_MAX as u64 + TRAILER_LEN as u64).contains(&self.back)
            && (limits::PARITY_SHARD_MIN..=limits::PARITY_SHARD_MAX).contains(&u64::from(self.shard))
            && self.shard.is_power_of_two();
        if !is_bounded || self.recovery == 0 || self.recovery as usize > limits::PARITY_SHARDS_MAX {
            return Err(Malformed::new("parity of impossible sizes"));
        }
        if self.data_shards() > limits::PARITY_SHARDS_MAX || self.pack_len() > limits::PACK_MAX {
            return Err(Malformed::new("parity of more shards or bytes than a pack has"));
        }
        Ok(())
    }
}

/// What stands before and behind the recovery shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// The sizes.
    pub layout: Layout,
    /// A mark for each shard: those of the data, then those of the recovery shards.
    pub marks: Vec<Mark>,
}

impl Descriptor {
    /// Magic, front, back, shard, recovery; the marks; the hash of all that.
    pub fn encode(&self) -> Vec<u8> {
        let layout = &self.layout;
        let mut out = Vec::with_capacity(layout.descriptor_len());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&layout.front.to_le_bytes());
        out.extend_from_slice(&layout.back.to_le_bytes());
        out.extend_from_slice(&layout.shard.to_le_bytes());
        out.extend_from_slice(&layout.recovery.to_le_bytes());
        out.extend_from_slice(self.marks.as_flattened());
        let hash = blake3::hash(&out);
        out.extend_from_slice(hash.as_bytes());
        out
    }

    /// The sizes of the descriptor that begins here, by which is known how long it is. They may be anything
    /// within the bounds.
    ///
    /// # Errors
    /// If these bytes begin no descriptor, or its sizes are beyond the bounds.
    pub fn sizes(bytes: &[u8]) -> Result<Layout, Malformed> {
        let short = || Malformed::new("shorter than a descriptor of parity");
        let head: &[u8; HEAD] = bytes.first_chunk().ok_or_else(short)?;
        let (words, _) = head.as_chunks::<8>();
        let [magic, front, back, both] = words else { return Err(short()) };
        if *magic != MAGIC {
            return Err(Malformed::new("no descriptor of parity begins here"));
        }
        let both = u64::from_le_bytes(*both);
        let layout = Layout {
            front: u64::from_le_bytes(*front),
            back: u64::from_le_bytes(*back),
            shard: both as u32,
            recovery: (both >> 32) as u32,
        };
        layout.check()?;
        Ok(layout)
    }

    /// Reads the descriptor that begins here, whatever follows it.
    ///
    /// # Errors
    /// If it is none, or not whole.
    pub fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let layout = Self::sizes(bytes)?;
        let cut = || Malformed::new("a descriptor of parity that is cut short");
        let whole = bytes.get(..layout.descriptor_len()).ok_or_else(cut)?;
        let (body, hash) = whole.split_last_chunk::<HASH_LEN>().ok_or_else(cut)?;
        if blake3::hash(body).as_bytes() != hash {
            return Err(Malformed::new("a descriptor of parity whose hash does not match"));
        }
        let (marks, _) = body.get(HEAD..).unwrap_or_default().as_chunks();
        Ok(Self { layout, marks: marks.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parity(number: u64) -> Parity {
        Parity::per_mille(number).unwrap()
    }

    fn descriptor(layout: Layout) -> Descriptor {
        let marks = (0..layout.data_shards() + layout.recovery as usize).map(|n| [n as u8; MARK_LEN]).collect();
        Descriptor { layout, marks }
    }

    #[test]
    fn a_writer_chooses_about_a_thousand_shards_and_two_recovery_shards_at_the_least() {
        let layout = |front, per_mille| Layout::choose(front, 100, parity(per_mille)).unwrap();
        let of = |l: Layout| (l.shard, l.data_shards(), l.recovery);
        assert_eq!(of(layout(2_000, 50)), (512, 5, 2));
        assert_eq!(of(layout(1 << 20, 50)), (1024, 1025, 52));
        assert_eq!(of(layout(16 << 20, 50)), (16_384, 1025, 52));
        assert_eq!(of(layout(16 << 20, 1)), (16_384, 1025, 2));
        assert_eq!(of(layout(16 << 20, 500)), (16_384, 1025, 513));
        assert_eq!(of(layout(64 << 20, 10)), (16_384, 4097, 41));
        for per_mille in [10, 50, 100, 500] {
            let pack = layout(16 << 20, per_mille);
            let share = pack.parity_len() as f64 / pack.front as f64;
            assert!(share < per_mille as f64 / 1000.0 + 0.004, "{per_mille}: {share}");
        }
        assert_eq!(Layout::choose(limits::PACK_MAX, 100, parity(50)), None);
        assert_eq!(Parity::per_mille(501), None);
    }

    #[test]
    fn the_shards_the_descriptors_and_the_hash_fill_the_pack() {
        for (front, back) in [(1176, 48), (5000, 600), (5120, 512), (1 << 20, 70_000)] {
            let layout = Layout::choose(front, back, parity(100)).unwrap();
            let shards = 0..layout.data_shards() + layout.recovery as usize;
            let mut parts: Vec<(u64, usize)> = shards.map(|n| layout.shard_at(n)).collect();
            parts.extend(layout.descriptors_at().map(|at| (at, layout.descriptor_len())));
            parts.sort_unstable();
            let end = parts.iter().fold(0, |end, (at, len)| {
                assert!(*at == end && *len > 0, "{at} {len} after {end}");
                end + *len as u64
            });
            assert_eq!(end + HASH_LEN as u64, layout.pack_len());
        }
    }

    #[test]
    fn there_and_back_and_every_bit_counts() {
        let written = descriptor(Layout::choose(5000, 300, parity(100)).unwrap());
        let mut bytes = written.encode();
        assert_eq!(bytes.len(), written.layout.descriptor_len());
        bytes.extend_from_slice(b"what follows");
        assert_eq!(Descriptor::read(&bytes).unwrap(), written);
        for at in 0..written.layout.descriptor_len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(Descriptor::read(&changed).is_err(), "byte {at}");
            assert!(Descriptor::read(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn sizes_beyond_the_bounds_are_refused_before_anything_is_made_of_them() {
        let good = Layout::choose(5000, 300, parity(100)).unwrap();
        let bad = [
            Layout { front: FRAMES_AT - 1, ..good },
            Layout { front: limits::PACK_MAX + 1, ..good },
            Layout { front: u64::MAX, ..good },
            Layout { back: 47, ..good },
            Layout { back: u64::MAX, ..good },
            Layout { shard: 0, ..good },
            Layout { shard: 511, ..good },
            Layout { shard: 768, ..good },
            Layout { shard: u32::MAX, ..good },
            Layout { recovery: 0, ..good },
            Layout { recovery: u32::MAX, ..good },
            Layout { front: 127 << 20, shard: 16_384, ..good },
            Layout { front: 32 << 20, shard: 512, ..good },
        ];
        assert!(good.check().is_ok());
        for layout in &bad[..11] {
            let mut bytes = descriptor(good).encode();
            bytes[8..16].copy_from_slice(&layout.front.to_le_bytes());
            bytes[16..24].copy_from_slice(&layout.back.to_le_bytes());
            bytes[24..28].copy_from_slice(&layout.shard.to_le_bytes());
            bytes[28..32].copy_from_slice(&layout.recovery.to_le_bytes());
            assert!(Descriptor::sizes(&bytes).is_err(), "{layout:?}");
        }
        assert!(Layout { recovery: 300, ..bad[11] }.check().is_err(), "larger than any pack");
        assert!(bad[12].check().is_err(), "more shards than any pack has");
    }

    proptest! {
        #[test]
        fn never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), begins in any::<bool>()) {
            if begins && bytes.len() >= MAGIC.len() {
                bytes[..MAGIC.len()].copy_from_slice(&MAGIC);
            }
            let _ = Descriptor::read(&bytes);
        }
    }
}
