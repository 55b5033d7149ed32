//! Delta frames that rest on themselves, on one another, on nothing, or on more than anyone could
//! decode: reading gives up, other copies are taken, and what cannot be read does not count.

use super::child::{MIB, watch};
use super::hostile::{Hostile, open, with_content};
use crate::world::put;
use estrato::error::Result;
use estrato::format::content::{Content, Extent};
use estrato::format::index::{IndexObject, PackEntry};
use estrato::format::node::Node;
use estrato::format::pack::{BlobKind, Codec, StorageClass};
use estrato::id::BlobId;
use estrato::limits;
use estrato::pack::{EncodedFrame, FinishedPack};
use estrato::repo::{Session, Stored};

/// More than the program takes by itself, the largest bases, and a cache of frames.
const MOST: u64 = 200 * MIB;

/// A blob of chosen content, and how one copy of it says that it lies.
struct Copy {
    content: Vec<u8>,
    depth: u8,
    bases: Vec<BlobId>,
}

impl Hostile {
    fn id(&self, content: &[u8]) -> BlobId {
        self.repo.id_keys().blob_id(BlobKind::Chunk, content)
    }

    /// The frame of a copy. It decodes with whatever bases: its bytes refer to none.
    fn frame(&self, copy: &Copy) -> EncodedFrame {
        let payload = zstd::bulk::compress(&copy.content, 1).unwrap();
        let (lens, ids) = (vec![copy.content.len() as u32], vec![self.id(&copy.content)]);
        let plain = EncodedFrame::plain(Codec::Zstd, BlobKind::Chunk, payload, lens, ids);
        EncodedFrame { depth: copy.depth, bases: copy.bases.iter().map(BlobId::base).collect(), ..plain }
    }

    /// Packs of these frames, each as large as a pack may be.
    fn packs(&self, frames: impl IntoIterator<Item = EncodedFrame>) -> Vec<PackEntry> {
        let mut builder = self.builder(StorageClass::Data);
        let mut packs: Vec<FinishedPack> = Vec::new();
        for frame in frames {
            if builder.is_full() {
                packs.push(std::mem::replace(&mut builder, self.builder(StorageClass::Data)).finish().unwrap());
            }
            builder.push(frame).unwrap();
        }
        packs.push(builder.finish().unwrap());
        packs.into_iter().map(|pack| self.write_pack(pack)).collect()
    }

    /// Publishes these copies and no others.
    fn say(&self, copies: &[Copy]) {
        let packs = self.packs(copies.iter().map(|copy| self.frame(copy)));
        self.index(&IndexObject { packs, ..IndexObject::default() });
    }

    /// A file of one blob that is not stored by this.
    fn naming(&self, name: &str, content: &[u8]) -> Node {
        let extent = Extent { id: Some(self.id(content)), len: content.len() as u64 };
        with_content(name, Content { level: 0, extents: vec![extent] })
    }

    /// Reads a blob as a program does that has just started, with that much room for decoded frames.
    fn read(&self, content: &[u8], cache: usize) -> Result<Vec<u8>> {
        let repo = open(&self.place).with_frame_cache(cache);
        repo.sync_index()?;
        repo.blob(BlobKind::Chunk, &self.id(content))
    }

    /// What becomes of blobs that are put now.
    fn put_again(&self, contents: &[&[u8]]) -> Vec<Stored> {
        let repo = open(&self.place);
        let session = Session::begin(&repo, "host").unwrap();
        let stored = put(&session, contents).unwrap();
        session.abandon();
        stored
    }
}

