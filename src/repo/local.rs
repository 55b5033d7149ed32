//! The folder of local state: the index, what files looked like, and what this
//! machine has seen of the tenant, so that an older state is recognised.
//! Losing it costs time, never data; where it cannot be used, work goes on
//! without it, and that is told once.

use super::sweep::{self, MIRROR, NAME, NEW, PROVEN, SEEN};
use crate::crypto::random;
use crate::error::{Error, Result};
use crate::id::{RepositoryId, SignerId, TenantId, from_hex, to_hex};
use crate::index::lock::{self, Hold, Lock, Part};
use crate::limits;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// Where local state of one tenant lies.
#[derive(Debug, Clone)]
pub struct LocalFolder {
    path: Option<PathBuf>,
    repository: RepositoryId,
    tenant: TenantId,
    told: Arc<Mutex<Told>>,
}

/// What was wrong with local state and stopped nothing.
#[derive(Debug, Default)]
struct Told {
    warnings: Vec<String>,
    /// That the folder cannot be used is told once, however many find it so.
    unusable: bool,
}

/// What this machine has seen of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    /// Whose record it is: one that was copied from elsewhere says nothing.
    pub repository: String,
    /// See `repository`.
    pub tenant: String,
    /// The tenant's verifying key: another one under the same id is a forgery.
    pub verifying: String,
    /// The newest version of the list of signers.
    pub signers: u64,
    /// Closes the record: a damaged one must not pass for a rollback.
    pub sum: String,
}

fn local(path: &Path, e: &std::io::Error) -> Error {
    Error::Local { path: path.to_path_buf(), why: e.to_string() }
}

pub(super) fn closed(text: &str) -> String {
    to_hex(&blake3::hash(text.as_bytes()).as_bytes()[..8])
}

fn proven_file(place: &str) -> String {
    format!("{PROVEN}{}", closed(place))
}

impl Seen {
    fn new(folder: &LocalFolder, verifying: SignerId, signers: u64) -> Self {
        let (repository, tenant) = (folder.repository.to_string(), folder.tenant.to_string());
        let verifying = verifying.to_string();
        let sum = closed(&format!("{repository} {tenant} {verifying} {signers}"));
        Self { repository, tenant, verifying, signers, sum }
    }

    /// The record that stands there; one that does not read, or is another tenant's, is one that was lost.
    fn read(path: &Path, folder: &LocalFolder) -> std::io::Result<Option<Self>> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let seen: Option<Self> = serde_json::from_slice(&bytes).ok();
        Ok(seen.filter(|seen| {
            let verifying = from_hex(&seen.verifying).map(SignerId);
            verifying.is_some_and(|verifying| *seen == Self::new(folder, verifying, seen.signers))
        }))
    }
}

impl LocalFolder {
    /// The tenant's folder below `root`, made if it is missing; with no root, or where it cannot be
    /// made, nothing is kept.
    ///
    /// # Errors
    /// [`Error::Damaged`] if this machine knows another tenant under the name.
    pub fn new(root: Option<&Path>, repository: RepositoryId, name: &str, tenant: TenantId) -> Result<Self> {
        let mut folder = Self { path: None, repository, tenant, told: Arc::default() };
        let Some(root) = root else { return Ok(folder) };
        let above = root.join(repository.to_string());
        let path = above.join(tenant.to_string());
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
        if let Err(e) = made.map_err(|e| local(&path, &e)) {
            folder.unusable(&e);
            return Ok(folder);
        }
        match check_name(&above, name, tenant) {
            Err(e @ Error::Local { .. }) => folder.unusable(&e),
            other => other?,
        }
        match lock::touch(&path) {
            Ok(now) => sweep::sweep(root, &path, now),
            Err(e) => folder.unusable(&local(&path, &e)),
        }
        folder.path = Some(path);
        Ok(folder)
    }

