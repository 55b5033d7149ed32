//! The order of a backup: session, base, walk and readers, writer, snapshot,
//! local state. Whatever fails before the snapshot exists leaves packs and
//! index objects that the next run uses, and no snapshot.

use super::ahead::{self, Ready};
use super::base::{Base, mark};
use super::file::{FileReader, Stop};
use super::job::Done;
use super::known::{Chain, Known, KnownEntry, KnownFolder, Mark, Rests, Version};
use super::listing::Rules;
use super::scout;
use super::stream::Stream;
use super::tree::TreeBuilder;
use super::walk::{Settings, Walk};
use super::{Findings, Selection, Source, Trouble};
use crate::clock::Timestamp;
use crate::crypto::random;
use crate::crypto::stack;
use crate::error::{Error, Result};
use crate::format::content::Content;
use crate::format::header::{HEADER_LEN, Header, ObjectType};
use crate::format::manifest::{Manifest, SnapshotKind, SourceKind, Summary, Tally};
use crate::format::node::{Kind, Node};
use crate::id::SnapshotId;
use crate::limits;
use crate::monitor::{Event, Monitor};
use crate::repo::{Deltas, Repository, Session, Writer, WriterState, WriterTotals};
use crate::snapshot;
use crate::source::users::Users;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use std::path::PathBuf;
use std::thread;

/// Whether what is new may be stored as what it replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeltaMode {
    /// Where that saves something; of a store that is far, what that takes is read only if it costs
    /// less than it saves.
    #[default]
    Auto,
    /// Where that saves something, whatever has to be read for it.
    Always,
    /// No: it is stored whole.
    Never,
}

/// How a snapshot is to be taken.
#[derive(Debug, Clone)]
pub struct Options {
    /// What is read, against what.
    pub kind: SnapshotKind,
    /// The machine's name.
    pub host: String,
    /// Who runs it.
    pub user: String,
    /// Labels.
    pub tags: Vec<String>,
    /// The moment that the snapshot shows; now, if not given.
    pub time: Option<Timestamp>,
    /// Patterns of entries to leave out, as in a `.gitignore`.
    pub exclude: Vec<String>,
    /// Files of such patterns.
    pub exclude_files: Vec<PathBuf>,
    /// Stay on the file system of each given path.
    pub one_file_system: bool,
    /// Only look.
    pub dry_run: bool,
    /// zstd level of what is stored whole.
    pub level: i32,
    /// Whether what is new may be stored as what it replaces.
    pub delta: DeltaMode,
    /// What wrote the snapshot.
    pub program: String,
}

/// A snapshot that was taken, or looked at.
#[derive(Debug)]
pub struct Outcome {
    /// The snapshot; `None` for a dry run.
    pub snapshot: Option<SnapshotId>,
    /// Its manifest.
    pub manifest: Manifest,
    /// Entries that could not be stored as they should; the summary has their number.
    pub troubles: Vec<Trouble>,
}

/// Takes a snapshot.
///
/// # Errors
/// The repository's; [`Error::Source`] if a given path cannot be read at all, [`Error::Command`],
/// [`Error::Interrupted`]. In all these cases there is no snapshot.
pub fn run(repo: &Repository, source: Source, options: &Options, monitor: &dyn Monitor) -> Result<Outcome> {
    let plan = Planned::new(repo, &source, options)?;
    if options.dry_run {
        return plan.look(source, monitor);
    }
    let mut session = Session::begin(repo, &options.host)?;
    for warning in session.take_warnings() {
        monitor.event(Event::Warning(warning));
    }
    match plan.take(&session, source, monitor) {
        Ok(taken) => taken.commit(session),
        Err(e) => {
            session.abandon();
            Err(e)
        }
    }
}

/// What is known before anything is read.
struct Planned<'a> {
    repo: &'a Repository,
    options: &'a Options,
    started: Timestamp,
    paths: Vec<Vec<u8>>,
    identity: Vec<Vec<u8>>,
    source_kind: SourceKind,
    mark: Mark,
}

/// A snapshot that is stored, but for its object.
struct Taken {
    manifest: Manifest,
    troubles: Vec<Trouble>,
    known: Option<Known>,
    chain: Chain,
}

