//! The walk of a restore, and the order in which things are made.
//!
//! A restore that is interrupted and run again compares what is there by
//! content, and goes on: nothing it left behind is trusted by name or time.

use super::fetch;
use super::plan::{Failed, Link, Round, Written, ends_all};
use super::target::{Owners, TargetFolder, apply_at, apply_to_folder};
use crate::error::{Error, Result};
use crate::format::content::Content;
use crate::format::node::{Kind, Node};
use crate::limits;
use crate::monitor::{Event, Monitor};
use crate::repo::Repository;
use crate::snapshot::Folder;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
    let mut restore = Restore {
        repo,
        options,
        monitor,
        owners,
        selected,
        round: Round::default(),
        firsts: HashMap::new(),
        outcome: Outcome::default(),
        verifying: false,
    };
    restore.pass(root, only.clone(), folder.clone(), target)?;
    if options.verify && !options.dry_run {
        restore.verifying = true;
        monitor.event(Event::Phase { name: "verifying", total_bytes: None });
        restore.pass(root, only, folder, target)?;
    }
    Ok(restore.outcome)
}

/// Which entries are restored.
struct Selected {
    include: Option<Gitignore>,
    exclude: Gitignore,
}

impl Selected {
    fn new(options: &Options) -> Result<Self> {
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

    fn excludes(&self, path: &Path, dir: bool) -> bool {
        !self.exclude.is_empty() && self.exclude.matched(path, dir).is_ignore()
    }

    fn includes(&self, path: &Path, dir: bool) -> bool {
        self.include.as_ref().is_none_or(|include| include.matched(path, dir).is_ignore())
    }
}

/// A folder that is being walked.
struct Level<'r> {
    entries: Folder<'r>,
    /// Made when something in it is restored; `None` before, and in a dry run.
    folder: Option<Arc<TargetFolder>>,
    node: Option<Node>,
    /// Below the snapshot's root.
    path: PathBuf,
    /// It, or a folder above it, was asked for.
    included: bool,
    names: Vec<Vec<u8>>,
    /// Some of its entries could not be read: what is missing in `names` must not be deleted.
    partial: bool,
}

struct Restore<'r> {
    repo: &'r Repository,
    options: &'r Options,
    monitor: &'r dyn Monitor,
    owners: Owners,
    selected: Selected,
    round: Round,
    /// The first name of each inode with several: later ones are linked to it.
    firsts: HashMap<(u64, u64), (Arc<TargetFolder>, Vec<u8>)>,
    outcome: Outcome,
    verifying: bool,
}

impl<'r> Restore<'r> {
    /// Walks the tree once: to restore it, or to compare.
    fn pass(
        &mut self,
        root: &Content,
        only: Option<Node>,
        folder: Option<Arc<TargetFolder>>,
        target: &Path,
    ) -> Result<()> {
        if let Some(node) = only {
            let mut levels = vec![self.level(&Content::default(), None, folder, PathBuf::new(), true)];
            self.entry(node, &mut levels)?;
            return self.flush();
        }
        let included = self.options.include.is_empty();
        let mut levels = vec![self.level(root, None, folder, PathBuf::new(), included)];
        while let Some(level) = levels.last_mut() {
            if self.monitor.cancelled() {
                return Err(Error::Interrupted);
            }
            match level.entries.next() {
                Some(Ok(node)) => self.entry(node, &mut levels)?,
                Some(Err(e)) if e.is_damage() => {
                    level.partial = true;
                    let at = target.join(&level.path);
                    self.outcome.fail(format!("{}: some of its entries are lost: {e}", at.display()));
                }
                Some(Err(e)) => return Err(e),
                None => {
                    if let Some(level) = levels.pop() {
                        self.leave(level)?;
                    }
                }
            }
            if self.round.is_full() {
                self.flush()?;
            }
        }
        self.flush()
    }

