//! Trees: a folder's entries, in segments of bounded size. A segment is a blob:
//! a CBOR array of nodes, sorted by name. Decoding checks names and bounds, so
//! that no reader ever joins a name that leaves its folder.

use super::cbor::{Fields, Record, bounded, count, finished};
use super::content::Content;
use crate::clock::Timestamp;
use crate::error::Malformed;
use crate::limits;
use minicbor::decode::Decoder;
use minicbor::encode::Encoder;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Kind {
    /// A regular file.
    File = 0,
    /// A folder.
    Dir = 1,
    /// A symbolic link.
    Symlink = 2,
    /// A named pipe.
    Fifo = 3,
    /// A socket.
    Socket = 4,
    /// A character device.
    CharDevice = 5,
    /// A block device.
    BlockDevice = 6,
}

impl Kind {
    /// The kind of this number.
    pub fn from_byte(byte: u8) -> Option<Self> {
        use Kind::*;
        [File, Dir, Symlink, Fifo, Socket, CharDevice, BlockDevice].into_iter().find(|k| *k as u8 == byte)
    }
}

/// Extended attributes: names and values, sorted by name.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// An entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The name, as the kernel gave it; not always UTF-8.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, set-user-id, set-group-id and sticky: the low 12 bits of `st_mode`.
    pub mode: u32,
    /// Owner, by number.
    pub uid: u32,
    /// Group, by number.
    pub gid: u32,
    /// Owner, by name; empty if unknown.
    pub user: String,
    /// Group, by name; empty if unknown.
    pub group: String,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Last change of the entry; tells a later snapshot whether to read it again.
    pub ctime: Timestamp,
    /// Inode number, with the same use, and to tell hard links.
    pub inode: u64,
    /// Device that holds the inode.
    pub device: u64,
    /// Hard links to the inode.
    pub links: u64,
    /// Bytes of a file.
    pub size: u64,
    /// What a file or a folder is made of.
    pub content: Content,
    /// Where a symbolic link leads.
    pub target: Vec<u8>,
    /// Major and minor number of a device.
    pub rdev: (u32, u32),
    /// Extended attributes, sorted by name.
    pub xattrs: Xattrs,
}

impl Node {
    /// An entry with this name and kind, and nothing else known of it.
    pub fn new(name: impl Into<Vec<u8>>, kind: Kind) -> Self {
        Self {
            name: name.into(),
            kind,
            mode: if kind == Kind::Dir { 0o755 } else { 0o644 },
            uid: 0,
            gid: 0,
            user: String::new(),
            group: String::new(),
            mtime: Timestamp::default(),
            ctime: Timestamp::default(),
            inode: 0,
            device: 0,
            links: 1,
            size: 0,
            content: Content::default(),
            target: Vec::new(),
            rdev: (0, 0),
            xattrs: Vec::new(),
        }
    }

