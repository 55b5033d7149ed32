//! Notes that are kept, versioned, damaged and given up.

use super::*;
use crate::format::content::Extent;
use crate::id::BlobId;

fn folder(n: u64) -> KnownFolder {
    let content = Content { level: 0, extents: vec![Extent { id: Some(BlobId([n as u8; 32])), len: n }] };
    let time = Timestamp { seconds: -5, nanos: 7 };
    let entry = KnownEntry {
        name: [n as u8; 16],
        kind: Kind::File,
        size: n,
        mtime: time,
        ctime: time,
        inode: n,
        content: content.clone(),
    };
    KnownFolder { content, entries: vec![entry; 3] }
}

const CHAIN: Chain = Chain { id: [1; 16], counter: 4, previous: None };
const START: Timestamp = Timestamp { seconds: 100, nanos: 0 };

fn snapshot(root: &Path, n: u8, kind: SnapshotKind, put: &[(u8, u64)], end: &[u8]) {
    let mut known = Known::open(root, &[0; 16]).unwrap().unwrap();
    if kind == SnapshotKind::Full {
        known.clear();
    }
    for (key, f) in put {
        known.put(&[*key; 16], &folder(*f));
    }
    for key in end {
        known.end(&[*key; 16]);
    }
    let rests = Rests { started: START, indexes: vec![IndexName([n; 32]); 2] };
    known.commit(SnapshotId([n; 16]), kind, &rests, &CHAIN).unwrap();
}

#[test]
fn the_newest_and_the_full_can_both_be_read() {
    use SnapshotKind::{Full, Incremental};
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    snapshot(root, 1, Full, &[(1, 10), (2, 20)], &[]);
    snapshot(root, 2, Incremental, &[(1, 11)], &[]);
    snapshot(root, 3, Incremental, &[(1, 12), (3, 30)], &[2]);
    let known = Known::open(root, &[0; 16]).unwrap().unwrap();
    let (newest, full) = (known.newest(false).unwrap(), known.newest(true).unwrap());
    assert_eq!((newest.snapshot.0[0], full.snapshot.0[0]), (3, 1));
    assert_eq!(newest.indexes, [IndexName([3; 32]); 2]);
    let read = |version: &Version, key: u8| known.folder(version.number, &[key; 16]);
    assert_eq!(read(&newest, 1), Some(folder(12)));
    assert_eq!((read(&newest, 2), read(&newest, 3)), (None, Some(folder(30))));
    assert_eq!((read(&full, 1), read(&full, 2)), (Some(folder(10)), Some(folder(20))));
    assert_eq!(read(&full, 3), None);
    assert_eq!(known.chain(), Some(CHAIN));
    let rows: i64 = known.connection.query_row("SELECT count(*) FROM rows", [], |r| r.get(0)).unwrap();
    assert_eq!(rows, 4, "no row is kept that neither needs");
    drop(known);
    snapshot(root, 4, Full, &[(1, 40)], &[]);
    let known = Known::open(root, &[0; 16]).unwrap().unwrap();
    let newest = known.newest(true).unwrap();
    assert_eq!(known.folder(newest.number, &[2; 16]), None);
}

#[test]
fn what_is_not_committed_never_was() {
    let root = tempfile::tempdir().unwrap();
    snapshot(root.path(), 1, SnapshotKind::Full, &[(1, 10)], &[]);
    let known = Known::open(root.path(), &[0; 16]).unwrap().unwrap();
    known.put(&[1; 16], &folder(11));
    assert!(Known::open(root.path(), &[0; 16]).unwrap().is_none(), "a second backup of it must not wait");
    drop(known);
    let known = Known::open(root.path(), &[0; 16]).unwrap().unwrap();
    let newest = known.newest(false).unwrap();
    assert_eq!(known.folder(newest.number, &[1; 16]), Some(folder(10)));
}

fn file(root: &Path) -> PathBuf {
    path_of(root, &[0; 16])
}

/// Changes the file behind the back of the notes.
fn tamper(root: &Path, sql: &str) {
    Connection::open(file(root)).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn damage_is_the_same_as_nothing() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    snapshot(root, 1, SnapshotKind::Full, &[(1, 10), (2, 20)], &[]);
    tamper(root, "UPDATE rows SET row = x'00' WHERE key = x'01010101010101010101010101010101'");
    let known = Known::open(root, &[0; 16]).unwrap().unwrap();
    assert_eq!((known.folder(1, &[1; 16]), known.folder(1, &[2; 16])), (None, Some(folder(20))));
    assert_eq!(known.lost(), None);
    drop(known);
    std::fs::write(file(root), vec![7; 5000]).unwrap();
    let known = Known::open(root, &[0; 16]).unwrap().unwrap();
    assert_eq!((known.newest(false), known.chain()), (None, None));
    assert!(known.lost().is_some());
}

