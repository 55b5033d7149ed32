//! Mirrors through the program: a mirror is the repository, opened by the same keys; what is damaged or gone
//! at the source harms nothing there.

use super::{day, days, noise};
use crate::files::tree::same_tree;
use crate::support::{Place, Ran, change, files_below};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

#[track_caller]
fn mirror(place: &Place, more: &[&str]) -> Value {
    place.run(&[&["copy", "--raw", "--to", "mirror", "--json"], more].concat()).expect_code(0).json()["mirror"]
        .clone()
}

fn there(place: &Place, arguments: &[&str]) -> Ran {
    Ran::of(place.command(arguments).env("ESTRATO_REPO", "mirror"))
}

/// All objects of both, but for what belongs to one place.
fn objects(place: &Place, repo: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let root = place.path(repo).join("tenants");
    let own = |path: &Path| path.iter().any(|part| part == "sessions" || part == "prune");
    let files = files_below(&root).into_iter();
    files
        .map(|f| (f.strip_prefix(&root).unwrap().to_owned(), fs::read(f).unwrap()))
        .filter(|(f, _)| !own(f))
        .collect()
}

#[track_caller]
fn assert_same(place: &Place) {
    assert!(objects(place, "repo") == objects(place, "mirror"));
    let _ = fs::remove_dir_all(place.path("out"));
    place.run(&["restore", "latest", "--target", "out/a"]).expect_code(0);
    there(place, &["restore", "latest", "--target", "out/b"]).expect_code(0);
    same_tree(&place.path("out/a"), &place.path("out/b"));
    let checked = there(place, &["check", "--read-data"]).expect_code(0);
    assert!(checked.stdout().contains("no damage"), "{}", checked.stdout());
    let compared = place.run(&["check", "--against", "mirror", "--store-only", "--read-data"]).expect_code(0);
    assert!(compared.stdout().contains("byte for byte"), "{}", compared.stdout());
}

fn copied(done: &Value) -> u64 {
    done["copied"].as_object().unwrap().values().map(|count| count["objects"].as_u64().unwrap()).sum()
}

#[test]
fn a_mirror_is_the_repository_and_takes_no_key() {
    let place = days(3);
    place.run(&["tenant", "add", "second", "--new-key-file", "key2"]).expect_code(0);
    let hold = place.run(&["hold", "add", "latest", "--why", "case 1"]).expect_code(0);
    drop(hold);
    fs::rename(place.path("key"), place.path("away")).unwrap();
    let looked = mirror(&place, &["--dry-run"]);
    assert!(!place.path("mirror").exists(), "a dry run makes nothing");
    let done = mirror(&place, &[]);
    assert!(copied(&done) > 10 && copied(&looked) == copied(&done), "{done}");
    assert_eq!(copied(&mirror(&place, &[])), 0);
    fs::rename(place.path("away"), place.path("key")).unwrap();
    assert_same(&place);
    assert_eq!(there(&place, &["tenant", "list"]).expect_code(0).stdout(), "default\nsecond\n");
    // What is new comes, and no more than that.
    day(&place, 3);
    place.snapshot(&[]);
    let next = mirror(&place, &["--only", "default"]);
    assert_eq!(next["copied"]["snapshots"]["objects"], 1, "{next}");
    assert_same(&place);
    // And a mirror of the mirror is one too.
    place.run(&["-r", "mirror", "copy", "--raw", "--to", "third"]).expect_code(0);
    place.run(&["-r", "third", "check", "--read-data"]).expect_code(0);
    place.run(&["copy", "--raw", "--to", "mirror", "--only", "none"]).expect_code(1);
}

