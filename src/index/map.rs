//! The map from blobs to groups of frames: sorted runs, which are never
//! changed, only merged into larger ones.
//!
//! An object's blobs become a run. Four runs of about one size become one, up
//! to [`limits::INDEX_RUN_BLOBS`]: what is added is written a few times over
//! and never inserted at random places, and there are some 10 runs to look in.
//! Each has a filter of its own that answers nearly all look-ups in vain; it is
//! made and written with its run, so that neither can be without the other.
//!
//! A run is cut into blocks by the first bits of the keys, a row each: the key
//! tells the row. A key is a hash of half of the id under a secret of this file's: who
//! makes an index object chooses its ids, and must not choose a block for them.
//!
//! An entry holds what its block does not tell of its key, in three to five
//! bytes, and the group's number in four.
//!
//! Entries outlive the groups that they point at, until their run is merged.
//! What an entry says is never believed, the group is read.

use super::blocks::Blocks;
use super::closing::sum;
use super::fault::Fault;
use super::filter::{Filter, KEY_BITS};
use super::loaded::GroupNumber;
use crate::id::BaseId;
use crate::limits;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, params};
use std::collections::HashMap;

/// Entries of a block at most, in the mean.
const BLOCK_ENTRIES: u64 = 256;
/// Numbers of blocks that each run has for itself.
const BLOCKS_MAX: i64 = 1 << 24;
/// Bytes of a group's number in an entry.
const GROUP_LEN: usize = 4;
/// Entries by which one may stand beside its place in the mean: twice the deviation of a block's middle.
const NEAR: usize = 16;
/// Bytes of the hash that closes a block.
const HASH_LEN: usize = 16;
/// Runs of one size before they are merged, and how much larger the next size is.
const FAN: u64 = 4;

/// An entry of the map: a key, and the group that may hold its blob.
pub(super) type Entry = (u64, GroupNumber);

/// How the entries of a block look: they leave out of their keys what its number says.
#[derive(Clone, Copy)]
struct Form {
    /// Bits of a key that an entry holds.
    bits: u32,
    /// Bytes in which it does.
    key_len: usize,
}

impl Form {
    /// Of a run of two to the power of `bits` blocks.
    fn of(bits: u32) -> Self {
        let bits = KEY_BITS - bits;
        Self { bits, key_len: bits.div_ceil(8) as usize }
    }

    fn entry_len(self) -> usize {
        self.key_len + GROUP_LEN
    }

    fn low(self, key: u64) -> u64 {
        key & ((1 << self.bits) - 1)
    }

    fn write(self, (key, group): Entry, out: &mut Vec<u8>) {
        let (key, group) = (self.low(key).to_be_bytes(), group.to_be_bytes());
        out.extend_from_slice(&key[key.len() - self.key_len..]);
        out.extend_from_slice(&group[group.len() - GROUP_LEN..]);
    }

    /// What is there of the key, and the group.
    fn read(self, entry: &[u8]) -> Entry {
        let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        let (key, group) = entry.split_at(self.key_len);
        (number(key), number(group) as GroupNumber)
    }

    /// The groups of a key's entries in its block.
    fn groups(self, block: &[u8], key: u64) -> impl Iterator<Item = GroupNumber> {
        let key = self.low(key);
        let at =
            move |n: usize| block.get(n * self.entry_len()..(n + 1) * self.entry_len()).map(|entry| self.read(entry));
        let is_before = |n: usize| at(n).is_some_and(|entry| entry.0 < key);
        let count = block.len() / self.entry_len();
        // Keys are spread evenly: it stands near where it would if they were so exactly.
        let guess = ((u128::from(key) * count as u128) >> self.bits) as usize;
        let (low, high) = (guess.saturating_sub(NEAR), count.min(guess + NEAR));
        let (mut from, mut to) = match (is_before(low), is_before(high)) {
            (true, false) => (low, high),
            (true, true) => (high, count),
            (false, _) => (0, low),
        };
        while from < to {
            let middle = usize::midpoint(from, to);
            if is_before(middle) {
                from = middle + 1;
            } else {
                to = middle;
            }
        }
        (from..).map_while(at).take_while(move |entry| entry.0 == key).map(|entry| entry.1)
    }
}

