//! Any `object_store`, called synchronously. Outside of a runtime its local and memory stores run on
//! the calling thread; no runtime is started here.

use super::{Listed, fault};
use crate::clock::Timestamp;
use crate::error::{StoreError, StoreFault};
use crate::limits;
use bytes::Bytes;
use futures_executor::block_on;
use futures_util::TryStreamExt as _;
use object_store::path::Path as ObjectPath;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions};
use std::sync::Arc;

/// An `object_store` behind the synchronous face.
pub(super) struct Wrapped(pub Arc<dyn ObjectStore>);

/// A name, as `object_store` takes it: parts that are neither empty nor `.` nor `..`, without control
/// characters.
pub(super) fn path(operation: &'static str, name: &str) -> Result<ObjectPath, StoreError> {
    ObjectPath::parse(name).map_err(|e| fault::below(operation, name, &e.into()))
}

/// The error of an object that ends before a range does.
pub(super) fn short(name: &str, offset: u64, len: usize, size: u64) -> StoreError {
    fault::size("read", name, &format!("it ends at {size}; {len} bytes from {offset} were expected"))
}

/// The error of an object that is larger than its reader takes.
pub(super) fn large(name: &str, size: u64, max: u64) -> StoreError {
    fault::size("read", name, &format!("{size} bytes; at most {max} are expected"))
}

impl Wrapped {
    fn put(&self, operation: &'static str, name: &str, data: Bytes, mode: PutMode) -> Result<(), StoreError> {
        let path = path(operation, name)?;
        let put = self.0.put_opts(&path, data.into(), PutOptions::from(mode));
        block_on(put).map(|_| ()).map_err(|e| fault::of_write(fault::below(operation, name, &e)))
    }

    pub(super) fn create(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        self.put("create", name, data, PutMode::Create)
    }

    pub(super) fn write(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        self.put("write", name, data, PutMode::Overwrite)
    }

    pub(super) fn read(&self, name: &str, max: u64) -> Result<Bytes, StoreError> {
        let path = path("read", name)?;
        let got = block_on(self.0.get(&path)).map_err(|e| fault::below("read", name, &e))?;
        if got.meta.size > max {
            return Err(large(name, got.meta.size, max));
        }
        block_on(got.bytes()).map_err(|e| fault::below("read", name, &e))
    }

    pub(super) fn read_range(&self, name: &str, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        let path = path("read", name)?;
        let short = |size| short(name, offset, len, size);
        let end = match offset.checked_add(len as u64) {
            Some(end) if len > 0 => end,
            // No store is asked for nothing, or for what no object can hold.
            none => {
                let size = self.size(name)?;
                return if none.is_some() && offset <= size { Ok(Bytes::new()) } else { Err(short(size)) };
            }
        };
        let options = GetOptions { range: Some(GetRange::Bounded(offset..end)), ..GetOptions::default() };
        let got = match block_on(self.0.get_opts(&path, options)) {
            Ok(got) => got,
            Err(e) => {
                // Stores refuse a range that begins beyond the end, each in its own words.
                return match self.size(name) {
                    Ok(size) if size < end => Err(short(size)),
                    Ok(_) => Err(fault::below("read", name, &e)),
                    Err(e) => Err(e),
                };
            }
        };
        let size = got.meta.size;
        if size < end {
            return Err(short(size));
        }
        let bytes = block_on(got.bytes()).map_err(|e| fault::below("read", name, &e))?;
        if bytes.len() == len { Ok(bytes) } else { Err(short(size)) }
    }

    pub(super) fn size(&self, name: &str) -> Result<u64, StoreError> {
        self.sized("look at", name)
    }

    fn sized(&self, operation: &'static str, name: &str) -> Result<u64, StoreError> {
        let path = path(operation, name)?;
        block_on(self.0.head(&path)).map(|meta| meta.size).map_err(|e| fault::below(operation, name, &e))
    }

    pub(super) fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        let path = path("list", folder)?;
        let mut stream = self.0.list(Some(&path));
        let mut found = Vec::new();
        while let Some(meta) = block_on(stream.try_next()).map_err(|e| fault::below("list", folder, &e))? {
            if found.len() >= limits::LIST_OBJECTS_MAX {
                let why = format!("more than {} objects", limits::LIST_OBJECTS_MAX);
                return Err(fault::new(StoreFault::Other, "list", folder, &why));
            }
            let modified = Timestamp {
                seconds: meta.last_modified.timestamp(),
                nanos: meta.last_modified.timestamp_subsec_nanos().min(999_999_999),
            };
            found.push(Listed { name: meta.location.into(), size: meta.size, modified });
        }
        found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    pub(super) fn delete(&self, name: &str) -> Result<(), StoreError> {
        let path = path("delete", name)?;
        // Some stores say nothing about an object that is not there.
        self.sized("delete", name)?;
        block_on(self.0.delete(&path)).map_err(|e| fault::below("delete", name, &e))
    }
}
