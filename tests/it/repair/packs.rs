//! Packs that are damaged in every way, mended by their parity, from another repository, or by what is whole of
//! them.

use crate::support::{Place, noise};
use crate::world::{FULL, Fate, WRITER, World};
use bytes::Bytes;
use estrato::error::Error;
use estrato::format::names::TenantNames;
use estrato::format::pack::StorageClass;
use estrato::format::parity::Parity;
use estrato::id::{PackName, SnapshotId};
use estrato::maintenance::prune::{self, Bounds};
use estrato::maintenance::repair::{Outcome, Remedy, Wanted, repair_packs};
use estrato::maintenance::{self, Depth, Part, Report};
use estrato::monitor::Silent;
use estrato::store::Store as _;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// A repository with two snapshots of a folder: of some files, and of a day's changes.
struct Kept {
    world: World,
    folder: tempfile::TempDir,
    snapshots: Vec<(SnapshotId, Files)>,
}

fn per_mille(n: u64) -> Parity {
    Parity::per_mille(n).unwrap()
}

impl Kept {
    fn new(parity: u64) -> Self {
        let world = World::today();
        assert_eq!(world.open(FULL).set_parity(per_mille(parity)).unwrap(), parity > 0);
        let mut kept = Self { world, folder: tempfile::tempdir().unwrap(), snapshots: Vec::new() };
        let mut files: Files =
            [("a", 90_000), ("b", 60_000), ("c", 300)].map(|(name, len)| (name.into(), noise(name, len))).into();
        kept.take(&files);
        // Of one a part changes, of which a delta is made; another is all new, in frames of its own.
        files.get_mut(&PathBuf::from("a")).unwrap()[40_000..40_300].fill(7);
        files.insert("b".into(), noise("b of the next day", 600_000));
        kept.take(&files);
        kept
    }

    fn take(&mut self, files: &Files) {
        files.iter().for_each(|(name, bytes)| std::fs::write(self.folder.path().join(name), bytes).unwrap());
        let (id, ..) = self.world.backup(&self.world.open(FULL), self.folder.path());
        self.snapshots.push((id, files.clone()));
    }

    fn restores(&self, world: &World) {
        let repo = world.open(FULL);
        for (id, files) in &self.snapshots {
            world.restores(&repo, id, files, self.folder.path());
        }
    }

    /// The largest pack of a class.
    fn pack(&self, class: StorageClass) -> (PackName, Bytes) {
        let repo = self.world.open(FULL);
        repo.sync_index().unwrap();
        let mut known = repo.index().packs().unwrap();
        known.retain(|pack| repo.index().pack(pack.number).unwrap().unwrap().class == class);
        let name = known.iter().max_by_key(|pack| pack.size).unwrap().name;
        (name, self.world.store.read(&object(&name), 1 << 30).unwrap())
    }
}

fn object(pack: &PackName) -> String {
    TenantNames::new("default").unwrap().pack(pack)
}

fn check(world: &World, depth: Depth) -> Report {
    maintenance::check(&world.open(FULL), depth, &Silent).unwrap()
}

fn repair(world: &World, wanted: &Wanted<'_>) -> Outcome {
    repair_packs(&world.open(FULL), wanted, &Silent).unwrap()
}

const ALL: Wanted<'static> = Wanted { all: true, from: None, is_dry: false };

