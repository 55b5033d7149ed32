//! Whoever follows bases, among frames that rest on others in circles, at one
//! depth, in fans, on what is missing or is not what it is called, beside honest
//! ones. Every blob is read by itself, in a plan and by a restore: no wrong byte
//! comes back, and every blob comes back of which one copy is honest down to the
//! last base, whatever else the index says of it.

use super::Seeds;
use super::hostile::{Cache, Hostile};
use super::planner::{Place, restored};
use super::resting::{
    ALONE, ANOTHER, Blob, CUT, DERIVED, FAN, FLIPPED, GARBLED, GONE, HALF_ID, HALVED, HEAD, LARGER, LIST, LONG,
    MIGHTY, MISNAMED, NO_BASE, OTHER_KIND, REVERSED, ROTATED, SHIFTED, Said, TREE, TWICE, World, blob, fate, input,
    name,
};
use estrato::format::pack::BlobKind;
use estrato::index::BlobCopy;
use estrato::monitor::Silent;
use estrato::repo::{FrameNumber, Reading, Repository, Trust};
use estrato::restore::Options;
use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;

/// Options: one decoded frame is kept and no more.
pub const ONE_FRAME: u8 = 1;
/// Options: the plan is read before any blob is read by itself.
pub const PLAN_FIRST: u8 = 2;
/// Options: the restore comes before both.
pub const RESTORE_FIRST: u8 = 4;
/// Options: nothing is restored.
pub const NO_RESTORE: u8 = 8;

/// Parts of objects that an input may have read before the rest of it is left.
const READS_MAX: u64 = 20_000;

/// Reads every blob by itself; of each whether it came back, or `None` if it was left.
fn singles(hostile: &Hostile, world: &World) -> Vec<Option<bool>> {
    let (repo, begin) = (&hostile.repo, hostile.reads());
    let read = |blob: &Blob| {
        let before = hostile.reads();
        if before - begin > READS_MAX {
            return None;
        }
        let copies = repo.index().copies(&blob.id).unwrap().len();
        let read = repo.blob(blob.kind, &blob.id);
        let reads = hostile.reads() - before;
        assert!(reads <= world.reads_max(copies), "{reads} reads for a blob of {copies} copies");
        match read {
            Ok(plain) => assert!(plain == blob.plain, "a blob that is not what its id says"),
            Err(e) => {
                assert!(e.is_damage(), "{e}");
                return Some(false);
            }
        }
        Some(true)
    };
    let found = world.blobs.iter().map(read).collect();
    // Of what only the index knows there is nothing.
    for (kind, id) in world.made_up() {
        if hostile.reads() - begin <= READS_MAX {
            assert!(repo.blob(kind, &id).is_err(), "a blob whose id is made up");
        }
    }
    found
}

/// Reads every copy of every blob in one plan, and holds it against the frame that is read by itself.
fn plan(hostile: &Hostile, world: &World) {
    let repo = &hostile.repo;
    let (mut reading, mut wanted) = (Reading::default(), BTreeMap::<FrameNumber, BlobCopy>::new());
    for (n, blob) in world.blobs.iter().enumerate() {
        let mut is_planned = false;
        for copy in repo.index().copies(&blob.id).unwrap() {
            if let Some(number) = reading.need(repo, &copy).unwrap() {
                wanted.insert(number, copy);
                is_planned = true;
            }
        }
        assert!(!world.must(n) || is_planned, "blob {n} is honest, and is not planned");
    }
    let (shown, before) = (Mutex::new(BTreeMap::new()), hostile.reads());
    let run = reading.run(repo, Trust::Bases, &Silent, &|number, decoded| {
        let plain = match decoded {
            Ok(decoded) => Some(decoded.plain.to_vec()),
            Err(e) => {
                assert!(e.is_damage(), "{e}");
                None
            }
        };
        assert!(shown.lock().unwrap().insert(number, plain).is_none(), "a frame that is shown twice");
        Ok(())
    });
    run.unwrap();
    let reads = hostile.reads() - before;
    assert!(reads <= world.plan_reads_max(), "{reads} reads for a plan of {} frames", reading.len());
    let shown = shown.into_inner().unwrap();
    assert_eq!(shown.len(), reading.len(), "frames that are not shown");
    let begin = hostile.reads();
    for (number, copy) in wanted {
        if hostile.reads() - begin <= READS_MAX {
            agree(repo, world.cache, &copy, shown[&number].as_deref());
        }
    }
}

/// What a plan shows of a frame is what is read of it alone.
fn agree(repo: &Repository, cache: Cache, copy: &BlobCopy, shown: Option<&[u8]>) {
    match (shown, repo.frame(copy)) {
        (Some(shown), Ok(alone)) => assert!(shown == &alone[..], "a plan reads something else"),
        // Whether frames are too many depends on what was kept.
        (None, Err(_)) => {}
        _ if cache == Cache::OneFrame => {}
        (None, Ok(_)) => panic!("a plan gives up what can be read"),
        (Some(_), Err(e)) => panic!("a plan reads what nobody else can: {e}"),
    }
}

