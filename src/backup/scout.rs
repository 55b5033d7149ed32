//! Listing ahead: several threads list folders that the walk has not come to,
//! in its order, so that it finds them listed. What waits for the walk is
//! bounded in folders and in entries. What nobody has begun when the walk comes
//! to it, the walk lists itself, so that it waits for nothing but work that is
//! being done. Never decides what is walked, and reads no content.

use super::compare::Entry;
use super::listing::{Below, Listed, Rules};
use crate::error::{Error, Result};
use crate::format::node::Kind;
use crate::limits;
use crate::source::files::Trail;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// The way to a folder: of each folder on it, which of the subfolders in the one above. Ways are
/// ordered as the walk goes.
pub type Way = Vec<u32>;

#[derive(Default)]
struct State {
    /// Subfolders that nobody has begun, of each folder from the next one on: by the way to that.
    rest: BTreeMap<Way, std::vec::IntoIter<Below>>,
    /// What was begun: without a listing until that is there.
    begun: HashMap<Way, Option<Listed>>,
    /// Entries of listings that wait for the walk.
    entries: usize,
    /// Threads that wait for something to list, or for room.
    idle: usize,
    /// The walk waits for a listing that was begun.
    awaited: bool,
    closed: bool,
}

/// What threads that list ahead share with the walk.
pub struct Scout<'a> {
    rules: &'a Rules<'a>,
    state: Mutex<State>,
    /// There is something to list, room for it, or no more to do.
    work: Condvar,
    /// Something was listed.
    listed: Condvar,
}

/// Walks with folders listed ahead.
///
/// # Errors
/// The walk's; [`Error::Invalid`] if a listing thread panicked.
pub fn ahead<T>(rules: &Rules<'_>, walk: impl FnOnce(&Scout<'_>) -> Result<T>) -> Result<T> {
    let scout = Scout { rules, state: Mutex::default(), work: Condvar::new(), listed: Condvar::new() };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..limits::LIST_AHEAD_THREADS).map(|_| scope.spawn(|| scout.run())).collect();
        let walked = {
            let _closed = Closed(&scout);
            walk(&scout)
        };
        for thread in threads {
            thread.join().map_err(|_| Error::Invalid("a listing thread panicked".into()))?;
        }
        walked
    })
}

/// Sends the threads home, however the walk ends.
struct Closed<'s>(&'s Scout<'s>);

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.work.notify_all();
    }
}

/// A folder that is being listed. If that ends without a listing, the walk does not wait for it.
struct Underway<'s> {
    scout: &'s Scout<'s>,
    way: Option<Way>,
}

impl Underway<'_> {
    fn done(mut self, listed: Listed, stored: &Arc<Trail>) {
        if let Some(way) = self.way.take() {
            self.scout.put(way, listed, stored);
        }
    }
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        if let Some(way) = self.way.take() {
            self.scout.lock().begun.remove(&way);
            self.scout.listed.notify_all();
        }
    }
}

impl State {
    fn is_full(&self) -> bool {
        self.begun.len() >= limits::LIST_AHEAD_FOLDERS || self.entries >= limits::LIST_AHEAD_ENTRIES
    }

    /// True once it is worth to wake whoever waits for room: not for every listing that the walk takes.
    fn has_much_room(&self) -> bool {
        self.begun.len() <= limits::LIST_AHEAD_FOLDERS / 2 && self.entries <= limits::LIST_AHEAD_ENTRIES / 2
    }

    /// Begins what comes first in the walk's order, if there is room for it.
    fn begin(&mut self) -> Option<(Way, Below)> {
        if self.is_full() {
            return None;
        }
        let way = self.rest.first_key_value()?.0.clone();
        let below = self.next_at(&way)?;
        self.begun.insert(way.clone(), None);
        Some((way, below))
    }

    /// Takes a folder from those that nobody has begun, if it is the next one there.
    fn next_at(&mut self, way: &[u32]) -> Option<Below> {
        let mut rest = self.rest.remove(way)?;
        let below = rest.next();
        if !rest.as_slice().is_empty()
            && let Some((last, above)) = way.split_last()
        {
            self.rest.insert(above.iter().copied().chain([last + 1]).collect(), rest);
        }
        below
    }

    fn add(&mut self, first: Way, below: Vec<Below>) {
        if !below.is_empty() {
            self.rest.insert(first, below.into_iter());
        }
    }
}

