//! What a check publishes: records of damage, by which backups heal it, and its word for others' packs.

use crate::support::noise;
use crate::world::{FULL, Fate, WRITER, World, put};
use estrato::format::header::ObjectType;
use estrato::format::records::DamageRecord;
use estrato::id::PackName;
use estrato::limits;
use estrato::maintenance::{self, Depth, Report};
use estrato::monitor::Silent;
use estrato::repo::{NewKey, Repository, Secret, Session, Stored};
use estrato::store::Store as _;
use std::collections::BTreeMap;
use std::path::PathBuf;

const OTHER_WRITER: u8 = 3;

fn check(repo: &Repository, depth: Depth) -> Report {
    maintenance::check(repo, depth, &Silent).unwrap()
}

/// A source of two files.
fn source() -> (tempfile::TempDir, BTreeMap<PathBuf, Vec<u8>>) {
    let folder = tempfile::tempdir().unwrap();
    let files: BTreeMap<_, _> = ["a", "b"].map(|name| (PathBuf::from(name), noise(name, 3_000))).into();
    files.iter().for_each(|(name, bytes)| std::fs::write(folder.path().join(name), bytes).unwrap());
    (folder, files)
}

/// Changes a bit in the first frame of the pack of data; its name, and what it was.
fn damage(world: &World, repo: &Repository) -> (PackName, bytes::Bytes) {
    let packs = repo.list_packs().unwrap();
    let (pack, _) = packs.iter().max_by_key(|(_, size)| *size).unwrap();
    let object = repo.names().pack(pack);
    let whole = world.store.read(&object, 1 << 20).unwrap();
    let mut bytes = whole.to_vec();
    bytes[1_200] ^= 1;
    world.store.write(&object, bytes.into()).unwrap();
    (*pack, whole)
}

fn records(world: &World, repo: &Repository) -> Vec<String> {
    world.names(&repo.names().plans())
}

#[test]
fn what_a_check_finds_damaged_the_next_backup_stores_again() {
    for key in [FULL, WRITER] {
        let world = World::today();
        let machine = tempfile::tempdir().unwrap();
        let (full, repo) = (world.open(FULL), world.open_with(key, Some(machine.path().into())));
        let (folder, files) = source();
        let (first, ..) = world.backup(&repo, folder.path());
        let (pack, _) = damage(&world, &full);
        let (rests, _, warnings) = world.backup(&repo, folder.path());
        assert!(warnings.is_empty(), "nobody has looked: {warnings:?}");
        assert!(world.try_restore(&full, &rests, folder.path()).failures > 0);

        assert_eq!(check(&full, Depth::AllData).damages, 1);
        assert_eq!(records(&world, &full), [full.names().damage(1)]);
        let (healed, _, warnings) = world.backup(&repo, folder.path());
        assert!(warnings[0].contains(&pack.to_string()) && warnings[0].contains("stored again"), "{warnings:?}");
        for id in [first, rests, healed] {
            world.restores(&full, &id, &files, folder.path());
        }
        // The pack is damaged still, and nothing needs it.
        for depth in [Depth::Structure, Depth::AllData, Depth::Structure] {
            let report = check(&full, depth);
            assert_eq!((report.damages, &*report.damage[0].object), (1, &*full.names().pack(&pack)), "{depth:?}");
            assert_eq!((report.damage[0].lost_blobs, report.unpublished), (0, None));
        }
        assert_eq!(records(&world, &full).len(), 1, "what is known is not said again");
    }
}

#[test]
fn a_pack_that_is_whole_again_is_taken_off_the_record() {
    let world = World::today();
    let machine = tempfile::tempdir().unwrap();
    let repo = world.open_with(FULL, Some(machine.path().into()));
    let (folder, files) = source();
    world.backup(&repo, folder.path());
    let (pack, whole) = damage(&world, &repo);
    assert_eq!(check(&repo, Depth::AllData).damages, 1);
    world.store.write(&repo.names().pack(&pack), whole).unwrap();
    let report = check(&repo, Depth::Structure);
    assert!(report.damage[0].why[0].contains("--read-data tells"), "nobody has read it since: {:?}", report.damage);
    assert_eq!(check(&repo, Depth::AllData).damages, 0);
    assert_eq!(records(&world, &repo), [repo.names().damage(1), repo.names().damage(2)]);
    assert_eq!(check(&repo, Depth::Structure).damages, 0);
    let (id, _, warnings) = world.backup(&repo, folder.path());
    assert!(warnings.is_empty(), "{warnings:?}");
    world.restores(&repo, &id, &files, folder.path());
}

