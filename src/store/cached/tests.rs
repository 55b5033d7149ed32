//! What is asked of the store, what of the copies, and when a copy counts.

use super::*;
use crate::clock::Timestamp;
use crate::error::StoreFault;
use crate::store::{Memory, contract};
use std::sync::atomic::AtomicUsize;

/// A store that counts what it is asked, in which every object is as old as its content says.
#[derive(Default)]
struct Counted {
    memory: Memory,
    asked: AtomicUsize,
}

impl Counted {
    fn memory(&self) -> &Memory {
        self.asked.fetch_add(1, Ordering::Relaxed);
        &self.memory
    }

    fn asked(&self) -> usize {
        self.asked.swap(0, Ordering::Relaxed)
    }
}

impl Store for Counted {
    fn describe(&self) -> String {
        "counted".into()
    }
    fn create(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        self.memory().create(name, data)
    }
    fn write(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        self.memory().write(name, data)
    }
    fn read(&self, name: &str, max: u64) -> Result<Bytes, StoreError> {
        self.memory().read(name, max)
    }
    fn read_range(&self, name: &str, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        self.memory().read_range(name, offset, len)
    }
    fn size(&self, name: &str) -> Result<u64, StoreError> {
        self.memory().size(name)
    }
    fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        let mut listed = self.memory().list(folder)?;
        for object in &mut listed {
            let first = self.memory.read(&object.name, 1 << 30)?.first().copied().unwrap_or_default();
            object.modified = Timestamp { seconds: i64::from(first), nanos: 0 };
        }
        Ok(listed)
    }
    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.memory().delete(name)
    }
}

fn rule(name: &str) -> Lasting {
    match name.split('/').next() {
        Some("listed") => Lasting::Listed,
        Some("unseen") => Lasting::Unseen,
        Some("part") => Lasting::Part,
        _ => Lasting::No,
    }
}

struct World {
    store: Arc<Counted>,
    root: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self { store: Arc::default(), root: tempfile::tempdir().unwrap() }
    }

    /// As another process would have it.
    fn cached(&self) -> Cached {
        Cached::new(Arc::clone(&self.store) as Arc<dyn Store>, self.root.path(), 1 << 30, rule)
    }

    fn files(&self) -> Vec<PathBuf> {
        let (mut found, mut folders) = (Vec::new(), vec![self.root.path().to_owned()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                match entry.file_type().unwrap().is_dir() {
                    true => folders.push(entry.path()),
                    false if entry.file_name() == STAMP => {}
                    false => found.push(entry.path()),
                }
            }
        }
        found
    }
}

fn read(cached: &Cached, name: &str) -> Bytes {
    cached.read(name, 1000).unwrap()
}

#[test]
fn keeps_the_contract() {
    let world = World::new();
    contract::check(&Cached::new(Arc::clone(&world.store) as Arc<dyn Store>, world.root.path(), 1 << 30, |_| {
        Lasting::Listed
    }));
    let world = World::new();
    contract::check(&Cached::new(Arc::clone(&world.store) as Arc<dyn Store>, world.root.path(), 1 << 30, |_| {
        Lasting::Part
    }));
}

#[test]
fn what_a_listing_shows_as_it_was_is_not_read_again() {
    let world = World::new();
    world.cached().create("listed/mine", "a".into()).unwrap();
    world.store.create("listed/theirs", "b".into()).unwrap();
    let first = world.cached();
    first.list("listed").unwrap();
    world.store.asked();
    assert_eq!((&read(&first, "listed/mine")[..], world.store.asked()), (&b"a"[..], 0));
    assert_eq!((&read(&first, "listed/theirs")[..], world.store.asked()), (&b"b"[..], 1));
    let second = world.cached();
    read(&second, "listed/mine");
    assert_eq!(world.store.asked(), 1, "this process has listed nothing");
    second.list("listed").unwrap();
    world.store.asked();
    assert!(second.read_range("listed/theirs", 0, 1).is_ok());
    assert_eq!(second.read("listed/theirs", 0).unwrap_err().fault, StoreFault::Size);
    assert_eq!(second.read_range("listed/theirs", 0, 2).unwrap_err().fault, StoreFault::Size);
    assert_eq!(world.store.asked(), 2, "whoever asks for too little or too much hears the store's words");
}

#[test]
fn what_changed_is_read_anew_and_with_it_all_that_is_never_listed() {
    let world = World::new();
    let cached = world.cached();
    for name in ["listed/a", "listed/gone", "unseen/b", "part/c"] {
        cached.create(name, "old".into()).unwrap();
    }
    cached.list("listed").unwrap();
    // Of one length, so the time alone tells.
    world.store.write("listed/a", "new".into()).unwrap();
    world.store.write("unseen/b", "new".into()).unwrap();
    assert_eq!((&read(&cached, "listed/a")[..], &read(&cached, "unseen/b")[..]), (&b"old"[..], &b"old"[..]));
    cached.list("listed").unwrap();
    assert_eq!((&read(&cached, "listed/a")[..], &read(&cached, "unseen/b")[..]), (&b"new"[..], &b"new"[..]));
    world.store.delete("listed/gone").unwrap();
    cached.list("listed").unwrap();
    assert_eq!(cached.read("listed/gone", 9).unwrap_err().fault, StoreFault::NotFound);
    world.store.asked();
    assert_eq!((&cached.read_range("part/c", 1, 2).unwrap()[..], world.store.asked()), (&b"ld"[..], 0));
    cached.write("listed/a", "mine".into()).unwrap();
    assert_eq!(&read(&cached, "listed/a")[..], b"mine");
    cached.delete("listed/a").unwrap();
    assert_eq!(cached.read("listed/a", 9).unwrap_err().fault, StoreFault::NotFound);
}

