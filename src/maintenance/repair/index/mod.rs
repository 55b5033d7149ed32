//! Making the index anew from packs.
//!
//! 1. A session is announced and plans are listed, as a backup does. A plan that is
//!    made later waits for it; packs that one in force condemns are left alone.
//! 2. Every index object is read, then packs are listed.
//! 3. Packs that no full key answers for are read: ids come from content alone.
//!    Index objects are published as packs are read. What rests on blobs that are
//!    not found yet is read again, as long as anything is won by it.
//! 4. An object is published that replaces those which do not open, once every pack
//!    that is listed was read or is answered for; and those with a false entry,
//!    once all else that they say was found true, and says it again.
//! 5. What is replaced is deleted.
//!
//! What a crash leaves: after 3 entries that are true and that nobody else has, or
//! has too; after 4 objects that nobody reads. Doing it again goes on.
//!
//! Beside a backup it names packs that the backup has not named yet. That harms
//! nothing: what a full key says of a pack is true whoever wrote it, no entry counts
//! whose pack is not listed or is condemned, and a prune waits for this session as
//! for any. Whoever slept for so long that a prune has ended the session publishes
//! no more. A healthy index stays as it is.

mod contents;
mod replace;

use crate::error::{Error, Result};
use crate::format::index::{IndexObject, PackEntry};
use crate::id::{IndexName, PackName};
use crate::index::{EntryNumber, KnownPack, blobs_of};
use crate::limits;
use crate::maintenance::cores;
use crate::maintenance::report::object_of;
use crate::monitor::{Event, Monitor};
use crate::repo::{self, Repository, Session};
use crate::snapshot;
use contents::{Contents, Found, UNKNOWN, is_known};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

/// How it is to be done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HowIndex {
    /// Look only, and write nothing.
    pub dry_run: bool,
    /// Put damaged index objects away even where a pack that they may have named cannot be read.
    pub abandon: bool,
}

/// An index object, or what lies among them, that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct BadObject {
    /// Its name.
    pub object: String,
    /// What is wrong with it.
    pub why: String,
}

/// An entry that says of a pack what is not so.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct FalseEntry {
    /// The pack.
    pub pack: String,
    /// The index object.
    pub object: String,
    /// Who signed it.
    pub signer: String,
}

/// What could not be read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Unread {
    /// The pack.
    pub pack: String,
    /// Its frame; `None` for all of it.
    pub frame: Option<u32>,
    /// Why not.
    pub why: String,
}

/// What a repair of the index found and did.
#[derive(Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct IndexReport {
    /// Index objects that do not open, and other things that lie among them.
    pub damaged: Vec<BadObject>,
    /// Index objects that this machine has seen, and that are gone.
    pub gone: Vec<String>,
    /// Packs to be read, and their bytes.
    pub packs: u64,
    /// See `packs`.
    pub bytes: u64,
    /// Packs that are named anew, and their blobs.
    pub named: u64,
    /// See `named`.
    pub blobs: u64,
    /// Entries that say what is not so.
    pub false_entries: Vec<FalseEntry>,
    /// Packs that are not what their names are the hashes of, and whose frames are indexed as far as they open:
    /// the first `limits::REPORT_MAX`.
    pub broken: Vec<BadObject>,
    /// What could not be read: the first `limits::REPORT_MAX`.
    pub unread: Vec<Unread>,
    /// Things that could not be read in all.
    pub unread_all: u64,
    /// Index objects that another replaces now.
    pub replaced: u64,
    /// Objects that were deleted.
    pub deleted: u64,
    /// Objects that the store would not delete.
    pub retained: u64,
    /// Why what is damaged or false was not replaced, where it was not.
    pub kept: Vec<String>,
}

impl IndexReport {
    /// True if nothing was wrong with the index.
    pub fn is_healthy(&self) -> bool {
        self.damaged.is_empty() && self.gone.is_empty() && self.packs == 0 && self.false_entries.is_empty()
    }

    /// True if something is wrong with what is in it. Packs that no object names may only be left by runs that
    /// were interrupted.
    pub fn is_damaged(&self) -> bool {
        !self.damaged.is_empty() || !self.gone.is_empty() || !self.false_entries.is_empty()
    }

