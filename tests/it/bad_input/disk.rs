//! A repository that cannot be written, and disks that are full. Root mounts a small file system
//! for each; without root the full disk is skipped, visibly.

use crate::support::{Place, Ran, files_below, is_root, noise};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system in memory, unmounted when dropped.
pub struct Mounted(PathBuf);

impl Mounted {
    /// Mounts one of that size at a folder that it makes; `None`, said aloud, where that is not allowed.
    pub fn new(path: PathBuf, megabytes: u32) -> Option<Self> {
        if !is_root() {
            eprintln!("SKIPPED: a full disk needs root, to mount a small one");
            return None;
        }
        fs::create_dir_all(&path).unwrap();
        let size = format!("size={megabytes}m,mode=755");
        let ran =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "estrato-test"]).arg(&path).output().unwrap();
        if !ran.status.success() {
            eprintln!("SKIPPED: no file system can be mounted here: {}", String::from_utf8_lossy(&ran.stderr));
            return None;
        }
        Some(Self(path))
    }

    fn read_only(&self) {
        let ran = Command::new("mount").args(["-o", "remount,ro"]).arg(&self.0).output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    }

    /// How many bytes are free.
    pub fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.0).unwrap();
        stat.f_bavail * stat.f_frsize
    }

    /// Writes a file that leaves about that many bytes free.
    pub fn fill(&self, leave: u64) -> PathBuf {
        let path = self.0.join("filler");
        fs::write(&path, vec![7; usize::try_from(self.free().saturating_sub(leave)).unwrap()]).unwrap();
        path
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn mode(path: &Path, folder: u32, file: u32) {
    for file_path in files_below(path) {
        fs::set_permissions(&file_path, fs::Permissions::from_mode(file)).unwrap();
    }
    let mut folders = vec![path.to_path_buf()];
    while let Some(at) = folders.pop() {
        fs::set_permissions(&at, fs::Permissions::from_mode(0o700)).unwrap();
        folders.extend(fs::read_dir(&at).unwrap().flatten().map(|e| e.path()).filter(|p| p.is_dir()));
        fs::set_permissions(&at, fs::Permissions::from_mode(folder)).unwrap();
    }
}

#[test]
fn a_read_only_repository_can_be_read() {
    let place = Place::new();
    let mounted = Mounted::new(place.path("repo"), 16);
    place.run(&["init", "--new-key-file", "key"]).expect_code(0);
    place.write("source/a", noise("a", 100_000));
    place.snapshot(&[]);
    place.write("source/b", noise("b", 100_000));
    match &mounted {
        Some(mounted) => mounted.read_only(),
        None if is_root() => return,
        None => mode(&place.path("repo"), 0o500, 0o400),
    }
    let ran = place.run(&["snapshot", "source"]).expect_code(1);
    assert_eq!(ran.stdout(), "");
    assert!(ran.stderr().contains("store failed") && ran.stderr().contains("writable"), "{}", ran.stderr());
    // This machine's state, and one that knows nothing yet.
    for more in [&[][..], &["--cache-dir", "fresh"]] {
        let run = |arguments: &[&str]| place.run(&[more, arguments].concat()).expect_code(0);
        assert_eq!(run(&["snapshots", "--json"]).json().as_array().unwrap().len(), 1);
        assert_eq!(run(&["ls"]).stdout(), "a\n");
        run(&["restore", "latest", "--target", "out", "--verify"]);
        assert_eq!(fs::read(place.path("out/a")).unwrap(), noise("a", 100_000));
        run(&["check", "--read-data"]);
        run(&["key", "list"]);
        run(&["tenant", "list"]);
    }
    let ran = place.run(&["key", "add", "--new-password"]);
    assert_ne!(ran.code(), 0);
    if mounted.is_none() {
        mode(&place.path("repo"), 0o700, 0o600);
    }
}

#[test]
fn a_full_disk_fails_the_snapshot_and_harms_no_other() {
    let place = Place::new();
    let Some(mounted) = Mounted::new(place.path("repo"), 48) else { return };
    place.run(&["init", "--new-key-file", "key"]).expect_code(0);
    place.write("source/a", noise("a", 1_000_000));
    place.snapshot(&[]);
    place.write("source/b", noise("b", 21_000_000));
    // Nothing fits; one pack fits and the next does not.
    for leave in [0, 18_000_000] {
        let filler = mounted.fill(leave);
        let ran = Ran::of(&mut place.command_in("source", &["snapshot", "."])).expect_code(1);
        assert_eq!(ran.stdout(), "");
        assert!(ran.stderr().contains("No space left") && ran.stderr().contains("make room"), "{}", ran.stderr());
        assert!(!ran.stderr().contains("warning: cannot"), "a full disk is no warning: {}", ran.stderr());
        assert_eq!(place.snapshots(), 1);
        assert_eq!(place.objects("sessions"), Vec::<PathBuf>::new());
        place.restore(&format!("out-{leave}"), &["--verify"]);
        place.run(&["check", "--read-data"]).expect_code(0);
        let half = files_below(&mounted.0).into_iter().filter(|p| p.to_string_lossy().contains('#')).count();
        assert_eq!(half, 0, "half an object is left");
        fs::remove_file(filler).unwrap();
    }
    place.snapshot(&[]);
    place.restore("out", &["--verify"]);
    assert_eq!(fs::read(place.path("out/b")).unwrap(), noise("b", 21_000_000));
    place.run(&["check", "--read-data"]).expect_code(0);
}

#[test]
fn a_full_disk_fails_init_and_leaves_nothing_that_stops_the_next() {
    let place = Place::new();
    let Some(mounted) = Mounted::new(place.path("disk"), 1) else { return };
    let filler = mounted.fill(0);
    place.write("source/a", "x");
    let ran = place.run(&["-r", "disk/repo", "init", "--new-key-file", "key"]).expect_code(1);
    assert!(ran.stderr().contains("make room"), "{}", ran.stderr());
    fs::remove_file(filler).unwrap();
    // The key that was written for it serves.
    place.run(&["-r", "disk/repo", "init"]).expect_code(0);
    place.run(&["-r", "disk/repo", "snapshot", "source"]).expect_code(0);
}

#[test]
fn a_restore_to_a_full_disk_fails() {
    let place = Place::with_repository();
    place.write("source/a", noise("a", 3_000_000));
    place.write("source/b", noise("b", 3_000_000));
    place.snapshot(&[]);
    let Some(mounted) = Mounted::new(place.path("target"), 4) else { return };
    let ran = place.run(&["restore", "latest", "--target", "target"]).expect_code(1);
    assert!(ran.stderr().contains("No space left"), "{}", ran.stderr());
    assert!(!ran.stdout().contains("restored 6.0 MB"), "{}", ran.stdout());
    drop(mounted);
    // With room it goes through, over what may lie there.
    place.restore("target", &["--verify"]);
    assert_eq!(fs::read(place.path("target/b")).unwrap(), noise("b", 3_000_000));
}

/// Takes a snapshot, lists, checks and restores with a cache that cannot be written: one warning each,
/// which names the folder.
fn expect_without_cache(place: &Place, told: &str) {
    let at = place.path("cache").to_string_lossy().into_owned();
    let run = |arguments: &[&str]| {
        let ran = place.run(&[&["--cache-dir", &at], arguments].concat()).expect_code(0);
        let said = ran.stderr();
        assert!(said.contains(&at) && said.contains(told) && said.lines().count() == 1, "{arguments:?}: {said}");
    };
    run(&["snapshot", "--quiet", "source"]);
    run(&["check", "--read-data"]);
    run(&["restore", "latest", "--target", "out", "--verify"]);
    assert_eq!(fs::read(place.path("out/source/a")).unwrap(), noise("a", 100_000));
    fs::remove_dir_all(place.path("out")).unwrap();
}

#[test]
fn local_state_on_a_full_disk_is_told() {
    let place = Place::with_repository();
    place.write("source/a", noise("a", 100_000));
    let Some(mounted) = Mounted::new(place.path("cache"), 1) else { return };
    let filler = mounted.fill(0);
    expect_without_cache(&place, "local state cannot be kept");
    // Full beside a cache that was there before; then with room again.
    fs::remove_file(filler).unwrap();
    place.run(&["--cache-dir", "cache", "snapshot", "source"]).expect_code(0);
    mounted.fill(0);
    place.write("source/b", noise("b", 100_000));
    let ran = place.run(&["--cache-dir", "cache", "snapshot", "--quiet", "source"]).expect_code(0);
    assert!(
        ran.stderr().contains("local state cannot be kept") && ran.stderr().lines().count() == 1,
        "{}",
        ran.stderr()
    );
    fs::remove_file(mounted.0.join("filler")).unwrap();
    let ran = place.run(&["--cache-dir", "cache", "check", "--read-data"]).expect_code(0);
    assert_eq!(ran.stderr(), "");
    drop(mounted);
    place.run(&["snapshot", "source"]).expect_code(0);
}

#[test]
fn local_state_on_a_disk_that_fills_up_is_told() {
    let place = Place::with_repository();
    for n in 0..600 {
        place.write(format!("source/{n}"), noise(&n.to_string(), 3000));
    }
    let Some(mounted) = Mounted::new(place.path("cache"), 4) else { return };
    place.run(&["--cache-dir", "cache", "ls"]);
    // Room for some pages, and not for all.
    for leave in [16_384, 65_536, 131_072] {
        let filler = mounted.fill(leave);
        place.write("source/more", noise(&leave.to_string(), 3000));
        let ran =
            place.run(&["--cache-dir", "cache", "snapshot", "--quiet", "--kind", "full", "source"]).expect_code(0);
        assert!(ran.stderr().lines().count() <= 1, "{}", ran.stderr());
        fs::remove_file(filler).unwrap();
        place.run(&["--cache-dir", "cache", "check", "--read-data"]).expect_code(0);
        place.run(&["check", "--read-data"]).expect_code(0);
    }
}

#[test]
fn local_state_that_is_read_only_is_told() {
    let place = Place::with_repository();
    place.write("source/a", noise("a", 100_000));
    let Some(mounted) = Mounted::new(place.path("cache"), 2) else { return };
    place.run(&["--cache-dir", "cache", "snapshot", "source"]).expect_code(0);
    mounted.read_only();
    expect_without_cache(&place, "local state cannot be kept");
}
