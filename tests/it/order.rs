//! In which order things are written (repo-format.md, section 12), and what a store that fails in
//! between, or somebody who was faster, makes of it.

use crate::journal::{FULL, Ground, WRITER, fault};
use crate::support::noise;
use crate::world::{manifest, put};
use bytes::Bytes;
use estrato::error::{Error, Result, StoreFault};
use estrato::format::header::{Header, ObjectType};
use estrato::format::index::IndexObject;
use estrato::format::manifest::Manifest;
use estrato::format::names::last_part;
use estrato::format::pack::BlobKind;
use estrato::format::records::{Plan, SessionRecord};
use estrato::id::{IndexName, PackName, SnapshotId};
use estrato::limits;
use estrato::monitor::Silent;
use estrato::repo::{self, Deltas, Repository, Session, Stored, Writer, WriterState, WriterTotals};
use estrato::store::Store;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const BLOBS: [&[u8]; 2] = [b"one blob", b"another blob"];
const NEW: [Stored; 2] = [Stored::New; 2];
const KNOWN: [Stored; 2] = [Stored::Known; 2];

fn snapshot(repo: &Repository, blobs: &[&[u8]]) -> SnapshotId {
    let session = Session::begin(repo, "db1").unwrap();
    put(&session, blobs).unwrap();
    session.commit(&manifest()).unwrap()
}

fn packs(repo: &Repository) -> Vec<PackName> {
    repo.list_packs().unwrap().into_iter().map(|(name, _)| name).collect()
}

#[test]
fn a_tenant_is_made_slot_first_then_record_then_list() {
    let ground = Ground::empty();
    ground.init().unwrap();
    let made = ["create repo.json", "create slot", "create tenant", "create signers.00000001"];
    assert_eq!(ground.store.changes(), made);
    assert!(matches!(ground.init(), Err(Error::Exists { .. })));
    assert!(ground.store.changes().is_empty());
}

#[test]
fn making_that_broke_off_goes_on_where_it_stopped() {
    for (part, whole) in [("/keys/", false), ("/tenant", false), ("/signers.", true)] {
        let ground = Ground::empty();
        ground.store.fail("create", part, StoreFault::Unavailable);
        assert_eq!(fault(ground.init()), StoreFault::Unavailable);
        let id = repo::repository_id(&*ground.store).unwrap();
        ground.store.works();
        match ground.init() {
            Ok((again, _)) => assert!(again == id && !whole, "{part}"),
            Err(e) => assert!(matches!(e, Error::Exists { .. }) && whole, "{part}: {e}"),
        }
        let repo = ground.open(FULL);
        assert_eq!((repo.id(), repo.signers().version, repo.signers().signers.len()), (id, 1, 1));
        assert!(ground.store.size(&repo.names().signers(1)).is_ok(), "{part}");
    }
}

#[test]
fn what_fails_while_a_tenant_is_made_is_told_as_it_is() {
    for (begun, operation, part) in [
        (false, "create", "repo.json"),
        (true, "read", "repo.json"),
        (true, "list", "tenants"),
        (false, "size", "/tenant"),
        (false, "create", "/keys/"),
        (false, "create", "/tenant"),
        (false, "create", "/signers."),
    ] {
        let ground = Ground::empty();
        if begun {
            ground.store.fail("create", "/keys/", StoreFault::Unavailable);
            fault(ground.init());
        }
        ground.store.fail(operation, part, StoreFault::Denied);
        assert_eq!(fault(ground.init()), StoreFault::Denied, "{operation} {part}");
    }
}

#[test]
fn of_two_who_make_one_tenant_the_faster_has_it() {
    let ground = Ground::empty();
    ground.store.henceforth(|below, operation, name| {
        if operation == "create" && name.ends_with("/tenant") {
            below.write(name, Bytes::from_static(b"the other's")).unwrap();
        }
        None
    });
    assert!(ground.init().is_err_and(|e| e.to_string() == "a tenant named default exists already"));
    assert_eq!(ground.store.read("tenants/default/tenant", 99).unwrap(), "the other's");
    assert_eq!(ground.store.changes(), ["create repo.json", "create slot"], "no list over the other's");
}

