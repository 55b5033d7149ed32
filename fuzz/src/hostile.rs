//! A repository whose blobs are made up by whoever holds its keys. Seals,
//! signatures and ids are right, so whatever an input says reaches the code
//! that reads trees and restores; nothing stops at the first hash.
//!
//! An input is a byte of options and then items: a kind, a length of two bytes,
//! and so many bytes. Items are blobs, and entries of the index in addition to
//! the honest ones. Where an item holds [`ID_OF`] and a number, the id of that
//! blob stands instead (or the name of a pack): so a tree can refer to what is
//! below it, and the fuzzer can change all of it. The last tree, or list, is
//! the root.

use bytes::Bytes;
use estrato::clock::SystemClock;
use estrato::crypto::aead::{KeyBytes, Sealer};
use estrato::crypto::hpke::{PrivateKey, PublicKey};
use estrato::crypto::keyfile::KeyFile;
use estrato::crypto::sign::Signing;
use estrato::crypto::slot;
use estrato::crypto::slot::Credential;
use estrato::error::StoreError;
use estrato::format::content::{Content, Extent};
use estrato::format::header::{self, Cipher, Header, ObjectType, associated_data, ordinal};
use estrato::format::index::{IndexObject, PackEntry};
use estrato::format::key::{Bundle, Slot};
use estrato::format::pack::{BlobKind, Directory, Frame, StorageClass};
use estrato::id::{BlobId, IndexName, PackName};
use estrato::pack::{Compressor, EncodedFrame, PlainFrame};
use estrato::repo::{self, Access, NewKey, Repository, Secret};
use estrato::store::{Listed, Memory, Store};
use minicbor::decode::Decoder;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use zeroize::Zeroizing;

/// Stands, with a number behind it, for the id of the blob of that number.
pub const ID_OF: [u8; 31] = *b"id of the blob of this number: ";
/// The number that stands for the name of the pack of trees and lists.
pub const TREE_PACK: u8 = 0xff;
/// The number that stands for the name of the pack of chunks.
pub const DATA_PACK: u8 = 0xfe;

/// Options: all blobs of a run share a frame.
pub const SHARED_FRAMES: u8 = 1;
/// Options: the made-up entries come before the honest ones.
pub const LIES_FIRST: u8 = 2;

const HEADER: Header = Header { object: ObjectType::Pack, cipher: Cipher::ChaCha20Poly1305 };
/// The caches of a repository grow a little with each input: it is made anew after so many.
const INPUTS_MAX: usize = 5000;

/// What an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item {
    /// A chunk.
    Chunk = 0,
    /// A segment of a tree.
    Tree = 1,
    /// A content list.
    List = 2,
    /// A pack's entry, for the index.
    Entry = 3,
}

impl Item {
    fn blob(self) -> Option<BlobKind> {
        match self {
            Self::Chunk => Some(BlobKind::Chunk),
            Self::Tree => Some(BlobKind::Tree),
            Self::List => Some(BlobKind::List),
            Self::Entry => None,
        }
    }
}

/// The items of an input.
fn items(mut data: &[u8]) -> Vec<(Item, &[u8])> {
    let mut found = Vec::new();
    while let Some(([kind, a, b], rest)) = data.split_first_chunk::<3>() {
        let kind = [Item::Chunk, Item::Tree, Item::List, Item::Entry][usize::from(kind % 4)];
        let len = usize::from(u16::from_le_bytes([*a, *b])).min(rest.len());
        let (bytes, rest) = rest.split_at(len);
        found.push((kind, bytes));
        data = rest;
    }
    found
}

/// An input of these options and items.
pub fn input(options: u8, items: &[(Item, Vec<u8>)]) -> Vec<u8> {
    let mut out = vec![options];
    for (kind, bytes) in items {
        out.push(*kind as u8);
        out.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
        out.extend_from_slice(bytes);
    }
    out
}

/// The id that [`input`] replaces by that of a blob.
pub fn id_of(number: u8) -> BlobId {
    let mut id = [number; 32];
    id[..31].copy_from_slice(&ID_OF);
    BlobId(id)
}

/// Puts ids in the place of the numbers that stand for them.
fn resolved(bytes: &[u8], id: impl Fn(u8) -> Option<[u8; 32]>) -> Vec<u8> {
    let mut out = bytes.to_vec();
    let mut at = 0;
    while let Some(place) = out.get_mut(at..at + 32) {
        match id(place[31]) {
            Some(id) if place[..31] == ID_OF => {
                place.copy_from_slice(&id);
                at += 32;
            }
            _ => at += 1,
        }
    }
    out
}

/// Objects in memory, and how often a part of one was read.
#[derive(Default)]
struct Counted {
    objects: Memory,
    reads: AtomicU64,
}

impl Store for Counted {
    fn describe(&self) -> String {
        self.objects.describe()
    }

    fn create(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        self.objects.create(name, data)
    }

    fn write(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        self.objects.write(name, data)
    }

    fn read(&self, name: &str, max: u64) -> Result<Bytes, StoreError> {
        self.objects.read(name, max)
    }

