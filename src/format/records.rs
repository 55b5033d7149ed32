//! The small records: the repository's own, a tenant's public one, a session,
//! a prune plan, a record of damage, a tombstone.

use super::FORMAT;
use super::cbor::{Fields, Record, count, exact, finished};
use super::key::read_public_key;
use crate::clock::Timestamp;
use crate::error::{Error, Malformed, Result};
use crate::id::{IndexName, PackName, RepositoryId, SnapshotId, TenantId};
use crate::limits;
use minicbor::decode::Decoder;
use serde::{Deserialize, Serialize};

/// `repo.json`: the one object that is not binary, so that a person who finds it knows what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RepoRecord {
    /// The repository.
    pub id: RepositoryId,
    /// False where the store was found to replace objects that it was asked to create only if absent.
    pub create_if_absent: bool,
    /// The id of the place, where a mirror of the repository lies; absent where the repository was made.
    pub mirror: Option<RepositoryId>,
}

#[derive(Serialize, Deserialize)]
struct RepoJson {
    estrato: u64,
    // A newer format may say the rest otherwise; that it is newer must still be read.
    #[serde(default)]
    repository: serde_json::Value,
    #[serde(default)]
    create_if_absent: serde_json::Value,
    #[serde(default)]
    mirror: serde_json::Value,
}

impl RepoRecord {
    /// The object's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let unable = if self.create_if_absent { "" } else { ", \"create_if_absent\": false" };
        let mirror = self.mirror.map(|place| format!(", \"mirror\": \"{place}\"")).unwrap_or_default();
        format!("{{\"estrato\": {FORMAT}, \"repository\": \"{}\"{unable}{mirror}}}\n", self.id).into_bytes()
    }

    /// Reads the object called `name`.
    ///
    /// # Errors
    /// [`Error::Newer`] for a newer format, [`Error::Damaged`] for anything else.
    pub fn decode(bytes: &[u8], name: &str) -> Result<Self> {
        let json: RepoJson = serde_json::from_slice(bytes).map_err(|e| Error::damaged(name, e.to_string()))?;
        if json.estrato > FORMAT.into() {
            return Err(Error::Newer { object: name.into(), found: json.estrato, known: FORMAT.into() });
        }
        let id = json.repository.as_str().and_then(|id| id.parse().ok());
        let id = id.ok_or_else(|| Error::damaged(name, "its id is none"))?;
        let mirror = match &json.mirror {
            serde_json::Value::Null => None,
            place => {
                let place = place.as_str().and_then(|place| place.parse().ok());
                Some(place.ok_or_else(|| Error::damaged(name, "its id as a mirror is none"))?)
            }
        };
        Ok(Self { id, create_if_absent: json.create_if_absent != serde_json::Value::Bool(false), mirror })
    }
}

/// The HPKE suite: X-Wing, HKDF-SHA256, ChaCha20-Poly1305. There is one.
pub const SUITE: u8 = 1;

/// What anyone may know of a tenant. Signed by the tenant's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRecord {
    /// The tenant.
    pub id: TenantId,
    /// The HPKE public key, to which data keys are sealed.
    pub public_key: Vec<u8>,
    /// The public half of the tenant's signing key.
    pub verifying: [u8; 32],
}

impl TenantRecord {
    /// The record: 0 id, 1 suite, 2 public key, 3 verifying key.
    pub fn encode(&self) -> Vec<u8> {
        let mut r = Record::new();
        r.bytes(0, self.id.as_bytes()).u64(1, SUITE.into());
        r.bytes(2, &self.public_key).bytes(3, &self.verifying);
        r.finish()
    }

