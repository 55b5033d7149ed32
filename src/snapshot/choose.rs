//! Which snapshots there are, and which one a person means.

use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::format::manifest::{Manifest, Origin};
use crate::format::names::last_part;
use crate::id::{SignerId, SnapshotId, TenantId};
use crate::limits;
use crate::repo::{self, Gone, Repository, SnapshotObject};
use std::collections::{HashMap, HashSet};

/// Digits that name a snapshot at the least.
const PREFIX_MIN: usize = 4;
/// Snapshots that are named where a beginning of an id fits several.
const CANDIDATES_MAX: usize = 8;

/// A snapshot that was read.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Its id.
    pub id: SnapshotId,
    /// What it says.
    pub manifest: Manifest,
    /// Who signed it.
    pub signer: SignerId,
    /// Whose it counts as: of a repaired one the signer of the snapshot that it repairs.
    pub owner: SignerId,
    /// When the store took it, by the store's clock.
    pub taken: Timestamp,
}

impl Snapshot {
    /// True if it claims a moment that had not come when the store took it: a clock was wrong, or
    /// its writer wants it to be the latest.
    pub fn is_postdated(&self) -> bool {
        let ahead = self.manifest.time.seconds.saturating_sub(self.taken.seconds);
        ahead > limits::CLAIM_AHEAD_SECONDS
    }

    /// True if it claims a moment long before the store took it: it was imported, or the repository was moved,
    /// or its writer wants it to stand where an earlier one does.
    pub fn is_backdated(&self) -> bool {
        let behind = self.taken.seconds.saturating_sub(self.manifest.time.seconds);
        behind > limits::CLAIM_BEHIND_SECONDS
    }

    /// What it is a copy of, or itself, in the tenant that holds it.
    pub fn origin(&self, tenant: TenantId) -> Origin {
        self.manifest.origin.unwrap_or(Origin { snapshot: self.id, tenant })
    }

    /// The moment by which it is sorted and chosen: the one that it claims, but none that had not
    /// come when the store took it.
    pub fn moment(&self) -> Timestamp {
        if self.is_postdated() { self.taken } else { self.manifest.time }
    }
}

/// All snapshots of a tenant, oldest first, and what could not be read.
#[derive(Debug, Default)]
pub struct Listing {
    /// Those that could be read.
    pub snapshots: Vec<Snapshot>,
    /// Those that could not.
    pub damaged: Vec<(SnapshotId, Error)>,
    /// Those that were there and are not any more, and that no full key forgot.
    pub gone: Vec<Gone>,
    /// Names at which tombstones stand.
    pub buried: HashSet<SnapshotId>,
}

/// Reads every snapshot, and finds out which are gone.
///
/// # Errors
/// [`Error::NotAllowed`] with a writer key, or the store's. A snapshot that is damaged is no error here.
pub fn list(repo: &Repository) -> Result<Listing> {
    list_but(repo, &HashSet::new())
}

