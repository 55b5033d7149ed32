//! Files and folders through the program: what a snapshot and a restore give back, what is said of
//! what cannot be read, which paths are taken.

mod incremental;
mod paths;
mod restore;
pub mod tree;
mod troubles;

use crate::support::{Place, is_root};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, makedev, mknodat};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::time::Duration;
use tree::{entries, noise, prose, same_tree, set_mtime, xattrs};

/// A place with a repository and an empty folder `source`.
fn place() -> Place {
    let place = Place::with_repository();
    fs::create_dir(place.path("source")).unwrap();
    place
}

/// A number of the summary of a snapshot's JSON document.
#[track_caller]
fn summary(document: &serde_json::Value, names: &[&str]) -> u64 {
    let mut value = &document["manifest"]["summary"];
    for name in names {
        value = &value[name];
    }
    value.as_u64().unwrap_or_else(|| panic!("no number {names:?} in {document}"))
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Lets so much time pass that what was changed before is no longer read again for being too new.
fn let_times_grow_old() {
    std::thread::sleep(Duration::from_millis(120));
}

/// Takes a snapshot of `source`, restores it and compares.
#[track_caller]
fn comes_back(place: &Place) {
    place.snapshot(&[]);
    place.restore("out", &["--verify"]);
    same_tree(&place.path("source"), &place.path("out"));
    place.run(&["check", "--read-data"]).expect_code(0);
}

#[test]
fn bytes_of_files_of_every_size_come_back() {
    let place = place();
    let source = place.path("source");
    for size in [0, 1, 2, 4095, 4096, 4097, 65_535, 65_536, 65_537, 1_048_576, 1_048_577] {
        fs::write(source.join(format!("noise-{size}")), noise(size, size as usize)).unwrap();
        fs::write(source.join(format!("prose-{size}")), prose(size as usize)).unwrap();
        fs::write(source.join(format!("zeros-{size}")), vec![0; size as usize]).unwrap();
    }
    let mut mixed = Vec::new();
    for part in 0..10 {
        mixed.extend_from_slice(&noise(1000 + part, 1_500_000 + part as usize));
        mixed.extend_from_slice(&prose(1_500_000));
    }
    fs::write(source.join("mixed"), mixed).unwrap();
    comes_back(&place);
}

#[test]
fn names_of_any_bytes_come_back_and_none_reaches_the_terminal_raw() {
    let place = place();
    let source = place.path("source");
    let all: Vec<u8> = (1..=255).filter(|b| *b != b'/').collect();
    for (number, bytes) in all.chunks(100).enumerate() {
        let folder = source.join(OsString::from_vec([b"d", bytes].concat()));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(OsStr::from_bytes(bytes)), number.to_string()).unwrap();
    }
    let name = |bytes: &[u8]| source.join(OsStr::from_bytes(bytes));
    for bytes in [&b"\x1b[2Jclear"[..], b"new\nline", b"\xff\xfe", b" ", b"-rf", b"*", b"a:b", b"~", b"..."] {
        fs::write(name(bytes), bytes).unwrap();
    }
    fs::write(name(&[b'n'; 255]), "the longest").unwrap();
    symlink(OsStr::from_bytes(b"to \xff\n"), name(b"\xc3")).unwrap();
    comes_back(&place);
    let listed = place.run(&["ls", "-R", "latest"]).expect_code(0).stdout();
    assert!(!listed.contains('\x1b') && listed.contains("new\\nline") && listed.contains("\\xff"), "{listed}");
}

#[test]
fn modes_come_back() {
    let place = place();
    let source = place.path("source");
    for bits in [0o000, 0o400, 0o644, 0o755, 0o777, 0o4755, 0o2755, 0o6711, 0o1644] {
        if bits & 0o400 == 0 && !is_root() {
            continue;
        }
        let (file, folder) = (source.join(format!("file-{bits:o}")), source.join(format!("folder-{bits:o}")));
        fs::write(&file, "x").unwrap();
        fs::create_dir(&folder).unwrap();
        mode(&file, bits);
        mode(&folder, if is_root() { bits } else { bits | 0o500 });
    }
    fs::create_dir(source.join("sticky")).unwrap();
    mode(&source.join("sticky"), 0o1777);
    comes_back(&place);
}