#[test]
fn tenants_are_those_that_have_a_record() {
    let ground = Ground::empty();
    let add = |name: &str| {
        let key = ground.new_key(FULL, estrato::format::key::Role::Full);
        repo::add_tenant(&*ground.store, &*ground.clock, name, estrato::format::header::Cipher::Aes256Gcm, &key)
    };
    assert!(matches!(add("b"), Err(Error::NoRepository { .. })));
    assert!(matches!(repo::tenants(&*ground.store), Err(Error::NoRepository { .. })));
    assert!(ground.store.changes().is_empty());
    ground.init().unwrap();
    add("b").unwrap();
    add("a").unwrap();
    assert!(add("a").is_err_and(|e| e.to_string() == "a tenant named a exists already"));
    for litter in ["tenants/tenant", "tenants/c/keys/tenant", "tenants/d/tenants", "tenants/e/tenant/tenant"] {
        ground.store.write(litter, Bytes::from_static(b"x")).unwrap();
    }
    assert_eq!(repo::tenants(&*ground.store).unwrap(), ["a", "b", "default"]);
    ground.store.fail("read", "repo.json", StoreFault::Denied);
    assert_eq!(fault(add("c")), StoreFault::Denied, "not that there is no repository");
}

#[test]
fn a_backup_announces_itself_first_and_exists_last() {
    let ground = Ground::new();
    let repo = ground.open(FULL);
    ground.store.take();
    let session = Session::begin(&repo, "db1").unwrap();
    assert_eq!(ground.store.take(), ["create sessions", "list prune", "list index", "list packs"]);
    assert_eq!(put(&session, &BLOBS).unwrap(), NEW);
    assert_eq!(ground.store.take(), ["create packs", "create index"]);
    session.commit(&manifest()).unwrap();
    assert_eq!(ground.store.take(), ["create snapshots", "delete sessions"]);

    let plan = Plan { number: 1, ..Plan::default() };
    let name = repo.names().plan(1);
    ground.write(&repo, ObjectType::Plan, &name, &ground.signing(&repo, FULL), &plan.encode());
    ground.store.take();
    let session = Session::begin(&repo, "db1").unwrap();
    let begun = ["create sessions", "list prune", "write sessions", "list index", "list packs"];
    assert_eq!(ground.store.take(), begun, "the plan is heeded before anything is relied upon");
    assert_eq!(put(&session, &BLOBS).unwrap(), KNOWN);
    session.abandon();
    assert_eq!(ground.store.take(), ["delete sessions"], "nothing new, so nothing written");
}

#[test]
fn a_session_that_cannot_begin_leaves_nothing() {
    let ground = Ground::new();
    let repo = ground.open(FULL);
    snapshot(&repo, &BLOBS);
    let name = repo.names().plan(1);
    let plan = Plan { number: 1, ..Plan::default() };
    ground.write(&repo, ObjectType::Plan, &name, &ground.signing(&repo, FULL), &plan.encode());
    for (operation, part) in [
        ("create", "/sessions/"),
        ("list", "/prune"),
        ("read", "/prune/"),
        ("write", "/sessions/"),
        ("list", "/index"),
        ("read", "/index/"),
        ("list", "/packs"),
    ] {
        // One that has not read the index yet.
        let repo = ground.open(WRITER);
        ground.store.fail(operation, part, StoreFault::Denied);
        assert_eq!(fault(Session::begin(&repo, "db1")), StoreFault::Denied, "{operation} {part}");
        ground.store.works();
        assert!(ground.store.names(&repo.names().sessions()).is_empty(), "{operation} {part}");
    }
}

