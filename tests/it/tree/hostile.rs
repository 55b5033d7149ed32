//! A repository whose every byte its maker chose: trees, lists, packs, index objects and snapshots
//! are sealed and signed as they should be, and say what they should not.

use crate::support::{Place, Ran};
use estrato::clock::{SystemClock, Timestamp};
use estrato::crypto::hpke::PublicKey;
use estrato::crypto::keyfile::KeyFile;
use estrato::crypto::sign::Signing;
use estrato::crypto::slot::{self, Credential};
use estrato::format::content::{Content, Extent};
use estrato::format::header::{self, Cipher, Header, ObjectType};
use estrato::format::index::{IndexObject, PackEntry};
use estrato::format::key::{Bundle, Slot};
use estrato::format::manifest::{Manifest, SnapshotKind, SourceKind, Summary};
use estrato::format::node::{Kind, Node, encode_segment};
use estrato::format::pack::{BlobKind, StorageClass};
use estrato::format::records::TenantRecord;
use estrato::id::{BlobId, IndexName, SnapshotId};
use estrato::pack::{Compressor, EncodedFrame, FinishedPack, PackBuilder, PlainFrame};
use estrato::repo::{Access, Repository};
use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;

/// A place with a repository, its full key in `key`, and all secrets at hand.
pub struct Hostile {
    pub place: Place,
    pub repo: Repository,
    pub bundle: Bundle,
    pub public: PublicKey,
    waiting: RefCell<Vec<PlainFrame>>,
}

/// The key file that a place's repository opens with.
pub fn key_file(place: &Place) -> KeyFile {
    KeyFile::from_text(&std::fs::read_to_string(place.path("key")).unwrap()).unwrap()
}

/// Opens a place's repository through the library.
pub fn open(place: &Place) -> Repository {
    Repository::open(Access {
        store: estrato::store::open(place.path("repo").to_str().unwrap()).unwrap(),
        clock: Arc::new(SystemClock::default()),
        tenant: "default".into(),
        credential: Credential::KeyFile(key_file(place)),
        cache: None,
    })
    .unwrap()
}

/// What the slot of a place's key holds.
pub fn bundle(repo: &Repository, key: KeyFile) -> Bundle {
    let id = slot::key_file_slots(&key, repo.tenant())[0];
    let object = repo.store().read(&repo.names().slot(&id), 1 << 20).unwrap();
    let slot = Slot::decode(&header::opened(&object).unwrap()[header::HEADER_LEN..]).unwrap();
    slot::open(&Credential::KeyFile(key), repo.tenant(), &id, &slot).unwrap().unwrap()
}

impl Hostile {
    pub fn new() -> Self {
        let place = Place::with_repository();
        let repo = open(&place);
        let bundle = bundle(&repo, key_file(&place));
        let tenant = repo.store().read(&repo.names().tenant(), 1 << 20).unwrap();
        let body = &header::opened(&tenant).unwrap()[header::HEADER_LEN..];
        let record = TenantRecord::decode(&body[..body.len() - 64]).unwrap();
        let public = PublicKey::from_bytes(&record.public_key).unwrap();
        Self { place, repo, bundle, public, waiting: RefCell::default() }
    }

    pub fn cipher(&self) -> Cipher {
        self.repo.cipher()
    }

    pub fn header(&self, object: ObjectType) -> Header {
        Header { object, cipher: self.cipher() }
    }

    pub fn signing(&self) -> Signing {
        Signing::from_seed(&self.bundle.signer_seed)
    }

    pub fn tenant_signing(&self) -> Signing {
        Signing::from_seed(&self.bundle.tenant_seed.unwrap())
    }

    /// Stores a blob, once [`Hostile::publish`] is called.
    pub fn put(&self, kind: BlobKind, bytes: &[u8]) -> BlobId {
        let id = self.repo.id_keys().blob_id(kind, bytes);
        let mut waiting = self.waiting.borrow_mut();
        let fits = |f: &PlainFrame| f.kind == kind && f.fits(bytes.len()) && f.lens.len() < 4096;
        match waiting.last_mut().filter(|f| fits(f)) {
            Some(frame) => frame.push(id, bytes),
            None => {
                let mut frame = PlainFrame::new(kind);
                frame.push(id, bytes);
                waiting.push(frame);
            }
        }
        id
    }

    /// A file's data, as one chunk.
    pub fn chunk(&self, bytes: &[u8]) -> Extent {
        Extent { id: Some(self.put(BlobKind::Chunk, bytes)), len: bytes.len() as u64 }
    }

    /// A content list.
    pub fn list(&self, level: u8, extents: Vec<Extent>) -> Extent {
        let list = Content { level, extents };
        Extent { id: Some(self.put(BlobKind::List, &list.encode())), len: list.len() }
    }

    /// A file of one chunk.
    pub fn file(&self, name: impl Into<Vec<u8>>, bytes: &[u8]) -> Node {
        with_content(name, Content { level: 0, extents: vec![self.chunk(bytes)] })
    }

    /// A segment of any bytes.
    pub fn segment(&self, bytes: &[u8]) -> Extent {
        Extent { id: Some(self.put(BlobKind::Tree, bytes)), len: bytes.len() as u64 }
    }