#[test]
fn owners_and_groups_come_back_by_number_and_keep_the_mode() {
    if !is_root() {
        eprintln!("skipped: only root gives files away");
        return;
    }
    let place = place();
    let source = place.path("source");
    for (number, (uid, gid)) in [(0, 0), (1, 2), (12_345, 54_321), (65_534, 0), (4_000_000_000, 7)].iter().enumerate()
    {
        let file = source.join(format!("file-{number}"));
        fs::write(&file, "x").unwrap();
        chown(&file, Some(*uid), Some(*gid)).unwrap();
        mode(&file, 0o6755);
        let folder = source.join(format!("folder-{number}"));
        fs::create_dir(&folder).unwrap();
        chown(&folder, Some(*uid), Some(*gid)).unwrap();
        let link = source.join(format!("link-{number}"));
        symlink("file-0", &link).unwrap();
        std::os::unix::fs::lchown(&link, Some(*uid), Some(*gid)).unwrap();
    }
    comes_back(&place);
    place.restore("numbers", &["--numeric-owner"]);
    same_tree(&source, &place.path("numbers"));
}

#[test]
fn times_come_back_to_the_nanosecond_also_before_1970() {
    let place = place();
    let source = place.path("source");
    let times =
        [(0, 0), (1, 1), (1_700_000_000, 123_456_789), (-1, 999_999_999), (-1_000_000_000, 1), (4_000_000_000, 5)];
    for (number, (seconds, nanos)) in times.iter().enumerate() {
        let name = |what: &str| source.join(format!("{what}-{number}"));
        fs::write(name("file"), "x").unwrap();
        fs::write(name("empty"), "").unwrap();
        fs::create_dir(name("folder")).unwrap();
        fs::write(name("folder").join("in it"), "x").unwrap();
        symlink("nowhere", name("link")).unwrap();
        mknodat(CWD, name("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        for what in ["file", "empty", "folder", "link", "fifo"] {
            set_mtime(&name(what), *seconds, *nanos);
        }
    }
    comes_back(&place);
}

/// An access control list as the kernel keeps it: owner rw, user 1234 r, group r, mask r, others nothing.
fn acl() -> Vec<u8> {
    let rows: [(u16, u16, u32); 5] =
        [(1, 6, u32::MAX), (2, 4, 1234), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 0, u32::MAX)];
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, rights, id) in rows {
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&rights.to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    bytes
}

