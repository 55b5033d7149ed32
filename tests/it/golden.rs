//! The worked example of repo-format.md: small objects made from fixed secrets. The test holds the
//! page against the program; with `ESTRATO_BLESS=1` it writes the example into the page anew. What HPKE
//! encapsulates and what zstd packs is other bytes each time, or in each version: that is read from the page, must
//! open and decode, and is made anew only where it does not.

use estrato::chunker::Chunker;
use estrato::clock::Timestamp;
use estrato::crypto::aead::Sealer;
use estrato::crypto::derive::{IdKeys, subkey};
use estrato::crypto::envelope::Realm;
use estrato::crypto::hpke::{self, PrivateKey, PublicKey};
use estrato::crypto::keyfile::{KeyFile, recipient_from_text};
use estrato::crypto::sign::{self, Place, Signing};
use estrato::crypto::slot;
use estrato::format::content::{Content, Extent};
use estrato::format::header::{self, Cipher, Header, ObjectType, associated_data, ordinal};
use estrato::format::index::{IndexObject, PackEntry};
use estrato::format::key::{Bundle, LaterKeys, Role, STRETCH, Signer, SignerList, Slot, SlotKind};
use estrato::format::manifest::{Manifest, SnapshotKind, SourceKind, Summary, Tally};
use estrato::format::names::{TenantNames, within_tenant};
use estrato::format::node::{Kind, Node, decode_segment, encode_segment};
use estrato::format::pack::{BlobKind, Codec, Directory, Frame, StorageClass, Trailer};
use estrato::format::records::{RepoRecord, SessionRecord, TenantRecord, Tombstone};
use estrato::format::standing::{Forgotten, ForgottenSnapshot, Hold};
use estrato::id::{BlobId, PackName, RepositoryId, SnapshotId, TenantId, to_hex};
use estrato::pack::{Bases, Compressor, Decompressor, PlainFrame, WholePack};
use std::fmt::Write as _;
use std::path::PathBuf;
use zeroize::Zeroizing;

const BEGIN: &str = "<!-- example: begin -->\n```text\n";
const END: &str = "```\n<!-- example: end -->";

const TENANT: TenantId = TenantId([0xa0; 16]);
const SNAPSHOT: SnapshotId = SnapshotId([0xb0; 16]);
const ID_KEY: [u8; 32] = [0x01; 32];
const SEED: [u8; 32] = [0x02; 32];
const DATA_KEY: [u8; 32] = [0x03; 32];
const KEY_FILE: [u8; 32] = [0x04; 32];
const TENANT_SEED: [u8; 32] = [0x05; 32];
const SALT: [u8; 32] = [0x06; 32];
const IKM: [u8; 32] = [0x07; 32];
const TIME: Timestamp = Timestamp { seconds: 1_700_000_000, nanos: 5 };
const HELLO: &[u8] = b"hello";

/// The text of the example.
#[derive(Default)]
struct Page(String);

/// Bytes that the example in the page gives under this name, of whatever length.
fn recorded(old: &str, what: &str) -> Option<Vec<u8>> {
    let mut lines = old.lines().skip_while(|line| !line.starts_with(&format!("{what}, ")));
    lines.next()?;
    let digits: String = lines.take_while(|line| line.starts_with("  ")).map(str::trim).collect();
    digits.as_bytes().chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok()).collect()
}

impl Page {
    fn title(&mut self, text: &str) {
        let gap = if self.0.is_empty() { "" } else { "\n" };
        writeln!(self.0, "{gap}# {text}").unwrap();
    }

    fn bytes(&mut self, what: &str, bytes: &[u8]) {
        if bytes.len() <= 32 {
            return writeln!(self.0, "{what}: {}", to_hex(bytes)).unwrap();
        }
        writeln!(self.0, "{what}, {} bytes:", bytes.len()).unwrap();
        for line in bytes.chunks(48) {
            writeln!(self.0, "  {}", to_hex(line)).unwrap();
        }
    }

