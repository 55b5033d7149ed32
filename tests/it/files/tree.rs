//! Two trees on disk, compared in everything that a backup keeps.

use rustix::fs::{SeekFrom, seek};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// A zero block: blocks of zeros and holes compare equal.
static ZEROS: [u8; 65_536] = [0; 65_536];

/// Everything of an entry that must come back.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    size: u64,
    device: u64,
    links: u64,
    /// The first path of the same inode.
    first: PathBuf,
    target: Option<PathBuf>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    content: Option<blake3::Hash>,
    sparse: bool,
}

/// Panics unless everything below both folders is the same.
#[track_caller]
pub fn same_tree(a: &Path, b: &Path) {
    let (before, after) = (entries(a), entries(b));
    for (path, entry) in &before {
        assert_eq!(Some(entry), after.get(path), "{}", path.display());
    }
    let more: Vec<_> = after.keys().filter(|path| !before.contains_key(*path)).collect();
    assert!(more.is_empty(), "not in {}: {more:?}", a.display());
}

/// All entries below a folder, by path.
pub fn entries(root: &Path) -> BTreeMap<PathBuf, Entry> {
    let (mut all, mut firsts, mut folders) = (BTreeMap::new(), BTreeMap::new(), vec![PathBuf::new()]);
    while let Some(folder) = folders.pop() {
        let mut names: Vec<_> = fs::read_dir(root.join(&folder)).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        for name in names {
            let path = folder.join(name);
            let full = root.join(&path);
            let stat = fs::symlink_metadata(&full).unwrap();
            if stat.is_dir() {
                folders.push(path.clone());
            }
            let first: &mut PathBuf = firsts.entry((stat.dev(), stat.ino())).or_insert_with(|| path.clone());
            if path < *first {
                *first = path.clone();
            }
            all.insert(path, (entry(&full, &stat), (stat.dev(), stat.ino())));
        }
    }
    let named = |(path, (entry, inode))| (path, Entry { first: firsts[&inode].clone(), ..entry });
    all.into_iter().map(named).collect()
}

fn entry(path: &Path, stat: &fs::Metadata) -> Entry {
    let plain = stat.is_file();
    Entry {
        mode: stat.mode(),
        owner: (stat.uid(), stat.gid()),
        mtime: (stat.mtime(), stat.mtime_nsec()),
        size: if stat.is_dir() { 0 } else { stat.size() },
        device: stat.rdev(),
        links: if stat.is_dir() { 1 } else { stat.nlink() },
        first: PathBuf::new(),
        target: stat.is_symlink().then(|| fs::read_link(path).unwrap()),
        xattrs: xattrs(path),
        content: plain.then(|| content(&File::open(path).unwrap(), stat.size())),
        // A file system may round up; a hole worth the name is larger.
        sparse: plain && stat.blocks() * 512 + 1_000_000 < stat.size(),
    }
}

/// Extended attributes of the entry itself.
pub fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut buffer = vec![0; 65_536];
    let len = rustix::fs::llistxattr(path, &mut buffer).unwrap_or(0);
    let names: Vec<Vec<u8>> =
        buffer[..len].split(|b| *b == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect();
    let value = |name: &Vec<u8>| {
        let mut buffer = vec![0; 65_536];
        let len = rustix::fs::lgetxattr(path, name.as_slice(), &mut buffer).unwrap();
        buffer[..len].to_vec()
    };
    names.iter().map(|name| (name.clone(), value(name))).collect()
}

/// A hash over all blocks that are not zero, and where they stand; holes are skipped, not read.
fn content(file: &File, size: u64) -> blake3::Hash {
    let (mut hasher, mut at, mut buffer) = (blake3::Hasher::new(), 0, ZEROS.to_vec());
    while let Ok(data) = seek(file, SeekFrom::Data(at)) {
        // Blocks stand where they stand in both files, wherever their holes begin.
        at = data - data % ZEROS.len() as u64;
        let end = seek(file, SeekFrom::Hole(data)).unwrap().min(size);
        while at < end {
            let len = (size - at).min(ZEROS.len() as u64) as usize;
            file.read_exact_at(&mut buffer[..len], at).unwrap();
            if buffer[..len] != ZEROS[..len] {
                hasher.update(&at.to_le_bytes()).update(&buffer[..len]);
            }
            at += len as u64;
        }
        if at >= size {
            break;
        }
    }
    hasher.finalize()
}

/// As many bytes without a pattern, the same for the same seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// As many bytes of text that compresses.
pub fn prose(len: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(len + 80);
    for line in 0.. {
        if text.len() >= len {
            break;
        }
        text.extend_from_slice(format!("{line}: the quick brown fox jumps over the lazy dog\n").as_bytes());
    }
    text.truncate(len);
    text
}

/// Sets a file's own modification time, of a link too.
pub fn set_mtime(path: &Path, seconds: i64, nanos: i64) {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT, utimensat};
    let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT as _ };
    let last_modification = Timespec { tv_sec: seconds, tv_nsec: nanos as _ };
    let times = Timestamps { last_access, last_modification };
    utimensat(CWD, path.as_os_str().as_bytes(), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}
