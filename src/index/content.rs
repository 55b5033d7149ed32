//! What the database holds: objects, packs, frames, and the map from blobs to
//! frames. Here it is put in, looked up and dropped.

use super::db::{Db, EntryMark, entry_mark};
use super::fault::Fault;
use super::loaded::{BlobCopy, Group, GroupNumber, PackMap, Wanted};
use super::map::{Entry, Live, Map};
use super::rows::{GroupRow, ObjectRow, PackRow, group_of};
use crate::error::Result;
use crate::format::index::{IndexObject, PackEntry, Vouched};
use crate::id::{IndexName, SignerId};
use crate::index::{EntryNumber, KnownObject, KnownPack};
use crate::limits;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

const ONE_GROUP: &str = "SELECT no, pack, first, offset, row, ids FROM frames WHERE no = ?1";
const GROUPS: &str = "SELECT no, pack, first, offset, row, ids FROM frames WHERE no >= ?1 AND no < ?2 ORDER BY no";

impl Db {
    /// Goes through the rows of `objects`, as far as they are sound.
    pub(super) fn each_object(&self, mut take: impl FnMut(&ObjectRow) -> Result<(), Fault>) -> Result<(), Fault> {
        let mut query = self.connection.prepare_cached(&format!("SELECT {} FROM objects", ObjectRow::COLUMNS))?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            take(&ObjectRow::read(row)?)?;
        }
        Ok(())
    }

    /// Goes through the rows of `packs`, as far as they are sound.
    pub(super) fn each_pack(&self, mut take: impl FnMut(&PackRow) -> Result<(), Fault>) -> Result<(), Fault> {
        let mut query = self.connection.prepare_cached(&format!("SELECT {} FROM packs", PackRow::COLUMNS))?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            take(&PackRow::read(row)?)?;
        }
        Ok(())
    }

    pub(super) fn objects(&self) -> Result<Vec<KnownObject>, Fault> {
        let mut found = Vec::new();
        self.each_object(|row| {
            found.push(KnownObject { name: row.name, signer: row.signer });
            Ok(())
        })?;
        Ok(found)
    }

    pub(super) fn add(
        &mut self,
        name: &IndexName,
        signer: &SignerId,
        object: &IndexObject,
    ) -> Result<Vec<EntryNumber>, Fault> {
        // Numbers that are taken back may be given to others.
        self.take_in(name, signer, object).inspect_err(|_| self.map.forget())
    }

    pub(super) fn remove(&mut self, names: &[IndexName]) -> Result<(), Fault> {
        self.drop_objects(names).inspect_err(|_| self.map.forget())
    }

    fn take_in(
        &mut self,
        name: &IndexName,
        signer: &SignerId,
        object: &IndexObject,
    ) -> Result<Vec<EntryNumber>, Fault> {
        let bound = self.groups_max();
        let t = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let known: Option<i64> = t
            .prepare_cached("SELECT no FROM objects WHERE name = ?1")?
            .query_row([name.0], |row| row.get(0))
            .optional()?;
        if let Some(known) = known {
            let mut query = t.prepare_cached("SELECT no FROM packs WHERE object = ?1 ORDER BY no")?;
            return Ok(query.query_map([known], |row| row.get(0))?.collect::<Result<_, _>>()?);
        }
        let no = t.query_row("SELECT coalesce(max(no), 0) + 1 FROM objects", [], |row| row.get(0))?;
        let row = ObjectRow::new(no, *name, *signer, object);
        row.insert(&t)?;
        let (numbers, entries) = add_packs(&t, &self.map, &row, object, &self.numbers)?;
        if next_number(&t, "frames")? > bound {
            return Err(Fault::damaged("it has no numbers left"));
        }
        self.map.add(&t, &entries, || live(&t))?;
        t.commit()?;
        Ok(numbers)
    }

    fn drop_objects(&mut self, names: &[IndexName]) -> Result<(), Fault> {
        if names.is_empty() {
            return Ok(());
        }
        let t = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut doomed = Vec::new();
        for name in names {
            let object: Option<i64> = t
                .prepare_cached("SELECT no FROM objects WHERE name = ?1")?
                .query_row([name.0], |row| row.get(0))
                .optional()?;
            let Some(object) = object else { continue };
            let query = format!("SELECT {} FROM packs WHERE object = ?1", PackRow::COLUMNS);
            let mut query = t.prepare_cached(&query)?;
            let mut rows = query.query([object])?;
            while let Some(row) = rows.next()? {
                doomed.push(PackRow::read(row)?);
            }
            t.prepare_cached("DELETE FROM objects WHERE no = ?1")?.execute([object])?;
        }
        for pack in doomed {
            t.prepare_cached("DELETE FROM frames WHERE no >= ?1 AND no < ?2")?.execute([pack.first, pack.end()])?;
            t.prepare_cached("DELETE FROM packs WHERE no = ?1")?.execute([pack.no])?;
        }
        // The map's entries that point at them go when there are many.
        let (live, entries) = live(&t)?;
        self.map.clean(&t, &live, entries)?;
        shrink(&t)?;
        t.commit()?;
        Ok(())
    }

    /// The entries that an object brought.
    pub(super) fn packs_of(&self, name: &IndexName) -> Result<Vec<EntryNumber>, Fault> {
        let mut query = self
            .connection
            .prepare_cached("SELECT no FROM packs WHERE object IN (SELECT no FROM objects WHERE name = ?1)")?;
        let rows = query.query_map([name.0], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub(super) fn packs(&self) -> Result<Vec<KnownPack>, Fault> {
        // Both tables as they were at one moment: others may be adding.
        let moment = self.connection.unchecked_transaction()?;
        let mut objects = HashMap::new();
        self.each_object(|row| {
            objects.insert(row.no, (row.name, row.signer, row.packs));
            Ok(())
        })?;
        let mut found = Vec::new();
        self.each_pack(|pack| {
            let Some((object, signer, left)) = objects.get_mut(&pack.object) else {
                return Err(Fault::damaged("a pack's row without its object"));
            };
            *left -= 1;
            let size = pack.size.unsigned_abs();
            found.push(KnownPack { number: pack.no, object: *object, name: pack.name, size, signer: *signer });
            Ok(())
        })?;
        if objects.values().any(|(_, _, left)| *left != 0) {
            return Err(Fault::damaged("rows of packs are gone"));
        }
        moment.commit()?;
        Ok(found)
    }

    pub(super) fn vouched(&self, by: &HashSet<SignerId>) -> Result<HashSet<Vouched>, Fault> {
        let mut found = HashSet::new();
        self.each_object(|row| {
            if by.contains(&row.signer) {
                found.extend(row.said()?.0.iter().map(Vouched::from_bytes));
            }
            Ok(())
        })?;
        Ok(found)
    }

    pub(super) fn superseded(&self, by: &HashSet<SignerId>) -> Result<HashSet<IndexName>, Fault> {
        let mut found = HashSet::new();
        self.each_object(|row| {
            if by.contains(&row.signer) {
                found.extend(row.said()?.1.iter().map(|name| IndexName(*name)));
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// One entry; `None` if another process has dropped it meanwhile.
    pub(super) fn entry(&self, number: EntryNumber) -> Result<Option<PackMap>, Fault> {
        let moment = self.connection.unchecked_transaction()?;
        let pack = {
            let query = format!("SELECT {} FROM packs WHERE no = ?1", PackRow::COLUMNS);
            let mut query = self.connection.prepare_cached(&query)?;
            let mut rows = query.query([number])?;
            match rows.next()? {
                Some(row) => PackRow::read(row)?,
                None => return Ok(None),
            }
        };
        let mut frames = Vec::new();
        {
            let mut query = self.connection.prepare_cached(GROUPS)?;
            let mut rows = query.query([pack.first, pack.end()])?;
            let mut groups = 0;
            while let Some(row) = rows.next()? {
                let group = group_of(row)?;
                if group.entry != number || group.first as usize != frames.len() {
                    return Err(Fault::damaged("frames that are not their pack's"));
                }
                if !group.is_whole() {
                    return Err(Fault::damaged("ids whose hash does not match"));
                }
                frames.extend(group.frames());
                groups += 1;
            }
            if groups != pack.groups {
                return Err(Fault::damaged("rows of frames are gone"));
            }
        }
        moment.commit()?;
        let (name, size) = (pack.name, pack.size.unsigned_abs());
        Ok(Some(PackMap { number, name, size, class: pack.class()?, frames }))
    }

    /// One group; `None` if its pack was dropped.
    pub(super) fn group(&self, number: GroupNumber) -> Result<Option<Group>, Fault> {
        {
            let mut query = self.connection.prepare_cached(ONE_GROUP)?;
            let mut rows = query.query([number])?;
            if let Some(row) = rows.next()? {
                return Ok(Some(group_of(row)?));
            }
        }
        // Both as they are at one moment.
        let query = "SELECT count(*) FROM packs WHERE first = (SELECT max(first) FROM packs WHERE first <= ?1)
            AND first + groups > ?1 AND NOT EXISTS (SELECT 1 FROM frames WHERE no = ?1)";
        let missed: i64 = self.connection.prepare_cached(query)?.query_row([number], |row| row.get(0))?;
        if missed > 0 {
            return Err(Fault::damaged("rows of frames are gone"));
        }
        Ok(None)
    }

    /// Copies of a blob, by what this process knows; `surely`: and by what others have
    /// changed meanwhile, if the database shows none. What `known` has is not read again.
    pub(super) fn look_up(
        &mut self,
        wanted: Wanted<'_>,
        surely: bool,
        mut known: impl FnMut(GroupNumber) -> Option<Arc<Group>>,
    ) -> Result<Vec<BlobCopy>, Fault> {
        if !self.map.is_read() {
            self.map.refresh(&self.connection)?;
        }
        let key = self.map.key(&wanted.base());
        let mut numbers = Vec::new();
        loop {
            numbers.clear();
            let whole = self.map.candidates(&self.connection, key, |number| numbers.push(number))?;
            // A copy was found in the database itself, and not only in what is remembered of it.
            let mut is_there = false;
            let mut found = Vec::new();
            for number in &numbers {
                let (group, is_new) = match known(*number) {
                    Some(group) => (group, false),
                    None => match self.group(*number)? {
                        Some(group) => (Arc::new(group), true),
                        None => continue,
                    },
                };
                let before = found.len();
                found.extend(group.copies(wanted));
                is_there |= is_new && found.len() > before;
                if (found.len() == before || !wanted.is_whole_id()) && !group.is_whole() {
                    return Err(Fault::damaged("ids whose hash does not match"));
                }
            }
            let done = whole && (is_there || !surely || self.is_private());
            if done || !self.map.refresh(&self.connection)? {
                if !whole {
                    return Err(Fault::damaged("a part of the map is gone"));
                }
                return Ok(found);
            }
            // Another process has added blobs or merged runs: look again.
        }
    }

    /// Takes note of what other processes have added or dropped.
    pub(super) fn catch_up(&mut self) -> Result<(), Fault> {
        if self.map.is_read() { self.map.refresh(&self.connection).map(drop) } else { Ok(()) }
    }
}

/// All groups that are there, and how many entries of the map point at them.
fn live(t: &Connection) -> Result<(Live, u64), Fault> {
    let mut query = t.prepare_cached("SELECT first, groups, keys FROM packs WHERE groups > 0 ORDER BY first")?;
    let mut rows = query.query([])?;
    let (mut ranges, mut entries) = (Vec::<(GroupNumber, GroupNumber)>::new(), 0u64);
    while let Some(row) = rows.next()? {
        let (first, groups, keys): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        entries += keys.unsigned_abs();
        match ranges.last_mut() {
            Some((_, end)) if *end == first => *end += groups,
            _ => ranges.push((first, first + groups)),
        }
    }
    Ok((Live(ranges), entries))
}

/// The number that comes after all that a table ever had.
fn next_number(t: &Connection, table: &str) -> Result<i64, Fault> {
    let query = "SELECT coalesce(max(seq), 0) + 1 FROM sqlite_sequence WHERE name = ?1";
    Ok(t.prepare_cached(query)?.query_row([table], |row| row.get(0))?)
}

/// Takes in an object's entries; returns their numbers, and what the map must hold of them, sorted.
fn add_packs(
    t: &Transaction<'_>,
    map: &Map,
    of: &ObjectRow,
    object: &IndexObject,
    before: &HashMap<EntryMark, EntryNumber>,
) -> Result<(Vec<EntryNumber>, Vec<Entry>), Fault> {
    let (mut next, mut group) = (next_number(t, "packs")?, next_number(t, "frames")?);
    let mut numbers = Vec::with_capacity(object.packs.len());
    let mut entries = Vec::with_capacity(super::blobs_of(&object.packs));
    for entry in &object.packs {
        // An object may name a pack twice: only one of the two has the number from before.
        let before = before.get(&entry_mark(&of.name.0, &entry.name.0)).filter(|number| !numbers.contains(*number));
        let number = before.copied().unwrap_or(next);
        if number == next {
            next += 1;
        }
        let mut row = PackRow::new(number, of.no, entry, group);
        let known = entries.len();
        row.groups = add_frames(t, map, entry, (number, group), &mut entries)?;
        row.keys = (entries.len() - known) as i64;
        row.insert(t)?;
        group = row.end();
        numbers.push(number);
    }
    entries.sort_unstable();
    Ok((numbers, entries))
}

/// Takes in a pack's frames, as groups from `group` on; returns how many those are.
fn add_frames(
    t: &Transaction<'_>,
    map: &Map,
    pack: &PackEntry,
    (number, group): (EntryNumber, GroupNumber),
    entries: &mut Vec<Entry>,
) -> Result<i64, Fault> {
    let mut row: Option<GroupRow> = None;
    let (mut at, mut begin) = (group, entries.len());
    // An id that stands in a group twice is one entry of the map.
    let close = |row: GroupRow, at: GroupNumber, entries: &mut Vec<Entry>, begin: usize| {
        entries[begin..].sort_unstable();
        let mut kept = begin;
        for n in begin..entries.len() {
            if n == begin || entries[n] != entries[n - 1] {
                entries[kept] = entries[n];
                kept += 1;
            }
        }
        entries.truncate(kept);
        row.insert(t, at)
    };
    for (frame_number, (offset, frame)) in pack.directory.offsets().enumerate() {
        if !row.as_mut().is_some_and(|row| row.takes(frame)) {
            if let Some(full) = row.take() {
                close(full, at, entries, begin)?;
                at += 1;
                begin = entries.len();
            }
            let mut new = GroupRow::new(number, pack.name, frame_number as u32, offset);
            new.takes(frame);
            row = Some(new);
        }
        entries.extend(frame.ids.iter().map(|id| (map.key(&id.base()), at)));
    }
    if let Some(last) = row {
        close(last, at, entries, begin)?;
        at += 1;
    }
    Ok(at - group)
}

/// Gives pages back once many are free: what was removed must not fill the disk for ever.
fn shrink(t: &Transaction<'_>) -> Result<(), Fault> {
    let count = |pragma| t.query_row(pragma, [], |row| row.get::<_, i64>(0));
    let (free, all, size) =
        (count("PRAGMA freelist_count")?, count("PRAGMA page_count")?, count("PRAGMA page_size")?);
    if free * size >= limits::LOCAL_FREE_PAGES * 4096 && free >= all / 4 {
        t.pragma(None, "incremental_vacuum", 0, |_| Ok(()))?;
    }
    Ok(())
}