#[test]
fn a_store_that_cannot_be_tried_is_not_relied_upon() {
    let second = |part: &'static str| {
        let asked = AtomicUsize::new(0);
        move |operation: &str, name: &str| {
            let counts = operation == "create" && name.contains(part);
            (counts && asked.fetch_add(1, Ordering::SeqCst) == 1).then_some(StoreFault::Denied)
        }
    };
    let ground = Ground::empty();
    let fails = second("repo.json");
    ground.store.henceforth(move |_, operation, name| fails(operation, name));
    assert_eq!(fault(ground.init()), StoreFault::Denied);
    assert_eq!(ground.store.changes(), ["create repo.json"]);

    let ground = Ground::new();
    let repo = ground.open(FULL);
    let fails = second("/sessions/");
    ground.store.henceforth(move |_, operation, name| fails(operation, name));
    assert_eq!(fault(Session::begin(&repo, "db1")), StoreFault::Denied);
    assert_eq!(ground.store.changes(), ["create sessions", "delete sessions"]);
}

#[test]
fn a_plan_counts_only_under_its_own_name() {
    let ground = Ground::new();
    let repo = ground.open(FULL);
    let id = snapshot(&repo, &BLOBS);
    let plan = Plan { number: 3, condemned: packs(&repo), ..Plan::default() };
    let signing = ground.signing(&repo, FULL);
    ground.write(&repo, ObjectType::Plan, &repo.names().plan(5), &signing, &plan.encode());
    for litter in ["7", "000000008", "x", "folder/00000009"] {
        let name = format!("{}/{litter}", repo.names().plans());
        ground.store.write(&name, Bytes::from_static(b"x")).unwrap();
    }
    let mut session = Session::begin(&repo, "db1").unwrap();
    let warnings = session.take_warnings();
    assert!(warnings.len() == 1 && warnings[0].contains("prune/00000005"), "{warnings:?}");
    assert!(session.take_warnings().is_empty(), "told once");
    assert!(session.counting().trusts(&id));
    assert_eq!(put(&session, &BLOBS).unwrap(), KNOWN);
    session.abandon();
}

#[test]
fn a_plan_hides_its_unseen_snapshots_only_from_trust() {
    let ground = Ground::new();
    let repo = ground.open(FULL);
    let id = snapshot(&repo, &BLOBS);
    let signing = ground.signing(&repo, FULL);
    for (seen, damaged) in [(false, false), (true, false), (true, true)] {
        let plan = Plan { number: 1, seen: seen.then_some(id).into_iter().collect(), ..Plan::default() };
        ground.write(&repo, ObjectType::Plan, &repo.names().plan(1), &signing, &plan.encode());
        if damaged {
            // A newer one that cannot be read may condemn anything.
            ground.store.write(&repo.names().plan(2), Bytes::from_static(b"rot")).unwrap();
        }
        let mut session = Session::begin(&repo, "db1").unwrap();
        assert_eq!(session.take_warnings().len(), usize::from(damaged));
        assert_eq!(session.counting().trusts(&id), seen && !damaged, "{seen} {damaged}");
        assert_eq!(put(&session, &BLOBS).unwrap(), if damaged { NEW } else { KNOWN });
        session.abandon();
    }
}

#[test]
fn only_packs_that_would_have_counted_are_missed() {
    let ground = Ground::new();
    let writer = ground.open(WRITER);
    snapshot(&writer, &BLOBS);
    for pack in packs(&writer) {
        ground.store.delete(&writer.names().pack(&pack)).unwrap();
    }
    for (n, missing) in [(FULL, 0), (WRITER, 1)] {
        let repo = ground.open(n);
        let mut session = Session::begin(&repo, "db1").unwrap();
        assert_eq!(session.counting().missing().len(), missing, "key {n}");
        assert_eq!(session.take_warnings().len(), missing, "key {n}");
        assert_eq!(session.counting().trusts(&SnapshotId([1; 16])), missing == 0, "key {n}");
        session.abandon();
    }
}