/// The same of all but those that are known: these are not read, and not told.
///
/// # Errors
/// See [`list`].
pub fn list_but(repo: &Repository, known: &HashSet<SnapshotId>) -> Result<Listing> {
    repo.private_key()?;
    let mut listing = Listing::default();
    let objects = repo.store().list(&repo.names().snapshots())?;
    let named = objects.iter().filter_map(|object| Some((last_part(&object.name).parse().ok()?, object.modified)));
    let named: Vec<(SnapshotId, Timestamp)> = named.collect();
    let unknown: Vec<(SnapshotId, Timestamp)> = named.iter().copied().filter(|(id, _)| !known.contains(id)).collect();
    repo::ask_and_open(
        &**repo.store(),
        &unknown,
        |(id, _)| repo.snapshot(id),
        |(id, modified), read| {
            match read {
                Ok(SnapshotObject::Manifest(mut manifest, signer)) => {
                    // Who may not repair could pass its own for another's.
                    manifest.repaired = manifest.repaired.filter(|_| repo.is_full(&signer));
                    let owner = manifest.repaired.map_or(signer, |repaired| repaired.signer);
                    let taken = *modified;
                    listing.snapshots.push(Snapshot { id: *id, manifest: *manifest, signer, owner, taken });
                }
                Ok(SnapshotObject::Tombstone(_)) => {
                    listing.buried.insert(*id);
                }
                // Forgotten between the listing and now: the next listing lacks it.
                Err(e) if e.is_not_found() && repo.is_forgotten(id)? => {}
                Err(e) if e.is_damage() => listing.damaged.push((*id, e)),
                Err(e) => return Err(e),
            }
            Ok(())
        },
    )?;
    listing.damaged.sort_by_key(|(id, _)| *id);
    let listed: HashSet<SnapshotId> = named.iter().map(|(id, _)| *id).collect();
    let read = listing.snapshots.iter().map(|s| (s.id, &s.manifest, s.signer));
    listing.gone = repo.gone_snapshots(&listed, read)?;
    listing.snapshots.sort_by_key(|s| (s.moment(), s.manifest.ended, s.id));
    Ok(listing)
}

/// What narrows a list, and what `latest` means.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// All of these tags.
    pub tags: Vec<String>,
    /// One of these machines.
    pub hosts: Vec<String>,
    /// One of these paths, as it was given or absolute.
    pub paths: Vec<Vec<u8>>,
    /// Not after this moment.
    pub at: Option<Timestamp>,
}

impl Filter {
    /// True if the snapshot passes.
    pub fn passes(&self, snapshot: &Snapshot) -> bool {
        let m = &snapshot.manifest;
        self.tags.iter().all(|tag| m.tags.contains(tag))
            && (self.hosts.is_empty() || self.hosts.contains(&m.host))
            && (self.paths.is_empty() || self.paths.iter().any(|p| m.paths.contains(p) || m.source.contains(p)))
            && self.at.is_none_or(|at| snapshot.moment() <= at)
    }

    fn is_empty(&self) -> bool {
        self.tags.is_empty() && self.hosts.is_empty() && self.paths.is_empty() && self.at.is_none()
    }
}

impl Listing {
    /// The snapshots that others repair, and which.
    pub fn repaired(&self) -> HashMap<SnapshotId, SnapshotId> {
        self.snapshots.iter().filter_map(|s| Some((s.manifest.repaired?.of, s.id))).collect()
    }

    /// The snapshots that pass, oldest first.
    pub fn filtered<'a>(&'a self, filter: &'a Filter) -> impl DoubleEndedIterator<Item = &'a Snapshot> {
        self.snapshots.iter().filter(|s| filter.passes(s))
    }

