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
    IndexObject { packs, supersedes: Vec::new(), vouched: vec![VOUCHED] }
}

const A: IndexName = IndexName([1; 32]);
const B: IndexName = IndexName([2; 32]);
const VOUCHED: Vouched = Vouched { index: IndexName([6; 32]), pack: PackName([7; 32]) };
const SIGNER: SignerId = SignerId([3; 32]);

#[test]
fn finds_every_copy() {
    let index = Index::in_memory().unwrap();
    index.add(&A, &SIGNER, &object(vec![pack(1, 0..100), pack(2, 100..150)])).unwrap();
    index.add(&B, &SIGNER, &object(vec![pack(3, 50..60)])).unwrap();
    index.add(&B, &SIGNER, &object(vec![pack(3, 50..60)])).unwrap();
    let names = |n| index.copies(&id(n)).unwrap().iter().map(|c| c.pack().0[0]).collect::<Vec<_>>();
    assert_eq!(names(5), [1]);
    assert_eq!(names(55), [1, 3]);
    assert_eq!(names(149), [2]);
    assert!(names(150).is_empty());
    let (first, copy) = (index.copies(&id(0)).unwrap().remove(0), index.copies(&id(23)).unwrap().remove(0));
    assert_eq!((copy.frame_number(), copy.at(), copy.size()), (2, 300, 100));
    assert_eq!((first.frame_number(), copy.offset()), (0, first.offset() + 10_000));
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
        let second = index.find(&id(1), &mut hint, |c| Ok(c.pack().0[0] == 2)).unwrap();
        assert_eq!(second.unwrap().pack().0[0], 2, "round {round}");
        let first = index.find(&id(2), &mut hint, |c| Ok(c.pack().0[0] == 1)).unwrap();
        assert_eq!(first.unwrap().pack().0[0], 1, "round {round}");
        assert!(index.find(&id(3), &mut hint, |_| Ok(false)).unwrap().is_none());
    }
}

#[test]
fn vouching_counts_by_signer() {
    let index = Index::in_memory().unwrap();
    index.add(&A, &SIGNER, &object(vec![pack(1, 0..10)])).unwrap();
    assert!(index.vouched(&HashSet::from([SignerId([9; 32])])).unwrap().is_empty());
    assert!(index.vouched(&HashSet::from([SIGNER])).unwrap().contains(&VOUCHED));
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

/// A store of index objects, and what it was told.
#[derive(Default, Clone)]
struct Objects(Arc<Mutex<Vec<(IndexName, IndexObject)>>>, Arc<Mutex<Vec<String>>>);

impl Keeper for Objects {
    fn told(&self, trouble: Trouble) {
        lock(&self.1).push(format!("{trouble:?}"));
    }

    fn refill(&self, take: &mut Take<'_>) -> Result<HashSet<IndexName>> {
        let objects = lock(&self.0);
        objects.iter().try_for_each(|(name, object)| take(name, &SIGNER, object))?;
        Ok(objects.iter().flat_map(|(_, object)| object.supersedes.clone()).collect())
    }
}

impl Objects {
    /// Two objects of three packs.
    fn two() -> Self {
        let objects = Self::default();
        lock(&objects.0).push((A, object(vec![pack(1, 0..100), pack(2, 100..150)])));
        lock(&objects.0).push((B, object(vec![pack(3, 50..60)])));
        objects
    }

    /// The index in a folder, brought up to date.
    fn open(&self, folder: &Path) -> Index {
        let index = Index::open(folder).unwrap().kept(Box::new(self.clone()));
        for (name, object) in &*lock(&self.0) {
            index.add(name, &SIGNER, object).unwrap();
        }
        index
    }

    fn told(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.1))
    }
}

/// Changes the file behind the back of whoever has it open.
fn tamper(folder: &Path, sql: &str) {
    let db = rusqlite::Connection::open(folder.join("index.db")).unwrap();
    db.execute_batch(sql).unwrap();
}

