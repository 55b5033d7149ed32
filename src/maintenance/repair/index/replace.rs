//! Putting away what is wrong in the index: objects that do not open, and those
//! with an entry that is not so. One of the latter goes only if all else that it
//! says was found true, and is said again.

use super::Repair;
use super::contents::UNKNOWN;
use crate::error::{Error, Result, StoreFault};
use crate::format::index::{IndexObject, PackEntry, Vouched};
use crate::id::{IndexName, PackName};
use crate::index::{EntryNumber, blobs_of};
use crate::limits;
use crate::monitor::Event;
use crate::repo;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// What stays of objects that are replaced.
#[derive(Default)]
struct Staying {
    packs: BTreeMap<PackName, PackEntry>,
    supersedes: Vec<IndexName>,
    vouched: Vec<Vouched>,
}

impl Repair<'_> {
    /// Replaces what is wrong, and deletes what is replaced.
    pub(super) fn put_away(&mut self) -> Result<()> {
        self.surpassed()?;
        let wrong = self.replaceable()?;
        let mut staying = Staying::default();
        for name in &wrong {
            self.keep_of(name, &wrong, &mut staying)?;
        }
        let mut old: Vec<IndexName> = wrong.into_iter().collect();
        let is_lost = self.lost_goes();
        if is_lost {
            old.extend(self.damaged.iter().chain(&self.gone));
        }
        if !old.is_empty() {
            self.report.replaced = old.len() as u64;
            self.replace(old, staying)?;
        }
        self.delete(is_lost)
    }

    /// Entries of full keys that leave out what another of them says of the same pack.
    fn surpassed(&mut self) -> Result<()> {
        let repo = self.repo;
        let partly: HashSet<EntryNumber> = repo.index().copies(&UNKNOWN)?.iter().map(|copy| copy.entry()).collect();
        if partly.is_empty() {
            return Ok(());
        }
        let known = repo.index().packs()?;
        let partial: HashSet<PackName> =
            known.iter().filter(|p| partly.contains(&p.number)).map(|p| p.name).collect();
        let mut best: HashMap<PackName, (usize, EntryNumber)> = HashMap::new();
        let of_full = |pack: &&crate::index::KnownPack| partial.contains(&pack.name) && repo.is_full(&pack.signer);
        for pack in known.iter().filter(of_full) {
            let frames = self.known_frames(pack.number)?;
            let place = best.entry(pack.name).or_insert((frames, pack.number));
            *place = (*place).max((frames, pack.number));
        }
        for pack in known.iter().filter(of_full) {
            if partly.contains(&pack.number) && best.get(&pack.name).is_some_and(|(_, best)| *best != pack.number) {
                self.aside.insert((pack.object, pack.name));
            }
        }
        Ok(())
    }

    /// The objects with entries to be put aside, of which all others are known to be true.
    fn replaceable(&mut self) -> Result<BTreeSet<IndexName>> {
        let repo = self.repo;
        let wrong: BTreeSet<IndexName> = self.aside.iter().map(|(object, _)| *object).collect();
        let vouched = repo.vouched()?;
        let mut goes = BTreeSet::new();
        for name in wrong {
            let (signer, object) = repo.read_index(&name)?;
            let is_sure = |pack: &PackEntry| {
                let entry = (name, pack.name);
                repo.is_full(&signer)
                    || self.aside.contains(&entry)
                    || self.proved.contains(&entry)
                    || !self.listed.contains_key(&pack.name)
                    || vouched.contains(&Vouched { index: name, pack: pack.name })
            };
            match object.packs.iter().find(|pack| !is_sure(pack)) {
                None => {
                    goes.insert(name);
                }
                Some(pack) => self.report.kept.push(format!(
                    "{} stays: what it says of {} cannot be proved",
                    repo.names().index(&name),
                    repo.names().pack(&pack.name)
                )),
            }
        }
        Ok(goes)
    }

    /// What is said again of an object that is replaced: but for packs that are gone, and what is not so.
    fn keep_of(&self, name: &IndexName, wrong: &BTreeSet<IndexName>, staying: &mut Staying) -> Result<()> {
        let (signer, object) = self.repo.read_index(name)?;
        if self.repo.is_full(&signer) {
            staying.supersedes.extend(&object.supersedes);
            staying.vouched.extend(object.vouched.iter().filter(|vouched| !wrong.contains(&vouched.index)));
        }
        for pack in object.packs {
            let is_there = self.listed.get(&pack.name) == Some(&pack.size);
            if is_there && !self.aside.contains(&(*name, pack.name)) {
                staying.packs.entry(pack.name).or_insert(pack);
            }
        }
        Ok(())
    }

    /// True if nothing can be lost with the objects that do not open: of every pack that is listed is known what
    /// it holds, as far as anyone can.
    fn lost_goes(&mut self) -> bool {
        if self.damaged.is_empty() && self.gone.is_empty() && self.strays.is_empty() {
            return false;
        }
        let Some(first) = self.unanswered.first() else { return true };
        if self.how.abandon {
            return true;
        }
        let more = self.unanswered.len() - 1;
        let others = if more > 0 { format!(", and {more} more,") } else { String::new() };
        let pack = self.repo.names().pack(first);
        for object in self.report.damaged.iter().map(|bad| &bad.object) {
            let why = format!("{object} stays: {pack}{others} cannot be read, and it may have said what is in there");
            self.report.kept.push(why);
        }
        false
    }

    /// Publishes what stays in objects of a fair size; the last one says what they replace.
    fn replace(&mut self, mut old: Vec<IndexName>, staying: Staying) -> Result<()> {
        let (stored, _) = self.repo.listed_indexes()?;
        old.extend(staying.supersedes.into_iter().filter(|name| stored.contains_key(name)));
        old.sort_unstable();
        old.dedup();
        let mut last = IndexObject { supersedes: old, vouched: staying.vouched, ..IndexObject::default() };
        last.vouched.sort_unstable();
        last.vouched.dedup();
        for pack in staying.packs.into_values() {
            if !last.packs.is_empty() && blobs_of(&last.packs) + pack.blobs() > limits::INDEX_BLOBS_TARGET {
                let packs = std::mem::take(&mut last.packs);
                self.say(&IndexObject { packs, ..IndexObject::default() })?;
            }
            last.packs.push(pack);
        }
        self.say(&last)?;
        // The index on this machine forgets what is replaced before it is gone.
        self.repo.sync_lost_index().map(|_| ())
    }

    /// Deletes objects that others replace, and what is none.
    fn delete(&mut self, with_strays: bool) -> Result<()> {
        let (_, superseded) = self.repo.listed_indexes()?;
        let mut names: Vec<String> = superseded.iter().map(|name| self.repo.names().index(name)).collect();
        if with_strays {
            names.append(&mut self.strays);
        }
        self.monitor.event(Event::Phase { name: "deleting", total_bytes: None });
        let (store, monitor, report) = (self.repo.store(), self.monitor, &mut self.report);
        repo::ask(
            &**store,
            &names,
            |name| store.delete(name),
            |name, deleted| {
                if monitor.cancelled() {
                    return Err(Error::Interrupted);
                }
                match deleted {
                    Ok(()) => report.deleted += 1,
                    Err(e) if e.fault == StoreFault::NotFound => {}
                    Err(e) if e.fault == StoreFault::Denied => {
                        report.retained += 1;
                        // What is replaced nobody reads; what has no name of ours stays in the way.
                        if crate::format::names::last_part(name).parse::<IndexName>().is_err() {
                            report.kept.push(format!("{name} stays: the store does not delete it"));
                        }
                    }
                    Err(e) => return Err(e.into()),
                }
                Ok(())
            },
        )
    }
}
