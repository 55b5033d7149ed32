//! Rows of the database, each closed by a hash over all that it says, its
//! number included: a page that rotted shows when it is read. Those of the map are
//! in [`super::map`].

use super::closing::sum;
use super::fault::Fault;
use super::loaded::{Group, GroupNumber, Head};
use crate::error::{Malformed, Result};
use crate::format::index::{IndexObject, PackEntry, Vouched};
use crate::format::pack::{BlobKind, Codec, Frame, Shape, StorageClass};
use crate::id::{BaseId, BlobId, IndexName, PackName, SignerId};
use crate::index::EntryNumber;
use crate::limits;
use rusqlite::{Connection, Row, params};
use std::sync::OnceLock;

/// A name's bytes: of a pack or an index object.
type Name = [u8; 32];

/// A row of `objects`.
pub(super) struct ObjectRow {
    pub(super) no: i64,
    pub(super) name: IndexName,
    pub(super) signer: SignerId,
    pub(super) packs: i64,
    said: Vec<u8>,
}

impl ObjectRow {
    pub(super) const COLUMNS: &str = "no, name, signer, packs, said, sum";

    pub(super) fn new(no: i64, name: IndexName, signer: SignerId, object: &IndexObject) -> Self {
        let mut said = (object.vouched.len() as u64).to_le_bytes().to_vec();
        said.extend(object.vouched.iter().flat_map(|vouched| vouched.to_bytes()));
        said.extend(object.supersedes.iter().flat_map(|name| name.0));
        Self { no, name, signer, packs: object.packs.len() as i64, said }
    }

    fn sum(&self) -> [u8; 16] {
        sum(&[self.no, self.packs], &[&self.name.0, &self.signer.0, &self.said])
    }

    pub(super) fn read(row: &Row<'_>) -> Result<Self, Fault> {
        let found = Self {
            no: row.get(0)?,
            name: IndexName(row.get(1)?),
            signer: SignerId(row.get(2)?),
            packs: row.get(3)?,
            said: row.get(4)?,
        };
        if found.sum() != row.get::<_, [u8; 16]>(5)? {
            return Err(Fault::damaged("an object's row whose hash does not match"));
        }
        Ok(found)
    }

    pub(super) fn insert(&self, t: &Connection) -> Result<(), Fault> {
        t.prepare_cached("INSERT INTO objects(no, name, signer, packs, said, sum) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
            .execute(params![self.no, self.name.0, self.signer.0, self.packs, self.said, self.sum()])?;
        Ok(())
    }

    /// What the object vouches for, and what it supersedes.
    pub(super) fn said(&self) -> Result<(&[[u8; Vouched::LEN]], &[Name]), Fault> {
        let cut = || Fault::damaged("an object's row cut short");
        let (count, rest) = self.said.split_first_chunk::<8>().ok_or_else(cut)?;
        let count = usize::try_from(u64::from_le_bytes(*count)).map_err(|_| cut())?;
        let (vouched, rest) =
            count.checked_mul(Vouched::LEN).and_then(|len| rest.split_at_checked(len)).ok_or_else(cut)?;
        let (superseded, []) = rest.as_chunks() else { return Err(cut()) };
        Ok((vouched.as_chunks().0, superseded))
    }
}

/// A row of `packs`: an entry without its frames.
pub(super) struct PackRow {
    pub(super) no: EntryNumber,
    pub(super) object: i64,
    pub(super) name: PackName,
    pub(super) size: i64,
    class: i64,
    /// The first of its groups.
    pub(super) first: GroupNumber,
    /// How many groups it has.
    pub(super) groups: i64,
    /// How many entries of the map point at them.
    pub(super) keys: i64,
}

impl PackRow {
    pub(super) const COLUMNS: &str = "no, object, name, size, class, first, groups, keys, sum";

    pub(super) fn new(no: EntryNumber, object: i64, entry: &PackEntry, first: GroupNumber) -> Self {
        let (size, class) = (entry.size as i64, entry.directory.class as i64);
        Self { no, object, name: entry.name, size, class, first, groups: 0, keys: 0 }
    }

    fn sum(&self) -> [u8; 16] {
        let numbers = [self.no, self.object, self.size, self.class, self.first, self.groups, self.keys];
        sum(&numbers, &[&self.name.0])
    }

