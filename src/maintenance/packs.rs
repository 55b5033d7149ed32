//! Reading packs: first each as a whole, that it is what its name says; then
//! the frames that index entries see in them, that what they hold opens, decodes
//! and hashes to its ids. Frames are read by a plan, each once, so that bases are
//! there when what rests on them comes.

use super::cores;
use super::report::object_of;
use super::sound::FrameName;
use crate::error::{Error, Result};
use crate::format::header::{self, HASH_LEN};
use crate::format::pack::{FRAMES_AT, Frame};
use crate::id::{BlobId, PackName};
use crate::index::{EntryNumber, PackMap};
use crate::limits;
use crate::monitor::{Event, Monitor};
use crate::pack::{self, PackKey, WholePack};
use crate::repo::{FrameNumber, Planned, Reading, Repository, Trust};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

/// A pack to be read.
pub(super) struct Job {
    pub name: PackName,
    pub size: u64,
    /// Its entries in the index; none if no index object names it. Several may name one pack, and
    /// whoever wrote a wrong one must not make a right one look damaged.
    pub entries: Vec<EntryNumber>,
}

/// What is wrong with a pack, or with what an entry says of it.
pub(super) struct Problem {
    pub why: String,
    /// The entry; `None` if it is the pack itself.
    pub entry: Option<EntryNumber>,
}

/// What reading one pack found.
pub(super) struct PackResult {
    pub name: PackName,
    pub bytes: u64,
    pub blobs: u64,
    /// What is wrong, in the order in which it was found.
    pub problems: Vec<Problem>,
    /// Frames that are not what an entry says.
    pub bad_frames: HashMap<EntryNumber, HashSet<u32>>,
    /// Frames that cannot be decoded since something below them is damaged: that object.
    pub resting: HashMap<FrameName, String>,
    /// It is damaged, and its parity mends it: as it was, it is read.
    pub is_mendable: bool,
    /// It must be thawed before it can be read: nothing is known of what is in it.
    pub is_frozen: bool,
    /// Its frames that rest on what is frozen: nothing is known of them either.
    pub on_frozen: u64,
    /// Frames that the index gives it, at the most.
    pub frames: usize,
    /// The entries that name it.
    entries: Vec<EntryNumber>,
    /// Its frames can be tried.
    can_open: bool,
}

impl PackResult {
    fn wrong(&mut self, why: impl Into<String>) {
        self.problems.push(Problem { why: why.into(), entry: None });
    }

    /// A frame cannot be planned: tells the object for whose sake.
    fn rests_in_vain(&mut self, repo: &Repository, entry: EntryNumber, number: u32, frame: &Frame) -> Result<()> {
        let object = match repo.bases(frame) {
            Err(e) if e.is_damage() || e.is_frozen() => object_of(&e).0,
            Err(e) => return Err(e),
            // All that it rests on can be read, and is more than a blob may rest on.
            Ok(_) => repo.names().pack(&self.name),
        };
        self.resting.insert((entry, number), object);
        Ok(())
    }

    /// True if all of it was read, as far as it can be without the frames that its own rest on.
    fn is_read(&self) -> bool {
        !self.is_frozen && self.on_frozen == 0
    }

    /// True if something is wrong with the pack itself, whatever is said of it.
    fn is_broken(&self) -> bool {
        self.problems.iter().any(|problem| problem.entry.is_none())
    }

    /// The entries of which everything was found to be true.
    pub fn true_entries(&self) -> impl Iterator<Item = EntryNumber> {
        let all = self.is_read() && !self.is_broken() && self.can_open;
        let is_true = move |entry: &EntryNumber| {
            let rests = self.resting.keys().any(|(of, _)| of == entry);
            all && !rests && !self.bad_frames.contains_key(entry)
        };
        self.entries.iter().copied().filter(is_true)
    }

    /// True if it was read, and all in it is as somebody says, with what it rests on.
    pub fn is_whole(&self) -> bool {
        let opened = self.entries.is_empty() || !self.can_open || self.true_entries().next().is_some();
        self.is_read() && !self.is_broken() && opened
    }

    /// True if it is not what was written, or holds nothing of what anybody says. What its frames rest on is
    /// another's damage; and one false entry makes no pack damaged of which there is a true one.
    pub fn is_damaged(&self) -> bool {
        let all_bad = self.entries.iter().all(|entry| self.bad_frames.contains_key(entry));
        !self.entries.is_empty() && (self.is_broken() || all_bad)
    }

