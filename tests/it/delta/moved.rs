//! Files that were renamed or moved, and changed: they are stored as what they were, where it is found
//! out, and whole where it is not. What they are is never in question.

use super::{deltas, rows, summary, touched};
use crate::support::{Place, noise};
use crate::world::contents;
use serde_json::Value;
use std::fs;

/// What two packs take with the trees of some folders, and a table of which every piece has changed.
const LITTLE: u64 = 14_000;
/// What a table takes at the least that finds nothing to rest on.
const WHOLE: u64 = 60_000;

/// A third of a megabyte, unlike any other of another seed.
fn table(seed: &str) -> Vec<u8> {
    rows(0, 3_600, seed)
}

/// What it becomes: no chunk of it stays.
fn changed(seed: &str) -> Vec<u8> {
    touched(&table(seed), 1_500)
}

/// A source that is changed between two snapshots.
struct Moving {
    place: Place,
}

impl Moving {
    /// What `files` name, each a table of its own seed.
    fn of(files: &[(&str, &str)]) -> Self {
        let moving = Self { place: Place::with_repository() };
        files.iter().for_each(|(name, seed)| moving.write(name, table(seed)));
        moving.write("always/here", "a");
        moving.snapshot();
        moving
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        self.place.write(format!("source/{name}"), bytes);
    }

    fn rename(&self, from: &str, to: &str) {
        let [from, to] = [from, to].map(|name| self.place.path("source").join(name));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::rename(from, to).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.place.path("source").join(name)).unwrap();
    }

    /// Writes a file anew, as an editor does: beside it first, and then over it.
    fn replace(&self, name: &str, bytes: &[u8]) {
        self.write(&format!("{name}.new"), bytes);
        self.rename(&format!("{name}.new"), name);
    }

    #[track_caller]
    fn snapshot(&self) -> Value {
        let taken = self.place.snapshot(&[]);
        self.comes_back();
        taken
    }

    #[track_caller]
    fn comes_back(&self) {
        self.place.restore("out", &["--delete", "--verify"]);
        assert!(contents(&self.place.path("out")) == contents(&self.place.path("source")), "not what it was");
    }

    /// What the next snapshot stores.
    #[track_caller]
    fn stores(&self) -> u64 {
        let stored = summary(&self.snapshot(), "stored_bytes");
        self.place.run(&["check", "--read-data"]).expect_code(0);
        stored
    }

    #[track_caller]
    fn stores_little(&self) {
        let stored = self.stores();
        assert!(stored <= LITTLE, "{stored} bytes");
    }

    /// True if the file system tells when a file came to be; without that it is not known whether a number
    /// was given again.
    fn tells_births(&self) -> bool {
        fs::metadata(self.place.path("source/always/here")).unwrap().created().is_ok()
    }

    fn lose_notes(&self) {
        fs::remove_dir_all(self.place.path(".cache")).unwrap();
    }
}

#[test]
fn a_file_that_was_renamed_and_changed_is_stored_as_its_change() {
    let moving = Moving::of(&[("report", "a"), ("other", "b")]);
    moving.rename("report", "report, final");
    moving.write("report, final", changed("a"));
    moving.stores_little();
    // And what is unlike anything is stored whole: the bounds tell one from the other.
    moving.write("new", table("new"));
    let stored = moving.stores();
    assert!(stored >= WHOLE, "{stored} bytes");
}

#[test]
fn logs_that_rotate_are_held_against_themselves() {
    let moving = Moving::of(&[("log/app.log", "now"), ("log/app.log.1", "before")]);
    moving.rename("log/app.log.1", "log/app.log.2");
    moving.rename("log/app.log", "log/app.log.1");
    moving.write("log/app.log", rows(0, 50, "next"));
    // All has changed in what was renamed, so that it matters which it is held against.
    moving.write("log/app.log.1", changed("now"));
    moving.write("log/app.log.2", changed("before"));
    let stored = moving.stores();
    if moving.tells_births() {
        assert!(stored <= 2 * LITTLE, "{stored} bytes");
    }
}

#[test]
fn files_that_are_rewritten_keep_their_own_name_whatever_number_they_are_given() {
    let names: Vec<String> = (0..6).map(|n| format!("dumps/{}.sql", ["a", "b", "c", "d", "e", "f"][n])).collect();
    let moving = Moving::of(&names.iter().map(|name| (&name[..], &name[..])).collect::<Vec<_>>());
    // Each but the first may be given the inode that the one before it had.
    names.iter().for_each(|name| moving.replace(name, &changed(name)));
    let stored = moving.stores();
    assert!(stored <= 6 * LITTLE, "{stored} bytes");
}