#[test]
fn extended_attributes_and_access_control_lists_come_back() {
    let place = place();
    let source = place.path("source");
    let (file, folder) = (source.join("file"), source.join("folder"));
    fs::write(&file, "x").unwrap();
    fs::create_dir(&folder).unwrap();
    let set =
        |path: &Path, name: &str, value: &[u8]| match rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()) {
            Ok(()) => true,
            Err(e) => {
                eprintln!("skipped: {name} of {}: {e}", path.display());
                false
            }
        };
    for path in [&file, &folder] {
        set(path, "user.text", b"hello");
        set(path, "user.empty", b"");
        set(path, "user.binary", &[0, 255, 10, 0]);
        set(path, "user.long", &noise(1, 2000));
        set(path, "system.posix_acl_access", &acl());
    }
    set(&folder, "system.posix_acl_default", &acl());
    if is_root() {
        symlink("nowhere", source.join("link")).unwrap();
        set(&source.join("link"), "trusted.of-the-link", b"yes");
        set(&file, "trusted.of-root", b"yes");
        set(&file, "security.capability", &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
    comes_back(&place);
    assert_eq!(xattrs(&place.path("out/file")), xattrs(&file));
}

#[test]
fn an_attribute_that_is_too_many_in_the_target_goes() {
    let place = place();
    fs::write(place.path("source/file"), "x").unwrap();
    comes_back(&place);
    let file = place.path("out/file");
    if let Err(e) = rustix::fs::lsetxattr(&file, "user.more", b"x", XattrFlags::empty()) {
        eprintln!("skipped: {e}");
        return;
    }
    place.restore("out", &[]);
    same_tree(&place.path("source"), &place.path("out"));
}

#[test]
fn links_fifos_and_empty_folders_come_back() {
    let place = place();
    let source = place.path("source");
    for folder in ["a/b/c", "empty/empty", "z"] {
        fs::create_dir_all(source.join(folder)).unwrap();
    }
    fs::write(source.join("z/one"), noise(3, 100_000)).unwrap();
    for name in ["a/two", "a/b/three", "four", "z/zero"] {
        fs::hard_link(source.join("z/one"), source.join(name)).unwrap();
    }
    fs::write(source.join("void"), "").unwrap();
    fs::hard_link(source.join("void"), source.join("a/void")).unwrap();
    for (name, target) in
        [("dangling", "no/such"), ("absolute", "/etc"), ("up", "../.."), ("loop", "loop"), ("folder", "a")]
    {
        symlink(target, source.join(name)).unwrap();
    }
    symlink("x".repeat(4000), source.join("long")).unwrap();
    fs::hard_link(source.join("dangling"), source.join("dangling too")).unwrap();
    mknodat(CWD, source.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
    fs::hard_link(source.join("fifo"), source.join("z/fifo")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(source.join("socket")).unwrap());
    comes_back(&place);
    place.restore("out", &[]);
    same_tree(&source, &place.path("out"));
}

#[test]
fn devices_come_back() {
    if !is_root() {
        eprintln!("skipped: only root makes devices");
        return;
    }
    let place = place();
    let at = |name: &str| place.path("source").join(name);
    let made = mknodat(CWD, at("null"), FileType::CharacterDevice, Mode::from_raw_mode(0o666), makedev(1, 3));
    if let Err(e) = made {
        eprintln!("skipped: no devices can be made here: {e}");
        return;
    }
    mknodat(CWD, at("disk"), FileType::BlockDevice, Mode::from_raw_mode(0o600), makedev(250, 300)).unwrap();
    mknodat(CWD, at("high"), FileType::CharacterDevice, Mode::from_raw_mode(0o600), makedev(4000, 1_000_000))
        .unwrap();
    comes_back(&place);
}

#[test]
fn a_sparse_file_of_20_gb_takes_no_time_and_stays_sparse() {
    let place = place();
    let path = place.path("source/sparse");
    let file = File::create(&path).unwrap();
    let size = 20_000_000_000_u64;
    file.set_len(size).unwrap();
    for at in [0, size / 2 + 13, size - 5000] {
        file.write_all_at(&noise(at, 5000), at).unwrap();
    }
    let hollow = File::create(place.path("source/hollow")).unwrap();
    hollow.set_len(size).unwrap();
    let taken = place.snapshot(&[]);
    assert_eq!(summary(&taken, &["total", "bytes"]), 2 * size);
    assert!(summary(&taken, &["new_bytes"]) < 1_000_000);
    assert!(summary(&taken, &["read_bytes"]) < 1_000_000, "holes are not read: {taken}");
    place.restore("out", &[]);
    same_tree(&place.path("source"), &place.path("out"));
    for name in ["out/sparse", "out/hollow"] {
        let blocks = fs::metadata(place.path(name)).unwrap().blocks();
        assert!(blocks * 512 < 1_000_000, "{name}: {blocks} blocks");
    }
    // What is there already is compared by its data: holes are known without being read.
    let again = place.restore("out", &["--verify"]);
    assert_eq!(again["unchanged_bytes"].as_u64(), Some(2 * size), "{again}");
    same_tree(&place.path("source"), &place.path("out"));
}

#[test]
fn holes_at_either_end_and_between_stay_holes() {
    let place = place();
    let megabyte = 1_048_576_u64;
    for (number, data) in [vec![0], vec![7], vec![0, 7], vec![3, 5], vec![]].into_iter().enumerate() {
        let file = File::create(place.path(format!("source/{number}"))).unwrap();
        file.set_len(8 * megabyte + 3).unwrap();
        for at in data {
            file.write_all_at(&noise(at, 100_000), at * megabyte).unwrap();
        }
    }
    comes_back(&place);
    let sparse = |name: &str| fs::metadata(place.path(name)).unwrap().blocks() * 512 < 2 * megabyte;
    assert!((0..5).all(|n| sparse(&format!("out/{n}"))));
}

#[test]
fn one_more_entry_of_20_000_stores_little() {
    let place = place();
    let source = place.path("source");
    for number in 0..20_000 {
        let name = source.join(format!("entry-{number:05}"));
        if number % 100 == 0 {
            fs::write(name, number.to_string()).unwrap();
        } else {
            File::create(name).unwrap();
        }
    }
    let first = place.snapshot(&[]);
    assert!(summary(&first, &["new_bytes"]) > 1_000_000);
    fs::write(source.join("entry-10000-and-a-half"), "new").unwrap();
    let more = place.snapshot(&[]);
    assert_eq!(summary(&more, &["added", "entries"]), 1);
    assert!(summary(&more, &["new_bytes"]) < 200_000, "{more}");
    fs::remove_file(source.join("entry-00500")).unwrap();
    let less = place.snapshot(&[]);
    assert_eq!((summary(&less, &["removed", "entries"]), summary(&less, &["removed", "bytes"])), (1, 3));
    assert_eq!(summary(&less, &["total", "entries"]), 20_000);
    assert!(summary(&less, &["new_bytes"]) < 200_000, "{less}");
    place.restore("out", &[]);
    assert_eq!(entries(&source), entries(&place.path("out")));
}
