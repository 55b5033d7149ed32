//! Keys, roles and tenants, as an operator meets them.

pub mod crash;
mod operator;
mod rekey;
mod rotate;

use crate::support::{Place, Ran, grow_old, noise};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

/// Runs the program with no key named but what `set` names.
fn with(place: &Place, set: &[(&str, &str)], arguments: &[&str]) -> Ran {
    let mut command = place.command(arguments);
    Ran::of(command.env_remove("ESTRATO_KEY_FILE").envs(set.iter().copied()))
}

fn summary(document: &serde_json::Value, name: &str) -> u64 {
    document["manifest"]["summary"][name].as_u64().unwrap()
}

#[test]
fn a_new_key_file_is_for_its_owner_alone_and_never_overwritten() {
    let place = Place::new();
    place.run(&["init", "--new-key-file", "deep/down/key"]).expect_code(0);
    let mode = |name: &str| fs::metadata(place.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("deep/down/key"), mode("deep")), (0o600, 0o700));
    let before = fs::read(place.path("deep/down/key")).unwrap();
    let commands: [&[&str]; 4] = [
        &["-r", "second", "init", "--new-key-file", "deep/down/key"],
        &["key", "add", "--new-key-file", "deep/down/key"],
        &["key", "show", "--new-key-file", "deep/down/key"],
        &["tenant", "add", "x", "--new-key-file", "deep/down/key"],
    ];
    for command in commands {
        let ran = place.run_as("deep/down/key", command).expect_code(1);
        assert!(ran.stderr().contains("never overwritten"), "{}", ran.stderr());
    }
    assert_eq!(fs::read(place.path("deep/down/key")).unwrap(), before);
    assert!(!place.path("second").exists() && !place.path("repo/tenants/x").exists());
    let list = place.run_as("deep/down/key", &["key", "list", "--json"]).expect_code(0).json();
    assert_eq!(list.as_array().unwrap().len(), 1);
}

#[test]
fn without_a_word_the_key_lies_under_the_users_configuration_folder() {
    let place = Place::new();
    let ran = with(&place, &[], &["init"]).expect_code(0);
    let key = place.path(".config/estrato/key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(
        ran.stdout().contains("copy this key") && ran.stdout().contains(key.to_str().unwrap()),
        "{}",
        ran.stdout()
    );
    with(&place, &[], &["snapshots"]).expect_code(0);
    // A second repository is opened by the same one.
    let ran = with(&place, &[], &["-r", "second", "init"]).expect_code(0);
    assert!(!ran.stdout().contains("copy this key"), "{}", ran.stdout());
    with(&place, &[], &["-r", "second", "snapshots"]).expect_code(0);
}

#[test]
fn a_password_opens_from_wherever_it_comes() {
    let place = Place::new();
    with(&place, &[("ESTRATO_NEW_PASSWORD", "correct horse")], &["init", "--new-password"]).expect_code(0);
    assert!(!place.path(".config").exists(), "a key that nobody asked for");
    place.write("pw", "correct horse\nanother line\n");
    place.write("crlf", "correct horse\r\n");
    with(&place, &[("ESTRATO_PASSWORD", "correct horse")], &["snapshots"]).expect_code(0);
    with(&place, &[], &["snapshots", "--password-file", "pw"]).expect_code(0);
    with(&place, &[], &["snapshots", "--password-file", "crlf"]).expect_code(0);
    with(&place, &[], &["snapshots", "--password-command", "cat pw"]).expect_code(0);
    with(&place, &[("ESTRATO_PASSWORD", "wrong")], &["snapshots", "--password-file", "pw"]).expect_code(0);
    for (arguments, says) in [
        (&["snapshots", "--password-file", "missing"][..], "missing"),
        (&["snapshots", "--password-command", "cat pw; exit 3"], "password command failed"),
        (&["snapshots", "--password-command", "echo wrong"], "does not open"),
        (&["snapshots", "--password-file", "/dev/zero"], "too large"),
    ] {
        let ran = with(&place, &[], arguments).expect_code(12);
        assert!(ran.stderr().contains(says), "{}", ran.stderr());
        assert!(!ran.stderr().contains("horse"), "a password is printed");
    }
    let ran = with(&place, &[("ESTRATO_PASSWORD", "correct horse")], &["key", "show"]).expect_code(2);
    assert_eq!(ran.stdout(), "");
}

