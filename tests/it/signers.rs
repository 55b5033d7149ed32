//! Admitting and removing keys through the library: the order of it, those who do it at once, and a
//! store that fails in between.

use crate::journal::{FULL, Ground, WRITER, fault};
use crate::world::key;
use bytes::Bytes;
use estrato::crypto::sign::Signing;
use estrato::crypto::slot;
use estrato::error::{Error, StoreFault};
use estrato::format::header::ObjectType;
use estrato::format::key::{Role, SignerList};
use estrato::id::SlotId;
use estrato::limits;
use estrato::store::Store;
use std::collections::HashSet;

const OTHER: u8 = 3;

#[test]
fn a_key_is_admitted_slot_first_and_removed_list_first() {
    let ground = Ground::new();
    let mut repo = ground.open(FULL);
    let new = ground.new_key(OTHER, Role::Full);
    let signer = repo.add_key(&new).unwrap();
    assert_eq!(ground.store.changes(), ["create slot", "create signers.00000003"]);
    assert_eq!((signer.role, &*signer.label, signer.removed), (Role::Full, "key 3", None));
    assert!(matches!(repo.add_key(&new), Err(Error::Exists { .. })), "it has a slot");
    assert!(ground.store.changes().is_empty());
    assert_eq!(ground.open(OTHER).role(), Role::Full);

    let removed = repo.remove_key("key 3").unwrap();
    assert_eq!(ground.store.changes(), ["create signers.00000004", "delete slot"]);
    assert!(removed.id == signer.id && removed.removed.is_some());
    assert_eq!(repo.signers().version, 4);
    assert!(matches!(ground.try_open(OTHER), Err(Error::WrongKey { .. })));
    assert!(matches!(repo.remove_key("key 3"), Err(Error::NotFound(_))));
    let again = repo.add_key(&new).unwrap();
    assert_ne!(again.id, signer.id, "admitted again, it signs as another");
    ground.open(OTHER);
}

#[test]
fn a_writer_admits_and_removes_nobody() {
    let ground = Ground::new();
    let mut repo = ground.open(WRITER);
    assert!(matches!(repo.add_key(&ground.new_key(OTHER, Role::Writer)), Err(Error::NotAllowed { .. })));
    assert!(matches!(repo.remove_key("key 1"), Err(Error::NotAllowed { .. })));
    assert!(ground.store.changes().is_empty());
}

#[test]
fn an_admission_that_broke_off_is_made_again() {
    let ground = Ground::new();
    for part in ["/keys/", "/signers."] {
        let mut repo = ground.open(FULL);
        ground.store.fail("create", part, StoreFault::Unavailable);
        assert_eq!(fault(repo.add_key(&ground.new_key(OTHER, Role::Writer))), StoreFault::Unavailable);
        assert_eq!(repo.signers().version, 2, "{part}");
        ground.store.works();
    }
    // The slot stays: the list may have been written, and would name it. No list does.
    let why = ground.try_open(OTHER).err().unwrap().to_string();
    assert!(why.contains("admit it again"), "{why}");
    ground.store.take();
    ground.open(FULL).add_key(&ground.new_key(OTHER, Role::Writer)).unwrap();
    assert_eq!(ground.store.changes(), ["delete slot", "create slot", "create signers.00000003"]);
    assert_eq!(ground.open(OTHER).role(), Role::Writer);
}

#[test]
fn of_two_who_change_the_list_the_slower_changes_the_newest() {
    let ground = Ground::new();
    let (mut one, mut two) = (ground.open(FULL), ground.open(FULL));
    one.add_key(&ground.new_key(OTHER, Role::Writer)).unwrap();
    ground.store.take();
    two.add_key(&ground.new_key(4, Role::Writer)).unwrap();
    assert_eq!(ground.store.changes(), ["create slot", "create signers.00000004"]);
    one.remove_key("key 2").unwrap();
    assert_eq!(ground.store.changes(), ["create signers.00000005", "delete slot"]);
    assert!(ground.try_open(WRITER).is_err());
    ground.open(OTHER);
    ground.open(4);
}

