//! Local state: lost, old, copied from elsewhere, damaged, not to be written, shared. Whatever becomes
//! of it, the repository is the same, only slower.

mod bounds;
mod damage;
mod elsewhere;
mod privacy;
mod sharing;
mod unusable;

use crate::support::{Place, Ran, files_below, grow_old, noise};
use estrato::clock::SystemClock;
use estrato::crypto::keyfile::KeyFile;
use estrato::crypto::slot::Credential;
use estrato::repo::{Access, Repository};
use estrato::store::{self, Store};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A repository with two snapshots of a source with files of all sizes, and the cache that came of it.
struct Kept {
    place: Place,
}

impl Kept {
    fn new() -> Self {
        let place = Place::with_repository();
        place.write("source/large", noise("large", 400_000));
        place.write("source/text", "the same line again\n".repeat(4000));
        for n in 0..20 {
            place.write(format!("source/folder {}/small {n}", n % 4), noise(&format!("small {n}"), 500 + n * 900));
        }
        let kept = Self { place };
        kept.snapshot();
        kept.place.write("source/folder 1/later", noise("later", 50_000));
        kept.snapshot();
        kept
    }

    /// A snapshot of the source, whole and without a word.
    #[track_caller]
    fn snapshot(&self) -> serde_json::Value {
        self.settle();
        let ran = self.run_snapshot(&[]);
        assert_eq!(ran.stderr(), "");
        ran.json()["manifest"].clone()
    }

    /// A snapshot; `--quiet` leaves warnings, but that the repository lies on the same disk.
    #[track_caller]
    fn run_snapshot(&self, more: &[&str]) -> Ran {
        let arguments = [&["snapshot", ".", "--json", "--quiet"], more].concat();
        Ran::of(&mut self.place.command_in("source", &arguments)).expect_code(0)
    }

    /// Waits until every file's times will be believed.
    fn settle(&self) {
        for file in files_below(&self.place.path("source")) {
            grow_old(&file);
        }
    }

    /// The cache's root.
    fn root(&self) -> PathBuf {
        self.place.path(".cache/estrato")
    }

    /// The tenant's folder in the cache.
    fn cache(&self) -> PathBuf {
        tenant_folder(&self.root())
    }

    /// The notes of the source.
    fn notes(&self) -> PathBuf {
        let is_notes = |p: &PathBuf| p.extension().is_some_and(|e| e == "db") && p.file_name().unwrap() != "index.db";
        files_below(&self.cache()).into_iter().find(is_notes).expect("there are no notes")
    }

    /// That every snapshot comes back byte for byte, and all is sound, with the cache as it is.
    #[track_caller]
    fn expect_whole(&self) {
        self.expect_restored(&[]);
        let check = self.place.run(&["check", "--read-data"]).expect_code(0);
        assert_eq!(check.stderr(), "", "what was wrong is told once");
    }

    /// That the newest snapshot is what the source is now; returns what was told.
    #[track_caller]
    fn expect_restored(&self, more: &[&str]) -> String {
        let target = self.place.path("out");
        if target.exists() {
            fs::remove_dir_all(&target).unwrap();
        }
        let ran =
            self.place.run(&[more, &["restore", "latest", "--target", "out", "--verify"]].concat()).expect_code(0);
        expect_equal(&self.place.path("source"), &target);
        ran.stderr()
    }
}

/// The repository through the library, over a store of the test's own.
fn opened(place: &Place, cache: Option<&Path>, over: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>) -> Repository {
    let key = KeyFile::from_text(&fs::read_to_string(place.path("key")).unwrap()).unwrap();
    let access = Access {
        store: over(store::open(place.path("repo").to_str().unwrap()).unwrap()),
        clock: Arc::new(SystemClock::default()),
        tenant: "default".into(),
        credential: Credential::KeyFile(key),
        cache: cache.map(Path::to_path_buf),
    };
    Repository::open(access).unwrap()
}

/// How many warnings a program gave.
fn warnings(told: &str) -> usize {
    told.lines().filter(|line| line.starts_with("warning:") || line.starts_with("{\"warning\"")).count()
}

/// The only tenant's folder below a cache's root.
fn tenant_folder(root: &Path) -> PathBuf {
    let is_id = |p: &PathBuf| p.is_dir() && p.file_name().unwrap().len() == 32;
    let only = |folder: &Path| {
        let mut found: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).filter(is_id).collect();
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    };
    only(&only(root))
}

/// That two folders hold the same files.
#[track_caller]
fn expect_equal(left: &Path, right: &Path) {
    let all = |root: &Path| -> Vec<(PathBuf, Vec<u8>)> {
        let files = files_below(root).into_iter();
        files.map(|p| (p.strip_prefix(root).unwrap().to_path_buf(), fs::read(&p).unwrap())).collect()
    };
    let (left, right) = (all(left), all(right));
    let names = |all: &[(PathBuf, Vec<u8>)]| all.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&left), names(&right));
    for ((name, left), (_, right)) in left.iter().zip(&right) {
        assert!(left == right, "{} differs", name.display());
    }
}

/// Copies a folder and all in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in files_below(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(&file, &target).unwrap();
    }
}

/// Puts a copy of a cache in the place of another, or nothing.
fn replace(cache: &Path, with: Option<&Path>) {
    if cache.exists() {
        fs::remove_dir_all(cache).unwrap();
    }
    if let Some(with) = with {
        copy(with, cache);
    }
}
