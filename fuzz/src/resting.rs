//! Frames that rest on others, as whoever holds a tenant's keys can make them,
//! and which of their blobs can be read for all that: what the target `bases`
//! puts into a repository. Seals are right; what a frame holds, what the index
//! says of it and what becomes of its pack is as the input says.
//!
//! An input is a byte of options and then records: blobs, frames that hold them,
//! and what becomes of a pack. See [`blob`], [`Said`] and [`fate`].

use super::hostile::{Cache, Hostile, SealedPack};
use super::{trees, walker};
use estrato::format::content::{Content, Extent};
use estrato::format::index::PackEntry;
use estrato::format::pack::{BlobKind, Codec, Directory, FRAMES_AT, Frame, StorageClass};
use estrato::id::{BaseId, BlobId, IndexName, PackName};
use estrato::limits;
use estrato::pack::PlainFrame;
use std::collections::{HashMap, HashSet};
use std::thread;
use zstd::zstd_safe::{CCtx, CParameter};

/// What an input may hold.
const BLOBS_MAX: usize = 32;
const FRAMES_MAX: usize = 48;
const PLAIN_MAX: usize = 8 << 20;
/// Packs of each class.
const PACKS: usize = 4;
/// Bases of a fan: more than one of another is more than anyone decodes.
const FAN_MAX: usize = 192;
/// Bytes of a long blob.
const LONG_LEN: usize = 180_000;

/// A blob's form: its kind by the lowest two bits, of which two stand for chunks.
pub const TREE: u8 = 2;
/// See [`TREE`].
pub const LIST: u8 = 3;
/// A blob's form: an earlier one, with the bytes put into its middle.
pub const DERIVED: u8 = 4;
/// A blob's form: the bytes over and over.
pub const LONG: u8 = 8;

/// How a frame's payload is made: anything else is honest. In full, without any use of its bases.
pub const ALONE: u8 = 2;
/// Its payload is changed before it is sealed.
pub const GARBLED: u8 = 3;
/// A bit of what is stored has flipped.
pub const FLIPPED: u8 = 4;
/// It was made against its bases in another order.
pub const REVERSED: u8 = 5;
/// Its payload is cut short.
pub const CUT: u8 = 6;
/// It holds something else for its first blob.
pub const ANOTHER: u8 = 7;

/// What the index says wrongly of a frame: where its second blob begins, or how long its only one is.
pub const SHIFTED: u8 = 1;
/// Its last blob is as long as any can be.
pub const MIGHTY: u8 = 2;
/// The second half of its first blob's id.
pub const HALF_ID: u8 = 4;
/// Which of its blobs stands where.
pub const ROTATED: u8 = 8;
/// Its last base: there is none of that name.
pub const NO_BASE: u8 = 16;
/// Its bases, over and over.
pub const FAN: u8 = 32;
/// Its kind, within its class.
pub const OTHER_KIND: u8 = 64;

/// What becomes of a pack: anything else is nothing. It is not in the store.
pub const GONE: u8 = 1;
/// Its sealed key is damaged.
pub const HEAD: u8 = 2;
/// Its second half is not there.
pub const HALVED: u8 = 3;
/// The index names it twice.
pub const TWICE: u8 = 4;
/// The index gives it the name of another.
pub const MISNAMED: u8 = 5;
/// The index gives it another size.
pub const LARGER: u8 = 6;

/// A blob's record.
pub fn blob(form: u8, from: u8, bytes: &[u8]) -> Vec<u8> {
    [&[0, form, from, bytes.len() as u8], bytes].concat()
}

/// The record of what becomes of a pack.
pub fn fate(pack: u8, fate: u8) -> Vec<u8> {
    vec![2, pack, fate]
}