    /// Reads the record.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (mut id, mut suite, mut public_key, mut verifying) = (None, 0, Vec::new(), None);
        let mut f = Fields::begin(Decoder::new(bytes))?;
        while let Some(key) = f.next(&[0, 1, 2, 3])? {
            match key {
                0 => id = Some(TenantId(f.array()?)),
                1 => suite = f.value().u8()?,
                2 => public_key = read_public_key(f.value())?,
                _ => verifying = Some(f.array()?),
            }
        }
        finished(&f.end())?;
        if suite != SUITE {
            return Err(Malformed(format!("an unknown key suite {suite}")));
        }
        match (id, verifying) {
            (Some(id), Some(verifying)) => Ok(Self { id, public_key, verifying }),
            _ => Err(Malformed::new("a tenant without an id or key")),
        }
    }
}

/// A running backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// Random; tells a writer its own object from another's after a lost answer.
    pub owner: [u8; 16],
    /// When it began.
    pub started: Timestamp,
    /// The machine.
    pub host: String,
    /// The process on that machine.
    pub pid: u32,
    /// The prune plan that it has seen and heeds; 0 for none.
    pub seen: u64,
    /// Counts renewals.
    pub renewed: u64,
}

impl SessionRecord {
    /// The record.
    pub fn encode(&self) -> Vec<u8> {
        let mut r = Record::new();
        r.bytes(0, &self.owner).time(1, self.started).text(2, &self.host);
        r.u64(3, self.pid.into()).u64(4, self.seen).u64(5, self.renewed);
        r.finish()
    }

    /// Reads the record.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut s =
            Self { owner: [0; 16], started: Timestamp::default(), host: String::new(), pid: 0, seen: 0, renewed: 0 };
        let mut f = Fields::begin(Decoder::new(bytes))?;
        while let Some(key) = f.next(&[0, 1, 2, 3, 4, 5])? {
            match key {
                0 => s.owner = f.array()?,
                1 => s.started = f.time()?,
                2 => s.host = f.text(4096)?,
                3 => s.pid = f.value().u32()?,
                4 => s.seen = f.value().u64()?,
                _ => s.renewed = f.value().u64()?,
            }
        }
        finished(&f.end())?;
        Ok(s)
    }
}

/// What a prune has decided to delete. Counts only if signed by a full key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Its number, also in the object's name; never used twice.
    pub number: u64,
    /// Packs that will be deleted: no copy in them counts any more.
    pub condemned: Vec<PackName>,
    /// Index objects that will be deleted.
    pub superseded: Vec<IndexName>,
    /// Snapshots whose needs the plan has heeded.
    pub seen: Vec<SnapshotId>,
    /// True once everything is done: the plan is in force no more.
    pub done: bool,
    /// Packs that this plan or one before it condemned, and that were left in the store: no copy in them counts
    /// either, whether the plan is in force or not.
    pub left: Vec<LeftPack>,
}

/// A pack that was condemned and left in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeftPack {
    /// The pack.
    pub pack: PackName,
    /// Since when no index object needs to name it, by the store's clock: seconds since the epoch.
    pub since: i64,
}

impl LeftPack {
    const LEN: usize = 40;

    fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..32].copy_from_slice(&self.pack.0);
        bytes[32..].copy_from_slice(&self.since.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        let (mut pack, mut since) = ([0; 32], [0; 8]);
        pack.copy_from_slice(&bytes[..32]);
        since.copy_from_slice(&bytes[32..]);
        Self { pack: PackName(pack), since: i64::from_be_bytes(since) }
    }
}

impl Plan {
    /// The record: 0 number, 1 condemned, 2 superseded, 3 seen, 4 done, 5 left, if any.
    pub fn encode(&self) -> Vec<u8> {
        let mut r = Record::new();
        r.u64(0, self.number).list(1, &self.condemned).list(2, &self.superseded).list(3, &self.seen);
        r.u64(4, self.done.into());
        if !self.left.is_empty() {
            r.list(5, &self.left.iter().map(|left| left.to_bytes()).collect::<Vec<_>>());
        }
        r.finish()
    }

