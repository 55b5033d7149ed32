//! Whether snapshots that were there are still there. Whoever holds the store
//! can leave snapshots out, or show it as it once was, and every object that
//! remains is genuine. So each manifest names the one before it in its writer's
//! chain, and this machine remembers the newest one of each chain that it saw.
//! What a full key forgot is not missed. Reports; decides nothing.

use super::Repository;
use super::local::{read_json, write_json};
use super::sweep::CHAINS;
use crate::error::{Error, Result};
use crate::format::header::HEADER_LEN;
use crate::format::manifest::Manifest;
use crate::id::{SignerId, SnapshotId, from_hex, to_hex};
use crate::index::lock::{Hold, Lock, Part};
use crate::limits;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::Path;

/// A snapshot that was in the repository and is not any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// Which.
    pub snapshot: SnapshotId,
    /// Its object.
    pub object: String,
    /// How that is known.
    pub proof: Proof,
}

/// How it is known that a snapshot was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// A snapshot that is there says that it came after it.
    Successor(SnapshotId),
    /// This machine has seen it, and sees nothing later of its chain: the store shows an old state,
    /// or the snapshot was taken away.
    Memory,
}

impl Gone {
    /// How that is known, in words.
    pub fn why(&self) -> String {
        match self.proof {
            Proof::Successor(later) => format!("it is missing: snapshot {} came after it", later.short()),
            Proof::Memory => {
                "it is missing: this machine has seen it, and nothing later of its source is there; the \
                 store shows an old state, or it was taken away"
                    .into()
            }
        }
    }
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.why())
    }
}

/// The newest snapshot of a chain that this machine has seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Newest {
    counter: u64,
    snapshot: String,
}

/// By signer, then by chain: nobody can push another's chains out, or pretend to go on with them.
type Memory = BTreeMap<String, BTreeMap<String, Newest>>;

/// The memory as it is kept. A file that was copied from another tenant's folder says nothing of this.
#[derive(Serialize, Deserialize)]
struct Kept {
    tenant: String,
    signers: Memory,
}

/// Notes what a manifest shows; true if that is news.
fn note(memory: &mut Memory, id: &SnapshotId, manifest: &Manifest, signer: &SignerId) -> bool {
    let of_signer = memory.entry(signer.to_string()).or_default();
    let chain = to_hex(&manifest.chain);
    if of_signer.get(&chain).is_some_and(|known| known.counter >= manifest.counter) {
        return false;
    }
    of_signer.insert(chain, Newest { counter: manifest.counter, snapshot: id.to_string() });
    true
}

/// Keeps the memory of each signer within its bound: chains that are there are remembered again when
/// they are seen again, so those that are not go last.
fn bound(memory: &mut Memory, there: &HashSet<String>) {
    for chains in memory.values_mut() {
        while chains.len() > limits::CHAINS_REMEMBERED {
            let one = chains.iter().find(|(_, newest)| there.contains(&newest.snapshot)).or(chains.iter().next());
            let Some(chain) = one.map(|(chain, _)| chain.clone()) else { break };
            chains.remove(&chain);
        }
    }
}

impl Repository {
    /// Snapshots that are known to have been there, and are neither listed nor buried; remembers what
    /// is there now. `listed` holds every name under `snapshots/`, `read` those that could be read; a
    /// writer key can read none, and is told only what it took itself.
    /// A memory that cannot be kept is told with what else is wrong with local state.
    ///
    /// # Errors
    /// The store's.
    pub fn gone_snapshots<'m>(
        &self,
        listed: &HashSet<SnapshotId>,
        read: impl Iterator<Item = (SnapshotId, &'m Manifest, SignerId)>,
    ) -> Result<Vec<Gone>> {
        let mut named = Vec::new();
        let mut seen = Vec::new();
        for (id, manifest, signer) in read {
            if let Some(previous) = manifest.previous.filter(|previous| !listed.contains(previous)) {
                named.push((previous, id));
            }
            seen.push((id, manifest, signer));
        }
        let remembered = self.recall(listed, &seen).unwrap_or_else(|e| {
            self.local.unusable(&e);
            Vec::new()
        });
        if named.is_empty() && remembered.is_empty() {
            return Ok(Vec::new());
        }
        let (history, _) = self.history()?;
        let mut gone = BTreeMap::new();
        for (previous, later) in named {
            if let Some(missing) = history.missing(previous, listed) {
                gone.insert(missing, Proof::Successor(later));
            }
        }
        let mut forgotten = Vec::new();
        for known in remembered {
            if history.contains(&known.snapshot) || history.reaches(&known.signer, &known.chain, known.counter) {
                forgotten.push(known);
            } else {
                gone.entry(known.snapshot).or_insert(Proof::Memory);
            }
        }
        if let Err(e) = self.no_more(&forgotten) {
            self.local.unusable(&e);
        }
        let gone = gone.into_iter();
        Ok(gone
            .map(|(snapshot, proof)| Gone { snapshot, object: self.names.snapshot(&snapshot), proof })
            .filter(|gone| !self.is_there(&gone.object))
            .collect())
    }

