//! What this machine remembers of copies that it has made to a tenant: which snapshot of which other tenant
//! is which one here. A writer key can read no manifest, and knows it by this alone; and of a copy that was
//! forgotten nothing else tells that there was one. Losing it costs a copy made once more, never data.

use super::Repository;
use super::local::closed;
use super::sweep::COPIED;
use crate::error::Error;
use crate::id::{SnapshotId, TenantId};
use crate::index::lock::{Hold, Lock, Part};
use crate::limits;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// A line of the file, closed by a hash: what is damaged or was cut short is as good as lost.
fn line(here: TenantId, original: &SnapshotId, copy: &SnapshotId) -> String {
    let what = format!("{original} {copy}");
    format!("{what} {}\n", closed(&format!("{here} {what}")))
}

fn read(path: &Path, here: TenantId) -> std::io::Result<HashMap<SnapshotId, SnapshotId>> {
    let mut text = Vec::new();
    match File::open(path) {
        Ok(file) => drop(file.take(limits::LOCAL_FILE_MAX).read_to_end(&mut text)?),
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let pair = |found: &[u8]| -> Option<(SnapshotId, SnapshotId)> {
        let found = std::str::from_utf8(found).ok()?;
        let mut words = found.split(' ');
        let (original, copy) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        (line(here, &original, &copy).trim_end() == found).then_some((original, copy))
    };
    Ok(text.split(|byte| *byte == b'\n').filter_map(pair).collect())
}

impl Repository {
    fn copied_file(&self, of: TenantId) -> Option<PathBuf> {
        Some(self.local().path()?.join(format!("{COPIED}{of}")))
    }

    /// The copies that this machine remembers to have made here of another tenant's snapshots: originals, and
    /// their copies. They may have been forgotten since.
    pub fn copied_from(&self, of: TenantId) -> HashMap<SnapshotId, SnapshotId> {
        let Some(path) = self.copied_file(of) else { return HashMap::new() };
        read(&path, self.tenant()).unwrap_or_else(|e| {
            self.local().unusable(&Error::Local { path, why: e.to_string() });
            HashMap::new()
        })
    }

    /// Remembers a copy. It stands, whatever becomes of this machine's memory.
    pub fn remember_copy(&self, of: TenantId, original: &SnapshotId, copy: &SnapshotId) {
        let (Some(path), Some(folder)) = (self.copied_file(of), self.local().path()) else { return };
        let remember = || -> std::io::Result<()> {
            let _lock = Lock::wait(folder, Part::Chains, Hold::Alone)?;
            let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
            // Behind a line that was cut short another one would be lost.
            let begin = if file.metadata()?.len() % LINE == 0 { "" } else { "\n" };
            file.write_all(format!("{begin}{}", line(self.tenant(), original, copy)).as_bytes())
        };
        if let Err(e) = remember() {
            self.local().unusable(&Error::Local { path: path.clone(), why: e.to_string() });
        }
    }
}

/// Two ids, a hash, and what parts them.
const LINE: u64 = 32 + 1 + 32 + 1 + 16 + 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_believed_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("copied");
        let (here, id) = (TenantId([1; 16]), |n: u8| SnapshotId([n; 16]));
        let lines = [line(here, &id(1), &id(2)), line(here, &id(3), &id(4))];
        assert!(lines.iter().all(|line| line.len() as u64 == LINE));
        let whole = lines.concat();
        std::fs::write(&path, &whole).unwrap();
        let all: HashMap<_, _> = [(id(1), id(2)), (id(3), id(4))].into();
        assert_eq!(read(&path, here).unwrap(), all);
        assert!(read(&path, TenantId([2; 16])).unwrap().is_empty(), "another tenant's file says nothing here");
        for at in 0..whole.len() {
            let mut bytes = whole.clone().into_bytes();
            bytes[at] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            let found = read(&path, here).unwrap();
            assert!(found.len() < 2 && found.iter().all(|(a, b)| all.get(a) == Some(b)), "byte {at}: {found:?}");
        }
        assert!(read(&folder.path().join("none"), here).unwrap().is_empty());
    }
}
