//! Cuts. An input is a recipe: it says how a stream of up to two megabytes is
//! put together from noise, text, runs and its own bytes.

use super::Seeds;
use estrato::chunker::{Chunker, LOOK_AHEAD};
use estrato::limits::{GROUP_MAX, PIECE_MAX, PIECE_MIN};
use std::sync::OnceLock;

const STREAM_MAX: usize = 2 << 20;
/// What seeds are apart in their source.
const SEED_STEP: usize = 997;
/// Bytes that stand in place of what followed, where a stream is changed.
const CHANGE_LEN: usize = 64 << 10;

/// Noise, and text made of it, the same in every process.
fn sources() -> &'static [Vec<u8>; 2] {
    static SOURCES: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
    SOURCES.get_or_init(|| {
        // Enough for a whole stream from wherever a seed begins.
        let mut noise = vec![0; STREAM_MAX + 256 * SEED_STEP];
        blake3::Hasher::new_keyed(&[1; 32]).finalize_xof().fill(&mut noise);
        let text = noise.iter().map(|b| b"etaoin shrdlu\n\t01"[usize::from(b & 15)]).collect();
        [noise, text]
    })
}

/// The stream of a recipe: steps of four bytes (what, a seed, how much).
fn stream(recipe: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for step in recipe.as_chunks::<4>().0 {
        let [what, seed, a, b] = *step;
        let len = usize::from(u16::from_le_bytes([a, b])) << (what >> 5);
        let len = len.min(STREAM_MAX - out.len());
        let from = usize::from(seed);
        match what % 5 {
            kind @ (0 | 1) => out.extend_from_slice(&sources()[usize::from(kind)][from * SEED_STEP..][..len]),
            2 => out.resize(out.len() + len, seed),
            3 => {
                let own = &recipe[from.min(recipe.len() - 1)..];
                out.extend_from_slice(&own.repeat(len / own.len() + 1)[..len]);
            }
            // What stood there before.
            _ => {
                let kept = out.len().min(len);
                out.extend_from_within(out.len() - kept..);
            }
        }
    }
    out
}

/// One input.
pub fn run(data: &[u8]) -> bool {
    let Some((key, recipe)) = data.split_first() else { return false };
    let stream = stream(recipe);
    let chunker = Chunker::new(&[*key; 32]);
    let groups = groups(&chunker, &stream);
    whole_and_bounded(&chunker, &stream, &groups);
    let Some(chosen) = recipe.first().filter(|_| !groups.is_empty()) else { return stream.is_empty() };
    same_after_a_boundary(&chunker, &stream, &groups, usize::from(*chosen) % groups.len());
    same_before_a_change(&chunker, &stream, &groups, usize::from(*chosen) * CHANGE_LEN / 8);
    true
}

/// The chunks of each group, cut from no more than a reader looks ahead.
fn groups(chunker: &Chunker, stream: &[u8]) -> Vec<Vec<usize>> {
    let (mut groups, mut at) = (Vec::new(), 0);
    while at < stream.len() {
        let mut chunks = Vec::new();
        let len = chunker.group(&stream[at..stream.len().min(at + LOOK_AHEAD)], &mut chunks);
        assert!(len > 0 && chunks.iter().sum::<usize>() == len, "a group is the sum of its chunks");
        at += len;
        groups.push(chunks);
    }
    assert_eq!(at, stream.len(), "nothing is left over, and nothing is made up");
    groups
}

fn whole_and_bounded(chunker: &Chunker, stream: &[u8], groups: &[Vec<usize>]) {
    assert_eq!(chunker.cut_all(stream), groups.concat(), "looking further ahead changes no cut");
    for (n, chunks) in groups.iter().enumerate() {
        assert!(chunks.iter().sum::<usize>() <= GROUP_MAX);
        let last = n + 1 == groups.len();
        match chunks[..] {
            // One piece, or a group that does not compress.
            [one] => assert!(one >= PIECE_MIN || last),
            _ => {
                let (end, pieces) = chunks.split_last().unwrap();
                assert!(pieces.iter().all(|len| (PIECE_MIN..=PIECE_MAX).contains(len)));
                assert!(*end <= PIECE_MAX && (*end >= PIECE_MIN || last));
            }
        }
    }
}

/// What follows a group is cut as if the stream began there.
fn same_after_a_boundary(chunker: &Chunker, stream: &[u8], groups: &[Vec<usize>], n: usize) {
    let at: usize = groups[..n].iter().flatten().sum();
    assert_eq!(chunker.cut_all(&stream[at..]), groups[n..].concat(), "a group looks at no byte before it");
}

/// Groups that were cut without a look at a change, or beyond, are what they were.
fn same_before_a_change(chunker: &Chunker, stream: &[u8], groups: &[Vec<usize>], at: usize) {
    let Some(changed) = stream.get(..at).map(|kept| [kept, &sources()[0][..CHANGE_LEN]].concat()) else { return };
    let (mut begin, mut kept) = (0, Vec::new());
    for chunks in groups {
        let len: usize = chunks.iter().sum();
        // Beyond a group, at most the piece that no longer fitted into it was looked at.
        if begin + len + PIECE_MAX > at {
            break;
        }
        kept.extend_from_slice(chunks);
        begin += len;
    }
    assert!(chunker.cut_all(&changed).starts_with(&kept), "a change reaches back into what was cut before");
}

/// Inputs to begin with.
pub fn seeds() -> Seeds {
    let step = |what: u8, shift: u8, seed: u8, len: u16| {
        let [a, b] = len.to_le_bytes();
        [what | shift << 5, seed, a, b]
    };
    let recipe = |steps: &[[u8; 4]]| [&[0x42][..], &steps.concat()].concat();
    // `what % 5` and the shift share a byte: 0, 1, 2 and 3 keep their meaning only without the shift.
    let what = |kind: u8, shift: u8| (0..32).find(|low| (low | shift << 5) % 5 == kind).unwrap_or_default();
    let seed = |kind: u8, shift: u8, seed: u8, len: u16| step(what(kind, shift), shift, seed, len);
    vec![
        ("noise".into(), recipe(&[seed(0, 5, 1, 60_000)])),
        ("text".into(), recipe(&[seed(1, 4, 1, 60_000)])),
        ("zeros".into(), recipe(&[seed(2, 4, 0, 50_000)])),
        ("own-bytes".into(), recipe(&[seed(3, 2, 0, 50_000), seed(3, 0, 3, 9)])),
        ("mixed".into(), recipe(&[seed(1, 3, 2, 40_000), seed(0, 3, 3, 60_000), seed(1, 2, 4, 50_000)])),
        ("repeated".into(), recipe(&[seed(0, 2, 5, 60_000), seed(4, 2, 0, 60_000), seed(4, 4, 0, 60_000)])),
        ("short".into(), recipe(&[seed(0, 0, 0, 100)])),
    ]
}
