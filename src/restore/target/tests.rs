//! Tests beside the code.

use super::*;
use crate::clock::Timestamp;
use crate::source::users::Users;
use rustix::fs::{CWD, RenameFlags, XattrFlags};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::atomic::AtomicBool;
use tempfile::TempDir;

fn target() -> (TempDir, TargetFolder) {
    let dir = tempfile::tempdir().unwrap();
    let target = TargetFolder::root(dir.path()).unwrap();
    (dir, target)
}

/// A folder outside the target, and a file in it that nobody may touch.
fn outside() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    std::fs::write(dir.path().join("sub/kept"), b"kept").unwrap();
    dir
}

fn is_untouched(outside: &TempDir) -> bool {
    let names = |path: &Path| std::fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
    names(outside.path()) == ["sub"]
        && names(&outside.path().join("sub")) == ["kept"]
        && std::fs::read(outside.path().join("sub/kept")).unwrap() == b"kept"
}

fn is_root() -> bool {
    let root = geteuid().is_root();
    if !root {
        eprintln!("skipped: this needs root");
    }
    root
}

fn owners() -> Owners {
    Owners::new(true)
}

/// A node that this user may own.
fn node(name: &str, kind: Kind) -> Node {
    let mtime = Timestamp { seconds: 1_000_000_000, nanos: 987_654_321 };
    let (uid, gid) = (geteuid().as_raw(), rustix::process::getegid().as_raw());
    Node { mtime, uid, gid, ..Node::new(name, kind) }
}

const NONE: Vec<String> = Vec::new();

#[test]
fn the_target_is_made_for_this_user_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b");
    let root = TargetFolder::root(&path).unwrap();
    assert_eq!((root.path(), root.folder().stat().unwrap().mode), (path, 0o700));
    assert_eq!(root.enter(b"c").unwrap().folder().stat().unwrap().mode, 0o700);
    std::fs::write(dir.path().join("file"), b"").unwrap();
    let refused = TargetFolder::root(&dir.path().join("file")).unwrap_err();
    assert!(matches!(refused, Error::Target { path, .. } if path.ends_with("file")));
}

#[test]
fn what_is_no_folder_makes_room_for_one() {
    let (dir, target) = target();
    let outside = outside();
    std::fs::write(dir.path().join("file"), b"").unwrap();
    symlink(outside.path(), dir.path().join("link")).unwrap();
    symlink("/no/such/place", dir.path().join("dangling")).unwrap();
    fs::mknodat(CWD, dir.path().join("fifo"), FileType::Fifo, PRIVATE_FILE, 0).unwrap();
    for name in [&b"file"[..], b"link", b"dangling", b"fifo", b"new", b"\xff\xfe"] {
        let entered = target.enter(name).unwrap();
        entered.create_file(b"in").unwrap();
        assert_eq!(target.stat_of(name).unwrap().unwrap().kind, Kind::Dir, "{name:?}");
        assert_eq!(target.enter(name).unwrap().names().unwrap(), [b"in"], "entered again");
    }
    assert!(is_untouched(&outside));
}

#[test]
fn names_that_are_paths_are_refused() {
    let (_dir, target) = target();
    target.enter(b"a").unwrap().create_file(b"b").unwrap();
    for name in [&b""[..], b".", b"..", b"a/b", b"/tmp", b"a\0"] {
        assert!(target.enter(name).is_err() && target.remove(name).is_err(), "{name:?}");
        assert!(target.create_file(name).is_err() && target.open_existing(name).is_err(), "{name:?}");
        assert!(target.reopen(name).is_err() && target.stat_of(name).is_err(), "{name:?}");
        assert!(target.make(&Node { target: b"t".into(), ..Node::new(name, Kind::Symlink) }).is_err(), "{name:?}");
        assert!(target.hard_link(name, &target, b"a").is_err() && target.hard_link(b"n", &target, name).is_err());
    }
    assert_eq!(target.names().unwrap(), [b"a"]);
}

#[test]
fn removal_stays_inside() {
    let (dir, target) = target();
    let outside = outside();
    let deep = dir.path().join("tree/a/b");
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::write(deep.join("file"), b"").unwrap();
    std::fs::hard_link(outside.path().join("sub/kept"), deep.join("hard")).unwrap();
    symlink(outside.path(), deep.join("link")).unwrap();
    symlink("..", deep.join("up")).unwrap();
    symlink(outside.path(), dir.path().join("link")).unwrap();
    for name in [&b"tree"[..], b"link", b"nothing"] {
        target.remove(name).unwrap();
        assert_eq!(target.stat_of(name).unwrap(), None);
    }
    assert!(is_untouched(&outside) && target.names().unwrap().is_empty());
}