/// Restores all chunks; of each whether it came back, or `None` if it is none.
fn restore(hostile: &Hostile, world: &World) -> Vec<Option<bool>> {
    let place = Place::new();
    let options = Options { numeric_owner: true, ..Options::default() };
    restored(&hostile.repo, &world.root, &place, &options);
    let found = world.blobs.iter().enumerate().map(|(n, blob)| {
        let read = fs::read(place.target().join(name(n)));
        let is_file = blob.kind == BlobKind::Chunk && !blob.plain.is_empty();
        assert!(is_file || read.is_err());
        if let Ok(bytes) = &read {
            assert!(*bytes == blob.plain, "a file of other bytes");
        }
        is_file.then_some(read.is_ok())
    });
    found.collect()
}

/// One input.
pub fn run(data: &[u8]) -> bool {
    let Some((options, data)) = data.split_first() else { return false };
    let has = |option| options & option != 0;
    let cache = if has(ONE_FRAME) { Cache::OneFrame } else { Cache::Usual };
    Hostile::with_cache(cache, |hostile| {
        let world = World::new(hostile, cache, data);
        let mut back = vec![None; world.blobs.len()];
        if has(RESTORE_FIRST) && !has(NO_RESTORE) {
            back = restore(hostile, &world);
        }
        if has(PLAN_FIRST) {
            plan(hostile, &world);
        }
        let alone = singles(hostile, &world);
        if !has(PLAN_FIRST) {
            plan(hostile, &world);
        }
        if !has(RESTORE_FIRST) && !has(NO_RESTORE) {
            back = restore(hostile, &world);
        }
        for (n, (alone, back)) in alone.into_iter().zip(back).enumerate() {
            assert!(!world.must(n) || alone != Some(false), "blob {n} is honest, and is not read");
            assert!(!world.must(n) || back != Some(false), "blob {n} is honest, and is not restored");
            let agrees = cache == Cache::OneFrame || alone != Some(true) || back != Some(false);
            assert!(agrees, "blob {n} is read, and is not restored");
        }
        let taken = world.is_delta;
        world.clear(hostile);
        taken
    })
}

/// A blob and others that were derived from one another.
fn series(count: u8, form: u8) -> Vec<Vec<u8>> {
    let first = blob(form, 0, b"a line of the first, a line of the first and a last line\n");
    let derived = |n: u8| blob(form & 3 | DERIVED, n, format!("what is new in number {n}\n").as_bytes());
    [vec![first], (0..count - 1).map(derived).collect()].concat()
}

/// A frame that holds one blob, and rests on the one before in depth of its number.
fn step(n: u8, said: &Said<'_>) -> Vec<u8> {
    let below = n.checked_sub(1);
    Said { depth: n, blobs: &[n], bases: below.as_slice(), ..*said }.record()
}

fn chain(count: u8, said: &Said<'_>) -> Vec<Vec<u8>> {
    (0..count).map(|n| step(n, said)).collect()
}

/// A chain of honest deltas, and in front of each two copies that are not what they are called.
pub fn lies_below() -> Vec<Vec<u8>> {
    let lies: Vec<_> = (1..15).map(|n| step(n, &Said { how: GARBLED, ..Said::default() })).collect();
    let honest = chain(15, &Said { pack: 1, ..Said::default() });
    [series(15, 0), lies.clone(), lies, honest].concat()
}

/// Two that rest on each other, in lower and in equal depth, and on themselves.
fn circles() -> Vec<Vec<u8>> {
    let rests = |n: &[u8], on: &[u8], depth| Said { depth, blobs: n, bases: on, ..Said::default() }.record();
    let circle = [rests(&[0], &[1], 2), rests(&[1], &[0], 1), rests(&[2], &[2], 1), rests(&[0], &[1], 1)];
    [series(4, 0), circle.to_vec(), vec![rests(&[3], &[], 0), rests(&[2], &[3], 1)]].concat()
}

/// A frame of many bases, of which each rests on many.
fn fans(form: u8) -> Vec<Vec<u8>> {
    let wide =
        |n: &[u8], on: &[u8], depth| Said { depth, lies: FAN, blobs: n, bases: on, ..Said::default() }.record();
    let frames = [
        wide(&[0], &[], 0),
        wide(&[1], &[], 0),
        wide(&[2], &[0, 1], 1),
        wide(&[3], &[1, 0], 1),
        wide(&[4], &[2, 3], 2),
        wide(&[5], &[3, 2, 4], 9),
        Said { pack: 1, depth: 1, blobs: &[4], bases: &[1], ..Said::default() }.record(),
    ];
    [series(6, form), frames.to_vec()].concat()
}