/// What befalls a pack; nothing is left of it where that is `None`.
type Damage = (&'static str, fn(&[u8]) -> Option<Vec<u8>>);

fn changed(bytes: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Option<Vec<u8>> {
    let mut bytes = bytes.to_vec();
    change(&mut bytes);
    Some(bytes)
}

/// Damage that parity of a tenth mends, and damage that it does not.
const MENDABLE: [Damage; 8] = [
    ("a bit of its header", |b| changed(b, |b| b[4] ^= 1)),
    ("a bit of its key", |b| changed(b, |b| b[500] ^= 1)),
    ("a bit of its first frame", |b| changed(b, |b| b[1_300] ^= 8)),
    ("a bit of its trailer", |b| changed(b, |b| *b.iter_mut().rev().nth(40).unwrap() ^= 1)),
    ("a bit of its closing hash", |b| changed(b, |b| *b.last_mut().unwrap() ^= 1)),
    ("a zeroed block", |b| changed(b, |b| b[1_024..1_536].fill(0))),
    ("its end cut off", |b| changed(b, |b| b.truncate(b.len() - 60))),
    ("something behind its end", |b| changed(b, |b| b.extend_from_slice(&[3; 700]))),
];

const LOST: [Damage; 4] = [
    ("gone", |_| None),
    ("its second half cut off", |b| changed(b, |b| b.truncate(b.len() / 2))),
    ("empty", |_| Some(Vec::new())),
    ("something else", |b| changed(b, |b| b.fill(9))),
];

fn befall(world: &World, name: &PackName, damage: Damage, bytes: &[u8]) {
    match damage.1(bytes) {
        Some(bytes) => world.store.write(&object(name), bytes.into()).unwrap(),
        None => world.store.delete(&object(name)).unwrap(),
    }
}

fn packs_of(world: &World) -> BTreeMap<String, Bytes> {
    world.objects().into_iter().filter(|(name, _)| name.contains("/packs/")).collect()
}

#[test]
fn parity_mends_a_pack_on_the_store_and_for_every_reader_before() {
    let kept = Kept::new(100);
    for class in [StorageClass::Data, StorageClass::Trees] {
        let (name, bytes) = kept.pack(class);
        for damage in MENDABLE {
            let label = format!("{class:?}, {}", damage.0);
            let world = kept.world.twin();
            befall(&world, &name, damage, &bytes);
            // Nothing is lost meanwhile: it is read as it was.
            kept.restores(&world);
            let report = check(&world, Depth::AllData);
            assert_eq!(report.damages, 1, "{label}: {:?}", report.damage);
            let told = &report.damage[0];
            assert!(told.mendable && told.object == object(&name), "{label}: {told:?}");
            assert_eq!((told.lost_blobs, told.entries, told.bad_frames), (0, 0, 0), "{label}");
            // Nor does it take a key to see that.
            let keyless = maintenance::check_store(&*world.store, Part::All, &Silent).unwrap();
            assert!(keyless.damages == 1 && keyless.damage[0].mendable, "{label}: {:?}", keyless.damage);
            let before = packs_of(&world);
            let dry = repair(&world, &Wanted { is_dry: true, ..Wanted::default() });
            assert_eq!((dry.damages, dry.mended), (1, 1), "{label}: {dry:?}");
            assert!(packs_of(&world) == before, "{label}: a dry run writes nothing");
            let done = repair(&world, &Wanted::default());
            assert_eq!((done.damages, done.mended, done.lost_blobs), (1, 1, 0), "{label}: {done:?}");
            assert_eq!((done.damaged[0].remedy, done.written_bytes), (Remedy::Parity, 0), "{label}");
            assert!(packs_of(&world) == packs_of(&kept.world), "{label}: the same bytes");
            assert!(world.open(FULL).known_damage().unwrap().packs.is_empty(), "{label}");
            assert_eq!(check(&world, Depth::AllData).damages, 0, "{label}");
        }
    }
}

#[test]
fn what_parity_does_not_mend_comes_from_another_repository() {
    for parity in [0, 100] {
        let kept = Kept::new(parity);
        for class in [StorageClass::Data, StorageClass::Trees] {
            let (name, bytes) = kept.pack(class);
            for damage in LOST.iter().chain(&MENDABLE).filter(|d| parity == 0 || LOST.iter().any(|l| l.0 == d.0)) {
                let label = format!("{class:?}, {}", damage.0);
                let world = kept.world.twin();
                befall(&world, &name, *damage, &bytes);
                // An empty mirror, or one with other packs, gives nothing.
                let other = World::new();
                let wanted = Wanted { all: true, from: Some(&*other.store), is_dry: true };
                assert_eq!(repair(&world, &wanted).mended, 0, "{label}");
                let wanted = Wanted { all: true, from: Some(&*kept.world.store), is_dry: false };
                let done = repair(&world, &wanted);
                assert_eq!((done.damages, done.mended, done.lost_blobs), (1, 1, 0), "{label}: {done:?}");
                assert_eq!(done.damaged[0].remedy, Remedy::Other, "{label}");
                assert!(packs_of(&world) == packs_of(&kept.world), "{label}: the same bytes");
                assert_eq!(check(&world, Depth::AllData).damages, 0, "{label}");
            }
        }
    }
}

#[test]
fn two_mirrors_that_are_both_damaged_make_a_whole_pack() {
    let kept = Kept::new(100);
    let (name, bytes) = kept.pack(StorageClass::Data);
    let (here, there) = (kept.world.twin(), kept.world.twin());
    // Of each the other half is left, and both are past their own parity.
    let half = bytes.len() / 2;
    let mut first = bytes.to_vec();
    first[..half].fill(0);
    here.store.write(&object(&name), first.into()).unwrap();
    let mut second = bytes.to_vec();
    second[half + 600..].fill(0);
    there.store.write(&object(&name), second.into()).unwrap();
    let done = repair(&here, &Wanted { all: true, from: Some(&*there.store), is_dry: false });
    assert_eq!((done.mended, done.damaged[0].remedy), (1, Remedy::Other), "{done:?}");
    assert!(packs_of(&here) == packs_of(&kept.world));
}

#[test]
fn what_is_whole_of_a_damaged_pack_is_copied_and_what_is_lost_is_told() {
    let kept = Kept::new(0);
    for class in [StorageClass::Data, StorageClass::Trees] {
        let (name, bytes) = kept.pack(class);
        // Without its end a pack still has all its frames; with a bit of one gone all the others; of what is
        // empty or gone nothing is left. Where a cut goes through depends on the order of the frames.
        let is_data = class == StorageClass::Data;
        for (damage, copies, loses) in [
            (MENDABLE[3], Some(true), false),
            (MENDABLE[4], Some(true), false),
            (MENDABLE[6], Some(true), false),
            (MENDABLE[7], Some(true), false),
            (MENDABLE[2], Some(is_data), true),
            (MENDABLE[1], Some(false), true),
            (LOST[1], None, true),
            (LOST[0], Some(false), true),
            (LOST[2], Some(false), true),
        ] {
            let label = format!("{class:?}, {}", damage.0);
            let world = kept.world.twin();
            befall(&world, &name, damage, &bytes);
            let before = world.objects();
            let dry = repair(&world, &Wanted { is_dry: true, ..ALL });
            assert!(world.objects() == before, "{label}: a dry run writes nothing");
            let done = repair(&world, &ALL);
            assert_eq!((done.damages, done.mended), (1, 0), "{label}: {done:?}");
            let has_copied = done.damaged[0].remedy == Remedy::Copied;
            assert!(copies.is_none_or(|copies| has_copied == copies), "{label}: {done:?}");
            assert_eq!(done.lost_blobs > 0, loses, "{label}: {done:?}");
            assert_eq!(done.damaged[0].lost_frames > 0, loses, "{label}: {done:?}");
            assert_eq!(Outcome { written_bytes: 0, ..done.clone() }, dry, "{label}: the dry run said so");
            assert_eq!(done.written_bytes > 0, has_copied, "{label}");
            for (name, bytes) in &before {
                assert!(world.store.read(name, 1 << 30).unwrap() == *bytes, "{label}: {name} is as it was");
            }
            // A check is honest about it, and names nothing as lost that has another copy.
            let report = check(&world, Depth::AllData);
            assert_eq!(report.damages, 1, "{label}: {:?}", report.damage);
            let lost = report.damage[0].lost_blobs;
            // A tree that is lost hides what lies below it.
            let agree = if class == StorageClass::Data { lost == done.lost_blobs } else { (lost > 0) == loses };
            assert!(agree, "{label}: {lost} blobs, {done:?}, {:?}", report.damage);
            // Once more there is nothing to copy.
            let again = repair(&world, &ALL);
            assert_eq!((again.written_bytes, again.lost_blobs), (0, done.lost_blobs), "{label}: {again:?}");
            if loses {
                continue;
            }
            kept.restores(&world);
            // Nothing needs the damaged pack any more: a prune deletes it.
            let repo = world.open(FULL);
            let bounds = Bounds { unused_percent: 100.0, repack: None };
            let pruned = prune::prepare(&repo, &bounds.into(), &Silent).unwrap().execute(&Silent).unwrap();
            assert!(pruned.deleted > 0 && pruned.waiting.is_empty(), "{label}: {pruned:?}");
            assert_eq!(check(&world, Depth::AllData).damages, 0, "{label}");
            kept.restores(&world);
        }
    }
}

#[test]
fn what_is_lost_the_next_backup_stores_again_and_a_prune_then_clears_up() {
    let kept = Kept::new(0);
    let world = &kept.world;
    let (name, bytes) = kept.pack(StorageClass::Data);
    befall(world, &name, MENDABLE[2], &bytes);
    let done = repair(world, &ALL);
    assert!(done.lost_blobs > 0 && done.damaged[0].copied_frames > 0, "{done:?}");
    // Some files are lost and others are not.
    let repo = world.open(FULL);
    let (id, files) = &kept.snapshots[1];
    let restored = world.try_restore(&repo, id, kept.folder.path());
    assert!(restored.failures > 0 && restored.files.iter().all(|(name, bytes)| files[name] == *bytes));
    let (healed, _, warnings) = world.backup(&repo, kept.folder.path());
    assert!(warnings[0].contains("stored again"), "{warnings:?}");
    world.restores(&repo, &healed, files, kept.folder.path());
    let bounds = Bounds { unused_percent: 100.0, repack: None };
    prune::prepare(&repo, &bounds.into(), &Silent).unwrap().execute(&Silent).unwrap();
    assert_eq!(check(world, Depth::AllData).damages, 0);
    kept.restores(world);
}

#[test]
fn what_is_copied_is_announced_and_recorded_before() {
    let kept = Kept::new(0);
    let (name, bytes) = kept.pack(StorageClass::Data);
    let world = kept.world.twin();
    befall(&world, &name, MENDABLE[4], &bytes);
    let (store, seen) = (Arc::clone(&world.store), Arc::new(std::sync::Mutex::new(Vec::new())));
    let told = Arc::clone(&seen);
    world.store.henceforth(move |name| {
        let names = TenantNames::new("default").unwrap();
        let is = |folder: &str, what: &str| store.list(folder).unwrap().iter().any(|o| o.name.contains(what));
        if name.contains("/packs/") || name.contains("/index/") {
            told.lock().unwrap().push((is(&names.sessions(), ""), is(&names.plans(), "damage")));
        }
        Fate::Done
    });
    assert!(repair(&world, &ALL).written_bytes > 0);
    let seen = seen.lock().unwrap();
    assert!(seen.len() >= 2 && seen.iter().all(|s| *s == (true, true)), "{seen:?}");
    assert!(world.names("tenants/default/sessions").is_empty(), "and it ends");
}

fn prune_once(world: &World) -> estrato::error::Result<prune::Outcome> {
    let repo = world.open(FULL);
    prune::prepare(&repo, &Bounds { unused_percent: 0.0, repack: None }.into(), &Silent)?.execute(&Silent)
}

#[test]
fn beside_prunes_and_backups_nothing_is_lost() {
    let mut kept = Kept::new(0);
    let (name, bytes) = kept.pack(StorageClass::Data);
    let (first, _) = kept.snapshots.remove(0);
    for round in 0..6 {
        let world = kept.world.twin();
        let repo = world.open(FULL);
        let listing = estrato::snapshot::list(&repo).unwrap();
        let there: Vec<_> = listing.snapshots.iter().map(|s| (s.id, &s.manifest, s.signer)).collect();
        repo.forget(&[first], &there, true, &Silent).unwrap();
        befall(&world, &name, MENDABLE[4], &bytes);
        if round % 2 == 1 {
            check(&world, Depth::AllData);
        }
        let taken = std::thread::scope(|scope| {
            let mended = scope.spawn(|| repair_packs(&world.open(FULL), &ALL, &Silent));
            let pruned = scope.spawn(|| (0..3).map(|_| prune_once(&world)).collect::<Vec<_>>());
            let taken = scope.spawn(|| world.backup(&world.open(FULL), kept.folder.path()).0);
            match mended.join().unwrap() {
                Ok(done) => assert_eq!(done.lost_blobs, 0, "{done:?}"),
                Err(e) => assert!(matches!(e, Error::Busy { .. } | Error::Fenced { .. }) || e.is_damage(), "{e:?}"),
            }
            for outcome in pruned.join().unwrap() {
                assert!(outcome.as_ref().err().is_none_or(|e| e.is_damage() || matches!(e, Error::Busy { .. })));
            }
            taken.join().unwrap()
        });
        assert_eq!(repair(&world, &ALL).lost_blobs, 0);
        // The first may have to carry out what another has planned.
        for _ in 0..2 {
            assert!(prune_once(&world).unwrap().waiting.is_empty());
        }
        let report = check(&world, Depth::AllData);
        assert_eq!(report.damages, 0, "round {round}: {:?}", report.damage);
        kept.restores(&world);
        world.restores(&world.open(FULL), &taken, &kept.snapshots[0].1, kept.folder.path());
    }
}

#[test]
fn a_copy_that_no_full_key_answers_for_does_not_keep_a_blob_from_being_copied() {
    let kept = Kept::new(0);
    let world = kept.world.twin();
    // A writer's entry claims that all the pack's blobs lie in one of its own, which is large enough.
    let own = tempfile::tempdir().unwrap();
    std::fs::write(own.path().join("z"), noise("z", 2_500_000)).unwrap();
    world.backup(&world.open(WRITER), own.path());
    let repo = world.open(FULL);
    repo.sync_index().unwrap();
    let (name, bytes) = kept.pack(StorageClass::Data);
    let known = repo.index().packs().unwrap();
    let other = known.iter().filter(|pack| pack.name != name).max_by_key(|pack| pack.size).unwrap();
    let said = known.iter().find(|pack| pack.name == name).unwrap().object;
    let (_, mut index) = repo.read_index(&said).unwrap();
    index.packs.retain(|pack| pack.name == name);
    index.packs.iter_mut().for_each(|pack| (pack.name, pack.size) = (other.name, other.size));
    assert!(other.size > bytes.len() as u64, "or nobody reads the entry");
    let claim = world.index(&repo, &index, &world.signing(&repo, WRITER));
    assert!(world.open(FULL).read_index(&claim).is_ok());
    befall(&world, &name, MENDABLE[4], &bytes);
    let done = repair(&world, &ALL);
    assert_eq!((done.damaged[0].remedy, done.lost_blobs), (Remedy::Copied, 0), "{done:?}");
    world.store.delete(&object(&name)).unwrap();
    kept.restores(&world);
}

#[test]
fn a_healthy_repository_is_left_as_it_is() {
    for parity in [0, 50] {
        let kept = Kept::new(parity);
        let before = kept.world.objects();
        for wanted in [ALL, Wanted::default(), Wanted { from: Some(&*kept.world.store), ..ALL }] {
            let done = repair(&kept.world, &wanted);
            assert_eq!((done.damages, done.read_packs), (0, if wanted.all { done.packs } else { 0 }), "{done:?}");
            assert!(kept.world.objects() == before);
        }
        let writer = kept.world.open(WRITER);
        assert!(matches!(repair_packs(&writer, &ALL, &Silent), Err(Error::NotAllowed { .. })));
    }
}

#[test]
fn a_pack_is_never_put_back_by_other_bytes() {
    let kept = Kept::new(0);
    let (name, bytes) = kept.pack(StorageClass::Data);
    let repo = kept.world.open(FULL);
    for other in [&bytes[..bytes.len() - 1], b"", &[&bytes[..], b"x"].concat()] {
        let put = repo.put_back(&name, Bytes::copy_from_slice(other), StorageClass::Data, true);
        assert!(matches!(put, Err(Error::Invalid(_))));
    }
    assert!(kept.world.store.read(&object(&name), 1 << 30).unwrap() == bytes);
}

#[test]
fn every_pack_has_the_parity_that_stood_in_the_list_when_it_was_written() {
    let mut kept = Kept::new(0);
    let without: Vec<String> = packs_of(&kept.world).into_keys().collect();
    let mut repo = kept.world.open(FULL);
    assert_eq!((repo.parity(), repo.set_parity(per_mille(100)).unwrap()), (Parity::NONE, true));
    assert!(!repo.set_parity(per_mille(100)).unwrap(), "it is so already");
    assert!(matches!(kept.world.open(WRITER).set_parity(Parity::NONE), Err(Error::NotAllowed { .. })));
    // A writer's packs have it too, and those that a prune writes.
    std::fs::write(kept.folder.path().join("d"), noise("d", 70_000)).unwrap();
    kept.world.backup(&kept.world.open(WRITER), kept.folder.path());
    let has = |bytes: &[u8]| bytes.windows(8).any(|eight| eight == b"estrpar0");
    for (name, bytes) in packs_of(&kept.world) {
        assert_eq!(has(&bytes), !without.contains(&name), "{name}");
    }
    let first = kept.snapshots.remove(0).0;
    let listing = estrato::snapshot::list(&repo).unwrap();
    let there: Vec<_> = listing.snapshots.iter().map(|s| (s.id, &s.manifest, s.signer)).collect();
    repo.forget(&[first], &there, true, &Silent).unwrap();
    let bounds = Bounds { unused_percent: 0.0, repack: None };
    let pruned = prune::prepare(&repo, &bounds.into(), &Silent).unwrap().execute(&Silent).unwrap();
    assert!(pruned.written > 0, "{pruned:?}");
    let after = packs_of(&kept.world);
    assert!(after.iter().any(|(name, _)| without.contains(name)) || !after.is_empty());
    for (name, bytes) in after.iter().filter(|(name, _)| !without.contains(name)) {
        assert!(has(bytes), "{name}");
    }
    kept.restores(&kept.world);
    assert_eq!(check(&kept.world, Depth::AllData).damages, 0);
}

/// A pack of data, or the largest there is, of the program's repository.
fn largest(place: &Place) -> PathBuf {
    let packs = place.objects("packs").into_iter();
    packs.max_by_key(|path| std::fs::metadata(path).unwrap().len()).unwrap()
}

fn flip(path: &PathBuf, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn through_the_program() {
    let place = Place::new();
    place.run(&["init", "--new-key-file", "key", "--parity", "5%"]).expect_code(0);
    place.write("source/a", noise("a", 80_000));
    place.snapshot(&[]);
    let stats = place.run(&["stats"]).expect_code(0).stdout();
    assert!(stats.contains("new packs get 5 % of parity"), "{stats}");
    let healthy = place.run(&["repair", "packs", "--all"]).expect_code(0).stdout();
    assert!(healthy.contains("none is damaged, nothing was changed"), "{healthy}");
    flip(&largest(&place), 5_000);
    let checked = place.run(&["check", "--read-data"]).expect_code(4).stdout();
    assert!(checked.contains("its parity mends it, by 'estrato repair packs'"), "{checked}");
    let dry = place.run(&["repair", "packs", "--dry-run"]).expect_code(0).stdout();
    assert!(dry.contains("would be mended by its parity"), "{dry}");
    let mended = place.run(&["repair", "packs"]).expect_code(0).stdout();
    assert!(mended.contains("is mended by its parity") && mended.contains("1 is damaged or gone"), "{mended}");
    place.run(&["check", "--read-data"]).expect_code(0);

    place.run(&["tenant", "set", "--parity", "51%"]).expect_code(2);
    place.run(&["tenant", "set", "--parity", "0.25%"]).expect_code(2);
    let set = place.run(&["tenant", "set", "--parity", "0%"]).expect_code(0).stdout();
    assert!(set.contains("new packs get no parity"), "{set}");
    let json = place.run(&["tenant", "set", "--parity", "2.5%", "--json"]).expect_code(0).json();
    assert_eq!((&json["parity_per_mille"], &json["changed"]), (&25.into(), &true.into()));

    // From a mirror: one that is not there is no mirror.
    let copied =
        std::process::Command::new("cp").arg("-r").arg(place.path("repo")).arg(place.path("mirror")).status();
    assert!(copied.unwrap().success());
    let pack = largest(&place);
    std::fs::remove_file(&pack).unwrap();
    place.run(&["repair", "packs", "--from", "mistyped"]).expect_code(10);
    let lost = place.run(&["repair", "packs"]).expect_code(4).stdout();
    assert!(lost.contains("it is missing") && lost.contains("nothing can be done here"), "{lost}");
    let json = place.run(&["repair", "packs", "--from", "mirror", "--json"]).expect_code(0).json();
    assert_eq!((&json["damaged"][0]["remedy"], &json["dry_run"]), (&"other".into(), &false.into()), "{json}");
    place.run(&["check", "--read-data"]).expect_code(0);
    place.restore("out", &[]);
}
