//! Entries that no file system would hold: names that leave their folder, folders that contradict
//! themselves, sizes, times, modes and attributes that lie.

use super::child::{MIB, watch};
use super::hostile::{Hostile, folder, with_content};
use crate::support::{is_root, noise};
use estrato::clock::Timestamp;
use estrato::format::content::{Content, Extent};
use estrato::format::node::{Kind, Node};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;

/// The codes with which a folder that cannot be read ends each command.
const LOST: [(&[&str], i32); 5] = [
    (&["restore", "latest", "--target", "target", "--numeric-owner", "--verify"], 1),
    (&["restore", "latest", "--target", "target", "--numeric-owner"], 1),
    (&["ls", "-R", "-l", "latest"], 4),
    (&["ls", "-R", "--json", "latest"], 4),
    (&["check", "--read-data"], 4),
];

#[test]
fn names_that_lead_elsewhere_cost_their_folder_and_nothing_else() {
    let world = Hostile::new();
    world.outside();
    let long = vec![b'n'; 256];
    let names: [&[u8]; 10] =
        [b"", b".", b"..", b"/", b"a/b", b"../outside/kept", b"/tmp/estrato-was-here", b"a\0", b"\0", &long];
    let mut root = vec![world.file("0 good", b"good")];
    for (n, name) in names.iter().enumerate() {
        // In a segment of its own: the one beside it is not lost with it.
        let segments =
            vec![world.nodes(&[world.file("a good", b"good")]), world.nodes(&[world.file(*name, b"evil")])];
        root.push(folder(format!("bad {n}"), Content { level: 0, extents: segments }));
        let below = world.tree(&[folder(*name, world.tree(&[world.file("below", b"evil")]))]);
        root.push(folder(format!("bad {n} folder"), below));
        let link = Node { target: b"../outside".to_vec(), ..Node::new(*name, Kind::Symlink) };
        root.push(folder(format!("bad {n} link"), world.tree(&[link])));
    }
    root.push(world.file("z good", b"good"));
    world.snapshot(world.tree(&root));
    for (arguments, code) in LOST {
        let ran = watch(&mut world.place.command(arguments)).expect(code, 300 * MIB);
        let told = ran.stdout() + &ran.stderr();
        assert!(told.contains("whose name is not one"), "{arguments:?}: {told}");
        assert!(!told.contains('\0') && !told.contains(&"n".repeat(300)), "{arguments:?}: {told}");
    }
    let target = world.place.path("target");
    let read = |name: &str| std::fs::read(target.join(name)).unwrap();
    assert_eq!((read("0 good"), read("z good")), (b"good".to_vec(), b"good".to_vec()));
    for n in 0..names.len() {
        assert_eq!(read(&format!("bad {n}/a good")), b"good");
        let entries = |name: String| std::fs::read_dir(target.join(name)).unwrap().count();
        assert_eq!(entries(format!("bad {n}")), 1);
        assert_eq!(entries(format!("bad {n} folder")) + entries(format!("bad {n} link")), 0);
    }
    assert!(!std::path::Path::new("/tmp/estrato-was-here").exists());
    world.expect_untouched();
}

#[test]
fn a_name_that_stands_twice_is_taken_once() {
    let world = Hostile::new();
    let outside = world.outside();
    let leads = |to: &[u8]| Node { target: to.to_vec(), ..Node::new("a", Kind::Symlink) };
    let link = leads(outside.to_str().unwrap().as_bytes());
    let below = folder("a", world.tree(&[world.file("kept", b"evil"), world.file("passwd", b"evil")]));
    let after = world.file("b", b"after");
    let two = |first: &[Node], second: &[Node]| Content {
        level: 0,
        extents: vec![world.nodes(first), world.nodes(second), world.nodes(&[world.file("c", b"third")])],
    };
    let root = [
        folder("1 link first", two(std::slice::from_ref(&link), &[below.clone(), after.clone()])),
        folder("2 folder first", two(std::slice::from_ref(&below), &[link.clone(), after.clone()])),
        folder("3 in one segment", two(&[link.clone(), below.clone()], std::slice::from_ref(&after))),
        folder("4 backwards", two(std::slice::from_ref(&after), &[link])),
        folder("5 the folder twice", two(std::slice::from_ref(&below), std::slice::from_ref(&below))),
    ];
    world.snapshot(world.tree(&root));
    for (arguments, code) in LOST {
        watch(&mut world.place.command(arguments)).expect(code, 300 * MIB);
        world.expect_untouched();
    }
    let target = world.place.path("target");
    assert!(target.join("1 link first/a").is_symlink());
    assert_eq!(std::fs::read(target.join("2 folder first/a/kept")).unwrap(), b"evil");
    assert!(target.join("4 backwards/b").exists() && !target.join("4 backwards/a").exists());
}

