//! Restores into targets that have something already, of parts, and interrupted ones.

use super::place;
use super::tree::{entries, noise, prose, same_tree};
use crate::support::{Place, Ran};
use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, symlink};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Stdio;

/// A place with some files, of which a snapshot was taken and restored to `out`.
fn restored() -> Place {
    restored_with(600_000)
}

/// The same, with as many bytes in the file `large`.
fn restored_with(size: usize) -> Place {
    let place = place();
    let source = place.path("source");
    fs::create_dir_all(source.join("folder/below")).unwrap();
    fs::write(source.join("large"), [noise(1, size / 2), prose(size / 2)].concat()).unwrap();
    fs::write(source.join("small.txt"), "small").unwrap();
    fs::write(source.join("empty"), "").unwrap();
    fs::write(source.join("folder/file.log"), noise(2, 50_000)).unwrap();
    fs::write(source.join("folder/below/deep.txt"), noise(3, 5000)).unwrap();
    symlink("small.txt", source.join("link")).unwrap();
    place.snapshot(&[]);
    place.restore("out", &[]);
    same_tree(&source, &place.path("out"));
    place
}

/// Inode and time of the last change of any kind.
fn touched(path: PathBuf) -> (u64, i64, i64) {
    let stat = fs::symlink_metadata(path).unwrap();
    (stat.ino(), stat.ctime(), stat.ctime_nsec())
}

fn number(outcome: &serde_json::Value, name: &str) -> u64 {
    outcome[name].as_u64().unwrap()
}

#[test]
fn what_is_there_already_is_left_alone() {
    let place = restored();
    let names = ["large", "small.txt", "empty", "folder/file.log", "link", "folder"];
    let look = || names.map(|name| touched(place.path("out").join(name)));
    let before = look();
    let ran = place.run(&["restore", "latest", "--target", "out"]).expect_code(0);
    assert!(ran.stdout().contains("were there already"), "{}", ran.stdout());
    let after = look();
    for ((name, before), after) in names.iter().zip(before).zip(after) {
        assert_eq!(before, after, "{name} was touched");
    }
    let outcome = place.restore("out", &[]);
    assert_eq!(outcome["unchanged_bytes"], outcome["bytes"]);
    same_tree(&place.path("source"), &place.path("out"));
}

#[test]
fn only_what_differs_is_written() {
    let place = restored_with(30_000_000);
    let large = place.path("out/large");
    let inode = touched(large.clone()).0;
    let spoil: [&dyn Fn(&fs::File); 4] = [
        &|file| file.write_all_at(b"spoilt", 20_000_000).unwrap(),
        &|file| file.set_len(29_000_000).unwrap(),
        &|file| file.set_len(31_000_000).unwrap(),
        &|file| {
            file.write_all_at(b"spoilt", 0).unwrap();
            file.write_all_at(b"and longer", 30_000_000).unwrap();
        },
    ];
    for (round, spoil) in spoil.iter().enumerate() {
        spoil(&fs::File::options().write(true).open(&large).unwrap());
        fs::write(place.path("out/small.txt"), "other").unwrap();
        let outcome = place.restore("out", &["--verify"]);
        assert!(number(&outcome, "unchanged_bytes") > 25_000_000, "round {round}: {outcome}");
        assert_eq!(touched(large.clone()).0, inode, "round {round}: the file was made anew");
        same_tree(&place.path("source"), &place.path("out"));
    }
}

#[test]
fn wrong_modes_times_and_kinds_are_put_right() {
    let place = restored();
    let out = |name: &str| place.path("out").join(name);
    super::mode(&out("small.txt"), 0o4777);
    super::mode(&out("folder"), 0o777);
    super::set_mtime(&out("large"), 5, 5);
    super::set_mtime(&out("folder/below"), 5, 5);
    fs::remove_file(out("link")).unwrap();
    symlink("elsewhere", out("link")).unwrap();
    fs::remove_file(out("empty")).unwrap();
    fs::create_dir_all(out("empty/full/of")).unwrap();
    fs::write(out("empty/full/of/files"), "x").unwrap();
    fs::remove_dir_all(out("folder/below")).unwrap();
    fs::write(out("folder/below"), "a file").unwrap();
    fs::remove_file(out("folder/file.log")).unwrap();
    symlink("../small.txt", out("folder/file.log")).unwrap();
    place.restore("out", &["--verify"]);
    same_tree(&place.path("source"), &place.path("out"));
}

