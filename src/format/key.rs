//! Keys as they are stored: slots, the secrets inside them, and who may sign.

use super::cbor::{Fields, Record, bounded, count, exact, finished};
use super::parity::Parity;
use crate::clock::Timestamp;
use crate::error::Malformed;
use crate::id::{SignerId, SlotId, TenantId};
use crate::limits;
use minicbor::decode::Decoder;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Role {
    /// Adds snapshots, reads none.
    Writer = 0,
    /// Everything.
    Full = 1,
}

impl Role {
    fn from_byte(byte: u8) -> Result<Self, Malformed> {
        match byte {
            0 => Ok(Self::Writer),
            1 => Ok(Self::Full),
            n => Err(Malformed(format!("a key with unknown role {n}"))),
        }
    }

    /// The role, as people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Writer => "writer",
            Self::Full => "full",
        }
    }
}

/// What opens a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum SlotKind {
    /// A key file's 32 random bytes.
    KeyFile = 0,
    /// A password, stretched.
    Password = 1,
    /// The private half of a recipient's key pair.
    Recipient = 2,
}

impl SlotKind {
    fn from_byte(byte: u8) -> Result<Self, Malformed> {
        match byte {
            0 => Ok(Self::KeyFile),
            1 => Ok(Self::Password),
            2 => Ok(Self::Recipient),
            n => Err(Malformed(format!("a slot of unknown kind {n}"))),
        }
    }

    /// The kind, as people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::KeyFile => "key file",
            Self::Password => "password",
            Self::Recipient => "recipient",
        }
    }
}

/// More than a bundle's record takes, its former private keys aside.
const BUNDLE_MAX: usize = 512;
/// What a private key takes in a list of them.
const LISTED_KEY: usize = 2 + 32;

/// A tenant's secrets, as one key's role allows. Wiped when dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Bundle {
    /// What the key may do.
    #[zeroize(skip)]
    pub role: Role,
    /// The tenant.
    #[zeroize(skip)]
    pub tenant: TenantId,
    /// The tenant's id key.
    pub id_key: [u8; 32],
    /// The public half of the tenant's signing key.
    #[zeroize(skip)]
    pub tenant_verifying: [u8; 32],
    /// The seed of this key's own signing key.
    pub signer_seed: [u8; 32],
    /// The tenant's HPKE private key; full only.
    pub private_key: Option<[u8; 32]>,
    /// The seed of the tenant's signing key; full only.
    pub tenant_seed: Option<[u8; 32]>,
    /// HPKE private keys that the tenant had before, the latest first; full only.
    pub former_keys: Vec<[u8; 32]>,
}

