//! Keeping a repository healthy: checking it, counting what it holds, and deleting
//! what nothing needs.

mod check;
mod packs;
pub mod prune;
mod report;
mod sound;
mod stats;

pub use check::{Depth, check};
pub use report::{Damage, Needed, Report};
pub use stats::{Frames, Stats, Sums, stats};
