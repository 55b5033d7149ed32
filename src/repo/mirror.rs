//! The place of a mirror: its `repo.json` has the id of the repository that it mirrors, and one that is the
//! place's own. By that, what this machine knows of the one place is kept apart from what it knows of the
//! other: a mirror is older than its source for most of its life, and that is no rollback.

use super::absent;
use super::create::{self, create_record};
use crate::crypto::random;
use crate::error::{Error, Result, StoreFault};
use crate::format::records::RepoRecord;
use crate::id::{RepositoryId, to_hex};
use crate::store::Store;
use bytes::Bytes;

/// Whether a store can take the mirror of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MirrorPlace {
    /// Nothing is there yet.
    Empty,
    /// The repository, or a mirror of it.
    Known,
}

/// Looks whether `target` can take the mirror of the repository at `source`.
///
/// # Errors
/// [`Error::Exists`] where another repository lies, [`Error::Invalid`] if both are one place, those of
/// [`create::repository_id`] of the source, and what is wrong with the target.
pub fn mirror_place(source: &dyn Store, target: &dyn Store) -> Result<MirrorPlace> {
    let of = create::record(source)?;
    match create::record(target) {
        Err(Error::NoRepository { .. }) => Ok(MirrorPlace::Empty),
        Err(e) => Err(e),
        Ok(there) if there.id != of.id => {
            Err(Error::Exists { what: format!("another repository at {}", target.describe()) })
        }
        Ok(there) if there.mirror == of.mirror && is_one_place(source, target)? => {
            Err(Error::Invalid(format!("{} and {} are one place", source.describe(), target.describe())))
        }
        Ok(_) => Ok(MirrorPlace::Known),
    }
}

/// Begins a mirror at a store that has no repository yet.
///
/// # Errors
/// [`Error::Exists`] if there is one by now, or the store's.
pub fn begin_mirror(source: &dyn Store, target: &dyn Store) -> Result<()> {
    let of = create::record(source)?;
    let record = RepoRecord { id: of.id, create_if_absent: true, mirror: Some(RepositoryId(random::bytes()?)) };
    if create_record(target, record)? {
        return Ok(());
    }
    match create::record(target)? {
        // A run before this one was interrupted here, or another runs.
        there if there.id == of.id => Ok(()),
        _ => Err(Error::Exists { what: format!("another repository at {}", target.describe()) }),
    }
}

/// True if what is written at the one is seen at the other, whatever they are called.
fn is_one_place(source: &dyn Store, target: &dyn Store) -> Result<bool> {
    let name = format!("probe/{}", to_hex(&random::bytes::<16>()?));
    target.create(&name, Bytes::from_static(b"is this one place?"))?;
    let seen = source.size(&name);
    // What stays behind is no object, and harms nothing.
    if let Err(e) = target.delete(&name) {
        tracing::debug!("{name} stays behind: {e}");
    }
    match seen {
        Ok(_) => Ok(true),
        Err(e) if e.fault == StoreFault::NotFound => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Creates an object, durably, if there is none of that name; where one of the same bytes is there, it is
/// taken for one's own, whose answer was lost.
///
/// # Errors
/// The store's. [`Error::Exists`]: another object is there.
pub fn put_once(store: &dyn Store, name: &str, object: &Bytes) -> Result<()> {
    absent::create(store, name, object).map_err(|e| match e.fault {
        StoreFault::Exists => Error::Exists { what: name.into() },
        _ => e.into(),
    })
}
