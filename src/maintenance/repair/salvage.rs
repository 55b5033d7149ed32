//! Copying what is whole of packs that cannot be mended into new ones: each frame that
//! opens, decodes and hashes to its ids, and holds a blob of which no other copy counts.
//!
//! A frame is copied as it is, with its depth, as a prune does it, and only what lies in
//! no copy of that depth or less that counts. So whatever rested on it finds all that it
//! rests on, in what stays or in what is copied: by depth, from the plain frames up.
//!
//! A session is announced meanwhile, and a record says before that the packs are damaged:
//! what is copied and not yet indexed no prune takes for left over, and a plan that comes
//! up waits. Like a session's own, copies that no index object names yet, and blobs that
//! stand twice, are all that a crash leaves.

use crate::error::{Error, Result};
use crate::format::pack::Frame;
use crate::id::{BlobId, PackName};
use crate::index::EntryNumber;
use crate::limits;
use crate::maintenance::prune::copy::Parts;
use crate::maintenance::sound::Sound;
use crate::monitor::{Event, Monitor};
use crate::repo::{Decoded, Fate, FrameNumber, Reading, Repository, Session, TakeFrame, Trust};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a session is called that nobody's backup is.
const HOST: &str = "repair";

/// Packs that cannot be mended, and whether something of each is there.
pub(super) type Sick = BTreeMap<PackName, bool>;

/// What was copied, and what is lost.
#[derive(Default)]
pub(super) struct Salvaged {
    /// Bytes of new packs.
    pub bytes: u64,
    /// Blobs of which no whole copy is left.
    pub lost_blobs: u64,
    /// The packs that the index names still: a prune may have written anew what was needed of others.
    pub named: HashSet<PackName>,
    frames: BTreeMap<PackName, Tally>,
}

#[derive(Default)]
struct Tally {
    copied: HashSet<u32>,
    lost: HashSet<u32>,
}

impl Salvaged {
    /// Frames of a pack that were copied, and those that are lost with something that lay nowhere else.
    pub fn of(&self, pack: &PackName) -> (u64, u64) {
        let count = |tally: &Tally| (tally.copied.len() as u64, tally.lost.difference(&tally.copied).count() as u64);
        self.frames.get(pack).map(count).unwrap_or_default()
    }
}

/// Copies what is whole of these packs; only finds out what that is, if `is_dry`.
///
/// # Errors
/// [`Error::Fenced`] if a prune gave the session up meanwhile, [`Error::Interrupted`], or the store's.
pub(super) fn salvage(repo: &Repository, sick: &Sick, is_dry: bool, monitor: &dyn Monitor) -> Result<Salvaged> {
    let named = entries_of(repo, sick)?;
    if named.is_empty() {
        return Ok(Salvaged::default());
    }
    if is_dry || !named.iter().any(|(name, _)| sick.get(name) == Some(&true)) {
        // What a prune has replaced since is not missing.
        repo.sync_index()?;
        let (work, copies) = (Work::new(repo, sick, None, monitor)?, Copies::new(repo, sick)?);
        work.copy(&copies, &|_| Ok(()))?;
        return work.outcome(&copies, 0);
    }
    let session = Session::begin(repo, HOST)?;
    let copied = copied(repo, sick, &session, monitor);
    let fate = repo.fate(&session.id());
    let id = session.id();
    session.abandon();
    let copied = copied?;
    match fate? {
        Fate::Ended => Err(Error::Fenced { session: id.to_string() }),
        _ => Ok(copied),
    }
}

fn copied(repo: &Repository, sick: &Sick, session: &Session<'_>, monitor: &dyn Monitor) -> Result<Salvaged> {
    let (work, copies) = (Work::new(repo, sick, Some(session), monitor)?, Copies::new(repo, sick)?);
    let packed = repo.store_frames(|store| work.copy(&copies, store))?;
    work.outcome(&copies, packed.bytes)
}

