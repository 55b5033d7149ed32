//! Files and folders of this machine, read by folder handles: a path that the
//! user named is opened once, and from there on every step goes from an open
//! folder to a name in it and follows no symbolic link. A folder that somebody
//! replaces by a link meanwhile is an error and leads nowhere. Nothing here writes.

use super::users::Users;
use super::xattr::{Place, entry_path};
use crate::clock::Timestamp;
use crate::format::content::Content;
use crate::format::node::{Kind, Node, check_name};
use crate::limits;
use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags, RawDir, ResolveFlags, SeekFrom, Statx, StatxFlags};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of folder entries fetched by one call.
const LISTING_BUFFER: usize = 32 * 1024;
/// Data and holes of one file at most; beyond, short holes count as data.
const RANGES_MAX: usize = 65_536;

/// What the kernel tells of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub kind: Kind,
    /// The low 12 bits of `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Last change of the entry.
    pub ctime: Timestamp,
    /// When the inode came to be, where the file system tells: numbers are given to new files again, and
    /// this says that it is another file.
    pub born: Option<Timestamp>,
    /// Inode number.
    pub inode: u64,
    /// Device that holds the inode.
    pub device: u64,
    /// Hard links to the inode.
    pub links: u64,
    /// Bytes.
    pub size: u64,
    /// Bytes on the device.
    pub allocated: u64,
    /// Major and minor number of a device; zeros for anything else.
    pub rdev: (u32, u32),
}

impl Stat {
    /// Of an open file.
    pub fn of(file: &File) -> io::Result<Stat> {
        Stat::try_from(statx(file.as_fd(), b"")?)
    }

    /// True if both tell of the same inode.
    pub fn is_same_inode(&self, other: &Stat) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

impl TryFrom<Statx> for Stat {
    type Error = io::Error;

    fn try_from(s: Statx) -> io::Result<Stat> {
        let kind = match FileType::from_raw_mode(s.stx_mode.into()) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Dir,
            FileType::Symlink => Kind::Symlink,
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            FileType::CharacterDevice => Kind::CharDevice,
            FileType::BlockDevice => Kind::BlockDevice,
            FileType::Unknown => return Err(invalid(format!("an entry of unknown kind, mode {:o}", s.stx_mode))),
        };
        let is_device = matches!(kind, Kind::CharDevice | Kind::BlockDevice);
        let time = |t: fs::StatxTimestamp| Timestamp { seconds: t.tv_sec, nanos: t.tv_nsec };
        Ok(Stat {
            kind,
            mode: u32::from(s.stx_mode) & 0o7777,
            uid: s.stx_uid,
            gid: s.stx_gid,
            mtime: time(s.stx_mtime),
            ctime: time(s.stx_ctime),
            born: StatxFlags::from_bits_retain(s.stx_mask).contains(StatxFlags::BTIME).then(|| time(s.stx_btime)),
            inode: s.stx_ino,
            device: fs::makedev(s.stx_dev_major, s.stx_dev_minor),
            links: s.stx_nlink.into(),
            size: s.stx_size,
            allocated: s.stx_blocks.saturating_mul(512),
            rdev: if is_device { (s.stx_rdev_major, s.stx_rdev_minor) } else { (0, 0) },
        })
    }
}

/// One call, of an entry that is not followed, or with an empty name of the handle itself.
pub(crate) fn statx(at: BorrowedFd<'_>, name: &[u8]) -> io::Result<Statx> {
    let mut flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    if name.is_empty() {
        flags |= AtFlags::EMPTY_PATH;
    }
    Ok(fs::statx(at, name, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME)?)
}

/// The way to a folder. Folders share the way to the one above them: two thousand of them below one
/// another, each with a path of its own, would take a gigabyte for the paths alone.
#[derive(Debug)]
pub struct Trail {
    above: Option<Arc<Trail>>,
    name: OsString,
}

impl Trail {
    /// A way that begins with a path.
    pub fn new(path: &Path) -> Arc<Trail> {
        Arc::new(Trail { above: None, name: path.as_os_str().to_owned() })
    }

    /// One step further.
    pub fn below(self: &Arc<Self>, name: &[u8]) -> Arc<Trail> {
        Arc::new(Trail { above: Some(Arc::clone(self)), name: OsStr::from_bytes(name).to_owned() })
    }

    /// The path that the way began with, and then each name.
    pub fn steps(&self) -> Vec<&OsStr> {
        let steps = std::iter::successors(Some(self), |trail| trail.above.as_deref());
        let mut steps: Vec<_> = steps.map(|trail| trail.name.as_os_str()).collect();
        steps.reverse();
        steps
    }

    /// All of it.
    pub fn path(&self) -> PathBuf {
        self.steps().into_iter().collect()
    }
}

/// An open folder.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
    trail: Arc<Trail>,
    /// Held while the handle's position moves through the entries.
    listing: Mutex<()>,
}

