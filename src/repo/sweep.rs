//! Local state of tenants that nobody has used for long: what is large goes
//! first, the record of what was seen of a tenant much later. Looked for once a
//! day, by whichever command comes first. How long ago something was used is
//! told by times of files alone; where they are wrong, it only costs time.

use crate::error::{Error, Result};
use crate::id::{RepositoryId, TenantId, to_hex};
use crate::index::lock::{Hold, LOCK_FILE, Lock, Part};
use crate::index::remove_files;
use crate::limits;
use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

/// The file of what was seen of a tenant.
pub(super) const SEEN: &str = "seen.json";
/// What a name's record begins with in its file's name.
pub(super) const NAME: &str = "name-";
/// The file that says that a folder is a mirror's, and no repository's.
pub(super) const MIRROR: &str = "mirror";
/// What a file's name begins with whose time says when a store held to the condition of a create.
pub(super) const PROVEN: &str = "proven-";
/// How the files end that are to replace others.
pub(super) const NEW: &str = ".new";
/// The file of when packs were last read and found whole.
pub(super) const VERIFIED: &str = "verified";
/// The same of checks that only hashed them.
pub(super) const HASHED: &str = "hashed";
/// The file that remembers the newest snapshot of each chain.
pub(super) const CHAINS: &str = "chains.json";
/// What a file's name begins with that remembers what was copied here from another tenant.
pub(super) const COPIED: &str = "copied-";
/// The folder of repositories that were met, below that of all local state.
pub(super) const MET: &str = "met";

/// Its time is that of the last look.
const STAMP: &str = "swept";
const NOTES: &str = "source-";

fn modified(path: &Path) -> io::Result<SystemTime> {
    fs::metadata(path)?.modified()
}

fn is_older(time: SystemTime, now: SystemTime, seconds: u64) -> bool {
    now.duration_since(time).is_ok_and(|age| age > Duration::from_secs(seconds))
}

/// Looks through all of `root`, if that is due; `own` is in use. What cannot be removed stays.
pub(super) fn sweep(root: &Path, own: &Path, now: SystemTime) {
    let stamp = root.join(STAMP);
    let due = match modified(&stamp) {
        // A clock that ran ahead for a while must not put it off for ever.
        Ok(last) => {
            is_older(last, now, limits::LOCAL_SWEEP_SECONDS)
                || last > now + Duration::from_secs(limits::LOCAL_SWEEP_SECONDS)
        }
        Err(_) => true,
    };
    if !due {
        return;
    }
    let made = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&stamp);
    let swept = made.and_then(|_| all(root, own, now));
    if let Err(e) = swept {
        tracing::debug!("{}: {e}", root.display());
    }
}

/// The folders in a folder whose names are ids.
fn folders<T: FromStr>(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() && entry.file_name().to_str().is_some_and(|name| name.parse::<T>().is_ok()) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn all(root: &Path, own: &Path, now: SystemTime) -> io::Result<()> {
    let mut tenants = Vec::new();
    for repository in folders::<RepositoryId>(root)? {
        remove_unfinished(&repository, now)?;
        for tenant in folders::<TenantId>(&repository)? {
            remove_unfinished(&tenant, now)?;
            let used = modified(&tenant.join(LOCK_FILE)).or_else(|_| modified(&tenant))?;
            tenants.push((used, tenant));
        }
    }
    tenants.sort_by(|a, b| b.cmp(a));
    for (at, (used, tenant)) in tenants.iter().enumerate() {
        if tenant == own {
            continue;
        }
        if at >= limits::LOCAL_SEEN_MAX {
            forget(tenant)?;
        } else if at >= limits::LOCAL_TENANTS_MAX || is_older(*used, now, limits::LOCAL_UNUSED_SECONDS) {
            empty(tenant, &mut |_| Ok(()))?;
        }
    }
    shrink_met(&root.join(MET), now)
}

/// Of the places and tenants that were met, those that were met first go first.
fn shrink_met(folder: &Path, now: SystemTime) -> io::Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    remove_unfinished(folder, now)?;
    let mut met = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        met.push((modified(&path)?, path));
    }
    met.sort_by(|a, b| b.cmp(a));
    met.iter().skip(2 * limits::LOCAL_SEEN_MAX).try_for_each(|(_, path)| fs::remove_file(path))
}

/// Files that a killed process did not get to rename.
fn remove_unfinished(folder: &Path, now: SystemTime) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let unfinished = path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(NEW));
        if unfinished && modified(&path).is_ok_and(|time| is_older(time, now, limits::LOCAL_SWEEP_SECONDS)) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Removes the index and all notes, unless a process uses them; then calls `last`, while nobody else
/// can come in.
fn empty(tenant: &Path, last: &mut dyn FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    let lock = |part| Lock::attempt(tenant, part, Hold::Alone);
    // The gate first, as everywhere.
    let Some(_gate) = lock(Part::Gate)? else { return Ok(()) };
    let (Some(_index), Some(_notes)) = (lock(Part::Index)?, lock(Part::AllNotes)?) else { return Ok(()) };
    remove_files(tenant).map_err(|(_, e)| e)?;
    for entry in fs::read_dir(tenant)? {
        let path = entry?.path();
        let is_lost = |name: &str| {
            [NOTES, PROVEN, COPIED].iter().any(|kind| name.starts_with(kind)) || [VERIFIED, HASHED].contains(&name)
        };
        if path.file_name().is_some_and(|name| is_lost(&name.to_string_lossy())) {
            fs::remove_file(&path)?;
        }
    }
    last(tenant)
}

