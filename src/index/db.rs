//! The SQLite database of the index.
//!
//! `packs` holds whole entries, compressed; `blobs` maps the first eight bytes
//! of an id to the entries that may hold it, 15 bytes or so a row: 100 million
//! chunks take 1.5 GB here. A look-up reads the map, then the entry, and
//! compares the whole id.
//!
//! Every row but those of `blobs` is closed by a hash, its number included, and
//! each object says how many packs it has: a page that rotted shows. A row of
//! `blobs` that rotted is like one that is not there; see [`super::Index::renew`].

use super::fault::Fault;
use super::lock::{Hold, Lock, Part};
use crate::error::{Error, Malformed, Result};
use crate::format::index::{IndexObject, PackEntry, unpack};
use crate::id::{BlobId, IndexName, PackName, SignerId};
use crate::index::{EntryNumber, KnownObject, KnownPack};
use crate::limits;
use minicbor::decode::Decoder;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use std::collections::{HashMap, HashSet};
use std::fs::{OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

const VERSION: i64 = 2;
const FILE: &str = "index.db";
/// Stands beside a file that was found damaged while others may have had it open.
const MARK: &str = "index.damaged";
const SCHEMA: &str = "
    CREATE TABLE objects(no INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE, signer BLOB NOT NULL, packs INTEGER NOT NULL,
        said BLOB NOT NULL, sum BLOB NOT NULL);
    CREATE TABLE packs(no INTEGER PRIMARY KEY AUTOINCREMENT, object INTEGER NOT NULL, name BLOB NOT NULL, size INTEGER NOT NULL,
        sum BLOB NOT NULL, entry BLOB NOT NULL);
    CREATE INDEX packs_of_object ON packs(object);
    CREATE TABLE blobs(key INTEGER NOT NULL, pack INTEGER NOT NULL, PRIMARY KEY(key, pack)) WITHOUT ROWID;
    PRAGMA user_version = 2;";
/// Numbers of entries that were not in a damaged file, or not to be read there, begin here: no
/// number may ever stand for two entries while a process remembers one.
const RENEWED: EntryNumber = 1 << 40;

/// Stands for an object's entry of a pack.
type EntryMark = [u8; 16];

fn entry_mark(object: &[u8; 32], pack: &[u8; 32]) -> EntryMark {
    let mut hasher = blake3::Hasher::new();
    hasher.update(object).update(pack);
    let mut mark = [0; 16];
    hasher.finalize_xof().fill(&mut mark);
    mark
}

/// Half a hash of a row's parts.
fn sum(numbers: &[i64], parts: &[&[u8]]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    for number in numbers {
        hasher.update(&number.to_le_bytes());
    }
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    let mut out = [0; 16];
    hasher.finalize_xof().fill(&mut out);
    out
}

pub(super) struct Db {
    connection: Connection,
    /// `None`: in a temporary file that SQLite has for itself.
    path: Option<PathBuf>,
    /// It was empty when it was opened: everything in it came from the store just now.
    fresh: bool,
    /// Numbers that entries had before.
    numbers: HashMap<EntryMark, EntryNumber>,
    /// Keeps others from removing the file. Dropped after the connection, which still writes as it closes.
    _held: Option<Lock>,
}

/// An opened database, and why it had to be made anew.
pub(super) type Opened = (Db, Option<String>);

/// A name's bytes: of a pack or an index object.
type Name = [u8; 32];

/// A row of `objects`.
struct ObjectRow {
    no: i64,
    name: IndexName,
    signer: SignerId,
    packs: i64,
    said: Vec<u8>,
}

impl ObjectRow {
    fn sum(&self) -> [u8; 16] {
        sum(&[self.no, self.packs], &[&self.name.0, &self.signer.0, &self.said])
    }

    /// What the object vouches for, and what it supersedes.
    fn said(&self) -> Result<(&[Name], &[Name]), Fault> {
        let cut = || Fault::damaged("an object's row cut short");
        let (count, rest) = self.said.split_first_chunk::<8>().ok_or_else(cut)?;
        let count = usize::try_from(u64::from_le_bytes(*count)).map_err(|_| cut())?;
        let (names, []) = rest.as_chunks::<32>() else { return Err(cut()) };
        names.split_at_checked(count).ok_or_else(cut)
    }
}

fn said(object: &IndexObject) -> Vec<u8> {
    let mut out = (object.vouched.len() as u64).to_le_bytes().to_vec();
    out.extend(object.vouched.iter().flat_map(|name| name.0));
    out.extend(object.supersedes.iter().flat_map(|name| name.0));
    out
}

fn key(id: &BlobId) -> i64 {
    let [a, b, c, d, e, f, g, h, ..] = id.0;
    i64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// An entry as it is kept: compressed, and closed together with its number.
fn pack_row(entry: &PackEntry) -> Result<Vec<u8>> {
    let mut plain = Vec::new();
    entry.write_to(&mut plain);
    zstd::bulk::compress(&plain, 1).map_err(|e| Error::Invalid(format!("zstd failed on an index entry: {e}")))
}

fn entry_of(number: EntryNumber, row: &[u8]) -> Result<PackEntry, Malformed> {
    let (packed, hash) = row.split_last_chunk::<16>().ok_or_else(|| Malformed::new("an entry cut short"))?;
    if sum(&[number], &[packed]) != *hash {
        return Err(Malformed::new("an entry whose hash does not match"));
    }
    PackEntry::read(&mut Decoder::new(&unpack(packed)?))
}

fn pack_sum(number: EntryNumber, object: i64, size: i64, name: &[u8; 32]) -> [u8; 16] {
    sum(&[number, object, size], &[name])
}

impl Db {
    /// Opens the file in `folder`, for as long as this lives. A damaged one is made anew, but not
    /// while another process has it open: then this one does without it.
    pub(super) fn open(folder: &Path) -> Result<Opened> {
        let held = |e: std::io::Error| Error::Local { path: folder.join(super::lock::LOCK_FILE), why: e.to_string() };
        // One process at a time opens, makes or removes the file: SQLite does not wait when two switch it to
        // WAL, and one that closes removes the log of another that has made the file anew.
        let _gate = Lock::wait(folder, Part::Gate, Hold::Alone).map_err(held)?;
        let alone = Lock::attempt(folder, Part::Index, Hold::Alone).map_err(held)?;
        let path = folder.join(FILE);
        let mark = folder.join(MARK);
        let first = match mark.try_exists() {
            Ok(true) => Err(Fault::damaged("an earlier command found it damaged")),
            _ => connect(&path),
        };
        let (opened, why) = match first {
            Ok(opened) => (opened, None),
            Err(Fault::Damaged(why)) if alone.is_none() => return Ok((Self::private(HashMap::new())?, Some(why))),
            Err(Fault::Foreign) if alone.is_none() => return Ok((Self::private(HashMap::new())?, None)),
            Err(fault @ (Fault::Damaged(_) | Fault::Foreign)) => {
                remove_files(folder).map_err(|(file, e)| Error::Local { path: file, why: e.to_string() })?;
                let why = if let Fault::Damaged(why) = fault { Some(why) } else { None };
                (connect(&path).map_err(|e| local(Some(&path), e))?, why)
            }
            Err(fault) => return Err(local(Some(&path), fault)),
        };
        // Nobody can come between the two: the gate is held.
        drop(alone);
        // It may still be held by the copy of this process that starts another program, for a moment.
        let held = Some(Lock::wait(folder, Part::Index, Hold::Shared).map_err(held)?);
        let (connection, fresh) = opened;
        Ok((Self { connection, path: Some(path), fresh, numbers: HashMap::new(), _held: held }, why))
    }

    /// A database of this process's own. SQLite keeps it in memory as long as it is small, and then
    /// in a file without a name, below `TMPDIR` or `/var/tmp`: memory stays bounded.
    pub(super) fn private(numbers: HashMap<EntryMark, EntryNumber>) -> Result<Self> {
        let make = || -> Result<Connection, Fault> {
            let connection = Connection::open("")?;
            connection.pragma_update(None, "synchronous", "OFF")?;
            let (connection, _) = prepare(connection)?;
            connection.execute("INSERT INTO sqlite_sequence(name, seq) VALUES ('packs', ?1)", [RENEWED])?;
            Ok(connection)
        };
        let connection = make().map_err(|e| local(None, e))?;
        Ok(Self { connection, path: None, fresh: true, numbers, _held: None })
    }

    /// True if no other process sees it.
    pub(super) fn is_private(&self) -> bool {
        self.path.is_none()
    }

    /// True if all it holds came from the store since it was opened.
    pub(super) fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Notes that the file is damaged: whoever is next to open it, and alone, makes it anew.
    pub(super) fn condemn(folder: &Path) {
        // Where the mark cannot be made, the next command finds the damage itself.
        let _ = OpenOptions::new().create(true).append(true).mode(0o600).open(folder.join(MARK));
    }

    /// The error of a fault that could not be mended.
    pub(super) fn error(&self, fault: Fault) -> Error {
        local(self.path.as_deref(), fault)
    }

    /// The numbers of all entries that can still be read.
    pub(super) fn numbers(&self) -> HashMap<EntryMark, EntryNumber> {
        let mut numbers = self.numbers.clone();
        let mut objects = HashMap::new();
        let _ = self.each_object(|row| {
            objects.insert(row.no, row.name);
            Ok(())
        });
        let _ = self.each_pack(|object, pack| {
            if let Some(name) = objects.get(&object) {
                numbers.insert(entry_mark(&name.0, &pack.name.0), pack.number);
            }
            Ok(())
        });
        numbers
    }

    /// Goes through the rows of `objects`, as far as they are sound.
    fn each_object(&self, mut take: impl FnMut(&ObjectRow) -> Result<(), Fault>) -> Result<(), Fault> {
        let mut query = self.connection.prepare_cached("SELECT no, name, signer, packs, said, sum FROM objects")?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let found = ObjectRow {
                no: row.get(0)?,
                name: IndexName(row.get(1)?),
                signer: SignerId(row.get(2)?),
                packs: row.get(3)?,
                said: row.get(4)?,
            };
            if found.sum() != row.get::<_, [u8; 16]>(5)? {
                return Err(Fault::damaged("an object's row whose hash does not match"));
            }
            take(&found)?;
        }
        Ok(())
    }

    /// Goes through the rows of `packs`, without their entries, as far as they are sound; gives each
    /// with its object's number. Who signed them is not known here.
    fn each_pack(&self, mut take: impl FnMut(i64, KnownPack) -> Result<(), Fault>) -> Result<(), Fault> {
        let mut query = self.connection.prepare_cached("SELECT no, object, name, size, sum FROM packs")?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let (number, object, size): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(3)?);
            let name = PackName(row.get(2)?);
            if pack_sum(number, object, size, &name.0) != row.get::<_, [u8; 16]>(4)? {
                return Err(Fault::damaged("a pack's row whose hash does not match"));
            }
            take(object, KnownPack { number, name, size: size.unsigned_abs(), signer: SignerId([0; 32]) })?;
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
        let rows = object.packs.iter().map(pack_row).collect::<Result<Vec<_>>>()?;
        let t = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let known: Option<i64> =
            t.query_row("SELECT no FROM objects WHERE name = ?1", [name.0], |row| row.get(0)).optional()?;
        if let Some(known) = known {
            let mut query = t.prepare_cached("SELECT no FROM packs WHERE object = ?1 ORDER BY no")?;
            return Ok(query.query_map([known], |row| row.get(0))?.collect::<Result<_, _>>()?);
        }
        let no = t.query_row("SELECT coalesce(max(no), 0) + 1 FROM objects", [], |row| row.get(0))?;
        let (packs, said) = (object.packs.len() as i64, said(object));
        let row = ObjectRow { no, name: *name, signer: *signer, packs, said };
        t.execute(
            "INSERT INTO objects(no, name, signer, packs, said, sum) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![no, name.0, signer.0, packs, row.said, row.sum()],
        )?;
        let numbers = add_packs(&t, &row, object, rows, &self.numbers)?;
        t.commit()?;
        Ok(numbers)
    }

    pub(super) fn remove(&mut self, names: &[IndexName]) -> Result<(), Fault> {
        let names: HashSet<&IndexName> = names.iter().collect();
        let mut objects = Vec::new();
        self.each_object(|row| {
            if names.contains(&row.name) {
                objects.push(row.no);
            }
            Ok(())
        })?;
        let mut doomed = Vec::new();
        {
            let mut query = self.connection.prepare_cached("SELECT no FROM packs WHERE object = ?1")?;
            for object in &objects {
                for pack in query.query_map([object], |row| row.get(0))? {
                    doomed.push(pack?);
                }
            }
        }
        let t = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for pack in doomed {
            match entry_in(&t, pack)? {
                None => {}
                Some(Ok(entry)) => {
                    let mut delete = t.prepare_cached("DELETE FROM blobs WHERE key = ?1 AND pack = ?2")?;
                    for id in entry.directory.frames.iter().flat_map(|f| &f.ids) {
                        delete.execute([key(id), pack])?;
                    }
                }
                // Its ids are not known any more: look through all.
                Some(Err(_)) => {
                    t.execute("DELETE FROM blobs WHERE pack = ?1", [pack])?;
                }
            }
            t.execute("DELETE FROM packs WHERE no = ?1", [pack])?;
        }
        for object in objects {
            t.execute("DELETE FROM objects WHERE no = ?1", [object])?;
        }
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
            objects.insert(row.no, (row.signer, row.packs));
            Ok(())
        })?;
        let mut found = Vec::new();
        self.each_pack(|object, pack| {
            let Some((signer, left)) = objects.get_mut(&object) else {
                return Err(Fault::damaged("a pack's row without its object"));
            };
            *left -= 1;
            found.push(KnownPack { signer: *signer, ..pack });
            Ok(())
        })?;
        if objects.values().any(|(_, left)| *left != 0) {
            return Err(Fault::damaged("rows of packs are gone"));
        }
        moment.commit()?;
        Ok(found)
    }

    pub(super) fn vouched(&self, by: &HashSet<SignerId>) -> Result<HashSet<PackName>, Fault> {
        let mut found = HashSet::new();
        self.each_object(|row| {
            if by.contains(&row.signer) {
                found.extend(row.said()?.0.iter().map(|name| PackName(*name)));
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
    pub(super) fn entry(&self, number: EntryNumber) -> Result<Option<PackEntry>, Fault> {
        entry_in(&self.connection, number)?.transpose().map_err(|e| Fault::Damaged(e.0))
    }

    pub(super) fn candidates(&self, id: &BlobId) -> Result<Vec<EntryNumber>, Fault> {
        let mut query = self.connection.prepare_cached("SELECT pack FROM blobs WHERE key = ?1 ORDER BY pack")?;
        Ok(query.query_map([key(id)], |row| row.get(0))?.collect::<Result<_, _>>()?)
    }
}

fn entry_in(connection: &Connection, number: EntryNumber) -> Result<Option<Result<PackEntry, Malformed>>, Fault> {
    let row: Option<Vec<u8>> = connection
        .prepare_cached("SELECT entry FROM packs WHERE no = ?1")?
        .query_row([number], |row| row.get(0))
        .optional()?;
    Ok(row.map(|row| entry_of(number, &row)))
}

/// Takes in an object's entries and their blobs; returns the entries' numbers.
fn add_packs(
    t: &Transaction<'_>,
    of: &ObjectRow,
    object: &IndexObject,
    rows: Vec<Vec<u8>>,
    before: &HashMap<EntryMark, EntryNumber>,
) -> Result<Vec<EntryNumber>, Fault> {
    let last =
        t.query_row("SELECT seq FROM sqlite_sequence WHERE name = 'packs'", [], |row| row.get(0)).optional()?;
    let mut next: EntryNumber = last.unwrap_or(0) + 1;
    let mut numbers = Vec::with_capacity(rows.len());
    let mut keys = Vec::with_capacity(super::blobs_of(&object.packs));
    for (entry, mut row) in object.packs.iter().zip(rows) {
        // An object may name a pack twice: only one of the two has the number from before.
        let before = before.get(&entry_mark(&of.name.0, &entry.name.0)).filter(|number| !numbers.contains(*number));
        let number = before.copied().unwrap_or(next);
        if number == next {
            next += 1;
        }
        let closed = sum(&[number], &[&row]);
        row.extend_from_slice(&closed);
        let size = entry.size as i64;
        t.prepare_cached("INSERT INTO packs(no, object, name, size, sum, entry) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
            .execute(params![number, of.no, entry.name.0, size, pack_sum(number, of.no, size, &entry.name.0), row])?;
        numbers.push(number);
        let ids = entry.directory.frames.iter().flat_map(|f| &f.ids);
        keys.extend(ids.map(|id| (key(id), number)));
    }
    keys.sort_unstable();
    let mut insert = t.prepare_cached("INSERT OR IGNORE INTO blobs(key, pack) VALUES (?1, ?2)")?;
    for (key, pack) in keys {
        insert.execute([key, pack])?;
    }
    Ok(numbers)
}

/// Gives pages back once many are free: what was removed must not fill the disk for ever.
fn shrink(t: &Transaction<'_>) -> Result<(), Fault> {
    let count = |pragma| t.query_row(pragma, [], |row| row.get::<_, i64>(0));
    let (free, all) = (count("PRAGMA freelist_count")?, count("PRAGMA page_count")?);
    if free >= limits::LOCAL_FREE_PAGES && free >= all / 4 {
        t.pragma(None, "incremental_vacuum", 0, |_| Ok(()))?;
    }
    Ok(())
}

/// Removes the file and what SQLite keeps beside it; the mark goes last, so that a crash in between
/// leaves nothing half removed that passes for whole.
///
/// # Errors
/// The file that cannot be removed, and why.
pub fn remove_files(folder: &Path) -> Result<(), (PathBuf, std::io::Error)> {
    for name in [FILE, "index.db-wal", "index.db-shm", "index.db-journal", MARK] {
        let file = folder.join(name);
        match std::fs::remove_file(&file) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err((file, e)),
            _ => {}
        }
    }
    Ok(())
}

/// Opens a database of this user alone, or makes it; SQLite gives its logs the same mode.
pub fn open_private_file(path: &Path) -> std::io::Result<()> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    if file.metadata()?.permissions().mode() & 0o777 != 0o600 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(())
}

/// The database, and whether it was empty.
fn connect(path: &Path) -> Result<(Connection, bool), Fault> {
    open_private_file(path).map_err(|e| Fault::Unusable(e.to_string()))?;
    let connection = Connection::open(path)?;
    // Before anything is written: it cannot be changed later.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.busy_timeout(Duration::from_secs(60))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "journal_size_limit", limits::LOCAL_LOG_BYTES)?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    prepare(connection)
}

fn prepare(connection: Connection) -> Result<(Connection, bool), Fault> {
    connection.pragma_update(None, "cache_size", -16 * 1024)?;
    connection.set_prepared_statement_cache_capacity(32);
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    match version {
        VERSION => Ok((connection, false)),
        0 => {
            connection.execute_batch("BEGIN IMMEDIATE")?;
            connection.execute_batch(SCHEMA)?;
            connection.execute_batch("COMMIT")?;
            Ok((connection, true))
        }
        _ => Err(Fault::Foreign),
    }
}

fn local(path: Option<&Path>, fault: Fault) -> Error {
    let why = match fault {
        Fault::Other(e) => return e,
        Fault::Damaged(why) => format!("{why}; it is made again by the next command"),
        Fault::Foreign => "another version of the program made it".into(),
        Fault::Unusable(why) => why,
    };
    match path {
        Some(path) => Error::Local { path: path.to_path_buf(), why },
        None => Error::Local { path: std::env::temp_dir(), why: format!("the index in a temporary file: {why}") },
    }
}
