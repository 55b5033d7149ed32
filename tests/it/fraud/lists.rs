//! The list of signers: changed by several at once, over a store whose answers are lost, and forged.

use super::{MALLORY, closed, with_mallory};
use crate::world::{BLOBS, FULL, Fate, Fateful, KNOWN, NEW, WRITER, World, key, put};
use estrato::error::{Error, StoreFault};
use estrato::format::header::{Cipher, ObjectType};
use estrato::format::key::{Role, SignerList};
use estrato::limits;
use estrato::monitor::Silent;
use estrato::repo::{self, NewKey, Secret, Session};
use estrato::store::Store;
use std::sync::atomic::{AtomicUsize, Ordering};

fn new_key(n: u8, label: &str) -> NewKey {
    NewKey { role: Role::Writer, label: label.into(), secret: Secret::KeyFile(key(n)) }
}

fn labels(world: &World) -> Vec<String> {
    world.open(FULL).signers().signers.iter().map(|s| s.label.clone()).collect()
}

fn slots(world: &World) -> usize {
    world.names("tenants/default/keys").iter().filter(|n| !n.contains("signers.")).count()
}

#[test]
fn keys_that_are_added_at_once_are_all_admitted() {
    let world = World::new();
    let mut operators: Vec<_> = (0..4).map(|_| world.open(FULL)).collect();
    for (n, operator) in operators.iter_mut().enumerate() {
        operator.add_key(&new_key(10 + n as u8, &format!("added-{n}"))).unwrap();
    }
    assert_eq!(labels(&world), ["full", "writer", "added-0", "added-1", "added-2", "added-3"]);
    for n in 10..14 {
        world.open(n);
    }
    // Each knows what the others have done.
    assert_eq!(operators[3].signers().version, 6);
}

#[test]
fn a_key_is_removed_though_others_change_the_list() {
    let world = World::new();
    let (mut one, mut two) = (world.open(FULL), world.open(FULL));
    one.add_key(&new_key(10, "added")).unwrap();
    two.remove_key("writer").unwrap();
    assert!(matches!(world.try_open(WRITER, None), Err(Error::WrongKey { .. })));
    world.open(10);
    // One has not heard of it yet: what is gone already is gone.
    assert!(matches!(one.remove_key("writer"), Err(Error::NotFound(_))));
    one.remove_key("added").unwrap();
    assert!(matches!(world.try_open(10, None), Err(Error::WrongKey { .. })));
}

#[test]
fn of_two_full_keys_that_remove_each_other_at_once_one_stays() {
    let world = World::new();
    world.open(FULL).add_key(&NewKey::full(Secret::KeyFile(key(3)), "second")).unwrap();
    let (mut one, mut two) = (world.open(FULL), world.open(3));
    one.remove_key("second").unwrap();
    // Removed meanwhile, it changes nothing any more, though it still knows the tenant's key.
    assert!(matches!(two.remove_key("full"), Err(Error::NoKey { .. })));
    assert!(matches!(two.add_key(&new_key(10, "added")), Err(Error::NoKey { .. })));
    world.open(FULL);
    assert_eq!(labels(&world), ["full", "writer", "second"]);
    assert_eq!(slots(&world), 2, "no slot stays behind");
}

#[test]
fn a_list_that_others_never_cease_to_change_leaves_no_slot() {
    let world = World::new();
    let mut repo = world.open(FULL);
    world.store.henceforth(|name| if name.contains("signers.") { Fate::Taken } else { Fate::Done });
    assert!(matches!(repo.add_key(&new_key(10, "added")), Err(Error::Busy { .. })));
    assert_eq!(slots(&world), 2);
    // The same command works once they have ceased.
    world.store.henceforth(|_| Fate::Done);
    repo.add_key(&new_key(10, "added")).unwrap();
    world.open(10);
}

