//! What snapshots need: for each blob a copy that can be relied on, and all that
//! it rests on. Reads trees and content lists, each once, and no data.
//!
//! A copy by a full key, or one that a full key vouched for, is relied on alone.
//! Of a blob that only writers have indexed every copy is needed: one of them may
//! have named it in a pack that does not hold it. Of copies that are relied on
//! those in packs that stay are taken before those in condemned ones.

use crate::crypto::stack;
use crate::error::{Error, Result};
use crate::format::content::{Content, Extent};
use crate::format::node::{Kind, decode_segment};
use crate::format::pack::{BlobKind, Frame};
use crate::id::{BaseId, BlobId};
use crate::index::{BlobCopy, EntryNumber, Hint};
use crate::limits;
use crate::monitor::Monitor;
use crate::repo::Repository;
use crate::snapshot::Snapshot;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// What an entry of the index is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    /// A full key says what the pack holds.
    pub is_trusted: bool,
    /// The pack will be deleted.
    pub is_condemned: bool,
}

/// Blobs that are needed, a bit for each.
#[derive(Default, Clone)]
pub(super) struct Live {
    entries: HashMap<EntryNumber, Entry>,
}

#[derive(Clone)]
struct Entry {
    /// For each frame the number of its first blob, and at the end that of all.
    firsts: Vec<u32>,
    bits: Vec<u64>,
}

impl Entry {
    fn is_set(&self, blob: u32) -> bool {
        self.bits.get(blob as usize / 64).is_some_and(|word| word & (1 << (blob % 64)) != 0)
    }

    fn blobs(&self, frame: u32) -> std::ops::Range<u32> {
        let at = |n: usize| self.firsts.get(n).copied().unwrap_or_default();
        at(frame as usize)..at(frame as usize + 1)
    }
}

impl Live {
    /// Which blobs of a frame are needed, in order; nothing where none is.
    pub fn of_frame(&self, entry: EntryNumber, frame: u32) -> Vec<bool> {
        let Some(entry) = self.entries.get(&entry) else { return Vec::new() };
        let bits: Vec<bool> = entry.blobs(frame).map(|blob| entry.is_set(blob)).collect();
        if bits.contains(&true) { bits } else { Vec::new() }
    }

    /// Entries of which something is needed.
    pub fn entries(&self) -> impl Iterator<Item = EntryNumber> {
        self.entries.keys().copied()
    }

    /// Notes that a copy is needed; true if nothing of its frame was before.
    fn add(&mut self, repo: &Repository, copy: &BlobCopy) -> Result<bool> {
        let entry = match self.entries.entry(copy.entry()) {
            std::collections::hash_map::Entry::Occupied(there) => there.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => {
                let map = repo.index().pack(copy.entry())?;
                let map = map.ok_or_else(unsure)?;
                let mut firsts = vec![0u32];
                let mut count = 0;
                for (_, frame) in map.frames() {
                    count += frame.lens.len() as u32;
                    firsts.push(count);
                }
                place.insert(Entry { firsts, bits: vec![0; count as usize / 64 + 1] })
            }
        };
        let blobs = entry.blobs(copy.frame_number());
        // What would not be noted would be deleted.
        if blobs.len() != copy.frame().lens.len() {
            return Err(unsure());
        }
        let is_first = !blobs.clone().any(|blob| entry.is_set(blob));
        let mut begin = 0;
        let mut is_noted = false;
        for (blob, len) in blobs.zip(&copy.frame().lens) {
            // A blob of no length lies where the next one begins: both are taken.
            if begin == copy.at()
                && let Some(word) = entry.bits.get_mut(blob as usize / 64)
            {
                *word |= 1 << (blob % 64);
                is_noted = true;
            }
            begin += len;
        }
        if is_noted { Ok(is_first) } else { Err(unsure()) }
    }
}

/// The error of an index on this machine that says two things of one pack.
fn unsure() -> Error {
    Error::Busy { what: "the index on this machine".into() }
}

/// Walks snapshots, and notes what they need.
pub(super) struct Walk<'r> {
    repo: &'r Repository,
    monitor: &'r dyn Monitor,
    /// Entries whose packs are listed with the size that they had.
    standing: HashMap<EntryNumber, Standing>,
    pub live: Live,
    /// Trees and lists that were walked.
    walked: HashSet<BlobId>,
    /// Delta frames of which is known whether they stand on what is there: by condemned packs too, or not.
    stand: HashMap<(EntryNumber, u32, bool), bool>,
    hint: Hint,
    /// Entries whose copies are taken before others.
    preferred: HashSet<EntryNumber>,
    /// What copies rest on is left out.
    of_snapshots_alone: bool,
    /// Blobs of which is noted that they were met, and those that were.
    wanted: Option<&'r HashSet<BlobId>>,
    met: HashSet<BlobId>,
}

