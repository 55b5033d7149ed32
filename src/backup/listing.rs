//! Listing a folder: its entries as the kernel tells of them, but for those that
//! the user leaves out. Reads names and metadata, never content, and follows no
//! link: a folder is opened by its name in the one above it.

use super::base::mark;
use super::compare::Entry;
use super::known::Mark;
use crate::crypto::derive::IdKeys;
use crate::format::node::Kind;
use crate::source::files::{Folder, Trail};
use ignore::gitignore::Gitignore;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is left out, and how entries are marked.
pub struct Rules<'a> {
    /// The tenant's keys, for marks.
    pub keys: &'a IdKeys,
    /// Entries to leave out.
    pub exclude: Gitignore,
    /// Stay on the file system of each given path.
    pub one_file_system: bool,
}

/// A folder in an open one.
pub struct Below {
    /// The folder that holds it.
    pub above: Arc<Folder>,
    /// Its name.
    pub name: Vec<u8>,
    /// Stands for its path.
    pub mark: Mark,
    /// Where it is stored, below the snapshot's root.
    pub stored: Arc<Trail>,
    /// The device that it is on; `None` if the user named it, who may mean another file system.
    pub device: Option<u64>,
}

/// A folder's entries, in the order of their names.
pub struct Listing {
    /// What could be told of.
    pub entries: Vec<Entry>,
    /// What could not, and why.
    pub troubles: Vec<(PathBuf, io::Error)>,
}

/// What came of a folder that was to be listed.
pub enum Listed {
    /// Its entries.
    Entries(Listing),
    /// It is on another file system, and to be left alone.
    OtherSystem,
    /// It cannot be opened or listed.
    Failed(io::Error),
}

impl Below {
    /// An entry that is a folder, of one that is stored at `stored`.
    pub fn new(entry: &Entry, stored: &Arc<Trail>) -> Self {
        Self {
            above: Arc::clone(&entry.folder),
            name: entry.name.clone(),
            mark: entry.mark,
            stored: stored.below(&entry.name),
            device: (!entry.named).then_some(entry.stat.device),
        }
    }
}

impl Rules<'_> {
    /// Opens and lists a folder.
    pub fn list(&self, below: &Below) -> Listed {
        // Nothing has as many entries.
        self.list_within(below, usize::MAX).unwrap_or(Listed::OtherSystem)
    }

    /// The same, of a folder with no more than `max` entries; `None` of any other.
    pub fn list_within(&self, below: &Below, max: usize) -> Option<Listed> {
        if let (true, Some(device)) = (self.one_file_system, below.device)
            && below.above.stat().is_ok_and(|above| above.device != device)
        {
            return Some(Listed::OtherSystem);
        }
        let listed = below.above.child(&below.name).and_then(|folder| {
            let names = folder.names_within(max)?;
            Ok((Arc::new(folder), names))
        });
        match listed {
            Ok((folder, names)) => {
                names.map(|names| Listed::Entries(self.look_at(&folder, names, &below.stored, &below.mark)))
            }
            Err(e) => Some(Listed::Failed(e)),
        }
    }

    /// What the kernel tells of a folder's names; `stored` and `above` are of the folder.
    pub fn look_at(&self, folder: &Arc<Folder>, names: Vec<Vec<u8>>, stored: &Trail, above: &Mark) -> Listing {
        let stored = if self.exclude.is_empty() { PathBuf::new() } else { stored.path() };
        let mut listing = Listing { entries: Vec::with_capacity(names.len()), troubles: Vec::new() };
        for name in names {
            match folder.stat_of(&name) {
                Ok(stat) if self.is_excluded(&stored, &name, stat.kind) => {}
                Ok(stat) => {
                    let mark = mark(self.keys, above, &name);
                    listing.entries.push(Entry::new(Arc::clone(folder), name, mark, stat));
                }
                Err(e) => listing.troubles.push((folder.path_of(&name), e)),
            }
        }
        listing
    }

    fn is_excluded(&self, stored: &Path, name: &[u8], kind: Kind) -> bool {
        !self.exclude.is_empty()
            && self.exclude.matched(stored.join(OsStr::from_bytes(name)), kind == Kind::Dir).is_ignore()
    }
}