impl Folder {
    /// Opens a path that the user named: symbolic links in it are followed.
    pub fn open(path: &Path) -> io::Result<Folder> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = fs::openat(CWD, path, flags, Mode::empty())?;
        Ok(Folder::new(fd, Trail::new(path)))
    }

    /// Opens a folder in this one. Anything else, a symbolic link to a folder too, is an error.
    pub fn child(&self, name: &[u8]) -> io::Result<Folder> {
        self.child_within(name, ResolveFlags::empty())
    }

    /// The same, with more that is to be refused.
    pub(crate) fn child_within(&self, name: &[u8], refused: ResolveFlags) -> io::Result<Folder> {
        check_component(name)?;
        Ok(Folder::new(open_folder(self.fd.as_fd(), name, refused)?, self.trail.below(name)))
    }

    fn new(fd: OwnedFd, trail: Arc<Trail>) -> Folder {
        Folder { fd, trail, listing: Mutex::new(()) }
    }

    /// Where the folder was when it was opened; for messages.
    pub fn path(&self) -> PathBuf {
        self.trail.path()
    }

    /// Where an entry is; for messages.
    pub fn path_of(&self, name: &[u8]) -> PathBuf {
        self.path().join(OsStr::from_bytes(name))
    }

    /// Names of all entries but `.` and `..`, sorted by their bytes.
    pub fn names(&self) -> io::Result<Vec<Vec<u8>>> {
        Ok(self.names_within(usize::MAX)?.unwrap_or_default())
    }

    /// The same, of a folder with no more than `max` entries; `None` of any other.
    pub fn names_within(&self, max: usize) -> io::Result<Option<Vec<Vec<u8>>>> {
        let _alone = self.listing.lock().unwrap_or_else(PoisonError::into_inner);
        fs::seek(&self.fd, SeekFrom::Start(0))?;
        let mut names = Vec::new();
        let mut buffer = Vec::with_capacity(LISTING_BUFFER);
        let mut entries = RawDir::new(&self.fd, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            match entry?.file_name().to_bytes() {
                b"." | b".." => {}
                _ if names.len() >= max => return Ok(None),
                name => names.push(name.to_vec()),
            }
        }
        names.sort_unstable();
        // A folder that changes meanwhile may show an entry twice.
        names.dedup();
        Ok(Some(names))
    }

    /// Of the folder itself.
    pub fn stat(&self) -> io::Result<Stat> {
        Stat::try_from(statx(self.fd.as_fd(), b"")?)
    }

    /// Of an entry; of the link, if it is one.
    pub fn stat_of(&self, name: &[u8]) -> io::Result<Stat> {
        check_component(name)?;
        Stat::try_from(statx(self.fd.as_fd(), name)?)
    }

    /// Where a symbolic link leads.
    pub fn link_target(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        check_component(name)?;
        let target = fs::readlinkat(&self.fd, name, Vec::new())?.into_bytes();
        if target.len() > limits::LINK_MAX {
            return Err(invalid(format!("a link's target of {} bytes", target.len())));
        }
        Ok(target)
    }

    /// Extended attributes of the entry itself, sorted by name. None where the
    /// file system has none; one that vanishes meanwhile is left out.
    pub fn xattrs(&self, name: &[u8]) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        check_component(name)?;
        let path = entry_path(self.fd.as_fd(), name)?;
        Place::Entry(&path).all().map_err(|e| match e.kind() {
            // The entry is there, so it is its path that leads nowhere.
            io::ErrorKind::NotFound if self.stat_of(name).is_ok() => {
                io::Error::other("extended attributes cannot be read, for /proc is not mounted")
            }
            _ => e,
        })
    }

    /// Opens a regular file to read it. Never waits, whatever took its place.
    pub fn open_file(&self, name: &[u8]) -> io::Result<(File, Stat)> {
        check_component(name)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = match fs::openat(&self.fd, name, flags | OFlags::NOATIME, Mode::empty()) {
            Err(Errno::PERM) => fs::openat(&self.fd, name, flags, Mode::empty()),
            opened => opened,
        }?;
        let file = File::from(fd);
        let stat = Stat::of(&file)?;
        match stat.kind {
            Kind::File => Ok((file, stat)),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no longer a regular file")),
        }
    }

    /// The entry as it is stored, but for its content. Fails where a repository
    /// could not hold it.
    pub fn node(&self, name: &[u8], stat: &Stat, users: &Users) -> io::Result<Node> {
        check_name(name).map_err(|e| invalid(e.0))?;
        let user = Some(users.user_name(stat.uid)).filter(|n| n.len() <= limits::NAME_MAX);
        let group = Some(users.group_name(stat.gid)).filter(|n| n.len() <= limits::NAME_MAX);
        Ok(Node {
            name: name.to_vec(),
            kind: stat.kind,
            mode: stat.mode,
            uid: stat.uid,
            gid: stat.gid,
            user: user.unwrap_or_default(),
            group: group.unwrap_or_default(),
            mtime: stat.mtime,
            ctime: stat.ctime,
            inode: stat.inode,
            device: stat.device,
            // Of a folder it counts the folders in it, or nothing: no hard links.
            links: if stat.kind == Kind::Dir { 1 } else { stat.links },
            size: if stat.kind == Kind::File { stat.size } else { 0 },
            content: Content::default(),
            target: if stat.kind == Kind::Symlink { self.link_target(name)? } else { Vec::new() },
            rdev: stat.rdev,
            xattrs: self.xattrs(name)?,
        })
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Set once this kernel is known to lack `openat2`, or to be forbidden it.
static NO_OPENAT2: AtomicBool = AtomicBool::new(false);

fn open_folder(at: BorrowedFd<'_>, name: &[u8], refused: ResolveFlags) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if !NO_OPENAT2.load(Ordering::Relaxed) {
        let refused = refused | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        match fs::openat2(at, name, flags, Mode::empty(), refused) {
            // Containers of old forbid what they do not know with EPERM.
            Err(Errno::NOSYS | Errno::PERM) => {}
            opened => return opened,
        }
    }
    // With a single name and O_NOFOLLOW there is nothing else to resolve.
    let opened = fs::openat(at, name, flags, Mode::empty())?;
    NO_OPENAT2.store(true, Ordering::Relaxed);
    if refused.contains(ResolveFlags::NO_XDEV) && fs::fstat(&opened)?.st_dev != fs::fstat(at)?.st_dev {
        return Err(Errno::XDEV);
    }
    Ok(opened)
}