#[test]
fn a_password_option_outweighs_a_key_file_of_the_environment() {
    let place = Place::new();
    with(&place, &[("ESTRATO_NEW_PASSWORD", "correct horse")], &["init", "--new-password"]).expect_code(0);
    place.write("pw", "correct horse\n");
    place.run(&["key", "show", "--new-key-file", "key"]).expect_code(0);
    // What is said for this command stands above what is said for all.
    place.run(&["snapshots", "--password-file", "pw"]).expect_code(0);
    place.run(&["snapshots", "--password-command", "cat pw"]).expect_code(0);
}

#[test]
fn without_a_terminal_a_new_password_is_not_asked_for() {
    let place = Place::new();
    let mut command = std::process::Command::new("setsid");
    command.args(["--wait", env!("CARGO_BIN_EXE_estrato"), "init", "--new-password"]).current_dir(place.path(""));
    command.env("HOME", place.path("")).env("ESTRATO_REPO", "repo").env_remove("ESTRATO_KEY_FILE");
    let ran = Ran::of(command.stdin(std::process::Stdio::null())).expect_code(12);
    assert!(ran.stderr().contains("ESTRATO_NEW_PASSWORD"), "{}", ran.stderr());
    assert!(!place.path("repo").exists());
}

/// A place with a source, and a writer key in the file of that name.
fn place_with_writer(writer: &str) -> Place {
    let place = Place::with_repository();
    place.write("source/a", noise("a", 200_000));
    place.write("source/b", noise("b", 100_000));
    admit(&place, writer);
    place
}

fn admit(place: &Place, writer: &str) {
    place.run(&["key", "add", "--role", "writer", "--label", writer, "--new-key-file", writer]).expect_code(0);
}

/// A snapshot of the source by a key, with state of its own on a machine of its own.
fn snapshot_as(place: &Place, key: &str) -> serde_json::Value {
    let cache = format!("cache-{key}");
    place.run_as(key, &["--cache-dir", &cache, "snapshot", "source", "--json"]).expect_code(0).json()
}

#[test]
fn a_writer_takes_snapshots_and_reads_none() {
    let place = place_with_writer("writer");
    let first = snapshot_as(&place, "writer");
    assert!(summary(&first, "new_bytes") >= 300_000);
    // Its own notes tell what is unchanged, once files are not too young to tell.
    grow_old(&place.path("source/b"));
    snapshot_as(&place, "writer");
    place.write("source/c", noise("c", 50_000));
    let third = snapshot_as(&place, "writer");
    assert_eq!(third["manifest"]["kind"], "incremental");
    assert!((50_000..60_000).contains(&summary(&third, "new_bytes")), "{third}");
    assert!(summary(&third, "read_bytes") < 100_000, "unchanged files are not read: {third}");

    let commands: [&[&str]; 8] = [
        &["snapshots"],
        &["ls"],
        &["restore", "latest", "--target", "out"],
        &["key", "add", "--new-key-file", "more"],
        &["key", "add", "--role", "writer", "--new-key-file", "more"],
        &["key", "remove", "first"],
        &["key", "remove", "writer"],
        &["ls", third["snapshot"].as_str().unwrap()],
    ];
    for command in commands {
        let ran = place.run_as("writer", command).expect_code(12);
        assert_eq!(ran.stdout(), "");
        let told = ran.stderr();
        assert!(told.contains("a writer key cannot") && told.contains("use a full key"), "{told}");
    }
    assert!(!place.path("out").exists() && !place.path("more").exists());
    let ran = place.run_as("writer", &["check"]).expect_code(0);
    assert!(ran.stdout().contains("not checked: snapshots"), "{}", ran.stdout());
    place.run_as("writer", &["key", "list"]).expect_code(0);

    place.restore("out", &["--verify"]);
    for name in ["a", "b", "c"] {
        let restored = fs::read(place.path("out/source").join(name)).unwrap();
        assert_eq!(restored, fs::read(place.path("source").join(name)).unwrap());
    }
    let listed = place.run(&["snapshots", "--json"]).expect_code(0).json();
    assert!(listed.as_array().unwrap().iter().all(|s| s["signer"] == "writer"), "{listed}");
}

#[test]
fn a_writer_that_lost_its_state_reads_everything_and_stores_nothing_again() {
    let place = place_with_writer("writer");
    snapshot_as(&place, "writer");
    fs::remove_dir_all(place.path("cache-writer")).unwrap();
    let second = snapshot_as(&place, "writer");
    assert_eq!(second["manifest"]["kind"], "full");
    assert!(summary(&second, "read_bytes") >= 300_000);
    assert_eq!(summary(&second, "new_bytes"), 0, "{second}");
}

