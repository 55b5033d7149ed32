//! What the program is given is wrong, or what it finds: it says so, and nothing is lost.

mod damage;
pub mod disk;
mod interrupted;

use crate::support::{Place, Ran, change};
use estrato::format::header;
use estrato::format::key::{Slot, Stretch};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Every command that opens a tenant.
const OPENING: [&[&str]; 7] = [
    &["snapshot", "source"],
    &["snapshots"],
    &["ls"],
    &["restore", "latest", "--target", "out"],
    &["check"],
    &["key", "list"],
    &["key", "add", "--new-key-file", "added"],
];

fn place_with_a_snapshot() -> Place {
    let place = Place::with_repository();
    place.write("source/a", "some text");
    place.snapshot(&[]);
    place
}

fn refused(ran: &Ran, words: &[&str]) {
    assert_eq!(ran.stdout(), "", "stderr: {}", ran.stderr());
    for word in words {
        assert!(ran.stderr().contains(word), "no {word:?} in {}", ran.stderr());
    }
}

#[test]
fn a_wrong_key_opens_nothing() {
    let place = place_with_a_snapshot();
    place.run(&["key", "show", "--new-key-file", "other"]).expect_code(0);
    for command in OPENING {
        refused(&place.run_as("other", command).expect_code(12), &["does not open", "--key-file"]);
    }
    assert!(!place.path("added").exists() && !place.path("out").exists());
    assert_eq!(place.snapshots(), 1);
}

#[test]
fn a_key_file_that_is_none_or_mistyped_is_told() {
    let place = place_with_a_snapshot();
    refused(&place.run_as("missing", &["snapshots"]).expect_code(12), &["missing", "--key-file"]);
    place.write("text", "this is no key\n");
    refused(&place.run_as("text", &["snapshots"]).expect_code(12), &["text"]);
    let key = fs::read_to_string(place.path("key")).unwrap();
    let mut typo = key.trim_end().as_bytes().to_vec();
    let at = typo.len() - 3;
    typo[at] = if typo[at] == b'7' { b'8' } else { b'7' };
    place.write("typo", typo);
    refused(&place.run_as("typo", &["snapshots"]).expect_code(12), &["typo", "mistyped"]);
}

#[test]
fn without_a_key_the_program_says_how_to_name_one() {
    let place = place_with_a_snapshot();
    for command in OPENING {
        let ran = Ran::of(place.command(command).env_remove("ESTRATO_KEY_FILE")).expect_code(12);
        refused(&ran, &["no key was given", "--key-file", "password"]);
    }
    assert!(!place.path("added").exists());
}

fn place_with_password() -> Place {
    let place = Place::new();
    place.write("source/a", "some text");
    let mut init = place.command(&["init", "--new-password"]);
    Ran::of(init.env_remove("ESTRATO_KEY_FILE").env("ESTRATO_NEW_PASSWORD", "correct horse")).expect_code(0);
    place
}

fn with_password(place: &Place, password: &str, arguments: &[&str]) -> Ran {
    Ran::of(place.command(arguments).env_remove("ESTRATO_KEY_FILE").env("ESTRATO_PASSWORD", password))
}

#[test]
fn a_wrong_password_opens_nothing() {
    let place = place_with_password();
    refused(&with_password(&place, "wrong", &["snapshots"]).expect_code(12), &["does not open", "password"]);
    refused(&with_password(&place, "", &["snapshots"]).expect_code(12), &["no key was given"]);
    with_password(&place, "correct horse", &["snapshots"]).expect_code(0);
}

/// Replaces the cost in the only slot of a repository that a password opens.
fn stretch(place: &Place, cost: Stretch) {
    let slot = place.objects("keys").into_iter().find(|p| p.extension().is_none()).unwrap();
    change(&slot, |bytes| {
        let body = header::opened(bytes).unwrap();
        let (head, record) = body.split_at(header::HEADER_LEN);
        let changed = Slot { stretch: Some(cost), ..Slot::decode(record).unwrap() };
        let mut object = [head, &changed.encode()].concat();
        header::close(&mut object);
        *bytes = object;
    });
}

