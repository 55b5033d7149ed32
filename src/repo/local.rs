//! The folder of local state: the index, what files looked like, and what this
//! machine has seen of the tenant, so that an older state is recognised.
//! Losing it costs time, never data.

use crate::error::{Error, Result};
use crate::id::{RepositoryId, SignerId, TenantId};
use crate::limits;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

const SEEN: &str = "seen.json";

/// Where local state of one tenant lies.
#[derive(Debug, Clone)]
pub struct LocalFolder(Option<PathBuf>);

/// What this machine has seen of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    /// The tenant's verifying key: another one under the same id is a forgery.
    pub verifying: String,
    /// The newest version of the list of signers.
    pub signers: u64,
}

fn local(path: &Path, e: &std::io::Error) -> Error {
    Error::Local { path: path.to_path_buf(), why: e.to_string() }
}

impl LocalFolder {
    /// The tenant's folder below `root`, made if it is missing; with no root, nothing is kept.
    ///
    /// # Errors
    /// [`Error::Local`] where the folder cannot be made; [`Error::Damaged`] if this machine knows
    /// another tenant under the name.
    pub fn new(root: Option<&Path>, repository: RepositoryId, name: &str, tenant: TenantId) -> Result<Self> {
        let Some(root) = root else { return Ok(Self(None)) };
        let above = root.join(repository.to_string());
        let folder = above.join(tenant.to_string());
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(|e| local(&folder, &e))?;
        check_name(&above, name, tenant)?;
        Ok(Self(Some(folder)))
    }

    /// The repository in which this machine has met a tenant: `named` if it was that one, or else
    /// another, where the store names a wrong one or none.
    pub(super) fn repository_of(
        root: Option<&Path>,
        tenant: TenantId,
        named: Option<RepositoryId>,
    ) -> Option<RepositoryId> {
        let root = root?;
        let met = |id: &RepositoryId| root.join(id.to_string()).join(tenant.to_string()).exists();
        if named.is_some_and(|id| met(&id)) {
            return named;
        }
        let folders = std::fs::read_dir(root).ok()?;
        folders.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(met)
    }

    /// True if this machine has seen a newer list of signers of the same tenant.
    pub(super) fn is_rollback(&self, verifying: SignerId, signers: u64) -> bool {
        let bytes = self.path().and_then(|folder| std::fs::read(folder.join(SEEN)).ok());
        let seen = bytes.and_then(|bytes| serde_json::from_slice::<Seen>(&bytes).ok());
        seen.is_some_and(|seen| seen.verifying == verifying.to_string() && seen.signers > signers)
    }

    /// The folder, if anything is kept.
    pub fn path(&self) -> Option<&Path> {
        self.0.as_deref()
    }

    /// Checks what is seen now against what was seen before, and remembers it.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the store shows another tenant or an older list of signers.
    pub(super) fn check_seen(&self, tenant: &str, verifying: SignerId, signers: u64) -> Result<()> {
        let Some(folder) = self.path() else { return Ok(()) };
        let path = folder.join(SEEN);
        let now = Seen { verifying: verifying.to_string(), signers };
        let before: Option<Seen> = read_json(&path)?;
        if let Some(before) = &before {
            if before.verifying != now.verifying {
                return Err(Error::damaged(
                    format!("tenant {tenant}"),
                    format!(
                        "its signing key is not the one that this machine knows; if the tenant was really made anew, remove {}",
                        path.display()
                    ),
                ));
            }
            if before.signers > now.signers {
                return Err(Error::damaged(
                    format!("tenant {tenant}"),
                    format!(
                        "the store shows an older list of signers ({}) than this machine has seen ({}): a rollback",
                        now.signers, before.signers
                    ),
                ));
            }
        }
        if before.as_ref() != Some(&now) {
            write_json(&path, &now)?;
        }
        Ok(())
    }
}

/// Holds the tenant against the one that this machine has met under its name: whoever forges a
/// whole tenant for a recipient's key cannot give it the id of the real one.
fn check_name(above: &Path, name: &str, tenant: TenantId) -> Result<()> {
    let hash = blake3::hash(name.as_bytes());
    let path = above.join(format!("name-{}", crate::id::to_hex(&hash.as_bytes()[..16])));
    match std::fs::read(&path) {
        Ok(known) if known == tenant.to_string().as_bytes() => Ok(()),
        Ok(known) if !known.is_empty() => Err(Error::damaged(
            format!("tenant {name}"),
            format!(
                "it is another tenant than this machine has met under that name; if it was really made anew, remove {}",
                path.display()
            ),
        )),
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(local(&path, &e)),
        _ => write_replacing(&path, tenant.to_string().as_bytes()).map_err(|e| local(&path, &e)),
    }
}

/// Waits for the lock that a file of this machine stands for, and holds it until it is dropped.
pub(super) fn lock(path: &Path) -> Result<File> {
    let open = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
    let file = open.map_err(|e| local(path, &e))?;
    file.lock().map_err(|e| local(path, &e))?;
    Ok(file)
}

/// A small record of this machine's; `None` if there is none, or none that reads: it was lost.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
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

pub(super) fn write_replacing(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let open = |tenant| LocalFolder::new(Some(root.path()), RepositoryId([1; 16]), "t", TenantId([tenant; 16]));
        let folder = open(2).unwrap();
        assert!(open(3).is_err(), "another tenant under the same name");
        assert!(open(2).is_ok());
        folder.check_seen("t", SignerId([1; 32]), 3).unwrap();
        folder.check_seen("t", SignerId([1; 32]), 4).unwrap();
        assert!(folder.check_seen("t", SignerId([1; 32]), 3).unwrap_err().to_string().contains("rollback"));
        assert!(folder.check_seen("t", SignerId([2; 32]), 4).is_err());
        std::fs::write(folder.path().unwrap().join(SEEN), b"rubbish").unwrap();
        folder.check_seen("t", SignerId([1; 32]), 3).unwrap();
        LocalFolder(None).check_seen("t", SignerId([1; 32]), 1).unwrap();
    }
}
