//! What the files of a source looked like when they were last stored, kept on
//! this machine: a file that looks the same is not read again.
//!
//! One SQLite file for each source. A row is a folder: what it is made of, and
//! for each entry a keyed hash of its name, the marks by which a change shows,
//! and the content's ids. No name and no plaintext stands there. Rows carry
//! the range of versions for which they held, so that the newest full snapshot
//! can still be compared with after later ones. The file is written in one
//! transaction that ends after the snapshot exists; a crash leaves it as it was.
//!
//! Notes are never needed: a damaged file, or one of another source, is dropped
//! and everything is read again; notes that cannot be written are not, and the
//! next snapshot goes by those before. Rows are closed by hashes, since a row
//! that rotted could else say that a file has not changed.

use crate::clock::Timestamp;
use crate::error::{Error, Malformed, Result};
use crate::format::content::Content;
use crate::format::manifest::SnapshotKind;
use crate::format::node::{Kind, Node};
use crate::id::{IndexName, SnapshotId, from_hex, to_hex};
use crate::index::lock::{Hold, Lock, Part};
use crate::index::{is_damage, open_private_file, plan_once};
use crate::limits;
use crate::source::files::Stat;
use minicbor::decode::Decoder;
use rusqlite::{Connection, OptionalExtension, params};
use std::cell::RefCell;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A keyed hash that stands for a name or a path.
pub type Mark = [u8; 16];

const SCHEMA: &str = "
    CREATE TABLE rows(key BLOB NOT NULL, since INTEGER NOT NULL, until INTEGER NOT NULL, row BLOB NOT NULL,
        PRIMARY KEY(key, since)) WITHOUT ROWID;
    CREATE TABLE versions(no INTEGER PRIMARY KEY, snapshot BLOB NOT NULL, kind INTEGER NOT NULL,
        seconds INTEGER NOT NULL, nanos INTEGER NOT NULL, indexes BLOB NOT NULL, sum BLOB NOT NULL);
    CREATE TABLE chain(id BLOB NOT NULL, counter INTEGER NOT NULL, previous BLOB, inode INTEGER NOT NULL, sum BLOB NOT NULL);
    CREATE TABLE source(mark BLOB NOT NULL);
    PRAGMA user_version = 2;";
const VERSION: i64 = 2;
const BEFORE: &str = "source-";
const AFTER: &str = ".db";
/// The end of a row that still holds.
const OPEN: i64 = i64::MAX;

/// A version of the state: one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Its number in this file.
    pub number: i64,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// When it began: what changed after that may look unchanged.
    pub started: Timestamp,
    /// The index objects on which its contents rest: without any of them they may be nowhere.
    pub indexes: Vec<IndexName>,
}

/// What a version's trust rests on.
pub struct Rests {
    /// When its snapshot began.
    pub started: Timestamp,
    /// The index objects there were.
    pub indexes: Vec<IndexName>,
}

/// Closes a row.
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

fn split(names: &[u8]) -> Vec<IndexName> {
    names.as_chunks::<{ IndexName::LEN }>().0.iter().map(|name| IndexName(*name)).collect()
}

/// A writer's unbroken memory of what it has written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub id: [u8; 16],
    /// The place of the newest snapshot.
    pub counter: u64,
    /// The newest snapshot.
    pub previous: Option<SnapshotId>,
}

/// An entry as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownEntry {
    /// Stands for the name.
    pub name: Mark,
    /// What it was.
    pub kind: Kind,
    /// Bytes.
    pub size: u64,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Last change of the entry.
    pub ctime: Timestamp,
    /// The inode.
    pub inode: u64,
    /// What a file or folder was made of.
    pub content: Content,
}

impl KnownEntry {
    /// What a node was; `name` stands for its path.
    pub fn of(name: Mark, node: Node) -> Self {
        let Node { kind, size, mtime, ctime, inode, content, .. } = node;
        Self { name, kind, size, mtime, ctime, inode, content }
    }

    /// True if what stands there now shows no change.
    pub fn matches(&self, stat: &Stat) -> bool {
        self.kind == stat.kind
            && self.inode == stat.inode
            && self.mtime == stat.mtime
            && self.ctime == stat.ctime
            && (self.size == stat.size || self.kind != Kind::File)
    }
}

/// A folder as it was.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KnownFolder {
    /// What it was made of.
    pub content: Content,
    /// Its entries, in order of their names.
    pub entries: Vec<KnownEntry>,
}

