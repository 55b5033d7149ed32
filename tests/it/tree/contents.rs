//! Content lists of death, folders without an end, and trees too deep for any disk: a few kilobytes
//! that claim to be more than all the world holds.

use super::child::{MIB, watch, watch_until};
use super::hostile::{Hostile, folder, manifest, with_content};
use estrato::format::content::{Content, Extent};
use estrato::format::node::{Kind, Node};
use estrato::limits;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// What any command may take, whatever it is given.
const MOST: u64 = 400 * MIB;

/// The program as `arguments` say, in a shell that lets no file grow beyond so many blocks of 512 bytes.
fn with_file_size(world: &Hostile, blocks: u32, arguments: &[&str]) -> Command {
    let plain = world.place.command(arguments);
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"")]).arg(plain.get_program());
    shell.args(plain.get_args()).env_clear().envs(plain.get_envs().filter_map(|(k, v)| Some((k, v?))));
    shell.current_dir(plain.get_current_dir().unwrap()).arg0("sh");
    shell
}

/// A list of lists, each `width` times the same; six levels of 1,024 make 2^60 of what is below them.
fn tower(world: &Hostile, below: Extent, width: usize, levels: u8) -> Content {
    let mut extent = below;
    for level in 0..levels {
        extent = world.list(level, vec![extent; width]);
    }
    Content { level: levels, extents: vec![extent] }
}

#[test]
fn a_quadrillion_bytes_of_one_list_take_neither_memory_nor_the_other_files() {
    let world = Hostile::new();
    let root = [
        world.file("0 good", b"good"),
        // 2^60 chunks of one byte: each would be a write of its own.
        with_content("1 bytes", tower(&world, world.chunk(b"x"), 1024, 6)),
        // 2^50 bytes, in chunks as large as there are.
        with_content("2 zeros", tower(&world, world.chunk(&vec![0; limits::GROUP_MAX]), 1024, 3)),
        with_content("3 holes", tower(&world, Extent { id: None, len: 7 }, 1024, 6)),
        world.file("4 good", b"good"),
    ];
    world.snapshot(world.tree(&root));
    for arguments in [&["ls", "-R", "latest"][..], &["restore", "latest", "--target", "dry", "--dry-run"]] {
        watch(&mut world.place.command(arguments)).expect(0, MOST);
    }
    watch(&mut world.place.command(&["check", "--read-data"])).expect(0, MOST);
    // The holes alone are 2^60 extents: only Ctrl-C ends that here, and it does.
    let arguments = ["restore", "latest", "--target", "target", "--numeric-owner", "--exclude", "3 holes"];
    for _ in 0..2 {
        let ran = watch(&mut with_file_size(&world, 1000, &arguments)).expect(1, MOST);
        assert!(ran.stderr().contains("1 bytes") && ran.stderr().contains("2 zeros"), "{}", ran.stderr());
        for name in ["0 good", "4 good"] {
            assert_eq!(std::fs::read(world.place.path("target").join(name)).unwrap(), b"good");
        }
        assert!(!world.place.path("target/1 bytes").exists(), "what failed is not left half done");
    }
    let target = world.place.path("holes");
    let arguments = ["restore", "latest:3 holes", "--target", target.to_str().unwrap()];
    let begun = || target.exists();
    watch_until(&mut world.place.command(&arguments), begun).expect(130, MOST);
    // A backup that compares with it does not go through it.
    world.place.write("source/1 bytes", "x");
    world.place.snapshot(&["--host", "host"]);
}

