//! A snapshot's manifest: what was backed up, when, from where, and its root.

use super::cbor::{Fields, Record, count, finished};
use super::content::Content;
use super::node::Kind;
use crate::clock::Timestamp;
use crate::error::Malformed;
use crate::id::{SignerId, SnapshotId, TenantId};
use crate::limits;
use minicbor::decode::Decoder;

/// Text in a manifest, bytes.
const TEXT_MAX: usize = 4096;
/// Paths or tags in a manifest.
const LIST_MAX: usize = 4096;

/// What a snapshot read, and against what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum SnapshotKind {
    /// Every byte; needs no other snapshot to tell what changed.
    #[default]
    Full = 0,
    /// What changed since the newest snapshot of the same source.
    Incremental = 1,
    /// What changed since the newest full one.
    Differential = 2,
}

impl SnapshotKind {
    /// The kind, as people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Incremental => "incremental",
            Self::Differential => "differential",
        }
    }
}

/// What kind of source a snapshot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum SourceKind {
    /// Files below paths.
    #[default]
    Files = 0,
    /// Standard input.
    Stdin = 1,
    /// The output of a command.
    Command = 2,
}

/// Counts of entries and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Tally {
    /// Entries of folders.
    pub entries: u64,
    /// Bytes of files.
    pub bytes: u64,
}

impl Tally {
    /// One entry; what is no file has no bytes.
    pub fn of(kind: Kind, size: u64) -> Self {
        Self { entries: 1, bytes: if kind == Kind::File { size } else { 0 } }
    }

    /// Adds what another counted. Sparse files may claim more than can be counted.
    pub fn add(&mut self, other: Self) {
        self.entries = self.entries.saturating_add(other.entries);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// What a snapshot holds, and what changed against its base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Summary {
    /// All that it holds.
    pub total: Tally,
    /// What the base did not have.
    pub added: Tally,
    /// What the base has otherwise.
    pub changed: Tally,
    /// What only the base has. Bytes are those of the base.
    pub removed: Tally,
    /// Entries that could not be read.
    pub unreadable: u64,
    /// Bytes read from the source.
    pub read_bytes: u64,
    /// Plaintext bytes that the repository did not have.
    pub new_bytes: u64,
    /// Bytes that they took in packs.
    pub stored_bytes: u64,
}

/// What a repaired snapshot was made of, and what it lacks. Counts only where a full key signed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repaired {
    /// The snapshot that it repairs.
    pub of: SnapshotId,
    /// Who signed that one.
    pub signer: SignerId,
    /// Files that were left out, since a part of them is lost.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Folders of which entries are lost whose names nobody knows.
    pub folders: u64,
    /// A hash of what was left out: the same loss has the same.
    pub loss: [u8; 32],
}

impl Repaired {
    /// The record: 0 snapshot, 1 signer, 2 counts, 3 hash.
    fn encode(&self) -> Vec<u8> {
        let mut r = Record::new();
        r.bytes(0, self.of.as_bytes()).bytes(1, self.signer.as_bytes());
        r.put(2, |e| {
            e.array(3)?;
            [self.files, self.bytes, self.folders].iter().try_for_each(|n| e.u64(*n)?.ok())
        });
        r.bytes(3, &self.loss);
        r.finish()
    }

    fn read(d: &mut Decoder<'_>) -> Result<Self, Malformed> {
        let (mut of, mut signer, mut counts, mut loss) = (None, SignerId([0; 32]), [0; 3], [0; 32]);
        let mut f = Fields::begin(d.clone())?;
        while let Some(key) = f.next(&[0, 1, 2, 3])? {
            match key {
                0 => of = Some(SnapshotId(f.array()?)),
                1 => signer = SignerId(f.array()?),
                2 => counts = read_counts(f.value())?,
                _ => loss = f.array()?,
            }
        }
        *d = f.end();
        let of = of.ok_or_else(|| Malformed::new("a repaired snapshot of none"))?;
        let [files, bytes, folders] = counts;
        Ok(Self { of, signer, files, bytes, folders, loss })
    }
}