/// The packs of a blob's copies, and their numbers.
fn copies(index: &Index, n: u32) -> Vec<(u8, EntryNumber)> {
    let mut copies: Vec<_> = index.copies(&id(n)).unwrap().iter().map(|c| (c.pack().0[0], c.entry())).collect();
    copies.sort_unstable();
    copies
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
fn another_version_s_file_is_made_anew_without_a_word() {
    let folder = tempfile::tempdir().unwrap();
    let objects = Objects::two();
    objects.open(folder.path());
    tamper(folder.path(), "PRAGMA user_version = 99");
    assert_eq!(copies(&objects.open(folder.path()), 55).len(), 2);
    assert_eq!(objects.told(), Vec::<String>::new());
}

#[test]
fn a_row_that_says_something_else_is_never_believed() {
    for sql in [
        "UPDATE frames SET row = CAST(row || x'00' AS BLOB)",
        "UPDATE frames SET row = (SELECT row FROM frames WHERE no = 4)",
        "UPDATE frames SET row = 7",
        "UPDATE frames SET ids = zeroblob(length(ids))",
        "UPDATE frames SET ids = (SELECT ids FROM frames WHERE no = 4)",
        "UPDATE frames SET ids = x''",
        "UPDATE frames SET ids = 7",
        "UPDATE frames SET pack = 3",
        "UPDATE frames SET first = first + 1",
        "UPDATE frames SET offset = offset + 1",
        "DELETE FROM frames WHERE no = 1",
        "UPDATE packs SET class = 1 WHERE no = 1",
        "UPDATE packs SET first = 2 WHERE no = 1",
        "UPDATE packs SET groups = 0 WHERE no = 1",
        "UPDATE packs SET keys = 0 WHERE no = 1",
        "UPDATE runs SET bits = bits + 1",
        "UPDATE runs SET entries = 0",
        "UPDATE filters SET filter = zeroblob(length(filter))",
        "DELETE FROM filters",
        "DELETE FROM blobs",
        "UPDATE blobs SET block = zeroblob(length(block))",
        "UPDATE blobs SET block = (SELECT block FROM blobs ORDER BY no DESC LIMIT 1)",
        "UPDATE blobs SET block = x''",
        "UPDATE blobs SET block = 7",
        "UPDATE packs SET name = zeroblob(32) WHERE no = 1",
        "UPDATE packs SET size = size + 1 WHERE no = 2",
        "UPDATE packs SET object = 2 WHERE no = 1",
        "DELETE FROM packs WHERE no = 2",
        "DELETE FROM objects WHERE no = 2",
        "UPDATE objects SET signer = zeroblob(32) WHERE no = 2",
        "UPDATE objects SET said = x'0000000000000000' WHERE no = 1",
        "UPDATE objects SET packs = 1 WHERE no = 1",
        "DROP TABLE packs",
        "DROP TABLE objects",
        "DROP TABLE blobs",
        "DROP TABLE frames",
        "DROP TABLE runs",
        "DROP TABLE filters",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let objects = Objects::two();
        let before = objects.open(folder.path());
        let (known, packs, vouched) = (before.objects().unwrap(), before.packs().unwrap(), HashSet::from([SIGNER]));
        let at = copies(&before, 55);
        drop(before);
        tamper(folder.path(), sql);
        // The cache of entries is the process's own: another one reads the file.
        let index = Index::open(folder.path()).unwrap().kept(Box::new(objects.clone()));
        assert_eq!(
            index.objects().unwrap().len(),
            if sql.starts_with("DELETE FROM objects") { 1 } else { 2 },
            "{sql}"
        );
        let mut found = index.packs().unwrap();
        found.sort_by_key(|p| p.name);
        assert_eq!(found.len(), packs.len(), "{sql}");
        for (found, pack) in found.iter().zip(&packs) {
            assert_eq!((found.name, found.size, found.signer), (pack.name, pack.size, pack.signer), "{sql}");
        }
        let names = |copies: Vec<(u8, EntryNumber)>| copies.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(copies(&index, 55)), names(at), "{sql}");
        assert_eq!(names(copies(&index, 120)), [2], "{sql}");
        assert_eq!(index.objects().unwrap().len(), known.len(), "{sql}");
        assert!(index.vouched(&vouched).unwrap().contains(&VOUCHED), "{sql}");
        let told = objects.told();
        assert!(told.len() == 1 && told[0].starts_with("Damaged"), "{sql}: {told:?}");
        drop(index);
        // The next one makes the file anew, and says so; the one after has nothing to say.
        drop(objects.open(folder.path()));
        assert_eq!(objects.told().len(), 1, "{sql}");
        assert_eq!(names(copies(&objects.open(folder.path()), 55)), [1, 3], "{sql}");
        assert_eq!(objects.told(), Vec::<String>::new(), "{sql}");
    }
}

