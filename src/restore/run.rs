//! The walk of a restore, and the order in which things are made.
//!
//! A restore that is interrupted and run again compares what is there by
//! content, and goes on: nothing it left behind is trusted by name or time.

use super::plan::{Failed, Link, Round, Written, ends_all};
use super::rounds::{Rounds, Settled, alongside};
use super::target::{Owners, TargetFolder, apply_at, apply_to_folder};
use crate::error::{Error, Result};
use crate::format::content::Content;
use crate::format::node::{Kind, Node};
use crate::limits;
use crate::monitor::{Event, Monitor};
use crate::repo::{FrameSet, Repository};
use crate::snapshot::Folder;
use crate::source::files::Trail;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

/// What is restored, and how.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Only what these patterns match, and what lies below it.
    pub include: Vec<String>,
    /// Nothing that these patterns match.
    pub exclude: Vec<String>,
    /// Remove what the snapshot does not have from folders that it has.
    pub delete: bool,
    /// Only look.
    pub dry_run: bool,
    /// Owners and groups by number only.
    pub numeric_owner: bool,
    /// Compare everything with the snapshot once it is written.
    pub verify: bool,
    /// Frames ([`super::Needs::frames`]) that are read before others which hold the same: they were warmed up.
    pub warmed: Option<Arc<FrameSet>>,
}

/// What a restore did.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Outcome {
    /// Entries made, or found as they should be.
    pub entries: u64,
    /// Bytes of files.
    pub bytes: u64,
    /// Bytes that were there already.
    pub unchanged_bytes: u64,
    /// Entries removed, as asked.
    pub deleted: u64,
    /// Files compared with the snapshot at the end, as asked.
    pub verified: u64,
    /// What could not be restored; the first `limits::REPORT_MAX`.
    pub failed: Vec<String>,
    /// Failures in all.
    pub failures: u64,
    /// What is restored, but for an attribute; the first `limits::REPORT_MAX`.
    pub warnings: Vec<String>,
}

impl Outcome {
    fn count(&mut self, size: u64) {
        self.entries += 1;
        // A sparse file may claim any size.
        self.bytes = self.bytes.saturating_add(size);
    }

    /// What was planned, and counted, was not made after all.
    fn uncount(&mut self, size: u64) {
        self.entries -= 1;
        self.bytes = self.bytes.saturating_sub(size);
    }

    pub(super) fn fail(&mut self, what: impl Into<String>) {
        self.failures += 1;
        if self.failed.len() < limits::REPORT_MAX {
            self.failed.push(what.into());
        }
    }

    pub(super) fn warn(&mut self, path: &Path, warnings: Vec<String>) {
        let room = limits::REPORT_MAX.saturating_sub(self.warnings.len());
        self.warnings.extend(warnings.into_iter().take(room).map(|w| format!("{}: {w}", path.display())));
    }
}

/// Restores what lies below `root` (or the single entry `only`) to the folder `target`.
///
/// # Errors
/// The store's, [`Error::Target`] if the target itself cannot be used or its disk is full,
/// [`Error::Interrupted`]. What is wrong with single entries is in the outcome.
pub fn run(
    repo: &Repository,
    root: &Content,
    only: Option<Node>,
    target: &Path,
    options: &Options,
    monitor: &dyn Monitor,
) -> Result<Outcome> {
    let selected = Selected::new(options)?;
    let owners = Owners::new(options.numeric_owner);
    let folder = if options.dry_run { None } else { Some(Arc::new(TargetFolder::root(target)?)) };
    alongside(repo, &owners, monitor, |rounds| {
        let mut restore = Restore {
            repo,
            options,
            monitor,
            owners: &owners,
            selected,
            round: Round::new(options.warmed.clone()),
            rounds,
            firsts: HashMap::new(),
            target,
            top: None,
            outcome: Outcome::default(),
            verifying: false,
        };
        restore.pass(root, only.clone(), folder.clone())?;
        if options.verify && !options.dry_run {
            restore.verifying = true;
            monitor.event(Event::Phase { name: "verifying", total_bytes: None });
            restore.pass(root, only, folder)?;
        }
        Ok(restore.outcome)
    })
}

/// Which entries are restored.
pub(super) struct Selected {
    include: Option<Gitignore>,
    exclude: Gitignore,
}

