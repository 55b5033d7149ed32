//! Writing below a target, by folder handles: no step follows a symbolic link
//! or leads out of the target, whatever lies there already and whoever changes
//! it meanwhile. What is in the way is removed; data that others share through
//! a hard link is never changed. Decides nothing about what is restored, and
//! does not wait for the disk.

mod attributes;

pub use attributes::{Owners, apply_at, apply_to_file, apply_to_folder};

use crate::error::{Error, Result};
use crate::format::node::{Kind, Node};
use crate::source::files::{Folder, Stat, check_component};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::process::geteuid;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// How often a step is tried while somebody else changes the same names.
const TRIES: usize = 16;
/// Folders that a removal keeps open at most.
const REMOVE_DEPTH: usize = 64;
/// Of a folder that nobody else is to see before it is done.
const PRIVATE_FOLDER: Mode = Mode::RWXU;
/// Of a file that nobody else is to read before it is done.
const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);

/// An open folder that is written to.
#[derive(Debug)]
pub struct TargetFolder {
    folder: Folder,
}

impl TargetFolder {
    /// Opens the target, a path that the user named. If it is missing it is
    /// made, with its parents, for this user alone.
    pub fn root(path: &Path) -> Result<TargetFolder> {
        let open = || {
            if let Err(e) = Folder::open(path) {
                match e.kind() {
                    io::ErrorKind::NotFound => DirBuilder::new().recursive(true).mode(0o700).create(path)?,
                    _ => return Err(e),
                }
            }
            Folder::open(path)
        };
        let folder = open().map_err(|source| Error::Target { path: path.to_path_buf(), source })?;
        Ok(TargetFolder { folder })
    }

    /// Where it was when it was opened; for messages.
    pub fn path(&self) -> PathBuf {
        self.folder.path()
    }

    /// Where an entry is; for messages.
    pub fn path_of(&self, name: &[u8]) -> PathBuf {
        self.folder.path_of(name)
    }

    /// The same folder, to be read.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Opens a folder in this one. If it is missing it is made, for this user
    /// alone; what is there and is no folder is removed first.
    pub fn enter(&self, name: &[u8]) -> Result<TargetFolder> {
        self.on(name, self.try_enter(name))
    }

    /// Opens a folder that was entered before; nothing is made or removed.
    pub fn again(&self, name: &[u8]) -> Result<TargetFolder> {
        self.on(name, self.open_child(name, ResolveFlags::empty()))
    }

