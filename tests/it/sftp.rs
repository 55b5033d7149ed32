//! A repository on a server that speaks SFTP: the real ssh and sshd, on loopback. Where they are not
//! installed, these say SKIPPED.

mod far;
mod server;
mod trouble;

use self::server::{Account, Server};
use crate::bad_input::disk::Mounted;
use crate::support::{Place, Ran, files_below, noise};
use estrato::store::{Sftp, contract};
use std::path::Path;

/// A place whose programs find their way to a server.
struct Remote {
    place: Place,
    server: Server,
    url: String,
}

impl Remote {
    /// `None`, said aloud, where there is no sshd.
    fn new() -> Option<Self> {
        let place = Place::new();
        let server = Server::start(&place.path("server"), Account::own())?;
        let url = server.url(&place.path("repo"));
        Some(Self { place, server, url })
    }

    fn with_repository() -> Option<Self> {
        let remote = Self::new()?;
        remote.run(&["init", "--new-key-file", "key"]).expect_code(0);
        Some(remote)
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = self.place.command(arguments);
        Ran::of(command.env("ESTRATO_REPO", &self.url).env("ESTRATO_SSH", self.server.ssh()))
    }

    /// The store, in this process.
    fn store(&self, folder: &Path) -> Sftp {
        self.server.store(folder)
    }
}

/// Uploads that were not finished, or not cleaned up.
fn halves(folder: &Path) -> Vec<std::path::PathBuf> {
    files_below(folder).into_iter().filter(|file| file.to_string_lossy().contains('#')).collect()
}

#[test]
fn keeps_the_contract() {
    let Some(remote) = Remote::new() else { return };
    let folder = remote.place.path("a/store");
    contract::check(&remote.store(&folder));
    assert!(halves(&folder).is_empty(), "{:?}", halves(&folder));
    // The same without what OpenSSH's own clients can do without.
    for denied in ["hardlink", "posix-rename", "fsync,statvfs", "hardlink,posix-rename,fsync,statvfs"] {
        let place = Place::new();
        let account = Account { options: format!("-P {denied}"), ..Account::own() };
        let Some(server) = Server::start(&place.path("server"), account) else { return };
        contract::check(&server.store(&place.path("store")));
        assert!(halves(&place.path("store")).is_empty(), "{denied}");
    }
}

#[test]
fn a_repository_is_made_filled_read_and_checked() {
    let Some(remote) = Remote::with_repository() else { return };
    let place = &remote.place;
    let ran = remote.run(&["init"]).expect_code(1);
    assert!(ran.stderr().contains(&remote.url) && ran.stderr().contains("exists already"), "{}", ran.stderr());
    place.write("source/a", noise("a", 20_000_000));
    place.write("source/b/c", "text");
    for _ in 0..2 {
        remote.run(&["snapshot", "source"]).expect_code(0);
    }
    place.write("source/b/c", "other text");
    remote.run(&["snapshot", "source"]).expect_code(0);
    let ran = remote.run(&["snapshots", "--json"]).expect_code(0);
    assert_eq!(ran.json().as_array().unwrap().len(), 3);
    assert_eq!(ran.stderr(), "");
    for cache in ["known", "new"] {
        let run = |arguments: &[&str]| remote.run(&[&["--cache-dir", cache], arguments].concat()).expect_code(0);
        run(&["restore", "latest", "--target", "out", "--verify"]);
        run(&["restore", "latest~1", "--target", "before"]);
        assert_eq!(std::fs::read(place.path("out/source/a")).unwrap(), noise("a", 20_000_000));
        assert_eq!(std::fs::read(place.path("out/source/b/c")).unwrap(), b"other text");
        assert_eq!(std::fs::read(place.path("before/source/b/c")).unwrap(), b"text");
        run(&["check", "--read-data"]);
        run(&["key", "list"]);
        for folder in ["out", "before"] {
            std::fs::remove_dir_all(place.path(folder)).unwrap();
        }
    }
    assert!(halves(&place.path("repo")).is_empty());
    // It is the same repository as one in a folder.
    place.run(&["--cache-dir", "new", "check", "--read-data"]).expect_code(0);
    assert_eq!(remote.server.programs(), 0, "no ssh is left behind");
}

#[test]
fn a_store_below_the_users_folder() {
    let Some(remote) = Remote::new() else { return };
    let name = format!("estrato-test-{}", std::process::id());
    let home = std::env::home_dir().unwrap().join(&name);
    let store = remote.server.store_by(&format!("~/{name}"));
    let created = estrato::store::Store::create(&store, "a/b", bytes::Bytes::from_static(b"text"));
    let there = std::fs::read(home.join("a/b"));
    let _ = std::fs::remove_dir_all(&home);
    created.unwrap();
    assert_eq!(there.unwrap(), b"text");
}

#[test]
fn a_full_disk_under_the_server_fails_the_snapshot_and_harms_no_other() {
    let Some(remote) = Remote::new() else { return };
    let place = &remote.place;
    let Some(mounted) = Mounted::new(place.path("repo"), 48) else { return };
    remote.run(&["init", "--new-key-file", "key"]).expect_code(0);
    place.write("source/a", noise("a", 1_000_000));
    remote.run(&["snapshot", "source"]).expect_code(0);
    place.write("source/b", noise("b", 21_000_000));
    for leave in [0, 10_000, 18_000_000] {
        let filler = mounted.fill(leave);
        let ran = remote.run(&["snapshot", "source"]).expect_code(1);
        assert_eq!(ran.stdout(), "");
        let told = ran.stderr();
        assert!(told.contains("No space left") && told.contains("make room where the repository lies"), "{told}");
        assert!(halves(&place.path("repo")).is_empty(), "half an object is left");
        assert_eq!(remote.run(&["snapshots", "--json"]).expect_code(0).json().as_array().unwrap().len(), 1);
        remote.run(&["check", "--read-data"]).expect_code(0);
        std::fs::remove_file(filler).unwrap();
    }
    remote.run(&["snapshot", "source"]).expect_code(0);
    remote.run(&["restore", "latest", "--target", "out", "--verify"]).expect_code(0);
    assert_eq!(std::fs::read(place.path("out/source/b")).unwrap(), noise("b", 21_000_000));
}

#[test]
fn rates_are_kept() {
    let Some(remote) = Remote::new() else { return };
    let folder = remote.place.path("store");
    crate::stores::rates::keeps_them(&|rates| std::sync::Arc::new(remote.store(&folder).at(rates)));
}
