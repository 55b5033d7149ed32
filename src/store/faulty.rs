//! A store that misbehaves when it is told to, to test what stands on a store:
//! the n-th request fails, is late, is cut short, is sent twice, changes places
//! with the next, or is the last before the process dies. Behind the feature
//! `fault-store`; no program uses it.
//!
//! ```
//! use estrato::error::StoreFault;
//! use estrato::store::{Fault, Faulty, Memory, Store as _};
//! use std::sync::Arc;
//!
//! let store = Faulty::new(Arc::new(Memory::default()));
//! store.at(2, Fault::LoseAnswer);
//! store.create("a", "1".into()).unwrap();
//! assert_eq!(store.create("b", "2".into()).unwrap_err().fault, StoreFault::Unavailable);
//! assert_eq!(&store.read("b", 9).unwrap()[..], b"2");
//! assert_eq!(store.requests(), 3);
//! ```

use super::{Listed, Store};
use crate::error::{StoreError, StoreFault};
use bytes::Bytes;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a request that is to change places waits for another one.
const REORDER_WAIT: Duration = Duration::from_millis(20);

/// What befalls a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails, and nothing is done.
    Fail(StoreFault),
    /// It is done, and the answer is lost: [`StoreFault::Unavailable`].
    LoseAnswer,
    /// It is done after a while.
    Delay(Duration),
    /// It breaks off in the middle. An upload leaves nothing under its name, for that a store
    /// promises, and fails; so do a listing, a look and a delete. A read gives its first half, as if
    /// that were all.
    Tear,
    /// It is sent twice, as by a client that did not hear the first answer; the second one counts.
    Duplicate,
    /// It is done after a request that another thread sends later, if one comes soon.
    Reorder,
    /// It is done although an object of that name exists: the condition is ignored, as some servers do.
    Overwrite,
    /// The process dies before it: it is not done, and no later request is.
    CrashBefore,
    /// The process dies after it: it is done, nobody hears of it, and no later request is done.
    CrashAfter,
}

/// A request, as it is shown to whoever decides its fate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// Its place among all since the last decision was set, from 1.
    pub number: u64,
    /// `create`, `write`, `read`, `read_range`, `size`, `list` or `delete`: the method's name.
    pub operation: &'static str,
    /// The object, or the folder of a listing.
    pub name: &'a str,
}

