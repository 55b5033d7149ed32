//! What a tenant's packs hold, by the index: plain and delta frames, how deep
//! they rest on one another, and what that saves. Reads the index alone.

use crate::error::Result;
use crate::format::pack::{BlobKind, Frame};
use crate::limits;
use crate::repo::Repository;
use std::collections::HashSet;

/// Frames of one kind of blob.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Frames {
    /// What their blobs are.
    pub kind: &'static str,
    /// Plain frames.
    pub plain: Sums,
    /// Delta frames.
    pub delta: Sums,
    /// Frames at each depth, from 0 on.
    pub depths: Vec<u64>,
    /// Bases that delta frames name.
    pub bases: u64,
    /// What the delta frames would take if they were as well compressed as the plain ones, less what
    /// they take, bytes: an estimate.
    pub saved: u64,
}

/// Sums over frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Sums {
    /// Frames.
    pub frames: u64,
    /// Their blobs.
    pub blobs: u64,
    /// Their plaintext, bytes.
    pub plain_bytes: u64,
    /// What they take, bytes.
    pub stored_bytes: u64,
}

impl Sums {
    fn add(&mut self, frame: &Frame) {
        self.frames += 1;
        self.blobs += frame.lens.len() as u64;
        self.plain_bytes += frame.plain_len() as u64;
        self.stored_bytes += u64::from(frame.stored);
    }
}

/// What a tenant's packs hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Stats {
    /// Packs that the index names.
    pub packs: u64,
    /// Their size, bytes.
    pub pack_bytes: u64,
    /// Index objects in the store.
    pub index_objects: u64,
    /// Their size, bytes.
    pub index_bytes: u64,
    /// Snapshots, tombstones included.
    pub snapshots: u64,
    /// Chunks, trees, content lists.
    pub frames: Vec<Frames>,
    /// Recovery shards that new packs get for a thousand others; 0 for no parity.
    pub parity_per_mille: u16,
}

impl Frames {
    fn add(&mut self, frame: &Frame) {
        let sums = if frame.depth == 0 { &mut self.plain } else { &mut self.delta };
        sums.add(frame);
        self.bases += frame.bases.len() as u64;
        if let Some(depth) = self.depths.get_mut(usize::from(frame.depth)) {
            *depth += 1;
        }
    }

    fn finish(&mut self) {
        let (plain, delta) = (self.plain, self.delta);
        if plain.plain_bytes > 0 {
            let alone =
                u128::from(delta.plain_bytes) * u128::from(plain.stored_bytes) / u128::from(plain.plain_bytes);
            self.saved = u64::try_from(alone).unwrap_or(u64::MAX).saturating_sub(delta.stored_bytes);
        }
        let used = self.depths.iter().rposition(|n| *n > 0).map_or(0, |last| last + 1);
        self.depths.truncate(used);
    }
}

/// Counts what the index names. A pack that two index objects name is counted once.
///
/// # Errors
/// The store's, and the local index's.
pub fn stats(repo: &Repository) -> Result<(Stats, Vec<crate::error::Error>)> {
    let problems = repo.sync_index()?;
    let depths = vec![0; usize::from(limits::FRAME_DEPTH_MAX) + 1];
    let mut kinds = [(BlobKind::Chunk, "chunks"), (BlobKind::Tree, "trees"), (BlobKind::List, "content lists")]
        .map(|(of, kind)| (of, Frames { kind, depths: depths.clone(), ..Frames::default() }));
    let listed = repo.store().list(&repo.names().indexes())?;
    let mut stats = Stats {
        index_objects: listed.len() as u64,
        index_bytes: listed.iter().map(|o| o.size).sum(),
        snapshots: repo.snapshot_ids()?.len() as u64,
        parity_per_mille: repo.parity().number(),
        ..Stats::default()
    };
    let mut seen = HashSet::new();
    for known in repo.index().packs()? {
        if !seen.insert(known.name) {
            continue;
        }
        stats.packs += 1;
        stats.pack_bytes = stats.pack_bytes.saturating_add(known.size);
        let Some(pack) = repo.index().pack(known.number)? else { continue };
        for (_, frame) in pack.frames() {
            kinds.iter_mut().filter(|(kind, _)| *kind == frame.kind).for_each(|(_, frames)| frames.add(frame));
        }
    }
    kinds.iter_mut().for_each(|(_, frames)| frames.finish());
    stats.frames = kinds.into_iter().map(|(_, frames)| frames).collect();
    Ok((stats, problems))
}
