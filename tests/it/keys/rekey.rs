//! A new key pair: what a thief of the old private key reads afterwards, and what everybody else still does.

use super::crash::{at_every_request, objects, open, stage};
use super::{admit, snapshot_as, with};
use crate::support::{Place, noise};
use crate::world::{BLOBS, FULL, WRITER, World, key, packs};
use estrato::crypto::hpke::PrivateKey;
use estrato::crypto::keyfile::KeyFile;
use estrato::crypto::slot::{self, Credential};
use estrato::error::Result;
use estrato::format::header::ObjectType;
use estrato::format::key::{Bundle, Role, SignerList};
use estrato::format::pack::FRAMES_AT;
use estrato::id::PackName;
use estrato::limits;
use estrato::maintenance::prune::{self, Bounds};
use estrato::maintenance::{self, Depth};
use estrato::monitor::Silent;
use estrato::pack::PackKey;
use estrato::repo::{NewKey, Rekey, Repository, Secret, SlotFate};
use estrato::snapshot;
use estrato::store::Faulty;
use std::fs;
use std::sync::Arc;

const THIRD: u8 = 3;

fn how<'a>(credential: &'a Credential, key_files: &'a [KeyFile], drop_others: bool) -> Rekey<'a> {
    Rekey { credential, key_files, recipients: &[], drop_others }
}

/// Rekeys by the full key, with the third key's file at hand.
fn rekey(repo: &mut Repository) -> Result<()> {
    repo.rekey(&how(&Credential::KeyFile(key(FULL)), &[key(THIRD)], false)).map(|_| ())
}

/// The packs that a private key opens.
fn opened_by(repo: &Repository, private: &PrivateKey) -> Vec<PackName> {
    let head = |pack: &PackName| repo.store().read_range(&repo.names().pack(pack), 0, FRAMES_AT as usize).unwrap();
    let opens = |pack: &PackName| PackKey::open(&repo.realm(), private, pack, &head(pack)).is_ok();
    packs(repo).into_iter().filter(opens).collect()
}

fn private_key(bundle: &Bundle) -> PrivateKey {
    PrivateKey::from_bytes(&bundle.private_key.unwrap()).unwrap().0
}

/// What prune does with packs under former key pairs.
fn rewrite(repo: &Repository) -> Result<()> {
    let bounds = Bounds { unused_percent: f64::MAX, repack: None };
    let options = prune::Options { bounds, is_rekeyed: true, ..prune::Options::default() };
    prune::prepare(repo, &options, &Silent)?.execute(&Silent).map(|_| ())
}

/// A world with a third key, which is full, and two snapshots.
fn world() -> World {
    let world = World::new();
    let third = NewKey::full(Secret::KeyFile(key(THIRD)), "third");
    world.open(FULL).add_key(&third).unwrap();
    world.snapshot(&world.open(FULL), &BLOBS);
    world
}

#[test]
fn whoever_kept_the_old_private_key_opens_what_was_sealed_before_and_nothing_new() {
    let world = world();
    let mut repo = world.open(FULL);
    let stolen = private_key(&world.bundle(&repo, FULL));
    let before = packs(&repo);
    assert_eq!(opened_by(&repo, &stolen), before);
    rekey(&mut repo).unwrap();
    // The one that rekeyed, others that open it now, and a writer, who learns of it by the list.
    world.snapshot(&repo, &[b"by the one that rekeyed"]);
    world.snapshot(&world.open(THIRD), &[b"by another"]);
    world.snapshot(&world.open(WRITER), &[b"by a writer"]);
    assert_eq!(packs(&repo).len(), before.len() + 3);
    assert_eq!(opened_by(&repo, &stolen), before);
    for n in [FULL, THIRD] {
        let repo = world.open(n);
        assert_eq!(snapshot::list(&repo).unwrap().snapshots.len(), 4, "what was there before too");
        assert_eq!(maintenance::check(&repo, Depth::AllData, &Silent).unwrap().damages, 0);
    }
    // All of it written anew, by a key that did not make the pair.
    let repo = world.open(THIRD);
    rewrite(&repo).unwrap();
    assert_eq!(opened_by(&repo, &stolen), []);
    assert_eq!(repo.sealed_to_former(&packs(&repo)).unwrap(), []);
    assert_eq!(maintenance::check(&world.open(FULL), Depth::AllData, &Silent).unwrap().damages, 0);
    let kept = packs(&repo);
    rewrite(&repo).unwrap();
    assert_eq!(packs(&repo), kept, "there is nothing left to do");
}

#[test]
fn a_prune_seals_what_it_writes_anew_to_the_new_pair() {
    let world = world();
    let mut repo = world.open(FULL);
    let stolen = private_key(&world.bundle(&repo, FULL));
    rekey(&mut repo).unwrap();
    assert_eq!(repo.sealed_to_former(&packs(&repo)).unwrap(), packs(&repo));
    prune::prepare(&repo, &Bounds { unused_percent: 0.0, repack: None }.into(), &Silent)
        .unwrap()
        .execute(&Silent)
        .unwrap();
    assert_eq!(opened_by(&repo, &stolen).len(), packs(&repo).len(), "what is needed whole stays as it is");
}