/// The plaintext of a snapshot object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Manifest {
    /// The moment that the snapshot shows.
    pub time: Timestamp,
    /// When reading began.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// The machine.
    pub host: String,
    /// Who ran it.
    pub user: String,
    /// The paths as they were given, or the `--name`.
    pub paths: Vec<Vec<u8>>,
    /// Absolute paths (or the name) by which later snapshots know the same source.
    pub source: Vec<Vec<u8>>,
    /// Where the data came from.
    pub source_kind: SourceKind,
    /// Labels.
    pub tags: Vec<String>,
    /// What was read.
    pub kind: SnapshotKind,
    /// What it was compared with.
    pub base: Option<SnapshotId>,
    /// The folder above everything.
    pub root: Content,
    /// Counts.
    pub summary: Summary,
    /// The program that wrote it.
    pub program: String,
    /// Names the unbroken memory of one writer; begins anew where it was lost.
    pub chain: [u8; 16],
    /// Place in the chain, from 1.
    pub counter: u64,
    /// The snapshot before it in the chain.
    pub previous: Option<SnapshotId>,
    /// What it repairs, if it takes the place of a damaged one.
    pub repaired: Option<Repaired>,
    /// Of a copy, what it is a copy of.
    pub origin: Option<Origin>,
}

/// A snapshot, wherever it is: whose copies are known by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The tenant in which it was taken.
    pub tenant: TenantId,
}

impl Manifest {
    /// The record.
    pub fn encode(&self) -> Vec<u8> {
        let mut r = Record::new();
        r.time(0, self.time).time(1, self.started).time(2, self.ended);
        r.text(3, &self.host).text(4, &self.user);
        r.list(5, &self.paths).list(6, &self.source);
        r.u64(7, self.source_kind as u64);
        r.put(8, |e| {
            e.array(self.tags.len() as u64)?;
            self.tags.iter().try_for_each(|t| e.str(t)?.ok())
        });
        r.u64(9, self.kind as u64);
        if let Some(base) = &self.base {
            r.bytes(10, base.as_bytes());
        }
        r.raw(11, &self.root.encode());
        let s = &self.summary;
        let numbers = [
            s.total.entries,
            s.total.bytes,
            s.added.entries,
            s.added.bytes,
            s.changed.entries,
            s.changed.bytes,
            s.removed.entries,
            s.removed.bytes,
            s.unreadable,
            s.read_bytes,
            s.new_bytes,
            s.stored_bytes,
        ];
        r.put(12, |e| {
            e.array(numbers.len() as u64)?;
            numbers.iter().try_for_each(|n| e.u64(*n)?.ok())
        });
        r.text(13, &self.program).bytes(14, &self.chain).u64(15, self.counter);
        if let Some(previous) = &self.previous {
            r.bytes(16, previous.as_bytes());
        }
        if let Some(repaired) = &self.repaired {
            r.raw(17, &repaired.encode());
        }
        if let Some(origin) = &self.origin {
            r.bytes(18, origin.snapshot.as_bytes()).bytes(19, origin.tenant.as_bytes());
        }
        r.finish()
    }

    /// Reads the record.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        const KNOWN: &[u64] = &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19];
        let mut m = Self::default();
        let (mut has_time, mut has_root) = (false, false);
        let (mut original, mut of) = (None, None);
        let mut f = Fields::begin(Decoder::new(bytes))?;
        while let Some(key) = f.next(KNOWN)? {
            match key {
                0 => {
                    m.time = f.time()?;
                    has_time = true;
                }
                1 => m.started = f.time()?,
                2 => m.ended = f.time()?,
                3 => m.host = f.text(TEXT_MAX)?,
                4 => m.user = f.text(TEXT_MAX)?,
                5 => m.paths = read_list(&mut f)?,
                6 => m.source = read_list(&mut f)?,
                7 => {
                    m.source_kind = match f.value().u8()? {
                        0 => SourceKind::Files,
                        1 => SourceKind::Stdin,
                        2 => SourceKind::Command,
                        n => return Err(Malformed(format!("a source of unknown kind {n}"))),
                    }
                }
                8 => {
                    for _ in 0..f.count(LIST_MAX)? {
                        m.tags.push(f.text(TEXT_MAX)?);
                    }
                }
                9 => {
                    m.kind = match f.value().u8()? {
                        0 => SnapshotKind::Full,
                        1 => SnapshotKind::Incremental,
                        2 => SnapshotKind::Differential,
                        n => return Err(Malformed(format!("a snapshot of unknown kind {n}"))),
                    }
                }
                10 => m.base = Some(SnapshotId(f.array()?)),
                11 => {
                    m.root = Content::read(f.value())?;
                    has_root = true;
                }
                12 => m.summary = read_summary(f.value())?,
                13 => m.program = f.text(TEXT_MAX)?,
                14 => m.chain = f.array()?,
                15 => m.counter = f.value().u64()?,
                16 => m.previous = Some(SnapshotId(f.array()?)),
                17 => m.repaired = Some(Repaired::read(f.value())?),
                18 => original = Some(SnapshotId(f.array()?)),
                _ => of = Some(TenantId(f.array()?)),
            }
        }
        finished(&f.end())?;
        m.origin = match (original, of) {
            (Some(snapshot), Some(tenant)) => Some(Origin { snapshot, tenant }),
            (None, None) => None,
            _ => return Err(Malformed::new("a copy that names a snapshot or a tenant, and not both")),
        };
        if !has_time || !has_root {
            return Err(Malformed::new("a manifest without a time or a root"));
        }
        Ok(m)
    }
}

