//! Lists the objects below a folder of this machine. `object_store` passes over what it cannot look
//! at; a pack that is not listed is taken for gone, so here each such error ends the listing.

use super::{Listed, staged};
use crate::clock::Timestamp;
use crate::limits;
use std::collections::HashSet;
use std::fs::{DirEntry, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What lies below a folder.
pub(super) struct Found {
    /// The objects, sorted by name.
    pub objects: Vec<Listed>,
    /// What uploads that run or were broken off have left, with when it was last written.
    pub staged: Vec<(PathBuf, SystemTime)>,
}

/// Everything below a folder. One that is not there, or is an object, holds nothing.
pub(super) fn below(root: &Path, folder: &str) -> io::Result<Found> {
    let found = Found { objects: Vec::new(), staged: Vec::new() };
    let mut walk = Walk { root, found, ahead: vec![folder.to_owned()], linked: HashSet::new() };
    while let Some(folder) = walk.ahead.pop() {
        walk.folder(&folder)?;
    }
    walk.found.objects.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(walk.found)
}

struct Walk<'a> {
    root: &'a Path,
    found: Found,
    /// Folders still to be read, from the root.
    ahead: Vec<String>,
    /// The folders that symbolic links led to, by device and inode.
    linked: HashSet<(u64, u64)>,
}

impl Walk<'_> {
    fn folder(&mut self, folder: &str) -> io::Result<()> {
        let at = self.root.join(folder);
        let entries = match std::fs::read_dir(&at) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotADirectory => return Ok(()),
            Err(e) => return self.vanished(&at, &e),
        };
        for entry in entries {
            let entry = entry.map_err(|e| located(&at, &e))?;
            // What no store could hold under its name is somebody else's.
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.chars().any(|c| c.is_ascii_control()) {
                continue;
            }
            let full = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            self.entry(full, &entry)?;
        }
        Ok(())
    }

    fn entry(&mut self, name: String, entry: &DirEntry) -> io::Result<()> {
        let failed = |e: &io::Error| located(&entry.path(), e);
        let kind = entry.file_type().map_err(|e| failed(&e))?;
        if kind.is_dir() {
            self.ahead.push(name);
            return Ok(());
        }
        // Links are followed: an operator may keep a folder of packs on another disk.
        let metadata = if kind.is_symlink() { std::fs::metadata(entry.path()) } else { entry.metadata() };
        let metadata = match metadata {
            Ok(metadata) => metadata,
            Err(e) => return self.vanished(&entry.path(), &e),
        };
        if metadata.is_dir() {
            if !self.linked.insert((metadata.dev(), metadata.ino())) {
                return Err(failed(&io::Error::other(
                    "symbolic links lead to the same folder twice, or in a circle",
                )));
            }
            self.ahead.push(name);
            return Ok(());
        }
        match (metadata.is_file(), staged::is_staged(&name)) {
            (true, false) => self.object(name, &metadata).map_err(|e| failed(&e)),
            (true, true) if kind.is_file() => {
                self.found.staged.push((entry.path(), metadata.modified()?));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn object(&mut self, name: String, metadata: &Metadata) -> io::Result<()> {
        if self.found.objects.len() >= limits::LIST_OBJECTS_MAX {
            return Err(io::Error::other(format!("more than {} objects", limits::LIST_OBJECTS_MAX)));
        }
        let modified = Timestamp::from(metadata.modified()?);
        self.found.objects.push(Listed { name, size: metadata.len(), modified });
        Ok(())
    }

    /// What was deleted since its name was read is no error. A link that leads nowhere is one (the
    /// disk that it leads to may not be mounted), and so is a root that is gone.
    fn vanished(&self, at: &Path, e: &io::Error) -> io::Result<()> {
        if e.kind() != io::ErrorKind::NotFound {
            return Err(located(at, e));
        }
        match at.ancestors().take_while(|at| *at != self.root).find(|at| at.is_symlink()) {
            None if self.root.is_dir() => Ok(()),
            None => Err(located(self.root, e)),
            Some(link) => Err(located(link, &io::Error::other("a symbolic link that leads nowhere"))),
        }
    }
}

/// The same error, with where it happened.
fn located(at: &Path, e: &io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("{}: {e}", at.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::symlink;

    fn names(root: &Path) -> io::Result<Vec<String>> {
        Ok(below(root, "")?.objects.into_iter().map(|o| o.name).collect())
    }

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("packs/ab")).unwrap();
        std::fs::write(folder.path().join("packs/ab/abcd"), b"12").unwrap();
        folder
    }

    #[test]
    fn strangers_are_passed_over() {
        let folder = folder();
        let packs = folder.path().join("packs");
        std::fs::write(packs.join(OsStr::from_bytes(b"\xff\xfe")), b"").unwrap();
        std::fs::create_dir(packs.join("new\nline")).unwrap();
        std::fs::write(packs.join("abcd#12"), b"").unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, packs.join("pipe"), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        assert_eq!(names(folder.path()).unwrap(), ["packs/ab/abcd"]);
        symlink("abcd#12", packs.join("abcd#13")).unwrap();
        let staged = below(folder.path(), "packs").unwrap().staged;
        assert_eq!(staged.iter().map(|(path, _)| path).collect::<Vec<_>>(), [&packs.join("abcd#12")]);
        std::fs::write(packs.join("notes #1 and #2a"), b"").unwrap();
        assert_eq!(names(folder.path()).unwrap(), ["packs/ab/abcd", "packs/notes #1 and #2a"]);
    }

    #[test]
    fn links_are_followed_once() {
        let (folder, other) = (folder(), folder());
        symlink(other.path().join("packs/ab"), folder.path().join("packs/cd")).unwrap();
        symlink(other.path().join("packs/ab/abcd"), folder.path().join("packs/one")).unwrap();
        assert_eq!(names(folder.path()).unwrap(), ["packs/ab/abcd", "packs/cd/abcd", "packs/one"]);
        symlink("..", other.path().join("packs/ab/up")).unwrap();
        assert!(names(folder.path()).unwrap_err().to_string().contains("in a circle"));
    }

    #[test]
    fn a_link_that_leads_nowhere_is_an_error_and_no_short_list() {
        for link in ["packs/ab/gone", "packs/cd", "index"] {
            let folder = folder();
            symlink("/nowhere/at/all", folder.path().join(link)).unwrap();
            let e = names(folder.path()).unwrap_err();
            assert!(e.to_string().ends_with(&format!("{link}: a symbolic link that leads nowhere")), "{e}");
            assert!(below(folder.path(), link).is_err());
            assert!(below(folder.path(), &format!("{link}/below")).is_err());
        }
        let folder = folder();
        symlink("itself", folder.path().join("itself")).unwrap();
        assert!(names(folder.path()).is_err());
    }
}
