//! Forgetting, call by call: a fault at every request, two who forget at once, sessions that are still
//! announced, holds that come in between.

use crate::support::say;
use crate::world::{FULL, Fate, Fateful, Hand, WRITER, World, key, manifest};
use bytes::Bytes;
use estrato::clock::Clock;
use estrato::crypto::slot::Credential;
use estrato::error::{Error, Result, StoreFault};
use estrato::format::header::{Cipher, ObjectType};
use estrato::format::key::Role;
use estrato::format::records::SessionRecord;
use estrato::format::standing::{Forgotten, ForgottenSnapshot, Hold};
use estrato::id::SnapshotId;
use estrato::maintenance::{self, Depth};
use estrato::monitor::Silent;
use estrato::repo::{self, Access, Forgot, NewKey, Repository, Secret, Session};
use estrato::snapshot;
use estrato::store::{Fault, Faulty, Memory, Store};
use std::collections::BTreeMap;
use std::sync::{Arc, Barrier};
use std::time::Duration;

/// Commits a snapshot of nothing behind `previous`, in one chain.
fn commit(repo: &Repository, counter: u64, previous: Option<SnapshotId>) -> SnapshotId {
    let mut manifest = manifest();
    (manifest.counter, manifest.previous) = (counter, previous);
    manifest.time.seconds += counter as i64;
    Session::begin(repo, "db1").unwrap().commit(&manifest).unwrap()
}

/// A chain of so many snapshots.
fn chain(repo: &Repository, len: u64) -> Vec<SnapshotId> {
    let mut all: Vec<SnapshotId> = Vec::new();
    for counter in 1..=len {
        all.push(commit(repo, counter, all.last().copied()));
    }
    all
}

/// Puts a session's object beside its snapshot, as it is until the commit was answered.
fn announce(world: &World, repo: &Repository, id: &SnapshotId) {
    let session =
        SessionRecord { owner: [1; 16], started: world.clock.now(), host: "db1".into(), pid: 1, seen: 0, renewed: 0 };
    let name = repo.names().session(id);
    world.write(repo, ObjectType::Session, &name, &world.signing(repo, FULL), &session.encode());
}

fn forget(repo: &Repository, doomed: &[SnapshotId]) -> Result<Forgot> {
    let listing = snapshot::list(repo)?;
    maintenance::forget(repo, &listing, doomed, &repo.held()?, &Silent)
}

/// Exactly these stand, and nothing is missed or damaged.
#[track_caller]
fn assert_stand(repo: &Repository, expected: &[SnapshotId], label: &str) {
    let listing = snapshot::list(repo).unwrap();
    let mut there: Vec<SnapshotId> = listing.snapshots.iter().map(|s| s.id).collect();
    let mut expected = expected.to_vec();
    there.sort();
    expected.sort();
    assert_eq!(there, expected, "{label}");
    assert_eq!((listing.damaged.len(), &listing.gone[..]), (0, &[][..]), "{label}");
    let report = maintenance::check(repo, Depth::Structure, &Silent).unwrap();
    assert_eq!(report.damages, 0, "{label}: {:?}", report.damage);
}

fn open(store: &Arc<Faulty>) -> Repository {
    let store: Arc<dyn Store> = Arc::<Faulty>::clone(store);
    let clock: Arc<dyn Clock> = Arc::new(Hand::default());
    let credential = Credential::KeyFile(key(FULL));
    Repository::open(Access { store, clock, tenant: "default".into(), credential, cache: None }).unwrap()
}

fn faulty(objects: &BTreeMap<String, Bytes>) -> Arc<Faulty> {
    let inner = Memory::default();
    objects.iter().for_each(|(name, bytes)| inner.create(name, bytes.clone()).unwrap());
    Arc::new(Faulty::new(Arc::new(inner)))
}

