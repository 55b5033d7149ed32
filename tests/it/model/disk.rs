//! The real thing beside the model: makes the same changes below a folder, and reads one back.

use super::tree::{Body, Change, Inode, Tree};
use rustix::fs::{AtFlags, CWD, Mode, Timespec, Timestamps, UTIME_OMIT, XattrFlags};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// A folder that the changes are made below.
pub struct Disk(PathBuf);

fn set_mtime(path: &Path, (seconds, nanos): (i64, i64)) {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanos },
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

impl Disk {
    /// Changes below a folder that is there.
    pub fn new(root: PathBuf) -> Self {
        Self(root)
    }

    /// Makes a change.
    pub fn apply(&mut self, change: &Change) {
        let at = |path: &Path| self.0.join(path);
        match change {
            Change::Make(path, Body::Folder) => fs::create_dir(at(path)).unwrap(),
            Change::Make(path, Body::File(bytes)) | Change::Write(path, bytes) => fs::write(at(path), bytes).unwrap(),
            Change::Make(path, Body::Link(target)) => symlink(target, at(path)).unwrap(),
            Change::Make(path, Body::Pipe) => {
                rustix::fs::mkfifoat(CWD, at(path), Mode::from_raw_mode(0o640)).unwrap();
            }
            Change::HardLink(from, to) => fs::hard_link(at(from), at(to)).unwrap(),
            Change::Mode(path, mode) => {
                fs::set_permissions(at(path), fs::Permissions::from_mode(*mode)).unwrap();
            }
            Change::Touch(path, mtime) => set_mtime(&at(path), *mtime),
            Change::Attribute(path, name, value) => {
                rustix::fs::setxattr(at(path), &**name, value, XattrFlags::empty()).unwrap();
            }
            Change::Rename(from, to) => fs::rename(at(from), at(to)).unwrap(),
            Change::Remove(path) => {
                let path = at(path);
                if path.symlink_metadata().unwrap().is_dir() {
                    fs::remove_dir_all(path).unwrap();
                } else {
                    fs::remove_file(path).unwrap();
                }
            }
        }
    }

    /// Mode and time of a path.
    pub fn looks(&self, path: &Path) -> (u32, (i64, i64)) {
        let metadata = self.0.join(path).symlink_metadata().unwrap();
        (metadata.mode() & 0o7777, (metadata.mtime(), metadata.mtime_nsec()))
    }

    /// Folders' times change with what lies in them: takes them as they are now.
    pub fn settle(&self, model: &mut Tree) {
        let folders: Vec<PathBuf> = model
            .names
            .iter()
            .filter(|(_, n)| model.inodes[n].body == Body::Folder)
            .map(|(p, _)| p.clone())
            .collect();
        for path in folders {
            model.inode(&path).mtime = self.looks(&path).1;
        }
    }
}

/// What lies below a folder.
pub fn read(root: &Path) -> Tree {
    let mut tree = Tree::default();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder)).into_iter().flatten() {
            let entry = entry.unwrap();
            let (path, at) = (folder.join(entry.file_name()), entry.path());
            let metadata = at.symlink_metadata().unwrap();
            let kind = metadata.file_type();
            let body = if kind.is_dir() {
                folders.push(path.clone());
                Body::Folder
            } else if kind.is_symlink() {
                Body::Link(fs::read_link(&at).unwrap())
            } else if kind.is_fifo() {
                Body::Pipe
            } else {
                Body::File(fs::read(&at).unwrap())
            };
            let attributes = if kind.is_file() { attributes(&at) } else { BTreeMap::new() };
            let mtime = (metadata.mtime(), metadata.mtime_nsec());
            tree.inodes.insert(metadata.ino(), Inode { body, mode: metadata.mode() & 0o7777, mtime, attributes });
            tree.names.insert(path, metadata.ino());
        }
    }
    tree
}

/// The `user` attributes of a file.
fn attributes(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0; 64 << 10];
    let len = rustix::fs::listxattr(path, &mut names[..]).unwrap_or(0);
    let listed = names[..len].split(|b| *b == 0).map(|n| String::from_utf8_lossy(n).into_owned());
    let ours = listed.filter(|name| name.starts_with("user."));
    ours.map(|name| {
        let mut value = vec![0; 4096];
        let len = rustix::fs::getxattr(path, &*name, &mut value[..]).unwrap();
        value.truncate(len);
        (name, value)
    })
    .collect()
}
