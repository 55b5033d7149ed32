//! Packs that hold what others rest on, lost or damaged: what is new is stored all the same, what is
//! lost is told, and what only rests on it is told with it.

use super::{deltas, restored, rows, touched};
use crate::support::{Place, change, files_below, noise};
use crate::world::{FULL, KNOWN, World, put};
use estrato::format::pack::BlobKind;
use estrato::repo::{Session, Stored};
use estrato::snapshot::{Folder, find, leaves};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;

/// The larger of the packs that are not among these: that of data.
fn data_pack(place: &Place, before: &[PathBuf]) -> PathBuf {
    let new = place.objects("packs").into_iter().filter(|pack| !before.contains(pack));
    new.max_by_key(|pack| fs::metadata(pack).unwrap().len()).unwrap()
}

fn name(pack: &std::path::Path) -> &str {
    pack.file_name().unwrap().to_str().unwrap()
}

/// A place with three snapshots of a table, of which each changes every piece and rests on the one
/// before, and of a file that stands still; and the pack on which all rest.
struct Chain {
    place: Place,
    taken: Vec<(Value, Vec<u8>)>,
    base: PathBuf,
}

impl Chain {
    fn new() -> Self {
        let place = Place::with_repository();
        place.write("source/still", noise("still", 150_000));
        let table = rows(0, 6_000, "table");
        let mut chain = Self { place, taken: Vec::new(), base: PathBuf::new() };
        chain.snapshot(table);
        chain.base = data_pack(&chain.place, &[]);
        for _ in 0..2 {
            chain.snapshot(touched(&chain.taken.last().unwrap().1, 2_000));
        }
        assert!(deltas(&chain.place, "chunks") >= 2);
        chain
    }

    fn snapshot(&mut self, table: Vec<u8>) {
        self.place.write("source/table", &table);
        self.taken.push((self.place.snapshot(&[]), table));
    }

    /// The next snapshot, which must succeed and warn of the pack.
    #[track_caller]
    fn warned(&mut self) -> String {
        let table = touched(&self.taken.last().unwrap().1, 2_000);
        self.place.write("source/table", &table);
        let mut command = self.place.command_in("source", &["snapshot", ".", "--json"]);
        let ran = crate::support::Ran::of(&mut command).expect_code(0);
        assert!(ran.stderr().contains(name(&self.base)), "no warning of {}: {}", name(&self.base), ran.stderr());
        self.taken.push((ran.json(), table));
        ran.stderr()
    }

    /// Restores a snapshot of which files are lost; what was told.
    #[track_caller]
    fn partial(&self, at: usize) -> String {
        let id = self.taken[at].0["snapshot"].as_str().unwrap();
        let told = self.place.run(&["restore", id, "--target", "partial"]).expect_code(1).stderr();
        assert!(told.contains(name(&self.base)), "snapshot {at}: {told}");
        assert!(!self.place.path("partial/table").exists(), "nothing wrong is left");
        told
    }

    /// What a check says is wrong with the pack, and which paths of which snapshots need it.
    #[track_caller]
    fn checked(&self, arguments: &[&str]) -> Vec<(usize, Vec<String>)> {
        let report = self.place.run(&[&["check", "--json"], arguments].concat()).expect_code(4).json();
        let damage = report["damage"].as_array().unwrap();
        let object = |d: &&Value| d["object"].as_str().unwrap().ends_with(name(&self.base));
        assert_eq!(damage.len(), 1, "nothing else is damaged: {report}");
        let pack = damage.iter().find(object).unwrap_or_else(|| panic!("{} in {report}", name(&self.base)));
        let needed = |at: usize| {
            let needed = &pack["needed_by"][self.taken[at].0["snapshot"].as_str().unwrap()]["paths"];
            needed.as_array().map(|paths| paths.iter().map(|p| p.as_str().unwrap().to_owned()).collect())
        };
        (0..self.taken.len()).filter_map(|at| Some((at, needed(at)?))).collect()
    }
}

