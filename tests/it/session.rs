//! The order of a backup beside others, through the library: what a session announces, what it
//! relies on, and what decides whether its snapshot exists.

use crate::world::{
    BLOBS, FULL, Fate, Fateful, KNOWN, NEW, WRITER, World, key, manifest, options, packs, put, record,
};
use bytes::Bytes;
use estrato::backup::{self, Source, Stream};
use estrato::clock::Clock;
use estrato::crypto::sign::Signing;
use estrato::crypto::slot::Credential;
use estrato::error::{Error, StoreFault};
use estrato::format::header::{Cipher, Header, ObjectType};
use estrato::format::index::IndexObject;
use estrato::format::names::last_part;
use estrato::format::pack::BlobKind;
use estrato::format::records::{Plan, Tombstone};
use estrato::id::IndexName;
use estrato::index::KnownPack;
use estrato::limits;
use estrato::monitor::Silent;
use estrato::repo::{self, Access, NewKey, Repository, Secret, Session, Stored};
use estrato::snapshot;
use estrato::store::Store;

#[test]
fn a_session_is_announced_and_its_object_gone_once_the_snapshot_exists() {
    let world = World::new();
    for n in [FULL, WRITER] {
        let repo = world.open(n);
        let before = repo.snapshot_ids().unwrap().len();
        let session = Session::begin(&repo, "db1").unwrap();
        let id = session.id();
        assert_eq!(world.names(&repo.names().sessions()), [repo.names().session(&id)]);
        let record = record(&repo, &id);
        assert_eq!((&*record.host, record.pid, record.seen), ("db1", std::process::id(), 0));
        assert_eq!(put(&session, &BLOBS).unwrap().len(), 2);
        assert_eq!(repo.snapshot_ids().unwrap().len(), before, "not before the commit");
        assert_eq!(session.commit(&manifest()).unwrap(), id);
        assert!(repo.snapshot_ids().unwrap().contains(&id));
        assert!(world.names(&repo.names().sessions()).is_empty());
    }
    let repo = world.open(FULL);
    let listing = snapshot::list(&repo).unwrap();
    assert_eq!((listing.snapshots.len(), listing.damaged.len()), (2, 0));
    Session::begin(&repo, "db1").unwrap().abandon();
    assert!(world.names(&repo.names().sessions()).is_empty());
    assert_eq!(repo.snapshot_ids().unwrap().len(), 2);
}

#[test]
fn a_session_renews_its_object_only_when_that_is_due() {
    let world = World::new();
    let repo = world.open(WRITER);
    let session = Session::begin(&repo, "db1").unwrap();
    world.clock.forward(200);
    session.renew_if_due().unwrap();
    assert_eq!(record(&repo, &session.id()).renewed, 0);
    world.clock.forward(100);
    session.renew_if_due().unwrap();
    session.renew_if_due().unwrap();
    assert_eq!(record(&repo, &session.id()).renewed, 1);
    session.abandon();
}

#[test]
fn a_tombstone_fences_the_session_and_no_snapshot_comes_to_be() {
    let world = World::new();
    let repo = world.open(FULL);
    let writer = world.open(WRITER);
    let session = Session::begin(&writer, "db1").unwrap();
    put(&session, &BLOBS).unwrap();
    let (id, name) = (session.id(), repo.names().snapshot(&session.id()));
    let grave = Tombstone { time: world.clock.now(), why: "silent for an hour".into() };
    world.write(&repo, ObjectType::Tombstone, &name, &world.signing(&repo, FULL), &grave.encode());
    let before = world.store.read(&name, 1 << 20).unwrap();
    assert!(matches!(session.commit(&manifest()), Err(Error::Fenced { .. })));
    assert_eq!(world.store.read(&name, 1 << 20).unwrap(), before, "the tombstone stays");
    let listing = snapshot::list(&repo).unwrap();
    assert_eq!((listing.snapshots.len(), listing.damaged.len()), (0, 0));
    assert!(repo.snapshot(&id).unwrap().manifest().is_none());
    // It deletes nothing: not even its own object, by which a prune knows it.
    assert_eq!(world.names(&repo.names().sessions()), [repo.names().session(&id)]);
    // The next run finds what was sent.
    assert_eq!(world.snapshot(&writer, &BLOBS).1, KNOWN);
}

