//! A store in a folder of this machine. Writes are durable before they return:
//! the object, its folder, and every folder made for it are synced.

use super::wrapped::Wrapped;
use super::{Listed, Store};
use crate::error::{Error, Result, StoreError, StoreFault};
use bytes::Bytes;
use object_store::local::LocalFileSystem;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// Objects as files below a folder. The folder is made by the first write, not before.
pub struct Local {
    path: PathBuf,
    inner: OnceLock<Wrapped>,
}

impl Local {
    /// The store at `path`, which need not be there yet.
    ///
    /// # Errors
    /// [`Error::Local`] where the current folder is unknown.
    pub fn new(path: impl AsRef<Path>) -> Result<Self> {
        let path = std::path::absolute(path.as_ref())
            .map_err(|e| Error::Local { path: path.as_ref().to_path_buf(), why: e.to_string() })?;
        Ok(Self { path, inner: OnceLock::new() })
    }

    fn failed(&self, operation: &'static str, name: &str, e: &io::Error) -> StoreError {
        let fault = match e.kind() {
            io::ErrorKind::NotFound => StoreFault::NotFound,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => StoreFault::Denied,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreFault::Full,
            _ => StoreFault::Other,
        };
        let why = match fault {
            StoreFault::NotFound => "there is no such object".to_owned(),
            _ => format!("{}: {e}", self.path.display()),
        };
        StoreError { fault, operation, object: name.to_owned(), why }
    }

    /// The store below, if the folder is there.
    fn inner(&self, operation: &'static str, name: &str) -> Result<&Wrapped, StoreError> {
        if let Some(inner) = self.inner.get() {
            return Ok(inner);
        }
        // Looked at by hand first: `object_store` hides why a folder cannot be opened.
        std::fs::metadata(&self.path).map_err(|e| self.failed(operation, name, &e))?;
        let opened = LocalFileSystem::new_with_prefix(&self.path)
            .map_err(|e| super::wrapped::error(operation, name, &e))?
            .with_fsync(true);
        Ok(self.inner.get_or_init(|| Wrapped(Arc::new(opened))))
    }

    /// The store below; its folder is made if it is missing. Only its owner may look into it.
    fn made(&self, operation: &'static str, name: &str) -> Result<&Wrapped, StoreError> {
        let failed = |e: &io::Error| {
            let e = self.failed(operation, name, e);
            // A missing parent is no missing object.
            if e.fault == StoreFault::NotFound { StoreError { fault: StoreFault::Other, ..e } } else { e }
        };
        if self.inner.get().is_none() && !self.path.exists() {
            let parent = self.path.parent().unwrap_or(Path::new("/"));
            std::fs::create_dir_all(parent).map_err(|e| failed(&e))?;
            match DirBuilder::new().mode(0o700).create(&self.path) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(failed(&e)),
                _ => {}
            }
            File::open(parent).and_then(|folder| folder.sync_all()).map_err(|e| failed(&e))?;
        }
        self.inner(operation, name)
    }
}

impl Store for Local {
    fn describe(&self) -> String {
        self.path.display().to_string()
    }

    fn local_path(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn create(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        self.made("create", name)?.create(name, data)
    }

    fn write(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        self.made("write", name)?.write(name, data)
    }

    fn read(&self, name: &str, max: u64) -> Result<Bytes, StoreError> {
        self.inner("read", name)?.read(name, max)
    }

    fn read_range(&self, name: &str, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        self.inner("read", name)?.read_range(name, offset, len)
    }

    fn size(&self, name: &str) -> Result<u64, StoreError> {
        self.inner("look at", name)?.size(name)
    }

    fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        match self.inner("list", folder) {
            Ok(inner) => inner.list(folder),
            Err(e) if e.fault == StoreFault::NotFound => Ok(Vec::new()),
            Err(e) => Err(e),
        }
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.inner("delete", name)?.delete(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
    fn a_crashed_upload_is_not_listed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Local::new(folder.path()).unwrap();
        store.create("packs/ab", Bytes::from_static(b"x")).unwrap();
        std::fs::write(folder.path().join("packs/cd#1"), b"half").unwrap();
        assert_eq!(store.list("packs").unwrap().len(), 1);
        store.create("packs/cd", Bytes::from_static(b"whole")).unwrap();
        assert_eq!(&store.read("packs/cd", 9).unwrap()[..], b"whole");
    }

    #[test]
    fn a_path_below_a_file_is_an_error_and_no_empty_store() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let store = Local::new(file.path().join("store")).unwrap();
        assert!(store.list("x").is_err());
        assert!(store.create("x", Bytes::new()).is_err());
    }
}
