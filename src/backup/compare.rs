//! What became of a folder: its entries, held against those that it had in the
//! base. Reads notes and trees of the base, and nothing of the source.

use super::base::{Base, Token};
use super::known::{Known, KnownEntry, Mark, is_racy};
use super::paths::Branch;
use super::replace::Old;
use crate::format::content::Content;
use crate::format::manifest::Tally;
use crate::format::node::Kind;
use crate::source::files::{Folder, Stat};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// An entry of a folder that is underway.
pub struct Entry {
    /// The folder that holds it.
    pub folder: Arc<Folder>,
    /// Its name.
    pub name: Vec<u8>,
    /// Stands for its path.
    pub mark: Mark,
    /// What the kernel tells of it.
    pub stat: Stat,
    /// What it is made of, once that is known.
    pub content: Content,
    /// Nothing about it changed against the base.
    pub same: bool,
    /// It could not be read, and is left out.
    pub lost: bool,
    /// The user named it, or something below it.
    pub named: bool,
    /// Its folder as it was, if it was one.
    pub token: Token,
    /// What the user named below it.
    pub branch: Option<BTreeMap<Vec<u8>, Branch>>,
    /// The number of the entry that had its name before.
    pub was: Option<usize>,
    /// What that was made of.
    pub before: Content,
    /// What its content is held against, if that is not what had its name.
    pub old: Option<Old>,
}

impl Entry {
    /// An entry of which is known what the kernel tells.
    pub fn new(folder: Arc<Folder>, name: Vec<u8>, mark: Mark, stat: Stat) -> Self {
        Self {
            folder,
            name,
            mark,
            stat,
            content: Content::default(),
            same: false,
            lost: false,
            named: false,
            token: Token::Unknown,
            branch: None,
            was: None,
            before: Content::default(),
            old: None,
        }
    }

    /// The file that had its name, of those that its folder had.
    pub fn own<'b>(&self, before: &'b [KnownEntry]) -> Option<&'b KnownEntry> {
        self.was.and_then(|was| before.get(was)).filter(|old| old.kind == Kind::File)
    }

    fn tally(&self) -> Tally {
        Tally::of(self.stat.kind, self.stat.size)
    }
}

/// How a folder's entries stand to those that it had.
#[derive(Default)]
pub struct Compared {
    /// All that it has.
    pub total: Tally,
    /// What it did not have.
    pub added: Tally,
    /// What it had otherwise.
    pub changed: Tally,
    /// What it has no more, but for what lay below.
    pub removed: Tally,
    /// Bytes of files that are as they were.
    pub unchanged: u64,
    /// Those it had that are there no more, or no more as folders: by number.
    pub gone: Vec<usize>,
}

/// Holds a folder's entries against those that it had, and notes in each what it was.
pub fn compare(entries: &mut [Entry], before: &[KnownEntry], base: &Base<'_>) -> Compared {
    let mut found = Compared::default();
    let mut by_name: Option<HashMap<Mark, usize>> = None;
    let mut matched = vec![false; before.len()];
    let started = base.started().unwrap_or_default();
    for (at, entry) in entries.iter_mut().enumerate() {
        found.total.add(entry.tally());
        // Names mostly stand where they stood.
        let was = match before.get(at) {
            Some(old) if old.name == entry.mark => Some(at),
            _ => by_name
                .get_or_insert_with(|| before.iter().enumerate().map(|(n, e)| (e.name, n)).collect())
                .get(&entry.mark)
                .copied(),
        };
        let Some(was) = was else {
            found.added.add(entry.tally());
            continue;
        };
        matched[was] = true;
        let old = &before[was];
        entry.token = base.below(old);
        entry.was = Some(was);
        entry.before = old.content.clone();
        let racy = is_racy(entry.stat.mtime, started) || is_racy(entry.stat.ctime, started);
        let matches = old.matches(&entry.stat);
        if matches && !racy {
            entry.same = true;
            entry.content = old.content.clone();
            found.unchanged = found.unchanged.saturating_add(entry.tally().bytes);
        } else if !matches {
            found.changed.add(entry.tally());
        }
        if old.kind == Kind::Dir && entry.stat.kind != Kind::Dir {
            found.gone.push(was);
        }
    }
    for (at, old) in before.iter().enumerate().filter(|(at, _)| !matched[*at]) {
        found.removed.add(Tally::of(old.kind, old.size));
        found.gone.push(at);
    }
    found
}

/// A folder that is no more: counts what it held, tells `left` of each entry and its folder, and ends its
/// rows in the notes, if there are any.
pub fn forget_below(
    old: &KnownEntry,
    base: &Base<'_>,
    known: Option<&Known>,
    dry_run: bool,
    mut left: impl FnMut(&Mark, &KnownEntry),
) -> Tally {
    let mut removed = Tally::default();
    let mut pending = vec![old.clone()];
    while let Some(folder) = pending.pop() {
        let before = base.folder(known, &base.below(&folder), &folder.name).unwrap_or_default();
        for entry in before.entries {
            removed.add(Tally::of(entry.kind, entry.size));
            left(&folder.name, &entry);
            if entry.kind == Kind::Dir {
                pending.push(entry);
            }
        }
        if let (Some(known), false) = (known, dry_run) {
            known.end(&folder.name);
        }
    }
    removed
}
