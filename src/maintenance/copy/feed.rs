//! Reading a snapshot in its order, for whoever cuts it anew: entries as they come, and the content of files
//! in parts of bounded size, whose frames are each decoded once. A folder, and a file's content, that are as
//! they were in a snapshot whose copy is at the target are not read: the copy's stand for them.

use crate::backup::pattern_of;
use crate::error::{Error, Result};
use crate::format::content::{Content, Extent};
use crate::format::node::{Kind, Node};
use crate::format::pack::BlobKind;
use crate::id::BlobId;
use crate::index::Hint;
use crate::limits;
use crate::monitor::{Event, Monitor};
use crate::repo::{FrameNumber, Reading, Repository, Trust};
use crate::snapshot::{Folder, leaves};
use crossbeam_channel::Sender;
use std::collections::HashMap;
use std::iter::Peekable;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// What was copied before, at the source and at the target.
#[derive(Clone)]
pub(super) struct Pair {
    pub source: Content,
    pub copy: Content,
}

/// What comes next of a snapshot.
pub(super) enum Step {
    /// A folder, whose entries follow up to [`Step::Close`], and what its copy was made of; the root has no node.
    Open { node: Option<Box<Node>>, old: Content },
    /// The folder ends.
    Close,
    /// An entry whose content is the target's already, or that has none.
    Entry(Box<Node>),
    /// A further name of a file that came before.
    Again(Box<Node>),
    /// A file, whose content follows up to [`Step::End`], and what its copy was made of.
    File { node: Box<Node>, old: Content },
    /// Bytes of the file, in the batch.
    Data(Range<usize>),
    /// A hole in it.
    Hole(u64),
    /// The file ends.
    End,
}

/// Some steps, and the bytes that they name.
#[derive(Default)]
pub(super) struct Batch {
    pub steps: Vec<Step>,
    pub bytes: Vec<u8>,
}

/// Feeds a snapshot to `batches`, until it ends or nobody takes it.
///
/// # Errors
/// What is damaged or lost at the source, [`Error::Interrupted`], or the store's.
pub(super) fn feed(
    (source, target): (&Repository, &Repository),
    root: &Content,
    base: Option<Pair>,
    batches: &Sender<Batch>,
    monitor: &dyn Monitor,
) -> Result<()> {
    let mut feeder = Feeder {
        source,
        target,
        batches,
        monitor,
        steps: Vec::new(),
        len: 0,
        chunks: Vec::new(),
        linked: HashMap::new(),
        is_heard: true,
        hint: Hint::default(),
    };
    feeder.walk(root, base)?;
    feeder.flush()
}

/// A chunk's place in a batch.
struct Chunk {
    id: BlobId,
    at: usize,
    len: usize,
}

struct Feeder<'f> {
    source: &'f Repository,
    target: &'f Repository,
    batches: &'f Sender<Batch>,
    monitor: &'f dyn Monitor,
    steps: Vec<Step>,
    /// Bytes of the batch so far.
    len: usize,
    chunks: Vec<Chunk>,
    /// The content of files of several names that came before.
    linked: HashMap<(u64, u64), Content>,
    /// False once nobody takes batches.
    is_heard: bool,
    hint: Hint,
}

/// A folder that is open.
struct Level<'f> {
    entries: Folder<'f>,
    before: Option<Before<'f>>,
}

/// A folder as it was, at the source and at the target, entry by entry.
struct Before<'f> {
    source: Peekable<Folder<'f>>,
    copy: Folder<'f>,
    /// Files that were passed, by their names' patterns: what a file of a new name is held against.
    passed: HashMap<Vec<u8>, Content>,
}

/// Patterns that are remembered of a folder.
const PASSED_MAX: usize = 64;

