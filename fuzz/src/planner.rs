//! The planner of restores, and the writing of what it plans: a tree, content
//! lists and entries of the index that are made up, restored to a folder in
//! memory. Nothing may be made outside it, and every end is an outcome or an
//! error.

use super::Seeds;
use super::hostile::{self, DATA_PACK, Hostile, ID_OF, Item, LIES_FIRST, SHARED_FRAMES, id_of};
use super::walker::{self, walk};
use estrato::error::Error;
use estrato::format::content::Content;
use estrato::format::index::PackEntry;
use estrato::format::node::{Kind, Node};
use estrato::format::pack::{BlobKind, Codec, Directory, FRAMES_AT, Frame, StorageClass};
use estrato::id::PackName;
use estrato::limits;
use estrato::monitor::Silent;
use estrato::repo::Repository;
use estrato::restore::{self, Options, Outcome};
use std::fs;
use std::path::{Path, PathBuf};

/// Entries that an input may restore.
const ENTRIES_MAX: usize = 200;
/// Bytes that an input may restore.
const BYTES_MAX: u64 = 1 << 20;

/// Options, beside those of the repository: compare what was written.
pub const VERIFY: u8 = 4;
/// Remove what is not in the snapshot.
pub const DELETE: u8 = 8;
/// Only look.
pub const DRY_RUN: u8 = 16;
/// Do it twice: the second time everything is there.
pub const TWICE: u8 = 32;
/// Change a file in between.
pub const DISTURBED: u8 = 64;

/// A folder with a target in it, and something that must stay as it is.
pub struct Place {
    folder: tempfile::TempDir,
}

const SENTINEL: &[u8] = b"not to be touched";

impl Place {
    /// In memory, where there is such a file system.
    pub fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        fs::write(folder.path().join("outside"), SENTINEL).unwrap();
        fs::create_dir(folder.path().join("target")).unwrap();
        Self { folder }
    }

    /// Where to restore to.
    pub fn target(&self) -> PathBuf {
        self.folder.path().join("target")
    }

    fn holds_no_more(&self) {
        let mut names: Vec<_> = fs::read_dir(self.folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["outside", "target"], "something was made outside the target");
        assert_eq!(fs::read(self.folder.path().join("outside")).unwrap(), SENTINEL, "a file outside was written");
    }
}

/// Restores what lies below a root; errors that a store or a disk would have are findings.
pub fn restored(repo: &Repository, root: &Content, place: &Place, options: &Options) -> Outcome {
    let outcome = restore::run(repo, root, None, &place.target(), options, &Silent);
    place.holds_no_more();
    match outcome {
        Ok(outcome) => outcome,
        // Nothing that an input says is a failing store.
        Err(e @ (Error::Store(_) | Error::Invalid(_) | Error::Local { .. })) => panic!("{e}"),
        Err(_) => Outcome::default(),
    }
}

/// Writes a byte more into whatever file comes first.
fn disturb(target: &Path) {
    let files = fs::read_dir(target).unwrap().flatten();
    let file = files.filter(|e| e.file_type().is_ok_and(|t| t.is_file())).map(|e| e.path()).min();
    if let Some(mut bytes) =
        file.as_ref().and_then(|f| fs::metadata(f).ok().filter(|m| m.len() < 1 << 20).and_then(|_| fs::read(f).ok()))
    {
        bytes.push(1);
        // One that cannot be written stays as it is.
        let _ = fs::write(file.unwrap_or_default(), bytes);
    }
}

/// One input.
pub fn run(data: &[u8]) -> bool {
    Hostile::with(|hostile| {
        let Some(built) = hostile.build(data) else { return false };
        let (repo, root) = (&hostile.repo, &built.root);
        let walked = walk(repo, root);
        // Devices are left out: the one that a number happens to name may do anything when it is opened.
        let fair = walked.is_whole() && walked.entries <= ENTRIES_MAX && walked.bytes <= BYTES_MAX;
        let mut taken = false;
        if fair && walked.devices == 0 {
            let place = Place::new();
            let has = |option| built.options & option != 0;
            let options = Options {
                delete: has(DELETE),
                dry_run: has(DRY_RUN),
                numeric_owner: true,
                verify: has(VERIFY),
                ..Options::default()
            };
            let first = restored(repo, root, &place, &options);
            assert!(
                !options.dry_run || fs::read_dir(place.target()).unwrap().next().is_none(),
                "a dry run that writes"
            );
            assert!(first.entries <= walked.entries as u64);
            if has(TWICE) {
                if has(DISTURBED) {
                    disturb(&place.target());
                }
                let second = restored(repo, root, &place, &options);
                assert!(second.entries <= walked.entries as u64);
            }
            taken = first.entries > 0 && (first.failures == 0 || walked.errors + walked.lost > 0);
        }
        hostile.clear(built);
        taken
    })
}

/// An entry for a pack that is there, which says that blob 0 lies where it does not.
fn lie() -> Vec<u8> {
    let frame = Frame {
        stored: 64,
        codec: Codec::Zstd,
        kind: BlobKind::Chunk,
        depth: 0,
        bases: Vec::new(),
        lens: vec![5, 7],
        ids: vec![id_of(1), id_of(2)],
    };
    let mut name = [DATA_PACK; 32];
    name[..31].copy_from_slice(&ID_OF);
    let directory = Directory { class: StorageClass::Data, frames: vec![frame] };
    let mut out = Vec::new();
    PackEntry { name: PackName(name), size: FRAMES_AT + 500, directory }.write_to(&mut out);
    out
}

/// Files whose claims are as large as a number can be.
pub fn giants() -> Vec<(Item, Vec<u8>)> {
    let hole = estrato::format::content::Extent { id: None, len: u64::MAX };
    let nodes = [walker::file("a", 0, vec![hole]), walker::file("b", 0, vec![hole])];
    vec![(Item::Tree, super::trees::encode(&nodes))]
}

/// Two names of one inode, which the tree gives two contents.
fn linked() -> Vec<(Item, Vec<u8>)> {
    let named = |name, extents| Node { links: 2, inode: 7, device: 1, ..walker::file(name, 0, extents) };
    let nodes = [
        named("a", vec![walker::extent(0, 5)]),
        named("b", vec![walker::extent(1, 7)]),
        Node { links: 2, inode: 7, device: 1, target: b"a".to_vec(), ..Node::new("c", Kind::Symlink) },
    ];
    vec![
        (Item::Chunk, b"chunk".to_vec()),
        (Item::Chunk, b"another".to_vec()),
        (Item::Tree, super::trees::encode(&nodes)),
    ]
}

/// Inputs to begin with.
pub fn seeds() -> Seeds {
    let with_lie = [vec![(Item::Entry, lie())], walker::honest()].concat();
    // A folder's own data may be any length; what is written is bounded by the chunks.
    debug_assert!(lie().len() < limits::NAME_MAX);
    vec![
        ("honest".into(), hostile::input(0, &walker::honest())),
        ("verified".into(), hostile::input(VERIFY | SHARED_FRAMES, &walker::honest())),
        ("twice".into(), hostile::input(TWICE | DELETE | VERIFY, &walker::honest())),
        ("disturbed".into(), hostile::input(TWICE | DISTURBED | SHARED_FRAMES, &walker::honest())),
        ("dry-run".into(), hostile::input(DRY_RUN, &walker::honest())),
        ("lie".into(), hostile::input(VERIFY, &with_lie)),
        ("lie-first".into(), hostile::input(VERIFY | LIES_FIRST, &with_lie)),
        ("linked".into(), hostile::input(TWICE, &linked())),
    ]
}
