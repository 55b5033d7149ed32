//! Index entries that are wrong, and packs that rest on one another, through the library.

use crate::support::noise;
use crate::world::{FULL, WRITER, World, packs};
use estrato::crypto::hpke::PublicKey;
use estrato::error::Error;
use estrato::format::header;
use estrato::format::index::{IndexObject, PackEntry};
use estrato::format::names::last_part;
use estrato::format::pack::{BlobKind, StorageClass};
use estrato::format::records::{LeftPack, Plan, TenantRecord};
use estrato::id::{BlobId, IndexName};
use estrato::maintenance::prune::{self, Bounds};
use estrato::maintenance::repair::{HowIndex, IndexReport, repair_index};
use estrato::maintenance::{self, Depth};
use estrato::monitor::{Event, Monitor, Silent};
use estrato::pack::{Bases, Compressor, EncodedFrame, PackBuilder, PlainFrame};
use estrato::repo::{Repository, Session};
use estrato::store::Store;

fn repaired(world: &World) -> IndexReport {
    repair_index(&world.open(FULL), HowIndex::default(), &Silent).unwrap()
}

/// The index objects, and what they say.
fn objects(world: &World, repo: &Repository) -> Vec<(IndexName, IndexObject)> {
    let names = world.names(&repo.names().indexes()).into_iter().map(|name| last_part(&name).parse().unwrap());
    names.map(|name| (name, repo.read_index(&name).unwrap().1)).collect()
}

#[test]
fn a_false_entry_of_a_writer_is_put_aside_and_prune_runs_again() {
    let world = World::today();
    let writer = world.open(WRITER);
    let blobs: Vec<Vec<u8>> = (0..3).map(|n| noise(&format!("blob {n}"), 4000)).collect();
    let (needed, _) = world.snapshot(&writer, &[&blobs[0], &blobs[1]]);
    world.snapshot(&writer, &[&blobs[2]]);
    let signing = world.signing(&writer, WRITER);
    // Both in one object, one of them with other ids.
    let mut all = IndexObject::default();
    for (name, object) in objects(&world, &writer) {
        all.packs.extend(object.packs);
        world.store.delete(&writer.names().index(&name)).unwrap();
    }
    assert_eq!(all.packs.len(), 2);
    let right = all.packs.clone();
    all.packs[0].directory.frames[0].ids[0] = BlobId([7; 32]);
    let wrong = world.index(&writer, &all, &signing);
    let found = maintenance::check(&world.open(FULL), Depth::AllData, &Silent).unwrap();
    assert!(found.damages > 0, "a check finds it");

    let report = repaired(&world);
    assert_eq!(report.false_entries.len(), 1, "{report:?}");
    assert_eq!((report.false_entries[0].signer.as_str(), report.named, report.replaced), ("writer", 1, 1));
    let repo = world.open(FULL);
    assert!(!world.names(&repo.names().indexes()).contains(&repo.names().index(&wrong)));
    let mut now: Vec<PackEntry> = objects(&world, &repo).into_iter().flat_map(|(_, object)| object.packs).collect();
    let by_name = |a: &PackEntry, b: &PackEntry| a.name.cmp(&b.name);
    now.sort_by(by_name);
    let mut right = right;
    right.sort_by(by_name);
    assert_eq!(now, right, "the true entries, and nothing else");
    let found = maintenance::check(&repo, Depth::AllData, &Silent).unwrap();
    assert_eq!(found.damages, 0, "{:?}", found.damage);
    world.store.delete(&repo.names().snapshot(&needed)).unwrap();
    let prepared = prune::prepare(&repo, &Bounds { unused_percent: 0.0, repack: None }.into(), &Silent).unwrap();
    prepared.execute(&Silent).unwrap();
    assert_eq!(repaired(&world), IndexReport::default());
}

#[test]
fn a_false_entry_beside_a_full_keys_true_one_needs_no_reading() {
    let world = World::today();
    let repo = world.open(FULL);
    world.snapshot(&repo, &[&noise("blob", 4000)]);
    let (_, object) = objects(&world, &repo).remove(0);
    let mut lie = object.packs[0].clone();
    lie.directory.frames[0].ids[0] = BlobId([7; 32]);
    world.index(&repo, &IndexObject { packs: vec![lie], ..IndexObject::default() }, &world.signing(&repo, WRITER));
    let report = repaired(&world);
    assert_eq!(
        (report.packs, report.false_entries.len(), report.replaced, report.deleted),
        (0, 1, 1, 1),
        "{report:?}"
    );
    assert_eq!(repaired(&world), IndexReport::default());
}

