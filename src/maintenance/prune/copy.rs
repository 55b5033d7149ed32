//! Copying what is needed out of packs that will go: each frame is decoded and
//! its blobs are held against their ids, so what is published of the copies is
//! proved. A frame of which all is needed, or that rests on others, is copied as
//! it is; of a plain one the rest is left out. A copy is never deeper than what
//! it replaces.

use super::live::Live;
use crate::error::{Error, Result};
use crate::format::pack::{BlobKind, Frame, TAG_LEN};
use crate::id::BlobId;
use crate::index::EntryNumber;
use crate::limits;
use crate::monitor::{Event, Monitor};
use crate::pack::{Compressor, EncodedFrame, PlainFrame};
use crate::repo::{Decoded, FrameNumber, Packed, Reading, Repository, TakeFrame, Trust};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Copies what is needed of some entries, and publishes where it lies now.
///
/// # Errors
/// What is damaged or missing, [`Error::Interrupted`], or the store's. What was copied until then stays.
pub(super) fn copy(repo: &Repository, live: &Live, entries: &[EntryNumber], monitor: &dyn Monitor) -> Result<Packed> {
    if entries.is_empty() {
        return Ok(Packed::default());
    }
    repo.store_frames(|frames| {
        let parts = Parts::new(repo, frames);
        let mut batch = Batch::default();
        for entry in entries {
            batch.add(repo, live, *entry)?;
            if batch.reading.len() >= limits::READ_BATCH_FRAMES || batch.blobs >= limits::CHECK_BATCH_BLOBS {
                std::mem::take(&mut batch).copy(&parts, monitor)?;
            }
        }
        batch.copy(&parts, monitor)?;
        parts.finish()
    })
}

/// Frames that are read together.
#[derive(Default)]
struct Batch {
    reading: Reading,
    /// Those to be copied, as the index has them, and which of their blobs are needed.
    wanted: HashMap<FrameNumber, (Frame, Vec<bool>)>,
    blobs: usize,
}

impl Batch {
    fn add(&mut self, repo: &Repository, live: &Live, entry: EntryNumber) -> Result<()> {
        let map = repo.index().pack(entry)?;
        let map = map.ok_or_else(|| Error::Busy { what: "the index on this machine".into() })?;
        for (number, (offset, frame)) in map.frames().iter().enumerate() {
            let number = number as u32;
            let needed = live.of_frame(entry, number);
            if needed.is_empty() {
                continue;
            }
            let planned = self.reading.need_frame(repo, (entry, map.name), (number, *offset), frame)?;
            let why = || format!("frame {number} rests on what is not there");
            let planned = planned.ok_or_else(|| Error::damaged(repo.names().pack(&map.name), why()))?;
            self.blobs += needed.len();
            self.wanted.insert(planned, (frame.clone(), needed));
        }
        Ok(())
    }

    fn copy(self, parts: &Parts<'_>, monitor: &dyn Monitor) -> Result<()> {
        let Self { reading, wanted, .. } = self;
        reading.run(parts.repo, Trust::Bases, monitor, &|number, decoded| {
            // What nobody needs here is read as a base only.
            let Some((frame, needed)) = wanted.get(&number) else { return Ok(()) };
            monitor.event(Event::Bytes(frame.stored.into()));
            let object = || reading.planned(number).map(|p| parts.repo.names().pack(&p.pack())).unwrap_or_default();
            parts.frame(frame, needed, &decoded?, &object)
        })
    }
}

/// Where copies go.
pub(in crate::maintenance) struct Parts<'p> {
    repo: &'p Repository,
    store: &'p TakeFrame<'p>,
    /// What is left of plain frames, until it fills one.
    open: Mutex<HashMap<BlobKind, PlainFrame>>,
    spare: Mutex<Vec<Compressor>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'p> Parts<'p> {
    /// Frames that are copied go to `store`.
    pub fn new(repo: &'p Repository, store: &'p TakeFrame<'p>) -> Self {
        Self { repo, store, open: Mutex::default(), spare: Mutex::default() }
    }

    /// Copies what is needed of a frame.
    ///
    /// # Errors
    /// [`Error::Damaged`] of `object` if a blob that is needed does not hash to its id; those of the store.
    pub fn frame(
        &self,
        frame: &Frame,
        needed: &[bool],
        decoded: &Decoded<'_>,
        object: &dyn Fn() -> String,
    ) -> Result<()> {
        let mut whole = PlainFrame::new(frame.kind);
        whole.bytes.extend_from_slice(decoded.plain);
        (whole.lens, whole.ids) = (frame.lens.clone(), frame.ids.clone());
        let ids = self.repo.id_keys();
        let right: Vec<bool> = whole.blobs().map(|(id, blob)| ids.blob_id(frame.kind, blob) == id).collect();
        if let Some(at) = needed.iter().zip(&right).position(|(needed, right)| *needed && !right) {
            return Err(Error::damaged(object(), format!("it holds something else for blob {}", whole.ids[at])));
        }
        if right.contains(&false) || frame.depth == 0 && needed.contains(&false) {
            return whole.only(needed).blobs().try_for_each(|(id, blob)| {
                let full = self.gather(frame.kind, (id, blob));
                full.map_or(Ok(()), |full| self.encode(full))
            });
        }
        let mut payload = Vec::with_capacity(decoded.payload.len() + TAG_LEN);
        payload.extend_from_slice(decoded.payload);
        (self.store)(EncodedFrame {
            codec: frame.codec,
            kind: frame.kind,
            payload,
            depth: frame.depth,
            bases: frame.bases.clone(),
            lens: whole.lens,
            ids: whole.ids,
        })
    }

    /// Adds a blob to the open frame of its kind; gives that one back if there is no room in it.
    fn gather(&self, kind: BlobKind, (id, blob): (BlobId, &[u8])) -> Option<PlainFrame> {
        let mut open = lock(&self.open);
        let frame = open.entry(kind).or_insert_with(|| PlainFrame::new(kind));
        let full = !frame.fits(blob.len()) || frame.bytes.len() + blob.len() > limits::RUN_FRAME_PLAIN;
        let full = (full && !frame.ids.is_empty()).then(|| std::mem::replace(frame, PlainFrame::new(kind)));
        frame.push(id, blob);
        full
    }

    fn encode(&self, frame: PlainFrame) -> Result<()> {
        let spare = lock(&self.spare).pop();
        let mut compressor = match spare {
            Some(compressor) => compressor,
            None => Compressor::new(limits::ZSTD_LEVEL)?,
        };
        let (encoded, _) = compressor.encode(frame)?;
        lock(&self.spare).push(compressor);
        (self.store)(encoded)
    }

    /// Copies what is left of plain frames.
    ///
    /// # Errors
    /// Those of the store.
    pub fn finish(&self) -> Result<()> {
        let open = std::mem::take(&mut *lock(&self.open));
        open.into_values().filter(|frame| !frame.ids.is_empty()).try_for_each(|frame| self.encode(frame))
    }
}