    /// Drops from memory what a full key has forgotten.
    fn no_more(&self, forgotten: &[Remembered]) -> Result<()> {
        let Some(folder) = self.local.path().filter(|_| !forgotten.is_empty()) else { return Ok(()) };
        let _lock = lock(folder)?;
        let mut memory = self.chains(folder)?;
        for known in forgotten {
            if let Some(chains) = memory.get_mut(&known.signer.to_string()) {
                let chain = to_hex(&known.chain);
                if chains.get(&chain).is_some_and(|newest| newest.snapshot == known.snapshot.to_string()) {
                    chains.remove(&chain);
                }
            }
        }
        self.keep_chains(folder, memory)
    }

    /// Another process on this machine may have taken a snapshot, and noted it, since the listing.
    pub(super) fn is_there(&self, object: &str) -> bool {
        self.store.read_range(object, 0, HEADER_LEN).is_ok()
    }

    fn chains(&self, folder: &Path) -> Result<Memory> {
        let kept: Option<Kept> = read_json(&folder.join(CHAINS))?;
        Ok(kept.filter(|kept| kept.tenant == self.tenant.to_string()).map(|kept| kept.signers).unwrap_or_default())
    }

    fn keep_chains(&self, folder: &Path, signers: Memory) -> Result<()> {
        write_json(&folder.join(CHAINS), &Kept { tenant: self.tenant.to_string(), signers })
    }

    /// The newest known snapshots that are not listed; remembers what was read now.
    fn recall(
        &self,
        listed: &HashSet<SnapshotId>,
        seen: &[(SnapshotId, &Manifest, SignerId)],
    ) -> Result<Vec<Remembered>> {
        let Some(folder) = self.local.path() else { return Ok(Vec::new()) };
        let _lock = lock(folder)?;
        let mut memory = self.chains(folder)?;
        let there: HashSet<String> = listed.iter().map(ToString::to_string).collect();
        let newest = newest_of(&memory, seen).into_iter().filter(|(.., newest)| !there.contains(&newest.snapshot));
        let newest: Vec<Remembered> = newest.filter_map(remembered).collect();
        let mut news = false;
        for (id, manifest, signer) in seen {
            news |= note(&mut memory, id, manifest, signer);
        }
        if news {
            bound(&mut memory, &there);
            self.keep_chains(folder, memory)?;
        }
        Ok(newest)
    }

    /// The newest snapshot that this machine remembers of one of the key's own chains, and its number.
    pub fn newest_in_chain(&self, chain: &[u8; 16]) -> Option<(SnapshotId, u64)> {
        let memory = self.chains(self.local.path()?).ok()?;
        let newest = memory.get(&self.signer().to_string())?.get(&to_hex(chain))?;
        Some((newest.snapshot.parse().ok()?, newest.counter))
    }

