//! Series of edits on one file or one stream, over sizes on both sides of every threshold, with
//! snapshots of all kinds: each gives back its moment, from state that was kept and from none, and
//! also where each decoded frame pushes out the one before.

use super::{deltas, restored, rows, touched};
use crate::support::{Place, Ran, is_long, noise, say};
use crate::world::{FULL, World, contents, options};
use estrato::backup::{self, Options, Selection, Source, Stream};
use estrato::format::manifest::SnapshotKind;
use estrato::id::SnapshotId;
use estrato::maintenance::{self, Depth};
use estrato::monitor::Silent;
use estrato::repo::Repository;
use estrato::restore;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::fs::{self, File};
use std::io::Cursor;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

/// No document grows beyond this.
const MOST: usize = 3 << 20;

/// What a part of a document holds.
#[derive(Debug, Clone, Copy)]
enum Matter {
    Rows,
    Noise,
    Zeros,
}

#[derive(Debug, Clone)]
struct Part {
    matter: Matter,
    len: usize,
    seed: u16,
}

/// Places and lengths are parts of the document's length, in 65536ths, so that they mean something
/// whatever it has become.
#[derive(Debug, Clone)]
enum Edit {
    Insert(u16, Part),
    Delete(u16, u16),
    Replace(u16, Part),
    Move(u16, u16, u16),
    Truncate(u16),
    Append(Part),
    Rewrite(Part),
    Swap(u16),
    /// One byte.
    Touch(u16),
}

impl Part {
    fn bytes(&self) -> Vec<u8> {
        let seed = self.seed.to_string();
        let mut bytes = match self.matter {
            Matter::Rows => rows(self.seed.into(), self.len / 70 + 1, &seed),
            Matter::Noise => noise(&seed, self.len),
            Matter::Zeros => vec![0; self.len],
        };
        bytes.truncate(self.len);
        bytes
    }
}

impl Edit {
    fn apply(&self, document: &mut Vec<u8>) {
        let len = document.len();
        let part = |of: u16, len: usize| len * usize::from(of) / 65_535;
        match self {
            Self::Insert(at, new) => drop(document.splice(part(*at, len)..part(*at, len), new.bytes())),
            Self::Delete(at, n) => {
                let from = part(*at, len);
                // A third at the most, or nothing would be left to edit.
                document.drain(from..from + part(*n / 3, len - from));
            }
            Self::Replace(at, new) => {
                let from = part(*at, len);
                document.splice(from..(from + new.len).min(len), new.bytes());
            }
            Self::Move(at, n, to) => {
                let from = part(*at, len);
                let block: Vec<u8> = document.drain(from..from + part(*n, len - from)).collect();
                let to = part(*to, document.len());
                document.splice(to..to, block);
            }
            Self::Truncate(at) => document.truncate(part(*at, len)),
            Self::Append(new) => document.extend(new.bytes()),
            Self::Rewrite(new) => *document = new.bytes(),
            Self::Swap(at) => document.rotate_left(part(*at, len)),
            Self::Touch(at) => {
                let at = part(*at, len.saturating_sub(1));
                document.iter_mut().skip(at).take(1).for_each(|b| *b = !*b);
            }
        }
        document.truncate(MOST);
    }
}

/// A few bytes, or about as many as something in the program takes at the least or at the most.
fn len() -> impl Strategy<Value = usize> {
    let about = |len: usize| len - 2..len + 3;
    prop_oneof![
        3 => 0usize..100,
        2 => about(2 << 10),
        2 => about(16 << 10),
        2 => about(64 << 10),
        3 => 0usize..300_000,
        1 => about(1 << 20),
    ]
}

fn matter() -> impl Strategy<Value = Matter> {
    prop_oneof![5 => Just(Matter::Rows), 2 => Just(Matter::Noise), 1 => Just(Matter::Zeros)]
}

