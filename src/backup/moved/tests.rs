//! Which file is taken for which, by inode, by name and by size.

use super::*;
use crate::backup::base::mark;
use crate::backup::known::Rests;
use crate::format::content::{Content, Extent};
use crate::format::manifest::SnapshotKind;
use crate::id::{BlobId, SnapshotId};
use std::fs::File;

const STARTED: Timestamp = Timestamp { seconds: 1000, nanos: 5 };
const EARLIER: Timestamp = Timestamp { seconds: 1000, nanos: 4 };
const ROOT: Mark = [0; 16];
const KIB: u64 = 1024;

/// What the kernel tells of some file, but for these.
fn stat(inode: u64, size: u64, born: Option<Timestamp>) -> Stat {
    Stat { inode, size, born, ..Stat::of(&File::open("/proc/self/exe").unwrap()).unwrap() }
}

fn keys() -> IdKeys {
    IdKeys::new(&[7; 32])
}

/// What is told apart by one number.
fn content(n: u8, extents: usize) -> Content {
    Content { level: 0, extents: vec![Extent { id: Some(BlobId([n; 32])), len: 1 }; extents] }
}

fn file(folder: &Mark, name: &str, inode: u64, size: u64, n: u8) -> KnownEntry {
    KnownEntry {
        name: mark(&keys(), folder, name.as_bytes()),
        kind: Kind::File,
        size,
        mtime: EARLIER,
        ctime: EARLIER,
        inode,
        content: content(n, 1),
    }
}

fn number(old: Option<Old>) -> Option<u8> {
    old.map(|old| old.content.extents[0].id.unwrap().0[0])
}

#[test]
fn sizes_are_near_up_to_twice() {
    for (one, other, near) in [(1, 1, true), (100, 200, true), (100, 201, true), (100, 202, false), (0, 9, false)] {
        assert_eq!((is_near(one, other), is_near(other, one)), (near, near), "{one} {other}");
    }
    assert!(!is_near(1, u64::MAX) && is_near(u64::MAX, u64::MAX) && is_near(0, 0));
    assert_eq!((difference(100, 75), difference(75, 100), difference(0, 0)), (250, 250, 0));
    assert_eq!(difference(u64::MAX, 0), 1000);
}

#[test]
fn the_most_alike_are_paired_first_and_each_once() {
    assert_eq!(pairs(&[100, 1000], &[990, 101]), [(0, 1), (1, 0)]);
    assert_eq!(pairs(&[100, 101], &[101]), [(1, 0)]);
    assert_eq!(pairs(&[100], &[110, 99, 130]), [(0, 1)]);
    assert_eq!(pairs(&[100], &[134, 74]), []);
    assert_eq!(pairs(&[100], &[75]), [(0, 0)]);
    assert_eq!((pairs(&[], &[5]), pairs(&[5], &[])), (vec![], vec![]));
    // The best for both: not the first that comes.
    assert_eq!(pairs(&[80, 100], &[95, 110]), [(1, 0)], "what is left is too different");
    assert_eq!(pairs(&[100, 100], &[100, 100]), [(0, 0), (1, 1)]);
}

#[test]
fn an_inode_is_believed_if_it_is_older_than_the_base() {
    let is_same = |born, size, has_own| is_same_file(&stat(1, 100, born), size, STARTED, has_own);
    for has_own in [false, true] {
        assert!(is_same(Some(EARLIER), 100, has_own), "it is the same file, whatever its size");
        assert!(is_same(Some(EARLIER), 100_000, has_own));
        assert!(!is_same(Some(STARTED), 100, has_own), "the number was given again");
    }
    assert!(is_same(None, 60, false), "where nobody tells, the size does");
    assert!(!is_same(None, 600, false) && !is_same(None, 10, false));
    assert!(!is_same(None, 100, true), "and a name that is known before it");
}

#[test]
fn files_that_left_other_folders_are_found_by_inode_and_by_name() {
    let (keys, mut elsewhere) = (keys(), Elsewhere::new(None));
    let (one, other) = (mark(&keys, &ROOT, b"one"), mark(&keys, &ROOT, b"other"));
    elsewhere.add(&one, &file(&one, "a", 1, 100 * KIB, 1));
    elsewhere.add(&other, &file(&other, "a", 2, 150 * KIB, 2));
    elsewhere.add(&other, &file(&other, "small", 3, 60 * KIB, 3));
    elsewhere.add(&other, &KnownEntry { kind: Kind::Dir, ..file(&other, "dir", 4, 100 * KIB, 4) });
    let mut of_inode = |inode, size| number(elsewhere.of_inode(&stat(inode, size * KIB, None)));
    assert_eq!((of_inode(1, 110), of_inode(2, 110), of_inode(9, 110)), (Some(1), Some(2), None));
    assert_eq!(of_inode(1, 300), None, "another file system's");
    assert_eq!((of_inode(3, 70), of_inode(4, 100)), (None, None), "a small one, and a folder");
    assert_eq!(of_inode(1, 63), None, "what is small is not looked for");
    let mut of_name =
        |name: &str, size| number(elsewhere.of_name(&keys, name.as_bytes(), &stat(9, size * KIB, None)));
    assert_eq!((of_name("a", 120), of_name("a", 130)), (Some(1), Some(2)), "the nearest in size");
    assert_eq!((of_name("a", 290), of_name("a", 400)), (Some(2), None));
    assert_eq!((of_name("A", 120), of_name("small", 70), of_name("dir", 100)), (None, None, None));
    assert_eq!(of_name("a", 63), None);
}