    fn text(&mut self, what: &str, text: &str) {
        writeln!(self.0, "{what}: {text}").unwrap();
    }
}

fn names() -> TenantNames {
    TenantNames::new("clinic").unwrap()
}

fn header(object: ObjectType) -> Header {
    Header { object, cipher: Cipher::Aes256Gcm }
}

fn hello() -> BlobId {
    IdKeys::new(&ID_KEY).blob_id(BlobKind::Chunk, HELLO)
}

fn secrets(page: &mut Page) {
    page.title("secrets that the example is made of");
    page.bytes("tenant id", TENANT.as_bytes());
    page.text("tenant name", names().name());
    page.bytes("id key", &ID_KEY);
    page.bytes("data key", &DATA_KEY);
    page.bytes("key file", &KEY_FILE);
    page.bytes("signer's seed", &SEED);
    page.bytes("tenant's signing seed", &TENANT_SEED);
    page.bytes("salt", &SALT);
}

fn derived(page: &mut Page) {
    page.title("keys derived from the id key");
    for use_of in ["chunk id", "tree id", "list id", "gear table", "shared record", "hpke psk", "local state"] {
        page.bytes(&format!("estrato 0 {use_of}"), &*subkey(&format!("estrato 0 {use_of}"), &ID_KEY));
    }
    page.title("blob ids of \"hello\"");
    let keys = IdKeys::new(&ID_KEY);
    for (name, kind) in [("chunk", BlobKind::Chunk), ("tree", BlobKind::Tree), ("list", BlobKind::List)] {
        page.bytes(name, keys.blob_id(kind, HELLO).as_bytes());
    }
    page.title("the HPKE key pair derived from 32 bytes 07");
    let (private, public) = hpke::pair_from_seed(&IKM);
    page.bytes("private key", &*private);
    page.bytes("BLAKE3 of the public key (1216 bytes)", blake3::hash(&public.to_bytes()).as_bytes());
}

fn cuts(page: &mut Page) {
    page.title("chunk lengths of a stream: the BLAKE3 XOF of nothing, 1,000,000 bytes of it, raw or as text");
    let mut random = vec![0; 1_000_000];
    blake3::Hasher::new().finalize_xof().fill(&mut random);
    let text: Vec<u8> = random.iter().map(|b| b'a' + (b & 15)).collect();
    let keys = IdKeys::new(&ID_KEY);
    let chunker = Chunker::new(&keys.gear);
    let show = |data: &[u8]| {
        let lens: Vec<String> = chunker.cut_all(data).iter().map(usize::to_string).collect();
        format!("{} chunks: {}", lens.len(), lens[..lens.len().min(16)].join(" "))
    };
    let mut table = [0; 32];
    blake3::Hasher::new_keyed(&keys.gear).finalize_xof().fill(&mut table);
    let numbers: Vec<String> =
        table.as_chunks().0.iter().map(|n| format!("{:#018x}", u64::from_le_bytes(*n))).collect();
    page.text("G[0] to G[3] of the table", &numbers.join(" "));
    page.text("raw", &show(&random));
    page.text("text, each byte b as 'a' + (b & 15), the first 16", &show(&text));
}

fn heads(page: &mut Page) {
    page.title("header and associated data of frame 1 of a pack, AES-256-GCM");
    page.bytes("header", &header(ObjectType::Pack).encode());
    page.bytes("associated data", &associated_data(header(ObjectType::Pack), TENANT, 1, None));
    page.title("associated data of a snapshot's record");
    let name = names().snapshot(&SNAPSHOT);
    let name = within_tenant(&name);
    page.text("name", name);
    page.bytes(
        "associated data",
        &associated_data(header(ObjectType::Snapshot), TENANT, ordinal::RECORD, Some(name)),
    );
    page.title("frame 0 of a pack, plaintext \"hello\" under codec 0, sealed under the data key");
    for cipher in [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
        let aad = associated_data(Header { object: ObjectType::Pack, cipher }, TENANT, 0, None);
        let sealer = Sealer::new(cipher, &DATA_KEY);
        let mut frame = HELLO.to_vec();
        sealer.seal(0, &aad, &mut frame, 0);
        page.bytes(cipher.name(), &frame);
        assert_eq!(sealer.open(0, &aad, &mut frame).unwrap(), HELLO);
    }
}

