//! A stolen writer key with access to the store: everything that it can seal and sign.

use super::{Folder, MALLORY, comes_back, with_mallory};
use crate::support::noise;
use crate::world::{FULL, WRITER, World, key, manifest, put};
use estrato::crypto::hpke::{PrivateKey, PublicKey};
use estrato::error::Error;
use estrato::format::header::{self, ObjectType};
use estrato::format::index::{IndexObject, PackEntry, Vouched};
use estrato::format::key::Role;
use estrato::format::manifest::SnapshotKind;
use estrato::format::names::last_part;
use estrato::format::pack::{BlobKind, Codec, Directory, Frame, StorageClass};
use estrato::format::records::{SessionRecord, TenantRecord};
use estrato::id::{IndexName, PackName, SignerId};
use estrato::maintenance::{self, Depth, Report};
use estrato::monitor::Silent;
use estrato::pack::{Compressor, PackBuilder, PlainFrame};
use estrato::repo::{NewKey, Repository, Secret, Session};
use estrato::snapshot::{self, Filter};
use estrato::store::Store;
use std::path::Path;

/// The entries of all index objects that this signer wrote.
fn entries(world: &World, signer: &SignerId) -> Vec<PackEntry> {
    let repo = world.open(FULL);
    let mut found = Vec::new();
    for name in world.names(&repo.names().indexes()) {
        let (by, object) = repo.read_index(&last_part(&name).parse().unwrap()).unwrap();
        if by == *signer {
            found.extend(object.packs);
        }
    }
    found
}

/// What a key's next backup of the folder will put into the index: another repository with the same
/// objects tells, as would any good guess of the content.
fn foretell(world: &World, n: u8, folder: &Folder) -> Vec<PackEntry> {
    let twin = world.twin();
    let victim = twin.open(n);
    let before = entries(&twin, &victim.signer());
    twin.backup(&victim, folder.path());
    let after = entries(&twin, &victim.signer());
    let new: Vec<PackEntry> = after.into_iter().filter(|e| !before.contains(e)).collect();
    assert!(!new.is_empty(), "there is something to forge");
    new
}

pub(super) fn public_key(world: &World) -> PublicKey {
    let bytes = world.store.read("tenants/default/tenant", 1 << 20).unwrap();
    let body = &header::opened(&bytes).unwrap()[header::HEADER_LEN..];
    PublicKey::from_bytes(&TenantRecord::decode(&body[..body.len() - 64]).unwrap().public_key).unwrap()
}

/// A pack that opens, and holds something else for every id.
fn garbage_pack(world: &World, mallory: &Repository, entry: &PackEntry) -> PackEntry {
    let class = entry.directory.class;
    let mut builder = PackBuilder::new(&mallory.realm(), mallory.cipher(), class, &public_key(world)).unwrap();
    let mut compressor = Compressor::new(1).unwrap();
    for frame in &entry.directory.frames {
        let mut plain = PlainFrame::new(frame.kind);
        for (id, len) in frame.ids.iter().zip(&frame.lens) {
            plain.push(*id, &noise("garbage", *len as usize));
        }
        builder.push(compressor.encode(plain).unwrap().0).unwrap();
    }
    let finished = builder.finish().unwrap();
    world.store.write(&mallory.names().pack(&finished.entry.name), finished.bytes.into()).unwrap();
    finished.entry
}

