//! Every file of the cache damaged in every way, before every command.

use super::{Kept, copy, replace, warnings};
use crate::support::{change, files_below, is_long, noise};
use std::fs;
use std::path::Path;

/// What befalls a file; false if it cannot befall this one.
type Befall = fn(&Path) -> bool;

fn sql(path: &Path, batch: &str) -> bool {
    let db = rusqlite::Connection::open(path).unwrap();
    // Not every table is in every file.
    db.execute_batch(batch).is_ok()
}

fn is_database(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "db")
}

/// The length of a database's pages; 4096 of what is none.
fn page_len(bytes: &[u8]) -> usize {
    match bytes {
        [b'S', b'Q', ..] if bytes.len() > 18 => usize::from(bytes[16]) << 8 | usize::from(bytes[17]),
        _ => 4096,
    }
}

/// Flips a bit in each page but the first, where the schema is.
fn rot(path: &Path, every: usize) -> bool {
    change(path, |bytes| {
        let page = page_len(bytes);
        for (n, page) in bytes.chunks_mut(page).enumerate().skip(1) {
            for at in (n * 37 % every..page.len()).step_by(every) {
                page[at] ^= 1 << (at % 8);
            }
        }
    });
    is_database(path)
}

const FAULTS: &[(&str, Befall)] = &[
    ("removed", |p| fs::remove_file(p).is_ok()),
    ("empty", |p| fs::write(p, []).is_ok()),
    ("rubbish", |p| fs::write(p, noise("rubbish", 20_000)).is_ok()),
    ("text", |p| fs::write(p, "{\"signers\": 99}").is_ok()),
    ("cut short", |p| {
        change(p, |bytes| bytes.truncate(bytes.len() / 2));
        true
    }),
    ("a bit of the header", |p| {
        change(p, |bytes| bytes.iter_mut().skip(20).take(1).for_each(|b| *b ^= 4));
        true
    }),
    ("zeros behind the first page", |p| {
        change(p, |bytes| {
            let page = page_len(bytes);
            bytes.iter_mut().skip(page).for_each(|b| *b = 0);
        });
        is_database(p)
    }),
    ("a bit of every page", |p| rot(p, 16_384)),
    ("bits everywhere", |p| rot(p, 61)),
    ("a newer version", |p| is_database(p) && sql(p, "PRAGMA user_version = 1000")),
    ("an older version", |p| is_database(p) && sql(p, "PRAGMA user_version = 1")),
    ("other tables", |p| is_database(p) && sql(p, "DROP TABLE rows; CREATE TABLE rows(x)")),
    ("frames that rotted", |p| is_database(p) && sql(p, "UPDATE frames SET row = zeroblob(length(row))")),
    ("frames that are others", |p| {
        is_database(p) && sql(p, "UPDATE frames SET row = (SELECT row FROM frames ORDER BY no LIMIT 1)")
    }),
    ("ids that rotted", |p| is_database(p) && sql(p, "UPDATE frames SET ids = zeroblob(length(ids))")),
    ("frames that are gone", |p| is_database(p) && sql(p, "DELETE FROM frames WHERE no = 2")),
    ("filters that rotted", |p| is_database(p) && sql(p, "UPDATE filters SET filter = zeroblob(length(filter))")),
    ("runs that are gone", |p| is_database(p) && sql(p, "DELETE FROM runs WHERE no = 1")),
    ("a secret that rotted", |p| is_database(p) && sql(p, "UPDATE secret SET secret = zeroblob(32)")),
    ("names that rotted", |p| is_database(p) && sql(p, "UPDATE packs SET name = zeroblob(32)")),
    ("sizes that rotted", |p| is_database(p) && sql(p, "UPDATE packs SET size = size + 1")),
    ("rows that are gone", |p| is_database(p) && sql(p, "DELETE FROM packs WHERE no = 2")),
    ("blobs that are gone", |p| is_database(p) && sql(p, "DELETE FROM blobs")),
    ("some blobs that are gone", |p| is_database(p) && sql(p, "DELETE FROM blobs WHERE no % 2 = 0")),
    ("blobs that rotted", |p| is_database(p) && sql(p, "UPDATE blobs SET block = zeroblob(length(block))")),
    ("blobs that lie elsewhere", |p| {
        is_database(p) && sql(p, "UPDATE blobs SET block = (SELECT block FROM blobs ORDER BY no DESC LIMIT 1)")
    }),
    ("objects that are gone", |p| is_database(p) && sql(p, "DELETE FROM objects")),
    ("signers that rotted", |p| is_database(p) && sql(p, "UPDATE objects SET signer = zeroblob(32)")),
    ("later beginnings", |p| is_database(p) && sql(p, "UPDATE versions SET seconds = seconds + 1000000")),
    ("other rows", |p| is_database(p) && sql(p, "UPDATE rows SET row = (SELECT row FROM rows LIMIT 1)")),
    ("rows without end", |p| is_database(p) && sql(p, "UPDATE rows SET since = 0, until = 9223372036854775807")),
    ("another chain", |p| is_database(p) && sql(p, "UPDATE chain SET counter = 7000, id = zeroblob(16)")),
];

