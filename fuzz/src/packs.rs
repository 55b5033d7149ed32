//! Packs: directories, trailers, frames, and whole packs that are sealed as
//! they should be and hold whatever the fuzzer says.

use super::{Seeds, choose, chosen, there_and_back};
use estrato::crypto::aead::{KeyBytes, Sealer};
use estrato::crypto::derive::IdKeys;
use estrato::crypto::envelope::Realm;
use estrato::crypto::hpke::{self, PrivateKey, PublicKey};
use estrato::error::Result;
use estrato::format::header::{self, Cipher, Header, ObjectType, associated_data, ordinal};
use estrato::format::pack::{BlobKind, Codec, Directory, FRAMES_AT, Frame, StorageClass, TAG_LEN, Trailer};
use estrato::id::{BaseId, BlobId, PackName, TenantId};
use estrato::limits;
use estrato::pack::{Compressor, Decompressor, PackBuilder, PackKey, PlainFrame, WholePack};
use minicbor::decode::Decoder;
use std::sync::OnceLock;

const TENANT: TenantId = TenantId([1; 16]);
const HEADER: Header = Header { object: ObjectType::Pack, cipher: Cipher::Aes256Gcm };

/// One tenant's keys, and one pack's.
struct Keys {
    ids: IdKeys,
    private: PrivateKey,
    public: PublicKey,
    /// A data key, and the head that opens to it.
    data: (KeyBytes, Vec<u8>),
}

fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| {
        let ids = IdKeys::new(&[1; 32]);
        let (private, public) = hpke::pair_from_seed(&[3; 32]);
        let private = PrivateKey::from_bytes(&private).unwrap().0;
        let data = realm(&ids).new_data_key(HEADER, None, &public).unwrap();
        Keys { ids, private, public, data }
    })
}

fn realm(keys: &IdKeys) -> Realm<'_> {
    Realm { tenant: TENANT, keys }
}

/// One input.
pub fn run(data: &[u8]) -> bool {
    let Some((way, data)) = choose(data, 9) else { return false };
    match way {
        0 => there_and_back(data, Directory::decode, |d| encode(d, false), |a, b| a == b),
        1 => there_and_back(
            data,
            |b| Directory::read(&mut Decoder::new(b), true),
            |d| encode(d, true),
            |a, b| a == b && bounded(a),
        ),
        2 => there_and_back(data, Trailer::decode, |t| t.encode().to_vec(), |a, b| a == b),
        3 => frame(data),
        4 => PackKey::open(&realm(&keys().ids), &keys().private, &PackName([0; 32]), data).is_ok(),
        5 => whole(data, None),
        6 => data.split_first_chunk::<16>().is_some_and(|(trailer, rest)| whole(rest, Some(trailer))),
        7 => raw(data),
        _ => built(data),
    }
}

fn encode(directory: &Directory, with_ids: bool) -> Vec<u8> {
    let mut out = Vec::new();
    directory.write_to(&mut out, with_ids);
    out
}

/// What readers rely on without looking again.
fn bounded(directory: &Directory) -> bool {
    let blobs: usize = directory.frames.iter().map(|f| f.lens.len()).sum();
    let sound = |f: &Frame| f.plain_len() <= limits::FRAME_PLAIN_MAX && f.lens.len() <= limits::FRAME_BLOBS_MAX;
    blobs <= limits::PACK_BLOBS_MAX
        && directory.frames.iter().all(sound)
        && directory.offsets().last().is_none_or(|(at, f)| at + u64::from(f.stored) == directory.frames_end())
}

/// A frame's record, and behind it the payload that it is about.
fn frame(data: &[u8]) -> bool {
    let mut d = Decoder::new(data);
    let Ok(directory) = Directory::read(&mut d, false) else { return false };
    let payload = &data[d.position()..];
    let mut decompressor = Decompressor::new().unwrap();
    let mut taken = false;
    for frame in &directory.frames {
        if let Ok(plain) = decompressor.decode(frame, payload, &data[..data.len() / 2]) {
            assert_eq!(plain.len(), frame.plain_len());
            taken = true;
        }
    }
    taken
}

fn seal(sealer: &Sealer, ordinal: u64, plain: &[u8], pack: &mut Vec<u8>) {
    let start = pack.len();
    pack.extend_from_slice(plain);
    sealer.seal(ordinal, &associated_data(HEADER, TENANT, ordinal, None), pack, start);
}

fn open(pack: &[u8]) -> Result<WholePack> {
    let name = PackName(pack.last_chunk().copied().unwrap_or_default());
    WholePack::open(&realm(&keys().ids), &keys().private, &name, pack)
}

/// A pack whose directory is what stands behind a first byte that gives the length of its one frame.
fn whole(data: &[u8], trailer: Option<&[u8; 16]>) -> bool {
    let Some((len, directory)) = data.split_first() else { return false };
    let (key, head) = &keys().data;
    let sealer = Sealer::new(HEADER.cipher, key);
    let mut pack = [&HEADER.encode()[..], head].concat();
    seal(&sealer, 0, &vec![7; usize::from(*len)], &mut pack);
    let start = pack.len();
    seal(&sealer, ordinal::DIRECTORY, directory, &mut pack);
    let honest = Trailer { directory: (pack.len() - start) as u64, parity: 0 }.encode();
    seal(&sealer, ordinal::TRAILER, trailer.unwrap_or(&honest), &mut pack);
    header::close(&mut pack);
    let Ok(whole) = open(&pack) else { return false };
    let end = whole.directory.frames_end();
    assert!(end <= start as u64, "frames that lie beyond the frames");
    let mut decompressor = Decompressor::new().unwrap();
    for (number, (at, frame)) in whole.directory.offsets().enumerate() {
        let mut sealed = pack[at as usize..at as usize + frame.stored as usize].to_vec();
        // Frame 0 opens if its length is right; no other was sealed.
        let opened = whole.key.frame(number as u64, frame, &mut sealed, &[], &mut decompressor);
        assert!(number == 0 || opened.is_err());
    }
    true
}

