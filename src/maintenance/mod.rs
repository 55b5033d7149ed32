//! Keeping a repository healthy: checking it, and counting what it holds.
//! Changes nothing but to add what checks have found.

mod check;
mod cores;
mod packs;
mod part;
mod report;
mod sound;
mod stats;
mod store_only;

pub use check::{Depth, check};
pub use part::{Part, Portion};
pub use report::{Damage, Needed, Report};
pub use stats::{Frames, Stats, Sums, stats};
pub use store_only::check_store;
