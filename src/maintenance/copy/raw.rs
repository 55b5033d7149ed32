//! Mirroring a repository's objects as they lie, without any key.
//!
//! What belongs in a mirror: each tenant's record, slots and lists of signers, holds, records of what was
//! forgotten, packs, index objects, snapshots and tombstones. What does not: sessions, plans and records of
//! damage are words between those who work at one place. A plan that was brought along would condemn at the
//! mirror what only the source has written anew, and a record of damage names packs that are whole here.
//!
//! Of each tenant, in a pass:
//!
//! 1. What the mirror has is listed, then what the source has: snapshots first, then all else, packs last. So
//!    what a listed snapshot needs is listed, unless a prune took it meanwhile, and what only the mirror has
//!    was deleted at the source.
//! 2. Slots, lists of signers and then the tenant's record are copied, holds, records of what was forgotten,
//!    packs; after all packs the index, after all of that snapshots. At every moment the mirror is what a
//!    backup leaves that was killed.
//! 3. Where something was gone that was listed, all is listed again: a prune deletes index objects before
//!    packs, so no index object is copied that names what was never there.
//! 4. If that was asked for, what the source has no more is deleted in the reverse order.
//!
//! Whatever the source says, nothing at the mirror is replaced by it or deleted for it unless that was asked
//! for: whoever erases the source does not erase the mirror. Only what is not whole there is mended.

use crate::error::{Error, Result, StoreFault};
use crate::format::header::{Header, ObjectType};
use crate::format::names::{Kind, TENANTS, TenantNames, kind_of, last_part};
use crate::limits;
use crate::maintenance::cores;
use crate::maintenance::store_only::{is_listed, max_of, whole};
use crate::monitor::{Event, Monitor};
use crate::repo::{self, MirrorPlace};
use crate::store::{Listed, Store};
use bytes::Bytes;
use std::collections::{BTreeMap, HashSet};

/// How often a tenant is listed in which a prune works.
const LOOKS: usize = 5;

/// How a repository is mirrored.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// These tenants; all, if none is named.
    pub tenants: Vec<String>,
    /// Delete at the mirror what the source has no more, and replace what it has otherwise.
    pub delete: bool,
    /// Compare what is there byte by byte, and not by its size.
    pub verify: bool,
    /// Only look.
    pub dry_run: bool,
}

/// Objects and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Count {
    /// How many.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Count {
    pub(super) fn add(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes += bytes;
    }
}

/// What a run has done, or would do. Lists of names end after `limits::REPORT_MAX`.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Mirrored {
    /// Copied, by kind.
    pub copied: BTreeMap<&'static str, Count>,
    /// Objects that were not whole at the mirror, and are now.
    pub mended: Count,
    /// What the mirror had already.
    pub present: Count,
    /// What was deleted at the mirror.
    pub deleted: Count,
    /// What the mirror has, and the source has no more.
    pub kept: Count,
    /// Objects that are whole at both places, and not the same.
    pub differing: Vec<String>,
    /// Objects that could not be copied since they are damaged or lost at the source, and why.
    pub damaged: Vec<(String, String)>,
    /// Packs that must be thawed at the source first; without them nothing that may need them is copied.
    pub frozen: Count,
    /// Objects under names that nobody gave.
    pub strays: u64,
    /// Why what the source has no more was not deleted, or a tenant not finished.
    pub withheld: Vec<String>,
}

impl Mirrored {
    /// True if the mirror has all that the source has.
    pub fn is_whole(&self) -> bool {
        self.damaged.is_empty() && self.differing.is_empty() && self.frozen.objects == 0
    }

    fn differs(&mut self, name: &str) {
        if self.differing.len() < limits::REPORT_MAX {
            self.differing.push(name.into());
        }
    }

    fn damage(&mut self, name: &str, e: &Error) {
        if self.damaged.len() < limits::REPORT_MAX {
            self.damaged.push((name.into(), e.to_string()));
        }
    }
}