fn part() -> impl Strategy<Value = Part> {
    (matter(), len(), any::<u16>()).prop_map(|(matter, len, seed)| Part { matter, len, seed })
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        4 => (any::<u16>(), part()).prop_map(|(at, new)| Edit::Insert(at, new)),
        2 => any::<(u16, u16)>().prop_map(|(at, n)| Edit::Delete(at, n)),
        4 => (any::<u16>(), part()).prop_map(|(at, new)| Edit::Replace(at, new)),
        2 => any::<(u16, u16, u16)>().prop_map(|(at, n, to)| Edit::Move(at, n, to)),
        1 => any::<u16>().prop_map(Edit::Truncate),
        4 => part().prop_map(Edit::Append),
        1 => part().prop_map(Edit::Rewrite),
        2 => any::<u16>().prop_map(Edit::Swap),
        8 => any::<u16>().prop_map(Edit::Touch),
    ]
}

/// A snapshot, and what happens before it.
#[derive(Debug, Clone)]
struct Step {
    edits: Vec<Edit>,
    kind: SnapshotKind,
    /// This machine's state is lost.
    forgets: bool,
}

#[derive(Debug, Clone)]
struct Series {
    is_stream: bool,
    first: Vec<Part>,
    steps: Vec<Step>,
}

fn series(most: usize) -> impl Strategy<Value = Series> {
    let kind = prop_oneof![
        8 => Just(SnapshotKind::Incremental),
        2 => Just(SnapshotKind::Differential),
        1 => Just(SnapshotKind::Full),
    ];
    let step = (proptest::collection::vec(edit(), 1..4), kind, prop::bool::weighted(0.15));
    let step = step.prop_map(|(edits, kind, forgets)| Step { edits, kind, forgets });
    let first = proptest::collection::vec(part(), 0..6);
    (any::<bool>(), first, proptest::collection::vec(step, 4..most)).prop_map(|(is_stream, first, steps)| Series {
        is_stream,
        first,
        steps,
    })
}

/// A repository in memory, and a source with a state beside it.
struct Bench {
    world: World,
    place: tempfile::TempDir,
    is_stream: bool,
}

impl Bench {
    fn new(is_stream: bool) -> Self {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("source")).unwrap();
        Self { world: World::today(), place, is_stream }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn snapshot(&self, document: &[u8], kind: SnapshotKind) -> SnapshotId {
        let repo = self.world.open_with(FULL, Some(self.path("cache")));
        let source = if self.is_stream {
            Source::Stream(Stream::input("document", Box::new(Cursor::new(document.to_vec()))).unwrap())
        } else {
            fs::write(self.path("source/document"), document).unwrap();
            Source::Files(Selection::new(&[self.path("source")]).unwrap())
        };
        let outcome = backup::run(&repo, source, &Options { kind, ..options() }, &Silent).unwrap();
        self.world.clock.forward(60);
        assert_eq!(outcome.troubles, []);
        outcome.snapshot.unwrap()
    }

    /// What a snapshot gives back.
    fn document(&self, repo: &Repository, id: &SnapshotId) -> Vec<u8> {
        let object = repo.snapshot(id).unwrap();
        let target = tempfile::tempdir().unwrap();
        let root = &object.manifest().unwrap().root;
        let outcome = restore::run(repo, root, None, target.path(), &restore::Options::default(), &Silent).unwrap();
        assert_eq!(outcome.failures, 0, "{outcome:?}");
        contents(target.path()).into_values().next().unwrap()
    }

    /// Delta frames that the index names.
    fn deltas(&self, repo: &Repository) -> u64 {
        let (stats, problems) = maintenance::stats(repo).unwrap();
        assert!(problems.is_empty(), "{problems:?}");
        stats.frames.iter().map(|of| of.delta.frames).sum()
    }
}

/// Runs a series; how many deltas it made.
fn run(series: &Series) -> u64 {
    let bench = Bench::new(series.is_stream);
    let mut document: Vec<u8> = series.first.iter().flat_map(Part::bytes).collect();
    let mut taken = vec![(bench.snapshot(&document, SnapshotKind::Incremental), document.clone())];
    for step in &series.steps {
        step.edits.iter().for_each(|edit| edit.apply(&mut document));
        if step.forgets {
            fs::remove_dir_all(bench.path("cache")).unwrap();
        }
        taken.push((bench.snapshot(&document, step.kind), document.clone()));
    }
    let fresh = bench.world.open(FULL);
    let report = maintenance::check(&fresh, Depth::AllData, &Silent).unwrap();
    assert_eq!(report.damages, 0, "{:?}", report.damage);
    for (at, (id, expected)) in taken.iter().enumerate() {
        assert!(bench.document(&fresh, id) == *expected, "snapshot {at} gives something else");
    }
    // The deepest chains, with nothing kept between two frames.
    let (id, expected) = taken.last().unwrap();
    let narrow = bench.world.open(FULL).with_frame_cache(0);
    narrow.sync_index().unwrap();
    assert!(bench.document(&narrow, id) == *expected, "with a cache of one frame it is something else");
    bench.deltas(&fresh)
}