impl Selected {
    pub fn new(options: &Options) -> Result<Self> {
        let build = |patterns: &[String]| {
            let mut builder = GitignoreBuilder::new("");
            for pattern in patterns {
                builder
                    .add_line(None, pattern)
                    .map_err(|e| Error::Invalid(format!("{pattern:?} is no pattern: {e}")))?;
            }
            builder.build().map_err(|e| Error::Invalid(format!("the patterns: {e}")))
        };
        let include = if options.include.is_empty() { None } else { Some(build(&options.include)?) };
        Ok(Self { include, exclude: build(&options.exclude)? })
    }

    pub fn is_all(&self) -> bool {
        self.exclude.is_empty() && self.include.is_none()
    }

    /// Whether an entry is left out, and whether it and all below it is asked for; `above`: a folder above it is.
    pub fn chooses(&self, path: &Path, dir: bool, above: bool) -> (bool, bool) {
        let excluded = !self.exclude.is_empty() && self.exclude.matched(path, dir).is_ignore();
        let included = || self.include.as_ref().is_none_or(|include| include.matched(path, dir).is_ignore());
        (excluded, above || included())
    }
}

/// A folder that is being walked.
struct Level<'r> {
    entries: Folder<'r>,
    /// Made when something in it is restored; `None` before, and in a dry run.
    folder: Option<Arc<TargetFolder>>,
    node: Option<Node>,
    /// The way to it from the snapshot's root.
    trail: Arc<Trail>,
    /// It, or a folder above it, was asked for.
    included: bool,
    names: Vec<Vec<u8>>,
    /// Some of its entries could not be read: what is missing in `names` must not be deleted.
    partial: bool,
}

/// The first name of an inode, and the way to it: not its open folder, of which there may be more than
/// there are handles.
struct First {
    trail: Arc<Trail>,
    folder: Weak<TargetFolder>,
    name: Vec<u8>,
}

impl First {
    /// The folder; true if it had to be opened again.
    fn folder(&self, top: Option<&Arc<TargetFolder>>) -> Result<(Arc<TargetFolder>, bool)> {
        if let Some(folder) = self.folder.upgrade() {
            return Ok((folder, false));
        }
        let gone = || Error::Invalid("a link in a restore that writes nothing".into());
        let mut folder = Arc::clone(top.ok_or_else(gone)?);
        // The first step is the target itself.
        for name in self.trail.steps().into_iter().skip(1) {
            folder = Arc::new(folder.again(name.as_bytes())?);
        }
        Ok((folder, true))
    }
}

struct Restore<'r> {
    repo: &'r Repository,
    options: &'r Options,
    monitor: &'r dyn Monitor,
    owners: &'r Owners,
    selected: Selected,
    /// What is being planned.
    round: Round,
    /// What is being written.
    rounds: Rounds,
    /// The first name of each inode with several: later ones are linked to it.
    firsts: HashMap<(u64, u64), First>,
    target: &'r Path,
    /// The target, if it is written to.
    top: Option<Arc<TargetFolder>>,
    outcome: Outcome,
    verifying: bool,
}

impl<'r> Restore<'r> {
    /// Walks the tree once: to restore it, or to compare.
    fn pass(&mut self, root: &Content, only: Option<Node>, folder: Option<Arc<TargetFolder>>) -> Result<()> {
        let top = Trail::new(Path::new(""));
        self.top.clone_from(&folder);
        if let Some(node) = only {
            let mut levels = vec![self.level(&Content::default(), None, folder, top, true)];
            self.entry(node, &mut levels)?;
            self.flush()?;
            return self.settle();
        }
        let included = self.options.include.is_empty();
        let mut levels = vec![self.level(root, None, folder, top, included)];
        while let Some(level) = levels.last_mut() {
            if self.monitor.cancelled() {
                return Err(Error::Interrupted);
            }
            match level.entries.next() {
                Some(Ok(node)) => self.entry(node, &mut levels)?,
                Some(Err(e)) if e.is_damage() => {
                    level.partial = true;
                    let at = self.target.join(level.trail.path());
                    self.outcome.fail(format!("{}: some of its entries are lost: {e}", at.display()));
                }
                Some(Err(e)) => return Err(e),
                None => {
                    if let Some(level) = levels.pop() {
                        self.leave(level)?;
                    }
                }
            }
            if self.round.is_full() || self.may_write() {
                self.flush()?;
            }
        }
        self.flush()?;
        self.settle()
    }