#[test]
fn folders_deeper_than_there_are_handles() {
    let (_dir, target) = target();
    let mut folder = target.enter(b"top").unwrap();
    for i in 0..REMOVE_DEPTH * 3 + 5 {
        folder.create_file(b"file").unwrap();
        folder.enter(b"side").unwrap();
        folder = folder.enter(format!("{i}").as_bytes()).unwrap();
    }
    drop(folder);
    target.remove(b"top").unwrap();
    assert!(target.names().unwrap().is_empty());
}

/// A small file system in memory, as long as this is held.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn on(path: &'a Path) -> Option<Self> {
        let mount = std::process::Command::new("mount").args(["-t", "tmpfs", "none"]).arg(path).output();
        let mounted = mount.is_ok_and(|output| output.status.success());
        if !mounted {
            eprintln!("skipped: nothing can be mounted here");
        }
        mounted.then_some(Mounted(path))
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn what_is_mounted_is_left_alone() {
    if !is_root() {
        return;
    }
    let (dir, target) = target();
    let place = dir.path().join("tree/mounted");
    std::fs::create_dir_all(&place).unwrap();
    let Some(mounted) = Mounted::on(&place) else { return };
    std::fs::write(place.join("kept"), b"").unwrap();
    assert!(target.remove(b"tree").is_err());
    assert!(place.join("kept").exists());
    drop(mounted);
    target.remove(b"tree").unwrap();
}

