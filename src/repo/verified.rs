//! When checks on this machine last read each pack, so that checks of a part
//! come around to all of them. One small file; where it is lost or damaged, packs
//! are read sooner than need be. Says nothing of what a check found.

use super::LocalFolder;
use super::local::write_replacing;
use super::sweep::{HASHED, VERIFIED};
use crate::error::{Error, Result};
use crate::id::PackName;
use crate::index::lock::{Hold, Lock, Part};
use crate::limits;
use std::collections::{HashMap, HashSet};
use std::io::{ErrorKind, Read as _};
use std::path::Path;

/// What a pack is known by here: the begin of its name.
type Mark = [u8; 16];
/// A mark and two times.
const ROW: usize = 32;
const SUM: usize = 16;

/// When a pack was read; seconds since 1970, 0 for never.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// When a check last tried to, whatever came of it.
    pub tried: u64,
    /// When one last found it whole.
    pub verified: u64,
}

/// What a check looks at, and so which memory is its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thoroughness {
    /// The bytes, against their hash: what a writer key can do.
    Bytes,
    /// What is in them too.
    Content,
}

/// When each pack was last read.
#[derive(Debug, Default)]
pub struct Verified(HashMap<Mark, Times>);

fn mark(pack: &PackName) -> Mark {
    first(&pack.0)
}

fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.first_chunk().copied().unwrap_or([0; N])
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(first(bytes))
}

impl Verified {
    /// When a pack was read.
    pub fn of(&self, pack: &PackName) -> Times {
        self.0.get(&mark(pack)).copied().unwrap_or_default()
    }

    /// Notes that a pack was read at this time, and whether it was whole.
    pub fn note(&mut self, pack: &PackName, time: u64, whole: bool) {
        let times = self.0.entry(mark(pack)).or_default();
        times.tried = time;
        if whole {
            times.verified = time;
        }
    }

    /// Of both the later.
    fn merge(&mut self, other: &Self) {
        for (mark, times) in &other.0 {
            let known = self.0.entry(*mark).or_default();
            known.tried = known.tried.max(times.tried);
            known.verified = known.verified.max(times.verified);
        }
    }

    /// Forgets packs that are not there, and beyond the bound those that were read longest ago.
    fn bound(&mut self, there: &HashSet<Mark>) {
        self.0.retain(|mark, _| there.contains(mark));
        let beyond = self.0.len().saturating_sub(limits::VERIFIED_PACKS);
        if beyond > 0 {
            let mut oldest: Vec<(u64, Mark)> = self.0.iter().map(|(mark, times)| (times.tried, *mark)).collect();
            oldest.sort_unstable();
            for (_, mark) in &oldest[..beyond] {
                self.0.remove(mark);
            }
        }
    }

    fn encode(&self, folder: &LocalFolder) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.len() * ROW + SUM);
        for (mark, times) in &self.0 {
            bytes.extend(mark);
            bytes.extend(times.tried.to_le_bytes());
            bytes.extend(times.verified.to_le_bytes());
        }
        let sum = folder.sum(&bytes);
        bytes.extend(sum);
        bytes
    }

    /// Nothing, if the bytes are damaged or another tenant's. A time that is yet to come is a wrong clock's.
    fn decode(folder: &LocalFolder, bytes: &[u8], now: u64) -> Self {
        let Some((rows, sum)) = bytes.split_last_chunk::<SUM>() else { return Self::default() };
        let (rows, []) = rows.as_chunks::<ROW>() else { return Self::default() };
        if *sum != folder.sum(rows.as_flattened()) {
            return Self::default();
        }
        let past = |time: u64| if time > now { 0 } else { time };
        let read = |row: &[u8; ROW]| {
            (first(row), Times { tried: past(number(&row[16..])), verified: past(number(&row[24..])) })
        };
        Self(rows.iter().map(read).collect())
    }
}

impl LocalFolder {
    fn sum(&self, rows: &[u8]) -> [u8; SUM] {
        let (repository, tenant) = self.ids();
        let mut hasher = blake3::Hasher::new();
        hasher.update(repository.as_bytes()).update(tenant.as_bytes()).update(rows);
        let mut sum = [0; SUM];
        hasher.finalize_xof().fill(&mut sum);
        sum
    }

    /// When each pack was last read; `now` in seconds since 1970.
    pub fn verified(&self, depth: Thoroughness, now: u64) -> Verified {
        let Some(folder) = self.path() else { return Verified::default() };
        match read(&folder.join(file(depth))) {
            Ok(bytes) => Verified::decode(self, &bytes, now),
            Err(e) => {
                self.unusable(&e);
                Verified::default()
            }
        }
    }

    /// Remembers it, beside what other processes have noted meanwhile, for the packs that are there.
    pub fn keep_verified<'p>(
        &self,
        depth: Thoroughness,
        seen: &Verified,
        there: impl Iterator<Item = &'p PackName>,
        now: u64,
    ) {
        let Some(folder) = self.path() else { return };
        let path = folder.join(file(depth));
        let keep = || -> Result<()> {
            let failed = |e: std::io::Error| Error::Local { path: path.clone(), why: e.to_string() };
            let _lock = Lock::wait(folder, Part::Seen, Hold::Alone).map_err(failed)?;
            let mut all = Verified::decode(self, &read(&path)?, now);
            all.merge(seen);
            all.bound(&there.map(mark).collect());
            write_replacing(&path, &all.encode(self)).map_err(failed)
        };
        if let Err(e) = keep() {
            self.unusable(&e);
        }
    }
}