    pub(super) fn read(row: &Row<'_>) -> Result<Self, Fault> {
        let found = Self {
            no: row.get(0)?,
            object: row.get(1)?,
            name: PackName(row.get(2)?),
            size: row.get(3)?,
            class: row.get(4)?,
            first: row.get(5)?,
            groups: row.get(6)?,
            keys: row.get(7)?,
        };
        if found.sum() != row.get::<_, [u8; 16]>(8)? {
            return Err(Fault::damaged("a pack's row whose hash does not match"));
        }
        Ok(found)
    }

    pub(super) fn insert(&self, t: &Connection) -> Result<(), Fault> {
        let query = "INSERT INTO packs(no, object, name, size, class, first, groups, keys, sum)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        t.prepare_cached(query)?.execute(params![
            self.no,
            self.object,
            self.name.0,
            self.size,
            self.class,
            self.first,
            self.groups,
            self.keys,
            self.sum()
        ])?;
        Ok(())
    }

    pub(super) fn class(&self) -> Result<StorageClass, Fault> {
        let class = u8::try_from(self.class).ok().and_then(StorageClass::from_byte);
        class.ok_or_else(|| Fault::damaged("a pack of unknown class"))
    }

    /// Behind the last of its groups.
    pub(super) fn end(&self) -> GroupNumber {
        self.first.saturating_add(self.groups)
    }
}

/// A frame in a row of `frames`: stored bytes, blobs, bases, codec, kind, depth.
const HEAD_LEN: usize = 4 + 2 + 2 + 3;
/// What a row holds of each blob: its length, and its id.
const BLOB_LEN: usize = 4 + BlobId::LEN;

/// A row of `frames` to be: frames that lie one after the other, until it is long enough.
pub(super) struct GroupRow {
    entry: EntryNumber,
    pack: PackName,
    first: u32,
    offset: u64,
    frames: u16,
    heads: Vec<u8>,
    lens: Vec<u8>,
    bases: Vec<u8>,
    ids: Vec<u8>,
}

impl GroupRow {
    /// Its first frame's number and offset in the pack.
    pub(super) fn new(entry: EntryNumber, pack: PackName, first: u32, offset: u64) -> Self {
        let (heads, lens, bases, ids) = Default::default();
        Self { entry, pack, first, offset, frames: 0, heads, lens, bases, ids }
    }

    /// Takes in a frame; false if another row must.
    pub(super) fn takes(&mut self, frame: &Frame) -> bool {
        let known = PackName::LEN + self.heads.len() + self.lens.len() + self.bases.len() + self.ids.len();
        let more = HEAD_LEN + frame.bases.len() * BaseId::LEN + frame.lens.len() * BLOB_LEN;
        if self.frames > 0 && (known + more > limits::INDEX_ROW_BYTES || self.frames == u16::MAX) {
            return false;
        }
        // No decoder lets a frame pass that has more; the row would be taken for a damaged one.
        let count = |n: usize| u16::try_from(n).unwrap_or(u16::MAX).to_le_bytes();
        self.frames += 1;
        self.heads.extend(frame.stored.to_le_bytes());
        self.heads.extend(count(frame.lens.len()));
        self.heads.extend(count(frame.bases.len()));
        self.heads.extend([frame.codec as u8, frame.kind as u8, frame.depth]);
        self.lens.extend(frame.lens.iter().flat_map(|len| len.to_le_bytes()));
        self.bases.extend(frame.bases.iter().flat_map(|id| id.0));
        self.ids.extend(frame.ids.iter().flat_map(|id| id.0));
        true
    }

