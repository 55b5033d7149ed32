//! A repository that is open for one tenant: its keys, its index, its signers,
//! and the order in which things are written. Verbs take a [`Repository`];
//! none of them seals, signs or names an object by itself.

mod absent;
mod bases;
mod blobs;
mod chains;
mod copied;
mod create;
mod damage;
mod erase;
mod forget;
mod forgotten;
mod frames;
mod holds;
mod kept;
mod keys;
mod lasting;
mod local;
mod mended;
mod met;
mod mirror;
mod open;
mod operator;
mod packing;
mod packkeys;
mod plans;
pub mod policy;
mod reading;
mod rebase;
mod rekey;
mod retained;
mod rotate;
mod salvage;
mod sealed;
mod session;
mod side;
mod snapshots;
mod sweep;
mod sync;
mod verified;
mod worth;
mod writer;

pub use blobs::{Failed, FrameCache};
pub use chains::{Gone, Proof};
pub use create::{IdKey, NewTenant, Terms, add_tenant, add_tenant_like, init, init_like, repository_id, tenants};
pub use damage::KnownDamage;
pub use erase::{ErasedSlot, Erasure, Receipt, Sum as ErasedSum, Survey, held, survey};
pub use forget::Forgot;
pub use frames::FrameSet;
pub use holds::Held;
pub use kept::FrameNumber;
pub use keys::{NewKey, Secret};
pub use lasting::lasting;
pub use local::LocalFolder;
pub use mirror::{MirrorPlace, begin_mirror, mirror_place, put_once};
pub use open::Access;
pub use operator::{known_operator, lacking_operator, remember_operator, with_recipient};
pub use packing::{Packed, TakeFrame};
pub use plans::{Announced, Fate, Plans};
pub use reading::{Decoded, Planned, Reading, Trust, Visit};
pub use rebase::Rebase;
pub use rekey::{Fate as SlotFate, Rekey, Rekeyed};
pub use retained::{Retained, delete_all};
pub use rotate::Rotated;
pub use session::{Counting, Session, UNABLE};
pub use side::{ask, ask_and_open};
pub use snapshots::SnapshotObject;
pub use sweep::drop_tenant;
pub use verified::{Thoroughness, Times, Verified};
pub use writer::{Deltas, Lane, Stored, Tries, Writer, WriterState, WriterTotals};

use crate::chunker::Chunker;
use crate::clock::Clock;
use crate::crypto::aead::KeyBytes;
use crate::crypto::derive::IdKeys;
use crate::crypto::envelope::Realm;
use crate::crypto::hpke::{PrivateKey, PublicKey};
use crate::crypto::sign::Signing;
use crate::crypto::stack;
use crate::error::{Error, Result};
use crate::format::header::{Cipher, Header, ObjectType};
use crate::format::key::{Role, SignerList};
use crate::format::names::TenantNames;
use crate::format::parity::Parity;
use crate::id::{RepositoryId, SignerId, SlotId, TenantId};
use crate::index::Index;
use crate::store::Store;
use std::collections::HashSet;
use std::sync::Arc;
use zeroize::Zeroizing;

/// What only a full key holds.
struct FullKeys {
    /// The tenant's private key, and those that it had before.
    private: PrivateKey,
    /// Their public halves, in the same order.
    publics: Vec<PublicKey>,
    tenant_signing: Signing,
    /// Their bytes: kept so that a full key can admit another.
    private_keys: Zeroizing<Vec<[u8; 32]>>,
    tenant_seed: KeyBytes,
}

/// A repository, open for one tenant.
pub struct Repository {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    /// False where the store was found to ignore the condition of a create.
    creates_if_absent: bool,
    /// True for a mirror.
    is_mirror: bool,
    id: RepositoryId,
    names: TenantNames,
    tenant: TenantId,
    tenant_verifying: SignerId,
    cipher: Cipher,
    /// The slot that was opened.
    slot: SlotId,
    /// Secrets lie on the heap: a repository that is moved leaves none behind.
    keys: Box<IdKeys>,
    /// What new objects are sealed to.
    public: PublicKey,
    full: Option<Box<FullKeys>>,
    signing: Box<Signing>,
    signers: SignerList,
    index: Index,
    local: LocalFolder,
    chunker: Chunker,
    /// What is damaged of it; where anything is, it is only read.
    salvaged: Vec<Error>,
    frames: FrameCache,
    pack_keys: packkeys::PackKeys,
    mended: mended::MendedPacks,
    /// Kept so that keys can be admitted.
    id_key: Box<KeyBytes>,
}

impl Drop for Repository {
    /// The keys wipe themselves; this is for what their use has left.
    fn drop(&mut self) {
        stack::wipe();
    }
}

impl Repository {
    /// False where the store was found, when the repository was made, to replace objects that it was asked to
    /// create only if absent.
    pub fn creates_if_absent(&self) -> bool {
        self.creates_if_absent
    }