#[test]
fn a_session_is_renewed_every_240_seconds() {
    let ground = Ground::new();
    let repo = ground.open(FULL);
    let session = Session::begin(&repo, "db1").unwrap();
    let name = repo.names().session(&session.id());
    let renewed = || {
        session.renew_if_due().unwrap();
        let bytes = ground.store.read(&name, limits::RECORD_MAX).unwrap();
        let opened = repo.realm().open_shared(ObjectType::Session, Some(&name), &name, &bytes).unwrap();
        SessionRecord::decode(&opened.payload).unwrap().renewed
    };
    for (forward, expected) in [(0, 0), (239, 0), (1, 1), (239, 1), (1, 2), (500, 3), (0, 3)] {
        ground.clock.forward(forward);
        assert_eq!(renewed(), expected);
    }
    session.abandon();
}

#[test]
fn a_manifest_is_as_large_as_readers_take_and_no_larger() {
    let ground = Ground::new();
    let repo = ground.open(FULL);
    let small = repo.names().snapshot(&snapshot(&repo, &BLOBS));
    let sealing = ground.store.size(&small).unwrap() - manifest().encode().len() as u64;
    let largest = usize::try_from(limits::MANIFEST_MAX - sealing).unwrap();
    for (len, good) in [(largest, true), (largest + 1, false)] {
        let mut m = Manifest { paths: vec![vec![b'a'; 4096]; 1022], ..manifest() };
        // The last path fills up what is left behind its own length.
        m.paths.push(vec![b'a'; len - m.encode().len() - 3]);
        assert_eq!(m.encode().len(), len);
        let session = Session::begin(&repo, "db1").unwrap();
        let id = session.id();
        match session.commit(&m) {
            Ok(id) => assert!(good && repo.snapshot(&id).unwrap().manifest() == Some(&m)),
            Err(e) => assert!(!good && matches!(e, Error::Invalid(_)), "{e}"),
        }
        assert_eq!(repo.snapshot_ids().unwrap().contains(&id), good);
        assert!(ground.store.names(&repo.names().sessions()).is_empty());
    }
}

#[test]
fn a_commit_is_sent_again_only_if_no_answer_came() {
    let ground = Ground::new();
    let repo = ground.open(FULL);
    for (fault_of_store, tries) in [(StoreFault::Unavailable, 3), (StoreFault::Denied, 1), (StoreFault::Full, 1)] {
        let session = Session::begin(&repo, "db1").unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        ground.store.henceforth(move |_, operation, name| {
            let commit = operation == "create" && name.contains("/snapshots/");
            commit.then(|| count.fetch_add(1, Ordering::SeqCst)).map(|_| fault_of_store)
        });
        assert_eq!(fault(session.commit(&manifest())), fault_of_store);
        assert_eq!(asked.load(Ordering::SeqCst), tries, "{fault_of_store:?}");
        ground.store.works();
    }
    assert!(repo.snapshot_ids().unwrap().is_empty());
}

#[test]
fn who_was_faster_is_not_guessed() {
    let ground = Ground::new();
    let repo = ground.open(FULL);
    let session = Session::begin(&repo, "db1").unwrap();
    let name = repo.names().session(&session.id());
    ground.store.henceforth(|below, operation, name| match operation {
        "create" if name.contains("/snapshots/") => {
            below.write(name, Bytes::from_static(b"a tombstone")).unwrap();
            None
        }
        "read" => Some(StoreFault::Unavailable),
        _ => None,
    });
    assert_eq!(fault(session.commit(&manifest())), StoreFault::Unavailable);
    assert_eq!(ground.store.names(&repo.names().sessions()), [name]);
}

/// Puts blobs of every kind through two lanes; what the writer counted.
fn write(session: &Session<'_>, blobs: &[(BlobKind, &[u8], Stored)]) -> Result<WriterTotals> {
    let state = WriterState::new(Deltas::Chains, &Silent);
    std::thread::scope(|scope| {
        let writer = Writer::start(scope, session, &state, 1, 0);
        let mut lanes = [writer.lane(), writer.lane()];
        for (n, (kind, blob, expected)) in blobs.iter().enumerate() {
            let (id, stored) = lanes[n % 2].put(*kind, blob).unwrap();
            assert_eq!(stored, *expected, "{n}");
            assert_eq!(id, session.repository().id_keys().blob_id(*kind, blob));
        }
        lanes.into_iter().try_for_each(|lane| lane.finish())?;
        writer.finish()
    })
}

