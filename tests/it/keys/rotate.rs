//! A key gets another secret, and nothing is lost on the way.

use super::crash::{at_every_request, objects, open};
use super::{place_with_writer, snapshot_as, summary, with};
use crate::support::{Place, Ran, noise};
use crate::world::{BLOBS, FULL, KNOWN, WRITER, World, key, put};
use estrato::crypto::slot::Credential;
use estrato::error::Result;
use estrato::repo::{Secret, Session};
use estrato::store::Faulty;
use std::fs;
use std::sync::Arc;

const NEW: u8 = 7;

fn slots(place: &Place) -> usize {
    place.objects("keys").iter().filter(|p| p.extension().is_none()).count()
}

#[test]
fn the_key_in_use_gets_another_secret_and_stays_who_it_was() {
    let place = Place::with_repository();
    place.write("source/a", noise("a", 200_000));
    let before = place.snapshot(&[]);
    assert!(summary(&before, "new_bytes") > 0);
    let old = place.run(&["key", "list", "--json"]).expect_code(0).json()[0].clone();
    let told = place.run(&["key", "rotate", "--new-key-file", "new"]).expect_code(0).stdout();
    assert!(told.contains("copy this key") && told.contains("rekey"), "{told}");
    let ran = place.run(&["snapshots"]).expect_code(12);
    assert!(ran.stderr().contains("no slot there"), "{}", ran.stderr());
    let new = place.run_as("new", &["key", "list", "--json"]).expect_code(0).json();
    assert_eq!(new.as_array().unwrap().len(), 1);
    for same in ["signer", "role", "label", "kind", "added"] {
        assert_eq!(new[0][same], old[same], "{same}");
    }
    assert_ne!(new[0]["slot"], old["slot"]);
    assert_eq!(slots(&place), 1);
    // What the old one stored counts, and its snapshots are followed by the new one's.
    let mut command = place.command_in("source", &["snapshot", ".", "--json"]);
    let after = Ran::of(command.env("ESTRATO_KEY_FILE", place.path("new"))).expect_code(0).json();
    assert_eq!(summary(&after, "new_bytes"), 0, "{after}");
    place.run_as("new", &["restore", "latest", "--target", "out", "--verify"]).expect_code(0);
    assert_eq!(fs::read(place.path("out/a")).unwrap(), noise("a", 200_000));
    place.run_as("new", &["check", "--read-data"]).expect_code(0);
}

#[test]
fn a_slot_that_was_put_back_opens_nothing() {
    let place = Place::with_repository();
    let slot = place.objects("keys").into_iter().find(|p| p.extension().is_none()).unwrap();
    let kept = fs::read(&slot).unwrap();
    place.run(&["key", "rotate", "--new-key-file", "new"]).expect_code(0);
    fs::write(&slot, kept).unwrap();
    let ran = place.run(&["snapshots"]).expect_code(12);
    assert!(ran.stderr().contains("another has its place"), "{}", ran.stderr());
    // It is removed by name, and by doing the same again.
    let name = slot.file_name().unwrap().to_str().unwrap().to_owned();
    let kept = fs::read(&slot).unwrap();
    place.run_as("new", &["key", "remove", &name[..8]]).expect_code(0);
    assert!(!slot.exists());
    fs::write(&slot, kept).unwrap();
    let told = place.run(&["key", "rotate", "--new-key-file", "new"]).expect_code(0).stdout();
    assert!(told.contains("had its place already"), "{told}");
    assert!(!slot.exists());
    place.run_as("new", &["key", "remove", &name[..8]]).expect_code(1);
    place.run_as("new", &["snapshots"]).expect_code(0);
}

#[test]
fn another_key_keeps_its_role_and_label_and_signs_as_a_new_one() {
    let place = place_with_writer("writer");
    snapshot_as(&place, "writer");
    let told = place.run(&["key", "rotate", "--slot", "writer", "--new-key-file", "next"]).expect_code(0).stdout();
    assert!(told.contains("writer key") && told.contains("check --read-data"), "{told}");
    place.run_as("writer", &["snapshot", "source"]).expect_code(12);
    snapshot_as(&place, "next");
    place.run_as("next", &["snapshots"]).expect_code(12);
    let list = place.run(&["key", "list", "--json"]).expect_code(0).json();
    let of = |n: usize, name: &str| list[n][name].clone();
    assert_eq!((of(1, "label"), of(2, "label")), ("writer".into(), "writer".into()));
    assert!(!of(1, "removed").is_null() && of(2, "removed").is_null() && of(2, "role") == "writer");
    assert_ne!(of(1, "signer"), of(2, "signer"));
    assert_eq!(slots(&place), 2);
    assert_eq!(place.snapshots(), 2, "what the old one took is read");
}