impl KnownFolder {
    /// The row of a folder since a version, closed together with both.
    fn encode(&self, key: &Mark, since: i64) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.entries.len() * 120);
        self.content.write_to(&mut out);
        for e in &self.entries {
            out.extend_from_slice(&e.name);
            out.push(e.kind as u8);
            for number in [e.size, e.inode] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            for time in [e.mtime, e.ctime] {
                out.extend_from_slice(&time.seconds.to_le_bytes());
                out.extend_from_slice(&time.nanos.to_le_bytes());
            }
            e.content.write_to(&mut out);
        }
        let closed = sum(&[since], &[key, &out]);
        out.extend_from_slice(&closed);
        out
    }

    fn decode(bytes: &[u8], key: &Mark, since: i64) -> Result<Self, Malformed> {
        let (body, hash) = bytes.split_last_chunk::<16>().ok_or_else(|| Malformed::new("a row cut short"))?;
        if sum(&[since], &[key, body]) != *hash {
            return Err(Malformed::new("a row whose hash does not match"));
        }
        let mut d = Decoder::new(body);
        let mut folder = Self { content: Content::read(&mut d)?, entries: Vec::new() };
        while d.position() < body.len() {
            folder.entries.push(read_entry(&mut d, body)?);
        }
        Ok(folder)
    }
}

fn read_entry(d: &mut Decoder<'_>, body: &[u8]) -> Result<KnownEntry, Malformed> {
    fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Result<&'a [u8; N], Malformed> {
        let (taken, left) = rest.split_first_chunk::<N>().ok_or_else(|| Malformed::new("an entry cut short"))?;
        *rest = left;
        Ok(taken)
    }
    let mut rest = &body[d.position()..];
    let name = *take::<16>(&mut rest)?;
    let [kind] = *take::<1>(&mut rest)?;
    let kind = Kind::from_byte(kind).ok_or_else(|| Malformed::new("an entry of unknown kind"))?;
    let size = u64::from_le_bytes(*take(&mut rest)?);
    let inode = u64::from_le_bytes(*take(&mut rest)?);
    let mut time = || -> Result<Timestamp, Malformed> {
        Ok(Timestamp { seconds: i64::from_le_bytes(*take(&mut rest)?), nanos: u32::from_le_bytes(*take(&mut rest)?) })
    };
    let (mtime, ctime) = (time()?, time()?);
    d.set_position(body.len() - rest.len());
    let content = Content::read(d)?;
    Ok(KnownEntry { name, kind, size, mtime, ctime, inode, content })
}

/// The state of one source.
pub struct Known {
    connection: Connection,
    folder: PathBuf,
    path: PathBuf,
    version: i64,
    full: Option<i64>,
    versions: Vec<(Version, SnapshotKind)>,
    chain: Option<Chain>,
    lost: Option<String>,
    /// What went wrong first; from then on nothing is noted.
    failed: RefCell<Option<rusqlite::Error>>,
    /// Dropped last: SQLite still writes as the connection closes.
    _held: Lock,
}

/// Why notes are not used.
enum Fault {
    /// The file is damaged, of another source or another version of the program.
    Useless(String),
    /// The file cannot be read or written.
    Unusable(rusqlite::Error),
}

impl From<rusqlite::Error> for Fault {
    fn from(e: rusqlite::Error) -> Self {
        if is_damage(&e) { Self::Useless(e.to_string()) } else { Self::Unusable(e) }
    }
}

fn local(path: &Path, e: impl std::fmt::Display) -> Error {
    Error::Local { path: path.to_path_buf(), why: e.to_string() }
}

fn path_of(folder: &Path, mark: &Mark) -> PathBuf {
    folder.join(format!("{BEFORE}{}{AFTER}", to_hex(mark)))
}

/// Removes a source's file, and what SQLite keeps beside it. Its lock must be held.
fn remove(path: &Path) {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let mut file = path.as_os_str().to_owned();
        file.push(suffix);
        // What cannot be removed shows when it is opened again.
        let _ = std::fs::remove_file(file);
    }
}

/// What a file says beside its rows.
#[derive(Default)]
struct Head {
    versions: Vec<(Version, SnapshotKind)>,
    chain: Option<Chain>,
}

