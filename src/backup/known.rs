//! What the files of a source looked like when they were last stored, kept on
//! this machine: a file that looks the same is not read again.
//!
//! One SQLite file for each source. A row is a folder: what it is made of, and
//! for each entry a keyed hash of its name, the marks by which a change shows,
//! and the content's ids. No name and no plaintext stands there. Rows carry
//! the range of versions for which they held, so that the newest full snapshot
//! can still be compared with after later ones. The file is written in one
//! transaction that ends after the snapshot exists; a crash leaves it as it was.

use crate::clock::Timestamp;
use crate::error::{Error, Malformed, Result};
use crate::format::content::Content;
use crate::format::manifest::SnapshotKind;
use crate::format::node::Kind;
use crate::id::{IndexName, SnapshotId, to_hex};
use crate::limits;
use crate::source::files::Stat;
use minicbor::decode::Decoder;
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A keyed hash that stands for a name or a path.
pub type Mark = [u8; 16];

const SCHEMA: &str = "
    CREATE TABLE rows(key BLOB NOT NULL, since INTEGER NOT NULL, until INTEGER NOT NULL, row BLOB NOT NULL,
        PRIMARY KEY(key, since)) WITHOUT ROWID;
    CREATE TABLE versions(no INTEGER PRIMARY KEY, snapshot BLOB NOT NULL, kind INTEGER NOT NULL,
        seconds INTEGER NOT NULL, nanos INTEGER NOT NULL, indexes BLOB NOT NULL);
    CREATE TABLE chain(id BLOB NOT NULL, counter INTEGER NOT NULL, previous BLOB);
    PRAGMA user_version = 1;";
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
    fn encode(&self) -> Vec<u8> {
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
        let hash = blake3::hash(&out);
        out.extend_from_slice(&hash.as_bytes()[..8]);
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (body, hash) = bytes.split_last_chunk::<8>().ok_or_else(|| Malformed::new("a row cut short"))?;
        if blake3::hash(body).as_bytes()[..8] != hash[..] {
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
    path: PathBuf,
    version: i64,
    full: Option<i64>,
}

fn local(path: &Path, e: &rusqlite::Error) -> Error {
    Error::Local { path: path.to_path_buf(), why: e.to_string() }
}

impl Known {
    /// Opens the state of the source that `mark` stands for, and holds it until it is dropped. A
    /// file that is damaged is made anew. `None` while another backup of the same source runs.
    ///
    /// # Errors
    /// [`Error::Local`] where the folder cannot be written.
    pub fn open(folder: &Path, mark: &Mark) -> Result<Option<Self>> {
        let path = folder.join(format!("source-{}.db", to_hex(mark)));
        let connection = match prepare(&path) {
            Ok(connection) => connection,
            Err(e) if is_busy(&e) => return Ok(None),
            Err(_) => {
                for suffix in ["", "-wal", "-shm", "-journal"] {
                    let mut file = path.clone().into_os_string();
                    file.push(suffix);
                    // What cannot be removed shows when it is opened again.
                    let _ = std::fs::remove_file(file);
                }
                prepare(&path).map_err(|e| local(&path, &e))?
            }
        };
        let fails = |e| local(&path, &e);
        let newest: Option<i64> =
            connection.query_row("SELECT max(no) FROM versions", [], |row| row.get(0)).map_err(fails)?;
        let full = connection
            .query_row("SELECT max(no) FROM versions WHERE kind = 0", [], |row| row.get(0))
            .map_err(fails)?;
        Ok(Some(Self { version: newest.unwrap_or(0) + 1, full, connection, path }))
    }

    fn fails(&self) -> impl Fn(rusqlite::Error) -> Error + use<> {
        let path = self.path.clone();
        move |e| local(&path, &e)
    }

    /// The newest version, or the newest that is full.
    ///
    /// # Errors
    /// [`Error::Local`], as every call here.
    pub fn newest(&self, full: bool) -> Result<Option<Version>> {
        self.connection
            .query_row(
                "SELECT no, snapshot, seconds, nanos, indexes FROM versions WHERE kind = 0 OR NOT ?1 ORDER BY no DESC LIMIT 1",
                [full],
                |row| {
                    Ok(Version {
                        number: row.get(0)?,
                        snapshot: SnapshotId(row.get(1)?),
                        started: Timestamp { seconds: row.get(2)?, nanos: row.get(3)? },
                        indexes: split(row.get_ref(4)?.as_blob()?),
                    })
                },
            )
            .optional()
            .map_err(self.fails())
    }

    /// The chain of what was written, if it is remembered.
    ///
    /// # Errors
    /// See [`Known::newest`].
    pub fn chain(&self) -> Result<Option<Chain>> {
        self.connection
            .query_row("SELECT id, counter, previous FROM chain", [], |row| {
                Ok(Chain {
                    id: row.get(0)?,
                    counter: row.get::<_, i64>(1)?.unsigned_abs(),
                    previous: row.get::<_, Option<[u8; 16]>>(2)?.map(SnapshotId),
                })
            })
            .optional()
            .map_err(self.fails())
    }

    /// A folder as it was in a version.
    ///
    /// # Errors
    /// See [`Known::newest`]. A row that is damaged is one that is not there.
    pub fn folder(&self, version: i64, key: &Mark) -> Result<Option<KnownFolder>> {
        let row: Option<Vec<u8>> = self
            .connection
            .prepare_cached(
                "SELECT row FROM rows WHERE key = ?1 AND since <= ?2 AND until > ?2 ORDER BY since DESC LIMIT 1",
            )
            .and_then(|mut q| q.query_row(params![key, version], |row| row.get(0)).optional())
            .map_err(self.fails())?;
        Ok(row.and_then(|row| KnownFolder::decode(&row).ok()))
    }

    /// Forgets everything: a full snapshot begins anew.
    ///
    /// # Errors
    /// See [`Known::newest`].
    pub fn clear(&mut self) -> Result<()> {
        self.connection.execute_batch("DELETE FROM rows; DELETE FROM versions").map_err(self.fails())?;
        self.full = None;
        Ok(())
    }

    /// Notes a folder as it is now.
    ///
    /// # Errors
    /// See [`Known::newest`].
    pub fn put(&self, key: &Mark, folder: &KnownFolder) -> Result<()> {
        self.end(key)?;
        self.connection
            .prepare_cached("INSERT OR REPLACE INTO rows(key, since, until, row) VALUES (?1, ?2, ?3, ?4)")
            .and_then(|mut q| q.execute(params![key, self.version, OPEN, folder.encode()]))
            .map(|_| ())
            .map_err(self.fails())
    }

    /// Notes that a folder is no more.
    ///
    /// # Errors
    /// See [`Known::newest`].
    pub fn end(&self, key: &Mark) -> Result<()> {
        let fails = self.fails();
        // A row that began after the full snapshot serves nobody any more.
        let full = self.full.unwrap_or(OPEN);
        self.connection
            .prepare_cached("DELETE FROM rows WHERE key = ?1 AND until = ?2 AND since > ?3")
            .and_then(|mut q| q.execute(params![key, OPEN, full]))
            .map_err(&fails)?;
        let keep = if self.full.is_some() {
            "UPDATE rows SET until = ?3 WHERE key = ?1 AND until = ?2"
        } else {
            "DELETE FROM rows WHERE key = ?1 AND until = ?2 AND ?3 > 0"
        };
        self.connection
            .prepare_cached(keep)
            .and_then(|mut q| q.execute(params![key, OPEN, self.version]))
            .map(|_| ())
            .map_err(&fails)
    }

    /// Makes what was noted count: the snapshot exists.
    ///
    /// # Errors
    /// See [`Known::newest`].
    pub fn commit(self, snapshot: SnapshotId, kind: SnapshotKind, from: &Rests, chain: &Chain) -> Result<()> {
        let fails = self.fails();
        let c = &self.connection;
        let indexes: Vec<u8> = from.indexes.iter().flat_map(|name| name.0).collect();
        c.execute("DELETE FROM versions WHERE no <> ?1", [self.full.unwrap_or(0)]).map_err(&fails)?;
        c.execute(
            "INSERT INTO versions(no, snapshot, kind, seconds, nanos, indexes) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![self.version, snapshot.0, kind as i64, from.started.seconds, from.started.nanos, indexes],
        )
        .map_err(&fails)?;
        c.execute("DELETE FROM chain", []).map_err(&fails)?;
        c.execute(
            "INSERT INTO chain(id, counter, previous) VALUES (?1, ?2, ?3)",
            params![chain.id, chain.counter as i64, chain.previous.map(|p| p.0)],
        )
        .map_err(&fails)?;
        c.execute_batch("COMMIT").map_err(&fails)
    }
}

fn is_busy(e: &rusqlite::Error) -> bool {
    matches!(e.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Opens the file and begins the one transaction, which also keeps others out.
fn prepare(path: &Path) -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_millis(200))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "cache_size", -8 * 1024)?;
    connection.execute_batch("BEGIN IMMEDIATE")?;
    match connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0))? {
        1 => {}
        0 => connection.execute_batch(SCHEMA)?,
        _ => return Err(rusqlite::Error::InvalidQuery),
    }
    Ok(connection)
}