    /// Reads the record.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut plan = Self::default();
        let mut f = Fields::begin(Decoder::new(bytes))?;
        while let Some(key) = f.next(&[0, 1, 2, 3, 4, 5])? {
            match key {
                0 => plan.number = f.value().u64()?,
                4 => plan.done = f.value().u64()? != 0,
                _ => {
                    for _ in 0..count(f.value(), bytes.len())? {
                        match key {
                            1 => plan.condemned.push(PackName(exact(f.value())?)),
                            2 => plan.superseded.push(IndexName(exact(f.value())?)),
                            3 => plan.seen.push(SnapshotId(exact(f.value())?)),
                            _ => plan.left.push(LeftPack::from_bytes(&exact(f.value())?)),
                        }
                    }
                }
            }
        }
        finished(&f.end())?;
        Ok(plan)
    }
}

/// Packs that a check has read and found damaged: all that are known to be, and not only what is new.
/// Counts only if signed by a full key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DamageRecord {
    /// Its number, also in the object's name: the greatest one counts.
    pub number: u64,
    /// The packs: no copy in them counts, so that what they held is stored again.
    pub packs: Vec<PackName>,
}

impl DamageRecord {
    /// The record: 0 number, 1 packs.
    pub fn encode(&self) -> Vec<u8> {
        let mut r = Record::new();
        r.u64(0, self.number).list(1, &self.packs);
        r.finish()
    }

    /// Reads the record.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut record = Self::default();
        let mut f = Fields::begin(Decoder::new(bytes))?;
        while let Some(key) = f.next(&[0, 1])? {
            match key {
                0 => record.number = f.value().u64()?,
                _ => {
                    for _ in 0..f.count(limits::DAMAGE_PACKS_MAX)? {
                        record.packs.push(PackName(exact(f.value())?));
                    }
                }
            }
        }
        finished(&f.end())?;
        Ok(record)
    }
}

/// Stands where a snapshot was forgotten or must not come to be. Counts only if signed by a full key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstone {
    /// When.
    pub time: Timestamp,
    /// Why, in words.
    pub why: String,
}

impl Tombstone {
    /// The record: 0 time, 1 why.
    pub fn encode(&self) -> Vec<u8> {
        let mut r = Record::new();
        r.time(0, self.time).text(1, &self.why);
        r.finish()
    }

    /// Reads the record.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut t = Self { time: Timestamp::default(), why: String::new() };
        let mut f = Fields::begin(Decoder::new(bytes))?;
        while let Some(key) = f.next(&[0, 1])? {
            match key {
                0 => t.time = f.time()?,
                _ => t.why = f.text(limits::NAME_MAX)?,
            }
        }
        finished(&f.end())?;
        Ok(t)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn session() -> SessionRecord {
        SessionRecord {
            owner: [1; 16],
            started: Timestamp { seconds: -1, nanos: 2 },
            host: "db1".into(),
            pid: 7,
            seen: 3,
            renewed: 4,
        }
    }

    fn plan() -> Plan {
        Plan {
            number: 9,
            condemned: vec![PackName([1; 32])],
            superseded: vec![IndexName([2; 32])],
            seen: vec![SnapshotId([3; 16])],
            done: true,
            left: vec![LeftPack { pack: PackName([4; 32]), since: -5 }],
        }
    }

    fn tenant() -> TenantRecord {
        TenantRecord { id: TenantId([1; 16]), public_key: vec![2; 1216], verifying: [3; 32] }
    }

    fn tombstone() -> Tombstone {
        Tombstone { time: Timestamp { seconds: 1, nanos: 2 }, why: "fenced".into() }
    }

    #[test]
    fn there_and_back() {
        for create_if_absent in [true, false] {
            for mirror in [None, Some(RepositoryId([8; 16]))] {
                let repo = RepoRecord { id: RepositoryId([7; 16]), create_if_absent, mirror };
                assert_eq!(RepoRecord::decode(&repo.encode(), "repo.json").unwrap(), repo);
            }
        }
        let none = br#"{"estrato": 0, "repository": "07070707070707070707070707070707", "mirror": "x"}"#;
        assert!(RepoRecord::decode(none, "repo.json").is_err());
        assert_eq!(SessionRecord::decode(&session().encode()).unwrap(), session());
        assert_eq!(Plan::decode(&plan().encode()).unwrap(), plan());
        assert_eq!(TenantRecord::decode(&tenant().encode()).unwrap(), tenant());
        assert_eq!(Tombstone::decode(&tombstone().encode()).unwrap(), tombstone());
    }

