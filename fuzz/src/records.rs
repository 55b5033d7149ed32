//! The small records, and the envelopes around them: `repo.json`, tenants,
//! sessions, plans, tombstones, holds, what was forgotten and what is damaged,
//! manifests, signers, bundles, slots, keys as text, names, headers, and what is
//! sealed and signed.
//!
//! Slots are opened with a key file only. To stretch a password costs what the
//! slot asks for, up to a gigabyte: that the bounds hold is the decoder's test.

use super::{Seeds, choose, chosen, there_and_back};
use estrato::clock::Timestamp;
use estrato::crypto::aead::{KeyBytes, Sealer};
use estrato::crypto::derive::IdKeys;
use estrato::crypto::envelope::Realm;
use estrato::crypto::hpke::{self, PrivateKey, PublicKey};
use estrato::crypto::keyfile::{KeyFile, recipient_from_text};
use estrato::crypto::sign::{Place, Signing};
use estrato::crypto::slot::{self, Credential, Holder};
use estrato::format::content::{Content, Extent};
use estrato::format::header::{self, Cipher, HEADER_LEN, Header, ObjectType, associated_data, ordinal};
use estrato::format::key::{Bundle, Role, STRETCH, Signed, Signer, SignerList, Slot, SlotKind};
use estrato::format::manifest::{Manifest, Origin, Repaired, SnapshotKind, SourceKind, Summary};
use estrato::format::names::{TenantNames, last_part};
use estrato::format::records::{DamageRecord, LeftPack, Plan, RepoRecord, SessionRecord, TenantRecord, Tombstone};
use estrato::format::standing::{Forgotten, ForgottenSnapshot, Hold};
use estrato::id::{BlobId, IndexName, PackName, RepositoryId, SignerId, SlotId, SnapshotId, TenantId};
use std::sync::OnceLock;
use zeroize::Zeroizing;

const WAYS: usize = 23;
const TENANT: TenantId = TenantId([1; 16]);
/// Within the tenant's folder: what objects are bound to.
const NAME: &str = "snapshots/a";
const SALT: [u8; 32] = [7; 32];

/// One tenant's keys, made once.
struct Keys {
    ids: IdKeys,
    private: PrivateKey,
    public: PublicKey,
    signing: Signing,
    /// A data key, and the head that opens to it.
    data: (KeyBytes, Vec<u8>),
}

const SEALED: Header = Header { object: ObjectType::Snapshot, cipher: Cipher::Aes256Gcm };

fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| {
        let ids = IdKeys::new(&[1; 32]);
        let (private, public) = hpke::pair_from_seed(&[3; 32]);
        let private = PrivateKey::from_bytes(&private).unwrap().0;
        let data = Realm { tenant: TENANT, keys: &ids }.new_data_key(SEALED, Some(NAME), &public).unwrap();
        Keys { ids, private, public, signing: Signing::from_seed(&[2; 32]), data }
    })
}

fn key_file() -> KeyFile {
    KeyFile(Zeroizing::new([5; 32]))
}

/// One input.
pub fn run(data: &[u8]) -> bool {
    let Some((way, data)) = choose(data, WAYS) else { return false };
    match way {
        0 => there_and_back(data, |b| Header::decode(b, "x"), |h| h.encode().to_vec(), |a, b| a == b),
        1 => there_and_back(data, |b| RepoRecord::decode(b, "x"), RepoRecord::encode, |a, b| a == b),
        2 => there_and_back(data, TenantRecord::decode, TenantRecord::encode, |a, b| a == b),
        3 => there_and_back(data, SessionRecord::decode, SessionRecord::encode, |a, b| a == b),
        4 => there_and_back(data, Plan::decode, Plan::encode, |a, b| a == b),
        5 => there_and_back(data, Tombstone::decode, Tombstone::encode, |a, b| a == b),
        6 => there_and_back(data, Manifest::decode, Manifest::encode, |a, b| a == b),
        7 => there_and_back(data, SignerList::decode, SignerList::encode, |a, b| a == b),
        8 => there_and_back(data, Bundle::decode, |b| b.encode().to_vec(), |a, b| a == b),
        9 => there_and_back(data, Slot::decode, Slot::encode, |a, b| a == b),
        10 => signed(data),
        11 => key_text(data),
        12 => typed_key(data),
        13 => names(data),
        14 => header::opened(data).is_ok() | header::opened(&closed(data.to_vec())).is_ok(),
        15 => opens(closed(data.to_vec())),
        16 => opens(shared(data)),
        17 => opens(private(data)),
        18 => opened_slot(data),
        19 => sealed_bundle(data),
        20 => there_and_back(data, Forgotten::decode, Forgotten::encode, |a, b| a == b),
        21 => there_and_back(data, Hold::decode, Hold::encode, |a, b| a == b),
        _ => there_and_back(data, DamageRecord::decode, DamageRecord::encode, |a, b| a == b),
    }
}

