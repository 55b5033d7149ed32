//! Bringing the index on this machine up to what the store holds.

use super::{LocalFolder, Repository, full_signers, side};
use crate::crypto::derive::IdKeys;
use crate::crypto::envelope::Realm;
use crate::error::{Error, Malformed, Result};
use crate::format::header::ObjectType;
use crate::format::index::{self, IndexObject};
use crate::format::key::SignerList;
use crate::format::names::{TenantNames, last_part};
use crate::id::{IndexName, PackName, SignerId, TenantId};
use crate::index::{EntryNumber, Keeper, Take, Trouble};
use crate::limits;
use crate::store::{Listed, Store};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// How often the index is listed where objects vanish from it.
const LOOKS: usize = 3;

/// Makes the index again from the store where the file on this machine fails.
pub(super) struct StoreKeeper {
    store: Arc<dyn Store>,
    names: TenantNames,
    tenant: TenantId,
    keys: Box<IdKeys>,
    /// Whose records are read at all.
    admitted: HashSet<SignerId>,
    /// Whose word counts where an object says which others it replaces.
    replacing: HashSet<SignerId>,
    local: LocalFolder,
}

impl StoreKeeper {
    /// For a store and a tenant's names there, a tenant and its id key, its signers and its own key, and whether
    /// a mirror lies there.
    pub(super) fn new(
        (store, names): (&Arc<dyn Store>, &TenantNames),
        (tenant, id_key): (TenantId, &[u8; 32]),
        (signers, verifying): (&SignerList, SignerId),
        (local, is_mirror): (&LocalFolder, bool),
    ) -> Self {
        Self {
            store: Arc::clone(store),
            names: names.clone(),
            tenant,
            keys: Box::new(IdKeys::new(id_key)),
            admitted: signers.signers.iter().map(|s| s.id).chain([verifying]).collect(),
            replacing: if is_mirror { HashSet::new() } else { full_signers(signers, verifying) },
            local: local.clone(),
        }
    }
}

impl Keeper for StoreKeeper {
    fn told(&self, trouble: Trouble) {
        match trouble {
            Trouble::Damaged(why) => {
                let path = self.local.path().map(|path| path.display().to_string()).unwrap_or_default();
                self.local.warn(format!("the index on this machine is damaged ({why}) and is made again: {path}"));
            }
            Trouble::Unusable(e) => self.local.unusable(&e),
        }
    }

    fn refill(&self, take: &mut Take<'_>) -> Result<HashSet<IndexName>> {
        let realm = Realm { tenant: self.tenant, keys: &self.keys };
        let mut replaced = HashSet::new();
        for listed in self.store.list(&self.names.indexes())? {
            // What is no index object's name was told when the index was brought up to date.
            let Ok(name) = last_part(&listed.name).parse::<IndexName>() else { continue };
            match read_object(&*self.store, &self.names, &realm, |signer| self.admitted.contains(signer), &name) {
                Ok((signer, object)) => {
                    if self.replacing.contains(&signer) {
                        replaced.extend(&object.supersedes);
                    }
                    take(&name, &signer, &object)?;
                }
                Err(e) if e.is_damage() => self.local.warn(e.to_string()),
                Err(e) => return Err(e),
            }
        }
        Ok(replaced)
    }
}

/// Reads and checks one index object.
fn read_object(
    store: &dyn Store,
    names: &TenantNames,
    realm: &Realm<'_>,
    is_admitted: impl Fn(&SignerId) -> bool,
    name: &IndexName,
) -> Result<(SignerId, IndexObject)> {
    let label = names.index(name);
    let bytes = store.read(&label, limits::INDEX_OBJECT_MAX)?;
    if bytes.last_chunk() != Some(&name.0) {
        return Err(Error::damaged(label, "it is another object, under this one's name"));
    }
    let opened = realm.open_shared(ObjectType::Index, None, &label, &bytes)?;
    if !is_admitted(&opened.signer) {
        return Err(Error::damaged(label, format!("signed by {}, who was never admitted", opened.signer.short())));
    }
    let object = decode_payload(&opened.payload).map_err(|e| e.of(&*label))?;
    Ok((opened.signer, object))
}

impl Repository {
    /// Takes in index objects that are new, drops those that are gone, and returns what could not
    /// be read: whatever such an object alone knew is missing until it is mended.
    ///
    /// # Errors
    /// The store's, and [`Error::Damaged`] if the store lists no index at all where there was one.
    pub fn sync_index(&self) -> Result<Vec<Error>> {
        self.sync(false)
    }

    /// The same for whoever makes the index anew: that the store lists none at all is believed.
    ///
    /// # Errors
    /// The store's.
    pub fn sync_lost_index(&self) -> Result<Vec<Error>> {
        self.sync(true)
    }

    fn sync(&self, may_be_lost: bool) -> Result<Vec<Error>> {
        let mut problems = self.sync_once(may_be_lost)?;
        for _ in 1..LOOKS {
            // What is listed and not there was replaced meanwhile, by what the listing may not show.
            if !problems.iter().any(Error::is_not_found) {
                break;
            }
            problems = self.sync_once(may_be_lost)?;
        }
        Ok(problems)
    }

