//! What a source looked like before: from the state on this machine, or else
//! from the trees of an earlier snapshot, if the key can read them.

use super::known::{Known, KnownEntry, KnownFolder, Mark, Version};
use crate::clock::Timestamp;
use crate::crypto::derive::IdKeys;
use crate::format::content::Content;
use crate::format::node::Kind;
use crate::format::pack::BlobKind;
use crate::id::{BlobId, SnapshotId};
use crate::index::Hint;
use crate::repo::{Counting, Repository};
use crate::snapshot;

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
        /// What counts as stored; `None` in a dry run, which stores nothing.
        counting: Option<&'r Counting>,
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
fn is_stored(repo: &Repository, content: &Content, counting: Option<&Counting>) -> bool {
    let mut hint = Hint::default();
    let mut counts = |id: &BlobId| {
        let found = repo.index().find(id, &mut hint, |pack, place| counting.is_none_or(|c| c.counts(pack, place)));
        found.is_ok_and(|found| found.is_some())
    };
    let mut open = vec![content.clone()];
    while let Some(content) = open.pop() {
        for id in content.extents.iter().filter_map(|e| e.id) {
            if !counts(&id) {
                return false;
            }
            if content.level > 0 {
                let list = repo.blob(BlobKind::List, &id).ok().and_then(|bytes| Content::decode(&bytes).ok());
                match list {
                    // Levels strictly descend, so that no list can lead back to itself.
                    Some(list) if list.level < content.level => open.push(list),
                    _ => return false,
                }
            }
        }
    }
    true
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
            (Base::Known(version), Token::Mark(mark)) => known?.folder(version.number, mark).ok().flatten(),
            (Base::Trees { repo, counting, .. }, Token::Content(content)) => {
                if !is_stored(repo, content, *counting) {
                    return None;
                }
                let mut entries = Vec::new();
                for node in snapshot::Folder::new(repo, content) {
                    let node = node.ok()?;
                    // These trees were written by somebody else's notes: what does not count is read. A
                    // folder's own are looked at when it is read.
                    if node.kind == Kind::File && !is_stored(repo, &node.content, *counting) {
                        continue;
                    }
                    entries.push(KnownEntry {
                        name: mark(repo.id_keys(), folder, &node.name),
                        kind: node.kind,
                        size: node.size,
                        mtime: node.mtime,
                        ctime: node.ctime,
                        inode: node.inode,
                        content: node.content,
                    });
                }
                Some(KnownFolder { content: content.clone(), entries })
            }
            _ => None,
        }
    }
}