    /// True if nothing stays that is wrong.
    pub fn is_whole(&self) -> bool {
        self.unread_all == 0 && self.kept.is_empty()
    }
}

/// A pack to be read.
struct Job {
    name: PackName,
    size: u64,
    /// What others than full keys say of it.
    claims: Vec<KnownPack>,
    /// Frames that an entry of a full key knows already; `None` if there is none.
    known: Option<usize>,
    /// It was read again, since others were named meanwhile.
    is_again: bool,
}

/// Makes what the index lacks anew from packs, and puts away what is wrong in it.
///
/// # Errors
/// [`Error::NotAllowed`] with a writer key; [`Error::Newer`] where a newer program has written; [`Error::Fenced`]
/// if a prune gave this up; [`Error::Interrupted`], or the store's. What was published until then stays, and is true.
pub fn repair_index(repo: &Repository, how: HowIndex, monitor: &dyn Monitor) -> Result<IndexReport> {
    repo.private_key().map_err(|_| Error::NotAllowed { what: "repair the index" })?;
    repo.writable()?;
    repo.not_a_mirror()?;
    let session = if how.dry_run { None } else { Some(Session::announce(repo, "repair")?) };
    let mut repair = Repair::new(repo, session.as_ref(), how, monitor);
    let done = repair.all();
    let report = repair.report;
    if let Some(session) = session {
        session.abandon();
    }
    done.map(|()| report)
}

/// The packs that the plan in force condemns, and those that earlier ones have left: nobody relies on them.
pub(super) fn condemned(repo: &Repository) -> Result<HashSet<PackName>> {
    let plans = repo.plans()?;
    let condemned = plans.in_force.into_iter().flat_map(|plan| plan.condemned);
    Ok(condemned.chain(plans.left.into_iter().map(|left| left.pack)).collect())
}

/// True if a pack says by itself what some of its blobs are.
pub(super) fn says_something(repo: &Repository, name: &PackName) -> Result<bool> {
    match contents::read(repo, name)? {
        Found::Contents(contents) => Ok(contents.known() > 0 || !contents.waiting.is_empty()),
        // What is in there is not known yet.
        Found::Frozen => Ok(true),
        Found::Unreadable(_) | Found::Stranger(_) | Found::Gone => Ok(false),
    }
}

struct Repair<'r> {
    repo: &'r Repository,
    /// None if nothing is written.
    session: Option<&'r Session<'r>>,
    how: HowIndex,
    monitor: &'r dyn Monitor,
    report: IndexReport,
    /// Index objects that do not open.
    damaged: BTreeSet<IndexName>,
    /// Index objects that this machine has seen, and that are gone.
    gone: Vec<IndexName>,
    /// What lies among index objects under other names.
    strays: Vec<String>,
    listed: HashMap<PackName, u64>,
    /// What a full key says next.
    fresh: Vec<PackEntry>,
    /// Index objects that were published.
    published: u64,
    /// Entries of others that were found true, or false.
    proved: HashSet<(IndexName, PackName)>,
    aside: BTreeSet<(IndexName, PackName)>,
    /// Packs of which nothing could be read, and that no full key answers for.
    unanswered: BTreeSet<PackName>,
    unread: BTreeMap<PackName, Vec<Unread>>,
    read: BTreeMap<PackName, State>,
}

/// True if some snapshot holds something.
fn needs_packs(repo: &Repository) -> Result<bool> {
    let listing = snapshot::list(repo)?;
    Ok(!listing.damaged.is_empty() || listing.snapshots.iter().any(|s| !s.manifest.root.extents.is_empty()))
}

/// What became of a pack that was read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Whole,
    /// Some of it rests on what is not found.
    Waits,
    Damaged,
}