/// While `work` runs, again and again, `a` and `b` are exchanged all the time.
fn while_swapping(times: usize, a: &Path, b: &Path, link_to: &Path, work: impl Fn()) {
    let done = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                if fs::renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).is_err() {
                    let _ = std::fs::create_dir_all(a);
                    let _ = symlink(link_to, b);
                }
            }
        });
        for _ in 0..times {
            work();
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_folder_swapped_for_a_link_leads_nowhere() {
    let (dir, target) = target();
    let outside = outside();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    while_swapping(2000, &a, &b, outside.path(), || {
        if let Ok(folder) = target.enter(b"a") {
            let _ = folder.create_file(b"new").map(|mut f| f.write_all(b"data"));
            let _ = folder.remove(b"sub");
            let _ = folder.remove(b"new");
        }
    });
    assert!(is_untouched(&outside));
}

#[test]
fn a_folder_swapped_while_it_is_removed() {
    let (dir, target) = target();
    let outside = outside();
    let tree = dir.path().join("tree");
    let (sub, link) = (tree.join("sub"), dir.path().join("link"));
    while_swapping(200, &sub, &link, outside.path(), || {
        let inner = target.enter(b"tree").and_then(|f| f.enter(b"sub")).and_then(|f| f.enter(b"sub"));
        let _ = inner.and_then(|f| f.create_file(b"kept"));
        let _ = target.remove(b"tree");
    });
    assert!(is_untouched(&outside));
}

#[test]
fn a_link_where_a_file_is_to_be() {
    let (dir, target) = target();
    let outside = outside();
    let kept = outside.path().join("sub/kept");
    for make in [true, false] {
        symlink(&kept, dir.path().join("f")).unwrap();
        assert!(target.open_existing(b"f").unwrap().is_none() && target.reopen(b"f").is_err());
        if make {
            target.create_file(b"f").unwrap().write_all(b"new").unwrap();
            assert_eq!(std::fs::read(dir.path().join("f")).unwrap(), b"new");
            target.remove(b"f").unwrap();
        }
    }
    assert!(is_untouched(&outside));
}

#[test]
fn a_file_with_another_name_is_not_written_to() {
    let (dir, target) = target();
    let outside = outside();
    std::fs::hard_link(outside.path().join("sub/kept"), dir.path().join("f")).unwrap();
    assert!(target.open_existing(b"f").unwrap().is_none());
    let mut file = target.create_file(b"f").unwrap();
    file.write_all(b"new").unwrap();
    assert!(is_untouched(&outside));
    assert_eq!(target.stat_of(b"f").unwrap().unwrap().mode, 0o600);
    let mut again = target.open_existing(b"f").unwrap().unwrap();
    let mut data = String::new();
    again.read_to_string(&mut data).unwrap();
    again.write_all(b"er").unwrap();
    target.reopen(b"f").unwrap().read_to_string(&mut data).unwrap();
    assert_eq!(data, "newnewer");
}

#[test]
fn a_link_to_another_file_is_not_taken_for_the_one_that_was_made() {
    let (dir, target) = target();
    let outside = outside();
    target.create_file(b"f").unwrap();
    target.reopen(b"f").unwrap();
    std::fs::remove_file(dir.path().join("f")).unwrap();
    std::fs::hard_link(outside.path().join("sub/kept"), dir.path().join("f")).unwrap();
    assert!(target.reopen(b"f").is_err());
    assert!(target.reopen_shared(b"f").is_ok(), "whoever asks for it by several names gets it");
    std::fs::remove_file(dir.path().join("f")).unwrap();
    symlink(outside.path().join("sub/kept"), dir.path().join("f")).unwrap();
    assert!(target.reopen(b"f").is_err() && target.reopen_shared(b"f").is_err());
    assert!(is_untouched(&outside));
}

#[test]
fn a_folder_is_entered_again_only_if_it_is_one() {
    let (dir, target) = target();
    let outside = outside();
    symlink(outside.path(), dir.path().join("link")).unwrap();
    std::fs::write(dir.path().join("file"), b"").unwrap();
    for name in [&b"link"[..], b"file", b"nothing", b"..", b"a/b"] {
        assert!(target.again(name).is_err(), "{name:?}");
    }
    target.enter(b"a").unwrap().enter(b"b").unwrap();
    assert!(target.again(b"a").unwrap().again(b"b").is_ok());
    assert!(dir.path().join("link").is_symlink() && is_untouched(&outside), "nothing is removed");
}

#[test]
fn only_files_are_opened() {
    let (dir, target) = target();
    fs::mknodat(CWD, dir.path().join("fifo"), FileType::Fifo, PRIVATE_FILE, 0).unwrap();
    target.enter(b"dir").unwrap().create_file(b"in").unwrap();
    for name in [&b"fifo"[..], b"dir", b"nothing"] {
        assert!(target.open_existing(name).unwrap().is_none(), "{name:?}");
        assert!(target.reopen(name).is_err(), "{name:?}");
    }
    for name in [&b"fifo"[..], b"dir"] {
        assert_eq!(target.create_file(name).unwrap().metadata().unwrap().len(), 0);
    }
}

#[test]
fn who_shut_himself_out_is_let_in() {
    let (dir, target) = target();
    let folder = target.enter(b"d").unwrap();
    folder.create_file(b"f").unwrap().write_all(b"data").unwrap();
    folder.enter(b"e").unwrap().create_file(b"g").unwrap();
    let shut = |path: &str, mode| {
        std::fs::set_permissions(dir.path().join(path), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    shut("d/f", 0o000);
    shut("d/e", 0o000);
    for mode in [0o500, 0o300, 0o000] {
        shut("d", mode);
        let folder = target.enter(b"d").unwrap();
        assert!(folder.open_existing(b"f").unwrap().is_some());
        folder.create_file(b"new").unwrap();
    }
    shut("d", 0o000);
    target.remove(b"d").unwrap();
    assert!(target.names().unwrap().is_empty());
}

#[test]
fn links_fifos_and_sockets() {
    let (dir, target) = target();
    let link = Node { target: b"/else\xff/where".to_vec(), ..node("l", Kind::Symlink) };
    for node in [&link, &node("fifo", Kind::Fifo), &node("socket", Kind::Socket)] {
        let name = node.name.as_slice();
        target.make(node).unwrap();
        let made = target.stat_of(name).unwrap().unwrap();
        assert_eq!(made.kind, node.kind);
        target.make(node).unwrap();
        assert_eq!(target.stat_of(name).unwrap().unwrap().inode, made.inode, "left alone");
        assert_eq!(apply_at(&target, node, &owners()), NONE);
        assert_eq!(target.stat_of(name).unwrap().unwrap().mtime, node.mtime);
        target.remove(name).unwrap();
        target.enter(name).unwrap().create_file(b"in the way").unwrap();
        target.make(node).unwrap();
        assert_eq!(target.stat_of(name).unwrap().unwrap().kind, node.kind, "replaced");
    }
    assert_eq!(target.folder().link_target(b"l").unwrap(), link.target);
    target.make(&Node { target: b"elsewhere".to_vec(), ..link }).unwrap();
    assert_eq!(target.folder().link_target(b"l").unwrap(), b"elsewhere");
    // One that somebody else has too is not shared any longer.
    std::fs::hard_link(dir.path().join("fifo"), dir.path().join("other")).unwrap();
    target.make(&node("fifo", Kind::Fifo)).unwrap();
    assert_eq!(target.stat_of(b"other").unwrap().unwrap().links, 1);
    for kind in [Kind::File, Kind::Dir] {
        assert!(target.make(&node("x", kind)).is_err());
    }
}

#[test]
fn devices() {
    if !is_root() {
        return;
    }
    let (_dir, target) = target();
    for (kind, rdev) in [(Kind::CharDevice, (1, 3)), (Kind::BlockDevice, (7, 70_000))] {
        let node = Node { rdev, mode: 0o640, gid: 6, ..node("dev", kind) };
        if let Err(e) = target.make(&node) {
            return eprintln!("skipped: no devices here: {e}");
        }
        assert_eq!(apply_at(&target, &node, &owners()), NONE);
        let made = target.stat_of(b"dev").unwrap().unwrap();
        assert_eq!((made.kind, made.rdev, made.mode, made.gid, made.mtime), (kind, rdev, 0o640, 6, node.mtime));
        assert!(target.open_existing(b"dev").unwrap().is_none());
    }
}

#[test]
fn hard_links() {
    let (_dir, target) = target();
    let folder = target.enter(b"d").unwrap();
    target.create_file(b"first").unwrap().write_all(b"data").unwrap();
    let inode = |name| folder.stat_of(name).unwrap().unwrap().inode;
    folder.hard_link(b"second", &target, b"first").unwrap();
    folder.hard_link(b"second", &target, b"first").unwrap();
    folder.create_file(b"third").unwrap();
    folder.hard_link(b"third", &target, b"first").unwrap();
    target.make(&Node { target: b"first".to_vec(), ..node("link", Kind::Symlink) }).unwrap();
    folder.hard_link(b"link", &target, b"link").unwrap();
    assert_eq!(target.stat_of(b"first").unwrap().unwrap().links, 3);
    assert_eq!(inode(b"second"), inode(b"third"));
    assert_eq!(folder.stat_of(b"link").unwrap().unwrap().kind, Kind::Symlink, "not followed");
    assert!(folder.hard_link(b"x", &target, b"nothing").is_err());
    target.hard_link(b"first", &target, b"first").unwrap();
}

#[test]
fn what_is_applied_is_what_is_read() {
    let (_dir, target) = target();
    let users = Users::new();
    let file = target.create_file(b"f").unwrap();
    let folder = target.enter(b"d").unwrap();
    for mode in [0o644, 0o4755, 0o2750, 0o1777, 0o444, 0o000, 0o600] {
        let as_file = Node { mode, ..node("f", Kind::File) };
        let as_folder = Node { mode, ..node("d", Kind::Dir) };
        assert_eq!(apply_to_file(&file, &as_file, &owners()), NONE);
        assert_eq!(apply_to_folder(&folder, &as_folder, &owners()), NONE);
        for node in [as_file, as_folder] {
            let stat = target.stat_of(&node.name).unwrap().unwrap();
            let read = target.folder().node(&node.name, &stat, &users).unwrap();
            assert_eq!((read.mode, read.uid, read.gid, read.mtime), (node.mode, node.uid, node.gid, node.mtime));
        }
    }
    let meta = file.metadata().unwrap();
    assert_eq!((meta.atime(), meta.atime_nsec()), (1_000_000_000, 987_654_321));
    // All is as it should be: nothing is changed, so ctime stands.
    let before = Stat::of(&file).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(apply_to_file(&file, &Node { mode: 0o600, ..node("f", Kind::File) }, &owners()), NONE);
    assert_eq!(Stat::of(&file).unwrap(), before);
    let gone = folder.path().join("x");
    assert_eq!(apply_at(&folder, &node("x", Kind::Fifo), &owners()).len(), 1, "{gone:?}");
}

#[test]
fn an_entry_of_another_kind_is_not_touched() {
    let (_dir, target) = target();
    target.create_file(b"fifo").unwrap();
    let before = target.stat_of(b"fifo").unwrap();
    assert_eq!(apply_at(&target, &Node { mode: 0o666, ..node("fifo", Kind::Fifo) }, &owners()).len(), 1);
    assert_eq!(target.stat_of(b"fifo").unwrap(), before);
}

#[test]
fn owners_by_name_or_by_number() {
    let node = Node { uid: 4711, gid: 4712, user: "root".into(), group: "root".into(), ..Node::new("f", Kind::File) };
    let stranger = Node { user: "no such user".into(), group: String::new(), ..node.clone() };
    let (by_name, by_number) = (Owners::new(false), Owners::new(true));
    assert_eq!((by_name.uid(&node), by_name.gid(&node)), (0, 0));
    assert_eq!((by_name.uid(&stranger), by_name.gid(&stranger)), (4711, 4712));
    assert_eq!((by_number.uid(&node), by_number.gid(&node)), (4711, 4712));
}

#[test]
fn somebody_elses_file() {
    let (_dir, target) = target();
    let file = target.create_file(b"f").unwrap();
    let (uid, gid) = (4711, 4712);
    let elses = Node { mode: 0o6755, uid, gid, ..node("f", Kind::File) };
    let link = Node { target: b"f".to_vec(), uid, gid, ..node("l", Kind::Symlink) };
    target.make(&link).unwrap();
    assert_eq!(apply_to_file(&file, &elses, &owners()), NONE, "not even if it is not root");
    assert_eq!(apply_at(&target, &link, &owners()), NONE);
    let (stat, link) = (Stat::of(&file).unwrap(), target.stat_of(b"l").unwrap().unwrap());
    if geteuid().is_root() {
        assert_eq!((stat.uid, stat.gid, stat.mode), (uid, gid, 0o6755));
        assert_eq!((link.uid, link.gid), (uid, gid));
    } else {
        assert_eq!((stat.uid, stat.mode), (geteuid().as_raw(), 0o755), "no set-user-id for somebody else");
    }
}

#[test]
fn a_change_of_owner_does_not_cost_the_mode() {
    if !is_root() {
        return;
    }
    let (_dir, target) = target();
    let file = target.create_file(b"f").unwrap();
    for uid in [0, 4711, 4712] {
        let node = Node { mode: 0o6755, uid, ..node("f", Kind::File) };
        assert_eq!(apply_to_file(&file, &node, &owners()), NONE);
        assert_eq!((Stat::of(&file).unwrap().uid, Stat::of(&file).unwrap().mode), (uid, 0o6755));
    }
}

fn attribute(name: &str, value: &[u8]) -> (Vec<u8>, Vec<u8>) {
    (name.as_bytes().to_vec(), value.to_vec())
}

/// An access control list as the kernel takes it: tag, bits, number.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut out = 2u32.to_le_bytes().to_vec();
    for (tag, bits, id) in entries {
        out.extend_from_slice(&tag.to_le_bytes());
        out.extend_from_slice(&bits.to_le_bytes());
        out.extend_from_slice(&id.to_le_bytes());
    }
    out
}

/// One more user reads and writes, the group does not, though it stands in the mode.
fn some_acl(owner: u16) -> Vec<u8> {
    acl(&[(1, owner, !0), (2, 6, 4711), (4, 0, !0), (0x10, 6, !0), (0x20, 0, !0)])
}

fn takes(path: &Path, name: &str, value: &[u8]) -> bool {
    let taken = fs::setxattr(path, name, value, XattrFlags::empty());
    if let Err(e) = taken {
        eprintln!("skipped: {name} cannot be set here: {e}");
    }
    taken.is_ok()
}

#[test]
fn attributes_are_made_equal() {
    let (dir, target) = target();
    let file = target.create_file(b"f").unwrap();
    let path = dir.path().join("f");
    if !takes(&path, "user.stale", b"1") || !takes(&path, "user.changed", b"old") {
        return;
    }
    let mut node = Node { mode: 0o444, ..node("f", Kind::File) };
    node.xattrs = vec![attribute("user.changed", b"new"), attribute("user.é", &[0; 1000])];
    let read = || target.folder().xattrs(b"f").unwrap();
    assert_eq!(apply_to_file(&file, &node, &owners()), NONE, "though the mode forbids to write");
    assert_eq!((read(), Stat::of(&file).unwrap().mode), (node.xattrs.clone(), 0o444));
    node.xattrs.clear();
    drop(file);
    let file = target.open_existing(b"f").unwrap().unwrap();
    assert_eq!(apply_to_file(&file, &node, &owners()), NONE);
    assert_eq!(read(), vec![]);
    node.xattrs = vec![attribute("nonsense.\n", b"")];
    let warnings = apply_to_file(&file, &node, &owners());
    assert!(warnings.len() == 1 && warnings[0].contains("nonsense.\\n"), "{warnings:?}");
    assert_eq!(Stat::of(&file).unwrap().mtime, node.mtime, "times are set all the same");
}

#[test]
fn access_control_lists() {
    let (dir, target) = target();
    let acl = some_acl(7);
    std::fs::write(dir.path().join("probe"), b"").unwrap();
    if !takes(&dir.path().join("probe"), "system.posix_acl_access", &acl) {
        return;
    }
    let folder = target.enter(b"d").unwrap();
    let both = vec![attribute("system.posix_acl_access", &acl), attribute("system.posix_acl_default", &acl)];
    let as_folder = Node { mode: 0o2760, xattrs: both.clone(), ..node("d", Kind::Dir) };
    assert_eq!(apply_to_folder(&folder, &as_folder, &owners()), NONE);
    assert_eq!(target.folder().xattrs(b"d").unwrap(), both);
    assert_eq!(target.stat_of(b"d").unwrap().unwrap().mode, 0o2760);

    // What is made in that folder inherits a list, and loses it again.
    let file = folder.create_file(b"f").unwrap();
    assert!(!folder.folder().xattrs(b"f").unwrap().is_empty());
    assert_eq!(Stat::of(&file).unwrap().mode & 0o077, 0);
    assert_eq!(apply_to_file(&file, &Node { mode: 0o640, ..node("f", Kind::File) }, &owners()), NONE);
    assert_eq!(folder.folder().xattrs(b"f").unwrap(), vec![]);
    assert_eq!(Stat::of(&file).unwrap().mode, 0o640);

    let with = Node { mode: 0o760, xattrs: both[..1].to_vec(), ..node("f", Kind::File) };
    assert_eq!(apply_to_file(&file, &with, &owners()), NONE);
    assert_eq!((folder.folder().xattrs(b"f").unwrap(), Stat::of(&file).unwrap().mode), (with.xattrs, 0o760));
}

#[test]
fn a_list_that_is_lost_does_not_open_the_file_to_its_group() {
    let (_dir, target) = target();
    let file = target.create_file(b"f").unwrap();
    // Refused by the kernel everywhere: a tag that there is not.
    let mut broken = some_acl(6);
    broken.extend_from_slice(&acl(&[(0x77, 7, 1)])[4..]);
    let node =
        Node { mode: 0o664, xattrs: vec![attribute("system.posix_acl_access", &broken)], ..node("f", Kind::File) };
    assert_eq!(apply_to_file(&file, &node, &owners()).len(), 1);
    assert_eq!(Stat::of(&file).unwrap().mode, 0o604);
    assert_eq!(attributes::group_in_acl(b""), 0);
    assert_eq!(attributes::group_in_acl(&acl(&[(4, 5, !0)])), 5);
}

#[test]
fn capabilities_come_after_the_owner_and_go_with_the_node() {
    if !is_root() {
        return;
    }
    let (_dir, target) = target();
    let file = target.create_file(b"f").unwrap();
    let net_raw = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut node = Node { mode: 0o755, uid: 4711, ..node("f", Kind::File) };
    node.xattrs = vec![attribute("security.capability", &net_raw), attribute("trusted.t", b"1")];
    let warnings = apply_to_file(&file, &node, &owners());
    if !warnings.is_empty() {
        return eprintln!("skipped: {warnings:?}");
    }
    assert_eq!(target.folder().xattrs(b"f").unwrap(), node.xattrs);
    node.xattrs.clear();
    assert_eq!(apply_to_file(&file, &node, &owners()), NONE);
    assert_eq!(target.folder().xattrs(b"f").unwrap(), vec![]);
    // Of a link itself.
    let link =
        Node { target: b"f".to_vec(), xattrs: vec![attribute("trusted.l", b"")], ..Node::new("l", Kind::Symlink) };
    target.make(&link).unwrap();
    assert_eq!(apply_at(&target, &link, &owners()), NONE);
    assert_eq!(target.folder().xattrs(b"l").unwrap(), link.xattrs);
    assert_eq!(target.folder().xattrs(b"f").unwrap(), vec![]);
}

#[test]
fn names_that_are_not_text() {
    let (dir, target) = target();
    let name = b"\xff\xfe\n";
    target.create_file(name).unwrap();
    assert!(dir.path().join(std::ffi::OsStr::from_bytes(name)).exists());
    let node = Node { target: name.to_vec(), ..Node::new(&b"\x80"[..], Kind::Symlink) };
    target.make(&node).unwrap();
    target.hard_link(b"\x81", &target, name).unwrap();
    assert_eq!(target.names().unwrap(), [b"\x80".to_vec(), b"\x81".to_vec(), name.to_vec()]);
}
