//! Whole restores while somebody else changes the target: whatever is swapped for a link, nothing
//! outside of the target changes, not even a mode or a time.

use super::child::Ends;
use super::hostile::{Hostile, folder};
use estrato::format::node::{Kind, Node};
use estrato::monitor::Silent;
use estrato::restore::{self, Options};
use estrato::snapshot;
use rustix::fs::{self, CWD, Mode, OFlags, RenameFlags};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Everything that could have been changed of what lies below a folder.
fn looks(folder: &Path) -> Vec<(String, [i64; 9], Vec<u8>)> {
    let mut found = Vec::new();
    let mut paths = vec![folder.to_path_buf()];
    while let Some(path) = paths.pop() {
        let m = std::fs::symlink_metadata(&path).unwrap();
        let numbers = [
            m.mode().into(),
            m.uid().into(),
            m.gid().into(),
            m.size() as i64,
            m.mtime(),
            m.mtime_nsec(),
            m.ctime(),
            m.ctime_nsec(),
            m.ino() as i64,
        ];
        let bytes = if m.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
        if m.is_dir() {
            paths.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        }
        found.push((path.display().to_string(), numbers, bytes));
    }
    found.sort();
    found
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// Swaps an entry of a folder of the target for a link in the target. It follows no link itself: by a
/// path it would change what is outside, where the one before has just put a link.
fn swap(top: &OwnedFd, way: &[&str], name: &str, link: &str) -> bool {
    let mut folder = top.try_clone().unwrap();
    for step in way {
        let Ok(below) = fs::openat(&folder, *step, FOLDER, Mode::empty()) else { return false };
        folder = below;
    }
    fs::renameat_with(&folder, name, top, link, RenameFlags::EXCHANGE).is_ok()
}

#[test]
fn folders_and_files_swapped_for_links_while_they_are_restored_lead_nowhere() {
    let world = Hostile::new();
    let outside = world.outside();
    // What would be found there, were a link followed: the same names as in the snapshot.
    for name in ["sub/a", "sub/b", "sub/deep/a"] {
        world.place.write(Path::new("outside").join(name), "kept");
    }
    let files = |what: &str| -> Vec<Node> {
        let file = |name: &str| Node { mode: 0o4777, ..world.file(name, format!("{what} {name}").as_bytes()) };
        vec![file("a"), file("b"), folder("deep", world.tree(&[file("a"), file("b")])), file("kept")]
    };
    let link = Node { target: b"elsewhere".to_vec(), mode: 0o777, ..Node::new("link", Kind::Symlink) };
    let sub = Node { mode: 0o1777, ..folder("sub", world.tree(&files("sub"))) };
    let entries = [&files("dir")[..], &[link, sub]].concat();
    let root =
        [Node { mode: 0o2777, ..folder("dir", world.tree(&entries)) }, folder("other", world.tree(&files("other")))];
    world.snapshot(world.tree(&root));
    world.repo.sync_index().unwrap();
    let root = snapshot::list(&world.repo).unwrap().snapshots[0].manifest.root.clone();
    let target = world.place.path("target");
    std::fs::create_dir(&target).unwrap();
    symlink(&outside, target.join("to outside")).unwrap();
    symlink(outside.join("sub"), target.join("to sub")).unwrap();
    symlink(outside.join("sub/a"), target.join("to a")).unwrap();
    let before = looks(&outside);
    let (done, swaps) = (AtomicBool::new(false), std::sync::atomic::AtomicU64::new(0));
    let pairs = [
        (&[][..], "dir", "to outside"),
        (&["dir"], "sub", "to sub"),
        (&["dir"], "a", "to a"),
        (&[], "other", "to sub"),
        (&["other"], "deep", "to outside"),
        (&["dir", "sub"], "b", "to a"),
    ];
    let top = fs::openat(CWD, &target, FOLDER, Mode::empty()).unwrap();
    std::thread::scope(|scope| {
        let (done, swaps, outside, top) = (&done, &swaps, &outside, &top);
        let ends = Ends(done);
        for part in [&pairs[..3], &pairs[3..]] {
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    for (way, name, link) in part {
                        swaps.fetch_add(swap(top, way, name, link).into(), Ordering::Relaxed);
                    }
                    for (name, to) in [("to outside", ""), ("to sub", "sub"), ("to a", "sub/a")] {
                        let _ = fs::symlinkat(outside.join(to), top, name);
                    }
                }
            });
        }
        for round in 0..80 {
            let options =
                Options { delete: round % 4 == 3, verify: round % 3 == 2, numeric_owner: true, ..Options::default() };
            // It may fail in part: somebody else is changing it.
            let _ = restore::run(&world.repo, &root, None, &target, &options, &Silent);
        }
        drop(ends);
    });
    assert!(swaps.into_inner() > 80, "nothing was swapped");
    assert_eq!(looks(&outside), before);
    // Left alone, it comes back whole.
    let options = Options { delete: true, numeric_owner: true, ..Options::default() };
    let outcome = restore::run(&world.repo, &root, None, &target, &options, &Silent).unwrap();
    assert_eq!(outcome.failed, Vec::<String>::new());
    assert_eq!(std::fs::read(target.join("dir/sub/deep/a")).unwrap(), b"sub a");
    assert_eq!(looks(&outside), before);
}