type Decide = dyn Fn(Request<'_>) -> Option<Fault> + Send + Sync;

/// What it counts, and what it does next.
struct State {
    decide: Arc<Decide>,
    requests: u64,
    /// Requests that have been done, by anybody: a reordered one waits for the next.
    done: u64,
    crashed: bool,
    /// Bytes that may still be written; `None` for any number.
    room: Option<u64>,
}

/// A store in front of another, that misbehaves when it is told to.
pub struct Faulty {
    inner: Arc<dyn Store>,
    state: Mutex<State>,
    turn: Condvar,
}

fn error(fault: StoreFault, operation: &'static str, name: &str, why: &str) -> StoreError {
    StoreError { fault, operation, object: name.to_owned(), why: why.to_owned() }
}

impl Faulty {
    /// A store that does as `inner` does, until something else is decided.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        let state = State { decide: Arc::new(|_| None), requests: 0, done: 0, crashed: false, room: None };
        Self { inner, state: Mutex::new(state), turn: Condvar::new() }
    }

    /// Sets what decides each request's fate from now on, and counts from 1 again. A process that
    /// crashed lives again.
    pub fn decide(&self, decide: impl Fn(Request<'_>) -> Option<Fault> + Send + Sync + 'static) {
        let mut state = self.lock();
        state.decide = Arc::new(decide);
        state.requests = 0;
        state.crashed = false;
    }

    /// One fault, at the `n`-th request from now.
    pub fn at(&self, n: u64, fault: Fault) {
        self.decide(move |request| (request.number == n).then_some(fault));
    }

    /// No faults from now on.
    pub fn heal(&self) {
        self.decide(|_| None);
        self.lock().room = None;
    }

    /// Lets this many bytes be written, and refuses what does not fit with [`StoreFault::Full`].
    pub fn fill_after(&self, bytes: u64) {
        self.lock().room = Some(bytes);
    }

    /// How many requests there were since the last decision was set.
    pub fn requests(&self) -> u64 {
        self.lock().requests
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request and decides its fate. Of writers, `bytes` is what they need.
    fn begin(&self, operation: &'static str, name: &str, bytes: u64) -> Result<Option<Fault>, StoreError> {
        let mut state = self.lock();
        let dead = || Err(error(StoreFault::Unavailable, operation, name, "the process has died"));
        if state.crashed {
            return dead();
        }
        state.requests += 1;
        let fault = (state.decide)(Request { number: state.requests, operation, name });
        match fault {
            Some(Fault::CrashBefore) => {
                state.crashed = true;
                return dead();
            }
            // From here on nobody else gets through, whatever this request takes.
            Some(Fault::CrashAfter) => state.crashed = true,
            Some(Fault::Fail(fault)) => return Err(error(fault, operation, name, "a fault was asked for")),
            _ => {}
        }
        if let Some(room) = &mut state.room {
            match room.checked_sub(bytes) {
                Some(left) => *room = left,
                None => return Err(error(StoreFault::Full, operation, name, "no space left")),
            }
        }
        Ok(fault)
    }

    fn wait_for_another(&self) {
        let state = self.lock();
        let before = state.done;
        let wait = self.turn.wait_timeout_while(state, REORDER_WAIT, |state| state.done == before);
        drop(wait.unwrap_or_else(PoisonError::into_inner));
    }

    /// Does a request as its fate says; `half` is what it does if it breaks off.
    fn request<T>(
        &self,
        operation: &'static str,
        name: &str,
        bytes: usize,
        go: impl Fn(bool) -> Result<T, StoreError>,
        half: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let lost = || error(StoreFault::Unavailable, operation, name, "no answer");
        let answer = match self.begin(operation, name, bytes as u64)? {
            None | Some(Fault::Fail(_) | Fault::CrashBefore) => go(false),
            Some(Fault::LoseAnswer | Fault::CrashAfter) => go(false).and_then(|_| Err(lost())),
            Some(Fault::Delay(time)) => {
                std::thread::sleep(time);
                go(false)
            }
            Some(Fault::Tear) => half(),
            // The first answer is the one that nobody heard.
            Some(Fault::Duplicate) => go(false).and_then(|_| go(false)),
            Some(Fault::Reorder) => {
                self.wait_for_another();
                go(false)
            }
            Some(Fault::Overwrite) => go(true),
        };
        self.lock().done += 1;
        self.turn.notify_all();
        answer
    }

    /// What is left of a request that broke off and left nothing.
    fn broken<T>(operation: &'static str, name: &str) -> Result<T, StoreError> {
        Err(error(StoreFault::Unavailable, operation, name, "broken off"))
    }
}

impl Store for Faulty {
    fn describe(&self) -> String {
        format!("{} (with faults)", self.inner.describe())
    }

    fn local_path(&self) -> Option<&Path> {
        self.inner.local_path()
    }

    fn is_far(&self) -> bool {
        self.inner.is_far()
    }

    fn freezes(&self) -> bool {
        self.inner.freezes()
    }

    fn protection(&self) -> super::Protection {
        self.inner.protection()
    }

    fn retained_until(&self, name: &str) -> Option<crate::clock::Timestamp> {
        self.inner.retained_until(name)
    }

    fn create(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        let go = |overwrite| match overwrite {
            true => self.inner.write(name, data.clone()),
            false => self.inner.create(name, data.clone()),
        };
        self.request("create", name, data.len(), go, || Self::broken("create", name))
    }

    // One request like the other: whoever decides need not know of both.
    fn create_cold(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        let go = |overwrite| match overwrite {
            true => self.inner.write(name, data.clone()),
            false => self.inner.create_cold(name, data.clone()),
        };
        self.request("create", name, data.len(), go, || Self::broken("create", name))
    }

    fn write(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        let go = |_| self.inner.write(name, data.clone());
        self.request("write", name, data.len(), go, || Self::broken("write", name))
    }

    fn read(&self, name: &str, max: u64) -> Result<Bytes, StoreError> {
        let go = |_| self.inner.read(name, max);
        self.request("read", name, 0, go, || go(false).map(|bytes| bytes.slice(..bytes.len() / 2)))
    }

    fn read_range(&self, name: &str, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        let go = |_| self.inner.read_range(name, offset, len);
        self.request("read_range", name, 0, go, || go(false).map(|bytes| bytes.slice(..bytes.len() / 2)))
    }

    fn size(&self, name: &str) -> Result<u64, StoreError> {
        self.request("size", name, 0, |_| self.inner.size(name), || Self::broken("size", name))
    }

    fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        self.request("list", folder, 0, |_| self.inner.list(folder), || Self::broken("list", folder))
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.request("delete", name, 0, |_| self.inner.delete(name), || Self::broken("delete", name))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Memory, contract};
    use super::*;

    fn store() -> Faulty {
        let store = Faulty::new(Arc::new(Memory::default()));
        store.create("old", Bytes::from_static(b"text")).unwrap();
        store
    }

    fn fault<T>(answer: Result<T, StoreError>) -> Option<StoreFault> {
        answer.err().map(|e| e.fault)
    }

    #[test]
    fn without_faults_it_keeps_the_contract() {
        contract::check(&Faulty::new(Arc::new(Memory::default())));
    }

    #[test]
    fn the_nth_request_fails_and_no_other() {
        let store = store();
        store.at(2, Fault::Fail(StoreFault::Denied));
        assert_eq!(fault(store.size("old")), None);
        assert_eq!(fault(store.create("new", Bytes::new())), Some(StoreFault::Denied));
        assert_eq!(fault(store.size("new")), Some(StoreFault::NotFound));
        assert_eq!(store.requests(), 3);
    }

    #[test]
    fn a_lost_answer_is_of_a_request_that_was_done() {
        let store = store();
        store.at(1, Fault::LoseAnswer);
        assert_eq!(fault(store.create("new", Bytes::new())), Some(StoreFault::Unavailable));
        assert_eq!(fault(store.create("new", Bytes::new())), Some(StoreFault::Exists));
    }

    #[test]
    fn what_is_torn_is_half_read_and_not_written() {
        let store = store();
        store.decide(|_| Some(Fault::Tear));
        assert_eq!(&store.read("old", 9).unwrap()[..], b"te");
        assert_eq!(&store.read_range("old", 1, 2).unwrap()[..], b"e");
        assert_eq!(fault(store.create("new", Bytes::new())), Some(StoreFault::Unavailable));
        assert_eq!(fault(store.list("")), Some(StoreFault::Unavailable));
        store.heal();
        assert_eq!(store.list("").unwrap().len(), 1);
    }

    #[test]
    fn what_is_sent_twice_has_the_second_answer() {
        let store = store();
        store.decide(|_| Some(Fault::Duplicate));
        assert_eq!(fault(store.create("new", Bytes::new())), Some(StoreFault::Exists));
        assert_eq!(fault(store.delete("new")), Some(StoreFault::NotFound));
        assert_eq!(fault(store.write("old", Bytes::new())), None);
    }

    #[test]
    fn after_a_crash_nothing_is_done() {
        for (crash, done) in [(Fault::CrashBefore, None), (Fault::CrashAfter, Some(b"new"))] {
            let store = store();
            store.at(1, crash);
            assert!(store.write("old", Bytes::from_static(b"new")).is_err());
            assert!(store.delete("old").is_err() && store.read("old", 9).is_err());
            store.heal();
            assert_eq!(store.read("old", 9).unwrap(), Bytes::from_static(done.map_or(b"text", |d| &d[..])));
        }
    }

    #[test]
    fn a_reordered_request_comes_after_the_next() {
        let store = store();
        store.at(1, Fault::Reorder);
        std::thread::scope(|scope| {
            let first = scope.spawn(|| store.create("new", Bytes::from_static(b"first")));
            while store.requests() == 0 {
                std::thread::yield_now();
            }
            let second = store.create("new", Bytes::from_static(b"second"));
            let first = first.join().unwrap();
            assert!(first.is_ok() != second.is_ok(), "one of them made it");
        });
        // With nobody else it is done all the same.
        store.at(1, Fault::Reorder);
        store.create("alone", Bytes::new()).unwrap();
    }

    #[test]
    fn a_full_store_refuses_what_does_not_fit() {
        let store = store();
        store.fill_after(5);
        store.create("a", Bytes::from_static(b"1234")).unwrap();
        assert_eq!(fault(store.create("b", Bytes::from_static(b"12"))), Some(StoreFault::Full));
        store.create("c", Bytes::from_static(b"1")).unwrap();
        store.heal();
        store.create("b", Bytes::from_static(b"12")).unwrap();
    }

    #[test]
    fn a_condition_that_is_ignored_replaces() {
        let store = store();
        store.decide(|_| Some(Fault::Overwrite));
        store.create("old", Bytes::from_static(b"new")).unwrap();
        store.heal();
        assert_eq!(&store.read("old", 9).unwrap()[..], b"new");
    }
}
