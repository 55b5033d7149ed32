//! What can be told of a store without any key, of every tenant at once: that
//! objects are what they were when their closing hashes were made, that packs and
//! index objects have the names that follow from them, that what lies in a folder
//! is of the folder's kind, and that nothing lies there that is no object. That
//! finds rot, and what was lost in copying. It proves nothing against somebody who
//! wants to deceive: the hashes have no key. Writes nothing.

use super::cores;
use super::part::{Part, part_of};
use super::report::{Report, object_of};
use crate::error::{Error, Result};
use crate::format::header::{self, HASH_LEN, Header, ObjectType};
use crate::format::names::{Kind, TENANTS, TenantNames, kind_of, last_part};
use crate::id::{IndexName, PackName};
use crate::limits;
use crate::monitor::{Event, Monitor};
use crate::pack;
use crate::repo;
use crate::store::{Listed, Store};
use std::collections::BTreeMap;

/// What is wrong with an object; nothing if it is whole.
enum Found {
    Whole {
        bytes: u64,
    },
    Wrong {
        e: Error,
        is_mendable: bool,
    },
    /// It must be thawed before it can be read.
    Frozen {
        bytes: u64,
    },
    /// It was taken away since it was listed.
    Gone,
}

/// What is known of one tenant's folder.
#[derive(Default)]
struct Tenant {
    record: bool,
    /// Anything but slots: what comes after the record when a tenant is made.
    used: bool,
    /// The versions of its list of signers.
    signers: Vec<u64>,
}

/// Checks what lies in a store, without a key. Of packs a part by name may be chosen.
///
/// # Errors
/// [`Error::Invalid`] for a part that is chosen by what was read before, [`Error::NoRepository`],
/// [`Error::Newer`], [`Error::Interrupted`], or the store's. Damage is no error but in the report.
pub fn check_store(store: &dyn Store, part: Part, monitor: &dyn Monitor) -> Result<Report> {
    if matches!(part, Part::Share(_) | Part::Bytes(_)) {
        let why = "without a key nothing is remembered of earlier checks: name a part by numbers, such as 3/7";
        return Err(Error::Invalid(why.into()));
    }
    let mut report = Report::default();
    match repo::repository_id(store) {
        Err(e) if e.is_damage() && !matches!(e, Error::Newer { .. }) => note(&mut report, &e),
        other => drop(other?),
    }
    let listed = store.list(TENANTS)?;
    let (known, strays): (Vec<Listed>, Vec<Listed>) = listed.into_iter().partition(|o| kind_of(&o.name).is_some());
    report.objects = known.len() as u64;
    for stray in &strays {
        report.strayed(&stray.name, stray.size);
    }
    for e in incomplete(&known)? {
        note(&mut report, &e);
    }
    read(store, chosen(&mut report, known, part), &mut report, monitor)?;
    report.unchecked.push("what only a key can tell: signatures, index, snapshots, what is inside packs");
    Ok(report)
}

fn note(report: &mut Report, e: &Error) {
    let (object, why) = object_of(e);
    report.damaged(&object, &why);
}

/// Counts packs and snapshots, and leaves out the packs that are not to be read.
fn chosen(report: &mut Report, objects: Vec<Listed>, part: Part) -> Vec<Listed> {
    let is_chosen = |object: &Listed| match (part, last_part(&object.name).parse::<PackName>()) {
        (Part::Nth { nth, of }, Ok(name)) => part_of(&name, of) + 1 == nth,
        _ => true,
    };
    let mut chosen = Vec::with_capacity(objects.len());
    for object in objects {
        match kind_of(&object.name) {
            Some(Kind::Snapshot) => report.snapshots += 1,
            Some(Kind::Pack) => {
                report.packs += 1;
                report.pack_bytes += object.size;
                if !is_chosen(&object) {
                    continue;
                }
            }
            _ => {}
        }
        chosen.push(object);
    }
    chosen
}

/// Reads objects, on every core.
fn read(store: &dyn Store, objects: Vec<Listed>, report: &mut Report, monitor: &dyn Monitor) -> Result<()> {
    let total = objects.iter().map(|object| object.size).sum();
    monitor.event(Event::Phase { name: "objects", total_bytes: Some(total) });
    let mut found = cores::on_all(&objects, monitor, |object| {
        let found = look(store, object)?;
        monitor.event(Event::Bytes(object.size));
        Ok((&object.name, found))
    })?;
    found.sort_unstable_by_key(|(name, _)| *name);
    for (name, found) in found {
        let is_pack = kind_of(name) == Some(Kind::Pack);
        match found {
            Found::Whole { bytes } if is_pack => {
                report.read_packs += 1;
                report.read_bytes += bytes;
            }
            Found::Whole { .. } | Found::Gone => {}
            Found::Wrong { e, is_mendable } => {
                report.read_packs += u64::from(is_pack);
                if let Some(damage) = report.damaged(name, &object_of(&e).1) {
                    damage.mendable = is_mendable;
                }
            }
            Found::Frozen { bytes } => report.froze(name.clone(), bytes),
        }
    }
    Ok(())
}