/// Loses the answer to the first `create` of each name that has `part` in it.
fn lose_first(store: &Fateful, part: &'static str) {
    let asked = AtomicUsize::new(0);
    store.henceforth(move |name| {
        let first = name.contains(part) && asked.fetch_add(1, Ordering::SeqCst) == 0;
        if first { Fate::Lost } else { Fate::Done }
    });
}

#[test]
fn a_key_whose_answer_was_lost_is_admitted_once() {
    for part in ["signers.", "keys/"] {
        let world = World::new();
        let mut repo = world.open(FULL);
        lose_first(&world.store, part);
        repo.add_key(&new_key(10, "added")).unwrap();
        assert_eq!(labels(&world), ["full", "writer", "added"], "{part}");
        assert_eq!(repo.signers().version, 3);
        world.open(10);
        lose_first(&world.store, part);
        repo.remove_key("added").unwrap();
        assert!(world.try_open(10, None).is_err());
        assert_eq!(labels(&world).len(), 3);
    }
}

#[test]
fn a_lost_answer_is_not_taken_for_success_where_somebody_else_was_faster() {
    let world = World::new();
    let (mut one, mut two) = (world.open(FULL), world.open(FULL));
    one.add_key(&new_key(10, "added")).unwrap();
    // Unheard first, and then the name is taken: by the other's list, which is not ours.
    let asked = AtomicUsize::new(0);
    world.store.henceforth(move |name| {
        let first = name.contains("signers.") && asked.fetch_add(1, Ordering::SeqCst) == 0;
        if first { Fate::Unheard } else { Fate::Done }
    });
    two.add_key(&new_key(11, "later")).unwrap();
    assert_eq!(labels(&world), ["full", "writer", "added", "later"]);
}

#[test]
fn a_key_of_whose_list_nothing_is_heard_keeps_its_slot() {
    let world = World::new();
    let mut repo = world.open(FULL);
    world.store.henceforth(|name| if name.contains("signers.") { Fate::Unheard } else { Fate::Done });
    let Err(Error::Store(e)) = repo.add_key(&new_key(10, "added")) else { panic!("admitted without a list") };
    assert_eq!(e.fault, StoreFault::Unavailable);
    assert_eq!(slots(&world), 3, "the list may be there, and names it");
    world.store.henceforth(|_| Fate::Done);
    assert!(matches!(world.try_open(10, None), Err(Error::NoKey { .. })), "here it is not");
    repo.add_key(&new_key(10, "added")).unwrap();
    world.open(10);
}

#[test]
fn a_session_and_a_repository_begin_though_answers_are_lost() {
    let world = World::new();
    let repo = world.open(FULL);
    // The first create, and the one that must be refused.
    for nth in 0..2 {
        let asked = AtomicUsize::new(0);
        let fate = move |name: &str| {
            let hit = name.contains("/sessions/") && asked.fetch_add(1, Ordering::SeqCst) == nth;
            if hit { Fate::Lost } else { Fate::Done }
        };
        world.store.henceforth(fate);
        let session = Session::begin(&repo, "db1").unwrap();
        session.abandon();
        assert!(world.names(&repo.names().sessions()).is_empty());

        let store = Fateful::new();
        let asked = AtomicUsize::new(0);
        store.henceforth(move |name| {
            let hit = name == "repo.json" && asked.fetch_add(1, Ordering::SeqCst) == nth;
            if hit { Fate::Lost } else { Fate::Done }
        });
        let first = NewKey::full(Secret::KeyFile(key(FULL)), "full");
        repo::init(&*store, &*world.clock, "default", Cipher::Aes256Gcm, &first).unwrap();
    }
    // And where the tenant's own objects are made.
    let store = Fateful::new();
    store.henceforth(|name| if name.ends_with("/tenant") { Fate::Lost } else { Fate::Done });
    let first = NewKey::full(Secret::KeyFile(key(FULL)), "full");
    repo::init(&*store, &*world.clock, "default", Cipher::Aes256Gcm, &first).unwrap();
}

