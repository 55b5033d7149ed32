//! Stores on which reading costs: what a run could rest on is read only where it is worth that.

use super::{rows, touched};
use crate::world::{FULL, World, options};
use estrato::backup::{self, DeltaMode, Options, Selection, Source};
use estrato::maintenance;
use estrato::monitor::Silent;
use std::fs;
use std::path::PathBuf;

/// A table in a store that is far, after a first snapshot.
struct Far {
    world: World,
    /// Never changed.
    folder: tempfile::TempDir,
    table: Vec<u8>,
}

/// What a second snapshot did.
#[derive(Debug)]
struct Second {
    deltas: u64,
    read: u64,
    stored: u64,
}

impl Far {
    fn new() -> Self {
        let far =
            Self { world: World::today(), folder: tempfile::tempdir().unwrap(), table: rows(0, 40_000, "table") };
        far.world.store.moves_away();
        fs::write(far.file(), &far.table).unwrap();
        far.world.backup(&far.world.open(FULL), far.folder.path());
        far
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("table")
    }

    /// Takes a snapshot of the table as it is now, on a machine that holds nothing but its notes, and
    /// restores it.
    fn second(&self, table: &[u8], delta: DeltaMode) -> Second {
        fs::write(self.file(), table).unwrap();
        let repo = self.world.open(FULL);
        let before = self.world.store.bytes_read();
        let source = Source::Files(Selection::new(&[self.folder.path().to_path_buf()]).unwrap());
        let outcome = backup::run(&repo, source, &Options { delta, ..options() }, &Silent).unwrap();
        let read = self.world.store.bytes_read() - before;
        let (stats, problems) = maintenance::stats(&repo).unwrap();
        assert!(problems.is_empty() && outcome.troubles.is_empty());
        let restored = self.world.try_restore(&repo, &outcome.snapshot.unwrap(), self.folder.path());
        assert!(restored.files[&PathBuf::from("table")] == table, "{:?}", restored.told);
        let chunks = stats.frames.iter().find(|f| f.kind == "chunks").unwrap();
        Second { deltas: chunks.delta.frames, read, stored: outcome.manifest.summary.stored_bytes }
    }
}

#[test]
fn where_little_changed_nothing_is_read_to_save_less() {
    // A byte in each half megabyte: each run would read a frame of a megabyte.
    let far = Far::new();
    let changed = touched(&far.table, 500_000);
    let auto = far.second(&changed, DeltaMode::Auto);
    assert_eq!(auto.deltas, 0, "{auto:?}");
    let far = Far::new();
    let always = far.second(&changed, DeltaMode::Always);
    assert!(always.deltas >= 7, "{always:?}");
    assert!(always.read > auto.read + 800_000, "{auto:?}, {always:?}");
    assert!(always.stored < auto.stored, "{auto:?}, {always:?}");
}

#[test]
fn where_all_changed_what_is_read_saves_more() {
    let far = Far::new();
    let changed = touched(&far.table, 2_000);
    let auto = far.second(&changed, DeltaMode::Auto);
    let far = Far::new();
    let never = far.second(&changed, DeltaMode::Never);
    assert!(auto.deltas >= 1 && never.deltas == 0, "{auto:?}, {never:?}");
    assert!(auto.read - never.read < 2 * (never.stored - auto.stored), "{auto:?}, {never:?}");
}

#[test]
fn where_reading_costs_nothing_all_is_read() {
    let far = Far::new();
    let near = World { store: far.world.twin().store, clock: far.world.clock.clone() };
    let near = Far { world: near, ..far };
    assert!(near.second(&touched(&near.table, 500_000), DeltaMode::Auto).deltas >= 7);
}