/// What an input says of a frame.
#[derive(Clone, Copy, Default)]
pub struct Said<'d> {
    /// The pack in which it lies.
    pub pack: u8,
    /// Its depth, if it has bases.
    pub depth: u8,
    /// How its payload is made.
    pub how: u8,
    /// What the index says wrongly of it.
    pub lies: u8,
    /// Numbers of its blobs, in order; at most 15.
    pub blobs: &'d [u8],
    /// Numbers of its bases, in order; at most 15.
    pub bases: &'d [u8],
}

impl Said<'_> {
    /// Its record.
    pub fn record(&self) -> Vec<u8> {
        let counts = self.blobs.len() as u8 | (self.bases.len() as u8) << 4;
        [&[1, self.pack, self.depth, self.how, self.lies, counts], self.blobs, self.bases].concat()
    }
}

/// An input of these options and records.
pub fn input(options: u8, records: &[Vec<u8>]) -> Vec<u8> {
    [&[options], &records.concat()[..]].concat()
}

/// The records of an input, blob by blob what it holds.
#[derive(Default)]
struct Records<'d> {
    blobs: Vec<(BlobKind, Vec<u8>)>,
    frames: Vec<Said<'d>>,
    fates: HashMap<usize, u8>,
}

fn take<'d>(data: &mut &'d [u8], len: usize) -> Option<&'d [u8]> {
    let (taken, rest) = data.split_at_checked(len)?;
    *data = rest;
    Some(taken)
}

impl<'d> Records<'d> {
    fn read(mut data: &'d [u8]) -> Self {
        let mut records = Self::default();
        while records.next(&mut data).is_some() {}
        records
    }

    fn next(&mut self, data: &mut &'d [u8]) -> Option<()> {
        match take(data, 1)?[0] % 3 {
            0 => {
                let &[form, from, len] = take(data, 3)? else { return None };
                let bytes = take(data, usize::from(len))?;
                if self.blobs.len() < BLOBS_MAX {
                    let plain = self.plain(form, from, bytes);
                    let kind = [BlobKind::Chunk, BlobKind::Chunk, BlobKind::Tree, BlobKind::List];
                    self.blobs.push((kind[usize::from(form & 3)], plain));
                }
            }
            1 => {
                let &[pack, depth, how, lies, counts] = take(data, 5)? else { return None };
                let blobs = take(data, usize::from(counts & 15))?;
                let bases = take(data, usize::from(counts >> 4))?;
                if self.frames.len() < FRAMES_MAX {
                    self.frames.push(Said { pack, depth, how, lies, blobs, bases });
                }
            }
            _ => {
                let &[pack, fate] = take(data, 2)? else { return None };
                self.fates.insert(usize::from(pack) % (2 * PACKS), fate % 8);
            }
        }
        Some(())
    }

    fn plain(&self, form: u8, from: u8, bytes: &[u8]) -> Vec<u8> {
        if form & DERIVED != 0 && !self.blobs.is_empty() {
            let mut plain = self.blobs[usize::from(from) % self.blobs.len()].1.clone();
            let middle = plain.len() / 2;
            plain.splice(middle..middle, bytes.iter().copied());
            plain
        } else if form & LONG != 0 && !bytes.is_empty() {
            bytes.iter().copied().cycle().take(LONG_LEN).collect()
        } else {
            bytes.to_vec()
        }
    }
}

/// A blob.
pub struct Blob {
    /// What it is.
    pub kind: BlobKind,
    /// Its id.
    pub id: BlobId,
    /// Its bytes.
    pub plain: Vec<u8>,
}

/// A frame as it lies in a pack, what the index says of it, and what is true.
struct Made {
    payload: Vec<u8>,
    frame: Frame,
    flipped: bool,
    /// What it decodes to with its bases, if that is known.
    plain: Option<Vec<u8>>,
}