#[test]
fn a_key_that_cannot_be_given_the_new_private_key_is_named_and_goes_only_if_asked() {
    let world = world();
    let mut repo = world.open(FULL);
    let credential = Credential::KeyFile(key(FULL));
    let before = world.objects();
    let e = repo.rekey(&how(&credential, &[], false)).unwrap_err().to_string();
    assert!(e.contains("third") && e.contains("--key-file-too") && e.contains("--drop-others"), "{e}");
    assert_eq!(world.objects(), before);
    let fates: Vec<SlotFate> = repo.rekey(&how(&credential, &[], true)).unwrap().keys.iter().map(|k| k.1).collect();
    assert_eq!(fates, [SlotFate::InUse, SlotFate::Dropped]);
    assert!(world.try_open(THIRD, None).is_err());
    assert!(world.try_open(WRITER, None).is_ok() && world.try_open(FULL, None).is_ok());
}

#[test]
fn a_slot_without_the_latest_private_key_reads_what_it_can_and_writes_nothing() {
    let world = world();
    let mut repo = world.open(FULL);
    let name = repo.names().slot(&slot::key_file_slots(&key(THIRD), repo.tenant())[0]);
    let old = world.objects()[&name].clone();
    rekey(&mut repo).unwrap();
    estrato::store::Store::write(&*world.store, &name, old).unwrap();
    let told = world.trouble(THIRD, None);
    assert!(told.contains("lacks the tenant's latest private key") && told.contains("key rekey"), "{told}");
    rekey(&mut repo).unwrap();
    assert_eq!(world.trouble(THIRD, None), "");
}

#[test]
fn a_damaged_slot_is_named_and_stops_a_rekeying_before_anything_is_sealed_to_the_new_pair() {
    let world = world();
    let mut repo = world.open(FULL);
    let name = repo.names().slot(&slot::key_file_slots(&key(THIRD), repo.tenant())[0]);
    estrato::store::Store::write(&*world.store, &name, b"rubbish".to_vec().into()).unwrap();
    let version = repo.signers().version;
    let e = rekey(&mut repo).unwrap_err();
    assert_eq!((e.object(), world.open(FULL).signers().version), (Some(&*name), version), "{e}");
    let mut repo = world.open(FULL);
    repo.remove_key("third").unwrap();
    rekey(&mut repo).unwrap();
    assert_eq!(maintenance::check(&world.open(FULL), Depth::AllData, &Silent).unwrap().damages, 0);
}

#[test]
fn a_writer_cannot_name_a_public_key() {
    let world = world();
    let repo = world.open(FULL);
    let (_, thief) = estrato::crypto::hpke::pair_from_seed(&[9; 32]);
    let version = repo.signers().version + 1;
    let list = SignerList { version, public_key: Some(thief.to_bytes()), ..repo.signers().clone() };
    for n in [WRITER, FULL] {
        let signing = world.signing(&repo, n);
        world.write(&repo, ObjectType::Signers, &repo.names().signers(version), &signing, &list.encode());
        for opens in [WRITER, FULL] {
            let told = world.trouble(opens, None);
            assert!(told.contains("the tenant's key did not sign it"), "{told}");
        }
    }
}

#[test]
fn a_tenant_has_no_more_key_pairs_than_a_reader_tries() {
    let world = world();
    let mut repo = world.open(FULL);
    for _ in 1..limits::KEY_PAIRS_MAX {
        rekey(&mut repo).unwrap();
    }
    let e = rekey(&mut repo).unwrap_err().to_string();
    assert!(e.contains("key pairs"), "{e}");
    for n in [FULL, THIRD] {
        let repo = world.open(n);
        assert_eq!(snapshot::list(&repo).unwrap().snapshots.len(), 1);
        assert_eq!(maintenance::check(&repo, Depth::AllData, &Silent).unwrap().damages, 0);
    }
    // The tenant's own record is made anew from the slot: it has the first pair.
    estrato::store::Store::delete(&*world.store, &world.open(FULL).names().tenant()).unwrap();
    let repo = world.open(FULL);
    assert_eq!(repo.salvaged().len(), 1, "{:?}", repo.salvaged());
    assert_eq!(snapshot::list(&repo).unwrap().snapshots.len(), 1);
}