    /// The folder of a tenant that lies on a mirror; it is marked as such, so that nobody takes the mirror for
    /// the repository.
    ///
    /// # Errors
    /// See [`LocalFolder::new`].
    pub(super) fn of_mirror(root: &Path, mirror: RepositoryId, name: &str, tenant: TenantId) -> Result<Self> {
        let above = root.join(mirror.to_string());
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&above);
        // Where this fails, so will what follows, and that is told.
        if made.is_ok() && !above.join(MIRROR).exists() {
            let _ = write_replacing(&above.join(MIRROR), b"");
        }
        Self::new(Some(root), mirror, name, tenant)
    }

    /// True if nothing was seen of the tenant yet.
    pub(super) fn is_new(&self) -> bool {
        self.path().is_some_and(|folder| !folder.join(SEEN).exists())
    }

    /// The repository in which this machine has met a tenant: `named` if it was that one, or else
    /// another, where the store names a wrong one or none.
    pub(super) fn repository_of(
        root: Option<&Path>,
        tenant: TenantId,
        named: Option<RepositoryId>,
    ) -> Option<RepositoryId> {
        let root = root?;
        let met = |id: &RepositoryId| {
            let above = root.join(id.to_string());
            above.join(tenant.to_string()).exists() && !above.join(MIRROR).exists()
        };
        if named.is_some_and(|id| met(&id)) {
            return named;
        }
        let folders = std::fs::read_dir(root).ok()?;
        folders.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(met)
    }

    /// True if a store refused, not long ago, to create an object a second time.
    pub(super) fn is_proven(&self, place: &str) -> bool {
        let proven =
            self.path().and_then(|folder| std::fs::metadata(folder.join(proven_file(place))).ok()?.modified().ok());
        // One from a future is from a clock that was wrong.
        let age = proven.and_then(|then| SystemTime::now().duration_since(then).ok());
        age.is_some_and(|age| age < Duration::from_secs(limits::FAR_PROVEN_SECONDS))
    }

    /// Remembers that it did.
    pub(super) fn note_proven(&self, place: &str) {
        let Some(folder) = self.path() else { return };
        if let Err(e) = write_replacing(&folder.join(proven_file(place)), b"") {
            self.unusable(&local(folder, &e));
        }
    }

    /// True if this machine has seen a newer list of signers of the same tenant.
    pub(super) fn is_rollback(&self, verifying: SignerId, signers: u64) -> bool {
        let seen = self.path().and_then(|folder| Seen::read(&folder.join(SEEN), self).ok().flatten());
        seen.is_some_and(|seen| seen.verifying == verifying.to_string() && seen.signers > signers)
    }

    /// Whose state it is.
    pub(super) fn ids(&self) -> (&RepositoryId, &TenantId) {
        (&self.repository, &self.tenant)
    }

    /// The folder, if anything is kept.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes something to warn of.
    pub fn warn(&self, warning: String) {
        self.told().warnings.push(warning);
    }

    /// Notes that the folder cannot be used, unless that was told.
    pub fn unusable(&self, why: &Error) {
        let mut told = self.told();
        if !told.unusable {
            told.unusable = true;
            told.warnings.push(format!(
                "local state cannot be kept ({why}): nothing is lost, but this takes longer, and a rollback may go unnoticed"
            ));
        }
    }

    /// What was wrong since this was asked last.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.told().warnings)
    }

    /// Checks what is seen now against what was seen before, and remembers it.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the store shows another tenant or an older list of signers.
    pub(super) fn check_seen(&self, tenant: &str, verifying: SignerId, signers: u64) -> Result<()> {
        let Some(folder) = self.path() else { return Ok(()) };
        let path = folder.join(SEEN);
        let now = Seen::new(self, verifying, signers);
        let check = || -> Result<()> {
            let read = || Seen::read(&path, self).map_err(|e| local(&path, &e));
            let before = read()?;
            now.follows(before.as_ref(), tenant, &path)?;
            if before.as_ref() == Some(&now) {
                return Ok(());
            }
            // Another process may have seen a newer list meanwhile: it must not be forgotten again.
            let _lock = Lock::wait(folder, Part::Seen, Hold::Alone).map_err(|e| local(folder, &e))?;
            now.follows(read()?.as_ref(), tenant, &path)?;
            write_replacing(&path, &serde_json::to_vec(&now).unwrap_or_default()).map_err(|e| local(&path, &e))
        };
        match check() {
            Err(e @ Error::Local { .. }) => self.unusable(&e),
            other => other?,
        }
        Ok(())
    }
}

