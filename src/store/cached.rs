//! A store that is far, with copies on this machine of what was read of it or written to it: what lies
//! here is not asked for again. Copies are bytes as the store holds them, sealed; whoever reads them opens
//! them as ever. Never asks for more than it was asked for, but for a whole object where a part of it is
//! read that others will follow ([`Store::read_lasting`]).
//!
//! An object keeps its bytes, with two exceptions: a tombstone can take a snapshot's place, and one
//! repository the place of another. So a copy of what stands in a listed folder counts once a listing
//! of this process shows the object with the size and the time that the copy has. What is never listed counts
//! unseen; as soon as a listing shows that something changed, all of that is dropped. Whoever finds that the
//! store's objects do not go together calls [`Cached::forget_unseen`], and begins again.
//!
//! Losing copies costs time. They are written beside their names and renamed, never synced; a hash of
//! its content closes each, so what a crash cut short is no copy. What cannot be written is not kept.

use super::{Listed, Protection, Store};
use crate::error::StoreError;
use crate::limits;
use bytes::Bytes;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// Bytes of the hash that closes a copy.
const HASH_LEN: u64 = 32;
/// Its time is that of the last look at how much there is.
const STAMP: &str = "looked";
/// Parts that the names of objects have that are never listed: below are packs, and many.
const UNSEEN_DEPTH: usize = 3;
/// How files end that are to become copies.
const NEW: &str = ".new";

/// Whether an object is worth a copy, and when that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasting {
    /// Never.
    No,
    /// Once a listing shows it as it was.
    Listed,
    /// Unseen, until a listing shows that something changed.
    Unseen,
    /// For ever: its name is never used again. Only what [`Store::read_lasting`] asks for, or
    /// [`Store::create`] made, is kept.
    Part,
}

/// See the module.
pub struct Cached {
    inner: Arc<dyn Store>,
    /// Below it lie the copies of this store's objects, by their names.
    folder: PathBuf,
    /// Below it lie those of all stores.
    root: PathBuf,
    rule: fn(&str) -> Lasting,
    state: Mutex<State>,
    fetched: Condvar,
    /// Whether something that counts unseen was read here.
    has_served_unseen: AtomicBool,
    /// Bytes of all copies, at the most.
    most: u64,
    /// Bytes kept since the last look at how much there is.
    kept: AtomicU64,
}

#[derive(Default)]
struct State {
    /// Objects that a listing of this process showed as their copies are.
    shown: HashSet<String>,
    /// Copies whose hash was looked at.
    sound: HashSet<String>,
    /// Whole objects that a thread is fetching.
    fetching: HashSet<String>,
}

impl Cached {
    /// `inner`, with copies below `root`: `most` bytes, of all stores together, and for a while
    /// an eighth more. `rule` tells of a name whether it is worth one, and must do so
    /// of names alone that are safe as paths.
    pub fn new(inner: Arc<dyn Store>, root: &Path, most: u64, rule: fn(&str) -> Lasting) -> Self {
        let place = blake3::hash(inner.describe().as_bytes()).to_hex();
        let cached = Self {
            inner,
            folder: root.join(&place.as_str()[..32]),
            root: root.to_owned(),
            rule,
            state: Mutex::default(),
            fetched: Condvar::new(),
            has_served_unseen: AtomicBool::new(false),
            most,
            kept: AtomicU64::new(0),
        };
        cached.look_if_due();
        cached
    }

    /// Drops the copies that count unseen, which may be of a repository that lay there before. True if one
    /// was read: then the store may say something else.
    pub fn forget_unseen(&self) -> bool {
        if let Err(e) = self.drop_unseen() {
            tracing::debug!("{}: {e}", self.folder.display());
        }
        self.has_served_unseen.swap(false, Ordering::Relaxed)
    }

