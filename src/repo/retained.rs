//! Deleting many objects, and telling which of them the store keeps under a lock of its own. Decides on none.

use super::ask;
use crate::clock::Timestamp;
use crate::error::{Error, Result, StoreFault};
use crate::limits;
use crate::monitor::Monitor;
use crate::store::Store;

/// An object that the store would not delete yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retained {
    /// Its name.
    pub name: String,
    /// Bytes.
    pub bytes: u64,
    /// When its lock ends; `None` where the store does not tell, or where that is open.
    pub until: Option<Timestamp>,
}

/// Deletes objects, given with their bytes. One that is not there is deleted; what is locked, or under a
/// retention, is given back in the order of the names.
///
/// # Errors
/// [`Error::Interrupted`], or the store's, with [`StoreFault::Denied`] where nothing is locked and one may not
/// delete: then some are deleted.
pub fn delete_all(store: &dyn Store, objects: &[(String, u64)], monitor: &dyn Monitor) -> Result<Vec<Retained>> {
    let mut retained = Vec::new();
    let take = |(name, bytes): &(String, u64), deleted: Result<(), crate::error::StoreError>| {
        if monitor.cancelled() {
            return Err(Error::Interrupted);
        }
        match deleted {
            Ok(()) => {}
            Err(e) if e.fault == StoreFault::NotFound => {}
            Err(e) if e.fault == StoreFault::Retained => {
                retained.push(Retained { name: name.clone(), bytes: *bytes, until: None });
            }
            Err(e) => return Err(e.into()),
        }
        Ok(())
    };
    ask(store, objects, |(name, _)| store.delete(name), take)?;
    retained.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let asked: Vec<usize> = (0..retained.len().min(limits::RETAINED_ASKED)).collect();
    let mut told = Vec::with_capacity(asked.len());
    ask(
        store,
        &asked,
        |at| store.retained_until(&retained[*at].name),
        |at, until| {
            told.push((*at, until));
            Ok(())
        },
    )?;
    for (at, until) in told {
        retained[at].until = until;
    }
    Ok(retained)
}