impl Bundle {
    /// The record.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut r = Record::with_capacity(BUNDLE_MAX + self.former_keys.len() * LISTED_KEY);
        r.u64(0, self.role as u64).bytes(1, self.tenant.as_bytes()).bytes(2, &self.id_key);
        r.bytes(3, &self.tenant_verifying).bytes(4, &self.signer_seed);
        if let Some(key) = &self.private_key {
            r.bytes(5, key);
        }
        if let Some(seed) = &self.tenant_seed {
            r.bytes(6, seed);
        }
        if !self.former_keys.is_empty() {
            r.list(7, &self.former_keys);
        }
        let out = Zeroizing::new(r.finish());
        r.wipe();
        out
    }

    /// Reads the record.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut role = None;
        let mut keys: [Option<Zeroizing<[u8; 32]>>; 7] = Default::default();
        let mut tenant = None;
        let mut former_keys = Vec::new();
        let mut f = Fields::begin(Decoder::new(bytes))?;
        while let Some(key) = f.next(&[0, 1, 2, 3, 4, 5, 6, 7])? {
            match key {
                0 => role = Some(Role::from_byte(f.value().u8()?)?),
                1 => tenant = Some(TenantId(f.array()?)),
                7 => former_keys = read_private_keys(f.value())?,
                n => {
                    if let Some(place) = keys.get_mut(n as usize) {
                        *place = Some(Zeroizing::new(f.array()?));
                    }
                }
            }
        }
        finished(&f.end())?;
        let [_, _, id_key, verifying, signer, private, seed] = &keys;
        let (Some(role), Some(tenant), Some(id_key), Some(verifying), Some(signer)) =
            (role, tenant, id_key, verifying, signer)
        else {
            return Err(Malformed::new("a key bundle with a part missing"));
        };
        // What a key may do and what it can do are one.
        let is_full = role == Role::Full;
        if private.is_some() != is_full || seed.is_some() != is_full || !is_full && !former_keys.is_empty() {
            former_keys.zeroize();
            return Err(Malformed::new("a key whose role and private keys do not fit"));
        }
        Ok(Self {
            role,
            tenant,
            id_key: **id_key,
            tenant_verifying: **verifying,
            signer_seed: **signer,
            private_key: private.as_deref().copied(),
            tenant_seed: seed.as_deref().copied(),
            former_keys,
        })
    }

    /// Takes up private keys that came later than those of the bundle, the latest first.
    pub fn add_later(&mut self, later: &[[u8; 32]]) {
        let known: Vec<&[u8; 32]> = later.iter().chain(&self.private_key).chain(&self.former_keys).collect();
        let mut all: Vec<[u8; 32]> = Vec::with_capacity(known.len());
        for key in known {
            if !all.contains(key) && all.len() < limits::KEY_PAIRS_MAX {
                all.push(*key);
            }
        }
        self.private_key.zeroize();
        self.former_keys.zeroize();
        self.private_key = all.first().copied();
        self.former_keys = all.get(1..).unwrap_or_default().to_vec();
        all.zeroize();
    }
}

/// Private keys in one array, in memory that does not move.
fn read_private_keys(d: &mut Decoder<'_>) -> Result<Vec<[u8; 32]>, Malformed> {
    let count = count(d, limits::KEY_PAIRS_MAX)?;
    let mut keys = Vec::with_capacity(count);
    for _ in 0..count {
        keys.push(exact(d)?);
    }
    Ok(keys)
}

/// The tenant's private keys for a recipient whose slot was made before the latest of them.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct LaterKeys(pub Vec<[u8; 32]>);

impl LaterKeys {
    /// The record: 0 private keys, the latest first.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut r = Record::with_capacity(16 + self.0.len() * LISTED_KEY);
        r.list(0, &self.0);
        let out = Zeroizing::new(r.finish());
        r.wipe();
        out
    }

    /// Reads the record.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut keys = Self(Vec::new());
        let mut f = Fields::begin(Decoder::new(bytes))?;
        while f.next(&[0])?.is_some() {
            keys.0 = read_private_keys(f.value())?;
        }
        finished(&f.end())?;
        Ok(keys)
    }
}

/// Cost of stretching a password with Argon2id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// Memory, KiB.
    pub memory: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

/// The cost of new passwords: 64 MiB, 3 passes, as RFC 9106 has it for small machines.
pub const STRETCH: Stretch = Stretch { memory: 64 * 1024, passes: 3, lanes: 4 };

/// A slot: the bundle, sealed under one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// What opens it.
    pub kind: SlotKind,
    /// Random; makes the sealing key fresh.
    pub salt: [u8; 32],
    /// For passwords.
    pub stretch: Option<Stretch>,
    /// For recipients: the encapsulated key.
    pub encapsulated: Vec<u8>,
    /// The sealed bundle.
    pub sealed: Vec<u8>,
    /// The tenant: the slot is found by it, should the tenant's own record be lost.
    pub tenant: TenantId,
    /// For recipients: private keys that the tenant has had since, as [`LaterKeys`]; the encapsulated key and
    /// what is sealed.
    pub later: Option<(Vec<u8>, Vec<u8>)>,
}