    #[test]
    fn a_tenant_needs_an_id_a_key_and_the_one_suite() {
        let record = |id: bool, suite: u64, verifying: bool| {
            let mut r = Record::new();
            if id {
                r.bytes(0, &[1; 16]);
            }
            r.u64(1, suite).bytes(2, &[2; 1216]);
            if verifying {
                r.bytes(3, &[3; 32]);
            }
            TenantRecord::decode(&r.finish()).ok()
        };
        assert_eq!(record(true, 1, true), Some(tenant()));
        for (id, suite, verifying) in [(true, 0, true), (true, 2, true), (false, 1, true), (true, 1, false)] {
            assert_eq!(record(id, suite, verifying), None, "{id} {suite} {verifying}");
        }
    }

    #[test]
    fn a_plan_is_in_force_until_it_says_that_it_is_done() {
        let mut r = Record::new();
        r.u64(0, 9);
        assert_eq!(Plan::decode(&r.finish()).unwrap(), Plan { number: 9, ..Plan::default() });
        for (done, expected) in [(0, false), (1, true), (2, true)] {
            let mut r = Record::new();
            r.u64(0, 9).u64(4, done);
            assert_eq!(Plan::decode(&r.finish()).unwrap().done, expected, "{done}");
        }
    }

    #[test]
    fn a_record_of_damage_comes_back_and_is_bounded() {
        let record = DamageRecord { number: 7, packs: vec![PackName([1; 32]), PackName([2; 32])] };
        let bytes = record.encode();
        assert_eq!(DamageRecord::decode(&bytes).unwrap(), record);
        for at in 0..bytes.len() {
            assert!(DamageRecord::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
        let none = |n: usize| DamageRecord { number: 1, packs: vec![PackName([1; 32]); n] }.encode();
        assert!(DamageRecord::decode(&none(limits::DAMAGE_PACKS_MAX)).is_ok());
        assert!(DamageRecord::decode(&none(limits::DAMAGE_PACKS_MAX + 1)).is_err());
    }

    #[test]
    fn texts_end_at_their_bound() {
        for (len, good) in [(4096, true), (4097, false)] {
            let session = SessionRecord { host: "h".repeat(len), ..session() };
            assert_eq!(SessionRecord::decode(&session.encode()).is_ok(), good, "{len}");
        }
        for (len, good) in [(255, true), (256, false)] {
            let grave = Tombstone { why: "w".repeat(len), ..tombstone() };
            assert_eq!(Tombstone::decode(&grave.encode()).is_ok(), good, "{len}");
        }
    }

    #[test]
    fn a_newer_repository_is_said_to_be_newer() {
        let newer = br#"{"estrato": 1, "repository": "00000000000000000000000000000000", "more": []}"#;
        assert!(matches!(RepoRecord::decode(newer, "repo.json"), Err(Error::Newer { found: 1, .. })));
        assert!(matches!(RepoRecord::decode(b"{}", "repo.json"), Err(Error::Damaged { .. })));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = RepoRecord::decode(&bytes, "repo.json");
            let _ = (SessionRecord::decode(&bytes), Plan::decode(&bytes), DamageRecord::decode(&bytes));
            let _ = (TenantRecord::decode(&bytes), Tombstone::decode(&bytes));
        }

        #[test]
        fn changed_bytes_never_panic(at in any::<prop::sample::Index>(), bit in 0..8u8) {
            for mut bytes in [session().encode(), plan().encode(), tenant().encode(), tombstone().encode()] {
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
                let _ = (SessionRecord::decode(&bytes), Plan::decode(&bytes));
                let _ = (TenantRecord::decode(&bytes), Tombstone::decode(&bytes));
            }
        }
    }
}
