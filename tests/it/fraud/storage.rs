//! Storage credentials and no key: every object forged, replaced, replayed, removed, reordered.

use super::{Folder, closed, comes_back, ends};
use crate::support::noise;
use crate::world::{FULL, Restored, WRITER, World, key};
use bytes::Bytes;
use estrato::clock::Clock;
use estrato::error::{Error, Result, StoreError};
use estrato::format::header::{Cipher, ObjectType};
use estrato::format::names::last_part;
use estrato::format::records::Tombstone;
use estrato::id::SnapshotId;
use estrato::limits;
use estrato::maintenance::{self, Depth};
use estrato::monitor::Silent;
use estrato::repo::{self, Access, NewKey, Repository, Secret, Session};
use estrato::snapshot;
use estrato::store::{Listed, Store};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

type Objects = BTreeMap<String, Bytes>;

/// A world with a snapshot of a folder by the full key, and one of the writer's.
struct Scene {
    world: World,
    folder: Folder,
    files: BTreeMap<PathBuf, Vec<u8>>,
    id: SnapshotId,
    whole: Objects,
}

fn scene() -> Scene {
    let world = World::today();
    let folder = Folder::new();
    let (id, ..) = world.backup(&world.open(FULL), folder.path());
    world.snapshot(&world.open(WRITER), &crate::world::BLOBS);
    let whole = world.objects();
    Scene { files: folder.files(), whole, id, folder, world }
}

impl Scene {
    /// Restores as the full key on a fresh machine; what could not be opened is told like the rest.
    fn restored(&self) -> Restored {
        match self.world.try_open(FULL, None) {
            Ok(repo) => self.world.try_restore(&repo, &self.id, self.folder.path()),
            Err(e) => Restored { files: BTreeMap::new(), failures: 1, told: vec![e.to_string()] },
        }
    }

    /// Never wrong bytes; and if a file is lost, `object` is named.
    #[track_caller]
    fn never_wrong(&self, what: &str, object: &str) -> Restored {
        let restored = self.restored();
        for (path, bytes) in &restored.files {
            assert!(self.files.get(path) == Some(bytes), "{what} {object}: {path:?} came back wrong");
        }
        if restored.files.len() < self.files.len() {
            assert!(restored.failures > 0, "{what} {object}: files are lost without a word");
            // Without its name or record there is nothing that could be damaged; without its slot, no key.
            let absent = ["no repository at", "no tenant named", "does not open tenant"];
            let named = |t: &String| t.contains(last_part(object)) || absent.iter().any(|a| t.contains(a));
            // Nobody who has not seen an index object knows its name; what it alone knew is missing.
            let unknown = what == "removed" && object.contains("/index/");
            let told = restored.told.iter().any(|t| named(t) || unknown && t.contains("no index object names"));
            assert!(told, "{what} {object} is not named: {:?}", restored.told);
        }
        restored
    }
}

#[test]
fn no_object_that_is_changed_replaced_or_removed_gives_wrong_data_and_each_is_named() {
    let mut s = scene();
    let objects: Vec<(String, Bytes)> = s.whole.clone().into_iter().collect();
    for (at, (name, object)) in objects.iter().enumerate() {
        let middle = object.len() / 2;
        let mut flipped = object.to_vec();
        flipped[middle] ^= 0x10;
        // A closing hash of one's own: what proves nothing must not be believed.
        let forged = closed(ObjectType::Pack, &noise("forged", object.len().max(100) - 40));
        let other = objects[(at + 1) % objects.len()].1.clone();
        let forgeries = [
            ("flipped", Some(flipped.into())),
            ("cut short", Some(object.slice(..middle))),
            ("emptied", Some(Bytes::new())),
            ("forged", Some(forged)),
            ("another's", Some(other)),
            ("removed", None),
        ];
        for (what, forged) in forgeries {
            match &forged {
                Some(bytes) => s.world.store.write(name, bytes.clone()).unwrap(),
                None => s.world.store.delete(name).unwrap(),
            }
            // What a writer's slot or snapshot lost is nothing to this snapshot, and it comes back.
            s.never_wrong(what, name);
            s.world.store.write(name, object.clone()).unwrap();
        }
    }
    s.whole = s.world.objects();
    assert_eq!(s.restored().failures, 0);
}

