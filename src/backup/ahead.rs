//! Reading small files ahead: a file that is not in memory makes its reader
//! wait for the disk, or the network, about as long for a kilobyte as for a
//! megabyte. Several threads fetch small files whole, a bounded number of them,
//! while others cut and hash what has come. Large files are left to those.

use super::file::Whole;
use super::job::Job;
use crate::limits;
use crate::source::files::{Folder, Range, Stat, ranges};
use crossbeam_channel::{Receiver, Sender};
use std::io::{self, Read};

/// A file to be cut and hashed.
pub struct Ready {
    /// Which.
    pub job: Job,
    /// What it holds, or why nobody knows; `None` if it is still to be read.
    pub whole: Option<io::Result<Whole>>,
}

/// One fetching thread: until there are no more files, or nobody wants them.
pub fn fetch(jobs: &Receiver<Job>, ready: &Sender<Ready>) {
    for job in jobs {
        let is_small = job.size <= limits::READ_WHOLE_MAX;
        let whole = if is_small { whole(&job.folder, &job.name).transpose() } else { None };
        if ready.send(Ready { job, whole }).is_err() {
            return;
        }
    }
}

/// Reads a file; `None` if it has grown large, or has holes.
fn whole(folder: &Folder, name: &[u8]) -> io::Result<Option<Whole>> {
    let (mut file, stat) = folder.open_file(name)?;
    if stat.size > limits::READ_WHOLE_MAX || !matches!(ranges(&file, &stat)?[..], [Range::Data(..)]) {
        return Ok(None);
    }
    let mut bytes = Vec::with_capacity(stat.size as usize);
    (&mut file).take(stat.size).read_to_end(&mut bytes)?;
    let after = Stat::of(&file)?;
    Ok(Some(Whole { stat, after, bytes }))
}
