//! Building the content of a stream: extents as they come, gathered into lists
//! and lists of lists. A list closes on an id that says so, so that equal runs
//! of chunks make equal lists wherever they stand.

use crate::error::Result;
use crate::format::content::{Content, Extent};
use crate::format::pack::BlobKind;
use crate::limits;
use crate::repo::Lane;

/// A stream's content under construction.
#[derive(Default)]
pub struct ContentBuilder {
    /// Extents that wait at each level; `levels[n]` become lists of level n.
    levels: Vec<Vec<Extent>>,
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

impl ContentBuilder {
    /// Adds the next extent.
    ///
    /// # Errors
    /// The lane's.
    pub fn push(&mut self, extent: Extent, lane: &mut Lane<'_>) -> Result<()> {
        self.push_at(0, extent, lane)
    }

    fn push_at(&mut self, level: usize, extent: Extent, lane: &mut Lane<'_>) -> Result<()> {
        if self.levels.len() == level {
            self.levels.push(Vec::new());
        }
        self.levels[level].push(extent);
        if closes(&self.levels[level]) { self.close(level, lane) } else { Ok(()) }
    }

    fn close(&mut self, level: usize, lane: &mut Lane<'_>) -> Result<()> {
        let list = Content { level: level as u8, extents: std::mem::take(&mut self.levels[level]) };
        let (id, _) = lane.put(BlobKind::List, &list.encode())?;
        self.push_at(level + 1, Extent { id: Some(id), len: list.len() }, lane)
    }

    /// The content of the whole stream.
    ///
    /// # Errors
    /// The lane's.
    pub fn finish(mut self, lane: &mut Lane<'_>) -> Result<Content> {
        let mut level = 0;
        while level < self.levels.len() {
            let top = level + 1 == self.levels.len();
            if top && self.levels[level].len() <= limits::INLINE_EXTENTS {
                return Ok(Content { level: level as u8, extents: std::mem::take(&mut self.levels[level]) });
            }
            if !self.levels[level].is_empty() {
                self.close(level, lane)?;
            }
            level += 1;
        }
        Ok(Content::default())
    }
}
