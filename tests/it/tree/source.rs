//! Hostile sources: names, depths, numbers and sizes beyond what is usual, and files that do not
//! stand still while they are read.

use super::child::{Ends, MIB, watch, watch_until};
use super::hostile::open;
use crate::support::{Place, is_root, noise};
use estrato::backup::{self, Options, Outcome, Selection, Source};
use estrato::error::Error;
use estrato::format::manifest::SnapshotKind;
use estrato::format::node::{Kind, Node};
use estrato::format::pack::BlobKind;
use estrato::limits;
use estrato::monitor::{Event, Monitor, Silent};
use estrato::repo::Repository;
use estrato::snapshot::{self, Folder};
use rustix::fs::{self, CWD, FileType, Mode, OFlags, RenameFlags};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

fn options() -> Options {
    Options {
        kind: SnapshotKind::Full,
        host: "host".into(),
        user: String::new(),
        tags: Vec::new(),
        time: None,
        exclude: Vec::new(),
        exclude_files: Vec::new(),
        one_file_system: false,
        dry_run: false,
        level: 1,
        delta: Default::default(),
        program: "test".into(),
    }
}

fn take(repo: &Repository, path: &Path, monitor: &dyn Monitor) -> Result<Outcome, Error> {
    let selection = Selection::new(&[path.to_path_buf()]).unwrap();
    backup::run(repo, Source::Files(selection), &options(), monitor)
}

/// What a snapshot holds of `path`: each entry's way below it, and the entry.
fn stored(repo: &Repository, outcome: &Outcome, path: &Path) -> Vec<(PathBuf, Node)> {
    let top = snapshot::find(repo, &outcome.manifest.root, path.as_os_str().as_bytes()).unwrap().unwrap();
    let mut found = Vec::new();
    let mut folders = vec![(PathBuf::new(), top.content)];
    while let Some((at, content)) = folders.pop() {
        for node in Folder::new(repo, &content).map(Result::unwrap) {
            let at = at.join(OsStr::from_bytes(&node.name));
            if node.kind == Kind::Dir {
                folders.push((at.clone(), node.content.clone()));
            }
            found.push((at, node));
        }
    }
    found
}

/// A file's stored bytes.
fn bytes_of(repo: &Repository, node: &Node) -> Vec<u8> {
    let mut bytes = Vec::new();
    for extent in snapshot::leaves(repo, &node.content).map(Result::unwrap) {
        match extent.id {
            Some(id) => bytes.extend(repo.blob(BlobKind::Chunk, &id).unwrap()),
            None => bytes.resize(bytes.len() + usize::try_from(extent.len).unwrap(), 0),
        }
    }
    bytes
}

#[test]
fn every_byte_that_a_name_may_hold() {
    let place = Place::with_repository();
    let mut names: Vec<Vec<u8>> = (1..=255u8).filter(|b| !matches!(b, b'/' | b'.')).map(|b| vec![b]).collect();
    names.extend((1..=255u8).filter(|b| *b != b'/').map(|b| vec![b; limits::NAME_MAX]));
    for text in
        ["\u{202e}fdp.exe", "\u{2066}a\u{2069}", "\u{61c}", "\u{200e}\u{200f}", "a\u{2028}b\u{2029}", "e\u{301}"]
    {
        names.push(text.as_bytes().to_vec());
    }
    for name in [
        &b"..."[..],
        b"-rf",
        b"a\nb",
        b"\x1b[2J\x1b]0;title\x07",
        b"\xff\xfe",
        b"\xc3(",
        b"\xed\xa0\x80",
        b"  ",
        b"\\x41",
    ] {
        names.push(name.to_vec());
    }
    std::fs::create_dir(place.path("source")).unwrap();
    for (n, name) in names.iter().enumerate() {
        place.write(Path::new("source").join(OsStr::from_bytes(name)), n.to_string());
    }
    let document = place.snapshot(&[]);
    assert_eq!(document["manifest"]["summary"]["total"]["entries"], names.len());
    place.restore("target", &["--verify"]);
    for (n, name) in names.iter().enumerate() {
        let path = place.path("target").join(OsStr::from_bytes(name));
        assert_eq!(std::fs::read(path).unwrap(), n.to_string().as_bytes(), "{:?}", name.escape_ascii().to_string());
    }
    for arguments in [&["ls", "latest"][..], &["ls", "-l", "latest"]] {
        let told = place.run(arguments).expect_code(0).stdout();
        assert_eq!(told.lines().count(), names.len(), "one line each");
        let marks = "\u{61c}\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}\u{2028}\u{2029}";
        assert_eq!(told.chars().find(|c| c.is_control() && *c != '\n' || marks.contains(*c)), None);
    }
}