impl<'r> Repair<'r> {
    fn new(repo: &'r Repository, session: Option<&'r Session<'r>>, how: HowIndex, monitor: &'r dyn Monitor) -> Self {
        Self {
            repo,
            session,
            how,
            monitor,
            report: IndexReport::default(),
            damaged: BTreeSet::new(),
            gone: Vec::new(),
            strays: Vec::new(),
            listed: HashMap::new(),
            fresh: Vec::new(),
            published: 0,
            proved: HashSet::new(),
            aside: BTreeSet::new(),
            unanswered: BTreeSet::new(),
            unread: BTreeMap::new(),
            read: BTreeMap::new(),
        }
    }

    fn all(&mut self) -> Result<()> {
        self.monitor.event(Event::Phase { name: "reading the index", total_bytes: None });
        self.objects()?;
        let jobs = self.jobs()?;
        self.report.packs = jobs.len() as u64;
        self.report.bytes = jobs.iter().map(|job| job.size).sum();
        if self.how.dry_run {
            return Ok(());
        }
        self.monitor.event(Event::Phase { name: "reading packs", total_bytes: Some(self.report.bytes) });
        self.rounds(jobs)?;
        self.tell_damage()?;
        self.put_away()?;
        let all = std::mem::take(&mut self.unread).into_values().flatten();
        for unread in all {
            self.report.unread_all += 1;
            if self.report.unread.len() < limits::REPORT_MAX {
                self.report.unread.push(unread);
            }
        }
        Ok(())
    }

    /// Reads every index object: what this machine remembers of one proves nothing about the store.
    fn objects(&mut self) -> Result<()> {
        let repo = self.repo;
        let before = repo.index().objects()?;
        let mut problems = repo.sync_lost_index()?;
        let held: Vec<IndexName> = repo.index().objects()?.into_iter().map(|object| object.name).collect();
        repo::ask(
            &**repo.store(),
            &held,
            |name| repo.read_index(name),
            |_, read| {
                match read {
                    Ok(_) => {}
                    Err(e) if e.is_damage() => problems.push(e),
                    Err(e) => return Err(e),
                }
                Ok(())
            },
        )?;
        for problem in problems {
            if matches!(problem, Error::Newer { .. }) {
                return Err(problem);
            }
            // Another run has replaced it meanwhile.
            if problem.is_not_found() {
                continue;
            }
            let (object, why) = object_of(&problem);
            match crate::format::names::last_part(&object).parse::<IndexName>() {
                Ok(name) if repo.names().index(&name) == object => {
                    self.damaged.insert(name);
                }
                _ => self.strays.push(object.clone()),
            }
            self.report.damaged.push(BadObject { object, why });
        }
        let known = repo.indexes_held()?;
        self.gone = before.into_iter().map(|object| object.name).filter(|name| !known.contains(name)).collect();
        self.report.gone = self.gone.iter().map(|name| repo.names().index(name)).collect();
        Ok(())
    }

    /// The packs that no full key answers for, or of which one does not know all: the oldest first.
    fn jobs(&mut self) -> Result<Vec<Job>> {
        let repo = self.repo;
        let condemned = match self.session {
            Some(session) => session.condemned(),
            None => condemned(repo)?,
        };
        // In this order: what an object names was there before it.
        let mut known = repo.index().packs()?;
        known.retain(|pack| !self.damaged.contains(&pack.object));
        let listed = repo.list_packs_by_age()?;
        if listed.is_empty() && (!known.is_empty() || !self.damaged.is_empty() || needs_packs(repo)?) {
            let why = "the store lists no packs, and there are snapshots, or an index that names some";
            return Err(Error::damaged(repo.names().packs(), why));
        }
        self.listed = listed.iter().copied().collect();
        let vouched = repo.vouched()?;
        let partly: HashSet<EntryNumber> = repo.index().copies(&UNKNOWN)?.iter().map(|copy| copy.entry()).collect();
        let mut claims: HashMap<PackName, (Vec<KnownPack>, Vec<KnownPack>)> = HashMap::new();
        for pack in known {
            let place = claims.entry(pack.name).or_default();
            match repo.is_full(&pack.signer) || vouched.contains(&pack.vouched()) {
                true => place.0.push(pack),
                false => place.1.push(pack),
            }
        }
        let mut jobs = Vec::new();
        for (name, size) in listed {
            if condemned.contains(&name) {
                continue;
            }
            let (answers, claims) = claims.remove(&name).unwrap_or_default();
            if let Some(whole) = answers.iter().find(|answer| !partly.contains(&answer.number)) {
                self.hold_against(whole, claims)?;
                continue;
            }
            let mut known = None;
            for answer in &answers {
                known = known.max(Some(self.known_frames(answer.number)?));
            }
            jobs.push(Job { name, size, claims, known, is_again: false });
        }
        Ok(jobs)
    }

