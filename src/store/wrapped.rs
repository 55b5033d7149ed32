//! Any `object_store`, called synchronously, its errors sorted by what a caller can do.

use super::Listed;
use crate::clock::Timestamp;
use crate::error::{StoreError, StoreFault};
use crate::limits;
use bytes::Bytes;
use futures_executor::block_on;
use futures_util::TryStreamExt as _;
use object_store::path::Path as ObjectPath;
use object_store::{Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions};
use std::io;
use std::sync::Arc;

/// An `object_store` behind the synchronous face.
pub(super) struct Wrapped(pub Arc<dyn ObjectStore>);

/// What an I/O error means for a store's caller.
fn fault_of_io(e: &io::Error) -> StoreFault {
    match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => StoreFault::NotFound,
        io::ErrorKind::AlreadyExists => StoreFault::Exists,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => StoreFault::Denied,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreFault::Full,
        io::ErrorKind::UnexpectedEof => StoreFault::Size,
        io::ErrorKind::TimedOut | io::ErrorKind::ConnectionReset => StoreFault::Unavailable,
        _ => StoreFault::Other,
    }
}

/// The I/O error that an error has at its root, if it has one.
fn io_cause<'e>(e: &'e (dyn std::error::Error + 'static)) -> Option<&'e io::Error> {
    let mut at = Some(e);
    while let Some(e) = at {
        if let Some(io) = e.downcast_ref::<io::Error>() {
            return Some(io);
        }
        at = e.source();
    }
    None
}

pub(super) fn error(operation: &'static str, name: &str, e: &Error) -> StoreError {
    let io = io_cause(e);
    let fault = match e {
        Error::NotFound { .. } => StoreFault::NotFound,
        Error::AlreadyExists { .. } => StoreFault::Exists,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => StoreFault::Denied,
        _ => io.map_or(StoreFault::Other, fault_of_io),
    };
    let why = match (fault, io) {
        (StoreFault::NotFound, _) => "there is no such object".to_owned(),
        (StoreFault::Exists, _) => "it exists already".to_owned(),
        (_, Some(io)) => io.to_string(),
        _ => e.to_string(),
    };
    StoreError { fault, operation, object: name.to_owned(), why }
}

fn sized(operation: &'static str, name: &str, why: String) -> StoreError {
    StoreError { fault: StoreFault::Size, operation, object: name.to_owned(), why }
}

impl Wrapped {
    fn path(operation: &'static str, name: &str) -> Result<ObjectPath, StoreError> {
        ObjectPath::parse(name).map_err(|e| error(operation, name, &e.into()))
    }

    fn put(&self, operation: &'static str, name: &str, data: Bytes, mode: PutMode) -> Result<(), StoreError> {
        let path = Self::path(operation, name)?;
        let put = self.0.put_opts(&path, data.into(), PutOptions::from(mode));
        block_on(put).map(|_| ()).map_err(|e| error(operation, name, &e))
    }

    pub(super) fn create(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        self.put("create", name, data, PutMode::Create)
    }

    pub(super) fn write(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        self.put("write", name, data, PutMode::Overwrite)
    }

    pub(super) fn read(&self, name: &str, max: u64) -> Result<Bytes, StoreError> {
        let path = Self::path("read", name)?;
        let got = block_on(self.0.get(&path)).map_err(|e| error("read", name, &e))?;
        if got.meta.size > max {
            return Err(sized("read", name, format!("{} bytes, at most {max} are expected", got.meta.size)));
        }
        block_on(got.bytes()).map_err(|e| error("read", name, &e))
    }

    pub(super) fn read_range(&self, name: &str, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        let path = Self::path("read", name)?;
        let short = |size: u64| sized("read", name, format!("ends at {size}, before {offset} + {len}"));
        let end = offset.checked_add(len as u64).ok_or_else(|| short(0))?;
        if len == 0 {
            let size = self.size(name)?;
            return if offset <= size { Ok(Bytes::new()) } else { Err(short(size)) };
        }
        let options = GetOptions { range: Some(GetRange::Bounded(offset..end)), ..GetOptions::default() };
        let got = match block_on(self.0.get_opts(&path, options)) {
            Ok(got) => got,
            Err(e) => {
                // Stores refuse a range that begins beyond the end, each in its own words.
                return match self.size(name) {
                    Ok(size) if size < end => Err(short(size)),
                    Ok(_) => Err(error("read", name, &e)),
                    Err(e) => Err(e),
                };
            }
        };
        if got.meta.size < end {
            return Err(short(got.meta.size));
        }
        let bytes = block_on(got.bytes()).map_err(|e| error("read", name, &e))?;
        if bytes.len() == len { Ok(bytes) } else { Err(short(offset + bytes.len() as u64)) }
    }

    pub(super) fn size(&self, name: &str) -> Result<u64, StoreError> {
        let path = Self::path("look at", name)?;
        block_on(self.0.head(&path)).map(|meta| meta.size).map_err(|e| error("look at", name, &e))
    }

    pub(super) fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        let path = Self::path("list", folder)?;
        let mut stream = self.0.list(Some(&path));
        let mut found = Vec::new();
        while let Some(meta) = block_on(stream.try_next()).map_err(|e| error("list", folder, &e))? {
            if found.len() >= limits::LIST_OBJECTS_MAX {
                return Err(sized("list", folder, format!("more than {} objects", limits::LIST_OBJECTS_MAX)));
            }
            let modified = Timestamp {
                seconds: meta.last_modified.timestamp(),
                nanos: meta.last_modified.timestamp_subsec_nanos().min(999_999_999),
            };
            found.push(Listed { name: meta.location.into(), size: meta.size, modified });
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    pub(super) fn delete(&self, name: &str) -> Result<(), StoreError> {
        let path = Self::path("delete", name)?;
        // Some stores say nothing about an object that is not there.
        self.size(name)?;
        block_on(self.0.delete(&path)).map_err(|e| error("delete", name, &e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_errors_are_found_below_others() {
        for (code, fault) in [
            (28, StoreFault::Full),
            (122, StoreFault::Full),
            (13, StoreFault::Denied),
            (1, StoreFault::Denied),
            (30, StoreFault::Denied),
            (2, StoreFault::NotFound),
            (5, StoreFault::Other),
        ] {
            let e = Error::Generic { store: "x", source: Box::new(io::Error::from_raw_os_error(code)) };
            assert_eq!(error("create", "name", &e).fault, fault, "errno {code}");
        }
    }
}
