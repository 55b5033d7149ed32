//! What a restore would read, found out without reading any of the data: a walk over the trees, and what
//! the index knows of their blobs and of all that those rest on. Makes nothing.

use super::plan::chunk;
use super::run::{Options, Selected};
use crate::error::{Error, Result};
use crate::format::content::Content;
use crate::format::node::{Kind, Node};
use crate::format::pack::{BlobKind, FRAMES_AT, StorageClass};
use crate::id::{BlobId, PackName};
use crate::index::{BlobCopy, EntryNumber, Hint};
use crate::limits;
use crate::monitor::{Event, Monitor};
use crate::repo::{FrameSet, Reading, Repository};
use crate::snapshot::{Folder, leaves, lists_at};
use crate::source::files::Trail;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

/// A pack of which something is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// Its object's name in the store.
    pub object: String,
    /// What lies in it.
    pub class: StorageClass,
    /// Bytes that are needed of it.
    pub read: u64,
    /// Its size in bytes.
    pub size: u64,
}

/// What a restore needs.
#[derive(Debug, Default)]
pub struct Needs {
    /// The packs: those of data first, then by their names.
    pub packs: Vec<Need>,
    /// The frames of data, for [`Options::warmed`].
    pub frames: Arc<FrameSet>,
    /// What cannot be restored as far as is known by now; the first `limits::REPORT_MAX`.
    pub failed: Vec<String>,
    /// Failures in all.
    pub failures: u64,
}

impl Needs {
    /// The packs of data.
    pub fn data(&self) -> impl Iterator<Item = &Need> {
        self.packs.iter().filter(|need| need.class == StorageClass::Data)
    }
}

/// What [`super::run()`] would read to restore the same by the same options, if nothing of it were there
/// already. Where something has several copies, only one is named: [`Options::warmed`] has it taken.
///
/// # Errors
/// The store's, [`Error::Invalid`] for a pattern that is none, [`Error::Interrupted`]. What cannot be read
/// of single entries is in the answer.
pub fn needs(
    repo: &Repository,
    root: &Content,
    only: Option<Node>,
    options: &Options,
    monitor: &dyn Monitor,
) -> Result<Needs> {
    monitor.event(Event::Phase { name: "planning", total_bytes: None });
    let mut survey = Survey {
        repo,
        monitor,
        selected: Selected::new(options)?,
        reading: Reading::default(),
        known: FrameSet::default(),
        packs: HashMap::new(),
        firsts: HashSet::new(),
        hint: Hint::default(),
        needs: Needs::default(),
        data: FrameSet::default(),
    };
    match only {
        Some(node) => drop(survey.entry(&node, &Trail::new(Path::new("")), true, 0)?),
        None => survey.walk(root, options.include.is_empty())?,
    }
    survey.finish()
}

/// What was found of a pack.
struct Found {
    class: StorageClass,
    read: u64,
}

/// A folder that is being walked.
struct Level<'r> {
    entries: Folder<'r>,
    trail: Arc<Trail>,
    /// It, or a folder above it, was asked for.
    included: bool,
}

struct Survey<'r> {
    repo: &'r Repository,
    monitor: &'r dyn Monitor,
    selected: Selected,
    /// Frames that are not counted yet.
    reading: Reading,
    /// Frames that are.
    known: FrameSet,
    data: FrameSet,
    packs: HashMap<(EntryNumber, PackName), Found>,
    /// Inodes of several names that were met.
    firsts: HashSet<(u64, u64)>,
    hint: Hint,
    needs: Needs,
}

impl<'r> Survey<'r> {
    fn walk(&mut self, root: &Content, included: bool) -> Result<()> {
        self.trees(root)?;
        let top = Trail::new(Path::new(""));
        let mut levels = vec![Level { entries: Folder::new(self.repo, root), trail: top, included }];
        while let Some(depth) = levels.len().checked_sub(1) {
            let Some(level) = levels.last_mut() else { return Ok(()) };
            if self.monitor.cancelled() {
                return Err(Error::Interrupted);
            }
            match level.entries.next() {
                Some(Ok(node)) => {
                    let (trail, included) = (Arc::clone(&level.trail), level.included);
                    levels.extend(self.entry(&node, &trail, included, depth)?);
                }
                Some(Err(e)) => {
                    let trail = Arc::clone(&level.trail);
                    self.or_failed(Err(e), &trail)?;
                }
                None => drop(levels.pop()),
            }
        }
        Ok(())
    }

