//! The forgetful disk as a folder of this machine, for the real program: a file system by FUSE.

use super::forgetful::{Forgetful, Ino, Request as Did};
use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

/// Nobody changes the disk but through its folder: what the kernel knows of it stays true.
const TTL: Duration = Duration::from_secs(3600);

/// What befalls the program when it has made its n-th request of a kind.
#[derive(Debug, Clone, Copy)]
pub enum Fate {
    /// It is killed once the request is done.
    Killed,
    /// The request is done, and its answer is an error of the disk.
    Told,
}

#[derive(Default)]
struct Shared {
    fate: Option<(Did, usize, Fate)>,
    listings: HashMap<u64, Vec<(Ino, bool, OsString)>>,
}

struct Server {
    disk: Arc<Mutex<Forgetful>>,
    shared: Arc<Mutex<Shared>>,
    handles: AtomicU64,
}

/// The disk, mounted until it is dropped.
pub struct Mounted {
    disk: Arc<Mutex<Forgetful>>,
    shared: Arc<Mutex<Shared>>,
    session: Option<BackgroundSession>,
}

impl Mounted {
    /// Mounts a disk at a folder that it makes; `None`, said aloud, where that is not allowed.
    pub fn new(disk: Forgetful, at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        if let Err(e) = std::fs::File::options().read(true).write(true).open("/dev/fuse") {
            eprintln!("SKIPPED: power cuts need /dev/fuse: {e}");
            return None;
        }
        let (disk, shared) = (Arc::new(Mutex::new(disk)), Arc::default());
        let server = Server { disk: Arc::clone(&disk), shared: Arc::clone(&shared), handles: AtomicU64::new(1) };
        match fuser::spawn_mount(server, at, &Config::default()) {
            Ok(session) => Some(Self { disk, shared, session: Some(session) }),
            Err(e) => {
                eprintln!("SKIPPED: power cuts need a file system by FUSE, which cannot be mounted here: {e}");
                None
            }
        }
    }

    pub fn disk(&self) -> MutexGuard<'_, Forgetful> {
        self.disk.lock().unwrap()
    }

    /// What befalls whoever makes the n-th request of that kind from now on, counted from 0.
    pub fn henceforth(&self, request: Did, nth: usize, fate: Fate) {
        self.shared.lock().unwrap().fate = Some((request, nth, fate));
    }

    /// True if what was to befall somebody has not.
    pub fn is_spared(&self) -> bool {
        self.shared.lock().unwrap().fate.take().is_some()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Some(Err(e)) = self.session.take().map(BackgroundSession::umount_and_join) {
            eprintln!("the disk stays mounted: {e}");
        }
    }
}