impl Before<'_> {
    /// The entry of this name, at both places. Entries come in the order of names. What cannot be read, or is
    /// not the same entry at both, ends it: then all is read that is still to come.
    fn named(&mut self, name: &[u8]) -> Option<(Node, Node)> {
        loop {
            let next = self.source.peek()?.as_ref().ok()?;
            if *next.name > *name {
                return None;
            }
            let (was, copy) = (self.source.next()?.ok()?, self.copy.next()?.ok()?);
            if was.name != copy.name || was.kind != copy.kind {
                return None;
            }
            if was.kind == Kind::File
                && was.size >= limits::COPY_LIKE_MIN
                && self.passed.len() < PASSED_MAX
                && let Some(pattern) = pattern_of(&was.name)
            {
                self.passed.insert(pattern, copy.content.clone());
            }
            if *was.name == *name {
                return Some((was, copy));
            }
        }
    }
}

impl<'f> Feeder<'f> {
    fn walk(&mut self, root: &Content, base: Option<Pair>) -> Result<()> {
        let old = base.as_ref().map(|base| base.copy.clone()).unwrap_or_default();
        self.steps.push(Step::Open { node: None, old });
        let mut levels = vec![self.level(root, base)];
        while let Some(depth) = levels.len().checked_sub(1) {
            let Some(level) = levels.last_mut() else { return Ok(()) };
            if self.monitor.cancelled() {
                return Err(Error::Interrupted);
            }
            if !self.is_heard {
                return Ok(());
            }
            match level.entries.next() {
                None => {
                    self.steps.push(Step::Close);
                    levels.pop();
                }
                Some(node) => {
                    let below = self.entry(node?, level.before.as_mut())?;
                    if below.is_some() && depth + 1 >= limits::DEPTH_MAX {
                        return Err(Error::damaged("a tree", "its folders are too deep"));
                    }
                    levels.extend(below);
                }
            }
            self.flush_if_full()?;
        }
        Ok(())
    }