/// Refuses what is not the name of an entry but a path, or leads upwards.
pub(crate) fn check_component(name: &[u8]) -> io::Result<()> {
    if matches!(name, b"" | b"." | b"..") || name.iter().any(|b| matches!(b, 0 | b'/')) {
        let why = format!("not the name of an entry: {:?}", name.escape_ascii().to_string());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    Ok(())
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// A part of a file: offset and length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// Bytes to read.
    Data(u64, u64),
    /// Zeros that take no space.
    Hole(u64, u64),
}

/// A file's data and holes: ordered, without gaps, from 0 to the size that `stat`
/// tells, however the file changes meanwhile. Asks the kernel only where the file
/// takes less space than it is long. The file's position is at its start again.
pub fn ranges(file: &File, stat: &Stat) -> io::Result<Vec<Range>> {
    if stat.size == 0 {
        return Ok(Vec::new());
    }
    if stat.allocated >= stat.size {
        return Ok(vec![Range::Data(0, stat.size)]);
    }
    let found = find_ranges(file, stat.size);
    fs::seek(file, SeekFrom::Start(0))?;
    found
}

fn find_ranges(file: &File, size: u64) -> io::Result<Vec<Range>> {
    let mut cover = Cover::new(RANGES_MAX);
    while cover.end < size {
        let data = match fs::seek(file, SeekFrom::Data(cover.end)) {
            Ok(data) => data.clamp(cover.end, size),
            // No data from here on: a hole, or a file cut short, which its reader is to notice.
            Err(Errno::NXIO) if fs::seek(file, SeekFrom::End(0))? >= size => size,
            // The same, or a file system that cannot tell.
            Err(Errno::NXIO | Errno::INVAL | Errno::OPNOTSUPP) => {
                cover.add_data(size);
                break;
            }
            Err(e) => return Err(e.into()),
        };
        cover.add_hole(data);
        if data < size {
            cover.add_data(match fs::seek(file, SeekFrom::Hole(data)) {
                Ok(hole) if hole > data => hole.min(size),
                Ok(_) | Err(Errno::NXIO | Errno::INVAL | Errno::OPNOTSUPP) => size,
                Err(e) => return Err(e.into()),
            });
        }
    }
    Ok(cover.ranges)
}

/// Ranges that grow from the file's start. Once there are too many, the short
/// holes become data, so that a file of nothing but small holes stays bounded.
struct Cover {
    ranges: Vec<Range>,
    end: u64,
    most: usize,
    shortest_hole: u64,
}

impl Cover {
    fn new(most: usize) -> Self {
        Cover { ranges: Vec::new(), end: 0, most, shortest_hole: 1 }
    }

    fn add_data(&mut self, end: u64) {
        let len = end.saturating_sub(self.end);
        match self.ranges.last_mut() {
            _ if len == 0 => return,
            Some(Range::Data(_, last)) => *last += len,
            _ => self.ranges.push(Range::Data(self.end, len)),
        }
        self.end = end;
        if self.ranges.len() > self.most {
            self.thin();
        }
    }

    fn add_hole(&mut self, end: u64) {
        let len = end.saturating_sub(self.end);
        match self.ranges.last_mut() {
            _ if len == 0 => return,
            _ if len < self.shortest_hole => return self.add_data(end),
            Some(Range::Hole(_, last)) => *last += len,
            _ => self.ranges.push(Range::Hole(self.end, len)),
        }
        self.end = end;
    }

    fn thin(&mut self) {
        while self.ranges.len() > self.most / 2 {
            let mut thinner = Cover::new(usize::MAX);
            thinner.shortest_hole = self.shortest_hole.saturating_mul(2);
            for range in &self.ranges {
                match *range {
                    Range::Data(offset, len) => thinner.add_data(offset + len),
                    Range::Hole(offset, len) => thinner.add_hole(offset + len),
                }
            }
            *self = Cover { most: self.most, ..thinner };
        }
    }
}

#[cfg(test)]
mod tests;