/// Blobs whose only copies rest on themselves, on each other, on what is no deeper, or on nothing
/// that anyone knows.
fn in_vain(world: &Hostile) -> Vec<Copy> {
    let content = |name: &str| format!("content of {name}, which nobody can read").into_bytes();
    let id = |name: &str| world.id(&content(name));
    let copy = |name: &str, depth: u8, bases: Vec<BlobId>| Copy { content: content(name), depth, bases };
    vec![
        copy("itself", 1, vec![id("itself")]),
        copy("itself, deeper", 16, vec![id("itself, deeper")]),
        copy("one", 1, vec![id("other")]),
        copy("other", 1, vec![id("one")]),
        copy("lower", 7, vec![id("upper")]),
        copy("upper", 8, vec![id("lower")]),
        copy("a", 16, vec![id("b")]),
        copy("b", 15, vec![id("c")]),
        copy("c", 14, vec![id("a")]),
        copy("ascends", 3, vec![id("deep")]),
        copy("deep", 5, vec![BlobId([7; 32]); limits::FRAME_BASES_MAX]),
        copy("unknown", 1, vec![BlobId([8; 32])]),
    ]
}

#[test]
fn deltas_in_a_circle_and_deltas_on_nothing_are_damage_and_do_not_count() {
    let world = Hostile::new();
    let copies = in_vain(&world);
    world.say(&copies);
    let contents: Vec<&[u8]> = copies.iter().map(|copy| &copy.content[..]).collect();
    for content in &contents {
        for cache in [0, limits::TREE_CACHE_BYTES] {
            let told = world.read(content, cache).unwrap_err();
            assert!(told.is_damage(), "{told}");
        }
    }
    assert_eq!(world.put_again(&contents), vec![Stored::New; contents.len()]);
    // The copies that have just been stored are taken, whatever else is said.
    for content in &contents {
        assert_eq!(world.read(content, 0).unwrap(), *content);
    }
    assert_eq!(world.put_again(&contents), vec![Stored::Known; contents.len()]);
}

#[test]
fn files_of_deltas_in_a_circle_are_told_by_every_command_and_cost_nothing_else() {
    let world = Hostile::new();
    let copies = in_vain(&world);
    world.say(&copies);
    let mut files: Vec<Node> =
        copies.iter().enumerate().map(|(n, copy)| world.naming(&format!("{n:02}"), &copy.content)).collect();
    files.push(world.file("good", b"good"));
    world.snapshot(world.tree(&files));
    let restore = ["restore", "latest", "--target", "target", "--numeric-owner"];
    let told = watch(&mut world.place.command(&restore)).expect(1, MOST).stderr();
    for n in 0..copies.len() {
        assert!(told.contains(&format!("{n:02}: ")), "{n:02} in {told}");
        assert!(!world.place.path(format!("target/{n:02}")).exists());
    }
    assert_eq!(std::fs::read(world.place.path("target/good")).unwrap(), b"good");
    for arguments in [&["check"][..], &["check", "--read-data"]] {
        watch(&mut world.place.command(arguments)).expect(4, MOST);
    }
    watch(&mut world.place.command(&["stats"])).expect(0, MOST);
    // Other copies are taken, and then nothing that is needed is lost.
    for copy in &copies {
        world.chunk(&copy.content);
    }
    world.publish();
    watch(&mut world.place.command(&restore)).expect(0, MOST);
    for (n, copy) in copies.iter().enumerate() {
        assert_eq!(std::fs::read(world.place.path(format!("target/{n:02}"))).unwrap(), copy.content);
    }
    watch(&mut world.place.command(&["check"])).expect(0, MOST);
}

/// In each layer some frames that rest on all frames of the layer below: ways down double, or more, at
/// every step. Returns the contents of the uppermost layer.
fn fan(world: &Hostile, width: usize, len: usize) -> Vec<Vec<u8>> {
    let mut below: Vec<Vec<u8>> = Vec::new();
    let mut frames = Vec::new();
    for depth in 0..=limits::FRAME_DEPTH_MAX {
        let bases: Vec<BlobId> = below.iter().map(|content| world.id(content)).collect();
        below = (0..width).map(|n| format!("layer {depth}, blob {n}").into_bytes()).collect();
        for content in &below {
            // The blob itself is short; what it lies among is not.
            let filler = vec![depth; len - content.len()];
            let all = Copy { content: [&content[..], &filler].concat(), depth, bases: bases.clone() };
            let lens = vec![content.len() as u32, filler.len() as u32];
            let ids = vec![world.id(content), world.id(&filler)];
            frames.push(EncodedFrame { lens, ids, ..world.frame(&all) });
        }
    }
    world.index(&IndexObject { packs: world.packs(frames), ..IndexObject::default() });
    below
}

