//! Keeping a repository healthy: checking it. Changes nothing yet.

mod check;
mod packs;
mod report;
mod sound;

pub use check::{Depth, check};
pub use report::{Damage, Needed, Report};
