//! The model: names, inodes, and what an edit does to them.

use super::disk::Disk;
use crate::support::noise;
use proptest::prelude::*;
use proptest::sample::Index;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// What an inode holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    Folder,
    File(Vec<u8>),
    Link(PathBuf),
    Pipe,
}

/// An inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    pub body: Body,
    pub mode: u32,
    /// Seconds and nanoseconds.
    pub mtime: (i64, i64),
    pub attributes: BTreeMap<String, Vec<u8>>,
}

/// A file system: every path but the root, and which paths are one inode.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    pub names: BTreeMap<PathBuf, u64>,
    pub inodes: BTreeMap<u64, Inode>,
    next: u64,
}

/// Two trees are equal if the same paths hold the same, and the same paths are one inode: the
/// inodes' numbers do not matter.
impl PartialEq for Tree {
    fn eq(&self, other: &Self) -> bool {
        self.difference(other).is_empty()
    }
}

/// An edit, before it is known what is there.
#[derive(Debug, Clone)]
pub struct Edit {
    what: What,
    at: Index,
    to: Index,
    name: usize,
    len: usize,
    seed: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Folder,
    File,
    Link,
    Pipe,
    HardLink,
    Rewrite,
    SameSize,
    Append,
    Insert,
    Truncate,
    Mode,
    Touch,
    Attribute,
    Rename,
    Remove,
}

const NAMES: [&[u8]; 10] =
    [b"a", b"b", b"export.sql", b"uploads", b"\xff\xfe", b"new\nline", b"x y", b"-rf", b".hidden", b"~"];

/// Edits of all kinds; most files are small, a few have many chunks.
pub fn edit() -> impl Strategy<Value = Edit> {
    use What::*;
    let what = prop::sample::select(vec![
        Folder, Folder, File, File, File, Link, Pipe, HardLink, Rewrite, SameSize, Append, Insert, Truncate, Mode,
        Touch, Attribute, Rename, Rename, Remove,
    ]);
    let len = prop_oneof![1 => Just(0usize), 8 => 1..3_000usize, 4 => 3_000..60_000usize, 1 => 60_000..600_000usize];
    (what, any::<Index>(), any::<Index>(), 0..NAMES.len(), len, any::<u8>())
        .prop_map(|(what, at, to, name, len, seed)| Edit { what, at, to, name, len, seed })
}

/// A change that can be made to the tree as it is.
#[derive(Debug, Clone)]
pub enum Change {
    Make(PathBuf, Body),
    HardLink(PathBuf, PathBuf),
    Write(PathBuf, Vec<u8>),
    Mode(PathBuf, u32),
    Touch(PathBuf, (i64, i64)),
    Attribute(PathBuf, String, Vec<u8>),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

/// Bytes that compress for even seeds and do not for odd ones.
fn bytes(seed: u8, len: usize) -> Vec<u8> {
    if seed % 2 == 1 {
        return noise(&seed.to_string(), len);
    }
    let line = |n: usize| format!("{n}\tpatient {}\t{}\n", n * usize::from(seed), n % 97);
    (0..).flat_map(|n| line(n).into_bytes()).take(len).collect()
}

impl Tree {
    fn body(&self, path: &Path) -> &Body {
        &self.inodes[&self.names[path]].body
    }

    /// Folders, the root among them.
    fn folders(&self) -> Vec<PathBuf> {
        let is_folder = |path: &&PathBuf| *self.body(path) == Body::Folder;
        std::iter::once(PathBuf::new()).chain(self.names.keys().filter(is_folder).cloned()).collect()
    }

    fn paths(&self, wanted: impl Fn(&Body) -> bool) -> Vec<&PathBuf> {
        self.names.keys().filter(|path| wanted(self.body(path))).collect()
    }