impl Known {
    /// Opens the state of the source that `mark` stands for, and holds it until it is dropped. A
    /// file that is damaged, or another source's, is made anew. `None` while another backup of the
    /// same source runs.
    ///
    /// # Errors
    /// [`Error::Local`] where the folder cannot be written.
    pub fn open(folder: &Path, mark: &Mark) -> Result<Option<Self>> {
        let path = path_of(folder, mark);
        let held = Lock::attempt(folder, Part::Notes(*mark), Hold::Alone).map_err(|e| local(folder, e))?;
        let Some(held) = held else { return Ok(None) };
        let unusable = |fault| match fault {
            Fault::Useless(why) => local(&path, why),
            Fault::Unusable(e) => local(&path, e),
        };
        let (opened, lost) = match prepare(&path, mark) {
            Err(Fault::Useless(why)) => {
                remove(&path);
                (prepare(&path, mark), Some(why))
            }
            other => (other, None),
        };
        let (connection, head) = opened.map_err(unusable)?;
        let Head { versions, chain } = head;
        let version = versions.last().map_or(0, |(newest, _)| newest.number) + 1;
        let mut known = Self {
            connection,
            folder: folder.to_path_buf(),
            path,
            version,
            full: None,
            versions,
            chain,
            lost,
            failed: RefCell::default(),
            _held: held,
        };
        known.full = known.newest(true).map(|full| full.number);
        Ok(Some(known))
    }

    /// Why what was noted before is not there any more, if it was damaged.
    pub fn lost(&self) -> Option<&str> {
        self.lost.as_deref()
    }

    /// Notes that something failed, unless something did before.
    fn note<T>(&self, answer: Result<T, rusqlite::Error>) -> Option<T> {
        match answer {
            Ok(answer) => Some(answer),
            Err(e) => {
                self.failed.borrow_mut().get_or_insert(e);
                None
            }
        }
    }

    fn is_failed(&self) -> bool {
        self.failed.borrow().is_some()
    }

    /// The newest version, or the newest that is full.
    pub fn newest(&self, full: bool) -> Option<Version> {
        let fits = |kind: &SnapshotKind| !full || *kind == SnapshotKind::Full;
        self.versions.iter().rfind(|(_, kind)| fits(kind)).map(|(version, _)| version.clone())
    }

    /// The chain of what was written, if it is remembered.
    pub fn chain(&self) -> Option<Chain> {
        self.chain.clone()
    }

