//! What a restore reads is known before it: the plan names every pack of data that is read, and no other,
//! and reads none; what was warmed up by it is all that the restore needs.

use crate::support::{Place, Ran, files_below, noise};
use bytes::Bytes;
use estrato::clock::SystemClock;
use estrato::crypto::keyfile::KeyFile;
use estrato::crypto::slot::Credential;
use estrato::error::StoreError;
use estrato::format::content::Content;
use estrato::format::pack::StorageClass;
use estrato::monitor::Silent;
use estrato::repo::{Access, Repository};
use estrato::restore::{self, Needs, Options};
use estrato::snapshot::{self, Filter};
use estrato::store::{Listed, Local, Store};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Counts the bytes that are read of every object.
struct Counted {
    inner: Local,
    read: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl Counted {
    fn note(&self, name: &str, bytes: &Bytes) {
        *self.read.lock().unwrap().entry(name.to_owned()).or_default() += bytes.len() as u64;
    }
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
        self.inner.read(name, max).inspect(|bytes| self.note(name, bytes))
    }
    fn read_range(&self, name: &str, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        self.inner.read_range(name, offset, len).inspect(|bytes| self.note(name, bytes))
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

/// A repository that is open, and what was read of its data.
struct Opened {
    repo: Repository,
    read: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl Opened {
    /// On a machine that keeps its state in `cache`, or nothing.
    fn new(place: &Place, cache: Option<&Path>) -> Self {
        let key = KeyFile::from_text(&fs::read_to_string(place.path("key")).unwrap()).unwrap();
        let read = Arc::default();
        let store = Arc::new(Counted { inner: Local::new(place.path("repo")).unwrap(), read: Arc::clone(&read) });
        let (clock, credential) = (Arc::new(SystemClock::default()), Credential::KeyFile(key));
        let cache = cache.map(Path::to_path_buf);
        let repo = Repository::open(Access { store, clock, tenant: "default".into(), credential, cache }).unwrap();
        assert!(repo.sync_index().unwrap().is_empty());
        Self { repo, read }
    }

    fn root(&self, name: &str) -> Content {
        snapshot::list(&self.repo).unwrap().choose(name, &Filter::default()).unwrap().manifest.root.clone()
    }

    fn needs(&self, root: &Content, options: &Options) -> Needs {
        self.read.lock().unwrap().clear();
        let needs = restore::needs(&self.repo, root, None, options, &Silent).unwrap();
        assert!(self.data_read().is_empty(), "a plan reads no data");
        assert_eq!((needs.failures, &*needs.failed), (0, &[][..]));
        needs
    }

    /// The packs of data of which something was read, and how much.
    fn data_read(&self) -> BTreeMap<String, u64> {
        let classes: HashMap<String, StorageClass> = self
            .repo
            .index()
            .packs()
            .unwrap()
            .iter()
            .map(|pack| {
                let map = self.repo.index().pack(pack.number).unwrap().unwrap();
                (self.repo.names().pack(&pack.name), map.frames()[0].1.kind.class())
            })
            .collect();
        let read = self.read.lock().unwrap().clone();
        read.into_iter().filter(|(name, _)| classes.get(name) == Some(&StorageClass::Data)).collect()
    }

    /// Restores, and says what was read of which packs of data.
    fn restore(&self, root: &Content, options: &Options) -> BTreeMap<String, u64> {
        self.read.lock().unwrap().clear();
        let target = tempfile::tempdir().unwrap();
        let outcome = restore::run(&self.repo, root, None, target.path(), options, &Silent).unwrap();
        assert_eq!(outcome.failed, Vec::<String>::new());
        self.data_read()
    }
}

fn data(needs: &Needs) -> BTreeSet<String> {
    needs.data().map(|need| need.object.clone()).collect()
}

/// Lines of a table, and some of them changed by a day.
fn table(day: u32) -> String {
    (0..60_000).map(|n| format!("{n};{};{}\n", n * 7919, if n % 500 == day { day } else { 0 })).collect()
}

/// A source with files of all kinds, as it was on four days.
fn four_days() -> Place {
    let place = Place::with_repository();
    place.write("source/large", noise("large", 18_000_000));
    place.write("source/twice/first", noise("linked", 300_000));
    fs::hard_link(place.path("source/twice/first"), place.path("source/twice/second")).unwrap();
    std::os::unix::fs::symlink("first", place.path("source/twice/link")).unwrap();
    place.write("source/empty", "");
    for day in 0..4 {
        place.write("source/table", table(day));
        place.write(format!("source/days/{day}"), noise(&format!("day {day}"), 700_000));
        place.snapshot(&["--quiet"]);
    }
    place
}

#[test]
fn the_plan_names_what_a_restore_reads_and_reads_no_data() {
    let place = four_days();
    // Decoded frames are kept: each restore begins with none.
    let plain = Options::default();
    let of = |include: &[&str], exclude: &[&str]| {
        let list = |patterns: &[&str]| patterns.iter().map(|p| (*p).to_owned()).collect();
        Options { include: list(include), exclude: list(exclude), ..Options::default() }
    };
    let mut counts = Vec::new();
    let mut sums = Vec::new();
    for (name, options) in [
        ("latest", plain.clone()),
        ("latest~3", plain),
        ("latest", of(&["/table"], &[])),
        ("latest", of(&[], &["/large"])),
        ("latest", of(&["/days"], &["2"])),
        ("latest", of(&["/empty"], &[])),
        ("latest", of(&["/nothing"], &[])),
    ] {
        let opened = Opened::new(&place, None);
        let root = opened.root(name);
        let needs = opened.needs(&root, &options);
        let read = opened.restore(&root, &Options { warmed: Some(Arc::clone(&needs.frames)), ..options.clone() });
        assert_eq!(read.keys().cloned().collect::<BTreeSet<_>>(), data(&needs), "{name} {options:?}");
        for need in needs.data() {
            let read = read[&need.object];
            assert!(need.read <= read && need.read <= need.size, "{need:?}, and {read} were read");
            let file = fs::metadata(place.path("repo").join(&need.object)).unwrap();
            assert_eq!(need.size, file.len());
        }
        assert!(needs.packs.iter().any(|need| need.class == StorageClass::Trees));
        counts.push(needs.data().count());
        sums.push(needs.data().map(|need| need.read).sum::<u64>());
    }
    // The table of the last day rests on those before; what is left out is not read.
    assert!(counts[0] > counts[1] && counts[2] >= 2, "{counts:?}");
    assert!(sums[0] - sums[3] > 17_000_000 && sums[2] < 2_000_000, "{sums:?}");
    assert!(sums[4] > 2_000_000 && sums[4] < 3_000_000, "three days: {sums:?}");
    assert_eq!(counts[5..], [0, 0]);
}

/// Copies what one repository has and the other has not.
fn merge(from: &Path, to: &Path) {
    for file in files_below(from) {
        let to = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        if !to.exists() {
            fs::copy(file, to).unwrap();
        }
    }
}

#[test]
fn of_several_copies_that_one_is_read_which_was_warmed_up() {
    let place = Place::with_repository();
    let fork = place.path("fork");
    merge(&place.path("repo"), &fork);
    // The same blob in two packs, of which one holds more: neither writer knew of the other.
    place.write("source/z/shared", noise("shared", 400_000));
    place.snapshot(&["--quiet"]);
    let cache = place.path("cache of a reader");
    // The pack of one blob is the first that the reader knows.
    drop(Opened::new(&place, Some(&cache)));
    place.write("source/a", noise("more", 400_000));
    // So many folders that a restore writes a round before it comes to what is shared.
    for n in 0..600 {
        place.write(format!("source/folder/{n}/small"), "");
    }
    let arguments = ["--cache-dir", "another", "snapshot", ".", "--quiet"];
    Ran::of(place.command_in("source", &arguments).env("ESTRATO_REPO", &fork)).expect_code(0);
    merge(&fork, &place.path("repo"));
    let opened = Opened::new(&place, Some(&cache));
    let root = opened.root("latest");
    let needs = opened.needs(&root, &Options::default());
    assert_eq!(needs.data().count(), 1, "all of it lies in one pack: {:?}", needs.packs);
    let warmed = Options { warmed: Some(Arc::clone(&needs.frames)), ..Options::default() };
    assert_eq!(opened.restore(&root, &warmed).into_keys().collect::<BTreeSet<_>>(), data(&needs));
    // Else the other copy would be read too: this test tries what it says.
    let again = Opened::new(&place, Some(&cache));
    assert_eq!(again.restore(&root, &Options::default()).len(), 2);
}

#[test]
fn a_plan_is_printed_and_nothing_is_made() {
    let place = four_days();
    let before = files_below(&place.path("repo"));
    let ran = place.run(&["restore", "latest", "--plan", "--target", "out"]).expect_code(0);
    let planned = place.run(&["restore", "latest", "--plan", "--json"]).expect_code(0).json();
    assert!(!place.path("out").exists());
    assert_eq!(files_below(&place.path("repo")), before);
    let packs = planned["plan"]["packs"].as_array().unwrap();
    assert!(packs.len() >= 5, "{planned}");
    for kind in ["data", "trees"] {
        let of_kind: Vec<_> = packs.iter().filter(|pack| pack["kind"] == kind).collect();
        let sum = |what: &str| of_kind.iter().map(|pack| pack[what].as_u64().unwrap()).sum::<u64>();
        let sums = &planned["plan"][kind];
        assert_eq!(sums["packs"], of_kind.len());
        assert_eq!((sums["read"].as_u64(), sums["size"].as_u64()), (Some(sum("read")), Some(sum("size"))));
        assert!(!of_kind.is_empty());
    }
    let out = ran.stdout();
    for pack in packs {
        let object = pack["object"].as_str().unwrap();
        assert!(place.path("repo").join(object).exists());
        assert!(
            out.lines().any(|line| line.starts_with(object) && line.contains(pack["kind"].as_str().unwrap())),
            "{out}"
        );
    }
    assert!(out.lines().last().unwrap().starts_with("a restore from snapshot "), "{out}");
    // A part of it, by its path.
    let part = place.run(&["restore", "latest:twice/second", "--plan", "--json"]).expect_code(0).json();
    assert_eq!(part["plan"]["data"]["packs"], 1);
    let none = place.run(&["restore", "latest:empty", "--plan", "--json"]).expect_code(0).json();
    assert_eq!(none["plan"]["data"]["packs"], 0);
    // What is known to be lost is told.
    for object in place.objects("index") {
        fs::remove_file(object).unwrap();
    }
    let lost = place.run(&["--cache-dir", "new", "restore", "latest", "--plan"]).expect_code(1);
    assert!(lost.stderr().contains("no index object names"), "{}", lost.stderr());
}

/// The packs of data that a plan names, as the program prints it.
fn planned(place: &Place, snapshot: &str) -> BTreeSet<String> {
    let plan = place.run(&["restore", snapshot, "--plan", "--json"]).expect_code(0).json();
    let packs = plan["plan"]["packs"].as_array().unwrap().iter().filter(|pack| pack["kind"] == "data");
    packs.map(|pack| pack["object"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_warm_up_is_given_every_pack_before_anything_is_restored() {
    let place = four_days();
    let script = "test ! -e out && cat >> names && echo \"$ESTRATO_REPO\" > where && echo heard";
    let arguments =
        ["restore", "latest", "--target", "out", "--json", "--warm-up-command", script, "--warm-up-wait", "0"];
    let ran = place.run(&arguments).expect_code(0);
    assert_eq!(ran.json()["outcome"]["failures"], 0);
    assert!(ran.stderr().contains("heard"), "what it prints is no result: {}", ran.stderr());
    let names = fs::read_to_string(place.path("names")).unwrap();
    assert_eq!(names.lines().map(str::to_owned).collect::<BTreeSet<_>>(), planned(&place, "latest"));
    assert_eq!(names.lines().count(), planned(&place, "latest").len(), "each once");
    assert_eq!(fs::read_to_string(place.path("where")).unwrap(), "repo\n");
    assert_eq!(fs::read(place.path("out/large")).unwrap(), noise("large", 18_000_000));
    // Where no data is needed nobody is asked.
    let arguments =
        ["restore", "latest:empty", "--target", "out", "--warm-up-command", "false", "--warm-up-wait", "1h"];
    place.run(&arguments).expect_code(0);
    // One that fails keeps everything from being restored.
    let ran = place.run(&["restore", "latest", "--target", "none", "--warm-up-command", "exit 3"]).expect_code(1);
    assert!(ran.stderr().contains("the warm-up command failed (exit status: 3); nothing was restored"));
    assert!(!place.path("none").exists());
    for wrong in [&["--plan"][..], &["--dry-run"]] {
        let arguments = [&["restore", "latest", "--target", "none", "--warm-up-command", "true"], wrong].concat();
        place.run(&arguments).expect_code(2);
    }
    place.run(&["restore", "latest", "--target", "none", "--warm-up-wait", "5m"]).expect_code(2);
}

#[test]
fn an_interrupt_ends_a_warm_up_and_the_wait() {
    let place = Place::with_repository();
    place.write("source/a", noise("a", 10_000));
    place.snapshot(&["--quiet"]);
    for (script, wait) in [("touch started; sleep 1000 & echo $! > sleeper; wait", "0"), ("touch started", "1h")] {
        let arguments = ["restore", "latest", "--target", "out", "--warm-up-command", script, "--warm-up-wait", wait];
        let mut child = place.command(&arguments).spawn().unwrap();
        while !place.path("started").exists() || (wait == "0" && !place.path("sleeper").exists()) {
            assert!(child.try_wait().unwrap().is_none(), "it has ended, and was not asked to");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        fs::remove_file(place.path("started")).unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{script}");
        assert!(!place.path("out").exists());
    }
    // What the command had started went with it.
    let sleeper = fs::read_to_string(place.path("sleeper")).unwrap();
    let state = fs::read_to_string(format!("/proc/{}/stat", sleeper.trim())).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "{state}");
}
