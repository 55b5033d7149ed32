//! Writing a round: frames are fetched pack by pack, in the order of their
//! bytes, decoded once each on every core, and their blobs hashed and written.

use super::plan::{Failed, PlannedFile, Round, Write, Written, ends_all};
use super::target::{Owners, apply_to_file};
use crate::crypto::stack;
use crate::error::{Error, Result};
use crate::format::pack::BlobKind;
use crate::index::PackMap;
use crate::limits;
use crate::monitor::{Event, Monitor};
use crate::pack::Decompressor;
use crate::repo::Repository;
use crossbeam_channel::{Receiver, bounded};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Files that stay open between two writes.
const OPEN_MAX: usize = 256;

/// Writes whose frames lie close together in one pack: one request.
struct Job<'w> {
    /// `None` if the index dropped its entry meanwhile: the blobs may have other copies.
    pack: Option<Arc<PackMap>>,
    writes: &'w [Write],
}

/// Writes everything that a round has planned, and finishes its files.
///
/// # Errors
/// The store's, a full disk, [`Error::Interrupted`].
pub(super) fn write(repo: &Repository, round: &mut Round, owners: &Owners, monitor: &dyn Monitor) -> Result<Written> {
    round.writes.sort_unstable_by_key(|w| (w.frame, w.at));
    let shared = Shared {
        repo,
        files: &round.files,
        owners,
        monitor,
        open: AtomicUsize::new(0),
        written: Mutex::new(Written::default()),
    };
    // Files that are right already, or hold nothing but holes, have no write to finish them.
    for file in round.files.iter().filter(|f| f.waiting.load(Ordering::Relaxed) == 0) {
        shared.or_failed(file, shared.finish(file))?;
    }
    let threads = thread::available_parallelism().map_or(2, usize::from);
    let outcome = thread::scope(|scope| {
        let (tx, rx) = bounded::<Job<'_>>(1);
        let mut workers = Vec::new();
        for _ in 0..threads {
            let (rx, shared) = (rx.clone(), &shared);
            workers.push(scope.spawn(move || stack::wiped(|| shared.work(&rx))));
        }
        drop(rx);
        let fed = feed(repo, &round.writes, |job| tx.send(job).is_ok());
        drop(tx);
        let mut outcome = fed;
        for worker in workers {
            let ended = worker.join().unwrap_or_else(|_| Err(Error::Invalid("a restoring thread panicked".into())));
            outcome = outcome.and(ended);
        }
        outcome
    });
    outcome?;
    Ok(shared.written.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Divides the writes into jobs: one pack, and no more bytes than one request should fetch.
fn feed<'w>(repo: &Repository, writes: &'w [Write], mut send: impl FnMut(Job<'w>) -> bool) -> Result<()> {
    let mut rest = writes;
    while let Some(first) = rest.first() {
        let pack = repo.index().pack(first.frame.0)?;
        let frame = |w: &Write| pack.as_ref().and_then(|pack| pack.frame(w.frame.1));
        let begin = frame(first).map_or(0, |(at, _)| at);
        let fits = |w: &Write| {
            w.frame.0 == first.frame.0
                && frame(w).is_none_or(|(at, frame)| at + u64::from(frame.stored) - begin <= limits::FETCH_MAX as u64)
        };
        let end = rest.iter().position(|w| !fits(w)).unwrap_or(rest.len()).max(1);
        let (now, later) = rest.split_at(end);
        rest = later;
        if !send(Job { pack, writes: now }) {
            // A worker failed, and tells why.
            return Ok(());
        }
    }
    Ok(())
}

struct Shared<'r> {
    repo: &'r Repository,
    files: &'r [Arc<PlannedFile>],
    owners: &'r Owners,
    monitor: &'r dyn Monitor,
    open: AtomicUsize,
    written: Mutex<Written>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared<'_> {
    fn work(&self, jobs: &Receiver<Job<'_>>) -> Result<()> {
        let mut decompressor = Decompressor::new()?;
        for job in jobs {
            if self.monitor.cancelled() {
                return Err(Error::Interrupted);
            }
            self.job(&job, &mut decompressor)?;
        }
        Ok(())
    }

    fn job(&self, job: &Job<'_>, decompressor: &mut Decompressor) -> Result<()> {
        let Some(pack) = &job.pack else { return self.one_by_one(job.writes) };
        let (mut bytes, base, key) = match self.fetch(pack, job.writes) {
            Ok(fetched) => fetched,
            // The pack is damaged or gone: each blob may still have another copy.
            Err(e) if e.is_damage() => return self.one_by_one(job.writes),
            Err(e) => return Err(e),
        };
        for writes in job.writes.chunk_by(|a, b| a.frame == b.frame) {
            let Some(first) = writes.first() else { continue };
            let number = first.frame.1;
            let Some((at, frame)) = pack.frame(number) else { continue };
            let start = (at - base) as usize;
            let bases = match self.repo.bases(frame) {
                Ok(bases) => bases,
                Err(e) if e.is_damage() => {
                    self.one_by_one(writes)?;
                    continue;
                }
                Err(e) => return Err(e),
            };
            let sealed = bytes.get_mut(start..start + frame.stored as usize).unwrap_or_default();
            match key.frame(number.into(), frame, sealed, &bases, decompressor) {
                Ok(plain) => self.place(writes, plain)?,
                Err(_) => self.one_by_one(writes)?,
            }
        }
        Ok(())
    }

    fn fetch(&self, pack: &PackMap, writes: &[Write]) -> Result<(Vec<u8>, u64, Arc<crate::pack::PackKey>)> {
        let object = self.repo.names().pack(&pack.name);
        let key = self.repo.pack_key(pack.number, &pack.name)?;
        let span = |w: Option<&Write>| w.and_then(|w| pack.frame(w.frame.1));
        let (Some((begin, _)), Some((last, frame))) = (span(writes.first()), span(writes.last())) else {
            return Err(Error::damaged(object, "it has no such frame"));
        };
        let len = (last + u64::from(frame.stored)).saturating_sub(begin) as usize;
        let bytes = self.repo.store().read_range(&object, begin, len)?;
        Ok((bytes.into(), begin, key))
    }

    /// Writes blobs of one frame; each is hashed before it is believed. Neighbours that stay
    /// neighbours in a file are written at once: two threads that write to one file wait for each
    /// other at every call.
    fn place(&self, writes: &[Write], plain: &[u8]) -> Result<()> {
        let mut sound: Vec<&Write> = Vec::with_capacity(writes.len());
        for same in writes.chunk_by(|a, b| (a.at, a.len, a.id) == (b.at, b.len, b.id)) {
            let Some(first) = same.first() else { continue };
            if self.repo.id_keys().blob_id(BlobKind::Chunk, bytes_of(plain, first, first)) == first.id {
                sound.extend(same);
            } else {
                self.one_by_one(same)?;
            }
        }
        sound.sort_unstable_by_key(|w| (w.file, w.offset));
        let adjoin = |a: &&Write, b: &&Write| {
            a.file == b.file && a.offset + u64::from(a.len) == b.offset && a.at + a.len == b.at
        };
        for run in sound.chunk_by(adjoin) {
            if let (Some(first), Some(last)) = (run.first(), run.last()) {
                self.put(first, bytes_of(plain, first, last), run.len())?;
            }
        }
        Ok(())
    }

    /// Gets each blob from whatever copy is right.
    fn one_by_one(&self, writes: &[Write]) -> Result<()> {
        for write in writes {
            let blob = self.repo.blob(BlobKind::Chunk, &write.id).and_then(|blob| {
                let fits = blob.len() == write.len as usize;
                let other =
                    || Error::damaged(format!("chunk {}", write.id), "it has another length than its file says");
                fits.then_some(blob).ok_or_else(other)
            });
            match blob {
                Ok(blob) => self.put(write, &blob, 1)?,
                Err(e) if e.is_damage() => {
                    let Some(file) = self.files.get(write.file as usize) else { continue };
                    self.fail(file, &e.to_string());
                    self.done(file, 1)?;
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Writes the bytes of `blobs` writes, of which `first` is the first.
    fn put(&self, first: &Write, bytes: &[u8], blobs: usize) -> Result<()> {
        let Some(file) = self.files.get(first.file as usize) else { return Ok(()) };
        if !file.failed.load(Ordering::Relaxed) {
            let written = self
                .opened(file)
                .and_then(|open| open.write_all_at(bytes, first.offset).map_err(|source| target(file, source)));
            self.or_failed(file, written)?;
        }
        self.monitor.event(Event::Bytes(bytes.len() as u64));
        self.done(file, blobs)
    }

    /// The open file; it is created by whichever blob comes first.
    fn opened(&self, file: &PlannedFile) -> Result<Arc<File>> {
        let mut slot = lock(&file.file);
        if let Some(open) = &*slot {
            return Ok(Arc::clone(open));
        }
        // The slot's lock is held: exactly one blob creates the file.
        let begun = file.existing || file.created.swap(true, Ordering::Relaxed);
        let name = &file.node.name;
        let open = Arc::new(match begun {
            true if file.shared => file.folder.reopen_shared(name)?,
            true => file.folder.reopen(name)?,
            false => file.folder.create_file(name)?,
        });
        if self.open.load(Ordering::Relaxed) < OPEN_MAX {
            self.open.fetch_add(1, Ordering::Relaxed);
            *slot = Some(Arc::clone(&open));
        }
        Ok(open)
    }

    fn done(&self, file: &PlannedFile, writes: usize) -> Result<()> {
        // Whoever comes last sees what all others have written: the counter orders them.
        if file.waiting.fetch_sub(writes, Ordering::AcqRel) == writes {
            let finished = self.finish(file);
            self.or_failed(file, finished)?;
        }
        Ok(())
    }

    /// Size, owner, mode, attributes, times; a file that failed is removed rather than left wrong.
    fn finish(&self, file: &PlannedFile) -> Result<()> {
        if file.failed.load(Ordering::Acquire) {
            if lock(&file.file).take().is_some() {
                self.open.fetch_sub(1, Ordering::Relaxed);
            }
            return file.folder.remove(&file.node.name);
        }
        let open = self.opened(file)?;
        // A hole at its end, or a file that was longer. To set the length that it has would touch it.
        if open.metadata().map_err(|source| target(file, source))?.len() != file.node.size {
            open.set_len(file.node.size).map_err(|source| target(file, source))?;
        }
        let warnings = apply_to_file(&open, &file.node, self.owners);
        if lock(&file.file).take().is_some() {
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
        if !warnings.is_empty() {
            let path = file.folder.path_of(&file.node.name);
            let mut written = lock(&self.written);
            let room = limits::REPORT_MAX.saturating_sub(written.warnings.len());
            written.warnings.extend(warnings.into_iter().take(room).map(|w| format!("{}: {w}", path.display())));
        }
        Ok(())
    }

    fn fail(&self, file: &PlannedFile, why: &str) {
        if !file.failed.swap(true, Ordering::AcqRel) {
            let path = file.folder.path_of(&file.node.name);
            let failed = Failed { what: format!("{}: {why}", path.display()), size: file.node.size };
            lock(&self.written).failed.push(failed);
        }
    }

    /// One file's trouble does not stop the others; a full disk stops all.
    fn or_failed(&self, file: &PlannedFile, result: Result<()>) -> Result<()> {
        match result {
            Err(Error::Target { source, .. }) if !ends_all(&source) => {
                self.fail(file, &source.to_string());
                Ok(())
            }
            other => other,
        }
    }
}

/// The plaintext from the beginning of one blob to the end of another.
fn bytes_of<'p>(plain: &'p [u8], first: &Write, last: &Write) -> &'p [u8] {
    plain.get(first.at as usize..last.at as usize + last.len as usize).unwrap_or_default()
}

fn target(file: &PlannedFile, source: std::io::Error) -> Error {
    Error::Target { path: file.folder.path_of(&file.node.name), source }
}
