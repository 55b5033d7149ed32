//! The sealed bytes of a group of planned frames, as they lie in the store: frames that lie close together
//! come with one request. Nothing is opened here.

use super::Repository;
use super::kept::FrameNumber;
use super::reading::{Planned, Reading};
use crate::error::{Error, Result};
use crate::limits;
use std::collections::HashMap;

/// Sealed bytes of some frames of a pack.
struct Span {
    bytes: Vec<u8>,
    begin: u64,
}

/// The sealed bytes of a group's frames.
#[derive(Default)]
pub(super) struct Sealed {
    group: Vec<FrameNumber>,
    spans: Vec<Span>,
    of: HashMap<FrameNumber, usize>,
}

impl Sealed {
    /// Fetches the frames of a group: those that lie close together, by one entry, with one request. The keys
    /// of their packs are asked for with them, so that who decodes finds them known.
    ///
    /// # Errors
    /// The store's. What is damaged, gone or frozen is left out, to be asked for frame by frame.
    pub fn fetch(repo: &Repository, plan: &Reading, group: &[FrameNumber]) -> Result<Self> {
        let mut order: Vec<(FrameNumber, &Planned)> =
            group.iter().filter_map(|n| Some((*n, plan.planned(*n)?))).collect();
        // Frames are opened in place: another entry that names the same pack has bytes of its own.
        order.sort_unstable_by_key(|(_, p)| (p.entry(), p.offset()));
        let end = |p: &Planned| p.offset() + u64::from(p.frame().stored);
        let mut sealed = Self { group: group.to_vec(), spans: Vec::new(), of: HashMap::with_capacity(group.len()) };
        let mut rest = &order[..];
        while let Some((_, first)) = rest.first() {
            let (mut last, mut count) = (end(first), 0);
            for (_, next) in rest {
                let far = next.entry() != first.entry()
                    || next.offset() > last + limits::GAP_MAX
                    || end(next).saturating_sub(first.offset()) > limits::FETCH_MAX as u64;
                if far && count > 0 {
                    break;
                }
                last = last.max(end(next));
                count += 1;
            }
            let (now, later) = rest.split_at(count);
            rest = later;
            let pack = (first.entry(), &first.pack());
            let fetched = repo
                .sealed_with_key(first.frame().kind, pack, first.offset(), (last - first.offset()) as usize)
                .map_err(Error::from)
                .and_then(|fetched| repo.pack_key(pack.0, pack.1).map(|_| fetched));
            match fetched {
                Ok((bytes, begin)) => {
                    sealed.spans.push(Span { bytes: bytes.into(), begin });
                    let span = sealed.spans.len() - 1;
                    sealed.of.extend(now.iter().map(|(n, _)| (*n, span)));
                }
                // Some of its frames may still be there: each is asked for by itself.
                Err(e) if e.is_damage() || e.is_frozen() => {}
                Err(e) => return Err(e),
            }
        }
        Ok(sealed)
    }

    /// The group, in the order in which it is to be decoded.
    pub fn take_group(&mut self) -> Vec<FrameNumber> {
        std::mem::take(&mut self.group)
    }

    /// Takes these bytes for a frame's, whatever the store holds.
    pub fn put(&mut self, number: FrameNumber, planned: &Planned, bytes: Vec<u8>) {
        self.spans.push(Span { bytes, begin: planned.offset() });
        self.of.insert(number, self.spans.len() - 1);
    }

    /// The bytes of one frame; where its group could not be fetched, they are asked for.
    ///
    /// # Errors
    /// The store's.
    pub fn frame(&mut self, repo: &Repository, number: FrameNumber, planned: &Planned) -> Result<&mut [u8]> {
        let len = planned.frame().stored as usize;
        let span = match self.of.get(&number) {
            Some(span) => *span,
            None => {
                let object = repo.names().pack(&planned.pack());
                let bytes = repo.sealed(planned.frame().kind, &object, planned.offset(), len)?;
                self.put(number, planned, bytes.into());
                self.spans.len() - 1
            }
        };
        let span = &mut self.spans[span];
        let begin = (planned.offset() - span.begin) as usize;
        Ok(span.bytes.get_mut(begin..begin + len).unwrap_or_default())
    }
}
