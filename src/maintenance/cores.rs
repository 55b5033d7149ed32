//! Work on every core, in no order. What a thread leaves of keys on its stack is
//! wiped with it.

use crate::crypto::stack;
use crate::error::{Error, Result};
use crate::monitor::Monitor;
use crossbeam_channel::bounded;
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Does something with each item, and returns what came of it, in no order. The first error ends it all.
///
/// # Errors
/// Those of `work`, and [`Error::Interrupted`].
pub(super) fn on_all<'i, T: Sync, R: Send>(
    items: &'i [T],
    monitor: &dyn Monitor,
    work: impl Fn(&'i T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let threads = thread::available_parallelism().map_or(2, usize::from);
    let found = Mutex::new(Vec::with_capacity(items.len()));
    thread::scope(|scope| {
        let (tx, rx) = bounded::<&'i T>(1);
        let mut workers = Vec::new();
        for _ in 0..threads {
            let (rx, found, work) = (rx.clone(), &found, &work);
            workers.push(scope.spawn(move || {
                stack::wiped(|| {
                    for item in rx {
                        let done = work(item)?;
                        found.lock().unwrap_or_else(PoisonError::into_inner).push(done);
                    }
                    Ok(())
                })
            }));
        }
        drop(rx);
        for item in items {
            if monitor.cancelled() || tx.send(item).is_err() {
                break;
            }
        }
        drop(tx);
        workers
            .into_iter()
            .try_for_each(|w| w.join().unwrap_or_else(|_| Err(Error::Invalid("a checking thread panicked".into()))))
    })?;
    if monitor.cancelled() {
        return Err(Error::Interrupted);
    }
    Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner))
}