#[test]
fn a_dated_dump_is_stored_as_the_change_since_the_one_before() {
    let names = ["dump-2026-9-30.sql", "dump-2026-10-01.sql", "dump-2026-10-1.sql.gz", "users-2026-10-02.sql"];
    let moving = Moving::of(&names.map(|name| (name, name)));
    moving.write("dump-2026-10-02.sql", changed("dump-2026-10-01.sql"));
    moving.stores_little();
    // An earlier one that comes late.
    moving.write("dump-2026-9-29.sql", changed("dump-2026-9-30.sql"));
    moving.stores_little();
    // One that broke off is passed over.
    moving.write("dump-2026-10-03.sql", &table("broken")[..20_000]);
    moving.snapshot();
    moving.write("dump-2026-10-04.sql", touched(&changed("dump-2026-10-01.sql"), 1_700));
    moving.stores_little();
}

#[test]
fn dated_dumps_that_take_the_place_of_others_are_paired_by_their_size() {
    let of = |kind: &str, n: usize| rows(0, n, kind);
    let kinds = [("orders", 1_500), ("users", 3_000), ("visits", 5_000)];
    let moving = Moving::of(&[]);
    kinds.iter().for_each(|(kind, n)| moving.write(&format!("dumps/{kind}-2026-11-19.sql"), of(kind, *n)));
    moving.snapshot();
    for (kind, n) in kinds {
        moving.remove(&format!("dumps/{kind}-2026-11-19.sql"));
        let more = rows(n, 20, &format!("{kind} more"));
        moving.write(&format!("dumps/{kind}-2026-11-20.sql"), [touched(&of(kind, n), 1_500), more].concat());
    }
    let stored = moving.stores();
    assert!(stored <= 3 * LITTLE, "{stored} bytes");
}

#[test]
fn a_file_that_was_moved_to_another_folder_and_changed_is_stored_as_its_change() {
    // The walk comes to the old folder first, or to the new one.
    for (from, to) in [("a/deep/file", "z/another name"), ("z/file", "a/new/another name")] {
        let moving = Moving::of(&[(from, "it"), ("a/stays", "b"), ("z/stays", "c")]);
        moving.rename(from, to);
        moving.write(to, changed("it"));
        moving.stores_little();
    }
}

#[test]
fn a_file_that_was_moved_here_is_not_taken_for_one_that_is_gone_or_has_a_like_name() {
    let moving = Moving::of(&[("a/file-1", "1"), ("z/part-2", "it"), ("a/gone", "gone"), ("a/part-1", "p")]);
    moving.rename("z/part-2", "a/part-2");
    moving.write("a/part-2", changed("it"));
    moving.rename("a/file-1", "z/other");
    moving.write("z/other", changed("1"));
    moving.remove("a/gone");
    let stored = moving.stores();
    if moving.tells_births() {
        assert!(stored <= 2 * LITTLE, "{stored} bytes");
    }
}

#[test]
fn a_file_that_was_copied_to_another_folder_is_found_by_its_name() {
    for (from, to) in [("a/file", "z/file"), ("z/file", "a/new/file")] {
        let moving = Moving::of(&[(from, "it"), ("a/stays", "b"), ("z/stays", "c")]);
        // It may be given the number of the one that was removed.
        moving.remove(from);
        moving.write(to, changed("it"));
        moving.stores_little();
        // And one that stays where it was.
        moving.write("m/stays", changed("b"));
        moving.stores_little();
    }
}

#[test]
fn of_a_folder_that_was_moved_what_changed_is_stored_as_its_change() {
    let files = ["old/one", "old/two", "old/below/three", "old/below/four"].map(|name| (name, name));
    for to in ["away", "zone/old", "always/old"] {
        let moving = Moving::of(&files);
        moving.rename("old", to);
        moving.write(&format!("{to}/one"), changed("old/one"));
        moving.replace(&format!("{to}/below/four"), &changed("old/below/four"));
        let stored = moving.stores();
        assert!(stored <= 2 * LITTLE, "{stored} bytes");
    }
}

#[test]
fn something_else_under_an_old_number_or_a_like_name_grows_by_little() {
    let moving = Moving::of(&[("a/gone", "gone"), ("a/part-1", "1"), ("b/same name", "same")]);
    moving.remove("a/gone");
    let new = [("a/other", 2), ("a/part-2", 3), ("c/same name", 4)];
    // Incompressible, and as large as what it is taken for.
    new.iter().for_each(|(name, _)| moving.write(name, noise(name, table("").len())));
    let stored = moving.stores();
    let plain = 3 * table("").len() as u64;
    assert!(stored <= plain + LITTLE, "{stored} bytes");
    // And what compresses by itself.
    let moving = Moving::of(&[("a/gone", "gone"), ("a/part-1", "1"), ("b/same name", "same")]);
    moving.remove("a/gone");
    new.iter().for_each(|(name, _)| moving.write(name, table(name)));
    let guessed = moving.stores();
    let plain = Moving::of(&[]);
    new.iter().for_each(|(name, _)| plain.write(name, table(name)));
    let plain = plain.stores();
    assert!(guessed <= plain + plain / 50 + LITTLE, "{guessed}, {plain} where nothing was there");
}

