//! What an incremental, a differential and a full snapshot read, store and count.

use super::tree::{noise, prose, same_tree, set_mtime};
use super::{let_times_grow_old, place, summary};
use crate::support::{Place, Ran};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::time::SystemTime;

/// Size of each file of [`aged`].
const SIZE: u64 = 100_000;

/// A place whose source holds four files of 100 kB, old enough not to be read again, and a first snapshot.
fn aged() -> (Place, Value) {
    let place = place();
    fs::create_dir_all(place.path("source/folder/below")).unwrap();
    for (number, name) in ["one", "two", "folder/three", "folder/below/four"].iter().enumerate() {
        fs::write(place.path("source").join(name), noise(number as u64, SIZE as usize)).unwrap();
    }
    let_times_grow_old();
    let first = place.snapshot(&[]);
    assert_eq!(summary(&first, &["read_bytes"]), 4 * SIZE);
    (place, first)
}

/// Entries and bytes added, changed and removed.
fn counts(document: &Value) -> [(u64, u64); 3] {
    ["added", "changed", "removed"]
        .map(|what| (summary(document, &[what, "entries"]), summary(document, &[what, "bytes"])))
}

fn kind(document: &Value) -> &str {
    document["manifest"]["kind"].as_str().unwrap()
}

#[track_caller]
fn is_restored(place: &Place) {
    place.restore("out", &["--delete", "--verify"]);
    same_tree(&place.path("source"), &place.path("out"));
}

#[test]
fn what_did_not_change_is_not_read_again() {
    let (place, first) = aged();
    assert_eq!((kind(&first), &first["manifest"]["base"]), ("full", &Value::Null));
    let second = place.snapshot(&[]);
    assert_eq!((kind(&second), &second["manifest"]["base"]), ("incremental", &first["snapshot"]));
    assert_eq!(summary(&second, &["read_bytes"]), 0);
    assert_eq!((summary(&second, &["new_bytes"]), summary(&second, &["stored_bytes"])), (0, 0));
    assert_eq!(counts(&second), [(0, 0); 3]);
    assert_eq!(summary(&second, &["total", "entries"]), 6);
    assert_eq!(summary(&second, &["total", "bytes"]), 4 * SIZE);
    is_restored(&place);
}

#[test]
fn without_local_state_a_full_key_reads_the_trees_of_the_snapshot_before() {
    let (place, first) = aged();
    let second = place.snapshot(&["--cache-dir", place.path("other").to_str().unwrap()]);
    assert_eq!(second["manifest"]["base"], first["snapshot"]);
    assert_eq!((summary(&second, &["read_bytes"]), summary(&second, &["new_bytes"])), (0, 0));
    assert_eq!(counts(&second), [(0, 0); 3]);
    fs::write(place.path("source/folder/three"), "short").unwrap();
    fs::remove_dir_all(place.path("source/folder/below")).unwrap();
    let third = place.snapshot(&["--cache-dir", place.path("third").to_str().unwrap()]);
    assert_eq!(third["manifest"]["base"], second["snapshot"]);
    assert_eq!(summary(&third, &["read_bytes"]), 5);
    assert_eq!(counts(&third)[2], (2, SIZE));
    is_restored(&place);
}

#[test]
fn without_local_state_a_writer_key_reads_everything_and_stores_nothing_again() {
    let (place, _) = aged();
    place.run(&["key", "add", "--role", "writer", "--new-key-file", "writer"]).expect_code(0);
    let cache = place.path("of the writer");
    let mut command =
        place.command_in("source", &["snapshot", ".", "--json", "--cache-dir", cache.to_str().unwrap()]);
    let taken = Ran::of(command.env("ESTRATO_KEY_FILE", place.path("writer"))).expect_code(0).json();
    assert_eq!(summary(&taken, &["read_bytes"]), 4 * SIZE);
    assert_eq!(summary(&taken, &["new_bytes"]), 0);
    // With its own state it reads nothing any more.
    let again = Ran::of(command.env("ESTRATO_KEY_FILE", place.path("writer"))).expect_code(0).json();
    assert_eq!(again["manifest"]["base"], taken["snapshot"]);
    assert_eq!((summary(&again, &["read_bytes"]), summary(&again, &["new_bytes"])), (0, 0));
    is_restored(&place);
}

#[test]
fn damaged_local_state_costs_reading_and_nothing_else() {
    let (place, _) = aged();
    let mut spoilt = 0;
    let mut folders = vec![place.path(".cache")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|e| e == "db") {
                fs::write(entry, noise(9, 30_000)).unwrap();
                spoilt += 1;
            }
        }
    }
    assert!(spoilt >= 1);
    let second = place.snapshot(&[]);
    assert_eq!(summary(&second, &["new_bytes"]), 0);
    is_restored(&place);
    place.run(&["check", "--read-data"]).expect_code(0);
}

