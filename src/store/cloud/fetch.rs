//! Downloads of bounded size, which go on where they were interrupted: what is left is asked for by
//! range, and only of the same object.

use super::Backend;
use super::http::Content;
use crate::limits;
use bytes::Bytes;
use futures_util::StreamExt as _;
use object_store::path::Path as ObjectPath;
use object_store::{Extensions, GetOptions, GetRange, ObjectMeta};
use std::ops::Range;

/// Where downloaded bytes go.
pub(super) trait Sink: Send {
    /// So many bytes will come; also when all begins anew.
    fn begin(&mut self, len: u64);
    /// The next bytes; false if no more are wanted.
    fn take(&mut self, bytes: &[u8]) -> bool;
}

impl Sink for Vec<u8> {
    fn begin(&mut self, len: u64) {
        self.clear();
        self.reserve_exact(usize::try_from(len).unwrap_or(0));
    }

    fn take(&mut self, bytes: &[u8]) -> bool {
        self.extend_from_slice(bytes);
        true
    }
}

/// Tells whether what comes is what is here.
pub(super) struct Same {
    ours: Bytes,
    at: usize,
    differs: bool,
}

impl Same {
    pub(super) fn new(ours: Bytes) -> Self {
        Self { ours, at: 0, differs: false }
    }

    pub(super) fn is_ours(&self) -> bool {
        !self.differs && self.at == self.ours.len()
    }
}

impl Sink for Same {
    fn begin(&mut self, len: u64) {
        (self.at, self.differs) = (0, len != self.ours.len() as u64);
    }

    fn take(&mut self, bytes: &[u8]) -> bool {
        let end = self.at.saturating_add(bytes.len());
        self.differs = self.differs || self.ours.get(self.at..end) != Some(bytes);
        self.at = end;
        !self.differs
    }
}

/// How far a request brought a download.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Got {
    /// All is there, or all that the sink wanted.
    All,
    /// The object is larger than its reader takes: its size.
    Large(u64),
    /// It ends before the range: its size.
    Short(u64),
    /// It is not the object that was begun with.
    Changed,
    /// The store sent more than it said.
    More,
    /// It sent less.
    Less,
}

/// A download under way.
pub(super) struct Download<'s> {
    path: ObjectPath,
    range: Option<Range<u64>>,
    max: u64,
    sink: &'s mut dyn Sink,
    /// The next byte's place in the object.
    at: u64,
    /// Set by the first answer: the object, and where what is wanted of it ends.
    begun: Option<(ObjectMeta, u64)>,
}

impl<'s> Download<'s> {
    /// Of a whole object of up to `max` bytes, or of a range of it that is not empty.
    pub(super) fn new(path: ObjectPath, range: Option<Range<u64>>, max: u64, sink: &'s mut dyn Sink) -> Self {
        let at = range.as_ref().map_or(0, |range| range.start);
        Self { path, range, max, sink, at, begun: None }
    }

    /// True once a part of it is there that is worth some patience.
    pub(super) fn has_moved(&self, from: u64) -> bool {
        self.at >= from.saturating_add(limits::CLOUD_UPLOAD_PART as u64)
    }

    pub(super) fn at(&self) -> u64 {
        self.at
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begun.is_some()
    }

    /// Forgets what came.
    pub(super) fn restart(&mut self) {
        self.at = self.range.as_ref().map_or(0, |range| range.start);
        self.begun = None;
    }

    /// Asks for what is left, and takes what comes of it.
    pub(super) async fn go_on(&mut self, backend: &dyn Backend) -> object_store::Result<Got> {
        let mut extensions = Extensions::new();
        extensions.insert(Content);
        let mut options = GetOptions { extensions, ..GetOptions::default() };
        options.range = self.range.clone().map(GetRange::Bounded);
        if let Some((meta, end)) = &self.begun {
            if self.at == *end {
                return Ok(Got::All);
            }
            options.range = Some(GetRange::Bounded(self.at..*end));
            // A weak tag matches nothing; it is compared below all the same.
            options.if_match = meta.e_tag.clone().filter(|tag| !tag.starts_with("W/"));
        }
        let got = backend.get_opts(&self.path, options).await?;
        let end = match &self.begun {
            Some((meta, end)) => {
                let is_same = |a: &ObjectMeta, b: &ObjectMeta| (&a.e_tag, a.size) == (&b.e_tag, b.size);
                if !is_same(meta, &got.meta) || meta.e_tag.is_none() && meta.last_modified != got.meta.last_modified {
                    return Ok(Got::Changed);
                }
                *end
            }
            None => {
                let size = got.meta.size;
                let end = match &self.range {
                    None if size > self.max => return Ok(Got::Large(size)),
                    Some(range) if size < range.end => return Ok(Got::Short(size)),
                    range => range.as_ref().map_or(size, |range| range.end),
                };
                self.sink.begin(end - self.at);
                self.begun = Some((got.meta.clone(), end));
                end
            }
        };
        let mut pieces = got.into_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            if piece.len() as u64 > end - self.at {
                return Ok(Got::More);
            }
            self.at += piece.len() as u64;
            if !self.sink.take(&piece) {
                return Ok(Got::All);
            }
        }
        Ok(if self.at == end { Got::All } else { Got::Less })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ours_is_compared_in_pieces() {
        let fed = |theirs: &[&[u8]]| {
            let mut same = Same::new(Bytes::from_static(b"ours"));
            same.begin(theirs.iter().map(|piece| piece.len() as u64).sum());
            let _ = theirs.iter().all(|piece| same.take(piece));
            same.is_ours()
        };
        assert!(fed(&[b"ou", b"rs"]) && fed(&[b"ours", b""]));
        assert!(!fed(&[b"our"]) && !fed(&[b"oars"]) && !fed(&[b"ours", b"s"]) && !fed(&[]));
        assert!(Same::new(Bytes::new()).is_ours());
    }
}
