//! Building the content of a stream: extents as they come, gathered into lists
//! and lists of lists. A list closes on an id that says so, so that equal runs
//! of chunks make equal lists wherever they stand.

use super::replace::Replace;
use crate::error::Result;
use crate::format::content::{Content, Extent};
use crate::format::pack::BlobKind;
use crate::limits;
use crate::repo::Lane;

/// A stream's content under construction.
pub struct ContentBuilder<'r> {
    /// What the stream was made of before.
    old: Content,
    levels: Vec<Level<'r>>,
}

/// Extents that wait to become a list.
struct Level<'r> {
    extents: Vec<Extent>,
    /// The lists that they become.
    lists: Replace<'r>,
}

fn closes(extents: &[Extent]) -> bool {
    let wanted = extents.last().and_then(|e| e.id).is_some_and(|id| id.0[BlobIdEnd::AT] == 0);
    extents.len() >= limits::LIST_MAX || wanted && extents.len() >= limits::LIST_MIN
}

/// The last byte of an id decides: the first ones order the index.
struct BlobIdEnd;

impl BlobIdEnd {
    const AT: usize = crate::id::BlobId::LEN - 1;
}

impl<'r> ContentBuilder<'r> {
    /// The content of a stream that was `old` before; empty for a new one.
    pub fn new(old: Content) -> Self {
        Self { old, levels: Vec::new() }
    }

    /// Adds the next extent.
    ///
    /// # Errors
    /// The lane's.
    pub fn push(&mut self, extent: Extent, lane: &mut Lane<'r>) -> Result<()> {
        self.push_at(0, extent, lane)
    }

    fn push_at(&mut self, level: usize, extent: Extent, lane: &mut Lane<'r>) -> Result<()> {
        if self.levels.len() == level {
            let lists = Replace::new(BlobKind::List, &self.old, level as u8 + 1, lane);
            self.levels.push(Level { extents: Vec::new(), lists });
        }
        self.levels[level].extents.push(extent);
        if closes(&self.levels[level].extents) { self.close(level, lane) } else { Ok(()) }
    }

    fn close(&mut self, level: usize, lane: &mut Lane<'r>) -> Result<()> {
        let at = &mut self.levels[level];
        let list = Content { level: level as u8, extents: std::mem::take(&mut at.extents) };
        let id = at.lists.put(&list.encode(), list.len(), lane)?;
        self.push_at(level + 1, Extent { id: Some(id), len: list.len() }, lane)
    }

    /// The content of the whole stream.
    ///
    /// # Errors
    /// The lane's.
    pub fn finish(mut self, lane: &mut Lane<'r>) -> Result<Content> {
        let mut content = Content::default();
        let mut level = 0;
        while level < self.levels.len() {
            let top = level + 1 == self.levels.len();
            let extents = &mut self.levels[level].extents;
            if top && extents.len() <= limits::INLINE_EXTENTS {
                content = Content { level: level as u8, extents: std::mem::take(extents) };
                break;
            }
            if !extents.is_empty() {
                self.close(level, lane)?;
            }
            level += 1;
        }
        self.levels.into_iter().try_for_each(|level| level.lists.finish(lane))?;
        Ok(content)
    }
}
