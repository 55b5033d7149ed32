//! What a check has found: each object once, with what is wrong with it and
//! what rests on it. Bounded, however much is damaged.

use crate::clock::Timestamp;
use crate::error::Error;
use crate::id::{BlobId, PackName, SnapshotId};
use crate::limits;
use crate::repo::Verified;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Paths named for one damaged object in one snapshot.
pub(super) const PATHS_MAX: usize = 10;
/// Snapshots named for one damaged object.
const SNAPSHOTS_MAX: usize = 50;
/// Reasons named for one object.
const REASONS_MAX: usize = 3;

/// Something that is not as it should be.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Damage {
    /// The object.
    pub object: String,
    /// What is wrong with it: the first few reasons.
    pub why: Vec<String>,
    /// Reasons that are not named.
    pub more_reasons: u64,
    /// Of a pack: whose index entries are wrong, where not only full keys signed them. A writer can
    /// name whatever it likes.
    pub indexed_by: Vec<String>,
    /// Of a pack: its parity mends it. Until then readers mend it in memory, and nothing of it is lost.
    pub mendable: bool,
    /// Of a pack that was read: its frames, and those of them that cannot be relied on.
    pub frames: u64,
    /// See `frames`.
    pub bad_frames: u64,
    /// Blobs that snapshots need, and of which there is no other copy.
    pub lost_blobs: u64,
    /// Files and folders that need one of them, in all snapshots.
    pub entries: u64,
    /// Snapshots that need one: the first few that were met.
    pub needed_by: BTreeMap<String, Needed>,
    /// Snapshots that are not named.
    pub more_snapshots: u64,
    /// What was met last.
    #[serde(skip)]
    last: Option<(SnapshotId, String)>,
}

/// What needs a damaged object in one snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Needed {
    /// The first few paths.
    pub paths: Vec<String>,
    /// Paths that are not named.
    pub more: u64,
}

/// What a check found.
#[derive(Debug, Default)]
pub struct Report {
    /// Damaged objects, the first `limits::REPORT_MAX`.
    pub damage: Vec<Damage>,
    /// Damaged objects in all.
    pub damages: u64,
    /// Snapshots that were looked at.
    pub snapshots: u64,
    /// Snapshots beside which stands another without what is lost of them, and that.
    pub repaired: BTreeMap<String, String>,
    /// Packs in the store.
    pub packs: u64,
    /// Bytes of all packs in the store.
    pub pack_bytes: u64,
    /// Packs that were read and hashed.
    pub read_packs: u64,
    /// Packs, where any were to be read, that no check on this machine ever found whole.
    pub never_verified: u64,
    /// Of the others, the one that was found whole longest ago.
    pub oldest_verified: Option<Timestamp>,
    /// Bytes of packs that were read and hashed.
    pub read_bytes: u64,
    /// Blobs that were decoded and hashed.
    pub blobs: u64,
    /// Packs that were to be read and must be thawed before: the first `limits::REPORT_MAX`. Nothing is known
    /// of what is in them.
    pub frozen: Vec<String>,
    /// Such packs in all.
    pub frozen_packs: u64,
    /// Their bytes.
    pub frozen_bytes: u64,
    /// Frames of other packs that rest on such, and were not decoded.
    pub on_frozen: u64,
    /// Packs that no index object names: left by interrupted backups, and harmless unless the index lacks
    /// something.
    pub unnamed: u64,
    /// The first `limits::REPORT_MAX` of them.
    pub unnamed_packs: Vec<String>,
    /// Objects that were looked at by their names, where that was all that could be.
    pub objects: u64,
    /// What lies in the store, and is none of a repository's objects: the first `limits::REPORT_MAX`.
    pub strays: Vec<String>,
    /// Such in all.
    pub stray_objects: u64,
    /// Their bytes.
    pub stray_bytes: u64,
    /// Slots that no key has: left by an interruption, or put back. They open nothing.
    pub unused_slots: u64,
    /// Blobs are needed that no index object names: they may lie in unnamed packs.
    pub unindexed: bool,
    /// Entries of other keys that this check has found true, and said so: backups may rely on them.
    pub vouched: u64,
    /// Why what was found could not be published; `None` if it could, or there was nothing to say.
    pub unpublished: Option<String>,
    /// What was not checked, since nobody asked for it or the key does not allow it.
    pub unchecked: Vec<&'static str>,
    /// Where each damaged object stands in `damage`; `None` for those beyond its bound.
    places: HashMap<String, Option<usize>>,
    /// Blobs that are lost.
    lost: HashSet<BlobId>,
}

impl Report {
    /// Notes that an object is damaged; each counts once, however often it is met.
    pub(super) fn damaged(&mut self, object: &str, why: &str) -> Option<&mut Damage> {
        let at = match self.places.get(object) {
            Some(at) => (*at)?,
            None => {
                self.damages += 1;
                let at = Some(self.damage.len()).filter(|at| *at < limits::REPORT_MAX);
                self.places.insert(object.to_owned(), at);
                self.damage.push(Damage { object: object.to_owned(), ..Damage::default() });
                self.damage.truncate(limits::REPORT_MAX);
                at?
            }
        };
        let damage = self.damage.get_mut(at)?;
        if !why.is_empty() && !damage.why.iter().any(|known| known == why) {
            if damage.why.len() < REASONS_MAX {
                damage.why.push(why.to_owned());
            } else {
                damage.more_reasons += 1;
            }
        }
        Some(damage)
    }