    /// True if it was read and is as it was written.
    pub fn is_sound(&self) -> bool {
        self.is_read() && !self.is_broken() && !self.is_damaged()
    }

    /// Nothing in it can be relied on.
    fn all_bad(&mut self, maps: &[Arc<PackMap>]) {
        let all = |map: &Arc<PackMap>| (map.number, (0..map.frames().len() as u32).collect());
        self.bad_frames = maps.iter().map(all).collect();
    }
}

/// Reads packs on every core.
///
/// # Errors
/// The store's, and [`Error::Interrupted`].
pub(super) fn read_all(repo: &Repository, jobs: &[Job], monitor: &dyn Monitor) -> Result<Vec<PackResult>> {
    let mut found = whole_packs(repo, jobs, monitor)?;
    if repo.private_key().is_ok() {
        let mut batch = Batch::new(repo, monitor);
        // The oldest first: what others rest on lies there.
        let mut order: Vec<usize> = (0..found.len()).filter(|at| found[*at].can_open).collect();
        order.sort_unstable_by_key(|at| found[*at].entries.first().copied());
        for at in order {
            for entry in found[at].entries.clone() {
                batch.add(&mut found, at, entry)?;
            }
        }
        batch.finish(&mut found)?;
    }
    Ok(found)
}

fn whole_packs(repo: &Repository, jobs: &[Job], monitor: &dyn Monitor) -> Result<Vec<PackResult>> {
    cores::on_all(jobs, monitor, |job| {
        let result = read_pack(repo, job)?;
        // What is in frames is told once they are read.
        monitor.event(Event::Bytes(if result.can_open { FRAMES_AT } else { job.size }));
        Ok(result)
    })
}

/// That the bytes are those which were hashed when the pack was named.
fn is_itself(name: &PackName, bytes: &[u8]) -> Result<(), String> {
    header::opened(bytes).map_err(|e| e.to_string())?;
    if bytes.last_chunk::<HASH_LEN>() == Some(&name.0) {
        Ok(())
    } else {
        Err("it is another object, under this one's name".into())
    }
}

/// Reads a pack whole.
fn read_pack(repo: &Repository, job: &Job) -> Result<PackResult> {
    let mut maps = Vec::with_capacity(job.entries.len());
    for entry in &job.entries {
        maps.push(map_of(repo, *entry)?);
    }
    let mut result = PackResult {
        name: job.name,
        bytes: job.size,
        blobs: 0,
        problems: Vec::new(),
        bad_frames: HashMap::new(),
        resting: HashMap::new(),
        is_mendable: false,
        is_frozen: false,
        on_frozen: 0,
        frames: maps.iter().map(|map| map.frames().len()).max().unwrap_or(0),
        entries: job.entries.clone(),
        can_open: false,
    };
    let bytes = match repo.store().read(&repo.names().pack(&job.name), limits::PACK_MAX) {
        Ok(bytes) => bytes,
        Err(e) => {
            let e = Error::from(e);
            if e.is_frozen() {
                (result.is_frozen, result.bytes) = (true, 0);
                return Ok(result);
            }
            if !e.is_damage() {
                return Err(e);
            }
            result.wrong(object_of(&e).1);
            result.all_bad(&maps);
            return Ok(result);
        }
    };
    let mended;
    let mut bytes = &bytes[..];
    if let Err(why) = is_itself(&job.name, bytes) {
        result.wrong(why);
        if let Ok(pack) = pack::mend(&job.name, &[bytes]) {
            mended = pack.bytes;
            (result.is_mendable, bytes) = (true, &mended);
        }
    }
    let (Ok(private), false) = (repo.private_key(), maps.is_empty()) else {
        if !result.problems.is_empty() && !result.is_mendable {
            result.all_bad(&maps);
        }
        return Ok(result);
    };
    result.can_open = true;
    if let Err(e) = WholePack::open(&repo.realm(), private, &job.name, bytes) {
        if result.problems.is_empty() {
            result.wrong(object_of(&e).1);
        }
        // A pack whose hash is wrong may still have sound frames: each is tried by itself.
        if PackKey::open(&repo.realm(), private, &job.name, bytes).is_err() {
            result.all_bad(&maps);
            result.can_open = false;
        }
    }
    Ok(result)
}