#[test]
fn every_snapshot_of_a_series_gives_back_its_moment() {
    let (cases, most) = if is_long() { (400, 25) } else { (14, 12) };
    let (snapshots, made) = (AtomicU64::new(0), AtomicU64::new(0));
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 300, ..Config::default() };
    let outcome = TestRunner::new(config).run(&series(most), |series| {
        snapshots.fetch_add(series.steps.len() as u64 + 1, Ordering::Relaxed);
        made.fetch_add(run(&series), Ordering::Relaxed);
        Ok(())
    });
    if let Err(e) = outcome {
        panic!("{e}");
    }
    let (snapshots, made) = (snapshots.into_inner(), made.into_inner());
    assert!(made > u64::from(cases), "only {made} delta frames: the series do not reach what they are to try");
    say(&format!("delta: {cases} series, {snapshots} snapshots restored, {made} delta frames"));
}

#[test]
fn chains_of_many_snapshots_come_back_with_a_cache_of_one_frame() {
    let bench = Bench::new(true);
    let mut document = rows(0, 12_000, "chains");
    let mut taken = vec![(bench.snapshot(&document, SnapshotKind::Incremental), document.clone())];
    for n in 1..=24 {
        // Now some rows, now all; and what follows moves along.
        let at = document.len() / 25 * n;
        document.splice(at..at, rows(n, n * 7, &format!("{n}")));
        document = if n % 6 == 0 { touched(&document, 3001) } else { touched(&document, 150_001) };
        taken.push((bench.snapshot(&document, SnapshotKind::Incremental), document.clone()));
    }
    let narrow = bench.world.open(FULL).with_frame_cache(0);
    narrow.sync_index().unwrap();
    let (stats, _) = maintenance::stats(&narrow).unwrap();
    assert!(stats.frames[0].depths.len() > 4, "chains grew: {:?}", stats.frames[0]);
    for (at, (id, expected)) in taken.iter().enumerate() {
        assert!(bench.document(&narrow, id) == *expected, "snapshot {at} gives something else");
    }
}

/// One snapshot of each kind in turn, of a file and of a stream, by the program.
#[test]
fn a_series_by_the_program_comes_back_with_its_state_and_without() {
    let place = Place::with_repository();
    let mut document = [rows(0, 6_000, "file"), noise("file", 200_000), rows(6_000, 2_000, "more")].concat();
    let mut taken = Vec::new();
    for (n, kind) in ["incremental", "incremental", "differential", "full", "incremental"].iter().enumerate() {
        let at = document.len() / 6 * n;
        document.splice(at..at + 50, rows(n, 3, "new"));
        document = touched(&document, 40_007);
        let path = place.write("source/document", &document);
        taken.push((place.snapshot(&["--kind", kind]), document.clone(), "document"));
        let mut command = place.command(&["snapshot", "--stdin", "--name", "s", "--kind", kind, "--json"]);
        let stream = Ran::of(command.stdin(File::open(&path).unwrap())).expect_code(0).json();
        taken.push((stream, document.clone(), "s"));
    }
    assert!(deltas(&place, "chunks") > 2);
    for without_state in [false, true] {
        if without_state {
            fs::remove_dir_all(place.path(".cache")).unwrap();
        }
        for (at, (snapshot, expected, file)) in taken.iter().enumerate() {
            assert!(restored(&place, snapshot, file) == *expected, "snapshot {at}, without state: {without_state}");
        }
        place.run(&["check", "--read-data"]).expect_code(0);
    }
}
