//! The SQLite database of the index.
//!
//! `packs` has a row for each entry, and `frames` one for each group of its
//! frames: as many as fill some 2.5 KB, most of it ids. `runs`, `filters` and
//! `blobs` are the map from ids to groups ([`super::map`]). A look-up asks the
//! filters, reads a block of the map, then one group, and compares the whole id.
//!
//! Every row is closed by a hash, its number included; each object says how many
//! packs it has, each pack how many groups, and each run how many blocks: a page
//! that rotted shows.

use super::closing::sum;
use super::fault::Fault;
use super::loaded::GroupNumber;
use super::lock::{Hold, Lock, Part};
use super::map::{Map, Secret};
use crate::crypto::random;
use crate::error::{Error, Result};
use crate::index::EntryNumber;
use crate::limits;
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use std::collections::HashMap;
use std::fs::{OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

const VERSION: i64 = 7;
const FILE: &str = "index.db";
/// Stands beside a file that was found damaged while others may have had it open.
const MARK: &str = "index.damaged";
/// Rows of `frames` fill some 2.5 KB: of a page of 4 KiB they would waste a third.
const PAGE_BYTES: i64 = 8 * 1024;
const SCHEMA: &str = "
    CREATE TABLE secret(no INTEGER PRIMARY KEY, secret BLOB NOT NULL, sum BLOB NOT NULL);
    CREATE TABLE objects(no INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE, signer BLOB NOT NULL, packs INTEGER NOT NULL,
        said BLOB NOT NULL, sum BLOB NOT NULL);
    CREATE TABLE packs(no INTEGER PRIMARY KEY AUTOINCREMENT, object INTEGER NOT NULL, name BLOB NOT NULL, size INTEGER NOT NULL,
        class INTEGER NOT NULL, first INTEGER NOT NULL, groups INTEGER NOT NULL, keys INTEGER NOT NULL, sum BLOB NOT NULL);
    CREATE INDEX packs_of_object ON packs(object);
    CREATE INDEX packs_of_group ON packs(first);
    CREATE TABLE frames(no INTEGER PRIMARY KEY AUTOINCREMENT, pack INTEGER NOT NULL, first INTEGER NOT NULL,
        offset INTEGER NOT NULL, row BLOB NOT NULL, ids BLOB NOT NULL);
    CREATE TABLE runs(no INTEGER PRIMARY KEY AUTOINCREMENT, entries INTEGER NOT NULL, bits INTEGER NOT NULL,
        bytes INTEGER NOT NULL, sum BLOB NOT NULL);
    CREATE TABLE filters(run INTEGER PRIMARY KEY, filter BLOB NOT NULL);
    CREATE TABLE blobs(no INTEGER PRIMARY KEY, block BLOB NOT NULL);
    PRAGMA user_version = 7;";
/// Numbers of entries that were not in a damaged file, or not to be read there, begin here: no
/// number may ever stand for two entries while a process remembers one.
const RENEWED: EntryNumber = 1 << 40;
/// The same for groups of frames.
const RENEWED_GROUPS: GroupNumber = 1 << 31;
/// Numbers of groups are kept in four bytes.
const GROUPS_MAX: GroupNumber = 1 << 32;

/// Stands for an object's entry of a pack.
pub(super) type EntryMark = [u8; 16];

pub(super) fn entry_mark(object: &[u8; 32], pack: &[u8; 32]) -> EntryMark {
    let mut hasher = blake3::Hasher::new();
    hasher.update(object).update(pack);
    let mut mark = [0; 16];
    hasher.finalize_xof().fill(&mut mark);
    mark
}

pub(super) struct Db {
    pub(super) connection: Connection,
    pub(super) map: Map,
    /// `None`: in a temporary file that SQLite has for itself.
    path: Option<PathBuf>,
    /// It was empty when it was opened: everything in it came from the store just now.
    fresh: bool,
    /// Numbers that entries had before.
    pub(super) numbers: HashMap<EntryMark, EntryNumber>,
    /// Keeps others from removing the file. Dropped after the connection, which still writes as it closes.
    _held: Option<Lock>,
}

/// An opened database, and why it had to be made anew.
pub(super) type Opened = (Db, Option<String>);

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
        let Prepared { connection, map, fresh } = opened;
        Ok((Self { connection, map, path: Some(path), fresh, numbers: HashMap::new(), _held: held }, why))
    }

    /// A database of this process's own. SQLite keeps it in memory as long as it is small, and then
    /// in a file without a name, below `TMPDIR` or `/var/tmp`: memory stays bounded.
    pub(super) fn private(numbers: HashMap<EntryMark, EntryNumber>) -> Result<Self> {
        let make = || -> Result<Prepared, Fault> {
            let connection = Connection::open("")?;
            connection.pragma_update(None, "page_size", PAGE_BYTES)?;
            connection.pragma_update(None, "synchronous", "OFF")?;
            let prepared = prepare(connection)?;
            let begin = "INSERT INTO sqlite_sequence(name, seq) VALUES ('packs', ?1), ('frames', ?2)";
            prepared.connection.execute(begin, [RENEWED, RENEWED_GROUPS])?;
            Ok(prepared)
        };
        let Prepared { connection, map, .. } = make().map_err(|e| local(None, e))?;
        Ok(Self { connection, map, path: None, fresh: true, numbers, _held: None })
    }

    /// True if no other process sees it.
    pub(super) fn is_private(&self) -> bool {
        self.path.is_none()
    }

    /// True if all it holds came from the store since it was opened.
    pub(super) fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Where the numbers of its groups end.
    pub(super) fn groups_max(&self) -> GroupNumber {
        if self.is_private() { GROUPS_MAX } else { RENEWED_GROUPS }
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
        let _ = self.each_pack(|pack| {
            if let Some(name) = objects.get(&pack.object) {
                numbers.insert(entry_mark(&name.0, &pack.name.0), pack.no);
            }
            Ok(())
        });
        numbers
    }
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

