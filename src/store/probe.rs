//! What a store can do, found out and not assumed: some servers ignore a condition in silence, some
//! show a new object late. Objects of its own are written below `probe/`, under names drawn for each
//! probe, and deleted again; nothing else is touched.

use super::Store;
use crate::error::{StoreError, StoreFault};
use bytes::Bytes;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Writers that create one name at a time.
const WRITERS: u8 = 8;
/// Bytes of the object whose ranges are read.
const RANGED: usize = 100_000;

/// What was found of one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// The store does it.
    Holds,
    /// It does not, and how that showed.
    Fails(String),
}

/// What a store can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abilities {
    /// The second create of a name is refused, and changes nothing.
    pub creates_once: Finding,
    /// Of eight creates of a name at a time, one succeeds.
    pub one_of_many: Finding,
    /// What was written is listed at once.
    pub lists_writes: Finding,
    /// A range is given exactly, and one beyond the end is refused.
    pub ranges: Finding,
    /// An object's size, and that there is none.
    pub sizes: Finding,
    /// An object is replaced.
    pub replaces: Finding,
    /// An object is deleted, and not listed any more.
    pub deletes: Finding,
}

impl Abilities {
    /// Each with a name for people, in the order of a table.
    pub fn rows(&self) -> [(&'static str, &Finding); 7] {
        [
            ("create if absent, twice", &self.creates_once),
            ("create if absent, by eight at once", &self.one_of_many),
            ("list after write", &self.lists_writes),
            ("ranges", &self.ranges),
            ("sizes", &self.sizes),
            ("replace", &self.replaces),
            ("delete", &self.deletes),
        ]
    }

    /// True if of several who create a name exactly one succeeds: then a session can be fenced.
    pub fn creates_if_absent(&self) -> bool {
        self.creates_once == Finding::Holds && self.one_of_many == Finding::Holds
    }

    /// True if a repository can lie there at all; without create-if-absent under the restrictions that
    /// this brings, and without deletes for writers only.
    pub fn can_hold_a_repository(&self) -> bool {
        [&self.lists_writes, &self.ranges, &self.sizes].iter().all(|finding| **finding == Finding::Holds)
    }
}

fn holds_if(holds: bool, otherwise: impl Into<String>) -> Finding {
    if holds { Finding::Holds } else { Finding::Fails(otherwise.into()) }
}

/// What an answer means that was expected to be of another kind. A store that does not answer can be
/// found nothing of.
fn unless_silent<T>(answer: Result<T, StoreError>) -> Result<Result<T, StoreError>, StoreError> {
    match answer {
        Err(e) if e.fault == StoreFault::Unavailable => Err(e),
        answer => Ok(answer),
    }
}

/// Probes a store. Takes some twenty requests.
///
/// # Errors
/// The store's, where it does not answer, or lets nothing be created: then nothing can be said of it.
pub fn probe(store: &dyn Store) -> Result<Abilities, StoreError> {
    let mut drawn = [0; 8];
    let no_name =
        |why: String| StoreError { fault: StoreFault::Other, operation: "probe", object: "probe".into(), why };
    getrandom::fill(&mut drawn).map_err(|e| no_name(e.to_string()))?;
    let folder = format!("probe/{:016x}", u64::from_le_bytes(drawn));
    let found = all(store, &folder);
    // What is left when something failed goes as far as it can; what was found counts.
    if let Ok(left) = store.list(&folder) {
        for object in left {
            let _ = store.delete(&object.name);
        }
    }
    found
}

fn all(store: &dyn Store, folder: &str) -> Result<Abilities, StoreError> {
    let once = format!("{folder}/once");
    Ok(Abilities {
        creates_once: creates_once(store, &once)?,
        one_of_many: one_of_many(store, &format!("{folder}/race"))?,
        lists_writes: lists_writes(store, folder, &once)?,
        ranges: ranges(store, &format!("{folder}/ranged"))?,
        sizes: sizes(store, &once, &format!("{folder}/none"))?,
        replaces: replaces(store, &format!("{folder}/changed"))?,
        deletes: deletes(store, folder, &once)?,
    })
}

fn creates_once(store: &dyn Store, name: &str) -> Result<Finding, StoreError> {
    store.create(name, Bytes::from_static(b"first"))?;
    let second = unless_silent(store.create(name, Bytes::from_static(b"second")))?;
    let kept = store.read(name, 100)?;
    Ok(match second {
        Err(e) if e.fault == StoreFault::Exists => {
            holds_if(&kept[..] == b"first", "the refused create changed the object all the same")
        }
        Err(e) => Finding::Fails(format!("the second create failed otherwise: {}", e.why)),
        Ok(()) => Finding::Fails("the condition is ignored: a second create replaced the object".into()),
    })
}

fn one_of_many(store: &dyn Store, name: &str) -> Result<Finding, StoreError> {
    let won = AtomicUsize::new(0);
    let answers: Vec<Result<(), StoreError>> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|n| {
                let won = &won;
                scope.spawn(move || match store.create(name, Bytes::from(vec![n; 1000])) {
                    Ok(()) => {
                        won.fetch_add(1, Ordering::Relaxed);
                        Ok(())
                    }
                    Err(e) if e.fault == StoreFault::Exists => Ok(()),
                    Err(e) => Err(e),
                })
            })
            .collect();
        let lost = |_| {
            Err(StoreError {
                fault: StoreFault::Other,
                operation: "create",
                object: name.into(),
                why: "a thread ended early".into(),
            })
        };
        writers.into_iter().map(|writer| writer.join().unwrap_or_else(lost)).collect()
    });
    for answer in answers {
        answer?;
    }
    let won = won.into_inner();
    let kept = store.read(name, 1000)?;
    let whole = kept.len() == 1000 && kept.iter().all(|byte| *byte == kept[0]);
    Ok(match (won, whole) {
        (1, true) => Finding::Holds,
        (1, false) => Finding::Fails("the object that won is not whole".into()),
        (won, _) => Finding::Fails(format!("{won} of {WRITERS} creates succeeded")),
    })
}

