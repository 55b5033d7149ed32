//! Taking a snapshot. One loop walks the source and gathers finished entries
//! into trees; a few threads read and cut files; the repository's writer
//! compresses, seals and uploads. The snapshot object comes last.

mod ahead;
mod align;
mod base;
mod compare;
mod content;
mod file;
mod job;
mod known;
mod listing;
mod moved;
mod paths;
mod replace;
mod run;
mod scout;
mod stream;
mod tree;
mod walk;

pub use align::Align;
pub use file::{Building, FileReader, Stop};
pub use moved::pattern::of as pattern_of;
pub use paths::Selection;
pub use replace::Old;
pub use run::{DeltaMode, Options, Outcome, run};
pub use stream::Stream;
pub use tree::TreeBuilder;

use crate::format::manifest::Summary;
use std::path::PathBuf;

/// What is backed up.
pub enum Source {
    /// Files and folders.
    Files(Selection),
    /// One stream, stored as a file.
    Stream(Stream),
}

/// An entry of the source that could not be stored as it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Which.
    pub path: PathBuf,
    /// What happened.
    pub why: String,
}

/// What the walk and its readers found.
#[derive(Debug, Default)]
struct Findings {
    /// Counts.
    summary: Summary,
    /// Entries in trouble; the first `limits::REPORT_MAX` of them.
    troubles: Vec<Trouble>,
}

#[cfg(test)]
mod tests;
