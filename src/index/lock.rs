//! Locks between processes that share a folder of local state: ranges of bytes
//! of one file, which holds nothing. A lock ends with its holder, however that
//! ends, and the file stays, so that no lock is ever held on a name that is gone.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, futimens};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::SystemTime;

/// The file.
pub const LOCK_FILE: &str = "index.lock";

/// What of a folder is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Opening, making and removing the index.
    Gate,
    /// The index, as long as it is open.
    Index,
    /// The small record of what was seen.
    Seen,
    /// The small record of the newest snapshots.
    Chains,
    /// The notes of the source with this mark.
    Notes([u8; 16]),
    /// The notes of every source.
    AllNotes,
}

const NOTES: i64 = 16;

impl Part {
    /// The first byte, and how many; 0 for all that follow.
    fn range(self) -> (i64, i64) {
        match self {
            Part::Gate => (0, 1),
            Part::Index => (1, 1),
            Part::Seen => (2, 1),
            Part::Chains => (3, 1),
            // Two marks that share a byte only wait for one another.
            Part::Notes([a, b, c, d, e, f, g, h, ..]) => {
                ((i64::from_be_bytes([a, b, c, d, e, f, g, h]) & (i64::MAX >> 1)) + NOTES, 1)
            }
            Part::AllNotes => (NOTES, 0),
        }
    }
}

/// Who else may hold the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Others that share it.
    Shared,
    /// Nobody.
    Alone,
}

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

fn open(folder: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(folder.join(LOCK_FILE))
}

fn request(part: Part, hold: Hold) -> libc::flock {
    let (start, len) = part.range();
    let kind = match hold {
        Hold::Shared => libc::F_RDLCK,
        Hold::Alone => libc::F_WRLCK,
    };
    // The process id must be 0: the lock is the open file's, not the process's.
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: start, l_len: len, l_pid: 0 }
}

impl Lock {
    /// Waits until the lock is free.
    ///
    /// # Errors
    /// Where the file cannot be made, or the file system has no locks.
    pub fn wait(folder: &Path, part: Part, hold: Hold) -> io::Result<Self> {
        loop {
            let file = open(folder)?;
            loop {
                match fcntl(&file, FcntlArg::F_OFD_SETLKW(&request(part, hold))) {
                    Ok(_) => break,
                    Err(Errno::EINTR) => {}
                    Err(e) => return Err(e.into()),
                }
            }
            // A folder that was forgotten meanwhile took the file along: this lock keeps nobody out.
            if file.metadata()?.nlink() > 0 {
                return Ok(Self { _file: file });
            }
        }
    }

    /// The lock, if nobody is in the way.
    ///
    /// # Errors
    /// As [`Lock::wait`].
    pub fn attempt(folder: &Path, part: Part, hold: Hold) -> io::Result<Option<Self>> {
        loop {
            let file = open(folder)?;
            match fcntl(&file, FcntlArg::F_OFD_SETLK(&request(part, hold))) {
                Ok(_) if file.metadata()?.nlink() > 0 => return Ok(Some(Self { _file: file })),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN | Errno::EACCES) => return Ok(None),
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// Notes that the folder is in use, and returns the time by the folder's own clock.
///
/// # Errors
/// Where the lock file cannot be made or its time not set.
pub fn touch(folder: &Path) -> io::Result<SystemTime> {
    let file = open(folder)?;
    let time = |nanos| Timespec { tv_sec: 0, tv_nsec: nanos };
    futimens(&file, &Timestamps { last_access: time(UTIME_OMIT), last_modification: time(UTIME_NOW) })?;
    file.metadata()?.modified()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_locked_apart_and_ends_free_them() {
        let folder = tempfile::tempdir().unwrap();
        let attempt = |part, hold| Lock::attempt(folder.path(), part, hold).unwrap();
        let shared = attempt(Part::Index, Hold::Shared).unwrap();
        assert!(attempt(Part::Index, Hold::Shared).is_some());
        assert!(attempt(Part::Index, Hold::Alone).is_none());
        assert!(attempt(Part::Gate, Hold::Alone).is_some());
        drop(shared);
        let alone = attempt(Part::Index, Hold::Alone).unwrap();
        assert!(attempt(Part::Index, Hold::Shared).is_none());
        drop(alone);
        let notes = attempt(Part::Notes([255; 16]), Hold::Alone).unwrap();
        assert!(attempt(Part::Notes([255; 16]), Hold::Alone).is_none());
        assert!(attempt(Part::Notes([0; 16]), Hold::Alone).is_some());
        assert!(attempt(Part::AllNotes, Hold::Alone).is_none());
        drop(notes);
        assert!(attempt(Part::AllNotes, Hold::Alone).is_some());
    }

    #[test]
    fn a_lock_on_a_file_that_is_gone_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let first = Lock::wait(folder.path(), Part::Gate, Hold::Alone).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| Lock::wait(folder.path(), Part::Gate, Hold::Alone).unwrap());
            std::fs::remove_file(folder.path().join(LOCK_FILE)).unwrap();
            drop(first);
            let _second = waiting.join().unwrap();
            assert!(Lock::attempt(folder.path(), Part::Gate, Hold::Alone).unwrap().is_none());
        });
    }

    #[test]
    fn touching_sets_the_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = touch(folder.path()).unwrap();
        let file = open(folder.path()).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert!(touch(folder.path()).unwrap() >= first);
    }
}
