//! Building a folder: nodes in order of their names, gathered into segments. A
//! segment closes on a name whose hash says so: a file that comes or goes in a
//! folder of a million changes one segment.

use super::content::ContentBuilder;
use super::replace::Replace;
use crate::error::Result;
use crate::format::content::{Content, Extent};
use crate::format::node::{Node, encode_segment};
use crate::format::pack::BlobKind;
use crate::limits;
use crate::repo::Lane;

/// A folder under construction.
pub struct TreeBuilder<'r> {
    encoded: Vec<u8>,
    nodes: usize,
    segments: Replace<'r>,
    content: ContentBuilder<'r>,
}

impl<'r> TreeBuilder<'r> {
    /// The folder that was `old` before; empty for a new one.
    pub fn new(old: &Content, lane: &Lane<'r>) -> Self {
        let segments = Replace::new(BlobKind::Tree, old, 0, lane);
        Self { encoded: Vec::new(), nodes: 0, segments, content: ContentBuilder::new(old.clone()) }
    }

    /// Adds the next node.
    ///
    /// # Errors
    /// The lane's.
    pub fn push(&mut self, node: &Node, lane: &mut Lane<'r>) -> Result<()> {
        let before = self.encoded.len();
        node.write_to(&mut self.encoded);
        if before > 0 && self.encoded.len() > limits::TREE_SEGMENT_MAX {
            let last = self.encoded.split_off(before);
            self.close(lane)?;
            self.encoded = last;
        }
        self.nodes += 1;
        let wanted = || blake3::hash(&node.name).as_bytes()[0] < 16;
        if self.encoded.len() >= limits::TREE_SEGMENT_MIN && wanted() {
            self.close(lane)?;
        }
        Ok(())
    }

    fn close(&mut self, lane: &mut Lane<'r>) -> Result<()> {
        let segment = encode_segment(self.nodes, &self.encoded);
        self.encoded.clear();
        self.nodes = 0;
        let id = self.segments.put(&segment, segment.len() as u64, lane)?;
        self.content.push(Extent { id: Some(id), len: segment.len() as u64 }, lane)
    }

    /// The folder's content.
    ///
    /// # Errors
    /// The lane's.
    pub fn finish(mut self, lane: &mut Lane<'r>) -> Result<Content> {
        if self.nodes > 0 {
            self.close(lane)?;
        }
        self.segments.finish(lane)?;
        self.content.finish(lane)
    }
}
