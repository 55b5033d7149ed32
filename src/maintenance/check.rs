//! Checking a repository: that every object is what was written, that every
//! snapshot's trees are whole, that every blob has a copy, and, if asked, that
//! every stored byte opens, decodes and hashes to its id. Writes nothing.
//!
//! Damage is found and told, not stumbled over: one lost object never hides
//! what else is lost, and for each the snapshots and paths that need it are
//! named.

use crate::error::{Error, Result};
use crate::format::content::Content;
use crate::format::header::{self, ObjectType};
use crate::format::node::{Kind, Node};
use crate::format::pack::BlobKind;
use crate::id::{BlobId, PackName, SignerId, SnapshotId};
use crate::index::{EntryNumber, KnownPack, PackMap};
use crate::limits;
use crate::monitor::{Event, Monitor};
use crate::pack::{Decompressor, PackKey, WholePack};
use crate::repo::{Gone, Repository};
use crate::snapshot::{self, Folder, leaves};
use crossbeam_channel::{Receiver, bounded};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;

/// How thoroughly to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Index, packs' presence and sizes, snapshots and their trees.
    Structure,
    /// The same, and every byte of every pack.
    AllData,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Damage {
    /// The object.
    pub object: String,
    /// What is wrong with it.
    pub why: String,
    /// Whose index entries name it, where not only full keys' do: a writer can name whatever it likes.
    pub indexed_by: Vec<String>,
    /// Snapshots that need it, and the paths in them (the first few).
    pub needed_by: BTreeMap<String, Vec<String>>,
}

/// What a check found.
#[derive(Debug, Default)]
pub struct Report {
    /// Damage, the first `limits::REPORT_MAX`.
    pub damage: Vec<Damage>,
    /// Damage in all.
    pub damages: u64,
    /// Snapshots that were looked at.
    pub snapshots: u64,
    /// Packs in the store.
    pub packs: u64,
    /// Bytes of packs that were read and hashed.
    pub read_bytes: u64,
    /// Blobs that were decoded and hashed.
    pub blobs: u64,
    /// Packs that no index object names: left by interrupted backups, harmless.
    pub unnamed: u64,
    /// What was not checked, since the key does not allow it.
    pub unchecked: Vec<&'static str>,
}

/// Paths named for one damaged object in one snapshot.
const PATHS_MAX: usize = 10;

struct Check<'r> {
    repo: &'r Repository,
    monitor: &'r dyn Monitor,
    report: Report,
    /// Frames that are not what an entry of the index says. Several entries may name one pack, and
    /// whoever wrote a wrong one must not make a right one look damaged.
    bad_frames: HashMap<EntryNumber, HashSet<u32>>,
    /// Entries whose pack is missing, or of another size.
    gone: HashSet<EntryNumber>,
}