/// A database that is open.
struct Prepared {
    connection: Connection,
    map: Map,
    /// It was empty.
    fresh: bool,
}

fn connect(path: &Path) -> Result<Prepared, Fault> {
    open_private_file(path).map_err(|e| Fault::Unusable(e.to_string()))?;
    let connection = Connection::open(path)?;
    // Before anything is written: neither can be changed later.
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.busy_timeout(Duration::from_secs(60))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "journal_size_limit", limits::LOCAL_LOG_BYTES)?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    prepare(connection)
}

/// Has SQLite plan a statement once: else it plans it again before each run whose parameters might
/// ask for another plan, which takes longer than to look up a row.
pub fn plan_once(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(|_| ())
}

fn prepare(connection: Connection) -> Result<Prepared, Fault> {
    plan_once(&connection)?;
    connection.pragma_update(None, "cache_size", -limits::INDEX_PAGES_KIB)?;
    connection.set_prepared_statement_cache_capacity(64);
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let fresh = version == 0;
    match version {
        VERSION => {}
        0 => {
            let secret: Secret = random::bytes()?;
            connection.execute_batch("BEGIN IMMEDIATE")?;
            connection.execute_batch(SCHEMA)?;
            connection.execute("INSERT INTO secret VALUES (1, ?1, ?2)", (secret, sum(&[], &[&secret])))?;
            connection.execute_batch("COMMIT")?;
        }
        _ => return Err(Fault::Foreign),
    }
    let (secret, hash): (Secret, [u8; 16]) =
        connection
            .query_row("SELECT secret, sum FROM secret WHERE no = 1", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if sum(&[], &[&secret]) != hash {
        return Err(Fault::damaged("a secret whose hash does not match"));
    }
    Ok(Prepared { connection, map: Map::new(&secret), fresh })
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
