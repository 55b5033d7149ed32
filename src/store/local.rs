//! A store in a folder of this machine.
//!
//! What it tells as done is durable: an object's bytes, its name ([`staged`]), and the folders above it
//! ([`folders`]). What it shows is made so: a process may be killed, or told of an error, after its
//! object has a name and before the name is durable. If another relied on such an object, and then
//! the machine crashed, a snapshot would need what is gone. So a folder is synced before what it
//! lists is told, and before an object is said to exist.
//!
//! `object_store` writes to all stores but this one. Its uploads to a folder cannot be told dead from
//! living, and it makes folders anew that went away: with a disk that was unmounted, the rest of a
//! backup would go to the disk below.

use super::staged::Mode;
use super::{Listed, Store, fault, folders, listing, staged, wrapped};
use crate::error::{Error, Result, StoreError, StoreFault};
use bytes::Bytes;
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};
use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

/// Objects as files below a folder. The folder is made by the first write, not before. Its file
/// system must know hard links: an object that is created takes its name by one.
pub struct Local {
    path: PathBuf,
    /// The folder's full name, without symbolic links, once it is there.
    root: OnceLock<PathBuf>,
    /// Folders whose names are known to be durable, from the root, which is the empty one.
    durable: Mutex<HashSet<String>>,
    /// When this process last wrote here, by the clock of the disk.
    written: Mutex<Option<SystemTime>>,
}

impl Local {
    /// The store at `path`, which need not be there yet.
    ///
    /// # Errors
    /// [`Error::Local`] where the current folder is unknown.
    pub fn new(path: impl AsRef<Path>) -> Result<Self> {
        let path = std::path::absolute(path.as_ref())
            .map_err(|e| Error::Local { path: path.as_ref().to_path_buf(), why: e.to_string() })?;
        Ok(Self { path, root: OnceLock::new(), durable: Mutex::default(), written: Mutex::default() })
    }

    /// The folder, if it is there.
    fn root(&self, operation: &'static str, name: &str) -> Result<&Path, StoreError> {
        if let Some(root) = self.root.get() {
            return Ok(root);
        }
        let failed = |e: io::Error| fault::at(operation, name, &self.path, &e);
        let root = self.path.canonicalize().map_err(failed)?;
        if !root.metadata().map_err(failed)?.is_dir() {
            return Err(failed(io::ErrorKind::NotADirectory.into()));
        }
        Ok(self.root.get_or_init(|| root))
    }

    /// Makes the folder if it is missing (only its owner may look into it), with those below it that
    /// will hold an object. Each is seen to once; who needs one that another thread sees to waits.
    fn make_folders(&self, operation: &'static str, name: &str) -> Result<(), StoreError> {
        let below = name.match_indices('/').map(|(at, _)| &name[..at]);
        let mut durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        for folder in std::iter::once("").chain(below) {
            if !durable.contains(folder) {
                let (at, mode) = match folder {
                    "" => (self.path.clone(), 0o700),
                    _ => (self.path.join(folder), 0o777),
                };
                folders::make(&at, mode).map_err(|e| fault::of_write(fault::at(operation, name, &at, &e)))?;
                durable.insert(folder.to_owned());
            }
        }
        Ok(())
    }

    fn put(&self, operation: &'static str, name: &str, data: &[u8], mode: Mode) -> Result<(), StoreError> {
        let path = wrapped::path(operation, name)?;
        let name = path.as_ref();
        if name.is_empty() || staged::is_staged(name) {
            return Err(fault::new(StoreFault::Other, operation, name, "this is no object's name"));
        }
        self.make_folders(operation, name)?;
        let place = self.root(operation, name).map_err(fault::of_write)?.join(name);
        match staged::put(&place, data, mode) {
            Ok(written) => {
                *self.written.lock().unwrap_or_else(PoisonError::into_inner) = Some(written);
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                Err(fault::new(StoreFault::Exists, operation, name, "it exists already"))
            }
            Err(e) => Err(fault::of_write(fault::of_io(operation, name, &e))),
        }
    }