    /// Appends the record. Fields that hold their usual value are left out.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let mut r = Record::new();
        r.bytes(0, &self.name).u64(1, self.kind as u64).u64(2, self.mode.into());
        r.u64(3, self.uid.into()).u64(4, self.gid.into());
        if !self.user.is_empty() {
            r.text(5, &self.user);
        }
        if !self.group.is_empty() {
            r.text(6, &self.group);
        }
        r.time(7, self.mtime).time(8, self.ctime);
        r.u64(9, self.inode).u64(10, self.device);
        if self.links != 1 {
            r.u64(11, self.links);
        }
        if self.size != 0 {
            r.u64(12, self.size);
        }
        if !self.content.is_empty() {
            let mut content = Vec::new();
            self.content.write_to(&mut content);
            r.raw(13, &content);
        }
        if !self.target.is_empty() {
            r.bytes(14, &self.target);
        }
        if self.rdev != (0, 0) {
            r.put(15, |e| e.array(2)?.u32(self.rdev.0)?.u32(self.rdev.1)?.ok());
        }
        if !self.xattrs.is_empty() {
            r.put(16, |e| {
                e.array(self.xattrs.len() as u64 * 2)?;
                for (name, value) in &self.xattrs {
                    e.bytes(name)?.bytes(value)?;
                }
                Ok(())
            });
        }
        r.write_to(out);
    }

    fn read(d: &mut Decoder<'_>) -> Result<Self, Malformed> {
        const KNOWN: &[u64] = &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
        let mut node = Node::new(Vec::new(), Kind::File);
        let mut f = Fields::begin(d.clone())?;
        while let Some(key) = f.next(KNOWN)? {
            match key {
                0 => node.name = f.bytes(limits::NAME_MAX)?,
                1 => {
                    let kind = f.value().u8()?;
                    node.kind =
                        Kind::from_byte(kind).ok_or_else(|| Malformed(format!("an entry of unknown kind {kind}")))?;
                }
                2 => node.mode = f.value().u32()? & 0o7777,
                3 => node.uid = f.value().u32()?,
                4 => node.gid = f.value().u32()?,
                5 => node.user = f.text(limits::NAME_MAX)?,
                6 => node.group = f.text(limits::NAME_MAX)?,
                7 => node.mtime = f.time()?,
                8 => node.ctime = f.time()?,
                9 => node.inode = f.value().u64()?,
                10 => node.device = f.value().u64()?,
                11 => node.links = f.value().u64()?,
                12 => node.size = f.value().u64()?,
                13 => node.content = Content::read(f.value())?,
                14 => node.target = f.bytes(limits::LINK_MAX)?,
                15 => {
                    if count(f.value(), 2)? != 2 {
                        return Err(Malformed::new("a device number without two parts"));
                    }
                    node.rdev = (f.value().u32()?, f.value().u32()?);
                }
                _ => node.xattrs = read_xattrs(f.value())?,
            }
        }
        *d = f.end();
        check_name(&node.name)?;
        if node.kind == Kind::File && node.content.len() != node.size {
            return Err(Malformed::new("a file whose content has another length"));
        }
        Ok(node)
    }
}

fn read_xattrs(d: &mut Decoder<'_>) -> Result<Xattrs, Malformed> {
    let n = count(d, limits::XATTR_TOTAL_MAX)?;
    if n % 2 != 0 {
        return Err(Malformed::new("an extended attribute without a value"));
    }
    let (mut out, mut total) = (Vec::new(), 0);
    for _ in 0..n / 2 {
        let name = bounded(d, limits::NAME_MAX)?;
        let value = bounded(d, limits::XATTR_TOTAL_MAX)?;
        total += name.len() + value.len();
        if name.is_empty() || name.contains(&0) || total > limits::XATTR_TOTAL_MAX {
            return Err(Malformed::new("extended attributes that no file could have"));
        }
        out.push((name, value));
    }
    Ok(out)
}

/// A name that stays in its folder: not empty, no `/`, no NUL, not `.` or `..`.
pub fn check_name(name: &[u8]) -> Result<(), Malformed> {
    let bad = name.is_empty()
        || name.len() > limits::NAME_MAX
        || name == b"."
        || name == b".."
        || name.iter().any(|b| matches!(b, 0 | b'/'));
    if bad {
        return Err(Malformed(format!("an entry whose name is not one: {:?}", String::from_utf8_lossy(name))));
    }
    Ok(())
}

/// A segment of a tree from its nodes' encodings.
pub fn encode_segment(nodes: usize, encoded: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(encoded.len() + 9);
    match Encoder::new(&mut out).array(nodes as u64) {
        Ok(_) => {}
        Err(e) => unreachable!("encoding into memory failed: {e}"),
    }
    out.extend_from_slice(encoded);
    out
}