fn directory(with_ids: bool) -> Directory {
    let frame = Frame {
        stored: 21,
        codec: Codec::Raw,
        kind: BlobKind::Chunk,
        depth: 0,
        bases: Vec::new(),
        lens: vec![5],
        ids: if with_ids { vec![hello()] } else { Vec::new() },
    };
    Directory { class: StorageClass::Data, frames: vec![frame] }
}

fn pack_and_index(page: &mut Page) {
    page.title("the directory and the trailer of that pack, AES-256-GCM");
    let (mut plain, mut sealed) = (Vec::new(), Vec::new());
    directory(false).write_to(&mut plain, false);
    assert_eq!(Directory::decode(&plain).unwrap(), directory(false));
    let sealer = Sealer::new(Cipher::Aes256Gcm, &DATA_KEY);
    page.bytes("directory", &plain);
    sealed.extend_from_slice(&plain);
    let aad = |ordinal| associated_data(header(ObjectType::Pack), TENANT, ordinal, None);
    sealer.seal(ordinal::DIRECTORY, &aad(ordinal::DIRECTORY), &mut sealed, 0);
    page.bytes("directory, sealed", &sealed);
    let trailer = Trailer { directory: sealed.len() as u64, parity: 0 };
    page.bytes("trailer", &trailer.encode());
    let mut sealed = trailer.encode().to_vec();
    sealer.seal(ordinal::TRAILER, &aad(ordinal::TRAILER), &mut sealed, 0);
    page.bytes("trailer, sealed", &sealed);

    page.title("the record of an index object with that pack, before compression");
    let pack = PackEntry { name: PackName([0xc0; 32]), size: 1292, directory: directory(true) };
    let index = IndexObject { packs: vec![pack], ..IndexObject::default() };
    assert_eq!(IndexObject::decode(&index.encode()).unwrap(), index);
    page.bytes("record", &index.encode());
}

fn trees(page: &mut Page) {
    page.title("a content: \"hello\", then a hole of 4,096 bytes");
    let extents = vec![Extent { id: Some(hello()), len: 5 }, Extent { id: None, len: 4096 }];
    let content = Content { level: 0, extents };
    page.bytes("record", &content.encode());
    assert_eq!(Content::decode(&content.encode()).unwrap(), content);

    page.title("a tree segment: the file \"a\" with that content, and the link \"b\" to \"a\"");
    let common = |name: &str, kind| Node { mtime: TIME, ctime: TIME, inode: 7, device: 8, ..Node::new(name, kind) };
    let file = Node {
        user: "ana".into(),
        uid: 1000,
        size: content.len(),
        content,
        xattrs: vec![(b"user.x".to_vec(), b"1".to_vec())],
        ..common("a", Kind::File)
    };
    let link = Node { mode: 0o777, target: b"a".to_vec(), ..common("b", Kind::Symlink) };
    let mut nodes = Vec::new();
    file.write_to(&mut nodes);
    link.write_to(&mut nodes);
    let segment = encode_segment(2, &nodes);
    assert_eq!(decode_segment(&segment).unwrap(), [file, link]);
    page.bytes("blob", &segment);
    let id = IdKeys::new(&ID_KEY).blob_id(BlobKind::Tree, &segment);
    page.bytes("its id", id.as_bytes());

    page.title("the manifest of a snapshot whose root is that segment");
    let manifest = manifest(Extent { id: Some(id), len: segment.len() as u64 });
    assert_eq!(Manifest::decode(&manifest.encode()).unwrap(), manifest);
    page.bytes("record", &manifest.encode());
}

