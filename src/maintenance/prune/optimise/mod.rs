//! Writing anew what rests badly: before a prune, so that what is replaced goes with it.
//!
//! Two moves. Chains are flattened (`flatten`): frames of each source's newest
//! snapshot that lie deep, and frames that rest on such as only serve them. What a
//! writer's key stored whole, since it can read nothing, is made a delta of what it
//! replaces (`deltas`).
//!
//! Nothing is taken away here: the new copies are published beside the old ones, as
//! a backup's would be, each decoded and held against its ids. The prune that comes
//! after walks what snapshots need anew, takes the new copies first, and whatever
//! still needs an old one keeps it. So no cycle can come to be, nobody loses a copy
//! on which it rests, and what a crash leaves is blobs that stand twice.

mod deltas;
mod flatten;

use super::{Seen, look, standings};
use crate::error::{Error, Result};
use crate::format::pack::{BlobKind, TAG_LEN};
use crate::id::{BlobId, PackName};
use crate::limits;
use crate::monitor::{Event, Monitor};
use crate::pack::{Bases, Compressor, EncodedFrame, PlainFrame};
use crate::repo::{Repository, Session, TakeFrame};
use std::collections::{HashMap, HashSet};

/// How far chains are flattened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Optimise {
    /// Frames of the newest snapshots rest no deeper than this; 0: on nothing.
    pub deepest: u8,
}

/// What was written anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Rewritten {
    /// Blobs.
    pub blobs: u64,
    /// Their plaintext, bytes.
    pub plain_bytes: u64,
    /// What they take where they lay, bytes, about.
    pub before_bytes: u64,
    /// What they take now, bytes.
    pub after_bytes: u64,
}

/// What [`optimise`] has done.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct Optimised {
    /// Chains that are shorter.
    pub flattened: Rewritten,
    /// Plain copies of a writer's that are deltas.
    pub deltas: Rewritten,
    /// Stored bytes that were read for it, about.
    pub read_bytes: u64,
    /// The packs with the new copies.
    #[serde(skip)]
    pub packs: HashSet<PackName>,
}

/// Writes anew what rests badly. Does nothing while a plan is in force: the prune that takes it up comes first.
/// If `is_dry`, all is read and compressed, and nothing stored.
///
/// # Errors
/// [`Error::NotAllowed`] with a writer key; [`Error::Damaged`] or [`Error::Missing`] where not all can be known
/// that snapshots need; [`Error::Interrupted`], or the store's. What was stored until then stays.
pub fn optimise(repo: &Repository, options: Optimise, is_dry: bool, monitor: &dyn Monitor) -> Result<Optimised> {
    repo.private_key().map_err(|_| Error::NotAllowed { what: "prune" })?;
    if !is_dry {
        repo.writable()?;
        repo.not_a_mirror()?;
    }
    let mut plans = repo.plans()?;
    if !plans.damaged.is_empty() {
        return Err(plans.damaged.swap_remove(0));
    }
    if plans.in_force.is_some() || repo.store().freezes() {
        return Ok(Optimised::default());
    }
    let left: HashSet<PackName> = plans.left.iter().map(|left| left.pack).collect();
    // What is stored and not indexed yet would be left over to another prune.
    let session = if is_dry { None } else { Some(Session::announce(repo, "prune")?) };
    let done = rewrite(repo, options, &left, session.as_ref(), monitor);
    if let Some(session) = session {
        session.abandon();
    }
    done
}