    /// A segment of these nodes, in this order.
    pub fn nodes(&self, nodes: &[Node]) -> Extent {
        let mut encoded = Vec::new();
        nodes.iter().for_each(|n| n.write_to(&mut encoded));
        self.segment(&encode_segment(nodes.len(), &encoded))
    }

    /// A folder's content.
    pub fn tree(&self, nodes: &[Node]) -> Content {
        // An empty folder has no segment at all.
        let extents = if nodes.is_empty() { Vec::new() } else { vec![self.nodes(nodes)] };
        Content { level: 0, extents }
    }

    /// Writes packs of what was put, and an index object that names them.
    pub fn publish(&self) {
        let mut compressor = Compressor::new(1).unwrap();
        let mut packs = Vec::new();
        let mut open: [Option<PackBuilder>; 2] = [None, None];
        for frame in self.waiting.take() {
            let class = frame.kind.class();
            let (frame, _) = compressor.encode(frame).unwrap();
            let place = &mut open[usize::from(class == StorageClass::Trees)];
            let mut builder = place.take().unwrap_or_else(|| self.builder(class));
            builder.push(frame).unwrap();
            if builder.is_full() {
                packs.push(self.write_pack(builder.finish().unwrap()));
            } else {
                *place = Some(builder);
            }
        }
        packs.extend(open.into_iter().flatten().map(|b| self.write_pack(b.finish().unwrap())));
        self.index(&IndexObject { packs, ..IndexObject::default() });
    }

    pub fn builder(&self, class: StorageClass) -> PackBuilder {
        PackBuilder::new(&self.repo.realm(), self.cipher(), class, &self.public).unwrap()
    }

    /// A pack of one frame.
    pub fn pack(&self, frame: EncodedFrame) -> PackEntry {
        let mut builder = self.builder(frame.kind.class());
        builder.push(frame).unwrap();
        self.write_pack(builder.finish().unwrap())
    }

    pub fn write_pack(&self, pack: FinishedPack) -> PackEntry {
        self.write(&self.repo.names().pack(&pack.entry.name), pack.bytes);
        pack.entry
    }

    /// Writes an index object.
    pub fn index(&self, object: &IndexObject) -> IndexName {
        self.index_of(&zstd::bulk::compress(&object.encode(), 1).unwrap())
    }

    /// Writes an index object of any payload.
    pub fn index_of(&self, payload: &[u8]) -> IndexName {
        let header = self.header(ObjectType::Index);
        let sealed = self.repo.realm().seal_shared(header, None, &self.signing(), payload).unwrap();
        let name = IndexName(*sealed.last_chunk().unwrap());
        self.write(&self.repo.names().index(&name), sealed);
        name
    }

    pub fn write(&self, name: &str, bytes: Vec<u8>) {
        self.repo.store().write(name, bytes.into()).unwrap();
    }

    /// Writes a snapshot object of any payload.
    pub fn snapshot_of(&self, id: SnapshotId, payload: &[u8]) {
        let name = self.repo.names().snapshot(&id);
        let header = self.header(ObjectType::Snapshot);
        let sealed = self.repo.realm().seal_private(header, &name, &self.signing(), &self.public, payload).unwrap();
        self.write(&name, sealed);
    }

    /// Publishes what was put, and a snapshot with this root.
    pub fn snapshot(&self, root: Content) {
        self.publish();
        self.snapshot_of(SnapshotId([0xab; 16]), &manifest(root).encode());
    }

    /// The path of a folder that nobody may write to; it holds the file `kept`.
    pub fn outside(&self) -> PathBuf {
        self.place.write("outside/kept", "kept").parent().unwrap().to_path_buf()
    }

    /// Panics if anything of what [`Hostile::outside`] made has changed.
    #[track_caller]
    pub fn expect_untouched(&self) {
        let names: Vec<_> =
            std::fs::read_dir(self.place.path("outside")).unwrap().map(|e| e.unwrap().path()).collect();
        assert_eq!(names, [self.place.path("outside/kept")]);
        assert_eq!(std::fs::read(self.place.path("outside/kept")).unwrap(), b"kept");
    }

    /// Restores the newest snapshot to `target`.
    pub fn restore(&self, more: &[&str]) -> Ran {
        self.place.run(&[&["restore", "latest", "--target", "target", "--numeric-owner"], more].concat())
    }
}

pub fn with_content(name: impl Into<Vec<u8>>, content: Content) -> Node {
    Node { size: content.len(), content, ..Node::new(name, Kind::File) }
}

pub fn folder(name: impl Into<Vec<u8>>, content: Content) -> Node {
    Node { content, ..Node::new(name, Kind::Dir) }
}

pub fn manifest(root: Content) -> Manifest {
    let time = Timestamp { seconds: 1_700_000_000, nanos: 0 };
    Manifest {
        time,
        started: time,
        ended: time,
        host: "host".into(),
        user: String::new(),
        paths: vec![b".".to_vec()],
        source: vec![b"/x".to_vec()],
        source_kind: SourceKind::Files,
        tags: Vec::new(),
        kind: SnapshotKind::Full,
        base: None,
        root,
        summary: Summary::default(),
        program: String::new(),
        chain: [1; 16],
        counter: 1,
        previous: None,
        repaired: None,
        origin: None,
    }
}
