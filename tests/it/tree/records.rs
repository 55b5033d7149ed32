//! CBOR of death in every kind of record, through the commands that read it: nested as deep as the
//! bytes allow, lengths that no memory holds, items without an end.

use super::child::{MIB, watch};
use super::hostile::{Hostile, folder, manifest, with_content};
use crate::support::Place;
use estrato::crypto::aead::Sealer;
use estrato::crypto::sign::Place as Signed;
use estrato::crypto::slot;
use estrato::format::content::{Content, Extent};
use estrato::format::header::{self, ObjectType, associated_data, ordinal};
use estrato::format::index::{IndexObject, PackEntry};
use estrato::format::pack::{BlobKind, Codec, Directory, Frame, StorageClass, Trailer};
use estrato::id::{PackName, SnapshotId};

const MOST: u64 = 250 * MIB;
const DEEP: usize = 100_000;

/// Items that end a careless decoder; those that go on do so this often.
fn items(often: usize) -> Vec<Vec<u8>> {
    let claim = |first: u8, n: u64| [&[first][..], &n.to_be_bytes()].concat();
    let again = |item: &[u8]| item.repeat(often);
    vec![
        again(&[0x81]),
        again(&[0x82, 0x00]),
        again(&[0xa1, 0x00]),
        again(&[0xc1]),
        again(&[0x9f]),
        again(&[0xbf, 0x00]),
        again(&[0x82, 0x9f]),
        [&[0x5f][..], &again(&[0x41, 0x00])].concat(),
        [&[0x7f][..], &again(&[0x60])].concat(),
        [&[0x9f][..], &again(&[0x00])].concat(),
        claim(0x5b, 1 << 60),
        claim(0x7b, 1 << 60),
        claim(0x9b, 1 << 60),
        claim(0xbb, 1 << 60),
        claim(0x9b, u64::MAX),
        claim(0xbb, u64::MAX),
        [claim(0x9b, 1 << 60), again(&[0x80])].concat(),
        claim(0xdb, u64::MAX),
        vec![0xff],
        vec![0x1c],
        Vec::new(),
    ]
}

/// Records of each item: by itself, as a field that the reader knows, as one that it does not.
fn records() -> Vec<Vec<u8>> {
    let mut records = items(DEEP);
    records.extend(items(DEEP).into_iter().map(|item| [&[0xa1, 0x18, 0x64][..], &item].concat()));
    for key in 0..=17u8 {
        for item in items(DEEP / 50).into_iter().skip(usize::from(key) % 4).step_by(4) {
            records.push([&[0xa1, key][..], &item].concat());
        }
    }
    records
}

/// Some of each sort: where each needs programs of its own.
fn some() -> impl Iterator<Item = Vec<u8>> {
    records().into_iter().step_by(13)
}

#[test]
fn snapshots_and_tombstones_of_death_are_damaged() {
    let world = Hostile::new();
    let root = world.tree(&[world.file("good", b"good")]);
    world.snapshot(root);
    let signing = world.signing();
    let records = records();
    for (n, record) in records.iter().enumerate() {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&(n as u64).to_be_bytes());
        world.snapshot_of(SnapshotId(id), record);
        id[15] = 1;
        let name = world.repo.names().snapshot(&SnapshotId(id));
        let header = world.header(ObjectType::Tombstone);
        world.write(&name, world.repo.realm().seal_shared(header, Some(&name), &signing, record).unwrap());
    }
    let ran = watch(&mut world.place.command(&["snapshots"])).expect(4, MOST);
    assert_eq!(ran.stderr().matches("is damaged").count(), 2 * records.len());
    watch(&mut world.place.command(&["check"])).expect(4, MOST);
    watch(&mut world.place.command(&["restore", "latest", "--target", "target", "--numeric-owner"])).expect(0, MOST);
    assert_eq!(std::fs::read(world.place.path("target/good")).unwrap(), b"good");
}

#[test]
fn trees_and_lists_of_death_cost_their_entries() {
    let world = Hostile::new();
    let mut root = Vec::new();
    for (n, record) in records().iter().enumerate() {
        // A node in a segment, and the segment itself.
        let node = [&[0x81][..], record].concat();
        for (kind, bytes) in [("node", &node), ("segment", record)] {
            let content = Content { level: 0, extents: vec![world.segment(bytes)] };
            root.push(folder(format!("{kind} {n:04}"), content));
        }
        let list = Extent { id: Some(world.put(BlobKind::List, record)), len: 5 };
        root.push(with_content(format!("list {n:04}"), Content { level: 1, extents: vec![list] }));
    }
    root.push(world.file("z good", b"good"));
    root.sort_by(|a, b| a.name.cmp(&b.name));
    let segments: Vec<Extent> = root.chunks(100).map(|nodes| world.nodes(nodes)).collect();
    world.snapshot(Content { level: 0, extents: segments });
    for (arguments, code) in [
        (&["restore", "latest", "--target", "target", "--numeric-owner"][..], 1),
        (&["ls", "-R", "latest"], 4),
        (&["check"], 4),
    ] {
        watch(&mut world.place.command(arguments)).expect(code, MOST);
    }
    assert_eq!(std::fs::read(world.place.path("target/z good")).unwrap(), b"good");
}

