//! Which tenants this machine has met, and at which places: where one was met,
//! another is no accident if nothing but a recipient's slot speaks for it.
//!
//! Losing it loses no data; it makes the next meeting a first one.

use super::local::write_replacing;
use super::sweep::MET;
use crate::error::{Error, Result};
use crate::id::{RepositoryId, SignerId, TenantId};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// A tenant as the store shows it now.
pub(super) struct Meeting<'a> {
    /// Where the store lies.
    pub place: String,
    /// The tenant's name.
    pub name: &'a str,
    /// The tenant's id.
    pub tenant: TenantId,
    /// The tenant's fingerprint.
    pub fingerprint: SignerId,
    /// True if whoever made the slot knew the secret that opens it. A slot for a recipient takes
    /// nothing but a public key.
    pub proven: bool,
    /// The mirror that lies there, if it is one.
    pub mirror: Option<RepositoryId>,
}

/// What is remembered of a meeting: that the tenant was met, and which was met at the place.
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
    /// The file that remembers which tenant was met at the place.
    pub(super) fn place_file(&self, root: &Path) -> PathBuf {
        let place = blake3::hash(format!("{}\0{}", self.place, self.name).as_bytes());
        root.join(MET).join(format!("at-{}", crate::id::to_hex(&place.as_bytes()[..16])))
    }

    /// The mirror by which the tenant was met at the place last, or that it was none; `None` if it was not met
    /// there, or nobody can tell.
    pub(super) fn met_before(&self, root: &Path) -> Option<Option<RepositoryId>> {
        let text = remembered(&self.place_file(root)).ok().flatten()?;
        let (tenant, mirror) = match text.split_once(' ') {
            Some((tenant, mirror)) => (tenant, Some(mirror.parse().ok()?)),
            None => (&*text, None),
        };
        (tenant == self.tenant.to_string()).then_some(mirror)
    }

    /// Holds the tenant against what this machine has met; with no `root`, there is no memory.
    ///
    /// # Errors
    /// [`Error::Damaged`] if another tenant shows where one was met, and nothing proves that it is
    /// genuine.
    pub(super) fn check(&self, root: Option<&Path>) -> Result<Option<Memory>> {
        let Some(root) = root else { return Ok(None) };
        let what = match self.mirror {
            None => self.tenant.to_string(),
            Some(mirror) => format!("{} {mirror}", self.tenant),
        };
        let memory = Memory {
            tenant: (root.join(MET).join(self.tenant.to_string()), "met".into()),
            place: (self.place_file(root), what),
        };
        if remembered(&memory.tenant.0)?.is_some() {
            return Ok(Some(memory));
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

    fn meeting(place: &str, tenant: u8, proven: bool) -> Meeting<'static> {
        Meeting {
            place: place.into(),
            name: "t",
            tenant: TenantId([tenant; 16]),
            fingerprint: SignerId([tenant; 32]),
            proven,
            mirror: None,
        }
    }

    #[test]
    fn a_place_that_shows_another_tenant_is_told_and_disks_may_take_turns() {
        let root = tempfile::tempdir().unwrap();
        let meet = |m: Meeting<'_>| m.check(Some(root.path())).and_then(|memory| memory.unwrap().keep());
        meet(meeting("/mnt", 1, false)).unwrap();
        meet(meeting("/mnt", 1, false)).unwrap();
        meet(meeting("/other", 1, false)).unwrap();
        let e = meet(meeting("/mnt", 2, false)).unwrap_err().to_string();
        assert!(e.contains(&SignerId([2; 32]).to_string()) && e.contains("/met/at-"), "{e}");
        // Who made the slot knew its secret: another disk at the same place. From then on both are known.
        meet(meeting("/mnt", 2, true)).unwrap();
        meet(meeting("/mnt", 1, false)).unwrap();
        meet(meeting("/mnt", 2, false)).unwrap();
        meet(meeting("/mnt", 3, false)).unwrap_err();
        assert!(meeting("/mnt", 3, false).check(None).unwrap().is_none());
        // A place remembers whether a mirror lies there.
        let mirror = |n: u8| Meeting { mirror: Some(RepositoryId([n; 16])), ..meeting("/mnt", 2, true) };
        assert_eq!(meeting("/mnt", 2, true).met_before(root.path()), Some(None));
        meet(mirror(8)).unwrap();
        assert_eq!(meeting("/mnt", 2, true).met_before(root.path()), Some(Some(RepositoryId([8; 16]))));
        assert_eq!(meeting("/mnt", 1, true).met_before(root.path()), None, "another tenant was met last");
    }
}
