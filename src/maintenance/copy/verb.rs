//! Copying snapshots to another repository or tenant: which of them are not there yet, against what each is
//! held, and the order in which a copy comes to be.
//!
//! At the target a copy is a session like any backup's, beside backups and prunes; at the source it only
//! reads. What a crash leaves is what a backup's leaves: packs and index objects that the next run finds. The
//! manifest comes last, and says whose copy it is: by that the next run knows it.
//!
//! Where both tenants have one id key, frames move as they are ([`super::frames`]). Otherwise content is read
//! in order and cut anew ([`super::feed`], [`super::recut`]).

use super::{feed, frames, recut};
use crate::error::{Error, Result};
use crate::format::content::Content;
use crate::format::manifest::{Manifest, Origin, SnapshotKind, Summary};
use crate::id::SnapshotId;
use crate::monitor::{Event, Monitor};
use crate::repo::{Deltas, Repository, Session, Writer, WriterState, WriterTotals};
use crate::snapshot::{self, Snapshot};
use std::collections::HashMap;
use std::thread;

/// How snapshots are copied.
#[derive(Debug, Clone)]
pub struct Options {
    /// This machine's name, for who asks which sessions run.
    pub host: String,
    /// Only look which are missing.
    pub dry_run: bool,
    /// Copy again what was forgotten at the target, as far as this machine knows that.
    pub again: bool,
    /// zstd level of what is stored whole and compressed anew.
    pub level: i32,
    /// What writes the copies.
    pub program: String,
}

/// A snapshot that was copied, or would be.
#[derive(Debug, Clone)]
pub struct Copied {
    /// At the source.
    pub source: SnapshotId,
    /// At the target; `None` in a dry run.
    pub copy: Option<SnapshotId>,
    /// Plaintext bytes that the target did not have.
    pub new_bytes: u64,
    /// Bytes that they take in packs there.
    pub stored_bytes: u64,
}

/// What a run has done.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// What was copied, oldest first.
    pub copied: Vec<Copied>,
    /// Snapshots that were there already.
    pub known: u64,
    /// Snapshots that were copied once, and forgotten at the target since.
    pub forgotten: u64,
    /// Snapshots that cannot be copied since something that they need is damaged or lost, and why.
    pub failed: Vec<(SnapshotId, String)>,
    /// True if frames moved as they are, since both have the same id key.
    pub same_ids: bool,
}

/// A copy that stands at the target.
#[derive(Clone)]
struct There {
    id: SnapshotId,
    /// Its root, if the key can read it.
    root: Option<Content>,
}

/// Copies `chosen` snapshots, oldest first, of all that the source has.
///
/// # Errors
/// [`Error::Invalid`] if both are one tenant, [`Error::NotAllowed`] if the source's key reads nothing,
/// [`Error::Fenced`], [`Error::Interrupted`], or the stores'. A snapshot that cannot be read whole is no error
/// but in the outcome.
pub fn copy(
    source: &Repository,
    target: &Repository,
    (all, chosen): (&[Snapshot], &[SnapshotId]),
    options: &Options,
    monitor: &dyn Monitor,
) -> Result<Outcome> {
    if source.tenant() == target.tenant() {
        let (one, other) = (source.store().describe(), target.store().describe());
        return Err(Error::Invalid(format!(
            "tenant {} at {one} and tenant {} at {other} are one and the same: nothing can be copied onto itself",
            source.tenant_name(),
            target.tenant_name(),
        )));
    }
    source.private_key()?;
    target.writable()?;
    let mut run = Run {
        source,
        target,
        options,
        monitor,
        all,
        there: HashMap::new(),
        chains: HashMap::new(),
        done: Outcome { same_ids: source.has_ids_of(target), ..Outcome::default() },
    };
    run.find_copies()?;
    for snapshot in all.iter().filter(|s| chosen.contains(&s.id)) {
        if monitor.cancelled() {
            return Err(Error::Interrupted);
        }
        run.snapshot(snapshot)?;
    }
    Ok(run.done)
}

