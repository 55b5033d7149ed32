//! Index objects that lie, and names that collide: ids that agree in their first bytes, packs whose
//! frames are elsewhere, entries without number.

use super::child::{MIB, watch};
use super::hostile::{Hostile, folder, manifest, with_content};
use crate::support::noise;
use estrato::format::content::{Content, Extent};
use estrato::format::index::{IndexObject, PackEntry};
use estrato::format::pack::{BlobKind, Codec, Directory, Frame, StorageClass};
use estrato::id::{BlobId, PackName, SnapshotId};
use estrato::limits;
use estrato::pack::EncodedFrame;

fn frame(ids: Vec<BlobId>, len: u32) -> Frame {
    let lens = vec![len; ids.len()];
    let stored = len * ids.len() as u32 + 16;
    Frame { stored, codec: Codec::Raw, kind: BlobKind::Chunk, depth: 0, bases: Vec::new(), lens, ids }
}

/// The entry of a pack that may not be there.
fn entry(name: u8, frames: Vec<Frame>) -> PackEntry {
    let class = frames.first().map_or(StorageClass::Data, |f| f.kind.class());
    let directory = Directory { class, frames };
    PackEntry { name: PackName([name; 32]), size: directory.frames_end() + 100, directory }
}

/// An id that agrees with another in its first eight bytes, by which the index on this machine finds it.
fn alike(id: &BlobId, n: u32) -> BlobId {
    let mut other = id.0;
    other[8..12].copy_from_slice(&n.to_le_bytes());
    BlobId(other)
}

fn restored(world: &Hostile, name: &str) -> Vec<u8> {
    std::fs::read(world.place.path("target").join(name)).unwrap()
}

#[test]
fn ids_that_agree_in_their_first_bytes_are_told_apart() {
    let world = Hostile::new();
    let data: Vec<Vec<u8>> = (0..20).map(|n| noise(&format!("{n}"), 1000)).collect();
    let files: Vec<_> = data.iter().enumerate().map(|(n, d)| world.file(format!("{n:02}"), d)).collect();
    let ids: Vec<BlobId> = files.iter().map(|f| f.content.extents[0].id.unwrap()).collect();
    // Packs that hold other blobs under the same eight bytes, before and after the true ones.
    let mut false_packs = Vec::new();
    for (n, id) in ids.iter().enumerate() {
        let ids = (1..4).map(|n| alike(id, n)).collect();
        let payload = noise(&format!("false {n}"), 3000);
        let encoded = EncodedFrame::plain(Codec::Raw, BlobKind::Chunk, payload, vec![1000; 3], ids);
        false_packs.push(world.pack(encoded));
    }
    let (before, after) = false_packs.split_at(10);
    world.index(&IndexObject { packs: before.to_vec(), ..IndexObject::default() });
    let root = world.tree(&files);
    // Names the true id too, for bytes that are not it: another copy must be taken.
    let lie = EncodedFrame::plain(Codec::Raw, BlobKind::Chunk, noise("lie", 1000), vec![1000], vec![ids[0]]);
    world.index(&IndexObject { packs: vec![world.pack(lie)], ..IndexObject::default() });
    world.snapshot(root);
    world.index(&IndexObject { packs: after.to_vec(), ..IndexObject::default() });
    watch(&mut world.place.command(&["restore", "latest", "--target", "target", "--numeric-owner", "--verify"]))
        .expect(0, 300 * MIB);
    for (n, data) in data.iter().enumerate() {
        assert!(restored(&world, &format!("{n:02}")) == *data, "{n}");
    }
    // What does not hash to its id is damage.
    watch(&mut world.place.command(&["check", "--read-data"])).expect(4, 300 * MIB);
}

#[test]
fn a_pack_of_ids_that_all_agree_does_not_make_a_look_up_a_search() {
    let world = Hostile::new();
    let root = world.tree(&[world.file("good", b"good")]);
    let first = root.extents[0].id.unwrap();
    let ids: Vec<BlobId> = (1..=limits::PACK_BLOBS_MAX as u32).map(|n| alike(&first, n)).collect();
    let frames = ids.chunks(limits::FRAME_BLOBS_MAX).map(|ids| frame(ids.to_vec(), 1)).collect();
    world.index(&IndexObject { packs: vec![entry(7, frames)], ..IndexObject::default() });
    world.snapshot(root);
    // The square of a quarter of a million is more than anyone waits for.
    watch(&mut world.place.command(&["restore", "latest", "--target", "target", "--numeric-owner"]))
        .expect(0, 400 * MIB);
    assert_eq!(restored(&world, "good"), b"good");
}