#[test]
fn whatever_lies_under_the_snapshots_name_fences_it() {
    let world = World::new();
    let repo = world.open(FULL);
    for garbage in [&b""[..], b"garbage"] {
        let session = Session::begin(&repo, "db1").unwrap();
        world.store.write(&repo.names().snapshot(&session.id()), Bytes::from_static(garbage)).unwrap();
        assert!(matches!(session.commit(&manifest()), Err(Error::Fenced { .. })));
    }
    let listing = snapshot::list(&repo).unwrap();
    assert_eq!((listing.snapshots.len(), listing.damaged.len()), (0, 2), "it is no tombstone either");
}

#[test]
fn a_tombstone_counts_only_if_a_full_key_signed_it() {
    let world = World::new();
    let repo = world.open(FULL);
    let (id, _) = world.snapshot(&repo, &BLOBS);
    let grave = Tombstone { time: world.clock.now(), why: "mine now".into() };
    let name = repo.names().snapshot(&id);
    for signing in [world.signing(&repo, WRITER), Signing::from_seed(&[9; 32])] {
        world.write(&repo, ObjectType::Tombstone, &name, &signing, &grave.encode());
        let listing = snapshot::list(&repo).unwrap();
        assert_eq!((listing.snapshots.len(), listing.damaged.len()), (0, 1), "said to be damaged, not forgotten");
    }
}

#[test]
fn what_a_plan_in_force_condemns_is_stored_again() {
    let world = World::new();
    let repo = world.open(FULL);
    let (seen, _) = world.snapshot(&repo, &BLOBS);
    let (unseen, stored) = world.snapshot(&repo, &[BLOBS[0], BLOBS[1], b"a third"]);
    assert_eq!(stored, [Stored::Known, Stored::Known, Stored::New]);
    let condemned = repo.index().copies(&repo.id_keys().blob_id(BlobKind::Chunk, BLOBS[0])).unwrap()[0].pack();
    let plan = Plan { number: 7, condemned: vec![condemned], seen: vec![seen], ..Plan::default() };
    world.plan(&repo, &plan, &world.signing(&repo, FULL));

    let session = Session::begin(&repo, "db1").unwrap();
    assert_eq!(record(&repo, &session.id()).seen, 7, "here and not later");
    assert!(session.counting().trusts(&seen) && !session.counting().trusts(&unseen));
    assert_eq!(put(&session, &[b"a third"]).unwrap(), [Stored::Known], "what is not condemned counts");
    assert_eq!(put(&session, &BLOBS).unwrap(), NEW);
    // Its own copies count.
    assert_eq!(put(&session, &BLOBS).unwrap(), KNOWN);
    session.commit(&manifest()).unwrap();
    // And the next session's, though the plan is still in force.
    assert_eq!(world.snapshot(&repo, &BLOBS).1, KNOWN);
}

#[test]
fn a_plan_that_is_done_is_in_force_no_more() {
    let world = World::new();
    let repo = world.open(FULL);
    let (id, _) = world.snapshot(&repo, &BLOBS);
    let signing = world.signing(&repo, FULL);
    world.plan(&repo, &Plan { number: 1, condemned: packs(&repo), ..Plan::default() }, &signing);
    world.plan(&repo, &Plan { number: 2, done: true, ..Plan::default() }, &signing);
    let session = Session::begin(&repo, "db1").unwrap();
    assert_eq!(record(&repo, &session.id()).seen, 0);
    assert!(session.counting().trusts(&id));
    assert_eq!(put(&session, &BLOBS).unwrap(), KNOWN);
    session.abandon();
}

