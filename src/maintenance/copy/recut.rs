//! Copying between tenants of different id keys: what [`super::feed`] reads is cut by the target's table, put
//! through the writer like a backup's files, against what the copy before it was made of, and gathered into
//! trees. Beside the reading, on a thread of its own.

use super::feed::{self, Batch, Pair, Step};
use crate::backup::{FileReader, Stop, TreeBuilder};
use crate::crypto::stack;
use crate::error::{Error, Result};
use crate::format::content::Content;
use crate::format::node::Node;
use crate::limits;
use crate::monitor::Monitor;
use crate::repo::{Lane, Repository, Writer};
use crossbeam_channel::{Receiver, bounded};
use std::collections::HashMap;
use std::io::{self, Read};
use std::ops::Range;
use std::thread;

/// Brings a snapshot's root, and all below it; its root at the target.
///
/// # Errors
/// What is damaged or lost at the source, [`Error::Interrupted`], the source's store; and that the writer has
/// stopped.
pub(super) fn bring(
    source: &Repository,
    target: &Repository,
    writer: &Writer<'_>,
    (root, base): (&Content, Option<Pair>),
    monitor: &dyn Monitor,
) -> Result<Content> {
    let (batches_tx, batches) = bounded(1);
    thread::scope(|scope| {
        let feeder =
            scope.spawn(move || stack::wiped(|| feed::feed((source, target), root, base, &batches_tx, monitor)));
        let reader = FileReader::new(writer.lane(), target.chunker(), monitor);
        let steps = Steps { batches, steps: Vec::new().into_iter(), bytes: Vec::new(), held: None };
        let cut = Cutter { reader, lane: writer.lane(), steps, linked: HashMap::new() }.run();
        let fed = feeder.join().unwrap_or_else(|_| Err(Error::Invalid("a reading thread panicked".into())));
        // Whoever feeds no more is the cause.
        fed.and(cut)
    })
}

/// The steps, as they come.
struct Steps {
    batches: Receiver<Batch>,
    steps: std::vec::IntoIter<Step>,
    bytes: Vec<u8>,
    /// A step that was taken, and is still to be done.
    held: Option<Step>,
}

impl Steps {
    /// The next one; `None` where nobody feeds any more.
    fn next(&mut self) -> Option<Step> {
        if let Some(held) = self.held.take() {
            return Some(held);
        }
        loop {
            if let Some(step) = self.steps.next() {
                return Some(step);
            }
            let batch = self.batches.recv().ok()?;
            self.steps = batch.steps.into_iter();
            self.bytes = batch.bytes;
        }
    }
}

/// A stretch of a file between holes, whose parts may lie in several batches.
struct Stretch<'s> {
    steps: &'s mut Steps,
    left: Range<usize>,
}

impl Read for Stretch<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.left.is_empty() {
            match self.steps.next() {
                Some(Step::Data(next)) => self.left = next,
                Some(other) => {
                    self.steps.held = Some(other);
                    return Ok(0);
                }
                None => return Err(io::Error::other("the snapshot breaks off")),
            }
        }
        let len = self.left.len().min(buffer.len());
        let from = self.steps.bytes.get(self.left.start..self.left.start + len).unwrap_or_default();
        buffer[..from.len()].copy_from_slice(from);
        self.left.start += len;
        Ok(len)
    }
}

/// The error where whoever feeds has ended too early: it tells why.
fn broken() -> Error {
    Error::Invalid("the snapshot breaks off".into())
}

fn repository(stop: Stop) -> Error {
    match stop {
        Stop::Source(_) => broken(),
        Stop::Repository(e) => e,
    }
}

struct Cutter<'w> {
    reader: FileReader<'w>,
    lane: Lane<'w>,
    steps: Steps,
    /// The content of files of several names.
    linked: HashMap<(u64, u64), Content>,
}

impl<'w> Cutter<'w> {
    fn run(mut self) -> Result<Content> {
        let root = self.root()?;
        self.reader.finish()?;
        self.lane.finish()?;
        Ok(root)
    }

    fn root(&mut self) -> Result<Content> {
        let mut folders: Vec<(Option<Box<Node>>, TreeBuilder<'w>)> = Vec::new();
        loop {
            let mut done = match self.steps.next().ok_or_else(broken)? {
                Step::Open { node, old } => {
                    folders.push((node, TreeBuilder::new(&old, &self.lane)));
                    continue;
                }
                Step::Close => {
                    let (node, builder) = folders.pop().ok_or_else(broken)?;
                    let content = builder.finish(&mut self.lane)?;
                    let Some(mut node) = node else { return Ok(content) };
                    node.content = content;
                    node
                }
                Step::Entry(node) => node,
                Step::Again(mut node) => {
                    node.content = self.linked.get(&(node.device, node.inode)).cloned().ok_or_else(broken)?;
                    node
                }
                Step::File { node, old } => self.file(node, old)?,
                Step::Data(_) | Step::Hole(_) | Step::End => return Err(broken()),
            };
            let (_, above) = folders.last_mut().ok_or_else(broken)?;
            above.push(&done, &mut self.lane)?;
            done.content = Content::default();
        }
    }

    fn file(&mut self, mut node: Box<Node>, old: Content) -> Result<Box<Node>> {
        let mut building = self.reader.begin(old.into());
        loop {
            match self.steps.next().ok_or_else(broken)? {
                Step::Data(first) => {
                    let stretch = Stretch { steps: &mut self.steps, left: first };
                    self.reader.stream(stretch, &mut building).map_err(repository)?;
                }
                Step::Hole(len) => self.reader.hole(len, &mut building)?,
                Step::End => break,
                _ => return Err(broken()),
            }
        }
        node.content = self.reader.close(building)?;
        if node.links > 1 && self.linked.len() < limits::COPY_LINKED_MAX {
            self.linked.insert((node.device, node.inode), node.content.clone());
        }
        Ok(node)
    }
}
