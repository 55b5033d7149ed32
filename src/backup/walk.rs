//! The walk: one thread goes through the source's folders in order, compares
//! each entry with what it was before, sends files that must be read to the
//! readers, and builds a folder's tree once all its entries are known.
//!
//! A folder in which nothing changed is taken over whole: no node is made, no
//! tree is built. The walk runs ahead of the readers by a bounded number of
//! files, and holds folder handles, never paths, so that no link leads it away.

use super::base::{Base, Token, mark};
use super::compare::{Entry, compare, forget_below};
use super::job::{Done, Job, Place};
use super::known::{Known, KnownEntry, KnownFolder, Mark};
use super::listing::{Below, Listed, Listing, Rules};
use super::moved::Moved;
use super::paths::{Branch, Root};
use super::replace::Old;
use super::scout::{Scout, Way};
use super::tree::TreeBuilder;
use super::{Findings, Trouble};
use crate::error::{Error, Result};
use crate::format::content::Content;
use crate::format::node::Kind;
use crate::format::pack::BlobKind;
use crate::limits;
use crate::monitor::{Event, Monitor};
use crate::repo::Lane;
use crate::source::files::{Folder, Trail};
use crate::source::users::Users;
use crossbeam_channel::{Receiver, Sender};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A folder that is underway.
struct Underway {
    parent: Option<Place>,
    mark: Mark,
    /// Where it is stored, below the snapshot's root.
    stored: Arc<Trail>,
    before: Option<KnownFolder>,
    entries: Vec<Entry>,
    /// Entries whose content is not known yet, and one for the walk itself.
    waiting: usize,
}

impl Underway {
    /// What the content of an entry is held against.
    fn old(&self, at: usize) -> Old {
        let entry = &self.entries[at];
        let before = self.before.as_ref().map_or(&[][..], |f| &f.entries[..]);
        entry.old.clone().or_else(|| entry.own(before).map(|old| old.content.clone().into())).unwrap_or_default()
    }
}

/// The way to the next subfolder.
fn next_to(way: &[u32]) -> Way {
    way.split_last().map(|(last, above)| [above, &[last.saturating_add(1)]].concat()).unwrap_or_default()
}

/// What the walk is told.
pub struct Settings<'a> {
    /// What is left out, and how entries are marked.
    pub rules: &'a Rules<'a>,
    /// Where the earlier state is read from.
    pub base: Base<'a>,
    /// The base is not the newest version of the notes: folders are noted even if they stand as in the base.
    pub note_all: bool,
    /// Only look: nothing is read or stored.
    pub dry_run: bool,
    /// Where events go.
    pub monitor: &'a dyn Monitor,
}

/// The walk.
pub struct Walk<'a, 'w> {
    settings: Settings<'a>,
    scout: &'a Scout<'a>,
    known: Option<&'a Known>,
    users: Users,
    lane: Option<Lane<'w>>,
    /// Where deltas are made: finds what files under new names were.
    moved: Option<Moved<'a>>,
    jobs: Sender<Job>,
    done: Receiver<Done>,
    underway: HashMap<usize, Underway>,
    next: usize,
    root: Option<Content>,
    findings: Findings,
}

/// A folder whose subfolders are being walked.
struct Open {
    number: usize,
    subfolders: std::vec::IntoIter<usize>,
    /// Of these so many were begun.
    begun: u32,
}

/// The way to the subfolder that was begun last.
fn way_of(stack: &[Open]) -> Way {
    stack.iter().map(|open| open.begun.saturating_sub(1)).collect()
}

impl<'a, 'w> Walk<'a, 'w> {
    /// A walk that puts trees through `lane` (none for a dry run), sends files to `jobs` and hears of them by `done`.
    pub fn new(
        settings: Settings<'a>,
        scout: &'a Scout<'a>,
        known: Option<&'a Known>,
        lane: Option<Lane<'w>>,
        jobs: Sender<Job>,
        done: Receiver<Done>,
    ) -> Self {
        let deltas = lane.as_ref().is_some_and(|lane| lane.makes_deltas(BlobKind::Chunk));
        let moved = settings.base.started().filter(|_| deltas).map(|started| {
            let notes = match &settings.base {
                Base::Known(version) => known.map(|known| (known, version.number)),
                _ => None,
            };
            Moved::new(settings.rules.keys, started, notes)
        });
        Self {
            settings,
            scout,
            known,
            moved,
            users: Users::default(),
            lane,
            jobs,
            done,
            underway: HashMap::new(),
            next: 0,
            root: None,
            findings: Findings::default(),
        }
    }