#[test]
fn a_file_damaged_in_use_is_mended_and_entries_keep_their_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let objects = Objects::two();
    drop(objects.open(folder.path()));
    let index = Index::open(folder.path()).unwrap().kept(Box::new(objects.clone()));
    let before: Vec<EntryNumber> = index.packs().unwrap().iter().map(|p| p.number).collect();
    tamper(folder.path(), "UPDATE frames SET row = zeroblob(50) WHERE pack = 1");
    assert_eq!(copies(&index, 55), [(1, before[0]), (3, before[2])]);
    assert_eq!(objects.told().len(), 1);
    // What is added now has a number that nothing had.
    let number = index.add(&IndexName([9; 32]), &SIGNER, &object(vec![pack(4, 200..210)])).unwrap();
    assert!(!before.contains(&number[0]));
    assert_eq!(copies(&index, 205), [(4, number[0])]);
}

/// Empties the map, as a fault of the program could: every hash is right.
fn lose_blobs(folder: &Path) {
    let db = rusqlite::Connection::open(folder.join("index.db")).unwrap();
    let mut query = db.prepare("SELECT no FROM blobs").unwrap();
    for no in query.query_map([], |row| row.get::<_, i64>(0)).unwrap() {
        let no = no.unwrap();
        db.execute("UPDATE blobs SET block = ?2 WHERE no = ?1", (no, closing::sum(&[no], &[&[]]))).unwrap();
    }
}

#[test]
fn a_blob_that_the_file_lost_is_found_by_asking_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let objects = Objects::two();
    drop(objects.open(folder.path()));
    lose_blobs(folder.path());
    let index = Index::open(folder.path()).unwrap().kept(Box::new(objects.clone()));
    assert!(index.copies(&id(5)).unwrap().is_empty());
    assert!(
        index.find(&id(5), &mut Hint::default(), |_| Ok(true)).unwrap().is_none(),
        "for whoever stores, that will do"
    );
    assert_eq!(objects.told(), Vec::<String>::new());
    assert!(index.find_surely(&id(5), |_| Ok(true)).unwrap().is_some());
    assert_eq!(objects.told().len(), 1);
    assert!(!index.renew().unwrap(), "it came from the store just now");
    drop(index);
    assert_eq!(copies(&objects.open(folder.path()), 55).len(), 2);
}

#[test]
fn a_blob_that_is_nowhere_does_not_cost_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let objects = Objects::two();
    drop(objects.open(folder.path()));
    let index = Index::open(folder.path()).unwrap().kept(Box::new(objects.clone()));
    assert!(index.find_surely(&id(1000), |_| Ok(true)).unwrap().is_none());
    drop(index);
    assert_eq!(copies(&Index::open(folder.path()).unwrap(), 55).len(), 2);
    assert_eq!(objects.told(), Vec::<String>::new());
}

#[test]
fn a_damaged_file_is_not_taken_away_from_who_has_it_open() {
    let folder = tempfile::tempdir().unwrap();
    let objects = Objects::two();
    let first = objects.open(folder.path());
    tamper(folder.path(), "UPDATE frames SET row = zeroblob(50) WHERE pack = 1");
    let second = Index::open(folder.path()).unwrap().kept(Box::new(objects.clone()));
    assert_eq!(copies(&second, 55).len(), 2);
    let third = objects.open(folder.path());
    assert_eq!(copies(&third, 55).len(), 2, "marked, and still open: the third goes without");
    drop((second, third));
    let inode = || std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(folder.path().join("index.db")).unwrap());
    let before = inode();
    assert_eq!(copies(&first, 120).len(), 1);
    assert_eq!(inode(), before);
    assert!(folder.path().join("index.damaged").exists());
    drop(first);
    assert_eq!(copies(&objects.open(folder.path()), 55).len(), 2);
    assert!(!folder.path().join("index.damaged").exists());
}