#[test]
fn a_session_that_is_never_answered_leaves_nothing_behind() {
    let world = World::new();
    let repo = world.open(FULL);
    // The last of three answers is lost too: the object is there.
    world.store.henceforth(|name| if name.contains("/sessions/") { Fate::Unheard } else { Fate::Done });
    assert!(Session::begin(&repo, "db1").is_err());
    assert!(world.names(&repo.names().sessions()).is_empty());
}

#[test]
fn a_store_that_ignores_the_condition_is_recognised_though_answers_are_lost() {
    let world = World::new();
    let repo = world.open(FULL);
    let asked = AtomicUsize::new(0);
    world
        .store
        .henceforth(move |_| if asked.fetch_add(1, Ordering::SeqCst) == 0 { Fate::Lost } else { Fate::Overwrites });
    let mut session = Session::begin(&repo, "db1").unwrap();
    assert!(session.take_warnings().iter().any(|told| told.contains("only if absent")));
}

#[test]
fn a_forged_list_of_signers_is_refused_by_name_however_large_its_number() {
    let world = with_mallory();
    let repo = world.open(FULL);
    let (old, _) = world.snapshot(&repo, &BLOBS);
    let newest = repo.signers().version;
    let genuine = world.store.read(&repo.names().signers(newest), 1 << 20).unwrap();
    let mut crafted = repo.signers().clone();
    // The next number, one with a gap before it, and the last that there is.
    for number in [newest + 1, newest + 7, limits::NUMBER_MAX] {
        let name = repo.names().signers(number);
        crafted.version = number;
        let mut forgeries = vec![
            ("garbage", bytes::Bytes::from_static(b"garbage")),
            ("nothing", bytes::Bytes::new()),
            ("what has no key", closed(ObjectType::Signers, &[7; 300])),
            ("an older list under a newer name", genuine.clone()),
        ];
        // A stolen writer key can seal one, but not sign it as the tenant.
        world.write(&repo, ObjectType::Signers, &name, &world.signing(&repo, MALLORY), &crafted.encode());
        forgeries.push(("a writer's list", world.store.read(&name, 1 << 20).unwrap()));
        for (what, forged) in forgeries {
            world.store.write(&name, forged).unwrap();
            for n in [FULL, WRITER, MALLORY] {
                let refused = world.trouble(n, None);
                assert!(refused.contains(&name), "{what}, key {n}: {refused}");
            }
            // Whoever was open already is not disturbed, and admits nobody on its word.
            assert_eq!(world.snapshot(&repo, &BLOBS).1, KNOWN);
            let mut again = world.twin().open_with_list(newest);
            assert!(again.add_key(&new_key(10, "added")).is_err() == (number == newest + 1), "{what} {number}");
        }
        world.store.delete(&name).unwrap();
    }
    assert!(world.open(FULL).snapshot_ids().unwrap().contains(&old), "nothing is lost once it is taken away");
    assert_eq!(labels(&world), ["full", "writer", "mallory"]);
}

#[test]
fn beyond_the_greatest_number_and_in_other_spellings_there_are_no_lists() {
    let world = with_mallory();
    let repo = world.open(FULL);
    let keys = repo.names().keys();
    let next = repo.signers().version + 1;
    for name in ["signers.1000000000000000", "signers.18446744073709551615", "signers.000000009", "signers.00000000"]
    {
        let mallory = world.signing(&repo, MALLORY);
        let list = SignerList { version: 9, ..repo.signers().clone() };
        world.write(&repo, ObjectType::Signers, &format!("{keys}/{name}"), &mallory, &list.encode());
    }
    assert_eq!(world.trouble(FULL, None) + &world.trouble(WRITER, None), "");
    world.open(FULL).add_key(&new_key(10, "added")).unwrap();
    assert_eq!(world.open(FULL).signers().version, next);
    let report = estrato::maintenance::check_store(&*world.store, estrato::maintenance::Part::All, &Silent).unwrap();
    assert_eq!(report.strays.len(), 4, "{:?}", report.strays);
}

