//! A tenant is destroyed: nothing opens what is left of it, nor a copy that was made before.

use crate::keys::crash::{Objects, at_every_request, objects, open, open_by, stage};
use crate::support::{Place, files_below, noise};
use crate::world::{BLOBS, FULL, Hand, WRITER, World, key, manifest, put};
use bytes::Bytes;
use estrato::clock::Timestamp;
use estrato::crypto::keyfile::recipient_from_text;
use estrato::crypto::slot::Credential;
use estrato::error::{Error, Result, StoreError, StoreFault};
use estrato::monitor::Silent;
use estrato::repo::{self, Erasure, NewKey, Receipt, Secret, Session};
use estrato::store::{Faulty, Listed, Memory, Store};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

fn erase(store: &dyn Store) -> Result<Receipt> {
    let survey = repo::survey(store, "default")?;
    Erasure::begin(store, survey, &Hand::default(), &Silent)?.finish(&Silent)
}

/// A world with a slot of every kind, one for the operator among them, and a snapshot.
fn world() -> World {
    let world = World::new();
    let mut repo = world.open(FULL);
    repo.add_key(&NewKey::full(Secret::Password("correct horse".into()), "boss")).unwrap();
    let recipient = |n: u8| recipient_from_text(&key(n).recipient_text()).unwrap();
    repo.add_key(&NewKey::full(Secret::Recipient(Box::new(recipient(5))), "escrow")).unwrap();
    repo.add_operator(&recipient(6)).unwrap();
    world.snapshot(&repo, &BLOBS);
    world
}

fn credentials() -> Vec<Credential> {
    let mut all: Vec<Credential> = [FULL, WRITER, 5, 6].map(|n| Credential::KeyFile(key(n))).into();
    all.push(Credential::Password("correct horse".into()));
    all
}

#[test]
fn nothing_opens_a_copy_that_was_made_before_without_the_slots() {
    let world = world();
    let store = stage(&objects(&*world.store));
    for credential in credentials() {
        open_by(&store, credential).unwrap();
    }
    let is_slot = |name: &str| name.contains("/keys/") && !name.contains("/keys/signers");
    let all = objects(&*store);
    assert_eq!(all.keys().filter(|name| is_slot(name)).count(), 5);
    let receipt = erase(&*store).unwrap();
    assert!(receipt.is_whole() && receipt.slots.len() == 5 && receipt.slots.iter().all(|slot| slot.deleted));
    assert_eq!(receipt.deleted["slots"].objects, 5);
    let deleted: u64 = receipt.deleted.values().map(|sum| sum.objects).sum();
    assert_eq!(deleted as usize, all.len() - 1);
    assert_eq!(objects(&*store).into_keys().collect::<Vec<_>>(), ["repo.json"]);
    // With the lists of signers, and without.
    let without_slots: Objects = all.clone().into_iter().filter(|(name, _)| !is_slot(name)).collect();
    let without_keys: Objects = all.into_iter().filter(|(name, _)| !name.contains("/keys/")).collect();
    for copy in [without_slots, without_keys] {
        let store = stage(&copy);
        for credential in credentials() {
            let e = open_by(&store, credential).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(e.contains("erased") || e.contains("missing") || e.contains("no tenant"), "{e}");
        }
    }
}

#[test]
fn a_fault_at_every_request_leaves_a_tenant_that_opens_or_says_that_it_was_erased() {
    let all = objects(&*world().store);
    let act = |store: &Arc<Faulty>| match erase(&**store) {
        Err(Error::NoTenant { .. }) => Ok(()),
        done => done.map(|receipt| assert!(receipt.is_whole())),
    };
    at_every_request("erasing", &all, act, |label, store, _| {
        let slots = objects(&**store).into_keys().filter(|n| n.contains("/keys/") && !n.contains("signers")).count();
        for credential in credentials() {
            match open_by(store, credential) {
                Ok(repo) => {
                    assert!(slots > 0 && repo.salvaged().is_empty(), "{label}");
                    let report = estrato::maintenance::check(&repo, estrato::maintenance::Depth::AllData, &Silent);
                    // A writer reads nothing; whose slots are gone are missed, and no data.
                    report.unwrap_or_else(|e| panic!("{label}: {e}"));
                }
                Err(Error::NoTenant { .. }) => assert_eq!(slots, 0, "{label}"),
                Err(e) => assert!(matches!(e, Error::WrongKey { .. }), "{label}: {e}"),
            }
        }
        act(store).unwrap_or_else(|e| panic!("{label}: {e}"));
        assert_eq!(objects(&**store).into_keys().collect::<Vec<_>>(), ["repo.json"], "{label}");
    });
}