/// What rests on these bytes.
fn delta(plain: &[u8], bases: &[u8]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(zstd::zstd_safe::compress_bound(plain.len()));
    let mut context = CCtx::create();
    let window = (bases.len() + plain.len()).max(1024).ilog2() + 1;
    context.set_parameter(CParameter::CompressionLevel(1)).unwrap();
    context.set_parameter(CParameter::WindowLog(window)).unwrap();
    context.ref_prefix(bases).unwrap();
    context.compress2(&mut packed, plain).unwrap();
    packed
}

impl Made {
    /// `None` if it holds nothing.
    fn new(hostile: &mut Hostile, blobs: &[Blob], said: &Said<'_>) -> Option<Self> {
        let of = |numbers: &[u8]| -> Vec<&Blob> {
            numbers.iter().filter_map(|n| blobs.get(usize::from(*n) % blobs.len().max(1))).collect()
        };
        let (mut held, mut bases) = (PlainFrame::new(of(said.blobs).first()?.kind), of(said.bases));
        for blob in of(said.blobs) {
            if held.fits(blob.plain.len()) {
                held.push(blob.id, &blob.plain);
            }
        }
        if said.lies & FAN != 0 && !bases.is_empty() {
            let times = FAN_MAX / bases.len();
            bases = bases.repeat(times);
        }
        if said.how & 7 == ANOTHER
            && let Some(first) = held.bytes.first_mut()
        {
            *first ^= 1;
        }
        let (lens, ids, kind) = (held.lens.clone(), held.ids.clone(), held.kind);
        let (payload, codec, known) = payload(hostile, held, said.how & 7, &bases);
        let frame = Frame {
            stored: 0,
            codec,
            kind,
            depth: if bases.is_empty() { 0 } else { (said.depth % (limits::FRAME_DEPTH_MAX + 1)).max(1) },
            bases: bases.iter().map(|blob| blob.id.base()).collect(),
            lens,
            ids,
        };
        let mut made = Self { payload, frame, flipped: said.how & 7 == FLIPPED, plain: known };
        made.lie(said.lies);
        Some(made)
    }

    /// What the index is to say wrongly of it.
    fn lie(&mut self, lies: u8) {
        let (frame, says) = (&mut self.frame, |lie| lies & lie != 0);
        let room = (limits::FRAME_PLAIN_MAX - frame.plain_len()) as u32;
        let grown = if says(MIGHTY) { room } else { room.min(1) };
        match &mut frame.lens[..] {
            [first, second, ..] if says(SHIFTED) && *first > 0 => (*first, *second) = (*first - 1, *second + 1),
            [.., last] if (says(SHIFTED) || says(MIGHTY)) && grown > 0 => {
                *last += grown;
                // No entry says of a raw frame that it is longer than it is.
                frame.codec = Codec::Zstd;
                self.plain = None;
            }
            _ => {}
        }
        if says(HALF_ID) {
            frame.ids[0].0[BaseId::LEN..].iter_mut().for_each(|b| *b = !*b);
        }
        if says(ROTATED) {
            frame.ids.rotate_left(1);
        }
        if let (true, Some(last)) = (says(NO_BASE), frame.bases.last_mut()) {
            last.0.iter_mut().for_each(|b| *b = !*b);
        }
        frame.kind = match frame.kind {
            BlobKind::Tree if says(OTHER_KIND) => BlobKind::List,
            BlobKind::List if says(OTHER_KIND) => BlobKind::Tree,
            kind => kind,
        };
    }

    /// The blobs that the index sees in it and what stands in their places, where that is known.
    fn places(&self) -> impl Iterator<Item = (BlobId, Option<&[u8]>)> {
        let mut at = 0;
        self.frame.ids.iter().zip(&self.frame.lens).map(move |(id, len)| {
            let place = at..at + *len as usize;
            at = place.end;
            (*id, self.plain.as_ref().and_then(|plain| plain.get(place)))
        })
    }
}