#[test]
fn true_entries_of_writers_stay_theirs() {
    let world = World::today();
    world.snapshot(&world.open(WRITER), &[&noise("blob", 4000)]);
    let before = world.objects();
    let report = repaired(&world);
    assert_eq!((report.packs, report.named, report.replaced), (1, 0, 0), "{report:?}");
    assert!(world.objects() == before);
}

fn pack(world: &World, repo: &Repository, frames: Vec<EncodedFrame>) -> PackEntry {
    let bytes = world.store.read("tenants/default/tenant", 1 << 20).unwrap();
    let body = &header::opened(&bytes).unwrap()[header::HEADER_LEN..];
    let key = TenantRecord::decode(&body[..body.len() - 64]).unwrap().public_key;
    let to = PublicKey::from_bytes(&key).unwrap();
    let mut builder = PackBuilder::new(&repo.realm(), repo.cipher(), StorageClass::Data, &to).unwrap();
    frames.into_iter().for_each(|frame| builder.push(frame).unwrap());
    let pack = builder.finish().unwrap();
    world.store.create(&repo.names().pack(&pack.entry.name), pack.bytes.into()).unwrap();
    pack.entry
}

/// A frame of one blob, on another blob if one is given.
fn frame(repo: &Repository, bytes: &[u8], base: Option<(&[u8], u8)>) -> EncodedFrame {
    let id = |bytes: &[u8]| repo.id_keys().blob_id(BlobKind::Chunk, bytes);
    let mut plain = PlainFrame::new(BlobKind::Chunk);
    plain.push(id(bytes), bytes);
    let mut compressor = Compressor::new(1).unwrap();
    match base {
        None => compressor.encode(plain).unwrap().0,
        Some((base, depth)) => {
            let bases = Bases { ids: vec![id(base).base()], plain: base.to_vec(), depth };
            compressor.delta(&plain, &bases).unwrap().unwrap()
        }
    }
}

fn day(n: u8) -> Vec<u8> {
    let mut bytes = noise("day", 5000);
    bytes[..usize::from(n) + 1].fill(n);
    bytes
}

#[test]
fn packs_that_rest_on_one_another_are_read_part_by_part() {
    let world = World::today();
    let repo = world.open(FULL);
    // Each has a plain frame that the other rests on, and one on its own.
    let (a, b) = (noise("a", 5000), noise("b", 5000));
    let touched = |bytes: &[u8]| [bytes, b"more"].concat();
    let first = vec![
        frame(&repo, &touched(&b), Some((&b, 0))),
        frame(&repo, &a, None),
        frame(&repo, &[&a[..], b"within"].concat(), Some((&a, 0))),
    ];
    let second = vec![frame(&repo, &touched(&a), Some((&a, 0))), frame(&repo, &b, None)];
    let mut right = [pack(&world, &repo, first), pack(&world, &repo, second)];
    right.sort_by_key(|a| a.name);
    let report = repaired(&world);
    assert_eq!((report.packs, report.unread_all), (2, 0), "{report:?}");
    let repo = world.open(FULL);
    repo.sync_index().unwrap();
    for entry in &right {
        let known: Vec<_> = repo.index().packs().unwrap().into_iter().filter(|p| p.name == entry.name).collect();
        assert_eq!(known.len(), 1, "what was said in part was replaced");
        let map = repo.index().pack(known[0].number).unwrap().unwrap();
        let frames: Vec<_> = map.frames().iter().map(|(_, frame)| frame.clone()).collect();
        assert_eq!(frames, entry.directory.frames);
    }
    assert_eq!(repaired(&world), IndexReport::default());
}