    fn read_range(&self, name: &str, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.objects.read_range(name, offset, len)
    }

    fn size(&self, name: &str) -> Result<u64, StoreError> {
        self.objects.size(name)
    }

    fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        self.objects.list(folder)
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.objects.delete(name)
    }
}

/// How much a repository keeps of what it has decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cache {
    /// As much as a reader keeps.
    Usual,
    /// One frame.
    OneFrame,
}

/// A pack whose frames are sealed as they should be.
pub struct SealedPack {
    /// The object.
    pub bytes: Vec<u8>,
    /// Bytes of each frame.
    pub stored: Vec<u32>,
}

/// A repository that opens, and the keys to put anything into it.
pub struct Hostile {
    store: Arc<Counted>,
    /// The repository, opened with a full key.
    pub repo: Repository,
    /// Signs as that key.
    pub signing: Signing,
    /// For the packs of each class a data key, and the head that opens to it. Under one key two packs
    /// of equal frames would be one object.
    data: [(KeyBytes, Vec<u8>); 2],
    compressor: Compressor,
    inputs: usize,
}

/// What an input has put into the repository.
pub struct Built {
    /// What lies below the root.
    pub root: Content,
    /// Further options.
    pub options: u8,
    index: IndexName,
    packs: Vec<String>,
}

fn key() -> KeyFile {
    KeyFile(Zeroizing::new([5; 32]))
}

fn bundle(store: &Counted, repo: &Repository) -> Bundle {
    let id = slot::key_file_slots(&key(), repo.tenant())[0];
    let object = store.read(&repo.names().slot(&id), 1 << 20).unwrap();
    let slot = Slot::decode(&header::opened(&object).unwrap()[header::HEADER_LEN..]).unwrap();
    slot::open(&Credential::KeyFile(key()), repo.tenant(), &id, &slot).unwrap().unwrap()
}

impl Hostile {
    fn new(cache: Cache) -> Self {
        let store = Arc::new(Counted::default());
        let new = NewKey::full(Secret::KeyFile(key()), "full");
        repo::init(&*store, &SystemClock::default(), "default", HEADER.cipher, &new).unwrap();
        let repo = Repository::open(Access {
            store: Arc::<Counted>::clone(&store),
            clock: Arc::new(SystemClock::default()),
            tenant: "default".into(),
            credential: Credential::KeyFile(key()),
            cache: None,
        })
        .unwrap();
        let repo = if cache == Cache::OneFrame { repo.with_frame_cache(0) } else { repo };
        let bundle = bundle(&store, &repo);
        let public: PublicKey = PrivateKey::from_bytes(&bundle.private_key.unwrap()).unwrap().1;
        let data = [(); 2].map(|()| repo.realm().new_data_key(HEADER, None, &public).unwrap());
        let signing = Signing::from_seed(&bundle.signer_seed);
        Self { store, repo, signing, data, compressor: Compressor::new(1).unwrap(), inputs: 0 }
    }

    /// Works with a repository of this thread.
    pub fn with<T>(work: impl FnOnce(&mut Self) -> T) -> T {
        Self::with_cache(Cache::Usual, work)
    }

    /// The same with one that keeps as much as is said.
    pub fn with_cache<T>(cache: Cache, work: impl FnOnce(&mut Self) -> T) -> T {
        thread_local!(static HOSTILE: RefCell<[Option<Hostile>; 2]> = const { RefCell::new([None, None]) });
        HOSTILE.with_borrow_mut(|kept| {
            let kept = &mut kept[cache as usize];
            if kept.as_ref().is_some_and(|h| h.inputs >= INPUTS_MAX) {
                *kept = None;
            }
            let hostile = kept.get_or_insert_with(|| Self::new(cache));
            hostile.inputs += 1;
            work(hostile)
        })
    }

    /// Writes an object, whatever was there.
    pub fn write(&self, name: &str, object: Vec<u8>) {
        self.store.write(name, Bytes::from(object)).unwrap();
    }

    /// Deletes an object.
    pub fn delete(&self, name: &str) {
        self.store.delete(name).unwrap();
    }

    /// How often a part of an object was read so far.
    pub fn reads(&self) -> u64 {
        self.store.reads.load(Ordering::Relaxed)
    }

    /// Seals a pack of such frames. A mark sets packs of the same frames apart.
    pub fn sealed(&self, class: StorageClass, payloads: &[Vec<u8>], mark: &[u8]) -> SealedPack {
        let (key, head) = &self.data[class as usize];
        let sealer = Sealer::new(HEADER.cipher, key);
        let mut bytes = [&HEADER.encode()[..], head].concat();
        let mut seal = |ordinal, plain: &[u8]| {
            let start = bytes.len();
            bytes.extend_from_slice(plain);
            sealer.seal(ordinal, &associated_data(HEADER, self.repo.tenant(), ordinal, None), &mut bytes, start);
            (bytes.len() - start) as u32
        };
        let stored = payloads.iter().enumerate().map(|(number, payload)| seal(number as u64, payload)).collect();
        // Readers who know the index look at no directory: none is sealed here.
        seal(ordinal::TRAILER, mark);
        header::close(&mut bytes);
        SealedPack { bytes, stored }
    }