fn signed(data: &[u8]) -> bool {
    let Ok(signed) = Signed::decode(data) else { return false };
    assert_eq!([&signed.signer.0[..], &signed.signature, signed.payload].concat(), data);
    true
}

/// Text that anyone may have typed.
fn key_text(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let recipient = recipient_from_text(text);
    match KeyFile::from_text(text) {
        Ok(key) => {
            assert_eq!(KeyFile::from_text(&key.to_text()).unwrap().0, key.0);
            true
        }
        Err(_) => recipient.is_ok(),
    }
}

/// A key's own text, with spaces, dashes and small letters wherever the input says.
fn typed_key(data: &[u8]) -> bool {
    let Some((key, how)) = data.split_first_chunk::<32>() else { return false };
    let mut text = String::new();
    for (at, letter) in KeyFile(Zeroizing::new(*key)).to_text().chars().enumerate() {
        match how.get(at).map_or(0, |b| b % 5) {
            1 => text.extend([letter, ' ']),
            2 => text.extend([letter, '-', '-']),
            3 => text.push(letter.to_ascii_lowercase()),
            4 if letter == '0' => text.push('o'),
            4 if letter == '1' => text.push('l'),
            _ => text.push(letter),
        }
    }
    assert_eq!(KeyFile::from_text(&text).unwrap().0[..], key[..]);
    true
}

fn names(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let last = last_part(text);
    assert!(!last.contains('/') && text.ends_with(last));
    if let Ok(id) = last.parse::<PackName>() {
        assert_eq!(id.to_string(), last);
    }
    if let Ok(id) = last.parse::<SnapshotId>() {
        assert_eq!(id.to_string(), last);
    }
    let Ok(names) = TenantNames::new(text) else { return false };
    let parts: Vec<&str> = text.split('/').collect();
    assert!(parts.len() == 1 && text != "." && text != ".." && names.name() == text);
    assert_eq!(names.tenant().split('/').collect::<Vec<_>>(), ["tenants", text, "tenant"]);
    true
}

fn closed(mut object: Vec<u8>) -> Vec<u8> {
    header::close(&mut object);
    object
}

/// A shared record whose plaintext is `plain`: signer, signature and payload are whatever it holds.
/// If it begins with zeros in place of the signer, it is signed as it should be.
fn shared(plain: &[u8]) -> Vec<u8> {
    let place = Place { object: SEALED.object, tenant: TENANT, fresh: &SALT, name: Some(NAME) };
    let key = *blake3::keyed_hash(&keys().ids.shared, &SALT).as_bytes();
    sealed([&SEALED.encode()[..], &SALT].concat(), &key, &sign(plain, &place))
}

/// A private record whose plaintext is `plain`.
fn private(plain: &[u8]) -> Vec<u8> {
    let (key, head) = &keys().data;
    let place = Place { object: SEALED.object, tenant: TENANT, fresh: head, name: Some(NAME) };
    sealed([&SEALED.encode()[..], head].concat(), key, &sign(plain, &place))
}

fn sign(plain: &[u8], place: &Place<'_>) -> Vec<u8> {
    match plain.split_at_checked(Signed::OVERHEAD) {
        Some((front, payload)) if front[..32] == [0; 32] => {
            let signing = &keys().signing;
            [signing.id().as_bytes(), &signing.sign(place, payload), payload].concat()
        }
        _ => plain.to_vec(),
    }
}

fn sealed(mut object: Vec<u8>, key: &[u8; 32], plain: &[u8]) -> Vec<u8> {
    let start = object.len();
    object.extend_from_slice(plain);
    let aad = associated_data(SEALED, TENANT, ordinal::RECORD, Some(NAME));
    Sealer::new(SEALED.cipher, key).seal(ordinal::RECORD, &aad, &mut object, start);
    closed(object)
}

