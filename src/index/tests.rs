//! Tests beside the code.

use super::*;
use crate::format::pack::{BlobKind, Codec, Directory, Frame, StorageClass};

fn id(n: u32) -> BlobId {
    BlobId(*blake3::hash(&n.to_le_bytes()).as_bytes())
}

fn pack(name: u8, blobs: std::ops::Range<u32>) -> PackEntry {
    let ids: Vec<BlobId> = blobs.map(id).collect();
    let frames = ids
        .chunks(10)
        .map(|ids| Frame {
            stored: 5000,
            codec: Codec::Zstd,
            kind: BlobKind::Chunk,
            depth: 0,
            bases: Vec::new(),
            lens: vec![100; ids.len()],
            ids: ids.to_vec(),
        })
        .collect();
    let directory = Directory { class: StorageClass::Data, frames };
    PackEntry { name: PackName([name; 32]), size: directory.frames_end() + 500, directory }
}

fn object(packs: Vec<PackEntry>) -> IndexObject {
    IndexObject { packs, supersedes: Vec::new(), vouched: vec![PackName([7; 32])] }
}

const A: IndexName = IndexName([1; 32]);
const B: IndexName = IndexName([2; 32]);
const SIGNER: SignerId = SignerId([3; 32]);

#[test]
fn finds_every_copy() {
    let index = Index::in_memory().unwrap();
    index.add(&A, &SIGNER, &object(vec![pack(1, 0..100), pack(2, 100..150)])).unwrap();
    index.add(&B, &SIGNER, &object(vec![pack(3, 50..60)])).unwrap();
    index.add(&B, &SIGNER, &object(vec![pack(3, 50..60)])).unwrap();
    let names = |n| index.copies(&id(n)).unwrap().iter().map(|(p, _)| p.name.0[0]).collect::<Vec<_>>();
    assert_eq!(names(5), [1]);
    assert_eq!(names(55), [1, 3]);
    assert_eq!(names(149), [2]);
    assert!(names(150).is_empty());
    let (map, place) = index.copies(&id(23)).unwrap().remove(0);
    assert_eq!(place, Place { frame: 2, at: 300, len: 100 });
    assert_eq!(map.frame(2).unwrap().0, map.frame(0).unwrap().0 + 10_000);
    index.remove(&[A]).unwrap();
    assert!(names(5).is_empty());
    assert_eq!(names(55), [3]);
    assert_eq!(index.objects().unwrap(), [KnownObject { name: B, signer: SIGNER }]);
    assert_eq!(index.packs().unwrap().len(), 1);
}

#[test]
fn only_what_counts_is_found() {
    let index = Index::in_memory().unwrap();
    index.add(&A, &SIGNER, &object(vec![pack(1, 0..100)])).unwrap();
    index.add(&B, &SIGNER, &object(vec![pack(2, 0..100)])).unwrap();
    let mut hint = Hint::default();
    for round in 0..3 {
        let second = index.find(&id(1), &mut hint, |p, _| p.name.0[0] == 2).unwrap();
        assert_eq!(second.unwrap().0.name.0[0], 2, "round {round}");
        let first = index.find(&id(2), &mut hint, |p, _| p.name.0[0] == 1).unwrap();
        assert_eq!(first.unwrap().0.name.0[0], 1, "round {round}");
        assert!(index.find(&id(3), &mut hint, |_, _| false).unwrap().is_none());
    }
}

#[test]
fn vouching_counts_by_signer() {
    let index = Index::in_memory().unwrap();
    index.add(&A, &SIGNER, &object(vec![pack(1, 0..10)])).unwrap();
    assert!(index.vouched(&HashSet::from([SignerId([9; 32])])).unwrap().is_empty());
    assert!(index.vouched(&HashSet::from([SIGNER])).unwrap().contains(&PackName([7; 32])));
}

#[test]
fn superseding_counts_by_signer() {
    let index = Index::in_memory().unwrap();
    let replacing = IndexObject { supersedes: vec![B], ..object(vec![pack(1, 0..10)]) };
    index.add(&A, &SIGNER, &replacing).unwrap();
    assert!(index.superseded(&HashSet::from([SignerId([9; 32])])).unwrap().is_empty());
    assert_eq!(index.superseded(&HashSet::from([SIGNER])).unwrap(), HashSet::from([B]));
    index.remove(&[A]).unwrap();
    assert!(index.superseded(&HashSet::from([SIGNER])).unwrap().is_empty());
}

#[test]
fn stays_over_a_restart_and_survives_damage() {
    let folder = tempfile::tempdir().unwrap();
    Index::open(folder.path()).unwrap().add(&A, &SIGNER, &object(vec![pack(1, 0..100)])).unwrap();
    assert_eq!(Index::open(folder.path()).unwrap().copies(&id(5)).unwrap().len(), 1);
    std::fs::write(folder.path().join("index.db"), b"this is no database, but long enough to look at").unwrap();
    let again = Index::open(folder.path()).unwrap();
    assert!(again.objects().unwrap().is_empty());
    again.add(&A, &SIGNER, &object(vec![pack(1, 0..100)])).unwrap();
    assert_eq!(again.copies(&id(5)).unwrap().len(), 1);
}

#[test]
fn a_damaged_entry_is_an_error_and_not_another_place() {
    let folder = tempfile::tempdir().unwrap();
    Index::open(folder.path()).unwrap().add(&A, &SIGNER, &object(vec![pack(1, 0..100)])).unwrap();
    let db = rusqlite::Connection::open(folder.path().join("index.db")).unwrap();
    db.execute("UPDATE packs SET entry = CAST(entry || x'00' AS BLOB)", []).unwrap();
    assert!(Index::open(folder.path()).unwrap().copies(&id(5)).is_err());
}

#[test]
fn the_cache_stays_bounded() {
    let index = Index::in_memory().unwrap();
    let many = limits::INDEX_CACHE_BLOBS as u32 / 4;
    for n in 0..6u32 {
        let object = object(vec![pack(n as u8, n * many..(n + 1) * many)]);
        index.add(&IndexName([n as u8; 32]), &SIGNER, &object).unwrap();
    }
    for n in 0..6 {
        assert_eq!(index.copies(&id(n * many)).unwrap().len(), 1);
        assert!(lock(&index.cache).blobs <= limits::INDEX_CACHE_BLOBS);
    }
}
