//! Trees and content lists: the blobs that say what a folder and a file are.

use super::{Seeds, choose, chosen, there_and_back};
use estrato::clock::Timestamp;
use estrato::format::content::{Content, Extent};
use estrato::format::node::{Kind, Node, check_name, decode_segment, encode_segment};
use estrato::id::BlobId;
use estrato::limits;
use minicbor::decode::Decoder;

/// One input.
pub fn run(data: &[u8]) -> bool {
    match choose(data, 4) {
        Some((0, data)) => segment(data),
        Some((1, data)) => there_and_back(data, Content::decode, Content::encode, |a, b| a == b),
        // The same record, with something behind it.
        Some((2, data)) => {
            let mut d = Decoder::new(data);
            let Ok(content) = Content::read(&mut d) else { return false };
            assert!(content.extents.len() <= limits::LIST_MAX && content.level <= limits::LIST_LEVELS_MAX);
            assert!(d.position() <= data.len());
            assert_eq!(Content::decode(&data[..d.position()]), Ok(content));
            true
        }
        Some((_, data)) => check_name(data).is_ok(),
        None => false,
    }
}

fn segment(data: &[u8]) -> bool {
    let Ok(nodes) = decode_segment(data) else { return false };
    assert!(nodes.is_sorted_by(|a, b| a.name < b.name), "names ascend");
    for node in &nodes {
        check_name(&node.name).unwrap();
        assert!(node.mode <= 0o7777 && node.name.len() <= limits::NAME_MAX);
        assert!(node.kind != Kind::File || node.content.len() == node.size);
    }
    assert_eq!(decode_segment(&encode(&nodes)), Ok(nodes));
    true
}

/// The segment of these nodes.
pub fn encode(nodes: &[Node]) -> Vec<u8> {
    let mut encoded = Vec::new();
    nodes.iter().for_each(|node| node.write_to(&mut encoded));
    encode_segment(nodes.len(), &encoded)
}

fn nodes() -> Vec<Node> {
    let extent = |n: u8, len| Extent { id: (n > 0).then_some(BlobId([n; 32])), len };
    let file = Node {
        mode: 0o4755,
        uid: 1000,
        gid: 100,
        user: "ada".into(),
        group: "users".into(),
        mtime: Timestamp { seconds: -5, nanos: 1 },
        ctime: Timestamp { seconds: 1 << 33, nanos: 999_999_999 },
        inode: 77,
        device: 5,
        links: 2,
        size: 1000,
        content: Content { level: 0, extents: vec![extent(1, 100), extent(0, 800), extent(2, 100)] },
        xattrs: vec![(b"user.a".to_vec(), b"value".to_vec()), (b"user.b".to_vec(), Vec::new())],
        ..Node::new("file", Kind::File)
    };
    vec![
        Node { rdev: (8, 1), ..Node::new("block", Kind::BlockDevice) },
        Node { content: Content { level: 0, extents: vec![extent(3, 40)] }, ..Node::new("dir", Kind::Dir) },
        file,
        Node::new("fifo", Kind::Fifo),
        Node { target: b"../elsewhere".to_vec(), ..Node::new("link", Kind::Symlink) },
    ]
}

/// Inputs to begin with.
pub fn seeds() -> Seeds {
    let mut nodes = nodes();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    let list = Content { level: 2, extents: vec![Extent { id: Some(BlobId([4; 32])), len: 1 << 40 }; 3] };
    let content = nodes.iter().find(|n| n.kind == Kind::File).map(|n| n.content.encode()).unwrap_or_default();
    vec![
        ("segment".into(), chosen(0, &encode(&nodes))),
        ("empty-segment".into(), chosen(0, &encode(&[]))),
        ("content".into(), chosen(1, &content)),
        ("list".into(), chosen(1, &list.encode())),
        ("content-and-more".into(), chosen(2, &[&content[..], b"more"].concat())),
        ("name".into(), chosen(3, b"name")),
    ]
}