#[test]
fn under_a_plan_that_cannot_be_read_everything_is_stored_again() {
    let world = World::new();
    let repo = world.open(FULL);
    let (id, _) = world.snapshot(&repo, &BLOBS);
    let name = repo.names().plan(3);
    let plan = Plan { number: 3, ..Plan::default() };
    // Garbage, nothing, and a plan that was signed for another name.
    let header = Header { object: ObjectType::Plan, cipher: repo.cipher() };
    let other = repo.names().plan(2);
    let moved = repo.realm().seal_shared(header, Some(&other), &world.signing(&repo, FULL), &plan.encode()).unwrap();
    for bytes in [b"garbage, and long enough for a header".to_vec(), Vec::new(), moved] {
        world.store.write(&name, bytes.into()).unwrap();
        let mut session = Session::begin(&repo, "db1").unwrap();
        assert!(session.take_warnings().iter().any(|w| w.contains(&name)));
        assert!(!session.counting().trusts(&id));
        assert_eq!(put(&session, &BLOBS).unwrap(), NEW);
        session.abandon();
    }
}

#[test]
fn a_writers_plan_does_not_count() {
    let world = World::new();
    let repo = world.open(FULL);
    let (id, _) = world.snapshot(&repo, &BLOBS);
    let plan = Plan { number: 1, condemned: packs(&repo), ..Plan::default() };
    for signing in [world.signing(&repo, WRITER), Signing::from_seed(&[9; 32])] {
        world.plan(&repo, &plan, &signing);
        for n in [FULL, WRITER] {
            let repo = world.open(n);
            let mut session = Session::begin(&repo, "db1").unwrap();
            assert!(session.take_warnings().iter().any(|w| w.contains("not signed by a full key")));
            assert_eq!(record(&repo, &session.id()).seen, 0);
            assert!(session.counting().trusts(&id));
            assert_eq!(put(&session, &BLOBS).unwrap(), KNOWN);
            session.abandon();
        }
    }
}

#[test]
fn whoever_is_no_full_key_takes_no_number_from_the_plans_to_come() {
    let world = World::new();
    let repo = world.open(FULL);
    let (full, writer) = (world.signing(&repo, FULL), world.signing(&repo, WRITER));
    assert_eq!(repo.plans().unwrap().next, 1);
    let done = |number| Plan { number, done: true, ..Plan::default() };
    world.plan(&repo, &done(1), &full);
    for number in [limits::NUMBER_MAX, limits::NUMBER_MAX + 1, u64::MAX, 2] {
        world.plan(&repo, &done(number), &writer);
    }
    let plans = repo.plans().unwrap();
    // The least that is free, so that the greatest of a full key is the newest.
    assert_eq!((plans.next, plans.strange.len(), plans.damaged.len()), (3, 2, 0));
    world.plan(&repo, &done(3), &full);
    assert_eq!(repo.plans().unwrap().next, 4);
    // Only a full key itself can use them up.
    world.plan(&repo, &done(limits::NUMBER_MAX), &full);
    assert!(repo.plans().unwrap().next > limits::NUMBER_MAX);
    let bounds = estrato::maintenance::prune::Bounds::default();
    assert!(
        estrato::maintenance::prune::prepare(&repo, &bounds.into(), &Silent)
            .is_err_and(|e| e.to_string().contains("numbers"))
    );
}

#[test]
fn a_writers_plan_hides_no_plan_in_force() {
    let world = World::new();
    let repo = world.open(FULL);
    world.snapshot(&repo, &BLOBS);
    let plan = Plan { number: 1, condemned: packs(&repo), ..Plan::default() };
    world.plan(&repo, &plan, &world.signing(&repo, FULL));
    // By its number it is the newest: whoever holds a writer's key must not lift a plan by it.
    for done in [false, true] {
        let newer = Plan { number: 2, done, ..Plan::default() };
        world.plan(&repo, &newer, &world.signing(&repo, WRITER));
        let session = Session::begin(&repo, "db1").unwrap();
        assert_eq!(record(&repo, &session.id()).seen, 1);
        assert_eq!(put(&session, &BLOBS).unwrap(), NEW);
        session.abandon();
        for name in world.names(&repo.names().indexes()) {
            // Only the first copies are left for the next round.
            let index: IndexName = last_part(&name).parse().unwrap();
            if repo.read_index(&index).unwrap().1.packs.iter().any(|p| !plan.condemned.contains(&p.name)) {
                world.store.delete(&name).unwrap();
            }
        }
    }
}

