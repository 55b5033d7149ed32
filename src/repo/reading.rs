//! Reading many frames at once: each is fetched and decoded once, on every
//! core, in an order in which bases come before what rests on them. Whoever
//! needs them plans them first, and is shown their plaintexts as they come.
//!
//! A plain frame's place is where it lies; a delta frame's is that of the first
//! plain frame that it rests on, however many deltas lie between. So what
//! belongs to one part of a stream is read at one time, whatever days it is of,
//! and little has to be kept in between: the blobs on which something rests that
//! is still to come. Nothing here is believed: whoever is shown a frame holds its
//! blobs against their ids.

use super::blobs::Failed;
use super::frames::FrameSet;
use super::kept::{FrameNumber, Kept};
use super::sealed::Sealed;
use super::{Repository, side};
use crate::crypto::stack;
use crate::error::{Error, Result};
use crate::format::pack::{Frame, TAG_LEN};
use crate::id::{BaseId, BlobId, PackName};
use crate::index::{BlobCopy, EntryNumber, Hint};
use crate::limits;
use crate::monitor::Monitor;
use crate::pack::Decompressor;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Parts of a plan for each thread: the last ones end at about the same time.
const GROUPS_PER_THREAD: usize = 8;

/// A base: a blob in another frame of the plan.
struct Base {
    frame: FrameNumber,
    at: u32,
    len: u32,
    id: BlobId,
}

/// A frame that is to be read.
pub struct Planned {
    entry: EntryNumber,
    pack: PackName,
    number: u32,
    offset: u64,
    frame: Frame,
    bases: Vec<Base>,
    /// Where the first plain frame below it lies.
    place: (EntryNumber, u64),
}

impl Planned {
    /// The pack's entry.
    pub fn entry(&self) -> EntryNumber {
        self.entry
    }

    /// The pack.
    pub fn pack(&self) -> PackName {
        self.pack
    }

    /// Where it begins in its pack.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The frame's number in its pack.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// What it rests on: frames of the plan, and the blobs in them.
    pub fn bases(&self) -> impl Iterator<Item = (FrameNumber, BlobId)> {
        self.bases.iter().map(|base| (base.frame, base.id))
    }

    /// Its record.
    pub fn frame(&self) -> &Frame {
        &self.frame
    }
}

/// Where a blob is held against its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Where it is used, be it as a base: what is wrong is found where it lies.
    Bases,
    /// Where it is given back; a base that is wrong shows in what rests on it.
    Blobs,
}

/// Frames that are to be read, and all that they rest on.
#[derive(Default)]
pub struct Reading {
    frames: Vec<Planned>,
    numbers: HashMap<(EntryNumber, u32), FrameNumber>,
    plain: u64,
    /// Frames that rest on what the index does not know.
    in_vain: HashSet<(EntryNumber, u32)>,
    /// Frames that are taken before others which hold the same.
    preferred: Option<Arc<FrameSet>>,
    hint: Hint,
}

/// A frame that was read.
pub struct Decoded<'a> {
    /// As its pack holds it, opened and still compressed.
    pub payload: &'a [u8],
    /// Its plaintext.
    pub plain: &'a [u8],
}

/// Called with every frame, or why it cannot be read.
pub type Visit<'v> = dyn Fn(FrameNumber, Result<Decoded<'_>>) -> Result<()> + Sync + 'v;

impl Reading {
    /// Nothing yet; where something has several copies, those in `preferred` are taken before others.
    pub fn preferring(preferred: Option<Arc<FrameSet>>) -> Self {
        Self { preferred, ..Self::default() }
    }

    /// The frames that are taken before others.
    pub fn preferred(&self) -> Option<&Arc<FrameSet>> {
        self.preferred.as_ref()
    }

    /// All frames of the plan.
    pub fn frames(&self) -> &[Planned] {
        &self.frames
    }