/// Runs every kind of command that reads local state, each with a copy of the damaged cache, and holds
/// what it does against what it would do with none.
fn expect_same(kept: &Kept, damaged: &Path, what: &str) {
    let place = &kept.place;
    let cache = kept.root();
    let set = || replace(&cache, Some(damaged));
    set();
    let told = kept.expect_restored(&[]);
    assert!(warnings(&told) <= 1, "restore, {what}: {told}");
    set();
    let ran = place.run(&["check", "--read-data", "--json"]).expect_code(0);
    assert!(warnings(&ran.stderr()) <= 1, "check, {what}: {}", ran.stderr());
    if is_long() {
        // What is read says nothing of where it was found.
        replace(&cache, None);
        let fresh = place.run(&["check", "--read-data", "--json"]).expect_code(0);
        let [ran, fresh] = [ran, fresh].map(|ran| {
            let mut report = ran.json();
            // Both are of now, a second apart or not.
            assert!(report["oldest_verified"].take().is_string(), "{what}");
            report
        });
        assert_eq!(ran, fresh, "{what}");
        for arguments in [&["check"][..], &["snapshots"], &["ls"], &["key", "list"]] {
            set();
            let ran = place.run(arguments).expect_code(0);
            assert!(warnings(&ran.stderr()) <= 1, "{arguments:?}, {what}: {}", ran.stderr());
        }
    }
    // A snapshot skips nothing that changed, and needs nothing that is not there.
    set();
    let before = fs::read(place.path("source/text")).unwrap();
    change(&place.path("source/text"), |bytes| bytes[5] ^= 1);
    let ran = kept.run_snapshot(&[]);
    assert!(warnings(&ran.stderr()) <= 1, "snapshot, {what}: {}", ran.stderr());
    // The cache is sound again, or the next command makes it so; and another one finds the same.
    let told = kept.expect_restored(&[]);
    assert!(warnings(&told) <= 1, "after it, {what}: {told}");
    replace(&cache, None);
    kept.expect_whole();
    fs::write(place.path("source/text"), before).unwrap();
}

fn matrix(kept: &Kept, is_ours: impl Fn(&str) -> bool) {
    let sound = kept.place.path("sound");
    copy(&kept.root(), &sound);
    let objects = kept.place.path("objects");
    copy(&kept.place.path("repo"), &objects);
    let names: Vec<_> = files_below(&sound).iter().map(|p| p.strip_prefix(&sound).unwrap().to_path_buf()).collect();
    let mut seen = 0;
    for name in names.iter().filter(|n| is_ours(&n.file_name().unwrap().to_string_lossy())) {
        for (what, befall) in FAULTS {
            let damaged = kept.place.path("damaged");
            replace(&damaged, Some(&sound));
            if befall(&damaged.join(name)) {
                expect_same(kept, &damaged, &format!("{} of {}", what, name.display()));
                replace(&kept.place.path("repo"), Some(&objects));
                seen += 1;
            }
        }
    }
    assert!(seen > 3, "{names:?}");
}

#[test]
fn a_damaged_index_changes_nothing() {
    matrix(&Kept::new(), |name| name == "index.db");
}

#[test]
fn damaged_notes_change_nothing() {
    matrix(&Kept::new(), |name| name.starts_with("source-"));
}

#[test]
fn damaged_small_files_change_nothing() {
    matrix(&Kept::new(), |name| name == "seen.json" || name.starts_with("name-") || name == "index.lock");
}

#[test]
fn a_damaged_index_is_told_once_and_then_made_again() {
    let kept = Kept::new();
    assert!(sql(&kept.cache().join("index.db"), "UPDATE frames SET row = zeroblob(40)"));
    let told = kept.expect_restored(&[]);
    let folder = kept.cache().to_string_lossy().into_owned();
    assert!(told.starts_with("warning: ") && told.contains(&folder) && warnings(&told) == 1, "{told}");
    // The next command makes the file anew, and says so; then it is as if nothing had been.
    let told = kept.place.run(&["ls"]).expect_code(0).stderr();
    assert!(told.contains("made again"), "{told}");
    kept.expect_whole();
}

#[test]
fn damaged_notes_are_told_once_and_begin_anew() {
    let kept = Kept::new();
    fs::write(kept.notes(), noise("rubbish", 9000)).unwrap();
    kept.settle();
    let ran = kept.run_snapshot(&[]);
    assert_eq!(warnings(&ran.stderr()), 1, "{}", ran.stderr());
    assert!(ran.stderr().contains("notes of the source"), "{}", ran.stderr());
    let again = kept.snapshot();
    assert_eq!(again["summary"]["read_bytes"], 0, "it has notes again: {again}");
}

#[test]
fn a_blob_that_is_really_gone_is_damage_whatever_the_index_says() {
    let kept = Kept::new();
    let packs = kept.place.objects("packs");
    for pack in &packs {
        fs::remove_file(pack).unwrap();
    }
    for lose in [false, true] {
        if lose {
            fs::remove_dir_all(kept.root()).unwrap();
        }
        kept.place.run(&["check"]).expect_code(4);
        assert_ne!(kept.place.run(&["restore", "latest", "--target", "none"]).code(), 0);
    }
}
