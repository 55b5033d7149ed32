//! The reader of trees: folders, content lists and paths of a repository whose
//! blobs are made up. It must come to an end, or to an error that is damage.

use super::Seeds;
use super::hostile::{self, Hostile, Item, SHARED_FRAMES, id_of};
use super::trees::encode;
use estrato::error::Error;
use estrato::format::content::{Content, Extent};
use estrato::format::node::{Kind, Node, check_name};
use estrato::limits;
use estrato::repo::Repository;
use estrato::snapshot::{Folder, find, leaves};

/// Steps of a walk. A tree of a few blobs may honestly describe a million folders: who walks it all
/// cannot be bounded, and so this one stops.
const STEPS_MAX: usize = 4000;

/// What a walk has seen.
#[derive(Debug, Default)]
pub struct Walked {
    /// Entries of folders.
    pub entries: usize,
    /// Bytes of files that would be written.
    pub bytes: u64,
    /// Parts that could not be read.
    pub errors: usize,
    /// Chunks that the index does not know.
    pub lost: usize,
    /// Devices.
    pub devices: usize,
    steps: usize,
}

impl Walked {
    /// False if the walk was stopped.
    pub fn is_whole(&self) -> bool {
        self.steps < STEPS_MAX
    }

    fn step(&mut self) -> bool {
        self.steps += 1;
        self.is_whole()
    }

    fn error(&mut self, e: &Error) {
        assert!(e.is_damage(), "not damage: {e}");
        self.errors += 1;
    }

    fn file(&mut self, repo: &Repository, node: &Node) {
        let errors = self.errors;
        let (mut len, mut extents) = (0u64, 0u64);
        for extent in leaves(repo, &node.content) {
            if !self.step() {
                return;
            }
            match extent {
                Ok(Extent { id, len: n }) => {
                    len = len.checked_add(n).unwrap();
                    extents += 1;
                    assert!(extents <= len, "extents that hold nothing: there may be any number of them");
                    if let Some(id) = id {
                        self.bytes = self.bytes.saturating_add(n);
                        self.lost += usize::from(repo.index().copies(&id).unwrap().is_empty());
                    }
                }
                Err(e) => self.error(&e),
            }
        }
        assert!(self.errors > errors || len == node.size, "a file of another size than its node says");
    }
}

/// Walks what lies below a root.
pub fn walk(repo: &Repository, root: &Content) -> Walked {
    let mut walked = Walked::default();
    let mut levels = vec![(Folder::new(repo, root), Vec::new())];
    while let Some((folder, last)) = levels.last_mut() {
        if !walked.step() {
            break;
        }
        match folder.next() {
            None => drop(levels.pop()),
            Some(Err(e)) => walked.error(&e),
            Some(Ok(node)) => {
                check_name(&node.name).unwrap();
                assert!(*last < node.name, "names ascend in a folder");
                last.clone_from(&node.name);
                walked.entries += 1;
                match node.kind {
                    Kind::File => walked.file(repo, &node),
                    Kind::Dir if levels.len() < limits::DEPTH_MAX => {
                        levels.push((Folder::new(repo, &node.content), Vec::new()));
                    }
                    Kind::CharDevice | Kind::BlockDevice => walked.devices += 1,
                    _ => {}
                }
            }
        }
    }
    walked
}

/// Each entry of the root is found by its name.
fn finds(repo: &Repository, root: &Content) {
    let mut names = Vec::new();
    for node in Folder::new(repo, root).take(20) {
        let Ok(node) = node else { return };
        names.push(node);
    }
    for node in names {
        assert_eq!(find(repo, root, &[b"./", &node.name[..], b"/"].concat()).unwrap().as_ref(), Some(&node));
        if node.kind != Kind::Dir {
            assert!(matches!(find(repo, root, &[&node.name[..], b"/x"].concat()), Err(Error::NotFound(_))));
        }
    }
}

/// One input.
pub fn run(data: &[u8]) -> bool {
    walked(data).is_some_and(|walked| walked.entries > 0)
}

/// The walk of one input; `None` if it has no root.
pub fn walked(data: &[u8]) -> Option<Walked> {
    Hostile::with(|hostile| {
        let built = hostile.build(data)?;
        let walked = walk(&hostile.repo, &built.root);
        if walked.is_whole() {
            finds(&hostile.repo, &built.root);
        }
        hostile.clear(built);
        Some(walked)
    })
}

/// A chunk's extent.
pub fn extent(number: u8, len: usize) -> Extent {
    Extent { id: Some(id_of(number)), len: len as u64 }
}

/// A file, of these extents.
pub fn file(name: &str, level: u8, extents: Vec<Extent>) -> Node {
    let content = Content { level, extents };
    Node { size: content.len(), content, ..Node::new(name, Kind::File) }
}

/// A folder, of these segments.
pub fn folder(name: &str, level: u8, extents: Vec<Extent>) -> Node {
    Node { content: Content { level, extents }, ..Node::new(name, Kind::Dir) }
}

fn list(level: u8, extents: Vec<Extent>) -> Vec<u8> {
    Content { level, extents }.encode()
}

/// A tree with files in two folders, holes, a file of lists, and a link.
pub fn honest() -> Vec<(Item, Vec<u8>)> {
    let hole = Extent { id: None, len: 1000 };
    let inner = encode(&[file("a", 0, vec![extent(0, 5)]), file("b", 0, vec![extent(1, 7), hole, extent(0, 5)])]);
    let lowest = list(0, vec![extent(0, 5), extent(1, 7)]);
    let outer = encode(&[
        folder("dir", 0, vec![extent(2, inner.len())]),
        Node::new("empty", Kind::File),
        file("long", 1, vec![extent(3, 12), extent(3, 12)]),
        Node { target: b"../outside".to_vec(), ..Node::new("symlink", Kind::Symlink) },
    ]);
    vec![
        (Item::Chunk, b"chunk".to_vec()),
        (Item::Chunk, b"another".to_vec()),
        (Item::Tree, inner),
        (Item::List, lowest),
        (Item::Tree, outer),
    ]
}

/// A folder of two segments, by way of a list.
fn segments() -> Vec<(Item, Vec<u8>)> {
    let first = encode(&[Node::new("a", Kind::Dir), Node::new("b", Kind::Fifo)]);
    let second = encode(&[Node::new("c", Kind::Socket), Node::new("d", Kind::File)]);
    let both = list(0, vec![extent(0, first.len()), extent(1, second.len())]);
    let above = list(1, vec![extent(2, first.len() + second.len())]);
    vec![(Item::Tree, first), (Item::Tree, second), (Item::List, both), (Item::List, above)]
}

/// A folder of a million million segments and more, all of them the same.
pub fn repeated() -> Vec<(Item, Vec<u8>)> {
    let segment = encode(&[Node::new("a", Kind::Dir)]);
    let mut len = segment.len();
    let mut items = vec![(Item::Tree, segment)];
    for level in 0..5 {
        items.push((Item::List, list(level, vec![extent(level, len); 1000])));
        len *= 1000;
    }
    items
}

/// Inputs to begin with.
pub fn seeds() -> Seeds {
    let unknown =
        encode(&[file("lost", 0, vec![Extent { len: 3, ..extent(200, 3) }]), Node::new("there", Kind::Dir)]);
    vec![
        ("honest".into(), hostile::input(0, &honest())),
        ("honest-in-shared-frames".into(), hostile::input(SHARED_FRAMES, &honest())),
        ("segments".into(), hostile::input(0, &segments())),
        ("lost-chunk".into(), hostile::input(0, &[(Item::Tree, unknown)])),
    ]
}