#[test]
fn without_a_keeper_damage_is_an_error_and_not_another_place() {
    let folder = tempfile::tempdir().unwrap();
    Index::open(folder.path()).unwrap().add(&A, &SIGNER, &object(vec![pack(1, 0..100)])).unwrap();
    tamper(folder.path(), "UPDATE frames SET row = CAST(row || x'00' AS BLOB)");
    assert!(Index::open(folder.path()).unwrap().copies(&id(5)).is_err());
}

/// Half an id is right, and finds it: the rest may have rotted all the same.
#[test]
fn the_other_half_of_an_id_is_not_believed_either() {
    fn found(copies: impl IntoIterator<Item = BlobCopy>) -> Vec<BlobId> {
        copies.into_iter().map(|copy| copy.id()).collect()
    }
    /// Another blob was found before: its group is where is looked first.
    fn hint(index: &Index) -> Hint {
        let mut hint = Hint::default();
        assert!(index.find(&id(51), &mut hint, any).unwrap().is_some());
        hint
    }
    fn any(_: &BlobCopy) -> Result<bool> {
        Ok(true)
    }
    type Ask = fn(&Index) -> Vec<BlobId>;
    let asked: [(&str, Ask); 6] = [
        ("copies", |index| found(index.copies(&id(50)).unwrap())),
        ("copies of a base", |index| found(index.base_copies(&id(50).base()).unwrap())),
        ("surely", |index| found(index.find_surely(&id(50), any).unwrap())),
        ("a base, surely", |index| found(index.find_base_surely(&id(50).base(), any).unwrap())),
        ("with a hint", |index| found(index.find(&id(50), &mut hint(index), any).unwrap())),
        ("a base, with a hint", |index| found(index.find_base(&id(50).base(), &mut hint(index), any).unwrap())),
    ];
    for (what, ask) in asked {
        let (folder, objects) = (tempfile::tempdir().unwrap(), Objects::default());
        lock(&objects.0).push((A, object(vec![pack(1, 50..60)])));
        drop(objects.open(folder.path()));
        let half = "substr(ids, 1, 16) || zeroblob(16) || substr(ids, 33)";
        tamper(folder.path(), &format!("UPDATE frames SET ids = CAST({half} AS BLOB)"));
        let index = Index::open(folder.path()).unwrap().kept(Box::new(objects.clone()));
        assert_eq!(ask(&index), [id(50)], "{what}");
        assert_eq!(objects.told().len(), 1, "{what}");
    }
}

#[test]
fn a_pack_that_an_object_names_twice_does_no_harm() {
    let objects = Objects::default();
    lock(&objects.0).push((A, object(vec![pack(1, 0..10), pack(1, 0..10)])));
    let folder = tempfile::tempdir().unwrap();
    drop(objects.open(folder.path()));
    let index = objects.open(folder.path());
    assert_eq!(copies(&index, 5).len(), 2);
    tamper(folder.path(), "UPDATE frames SET row = x''");
    let again = Index::open(folder.path()).unwrap().kept(Box::new(objects.clone()));
    assert_eq!(copies(&again, 5).len(), 2, "one of the two has another number now");
}

#[test]
fn what_was_removed_gives_its_room_back() {
    let folder = tempfile::tempdir().unwrap();
    let index = Index::open(folder.path()).unwrap();
    for n in 0..4u8 {
        let first = u32::from(n) * 100_000;
        index.add(&IndexName([n; 32]), &SIGNER, &object(vec![pack(n, first..first + 100_000)])).unwrap();
    }
    drop(index);
    let size = || std::fs::metadata(folder.path().join("index.db")).unwrap().len();
    let large = size();
    assert!(large > 12_000_000, "{large}");
    Index::open(folder.path()).unwrap().remove(&[0, 1, 2].map(|n| IndexName([n; 32]))).unwrap();
    assert!(size() < large / 2, "{} of {large}", size());
    assert_eq!(Index::open(folder.path()).unwrap().copies(&id(300_001)).unwrap().len(), 1);
    assert!(Index::open(folder.path()).unwrap().copies(&id(200_001)).unwrap().is_empty());
}