#[test]
fn of_a_pack_of_trees_all_is_fetched_once() {
    let world = World::new();
    let pack: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
    world.store.create("part/a", pack.clone().into()).unwrap();
    let cached = world.cached();
    cached.create_cold("part/data", "x".into()).unwrap();
    world.store.asked();
    std::thread::scope(|scope| {
        for at in [10, 20, 99_990] {
            let (cached, pack) = (&cached, &pack);
            scope
                .spawn(move || assert_eq!(cached.read_lasting("part/a", at, 10).unwrap(), pack[at as usize..][..10]));
        }
    });
    assert_eq!(world.store.asked(), 1);
    assert_eq!(world.cached().read_range("part/a", 0, 7).unwrap(), pack[..7]);
    assert_eq!(world.store.asked(), 0);
    assert_eq!(cached.read_lasting("part/a", 99_999, 2).unwrap_err().fault, StoreFault::Size);
    assert_eq!(cached.read_lasting("part/none", 0, 2).unwrap_err().fault, StoreFault::NotFound);
    world.store.asked();
    cached.read_range("part/data", 0, 1).unwrap();
    assert_eq!(world.store.asked(), 1, "a pack of data is not kept");
}

#[test]
fn what_is_too_large_is_not_kept() {
    let world = World::new();
    let len = limits::COPY_MAX as usize + 1;
    world.store.create("part/a", vec![7; len].into()).unwrap();
    let cached = world.cached();
    assert_eq!(cached.read_lasting("part/a", len as u64 - 1, 1).unwrap()[..], [7]);
    cached.create("part/b", vec![7; len].into()).unwrap();
    assert_eq!(world.files(), Vec::<PathBuf>::new());
}

#[test]
fn a_copy_that_is_damaged_is_none() {
    let world = World::new();
    world.cached().create("part/a", vec![7; 1000].into()).unwrap();
    let path = world.files().pop().unwrap();
    let whole = fs::read(&path).unwrap();
    for damage in [&whole[..0], &whole[..31], &whole[..1000], &[&whole[..], b"x"].concat(), &vec![7; 1032]] {
        fs::write(&path, damage).unwrap();
        world.store.asked();
        let cached = world.cached();
        assert_eq!(cached.read_lasting("part/a", 0, 1000).unwrap()[..], [7; 1000]);
        assert_eq!(world.store.asked(), 1, "{}", damage.len());
        assert_eq!(fs::read(&path).unwrap(), whole);
    }
}

#[test]
fn where_no_copy_can_be_kept_the_store_is_asked() {
    let world = World::new();
    let file = world.root.path().join("file");
    fs::write(&file, "x").unwrap();
    let cached = Cached::new(Arc::clone(&world.store) as Arc<dyn Store>, &file, 1 << 30, rule);
    cached.create("listed/a", "1".into()).unwrap();
    cached.list("listed").unwrap();
    assert_eq!(&read(&cached, "listed/a")[..], b"1");
    assert_eq!(&cached.read_lasting("listed/a", 0, 1).unwrap()[..], b"1");
    assert!(!cached.forget_unseen());
}

#[test]
fn what_counts_unseen_can_be_forgotten_and_nothing_else_is() {
    let world = World::new();
    let cached = world.cached();
    for name in ["listed/a", "part/a", "unseen/a"] {
        cached.create(name, "1".into()).unwrap();
    }
    cached.list("listed").unwrap();
    for name in ["listed/a", "part/a"] {
        read(&cached, name);
    }
    assert!(!cached.forget_unseen(), "nothing was read unseen");
    cached.create("unseen/b", "1".into()).unwrap();
    read(&cached, "unseen/b");
    assert!(cached.forget_unseen() && !cached.forget_unseen());
    world.store.asked();
    for (name, asked) in [("listed/a", 0), ("part/a", 0), ("unseen/a", 1), ("unseen/b", 1)] {
        read(&cached, name);
        assert_eq!(world.store.asked(), asked, "{name}");
    }
}

#[test]
fn copies_take_no_more_room_than_they_may() {
    let world = World::new();
    for (most, room) in [(10 * 4096, 10), (0, 0)] {
        let cached = Cached::new(Arc::clone(&world.store) as Arc<dyn Store>, world.root.path(), most, rule);
        for n in 0..40 {
            cached.create(&format!("part/{most} {n}"), vec![n; 4096 - HASH_LEN as usize].into()).unwrap();
            // One more than are looked at together.
            assert!(world.files().len() <= room + room / 8 + 1, "{n}");
        }
        assert!(most == 0 || world.files().len() > 5);
    }
    assert_eq!(world.files(), Vec::<PathBuf>::new());
}

#[test]
fn the_oldest_go_first() {
    let world = World::new();
    let cached = world.cached();
    for n in 0..8 {
        cached.create(&format!("part/{n}"), vec![n; 4096 - HASH_LEN as usize].into()).unwrap();
        std::thread::sleep(Duration::from_millis(10));
    }
    shrink(world.root.path(), 8 * 4096).unwrap();
    assert_eq!(world.files().len(), 8);
    shrink(world.root.path(), 8 * 4096 - 1).unwrap();
    let mut left: Vec<_> =
        world.files().iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
    left.sort();
    assert_eq!(left.len(), 5);
    assert!(left.contains(&"7".to_owned()), "{left:?}");
}