#[test]
fn a_pack_that_is_not_listed_is_not_relied_upon() {
    let world = World::new();
    let repo = world.open(FULL);
    let (id, _) = world.snapshot(&repo, &BLOBS);
    for pack in packs(&repo) {
        world.store.delete(&repo.names().pack(&pack)).unwrap();
    }
    let mut session = Session::begin(&repo, "db1").unwrap();
    assert_eq!(session.counting().missing().len(), 1);
    assert!(session.take_warnings().iter().any(|w| w.contains("missing or cut short")));
    assert!(!session.counting().trusts(&id), "a parent's trees may rest on what is lost");
    assert_eq!(put(&session, &BLOBS).unwrap(), NEW);
    session.commit(&manifest()).unwrap();
    assert_eq!(&repo.blob(BlobKind::Chunk, &repo.id_keys().blob_id(BlobKind::Chunk, BLOBS[0])).unwrap(), BLOBS[0]);
}

/// The one index object there is, and its name.
fn only_index(world: &World, repo: &Repository) -> (IndexName, IndexObject) {
    let names = world.names(&repo.names().indexes());
    assert_eq!(names.len(), 1);
    let name = last_part(&names[0]).parse().unwrap();
    (name, repo.read_index(&name).unwrap().1)
}

#[test]
fn a_strangers_index_object_is_reported_and_ignored() {
    let world = World::new();
    let repo = world.open(FULL);
    world.snapshot(&repo, &BLOBS);
    let (name, object) = only_index(&world, &repo);
    let forged = world.index(&repo, &object, &Signing::from_seed(&[9; 32]));
    world.store.delete(&repo.names().index(&name)).unwrap();
    let problems = repo.sync_index().unwrap();
    assert_eq!(problems.len(), 1);
    let told = problems[0].to_string();
    assert!(told.contains(&forged.to_string()) && told.contains("never admitted"), "{told}");
    assert!(repo.index().packs().unwrap().is_empty());
    let mut session = Session::begin(&repo, "db1").unwrap();
    assert!(session.take_warnings().iter().any(|w| w.contains("never admitted")));
    assert_eq!(put(&session, &BLOBS).unwrap(), NEW);
    session.abandon();
}

#[test]
fn an_index_object_under_another_name_or_of_another_kind_is_reported() {
    let world = World::new();
    let repo = world.open(FULL);
    world.snapshot(&repo, &BLOBS);
    let (name, _) = only_index(&world, &repo);
    let bytes = world.store.read(&repo.names().index(&name), 1 << 20).unwrap();
    world.store.write(&repo.names().index(&IndexName([7; 32])), bytes).unwrap();
    world.store.write(&format!("{}/litter", repo.names().indexes()), Bytes::from_static(b"x")).unwrap();
    let told: Vec<String> = repo.sync_index().unwrap().iter().map(Error::to_string).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told.iter().any(|t| t.contains("litter")) && told.iter().any(|t| t.contains("another object")),
        "{told:?}"
    );
    assert_eq!(world.snapshot(&repo, &BLOBS).1, KNOWN);
}