/// The secret under which ids become keys.
pub(super) type Secret = [u8; 32];

/// Groups that are there, as ranges of numbers, ascending.
pub(super) struct Live(pub(super) Vec<(GroupNumber, GroupNumber)>);

impl Live {
    fn has(&self, group: GroupNumber) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= group);
        after.checked_sub(1).is_some_and(|at| group < self.0[at].1)
    }
}

struct Run {
    no: i64,
    entries: u64,
    /// Its blocks: two to the power of this.
    bits: u32,
    /// `None`: there is no room for it in memory.
    filter: Option<Filter>,
}

impl Run {
    /// The number of the block's row.
    fn row(&self, block: u64) -> i64 {
        self.no * BLOCKS_MAX + block as i64
    }

    fn form(&self) -> Form {
        Form::of(self.bits)
    }

    /// Runs of one size are merged. Those of the last size stay as they are.
    fn size(&self) -> Option<u32> {
        let mut bound = 2 * limits::INDEX_BLOBS_TARGET as u64;
        let mut size = 0;
        while self.entries > bound {
            bound *= FAN;
            size += 1;
        }
        (self.entries <= limits::INDEX_RUN_BLOBS / FAN).then_some(size)
    }
}

/// What this process knows of the map.
pub(super) struct Map {
    words: [u64; 2],
    runs: Vec<Run>,
    blocks: Blocks,
    /// What SQLite said when the runs were read; others change it.
    version: Option<i64>,
}

impl Map {
    pub(super) fn new(secret: &Secret) -> Self {
        let mut words = [0; 2];
        for (word, bytes) in words.iter_mut().zip(secret.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        Self { words, runs: Vec::new(), blocks: Blocks::new(limits::INDEX_MAP_BYTES), version: None }
    }

    pub(super) fn key(&self, id: &BaseId) -> u64 {
        let both = u128::from_le_bytes(id.0);
        let product = u128::from(both as u64 ^ self.words[0]) * u128::from((both >> 64) as u64 ^ self.words[1]);
        let key = product as u64 ^ (product >> 64) as u64;
        key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - KEY_BITS)
    }

    /// Forgets what was read.
    pub(super) fn forget(&mut self) {
        self.runs.clear();
        self.blocks.clear();
        self.version = None;
    }

    /// True if the runs were read.
    pub(super) fn is_read(&self) -> bool {
        self.version.is_some()
    }

    /// Reads which runs there are; false if that is known already.
    pub(super) fn refresh(&mut self, connection: &Connection) -> Result<bool, Fault> {
        let version = connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
        if self.version == Some(version) {
            return Ok(false);
        }
        self.reload(connection)?;
        self.version = Some(version);
        Ok(true)
    }

