//! Copying between tenants of one id key: blobs keep their ids, so trees need no rewriting, and frames move
//! as they are, opened from the source's packs and sealed anew into the target's. Each blob is held against
//! its id on the way. Only what the target lacks moves; a delta frame moves with what it rests on, and comes
//! to lie one deeper than that lies at the target.
//!
//! What changed since a snapshot whose copy stands at the target is found by holding trees against each other:
//! a folder that both have is not read.

use crate::error::{Error, Result};
use crate::format::content::Content;
use crate::format::node::{Kind, decode_segment};
use crate::format::pack::{BlobKind, Frame, TAG_LEN};
use crate::id::BlobId;
use crate::index::Hint;
use crate::limits;
use crate::monitor::{Event, Monitor};
use crate::pack::EncodedFrame;
use crate::repo::{Decoded, Deltas, FrameNumber, Lane, Reading, Repository, Trust};
use crate::snapshot::{leaves, lists_at};
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Brings all that a snapshot's root needs through `lane`; what `old` needs is there.
///
/// # Errors
/// What is damaged or lost at the source, [`Error::Interrupted`], the source's store; and that the writer has
/// stopped.
pub(super) fn bring(
    source: &Repository,
    lane: Lane<'_>,
    (root, old): (&Content, Option<&Content>),
    deltas: Deltas,
    monitor: &dyn Monitor,
) -> Result<()> {
    let deepest = match deltas {
        Deltas::Plain | Deltas::Never => 0,
        Deltas::OnPlain => 1,
        Deltas::Chains => limits::FRAME_DEPTH_MAX,
    };
    let mut mover = Mover {
        source,
        lane,
        monitor,
        deepest,
        walked: HashSet::new(),
        batch: Batch::default(),
        hint: Hint::default(),
    };
    mover.walk(root, old)?;
    mover.settle()?;
    mover.lane.finish()
}

/// A frame of which something is to be moved.
struct Wanted {
    frame: Frame,
    /// Which of its blobs.
    blobs: Vec<bool>,
}

/// Frames that are read together.
#[derive(Default)]
struct Batch {
    reading: Reading,
    wanted: HashMap<FrameNumber, Wanted>,
    /// Blobs that were asked for.
    asked: HashSet<BlobId>,
    /// Blobs that cannot be planned: each is read by itself.
    single: Vec<(BlobKind, BlobId)>,
}

/// How a frame moves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// As it is, at this depth.
    Whole(u8),
    /// Its wanted blobs, each for itself.
    Parts,
}

struct Mover<'m> {
    source: &'m Repository,
    lane: Lane<'m>,
    monitor: &'m dyn Monitor,
    /// The deepest frame that the copy may rest on.
    deepest: u8,
    /// Trees and lists that were walked.
    walked: HashSet<BlobId>,
    batch: Batch,
    hint: Hint,
}

/// The ids of a stream's lists, and of a folder's segments too.
fn parts(repo: &Repository, content: &Content, with_leaves: bool) -> Result<HashSet<BlobId>> {
    let mut ids = HashSet::new();
    for level in u8::from(!with_leaves)..=content.level {
        for extent in lists_at(repo, content, level) {
            ids.extend(extent?.id);
        }
    }
    Ok(ids)
}

