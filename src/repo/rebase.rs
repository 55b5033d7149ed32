//! Other bases for what is stored already: further down than those on which it rests, or where a writer's key
//! could have none. Reads what it is to rest on; stores nothing, and decides on nothing that goes.

use super::bases::Chooser;
use super::{Counting, Repository};
use crate::error::Result;
use crate::format::pack::{BlobKind, Frame};
use crate::id::BlobId;
use crate::index::{BlobCopy, EntryNumber, Hint};
use crate::pack::Bases;

/// Finds bases among some entries.
pub struct Rebase<'r>(Chooser<'r>);

impl<'r> Rebase<'r> {
    /// Over what counts; nothing rests on what lies deeper than `deepest`.
    pub fn new(repo: &'r Repository, counting: &'r Counting, deepest: u8) -> Self {
        Self(Chooser { repo, counting, deepest, worth: None, hint: Hint::default() })
    }

    /// The bases of a run of `len` bytes that replaces these blobs; `None` if there are none.
    ///
    /// # Errors
    /// The store's, and the damage of a base.
    pub fn on(&mut self, kind: BlobKind, replaced: &[BlobId], len: usize) -> Result<Option<Bases>> {
        self.0.bases(kind, replaced, len)
    }

    /// What a frame can rest on that lies below its bases, and where `may_rest` says so of each copy; `None` if
    /// that is nothing, or as much as to be no help.
    ///
    /// # Errors
    /// The store's, and the damage of a base.
    pub fn below(&mut self, frame: &Frame, may_rest: &dyn Fn(&BlobCopy) -> bool) -> Result<Option<Bases>> {
        self.0.lower(frame, may_rest)
    }
}

impl Counting {
    /// Entries that are relied on where no session runs.
    pub fn relying_on(entries: impl IntoIterator<Item = EntryNumber>) -> Self {
        let counting = Self::default();
        counting.accept(entries.into_iter().collect());
        counting
    }
}