#[test]
fn a_file_no_older_than_the_snapshot_before_is_read_again() {
    let (place, _) = aged();
    let ahead = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64 + 3600;
    set_mtime(&place.path("source/one"), ahead, 5);
    let_times_grow_old();
    place.snapshot(&[]);
    for _ in 0..2 {
        let again = place.snapshot(&[]);
        assert_eq!(summary(&again, &["read_bytes"]), SIZE);
        assert_eq!((counts(&again), summary(&again, &["new_bytes"])), ([(0, 0); 3], 0));
    }
}

#[test]
fn a_change_right_after_a_snapshot_is_picked_up() {
    let (place, _) = aged();
    let path = place.path("source/one");
    for round in 0..10 {
        let stat = fs::metadata(&path).unwrap();
        fs::File::options().write(true).open(&path).unwrap().write_all_at(&noise(100 + round, 1000), 0).unwrap();
        set_mtime(&path, stat.mtime(), stat.mtime_nsec());
        place.snapshot(&[]);
        place.restore("out", &[]);
        assert!(fs::read(&path).unwrap() == fs::read(place.path("out/one")).unwrap(), "round {round}");
    }
}

#[test]
fn a_change_that_keeps_size_and_mtime_is_picked_up() {
    let (place, _) = aged();
    let path = place.path("source/one");
    let stat = fs::metadata(&path).unwrap();
    fs::File::options().write(true).open(&path).unwrap().write_all_at(b"other", 50_000).unwrap();
    set_mtime(&path, stat.mtime(), stat.mtime_nsec());
    let taken = place.snapshot(&[]);
    assert_eq!(summary(&taken, &["read_bytes"]), SIZE);
    assert_eq!(counts(&taken), [(0, 0), (1, SIZE), (0, 0)]);
    is_restored(&place);
}

#[test]
fn a_file_replaced_by_one_of_the_same_size_and_time_is_picked_up() {
    let (place, _) = aged();
    let path = place.path("source/two");
    let stat = fs::metadata(&path).unwrap();
    fs::write(place.path("new"), noise(77, SIZE as usize)).unwrap();
    set_mtime(&place.path("new"), stat.mtime(), stat.mtime_nsec());
    fs::rename(place.path("new"), &path).unwrap();
    assert_eq!(counts(&place.snapshot(&[])), [(0, 0), (1, SIZE), (0, 0)]);
    is_restored(&place);
}

#[test]
fn a_file_that_was_only_touched_is_read_and_its_data_not_stored_again() {
    let (place, _) = aged();
    set_mtime(&place.path("source/folder/below/four"), 1_000_000_000, 1);
    let taken = place.snapshot(&[]);
    assert_eq!(summary(&taken, &["read_bytes"]), SIZE);
    assert_eq!(counts(&taken)[1].1, SIZE);
    assert!(summary(&taken, &["new_bytes"]) < 5000, "only trees are new: {taken}");
    is_restored(&place);
}

#[test]
fn changes_of_mode_links_and_attributes_alone_come_back() {
    let (place, _) = aged();
    let source = place.path("source");
    super::mode(&source.join("one"), 0o400);
    super::mode(&source.join("folder/below"), 0o711);
    fs::hard_link(source.join("two"), source.join("folder/two")).unwrap();
    // An attribute is no reason to fail where there are none.
    let _ = rustix::fs::lsetxattr(source.join("folder"), "user.x", b"y", rustix::fs::XattrFlags::empty());
    let taken = place.snapshot(&[]);
    assert!(summary(&taken, &["new_bytes"]) < 5000, "{taken}");
    is_restored(&place);
    fs::remove_file(source.join("two")).unwrap();
    place.snapshot(&[]);
    is_restored(&place);
}

#[test]
fn a_renamed_folder_stores_no_data_again() {
    let (place, _) = aged();
    fs::rename(place.path("source/folder"), place.path("source/renamed")).unwrap();
    let taken = place.snapshot(&[]);
    assert_eq!(counts(&taken), [(4, 2 * SIZE), (0, 0), (4, 2 * SIZE)]);
    assert!(summary(&taken, &["new_bytes"]) < 5000, "{taken}");
    is_restored(&place);
    fs::rename(place.path("source/renamed"), place.path("source/folder")).unwrap();
    assert_eq!(counts(&place.snapshot(&[])), [(4, 2 * SIZE), (0, 0), (4, 2 * SIZE)]);
    is_restored(&place);
}

