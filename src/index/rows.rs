//! Rows of the database, each closed by a hash over all that it says, its
//! number included: a page that rotted shows when it is read. Those of the map are
//! in [`super::map`].

use super::fault::Fault;
use super::loaded::{Group, GroupNumber};
use crate::error::{Malformed, Result};
use crate::format::index::{IndexObject, PackEntry};
use crate::format::pack::{Frame, StorageClass};
use crate::id::{IndexName, PackName, SignerId};
use crate::index::EntryNumber;
use crate::limits;
use minicbor::decode::Decoder;
use rusqlite::{Connection, Row, params};

/// Half a hash of a row's parts. The parts come first: whole blocks of a long one are hashed side by
/// side, if nothing stands before it.
pub(super) fn sum(numbers: &[i64], parts: &[&[u8]]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    let lens = parts.iter().map(|part| part.len() as i64);
    for number in lens.chain(numbers.iter().copied()) {
        hasher.update(&number.to_le_bytes());
    }
    let mut half = [0; 16];
    hasher.finalize_xof().fill(&mut half);
    half
}

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
        said.extend(object.vouched.iter().flat_map(|name| name.0));
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
    pub(super) fn said(&self) -> Result<(&[Name], &[Name]), Fault> {
        let cut = || Fault::damaged("an object's row cut short");
        let (count, rest) = self.said.split_first_chunk::<8>().ok_or_else(cut)?;
        let count = usize::try_from(u64::from_le_bytes(*count)).map_err(|_| cut())?;
        let (names, []) = rest.as_chunks::<32>() else { return Err(cut()) };
        names.split_at_checked(count).ok_or_else(cut)
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

/// A row of `frames` to be: frames that lie one after the other, until it is long enough.
pub(super) struct GroupRow {
    entry: EntryNumber,
    first: u32,
    offset: u64,
    /// The pack's name, the frames' records, and at last the hash.
    row: Vec<u8>,
}

impl GroupRow {
    /// Its first frame's number and offset in the pack.
    pub(super) fn new(entry: EntryNumber, pack: &PackName, first: u32, offset: u64) -> Self {
        Self { entry, first, offset, row: pack.0.to_vec() }
    }

    /// Takes in a frame's record; false if another row must.
    pub(super) fn takes(&mut self, record: &[u8]) -> bool {
        let takes = self.row.len() == PackName::LEN || self.row.len() + record.len() <= limits::INDEX_ROW_BYTES;
        if takes {
            self.row.extend_from_slice(record);
        }
        takes
    }

    pub(super) fn insert(mut self, t: &Connection, no: GroupNumber) -> Result<(), Fault> {
        let (first, offset) = (i64::from(self.first), self.offset as i64);
        let hash = sum(&[no, self.entry, first, offset], &[&self.row]);
        self.row.extend_from_slice(&hash);
        t.prepare_cached("INSERT INTO frames(no, pack, first, offset, row) VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![no, self.entry, first, offset, self.row])?;
        Ok(())
    }
}

/// A group, from a row's `no, pack, first, offset, row`.
pub(super) fn group_of(row: &Row<'_>) -> Result<Group, Fault> {
    let (no, entry, first, offset): (i64, i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
    let bytes = row.get_ref(4)?.as_blob().map_err(|_| Fault::damaged("frames of another type"))?;
    let read = || {
        let (row, hash) = bytes.split_last_chunk::<16>().ok_or_else(|| Malformed::new("frames cut short"))?;
        if sum(&[no, entry, first, offset], &[row]) != *hash {
            return Err(Malformed::new("frames whose hash does not match"));
        }
        let (pack, records) = row.split_first_chunk().ok_or_else(|| Malformed::new("frames without a pack"))?;
        let mut d = Decoder::new(records);
        let mut frames = Vec::new();
        while d.position() < records.len() {
            frames.push(Frame::read(&mut d, true)?);
        }
        let first = u32::try_from(first).ok().filter(|first| *first as usize <= limits::PACK_FRAMES_MAX);
        let first = first.ok_or_else(|| Malformed::new("a frame of impossible number"))?;
        Ok(Group::new((no, entry, PackName(*pack)), (first, offset.unsigned_abs()), frames))
    };
    read().map_err(|e| Fault::Damaged(e.0))
}
