//! Creating an object only if it is absent, in a store whose answers can be
//! lost on the way.

use crate::error::{Result, StoreError, StoreFault};
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

/// True if the store does not create an object that is there. Some ignore the condition in silence: then
/// `other` is there, which must say as much as what was there, in other bytes: were they equal, a store
/// that lost its refusal on the way would take what it finds for its own, and seem to have replaced it.
///
/// # Errors
/// The store's.
pub(super) fn refuses_twice(store: &dyn Store, name: &str, other: &Bytes) -> Result<bool> {
    match heard(|| store.create(name, other.clone())) {
        Err(e) if e.fault == StoreFault::Exists => Ok(true),
        Err(e) => Err(e.into()),
        Ok(()) => Ok(false),
    }
}