#[test]
fn blobs_are_stored_once_for_each_kind_and_counted() {
    let ground = Ground::new();
    let repo = ground.open(FULL);
    let session = Session::begin(&repo, "db1").unwrap();
    let (chunk, tree, list) = (BlobKind::Chunk, BlobKind::Tree, BlobKind::List);
    let (new, known) = (Stored::New, Stored::Known);
    let blobs: [(BlobKind, &[u8], Stored); 7] = [
        (chunk, b"one", new),
        (chunk, b"one", known),
        (tree, b"one", new),
        (list, b"one", new),
        (chunk, b"three", new),
        (chunk, b"three", known),
        (chunk, b"", new),
    ];
    let totals = write(&session, &blobs).unwrap();
    let listed = repo.list_packs().unwrap();
    assert_eq!(listed.len(), 2, "chunks, and what listings read");
    let stored = listed.iter().map(|(_, size)| size).sum();
    assert_eq!(totals, WriterTotals { blobs: 5, plain: 14, stored });
    for (kind, blob, _) in blobs {
        let id = repo.id_keys().blob_id(kind, blob);
        assert_eq!(repo.blob(kind, &id).unwrap(), blob);
        assert_eq!(repo.index().copies(&id).unwrap().len(), 1);
    }
    assert_eq!(write(&session, &[(chunk, b"one", known)]).unwrap(), WriterTotals::default());
    session.abandon();
}

#[test]
fn an_index_object_is_published_half_a_minute_after_the_last() {
    // A pack and a bit, in blobs that fill a frame each.
    let blobs: Vec<Vec<u8>> = (0..17).map(|n| noise(&format!("{n}"), limits::FRAME_PLAIN_MAX)).collect();
    for (seconds, expected) in [(29, 1), (30, 2)] {
        let ground = Ground::new();
        let repo = ground.open(FULL);
        let session = Session::begin(&repo, "db1").unwrap();
        ground.store.take();
        let (clock, first) = (Arc::clone(&ground.clock), AtomicUsize::new(0));
        ground.store.henceforth(move |_, operation, name| {
            let pack = operation == "create" && name.contains("/packs/");
            if pack && first.fetch_add(1, Ordering::SeqCst) == 0 {
                clock.forward(seconds);
            }
            None
        });
        put(&session, &blobs).unwrap();
        // The second pack goes its way beside the first index object.
        let asked = ground.store.take();
        assert_eq!(
            asked.iter().filter(|request| *request == "create index").count(),
            expected,
            "{seconds}: {asked:?}"
        );
        assert_eq!(
            (&*asked[0], &*asked[asked.len() - 1], asked.len()),
            ("create packs", "create index", expected + 2)
        );
        session.abandon();
    }
}

#[test]
fn the_cause_of_a_failed_backup_is_told_and_not_what_it_stopped() {
    let blobs: Vec<Vec<u8>> = (0..36).map(|n| noise(&format!("{n}"), limits::FRAME_PLAIN_MAX)).collect();
    let ground = Ground::new();
    let repo = ground.open(FULL);
    let session = Session::begin(&repo, "db1").unwrap();
    ground.store.fail("create", "/packs/", StoreFault::Full);
    // Two packs more than the store refused: every thread before it notices.
    assert_eq!(fault(put(&session, &blobs)), StoreFault::Full);
    ground.store.fail("create", "/index/", StoreFault::Full);
    assert_eq!(fault(put(&session, &blobs[..1])), StoreFault::Full);
    session.abandon();
}

/// The index objects that the store lists.
fn indexes(ground: &Ground, repo: &Repository) -> HashSet<IndexName> {
    ground.store.names(&repo.names().indexes()).iter().map(|name| last_part(name).parse().unwrap()).collect()
}

