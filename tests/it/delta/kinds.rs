//! What a full and a differential snapshot rest on: on plain copies of everything, and on nothing
//! that is deeper than one delta.

use super::{rows, touched};
use crate::support::noise;
use crate::world::{FULL, World, contents, options};
use estrato::backup::{self, Options, Selection, Source};
use estrato::format::content::Content;
use estrato::format::manifest::SnapshotKind;
use estrato::format::node::Kind;
use estrato::format::pack::BlobKind;
use estrato::id::{BlobId, PackName, SnapshotId};
use estrato::monitor::Silent;
use estrato::repo::Repository;
use estrato::snapshot::{Folder, leaves, lists_at};
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Every blob that a snapshot uses.
fn blobs(repo: &Repository, id: &SnapshotId) -> HashSet<BlobId> {
    let object = repo.snapshot(id).unwrap();
    let mut found = HashSet::new();
    let mut folders = vec![object.manifest().unwrap().root.clone()];
    let all = |content: &Content, found: &mut HashSet<BlobId>| {
        for level in 1..=content.level {
            found.extend(lists_at(repo, content, level).map(|list| list.unwrap().id.unwrap()));
        }
        found.extend(leaves(repo, content).filter_map(|leaf| leaf.unwrap().id));
    };
    while let Some(folder) = folders.pop() {
        all(&folder, &mut found);
        for node in Folder::new(repo, &folder).map(Result::unwrap) {
            match node.kind {
                Kind::Dir => folders.push(node.content),
                _ => all(&node.content, &mut found),
            }
        }
    }
    found
}

/// The depth of the copy of a blob that rests on the fewest others.
fn depth(repo: &Repository, id: &BlobId) -> u8 {
    repo.index().copies(id).unwrap().iter().map(|copy| copy.depth()).min().unwrap()
}

/// The deepest frame of each kind of blob in packs that were not there before.
fn deepest_new(repo: &Repository, before: &HashSet<PackName>) -> BTreeMap<u8, u8> {
    let mut deepest = BTreeMap::new();
    for pack in repo.index().packs().unwrap().iter().filter(|pack| !before.contains(&pack.name)) {
        for (_, frame) in repo.index().pack(pack.number).unwrap().unwrap().frames() {
            let of = deepest.entry(frame.kind as u8).or_insert(0);
            *of = frame.depth.max(*of);
        }
    }
    deepest
}

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// A source that changes, and its snapshots.
struct Changing {
    world: World,
    folder: tempfile::TempDir,
    cache: tempfile::TempDir,
    taken: Vec<(SnapshotId, Files)>,
}

impl Changing {
    /// Rows that need content lists, something that does not compress, and a folder of many entries; and
    /// then five changes of it, each of which makes chains deeper.
    fn new() -> Self {
        let world = World::today();
        let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        };
        write("table", &rows(0, 30_000, "table"));
        write("a/image", &noise("image", 400_000));
        (0..300).for_each(|n| write(&format!("many/{n:04}"), b"small"));
        let mut changing = Self { world, folder, cache, taken: Vec::new() };
        changing.snapshot(SnapshotKind::Incremental);
        (0..5).for_each(|_| {
            changing.change();
            changing.snapshot(SnapshotKind::Incremental);
        });
        changing
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn repo(&self) -> Repository {
        let repo = self.world.open(FULL);
        repo.sync_index().unwrap();
        repo
    }

    /// Changes all pieces of the table, one entry of many, and a byte of what does not compress.
    fn change(&self) {
        let change = |name: &str, how: &dyn Fn(&[u8]) -> Vec<u8>| {
            let path = self.path().join(name);
            fs::write(&path, how(&fs::read(&path).unwrap())).unwrap();
        };
        // More than the part of a run from on which chains grow, and always other rows.
        let shift = self.taken.len() * 2_500 % 32_000;
        change("table", &|bytes| {
            let mut bytes = bytes.to_vec();
            for (n, block) in bytes[shift..].chunks_mut(32_000).enumerate() {
                let new = rows(n, 22, &format!("{shift} {n}"));
                block.iter_mut().zip(new).for_each(|(b, new)| *b = new);
            }
            bytes
        });
        change("a/image", &|bytes| touched(bytes, 200_001));
        change("many/0150", &|bytes| [bytes, b" and more"].concat());
    }