#[test]
fn frames_that_lie_elsewhere_or_nowhere_cost_their_files() {
    let world = Hostile::new();
    let plain = |n: u8| vec![n; 1000];
    let files: Vec<_> = (1..=6u8).map(|n| world.file(format!("{n}"), &plain(n))).collect();
    let ids: Vec<BlobId> = files.iter().map(|f| f.content.extents[0].id.unwrap()).collect();
    let pack = |ids: &[BlobId]| {
        let payload = noise("pack", 1000 * ids.len());
        let lens = vec![1000; ids.len()];
        world.pack(EncodedFrame::plain(Codec::Raw, BlobKind::Chunk, payload, lens, ids.to_vec()))
    };
    // Behind the end of the pack; over its directory; over its head: the lengths before it are wrong; all
    // blobs in one byte; a pack that is not there; a delta without a base that anyone knows.
    let mut beyond = pack(&ids[..1]);
    beyond.directory.frames = vec![frame(vec![BlobId([1; 32])], 1_000_000); 100];
    beyond.directory.frames.push(frame(vec![ids[0]], 1000));
    beyond.size = limits::PACK_MAX;
    let mut over = pack(&ids[1..2]);
    over.directory.frames[0] = frame(vec![ids[1]], 1200);
    over.size += 200;
    let mut shifted = pack(&ids[2..3]);
    shifted.directory.frames.insert(0, frame(vec![BlobId([2; 32])], 5));
    let missing = entry(3, vec![frame(vec![ids[3]], 1000)]);
    let mut delta = pack(&ids[4..5]);
    delta.directory.frames[0].depth = 9;
    delta.directory.frames[0].bases = vec![ids[4].base(), ids[5].base()];
    world.index(&IndexObject { packs: vec![beyond, over, shifted, missing, delta], ..IndexObject::default() });
    // Everything is there twice but the last: the true copies are found.
    world.snapshot(world.tree(&[&files[..], &[world.file("good", b"good")]].concat()));
    let arguments = ["restore", "latest", "--target", "target", "--numeric-owner"];
    watch(&mut world.place.command(&arguments)).expect(0, 300 * MIB);
    for n in 1..=6 {
        assert_eq!(restored(&world, &n.to_string()), plain(n), "{n}");
    }
    // Where there is no other copy the file is lost, and nothing else.
    let lost = BlobId([9; 32]);
    let mut alone = pack(&[lost]);
    alone.directory.frames.insert(0, frame(vec![BlobId([3; 32])], 900_000));
    alone.size += 1_000_000;
    world.index(&IndexObject { packs: vec![alone], ..IndexObject::default() });
    let content = Content { level: 0, extents: vec![Extent { id: Some(lost), len: 1000 }] };
    let root = world.tree(&[with_content("alone", content), world.file("good", b"good")]);
    world.publish();
    let newer = estrato::format::manifest::Manifest {
        time: estrato::clock::Timestamp { seconds: 1_800_000_000, nanos: 0 },
        ..manifest(root)
    };
    world.snapshot_of(SnapshotId([0xee; 16]), &newer.encode());
    let ran = watch(&mut world.place.command(&arguments)).expect(1, 300 * MIB);
    assert!(ran.stderr().contains("alone"), "{}", ran.stderr());
    watch(&mut world.place.command(&["check", "--read-data"])).expect(4, 300 * MIB);
}

/// An index object of as many entries as its bytes can say; returns how many.
fn swamp(world: &Hostile, packs: usize) -> usize {
    let frames: Vec<Frame> = vec![frame(vec![BlobId([5; 32])], 0); limits::PACK_FRAMES_MAX];
    let mut pack = Vec::new();
    entry(9, frames).write_to(&mut pack);
    let mut record = vec![0xa1, 0x00, 0x99];
    record.extend_from_slice(&u16::try_from(packs).unwrap().to_be_bytes());
    record.extend_from_slice(&pack.repeat(packs));
    assert!(record.len() <= limits::INDEX_PLAIN_MAX, "{}", record.len());
    world.index_of(&zstd::bulk::compress(&record, 1).unwrap());
    packs * limits::PACK_FRAMES_MAX
}