#[test]
fn a_row_that_says_something_else_is_noticed() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    for (sql, all) in [
        ("UPDATE versions SET seconds = seconds + 4", true),
        ("UPDATE versions SET indexes = x''", true),
        ("UPDATE chain SET counter = counter + 1", true),
        ("UPDATE source SET mark = zeroblob(15)", true),
        ("PRAGMA user_version = 3", true),
        ("DROP TABLE chain", true),
        // What was noted for one folder, under another's key.
        (
            "DELETE FROM rows WHERE key = x'01010101010101010101010101010101'; UPDATE rows SET key = x'01010101010101010101010101010101'",
            false,
        ),
        ("UPDATE rows SET since = 0", false),
    ] {
        snapshot(root, 1, SnapshotKind::Full, &[(1, 10), (2, 20)], &[]);
        tamper(root, sql);
        let known = Known::open(root, &[0; 16]).unwrap().unwrap();
        assert_eq!(known.lost().is_some(), all, "{sql}");
        assert_eq!(known.newest(false).is_none(), all, "{sql}");
        assert_eq!(known.folder(1, &[1; 16]), None, "{sql}");
        drop(known);
        remove(&file(root));
    }
}

#[test]
fn a_damaged_tree_of_rows_goes_with_the_run_that_finds_it() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let many: Vec<(u8, u64)> = (1..200).map(|n| (n, u64::from(n))).collect();
    snapshot(root, 1, SnapshotKind::Full, &many, &[]);
    let whole = std::fs::read(file(root)).unwrap();
    let page = 4096;
    assert!(whole.len() > 12 * page);
    let mut bytes = whole.clone();
    bytes[8 * page..10 * page].fill(0xee);
    std::fs::write(file(root), &bytes).unwrap();
    let known = Known::open(root, &[0; 16]).unwrap().unwrap();
    let read = (1..200u8).filter(|n| known.folder(1, &[*n; 16]) == Some(folder((*n).into()))).count();
    assert!((1..199).contains(&read), "{read}");
    known.put(&[1; 16], &folder(1));
    let rests = Rests { started: START, indexes: Vec::new() };
    known.commit(SnapshotId([2; 16]), SnapshotKind::Incremental, &rests, &CHAIN).unwrap_err();
    assert!(!file(root).exists());
}

#[test]
fn notes_of_another_source_and_copies_are_told_apart() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    snapshot(root, 1, SnapshotKind::Full, &[(1, 10)], &[]);
    let copy = root.join("copy");
    std::fs::copy(file(root), &copy).unwrap();
    std::fs::copy(&copy, path_of(root, &[9; 16])).unwrap();
    let known = Known::open(root, &[9; 16]).unwrap().unwrap();
    assert_eq!((known.newest(false), known.chain()), (None, None));
    drop(known);
    // As after the machine was restored: the same content in another file.
    std::fs::rename(&copy, file(root)).unwrap();
    let known = Known::open(root, &[0; 16]).unwrap().unwrap();
    assert_eq!((known.folder(1, &[1; 16]), known.chain(), known.lost()), (Some(folder(10)), None, None));
}

#[test]
fn notes_of_sources_that_are_gone_go_too() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let now = SystemTime::now();
    let before = |seconds| now - Duration::from_secs(seconds);
    let make = |n: u16, time| {
        let mut mark = [1; 16];
        mark[..2].copy_from_slice(&n.to_be_bytes());
        let path = path_of(root, &mark);
        std::fs::File::create(&path).unwrap().set_modified(time).unwrap();
        (mark, path)
    };
    let (_, old) = make(1, before(limits::LOCAL_UNUSED_SECONDS + 600));
    let (_, young) = make(2, before(limits::LOCAL_UNUSED_SECONDS - 600));
    let (mark, held) = make(3, before(limits::LOCAL_UNUSED_SECONDS + 600));
    let lock = Lock::attempt(root, Part::Notes(mark), Hold::Alone).unwrap();
    let other = root.join("source-photo.db");
    std::fs::write(&other, "x").unwrap();
    snapshot(root, 1, SnapshotKind::Full, &[(1, 10)], &[]);
    assert!(!old.exists() && young.exists() && held.exists() && other.exists());
    drop(lock);
    for n in 0..limits::LOCAL_SOURCES_MAX as u16 {
        make(100 + n, before(60));
    }
    snapshot(root, 2, SnapshotKind::Full, &[(1, 10)], &[]);
    let left = std::fs::read_dir(root).unwrap().filter(|e| e.as_ref().unwrap().file_name().len() == 42).count();
    assert_eq!(left, limits::LOCAL_SOURCES_MAX);
    assert!(file(root).exists() && !young.exists());
}

#[test]
fn a_file_shrinks_with_its_source() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let mut wide = folder(1);
    wide.entries = vec![wide.entries[0].clone(); 2000];
    let mut known = Known::open(root, &[0; 16]).unwrap().unwrap();
    known.clear();
    for n in 0..60 {
        known.put(&[n; 16], &wide);
    }
    let rests = || Rests { started: START, indexes: Vec::new() };
    known.commit(SnapshotId([1; 16]), SnapshotKind::Full, &rests(), &CHAIN).unwrap();
    let size = || std::fs::metadata(file(root)).unwrap().len();
    let large = size();
    assert!(large > 8_000_000, "{large}");
    snapshot(root, 2, SnapshotKind::Full, &[(1, 10)], &[]);
    assert!(size() < large / 50, "{} of {large}", size());
}

#[test]
fn changes_around_the_start_are_racy() {
    let at = |seconds, nanos| is_racy(Timestamp { seconds, nanos }, START);
    assert!(at(100, 1) && at(101, 0) && at(99, 990_000_000) && at(98, 0));
    assert!(!at(99, 900_000_000) && !at(97, 0));
}
