//! Where a repository lies: a small synchronous face over `object_store`.
//!
//! Seven requests are all that Estrato asks of a store. Names are plain paths
//! without a leading `/`. A store knows nothing of what it holds: no format, no
//! keys. [`contract::check`] holds any store to what is promised here.

pub mod contract;
mod local;
mod memory;
mod wrapped;

pub use local::Local;
pub use memory::Memory;

use crate::clock::Timestamp;
use crate::error::{Error, Result, StoreError};
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name, from the store's root.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// When the store took it, by the store's clock.
    pub modified: Timestamp,
}

/// A place for objects.
pub trait Store: Send + Sync {
    /// Where it is, for people. Holds no credentials.
    fn describe(&self) -> String;

    /// Its folder, if it lies on a disk of this machine.
    fn local_path(&self) -> Option<&Path> {
        None
    }

    /// Creates an object, durably, if there is none of that name.
    ///
    /// # Errors
    /// [`crate::error::StoreFault::Exists`] if there is one.
    fn create(&self, name: &str, data: Bytes) -> Result<(), StoreError>;

    /// Creates or replaces an object, durably.
    ///
    /// # Errors
    /// The store's.
    fn write(&self, name: &str, data: Bytes) -> Result<(), StoreError>;

    /// A whole object.
    ///
    /// # Errors
    /// [`crate::error::StoreFault::NotFound`]; [`crate::error::StoreFault::Size`], before anything is
    /// allocated, if it is larger than `max`.
    fn read(&self, name: &str, max: u64) -> Result<Bytes, StoreError>;

    /// Exactly `len` bytes of an object.
    ///
    /// # Errors
    /// [`crate::error::StoreFault::NotFound`]; [`crate::error::StoreFault::Size`] if the object ends before.
    fn read_range(&self, name: &str, offset: u64, len: usize) -> Result<Bytes, StoreError>;

    /// An object's size.
    ///
    /// # Errors
    /// [`crate::error::StoreFault::NotFound`].
    fn size(&self, name: &str) -> Result<u64, StoreError>;

    /// Everything below a folder, at any depth, sorted by name. A folder that is not there is empty.
    ///
    /// # Errors
    /// The store's: a listing that breaks off is an error, never a short list.
    fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError>;

    /// Deletes an object.
    ///
    /// # Errors
    /// [`crate::error::StoreFault::NotFound`].
    fn delete(&self, name: &str) -> Result<(), StoreError>;
}

/// The store at a location: a path, or `file:` and a path. Makes nothing.
///
/// # Errors
/// [`Error::Invalid`] for a location of another kind.
pub fn open(location: &str) -> Result<Arc<dyn Store>> {
    let path = match location.split_once(':') {
        Some(("file", path)) => path.strip_prefix("//").unwrap_or(path),
        Some((scheme, rest)) if rest.starts_with("//") => {
            return Err(Error::Invalid(format!(
                "{scheme}: is no kind of store that this version knows; give a path, or file:PATH"
            )));
        }
        _ => location,
    };
    if path.is_empty() {
        return Err(Error::Invalid("the repository's location is empty".into()));
    }
    Ok(Arc::new(Local::new(path)?))
}