/// Opens an object as everything that it may be; what opens was signed.
fn opens(object: Vec<u8>) -> bool {
    let realm = Realm { tenant: TENANT, keys: &keys().ids };
    let shared = realm.open_shared(SEALED.object, Some(NAME), "x", &object);
    let private = realm.open_private(SEALED.object, NAME, &keys().private, &object);
    assert!(realm.open_shared(ObjectType::Plan, Some(NAME), "x", &object).is_err(), "it is a snapshot");
    let signer = shared.ok().or(private.ok()).map(|opened| opened.signer);
    signer == Some(keys().signing.id())
}

/// A slot's record, opened with a key that it may have been made for.
fn opened_slot(data: &[u8]) -> bool {
    let Ok(slot) = Slot::decode(data) else { return false };
    let key = key_file();
    let ids = slot::key_file_slots(&key, TENANT);
    let credential = Credential::KeyFile(key);
    ids.iter().any(|id| matches!(slot::open(&credential, TENANT, id, &slot), Ok(Some(_))))
}

/// A slot that opens, and holds `plain` where the bundle should be.
fn sealed_bundle(plain: &[u8]) -> bool {
    let key = key_file();
    let id = slot::key_file_slots(&key, TENANT)[0];
    let header = Header { object: ObjectType::Slot, cipher: Cipher::ChaCha20Poly1305 };
    let aad = associated_data(header, TENANT, ordinal::RECORD, Some(&id.to_string()));
    let sealer = Sealer::new(header.cipher, blake3::keyed_hash(&key.0, &SALT).as_bytes());
    let mut sealed = plain.to_vec();
    sealer.seal(ordinal::RECORD, &aad, &mut sealed, 0);
    let encapsulated = Vec::new();
    let slot = Slot {
        kind: SlotKind::KeyFile,
        salt: SALT,
        stretch: None,
        encapsulated,
        sealed,
        tenant: TENANT,
        later: None,
    };
    match slot::open(&Credential::KeyFile(key), TENANT, &id, &slot) {
        Ok(Some(bundle)) => {
            assert!(bundle.tenant == TENANT && Bundle::decode(plain).is_ok_and(|b| b == bundle));
            true
        }
        Ok(None) => panic!("a slot that its own key does not open"),
        Err(_) => false,
    }
}

fn bundle(role: Role) -> Bundle {
    let full = role == Role::Full;
    Bundle {
        role,
        tenant: TENANT,
        id_key: [2; 32],
        tenant_verifying: [3; 32],
        signer_seed: [4; 32],
        private_key: full.then_some([5; 32]),
        tenant_seed: full.then_some([6; 32]),
        former_keys: if full { vec![[7; 32], [8; 32]] } else { Vec::new() },
    }
}

fn signers() -> SignerList {
    let signer = |n: u8, role, kind, removed| Signer {
        id: SignerId([n; 32]),
        role,
        label: "ops".into(),
        slot: SlotId([n; 16]),
        kind,
        added: Timestamp { seconds: 5, nanos: 6 },
        removed,
        recipient: (kind == SlotKind::Recipient).then(|| vec![9; 1216]),
        is_operator: kind == SlotKind::Recipient,
    };
    let gone = Timestamp { seconds: 7, nanos: 999_999_999 };
    let signers = vec![
        signer(1, Role::Full, SlotKind::KeyFile, None),
        signer(2, Role::Writer, SlotKind::Recipient, Some(gone)),
        signer(3, Role::Writer, SlotKind::Password, None),
    ];
    SignerList { version: 3, signers, public_key: Some(vec![8; 1216]), ..SignerList::default() }
}

fn manifest() -> Manifest {
    let time = |seconds| Timestamp { seconds, nanos: 9 };
    Manifest {
        time: time(-1),
        started: time(1),
        ended: time(2),
        host: "db1".into(),
        user: "root".into(),
        paths: vec![b"a".to_vec(), b"b/c".to_vec()],
        source: vec![b"/x/a".to_vec()],
        source_kind: SourceKind::Command,
        tags: vec!["nightly".into()],
        kind: SnapshotKind::Differential,
        base: Some(SnapshotId([1; 16])),
        root: Content { level: 1, extents: vec![Extent { id: Some(BlobId([9; 32])), len: 99 }] },
        summary: Summary { unreadable: 1, read_bytes: 2, ..Summary::default() },
        program: "estrato".into(),
        chain: [2; 16],
        counter: 2,
        previous: Some(SnapshotId([3; 16])),
        repaired: Some(Repaired {
            of: SnapshotId([4; 16]),
            signer: SignerId([5; 32]),
            files: 6,
            bytes: 7,
            folders: 8,
            loss: [9; 32],
        }),
        origin: Some(Origin { snapshot: SnapshotId([4; 16]), tenant: TenantId([5; 16]) }),
    }
}