#[test]
fn what_the_store_lists_no_more_is_forgotten() {
    let ground = Ground::new();
    let repo = ground.open(FULL);
    snapshot(&repo, &BLOBS[..1]);
    let first = indexes(&ground, &repo);
    snapshot(&repo, &BLOBS[1..]);
    for name in &first {
        ground.store.delete(&repo.names().index(name)).unwrap();
    }
    assert!(repo.sync_index().unwrap().is_empty());
    assert_eq!(repo.indexes_held().unwrap(), indexes(&ground, &repo));
    let known: Vec<usize> = BLOBS
        .iter()
        .map(|b| repo.index().copies(&repo.id_keys().blob_id(BlobKind::Chunk, b)).unwrap().len())
        .collect();
    assert_eq!(known, [0, 1]);
}

#[test]
fn no_index_at_all_is_damage_only_where_there_are_snapshots() {
    for snapshots in [false, true] {
        let ground = Ground::new();
        let repo = ground.open(FULL);
        assert!(repo.sync_index().unwrap().is_empty(), "a new tenant has none");
        let session = Session::begin(&repo, "db1").unwrap();
        put(&session, &BLOBS).unwrap();
        if snapshots {
            session.commit(&manifest()).unwrap();
        } else {
            session.abandon();
        }
        for name in indexes(&ground, &repo) {
            ground.store.delete(&repo.names().index(&name)).unwrap();
        }
        match repo.sync_index() {
            Ok(problems) => assert!(!snapshots && problems.is_empty() && repo.index().packs().unwrap().is_empty()),
            Err(e) => assert!(snapshots && e.is_damage() && !repo.index().packs().unwrap().is_empty(), "{e}"),
        }
    }
}

#[test]
fn a_full_keys_word_replaces_entries_while_it_is_there() {
    let ground = Ground::new();
    let repo = ground.open(FULL);
    snapshot(&repo, &BLOBS);
    let old = indexes(&ground, &repo);
    let supersedes: Vec<IndexName> = old.iter().copied().collect();
    let payload = zstd::bulk::compress(&IndexObject { supersedes, ..IndexObject::default() }.encode(), 1).unwrap();
    let header = Header { object: ObjectType::Index, cipher: repo.cipher() };
    let sealed = repo.realm().seal_shared(header, None, &ground.signing(&repo, FULL), &payload).unwrap();
    let name = repo.names().index(&IndexName(*sealed.last_chunk().unwrap()));
    ground.store.write(&name, sealed.into()).unwrap();
    // One that has the entries already, and one that has not.
    for repo in [&repo, &ground.open(FULL)] {
        for _ in 0..2 {
            assert!(repo.sync_index().unwrap().is_empty());
            assert!(repo.index().packs().unwrap().is_empty());
            assert_eq!(repo.index().objects().unwrap().len(), 1);
            assert_eq!(repo.indexes_held().unwrap(), indexes(&ground, repo));
        }
    }
    ground.store.delete(&name).unwrap();
    assert!(repo.sync_index().unwrap().is_empty());
    assert_eq!((repo.index().packs().unwrap().len(), repo.indexes_held().unwrap()), (1, old));
}

#[test]
fn packs_are_listed_by_name_with_their_sizes() {
    let ground = Ground::new();
    let repo = ground.open(FULL);
    snapshot(&repo, &BLOBS);
    let names = ground.store.names(&repo.names().packs());
    ground.store.write(&format!("{}/ab/litter", repo.names().packs()), Bytes::from_static(b"x")).unwrap();
    let listed: Vec<(String, u64)> =
        repo.list_packs().unwrap().iter().map(|(name, size)| (repo.names().pack(name), *size)).collect();
    let expected: Vec<(String, u64)> =
        names.into_iter().map(|name| (name.clone(), ground.store.size(&name).unwrap())).collect();
    assert_eq!(listed, expected);
    assert_eq!(listed.len(), 1);
}