impl<'a> Planned<'a> {
    fn new(repo: &'a Repository, source: &Source, options: &'a Options) -> Result<Self> {
        let (paths, identity, source_kind) = match source {
            Source::Files(s) => (s.given.clone(), s.absolute.clone(), SourceKind::Files),
            Source::Stream(s) => {
                let kind = if s.is_command() { SourceKind::Command } else { SourceKind::Stdin };
                (vec![s.name.clone().into_bytes()], vec![s.name.clone().into_bytes()], kind)
            }
        };
        let stream = [u8::from(source_kind != SourceKind::Files)];
        // What another key's notes rest on may not count for this one.
        let signer = repo.signer();
        let mut parts: Vec<&[u8]> = vec![b"source", signer.as_bytes(), &stream, options.host.as_bytes()];
        // `.` and the folder's full name are stored differently: what one knows is not the other's.
        parts.extend(paths.iter().chain(&identity).map(Vec::as_slice));
        let mark = repo.id_keys().state_name(&parts);
        Ok(Self { repo, options, started: repo.clock().now(), paths, identity, source_kind, mark })
    }

    fn exclude(&self) -> Result<Gitignore> {
        let mut patterns = GitignoreBuilder::new("");
        for pattern in &self.options.exclude {
            patterns
                .add_line(None, pattern)
                .map_err(|e| Error::Invalid(format!("{pattern:?} is no pattern: {e}")))?;
        }
        for file in &self.options.exclude_files {
            if let Some(e) = patterns.add(file) {
                return Err(Error::Invalid(format!("{}: {e}", file.display())));
            }
        }
        patterns.build().map_err(|e| Error::Invalid(format!("the patterns to exclude: {e}")))
    }

    fn known(&self, monitor: &dyn Monitor) -> Option<Known> {
        let warn = |warning| monitor.event(Event::Warning(warning));
        let known = match Known::open(self.repo.local().path()?, &self.mark) {
            Ok(known) => known,
            Err(e) => {
                self.repo.local().unusable(&e);
                return None;
            }
        };
        match known.as_ref().map(Known::lost) {
            None => warn(
                "another snapshot of the same source is running on this machine; this one does not use its notes"
                    .into(),
            ),
            Some(Some(why)) => {
                warn(format!(
                    "this machine's notes of the source cannot be used ({why}) and begin anew; this snapshot takes longer"
                ));
            }
            Some(None) => {}
        }
        known
    }

