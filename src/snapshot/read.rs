//! Reading what lies below a snapshot: content lists down to their extents,
//! folders a segment at a time, and paths.

use crate::error::{Error, Result};
use crate::format::content::{Content, Extent};
use crate::format::node::{Kind, Node, decode_segment};
use crate::format::pack::BlobKind;
use crate::id::BlobId;
use crate::limits;
use crate::repo::Repository;
use std::collections::HashSet;

/// The extents of a stream, in order; reads a list when it comes to it.
pub struct Leaves<'r> {
    repo: &'r Repository,
    /// For each level that is open: its number, and what is left of it.
    open: Vec<(u8, std::vec::IntoIter<Extent>)>,
    /// The level whose extents come.
    bottom: u8,
    /// Extents that may still come.
    left: u64,
    /// Lists that were read, if each is to be read once only.
    seen: Option<HashSet<BlobId>>,
}

/// The extents of a stream.
pub fn leaves<'r>(repo: &'r Repository, content: &Content) -> Leaves<'r> {
    Leaves {
        repo,
        open: vec![(content.level, content.extents.clone().into_iter())],
        bottom: 0,
        left: limits::FILE_EXTENTS_MAX,
        seen: None,
    }
}

/// The lists of a stream that stand at `level`: at 0 its own extents, at 1 the lists of those, and so
/// on. Nothing, where the stream has not so many levels.
pub fn lists_at<'r>(repo: &'r Repository, content: &Content, level: u8) -> Leaves<'r> {
    let mut lists = Leaves { bottom: level, ..leaves(repo, content) };
    if content.level < level {
        lists.open.clear();
    }
    lists
}

/// The extents of a stream, for whoever only asks which there are: a list that stands in it again is
/// left out. A few lists may make up a stream longer than anyone could go through.
pub fn distinct_leaves<'r>(repo: &'r Repository, content: &Content) -> Leaves<'r> {
    Leaves { seen: Some(HashSet::new()), ..leaves(repo, content) }
}

impl Iterator for Leaves<'_> {
    type Item = Result<Extent>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (level, extents) = self.open.last_mut()?;
            let level = *level;
            match extents.next() {
                None => {
                    self.open.pop();
                }
                Some(_) if self.left == 0 => {
                    self.open.clear();
                    return Some(Err(Error::damaged("a content", "it has more parts than any that is read")));
                }
                Some(extent) if level == self.bottom => {
                    self.left -= 1;
                    return Some(Ok(extent));
                }
                Some(Extent { id: Some(id), .. }) if self.seen.as_mut().is_some_and(|seen| !seen.insert(id)) => {}
                Some(extent) => match self.list(&extent, level) {
                    Ok(list) => self.open.push((list.level, list.extents.into_iter())),
                    Err(e) => {
                        self.left -= 1;
                        return Some(Err(e));
                    }
                },
            }
        }
    }
}

impl Leaves<'_> {
    fn list(&self, extent: &Extent, level: u8) -> Result<Content> {
        let Some(id) = extent.id else {
            return Err(Error::damaged("a content list", "a hole stands where a list should be"));
        };
        let bytes = self.repo.blob(BlobKind::List, &id)?;
        let list = Content::decode(&bytes).map_err(|e| e.of(format!("content list {id}")))?;
        // Levels strictly descend, so that no list can lead back to itself.
        if list.level + 1 != level || list.len() != extent.len {
            return Err(Error::damaged(format!("content list {id}"), "it does not fit where it stands"));
        }
        Ok(list)
    }
}

/// A folder's entries, in order of their names; reads a segment when it comes to it.
pub struct Folder<'r> {
    repo: &'r Repository,
    segments: Leaves<'r>,
    nodes: std::vec::IntoIter<Node>,
    last: Vec<u8>,
}

impl<'r> Folder<'r> {
    /// The folder made of `content`.
    pub fn new(repo: &'r Repository, content: &Content) -> Self {
        let segments = Leaves { left: limits::FOLDER_SEGMENTS_MAX, ..leaves(repo, content) };
        Self { repo, segments, nodes: Vec::new().into_iter(), last: Vec::new() }
    }

    fn segment(&mut self, extent: &Extent) -> Result<()> {
        let Some(id) = extent.id else {
            return Err(Error::damaged("a tree", "a hole stands where a segment should be"));
        };
        let bytes = self.repo.blob(BlobKind::Tree, &id)?;
        if bytes.len() as u64 != extent.len {
            return Err(Error::damaged(format!("tree {id}"), "it has another length than its folder says"));
        }
        let nodes = decode_segment(&bytes).map_err(|e| e.of(format!("tree {id}")))?;
        // Names ascend across segments too: none can stand twice in a folder. Damage does not do that,
        // so what follows is no folder any more.
        if nodes.is_empty() || nodes.first().is_some_and(|first| !self.last.is_empty() && first.name <= self.last) {
            self.segments.open.clear();
            return Err(Error::damaged(format!("tree {id}"), "its entries do not follow those before"));
        }
        if let Some(last) = nodes.last() {
            self.last.clone_from(&last.name);
        }
        self.nodes = nodes.into_iter();
        Ok(())
    }
}

impl Iterator for Folder<'_> {
    type Item = Result<Node>;

    /// After an error the iterator goes on with what comes next: one lost segment hides no other.
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(node) = self.nodes.next() {
                return Some(Ok(node));
            }
            match self.segments.next()? {
                Ok(extent) => {
                    if let Err(e) = self.segment(&extent) {
                        return Some(Err(e));
                    }
                }
                Err(e) => return Some(Err(e)),
            }
        }
    }
}

/// The entry at `path` below a root: names divided by `/`, empty ones skipped. `None` is the root itself.
///
/// # Errors
/// [`Error::NotFound`], or what keeps the way there from being read.
pub fn find(repo: &Repository, root: &Content, path: &[u8]) -> Result<Option<Node>> {
    let mut at: Option<Node> = None;
    for name in path.split(|b| *b == b'/').filter(|name| !name.is_empty() && *name != b".") {
        let content = match &at {
            None => root,
            Some(node) if node.kind == Kind::Dir => &node.content,
            Some(_) => return Err(not_found(path)),
        };
        at = Some(child(repo, content, name)?.ok_or_else(|| not_found(path))?);
    }
    Ok(at)
}

fn child(repo: &Repository, content: &Content, name: &[u8]) -> Result<Option<Node>> {
    let mut trouble = None;
    for node in Folder::new(repo, content) {
        match node {
            Ok(node) if node.name == name => return Ok(Some(node)),
            Ok(_) => {}
            Err(e) => trouble = Some(e),
        }
    }
    // The entry may lie in the part that could not be read.
    trouble.map_or(Ok(None), Err)
}

fn not_found(path: &[u8]) -> Error {
    Error::NotFound(format!("the snapshot holds no {}", String::from_utf8_lossy(path).escape_debug()))
}