    /// Plans an entry; a folder is given back, to be walked.
    fn entry(&mut self, node: &Node, trail: &Arc<Trail>, above: bool, depth: usize) -> Result<Option<Level<'r>>> {
        let is_folder = node.kind == Kind::Dir;
        let (excluded, included) = match self.selected.is_all() {
            true => (false, above),
            false => self.selected.chooses(&trail.path().join(OsStr::from_bytes(&node.name)), is_folder, above),
        };
        if excluded || !included && !is_folder {
            return Ok(None);
        }
        self.monitor.event(Event::Entries(1));
        let trail = trail.below(&node.name);
        if is_folder {
            if depth + 1 >= limits::DEPTH_MAX {
                self.fail(format!("{}: folders are too deep", trail.path().display()));
                return Ok(None);
            }
            self.trees(&node.content)?;
            return Ok(Some(Level { entries: Folder::new(self.repo, &node.content), trail, included }));
        }
        let is_first = node.links <= 1 || self.firsts.insert((node.device, node.inode));
        if node.kind == Kind::File && is_first {
            let planned = self.file(&node.content);
            self.or_failed(planned, &trail)?;
        }
        Ok(None)
    }

    fn file(&mut self, content: &Content) -> Result<()> {
        self.lists(content)?;
        for extent in leaves(self.repo, content) {
            if self.monitor.cancelled() {
                return Err(Error::Interrupted);
            }
            let extent = extent?;
            if let Some(id) = extent.id {
                let copy = chunk(self.repo, &id, extent.len, None, &mut self.hint)?;
                self.needs_copy(&copy, BlobKind::Chunk, &id)?;
            }
        }
        Ok(())
    }

    /// The segments of a folder. One that is lost is told by the walk.
    fn trees(&mut self, content: &Content) -> Result<()> {
        self.lists(content)?;
        for extent in leaves(self.repo, content) {
            match extent {
                Ok(extent) => self.needs_tree(BlobKind::Tree, extent.id)?,
                Err(e) if e.is_damage() => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// The lists below which a stream's own extents stand.
    fn lists(&mut self, content: &Content) -> Result<()> {
        for level in 1..=content.level {
            for extent in lists_at(self.repo, content, level) {
                match extent {
                    Ok(extent) => self.needs_tree(BlobKind::List, extent.id)?,
                    Err(e) if e.is_damage() => {}
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(())
    }

    /// A tree or a list, which is read from its first copy.
    fn needs_tree(&mut self, kind: BlobKind, id: Option<BlobId>) -> Result<()> {
        let Some(id) = id else { return Ok(()) };
        match self.repo.index().copies(&id)?.into_iter().next() {
            Some(copy) => self.needs_copy(&copy, kind, &id),
            None => Ok(()),
        }
    }

    fn needs_copy(&mut self, copy: &BlobCopy, kind: BlobKind, id: &BlobId) -> Result<()> {
        // What it rests on was counted with it.
        if self.known.holds(copy) {
            return Ok(());
        }
        if self.reading.need(self.repo, copy)?.is_none() {
            // Nobody knows all that it rests on: any copy may have to do.
            for copy in self.repo.index().copies(id)? {
                self.count((copy.entry(), copy.pack()), copy.frame_number(), copy.frame().stored, kind);
            }
        }
        if self.reading.len() >= limits::READ_BATCH_FRAMES {
            self.settle();
        }
        Ok(())
    }

    fn count(&mut self, pack: (EntryNumber, PackName), number: u32, stored: u32, kind: BlobKind) {
        if !self.known.insert(pack.0, number) {
            return;
        }
        let class = kind.class();
        if class == StorageClass::Data {
            self.data.insert(pack.0, number);
        }
        // Each pack's key is read with it.
        let found = self.packs.entry(pack).or_insert(Found { class, read: FRAMES_AT });
        found.read += u64::from(stored);
    }

    /// Counts the frames that were planned.
    fn settle(&mut self) {
        for frame in std::mem::take(&mut self.reading).frames() {
            self.count((frame.entry(), frame.pack()), frame.number(), frame.frame().stored, frame.frame().kind);
        }
    }

    fn fail(&mut self, what: String) {
        self.needs.failures += 1;
        if self.needs.failed.len() < limits::REPORT_MAX {
            self.needs.failed.push(what);
        }
    }

    /// What is wrong with one entry stops nothing.
    fn or_failed(&mut self, planned: Result<()>, trail: &Trail) -> Result<()> {
        match planned {
            Err(e) if e.is_damage() => {
                self.fail(format!("{}: {e}", trail.path().display()));
                Ok(())
            }
            other => other,
        }
    }

    fn finish(mut self) -> Result<Needs> {
        self.settle();
        let sizes: HashMap<PackName, u64> =
            self.repo.index().packs()?.into_iter().map(|pack| (pack.name, pack.size)).collect();
        let mut packs: HashMap<PackName, Need> = HashMap::new();
        // Two entries may name one pack.
        for ((_, name), found) in self.packs {
            let size = sizes.get(&name).copied().unwrap_or_default();
            let none = Need { object: self.repo.names().pack(&name), class: found.class, read: 0, size };
            packs.entry(name).or_insert(none).read += found.read;
        }
        let mut packs: Vec<Need> = packs.into_values().collect();
        packs.sort_unstable_by(|a, b| {
            let key = |need: &Need| need.class != StorageClass::Data;
            key(a).cmp(&key(b)).then_with(|| a.object.cmp(&b.object))
        });
        Ok(Needs { packs, frames: Arc::new(self.data), ..self.needs })
    }
}