impl Scout<'_> {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One listing thread.
    fn run(&self) {
        while let Some((way, below)) = self.next() {
            let underway = Underway { scout: self, way: Some(way) };
            // A large one is the walk's, which lists one at a time.
            if let Some(listed) = self.rules.list_within(&below, limits::LIST_AHEAD_FOLDER) {
                underway.done(listed, &below.stored);
            }
        }
    }

    /// Waits for a folder to list; `None` at the end.
    fn next(&self) -> Option<(Way, Below)> {
        let mut state = self.lock();
        while !state.closed {
            if let Some(begun) = state.begin() {
                return Some(begun);
            }
            state.idle += 1;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
        None
    }

    fn put(&self, way: Way, listed: Listed, stored: &Arc<Trail>) {
        let (mut entries, mut subfolders) = (0, Vec::new());
        if let Listed::Entries(listing) = &listed {
            entries = listing.entries.len();
            if way.len() < limits::LIST_AHEAD_DEPTH {
                subfolders = below(listing.entries.iter().filter(|e| e.stat.kind == Kind::Dir), stored);
            }
        }
        let mut state = self.lock();
        state.add([&way[..], &[0]].concat(), subfolders);
        state.entries += entries;
        state.begun.insert(way, Some(listed));
        self.wake(&state);
        if state.awaited {
            self.listed.notify_all();
        }
    }

    fn wake(&self, state: &State) {
        if state.idle > 0 && state.has_much_room() && !state.rest.is_empty() {
            self.work.notify_all();
        }
    }

    /// The listing of a folder that the walk has come to; `None` if the walk must list it itself.
    pub fn take(&self, way: &[u32]) -> Option<Listed> {
        let mut state = self.lock();
        loop {
            match state.begun.get(way) {
                Some(Some(_)) => break,
                Some(None) => {
                    state.awaited = true;
                    state = self.listed.wait(state).unwrap_or_else(PoisonError::into_inner);
                    state.awaited = false;
                }
                None => {
                    state.next_at(way);
                    return None;
                }
            }
        }
        let listed = state.begun.remove(way).flatten();
        if let Some(Listed::Entries(listing)) = &listed {
            state.entries -= listing.entries.len();
        }
        self.wake(&state);
        listed
    }

    /// Tells of subfolders of a folder that the walk is in: `first` is the way to the first of them.
    pub fn entered<'e>(&self, first: &[u32], folders: impl Iterator<Item = &'e Entry>, stored: &Arc<Trail>) {
        if first.len() > limits::LIST_AHEAD_DEPTH {
            return;
        }
        let subfolders = below(folders, stored);
        let mut state = self.lock();
        state.add(first.to_vec(), subfolders);
        self.wake(&state);
    }
}