/// What is missing of tenants, as far as names tell: their records, and versions of their lists of signers,
/// of which every one stays.
fn incomplete(objects: &[Listed]) -> Result<Vec<Error>> {
    let mut tenants: BTreeMap<&str, Tenant> = BTreeMap::new();
    for object in objects {
        let Some(name) = object.name.split('/').nth(1) else { continue };
        let tenant = tenants.entry(name).or_default();
        let version = TenantNames::new(name)?.signers_version(&object.name);
        match (kind_of(&object.name), version) {
            (Some(Kind::Tenant), _) => tenant.record = true,
            (Some(Kind::Key), None) => {}
            (Some(Kind::Key), Some(version)) => {
                tenant.used = true;
                tenant.signers.push(version);
            }
            _ => tenant.used = true,
        }
    }
    let mut missing = Vec::new();
    for (name, mut tenant) in tenants {
        let names = TenantNames::new(name)?;
        if !tenant.record && tenant.used {
            missing.push(Error::Missing { object: names.tenant() });
        }
        tenant.signers.sort_unstable();
        let newest = tenant.signers.last().copied().unwrap_or(u64::from(tenant.used));
        // Whoever wrote a number beyond all measure has at most so many told of him.
        let versions = (1..=newest).filter(|version| tenant.signers.binary_search(version).is_err());
        let versions = versions.take(limits::REPORT_MAX);
        missing.extend(versions.map(|version| Error::Missing { object: names.signers(version) }));
    }
    Ok(missing)
}

/// Reads one object.
fn look(store: &dyn Store, object: &Listed) -> Result<Found> {
    let name = &object.name;
    let Some(kind) = kind_of(name) else { return Ok(Found::Gone) };
    match store.read(name, max_of(kind)).map_err(Error::from) {
        Ok(bytes) => Ok(match whole(name, kind, &bytes) {
            Ok(()) => Found::Whole { bytes: bytes.len() as u64 },
            Err(e) if e.is_damage() => Found::Wrong { e, is_mendable: is_mendable(name, kind, &bytes) },
            Err(e) => return Err(e),
        }),
        Err(e) if e.is_frozen() => Ok(Found::Frozen { bytes: object.size }),
        // One that is listed still, and cannot be read, is damaged; others come and go while this runs.
        Err(e) if e.is_not_found() && !is_listed(store, name)? => Ok(Found::Gone),
        Err(e) if e.is_damage() => Ok(Found::Wrong { e, is_mendable: false }),
        Err(e) => Err(e),
    }
}

/// True for a damaged pack that its parity mends, for which nobody needs a key.
fn is_mendable(name: &str, kind: Kind, bytes: &[u8]) -> bool {
    let pack = last_part(name).parse::<PackName>().ok().filter(|_| kind == Kind::Pack);
    pack.is_some_and(|pack| pack::mend(&pack, &[bytes]).is_ok())
}

pub(super) fn is_listed(store: &dyn Store, name: &str) -> Result<bool> {
    let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
    Ok(store.list(folder)?.iter().any(|object| object.name == name))
}

pub(super) fn max_of(kind: Kind) -> u64 {
    match kind {
        Kind::Repo => limits::REPO_OBJECT_MAX,
        Kind::Tenant | Kind::Session | Kind::Hold => limits::RECORD_MAX,
        Kind::Key | Kind::Plan | Kind::Damage | Kind::Forgotten => limits::LIST_RECORD_MAX,
        Kind::Pack => limits::PACK_MAX,
        Kind::Index => limits::INDEX_OBJECT_MAX,
        Kind::Snapshot => limits::MANIFEST_MAX,
    }
}

/// True if an object of that type may lie under a name of that kind.
fn belongs(kind: Kind, name: &str, object: ObjectType) -> bool {
    match kind {
        Kind::Repo => false,
        Kind::Tenant => object == ObjectType::Tenant,
        Kind::Key if last_part(name).starts_with("signers.") => object == ObjectType::Signers,
        Kind::Key => object == ObjectType::Slot,
        Kind::Pack => object == ObjectType::Pack,
        Kind::Index => object == ObjectType::Index,
        Kind::Snapshot => matches!(object, ObjectType::Snapshot | ObjectType::Tombstone),
        Kind::Session => object == ObjectType::Session,
        Kind::Plan => object == ObjectType::Plan,
        Kind::Damage => object == ObjectType::Damage,
        Kind::Forgotten => object == ObjectType::Forgotten,
        Kind::Hold => object == ObjectType::Hold,
    }
}

/// That an object's hash is right, its type that of its folder, and its name its own where that follows
/// from its bytes.
pub(super) fn whole(name: &str, kind: Kind, bytes: &[u8]) -> Result<()> {
    let object = Header::of_whole(bytes, name)?.object;
    header::opened(bytes).map_err(|e| e.of(name))?;
    if !belongs(kind, name, object) {
        return Err(Error::damaged(name, "it is an object of another kind"));
    }
    let named = match kind {
        Kind::Pack => last_part(name).parse::<PackName>().ok().map(|pack| pack.0),
        Kind::Index => last_part(name).parse::<IndexName>().ok().map(|index| index.0),
        _ => return Ok(()),
    };
    if named == bytes.last_chunk::<HASH_LEN>().copied() {
        Ok(())
    } else {
        Err(Error::damaged(name, "it is another object, under this one's name"))
    }
}