#[test]
fn a_backup_beside_forged_objects_is_whole_or_says_that_it_failed() {
    let s = scene();
    s.folder.write("a/new", &noise("new", 30_000));
    let files = s.folder.files();
    for (name, object) in &s.whole {
        for (what, forged) in [
            ("garbage", Some(Bytes::from_static(b"garbage"))),
            ("cut short", Some(object.slice(..object.len() / 2))),
            ("removed", None),
        ] {
            s.world.show(&s.whole);
            match forged {
                Some(bytes) => s.world.store.write(name, bytes).unwrap(),
                None => s.world.store.delete(name).unwrap(),
            }
            let before = s.world.names("");
            let victims = [FULL, WRITER];
            for n in victims {
                let taken = s.world.try_open(n, None).and_then(|repo| s.world.try_backup(&repo, s.folder.path()));
                match taken {
                    Ok((outcome, _)) => {
                        let repo = s.world.try_open(FULL, None);
                        // A slot or list that the full key needs is told of by opening.
                        let Ok(repo) = repo else { continue };
                        s.world.restores(&repo, &outcome.snapshot.unwrap(), &files, s.folder.path());
                    }
                    Err(e) => {
                        let told = e.to_string();
                        let missing =
                            matches!(e, Error::WrongKey { .. } | Error::NoTenant { .. } | Error::NoRepository { .. });
                        let list = name.contains("signers.") && matches!(e, Error::NoKey { .. });
                        assert!(missing || list || told.contains(last_part(name)), "{what} {name}, key {n}: {told}");
                    }
                }
            }
            let after = s.world.names("");
            assert!(before.iter().all(|n| after.contains(n)), "{what} {name}: somebody deleted something");
        }
    }
}

#[test]
fn objects_under_each_others_names_are_told_and_taken_for_nothing() {
    let s = scene();
    let repo = s.world.open(FULL);
    let names: Vec<String> = s.whole.keys().cloned().collect();
    for folder in ["packs", "index", "snapshots"] {
        let of = ends(&names, &repo, folder);
        assert!(of.len() > 1, "{folder}: {of:?}");
        for (one, other) in of.iter().flat_map(|a| of.iter().map(move |b| (a, b))).filter(|(a, b)| a != b) {
            s.world.store.write(one, s.whole[other].clone()).unwrap();
            s.never_wrong("exchanged", one);
            let report = maintenance::check(&s.world.open(FULL), Depth::AllData, &Silent).unwrap();
            assert!(report.damage.iter().any(|d| d.object == *one), "{one}: {:?}", report.damage);
            s.world.store.write(one, s.whole[one].clone()).unwrap();
        }
    }
}

/// The tenant `default` of another repository, or of an earlier one, with a snapshot of the same files.
fn elsewhere(s: &Scene) -> World {
    let other = World::today();
    other.backup(&other.open(FULL), s.folder.path());
    other.backup(&other.open(WRITER), s.folder.path());
    other
}

#[test]
fn objects_of_an_earlier_repository_of_the_same_name_and_key_are_refused() {
    let s = scene();
    // Made anew with the same names and the same key files; the old objects were kept by the store.
    let earlier = elsewhere(&s);
    let repo = s.world.open(FULL);
    for (name, object) in earlier.objects() {
        if name == "repo.json" || name.contains("/keys/") || name.ends_with("/tenant") {
            continue;
        }
        s.world.store.write(&name, object).unwrap();
        let report = maintenance::check(&s.world.open(FULL), Depth::AllData, &Silent).unwrap();
        let unnamed = name.contains("/packs/") && report.unnamed == 1;
        assert!(unnamed || report.damage.iter().any(|d| d.object == name), "{name}: {:?}", report.damage);
        comes_back(&s.world, &s.id, &s.files, &s.folder);
        s.world.store.delete(&name).unwrap();
    }
    // What each has exactly one of, replaced.
    let earlier_objects = earlier.objects();
    let signers = repo.names().signers(2);
    for name in [repo.names().tenant(), signers] {
        s.world.store.write(&name, earlier_objects[&name].clone()).unwrap();
        for n in [FULL, WRITER] {
            let e = s.world.trouble(n, None);
            // With another tenant's record no slot is found.
            assert!(e.contains(&name) || e.contains("does not open"), "{name}: {e}");
        }
        s.world.store.write(&name, s.whole[&name].clone()).unwrap();
    }
}

