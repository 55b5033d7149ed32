//! Writing a round: frames come as the plan reads them, each once, on every
//! core; their blobs are hashed and written.

use super::plan::{Failed, PlannedFile, Round, Write, Written, ends_all};
use super::target::{Owners, apply_to_file};
use crate::error::{Error, Result};
use crate::format::pack::BlobKind;
use crate::limits;
use crate::monitor::{Event, Monitor};
use crate::repo::{Repository, Trust};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Files that stay open between two writes.
const OPEN_MAX: usize = 256;

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
    for file in &round.files {
        // Its handle counts among the open ones of the round before.
        drop(lock(&file.file).take());
    }
    // Files that are right already, or end in nothing but holes, have no write to finish them.
    for file in round.files.iter().filter(|f| f.waiting.load(Ordering::Acquire) == 0) {
        shared.or_failed(file, shared.finish(file))?;
    }
    let writes = &round.writes;
    let mut of_frame = vec![0..0; round.reading.len()];
    let mut begin = 0;
    for same in writes.chunk_by(|a, b| a.frame == b.frame) {
        let all = begin..begin + same.len();
        begin = all.end;
        match same.first().and_then(|w| w.frame) {
            Some(frame) => of_frame[frame as usize] = all,
            // Nobody knows all that they rest on: whoever gets them tells.
            None => shared.one_by_one(same)?,
        }
    }
    round.reading.run(repo, Trust::Blobs, monitor, &|frame, decoded| {
        let writes = of_frame.get(frame as usize).map_or(&[][..], |all| &writes[all.clone()]);
        match decoded {
            Ok(decoded) => shared.place(writes, decoded.plain),
            // The frame is damaged or gone: each blob may still have another copy.
            Err(_) => shared.one_by_one(writes),
        }
    })?;
    Ok(shared.written.into_inner().unwrap_or_else(PoisonError::into_inner))
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
        // The end of a file that holds nothing is planned for one round, and the last write was in another.
        if file.finished.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
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