fn map_of(repo: &Repository, entry: EntryNumber) -> Result<Arc<PackMap>> {
    repo.index().pack(entry)?.ok_or_else(|| Error::Busy { what: "the index on this machine".into() })
}

/// A blob's place in its frame.
type Blob = (u32, u32, BlobId);

/// Frames that are read together: so many that few bases are read twice, and no more than memory holds.
struct Batch<'r> {
    repo: &'r Repository,
    monitor: &'r dyn Monitor,
    reading: Reading,
    /// For a frame to be checked: its pack's place in the results, and what the entry sees in it.
    wanted: HashMap<FrameNumber, (usize, Vec<Blob>)>,
    blobs: usize,
}

impl<'r> Batch<'r> {
    fn new(repo: &'r Repository, monitor: &'r dyn Monitor) -> Self {
        Self { repo, monitor, reading: Reading::default(), wanted: HashMap::new(), blobs: 0 }
    }

    /// Adds what an entry sees in the pack of a result.
    fn add(&mut self, found: &mut [PackResult], at: usize, entry: EntryNumber) -> Result<()> {
        let map = map_of(self.repo, entry)?;
        let mut of_frame: Vec<Vec<Blob>> = vec![Vec::new(); map.frames().len()];
        for (id, place) in map.places() {
            if let Some(blobs) = of_frame.get_mut(place.frame as usize) {
                blobs.push((place.at, place.len, *id));
            }
        }
        for (number, ((offset, frame), blobs)) in map.frames().iter().zip(of_frame).enumerate() {
            let number = number as u32;
            let planned = self.reading.need_frame(self.repo, (entry, map.name), (number, *offset), frame)?;
            match planned {
                Some(planned) => {
                    self.blobs += blobs.len();
                    self.wanted.insert(planned, (at, blobs));
                }
                None => found[at].rests_in_vain(self.repo, entry, number, frame)?,
            }
        }
        if self.reading.len() >= limits::READ_BATCH_FRAMES || self.blobs >= limits::CHECK_BATCH_BLOBS {
            std::mem::replace(self, Self::new(self.repo, self.monitor)).finish(found)?;
        }
        Ok(())
    }

    fn finish(self, found: &mut [PackResult]) -> Result<()> {
        let Self { repo, monitor, reading, wanted, .. } = self;
        let results: Vec<Mutex<&mut PackResult>> = found.iter_mut().map(Mutex::new).collect();
        reading.run(repo, Trust::Bases, monitor, &|number, decoded| {
            let (Some((at, blobs)), Some(planned)) = (wanted.get(&number), reading.planned(number)) else {
                // It is only a base here, and was checked, or will be, with its own pack.
                return Ok(());
            };
            monitor.event(Event::Bytes(planned.frame().stored.into()));
            let mut hashed = 0;
            let problem = match decoded {
                Ok(decoded) => {
                    hashed = blobs.len() as u64;
                    wrong_blob(repo, planned, blobs, decoded.plain)
                }
                Err(e) if e.is_frozen() => {
                    results[*at].lock().unwrap_or_else(PoisonError::into_inner).on_frozen += 1;
                    return Ok(());
                }
                Err(e) if object_of(&e).0 != repo.names().pack(&planned.pack()) => {
                    let mut result = results[*at].lock().unwrap_or_else(PoisonError::into_inner);
                    result.resting.insert((planned.entry(), planned.number()), object_of(&e).0);
                    return Ok(());
                }
                Err(e) => Some(object_of(&e).1),
            };
            let mut result = results[*at].lock().unwrap_or_else(PoisonError::into_inner);
            result.blobs += hashed;
            if let Some(why) = problem {
                result.problems.push(Problem { why, entry: Some(planned.entry()) });
                result.bad_frames.entry(planned.entry()).or_default().insert(planned.number());
            }
            Ok(())
        })
    }
}

/// What is wrong with the blobs that an entry sees in a frame, if anything.
fn wrong_blob(repo: &Repository, planned: &Planned, blobs: &[Blob], plain: &[u8]) -> Option<String> {
    blobs.iter().find_map(|(at, len, id)| {
        let blob = plain.get(*at as usize..(*at + *len) as usize).unwrap_or_default();
        (repo.id_keys().blob_id(planned.frame().kind, blob) != *id)
            .then(|| format!("frame {} holds something else for blob {id}", planned.number()))
    })
}
