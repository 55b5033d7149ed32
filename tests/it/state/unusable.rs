//! A cache that cannot be written or read. Full and read-only disks are in `bad_input/disk.rs`.

use super::{Kept, replace, warnings};
use crate::support::{Ran, is_root, noise};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Every command goes through, with one warning that names the folder; all comes back.
#[track_caller]
fn expect_without(kept: &Kept, cache: &Path, what: &str) {
    let place = &kept.place;
    let name = cache.to_string_lossy().into_owned();
    let more = ["--cache-dir", &*name];
    let warned = |ran: &Ran| {
        let told = ran.stderr();
        assert!(told.contains(&name) && warnings(&told) == 1, "{what}: {told}");
    };
    for arguments in [&["ls"][..], &["snapshots"], &["check", "--read-data"], &["key", "list"]] {
        warned(&place.run(&[&more, arguments].concat()).expect_code(0));
    }
    place.write("source/again", noise(what, 30_000));
    for _ in 0..2 {
        warned(&kept.run_snapshot(&more));
    }
    let told = kept.expect_restored(&more);
    assert_eq!(warnings(&told), 1, "{what}: {told}");
}

#[test]
fn a_cache_that_is_a_file_is_done_without() {
    let kept = Kept::new();
    let file = kept.place.write("a-file", "x");
    expect_without(&kept, &file, "a file");
    assert_eq!(fs::read(&file).unwrap(), b"x");
    expect_without(&kept, &file.join("below"), "below a file");
    kept.expect_whole();
}

#[test]
fn a_link_that_leads_nowhere_is_done_without() {
    let kept = Kept::new();
    let link = kept.place.path("link");
    std::os::unix::fs::symlink("/nonexistent/there", &link).unwrap();
    expect_without(&kept, &link, "a link");
    kept.expect_whole();
}

#[test]
fn a_folder_in_the_place_of_each_file_is_done_without() {
    let kept = Kept::new();
    let sound = kept.place.path("sound");
    replace(&sound, Some(&kept.root()));
    let notes = kept.notes();
    for name in ["index.db", "index.lock", "seen.json", notes.file_name().unwrap().to_str().unwrap()] {
        replace(&kept.root(), Some(&sound));
        let path = kept.cache().join(name);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        fs::write(path.join("inside"), "x").unwrap();
        let ran = kept.run_snapshot(&[]);
        let folder = kept.cache().to_string_lossy().into_owned();
        assert!(ran.stderr().contains(&folder) && warnings(&ran.stderr()) == 1, "{name}: {}", ran.stderr());
        let told = kept.expect_restored(&[]);
        assert!(warnings(&told) <= 1, "{name}: {told}");
        kept.place.run(&["check", "--read-data"]).expect_code(0);
        assert!(path.join("inside").exists(), "{name}");
    }
    replace(&kept.root(), Some(&sound));
    kept.expect_whole();
}

#[test]
fn a_folder_without_permission_is_done_without() {
    if is_root() {
        eprintln!("SKIPPED: root may write everywhere; a read-only disk is tested instead");
        return;
    }
    let kept = Kept::new();
    for mode in [0o000, 0o500] {
        let folder = kept.place.path(format!("closed-{mode}"));
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
        expect_without(&kept, &folder, "closed");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    }
    kept.expect_whole();
}

#[test]
fn a_stream_is_kept_whole_without_a_cache() {
    let kept = Kept::new();
    let file = kept.place.write("a-file", "x");
    let more = ["--cache-dir", file.to_str().unwrap()];
    let command = "head -c 5000000 /dev/zero | tr '\\0' 'x'";
    let ran =
        kept.place.run(&[&more[..], &["snapshot", "--name", "n", "--command", "sh", "--", "-c", command]].concat());
    assert_eq!(ran.code(), 0, "{}", ran.stderr());
    kept.place.run(&[&more[..], &["restore", "latest", "--target", "out", "--verify"]].concat()).expect_code(0);
    assert_eq!(fs::read(kept.place.path("out/n")).unwrap(), vec![b'x'; 5_000_000]);
}