    fn level(&self, content: &Content, base: Option<Pair>) -> Level<'f> {
        let before = base.map(|base| Before {
            source: Folder::new(self.source, &base.source).peekable(),
            copy: Folder::new(self.target, &base.copy),
            passed: HashMap::new(),
        });
        Level { entries: Folder::new(self.source, content), before }
    }

    /// Takes the next entry; a folder is given back, to be walked.
    fn entry(&mut self, mut node: Node, before: Option<&mut Before<'f>>) -> Result<Option<Level<'f>>> {
        self.monitor.event(Event::Entries(1));
        let mut like = None;
        let old = before.and_then(|before| {
            let named = before.named(&node.name);
            if named.is_none() && node.kind == Kind::File {
                like = pattern_of(&node.name).and_then(|pattern| before.passed.get(&pattern).cloned());
            }
            named
        });
        let old = old.filter(|(was, _)| was.kind == node.kind);
        match (node.kind, old) {
            (Kind::Dir | Kind::File, Some((was, copy))) if was.content == node.content => {
                node.content = copy.content;
                self.steps.push(Step::Entry(Box::new(node)));
            }
            (Kind::Dir, old) => {
                let content = std::mem::take(&mut node.content);
                let base = old.map(|(was, copy)| Pair { source: was.content, copy: copy.content });
                let old = base.as_ref().map(|base| base.copy.clone()).unwrap_or_default();
                self.steps.push(Step::Open { node: Some(Box::new(node)), old });
                return Ok(Some(self.level(&content, base)));
            }
            (Kind::File, old) => {
                let old = old.map(|(_, copy)| copy.content).or(like).unwrap_or_default();
                self.file(node, old)?;
            }
            _ => self.steps.push(Step::Entry(Box::new(node))),
        }
        Ok(None)
    }

    fn file(&mut self, mut node: Node, old: Content) -> Result<()> {
        let content = std::mem::take(&mut node.content);
        if node.links > 1 {
            let inode = (node.device, node.inode);
            if self.linked.get(&inode) == Some(&content) {
                self.steps.push(Step::Again(Box::new(node)));
                return Ok(());
            }
            if self.linked.len() < limits::COPY_LINKED_MAX {
                self.linked.insert(inode, content.clone());
            }
        }
        self.steps.push(Step::File { node: Box::new(node), old });
        for extent in leaves(self.source, &content) {
            match extent? {
                Extent { id: None, len } => self.steps.push(Step::Hole(len)),
                Extent { id: Some(id), len } => self.chunk(id, len)?,
            }
            self.flush_if_full()?;
            if !self.is_heard {
                return Ok(());
            }
        }
        self.steps.push(Step::End);
        Ok(())
    }

    fn chunk(&mut self, id: BlobId, len: u64) -> Result<()> {
        let len = usize::try_from(len).ok().filter(|len| *len <= limits::FRAME_PLAIN_MAX);
        let len = len.ok_or_else(|| Error::damaged("a content", format!("no chunk is as long as {id}")))?;
        let at = self.len;
        self.len += len;
        match self.steps.last_mut() {
            Some(Step::Data(range)) => range.end += len,
            _ => self.steps.push(Step::Data(at..at + len)),
        }
        self.chunks.push(Chunk { id, at, len });
        Ok(())
    }

    fn flush_if_full(&mut self) -> Result<()> {
        let is_full = self.len >= limits::COPY_BATCH_BYTES || self.steps.len() >= limits::COPY_BATCH_STEPS;
        if is_full { self.flush() } else { Ok(()) }
    }

    /// Reads what the batch needs, and hands it over.
    fn flush(&mut self) -> Result<()> {
        let bytes = self.read()?;
        self.len = 0;
        let batch = Batch { steps: std::mem::take(&mut self.steps), bytes };
        self.is_heard &= self.batches.send(batch).is_ok();
        Ok(())
    }

    fn read(&mut self) -> Result<Vec<u8>> {
        let chunks = std::mem::take(&mut self.chunks);
        let (source, monitor) = (self.source, self.monitor);
        let bytes = Mutex::new((vec![0; self.len], vec![false; chunks.len()]));
        let mut reading = Reading::default();
        let mut of: HashMap<FrameNumber, Vec<(usize, u32)>> = HashMap::new();
        for (n, chunk) in chunks.iter().enumerate() {
            let fits = |copy: &crate::index::BlobCopy| Ok(copy.size() as usize == chunk.len);
            let Some(copy) = source.index().find(&chunk.id, &mut self.hint, fits)? else { continue };
            if let Some(frame) = reading.need(source, &copy)? {
                of.entry(frame).or_default().push((n, copy.at()));
            }
        }
        reading.run(source, Trust::Blobs, monitor, &|number, decoded| {
            let Some(wanted) = of.get(&number) else { return Ok(()) };
            let decoded = match decoded {
                Ok(decoded) => decoded,
                // Each is asked for by itself, from any copy.
                Err(e) if e.is_damage() => return Ok(()),
                Err(e) => return Err(e),
            };
            for (n, begin) in wanted {
                let Chunk { id, at, len } = &chunks[*n];
                let blob = decoded.plain.get(*begin as usize..*begin as usize + len).unwrap_or_default();
                if source.id_keys().blob_id(BlobKind::Chunk, blob) == *id {
                    let mut bytes = bytes.lock().unwrap_or_else(PoisonError::into_inner);
                    bytes.0[*at..at + len].copy_from_slice(blob);
                    bytes.1[*n] = true;
                }
            }
            Ok(())
        })?;
        let (mut bytes, is_read) = bytes.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (chunk, _) in chunks.iter().zip(is_read).filter(|(_, is)| !is) {
            let blob = source.blob(BlobKind::Chunk, &chunk.id)?;
            if blob.len() != chunk.len {
                let what = format!("chunk {}", chunk.id);
                return Err(Error::damaged(what, "it has another length than its content says"));
            }
            bytes[chunk.at..chunk.at + chunk.len].copy_from_slice(&blob);
        }
        Ok(bytes)
    }
}