#[test]
fn data_that_has_another_name_elsewhere_is_not_changed() {
    let place = restored();
    let outside = place.path("outside");
    fs::write(&outside, "mine").unwrap();
    fs::remove_file(place.path("out/small.txt")).unwrap();
    fs::hard_link(&outside, place.path("out/small.txt")).unwrap();
    place.restore("out", &[]);
    assert_eq!(fs::read(&outside).unwrap(), b"mine");
    same_tree(&place.path("source"), &place.path("out"));
}

#[test]
fn links_in_the_target_lead_nowhere_outside() {
    let place = restored();
    let outside = place.path("outside");
    fs::create_dir_all(outside.join("below")).unwrap();
    fs::write(outside.join("file.log"), "mine").unwrap();
    fs::write(outside.join("small.txt"), "mine").unwrap();
    let before = entries(&outside);
    fs::remove_dir_all(place.path("out/folder")).unwrap();
    symlink("../outside", place.path("out/folder")).unwrap();
    fs::remove_file(place.path("out/small.txt")).unwrap();
    symlink(outside.join("small.txt"), place.path("out/small.txt")).unwrap();
    place.restore("out", &["--delete", "--verify"]);
    assert!(before == entries(&outside), "something outside the target was changed");
    same_tree(&place.path("source"), &place.path("out"));
    // The target itself was named: that link is followed.
    fs::create_dir(place.path("real")).unwrap();
    symlink("real", place.path("named")).unwrap();
    place.restore("named", &[]);
    same_tree(&place.path("source"), &place.path("real"));
}

#[test]
fn a_killed_restore_can_be_run_again() {
    let place = place();
    for number in 0..100 {
        fs::write(place.path(format!("source/{number}")), noise(number, 200_000)).unwrap();
    }
    place.snapshot(&[]);
    let mut killed = false;
    for round in 0..10 {
        let target = format!("out-{round}");
        let mut command = place.command(&["restore", "latest", "--target", &target]);
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        let some = || fs::read_dir(place.path(&target)).is_ok_and(|list| list.count() > 5);
        while !some() && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        killed |= child.wait().unwrap().signal() == Some(9);
        place.restore(&target, &["--verify"]);
        same_tree(&place.path("source"), &place.path(&target));
        if killed {
            break;
        }
    }
    assert!(killed, "never in the middle");
    place.run(&["check"]).expect_code(0);
}

#[test]
fn delete_removes_what_the_snapshot_does_not_have() {
    let place = restored();
    let out = place.path("out");
    fs::create_dir_all(out.join("folder/more/and more")).unwrap();
    fs::write(out.join("folder/more/and more/file"), "x").unwrap();
    fs::write(out.join("extra"), "x").unwrap();
    symlink("/etc", out.join("a link")).unwrap();
    place.restore("out", &[]);
    assert!(out.join("extra").exists() && out.join("folder/more/and more/file").exists());
    let told = place.restore("out", &["--delete", "--dry-run"]);
    assert!(out.join("extra").exists(), "{told}");
    let outcome = place.restore("out", &["--delete"]);
    assert_eq!(number(&outcome, "deleted"), 3);
    same_tree(&place.path("source"), &out);
}

#[test]
fn delete_spares_what_was_not_asked_for() {
    let place = restored();
    let out = place.path("out");
    fs::write(out.join("extra"), "x").unwrap();
    fs::write(out.join("folder/extra"), "x").unwrap();
    place.restore("out", &["--delete", "--include", "/folder/below"]);
    assert!(out.join("extra").exists() && out.join("folder/extra").exists() && out.join("large").exists());
    // What a pattern leaves out is left as it is, there or not.
    fs::write(out.join("folder/file.log"), "mine").unwrap();
    place.restore("out", &["--delete", "--exclude", "*.log"]);
    assert_eq!(fs::read(out.join("folder/file.log")).unwrap(), b"mine");
    assert!(!out.join("extra").exists() && !out.join("folder/extra").exists());
}

