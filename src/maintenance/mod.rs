//! Keeping a repository healthy: checking it, counting what it holds, forgetting
//! snapshots, and deleting what no snapshot needs.

mod check;
mod forget;
mod packs;
pub mod prune;
mod report;
mod sound;
mod stats;

pub use check::{Depth, check};
pub use forget::{Choice, Common, Group, GroupBy, choose, dropped, forget};
pub use report::{Damage, Needed, Report};
pub use stats::{Frames, Stats, Sums, stats};