#[test]
fn passwords_and_recipients_take_a_keys_place_too() {
    let place = Place::new();
    let old = [("ESTRATO_NEW_PASSWORD", "correct horse")];
    with(&place, &old, &["init", "--new-password"]).expect_code(0);
    place.write("pw", "correct horse\n");
    let rotate = ["--password-file", "pw", "key", "rotate", "--new-password"];
    let ran = with(&place, &old, &rotate).expect_code(2);
    assert!(ran.stderr().contains("is the one"), "{}", ran.stderr());
    with(&place, &[("ESTRATO_NEW_PASSWORD", "battery staple")], &rotate).expect_code(0);
    with(&place, &[], &["--password-file", "pw", "snapshots"]).expect_code(12);
    place.write("pw", "battery staple\n");
    with(&place, &[], &["--password-file", "pw", "snapshots"]).expect_code(0);
    let text = place.run(&["key", "show", "--new-key-file", "theirs"]).expect_code(0).stdout();
    with(&place, &[], &["--password-file", "pw", "key", "rotate", "--recipient", text.trim()]).expect_code(0);
    with(&place, &[], &["--password-file", "pw", "snapshots"]).expect_code(12);
    place.run_as("theirs", &["snapshots"]).expect_code(0);
    assert_eq!(slots(&place), 1);
    // A key that opens another slot already is none that is new.
    place.run_as("theirs", &["key", "add", "--role", "writer", "--new-key-file", "writer"]).expect_code(0);
    let ran = place.run_as("theirs", &["key", "rotate", "--new-key-file", "writer"]).expect_code(1);
    assert!(ran.stderr().contains("exists already"), "{}", ran.stderr());
    place.run_as("theirs", &["key", "rotate", "--new-key-file", "theirs"]).expect_code(0);
    place.run_as("theirs", &["key", "rotate", "--new-key-file", "theirs"]).expect_code(2);
    place.run_as("theirs", &["key", "rotate"]).expect_code(2);
    let ran = place.run_as("writer", &["key", "rotate", "--new-key-file", "more"]).expect_code(12);
    assert!(ran.stderr().contains("a writer key cannot rotate keys"), "{}", ran.stderr());
    assert!(!place.path("more").exists());
}

fn rotate(store: &Arc<Faulty>, which: Option<&str>) -> Result<()> {
    open(store, FULL)?.rotate_key(which, Secret::KeyFile(key(NEW))).map(|_| ())
}

#[test]
fn a_fault_at_every_request_leaves_the_old_key_or_the_new_one() {
    let world = World::new();
    world.snapshot(&world.open(FULL), &BLOBS);
    let all = objects(&*world.store);
    at_every_request(
        "rotating the key in use",
        &all,
        |store| rotate(store, None),
        |label, store, outcome| {
            match (open(store, FULL), open(store, NEW)) {
                (Ok(_), Err(_)) => {
                    assert!(outcome.is_err(), "{label}");
                    rotate(store, None).unwrap_or_else(|e| panic!("{label}: {e}"));
                }
                (Err(_), Ok(mut new)) => drop(new.remove_replaced(&Credential::KeyFile(key(FULL))).unwrap()),
                (Ok(_), Ok(_)) => panic!("{label}: both open"),
                (Err(e), Err(_)) => panic!("{label}: none opens: {e}"),
            }
            let new = open(store, NEW).unwrap();
            assert!(open(store, FULL).is_err() && open(store, WRITER).is_ok(), "{label}");
            assert_eq!(new.check_keys().unwrap().1, 0, "{label}: a slot that no key has");
            let session = Session::begin(&new, "host").unwrap();
            assert_eq!(put(&session, &BLOBS).unwrap(), KNOWN, "{label}");
        },
    );
}

#[test]
fn a_fault_at_every_request_of_rotating_another_key_is_mended_by_doing_it_again() {
    let world = World::new();
    let all = objects(&*world.store);
    at_every_request(
        "rotating another key",
        &all,
        |store| rotate(store, Some("writer")),
        |label, store, outcome| {
            let opens = [open(store, WRITER).is_ok(), open(store, NEW).is_ok()];
            assert!(opens == [true, false] || opens == [false, true], "{label}: {opens:?}");
            assert!(outcome.is_err() || opens[1], "{label}");
            // By the slot: the label is the new one's too.
            let mut repo = open(store, FULL).unwrap();
            let old = repo.signers().signers[1].clone();
            if opens[0] {
                repo.rotate_key(Some("writer"), Secret::KeyFile(key(NEW))).unwrap();
            } else {
                // Done already, or to be done: its slot may have been left behind.
                let _ = repo.remove_key(&old.slot.to_string());
            }
            assert!(open(store, WRITER).is_err() && open(store, NEW).is_ok(), "{label}");
            assert_eq!(open(store, FULL).unwrap().check_keys().unwrap().1, 0, "{label}: a slot that no key has");
        },
    );
}