impl Slot {
    /// The record: 0 kind, 1 salt, 2 stretch, 3 encapsulated, 4 sealed, 5 tenant; 6 encapsulated and 7 sealed
    /// of later keys.
    pub fn encode(&self) -> Vec<u8> {
        let mut r = Record::new();
        r.u64(0, self.kind as u64).bytes(1, &self.salt);
        if let Some(s) = self.stretch {
            r.put(2, |e| e.array(3)?.u32(s.memory)?.u32(s.passes)?.u32(s.lanes)?.ok());
        }
        if !self.encapsulated.is_empty() {
            r.bytes(3, &self.encapsulated);
        }
        r.bytes(4, &self.sealed).bytes(5, self.tenant.as_bytes());
        if let Some((encapsulated, sealed)) = &self.later {
            r.bytes(6, encapsulated).bytes(7, sealed);
        }
        r.finish()
    }

    /// Reads the record; parameters beyond the bounds are refused before they are used.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (mut kind, mut salt, mut stretch, mut tenant) = (None, None, None, None);
        let (mut encapsulated, mut sealed) = (Vec::new(), Vec::new());
        let (mut later_encapsulated, mut later_sealed) = (None, None);
        let mut f = Fields::begin(Decoder::new(bytes))?;
        while let Some(key) = f.next(&[0, 1, 2, 3, 4, 5, 6, 7])? {
            match key {
                6 => later_encapsulated = Some(f.bytes(4096)?),
                7 => later_sealed = Some(f.bytes(4096)?),
                5 => tenant = Some(TenantId(f.array()?)),
                0 => kind = Some(SlotKind::from_byte(f.value().u8()?)?),
                1 => salt = Some(f.array()?),
                2 => {
                    if f.count(3)? != 3 {
                        return Err(Malformed::new("a slot whose Argon2 parameters are not three"));
                    }
                    let d = f.value();
                    stretch = Some(Stretch { memory: d.u32()?, passes: d.u32()?, lanes: d.u32()? });
                }
                3 => encapsulated = f.bytes(4096)?,
                _ => sealed = f.bytes(4096)?,
            }
        }
        finished(&f.end())?;
        let (Some(kind), Some(salt), Some(tenant)) = (kind, salt, tenant) else {
            return Err(Malformed::new("a slot without a kind, salt or tenant"));
        };
        if let Some(s) = stretch {
            let lanes = 1..=limits::ARGON_LANES_MAX;
            let memory = s.lanes.saturating_mul(8)..=limits::ARGON_MEMORY_MAX;
            let passes = 1..=limits::ARGON_PASSES_MAX;
            let work = u64::from(s.memory) * u64::from(s.passes);
            if !lanes.contains(&s.lanes)
                || !memory.contains(&s.memory)
                || !passes.contains(&s.passes)
                || work > limits::ARGON_WORK_MAX
            {
                return Err(Malformed(format!(
                    "a slot that asks for {} KiB of memory, {} passes and {} lanes of Argon2, beyond the bounds",
                    s.memory, s.passes, s.lanes
                )));
            }
        }
        if (kind == SlotKind::Password) != stretch.is_some() {
            return Err(Malformed::new("a slot whose kind and Argon2 parameters do not fit"));
        }
        if (kind == SlotKind::Recipient) == encapsulated.is_empty() {
            return Err(Malformed::new("a slot whose kind and encapsulated key do not fit"));
        }
        let later = match (later_encapsulated, later_sealed, kind) {
            (None, None, _) => None,
            (Some(encapsulated), Some(sealed), SlotKind::Recipient) => Some((encapsulated, sealed)),
            _ => return Err(Malformed::new("a slot whose later keys are no recipient's, or half there")),
        };
        Ok(Self { kind, salt, stretch, encapsulated, sealed, tenant, later })
    }
}