#[track_caller]
fn gives(place: &Place, snapshot: &str, more: &[&str], expected: &[&str]) {
    let target = tempfile::tempdir_in(place.path("")).unwrap();
    let arguments = [&["restore", snapshot, "--target", target.path().to_str().unwrap()], more].concat();
    let ran = place.run(&arguments).expect_code(0);
    assert_eq!(ran.stderr(), "");
    let found: Vec<_> = entries(target.path()).into_keys().collect();
    assert_eq!(found, expected.iter().map(PathBuf::from).collect::<Vec<_>>(), "{snapshot} {more:?}");
}

#[test]
fn patterns_choose_what_is_restored() {
    let place = restored();
    gives(
        &place,
        "latest",
        &["--include", "*.txt"],
        &["folder", "folder/below", "folder/below/deep.txt", "small.txt"],
    );
    gives(
        &place,
        "latest",
        &["--include", "/folder"],
        &["folder", "folder/below", "folder/below/deep.txt", "folder/file.log"],
    );
    gives(&place, "latest", &["--include", "folder", "--exclude", "below"], &["folder", "folder/file.log"]);
    gives(&place, "latest", &["--include", "no such"], &[]);
    gives(&place, "latest", &["--exclude", "/folder/", "--exclude", "l*"], &["empty", "small.txt"]);
}

#[test]
fn a_path_of_a_snapshot_is_restored_alone() {
    let place = restored();
    gives(&place, "latest:folder/below", &[], &["deep.txt"]);
    gives(&place, "latest:/folder/", &[], &["below", "below/deep.txt", "file.log"]);
    gives(&place, "latest:folder/file.log", &["--verify"], &["file.log"]);
    gives(&place, "latest:link", &[], &["link"]);
    gives(&place, "latest:empty", &[], &["empty"]);
    for wrong in ["latest:no/such", "latest:small.txt/below", "latest:link/below", "latest:../x", "0000", "latest~5"]
    {
        let ran = place.run(&["restore", wrong, "--target", "nothing"]);
        assert_ne!(ran.code(), 0, "{wrong}");
        assert!(!place.path("nothing").exists(), "{wrong} made a target");
    }
}

#[test]
fn an_earlier_snapshot_is_restored_by_place_id_and_time() {
    let place = restored();
    fs::write(place.path("source/small.txt"), "second").unwrap();
    place.snapshot(&[]);
    let all = place.run(&["snapshots", "--json"]).expect_code(0).json();
    let id = all[0]["id"].as_str().unwrap().to_owned();
    let ended = all[0]["manifest"]["time"].as_str().unwrap().to_owned();
    for (number, which) in [&["latest~1"][..], &[&id[..8]], &[&id], &["--at", &ended]].into_iter().enumerate() {
        let target = format!("earlier-{number}");
        place.run(&[&["restore", "--target", &target], which].concat()).expect_code(0);
        assert_eq!(fs::read(place.path(target).join("small.txt")).unwrap(), b"small", "{which:?}");
    }
}

#[test]
fn a_dry_run_writes_nothing() {
    let place = restored();
    let told = place.restore("new", &["--dry-run"]);
    assert_eq!((number(&told, "entries"), number(&told, "bytes")), (8, 655_005));
    assert!(!place.path("new").exists());
    fs::remove_dir_all(place.path("out/folder")).unwrap();
    fs::write(place.path("out/small.txt"), "other").unwrap();
    let before = entries(&place.path("out"));
    place.restore("out", &["--dry-run"]);
    assert!(before == entries(&place.path("out")));
}

#[test]
fn a_target_is_made_with_its_parents_and_one_that_is_a_file_is_refused() {
    let place = restored();
    place.restore("new/and/deep", &[]);
    same_tree(&place.path("source"), &place.path("new/and/deep"));
    fs::write(place.path("a file"), "mine").unwrap();
    let ran = place.run(&["restore", "latest", "--target", "a file"]).expect_code(1);
    assert!(ran.stderr().contains("a file"), "{}", ran.stderr());
    assert_eq!(fs::read(place.path("a file")).unwrap(), b"mine");
}

#[test]
fn a_restore_over_the_source_itself_changes_nothing() {
    let place = restored();
    let before = entries(&place.path("source"));
    Ran::of(&mut place.command_in("source", &["restore", "latest", "--target", "."])).expect_code(0);
    assert!(before == entries(&place.path("source")));
}