/// The nodes of a segment, in ascending order of their names.
pub fn decode_segment(bytes: &[u8]) -> Result<Vec<Node>, Malformed> {
    let mut d = Decoder::new(bytes);
    let n = count(&mut d, bytes.len())?;
    let mut nodes: Vec<Node> = Vec::new();
    for _ in 0..n {
        let node = Node::read(&mut d)?;
        if nodes.last().is_some_and(|last| last.name >= node.name) {
            return Err(Malformed::new("entries of a folder out of order"));
        }
        nodes.push(node);
    }
    finished(&d)?;
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::content::Extent;
    use crate::id::BlobId;
    use proptest::prelude::*;

    fn time() -> impl Strategy<Value = Timestamp> {
        (any::<i64>(), 0u32..1_000_000_000).prop_map(|(seconds, nanos)| Timestamp { seconds, nanos })
    }

    prop_compose! {
        fn node()(
            name in proptest::collection::vec(any::<u8>().prop_filter("name", |b| *b != 0 && *b != b'/'), 3..40),
            kind in (0u8..7).prop_map(|k| Kind::from_byte(k).unwrap()),
            mode in 0u32..0o10000, uid in any::<u32>(), gid in any::<u32>(),
            user in "[a-z]{0,8}", mtime in time(), ctime in time(),
            inode in any::<u64>(), links in 1u64..9, rdev in any::<(u32, u32)>(),
            target in proptest::collection::vec(1u8.., 0..50),
            xattrs in proptest::collection::vec(("user\\.[a-z]{1,8}", proptest::collection::vec(any::<u8>(), 0..50)), 0..4),
            len in 1u64..1 << 50,
        ) -> Node {
            let content = Content { level: 0, extents: vec![Extent { id: Some(BlobId([7; 32])), len }] };
            Node {
                name, kind, mode, uid, gid, user, mtime, ctime, inode, links, rdev, target, content, size: len,
                xattrs: xattrs.into_iter().map(|(n, v)| (n.into_bytes(), v)).collect(),
                ..Node::new("x", kind)
            }
        }
    }

    fn segment(nodes: &[Node]) -> Vec<u8> {
        let mut encoded = Vec::new();
        nodes.iter().for_each(|n| n.write_to(&mut encoded));
        encode_segment(nodes.len(), &encoded)
    }

    proptest! {
        #[test]
        fn there_and_back(mut nodes in proptest::collection::vec(node(), 0..6)) {
            nodes.sort_by(|a, b| a.name.cmp(&b.name));
            nodes.dedup_by(|a, b| a.name == b.name);
            prop_assert_eq!(decode_segment(&segment(&nodes)).unwrap(), nodes);
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode_segment(&bytes);
        }

        #[test]
        fn changed_bytes_never_panic(node in node(), at in any::<prop::sample::Index>(), bit in 0..8u8) {
            let mut bytes = segment(&[node]);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let _ = decode_segment(&bytes);
        }
    }

    /// One whose every field has a value of its own.
    fn whole(kind: Kind) -> Node {
        let time = |seconds| Timestamp { seconds, nanos: 1 };
        Node {
            name: b"name".to_vec(),
            kind,
            mode: 0o7654,
            uid: 1,
            gid: 2,
            user: "user".into(),
            group: "group".into(),
            mtime: time(3),
            ctime: time(4),
            inode: 5,
            device: 6,
            links: 7,
            size: 8,
            content: Content { level: 0, extents: vec![Extent { id: Some(BlobId([9; 32])), len: 8 }] },
            target: b"target".to_vec(),
            rdev: (10, 11),
            xattrs: vec![(b"user.a".to_vec(), b"b".to_vec()), (b"user.c".to_vec(), Vec::new())],
        }
    }

    #[test]
    fn every_field_comes_back() {
        use Kind::*;
        for (number, kind) in (0..).zip([File, Dir, Symlink, Fifo, Socket, CharDevice, BlockDevice]) {
            assert_eq!((kind as u8, Kind::from_byte(number)), (number, Some(kind)));
            assert_eq!(decode_segment(&segment(&[whole(kind)])).unwrap(), [whole(kind)]);
        }
        assert_eq!(Kind::from_byte(7), None);
    }

    #[test]
    fn only_what_is_unusual_is_written() {
        let mut bytes = Vec::new();
        Node::new("a", Kind::Dir).write_to(&mut bytes);
        let times = [7, 0x82, 0, 0, 8, 0x82, 0, 0];
        assert_eq!(
            bytes,
            [&[0xa9, 0, 0x41, b'a', 1, 1, 2, 0x19, 0x01, 0xed, 3, 0, 4, 0][..], &times, &[9, 0, 10, 0]].concat()
        );
        // Half of a device number is unusual, too.
        for rdev in [(0, 1), (1, 0)] {
            let device = Node { rdev, ..Node::new("a", Kind::CharDevice) };
            assert_eq!(decode_segment(&segment(std::slice::from_ref(&device))).unwrap(), [device]);
        }
    }

    #[test]
    fn an_entry_has_its_mode_bits_and_no_others() {
        let node = Node { mode: 0o170_644, ..Node::new("a", Kind::Dir) };
        assert_eq!(decode_segment(&segment(&[node])).unwrap()[0].mode, 0o644);
    }

    #[test]
    fn names_and_targets_end_at_their_bound() {
        let long = Node::new(vec![b'a'; 255], Kind::Dir);
        assert_eq!(decode_segment(&segment(std::slice::from_ref(&long))).unwrap(), [long]);
        assert!(check_name(&[b'a'; 255]).is_ok() && check_name(&[b'a'; 256]).is_err());
        for (target, good) in [(limits::LINK_MAX, true), (limits::LINK_MAX + 1, false)] {
            let link = Node { target: vec![b'a'; target], ..Node::new("a", Kind::Symlink) };
            assert_eq!(decode_segment(&segment(&[link])).is_ok(), good, "{target}");
        }
    }

    #[test]
    fn names_that_only_look_like_the_folder_are_names() {
        for good in [&b"..."[..], b".a", b"a.", b"a\\b", b"\xff", b" "] {
            assert!(check_name(good).is_ok(), "{good:?}");
        }
        for bad in [&b""[..], b".", b"..", b"/", b"a/b", b"a\0", b"\0"] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn attributes_are_named_and_no_larger_in_all_than_a_file_can_have() {
        let half = limits::XATTR_TOTAL_MAX / 2;
        let attribute = |name: &str, len| (name.as_bytes().to_vec(), vec![0; len]);
        for (xattrs, good) in [
            (vec![attribute("a", half - 1), attribute("b", half - 1)], true),
            (vec![attribute("a", half - 1), attribute("b", half)], false),
            (vec![attribute("a", limits::XATTR_TOTAL_MAX - 1)], true),
            (vec![attribute("a", limits::XATTR_TOTAL_MAX)], false),
            (vec![attribute("", 1)], false),
            (vec![attribute("a\0", 1)], false),
            (vec![attribute(&"a".repeat(255), 1)], true),
            (vec![attribute(&"a".repeat(256), 1)], false),
        ] {
            let node = Node { xattrs, ..Node::new("a", Kind::Dir) };
            let decoded = decode_segment(&segment(std::slice::from_ref(&node)));
            let lens: Vec<_> = node.xattrs.iter().map(|(n, v)| (n.len(), v.len())).collect();
            assert_eq!(decoded.ok(), good.then(|| vec![node]), "{lens:?}");
        }
    }

    #[test]
    fn attributes_and_device_numbers_come_in_pairs() {
        for (key, value, good) in [
            (15, &[0x82, 1, 2][..], true),
            (15, &[0x81, 1], false),
            (15, &[0x83, 1, 2, 3], false),
            (16, &[0x82, 0x41, b'a', 0x40], true),
            (16, &[0x81, 0x41, b'a'], false),
            (16, &[0x83, 0x41, b'a', 0x40, 0x41, b'b'], false),
        ] {
            let mut r = Record::new();
            r.bytes(0, b"a").u64(1, 1).raw(key, value);
            assert_eq!(decode_segment(&encode_segment(1, &r.finish())).is_ok(), good, "{key} {value:?}");
        }
    }

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        for bad in [&b""[..], b".", b"..", b"a/b", b"a\0", &[b'a'; 256]] {
            assert!(decode_segment(&segment(&[Node::new(bad, Kind::File)])).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn unsorted_and_doubled_names_are_refused() {
        let (a, b) = (Node::new("a", Kind::Dir), Node::new("b", Kind::Dir));
        assert!(decode_segment(&segment(&[b.clone(), a.clone()])).is_err());
        assert!(decode_segment(&segment(&[a.clone(), a.clone()])).is_err());
        assert!(decode_segment(&segment(&[a, b])).is_ok());
    }

    #[test]
    fn a_file_that_claims_another_size_is_refused() {
        let file = Node { size: 5, ..Node::new("a", Kind::File) };
        assert!(decode_segment(&segment(&[file])).is_err());
        let folder = Node { size: 5, ..Node::new("a", Kind::Dir) };
        assert!(decode_segment(&segment(&[folder])).is_ok(), "a folder's is the file system's own");
    }
}