#[test]
fn the_cache_stays_bounded() {
    let index = Index::in_memory().unwrap();
    let many = limits::INDEX_CACHE_BLOBS as u32 / 4;
    for n in 0..6u32 {
        let object = object(vec![pack(n as u8, n * many..(n + 1) * many)]);
        let number = index.add(&IndexName([n as u8; 32]), &SIGNER, &object).unwrap()[0];
        let pack = index.pack(number).unwrap().unwrap();
        assert_eq!((pack.blobs(), pack.places().count()), (many as usize, many as usize));
        assert!(lock(&index.cache).packs.weight() <= limits::INDEX_CACHE_BLOBS);
    }
    for n in 0..6 * many {
        assert_eq!(index.copies(&id(n)).unwrap().len(), 1);
    }
    assert!(lock(&index.cache).groups.weight() <= limits::INDEX_CACHE_BLOBS);
}

#[test]
fn a_file_without_its_secret_is_made_anew() {
    for sql in ["UPDATE secret SET secret = zeroblob(32)", "DELETE FROM secret", "DROP TABLE secret"] {
        let folder = tempfile::tempdir().unwrap();
        let objects = Objects::two();
        drop(objects.open(folder.path()));
        tamper(folder.path(), sql);
        assert_eq!(copies(&objects.open(folder.path()), 55).len(), 2, "{sql}");
        assert_eq!(objects.told().len(), 1, "{sql}");
    }
}

/// Delta frames of one blob each, on a base of their own.
fn deltas(name: u8, blobs: std::ops::Range<u32>) -> PackEntry {
    let mut entry = pack(name, blobs);
    let frames = std::mem::take(&mut entry.directory.frames);
    for frame in frames {
        for (id, len) in frame.ids.iter().zip(&frame.lens) {
            let bases = vec![BaseId([id.0[0]; 16])];
            entry.directory.frames.push(Frame {
                depth: 1,
                stored: 300,
                bases,
                lens: vec![*len],
                ids: vec![*id],
                ..frame
            });
        }
    }
    PackEntry { size: entry.directory.frames_end() + 500, ..entry }
}

#[test]
fn a_plain_copy_is_preferred_wherever_the_hint_points() {
    let index = Index::in_memory().unwrap();
    index.add(&A, &SIGNER, &object(vec![deltas(1, 0..200)])).unwrap();
    let mut hint = Hint::default();
    let mut find = |n| index.find(&id(n), &mut hint, |_| Ok(true)).unwrap().unwrap();
    for n in 0..150 {
        let copy = find(n);
        assert_eq!((copy.pack().0[0], copy.frame_number(), copy.at()), (1, n, 0));
        assert_eq!((copy.depth(), copy.frame().bases.len(), copy.size()), (1, 1, 100));
        assert_eq!(copy.offset(), crate::format::pack::FRAMES_AT + 300 * u64::from(n));
    }
    index.add(&B, &SIGNER, &object(vec![pack(2, 100..200)])).unwrap();
    for n in (100..200).chain(100..200) {
        assert_eq!(find(n).pack().0[0], 2);
        let copies = index.copies(&id(n)).unwrap();
        assert_eq!(copies.iter().map(|c| (c.pack().0[0], c.frame().depth)).collect::<Vec<_>>(), [(2, 0), (1, 1)]);
    }
}