#[test]
fn a_fault_at_every_request_harms_nothing_that_stays() {
    let world = World::new();
    let repo = world.open(FULL);
    let all = chain(&repo, 6);
    forget(&repo, &all[..1]).unwrap();
    // One is still announced, and becomes a tombstone.
    announce(&world, &repo, &all[3]);
    let (doomed, stay) = ([all[1], all[3], all[4]], [all[2], all[5]]);
    let objects = world.objects();
    let store = faulty(&objects);
    let repo = open(&store);
    store.heal();
    store.decide(|_| None);
    assert_eq!(forget(&repo, &doomed).unwrap().buried, [all[3]]);
    let requests = store.requests();
    assert!(requests > 8, "{requests}");
    let faults = [
        Fault::CrashBefore,
        Fault::CrashAfter,
        Fault::Fail(StoreFault::Unavailable),
        Fault::LoseAnswer,
        Fault::Tear,
        Fault::Duplicate,
        Fault::Reorder,
        Fault::Delay(Duration::from_millis(1)),
    ];
    let (mut tried, mut failed) = (0, 0);
    for number in 1..=requests + 1 {
        for fault in faults {
            let label = format!("request {number}: {fault:?}");
            let store = faulty(&objects);
            let repo = open(&store);
            store.at(number, fault);
            let outcome = forget(&repo, &doomed);
            store.heal();
            store.decide(|_| None);
            failed += usize::from(outcome.is_err());
            // Whatever came of it, those that stay are there, and of the others none is missed.
            let repo = open(&store);
            let listing = snapshot::list(&repo).unwrap();
            assert_eq!((listing.damaged.len(), &listing.gone[..]), (0, &[][..]), "{label}");
            assert!(stay.iter().all(|id| listing.snapshots.iter().any(|s| s.id == *id)), "{label}");
            let left: Vec<SnapshotId> = listing.snapshots.iter().map(|s| s.id).collect();
            assert!(outcome.is_err() || left.len() == stay.len(), "{label}: it said that it was done");
            let left: Vec<SnapshotId> = doomed.iter().copied().filter(|id| left.contains(id)).collect();
            // One that was not reached can still be held, once that was looked at.
            if let Some(id) = left.last() {
                match repo.hold(id, "") {
                    Ok(()) => {}
                    Err(Error::Busy { .. }) => repo.hold(id, "").unwrap(),
                    Err(e) => panic!("{label}: {e}"),
                }
                repo.end_hold(id).unwrap();
            }
            forget(&repo, &left).unwrap();
            assert_stand(&repo, &stay, &label);
            tried += 1;
        }
    }
    say(&format!("faults, forget: {tried} points tried, {failed} ended with an error"));
}

#[test]
fn two_who_forget_at_once_leave_nothing_to_be_missed() {
    for round in 0..40 {
        let world = World::new();
        let repo = world.open(FULL);
        let all = chain(&repo, 9);
        forget(&repo, &all[3..4]).unwrap();
        let together = Barrier::new(2);
        std::thread::scope(|scope| {
            for doomed in [[all[1], all[4], all[6]], [all[2], all[5], all[6]]] {
                let (world, together) = (&world, &together);
                scope.spawn(move || {
                    let repo = world.open(FULL);
                    together.wait();
                    forget(&repo, &doomed).unwrap();
                });
            }
        });
        assert_stand(&repo, &[all[0], all[7], all[8]], &format!("round {round}"));
        // The next one makes one record of both.
        forget(&repo, &all[7..8]).unwrap();
        assert_eq!(world.names(&repo.names().forgotten_records()).len(), 1);
        assert_stand(&repo, &[all[0], all[8]], &format!("round {round}, later"));
        world.store.delete(&repo.names().snapshot(&all[0])).unwrap();
        assert_eq!(snapshot::list(&repo).unwrap().gone[0].snapshot, all[0], "it was taken away");
    }
}