#[test]
fn a_slot_with_absurd_argon2_parameters_is_refused_at_once() {
    for cost in [
        Stretch { memory: u32::MAX, passes: 1, lanes: 1 },
        Stretch { memory: 64 * 1024, passes: u32::MAX, lanes: 1 },
        Stretch { memory: 64 * 1024, passes: 1, lanes: u32::MAX },
        Stretch { memory: 0, passes: 0, lanes: 0 },
    ] {
        let place = place_with_password();
        stretch(&place, cost);
        // 2 GB of address space: an allocation of 4 TB would show.
        let mut limited = Command::new("sh");
        limited.args(["-c", "ulimit -v 2000000; exec \"$0\" snapshots", env!("CARGO_BIN_EXE_estrato")]);
        limited.current_dir(place.path("")).env_clear().env("HOME", place.path("")).env("ESTRATO_REPO", "repo");
        let began = Instant::now();
        let ran = Ran::of(limited.env("ESTRATO_PASSWORD", "correct horse")).expect_code(1);
        refused(&ran, &["tenants/default/keys/", "Argon2", "beyond the bounds"]);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
}

#[test]
fn a_damaged_slot_does_not_keep_other_keys_out() {
    let place = place_with_password();
    let admit = ["key", "add", "--new-key-file", "key"];
    with_password(&place, "correct horse", &admit).expect_code(0);
    let before = place.objects("keys");
    let mut second = place.command(&["key", "add", "--new-password"]);
    Ran::of(second.env("ESTRATO_NEW_PASSWORD", "second")).expect_code(0);
    for slot in place.objects("keys").iter().filter(|p| before.contains(p) && p.extension().is_none()) {
        change(slot, |bytes| bytes[40] ^= 1);
    }
    with_password(&place, "second", &["snapshots"]).expect_code(0);
    refused(&with_password(&place, "correct horse", &["snapshots"]).expect_code(1), &["is damaged"]);
}

#[test]
fn where_there_is_no_repository_every_command_says_so() {
    let place = Place::new();
    place.write("source/a", "x");
    place.run(&["key", "show", "--new-key-file", "key"]).expect_code(0);
    let tenants: [&[&str]; 3] =
        [&["tenant", "list"], &["tenant", "add", "x", "--new-key-file", "added"], &["key", "remove", "first"]];
    for command in OPENING.iter().chain(&tenants) {
        refused(&place.run(command).expect_code(10), &["there is no repository at", "estrato init"]);
        // Nor does a missing key hide it.
        let ran = Ran::of(place.command(command).env("ESTRATO_KEY_FILE", "missing")).expect_code(10);
        refused(&ran, &["there is no repository at"]);
    }
    for made in ["repo", "added", "out", ".cache"] {
        assert!(!place.path(made).exists(), "{made} was made");
    }
    // A folder that holds something else is none either.
    place.write("repo/notes.txt", "mine");
    place.run(&["snapshots"]).expect_code(10);
    assert_eq!(crate::support::files_below(&place.path("repo")).len(), 1);
}

#[test]
fn a_store_of_an_unknown_kind_is_wrong_usage() {
    let place = Place::new();
    refused(&place.run(&["-r", "ftp://host/repo", "snapshots"]).expect_code(2), &["ftp"]);
    refused(&place.run(&["-r", "", "snapshots"]).expect_code(2), &["empty"]);
}

#[test]
fn a_repository_of_a_newer_format_is_said_to_be_newer() {
    let place = place_with_a_snapshot();
    let newer = ["repo.json has format 1", "reads format 0", "newer version"];
    place.write("repo/repo.json", "{\"estrato\": 1, \"repository\": \"00112233445566778899aabbccddeeff\"}\n");
    for command in OPENING.iter().chain(&[&["init"][..], &["snapshot", "source", "--init"], &["tenant", "list"]]) {
        refused(&place.run(command).expect_code(1), &newer);
    }
}

#[test]
fn a_newer_format_may_say_the_rest_of_repo_json_otherwise() {
    let place = place_with_a_snapshot();
    for text in ["{\"estrato\": 1}", "{\"estrato\": 1, \"repository\": {\"id\": \"00\", \"name\": \"x\"}}"] {
        place.write("repo/repo.json", text);
        refused(&place.run(&["snapshots"]).expect_code(1), &["has format 1", "newer version"]);
    }
}

#[test]
fn a_damaged_repo_json_is_told_and_never_replaced() {
    let place = place_with_a_snapshot();
    for text in ["", "{", "[]", "{\"estrato\": 0}", "{\"estrato\": 0, \"repository\": \"x\"}", "\u{0}\u{1}\u{2}"] {
        let path = place.write("repo/repo.json", text);
        for command in OPENING.iter().chain(&[&["init"][..], &["snapshot", "source", "--init"]]) {
            let ran = place.run(command);
            let reads = ["snapshots", "ls", "restore", "check"].contains(&command[0]) || *command == ["key", "list"];
            assert!(ran.stderr().contains("repo.json is damaged"), "{}", ran.stderr());
            assert_eq!(
                ran.code(),
                if !reads {
                    1
                } else if command[0] == "check" {
                    4
                } else {
                    0
                },
                "{command:?}"
            );
        }
        assert_eq!(fs::read_to_string(path).unwrap(), text);
    }
    // Nor is it read without bound.
    place.write("repo/repo.json", vec![b' '; 1 << 20]);
    let ran = place.run(&["snapshots"]).expect_code(0);
    assert!(ran.stderr().contains("repo.json") && ran.stderr().contains("at most"), "{}", ran.stderr());
}

/// As a newer program would have written it: with a hash that is right.
fn newer(path: &Path) {
    change(path, |bytes| {
        bytes[4] += 1;
        let body = bytes.len() - 32;
        let hash = blake3::hash(&bytes[..body]);
        bytes[body..].copy_from_slice(hash.as_bytes());
    });
}

/// The same for what is named by its hash; its new name.
fn newer_under_its_name(path: &Path) -> PathBuf {
    newer(path);
    let bytes = fs::read(path).unwrap();
    let name: String = bytes[bytes.len() - 32..].iter().map(|b| format!("{b:02x}")).collect();
    let named = path.with_file_name(name);
    fs::rename(path, &named).unwrap();
    named
}

const NEWER: &str = "has format 1; this program reads format 0";

#[test]
fn a_tenant_or_slot_of_a_newer_format_is_said_to_be_newer() {
    for name in ["tenant", "slot"] {
        let place = place_with_a_snapshot();
        match name {
            "tenant" => newer(&place.path("repo/tenants/default/tenant")),
            _ => newer(&place.objects("keys").into_iter().find(|p| p.extension().is_none()).unwrap()),
        }
        for command in OPENING {
            refused(&place.run(command).expect_code(1), &[NEWER, "newer version"]);
        }
    }
}

#[test]
fn a_snapshot_of_a_newer_format_is_said_to_be_newer() {
    let place = place_with_a_snapshot();
    let id = place.run(&["snapshots", "--json"]).json()[0]["id"].as_str().unwrap().to_owned();
    let second = place.snapshot(&[])["snapshot"].as_str().unwrap().to_owned();
    newer(&place.path("repo/tenants/default/snapshots").join(&id));
    let ran = place.run(&["snapshots", "--json"]).expect_code(4);
    assert!(ran.stderr().contains(NEWER), "{}", ran.stderr());
    assert_eq!(ran.json().as_array().unwrap().len(), 1);
    assert_eq!(ran.json()[0]["id"], second);
    let ran = place.run(&["restore", &id, "--target", "out"]).expect_code(1);
    refused(&ran, &[NEWER, "newer version"]);
    assert!(!place.path("out").exists());
    let ran = place.run(&["check"]).expect_code(4);
    assert!(ran.stdout().contains(&id) && ran.stdout().contains("format 1"), "{}", ran.stdout());
}

#[test]
fn an_index_object_of_a_newer_format_is_said_to_be_newer() {
    let place = place_with_a_snapshot();
    newer_under_its_name(&place.objects("index")[0]);
    // What it does not name can be read; an older program does not write beside it.
    for (command, code) in [(&["restore", "latest", "--target", "out"][..], 1), (&["ls"], 4)] {
        let ran = place.run(&[&["--cache-dir", "fresh"], command].concat()).expect_code(code);
        assert!(ran.stderr().contains(NEWER), "{}", ran.stderr());
    }
    let ran = place.run(&["--cache-dir", "fresh", "check"]).expect_code(4);
    assert!(ran.stdout().contains(NEWER), "{}", ran.stdout());
    let ran = place.run(&["--cache-dir", "fresh", "snapshot", "source"]).expect_code(1);
    refused(&ran, &[NEWER, "newer version"]);
    assert_eq!(place.objects("sessions"), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_pack_of_a_newer_format_is_said_to_be_newer() {
    let place = place_with_a_snapshot();
    for pack in place.objects("packs") {
        newer(&pack);
    }
    let ran = place.run(&["restore", "latest", "--target", "out"]).expect_code(1);
    assert!(ran.stderr().contains(NEWER), "{}", ran.stderr());
    let ran = place.run(&["check", "--read-data"]);
    assert!([1, 4].contains(&ran.code()), "{}", ran.code());
    assert!([ran.stdout(), ran.stderr()].concat().contains("format 1"), "{}{}", ran.stdout(), ran.stderr());
}

#[test]
fn a_path_that_does_not_exist_makes_no_snapshot() {
    let place = Place::with_repository();
    place.write("source/a", "x");
    for paths in [&["nowhere"][..], &["source", "nowhere"], &["nowhere", "source"], &["source/a/b"]] {
        refused(
            &place.run(&[&["snapshot"], paths].concat()).expect_code(1),
            &["cannot read", paths.last().unwrap()][..1],
        );
    }
    // Nor is anything made for it.
    refused(&place.run(&["snapshot", "--init", "-r", "new", "nowhere"]).expect_code(1), &["nowhere"]);
    assert!(!place.path("new").exists());
    assert_eq!(place.snapshots(), 0);
    assert!(place.objects("sessions").is_empty());
}

#[test]
fn two_tenants_keys_open_nothing_of_the_other() {
    let place = place_with_a_snapshot();
    place.run(&["tenant", "add", "other", "--new-key-file", "other"]).expect_code(0);
    place.run_as("other", &["-t", "other", "snapshot", "source"]).expect_code(0);
    for (key, tenant) in [("key", "other"), ("other", "default")] {
        for command in OPENING {
            let arguments = [&["-t", tenant][..], command].concat();
            refused(&place.run_as(key, &arguments).expect_code(12), &[&format!("tenant {tenant}")]);
        }
    }
    assert!(!place.path("added").exists() && !place.path("out").exists());
    place.restore("out-default", &[]);
    place.run_as("other", &["-t", "other", "restore", "latest", "--target", "out-other"]).expect_code(0);
    assert_eq!(fs::read(place.path("out-default/a")).unwrap(), b"some text");
    assert_eq!(fs::read(place.path("out-other/source/a")).unwrap(), b"some text");
}

#[test]
fn objects_of_one_tenant_are_none_of_another() {
    let place = place_with_a_snapshot();
    // One key for both: it is the tenant that keeps them apart.
    place.run(&["tenant", "add", "other"]).expect_code(0);
    let snapshot = &place.objects("snapshots")[0];
    let to = place.path("repo/tenants/other/snapshots").join(snapshot.file_name().unwrap());
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(snapshot, to).unwrap();
    let ran = place.run(&["-t", "other", "snapshots", "--json"]).expect_code(4);
    assert_eq!(ran.json().as_array().unwrap().len(), 0);
    assert!(ran.stderr().contains("is damaged"), "{}", ran.stderr());
}

#[test]
fn a_tenant_that_is_not_there_is_told() {
    let place = place_with_a_snapshot();
    for command in OPENING {
        let ran = place.run(&[&["-t", "nobody"][..], command].concat()).expect_code(1);
        refused(&ran, &["no tenant named nobody", "tenant list"]);
    }
    assert!(!place.path("repo/tenants/nobody").exists() && !place.path("added").exists());
}

#[test]
fn names_that_cannot_be_a_tenants_are_wrong_usage() {
    let place = place_with_a_snapshot();
    let long = "a".repeat(65);
    for name in ["", ".", "..", "../default", "a/b", "A", "é", "a b", "a\nb", &long] {
        refused(&place.run(&[&format!("--tenant={name}"), "snapshots"]).expect_code(2), &["cannot name a tenant"]);
        let ran = place.run(&["tenant", "add", "--new-key-file", "added", "--", name]).expect_code(2);
        refused(&ran, &["cannot name a tenant"]);
        let ran = place.run(&["init", "-r", "new", "--new-key-file", "added", &format!("--tenant={name}")]);
        refused(&ran.expect_code(2), &["cannot name a tenant"]);
        assert!(!place.path("added").exists(), "a key for {name:?}");
        assert!(!place.path("new").exists(), "a repository for {name:?}");
    }
    assert_eq!(place.run(&["tenant", "list"]).stdout(), "default\n");
}

#[test]
fn what_names_no_snapshot_or_path_is_told() {
    let place = place_with_a_snapshot();
    for (name, code) in [("latest~1", 1), ("ffffffff", 1), ("abc", 2), ("latest:nowhere", 1), ("latest:a/b", 1)] {
        for command in [&["ls", name][..], &["restore", name, "--target", "out"]] {
            refused(&place.run(command).expect_code(code), &["estrato: "]);
        }
    }
    assert!(!place.path("out").exists());
}