    /// A frame's payload that rests on nothing, and its codec.
    pub fn packed(&mut self, plain: PlainFrame) -> EncodedFrame {
        self.compressor.encode(plain).unwrap().0
    }

    /// Takes up an input; `None` if it has no root.
    pub fn build(&mut self, data: &[u8]) -> Option<Built> {
        let (options, data) = data.split_first()?;
        let mut blobs: Vec<(BlobKind, BlobId, Vec<u8>)> = Vec::new();
        let mut lies = Vec::new();
        let mut root = None;
        for (item, bytes) in items(data) {
            let Some(kind) = item.blob() else {
                lies.push(bytes);
                continue;
            };
            let bytes = resolved(bytes, |n| blobs.get(usize::from(n)).map(|(_, id, _)| id.0));
            let id = self.repo.id_keys().blob_id(kind, &bytes);
            match item {
                Item::Tree => {
                    root =
                        Some(Content { level: 0, extents: vec![Extent { id: Some(id), len: bytes.len() as u64 }] });
                }
                Item::List => root = Content::decode(&bytes).ok().or(root),
                _ => {}
            }
            blobs.push((kind, id, bytes));
        }
        let root = root?;
        let shared = options & SHARED_FRAMES != 0;
        let packs: Vec<PackEntry> = [StorageClass::Trees, StorageClass::Data]
            .into_iter()
            .filter_map(|class| self.pack(class, &blobs, shared))
            .collect();
        let objects = packs.iter().map(|entry| self.repo.names().pack(&entry.name)).collect();
        let id = |number: u8| match number {
            TREE_PACK => packs.iter().find(|p| p.directory.class == StorageClass::Trees).map(|p| p.name.0),
            DATA_PACK => packs.iter().find(|p| p.directory.class == StorageClass::Data).map(|p| p.name.0),
            n => blobs.get(usize::from(n)).map(|(_, id, _)| id.0),
        };
        let lies =
            lies.iter().filter_map(|lie| PackEntry::read(&mut Decoder::new(&resolved(lie, id))).ok()).collect();
        let index = self.index(packs, lies, options & LIES_FIRST != 0);
        Some(Built { root, options: *options, index, packs: objects })
    }

    /// Removes what an input has put there.
    pub fn clear(&self, built: Built) {
        self.repo.index().remove(&[built.index]).unwrap();
        built.packs.iter().for_each(|pack| self.delete(pack));
    }

    /// Puts the blobs of a class into a pack in the store.
    fn pack(
        &mut self,
        class: StorageClass,
        blobs: &[(BlobKind, BlobId, Vec<u8>)],
        shared: bool,
    ) -> Option<PackEntry> {
        let mut frames: Vec<PlainFrame> = Vec::new();
        for (kind, id, bytes) in blobs.iter().filter(|(kind, ..)| kind.class() == class) {
            match frames.last_mut() {
                Some(frame) if shared && frame.kind == *kind && frame.fits(bytes.len()) => frame.push(*id, bytes),
                _ => {
                    let mut frame = PlainFrame { bytes: Vec::with_capacity(bytes.len()), ..PlainFrame::new(*kind) };
                    // Room of its own: a frame that has none takes a megabyte.
                    frame.bytes.reserve(1);
                    frame.push(*id, bytes);
                    frames.push(frame);
                }
            }
        }
        if frames.is_empty() {
            return None;
        }
        let encoded: Vec<EncodedFrame> = frames.into_iter().map(|frame| self.packed(frame)).collect();
        let payloads: Vec<Vec<u8>> = encoded.iter().map(|frame| frame.payload.clone()).collect();
        let SealedPack { bytes, stored } = self.sealed(class, &payloads, &[]);
        let frame = |(frame, stored): (EncodedFrame, u32)| Frame {
            stored,
            codec: frame.codec,
            kind: frame.kind,
            depth: 0,
            bases: Vec::new(),
            lens: frame.lens,
            ids: frame.ids,
        };
        let directory = Directory { class, frames: encoded.into_iter().zip(stored).map(frame).collect() };
        let name = PackName(*bytes.last_chunk().unwrap());
        let size = bytes.len() as u64;
        self.write(&self.repo.names().pack(&name), bytes);
        Some(PackEntry { name, size, directory })
    }

    /// Takes the entries into the index, and the made-up ones before or behind them.
    pub fn index(&self, honest: Vec<PackEntry>, lies: Vec<PackEntry>, lies_first: bool) -> IndexName {
        let packs = if lies_first { [lies, honest].concat() } else { [honest, lies].concat() };
        let object = IndexObject { packs, ..IndexObject::default() };
        let object = IndexObject::decode(&object.encode()).unwrap();
        let mut name = IndexName([0; 32]);
        name.0[..8].copy_from_slice(&(self.inputs as u64).to_le_bytes());
        self.repo.index().add(&name, &self.repo.signer(), &object).unwrap();
        name
    }
}
