//! Putting a stream's blobs so that what is new of it is stored as what it
//! replaces: new blobs wait until both streams have a blob in common again, and
//! go to the writer as one run, together with the blobs that stood there before.
//! Where there is no old stream, or it cannot be read, they are put as they come.

use super::align::Align;
use crate::error::Result;
use crate::format::content::Content;
use crate::format::pack::BlobKind;
use crate::id::BlobId;
use crate::limits;
use crate::pack::PlainFrame;
use crate::repo::{Lane, Tries};
use crate::snapshot;

/// What a stream is held against, and how that has fared.
#[derive(Debug, Clone, Default)]
pub struct Old {
    /// What the older stream is made of; empty if there is none.
    pub content: Content,
    /// Shared by all that are held against others for the same reason.
    pub tries: Tries,
}

impl From<Content> for Old {
    fn from(content: Content) -> Self {
        Self { content, tries: Tries::default() }
    }
}

/// The blobs of one stream, on their way.
pub struct Replace<'r> {
    kind: BlobKind,
    old: Option<Align<'r>>,
    /// New blobs since the last one that both streams have.
    run: PlainFrame,
    /// Bytes of the stream that the run stands for: of lists it is what lies below them.
    covered: u64,
    tries: Tries,
}

impl<'r> Replace<'r> {
    /// A stream of `kind` that replaces the blobs at `level` of the stream `old`.
    pub fn new(kind: BlobKind, old: &Content, level: u8, lane: &Lane<'r>) -> Self {
        let readable = lane.makes_deltas(kind) && old.level >= level && !old.is_empty();
        let old = readable.then(|| Align::new(snapshot::lists_at(lane.repository(), old, level)));
        Self { kind, old, run: PlainFrame::new(kind), covered: 0, tries: Tries::default() }
    }

    /// The same, where others that fared badly count too.
    pub fn sharing(self, tries: Tries) -> Self {
        Self { tries, ..self }
    }

    /// Takes the next blob of the stream, which stands for `covers` bytes of it; returns its id.
    ///
    /// # Errors
    /// The lane's.
    pub fn put(&mut self, blob: &[u8], covers: u64, lane: &mut Lane<'r>) -> Result<BlobId> {
        let Some(old) = &mut self.old else { return Ok(lane.put(self.kind, blob)?.0) };
        let id = lane.id(self.kind, blob);
        let is_stored = lane.is_stored(&id)?;
        match old.meet(&id, is_stored) {
            Ok(None) => {}
            Ok(Some(replaced)) => self.hand_over(replaced, lane)?,
            Err(e) if e.is_damage() => {
                lane.warn(&e, "what is new of it is stored whole");
                self.old = None;
                self.hand_over(Vec::new(), lane)?;
            }
            Err(e) => return Err(e),
        }
        if !is_stored {
            if !self.run.fits(blob.len()) || self.run.bytes.len() >= limits::RUN_PLAIN_MAX {
                self.hand_over_guessed(lane)?;
            }
            self.run.push(id, blob);
            self.covered += covers;
        }
        Ok(id)
    }

    /// Hands over where no blob says what the run replaces.
    fn hand_over_guessed(&mut self, lane: &mut Lane<'r>) -> Result<()> {
        let replaced = self.old.as_mut().map(|old| old.guess(self.covered));
        self.hand_over(replaced.unwrap_or_default(), lane)
    }

    fn hand_over(&mut self, replaced: Vec<BlobId>, lane: &mut Lane<'r>) -> Result<()> {
        if self.run.lens.is_empty() {
            return Ok(());
        }
        self.covered = 0;
        let run = std::mem::replace(&mut self.run, PlainFrame::new(self.kind));
        lane.put_run(run, replaced, &self.tries)
    }

    /// The stream has ended.
    ///
    /// # Errors
    /// The lane's.
    pub fn finish(mut self, lane: &mut Lane<'r>) -> Result<()> {
        self.hand_over_guessed(lane)
    }
}