struct Run<'r> {
    source: &'r Repository,
    target: &'r Repository,
    options: &'r Options,
    monitor: &'r dyn Monitor,
    /// All of the source, oldest first.
    all: &'r [Snapshot],
    there: HashMap<Origin, There>,
    /// The newest of each of the key's own chains at the target, and its number.
    chains: HashMap<[u8; 16], (SnapshotId, u64)>,
    done: Outcome,
}

impl Run<'_> {
    /// Finds out what is at the target. A full key reads manifests; a copy that another writer says it made
    /// is none, or it could keep snapshots from being copied. A writer key remembers its own.
    fn find_copies(&mut self) -> Result<()> {
        if self.target.private_key().is_ok() {
            for s in snapshot::list(self.target)?.snapshots {
                let is_own = s.signer == self.target.signer();
                if is_own && self.chains.get(&s.manifest.chain).is_none_or(|newest| newest.1 < s.manifest.counter) {
                    self.chains.insert(s.manifest.chain, (s.id, s.manifest.counter));
                }
                if is_own || self.target.is_full(&s.signer) {
                    let origin = s.origin(self.target.tenant());
                    self.there.insert(origin, There { id: s.id, root: Some(s.manifest.root) });
                }
            }
        }
        let remembered = self.target.copied_from(self.source.tenant());
        if remembered.is_empty() {
            return Ok(());
        }
        let listed = self.target.snapshot_ids()?;
        for (original, id) in remembered {
            let origin = Origin { snapshot: original, tenant: self.source.tenant() };
            if listed.contains(&id) {
                self.there.entry(origin).or_insert(There { id, root: None });
            } else if !self.options.again && !self.there.contains_key(&origin) && self.target.is_forgotten(&id)? {
                self.there.insert(origin, There { id, root: None });
                self.done.forgotten += u64::from(self.all.iter().any(|s| s.id == original));
            }
        }
        Ok(())
    }

    fn origin(&self, snapshot: &Snapshot) -> Origin {
        snapshot.origin(self.source.tenant())
    }

    fn copy_of(&self, snapshot: &Snapshot) -> Option<&There> {
        let own = Origin { snapshot: snapshot.id, tenant: self.source.tenant() };
        self.there.get(&self.origin(snapshot)).or_else(|| self.there.get(&own))
    }

    fn snapshot(&mut self, snapshot: &Snapshot) -> Result<()> {
        if self.copy_of(snapshot).is_some() {
            self.done.known += 1;
            return Ok(());
        }
        if self.options.dry_run {
            let copied = Copied { source: snapshot.id, copy: None, new_bytes: 0, stored_bytes: 0 };
            self.done.copied.push(copied);
            return Ok(());
        }
        match self.take(snapshot) {
            Ok(copied) => self.done.copied.push(copied),
            // What is lost for this one is not lost for all.
            Err(e) if e.is_damage() || e.is_frozen() => {
                self.monitor.event(Event::Warning(format!("snapshot {} is not copied: {e}", snapshot.id.short())));
                self.done.failed.push((snapshot.id, e.to_string()));
            }
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// The newest snapshot of the same source before this one that is at the target: source's root, and copy.
    fn base(&self, snapshot: &Snapshot) -> Option<(&Content, &There)> {
        if snapshot.manifest.kind == SnapshotKind::Full {
            return None;
        }
        let (m, full_only) = (&snapshot.manifest, snapshot.manifest.kind == SnapshotKind::Differential);
        let before = self.all.iter().take_while(|s| s.id != snapshot.id);
        before
            .filter(|s| {
                let b = &s.manifest;
                (&b.host, &b.source, &b.paths, b.source_kind) == (&m.host, &m.source, &m.paths, m.source_kind)
                    && (!full_only || b.kind == SnapshotKind::Full)
            })
            .filter_map(|s| Some((&s.manifest.root, self.copy_of(s).filter(|copy| copy.root.is_some())?)))
            .last()
    }

    fn take(&mut self, snapshot: &Snapshot) -> Result<Copied> {
        let (target, monitor) = (self.target, self.monitor);
        let mut session = Session::begin(target, &self.options.host)?;
        let warnings = session.take_warnings();
        // What an index object said that cannot be read may be what an older copy rests on.
        let is_sure = warnings.is_empty();
        warnings.into_iter().for_each(|warning| monitor.event(Event::Warning(warning)));
        let base = self.base(snapshot).filter(|(_, copy)| is_sure && session.counting().trusts(&copy.id));
        let base = base.and_then(|(root, copy)| Some((root, copy.root.as_ref()?)));
        monitor.event(Event::Phase { name: "copying", total_bytes: None });
        let stored = self.store(&session, snapshot, base);
        let (root, totals) = match stored {
            Ok(stored) => stored,
            Err(e) => {
                session.abandon();
                return Err(e);
            }
        };
        let manifest = self.manifest(snapshot, root, totals);
        let id = session.commit(&manifest)?;
        target.remember_snapshot(&id, &manifest);
        target.remember_copy(self.source.tenant(), &snapshot.id, &id);
        self.chains.insert(manifest.chain, (id, manifest.counter));
        let is_readable = target.private_key().is_ok();
        let there = There { id, root: is_readable.then(|| manifest.root.clone()) };
        self.there.insert(self.origin(snapshot), there);
        Ok(Copied { source: snapshot.id, copy: Some(id), new_bytes: totals.plain, stored_bytes: totals.stored })
    }

    /// Stores all that a snapshot needs; its root at the target.
    fn store(
        &self,
        session: &Session<'_>,
        snapshot: &Snapshot,
        base: Option<(&Content, &Content)>,
    ) -> Result<(Content, WriterTotals)> {
        let (source, target, monitor) = (self.source, self.target, self.monitor);
        let deltas = match (snapshot.manifest.kind, snapshot.manifest.base) {
            (SnapshotKind::Full, _) => Deltas::Plain,
            (SnapshotKind::Differential, _) => Deltas::OnPlain,
            (SnapshotKind::Incremental, _) => Deltas::Chains,
        };
        let state = WriterState::new(deltas, monitor);
        let state = if target.store().is_far() { state.frugal() } else { state };
        let threads = thread::available_parallelism().map_or(2, usize::from);
        let root = &snapshot.manifest.root;
        thread::scope(|scope| {
            let writer = Writer::start(scope, session, &state, self.options.level, threads);
            let brought = if self.done.same_ids {
                frames::bring(source, writer.lane(), (root, base.map(|(old, _)| old)), deltas, monitor)
                    .map(|()| root.clone())
            } else {
                let base = base.map(|(old, copy)| feed::Pair { source: old.clone(), copy: copy.clone() });
                recut::bring(source, target, &writer, (root, base), monitor)
            };
            // Of two errors the writer's own is the cause, but where it only heard that others had stopped.
            let totals = writer.finish();
            match (brought, totals) {
                (Ok(root), Ok(totals)) => Ok((root, totals)),
                (Err(e), Ok(_)) => Err(e),
                (_, Err(e)) => Err(e),
            }
        })
    }

    /// The copy's manifest: what the original says, and where it comes from. Chains are the target's: one for
    /// each chain of the source, by the order in which copies are made.
    fn manifest(&self, snapshot: &Snapshot, root: Content, totals: WriterTotals) -> Manifest {
        let m = &snapshot.manifest;
        let mut hash = blake3::Hasher::new();
        hash.update(b"estrato copy").update(self.source.tenant().as_bytes()).update(&m.chain);
        let mut chain = [0; 16];
        chain.copy_from_slice(&hash.finalize().as_bytes()[..16]);
        let known = self.chains.get(&chain).copied();
        let remembered = self.target.newest_in_chain(&chain);
        let counter = known.iter().chain(&remembered).map(|(_, counter)| *counter).max().unwrap_or(0) + 1;
        let previous = known.map(|(id, _)| id);
        let base = m.base.and_then(|base| self.all.iter().find(|s| s.id == base));
        Manifest {
            base: base.and_then(|base| self.copy_of(base)).map(|copy| copy.id),
            root,
            summary: Summary { new_bytes: totals.plain, stored_bytes: totals.stored, ..m.summary },
            program: self.options.program.clone(),
            chain,
            counter,
            previous,
            origin: Some(self.origin(snapshot)),
            // The one for which it stands is not there, nor who signed that.
            repaired: None,
            ..m.clone()
        }
    }
}
