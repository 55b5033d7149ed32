//! A whole repository swapped for the attacker's own, under the same names.

use super::Folder;
use crate::world::{FULL, WRITER, World, key};
use bytes::Bytes;
use estrato::error::Error;
use estrato::format::header::Cipher;
use estrato::format::key::Role;
use estrato::format::names::REPO;
use estrato::repo::{self, NewKey, Secret};
use estrato::store::Store;
use std::collections::BTreeMap;

/// A key whose public half is known: whoever admits it needs no more.
const RECIPIENT: u8 = 7;

/// A full key whose holder is the attacker.
const ATTACKER: u8 = 99;

fn recipient(role: Role) -> NewKey {
    let public = Box::new(key(RECIPIENT).recipient().1);
    NewKey { role, label: "recipient".into(), secret: Secret::Recipient(public) }
}

/// A repository that the attacker made for the victim's public key, with what a victim expects there.
fn forged() -> World {
    let forged = World { store: crate::world::Fateful::new(), clock: std::sync::Arc::default() };
    let own = NewKey::full(Secret::KeyFile(key(ATTACKER)), "full");
    repo::init(&*forged.store, &*forged.clock, "default", Cipher::Aes256Gcm, &own).unwrap();
    forged.open(ATTACKER).add_key(&recipient(Role::Full)).unwrap();
    forged
}

fn honest() -> World {
    let world = World::new();
    world.open(FULL).add_key(&recipient(Role::Full)).unwrap();
    world
}

#[test]
fn a_repository_swapped_whole_opens_with_no_key_file_that_the_attacker_does_not_have() {
    let world = honest();
    world.show(&forged().objects());
    for n in [FULL, WRITER] {
        assert!(matches!(world.try_open(n, None), Err(Error::WrongKey { .. })));
    }
}

#[test]
fn a_repository_swapped_whole_is_refused_where_the_tenant_was_met_and_shows_by_its_fingerprint_elsewhere() {
    let world = honest();
    let machine = tempfile::tempdir().unwrap();
    let met = world.open_with(RECIPIENT, Some(machine.path().into()));
    let genuine = met.fingerprint();
    let whole = world.objects();
    let forged = forged().objects();
    let kept: BTreeMap<String, Bytes> = {
        // The same, but with the old repository's id.
        let mut kept = forged.clone();
        kept.insert(REPO.into(), whole[REPO].clone());
        kept
    };
    for (what, shown) in [("its own repo.json", &forged), ("the old repo.json", &kept)] {
        world.show(shown);
        for _ in 0..2 {
            let e = world.try_open(RECIPIENT, Some(machine.path().into())).err().map(|e| e.to_string());
            let e = e.unwrap_or_default();
            assert!(e.contains("tenant default") && e.contains("another tenant"), "{what}: {e}");
        }
        // A machine without a memory cannot know. The fingerprint is what differs, for whoever looks.
        let fresh = world.open(RECIPIENT);
        assert_ne!(fresh.fingerprint(), genuine, "{what}");
    }
    // Nothing was written into the forgery, and the genuine one opens as before.
    assert_eq!(world.objects(), kept);
    world.show(&whole);
    assert_eq!(world.open_with(RECIPIENT, Some(machine.path().into())).fingerprint(), genuine);
}

#[test]
fn another_id_in_repo_json_gives_no_machine_a_fresh_memory() {
    let world = World::new();
    let machine = tempfile::tempdir().unwrap();
    let cache = || Some(machine.path().to_path_buf());
    world.open(FULL).remove_key("writer").unwrap();
    world.open_with(FULL, cache());
    // An older list would let the removed key sign again; under the old id this machine says so.
    let newest = world.open(FULL).signers().version;
    world.store.delete(&format!("tenants/default/keys/signers.{newest:08}")).unwrap();
    let e = world.trouble(FULL, cache());
    assert!(e.contains("rollback"), "{e}");
    let other = br#"{"estrato": 0, "repository": "ffffffffffffffffffffffffffffffff"}"#;
    world.store.write(REPO, Bytes::from_static(other)).unwrap();
    let e = world.trouble(FULL, cache());
    assert!(e.contains("repo.json") && e.contains("another repository"), "{e}");
    // The repository's id protects nothing else: on a fresh machine it is taken as it is.
    world.open(FULL);
}

#[test]
fn what_a_machine_sends_to_a_forgery_that_it_could_not_know_is_what_the_fingerprint_is_for() {
    // What is left, said by a test: a fresh machine whose recipient's slot the attacker made backs up to
    // the attacker. No other slot allows it, and no machine that has met the tenant.
    let world = forged();
    let folder = Folder::new();
    let today = World::today();
    world.clock.forward(u64::try_from(estrato::clock::Clock::now(&*today.clock).seconds - 1_700_000_000).unwrap());
    let victim = world.open(RECIPIENT);
    let (id, ..) = world.backup(&victim, folder.path());
    world.restores(&world.open(ATTACKER), &id, &folder.files(), folder.path());
    assert_ne!(victim.fingerprint(), honest().open(FULL).fingerprint());
}
