//! What a writer's key stored whole, as deltas of what it replaces. Snapshots of a source are held against the
//! one before, by ids alone, as a backup does that may read; each run of new blobs is compressed against what
//! stood there. All rest on blobs that keep the copies which they have: a run that replaces one which becomes
//! a delta itself rests on what that one rests on.
//!
//! Left alone are blobs that a full snapshot needs, since it promised plain copies of all that it uses, and those
//! on which something rests already.

use super::super::live::{Standing, Walk};
use super::{Optimise, Rewritten, Writing};
use crate::backup::Align;
use crate::error::{Error, Result};
use crate::format::content::Content;
use crate::format::manifest::SnapshotKind;
use crate::format::node::Kind;
use crate::format::pack::BlobKind;
use crate::id::{BaseId, BlobId, SignerId};
use crate::index::EntryNumber;
use crate::limits;
use crate::monitor::Monitor;
use crate::repo::{Counting, Rebase, Repository};
use crate::snapshot::{Folder, Snapshot, leaves};
use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

/// New blobs, and those that stood in their place.
pub(super) struct Run {
    kind: BlobKind,
    ids: Vec<BlobId>,
    replaced: Vec<BlobId>,
}

/// Finds runs that writers stored whole, from the oldest snapshot on.
pub(super) fn find(
    repo: &Repository,
    snapshots: &[Snapshot],
    standing: &HashMap<EntryNumber, Standing>,
    monitor: &dyn Monitor,
) -> Result<Vec<Run>> {
    let mut search = Search { repo, standing, monitor, met: HashSet::new(), runs: Vec::new() };
    let mut last: HashMap<(SignerId, &str, &[Vec<u8>]), &Snapshot> = HashMap::new();
    for snapshot in snapshots {
        let m = &snapshot.manifest;
        let before = last.insert((snapshot.signer, &m.host, &m.source), snapshot);
        if let Some(before) = before.filter(|_| !repo.is_full(&snapshot.signer)) {
            search.folders(&before.manifest.root, &m.root)?;
        }
    }
    let mut runs = search.runs;
    if runs.is_empty() {
        return Ok(runs);
    }
    let mut found: HashSet<BlobId> = runs.iter().flat_map(|run| run.ids.iter().copied()).collect();
    let mut walk = Walk::new(repo, standing.clone(), monitor).of_snapshots_alone().looking_for(&found);
    walk.snapshots(snapshots.iter().filter(|s| s.manifest.kind == SnapshotKind::Full))?;
    for id in walk.met() {
        found.remove(&id);
    }
    let mut names: HashMap<BaseId, BlobId> = found.iter().map(|id| (id.base(), *id)).collect();
    for pack in repo.index().packs()? {
        let Some(map) = repo.index().pack(pack.number)? else { continue };
        for base in map.frames().iter().flat_map(|(_, frame)| &frame.bases) {
            if let Some(id) = names.remove(base) {
                found.remove(&id);
            }
        }
    }
    runs.iter_mut().for_each(|run| run.ids.retain(|id| found.contains(id)));
    runs.retain(|run| !run.ids.is_empty());
    Ok(runs)
}

struct Search<'s> {
    repo: &'s Repository,
    standing: &'s HashMap<EntryNumber, Standing>,
    monitor: &'s dyn Monitor,
    /// Blobs that were looked at: what is new stands in the first snapshot that has it.
    met: HashSet<BlobId>,
    runs: Vec<Run>,
}

