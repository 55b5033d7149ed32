//! Looking at snapshots: listing and choosing them, and reading the trees and
//! content lists below them. Writes nothing.

mod choose;
mod read;

pub use choose::{Filter, Listing, Snapshot, list};
pub use read::{Folder, Leaves, distinct_leaves, find, leaves, lists_at};