/// True for what belongs in a mirror.
pub(super) fn is_mirrored(kind: Kind) -> bool {
    match kind {
        Kind::Tenant | Kind::Key | Kind::Pack | Kind::Index | Kind::Snapshot | Kind::Forgotten | Kind::Hold => true,
        Kind::Repo | Kind::Session | Kind::Plan | Kind::Damage => false,
    }
}

/// A kind, for people.
pub(super) fn plural(kind: Kind) -> &'static str {
    match kind {
        Kind::Tenant => "tenants",
        Kind::Key => "keys",
        Kind::Pack => "packs",
        Kind::Index => "index objects",
        Kind::Snapshot => "snapshots",
        Kind::Forgotten => "records of what was forgotten",
        Kind::Hold => "holds",
        Kind::Repo | Kind::Session | Kind::Plan | Kind::Damage => "others",
    }
}

/// Mirrors the repository at `source` to `target`.
///
/// # Errors
/// [`Error::NoRepository`], [`Error::NoTenant`], [`Error::Exists`] if another repository lies at the target,
/// [`Error::Invalid`] if both are one place, [`Error::Busy`] if the source does not hold still,
/// [`Error::Interrupted`], or the stores'. What is damaged at the source is no error but in the report.
pub fn mirror(source: &dyn Store, target: &dyn Store, options: &Options, monitor: &dyn Monitor) -> Result<Mirrored> {
    let place = repo::mirror_place(source, target)?;
    let tenants = repo::tenants(source)?;
    if let Some(unknown) = options.tenants.iter().find(|name| !tenants.contains(name)) {
        return Err(Error::NoTenant { name: unknown.clone() });
    }
    if place == MirrorPlace::Empty && !options.dry_run {
        repo::begin_mirror(source, target)?;
    }
    let mut run = Run { source, target, options, monitor, done: Mirrored::default() };
    for tenant in tenants {
        if options.tenants.is_empty() || options.tenants.contains(&tenant) {
            run.tenant(&TenantNames::new(&tenant)?)?;
        }
    }
    if options.tenants.is_empty() && place == MirrorPlace::Known {
        run.left_tenants()?;
    }
    Ok(run.done)
}

struct Run<'r> {
    source: &'r dyn Store,
    target: &'r dyn Store,
    options: &'r Options,
    monitor: &'r dyn Monitor,
    done: Mirrored,
}

/// What came of an object.
enum Fate {
    Copied,
    Mended,
    Present,
    /// Both are whole, and not the same.
    Differs,
    /// It was forgotten at the source, and stands at the mirror.
    Stands,
    Damaged(Error),
    Frozen,
    /// It was deleted at the source since it was listed.
    Gone,
}

/// What came of all objects of a kind.
#[derive(PartialEq, Eq)]
enum Brought {
    All,
    /// Something was gone that had been listed.
    Moved,
    /// Something must be thawed first.
    Frozen,
}