    /// Frames so far.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Their plaintexts, bytes.
    pub fn plain_len(&self) -> u64 {
        self.plain
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// A frame of the plan.
    pub fn planned(&self, number: FrameNumber) -> Option<&Planned> {
        self.frames.get(number as usize)
    }

    /// Plans the frame of a copy, and what it rests on; `None` if the index does not know all of that, or
    /// if it is more than any blob may rest on: then [`Repository::blob`] tells why.
    ///
    /// # Errors
    /// The local index's.
    pub fn need(&mut self, repo: &Repository, copy: &BlobCopy) -> Result<Option<FrameNumber>> {
        self.plan(repo, Place::of(copy), copy.frame(), &mut { limits::BLOB_FRAMES_MAX })
    }

    /// The same for a frame of a pack.
    ///
    /// # Errors
    /// See [`Reading::need`].
    pub fn need_frame(
        &mut self,
        repo: &Repository,
        (entry, pack): (EntryNumber, PackName),
        (number, offset): (u32, u64),
        frame: &Frame,
    ) -> Result<Option<FrameNumber>> {
        self.plan(repo, Place { entry, pack, number, offset }, frame, &mut { limits::BLOB_FRAMES_MAX })
    }

    /// Depths strictly descend, so this ends.
    fn plan(&mut self, repo: &Repository, at: Place, frame: &Frame, left: &mut usize) -> Result<Option<FrameNumber>> {
        if let Some(known) = self.numbers.get(&(at.entry, at.number)) {
            return Ok(Some(*known));
        }
        if *left == 0 || self.in_vain.contains(&(at.entry, at.number)) {
            return Ok(None);
        }
        *left -= 1;
        let mut bases: Vec<Base> = Vec::with_capacity(frame.bases.len());
        for id in &frame.bases {
            let Some(base) = self.plan_base(repo, id, frame.depth, left)? else {
                // Unless it was only too much this time.
                if *left > 0 {
                    self.in_vain.insert((at.entry, at.number));
                }
                return Ok(None);
            };
            bases.push(base);
        }
        let places = bases.iter().map(|base| self.frames[base.frame as usize].place);
        let place = places.min().unwrap_or((at.entry, at.offset));
        let number = self.frames.len() as FrameNumber;
        let frame = Frame { ids: Vec::new(), bases: Vec::new(), ..frame.clone() };
        let Place { entry, pack, number: in_pack, offset } = at;
        self.plain += frame.plain_len() as u64;
        self.frames.push(Planned { entry, pack, number: in_pack, offset, frame, bases, place });
        self.numbers.insert((entry, in_pack), number);
        Ok(Some(number))
    }

    /// Plans a base, by its first copy below `depth` of which the index knows all that it rests on: one that
    /// rests on what nobody has must not hide the others.
    fn plan_base(&mut self, repo: &Repository, id: &BaseId, depth: u8, left: &mut usize) -> Result<Option<Base>> {
        let is_below = |copy: &BlobCopy| Ok(copy.depth() < depth);
        let mut first = None;
        if let Some(preferred) = &self.preferred {
            let is_preferred = |copy: &BlobCopy| Ok(copy.depth() < depth && preferred.holds(copy));
            first = repo.index().find_base(id, &mut self.hint, is_preferred)?;
        }
        if first.is_none() {
            first = repo.index().find_base(id, &mut self.hint, is_below)?;
        }
        if first.is_none() {
            first = repo.index().find_base_surely(id, is_below)?;
        }
        let Some(first) = first else { return Ok(None) };
        let base = |frame, copy: &BlobCopy| Base { frame, at: copy.at(), len: copy.size(), id: copy.id() };
        if let Some(below) = self.plan(repo, Place::of(&first), first.frame(), left)? {
            return Ok(Some(base(below, &first)));
        }
        for copy in repo.index().base_copies(id)?.iter().filter(|copy| copy.depth() < depth) {
            if let Some(below) = self.plan(repo, Place::of(copy), copy.frame(), left)? {
                return Ok(Some(base(below, copy)));
            }
        }
        Ok(None)
    }

    /// Reads everything that was planned, and shows each frame once.
    ///
    /// # Errors
    /// The store's, those of `visit`, [`Error::Interrupted`].
    pub fn run(&self, repo: &Repository, trust: Trust, monitor: &dyn Monitor, visit: &Visit<'_>) -> Result<()> {
        let order = self.order();
        let again_left = AtomicUsize::new(self.frames.len() * limits::READ_AGAIN + limits::BLOB_FRAMES_MAX);
        let bases = self.frames.iter().flat_map(|frame| &frame.bases);
        let kept = Kept::new(bases.map(|base| (base.frame, base.at, base.len)));
        let run = Run { plan: self, repo, trust, visit, monitor, kept, failed: Mutex::default(), again_left };
        let cores = thread::available_parallelism().map_or(2, usize::from);
        let is_far = repo.store().is_far();
        thread::scope(|scope| {
            let (groups_tx, groups) = bounded::<&[FrameNumber]>(1);
            let (fetched_tx, fetched) = bounded(limits::FETCHED_AHEAD);
            let mut workers = Vec::new();
            for _ in 0..cores {
                let (groups, fetched, run) = (groups.clone(), fetched.clone(), &run);
                workers.push(scope.spawn(move || {
                    stack::wiped(|| match is_far {
                        true => run.work(fetched.iter().map(Ok)),
                        false => run.work(groups.iter().map(|group| run.fetch(group))),
                    })
                }));
            }
            for _ in 0..if is_far { side::threads(&**repo.store()) } else { 0 } {
                let (groups, fetched, run) = (groups.clone(), fetched_tx.clone(), &run);
                workers.push(scope.spawn(move || stack::wiped(|| run.fetch_ahead(&groups, &fetched))));
            }
            drop((groups, fetched, fetched_tx));
            for group in self.groups(&order, cores) {
                if groups_tx.send(&order[group]).is_err() {
                    break;
                }
            }
            drop(groups_tx);
            let mut outcome = Ok(());
            for worker in workers {
                let ended = worker.join().unwrap_or_else(|_| Err(Error::Invalid("a reading thread panicked".into())));
                outcome = outcome.and(ended);
            }
            outcome
        })
    }

    /// All frames by their places, but none before its bases.
    fn order(&self) -> Vec<FrameNumber> {
        let mut places: Vec<FrameNumber> = (0..self.frames.len() as FrameNumber).collect();
        let frame = |n: &FrameNumber| &self.frames[*n as usize];
        // The deepest first: a chain is read to its end before the next one, and little is kept.
        let key = |n: &FrameNumber| (frame(n).place, Reverse(frame(n).frame.depth), frame(n).entry, frame(n).offset);
        places.sort_unstable_by_key(key);
        let mut order = Vec::with_capacity(places.len());
        let mut is_placed = vec![false; places.len()];
        let mut open = Vec::new();
        for first in places {
            open.push(first);
            while let Some(next) = open.last().copied() {
                let before = open.len();
                if !is_placed[next as usize] {
                    open.extend(frame(&next).bases.iter().map(|base| base.frame).filter(|n| !is_placed[*n as usize]));
                }
                if open.len() == before {
                    open.pop();
                    if !std::mem::replace(&mut is_placed[next as usize], true) {
                        order.push(next);
                    }
                }
            }
        }
        order
    }

    /// Divides the order into parts that are each worth fetching, and none so long that one thread works
    /// while the others wait.
    fn groups(&self, order: &[FrameNumber], threads: usize) -> impl Iterator<Item = Range<usize>> {
        let most = (self.plain as usize / (threads * GROUPS_PER_THREAD))
            .clamp(limits::READ_GROUP_PLAIN_MIN, limits::READ_GROUP_PLAIN);
        let mut begin = 0;
        std::iter::from_fn(move || {
            let (mut stored, mut plain) = (0, 0);
            let mut end = begin;
            while let Some(frame) = order.get(end).map(|n| &self.frames[*n as usize].frame)
                && stored < limits::READ_GROUP
                && plain < most
            {
                stored += frame.stored as usize;
                plain += frame.plain_len();
                end += 1;
            }
            let group = begin..end;
            begin = end;
            (!group.is_empty()).then_some(group)
        })
    }
}

/// Where a frame lies.
struct Place {
    entry: EntryNumber,
    pack: PackName,
    number: u32,
    offset: u64,
}

impl Place {
    fn of(copy: &BlobCopy) -> Self {
        Self { entry: copy.entry(), pack: copy.pack(), number: copy.frame_number(), offset: copy.offset() }
    }
}

struct Run<'r> {
    plan: &'r Reading,
    repo: &'r Repository,
    trust: Trust,
    visit: &'r Visit<'r>,
    monitor: &'r dyn Monitor,
    kept: Kept,
    /// Frames that failed: what rests on one does not try it again.
    failed: Mutex<HashSet<FrameNumber>>,
    /// Frames that may still be decoded once more: whoever writes index entries could make much rest on
    /// more than can be kept.
    again_left: AtomicUsize,
}