    /// The snapshot that `text` names: `latest`, `latest~N`, or the beginning of an id.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`] for a beginning that several share, or what is
    /// wrong with the snapshot that is named.
    pub fn choose(&mut self, text: &str, filter: &Filter) -> Result<&Snapshot> {
        if let Some(back) = text.strip_prefix("latest") {
            let back: usize = match back.strip_prefix('~') {
                Some(n) => n.parse().map_err(|_| Error::Invalid(format!("{text}: not a number behind '~'")))?,
                None if back.is_empty() => 0,
                None => return Err(Error::NotFound(format!("there is no snapshot {text}"))),
            };
            let narrowed = if filter.is_empty() { "" } else { " that passes the filters" };
            return self
                .filtered_for_life(filter)
                .rev()
                .nth(back)
                .ok_or_else(|| Error::NotFound(format!("there is no snapshot {text}{narrowed}")));
        }
        let text = text.to_ascii_lowercase();
        if text.len() < PREFIX_MIN || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Error::Invalid(format!(
                "{text} names no snapshot: give 'latest', 'latest~N', or at least {PREFIX_MIN} digits of an id"
            )));
        }
        let named = |id: &SnapshotId| id.to_string().starts_with(&text);
        // One that is damaged may be the one that is meant.
        let damaged = self.damaged.iter().position(|(id, _)| named(id));
        let all = self.snapshots.iter().map(|s| s.id).chain(self.damaged.iter().map(|(id, _)| *id));
        let found: Vec<SnapshotId> = all.filter(|id| named(id)).collect();
        match (&found[..], damaged) {
            ([], _) => Err(Error::NotFound(format!("there is no snapshot {text}"))),
            ([_], Some(at)) => Err(self.damaged.swap_remove(at).1),
            ([one], None) => self
                .snapshots
                .iter()
                .find(|s| s.id == *one)
                .ok_or_else(|| Error::NotFound(format!("there is no snapshot {text}"))),
            _ => Err(ambiguous(&text, &found)),
        }
    }

    /// The id of the snapshot that `text` names, even if nothing is known of it but that it is damaged.
    ///
    /// # Errors
    /// As [`Listing::choose`], but that damage is none. What a newer program wrote is not named.
    pub fn named(&mut self, text: &str, filter: &Filter) -> Result<SnapshotId> {
        let lower = text.to_ascii_lowercase();
        let is_named = |id: &SnapshotId| lower.len() >= PREFIX_MIN && id.to_string().starts_with(&lower);
        let read = self.snapshots.iter().filter(|s| is_named(&s.id)).count();
        let mut damaged = self.damaged.iter().filter(|(id, e)| is_named(id) && matches!(e, Error::Damaged { .. }));
        match (read, damaged.next(), damaged.next()) {
            (0, Some((id, _)), None) => Ok(*id),
            _ => self.choose(text, filter).map(|s| s.id),
        }
    }

    fn filtered_for_life<'a>(&'a self, filter: &Filter) -> impl DoubleEndedIterator<Item = &'a Snapshot> {
        self.snapshots.iter().filter(move |s| filter.passes(s))
    }
}