    /// The same after a change of this process's own.
    pub(super) fn reload(&mut self, connection: &Connection) -> Result<(), Fault> {
        let mut known: HashMap<i64, Run> = self.runs.drain(..).map(|run| (run.no, run)).collect();
        self.version = None;
        // The list and the filters as they are at one moment.
        let moment = connection.is_autocommit().then(|| connection.unchecked_transaction()).transpose()?;
        let mut filters = 0;
        // The smallest first: each filter saves as much, and they take the least room.
        let mut query =
            connection.prepare_cached("SELECT no, entries, bits, bytes, sum FROM runs ORDER BY entries, no")?;
        let mut rows = query.query([])?;
        let mut runs = Vec::new();
        while let Some(row) = rows.next()? {
            let (no, entries, bits, bytes): (i64, i64, i64, i64) =
                (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
            if sum(&[no, entries, bits, bytes], &[]) != row.get::<_, [u8; 16]>(4)? || !(0..=24).contains(&bits) {
                return Err(Fault::damaged("a run's row whose hash does not match"));
            }
            filters += bytes;
            let fits = filters <= limits::INDEX_FILTER_BYTES;
            let mut run = known.remove(&no).unwrap_or(Run {
                no,
                entries: entries.unsigned_abs(),
                bits: bits as u32,
                filter: None,
            });
            if fits && run.filter.is_none() {
                run.filter = Some(filter_of(connection, no)?);
            }
            runs.push(run);
        }
        if let Some(moment) = moment {
            moment.commit()?;
        }
        self.runs = runs;
        Ok(())
    }

    /// Gives the groups that may hold a blob of this key to `take`; false if what is known of the runs
    /// is out of date.
    pub(super) fn candidates(
        &mut self,
        connection: &Connection,
        key: u64,
        mut take: impl FnMut(GroupNumber),
    ) -> Result<bool, Fault> {
        let with_key = |run: &&Run| run.filter.as_ref().is_none_or(|filter| filter.may_have(key));
        for run in self.runs.iter().filter(with_key) {
            let row = run.row(key >> run.form().bits);
            if let Some(block) = self.blocks.get(row) {
                run.form().groups(block, key).for_each(&mut take);
                continue;
            }
            let mut query = connection.prepare_cached(BLOCK)?;
            let mut rows = query.query([row])?;
            let Some(found) = rows.next()? else { return Ok(false) };
            let block = block_of(found, row)?;
            run.form().groups(block, key).for_each(&mut take);
            self.blocks.keep(row, block);
        }
        Ok(true)
    }

    /// Entries in all runs, those that point at nothing included.
    fn entries(&self) -> u64 {
        self.runs.iter().map(|run| run.entries).sum()
    }

    /// Takes in entries, sorted, and merges what there is of one size. `live` gives the groups that
    /// are there and the number of their entries.
    pub(super) fn add(
        &mut self,
        t: &Connection,
        entries: &[Entry],
        live: impl FnOnce() -> Result<(Live, u64), Fault>,
    ) -> Result<(), Fault> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut writer = Writer::new(t, entries.len() as u64)?;
        for entry in entries {
            writer.push(*entry)?;
        }
        writer.finish()?;
        self.reload(t)?;
        let mut live = Some(live);
        let mut known = None;
        while let Some(runs) = self.due() {
            if let Some(live) = live.take() {
                known = Some(live()?);
            }
            let live = known.as_ref().filter(|(_, entries)| *entries < self.entries()).map(|(live, _)| live);
            merge(t, &runs, live)?;
            self.reload(t)?;
        }
        Ok(())
    }

    /// Runs of one size that are enough to be merged.
    fn due(&self) -> Option<Vec<Source>> {
        let mut of_size: HashMap<u32, Vec<Source>> = HashMap::new();
        for run in &self.runs {
            let Some(size) = run.size() else { continue };
            let same = of_size.entry(size).or_default();
            same.push(Source::of(run));
            if same.len() as u64 == FAN {
                return of_size.remove(&size);
            }
        }
        None
    }

    /// Drops entries that point at nothing, once they are many.
    pub(super) fn clean(&mut self, t: &Connection, live: &Live, entries: u64) -> Result<(), Fault> {
        self.reload(t)?;
        let all = self.entries();
        if all.saturating_sub(entries) > all / 4 {
            for run in &self.runs {
                merge(t, &[Source::of(run)], Some(live))?;
            }
        }
        self.reload(t)
    }
}

const BLOCK: &str = "SELECT block FROM blobs WHERE no = ?1";

/// A block's entries.
fn block_of<'r>(row: &'r Row<'_>, no: i64) -> Result<&'r [u8], Fault> {
    let (entries, hash) = row.get_ref(0)?.as_blob().unwrap_or_default().split_last_chunk::<HASH_LEN>().unzip();
    let entries = entries.unwrap_or_default();
    if hash != Some(&sum(&[no], &[entries])) {
        return Err(Fault::damaged("a part of the map whose hash does not match"));
    }
    Ok(entries)
}

fn filter_of(connection: &Connection, run: i64) -> Result<Filter, Fault> {
    let mut query = connection.prepare_cached("SELECT filter FROM filters WHERE run = ?1")?;
    let filter = query.query_row([run], |row| {
        let bytes = row.get_ref(0)?.as_blob()?;
        Ok(bytes
            .split_last_chunk::<16>()
            .and_then(|(bytes, hash)| (sum(&[run], &[bytes]) == *hash).then(|| Filter::read(bytes)).flatten()))
    });
    filter.optional()?.flatten().ok_or_else(|| Fault::damaged("a run's filter whose hash does not match"))
}