#[test]
fn index_objects_and_plans_of_death_are_told_and_passed_over() {
    let world = Hostile::new();
    world.snapshot(world.tree(&[world.file("good", b"good")]));
    let (signing, records) = (world.signing(), records());
    for (n, record) in records.iter().enumerate() {
        world.index_of(&zstd::bulk::compress(record, 1).unwrap());
        // An entry of a pack, and its directory.
        world.index_of(&zstd::bulk::compress(&[&[0xa1, 0x00, 0x81][..], record].concat(), 1).unwrap());
        for (object, name) in [
            (ObjectType::Plan, world.repo.names().plan(n as u64 + 1)),
            (ObjectType::Session, world.repo.names().session(&SnapshotId([n as u8; 16]))),
        ] {
            let sealed = world.repo.realm().seal_shared(world.header(object), Some(&name), &signing, record).unwrap();
            world.write(&name, sealed);
        }
    }
    let ran = watch(&mut world.place.command(&["check"])).expect(4, MOST);
    assert!(!ran.stdout().is_empty());
    watch(&mut world.place.command(&["snapshot", "key", "--quiet"])).expect(0, MOST);
    let good = ["restore", "ababab", "--target", "target", "--numeric-owner"];
    watch(&mut world.place.command(&good)).expect(0, MOST);
    assert_eq!(std::fs::read(world.place.path("target/good")).unwrap(), b"good");
}

/// A pack whose directory is these bytes; the index says that it has a frame.
fn pack_of(world: &Hostile, directory: &[u8]) -> PackEntry {
    let header = world.header(ObjectType::Pack);
    let (key, head) = world.repo.realm().new_data_key(header, None, &world.public).unwrap();
    let sealer = Sealer::new(header.cipher, &key);
    let aad = |ordinal| associated_data(header, world.repo.tenant(), ordinal, None);
    let mut bytes = [&header.encode()[..], &head].concat();
    let put = |ordinal: u64, plain: &[u8], bytes: &mut Vec<u8>| {
        let start = bytes.len();
        bytes.extend_from_slice(plain);
        sealer.seal(ordinal, &aad(ordinal), bytes, start);
    };
    put(0, b"hello", &mut bytes);
    put(ordinal::DIRECTORY, directory, &mut bytes);
    let trailer = Trailer { directory: directory.len() as u64 + 16, parity: 0 };
    put(ordinal::TRAILER, &trailer.encode(), &mut bytes);
    let name = PackName(header::close(&mut bytes));
    let size = bytes.len() as u64;
    world.write(&world.repo.names().pack(&name), bytes);
    let id = world.repo.id_keys().blob_id(BlobKind::Chunk, b"hello");
    let (lens, ids) = (vec![5], vec![id]);
    let frame =
        Frame { stored: 21, codec: Codec::Raw, kind: BlobKind::Chunk, depth: 0, bases: Vec::new(), lens, ids };
    PackEntry { name, size, directory: Directory { class: StorageClass::Data, frames: vec![frame] } }
}

#[test]
fn directories_of_death_are_damage_and_their_frames_still_open() {
    let world = Hostile::new();
    let packs: Vec<PackEntry> = records()
        .iter()
        .map(|record| pack_of(&world, record))
        // The list of frames, and a frame in it.
        .chain(some().map(|record| pack_of(&world, &[&[0xa2, 0x00, 0x00, 0x01][..], &record].concat())))
        .chain(some().map(|record| pack_of(&world, &[&[0xa2, 0x00, 0x00, 0x01, 0x81][..], &record].concat())))
        .collect();
    let count = packs.len();
    world.index(&IndexObject { packs, ..IndexObject::default() });
    let hello = Extent { id: Some(world.repo.id_keys().blob_id(BlobKind::Chunk, b"hello")), len: 5 };
    let content = Content { level: 0, extents: vec![hello] };
    world.snapshot(world.tree(&[with_content("hello", content)]));
    let ran = watch(&mut world.place.command(&["check", "--read-data", "--json"])).expect(4, MOST);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout()).unwrap();
    assert!(report.to_string().contains("packs/"), "{report}");
    assert!(count > 120, "{count}");
    watch(&mut world.place.command(&["restore", "latest", "--target", "target", "--numeric-owner"])).expect(0, MOST);
    assert_eq!(std::fs::read(world.place.path("target/hello")).unwrap(), b"hello");
}