/// The entries that name these packs; the oldest first, since what others rest on lies there.
fn entries_of(repo: &Repository, sick: &Sick) -> Result<Vec<(PackName, EntryNumber)>> {
    let known = repo.index().packs()?.into_iter().filter(|pack| sick.contains_key(&pack.name));
    let mut entries: Vec<(PackName, EntryNumber)> = known.map(|pack| (pack.name, pack.number)).collect();
    entries.sort_unstable_by_key(|(_, number)| *number);
    Ok(entries)
}

/// What is known against copies that lie elsewhere.
struct Copies<'r> {
    repo: &'r Repository,
    /// Those that do not count for a backup.
    counting: Sound,
    /// Those that are not there.
    there: Sound,
}

impl<'r> Copies<'r> {
    fn new(repo: &'r Repository, sick: &Sick) -> Result<Self> {
        let condemned: HashSet<PackName> = repo.plans()?.in_force.into_iter().flat_map(|p| p.condemned).collect();
        let known = repo.index().packs()?;
        let listed: HashMap<PackName, u64> = repo.list_packs()?.into_iter().collect();
        let (vouched, recorded) = (repo.vouched()?, repo.known_damage()?.packs);
        let (mut counting, mut there) = (Sound::default(), Sound::default());
        for pack in known {
            let is_there = listed.get(&pack.name) == Some(&pack.size) && !sick.contains_key(&pack.name);
            let is_trusted = repo.is_full(&pack.signer) || vouched.contains(&pack.vouched());
            if !is_there {
                there.gone.insert(pack.number);
            }
            if !is_there || !is_trusted || condemned.contains(&pack.name) || recorded.contains(&pack.name) {
                counting.gone.insert(pack.number);
            }
        }
        Ok(Self { repo, counting, there })
    }

    /// Which blobs of a frame have no copy that counts of its depth or less.
    fn needed(&self, frame: &Frame) -> Result<Vec<bool>> {
        let mut needed = Vec::with_capacity(frame.ids.len());
        for id in &frame.ids {
            needed.push(!self.holds(&self.counting, id, frame.depth)?);
        }
        Ok(needed)
    }

