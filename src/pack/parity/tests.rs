//! A pack with parity, damaged in every way: what is within its parity is mended to the same bytes, and
//! nothing else ever passes for mended.

use super::*;
use crate::format::parity::Parity;
use proptest::prelude::*;

/// A pack as a builder lays it out, of bytes that mean nothing.
struct Pack {
    name: PackName,
    bytes: Vec<u8>,
    layout: Layout,
}

fn filler(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn pack(front: usize, back: usize, per_mille: u64) -> Pack {
    let layout = Layout::choose(front as u64, back as u64, Parity::per_mille(per_mille).unwrap()).unwrap();
    let (mut bytes, back) = (filler(front, 1), filler(back, 2));
    append(layout, &mut bytes, &back).unwrap();
    bytes.extend_from_slice(&back);
    let name = PackName(crate::format::header::close(&mut bytes));
    assert_eq!(bytes.len() as u64, layout.pack_len());
    Pack { name, bytes, layout }
}

impl Pack {
    /// That it is mended from these bytes, and that so many shards were damaged.
    #[track_caller]
    fn mends(&self, damaged: &[u8], shards: usize) {
        let mended = mend(&self.name, &[damaged]).unwrap();
        assert!(mended.bytes == self.bytes, "other bytes");
        assert_eq!(mended.damaged, shards);
    }

    /// A shard's bytes in the pack.
    fn shard(&self, number: usize) -> Range<usize> {
        let (at, len) = self.layout.shard_at(number);
        at as usize..at as usize + len
    }

    /// The same with some shards changed.
    fn without(&self, shards: impl IntoIterator<Item = usize>) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for number in shards {
            let range = self.shard(number);
            bytes[range.start + number % range.len()] ^= 0x10;
        }
        bytes
    }

    fn shards(&self) -> usize {
        self.layout.data_shards() + self.layout.recovery as usize
    }
}

#[test]
fn any_shard_is_mended_and_as_many_as_there_are_recovery_shards() {
    let pack = pack(60_000, 700, 50);
    let most = pack.layout.recovery as usize;
    pack.mends(&pack.bytes, 0);
    for number in 0..pack.shards() {
        pack.mends(&pack.without([number]), 1);
    }
    pack.mends(&pack.without(0..most), most);
    pack.mends(&pack.without(pack.shards() - most..pack.shards()), most);
    assert_eq!(
        mend(&pack.name, &[&pack.without(0..most + 1)]).err(),
        Some(Unmended::Beyond { damaged: most + 1, most })
    );
}

#[test]
fn what_is_damaged_beside_the_shards_is_mended() {
    let pack = pack(9_000, 700, 100);
    for at in pack.layout.descriptors_at() {
        for offset in [0, 9, 25, 29, 40, pack.layout.descriptor_len() - 1] {
            let mut bytes = pack.bytes.clone();
            bytes[at as usize + offset] ^= 1;
            pack.mends(&bytes, 0);
        }
    }
    let mut bytes = pack.bytes.clone();
    let end = bytes.len() - 5;
    bytes[end] ^= 1;
    pack.mends(&bytes, 0);
}

#[test]
fn what_was_cut_off_or_added_or_moved_is_mended() {
    let pack = pack(60_000, 700, 100);
    let (len, back) = (pack.bytes.len(), 2);
    pack.mends(&pack.bytes[..len - 1], 0);
    // The whole directory is gone, then one recovery shard after the other.
    let cut = len - 32 - 700;
    pack.mends(&pack.bytes[..cut], back);
    let recovery_at = pack.layout.descriptors_at()[1] as usize;
    pack.mends(&pack.bytes[..recovery_at], back);
    pack.mends(&pack.bytes[..recovery_at - 3 * 512], back + 3);
    pack.mends(&[&pack.bytes[..], b"appended"].concat(), 0);
    pack.mends(&[&pack.bytes[..], &pack.bytes].concat(), 0);
    // Behind bytes that are lost or came in between all lies elsewhere.
    for at in [700, 30_000, recovery_at - 100] {
        pack.mends(&[&pack.bytes[..at], &pack.bytes[at + 40..]].concat(), 1);
        pack.mends(&[&pack.bytes[..at], b"between", &pack.bytes[at..]].concat(), 1);
    }
    let mut swapped = pack.bytes.clone();
    let (one, other) = (pack.shard(3), pack.shard(70));
    swapped[one.clone()].copy_from_slice(&pack.bytes[other.clone()]);
    swapped[other].copy_from_slice(&pack.bytes[one]);
    pack.mends(&swapped, 2);
    let mut zeroed = pack.bytes.clone();
    zeroed[4096..8192].fill(0);
    pack.mends(&zeroed, 8);
}