    fn level(
        &self,
        content: &Content,
        node: Option<Node>,
        folder: Option<Arc<TargetFolder>>,
        path: PathBuf,
        included: bool,
    ) -> Level<'r> {
        let entries = Folder::new(self.repo, content);
        Level { entries, folder, node, path, included, names: Vec::new(), partial: false }
    }

    fn entry(&mut self, mut node: Node, levels: &mut Vec<Level<'r>>) -> Result<()> {
        let Some(level) = levels.last_mut() else { return Ok(()) };
        let path = level.path.join(OsStr::from_bytes(&node.name));
        let dir = node.kind == Kind::Dir;
        if self.options.delete {
            level.names.push(node.name.clone());
        }
        if self.selected.excludes(&path, dir) {
            return Ok(());
        }
        let included = level.included || self.selected.includes(&path, dir);
        if dir {
            if levels.len() >= limits::DEPTH_MAX {
                self.outcome.fail(format!("{}: folders are too deep", path.display()));
                return Ok(());
            }
            let content = std::mem::take(&mut node.content);
            levels.push(self.level(&content, Some(node), None, path, included));
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
        if self.verifying {
            let compared = self.compare(&folder, node);
            return self.or_failed(compared, &path).map(|_| ());
        }
        let made = self.make(&folder, node);
        if self.or_failed(made, &path)? {
            self.outcome.count(size);
        }
        Ok(())
    }

    /// False if it failed. A failure of one entry is noted; a full disk or a failing store ends the restore.
    fn or_failed(&mut self, made: Result<()>, path: &Path) -> Result<bool> {
        match made {
            Ok(()) => Ok(true),
            Err(Error::Target { source, .. }) if !ends_all(&source) => {
                self.outcome.fail(format!("{}: {source}", path.display()));
                Ok(false)
            }
            Err(e) if e.is_damage() => {
                self.outcome.fail(format!("{}: {e}", path.display()));
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
                    let path = levels[at].path.clone();
                    self.or_failed(Err(e), &path)?;
                    return Ok(None);
                }
            }
        }
        Ok(levels.last().and_then(|l| l.folder.clone()))
    }

    fn make(&mut self, folder: &Arc<TargetFolder>, node: Node) -> Result<()> {
        let inode = (node.device, node.inode);
        if node.links > 1 && node.kind != Kind::Dir {
            if let Some((first_in, first)) = self.firsts.get(&inode) {
                self.round.links.push(Link {
                    folder: Arc::clone(folder),
                    name: node.name,
                    first_in: Arc::clone(first_in),
                    first: first.clone(),
                    size: node.size,
                });
                return Ok(());
            }
            self.firsts.insert(inode, (Arc::clone(folder), node.name.clone()));
        }
        if node.kind == Kind::File {
            let there = self.round.add(self.repo, folder, node, &self.owners, &mut self.outcome.warnings)?;
            self.outcome.unchanged_bytes = self.outcome.unchanged_bytes.saturating_add(there);
            return Ok(());
        }
        folder.make(&node)?;
        let warnings = apply_at(folder, &node, &self.owners);
        self.outcome.warn(&folder.path_of(&node.name), warnings);
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
            let file = folder.reopen(&node.name)?;
            let equal = super::plan::matching(self.repo, &file, &node)?;
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

    /// Writes what was planned.
    fn flush(&mut self) -> Result<()> {
        let mut round = std::mem::take(&mut self.round);
        let Written { failed, warnings } = fetch::write(self.repo, &mut round, &self.owners, self.monitor)?;
        for Failed { what, size } in failed {
            self.outcome.uncount(size);
            self.outcome.fail(what);
        }
        let room = limits::REPORT_MAX.saturating_sub(self.outcome.warnings.len());
        self.outcome.warnings.extend(warnings.into_iter().take(room));
        for Link { folder, name, first_in, first, size } in round.links {
            let linked = folder.hard_link(&name, &first_in, &first);
            if !self.or_failed(linked, &folder.path_of(&name))? {
                self.outcome.uncount(size);
            }
        }
        for (folder, node) in round.finished {
            let warnings = apply_to_folder(&folder, &node, &self.owners);
            self.outcome.warn(folder.path(), warnings);
        }
        Ok(())
    }
}
