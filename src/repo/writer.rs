//! Putting blobs: the pipeline from a plaintext blob to a published index.
//!
//! Lanes (one for each thread that has blobs) gather new blobs into frames.
//! Compressors take frames from a bounded queue; one thread seals them into
//! packs; another uploads packs and publishes index objects. All threads are
//! scoped and joined by [`Writer::finish`]; if one fails, the queues behind and
//! before it close, and `finish` returns its error.

use super::{Counting, Repository, Session};
use crate::crypto::stack;
use crate::error::{Error, Result};
use crate::format::index::{IndexObject, PackEntry};
use crate::format::pack::{BlobKind, StorageClass};
use crate::id::BlobId;
use crate::index::{self, Hint};
use crate::limits;
use crate::pack::{Compressor, EncodedFrame, FinishedPack, PackBuilder, PlainFrame};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

/// How long the uploader waits for a pack before it looks at the clock again.
const TICK: Duration = Duration::from_secs(20);

/// What became of a blob that was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// It was there already, or is on its way.
    Known,
    /// It is on its way now.
    New,
}

/// What a writer has stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriterTotals {
    /// Blobs that were new.
    pub blobs: u64,
    /// Their plaintext, bytes.
    pub plain: u64,
    /// Packs, bytes.
    pub stored: u64,
}

/// What all threads of a writer share.
pub struct WriterState {
    /// Blobs on their way, and not yet in the index on this machine.
    underway: Mutex<HashSet<BlobId>>,
    blobs: AtomicU64,
    plain: AtomicU64,
    stored: AtomicU64,
}

impl Default for WriterState {
    fn default() -> Self {
        Self {
            underway: Mutex::default(),
            blobs: AtomicU64::new(0),
            plain: AtomicU64::new(0),
            stored: AtomicU64::new(0),
        }
    }
}

impl WriterState {
    fn underway(&self) -> MutexGuard<'_, HashSet<BlobId>> {
        self.underway.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running pipeline.
pub struct Writer<'scope> {
    frames: Sender<PlainFrame>,
    spare: Receiver<Vec<u8>>,
    repo: &'scope Repository,
    counting: &'scope Counting,
    state: &'scope WriterState,
    threads: Vec<ScopedJoinHandle<'scope, Result<()>>>,
}

impl<'scope> Writer<'scope> {
    /// Starts the pipeline with `compressors` compressing threads.
    pub fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        session: &'scope Session<'scope>,
        state: &'scope WriterState,
        level: i32,
        compressors: usize,
    ) -> Self {
        let (frames, frames_rx) = bounded(limits::QUEUE_JOBS);
        let (encoded_tx, encoded) = bounded(limits::QUEUE_JOBS);
        let (packs_tx, packs) = bounded(0);
        // Plaintext buffers go back to the lanes: a fresh megabyte for each frame costs page faults.
        let (spare_tx, spare) = bounded(limits::QUEUE_JOBS);
        let repo = session.repository();
        let mut threads = Vec::new();
        for _ in 0..compressors.max(1) {
            let (rx, tx, spare) = (frames_rx.clone(), encoded_tx.clone(), spare_tx.clone());
            threads.push(scope.spawn(move || compress(level, &rx, &tx, &spare)));
        }
        threads.push(scope.spawn(move || stack::wiped(|| build(repo, &encoded, &packs_tx))));
        threads.push(scope.spawn(move || stack::wiped(|| upload(session, state, &packs))));
        Self { frames, spare, repo, counting: session.counting(), state, threads }
    }

    /// A lane for one thread.
    pub fn lane(&self) -> Lane<'scope> {
        Lane {
            frames: self.frames.clone(),
            spare: self.spare.clone(),
            repo: self.repo,
            counting: self.counting,
            state: self.state,
            hint: Hint::default(),
            open: Vec::new(),
        }
    }

    /// Waits until everything is stored and indexed. All lanes must be finished before.
    ///
    /// # Errors
    /// The first that any thread met.
    pub fn finish(self) -> Result<WriterTotals> {
        drop(self.frames);
        let mut outcome = Ok(());
        for thread in self.threads {
            let ended = thread.join().unwrap_or_else(|_| Err(Error::Invalid("a writing thread panicked".into())));
            // A thread that only noticed that its neighbour is gone is not the cause.
            match (&outcome, &ended) {
                (Ok(()), _) => outcome = ended,
                (Err(e), Err(_)) if is_stopped(e) => outcome = ended,
                _ => {}
            }
        }
        outcome?;
        Ok(WriterTotals {
            blobs: self.state.blobs.load(Ordering::Relaxed),
            plain: self.state.plain.load(Ordering::Relaxed),
            stored: self.state.stored.load(Ordering::Relaxed),
        })
    }
}

fn stopped() -> Error {
    Error::Invalid("the writer has stopped".into())
}

/// True for the error of a thread whose neighbour in the pipeline failed.
fn is_stopped(e: &Error) -> bool {
    matches!(e, Error::Invalid(why) if why == "the writer has stopped")
}

/// Where one thread puts its blobs.
pub struct Lane<'w> {
    frames: Sender<PlainFrame>,
    spare: Receiver<Vec<u8>>,
    repo: &'w Repository,
    counting: &'w Counting,
    state: &'w WriterState,
    hint: Hint,
    open: Vec<PlainFrame>,
}

