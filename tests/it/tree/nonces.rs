//! Data keys and nonces never repeat: not over very many packs, and not over attempts that broke off.

use super::hostile::{Hostile, open};
use crate::support::Place;
use bytes::Bytes;
use estrato::clock::SystemClock;
use estrato::crypto::aead::Sealer;
use estrato::crypto::hpke::PrivateKey;
use estrato::crypto::slot::Credential;
use estrato::error::{StoreError, StoreFault};
use estrato::format::header::{HEADER_LEN, Header, ObjectType, associated_data, ordinal};
use estrato::format::pack::{BlobKind, Directory, FRAMES_AT, StorageClass, TAG_LEN, TAIL_LEN, TRAILER_LEN, Trailer};
use estrato::monitor::Silent;
use estrato::pack::{Compressor, FinishedPack, PlainFrame};
use estrato::repo::{Access, Deltas, Repository, Session, Writer, WriterState};
use estrato::store::{Listed, Store};
use std::collections::HashSet;
use std::sync::{Arc, Mutex};

/// What seals a message: the key, and the nonce, which follows from the ordinal.
type Used = ([u8; 32], u64);

/// Opens every message of a pack with the tenant's private key, and notes what sealed it.
struct Ledger<'w> {
    world: &'w Hostile,
    private: PrivateKey,
    keys: HashSet<[u8; 32]>,
    used: HashSet<Used>,
}

impl<'w> Ledger<'w> {
    fn new(world: &'w Hostile) -> Self {
        let private = PrivateKey::from_bytes(&world.bundle.private_key.unwrap()).unwrap().0;
        Self { world, private, keys: HashSet::new(), used: HashSet::new() }
    }

    /// Panics if anything in the pack was sealed as something before it.
    fn enter(&mut self, bytes: &[u8]) {
        let (realm, tenant) = (self.world.repo.realm(), self.world.repo.tenant());
        let header = Header::decode(bytes, "a pack").unwrap();
        let head = &bytes[HEADER_LEN..FRAMES_AT as usize];
        let key = *realm.open_data_key(header, None, &self.private, head).unwrap();
        assert!(self.keys.insert(key), "a data key was used twice");
        let sealer = Sealer::new(header.cipher, &key);
        let mut open = |number: u64, sealed: &[u8]| {
            assert!(self.used.insert((key, number)), "a nonce was used twice");
            let mut sealed = sealed.to_vec();
            sealer.open(number, &associated_data(header, tenant, number, None), &mut sealed).unwrap().to_vec()
        };
        let tail = bytes.len() - TAIL_LEN;
        let trailer = Trailer::decode(&open(ordinal::TRAILER, &bytes[tail..][..TRAILER_LEN])).unwrap();
        let at = tail - usize::try_from(trailer.directory).unwrap();
        let directory = Directory::decode(&open(ordinal::DIRECTORY, &bytes[at..tail])).unwrap();
        for (number, (at, frame)) in directory.offsets().enumerate() {
            let sealed = &bytes[at as usize..][..frame.stored as usize];
            assert_eq!(open(number as u64, sealed).len() + TAG_LEN, sealed.len());
        }
        assert_eq!(directory.frames_end(), at as u64);
    }
}

fn pack(world: &Hostile, compressor: &mut Compressor, n: u64) -> FinishedPack {
    let mut builder = world.builder(if n.is_multiple_of(2) { StorageClass::Data } else { StorageClass::Trees });
    for frame in 0..1 + n % 3 {
        // The same plaintext every time: only the key makes a difference.
        let kind = if n.is_multiple_of(2) { BlobKind::Chunk } else { BlobKind::Tree };
        let mut plain = PlainFrame::new(kind);
        let bytes = [frame as u8; 20];
        plain.push(world.repo.id_keys().blob_id(kind, &bytes), &bytes);
        builder.push(compressor.encode(plain).unwrap().0).unwrap();
    }
    builder.finish().unwrap()
}

#[test]
fn no_data_key_and_no_nonce_repeats_over_very_many_packs() {
    let world = Hostile::new();
    let packs = if std::env::var_os("ESTRATO_LONG_TESTS").is_some() { 100_000 } else { 5_000 };
    let mut ledger = Ledger::new(&world);
    let mut compressor = Compressor::new(1).unwrap();
    let mut names = HashSet::new();
    for n in 0..packs {
        let pack = pack(&world, &mut compressor, n);
        assert!(names.insert(pack.entry.name), "two packs of one name");
        ledger.enter(&pack.bytes);
    }
    assert_eq!(ledger.keys.len() as u64, packs);
}