/// One who may sign, and the slot that holds the signing key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    /// The public key.
    pub id: SignerId,
    /// What its signature counts for.
    pub role: Role,
    /// What people call it.
    pub label: String,
    /// The slot.
    pub slot: SlotId,
    /// What opens the slot.
    pub kind: SlotKind,
    /// When it was admitted.
    pub added: Timestamp,
    /// When it was removed. What it signed before is still read.
    pub removed: Option<Timestamp>,
    /// A recipient's public key, so that later private keys can be sealed to it.
    pub recipient: Option<Vec<u8>>,
    /// True for the key of whoever keeps the repository, with a slot in every tenant.
    pub is_operator: bool,
}

/// The list of signers: counts only if signed by the tenant's own key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SignerList {
    /// Counts up by one with every change; also in the object's name.
    pub version: u64,
    /// Everyone who was ever admitted.
    pub signers: Vec<Signer>,
    /// How much parity new packs get.
    pub parity: Parity,
    /// The tenant's public key, if it is another one than at the beginning.
    pub public_key: Option<Vec<u8>>,
}

impl SignerList {
    /// The record: 0 version, 1 signers, 2 parity, 3 public key.
    pub fn encode(&self) -> Vec<u8> {
        let mut signers = Vec::new();
        for s in &self.signers {
            let mut r = Record::new();
            r.bytes(0, s.id.as_bytes()).u64(1, s.role as u64).text(2, &s.label);
            r.bytes(3, s.slot.as_bytes()).u64(4, s.kind as u64).time(5, s.added);
            if let Some(removed) = s.removed {
                r.time(6, removed);
            }
            if let Some(recipient) = &s.recipient {
                r.bytes(7, recipient);
            }
            if s.is_operator {
                r.u64(8, 1);
            }
            r.write_to(&mut signers);
        }
        let mut r = Record::new();
        r.u64(0, self.version);
        r.put(1, |e| {
            e.array(self.signers.len() as u64)?;
            e.writer_mut().extend_from_slice(&signers);
            Ok(())
        });
        if !self.parity.is_none() {
            r.u64(2, self.parity.number().into());
        }
        if let Some(public_key) = &self.public_key {
            r.bytes(3, public_key);
        }
        r.finish()
    }

    /// Reads the record. One with fields from a newer program is refused: it would be written again.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut list = Self::default();
        let mut f = Fields::begin(Decoder::new(bytes))?;
        while let Some(key) = f.next(&[0, 1, 2, 3])? {
            if key == 0 {
                list.version = f.value().u64()?;
                continue;
            }
            if key == 2 {
                list.parity = Parity::per_mille(f.value().u64()?)
                    .ok_or_else(|| Malformed::new("a list of signers with more parity than there can be"))?;
                continue;
            }
            if key == 3 {
                list.public_key = Some(read_public_key(f.value())?);
                continue;
            }
            for _ in 0..count(f.value(), limits::SLOTS_MAX)? {
                list.signers.push(read_signer(f.value())?);
            }
        }
        if f.unknown() {
            return Err(Malformed::new("a list of signers with fields of a newer program"));
        }
        finished(&f.end())?;
        // Whether one who stands there twice counts would depend on where somebody looks.
        let mut ids: Vec<&SignerId> = list.signers.iter().map(|s| &s.id).collect();
        ids.sort_unstable();
        if ids.windows(2).any(|two| two[0] == two[1]) {
            return Err(Malformed::new("a list of signers with one of them twice"));
        }
        Ok(list)
    }
}