impl Seen {
    fn follows(&self, before: Option<&Self>, tenant: &str, path: &Path) -> Result<()> {
        let Some(before) = before else { return Ok(()) };
        if before.verifying != self.verifying {
            return Err(Error::damaged(
                format!("tenant {tenant}"),
                format!(
                    "its signing key is not the one that this machine knows; if the tenant was really made anew, remove {}",
                    path.display()
                ),
            ));
        }
        if before.signers > self.signers {
            return Err(Error::damaged(
                format!("tenant {tenant}"),
                format!(
                    "the store shows an older list of signers ({}) than this machine has seen ({}): a rollback",
                    self.signers, before.signers
                ),
            ));
        }
        Ok(())
    }
}

/// Holds the tenant against the one that this machine has met under its name: whoever forges a
/// whole tenant for a recipient's key cannot give it the id of the real one.
fn check_name(above: &Path, name: &str, tenant: TenantId) -> Result<()> {
    let hash = to_hex(&blake3::hash(name.as_bytes()).as_bytes()[..16]);
    let path = above.join(format!("{NAME}{hash}"));
    let record = |tenant: &str| format!("{tenant} {}", closed(&format!("{hash} {tenant}")));
    let now = record(&tenant.to_string());
    let known = match std::fs::read(&path) {
        // What is damaged, or was copied from another name, is as good as lost.
        Ok(known) => String::from_utf8(known)
            .ok()
            .filter(|known| known.split_once(' ').is_some_and(|(tenant, _)| *known == record(tenant))),
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        Err(e) => return Err(local(&path, &e)),
    };
    match known {
        Some(known) if known == now => Ok(()),
        Some(_) => Err(Error::damaged(
            format!("tenant {name}"),
            format!(
                "it is another tenant than this machine has met under that name; if it was really made anew, remove {}",
                path.display()
            ),
        )),
        None => write_replacing(&path, now.as_bytes()).map_err(|e| local(&path, &e)),
    }
}

/// A small record of this machine's; `None` if there is none, or none that reads: it was lost.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(local(path, &e)),
    };
    let mut bytes = Vec::new();
    file.take(limits::LOCAL_FILE_MAX).read_to_end(&mut bytes).map_err(|e| local(path, &e))?;
    Ok(serde_json::from_slice(&bytes).ok())
}

/// Replaces a small record of this machine's.
pub(super) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let bytes = serde_json::to_vec(value).map_err(|e| local(path, &e.into()))?;
    write_replacing(path, &bytes).map_err(|e| local(path, &e))
}