#[test]
fn where_the_pack_of_bases_is_lost_everything_is_stored_again_and_what_is_gone_is_told() {
    let mut chain = Chain::new();
    fs::remove_file(&chain.base).unwrap();
    let all = |n: usize| (0..n).map(|at| (at, vec!["/still".to_owned(), "/table".to_owned()])).collect::<Vec<_>>();
    for arguments in [&[][..], &["--read-data"]] {
        assert_eq!(chain.checked(arguments), all(3), "{arguments:?}");
    }
    (0..3).for_each(|at| drop(chain.partial(at)));
    chain.warned();
    let (newest, table) = &chain.taken[3];
    assert!(restored(&chain.place, newest, "table") == *table);
    assert!(fs::read(chain.place.path("out/still")).unwrap() == noise("still", 150_000));
    // What stands still is there again; what only rested on the lost pack is not.
    let tables: Vec<_> = (0..3).map(|at| (at, vec!["/table".to_owned()])).collect();
    for arguments in [&[][..], &["--read-data"]] {
        assert_eq!(chain.checked(arguments), tables, "{arguments:?}");
    }
    (0..3).for_each(|at| drop(chain.partial(at)));
}

#[test]
fn where_a_bit_of_the_pack_of_bases_has_flipped_what_is_new_is_stored_whole() {
    // Every frame of it: bits in the middle of each half megabyte.
    let mut chain = Chain::new();
    change(&chain.base, |bytes| {
        let end = bytes.len() - 3_000;
        bytes[2_000..end].iter_mut().step_by(20_000).for_each(|b| *b ^= 1);
    });
    // Without --read-data nobody has looked inside.
    chain.place.run(&["check"]).expect_code(0);
    let told = chain.warned();
    assert_eq!(told.matches(name(&chain.base)).count(), 1, "it is told once: {told}");
    // The table is new from end to end; the other file is not, and is what it was: lost.
    let told = chain.partial_but_table(3);
    assert!(told.contains("still"), "{told}");
    let needed = chain.checked(&["--read-data"]);
    let both = |at| (at, vec!["/still".to_owned(), "/table".to_owned()]);
    assert_eq!(needed, [both(0), both(1), both(2), (3, vec!["/still".to_owned()])]);
    (0..3).for_each(|at| drop(chain.partial(at)));
}

/// Of a long stream the lists say where its blobs stood: without them nobody knows what is replaced.
#[test]
fn where_the_lists_of_the_stream_before_are_damaged_it_is_stored_whole() {
    let place = Place::with_repository();
    // So many pieces that they need a list, however they are cut.
    let first = rows(0, 24_000, "table");
    place.write("source/table", &first);
    place.snapshot(&[]);
    let data = data_pack(&place, &[]);
    let trees = place.objects("packs").into_iter().find(|pack| *pack != data).unwrap();
    change(&trees, |bytes| {
        let end = bytes.len() - 300;
        bytes[1_176..end].iter_mut().step_by(100).for_each(|b| *b ^= 1);
    });
    let second = touched(&first, 2_000);
    place.write("source/table", &second);
    let ran = crate::support::Ran::of(&mut place.command_in("source", &["snapshot", ".", "--json"])).expect_code(0);
    assert!(ran.stderr().contains(name(&trees)), "{}", ran.stderr());
    assert_eq!(deltas(&place, "chunks"), 0);
    assert!(restored(&place, &ran.json(), "table") == second);
    // And the next one goes along what is whole again.
    place.write("source/table", touched(&second, 2_000));
    let third = place.snapshot(&[]);
    assert!(deltas(&place, "chunks") > 0);
    assert!(restored(&place, &third, "table") == touched(&second, 2_000));
}

impl Chain {
    /// Restores a snapshot of which only the other file is lost; what was told.
    #[track_caller]
    fn partial_but_table(&self, at: usize) -> String {
        let (taken, table) = &self.taken[at];
        let id = taken["snapshot"].as_str().unwrap();
        let told = self.place.run(&["restore", id, "--target", "new"]).expect_code(1).stderr();
        assert!(told.contains(name(&self.base)), "{told}");
        assert!(fs::read(self.place.path("new/table")).unwrap() == *table);
        told
    }
}

