//! What one round of a restore will write: files, and for each frame of each
//! pack the blobs that go from it to which places.

use super::target::{Owners, TargetFolder, apply_to_file};
use crate::error::{Error, Result};
use crate::format::node::{Kind, Node};
use crate::format::pack::BlobKind;
use crate::id::BlobId;
use crate::index::{BlobCopy, Hint};
use crate::limits;
use crate::monitor::Monitor;
use crate::repo::{FrameNumber, FrameSet, Reading, Repository};
use crate::snapshot::{Leaves, leaves};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// A blob's way: from a place in a frame to a place in a file.
pub(super) struct Write {
    /// The frame, in the round's reading; `None` if it cannot be planned.
    pub frame: Option<FrameNumber>,
    /// Where it begins in the frame's plaintext.
    pub at: u32,
    /// Its length.
    pub len: u32,
    /// The file, by its place in the round.
    pub file: u32,
    /// Where it begins in the file.
    pub offset: u64,
    /// The blob.
    pub id: BlobId,
}

/// A file that is being written.
pub(super) struct PlannedFile {
    pub folder: Arc<TargetFolder>,
    pub node: Node,
    /// Writes that are still to come, and one more while parts of the file are not planned yet.
    pub waiting: AtomicUsize,
    /// Open while several writes follow one another.
    pub file: Mutex<Option<Arc<File>>>,
    /// It was there, and only what differs is written.
    pub existing: bool,
    /// It was there with all its names: its data is right, and never written.
    pub shared: bool,
    /// It was created by this restore.
    pub created: AtomicBool,
    pub failed: AtomicBool,
    /// It is as it should be, or gone.
    pub finished: AtomicBool,
}

/// A further name of an inode.
pub(super) struct Link {
    pub folder: Arc<TargetFolder>,
    pub name: Vec<u8>,
    /// The folder of the first name.
    pub first_in: Arc<TargetFolder>,
    pub first: Vec<u8>,
    /// The size of the file, if it is one.
    pub size: u64,
}

/// One round.
#[derive(Default)]
pub(super) struct Round {
    pub files: Vec<Arc<PlannedFile>>,
    pub writes: Vec<Write>,
    /// The frames from which they come.
    pub reading: Reading,
    /// Folders that were opened.
    pub folders: usize,
    /// Names to link, once the first name is there.
    pub links: Vec<Link>,
    /// Folders whose entries are all planned, innermost first.
    pub finished: Vec<(Arc<TargetFolder>, Node)>,
    hint: Hint,
}

/// What a round left behind.
#[derive(Default)]
pub(super) struct Written {
    pub failed: Vec<Failed>,
    pub warnings: Vec<String>,
}

/// A file that could not be written.
pub(super) struct Failed {
    /// Which, and why.
    pub what: String,
    /// The size that it should have.
    pub size: u64,
}

/// Which extents of a file are right already.
pub(super) struct Matching {
    equal: Vec<bool>,
    bytes: u64,
    /// The file has other names.
    shared: bool,
    /// The snapshot's file has holes.
    holes: bool,
}

impl Matching {
    /// True if nothing needs to be written.
    pub fn is_whole(&self, file: &File, node: &Node) -> bool {
        // What lies behind the file's end was not looked at.
        self.equal.iter().all(|e| *e) && file.metadata().is_ok_and(|m| m.len() == node.size)
    }
}

/// Compares a file with what the snapshot has for it, as far as the file goes: it bounds what is
/// kept of an answer, whatever the snapshot claims.
///
/// # Errors
/// The store's, where content lists cannot be read, [`Error::Interrupted`].
pub(super) fn matching(repo: &Repository, file: &File, node: &Node, monitor: &dyn Monitor) -> Result<Matching> {
    let mut found = Matching { equal: Vec::new(), bytes: 0, shared: false, holes: false };
    let size = file.metadata().map_or(0, |m| m.len());
    let (mut offset, mut buffer) = (0, Vec::new());
    for extent in leaves(repo, &node.content) {
        if offset >= size {
            break;
        }
        if monitor.cancelled() {
            return Err(Error::Interrupted);
        }
        let extent = extent?;
        let equal = match extent.id {
            None => is_zero(file, offset, extent.len, &mut buffer),
            Some(id) => {
                let len = usize::try_from(extent.len).unwrap_or(usize::MAX);
                len <= limits::FRAME_PLAIN_MAX && {
                    buffer.resize(len, 0);
                    file.read_exact_at(&mut buffer, offset).is_ok()
                        && repo.id_keys().blob_id(BlobKind::Chunk, &buffer) == id
                }
            }
        };
        found.holes |= extent.id.is_none();
        found.equal.push(equal);
        if equal {
            found.bytes += extent.len;
        }
        offset += extent.len;
    }
    Ok(found)
}