fn read_list(f: &mut Fields<'_>) -> Result<Vec<Vec<u8>>, Malformed> {
    let mut list = Vec::new();
    for _ in 0..f.count(LIST_MAX)? {
        list.push(f.bytes(limits::LINK_MAX)?);
    }
    Ok(list)
}

/// Counts; further ones are passed over, and missing ones are 0.
fn read_counts<const N: usize>(d: &mut Decoder<'_>) -> Result<[u64; N], Malformed> {
    let mut numbers = [0; N];
    for at in 0..count(d, 64)? {
        let number = d.u64()?;
        if let Some(place) = numbers.get_mut(at) {
            *place = number;
        }
    }
    Ok(numbers)
}

fn read_summary(d: &mut Decoder<'_>) -> Result<Summary, Malformed> {
    let numbers: [u64; 12] = read_counts(d)?;
    let tally = |at: usize| Tally { entries: numbers[at], bytes: numbers[at + 1] };
    Ok(Summary {
        total: tally(0),
        added: tally(2),
        changed: tally(4),
        removed: tally(6),
        unreadable: numbers[8],
        read_bytes: numbers[9],
        new_bytes: numbers[10],
        stored_bytes: numbers[11],
    })
}

#[cfg(test)]
mod tests {
    use super::super::content::Extent;
    use super::*;
    use crate::id::BlobId;
    use proptest::prelude::*;

