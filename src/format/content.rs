//! Content lists: what a file, a folder or a longer list is made of.
//!
//! One shape serves all: a level and a run of extents. At level 0 the extents
//! are chunks of a file (or segments of a tree), at level n they are content
//! lists of level n − 1. An extent without an id is a hole in a sparse file.

use super::cbor::{Fields, Record, bounded, count, finished};
use crate::error::Malformed;
use crate::id::BlobId;
use crate::limits;
use minicbor::decode::Decoder;

/// A part of a stream: a blob, or a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The blob; `None` for a hole. Stored as 32 zero bytes.
    pub id: Option<BlobId>,
    /// Bytes of the stream below it.
    pub len: u64,
}

/// A stream's extents, or the lists that hold them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content {
    /// 0: extents are the stream's own. n: extents are lists of level n − 1.
    pub level: u8,
    /// In the stream's order.
    pub extents: Vec<Extent>,
}

const HOLE: [u8; BlobId::LEN] = [0; BlobId::LEN];

impl Content {
    /// Bytes of the stream.
    pub fn len(&self) -> u64 {
        self.extents.iter().fold(0, |sum, e| sum.saturating_add(e.len))
    }

    /// True where the stream has no bytes.
    pub fn is_empty(&self) -> bool {
        self.extents.is_empty()
    }