#[test]
fn a_fault_at_every_request_leaves_all_keys_and_all_data() {
    let world = world();
    let all = objects(&*world.store);
    let act = |store: &Arc<Faulty>| rekey(&mut open(store, FULL)?);
    let whole = |label: &str, store: &Arc<Faulty>| {
        for (n, depth) in [(FULL, Depth::Structure), (THIRD, Depth::AllData)] {
            let repo = open(store, n).unwrap_or_else(|e| panic!("{label}: {e}"));
            assert!(repo.salvaged().is_empty(), "{label}: {:?}", repo.salvaged());
            assert_eq!(maintenance::check(&repo, depth, &Silent).unwrap().damages, 0, "{label}");
        }
        assert!(open(store, WRITER).is_ok(), "{label}");
    };
    at_every_request("rekeying", &all, act, |label, store, _| {
        whole(label, store);
        act(store).unwrap_or_else(|e| panic!("{label}: {e}"));
        whole(label, store);
    });
    let rekeyed = stage(&all);
    act(&rekeyed).unwrap();
    let act = |store: &Arc<Faulty>| rewrite(&open(store, FULL)?);
    at_every_request("writing packs anew", &objects(&*rekeyed), act, |label, store, _| {
        whole(label, store);
        // A plan that was left comes first.
        act(store).and_then(|()| act(store)).unwrap_or_else(|e| panic!("{label}: {e}"));
        whole(label, store);
        let repo = open(store, FULL).unwrap();
        assert_eq!(repo.sealed_to_former(&packs(&repo)).unwrap(), [], "{label}");
    });
}

#[test]
fn two_who_change_keys_at_once_lose_nothing() {
    let world = world();
    let (mut one, mut other) = (world.open(FULL), world.open(THIRD));
    rekey(&mut one).unwrap();
    let new = NewKey { role: Role::Full, label: "late".into(), secret: Secret::KeyFile(key(8)) };
    let e = other.add_key(&new).unwrap_err().to_string();
    assert!(e.contains("key pair"), "{e}");
    let credential = Credential::KeyFile(key(THIRD));
    assert!(other.rekey(&how(&credential, &[key(FULL)], false)).is_err());
    world.open(THIRD).add_key(&new).unwrap();
    for n in [FULL, THIRD, 8] {
        assert_eq!(world.trouble(n, None), "", "{n}");
    }
}

#[test]
fn the_program_rekeys_and_says_what_becomes_of_each_key() {
    let place = Place::with_repository();
    place.write("source/a", noise("a", 100_000));
    place.snapshot(&[]);
    admit(&place, "writer");
    let text = place.run(&["key", "show", "--new-key-file", "theirs"]).expect_code(0).stdout();
    place.run(&["key", "add", "--recipient", text.trim(), "--label", "theirs"]).expect_code(0);
    place.run(&["key", "add", "--new-key-file", "spare", "--label", "spare"]).expect_code(0);
    let keys = |place: &Place| -> Vec<Vec<u8>> {
        place.objects("keys").iter().map(|path| fs::read(path).unwrap()).collect()
    };
    let before = keys(&place);
    let ran = place.run(&["key", "rekey"]).expect_code(2);
    assert!(ran.stderr().contains("spare") && !ran.stderr().contains("theirs"), "{}", ran.stderr());
    let told = place.run(&["key", "rekey", "-n", "--now", "--key-file-too", "spare"]).expect_code(0).stdout();
    assert!(told.contains("new private key added") && told.contains("nothing was changed"), "{told}");
    assert_eq!(keys(&place), before);
    let told = place.run(&["key", "rekey", "--now", "--key-file-too", "spare"]).expect_code(0).stdout();
    assert!(told.contains("new private key added") && told.contains("written anew"), "{told}");
    place.write("source/b", noise("b", 50_000));
    snapshot_as(&place, "writer");
    for opener in ["key", "spare", "theirs"] {
        let out = format!("out-{opener}");
        place.run_as(opener, &["restore", "latest", "--target", &out, "--verify"]).expect_code(0);
        assert_eq!(fs::read(place.path(out).join("source/b")).unwrap(), noise("b", 50_000));
        place.run_as(opener, &["check", "--read-data"]).expect_code(0);
    }
    let done = place.run(&["key", "rekey", "--finish", "--json"]).expect_code(0).json();
    assert_eq!(done["rewritten"]["planned"]["repacked"]["packs"], 0, "{done}");
    // A recipient rekeys too; and whoever must go goes.
    let told = place.run_as("theirs", &["key", "rekey", "--drop-others"]).expect_code(0).stdout();
    assert!(told.contains("removed"), "{told}");
    place.run(&["snapshots"]).expect_code(12);
    place.run_as("theirs", &["check", "--read-data"]).expect_code(0);
    let ran = place.run_as("writer", &["key", "rekey"]).expect_code(12);
    assert!(ran.stderr().contains("a writer key cannot rekey"), "{}", ran.stderr());
    let ran = place.run_as("writer", &["prune"]).expect_code(12);
    assert!(ran.stderr().contains("a writer key cannot prune"), "{}", ran.stderr());
}

#[test]
fn a_password_rekeys_its_own_slot() {
    let place = Place::new();
    with(&place, &[("ESTRATO_NEW_PASSWORD", "correct horse")], &["init", "--new-password"]).expect_code(0);
    place.write("source/a", "some text");
    let by_password = |arguments: &[&str]| with(&place, &[("ESTRATO_PASSWORD", "correct horse")], arguments);
    by_password(&["snapshot", "source"]).expect_code(0);
    by_password(&["key", "rekey", "--now"]).expect_code(0);
    by_password(&["snapshot", "source"]).expect_code(0);
    by_password(&["check", "--read-data"]).expect_code(0);
    assert_eq!(place.objects("keys").iter().filter(|p| p.extension().is_none()).count(), 1);
}