impl Lane<'_> {
    /// The id of a blob, which is stored unless it is there already.
    ///
    /// # Errors
    /// The local index's; or that the pipeline has stopped, whose cause [`Writer::finish`] tells.
    pub fn put(&mut self, kind: BlobKind, blob: &[u8]) -> Result<(BlobId, Stored)> {
        let id = self.repo.id_keys().blob_id(kind, blob);
        if self.is_stored(&id)? {
            return Ok((id, Stored::Known));
        }
        self.state.blobs.fetch_add(1, Ordering::Relaxed);
        self.state.plain.fetch_add(blob.len() as u64, Ordering::Relaxed);
        let at = match self.open.iter().position(|f| f.kind == kind) {
            Some(at) => at,
            None => {
                self.open.push(PlainFrame::new(kind));
                self.open.len() - 1
            }
        };
        if !self.open[at].fits(blob.len()) {
            let next = self.empty(kind);
            let full = std::mem::replace(&mut self.open[at], next);
            self.frames.send(full).map_err(|_| stopped())?;
        }
        self.open[at].push(id, blob);
        Ok((id, Stored::New))
    }

    /// True if the blob counts as stored; otherwise it is this caller's to store.
    fn is_stored(&mut self, id: &BlobId) -> Result<bool> {
        if !self.state.underway().insert(*id) {
            return Ok(true);
        }
        let counting = self.counting;
        let index = self.repo.index();
        let found = index.find(id, &mut self.hint, |copy| counting.counts(index, copy))?;
        if found.is_some() {
            self.state.underway().remove(id);
        }
        Ok(found.is_some())
    }

    fn empty(&self, kind: BlobKind) -> PlainFrame {
        let mut frame = PlainFrame::new(kind);
        if let Ok(bytes) = self.spare.try_recv() {
            frame.bytes = bytes;
        }
        frame
    }

    /// Hands over what is left.
    ///
    /// # Errors
    /// As [`Lane::put`].
    pub fn finish(self) -> Result<()> {
        for frame in self.open {
            if !frame.lens.is_empty() {
                self.frames.send(frame).map_err(|_| stopped())?;
            }
        }
        Ok(())
    }
}

fn compress(
    level: i32,
    frames: &Receiver<PlainFrame>,
    encoded: &Sender<EncodedFrame>,
    spare: &Sender<Vec<u8>>,
) -> Result<()> {
    let mut compressor = Compressor::new(level)?;
    for frame in frames {
        let (frame, mut bytes) = compressor.encode(frame)?;
        bytes.clear();
        // A full list of spares is fine: the buffer is dropped.
        let _ = spare.try_send(bytes);
        encoded.send(frame).map_err(|_| stopped())?;
    }
    Ok(())
}

fn build(repo: &Repository, encoded: &Receiver<EncodedFrame>, packs: &Sender<FinishedPack>) -> Result<()> {
    let mut open: [Option<PackBuilder>; 2] = [None, None];
    let send = |builder: PackBuilder| packs.send(builder.finish()).map_err(|_| stopped());
    for frame in encoded {
        let class = frame.kind.class();
        let place = &mut open[match class {
            StorageClass::Data => 0,
            StorageClass::Trees => 1,
        }];
        let mut builder = match place.take() {
            Some(builder) => builder,
            None => PackBuilder::new(&repo.realm(), repo.cipher(), class, &repo.public)?,
        };
        builder.push(frame)?;
        if builder.is_full() {
            send(builder)?;
        } else {
            *place = Some(builder);
        }
    }
    open.into_iter().flatten().filter(|b| !b.is_empty()).try_for_each(send)
}

fn upload(session: &Session<'_>, state: &WriterState, packs: &Receiver<FinishedPack>) -> Result<()> {
    let repo = session.repository();
    let mut entries: Vec<PackEntry> = Vec::new();
    let mut flushed = repo.clock().elapsed();
    loop {
        match packs.recv_timeout(TICK) {
            Ok(FinishedPack { bytes, entry }) => {
                state.stored.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                repo.store().create(&repo.names().pack(&entry.name), bytes.into())?;
                entries.push(entry);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        session.renew_if_due()?;
        let waited = repo.clock().elapsed().saturating_sub(flushed);
        let due = waited >= Duration::from_secs(limits::INDEX_FLUSH_SECONDS) && !entries.is_empty();
        if due || index::blobs_of(&entries) >= limits::INDEX_BLOBS_TARGET {
            publish(session, state, &mut entries)?;
            flushed = repo.clock().elapsed();
        }
    }
    if entries.is_empty() { Ok(()) } else { publish(session, state, &mut entries) }
}

fn publish(session: &Session<'_>, state: &WriterState, entries: &mut Vec<PackEntry>) -> Result<()> {
    let object = IndexObject { packs: std::mem::take(entries), ..IndexObject::default() };
    let own = session.repository().publish_index(&object)?;
    session.counting().accept(own);
    // From here on the index finds them.
    let mut underway = state.underway();
    for id in object.packs.iter().flat_map(|p| &p.directory.frames).flat_map(|f| &f.ids) {
        underway.remove(id);
    }
    Ok(())
}
