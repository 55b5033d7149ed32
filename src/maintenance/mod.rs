//! Keeping a repository healthy: checking it, counting what it holds, and
//! forgetting snapshots. Frees nothing yet.

mod check;
mod forget;
mod packs;
mod report;
mod sound;
mod stats;

pub use check::{Depth, check};
pub use forget::{Choice, Common, Group, GroupBy, choose, dropped, forget};
pub use report::{Damage, Needed, Report};
pub use stats::{Frames, Stats, Sums, stats};