#[test]
fn a_list_with_the_last_number_panics_nobody() {
    let world = World::new();
    let mut repo = world.open(FULL);
    // Only who has the tenant's key can do that.
    let tenant = estrato::crypto::sign::Signing::from_seed(&world.bundle(&repo, FULL).tenant_seed.unwrap());
    let list = SignerList { version: limits::NUMBER_MAX, ..repo.signers().clone() };
    world.write(&repo, ObjectType::Signers, &repo.names().signers(limits::NUMBER_MAX), &tenant, &list.encode());
    let mut there = world.open(FULL);
    assert!(matches!(there.add_key(&new_key(10, "added")), Err(Error::Invalid(_))));
    assert!(matches!(there.remove_key("writer"), Err(Error::Invalid(_))));
    // This one has not seen it, and its next number is free.
    assert_eq!(repo.add_key(&new_key(11, "other")).unwrap().label, "other");
}

#[test]
fn what_a_removed_key_signs_afterwards_is_read_and_relied_on_by_nobody() {
    let world = with_mallory();
    let full = world.open(FULL);
    let mallory = world.open(MALLORY);
    world.open(FULL).remove_key("mallory").unwrap();
    assert!(matches!(world.try_open(MALLORY, None), Err(Error::WrongKey { .. })));
    // The program refuses the key; whoever kept its secrets and reaches the store goes on.
    let (id, stored) = world.snapshot(&mallory, &BLOBS);
    assert_eq!(stored, NEW);
    for n in [WRITER, FULL] {
        let victim = world.open(n);
        assert_eq!(world.snapshot(&victim, &BLOBS).1, NEW, "key {n}");
    }
    // Still read: its snapshot is listed under its name, and its index entries are tried as copies.
    let listing = estrato::snapshot::list(&world.open(FULL)).unwrap();
    let its = listing.snapshots.iter().find(|s| s.id == id).unwrap();
    assert_eq!(full.signer_label(&its.signer), "mallory");
    // A tombstone, a plan, a word on others' packs: as before, nobody heeds them.
    assert!(!world.open(FULL).is_full(&mallory.signer()) && world.open(FULL).is_admitted(&mallory.signer()));
}

#[test]
fn a_removed_full_keys_word_counts_no_more_though_it_is_read() {
    let world = World::new();
    world.open(FULL).add_key(&NewKey::full(Secret::KeyFile(key(3)), "second")).unwrap();
    let second = world.open(3);
    world.snapshot(&second, &BLOBS);
    let counts = |n| {
        let repo = world.open(n);
        let session = Session::begin(&repo, "db1").unwrap();
        let stored = put(&session, &BLOBS).unwrap();
        session.abandon();
        stored
    };
    assert_eq!(counts(WRITER), KNOWN);
    world.open(FULL).remove_key("second").unwrap();
    assert_eq!(counts(FULL), NEW);
    world.snapshot(&second, &[b"a blob of later"]);
    assert_eq!(estrato::snapshot::list(&world.open(FULL)).unwrap().snapshots.len(), 2);
    // Its lists of signers would still count: it knows the tenant's key. That is why a stolen full key
    // asks for a new tenant.
    assert!(second.fingerprint() == world.open(FULL).fingerprint());
}

impl World {
    /// The full key, as it opens where only lists up to this version are there.
    fn open_with_list(&self, version: u64) -> repo::Repository {
        let later: Vec<String> = self.names("tenants/default/keys");
        let names = self.open_names();
        let hidden: Vec<_> = later
            .into_iter()
            .filter(|n| n.contains("signers.") && *n > names.signers(version))
            .map(|n| (n.clone(), self.store.read(&n, 1 << 20).unwrap()))
            .collect();
        for (name, _) in &hidden {
            self.store.delete(name).unwrap();
        }
        let repo = self.open(FULL);
        for (name, object) in hidden {
            self.store.write(&name, object).unwrap();
        }
        repo
    }

    fn open_names(&self) -> estrato::format::names::TenantNames {
        estrato::format::names::TenantNames::new("default").unwrap()
    }
}