#[test]
fn a_file_becomes_a_folder_and_a_folder_a_file() {
    let (place, _) = aged();
    let source = place.path("source");
    for _ in 0..2 {
        fs::remove_file(source.join("one")).unwrap();
        fs::create_dir(source.join("one")).unwrap();
        fs::write(source.join("one/in it"), "12345").unwrap();
        fs::remove_dir_all(source.join("folder")).unwrap();
        fs::write(source.join("folder"), "123").unwrap();
        let taken = place.snapshot(&[]);
        assert_eq!(counts(&taken), [(1, 5), (2, 3), (3, 2 * SIZE)]);
        is_restored(&place);
        // And back again.
        fs::remove_dir_all(source.join("one")).unwrap();
        fs::write(source.join("one"), noise(0, SIZE as usize)).unwrap();
        fs::remove_file(source.join("folder")).unwrap();
        fs::create_dir_all(source.join("folder/below")).unwrap();
        for name in ["folder/three", "folder/below/four"] {
            fs::write(source.join(name), noise(8, SIZE as usize)).unwrap();
        }
        let taken = place.snapshot(&[]);
        assert_eq!(counts(&taken), [(3, 2 * SIZE), (2, SIZE), (1, 5)]);
        is_restored(&place);
    }
    std::os::unix::fs::symlink("two", source.join("link")).unwrap();
    place.snapshot(&[]);
    fs::remove_file(source.join("link")).unwrap();
    fs::write(source.join("link"), "now a file").unwrap();
    place.snapshot(&[]);
    is_restored(&place);
}

#[test]
fn added_changed_and_removed_are_counted() {
    let (place, _) = aged();
    let source = place.path("source");
    fs::write(source.join("folder/new"), "1234567").unwrap();
    fs::write(source.join("one"), "123").unwrap();
    fs::remove_file(source.join("two")).unwrap();
    fs::remove_dir_all(source.join("folder/below")).unwrap();
    let taken = place.snapshot(&[]);
    // The folder changed too, since its entries did.
    assert_eq!(counts(&taken), [(1, 7), (2, 3), (3, 2 * SIZE)]);
    assert_eq!(summary(&taken, &["total", "entries"]), 4);
    assert_eq!(summary(&taken, &["total", "bytes"]), SIZE + 10);
    is_restored(&place);
}

#[test]
fn a_differential_compares_with_the_newest_full_and_a_full_reads_everything() {
    let (place, _) = aged();
    let source = place.path("source");
    let full = place.snapshot(&["--kind", "full"]);
    assert_eq!(kind(&full), "full");
    assert_eq!((summary(&full, &["read_bytes"]), summary(&full, &["new_bytes"])), (4 * SIZE, 0));
    for number in 0..3 {
        fs::write(source.join(format!("new-{number}")), noise(50 + number, 1000)).unwrap();
        fs::write(source.join("folder/three"), noise(60 + number, 2000)).unwrap();
        if number == 1 {
            fs::remove_dir_all(source.join("folder/below")).unwrap();
        }
        let_times_grow_old();
        let taken = place.snapshot(&[]);
        assert_eq!((kind(&taken), counts(&taken)[0]), ("incremental", (1, 1000)));
    }
    for cache in [None, Some(place.path("other"))] {
        let mut arguments = vec!["--kind", "differential"];
        arguments.extend(cache.as_deref().map(Path::to_str).into_iter().flatten().flat_map(|c| ["--cache-dir", c]));
        let taken = place.snapshot(&arguments);
        assert_eq!((kind(&taken), &taken["manifest"]["base"]), ("differential", &full["snapshot"]));
        assert_eq!(counts(&taken), [(3, 3000), (2, 2000), (2, SIZE)]);
        assert_eq!(summary(&taken, &["read_bytes"]), 5000);
        assert_eq!(summary(&taken, &["new_bytes"]), 0);
        is_restored(&place);
    }
    let after = place.snapshot(&[]);
    assert_eq!((counts(&after), summary(&after, &["read_bytes"])), ([(0, 0); 3], 0));
    is_restored(&place);
}

#[test]
fn other_paths_and_other_hosts_are_other_sources() {
    let (place, _) = aged();
    let other = place.snapshot(&["--host", "elsewhere"]);
    assert_eq!((kind(&other), &other["manifest"]["base"]), ("full", &Value::Null));
    let folder = Ran::of(&mut place.command_in("source", &["snapshot", "folder", "--json"])).expect_code(0).json();
    assert_eq!((kind(&folder), &folder["manifest"]["base"]), ("full", &Value::Null));
    assert_eq!(summary(&folder, &["read_bytes"]), 2 * SIZE);
}

#[test]
fn a_large_file_changed_in_a_few_places_stores_little() {
    let place = place();
    let path = place.path("source/large");
    fs::write(&path, [noise(1, 10_000_000), prose(10_000_000)].concat()).unwrap();
    place.snapshot(&[]);
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"changed", 3_000_000).unwrap();
    file.write_all_at(b"changed", 15_000_000).unwrap();
    let taken = place.snapshot(&[]);
    assert!(summary(&taken, &["new_bytes"]) < 3_000_000, "{taken}");
    is_restored(&place);
}
