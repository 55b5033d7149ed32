//! Second places: what one repository holds brought to another, as its objects lie
//! or snapshot by snapshot, and two places held against each other.

mod compare;
mod feed;
mod frames;
mod raw;
mod recut;
mod verb;

pub use compare::{Apart, Compared, Lacking, compare_snapshots, compare_stores};
pub use raw::{Count, Mirrored, Options as MirrorOptions, mirror};
pub use verb::{Copied, Options, Outcome, copy};