fn manifest(root: Extent) -> Manifest {
    let all = Tally { entries: 2, bytes: 4101 };
    Manifest {
        time: TIME,
        started: TIME,
        ended: TIME,
        host: "db1".into(),
        user: "ana".into(),
        paths: vec![b".".to_vec()],
        source: vec![b"/srv".to_vec()],
        source_kind: SourceKind::Files,
        tags: vec!["daily".into()],
        kind: SnapshotKind::Full,
        base: None,
        root: Content { level: 0, extents: vec![root] },
        summary: Summary {
            total: all,
            added: all,
            read_bytes: 5,
            new_bytes: 5,
            stored_bytes: 2000,
            ..Summary::default()
        },
        program: "estrato 0.1.0".into(),
        chain: [0xd0; 16],
        counter: 1,
        previous: None,
        repaired: None,
        origin: None,
    }
}

fn writers_bundle() -> Bundle {
    Bundle {
        role: Role::Writer,
        tenant: TENANT,
        id_key: ID_KEY,
        tenant_verifying: Signing::from_seed(&TENANT_SEED).id().0,
        signer_seed: SEED,
        private_key: None,
        tenant_seed: None,
        former_keys: Vec::new(),
    }
}

fn keys(page: &mut Page) {
    page.title("the key file's line, its slots, and the key pair of its recipient");
    let key = KeyFile(Zeroizing::new(KEY_FILE));
    assert_eq!(*KeyFile::from_text(&key.to_text()).unwrap().0, KEY_FILE);
    page.text("line", &key.to_text());
    let [own, as_recipient] = slot::key_file_slots(&key, TENANT);
    page.bytes("slot as a key file", own.as_bytes());
    page.bytes("slot as a recipient", as_recipient.as_bytes());
    page.bytes("recipient's private key", &*key.recipient().0);
    assert!(recipient_from_text(&key.recipient_text()).is_ok());
    page.text("recipient's line", &format!("{}…", &key.recipient_text()[..49]));

    page.title("a slot of that key file: bundle of a writer, slot record");
    let bundle = writers_bundle();
    page.bytes("bundle", &bundle.encode());
    let slot_header = Header { object: ObjectType::Slot, cipher: Cipher::ChaCha20Poly1305 };
    let aad = associated_data(slot_header, TENANT, ordinal::RECORD, Some(&own.to_string()));
    let sealing = blake3::keyed_hash(&KEY_FILE, &SALT);
    let mut sealed = bundle.encode().to_vec();
    Sealer::new(Cipher::ChaCha20Poly1305, sealing.as_bytes()).seal(ordinal::RECORD, &aad, &mut sealed, 0);
    let (kind, encapsulated) = (SlotKind::KeyFile, Vec::new());
    let record = Slot { kind, salt: SALT, stretch: None, encapsulated, sealed, tenant: TENANT, later: None };
    page.bytes("record", &record.encode());
    let opened = slot::open(&slot::Credential::KeyFile(key), TENANT, &own, &record).unwrap();
    assert!(opened.is_some_and(|opened| opened == bundle));

    page.title("the list of signers that admits it");
    let signer = Signer {
        id: Signing::from_seed(&SEED).id(),
        role: Role::Writer,
        label: "db1".into(),
        slot: own,
        kind: SlotKind::KeyFile,
        added: TIME,
        removed: None,
        recipient: None,
        is_operator: false,
    };
    page.bytes("record", &SignerList { version: 2, signers: vec![signer], ..SignerList::default() }.encode());
}