/// A frame's payload, its codec, and what it decodes to if that is known.
fn payload(hostile: &mut Hostile, held: PlainFrame, how: u8, bases: &[&Blob]) -> (Vec<u8>, Codec, Option<Vec<u8>>) {
    let plain = held.bytes.clone();
    let len: usize = bases.iter().map(|blob| blob.plain.len()).sum();
    let (mut payload, codec) = if bases.is_empty() {
        let encoded = hostile.packed(held);
        (encoded.payload, encoded.codec)
    } else if how == ALONE || len > limits::FRAME_BASE_PLAIN_MAX {
        (delta(&plain, &[]), Codec::Zstd)
    } else {
        let mut against: Vec<&[u8]> = bases.iter().map(|blob| &blob.plain[..]).collect();
        if how == REVERSED {
            against.reverse();
        }
        (delta(&plain, &against.concat()), Codec::Zstd)
    };
    match how {
        GARBLED => {
            let middle = payload.len() / 2;
            payload.iter_mut().skip(middle).take(1).for_each(|b| *b ^= 1);
        }
        // A raw frame keeps its length.
        CUT if codec == Codec::Zstd => payload.truncate(payload.len() / 2),
        _ => {}
    }
    let known = !matches!(how, GARBLED | FLIPPED | REVERSED | CUT) && len <= limits::FRAME_BASE_PLAIN_MAX;
    (payload, codec, known.then_some(plain))
}

/// What an input has put into the repository.
pub struct World {
    /// All blobs, whether a frame holds them or not.
    pub blobs: Vec<Blob>,
    /// The frames that the index knows, as often as it names them.
    frames: Vec<Made>,
    /// For each blob: no more frames than these are decoded before it is read, if nothing is kept; `None` if
    /// nobody can tell that it can be read.
    costs: Vec<Option<u64>>,
    /// One that can be read rests on others.
    pub is_delta: bool,
    /// What the repository keeps.
    pub cache: Cache,
    /// A folder with a file for each chunk.
    pub root: Content,
    index: IndexName,
    objects: HashSet<String>,
}

impl World {
    /// Makes what an input says.
    pub fn new(hostile: &mut Hostile, cache: Cache, data: &[u8]) -> Self {
        let Records { blobs, frames: said, fates } = Records::read(data);
        let ids = |(kind, plain): (BlobKind, Vec<u8>)| {
            let id = hostile.repo.id_keys().blob_id(kind, &plain);
            Blob { kind, id, plain }
        };
        let blobs: Vec<Blob> = blobs.into_iter().map(ids).collect();
        let mut packs: [Vec<Made>; 2 * PACKS] = Default::default();
        let mut plain = 0;
        for said in &said {
            let Some(made) = Made::new(hostile, &blobs, said) else { continue };
            plain += made.frame.plain_len();
            if plain <= PLAIN_MAX {
                let class = made.frame.kind.class() as usize;
                packs[class * PACKS + usize::from(said.pack) % PACKS].push(made);
            }
        }
        let (mut frames, mut entries, mut objects) = (Vec::new(), Vec::new(), HashSet::new());
        for (number, made) in packs.into_iter().enumerate().filter(|(_, made)| !made.is_empty()) {
            put(hostile, number, fates.get(&number).copied(), made, &mut entries, &mut frames, &mut objects);
        }
        let root = tree(hostile, &blobs, &mut entries, &mut objects);
        let index = hostile.index(entries, Vec::new(), false);
        let mut world = Self { blobs, frames, costs: Vec::new(), is_delta: false, cache, root, index, objects };
        world.count();
        world
    }

    /// Removes it.
    pub fn clear(self, hostile: &Hostile) {
        hostile.repo.index().remove(&[self.index]).unwrap();
        self.objects.iter().for_each(|object| hostile.delete(object));
    }