fn lists_writes(store: &dyn Store, folder: &str, written: &str) -> Result<Finding, StoreError> {
    Ok(match unless_silent(store.list(folder))? {
        Ok(listed) => {
            let found = listed.iter().find(|object| object.name == written);
            holds_if(found.is_some(), "what was written is not listed")
        }
        Err(e) => Finding::Fails(format!("the listing failed: {}", e.why)),
    })
}

fn ranges(store: &dyn Store, name: &str) -> Result<Finding, StoreError> {
    let data: Vec<u8> = (0..RANGED).map(|n| (n % 251) as u8).collect();
    store.create(name, Bytes::from(data.clone()))?;
    for (offset, len) in [(0, 10), (12_345, 54_321), (RANGED - 1, 1)] {
        match unless_silent(store.read_range(name, offset as u64, len))? {
            Ok(bytes) if bytes[..] == data[offset..offset + len] => {}
            Ok(_) => return Ok(Finding::Fails(format!("{len} bytes from {offset} are not those of the object"))),
            Err(e) => return Ok(Finding::Fails(format!("{len} bytes from {offset}: {}", e.why))),
        }
    }
    Ok(match unless_silent(store.read_range(name, RANGED as u64 - 1, 2))? {
        Err(e) if e.fault == StoreFault::Size => Finding::Holds,
        Err(e) => Finding::Fails(format!("a range beyond the end: {}", e.why)),
        Ok(_) => Finding::Fails("a range beyond the end is given".into()),
    })
}

fn sizes(store: &dyn Store, there: &str, nowhere: &str) -> Result<Finding, StoreError> {
    let size = unless_silent(store.size(there))?;
    // Whatever came of the second create, one of the two is there.
    let right = matches!(size, Ok(5 | 6));
    let none = unless_silent(store.size(nowhere))?;
    Ok(match (right, none) {
        (true, Err(e)) if e.fault == StoreFault::NotFound => Finding::Holds,
        (true, Err(e)) => Finding::Fails(format!("an object that is not there: {}", e.why)),
        (true, Ok(_)) => Finding::Fails("an object that is not there has a size".into()),
        (false, _) => Finding::Fails("the size is not that of what was written".into()),
    })
}

fn replaces(store: &dyn Store, name: &str) -> Result<Finding, StoreError> {
    store.create(name, Bytes::from_static(b"before"))?;
    Ok(match unless_silent(store.write(name, Bytes::from_static(b"after")))? {
        Ok(()) => holds_if(&store.read(name, 100)?[..] == b"after", "the old object is read after it was replaced"),
        Err(e) => Finding::Fails(format!("replacing failed: {}", e.why)),
    })
}

fn deletes(store: &dyn Store, folder: &str, name: &str) -> Result<Finding, StoreError> {
    if let Err(e) = unless_silent(store.delete(name))? {
        return Ok(Finding::Fails(format!("deleting failed: {}", e.why)));
    }
    let is_gone = matches!(unless_silent(store.read(name, 100))?, Err(e) if e.fault == StoreFault::NotFound);
    let is_listed = store.list(folder)?.iter().any(|object| object.name == name);
    Ok(holds_if(is_gone && !is_listed, "a deleted object is still there"))
}

#[cfg(test)]
mod tests {
    use super::super::Memory;
    use super::*;

    #[test]
    fn a_whole_store_holds_everything_and_is_left_clean() {
        let store = Memory::default();
        let found = probe(&store).unwrap();
        assert!(found.rows().iter().all(|(_, finding)| **finding == Finding::Holds), "{found:?}");
        assert!(found.creates_if_absent() && found.can_hold_a_repository());
        assert!(store.list("").unwrap().is_empty());
    }

    #[cfg(feature = "fault-store")]
    #[test]
    fn what_a_store_cannot_do_is_found() {
        use super::super::{Fault, Faulty};
        use std::sync::Arc;
        let probed = |fault: fn(&str) -> Option<Fault>| {
            let store = Faulty::new(Arc::new(Memory::default()));
            store.decide(move |request| fault(request.operation));
            probe(&store)
        };
        let ignored = probed(|operation| (operation == "create").then_some(Fault::Overwrite)).unwrap();
        assert!(!ignored.creates_if_absent() && ignored.can_hold_a_repository(), "{ignored:?}");
        assert_eq!(ignored.one_of_many, Finding::Fails("8 of 8 creates succeeded".into()));
        let kept = probed(|operation| (operation == "delete").then_some(Fault::Fail(StoreFault::Denied))).unwrap();
        assert!(matches!(kept.deletes, Finding::Fails(_)) && kept.creates_if_absent());
        let halved = probed(|operation| (operation == "read_range").then_some(Fault::Tear)).unwrap();
        assert!(matches!(halved.ranges, Finding::Fails(_)) && !halved.can_hold_a_repository());
        let silent = probed(|operation| (operation == "size").then_some(Fault::LoseAnswer)).unwrap_err();
        assert_eq!(silent.fault, StoreFault::Unavailable);
    }
}