fn signatures(page: &mut Page) {
    page.title("a signature: type 4, the tenant, the salt as freshness, a name, the payload \"hello\"");
    let object_name = names().session(&SNAPSHOT);
    let name = within_tenant(&object_name);
    let place = Place { object: ObjectType::Session, tenant: TENANT, fresh: &SALT, name: Some(name) };
    let signing = Signing::from_seed(&SEED);
    page.text("name", name);
    page.bytes("signer", signing.id().as_bytes());
    let signature = signing.sign(&place, HELLO);
    page.bytes("signature", &signature);
    sign::verify(&signing.id(), &signature, &place, HELLO).unwrap();

    page.title("a whole session object");
    let session =
        SessionRecord { owner: [0xe0; 16], started: TIME, host: "db1".into(), pid: 42, seen: 0, renewed: 0 };
    page.bytes("record", &session.encode());
    let object = sealed_session(name, &place, &signing, &session.encode());
    page.bytes("object", &object);
    let keys = IdKeys::new(&ID_KEY);
    let realm = Realm { tenant: TENANT, keys: &keys };
    let opened = realm.open_shared(ObjectType::Session, Some(&object_name), &object_name, &object).unwrap();
    assert_eq!((opened.signer, opened.payload), (signing.id(), session.encode()));
    assert_eq!(SessionRecord::decode(&session.encode()).unwrap(), session);
}

/// What the library does with a random salt, with the fixed one.
fn sealed_session(name: &str, place: &Place<'_>, signing: &Signing, payload: &[u8]) -> Vec<u8> {
    let head = header(ObjectType::Session);
    let mut object = head.encode().to_vec();
    object.extend_from_slice(&SALT);
    let start = object.len();
    object.extend_from_slice(signing.id().as_bytes());
    object.extend_from_slice(&signing.sign(place, payload));
    object.extend_from_slice(payload);
    let key = blake3::keyed_hash(&IdKeys::new(&ID_KEY).shared, &SALT);
    let aad = associated_data(head, TENANT, ordinal::RECORD, Some(name));
    Sealer::new(head.cipher, key.as_bytes()).seal(ordinal::RECORD, &aad, &mut object, start);
    header::close(&mut object);
    object
}

fn small_records(page: &mut Page) {
    page.title("small records");
    let repo = RepoRecord { id: RepositoryId([0xf0; 16]), create_if_absent: true, mirror: None };
    page.text("repo.json", String::from_utf8(repo.encode()).unwrap().trim_end());
    let tenant =
        TenantRecord { id: TENANT, public_key: vec![9; 4], verifying: Signing::from_seed(&TENANT_SEED).id().0 };
    page.bytes("tenant, with 4 bytes 09 for its public key", &tenant.encode());
    let tombstone = Tombstone { time: TIME, why: "forgotten".into() };
    page.bytes("tombstone", &tombstone.encode());
    let hold = Hold { time: TIME, why: "case 17".into() };
    page.bytes("hold", &hold.encode());
    let forgotten = ForgottenSnapshot {
        snapshot: SNAPSHOT,
        signer: Signing::from_seed(&SEED).id(),
        chain: [0xd0; 16],
        counter: 2,
        before: Some(SnapshotId([0xb1; 16])),
    };
    page.bytes("record of what was forgotten", &Forgotten { snapshots: vec![forgotten] }.encode());
    let stretched = Slot {
        kind: SlotKind::Password,
        salt: SALT,
        stretch: Some(STRETCH),
        encapsulated: Vec::new(),
        sealed: vec![0; 2],
        tenant: TENANT,
        later: None,
    };
    page.bytes("a password's slot, with 2 zero bytes for what is sealed", &stretched.encode());
    assert_eq!(Slot::decode(&stretched.encode()).unwrap(), stretched);
    let rekeyed = SignerList { version: 3, public_key: Some(vec![9; 4]), ..SignerList::default() };
    page.bytes("list of nobody, of a tenant with a new public key, for which 4 bytes 09 stand", &rekeyed.encode());
    page.bytes("later private keys in a recipient's slot, before they are sealed", &LaterKeys(vec![SEED]).encode());
}

fn own_pair() -> (PrivateKey, PublicKey) {
    PrivateKey::from_bytes(&hpke::pair_from_seed(&IKM).0).unwrap()
}

