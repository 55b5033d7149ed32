//! Putting blobs: the pipeline from a plaintext blob to a published index.
//!
//! Lanes (one for each thread that has blobs) gather new blobs into frames, or
//! into runs that replace older blobs. Compressors take both from a bounded
//! queue, a run together with what it is to rest on; one thread seals frames into
//! packs; one uploads them (several, where the store is far), and one publishes index objects of those
//! that are there. All threads are scoped and joined by [`Writer::finish`]; if one fails, the queues
//! behind and before it close, and `finish` returns its error.

use super::bases::Chooser;
use super::packing::{Sent, build, first_cause, stopped, upload};
use super::worth::Worth;
use super::{Counting, Repository, Session};
use crate::crypto::stack;
use crate::error::{Error, Result};
use crate::format::index::{IndexObject, PackEntry};
use crate::format::pack::{BlobKind, StorageClass};
use crate::id::BlobId;
use crate::index::{self, Hint};
use crate::limits;
use crate::monitor::{Event, Monitor};
use crate::pack::{Compressor, EncodedFrame, PlainFrame};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

/// What new runs may rest on, and what counts as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deltas {
    /// On nothing: every blob that the snapshot uses is to have a plain copy.
    Plain,
    /// On plain copies only, and no blob counts that rests on more.
    OnPlain,
    /// On whatever costs least.
    Chains,
    /// On nothing; what is stored counts, however deep it lies.
    Never,
}

impl Deltas {
    /// The deepest copy that counts.
    fn deepest_counted(self) -> u8 {
        match self {
            Self::Plain => 0,
            Self::OnPlain => 1,
            Self::Chains | Self::Never => limits::FRAME_DEPTH_MAX,
        }
    }

    /// The deepest copy that a new run may rest on; `None` if on none.
    fn deepest_base(self) -> Option<u8> {
        match self {
            Self::Plain | Self::Never => None,
            Self::OnPlain => Some(0),
            Self::Chains => Some(limits::FRAME_DEPTH_MAX - 1),
        }
    }
}

/// How the deltas of one stream have fared: where they save nothing, fewer are tried.
#[derive(Debug, Clone, Default)]
pub struct Tries(Arc<TriesInner>);

#[derive(Debug, Default)]
struct TriesInner {
    /// Runs in a row that were stored plain.
    failed: AtomicU32,
    /// Runs that are not tried before the next one that is.
    skip: AtomicU32,
}

/// After so many failures in a row fewer are tried, and at least one in 2 to this power.
const TRIES_FAILED: u32 = 3;
/// See `TRIES_FAILED`.
const TRIES_RARE: u32 = 6;

impl Tries {
    fn is_due(&self) -> bool {
        let skip = &self.0.skip;
        skip.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err()
    }

    fn tell(&self, saved: bool) {
        if saved {
            self.0.failed.store(0, Ordering::Relaxed);
            self.0.skip.store(0, Ordering::Relaxed);
            return;
        }
        let failed = self.0.failed.fetch_add(1, Ordering::Relaxed) + 1;
        if failed > TRIES_FAILED {
            self.0.skip.store((1 << (failed - TRIES_FAILED).min(TRIES_RARE)) - 1, Ordering::Relaxed);
        }
    }
}

/// What a compressor is given.
enum Work {
    /// A frame to be stored as it is.
    Plain(PlainFrame),
    /// A run and the blobs that it replaces.
    Run(PlainFrame, Vec<BlobId>, Tries),
    /// A frame that goes on as it is.
    Encoded(EncodedFrame),
}

/// The depth of a blob on its way of which none is known yet: nothing rests on such.
const DEPTH_UNKNOWN: u8 = limits::FRAME_DEPTH_MAX;

/// What all threads of a writer share.
pub struct WriterState<'m> {
    deltas: Deltas,
    monitor: &'m dyn Monitor,
    /// Where what is far is read only if that is worth it.
    worth: Option<Worth>,
    /// What was stored before turned out to be frozen: no more of it is asked for.
    is_frozen: AtomicBool,
    /// The objects of which was told: each once.
    told: Mutex<HashSet<String>>,
    /// Blobs on their way, and not yet in the index on this machine, and how deep they will lie.
    underway: Mutex<HashMap<BlobId, u8>>,
    sent: Sent,
    blobs: AtomicU64,
    plain: AtomicU64,
}

impl<'m> WriterState<'m> {
    /// The state of a writer that tells `monitor` what is wrong with older blobs.
    pub fn new(deltas: Deltas, monitor: &'m dyn Monitor) -> Self {
        Self {
            deltas,
            monitor,
            worth: None,
            is_frozen: AtomicBool::new(false),
            told: Mutex::default(),
            underway: Mutex::default(),
            sent: Sent::default(),
            blobs: AtomicU64::new(0),
            plain: AtomicU64::new(0),
        }
    }