/// Which they are: whoever typed too little can choose without another listing.
fn ambiguous(text: &str, found: &[SnapshotId]) -> Error {
    let mut names: Vec<String> = found.iter().take(CANDIDATES_MAX).map(SnapshotId::to_string).collect();
    if found.len() > CANDIDATES_MAX {
        names.push(format!("and {} more", found.len() - CANDIDATES_MAX));
    }
    let count = found.len();
    Error::Invalid(format!("{count} snapshots begin with {text}; give more digits: {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(id: u8, seconds: i64, host: &str, tag: &str) -> Snapshot {
        let time = Timestamp { seconds, nanos: 0 };
        let manifest = Manifest {
            time,
            ended: time,
            host: host.into(),
            paths: vec![b".".to_vec()],
            source: vec![b"/srv/exports".to_vec()],
            tags: vec![tag.into()],
            ..Manifest::default()
        };
        let signer = SignerId([0; 32]);
        Snapshot { id: SnapshotId([id; 16]), manifest, signer, owner: signer, taken: time }
    }

    fn listing() -> Listing {
        let snapshots = vec![snapshot(0x11, 1, "a", "x"), snapshot(0x12, 2, "b", "x"), snapshot(0x22, 3, "a", "y")];
        let damaged = vec![(SnapshotId([0x33; 16]), Error::damaged("snapshots/33", "cut short"))];
        Listing { snapshots, damaged, ..Listing::default() }
    }

    fn chosen(text: &str, filter: &Filter) -> Result<u8> {
        listing().choose(text, filter).map(|s| s.id.0[0])
    }

    #[test]
    fn names_of_snapshots() {
        let all = Filter::default();
        assert_eq!(chosen("latest", &all).unwrap(), 0x22);
        assert_eq!(chosen("latest~2", &all).unwrap(), 0x11);
        assert_eq!(chosen("1212", &all).unwrap(), 0x12);
        assert_eq!(chosen("22222222", &all).unwrap(), 0x22);
        assert!(matches!(chosen("latest~3", &all), Err(Error::NotFound(_))));
        assert!(matches!(chosen("latest~x", &all), Err(Error::Invalid(_))));
        assert!(matches!(chosen("121", &all), Err(Error::Invalid(_))), "too short to name one");
        assert!(matches!(chosen("newest", &all), Err(Error::Invalid(_))));
        assert!(matches!(chosen("ffff", &all), Err(Error::NotFound(_))));
        assert!(matches!(chosen("3333", &all), Err(Error::Damaged { .. })), "what is damaged is said to be");
    }

    #[test]
    fn a_beginning_that_several_share_names_them() {
        let mut listing = listing();
        let alike = |n: u8| SnapshotId([0x22, 0x22, n, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        for n in 0..3 {
            listing.snapshots.push(Snapshot { id: alike(n), ..snapshot(0, 1, "a", "x") });
        }
        listing.damaged.push((alike(9), Error::damaged("snapshots/2222", "cut short")));
        let Err(Error::Invalid(why)) = listing.choose("2222", &Filter::default()) else { panic!("not ambiguous") };
        for id in [SnapshotId([0x22; 16]), alike(0), alike(1), alike(2), alike(9)] {
            assert!(why.contains(&id.to_string()), "{id}: {why}");
        }
        assert_eq!(listing.choose("22220100", &Filter::default()).unwrap().id, alike(1));
        assert!(matches!(listing.choose("22220900", &Filter::default()), Err(Error::Damaged { .. })));
        for n in 10..30 {
            listing.snapshots.push(Snapshot { id: alike(n), ..snapshot(0, 1, "a", "x") });
        }
        let Err(Error::Invalid(why)) = listing.choose("2222", &Filter::default()) else { panic!("not ambiguous") };
        assert!(why.starts_with("24 snapshots") && why.ends_with("and 16 more"), "{why}");
    }

    #[test]
    fn filters_narrow_what_latest_means() {
        let filter = |change: fn(&mut Filter)| {
            let mut filter = Filter::default();
            change(&mut filter);
            chosen("latest", &filter).ok()
        };
        assert_eq!(filter(|f| f.hosts = vec!["b".into()]), Some(0x12));
        assert_eq!(filter(|f| f.tags = vec!["x".into()]), Some(0x12));
        assert_eq!(filter(|f| f.tags = vec!["x".into(), "y".into()]), None);
        assert_eq!(filter(|f| f.at = Some(Timestamp { seconds: 1, nanos: 5 })), Some(0x11));
        assert_eq!(filter(|f| f.at = Some(Timestamp { seconds: 0, nanos: 5 })), None);
        assert_eq!(filter(|f| f.paths = vec![b"/srv/exports".to_vec()]), Some(0x22));
        assert_eq!(filter(|f| f.paths = vec![b"/srv".to_vec()]), None);
    }

    #[test]
    fn a_claimed_time_counts_only_up_to_when_the_store_took_the_snapshot() {
        let mut s = snapshot(1, 0, "a", "x");
        s.taken.seconds = 1000;
        for (claimed, counts) in [(5, 5), (i64::MIN, i64::MIN), (1000 + 86_400, 1000 + 86_400), (i64::MAX, 1000)] {
            s.manifest.time.seconds = claimed;
            assert_eq!(s.moment().seconds, counts);
            assert_eq!(s.is_postdated(), claimed != counts);
        }
        s.taken.seconds = 100_000;
        for (claimed, is_late) in
            [(100_000 - 86_400, false), (100_000 - 86_401, true), (i64::MIN, true), (i64::MAX, false)]
        {
            s.manifest.time.seconds = claimed;
            assert_eq!(s.is_backdated(), is_late, "{claimed}");
        }
        s.taken.seconds = 1000;
        let at = |seconds| Filter { at: Some(Timestamp { seconds, nanos: 0 }), ..Filter::default() };
        assert!(at(1000).passes(&s) && !at(999).passes(&s));
    }
}