/// Folders of this name below one another, and the file `bottom` in the innermost.
fn dig(top: &Path, name: &[u8], depth: usize) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    std::fs::create_dir_all(top).unwrap();
    let mut at = fs::openat(CWD, top, flags, Mode::empty()).unwrap();
    for _ in 0..depth {
        fs::mkdirat(&at, name, Mode::RWXU).unwrap();
        at = fs::openat(&at, name, flags, Mode::empty()).unwrap();
    }
    let file = fs::openat(&at, "bottom", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR | Mode::WUSR).unwrap();
    File::from(file).write_all(b"deep").unwrap();
}

/// How many folders of this name lie below one another, and what the file in the innermost holds.
fn fathom(top: &Path, name: &[u8]) -> (usize, String) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = fs::openat(CWD, top, flags, Mode::empty()).unwrap();
    let mut depth = 0;
    while let Ok(below) = fs::openat(&at, name, flags, Mode::empty()) {
        at = below;
        depth += 1;
    }
    let bottom = fs::openat(&at, "bottom", OFlags::RDONLY, Mode::empty());
    (depth, bottom.map_or(String::new(), |file| std::io::read_to_string(File::from(file)).unwrap()))
}

/// What lies deeper than a path is long is more than a temporary folder removes by itself.
fn fill_in(path: &Path) {
    assert!(Command::new("rm").arg("-rf").arg(path).status().unwrap().success());
}

#[test]
fn two_thousand_folders_below_one_another_come_back() {
    let place = Place::with_repository();
    let long = vec![b'n'; limits::NAME_MAX];
    dig(&place.path("source/long"), &long, 2000);
    dig(&place.path("source/short"), b"s", 2000);
    dig(&place.path("source/deeper"), b"s", 2100);
    place.write("source/good", "good");
    let mut command = place.command_in("source", &["snapshot", ".", "--exclude", "/nothing", "--json"]);
    let ran = watch(&mut command).expect(3, 300 * MIB);
    assert!(ran.stderr().contains("too deep"), "{}", ran.stderr());
    let restore = ["restore", "latest", "--target", "target", "--verify"];
    let ran = watch(&mut place.command(&restore)).expect(0, 400 * MIB);
    assert_eq!(ran.stderr(), "");
    let target = place.path("target");
    assert_eq!(fathom(&target.join("long"), &long), (2000, "deep".into()));
    assert_eq!(fathom(&target.join("short"), b"s"), (2000, "deep".into()));
    let (depth, bottom) = fathom(&target.join("deeper"), b"s");
    assert!((2000..2100).contains(&depth) && bottom.is_empty(), "{depth}");
    assert_eq!(std::fs::read(target.join("good")).unwrap(), b"good");
    fill_in(&target);
    fill_in(&place.path("source"));
}