    /// Walks everything; returns the root's content and what was found.
    ///
    /// # Errors
    /// The repository's; what is wrong with single entries is among the findings.
    pub fn run(mut self, root: &Root, mark: Mark) -> Result<(Content, Findings)> {
        let mut stack = Vec::new();
        let token = self.settings.base.root(mark);
        let top = Trail::new(Path::new(""));
        let entries = match root {
            Root::Whole(path) => {
                let folder = Folder::open(path).map_err(|source| Error::Source { path: path.clone(), source })?;
                let folder = Arc::new(folder);
                // The folder that the user asked for must be readable: an empty snapshot would be a lie.
                let names = folder.names().map_err(|source| Error::Source { path: path.clone(), source })?;
                let listing = self.settings.rules.look_at(&folder, names, &top, &mark);
                self.listed(listing)
            }
            Root::Entries(list) => {
                let mut entries = Vec::new();
                for (name, from, branch) in list {
                    let folder = Folder::open(from).map_err(|source| Error::Source { path: from.clone(), source })?;
                    entries.extend(self.branch_entry(&Arc::new(folder), name, branch, &mark));
                }
                entries
            }
        };
        self.tell(&[0], entries.iter(), &top);
        stack.push(self.enter(None, mark, top, token, entries)?);
        while let Some(open) = stack.last_mut() {
            let number = open.number;
            match open.subfolders.next() {
                Some(entry) => {
                    open.begun = open.begun.saturating_add(1);
                    if let Some(open) = self.descend(Place { folder: number, entry }, &stack)? {
                        stack.push(open);
                    }
                }
                None => {
                    stack.pop();
                    self.arrive(number)?;
                }
            }
            while let Ok(done) = self.done.try_recv() {
                self.take(done)?;
            }
            if self.settings.monitor.cancelled() {
                return Err(Error::Interrupted);
            }
        }
        while self.root.is_none() {
            let done = self.done.recv().map_err(|_| Error::Invalid("the readers have stopped".into()))?;
            self.take(done)?;
        }
        if let Some(lane) = self.lane {
            lane.finish()?;
        }
        Ok((self.root.unwrap_or_default(), self.findings))
    }

    fn trouble(&mut self, path: PathBuf, why: impl Into<String>) {
        self.findings.summary.unreadable += 1;
        let why = why.into();
        self.settings.monitor.event(Event::Warning(format!("{}: {why}", path.display())));
        if self.findings.troubles.len() < limits::REPORT_MAX {
            self.findings.troubles.push(Trouble { path, why });
        }
    }

    /// Takes a listing's entries, and tells of what could not be listed.
    fn listed(&mut self, listing: Listing) -> Vec<Entry> {
        for (path, e) in listing.troubles {
            self.trouble(path, e.to_string());
        }
        listing.entries
    }

