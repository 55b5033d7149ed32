//! What a file was before that has a new name: another name in its folder, or
//! another folder. Says only what its content is held against: what is the same
//! is found by its id anyway, and a wrong answer costs some bytes and a look at
//! what was stored.
//!
//! Notes hold marks and no names, so a name can be asked for and not read.

mod elsewhere;
pub mod pattern;

use super::compare::Entry;
use super::known::{Known, KnownEntry, Mark};
use super::replace::Old;
use crate::clock::Timestamp;
use crate::crypto::derive::IdKeys;
use crate::format::node::Kind;
use crate::limits;
use crate::repo::Tries;
use crate::source::files::Stat;
use elsewhere::Elsewhere;
use std::collections::{HashMap, HashSet};

/// Finds what files were, for one walk.
pub struct Moved<'a> {
    keys: &'a IdKeys,
    /// When the base began to read.
    started: Timestamp,
    elsewhere: Elsewhere<'a>,
}

/// True if neither is more than twice as large as the other.
fn is_near(one: u64, other: u64) -> bool {
    one.max(other) / 2 <= one.min(other)
}

/// By how much two sizes differ, in thousandths of the larger one.
fn difference(one: u64, other: u64) -> u128 {
    let most = one.max(other).max(1);
    u128::from(one.abs_diff(other)) * 1000 / u128::from(most)
}

/// Files that differ in size by more thousandths than this are not taken for each other by size alone.
const ALIKE: u128 = 250;

impl<'a> Moved<'a> {
    /// For a base that began to read at `started`; `notes` of that version can be gone through.
    pub fn new(keys: &'a IdKeys, started: Timestamp, notes: Option<(&'a Known, i64)>) -> Self {
        Self { keys, started, elsewhere: Elsewhere::new(notes) }
    }

    /// An entry has left a folder.
    pub fn left(&mut self, folder: &Mark, entry: &KnownEntry) {
        self.elsewhere.add(folder, entry);
    }

    /// Finds what the files of a folder were that are to be read, and remembers those that left it.
    /// `gone` are those of `before` that are there no more.
    pub fn folder(&mut self, folder: &Mark, entries: &mut [Entry], before: &[KnownEntry], gone: &[usize]) {
        let mut wanted: Vec<usize> = (0..entries.len()).filter(|at| is_wanted(&entries[*at], before)).collect();
        let mut renamed = HashSet::new();
        if !wanted.is_empty() {
            self.by_inode(entries, before, &mut wanted, &mut renamed);
        }
        wanted.retain(|at| entries[*at].own(before).is_none());
        // An inode that is older than the base came from another folder: that says more than any likeness.
        let is_older = |stat: &Stat| stat.born.is_some_and(|born| born < self.started);
        wanted.retain(|at| {
            let entry = &mut entries[*at];
            entry.old = if is_older(&entry.stat) { self.elsewhere.of_inode(&entry.stat) } else { None };
            entry.old.is_none()
        });
        if !before.is_empty() {
            by_pattern(entries, before, &mut wanted);
            let gone: Vec<usize> = gone.iter().filter(|at| !renamed.contains(*at)).copied().collect();
            by_size(entries, before, &mut wanted, &gone);
            self.remember(folder, entries, before, &gone);
        }
        for at in wanted {
            let entry = &mut entries[at];
            if entry.stat.born.is_none() {
                entry.old = self.elsewhere.of_inode(&entry.stat);
            }
            if entry.old.is_none() {
                entry.old = self.elsewhere.of_name(self.keys, &entry.name, &entry.stat);
            }
        }
    }

    /// Files that stand under another name of the folder; those of `before` that do are `renamed`.
    fn by_inode(
        &self,
        entries: &mut [Entry],
        before: &[KnownEntry],
        wanted: &mut Vec<usize>,
        renamed: &mut HashSet<usize>,
    ) {
        let files = before.iter().enumerate().filter(|(_, old)| old.kind == Kind::File);
        let inodes: HashMap<u64, usize> = files.map(|(at, old)| (old.inode, at)).collect();
        wanted.retain(|at| {
            let entry = &mut entries[*at];
            let Some(was) = inodes.get(&entry.stat.inode) else { return true };
            let has_own = entry.own(before).is_some();
            if !is_same_file(&entry.stat, before[*was].size, self.started, has_own) {
                return true;
            }
            renamed.insert(*was);
            entry.old = Some(before[*was].content.clone().into());
            false
        });
    }

    /// Remembers the files that left a folder: their inodes are there no more.
    fn remember(&mut self, folder: &Mark, entries: &[Entry], before: &[KnownEntry], gone: &[usize]) {
        let replaced = entries.iter().filter_map(|e| e.was.filter(|was| before[*was].inode != e.stat.inode));
        let left = gone.iter().copied().chain(replaced).filter(|at| self.elsewhere.holds(&before[*at]));
        let left: Vec<usize> = left.collect();
        if left.is_empty() {
            return;
        }
        let inodes: HashSet<u64> = entries.iter().map(|e| e.stat.inode).collect();
        for old in left.into_iter().map(|at| &before[at]).filter(|old| !inodes.contains(&old.inode)) {
            self.elsewhere.add(folder, old);
        }
    }
}