/// Writes a run.
struct Writer<'t> {
    t: &'t Connection,
    insert: CachedStatement<'t>,
    run: Run,
    filter: Filter,
    block: Vec<u8>,
    /// The block that is being filled.
    at: u64,
    last: Option<Entry>,
}

impl<'t> Writer<'t> {
    /// For at most so many entries, which must come in order.
    fn new(t: &'t Connection, entries: u64) -> Result<Self, Fault> {
        let query = "SELECT coalesce(max(seq), 0) + 1 FROM sqlite_sequence WHERE name = 'runs'";
        let no = t.prepare_cached(query)?.query_row([], |row| row.get(0))?;
        let bits = entries.div_ceil(BLOCK_ENTRIES).next_power_of_two().trailing_zeros().min(24);
        let insert = t.prepare_cached("INSERT INTO blobs(no, block) VALUES (?1, ?2)")?;
        let run = Run { no, entries: 0, bits, filter: None };
        Ok(Self { t, insert, run, filter: Filter::for_keys(entries), block: Vec::new(), at: 0, last: None })
    }

    fn push(&mut self, entry: Entry) -> Result<(), Fault> {
        if self.last.is_some_and(|last| last >= entry) {
            if self.last == Some(entry) {
                return Ok(());
            }
            return Err(Fault::damaged("a run that is not in order"));
        }
        self.last = Some(entry);
        let form = self.run.form();
        while self.at < entry.0 >> form.bits {
            self.next_block()?;
        }
        form.write(entry, &mut self.block);
        self.filter.insert(entry.0);
        self.run.entries += 1;
        Ok(())
    }

    /// A block without entries has a row too: one that is not there is gone.
    fn next_block(&mut self) -> Result<(), Fault> {
        let row = self.run.row(self.at);
        let hash = sum(&[row], &[&self.block]);
        self.block.extend_from_slice(&hash);
        self.insert.execute(params![row, self.block])?;
        self.block.clear();
        self.at += 1;
        Ok(())
    }

    fn finish(mut self) -> Result<(), Fault> {
        if self.run.entries == 0 {
            return Ok(());
        }
        while self.at < 1 << self.run.bits {
            self.next_block()?;
        }
        let mut filter = self.filter.bytes();
        let (no, entries, bits, bytes) =
            (self.run.no, self.run.entries as i64, i64::from(self.run.bits), filter.len() as i64);
        let hash = sum(&[no], &[&filter]);
        filter.extend_from_slice(&hash);
        self.t
            .prepare_cached("INSERT INTO runs(no, entries, bits, bytes, sum) VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![no, entries, bits, bytes, sum(&[no, entries, bits, bytes], &[])])?;
        self.t.prepare_cached("INSERT INTO filters(run, filter) VALUES (?1, ?2)")?.execute(params![no, filter])?;
        Ok(())
    }
}

/// Reads a run's entries in order.
struct Source {
    run: Run,
    next: u64,
    block: Vec<u8>,
    at: usize,
}

impl Source {
    fn of(run: &Run) -> Self {
        let run = Run { filter: None, ..*run };
        Self { run, next: 0, block: Vec::new(), at: 0 }
    }

    fn copy(&self) -> Self {
        Self::of(&self.run)
    }