/// True if a change at `time` could have gone unnoticed by a snapshot that began at `started`.
pub fn is_racy(time: Timestamp, started: Timestamp) -> bool {
    let margin = if time.nanos == 0 { limits::RACY_COARSE_NANOS } else { limits::RACY_NANOS };
    time.as_nanos() + margin >= started.as_nanos()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::content::Extent;
    use crate::id::BlobId;

    fn folder(n: u64) -> KnownFolder {
        let content = Content { level: 0, extents: vec![Extent { id: Some(BlobId([n as u8; 32])), len: n }] };
        let time = Timestamp { seconds: -5, nanos: 7 };
        let entry = KnownEntry {
            name: [n as u8; 16],
            kind: Kind::File,
            size: n,
            mtime: time,
            ctime: time,
            inode: n,
            content: content.clone(),
        };
        KnownFolder { content, entries: vec![entry; 3] }
    }

    const CHAIN: Chain = Chain { id: [1; 16], counter: 4, previous: None };
    const START: Timestamp = Timestamp { seconds: 100, nanos: 0 };

    fn snapshot(root: &Path, n: u8, kind: SnapshotKind, put: &[(u8, u64)], end: &[u8]) {
        let mut known = Known::open(root, &[0; 16]).unwrap().unwrap();
        if kind == SnapshotKind::Full {
            known.clear().unwrap();
        }
        for (key, f) in put {
            known.put(&[*key; 16], &folder(*f)).unwrap();
        }
        for key in end {
            known.end(&[*key; 16]).unwrap();
        }
        let rests = Rests { started: START, indexes: vec![IndexName([n; 32]); 2] };
        known.commit(SnapshotId([n; 16]), kind, &rests, &CHAIN).unwrap();
    }

    #[test]
    fn the_newest_and_the_full_can_both_be_read() {
        use SnapshotKind::{Full, Incremental};
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        snapshot(root, 1, Full, &[(1, 10), (2, 20)], &[]);
        snapshot(root, 2, Incremental, &[(1, 11)], &[]);
        snapshot(root, 3, Incremental, &[(1, 12), (3, 30)], &[2]);
        let known = Known::open(root, &[0; 16]).unwrap().unwrap();
        let (newest, full) = (known.newest(false).unwrap().unwrap(), known.newest(true).unwrap().unwrap());
        assert_eq!((newest.snapshot.0[0], full.snapshot.0[0]), (3, 1));
        assert_eq!(newest.indexes, [IndexName([3; 32]); 2]);
        let read = |version: &Version, key: u8| known.folder(version.number, &[key; 16]).unwrap();
        assert_eq!(read(&newest, 1), Some(folder(12)));
        assert_eq!((read(&newest, 2), read(&newest, 3)), (None, Some(folder(30))));
        assert_eq!((read(&full, 1), read(&full, 2)), (Some(folder(10)), Some(folder(20))));
        assert_eq!(read(&full, 3), None);
        assert_eq!(known.chain().unwrap(), Some(CHAIN));
        let rows: i64 = known.connection.query_row("SELECT count(*) FROM rows", [], |r| r.get(0)).unwrap();
        assert_eq!(rows, 4, "no row is kept that neither needs");
        drop(known);
        snapshot(root, 4, Full, &[(1, 40)], &[]);
        let known = Known::open(root, &[0; 16]).unwrap().unwrap();
        let newest = known.newest(true).unwrap().unwrap();
        assert_eq!(known.folder(newest.number, &[2; 16]).unwrap(), None);
    }

    #[test]
    fn what_is_not_committed_never_was() {
        let root = tempfile::tempdir().unwrap();
        snapshot(root.path(), 1, SnapshotKind::Full, &[(1, 10)], &[]);
        let known = Known::open(root.path(), &[0; 16]).unwrap().unwrap();
        known.put(&[1; 16], &folder(11)).unwrap();
        assert!(Known::open(root.path(), &[0; 16]).unwrap().is_none(), "a second backup of it must not wait");
        drop(known);
        let known = Known::open(root.path(), &[0; 16]).unwrap().unwrap();
        let newest = known.newest(false).unwrap().unwrap();
        assert_eq!(known.folder(newest.number, &[1; 16]).unwrap(), Some(folder(10)));
    }

    #[test]
    fn damage_is_the_same_as_nothing() {
        let root = tempfile::tempdir().unwrap();
        snapshot(root.path(), 1, SnapshotKind::Full, &[(1, 10)], &[]);
        let known = Known::open(root.path(), &[0; 16]).unwrap().unwrap();
        known.connection.execute("UPDATE rows SET row = x'00'", []).unwrap();
        assert_eq!(known.folder(1, &[1; 16]).unwrap(), None);
        drop(known);
        let file = std::fs::read_dir(root.path()).unwrap().next().unwrap().unwrap().path();
        std::fs::write(&file, vec![7; 5000]).unwrap();
        assert_eq!(Known::open(root.path(), &[0; 16]).unwrap().unwrap().newest(false).unwrap(), None);
    }

    #[test]
    fn changes_around_the_start_are_racy() {
        let at = |seconds, nanos| is_racy(Timestamp { seconds, nanos }, START);
        assert!(at(100, 1) && at(101, 0) && at(99, 990_000_000) && at(98, 0));
        assert!(!at(99, 900_000_000) && !at(97, 0));
    }
}
