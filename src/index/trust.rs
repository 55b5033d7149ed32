//! Which copies of a blob are tried first: those in entries that the key in use
//! signed, or a full key, or for which a full key vouches. Anybody else's word may
//! name any number of false ones. Orders what is found, and leaves nothing out.

use super::{EntryNumber, Index, lock};
use crate::error::Result;
use crate::format::index::IndexObject;
use crate::id::SignerId;
use std::collections::HashSet;
use std::sync::{Arc, Mutex};

/// Whose word counts, and which entries have nobody's whose does.
#[derive(Default)]
pub(super) struct Trust {
    own: Option<SignerId>,
    full: HashSet<SignerId>,
    /// Found out when it is asked for first.
    doubtful: Mutex<Option<Arc<HashSet<EntryNumber>>>>,
}

impl Trust {
    fn counts(&self, signer: &SignerId) -> bool {
        self.own.as_ref() == Some(signer) || self.full.contains(signer)
    }

    /// An object was taken in: it may bring entries of others, or vouch for some.
    pub(super) fn hear(&self, signer: &SignerId, object: &IndexObject) {
        if !self.counts(signer) || !object.vouched.is_empty() {
            *lock(&self.doubtful) = None;
        }
    }
}

impl Index {
    /// The same for a key: copies of which it says itself where they lie, or full keys do, are found before
    /// others. Without this all are alike.
    #[must_use]
    pub fn trusting(mut self, own: SignerId, full: HashSet<SignerId>) -> Self {
        self.trust = Trust { own: Some(own), full, doubtful: Mutex::default() };
        self
    }

    /// Finds out anew which entries are whose: other processes may have taken in some.
    pub fn weigh_again(&self) {
        *lock(&self.trust.doubtful) = None;
    }

    /// Entries that neither the key in use nor a full key has signed or vouched for.
    pub(super) fn doubtful(&self) -> Result<Arc<HashSet<EntryNumber>>> {
        if let Some(known) = &*lock(&self.trust.doubtful) {
            return Ok(Arc::clone(known));
        }
        let mut doubtful = HashSet::new();
        if self.trust.own.is_some() && self.objects()?.iter().any(|object| !self.trust.counts(&object.signer)) {
            let vouched = self.vouched(&self.trust.full)?;
            let others = self.packs()?.into_iter().filter(|pack| !self.trust.counts(&pack.signer));
            doubtful.extend(others.filter(|pack| !vouched.contains(&pack.vouched())).map(|pack| pack.number));
        }
        let doubtful = Arc::new(doubtful);
        *lock(&self.trust.doubtful) = Some(Arc::clone(&doubtful));
        Ok(doubtful)
    }
}