/// Removes all of a tenant, and its repository's folder with the last.
fn forget(tenant: &Path) -> io::Result<()> {
    empty(tenant, &mut |tenant| {
        for record in [SEEN, CHAINS] {
            match fs::remove_file(tenant.join(record)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        fs::remove_file(tenant.join(LOCK_FILE))?;
        fs::remove_dir(tenant)
    })?;
    let Some(repository) = tenant.parent() else { return Ok(()) };
    if !tenant.exists() && folders::<TenantId>(repository)?.is_empty() {
        for entry in fs::read_dir(repository)? {
            let path = entry?.path();
            let is_ours = |name: &str| name.starts_with(NAME) || name == MIRROR;
            if path.file_name().is_some_and(|name| is_ours(&name.to_string_lossy())) {
                fs::remove_file(&path)?;
            }
        }
        fs::remove_dir(repository)?;
    }
    Ok(())
}

/// Removes all that this machine has of a tenant that was erased, at these places: index, notes, what was
/// seen, and under which name. Copies of a far store's objects are the store's.
///
/// # Errors
/// [`Error::Local`], also while another process uses them.
pub fn drop_tenant(
    root: &Path,
    (repository, tenant): (RepositoryId, TenantId),
    name: &str,
    places: &[String],
) -> Result<()> {
    let above = root.join(repository.to_string());
    let folder = above.join(tenant.to_string());
    let fails = |path: &Path, why: String| Error::Local { path: path.to_path_buf(), why };
    if folder.exists() {
        empty(&folder, &mut |folder| fs::remove_dir_all(folder)).map_err(|e| fails(&folder, e.to_string()))?;
        if folder.exists() {
            return Err(fails(&folder, "it is in use by another process".into()));
        }
    }
    let hash = |text: &str| to_hex(&blake3::hash(text.as_bytes()).as_bytes()[..16]);
    let met = root.join(MET);
    let mut files = vec![above.join(format!("{NAME}{}", hash(name))), met.join(tenant.to_string())];
    files.extend(places.iter().map(|place| met.join(format!("at-{}", hash(&format!("{place}\0{name}"))))));
    for file in files {
        match fs::remove_file(&file) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(fails(&file, e.to_string())),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    /// A tenant's folder, last used so many days ago.
    fn tenant(root: &Path, n: u16, days: u64) -> PathBuf {
        let id = format!("{n:032x}");
        let folder = root.join(&id).join(&id);
        fs::create_dir_all(&folder).unwrap();
        for name in [
            "index.db",
            "index.db-wal",
            "source-00.db",
            "source-00.db-wal",
            "proven-00",
            "verified",
            "hashed",
            "seen.json",
            "other",
        ] {
            fs::write(folder.join(name), "x").unwrap();
        }
        fs::write(root.join(&id).join("name-00"), "x").unwrap();
        fs::File::create(folder.join(LOCK_FILE)).unwrap().set_modified(ago(days)).unwrap();
        folder
    }

    fn ago(days: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(20_000 * DAY) - Duration::from_secs(days * DAY)
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_unused_goes_and_what_was_seen_stays() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let (old, new, own) = (tenant(root, 1, 181), tenant(root, 2, 179), tenant(root, 3, 300));
        let held = tenant(root, 4, 300);
        let lock = Lock::attempt(&held, Part::Index, Hold::Shared).unwrap();
        fs::create_dir(root.join("photos")).unwrap();
        fs::write(old.join("seen.json.00.new"), "x").unwrap();
        fs::File::open(old.join("seen.json.00.new")).unwrap().set_modified(ago(2)).unwrap();
        let whole = names(&new);
        sweep(root, &own, ago(0));
        assert_eq!(names(&old), ["index.lock", "other", "seen.json"]);
        assert_eq!((names(&new), names(&own), names(&held)), (whole.clone(), whole.clone(), whole.clone()));
        assert!(root.join("photos").is_dir());
        drop(lock);
        fs::File::create(root.join(STAMP)).unwrap().set_modified(ago(0)).unwrap();
        sweep(root, &own, ago(0) + Duration::from_secs(DAY / 2));
        assert_eq!(names(&held), whole, "it is not due yet");
        sweep(root, &own, ago(0) + Duration::from_secs(DAY + 2));
        assert_eq!(names(&held), ["index.lock", "other", "seen.json"]);
    }

    #[test]
    fn a_tenant_can_be_forgotten_whole() {
        let root = tempfile::tempdir().unwrap();
        let folder = tenant(root.path(), 1, 0);
        fs::remove_file(folder.join("other")).unwrap();
        forget(&folder).unwrap();
        assert_eq!(names(root.path()), Vec::<String>::new());
    }

    #[test]
    fn more_tenants_than_are_kept_lose_the_oldest() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let tenants: Vec<_> = (0..limits::LOCAL_TENANTS_MAX + 3)
            .map(|n| {
                let id = format!("{n:032x}");
                let folder = root.join(&id).join(&id);
                fs::create_dir_all(&folder).unwrap();
                fs::write(folder.join("index.db"), "x").unwrap();
                let used = ago(9) + Duration::from_secs(n as u64);
                fs::File::create(folder.join(LOCK_FILE)).unwrap().set_modified(used).unwrap();
                folder
            })
            .collect();
        sweep(root, &tenants[0], ago(0));
        let left: Vec<bool> = tenants.iter().map(|t| t.join("index.db").exists()).collect();
        assert_eq!(left[..5], [true, false, false, true, true]);
        assert!(left[5..].iter().all(|left| *left));
    }
}
