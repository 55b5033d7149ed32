//! Looking at snapshots: listing and choosing them, reading the trees and
//! content lists below them, and which of them a policy keeps. Writes nothing.

mod choose;
mod read;
pub mod retention;

pub use choose::{Filter, Listing, Snapshot, list, list_but};
pub use read::{Folder, Leaves, distinct_leaves, find, leaves, lists_at};
