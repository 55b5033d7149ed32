//! What full keys say of snapshots: which were forgotten, and which must not be.
//! Snapshots name the one before them in their chain; where that was forgotten,
//! the record of it leads on, so that one that was taken away is still missed.

use super::cbor::{Fields, Record, count, exact, finished};
use crate::clock::Timestamp;
use crate::error::Malformed;
use crate::id::{SignerId, SnapshotId};
use crate::limits;
use minicbor::decode::Decoder;

/// A snapshot that was forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForgottenSnapshot {
    /// Which.
    pub snapshot: SnapshotId,
    /// Who had signed it; zeros where it could not be read.
    pub signer: SignerId,
    /// Its chain.
    pub chain: [u8; 16],
    /// Its place in the chain; 0 where it could not be read.
    pub counter: u64,
    /// The nearest before it in the chain that was not forgotten when this was written; none where it was the
    /// first that still stood.
    pub before: Option<SnapshotId>,
}

/// What was forgotten. Counts only if signed by a full key, and beside all others that there are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Forgotten {
    /// The snapshots, in the order in which they were forgotten.
    pub snapshots: Vec<ForgottenSnapshot>,
}

impl Forgotten {
    /// The record: 0 the snapshots.
    pub fn encode(&self) -> Vec<u8> {
        let mut snapshots = Vec::new();
        for s in &self.snapshots {
            let mut r = Record::new();
            r.bytes(0, s.snapshot.as_bytes()).bytes(1, s.signer.as_bytes()).bytes(2, &s.chain).u64(3, s.counter);
            if let Some(before) = &s.before {
                r.bytes(4, before.as_bytes());
            }
            r.write_to(&mut snapshots);
        }
        let mut r = Record::new();
        r.put(0, |e| {
            e.array(self.snapshots.len() as u64)?;
            e.writer_mut().extend_from_slice(&snapshots);
            Ok(())
        });
        r.finish()
    }

    /// Reads the record. One with fields from a newer program is refused: it would be written again.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut all = Self::default();
        let mut f = Fields::begin(Decoder::new(bytes))?;
        while f.next(&[0])?.is_some() {
            for _ in 0..count(f.value(), limits::FORGOTTEN_MAX)? {
                all.snapshots.push(read_snapshot(f.value())?);
            }
        }
        if f.unknown() {
            return Err(Malformed::new("a record of what was forgotten with fields of a newer program"));
        }
        finished(&f.end())?;
        Ok(all)
    }
}

fn read_snapshot(d: &mut Decoder<'_>) -> Result<ForgottenSnapshot, Malformed> {
    let (mut snapshot, mut signer, mut chain, mut counter, mut before) = (None, [0; 32], [0; 16], 0, None);
    let mut f = Fields::begin(d.clone())?;
    while let Some(key) = f.next(&[0, 1, 2, 3, 4])? {
        match key {
            0 => snapshot = Some(SnapshotId(exact(f.value())?)),
            1 => signer = exact(f.value())?,
            2 => chain = exact(f.value())?,
            3 => counter = f.value().u64()?,
            _ => before = Some(SnapshotId(exact(f.value())?)),
        }
    }
    if f.unknown() {
        return Err(Malformed::new("a forgotten snapshot with fields of a newer program"));
    }
    *d = f.end();
    let snapshot = snapshot.ok_or_else(|| Malformed::new("a forgotten snapshot without its id"))?;
    Ok(ForgottenSnapshot { snapshot, signer: SignerId(signer), chain, counter, before })
}

/// A legal hold on the snapshot that its name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Since when.
    pub time: Timestamp,
    /// Why, in words.
    pub why: String,
}

impl Hold {
    /// The record: 0 time, 1 why.
    pub fn encode(&self) -> Vec<u8> {
        let mut r = Record::new();
        r.time(0, self.time).text(1, &self.why);
        r.finish()
    }

    /// Reads the record.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut hold = Self { time: Timestamp::default(), why: String::new() };
        let mut f = Fields::begin(Decoder::new(bytes))?;
        while let Some(key) = f.next(&[0, 1])? {
            match key {
                0 => hold.time = f.time()?,
                _ => hold.why = f.text(limits::NAME_MAX)?,
            }
        }
        finished(&f.end())?;
        Ok(hold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn forgotten() -> Forgotten {
        let one = ForgottenSnapshot {
            snapshot: SnapshotId([1; 16]),
            signer: SignerId([2; 32]),
            chain: [3; 16],
            counter: 4,
            before: Some(SnapshotId([5; 16])),
        };
        Forgotten { snapshots: vec![one, ForgottenSnapshot { snapshot: SnapshotId([6; 16]), before: None, ..one }] }
    }

    fn hold() -> Hold {
        Hold { time: Timestamp { seconds: -1, nanos: 2 }, why: "case 17".into() }
    }

    #[test]
    fn there_and_back() {
        assert_eq!(Forgotten::decode(&forgotten().encode()).unwrap(), forgotten());
        assert_eq!(Forgotten::decode(&Forgotten::default().encode()).unwrap(), Forgotten::default());
        assert_eq!(Hold::decode(&hold().encode()).unwrap(), hold());
    }

    #[test]
    fn bounds_are_kept() {
        for (len, good) in [(255, true), (256, false)] {
            assert_eq!(Hold::decode(&Hold { why: "w".repeat(len), ..hold() }.encode()).is_ok(), good, "{len}");
        }
        let many = |n: usize| [&[0xa1, 0, 0x9a][..], &u32::try_from(n).unwrap().to_be_bytes()].concat();
        // An array that is longer than its bytes is refused before anything is allocated for it.
        for n in [1, limits::FORGOTTEN_MAX + 1, u32::MAX as usize] {
            assert!(Forgotten::decode(&many(n)).is_err(), "{n}");
        }
    }

    #[test]
    fn what_a_newer_program_wrote_is_not_written_again_without_it() {
        let mut r = Record::new();
        r.put(0, |e| e.array(0)?.ok()).u64(1, 7);
        assert!(Forgotten::decode(&r.finish()).is_err());
        let mut inner = Record::new();
        inner.bytes(0, &[1; 16]).u64(5, 7);
        let mut r = Record::new();
        r.put(0, |e| {
            e.array(1)?;
            e.writer_mut().extend_from_slice(&inner.finish());
            Ok(())
        });
        assert!(Forgotten::decode(&r.finish()).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = (Forgotten::decode(&bytes), Hold::decode(&bytes));
        }

        #[test]
        fn changed_bytes_never_panic(at in any::<prop::sample::Index>(), bit in 0..8u8) {
            for mut bytes in [forgotten().encode(), hold().encode()] {
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
                let _ = (Forgotten::decode(&bytes), Hold::decode(&bytes));
            }
        }
    }
}