#[test]
fn objects_of_one_tenant_mean_nothing_under_another() {
    let s = scene();
    // The same key opens both tenants, so that a key that is wrong is not what refuses.
    let full = NewKey::full(Secret::KeyFile(key(FULL)), "full");
    repo::add_tenant(&*s.world.store, &*s.world.clock, "other", Cipher::Aes256Gcm, &full).unwrap();
    let open = || open_tenant(&s.world, "other").unwrap();
    let (id, ..) = s.world.backup(&open(), s.folder.path());
    let whole = s.world.objects();
    for (name, object) in &s.whole {
        let Some(rest) = name.strip_prefix("tenants/default/") else { continue };
        if rest == "tenant" || rest.starts_with("keys/") {
            continue;
        }
        let moved = format!("tenants/other/{rest}");
        s.world.store.write(&moved, object.clone()).unwrap();
        let report = maintenance::check(&open(), Depth::AllData, &Silent).unwrap();
        let unnamed = rest.starts_with("packs/") && report.unnamed == 1;
        assert!(unnamed || report.damage.iter().any(|d| d.object == moved), "{moved}: {:?}", report.damage);
        s.world.restores(&open(), &id, &s.files, s.folder.path());
        s.world.store.delete(&moved).unwrap();
    }
    // Record, slots and lists of the one in place of the other's: all of it, and each alone.
    for alone in ["tenant", "keys/signers.00000001"] {
        s.world
            .store
            .write(&format!("tenants/other/{alone}"), whole[&format!("tenants/default/{alone}")].clone())
            .unwrap();
        let only_read = |repo: Repository| repo.writable().is_err();
        assert!(open_tenant(&s.world, "other").map_or(true, only_read), "{alone}");
        s.world.show(&whole);
    }
    let machine = tempfile::tempdir().unwrap();
    let there = open_tenant_with(&s.world, "other", Some(machine.path().into())).unwrap().tenant();
    for name in s.world.names("tenants/other") {
        s.world.store.delete(&name).unwrap();
    }
    for (name, object) in &s.whole {
        if let Some(rest) = name.strip_prefix("tenants/default/") {
            s.world.store.write(&format!("tenants/other/{rest}"), object.clone()).unwrap();
        }
    }
    // A whole tenant under another name is that tenant, whose folder somebody has moved. A machine that has met
    // another one under the name is not taken in; one that never did can tell by the fingerprint.
    let e = open_tenant_with(&s.world, "other", Some(machine.path().into())).err().unwrap().to_string();
    assert!(e.contains("tenant other") && e.contains("another tenant than this machine has met"), "{e}");
    let found = open_tenant(&s.world, "other").unwrap();
    assert_eq!(found.fingerprint(), s.world.open(FULL).fingerprint());
    assert_ne!(found.tenant(), there);
}

fn open_tenant(world: &World, tenant: &str) -> Result<Repository> {
    open_tenant_with(world, tenant, None)
}

fn open_tenant_with(world: &World, tenant: &str, cache: Option<PathBuf>) -> Result<Repository> {
    let store: Arc<dyn Store> = Arc::<crate::world::Fateful>::clone(&world.store);
    let clock: Arc<dyn Clock> = Arc::<crate::world::Hand>::clone(&world.clock);
    let credential = estrato::crypto::slot::Credential::KeyFile(key(FULL));
    Repository::open(Access { store, clock, tenant: tenant.into(), credential, cache })
}

#[test]
fn index_objects_of_an_old_time_bring_back_nothing_that_is_gone() {
    let s = scene();
    let repo = s.world.open(FULL);
    let old: Objects =
        s.whole.iter().filter(|(n, _)| n.contains("/index/")).map(|(n, o)| (n.clone(), o.clone())).collect();
    // As after a prune: other packs, another index, and the old ones are gone.
    for name in s.world.names("tenants/default") {
        if ["/index/", "/packs/", "/snapshots/"].iter().any(|f| name.contains(f)) {
            s.world.store.delete(&name).unwrap();
        }
    }
    let (first, ..) = s.world.backup(&s.world.open(FULL), s.folder.path());
    for (name, object) in &old {
        s.world.store.write(name, object.clone()).unwrap();
    }
    for n in [FULL, WRITER] {
        let (id, manifest, warnings) = s.world.backup(&s.world.open(n), s.folder.path());
        assert!(warnings.iter().any(|w| w.contains("missing or cut short")), "{warnings:?}");
        assert_eq!(manifest.summary.read_bytes, 130_005, "nothing is taken unread");
        comes_back(&s.world, &id, &s.files, &s.folder);
    }
    comes_back(&s.world, &first, &s.files, &s.folder);
    let report = maintenance::check(&s.world.open(FULL), Depth::AllData, &Silent).unwrap();
    assert!(
        report.damage.iter().all(|d| d.why.join("; ").contains("missing") && d.needed_by.is_empty()),
        "{:?}",
        report.damage
    );
    assert!(!report.damage.is_empty());
    // An old snapshot that is put back is read again: by the new copies, but for what only it needs (the
    // folders above, if other programs changed them meanwhile), and that is told.
    let name = repo.names().snapshot(&s.id);
    s.world.store.write(&name, s.whole[&name].clone()).unwrap();
    let restored = s.restored();
    assert!(restored.files == s.files || restored.failures > 0, "{:?}", restored.told);
    assert!(restored.files.iter().all(|(path, bytes)| s.files[path] == *bytes));
}