#[test]
fn equal_hard_linked_files_are_left_alone_too() {
    let place = Place::with_repository();
    std::fs::create_dir(place.path("src")).unwrap();
    std::fs::write(place.path("src/a"), vec![7; 100_000]).unwrap();
    std::fs::hard_link(place.path("src/a"), place.path("src/b")).unwrap();
    place.run(&["snapshot", "src"]).expect_code(0);
    place.run(&["restore", "latest", "--target", "out"]).expect_code(0);
    let inode = |name: &str| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(place.path(name)).unwrap());
    let first = inode("out/src/a");
    assert_eq!(inode("out/src/b"), first);
    let again = place.run(&["restore", "latest", "--target", "out", "--json"]).expect_code(0).json();
    assert_eq!(again["outcome"]["unchanged_bytes"], 100_000);
    assert_eq!((inode("out/src/a"), inode("out/src/b")), (first, first));
    std::fs::write(place.path("out/src/a"), b"changed").unwrap();
    place.run(&["restore", "latest", "--target", "out"]).expect_code(0);
    assert_eq!(std::fs::read(place.path("out/src/a")).unwrap(), vec![7; 100_000]);
    assert_eq!(inode("out/src/a"), inode("out/src/b"));
}

/// Beside a file of several rounds: a hole at its end, so that its last part has nothing to write, a second
/// name, and folders before and after it.
fn restored_in_rounds() -> Place {
    let place = place();
    let source = place.path("source");
    for name in ["a", "z"] {
        fs::create_dir_all(source.join(name)).unwrap();
        fs::write(source.join(name).join("file"), noise(7, 30_000)).unwrap();
    }
    fs::write(source.join("m"), noise(1, 170_000_000)).unwrap();
    let file = fs::File::options().write(true).open(source.join("m")).unwrap();
    file.set_len(400_000_000).unwrap();
    fs::hard_link(source.join("m"), source.join("z/m")).unwrap();
    fs::write(source.join("n"), noise(2, 90_000_000)).unwrap();
    place.snapshot(&[]);
    place
}

#[test]
fn one_round_is_written_while_the_next_is_planned() {
    let place = restored_in_rounds();
    let outcome = place.restore("out", &["--verify"]);
    same_tree(&place.path("source"), &place.path("out"));
    assert_eq!((number(&outcome, "failures"), number(&outcome, "verified")), (0, 5));
    // What is there already is compared, and what is missing written, round by round.
    fs::File::options().write(true).open(place.path("out/m")).unwrap().set_len(100_000_000).unwrap();
    fs::File::options().write(true).open(place.path("out/n")).unwrap().write_all_at(b"changed", 80_000_000).unwrap();
    place.restore("out", &[]);
    same_tree(&place.path("source"), &place.path("out"));
}

#[test]
fn a_long_file_that_lost_a_part_is_told_once_and_leaves_nothing() {
    let place = restored_in_rounds();
    let packs = place.objects("packs");
    let mut large: Vec<_> = packs.iter().filter(|pack| fs::metadata(pack).unwrap().len() > 10_000_000).collect();
    large.sort_by_key(|pack| fs::metadata(pack).unwrap().modified().unwrap());
    // The first part of the file, which is written while the others are planned.
    fs::remove_file(large[1]).unwrap();
    let ran = place.run(&["--json", "restore", "latest", "--target", "out"]).expect_code(1);
    let outcome = &ran.json()["outcome"];
    let failed = outcome["failed"].as_array().unwrap();
    assert!(failed.iter().any(|what| what.as_str().unwrap().contains("/m: ")), "{failed:?}");
    assert_eq!(failed.iter().filter(|what| what.as_str().unwrap().contains("out/m: ")).count(), 1, "{failed:?}");
    assert!(!place.path("out/m").exists());
    assert_eq!(number(outcome, "entries") + number(outcome, "failures"), 7);
    assert_eq!(fs::read(place.path("out/z/file")).unwrap(), noise(7, 30_000));
    // Nothing else was made: what is taken back is no more than what was counted.
    let alone = place.run(&["--json", "restore", "latest:/m", "--target", "alone"]).expect_code(1).json();
    let alone = &alone["outcome"];
    assert_eq!((number(alone, "entries"), number(alone, "failures"), number(alone, "bytes")), (0, 1, 0));
}