/// Puts a file in the place of another: who reads sees the one or the other. Its content is synced
/// before it gets the name, since a crash could else leave the name with nothing in it, and what was
/// seen would be forgotten. The folder is not: a crash may bring the file before back, which says what
/// this machine had seen a moment earlier.
pub(super) fn write_replacing(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    // No two processes write to one file, even where they have the same number in containers.
    let unique: [u8; 8] = random::bytes().map_err(|e| std::io::Error::other(e.to_string()))?;
    let mut new = path.as_os_str().to_owned();
    new.push(format!(".{}{NEW}", to_hex(&unique)));
    let new = PathBuf::from(new);
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    };
    let written = write();
    if written.is_err() {
        // What a killed process leaves is swept up later.
        let _ = std::fs::remove_file(&new);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(root: &Path, tenant: u8) -> Result<LocalFolder> {
        LocalFolder::new(Some(root), RepositoryId([1; 16]), "t", TenantId([tenant; 16]))
    }

    #[test]
    fn a_tenant_is_known_again_whatever_the_repository_is_called() {
        let root = tempfile::tempdir().unwrap();
        let (one, other) = (RepositoryId([1; 16]), RepositoryId([2; 16]));
        let of = |named| LocalFolder::repository_of(Some(root.path()), TenantId([7; 16]), named);
        assert_eq!(of(Some(one)), None);
        LocalFolder::new(Some(root.path()), one, "t", TenantId([7; 16])).unwrap();
        assert_eq!((of(None), of(Some(one)), of(Some(other))), (Some(one), Some(one), Some(one)));
        LocalFolder::new(Some(root.path()), other, "t", TenantId([8; 16])).unwrap();
        assert_eq!(of(Some(other)), Some(one), "another tenant was met there");
        assert_eq!(LocalFolder::repository_of(None, TenantId([7; 16]), Some(one)), None);
    }

    #[test]
    fn a_rollback_and_a_forgery_are_told() {
        let root = tempfile::tempdir().unwrap();
        let folder = open(root.path(), 2).unwrap();
        assert!(open(root.path(), 3).is_err(), "another tenant under the same name");
        assert!(open(root.path(), 2).is_ok());
        folder.check_seen("t", SignerId([1; 32]), 3).unwrap();
        folder.check_seen("t", SignerId([1; 32]), 4).unwrap();
        assert!(folder.check_seen("t", SignerId([1; 32]), 3).unwrap_err().to_string().contains("rollback"));
        assert!(folder.check_seen("t", SignerId([2; 32]), 4).is_err());
        std::fs::write(folder.path().unwrap().join(SEEN), b"rubbish").unwrap();
        folder.check_seen("t", SignerId([1; 32]), 3).unwrap();
        let none = LocalFolder::new(None, RepositoryId([1; 16]), "t", TenantId([2; 16])).unwrap();
        none.check_seen("t", SignerId([1; 32]), 1).unwrap();
        assert_eq!(folder.take_warnings(), Vec::<String>::new());
    }

    #[test]
    fn a_damaged_record_is_a_lost_one_wherever_a_bit_is_wrong() {
        let root = tempfile::tempdir().unwrap();
        let folder = open(root.path(), 2).unwrap();
        let seen = folder.path().unwrap().join(SEEN);
        folder.check_seen("t", SignerId([1; 32]), 3).unwrap();
        let above = root.path().join(RepositoryId([1; 16]).to_string());
        let name = std::fs::read_dir(&above).unwrap().map(|e| e.unwrap().path()).find(|p| p.is_file()).unwrap();
        for file in [seen, name] {
            let whole = std::fs::read(&file).unwrap();
            for at in 0..whole.len() {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << (at % 8);
                std::fs::write(&file, &bytes).unwrap();
                let folder = open(root.path(), 2).unwrap();
                folder.check_seen("t", SignerId([1; 32]), 3).unwrap();
                assert_eq!(std::fs::read(&file).unwrap(), whole, "bit in byte {at} of {}", file.display());
            }
        }
    }

    #[test]
    fn a_record_of_another_tenant_says_nothing_of_this_one() {
        let root = tempfile::tempdir().unwrap();
        let other = LocalFolder::new(Some(root.path()), RepositoryId([9; 16]), "t", TenantId([2; 16])).unwrap();
        other.check_seen("t", SignerId([7; 32]), 30).unwrap();
        let folder = open(root.path(), 2).unwrap();
        std::fs::copy(other.path().unwrap().join(SEEN), folder.path().unwrap().join(SEEN)).unwrap();
        folder.check_seen("t", SignerId([1; 32]), 3).unwrap();
        assert!(folder.check_seen("t", SignerId([1; 32]), 2).is_err());
    }

    #[test]
    fn what_another_process_saw_meanwhile_is_not_forgotten() {
        let root = tempfile::tempdir().unwrap();
        let folder = open(root.path(), 2).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    // A slower process is told of a rollback, and does not bring the older record back.
                    (1..20).for_each(|n| drop(folder.check_seen("t", SignerId([1; 32]), n)));
                });
            }
        });
        assert!(folder.check_seen("t", SignerId([1; 32]), 18).is_err());
        folder.check_seen("t", SignerId([1; 32]), 19).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_used_is_told_once() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        std::fs::write(&file, "x").unwrap();
        let folder = open(&file, 2).unwrap();
        assert!(folder.path().is_none());
        folder.unusable(&Error::Invalid("again".into()));
        let warnings = folder.take_warnings();
        assert!(warnings.len() == 1 && warnings[0].contains(&*file.to_string_lossy()), "{warnings:?}");
        assert!(folder.take_warnings().is_empty());
    }
}
