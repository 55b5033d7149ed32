//! What checks have found, for others to heed: a record of the packs that are
//! damaged, whose copies count no more, so that the next backup stores again what
//! they held; and index objects that vouch for what others' entries say. Full
//! keys write both; every session reads them.
//!
//! Records are numbered and stay; the greatest that a full key signed holds all
//! that is known. Two checks that write at once want the same number: the one that
//! comes too late reads again, and adds what it has found.

use super::Repository;
use super::absent;
use crate::error::{Error, Result, StoreFault};
use crate::format::header::ObjectType;
use crate::format::index::{IndexObject, Vouched};
use crate::format::records::DamageRecord;
use crate::id::PackName;
use crate::limits;
use crate::store::Listed;
use std::collections::{BTreeSet, HashSet};

/// How often a record is begun again that another check was faster with.
const TRIES: usize = 8;

/// What is known to be damaged, and what of the records could not be used.
#[derive(Debug, Default)]
pub struct KnownDamage {
    /// The packs.
    pub packs: BTreeSet<PackName>,
    /// Records that do not count; one of them may have.
    pub problems: Vec<Error>,
    /// The number of the record that counts; 0 for none.
    number: u64,
}

impl Repository {
    /// What the newest record of damage says that a full key signed.
    ///
    /// # Errors
    /// The store's.
    pub fn known_damage(&self) -> Result<KnownDamage> {
        self.damage_among(&self.store.list(&self.names.plans())?)
    }

    /// The same, from a listing of the folder. One that anybody else wrote above it hides it from nobody.
    pub(super) fn damage_among(&self, listed: &[Listed]) -> Result<KnownDamage> {
        let mut found = KnownDamage::default();
        for number in self.damage_numbers(listed).into_iter().rev() {
            let name = self.names.damage(number);
            let read = || -> Result<_> {
                let bytes = self.store.read(&name, limits::LIST_RECORD_MAX)?;
                let opened = self.realm().open_shared(ObjectType::Damage, Some(&name), &name, &bytes)?;
                let record = DamageRecord::decode(&opened.payload).map_err(|e| e.of(&*name))?;
                Ok((opened.signer, record))
            };
            match read() {
                Ok((signer, record)) if self.is_full(&signer) && record.number == number => {
                    (found.number, found.packs) = (number, record.packs.into_iter().collect());
                    return Ok(found);
                }
                Ok(_) => found.problems.push(Error::damaged(name, "no full key signed it: it does not count")),
                Err(e) if e.is_damage() => found.problems.push(e),
                Err(e) => return Err(e),
            }
        }
        Ok(found)
    }

    /// The numbers of the records in a listing, ascending.
    fn damage_numbers(&self, listed: &[Listed]) -> BTreeSet<u64> {
        listed.iter().filter_map(|o| self.names.damage_number(&o.name)).collect()
    }

    /// Publishes what is known to be damaged after `change`; nothing if that is what the newest record says.
    /// True if there is a new one.
    ///
    /// # Errors
    /// [`Error::NotAllowed`] with a writer key, [`Error::Busy`] if others go on writing records, or the
    /// store's.
    pub fn publish_damage(&self, change: impl Fn(&mut BTreeSet<PackName>)) -> Result<bool> {
        let signing = self.tenant_signing("say what is damaged")?;
        for _ in 0..TRIES {
            let listed = self.store.list(&self.names.plans())?;
            let known = self.damage_among(&listed)?;
            let mut packs = known.packs.clone();
            change(&mut packs);
            if packs == known.packs {
                return Ok(false);
            }
            let taken = self.damage_numbers(&listed);
            // What somebody forged leaves no gap where it would be the greatest.
            let mut free = (known.number + 1..=limits::NUMBER_MAX).filter(|number| !taken.contains(number));
            let Some(number) = free.next() else { break };
            let packs = packs.into_iter().take(limits::DAMAGE_PACKS_MAX).collect();
            let record = DamageRecord { number, packs };
            let name = self.names.damage(number);
            let header = self.header(ObjectType::Damage);
            let object = self.realm().seal_shared(header, Some(&name), signing, &record.encode())?;
            match absent::create(&*self.store, &name, &object.into()) {
                Ok(()) => return Ok(true),
                Err(e) if e.fault == StoreFault::Exists => {}
                Err(e) => return Err(e.into()),
            }
        }
        Err(Error::Busy { what: "the record of damage".into() })
    }

    /// Vouches for entries that were found true, from now on, for everybody's backups.
    ///
    /// # Errors
    /// [`Error::NotAllowed`] with a writer key, or the store's.
    pub fn vouch(&self, entries: &[Vouched]) -> Result<()> {
        self.writable()?;
        self.private_key()?;
        for entries in entries.chunks(limits::INDEX_BLOBS_TARGET) {
            self.publish_index(&IndexObject { vouched: entries.to_vec(), ..IndexObject::default() })?;
        }
        Ok(())
    }

    /// The entries in the local index for which full keys vouch.
    ///
    /// # Errors
    /// The local index's.
    pub fn vouched(&self) -> Result<HashSet<Vouched>> {
        self.index.vouched(&self.full_signers())
    }
}