#[test]
fn a_backup_that_runs_ends_with_an_error_and_what_it_writes_later_is_removed_by_the_next() {
    let world = world();
    let repo = world.open(FULL);
    let session = Session::begin(&repo, "host").unwrap();
    put(&session, &[b"before"]).unwrap();
    let receipt = erase(&*world.store).unwrap();
    assert_eq!(receipt.running, [session.id()]);
    assert!(!receipt.is_whole());
    let left: BTreeSet<String> = world.names("tenants").into_iter().collect();
    assert_eq!(left, [repo.names().snapshot(&session.id()), repo.names().tenant()].into());
    put(&session, &[b"after"]).unwrap();
    assert!(matches!(session.commit(&manifest()), Err(Error::Fenced { .. })));
    let e = world.try_open(FULL, None).err().unwrap().to_string();
    assert!(e.contains("was erased"), "{e}");
    assert!(erase(&*world.store).unwrap().is_whole());
    assert_eq!(world.names("tenants"), Vec::<String>::new());
}

/// A store that keeps what is locked.
struct Locked(Memory, fn(&str) -> bool, StoreFault);

impl Store for Locked {
    fn describe(&self) -> String {
        "a store with locks".into()
    }
    fn create(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        self.0.create(name, data)
    }
    fn write(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        self.0.write(name, data)
    }
    fn read(&self, name: &str, max: u64) -> Result<Bytes, StoreError> {
        self.0.read(name, max)
    }
    fn read_range(&self, name: &str, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        self.0.read_range(name, offset, len)
    }
    fn size(&self, name: &str) -> Result<u64, StoreError> {
        self.0.size(name)
    }
    fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        self.0.list(folder)
    }
    fn delete(&self, name: &str) -> Result<(), StoreError> {
        if (self.1)(name) {
            let why = "locked until 2031-01-01".into();
            return Err(StoreError { fault: self.2, operation: "delete", object: name.into(), why });
        }
        self.0.delete(name)
    }
    fn retained_until(&self, _name: &str) -> Option<Timestamp> {
        Some(Timestamp { seconds: 5, nanos: 0 })
    }
}

fn locked(objects: &Objects, which: fn(&str) -> bool, fault: StoreFault) -> Locked {
    let store = Locked(Memory::default(), which, fault);
    objects.iter().for_each(|(name, bytes)| store.create(name, bytes.clone()).unwrap());
    store
}

#[test]
fn what_the_store_keeps_is_named_and_the_rest_goes() {
    let all = objects(&*world().store);
    let store = locked(&all, |name| name.contains("/packs/"), StoreFault::Retained);
    let receipt = erase(&store).unwrap();
    assert!(!receipt.is_whole() && receipt.slots.iter().all(|slot| slot.deleted));
    assert_eq!(receipt.retained_sum.objects as usize, receipt.retained.len());
    assert!(receipt.retained.iter().all(|r| r.name.contains("/packs/") && r.until.is_some()));
    let left: Vec<String> = store.list("tenants").unwrap().into_iter().map(|o| o.name).collect();
    assert!(left.iter().all(|name| name.contains("/packs/") || name.ends_with("/tenant")), "{left:?}");
    assert_eq!(left.len(), receipt.retained.len() + 1, "the tenant is listed until nothing is left");
    // A slot that is kept is told, and stops nothing.
    let store = locked(&all, |name| name.contains("/keys/") && !name.contains("signers"), StoreFault::Retained);
    let receipt = erase(&store).unwrap();
    assert!(!receipt.is_whole() && receipt.slots.iter().all(|slot| !slot.deleted));
    assert_eq!(store.list("tenants").unwrap().len(), receipt.slots.len() + 1);
    // Who may not delete has no business here: nothing is touched.
    let store = locked(&all, |name| name.contains("/keys/"), StoreFault::Denied);
    assert!(matches!(erase(&store), Err(Error::Store(_))));
    assert_eq!(objects(&store), all);
}

