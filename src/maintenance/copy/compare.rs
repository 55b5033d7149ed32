//! Holding two places against each other. Two of one repository by their objects, without any key: which each
//! lacks, and which are not the same, by names and sizes or by every byte. Two repositories by the snapshots
//! that were copied from one to the other. Writes nothing.

use super::raw::{Count, is_mirrored, plural};
use crate::error::{Error, Result};
use crate::format::manifest::Origin;
use crate::format::names::{Kind, TENANTS, kind_of};
use crate::limits;
use crate::maintenance::cores;
use crate::maintenance::store_only::{is_listed, max_of};
use crate::monitor::{Event, Monitor};
use crate::repo::{self, Repository};
use crate::snapshot::{self, Snapshot};
use crate::store::{Listed, Store};
use std::collections::{BTreeMap, HashSet};

/// What one place has, and the other has not, or otherwise.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Lacking {
    /// What both have.
    pub both: Count,
    /// Only here.
    pub here: Count,
    /// Only there.
    pub there: Count,
    /// Of another size, or with other bytes.
    pub differing: Count,
}

/// Two places, held against each other.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Compared {
    /// By kind.
    pub kinds: BTreeMap<&'static str, Lacking>,
    /// The first `limits::REPORT_MAX` names that only one has, or that differ: what is wrong, and the name.
    pub names: Vec<(&'static str, String)>,
    /// Objects that could not be read, of the same: and why.
    pub unread: Vec<(String, String)>,
    /// True if bytes were compared.
    pub read_data: bool,
}

impl Compared {
    /// True if both have the same.
    pub fn is_same(&self) -> bool {
        let same = |l: &Lacking| l.here.objects + l.there.objects + l.differing.objects == 0;
        self.unread.is_empty() && self.kinds.values().all(same)
    }

    fn note(&mut self, what: &'static str, name: &str) {
        if self.names.len() < limits::REPORT_MAX {
            self.names.push((what, name.into()));
        }
    }
}

/// Two tenants, held against each other by the snapshots that they have: a copy is known by its origin.
#[derive(Debug, Default)]
pub struct Apart {
    /// Snapshots that both have.
    pub both: u64,
    /// Those that only the first has, oldest first.
    pub only_here: Vec<Snapshot>,
    /// Those that only the second has.
    pub only_there: Vec<Snapshot>,
    /// What could not be read at either.
    pub damaged: Vec<Error>,
}

impl Apart {
    /// True if both have the same snapshots, as far as they could be read.
    pub fn is_same(&self) -> bool {
        self.only_here.is_empty() && self.only_there.is_empty() && self.damaged.is_empty()
    }
}

/// Compares the snapshots of two tenants. That a copy is what it says only counts if the key in use there or a
/// full one signed it.
///
/// # Errors
/// [`Error::NotAllowed`] with a writer key, or the stores'.
pub fn compare_snapshots(here: &Repository, there: &Repository) -> Result<Apart> {
    let mut found = Apart::default();
    let mut listed = |repo: &Repository| -> Result<Vec<Snapshot>> {
        let listing = snapshot::list(repo)?;
        found.damaged.extend(listing.damaged.into_iter().map(|(_, e)| e));
        found.damaged.extend(listing.gone.iter().map(|gone| Error::damaged(&*gone.object, gone.why())));
        Ok(listing.snapshots)
    };
    let (ours, theirs) = (listed(here)?, listed(there)?);
    let origins = |repo: &Repository, snapshots: &[Snapshot]| -> HashSet<Origin> {
        let counts =
            |s: &&Snapshot| s.manifest.origin.is_none() || s.signer == repo.signer() || repo.is_full(&s.signer);
        snapshots.iter().filter(counts).map(|s| s.origin(repo.tenant())).collect()
    };
    let (in_ours, in_theirs) = (origins(here, &ours), origins(there, &theirs));
    let (both, only_here) = ours.into_iter().partition::<Vec<_>, _>(|s| in_theirs.contains(&s.origin(here.tenant())));
    found.both = both.len() as u64;
    found.only_here = only_here;
    found.only_there = theirs.into_iter().filter(|s| !in_ours.contains(&s.origin(there.tenant()))).collect();
    Ok(found)
}