    /// Remembers a snapshot that this process has just created. It stands, whatever becomes of this
    /// machine's memory; where that cannot be kept, it is told with what else is wrong with local state.
    pub fn remember_snapshot(&self, id: &SnapshotId, manifest: &Manifest) {
        let Some(folder) = self.local.path() else { return };
        let remember = || -> Result<()> {
            let _lock = lock(folder)?;
            let mut memory = self.chains(folder)?;
            if note(&mut memory, id, manifest, &self.signer()) {
                bound(&mut memory, &HashSet::new());
                self.keep_chains(folder, memory)?;
            }
            Ok(())
        };
        if let Err(e) = remember() {
            self.local.unusable(&e);
        }
    }
}

fn lock(folder: &Path) -> Result<Lock> {
    Lock::wait(folder, Part::Chains, Hold::Alone)
        .map_err(|e| Error::Local { path: folder.to_path_buf(), why: e.to_string() })
}

/// The newest snapshot of a chain, as it is remembered.
struct Remembered {
    signer: SignerId,
    chain: [u8; 16],
    counter: u64,
    snapshot: SnapshotId,
}

/// Signer, chain, and its newest snapshot.
type Line<'m> = (&'m str, &'m str, &'m Newest);

/// A line of the memory; none where it is not what this program writes.
fn remembered((signer, chain, newest): Line<'_>) -> Option<Remembered> {
    let (signer, snapshot) = (signer.parse().ok()?, newest.snapshot.parse().ok()?);
    Some(Remembered { signer, chain: from_hex(chain)?, counter: newest.counter, snapshot })
}

/// The newest known snapshot of each chain of which nothing as new has been read.
fn newest_of<'m>(memory: &'m Memory, seen: &[(SnapshotId, &Manifest, SignerId)]) -> Vec<Line<'m>> {
    let mut reached: HashMap<(String, String), u64> = HashMap::new();
    for (_, manifest, signer) in seen {
        let counter = reached.entry((signer.to_string(), to_hex(&manifest.chain))).or_default();
        *counter = manifest.counter.max(*counter);
    }
    let known = memory.iter().flat_map(|(signer, chains)| chains.iter().map(move |(chain, n)| (signer, chain, n)));
    known
        .filter(|(signer, chain, newest)| {
            reached.get(&((*signer).clone(), (*chain).clone())).is_none_or(|counter| *counter < newest.counter)
        })
        .map(|(signer, chain, newest)| (signer.as_str(), chain.as_str(), newest))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(chain: u8, counter: u64) -> Manifest {
        Manifest { chain: [chain; 16], counter, ..Manifest::default() }
    }

    #[test]
    fn a_chain_is_its_signers_own() {
        let mut memory = Memory::default();
        let (one, two) = (SignerId([1; 32]), SignerId([2; 32]));
        assert!(note(&mut memory, &SnapshotId([1; 16]), &manifest(7, 5), &one));
        assert!(!note(&mut memory, &SnapshotId([2; 16]), &manifest(7, 5), &one), "a fork is no news");
        assert!(note(&mut memory, &SnapshotId([3; 16]), &manifest(7, 1), &two), "another's chain of that name");
        let ahead = manifest(7, 9);
        let newest = |signer| -> Vec<SnapshotId> {
            let seen = [(SnapshotId([4; 16]), &ahead, signer)];
            newest_of(&memory, &seen).into_iter().filter_map(remembered).map(|known| known.snapshot).collect()
        };
        assert_eq!(newest(two), [SnapshotId([1; 16])], "nobody goes on with it but its signer");
        assert_eq!(newest(one), [SnapshotId([3; 16])]);
    }

    #[test]
    fn what_is_there_is_forgotten_first() {
        let mut memory = Memory::default();
        let signer = SignerId([1; 32]);
        let id = |n: usize| SnapshotId(u128::try_from(n).unwrap().to_be_bytes());
        for n in 0..limits::CHAINS_REMEMBERED + 2 {
            let manifest = Manifest { chain: id(n).0, counter: 1, ..Manifest::default() };
            note(&mut memory, &id(n), &manifest, &signer);
        }
        bound(&mut memory, &[id(7).to_string(), id(9).to_string()].into());
        let chains = &memory[&signer.to_string()];
        assert_eq!(chains.len(), limits::CHAINS_REMEMBERED);
        assert!(!chains.contains_key(&to_hex(&id(7).0)) && !chains.contains_key(&to_hex(&id(9).0)));
    }
}