/// What a thread decodes with.
struct Hands {
    decompressor: Decompressor,
    /// The last frame's bases: room for the next one's.
    bases: Vec<u8>,
    /// What failed where other copies of bases were looked for.
    failed: Failed,
}

impl Run<'_> {
    /// Decodes groups, and shows their frames.
    fn work(&self, groups: impl Iterator<Item = Result<Sealed>>) -> Result<()> {
        let mut hands = Hands { decompressor: Decompressor::new()?, bases: Vec::new(), failed: Failed::default() };
        for sealed in groups {
            let mut sealed = sealed?;
            for number in sealed.take_group() {
                self.frame(number, &mut sealed, &mut hands)?;
            }
        }
        Ok(())
    }

    fn fetch(&self, group: &[FrameNumber]) -> Result<Sealed> {
        if self.monitor.cancelled() {
            return Err(Error::Interrupted);
        }
        Sealed::fetch(self.repo, self.plan, group)
    }

    /// Fetches what others decode: where a store is far, its answers are waited for beside the work.
    fn fetch_ahead(&self, groups: &Receiver<&[FrameNumber]>, fetched: &Sender<Sealed>) -> Result<()> {
        for group in groups {
            // Whoever decodes has failed, if nobody takes it.
            if fetched.send(self.fetch(group)?).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn planned(&self, number: FrameNumber) -> &Planned {
        &self.plan.frames[number as usize]
    }

    fn object(&self, planned: &Planned) -> String {
        self.repo.names().pack(&planned.pack)
    }

    fn frame(&self, number: FrameNumber, sealed: &mut Sealed, hands: &mut Hands) -> Result<()> {
        let hold = self.kept.hold(number);
        let decoded = self.decode(number, sealed, hands);
        self.kept.release(self.planned(number).bases.iter().map(|base| (base.frame, base.at)));
        if let Ok(decoded) = &decoded {
            self.kept.keep(number, decoded.plain);
        }
        drop(hold);
        match decoded {
            Ok(decoded) => (self.visit)(number, Ok(decoded)),
            Err(e) if e.is_damage() => {
                self.note_failed(number, &e);
                (self.visit)(number, Err(e))
            }
            Err(e) if e.is_frozen() => (self.visit)(number, Err(e)),
            Err(e) => Err(e),
        }
    }

    fn note_failed(&self, number: FrameNumber, e: &Error) {
        // Where no more may be decoded, nothing is known of the frame.
        if e.is_damage() && self.again_left.load(Ordering::Relaxed) > 0 {
            lock(&self.failed).insert(number);
        }
    }

    fn decode<'d>(&self, number: FrameNumber, sealed: &'d mut Sealed, hands: &'d mut Hands) -> Result<Decoded<'d>> {
        let planned = self.planned(number);
        // A base that has to be decoded as well needs room of its own.
        let mut bases = std::mem::take(&mut hands.bases);
        bases.clear();
        self.bases(planned, &mut bases, hands)?;
        hands.bases = bases;
        let damaged = |e| Error::damaged(self.object(planned), format!("frame {} {e}", planned.number));
        let open = |sealed: &mut Sealed| -> Result<()> {
            let key = self.repo.pack_key(planned.entry, &planned.pack)?;
            let bytes = sealed.frame(self.repo, number, planned)?;
            key.payload(planned.number.into(), bytes).map_err(damaged).map(|_| ())
        };
        if let Err(e) = open(sealed) {
            if !e.is_damage() {
                return Err(e);
            }
            let Some(pack) = self.repo.mended(planned.entry, &planned.pack)? else { return Err(e) };
            let mut bytes = pack.sealed(planned.offset, &planned.frame);
            pack.key.payload(planned.number.into(), &mut bytes).map_err(damaged)?;
            sealed.put(number, planned, bytes);
        }
        // Opened in place: what is left of it is its tag.
        let opened = &*sealed.frame(self.repo, number, planned)?;
        let payload = &opened[..opened.len().saturating_sub(TAG_LEN)];
        let plain = hands.decompressor.decode(&planned.frame, payload, &hands.bases).map_err(damaged)?;
        Ok(Decoded { payload, plain })
    }

    /// A base frame that another thread has not come to yet, or that was not kept: decoded here as well, and
    /// kept for all that rest on it.
    fn again(&self, number: FrameNumber, hands: &mut Hands) -> Result<Arc<Vec<u8>>> {
        let planned = self.planned(number);
        if let Some(plain) = self.repo.cached_frame(planned.entry, planned.number) {
            return Ok(plain);
        }
        if lock(&self.failed).contains(&number) {
            return Err(Error::damaged(self.object(planned), format!("frame {} has failed", planned.number)));
        }
        if self.again_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err() {
            let why = format!("frame {} rests on too many others", planned.number);
            return Err(Error::damaged(self.object(planned), why));
        }
        let mut alone = Sealed::default();
        let decoded = self.decode(number, &mut alone, hands).inspect_err(|e| self.note_failed(number, e));
        let plain = Arc::new(decoded?.plain.to_vec());
        self.repo.cache_frame(planned.entry, planned.number, &plain);
        self.kept.keep(number, &plain);
        Ok(plain)
    }

    /// Appends a base that hashes to its id.
    fn base(&self, above: &Planned, base: &Base, plain: &mut Vec<u8>, hands: &mut Hands) -> Result<()> {
        let kind = above.frame.kind;
        let is_sound = |blob: &[u8]| self.trust == Trust::Blobs || self.repo.id_keys().blob_id(kind, blob) == base.id;
        let kept = || self.kept.get(base.frame, base.at, base.len);
        // Another thread that decodes its frame now may keep it.
        let (found, _hold) = match kept() {
            None => {
                let hold = self.kept.hold(base.frame);
                (kept(), Some(hold))
            }
            found => (found, None),
        };
        if let Some(blob) = found.filter(|blob| is_sound(blob)) {
            plain.extend_from_slice(&blob);
            return Ok(());
        }
        match self.again(base.frame, hands) {
            Ok(frame) => {
                let blob = frame.get(base.at as usize..base.at as usize + base.len as usize);
                if let Some(blob) = blob.filter(|blob| is_sound(blob)) {
                    plain.extend_from_slice(blob);
                    return Ok(());
                }
            }
            Err(e) if e.is_damage() && self.again_left.load(Ordering::Relaxed) > 0 => {}
            Err(e) if e.is_frozen() => {}
            Err(e) => return Err(e),
        }
        // There may be another copy; if there is none, this tells why.
        plain.extend_from_slice(&self.repo.base(&above.frame, &base.id.base(), &mut hands.failed)?);
        Ok(())
    }

    fn bases(&self, planned: &Planned, plain: &mut Vec<u8>, hands: &mut Hands) -> Result<()> {
        // What an entry says of their lengths may be wrong: only what is found counts.
        let len: usize = planned.bases.iter().map(|base| base.len as usize).sum();
        plain.reserve(len.min(limits::FRAME_BASE_PLAIN_MAX));
        for base in &planned.bases {
            self.base(planned, base, plain, hands)?;
            if plain.len() > limits::FRAME_BASE_PLAIN_MAX {
                let why = format!("frame {} rests on more than any frame may", planned.number);
                return Err(Error::damaged(self.object(planned), why));
            }
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