    /// The same, reading what runs may rest on only if that costs less than it saves.
    #[must_use]
    pub fn frugal(self) -> Self {
        Self { worth: Some(Worth::default()), ..self }
    }

    fn underway(&self) -> MutexGuard<'_, HashMap<BlobId, u8>> {
        self.underway.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells, once for each object, what is wrong with something that was stored before.
    fn warn(&self, e: &Error, consequence: &str) {
        let object = e.object().unwrap_or_default().to_owned();
        if self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(object) {
            self.monitor.event(Event::Warning(format!("{e}; {consequence}")));
        }
    }
}

/// A running pipeline.
pub struct Writer<'scope> {
    frames: Sender<Work>,
    spare: Receiver<Vec<u8>>,
    repo: &'scope Repository,
    counting: &'scope Counting,
    state: &'scope WriterState<'scope>,
    threads: Vec<ScopedJoinHandle<'scope, Result<()>>>,
}

impl<'scope> Writer<'scope> {
    /// Starts the pipeline with `compressors` compressing threads.
    pub fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        session: &'scope Session<'scope>,
        state: &'scope WriterState<'scope>,
        level: i32,
        compressors: usize,
    ) -> Self {
        let (frames, frames_rx) = bounded(limits::QUEUE_JOBS);
        let (encoded_tx, encoded) = bounded(limits::QUEUE_JOBS);
        let (packs_tx, packs) = bounded(0);
        // Buffers go back to whoever fills them: what is fresh costs a page fault for each page.
        let (spare_tx, spare) = bounded(limits::QUEUE_JOBS);
        let repo = session.repository();
        let uploads = if repo.store().is_far() { limits::FAR_UPLOADS } else { 1 };
        let (sent_tx, sent) = bounded(uploads);
        let (entries_tx, entries) = bounded(uploads);
        let mut threads = Vec::new();
        for _ in 0..compressors.max(1) {
            let (rx, tx, spare) = (frames_rx.clone(), encoded_tx.clone(), spare_tx.clone());
            threads.push(scope.spawn(move || stack::wiped(|| compress(session, state, level, &rx, &tx, &spare))));
        }
        threads.push(scope.spawn(move || stack::wiped(|| build(repo, &encoded, &packs_tx, &sent))));
        for _ in 0..uploads {
            let (packs, sent, entries) = (packs.clone(), sent_tx.clone(), entries_tx.clone());
            threads.push(scope.spawn(move || stack::wiped(|| upload(repo, &state.sent, &packs, &sent, &entries))));
        }
        threads.push(scope.spawn(move || stack::wiped(|| publish_as_due(session, state, &entries))));
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
            open: Gather::default(),
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
            outcome = first_cause(outcome, ended);
        }
        outcome?;
        Ok(WriterTotals {
            blobs: self.state.blobs.load(Ordering::Relaxed),
            plain: self.state.plain.load(Ordering::Relaxed),
            stored: self.state.sent.bytes(),
        })
    }
}

/// Where one thread puts its blobs.
pub struct Lane<'w> {
    frames: Sender<Work>,
    spare: Receiver<Vec<u8>>,
    repo: &'w Repository,
    counting: &'w Counting,
    state: &'w WriterState<'w>,
    hint: Hint,
    open: Gather,
}

/// Frames that are being filled, one of each kind; none is empty.
#[derive(Default)]
struct Gather(Vec<PlainFrame>);

impl Gather {
    /// Adds a blob to the frame of its kind, or to a new one in `buffer`; returns the one in which there
    /// was no room. A frame holds no more than `most` bytes, unless it is a single blob.
    fn push(
        &mut self,
        most: usize,
        (kind, id, blob): (BlobKind, BlobId, &[u8]),
        buffer: impl FnOnce() -> Vec<u8>,
    ) -> Option<PlainFrame> {
        let at = self.0.iter().position(|frame| frame.kind == kind);
        if let Some(frame) = at.map(|at| &mut self.0[at])
            && frame.fits(blob.len())
            && frame.bytes.len() + blob.len() <= most
        {
            frame.push(id, blob);
            return None;
        }
        let mut next = PlainFrame { bytes: buffer(), ..PlainFrame::new(kind) };
        next.push(id, blob);
        match at {
            Some(at) => Some(std::mem::replace(&mut self.0[at], next)),
            None => {
                self.0.push(next);
                None
            }
        }
    }
}