#[test]
fn a_long_file_of_many_parts_comes_back_and_goes_on_where_it_was_left() {
    let world = Hostile::new();
    // More extents than a round plans: pieces of 3 bytes, holes among them.
    let pieces: Vec<Vec<u8>> = (0..1000u32).map(|n| n.to_le_bytes()[..3].to_vec()).collect();
    let chunks: Vec<Extent> = pieces.iter().map(|p| world.chunk(p)).collect();
    let hole = Extent { id: None, len: 5 };
    let inner: Vec<Extent> = chunks.iter().copied().chain([hole]).collect();
    let times = limits::RESTORE_BATCH_BLOBS / 1000 * 2 + 7;
    let lists = vec![world.list(0, inner); times];
    let content = Content { level: 2, extents: vec![world.list(1, lists)] };
    let expected = [pieces.concat(), vec![0; 5]].concat().repeat(times);
    let plain = Content { level: 1, extents: vec![world.list(0, chunks); times] };
    let missing = Extent { id: Some(estrato::id::BlobId([9; 32])), len: 3 };
    let mut broken = plain.clone();
    broken.extents.push(world.list(0, vec![missing]));
    world.snapshot(world.tree(&[
        Node { mode: 0o444, ..with_content("1 long", content) },
        with_content("2 plain", plain),
        with_content("3 broken at its end", broken),
        world.file("4 good", b"good"),
    ]));
    let path = |name: &str| world.place.path("target").join(name);
    for more in [&[][..], &["--verify"]] {
        let arguments = [&["restore", "latest", "--target", "target", "--numeric-owner"], more].concat();
        let ran = watch(&mut world.place.command(&arguments)).expect(1, MOST);
        assert!(ran.stderr().contains("3 broken at its end"), "{}", ran.stderr());
        assert!(std::fs::read(path("1 long")).unwrap() == expected);
        assert_eq!(std::fs::read(path("2 plain")).unwrap(), pieces.concat().repeat(times));
        assert_eq!(std::fs::read(path("4 good")).unwrap(), b"good");
        assert!(!path("3 broken at its end").exists());
        // The second time something of it is wrong, and only that is written.
        crate::support::change(&path("2 plain"), |bytes| {
            let at = bytes.len() - 10;
            bytes[at] ^= 1;
        });
    }
}

#[test]
fn extents_of_no_bytes_are_no_content() {
    let world = Hostile::new();
    let nothing = Extent { len: 0, ..world.chunk(b"") };
    let of_nothing = |below: Extent| {
        let mut extent = below;
        for level in 0..7 {
            extent = Extent { len: 0, ..world.list(level, vec![extent; 1024]) };
        }
        Content { level: 7, extents: vec![Extent { len: 0, ..extent }] }
    };
    let bad = [with_content("x", of_nothing(nothing)), with_content("y", of_nothing(Extent { id: None, len: 0 }))];
    // A folder of nothing is a folder, and its content is looked at when it is entered.
    let endless = folder("2 endless", of_nothing(world.nodes(&[])));
    let root = [folder("1 bad", world.tree(&bad)), endless, world.file("3 good", b"good")];
    let segments = root.iter().map(|n| world.nodes(std::slice::from_ref(n))).collect();
    world.snapshot(Content { level: 0, extents: segments });
    for (arguments, code) in [
        (&["restore", "latest", "--target", "target", "--numeric-owner"][..], 1),
        (&["ls", "-R", "latest"], 4),
        (&["check"], 4),
    ] {
        watch(&mut world.place.command(arguments)).expect(code, MOST);
    }
    assert_eq!(std::fs::read(world.place.path("target/3 good")).unwrap(), b"good");
}

#[test]
fn a_folder_of_the_same_segment_for_ever_is_given_up() {
    let world = Hostile::new();
    let segment = world.nodes(&[world.file("a", b"a"), world.file("b", b"b")]);
    let missing = Extent { id: Some(estrato::id::BlobId([9; 32])), len: 9 };
    let root = [
        folder("1 again and again", tower(&world, segment, 1024, 5)),
        folder("2 lost", tower(&world, missing, 40, 2)),
        folder("3 lost lists", Content { level: 5, extents: vec![missing; 30] }),
        world.file("4 good", b"good"),
    ];
    world.snapshot(world.tree(&root));
    for (arguments, code) in [
        (&["restore", "latest", "--target", "target", "--numeric-owner", "--delete"][..], 1),
        (&["ls", "-R", "latest"], 4),
        (&["check"], 4),
    ] {
        watch(&mut world.place.command(arguments)).expect(code, MOST);
    }
    for name in ["1 again and again/a", "1 again and again/b", "4 good"] {
        assert!(world.place.path("target").join(name).exists(), "{name}");
    }
    world.place.write("source/4 good", "good");
    world.place.snapshot(&["--host", "host"]);
}

