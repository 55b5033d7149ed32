//! The state of a disk that forgets on a power cut what was not synced: no more, and no less, than
//! the rules allow it to. Everything is in memory, and every state that a cut could have left so far
//! is kept.
//!
//! A file's bytes are durable once the file is synced, a folder's names once the folder is: a file's
//! name is its folder's. Real file systems keep more than that, and each another part of it. So there
//! are two extremes: names that only a sync keeps, and names that were all kept at once, before the
//! bytes of what they name.

use fuser::Errno;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

pub type Ino = u64;
pub const ROOT: Ino = 1;

type Entries = BTreeMap<OsString, Ino>;
type Folders = BTreeMap<Ino, Arc<Entries>>;

/// What lies where: the bytes of a file, `None` for a folder.
pub type Image = BTreeMap<PathBuf, Option<Arc<[u8]>>>;

/// Which names a cut leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// Those that were synced.
    Synced,
    /// All, although their folders were not synced yet.
    Early,
}

/// What a request did, for those who count them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    Create,
    Write,
    Link,
    Rename,
    Unlink,
    Folder,
    Sync,
    SyncFolder,
}

/// What is known of a file or folder beside its bytes.
#[derive(Debug, Clone)]
pub struct Meta {
    pub folder: bool,
    pub mode: u32,
    pub links: u32,
    pub modified: SystemTime,
}

/// The disk.
pub struct Forgetful {
    meta: BTreeMap<Ino, Meta>,
    files: BTreeMap<Ino, Vec<u8>>,
    folders: Folders,
    durable_files: BTreeMap<Ino, Arc<[u8]>>,
    durable_folders: Folders,
    /// What cuts would have left, oldest first, no two in a row the same.
    synced: Vec<Image>,
    early: Vec<Image>,
    /// Every request that changed something or synced it.
    pub requests: Vec<Request>,
}

impl Forgetful {
    /// An empty disk.
    pub fn new() -> Self {
        let mut disk = Self {
            meta: BTreeMap::new(),
            files: BTreeMap::new(),
            folders: Folders::new(),
            durable_files: BTreeMap::new(),
            durable_folders: Folders::new(),
            synced: Vec::new(),
            early: Vec::new(),
            requests: Vec::new(),
        };
        disk.add(true, 0o755);
        disk.durable_folders = disk.folders.clone();
        disk.synced.push(Image::new());
        disk.early.push(Image::new());
        disk
    }

    /// A disk that holds this, all of it durable.
    pub fn with(image: &Image) -> Self {
        let mut disk = Self::new();
        let mut at = BTreeMap::from([(PathBuf::new(), ROOT)]);
        for (path, bytes) in image {
            let ino = disk.add(bytes.is_none(), if bytes.is_none() { 0o755 } else { 0o644 });
            if let Some(bytes) = bytes {
                disk.files.insert(ino, bytes.to_vec());
                disk.durable_files.insert(ino, Arc::clone(bytes));
            }
            let holder = at[path.parent().unwrap()];
            disk.entries(holder).unwrap().insert(path.file_name().unwrap().into(), ino);
            at.insert(path.clone(), ino);
        }
        disk.durable_folders = disk.folders.clone();
        disk.synced = vec![image.clone()];
        disk.early = vec![image.clone()];
        disk
    }

    /// The states that cuts would have left so far.
    pub fn cuts(&self, names: Names) -> &[Image] {
        match names {
            Names::Synced => &self.synced,
            Names::Early => &self.early,
        }
    }

    fn add(&mut self, folder: bool, mode: u32) -> Ino {
        let ino = self.meta.len() as Ino + ROOT;
        self.meta.insert(ino, Meta { folder, mode, links: 1, modified: SystemTime::now() });
        if folder {
            self.folders.insert(ino, Arc::default());
        } else {
            self.files.insert(ino, Vec::new());
        }
        ino
    }

    fn entries(&mut self, folder: Ino) -> Result<&mut Entries, Errno> {
        self.meta.get_mut(&folder).ok_or(Errno::ENOENT)?.modified = SystemTime::now();
        self.folders.get_mut(&folder).map(Arc::make_mut).ok_or(Errno::ENOTDIR)
    }

