//! What of a snapshot is lost, and the snapshot without it. A blob is lost if no
//! copy of it can be relied on, and none can be read either. A file that lacks a
//! part is left out as a whole: one with a hole must not pass for whole. Where a
//! part of a folder is lost nobody knows what stood in it.

use crate::backup::TreeBuilder;
use crate::error::{Error, Result};
use crate::format::content::Content;
use crate::format::manifest::Tally;
use crate::format::node::{Kind, Node};
use crate::format::pack::BlobKind;
use crate::id::BlobId;
use crate::index::EntryNumber;
use crate::limits;
use crate::maintenance::sound::Sound;
use crate::monitor::Monitor;
use crate::repo::{Lane, Repository};
use crate::snapshot::{Folder, distinct_leaves};
use crate::source::files::Trail;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

/// Something that is left out.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Dropped {
    /// The file, or the folder of which a part is lost.
    pub path: String,
    /// Bytes of the file; `None` for a part of a folder.
    pub bytes: Option<u64>,
    /// What is missing or damaged.
    pub why: String,
}

/// What a snapshot has lost.
#[derive(Default)]
pub(super) struct Loss {
    /// What is left out: the first `limits::REPORT_MAX`.
    pub dropped: Vec<Dropped>,
    /// Files that are left out, and their bytes.
    pub files: Tally,
    /// Folders of which a part is lost.
    pub folders: u64,
    /// Entries that stay in the root.
    pub kept: u64,
    hash: blake3::Hasher,
}

impl Loss {
    /// True if nothing is lost.
    pub fn is_none(&self) -> bool {
        self.files.entries == 0 && self.folders == 0
    }

    /// The same for the same loss.
    pub fn hash(&self) -> [u8; 32] {
        *self.hash.finalize().as_bytes()
    }

    fn note(&mut self, trail: &Trail, bytes: Option<u64>, why: String) {
        let path = trail.path();
        let name = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str());
        self.hash.update(&(name.len() as u64).to_le_bytes()).update(name);
        // No file is so large.
        self.hash.update(&bytes.unwrap_or(u64::MAX).to_le_bytes());
        if self.dropped.len() < limits::REPORT_MAX {
            self.dropped.push(Dropped { path: path.display().to_string(), bytes, why });
        }
    }
}

/// Finds out what is lost, and remembers it from one snapshot to the next.
pub(super) struct Finder<'r> {
    repo: &'r Repository,
    monitor: &'r dyn Monitor,
    /// Which copies can be relied on without a look.
    sound: Sound,
    /// Entries whose packs are not there at all.
    absent: HashSet<EntryNumber>,
    /// Segments of folders in which, and below which, nothing is lost.
    whole: HashSet<BlobId>,
    /// Blobs that no sound copy holds: why they cannot be read, if they cannot.
    doubtful: HashMap<BlobId, Option<Arc<str>>>,
    /// Something is lost that no index object names.
    pub is_unindexed: bool,
}

/// A folder that is gone through.
struct Level<'r> {
    /// Its entry in the folder above; `None` for the root.
    node: Option<Node>,
    content: Content,
    entries: Folder<'r>,
    trail: Arc<Trail>,
    is_whole: bool,
    /// A part of it is lost.
    is_cut: bool,
    kept: u64,
    /// The folder without what is lost, where one is made.
    builder: Option<TreeBuilder<'r>>,
}

impl<'r> Finder<'r> {
    /// For an index that is up to date.
    ///
    /// # Errors
    /// The store's.
    pub fn new(repo: &'r Repository, monitor: &'r dyn Monitor) -> Result<Self> {
        let known = repo.index().packs()?;
        let listed: HashMap<_, u64> = repo.list_packs()?.into_iter().collect();
        let damaged = repo.known_damage()?.packs;
        let (mut sound, mut absent) = (Sound::default(), HashSet::new());
        for pack in known {
            let size = listed.get(&pack.name);
            if size != Some(&pack.size) || damaged.contains(&pack.name) {
                sound.gone.insert(pack.number);
            }
            if size.is_none() {
                absent.insert(pack.number);
            }
        }
        let (whole, doubtful) = (HashSet::new(), HashMap::new());
        Ok(Self { repo, monitor, sound, absent, whole, doubtful, is_unindexed: false })
    }

    /// What a snapshot with this root has lost.
    ///
    /// # Errors
    /// The store's, and [`Error::Interrupted`].
    pub fn look(&mut self, root: &Content) -> Result<Loss> {
        self.walk(root, &mut None).map(|(_, loss)| loss)
    }

