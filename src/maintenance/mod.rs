//! Keeping a repository healthy: checking it, mending it, counting what it holds,
//! forgetting snapshots, deleting what no snapshot needs, and bringing what it holds
//! elsewhere.

mod check;
pub mod copy;
mod cores;
mod forget;
mod packs;
mod part;
pub mod prune;
pub mod repair;
mod report;
mod sound;
mod stats;
mod store_only;

pub use check::{Depth, check};
pub use forget::{Choice, Common, Group, GroupBy, choose, dropped, forget};
pub use part::{Part, Portion};
pub use report::{Damage, Needed, Report};
pub use stats::{Frames, Stats, Sums, stats};
pub use store_only::check_store;