    fn image(&self, names: Names) -> Image {
        let folders = if names == Names::Synced { &self.durable_folders } else { &self.folders };
        let mut image = Image::new();
        let mut ahead = vec![(PathBuf::new(), ROOT)];
        while let Some((at, folder)) = ahead.pop() {
            for (name, &ino) in folders.get(&folder).iter().flat_map(|entries| entries.iter()) {
                let path = at.join(name);
                let bytes = if self.meta[&ino].folder {
                    ahead.push((path.clone(), ino));
                    None
                } else {
                    // A file whose name is there and whose bytes were never synced is empty.
                    Some(self.durable_files.get(&ino).cloned().unwrap_or_default())
                };
                image.insert(path, bytes);
            }
        }
        image
    }

    fn done(&mut self, request: Request) {
        self.requests.push(request);
        for names in [Names::Synced, Names::Early] {
            let image = self.image(names);
            let cuts = if names == Names::Synced { &mut self.synced } else { &mut self.early };
            if cuts.last() != Some(&image) {
                cuts.push(image);
            }
        }
    }
}

/// What programs ask for.
impl Forgetful {
    pub fn meta(&self, ino: Ino) -> Result<(&Meta, u64), Errno> {
        let size = self.files.get(&ino).map_or(0, |bytes| bytes.len() as u64);
        self.meta.get(&ino).map(|meta| (meta, size)).ok_or(Errno::ENOENT)
    }

    pub fn find(&self, folder: Ino, name: &OsStr) -> Result<Ino, Errno> {
        self.folders.get(&folder).ok_or(Errno::ENOTDIR)?.get(name).copied().ok_or(Errno::ENOENT)
    }

    pub fn list(&self, folder: Ino) -> Result<Vec<(Ino, bool, OsString)>, Errno> {
        let entries = self.folders.get(&folder).ok_or(Errno::ENOTDIR)?;
        Ok(entries.iter().map(|(name, &ino)| (ino, self.meta[&ino].folder, name.clone())).collect())
    }

    pub fn make(&mut self, folder: Ino, name: &OsStr, is_folder: bool, mode: u32) -> Result<Ino, Errno> {
        if self.find(folder, name).is_ok() {
            return Err(Errno::EEXIST);
        }
        let ino = self.add(is_folder, mode);
        self.entries(folder)?.insert(name.into(), ino);
        self.done(if is_folder { Request::Folder } else { Request::Create });
        Ok(ino)
    }

    pub fn read(&self, ino: Ino, offset: u64, len: u32) -> Result<&[u8], Errno> {
        let bytes = self.files.get(&ino).ok_or(Errno::EISDIR)?;
        let from = bytes.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
        Ok(&bytes[from..bytes.len().min(from + len as usize)])
    }

    pub fn write(&mut self, ino: Ino, offset: u64, data: &[u8]) -> Result<(), Errno> {
        let bytes = self.files.get_mut(&ino).ok_or(Errno::EISDIR)?;
        let from = usize::try_from(offset).map_err(|_| Errno::EFBIG)?;
        let end = from + data.len();
        bytes.resize(bytes.len().max(end), 0);
        bytes[from..end].copy_from_slice(data);
        self.touch(ino);
        self.done(Request::Write);
        Ok(())
    }

    pub fn resize(&mut self, ino: Ino, size: u64) -> Result<(), Errno> {
        let size = usize::try_from(size).map_err(|_| Errno::EFBIG)?;
        self.files.get_mut(&ino).ok_or(Errno::EISDIR)?.resize(size, 0);
        self.touch(ino);
        self.done(Request::Write);
        Ok(())
    }

    fn touch(&mut self, ino: Ino) {
        if let Some(meta) = self.meta.get_mut(&ino) {
            meta.modified = SystemTime::now();
        }
    }

    pub fn set(&mut self, ino: Ino, mode: Option<u32>, modified: Option<SystemTime>) -> Result<(), Errno> {
        let meta = self.meta.get_mut(&ino).ok_or(Errno::ENOENT)?;
        meta.mode = mode.unwrap_or(meta.mode);
        meta.modified = modified.unwrap_or(meta.modified);
        Ok(())
    }

    pub fn link(&mut self, ino: Ino, folder: Ino, name: &OsStr) -> Result<(), Errno> {
        if self.find(folder, name).is_ok() {
            return Err(Errno::EEXIST);
        }
        self.meta.get_mut(&ino).ok_or(Errno::ENOENT)?.links += 1;
        self.entries(folder)?.insert(name.into(), ino);
        self.done(Request::Link);
        Ok(())
    }