#[test]
fn whatever_lies_among_the_holds_holds() {
    let all = objects(&*world().store);
    for name in ["tenants/default/holds/00000000000000000000000000000000", "tenants/default/holds/rubbish"] {
        let store = stage(&all);
        store.create(name, Bytes::from_static(b"rubbish")).unwrap();
        let e = erase(&*store).unwrap_err().to_string();
        assert!(e.contains("a legal hold"), "{e}");
        assert_eq!(objects(&*store).len(), all.len() + 1);
        open(&store, FULL).unwrap();
    }
}

#[test]
fn what_is_damaged_is_erased_too() {
    let world = world();
    std::mem::forget(Session::begin(&world.open(FULL), "host").unwrap());
    for (name, _) in objects(&*world.store).into_iter().filter(|(name, _)| name != "repo.json") {
        let store = stage(&objects(&*world.store));
        store.write(&name, Bytes::from_static(b"rubbish")).unwrap();
        // The session may be alive: its fence stays until the next.
        let receipt = erase(&*store).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(receipt.retained.is_empty() && receipt.running.len() == 1, "{name}");
        assert!(erase(&*store).unwrap().is_whole(), "{name}");
        assert_eq!(objects(&*store).into_keys().collect::<Vec<_>>(), ["repo.json"], "{name}");
    }
}

/// A place with two tenants, of which `clinic` has a snapshot and a key of every kind.
fn place() -> Place {
    let place = Place::with_repository();
    place.write("source/a", noise("a", 50_000));
    place.snapshot(&[]);
    place.run(&["tenant", "add", "clinic"]).expect_code(0);
    place.run(&["-t", "clinic", "snapshot", "source"]).expect_code(0);
    place.run(&["-t", "clinic", "key", "add", "--role", "writer", "--new-key-file", "writer"]).expect_code(0);
    place
}

fn erase_by(place: &Place, key: &str, more: &[&str]) -> crate::support::Ran {
    place.run_as(key, &[&["tenant", "erase", "clinic"], more].concat())
}

#[test]
fn the_name_must_be_given_and_a_full_key() {
    let place = place();
    let before = files_below(&place.path("repo"));
    for (key, more, code, says) in [
        ("key", &[][..], 2, "--yes clinic"),
        ("key", &["--yes", "default"], 2, "names another tenant"),
        ("writer", &["--yes", "clinic"], 12, "a writer key cannot erase"),
        ("missing", &["--yes", "clinic"], 12, "missing"),
    ] {
        let ran = erase_by(&place, key, more).expect_code(code);
        assert!(ran.stderr().contains(says), "{}", ran.stderr());
    }
    place.run(&["tenant", "erase", "nobody", "--yes", "nobody"]).expect_code(1);
    place.run(&["-t", "clinic", "hold", "add", "latest"]).expect_code(0);
    let held = files_below(&place.path("repo/tenants/clinic/holds")).remove(0);
    let id = held.file_name().unwrap().to_str().unwrap().to_owned();
    for more in [&["--yes", "clinic"][..], &["--yes", "clinic", "--without-key"]] {
        let ran = erase_by(&place, "key", more).expect_code(2);
        assert!(ran.stderr().contains("legal hold"), "{}", ran.stderr());
    }
    place.run(&["-t", "clinic", "hold", "remove", &id]).expect_code(0);
    let planned = erase_by(&place, "key", &["--dry-run"]).expect_code(0).json();
    assert_eq!(planned["places"][0]["slots"].as_array().unwrap().len(), 2, "{planned}");
    assert_eq!(files_below(&place.path("repo")), before);
}

