//! What a pack holds, by its own word: its frames from its directory, and the ids
//! of their blobs from what is in them. No index object is believed; what a delta
//! frame rests on is looked up by id in the index, and in the pack itself.

use crate::error::{Error, Result};
use crate::format::header;
use crate::format::index::PackEntry;
use crate::format::pack::{Directory, Frame};
use crate::id::{BaseId, BlobId, PackName};
use crate::index::PackMap;
use crate::limits;
use crate::maintenance::report::object_of;
use crate::pack::{self, Decompressor, WholePack};
use crate::repo::{Failed, Repository};
use std::collections::{HashMap, HashSet};

/// Stands where the id of a blob is not known: no blob has it.
pub(super) const UNKNOWN: BlobId = BlobId([0; BlobId::LEN]);

/// What reading a pack gave.
pub(super) enum Found {
    /// Its frames, as far as they open.
    Contents(Box<Contents>),
    /// Nothing: why not.
    Unreadable(String),
    /// It is another object that is whole, under this one's name: why that is known.
    Stranger(String),
    /// Nothing: it must be thawed first.
    Frozen,
    /// It is not there any more.
    Gone,
}

/// A pack's frames.
pub(super) struct Contents {
    /// What an index object may say of the pack; [`UNKNOWN`] for the blobs of frames that could not be read.
    pub entry: PackEntry,
    /// Why its bytes are not those that its name is the hash of, if they are not.
    pub broken: Option<String>,
    /// Frames that do not open or decode, and why.
    pub bad: Vec<(u32, String)>,
    /// Frames that rest on what could not be found, and why.
    pub waiting: Vec<(u32, String)>,
}

impl Contents {
    /// Frames whose blobs are known.
    pub fn known(&self) -> usize {
        self.entry.directory.frames.len() - self.bad.len() - self.waiting.len()
    }

    /// True if all that was read agrees with an entry; where a frame could not be read, whatever it says may be so.
    pub fn agrees(&self, size: u64, map: &PackMap) -> bool {
        let own = &self.entry;
        let is_same = |ours: &Frame, theirs: &Frame| match is_known(ours) {
            true => ours == theirs,
            false => shape(ours) == shape(theirs),
        };
        let mut pairs = own.directory.frames.iter().zip(map.frames());
        own.size == size
            && own.directory.class == map.class
            && own.directory.frames.len() == map.frames().len()
            && pairs.all(|(ours, (_, theirs))| is_same(ours, theirs))
    }
}

/// All but the ids.
fn shape(frame: &Frame) -> Frame {
    Frame { ids: Vec::new(), ..frame.clone() }
}

/// True for a frame whose blobs have ids.
pub(super) fn is_known(frame: &Frame) -> bool {
    frame.ids.iter().all(|id| *id != UNKNOWN)
}

/// Reads a pack whole, and every frame in it.
///
/// # Errors
/// Those of the store that are not the pack's own.
pub(super) fn read(repo: &Repository, name: &PackName) -> Result<Found> {
    let bytes = match repo.store().read(&repo.names().pack(name), limits::PACK_MAX).map_err(Error::from) {
        Ok(bytes) => bytes,
        Err(e) if e.is_not_found() => return Ok(Found::Gone),
        Err(e) if e.is_frozen() => return Ok(Found::Frozen),
        Err(e) if e.is_damage() => return Ok(Found::Unreadable(object_of(&e).1)),
        Err(e) => return Err(e),
    };
    let (realm, private) = (repo.realm(), repo.private_key()?);
    let open = |bytes: &[u8]| WholePack::open(&realm, private, name, bytes);
    let (pack, bytes, broken) = match open(&bytes) {
        Ok(pack) => (pack, bytes, None),
        Err(e) if header::opened(&bytes).is_ok() && !pack::is_itself(name, &bytes) => {
            return Ok(Found::Stranger(object_of(&e).1));
        }
        Err(e) => {
            let why = object_of(&e).1;
            // As readers read it: by its parity, or what is left of it.
            let mended = pack::mend(name, &[&bytes]).ok().map(|mended| mended.bytes);
            match mended.and_then(|mended| Some((open(&mended).ok()?, mended))) {
                Some((pack, mended)) => (pack, mended.into(), Some(why)),
                None => match WholePack::salvage(&realm, private, name, &bytes) {
                    Ok(pack) => (pack, bytes, Some(why)),
                    Err(_) => return Ok(Found::Unreadable(why)),
                },
            }
        }
    };
    let size = bytes.len() as u64;
    let mut contents = Contents {
        entry: PackEntry { name: *name, size, directory: pack.directory.clone() },
        broken,
        bad: Vec::new(),
        waiting: Vec::new(),
    };
    frames(repo, &pack, &bytes, &mut contents)?;
    Ok(Found::Contents(Box::new(contents)))
}