    /// True for a mirror: nothing is backed up there, and nothing pruned.
    pub fn is_mirror(&self) -> bool {
        self.is_mirror
    }

    /// That the place is no mirror: what is written there beside the source would be deleted as what the source
    /// does not have.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is one.
    pub fn not_a_mirror(&self) -> Result<()> {
        match self.is_mirror {
            false => Ok(()),
            true => Err(Error::Invalid(format!(
                "{} is a mirror: back up and prune at its source, and bring that here by 'copy --raw' ('--delete' for \
                 what was pruned); if the source is lost, copy the mirror to a repository of its own",
                self.store.describe()
            ))),
        }
    }

    /// The repository's id.
    pub fn id(&self) -> RepositoryId {
        self.id
    }

    /// The tenant's id.
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// The tenant's name.
    pub fn tenant_name(&self) -> &str {
        self.names.name()
    }

    /// The names of the tenant's objects.
    pub fn names(&self) -> &TenantNames {
        &self.names
    }

    /// What the key in use may do.
    pub fn role(&self) -> Role {
        if self.full.is_some() { Role::Full } else { Role::Writer }
    }

    /// How much parity new packs get, as it was when the repository was opened.
    pub fn parity(&self) -> Parity {
        self.signers.parity
    }

    /// The cipher of new objects.
    pub fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// Where the repository lies.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The clock.
    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// The index on this machine.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The keys that every key of the tenant derives.
    pub fn id_keys(&self) -> &IdKeys {
        &self.keys
    }

    /// The key from which the tenant's ids follow, for another tenant that is to have the same.
    pub fn id_key(&self) -> IdKey {
        IdKey((*self.id_key).clone())
    }

    /// True if equal content has equal ids in both.
    pub fn has_ids_of(&self, other: &Self) -> bool {
        *self.id_key == *other.id_key
    }

    /// The tenant's chunker.
    pub fn chunker(&self) -> &Chunker {
        &self.chunker
    }

    /// The folder for local state.
    pub fn local(&self) -> &LocalFolder {
        &self.local
    }

    /// The slot of the key in use.
    pub fn slot(&self) -> SlotId {
        self.slot
    }

    /// The public half of the key in use.
    pub fn signer(&self) -> SignerId {
        self.signing.id()
    }

    /// The tenant's fingerprint: who knows it can tell this tenant from a forged one.
    pub fn fingerprint(&self) -> SignerId {
        self.tenant_verifying
    }

    /// The list of signers, as it was when the repository was opened.
    pub fn signers(&self) -> &SignerList {
        &self.signers
    }

    /// The tenant, as envelopes need it.
    pub fn realm(&self) -> Realm<'_> {
        Realm { tenant: self.tenant, keys: &self.keys }
    }

    fn header(&self, object: ObjectType) -> Header {
        Header { object, cipher: self.cipher }
    }

    /// The tenant's private key.
    ///
    /// # Errors
    /// [`Error::NotAllowed`] with a writer key.
    pub fn private_key(&self) -> Result<&PrivateKey> {
        self.full.as_ref().map(|f| &f.private).ok_or(Error::NotAllowed { what: "read what was stored" })
    }

    fn tenant_signing(&self, what: &'static str) -> Result<&Signing> {
        self.writable()?;
        self.full.as_ref().map(|f| &f.tenant_signing).ok_or(Error::NotAllowed { what })
    }

    /// True if records by this signer are read at all: the tenant's own key, or anyone admitted.
    pub fn is_admitted(&self, signer: &SignerId) -> bool {
        *signer == self.tenant_verifying || self.signers.signers.iter().any(|s| s.id == *signer)
    }

    /// True if this signer's word counts as a full key's.
    pub fn is_full(&self, signer: &SignerId) -> bool {
        *signer == self.tenant_verifying
            || self.signers.signers.iter().any(|s| s.id == *signer && s.role == Role::Full && s.removed.is_none())
    }

    /// The label of a signer, for people.
    pub fn signer_label(&self, signer: &SignerId) -> String {
        match self.signers.signers.iter().find(|s| s.id == *signer) {
            Some(s) if !s.label.is_empty() => s.label.clone(),
            _ => signer.short(),
        }
    }

    /// All signers whose word counts where index objects say which others they replace. At a mirror nobody's: it
    /// keeps what was pruned at the source, and what that needs, until both are deleted there.
    fn replacing_signers(&self) -> HashSet<SignerId> {
        if self.is_mirror { HashSet::new() } else { self.full_signers() }
    }

    /// All signers whose word counts as a full key's.
    fn full_signers(&self) -> HashSet<SignerId> {
        full_signers(&self.signers, self.tenant_verifying)
    }
}

/// The tenant's own key, and the full ones that its list admits.
fn full_signers(list: &SignerList, tenant: SignerId) -> HashSet<SignerId> {
    let full = list.signers.iter().filter(|s| s.role == Role::Full && s.removed.is_none());
    full.map(|s| s.id).chain([tenant]).collect()
}
