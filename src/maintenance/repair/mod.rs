//! Mending what is damaged in the store. Nothing old goes before the new stands, and an
//! object is written again under its own name only by bytes that hash to it. What is
//! whole is left alone, and beside backups and prunes all of it may run.

mod index;
mod packs;
mod salvage;
mod snapshots;

pub use index::{BadObject, FalseEntry, HowIndex, IndexReport, Unread, repair_index};
pub use packs::{Outcome, Remedy, Treated, Wanted, repair_packs};
pub use snapshots::{Dropped, HowSnapshots, Mended, SnapshotsReport, repair_snapshots};
