//! Tests beside the code.

use super::*;
use proptest::prelude::*;

const KEY: [u8; 32] = [0x42; 32];

fn random(seed: u8, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new_keyed(&[seed; 32]).finalize_xof().fill(&mut out);
    out
}

/// Text-like: compressible, but without long repeats.
fn text(seed: u8, len: usize) -> Vec<u8> {
    random(seed, len).iter().map(|b| b"etaoin shrdlu\n\t01"[usize::from(b & 15)]).collect()
}

fn cuts(data: &[u8]) -> Vec<usize> {
    let chunks = Chunker::new(&KEY).cut_all(data);
    chunks
        .iter()
        .scan(0, |at, len| {
            *at += len;
            Some(*at)
        })
        .collect()
}

/// Pinned: a change here is a change of the format, and of every repository's deduplication.
#[test]
fn golden_cuts() {
    let digest = |data: &[u8]| {
        let cuts = cuts(data);
        let bytes: Vec<u8> = cuts.iter().flat_map(|c| (*c as u64).to_le_bytes()).collect();
        (cuts.len(), crate::id::to_hex(&blake3::hash(&bytes).as_bytes()[..8]))
    };
    let found = [digest(&text(1, 3_000_000)), digest(&random(1, 3_000_000)), digest(&vec![0; 1_000_001])];
    insta::assert_debug_snapshot!(found);
}

#[test]
fn pieces_keep_their_bounds() {
    let data = text(2, 4_000_000);
    let chunks = Chunker::new(&KEY).cut_all(&data);
    assert_eq!(chunks.iter().sum::<usize>(), data.len());
    let (last, others) = chunks.split_last().unwrap();
    assert!(others.iter().all(|c| (PIECE_MIN..=PIECE_MAX).contains(c)));
    assert!(*last <= PIECE_MAX);
    let mean = data.len() / chunks.len();
    assert!((12_000..24_000).contains(&mean), "mean {mean}");
}

#[test]
fn random_data_is_cut_coarsely() {
    let data = random(3, 20_000_000);
    let chunks = Chunker::new(&KEY).cut_all(&data);
    assert!(chunks.iter().all(|c| *c <= GROUP_MAX));
    let mean = data.len() / chunks.len();
    assert!((250_000..GROUP_MAX).contains(&mean), "mean {mean}");
}

#[test]
fn another_key_cuts_elsewhere() {
    let data = text(4, 1_000_000);
    assert_ne!(Chunker::new(&KEY).cut_all(&data), Chunker::new(&[1; 32]).cut_all(&data));
}

/// Cuts that `a` and `b` do not share, counted from the end: `b` is `a` with a change in front.
fn differing(a: &[u8], b: &[u8]) -> usize {
    let from_end = |data: &[u8]| cuts(data).iter().map(|c| data.len() - c).collect::<std::collections::HashSet<_>>();
    from_end(a).symmetric_difference(&from_end(b)).count()
}

#[test]
fn a_change_disturbs_its_neighbourhood_only() {
    let data = text(5, 6_000_000);
    let mut grown = b"a changed header".to_vec();
    grown.extend_from_slice(&data);
    assert!(differing(&data, &grown) < 20);
    // A mixed stream: text, then an archive, then text. Each part keeps its own cuts.
    let mixed = [text(6, 2_000_000), random(7, 2_000_000), text(8, 2_000_000)].concat();
    let mut changed = mixed.clone();
    changed.splice(1000..1010, *b"x");
    assert!(differing(&mixed, &changed) < 20);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn cutting_piecemeal_is_cutting_whole(seed in any::<u8>(), len in 0usize..5_000_000, noisy in any::<bool>()) {
        let data = if noisy { random(seed, len) } else { text(seed, len) };
        let chunker = Chunker::new(&KEY);
        let whole = chunker.cut_all(&data);
        let (mut piecemeal, mut at) = (Vec::new(), 0);
        while at < data.len() {
            let end = data.len().min(at + LOOK_AHEAD);
            at += chunker.group(&data[at..end], &mut piecemeal);
        }
        prop_assert_eq!(whole, piecemeal);
    }
}
