//! What is asked of the store to bring a cache up to date, and what a cache holds in the long run.

use super::{Kept, opened};
use crate::support::{files_below, noise};
use bytes::Bytes;
use estrato::error::StoreError;
use estrato::store::{Listed, Store};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

/// Notes which objects are read.
struct Counted {
    inner: Arc<dyn Store>,
    read: Arc<Mutex<Vec<String>>>,
}

impl Store for Counted {
    fn describe(&self) -> String {
        self.inner.describe()
    }
    fn create(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        self.inner.create(name, data)
    }
    fn write(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        self.inner.write(name, data)
    }
    fn read(&self, name: &str, max: u64) -> Result<Bytes, StoreError> {
        self.read.lock().unwrap().push(name.into());
        self.inner.read(name, max)
    }
    fn read_range(&self, name: &str, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        self.inner.read_range(name, offset, len)
    }
    fn size(&self, name: &str) -> Result<u64, StoreError> {
        self.inner.size(name)
    }
    fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        self.inner.list(folder)
    }
    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.inner.delete(name)
    }
}

/// Brings a cache up to date; how many index objects that took, of how many there are.
fn fetched(kept: &Kept, cache: &Path) -> (usize, usize) {
    let read = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&read);
    let repo = opened(&kept.place, Some(cache), |inner| Arc::new(Counted { inner, read: noted }));
    assert!(repo.sync_index().unwrap().is_empty());
    assert_eq!(repo.local().take_warnings(), Vec::<String>::new());
    let folder = repo.names().indexes();
    let fetched = read.lock().unwrap().iter().filter(|name| name.starts_with(&folder)).count();
    (fetched, repo.index().objects().unwrap().len())
}

#[test]
fn a_cache_that_is_behind_fetches_only_what_is_new() {
    let kept = Kept::new();
    let cache = kept.place.path("behind");
    assert_eq!(fetched(&kept, &cache), (2, 2));
    assert_eq!(fetched(&kept, &cache), (0, 2));
    for n in 0..5 {
        kept.place.write(format!("source/more {n}"), noise(&format!("more {n}"), 1000));
        kept.snapshot();
    }
    assert_eq!(fetched(&kept, &cache), (5, 7));
    assert_eq!(fetched(&kept, &cache), (0, 7));
    // What is gone is not asked for.
    let objects = kept.place.objects("index");
    fs::remove_file(&objects[0]).unwrap();
    assert_eq!(fetched(&kept, &cache), (0, 6));
    assert_eq!(fetched(&kept, &kept.root()), (0, 6), "the snapshots' own cache knows all of it");
}

fn age(path: &Path, days: u64) {
    let time = SystemTime::now() - Duration::from_secs(days * 86_400);
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn tenants_that_are_not_used_any_more_lose_their_index_and_notes() {
    let kept = Kept::new();
    let place = &kept.place;
    place.run(&["tenant", "add", "other", "--new-key-file", "other-key"]).expect_code(0);
    place.write("theirs/file", noise("theirs", 10_000));
    place.run_as("other-key", &["-t", "other", "snapshot", "--quiet", "theirs"]).expect_code(0);
    let above = kept.root().join(
        fs::read_dir(kept.root())
            .unwrap()
            .map(|e| e.unwrap())
            .find(|e| e.path().is_dir() && e.file_name() != "met")
            .unwrap()
            .file_name(),
    );
    let mut tenants: Vec<PathBuf> =
        fs::read_dir(above).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir()).collect();
    tenants.sort_by_key(|t| fs::metadata(t.join("index.lock")).unwrap().modified().unwrap());
    let [ours, theirs] = &tenants[..] else { panic!("{tenants:?}") };
    age(&theirs.join("index.lock"), 200);
    age(&kept.root().join("swept"), 2);
    place.run(&["ls"]).expect_code(0);
    let names = |folder: &Path| -> Vec<String> {
        files_below(folder).iter().map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect()
    };
    assert_eq!(names(theirs), ["chains.json", "index.lock", "seen.json"]);
    assert!(names(ours).contains(&"index.db".to_owned()));
    // They come back as if nothing had been.
    place.run_as("other-key", &["-t", "other", "check", "--read-data"]).expect_code(0);
    let ran = place.run_as("other-key", &["-t", "other", "snapshot", "--quiet", "theirs"]).expect_code(0);
    assert_eq!(ran.stderr(), "");
}

#[test]
fn notes_of_sources_that_are_not_backed_up_any_more_go() {
    let kept = Kept::new();
    let place = &kept.place;
    let notes = || {
        let all = files_below(&kept.cache());
        all.into_iter()
            .filter(|p| p.file_name().unwrap().to_string_lossy().starts_with("source-"))
            .collect::<Vec<_>>()
    };
    let first = kept.notes();
    for n in 0..4 {
        place.write(format!("others/{n}"), "x");
        place.run(&["snapshot", &format!("others/{n}")]).expect_code(0);
    }
    assert_eq!(notes().len(), 5);
    notes().iter().filter(|p| **p != first).enumerate().for_each(|(n, p)| age(p, 179 + 2 * (n as u64 % 2)));
    kept.snapshot();
    assert_eq!(notes().len(), 3);
    assert!(notes().contains(&first));
}

#[test]
fn a_cache_does_not_grow_with_snapshots_of_what_stays_the_same() {
    let kept = Kept::new();
    let size = || files_below(&kept.root()).iter().map(|p| fs::metadata(p).unwrap().len()).sum::<u64>();
    kept.snapshot();
    let before = size();
    for _ in 0..12 {
        kept.snapshot();
    }
    assert!(size() <= before + 100_000, "{} after {before}", size());
    let names: Vec<_> = files_below(&kept.root());
    assert!(names.len() <= 9, "{names:?}");
}
