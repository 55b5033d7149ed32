//! What the fuzz targets do, apart from the fuzzer: each target is a function
//! of bytes that must not panic, whatever they are. `fuzz_targets/` hands it
//! the fuzzer's bytes; `tests/it/fuzz.rs` takes this folder in as a module, and
//! hands it the seeds and the files of `corpus/` in every run of the tests.
//!
//! A target says whether its input was taken or refused: seeds must be taken,
//! so that a target that reaches nothing shows.

pub mod bases;
pub mod chunker;
pub mod hostile;
pub mod index;
pub mod packs;
pub mod planner;
pub mod records;
pub mod resting;
pub mod trees;
pub mod walker;

/// Named inputs.
pub type Seeds = Vec<(String, Vec<u8>)>;

/// A fuzz target.
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Takes an input; true if it was taken and not refused.
    pub run: fn(&[u8]) -> bool,
    /// Inputs to begin with: real records and objects. Each is taken.
    pub seeds: fn() -> Seeds,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "records", run: records::run, seeds: records::seeds },
    Target { name: "trees", run: trees::run, seeds: trees::seeds },
    Target { name: "packs", run: packs::run, seeds: packs::seeds },
    Target { name: "index", run: index::run, seeds: index::seeds },
    Target { name: "chunker", run: chunker::run, seeds: chunker::seeds },
    Target { name: "walker", run: walker::run, seeds: walker::seeds },
    Target { name: "planner", run: planner::run, seeds: planner::seeds },
    Target { name: "bases", run: bases::run, seeds: bases::seeds },
];

/// Divides an input: its first byte chooses among `ways`, the rest is what the chosen one gets.
fn choose(data: &[u8], ways: usize) -> Option<(usize, &[u8])> {
    let (first, rest) = data.split_first()?;
    Some((usize::from(*first) % ways, rest))
}

/// The input that [`choose`] divides so.
fn chosen(way: usize, rest: &[u8]) -> Vec<u8> {
    let mut input = vec![way as u8];
    input.extend_from_slice(rest);
    input
}

/// Holds a decoder to this: what it takes encodes to bytes that it takes for the same record again.
fn there_and_back<T, E>(
    data: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, E>,
    encode: impl Fn(&T) -> Vec<u8>,
    equal: impl Fn(&T, &T) -> bool,
) -> bool
where
    E: std::fmt::Display,
{
    let Ok(record) = decode(data) else { return false };
    match decode(&encode(&record)) {
        Ok(again) => assert!(equal(&record, &again), "a record that reads otherwise once it is written again"),
        Err(e) => panic!("a record that is refused once it is written again: {e}"),
    }
    true
}
