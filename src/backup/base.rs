//! What a source looked like before: from the state on this machine, or else
//! from the trees of an earlier snapshot, if the key can read them.

use super::known::{Known, KnownEntry, KnownFolder, Mark, Version};
use crate::clock::Timestamp;
use crate::crypto::derive::IdKeys;
use crate::format::content::Content;
use crate::format::node::{Kind, Node};
use crate::id::{BlobId, SnapshotId};
use crate::index::{Hint, PackMap, Place};
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
        /// Which copies count; a dry run has no session, and relies on none.
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

/// True if every blob of a file has a copy that counts. A folder's are found out when it is read.
fn is_stored(repo: &Repository, counting: Option<&Counting>, node: &Node) -> bool {
    let mut hint = Hint::default();
    let counts = |pack: &PackMap, place: &Place| counting.is_none_or(|c| c.counts(pack, place));
    let mut known = |id: &BlobId| repo.index().find(id, &mut hint, counts).is_ok_and(|found| found.is_some());
    node.kind != Kind::File
        || snapshot::leaves(repo, &node.content).all(|e| e.is_ok_and(|e| e.id.is_none_or(|id| known(&id))))
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
                let mut entries = Vec::new();
                for node in snapshot::Folder::new(repo, content) {
                    let node = node.ok()?;
                    // These trees rest on notes of another time: what has no copy that counts now is read.
                    if !is_stored(repo, *counting, &node) {
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