impl Mover<'_> {
    fn walk(&mut self, root: &Content, old: Option<&Content>) -> Result<()> {
        let mut folders = vec![(root.clone(), old.cloned())];
        while let Some((new, old)) = folders.pop() {
            if self.monitor.cancelled() {
                return Err(Error::Interrupted);
            }
            if old.as_ref() != Some(&new) {
                self.folder(&new, old.as_ref(), &mut folders)?;
            }
        }
        Ok(())
    }

    fn folder(
        &mut self,
        new: &Content,
        old: Option<&Content>,
        folders: &mut Vec<(Content, Option<Content>)>,
    ) -> Result<()> {
        // What cannot be read of the old one is no reason not to copy the new one.
        let was = old.map(|old| parts(self.source, old, true)).and_then(Result::ok).unwrap_or_default();
        let segments = self.stream(BlobKind::Tree, new, &was)?;
        if segments.is_empty() {
            return Ok(());
        }
        let is: HashSet<BlobId> = segments.iter().copied().collect();
        let mut before: HashMap<Vec<u8>, (Kind, Content)> = HashMap::new();
        for id in old.into_iter().flat_map(|old| leaves(self.source, old)).filter_map(|e| e.ok()?.id) {
            if is.contains(&id) {
                continue;
            }
            let nodes = self.source.blob(BlobKind::Tree, &id).ok().and_then(|bytes| decode_segment(&bytes).ok());
            before.extend(nodes.into_iter().flatten().map(|node| (node.name, (node.kind, node.content))));
        }
        for id in segments {
            let bytes = self.source.blob(BlobKind::Tree, &id)?;
            for node in decode_segment(&bytes).map_err(|e| e.of(format!("tree {id}")))? {
                let old = before.get(&node.name).filter(|(kind, _)| *kind == node.kind).map(|(_, content)| content);
                match node.kind {
                    Kind::Dir => folders.push((node.content, old.cloned())),
                    Kind::File if old != Some(&node.content) => {
                        let was = old.map(|old| parts(self.source, old, false)).and_then(Result::ok);
                        self.stream(BlobKind::Chunk, &node.content, &was.unwrap_or_default())?;
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Asks for what a stream is made of, but for what was there before, and below it; the segments of a folder
    /// that were not.
    fn stream(&mut self, kind: BlobKind, content: &Content, was: &HashSet<BlobId>) -> Result<Vec<BlobId>> {
        let mut segments = Vec::new();
        let mut open = vec![content.clone()];
        while let Some(content) = open.pop() {
            for id in content.extents.iter().filter_map(|extent| extent.id) {
                if was.contains(&id) || content.level > 0 && !self.walked.insert(id) {
                    continue;
                }
                let kind = if content.level > 0 { BlobKind::List } else { kind };
                if kind == BlobKind::Tree && !self.walked.insert(id) {
                    continue;
                }
                self.need(kind, &id)?;
                match kind {
                    BlobKind::Chunk => {}
                    BlobKind::Tree => segments.push(id),
                    BlobKind::List => {
                        let bytes = self.source.blob(kind, &id)?;
                        let list = Content::decode(&bytes).map_err(|e| e.of(format!("content list {id}")))?;
                        // Levels strictly descend, so that no list can lead back to itself.
                        if list.level + 1 != content.level {
                            return Err(Error::damaged(
                                format!("content list {id}"),
                                "it does not fit where it stands",
                            ));
                        }
                        open.push(list);
                    }
                }
            }
        }
        Ok(segments)
    }

    /// Plans to move a blob, unless it is there.
    fn need(&mut self, kind: BlobKind, id: &BlobId) -> Result<()> {
        if self.batch.asked.contains(id) || self.lane.is_stored(id)? {
            return Ok(());
        }
        self.batch.asked.insert(*id);
        let (index, deepest) = (self.source.index(), self.deepest);
        let mut copy = index.find(id, &mut self.hint, |copy| Ok(copy.depth() <= deepest))?;
        if copy.is_none() {
            copy = index.find_surely(id, |_| Ok(true))?;
        }
        let planned = match &copy {
            Some(copy) => self.batch.reading.need(self.source, copy)?,
            None => None,
        };
        match (copy, planned) {
            (Some(copy), Some(number)) => self.batch.want(number, copy.frame(), id),
            _ => self.batch.single.push((kind, *id)),
        }
        if self.batch.reading.len() >= limits::READ_BATCH_FRAMES
            || self.batch.asked.len() >= limits::CHECK_BATCH_BLOBS
        {
            self.settle()?;
        }
        Ok(())
    }

    /// Moves what was planned.
    fn settle(&mut self) -> Result<()> {
        let mut batch = std::mem::take(&mut self.batch);
        self.pull_bases(&mut batch)?;
        let ways = self.ways(&batch)?;
        let again = Mutex::new(batch.single);
        let lane = Mutex::new(&mut self.lane);
        let (source, monitor) = (self.source, self.monitor);
        batch.reading.run(source, Trust::Bases, monitor, &|number, decoded| {
            let (Some(wanted), Some(how)) = (batch.wanted.get(&number), ways.get(&number)) else { return Ok(()) };
            monitor.event(Event::Bytes(wanted.frame.stored.into()));
            let all = || wanted.frame.ids.iter().zip(&wanted.blobs).filter(|(_, is)| **is).map(|(id, _)| *id);
            match decoded {
                Ok(decoded) => {
                    let wrong = moved(source, &lane, wanted, *how, &decoded)?;
                    lock(&again).extend(wrong.into_iter().map(|id| (wanted.frame.kind, id)));
                }
                Err(e) if e.is_damage() => lock(&again).extend(all().map(|id| (wanted.frame.kind, id))),
                Err(e) => return Err(e),
            }
            Ok(())
        })?;
        // From any other copy; a pack that is gone has the index read again.
        for (kind, id) in again.into_inner().unwrap_or_else(PoisonError::into_inner) {
            let blob = source.blob(kind, &id)?;
            self.lane.put(kind, &blob)?;
        }
        Ok(())
    }

    /// Adds what frames rest on that the target lacks. Bases were planned before what rests on them.
    fn pull_bases(&mut self, batch: &mut Batch) -> Result<()> {
        for number in (0..batch.reading.len() as FrameNumber).rev() {
            let is_delta =
                batch.wanted.get(&number).is_some_and(|w| w.frame.depth > 0 && w.frame.depth <= self.deepest);
            let Some(planned) = batch.reading.planned(number).filter(|_| is_delta) else { continue };
            let bases: Vec<(FrameNumber, BlobId)> = planned.bases().collect();
            for (below, id) in bases {
                if self.lane.depth_of(&id)?.is_some() {
                    continue;
                }
                let (entry, in_pack) = match batch.reading.planned(below) {
                    Some(planned) => (planned.entry(), planned.number()),
                    None => continue,
                };
                if let Some(wanted) = batch.wanted.get_mut(&below) {
                    wanted.mark(&id);
                    continue;
                }
                let map = self.source.index().pack(entry)?;
                let frame = map.as_ref().and_then(|map| Some(map.frame(in_pack)?.1.clone()));
                let frame = frame.ok_or_else(|| Error::Busy { what: "the index on this machine".into() })?;
                batch.want(below, &frame, &id);
            }
        }
        Ok(())
    }

    /// How each frame moves, bases before what rests on them.
    fn ways(&mut self, batch: &Batch) -> Result<HashMap<FrameNumber, How>> {
        let mut ways: HashMap<FrameNumber, How> = HashMap::new();
        for number in 0..batch.reading.len() as FrameNumber {
            let (Some(wanted), Some(planned)) = (batch.wanted.get(&number), batch.reading.planned(number)) else {
                continue;
            };
            let how = if wanted.frame.depth == 0 {
                if wanted.is_mostly() { How::Whole(0) } else { How::Parts }
            } else {
                let mut deepest = Some(0);
                for (below, id) in planned.bases() {
                    let moved = match ways.get(&below) {
                        Some(How::Whole(depth)) if batch.wanted.get(&below).is_some_and(|w| w.has(&id)) => {
                            Some(*depth)
                        }
                        Some(How::Parts) if batch.wanted.get(&below).is_some_and(|w| w.has(&id)) => Some(0),
                        _ => None,
                    };
                    let there = self.lane.depth_of(&id)?;
                    let least = moved.into_iter().chain(there).min();
                    deepest = deepest.and_then(|deepest: u8| Some(deepest.max(least?)));
                }
                match deepest {
                    Some(below) if below < self.deepest => How::Whole(below + 1),
                    _ => How::Parts,
                }
            };
            ways.insert(number, how);
        }
        Ok(ways)
    }
}

impl Batch {
    fn want(&mut self, number: FrameNumber, frame: &Frame, id: &BlobId) {
        let none = || Wanted { frame: frame.clone(), blobs: vec![false; frame.ids.len()] };
        self.wanted.entry(number).or_insert_with(none).mark(id);
    }
}

impl Wanted {
    fn mark(&mut self, id: &BlobId) {
        for (blob, is) in self.frame.ids.iter().zip(&mut self.blobs) {
            *is |= blob == id;
        }
    }

    fn has(&self, id: &BlobId) -> bool {
        self.frame.ids.iter().zip(&self.blobs).any(|(blob, is)| blob == id && *is)
    }

    /// True if so much of it is wanted that the rest is not worth compressing it anew: what the next snapshot
    /// needs of it is there then.
    fn is_mostly(&self) -> bool {
        let wanted: u64 =
            self.frame.lens.iter().zip(&self.blobs).filter(|(_, is)| **is).map(|(len, _)| u64::from(*len)).sum();
        wanted * 2 >= self.frame.plain_len() as u64
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Moves a frame, or parts of it; the wanted blobs that are not what they should be.
fn moved(
    source: &Repository,
    lane: &Mutex<&mut Lane<'_>>,
    wanted: &Wanted,
    how: How,
    decoded: &Decoded<'_>,
) -> Result<Vec<BlobId>> {
    let frame = &wanted.frame;
    let (mut at, mut is_right) = (0, Vec::with_capacity(frame.ids.len()));
    let mut blobs = Vec::with_capacity(frame.ids.len());
    for (id, len) in frame.ids.iter().zip(&frame.lens) {
        let blob = decoded.plain.get(at..at + *len as usize).unwrap_or_default();
        is_right.push(source.id_keys().blob_id(frame.kind, blob) == *id);
        blobs.push(blob);
        at += *len as usize;
    }
    if let How::Whole(depth) = how
        && !is_right.contains(&false)
    {
        let mut payload = Vec::with_capacity(decoded.payload.len() + TAG_LEN);
        payload.extend_from_slice(decoded.payload);
        lock(lane).put_frame(EncodedFrame {
            codec: frame.codec,
            kind: frame.kind,
            payload,
            depth,
            bases: frame.bases.clone(),
            lens: frame.lens.clone(),
            ids: frame.ids.clone(),
        })?;
        return Ok(Vec::new());
    }
    let mut wrong = Vec::new();
    for (n, blob) in blobs.into_iter().enumerate().filter(|(n, _)| wanted.blobs[*n]) {
        if is_right[n] {
            lock(lane).put(frame.kind, blob)?;
        } else {
            wrong.push(frame.ids[n]);
        }
    }
    Ok(wrong)
}