    fn known_frames(&self, entry: EntryNumber) -> Result<usize> {
        let map = self.repo.index().pack(entry)?;
        Ok(map.map_or(0, |map| map.frames().iter().filter(|(_, frame)| is_known(frame)).count()))
    }

    /// Holds what others say of a pack against what a full key says.
    fn hold_against(&mut self, answer: &KnownPack, claims: Vec<KnownPack>) -> Result<()> {
        if claims.is_empty() {
            return Ok(());
        }
        let Some(right) = self.repo.index().pack(answer.number)? else { return Ok(()) };
        for claim in claims {
            let Some(map) = self.repo.index().pack(claim.number)? else { continue };
            if claim.size == answer.size && map.class == right.class && map.frames() == right.frames() {
                self.proved.insert((claim.object, claim.name));
            } else {
                self.is_false(&claim);
            }
        }
        Ok(())
    }

    fn is_false(&mut self, claim: &KnownPack) {
        if self.aside.insert((claim.object, claim.name)) {
            self.report.false_entries.push(FalseEntry {
                pack: self.repo.names().pack(&claim.name),
                object: self.repo.names().index(&claim.object),
                signer: self.repo.signer_label(&claim.signer),
            });
        }
    }

    /// Reads packs until nothing more is won.
    fn rounds(&mut self, mut jobs: Vec<Job>) -> Result<()> {
        while !jobs.is_empty() {
            let before = self.published;
            jobs = self.round(jobs, false)?;
            if !jobs.is_empty() && self.published == before {
                // None is won whole. A part of one may be what another rests on.
                jobs = self.round(jobs, true)?;
                if self.published == before {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Reads packs, and returns those with frames that rest on what is not found. `in_part` takes of these what
    /// there is.
    fn round(&mut self, jobs: Vec<Job>, in_part: bool) -> Result<Vec<Job>> {
        let mut left = Vec::new();
        let mut queue: VecDeque<Job> = jobs.into();
        while !queue.is_empty() {
            let batch: Vec<Job> = queue.drain(..queue.len().min(limits::REPAIR_BATCH_PACKS)).collect();
            let found = cores::on_all(&batch, self.monitor, |job| {
                let found = contents::read(self.repo, &job.name)?;
                if !job.is_again {
                    self.monitor.event(Event::Bytes(job.size));
                }
                Ok((job.name, found))
            })?;
            self.live()?;
            let mut found: HashMap<PackName, Found> = found.into_iter().collect();
            let mut waiting = Vec::new();
            for mut job in batch {
                let Some(found) = found.remove(&job.name) else { continue };
                if self.settle(&mut job, found, in_part)? {
                    continue;
                }
                if job.is_again || in_part { left.push(job) } else { waiting.push(job) }
            }
            // What they rest on may have been read just before.
            if !waiting.is_empty() && self.publish()? {
                for mut job in waiting.into_iter().rev() {
                    job.is_again = true;
                    queue.push_front(job);
                }
            } else {
                left.append(&mut waiting);
            }
        }
        self.publish()?;
        left.iter_mut().for_each(|job| job.is_again = true);
        Ok(left)
    }

    /// Shows that this lives.
    fn live(&self) -> Result<()> {
        if self.monitor.cancelled() {
            return Err(Error::Interrupted);
        }
        self.session.map_or(Ok(()), Session::renew_if_due)
    }

    /// Draws the conclusions from a pack that was read; false if it is to be read again.
    fn settle(&mut self, job: &mut Job, found: Found, in_part: bool) -> Result<bool> {
        let pack = self.repo.names().pack(&job.name);
        let unread = |frame, why: &str| Unread { pack: pack.clone(), frame, why: why.to_owned() };
        let contents = match found {
            Found::Gone => return Ok(true),
            Found::Unreadable(why) => {
                self.unread.insert(job.name, vec![unread(None, &why)]);
                self.unanswered.insert(job.name);
                return Ok(true);
            }
            // Nobody can have said anything true of it.
            Found::Stranger(why) => {
                self.unread.insert(job.name, vec![unread(None, &why)]);
                return Ok(true);
            }
            Found::Frozen => {
                // Where nothing is wrong a writer's word is enough.
                if job.claims.is_empty() || self.report.is_damaged() {
                    self.unread.insert(job.name, vec![unread(None, "it must be thawed before it can be read")]);
                }
                self.unanswered.insert(job.name);
                return Ok(true);
            }
            Found::Contents(contents) => contents,
        };
        let waits = !contents.waiting.is_empty();
        if waits && !in_part {
            return Ok(false);
        }
        let frames = contents.bad.iter().chain(&contents.waiting);
        let troubles: Vec<Unread> = frames.map(|(number, why)| unread(Some(*number), why)).collect();
        if let Some(why) = &contents.broken
            && !self.read.contains_key(&job.name)
            && self.report.broken.len() < limits::REPORT_MAX
        {
            self.report.broken.push(BadObject { object: pack.clone(), why: why.clone() });
        }
        match troubles.is_empty() {
            true => self.unread.remove(&job.name),
            false => self.unread.insert(job.name, troubles),
        };
        let state = match (contents.broken.is_none() && contents.bad.is_empty(), waits) {
            (false, _) => State::Damaged,
            (true, true) => State::Waits,
            (true, false) => State::Whole,
        };
        self.read.insert(job.name, state);
        self.conclude(job, *contents)?;
        Ok(!waits)
    }

    /// Holds what others say against what is so, and says it where nobody does.
    fn conclude(&mut self, job: &mut Job, contents: Contents) -> Result<()> {
        let is_all = contents.known() == contents.entry.directory.frames.len();
        let mut is_named = false;
        for claim in &job.claims {
            let map = self.repo.index().pack(claim.number)?;
            if map.is_some_and(|map| contents.agrees(claim.size, &map)) {
                is_named = true;
                if is_all {
                    self.proved.insert((claim.object, claim.name));
                }
            } else {
                self.is_false(claim);
            }
        }
        let known = contents.known();
        if is_named || known == 0 || job.known.is_some_and(|before| before >= known) {
            return Ok(());
        }
        job.known = Some(known);
        self.report.named += 1;
        self.report.blobs += contents.entry.blobs() as u64;
        self.fresh.push(contents.entry);
        if blobs_of(&self.fresh) >= limits::INDEX_BLOBS_TARGET {
            self.publish()?;
        }
        Ok(())
    }

    /// Publishes what was found; false if there was nothing.
    fn publish(&mut self) -> Result<bool> {
        if self.fresh.is_empty() {
            return Ok(false);
        }
        let packs = std::mem::take(&mut self.fresh);
        self.say(&IndexObject { packs, ..IndexObject::default() })?;
        Ok(true)
    }

    /// Publishes an index object, if no prune has ended the session: it may have deleted what is named there.
    fn say(&mut self, object: &IndexObject) -> Result<()> {
        let session = self.session.ok_or_else(|| Error::Invalid("a dry run writes nothing".into()))?;
        session.still_open()?;
        self.repo.publish_index(object)?;
        self.published += 1;
        Ok(())
    }

    /// Says which of the packs that were read are damaged, as a check does. One that a false entry had made look
    /// damaged is so no more.
    fn tell_damage(&self) -> Result<()> {
        if self.read.is_empty() {
            return Ok(());
        }
        let named: HashSet<PackName> = self.repo.index().packs()?.into_iter().map(|pack| pack.name).collect();
        self.repo.publish_damage(|packs| {
            for (pack, state) in &self.read {
                match state {
                    State::Whole => {
                        packs.remove(pack);
                    }
                    State::Damaged if named.contains(pack) => {
                        packs.insert(*pack);
                    }
                    _ => {}
                }
            }
        })?;
        Ok(())
    }
}