/// True if a range holds nothing but zeros, or lies in a hole.
fn is_zero(file: &File, mut at: u64, len: u64, buffer: &mut Vec<u8>) -> bool {
    let end = at.saturating_add(len);
    while at < end {
        match seek(file, SeekFrom::Data(at)) {
            // Holes need not be read.
            Ok(data) if data > at => {
                at = data;
                continue;
            }
            Err(Errno::NXIO) => return file.metadata().is_ok_and(|m| m.len() >= end),
            // There is data, or the file system cannot tell.
            _ => {}
        }
        buffer.resize(usize::try_from(end - at).unwrap_or(usize::MAX).min(limits::FRAME_PLAIN_MAX), 0);
        if file.read_exact_at(buffer, at).is_err() || buffer.iter().any(|b| *b != 0) {
            return false;
        }
        at += buffer.len() as u64;
    }
    true
}

/// What is right already of the file that stands in a file's place; `None` if it must be made anew.
fn present(repo: &Repository, folder: &TargetFolder, node: &Node, monitor: &dyn Monitor) -> Result<Option<Matching>> {
    if let Some(file) = folder.open_existing(&node.name)? {
        let found = matching(repo, &file, node, monitor)?;
        // Holes cannot be made in place: a file that has some is kept only if all of it is right.
        return Ok(Some(found).filter(|m| !m.holes || m.is_whole(&file, node)));
    }
    // A file of several names may be somebody else's too: it is kept if it is right, and never written.
    if node.links > 1
        && let Some(stat) = folder.stat_of(&node.name)?
        && stat.kind == Kind::File
        && stat.links == node.links
        && let Ok((file, _)) = folder.folder().open_file(&node.name)
    {
        let found = Matching { shared: true, ..matching(repo, &file, node, monitor)? };
        return Ok(Some(found).filter(|m| m.is_whole(&file, node)));
    }
    Ok(None)
}

/// A file of which a part is planned.
pub(super) struct Rest<'r> {
    file: Arc<PlannedFile>,
    extents: Leaves<'r>,
    /// What is right already, if the file is kept.
    present: Option<Matching>,
    /// The next extent: its number, and where it begins.
    next: usize,
    offset: u64,
    /// A part was planned before.
    begun: bool,
}

impl Round {
    /// An empty one; see [`Reading::preferring`].
    pub fn new(preferred: Option<Arc<FrameSet>>) -> Self {
        Self { reading: Reading::preferring(preferred), ..Self::default() }
    }

    /// True once the round should be written before more is planned.
    pub fn is_full(&self) -> bool {
        self.writes.len() >= limits::RESTORE_BATCH_BLOBS
            || self.reading.len() >= limits::READ_BATCH_FRAMES
            || self.folders >= limits::RESTORE_BATCH_DIRS
            || self.files.len() >= limits::RESTORE_BATCH_BLOBS
            || self.links.len() >= limits::RESTORE_BATCH_BLOBS
    }

    /// True once there is enough to write that the cores share it well.
    pub fn is_worth_writing(&self) -> bool {
        self.reading.plain_len() >= limits::RESTORE_BATCH_WORTH
    }