#[test]
fn session_objects_that_are_forged_replayed_or_removed_stop_no_backup() {
    let world = World::today();
    let folder = Folder::new();
    let repo = world.open(FULL);
    let earlier = Session::begin(&repo, "db1").unwrap();
    let replayed = world.store.read(&repo.names().session(&earlier.id()), 1 << 20).unwrap();
    earlier.abandon();
    for n in [FULL, WRITER] {
        let victim = world.open(n);
        for forged in [Some(Bytes::from_static(b"garbage")), Some(replayed.clone()), Some(Bytes::new()), None] {
            let session = Session::begin(&victim, "db1").unwrap();
            let name = repo.names().session(&session.id());
            match forged {
                Some(bytes) => world.store.write(&name, bytes).unwrap(),
                None => world.store.delete(&name).unwrap(),
            }
            crate::world::put(&session, &crate::world::BLOBS).unwrap();
            world.clock.forward(300);
            session.renew_if_due().unwrap();
            assert_eq!(crate::world::record(&victim, &session.id()).renewed, 1, "it shows again that it lives");
            let id = session.commit(&crate::world::manifest()).unwrap();
            assert!(world.open(FULL).snapshot(&id).unwrap().manifest().is_some());
        }
        // Sessions of nobody, in any number.
        for at in 0..20 {
            world.store.write(&format!("{}/{at:032x}", repo.names().sessions()), replayed.clone()).unwrap();
        }
        let (id, ..) = world.backup(&victim, folder.path());
        comes_back(&world, &id, &folder.files(), &folder);
    }
}

#[test]
fn a_forged_plan_of_any_number_deletes_nothing_and_is_named() {
    let s = scene();
    let repo = s.world.open(FULL);
    let session = Session::begin(&repo, "db1").unwrap();
    let another = s.world.store.read(&repo.names().session(&session.id()), 1 << 20).unwrap();
    session.abandon();
    for number in [1, 100_000_000, limits::NUMBER_MAX] {
        let name = repo.names().plan(number);
        for forged in
            [Bytes::new(), Bytes::from_static(b"garbage"), closed(ObjectType::Plan, &[7; 200]), another.clone()]
        {
            s.world.store.write(&name, forged).unwrap();
            let before = s.world.names("");
            for n in [FULL, WRITER] {
                let (id, manifest, warnings) = s.world.backup(&s.world.open(n), s.folder.path());
                assert!(warnings.iter().any(|w| w.contains(&name)), "{warnings:?}");
                assert!(manifest.summary.new_bytes > 130_000, "stored again, whatever the plan may say");
                comes_back(&s.world, &id, &s.files, &s.folder);
            }
            let after = s.world.names("");
            assert!(before.iter().all(|n| after.contains(n)), "something was deleted");
            comes_back(&s.world, &s.id, &s.files, &s.folder);
        }
        s.world.store.delete(&name).unwrap();
    }
    // Once it is taken away, what is stored counts again.
    let (_, manifest, warnings) = s.world.backup(&s.world.open(FULL), s.folder.path());
    // But for the folders above, which other programs change.
    assert!(manifest.summary.new_bytes < 1000 && warnings.is_empty(), "{warnings:?}");
}

#[test]
fn a_tombstone_over_a_live_snapshot_is_damage_unless_a_full_key_signed_it_for_that_name() {
    let s = scene();
    let repo = s.world.open(FULL);
    // One that a full key signed, for another snapshot.
    let grave = Tombstone { time: s.world.clock.now(), why: "forgotten".into() };
    let elsewhere = repo.names().snapshot(&SnapshotId([9; 16]));
    s.world.write(&repo, ObjectType::Tombstone, &elsewhere, &s.world.signing(&repo, FULL), &grave.encode());
    let genuine = s.world.store.read(&elsewhere, 1 << 20).unwrap();
    let name = repo.names().snapshot(&s.id);
    for forged in [closed(ObjectType::Tombstone, &[7; 200]), closed(ObjectType::Tombstone, b""), genuine] {
        s.world.store.write(&name, forged).unwrap();
        let listing = snapshot::list(&s.world.open(FULL)).unwrap();
        assert_eq!(listing.damaged.len(), 1, "said to be damaged, not forgotten");
        assert!(listing.damaged[0].0 == s.id && listing.damaged[0].1.to_string().contains(&name));
        // The next backup rests on no word of it.
        let (id, ..) = s.world.backup(&s.world.open(FULL), s.folder.path());
        comes_back(&s.world, &id, &s.files, &s.folder);
    }
}