#[test]
fn of_other_folders_the_largest_files_are_held_and_a_bounded_number_of_bytes() {
    let (keys, mut elsewhere) = (keys(), Elsewhere::new(None));
    let count = 20_000u64;
    for n in 0..count {
        let folder = mark(&keys, &ROOT, &n.to_be_bytes());
        let size = limits::OLD_ELSEWHERE_MIN * (1 + u64::from(n % 1000 == 0) * 50);
        let large = KnownEntry { content: content(1, 40), ..file(&folder, "f", n, size, 1) };
        elsewhere.add(&folder, &large);
        assert!(elsewhere.is_bounded());
    }
    let find = |elsewhere: &mut Elsewhere<'_>, inode, size| elsewhere.of_inode(&stat(inode, size, None)).is_some();
    assert!(find(&mut elsewhere, 5000, limits::OLD_ELSEWHERE_MIN * 51));
    assert!(!find(&mut elsewhere, 5001, limits::OLD_ELSEWHERE_MIN));
    // What was said of one entry before is not counted twice.
    let twice = file(&ROOT, "f", 1, u64::MAX, 1);
    (0..count).for_each(|_| elsewhere.add(&ROOT, &twice));
    assert!(find(&mut elsewhere, 5000, limits::OLD_ELSEWHERE_MIN * 51));
}

#[test]
fn names_are_asked_for_a_bounded_number_of_times() {
    let (keys, mut elsewhere) = (keys(), Elsewhere::new(None));
    for n in 0..1000u64 {
        let folder = mark(&keys, &ROOT, &n.to_be_bytes());
        elsewhere.add(&folder, &file(&folder, "a", n, 100 * KIB, 1));
    }
    let times = limits::OLD_MARKS_MADE / 1000;
    let stat = stat(7, 100 * KIB, None);
    assert!((0..times).all(|_| elsewhere.of_name(&keys, b"a", &stat).is_some()));
    assert!(elsewhere.of_name(&keys, b"a", &stat).is_none(), "no more");
    assert!(elsewhere.of_inode(&stat).is_some(), "an inode costs nothing");
}

#[test]
fn notes_are_gone_through_once_and_only_for_a_file_that_is_large_enough() {
    let (keys, root) = (keys(), tempfile::tempdir().unwrap());
    let folder = mark(&keys, &ROOT, b"folder");
    let noted = |n: u8| crate::backup::known::KnownFolder {
        content: Content::default(),
        entries: vec![file(&folder, "a", 1, 100 * KIB, n)],
    };
    let known = Known::open(root.path(), &[0; 16]).unwrap().unwrap();
    known.put(&folder, &noted(1));
    let chain = crate::backup::known::Chain { id: [1; 16], counter: 1, previous: None };
    let rests = Rests { started: STARTED, indexes: Vec::new() };
    known.commit(SnapshotId([1; 16]), SnapshotKind::Full, &rests, &chain).unwrap();
    let known = Known::open(root.path(), &[0; 16]).unwrap().unwrap();
    let version = known.newest(false).unwrap().number;

    let mut elsewhere = Elsewhere::new(Some((&known, version)));
    let mut find = |inode, size| number(elsewhere.of_inode(&stat(inode, size, None)));
    assert_eq!(find(1, 60 * KIB), None);
    assert_eq!(find(1, 100 * KIB), Some(1));
    // What is noted by now stands in no base; what was gone through is held.
    known.put(&folder, &noted(2));
    assert_eq!(find(1, 100 * KIB), Some(1));
    let mut later = Elsewhere::new(Some((&known, version)));
    assert_eq!(number(later.of_inode(&stat(1, 100 * KIB, None))), Some(1), "a full one's row stays");
    known.end(&folder);
    let mut none = Elsewhere::new(Some((&known, version + 1)));
    assert_eq!(number(none.of_name(&keys, b"a", &stat(1, 100 * KIB, None))), None);
}
