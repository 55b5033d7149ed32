//! Creating an object only if it is absent, in a store whose answers can be
//! lost on the way.

use crate::error::{Error, Result, StoreError, StoreFault};
use crate::store::Store;
use bytes::Bytes;

/// How often a request is sent again whose answer was lost.
const TRIES: usize = 3;

fn is_lost(answer: &Result<(), StoreError>) -> bool {
    matches!(answer, Err(StoreError { fault: StoreFault::Unavailable, .. }))
}

/// Sends a request until it is answered.
fn heard(request: impl Fn() -> Result<(), StoreError>) -> Result<(), StoreError> {
    let mut answer = request();
    for _ in 1..TRIES {
        if !is_lost(&answer) {
            break;
        }
        answer = request();
    }
    answer
}

/// Creates an object whose bytes nobody else can have made: everything that is sealed has a salt of
/// its own. Where the name is taken, equal bytes are one's own: an answer was lost, here or below.
///
/// # Errors
/// The store's. [`StoreFault::Exists`]: somebody else's object is there, and nothing was written.
/// [`StoreFault::Unavailable`]: it may have been written.
pub(super) fn create(store: &dyn Store, name: &str, object: &Bytes) -> Result<(), StoreError> {
    match heard(|| store.create(name, object.clone())) {
        Err(e) if e.fault == StoreFault::Exists => match store.read(name, object.len() as u64) {
            Ok(found) if found == *object => Ok(()),
            Err(unheard) if unheard.fault == StoreFault::Unavailable => Err(unheard),
            _ => Err(e),
        },
        answer => answer,
    }
}

/// Some stores ignore the condition in silence: there a commit could undo a prune's fence. `other` says
/// the same as what is there in other bytes: were they equal, a store that lost its refusal on the
/// way would take what it finds for its own, and seem to have replaced it.
///
/// # Errors
/// [`Error::Invalid`] if the store takes an object that is there a second time; the store's.
pub(super) fn refuses_twice(store: &dyn Store, name: &str, other: &Bytes) -> Result<()> {
    match heard(|| store.create(name, other.clone())) {
        Err(e) if e.fault == StoreFault::Exists => Ok(()),
        Err(e) => Err(e.into()),
        Ok(()) => Err(Error::Invalid(format!(
            "{} replaces objects that it was asked to create only if absent; a repository cannot be safe there",
            store.describe()
        ))),
    }
}