/// Runs commands on a repository of which one object is bad: they are refused, or what is left is read
/// and nothing written.
fn refused(place: &Place) {
    for arguments in [&["snapshots"][..], &["snapshot", "key"], &["restore", "latest", "--target", "target"]] {
        let ran = watch(&mut place.command(arguments));
        let code = ran.output.status.code();
        let (told, reads) = (ran.stderr(), arguments[0] != "snapshot");
        assert!(matches!(code, Some(1 | 12)) || code == Some(0) && reads, "{arguments:?}: {code:?} {told}");
        ran.expect(code.unwrap(), MOST);
        let salvaged = told.starts_with("warning: ") && told.contains("nothing is written");
        assert!((told.starts_with("estrato: ") || salvaged) && told.len() < 1000, "{told}");
    }
}

#[test]
fn slots_signers_and_tenants_of_death_are_refused() {
    let world = Hostile::new();
    world.snapshot(world.tree(&[world.file("good", b"good")]));
    let names = world.repo.names();
    let slot = names.slot(&slot::key_file_slots(&super::hostile::key_file(&world.place), world.repo.tenant())[0]);
    let closed = |object: ObjectType, body: &[u8]| {
        let mut bytes = [&world.header(object).encode()[..], body].concat();
        header::close(&mut bytes);
        bytes
    };
    for (n, record) in some().enumerate() {
        let signing = world.tenant_signing();
        let signers = names.signers(2);
        let list = || {
            let header = world.header(ObjectType::Signers);
            world.repo.realm().seal_shared(header, Some(&signers), &signing, &record).unwrap()
        };
        let tenant = || {
            let head = world.header(ObjectType::Tenant).encode();
            let tenant = world.repo.tenant();
            let place = Signed { object: ObjectType::Tenant, tenant, fresh: &head, name: None };
            closed(ObjectType::Tenant, &[&record[..], &signing.sign(&place, &record)].concat())
        };
        let (name, bytes) = match n % 3 {
            0 => (slot.clone(), closed(ObjectType::Slot, &record)),
            1 => (signers.clone(), list()),
            _ => (names.tenant(), tenant()),
        };
        let before = world.repo.store().read(&name, 1 << 20).ok();
        world.write(&name, bytes);
        refused(&world.place);
        match before {
            Some(before) => world.write(&name, before.to_vec()),
            None => world.repo.store().delete(&name).unwrap(),
        }
    }
    world.restore(&[]).expect_code(0);
}

#[test]
fn a_repository_record_of_death_is_refused() {
    let world = Hostile::new();
    let id = world.repo.id().to_string();
    for text in [
        "[".repeat(60_000),
        "{\"a\":".repeat(10_000),
        format!("{{\"estrato\": 0, \"repository\": {}}}", "[".repeat(60_000)),
        format!("{{\"estrato\": {}, \"repository\": \"{id}\"}}", "9".repeat(60_000)),
        format!("{{\"estrato\": 1e400, \"repository\": \"{id}\"}}"),
        format!("{{\"estrato\": -1, \"repository\": \"{id}\"}}"),
        "\u{0}".repeat(65_536),
        " ".repeat(10_000_000),
    ] {
        world.write("repo.json", text.into_bytes());
        refused(&world.place);
    }
}

#[test]
fn a_manifest_that_says_too_much_is_refused_or_shown_in_bounds() {
    let world = Hostile::new();
    let root = world.tree(&[world.file("good", b"good")]);
    let mut loud = manifest(root.clone());
    loud.host = "\u{1b}[2J\u{202e}host\u{061c}\n".into();
    loud.tags = vec!["\r\u{7}tag\u{2028}".into(); 4000];
    loud.paths = vec![b"\x1b]0;title\x07\xff".to_vec(); 100];
    loud.summary.total.bytes = u64::MAX;
    loud.summary.total.entries = u64::MAX;
    world.snapshot(root);
    std::fs::remove_file(&world.place.objects("snapshots")[0]).unwrap();
    world.snapshot_of(SnapshotId([0xab; 16]), &loud.encode());
    for arguments in [&["snapshots"][..], &["ls", "latest"], &["restore", "latest", "--target", "target"]] {
        let ran = watch(&mut world.place.command(arguments)).expect(0, MOST);
        let told = ran.stdout() + &ran.stderr();
        let bad = told.chars().find(|c| c.is_control() && *c != '\n' || "\u{202e}\u{061c}\u{2028}".contains(*c));
        assert_eq!(bad, None, "{arguments:?}");
    }
}