    fn sync_once(&self, may_be_lost: bool) -> Result<Vec<Error>> {
        let listed = self.store.list(&self.names.indexes())?;
        let mut names = HashSet::with_capacity(listed.len());
        let mut problems = Vec::new();
        for object in &listed {
            match last_part(&object.name).parse::<IndexName>() {
                Ok(name) => {
                    names.insert(name);
                }
                Err(_) => problems.push(Error::damaged(&*object.name, "this is no index object's name")),
            }
        }
        let known = self.index.objects()?;
        let is_lost = !may_be_lost && names.is_empty() && !known.is_empty();
        if is_lost && !self.store.list(&self.names.snapshots())?.is_empty() {
            return Err(Error::damaged(
                self.names.indexes(),
                format!("the store lists no index objects, this machine has seen {}", known.len()),
            ));
        }
        let gone: Vec<IndexName> = known.iter().map(|k| k.name).filter(|name| !names.contains(name)).collect();
        if !gone.is_empty() {
            self.index.remove(&gone)?;
        }
        for known in &known {
            names.remove(&known.name);
        }
        for name in self.index.superseded(&self.replacing_signers())? {
            names.remove(&name);
        }
        let names: Vec<IndexName> = names.into_iter().collect();
        side::ask(
            &*self.store,
            &names,
            |name| self.read_index(name),
            |name, read| {
                match read {
                    Ok((signer, object)) => {
                        self.index.add(name, &signer, &object)?;
                    }
                    Err(e) if e.is_damage() => problems.push(e),
                    Err(e) => return Err(e),
                }
                Ok(())
            },
        )?;
        // Only a full key's word replaces entries, and only while that word is there.
        let superseded = self.index.superseded(&self.replacing_signers())?;
        let held: Vec<IndexName> =
            self.index.objects()?.into_iter().map(|o| o.name).filter(|name| superseded.contains(name)).collect();
        if !held.is_empty() {
            self.index.remove(&held)?;
        }
        self.index.weigh_again();
        Ok(problems)
    }

    /// The index objects whose entries are here, and those that a full key's objects replace.
    ///
    /// # Errors
    /// The local index's.
    pub fn indexes_held(&self) -> Result<HashSet<IndexName>> {
        let mut held = self.index.superseded(&self.replacing_signers())?;
        held.extend(self.index.objects()?.into_iter().map(|o| o.name));
        Ok(held)
    }

    /// Reads and checks one index object.
    ///
    /// # Errors
    /// [`Error::Damaged`] if it is not what an admitted signer wrote.
    pub fn read_index(&self, name: &IndexName) -> Result<(SignerId, IndexObject)> {
        read_object(&*self.store, &self.names, &self.realm(), |signer| self.is_admitted(signer), name)
    }

    /// The index objects that the store lists, with their bytes, and those of them that a full key's objects
    /// replace.
    ///
    /// # Errors
    /// The store's, and the local index's.
    pub fn listed_indexes(&self) -> Result<(HashMap<IndexName, u64>, HashSet<IndexName>)> {
        let listed = self.store.list(&self.names.indexes())?;
        let named = listed.iter().filter_map(|o| Some((last_part(&o.name).parse().ok()?, o.size)));
        let listed: HashMap<IndexName, u64> = named.collect();
        let mut superseded = self.index.superseded(&self.replacing_signers())?;
        superseded.retain(|name| listed.contains_key(name));
        Ok((listed, superseded))
    }

    /// Seals, names and publishes an index object, and takes it into the local index; returns the
    /// numbers of its entries there.
    ///
    /// # Errors
    /// The store's: then it may be there.
    pub fn publish_index(&self, object: &IndexObject) -> Result<Vec<EntryNumber>> {
        let payload = zstd::bulk::compress(&object.encode(), 3)
            .map_err(|e| Error::Invalid(format!("zstd failed on an index object: {e}")))?;
        let header = self.header(ObjectType::Index);
        let bytes = self.realm().seal_shared(header, None, &self.signing, &payload)?;
        let name = bytes.last_chunk().map(|hash| IndexName(*hash));
        let name = name.ok_or_else(|| Error::Invalid("an index object without a hash".into()))?;
        self.store.create(&self.names.index(&name), bytes.into())?;
        self.index.add(&name, &self.signing.id(), object)
    }

    /// True if the store lists a pack of this name and size. For credentials that may read no packs: after
    /// a lost answer they find the name taken, and may not look by what. Nobody else knew the name, which is
    /// the hash of what was sent.
    pub(super) fn lists_pack(&self, pack: &PackName, size: u64) -> bool {
        let name = self.names.pack(pack);
        let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
        let listed = self.store.list(folder).unwrap_or_default();
        listed.iter().any(|object| object.name == name && object.size == size)
    }

    /// The packs that the store lists, with their sizes.
    ///
    /// # Errors
    /// The store's.
    pub fn list_packs(&self) -> Result<Vec<(PackName, u64)>> {
        self.named_packs(self.store.list(&self.names.packs())?)
    }

    /// The same, those first that the store has had longest: what others rest on was stored before them.
    ///
    /// # Errors
    /// The store's.
    pub fn list_packs_by_age(&self) -> Result<Vec<(PackName, u64)>> {
        let mut listed = self.store.list(&self.names.packs())?;
        listed.sort_by(|a, b| (a.modified, &a.name).cmp(&(b.modified, &b.name)));
        self.named_packs(listed)
    }

    fn named_packs(&self, listed: Vec<Listed>) -> Result<Vec<(PackName, u64)>> {
        // One that lies in another's folder is not where anybody looks for it.
        let named = |o: &Listed| last_part(&o.name).parse().ok().filter(|name| self.names.pack(name) == o.name);
        Ok(listed.iter().filter_map(|o| Some((named(o)?, o.size))).collect())
    }
}

fn decode_payload(payload: &[u8]) -> Result<IndexObject, Malformed> {
    IndexObject::decode(&index::unpack(payload)?)
}