    pub fn rename(&mut self, from: Ino, name: &OsStr, to: Ino, new: &OsStr) -> Result<(), Errno> {
        let ino = self.find(from, name)?;
        if let Ok(there) = self.find(to, new)
            && (self.meta[&there].folder || self.meta[&ino].folder)
        {
            return Err(Errno::EEXIST);
        }
        self.entries(from)?.remove(name);
        self.entries(to)?.insert(new.into(), ino);
        self.done(Request::Rename);
        Ok(())
    }

    pub fn remove(&mut self, folder: Ino, name: &OsStr) -> Result<(), Errno> {
        let ino = self.find(folder, name)?;
        if self.folders.get(&ino).is_some_and(|entries| !entries.is_empty()) {
            return Err(Errno::ENOTEMPTY);
        }
        // An open file stays there for who has it open.
        self.meta.get_mut(&ino).ok_or(Errno::ENOENT)?.links -= 1;
        self.entries(folder)?.remove(name);
        self.done(Request::Unlink);
        Ok(())
    }

    pub fn sync(&mut self, ino: Ino) -> Result<(), Errno> {
        let bytes = Arc::from(&self.files.get(&ino).ok_or(Errno::EISDIR)?[..]);
        self.durable_files.insert(ino, bytes);
        self.done(Request::Sync);
        Ok(())
    }

    pub fn sync_folder(&mut self, ino: Ino) -> Result<(), Errno> {
        let entries = Arc::clone(self.folders.get(&ino).ok_or(Errno::ENOTDIR)?);
        self.durable_folders.insert(ino, entries);
        self.done(Request::SyncFolder);
        Ok(())
    }
}

/// Lays an image out as real files.
pub fn lay_out(image: &Image, below: &Path) {
    std::fs::create_dir_all(below).unwrap();
    for (path, bytes) in image {
        let at = below.join(path);
        match bytes {
            None => std::fs::create_dir(at).unwrap(),
            Some(bytes) => std::fs::write(at, bytes).unwrap(),
        }
    }
}

#[test]
fn only_what_is_synced_is_durable() {
    let name = OsStr::new;
    let content = |bytes: &[u8]| Some(Arc::from(bytes));
    let mut disk = Forgetful::new();
    let folder = disk.make(ROOT, name("folder"), true, 0o755).unwrap();
    let file = disk.make(folder, name("a#1"), false, 0o644).unwrap();
    disk.write(file, 0, b"one").unwrap();
    let last = |disk: &Forgetful, names| disk.cuts(names).last().unwrap().clone();
    assert!(last(&disk, Names::Synced).is_empty());
    assert_eq!(last(&disk, Names::Early)[Path::new("folder/a#1")], content(b""));

    disk.sync_folder(ROOT).unwrap();
    assert_eq!(last(&disk, Names::Synced), Image::from([("folder".into(), None)]));
    disk.sync(file).unwrap();
    disk.write(file, 3, b" two").unwrap();
    disk.link(file, folder, name("a")).unwrap();
    disk.remove(folder, name("a#1")).unwrap();
    assert_eq!(last(&disk, Names::Synced).len(), 1);
    disk.sync_folder(folder).unwrap();
    let whole = last(&disk, Names::Synced);
    assert_eq!(whole, Image::from([("folder".into(), None), ("folder/a".into(), content(b"one"))]));
    assert_eq!(whole, last(&disk, Names::Early));

    // What is removed comes back, and what is moved is where it was, until their folder is synced.
    let mut disk = Forgetful::with(&whole);
    let folder = disk.find(ROOT, name("folder")).unwrap();
    disk.rename(folder, name("a"), folder, name("b")).unwrap();
    assert_eq!(last(&disk, Names::Synced), whole);
    disk.remove(folder, name("b")).unwrap();
    disk.remove(ROOT, name("folder")).unwrap();
    disk.sync_folder(folder).unwrap();
    assert_eq!(last(&disk, Names::Synced), Image::from([("folder".into(), None)]));
    assert!(last(&disk, Names::Early).is_empty());
    assert_eq!(disk.cuts(Names::Synced).len(), 2);
}
