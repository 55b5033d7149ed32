//! Snapshots without what is lost of them. The damaged one stays as it is; beside
//! it stands another of the same moment and source, which names it, and lacks
//! what cannot be read. Nothing is taken for whole that is not, and nothing is
//! made twice for the same loss.
//!
//! Each is taken in a session of its own, and committed like a backup: a prune
//! waits for it, and what a crash leaves is what a backup leaves. What a new
//! snapshot names of the old one's trees is needed by that too, so no prune
//! deletes it; while one is under way that has not seen the old one, it is left
//! for later.

mod losses;

pub use losses::Dropped;

use super::index;
use crate::clock::Timestamp;
use crate::crypto::random;
use crate::crypto::stack;
use crate::error::{Error, Result};
use crate::format::manifest::{Manifest, Repaired, SnapshotKind, Summary, Tally};
use crate::id::{PackName, SnapshotId};
use crate::limits;
use crate::maintenance::report::object_of;
use crate::monitor::{Event, Monitor};
use crate::repo::{Deltas, Repository, Session, Writer, WriterState};
use crate::snapshot::{self, Filter, Listing, Snapshot};
use losses::{Finder, Loss};
use std::collections::HashSet;
use std::thread;

/// Which snapshots, and how.
#[derive(Debug, Clone, Default)]
pub struct HowSnapshots {
    /// Snapshots as people name them; none means all.
    pub named: Vec<String>,
    /// Look only, and write nothing.
    pub dry_run: bool,
    /// What wrote the new ones.
    pub program: String,
}

/// A snapshot that has lost something.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Mended {
    /// Which.
    pub snapshot: String,
    /// The one that stands for it; `None` if none was made.
    pub by: Option<String>,
    /// True if that stood there before.
    pub was_there: bool,
    /// Why none was made, if that is not because nothing was to be written.
    pub why_not: Option<String>,
    /// Files that are lost, and their bytes.
    pub files: u64,
    /// See `files`.
    pub bytes: u64,
    /// Folders of which a part is lost.
    pub folders: u64,
    /// What is lost: the first `limits::REPORT_MAX`.
    pub dropped: Vec<Dropped>,
}

/// What a repair of snapshots found and did.
#[derive(Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct SnapshotsReport {
    /// Snapshots that were looked at.
    pub looked: u64,
    /// Snapshots that cannot be opened themselves.
    pub damaged: Vec<String>,
    /// Those that have lost something.
    pub mended: Vec<Mended>,
}

impl SnapshotsReport {
    /// True if nothing is lost for which nothing stands.
    pub fn is_whole(&self) -> bool {
        self.damaged.is_empty() && self.mended.iter().all(|mended| mended.by.is_some())
    }
}

/// Makes snapshots anew without what is lost of them.
///
/// # Errors
/// [`Error::NotAllowed`] with a writer key; [`Error::NotFound`] or [`Error::Invalid`] for a name of no snapshot;
/// [`Error::Damaged`] where the index is damaged, or packs are there that it does not name: then more may seem lost
/// than is. [`Error::Fenced`], [`Error::Interrupted`], or the store's; what was committed until then stays.
pub fn repair_snapshots(repo: &Repository, how: &HowSnapshots, monitor: &dyn Monitor) -> Result<SnapshotsReport> {
    repo.private_key().map_err(|_| Error::NotAllowed { what: "repair snapshots" })?;
    repo.writable()?;
    monitor.event(Event::Phase { name: "reading snapshots", total_bytes: None });
    let mut problems = repo.sync_index()?;
    if !problems.is_empty() {
        let (object, why) = object_of(&problems.swap_remove(0));
        return Err(Error::damaged(object, format!("{why}; the index is to be repaired before")));
    }
    let mut listing = snapshot::list(repo)?;
    let chosen = chosen(&mut listing, how)?;
    let mut repair = Repair {
        repo,
        monitor,
        how,
        finder: Finder::new(repo, monitor)?,
        report: SnapshotsReport::default(),
        chain: random::bytes()?,
        counter: 0,
        previous: None,
    };
    for (id, e) in listing.damaged.iter().filter(|(id, _)| how.named.is_empty() || chosen.contains(id)) {
        repair.report.damaged.push(repo.names().snapshot(id));
        monitor.event(Event::Warning(format!("snapshot {}: {}", id.short(), object_of(e).1)));
    }
    let standing: HashSet<SnapshotId> = listing.snapshots.iter().map(|s| s.id).collect();
    // The newest first: it is what most are waiting for.
    for s in listing.snapshots.iter().rev().filter(|s| chosen.contains(&s.id)) {
        // What it was made of is repaired anew, if it has lost more.
        let stands = s.manifest.repaired.is_some_and(|repaired| standing.contains(&repaired.of));
        if !stands || !how.named.is_empty() {
            repair.snapshot(s, &listing)?;
        }
    }
    Ok(repair.report)
}

fn chosen(listing: &mut Listing, how: &HowSnapshots) -> Result<HashSet<SnapshotId>> {
    if how.named.is_empty() {
        return Ok(listing.snapshots.iter().map(|s| s.id).collect());
    }
    how.named.iter().map(|text| listing.named(text, &Filter::default())).collect()
}