    pub(super) fn insert(self, t: &Connection, no: GroupNumber) -> Result<(), Fault> {
        let (first, offset) = (i64::from(self.first), self.offset as i64);
        let ids_hash = sum(&[no], &[&self.ids]);
        let mut row = Vec::with_capacity(limits::INDEX_ROW_BYTES);
        for part in [&self.pack.0[..], &ids_hash, &self.frames.to_le_bytes(), &self.heads, &self.lens, &self.bases] {
            row.extend_from_slice(part);
        }
        let hash = sum(&[no, self.entry, first, offset], &[&row]);
        row.extend_from_slice(&hash);
        t.prepare_cached("INSERT INTO frames(no, pack, first, offset, row, ids) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
            .execute(params![no, self.entry, first, offset, row, self.ids])?;
        Ok(())
    }
}

/// A group, from a row's `no, pack, first, offset, row, ids`. Its ids are not held against their hash: see [`Group::hash`].
pub(super) fn group_of(row: &Row<'_>) -> Result<Group, Fault> {
    let (no, entry, first, offset): (i64, i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
    let blob = |column| row.get_ref(column)?.as_blob().map_err(|_| Fault::damaged("frames of another type"));
    let (bytes, ids) = (blob(4)?, blob(5)?);
    let (said, hash) = bytes.split_last_chunk::<16>().ok_or_else(|| Fault::damaged("frames cut short"))?;
    if sum(&[no, entry, first, offset], &[said]) != *hash {
        return Err(Fault::damaged("frames whose hash does not match"));
    }
    let first = u32::try_from(first).ok().filter(|first| *first as usize <= limits::PACK_FRAMES_MAX);
    let first = first.ok_or_else(|| Fault::damaged("a frame of impossible number"))?;
    let group = read_group((no, entry, first), offset.unsigned_abs(), said, ids);
    group.map_err(|e| Fault::Damaged(e.0))
}

fn read_group(
    (number, entry, first): (GroupNumber, EntryNumber, u32),
    offset: u64,
    said: &[u8],
    ids: &[u8],
) -> Result<Group, Malformed> {
    let cut = || Malformed::new("frames cut short");
    let (pack, rest) = said.split_first_chunk().ok_or_else(cut)?;
    let (hash, rest) = rest.split_first_chunk().ok_or_else(cut)?;
    let (frames, rest) = rest.split_first_chunk().ok_or_else(cut)?;
    let (heads, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*frames)) * HEAD_LEN).ok_or_else(cut)?;
    let (lens, bases) = rest.split_at_checked(ids.len() / BlobId::LEN * 4).ok_or_else(cut)?;
    let lens: Vec<u32> = lens.as_chunks().0.iter().map(|len| u32::from_le_bytes(*len)).collect();
    let bases: Vec<BaseId> = bases.as_chunks().0.iter().map(|id| BaseId(*id)).collect();
    let (mut at, mut next_base, mut next_blob) = (offset, 0, 0);
    let mut found = Vec::with_capacity(heads.len() / HEAD_LEN);
    for head in heads.as_chunks::<HEAD_LEN>().0 {
        let [a, b, c, d, e, f, g, h, codec, kind, depth] = *head;
        let (stored, bases_from, blobs_from) = (u32::from_le_bytes([a, b, c, d]), next_base, next_blob);
        let (blobs, bases) = (usize::from(u16::from_le_bytes([e, f])), usize::from(u16::from_le_bytes([g, h])));
        let codec = Codec::from_byte(codec).ok_or_else(|| Malformed::new("a frame with unknown codec"))?;
        let kind = BlobKind::from_byte(kind).ok_or_else(|| Malformed::new("a frame of unknown blob kind"))?;
        (next_base, next_blob) = (next_base + bases, next_blob + blobs);
        let plain = lens.get(blobs_from..next_blob).ok_or_else(cut)?.iter().map(|len| u64::from(*len)).sum();
        Shape { stored, codec, depth, bases, blobs, plain }.check()?;
        found.push(Head {
            offset: at,
            stored,
            codec,
            kind,
            depth,
            bases: bases_from,
            blobs: blobs_from,
            frame: OnceLock::new(),
        });
        at = at.saturating_add(stored.into());
    }
    if (next_base, next_blob, next_blob * BlobId::LEN) != (bases.len(), lens.len(), ids.len()) {
        return Err(Malformed::new("frames with other numbers of bases and blobs"));
    }
    let (pack, hash, ids) = (PackName(*pack), *hash, ids.into());
    Ok(Group {
        number,
        entry,
        pack,
        first,
        heads: found,
        lens,
        bases,
        ids,
        hash,
        whole: OnceLock::new(),
        order: OnceLock::new(),
    })
}