    /// True if nothing is being written, and what is planned is worth it. A store that is far is asked for
    /// more at once.
    fn may_write(&self) -> bool {
        self.round.is_worth_writing() && self.rounds.is_idle() && !self.repo.store().is_far()
    }

    fn level(
        &self,
        content: &Content,
        node: Option<Node>,
        folder: Option<Arc<TargetFolder>>,
        trail: Arc<Trail>,
        included: bool,
    ) -> Level<'r> {
        let entries = Folder::new(self.repo, content);
        Level { entries, folder, node, trail, included, names: Vec::new(), partial: false }
    }

    fn entry(&mut self, mut node: Node, levels: &mut Vec<Level<'r>>) -> Result<()> {
        let Some(level) = levels.last_mut() else { return Ok(()) };
        let trail = Arc::clone(&level.trail);
        let path = |name: &[u8]| trail.path().join(OsStr::from_bytes(name));
        let dir = node.kind == Kind::Dir;
        if self.options.delete {
            level.names.push(node.name.clone());
        }
        let (excluded, included) = match self.selected.is_all() {
            true => (false, level.included),
            false => self.selected.chooses(&path(&node.name), dir, level.included),
        };
        if excluded {
            return Ok(());
        }
        if dir {
            if levels.len() >= limits::DEPTH_MAX {
                self.outcome.fail(format!("{}: folders are too deep", path(&node.name).display()));
                return Ok(());
            }
            let content = std::mem::take(&mut node.content);
            let trail = trail.below(&node.name);
            levels.push(self.level(&content, Some(node), None, trail, included));
            if included {
                self.make_folders(levels)?;
            }
            return Ok(());
        }
        if !included {
            return Ok(());
        }
        let size = node.size;
        if self.options.dry_run {
            self.outcome.count(size);
            return Ok(());
        }
        let Some(folder) = self.make_folders(levels)? else { return Ok(()) };
        let name = node.name.clone();
        if self.verifying {
            let compared = self.compare(&folder, node);
            return self.or_failed(compared, || path(&name)).map(|_| ());
        }
        // Before it is made: a part of it may fail, and be taken back, while the rest is planned.
        self.outcome.count(size);
        let made = self.make(&folder, node, &trail);
        if !self.or_failed(made, || path(&name))? {
            self.outcome.uncount(size);
        }
        Ok(())
    }

    /// False if it failed. A failure of one entry is noted; a full disk or a failing store ends the restore.
    fn or_failed(&mut self, made: Result<()>, path: impl Fn() -> PathBuf) -> Result<bool> {
        match made {
            Ok(()) => Ok(true),
            Err(Error::Target { source, .. }) if !ends_all(&source) => {
                self.outcome.fail(format!("{}: {source}", path().display()));
                Ok(false)
            }
            Err(e) if e.is_damage() => {
                self.outcome.fail(format!("{}: {e}", path().display()));
                Ok(false)
            }
            Err(e) => Err(e),
        }
    }

    /// The folder of the innermost level, made with all above it.
    fn make_folders(&mut self, levels: &mut [Level<'r>]) -> Result<Option<Arc<TargetFolder>>> {
        let first = levels.iter().rposition(|l| l.folder.is_some());
        let Some(first) = first else {
            // A dry run has no folder at all; its folders are counted here.
            if let Some(level) = levels.last_mut()
                && level.node.is_some()
                && level.names.is_empty()
                && level.included
                && self.options.dry_run
            {
                self.outcome.entries += 1;
            }
            return Ok(None);
        };
        for at in first + 1..levels.len() {
            let Some(above) = levels[at - 1].folder.clone() else { return Ok(None) };
            let Some(node) = &levels[at].node else { return Ok(None) };
            match above.enter(&node.name) {
                Ok(folder) => {
                    levels[at].folder = Some(Arc::new(folder));
                    self.round.folders += 1;
                    if !self.verifying {
                        self.outcome.entries += 1;
                    }
                }
                Err(e) => {
                    self.or_failed(Err(e), || levels[at].trail.path())?;
                    return Ok(None);
                }
            }
        }
        Ok(levels.last().and_then(|l| l.folder.clone()))
    }

    fn make(&mut self, folder: &Arc<TargetFolder>, node: Node, trail: &Arc<Trail>) -> Result<()> {
        let inode = (node.device, node.inode);
        if node.links > 1 && node.kind != Kind::Dir {
            if let Some(first) = self.firsts.get(&inode) {
                let (first_in, opened) = first.folder(self.top.as_ref())?;
                self.round.folders += usize::from(opened);
                let (first, size) = (first.name.clone(), node.size);
                self.round.links.push(Link { folder: Arc::clone(folder), name: node.name, first_in, first, size });
                return Ok(());
            }
            let first = First { trail: Arc::clone(trail), folder: Arc::downgrade(folder), name: node.name.clone() };
            self.firsts.insert(inode, first);
        }
        if node.kind == Kind::File {
            let warnings = &mut self.outcome.warnings;
            let (there, mut rest) = self.round.begin(self.repo, folder, node, self.owners, self.monitor, warnings)?;
            self.outcome.unchanged_bytes = self.outcome.unchanged_bytes.saturating_add(there);
            while let Some(more) = rest {
                if self.monitor.cancelled() {
                    return Err(Error::Interrupted);
                }
                let may_end = || self.rounds.is_idle() && !self.repo.store().is_far();
                rest = self.round.go_on(self.repo, more, &may_end)?;
                if rest.is_some() {
                    // A round takes a part of a file that is longer: memory does not grow with it.
                    self.flush()?;
                }
            }
            return Ok(());
        }
        folder.make(&node)?;
        let warnings = apply_at(folder, &node, self.owners);
        if !warnings.is_empty() {
            self.outcome.warn(&folder.path_of(&node.name), warnings);
        }
        Ok(())
    }

    /// Compares an entry that was restored with the snapshot.
    fn compare(&mut self, folder: &Arc<TargetFolder>, node: Node) -> Result<()> {
        let path = folder.path_of(&node.name);
        match folder.stat_of(&node.name)? {
            Some(stat) if stat.kind == node.kind => {}
            _ => {
                self.outcome.fail(format!("{}: verifying: it is not what was restored", path.display()));
                return Ok(());
            }
        }
        if node.kind == Kind::File {
            self.outcome.verified += 1;
            let opened = folder.folder().open_file(&node.name);
            let (file, _) = opened.map_err(|source| Error::Target { path: path.clone(), source })?;
            let equal = super::plan::matching(self.repo, &file, &node, self.monitor)?;
            if !equal.is_whole(&file, &node) {
                self.outcome.fail(format!("{}: verifying: its data differs", path.display()));
            }
        }
        Ok(())
    }

    /// Everything below a folder is planned: what does not belong there goes, attributes come when
    /// the round is written.
    fn leave(&mut self, level: Level<'r>) -> Result<()> {
        let (Some(folder), false) = (level.folder, self.verifying) else { return Ok(()) };
        if self.options.delete && !level.partial && level.included {
            for name in folder.names()? {
                if level.names.binary_search(&name).is_err() {
                    folder.remove(&name)?;
                    self.outcome.deleted += 1;
                }
            }
        }
        if let Some(node) = level.node {
            self.round.finished.push((folder, node));
        }
        Ok(())
    }

    /// Has what was planned written, once the round before is.
    fn flush(&mut self) -> Result<()> {
        self.settle()?;
        let next = Round::new(self.options.warmed.clone());
        self.rounds.begin(std::mem::replace(&mut self.round, next))
    }

    /// Waits for the round that is being written, and does what follows from it.
    fn settle(&mut self) -> Result<()> {
        let Some(Settled { written, links, finished }) = self.rounds.settle()? else { return Ok(()) };
        let Written { failed, warnings } = written;
        for Failed { what, size } in failed {
            self.outcome.uncount(size);
            self.outcome.fail(what);
        }
        let room = limits::REPORT_MAX.saturating_sub(self.outcome.warnings.len());
        self.outcome.warnings.extend(warnings.into_iter().take(room));
        for Link { folder, name, first_in, first, size } in links {
            let linked = folder.hard_link(&name, &first_in, &first);
            if !self.or_failed(linked, || folder.path_of(&name))? {
                self.outcome.uncount(size);
            }
        }
        for (folder, node) in finished {
            let warnings = apply_to_folder(&folder, &node, self.owners);
            if !warnings.is_empty() {
                self.outcome.warn(&folder.path(), warnings);
            }
        }
        Ok(())
    }
}