#[test]
fn a_folder_that_was_a_link_when_it_was_restored_leads_nowhere() {
    let world = Hostile::new();
    let outside = world.outside();
    std::fs::create_dir(world.place.path("target")).unwrap();
    std::os::unix::fs::symlink(&outside, world.place.path("target/a")).unwrap();
    std::os::unix::fs::symlink(outside.join("kept"), world.place.path("target/b")).unwrap();
    std::fs::hard_link(outside.join("kept"), world.place.path("target/c")).unwrap();
    let below = world.tree(&[world.file("kept", b"evil"), world.file("new", b"evil")]);
    world.snapshot(world.tree(&[folder("a", below), world.file("b", b"evil"), world.file("c", b"evil")]));
    world.restore(&["--delete"]).expect_code(0);
    world.expect_untouched();
    assert_eq!(std::fs::read(world.place.path("target/a/kept")).unwrap(), b"evil");
}

#[test]
fn names_of_one_inode_that_are_not_one_file_stay_below_the_target() {
    let world = Hostile::new();
    let outside = world.outside();
    let inode = |node: Node| Node { links: 3, inode: 7, device: 7, ..node };
    let link =
        Node { target: outside.join("kept").to_str().unwrap().as_bytes().to_vec(), ..Node::new("a", Kind::Symlink) };
    let up = Node { target: b"../../outside/kept".to_vec(), ..Node::new("a", Kind::Symlink) };
    let root = [
        // The first name of the inode is a link that leads out; what follows says that it is a file.
        folder("1", world.tree(&[inode(link), inode(world.file("b", b"evil")), inode(Node::new("c", Kind::Fifo))])),
        folder(
            "2",
            world.tree(&[Node { inode: 8, ..inode(up) }, Node { inode: 8, ..inode(world.file("b", b"evil")) }]),
        ),
        folder("3", world.tree(&[Node { inode: 9, ..inode(Node::new("d", Kind::Dir)) }])),
        Node { inode: 9, ..inode(world.file("4", b"fine")) },
        Node { inode: 10, links: u64::MAX, ..inode(world.file("5", b"fine")) },
    ];
    world.snapshot(world.tree(&root));
    for more in [&["--verify"][..], &[], &["--delete"]] {
        let code = world.restore(more).code();
        assert!(code == 0 || code == 1, "{more:?}: {code}");
        world.expect_untouched();
    }
    assert_eq!(std::fs::metadata(outside.join("kept")).unwrap().nlink(), 1);
    for name in ["4", "5"] {
        assert_eq!(std::fs::read(world.place.path("target").join(name)).unwrap(), b"fine");
    }
}

#[test]
fn sizes_that_lie_cost_their_file() {
    let world = Hostile::new();
    let data = noise("data", 3000);
    let chunk = world.chunk(&data);
    let lies = |len| Content { level: 0, extents: vec![Extent { len, ..chunk }] };
    let hole = |len| Content { level: 0, extents: vec![Extent { id: None, len }] };
    let listed = |level: u8, len| {
        let list = world.list(level, vec![chunk]);
        Content { level: level + 1, extents: vec![Extent { len, ..list }] }
    };
    let dir_like = Content { level: 0, extents: vec![world.nodes(&[])] };
    let root = [
        world.file("0 good", b"good"),
        with_content("1 shorter than its chunk", lies(100)),
        with_content("2 longer than its chunk", lies(5000)),
        with_content("3 the longest", lies(u64::MAX)),
        with_content("4 all of it a hole", hole(u64::MAX)),
        with_content("5 again", hole(u64::MAX)),
        with_content("6 as long as the kernel counts", hole(i64::MAX as u64)),
        with_content("7 a list that is shorter", listed(0, 4000)),
        with_content("8 a list that says it is another", listed(3, 3000)),
        with_content("9 a tree for a file", dir_like),
        world.file("A good", b"good"),
    ];
    let alone = folder("B size of its own", world.tree(&[Node { size: 7, ..world.file("x", b"data") }]));
    let last = world.file("C good", b"good");
    world.snapshot(world.tree(&[&root[..], &[alone, last]].concat()));
    watch(&mut world.place.command(&["restore", "latest", "--target", "dry", "--dry-run"])).expect(1, 300 * MIB);
    watch(&mut world.place.command(&["ls", "-R", "-l", "latest"])).expect(4, 300 * MIB);
    for more in [&[][..], &["--verify"]] {
        let arguments = [&["restore", "latest", "--target", "target", "--numeric-owner"], more].concat();
        let ran = watch(&mut world.place.command(&arguments)).expect(1, 300 * MIB);
        for name in ["1 shorter", "2 longer", "3 the", "4 all", "5 again", "7 a", "8 a", "9 a"] {
            assert!(ran.stderr().contains(name), "{name}: {}", ran.stderr());
        }
        for name in ["0 good", "A good", "C good"] {
            assert_eq!(std::fs::read(world.place.path("target").join(name)).unwrap(), b"good");
        }
    }
    // What could not be right is not there.
    assert!(!world.place.path("target/1 shorter than its chunk").exists());
    watch(&mut world.place.command(&["check", "--read-data"])).expect(4, 300 * MIB);
    // A next backup compares with this snapshot, and believes none of it.
    world.place.write("source/0 good", "good");
    world.place.snapshot(&["--host", "host"]);
}

