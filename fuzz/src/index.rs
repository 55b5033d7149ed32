//! The index: objects and entries, objects that an admitted key signed, the
//! rows of the database on this machine, and look-ups in what was taken in.

use super::hostile::Hostile;
use super::{Seeds, choose, chosen, there_and_back};
use estrato::format::header::{Header, ObjectType};
use estrato::format::index::{IndexObject, PackEntry, Vouched};
use estrato::format::pack::{BlobKind, Codec, Directory, FRAMES_AT, Frame, StorageClass};
use estrato::id::{BlobId, IndexName, PackName, SignerId};
use estrato::index::Index;
use minicbor::decode::Decoder;
use rusqlite::Connection;
use std::cell::RefCell;

const NAME: IndexName = IndexName([1; 32]);
const SIGNER: SignerId = SignerId([2; 32]);

/// One input.
pub fn run(data: &[u8]) -> bool {
    let Some((way, data)) = choose(data, 7) else { return false };
    match way {
        0 => there_and_back(data, IndexObject::decode, IndexObject::encode, |a, b| a == b),
        1 => there_and_back(data, |b| PackEntry::read(&mut Decoder::new(b)), encode, |a, b| a == b),
        2 => published(data),
        3 => published(&packed(data)),
        4 => row(data),
        5 => row(&[&[1; 32], data].concat()),
        _ => looked_up(data),
    }
}

fn encode(entry: &PackEntry) -> Vec<u8> {
    let mut out = Vec::new();
    entry.write_to(&mut out);
    out
}

fn packed(plain: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(plain, 1).unwrap()
}

/// An index object in a store whose payload, before it was signed and sealed, was `payload`.
fn published(payload: &[u8]) -> bool {
    Hostile::with(|hostile| {
        let repo = &hostile.repo;
        let header = Header { object: ObjectType::Index, cipher: repo.cipher() };
        let object = repo.realm().seal_shared(header, None, &hostile.signing, payload).unwrap();
        let name = IndexName(*object.last_chunk().unwrap());
        let object_name = repo.names().index(&name);
        hostile.write(&object_name, object);
        let read = repo.read_index(&name);
        hostile.delete(&object_name);
        match read {
            Ok((signer, _)) => assert_eq!(signer, repo.signer()),
            Err(e) => {
                assert!(e.is_damage(), "{e}");
                return false;
            }
        }
        true
    })
}

/// An index in a folder, and another hand in its database.
struct Rows {
    index: Index,
    connection: Connection,
    entry: i64,
    /// A row of `frames`: its number, and its first frame's number and offset.
    place: (i64, i64, i64),
    _folder: tempfile::TempDir,
}

impl Rows {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let index = Index::open(folder.path()).unwrap();
        let entry = index.add(&NAME, &SIGNER, &object()).unwrap()[0];
        let connection = Connection::open(folder.path().join("index.db")).unwrap();
        connection.pragma_update(None, "synchronous", "OFF").unwrap();
        let query = "SELECT no, first, offset FROM frames WHERE pack = ?1";
        let place = connection.query_row(query, [entry], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
        Self { index, connection, entry, place, _folder: folder }
    }

    /// What the row holds, but for its hash.
    fn held(&self) -> Vec<u8> {
        let query = "SELECT row FROM frames WHERE no = ?1";
        let mut row: Vec<u8> = self.connection.query_row(query, [self.place.0], |row| row.get(0)).unwrap();
        row.truncate(row.len() - 16);
        row
    }
}

/// A row of the database whose hash is right, and which holds `row`.
fn row(row: &[u8]) -> bool {
    thread_local!(static ROWS: RefCell<Option<Rows>> = const { RefCell::new(None) });
    ROWS.with_borrow_mut(|rows| {
        let rows = rows.get_or_insert_with(Rows::new);
        let (number, first, offset) = rows.place;
        let mut hash = blake3::Hasher::new();
        hash.update(row);
        for part in [row.len() as i64, number, rows.entry, first, offset] {
            hash.update(&part.to_le_bytes());
        }
        let closed = [row, &hash.finalize().as_bytes()[..16]].concat();
        rows.connection.execute("UPDATE frames SET row = ?1 WHERE no = ?2", (closed, number)).unwrap();
        // Forgets what it has read.
        rows.index.remove(&[]).unwrap();
        let found = rows.index.copies(&BlobId([1; 32])).is_ok();
        rows.index.pack(rows.entry).is_ok_and(|pack| pack.is_some()) && found
    })
}

/// What is taken in is found, each blob at its place, until its object is removed.
fn looked_up(data: &[u8]) -> bool {
    let Ok(object) = IndexObject::decode(data) else { return false };
    thread_local!(static INDEX: Index = Index::in_memory().unwrap());
    INDEX.with(|index| {
        index.add(&NAME, &SIGNER, &object).unwrap();
        for entry in &object.packs {
            for (at, frame) in entry.directory.offsets() {
                let mut begin = 0;
                for (id, len) in frame.ids.iter().zip(&frame.lens) {
                    let copies = index.copies(id).unwrap();
                    assert!(copies.iter().any(|copy| copy.pack() == entry.name), "a blob that is not found");
                    for copy in copies {
                        assert!(copy.at() as usize + copy.size() as usize <= copy.frame().plain_len());
                    }
                    begin += len;
                }
                assert!(begin as usize == frame.plain_len() && at + u64::from(frame.stored) <= entry.size);
            }
        }
        index.remove(&[NAME]).unwrap();
        let ids = object.packs.iter().flat_map(|p| &p.directory.frames).flat_map(|f| &f.ids);
        ids.for_each(|id| assert!(index.copies(id).unwrap().is_empty(), "a blob of an object that is gone"));
        assert!(index.packs().unwrap().is_empty() && index.objects().unwrap().is_empty());
    });
    true
}

fn object() -> IndexObject {
    let frame = |n: u8, kind| Frame {
        stored: 400,
        codec: Codec::Zstd,
        kind,
        depth: 0,
        bases: Vec::new(),
        lens: vec![100, 200],
        ids: vec![BlobId([n; 32]), BlobId([n + 1; 32])],
    };
    let entry = |n: u8, class, kind| PackEntry {
        name: PackName([n; 32]),
        size: FRAMES_AT + 5000,
        directory: Directory { class, frames: vec![frame(n, kind), frame(n + 1, kind)] },
    };
    IndexObject {
        packs: vec![entry(1, StorageClass::Trees, BlobKind::Tree), entry(5, StorageClass::Data, BlobKind::Chunk)],
        supersedes: vec![IndexName([4; 32])],
        vouched: vec![Vouched { index: IndexName([4; 32]), pack: PackName([5; 32]) }],
    }
}

/// Inputs to begin with.
pub fn seeds() -> Seeds {
    let (object, entry) = (object().encode(), encode(&object().packs[0]));
    vec![
        ("object".into(), chosen(0, &object)),
        ("entry".into(), chosen(1, &entry)),
        ("published".into(), chosen(2, &packed(&object))),
        ("published-plain".into(), chosen(3, &object)),
        ("row".into(), chosen(4, &Rows::new().held())),
        ("row-plain".into(), chosen(5, &Rows::new().held()[32..])),
        ("looked-up".into(), chosen(6, &object)),
    ]
}