    /// Sees to what was found in a folder: that its names are durable, and that what dead uploads have
    /// left is removed. Who has not written relies on nothing, may be forbidden to, and removes nothing.
    fn tend(&self, folder: &Path, found: &listing::Found) -> io::Result<()> {
        let written = *self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let synced = folders::sync(folder);
        let Some(now) = written else { return Ok(()) };
        match synced {
            Err(e) if !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Err(e),
            _ => {}
        }
        for (path, _) in found.staged.iter().filter(|(_, written)| staged::is_dead(*written, now)) {
            match std::fs::remove_file(path) {
                Ok(()) => tracing::debug!("removed {}, left by an upload that was killed", path.display()),
                Err(e) => tracing::debug!("{} stays behind: {e}", path.display()),
            }
        }
        Ok(())
    }

    /// Where an object lies.
    fn place(&self, operation: &'static str, name: &str) -> Result<PathBuf, StoreError> {
        let path = wrapped::path(operation, name)?;
        if staged::is_staged(name) {
            return Err(fault::not_found(operation, name));
        }
        match self.root(operation, name) {
            Ok(root) => Ok(root.join(path.as_ref())),
            Err(e) if e.fault == StoreFault::NotFound => Err(fault::not_found(operation, name)),
            Err(e) => Err(e),
        }
    }

    /// An object's file, and its size.
    fn file(&self, operation: &'static str, name: &str) -> Result<(File, u64), StoreError> {
        let place = self.place(operation, name)?;
        let file = File::open(place).map_err(|e| failed(operation, name, &e))?;
        let metadata = file.metadata().map_err(|e| failed(operation, name, &e))?;
        if metadata.is_file() { Ok((file, metadata.len())) } else { Err(fault::not_found(operation, name)) }
    }

    fn sized(&self, operation: &'static str, name: &str) -> Result<u64, StoreError> {
        let metadata = self.place(operation, name)?.metadata().map_err(|e| failed(operation, name, &e))?;
        if metadata.is_file() { Ok(metadata.len()) } else { Err(fault::not_found(operation, name)) }
    }
}

/// The error of a file that holds an object. Below an object there is none.
fn failed(operation: &'static str, name: &str, e: &io::Error) -> StoreError {
    match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => fault::not_found(operation, name),
        _ => fault::of_io(operation, name, e),
    }
}

/// True for a file that was made immutable (`chattr +i`), or that may only grow, and for one in such a folder.
fn is_locked(place: &Path) -> bool {
    let lock = StatxAttributes::IMMUTABLE | StatxAttributes::APPEND;
    let is_marked = |path: &Path| {
        let found = rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty());
        found.is_ok_and(|found| found.stx_attributes.intersects(lock))
    };
    is_marked(place) || place.parent().is_some_and(is_marked)
}

/// Some bytes of a file that holds them.
fn bytes(name: &str, file: &File, offset: u64, len: usize) -> Result<Bytes, StoreError> {
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, offset).map_err(|e| failed("read", name, &e))?;
    Ok(bytes.into())
}

impl Store for Local {
    fn describe(&self) -> String {
        self.path.display().to_string()
    }