#[test]
fn the_smallest_packs_and_the_largest_shards_are_mended() {
    for (front, back, per_mille) in [(1176, 48, 1), (1177, 48, 500), (2_000, 513, 50), (17 << 20, 60_000, 50)] {
        let pack = pack(front, back, per_mille);
        pack.mends(&pack.without([0, pack.layout.data_shards() - 1]), 2);
    }
}

#[test]
fn two_damaged_copies_make_a_whole_one() {
    let pack = pack(60_000, 700, 20);
    let (first, second) = (pack.without(0..50), pack.without(50..pack.shards()));
    assert!(mend(&pack.name, &[&first]).is_err() && mend(&pack.name, &[&second]).is_err());
    assert!(mend(&pack.name, &[&first, &second]).unwrap().bytes == pack.bytes);
}

#[test]
fn without_parity_and_with_anothers_nothing_is_mended() {
    let (one, other) = (pack(9_000, 100, 100), pack(9_001, 100, 100));
    assert_eq!(mend(&one.name, &[&filler(20_000, 3)]).err(), Some(Unmended::NoParity));
    assert_eq!(mend(&one.name, &[]).err(), Some(Unmended::NoParity));
    assert_eq!(mend(&one.name, &[&other.bytes]).err(), Some(Unmended::Another));
    // Another pack's descriptor in front does not keep its own from being found.
    let at = one.layout.descriptors_at()[0] as usize;
    let planted = Descriptor::read(&other.bytes[other.layout.descriptors_at()[0] as usize..]).unwrap().encode();
    let mut bytes = one.bytes.clone();
    bytes[at..at + planted.len()].copy_from_slice(&planted);
    one.mends(&bytes, 0);
}

/// Whatever the descriptors say, they cost no more than the bytes that are there.
#[test]
fn hostile_descriptors_are_refused_soon() {
    let name = PackName([7; 32]);
    let huge = Layout { front: 100 << 20, back: 48, shard: 16_384, recovery: 1500 };
    let marks = vec![[0; MARK_LEN]; huge.data_shards() + huge.recovery as usize];
    let lie = Descriptor { layout: huge, marks }.encode();
    let most = Unmended::Beyond { damaged: huge.data_shards() + 1500, most: 1500 };
    assert_eq!(mend(&name, &[&lie]).err(), Some(most), "nothing of it is there");
    // A thousand begins, of which each claims a descriptor as long as all that follows.
    let many = [&lie[..32]].repeat(20_000).concat();
    assert_eq!(mend(&name, &[&many]).err(), Some(Unmended::NoParity));
    // All marks are of one shard that is there: the same bytes for each, and no pack that anybody named.
    let layout = Layout { front: 1 << 20, back: 512, shard: 512, recovery: 2 };
    let zeros = vec![mark(&[0; 512]); layout.data_shards() + 2];
    let zeros = Descriptor { layout, marks: zeros }.encode();
    assert_eq!(mend(&name, &[&[&zeros[..], &vec![0; 2 << 20]].concat()]).err(), Some(Unmended::Another));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Damage to any shards up to the number of recovery shards is mended, and beyond it nothing is.
    #[test]
    fn any_damage_up_to_the_parity_is_mended(
        front in 1176..40_000usize,
        back in 48..3_000usize,
        per_mille in 1..=500u64,
        picks in proptest::collection::vec(any::<prop::sample::Index>(), 0..90),
        tail in 0..600usize,
    ) {
        let pack = pack(front, back, per_mille);
        let shards: std::collections::BTreeSet<usize> = picks.iter().map(|pick| pick.index(pack.shards())).collect();
        let mut bytes = pack.without(shards.iter().copied());
        if tail % 3 == 0 {
            bytes.extend_from_slice(&filler(tail, 9));
        }
        let most = pack.layout.recovery as usize;
        match mend(&pack.name, &[&bytes]) {
            Ok(mended) => prop_assert!(mended.bytes == pack.bytes && shards.len() <= most),
            Err(why) => prop_assert!(shards.len() > most, "{why:?}, {} damaged, {most} can be mended", shards.len()),
        }
    }

    /// Changes anywhere, of any bytes: it is the same bytes or none.
    #[test]
    fn what_is_mended_is_the_pack(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..200),
        cut in any::<prop::sample::Index>(),
    ) {
        let pack = pack(20_000, 300, 100);
        let mut bytes = pack.bytes.clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(bytes.len() - cut.index(bytes.len()) / 4);
        if let Ok(mended) = mend(&pack.name, &[&bytes]) {
            prop_assert!(mended.bytes == pack.bytes);
        }
    }
}