#[test]
fn a_writer_relies_on_a_full_keys_blobs_and_on_no_other_writers() {
    let place = place_with_writer("one");
    admit(&place, "two");
    assert!(summary(&snapshot_as(&place, "one"), "new_bytes") >= 300_000);
    // Whatever another writer says that it holds, this one stores for itself.
    assert!(summary(&snapshot_as(&place, "two"), "new_bytes") >= 300_000);
    // A full key relies on no writer either.
    assert!(summary(&snapshot_as(&place, "key"), "new_bytes") >= 300_000);
    // But anyone relies on a full key.
    admit(&place, "three");
    assert!(summary(&snapshot_as(&place, "three"), "new_bytes") < 1000);
    place.restore("out", &["--verify"]);
    place.run(&["check", "--read-data"]).expect_code(0);
}

#[test]
fn a_removed_writer_writes_no_more_and_what_it_wrote_is_restored() {
    let place = place_with_writer("writer");
    snapshot_as(&place, "writer");
    let slots = place.objects("keys").len();
    let told = place.run(&["key", "remove", "writer"]).expect_code(0).stdout();
    assert!(told.contains("removed writer key") && told.contains("id key"), "{told}");
    assert_eq!(place.objects("keys").len(), slots, "a slot less, and a newer list");
    let ran = place.run_as("writer", &["snapshot", "source"]);
    assert_eq!((ran.code(), ran.stdout()), (12, String::new()), "{}", ran.stderr());
    assert_eq!(place.snapshots(), 1);
    place.restore("out", &["--verify"]);
    let list = place.run(&["key", "list"]).expect_code(0).stdout();
    assert!(list.lines().any(|l| l.contains("writer") && l.contains("removed")), "{list}");
    place.run(&["key", "remove", "writer"]).expect_code(1);
}

#[test]
fn a_removed_key_whose_slot_was_put_back_is_refused() {
    let place = place_with_writer("writer");
    let list = place.run(&["key", "list", "--json"]).json();
    let slot = list.as_array().unwrap().iter().find(|k| k["role"] == "writer").unwrap()["slot"].as_str().unwrap();
    let slot = place.path("repo/tenants/default/keys").join(slot);
    let kept = fs::read(&slot).unwrap();
    place.run(&["key", "remove", "writer"]).expect_code(0);
    fs::write(&slot, kept).unwrap();
    let ran = place.run_as("writer", &["snapshot", "source"]).expect_code(12);
    assert!(ran.stderr().contains("was removed"), "{}", ran.stderr());
    assert_eq!((place.objects("sessions").len(), place.snapshots()), (0, 0));
}

#[test]
fn the_last_full_key_stays() {
    let place = place_with_writer("writer");
    for which in ["first", "key"] {
        let ran = place.run(&["key", "remove", which]);
        assert_ne!(ran.code(), 0);
    }
    let ran = place.run(&["key", "remove", "first"]).expect_code(2);
    assert!(ran.stderr().contains("last full key"), "{}", ran.stderr());
    place.run(&["snapshots"]).expect_code(0);
    place.run(&["key", "add", "--label", "second", "--new-key-file", "second"]).expect_code(0);
    place.run_as("second", &["key", "remove", "first"]).expect_code(0);
    place.run(&["snapshots"]).expect_code(12);
    place.run_as("second", &["snapshots"]).expect_code(0);
    place.run_as("second", &["key", "remove", "second"]).expect_code(2);
    place.run_as("second", &["key", "remove", "nobody"]).expect_code(1);
}