    /// What the edit comes to here; `None` if it comes to nothing.
    pub fn plan(&self, edit: &Edit) -> Option<Change> {
        let pick = |paths: Vec<&PathBuf>| (!paths.is_empty()).then(|| paths[edit.at.index(paths.len())].clone());
        let file = || pick(self.paths(|body| matches!(body, Body::File(_))));
        let any = || pick(self.paths(|_| true));
        let folders = self.folders();
        let free = folders[edit.to.index(folders.len())].join(OsStr::from_bytes(NAMES[edit.name]));
        let make = |body| (!self.names.contains_key(&free)).then(|| Change::Make(free.clone(), body));
        let content = |path: &Path| match self.body(path) {
            Body::File(bytes) => bytes.clone(),
            _ => Vec::new(),
        };
        let new = || bytes(edit.seed, edit.len);
        match edit.what {
            What::Folder if free.components().count() > 5 => None,
            What::Folder => make(Body::Folder),
            What::File => make(Body::File(new())),
            What::Link => make(Body::Link(PathBuf::from(format!("../{}", edit.seed)))),
            What::Pipe => make(Body::Pipe),
            What::HardLink => {
                file().filter(|_| !self.names.contains_key(&free)).map(|from| Change::HardLink(from, free))
            }
            What::Rewrite => file().map(|path| Change::Write(path, new())),
            What::SameSize => file().map(|path| {
                let len = content(&path).len();
                Change::Write(path, bytes(edit.seed, len))
            }),
            What::Append => file().map(|path| {
                let bytes = [content(&path), new()].concat();
                Change::Write(path, bytes)
            }),
            What::Insert => file().map(|path| {
                let mut bytes = content(&path);
                let at = edit.to.index(bytes.len() + 1);
                bytes.splice(at..at, new());
                Change::Write(path, bytes)
            }),
            What::Truncate => file().map(|path| {
                let mut bytes = content(&path);
                bytes.truncate(edit.to.index(bytes.len() + 1));
                Change::Write(path, bytes)
            }),
            What::Mode => pick(self.paths(|body| !matches!(body, Body::Link(_))))
                .map(|path| Change::Mode(path, [0o700, 0o750, 0o755, 0o4711][usize::from(edit.seed) % 4])),
            What::Touch => any().map(|path| Change::Touch(path, (i64::from(edit.seed) * 9_999_999, 123_456_789))),
            What::Attribute => {
                file().map(|path| Change::Attribute(path, format!("user.{}", edit.seed % 3), bytes(edit.seed, 40)))
            }
            What::Rename => any()
                .filter(|from| !free.starts_with(from) && !self.names.contains_key(&free))
                .map(|from| Change::Rename(from, free)),
            What::Remove => any().map(Change::Remove),
        }
    }

    /// Makes the change; the disk, which has made it, tells the times that it chose.
    pub fn apply(&mut self, change: Change, disk: &Disk) {
        match change {
            Change::Make(path, body) => {
                let inode = Inode { body, mode: 0, mtime: (0, 0), attributes: BTreeMap::new() };
                self.next += 1;
                self.inodes.insert(self.next, inode);
                self.names.insert(path.clone(), self.next);
                let (mode, mtime) = disk.looks(&path);
                let inode = self.inode(&path);
                (inode.mode, inode.mtime) = (mode, mtime);
            }
            Change::HardLink(from, to) => {
                let number = self.names[&from];
                self.names.insert(to, number);
            }
            Change::Write(path, bytes) => {
                let (mode, mtime) = disk.looks(&path);
                let inode = self.inode(&path);
                inode.body = Body::File(bytes);
                // Writing may take the right to run as somebody else away.
                (inode.mode, inode.mtime) = (mode, mtime);
            }
            Change::Mode(path, mode) => self.inode(&path).mode = mode,
            Change::Touch(path, mtime) => self.inode(&path).mtime = mtime,
            Change::Attribute(path, name, value) => {
                self.inode(&path).attributes.insert(name, value);
            }
            Change::Rename(from, to) => {
                let moved: Vec<PathBuf> = self.names.keys().filter(|path| path.starts_with(&from)).cloned().collect();
                for path in moved {
                    let below = path.strip_prefix(&from).unwrap();
                    let at = if below.as_os_str().is_empty() { to.clone() } else { to.join(below) };
                    let number = self.names.remove(&path).unwrap();
                    self.names.insert(at, number);
                }
            }
            Change::Remove(path) => self.names.retain(|at, _| !at.starts_with(&path)),
        }
    }

    /// The inode of a path.
    pub fn inode(&mut self, path: &Path) -> &mut Inode {
        let number = self.names[path];
        self.inodes.get_mut(&number).unwrap()
    }

    /// The first path that is not the same in both, in words; empty if there is none.
    pub fn difference(&self, other: &Self) -> String {
        let mut ours: BTreeMap<u64, u64> = BTreeMap::new();
        let mut theirs: BTreeMap<u64, u64> = BTreeMap::new();
        for (path, number) in &self.names {
            let Some(its) = other.names.get(path) else { return format!("{} is missing", path.display()) };
            if *ours.entry(*number).or_insert(*its) != *its || *theirs.entry(*its).or_insert(*number) != *number {
                return format!("{} is linked otherwise", path.display());
            }
            let (inode, another) = (&self.inodes[number], &other.inodes[its]);
            if inode != another {
                let bytes = |i: &Inode| if let Body::File(bytes) = &i.body { bytes.len() } else { 0 };
                return format!(
                    "{}: {:o} {:?} {} bytes {:?}, and there {:o} {:?} {} bytes {:?}",
                    path.display(),
                    inode.mode,
                    inode.mtime,
                    bytes(inode),
                    inode.attributes,
                    another.mode,
                    another.mtime,
                    bytes(another),
                    another.attributes
                );
            }
        }
        other
            .names
            .keys()
            .find(|path| !self.names.contains_key(*path))
            .map_or_else(String::new, |path| format!("{} should not be there", path.display()))
    }
}