/// Folders to list, no more than may be told of at a time.
fn below<'e>(folders: impl Iterator<Item = &'e Entry>, stored: &Arc<Trail>) -> Vec<Below> {
    folders.take(limits::LIST_AHEAD_SUBFOLDERS).map(|entry| Below::new(entry, stored)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::derive::IdKeys;
    use crate::source::files::Folder;
    use ignore::gitignore::Gitignore;
    use std::fs;
    use std::path::Path;
    use std::time::{Duration, Instant};

    /// What walks a folder in order, as the walk does: by `first`, told of the folders in it.
    struct Walker<'a> {
        rules: &'a Rules<'a>,
        scout: &'a Scout<'a>,
        /// Paths of all entries.
        seen: Vec<String>,
        /// Folders that were found listed.
        taken: usize,
        /// Folders that the walker listed.
        own: usize,
    }

    impl Walker<'_> {
        fn folder(&mut self, way: &[u32], entries: &[Entry], stored: &Arc<Trail>) {
            let folders: Vec<&Entry> = entries.iter().filter(|e| e.stat.kind == Kind::Dir).collect();
            for entry in entries {
                let path = entry.folder.path_of(&entry.name);
                self.seen.push(path.to_str().unwrap().to_owned());
            }
            for (at, entry) in folders.iter().enumerate() {
                let way = [way, &[at as u32]].concat();
                let below = Below::new(entry, stored);
                let listed = self.scout.take(&way);
                let told = listed.is_some();
                match listed.unwrap_or_else(|| self.rules.list(&below)) {
                    Listed::Entries(listing) => {
                        if !told {
                            self.own += 1;
                            self.scout.entered(
                                &[&way[..], &[0]].concat(),
                                subfolders(&listing.entries),
                                &below.stored,
                            );
                        }
                        self.taken += usize::from(told);
                        self.folder(&way, &listing.entries, &below.stored);
                    }
                    Listed::OtherSystem => panic!("nothing is on another file system"),
                    Listed::Failed(e) => {
                        self.seen.push(format!("{}: {e}", entry.folder.path_of(&entry.name).display()))
                    }
                }
            }
        }
    }

    fn subfolders(entries: &[Entry]) -> impl Iterator<Item = &Entry> {
        entries.iter().filter(|e| e.stat.kind == Kind::Dir)
    }

    /// Lists a folder and tells of it, as the walk does with the first; then `walk` has the rest.
    fn walk<T>(root: &Path, walk: impl FnOnce(&Scout<'_>, &Rules<'_>, &[Entry], &Arc<Trail>) -> T) -> T {
        let keys = IdKeys::new(&[7; 32]);
        let rules = Rules { keys: &keys, exclude: Gitignore::empty(), one_file_system: false };
        ahead(&rules, |scout| {
            let folder = Arc::new(Folder::open(root).unwrap());
            let top = Trail::new(Path::new(""));
            let listing = rules.look_at(&folder, folder.names().unwrap(), &top, &[0; 16]);
            scout.entered(&[0], subfolders(&listing.entries), &top);
            Ok(walk(scout, &rules, &listing.entries, &top))
        })
        .unwrap()
    }

    fn wait_until_idle(scout: &Scout<'_>) {
        let began = Instant::now();
        let is_idle =
            |state: &State| state.idle == limits::LIST_AHEAD_THREADS && (state.is_full() || state.rest.is_empty());
        while !is_idle(&scout.lock()) {
            assert!(began.elapsed() < Duration::from_secs(60), "the threads never come to rest");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn finds_what_a_walk_alone_would_find() {
        let place = tempfile::tempdir().unwrap();
        let mut expected = Vec::new();
        for way in ["a/b/c", "a/b/d", "a/e", "f", "g/h"] {
            fs::create_dir_all(place.path().join(way)).unwrap();
            for name in ["1", "2"] {
                fs::write(place.path().join(way).join(name), "").unwrap();
            }
        }
        // Deeper than is told of.
        let deep = (0..limits::LIST_AHEAD_DEPTH + 5).map(|n| format!("deep{n}/")).collect::<String>();
        fs::create_dir_all(place.path().join(&deep)).unwrap();
        fs::write(place.path().join(&deep).join("end"), "").unwrap();
        for entry in ignore::WalkBuilder::new(place.path()).hidden(false).build() {
            expected.push(entry.unwrap().path().to_str().unwrap().to_owned());
        }
        for slow in [false, true] {
            let mut seen = walk(place.path(), |scout, rules, entries, top| {
                let mut walker = Walker { rules, scout, seen: vec![], taken: 0, own: 0 };
                if slow {
                    wait_until_idle(scout);
                }
                walker.folder(&[], entries, top);
                assert!(!slow || walker.own <= 6, "{} folders were left to the walk", walker.own);
                walker.seen
            });
            seen.push(place.path().to_str().unwrap().to_owned());
            seen.sort();
            expected.sort();
            assert_eq!(seen, expected);
        }
    }

    #[test]
    fn what_waits_is_bounded_and_all_of_it_is_taken() {
        let place = tempfile::tempdir().unwrap();
        for n in 0..3 * limits::LIST_AHEAD_FOLDERS {
            fs::create_dir_all(place.path().join(format!("{n:05}/x/y"))).unwrap();
        }
        walk(place.path(), |scout, rules, entries, top| {
            wait_until_idle(scout);
            assert_eq!(scout.lock().begun.len(), limits::LIST_AHEAD_FOLDERS);
            // What comes first is among it; how deep, hangs on whose thread was slow.
            assert!(scout.lock().begun.contains_key(&[0][..]));
            let mut walker = Walker { rules, scout, seen: vec![], taken: 0, own: 0 };
            walker.folder(&[], entries, top);
            assert_eq!(walker.taken + walker.own, 9 * limits::LIST_AHEAD_FOLDERS);
            let state = scout.lock();
            assert_eq!((state.begun.len(), state.entries, state.rest.len()), (0, 0, 0), "nothing is left behind");
        });
    }

    #[test]
    fn a_large_folder_is_left_to_the_walk() {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("a")).unwrap();
        fs::create_dir(place.path().join("b")).unwrap();
        for n in 0..=limits::LIST_AHEAD_FOLDER {
            fs::write(place.path().join(format!("a/{n}")), "").unwrap();
        }
        walk(place.path(), |scout, rules, entries, top| {
            wait_until_idle(scout);
            assert!(scout.take(&[0]).is_none());
            let Listed::Entries(listing) = rules.list(&Below::new(&entries[0], top)) else { panic!("it is there") };
            assert_eq!(listing.entries.len(), limits::LIST_AHEAD_FOLDER + 1);
            assert!(matches!(scout.take(&[1]), Some(Listed::Entries(_))));
        });
    }

    #[test]
    fn a_listing_that_ends_in_a_panic_is_not_waited_for() {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("a")).unwrap();
        walk(place.path(), |scout, _, _, _| {
            wait_until_idle(scout);
            scout.take(&[0]);
            scout.lock().begun.insert(vec![7], None);
            thread::scope(|scope| {
                let ended = scope.spawn(|| {
                    let _underway = Underway { scout, way: Some(vec![7]) };
                    thread::sleep(Duration::from_millis(20));
                    panic!("on purpose");
                });
                assert!(scout.take(&[7]).is_none());
                assert!(ended.join().is_err());
            });
        });
    }
}