#[test]
fn a_recipient_is_admitted_without_showing_a_key() {
    let place = Place::with_repository();
    place.write("source/a", "some text");
    place.snapshot(&[]);
    let text = place.run(&["key", "show", "--new-key-file", "theirs"]).expect_code(0).stdout();
    assert!(text.starts_with("ESTRATO-RECIPIENT-0 ") && text.lines().count() == 1, "{text}");
    assert_eq!(place.run_as("theirs", &["key", "show", "--recipient"]).expect_code(0).stdout(), text);
    place.run_as("theirs", &["snapshots"]).expect_code(12);
    place.run(&["key", "add", "--recipient", text.trim(), "--label", "theirs"]).expect_code(0);
    place.run_as("theirs", &["restore", "latest", "--target", "out"]).expect_code(0);
    assert_eq!(fs::read(place.path("out/a")).unwrap(), b"some text");
    let ran = place.run(&["key", "add", "--recipient", text.trim()]).expect_code(1);
    assert!(ran.stderr().contains("exists already"), "{}", ran.stderr());

    // The same from a file, as a writer.
    let other = place.run(&["key", "show", "--new-key-file", "writer"]).expect_code(0).stdout();
    place.write("writer.txt", &other);
    place.run(&["key", "add", "--role", "writer", "--recipient", "@writer.txt"]).expect_code(0);
    place.run_as("writer", &["snapshot", "source"]).expect_code(0);
    place.run_as("writer", &["snapshots"]).expect_code(12);
    let kinds = place.run(&["key", "list", "--json"]).json();
    let kinds: Vec<_> = kinds.as_array().unwrap().iter().map(|k| k["kind"].as_str().unwrap().to_owned()).collect();
    assert_eq!(kinds, ["key-file", "recipient", "recipient"]);

    for bad in ["", "hello", "ESTRATO-RECIPIENT-0 AAAA", &text[..text.len() / 2], "@missing"] {
        assert_ne!(place.run(&["key", "add", "--recipient", bad]).code(), 0, "{bad}");
    }
    // A whole key is no public half; nor may it be echoed.
    let key = place.run(&["key", "show"]).expect_code(0).stdout();
    let ran = place.run(&["key", "add", "--recipient", key.lines().next().unwrap()]).expect_code(2);
    assert!(!ran.stderr().contains(&key[14..40]), "{}", ran.stderr());
}

#[test]
fn a_key_kept_on_paper_opens_when_it_is_typed_again() {
    let place = Place::with_repository();
    let text = place.run(&["key", "show"]).expect_code(0).stdout();
    let line = text.lines().next().unwrap();
    assert!(fs::read_to_string(place.path("key")).unwrap().contains(line));
    let (head, letters) = line.split_once(' ').unwrap();
    let typed = letters.to_lowercase().replace('0', "o").replace('1', "l").replace('-', " ");
    place.write("typed", format!("\n# from the safe\n  {head} {typed}\n\n"));
    place.run_as("typed", &["snapshots"]).expect_code(0);
    place.write("shouted", format!("{head} {}", letters.replace('0', "O").replace('1', "I").replace('-', "")));
    place.run_as("shouted", &["snapshots"]).expect_code(0);
    place.write("lower", line.to_lowercase());
    place.run_as("lower", &["snapshots"]).expect_code(0);
}

