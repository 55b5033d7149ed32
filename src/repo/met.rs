//! Which tenants this machine has met, and where. Kept beside the folders of
//! repositories, not in them: the id in `repo.json` is nobody's word, and a
//! store that shows another one must not get a machine without a memory.
//!
//! Losing it loses no data; it makes the next meeting a first one.

use super::local::write_replacing;
use crate::error::{Error, Result};
use crate::format::names;
use crate::id::{RepositoryId, SignerId, TenantId};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// A tenant as the store shows it now.
pub(super) struct Meeting<'a> {
    /// Where the store lies.
    pub place: String,
    /// The repository's id.
    pub repository: RepositoryId,
    /// The tenant's name.
    pub name: &'a str,
    /// The tenant's id.
    pub tenant: TenantId,
    /// The tenant's fingerprint.
    pub fingerprint: SignerId,
    /// True if whoever made the slot knew the secret that opens it. A slot for a recipient takes
    /// nothing but a public key.
    pub proven: bool,
}

/// What is remembered of a meeting: the repository of the tenant, and the tenant at the place.
pub(super) struct Memory {
    tenant: (PathBuf, String),
    place: (PathBuf, String),
}

fn local(path: &Path, e: &std::io::Error) -> Error {
    Error::Local { path: path.to_path_buf(), why: e.to_string() }
}

fn remembered(path: &Path) -> Result<Option<String>> {
    match std::fs::read(path) {
        // What a crash left empty was never written.
        Ok(bytes) => Ok(String::from_utf8(bytes).ok().filter(|text| !text.is_empty())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(local(path, &e)),
    }
}

impl Meeting<'_> {
    /// Holds the tenant against what this machine has met; with no `root`, there is no memory.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the tenant shows in another repository than before, or if another
    /// tenant shows where one was met, and nothing proves that it is genuine.
    pub(super) fn check(&self, root: Option<&Path>) -> Result<Option<Memory>> {
        let Some(root) = root else { return Ok(None) };
        let folder = root.join("met");
        let place = blake3::hash(format!("{}\0{}", self.place, self.name).as_bytes());
        let place = folder.join(format!("at-{}", crate::id::to_hex(&place.as_bytes()[..16])));
        let memory = Memory {
            tenant: (folder.join(self.tenant.to_string()), self.repository.to_string()),
            place: (place, self.tenant.to_string()),
        };
        let (path, repository) = &memory.tenant;
        match remembered(path)? {
            Some(known) if known == *repository => return Ok(Some(memory)),
            Some(_) => {
                return Err(Error::damaged(
                    names::REPO,
                    format!(
                        "it has another id than the repository in which this machine has met tenant {}; if the tenant was really moved, remove {}",
                        self.name,
                        path.display()
                    ),
                ));
            }
            None => {}
        }
        let path = &memory.place.0;
        if !self.proven && remembered(path)?.is_some() {
            return Err(Error::damaged(
                format!("tenant {}", self.name),
                format!(
                    "it is another tenant than this machine has met there, and its slot, which is for a recipient, does not prove who made it; if its fingerprint {} is the right one, remove {}",
                    self.fingerprint,
                    path.display()
                ),
            ));
        }
        Ok(Some(memory))
    }
}

impl Memory {
    /// Remembers the meeting.
    ///
    /// # Errors
    /// [`Error::Local`].
    pub(super) fn keep(&self) -> Result<()> {
        for (path, text) in [&self.tenant, &self.place] {
            if remembered(path)?.as_ref() == Some(text) {
                continue;
            }
            if let Some(folder) = path.parent() {
                let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
                made.map_err(|e| local(folder, &e))?;
            }
            write_replacing(path, text.as_bytes()).map_err(|e| local(path, &e))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meeting(place: &str, repository: u8, tenant: u8, proven: bool) -> Meeting<'static> {
        Meeting {
            place: place.into(),
            repository: RepositoryId([repository; 16]),
            name: "t",
            tenant: TenantId([tenant; 16]),
            fingerprint: SignerId([tenant; 32]),
            proven,
        }
    }

    #[test]
    fn a_place_that_shows_another_tenant_is_told_and_disks_may_take_turns() {
        let root = tempfile::tempdir().unwrap();
        let meet = |m: Meeting<'_>| m.check(Some(root.path())).and_then(|memory| memory.unwrap().keep());
        meet(meeting("/mnt", 1, 1, false)).unwrap();
        meet(meeting("/mnt", 1, 1, false)).unwrap();
        meet(meeting("/other", 1, 1, false)).unwrap();
        let e = meet(meeting("/mnt", 2, 2, false)).unwrap_err().to_string();
        assert!(e.contains(&SignerId([2; 32]).to_string()) && e.contains("/met/at-"), "{e}");
        let e = meet(meeting("/mnt", 2, 1, true)).unwrap_err().to_string();
        assert!(e.contains("repo.json"), "{e}");
        // Who made the slot knew its secret: another disk at the same place. From then on both are known.
        meet(meeting("/mnt", 2, 2, true)).unwrap();
        meet(meeting("/mnt", 1, 1, false)).unwrap();
        meet(meeting("/mnt", 2, 2, false)).unwrap();
        meet(meeting("/mnt", 3, 3, false)).unwrap_err();
        assert!(meeting("/mnt", 3, 3, false).check(None).unwrap().is_none());
    }
}
