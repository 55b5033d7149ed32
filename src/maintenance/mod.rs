//! Keeping a repository healthy: checking it. Changes nothing yet.

mod check;

pub use check::{Damage, Depth, Report, check};