    /// Finds out which blobs can be read: those of frames that are honest, and whose bases can be read
    /// from frames of lower depth.
    fn count(&mut self) {
        let known: HashMap<BlobId, &Blob> = self.blobs.iter().map(|blob| (blob.id, blob)).collect();
        // For each name of a base: the frame, and the blob if it is the one that stands there.
        let mut copies: HashMap<BaseId, Vec<(usize, Option<&Blob>)>> = HashMap::new();
        for (number, made) in self.frames.iter().enumerate() {
            for (id, there) in made.places() {
                let right = known.get(&id).filter(|blob| there == Some(&blob.plain[..])).copied();
                copies.entry(id.base()).or_default().push((number, right));
            }
        }
        let mut order: Vec<usize> = (0..self.frames.len()).collect();
        order.sort_by_key(|n| self.frames[*n].frame.depth);
        let mut costs = vec![1u64; self.frames.len()];
        let mut sound = vec![false; self.frames.len()];
        for n in order {
            let (made, frame) = (&self.frames[n], &self.frames[n].frame);
            let mut is_sound = made.plain.is_some() && !made.flipped;
            let mut of_base: HashMap<BaseId, u64> = HashMap::new();
            for base in &frame.bases {
                let cost = *of_base.entry(*base).or_insert_with(|| {
                    let below = copies.get(base).into_iter().flatten();
                    let below: Vec<_> = below.filter(|(m, _)| self.frames[*m].frame.depth < frame.depth).collect();
                    let right = |blob: &Option<&Blob>| blob.is_some_and(|blob| blob.kind == frame.kind);
                    is_sound &= below.iter().any(|(m, blob)| sound[*m] && right(blob));
                    // The first one is tried twice.
                    below.iter().fold(0u64, |sum, (m, _)| sum.saturating_add(costs[*m].saturating_mul(2)))
                });
                costs[n] = costs[n].saturating_add(cost);
            }
            sound[n] = is_sound;
        }
        let mut is_delta = false;
        let cost = |blob: &Blob| {
            let copies = copies.get(&blob.id.base()).into_iter().flatten();
            let right = copies.filter(|(n, right)| sound[*n] && right.is_some_and(|right| right.id == blob.id));
            let right: Vec<usize> = right.map(|(n, _)| *n).collect();
            is_delta |= right.iter().any(|n| self.frames[*n].frame.depth > 0);
            right.iter().map(|n| costs[*n]).min()
        };
        self.costs = self.blobs.iter().map(cost).collect();
        self.is_delta = is_delta;
    }

    /// True if a blob has to come back.
    pub fn must(&self, number: usize) -> bool {
        // What is kept is decoded once; without that, honest frames alone can be more than anyone decodes.
        let most = if self.cache == Cache::Usual { u64::MAX } else { limits::BLOB_FRAMES_MAX as u64 };
        self.costs[number].is_some_and(|cost| cost <= most)
    }

    /// What the index calls blobs and is none: each with the kind of the frame in which it is to lie.
    pub fn made_up(&self) -> Vec<(BlobKind, BlobId)> {
        let known: HashSet<BlobId> = self.blobs.iter().map(|blob| blob.id).collect();
        let named = self.frames.iter().flat_map(|made| made.frame.ids.iter().map(|id| (made.frame.kind, *id)));
        named.filter(|(_, id)| !known.contains(id)).collect()
    }

    /// Parts of objects that may be read for a blob with so many copies: a frame, and its pack's key.
    pub fn reads_max(&self, copies: usize) -> u64 {
        let frames = match self.cache {
            Cache::Usual => self.frames.len(),
            Cache::OneFrame => limits::BLOB_FRAMES_MAX,
        };
        (copies * frames * 2) as u64
    }

    /// The same for a plan of all: a frame in its turn, and where a thread needs it before, or another in
    /// its place; each once, whatever comes of it. Without a cache only the limits say how often.
    pub fn plan_reads_max(&self) -> u64 {
        let threads = thread::available_parallelism().map_or(2, usize::from);
        let each = self.frames.len() + 1;
        match self.cache {
            Cache::Usual => (each * (2 + 3 * threads) * 2) as u64,
            Cache::OneFrame => u64::MAX,
        }
    }
}