    prop_compose! {
        fn manifest()(
            seconds in any::<i64>(), nanos in 0u32..1_000_000_000,
            host in ".{0,20}", tags in proptest::collection::vec("[a-z]{0,9}", 0..4),
            paths in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..30), 0..4),
            base in any::<Option<[u8; 16]>>(), counter in any::<u64>(), bytes in any::<u64>(),
            kind in prop::sample::select(vec![SnapshotKind::Full, SnapshotKind::Incremental, SnapshotKind::Differential]),
        ) -> Manifest {
            let time = Timestamp { seconds, nanos };
            let summary = Summary { removed: Tally { entries: 1, bytes }, ..Summary::default() };
            Manifest {
                time, host, tags, source: paths.clone(), paths, kind, counter, summary,
                base: base.map(SnapshotId), previous: base.map(SnapshotId), ..Manifest::default()
            }
        }
    }

    /// One whose every field has a value of its own.
    fn whole() -> Manifest {
        let time = |seconds| Timestamp { seconds, nanos: 1 };
        let tally = |n| Tally { entries: n, bytes: n + 1 };
        Manifest {
            time: time(1),
            started: time(2),
            ended: time(3),
            host: "host".into(),
            user: "user".into(),
            paths: vec![b"path".to_vec()],
            source: vec![b"/source".to_vec()],
            source_kind: SourceKind::Command,
            tags: vec!["tag".into()],
            kind: SnapshotKind::Differential,
            base: Some(SnapshotId([4; 16])),
            root: Content { level: 2, extents: vec![Extent { id: Some(BlobId([8; 32])), len: 9 }] },
            summary: Summary {
                total: tally(10),
                added: tally(20),
                changed: tally(30),
                removed: tally(40),
                unreadable: 50,
                read_bytes: 60,
                new_bytes: 70,
                stored_bytes: 80,
            },
            program: "program".into(),
            chain: [5; 16],
            counter: 6,
            previous: Some(SnapshotId([7; 16])),
            repaired: Some(Repaired {
                of: SnapshotId([9; 16]),
                signer: SignerId([10; 32]),
                files: 11,
                bytes: 12,
                folders: 13,
                loss: [14; 32],
            }),
            origin: Some(Origin { snapshot: SnapshotId([9; 16]), tenant: TenantId([10; 16]) }),
        }
    }

    #[test]
    fn every_field_comes_back() {
        assert_eq!(Manifest::decode(&whole().encode()).unwrap(), whole());
        for source_kind in [SourceKind::Files, SourceKind::Stdin, SourceKind::Command] {
            let m = Manifest { source_kind, ..whole() };
            assert_eq!(Manifest::decode(&m.encode()).unwrap(), m);
        }
    }

    #[test]
    fn a_copy_names_both_what_it_copies_and_whose_that_is() {
        for (snapshot, tenant, good) in [(true, true, true), (true, false, false), (false, true, false)] {
            let mut r = Record::new();
            r.time(0, whole().time).raw(11, &Content::default().encode());
            if snapshot {
                r.bytes(18, &[9; 16]);
            }
            if tenant {
                r.bytes(19, &[10; 16]);
            }
            assert_eq!(Manifest::decode(&r.finish()).is_ok(), good);
        }
    }

    #[test]
    fn a_time_and_a_root_are_needed_and_nothing_else() {
        for (time, root) in [(true, true), (true, false), (false, true), (false, false)] {
            let mut r = Record::new();
            if time {
                r.time(0, whole().time);
            }
            if root {
                r.raw(11, &Content::default().encode());
            }
            let expected = (time && root).then(|| Manifest { time: whole().time, ..Manifest::default() });
            assert_eq!(Manifest::decode(&r.finish()).ok(), expected, "{time} {root}");
        }
    }

    #[test]
    fn a_longer_summary_is_read_as_far_as_it_is_known() {
        for len in [0u64, 2, 12, 13, 64, 65] {
            let mut r = Record::new();
            r.time(0, whole().time).raw(11, &Content::default().encode());
            r.put(12, |e| {
                e.array(len)?;
                (1..=len).try_for_each(|n| e.u64(n)?.ok())
            });
            let summary = Manifest::decode(&r.finish()).map(|m| m.summary);
            let Ok(summary) = summary else {
                assert_eq!(len, 65);
                continue;
            };
            assert_eq!(summary.total, if len == 0 { Tally::default() } else { Tally { entries: 1, bytes: 2 } });
            assert_eq!(summary.stored_bytes, if len < 12 { 0 } else { 12 });
        }
    }

    #[test]
    fn kinds_are_called_as_the_manual_does() {
        let kinds = [SnapshotKind::Full, SnapshotKind::Incremental, SnapshotKind::Differential];
        assert_eq!(kinds.map(SnapshotKind::name), ["full", "incremental", "differential"]);
    }

    #[test]
    fn unknown_kinds_are_refused() {
        for key in [7, 9] {
            for (number, good) in [(0, true), (2, true), (3, false)] {
                let mut r = Record::new();
                r.time(0, whole().time).u64(key, number);
                r.raw(11, &Content::default().encode());
                assert_eq!(Manifest::decode(&r.finish()).is_ok(), good, "{key} {number}");
            }
        }
    }

    #[test]
    fn paths_and_texts_end_at_their_bound() {
        let m = |paths: usize, path: usize, text: usize| Manifest {
            paths: vec![vec![b'a'; path]; paths],
            tags: vec!["a".repeat(text); paths],
            ..whole()
        };
        for (paths, path, text, good) in [
            (LIST_MAX, 1, 1, true),
            (LIST_MAX + 1, 1, 1, false),
            (1, limits::LINK_MAX, TEXT_MAX, true),
            (1, limits::LINK_MAX + 1, 1, false),
            (1, 1, TEXT_MAX + 1, false),
        ] {
            assert_eq!(Manifest::decode(&m(paths, path, text).encode()).is_ok(), good, "{paths} {path} {text}");
        }
    }

    proptest! {
        #[test]
        fn there_and_back(m in manifest()) {
            prop_assert_eq!(Manifest::decode(&m.encode()).unwrap(), m);
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Manifest::decode(&bytes);
        }

        #[test]
        fn changed_bytes_never_panic(m in manifest(), at in any::<prop::sample::Index>(), bit in 0..8u8) {
            let mut bytes = m.encode();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let _ = Manifest::decode(&bytes);
        }
    }
}