#[test]
fn the_order_of_a_stream_is_found_in_groups_of_any_size() {
    let index = Index::in_memory().unwrap();
    let mut entry = pack(1, 0..3000);
    let ids: Vec<BlobId> = (0..3000).map(id).collect();
    entry.directory.frames.truncate(3);
    for (frame, ids) in entry.directory.frames.iter_mut().zip([&ids[..100], &ids[100..400], &ids[400..]]) {
        frame.lens = vec![7; ids.len()];
        frame.ids = ids.to_vec();
    }
    index.add(&A, &SIGNER, &object(vec![entry])).unwrap();
    let mut hint = Hint::default();
    for n in (0..3000).chain((0..3000).rev()) {
        let copy = index.find(&id(n), &mut hint, |_| Ok(true)).unwrap().unwrap();
        let (frame, from) = if n < 100 {
            (0, 0)
        } else if n < 400 {
            (1, 100)
        } else {
            (2, 400)
        };
        assert_eq!((copy.frame_number(), copy.at()), (frame, (n - from) * 7));
        assert!(index.find(&id(n + 3000), &mut hint, |_| Ok(true)).unwrap().is_none());
    }
}

#[test]
fn an_id_that_stands_often_is_found_at_every_place() {
    let index = Index::in_memory().unwrap();
    let mut entry = pack(1, 0..100);
    for frame in &mut entry.directory.frames {
        frame.ids[3] = id(5);
        frame.ids[4] = id(5);
    }
    let number = index.add(&A, &SIGNER, &object(vec![entry])).unwrap()[0];
    let places: HashSet<_> =
        index.copies(&id(5)).unwrap().iter().map(|c| (c.frame_number(), c.at(), c.size())).collect();
    let pack = index.pack(number).unwrap().unwrap();
    let all = pack.places().filter(|(i, _)| **i == id(5)).map(|(_, p)| (p.frame, p.at, p.len));
    assert_eq!((places.len(), places), (21, all.collect()));
    index.remove(&[A]).unwrap();
    assert!(index.copies(&id(5)).unwrap().is_empty());
}

#[test]
fn small_objects_without_number_stay_few_runs() {
    let folder = tempfile::tempdir().unwrap();
    let index = Index::open(folder.path()).unwrap();
    let name = |n: u32| IndexName(id(n).0);
    for n in 0..201u32 {
        index.add(&name(n), &SIGNER, &object(vec![pack(n as u8, n * 20..n * 20 + 20)])).unwrap();
        // What is gone meanwhile is left out of the map, sooner or later.
        if n % 3 == 2 {
            index.remove(&[name(n - 1)]).unwrap();
        }
    }
    let db = rusqlite::Connection::open(folder.path().join("index.db")).unwrap();
    let (runs, entries): (i64, i64) =
        db.query_row("SELECT count(*), sum(entries) FROM runs", [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert!(runs < 4 && entries < 134 * 20 * 4 / 3 + 20, "{runs} runs, {entries} entries");
    let found = |index: &Index, n: u32| index.copies(&id(n)).unwrap().len();
    for index in [index, Index::open(folder.path()).unwrap()] {
        (0..4020).for_each(|n| assert_eq!(found(&index, n), usize::from(n / 20 % 3 != 1), "{n}"));
    }
}

#[test]
fn what_another_process_adds_merges_and_drops_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (Index::open(folder.path()).unwrap(), Index::open(folder.path()).unwrap());
    assert!(one.copies(&id(0)).unwrap().is_empty());
    for n in 0..10u32 {
        two.add(&IndexName([n as u8; 32]), &SIGNER, &object(vec![pack(n as u8, n * 10..n * 10 + 10)])).unwrap();
        for m in 0..=n {
            assert_eq!(one.copies(&id(m * 10 + 3)).unwrap().len(), 1, "{m} of {n}");
        }
    }
    let mut hint = Hint::default();
    let mut find = |n| one.find(&id(n), &mut hint, |_| Ok(true)).unwrap().is_some();
    assert!(find(5));
    two.add(&IndexName([60; 32]), &SIGNER, &object(vec![pack(50, 500..510)])).unwrap();
    one.objects().unwrap();
    assert!(find(505), "asking for objects looks again");
    two.remove(&(0..9).map(|n| IndexName([n; 32])).collect::<Vec<_>>()).unwrap();
    assert!(one.copies(&id(93)).unwrap().len() == 1 && one.copies(&id(33)).unwrap().is_empty());
}