    fn local_path(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn create(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        self.put("create", name, &data, Mode::Create)
    }

    fn write(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        self.put("write", name, &data, Mode::Replace)
    }

    fn read(&self, name: &str, max: u64) -> Result<Bytes, StoreError> {
        let (file, size) = self.file("read", name)?;
        match usize::try_from(size) {
            Ok(len) if size <= max => bytes(name, &file, 0, len),
            _ => Err(wrapped::large(name, size, max)),
        }
    }

    fn read_range(&self, name: &str, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        // Until its end is known, the object is only looked at.
        let (file, size) = self.file("look at", name)?;
        match offset.checked_add(len as u64) {
            Some(end) if end <= size => bytes(name, &file, offset, len),
            _ => Err(wrapped::short(name, offset, len, size)),
        }
    }

    fn size(&self, name: &str) -> Result<u64, StoreError> {
        self.sized("look at", name)
    }

    fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        let path = wrapped::path("list", folder)?;
        let root = match self.root("list", folder) {
            Ok(root) => root,
            Err(e) if e.fault == StoreFault::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        let listed = listing::below(root, path.as_ref()).and_then(|found| {
            self.tend(&root.join(path.as_ref()), &found)?;
            Ok(found.objects)
        });
        listed.map_err(|e| {
            let e = fault::of_io("list", folder, &e);
            // A root that was there is no store that is yet to be made.
            if e.fault == StoreFault::NotFound { StoreError { fault: StoreFault::Unavailable, ..e } } else { e }
        })
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.sized("delete", name)?;
        let place = self.place("delete", name)?;
        std::fs::remove_file(&place).map_err(|e| match e.kind() {
            io::ErrorKind::PermissionDenied if is_locked(&place) => fault::new(
                StoreFault::Retained,
                "delete",
                name,
                "its file is marked as one that is not to be changed",
            ),
            _ => failed("delete", name, &e),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn keeps_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        super::super::contract::check(&Local::new(folder.path().join("store")).unwrap());
    }

    #[test]
    fn looking_makes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/store");
        let store = Local::new(&path).unwrap();
        assert!(store.list("x").unwrap().is_empty());
        assert_eq!(store.read("x", 9).unwrap_err().fault, StoreFault::NotFound);
        assert!(!path.exists());
        store.create("x", Bytes::new()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_folder_that_goes_away_is_no_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let store = Local::new(folder.path().join("store")).unwrap();
        store.create("packs/ab", Bytes::new()).unwrap();
        assert!(store.list("index").unwrap().is_empty());
        std::fs::rename(folder.path().join("store"), folder.path().join("moved")).unwrap();
        let e = store.list("packs").unwrap_err();
        assert_eq!(e.fault, StoreFault::Unavailable, "{e}");
    }

    #[test]
    fn a_crashed_upload_is_not_listed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Local::new(folder.path()).unwrap();
        store.create("packs/ab", Bytes::from_static(b"x")).unwrap();
        std::fs::write(folder.path().join("packs/cd#1"), b"half").unwrap();
        assert_eq!(store.list("packs").unwrap().len(), 1);
        assert_eq!(store.read("packs/cd#1", 9).unwrap_err().fault, StoreFault::NotFound);
        store.create("packs/cd", Bytes::from_static(b"whole")).unwrap();
        assert_eq!(&store.read("packs/cd", 9).unwrap()[..], b"whole");
    }

    #[test]
    fn a_place_that_is_no_folder_is_an_error_and_no_empty_store() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for path in [file.path().to_path_buf(), file.path().join("store")] {
            let store = Local::new(&path).unwrap();
            let faults = [
                store.list("x").unwrap_err().fault,
                store.read("x", 9).unwrap_err().fault,
                store.create("x", Bytes::new()).unwrap_err().fault,
            ];
            assert_eq!(faults, [StoreFault::Other; 3], "{}", path.display());
        }
    }

    #[test]
    fn what_may_not_be_written_is_denied() {
        // No one makes folders there, root included, however it is mounted.
        let store = Local::new("/sys/estrato/store").unwrap();
        let e = store.create("packs/ab", Bytes::new()).unwrap_err();
        assert_eq!(e.fault, StoreFault::Denied, "{e}");
        assert!(e.to_string().starts_with("create packs/ab: /sys/estrato/store: "), "{e}");
    }

    #[test]
    fn a_file_that_is_locked_is_retained() {
        let folder = tempfile::tempdir().unwrap();
        let store = Local::new(folder.path()).unwrap();
        store.create("packs/ab", Bytes::new()).unwrap();
        let mark = |how: &str, name: &str| {
            let marked = std::process::Command::new("chattr").arg(how).arg(folder.path().join(name)).output();
            marked.is_ok_and(|ran| ran.status.success())
        };
        if !mark("+i", "packs/ab") {
            println!("SKIPPED: this file system, or this user, makes no file immutable");
            return;
        }
        let refused = store.delete("packs/ab").unwrap_err();
        assert!(mark("-i", "packs/ab") && mark("+a", "packs"));
        let below = store.delete("packs/ab").unwrap_err();
        assert!(mark("-a", "packs"));
        assert_eq!((refused.fault, below.fault), (StoreFault::Retained, StoreFault::Retained), "{refused}");
        store.delete("packs/ab").unwrap();
    }

    #[test]
    fn nothing_lies_below_an_object() {
        let folder = tempfile::tempdir().unwrap();
        let store = Local::new(folder.path()).unwrap();
        store.create("a/b", Bytes::new()).unwrap();
        assert_eq!(store.read("a/b/c", 9).unwrap_err().fault, StoreFault::NotFound);
        assert!(store.list("a/b").unwrap().is_empty());
        let e = store.create("a/b/c", Bytes::new()).unwrap_err();
        assert!(e.fault == StoreFault::Other && e.why.ends_with("a/b: not a directory"), "{e}");
        for request in [store.read("a", 9).map(drop), store.size("a").map(drop), store.delete("a")] {
            assert_eq!(request.unwrap_err().fault, StoreFault::NotFound);
        }
    }

    #[test]
    fn a_folder_that_is_not_utf8_serves() {
        let place = tempfile::tempdir().unwrap();
        let store = Local::new(place.path().join(OsStr::from_bytes(b"store \xff"))).unwrap();
        store.create("a", Bytes::from_static(b"text")).unwrap();
        assert_eq!(store.create("a", Bytes::new()).unwrap_err().fault, StoreFault::Exists);
        assert_eq!(&store.read("a", 9).unwrap()[..], b"text");
        assert_eq!(store.list("").unwrap().len(), 1);
    }

    #[test]
    fn a_folder_that_goes_away_is_not_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("store");
        let store = Local::new(&root).unwrap();
        store.create("packs/ab", Bytes::new()).unwrap();
        std::fs::rename(&root, folder.path().join("moved")).unwrap();
        let e = store.create("packs/cd", Bytes::new()).unwrap_err();
        assert!(e.fault == StoreFault::Other && e.why.contains("gone"), "{e}");
        assert!(!root.exists());
    }