    /// Tells the scout of folders to list, unless the user named parts of any; `first` is the way to the first.
    fn tell<'e>(&self, first: &[u32], entries: impl Iterator<Item = &'e Entry> + Clone, stored: &Arc<Trail>) {
        if entries.clone().all(|e| e.branch.is_none()) {
            self.scout.entered(first, entries.filter(|e| e.stat.kind == Kind::Dir), stored);
        }
    }

    /// An entry of which the user named the whole, or a part.
    fn branch_entry(&mut self, folder: &Arc<Folder>, name: &[u8], branch: &Branch, above: &Mark) -> Option<Entry> {
        let path = folder.path_of(name);
        let found = match branch {
            Branch::Whole => folder.stat_of(name),
            // The user named what lies below: links above it are followed.
            Branch::Some(_) => Folder::open(&path).and_then(|f| f.stat()),
        };
        match found {
            Ok(stat) => {
                let mark = mark(self.settings.rules.keys, above, name);
                let mut entry = Entry::new(Arc::clone(folder), name.to_vec(), mark, stat);
                entry.named = true;
                if let Branch::Some(below) = branch {
                    entry.branch = Some(below.clone());
                }
                Some(entry)
            }
            Err(e) => {
                self.trouble(path, e.to_string());
                None
            }
        }
    }

    /// Takes up a folder whose entries are known by name: compares them, and sends files to the readers.
    fn enter(
        &mut self,
        parent: Option<Place>,
        mark: Mark,
        stored: Arc<Trail>,
        token: Token,
        entries: Vec<Entry>,
    ) -> Result<Open> {
        let number = self.next;
        self.next += 1;
        let before = self.settings.base.folder(self.known, &token, &mark);
        let mut folder = Underway { parent, mark, stored, before, entries, waiting: 1 };
        self.compare(&mut folder);
        let (mut files, mut subfolders) = (Vec::new(), Vec::new());
        for (at, entry) in folder.entries.iter().enumerate() {
            match entry.stat.kind {
                Kind::Dir => subfolders.push(at),
                Kind::File if !entry.same && entry.stat.size > 0 => files.push(at),
                _ => {}
            }
        }
        folder.waiting += files.len() + subfolders.len();
        let jobs: Vec<Job> = files
            .iter()
            .map(|at| Job {
                place: Place { folder: number, entry: *at },
                folder: Arc::clone(&folder.entries[*at].folder),
                name: folder.entries[*at].name.clone(),
                size: folder.entries[*at].stat.size,
                old: folder.old(*at),
            })
            .collect();
        self.underway.insert(number, folder);
        for job in jobs {
            self.send(job)?;
        }
        Ok(Open { number, subfolders: subfolders.into_iter(), begun: 0 })
    }

    fn send(&mut self, job: Job) -> Result<()> {
        if self.settings.dry_run {
            let entry = self.underway.get(&job.place.folder).and_then(|f| f.entries.get(job.place.entry));
            let read = &mut self.findings.summary.read_bytes;
            *read = read.saturating_add(entry.map_or(0, |e| e.stat.size));
            return self.resolve(job.place);
        }
        loop {
            // The readers may wait for nothing: their answers are unbounded, our jobs are not.
            crossbeam_channel::select! {
                send(self.jobs, job) -> sent => {
                    return sent.map_err(|_| self.why_readers_stopped());
                }
                recv(self.done) -> done => match done {
                    Ok(done) => {
                        self.take(done)?;
                    }
                    Err(_) => return Err(self.why_readers_stopped()),
                },
            }
        }
    }

    /// A reader that stops has sent its reason.
    fn why_readers_stopped(&self) -> Error {
        while let Ok(done) = self.done.try_recv() {
            if let Err(e) = done.outcome {
                return e;
            }
        }
        Error::Invalid("the readers have stopped".into())
    }

    /// Compares a folder's entries with the folder as it was, and counts.
    fn compare(&mut self, folder: &mut Underway) {
        let Settings { base, dry_run, monitor, .. } = &self.settings;
        let before = folder.before.as_ref().map_or(&[][..], |f| &f.entries[..]);
        let found = compare(&mut folder.entries, before, base);
        let summary = &mut self.findings.summary;
        summary.total.add(found.total);
        summary.added.add(found.added);
        summary.changed.add(found.changed);
        summary.removed.add(found.removed);
        if found.unchanged > 0 {
            monitor.event(Event::Bytes(found.unchanged));
        }
        for old in found.gone.iter().map(|at| &before[*at]).filter(|old| old.kind == Kind::Dir) {
            let removed = forget_below(old, base, self.known, *dry_run, |folder, entry| {
                self.moved.iter_mut().for_each(|moved| moved.left(folder, entry));
            });
            summary.removed.add(removed);
        }
        if let Some(moved) = &mut self.moved {
            moved.folder(&folder.mark, &mut folder.entries, before, &found.gone);
        }
    }

    /// Takes up the subfolder that was begun last.
    fn descend(&mut self, place: Place, stack: &[Open]) -> Result<Option<Open>> {
        if stack.len() >= limits::DEPTH_MAX {
            self.lose(place, "folders are too deep")?;
            return Ok(None);
        }
        let Some(above) = self.underway.get(&place.folder) else { return Ok(None) };
        let entry = &above.entries[place.entry];
        let (mark, token) = (entry.mark, entry.token.clone());
        let below = Below::new(entry, &above.stored);
        let listed = match &entry.branch {
            Some(branch) => {
                let (branch, path) = (branch.clone(), entry.folder.path_of(&entry.name));
                self.branches(&path, &branch, &mark)
            }
            None => self.list(&below, above, stack),
        };
        let listing = match listed {
            Listed::Entries(listing) => listing,
            Listed::OtherSystem => {
                self.resolve(place)?;
                return Ok(None);
            }
            Listed::Failed(e) => {
                self.lose(place, &e.to_string())?;
                return Ok(None);
            }
        };
        let entries = self.listed(listing);
        self.settings.monitor.event(Event::Entries(entries.len() as u64));
        self.enter(Some(place), mark, below.stored, token, entries).map(Some)
    }

    /// The listing of the subfolder that was begun last, of `above`.
    fn list(&self, below: &Below, above: &Underway, stack: &[Open]) -> Listed {
        if stack.len() > limits::LIST_AHEAD_DEPTH {
            return self.settings.rules.list(below);
        }
        let way = way_of(stack);
        if let ([.., open], Some(number)) = (stack, way.last())
            && *number > 0
            && (*number as usize).is_multiple_of(limits::LIST_AHEAD_SUBFOLDERS)
        {
            let further = open.subfolders.as_slice().iter().map(|at| &above.entries[*at]);
            self.tell(&next_to(&way), further, &above.stored);
        }
        if let Some(listed) = self.scout.take(&way) {
            return listed;
        }
        let listed = self.settings.rules.list(below);
        if let Listed::Entries(listing) = &listed {
            self.tell(&[&way[..], &[0]].concat(), listing.entries.iter(), &below.stored);
        }
        listed
    }

    /// Those entries of a folder that the user named.
    fn branches(&mut self, path: &Path, named: &BTreeMap<Vec<u8>, Branch>, mark: &Mark) -> Listed {
        match Folder::open(path) {
            Ok(folder) => {
                let folder = Arc::new(folder);
                let found = named.iter().map(|(name, branch)| self.branch_entry(&folder, name, branch, mark));
                let entries = found.collect::<Vec<_>>().into_iter().flatten().collect();
                Listed::Entries(Listing { entries, troubles: Vec::new() })
            }
            Err(e) => Listed::Failed(e),
        }
    }

    /// Leaves an entry out, and says so.
    fn lose(&mut self, place: Place, why: &str) -> Result<()> {
        if let Some(entry) = self.underway.get_mut(&place.folder).and_then(|f| f.entries.get_mut(place.entry)) {
            entry.lost = true;
            let path = entry.folder.path_of(&entry.name);
            // The total is what the snapshot holds.
            let total = &mut self.findings.summary.total;
            total.entries = total.entries.saturating_sub(1);
            if entry.stat.kind == Kind::File {
                total.bytes = total.bytes.saturating_sub(entry.stat.size);
            }
            self.trouble(path, why);
        }
        self.resolve(place)
    }

    /// Takes note of a file that was read.
    fn take(&mut self, done: Done) -> Result<()> {
        let place = done.place;
        match done.outcome? {
            Ok(read) => {
                self.findings.summary.read_bytes += read.read;
                let entry = self.underway.get_mut(&place.folder).and_then(|f| f.entries.get_mut(place.entry));
                if let Some(entry) = entry {
                    entry.stat = read.stat;
                    entry.content = read.content;
                    if let Some(why) = read.changed {
                        let path = entry.folder.path_of(&entry.name);
                        self.trouble(path, why);
                    }
                }
                self.resolve(place)
            }
            Err(e) => self.lose(place, &e.to_string()),
        }
    }

    fn resolve(&mut self, place: Place) -> Result<()> {
        self.arrive(place.folder)
    }

    /// One thing less to wait for in a folder; if it was the last, the folder is built, and its
    /// parent has one thing less to wait for.
    fn arrive(&mut self, number: usize) -> Result<()> {
        let mut number = number;
        loop {
            let Some(folder) = self.underway.get_mut(&number) else { return Ok(()) };
            folder.waiting -= 1;
            if folder.waiting > 0 {
                return Ok(());
            }
            let Some(folder) = self.underway.remove(&number) else { return Ok(()) };
            let parent = folder.parent;
            let content = self.build(folder)?;
            match parent {
                None => {
                    self.root = Some(content);
                    return Ok(());
                }
                Some(place) => {
                    let above = self.underway.get_mut(&place.folder);
                    if let Some(entry) = above.and_then(|f| f.entries.get_mut(place.entry)) {
                        entry.same &= entry.before == content;
                        entry.content = content;
                    }
                    number = place.folder;
                }
            }
        }
    }

    /// The content of a folder whose entries are all known.
    fn build(&mut self, folder: Underway) -> Result<Content> {
        let Underway { mark, before, entries, .. } = folder;
        if self.lane.is_none() {
            return Ok(before.map(|b| b.content).unwrap_or_default());
        }
        if let Some(before) = &before
            && before.entries.len() == entries.len()
            && entries.iter().all(|e| e.same && !e.lost)
        {
            if let (Some(known), true) = (self.known, self.settings.note_all) {
                known.put(&mark, before);
            }
            return Ok(before.content.clone());
        }
        let old = before.map(|b| b.content).unwrap_or_default();
        let mut tree = self.lane.as_ref().map(|lane| TreeBuilder::new(&old, lane));
        let mut now = KnownFolder { content: Content::default(), entries: Vec::with_capacity(entries.len()) };
        for entry in entries.into_iter().filter(|e| !e.lost) {
            let mut node = match entry.folder.node(&entry.name, &entry.stat, &self.users) {
                Ok(node) => node,
                Err(e) => {
                    self.trouble(entry.folder.path_of(&entry.name), e.to_string());
                    continue;
                }
            };
            if node.kind == Kind::File {
                node.size = entry.content.len();
            }
            node.content = entry.content;
            if let (Some(lane), Some(tree)) = (&mut self.lane, &mut tree) {
                tree.push(&node, lane)?;
            }
            now.entries.push(KnownEntry::of(entry.mark, node));
        }
        if let (Some(lane), Some(tree)) = (&mut self.lane, tree) {
            now.content = tree.finish(lane)?;
        }
        if let Some(known) = self.known {
            known.put(&mark, &now);
        }
        Ok(now.content)
    }
}
