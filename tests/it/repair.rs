//! Repairing: what is mended checks clean and restores, what cannot be is told, and what is healthy stays as it is.

mod index;
mod packs;
mod snapshots;
mod wrong;

use crate::support::{Place, files_below, noise};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

type Tree = BTreeMap<PathBuf, Vec<u8>>;

fn tree(folder: &Path) -> Tree {
    let files = files_below(folder).into_iter();
    files.map(|path| (path.strip_prefix(folder).unwrap().to_owned(), fs::read(&path).unwrap())).collect()
}

/// A repository with some days of a table of which a part changes, and of files that come: the newest day's
/// frames rest on those of the days before. The snapshots, and what each holds.
fn days(count: usize) -> (Place, Vec<(String, Tree)>) {
    let place = Place::with_repository();
    let mut all = Vec::new();
    for n in 0..count {
        let mut table: Vec<u8> =
            (0..6000).flat_map(|row| format!("row {row}: {}\n", row * 7919 % 6007).into_bytes()).collect();
        for change in 0..=n {
            let at = change * 37_000 % 90_000;
            table[at..at + 200].copy_from_slice(&noise(&format!("row {change}"), 200));
        }
        place.write("source/table", table);
        place.write(format!("source/new/{n}"), noise(&format!("new {n}"), 30_000));
        let id = place.snapshot(&[])["snapshot"].as_str().unwrap().to_owned();
        all.push((id, tree(&place.path("source"))));
    }
    (place, all)
}

/// A check of all data finds nothing, every snapshot restores on a machine that knows nothing, and a prune runs.
#[track_caller]
fn is_whole(place: &Place, all: &[(String, Tree)]) {
    let checked = place.run(&["check", "--read-data"]).expect_code(0);
    assert!(checked.stdout().contains("no damage"), "{}", checked.stdout());
    for (n, (id, expected)) in all.iter().enumerate() {
        let target = format!("restored/{n}");
        let _ = fs::remove_dir_all(place.path(&target));
        place.run(&["--cache-dir", "fresh", "restore", id, "--target", &target]).expect_code(0);
        assert!(tree(&place.path(&target)) == *expected, "snapshot {id} gives back something else");
    }
    place.run(&["prune"]).expect_code(0);
}

fn largest(files: Vec<PathBuf>) -> PathBuf {
    files.into_iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
}