fn frames(repo: &Repository, pack: &WholePack, bytes: &[u8], contents: &mut Contents) -> Result<()> {
    let (mut within, mut failed) = (Within::new(&pack.directory), Failed::new());
    let mut decompressor = Decompressor::new()?;
    let mut order: Vec<(usize, u64, &Frame)> =
        pack.directory.offsets().enumerate().map(|(number, (at, frame))| (number, at, frame)).collect();
    // What rests on something rests on what is less deep.
    order.sort_by_key(|(_, _, frame)| frame.depth);
    for (number, at, frame) in order {
        let place = &mut contents.entry.directory.frames[number];
        place.ids = vec![UNKNOWN; frame.lens.len()];
        let bases = match within.bases(repo, frame, &mut failed) {
            Ok(bases) => bases,
            Err(e) if e.is_damage() || e.is_frozen() => {
                contents.waiting.push((number as u32, e.to_string()));
                continue;
            }
            Err(e) => return Err(e),
        };
        // The directory and the trailer lie behind the last frame.
        let mut sealed = bytes.get(at as usize..).unwrap_or_default();
        sealed = sealed.get(..frame.stored as usize).unwrap_or_default();
        let mut sealed = sealed.to_vec();
        match pack.key.frame(number as u64, frame, &mut sealed, &bases, &mut decompressor) {
            Ok(plain) => {
                let blobs = blobs(frame, plain);
                place.ids = blobs.iter().map(|blob| repo.id_keys().blob_id(frame.kind, blob)).collect();
                within.keep(frame, &place.ids, &blobs);
            }
            Err(e) => contents.bad.push((number as u32, e.to_string())),
        }
    }
    contents.bad.sort_unstable();
    contents.waiting.sort_unstable();
    Ok(())
}

fn blobs<'p>(frame: &Frame, plain: &'p [u8]) -> Vec<&'p [u8]> {
    let mut rest = plain;
    let mut next = |len: &u32| {
        let (blob, behind) = rest.split_at(rest.len().min(*len as usize));
        rest = behind;
        blob
    };
    frame.lens.iter().map(&mut next).collect()
}

/// The blobs of a pack on which others in it rest.
struct Within {
    wanted: HashSet<BaseId>,
    kept: HashMap<BaseId, (u8, Vec<u8>)>,
    bytes: usize,
}

impl Within {
    fn new(directory: &Directory) -> Self {
        let wanted = directory.frames.iter().flat_map(|frame| frame.bases.iter().copied()).collect();
        Self { wanted, kept: HashMap::new(), bytes: 0 }
    }

    /// Keeps what others rest on. What there is no room for is found once the pack is in the index.
    fn keep(&mut self, frame: &Frame, ids: &[BlobId], blobs: &[&[u8]]) {
        for (id, blob) in ids.iter().zip(blobs) {
            let base = id.base();
            let has_room = self.bytes + blob.len() <= limits::READ_KEPT;
            if has_room && self.wanted.contains(&base) && !self.kept.contains_key(&base) {
                self.bytes += blob.len();
                self.kept.insert(base, (frame.depth, blob.to_vec()));
            }
        }
    }

    /// What a frame rests on, one after the other.
    fn bases(&self, repo: &Repository, frame: &Frame, failed: &mut Failed) -> Result<Vec<u8>> {
        let mut plain = Vec::new();
        for id in &frame.bases {
            match self.kept.get(id) {
                Some((depth, blob)) if *depth < frame.depth => plain.extend_from_slice(blob),
                _ => plain.extend_from_slice(&repo.base(frame, id, failed)?),
            }
            if plain.len() > limits::FRAME_BASE_PLAIN_MAX {
                return Err(Error::damaged(repo.names().packs(), "it rests on more than any frame may"));
            }
        }
        Ok(plain)
    }
}