impl Server {
    fn disk(&self) -> MutexGuard<'_, Forgetful> {
        self.disk.lock().unwrap()
    }

    fn attr(disk: &Forgetful, ino: Ino) -> Result<FileAttr, Errno> {
        let (meta, size) = disk.meta(ino)?;
        let time = meta.modified;
        Ok(FileAttr {
            ino: INodeNo(ino),
            size,
            blocks: size.div_ceil(512),
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind: if meta.folder { FileType::Directory } else { FileType::RegularFile },
            perm: u16::try_from(meta.mode & 0o7777).unwrap(),
            nlink: if meta.folder { 2 } else { meta.links },
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    /// Does what is asked for, and then what is to befall who asked.
    fn change<T>(
        &self,
        request: &Request,
        did: Did,
        change: impl FnOnce(&mut Forgetful) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let done = change(&mut self.disk())?;
        let fate = &mut self.shared.lock().unwrap().fate;
        match fate {
            Some((which, nth, _)) if *which == did && *nth > 0 => *nth -= 1,
            Some((which, _, befalls)) if *which == did => {
                let befalls = *befalls;
                *fate = None;
                match (befalls, Pid::from_raw(i32::try_from(request.pid()).unwrap())) {
                    (Fate::Killed, Some(pid)) => kill_process(pid, Signal::KILL).unwrap(),
                    (Fate::Killed, None) => panic!("the kernel does not tell who asks"),
                    (Fate::Told, _) => return Err(Errno::EIO),
                }
            }
            _ => {}
        }
        Ok(done)
    }

    fn found(&self, ino: Result<Ino, Errno>, reply: ReplyEntry) {
        match ino.and_then(|ino| Self::attr(&self.disk(), ino)) {
            Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
            Err(e) => reply.error(e),
        }
    }
}

fn answer(done: Result<(), Errno>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(e),
    }
}

impl Filesystem for Server {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.disk().find(parent.0, name);
        self.found(found, reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match Self::attr(&self.disk(), ino.0) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(e) => reply.error(e),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let modified = modified.map(|time| match time {
            TimeOrNow::SpecificTime(time) => time,
            TimeOrNow::Now => SystemTime::now(),
        });
        let mut disk = self.disk();
        let resized = size.map_or(Ok(()), |size| disk.resize(ino.0, size));
        let set = resized.and_then(|()| disk.set(ino.0, mode, modified));
        match set.and_then(|()| Self::attr(&disk, ino.0)) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(e) => reply.error(e),
        }
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let made = self.change(request, Did::Folder, |disk| disk.make(parent.0, name, true, mode & !umask));
        self.found(made, reply);
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(self.change(request, Did::Unlink, |disk| disk.remove(parent.0, name)), reply);
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(self.change(request, Did::Unlink, |disk| disk.remove(parent.0, name)), reply);
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        to: INodeNo,
        new: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        answer(self.change(request, Did::Rename, |disk| disk.rename(parent.0, name, to.0, new)), reply);
    }

    fn link(&self, request: &Request, ino: INodeNo, folder: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let linked = self.change(request, Did::Link, |disk| disk.link(ino.0, folder.0, name));
        self.found(linked.map(|()| ino.0), reply);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let made = self.change(request, Did::Create, |disk| disk.make(parent.0, name, false, mode & !umask));
        match made.and_then(|ino| Self::attr(&self.disk(), ino)) {
            Ok(attr) => reply.created(&TTL, &attr, Generation(0), FileHandle(0), FopenFlags::empty()),
            Err(e) => reply.error(e),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.disk().read(ino.0, offset, size) {
            Ok(bytes) => reply.data(bytes),
            Err(e) => reply.error(e),
        }
    }

    fn write(
        &self,
        request: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.change(request, Did::Write, |disk| disk.write(ino.0, offset, data)) {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap()),
            Err(e) => reply.error(e),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, request: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer(self.change(request, Did::Sync, |disk| disk.sync(ino.0)), reply);
    }

    fn fsyncdir(&self, request: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer(self.change(request, Did::SyncFolder, |disk| disk.sync_folder(ino.0)), reply);
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.disk().list(ino.0) {
            Ok(listing) => {
                let handle = self.handles.fetch_add(1, Ordering::Relaxed);
                self.shared.lock().unwrap().listings.insert(handle, listing);
                reply.opened(FileHandle(handle), FopenFlags::empty());
            }
            Err(e) => reply.error(e),
        }
    }

    fn readdir(&self, _: &Request, ino: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let shared = self.shared.lock().unwrap();
        let Some(listing) = shared.listings.get(&handle.0) else { return reply.error(Errno::EBADF) };
        let itself = [(ino.0, true, OsString::from(".")), (ino.0, true, OsString::from(".."))];
        for (at, (ino, is_folder, name)) in itself.iter().chain(listing).enumerate().skip(offset as usize) {
            let kind = if *is_folder { FileType::Directory } else { FileType::RegularFile };
            if reply.add(INodeNo(*ino), at as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.shared.lock().unwrap().listings.remove(&handle.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(1 << 20, 1 << 20, 1 << 20, 1 << 20, 1 << 20, 4096, 255, 4096);
    }
}
