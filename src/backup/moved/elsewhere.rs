//! Files that other folders had: those that were seen to leave theirs, and, once
//! a file asks for it, those of all folders that the walk has yet to come to,
//! from the notes. Holds a bounded number of bytes; the largest files stay.

use super::is_near;
use crate::backup::base::mark;
use crate::backup::known::{Known, KnownEntry, Mark};
use crate::backup::replace::Old;
use crate::crypto::derive::IdKeys;
use crate::format::content::{Content, Extent};
use crate::format::node::Kind;
use crate::limits;
use crate::repo::Tries;
use crate::source::files::Stat;
use std::collections::{BTreeSet, HashMap};

/// What one file takes at the most, beside its extents.
const HELD_BYTES: usize = 256;

struct Held {
    folder: Mark,
    inode: u64,
    size: u64,
    content: Content,
}

impl Held {
    fn bytes(&self) -> usize {
        HELD_BYTES + self.content.extents.len() * size_of::<Extent>()
    }
}

/// Files of other folders.
pub struct Elsewhere<'a> {
    /// Notes that were not gone through yet.
    notes: Option<(&'a Known, i64)>,
    held: HashMap<Mark, Held>,
    by_inode: BTreeSet<(u64, Mark)>,
    /// The folders that had them.
    folders: BTreeSet<Mark>,
    bytes: usize,
    /// Smaller files are not held.
    least: u64,
    /// So many marks may still be made.
    marks: usize,
    tries: Tries,
}

impl<'a> Elsewhere<'a> {
    /// None yet.
    pub fn new(notes: Option<(&'a Known, i64)>) -> Self {
        Self {
            notes,
            held: HashMap::new(),
            by_inode: BTreeSet::new(),
            folders: BTreeSet::new(),
            bytes: 0,
            least: limits::OLD_ELSEWHERE_MIN,
            marks: limits::OLD_MARKS_MADE,
            tries: Tries::default(),
        }
    }

    /// True for a file that is large enough.
    pub fn holds(&self, entry: &KnownEntry) -> bool {
        entry.kind == Kind::File && entry.size >= self.least
    }

    /// Holds what an entry of a folder was, if it is a large file.
    pub fn add(&mut self, folder: &Mark, entry: &KnownEntry) {
        if !self.holds(entry) {
            return;
        }
        let held = Held { folder: *folder, inode: entry.inode, size: entry.size, content: entry.content.clone() };
        self.bytes += held.bytes();
        self.by_inode.insert((held.inode, entry.name));
        self.folders.insert(*folder);
        if let Some(twice) = self.held.insert(entry.name, held) {
            self.bytes -= twice.bytes();
        }
        while self.bytes > limits::OLD_HELD_BYTES {
            self.shrink();
        }
    }

    fn shrink(&mut self) {
        self.least = self.least.saturating_mul(2);
        self.held.retain(|_, held| held.size >= self.least);
        self.bytes = self.held.values().map(Held::bytes).sum();
        self.by_inode.retain(|(_, mark)| self.held.contains_key(mark));
        self.folders = self.held.values().map(|held| held.folder).collect();
    }

    /// What a file was that has its inode from another folder.
    pub fn of_inode(&mut self, stat: &Stat) -> Option<Old> {
        self.find(stat, |held| {
            let range = (stat.inode, [0; 16])..=(stat.inode, [u8::MAX; 16]);
            held.nearest(stat.size, held.by_inode.range(range).map(|(_, mark)| *mark))
        })
    }

    /// What a file was that has its name from another folder.
    pub fn of_name(&mut self, keys: &IdKeys, name: &[u8], stat: &Stat) -> Option<Old> {
        self.find(stat, |held| {
            held.marks = held.marks.checked_sub(held.folders.len())?;
            held.nearest(stat.size, held.folders.iter().map(|folder| mark(keys, folder, name)))
        })
    }

    /// Looks among what is held, and then in the notes.
    fn find(&mut self, stat: &Stat, mut look: impl FnMut(&mut Self) -> Option<Content>) -> Option<Old> {
        if stat.size < limits::OLD_ELSEWHERE_MIN {
            return None;
        }
        let mut found = look(self);
        if found.is_none()
            && let Some((known, version)) = self.notes.take()
        {
            let mut room = limits::OLD_NOTES_BYTES;
            known.folders(version, |folder, before, bytes| {
                before.entries.iter().for_each(|entry| self.add(folder, entry));
                room = room.saturating_sub(bytes);
                room > 0
            });
            found = look(self);
        }
        found.map(|content| Old { content, tries: self.tries.clone() })
    }

    /// Of those that are of near size, the nearest. Inodes are counted by each file system for itself, and
    /// names are given to anything, so neither is believed without.
    fn nearest(&self, size: u64, marks: impl Iterator<Item = Mark>) -> Option<Content> {
        if size < self.least / 2 {
            return None;
        }
        let held = marks.filter_map(|mark| self.held.get(&mark)).filter(|held| is_near(held.size, size));
        held.min_by_key(|held| held.size.abs_diff(size)).map(|held| held.content.clone())
    }
}

#[cfg(test)]
impl Elsewhere<'_> {
    /// True if it holds no more than it may, and counts rightly.
    pub fn is_bounded(&self) -> bool {
        let parts = [self.held.len(), self.by_inode.len()];
        let bytes: usize = self.held.values().map(Held::bytes).sum();
        bytes == self.bytes && bytes <= limits::OLD_HELD_BYTES && parts.iter().all(|n| *n <= bytes / HELD_BYTES)
    }
}
