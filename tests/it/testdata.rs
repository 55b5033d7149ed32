//! The repositories in `testdata/repos`: every one of each format opens, checks and restores.

use crate::support::{Place, Ran};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

fn folders(of: &Path) -> BTreeSet<String> {
    fs::read_dir(of).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

fn repositories() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/repos")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// As `examples/make_testdata.rs` lists a folder.
fn list(root: &Path, folder: &Path, out: &mut String) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let meta = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().escape_ascii().to_string();
        let mode = meta.mode() & 0o7777;
        if meta.is_dir() {
            out.push_str(&format!("{name} dir {mode:04o}\n"));
            list(root, &path, out);
        } else if meta.is_symlink() {
            out.push_str(&format!("{name} link {}\n", fs::read_link(&path).unwrap().display()));
        } else {
            let hash = blake3::hash(&fs::read(&path).unwrap());
            let time = format!("{}.{:09}", meta.mtime(), meta.mtime_nsec());
            out.push_str(&format!("{name} file {mode:04o} {} {time} {}\n", meta.len(), &hash.to_hex()[..32]));
        }
    }
}

fn run(place: &Place, key: &[&str], arguments: &[&str]) -> Ran {
    let mut command = place.command(&[key, arguments].concat());
    command.env_remove("ESTRATO_KEY_FILE");
    Ran::of(&mut command)
}

fn restores(place: &Place, key: &[&str], tenant: &str, tag: &str) {
    let out = format!("out-{tag}-{}", key[0].trim_start_matches('-'));
    let restore = ["-t", tenant, "restore", "latest", "--tag", tag, "--numeric-owner", "--target", &out];
    run(place, key, &restore).expect_code(0);
    let mut found = String::new();
    list(&place.path(&out), &place.path(&out), &mut found);
    assert_eq!(found, fs::read_to_string(place.path("expected").join(tag)).unwrap(), "{tag}");
}

/// What each repository is to hold, lest it be made anew with less.
fn holds_every_feature(place: &Place) {
    let json = |arguments: &[&str]| run(place, &["--key-file", "key"], arguments).expect_code(0).json();
    let stats = json(&["stats", "--json"]);
    let frames = stats["frames"].as_array().unwrap();
    for depth in [1, 2] {
        assert!(frames.iter().any(|f| f["depths"][depth].as_u64() > Some(0)), "depth {depth}: {stats}");
    }
    let keys = json(&["key", "list", "--json"]);
    assert!(keys.as_array().unwrap().iter().any(|key| !key["removed"].is_null()), "{keys}");
    let snapshots = json(&["snapshots", "--json"]);
    assert!(snapshots.as_array().unwrap().iter().any(|s| !s["manifest"]["base"].is_null()), "{snapshots}");
    assert_eq!(json(&["hold", "list", "--json"]).as_array().unwrap().len(), 1);
    assert_eq!((place.objects("forgotten").len(), place.objects("prune").len()), (1, 1));
    let listed = place.objects("snapshots").len();
    assert_eq!(listed, snapshots.as_array().unwrap().len() + 1, "and a tombstone");
}

#[test]
fn every_repository_restores() {
    assert_eq!(folders(&repositories()), BTreeSet::from(["v0".to_owned()]), "a format lies here that no test reads");
    let known = BTreeSet::from(["aes-256-gcm".to_owned(), "chacha20-poly1305".to_owned()]);
    assert_eq!(folders(&repositories().join("v0")), known, "one for each cipher, and no other");
    for name in known {
        let place = Place::new();
        copy(&repositories().join("v0").join(&name), &place.path(""));
        let key = ["--key-file", "key"];
        for tenant in ["default", "second"] {
            run(&place, &key, &["-t", tenant, "check", "--read-data"]).expect_code(0);
        }
        for tag in ["first", "changed", "third", "differential", "by-writer", "by-removed"] {
            restores(&place, &key, "default", tag);
        }
        restores(&place, &key, "second", "second");
        restores(&place, &["--password-file", "password"], "default", "changed");
        restores(&place, &["--key-file", "recipient-key"], "default", "third");
        holds_every_feature(&place);
        run(&place, &["--key-file", "writer-key"], &["snapshots"]).expect_code(12);
    }
}
