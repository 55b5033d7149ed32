//! Which copies can be relied on, as far as a check has found out, and for
//! those that cannot be, which object is at fault. A delta frame is as sound as
//! what it rests on.

use crate::error::Result;
use crate::format::pack::Frame;
use crate::id::BaseId;
use crate::index::{BlobCopy, EntryNumber};
use crate::limits;
use crate::repo::Repository;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

/// A frame of an entry.
pub(super) type FrameName = (EntryNumber, u32);

/// Delta frames of which is remembered whether they are sound.
const REMEMBERED: usize = 1 << 20;

/// What is known against copies.
#[derive(Default)]
pub(super) struct Sound {
    /// Frames that are not what an entry of the index says.
    pub bad_frames: HashMap<EntryNumber, HashSet<u32>>,
    /// Frames that could not be decoded since something below them is damaged: that object.
    pub resting: HashMap<FrameName, String>,
    /// Entries whose pack is missing, or of another size.
    pub gone: HashSet<EntryNumber>,
    /// Entries that only this machine still knows, and the index object that is damaged.
    pub doubtful: HashMap<EntryNumber, String>,
    /// What was found out about delta frames.
    deltas: RefCell<HashMap<FrameName, Option<String>>>,
}

impl Sound {
    /// The object for whose sake a copy cannot be relied on; `None` if it can be.
    ///
    /// # Errors
    /// The local index's.
    pub fn fault(&self, repo: &Repository, copy: &BlobCopy) -> Result<Option<String>> {
        let name = (copy.entry(), copy.frame_number());
        let bad = self.bad_frames.get(&name.0).is_some_and(|frames| frames.contains(&name.1));
        if bad || self.gone.contains(&name.0) {
            return Ok(Some(repo.names().pack(&copy.pack())));
        }
        if let Some(object) = self.doubtful.get(&name.0).or_else(|| self.resting.get(&name)) {
            return Ok(Some(object.clone()));
        }
        if copy.depth() == 0 {
            return Ok(None);
        }
        if let Some(known) = self.deltas.borrow().get(&name) {
            return Ok(known.clone());
        }
        let fault = self.fault_below(repo, copy.frame())?;
        let mut deltas = self.deltas.borrow_mut();
        if deltas.len() >= REMEMBERED {
            deltas.clear();
        }
        deltas.insert(name, fault.clone());
        Ok(fault)
    }

    fn fault_below(&self, repo: &Repository, frame: &Frame) -> Result<Option<String>> {
        let mut plain = 0;
        for base in &frame.bases {
            match self.base_fault(repo, frame, base)? {
                Ok(len) => plain += len,
                Err(object) => return Ok(Some(object)),
            }
        }
        // No reader takes more.
        let is_readable = plain <= limits::FRAME_BASE_PLAIN_MAX;
        Ok((!is_readable).then(|| repo.names().indexes()))
    }

    /// Depths strictly descend, so this ends, and after `limits::FRAME_DEPTH_MAX` steps at the latest.
    fn base_fault(&self, repo: &Repository, frame: &Frame, base: &BaseId) -> Result<Result<usize, String>> {
        let mut first = None;
        for copy in repo.index().base_copies(base)?.iter().filter(|copy| copy.depth() < frame.depth) {
            match self.fault(repo, copy)? {
                None => return Ok(Ok(copy.size() as usize)),
                Some(object) => first = first.or(Some(object)),
            }
        }
        Ok(Err(first.unwrap_or_else(|| repo.names().indexes())))
    }
}
