//! From encoded frames to packs in the store: one thread seals frames into packs, others send them. What a
//! backup stores goes this way, and what a prune copies. Chooses nothing.

use super::Repository;
use crate::crypto::stack;
use crate::error::{Error, Result, StoreFault};
use crate::format::index::{IndexObject, PackEntry};
use crate::format::pack::StorageClass;
use crate::index::blobs_of;
use crate::limits;
use crate::pack::{EncodedFrame, FinishedPack, PackBuilder};
use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// What the sending threads share.
#[derive(Default)]
pub(super) struct Sent {
    /// An upload failed: no other is begun.
    has_failed: AtomicBool,
    bytes: AtomicU64,
}

impl Sent {
    /// Bytes of the packs that were sent.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// The error of a thread whose neighbour in a pipeline is gone.
pub(super) fn stopped() -> Error {
    Error::Invalid("the writer has stopped".into())
}

/// True for that.
fn is_stopped(e: &Error) -> bool {
    matches!(e, Error::Invalid(why) if why == "the writer has stopped")
}

/// Seals frames into packs, one of each class at a time. Buffers of packs that were sent come back by `sent`.
///
/// # Errors
/// [`Error::Invalid`] for a frame that no reader would take, or if nobody takes the packs.
pub(super) fn build(
    repo: &Repository,
    encoded: &Receiver<EncodedFrame>,
    packs: &Sender<FinishedPack>,
    sent: &Receiver<Vec<u8>>,
) -> Result<()> {
    let mut open: [Option<PackBuilder>; 2] = [None, None];
    let parity = repo.parity();
    let send = |builder: PackBuilder| packs.send(builder.finish()?).map_err(|_| stopped());
    for frame in encoded {
        let class = frame.kind.class();
        let place = &mut open[match class {
            StorageClass::Data => 0,
            StorageClass::Trees => 1,
        }];
        let mut builder = match place.take() {
            Some(builder) => builder,
            None => {
                let buffer = sent.try_recv().unwrap_or_default();
                PackBuilder::within(buffer, &repo.realm(), repo.cipher(), class, &repo.public)?.protected(parity)
            }
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

/// Sends packs to the store; each then has an entry for the index.
///
/// # Errors
/// The store's; no pack is begun once one failed.
pub(super) fn upload(
    repo: &Repository,
    state: &Sent,
    packs: &Receiver<FinishedPack>,
    sent: &Sender<Vec<u8>>,
    entries: &Sender<PackEntry>,
) -> Result<()> {
    for FinishedPack { bytes, entry } in packs {
        if state.has_failed.load(Ordering::Relaxed) {
            return Err(stopped());
        }
        state.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let bytes = Bytes::from(bytes);
        let name = repo.names().pack(&entry.name);
        let created = match entry.directory.class {
            // Listings, walks and plans of restores never touch these.
            StorageClass::Data => repo.store().create_cold(&name, bytes.clone()),
            StorageClass::Trees => repo.store().create(&name, bytes.clone()),
        };
        match created {
            // A writer that may not read packs was not told that an answer was lost.
            Err(e)
                if matches!(e.fault, StoreFault::Denied | StoreFault::Retained)
                    && repo.lists_pack(&entry.name, bytes.len() as u64) => {}
            Err(e) => {
                state.has_failed.store(true, Ordering::Relaxed);
                return Err(e.into());
            }
            Ok(()) => {}
        }
        entries.send(entry).map_err(|_| stopped())?;
        // A store may still hold it; then, or if enough are spare already, it is dropped.
        if let Ok(buffer) = bytes.try_into_mut() {
            let _ = sent.try_send(buffer.into());
        }
    }
    Ok(())
}

/// What was stored of frames that were given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Packed {
    /// Packs.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Takes a frame, to be stored.
pub type TakeFrame<'t> = dyn Fn(EncodedFrame) -> Result<()> + Sync + 't;

impl Repository {
    /// Stores the frames that `fill` gives, from as many threads as it likes, in packs, and publishes index
    /// objects that name these.
    ///
    /// # Errors
    /// Those of `fill`, or the store's: then packs may be there that no index object names.
    pub fn store_frames(&self, fill: impl FnOnce(&TakeFrame<'_>) -> Result<()>) -> Result<Packed> {
        let state = Sent::default();
        let uploads = if self.store.is_far() { limits::FAR_UPLOADS } else { 1 };
        let (frames_tx, frames) = bounded(limits::QUEUE_JOBS);
        let (packs_tx, packs) = bounded(0);
        let (sent_tx, sent) = bounded(uploads);
        let (entries_tx, entries) = bounded(uploads);
        let count = thread::scope(|scope| {
            // Each thread has its ends of the queues for itself: they close as it ends, however that is.
            let mut threads = vec![scope.spawn(move || stack::wiped(|| build(self, &frames, &packs_tx, &sent)))];
            let state = &state;
            for _ in 0..uploads {
                let (packs, sent, entries) = (packs.clone(), sent_tx.clone(), entries_tx.clone());
                threads.push(scope.spawn(move || stack::wiped(|| upload(self, state, &packs, &sent, &entries))));
            }
            drop((packs, sent_tx, entries_tx));
            let publisher = scope.spawn(move || self.publish_all(&entries));
            let mut outcome = fill(&|frame| frames_tx.send(frame).map_err(|_| stopped()));
            drop(frames_tx);
            for thread in threads {
                outcome = first_cause(outcome, thread.join().unwrap_or_else(|_| Err(panicked())));
            }
            let published = publisher.join().unwrap_or_else(|_| Err(panicked()));
            let (count, ended) = published.map_or_else(|e| (0, Err(e)), |count| (count, Ok(())));
            first_cause(outcome, ended).map(|()| count)
        })?;
        Ok(Packed { packs: count, bytes: state.bytes() })
    }

    /// Publishes index objects of packs that are stored, and counts these.
    fn publish_all(&self, stored: &Receiver<PackEntry>) -> Result<u64> {
        let (mut entries, mut count) = (Vec::new(), 0);
        let publish = |packs| self.publish_index(&IndexObject { packs, ..IndexObject::default() });
        for entry in stored {
            entries.push(entry);
            count += 1;
            if blobs_of(&entries) >= limits::INDEX_BLOBS_TARGET {
                publish(std::mem::take(&mut entries))?;
            }
        }
        if !entries.is_empty() {
            publish(entries)?;
        }
        Ok(count)
    }
}

fn panicked() -> Error {
    Error::Invalid("a writing thread panicked".into())
}

/// The first failure, but rather a cause than that a neighbour was gone.
pub(super) fn first_cause(outcome: Result<()>, ended: Result<()>) -> Result<()> {
    match (&outcome, &ended) {
        (Ok(()), _) => ended,
        (Err(e), Err(_)) if is_stopped(e) => ended,
        _ => outcome,
    }
}