impl Search<'_> {
    /// Holds a folder against what it was, and all below it.
    fn folders(&mut self, old: &Content, new: &Content) -> Result<()> {
        let mut open = vec![(old.clone(), new.clone())];
        while let Some((old, new)) = open.pop() {
            if old == new {
                continue;
            }
            if self.monitor.cancelled() {
                return Err(Error::Interrupted);
            }
            self.stream(BlobKind::Tree, &old, &new)?;
            let (mut before, mut now) = (Folder::new(self.repo, &old), Folder::new(self.repo, &new));
            let (mut left, mut right) = (before.next().transpose()?, now.next().transpose()?);
            while let (Some(l), Some(r)) = (&left, &right) {
                match l.name.cmp(&r.name) {
                    Ordering::Less => left = before.next().transpose()?,
                    Ordering::Greater => right = now.next().transpose()?,
                    Ordering::Equal => {
                        match (l.kind, r.kind) {
                            (Kind::Dir, Kind::Dir) => open.push((l.content.clone(), r.content.clone())),
                            (Kind::File, Kind::File) => self.stream(BlobKind::Chunk, &l.content, &r.content)?,
                            _ => {}
                        }
                        (left, right) = (before.next().transpose()?, now.next().transpose()?);
                    }
                }
            }
        }
        Ok(())
    }

    /// Holds a stream against what it was.
    fn stream(&mut self, kind: BlobKind, old: &Content, new: &Content) -> Result<()> {
        if old == new {
            return Ok(());
        }
        let mut align = Align::new(leaves(self.repo, old));
        let (mut run, mut bytes) = (Vec::new(), 0);
        for extent in leaves(self.repo, new) {
            let extent = extent?;
            let Some(id) = extent.id else { continue };
            let is_new = self.met.insert(id) && self.is_whole(&id)?;
            if let Some(replaced) = align.meet(&id, !is_new)? {
                self.take(kind, &mut run, replaced);
                // Both have it.
                bytes = 0;
                continue;
            }
            if is_new {
                if bytes + extent.len > limits::RUN_PLAIN_MAX as u64 {
                    self.take(kind, &mut run, align.guess(bytes));
                    bytes = 0;
                }
                bytes += extent.len;
                run.push(id);
            }
        }
        self.take(kind, &mut run, align.guess(bytes));
        Ok(())
    }

    fn take(&mut self, kind: BlobKind, run: &mut Vec<BlobId>, replaced: Vec<BlobId>) {
        let ids = std::mem::take(run);
        if !ids.is_empty() && !replaced.is_empty() {
            self.runs.push(Run { kind, ids, replaced });
        }
    }

    /// True for a blob of which there are plain copies, and no others.
    fn is_whole(&self, id: &BlobId) -> Result<bool> {
        let mut copies = self.repo.index().copies(id)?;
        copies.retain(|copy| self.standing.contains_key(&copy.entry()));
        Ok(!copies.is_empty() && copies.iter().all(|copy| copy.depth() == 0))
    }
}

/// Writes runs as deltas, where that is worth it.
pub(super) fn write(
    runs: &[Run],
    standing: &HashMap<EntryNumber, Standing>,
    options: Optimise,
    writing: &mut Writing<'_>,
    monitor: &dyn Monitor,
) -> Result<Rewritten> {
    let repo = writing.repo;
    let counting = Counting::relying_on(standing.keys().copied());
    let mut rebase = Rebase::new(repo, &counting, options.deepest.saturating_sub(1));
    // What blobs rest on that are deltas now, and those on which such rest.
    let mut moved: HashMap<BlobId, usize> = HashMap::new();
    let mut below: Vec<Vec<BlobId>> = Vec::new();
    let mut pinned: HashSet<BlobId> = HashSet::new();
    let (mut done, written) = (Rewritten::default(), writing.written);
    for run in runs {
        if monitor.cancelled() {
            return Err(Error::Interrupted);
        }
        let ids = run.ids.iter().filter(|id| !pinned.contains(id) && !moved.contains_key(id)).copied();
        let plain = writing.run(run.kind, ids)?;
        if plain.bytes.len() < limits::RUN_DELTA_MIN {
            continue;
        }
        let mut replaced: Vec<BlobId> = Vec::new();
        for id in &run.replaced {
            let on = moved.get(id).map_or(std::slice::from_ref(id), |at| &below[*at][..]);
            replaced.extend(on.iter().filter(|id| !plain.ids.contains(id)));
        }
        let mut seen = HashSet::new();
        replaced.retain(|id| seen.insert(*id));
        let bases = rebase.on(run.kind, &replaced, plain.bytes.len())?;
        let Some(delta) = writing.delta(&plain, bases.as_ref())? else { continue };
        writing.put(delta)?;
        done.blobs += plain.ids.len() as u64;
        done.plain_bytes += plain.bytes.len() as u64;
        for id in &plain.ids {
            done.before_bytes += share(repo, id)?;
            moved.insert(*id, below.len());
        }
        pinned.extend(replaced.iter().copied());
        below.push(replaced);
    }
    writing.read += done.before_bytes;
    done.after_bytes = writing.written - written;
    Ok(done)
}

/// What a blob takes in its frame, about.
fn share(repo: &Repository, id: &BlobId) -> Result<u64> {
    let copies = repo.index().copies(id)?;
    Ok(copies.first().map_or(0, |copy| {
        u64::from(copy.frame().stored) * u64::from(copy.size()) / (copy.frame().plain_len() as u64).max(1)
    }))
}