/// Inputs to begin with.
pub fn seeds() -> Seeds {
    let mut seeds = Seeds::new();
    let mut add = |name: &str, way: usize, rest: &[u8]| seeds.push((name.to_owned(), chosen(way, rest)));
    let session = SessionRecord {
        owner: [1; 16],
        started: Timestamp { seconds: -1, nanos: 2 },
        host: "db1".into(),
        pid: 7,
        seen: 1,
        renewed: 2,
    };
    let plan = Plan {
        number: 4,
        condemned: vec![PackName([1; 32])],
        superseded: vec![IndexName([2; 32])],
        seen: vec![SnapshotId([3; 16])],
        done: true,
        left: vec![LeftPack { pack: PackName([4; 32]), since: 5 }],
    };
    let signed_payload = [&[0; Signed::OVERHEAD][..], b"payload"].concat();
    add("header", 0, &SEALED.encode());
    add(
        "repository",
        1,
        &RepoRecord { id: RepositoryId([0xab; 16]), create_if_absent: false, mirror: None }.encode(),
    );
    let public_key = keys().public.to_bytes();
    add("tenant", 2, &TenantRecord { id: TENANT, public_key, verifying: [3; 32] }.encode());
    add("session", 3, &session.encode());
    add("plan", 4, &plan.encode());
    add("tombstone", 5, &Tombstone { time: Timestamp::default(), why: "silent for an hour".into() }.encode());
    add("manifest", 6, &manifest().encode());
    add("signers", 7, &signers().encode());
    add("bundle", 8, &bundle(Role::Full).encode());
    add("bundle-of-a-writer", 8, &bundle(Role::Writer).encode());
    let (_, of_key_file) = slot::seal(&Holder::KeyFile(&key_file()), &bundle(Role::Full)).unwrap();
    let (_, of_recipient) = slot::seal(&Holder::Recipient(&key_file().recipient().1), &bundle(Role::Full)).unwrap();
    let of_password = Slot { kind: SlotKind::Password, stretch: Some(STRETCH), ..of_key_file.clone() };
    add("slot", 9, &of_key_file.encode());
    add("slot-of-a-password", 9, &of_password.encode());
    add("signed", 10, &signed_payload);
    add("key", 11, key_file().to_text().as_bytes());
    add("recipient", 11, key_file().recipient_text().as_bytes());
    add("typed-key", 12, &[0xf1; 60]);
    add("tenant-name", 13, b"clinic-1.eu");
    add("closed", 14, b"body");
    let [shared, private] = [shared(&signed_payload), private(&signed_payload)];
    add("shared", 15, &shared[..shared.len() - header::HASH_LEN]);
    add("private", 15, &private[..private.len() - header::HASH_LEN]);
    add("shared-plaintext", 16, &signed_payload);
    add("private-plaintext", 17, &signed_payload);
    add("slot-opened", 18, &of_key_file.encode());
    add("slot-of-a-recipient-opened", 18, &of_recipient.encode());
    add("bundle-in-a-slot", 19, &bundle(Role::Writer).encode());
    let gone = |n: u8, before| ForgottenSnapshot {
        snapshot: SnapshotId([n; 16]),
        signer: SignerId([2; 32]),
        chain: [3; 16],
        counter: n.into(),
        before,
    };
    let forgotten = Forgotten { snapshots: vec![gone(1, None), gone(2, Some(SnapshotId([1; 16])))] };
    add("forgotten", 20, &forgotten.encode());
    add("hold", 21, &Hold { time: Timestamp { seconds: 1, nanos: 2 }, why: "case 17".into() }.encode());
    add("damage", 22, &DamageRecord { number: 3, packs: vec![PackName([1; 32]), PackName([2; 32])] }.encode());
    debug_assert!(shared.len() > HEADER_LEN);
    seeds
}
