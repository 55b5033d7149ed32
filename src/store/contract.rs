//! The suite that every store is held to. Panics, with what was broken, where a
//! store does not keep what [`Store`] promises; meant for tests, and public so
//! that a new store can be held to it too.

use super::Store;
use crate::error::{StoreError, StoreFault};
use bytes::Bytes;
use std::sync::atomic::{AtomicUsize, Ordering};

fn fault<T: std::fmt::Debug>(result: Result<T, StoreError>) -> StoreFault {
    match result {
        Ok(value) => panic!("an error was expected, not {value:?}"),
        Err(e) => e.fault,
    }
}

fn done<T>(result: Result<T, StoreError>) -> T {
    match result {
        Ok(value) => value,
        Err(e) => panic!("the store failed: {e}"),
    }
}

/// Holds an empty store to the contract: creation of a name once, be it seldom read, and by eight threads
/// at a time; listings, ranges, bounds, sizes; replacing and deleting. What it wrote is left behind.
///
/// # Panics
/// With what was broken.
pub fn check(store: &dyn Store) {
    creates_once(store);
    creates_cold_once(store);
    one_of_many_creates(store);
    lists(store);
    reads(store);
    replaces_and_deletes(store);
}

fn creates_once(store: &dyn Store) {
    done(store.create("once/a", Bytes::from_static(b"first")));
    assert_eq!(fault(store.create("once/a", Bytes::from_static(b"second"))), StoreFault::Exists);
    assert_eq!(&done(store.read("once/a", 100))[..], b"first", "a refused create must change nothing");
}

/// It may have to be thawed before it is read: what is there is told by its size.
fn creates_cold_once(store: &dyn Store) {
    done(store.create_cold("cold/a", Bytes::from_static(b"first")));
    let second = Bytes::from_static(b"the second");
    assert_eq!(fault(store.create_cold("cold/a", second.clone())), StoreFault::Exists);
    assert_eq!(fault(store.create("cold/a", second)), StoreFault::Exists);
    assert_eq!(done(store.size("cold/a")), 5);
    assert!(done(store.list("cold")).iter().any(|o| o.name == "cold/a" && o.size == 5));
}

fn one_of_many_creates(store: &dyn Store) {
    let won = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for n in 0..8u8 {
            let won = &won;
            scope.spawn(move || match store.create("race/a", Bytes::from(vec![n; 1000])) {
                Ok(()) => {
                    won.fetch_add(1, Ordering::Relaxed);
                }
                Err(e) => assert_eq!(e.fault, StoreFault::Exists, "{e}"),
            });
        }
    });
    assert_eq!(won.load(Ordering::Relaxed), 1, "of eight creates exactly one succeeds");
    let bytes = done(store.read("race/a", 1000));
    assert!(bytes.len() == 1000 && bytes.iter().all(|b| *b == bytes[0]), "an object is one writer's, whole");
}

fn lists(store: &dyn Store) {
    assert!(done(store.list("nothing/here")).is_empty());
    // A dot sorts before the slash, so the order is of names and not of folders.
    for name in ["list/b/2", "list/b/1/x", "list/a", "list/bc", "list/b.c", "lists/z"] {
        done(store.create(name, Bytes::from_static(b"123")));
    }
    let names = |folder| done(store.list(folder)).into_iter().map(|o| o.name).collect::<Vec<_>>();
    assert_eq!(names("list"), ["list/a", "list/b.c", "list/b/1/x", "list/b/2", "list/bc"]);
    assert_eq!(names("list/b"), ["list/b/1/x", "list/b/2"], "siblings do not lie below");
    assert!(names("list/a").is_empty() && names("lis").is_empty(), "nothing lies below an object, or half a name");
    assert!(names("").iter().any(|name| name == "lists/z"), "the empty name is the root");
    let listed = done(store.list("list"));
    assert!(listed.iter().all(|o| o.size == 3 && o.modified.seconds > 0));
}

fn reads(store: &dyn Store) {
    let data: Vec<u8> = (0..5_000_000u32).map(|n| (n % 251) as u8).collect();
    done(store.create("read/large", Bytes::from(data.clone())));
    done(store.create("read/empty", Bytes::new()));
    assert_eq!(done(store.read("read/large", 5_000_000)), data);
    assert_eq!(done(store.size("read/large")), 5_000_000);
    assert_eq!(done(store.size("read/empty")), 0);
    assert!(done(store.read("read/empty", 0)).is_empty());
    assert_eq!(fault(store.read("read/large", 4_999_999)), StoreFault::Size);
    assert_eq!(done(store.read_range("read/large", 1_000_001, 999)), data[1_000_001..1_001_000]);
    assert_eq!(done(store.read_range("read/large", 4_999_990, 10)), data[4_999_990..]);
    assert!(done(store.read_range("read/large", 5_000_000, 0)).is_empty());
    for (offset, len) in [(4_999_990, 11), (5_000_000, 1), (9_000_000, 1), (9_000_000, 0), (u64::MAX, 2)] {
        assert_eq!(fault(store.read_range("read/large", offset, len)), StoreFault::Size, "{offset} + {len}");
    }
    for missing in ["read/none", "none/at/all"] {
        assert_eq!(fault(store.read(missing, 10)), StoreFault::NotFound);
        assert_eq!(fault(store.read_range(missing, 0, 1)), StoreFault::NotFound);
        assert_eq!(fault(store.size(missing)), StoreFault::NotFound);
        assert!(is_gone(store.delete(missing)), "{missing}");
    }
}

/// What a store may say of a delete that finds nothing.
fn is_gone(deleted: Result<(), StoreError>) -> bool {
    deleted.map_or_else(|e| e.fault == StoreFault::NotFound, |()| true)
}

fn replaces_and_deletes(store: &dyn Store) {
    done(store.write("change/a", Bytes::from_static(b"one, longer")));
    done(store.write("change/a", Bytes::from_static(b"two")));
    assert_eq!(&done(store.read("change/a", 100))[..], b"two");
    assert_eq!(done(store.size("change/a")), 3);
    assert_eq!(fault(store.create("change/a", Bytes::new())), StoreFault::Exists);
    done(store.delete("change/a"));
    assert!(is_gone(store.delete("change/a")));
    assert_eq!(fault(store.read("change/a", 100)), StoreFault::NotFound);
    assert!(done(store.list("change")).is_empty());
    done(store.create("change/a", Bytes::from_static(b"three")));
    assert_eq!(&done(store.read("change/a", 100))[..], b"three");
}
