//! Makes folders, and names durable: those of folders, and those in them. Writes no objects.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

/// Makes a folder and those above it that are missing; `mode` is for the last. Their names are
/// durable once this returns. So is that of a folder that was there: whoever made it may have been
/// killed before he saw to it, or may be about to.
pub(super) fn make(folder: &Path, mode: u32) -> io::Result<()> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|at| !at.is_dir()).collect();
    if missing.is_empty() {
        return sync_holder(&folder.canonicalize()?);
    }
    for at in missing.into_iter().rev() {
        let mode = if at == folder { mode } else { 0o777 };
        match DirBuilder::new().mode(mode).create(at) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            Err(_) if !at.is_dir() => return Err(io::ErrorKind::NotADirectory.into()),
            _ => sync_holder(&at.canonicalize()?)?,
        }
    }
    Ok(())
}

/// Syncs the folder that holds a file or folder: then its name is durable.
pub(super) fn sync_holder(named: &Path) -> io::Result<()> {
    let Some(holder) = named.parent() else { return Ok(()) };
    match sync(holder) {
        // A folder can be open to writing and not to reading; then all of its file system is synced.
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(rustix::fs::syncfs(File::open(named)?)?),
        synced => synced,
    }
}

/// Syncs a folder: then the names in it are durable.
pub(super) fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn makes_what_is_missing_and_minds_nothing_that_is_there() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("a/b/c");
        make(&folder, 0o700).unwrap();
        make(&folder, 0o755).unwrap();
        assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert_ne!(place.path().join("a/b").metadata().unwrap().permissions().mode() & 0o777, 0);
        make(Path::new("/"), 0o700).unwrap();
    }

    #[test]
    fn what_is_no_folder_is_an_error() {
        let place = tempfile::tempdir().unwrap();
        let (file, link) = (place.path().join("file"), place.path().join("link"));
        std::fs::write(&file, b"").unwrap();
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        for at in [file.clone(), file.join("a"), link.clone(), link.join("a")] {
            let e = make(&at, 0o700).unwrap_err();
            assert_eq!(e.kind(), io::ErrorKind::NotADirectory, "{}", at.display());
        }
    }
}