    /// Removes the copies of all that lies below a folder of a store, by where that is.
    ///
    /// # Errors
    /// This machine's.
    pub fn remove_below(root: &Path, place: &str, folder: &str) -> io::Result<()> {
        let place = blake3::hash(place.as_bytes()).to_hex();
        match fs::remove_dir_all(root.join(&place.as_str()[..32]).join(folder)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// True if a copy would count, if there is one.
    fn counts(&self, name: &str) -> bool {
        match (self.rule)(name) {
            Lasting::No => false,
            Lasting::Listed => self.lock().shown.contains(name),
            Lasting::Unseen | Lasting::Part => true,
        }
    }

    /// Some bytes of a copy that counts, or all of it.
    fn copy(&self, name: &str, part: Option<(u64, usize)>) -> Option<Bytes> {
        if !self.counts(name) {
            return None;
        }
        let mut file = File::open(self.path(name)).ok()?;
        match self.read_copy(name, &mut file, part) {
            Ok(Some(bytes)) => {
                if (self.rule)(name) == Lasting::Unseen {
                    self.has_served_unseen.store(true, Ordering::Relaxed);
                }
                Some(bytes)
            }
            Ok(None) => None,
            Err(e) => {
                tracing::debug!("{}: {e}", self.path(name).display());
                self.drop_copy(name);
                None
            }
        }
    }

    fn read_copy(&self, name: &str, file: &mut File, part: Option<(u64, usize)>) -> io::Result<Option<Bytes>> {
        let cut = || io::Error::new(io::ErrorKind::InvalidData, "the copy is not whole");
        let size = file.metadata()?.len().checked_sub(HASH_LEN).ok_or_else(cut)?;
        if size > limits::COPY_MAX {
            return Err(cut());
        }
        if !self.lock().sound.contains(name) {
            let mut whole = Vec::with_capacity(size as usize + HASH_LEN as usize);
            file.take(size + HASH_LEN + 1).read_to_end(&mut whole)?;
            let (content, hash) = whole.split_last_chunk().ok_or_else(cut)?;
            if blake3::hash(content) != *hash {
                return Err(cut());
            }
            self.lock().sound.insert(name.to_owned());
            file.seek(SeekFrom::Start(0))?;
        }
        let (offset, len) = part.unwrap_or((0, size as usize));
        if offset.checked_add(len as u64).is_none_or(|end| end > size) {
            // The store finds the words for it.
            return Ok(None);
        }
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, offset)?;
        if (self.rule)(name) == Lasting::Part {
            // Of those that are used, the ones that were used last stay; of the others the time says which
            // object they are of.
            file.set_modified(SystemTime::now())?;
        }
        Ok(Some(bytes.into()))
    }

    fn drop_copy(&self, name: &str) {
        {
            let mut state = self.lock();
            state.shown.remove(name);
            state.sound.remove(name);
        }
        match fs::remove_file(self.path(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => tracing::debug!("{}: {e}", self.path(name).display()),
            _ => {}
        }
    }

    /// Keeps a copy. Where that fails, there is none.
    fn keep(&self, name: &str, content: &[u8]) {
        if content.len() as u64 > limits::COPY_MAX {
            return;
        }
        match self.write_copy(name, content) {
            Ok(()) => {
                let mut state = self.lock();
                state.sound.insert(name.to_owned());
                state.shown.insert(name.to_owned());
            }
            Err(e) => tracing::debug!("{}: {e}", self.path(name).display()),
        }
        let kept = self.kept.fetch_add(content.len() as u64, Ordering::Relaxed) + content.len() as u64;
        if kept > self.most / 8 {
            self.look();
        }
    }

    fn write_copy(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let path = self.path(name);
        let parent = path.parent().unwrap_or(&self.folder);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        let mut drawn = [0; 8];
        getrandom::fill(&mut drawn).map_err(io::Error::other)?;
        let new = path.with_extension(format!("{:016x}{NEW}", u64::from_le_bytes(drawn)));
        let written = (|| {
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            file.write_all(content)?;
            file.write_all(blake3::hash(content).as_bytes())?;
            // Of which object it is is not known before it is listed.
            file.set_modified(SystemTime::UNIX_EPOCH)?;
            fs::rename(&new, &path)
        })();
        if written.is_err() {
            // What is left of it is removed with the oldest, if not now.
            let _ = fs::remove_file(&new);
        }
        written
    }

    /// Holds the copies in a folder against its listing.
    fn hold_against(&self, folder: &str, listed: &[Listed]) -> io::Result<()> {
        let entries = match fs::read_dir(self.path(folder)) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e),
        };
        for entry in entries {
            let entry = entry?;
            let Ok(last) = entry.file_name().into_string() else { continue };
            let name = format!("{folder}/{last}");
            if (self.rule)(&name) != Lasting::Listed {
                continue;
            }
            let object = listed.binary_search_by(|object| object.name.as_str().cmp(&name)).ok().map(|at| &listed[at]);
            if object.is_some_and(|object| is_of(&entry.path(), object).unwrap_or(false)) {
                self.lock().shown.insert(name);
                continue;
            }
            self.drop_copy(&name);
            self.drop_unseen()?;
        }
        Ok(())
    }

