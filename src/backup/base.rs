//! What a source looked like before: from the state on this machine, or else
//! from the trees of an earlier snapshot, if the key can read them.

use super::known::{Known, KnownEntry, KnownFolder, Mark, Version};
use crate::clock::Timestamp;
use crate::crypto::derive::IdKeys;
use crate::error::{Error, Result};
use crate::format::content::Content;
use crate::format::node::Kind;
use crate::format::pack::BlobKind;
use crate::id::{BlobId, SnapshotId};
use crate::index::{BlobCopy, Hint};
use crate::monitor::{Event, Monitor};
use crate::repo::{Counting, Repository};
use crate::snapshot;
use std::cell::RefCell;
use std::collections::HashSet;

/// Where the earlier state is read from.
pub enum Base<'r> {
    /// There is none: everything is new.
    None,
    /// The state on this machine.
    Known(Version),
    /// The trees of a snapshot.
    Trees {
        /// The repository.
        repo: &'r Repository,
        /// The snapshot.
        snapshot: SnapshotId,
        /// When it began.
        started: Timestamp,
        /// Its root.
        root: Content,
        /// What is stored, and loses what turns out to be damaged; `None` in a dry run.
        counting: Option<&'r Counting>,
        /// Is told what cannot be read.
        monitor: &'r dyn Monitor,
        /// The objects of which it was told: each once.
        told: RefCell<HashSet<String>>,
    },
}

/// Stands for an entry's whole path: the mark of its folder and its name.
pub fn mark(keys: &IdKeys, folder: &Mark, name: &[u8]) -> Mark {
    keys.state_name(&[b"entry", folder, name])
}

/// How a folder is asked for: by mark in the local state, by content in trees.
#[derive(Clone)]
pub enum Token {
    /// It was not there before.
    Unknown,
    /// The local state's row.
    Mark(Mark),
    /// The folder's content.
    Content(Content),
}

/// True if every blob below a content counts as stored: the writer of an index entry that does not
/// count could say that anything is there.
///
/// # Errors
/// Where a content list cannot be read, or no index object names a blob; those at the end are of the
/// kind `end`.
fn is_stored(repo: &Repository, content: &Content, end: BlobKind, counting: Option<&Counting>) -> Result<bool> {
    let mut hint = Hint::default();
    // A list that stands in a stream again is looked at once.
    let mut lists = HashSet::new();
    let mut open = vec![content.clone()];
    while let Some(content) = open.pop() {
        for id in content.extents.iter().filter_map(|e| e.id) {
            let counts = |copy: &BlobCopy| match counting {
                Some(counting) => counting.counts(repo.index(), copy),
                None => Ok(true),
            };
            if repo.index().find(&id, &mut hint, counts)?.is_none() {
                let kind = if content.level > 0 { BlobKind::List } else { end };
                let known = !repo.index().copies(&id)?.is_empty();
                return if known { Ok(false) } else { Err(repo.unindexed(kind, &id)) };
            }
            if content.level > 0 && lists.insert(id) {
                let list =
                    Content::decode(&repo.blob(BlobKind::List, &id)?).map_err(|e| e.of(format!("list {id}")))?;
                // Levels strictly descend, so that no list can lead back to itself.
                if list.level >= content.level {
                    return Ok(false);
                }
                open.push(list);
            }
        }
    }
    Ok(true)
}

/// Makes the packs of a stream's lists, and of the segments of a folder, count no more where they
/// cannot be read: the same blob must not be taken for stored because its id is known.
fn doubt(repo: &Repository, counting: Option<&Counting>, content: &Content, kind: Kind) {
    let Some(counting) = counting else { return };
    let lost = |kind: BlobKind, id: BlobId| {
        if repo.blob(kind, &id).is_err() {
            let copies = repo.index().copies(&id).unwrap_or_default();
            counting.doubt(&copies.iter().map(BlobCopy::entry).collect::<Vec<_>>());
        }
    };
    if content.level > 0 {
        content.extents.iter().filter_map(|e| e.id).for_each(|id| lost(BlobKind::List, id));
    }
    if kind == Kind::Dir {
        snapshot::distinct_leaves(repo, content)
            .flatten()
            .filter_map(|e| e.id)
            .for_each(|id| lost(BlobKind::Tree, id));
    }
}

impl Base<'_> {
    /// The snapshot.
    pub fn snapshot(&self) -> Option<SnapshotId> {
        match self {
            Base::None => None,
            Base::Known(version) => Some(version.snapshot),
            Base::Trees { snapshot, .. } => Some(*snapshot),
        }
    }

    /// When the snapshot began to read.
    pub fn started(&self) -> Option<Timestamp> {
        match self {
            Base::None => None,
            Base::Known(version) => Some(version.started),
            Base::Trees { started, .. } => Some(*started),
        }
    }

    /// The root, whose mark is `mark`.
    pub fn root(&self, mark: Mark) -> Token {
        match self {
            Base::None => Token::Unknown,
            Base::Known(_) => Token::Mark(mark),
            Base::Trees { root, .. } => Token::Content(root.clone()),
        }
    }

    /// How the folder that was this entry is asked for.
    pub fn below(&self, entry: &KnownEntry) -> Token {
        match self {
            _ if entry.kind != Kind::Dir => Token::Unknown,
            Base::None => Token::Unknown,
            Base::Known(_) => Token::Mark(entry.name),
            Base::Trees { .. } => Token::Content(entry.content.clone()),
        }
    }

    /// A folder as it was; `folder` is its mark. What cannot be read is taken as not there before:
    /// its files are read again.
    pub fn folder(&self, known: Option<&Known>, token: &Token, folder: &Mark) -> Option<KnownFolder> {
        match (self, token) {
            (Base::Known(version), Token::Mark(mark)) => known?.folder(version.number, mark),
            (Base::Trees { repo, counting, monitor, told, .. }, Token::Content(content)) => {
                let mut entries = Vec::new();
                let tell = |e: &Error| {
                    if told.borrow_mut().insert(e.object().unwrap_or_default().to_owned()) {
                        monitor.event(Event::Warning(format!("{e}; what it held is read and stored again")));
                    }
                };
                match is_stored(repo, content, BlobKind::Tree, *counting) {
                    Ok(true) => {}
                    Ok(false) => return None,
                    Err(e) => {
                        tell(&e);
                        doubt(repo, *counting, content, Kind::Dir);
                        return None;
                    }
                }
                for node in snapshot::Folder::new(repo, content) {
                    let node = match node {
                        Ok(node) => node,
                        Err(e) => {
                            tell(&e);
                            doubt(repo, *counting, content, Kind::Dir);
                            return None;
                        }
                    };
                    // These trees rest on notes of another time: what does not count now is read. A folder's
                    // own are looked at when it is read.
                    let stored = match node.kind {
                        Kind::File => is_stored(repo, &node.content, BlobKind::Chunk, *counting),
                        _ => Ok(true),
                    };
                    match stored {
                        Ok(true) => {}
                        Ok(false) => continue,
                        Err(e) => {
                            tell(&e);
                            doubt(repo, *counting, &node.content, node.kind);
                            continue;
                        }
                    }
                    entries.push(KnownEntry::of(mark(repo.id_keys(), folder, &node.name), node));
                }
                Some(KnownFolder { content: content.clone(), entries })
            }
            _ => None,
        }
    }
}
