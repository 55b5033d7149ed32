//! Checking a repository: that every object is what was written, that every
//! snapshot's trees are whole, that every blob has a copy, and, if asked, that
//! every stored byte opens, decodes and hashes to its id. Writes nothing but, with
//! a full key and after it has read packs, what it has found: which of them are
//! damaged, and which of others' entries are true.
//!
//! Damage is found and told, not stumbled over: one lost object never hides
//! what else is lost, and for each the snapshots and paths that need it are
//! named.

use super::packs::{self, Job, PackResult, Problem};
use super::part::Portion;
use super::report::{Damage, PATHS_MAX, Report, object_of};
use super::sound::Sound;
use crate::error::{Error, Result};
use crate::format::content::Content;
use crate::format::header::{self, Header, ObjectType};
use crate::format::index::Vouched;
use crate::format::node::{Kind, Node};
use crate::format::pack::BlobKind;
use crate::id::{BlobId, IndexName, PackName, SignerId, SnapshotId};
use crate::index::{BlobCopy, EntryNumber};
use crate::limits;
use crate::monitor::{Event, Monitor};
use crate::repo::{Gone, Repository, Thoroughness};
use crate::snapshot::{self, Folder, distinct_leaves};
use crate::source::files::Trail;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

/// How thoroughly to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Keys, index, packs' presence and sizes, snapshots and their trees.
    Structure,
    /// The same, and every byte of every pack.
    AllData,
    /// The same, of some packs.
    Data(Portion),
}

struct Check<'r> {
    repo: &'r Repository,
    monitor: &'r dyn Monitor,
    report: Report,
    /// Which copies can be relied on.
    sound: Sound,
    /// Who signed each entry.
    signers: HashMap<EntryNumber, SignerId>,
    /// For each entry that others' backups cannot rely on yet, what would vouch for it.
    unvouched: HashMap<EntryNumber, Vouched>,
    /// Packs that an earlier check has found damaged, with their entries, and this one has not read.
    recorded: BTreeMap<PackName, Vec<EntryNumber>>,
    /// The packs that the index names.
    named: HashSet<PackName>,
    /// What to call at fault for a blob that no index object names.
    index: String,
}

/// Checks a repository.
///
/// # Errors
/// The store's, and [`Error::Interrupted`]; damage is no error but in the report.
pub fn check(repo: &Repository, depth: Depth, monitor: &dyn Monitor) -> Result<Report> {
    let mut check = Check {
        repo,
        monitor,
        report: Report::default(),
        sound: Sound::default(),
        signers: HashMap::new(),
        unvouched: HashMap::new(),
        recorded: BTreeMap::new(),
        named: HashSet::new(),
        index: repo.names().indexes(),
    };
    check.keys()?;
    check.index()?;
    let jobs = check.packs()?;
    match depth {
        Depth::AllData => check.data(jobs, Portion::ALL)?,
        Depth::Data(portion) => check.data(jobs, portion)?,
        Depth::Structure => check.report.unchecked.push("the bytes of packs: --read-data reads them"),
    }
    for (name, entries) in std::mem::take(&mut check.recorded) {
        check.damaged_pack(&name, "a check has found it damaged: --read-data tells what is lost", &entries);
    }
    if repo.private_key().is_ok() {
        check.snapshots()?;
    } else {
        check.report.unchecked.push("snapshots and their trees: a writer key cannot read them");
        check.sealed_snapshots()?;
    }
    Ok(check.report)
}