    /// Drops what counts unseen: something that is listed changed.
    fn drop_unseen(&self) -> io::Result<()> {
        let mut folders = vec![String::new()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(self.path(&folder))? {
                let entry = entry?;
                let Ok(last) = entry.file_name().into_string() else { continue };
                let name = if folder.is_empty() { last } else { format!("{folder}/{last}") };
                if !entry.file_type()?.is_dir() {
                    if (self.rule)(&name) == Lasting::Unseen {
                        self.drop_copy(&name);
                    }
                } else if name.split('/').count() < UNSEEN_DEPTH {
                    folders.push(name);
                }
            }
        }
        Ok(())
    }

    /// Looks once a day how much there is.
    fn look_if_due(&self) {
        let day = Duration::from_secs(limits::LOCAL_SWEEP_SECONDS);
        let now = SystemTime::now();
        let last = fs::metadata(self.root.join(STAMP)).and_then(|metadata| metadata.modified());
        // A clock that ran ahead for a while must not put it off for ever.
        let is_due = last.is_ok_and(|last| now.duration_since(last).map_or(last > now + day, |age| age > day));
        if is_due || !self.root.join(STAMP).exists() && self.root.exists() {
            self.look();
        }
    }

    fn look(&self) {
        self.kept.store(0, Ordering::Relaxed);
        let stamp =
            fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(self.root.join(STAMP));
        if let Err(e) = stamp.and_then(|_| shrink(&self.root, self.most)) {
            tracing::debug!("{}: {e}", self.root.display());
        }
    }

    /// Waits until no other thread fetches an object, and announces that this one does.
    fn begin(&self, name: &str) -> Fetching<'_> {
        let mut state = self.lock();
        while !state.fetching.insert(name.to_owned()) {
            state = self.fetched.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Fetching { cached: self, name: name.to_owned() }
    }
}

/// An object that one thread fetches.
struct Fetching<'c> {
    cached: &'c Cached,
    name: String,
}

impl Drop for Fetching<'_> {
    fn drop(&mut self) {
        self.cached.lock().fetching.remove(&self.name);
        self.cached.fetched.notify_all();
    }
}

/// True if a copy is of the object that is listed. One that was never held against a listing has no time
/// of its own yet, and takes that of the first.
fn is_of(path: &Path, object: &Listed) -> io::Result<bool> {
    let metadata = fs::metadata(path)?;
    if metadata.len() != object.size + HASH_LEN {
        return Ok(false);
    }
    let age = Duration::new(object.modified.seconds.unsigned_abs(), object.modified.nanos);
    let time = match object.modified.seconds {
        0.. => SystemTime::UNIX_EPOCH.checked_add(age),
        _ => None,
    };
    let Some(time) = time else { return Ok(false) };
    match metadata.modified()? {
        SystemTime::UNIX_EPOCH => {
            File::options().write(true).open(path)?.set_modified(time)?;
            Ok(true)
        }
        kept => Ok(kept == time),
    }
}