    /// What the source is compared with.
    fn base<'s>(
        &'s self,
        session: Option<&'s Session<'_>>,
        known: Option<&Known>,
        monitor: &'s dyn Monitor,
    ) -> Result<Base<'s>> {
        if self.options.kind == SnapshotKind::Full {
            return Ok(Base::None);
        }
        let full_only = self.options.kind == SnapshotKind::Differential;
        let trusted = |id: &SnapshotId| session.is_none_or(|s| s.counting().trusts(id));
        if let Some(version) = known.and_then(|k| k.newest(full_only))
            && trusted(&version.snapshot)
            && self.still_there(&version.snapshot, monitor)?
            && self.still_indexed(&version, monitor)?
        {
            return Ok(Base::Known(version));
        }
        if self.repo.private_key().is_err() {
            return Ok(Base::None);
        }
        let listing = snapshot::list(self.repo)?;
        for gone in &listing.gone {
            monitor.event(Event::Warning(gone.to_string()));
        }
        for (id, e) in &listing.damaged {
            monitor.event(Event::Warning(format!("snapshot {}: {e}", id.short())));
        }
        let newest = listing.snapshots.into_iter().rev().find(|s| {
            let m = &s.manifest;
            m.host == self.options.host
                && m.source == self.identity
                && m.paths == self.paths
                && m.source_kind == self.source_kind
                && (m.kind == SnapshotKind::Full || !full_only)
                // A writer's trees are not taken unread: it could say that anything is unchanged.
                && (s.signer == self.repo.signer() || self.repo.is_full(&s.signer))
                && trusted(&s.id)
        });
        Ok(newest.map_or(Base::None, |s| Base::Trees {
            repo: self.repo,
            snapshot: s.id,
            started: s.manifest.started,
            root: s.manifest.root,
            counting: session.map(Session::counting),
            monitor,
            told: Default::default(),
        }))
    }

    /// True if every index object on which the notes rest is still there, or replaced by one that a
    /// full key signed: what an object that was lost knew may be nowhere now, and is read again.
    fn still_indexed(&self, version: &Version, monitor: &dyn Monitor) -> Result<bool> {
        let held = self.repo.indexes_held()?;
        let mut lost = version.indexes.iter().filter(|name| !held.contains(name));
        let Some(first) = lost.next() else { return Ok(true) };
        let first = self.repo.names().index(first);
        let (what, verb) = match lost.count() {
            0 => (first, "is"),
            more => (format!("{first} and {more} more"), "are"),
        };
        monitor.event(Event::Warning(format!(
            "{what} {verb} missing, and this machine has seen that; everything is read again, and what was named there is stored again"
        )));
        Ok(false)
    }

    /// True if the snapshot's object is still there, and no tombstone; a writer key can see that much.
    fn still_there(&self, id: &SnapshotId, monitor: &dyn Monitor) -> Result<bool> {
        let name = self.repo.names().snapshot(id);
        match self.repo.store().read_range(&name, 0, HEADER_LEN) {
            Ok(head) => Ok(Header::decode(&head, &name).is_ok_and(|h| h.object == ObjectType::Snapshot)),
            Err(e) => {
                let e = Error::from(e);
                if !e.is_damage() {
                    return Err(e);
                }
                if e.is_not_found() && self.repo.is_forgotten(id)? {
                    return Ok(false);
                }
                monitor.event(Event::Warning(format!(
                    "snapshot {}, the last one that this machine took of this source, is missing; everything is read again",
                    id.short()
                )));
                Ok(false)
            }
        }
    }

    /// A dry run: walks and compares.
    fn look(&self, source: Source, monitor: &dyn Monitor) -> Result<Outcome> {
        let Source::Files(selection) = source else {
            return Err(Error::Invalid("a stream can only be read once: there is no dry run for it".into()));
        };
        for problem in self.repo.sync_index()? {
            monitor.event(Event::Warning(problem.to_string()));
        }
        let known = self.known(monitor);
        let base = self.base(None, known.as_ref(), monitor)?;
        let base_id = base.snapshot();
        // The channels stay unused: a dry run reads no file.
        let (jobs, _) = bounded(0);
        let (_, done) = unbounded();
        let rules = self.rules()?;
        let (root, findings) = scout::ahead(&rules, |scout| {
            let settings = self.settings(&rules, base, false, monitor);
            Walk::new(settings, scout, known.as_ref(), None, jobs, done).run(&selection.root, self.mark)
        })?;
        let chain = Chain { id: [0; 16], counter: 0, previous: None };
        let manifest = self.manifest(base_id, root, findings.summary, WriterTotals::default(), &chain);
        Ok(Outcome { snapshot: None, manifest, troubles: findings.troubles })
    }

    /// What new runs may rest on.
    fn deltas(&self, is_first: bool) -> Deltas {
        match self.options.kind {
            // A first snapshot of a source is a full one, and a differential one may rest on it.
            SnapshotKind::Full => Deltas::Plain,
            _ if is_first => Deltas::Plain,
            _ if self.options.delta == DeltaMode::Never => Deltas::Never,
            SnapshotKind::Differential => Deltas::OnPlain,
            SnapshotKind::Incremental => Deltas::Chains,
        }
    }

    fn rules(&self) -> Result<Rules<'_>> {
        let Options { one_file_system, .. } = *self.options;
        Ok(Rules { keys: self.repo.id_keys(), exclude: self.exclude()?, one_file_system })
    }

    fn settings<'s>(
        &self,
        rules: &'s Rules<'s>,
        base: Base<'s>,
        note_all: bool,
        monitor: &'s dyn Monitor,
    ) -> Settings<'s> {
        Settings { rules, base, note_all, dry_run: self.options.dry_run, monitor }
    }

    fn take(&self, session: &Session<'_>, source: Source, monitor: &dyn Monitor) -> Result<Taken> {
        let mut known = self.known(monitor);
        let chain = known.as_ref().and_then(Known::chain);
        let chain = match chain {
            Some(chain) => Chain { counter: chain.counter + 1, ..chain },
            None => Chain { id: random::bytes()?, counter: 1, previous: None },
        };
        let base = self.base(Some(session), known.as_ref(), monitor)?;
        let base_id = base.snapshot();
        if !matches!(base, Base::Known(_))
            && let Some(known) = &mut known
        {
            // What the notes say of folders does not follow from the base: begin anew.
            known.clear();
        }
        monitor.event(Event::Phase { name: "reading", total_bytes: None });
        let state = WriterState::new(self.deltas(base_id.is_none()), monitor);
        let is_frugal = self.options.delta == DeltaMode::Auto && self.repo.store().is_far();
        let state = if is_frugal { state.frugal() } else { state };
        let threads = thread::available_parallelism().map_or(2, usize::from);
        let (root, findings, totals) = thread::scope(|scope| {
            let writer = Writer::start(scope, session, &state, self.options.level, threads);
            let read = match source {
                Source::Files(selection) => self.files(&writer, &selection, base, known.as_ref(), monitor, threads),
                Source::Stream(stream) => self.stream(&writer, stream, &base, known.as_ref(), monitor),
            };
            // The writer's own error is the cause where both failed.
            let totals = writer.finish()?;
            read.map(|(root, findings)| (root, findings, totals))
        })?;
        let manifest = self.manifest(base_id, root, findings.summary, totals, &chain);
        Ok(Taken { manifest, troubles: findings.troubles, known, chain })
    }

    fn files(
        &self,
        writer: &Writer<'_>,
        selection: &Selection,
        base: Base<'_>,
        known: Option<&Known>,
        monitor: &dyn Monitor,
        threads: usize,
    ) -> Result<(Content, Findings)> {
        let (jobs_tx, jobs) = bounded(limits::WALK_AHEAD);
        let (ready_tx, ready) = bounded(limits::READ_AHEAD_FILES);
        let (done_tx, done) = unbounded();
        thread::scope(|scope| {
            let mut readers = Vec::new();
            for _ in 0..limits::READ_AHEAD_THREADS {
                let (jobs, ready) = (jobs.clone(), ready_tx.clone());
                readers.push(scope.spawn(move || {
                    ahead::fetch(&jobs, &ready);
                    Ok(())
                }));
            }
            for _ in 0..threads {
                let reader = FileReader::new(writer.lane(), self.repo.chunker(), monitor);
                let (ready, done) = (ready.clone(), done_tx.clone());
                readers.push(scope.spawn(move || stack::wiped(|| read_files(reader, &ready, &done, monitor))));
            }
            drop((jobs, ready_tx, ready, done_tx));
            let newest = known.and_then(|k| k.newest(false));
            let note_all = match &base {
                Base::None => false,
                Base::Known(version) => newest.as_ref() != Some(version),
                // The notes are empty: they must not say that a folder without changes was not there.
                Base::Trees { .. } => true,
            };
            let walked = self.rules().and_then(|rules| {
                scout::ahead(&rules, |scout| {
                    let settings = self.settings(&rules, base, note_all, monitor);
                    let walk = Walk::new(settings, scout, known, Some(writer.lane()), jobs_tx, done);
                    walk.run(&selection.root, self.mark)
                })
            });
            let mut read = Ok(());
            for reader in readers {
                let ended = reader.join().unwrap_or_else(|_| Err(Error::Invalid("a reading thread panicked".into())));
                read = read.and(ended);
            }
            // A reader's error stops the walk: it is the cause.
            read.and(walked)
        })
    }

    fn stream(
        &self,
        writer: &Writer<'_>,
        mut stream: Stream,
        base: &Base<'_>,
        known: Option<&Known>,
        monitor: &dyn Monitor,
    ) -> Result<(Content, Findings)> {
        let label = stream.label();
        let name = stream.name.clone();
        let before = base.folder(known, &base.root(self.mark), &self.mark).unwrap_or_default();
        let old = before.entries.first().map(|e| e.content.clone());
        let mut reader = FileReader::new(writer.lane(), self.repo.chunker(), monitor);
        let mut building = reader.begin(old.clone().unwrap_or_default().into());
        stream.start()?;
        let len = reader.stream(&mut stream, &mut building).map_err(|stop| match stop {
            Stop::Source(source) => Error::Source { path: label.into(), source },
            Stop::Repository(e) => e,
        })?;
        stream.ended()?;
        let content = reader.close(building)?;
        reader.finish()?;
        let node = self.stream_node(&name, len, content);
        let mut lane = writer.lane();
        let mut tree = TreeBuilder::new(&before.content, &lane);
        tree.push(&node, &mut lane)?;
        let root = tree.finish(&mut lane)?;
        lane.finish()?;
        let all = Tally { entries: 1, bytes: len };
        let mut summary = Summary { total: all, read_bytes: len, ..Summary::default() };
        match old {
            None => summary.added = all,
            Some(old) if old != node.content => summary.changed = all,
            Some(_) => {}
        }
        if let Some(known) = known {
            let entry = KnownEntry::of(mark(self.repo.id_keys(), &self.mark, name.as_bytes()), node);
            known.put(&self.mark, &KnownFolder { content: root.clone(), entries: vec![entry] });
        }
        Ok((root, Findings { summary, troubles: Vec::new() }))
    }

    fn stream_node(&self, name: &str, len: u64, content: Content) -> Node {
        let users = Users::default();
        let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
        Node {
            mode: 0o600,
            uid,
            gid,
            user: users.user_name(uid),
            group: users.group_name(gid),
            mtime: self.started,
            ctime: self.started,
            size: len,
            content,
            ..Node::new(name.as_bytes(), Kind::File)
        }
    }

    fn manifest(
        &self,
        base: Option<SnapshotId>,
        root: Content,
        summary: Summary,
        totals: WriterTotals,
        chain: &Chain,
    ) -> Manifest {
        let options = self.options;
        Manifest {
            time: options.time.unwrap_or(self.started),
            started: self.started,
            ended: self.repo.clock().now(),
            host: options.host.clone(),
            user: options.user.clone(),
            paths: self.paths.clone(),
            source: self.identity.clone(),
            source_kind: self.source_kind,
            tags: options.tags.clone(),
            // A first snapshot of a source reads everything: it is a full one.
            kind: if base.is_none() { SnapshotKind::Full } else { options.kind },
            base,
            root,
            summary: Summary { new_bytes: totals.plain, stored_bytes: totals.stored, ..summary },
            program: options.program.clone(),
            chain: chain.id,
            counter: chain.counter,
            previous: chain.previous,
            repaired: None,
            origin: None,
        }
    }
}