/// Checks a repository.
///
/// # Errors
/// The store's, and [`Error::Interrupted`]; damage is no error but in the report.
pub fn check(repo: &Repository, depth: Depth, monitor: &dyn Monitor) -> Result<Report> {
    let mut check =
        Check { repo, monitor, report: Report::default(), bad_frames: HashMap::new(), gone: HashSet::new() };
    check.index()?;
    let known = check.packs()?;
    if depth == Depth::AllData {
        check.data(&known)?;
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
    fn damaged(&mut self, object: impl Into<String>, why: impl Into<String>) {
        self.damaged_pack(object, why, Vec::new());
    }

    fn damaged_pack(&mut self, object: impl Into<String>, why: impl Into<String>, indexed_by: Vec<String>) {
        self.report.damages += 1;
        if self.report.damage.len() < limits::REPORT_MAX {
            let (object, why) = (object.into(), why.into());
            self.report.damage.push(Damage { object, why, indexed_by, needed_by: BTreeMap::new() });
        }
    }

    /// Who signed these entries, each once; nobody, if only full keys did.
    fn signers(&self, entries: &[KnownPack]) -> Vec<String> {
        let ids: BTreeSet<SignerId> = entries.iter().map(|e| e.signer).collect();
        if ids.iter().all(|id| self.repo.is_full(id)) {
            return Vec::new();
        }
        ids.iter().map(|id| self.repo.signer_label(id)).collect()
    }

    /// Adds a path to the damage of an object; the object is reported once.
    fn needed(&mut self, object: &str, why: &str, snapshot: &SnapshotId, path: &str) {
        let at = match self.report.damage.iter().position(|d| d.object == object) {
            Some(at) => at,
            None => {
                self.damaged(object, why);
                match self.report.damage.last() {
                    Some(last) if last.object == object => self.report.damage.len() - 1,
                    _ => return,
                }
            }
        };
        let paths = self.report.damage[at].needed_by.entry(snapshot.to_string()).or_default();
        if paths.len() < PATHS_MAX && !paths.iter().any(|p| p == path) {
            paths.push(path.to_owned());
        }
    }

    fn phase(&self, name: &'static str, total_bytes: Option<u64>) -> Result<()> {
        self.monitor.event(Event::Phase { name, total_bytes });
        if self.monitor.cancelled() { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// Every index object is read anew: what this machine remembers proves nothing about the store.
    fn index(&mut self) -> Result<()> {
        self.phase("index", None)?;
        for problem in self.repo.sync_index()? {
            let (object, why) = object_of(&problem);
            self.damaged(object, why);
        }
        for known in self.repo.index().objects()? {
            match self.repo.read_index(&known.name) {
                Ok(_) => {}
                Err(e) if e.is_damage() => {
                    let (object, why) = object_of(&e);
                    self.damaged(object, why);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Holds the index's packs against the store's. Returns the entries that can be right, those of
    /// one pack together.
    fn packs(&mut self) -> Result<Vec<Vec<KnownPack>>> {
        self.phase("packs", None)?;
        let listed: HashMap<PackName, u64> = self.repo.list_packs()?.into_iter().collect();
        self.report.packs = listed.len() as u64;
        let mut known = self.repo.index().packs()?;
        known.sort_by_key(|p| (p.name, p.size, p.number));
        for entries in known.chunk_by(|a, b| (a.name, a.size) == (b.name, b.size)) {
            let Some(pack) = entries.first() else { continue };
            let why = match listed.get(&pack.name) {
                None => "it is missing".to_owned(),
                Some(size) if *size != pack.size => format!("it has {size} bytes, not {}", pack.size),
                Some(_) => continue,
            };
            self.damaged_pack(self.repo.names().pack(&pack.name), why, self.signers(entries));
            self.gone.extend(entries.iter().map(|e| e.number));
        }
        let names: HashSet<PackName> = known.iter().map(|p| p.name).collect();
        self.report.unnamed = listed.keys().filter(|name| !names.contains(name)).count() as u64;
        known.retain(|p| !self.gone.contains(&p.number));
        Ok(known.chunk_by(|a, b| a.name == b.name).map(<[KnownPack]>::to_vec).collect())
    }

    /// Reads every byte of every pack; with a full key also opens, decodes and hashes every blob.
    fn data(&mut self, known: &[Vec<KnownPack>]) -> Result<()> {
        self.phase("data", Some(known.iter().flat_map(|entries| entries.first()).map(|p| p.size).sum()))?;
        if self.repo.private_key().is_err() {
            self.report.unchecked.push("what is inside packs: a writer key cannot open them");
        }
        let threads = thread::available_parallelism().map_or(2, usize::from);
        let found = Mutex::new(Vec::new());
        thread::scope(|scope| {
            let (tx, rx) = bounded::<&[KnownPack]>(1);
            let mut workers = Vec::new();
            for _ in 0..threads {
                let (rx, found) = (rx.clone(), &found);
                let (repo, monitor) = (self.repo, self.monitor);
                workers.push(scope.spawn(move || read_packs(repo, monitor, &rx, found)));
            }
            drop(rx);
            for pack in known {
                if self.monitor.cancelled() || tx.send(pack).is_err() {
                    break;
                }
            }
            drop(tx);
            workers.into_iter().try_for_each(|w| {
                w.join().unwrap_or_else(|_| Err(Error::Invalid("a checking thread panicked".into())))
            })
        })?;
        if self.monitor.cancelled() {
            return Err(Error::Interrupted);
        }
        let found = found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        for result in found {
            self.report.read_bytes += result.bytes;
            self.report.blobs += result.blobs;
            for (why, entries) in result.problems {
                self.damaged_pack(self.repo.names().pack(&result.name), why, self.signers(entries));
            }
            self.bad_frames.extend(result.bad_frames);
        }
        Ok(())
    }

    /// Without the private key: that snapshots' objects are whole.
    fn sealed_snapshots(&mut self) -> Result<()> {
        let ids = self.repo.snapshot_ids()?;
        self.gone(&self.repo.gone_snapshots(&ids.iter().copied().collect(), std::iter::empty())?);
        for id in ids {
            self.report.snapshots += 1;
            let name = self.repo.names().snapshot(&id);
            let bytes = self.repo.store().read(&name, limits::MANIFEST_MAX)?;
            let known = header::Header::decode(&bytes, &name)
                .map(|h| matches!(h.object, ObjectType::Snapshot | ObjectType::Tombstone));
            match (known, header::opened(&bytes)) {
                (Ok(true), Ok(_)) => {}
                (Ok(false), Ok(_)) => self.damaged(name, "it is no snapshot"),
                (Err(e), _) => self.damaged(name, e.to_string()),
                (_, Err(e)) => self.damaged(name, e.to_string()),
            }
        }
        Ok(())
    }

    /// Walks every snapshot's trees, each tree once.
    fn snapshots(&mut self) -> Result<()> {
        self.phase("snapshots", None)?;
        let listing = snapshot::list(self.repo)?;
        for (id, e) in &listing.damaged {
            self.damaged(self.repo.names().snapshot(id), object_of(e).1);
        }
        self.gone(&listing.gone);
        let mut whole = HashSet::new();
        for s in &listing.snapshots {
            self.report.snapshots += 1;
            self.tree(&s.id, &s.manifest.root, &PathBuf::from("/"), &mut whole)?;
        }
        Ok(())
    }

    fn gone(&mut self, gone: &[Gone]) {
        for gone in gone {
            self.damaged(self.repo.names().snapshot(&gone.snapshot), gone.to_string());
        }
    }

    /// Walks a folder and all below it. A subtree that was found whole is not walked again; one with
    /// damage is, so that every snapshot that needs the damaged object is named.
    fn tree(
        &mut self,
        snapshot: &SnapshotId,
        root: &Content,
        path: &std::path::Path,
        whole: &mut HashSet<BlobId>,
    ) -> Result<()> {
        let mut stack = vec![Level::new(self.repo, root, path.to_path_buf())];
        while let Some(level) = stack.last_mut() {
            if self.monitor.cancelled() {
                return Err(Error::Interrupted);
            }
            match level.entries.next() {
                Some(Ok(node)) => {
                    let at = level.path.join(name_of(&node));
                    match node.kind {
                        Kind::Dir if stack.len() >= limits::DEPTH_MAX => {
                            self.needed(&at.display().to_string(), "folders are too deep", snapshot, "");
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
                    let path = level.path.display().to_string();
                    let (object, why) = object_of(&e);
                    self.needed(&object, &why, snapshot, &path);
                }
                Some(Err(e)) => return Err(e),
                None => {
                    let Some(done) = stack.pop() else { return Ok(()) };
                    let sound = done.sound && self.leaves_sound(snapshot, &done)?;
                    if sound {
                        whole.extend(done.content.extents.iter().filter_map(|e| e.id));
                    }
                    if let Some(above) = stack.last_mut() {
                        above.sound &= sound;
                    }
                }
            }
        }
        Ok(())
    }

    /// A tree's own segments were read by now; with data read too, their frames must be sound.
    fn leaves_sound(&mut self, snapshot: &SnapshotId, level: &Level<'_>) -> Result<bool> {
        let path = level.path.display().to_string();
        let mut sound = true;
        for extent in leaves(self.repo, &level.content).flatten() {
            if let Some(id) = extent.id {
                sound &= self.blob(snapshot, BlobKind::Tree, &id, &path)?;
            }
        }
        Ok(sound)
    }

    fn file(&mut self, snapshot: &SnapshotId, node: &Node, path: &std::path::Path) -> Result<bool> {
        let path = path.display().to_string();
        let mut sound = true;
        for extent in leaves(self.repo, &node.content) {
            match extent {
                Ok(extent) => {
                    if let Some(id) = extent.id {
                        sound &= self.blob(snapshot, BlobKind::Chunk, &id, &path)?;
                    }
                }
                Err(e) if e.is_damage() => {
                    sound = false;
                    let (object, why) = object_of(&e);
                    self.needed(&object, &why, snapshot, &path);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(sound)
    }

    /// True if a blob has a copy that can be relied on, as far as is known.
    fn blob(&mut self, snapshot: &SnapshotId, kind: BlobKind, id: &BlobId, path: &str) -> Result<bool> {
        let copies = self.repo.index().copies(id)?;
        let sound = |pack: &PackMap, frame: u32| {
            !self.gone.contains(&pack.number)
                && !self.bad_frames.get(&pack.number).is_some_and(|frames| frames.contains(&frame))
        };
        if copies.iter().any(|(pack, place)| sound(pack, place.frame)) {
            return Ok(true);
        }
        if copies.is_empty() {
            self.needed(&format!("{kind:?} {id}").to_lowercase(), "no index entry names it", snapshot, path);
        }
        for (pack, _) in &copies {
            let object = self.repo.names().pack(&pack.name);
            self.needed(&object, "damaged or missing", snapshot, path);
        }
        Ok(false)
    }
}

fn is_known_whole(content: &Content, whole: &HashSet<BlobId>) -> bool {
    content.extents.iter().all(|e| e.id.is_some_and(|id| whole.contains(&id)))
}

fn name_of(node: &Node) -> &std::ffi::OsStr {
    use std::os::unix::ffi::OsStrExt as _;
    std::ffi::OsStr::from_bytes(&node.name)
}

/// The object that an error is about, and what is wrong with it.
fn object_of(e: &Error) -> (String, String) {
    match e {
        Error::Damaged { object, why } => (object.clone(), why.clone()),
        Error::Missing { object } => (object.clone(), "it is missing".into()),
        Error::Store(e) => (e.object.clone(), e.why.clone()),
        other => ("the repository".into(), other.to_string()),
    }
}

struct Level<'r> {
    entries: Folder<'r>,
    content: Content,
    path: PathBuf,
    sound: bool,
}

impl<'r> Level<'r> {
    fn new(repo: &'r Repository, content: &Content, path: PathBuf) -> Self {
        Self { entries: Folder::new(repo, content), content: content.clone(), path, sound: true }
    }
}

/// What reading one pack found.
struct PackResult<'k> {
    name: PackName,
    bytes: u64,
    blobs: u64,
    /// What is wrong, and the entries that it is about.
    problems: Vec<(String, &'k [KnownPack])>,
    bad_frames: Vec<(EntryNumber, HashSet<u32>)>,
}

fn read_packs<'k>(
    repo: &Repository,
    monitor: &dyn Monitor,
    packs: &Receiver<&'k [KnownPack]>,
    found: &Mutex<Vec<PackResult<'k>>>,
) -> Result<()> {
    let mut decompressor = Decompressor::new()?;
    for entries in packs {
        let Some(pack) = entries.first() else { continue };
        let result = read_pack(repo, pack, entries, &mut decompressor)?;
        monitor.event(Event::Bytes(pack.size));
        found.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(result);
    }
    Ok(())
}

/// Reads a pack once, and holds every entry that names it against what it holds.
fn read_pack<'k>(
    repo: &Repository,
    pack: &KnownPack,
    entries: &'k [KnownPack],
    decompressor: &mut Decompressor,
) -> Result<PackResult<'k>> {
    let gone = || Error::Busy { what: "the index on this machine".into() };
    let mut maps = Vec::with_capacity(entries.len());
    for entry in entries {
        maps.push(repo.index().pack(entry.number)?.ok_or_else(gone)?);
    }
    let mut result =
        PackResult { name: pack.name, bytes: pack.size, blobs: 0, problems: Vec::new(), bad_frames: Vec::new() };
    let all_bad = |result: &mut PackResult<'k>| {
        result.bad_frames.extend(maps.iter().map(|map| (map.number, (0..map.frames().len() as u32).collect())));
    };
    let bytes = match repo.store().read(&repo.names().pack(&pack.name), limits::PACK_MAX) {
        Ok(bytes) => bytes,
        Err(e) => {
            let e = Error::from(e);
            if !e.is_damage() {
                return Err(e);
            }
            result.problems.push((e.to_string(), entries));
            all_bad(&mut result);
            return Ok(result);
        }
    };
    if let Err(e) = header::opened(&bytes) {
        result.problems.push((e.to_string(), entries));
    }
    let Ok(private) = repo.private_key() else {
        if !result.problems.is_empty() {
            all_bad(&mut result);
        }
        return Ok(result);
    };
    // A pack whose hash is wrong may still have sound frames: each is tried by itself.
    let key = match WholePack::open(&repo.realm(), private, &pack.name, &bytes) {
        Ok(whole) => whole.key,
        Err(e) => {
            if result.problems.is_empty() {
                result.problems.push((object_of(&e).1, entries));
            }
            match PackKey::open(&repo.realm(), private, &pack.name, &bytes) {
                Ok(key) => key,
                Err(_) => {
                    all_bad(&mut result);
                    return Ok(result);
                }
            }
        }
    };
    for (map, entry) in maps.iter().zip(entries) {
        let (problems, bad) = check_frames(repo, map, &key, &bytes, decompressor, &mut result.blobs);
        result.problems.extend(problems.into_iter().map(|why| (why, std::slice::from_ref(entry))));
        if !bad.is_empty() {
            result.bad_frames.push((map.number, bad));
        }
    }
    Ok(result)
}

fn check_frames(
    repo: &Repository,
    map: &PackMap,
    key: &PackKey,
    bytes: &[u8],
    decompressor: &mut Decompressor,
    hashed: &mut u64,
) -> (Vec<String>, HashSet<u32>) {
    let (mut problems, mut bad) = (Vec::new(), HashSet::new());
    let mut of_frame: Vec<Vec<(u32, u32, BlobId)>> = vec![Vec::new(); map.frames().len()];
    for (id, place) in map.places() {
        if let Some(blobs) = of_frame.get_mut(place.frame as usize) {
            blobs.push((place.at, place.len, *id));
        }
    }
    for (number, ((at, frame), blobs)) in map.frames().iter().zip(of_frame).enumerate() {
        let at = usize::try_from(*at).unwrap_or(usize::MAX);
        let sealed = at.checked_add(frame.stored as usize).and_then(|end| bytes.get(at..end));
        let mut sealed = sealed.unwrap_or_default().to_vec();
        let problem = match key.frame(number as u64, frame, &mut sealed, decompressor) {
            Err(e) => Some(e.to_string()),
            Ok(plain) => blobs.iter().find_map(|(at, len, id)| {
                *hashed += 1;
                let blob = plain.get(*at as usize..(*at + *len) as usize).unwrap_or_default();
                (repo.id_keys().blob_id(frame.kind, blob) != *id)
                    .then(|| format!("what lies for blob {id} is something else"))
            }),
        };
        if let Some(why) = problem {
            problems.push(format!("frame {number}: {why}"));
            bad.insert(number as u32);
        }
    }
    (problems, bad)
}