#[test]
fn a_removal_that_broke_off_is_finished_by_the_next() {
    let ground = Ground::new();
    let mut repo = ground.open(FULL);
    ground.store.fail("create", "/signers.", StoreFault::Unavailable);
    assert_eq!(fault(repo.remove_key("key 2")), StoreFault::Unavailable);
    ground.store.works();
    ground.open(WRITER);
    ground.store.take();

    ground.store.fail("delete", "/keys/", StoreFault::Denied);
    assert_eq!(fault(repo.remove_key("key 2")), StoreFault::Denied);
    assert_eq!(fault(repo.remove_key("key 2")), StoreFault::Denied, "the list says so already");
    ground.store.works();
    assert_eq!(ground.store.changes(), ["create signers.00000003"]);
    assert!(matches!(ground.try_open(WRITER), Err(Error::NoKey { .. })), "its slot opens, and it counts no more");
    assert_eq!(repo.remove_key("key 2").unwrap().label, "key 2");
    assert_eq!(ground.store.changes(), ["delete slot"]);
    assert!(matches!(repo.remove_key("key 2"), Err(Error::NotFound(_))));
}

#[test]
fn a_slot_that_is_gone_already_hinders_no_removal() {
    let ground = Ground::new();
    let mut repo = ground.open(FULL);
    let id = slot::key_file_slots(&key(WRITER), repo.tenant())[0];
    ground.store.delete(&repo.names().slot(&id)).unwrap();
    assert_eq!(repo.remove_key("key 2").unwrap().slot, id);
    assert!(matches!(repo.remove_key("key 2"), Err(Error::NotFound(_))));
}

/// A repository in which the first four digits of every slot and signer are its own.
fn with_distinct_digits() -> Ground {
    loop {
        let ground = Ground::new();
        let repo = ground.open(FULL);
        let signers = &repo.signers().signers;
        assert_eq!(signers.len(), 2);
        let ids = signers.iter().flat_map(|s| [s.slot.to_string(), s.id.to_string()]);
        if ids.map(|id| id[..4].to_owned()).collect::<HashSet<String>>().len() == 4 {
            return ground;
        }
    }
}

#[test]
fn a_key_is_named_by_its_label_or_four_digits_of_its_slot_or_signer() {
    for (digits, found) in [(3, false), (4, true), (5, true), (32, true)] {
        for by_slot in [true, false] {
            let ground = with_distinct_digits();
            let mut repo = ground.open(FULL);
            let signer = repo.signers().signers.iter().find(|s| s.label == "key 2").unwrap().clone();
            let id = if by_slot { signer.slot.to_string() } else { signer.id.to_string() };
            for wrong in ["", "key", "key 22", "KEY 2", &id[1..]] {
                assert!(matches!(repo.remove_key(wrong), Err(Error::NotFound(_))), "{wrong}");
            }
            match repo.remove_key(&id[..digits]) {
                Ok(removed) => assert!(found && removed.id == signer.id, "{digits}"),
                Err(e) => assert!(!found && matches!(e, Error::NotFound(_)), "{digits}: {e}"),
            }
            assert_eq!(ground.try_open(WRITER).is_ok(), !found);
        }
    }
}

#[test]
fn a_name_that_fits_several_keys_removes_none() {
    let ground = Ground::new();
    let mut repo = ground.open(FULL);
    for n in [OTHER, 4] {
        let same = estrato::repo::NewKey { label: "same".into(), ..ground.new_key(n, Role::Writer) };
        repo.add_key(&same).unwrap();
    }
    ground.store.take();
    assert!(repo.remove_key("same").is_err_and(|e| e.to_string().starts_with("2 keys match same")));
    assert!(ground.store.changes().is_empty());
    // One of them by its digits, and then the name fits one that is left.
    let one = repo.signers().signers.iter().find(|s| s.label == "same").unwrap().slot.to_string();
    repo.remove_key(&one).unwrap();
    let other = repo.remove_key("same").unwrap();
    assert_ne!(other.slot.to_string(), one);
    assert_eq!(repo.signers().signers.iter().filter(|s| s.removed.is_some()).count(), 2);
}

