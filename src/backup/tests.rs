//! Contents and folders that were built come back as they were, through a real repository in memory.

use super::content::ContentBuilder;
use super::replace::Replace;
use super::tree::TreeBuilder;
use crate::clock::SystemClock;
use crate::crypto::keyfile::KeyFile;
use crate::crypto::slot::Credential;
use crate::error::Result;
use crate::format::content::{Content, Extent};
use crate::format::header::Cipher;
use crate::format::node::{Kind, Node};
use crate::format::pack::BlobKind;
use crate::id::BlobId;
use crate::limits;
use crate::monitor::Silent;
use crate::repo::{self, Access, Deltas, Lane, NewKey, Repository, Secret, Session, Stored, Writer, WriterState};
use crate::snapshot::{Folder, leaves};
use crate::store::Memory;
use std::sync::Arc;
use zeroize::Zeroizing;

/// An empty repository.
pub(super) fn repository() -> Repository {
    let store = Arc::new(Memory::default());
    let clock = Arc::new(SystemClock::default());
    let key = || KeyFile(Zeroizing::new([7; 32]));
    let new = NewKey::full(Secret::KeyFile(key()), "test");
    repo::init(&*store, &*clock, "default", Cipher::Aes256Gcm, &new).unwrap();
    let credential = Credential::KeyFile(key());
    Repository::open(Access { store, clock, tenant: "default".into(), credential, cache: None }).unwrap()
}

/// Runs `build` with a lane, and waits until all that it put is stored.
fn stored<T>(repo: &Repository, build: impl FnOnce(&mut Lane<'_>) -> Result<T>) -> T {
    let session = Session::begin(repo, "host").unwrap();
    let state = WriterState::new(Deltas::Chains, &Silent);
    let built = std::thread::scope(|scope| {
        let writer = Writer::start(scope, &session, &state, 1, 1);
        let mut lane = writer.lane();
        let built = build(&mut lane).unwrap();
        lane.finish().unwrap();
        writer.finish().unwrap();
        built
    });
    session.abandon();
    built
}

fn extents(n: u32) -> Vec<Extent> {
    (0..n)
        .map(|at| Extent {
            id: (at % 7 != 3).then(|| BlobId(*blake3::hash(&at.to_le_bytes()).as_bytes())),
            len: u64::from(at) + 1,
        })
        .collect()
}

fn content(repo: &Repository, extents: &[Extent]) -> Content {
    stored(repo, |lane| {
        let mut builder = ContentBuilder::new(Content::default());
        extents.iter().try_for_each(|e| builder.push(*e, lane))?;
        builder.finish(lane)
    })
}

#[test]
fn contents_of_every_length_come_back() {
    let repo = repository();
    for n in [0, 1, 16, 17, 63, 64, 65, 1000, 1025, 30_000] {
        let extents = extents(n);
        let content = content(&repo, &extents);
        assert!(content.extents.len() <= limits::INLINE_EXTENTS, "a node stays small");
        assert_eq!(content.len(), extents.iter().map(|e| e.len).sum::<u64>());
        let read: Vec<Extent> = leaves(&repo, &content).collect::<Result<_>>().unwrap();
        assert!(read == extents, "{n} extents");
    }
}

#[test]
fn a_change_in_a_long_content_makes_few_new_lists() {
    let repo = repository();
    let mut extents = extents(30_000);
    content(&repo, &extents);
    extents[15_000].id = Some(BlobId([9; 32]));
    let before = repo.index().packs().unwrap().len();
    content(&repo, &extents);
    let packs = repo.index().packs().unwrap();
    let new: usize = packs[before..].iter().map(|p| repo.index().pack(p.number).unwrap().unwrap().blobs()).sum();
    assert!((1..=4).contains(&new), "{new} new lists");
}

#[test]
fn folders_of_every_size_come_back() {
    let repo = repository();
    for n in [0, 1, 300, 20_000] {
        let names: Vec<String> = (0..n).map(|at| format!("{at:08}.json")).collect();
        let content = stored(&repo, |lane| {
            let mut tree = TreeBuilder::new(&Content::default(), lane);
            for name in &names {
                tree.push(&Node::new(name.as_bytes(), Kind::File), lane)?;
            }
            tree.finish(lane)
        });
        let read: Vec<Node> = Folder::new(&repo, &content).collect::<Result<_>>().unwrap();
        assert!(read.iter().map(|node| &node.name[..]).eq(names.iter().map(String::as_bytes)), "{n} entries");
    }
}

#[test]
fn segments_stay_small_whatever_the_nodes_hold() {
    let repo = repository();
    let content = stored(&repo, |lane| {
        let mut tree = TreeBuilder::new(&Content::default(), lane);
        for at in 0..8u8 {
            let xattrs = vec![(b"user.large".to_vec(), vec![at; 250_000])];
            tree.push(&Node { xattrs, ..Node::new([b'a' + at], Kind::Dir) }, lane)?;
        }
        tree.finish(lane)
    });
    for extent in leaves(&repo, &content) {
        let blob = repo.blob(BlobKind::Tree, &extent.unwrap().id.unwrap()).unwrap();
        assert!(blob.len() <= limits::FRAME_PLAIN_MAX);
    }
    assert_eq!(Folder::new(&repo, &content).count(), 8);
}

/// What a stream had waiting when its file could not be read any further is given up with it: whoever
/// meets the same bytes elsewhere stores them.
#[test]
fn what_was_given_up_is_stored_by_the_next_who_has_it() {
    let repo = repository();
    let old = content(&repo, &extents(100));
    let [blob, other] = [vec![7; 5000], vec![8; 5000]];
    let put = stored(&repo, |lane| {
        let mut given_up = Replace::new(BlobKind::List, &old, 1, lane);
        given_up.put(&blob, 5000, lane)?;
        drop(given_up);
        let mut other_stream = Replace::new(BlobKind::List, &old, 1, lane);
        other_stream.put(&other, 5000, lane)?;
        let put = [lane.put(BlobKind::List, &blob)?.1, lane.put(BlobKind::List, &other)?.1];
        // It is on its way by now, and not stored again.
        other_stream.finish(lane)?;
        Ok(put)
    });
    assert_eq!(put, [Stored::New, Stored::New]);
    for blob in [blob, other] {
        let id = repo.id_keys().blob_id(BlobKind::List, &blob);
        assert_eq!(repo.index().copies(&id).unwrap().len(), 1);
        assert_eq!(repo.blob(BlobKind::List, &id).unwrap(), blob);
    }
}