#[test]
fn whatever_is_put_under_the_name_of_a_coming_snapshot_is_an_error_and_never_silence() {
    let s = scene();
    for n in [FULL, WRITER] {
        let victim = s.world.open(n);
        let session = Session::begin(&victim, "db1").unwrap();
        let id = session.id();
        // Its name shows in the session's object. Replaying another snapshot there makes none of it.
        let other = s.whole[&victim.names().snapshot(&s.id)].clone();
        s.world.store.write(&victim.names().snapshot(&id), other).unwrap();
        let refused = session.commit(&crate::world::manifest());
        assert!(refused.is_err_and(|e| e.to_string().contains(&id.to_string())));
        assert!(s.world.open(FULL).snapshot(&id).is_err());
        // Run again, it is there.
        let (id, ..) = s.world.backup(&victim, s.folder.path());
        comes_back(&s.world, &id, &s.files, &s.folder);
    }
}

#[test]
fn a_backup_notices_a_pack_that_was_cut_short_and_stores_it_again() {
    let s = scene();
    for name in s.whole.keys().filter(|n| n.contains("/packs/")) {
        s.world.show(&s.whole);
        let object = &s.whole[name];
        for forged in
            [object.slice(..object.len() - 1), Bytes::from_static(b"x"), [&object[..], b"more"].concat().into()]
        {
            s.world.store.write(name, forged).unwrap();
            for n in [FULL, WRITER] {
                let (id, ..) = s.world.backup(&s.world.open(n), s.folder.path());
                comes_back(&s.world, &id, &s.files, &s.folder);
            }
            s.world.show(&s.whole);
        }
    }
}

/// A store that lists what there is in another order, some of it twice, and litter among it.
struct Disorderly(Arc<crate::world::Fateful>);

impl Store for Disorderly {
    fn describe(&self) -> String {
        "a disorderly store".into()
    }
    fn create(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        self.0.create(name, data)
    }
    fn write(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        self.0.write(name, data)
    }
    fn read(&self, name: &str, max: u64) -> Result<Bytes, StoreError> {
        self.0.read(name, max)
    }
    fn read_range(&self, name: &str, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        self.0.read_range(name, offset, len)
    }
    fn size(&self, name: &str) -> Result<u64, StoreError> {
        self.0.size(name)
    }
    fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        let mut listed = self.0.list(folder)?;
        listed.reverse();
        let twice: Vec<Listed> = listed.iter().step_by(2).cloned().collect();
        listed.extend(twice);
        if let Some(first) = listed.first().cloned() {
            listed.push(Listed { name: format!("{folder}/litter"), ..first.clone() });
            listed.push(Listed { name: format!("{folder}/\u{202e}../x"), size: u64::MAX, ..first });
        }
        Ok(listed)
    }
    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.0.delete(name)
    }
}

#[test]
fn a_listing_in_another_order_or_with_litter_changes_nothing() {
    let s = scene();
    let open = |n| {
        let store: Arc<dyn Store> = Arc::new(Disorderly(Arc::clone(&s.world.store)));
        let clock: Arc<dyn Clock> = Arc::<crate::world::Hand>::clone(&s.world.clock);
        let credential = estrato::crypto::slot::Credential::KeyFile(key(n));
        Repository::open(Access { store, clock, tenant: "default".into(), credential, cache: None }).unwrap()
    };
    let ordered: Vec<SnapshotId> =
        snapshot::list(&s.world.open(FULL)).unwrap().snapshots.iter().map(|s| s.id).collect();
    let mut listed: Vec<SnapshotId> = snapshot::list(&open(FULL)).unwrap().snapshots.iter().map(|s| s.id).collect();
    listed.dedup();
    assert_eq!(listed, ordered);
    for n in [FULL, WRITER] {
        let (id, manifest, _) = s.world.backup(&open(n), s.folder.path());
        assert!(manifest.summary.new_bytes < 1000, "but for the folders above, which other programs change");
        s.world.restores(&open(FULL), &id, &s.files, s.folder.path());
    }
}