#[test]
fn an_index_object_of_nothing_but_entries_is_taken_in_within_bounds() {
    let world = Hostile::new();
    world.snapshot(world.tree(&[world.file("good", b"good")]));
    let long = std::env::var_os("ESTRATO_LONG_TESTS").is_some();
    let (packs, most) = if long { (40, 1500) } else { (5, 400) };
    swamp(&world, packs);
    // A thousand million blobs in one frame, one pack, one object: only said, not there.
    for claim in [&[0xa1, 0x00, 0x9a, 0x3b, 0x9a, 0xca, 0x00][..], &[0xa1, 0x00, 0x9b, 0xff, 0, 0, 0, 0, 0, 0, 0]] {
        world.index_of(&zstd::bulk::compress(claim, 1).unwrap());
    }
    let ran = watch(&mut world.place.command(&["restore", "latest", "--target", "target", "--numeric-owner"]))
        .expect(0, most * MIB);
    assert_eq!(ran.stderr().matches("is damaged").count(), 2, "{}", ran.stderr());
    assert_eq!(restored(&world, "good"), b"good");
}

#[test]
fn a_beginning_that_fits_several_snapshots_names_them() {
    let world = Hostile::new();
    let root = world.tree(&[world.file("a", b"a")]);
    world.publish();
    let alike = |n: u8| SnapshotId([0xab, 0xcd, n, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]);
    for n in 0..3 {
        world.snapshot_of(alike(n), &manifest(root.clone()).encode());
    }
    // One of them is damaged: it may be the one that is meant.
    world.snapshot_of(alike(9), b"no manifest");
    for arguments in [&["ls", "abcd"][..], &["restore", "ABCD", "--target", "target"]] {
        let ran = world.place.run(arguments).expect_code(2);
        for n in [0, 1, 2, 9] {
            assert!(ran.stderr().contains(&alike(n).to_string()), "{}", ran.stderr());
        }
    }
    world.place.run(&["ls", "abcd01"]).expect_code(0);
    let told = world.place.run(&["ls", "abcd09"]).expect_code(1).stderr();
    assert!(told.contains("is damaged"), "{told}");
    assert!(!world.place.path("target").exists());
}

#[test]
fn a_folder_of_folders_that_are_no_trees_is_listed_all_the_same() {
    let world = Hostile::new();
    // A chunk, a list and a missing blob where a tree should stand.
    let chunk = Content { level: 0, extents: vec![world.chunk(b"not a tree")] };
    let list = Content { level: 0, extents: vec![world.list(0, vec![world.chunk(b"x")])] };
    let none = Content { level: 0, extents: vec![Extent { id: None, len: 5 }] };
    let root = [folder("1", chunk), folder("2", list), folder("3", none), world.file("good", b"good")];
    world.snapshot(world.tree(&root));
    watch(&mut world.place.command(&["ls", "-R", "latest"])).expect(4, 300 * MIB);
    watch(&mut world.place.command(&["restore", "latest", "--target", "target", "--numeric-owner"]))
        .expect(1, 300 * MIB);
    assert_eq!(restored(&world, "good"), b"good");
}

#[test]
fn a_pack_that_two_index_objects_name_is_sound_twice() {
    let world = Hostile::new();
    let data: Vec<Vec<u8>> = (0..6).map(|n| noise(&format!("twice {n}"), 1000)).collect();
    let ids: Vec<BlobId> = data.iter().map(|d| world.repo.id_keys().blob_id(BlobKind::Chunk, d)).collect();
    let lens = vec![1000; ids.len()];
    let pack = world.pack(EncodedFrame::plain(Codec::Raw, BlobKind::Chunk, data.concat(), lens, ids.clone()));
    let other = world.pack(EncodedFrame::plain(
        Codec::Raw,
        BlobKind::Chunk,
        noise("o", 9),
        vec![9],
        vec![world.repo.id_keys().blob_id(BlobKind::Chunk, &noise("o", 9))],
    ));
    world.index(&IndexObject { packs: vec![pack.clone()], ..IndexObject::default() });
    world.index(&IndexObject { packs: vec![other, pack], ..IndexObject::default() });
    let file = |n: usize| {
        let extents = vec![Extent { id: Some(ids[n]), len: 1000 }];
        with_content(format!("{n}"), Content { level: 0, extents })
    };
    world.snapshot(world.tree(&(0..6).map(file).collect::<Vec<_>>()));
    watch(&mut world.place.command(&["check", "--read-data"])).expect(0, 300 * MIB);
    watch(&mut world.place.command(&["restore", "latest", "--target", "target", "--numeric-owner"]))
        .expect(0, 300 * MIB);
    assert!((0..6).all(|n| restored(&world, &format!("{n}")) == data[n]));
}
