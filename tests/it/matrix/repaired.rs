//! For each kind of object and each damage the repair that fits, and what a check says then: what can be
//! mended is clean, and what cannot be is still named.

use super::damage::Damage::{self, *};
use super::damage::Kind::{self, *};
use super::prepared::Prepared;
use super::{Row, chosen};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What comes of a repair and a check after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mended {
    /// The repair has done it, and all is clean.
    Clean,
    /// The repair says what it cannot do, and a check names it.
    Told,
    /// Nothing was to be done here; a check says what it said before.
    Untouched,
}

/// The repair that fits, and what comes of it.
fn expected(kind: Kind, damage: Damage) -> (&'static [&'static str], Mended) {
    const INDEX: &[&str] = &["repair", "index"];
    const SNAPSHOTS: &[&str] = &["repair", "snapshots"];
    match (kind, damage) {
        // Whatever befell an index object, packs say it again.
        (Index, _) => (INDEX, Mended::Clean),
        // A copy under another name is no pack, and stays in nobody's way.
        (Data | Tree, Doubled) => (INDEX, Mended::Told),
        // What the files of a lost pack were, a snapshot of its own leaves out; the old one stays incomplete.
        (Data | Tree, Missing | Renamed) => (SNAPSHOTS, Mended::Told),
        // A manifest cannot be made again.
        (Snapshot, Missing) => (SNAPSHOTS, Mended::Untouched),
        (Snapshot, _) => (SNAPSHOTS, Mended::Told),
        _ => (INDEX, Mended::Untouched),
    }
}

#[test]
fn every_damage_of_what_can_be_repaired_is_repaired_or_told() {
    let p = Prepared::new();
    let kinds = [Data, Tree, Index, Snapshot, Hold];
    let all: Vec<(Kind, Damage)> = kinds
        .into_iter()
        .flat_map(|kind| chosen(&kind.damages(&p)).map(move |damage| (kind, damage)).collect::<Vec<_>>())
        .collect();
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((kind, damage)) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let number = 10_000 + all.iter().position(|row| row == &(*kind, *damage)).unwrap();
                    let (repair, expected) = expected(*kind, *damage);
                    let found = Row::new(&p, number, *kind, *damage).repaired(repair);
                    if found != Ok(expected) {
                        wrong.lock().unwrap().push(format!("{kind:?} × {damage:?}: {expected:?}: {found:?}"));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} cells:\n{}", wrong.len(), wrong.join("\n"));
}
