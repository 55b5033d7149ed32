//! What is left when the machine or the process goes away in the middle, or the disk is full: what
//! was reported is there, and the next run goes on, though nobody has cleaned up.

mod cuts;
mod forgetful;
mod full;
mod kills;
mod mount;

use crate::support::{files_below, is_long};
use std::path::Path;

/// Some of these, spread evenly, with the first and the last; all of them in a long run.
fn sample<T: Copy>(all: &[T], some: usize) -> Vec<T> {
    if is_long() || all.len() <= some {
        return all.to_vec();
    }
    (0..some).map(|n| all[n * (all.len() - 1) / (some - 1)]).collect()
}

/// The id of the snapshot that a run with `--json` reported, if it did.
fn reported(stdout: &str) -> Option<String> {
    let document: serde_json::Value = serde_json::from_str(stdout).ok()?;
    Some(document["snapshot"].as_str()?.to_owned())
}

/// Copies a folder, over what may be there.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in files_below(from) {
        let at = to.join(file.strip_prefix(from).unwrap());
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        std::fs::copy(file, at).unwrap();
    }
}

/// Panics unless both folders hold the same files with the same bytes.
#[track_caller]
fn assert_same(expected: &Path, found: &Path) {
    let names = |folder: &Path| -> Vec<_> {
        files_below(folder).into_iter().map(|file| file.strip_prefix(folder).unwrap().to_path_buf()).collect()
    };
    assert_eq!(names(expected), names(found), "{} against {}", expected.display(), found.display());
    for name in names(expected) {
        let same = std::fs::read(expected.join(&name)).unwrap() == std::fs::read(found.join(&name)).unwrap();
        assert!(same, "{} is not what it was", found.join(&name).display());
    }
}
