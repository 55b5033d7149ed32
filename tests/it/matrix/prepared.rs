//! The repository that every cell begins with: small, with each kind of object in it, and such that
//! some files lie in one pack and others in another.

use crate::support::{Place, Ran, files_below, grow_old, noise};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A file's path below the source, and what it holds.
pub type Files = BTreeMap<&'static str, Vec<u8>>;

/// What each stage adds to the source. The last stage is in no snapshot: cells take it.
const STAGES: [&[&str]; 4] = [&["one/a", "one/b"], &["two/c"], &["three/d"], &["new/e"]];

/// An object's name in the store.
pub type Name = String;

/// The prepared repository, and which object is what.
pub struct Prepared {
    pub place: Place,
    /// The snapshots, oldest first: by the first key, by it again, by the writer, by the second full key.
    pub snapshots: Vec<(String, Files)>,
    /// What the source holds when a cell takes its snapshot.
    pub source: Files,
    /// Packs of chunks, in the order of the stages that made them.
    pub data: Vec<Name>,
    /// Packs of trees, in the same order.
    pub trees: Vec<Name>,
    /// Index objects, in the same order.
    pub indexes: Vec<Name>,
    /// The slot of the key that the cells use.
    pub slot: Name,
    /// The slot of the second full key.
    pub second_slot: Name,
    /// A slot that was deleted with its key, and its bytes.
    pub gone_slot: (Name, Vec<u8>),
    /// Lists of signers, oldest first.
    pub signers: Vec<Name>,
    /// What an interrupted backup left.
    pub session: Name,
    /// A hold on the first snapshot.
    pub hold: Name,
    /// The record of a snapshot that was forgotten.
    pub forgotten: Name,
    /// Records of damage: of a pack that nothing needs, and the newest, that it is whole again; and the pack.
    pub damage: ([Name; 2], Name),
    /// Objects of the other tenant, one of a kind.
    pub other: Other,
}

/// Objects of the other tenant.
pub struct Other {
    pub tenant: Name,
    pub slot: Name,
    pub signers: Name,
    pub session: Name,
    pub data: Name,
    pub tree: Name,
    pub index: Name,
    pub snapshot: Name,
    pub file: Vec<u8>,
}

/// The tenant that the cells damage, and the one beside it.
pub const OURS: &str = "tenants/default/";
pub const THEIRS: &str = "tenants/other/";

impl Prepared {
    pub fn new() -> Self {
        let place = Place::with_repository();
        let expect = |ran: Ran| ran.expect_code(0);
        let slot = objects(&place, OURS, "keys").into_iter().find(|name| !name.contains("signers")).unwrap();
        let add = |role: &str, file: &str| {
            let run =
                || drop(expect(place.run(&["key", "add", "--role", role, "--label", file, "--new-key-file", file])));
            added(&place, OURS, "keys", run).into_iter().find(|name| !name.contains("signers")).unwrap()
        };
        add("writer", "writer");
        let second_slot = add("full", "second");
        // One that is kept on paper, and opens what the others cannot.
        add("full", "paper");
        let gone = add("full", "gone");
        let gone_slot = (gone.clone(), fs::read(place.path("repo").join(&gone)).unwrap());
        expect(place.run(&["key", "remove", "gone"]));
        let other = other(&place);
        let forgotten = forgotten(&place);
        let damage = damaged(&place);

        let mut prepared = Self {
            snapshots: Vec::new(),
            source: Files::new(),
            data: Vec::new(),
            trees: Vec::new(),
            indexes: Vec::new(),
            slot,
            second_slot,
            gone_slot,
            signers: Vec::new(),
            session: Name::new(),
            hold: Name::new(),
            forgotten,
            damage,
            other,
            place,
        };
        for (stage, keys) in STAGES.iter().zip([&["key"][..], &["key", "writer"], &["second"], &[]]) {
            prepared.stage(stage, keys);
        }
        prepared.session = session(&prepared.place, OURS, "key", "default");
        let held = prepared.snapshots[0].0.clone();
        expect(prepared.place.run(&["--cache-dir", "cache", "hold", "add", &held, "--why", "case 17"]));
        prepared.hold = format!("{OURS}holds/{held}");
        let keys = objects(&prepared.place, OURS, "keys");
        prepared.signers = keys.into_iter().filter(|name| name.contains("signers")).collect();
        assert_eq!(prepared.signers.len(), 6, "each change of the keys is a version");
        prepared
    }

