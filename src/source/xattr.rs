//! Extended attributes by one face, of an open file or folder or of an entry
//! of a folder. An entry that is a symbolic link is never followed.

use crate::limits;
use rustix::fs::{self, XattrFlags};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The kernel's own bound on one value, and on all names of one file.
const KERNEL_MAX: usize = 65_536;
/// Tried first, on the stack.
const SMALL: usize = 512;

/// Whose attributes.
pub(crate) enum Place<'a> {
    /// An open file or folder.
    Open(BorrowedFd<'a>),
    /// An entry, by the path that [`entry_path`] gives.
    Entry(&'a CStr),
}

/// A path to an entry of an open folder, for calls that know no folder handles:
/// it begins at the handle, so a folder that was moved or replaced does not matter.
pub(crate) fn entry_path(folder: BorrowedFd<'_>, name: &[u8]) -> io::Result<CString> {
    let mut path = format!("/proc/self/fd/{}/", folder.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    CString::new(path).map_err(|_| io::Error::from(Errno::INVAL))
}

impl Place<'_> {
    /// Names of all attributes, sorted; none where the file system has no attributes.
    pub(crate) fn names(&self) -> io::Result<Vec<Vec<u8>>> {
        let Some(list) = read(|buffer| match self {
            Place::Open(fd) => fs::flistxattr(fd, buffer),
            Place::Entry(path) => fs::llistxattr(*path, buffer),
        })?
        else {
            return Ok(Vec::new());
        };
        let mut names: Vec<_> = list.split(|b| *b == 0).filter(|n| !n.is_empty()).map(<[u8]>::to_vec).collect();
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// An attribute's value; `None` if there is none.
    pub(crate) fn get(&self, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
        read(|buffer| match self {
            Place::Open(fd) => fs::fgetxattr(fd, name, buffer),
            Place::Entry(path) => fs::lgetxattr(*path, name, buffer),
        })
    }

    /// Every attribute, sorted by name, as long as they stay within the bound.
    pub(crate) fn all(&self) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let (mut all, mut total) = (Vec::new(), 0);
        for name in self.names()? {
            let Some(value) = self.get(&name)? else { continue };
            total += name.len() + value.len();
            if total > limits::XATTR_TOTAL_MAX {
                let why = format!("more than {} bytes of extended attributes", limits::XATTR_TOTAL_MAX);
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            all.push((name, value));
        }
        Ok(all)
    }

    /// Adds an attribute or changes its value.
    pub(crate) fn set(&self, name: &[u8], value: &[u8]) -> io::Result<()> {
        match self {
            Place::Open(fd) => fs::fsetxattr(fd, name, value, XattrFlags::empty())?,
            Place::Entry(path) => fs::lsetxattr(*path, name, value, XattrFlags::empty())?,
        }
        Ok(())
    }

    /// Removes an attribute; one that is not there is fine.
    pub(crate) fn remove(&self, name: &[u8]) -> io::Result<()> {
        let done = match self {
            Place::Open(fd) => fs::fremovexattr(fd, name),
            Place::Entry(path) => fs::lremovexattr(*path, name),
        };
        match done {
            Ok(()) | Err(Errno::NODATA) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

/// Calls with a small buffer, and then, if need be, with the largest that the kernel fills.
fn read(call: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> io::Result<Option<Vec<u8>>> {
    let mut small = [0; SMALL];
    let small_answer = call(&mut small).map(|n| small[..n].to_vec());
    let answer = match small_answer {
        Err(Errno::RANGE) => {
            let mut large = vec![0; KERNEL_MAX];
            call(&mut large).map(|n| large[..n].to_vec())
        }
        answer => answer,
    };
    match answer {
        Ok(bytes) => Ok(Some(bytes)),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(e) => Err(e.into()),
    }
}