fn rewrite(
    repo: &Repository,
    options: Optimise,
    left: &HashSet<PackName>,
    session: Option<&Session<'_>>,
    monitor: &dyn Monitor,
) -> Result<Optimised> {
    monitor.event(Event::Phase { name: "looking for what rests badly", total_bytes: None });
    let Seen { snapshots, mut listed } = look(repo, &HashSet::new())?;
    listed.retain(|name, _| !left.contains(name));
    let standing = standings(repo, &listed, &HashSet::new())?;
    let flatten = flatten::find(repo, &snapshots, &standing, options, monitor)?;
    let deltas = if options.deepest > 0 { deltas::find(repo, &snapshots, &standing, monitor)? } else { Vec::new() };
    let mut done = Optimised::default();
    if flatten.is_empty() && deltas.is_empty() {
        return Ok(done);
    }
    monitor.event(Event::Phase { name: "writing anew what rests badly", total_bytes: None });
    let mut fill = |store: &TakeFrame<'_>| {
        let mut writing = Writing::new(repo, store, session)?;
        done.flattened = flatten.write(&standing, options, &mut writing, monitor)?;
        writing.flush()?;
        done.deltas = deltas::write(&deltas, &standing, options, &mut writing, monitor)?;
        done.read_bytes = writing.read;
        Ok(())
    };
    if session.is_none() {
        fill(&|_| Ok(()))?;
        return Ok(done);
    }
    repo.store_frames(fill)?;
    let known = repo.index().packs()?.into_iter().map(|pack| pack.name);
    done.packs = known.filter(|name| !listed.contains_key(name) && !left.contains(name)).collect();
    Ok(done)
}

/// New frames, on their way to packs.
struct Writing<'w> {
    repo: &'w Repository,
    store: &'w TakeFrame<'w>,
    session: Option<&'w Session<'w>>,
    compressor: Compressor,
    /// Blobs that rest on nothing, until they fill a frame.
    open: HashMap<BlobKind, PlainFrame>,
    /// Stored bytes of what was taken.
    written: u64,
    /// Stored bytes of what was read, about.
    read: u64,
}

impl<'w> Writing<'w> {
    fn new(repo: &'w Repository, store: &'w TakeFrame<'w>, session: Option<&'w Session<'w>>) -> Result<Self> {
        let compressor = Compressor::new(limits::ZSTD_LEVEL)?;
        Ok(Self { repo, store, session, compressor, open: HashMap::new(), written: 0, read: 0 })
    }

    /// The blobs of a run, each held against its id.
    fn run(&mut self, kind: BlobKind, ids: impl Iterator<Item = BlobId>) -> Result<PlainFrame> {
        let mut run = PlainFrame::new(kind);
        for id in ids {
            let blob = self.repo.blob(kind, &id)?;
            if !run.fits(blob.len()) {
                return Err(Error::damaged(format!("blob {id}"), "a run of more than a frame holds"));
            }
            run.push(id, &blob);
        }
        Ok(run)
    }

    /// A run as a delta, if that is worth it.
    fn delta(&mut self, run: &PlainFrame, bases: Option<&Bases>) -> Result<Option<EncodedFrame>> {
        match bases {
            Some(bases) => self.compressor.delta(run, bases),
            None => Ok(None),
        }
    }

    fn put(&mut self, frame: EncodedFrame) -> Result<()> {
        self.written += (frame.payload.len() + TAG_LEN) as u64;
        self.session.map_or(Ok(()), Session::renew_if_due)?;
        (self.store)(frame)
    }

    /// Stores a run on nothing, together with others.
    fn put_plain(&mut self, run: &PlainFrame) -> Result<()> {
        for (id, blob) in run.blobs() {
            let frame = self.open.entry(run.kind).or_insert_with(|| PlainFrame::new(run.kind));
            let full = !frame.fits(blob.len()) || frame.bytes.len() + blob.len() > limits::RUN_FRAME_PLAIN;
            let full = (full && !frame.ids.is_empty()).then(|| std::mem::replace(frame, PlainFrame::new(run.kind)));
            frame.push(id, blob);
            if let Some(full) = full {
                let (encoded, _) = self.compressor.encode(full)?;
                self.put(encoded)?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        for frame in std::mem::take(&mut self.open).into_values().filter(|frame| !frame.ids.is_empty()) {
            let (encoded, _) = self.compressor.encode(frame)?;
            self.put(encoded)?;
        }
        Ok(())
    }
}