impl Check<'_> {
    fn damaged(&mut self, object: &str, why: &str) {
        self.report.damaged(object, why);
    }

    /// Notes what an error is about.
    fn note(&mut self, e: &Error) {
        let (object, why) = object_of(e);
        self.damaged(&object, &why);
    }

    /// Notes that an entry needs what an error is about.
    fn needed(&mut self, e: &Error, blob: Option<&BlobId>, snapshot: &SnapshotId, path: &str) {
        let (object, why) = object_of(e);
        if object == self.repo.names().indexes() {
            self.report.unindexed = true;
            let index = self.index.clone();
            return self.report.needed(&index, &why, blob, snapshot, path);
        }
        self.report.needed(&object, &why, blob, snapshot, path);
    }

    fn phase(&self, name: &'static str, total_bytes: Option<u64>) -> Result<()> {
        self.monitor.event(Event::Phase { name, total_bytes });
        if self.monitor.cancelled() { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// Slots, every version of the list of signers, and sessions.
    fn keys(&mut self) -> Result<()> {
        self.phase("keys", None)?;
        for problem in self.repo.salvaged() {
            self.note(problem);
        }
        let (problems, unused) = self.repo.check_keys()?;
        self.report.unused_slots = unused;
        for problem in problems.iter().chain(&self.repo.check_sessions()?) {
            self.note(problem);
        }
        Ok(())
    }

    /// Every index object is read anew: what this machine remembers proves nothing about the store.
    fn index(&mut self) -> Result<()> {
        self.phase("index", None)?;
        let before = self.repo.index().objects()?;
        match self.repo.sync_index() {
            Ok(problems) => problems.iter().for_each(|problem| self.note(problem)),
            // The store lists none at all: what this machine remembers tells what is lost.
            Err(e) if e.is_damage() => self.note(&e),
            Err(e) => return Err(e),
        }
        let held = self.repo.indexes_held()?;
        let gone: Vec<&IndexName> = before.iter().map(|o| &o.name).filter(|name| !held.contains(name)).collect();
        for name in &gone {
            self.damaged(&self.repo.names().index(name), "it is missing: this machine has seen it");
        }
        if let [only] = gone[..] {
            self.index = self.repo.names().index(only);
        }
        for known in self.repo.index().objects()? {
            match self.repo.read_index(&known.name) {
                Ok(_) => {}
                Err(e) if e.is_damage() => {
                    let object = self.repo.names().index(&known.name);
                    self.damaged(&object, &object_of(&e).1);
                    for entry in self.repo.index().entries_of(&known.name)? {
                        self.sound.doubtful.insert(entry, object.clone());
                    }
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Holds the index's packs against the store's; returns those that can be read.
    fn packs(&mut self) -> Result<Vec<Job>> {
        self.phase("packs", None)?;
        // The index first: a snapshot that is being taken on this machine names packs that a listing from
        // before does not have.
        let mut known = self.repo.index().packs()?;
        let mut listed: HashMap<PackName, u64> = self.repo.list_packs()?.into_iter().collect();
        self.report.packs = listed.len() as u64;
        self.report.pack_bytes = listed.values().sum();
        self.signers = known.iter().map(|p| (p.number, p.signer)).collect();
        let vouched = self.repo.vouched()?;
        let unvouched = known.iter().filter(|p| !self.repo.is_full(&p.signer) && !vouched.contains(&p.vouched()));
        self.unvouched = unvouched.map(|p| (p.number, p.vouched())).collect();
        self.named = known.iter().map(|p| p.name).collect();
        let damage = self.repo.known_damage()?;
        damage.problems.iter().for_each(|problem| self.note(problem));
        known.sort_by_key(|p| (p.name, p.size, p.number));
        let mut jobs: Vec<Job> = Vec::new();
        for same in known.chunk_by(|a, b| (a.name, a.size) == (b.name, b.size)) {
            let Some(pack) = same.first() else { continue };
            let entries: Vec<EntryNumber> = same.iter().map(|p| p.number).collect();
            let why = match listed.get(&pack.name) {
                Some(size) if *size == pack.size => {
                    if damage.packs.contains(&pack.name) {
                        self.recorded.insert(pack.name, entries.clone());
                    }
                    jobs.push(Job { name: pack.name, size: pack.size, entries });
                    continue;
                }
                Some(size) => format!("it has {size} bytes, not {}", pack.size),
                None => "it is missing".to_owned(),
            };
            let is_mendable = self.repo.private_key().is_ok() && self.repo.is_mendable(pack.number, &pack.name)?;
            if let Some(damage) = self.damaged_pack(&pack.name, &why, &entries) {
                damage.mendable = is_mendable;
            }
            if !is_mendable {
                self.sound.gone.extend(entries);
            }
        }
        for pack in &known {
            listed.remove(&pack.name);
        }
        self.report.unnamed = listed.len() as u64;
        let mut unnamed: Vec<&PackName> = listed.keys().collect();
        unnamed.sort_unstable();
        let first = unnamed.into_iter().take(limits::REPORT_MAX);
        self.report.unnamed_packs = first.map(|name| self.repo.names().pack(name)).collect();
        jobs.extend(listed.into_iter().map(|(name, size)| Job { name, size, entries: Vec::new() }));
        Ok(jobs)
    }

    /// Notes that a pack is not what these entries say, and who signed them, if not only full keys did.
    fn damaged_pack(&mut self, name: &PackName, why: &str, entries: &[EntryNumber]) -> Option<&mut Damage> {
        let signers: BTreeSet<SignerId> = entries.iter().filter_map(|e| self.signers.get(e)).copied().collect();
        let blamed = signers.iter().any(|id| !self.repo.is_full(id));
        let labels: Vec<String> = signers.iter().filter(|_| blamed).map(|id| self.repo.signer_label(id)).collect();
        let damage = self.report.damaged(&self.repo.names().pack(name), why)?;
        for label in labels {
            if !damage.indexed_by.contains(&label) {
                damage.indexed_by.push(label);
            }
        }
        Some(damage)
    }

    /// Reads every byte of some packs; with a full key also opens, decodes and hashes every blob.
    fn data(&mut self, jobs: Vec<Job>, portion: Portion) -> Result<()> {
        let now = u64::try_from(self.repo.clock().now().seconds).unwrap_or(0);
        let thoroughness = match self.repo.private_key() {
            Ok(_) => Thoroughness::Content,
            Err(_) => {
                self.report.unchecked.push("what is inside packs: a writer key cannot open them");
                Thoroughness::Bytes
            }
        };
        let mut known = self.repo.local().verified(thoroughness, now);
        let there: Vec<PackName> = jobs.iter().map(|job| job.name).collect();
        let jobs = portion.choose(jobs, &known, now);
        self.phase("data", Some(jobs.iter().map(|job| job.size).sum()))?;
        let mut found = packs::read_all(self.repo, &jobs, self.monitor)?;
        found.sort_by_key(|result| result.name);
        for result in &found {
            known.note(&result.name, now, result.is_whole());
        }
        self.repo.local().keep_verified(thoroughness, &known, there.iter(), now);
        self.report.covered(&known, &there);
        for result in found.iter().filter(|result| !result.is_frozen) {
            self.recorded.remove(&result.name);
        }
        if thoroughness == Thoroughness::Content && self.repo.writable().is_ok() {
            self.publish(&found);
        }
        self.read(&jobs, found);
        Ok(())
    }

    /// Publishes what was found, for backups to heed. One who may not write has found it all the same.
    fn publish(&mut self, found: &[PackResult]) {
        let named = &self.named;
        let sound: HashSet<&PackName> = found.iter().filter(|r| r.is_sound()).map(|r| &r.name).collect();
        let damaged: Vec<PackName> = found.iter().filter(|r| r.is_damaged()).map(|r| r.name).collect();
        let change = |packs: &mut BTreeSet<PackName>| {
            // What the index does not name nobody relies on.
            packs.retain(|name| named.contains(name));
            packs.retain(|name| !sound.contains(name));
            packs.extend(&damaged);
        };
        let vouched: Vec<Vouched> =
            found.iter().flat_map(PackResult::true_entries).filter_map(|e| self.unvouched.get(&e).copied()).collect();
        let vouched: Vec<Vouched> = vouched.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
        let published = self.repo.publish_damage(change).and_then(|_| self.repo.vouch(&vouched));
        match published {
            Ok(()) => self.report.vouched = vouched.len() as u64,
            Err(e) => self.report.unpublished = Some(e.to_string()),
        }
    }

    /// Notes what reading packs has found.
    fn read(&mut self, jobs: &[Job], found: Vec<PackResult>) {
        let sizes: HashMap<PackName, u64> = jobs.iter().map(|job| (job.name, job.size)).collect();
        for result in found {
            if result.is_frozen {
                let size = sizes.get(&result.name).copied().unwrap_or_default();
                self.report.froze(self.repo.names().pack(&result.name), size);
            }
            self.report.on_frozen += result.on_frozen;
            self.report.read_packs += u64::from(!result.is_frozen);
            self.report.read_bytes += result.bytes;
            self.report.blobs += result.blobs;
            let bad = result.bad_frames.values().map(HashSet::len).max().unwrap_or(0);
            let all: Vec<EntryNumber> = result.bad_frames.keys().copied().collect();
            for Problem { why, entry } in &result.problems {
                let entries = entry.as_ref().map_or(&all[..], std::slice::from_ref);
                if let Some(damage) = self.damaged_pack(&result.name, why, entries) {
                    damage.mendable |= result.is_mendable;
                    damage.frames = result.frames as u64;
                    damage.bad_frames = bad as u64;
                }
            }
            self.sound.bad_frames.extend(result.bad_frames);
            self.sound.resting.extend(result.resting);
        }
    }

    /// Without the private key: that snapshots' objects are whole.
    fn sealed_snapshots(&mut self) -> Result<()> {
        let ids = self.repo.snapshot_ids()?;
        let listed = ids.iter().copied().collect();
        self.gone_snapshots(&self.repo.gone_snapshots(&listed, std::iter::empty())?);
        self.forgotten(&listed)?;
        for id in ids {
            self.report.snapshots += 1;
            let name = self.repo.names().snapshot(&id);
            match self.sealed_snapshot(&name) {
                Err(e) if e.is_damage() => self.note(&e),
                other => other?,
            }
        }
        Ok(())
    }

    fn sealed_snapshot(&self, name: &str) -> Result<()> {
        let bytes = self.repo.store().read(name, limits::MANIFEST_MAX)?;
        let object = Header::of_whole(&bytes, name)?.object;
        header::opened(&bytes).map_err(|e| e.of(name))?;
        match object {
            ObjectType::Snapshot | ObjectType::Tombstone => Ok(()),
            _ => Err(Error::damaged(name, "it is no snapshot")),
        }
    }

    /// Walks every snapshot's trees, each tree once.
    fn snapshots(&mut self) -> Result<()> {
        self.phase("snapshots", None)?;
        let listing = snapshot::list(self.repo)?;
        for (id, e) in &listing.damaged {
            self.damaged(&self.repo.names().snapshot(id), &object_of(e).1);
        }
        self.gone_snapshots(&listing.gone);
        let mut listed: HashSet<SnapshotId> = listing.buried.iter().copied().collect();
        listed.extend(listing.snapshots.iter().map(|s| s.id).chain(listing.damaged.iter().map(|(id, _)| *id)));
        self.forgotten(&listed)?;
        for problem in self.repo.check_holds(&listed, &listing.buried)? {
            self.note(&problem);
        }
        let repaired = listing.repaired().into_iter().map(|(of, by)| (of.to_string(), by.to_string()));
        self.report.repaired = repaired.collect();
        let mut whole = HashSet::new();
        for s in &listing.snapshots {
            self.report.snapshots += 1;
            self.tree(&s.id, &s.manifest.root, &mut whole)?;
        }
        Ok(())
    }

    /// The records of what was forgotten, and what is missing by their word.
    fn forgotten(&mut self, listed: &HashSet<SnapshotId>) -> Result<()> {
        let (problems, gone) = self.repo.check_forgotten(listed)?;
        problems.iter().for_each(|problem| self.note(problem));
        self.gone_snapshots(&gone);
        Ok(())
    }

    fn gone_snapshots(&mut self, gone: &[Gone]) {
        for gone in gone {
            self.damaged(&gone.object, &gone.why());
        }
    }

    /// Walks a folder and all below it. A subtree that was found whole is not walked again; one with
    /// damage is, so that every snapshot that needs the damaged object is named, but in one snapshot no
    /// more often than paths are named: a small tree may be the same in more places than can be walked.
    fn tree(&mut self, snapshot: &SnapshotId, root: &Content, whole: &mut HashSet<BlobId>) -> Result<()> {
        let mut broken: HashMap<Vec<Option<BlobId>>, usize> = HashMap::new();
        let mut stack = vec![Level::new(self.repo, root, Trail::new(Path::new("/")))];
        while let Some(depth) = stack.len().checked_sub(1) {
            let Some(level) = stack.last_mut() else { return Ok(()) };
            if self.monitor.cancelled() {
                return Err(Error::Interrupted);
            }
            match level.entries.next() {
                Some(Ok(node)) => {
                    let at = level.trail.below(&node.name);
                    match node.kind {
                        Kind::Dir if depth + 1 >= limits::DEPTH_MAX => {
                            let object = self.repo.names().snapshot(snapshot);
                            self.report.needed(&object, "folders are too deep", None, snapshot, &shown(&at));
                        }
                        Kind::Dir if broken.get(&ids_of(&node.content)).is_some_and(|n| *n > PATHS_MAX) => {
                            level.sound = false;
                        }
                        Kind::Dir if !is_known_whole(&node.content, whole) => {
                            stack.push(Level::new(self.repo, &node.content, at));
                        }
                        Kind::File => {
                            let sound = self.file(snapshot, &node, &at)?;
                            if let Some(level) = stack.last_mut() {
                                level.sound &= sound;
                            }
                        }
                        _ => {}
                    }
                }
                Some(Err(e)) if e.is_damage() => {
                    level.sound = false;
                    level.troubles.push(e);
                }
                Some(Err(e)) => return Err(e),
                None => {
                    let Some(done) = stack.pop() else { return Ok(()) };
                    let sound = self.folder(snapshot, &done)? && done.sound;
                    if sound {
                        whole.extend(done.content.extents.iter().filter_map(|e| e.id));
                    } else {
                        *broken.entry(ids_of(&done.content)).or_default() += 1;
                    }
                    if let Some(above) = stack.last_mut() {
                        above.sound &= sound;
                    }
                }
            }
        }
        Ok(())
    }

    /// A folder's own segments were read by now, by whatever copy: they must also be where they count.
    fn folder(&mut self, snapshot: &SnapshotId, level: &Level<'_>) -> Result<bool> {
        if !level.troubles.is_empty() {
            let path = shown(&level.trail);
            if !self.lost(snapshot, &level.content, Some(BlobKind::Tree), &path)? {
                // Blobs that hash to their ids, and make no sense.
                level.troubles.iter().for_each(|e| self.needed(e, None, snapshot, &path));
            }
            return Ok(false);
        }
        let mut sound = true;
        for extent in distinct_leaves(self.repo, &level.content).flatten() {
            if let Some(id) = extent.id {
                sound &= self.blob(snapshot, BlobKind::Tree, &id, &level.trail)?;
            }
        }
        Ok(sound)
    }

    fn file(&mut self, snapshot: &SnapshotId, node: &Node, trail: &Trail) -> Result<bool> {
        let (mut sound, mut trouble) = (true, None);
        for extent in distinct_leaves(self.repo, &node.content) {
            if self.monitor.cancelled() {
                return Err(Error::Interrupted);
            }
            match extent {
                Ok(extent) => {
                    if let Some(id) = extent.id {
                        sound &= self.blob(snapshot, BlobKind::Chunk, &id, trail)?;
                    }
                }
                Err(e) if e.is_damage() => trouble = Some(e),
                Err(e) => return Err(e),
            }
        }
        if let Some(e) = trouble {
            sound = false;
            let path = shown(trail);
            if !self.lost(snapshot, &node.content, None, &path)? {
                self.needed(&e, None, snapshot, &path);
            }
        }
        Ok(sound)
    }

    /// Finds the content lists that cannot be read, and the blobs at the end of them if their kind is
    /// given. False if all can be.
    fn lost(&mut self, snapshot: &SnapshotId, content: &Content, end: Option<BlobKind>, path: &str) -> Result<bool> {
        self.lost_below(snapshot, content, end, path, &mut HashSet::new())
    }

    fn lost_below(
        &mut self,
        snapshot: &SnapshotId,
        content: &Content,
        end: Option<BlobKind>,
        path: &str,
        seen: &mut HashSet<BlobId>,
    ) -> Result<bool> {
        let kind = if content.level > 0 { Some(BlobKind::List) } else { end };
        let Some(kind) = kind else { return Ok(false) };
        let mut found = false;
        for id in content.extents.iter().filter_map(|e| e.id) {
            // Lists may name one another again and again.
            if !seen.insert(id) {
                continue;
            }
            match self.repo.blob(kind, &id) {
                Err(e) if e.is_damage() => {
                    found = true;
                    self.needed(&e, Some(&id), snapshot, path);
                }
                Err(e) => return Err(e),
                Ok(bytes) if content.level > 0 => {
                    if let Ok(list) = Content::decode(&bytes)
                        && list.level + 1 == content.level
                    {
                        found |= self.lost_below(snapshot, &list, end, path, seen)?;
                    }
                }
                Ok(_) => {}
            }
        }
        Ok(found)
    }

    /// True if a blob has a copy that can be relied on, as far as is known.
    fn blob(&mut self, snapshot: &SnapshotId, kind: BlobKind, id: &BlobId, trail: &Trail) -> Result<bool> {
        let copies = self.repo.index().copies(id)?;
        let mut faults = Vec::new();
        for copy in &copies {
            match self.sound.fault(self.repo, copy)? {
                None => return Ok(true),
                Some(object) => faults.push(object),
            }
        }
        let path = shown(trail);
        if copies.is_empty() {
            // What this machine has lost of its index the store may know.
            let is_sound = |copy: &BlobCopy| Ok(self.sound.fault(self.repo, copy)?.is_none());
            if self.repo.index().find_surely(id, is_sound)?.is_some() {
                return Ok(true);
            }
            self.needed(&self.repo.unindexed(kind, id), Some(id), snapshot, &path);
            return Ok(false);
        }
        // No copy counts, and each for a reason of its own.
        for object in faults {
            if object == self.repo.names().indexes() {
                self.needed(&self.repo.unindexed(kind, id), Some(id), snapshot, &path);
            } else {
                self.report.needed(&object, "", Some(id), snapshot, &path);
            }
        }
        Ok(false)
    }
}

fn is_known_whole(content: &Content, whole: &HashSet<BlobId>) -> bool {
    content.extents.iter().all(|e| e.id.is_some_and(|id| whole.contains(&id)))
}

fn ids_of(content: &Content) -> Vec<Option<BlobId>> {
    content.extents.iter().map(|e| e.id).collect()
}

fn shown(trail: &Trail) -> String {
    trail.path().display().to_string()
}

struct Level<'r> {
    entries: Folder<'r>,
    content: Content,
    trail: Arc<Trail>,
    sound: bool,
    /// What could not be read of it.
    troubles: Vec<Error>,
}

impl<'r> Level<'r> {
    fn new(repo: &'r Repository, content: &Content, trail: Arc<Trail>) -> Self {
        let entries = Folder::new(repo, content);
        Self { entries, content: content.clone(), trail, sound: true, troubles: Vec::new() }
    }
}