#[test]
fn two_places_of_one_repository_do_not_fight_on_one_machine() {
    let place = days(2);
    mirror(&place, &[]);
    there(&place, &["check"]).expect_code(0);
    for n in 2..4 {
        day(&place, n);
        place.snapshot(&["--host", "db1"]);
    }
    place.run(&["key", "add", "--role", "writer", "--new-key-file", "writer"]).expect_code(0);
    // The mirror is behind in snapshots and signers, and that is no rollback.
    for _ in 0..2 {
        let listed = there(&place, &["snapshots"]).expect_code(0);
        assert!(!listed.stderr().contains("missing") && !listed.stderr().contains("older"), "{}", listed.stderr());
        let listed = place.run(&["snapshots"]).expect_code(0);
        assert!(!listed.stderr().contains("missing"), "{}", listed.stderr());
    }
    mirror(&place, &[]);
    assert_same(&place);
    // What the mirror had shown is missed there, if it is gone, and nowhere else.
    let all = there(&place, &["snapshots", "--json"]).expect_code(0).json();
    let newest = all.as_array().unwrap().last().unwrap()["id"].as_str().unwrap().to_owned();
    fs::remove_file(place.path(format!("mirror/tenants/default/snapshots/{newest}"))).unwrap();
    let listed = there(&place, &["snapshots"]).expect_code(4);
    assert!(listed.stderr().contains("missing"), "{}", listed.stderr());
    place.run(&["snapshots"]).expect_code(0);
}

#[test]
fn nothing_is_backed_up_or_pruned_at_a_mirror() {
    let place = days(1);
    mirror(&place, &[]);
    let mut backup = place.command_in("source", &["snapshot", "."]);
    let refused = [
        Ran::of(backup.env("ESTRATO_REPO", place.path("mirror"))),
        there(&place, &["prune"]),
        place.run(&["copy", "--to", "mirror"]),
    ];
    for (n, ran) in refused.into_iter().enumerate() {
        let told = ran.expect_code(2).stderr();
        assert!(told.contains(if n < 2 { "is a mirror" } else { "onto itself" }), "{told}");
    }
    // It can be copied to a repository of its own.
    place.run(&["-r", "own", "init", "--like", "mirror"]).expect_code(0);
    let done = place.run(&["-r", "mirror", "copy", "--to", "own", "--json"]).expect_code(0).json();
    assert_eq!(done["copied"].as_array().unwrap().len(), 2);
    place.run(&["-r", "own", "check", "--read-data"]).expect_code(0);
}

#[test]
fn who_calls_a_repository_a_mirror_does_not_make_this_machine_forget() {
    let place = days(2);
    place.run(&["snapshots"]).expect_code(0);
    let id = "ab".repeat(16);
    change(&place.path("repo/repo.json"), |bytes| {
        let text = String::from_utf8(bytes.clone()).unwrap().replace("\"}", &format!("\", \"mirror\": \"{id}\"}}"));
        *bytes = text.into_bytes();
    });
    let told = place.run(&["snapshots"]).expect_code(0).stderr();
    assert!(told.contains("says that a mirror lies there"), "{told}");
    let refused = Ran::of(&mut place.command_in("source", &["snapshot", "."])).expect_code(1).stderr();
    assert!(refused.contains("repo.json"), "{refused}");
}

#[test]
fn what_is_pruned_goes_from_the_mirror_only_if_that_is_asked_for() {
    let place = days(5);
    mirror(&place, &[]);
    let all = objects(&place, "mirror");
    place.run(&["forget", "--keep-last", "1"]).expect_code(0);
    place.run(&["prune", "--max-unused", "0%"]).expect_code(0);
    let done = mirror(&place, &[]);
    assert!(done["kept"]["objects"].as_u64().unwrap() > 0 && done["deleted"]["objects"] == 0, "{done}");
    let after = objects(&place, "mirror");
    assert!(all.iter().all(|object| after.contains(object)), "nothing is gone");
    there(&place, &["check", "--read-data"]).expect_code(0);
    let looked = mirror(&place, &["--delete", "--dry-run"]);
    assert!(looked["deleted"]["objects"].as_u64().unwrap() > 0, "{looked}");
    assert!(objects(&place, "mirror") == after);
    let done = mirror(&place, &["--delete"]);
    assert_eq!(done["deleted"], looked["deleted"]);
    assert_same(&place);
}