#[test]
fn a_writer_replaces_no_entries_and_vouches_for_none() {
    let world = World::new();
    let repo = world.open(FULL);
    world.snapshot(&repo, &BLOBS);
    let (name, _) = only_index(&world, &repo);
    let (writer, full) = (world.signing(&repo, WRITER), world.signing(&repo, FULL));
    world.index(&repo, &IndexObject { supersedes: vec![name], ..IndexObject::default() }, &writer);
    assert_eq!(world.snapshot(&repo, &BLOBS).1, KNOWN, "a full key's entries stay");

    let own: [&[u8]; 2] = [b"the writer's", b"own blobs"];
    world.snapshot(&world.open(WRITER), &own);
    repo.sync_index().unwrap();
    let entries: Vec<KnownPack> = repo.index().packs().unwrap();
    let of_writer = entries.iter().filter(|pack| pack.signer == writer.id()).map(KnownPack::vouched).collect();
    let vouching = IndexObject { vouched: of_writer, ..IndexObject::default() };
    assert_eq!(vouching.vouched.len(), 1);
    world.index(&repo, &vouching, &writer);
    let session = Session::begin(&repo, "db1").unwrap();
    assert_eq!(put(&session, &own[..1]).unwrap(), [Stored::New], "a writer vouches for nobody");
    session.abandon();
    // A full key's word counts.
    world.index(&repo, &vouching, &full);
    assert_eq!(world.snapshot(&repo, &own[1..]).1, [Stored::Known]);
    // For what it has read, and for nothing that is said of the same pack later.
    let pack = vouching.vouched[0];
    let (_, mut forged) = repo.read_index(&pack.index).unwrap();
    let wanted: [&[u8]; 1] = [b"what the writer will say is there"];
    forged.packs[0].directory.frames[0].ids[0] = repo.id_keys().blob_id(BlobKind::Chunk, wanted[0]);
    forged.packs[0].directory.frames[0].lens[0] = wanted[0].len() as u32;
    world.index(&repo, &forged, &writer);
    assert_eq!(world.snapshot(&repo, &wanted).1, [Stored::New]);
}

#[test]
fn what_another_process_indexes_meanwhile_was_never_weighed_and_does_not_count() {
    let world = World::new();
    let cache = tempfile::tempdir().unwrap();
    let one = world.open_with(FULL, Some(cache.path().into()));
    let two = world.open_with(FULL, Some(cache.path().into()));
    let session = Session::begin(&one, "db1").unwrap();
    assert_eq!(world.snapshot(&two, &BLOBS).1, NEW);
    assert_eq!(put(&session, &BLOBS).unwrap(), NEW, "a plan may have condemned it since");
    session.commit(&manifest()).unwrap();
    assert_eq!(world.snapshot(&two, &BLOBS).1, KNOWN);
}

#[test]
fn a_commit_whose_answer_is_lost_is_sent_again_and_counts_once() {
    let world = World::new();
    let repo = world.open(FULL);
    world.store.henceforth(|name| if name.contains("/snapshots/") { Fate::Lost } else { Fate::Done });
    let (id, _) = world.snapshot(&repo, &BLOBS);
    assert_eq!(repo.snapshot_ids().unwrap(), [id]);
    assert!(world.names(&repo.names().sessions()).is_empty());
    assert_eq!(snapshot::list(&repo).unwrap().snapshots.len(), 1);
}

#[test]
fn a_commit_that_is_never_answered_fails_and_leaves_the_session_for_a_prune_to_see() {
    let world = World::new();
    let repo = world.open(FULL);
    let session = Session::begin(&repo, "db1").unwrap();
    let name = repo.names().session(&session.id());
    world.store.henceforth(|name| if name.contains("/snapshots/") { Fate::Unheard } else { Fate::Done });
    let Err(Error::Store(e)) = session.commit(&manifest()) else { panic!("a commit without an answer") };
    assert_eq!(e.fault, StoreFault::Unavailable);
    assert_eq!(world.names(&repo.names().sessions()), [name]);
    assert!(repo.snapshot_ids().unwrap().is_empty());
}