/// Frames of many bases that rest on such frames, of which the lowest are not what they are called.
pub fn wide_in_vain() -> Vec<u8> {
    let wide = |n, lies| step(n, &Said { lies: FAN | lies, ..Said::default() });
    let wrong = (1..8).map(|n| wide(n, SHIFTED)).collect();
    let right = (0..9).map(|n| wide(n, 0)).collect();
    input(PLAN_FIRST, &[series(9, 0), wrong, right].concat())
}

/// Honest frames, and those of another pack about which the index lies.
fn lied(lies: u8, how: u8) -> Vec<Vec<u8>> {
    let wrong = Said { lies, how, ..Said::default() };
    let pair = Said { depth: 2, blobs: &[4, 3], bases: &[0, 1], ..wrong };
    let right = Said { pack: 2, lies: 0, how: 0, ..pair };
    let honest = chain(4, &Said { pack: 1, ..Said::default() });
    [series(5, 0), chain(4, &wrong), vec![pair.record()], honest, vec![right.record()]].concat()
}

/// So much that several threads share it.
fn long() -> Vec<Vec<u8>> {
    let said = |pack, depth, blobs, bases| Said { pack, depth, blobs, bases, ..Said::default() }.record();
    let first: Vec<_> = (0..12).map(|n| blob(LONG, 0, &[n, n + 1, n + 2])).collect();
    let derived: Vec<_> = (0..12).map(|n| blob(DERIVED, n, b"what is new")).collect();
    let frames = [
        said(0, 0, &[0, 1, 2, 3], &[]),
        said(1, 0, &[4, 5, 6, 7], &[]),
        said(0, 0, &[8, 9, 10, 11], &[]),
        said(1, 1, &[12, 13, 14], &[0, 1, 2, 3]),
        said(0, 1, &[15, 16, 17], &[4, 5, 6]),
        said(2, 2, &[18, 19, 20], &[12, 17]),
        said(2, 3, &[21, 22, 23], &[18, 9, 15]),
        // More than bases may hold.
        Said { pack: 3, depth: 4, lies: FAN, blobs: &[0, 1], bases: &[0, 13], ..Said::default() }.record(),
    ];
    [first, derived, frames.to_vec()].concat()
}

/// Inputs to begin with.
pub fn seeds() -> Seeds {
    let fated = |what| [lied(0, 0), vec![fate(0, what)]].concat();
    let kinds = |form| {
        let (honest, other) = (Said { pack: 1, ..Said::default() }, Said { lies: OTHER_KIND, ..Said::default() });
        [series(6, form), chain(6, &other), chain(6, &honest)].concat()
    };
    let empty = [vec![blob(0, 0, b"")], lied(0, 0)].concat();
    let mut seeds = vec![
        ("chain", input(0, &[series(16, 0), chain(16, &Said::default())].concat())),
        ("chain-of-one-frame", input(ONE_FRAME, &[series(10, 0), chain(10, &Said::default())].concat())),
        ("lies-below", input(0, &lies_below())),
        ("lies-below-a-plan", input(PLAN_FIRST, &lies_below())),
        ("lies-below-a-restore", input(RESTORE_FIRST, &lies_below())),
        ("circles", input(0, &circles())),
        ("fans", input(0, &fans(0))),
        ("fans-of-one-frame", input(ONE_FRAME | PLAN_FIRST, &fans(0))),
        ("fans-of-long-blobs", input(0, &fans(LONG))),
        ("wide-in-vain", wide_in_vain()),
        ("long", input(PLAN_FIRST, &long())),
        ("long-of-one-frame", input(ONE_FRAME | RESTORE_FIRST, &long())),
        ("lists", input(0, &kinds(LIST))),
        ("trees", input(0, &kinds(TREE))),
        ("empty", input(RESTORE_FIRST, &empty)),
    ];
    let lies = [SHIFTED, MIGHTY, HALF_ID, ROTATED, NO_BASE, FAN].map(|lie| lied(lie, 0));
    let payloads = [ALONE, GARBLED, FLIPPED, REVERSED, CUT, ANOTHER].map(|how| lied(0, how));
    let fates = [GONE, HEAD, HALVED, TWICE, MISNAMED, LARGER].map(fated);
    let names = ["shifted", "mighty", "half-id", "rotated", "no-base", "fan"];
    seeds.extend(names.into_iter().zip(lies).map(|(name, records)| (name, input(PLAN_FIRST, &records))));
    let names = ["alone", "garbled", "flipped", "reversed", "cut", "another"];
    seeds.extend(names.into_iter().zip(payloads).map(|(name, records)| (name, input(RESTORE_FIRST, &records))));
    let names = ["gone", "head", "halved", "twice", "misnamed", "larger"];
    seeds.extend(names.into_iter().zip(fates).map(|(name, records)| (name, input(0, &records))));
    seeds.into_iter().map(|(name, input)| (name.to_owned(), input)).collect()
}