    fn snapshot(&mut self, kind: SnapshotKind) -> SnapshotId {
        let repo = self.world.open_with(FULL, Some(self.cache.path().to_path_buf()));
        let source = Source::Files(Selection::new(&[self.path().to_path_buf()]).unwrap());
        let outcome = backup::run(&repo, source, &Options { kind, ..options() }, &Silent).unwrap();
        self.world.clock.forward(60);
        let id = outcome.snapshot.unwrap();
        self.taken.push((id, contents(self.path())));
        id
    }

    /// Takes a snapshot of this kind; its blobs by the depth of their best copy, and the deepest of the
    /// frames that it has made.
    fn depths(&mut self, kind: SnapshotKind) -> (BTreeMap<u8, usize>, BTreeMap<u8, u8>) {
        let before = self.repo().index().packs().unwrap().iter().map(|pack| pack.name).collect();
        let id = self.snapshot(kind);
        let repo = self.repo();
        let mut depths = BTreeMap::new();
        blobs(&repo, &id).iter().for_each(|id| *depths.entry(depth(&repo, id)).or_default() += 1);
        (depths, deepest_new(&repo, &before))
    }

    #[track_caller]
    fn all_come_back(&self) {
        let repo = self.repo();
        for (id, files) in &self.taken {
            self.world.restores(&repo, id, files, self.path());
        }
    }
}

#[test]
fn a_full_snapshot_has_a_plain_copy_of_everything_it_uses() {
    let mut changing = Changing::new();
    let (repo, before) = (changing.repo(), changing.taken.last().unwrap().0);
    assert!(blobs(&repo, &before).iter().any(|id| depth(&repo, id) > 1), "there are chains");
    // Of what has not changed since the chains, of what has, and once more of what is plain already.
    let (depths, new) = changing.depths(SnapshotKind::Full);
    assert_eq!((depths.keys().max(), new.values().max()), (Some(&0), Some(&0)), "{depths:?} {new:?}");
    changing.change();
    let (depths, new) = changing.depths(SnapshotKind::Full);
    assert_eq!((depths.keys().max(), new.values().max()), (Some(&0), Some(&0)), "{depths:?} {new:?}");
    let (depths, new) = changing.depths(SnapshotKind::Full);
    assert_eq!((depths.keys().max(), new.get(&(BlobKind::Chunk as u8))), (Some(&0), None), "{depths:?} {new:?}");
    // Chains begin anew on it.
    changing.change();
    // What comes back by chance from before the full one may still lie deeper: it is not new.
    let (depths, new) = changing.depths(SnapshotKind::Incremental);
    assert_eq!(new.values().max(), Some(&1), "{depths:?} {new:?}");
    changing.all_come_back();
}

#[test]
fn a_differential_snapshot_rests_on_nothing_but_plain_copies() {
    let mut changing = Changing::new();
    for changes in [false, true, true] {
        if changes {
            changing.change();
        }
        let (depths, new) = changing.depths(SnapshotKind::Differential);
        assert_eq!(depths.keys().max(), Some(&1), "{depths:?}");
        assert!(new.values().all(|depth| *depth <= 1) && new.get(&(BlobKind::Chunk as u8)) == Some(&1), "{new:?}");
    }
    changing.all_come_back();
}

#[test]
fn chains_end() {
    let mut changing = Changing::new();
    for _ in 0..8 {
        changing.change();
        changing.snapshot(SnapshotKind::Incremental);
    }
    let repo = changing.repo();
    let deepest = deepest_new(&repo, &HashSet::new());
    // Chunks, and the trees above them, as deep as the writer makes them and no deeper.
    assert_eq!((deepest[&0], deepest[&1]), (8, 12), "{deepest:?}");
    assert!(deepest[&2] <= 12, "{deepest:?}");
    changing.all_come_back();
}