/// Bytes between a header and a hash that are both right.
fn raw(data: &[u8]) -> bool {
    let mut pack = [&HEADER.encode()[..], data].concat();
    header::close(&mut pack);
    open(&pack).is_ok()
}

/// Blobs whose lengths the input gives, packed as the writer does it: all come back.
fn built(data: &[u8]) -> bool {
    let mut compressor = Compressor::new(limits::ZSTD_LEVEL).unwrap();
    let mut builder =
        PackBuilder::new(&realm(&keys().ids), HEADER.cipher, StorageClass::Data, &keys().public).unwrap();
    let mut plains = Vec::new();
    for part in data.split(|b| *b == 0xff).take(8) {
        let blobs: Vec<&[u8]> = part.split(|b| *b == 0xfe).take(16).collect();
        let mut frame = PlainFrame::new(BlobKind::Chunk);
        for (n, blob) in blobs.iter().enumerate() {
            frame.push(BlobId([n as u8; 32]), blob);
        }
        plains.push(blobs.concat());
        builder.push(compressor.encode(frame).unwrap().0).unwrap();
    }
    let pack = builder.finish().unwrap();
    let whole = open(&pack.bytes).unwrap();
    assert_eq!(pack.entry.size, pack.bytes.len() as u64);
    let mut decompressor = Decompressor::new().unwrap();
    for (n, (at, frame)) in whole.directory.offsets().enumerate() {
        let mut sealed = pack.bytes[at as usize..at as usize + frame.stored as usize].to_vec();
        assert_eq!(whole.key.frame(n as u64, frame, &mut sealed, &[], &mut decompressor).unwrap(), plains[n]);
    }
    true
}

fn directory(ids: bool) -> Directory {
    let frame = |depth: u8, codec| Frame {
        stored: 300 + TAG_LEN as u32,
        codec,
        kind: BlobKind::Chunk,
        depth,
        bases: vec![BaseId([1; 16]); depth.into()],
        lens: vec![100, 200],
        ids: if ids { vec![BlobId([2; 32]), BlobId([3; 32])] } else { Vec::new() },
    };
    let frames = vec![frame(0, Codec::Zstd), frame(0, Codec::Raw), frame(2, Codec::Zstd)];
    Directory { class: StorageClass::Data, frames }
}

/// A directory of one frame, and what the frame holds.
fn one_frame(codec: Codec, plain: &[u8]) -> Vec<u8> {
    let payload = match codec {
        Codec::Raw => plain.to_vec(),
        Codec::Zstd => zstd::bulk::compress(plain, 1).unwrap(),
    };
    let frame = Frame {
        stored: (payload.len() + TAG_LEN) as u32,
        codec,
        kind: BlobKind::Tree,
        depth: 0,
        bases: Vec::new(),
        lens: vec![plain.len() as u32],
        ids: Vec::new(),
    };
    let mut out = encode(&Directory { class: StorageClass::Trees, frames: vec![frame] }, false);
    out.extend_from_slice(&payload);
    out
}

/// Inputs to begin with.
pub fn seeds() -> Seeds {
    let text: Vec<u8> = (0..600u32).flat_map(|n| n.to_string().into_bytes()).collect();
    let mut whole = vec![40];
    let frame = Frame {
        stored: 40 + TAG_LEN as u32,
        codec: Codec::Raw,
        kind: BlobKind::Chunk,
        depth: 0,
        bases: Vec::new(),
        lens: vec![10, 30],
        ids: Vec::new(),
    };
    whole.extend_from_slice(&encode(&Directory { class: StorageClass::Data, frames: vec![frame] }, false));
    let trailer = Trailer { directory: (whole.len() - 1 + TAG_LEN) as u64, parity: 0 }.encode();
    let builder = PackBuilder::new(&realm(&keys().ids), HEADER.cipher, StorageClass::Data, &keys().public).unwrap();
    let pack = builder.finish().unwrap().bytes;
    vec![
        ("directory".into(), chosen(0, &encode(&directory(false), false))),
        ("directory-with-ids".into(), chosen(1, &encode(&directory(true), true))),
        ("trailer".into(), chosen(2, &Trailer { directory: 500, parity: 9 }.encode())),
        ("frame".into(), chosen(3, &one_frame(Codec::Zstd, &text))),
        ("raw-frame".into(), chosen(3, &one_frame(Codec::Raw, &text[..50]))),
        ("head".into(), chosen(4, &pack[..FRAMES_AT as usize])),
        ("pack-with-directory".into(), chosen(5, &whole)),
        ("pack-with-trailer".into(), chosen(6, &[&trailer[..], &whole].concat())),
        ("pack".into(), chosen(7, &pack[header::HEADER_LEN..pack.len() - header::HASH_LEN])),
        ("blobs".into(), chosen(8, b"one blob\xfeanother\xff\xffmore")),
    ]
}
