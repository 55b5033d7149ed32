//! The SQLite database of the index.
//!
//! `packs` holds whole entries, compressed, each closed by a hash so that a
//! damaged page is found; `blobs` maps the first eight bytes of an id to the
//! entries that may hold it, 15 bytes or so a row: 100 million chunks take
//! 1.5 GB here. A look-up reads the map, then the entry, and compares the
//! whole id.

use crate::error::{Error, Malformed, Result};
use crate::format::index::{IndexObject, PackEntry, unpack};
use crate::id::{BlobId, IndexName, PackName, SignerId};
use crate::index::{EntryNumber, KnownObject, KnownPack};
use minicbor::decode::Decoder;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

const VERSION: i64 = 1;
const FILE: &str = "index.db";
const LOCK: &str = "index.lock";
const SCHEMA: &str = "
    CREATE TABLE objects(no INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE, signer BLOB NOT NULL);
    CREATE TABLE packs(no INTEGER PRIMARY KEY AUTOINCREMENT, object INTEGER NOT NULL, name BLOB NOT NULL, size INTEGER NOT NULL,
        entry BLOB NOT NULL);
    CREATE INDEX packs_of_object ON packs(object);
    CREATE TABLE blobs(key INTEGER NOT NULL, pack INTEGER NOT NULL, PRIMARY KEY(key, pack)) WITHOUT ROWID;
    CREATE TABLE vouched(object INTEGER NOT NULL, pack BLOB NOT NULL, PRIMARY KEY(object, pack)) WITHOUT ROWID;
    CREATE TABLE superseded(object INTEGER NOT NULL, name BLOB NOT NULL, PRIMARY KEY(object, name)) WITHOUT ROWID;
    PRAGMA user_version = 1;";

pub(super) struct Db {
    connection: Connection,
    path: PathBuf,
}