/// The directory of a pack of two frames, the second resting on the first; their plaintexts; and what the second
/// holds once it is packed.
fn two_frames() -> (Directory, [Vec<u8>; 2], Vec<u8>) {
    let keys = IdKeys::new(&ID_KEY);
    let mut base = vec![0; 200];
    blake3::Hasher::new().finalize_xof().fill(&mut base);
    let blob = [&base[..100], b"and what is new", &base[100..]].concat();
    let mut plain = PlainFrame::new(BlobKind::Chunk);
    plain.push(keys.blob_id(BlobKind::Chunk, &blob), &blob);
    let ids = vec![keys.blob_id(BlobKind::Chunk, &base).base()];
    let bases = Bases { ids, plain: base.clone(), depth: 0 };
    let delta = Compressor::new(1).unwrap().delta(&plain, &bases).unwrap().unwrap();
    let frame = |codec, stored: usize, depth, bases, len: usize| Frame {
        stored: stored as u32 + 16,
        codec,
        kind: BlobKind::Chunk,
        depth,
        bases,
        lens: vec![len as u32],
        ids: Vec::new(),
    };
    let frames = vec![
        frame(Codec::Raw, base.len(), 0, Vec::new(), base.len()),
        frame(Codec::Zstd, delta.payload.len(), 1, delta.bases, blob.len()),
    ];
    (Directory { class: StorageClass::Data, frames }, [base, blob], delta.payload)
}

/// A pack of these frames, under the data key, sealed to the key pair.
fn sealed_pack(directory: &Directory, payloads: [&[u8]; 2]) -> Vec<u8> {
    let keys = IdKeys::new(&ID_KEY);
    let head = header(ObjectType::Pack);
    let aad = |ordinal| associated_data(head, TENANT, ordinal, None);
    let psk = hpke::Psk { key: &keys.psk, name: TENANT.as_bytes() };
    let (encapsulated, key) = hpke::seal(&own_pair().1, Some(&psk), &DATA_KEY, &aad(ordinal::DATA_KEY)).unwrap();
    let mut pack = [&head.encode()[..], &encapsulated, &key].concat();
    let sealer = Sealer::new(head.cipher, &DATA_KEY);
    let mut put = |ordinal, plain: &[u8]| {
        let start = pack.len();
        pack.extend_from_slice(plain);
        sealer.seal(ordinal, &aad(ordinal), &mut pack, start);
        pack.len() - start
    };
    for (ordinal, payload) in (0..).zip(payloads) {
        put(ordinal, payload);
    }
    let mut encoded = Vec::new();
    directory.write_to(&mut encoded, false);
    let trailer = Trailer { directory: put(ordinal::DIRECTORY, &encoded) as u64, parity: 0 };
    put(ordinal::TRAILER, &trailer.encode());
    header::close(&mut pack);
    pack
}

/// A pack's data key, the blob of each frame, and the payload of the last.
type Opened = ([u8; 32], [Vec<u8>; 2], Vec<u8>);

/// What a reader finds in that pack.
fn opened_pack(pack: &[u8]) -> Option<Opened> {
    let keys = IdKeys::new(&ID_KEY);
    let realm = Realm { tenant: TENANT, keys: &keys };
    let key = realm.open_data_key(header(ObjectType::Pack), None, &own_pair().0, pack.get(8..1176)?).ok()?;
    let whole = WholePack::open(&realm, &own_pair().0, &PackName(*pack.last_chunk()?), pack).ok()?;
    let mut decompressor = Decompressor::new().unwrap();
    let (mut blobs, mut packed) = (Vec::<Vec<u8>>::new(), Vec::new());
    for (n, (offset, frame)) in whole.directory.offsets().enumerate() {
        let range = usize::try_from(offset).ok()?..usize::try_from(offset).ok()? + frame.stored as usize;
        let mut sealed = pack.get(range)?.to_vec();
        packed = whole.key.payload(n as u64, &mut sealed).ok()?.to_vec();
        let bases = if frame.depth > 0 { blobs.concat() } else { Vec::new() };
        blobs.push(decompressor.decode(frame, &packed, &bases).ok()?.to_vec());
    }
    Some((*key, blobs.try_into().ok()?, packed))
}