    /// Notes when the packs in the store were last found whole.
    pub(super) fn covered(&mut self, known: &Verified, there: &[PackName]) {
        for name in there {
            let verified = known.of(name).verified;
            if verified == 0 {
                self.never_verified += 1;
                continue;
            }
            let time = Timestamp { seconds: i64::try_from(verified).unwrap_or(i64::MAX), nanos: 0 };
            self.oldest_verified = Some(self.oldest_verified.map_or(time, |oldest| oldest.min(time)));
        }
    }

    /// Notes what lies in the store and should not.
    pub(super) fn strayed(&mut self, object: &str, size: u64) {
        self.stray_objects += 1;
        self.stray_bytes += size;
        if self.strays.len() < limits::REPORT_MAX {
            self.strays.push(object.to_owned());
        }
    }

    /// Notes that a pack of so many bytes must be thawed before it can be read.
    pub(super) fn froze(&mut self, object: String, size: u64) {
        self.frozen_packs += 1;
        self.frozen_bytes += size;
        if self.frozen.len() < limits::REPORT_MAX {
            self.frozen.push(object);
        }
    }

    /// Notes that an entry of a snapshot needs a damaged object; `blob` is what it needs of it. No reason
    /// is given where one is known already.
    pub(super) fn needed(
        &mut self,
        object: &str,
        why: &str,
        blob: Option<&BlobId>,
        snapshot: &SnapshotId,
        path: &str,
    ) {
        let lost = blob.is_some_and(|id| self.lost.insert(*id));
        let Some(damage) = self.damaged(object, why) else { return };
        damage.lost_blobs += u64::from(lost);
        // The walk comes to a snapshot once, and to an entry of it once, which may need several blobs.
        if damage.last.as_ref().is_some_and(|(s, p)| s == snapshot && p == path) {
            return;
        }
        let known = damage.last.replace((*snapshot, path.to_owned())).is_some_and(|(s, _)| s == *snapshot);
        damage.entries += 1;
        if damage.needed_by.len() >= SNAPSHOTS_MAX && !damage.needed_by.contains_key(&snapshot.to_string()) {
            damage.more_snapshots += u64::from(!known);
            return;
        }
        let needed = damage.needed_by.entry(snapshot.to_string()).or_default();
        if needed.paths.len() < PATHS_MAX {
            needed.paths.push(path.to_owned());
        } else {
            needed.more += 1;
        }
    }
}

/// The object that an error is about, and what is wrong with it.
pub(super) fn object_of(e: &Error) -> (String, String) {
    match e {
        Error::Damaged { object, why } => (object.clone(), why.clone()),
        Error::Missing { object } => (object.clone(), "it is missing".into()),
        Error::Newer { object, found, known } => {
            (object.clone(), format!("it has format {found}; this program reads format {known}"))
        }
        Error::Store(e) => (e.object.clone(), e.why.clone()),
        other => ("the repository".into(), other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: SnapshotId = SnapshotId([1; 16]);

    #[test]
    fn an_object_counts_once() {
        let mut report = Report::default();
        for why in ["a", "b", "a", "c", "d", "e"] {
            report.damaged("x", why);
        }
        report.damaged("y", "a");
        assert_eq!((report.damages, report.damage.len()), (2, 2));
        assert_eq!((report.damage[0].why.len(), report.damage[0].more_reasons), (3, 2));
    }

    #[test]
    fn paths_are_named_up_to_a_bound_and_counted_beyond() {
        let mut report = Report::default();
        for n in 0..25u8 {
            for blob in [n, n + 100] {
                report.needed("x", "a", Some(&BlobId([blob; 32])), &ONE, &format!("/{n}"));
            }
        }
        let damage = &report.damage[0];
        assert_eq!((damage.lost_blobs, damage.entries), (50, 25));
        let needed = &damage.needed_by[&ONE.to_string()];
        assert_eq!((needed.paths.len(), needed.more, &*needed.paths[9]), (10, 15, "/9"));
    }

    #[test]
    fn snapshots_are_named_up_to_a_bound_and_counted_beyond() {
        let mut report = Report::default();
        for n in 0..60u8 {
            for path in ["/a", "/b"] {
                report.needed("x", "a", Some(&BlobId([1; 32])), &SnapshotId([n; 16]), path);
            }
        }
        let damage = &report.damage[0];
        assert_eq!((damage.needed_by.len(), damage.more_snapshots), (50, 10));
        assert_eq!((damage.lost_blobs, damage.entries), (1, 120));
    }

    #[test]
    fn what_does_not_fit_is_counted_once_too() {
        let mut report = Report::default();
        for n in 0..limits::REPORT_MAX + 3 {
            report.damaged(&format!("{n}"), "a");
            report.needed(&format!("{n}"), "b", None, &ONE, "/");
        }
        assert_eq!(report.damages as usize, limits::REPORT_MAX + 3);
        assert_eq!(report.damage.len(), limits::REPORT_MAX);
    }
}