struct Repair<'r> {
    repo: &'r Repository,
    monitor: &'r dyn Monitor,
    how: &'r HowSnapshots,
    finder: Finder<'r>,
    report: SnapshotsReport,
    /// The chain of those that are made now.
    chain: [u8; 16],
    counter: u64,
    previous: Option<SnapshotId>,
}

impl Repair<'_> {
    fn snapshot(&mut self, s: &Snapshot, listing: &Listing) -> Result<()> {
        self.report.looked += 1;
        let loss = self.finder.look(&s.manifest.root)?;
        if loss.is_none() {
            return Ok(());
        }
        self.index_is_whole()?;
        let mut mended = Mended {
            snapshot: s.id.to_string(),
            files: loss.files.entries,
            bytes: loss.files.bytes,
            folders: loss.folders,
            dropped: loss.dropped.clone(),
            ..Mended::default()
        };
        if let Some(twin) = self.twin(s, &loss, listing)? {
            (mended.by, mended.was_there) = (Some(twin.to_string()), true);
        } else if loss.kept == 0 {
            mended.why_not = Some("nothing of it can be read".into());
        } else if !self.how.dry_run {
            match self.make(s)? {
                Ok(id) => mended.by = Some(id.to_string()),
                Err(why) => mended.why_not = Some(why),
            }
        }
        self.report.mended.push(mended);
        Ok(())
    }

    /// Where something is lost that no index object names, a pack that none names may hold it.
    fn index_is_whole(&self) -> Result<()> {
        if !self.finder.is_unindexed {
            return Ok(());
        }
        let repo = self.repo;
        let mut named: HashSet<PackName> = repo.index().packs()?.into_iter().map(|pack| pack.name).collect();
        // What nothing needs any more waits there to be deleted.
        named.extend(index::condemned(repo)?);
        for (name, _) in repo.list_packs()? {
            if !named.contains(&name) && index::says_something(repo, &name)? {
                let why = format!(
                    "no index object names {}, which may hold what is missed: the index is to \
                     be repaired before",
                    repo.names().pack(&name)
                );
                return Err(Error::damaged(repo.names().indexes(), why));
            }
        }
        Ok(())
    }

    /// The snapshot that repairs another with the same loss, and is whole.
    fn twin(&mut self, s: &Snapshot, loss: &Loss, listing: &Listing) -> Result<Option<SnapshotId>> {
        let hash = loss.hash();
        let is_twin = |r: Repaired| r.of == s.id && r.loss == hash;
        for twin in listing.snapshots.iter().filter(|twin| twin.manifest.repaired.is_some_and(is_twin)) {
            if self.finder.look(&twin.manifest.root)?.is_none() {
                return Ok(Some(twin.id));
            }
        }
        Ok(None)
    }

    /// Makes it; or why that has to wait.
    fn make(&mut self, s: &Snapshot) -> Result<Result<SnapshotId, String>> {
        let mut session = Session::begin(self.repo, "repair")?;
        // They are about what a backup reads again.
        session.take_warnings();
        if !session.counting().keeps(&s.id) {
            session.abandon();
            return Ok(Err("a prune is under way that has not seen it: run it to its end before".into()));
        }
        match self.manifest(s, &session) {
            Ok(manifest) => {
                let id = session.commit(&manifest)?;
                (self.counter, self.previous) = (manifest.counter, Some(id));
                Ok(Ok(id))
            }
            Err(e) => {
                session.abandon();
                Err(e)
            }
        }
    }

    fn manifest(&mut self, s: &Snapshot, session: &Session<'_>) -> Result<Manifest> {
        let old = &s.manifest;
        let deltas = match old.kind {
            SnapshotKind::Full => Deltas::Plain,
            SnapshotKind::Differential => Deltas::OnPlain,
            SnapshotKind::Incremental => Deltas::Never,
        };
        let state = WriterState::new(deltas, self.monitor);
        let finder = &mut self.finder;
        let (root, loss, totals) = thread::scope(|scope| {
            let writer = Writer::start(scope, session, &state, limits::ZSTD_LEVEL, 1);
            let rewritten = stack::wiped(|| finder.rewrite(&old.root, writer.lane()));
            // The writer's own error is the cause where both failed.
            let totals = writer.finish()?;
            rewritten.map(|(root, loss)| (root, loss, totals))
        })?;
        let total = Tally {
            entries: old.summary.total.entries.saturating_sub(loss.files.entries),
            bytes: old.summary.total.bytes.saturating_sub(loss.files.bytes),
        };
        let summary = Summary { total, new_bytes: totals.plain, stored_bytes: totals.stored, ..Summary::default() };
        // Of two that show one moment the one that ended later is the later.
        let after = Timestamp { seconds: old.ended.seconds.saturating_add(1), ..old.ended };
        Ok(Manifest {
            time: s.moment(),
            started: old.started,
            ended: self.repo.clock().now().max(after),
            base: None,
            root,
            summary,
            program: self.how.program.clone(),
            chain: self.chain,
            counter: self.counter + 1,
            previous: self.previous,
            repaired: Some(Repaired {
                of: s.id,
                signer: s.owner,
                files: loss.files.entries,
                bytes: loss.files.bytes,
                folders: loss.folders,
                loss: loss.hash(),
            }),
            ..old.clone()
        })
    }
}
