//! Where a repository lies: a small synchronous face over folders of this machine, over those of a
//! server that speaks SFTP, and over `object_store` for all else, such as cloud stores.
//!
//! Eight requests are all that Estrato asks of a store. Names are plain paths
//! without a leading `/`. A store knows nothing of what it holds: no format, no
//! keys. [`contract::check`] holds any store to what is promised here.

mod cached;
mod cloud;
pub mod contract;
mod fault;
#[cfg(feature = "fault-store")]
mod faulty;
mod folders;
mod limited;
mod listing;
mod local;
mod looking;
mod memory;
mod pace;
mod place;
pub mod probe;
mod sftp;
mod staged;
mod wrapped;

pub use cached::{Cached, Lasting};
pub use cloud::{Environment, Patience};
#[cfg(feature = "fault-store")]
pub use faulty::{Fault, Faulty, Request};
pub use local::Local;
pub use looking::Looking;
pub use memory::Memory;
pub use pace::Rates;
pub use place::{Place, place};
pub use sftp::Sftp;

use crate::clock::Timestamp;
use crate::error::{Error, Result, StoreError};
use bytes::Bytes;
use limited::Limited;
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

/// Whether what is deleted or overwritten can be had back from the store itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protection {
    /// It can, by these means.
    Stands(String),
    /// It is gone.
    Missing,
    /// The store does not say, or not to these credentials.
    Unknown(String),
}

/// A place for objects.
pub trait Store: Send + Sync {
    /// Where it is, for people. Holds no credentials.
    fn describe(&self) -> String;

    /// Its folder, if it lies on a disk of this machine.
    fn local_path(&self) -> Option<&Path> {
        None
    }

    /// True if reading takes long or costs money: then only what is worth it is read.
    fn is_far(&self) -> bool {
        false
    }

    /// True if what [`Store::create_cold`] puts there cannot be read before it is thawed: then nothing of it
    /// is read that can be done without.
    fn freezes(&self) -> bool {
        false
    }

    /// Creates an object, durably, if there is none of that name.
    ///
    /// # Errors
    /// [`crate::error::StoreFault::Exists`] if there is one.
    fn create(&self, name: &str, data: Bytes) -> Result<(), StoreError>;

    /// The same for an object that is seldom read again: a store with a class for such puts it there. Whoever
    /// calls this gives a name that nobody else would choose.
    ///
    /// # Errors
    /// See [`Store::create`].
    fn create_cold(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        self.create(name, data)
    }

    /// Creates or replaces an object, durably.
    ///
    /// # Errors
    /// The store's.
    fn write(&self, name: &str, data: Bytes) -> Result<(), StoreError>;

    /// A whole object.
    ///
    /// # Errors
    /// [`crate::error::StoreFault::NotFound`]; [`crate::error::StoreFault::Size`], before anything is
    /// allocated, if it is larger than `max`; [`crate::error::StoreFault::Frozen`].
    fn read(&self, name: &str, max: u64) -> Result<Bytes, StoreError>;

    /// Exactly `len` bytes of an object.
    ///
    /// # Errors
    /// [`crate::error::StoreFault::NotFound`]; [`crate::error::StoreFault::Size`] if the object ends before;
    /// [`crate::error::StoreFault::Frozen`].
    fn read_range(&self, name: &str, offset: u64, len: usize) -> Result<Bytes, StoreError>;

    /// The same of an object of which more will be read: whoever keeps copies may fetch all of it.
    ///
    /// # Errors
    /// See [`Store::read_range`].
    fn read_lasting(&self, name: &str, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        self.read_range(name, offset, len)
    }

    /// An object's size.
    ///
    /// # Errors
    /// [`crate::error::StoreFault::NotFound`].
    fn size(&self, name: &str) -> Result<u64, StoreError>;

    /// Everything below a folder, at any depth, sorted by name. A folder that is not there is empty.
    /// Files that no object can be named like, and uploads that were broken off, are left out. An object
    /// directly in the folder is as durable as it will ever be, even if its writer was killed.
    ///
    /// # Errors
    /// The store's: a listing that breaks off is an error, never a short list.
    fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError>;

    /// Deletes an object. If the machine that holds the store crashes, it may be there again.
    ///
    /// # Errors
    /// [`crate::error::StoreFault::NotFound`], where the store tells: some say that every delete is done.
    /// [`crate::error::StoreFault::Retained`] for what is locked; a store with versions may hide it instead, and
    /// say that it is done.
    fn delete(&self, name: &str) -> Result<(), StoreError>;

    /// Whether what is deleted or overwritten can be had back: versioning, object lock, and their like.
    fn protection(&self) -> Protection {
        Protection::Unknown("it is nothing that such a store tells".into())
    }

    /// Until when an object is kept that could not be deleted ([`crate::error::StoreFault::Retained`]), if the
    /// store tells: under a hold it knows of no end.
    fn retained_until(&self, _name: &str) -> Option<Timestamp> {
        None
    }
}

/// The store at a location: a path, or `file:` and a path; `sftp://[USER@]HOST[:PORT]/PATH`;
/// `s3://BUCKET/prefix`, `gs://BUCKET/prefix` or `az://CONTAINER/prefix`, with credentials from the
/// environment and from profile files. Paths are taken as they stand (no `%20`). Makes nothing, and asks
/// nobody.
///
/// Behind `?`, joined by `&`, with `%2F` and the like decoded, a cloud store's location may say
/// `endpoint` (`http://HOST:PORT`; Azure's with the account), of S3 `region` and `path-style` (`true` or
/// `false`), of Azure `account`, and `storage-class`, for what [`Store::create_cold`] creates, from
/// [`crate::limits::CLOUD_CLASS_MIN`] bytes on.
///
/// # Errors
/// [`Error::Invalid`] for a location of another kind, or credentials that cannot be used;
/// [`Error::Local`] where the current folder is unknown, or a profile cannot be read. None repeats a
/// credential.
pub fn open(location: &str) -> Result<Arc<dyn Store>> {
    open_limited(location, Rates::default())
}