    fn next(&mut self, t: &Connection) -> Result<Option<Entry>, Fault> {
        while self.at >= self.block.len() {
            if self.next == 1 << self.run.bits {
                return Ok(None);
            }
            self.block.clear();
            self.at = 0;
            let (mut query, row) = (t.prepare_cached(BLOCK)?, self.run.row(self.next));
            let mut rows = query.query([row])?;
            let found = rows.next()?.ok_or_else(|| Fault::damaged("a part of the map is gone"))?;
            self.block.extend_from_slice(block_of(found, row)?);
            self.next += 1;
        }
        let form = self.run.form();
        let bytes = self.block.get(self.at..self.at + form.entry_len());
        let (key, group) = form.read(bytes.ok_or_else(|| Fault::damaged("a part of the map cut short"))?);
        self.at += form.entry_len();
        if key != form.low(key) {
            return Err(Fault::damaged("a part of the map that belongs elsewhere"));
        }
        Ok(Some(((self.next - 1) << form.bits | key, group)))
    }
}

/// Writes one run with what these hold, and drops them. Of entries that `live` does not have nothing
/// is written.
fn merge(t: &Connection, runs: &[Source], live: Option<&Live>) -> Result<(), Fault> {
    let mut sources: Vec<Source> = runs.iter().map(Source::copy).collect();
    let mut writer = Writer::new(t, runs.iter().map(|source| source.run.entries).sum())?;
    let mut heads = Vec::with_capacity(sources.len());
    for source in &mut sources {
        heads.push(source.next(t)?);
    }
    // The first of few: a heap would be no faster.
    while let Some((at, entry)) = heads.iter().enumerate().filter_map(|(n, e)| e.map(|e| (n, e))).min_by_key(|h| h.1)
    {
        if live.is_none_or(|live| live.has(entry.1)) {
            writer.push(entry)?;
        }
        heads[at] = sources[at].next(t)?;
    }
    writer.finish()?;
    for source in &sources {
        t.prepare_cached("DELETE FROM blobs WHERE no BETWEEN ?1 AND ?2")?
            .execute([source.run.row(0), source.run.row((1 << source.run.bits) - 1)])?;
        t.prepare_cached("DELETE FROM filters WHERE run = ?1")?.execute([source.run.no])?;
        t.prepare_cached("DELETE FROM runs WHERE no = ?1")?.execute([source.run.no])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that look like keys, the same at each run.
    fn keys(count: u64) -> Vec<u64> {
        let key = |n: u64| blake3::hash(&n.to_le_bytes()).as_bytes().first_chunk().map(|b| u64::from_le_bytes(*b));
        let mut keys: Vec<u64> = (0..count).map(|n| key(n).unwrap() >> (64 - KEY_BITS)).collect();
        keys.sort_unstable();
        keys
    }

    #[test]
    fn every_entry_of_a_block_is_found_and_no_other() {
        for (bits, key_len) in [(0, 5), (6, 4), (8, 4), (14, 3), (17, 3), (24, 2)] {
            let form = Form::of(bits);
            assert_eq!(form.key_len, key_len);
            for count in [0, 1, 2, 15, 16, 17, 33, 300] {
                let mut entries: Vec<Entry> =
                    keys(count).iter().zip(7..).map(|(key, group)| (form.low(*key), group)).collect();
                // The same key at the beginning, in the middle and at the end, more than once.
                let again: Vec<Entry> = entries.iter().step_by(50).map(|(key, group)| (*key, group + 1000)).collect();
                entries.extend(again);
                entries.sort_unstable();
                let mut block = Vec::new();
                entries.iter().for_each(|entry| form.write(*entry, &mut block));
                for (key, _) in &entries {
                    let groups: Vec<_> = entries.iter().filter(|e| e.0 == *key).map(|e| e.1).collect();
                    assert_eq!(form.groups(&block, *key).collect::<Vec<_>>(), groups, "{bits} {count} {key}");
                }
                let absent = keys(600).into_iter().map(|key| form.low(key));
                for key in absent.filter(|key| entries.iter().all(|e| e.0 != *key)) {
                    assert_eq!(form.groups(&block, key).count(), 0);
                }
            }
        }
    }

    #[test]
    fn a_block_of_anything_gives_some_groups_and_no_panic() {
        for n in 0..200u64 {
            let mut block = vec![0; n as usize];
            blake3::Hasher::new().update(&n.to_le_bytes()).finalize_xof().fill(&mut block);
            for bits in [0, 8, 14, 24] {
                for key in keys(20) {
                    assert!(Form::of(bits).groups(&block, key).count() <= block.len() / 6);
                }
            }
        }
    }
}
