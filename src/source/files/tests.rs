//! Tests beside the code.

use super::*;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::time::Duration;
use tempfile::TempDir;

fn folder() -> (TempDir, Folder) {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::open(dir.path()).unwrap();
    (dir, folder)
}

fn errno(e: &io::Error) -> Option<Errno> {
    Errno::from_io_error(e)
}

/// Sets an attribute, or says that this file system has none.
fn sets(path: &Path, name: &str, value: &[u8]) -> bool {
    match fs::lsetxattr(path, name, value, fs::XattrFlags::empty()) {
        Ok(()) => true,
        Err(e) => {
            eprintln!("skipped: {name} cannot be set here: {e}");
            false
        }
    }
}

#[test]
fn names_of_any_bytes_are_sorted_by_them() {
    let (dir, folder) = folder();
    let names: [&[u8]; 5] = [b"\xff\xfe", b"Z", b"a b\n", b"\x01", "é".as_bytes()];
    for name in names {
        std::fs::write(dir.path().join(std::ffi::OsStr::from_bytes(name)), name).unwrap();
    }
    let mut sorted: Vec<_> = names.iter().map(|n| n.to_vec()).collect();
    sorted.sort();
    assert_eq!(folder.names().unwrap(), sorted);
    assert_eq!(folder.names().unwrap(), sorted, "the second time");
    for name in names {
        assert_eq!(folder.stat_of(name).unwrap().size, name.len() as u64);
        assert_eq!(folder.open_file(name).unwrap().1.kind, Kind::File);
    }
}

#[test]
fn many_entries_and_threads_at_once() {
    let (dir, folder) = folder();
    for i in 0..3000 {
        std::fs::write(dir.path().join(format!("a name that is not so short {i}")), b"").unwrap();
    }
    std::thread::scope(|s| {
        for _ in 0..3 {
            s.spawn(|| assert_eq!(folder.names().unwrap().len(), 3000));
        }
    });
}

#[test]
fn a_folder_that_is_gone_does_not_look_empty() {
    let (dir, folder) = folder();
    drop(dir);
    assert!(folder.names().is_err());
}

#[test]
fn stat_tells_what_the_standard_library_tells() {
    let (dir, folder) = folder();
    let path = dir.path().join("f");
    std::fs::write(&path, b"12345").unwrap();
    std::fs::hard_link(&path, dir.path().join("g")).unwrap();
    let time = std::time::UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789);
    File::open(&path).unwrap().set_modified(time).unwrap();
    let (stat, meta) = (folder.stat_of(b"f").unwrap(), path.metadata().unwrap());
    assert_eq!(stat.mtime, Timestamp { seconds: 1_234_567_890, nanos: 123_456_789 });
    assert_eq!((stat.ctime.seconds, i64::from(stat.ctime.nanos)), (meta.ctime(), meta.ctime_nsec()));
    assert_eq!((stat.inode, stat.device, stat.links), (meta.ino(), meta.dev(), 2));
    assert_eq!((stat.size, stat.allocated), (5, meta.blocks() * 512));
    assert_eq!((stat.mode, stat.uid, stat.gid), (meta.mode() & 0o7777, meta.uid(), meta.gid()));
    assert!(stat.is_same_inode(&folder.stat_of(b"g").unwrap()));
    assert_eq!(folder.open_file(b"f").unwrap().1, stat);
    assert_eq!(folder.stat().unwrap().inode, dir.path().metadata().unwrap().ino());
}

#[test]
fn times_before_the_epoch() {
    let (dir, folder) = folder();
    std::fs::write(dir.path().join("f"), b"").unwrap();
    let time = std::time::UNIX_EPOCH - Duration::new(1, 250_000_000);
    File::open(dir.path().join("f")).unwrap().set_modified(time).unwrap();
    assert_eq!(folder.stat_of(b"f").unwrap().mtime, Timestamp { seconds: -2, nanos: 750_000_000 });
}

#[test]
fn names_that_are_paths_are_refused() {
    let (dir, folder) = folder();
    std::fs::create_dir(dir.path().join("a")).unwrap();
    std::fs::write(dir.path().join("a/b"), b"").unwrap();
    for name in [&b""[..], b".", b"..", b"a/b", b"/etc", b"a\0"] {
        assert_eq!(folder.stat_of(name).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name:?}");
        assert!(folder.child(name).is_err() && folder.open_file(name).is_err() && folder.xattrs(name).is_err());
    }
}

