//! Shorter chains: which frames are worth resting on less, and on what instead. A frame of a source's newest
//! snapshot that lies deeper than it should is rested further down the same chain, or on nothing. One that
//! rests on frames of which no snapshot needs anything itself is rested below those, if what it grows by is no
//! more than its share of them: with the last that rests on them, they go.

use super::super::live::{Live, Standing, Walk};
use super::{Optimise, Rewritten, Writing};
use crate::error::{Error, Result};
use crate::format::pack::Frame;
use crate::id::{BlobId, SignerId};
use crate::index::{BlobCopy, EntryNumber};
use crate::limits;
use crate::monitor::Monitor;
use crate::repo::{Counting, FrameSet, Rebase, Repository};
use crate::snapshot::Snapshot;
use std::collections::HashMap;

/// A frame by its pack's entry and its number there.
type Name = (EntryNumber, u32);

/// A frame that is to be written anew.
struct Task {
    name: Name,
    /// It lies deeper than it should; else it is only rested elsewhere if that is worth it.
    is_deep: bool,
    /// Bytes that become free if it rests on none that only serves; its share of them.
    frees: u64,
}

/// What was found.
pub(super) struct Found {
    tasks: Vec<Task>,
    /// What snapshots themselves need.
    direct: Live,
    /// Frames that only serve others.
    serving: FrameSet,
}

impl Found {
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }
}

/// The newest snapshot of each source: of who signed it, where and of what.
fn newest(snapshots: &[Snapshot]) -> impl Iterator<Item = &Snapshot> {
    let mut newest: HashMap<(SignerId, &str, &[Vec<u8>]), &Snapshot> = HashMap::new();
    for snapshot in snapshots {
        // In the order of their times: the last one stays.
        newest.insert((snapshot.signer, &snapshot.manifest.host, &snapshot.manifest.source), snapshot);
    }
    newest.into_values()
}

/// Finds frames that are worth writing anew.
pub(super) fn find(
    repo: &Repository,
    snapshots: &[Snapshot],
    standing: &HashMap<EntryNumber, Standing>,
    options: Optimise,
    monitor: &dyn Monitor,
) -> Result<Found> {
    let mut walk = Walk::new(repo, standing.clone(), monitor).of_snapshots_alone();
    walk.snapshots(newest(snapshots))?;
    let of_newest = walk.live.clone();
    walk.snapshots(snapshots.iter())?;
    let direct = walk.live;
    let mut all = Walk::new(repo, standing.clone(), monitor);
    all.snapshots(snapshots.iter())?;
    let mut found = Found { tasks: Vec::new(), direct, serving: FrameSet::default() };
    let mut entries: Vec<EntryNumber> = all.live.entries().collect();
    entries.sort_unstable();
    // What only serves, and how many rest on it.
    let mut serving: HashMap<Name, (u64, u64)> = HashMap::new();
    each_delta(repo, &entries, |name, frame| {
        if !all.live.of_frame(name.0, name.1).is_empty() && found.direct.of_frame(name.0, name.1).is_empty() {
            found.serving.insert(name.0, name.1);
            serving.insert(name, (u64::from(frame.stored), 0));
        }
        Ok(())
    })?;
    each_delta(repo, &entries, |name, frame| {
        if !all.live.of_frame(name.0, name.1).is_empty() {
            for base in on_serving(repo, frame, standing, &found.serving)? {
                serving.entry(base).and_modify(|(_, rest)| *rest += 1);
            }
        }
        Ok(())
    })?;
    each_delta(repo, &entries, |name, frame| {
        if found.direct.of_frame(name.0, name.1).is_empty() {
            return Ok(());
        }
        let is_deep = frame.depth > options.deepest && !of_newest.of_frame(name.0, name.1).is_empty();
        let below = on_serving(repo, frame, standing, &found.serving)?;
        let frees =
            below.iter().filter_map(|base| serving.get(base)).map(|(stored, rest)| stored / rest.max(&1)).sum();
        if is_deep || frees > 0 {
            found.tasks.push(Task { name, is_deep, frees });
        }
        Ok(())
    })?;
    Ok(found)
}

fn each_delta(
    repo: &Repository,
    entries: &[EntryNumber],
    mut take: impl FnMut(Name, &Frame) -> Result<()>,
) -> Result<()> {
    for entry in entries {
        let Some(map) = repo.index().pack(*entry)? else { continue };
        for (number, (_, frame)) in map.frames().iter().enumerate().filter(|(_, (_, frame))| frame.depth > 0) {
            take((*entry, number as u32), frame)?;
        }
    }
    Ok(())
}

/// The frames right below one that only serve others.
fn on_serving(
    repo: &Repository,
    frame: &Frame,
    standing: &HashMap<EntryNumber, Standing>,
    serving: &FrameSet,
) -> Result<Vec<Name>> {
    let mut names = Vec::new();
    for base in &frame.bases {
        let copies = repo.index().base_copies(base)?;
        let stands = |copy: &&BlobCopy| copy.depth() < frame.depth && standing.contains_key(&copy.entry());
        // Who has another copy rests on none of these.
        if let Some(copy) = copies.iter().find(stands).filter(|copy| serving.holds(copy)) {
            names.push((copy.entry(), copy.frame_number()));
        }
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

impl Found {
    /// Writes them anew.
    pub fn write(
        &self,
        standing: &HashMap<EntryNumber, Standing>,
        options: Optimise,
        writing: &mut Writing<'_>,
        monitor: &dyn Monitor,
    ) -> Result<Rewritten> {
        let repo = writing.repo;
        let counting = Counting::relying_on(standing.keys().copied());
        let mut shallow = Rebase::new(repo, &counting, options.deepest.saturating_sub(1));
        let mut elsewhere = Rebase::new(repo, &counting, limits::FRAME_DEPTH_MAX);
        let may_rest = |copy: &BlobCopy| !self.serving.holds(copy);
        let (mut done, written) = (Rewritten::default(), writing.written);
        for task in &self.tasks {
            if monitor.cancelled() {
                return Err(Error::Interrupted);
            }
            let Some(map) = repo.index().pack(task.name.0)? else { continue };
            let Some((_, frame)) = map.frame(task.name.1) else { continue };
            let needed = self.direct.of_frame(task.name.0, task.name.1);
            let ids: Vec<BlobId> = frame.ids.iter().zip(&needed).filter(|(_, n)| **n).map(|(id, _)| *id).collect();
            let run = writing.run(frame.kind, ids.into_iter())?;
            let before = u64::from(frame.stored) * run.bytes.len() as u64 / (frame.plain_len() as u64).max(1);
            let bases = match (task.is_deep, options.deepest) {
                (true, 0) => None,
                (true, _) => shallow.below(frame, &may_rest)?,
                (false, _) => elsewhere.below(frame, &may_rest)?,
            };
            let delta = writing.delta(&run, bases.as_ref())?;
            let grows_by = |after: usize| (after as u64).saturating_sub(before);
            match delta {
                Some(delta) if task.is_deep || grows_by(delta.payload.len()) <= task.frees => writing.put(delta)?,
                None if task.is_deep => writing.put_plain(&run)?,
                _ => continue,
            }
            writing.read += u64::from(frame.stored);
            done.blobs += run.ids.len() as u64;
            done.plain_bytes += run.bytes.len() as u64;
            done.before_bytes += before;
        }
        writing.flush()?;
        done.after_bytes = writing.written - written;
        Ok(done)
    }
}
