//! Keeping a repository healthy: checking it, and counting what it holds.
//! Changes nothing yet.

mod check;
mod packs;
mod report;
mod sound;
mod stats;

pub use check::{Depth, check};
pub use report::{Damage, Needed, Report};
pub use stats::{Frames, Stats, Sums, stats};