#[test]
fn a_long_chain_comes_back_in_whatever_order_packs_are_listed() {
    let world = World::today();
    let repo = world.open(FULL);
    // The deepest was stored first.
    for n in (1..=12u8).rev() {
        pack(&world, &repo, vec![frame(&repo, &day(n), Some((&day(n - 1), n - 1)))]);
        world.clock.forward(10);
    }
    pack(&world, &repo, vec![frame(&repo, &day(0), None)]);
    let report = repaired(&world);
    assert_eq!((report.packs, report.named, report.unread_all), (13, 13, 0), "{report:?}");
    let repo = world.open(FULL);
    repo.sync_index().unwrap();
    for n in 0..=12 {
        let id = repo.id_keys().blob_id(BlobKind::Chunk, &day(n));
        assert!(repo.blob(BlobKind::Chunk, &id).unwrap() == day(n));
    }
}

#[test]
fn what_rests_on_what_is_lost_is_told_and_found_once_that_is_back() {
    let world = World::today();
    let repo = world.open(FULL);
    let lost = pack(&world, &repo, vec![frame(&repo, &day(0), None)]);
    let rests = vec![frame(&repo, &day(1), Some((&day(0), 0))), frame(&repo, &noise("else", 900), None)];
    pack(&world, &repo, rests);
    let name = repo.names().pack(&lost.name);
    let bytes = world.store.read(&name, 1 << 30).unwrap();
    world.store.delete(&name).unwrap();
    let report = repaired(&world);
    assert_eq!((report.named, report.unread_all, report.unread[0].frame), (1, 1, Some(0)), "{report:?}");
    let after = world.objects();
    assert_eq!(repaired(&world).named, 0);
    assert!(world.objects() == after, "nothing more is known");
    world.store.create(&name, bytes).unwrap();
    let report = repaired(&world);
    assert_eq!((report.named, report.unread_all, report.replaced), (2, 0, 1), "{report:?}");
    assert_eq!(repaired(&world), IndexReport::default());
}

#[test]
fn packs_that_a_plan_condemns_are_not_indexed() {
    let world = World::today();
    let repo = world.open(FULL);
    let doomed = pack(&world, &repo, vec![frame(&repo, &day(0), None)]);
    let plan = Plan { number: 1, condemned: vec![doomed.name], ..Plan::default() };
    repo.begin_plan(&plan).unwrap();
    let dry = HowIndex { dry_run: true, ..HowIndex::default() };
    assert_eq!(repaired(&world), IndexReport::default());
    assert_eq!(repair_index(&repo, dry, &Silent).unwrap(), IndexReport::default());
    // Nor those that one has left for slow readers.
    repo.end_plan(1, vec![LeftPack { pack: doomed.name, since: 0 }]).unwrap();
    assert_eq!(repaired(&world), IndexReport::default());
    assert_eq!(repair_index(&repo, dry, &Silent).unwrap(), IndexReport::default());
    repo.end_plan(1, Vec::new()).unwrap();
    assert_eq!(repaired(&world).named, 1);
}

/// Makes a prune end the session that runs, once packs are read.
struct Sleeps(Repository);

impl Monitor for Sleeps {
    fn event(&self, event: Event) {
        if matches!(event, Event::Phase { name: "reading packs", .. }) {
            let sessions = self.0.announced().unwrap();
            assert_eq!(sessions.len(), 1, "a prune sees it");
            self.0.fence(&sessions[0].id).unwrap();
        }
    }
}

#[test]
fn whoever_was_given_up_publishes_nothing() {
    let world = World::today();
    let repo = world.open(FULL);
    pack(&world, &repo, vec![frame(&repo, &day(0), None)]);
    let e = repair_index(&repo, HowIndex::default(), &Sleeps(world.open(FULL))).unwrap_err();
    assert!(matches!(e, Error::Fenced { .. }), "{e}");
    assert!(world.names(&repo.names().indexes()).is_empty());
}

#[test]
fn beside_a_backup_that_has_not_indexed_its_packs_yet_it_names_them_and_harms_nothing() {
    let world = World::today();
    let repo = world.open(WRITER);
    let session = Session::begin(&repo, "host").unwrap();
    let entry = pack(&world, &repo, vec![frame(&repo, &day(0), None)]);
    assert_eq!(repaired(&world).named, 1);
    repo.publish_index(&IndexObject { packs: vec![entry], ..IndexObject::default() }).unwrap();
    session.commit(&crate::world::manifest()).unwrap();
    assert_eq!(packs(&repo).len(), 1);
    assert_eq!(repaired(&world), IndexReport::default());
    assert_eq!(maintenance::check(&world.open(FULL), Depth::AllData, &Silent).unwrap().damages, 0);
}
