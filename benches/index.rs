//! The index on this machine by itself: how long it takes to build, what a blob
//! costs on disk, how fast it opens and answers, and in how much memory.
//!
//! 1,000,000 blobs, or `ESTRATO_BENCH_BLOBS`; the bars of ARCHITECTURE.md are
//! for 10,000,000. Four of five blobs lie in plain frames of 64, the fifth in
//! delta frames of one or two blobs on one to four bases. Ids are made from
//! numbers: nothing but the index is kept anywhere. `ESTRATO_BENCH_FOLDER` says
//! where it lies; an index that is there already is taken as it is.

use estrato::format::index::{IndexObject, PackEntry};
use estrato::format::pack::{BlobKind, Codec, Directory, Frame, StorageClass};
use estrato::id::{BlobId, IndexName, PackName, SignerId};
use estrato::index::{Hint, Index};
use std::path::Path;
use std::time::{Duration, Instant};

/// Tells the program that it is the one that looks up, and where.
const PROBE: &str = "ESTRATO_PROBE_INDEX";
const IN_OBJECT: u64 = 65_536;
/// Blobs of a pack: of 16 MiB, or of a backup's deltas.
const IN_PACK: u64 = 1024;
const IN_FRAME: u64 = 64;

/// An id that looks like a hash, at a tenth of the price.
fn id(n: u64) -> BlobId {
    let mut mixed = n;
    let mut next = || {
        mixed = (mixed ^ (mixed >> 30) ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        mixed
    };
    let mut out = [0; 32];
    out.as_chunks_mut::<8>().0.iter_mut().for_each(|word| *word = next().to_le_bytes());
    BlobId(out)
}

fn blobs() -> u64 {
    std::env::var("ESTRATO_BENCH_BLOBS").map_or(1_000_000, |n| n.parse().expect("a number of blobs"))
}

fn is_delta(pack: u64) -> bool {
    pack % 5 == 4
}

fn frame(ids: std::ops::Range<u64>, bases: u64) -> Frame {
    Frame {
        stored: if bases == 0 { 250_000 } else { 900 },
        codec: Codec::Zstd,
        kind: BlobKind::Chunk,
        depth: u8::from(bases > 0),
        bases: (0..bases).map(|n| id(ids.start / 2 + n).base()).collect(),
        lens: ids.clone().map(|n| 12_000 + (n % 8) as u32 * 1000).collect(),
        ids: ids.map(id).collect(),
    }
}

fn pack(number: u64, blobs: u64) -> PackEntry {
    let (mut at, end) = (number * IN_PACK, ((number + 1) * IN_PACK).min(blobs));
    let mut frames = Vec::new();
    while at < end {
        let next = if is_delta(number) { at + 1 + at % 2 } else { at + IN_FRAME }.min(end);
        frames.push(frame(at..next, if is_delta(number) { 1 + at / 2 % 4 } else { 0 }));
        at = next;
    }
    let directory = Directory { class: StorageClass::Data, frames };
    PackEntry { name: PackName(id(number).0), size: directory.frames_end() + 9000, directory }
}

fn build(folder: &Path, blobs: u64) {
    let index = Index::open(folder).unwrap();
    let packs: Vec<u64> = (0..blobs.div_ceil(IN_PACK)).collect();
    let (mut taken, mut longest) = (Duration::ZERO, Duration::ZERO);
    for (number, packs) in packs.chunks((IN_OBJECT / IN_PACK) as usize).enumerate() {
        let object = IndexObject { packs: packs.iter().map(|n| pack(*n, blobs)).collect(), ..IndexObject::default() };
        let started = Instant::now();
        index.add(&IndexName(id(number as u64).0), &SignerId([1; 32]), &object).unwrap();
        taken += started.elapsed();
        longest = longest.max(started.elapsed());
    }
    let started = Instant::now();
    drop(index);
    taken += started.elapsed();
    println!("built in {taken:.1?} ({longest:.2?} the longest object), {} MB at the peak", memory_mb("VmHWM"));
}

fn bytes_in(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).unwrap();
    files
        .map(|file| file.unwrap())
        .filter(|f| f.file_name() != "index.lock")
        .map(|f| f.metadata().unwrap().len())
        .sum()
}

fn memory_mb(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with(line)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// The time that this thread had a processor: others may be using them too.
fn processor_seconds() -> f64 {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    times.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1e9
}

/// Calls `ask` for some seconds, with numbers that go up.
fn rate(what: &str, mut ask: impl FnMut(u64)) {
    let (started, before, mut n) = (Instant::now(), processor_seconds(), 0);
    while started.elapsed() < Duration::from_secs(3) {
        for _ in 0..1000 {
            ask(n);
            n += 1;
        }
    }
    let (all, used) = (started.elapsed().as_secs_f64(), processor_seconds() - before);
    println!("{what}: {:.0} a second, {:.0} in a second of processor time", n as f64 / all, n as f64 / used);
}

/// Opens an index that another process has made, and asks it.
fn probe(folder: &str) {
    let blobs = blobs();
    let random = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % blobs;
    let started = Instant::now();
    let index = Index::open(folder.as_ref()).unwrap();
    assert_eq!(index.copies(&id(random(77))).unwrap().len(), 1);
    println!("opened, and the first look-up, in {:.1?}, {} MB", started.elapsed(), memory_mb("VmHWM"));
    let mut hint = Hint::default();
    rate("hits in the order of a stream", |n| {
        assert!(index.find(&id(n % blobs), &mut hint, |_| Ok(true)).unwrap().is_some());
    });
    rate("hits at random", |n| {
        assert!(index.find(&id(random(n)), &mut hint, |_| Ok(true)).unwrap().is_some());
    });
    rate("every copy of blobs at random", |n| assert_eq!(index.copies(&id(random(n))).unwrap().len(), 1));
    rate("misses", |n| {
        assert!(index.find(&id(blobs + n), &mut hint, |_| Ok(true)).unwrap().is_none());
    });
    rate("misses, sure of what others added", |n| assert!(index.copies(&id(blobs + n)).unwrap().is_empty()));
    println!("{} MB at the peak", memory_mb("VmHWM"));
}

fn main() {
    if let Ok(folder) = std::env::var(PROBE) {
        return probe(&folder);
    }
    let blobs = blobs();
    let made = tempfile::tempdir().unwrap();
    let folder = std::env::var_os("ESTRATO_BENCH_FOLDER").map_or(made.path().to_path_buf(), Into::into);
    println!("an index of {blobs} blobs");
    if !folder.join("index.db").exists() {
        build(&folder, blobs);
    }
    println!("{:.1} bytes a blob on disk", bytes_in(&folder) as f64 / blobs as f64);
    let program = std::env::current_exe().unwrap();
    let probed = std::process::Command::new(program).env(PROBE, &folder).status().unwrap();
    assert!(probed.success(), "the look-ups of another process");
}