fn key(id: &BlobId) -> i64 {
    let [a, b, c, d, e, f, g, h, ..] = id.0;
    i64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// An entry as it is kept: compressed, and closed by half a hash.
fn pack_row(entry: &PackEntry) -> Result<Vec<u8>> {
    let mut plain = Vec::new();
    entry.write_to(&mut plain);
    let mut row =
        zstd::bulk::compress(&plain, 1).map_err(|e| Error::Invalid(format!("zstd failed on an index entry: {e}")))?;
    let hash = blake3::hash(&row);
    row.extend_from_slice(&hash.as_bytes()[..16]);
    Ok(row)
}

fn entry_of(row: &[u8]) -> Result<PackEntry, Malformed> {
    let (packed, hash) = row.split_last_chunk::<16>().ok_or_else(|| Malformed::new("an entry cut short"))?;
    if blake3::hash(packed).as_bytes()[..16] != hash[..] {
        return Err(Malformed::new("an entry whose hash does not match"));
    }
    PackEntry::read(&mut Decoder::new(&unpack(packed)?))
}

impl Db {
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        // One process at a time makes or mends the file: SQLite does not wait when two switch it to WAL,
        // and a damaged one must not be removed under a neighbour that has just made it anew.
        let held = |e: std::io::Error| Error::Local { path: folder.join(LOCK), why: e.to_string() };
        let lock = std::fs::File::create(folder.join(LOCK)).map_err(held)?;
        lock.lock().map_err(held)?;
        let first = Connection::open(&path).and_then(prepare);
        let connection = match first {
            Ok(connection) => connection,
            Err(e) if is_damage(&e) => {
                // Made from the store again: nothing is lost but time.
                for suffix in ["", "-wal", "-shm"] {
                    let file = folder.join(format!("{FILE}{suffix}"));
                    match std::fs::remove_file(&file) {
                        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                            return Err(Error::Local { path: file, why: e.to_string() });
                        }
                        _ => {}
                    }
                }
                Connection::open(&path).and_then(prepare).map_err(|e| local(&path, &e))?
            }
            Err(e) => return Err(local(&path, &e)),
        };
        Ok(Self { connection, path })
    }

    pub(super) fn in_memory() -> Result<Self> {
        let path = PathBuf::from(":memory:");
        let connection = Connection::open_in_memory().and_then(prepare).map_err(|e| local(&path, &e))?;
        Ok(Self { connection, path })
    }

    fn fails(&self) -> impl Fn(rusqlite::Error) -> Error + use<> {
        let path = self.path.clone();
        move |e| local(&path, &e)
    }

    pub(super) fn objects(&self) -> Result<Vec<KnownObject>> {
        let fails = self.fails();
        let mut query = self.connection.prepare_cached("SELECT name, signer FROM objects").map_err(&fails)?;
        let rows = query
            .query_map([], |row| Ok(KnownObject { name: IndexName(row.get(0)?), signer: SignerId(row.get(1)?) }))
            .map_err(&fails)?;
        rows.collect::<Result<_, _>>().map_err(&fails)
    }

    pub(super) fn add(
        &mut self,
        name: &IndexName,
        signer: &SignerId,
        object: &IndexObject,
    ) -> Result<Vec<EntryNumber>> {
        let fails = self.fails();
        let rows = object.packs.iter().map(pack_row).collect::<Result<Vec<_>>>()?;
        let t = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&fails)?;
        let new = t
            .execute("INSERT OR IGNORE INTO objects(name, signer) VALUES (?1, ?2)", params![name.0, signer.0])
            .map_err(&fails)?;
        if new == 0 {
            drop(t);
            return self.packs_of(&[*name]);
        }
        let number = t.last_insert_rowid();
        let mut numbers = Vec::with_capacity(object.packs.len());
        let mut keys = Vec::with_capacity(super::blobs_of(&object.packs));
        for (entry, row) in object.packs.iter().zip(rows) {
            t.prepare_cached("INSERT INTO packs(object, name, size, entry) VALUES (?1, ?2, ?3, ?4)")
                .and_then(|mut q| q.execute(params![number, entry.name.0, entry.size as i64, row]))
                .map_err(&fails)?;
            let pack = t.last_insert_rowid();
            numbers.push(pack);
            let ids = entry.directory.frames.iter().flat_map(|f| &f.ids);
            keys.extend(ids.map(|id| (key(id), pack)));
        }
        keys.sort_unstable();
        {
            let mut insert =
                t.prepare_cached("INSERT OR IGNORE INTO blobs(key, pack) VALUES (?1, ?2)").map_err(&fails)?;
            for (key, pack) in keys {
                insert.execute([key, pack]).map_err(&fails)?;
            }
            let mut vouch =
                t.prepare_cached("INSERT OR IGNORE INTO vouched(object, pack) VALUES (?1, ?2)").map_err(&fails)?;
            for pack in &object.vouched {
                vouch.execute(params![number, pack.0]).map_err(&fails)?;
            }
            let mut supersede =
                t.prepare_cached("INSERT OR IGNORE INTO superseded(object, name) VALUES (?1, ?2)").map_err(&fails)?;
            for name in &object.supersedes {
                supersede.execute(params![number, name.0]).map_err(&fails)?;
            }
        }
        t.commit().map_err(&fails)?;
        Ok(numbers)
    }

    pub(super) fn remove(&mut self, names: &[IndexName]) -> Result<()> {
        let fails = self.fails();
        let mut doomed = Vec::new();
        for pack in self.packs_of(names)? {
            doomed.push((pack, self.entry(pack)));
        }
        let t = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&fails)?;
        for (pack, entry) in doomed {
            match entry {
                Ok(None) => {}
                Ok(Some(entry)) => {
                    let mut delete =
                        t.prepare_cached("DELETE FROM blobs WHERE key = ?1 AND pack = ?2").map_err(&fails)?;
                    for id in entry.directory.frames.iter().flat_map(|f| &f.ids) {
                        delete.execute([key(id), pack]).map_err(&fails)?;
                    }
                }
                // Its ids are not known any more: look through all.
                Err(_) => {
                    t.execute("DELETE FROM blobs WHERE pack = ?1", [pack]).map_err(&fails)?;
                }
            }
            t.execute("DELETE FROM packs WHERE no = ?1", [pack]).map_err(&fails)?;
        }
        for name in names {
            for table in ["vouched", "superseded"] {
                t.execute(
                    &format!("DELETE FROM {table} WHERE object IN (SELECT no FROM objects WHERE name = ?1)"),
                    [name.0],
                )
                .map_err(&fails)?;
            }
            t.execute("DELETE FROM objects WHERE name = ?1", [name.0]).map_err(&fails)?;
        }
        t.commit().map_err(&fails)
    }

    pub(super) fn packs_of(&self, names: &[IndexName]) -> Result<Vec<EntryNumber>> {
        let fails = self.fails();
        let mut query = self
            .connection
            .prepare_cached("SELECT no FROM packs WHERE object IN (SELECT no FROM objects WHERE name = ?1)")
            .map_err(&fails)?;
        let mut packs = Vec::new();
        for name in names {
            let rows = query.query_map([name.0], |row| row.get(0)).map_err(&fails)?;
            for row in rows {
                packs.push(row.map_err(&fails)?);
            }
        }
        Ok(packs)
    }

    pub(super) fn packs(&self) -> Result<Vec<KnownPack>> {
        let fails = self.fails();
        let mut query = self
            .connection
            .prepare_cached("SELECT p.no, p.name, p.size, o.signer FROM packs p JOIN objects o ON o.no = p.object")
            .map_err(&fails)?;
        let rows = query
            .query_map([], |row| {
                Ok(KnownPack {
                    number: row.get(0)?,
                    name: PackName(row.get(1)?),
                    size: row.get::<_, i64>(2)?.unsigned_abs(),
                    signer: SignerId(row.get(3)?),
                })
            })
            .map_err(&fails)?;
        rows.collect::<Result<_, _>>().map_err(&fails)
    }

    /// Names in a column of `table` that objects by these signers brought.
    fn named_by<const N: usize>(&self, table: &str, column: &str, by: &HashSet<SignerId>) -> Result<Vec<[u8; N]>> {
        let fails = self.fails();
        let mut query = self
            .connection
            .prepare_cached(&format!("SELECT t.{column}, o.signer FROM {table} t JOIN objects o ON o.no = t.object"))
            .map_err(&fails)?;
        let rows =
            query.query_map([], |row| Ok((row.get::<_, [u8; N]>(0)?, SignerId(row.get(1)?)))).map_err(&fails)?;
        let mut found = Vec::new();
        for row in rows {
            let (name, signer) = row.map_err(&fails)?;
            if by.contains(&signer) {
                found.push(name);
            }
        }
        Ok(found)
    }

    pub(super) fn vouched(&self, by: &HashSet<SignerId>) -> Result<HashSet<PackName>> {
        Ok(self.named_by("vouched", "pack", by)?.into_iter().map(PackName).collect())
    }

    pub(super) fn superseded(&self, by: &HashSet<SignerId>) -> Result<HashSet<IndexName>> {
        Ok(self.named_by("superseded", "name", by)?.into_iter().map(IndexName).collect())
    }

    /// One entry; `None` if another process has dropped it meanwhile.
    pub(super) fn entry(&self, number: EntryNumber) -> Result<Option<PackEntry>> {
        let fails = self.fails();
        let row: Option<Vec<u8>> = self
            .connection
            .prepare_cached("SELECT entry FROM packs WHERE no = ?1")
            .and_then(|mut q| q.query_row([number], |row| row.get(0)).optional())
            .map_err(&fails)?;
        let damaged = |why: String| Error::Local { path: self.path.clone(), why };
        let Some(row) = row else { return Ok(None) };
        entry_of(&row).map(Some).map_err(|e| damaged(format!("{e}; remove this file, it is made again")))
    }

    pub(super) fn candidates(&self, id: &BlobId) -> Result<Vec<EntryNumber>> {
        let fails = self.fails();
        let mut query =
            self.connection.prepare_cached("SELECT pack FROM blobs WHERE key = ?1 ORDER BY pack").map_err(&fails)?;
        let rows = query.query_map([key(id)], |row| row.get(0)).map_err(&fails)?;
        rows.collect::<Result<_, _>>().map_err(&fails)
    }
}

fn prepare(connection: Connection) -> Result<Connection, rusqlite::Error> {
    connection.busy_timeout(Duration::from_secs(60))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "cache_size", -16 * 1024)?;
    connection.set_prepared_statement_cache_capacity(32);
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    match version {
        VERSION => {}
        0 => {
            // Two processes may both find it empty: the first makes the tables, the second sees them.
            let begun = connection.execute_batch("BEGIN IMMEDIATE");
            begun?;
            let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
            if version == 0 {
                connection.execute_batch(SCHEMA)?;
            }
            connection.execute_batch("COMMIT")?;
        }
        // Of another program version: told apart from real trouble by its code.
        _ => {
            return Err(rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_NOTADB),
                None,
            ));
        }
    }
    Ok(connection)
}

fn is_damage(e: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    matches!(e.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
        || matches!(e, rusqlite::Error::SqlInputError { .. })
}

fn local(path: &Path, e: &rusqlite::Error) -> Error {
    let advice = if is_damage(e) { "; remove this file, it is made again" } else { "" };
    Error::Local { path: path.to_path_buf(), why: format!("{e}{advice}") }
}
