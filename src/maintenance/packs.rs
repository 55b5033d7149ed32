//! Reading packs whole: that each is what its name says, and that what it holds
//! opens, decodes and hashes to its ids.

use super::report::object_of;
use super::sound::FrameName;
use crate::crypto::stack;
use crate::error::{Error, Result};
use crate::format::header::{self, HASH_LEN};
use crate::id::{BlobId, PackName};
use crate::index::{EntryNumber, PackMap};
use crate::limits;
use crate::monitor::{Event, Monitor};
use crate::pack::{Decompressor, PackKey, WholePack};
use crate::repo::Repository;
use crossbeam_channel::{Receiver, bounded};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

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
    /// Frames that the index gives it, at the most.
    pub frames: usize,
}

impl PackResult {
    fn wrong(&mut self, why: impl Into<String>) {
        self.problems.push(Problem { why: why.into(), entry: None });
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
    let threads = thread::available_parallelism().map_or(2, usize::from);
    let found = Mutex::new(Vec::new());
    thread::scope(|scope| {
        let (tx, rx) = bounded::<&Job>(1);
        let mut workers = Vec::new();
        for _ in 0..threads {
            let (rx, found) = (rx.clone(), &found);
            workers.push(scope.spawn(move || stack::wiped(|| read_packs(repo, monitor, &rx, found))));
        }
        drop(rx);
        for job in jobs {
            if monitor.cancelled() || tx.send(job).is_err() {
                break;
            }
        }
        drop(tx);
        workers
            .into_iter()
            .try_for_each(|w| w.join().unwrap_or_else(|_| Err(Error::Invalid("a checking thread panicked".into()))))
    })?;
    if monitor.cancelled() {
        return Err(Error::Interrupted);
    }
    Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn read_packs(
    repo: &Repository,
    monitor: &dyn Monitor,
    jobs: &Receiver<&Job>,
    found: &Mutex<Vec<PackResult>>,
) -> Result<()> {
    let mut decompressor = Decompressor::new()?;
    for job in jobs {
        let result = read_pack(repo, job, &mut decompressor)?;
        monitor.event(Event::Bytes(job.size));
        found.lock().unwrap_or_else(PoisonError::into_inner).push(result);
    }
    Ok(())
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

/// Reads a pack once, and holds every entry that names it against what it holds.
fn read_pack(repo: &Repository, job: &Job, decompressor: &mut Decompressor) -> Result<PackResult> {
    let gone = || Error::Busy { what: "the index on this machine".into() };
    let mut maps = Vec::with_capacity(job.entries.len());
    for entry in &job.entries {
        maps.push(repo.index().pack(*entry)?.ok_or_else(gone)?);
    }
    let frames = maps.iter().map(|map| map.frames().len()).max().unwrap_or(0);
    let mut result = PackResult {
        name: job.name,
        bytes: job.size,
        blobs: 0,
        problems: Vec::new(),
        bad_frames: HashMap::new(),
        resting: HashMap::new(),
        frames,
    };
    let bytes = match repo.store().read(&repo.names().pack(&job.name), limits::PACK_MAX) {
        Ok(bytes) => bytes,
        Err(e) => {
            let e = Error::from(e);
            if !e.is_damage() {
                return Err(e);
            }
            result.wrong(object_of(&e).1);
            result.all_bad(&maps);
            return Ok(result);
        }
    };
    if let Err(why) = is_itself(&job.name, &bytes) {
        result.wrong(why);
    }
    let (Ok(private), false) = (repo.private_key(), maps.is_empty()) else {
        if !result.problems.is_empty() {
            result.all_bad(&maps);
        }
        return Ok(result);
    };
    // A pack whose hash is wrong may still have sound frames: each is tried by itself.
    let key = match WholePack::open(&repo.realm(), private, &job.name, &bytes) {
        Ok(whole) => whole.key,
        Err(e) => {
            if result.problems.is_empty() {
                result.wrong(object_of(&e).1);
            }
            match PackKey::open(&repo.realm(), private, &job.name, &bytes) {
                Ok(key) => key,
                Err(_) => {
                    result.all_bad(&maps);
                    return Ok(result);
                }
            }
        }
    };
    for map in &maps {
        check_frames(repo, map, &key, &bytes, decompressor, &mut result)?;
    }
    Ok(result)
}

fn check_frames(
    repo: &Repository,
    map: &PackMap,
    key: &PackKey,
    bytes: &[u8],
    decompressor: &mut Decompressor,
    result: &mut PackResult,
) -> Result<()> {
    let mut of_frame: Vec<Vec<(u32, u32, BlobId)>> = vec![Vec::new(); map.frames().len()];
    for (id, place) in map.places() {
        if let Some(blobs) = of_frame.get_mut(place.frame as usize) {
            blobs.push((place.at, place.len, *id));
        }
    }
    for (number, ((at, frame), blobs)) in map.frames().iter().zip(of_frame).enumerate() {
        let at = usize::try_from(*at).unwrap_or(usize::MAX);
        let sealed = at.checked_add(frame.stored as usize).and_then(|end| bytes.get(at..end));
        let mut sealed = sealed.unwrap_or_default().to_vec();
        let bases = match repo.bases(frame) {
            Ok(bases) => bases,
            Err(e) if e.is_damage() => {
                result.resting.insert((map.number, number as u32), object_of(&e).0);
                continue;
            }
            Err(e) => return Err(e),
        };
        let problem = match key.frame(number as u64, frame, &mut sealed, &bases, decompressor) {
            Err(e) => Some(e.to_string()),
            Ok(plain) => blobs.iter().find_map(|(at, len, id)| {
                result.blobs += 1;
                let blob = plain.get(*at as usize..(*at + *len) as usize).unwrap_or_default();
                (repo.id_keys().blob_id(frame.kind, blob) != *id)
                    .then(|| format!("holds something else for blob {id}"))
            }),
        };
        if let Some(why) = problem {
            result.problems.push(Problem { why: format!("frame {number} {why}"), entry: Some(map.number) });
            result.bad_frames.entry(map.number).or_default().insert(number as u32);
        }
    }
    Ok(())
}
