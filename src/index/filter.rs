//! A filter that tells of most keys that a run does not have them: a blocked
//! Bloom filter. It never says so of a key that was put in. It is made with its
//! run, written with it, and never changed.

/// Bits for each key: one in 300 absent keys passes.
const BITS_PER_KEY: u64 = 12;
/// Words of a block: one line of the processor's cache, and one bit of each word for a key.
const WORDS: usize = 8;

/// Keys have this many bits. Among 100 million ids one in 2,700 has the key of another: whoever looks
/// for it reads a group in vain. With more bits, entries of large runs would take another byte.
pub(super) const KEY_BITS: u32 = 38;

pub(super) struct Filter {
    blocks: Vec<[u64; WORDS]>,
}

impl Filter {
    /// An empty one for so many keys.
    pub(super) fn for_keys(keys: u64) -> Self {
        let blocks = (keys * BITS_PER_KEY).div_ceil(64 * WORDS as u64).max(1);
        Self { blocks: vec![[0; WORDS]; blocks as usize] }
    }

    /// From what [`Filter::bytes`] gave; `None` if it has another length than any of them.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (words, []) = bytes.as_chunks::<8>() else { return None };
        let (blocks, []) = words.as_chunks::<WORDS>() else { return None };
        let blocks: Vec<_> = blocks.iter().map(|block| block.map(u64::from_le_bytes)).collect();
        (!blocks.is_empty()).then_some(Self { blocks })
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.blocks.iter().flatten().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// The block of a key, by its first bits: keys that come in order fill blocks in order.
    fn block(&self, key: u64) -> usize {
        ((u128::from(key) * self.blocks.len() as u128) >> KEY_BITS) as usize
    }

    pub(super) fn insert(&mut self, key: u64) {
        let at = self.block(key);
        let bits = bits(key);
        for (word, bit) in self.blocks[at].iter_mut().zip(bits) {
            *word |= bit;
        }
    }

    /// False: the key was not put in.
    pub(super) fn may_have(&self, key: u64) -> bool {
        let block = &self.blocks[self.block(key)];
        block.iter().zip(bits(key)).all(|(word, bit)| word & bit != 0)
    }
}

/// One bit for each word of a block.
fn bits(key: u64) -> [u64; WORDS] {
    let mixed = (key ^ (key >> 23)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    std::array::from_fn(|n| 1 << ((mixed >> (16 + 6 * n)) & 63))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> u64 {
        let hash = blake3::hash(&n.to_le_bytes());
        u64::from_le_bytes(*hash.as_bytes().first_chunk().unwrap()) >> (64 - KEY_BITS)
    }

    #[test]
    fn no_key_is_denied_and_few_others_pass() {
        for keys in [0, 1, 1000, 70_000] {
            let mut filter = Filter::for_keys(keys);
            (0..keys).for_each(|n| filter.insert(key(n)));
            assert!((0..keys).all(|n| filter.may_have(key(n))));
            let bytes = filter.bytes();
            assert!(bytes.len() as u64 <= keys * 3 / 2 + 64 && bytes.len().is_multiple_of(64));
            let read = Filter::read(&bytes).unwrap();
            assert!((0..keys).all(|n| read.may_have(key(n))));
            let passed = (1 << 40..(1 << 40) + 50_000).filter(|n| read.may_have(key(*n))).count();
            assert!(passed < 500, "{passed} of 50,000 pass one for {keys}");
        }
        assert!(!Filter::for_keys(1).may_have(0) && !Filter::for_keys(9000).may_have((1 << KEY_BITS) - 1));
        assert!(Filter::read(&[]).is_none() && Filter::read(&[0; 65]).is_none() && Filter::read(&[0; 72]).is_none());
    }
}