fn read_signer(d: &mut Decoder<'_>) -> Result<Signer, Malformed> {
    let mut s = Signer {
        id: SignerId([0; 32]),
        role: Role::Writer,
        label: String::new(),
        slot: SlotId([0; 16]),
        kind: SlotKind::KeyFile,
        added: Timestamp::default(),
        removed: None,
        recipient: None,
        is_operator: false,
    };
    let mut missing = 6;
    let mut f = Fields::begin(d.clone())?;
    while let Some(key) = f.next(&[0, 1, 2, 3, 4, 5, 6, 7, 8])? {
        missing -= usize::from(key < 6);
        match key {
            0 => s.id = SignerId(exact(f.value())?),
            1 => s.role = Role::from_byte(f.value().u8()?)?,
            2 => s.label = f.text(limits::NAME_MAX)?,
            3 => s.slot = SlotId(exact(f.value())?),
            4 => s.kind = SlotKind::from_byte(f.value().u8()?)?,
            5 => s.added = f.time()?,
            6 => s.removed = Some(f.time()?),
            7 => s.recipient = Some(read_public_key(f.value())?),
            _ => s.is_operator = f.value().u8()? == 1,
        }
    }
    if f.unknown() {
        return Err(Malformed::new("a signer with fields of a newer program"));
    }
    if missing > 0 {
        return Err(Malformed::new("a signer with a part missing"));
    }
    *d = f.end();
    Ok(s)
}

/// The plaintext of a sealed, signed record: signer, signature, payload.
pub struct Signed<'a> {
    /// Who signed.
    pub signer: SignerId,
    /// The Ed25519 signature.
    pub signature: [u8; 64],
    /// What was signed.
    pub payload: &'a [u8],
}

impl<'a> Signed<'a> {
    /// Bytes in front of the payload.
    pub const OVERHEAD: usize = 32 + 64;

    /// Splits the plaintext.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let short = || Malformed::new("a signed record shorter than its signature");
        let (signer, rest) = bytes.split_first_chunk::<32>().ok_or_else(short)?;
        let (signature, payload) = rest.split_first_chunk::<64>().ok_or_else(short)?;
        Ok(Self { signer: SignerId(*signer), signature: *signature, payload })
    }
}