    /// Appends the record: 0 level, 1 ids, 2 lengths.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let mut ids = Vec::with_capacity(self.extents.len() * BlobId::LEN);
        for e in &self.extents {
            ids.extend_from_slice(e.id.as_ref().map_or(&HOLE[..], BlobId::as_bytes));
        }
        let mut r = Record::new();
        if self.level > 0 {
            r.u64(0, self.level.into());
        }
        r.bytes(1, &ids);
        r.put(2, |e| {
            e.array(self.extents.len() as u64)?;
            for extent in &self.extents {
                e.u64(extent.len)?;
            }
            Ok(())
        });
        r.write_to(out);
    }

    /// The record's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.extents.len() * 36 + 16);
        self.write_to(&mut out);
        out
    }

    /// Reads the record that begins at `d`, and moves behind it.
    pub fn read(d: &mut Decoder<'_>) -> Result<Self, Malformed> {
        let (mut level, mut ids, mut lens) = (0, Vec::new(), Vec::new());
        let mut f = Fields::begin(d.clone())?;
        while let Some(key) = f.next(&[0, 1, 2])? {
            match key {
                0 => level = f.value().u8()?,
                1 => ids = bounded(f.value(), limits::LIST_MAX * BlobId::LEN)?,
                _ => {
                    let n = count(f.value(), limits::LIST_MAX)?;
                    for _ in 0..n {
                        lens.push(f.value().u64()?);
                    }
                }
            }
        }
        *d = f.end();
        if level > limits::LIST_LEVELS_MAX {
            return Err(Malformed(format!("content lists {level} levels deep")));
        }
        let (ids, rest) = ids.as_chunks::<{ BlobId::LEN }>();
        if !rest.is_empty() || ids.len() != lens.len() {
            return Err(Malformed::new("a content list with other numbers of ids and lengths"));
        }
        let extents: Vec<Extent> =
            ids.iter().zip(lens).map(|(id, len)| Extent { id: (*id != HOLE).then_some(BlobId(*id)), len }).collect();
        // Without this a few lists of nothing would take for ever to go through.
        if extents.iter().any(|e| e.len == 0) {
            return Err(Malformed::new("a content list with an extent of no bytes"));
        }
        if extents.iter().try_fold(0u64, |sum, e| sum.checked_add(e.len)).is_none() {
            return Err(Malformed::new("a content list longer than any file"));
        }
        if level > 0 && (extents.is_empty() || extents.iter().any(|e| e.id.is_none())) {
            return Err(Malformed::new("a content list of holes, or of nothing"));
        }
        Ok(Self { level, extents })
    }

    /// Reads a blob that is a content list and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut d = Decoder::new(bytes);
        let content = Self::read(&mut d)?;
        finished(&d)?;
        Ok(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn content() -> impl Strategy<Value = Content> {
        let extent = (any::<Option<[u8; 32]>>(), 1u64..1 << 40)
            .prop_map(|(id, len)| Extent { id: id.filter(|id| *id != HOLE).map(BlobId), len });
        proptest::collection::vec(extent, 0..100).prop_map(|extents| Content { level: 0, extents })
    }

    proptest! {
        #[test]
        fn there_and_back(content in content()) {
            prop_assert_eq!(Content::decode(&content.encode()).unwrap(), content);
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Content::decode(&bytes);
        }

        #[test]
        fn changed_bytes_never_panic(content in content(), at in any::<prop::sample::Index>(), bit in 0..8u8) {
            let mut bytes = content.encode();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let _ = Content::decode(&bytes);
        }
    }

    fn extents(count: usize) -> Vec<Extent> {
        vec![Extent { id: Some(BlobId([1; 32])), len: 2 }; count]
    }

    #[test]
    fn only_what_is_unusual_is_written() {
        let empty = Content::default();
        assert_eq!(empty.encode(), [0xa2, 1, 0x40, 2, 0x80]);
        assert_eq!(Content { level: 1, ..empty }.encode(), [0xa3, 0, 1, 1, 0x40, 2, 0x80]);
        let hole = Content { level: 0, extents: vec![Extent { id: None, len: 3 }] };
        assert_eq!(hole.encode(), [&[0xa2, 1, 0x58, 32][..], &[0; 32], &[2, 0x81, 3]].concat());
    }

    #[test]
    fn lists_are_as_deep_and_as_long_as_the_bounds_say() {
        for (level, good) in [(1, true), (limits::LIST_LEVELS_MAX, true), (limits::LIST_LEVELS_MAX + 1, false)] {
            let list = Content { level, extents: extents(3) };
            assert_eq!(Content::decode(&list.encode()).ok(), good.then_some(list), "{level}");
        }
        for (count, good) in [(limits::LIST_MAX, true), (limits::LIST_MAX + 1, false)] {
            let list = Content { level: 0, extents: extents(count) };
            assert_eq!(Content::decode(&list.encode()).ok(), good.then_some(list), "{count}");
        }
    }

    #[test]
    fn a_list_of_lists_has_no_holes() {
        let mut list = Content { level: 0, extents: extents(2) };
        list.extents[1].id = None;
        assert_eq!(Content::decode(&list.encode()).unwrap(), list);
        list.level = 1;
        assert!(Content::decode(&list.encode()).is_err());
    }

    #[test]
    fn ids_and_lengths_are_as_many() {
        for (ids, lens) in [(0, 1), (1, 0), (2, 1), (1, 2)] {
            let mut r = Record::new();
            r.bytes(1, &vec![7; ids * BlobId::LEN]);
            r.put(2, |e| {
                e.array(lens)?;
                (0..lens).try_for_each(|_| e.u64(5)?.ok())
            });
            assert!(Content::decode(&r.finish()).is_err(), "{ids} {lens}");
        }
        for part in [1, 31, 33] {
            let mut r = Record::new();
            r.bytes(1, &vec![7; part]).raw(2, if part > 32 { &[0x81, 5] } else { &[0x80] });
            assert!(Content::decode(&r.finish()).is_err(), "{part} bytes of ids");
        }
    }

    #[test]
    fn a_content_is_as_long_as_its_extents() {
        let content = Content { level: 0, extents: extents(3) };
        assert_eq!((content.len(), content.is_empty()), (6, false));
        assert_eq!((Content::default().len(), Content::default().is_empty()), (0, true));
        let longest = Extent { id: Some(BlobId([1; 32])), len: u64::MAX };
        let content = Content { level: 0, extents: vec![longest] };
        assert_eq!(Content::decode(&content.encode()).unwrap().len(), u64::MAX);
    }

    #[test]
    fn lists_of_nothing_are_refused() {
        for level in [0, 3] {
            let nothing = Extent { id: Some(BlobId([1; 32])), len: 0 };
            let content = Content { level, extents: vec![nothing; 3] };
            assert!(Content::decode(&content.encode()).is_err(), "parts that hold nothing, level {level}");
        }
        assert!(Content::decode(&Content { level: 0, extents: vec![Extent { id: None, len: 0 }] }.encode()).is_err());
        assert!(Content::decode(&Content { level: 1, extents: Vec::new() }.encode()).is_err());
        assert_eq!(Content::decode(&Content::default().encode()).unwrap(), Content::default(), "an empty stream");
    }

    #[test]
    fn refuses_extents_of_no_bytes() {
        let content = Content { level: 0, extents: vec![Extent { id: Some(BlobId([1; 32])), len: 0 }] };
        assert!(Content::decode(&content.encode()).is_err());
    }

    #[test]
    fn refuses_lengths_that_overflow() {
        let extent = Extent { id: Some(BlobId([1; 32])), len: u64::MAX };
        let content = Content { level: 0, extents: vec![extent, extent] };
        assert!(Content::decode(&content.encode()).is_err());
    }
}