#[test]
fn only_a_full_keys_record_counts_and_none_is_hidden_by_another() {
    let world = World::new();
    let repo = world.open(FULL);
    world.snapshot(&repo, &[b"a blob"]);
    let (pack, _) = damage(&world, &repo);
    assert_eq!(check(&repo, Depth::AllData).damages, 1);
    let writer = world.signing(&repo, WRITER);
    let forge = |number: u64, named: u64, packs: Vec<PackName>| {
        let record = DamageRecord { number: named, packs };
        world.write(&repo, ObjectType::Damage, &repo.names().damage(number), &writer, &record.encode());
    };
    // That nothing is damaged; and a number above which there is none.
    forge(2, 2, Vec::new());
    forge(limits::NUMBER_MAX, limits::NUMBER_MAX, Vec::new());
    forge(limits::NUMBER_MAX + 1, limits::NUMBER_MAX + 1, Vec::new());
    let known = repo.known_damage().unwrap();
    assert_eq!((known.packs, known.problems.len()), ([pack].into(), 2));
    let mut session = Session::begin(&repo, "db1").unwrap();
    assert!(session.take_warnings().iter().any(|w| w.contains("no full key signed it")));
    assert_eq!(put(&session, &[b"a blob"]).unwrap(), [Stored::New]);
    session.abandon();
    // What a full key finds goes on behind them.
    assert!(repo.publish_damage(|packs| packs.clear()).unwrap());
    assert_eq!(repo.known_damage().unwrap().packs.len(), 0);
    assert!(world.store.size(&repo.names().damage(3)).is_ok());
    // A record under another's name says nothing.
    let full = world.signing(&repo, FULL);
    let old = DamageRecord { number: 1, packs: vec![pack] };
    world.write(&repo, ObjectType::Damage, &repo.names().damage(4), &full, &old.encode());
    assert_eq!(repo.known_damage().unwrap().packs.len(), 0);
    assert!(world.open(WRITER).publish_damage(|packs| packs.clear()).is_err());
}

#[test]
fn two_checks_that_publish_at_once_lose_nothing_of_each_other() {
    let world = World::new();
    let (one, other) = (world.open(FULL), world.open(FULL));
    let mut first = true;
    let cell = std::cell::RefCell::new(&mut first);
    let published = one.publish_damage(|packs| {
        if std::mem::take(*cell.borrow_mut()) {
            assert!(other.publish_damage(|packs| packs.extend([PackName([2; 32])])).unwrap());
        }
        packs.insert(PackName([1; 32]));
    });
    assert!(published.unwrap());
    assert_eq!(one.known_damage().unwrap().packs, [PackName([1; 32]), PackName([2; 32])].into());
}

#[test]
fn full_keys_vouch_for_what_they_have_read_of_a_writers() {
    let world = World::new();
    let mut repo = world.open(FULL);
    let secret = Secret::KeyFile(crate::world::key(OTHER_WRITER));
    let role = estrato::format::key::Role::Writer;
    repo.add_key(&NewKey { role, label: "other".into(), secret }).unwrap();
    world.snapshot(&world.open(WRITER), &[b"a writer's", b"own blobs"]);
    let stored = |key: u8, blob: &[u8]| {
        let repo = world.open(key);
        let session = Session::begin(&repo, "db1").unwrap();
        let stored = put(&session, &[blob]).unwrap();
        session.abandon();
        stored
    };
    assert_eq!(stored(OTHER_WRITER, b"a writer's"), [Stored::New]);
    check(&repo, Depth::Structure);
    let indexes = || world.names(&repo.names().indexes()).len();
    let before = indexes();
    // The writer's, and what the other has left.
    assert_eq!(check(&repo, Depth::AllData).vouched, 2);
    assert_eq!(indexes(), before + 1);
    for key in [FULL, OTHER_WRITER, WRITER] {
        assert_eq!(stored(key, b"own blobs"), [Stored::Known], "key {key}");
    }
    assert_eq!(check(&repo, Depth::AllData).vouched, 0, "once is enough");
    assert_eq!(indexes(), before + 1);
    assert_eq!(check(&world.open(WRITER), Depth::AllData).vouched, 0);
}

#[test]
fn nobody_vouches_for_a_damaged_pack() {
    let world = World::new();
    let repo = world.open(FULL);
    world.snapshot(&world.open(WRITER), &[b"a writer's"]);
    damage(&world, &repo);
    let report = check(&repo, Depth::AllData);
    assert_eq!((report.damages, report.vouched), (1, 0));
    assert!(records(&world, &repo).len() == 1 && world.names(&repo.names().indexes()).len() == 1);
}

#[test]
fn a_check_that_may_not_write_says_so_and_has_found_it_all_the_same() {
    let world = World::new();
    let repo = world.open(FULL);
    world.snapshot(&repo, &[b"a blob"]);
    damage(&world, &repo);
    world.store.henceforth(|_| Fate::Unheard);
    let report = check(&repo, Depth::AllData);
    assert_eq!(report.damages, 1);
    assert!(report.unpublished.unwrap().contains("no answer"));
}