    fn try_enter(&self, name: &[u8]) -> io::Result<TargetFolder> {
        for _ in 0..TRIES {
            match self.open_child(name, ResolveFlags::empty()) {
                Err(e) => match Errno::from_io_error(&e) {
                    Some(Errno::NOENT) => match fs::mkdirat(self, name, PRIVATE_FOLDER) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(e) => return Err(e.into()),
                    },
                    Some(Errno::NOTDIR | Errno::LOOP) => match self.unlink(name) {
                        Ok(()) | Err(Errno::ISDIR) => {}
                        Err(e) => return Err(e.into()),
                    },
                    _ => return Err(e),
                },
                entered => return entered,
            }
        }
        Err(contested())
    }

    /// Opens a folder. Whoever owns it and shut himself out of it is let in:
    /// its mode is set anew when all is in it.
    fn open_child(&self, name: &[u8], refused: ResolveFlags) -> io::Result<TargetFolder> {
        let folder = match self.folder.child_within(name, refused) {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied && self.unlock(name, PRIVATE_FOLDER).is_ok() => {
                self.folder.child_within(name, refused)
            }
            opened => opened,
        }?;
        let euid = geteuid();
        if !euid.is_root() {
            let stat = folder.stat()?;
            let mode = Mode::from_raw_mode(stat.mode);
            if stat.uid == euid.as_raw() && !mode.contains(PRIVATE_FOLDER) {
                fs::fchmod(&folder, mode | PRIVATE_FOLDER)?;
            }
        }
        Ok(TargetFolder { folder })
    }

    /// Adds to the mode of a file or folder that cannot be opened.
    fn unlock(&self, name: &[u8], more: Mode) -> io::Result<()> {
        let fd = self.point_at(name)?;
        let mode = fs::fstat(&fd)?.st_mode;
        match FileType::from_raw_mode(mode) {
            FileType::RegularFile | FileType::Directory => chmod(fd.as_fd(), Mode::from_raw_mode(mode) | more),
            _ => Err(Errno::ACCESS.into()),
        }
    }

    /// A handle that names an entry, of any kind, without opening it.
    fn point_at(&self, name: &[u8]) -> io::Result<OwnedFd> {
        check_component(name)?;
        Ok(fs::openat(self, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// What is there under this name, if anything.
    pub fn stat_of(&self, name: &[u8]) -> Result<Option<Stat>> {
        self.on(name, self.try_stat_of(name))
    }

    fn try_stat_of(&self, name: &[u8]) -> io::Result<Option<Stat>> {
        match self.folder.stat_of(name) {
            Ok(stat) => Ok(Some(stat)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Names of all entries, sorted by their bytes.
    pub fn names(&self) -> Result<Vec<Vec<u8>>> {
        self.folder.names().map_err(|source| Error::Target { path: self.path(), source })
    }

    /// Removes what is there, and all that is in it if it is a folder. Links are
    /// removed and not followed, and what is mounted below is left alone: an
    /// error. Nothing there is fine.
    pub fn remove(&self, name: &[u8]) -> Result<()> {
        self.on(name, self.try_remove(name))
    }

    fn try_remove(&self, name: &[u8]) -> io::Result<()> {
        check_component(name)?;
        match self.unlink(name) {
            Err(Errno::ISDIR) => self.remove_folder(name, None, 0).map(drop),
            done => Ok(done?),
        }
    }

    /// Removes what is no folder; nothing there is fine.
    fn unlink(&self, name: &[u8]) -> rustix::io::Result<()> {
        match fs::unlinkat(self, name, AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            done => done,
        }
    }

    /// Removes a folder. What lies too deep to be reached with a bounded number of
    /// handles is moved into `top`, and then true is returned: `top` is not empty yet.
    fn remove_folder(&self, name: &[u8], top: Option<&TargetFolder>, depth: usize) -> io::Result<bool> {
        let mut moved = false;
        for _ in 0..TRIES {
            match self.open_child(name, ResolveFlags::NO_XDEV) {
                Ok(folder) => match top {
                    Some(top) => moved |= folder.clear(top, depth)?,
                    None => while folder.clear(&folder, depth)? {},
                },
                Err(e) => match Errno::from_io_error(&e) {
                    Some(Errno::NOENT) => return Ok(moved),
                    Some(Errno::XDEV) => {
                        return Err(io::Error::other("a file system is mounted there; it is left alone"));
                    }
                    Some(Errno::NOTDIR | Errno::LOOP) => match self.unlink(name) {
                        Ok(()) => return Ok(moved),
                        Err(Errno::ISDIR) => continue,
                        Err(e) => return Err(e.into()),
                    },
                    _ => return Err(e),
                },
            }
            match fs::unlinkat(self, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => return Ok(moved),
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Err(contested())
    }

    /// Removes all entries; true if some were moved into `top`.
    fn clear(&self, top: &TargetFolder, depth: usize) -> io::Result<bool> {
        let mut moved = false;
        for name in self.folder.names()? {
            match self.unlink(&name) {
                Err(Errno::ISDIR) if depth < REMOVE_DEPTH => {
                    moved |= self.remove_folder(&name, Some(top), depth + 1)?;
                }
                Err(Errno::ISDIR) => {
                    self.move_into(top, &name)?;
                    moved = true;
                }
                done => done?,
            }
        }
        Ok(moved)
    }

    /// Moves a folder under a name that is free there.
    fn move_into(&self, top: &TargetFolder, name: &[u8]) -> io::Result<()> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        drop(self.open_child(name, ResolveFlags::NO_XDEV)?);
        for _ in 0..TRIES {
            let free = format!(".estrato-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            match fs::renameat(self, name, top, free) {
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR | Errno::ISDIR) => {}
                done => return Ok(done?),
            }
        }
        Err(contested())
    }

    /// Opens a file that is there, to compare its data and write what differs.
    /// `None` if there is nothing, no regular file, one that also has another
    /// name, or one that cannot be written: then it is to be created.
    pub fn open_existing(&self, name: &[u8]) -> Result<Option<File>> {
        self.on(name, self.try_open_existing(name))
    }

    fn try_open_existing(&self, name: &[u8]) -> io::Result<Option<File>> {
        let ours = |stat: &Stat| stat.kind == Kind::File && stat.links == 1;
        // To open a device can start it: look first.
        if !self.try_stat_of(name)?.is_some_and(|stat| ours(&stat)) {
            return Ok(None);
        }
        let opened = match self.open_file(name) {
            Err(Errno::ACCESS) if self.unlock(name, PRIVATE_FILE).is_ok() => self.open_file(name),
            opened => opened,
        };
        match opened {
            Ok(file) => Ok(Some(file).filter(|file| Stat::of(file).is_ok_and(|stat| ours(&stat)))),
            Err(
                Errno::NOENT | Errno::LOOP | Errno::ISDIR | Errno::NXIO | Errno::ACCESS | Errno::PERM | Errno::TXTBSY,
            ) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    fn open_file(&self, name: &[u8]) -> rustix::io::Result<File> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        fs::openat(self, name, flags, Mode::empty()).map(File::from)
    }

    /// Makes an empty file, for this user alone; what is there is removed first.
    pub fn create_file(&self, name: &[u8]) -> Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = self.place(name, || fs::openat(self, name, flags, PRIVATE_FILE), || Ok(None));
        self.on(name, file.map(File::from))
    }

    /// Opens a file that was created here before. One that has another name too is not it: somebody
    /// has put a link to a file of his choice in its place.
    pub fn reopen(&self, name: &[u8]) -> Result<File> {
        self.on(name, self.try_reopen(name, |stat| stat.kind == Kind::File && stat.links == 1))
    }

    /// Opens a file that was there with several names.
    pub fn reopen_shared(&self, name: &[u8]) -> Result<File> {
        self.on(name, self.try_reopen(name, |stat| stat.kind == Kind::File))
    }

    fn try_reopen(&self, name: &[u8], is_it: impl Fn(&Stat) -> bool) -> io::Result<File> {
        check_component(name)?;
        let file = self.open_file(name)?;
        if is_it(&Stat::of(&file)?) { Ok(file) } else { Err(contested()) }
    }

    /// Makes a symbolic link, a FIFO, a socket or a device, for this user alone.
    /// What is there is removed, unless it is that already.
    pub fn make(&self, node: &Node) -> Result<()> {
        let name = node.name.as_slice();
        let special =
            |file_type, (major, minor)| fs::mknodat(self, name, file_type, PRIVATE_FILE, fs::makedev(major, minor));
        let make = || match node.kind {
            Kind::Symlink => fs::symlinkat(node.target.as_slice(), self, name),
            Kind::Fifo => special(FileType::Fifo, (0, 0)),
            Kind::Socket => special(FileType::Socket, (0, 0)),
            Kind::CharDevice => special(FileType::CharacterDevice, node.rdev),
            Kind::BlockDevice => special(FileType::BlockDevice, node.rdev),
            Kind::File | Kind::Dir => Err(Errno::INVAL),
        };
        self.on(name, self.place(name, make, || Ok(self.is_made(node)?.then_some(()))))
    }

    /// True if the entry is there, and nobody else has it under another name.
    fn is_made(&self, node: &Node) -> io::Result<bool> {
        let Some(stat) = self.try_stat_of(&node.name)? else { return Ok(false) };
        let equal = stat.kind == node.kind && (stat.links == 1 || node.links > 1);
        Ok(equal
            && match node.kind {
                Kind::Symlink => self.folder.link_target(&node.name)? == node.target,
                Kind::CharDevice | Kind::BlockDevice => stat.rdev == node.rdev,
                _ => true,
            })
    }

    /// Gives `first`, an entry of `first_in`, this name too. What is there is
    /// removed, unless it is the same inode already.
    pub fn hard_link(&self, name: &[u8], first_in: &TargetFolder, first: &[u8]) -> Result<()> {
        let link = || fs::linkat(first_in, first, self, name, AtFlags::empty());
        let same = || {
            let there = self.try_stat_of(name)?;
            let first = first_in.folder.stat_of(first)?;
            Ok(there.is_some_and(|there| there.is_same_inode(&first)).then_some(()))
        };
        let placed = check_component(first).and_then(|()| self.place(name, link, same));
        self.on(name, placed)
    }

    /// Makes an entry. If something is there, takes that if it serves, or else
    /// removes it and tries again.
    fn place<T>(
        &self,
        name: &[u8],
        make: impl Fn() -> rustix::io::Result<T>,
        there: impl Fn() -> io::Result<Option<T>>,
    ) -> io::Result<T> {
        check_component(name)?;
        for _ in 0..TRIES {
            match make() {
                Err(Errno::EXIST) => {}
                made => return Ok(made?),
            }
            if let Some(there) = there()? {
                return Ok(there);
            }
            self.try_remove(name)?;
        }
        Err(contested())
    }

    /// Names the entry that an error is about.
    fn on<T>(&self, name: &[u8], done: io::Result<T>) -> Result<T> {
        done.map_err(|source| Error::Target { path: self.path_of(name), source })
    }
}

impl AsFd for TargetFolder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }
}

/// Changes the mode of what a handle names, even if it was never opened.
fn chmod(fd: BorrowedFd<'_>, mode: Mode) -> io::Result<()> {
    Ok(fs::chmod(format!("/proc/self/fd/{}", fd.as_raw_fd()), mode)?)
}

fn contested() -> io::Error {
    io::Error::other("somebody else is changing it")
}

#[cfg(test)]
mod tests;