#[test]
fn a_snapshot_whose_session_is_announced_becomes_a_tombstone_that_no_commit_replaces() {
    let world = World::new();
    let repo = world.open(FULL);
    // A commit of which its owner was not told yet.
    let id = commit(&repo, 1, None);
    let name = repo.names().snapshot(&id);
    let object = world.store.read(&name, 1 << 20).unwrap();
    announce(&world, &repo, &id);
    let forgot = forget(&repo, &[id]).unwrap();
    assert_eq!((&forgot.gone[..], &forgot.buried[..]), (&[id][..], &[id][..]));
    assert_eq!(world.store.create(&name, object).unwrap_err().fault, StoreFault::Exists);
    assert!(repo.snapshot(&id).unwrap().manifest().is_none());
    assert_stand(&repo, &[], "a tombstone is no snapshot");
    // It needs no forgetting.
    assert!(matches!(repo.hold(&id, ""), Err(Error::NotFound(_))));
}

#[test]
fn what_a_full_key_forgot_and_held_counts_when_that_key_is_gone() {
    let world = World::new();
    let mut repo = world.open(FULL);
    let second = NewKey { role: Role::Full, label: "second".into(), secret: Secret::KeyFile(key(9)) };
    repo.add_key(&second).unwrap();
    let all = chain(&repo, 4);
    let other = world.open(9);
    announce(&world, &repo, &all[1]);
    forget(&other, &all[1..3]).unwrap();
    other.hold(&all[0], "case 17").unwrap();
    repo.remove_key("second").unwrap();
    let repo = world.open(FULL);
    assert_stand(&repo, &[all[0], all[3]], "the word of the tenant's key stays");
    assert_eq!(repo.holds().unwrap()[0].hold.as_ref().unwrap().why, "case 17");
    assert!(matches!(forget(&repo, &all[..1]), Err(Error::Invalid(_))));
}

#[test]
fn a_writers_record_and_hold_do_not_count() {
    let world = World::new();
    let (repo, writer) = (world.open(FULL), world.open(WRITER));
    let all = chain(&repo, 3);
    assert!(matches!(forget(&repo, &[]).map(|forgot| forgot.gone.len()), Ok(0)));
    assert!(matches!(writer.hold(&all[0], ""), Err(Error::NotAllowed { .. })));
    assert!(matches!(writer.end_hold(&all[0]), Err(Error::NotAllowed { .. })));
    assert!(matches!(writer.forget(&all[..1], &[], true, &Silent), Err(Error::NotAllowed { .. })));
    let snapshot = all[1];
    let forged = ForgottenSnapshot { snapshot, signer: repo.signer(), chain: [1; 16], counter: 9, before: None };
    let name = repo.names().forgotten(&estrato::id::ForgottenId([3; 16]));
    let record = Forgotten { snapshots: vec![forged] }.encode();
    world.write(&repo, ObjectType::Forgotten, &name, &world.signing(&repo, WRITER), &record);
    world.store.delete(&repo.names().snapshot(&snapshot)).unwrap();
    let listing = snapshot::list(&repo).unwrap();
    assert_eq!(listing.gone[0].snapshot, snapshot, "a writer's word hides nothing");
    let report = maintenance::check(&repo, Depth::Structure, &Silent).unwrap();
    assert!(report.damage.iter().any(|d| d.object == name), "{:?}", report.damage);
    // What lies where a hold should is told; taking it for none could end one.
    let hold = Hold { time: world.clock.now(), why: "mine".into() }.encode();
    world.write(&repo, ObjectType::Hold, &repo.names().hold(&all[0]), &world.signing(&repo, WRITER), &hold);
    assert!(repo.holds().unwrap()[0].hold.is_err());
    assert!(matches!(forget(&repo, &all[..1]), Err(Error::Invalid(_))));
    repo.end_hold(&all[0]).unwrap();
    forget(&repo, &all[..1]).unwrap();
}

