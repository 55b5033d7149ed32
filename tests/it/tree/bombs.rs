//! Compression bombs: frames and index objects that unpack to far more than they say, or say that
//! they unpack to more than there is.

use super::child::{MIB, watch};
use super::hostile::{Hostile, folder, with_content};
use estrato::format::content::{Content, Extent};
use estrato::format::index::IndexObject;
use estrato::format::pack::{BlobKind, Codec};
use estrato::id::BlobId;
use estrato::limits;
use estrato::pack::EncodedFrame;
use std::io::{self, Read as _};

/// Less than what the smallest of the bombs unpacks to.
const MOST: u64 = 200 * MIB;

/// So many zeros, packed.
fn zeros(len: u64) -> Vec<u8> {
    let mut packed = Vec::new();
    zstd::stream::copy_encode(io::repeat(0).take(len), &mut packed, 1).unwrap();
    packed
}

/// A frame that says in its head how long it is, and that it needs the largest window there is.
fn claiming(len: u64) -> Vec<u8> {
    let one_byte_again_and_again = 0x10_0000 << 3 | 1 << 1 | 1;
    let mut packed = vec![0x28, 0xb5, 0x2f, 0xfd, 0xc0, 0xff];
    packed.extend_from_slice(&len.to_le_bytes());
    packed.extend_from_slice(&u32::to_le_bytes(one_byte_again_and_again)[..3]);
    packed.push(0);
    packed
}

#[test]
fn frames_that_unpack_to_more_than_they_say_cost_their_files() {
    let world = Hostile::new();
    let (short, full) = (100u32, limits::FRAME_PLAIN_MAX as u32);
    let payloads =
        [(zeros(256 * MIB), short), (zeros(256 * MIB), full), (claiming(1 << 60), short), (claiming(1 << 60), full)];
    let garbage = [(vec![0x55; 300], 300), (Vec::new(), 100), (zstd::bulk::compress(&[7; 50], 1).unwrap(), 100)];
    let mut packs = Vec::new();
    let mut files = Vec::new();
    for (n, (payload, len)) in payloads.into_iter().chain(garbage).enumerate() {
        for kind in [BlobKind::Chunk, BlobKind::Tree, BlobKind::List] {
            let id = BlobId([n as u8 * 3 + kind as u8 + 1; 32]);
            let frame = EncodedFrame::plain(Codec::Zstd, kind, payload.clone(), vec![len], vec![id]);
            packs.push(world.pack(frame));
            let extents = vec![Extent { id: Some(id), len: len.into() }];
            let name = format!("{n} {kind:?}");
            files.push(match kind {
                BlobKind::Chunk => with_content(name, Content { level: 0, extents }),
                BlobKind::Tree => folder(name, Content { level: 0, extents }),
                BlobKind::List => with_content(name, Content { level: 1, extents }),
            });
        }
    }
    world.index(&IndexObject { packs, ..IndexObject::default() });
    files.push(world.file("z good", b"good"));
    files.sort_by(|a, b| a.name.cmp(&b.name));
    world.snapshot(world.tree(&files));
    for (arguments, code) in [
        (&["restore", "latest", "--target", "target", "--numeric-owner"][..], 1),
        (&["ls", "-R", "latest"], 4),
        (&["check"], 4),
        (&["check", "--read-data"], 4),
    ] {
        watch(&mut world.place.command(arguments)).expect(code, MOST);
    }
    assert_eq!(std::fs::read(world.place.path("target/z good")).unwrap(), b"good");
}

#[test]
fn index_objects_that_unpack_to_more_than_there_may_be_are_reported_and_left_out() {
    let world = Hostile::new();
    world.snapshot(world.tree(&[world.file("good", b"good")]));
    let bombs = [zeros(256 * MIB), zeros(2 * limits::INDEX_PLAIN_MAX as u64), claiming(1 << 60), claiming(u64::MAX)];
    let names: Vec<String> = bombs.iter().map(|bomb| world.index_of(bomb).to_string()).collect();
    for (arguments, code) in [
        (&["check"][..], 4),
        (&["restore", "latest", "--target", "target", "--numeric-owner"], 0),
        (&["snapshot", "key", "--quiet"], 0),
    ] {
        // The bound on what an index object unpacks to, and what the program takes by itself.
        let ran = watch(&mut world.place.command(arguments)).expect(code, limits::INDEX_PLAIN_MAX as u64 + MOST);
        for name in &names {
            assert!((ran.stdout() + &ran.stderr()).contains(name), "{arguments:?}: {name}");
        }
    }
    assert_eq!(std::fs::read(world.place.path("target/good")).unwrap(), b"good");
}