#[test]
fn a_store_that_ignores_the_condition_is_recognised_and_looked_at_first() {
    let world = World::new();
    let repo = world.open(FULL);
    // One that was moved there: each session finds it out.
    world.store.henceforth(|_| Fate::Overwrites);
    let mut session = Session::begin(&repo, "db1").unwrap();
    let told = session.take_warnings();
    assert!(told.len() == 1 && told[0].contains("only if absent"), "{told:?}");
    session.commit(&manifest()).unwrap();
    assert!(world.names(&repo.names().sessions()).is_empty() && repo.creates_if_absent());
    // One that was made there: its own object says so.
    let store = Fateful::new();
    store.henceforth(|_| Fate::Overwrites);
    let new = NewKey::full(Secret::KeyFile(key(FULL)), "full");
    repo::init(&*store, &*world.clock, "default", Cipher::Aes256Gcm, &new).unwrap();
    let access = Access {
        store: store.clone(),
        clock: world.clock.clone(),
        tenant: "default".into(),
        credential: Credential::KeyFile(key(FULL)),
        cache: None,
    };
    let repo = Repository::open(access).unwrap();
    assert!(!repo.creates_if_absent());
    let mut session = Session::begin(&repo, "db1").unwrap();
    assert_eq!(session.take_warnings(), Vec::<String>::new());
    // What stands under the snapshot's name, as a tombstone might, is not replaced.
    let name = repo.names().snapshot(&session.id());
    store.write(&name, "a tombstone".into()).unwrap();
    assert!(matches!(session.commit(&manifest()), Err(Error::Fenced { .. })));
    assert_eq!(&store.read(&name, 100).unwrap()[..], b"a tombstone");
}

#[test]
fn a_backup_that_broke_off_does_not_send_again_what_it_had_indexed() {
    let world = World::new();
    let repo = world.open(WRITER);
    // The first pack closes with more blobs than an index object waits for; the second never arrives.
    let blobs: Vec<Vec<u8>> = (0..76_000).map(|n| crate::support::noise(&format!("{n}"), 236)).collect();
    let stored = std::sync::atomic::AtomicUsize::new(0);
    world.store.henceforth(move |name| {
        let earlier = name.contains("/packs/").then(|| stored.fetch_add(1, std::sync::atomic::Ordering::SeqCst));
        if earlier > Some(0) { Fate::Unheard } else { Fate::Done }
    });
    let session = Session::begin(&repo, "db1").unwrap();
    assert!(put(&session, &blobs).is_err());
    // As after a `kill -9`: nothing is tidied up.
    std::mem::forget(session);
    world.store.henceforth(|_| Fate::Done);
    assert_eq!(world.names(&repo.names().indexes()).len(), 1, "flushed while it ran");

    let again = world.open(WRITER);
    let session = Session::begin(&again, "db1").unwrap();
    let stored = put(&session, &blobs).unwrap();
    session.commit(&manifest()).unwrap();
    let known = stored.iter().filter(|s| **s == Stored::Known).count();
    assert!(known >= 65_536 && known < blobs.len(), "{known} of {} were there", blobs.len());
    assert_eq!(world.open(FULL).snapshot_ids().unwrap().len(), 1);
}

#[test]
fn a_whole_backup_beside_a_plan_reads_its_source_again() {
    let world = World::new();
    let cache = tempfile::tempdir().unwrap();
    let repo = world.open_with(FULL, Some(cache.path().into()));
    let options = options();
    let take = || {
        let input = Box::new(std::io::Cursor::new(crate::support::noise("stream", 300_000)));
        let source = Source::Stream(Stream::input("dump", input).unwrap());
        backup::run(&repo, source, &options, &Silent).unwrap()
    };
    assert!(take().manifest.summary.new_bytes >= 300_000);
    assert_eq!(take().manifest.summary.new_bytes, 0);
    let plan = Plan { number: 1, condemned: packs(&repo), ..Plan::default() };
    world.plan(&repo, &plan, &world.signing(&repo, FULL));
    assert!(take().manifest.summary.new_bytes >= 300_000, "trees too");
    for pack in &plan.condemned {
        world.store.delete(&repo.names().pack(pack)).unwrap();
    }
    let newest = snapshot::list(&repo).unwrap().snapshots.pop().unwrap();
    let node = snapshot::find(&repo, &newest.manifest.root, b"dump").unwrap().unwrap();
    assert_eq!(node.size, 300_000);
    for extent in snapshot::leaves(&repo, &node.content) {
        let id = extent.unwrap().id.unwrap();
        repo.blob(BlobKind::Chunk, &id).unwrap();
    }
}