/// The same, sending and receiving no faster than these rates.
///
/// # Errors
/// Those of [`open`].
pub fn open_limited(location: &str, rates: Rates) -> Result<Arc<dyn Store>> {
    open_at(location, &|name| std::env::var(name).ok(), Patience::default(), rates)
}

/// The same with another environment, and other bounds of waiting.
///
/// # Errors
/// Those of [`open`].
pub fn open_with(location: &str, environment: &Environment<'_>, patience: Patience) -> Result<Arc<dyn Store>> {
    open_at(location, environment, patience, Rates::default())
}

/// All of these together.
///
/// # Errors
/// Those of [`open`].
pub fn open_at(
    location: &str,
    environment: &Environment<'_>,
    patience: Patience,
    rates: Rates,
) -> Result<Arc<dyn Store>> {
    let path = match scheme(location) {
        None => location,
        Some(("file", path)) => match path.strip_prefix("//") {
            None => path,
            Some(path) if path.starts_with('/') => path,
            Some(_) => return Err(Error::Invalid("file://HOST is another machine; write file:PATH".into())),
        },
        Some(("sftp", rest)) => return Ok(Arc::new(Sftp::new(rest)?.at(rates))),
        Some((scheme, rest)) if cloud::is_scheme(scheme) => {
            return cloud::open(scheme, rest, environment, patience, rates);
        }
        Some((scheme, _)) => {
            return Err(Error::Invalid(format!(
                "{scheme}: is no kind of store that this version knows; give a path, file:PATH, \
                 sftp://[USER@]HOST[:PORT]/PATH, s3://BUCKET/prefix, gs://BUCKET/prefix or az://CONTAINER/prefix \
                 (file:{scheme}:… for a folder of such a name)"
            )));
        }
    };
    if path.is_empty() {
        return Err(Error::Invalid("the repository's location is empty".into()));
    }
    let local = Local::new(path)?;
    Ok(if rates.is_unbounded() { Arc::new(local) } else { Arc::new(Limited::new(local, rates)) })
}

/// What stands before the first colon, if it looks like the name of a kind of store, and the rest.
fn scheme(location: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = location.split_once(':')?;
    let named = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    named.then_some((scheme, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn locations_elsewhere() {
        let store = open("sftp://me@host:22/a b").unwrap();
        assert_eq!(store.describe(), "sftp://me@host:22/a b");
        assert!(store.is_far() && store.local_path().is_none());
    }

    #[test]
    fn locations() {
        let here = std::env::current_dir().unwrap();
        for (location, path) in [
            ("/a/b", PathBuf::from("/a/b")),
            ("a/b", here.join("a/b")),
            ("file:/a b", "/a b".into()),
            ("file:///a%20b", "/a%20b".into()),
            ("file:a", here.join("a")),
            ("file:a:b", here.join("a:b")),
            ("./a:b", here.join("a:b")),
            ("/a:b", "/a:b".into()),
        ] {
            let store = open(location).unwrap();
            assert_eq!(store.local_path(), Some(&*path), "{location}");
            assert_eq!(store.describe(), path.display().to_string());
        }
        for (location, words) in [
            ("", "empty"),
            ("file:", "empty"),
            ("file://host/a", "file:PATH"),
            ("s3://user:secret@bucket/a", "holds no credentials"),
            ("ftp://user@host/a", "give a path, file:PATH, sftp://"),
            ("sftp:user@secret:/a", "write sftp://"),
            ("sftp://user:secret@host/a", "password"),
        ] {
            let e = open(location).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(e.contains(words) && !e.contains("secret"), "{location}: {e}");
        }
    }

    #[test]
    fn cloud_stores_are_opened_without_asking_anybody() {
        let environment = |name: &str| {
            let set =
                ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "GOOGLE_OAUTH_ACCESS_TOKEN", "AZURE_STORAGE_ACCOUNT"];
            set.contains(&name).then(|| "x".to_owned())
        };
        for (location, described) in [
            ("s3://bucket/a/b/", "s3://bucket/a/b"),
            ("s3://bucket?endpoint=http://127.0.0.1:9", "s3://bucket at http://127.0.0.1:9"),
            ("gs://bucket/a", "gs://bucket/a"),
            ("az://box/a?storage-class=Cool", "az://box/a"),
        ] {
            let store = open_with(location, &environment, Patience::default()).unwrap();
            assert_eq!(store.describe(), described);
            assert!(store.is_far() && store.local_path().is_none());
        }
        for (location, freezes) in [
            ("s3://bucket/a", false),
            ("s3://bucket/a?storage-class=STANDARD_IA", false),
            ("s3://bucket/a?storage-class=GLACIER_IR", false),
            ("s3://bucket/a?storage-class=GLACIER", true),
            ("s3://bucket/a?storage-class=DEEP_ARCHIVE", true),
            ("gs://bucket/a?storage-class=ARCHIVE", false),
            ("az://box/a?storage-class=Cold", false),
            ("az://box/a?storage-class=Archive", true),
        ] {
            let store = open_with(location, &environment, Patience::default()).unwrap();
            assert_eq!(store.freezes(), freezes, "{location}");
        }
        let nonsense = open_with("s3://bucket/a?storage-class=a/b", &environment, Patience::default());
        assert!(nonsense.err().is_some_and(|e| e.to_string().contains("no name of a class")));
    }
}