/// The objects that belong in a mirror, by name.
fn objects(store: &dyn Store) -> Result<BTreeMap<String, (Kind, u64)>> {
    let listed = store.list(TENANTS)?.into_iter();
    let known = |object: Listed| {
        let kind = kind_of(&object.name).filter(|kind| is_mirrored(*kind))?;
        Some((object.name, (kind, object.size)))
    };
    Ok(listed.filter_map(known).collect())
}

/// Compares two places of one repository.
///
/// # Errors
/// [`Error::Invalid`] if they hold different repositories, [`Error::NoRepository`], [`Error::Interrupted`], or
/// the stores'.
pub fn compare_stores(
    here: &dyn Store,
    there: &dyn Store,
    read_data: bool,
    monitor: &dyn Monitor,
) -> Result<Compared> {
    if repo::repository_id(here)? != repo::repository_id(there)? {
        let why = format!("{} and {} hold different repositories", here.describe(), there.describe());
        return Err(Error::Invalid(why));
    }
    let mut found = Compared { read_data, ..Compared::default() };
    let ours = objects(here)?;
    let mut theirs = objects(there)?;
    let mut both = Vec::new();
    for (name, (kind, size)) in ours {
        let row = found.kinds.entry(plural(kind)).or_default();
        match theirs.remove(&name) {
            None => {
                row.here.add(size);
                found.note("only here", &name);
            }
            Some((_, other)) if other != size => {
                row.differing.add(size);
                found.note("of another size", &name);
            }
            Some(_) if read_data => both.push((name, kind, size)),
            Some(_) => row.both.add(size),
        }
    }
    for (name, (kind, size)) in theirs {
        found.kinds.entry(plural(kind)).or_default().there.add(size);
        found.note("only there", &name);
    }
    bytes(here, there, &both, &mut found, monitor)?;
    Ok(found)
}

/// Whether two objects are the same.
enum Look {
    Same,
    Other,
    /// One of them was deleted meanwhile.
    Gone,
    Unread(Error),
}

/// Compares what both have, byte by byte.
fn bytes(
    here: &dyn Store,
    there: &dyn Store,
    both: &[(String, Kind, u64)],
    found: &mut Compared,
    monitor: &dyn Monitor,
) -> Result<()> {
    let total = both.iter().map(|(_, _, size)| size).sum();
    monitor.event(Event::Phase { name: "comparing", total_bytes: Some(total) });
    let look = |(name, kind, size): &(String, Kind, u64)| -> Result<Look> {
        let mut read = Vec::with_capacity(2);
        for store in [here, there] {
            match store.read(name, max_of(*kind)).map_err(Error::from) {
                Ok(bytes) => read.push(bytes),
                Err(e) if e.is_not_found() && !is_listed(store, name)? => return Ok(Look::Gone),
                Err(e) if e.is_damage() || e.is_frozen() => return Ok(Look::Unread(e)),
                Err(e) => return Err(e),
            }
        }
        monitor.event(Event::Bytes(*size));
        Ok(if read[0] == read[1] { Look::Same } else { Look::Other })
    };
    let looked = cores::on_all(both, monitor, |object| Ok((object, look(object)?)))?;
    let mut looked: Vec<_> = looked.into_iter().collect();
    looked.sort_unstable_by(|((a, ..), _), ((b, ..), _)| a.cmp(b));
    for ((name, kind, size), look) in looked {
        let row = found.kinds.entry(plural(*kind)).or_default();
        match look {
            Look::Same => row.both.add(*size),
            Look::Other => {
                row.differing.add(*size);
                found.note("with other bytes", name);
            }
            Look::Gone => {}
            Look::Unread(e) if found.unread.len() < limits::REPORT_MAX => {
                found.unread.push((name.clone(), e.to_string()));
            }
            Look::Unread(_) => {}
        }
    }
    Ok(())
}