#[test]
fn the_list_of_keys_tells_each() {
    let place = place_with_writer("writer");
    let mut add = place.command(&["key", "add", "--new-password", "--label", "the boss"]);
    let added = Ran::of(add.env("ESTRATO_NEW_PASSWORD", "correct horse").arg("--json")).expect_code(0).json();
    assert_eq!(
        (&added["role"], &added["kind"], &added["label"]),
        (&"full".into(), &"password".into(), &"the boss".into())
    );
    let list = place.run(&["key", "list", "--json"]).expect_code(0).json();
    let list = list.as_array().unwrap();
    let of = |name: &str| list.iter().map(|k| k[name].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(of("label"), ["first", "writer", "the boss"]);
    assert_eq!(of("role"), ["full", "writer", "full"]);
    assert_eq!(of("kind"), ["key-file", "key-file", "password"]);
    assert_eq!(of("slot").iter().collect::<BTreeSet<_>>().len(), 3);
    assert_eq!(of("signer").iter().collect::<BTreeSet<_>>().len(), 3);
    assert!(list.iter().all(|k| k["removed"].is_null()));
    let text = place.run(&["key", "list"]).expect_code(0).stdout();
    assert!(text.lines().nth(1).unwrap().ends_with("this one"), "{text}");
    let by_slot = of("slot")[1][..8].to_owned();
    place.run(&["key", "remove", &by_slot]).expect_code(0);
    place.run_as("writer", &["snapshot", "source"]).expect_code(12);
    // A way to open is to be named.
    place.run(&["key", "add"]).expect_code(2);
    place.run(&["key", "add", "--new-password", "--new-key-file", "both"]).expect_code(2);
}

#[test]
fn operators_who_add_keys_at_once_undo_nothing() {
    let place = Place::with_repository();
    let names: Vec<String> = (0..4).map(|n| format!("added-{n}")).collect();
    let running: Vec<_> = names
        .iter()
        .map(|name| {
            let cache = format!("cache-{name}");
            let mut add = place.command(&["--cache-dir", &cache, "key", "add", "--label", name]);
            add.args(["--new-key-file", name]);
            add.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in running {
        let out = child.wait_with_output().unwrap();
        // Whoever comes second makes the change again, to what the first has written.
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
    let list = place.run(&["key", "list", "--json"]).expect_code(0).json();
    let mut listed: Vec<_> =
        list.as_array().unwrap().iter().map(|k| k["label"].as_str().unwrap().to_owned()).collect();
    listed.sort();
    assert_eq!(listed, ["added-0", "added-1", "added-2", "added-3", "first"]);
    for name in &names {
        place.run_as(name, &["key", "list"]).expect_code(0);
    }
    let slots = place.objects("keys").iter().filter(|p| p.extension().is_none()).count();
    assert_eq!(slots, listed.len(), "a slot that no list names");
}

#[test]
fn tenants_are_added_and_listed_and_share_nothing() {
    let place = Place::with_repository();
    place.write("source/a", noise("a", 200_000));
    // One operator's key for both, and another's for the third.
    place.run(&["tenant", "add", "clinic-1"]).expect_code(0);
    place.run(&["tenant", "add", "clinic-2", "--new-key-file", "second"]).expect_code(0);
    assert_eq!(place.run(&["tenant", "list"]).expect_code(0).stdout(), "clinic-1\nclinic-2\ndefault\n");
    assert_eq!(
        place.run(&["tenant", "list", "--json"]).json(),
        serde_json::json!([
            { "tenant": "clinic-1", "operator": null },
            { "tenant": "clinic-2", "operator": null },
            { "tenant": "default", "operator": null },
        ])
    );
    let mut ids = BTreeSet::new();
    for (tenant, key) in [("default", "key"), ("clinic-1", "key"), ("clinic-2", "second")] {
        let ran = place.run_as(key, &["-t", tenant, "snapshot", "source", "--json"]).expect_code(0);
        assert!(summary(&ran.json(), "new_bytes") >= 200_000, "each stores its own: {}", ran.stdout());
        let list = place.run_as(key, &["-t", tenant, "snapshots", "--json"]).expect_code(0).json();
        assert_eq!(list.as_array().unwrap().len(), 1);
        place.run_as(key, &["-t", tenant, "restore", "latest", "--target", tenant, "--verify"]).expect_code(0);
        let packs = crate::support::files_below(&place.path("repo/tenants").join(tenant).join("packs"));
        ids.extend(packs.iter().map(|p| p.file_name().unwrap().to_owned()));
    }
    assert_eq!(ids.len(), 6, "no pack is in two tenants");
    let ran = place.run(&["tenant", "add", "clinic-1", "--new-key-file", "third"]).expect_code(1);
    assert!(ran.stderr().contains("exists already") && !place.path("third").exists(), "{}", ran.stderr());
    // The environment names the tenant too.
    Ran::of(place.command(&["ls"]).env("ESTRATO_TENANT", "clinic-1")).expect_code(0);
}

#[test]
fn a_tenants_folder_may_be_given_another_name() {
    let place = Place::with_repository();
    fs::create_dir(place.path("source")).unwrap();
    let take = |tenant: &str, text: &[u8]| {
        fs::write(place.path("source/changing"), text).unwrap();
        fs::write(place.path("source/staying"), noise("staying", 200_000)).unwrap();
        grow_old(&place.path("source"));
        place.run(&["-t", tenant, "snapshot", "source", "--json"]).expect_code(0).json()
    };
    let first = take("default", &noise("first", 150_000));
    let second = take("default", b"second");
    let id = second["snapshot"].as_str().unwrap();
    let held = &["hold", "add", first["snapshot"].as_str().unwrap()];
    place.run(held).expect_code(0);
    fs::rename(place.path("repo/tenants/default"), place.path("repo/tenants/moved")).unwrap();
    place.run(&["snapshots"]).expect_code(1);
    for machine in ["known", "new"] {
        if machine == "new" {
            fs::remove_dir_all(place.path(".cache")).unwrap();
        }
        let run = |arguments: &[&str]| place.run(&[&["-t", "moved"], arguments].concat()).expect_code(0);
        let check = run(&["check", "--read-data"]);
        assert_eq!(check.stderr(), "", "nothing is wrong on a {machine} machine");
        run(&["restore", id, "--target", machine]);
        let back = place.path(machine).join("source");
        assert_eq!(fs::read(back.join("changing")).unwrap(), b"second");
        assert_eq!(fs::read(back.join("staying")).unwrap(), noise("staying", 200_000));
    }
    let third = take("moved", b"third");
    assert!(summary(&third, "new_bytes") < 10_000, "what was stored before counts: {third}");
    let forget = || {
        place.run(&["-t", "moved", "forget", "--keep-last", "1"]).expect_code(0);
        let left = place.run(&["-t", "moved", "snapshots", "--json"]).expect_code(0).json();
        left.as_array().unwrap().len()
    };
    assert_eq!(forget(), 2, "the hold still holds");
    place.run(&["-t", "moved", "hold", "remove", first["snapshot"].as_str().unwrap()]).expect_code(0);
    assert_eq!(forget(), 1);
    place.run(&["-t", "moved", "prune"]).expect_code(0);
    place.run(&["-t", "moved", "key", "add", "--new-key-file", "another", "--label", "another"]).expect_code(0);
    place.run(&["-t", "moved", "check", "--read-data"]).expect_code(0);
    place.run(&["-t", "moved", "restore", "latest", "--target", "third"]).expect_code(0);
    let back = place.path("third/source/changing");
    assert_eq!(fs::read(back).unwrap(), b"third");
}

#[test]
fn an_older_list_of_signers_is_noticed_by_whoever_has_seen_the_newer() {
    let place = place_with_writer("writer");
    place.run(&["snapshots"]).expect_code(0);
    fs::remove_file(place.path("repo/tenants/default/keys/signers.00000002")).unwrap();
    // A full key may read what there is; nothing is written.
    let commands: [(&[&str], i32); 5] = [
        (&["snapshots"], 0),
        (&["key", "list"], 0),
        (&["check"], 4),
        (&["snapshot", "source"], 1),
        (&["key", "add", "--new-key-file", "added"], 1),
    ];
    for (command, code) in commands {
        let ran = place.run(command).expect_code(code);
        assert!(ran.stderr().contains("rollback"), "{}", ran.stderr());
    }
    assert!(!place.path("added").exists());
    let ran = place.run_as("writer", &["snapshot", "source"]);
    assert_ne!(ran.code(), 0, "{}", ran.stdout());
    // A machine that has seen nothing cannot know; but the writer is none there any more.
    place.run(&["--cache-dir", "fresh", "snapshots"]).expect_code(0);
    let ran = place.run_as("writer", &["--cache-dir", "fresh", "snapshot", "source"]);
    assert_ne!(ran.code(), 0);
    assert_eq!(place.objects("snapshots").len(), 0);
}

#[test]
fn a_list_of_signers_that_was_changed_or_lost_is_told() {
    for lost in [false, true] {
        let place = place_with_writer("writer");
        snapshot_as(&place, "key");
        for list in place.objects("keys").iter().filter(|p| p.extension().is_some()) {
            if lost {
                fs::remove_file(list).unwrap();
            } else {
                crate::support::change(list, |bytes| bytes[60] ^= 1);
            }
        }
        for cache in ["cache-key", "fresh"] {
            let ran = place.run(&["--cache-dir", cache, "snapshots"]).expect_code(1);
            assert!(ran.stderr().contains("signers.0000000"), "{}", ran.stderr());
        }
    }
}

#[test]
fn a_tenant_made_anew_under_an_old_name_is_not_taken_for_the_old() {
    let place = Place::with_repository();
    place.run(&["snapshots"]).expect_code(0);
    fs::remove_dir_all(place.path("repo/tenants/default")).unwrap();
    place.run(&["tenant", "add", "default"]).expect_code(0);
    let ran = place.run(&["snapshots"]).expect_code(1);
    assert!(ran.stderr().contains("another tenant"), "{}", ran.stderr());
}

#[test]
fn programs_that_start_at_once_on_a_new_machine_share_its_state() {
    let place = Place::with_repository();
    for round in 0..4 {
        let cache = format!("cache-{round}");
        let running: Vec<_> = (0..6)
            .map(|_| {
                let mut list = place.command(&["--cache-dir", &cache, "key", "list"]);
                list.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().unwrap()
            })
            .collect();
        for child in running {
            let out = child.wait_with_output().unwrap();
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        }
    }
}