#[test]
fn a_hold_that_comes_while_it_is_forgotten_keeps_it_or_is_told() {
    let world = World::new();
    let repo = world.open(FULL);
    let all = chain(&repo, 4);
    let listing = snapshot::list(&repo).unwrap();
    let there: Vec<_> = listing.snapshots.iter().map(|s| (s.id, &s.manifest, s.signer)).collect();
    // Held after it was chosen: it stays, and so does the chain behind it.
    repo.hold(&all[1], "").unwrap();
    let forgot = repo.forget(&all[1..3], &there, true, &Silent).unwrap();
    assert_eq!((&forgot.gone[..], &forgot.held[..]), (&all[2..3], &all[1..2]));
    assert_stand(&repo, &[all[0], all[1], all[3]], "held in between");
    // The record says that it is gone; whoever holds it now cannot know that nobody is about to do it.
    repo.end_hold(&all[1]).unwrap();
    assert!(matches!(repo.hold(&all[1], ""), Err(Error::Busy { .. })));
    assert!(repo.held().unwrap().contains(&all[1]), "it is held in any case");
    repo.hold(&all[1], "").unwrap();
    world.store.delete(&repo.names().snapshot(&all[1])).unwrap();
    let gone = snapshot::list(&repo).unwrap().gone;
    assert_eq!(gone.iter().map(|gone| gone.snapshot).collect::<Vec<_>>(), [all[1]], "no record says so any more");
}

#[test]
fn where_a_store_replaces_a_snapshot_stays_while_its_session_is_announced() {
    let store = Fateful::new();
    store.henceforth(|_| Fate::Overwrites);
    let clock = Arc::new(Hand::default());
    let new = NewKey::full(Secret::KeyFile(key(FULL)), "full");
    repo::init(&*store, &*clock, "default", Cipher::Aes256Gcm, &new).unwrap();
    let credential = Credential::KeyFile(key(FULL));
    let access = Access { store: store.clone(), clock, tenant: "default".into(), credential, cache: None };
    let repo = Repository::open(access).unwrap();
    assert!(!repo.creates_if_absent());
    let all = chain(&repo, 3);
    let name = repo.names().session(&all[0]);
    store.write(&name, "announced".into()).unwrap();
    let forgot = forget(&repo, &all[..2]).unwrap();
    assert_eq!((&forgot.gone[..], &forgot.unfinished[..]), (&all[1..2], &all[..1]));
    store.delete(&name).unwrap();
    assert_stand(&repo, &[all[0], all[2]], "it stays");
    forget(&repo, &all[..1]).unwrap();
    assert_stand(&repo, &all[2..], "and goes later");
}

#[test]
fn a_long_chain_leaves_a_short_record() {
    let world = World::new();
    let repo = world.open(FULL);
    let mut last = None;
    for counter in 1..=60 {
        last = Some((commit(&repo, counter, last.map(|(id, _)| id)), counter));
        let listing = snapshot::list(&repo).unwrap();
        // Every tenth stays, and the last two.
        let old =
            |s: &&snapshot::Snapshot| !s.manifest.counter.is_multiple_of(10) && s.manifest.counter + 1 < counter;
        let doomed: Vec<SnapshotId> = listing.snapshots.iter().filter(old).map(|s| s.id).collect();
        maintenance::forget(&repo, &listing, &doomed, &repo.held().unwrap(), &Silent).unwrap();
    }
    let records = world.names(&repo.names().forgotten_records());
    assert_eq!(records.len(), 1);
    let size = world.store.read(&records[0], 1 << 20).unwrap().len();
    assert!(size < 1200, "{size} bytes for 53 snapshots");
    let listing = snapshot::list(&repo).unwrap();
    assert_eq!((listing.snapshots.len(), listing.gone.len()), (7, 0));
    for s in &listing.snapshots[..6] {
        let object = world.store.read(&repo.names().snapshot(&s.id), 1 << 20).unwrap();
        world.store.delete(&repo.names().snapshot(&s.id)).unwrap();
        let gone = snapshot::list(&repo).unwrap().gone;
        assert_eq!(gone.iter().map(|gone| gone.snapshot).collect::<Vec<_>>(), [s.id], "each is missed");
        world.store.write(&repo.names().snapshot(&s.id), object).unwrap();
    }
}