/// Publishes, signed with the stolen key, that the blobs of these entries are where they are not: in
/// packs that do not exist, in noise, in packs that open and hold something else, in other places of
/// honest packs, in other lengths, in packs of another size.
fn poison(world: &World, mallory: &Repository, next: &[PackEntry]) {
    let signing = world.signing(mallory, MALLORY);
    let honest = mallory.list_packs().unwrap();
    let superseded: Vec<IndexName> =
        world.names(&mallory.names().indexes()).iter().map(|n| last_part(n).parse().unwrap()).collect();
    let mut packs = Vec::new();
    for (n, entry) in next.iter().enumerate() {
        packs.push(PackEntry { name: PackName([0xf0 + n as u8; 32]), ..entry.clone() });
        let mut bytes = noise("noise", usize::try_from(entry.size).unwrap() - 32);
        let name = PackName(header::close(&mut bytes));
        world.store.write(&mallory.names().pack(&name), bytes.into()).unwrap();
        packs.push(PackEntry { name, ..entry.clone() });
        packs.push(garbage_pack(world, mallory, entry));
        for id in entry.directory.frames.iter().flat_map(|f| &f.ids) {
            for (name, size) in &honest {
                let frame = Frame {
                    stored: 20,
                    codec: Codec::Raw,
                    kind: BlobKind::Chunk,
                    depth: 0,
                    bases: Vec::new(),
                    lens: vec![4],
                    ids: vec![*id],
                };
                let directory = Directory { class: StorageClass::Data, frames: vec![frame] };
                packs.push(PackEntry { name: *name, size: *size, directory: directory.clone() });
                packs.push(PackEntry { name: *name, size: size + 1, directory });
            }
        }
    }
    // And that it vouches for all of it, in place of what was there.
    let mut vouched = Vec::new();
    for packs in packs.chunks(7) {
        let index = world.index(mallory, &IndexObject { packs: packs.to_vec(), ..IndexObject::default() }, &signing);
        vouched.extend(packs.iter().map(|pack| Vouched { index, pack: pack.name }));
    }
    world.index(mallory, &IndexObject { supersedes: superseded, vouched, ..IndexObject::default() }, &signing);
}

/// A full key on a machine that took in the forged entries before any honest one came.
fn first_to_see(world: &World, machine: &Path) -> Repository {
    let watcher = world.open_with(FULL, Some(machine.into()));
    assert_eq!(watcher.sync_index().unwrap().len(), 0, "what it signs is read");
    watcher
}

/// Checks all data: garbage is told with the signer's name, and no snapshot is said to need it.
#[track_caller]
fn only_mallory_is_blamed(repo: &Repository) -> Report {
    let report = maintenance::check(repo, Depth::AllData, &Silent).unwrap();
    assert!(!report.damage.is_empty());
    for damage in &report.damage {
        assert_eq!(damage.indexed_by, ["mallory"], "{damage:?}");
        assert!(damage.needed_by.is_empty(), "{damage:?}");
    }
    for why in ["missing", "holds something else", "bytes, not"] {
        assert!(report.damage.iter().any(|d| d.why.join("; ").contains(why)), "{why}: {:?}", report.damage);
    }
    report
}