#[test]
fn a_folder_of_very_many_entries_takes_little_memory_for_each() {
    let place = Place::with_repository();
    let long = std::env::var_os("ESTRATO_LONG_TESTS").is_some();
    let (entries, most) = if long { (1_000_000, 800) } else { (100_000, 120) };
    std::fs::create_dir(place.path("source")).unwrap();
    let folder = fs::openat(CWD, place.path("source"), OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap();
    for n in 0..entries {
        // Empty but for a few: what is measured is the folder.
        let file = fs::openat(&folder, format!("entry {n:07}"), OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
        if n % 1000 == 0 {
            File::from(file).write_all(&n.to_string().into_bytes()).unwrap();
        }
    }
    for _ in 0..2 {
        let mut command = place.command_in("source", &["snapshot", ".", "--json"]);
        let ran = watch(&mut command).expect(0, most * MIB);
        let document: serde_json::Value = serde_json::from_str(&ran.stdout()).unwrap();
        assert_eq!(document["manifest"]["summary"]["total"]["entries"], entries);
    }
    watch(&mut place.command(&["ls", "latest", "--quiet"])).expect(0, most * MIB);
    watch(&mut place.command(&["check"])).expect(0, most * MIB);
    watch(&mut place.command(&["restore", "latest", "--target", "target"])).expect(0, most * MIB);
    assert_eq!(std::fs::read_dir(place.path("target")).unwrap().count(), entries);
    assert_eq!(std::fs::read(place.path("target/entry 0099000")).unwrap(), b"99000");
}

/// A file of nothing but a few bytes at these places; the longest that the file system takes.
fn sparse(path: &Path, most: u64, places: &[(u64, &[u8])]) -> u64 {
    let file = File::create(path).unwrap();
    let mut len = most;
    while file.set_len(len).is_err() {
        len /= 2;
    }
    for (at, bytes) in places {
        file.write_all_at(bytes, *at).unwrap();
    }
    len
}

#[test]
fn files_that_claim_terabytes_cost_what_they_hold() {
    let place = Place::with_repository();
    std::fs::create_dir(place.path("source")).unwrap();
    let last = 3_000_000_000_000;
    let places: &[(u64, &[u8])] = &[(0, b"first"), (1_000_000_000_000, b"middle"), (last, b"last")];
    let len = sparse(&place.path("source/a"), 1 << 43, places);
    sparse(&place.path("source/b"), i64::MAX as u64, &[]);
    assert!(len > last);
    for kind in ["full", "incremental"] {
        let mut command = place.command_in("source", &["snapshot", ".", "--json", "--kind", kind]);
        watch(&mut command).expect(0, 150 * MIB);
    }
    watch(&mut place.command(&["restore", "latest", "--target", "target", "--verify"])).expect(0, 150 * MIB);
    let file = File::open(place.path("target/a")).unwrap();
    let stat = file.metadata().unwrap();
    assert_eq!(stat.len(), len);
    assert!(stat.blocks() * 512 < MIB, "{} blocks", stat.blocks());
    for (at, bytes) in places {
        let mut found = vec![0; bytes.len()];
        file.read_exact_at(&mut found, *at).unwrap();
        assert_eq!(found, *bytes);
    }
}

#[test]
fn files_that_claim_more_than_can_be_counted_are_stored() {
    let place = Place::with_repository();
    // A file system in memory takes files of 8 EiB: three of them overflow a sum.
    let Ok(source) = tempfile::tempdir_in("/dev/shm") else {
        return eprintln!("skipped: there is no file system in memory");
    };
    let lens: Vec<u64> =
        (0..3).map(|n| sparse(&source.path().join(n.to_string()), i64::MAX as u64, &[(4096, b"data")])).collect();
    let path = source.path().to_str().unwrap();
    for more in [&[][..], &["--dry-run"], &["--kind", "full"]] {
        watch(&mut place.command(&[&["snapshot", path][..], more].concat())).expect(0, 150 * MIB);
    }
    watch(&mut place.command(&["restore", "latest", "--target", "dry", "--dry-run"])).expect(0, 150 * MIB);
    let target = source.path().join("target");
    let arguments = ["restore", &format!("latest:{path}"), "--target", target.to_str().unwrap()];
    watch(&mut place.command(&arguments)).expect(0, 150 * MIB);
    for (n, len) in lens.into_iter().enumerate() {
        assert_eq!(std::fs::metadata(target.join(n.to_string())).unwrap().len(), len);
    }
    // Gone again: what is removed is counted too.
    for n in 0..3 {
        std::fs::remove_file(source.path().join(n.to_string())).unwrap();
    }
    std::fs::remove_dir_all(target).unwrap();
    watch(&mut place.command(&["snapshot", path])).expect(0, 150 * MIB);
}

#[test]
fn an_endless_stream_ends_when_it_is_asked_to() {
    let place = Place::with_repository();
    let mut command = place.command(&["snapshot", "--name", "x", "--command", "--", "cat", "/dev/zero"]);
    watch_until(&mut command, || !place.objects("sessions").is_empty()).expect(130, 200 * MIB);
    assert!(place.objects("sessions").is_empty() && place.objects("snapshots").is_empty());
}

#[test]
fn what_is_no_file_is_never_opened() {
    let place = Place::with_repository();
    let at = |name: &str| place.write(format!("source/{name}"), "");
    at("file");
    let make = |name: &str, kind, device| fs::mknodat(CWD, place.path("source").join(name), kind, Mode::RUSR, device);
    make("fifo", FileType::Fifo, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(place.path("source/socket")).unwrap();
    symlink("fifo", place.path("source/link to fifo")).unwrap();
    symlink(".", place.path("source/link to itself")).unwrap();
    let mut entries = 5;
    if is_root() && make("zero", FileType::CharacterDevice, fs::makedev(1, 5)).is_ok() {
        entries += 1;
    }
    let mut command = place.command_in("source", &["snapshot", ".", "--json"]);
    let ran = watch(&mut command).expect(0, 150 * MIB);
    let document: serde_json::Value = serde_json::from_str(&ran.stdout()).unwrap();
    assert_eq!(document["manifest"]["summary"]["total"]["entries"], entries);
    place.restore("target", &["--verify"]);
    let mode = |name: &str| FileType::from_raw_mode(fs::lstat(place.path("target").join(name)).unwrap().st_mode);
    assert_eq!((mode("fifo"), mode("socket")), (FileType::Fifo, FileType::Socket));
    assert_eq!(mode("link to fifo"), FileType::Symlink);
    // Named itself, too.
    for name in ["fifo", "socket", "link to fifo"] {
        let named = watch(place.command_in("source", &["snapshot", name, "--quiet"]).stdin(Stdio::null()));
        named.expect(0, 150 * MIB);
    }
}

/// Does something to the source once the first bytes of it were read.
struct Once<F: Fn() + Send + Sync>(AtomicBool, F);

impl<F: Fn() + Send + Sync> Monitor for Once<F> {
    fn event(&self, event: Event) {
        if matches!(event, Event::Bytes(_)) && !self.0.swap(true, Ordering::SeqCst) {
            (self.1)();
        }
    }
}

#[test]
fn a_file_that_changes_while_it_is_read_is_stored_as_far_as_it_was_read_and_told() {
    let place = Place::with_repository();
    let repo = open(&place);
    let data = noise("data", 3 * limits::READ_BUFFER);
    let path = place.path("source/file");
    let end = data.len() as u64;
    let grow = || File::options().append(true).open(&path).unwrap().write_all(b"more").unwrap();
    let shrink = || File::options().write(true).open(&path).unwrap().set_len(end / 3 * 2).unwrap();
    let vanish = || File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    let change = || File::options().write(true).open(&path).unwrap().write_all_at(b"other", end - 5).unwrap();
    let replace = || {
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, b"another file").unwrap();
    };
    let link = || {
        std::fs::remove_file(&path).unwrap();
        symlink("/etc/passwd", &path).unwrap();
    };
    let folder = || {
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
    };
    type Act<'a> = (&'a str, &'a (dyn Fn() + Send + Sync));
    let acts: [Act<'_>; 7] = [
        ("grew", &grow),
        ("shrank", &shrink),
        ("shrank", &vanish),
        ("changed", &change),
        ("", &replace),
        ("", &link),
        ("", &folder),
    ];
    for (n, (told, act)) in acts.into_iter().enumerate() {
        if path.is_dir() {
            std::fs::remove_dir(&path).unwrap();
        } else {
            let _ = std::fs::remove_file(&path);
        }
        place.write("source/file", &data);
        let outcome = take(&repo, &place.path("source"), &Once(AtomicBool::new(false), act)).unwrap();
        let whys: Vec<&str> = outcome.troubles.iter().map(|t| t.why.as_str()).collect();
        assert!(whys.iter().all(|why| why.contains(told)) && (told.is_empty() || whys.len() == 1), "{n}: {whys:?}");
        let found = stored(&repo, &outcome, &place.path("source"));
        if let Some((_, node)) = found.first() {
            let bytes = bytes_of(&repo, node);
            assert_eq!(node.size, bytes.len() as u64, "{n}");
            // What the node says it is, its data is: the file that was opened, and no other.
            let same = bytes.iter().zip(&data).take_while(|(a, b)| a == b).count();
            assert!(same == bytes.len() || told == "changed" && same + 5 == bytes.len(), "{n}: {same}");
            assert!(bytes.len() >= limits::READ_BUFFER, "{n}: {}", bytes.len());
        } else {
            assert!(!whys.is_empty(), "{n}: lost without a word");
        }
    }
    assert_eq!(snapshot::list(&repo).unwrap().damaged.len(), 0);
}

#[test]
fn links_and_renames_while_a_snapshot_walks_let_nothing_in_from_outside() {
    let place = Place::with_repository();
    let repo = open(&place);
    let secret = noise("secret", 5000);
    place.write("outside/secret", &secret);
    place.write("outside/below/secret too", &secret);
    for n in 0..20 {
        place.write(format!("source/dir/sub/{n}"), noise(&format!("{n}"), 3000));
        place.write(format!("source/other/{n}"), noise(&format!("other {n}"), 3000));
    }
    let source = place.path("source");
    let at = |name: &str| source.join(name);
    symlink(place.path("outside"), at("link")).unwrap();
    symlink(place.path("outside/secret"), at("file link")).unwrap();
    symlink(place.path("outside/below"), at("other/link")).unwrap();
    let pairs = [
        (at("dir"), at("link")),
        (at("other/3"), at("file link")),
        (at("dir/sub"), at("other/link")),
        (at("other/5"), at("dir/sub")),
        (at("other"), at("dir")),
    ];
    let done = AtomicBool::new(false);
    let forbidden = repo.id_keys().blob_id(BlobKind::Chunk, &secret);
    std::thread::scope(|scope| {
        let done = &done;
        let _ends = Ends(done);
        for part in [&pairs[..3], &pairs[2..]] {
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    for (a, b) in part {
                        // One that the other thread has moved away is passed over.
                        let _ = fs::renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE);
                    }
                }
            });
        }
        let mut seen = 0;
        for _ in 0..30 {
            match take(&repo, &source, &Silent) {
                Ok(outcome) => {
                    let found = stored(&repo, &outcome, &source);
                    seen += found.len();
                    for (path, node) in &found {
                        assert!(!node.name.starts_with(b"secret"), "{path:?}");
                        assert!(node.kind != Kind::File || bytes_of(&repo, node) != secret, "{path:?}");
                    }
                }
                Err(e) => assert!(matches!(e, Error::Source { .. }), "{e}"),
            }
        }
        assert!(seen > 30, "{seen}");
    });
    assert!(repo.index().copies(&forbidden).unwrap().is_empty(), "a file from outside was stored");
    // The secret would have been found under that id.
    take(&repo, &place.path("outside"), &Silent).unwrap();
    assert_eq!(repo.index().copies(&forbidden).unwrap().len(), 1);
}