/// Puts frames into a pack of the store, unless they are to be missed, and its entry among the others.
fn put(
    hostile: &Hostile,
    number: usize,
    fate: Option<u8>,
    mut frames: Vec<Made>,
    entries: &mut Vec<PackEntry>,
    all: &mut Vec<Made>,
    objects: &mut HashSet<String>,
) {
    let class = if number < PACKS { StorageClass::Data } else { StorageClass::Trees };
    let payloads: Vec<Vec<u8>> = frames.iter().map(|made| made.payload.clone()).collect();
    let SealedPack { mut bytes, stored } = hostile.sealed(class, &payloads, &[number as u8]);
    let name = PackName(*bytes.last_chunk().unwrap());
    let mut size = bytes.len() as u64;
    frames.iter_mut().zip(stored).for_each(|(made, stored)| made.frame.stored = stored);
    let directory = Directory { class, frames: frames.iter().map(|made| made.frame.clone()).collect() };
    for ((at, frame), _) in directory.offsets().zip(&frames).filter(|(_, made)| made.flipped) {
        bytes[at as usize + frame.stored as usize / 2] ^= 1;
    }
    let mut named = name;
    match fate {
        Some(HEAD) => bytes[FRAMES_AT as usize / 2] ^= 1,
        Some(HALVED) => bytes.truncate(bytes.len() / 2),
        Some(LARGER) => size += 1000,
        Some(MISNAMED) => named = entries.first().map_or(PackName([7; 32]), |entry| entry.name),
        _ => {}
    }
    if matches!(fate, Some(GONE | HEAD | HALVED | MISNAMED)) {
        frames.iter_mut().for_each(|made| made.plain = None);
    }
    let object = hostile.repo.names().pack(&name);
    if fate != Some(GONE) && objects.insert(object.clone()) {
        hostile.write(&object, bytes);
    }
    entries.push(PackEntry { name: named, size, directory: directory.clone() });
    if fate == Some(TWICE) {
        entries.push(PackEntry { name: named, size, directory });
        let again =
            |made: &Made| Made { frame: made.frame.clone(), plain: made.plain.clone(), payload: Vec::new(), ..*made };
        all.extend(frames.iter().map(again).collect::<Vec<_>>());
    }
    all.extend(frames);
}

/// A folder with a file for each chunk; its tree lies in an honest pack.
fn tree(
    hostile: &mut Hostile,
    blobs: &[Blob],
    entries: &mut Vec<PackEntry>,
    objects: &mut HashSet<String>,
) -> Content {
    let extent = |id, len: usize| Extent { id: Some(id), len: len as u64 };
    let files = blobs.iter().enumerate().filter(|(_, blob)| blob.kind == BlobKind::Chunk && !blob.plain.is_empty());
    let nodes: Vec<_> =
        files.map(|(n, blob)| walker::file(&name(n), 0, vec![extent(blob.id, blob.plain.len())])).collect();
    let encoded = trees::encode(&nodes);
    let id = hostile.repo.id_keys().blob_id(BlobKind::Tree, &encoded);
    let mut frame = PlainFrame { bytes: Vec::with_capacity(encoded.len()), ..PlainFrame::new(BlobKind::Tree) };
    frame.push(id, &encoded);
    let (payload, codec, _) = payload(hostile, frame, 0, &[]);
    let lens = vec![encoded.len() as u32];
    let frame = Frame { stored: 0, codec, kind: BlobKind::Tree, depth: 0, bases: Vec::new(), lens, ids: vec![id] };
    let made = Made { payload, frame, flipped: false, plain: None };
    put(hostile, 2 * PACKS, None, vec![made], entries, &mut Vec::new(), objects);
    Content { level: 0, extents: vec![extent(id, encoded.len())] }
}

/// The name of a blob's file.
pub fn name(number: usize) -> String {
    format!("{number:02}")
}