#[test]
fn entries_for_the_next_blobs_of_another_writer_are_garbage_to_nobody_but_their_signer() {
    for notes in [false, true] {
        let world = with_mallory();
        let (folder, machine, seen) = (Folder::new(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mallory = world.open(MALLORY);
        let open = || world.open_with(WRITER, notes.then(|| machine.path().into()));
        let (first, ..) = world.backup(&open(), folder.path());
        let files = folder.files();
        folder.write("a/next", &noise("next", 60_000));
        let next = foretell(&world, WRITER, &folder);
        poison(&world, &mallory, &next);
        let watcher = first_to_see(&world, seen.path());

        let (id, manifest, _) = world.backup(&open(), folder.path());
        assert!(manifest.summary.new_bytes >= 60_000, "stored, whatever anybody says");
        for repo in [&world.open(FULL), &watcher] {
            world.restores(repo, &id, &folder.files(), folder.path());
            world.restores(repo, &first, &files, folder.path());
            only_mallory_is_blamed(repo);
        }
        // What is honest is still known to its own writer.
        // But for the folders above, which other programs change.
        assert!(world.backup(&open(), folder.path()).1.summary.new_bytes < 1000);
    }
}

#[test]
fn entries_that_give_a_blob_another_length_hide_no_right_one() {
    let world = with_mallory();
    let (folder, seen) = (Folder::new(), tempfile::tempdir().unwrap());
    let next = foretell(&world, FULL, &folder);
    // One byte shorter each, and the frame otherwise as it will be.
    let shorter = |mut entry: PackEntry| {
        entry.name = PackName([0xf0; 32]);
        for len in entry.directory.frames.iter_mut().flat_map(|f| &mut f.lens) {
            *len -= 1;
        }
        entry.directory.frames.iter_mut().for_each(|f| f.codec = Codec::Zstd);
        entry
    };
    let mallory = world.open(MALLORY);
    let packs = next.into_iter().map(shorter).collect();
    world.index(&mallory, &IndexObject { packs, ..IndexObject::default() }, &world.signing(&mallory, MALLORY));
    let watcher = first_to_see(&world, seen.path());
    let (id, ..) = world.backup(&world.open(FULL), folder.path());
    world.restores(&watcher, &id, &folder.files(), folder.path());
    comes_back(&world, &id, &folder.files(), &folder);
}

#[test]
fn entries_for_the_next_blobs_of_a_full_key_with_notes_are_not_relied_on() {
    let world = with_mallory();
    let (folder, machine, seen) = (Folder::new(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let open = || world.open_with(FULL, Some(machine.path().into()));
    let (first, ..) = world.backup(&open(), folder.path());
    folder.write("a/next", &noise("next", 60_000));
    let next = foretell(&world, FULL, &folder);
    poison(&world, &world.open(MALLORY), &next);
    let watcher = first_to_see(&world, seen.path());
    let (id, manifest, _) = world.backup(&open(), folder.path());
    assert_eq!((manifest.base, manifest.summary.read_bytes), (Some(first), 60_000), "its notes hold");
    assert!(manifest.summary.new_bytes >= 60_000);
    for repo in [&world.open(FULL), &watcher, &open()] {
        world.restores(repo, &id, &folder.files(), folder.path());
        only_mallory_is_blamed(repo);
    }
}

#[test]
fn a_full_key_without_notes_takes_nothing_unread_on_a_stolen_keys_word() {
    // A fresh machine; one whose notes rest on index objects that are gone; one that lost its notes only.
    for case in ["fresh", "kept", "lost"] {
        let world = with_mallory();
        let (folder, machine) = (Folder::new(), tempfile::tempdir().unwrap());
        let cache = || (case != "fresh").then(|| machine.path().to_path_buf());
        let full = world.open_with(FULL, cache());
        let (first, ..) = world.backup(&full, folder.path());
        let honest = entries(&world, &full.signer());
        drop(full);
        if case == "lost" {
            std::fs::remove_dir_all(machine.path()).unwrap();
        }
        // The credentials beside the key take the honest index away, and the key says where everything
        // is: the trees where they are, so that they can be read, and the files in garbage.
        for name in world.names("tenants/default/index") {
            world.store.delete(&name).unwrap();
        }
        let mallory = world.open(MALLORY);
        let (trees, data): (Vec<PackEntry>, Vec<PackEntry>) =
            honest.into_iter().partition(|e| e.directory.class == StorageClass::Trees);
        poison(&world, &mallory, &data);
        let signing = world.signing(&mallory, MALLORY);
        world.index(&mallory, &IndexObject { packs: trees, ..IndexObject::default() }, &signing);

        let victim = world.open_with(FULL, cache());
        let (id, manifest, _) = world.backup(&victim, folder.path());
        let summary = manifest.summary;
        assert_eq!(summary.read_bytes, 130_005, "{case}: nothing is taken unread");
        assert!(summary.new_bytes > 130_000, "{case}: nor counts as stored: {summary:?}");
        for id in [id, first] {
            comes_back(&world, &id, &folder.files(), &folder);
        }
        only_mallory_is_blamed(&world.open(FULL));
    }
}

#[test]
fn a_snapshot_by_a_stolen_key_with_the_victims_host_and_paths_is_nobodys_base() {
    let world = with_mallory();
    let folder = Folder::new();
    let mallory = world.open(MALLORY);
    let claim = |seconds: i64, like: &estrato::format::manifest::Manifest| {
        let mut forged = like.clone();
        forged.time.seconds = seconds;
        forged.kind = SnapshotKind::Full;
        let session = Session::begin(&mallory, &forged.host).unwrap();
        put(&session, &[noise("forged", 1000)]).unwrap();
        session.commit(&forged).unwrap()
    };
    let (_, like, _) = world.backup(&mallory, folder.path());
    assert_eq!((&*like.host, like.source_kind), ("database-host", estrato::format::manifest::SourceKind::Files));
    // Nobody else has taken one: there is no base.
    let (first, manifest, _) = world.backup(&world.open(FULL), folder.path());
    assert_eq!((manifest.base, manifest.kind), (None, SnapshotKind::Full));
    assert!(manifest.summary.new_bytes > 130_000);
    // Newer than the victim's, and older, and of the year 2100.
    for seconds in [like.time.seconds + 3600, 0, 4_102_444_800] {
        claim(seconds, &like);
        for n in [FULL, WRITER] {
            let (id, manifest, _) = world.backup(&world.open(n), folder.path());
            let listing = snapshot::list(&world.open(FULL)).unwrap();
            let base = manifest.base.map(|b| listing.snapshots.iter().find(|s| s.id == b).unwrap().signer);
            let expected = (n == FULL).then(|| world.open(FULL).signer());
            assert_eq!(base, expected, "its own, or none: a writer without notes has none");
            comes_back(&world, &id, &folder.files(), &folder);
        }
    }
    comes_back(&world, &first, &folder.files(), &folder);
}

#[test]
fn a_snapshot_object_replaced_by_a_stolen_keys_shows_who_signed_it_and_is_nobodys_base() {
    let world = with_mallory();
    let (folder, machine) = (Folder::new(), tempfile::tempdir().unwrap());
    let open = || world.open_with(FULL, Some(machine.path().into()));
    let (id, like, _) = world.backup(&open(), folder.path());
    let name = open().names().snapshot(&id);
    let mallory = world.open(MALLORY);
    let header = header::Header { object: ObjectType::Snapshot, cipher: mallory.cipher() };
    let mut forged = like.clone();
    forged.root = manifest().root;
    let signing = world.signing(&mallory, MALLORY);
    let sealed =
        mallory.realm().seal_private(header, &name, &signing, &public_key(&world), &forged.encode()).unwrap();
    world.store.write(&name, sealed.into()).unwrap();
    let full = world.open(FULL);
    let mut listing = snapshot::list(&full).unwrap();
    let shown = listing.choose("latest", &Filter::default()).unwrap();
    assert_eq!((shown.id, &*full.signer_label(&shown.signer)), (id, "mallory"));
    // With notes and without: what is taken next is whole.
    for repo in [open(), world.open(FULL), world.open(WRITER)] {
        let (next, ..) = world.backup(&repo, folder.path());
        comes_back(&world, &next, &folder.files(), &folder);
    }
}

#[test]
fn another_writers_session_object_overwritten_or_deleted_stops_no_snapshot() {
    let world = with_mallory();
    let folder = Folder::new();
    let mallory = world.open(MALLORY);
    for n in [FULL, WRITER] {
        let victim = world.open(n);
        for deleted in [false, true] {
            let session = Session::begin(&victim, "db1").unwrap();
            let name = victim.names().session(&session.id());
            let record = SessionRecord {
                owner: [6; 16],
                started: estrato::clock::Timestamp::default(),
                host: "db1".into(),
                pid: 1,
                seen: u64::MAX,
                renewed: 0,
            };
            world.write(&mallory, ObjectType::Session, &name, &world.signing(&mallory, MALLORY), &record.encode());
            if deleted {
                world.store.delete(&name).unwrap();
            }
            put(&session, &crate::world::BLOBS).unwrap();
            world.clock.forward(300);
            session.renew_if_due().unwrap();
            assert_eq!(crate::world::record(&victim, &session.id()).renewed, 1);
            let id = session.commit(&manifest()).unwrap();
            assert!(world.open(FULL).snapshot(&id).unwrap().manifest().is_some());
            assert!(world.names(&victim.names().sessions()).is_empty());
        }
        let (id, ..) = world.backup(&victim, folder.path());
        comes_back(&world, &id, &folder.files(), &folder);
    }
}

#[test]
fn a_stolen_writer_key_reads_no_snapshot_tree_or_chunk_not_even_its_own() {
    let world = with_mallory();
    let folder = Folder::new();
    let (victims, ..) = world.backup(&world.open(FULL), folder.path());
    let mallory = world.open(MALLORY);
    let (own, ..) = world.backup(&mallory, folder.path());
    mallory.sync_index().unwrap();
    let refused = |e: Option<Error>| assert!(matches!(e, Some(Error::NotAllowed { .. })), "{e:?}");
    for id in [victims, own] {
        refused(mallory.snapshot(&id).err());
    }
    refused(snapshot::list(&mallory).err());
    for entry in entries(&world, &mallory.signer()).iter().chain(&entries(&world, &world.open(FULL).signer())) {
        for frame in &entry.directory.frames {
            refused(mallory.blob(frame.kind, &frame.ids[0]).err());
        }
    }
    refused(world.open(MALLORY).add_key(&NewKey::full(Secret::KeyFile(key(MALLORY + 1)), "mine")).err());
    refused(world.open(MALLORY).remove_key("full").err());
    // None of the secrets that it holds is the tenant's private key.
    let bundle = world.bundle(&mallory, MALLORY);
    assert!(bundle.private_key.is_none() && bundle.tenant_seed.is_none() && bundle.role == Role::Writer);
    for secret in [bundle.id_key, bundle.signer_seed, *key(MALLORY).0, *key(MALLORY).recipient().0] {
        let (private, _) = PrivateKey::from_bytes(&secret).unwrap();
        let name = mallory.names().snapshot(&own);
        let bytes = world.store.read(&name, 1 << 20).unwrap();
        assert!(mallory.realm().open_private(ObjectType::Snapshot, &name, &private, &bytes).is_err());
    }
}

#[test]
fn what_a_stolen_writer_key_can_read_holds_no_names_and_no_content() {
    let world = with_mallory();
    let folder = Folder::new();
    folder.write("a/confidential-name", b"confidential content, long enough to be found");
    let mallory = world.open(MALLORY);
    let session = Session::begin(&world.open(FULL), "db1").unwrap().id();
    world.backup(&world.open(FULL), folder.path());
    let mut readable = Vec::new();
    for (name, bytes) in world.objects() {
        readable.extend_from_slice(name.as_bytes());
        readable.extend_from_slice(&bytes);
        for (object, bound) in
            [(ObjectType::Index, None), (ObjectType::Session, Some(&*name)), (ObjectType::Signers, Some(&*name))]
        {
            let Ok(opened) = mallory.realm().open_shared(object, bound, &name, &bytes) else { continue };
            let plain = zstd::bulk::decompress(&opened.payload, 1 << 20).unwrap_or(opened.payload);
            readable.extend_from_slice(&plain);
        }
    }
    let shows = |text: &str| readable.windows(text.len()).any(|w| w == text.as_bytes());
    assert!(shows("mallory") && shows("db1") && shows(&session.to_string()), "labels, hosts, sessions");
    for hidden in ["confidential", "patients", "notes", "images"] {
        assert!(!shows(hidden), "{hidden}");
    }
    assert!(!shows(folder.path().to_str().unwrap()));
}

#[test]
fn a_machine_whose_own_key_was_stolen_relies_on_nothing_of_it_once_it_has_a_new_one() {
    let world = with_mallory();
    let (folder, machine) = (Folder::new(), tempfile::tempdir().unwrap());
    // Here the victim is the machine that the key was stolen from: what its own key signs counts for it.
    let next = foretell(&world, MALLORY, &folder);
    poison(&world, &world.open(MALLORY), &next);
    let (lost, ..) = world.backup(&world.open_with(MALLORY, Some(machine.path().into())), folder.path());
    let restored = world.try_restore(&world.open(FULL), &lost, folder.path());
    assert!(restored.failures > 0, "it was fooled, and that is told");
    let report = maintenance::check(&world.open(FULL), Depth::AllData, &Silent).unwrap();
    let blamed =
        |d: &&maintenance::Damage| d.indexed_by == ["mallory"] && d.needed_by.contains_key(&lost.to_string());
    assert!(report.damage.iter().any(|d| blamed(&d)), "{:?}", report.damage);

    let mut full = world.open(FULL);
    full.remove_key("mallory").unwrap();
    let new = NewKey { role: Role::Writer, label: "new".into(), secret: Secret::KeyFile(key(MALLORY + 1)) };
    full.add_key(&new).unwrap();
    let (id, manifest, _) = world.backup(&world.open_with(MALLORY + 1, Some(machine.path().into())), folder.path());
    assert_eq!((manifest.base, manifest.summary.read_bytes), (None, 130_005));
    assert!(manifest.summary.new_bytes > 130_000);
    comes_back(&world, &id, &folder.files(), &folder);
}