#[test]
fn one_full_key_stays() {
    let ground = Ground::new();
    let mut repo = ground.open(FULL);
    assert!(matches!(repo.remove_key("key 1"), Err(Error::Invalid(_))));
    repo.add_key(&ground.new_key(OTHER, Role::Full)).unwrap();
    repo.remove_key("key 1").unwrap();
    let mut repo = ground.open(OTHER);
    assert!(matches!(repo.remove_key("key 3"), Err(Error::Invalid(_))), "a removed one does not count");
    repo.remove_key("key 2").unwrap();
}

#[test]
fn only_names_that_the_program_writes_are_versions_of_the_list() {
    let ground = Ground::new();
    let repo = ground.open(FULL);
    for litter in
        ["signers.3", "signers.000000009", "signers.x", "signers.", "signers.00000000", "old/signers.00000007"]
    {
        let name = format!("{}/{litter}", repo.names().keys());
        ground.store.write(&name, Bytes::from_static(b"x")).unwrap();
    }
    assert_eq!(ground.open(FULL).signers().version, 2);
}

#[test]
fn a_list_counts_if_the_tenants_key_signed_this_version_of_it() {
    let ground = Ground::new();
    let repo = ground.open(FULL);
    let name = repo.names().signers(3);
    let bundle = ground.bundle(&repo, FULL);
    let (tenant, full) = (Signing::from_seed(&bundle.tenant_seed.unwrap()), Signing::from_seed(&bundle.signer_seed));
    let list = |version| SignerList { version, ..repo.signers().clone() }.encode();
    for (signing, version, good) in [(&tenant, 3, true), (&full, 3, false), (&tenant, 2, false), (&tenant, 4, false)]
    {
        ground.write(&repo, ObjectType::Signers, &name, signing, &list(version));
        match ground.try_open(FULL) {
            Ok(repo) if good => assert!(repo.signers().version == 3 && repo.writable().is_ok()),
            // What the list before it says can be read, and nothing is written.
            Ok(repo) => assert!(repo.signers().version == 2 && repo.writable().is_err()),
            Err(e) => assert!(!good && matches!(e, Error::Damaged { .. }), "{e}"),
        }
    }
    ground.store.fail("read", "/signers.", StoreFault::Denied);
    assert_eq!(fault(ground.try_open(FULL)), StoreFault::Denied);
}

#[test]
fn what_lies_in_a_slots_place_is_a_slot_or_damage() {
    let ground = Ground::new();
    let repo = ground.open(FULL);
    let name = repo.names().slot(&slot::key_file_slots(&key(WRITER), repo.tenant())[0]);
    let tenant = ground.store.read(&repo.names().tenant(), limits::RECORD_MAX).unwrap();
    ground.store.write(&name, tenant).unwrap();
    let told = ground.try_open(WRITER).err().unwrap();
    assert!(told.is_damage() && told.to_string().contains("no slot"), "{told}");
    // One that cannot be read does not pass for one that is not there.
    ground.store.fail("read", "/keys/", StoreFault::Denied);
    assert_eq!(fault(ground.try_open(WRITER)), StoreFault::Denied);
}

#[test]
fn a_tenant_has_4096_slots_at_most() {
    let ground = Ground::new();
    let names = ground.open(FULL).names().clone();
    let slots = ground.store.names(&names.keys()).iter().filter(|n| !n.contains("signers.")).count();
    let slot = |n: usize| names.slot(&SlotId(u128::try_from(n).unwrap().to_le_bytes()));
    for n in slots..limits::SLOTS_MAX {
        ground.store.write(&slot(n), Bytes::new()).unwrap();
    }
    ground.open(FULL);
    ground.store.write(&slot(limits::SLOTS_MAX), Bytes::new()).unwrap();
    assert!(ground.try_open(FULL).is_err_and(|e| e.is_damage()));
}