/// One tenant's objects at one place, by kind.
#[derive(Default)]
struct Place(BTreeMap<&'static str, Vec<Listed>>);

impl Place {
    fn of(&self, kind: Kind) -> &[Listed] {
        self.0.get(plural(kind)).map(Vec::as_slice).unwrap_or_default()
    }

    fn has(&self, kind: Kind, name: &str) -> bool {
        self.size(kind, name).is_some()
    }

    /// Listings are sorted by name.
    fn size(&self, kind: Kind, name: &str) -> Option<u64> {
        let objects = self.of(kind);
        objects.binary_search_by(|object| (*object.name).cmp(name)).ok().map(|at| objects[at].size)
    }

    /// Lists a tenant: what rests on others first.
    fn list(store: &dyn Store, names: &TenantNames, strays: &mut u64) -> Result<Self> {
        let mut found = Self::default();
        let folders = [
            (Kind::Snapshot, names.snapshots()),
            (Kind::Hold, names.holds()),
            (Kind::Forgotten, names.forgotten_records()),
            (Kind::Key, names.keys()),
            (Kind::Index, names.indexes()),
            (Kind::Pack, names.packs()),
        ];
        for (kind, folder) in folders {
            let (objects, others): (Vec<_>, Vec<_>) =
                store.list(&folder)?.into_iter().partition(|object| kind_of(&object.name) == Some(kind));
            *strays += others.len() as u64;
            found.0.insert(plural(kind), objects);
        }
        let name = names.tenant();
        match store.size(&name) {
            Ok(size) => {
                let record = Listed { name, size, modified: Default::default() };
                found.0.insert(plural(Kind::Tenant), vec![record]);
            }
            Err(e) if e.fault == StoreFault::NotFound => {}
            Err(e) => return Err(e.into()),
        }
        Ok(found)
    }
}

/// In the order of a tenant's making and of a backup. Signers come behind slots, by their names.
const ORDER: [Kind; 7] =
    [Kind::Key, Kind::Tenant, Kind::Hold, Kind::Forgotten, Kind::Pack, Kind::Index, Kind::Snapshot];

impl Run<'_> {
    fn tenant(&mut self, names: &TenantNames) -> Result<()> {
        for _ in 0..LOOKS {
            let there = Place::list(self.target, names, &mut 0)?;
            let mut strays = 0;
            let here = Place::list(self.source, names, &mut strays)?;
            match self.pass(&here, &there)? {
                Brought::Moved => continue,
                Brought::Frozen => {
                    let why =
                        format!("{}: packs must be thawed first; index and snapshots wait for them", names.name());
                    self.done.withheld.push(why);
                }
                Brought::All => {
                    self.done.strays += strays;
                    self.left(names, &here, &there)?;
                }
            }
            return Ok(());
        }
        Err(Error::Busy { what: format!("{} at {}", names.packs(), self.source.describe()) })
    }

    /// Copies what the mirror lacks.
    fn pass(&mut self, here: &Place, there: &Place) -> Result<Brought> {
        for kind in ORDER {
            let brought = self.kind(kind, here.of(kind), there)?;
            if brought != Brought::All {
                return Ok(brought);
            }
        }
        Ok(Brought::All)
    }

    /// Copies objects of one kind.
    fn kind(&mut self, kind: Kind, objects: &[Listed], there: &Place) -> Result<Brought> {
        // Slots and records may be made anew under their names.
        let is_looked_at = self.options.verify || matches!(kind, Kind::Key | Kind::Tenant);
        let (todo, present): (Vec<&Listed>, Vec<&Listed>) =
            objects.iter().partition(|object| is_looked_at || there.size(kind, &object.name) != Some(object.size));
        present.iter().for_each(|object| self.done.present.add(object.size));
        let bytes = todo.iter().map(|object| object.size).sum();
        self.monitor.event(Event::Phase { name: plural(kind), total_bytes: Some(bytes) });
        if self.options.dry_run {
            for object in todo {
                self.would_copy(kind, object, there);
            }
            return Ok(Brought::All);
        }
        let mut brought = Brought::All;
        for (object, fate) in self.transfer_all(kind, &todo, there)? {
            match fate {
                Fate::Copied => self.done.copied.entry(plural(kind)).or_default().add(object.size),
                Fate::Mended => self.done.mended.add(object.size),
                Fate::Present => self.done.present.add(object.size),
                Fate::Stands => self.done.kept.add(object.size),
                Fate::Differs => self.done.differs(&object.name),
                Fate::Damaged(e) => self.done.damage(&object.name, &e),
                Fate::Frozen => {
                    self.done.frozen.add(object.size);
                    brought = Brought::Frozen;
                }
                Fate::Gone if brought == Brought::All => brought = Brought::Moved,
                Fate::Gone => {}
            }
        }
        Ok(brought)
    }

    fn would_copy(&mut self, kind: Kind, object: &Listed, there: &Place) {
        match there.size(kind, &object.name) {
            Some(size) if size == object.size => self.done.present.add(object.size),
            Some(_) => self.done.mended.add(object.size),
            None => self.done.copied.entry(plural(kind)).or_default().add(object.size),
        }
    }

    /// Several at a time: what is on its way is bounded by the threads, each of which holds one object. Of
    /// lists of signers one follows the other: none may be there without those before.
    fn transfer_all<'o>(&self, kind: Kind, todo: &[&'o Listed], there: &Place) -> Result<Vec<(&'o Listed, Fate)>> {
        let one = |object: &&'o Listed| -> Result<(&'o Listed, Fate)> {
            let fate = self.transfer(kind, object, there.has(kind, &object.name))?;
            self.monitor.event(Event::Bytes(object.size));
            Ok((*object, fate))
        };
        if kind == Kind::Key {
            return todo.iter().map(one).collect();
        }
        let far = [self.source, self.target].into_iter().find(|store| store.is_far());
        let Some(far) = far else { return cores::on_all(todo, self.monitor, one) };
        let mut found = Vec::with_capacity(todo.len());
        repo::ask(far, todo, one, |_, answer| {
            if self.monitor.cancelled() {
                return Err(Error::Interrupted);
            }
            found.push(answer?);
            Ok(())
        })?;
        Ok(found)
    }

    fn transfer(&self, kind: Kind, object: &Listed, is_there: bool) -> Result<Fate> {
        if self.monitor.cancelled() {
            return Err(Error::Interrupted);
        }
        let name = &object.name;
        let bytes = match self.source.read(name, max_of(kind)).map_err(Error::from) {
            Ok(bytes) => bytes,
            Err(e) if e.is_frozen() => return Ok(Fate::Frozen),
            Err(e) if e.is_not_found() && !is_listed(self.source, name)? => return Ok(Fate::Gone),
            Err(e) if e.is_damage() => return Ok(Fate::Damaged(e)),
            Err(e) => return Err(e),
        };
        match whole(name, kind, &bytes) {
            // A newer program's objects are whole too, if their hashes are right; it mirrors them.
            Err(e @ Error::Newer { .. }) => return Err(e),
            Err(e) => return Ok(Fate::Damaged(e)),
            Ok(()) => {}
        }
        if is_there {
            return self.replace(kind, name, &bytes);
        }
        match repo::put_once(self.target, name, &bytes) {
            Ok(()) => Ok(Fate::Copied),
            Err(Error::Exists { .. }) => self.replace(kind, name, &bytes),
            Err(e) => Err(e),
        }
    }

    /// What is there otherwise is replaced if it is not whole, or if that was asked for.
    fn replace(&self, kind: Kind, name: &str, bytes: &Bytes) -> Result<Fate> {
        let is_whole = match self.target.read(name, max_of(kind)).map_err(Error::from) {
            Ok(there) if there == *bytes => return Ok(Fate::Present),
            Ok(there) => whole(name, kind, &there).is_ok(),
            // What is frozen there was whole when it was put there, and has the size.
            Err(e) if e.is_frozen() => return Ok(Fate::Present),
            Err(e) if e.is_damage() => false,
            Err(e) => return Err(e),
        };
        // A list of signers that both have otherwise is no list of one tenant: nobody can tell which is right.
        // And a snapshot that was forgotten does not come back.
        let is_buried = |bytes: &[u8]| Header::decode(bytes, name).is_ok_and(|h| h.object == ObjectType::Tombstone);
        let may_differ = match kind {
            Kind::Key => !last_part(name).starts_with("signers."),
            Kind::Snapshot => is_buried(bytes),
            _ => true,
        };
        if is_whole && !(self.options.delete && may_differ) {
            return Ok(if kind == Kind::Snapshot && is_buried(bytes) { Fate::Stands } else { Fate::Differs });
        }
        self.target.write(name, bytes.clone())?;
        Ok(Fate::Mended)
    }

    /// What only the mirror has: deleted, or counted.
    fn left(&mut self, names: &TenantNames, here: &Place, there: &Place) -> Result<()> {
        let only_there = |kind: Kind| -> Vec<Listed> {
            there.of(kind).iter().filter(|object| !here.has(kind, &object.name)).cloned().collect()
        };
        let mut left: BTreeMap<&str, Vec<Listed>> = ORDER.map(|kind| (plural(kind), only_there(kind))).into();
        // Every version of the list of signers stays.
        left.entry(plural(Kind::Key)).or_default().retain(|object| !last_part(&object.name).starts_with("signers."));
        if left.values().all(Vec::is_empty) {
            return Ok(());
        }
        if self.options.delete
            && let Some(why) = self.refuses_deletes(names, here, there)?
        {
            self.done.withheld.push(why);
            left.values().flatten().for_each(|object| self.done.kept.add(object.size));
            return Ok(());
        }
        let held: HashSet<&str> = there.of(Kind::Hold).iter().map(|hold| last_part(&hold.name)).collect();
        let mut is_kept = !self.options.delete;
        for kind in [Kind::Snapshot, Kind::Hold, Kind::Forgotten, Kind::Index, Kind::Pack, Kind::Key] {
            let mut gone = left.remove(plural(kind)).unwrap_or_default();
            if kind == Kind::Snapshot && self.options.delete {
                let (stay, go): (Vec<_>, Vec<_>) = gone.into_iter().partition(|s| held.contains(last_part(&s.name)));
                for object in &stay {
                    self.done.kept.add(object.size);
                    self.done
                        .withheld
                        .push(format!("{} is under hold at the mirror; what it needs stays too", object.name));
                }
                is_kept |= !stay.is_empty();
                gone = go;
            }
            if kind == Kind::Hold {
                // One whose snapshot stands at the source was ended; one whose snapshot is gone still holds it here.
                gone.retain(|hold| {
                    here.of(Kind::Snapshot).iter().any(|s| last_part(&s.name) == last_part(&hold.name))
                });
            }
            let is_needed = is_kept && matches!(kind, Kind::Index | Kind::Pack | Kind::Forgotten);
            if is_needed || !self.options.delete {
                gone.iter().for_each(|object| self.done.kept.add(object.size));
                continue;
            }
            self.delete(&gone)?;
        }
        Ok(())
    }

    /// Why nothing of a tenant is deleted at the mirror, if there is a reason.
    fn refuses_deletes(&self, names: &TenantNames, here: &Place, there: &Place) -> Result<Option<String>> {
        for kind in [Kind::Snapshot, Kind::Index, Kind::Pack, Kind::Key] {
            if here.of(kind).is_empty() && !there.of(kind).is_empty() {
                let (name, what, many) = (names.name(), plural(kind), there.of(kind).len());
                return Ok(Some(format!(
                    "{name}: the source lists no {what}, the mirror {many}: nothing is deleted"
                )));
            }
        }
        if self.done.damaged.iter().any(|(name, _)| name.starts_with(&names.packs())) {
            let name = names.name();
            return Ok(Some(format!("{name}: packs are damaged at the source: nothing is deleted at the mirror")));
        }
        let running = self.target.list(&names.sessions())?;
        Ok(running
            .first()
            .map(|session| format!("{}: a backup runs at the mirror: nothing is deleted", session.name)))
    }

    fn delete(&mut self, objects: &[Listed]) -> Result<()> {
        if self.options.dry_run {
            objects.iter().for_each(|object| self.done.deleted.add(object.size));
            return Ok(());
        }
        let named: Vec<(String, u64)> = objects.iter().map(|object| (object.name.clone(), object.size)).collect();
        let retained = repo::delete_all(self.target, &named, self.monitor)?;
        // What is locked goes with a later run.
        let is_locked: HashSet<&str> = retained.iter().map(|object| &*object.name).collect();
        for (name, bytes) in &named {
            let count = if is_locked.contains(&**name) { &mut self.done.kept } else { &mut self.done.deleted };
            count.add(*bytes);
        }
        Ok(())
    }

    /// Tenants that only the mirror has: nobody but who erases them there takes them away.
    fn left_tenants(&mut self) -> Result<()> {
        let here: HashSet<String> = repo::tenants(self.source)?.into_iter().collect();
        for object in self.target.list(TENANTS)? {
            let tenant = object.name.split('/').nth(1).unwrap_or_default();
            if !here.contains(tenant) {
                self.done.kept.add(object.size);
            }
        }
        Ok(())
    }
}