    /// A folder as it was in a version. A row that is damaged is one that is not there.
    pub fn folder(&self, version: i64, key: &Mark) -> Option<KnownFolder> {
        let read = || -> Result<Option<(Vec<u8>, i64)>, rusqlite::Error> {
            self.connection
                .prepare_cached(
                    "SELECT row, since FROM rows WHERE key = ?1 AND since <= ?2 AND until > ?2 ORDER BY since DESC LIMIT 1",
                )?
                .query_row(params![key, version], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()
        };
        let (row, since) = self.note(read()).flatten()?;
        KnownFolder::decode(&row, key, since).ok()
    }

    /// Goes through the folders of a version, in no order, until `each` has had enough; those that were
    /// noted otherwise since are not among them. `each` is told the bytes of a row too.
    pub fn folders(&self, version: i64, mut each: impl FnMut(&Mark, KnownFolder, usize) -> bool) {
        let mut read = || -> Result<(), rusqlite::Error> {
            let mut query = self
                .connection
                .prepare_cached("SELECT key, row, since FROM rows WHERE since <= ?1 AND until > ?1")?;
            let mut rows = query.query([version])?;
            while let Some(row) = rows.next()? {
                let (key, bytes): (Mark, _) = (row.get(0)?, row.get_ref(1)?.as_blob()?);
                if let Ok(folder) = KnownFolder::decode(bytes, &key, row.get(2)?)
                    && !each(&key, folder, bytes.len())
                {
                    break;
                }
            }
            Ok(())
        };
        self.note(read());
    }

    /// Forgets everything: a full snapshot begins anew.
    pub fn clear(&mut self) {
        self.note(self.connection.execute_batch("DELETE FROM rows; DELETE FROM versions"));
        self.versions.clear();
        self.full = None;
    }

    /// Notes a folder as it is now.
    pub fn put(&self, key: &Mark, folder: &KnownFolder) {
        self.end(key);
        if self.is_failed() {
            return;
        }
        let put = || {
            self.connection
                .prepare_cached("INSERT OR REPLACE INTO rows(key, since, until, row) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![key, self.version, OPEN, folder.encode(key, self.version)])
        };
        self.note(put());
    }

    /// Notes that a folder is no more.
    pub fn end(&self, key: &Mark) {
        if self.is_failed() {
            return;
        }
        let end = || -> Result<(), rusqlite::Error> {
            // A row that began after the full snapshot serves nobody any more.
            let full = self.full.unwrap_or(OPEN);
            self.connection
                .prepare_cached("DELETE FROM rows WHERE key = ?1 AND until = ?2 AND since > ?3")?
                .execute(params![key, OPEN, full])?;
            let keep = if self.full.is_some() {
                "UPDATE rows SET until = ?3 WHERE key = ?1 AND until = ?2"
            } else {
                "DELETE FROM rows WHERE key = ?1 AND until = ?2 AND ?3 > 0"
            };
            self.connection.prepare_cached(keep)?.execute(params![key, OPEN, self.version])?;
            Ok(())
        };
        self.note(end());
    }

    /// Makes what was noted count: the snapshot exists.
    ///
    /// # Errors
    /// [`Error::Local`] if not all could be noted; then all is as it was before.
    pub fn commit(self, snapshot: SnapshotId, kind: SnapshotKind, from: &Rests, chain: &Chain) -> Result<()> {
        if !self.is_failed() {
            self.note(self.write(snapshot, kind, from, chain));
        }
        if let Some(e) = &*self.failed.borrow() {
            return Err(local(&self.path, e));
        }
        drop_others(&self.folder, &self.path);
        Ok(())
    }

    fn write(
        &self,
        snapshot: SnapshotId,
        kind: SnapshotKind,
        from: &Rests,
        chain: &Chain,
    ) -> Result<(), rusqlite::Error> {
        let c = &self.connection;
        let Rests { started, indexes } = from;
        c.execute("DELETE FROM versions WHERE no <> ?1", [self.full.unwrap_or(0)])?;
        let version = Version { number: self.version, snapshot, started: *started, indexes: indexes.clone() };
        let indexes: Vec<u8> = indexes.iter().flat_map(|name| name.0).collect();
        c.execute(
            "INSERT INTO versions(no, snapshot, kind, seconds, nanos, indexes, sum) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                version.number,
                snapshot.0,
                kind as i64,
                started.seconds,
                started.nanos,
                indexes,
                version_sum(&version, kind as i64)
            ],
        )?;
        // A file that was copied elsewhere, or put back, has another inode: its chain is not continued there.
        let inode = inode_of(&self.path);
        c.execute("DELETE FROM chain", [])?;
        c.execute(
            "INSERT INTO chain(id, counter, previous, inode, sum) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![chain.id, chain.counter as i64, chain.previous.map(|p| p.0), inode, chain_sum(chain, inode)],
        )?;
        let count = |pragma| c.query_row(pragma, [], |row| row.get::<_, i64>(0));
        let (free, all) = (count("PRAGMA freelist_count")?, count("PRAGMA page_count")?);
        if free >= limits::LOCAL_FREE_PAGES && free >= all / 4 {
            c.pragma(None, "incremental_vacuum", 0, |_| Ok(()))?;
        }
        c.execute_batch("COMMIT")
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        // The next one would meet the same damage.
        if self.failed.borrow().as_ref().is_some_and(is_damage) {
            remove(&self.path);
        }
    }
}

fn version_sum(version: &Version, kind: i64) -> [u8; 16] {
    let Version { number, snapshot, started, indexes } = version;
    let indexes: Vec<u8> = indexes.iter().flat_map(|name| name.0).collect();
    sum(&[*number, kind, started.seconds, started.nanos.into()], &[&snapshot.0, &indexes])
}

fn chain_sum(chain: &Chain, inode: i64) -> [u8; 16] {
    let previous: &[u8] = chain.previous.as_ref().map_or(&[], |p| p.as_bytes());
    sum(&[chain.counter as i64, inode], &[&chain.id, previous])
}

/// 0 where it cannot be told.
fn inode_of(path: &Path) -> i64 {
    std::fs::metadata(path).map_or(0, |m| m.ino() as i64)
}

/// Drops the notes of sources that have not been backed up for long, or that are too many. How long is
/// told by the times of the files alone.
fn drop_others(folder: &Path, own: &Path) {
    let Ok(now) = std::fs::metadata(own).and_then(|m| m.modified()) else { return };
    let mut found: Vec<(SystemTime, Mark)> = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let mark = name.to_str().and_then(|name| name.strip_prefix(BEFORE)?.strip_suffix(AFTER));
        if let (Some(mark), Ok(time)) = (mark.and_then(from_hex), entry.metadata().and_then(|m| m.modified()))
            && entry.path() != own
        {
            found.push((time, mark));
        }
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    let old =
        |time| now.duration_since(time).is_ok_and(|age| age > Duration::from_secs(limits::LOCAL_UNUSED_SECONDS));
    for (at, (time, mark)) in found.into_iter().enumerate() {
        // This source's own file is one of those that are kept.
        if (at + 1 >= limits::LOCAL_SOURCES_MAX || old(time))
            && let Ok(Some(_held)) = Lock::attempt(folder, Part::Notes(mark), Hold::Alone)
        {
            remove(&path_of(folder, &mark));
        }
    }
}

/// Opens the file, begins the one transaction, and reads all that does not stand in rows of folders.
fn prepare(path: &Path, mark: &Mark) -> Result<(Connection, Head), Fault> {
    // What cannot be made shows when SQLite opens it.
    let _ = open_private_file(path);
    let connection = Connection::open(path)?;
    plan_once(&connection)?;
    // Before anything is written: it cannot be changed later.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "journal_size_limit", limits::LOCAL_LOG_BYTES)?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "cache_size", -8 * 1024)?;
    connection.execute_batch("BEGIN IMMEDIATE")?;
    match connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0))? {
        VERSION => {}
        0 => {
            connection.execute_batch(SCHEMA)?;
            connection.execute("INSERT INTO source(mark) VALUES (?1)", [mark])?;
        }
        _ => return Err(Fault::Useless("another version of the program made it".into())),
    }
    if connection.query_row("SELECT mark FROM source", [], |row| row.get::<_, Mark>(0))? != *mark {
        return Err(Fault::Useless("it is another source's".into()));
    }
    let head = Head { versions: read_versions(&connection)?, chain: read_chain(&connection, path)? };
    Ok((connection, head))
}