#[test]
fn times_modes_and_attributes_beyond_all_bounds_are_warnings() {
    let world = Hostile::new();
    let at = |seconds, nanos| Timestamp { seconds, nanos };
    let times =
        [at(i64::MIN, 0), at(i64::MAX, 999_999_999), at(-1, 1), at(-62_135_596_801, 0), at(253_402_300_800, 5)];
    let mut root = Vec::new();
    for (n, time) in times.into_iter().enumerate() {
        root.push(Node { mtime: time, ctime: time, ..world.file(format!("time {n}"), b"data") });
        root.push(Node { mtime: time, ctime: time, ..folder(format!("time {n} folder"), world.tree(&[])) });
        let link = Node::new(format!("time {n} link"), Kind::Symlink);
        root.push(Node { mtime: time, target: b"x".to_vec(), ..link });
    }
    let many: Vec<_> = (0..20_000).map(|n| (format!("user.{n:05}").into_bytes(), Vec::new())).collect();
    let large = vec![(b"user.large".to_vec(), vec![7; 200_000])];
    let nonsense = vec![(b"\x1b[2J".to_vec(), b"x".to_vec()), (b"system.\xff".to_vec(), b"y".to_vec())];
    for (name, xattrs) in [("xattrs large", large), ("xattrs many", many), ("xattrs nonsense", nonsense)] {
        root.push(Node { xattrs, ..world.file(name, b"data") });
    }
    root.push(Node { uid: u32::MAX, gid: u32::MAX, mode: 0o6755, ..world.file("xz nobody's", b"data") });
    root.sort_by(|a, b| a.name.cmp(&b.name));
    let segments: Vec<Extent> = root.iter().map(|n| world.nodes(std::slice::from_ref(n))).collect();
    world.snapshot(Content { level: 0, extents: segments });
    for arguments in [&["ls", "-l", "latest"][..], &["ls", "--json", "latest"], &["check"]] {
        watch(&mut world.place.command(arguments)).expect(0, 300 * MIB);
    }
    let command = &mut world.place.command(&["restore", "latest", "--target", "target", "--numeric-owner"]);
    let ran = watch(command).expect(0, 300 * MIB);
    assert!(!ran.stderr().contains('\x1b'), "{}", ran.stderr());
    for node in root.iter().filter(|n| n.kind == Kind::File) {
        let name = std::str::from_utf8(&node.name).unwrap();
        assert_eq!(std::fs::read(world.place.path("target").join(name)).unwrap(), b"data", "{name}");
    }
    world.place.write("source/time 0", "data");
    world.place.snapshot(&["--host", "host"]);
}

#[test]
fn who_is_not_root_makes_no_devices_and_gets_nobodys_rights() {
    let world = Hostile::new();
    let device = |name: &str, kind| Node { rdev: (8, 0), mode: 0o666, ..Node::new(name, kind) };
    let setuid =
        Node { mode: 0o6777, uid: 0, gid: 0, user: "root".into(), group: "root".into(), ..world.file("c", b"#!") };
    let root = [
        device("a", Kind::BlockDevice),
        device("b", Kind::CharDevice),
        setuid,
        Node { mode: 0o666, ..Node::new("d", Kind::Fifo) },
        world.file("e", b"good"),
    ];
    world.snapshot(world.tree(&root));
    let mut command = world.place.command(&["restore", "latest", "--target", "target"]);
    let mut uid = rustix::process::geteuid().as_raw();
    if is_root() {
        // Another user must reach the program, the repository and the key.
        uid = 65_534;
        let all = |name: &str, mode| {
            std::fs::set_permissions(world.place.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
        };
        all("", 0o777);
        all("key", 0o644);
        for folder in ["repo", "repo/tenants/default"] {
            all(folder, 0o755);
        }
        open_all(&world.place.path("repo"));
        command.uid(uid).gid(uid);
    }
    match command.output() {
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
            return eprintln!("skipped: another user cannot run the program here");
        }
        ran => assert_eq!(ran.unwrap().status.code(), Some(1)),
    }
    let stat = |name: &str| std::fs::symlink_metadata(world.place.path("target").join(name));
    assert!(stat("a").is_err() && stat("b").is_err());
    assert_eq!((stat("c").unwrap().uid(), stat("c").unwrap().mode() & 0o6000), (uid, 0));
    assert!(stat("d").is_ok());
    assert_eq!(std::fs::read(world.place.path("target/e")).unwrap(), b"good");
}

fn open_all(folder: &std::path::Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let mode = if path.is_dir() { 0o755 } else { 0o644 };
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        if path.is_dir() {
            open_all(&path);
        }
    }
}