/// The public key of a recipient or tenant, as stored.
pub fn read_public_key(d: &mut Decoder<'_>) -> Result<Vec<u8>, Malformed> {
    bounded(d, 4096)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bundle(role: Role) -> Bundle {
        Bundle {
            role,
            tenant: TenantId([1; 16]),
            id_key: [2; 32],
            tenant_verifying: [3; 32],
            signer_seed: [4; 32],
            private_key: (role == Role::Full).then_some([5; 32]),
            tenant_seed: (role == Role::Full).then_some([6; 32]),
            former_keys: Vec::new(),
        }
    }

    fn slot(stretch: Stretch) -> Slot {
        Slot {
            kind: SlotKind::Password,
            salt: [1; 32],
            stretch: Some(stretch),
            encapsulated: Vec::new(),
            sealed: vec![9; 100],
            tenant: TenantId([1; 16]),
            later: None,
        }
    }

    fn list() -> SignerList {
        let signer = Signer {
            id: SignerId([1; 32]),
            role: Role::Full,
            label: "ops".into(),
            slot: SlotId([2; 16]),
            kind: SlotKind::KeyFile,
            added: Timestamp { seconds: 5, nanos: 6 },
            removed: Some(Timestamp { seconds: 7, nanos: 8 }),
            recipient: None,
            is_operator: false,
        };
        SignerList { version: 3, signers: vec![signer], parity: Parity::NONE, public_key: None }
    }

    #[test]
    fn there_and_back() {
        for role in [Role::Writer, Role::Full] {
            assert!(Bundle::decode(&bundle(role).encode()).unwrap() == bundle(role));
        }
        assert_eq!(Slot::decode(&slot(STRETCH).encode()).unwrap(), slot(STRETCH));
        assert_eq!(SignerList::decode(&list().encode()).unwrap(), list());
    }

    #[test]
    fn what_came_with_rekeying_and_operators_is_read_back() {
        let rekeyed = Bundle { former_keys: vec![[7; 32], [8; 32]], ..bundle(Role::Full) };
        assert!(Bundle::decode(&rekeyed.encode()).unwrap() == rekeyed);
        let most = Bundle { former_keys: vec![[7; 32]; limits::KEY_PAIRS_MAX], ..bundle(Role::Full) };
        assert!(Bundle::decode(&most.encode()).is_ok());
        let beyond = Bundle { former_keys: vec![[7; 32]; limits::KEY_PAIRS_MAX + 1], ..bundle(Role::Full) };
        assert!(Bundle::decode(&beyond.encode()).is_err());
        let later = LaterKeys(vec![[9; 32], [7; 32]]);
        assert!(LaterKeys::decode(&later.encode()).unwrap() == later);

        let recipient = Slot {
            kind: SlotKind::Recipient,
            stretch: None,
            encapsulated: vec![1; 1120],
            later: Some((vec![2; 1120], vec![3; 90])),
            ..slot(STRETCH)
        };
        assert_eq!(Slot::decode(&recipient.encode()).unwrap(), recipient);
        let of_key_file = Slot { kind: SlotKind::KeyFile, ..recipient };
        assert!(Slot::decode(&of_key_file.encode()).is_err(), "later keys are for recipients");

        let mut list = list();
        list.public_key = Some(vec![5; 1216]);
        (list.signers[0].recipient, list.signers[0].is_operator) = (Some(vec![6; 1216]), true);
        assert_eq!(SignerList::decode(&list.encode()).unwrap(), list);
    }

    #[test]
    fn later_private_keys_stand_before_the_others_and_none_stands_twice() {
        let mut bundle = Bundle { former_keys: vec![[7; 32]], ..bundle(Role::Full) };
        bundle.add_later(&[[9; 32], [8; 32], [5; 32]]);
        assert_eq!(bundle.private_key, Some([9; 32]));
        assert_eq!(bundle.former_keys, [[8; 32], [5; 32], [7; 32]]);
        bundle.add_later(&[[1; 32]; 3]);
        assert_eq!((bundle.private_key, bundle.former_keys.len()), (Some([1; 32]), 4));
        let many: Vec<[u8; 32]> = (100..=200).map(|n| [n; 32]).collect();
        bundle.add_later(&many);
        assert_eq!(bundle.former_keys.len(), limits::KEY_PAIRS_MAX - 1);
    }

    #[test]
    fn roles_and_kinds_are_called_as_the_manual_does() {
        assert_eq!([Role::Writer, Role::Full].map(Role::name), ["writer", "full"]);
        let kinds = [SlotKind::KeyFile, SlotKind::Password, SlotKind::Recipient];
        assert_eq!(kinds.map(SlotKind::name), ["key file", "password", "recipient"]);
        for (number, kind) in (0..).zip(kinds) {
            assert_eq!((kind as u8, SlotKind::from_byte(number)), (number, Ok(kind)));
        }
        assert!(SlotKind::from_byte(3).is_err());
        assert_eq!([Role::from_byte(0), Role::from_byte(1)], [Ok(Role::Writer), Ok(Role::Full)]);
        assert!(Role::from_byte(2).is_err());
    }

    #[test]
    fn a_new_password_costs_64_mib() {
        assert_eq!(STRETCH, Stretch { memory: 65_536, passes: 3, lanes: 4 });
        let bytes = Slot { sealed: vec![0; 2], ..slot(STRETCH) }.encode();
        let expected = [
            &[0xa5, 0, 1, 1, 0x58, 32][..],
            &[1; 32],
            &[2, 0x83, 0x1a, 0, 1, 0, 0, 3, 4],
            &[4, 0x42, 0, 0],
            &[5, 0x50],
            &[1; 16],
        ];
        assert_eq!(bytes, expected.concat());
    }

    #[test]
    fn argon_parameters_are_taken_up_to_their_bounds() {
        let (memory, passes, lanes) = (limits::ARGON_MEMORY_MAX, limits::ARGON_PASSES_MAX, limits::ARGON_LANES_MAX);
        let cases = [
            // All of the memory four times, or a quarter of it as often as may be.
            ((memory, 4, lanes), true),
            ((memory, 5, lanes), false),
            ((memory / 4, passes, lanes), true),
            ((memory / 4 + 1, passes, lanes), false),
            ((memory + 1, 1, 1), false),
            ((8, passes + 1, 1), false),
            ((memory, 1, lanes + 1), false),
            ((8, 1, 1), true),
            ((7, 1, 1), false),
            ((16, 1, 2), true),
            ((15, 1, 2), false),
            ((8, 0, 1), false),
            ((8, 1, 0), false),
        ];
        for ((memory, passes, lanes), good) in cases {
            let slot = slot(Stretch { memory, passes, lanes });
            assert_eq!(Slot::decode(&slot.encode()).ok(), good.then_some(slot), "{memory} {passes} {lanes}");
        }
        for parts in [&[0x82, 8, 1][..], &[0x84, 8, 1, 1, 1]] {
            let mut r = Record::new();
            r.u64(0, 1).bytes(1, &[1; 32]).raw(2, parts).bytes(4, &[9]).bytes(5, &[1; 16]);
            assert!(Slot::decode(&r.finish()).is_err(), "{parts:?}");
        }
    }

    #[test]
    fn only_a_password_is_stretched_and_only_a_recipient_has_a_key_encapsulated() {
        for kind in [SlotKind::KeyFile, SlotKind::Password, SlotKind::Recipient] {
            for stretch in [None, Some(STRETCH)] {
                for encapsulated in [Vec::new(), vec![8; 1120]] {
                    let good = stretch.is_some() == (kind == SlotKind::Password)
                        && encapsulated.is_empty() != (kind == SlotKind::Recipient);
                    let slot = Slot { kind, stretch, encapsulated, ..slot(STRETCH) };
                    assert_eq!(Slot::decode(&slot.encode()).ok(), good.then_some(slot), "{kind:?}");
                }
            }
        }
    }

    #[test]
    fn parity_stands_in_the_list_up_to_its_bound() {
        for parity in [0, 1, 50, 500] {
            let with = SignerList { parity: Parity::per_mille(parity).unwrap(), ..list() };
            assert_eq!(SignerList::decode(&with.encode()).unwrap(), with);
            assert_eq!(with.encode().len() > list().encode().len(), parity > 0, "none is left out");
        }
        let mut r = Record::new();
        r.u64(0, 3).put(1, |e| e.array(0)?.ok()).u64(2, 501);
        assert!(SignerList::decode(&r.finish()).is_err());
    }

    #[test]
    fn a_list_of_signers_with_fields_of_a_newer_program_is_refused() {
        let mut r = Record::new();
        r.u64(0, 3).raw(1, &[0x80]);
        assert_eq!(SignerList::decode(&r.finish()).unwrap(), SignerList { version: 3, ..SignerList::default() });
        r.u64(100, 1);
        assert!(SignerList::decode(&r.finish()).is_err(), "it would be written again without them");
    }

    #[test]
    fn a_signer_stands_in_the_list_once_and_whole() {
        let one = list().signers.remove(0);
        let other = Signer { id: SignerId([3; 32]), ..one.clone() };
        for (signers, good) in [(vec![one.clone(), other.clone()], true), (vec![one.clone(), other, one], false)] {
            let list = SignerList { version: 3, signers, ..SignerList::default() };
            assert_eq!(SignerList::decode(&list.encode()).is_ok(), good);
        }
        let mut half = Record::new();
        half.bytes(0, &[1; 32]).u64(1, 1).text(2, "").bytes(3, &[2; 16]).u64(4, 0);
        let mut r = Record::new();
        r.u64(0, 3).put(1, |e| {
            e.array(1)?;
            e.writer_mut().extend_from_slice(&half.finish());
            Ok(())
        });
        assert!(SignerList::decode(&r.finish()).is_err(), "since when, nobody knows");
    }

    #[test]
    fn signer_and_signature_stand_in_front_of_the_payload() {
        let bytes = [&[1; 32][..], &[2; 64], b"payload"].concat();
        let signed = Signed::decode(&bytes).unwrap();
        assert_eq!((signed.signer.0, signed.signature, signed.payload), ([1; 32], [2; 64], &b"payload"[..]));
        assert!(Signed::decode(&bytes[..Signed::OVERHEAD]).is_ok_and(|s| s.payload.is_empty()));
        assert!(Signed::decode(&bytes[..Signed::OVERHEAD - 1]).is_err());
    }

    #[test]
    fn absurd_argon_parameters_are_refused() {
        for (memory, passes, lanes) in
            [(u32::MAX, 3, 4), (65536, u32::MAX, 4), (65536, 3, u32::MAX), (0, 3, 4), (65536, 0, 4), (65536, 3, 0)]
        {
            let bytes = slot(Stretch { memory, passes, lanes }).encode();
            assert!(Slot::decode(&bytes).is_err(), "{memory} {passes} {lanes}");
        }
    }

    #[test]
    fn signers_with_fields_of_a_newer_program_are_refused() {
        let list_of = |signer: &Record, more: Option<u64>| {
            let mut r = Record::new();
            r.u64(0, 1).put(1, |e| {
                e.array(1)?;
                e.writer_mut().extend_from_slice(&signer.finish());
                Ok(())
            });
            if let Some(key) = more {
                r.u64(key, 1);
            }
            r.finish()
        };
        let (mut known, mut newer) = (Record::new(), Record::new());
        for r in [&mut known, &mut newer] {
            r.bytes(0, &[1; 32]).u64(1, 1).text(2, "").bytes(3, &[2; 16]).u64(4, 0).time(5, Timestamp::default());
        }
        newer.text(9, "until Friday");
        assert!(SignerList::decode(&list_of(&known, None)).is_ok());
        assert!(SignerList::decode(&list_of(&known, Some(9))).is_err(), "in the list");
        assert!(SignerList::decode(&list_of(&newer, None)).is_err(), "in a signer");
    }

    #[test]
    fn a_full_bundle_and_no_other_has_the_private_keys() {
        let half = Bundle { private_key: None, former_keys: Vec::new(), ..bundle(Role::Full) };
        assert!(Bundle::decode(&half.encode()).is_err());
        let half = Bundle { tenant_seed: None, former_keys: Vec::new(), ..bundle(Role::Full) };
        assert!(Bundle::decode(&half.encode()).is_err());
        let more = Bundle { private_key: Some([5; 32]), former_keys: Vec::new(), ..bundle(Role::Writer) };
        assert!(Bundle::decode(&more.encode()).is_err());
        let more = Bundle { tenant_seed: Some([6; 32]), former_keys: Vec::new(), ..bundle(Role::Writer) };
        assert!(Bundle::decode(&more.encode()).is_err());
        let more = Bundle { former_keys: vec![[7; 32]], ..bundle(Role::Writer) };
        assert!(Bundle::decode(&more.encode()).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = (Bundle::decode(&bytes).is_ok(), Slot::decode(&bytes), SignerList::decode(&bytes));
            let _ = (Signed::decode(&bytes).is_ok(), LaterKeys::decode(&bytes).is_ok());
        }

        #[test]
        fn changed_bytes_never_panic(at in any::<prop::sample::Index>(), bit in 0..8u8) {
            for mut bytes in [bundle(Role::Full).encode().to_vec(), slot(STRETCH).encode(), list().encode()] {
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
                let _ = (Bundle::decode(&bytes).is_ok(), Slot::decode(&bytes), SignerList::decode(&bytes));
            }
        }
    }
}
