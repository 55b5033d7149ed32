//! What the walk and its readers send one another: a file to read, and what
//! became of it. Holds no more than that.

use super::file::ReadFile;
use super::replace::Old;
use crate::error::Result;
use crate::source::files::Folder;
use std::io;
use std::sync::Arc;

/// An entry of a folder that the walk is in, by the walk's own numbers.
#[derive(Clone, Copy)]
pub struct Place {
    /// The folder.
    pub folder: usize,
    /// The entry.
    pub entry: usize,
}

/// A file to read.
pub struct Job {
    /// Which it is.
    pub place: Place,
    /// The folder that holds it.
    pub folder: Arc<Folder>,
    /// Its name.
    pub name: Vec<u8>,
    /// Its size, as the walk saw it.
    pub size: u64,
    /// What it, or the file that it takes the place of, was made of.
    pub old: Old,
}

/// What became of a file, or what stops everything.
pub struct Done {
    /// Which it is.
    pub place: Place,
    /// What it holds; why it cannot be read; or why nothing can go on.
    pub outcome: Result<io::Result<ReadFile>>,
}

impl Job {
    /// The answer to this job.
    pub fn done(&self, outcome: Result<io::Result<ReadFile>>) -> Done {
        Done { place: self.place, outcome }
    }
}