#[test]
fn a_fan_of_deltas_is_not_decoded_for_ever() {
    let world = Hostile::new();
    let upper = fan(&world, 2, 100);
    // 2 to the power of 17 frames, unless what was decoded is kept; with it there are 34.
    assert_eq!(world.read(&upper[0], limits::TREE_CACHE_BYTES).unwrap(), upper[0]);
    let told = world.read(&upper[0], 0).unwrap_err();
    assert!(told.is_damage() && told.to_string().contains("rests on"), "{told}");
    world.chunk(&upper[0]);
    world.publish();
    assert_eq!(world.read(&upper[0], 0).unwrap(), upper[0], "a plain copy is taken first");
}

#[test]
fn the_program_reads_each_frame_of_a_fan_once() {
    let world = Hostile::new();
    // More frames of a megabyte in each layer than are kept decoded: those that come first are gone when
    // the next frame asks for them, and one by one 30 to the power of 16 would be decoded.
    let upper = fan(&world, 30, limits::FRAME_PLAIN_MAX);
    let files = [world.file("good", b"good"), world.naming("on a fan", &upper[0])];
    world.snapshot(world.tree(&files));
    let arguments = ["restore", "latest", "--target", "target", "--numeric-owner"];
    watch(&mut world.place.command(&arguments)).expect(0, MOST);
    assert_eq!(std::fs::read(world.place.path("target/good")).unwrap(), b"good");
    assert!(std::fs::read(world.place.path("target/on a fan")).unwrap() == upper[0]);
    watch(&mut world.place.command(&["check", "--read-data"])).expect(0, MOST);
    // To ask what a copy rests on takes no decoding.
    watch(&mut world.place.command(&["check"])).expect(0, MOST);
    world.put_again(&[&upper[1]]);
}

#[test]
fn bases_of_more_plaintext_than_any_frame_may_rest_on_are_refused() {
    let world = Hostile::new();
    let large = |n: u8| vec![n; limits::FRAME_PLAIN_MAX];
    let mut copies: Vec<Copy> = (0..5).map(|n| Copy { content: large(n), depth: 0, bases: Vec::new() }).collect();
    let ids: Vec<BlobId> = copies.iter().map(|copy| world.id(&copy.content)).collect();
    let most = limits::FRAME_BASE_PLAIN_MAX / limits::FRAME_PLAIN_MAX;
    let resting = |name: &str, bases: Vec<BlobId>| Copy { content: name.into(), depth: 1, bases };
    let [allowed, beyond, again] = [
        resting("as much as is allowed", ids[..most].to_vec()),
        resting("one base too many", ids[..=most].to_vec()),
        // A gigabyte, said in 32 kB.
        resting("one base again and again", vec![ids[0]; limits::FRAME_BASES_MAX]),
    ];
    let mut files: Vec<Node> = [&allowed, &beyond, &again]
        .map(|copy| world.naming(std::str::from_utf8(&copy.content).unwrap(), &copy.content))
        .to_vec();
    files.sort_by(|a, b| a.name.cmp(&b.name));
    let contents = [&allowed, &beyond, &again].map(|copy| copy.content.clone());
    copies.extend([allowed, beyond, again]);
    world.say(&copies);
    world.snapshot(world.tree(&files));
    let arguments = ["restore", "latest", "--target", "target", "--numeric-owner"];
    let told = watch(&mut world.place.command(&arguments)).expect(1, MOST).stderr();
    assert!(told.contains("one base too many") && told.contains("one base again and again"), "{told}");
    assert_eq!(std::fs::read(world.place.path("target/as much as is allowed")).unwrap(), contents[0]);
    watch(&mut world.place.command(&["check", "--read-data"])).expect(4, MOST);
    // The check has put the pack on record: nothing in it counts any more, not even what can be read.
    let again = world.put_again(&contents.each_ref().map(|c| &c[..]));
    assert_eq!(again, [Stored::New; 3]);
    watch(&mut world.place.command(&arguments)).expect(0, MOST);
}