impl Taken {
    /// Creates the snapshot; only then the local state may say that it exists.
    fn commit(self, session: Session<'_>) -> Result<Outcome> {
        let repo = session.repository();
        let snapshot = session.commit(&self.manifest)?;
        repo.remember_snapshot(&snapshot, &self.manifest);
        if let Some(known) = self.known {
            let chain = Chain { previous: Some(snapshot), ..self.chain };
            let kind = self.manifest.kind;
            let indexes = repo.index().objects()?.into_iter().map(|o| o.name).collect();
            let rests = Rests { started: self.manifest.started, indexes };
            // The snapshot stands; without notes the next one only takes longer.
            if let Err(e) = known.commit(snapshot, kind, &rests, &chain) {
                repo.local().unusable(&e);
            }
        }
        Ok(Outcome { snapshot: Some(snapshot), manifest: self.manifest, troubles: self.troubles })
    }
}

/// One reading thread: until there are no more files, or the repository fails.
fn read_files(
    mut reader: FileReader<'_>,
    files: &Receiver<Ready>,
    done: &Sender<Done>,
    monitor: &dyn Monitor,
) -> Result<()> {
    for Ready { job, whole } in files {
        let old = job.old.clone();
        let read = match whole {
            None => reader.read(&job.folder, &job.name, old),
            Some(Ok(whole)) => reader.whole(&whole, old),
            Some(Err(e)) => Err(Stop::Source(e)),
        };
        let (outcome, failed) = match read {
            Ok(read) => (Ok(Ok(read)), None),
            Err(Stop::Source(e)) => (Ok(Err(e)), None),
            Err(Stop::Repository(e)) => (Err(Error::Interrupted), Some(e)),
        };
        monitor.event(Event::Entries(1));
        // The walk may have failed and be gone; then there is nobody to tell.
        let gone = done.send(job.done(outcome)).is_err();
        if let Some(e) = failed {
            return Err(e);
        }
        if gone {
            return Ok(());
        }
    }
    reader.finish()
}