#[test]
fn a_receipt_is_printed_and_this_machine_forgets_the_tenant() {
    let place = place();
    let tenants = |place: &Place| -> Vec<String> {
        let cache = place.path(".cache/estrato");
        let of = |path: &Path| path.strip_prefix(&cache).unwrap().to_string_lossy().into_owned();
        files_below(&cache).iter().map(|path| of(path)).collect()
    };
    let receipt = erase_by(&place, "key", &["--yes", "clinic"]).expect_code(0);
    assert_eq!(receipt.stderr(), "");
    let receipt = receipt.json();
    assert_eq!((&receipt["tenant"], &receipt["whole"]), (&"clinic".into(), &true.into()));
    let there = &receipt["places"][0];
    assert_eq!(there["slots"].as_array().unwrap().len(), 2);
    assert!(
        there["slots"].as_array().unwrap().iter().all(|slot| slot["deleted"] == true && slot["kept_until"].is_null())
    );
    assert!(there["deleted"]["packs"]["bytes"].as_u64().unwrap() > 50_000, "{receipt}");
    assert_eq!(there["retained"], serde_json::json!([]));
    assert!(receipt["not_known_here"].as_str().unwrap().contains("--also"));
    assert!(files_below(&place.path("repo/tenants/clinic")).is_empty());
    let id = receipt["tenant_id"].as_str().unwrap();
    assert!(!tenants(&place).iter().any(|name| name.contains(id)), "{:?}", tenants(&place));
    // The other one is as it was, and the name is free.
    place.restore("out", &["--verify"]);
    place.run(&["-t", "clinic", "snapshots"]).expect_code(1);
    erase_by(&place, "key", &["--yes", "clinic"]).expect_code(1);
    place.run(&["tenant", "add", "clinic"]).expect_code(0);
    place.run(&["-t", "clinic", "snapshot", "source"]).expect_code(0);
}

#[test]
fn an_erasure_that_was_interrupted_goes_on_without_a_key() {
    let place = place();
    for slot in files_below(&place.path("repo/tenants/clinic/keys")).iter().filter(|p| p.extension().is_none()) {
        fs::remove_file(slot).unwrap();
    }
    let ran = place.run(&["-t", "clinic", "snapshots"]).expect_code(12);
    assert!(ran.stderr().contains("was erased, or is being erased"), "{}", ran.stderr());
    erase_by(&place, "no-key-at-all", &["--yes", "clinic"]).expect_code(0);
    assert!(files_below(&place.path("repo/tenants/clinic")).is_empty());
}

#[test]
fn who_lost_all_keys_can_still_erase() {
    let place = place();
    erase_by(&place, "no-key-at-all", &["--yes", "clinic"]).expect_code(12);
    erase_by(&place, "no-key-at-all", &["--yes", "clinic", "--without-key"]).expect_code(0);
    assert!(files_below(&place.path("repo/tenants/clinic")).is_empty());
}

/// Copies a folder with all below it.
fn mirror(from: &Path, to: &Path) {
    for file in files_below(from) {
        let at = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::copy(file, at).unwrap();
    }
}

#[test]
fn a_mirror_is_erased_too_and_another_tenant_of_the_name_is_not() {
    let place = place();
    mirror(&place.path("repo"), &place.path("mirror"));
    place.run(&["-r", "other", "init"]).expect_code(0);
    place.run(&["-r", "other", "tenant", "add", "clinic"]).expect_code(0);
    let ran = erase_by(&place, "key", &["--yes", "clinic", "--also", "mirror", "--also", "other"]).expect_code(2);
    assert!(ran.stderr().contains("not known to be the same"), "{}", ran.stderr());
    erase_by(&place, "key", &["--yes", "clinic", "--also", "repo"]).expect_code(2);
    // A hold at any place holds.
    place.write("mirror/tenants/clinic/holds/00000000000000000000000000000000", "x");
    erase_by(&place, "key", &["--yes", "clinic", "--also", "mirror"]).expect_code(2);
    fs::remove_dir_all(place.path("mirror/tenants/clinic/holds")).unwrap();
    assert!(!files_below(&place.path("repo/tenants/clinic")).is_empty());
    let receipt = erase_by(&place, "key", &["--yes", "clinic", "--also", "mirror"]).expect_code(0).json();
    assert_eq!(receipt["places"].as_array().unwrap().len(), 2);
    for root in ["repo", "mirror"] {
        assert!(files_below(&place.path(root).join("tenants/clinic")).is_empty());
        place.run(&["-r", root, "check", "--read-data"]).expect_code(0);
    }
    // A place that was forgotten is erased later; its key still opens it.
    let place = self::place();
    mirror(&place.path("repo"), &place.path("mirror"));
    erase_by(&place, "key", &["--yes", "clinic"]).expect_code(0);
    place.run(&["-r", "mirror", "--cache-dir", "fresh", "-t", "clinic", "snapshots"]).expect_code(0);
    erase_by(&place, "key", &["--yes", "clinic", "--also", "mirror"]).expect_code(0);
    assert!(files_below(&place.path("mirror/tenants/clinic")).is_empty());
}
