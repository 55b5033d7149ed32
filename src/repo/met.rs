//! Which tenants this machine has met, and at which places: where one was met,
//! another is no accident if nothing but a recipient's slot speaks for it.
//!
//! Losing it loses no data; it makes the next meeting a first one.

use super::local::write_replacing;
use super::sweep::MET;
use crate::error::{Error, Result};
use crate::id::{SignerId, TenantId};
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
    /// Holds the tenant against what this machine has met; with no `root`, there is no memory.
    ///
    /// # Errors
    /// [`Error::Damaged`] if another tenant shows where one was met, and nothing proves that it is
    /// genuine.
    pub(super) fn check(&self, root: Option<&Path>) -> Result<Option<Memory>> {
        let Some(root) = root else { return Ok(None) };
        let folder = root.join(MET);
        let place = blake3::hash(format!("{}\0{}", self.place, self.name).as_bytes());
        let place = folder.join(format!("at-{}", crate::id::to_hex(&place.as_bytes()[..16])));
        let memory = Memory {
            tenant: (folder.join(self.tenant.to_string()), "met".into()),
            place: (place, self.tenant.to_string()),
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
    }
}