#[test]
fn a_link_to_a_folder_is_no_folder() {
    let (dir, folder) = folder();
    let outside = tempfile::tempdir().unwrap();
    symlink(outside.path(), dir.path().join("l")).unwrap();
    assert!(matches!(errno(&folder.child(b"l").unwrap_err()), Some(Errno::LOOP | Errno::NOTDIR)));
    assert_eq!(folder.stat_of(b"l").unwrap().kind, Kind::Symlink);
    assert_eq!(folder.link_target(b"l").unwrap(), outside.path().as_os_str().as_bytes());
    // But the user may name one.
    assert!(Folder::open(&dir.path().join("l")).is_ok());
}

#[test]
fn a_folder_replaced_by_a_link_leads_nowhere() {
    let (dir, folder) = folder();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), b"").unwrap();
    let (a, x) = (dir.path().join("a"), dir.path().join("x"));
    std::fs::create_dir(&a).unwrap();
    symlink(outside.path(), &x).unwrap();
    assert_eq!(folder.names().unwrap().len(), 2);
    let swap = || fs::renameat_with(CWD, &a, CWD, &x, fs::RenameFlags::EXCHANGE).unwrap();
    swap();
    assert!(folder.child(b"a").is_err());
    let done = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                swap();
            }
        });
        for _ in 0..5000 {
            if let Ok(child) = folder.child(b"a") {
                assert!(child.names().unwrap().is_empty());
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn without_openat2_it_is_the_same() {
    let (dir, folder) = folder();
    std::fs::create_dir(dir.path().join("a")).unwrap();
    symlink("a", dir.path().join("l")).unwrap();
    NO_OPENAT2.store(true, Ordering::Relaxed);
    let (real, link) = (folder.child_within(b"a", ResolveFlags::NO_XDEV), folder.child(b"l"));
    NO_OPENAT2.store(false, Ordering::Relaxed);
    assert!(real.is_ok() && link.is_err());
}

#[test]
fn what_is_no_file_does_not_open_or_hang() {
    let (dir, folder) = folder();
    fs::mknodat(CWD, dir.path().join("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    fs::mknodat(CWD, dir.path().join("socket"), FileType::Socket, Mode::RUSR | Mode::WUSR, 0).unwrap();
    std::fs::create_dir(dir.path().join("dir")).unwrap();
    std::fs::write(dir.path().join("file"), b"").unwrap();
    symlink("file", dir.path().join("link")).unwrap();
    for name in [&b"fifo"[..], b"socket", b"dir", b"link", b"nothing"] {
        assert!(folder.open_file(name).is_err(), "{name:?}");
    }
}

#[test]
fn attributes_of_the_entry_itself() {
    let (dir, folder) = folder();
    let path = dir.path().join("f");
    std::fs::write(&path, b"").unwrap();
    symlink("f", dir.path().join("l")).unwrap();
    assert_eq!(folder.xattrs(b"f").unwrap(), vec![]);
    let large = vec![7; 2000];
    let values: [(&str, &[u8]); 3] = [("user.z", b""), ("user.a", b"\0\xff"), ("user.large", &large)];
    if !values.iter().all(|(name, value)| sets(&path, name, value)) {
        return;
    }
    let mut all: Vec<_> = values.iter().map(|(n, v)| (n.as_bytes().to_vec(), v.to_vec())).collect();
    all.sort();
    assert_eq!(folder.xattrs(b"f").unwrap(), all);
    assert_eq!(folder.xattrs(b"l").unwrap(), vec![], "the link's own");
    assert_eq!(folder.xattrs(b"no").unwrap_err().kind(), io::ErrorKind::NotFound);
    let stat = folder.stat_of(b"f").unwrap();
    assert_eq!(folder.node(b"f", &stat, &Users::new()).unwrap().xattrs, all);
}

#[test]
fn too_many_bytes_of_attributes_are_refused() {
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else { return eprintln!("skipped: no /dev/shm") };
    std::fs::write(dir.path().join("f"), b"").unwrap();
    let folder = Folder::open(dir.path()).unwrap();
    let value = vec![1; 60_000];
    for i in 0..5 {
        if !sets(&dir.path().join("f"), &format!("user.{i}"), &value) {
            return;
        }
    }
    assert_eq!(folder.xattrs(b"f").unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[test]
fn nodes_hold_what_their_kind_has() {
    let (dir, folder) = folder();
    std::fs::write(dir.path().join("file"), b"123").unwrap();
    std::fs::create_dir_all(dir.path().join("dir/below")).unwrap();
    symlink(std::ffi::OsStr::from_bytes(b"to \xff"), dir.path().join("link")).unwrap();
    let node = |name: &[u8]| folder.node(name, &folder.stat_of(name).unwrap(), &Users::new()).unwrap();
    let file = node(b"file");
    assert_eq!((file.kind, file.size, file.links, file.target.len()), (Kind::File, 3, 1, 0));
    assert_eq!((node(b"dir").kind, node(b"dir").size, node(b"dir").links), (Kind::Dir, 0, 1));
    assert_eq!(
        (node(b"link").kind, node(b"link").size, node(b"link").target),
        (Kind::Symlink, 0, b"to \xff".to_vec())
    );
    let meta = dir.path().metadata().unwrap();
    assert_eq!((file.uid, file.gid, file.name), (meta.uid(), meta.gid(), b"file".to_vec()));
    assert_eq!(file.user, Users::new().user_name(meta.uid()));
}

#[test]
fn devices_have_numbers() {
    let null = Folder::open(Path::new("/dev")).unwrap().stat_of(b"null").unwrap();
    assert_eq!((null.kind, null.rdev), (Kind::CharDevice, (1, 3)));
}

fn sparse(dir: &Path, size: u64, data: &[(u64, usize)]) -> File {
    let file = File::options().read(true).write(true).create_new(true).open(dir.join("sparse")).unwrap();
    file.set_len(size).unwrap();
    for (offset, len) in data {
        file.write_all_at(&vec![1; *len], *offset).unwrap();
    }
    file
}

fn covers(ranges: &[Range], size: u64) -> bool {
    let end = ranges.iter().try_fold(0, |at, range| match *range {
        Range::Data(offset, len) | Range::Hole(offset, len) => (offset == at && len > 0).then_some(at + len),
    });
    end == Some(size)
}

#[test]
fn holes_are_found() {
    const MB: u64 = 1 << 20;
    let (dir, _) = folder();
    let file = sparse(dir.path(), 5 * MB + 77, &[(MB, 65_536), (3 * MB, 65_536)]);
    let stat = Stat::of(&file).unwrap();
    let found = ranges(&file, &stat).unwrap();
    assert_eq!(fs::tell(&file).unwrap(), 0);
    assert!(covers(&found, 5 * MB + 77), "{found:?}");
    let expected = [
        Range::Hole(0, MB),
        Range::Data(MB, 65_536),
        Range::Hole(MB + 65_536, 2 * MB - 65_536),
        Range::Data(3 * MB, 65_536),
        Range::Hole(3 * MB + 65_536, 2 * MB - 65_536 + 77),
    ];
    if found.len() == 1 {
        return eprintln!("skipped: this file system shows no holes");
    }
    assert_eq!(found, expected);
}

#[test]
fn no_holes_and_nothing_but_a_hole() {
    let (dir, folder) = folder();
    std::fs::write(dir.path().join("full"), [1; 10_000]).unwrap();
    std::fs::write(dir.path().join("empty"), b"").unwrap();
    let (file, stat) = folder.open_file(b"full").unwrap();
    assert_eq!(ranges(&file, &stat).unwrap(), [Range::Data(0, 10_000)]);
    // Told that it takes no space, it asks, and finds the same.
    assert_eq!(ranges(&file, &Stat { allocated: 0, ..stat }).unwrap(), [Range::Data(0, 10_000)]);
    let (file, stat) = folder.open_file(b"empty").unwrap();
    assert_eq!(ranges(&file, &stat).unwrap(), []);
    let file = sparse(dir.path(), 1 << 40, &[]);
    let found = ranges(&file, &Stat::of(&file).unwrap()).unwrap();
    assert!(matches!(found[..], [Range::Hole(0, len) | Range::Data(0, len)] if len == 1 << 40), "{found:?}");
}

#[test]
fn a_file_that_changes_is_covered_all_the_same() {
    let (dir, _) = folder();
    let file = sparse(dir.path(), 1 << 20, &[(0, 4096), (65_536, 4096)]);
    let stat = Stat { allocated: 0, ..Stat::of(&file).unwrap() };
    for now in [0, 1, 4096, 70_000, 1 << 20, 1 << 21] {
        file.set_len(now).unwrap();
        let found = ranges(&file, &stat).unwrap();
        assert!(covers(&found, 1 << 20), "{now}: {found:?}");
        let cut = now < 1 << 20;
        assert!(!cut || matches!(found.last(), Some(Range::Data(..))), "its reader finds the end: {found:?}");
    }
}

#[test]
fn endless_small_holes_are_bounded() {
    let mut cover = Cover::new(1000);
    for i in 0..100_000u64 {
        cover.add_hole(i * 10_000 + if i % 100 == 0 { 9_000 } else { 10 });
        cover.add_data((i + 1) * 10_000);
    }
    assert!(cover.ranges.len() <= 1000 && covers(&cover.ranges, 1_000_000_000));
    cover = Cover::new(1000);
    for i in 0..600u64 {
        cover.add_hole(i * 10_000 + if i % 10 == 0 { 9_000 } else { 10 });
        cover.add_data((i + 1) * 10_000);
    }
    let long = cover.ranges.iter().filter(|r| matches!(r, Range::Hole(_, 9_000))).count();
    assert_eq!(long, 60, "the long holes are kept");
}