/// Removes what was used longest ago where there is more than `max` bytes, until a quarter is free.
fn shrink(root: &Path, max: u64) -> io::Result<()> {
    let (mut found, mut folders, mut bytes) = (Vec::new(), vec![root.to_owned()], 0);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                folders.push(entry.path());
                continue;
            }
            bytes += metadata.blocks() * 512;
            // Its change is never before it was made, or held against a listing.
            let changed = (metadata.ctime(), metadata.ctime_nsec());
            found.push((
                changed.max((metadata.atime(), metadata.atime_nsec())),
                metadata.blocks() * 512,
                entry.path(),
            ));
        }
    }
    if bytes <= max {
        return Ok(());
    }
    found.sort_unstable();
    for (_, size, path) in found {
        if bytes <= max / 4 * 3 {
            break;
        }
        if path.file_name().is_none_or(|name| name != STAMP) && fs::remove_file(&path).is_ok() {
            bytes -= size;
        }
    }
    Ok(())
}

impl Store for Cached {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn local_path(&self) -> Option<&Path> {
        self.inner.local_path()
    }

    fn is_far(&self) -> bool {
        self.inner.is_far()
    }

    fn freezes(&self) -> bool {
        self.inner.freezes()
    }

    fn protection(&self) -> Protection {
        self.inner.protection()
    }

    fn retained_until(&self, name: &str) -> Option<crate::clock::Timestamp> {
        self.inner.retained_until(name)
    }

    fn create(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        self.inner.create(name, data.clone())?;
        if (self.rule)(name) != Lasting::No {
            self.keep(name, &data);
        }
        Ok(())
    }

    fn create_cold(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        self.inner.create_cold(name, data)
    }

    fn write(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        if (self.rule)(name) != Lasting::No {
            self.drop_copy(name);
        }
        self.inner.write(name, data)
    }

    fn read(&self, name: &str, max: u64) -> Result<Bytes, StoreError> {
        if let Some(bytes) = self.copy(name, None).filter(|bytes| bytes.len() as u64 <= max) {
            return Ok(bytes);
        }
        let bytes = self.inner.read(name, max)?;
        if matches!((self.rule)(name), Lasting::Listed | Lasting::Unseen) {
            self.keep(name, &bytes);
        }
        Ok(bytes)
    }

    fn read_range(&self, name: &str, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        match self.copy(name, Some((offset, len))) {
            Some(bytes) => Ok(bytes),
            None => self.inner.read_range(name, offset, len),
        }
    }

    fn read_lasting(&self, name: &str, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        if let Some(bytes) = self.copy(name, Some((offset, len))) {
            return Ok(bytes);
        }
        if (self.rule)(name) == Lasting::No {
            return self.inner.read_range(name, offset, len);
        }
        let _fetching = self.begin(name);
        if let Some(bytes) = self.copy(name, Some((offset, len))) {
            return Ok(bytes);
        }
        let Ok(whole) = self.inner.read(name, limits::COPY_MAX) else {
            // It may be larger than is kept; or this tells what is wrong.
            return self.inner.read_range(name, offset, len);
        };
        self.keep(name, &whole);
        match offset.checked_add(len as u64) {
            Some(end) if end <= whole.len() as u64 => Ok(whole.slice(offset as usize..end as usize)),
            _ => self.inner.read_range(name, offset, len),
        }
    }

    fn size(&self, name: &str) -> Result<u64, StoreError> {
        self.inner.size(name)
    }

    fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        let listed = self.inner.list(folder)?;
        if let Err(e) = self.hold_against(folder, &listed) {
            tracing::debug!("{}: {e}", self.path(folder).display());
        }
        Ok(listed)
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        if (self.rule)(name) != Lasting::No {
            self.drop_copy(name);
        }
        self.inner.delete(name)
    }
}

#[cfg(test)]
mod tests;