#[test]
fn a_hundred_thousand_folders_below_one_another_end_where_the_bound_is() {
    let world = Hostile::new();
    // The longest name there is: a path each would be half a gigabyte for those that are open at once.
    let name = vec![b'd'; limits::NAME_MAX];
    let mut content = world.tree(&[world.file("bottom", b"deep")]);
    for _ in 0..100_000 {
        content = world.tree(&[folder(name.clone(), content)]);
    }
    world.snapshot(world.tree(&[folder("1 deep", content), world.file("2 good", b"good")]));
    let restore = ["restore", "latest", "--target", "target", "--numeric-owner"];
    let ran = watch(&mut world.place.command(&restore)).expect(1, MOST);
    assert!(ran.stderr().contains("too deep"));
    assert_eq!(std::fs::read(world.place.path("target/2 good")).unwrap(), b"good");
    watch(&mut world.place.command(&[&restore[..], &["--dry-run"]].concat())).expect(1, MOST);
    watch(&mut world.place.command(&["check"])).expect(4, MOST);
    // Without a path in its output: that alone would be a gigabyte.
    let ran = watch(&mut world.place.command(&["ls", "latest"])).expect(0, MOST);
    assert_eq!(ran.stdout(), "1 deep/\n2 good\n");
    let ran = Command::new("rm").arg("-rf").arg(world.place.path("target")).status().unwrap();
    assert!(ran.success());
}

#[test]
fn a_tree_that_doubles_at_every_level_ends_when_it_is_asked_to() {
    let world = Hostile::new();
    let mut content = world.tree(&[world.file("leaf", b"leaf")]);
    for _ in 0..200 {
        content = world.tree(&[folder("a", content.clone()), folder("b", content)]);
    }
    let whole = content;
    let lost = Extent { id: Some(estrato::id::BlobId([9; 32])), len: 9 };
    let mut content = Content { level: 0, extents: vec![lost] };
    for _ in 0..200 {
        content = world.tree(&[folder("a", content.clone()), folder("b", content)]);
    }
    world.snapshot(whole);
    // A check walks each tree once, and one that is damaged a few times.
    watch(&mut world.place.command(&["check"])).expect(0, MOST);
    world.snapshot_of(estrato::id::SnapshotId([0xcd; 16]), &manifest(content).encode());
    watch(&mut world.place.command(&["check"])).expect(4, MOST);
    std::fs::remove_file(world.place.objects("snapshots").pop().unwrap()).unwrap();
    let dry = &mut world.place.command(&["restore", "latest", "--target", "target", "--dry-run"]);
    watch_until(dry, || true).expect(130, MOST);
    let target = world.place.path("target");
    let arguments = ["restore", "latest", "--target", "target", "--numeric-owner"];
    watch_until(&mut world.place.command(&arguments), || target.join("a/a/a/a").exists()).expect(130, MOST);
}

#[test]
fn a_link_of_which_the_first_name_lies_in_a_folder_long_closed() {
    // Each folder holds the first name of an inode: to keep them all open would take a handle for each.
    let world = Hostile::new();
    let first = Node { links: 2, ..world.file("first", b"data") };
    let folders = 3000u64;
    let mut root: Vec<Node> = (0..folders)
        .map(|n| folder(format!("d{n:05}"), world.tree(&[Node { inode: n + 1, ..first.clone() }])))
        .collect();
    let second = |n: u64| Node { inode: n + 1, name: format!("{n:05}").into_bytes(), ..first.clone() };
    root.push(folder("z", world.tree(&(0..folders).map(second).collect::<Vec<_>>())));
    root.push(Node { target: b"x".to_vec(), ..Node::new("zz", Kind::Symlink) });
    world.snapshot(world.tree(&root));
    let mut command = world.place.command(&["restore", "latest", "--target", "target", "--numeric-owner"]);
    let plain = Command::new("sh");
    let mut shell = plain;
    shell.args(["-c", "ulimit -n 2048; exec \"$0\" \"$@\""]).arg(command.get_program()).args(command.get_args());
    shell.env_clear().envs(command.get_envs().filter_map(|(k, v)| Some((k, v?))));
    shell.current_dir(command.get_current_dir().unwrap());
    command = shell;
    watch(&mut command).expect(0, MOST);
    use std::os::unix::fs::MetadataExt as _;
    let inode = |name: String| std::fs::metadata(world.place.path("target").join(name)).unwrap().ino();
    for n in [0, 1, 1500, 2999] {
        assert_eq!(inode(format!("d{n:05}/first")), inode(format!("z/{n:05}")));
    }
}