    /// A file that an upload left so long ago.
    fn leftover(at: &Path, hours: u64) -> PathBuf {
        std::fs::write(at, b"half").unwrap();
        let then = SystemTime::now() - std::time::Duration::from_secs(hours * 3600);
        File::options().write(true).open(at).unwrap().set_modified(then).unwrap();
        at.to_path_buf()
    }

    #[test]
    fn who_writes_removes_what_dead_uploads_left() {
        let folder = tempfile::tempdir().unwrap();
        let packs = folder.path().join("packs/ab");
        std::fs::create_dir_all(&packs).unwrap();
        let old = leftover(&packs.join("abcd#1"), 25);
        let young = leftover(&packs.join("abcd#2"), 23);
        let elsewhere = leftover(&folder.path().join("abcd#3"), 25);
        let object = leftover(&packs.join("notes #1a"), 25);

        let reader = Local::new(folder.path()).unwrap();
        assert_eq!(reader.list("packs").unwrap().len(), 1);
        assert!(old.exists(), "a reader removes nothing");
        let writer = Local::new(folder.path()).unwrap();
        writer.create("session", Bytes::new()).unwrap();
        assert_eq!(writer.list("packs").unwrap().len(), 1);
        assert!(!old.exists() && young.exists() && elsewhere.exists() && object.exists());
        writer.list("").unwrap();
        assert!(!elsewhere.exists());
    }

    #[test]
    fn no_object_is_named_like_an_upload() {
        let folder = tempfile::tempdir().unwrap();
        let store = Local::new(folder.path()).unwrap();
        for name in ["ab#1", "packs/ab#77", ""] {
            let e = store.create(name, Bytes::new()).unwrap_err();
            assert_eq!(e.fault, StoreFault::Other, "{e}");
        }
        assert!(store.list("").unwrap().is_empty());
    }

    #[test]
    fn names_stay_within_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let store = Local::new(folder.path().join("store")).unwrap();
        std::fs::write(folder.path().join("secret"), b"x").unwrap();
        store.create("a", Bytes::new()).unwrap();
        for name in ["../secret", "a/../../secret", "./a", "a//b", "a\nb", ""] {
            assert!(store.read(name, 9).is_err(), "{name:?}");
            assert!(store.create(name, Bytes::new()).is_err(), "{name:?}");
            assert!(store.delete(name).is_err(), "{name:?}");
        }
        assert!(store.list("..").is_err());
    }
}