    fn holds(&self, sound: &Sound, id: &BlobId, depth: u8) -> Result<bool> {
        for copy in self.repo.index().copies(id)? {
            if copy.depth() <= depth && sound.fault(self.repo, &copy)?.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

struct Work<'w> {
    repo: &'w Repository,
    sick: &'w Sick,
    entries: Vec<(PackName, EntryNumber)>,
    session: Option<&'w Session<'w>>,
    monitor: &'w dyn Monitor,
    /// Blobs that were copied, with the least depth at which they were.
    done: Mutex<HashMap<BlobId, u8>>,
    frames: Mutex<BTreeMap<PackName, Tally>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'w> Work<'w> {
    fn new(
        repo: &'w Repository,
        sick: &'w Sick,
        session: Option<&'w Session<'w>>,
        monitor: &'w dyn Monitor,
    ) -> Result<Self> {
        let (done, frames) = Default::default();
        Ok(Self { repo, sick, entries: entries_of(repo, sick)?, session, monitor, done, frames })
    }

    /// Gives `store` every frame that is whole and needed.
    fn copy(&self, copies: &Copies<'_>, store: &TakeFrame<'_>) -> Result<()> {
        self.monitor.event(Event::Phase { name: "copying what is whole", total_bytes: None });
        let parts = Parts::new(self.repo, store);
        let mut batch = Batch::default();
        for (_, entry) in &self.entries {
            self.plan(copies, &mut batch, *entry)?;
            if batch.reading.len() >= limits::READ_BATCH_FRAMES || batch.blobs >= limits::CHECK_BATCH_BLOBS {
                self.read(std::mem::take(&mut batch), &parts)?;
            }
        }
        self.read(batch, &parts)?;
        parts.finish()
    }

    /// Plans the frames of an entry of which something is needed.
    fn plan(&self, copies: &Copies<'_>, batch: &mut Batch, entry: EntryNumber) -> Result<()> {
        let map = self.repo.index().pack(entry)?;
        let map = map.ok_or_else(|| Error::Busy { what: "the index on this machine".into() })?;
        let is_there = self.sick.get(&map.name) == Some(&true);
        for (number, (offset, frame)) in (0..).zip(map.frames()) {
            let needed = copies.needed(frame)?;
            if !needed.contains(&true) {
                continue;
            }
            let planned = match is_there {
                true => batch.reading.need_frame(self.repo, (entry, map.name), (number, *offset), frame)?,
                false => None,
            };
            match planned {
                Some(planned) => {
                    batch.blobs += needed.len();
                    batch.wanted.insert(planned, (frame.clone(), needed));
                }
                None => self.note(&map.name, |tally| &mut tally.lost, number),
            }
        }
        Ok(())
    }

    fn read(&self, batch: Batch, parts: &Parts<'_>) -> Result<()> {
        let Batch { reading, wanted, .. } = batch;
        reading.run(self.repo, Trust::Bases, self.monitor, &|number, decoded| {
            // What nobody needs here is read as a base only.
            let (Some((frame, needed)), Some(planned)) = (wanted.get(&number), reading.planned(number)) else {
                return Ok(());
            };
            if let Some(session) = self.session {
                session.renew_if_due()?;
            }
            let (pack, number) = (planned.pack(), planned.number());
            let is_whole = match decoded {
                Ok(decoded) => self.take(frame, needed, &decoded, parts)?,
                Err(e) if e.is_damage() => false,
                Err(e) => return Err(e),
            };
            self.note(&pack, |tally| if is_whole { &mut tally.copied } else { &mut tally.lost }, number);
            Ok(())
        })
    }

    /// Stores what is needed of a frame and hashes to its ids; false if not all does.
    fn take(&self, frame: &Frame, needed: &[bool], decoded: &Decoded<'_>, parts: &Parts<'_>) -> Result<bool> {
        let mut begin = 0;
        let (mut takes, mut is_whole) = (Vec::with_capacity(needed.len()), true);
        {
            let done = lock(&self.done);
            for ((len, id), needed) in frame.lens.iter().zip(&frame.ids).zip(needed) {
                let end = begin + *len as usize;
                let blob = decoded.plain.get(begin..end).unwrap_or_default();
                begin = end;
                let is_right = self.repo.id_keys().blob_id(frame.kind, blob) == *id;
                is_whole &= is_right || !needed;
                // Another entry of the same pack may have brought it.
                takes.push(*needed && is_right && done.get(id).is_none_or(|depth| *depth > frame.depth));
            }
        }
        if takes.contains(&true) {
            parts.frame(frame, &takes, decoded, &String::new)?;
            let mut done = lock(&self.done);
            for (id, _) in frame.ids.iter().zip(&takes).filter(|(_, takes)| **takes) {
                let depth = done.entry(*id).or_insert(frame.depth);
                *depth = frame.depth.min(*depth);
            }
        }
        Ok(is_whole)
    }

    fn note(&self, pack: &PackName, of: impl Fn(&mut Tally) -> &mut HashSet<u32>, frame: u32) {
        of(lock(&self.frames).entry(*pack).or_default()).insert(frame);
    }

    /// What came of it, once it is stored.
    fn outcome(self, copies: &Copies<'_>, bytes: u64) -> Result<Salvaged> {
        let done = lock(&self.done);
        let mut lost: HashSet<BlobId> = HashSet::new();
        for (_, entry) in &self.entries {
            let Some(map) = self.repo.index().pack(*entry)? else { continue };
            for (id, _) in map.places() {
                if !done.contains_key(id) && !lost.contains(id) && !copies.holds(&copies.there, id, u8::MAX)? {
                    lost.insert(*id);
                }
            }
        }
        drop(done);
        let frames = self.frames.into_inner().unwrap_or_else(PoisonError::into_inner);
        let named = self.entries.iter().map(|(name, _)| *name).collect();
        Ok(Salvaged { bytes, lost_blobs: lost.len() as u64, named, frames })
    }
}

/// Frames that are read together, and which blobs of them are needed.
#[derive(Default)]
struct Batch {
    reading: Reading,
    wanted: HashMap<FrameNumber, (Frame, Vec<bool>)>,
    blobs: usize,
}