impl<'w> Lane<'w> {
    /// The repository.
    pub fn repository(&self) -> &'w Repository {
        self.repo
    }

    /// True if runs of this kind may rest on what they replace: a key that cannot read it cannot do that,
    /// and what must be thawed first is not read.
    pub fn makes_deltas(&self, kind: BlobKind) -> bool {
        self.state.deltas.deepest_base().is_some()
            && self.repo.private_key().is_ok()
            && !(kind.class() == StorageClass::Data && self.repo.store().freezes())
    }

    /// The id of a blob.
    pub fn id(&self, kind: BlobKind, blob: &[u8]) -> BlobId {
        self.repo.id_keys().blob_id(kind, blob)
    }

    /// The id of a blob, which is stored unless it is there already.
    ///
    /// # Errors
    /// The local index's; or that the pipeline has stopped, whose cause [`Writer::finish`] tells.
    pub fn put(&mut self, kind: BlobKind, blob: &[u8]) -> Result<(BlobId, Stored)> {
        let id = self.id(kind, blob);
        if self.is_stored(&id)? || !self.claims(id, 0) {
            return Ok((id, Stored::Known));
        }
        self.counted(blob.len());
        self.push(kind, id, blob)?;
        Ok((id, Stored::New))
    }

    /// Takes on to store a blob; false if it is on its way already. Whoever takes it on hands it over at
    /// once: what waits anywhere else may be given up, and nobody else would store it.
    fn claims(&self, id: BlobId, depth: u8) -> bool {
        match self.state.underway().entry(id) {
            Entry::Occupied(_) => false,
            Entry::Vacant(place) => {
                place.insert(depth);
                true
            }
        }
    }

    fn counted(&self, len: usize) {
        self.state.blobs.fetch_add(1, Ordering::Relaxed);
        self.state.plain.fetch_add(len as u64, Ordering::Relaxed);
    }

    fn push(&mut self, kind: BlobKind, id: BlobId, blob: &[u8]) -> Result<()> {
        let spare = &self.spare;
        let buffer = || spare.try_recv().unwrap_or_else(|_| Vec::with_capacity(limits::FRAME_PLAIN_MAX));
        match self.open.push(limits::FRAME_PLAIN_MAX, (kind, id, blob), buffer) {
            Some(full) => self.send(Work::Plain(full)),
            None => Ok(()),
        }
    }

    fn send(&self, work: Work) -> Result<()> {
        self.frames.send(work).map_err(|_| stopped())
    }

    /// Stores a run of blobs, but for those that are on their way by now; `replaced` stood in its place
    /// before.
    ///
    /// # Errors
    /// See [`Lane::put`].
    pub fn put_run(&mut self, run: PlainFrame, replaced: Vec<BlobId>, tries: &Tries) -> Result<()> {
        let is_new: Vec<bool> = run.ids.iter().map(|id| self.claims(*id, DEPTH_UNKNOWN)).collect();
        let run = if is_new.iter().all(|new| *new) { run } else { run.only(&is_new) };
        run.lens.iter().for_each(|len| self.counted(*len as usize));
        if !replaced.is_empty() && run.bytes.len() >= limits::RUN_DELTA_MIN && tries.is_due() {
            return self.send(Work::Run(run, replaced, tries.clone()));
        }
        run.blobs().try_for_each(|(id, blob)| self.push(run.kind, id, blob))
    }

    /// True if the blob counts as stored, or is on its way.
    ///
    /// # Errors
    /// See [`Lane::put`].
    pub fn is_stored(&mut self, id: &BlobId) -> Result<bool> {
        if self.state.underway().contains_key(id) {
            return Ok(true);
        }
        let counting = self.counting;
        let index = self.repo.index();
        let deepest = self.state.deltas.deepest_counted();
        let found =
            index.find(id, &mut self.hint, |copy| Ok(copy.depth() <= deepest && counting.counts(index, copy)?))?;
        Ok(found.is_some())
    }

    /// The least depth at which a blob counts as stored, or will lie that is on its way; `None` if it is neither.
    ///
    /// # Errors
    /// The local index's.
    pub fn depth_of(&self, id: &BlobId) -> Result<Option<u8>> {
        // Before the index: what is not on its way any more is there.
        let mut least = self.state.underway().get(id).copied();
        for copy in self.repo.index().copies(id)? {
            if least.is_none_or(|least| copy.depth() < least) && self.counting.counts(self.repo.index(), &copy)? {
                least = Some(copy.depth());
            }
        }
        Ok(least)
    }

    /// Stores a frame as it is, whatever of it is there already. Whoever gives it has held its blobs against
    /// their ids, and its bases are stored or on their way, at less depth.
    ///
    /// # Errors
    /// As [`Lane::put`].
    pub fn put_frame(&mut self, frame: EncodedFrame) -> Result<()> {
        {
            let mut underway = self.state.underway();
            for id in &frame.ids {
                let depth = underway.entry(*id).or_insert(frame.depth);
                *depth = frame.depth.min(*depth);
            }
        }
        frame.lens.iter().for_each(|len| self.counted(*len as usize));
        self.send(Work::Encoded(frame))
    }

    /// Tells what is wrong with something that was stored before.
    pub fn warn(&self, e: &Error, consequence: &str) {
        self.state.warn(e, consequence);
    }

    /// Hands over what is left.
    ///
    /// # Errors
    /// As [`Lane::put`].
    pub fn finish(mut self) -> Result<()> {
        std::mem::take(&mut self.open.0).into_iter().try_for_each(|frame| self.send(Work::Plain(frame)))
    }
}