fn file(depth: Thoroughness) -> &'static str {
    match depth {
        Thoroughness::Bytes => HASHED,
        Thoroughness::Content => VERIFIED,
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let failed = |e: std::io::Error| Error::Local { path: path.to_path_buf(), why: e.to_string() };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed(e)),
    };
    let mut bytes = Vec::new();
    file.take((limits::VERIFIED_PACKS * ROW + SUM) as u64).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{RepositoryId, TenantId};

    const NOW: u64 = 1_800_000_000;

    fn folder(root: &Path, tenant: u8) -> LocalFolder {
        let name = format!("t{tenant}");
        LocalFolder::new(Some(root), RepositoryId([1; 16]), &name, TenantId([tenant; 16])).unwrap()
    }

    fn pack(n: u8) -> PackName {
        PackName([n; 32])
    }

    #[test]
    fn what_was_noted_is_known_again_for_the_packs_that_are_there() {
        let root = tempfile::tempdir().unwrap();
        let folder = folder(root.path(), 1);
        let there = [pack(1), pack(2)];
        let mut first = Verified::default();
        first.note(&pack(1), NOW - 9, true);
        first.note(&pack(3), NOW - 9, true);
        folder.keep_verified(Thoroughness::Content, &first, there.iter(), NOW);
        // Another process knew nothing of it.
        let mut second = Verified::default();
        second.note(&pack(1), NOW - 5, false);
        second.note(&pack(2), NOW - 5, true);
        folder.keep_verified(Thoroughness::Content, &second, there.iter(), NOW);
        let known = folder.verified(Thoroughness::Content, NOW);
        assert_eq!(known.of(&pack(1)), Times { tried: NOW - 5, verified: NOW - 9 });
        assert_eq!(known.of(&pack(2)), Times { tried: NOW - 5, verified: NOW - 5 });
        assert_eq!(known.of(&pack(3)), Times::default());
        assert_eq!(folder.verified(Thoroughness::Bytes, NOW).of(&pack(1)), Times::default(), "it is less");
        // A clock that ran ahead must not put a pack off until its time has come.
        assert_eq!(
            folder.verified(Thoroughness::Content, NOW - 6).of(&pack(1)),
            Times { tried: 0, verified: NOW - 9 }
        );
        assert_eq!(folder.take_warnings(), Vec::<String>::new());
    }

    #[test]
    fn a_damaged_memory_and_another_tenants_are_lost_ones() {
        let root = tempfile::tempdir().unwrap();
        let (own, other) = (folder(root.path(), 1), folder(root.path(), 2));
        let mut seen = Verified::default();
        seen.note(&pack(1), NOW, true);
        own.keep_verified(Thoroughness::Content, &seen, [pack(1)].iter(), NOW);
        let path = |folder: &LocalFolder| folder.path().unwrap().join(VERIFIED);
        let whole = std::fs::read(path(&own)).unwrap();
        std::fs::write(path(&other), &whole).unwrap();
        assert_eq!(other.verified(Thoroughness::Content, NOW).of(&pack(1)), Times::default());
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 4;
            std::fs::write(path(&own), &bytes).unwrap();
            assert_eq!(own.verified(Thoroughness::Content, NOW).of(&pack(1)), Times::default(), "byte {at}");
            std::fs::write(path(&own), &whole[..at]).unwrap();
            assert_eq!(own.verified(Thoroughness::Content, NOW).of(&pack(1)), Times::default(), "cut at {at}");
        }
        own.keep_verified(Thoroughness::Content, &seen, [pack(1)].iter(), NOW);
        assert_eq!(own.verified(Thoroughness::Content, NOW).of(&pack(1)).verified, NOW, "and is made again");
    }

    #[test]
    fn nothing_is_kept_where_there_is_no_place() {
        let none = LocalFolder::new(None, RepositoryId([1; 16]), "t", TenantId([1; 16])).unwrap();
        let mut seen = Verified::default();
        seen.note(&pack(1), NOW, true);
        none.keep_verified(Thoroughness::Content, &seen, [pack(1)].iter(), NOW);
        assert_eq!(none.verified(Thoroughness::Content, NOW).of(&pack(1)), Times::default());
    }

    #[test]
    fn beyond_the_bound_the_oldest_go() {
        let mut seen = Verified::default();
        let name = |n: usize| {
            let mut name = [0; 32];
            name[..8].copy_from_slice(&n.to_le_bytes());
            PackName(name)
        };
        let all = limits::VERIFIED_PACKS + 2;
        (0..all).for_each(|n| seen.note(&name(n), n as u64 + 1, true));
        seen.bound(&(0..all).map(|n| mark(&name(n))).collect());
        assert_eq!(seen.0.len(), limits::VERIFIED_PACKS);
        assert_eq!((seen.of(&name(1)).tried, seen.of(&name(2)).tried), (0, 3));
    }
}