/// A pack in the middle of a chain: what is below it stays, what is above it goes.
#[test]
fn a_lost_pack_of_deltas_costs_what_rests_on_it_and_nothing_below() {
    let mut chain = Chain::new();
    let before = chain.place.objects("packs");
    // More than the pack of trees, which is new too.
    let next = [touched(&chain.taken[2].1, 2_000), noise("end", 20_000)].concat();
    chain.snapshot(next);
    chain.base = data_pack(&chain.place, &before);
    fs::remove_file(&chain.base).unwrap();
    assert_eq!(chain.checked(&[]), [(3, vec!["/table".to_owned()])]);
    for at in 0..3 {
        let (taken, table) = &chain.taken[at];
        assert!(restored(&chain.place, taken, "table") == *table, "snapshot {at}");
    }
    // And the same source again, unchanged: it is stored again, and so snapshot 3 is whole too.
    let table = chain.taken[3].1.clone();
    chain.snapshot_of(&table);
    for at in [3, 4] {
        assert!(restored(&chain.place, &chain.taken[at].0, "table") == table, "snapshot {at}");
    }
}

impl Chain {
    /// Takes another snapshot, whatever it warns of.
    #[track_caller]
    fn snapshot_of(&mut self, table: &[u8]) {
        self.place.write("source/table", table);
        let document = self.place.snapshot(&[]);
        self.taken.push((document, table.to_vec()));
    }
}

#[test]
fn a_copy_whose_bases_do_not_count_is_stored_again() {
    let world = World::today();
    let folder = tempfile::tempdir().unwrap();
    let repo = world.open(FULL);
    let file = folder.path().join("table");
    // Two versions of few pieces: the second rests on the first.
    let first = rows(0, 300, "table");
    fs::write(&file, &first).unwrap();
    world.backup(&repo, folder.path());
    let [base] = &crate::world::packs(&repo).into_iter().filter(|p| holds_chunks(&repo, p)).collect::<Vec<_>>()[..]
    else {
        panic!("one pack of chunks")
    };
    fs::write(&file, touched(&first, 1000)).unwrap();
    let (id, manifest, _) = world.backup(&repo, folder.path());
    let node = find(&repo, &manifest.root, file.to_str().unwrap().as_bytes()).unwrap().unwrap();
    let ids: Vec<_> = leaves(&repo, &node.content).map(|leaf| leaf.unwrap().id.unwrap()).collect();
    for id in &ids {
        let depths: Vec<u8> = repo.index().copies(id).unwrap().iter().map(|copy| copy.depth()).collect();
        assert_eq!(depths, [1]);
    }
    let blobs: Vec<Vec<u8>> = ids.iter().map(|id| repo.blob(BlobKind::Chunk, id).unwrap()).collect();
    let stored = |cache: &std::path::Path| {
        let repo = world.open_with(FULL, Some(cache.to_path_buf()));
        let session = Session::begin(&repo, "host").unwrap();
        let stored = put(&session, &blobs).unwrap();
        session.abandon();
        stored
    };
    let cache = tempfile::tempdir().unwrap();
    assert!(stored(cache.path()).iter().all(|s| *s == KNOWN[0]));
    let names = repo.names();
    use estrato::store::Store as _;
    world.store.delete(&names.pack(base)).unwrap();
    assert!(stored(cache.path()).iter().all(|s| *s == Stored::New), "on a machine that knew the base");
    // Now there is a plain copy beside the delta.
    assert!(stored(cache.path()).iter().all(|s| *s == KNOWN[0]));
    assert!(world.try_restore(&world.open(FULL), &id, folder.path()).failures == 0);
    assert!(files_below(folder.path()).len() == 1 && Folder::new(&repo, &manifest.root).count() == 1);
}

/// True if a pack holds chunks.
fn holds_chunks(repo: &estrato::repo::Repository, name: &estrato::id::PackName) -> bool {
    repo.index().packs().unwrap().iter().filter(|known| known.name == *name).any(|known| {
        let pack = repo.index().pack(known.number).unwrap().unwrap();
        pack.frames().iter().any(|(_, frame)| frame.kind == BlobKind::Chunk)
    })
}