/// One compressing thread.
struct Compress<'s> {
    chooser: Option<Chooser<'s>>,
    state: &'s WriterState<'s>,
    compressor: Compressor,
    /// Runs that no older blob helps, until they fill a frame.
    plain: Gather,
    encoded: &'s Sender<EncodedFrame>,
    spare: &'s Sender<Vec<u8>>,
}

fn compress(
    session: &Session<'_>,
    state: &WriterState<'_>,
    level: i32,
    work: &Receiver<Work>,
    encoded: &Sender<EncodedFrame>,
    spare: &Sender<Vec<u8>>,
) -> Result<()> {
    let chooser = state.deltas.deepest_base().map(|deepest| Chooser {
        repo: session.repository(),
        counting: session.counting(),
        deepest,
        worth: state.worth.as_ref(),
        hint: Hint::default(),
    });
    let compressor = Compressor::new(level)?;
    let mut compress = Compress { chooser, state, compressor, plain: Gather::default(), encoded, spare };
    for work in work {
        match work {
            Work::Plain(frame) => compress.frame(frame)?,
            Work::Encoded(frame) => compress.send(frame)?,
            Work::Run(run, replaced, tries) => compress.run(&run, &replaced, &tries)?,
        }
    }
    std::mem::take(&mut compress.plain.0).into_iter().try_for_each(|frame| compress.frame(frame))
}

impl Compress<'_> {
    fn frame(&mut self, frame: PlainFrame) -> Result<()> {
        let (frame, mut bytes) = self.compressor.encode(frame)?;
        bytes.clear();
        // A full list of spares is fine: the buffer is dropped.
        let _ = self.spare.try_send(bytes);
        self.send(frame)
    }

    fn send(&self, frame: EncodedFrame) -> Result<()> {
        self.encoded.send(frame).map_err(|_| stopped())
    }

    fn run(&mut self, run: &PlainFrame, replaced: &[BlobId], tries: &Tries) -> Result<()> {
        let is_frozen = run.kind.class() == StorageClass::Data && self.state.is_frozen.load(Ordering::Relaxed);
        let bases = match &mut self.chooser {
            Some(chooser) if !is_frozen => chooser.bases(run.kind, replaced, run.bytes.len()),
            _ => Ok(None),
        };
        let bases = match bases {
            Ok(bases) => bases,
            // What is new never waits for what is old.
            Err(e) if e.is_damage() => {
                self.state.warn(&e, "what replaces it is stored whole");
                None
            }
            Err(e) if e.is_frozen() => {
                self.state.is_frozen.store(true, Ordering::Relaxed);
                self.state.warn(&e, "from here on what is new is stored whole");
                None
            }
            Err(e) => return Err(e),
        };
        let delta = match &bases {
            Some(bases) => self.compressor.delta(run, bases)?,
            None => None,
        };
        tries.tell(delta.is_some());
        match delta {
            Some(delta) => self.send(delta),
            None => run.blobs().try_for_each(|(id, blob)| {
                match self.plain.push(limits::RUN_FRAME_PLAIN, (run.kind, id, blob), Vec::new) {
                    Some(full) => self.frame(full),
                    None => Ok(()),
                }
            }),
        }
    }
}

/// Publishes index objects of packs that are stored, and shows that the session lives.
fn publish_as_due(session: &Session<'_>, state: &WriterState<'_>, stored: &Receiver<PackEntry>) -> Result<()> {
    let repo = session.repository();
    let mut entries: Vec<PackEntry> = Vec::new();
    let mut flushed = repo.clock().elapsed();
    loop {
        match stored.recv_timeout(TICK) {
            Ok(entry) => entries.push(entry),
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

fn publish(session: &Session<'_>, state: &WriterState<'_>, entries: &mut Vec<PackEntry>) -> Result<()> {
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
