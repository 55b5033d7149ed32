//! Many requests side by side, where each takes long to be answered. Results come in no order, to one
//! thread; what waits for it is bounded.

use crate::crypto::stack;
use crate::error::{Error, Result};
use crate::limits;
use crate::store::Store;
use crossbeam_channel::bounded;
use std::thread;

/// Threads that ask a store where there is much to ask.
pub(super) fn threads(store: &dyn Store) -> usize {
    if store.is_far() { limits::FAR_THREADS } else { 1 }
}

/// Asks for each item on some threads, and hands the answers to `take`, which ends it all by failing.
///
/// # Errors
/// Those of `take`.
pub fn ask<T: Sync, R: Send>(
    store: &dyn Store,
    items: &[T],
    request: impl Fn(&T) -> R + Sync,
    take: impl FnMut(&T, R) -> Result<()>,
) -> Result<()> {
    ask_by(threads(store), items, request, take)
}

/// The same where each answer takes this machine long to open: on every core at least.
///
/// # Errors
/// Those of `take`.
pub fn ask_and_open<T: Sync, R: Send>(
    store: &dyn Store,
    items: &[T],
    request: impl Fn(&T) -> R + Sync,
    take: impl FnMut(&T, R) -> Result<()>,
) -> Result<()> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    ask_by(threads(store).max(cores), items, |item| stack::wiped(|| request(item)), take)
}

fn ask_by<T: Sync, R: Send>(
    threads: usize,
    items: &[T],
    request: impl Fn(&T) -> R + Sync,
    mut take: impl FnMut(&T, R) -> Result<()>,
) -> Result<()> {
    let threads = threads.min(items.len());
    if threads <= 1 {
        return items.iter().try_for_each(|item| take(item, request(item)));
    }
    thread::scope(|scope| {
        let (todo_tx, todo) = bounded(items.len());
        let (answers_tx, answers) = bounded(1);
        for _ in 0..threads {
            let (todo, answers, request) = (todo.clone(), answers_tx.clone(), &request);
            scope.spawn(move || {
                for item in todo {
                    // Whoever took the answers has failed.
                    if answers.send((item, request(item))).is_err() {
                        break;
                    }
                }
            });
        }
        drop((todo, answers_tx));
        for item in items {
            todo_tx.send(item).map_err(|_| Error::Invalid("the threads that ask have ended".into()))?;
        }
        drop(todo_tx);
        answers.into_iter().try_for_each(|(item, answer)| take(item, answer))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Memory;
    use std::path::Path;
    use std::sync::Barrier;

    struct Far(Memory);

    impl Store for Far {
        fn describe(&self) -> String {
            self.0.describe()
        }
        fn local_path(&self) -> Option<&Path> {
            None
        }
        fn is_far(&self) -> bool {
            true
        }
        fn create(&self, name: &str, data: bytes::Bytes) -> Result<(), crate::error::StoreError> {
            self.0.create(name, data)
        }
        fn write(&self, name: &str, data: bytes::Bytes) -> Result<(), crate::error::StoreError> {
            self.0.write(name, data)
        }
        fn read(&self, name: &str, max: u64) -> Result<bytes::Bytes, crate::error::StoreError> {
            self.0.read(name, max)
        }
        fn read_range(&self, name: &str, offset: u64, len: usize) -> Result<bytes::Bytes, crate::error::StoreError> {
            self.0.read_range(name, offset, len)
        }
        fn size(&self, name: &str) -> Result<u64, crate::error::StoreError> {
            self.0.size(name)
        }
        fn list(&self, folder: &str) -> Result<Vec<crate::store::Listed>, crate::error::StoreError> {
            self.0.list(folder)
        }
        fn delete(&self, name: &str) -> Result<(), crate::error::StoreError> {
            self.0.delete(name)
        }
    }

    #[test]
    fn as_many_are_asked_at_once_as_there_are_threads() {
        // Fewer would wait here for ever.
        let barrier = Barrier::new(limits::FAR_THREADS);
        let items: Vec<usize> = (0..limits::FAR_THREADS * 3).collect();
        let mut sum = 0;
        let asked = ask(
            &Far(Memory::default()),
            &items,
            |item| {
                barrier.wait();
                item * 2
            },
            |item, answer| {
                assert_eq!(answer, item * 2);
                sum += answer;
                Ok(())
            },
        );
        asked.unwrap();
        assert_eq!(sum, items.iter().sum::<usize>() * 2);
    }

    #[test]
    fn what_fails_ends_it() {
        let items: Vec<usize> = (0..1000).collect();
        for store in [&Memory::default() as &dyn Store, &Far(Memory::default())] {
            let mut taken = 0;
            let e = ask(
                store,
                &items,
                |item| *item,
                |_, _| {
                    taken += 1;
                    if taken == 3 { Err(Error::Interrupted) } else { Ok(()) }
                },
            );
            assert!(matches!(e, Err(Error::Interrupted)) && taken == 3);
        }
    }
}