/// True for a file that is to be read and is not the one that had its name.
fn is_wanted(entry: &Entry, before: &[KnownEntry]) -> bool {
    let is_read = entry.stat.kind == Kind::File && !entry.same && entry.stat.size >= limits::RUN_DELTA_MIN as u64;
    is_read && entry.own(before).is_none_or(|old| old.inode != entry.stat.inode)
}

/// True if a file is the one that had its inode, of `size` bytes, when the base began to read. A number
/// that is free is given to the next new file, and a new file may be like an old one: who rewrites each
/// file of a folder gives it the number of another. So where nobody tells when the inode came to be, a
/// name that is known says more.
fn is_same_file(stat: &Stat, size: u64, started: Timestamp, has_own: bool) -> bool {
    match stat.born {
        Some(born) => born < started,
        None => !has_own && is_near(stat.size, size),
    }
}

/// Files whose names are those of others but for numbers, as dumps have that are named by their day.
fn by_pattern(entries: &mut [Entry], before: &[KnownEntry], wanted: &mut Vec<usize>) {
    /// Older files of one pattern, by their numbers.
    #[derive(Default)]
    struct Alike {
        files: Vec<(Vec<u8>, usize)>,
        tries: Tries,
    }
    let is_large = |entry: &Entry| entry.stat.size >= limits::OLD_LIKE_MIN;
    let names = wanted.iter().map(|at| &entries[*at]).filter(|entry| is_large(entry));
    let mut patterns: HashMap<Vec<u8>, Alike> =
        names.filter_map(|entry| Some((pattern::of(&entry.name)?, Alike::default()))).collect();
    if patterns.is_empty() {
        return;
    }
    for entry in entries.iter() {
        let Some(was) = entry.was.filter(|was| is_like(&before[*was])) else { continue };
        if let Some(alike) = pattern::of(&entry.name).and_then(|pattern| patterns.get_mut(&pattern)) {
            alike.files.push((pattern::numbers(&entry.name), was));
        }
    }
    patterns.values_mut().for_each(|alike| alike.files.sort_unstable());
    wanted.retain(|at| {
        let entry = &mut entries[*at];
        let found = pattern::of(&entry.name).filter(|_| is_large(entry)).and_then(|pattern| patterns.get(&pattern));
        let Some(alike) = found else { return true };
        let numbers = pattern::numbers(&entry.name);
        let (earlier, later) = alike.files.split_at(alike.files.partition_point(|(n, _)| *n < numbers));
        let next =
            || earlier.iter().rev().take(limits::OLD_NEIGHBOURS).chain(later.iter().take(limits::OLD_NEIGHBOURS));
        // One that broke off yesterday is passed over for the one before it.
        let near = next().find(|(_, was)| is_near(before[*was].size, entry.stat.size));
        let Some((_, was)) = near.or_else(|| next().next()) else { return true };
        entry.old = Some(Old { content: before[*was].content.clone(), tries: alike.tries.clone() });
        false
    });
}

/// True for a file that is large enough to be like another.
fn is_like(old: &KnownEntry) -> bool {
    old.kind == Kind::File && old.size >= limits::OLD_LIKE_MIN
}

/// Pairs the files that are new with those that are gone and about as large, the most alike first, where
/// they are few.
fn by_size(entries: &mut [Entry], before: &[KnownEntry], wanted: &mut Vec<usize>, gone: &[usize]) {
    let gone: Vec<usize> = gone.iter().filter(|at| is_like(&before[**at])).copied().collect();
    let new: Vec<usize> =
        wanted.iter().filter(|at| entries[**at].stat.size >= limits::OLD_LIKE_MIN).copied().collect();
    if gone.len() > limits::OLD_GONE_MAX || new.len() > limits::OLD_GONE_MAX {
        return;
    }
    let sizes = |numbers: &[usize], of: &dyn Fn(usize) -> u64| numbers.iter().map(|at| of(*at)).collect::<Vec<_>>();
    let tries = Tries::default();
    for (at, was) in pairs(&sizes(&new, &|at| entries[at].stat.size), &sizes(&gone, &|at| before[at].size)) {
        entries[new[at]].old = Some(Old { content: before[gone[was]].content.clone(), tries: tries.clone() });
    }
    wanted.retain(|at| entries[*at].old.is_none());
}

/// Pairs each size of one list with one of the other, the most alike first; those that are too different
/// stay alone.
fn pairs(new: &[u64], gone: &[u64]) -> Vec<(usize, usize)> {
    let mut all = Vec::new();
    for (at, size) in new.iter().enumerate() {
        all.extend(gone.iter().enumerate().map(|(was, old)| (difference(*size, *old), at, was)));
    }
    all.retain(|(difference, _, _)| *difference <= ALIKE);
    all.sort_unstable();
    let (mut paired, mut taken) = (vec![false; new.len()], vec![false; gone.len()]);
    all.retain(|(_, at, was)| {
        let free = !paired[*at] && !taken[*was];
        if free {
            (paired[*at], taken[*was]) = (true, true);
        }
        free
    });
    all.into_iter().map(|(_, at, was)| (at, was)).collect()
}

#[cfg(test)]
mod tests;