fn wrong() -> Fault {
    Fault::Useless("a row's hash does not match".into())
}

fn read_versions(connection: &Connection) -> Result<Vec<(Version, SnapshotKind)>, Fault> {
    let mut query =
        connection.prepare("SELECT no, snapshot, kind, seconds, nanos, indexes, sum FROM versions ORDER BY no")?;
    let mut rows = query.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let version = Version {
            number: row.get(0)?,
            snapshot: SnapshotId(row.get(1)?),
            started: Timestamp { seconds: row.get(3)?, nanos: row.get(4)? },
            indexes: split(row.get_ref(5)?.as_blob().map_err(rusqlite::Error::from)?),
        };
        let kind: i64 = row.get(2)?;
        if version_sum(&version, kind) != row.get::<_, [u8; 16]>(6)? {
            return Err(wrong());
        }
        let kind = if kind == SnapshotKind::Full as i64 { SnapshotKind::Full } else { SnapshotKind::Incremental };
        found.push((version, kind));
    }
    Ok(found)
}

/// The chain, unless the file is a copy: then another goes on with it.
fn read_chain(connection: &Connection, path: &Path) -> Result<Option<Chain>, Fault> {
    let row = connection
        .query_row("SELECT id, counter, previous, inode, sum FROM chain", [], |row| {
            let chain = Chain {
                id: row.get(0)?,
                counter: row.get::<_, i64>(1)?.unsigned_abs(),
                previous: row.get::<_, Option<[u8; 16]>>(2)?.map(SnapshotId),
            };
            Ok((chain, row.get::<_, i64>(3)?, row.get::<_, [u8; 16]>(4)?))
        })
        .optional()?;
    let Some((chain, inode, closed)) = row else { return Ok(None) };
    if chain_sum(&chain, inode) != closed {
        return Err(wrong());
    }
    Ok(Some(chain).filter(|_| inode == inode_of(path)))
}

/// True if a change at `time` could have gone unnoticed by a snapshot that began at `started`.
pub fn is_racy(time: Timestamp, started: Timestamp) -> bool {
    let margin = if time.nanos == 0 { limits::RACY_COARSE_NANOS } else { limits::RACY_NANOS };
    time.as_nanos() + margin >= started.as_nanos()
}

#[cfg(test)]
mod tests;