#[test]
fn pictures_with_numbers_are_stored_whole() {
    let moving = Moving::of(&[]);
    let picture = |n: usize| moving.write(&format!("IMG_{n:04}.jpg"), noise(&n.to_string(), 60_000));
    (0..40).for_each(picture);
    moving.snapshot();
    (40..120).for_each(picture);
    let stored = moving.stores();
    assert!(stored <= 80 * 60_000 + 60_000, "{stored} bytes");
    assert_eq!(deltas(&moving.place, "chunks"), 0);
}

#[test]
fn twenty_thousand_new_files_that_were_nothing_before() {
    let moving = Moving::of(&[("many/9", "nine"), ("other/gone", "gone")]);
    moving.remove("other/gone");
    let path = moving.place.path("source/many");
    for n in 0..20_000 {
        // Mostly holes: large enough to be looked for, and little to read.
        let name = path.join(if n % 2 == 0 { format!("{n}.dat") } else { "x".repeat(n % 200) + &format!("{n}") });
        let file = fs::File::create(name).unwrap();
        file.set_len(if n % 4 < 2 { 100_000 } else { 3_000 }).unwrap();
    }
    moving.write("many/9999999", changed("nine"));
    moving.snapshot();
    assert!(deltas(&moving.place, "chunks") > 0, "the one that has something to rest on is found among them");
    // All of them moved at once: nothing of them is new but the trees.
    fs::rename(&path, moving.place.path("source/all")).unwrap();
    let stored = moving.stores();
    assert!(stored <= LITTLE, "{stored} bytes");
}

#[test]
fn a_dry_run_looks_for_nothing_and_counts_as_before() {
    let moving = Moving::of(&[("a/file", "it"), ("dump-1", "1")]);
    moving.rename("a/file", "b/file");
    moving.write("b/file", changed("it"));
    moving.write("dump-2", changed("1"));
    let objects = moving.place.objects("");
    let dry = moving.place.snapshot(&["--dry-run"]);
    assert_eq!(moving.place.objects(""), objects);
    let taken = moving.snapshot();
    for count in ["added", "changed", "removed", "total"] {
        let of = |document: &Value| document["manifest"]["summary"][count].clone();
        assert_eq!(of(&dry), of(&taken), "{count}");
    }
    assert_eq!(summary(&dry, "read_bytes"), summary(&taken, "read_bytes"));
}

#[test]
fn a_writer_key_makes_no_deltas_of_what_was_moved() {
    let moving = Moving::of(&[("dump-1", "1")]);
    let add = ["key", "add", "--role", "writer", "--label", "w", "--new-key-file", "w"];
    moving.place.run(&add).expect_code(0);
    let snapshot = || {
        let taken = moving.place.run_as("w", &["snapshot", "source", "--json"]).expect_code(0).json();
        summary(&taken, "stored_bytes")
    };
    snapshot();
    moving.rename("dump-1", "renamed");
    moving.write("renamed", changed("1"));
    moving.write("dump-2", changed("1"));
    let stored = snapshot();
    assert!(stored >= WHOLE, "{stored} bytes");
    assert_eq!(deltas(&moving.place, "chunks"), 0);
    moving.place.run(&["restore", "latest", "--target", "out", "--verify"]).expect_code(0);
    assert!(contents(&moving.place.path("out/source")) == contents(&moving.place.path("source")));
}

#[test]
fn without_notes_what_left_a_folder_is_found_if_the_walk_came_to_it_before() {
    let moving = Moving::of(&[("a/file", "a"), ("name", "n"), ("dump-1", "1"), ("z/last", "z")]);
    moving.rename("name", "another name");
    moving.write("another name", changed("n"));
    moving.write("dump-2", changed("1"));
    moving.rename("a/file", "b/file");
    moving.write("b/file", changed("a"));
    moving.lose_notes();
    let stored = moving.stores();
    assert!(stored <= 3 * LITTLE, "{stored} bytes");
    // The other way it would cost a look at every folder of the repository.
    moving.rename("z/last", "b/first");
    moving.write("b/first", changed("z"));
    moving.lose_notes();
    let stored = moving.stores();
    assert!(stored >= WHOLE, "{stored} bytes");
}

#[test]
fn a_differential_snapshot_finds_what_was_moved_since_the_full_one() {
    let moving = Moving::of(&[("a/file", "it"), ("b/file", "b")]);
    moving.place.snapshot(&["--kind", "full"]);
    moving.write("b/file", changed("b"));
    moving.snapshot();
    moving.rename("a/file", "c/file");
    moving.write("c/file", changed("it"));
    let taken = moving.place.snapshot(&["--kind", "differential"]);
    let stored = summary(&taken, "stored_bytes");
    assert!(stored <= 2 * LITTLE, "{stored} bytes");
    moving.comes_back();
}