#[test]
fn an_erased_source_does_not_erase_the_mirror() {
    let place = days(3);
    mirror(&place, &[]);
    let all = objects(&place, "mirror");
    let folder = place.path("repo/tenants/default");
    for what in ["snapshots", "index", "packs"] {
        fs::rename(folder.join(what), place.path("away")).unwrap();
        for more in [&[][..], &["--delete"]] {
            let ran = place.run(&[&["copy", "--raw", "--to", "mirror"], more].concat());
            let told = ran.stderr();
            let expected = i32::from(!more.is_empty());
            assert_eq!(ran.code(), expected, "{what}: {told}");
            assert!(more.is_empty() || told.contains("nothing is deleted"), "{told}");
        }
        assert!(objects(&place, "mirror") == all, "{what}");
        fs::rename(place.path("away"), folder.join(what)).unwrap();
    }
    fs::rename(&folder, place.path("away")).unwrap();
    place.run(&["copy", "--raw", "--to", "mirror", "--delete"]).expect_code(0);
    assert!(objects(&place, "mirror") == all, "a tenant that is gone");
    fs::remove_file(place.path("repo/repo.json")).unwrap();
    place.run(&["copy", "--raw", "--to", "mirror", "--delete"]).expect_code(10);
    assert!(objects(&place, "mirror") == all);
}

#[test]
fn a_hold_at_the_mirror_holds_there() {
    let place = days(3);
    let first = place.run(&["snapshots", "--json", "--tag", "d0"]).json()[0]["id"].as_str().unwrap().to_owned();
    place.run(&["hold", "add", &first]).expect_code(0);
    mirror(&place, &[]);
    // Who holds the source's store takes hold and snapshot away.
    for folder in ["holds", "snapshots"] {
        fs::remove_file(place.path(format!("repo/tenants/default/{folder}/{first}"))).unwrap();
    }
    let ran = place.run(&["copy", "--raw", "--to", "mirror", "--delete"]).expect_code(1);
    assert!(ran.stderr().contains("under hold at the mirror"), "{}", ran.stderr());
    there(&place, &["restore", &first, "--target", "held"]).expect_code(0);
}

#[test]
fn damage_is_not_mirrored_and_is_mended() {
    let place = days(2);
    mirror(&place, &[]);
    let mut packs = place.objects("packs");
    packs.sort_by_key(|pack| fs::metadata(pack).unwrap().len());
    let pack = packs.last().unwrap().clone();
    let at_mirror = place.path("mirror").join(pack.strip_prefix(place.path("repo")).unwrap());
    let whole = fs::read(&pack).unwrap();
    // At the mirror: cut short is seen, one bit only by whoever compares.
    change(&at_mirror, |bytes| bytes.truncate(500));
    let done = mirror(&place, &[]);
    assert_eq!(done["mended"]["objects"], 1);
    assert!(fs::read(&at_mirror).unwrap() == whole);
    change(&at_mirror, |bytes| bytes[3000] ^= 1);
    place.run(&["check", "--against", "mirror", "--store-only"]).expect_code(0);
    let found =
        place.run(&["check", "--against", "mirror", "--store-only", "--read-data", "--json"]).expect_code(4).json();
    assert_eq!(found["objects"]["kinds"]["packs"]["differing"]["objects"], 1, "{found}");
    assert_eq!(mirror(&place, &[])["mended"]["objects"], 0);
    assert_eq!(mirror(&place, &["--verify"])["mended"]["objects"], 1);
    assert!(fs::read(&at_mirror).unwrap() == whole);
    // At the source: it is told, and what is whole stays, or comes back from there.
    change(&pack, |bytes| bytes[3000] ^= 1);
    let ran = place.run(&["copy", "--raw", "--to", "mirror", "--verify", "--delete"]).expect_code(4);
    assert!(ran.stdout().contains("not copied"), "{}", ran.stdout());
    assert!(fs::read(&at_mirror).unwrap() == whole);
    fs::remove_file(&pack).unwrap();
    place.run(&["-r", "mirror", "copy", "--raw", "--to", "repo"]).expect_code(0);
    assert_same(&place);
    place.write("x", noise("x", 10));
}

#[test]
fn what_differs_and_is_whole_at_both_is_told() {
    let place = days(1);
    mirror(&place, &[]);
    // A key that was admitted at each place by itself: two lists of one number.
    place.run(&["key", "add", "--role", "writer", "--new-key-file", "w1"]).expect_code(0);
    there(&place, &["key", "add", "--role", "writer", "--new-key-file", "w2"]).expect_code(0);
    for more in [&[][..], &["--delete"]] {
        let ran = place.run(&[&["copy", "--raw", "--to", "mirror"], more].concat()).expect_code(4);
        assert!(ran.stdout().contains("another object there: tenants/default/keys/signers."), "{}", ran.stdout());
        there(&place, &["snapshots"]).expect_code(0);
    }
}
