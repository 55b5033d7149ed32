//! Puts an object in its place all at once, and durably: a file is filled beside it (`NAME#` and a
//! number), synced, and linked or renamed there; then its folder is synced.
//!
//! A process that is killed leaves the file beside. The number is drawn anew for each and never by
//! two, which `object_store` (`NAME#1`, then the next that is free) does not promise: so a file beside
//! belongs to one writer for ever, and removing it takes nothing but that writer's own upload from
//! it. One that was stopped for a day and wakes finds it gone, and tells an error; nothing else is
//! ever linked under the name it wanted.

use super::folders;
use crate::limits;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What becomes of an object that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// It stays, and that is an error.
    Create,
    /// It is replaced.
    Replace,
}

/// True for a file beside an object: `#` and a number at its end.
pub(super) fn is_staged(name: &str) -> bool {
    name.rsplit_once('#').is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// True for a file beside an object that nobody fills any more: it was last written so long before
/// `now`, by the store's own clock. A file is written at once, from memory.
pub(super) fn is_dead(written: SystemTime, now: SystemTime) -> bool {
    let age = now.duration_since(written).unwrap_or_default();
    age > Duration::from_secs(limits::UPLOAD_DEAD_SECONDS)
}

/// Puts an object in its place, whose folder is there; when that was, by the clock of the disk. If it
/// must not be replaced and is there, then durably so.
pub(super) fn put(place: &Path, data: &[u8], mode: Mode) -> io::Result<SystemTime> {
    let staged = beside(place)?;
    let put = fill(&staged, data).and_then(|written| {
        match mode {
            Mode::Create => fs::hard_link(&staged, place)?,
            Mode::Replace => fs::rename(&staged, place)?,
        }
        Ok(written)
    });
    if put.is_err() || mode == Mode::Create {
        // Before the folder is synced, so that a crash does not bring it back. What stays is removed
        // when it has grown old.
        let _ = fs::remove_file(&staged);
    }
    match &put {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {}
        // Whoever put it there may have been killed before he synced the folder.
        _ => folders::sync_holder(place)?,
    }
    put
}

fn beside(place: &Path) -> io::Result<PathBuf> {
    let mut name = place.as_os_str().to_owned();
    name.push(format!("#{}", getrandom::u64()?));
    Ok(name.into())
}

fn fill(staged: &Path, data: &[u8]) -> io::Result<SystemTime> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(staged)?;
    file.write_all(data)?;
    file.sync_all()?;
    file.metadata()?.modified()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_beside_an_object() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("a");
        put(&place, b"one", Mode::Create).unwrap();
        assert_eq!(put(&place, b"two", Mode::Create).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&place).unwrap(), b"one");
        put(&place, b"three", Mode::Replace).unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"three");
        let taken = folder.path().join("folder");
        fs::create_dir(&taken).unwrap();
        assert!(put(&taken, b"", Mode::Replace).is_err());
        assert!(put(&folder.path().join("gone/a"), b"", Mode::Create).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn no_two_uploads_share_a_file() {
        let names: std::collections::HashSet<PathBuf> =
            (0..1000).map(|_| beside(Path::new("/packs/ab")).unwrap()).collect();
        assert_eq!(names.len(), 1000);
        assert!(names.iter().all(|name| is_staged(name.to_str().unwrap())));
        assert!(!is_staged("/packs/ab") && !is_staged("ab#") && !is_staged("ab#1a"));
    }

    #[test]
    fn an_upload_is_dead_after_a_day_without_a_write() {
        let now = SystemTime::now();
        let ago = |seconds| now - Duration::from_secs(seconds);
        assert!(!is_dead(ago(0), now) && !is_dead(ago(23 * 3600), now) && is_dead(ago(25 * 3600), now));
        // A clock that was turned back makes nothing old.
        assert!(!is_dead(now, ago(25 * 3600)));
    }
}