    /// Begins to plan a file; returns how many of its bytes are there already, and what is left for
    /// [`Round::go_on`]. A file without data is made at once.
    pub fn begin<'r>(
        &mut self,
        repo: &'r Repository,
        folder: &Arc<TargetFolder>,
        mut node: Node,
        owners: &Owners,
        monitor: &dyn Monitor,
        warnings: &mut Vec<String>,
    ) -> Result<(u64, Option<Rest<'r>>)> {
        if node.content.is_empty() {
            let file = match folder.open_existing(&node.name)? {
                Some(file) => {
                    // To set even the length that it has would touch it.
                    if file.metadata().is_ok_and(|m| m.len() > 0) {
                        let path = || folder.path_of(&node.name);
                        file.set_len(0).map_err(|source| Error::Target { path: path(), source })?;
                    }
                    file
                }
                None => folder.create_file(&node.name)?,
            };
            let told = apply_to_file(&file, &node, owners);
            warnings.extend(told.into_iter().map(|w| format!("{}: {w}", folder.path_of(&node.name).display())));
            return Ok((0, None));
        }
        let present = present(repo, folder, &node, monitor)?;
        let extents = leaves(repo, &std::mem::take(&mut node.content));
        let there = present.as_ref().map_or(0, |m| m.bytes);
        let file = PlannedFile {
            folder: Arc::clone(folder),
            waiting: AtomicUsize::new(1),
            file: Mutex::new(None),
            existing: present.is_some(),
            shared: present.as_ref().is_some_and(|m| m.shared),
            created: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            finished: AtomicBool::new(false),
            node,
        };
        Ok((there, Some(Rest { file: Arc::new(file), extents, present, next: 0, offset: 0, begun: false })))
    }

    /// Plans as much of a file as one round takes, or as is worth writing if it `may_end`; returns what is
    /// left, to be planned for the next round. Parts that were planned before may be written meanwhile.
    pub fn go_on<'r>(
        &mut self,
        repo: &Repository,
        mut rest: Rest<'r>,
        may_end: &dyn Fn() -> bool,
    ) -> Result<Option<Rest<'r>>> {
        let first = self.writes.len();
        let failed = rest.file.failed.load(Ordering::Acquire);
        let mut planned = if failed { Ok(true) } else { self.part(repo, &mut rest, may_end) };
        if planned.is_err() {
            self.writes.truncate(first);
            if !rest.begun {
                return planned.map(|_| None);
            }
            // A part of it is written: it goes, like any that fails. Whoever wrote it may have told why.
            let was_told = rest.file.failed.swap(true, Ordering::AcqRel);
            if was_told && planned.as_ref().is_err_and(Error::is_damage) {
                planned = Ok(true);
            }
        }
        let whole = !matches!(planned, Ok(false));
        rest.file.waiting.fetch_add(self.writes.len() - first, Ordering::AcqRel);
        if whole {
            rest.file.waiting.fetch_sub(1, Ordering::AcqRel);
        }
        self.files.push(Arc::clone(&rest.file));
        rest.begun = true;
        planned.map(|whole| (!whole).then_some(rest))
    }

    /// True once the file's last extent is planned.
    fn part(&mut self, repo: &Repository, rest: &mut Rest<'_>, may_end: &dyn Fn() -> bool) -> Result<bool> {
        let number = self.files.len() as u32;
        for _ in 0..limits::RESTORE_BATCH_BLOBS {
            if self.reading.len() >= limits::READ_BATCH_FRAMES || self.is_worth_writing() && may_end() {
                break;
            }
            let Some(extent) = rest.extents.next().transpose()? else { return Ok(true) };
            let right = rest.present.as_ref().is_some_and(|m| m.equal.get(rest.next) == Some(&true));
            if let (Some(id), false) = (extent.id, right) {
                let write = self.write(repo, id, number, rest.offset, extent.len)?;
                self.writes.push(write);
            }
            rest.next += 1;
            rest.offset += extent.len;
        }
        Ok(false)
    }

    fn write(&mut self, repo: &Repository, id: BlobId, file: u32, offset: u64, len: u64) -> Result<Write> {
        let copy = chunk(repo, &id, len, self.reading.preferred(), &mut self.hint)?;
        let frame = self.reading.need(repo, &copy)?;
        Ok(Write { frame, at: copy.at(), len: copy.size(), file, offset, id })
    }
}

/// The copy of a chunk of that length that is to be read: one of the preferred frames, if it lies in one.
pub(super) fn chunk(
    repo: &Repository,
    id: &BlobId,
    len: u64,
    preferred: Option<&Arc<FrameSet>>,
    hint: &mut Hint,
) -> Result<BlobCopy> {
    // An entry that gives another length is wrong; whoever wrote it must not hide a right one.
    let fits = |copy: &BlobCopy| u64::from(copy.size()) == len;
    let right = |copy: &BlobCopy| Ok(fits(copy));
    if let Some(preferred) = preferred
        && let Some(copy) = repo.index().find(id, hint, |copy| Ok(fits(copy) && preferred.holds(copy)))?
    {
        return Ok(copy);
    }
    let found = match repo.index().find(id, hint, right)? {
        None => repo.index().find_surely(id, right)?,
        found => found,
    };
    match found {
        Some(copy) => Ok(copy),
        None => Err(match repo.index().copies(id)?.first() {
            None => repo.unindexed(BlobKind::Chunk, id),
            Some(copy) => {
                let why = format!("the index gives chunk {id} another length");
                Error::damaged(repo.names().pack(&copy.pack()), why)
            }
        }),
    }
}

/// An error that will meet every entry that follows.
pub(super) fn ends_all(e: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(e.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem)
}
