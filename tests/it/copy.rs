//! Copies through the program: snapshots in another repository or tenant give back what they give back at
//! home, a second run copies nothing, and what cannot be is refused.

mod faults;
mod raw;

use crate::files::tree::same_tree;
use crate::support::{Place, Ran, change, files_below, grow_old, noise};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::{Path, PathBuf};

/// A table of which a day changes some rows.
fn table(day: usize) -> Vec<u8> {
    let mut text = Vec::new();
    for row in 0..20_000 {
        let version = if row % 97 == day % 97 { day } else { 0 };
        let noise = noise(&format!("{row} {version}"), 12);
        text.extend_from_slice(format!("{row}\t{noise:02x?}\tsome words that repeat\n").as_bytes());
    }
    text
}

/// The source as it is on a day: every kind of entry, and some change.
fn day(place: &Place, n: usize) {
    let table = place.write("source/db/table.copy", table(n));
    place.write(format!("source/db/dump-2026-11-{:02}.sql", 10 + n), noise(&format!("dump {}", n / 2), 90_000));
    place.write(format!("source/new/{n}"), noise(&format!("new {n}"), 30_000));
    place.write("source/small", format!("day {n}"));
    place.write("source/empty", "");
    let _ = fs::remove_file(place.path(format!("source/db/dump-2026-11-{:02}.sql", 9 + n)));
    if n == 0 {
        place.write("source/photo.jpg", noise("photo", 2_500_000));
        let source = place.path("source");
        fs::create_dir_all(source.join("empty folder/below")).unwrap();
        symlink("../nowhere", source.join("link")).unwrap();
        fs::hard_link(source.join("photo.jpg"), source.join("z photo.jpg")).unwrap();
        mknodat(CWD, source.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let _ = rustix::fs::lsetxattr(source.join("small"), "user.x", b"yes", XattrFlags::empty());
        let sparse = fs::File::create(source.join("sparse")).unwrap();
        sparse.write_all_at(&noise("sparse", 70_000), 3_000_000).unwrap();
        sparse.set_len(9_000_000).unwrap();
        fs::write(source.join(Path::new("name\n\u{202e}")), "x").unwrap();
    }
    grow_old(&table);
}

/// A repository with so many days of snapshots, a full and a differential one among them, and a stream.
fn days(count: usize) -> Place {
    let place = Place::with_repository();
    for n in 0..count {
        day(&place, n);
        let kind = match n {
            3 => "full",
            4 => "differential",
            _ => "incremental",
        };
        let time = format!("2026-11-{:02}T01:02:03Z", 10 + n);
        place.snapshot(&["--host", "db1", "--kind", kind, "--tag", &format!("d{n}"), "--time", &time]);
    }
    place.write("stream", noise("stream", 300_000));
    let mut command = place.command(&["snapshot", "--stdin", "--name", "s.bin", "--time", "2026-11-01T00:00Z"]);
    Ran::of(command.stdin(fs::File::open(place.path("stream")).unwrap())).expect_code(0);
    place
}

/// Makes a second repository in `other`, which `key2` opens.
fn second(place: &Place, more: &[&str]) {
    let arguments = [&["-r", "other", "init", "--new-key-file", "key2", "--cipher", "chacha20-poly1305"], more];
    place.run(&arguments.concat()).expect_code(0);
}

const TO: [&str; 4] = ["--to", "other", "--to-key-file", "key2"];

#[track_caller]
fn copy(place: &Place, more: &[&str]) -> Value {
    place.run(&[&["copy", "--json"], &TO[..], more].concat()).expect_code(0).json()
}

fn there(place: &Place, arguments: &[&str]) -> Ran {
    Ran::of(place.command(arguments).env("ESTRATO_REPO", "other").env("ESTRATO_KEY_FILE", "key2"))
}

/// Originals and their copies.
fn pairs(done: &Value) -> Vec<(String, String)> {
    let id = |v: &Value| v.as_str().unwrap().to_owned();
    done["copied"].as_array().unwrap().iter().map(|c| (id(&c["source"]), id(&c["copy"]))).collect()
}

/// Asserts that each copy gives back what its original does, and that nothing there is damaged.
#[track_caller]
fn same(place: &Place, pairs: &[(String, String)]) {
    let checked = there(place, &["check", "--read-data"]).expect_code(0);
    assert!(checked.stdout().contains("no damage"), "{}", checked.stdout());
    for (source, copy) in pairs {
        let _ = fs::remove_dir_all(place.path("out"));
        place.run(&["restore", source, "--target", "out/a"]).expect_code(0);
        there(place, &["restore", copy, "--target", "out/b"]).expect_code(0);
        same_tree(&place.path("out/a"), &place.path("out/b"));
    }
}

fn bytes_below(folder: PathBuf) -> u64 {
    files_below(&folder).iter().map(|file| fs::metadata(file).unwrap().len()).sum()
}

fn packs(place: &Place, repo: &str) -> u64 {
    bytes_below(place.path(repo).join("tenants/default/packs"))
}

fn listed(ran: Ran) -> Vec<Value> {
    let mut all: Vec<Value> = ran.expect_code(0).json().as_array().unwrap().clone();
    all.sort_by_key(|s| s["manifest"]["time"].to_string());
    all
}

/// What both kinds of copies must be.
fn copies_are_what_they_copy(like: &[&str]) {
    let place = days(6);
    second(&place, like);
    let looked = copy(&place, &["--dry-run"]);
    assert_eq!(looked["copied"].as_array().unwrap().len(), 7);
    assert_eq!(packs(&place, "other"), 0, "a dry run stores nothing");
    let done = copy(&place, &[]);
    assert_eq!(done["same_ids"], !like.is_empty());
    let all = pairs(&done);
    assert_eq!(all.len(), 7);
    same(&place, &all);
    let (ours, theirs) = (packs(&place, "repo"), packs(&place, "other"));
    assert!(theirs <= ours + ours / 10, "{theirs} bytes of packs there, {ours} here");
    let (here, copies) =
        (listed(place.run(&["snapshots", "--json"])), listed(there(&place, &["snapshots", "--json"])));
    for (original, copy) in here.iter().zip(&copies) {
        for field in ["time", "started", "ended", "host", "user", "paths", "source", "source_kind", "tags", "kind"] {
            assert_eq!(original["manifest"][field], copy["manifest"][field], "{field}");
        }
        assert_eq!(copy["manifest"]["origin"]["snapshot"], original["id"]);
    }
    let based = copies.iter().filter(|c| !c["manifest"]["base"].is_null()).count();
    assert_eq!(based, here.iter().filter(|s| !s["manifest"]["base"].is_null()).count());

    let again = copy(&place, &[]);
    assert_eq!((again["copied"].as_array().unwrap().len(), &again["known"]), (0, &Value::from(7)));
    let text = place.run(&[&["copy"], &TO[..]].concat()).expect_code(0).stdout();
    assert!(text.contains("0 snapshots copied, 7 there already"), "{text}");

    // A day costs a day's change, on a machine that has forgotten everything too.
    day(&place, 6);
    let taken = place.snapshot(&["--host", "db1"]);
    fs::remove_dir_all(place.path(".cache")).unwrap();
    let before = packs(&place, "other");
    let done = copy(&place, &[]);
    let (cost, change) = (packs(&place, "other") - before, &taken["manifest"]["summary"]["stored_bytes"]);
    assert!(cost <= change.as_u64().unwrap() * 5 / 4 + 20_000, "a day cost {cost} there, {change} here");
    same(&place, &pairs(&done));

    // What is backed up there rests on what was copied.
    let arguments = ["snapshot", ".", "--json", "--host", "db1"];
    let mut command = place.command_in("source", &arguments);
    command.env("ESTRATO_REPO", place.path("other")).env("ESTRATO_KEY_FILE", place.path("key2"));
    let taken = Ran::of(&mut command).expect_code(0).json();
    let summary = &taken["manifest"]["summary"];
    assert!(summary["new_bytes"].as_u64().unwrap() < 20_000, "{summary}");
    assert!(!taken["manifest"]["base"].is_null(), "it was held against the copy");
}

#[test]
fn copies_into_a_repository_of_other_ids() {
    copies_are_what_they_copy(&[]);
}

#[test]
fn copies_into_a_repository_of_the_same_ids() {
    copies_are_what_they_copy(&["--like", "repo", "--like-key-file", "key"]);
}

/// The newest alone, then the rest: what a delta rests on comes with it.
fn the_newest_first(like: &[&str]) {
    let place = days(8);
    second(&place, like);
    let newest = copy(&place, &["latest"]);
    assert_eq!(pairs(&newest).len(), 1);
    same(&place, &pairs(&newest));
    let tagged = copy(&place, &["--tag", "d1"]);
    assert_eq!(pairs(&tagged).len(), 1);
    let rest = copy(&place, &[]);
    assert_eq!((pairs(&rest).len(), &rest["known"]), (7, &Value::from(2)));
    same(&place, &[pairs(&newest), pairs(&tagged), pairs(&rest)].concat());
    let warned = there(&place, &["snapshots"]).expect_code(0).stderr();
    assert!(!warned.contains("missing"), "{warned}");
}

#[test]
fn the_newest_alone_and_then_the_rest() {
    the_newest_first(&[]);
}

#[test]
fn the_newest_alone_and_then_the_rest_with_the_same_ids() {
    the_newest_first(&["--like", "repo", "--like-key-file", "key"]);
}

#[test]
fn with_the_same_ids_frames_stay_as_they_are() {
    let place = days(5);
    second(&place, &["--like", "repo", "--like-key-file", "key"]);
    copy(&place, &[]);
    let stats = |ran: Ran| ran.expect_code(0).json();
    let (ours, theirs) = (stats(place.run(&["stats", "--json"])), stats(there(&place, &["stats", "--json"])));
    let deltas = |stats: &Value| {
        stats["frames"]
            .as_array()
            .map(|frames| frames.iter().filter(|f| f["depth"].as_u64().unwrap_or(0) > 0).count())
    };
    assert_eq!(deltas(&ours), deltas(&theirs), "{ours}\n{theirs}");
    let (ours, theirs) = (packs(&place, "repo"), packs(&place, "other"));
    assert!(theirs * 100 <= ours * 103, "{theirs} of {ours} bytes");
}

#[test]
fn between_tenants_of_one_repository_and_back() {
    let place = days(3);
    place.run(&["tenant", "add", "second", "--new-key-file", "key2"]).expect_code(0);
    let to = ["copy", "--json", "--to", "repo", "--to-tenant", "second", "--to-key-file", "key2"];
    assert_eq!(pairs(&place.run(&to).expect_code(0).json()).len(), 4);
    // What came from here is known here.
    let mut back = place.command(&[
        "-t",
        "second",
        "copy",
        "--json",
        "--to",
        "repo",
        "--to-tenant",
        "default",
        "--to-key-file",
        "key",
    ]);
    let back = Ran::of(back.env("ESTRATO_KEY_FILE", "key2")).expect_code(0).json();
    assert_eq!((pairs(&back).len(), &back["known"]), (0, &Value::from(4)));
    // A third one is told of the original, by whichever way it came.
    place.run(&["tenant", "add", "third", "--like", "repo", "--new-key-file", "key3"]).expect_code(0);
    for (from, key, known) in [("second", "key2", 0), ("default", "key", 4)] {
        let mut command = place.command(&[
            "-t",
            from,
            "copy",
            "--json",
            "--to",
            "repo",
            "--to-tenant",
            "third",
            "--to-key-file",
            "key3",
        ]);
        let done = Ran::of(command.env("ESTRATO_KEY_FILE", key)).expect_code(0).json();
        assert_eq!((pairs(&done).len(), &done["known"]), (4 - known, &Value::from(known)), "{from}");
    }
}

#[test]
fn nothing_is_copied_onto_itself() {
    let place = days(1);
    symlink(place.path("repo"), place.path("elsewhere")).unwrap();
    for to in ["repo", "elsewhere", "file:repo"] {
        let refused = place.run(&["copy", "--to", to]).expect_code(2).stderr();
        assert!(refused.contains("onto itself"), "{refused}");
        let refused = place.run(&["copy", "--raw", "--to", to]).expect_code(2).stderr();
        assert!(refused.contains("one place"), "{refused}");
    }
    assert_eq!(place.snapshots(), 2);
    second(&place, &[]);
    let refused = place.run(&["copy", "--raw", "--to", "other"]).expect_code(1).stderr();
    assert!(refused.contains("another repository"), "{refused}");
    place.run(&["copy", "--to", "nowhere"]).expect_code(10);
}

#[test]
fn keys_that_may_not() {
    let place = days(2);
    second(&place, &[]);
    place.run(&["key", "add", "--role", "writer", "--new-key-file", "writer"]).expect_code(0);
    there(&place, &["key", "add", "--role", "writer", "--new-key-file", "writer2"]).expect_code(0);
    let told = place.run_as("writer", &[&["copy"], &TO[..]].concat()).expect_code(12).stderr();
    assert!(told.contains("writer key cannot"), "{told}");
    place.run(&["copy", "--to", "other"]).expect_code(12);
    place.run(&["copy", "--to", "other", "--to-key-file", "key2", "--to-tenant", "none"]).expect_code(1);
    let like = ["-r", "third", "init", "--new-key-file", "key3", "--like", "other"];
    place.run(&like).expect_code(12);
    assert!(!place.path("key3").exists(), "no key is written that opens nothing");
    // A writer key of the target is enough, and knows what it has copied.
    let to = ["copy", "--json", "--to", "other", "--to-key-file", "writer2"];
    let done = place.run(&to).expect_code(0).json();
    assert_eq!(pairs(&done).len(), 3);
    same(&place, &pairs(&done));
    let again = place.run(&to).expect_code(0).json();
    assert_eq!((pairs(&again).len(), &again["known"]), (0, &Value::from(3)));
    day(&place, 2);
    place.snapshot(&["--host", "db1"]);
    let next = place.run(&to).expect_code(0).json();
    assert_eq!(pairs(&next).len(), 1);
    same(&place, &pairs(&next));
    // And a writer key of one lends its ids.
    Ran::of_command(place.command(&[
        "-r",
        "third",
        "init",
        "--new-key-file",
        "key3",
        "--like",
        "repo",
        "--like-key-file",
        "writer",
    ]))
    .expect_code(0);
    let done = place.run(&["copy", "--json", "--to", "third", "--to-key-file", "key3"]).expect_code(0).json();
    assert_eq!(done["same_ids"], true);
}

impl Ran {
    fn of_command(mut command: std::process::Command) -> Self {
        Self::of(&mut command)
    }
}

#[test]
fn what_was_forgotten_there_is_not_copied_again_unless_it_is_named() {
    let place = days(4);
    second(&place, &[]);
    copy(&place, &[]);
    there(&place, &["forget", "--keep-last", "1"]).expect_code(0);
    there(&place, &["prune"]).expect_code(0);
    let left = listed(there(&place, &["snapshots", "--json"])).len();
    let again = copy(&place, &[]);
    assert_eq!((pairs(&again).len(), &again["known"]), (0, &Value::from(5)));
    assert_eq!(again["forgotten"], 5 - left);
    let id = listed(place.run(&["snapshots", "--json", "--tag", "d0"]))[0]["id"].as_str().unwrap().to_owned();
    let named = copy(&place, &[&id]);
    assert_eq!(pairs(&named).len(), 1);
    same(&place, &pairs(&named));
}

#[test]
fn what_is_lost_for_one_snapshot_is_not_lost_for_all() {
    for like in [&[][..], &["--like", "repo", "--like-key-file", "key"]] {
        let place = Place::with_repository();
        for n in 0..3 {
            place.write("source/a", noise(&format!("a {n}"), 200_000));
            place.snapshot(&["--tag", &format!("d{n}")]);
        }
        let before: Vec<_> = place.objects("packs");
        place.write("source/a", noise("a 3", 200_000));
        place.snapshot(&["--tag", "d3"]);
        let mut new: Vec<_> = place.objects("packs").into_iter().filter(|pack| !before.contains(pack)).collect();
        new.sort_by_key(|pack| fs::metadata(pack).unwrap().len());
        change(new.last().unwrap(), |bytes| bytes[60_000..60_100].fill(0));
        place.write("source/a", noise("a 4", 200_000));
        place.snapshot(&["--tag", "d4"]);
        second(&place, like);
        let ran = place.run(&[&["copy", "--json"], &TO[..]].concat()).expect_code(4);
        let done = ran.json();
        assert_eq!((pairs(&done).len(), done["failed"].as_array().unwrap().len()), (4, 1), "{done}");
        assert!(ran.stderr().contains("is not copied"), "{}", ran.stderr());
        same(&place, &pairs(&done));
        let compared =
            place.run(&["check", "--against", "other", "--against-key-file", "key2"]).expect_code(4).stdout();
        assert!(compared.contains("4 snapshots at both, 1 only here, 0 only there"), "{compared}");
    }
}

#[test]
fn repositories_are_held_against_each_other_by_their_snapshots() {
    let place = days(2);
    second(&place, &[]);
    let against = ["check", "--against", "other", "--against-key-file", "key2"];
    let found = place.run(&[&against[..], &["--json"]].concat()).expect_code(4).json();
    assert_eq!((found["only_here"].as_array().unwrap().len(), &found["both"]), (3, &Value::from(0)));
    copy(&place, &[]);
    assert!(place.run(&against).expect_code(0).stdout().contains("3 snapshots at both"));
    let refused = place.run(&[&against[..], &["--store-only"]].concat()).expect_code(2).stderr();
    assert!(refused.contains("only a key can tell"), "{refused}");
    place.run(&["check", "--against", "other"]).expect_code(12);
}

#[test]
fn a_copy_under_a_prune_at_the_source_finds_what_was_moved() {
    // Each day is a pack of its own; a prune beside the copy writes all anew.
    for like in [&[][..], &["--like", "repo", "--like-key-file", "key"]] {
        let place = days(5);
        second(&place, like);
        // The index of this machine is older than the prune of another one.
        place.run(&["ls", "latest"]).expect_code(0);
        place.run(&["--cache-dir", "elsewhere", "prune", "--max-unused", "0%"]).expect_code(0);
        let done = copy(&place, &[]);
        same(&place, &pairs(&done));
    }
}