    /// The same, and the root of what is left, which is stored.
    ///
    /// # Errors
    /// See [`Finder::look`].
    pub fn rewrite<'l>(&mut self, root: &Content, lane: Lane<'l>) -> Result<(Content, Loss)>
    where
        'r: 'l,
    {
        let mut lane = Some(lane);
        let done = self.walk(root, &mut lane)?;
        lane.map_or(Ok(()), Lane::finish)?;
        Ok(done)
    }

    fn level<'l>(
        &self,
        node: Option<Node>,
        content: &Content,
        trail: Arc<Trail>,
        lane: &Option<Lane<'l>>,
    ) -> Level<'l>
    where
        'r: 'l,
    {
        // Held against nothing: what was there may be what is lost.
        let builder = lane.as_ref().map(|lane| TreeBuilder::new(&Content::default(), lane));
        let entries = Folder::new(self.repo, content);
        Level { node, content: content.clone(), entries, trail, is_whole: true, is_cut: false, kept: 0, builder }
    }

    fn walk<'l>(&mut self, root: &Content, lane: &mut Option<Lane<'l>>) -> Result<(Content, Loss)>
    where
        'r: 'l,
    {
        let mut loss = Loss::default();
        let mut stack = vec![self.level(None, root, Trail::new(Path::new("/")), lane)];
        loop {
            let depth = stack.len();
            let Some(level) = stack.last_mut() else { return Ok((Content::default(), loss)) };
            if self.monitor.cancelled() {
                return Err(Error::Interrupted);
            }
            match level.entries.next() {
                Some(Ok(node)) => {
                    let trail = level.trail.below(&node.name);
                    match node.kind {
                        // Nobody reads what is deeper.
                        Kind::Dir if depth < limits::DEPTH_MAX && !self.is_whole(&node.content) => {
                            let content = node.content.clone();
                            stack.push(self.level(Some(node), &content, trail, lane));
                        }
                        Kind::File => match self.file(&node.content)? {
                            None => level.keep(&node, lane)?,
                            Some(why) => {
                                level.is_whole = false;
                                loss.files.add(Tally::of(Kind::File, node.size));
                                loss.note(&trail, Some(node.size), why);
                            }
                        },
                        _ => level.keep(&node, lane)?,
                    }
                }
                Some(Err(e)) if e.is_damage() => {
                    self.is_unindexed |= e.object() == Some(&*self.repo.names().indexes());
                    loss.folders += u64::from(!std::mem::replace(&mut level.is_cut, true));
                    level.is_whole = false;
                    let trail = Arc::clone(&level.trail);
                    loss.note(&trail, None, e.to_string());
                }
                Some(Err(e)) => return Err(e),
                None => {
                    let Some(done) = stack.pop() else { return Ok((Content::default(), loss)) };
                    let above = stack.last_mut();
                    if done.is_whole {
                        self.whole.extend(done.content.extents.iter().filter_map(|extent| extent.id));
                    }
                    let kept = done.kept;
                    let is_whole = done.is_whole;
                    let (node, content) = done.finish(lane)?;
                    match (node, above) {
                        (Some(node), Some(above)) => {
                            above.is_whole &= is_whole;
                            above.keep(&Node { content, ..node }, lane)?;
                        }
                        _ => {
                            loss.kept = kept;
                            return Ok((content, loss));
                        }
                    }
                }
            }
        }
    }

    fn is_whole(&self, content: &Content) -> bool {
        content.extents.iter().all(|extent| extent.id.is_some_and(|id| self.whole.contains(&id)))
    }

    /// Why a file cannot be read, if it cannot.
    fn file(&mut self, content: &Content) -> Result<Option<String>> {
        for extent in distinct_leaves(self.repo, content) {
            if self.monitor.cancelled() {
                return Err(Error::Interrupted);
            }
            match extent {
                Ok(extent) => {
                    if let Some(id) = extent.id
                        && let Some(why) = self.lost(&id)?
                    {
                        return Ok(Some(why));
                    }
                }
                Err(e) if e.is_damage() => {
                    self.is_unindexed |= e.object() == Some(&*self.repo.names().indexes());
                    return Ok(Some(e.to_string()));
                }
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }

    /// Why a chunk is lost, if it is.
    fn lost(&mut self, id: &BlobId) -> Result<Option<String>> {
        if let Some(known) = self.doubtful.get(id) {
            return Ok(known.as_deref().map(str::to_owned));
        }
        let copies = self.repo.index().copies(id)?;
        for copy in &copies {
            if self.sound.fault(self.repo, copy)?.is_none() {
                return Ok(None);
            }
        }
        // What this machine has lost of its index the store may know.
        let is_sound = |copy: &crate::index::BlobCopy| Ok(self.sound.fault(self.repo, copy)?.is_none());
        if copies.is_empty() && self.repo.index().find_surely(id, is_sound)?.is_some() {
            return Ok(None);
        }
        let gone = copies.iter().all(|copy| self.absent.contains(&copy.entry()));
        let why = match copies.first() {
            None => {
                self.is_unindexed = true;
                Some(self.repo.unindexed(BlobKind::Chunk, id).to_string())
            }
            Some(copy) if gone => Some(Error::Missing { object: self.repo.names().pack(&copy.pack()) }.to_string()),
            // Of a damaged pack some frames may be whole.
            Some(_) => match self.repo.blob(BlobKind::Chunk, id) {
                Ok(_) => None,
                Err(e) if e.is_frozen() => None,
                Err(e) if e.is_damage() => Some(e.to_string()),
                Err(e) => return Err(e),
            },
        };
        self.doubtful.insert(*id, why.as_deref().map(Arc::from));
        Ok(why)
    }
}

impl<'r> Level<'r> {
    fn keep(&mut self, node: &Node, lane: &mut Option<Lane<'r>>) -> Result<()> {
        self.kept += 1;
        match (&mut self.builder, lane) {
            (Some(builder), Some(lane)) => builder.push(node, lane),
            _ => Ok(()),
        }
    }

    /// Its entry, and its content without what is lost.
    fn finish(self, lane: &mut Option<Lane<'r>>) -> Result<(Option<Node>, Content)> {
        let content = match (self.builder, lane) {
            (Some(builder), Some(lane)) if !self.is_whole => builder.finish(lane)?,
            _ => self.content,
        };
        Ok((self.node, content))
    }
}