impl<'r> Walk<'r> {
    /// Over entries that can be read.
    pub fn new(repo: &'r Repository, standing: HashMap<EntryNumber, Standing>, monitor: &'r dyn Monitor) -> Self {
        Self {
            repo,
            monitor,
            standing,
            live: Live::default(),
            walked: HashSet::new(),
            stand: HashMap::new(),
            hint: Hint::default(),
            preferred: HashSet::new(),
            of_snapshots_alone: false,
            wanted: None,
            met: HashSet::new(),
        }
    }

    /// The same, taking copies of these entries before all others.
    pub fn preferring(self, preferred: HashSet<EntryNumber>) -> Self {
        Self { preferred, ..self }
    }

    /// The same, leaving out what copies rest on.
    pub fn of_snapshots_alone(self) -> Self {
        Self { of_snapshots_alone: true, ..self }
    }

    /// The same, noting which of these it meets.
    pub fn looking_for(self, wanted: &'r HashSet<BlobId>) -> Self {
        Self { wanted: Some(wanted), ..self }
    }

    /// Those that it met.
    pub fn met(self) -> HashSet<BlobId> {
        self.met
    }

    /// Notes all that snapshots need. Their roots are read ahead by another thread: what each of them changed lies
    /// in packs of its own, mostly, and to open a pack takes long.
    ///
    /// # Errors
    /// What is missing or damaged: a prune that does not know what is needed deletes nothing.
    pub fn snapshots<'s>(&mut self, snapshots: impl Iterator<Item = &'s Snapshot>) -> Result<()> {
        let roots: Vec<&Content> = snapshots.map(|s| &s.manifest.root).collect();
        let (repo, at) = (self.repo, AtomicUsize::new(0));
        thread::scope(|scope| {
            let (roots, at) = (&roots, &at);
            if roots.len() > 1 {
                scope.spawn(move || stack::wiped(|| read_ahead(repo, roots, at)));
            }
            let walked = roots.iter().enumerate().try_for_each(|(n, root)| {
                at.store(n, Ordering::Relaxed);
                self.snapshot(root)
            });
            at.store(roots.len(), Ordering::Relaxed);
            walked
        })
    }

    fn snapshot(&mut self, root: &Content) -> Result<()> {
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            if self.monitor.cancelled() {
                return Err(Error::Interrupted);
            }
            self.content(BlobKind::Tree, folder, &mut folders)?;
        }
        Ok(())
    }

    fn content(&mut self, kind: BlobKind, content: Content, folders: &mut Vec<Content>) -> Result<()> {
        let mut open: Vec<(u8, Extent)> = content.extents.into_iter().rev().map(|e| (content.level, e)).collect();
        while let Some((level, extent)) = open.pop() {
            let Some(id) = extent.id else { continue };
            let kind = if level > 0 { BlobKind::List } else { kind };
            if kind == BlobKind::Chunk {
                self.need(kind, &id)?;
                continue;
            }
            if !self.walked.insert(id) {
                continue;
            }
            self.need(kind, &id)?;
            let bytes = self.repo.blob(kind, &id)?;
            if kind == BlobKind::List {
                let list = Content::decode(&bytes).map_err(|e| e.of(format!("content list {id}")))?;
                if list.level + 1 != level {
                    return Err(Error::damaged(format!("content list {id}"), "it does not fit where it stands"));
                }
                open.extend(list.extents.into_iter().rev().map(|e| (list.level, e)));
                continue;
            }
            for node in decode_segment(&bytes).map_err(|e| e.of(format!("tree {id}")))? {
                match node.kind {
                    Kind::Dir => folders.push(node.content),
                    Kind::File => self.content(BlobKind::Chunk, node.content, folders)?,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn need(&mut self, kind: BlobKind, id: &BlobId) -> Result<()> {
        let repo = self.repo;
        if self.wanted.is_some_and(|wanted| wanted.contains(id)) {
            self.met.insert(*id);
        }
        if !self.preferred.is_empty() && self.take_preferred(&repo.index().copies(id)?)? {
            return Ok(());
        }
        let mut hint = std::mem::take(&mut self.hint);
        let found = repo.index().find(id, &mut hint, |copy| self.is_best(copy));
        self.hint = hint;
        if let Some(copy) = found? {
            return self.take(&copy);
        }
        let mut copies = repo.index().copies(id)?;
        if copies.is_empty() && repo.index().renew()? {
            copies = repo.index().copies(id)?;
        }
        if self.take_of(&copies)? { Ok(()) } else { Err(self.lost(copies.first(), || repo.unindexed(kind, id))) }
    }

    fn need_base(&mut self, above: &Frame, id: &BaseId) -> Result<()> {
        let mut copies = self.repo.index().base_copies(id)?;
        copies.retain(|copy| copy.depth() < above.depth);
        if self.take_preferred(&copies)? || self.take_of(&copies)? {
            return Ok(());
        }
        Err(self.lost(copies.first(), || self.repo.unindexed(above.kind, id)))
    }

    fn lost(&self, copy: Option<&BlobCopy>, unindexed: impl FnOnce() -> Error) -> Error {
        match copy {
            Some(copy) => Error::Missing { object: self.repo.names().pack(&copy.pack()) },
            None => unindexed(),
        }
    }

    /// Takes one copy that a full key answers for, in a pack that stays if there is one; or else all that there
    /// are. False if there is none.
    fn take_of(&mut self, copies: &[BlobCopy]) -> Result<bool> {
        for with_condemned in [false, true] {
            for copy in copies {
                let is_trusted = self.standing.get(&copy.entry()).is_some_and(|standing| standing.is_trusted);
                if is_trusted && self.stands(copy, with_condemned)? {
                    self.take(copy)?;
                    return Ok(true);
                }
            }
        }
        let mut is_there = false;
        for copy in copies {
            if self.stands(copy, true)? {
                self.take(copy)?;
                is_there = true;
            }
        }
        Ok(is_there)
    }

    fn take_preferred(&mut self, copies: &[BlobCopy]) -> Result<bool> {
        for copy in copies.iter().filter(|copy| self.preferred.contains(&copy.entry())).cloned().collect::<Vec<_>>() {
            if self.stands(&copy, false)? {
                self.take(&copy)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn take(&mut self, copy: &BlobCopy) -> Result<()> {
        if self.live.add(self.repo, copy)? && !self.of_snapshots_alone {
            let frame = copy.frame().clone();
            for base in &frame.bases {
                self.need_base(&frame, base)?;
            }
        }
        Ok(())
    }

    /// True for a copy that a full key answers for, in a pack that stays, on what stays.
    fn is_best(&self, copy: &BlobCopy) -> Result<bool> {
        let Some(standing) = self.standing.get(&copy.entry()) else { return Ok(false) };
        if !standing.is_trusted || standing.is_condemned {
            return Ok(false);
        }
        // Others are looked at one by one.
        Ok(copy.depth() == 0 || self.stand.get(&(copy.entry(), copy.frame_number(), false)) == Some(&true))
    }

    /// True if a copy's pack is there, and all that it rests on. Depths strictly descend, so no circle makes
    /// itself stand.
    fn stands(&mut self, copy: &BlobCopy, with_condemned: bool) -> Result<bool> {
        let Some(standing) = self.standing.get(&copy.entry()) else { return Ok(false) };
        if standing.is_condemned && !with_condemned {
            return Ok(false);
        }
        if copy.depth() == 0 {
            return Ok(true);
        }
        let name = (copy.entry(), copy.frame_number(), with_condemned);
        if let Some(known) = self.stand.get(&name) {
            return Ok(*known);
        }
        let stands = self.bases_stand(copy, with_condemned)?;
        self.stand.insert(name, stands);
        Ok(stands)
    }

    fn bases_stand(&mut self, copy: &BlobCopy, with_condemned: bool) -> Result<bool> {
        let mut plain = 0;
        for base in &copy.frame().bases {
            let mut size = None;
            for below in self.repo.index().base_copies(base)? {
                if below.depth() < copy.depth() && self.stands(&below, with_condemned)? {
                    size = Some(below.size() as usize);
                    break;
                }
            }
            let Some(size) = size else { return Ok(false) };
            plain += size;
        }
        // No reader takes more.
        Ok(plain <= limits::FRAME_BASE_PLAIN_MAX)
    }
}

/// Reads roots before the walk comes to them; what fails there fails again for the walk, which tells.
fn read_ahead(repo: &Repository, roots: &[&Content], at: &AtomicUsize) {
    for (n, root) in roots.iter().enumerate() {
        let walked = at.load(Ordering::Relaxed);
        if walked >= roots.len() {
            break;
        }
        let kind = if root.level > 0 { BlobKind::List } else { BlobKind::Tree };
        if n > walked
            && let Some(id) = root.extents.iter().find_map(|extent| extent.id)
            && let Err(e) = repo.blob(kind, &id)
        {
            tracing::debug!("a root could not be read ahead: {e}");
        }
    }
}

/// What a pack's frames are worth, as far as snapshots need them: bytes as they are stored.
pub(super) fn live_bytes(repo: &Repository, live: &Live, entry: EntryNumber) -> Result<u64> {
    let Some(map) = repo.index().pack(entry)? else { return Ok(0) };
    let mut bytes = 0;
    for (number, (_, frame)) in map.frames().iter().enumerate() {
        let needed = live.of_frame(entry, number as u32);
        if needed.is_empty() {
            continue;
        }
        // Of a delta no part can be left out.
        let part: u64 = match frame.depth {
            0 => needed.iter().zip(&frame.lens).filter(|(needed, _)| **needed).map(|(_, len)| u64::from(*len)).sum(),
            _ => frame.plain_len() as u64,
        };
        // Never nothing: of a pack of which nothing is needed nothing is kept.
        bytes += (u64::from(frame.stored) * part / (frame.plain_len() as u64).max(1)).max(1);
    }
    Ok(bytes)
}