    /// Adds files to the source, and takes a snapshot of it with each of the keys.
    fn stage(&mut self, files: &[&'static str], keys: &[&str]) {
        for name in files {
            let bytes = noise(name, 3000);
            grow_old(&self.place.write(format!("source/{name}"), &bytes));
            self.source.insert(name, bytes);
        }
        for (nth, key) in keys.iter().enumerate() {
            let before = objects(&self.place, OURS, "packs");
            let place = &self.place;
            let indexes = added(place, OURS, "index", || {
                let id = taken(place, key, "default", "source");
                self.snapshots.push((id, self.source.clone()));
            });
            let packs: Vec<_> =
                objects(&self.place, OURS, "packs").into_iter().filter(|name| !before.contains(name)).collect();
            if nth > 0 {
                assert!(packs.is_empty() && indexes.is_empty(), "a writer counts what full keys stored");
                continue;
            }
            let (data, tree) = self.place.by_class(&packs);
            self.data.push(data);
            self.trees.push(tree);
            self.indexes.extend(indexes);
        }
    }

    /// The name of a snapshot's object.
    pub fn snapshot(&self, nth: usize) -> Name {
        format!("{OURS}snapshots/{}", self.snapshots[nth].0)
    }
}

impl Place {
    /// Of two packs of one backup of files that do not compress: the data, and the trees.
    fn by_class(&self, packs: &[Name]) -> (Name, Name) {
        let size = |name: &Name| fs::metadata(self.path("repo").join(name)).unwrap().len();
        let [a, b] = packs else { panic!("two packs were expected: {packs:?}") };
        if size(a) > size(b) { (a.clone(), b.clone()) } else { (b.clone(), a.clone()) }
    }
}

/// A stream that is stored and forgotten; what says so.
fn forgotten(place: &Place) -> Name {
    place.write("forgotten", noise("forgotten", 3000));
    let mut command = place.command(&["--cache-dir", "cache", "snapshot", "--stdin", "--name", "gone", "--json"]);
    let input = std::fs::File::open(place.path("forgotten")).unwrap();
    let ran = Ran::of(command.stdin(input)).expect_code(0);
    let id = ran.json()["snapshot"].as_str().unwrap().to_owned();
    place.run(&["--cache-dir", "cache", "forget", &id]).expect_code(0);
    objects(place, OURS, "forgotten").remove(0)
}

/// Damages the largest pack, which nothing needs, and makes it whole again, each time with a check.
fn damaged(place: &Place) -> ([Name; 2], Name) {
    let packs = objects(place, OURS, "packs");
    let size = |name: &&Name| fs::metadata(place.path("repo").join(name)).unwrap().len();
    let pack = packs.iter().max_by_key(size).unwrap().clone();
    let path = place.path("repo").join(&pack);
    let whole = fs::read(&path).unwrap();
    let mut bytes = whole.clone();
    bytes[1200] ^= 1;
    fs::write(&path, bytes).unwrap();
    place.run(&["--cache-dir", "cache", "check", "--read-data"]).expect_code(4);
    fs::write(&path, whole).unwrap();
    place.run(&["--cache-dir", "cache", "check", "--read-data"]).expect_code(0);
    let records = objects(place, OURS, "prune");
    let [first, second] = &records[..] else { panic!("two records were expected: {records:?}") };
    ([first.clone(), second.clone()], pack)
}

/// A tenant of its own key, with one snapshot and an interrupted session.
fn other(place: &Place) -> Other {
    place.run(&["tenant", "add", "other", "--new-key-file", "other"]).expect_code(0);
    let file = noise("theirs", 3000);
    place.write("theirs/file", &file);
    let id = taken(place, "other", "other", "theirs");
    let keys = objects(place, THEIRS, "keys");
    let (signers, slots): (Vec<_>, Vec<_>) = keys.into_iter().partition(|name| name.contains("signers"));
    let (data, tree) = place.by_class(&objects(place, THEIRS, "packs"));
    Other {
        tenant: format!("{THEIRS}tenant"),
        slot: slots[0].clone(),
        signers: signers[0].clone(),
        session: session(place, THEIRS, "other", "other"),
        data,
        tree,
        index: objects(place, THEIRS, "index").remove(0),
        snapshot: format!("{THEIRS}snapshots/{id}"),
        file,
    }
}

/// Takes a snapshot of a folder; its id.
fn taken(place: &Place, key: &str, tenant: &str, folder: &str) -> String {
    let mut command = place.command_in(folder, &["--cache-dir", "../cache", "-t", tenant, "snapshot", ".", "--json"]);
    let ran = Ran::of(command.env("ESTRATO_KEY_FILE", place.path(key))).expect_code(0);
    ran.json()["snapshot"].as_str().unwrap().to_owned()
}

/// Leaves a session object behind as a backup does that is killed.
fn session(place: &Place, tenant: &str, key: &str, name: &str) -> Name {
    let mut command = place.command(&["--cache-dir", "cache", "-t", name, "snapshot", "--stdin", "--name", "x"]);
    command.env("ESTRATO_KEY_FILE", key).stdin(std::process::Stdio::piped());
    let mut child = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    // It waits for its input, and is killed there.
    while objects(place, tenant, "sessions").is_empty() {
        assert!(child.try_wait().unwrap().is_none(), "it has ended before");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    objects(place, tenant, "sessions").remove(0)
}

/// The names of objects in a tenant's folder, sorted.
fn objects(place: &Place, tenant: &str, folder: &str) -> Vec<Name> {
    let repo = place.path("repo");
    let below = files_below(&repo.join(tenant).join(folder));
    let name = |path: &PathBuf| path.strip_prefix(&repo).unwrap().to_str().unwrap().to_owned();
    below.iter().map(name).filter(|name| !name.contains('#')).collect()
}

/// The objects that are there after `run` and were not before.
fn added(place: &Place, tenant: &str, folder: &str, run: impl FnOnce()) -> Vec<Name> {
    let before = objects(place, tenant, folder);
    run();
    objects(place, tenant, folder).into_iter().filter(|name| !before.contains(name)).collect()
}

/// Gives a folder's files a second name in another folder: objects are replaced, and never written into.
pub fn link(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            link(&entry.path(), &to);
        } else {
            fs::hard_link(entry.path(), to).unwrap();
        }
    }
}

/// Copies a folder with all that is in it.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}