fn vectors(page: &mut Page, old: &str) {
    page.title("a whole pack of two frames, sealed to the key pair derived from 32 bytes 07, with the data key");
    let (directory, blobs, delta) = two_frames();
    let mut pack = recorded(old, "pack").unwrap_or_default();
    if !opened_pack(&pack).is_some_and(|(key, found, _)| key == DATA_KEY && found == blobs) {
        pack = sealed_pack(&directory, [&blobs[0], &delta]);
    }
    let (key, found, packed) = opened_pack(&pack).unwrap();
    assert!(key == DATA_KEY && found == blobs);
    page.text("blob 0", "the first 200 bytes of the BLAKE3 XOF of nothing, codec 0");
    page.text(
        "blob 1",
        "the same with \"and what is new\" behind the first 100, codec 1, depth 1, resting on blob 0",
    );
    page.bytes("frame 1, opened", &packed);
    page.bytes("pack", &pack);

    page.title("the slot of that key file as a recipient: the same writer's bundle");
    let key = KeyFile(Zeroizing::new(KEY_FILE));
    let id = slot::key_file_slots(&key, TENANT)[1];
    let bundle = writers_bundle();
    let opens = |record: &[u8]| {
        let slot = Slot::decode(record).ok()?;
        slot::open(&slot::Credential::KeyFile(KeyFile(Zeroizing::new(KEY_FILE))), TENANT, &id, &slot).ok()?
    };
    let mut record = recorded(old, "recipient's record").unwrap_or_default();
    if opens(&record).is_none_or(|opened| opened != bundle) {
        let slot_header = Header { object: ObjectType::Slot, cipher: Cipher::ChaCha20Poly1305 };
        let aad = associated_data(slot_header, TENANT, ordinal::RECORD, Some(&id.to_string()));
        let (encapsulated, sealed) = hpke::seal(&key.recipient().1, None, &bundle.encode(), &aad).unwrap();
        let kind = SlotKind::Recipient;
        record = Slot { kind, salt: SALT, stretch: None, encapsulated, sealed, tenant: TENANT, later: None }.encode();
    }
    assert!(opens(&record).is_some_and(|opened| opened == bundle));
    page.bytes("recipient's record", &record);

    page.title("a whole tenant object, whose public key is that of the key pair derived from 32 bytes 07");
    let signing = Signing::from_seed(&TENANT_SEED);
    let record = TenantRecord { id: TENANT, public_key: own_pair().1.to_bytes(), verifying: signing.id().0 }.encode();
    let head = header(ObjectType::Tenant).encode();
    let place = Place { object: ObjectType::Tenant, tenant: TENANT, fresh: &head, name: None };
    let signature = signing.sign(&place, &record);
    let mut object = [&head[..], &record, &signature].concat();
    header::close(&mut object);
    page.bytes("its signature", &signature);
    page.bytes("tenant object", &object);
}

fn example(old: &str) -> String {
    let mut page = Page::default();
    secrets(&mut page);
    derived(&mut page);
    cuts(&mut page);
    heads(&mut page);
    pack_and_index(&mut page);
    trees(&mut page);
    keys(&mut page);
    signatures(&mut page);
    small_records(&mut page);
    vectors(&mut page, old);
    page.0
}

#[test]
fn the_example_in_the_page_is_what_the_program_makes() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("repo-format.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("repo-format.md has the mark where the example begins");
    let (found, after) = rest.split_once(END).expect("repo-format.md has the mark where the example ends");
    let made = example(found);
    if std::env::var_os("ESTRATO_BLESS").is_some() {
        std::fs::write(&path, [before, BEGIN, &made, END, after].concat()).unwrap();
        return;
    }
    for (found, made) in found.lines().zip(made.lines()) {
        assert_eq!(found, made, "the example differs; if the format was to change, run with ESTRATO_BLESS=1");
    }
    assert_eq!(found, made, "the example is cut short or too long; run with ESTRATO_BLESS=1");
}