/// The code as repo-format.md defines it, element by element: slow, and of no crate.
mod by_the_page {
    const BASIS: [u16; 16] = [
        0x0001, 0xacca, 0x3c0e, 0x163e, 0xc582, 0xed2e, 0x914c, 0x4012, 0x6c98, 0x10d8, 0x6a72, 0xb900, 0xfdb8,
        0xfb34, 0xff38, 0x991e,
    ];

    /// The element of the field that a stored number stands for.
    pub fn element(stored: usize) -> u16 {
        (0..16).filter(|bit| stored >> bit & 1 == 1).fold(0, |sum, bit| sum ^ BASIS[bit])
    }

    pub fn product(a: u16, b: u16) -> u16 {
        let (mut a, mut b, mut sum) = (u32::from(a), b, 0);
        while b > 0 {
            if b & 1 == 1 {
                sum ^= a;
            }
            a <<= 1;
            if a > 0xffff {
                a ^= 0x1002d;
            }
            b >>= 1;
        }
        sum as u16
    }

    pub fn inverse(a: u16) -> u16 {
        // a^(2^16 − 2)
        (1..16)
            .fold((1, a), |(power, square), _| {
                let square = product(square, square);
                (product(power, square), square)
            })
            .0
    }

    /// What data element `i` is multiplied by in recovery element `m`, of `k` points for recovery shards.
    pub fn factor(i: usize, m: usize, k: usize) -> u16 {
        let (at, to) = (element(k + i), element(m));
        let over = (0..k).fold(1, |all, j| product(all, at ^ element(j)));
        let under = (0..k).filter(|j| *j != m).fold(1, |all, j| product(all, to ^ element(j)));
        product(over, inverse(product(under, to ^ at)))
    }
}

#[test]
fn the_recovery_shards_are_those_of_the_page() {
    use by_the_page::{element, factor, product};
    assert_eq!(product(0x1234, by_the_page::inverse(0x1234)), 1);
    for per_mille in [1, 300, 500] {
        let pack = pack(3_000, 700, per_mille);
        let (data, recovery) = (pack.layout.data_shards(), pack.layout.recovery as usize);
        let shards: Vec<Vec<u8>> =
            (0..data + recovery).map(|n| padded(&pack.bytes[pack.shard(n)], &pack.layout).into_owned()).collect();
        // In each 64 bytes lie 32 elements: their low bytes, then their high ones.
        let at = |shard: &[u8], n: usize| {
            let low = n / 32 * 64 + n % 32;
            element(usize::from(shard[low]) | usize::from(shard[low + 32]) << 8)
        };
        let k = recovery.next_power_of_two();
        for m in 0..recovery {
            let factors: Vec<u16> = (0..data).map(|i| factor(i, m, k)).collect();
            for n in [0, 1, 31, 32, 100, 255] {
                let sum = (0..data).fold(0, |sum, i| sum ^ product(at(&shards[i], n), factors[i]));
                assert_eq!(sum, at(&shards[data + m], n), "{per_mille}: element {n} of recovery shard {m}");
            }
        }
    }
}