#[test]
fn no_key_repeats_over_shared_and_private_records() {
    let world = Hostile::new();
    let (realm, signing) = (world.repo.realm(), world.signing());
    let private = PrivateKey::from_bytes(&world.bundle.private_key.unwrap()).unwrap().0;
    let (mut salts, mut keys) = (HashSet::new(), HashSet::new());
    for _ in 0..2000 {
        // A session object is sealed again and again under one name.
        let sealed =
            realm.seal_shared(world.header(ObjectType::Session), Some("sessions/a"), &signing, b"the same").unwrap();
        let salt: [u8; 32] = sealed[HEADER_LEN..][..32].try_into().unwrap();
        assert!(salts.insert(salt), "a salt was used twice");
        let header = world.header(ObjectType::Snapshot);
        let sealed = realm.seal_private(header, "snapshots/a", &signing, &world.public, b"the same").unwrap();
        let head = &sealed[HEADER_LEN..FRAMES_AT as usize];
        let key = *realm.open_data_key(header, Some("snapshots/a"), &private, head).unwrap();
        assert!(keys.insert(key), "a data key was used twice");
    }
}

/// A store that keeps every pack that it was sent, whatever it answers.
struct Witness {
    inner: Arc<dyn Store>,
    sent: Mutex<Vec<Bytes>>,
    /// What it does with the next packs.
    answers: Mutex<Vec<Answer>>,
}

#[derive(Clone, Copy)]
enum Answer {
    /// Not stored, and an error.
    Refused,
    /// Stored, and an error.
    Lost,
    /// Stored in part under a name of its own, and an error.
    Torn,
}

impl Store for Witness {
    fn describe(&self) -> String {
        "a store that sees everything".into()
    }
    fn create(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        if !name.contains("/packs/") {
            return self.inner.create(name, data);
        }
        self.sent.lock().unwrap().push(data.clone());
        let why = "the connection broke off".to_owned();
        let broken = StoreError { fault: StoreFault::Unavailable, operation: "create", object: name.into(), why };
        match self.answers.lock().unwrap().pop() {
            None => self.inner.create(name, data),
            Some(Answer::Refused) => Err(broken),
            Some(Answer::Lost) => self.inner.create(name, data).and(Err(broken)),
            Some(Answer::Torn) => {
                let torn = data.slice(..data.len() / 2);
                self.inner.create(&format!("{name}.part{}", self.sent.lock().unwrap().len()), torn).and(Err(broken))
            }
        }
    }
    fn write(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        self.inner.write(name, data)
    }
    fn read(&self, name: &str, max: u64) -> Result<Bytes, StoreError> {
        self.inner.read(name, max)
    }
    fn read_range(&self, name: &str, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        self.inner.read_range(name, offset, len)
    }
    fn size(&self, name: &str) -> Result<u64, StoreError> {
        self.inner.size(name)
    }
    fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        self.inner.list(folder)
    }
    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.inner.delete(name)
    }
}

fn witnessed(place: &Place) -> (Arc<Witness>, Repository) {
    let inner = Arc::clone(open(place).store());
    let witness = Arc::new(Witness { inner, sent: Mutex::default(), answers: Mutex::default() });
    let store: Arc<dyn Store> = Arc::<Witness>::clone(&witness);
    let credential = Credential::KeyFile(super::hostile::key_file(place));
    let clock = Arc::new(SystemClock::default());
    let access = Access { store, clock, tenant: "default".into(), credential, cache: None };
    (witness, Repository::open(access).unwrap())
}

/// Puts the same blobs through a whole writer; whether that went well.
fn put(repo: &Repository) -> bool {
    let session = Session::begin(repo, "host").unwrap();
    let state = WriterState::new(Deltas::Chains, &Silent);
    let put = std::thread::scope(|scope| {
        let writer = Writer::start(scope, &session, &state, 1, 2);
        let mut lane = writer.lane();
        let mut put = || -> estrato::error::Result<()> {
            for n in 0..4u8 {
                lane.put(BlobKind::Chunk, &[n; 3000])?;
                lane.put(BlobKind::Tree, &[n; 300])?;
            }
            Ok(())
        };
        let put = put().and_then(|()| lane.finish());
        writer.finish().and(put)
    });
    session.abandon();
    put.is_ok()
}

#[test]
fn an_attempt_that_broke_off_and_the_next_one_share_no_key() {
    let world = Hostile::new();
    let (witness, repo) = witnessed(&world.place);
    let (mut failed, mut stored) = (0, 0);
    for n in 0..150 {
        let answer = [Answer::Refused, Answer::Lost, Answer::Torn][n % 3];
        if n % 10 != 9 {
            *witness.answers.lock().unwrap() = vec![answer; 1 + n % 2];
        }
        if put(&repo) {
            stored += 1;
            // What is stored now would not be sent again: it is taken away.
            for index in world.place.objects("index") {
                std::fs::remove_file(index).unwrap();
            }
        } else {
            failed += 1;
        }
        witness.answers.lock().unwrap().clear();
    }
    assert!(failed >= 100 && stored >= 10, "{failed} failed, {stored} stored");
    let mut ledger = Ledger::new(&world);
    let sent = witness.sent.lock().unwrap();
    assert!(sent.len() >= 150, "{}", sent.len());
    for pack in sent.iter() {
        ledger.enter(pack);
    }
}
