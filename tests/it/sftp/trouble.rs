//! Servers that cannot be reached, that do not know who asks, that forbid, and that are killed.

use super::server::{Account, Server};
use super::{Remote, halves};
use crate::support::{Place, Ran, is_root, noise};
use bytes::Bytes;
use estrato::error::StoreFault;
use estrato::store::Store as _;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Runs a command that cannot reach the repository: it says why, in ssh's words, and soon.
#[track_caller]
fn expect_unreached(remote: &Remote, ssh: &str, url: &str, words: &[&str]) {
    let began = Instant::now();
    for arguments in [&["snapshots"][..], &["snapshot", "source"], &["init"]] {
        let mut command = remote.place.command(arguments);
        let ran = Ran::of(command.env("ESTRATO_REPO", url).env("ESTRATO_SSH", ssh)).expect_code(1);
        assert_eq!(ran.stdout(), "");
        for word in words {
            assert!(ran.stderr().contains(word), "{word}: {}", ran.stderr());
        }
    }
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn who_cannot_get_in_is_told_why() {
    let Some(mut remote) = Remote::with_repository() else { return };
    remote.place.write("source/a", "text");
    let (ssh, url) = (remote.server.ssh(), remote.url.clone());
    let strange = remote.server.ssh_with("other-user");
    expect_unreached(&remote, &strange, &url, &["no connection", "Permission denied (publickey)"]);
    remote.server.know("other-host");
    expect_unreached(&remote, &ssh, &url, &["no connection", "Host key verification failed"]);
    remote.server.know("host");
    expect_unreached(&remote, "/no/such/ssh", &url, &["cannot run /no/such/ssh"]);
    let nowhere = "sftp://me@host.invalid/repo";
    expect_unreached(&remote, &ssh, nowhere, &["no connection", "resolve hostname host.invalid"]);
    remote.server.kill();
    expect_unreached(&remote, &ssh, &url, &["no connection", "Connection refused", "try again later"]);
    remote.server.restart();
    remote.run(&["snapshot", "source"]).expect_code(0);
    // What has no repository is no trouble of the connection.
    let elsewhere = remote.server.url(&remote.place.path("elsewhere"));
    let mut command = remote.place.command(&["snapshots"]);
    let ran = Ran::of(command.env("ESTRATO_REPO", &elsewhere).env("ESTRATO_SSH", ssh)).expect_code(10);
    assert!(ran.stderr().contains(&elsewhere), "{}", ran.stderr());
}

#[test]
fn a_password_in_a_location_is_refused_and_not_repeated() {
    let place = Place::new();
    let mut command = place.command(&["snapshots"]);
    let ran = Ran::of(command.env("ESTRATO_REPO", "sftp://me:secret@host/repo")).expect_code(2);
    assert!(ran.stderr().contains("password") && !ran.stderr().contains("secret"), "{}", ran.stderr());
    let mut command = place.command(&["snapshots"]);
    let command = command.env("ESTRATO_REPO", "sftp://host/repo").env("ESTRATO_SSH", "ssh 'half");
    assert!(Ran::of(command).expect_code(2).stderr().contains("ESTRATO_SSH is no command"));
}

#[test]
fn the_program_that_leads_there_does_not_learn_the_password() {
    let Some(remote) = Remote::with_repository() else { return };
    remote.place.write("ssh", format!("#!/bin/sh\nenv >> environment\nexec {} \"$@\"\n", remote.server.ssh()));
    let ssh = remote.place.path("ssh");
    std::fs::set_permissions(&ssh, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = remote.place.command(&["snapshots"]);
    let command = command.env("ESTRATO_REPO", &remote.url).env("ESTRATO_SSH", ssh).env("ESTRATO_PASSWORD", "secret");
    Ran::of(command).expect_code(0);
    let seen = std::fs::read_to_string(remote.place.path("environment")).unwrap();
    assert!(seen.contains("ESTRATO_REPO") && !seen.contains("secret"), "{seen}");
}

#[test]
fn a_folder_that_may_not_be_written_or_read_is_told() {
    let place = Place::new();
    // Root may do everything: then somebody else logs in.
    let user = if is_root() { "nobody".into() } else { Account::own().user };
    let Some(server) = Server::start(&place.path("server"), Account { user, options: String::new() }) else { return };
    let folder = place.path("store");
    let mode = |of: &str, mode| {
        std::fs::set_permissions(folder.join(of), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    place.write("store/packs/ab", "text");
    mode("packs", 0o555);
    mode("", 0o555);
    let store = server.store(&folder);
    for name in ["a", "index/a", "packs/cd"] {
        let e = store.create(name, Bytes::new()).unwrap_err();
        assert_eq!(e.fault, StoreFault::Denied, "{e}");
        assert_eq!(store.write(name, Bytes::new()).unwrap_err().fault, StoreFault::Denied);
    }
    assert_eq!(store.delete("packs/ab").unwrap_err().fault, StoreFault::Denied);
    assert_eq!(&store.read("packs/ab", 9).unwrap()[..], b"text");
    assert_eq!(store.list("").unwrap().len(), 1);
    mode("packs/ab", 0o000);
    mode("packs", 0o000);
    assert_eq!(store.list("").unwrap_err().fault, StoreFault::Denied, "a listing is never silently short");
    for fault in [store.read("packs/ab", 9).unwrap_err().fault, store.size("packs/ab").unwrap_err().fault] {
        assert_eq!(fault, StoreFault::Denied);
    }
    mode("packs", 0o755);
    mode("", 0o755);
}

#[test]
fn a_server_that_may_only_be_read_is_told() {
    let place = Place::new();
    let account = Account { options: "-R".into(), ..Account::own() };
    let Some(server) = Server::start(&place.path("server"), account) else { return };
    place.run(&["init", "--new-key-file", "key"]).expect_code(0);
    place.write("source/a", noise("a", 100_000));
    place.run(&["snapshot", "source"]).expect_code(0);
    let run = |arguments: &[&str]| {
        let mut command = place.command(arguments);
        Ran::of(command.env("ESTRATO_REPO", server.url(&place.path("repo"))).env("ESTRATO_SSH", server.ssh()))
    };
    run(&["restore", "latest", "--target", "out", "--verify"]).expect_code(0);
    run(&["check", "--read-data"]).expect_code(0);
    let ran = run(&["snapshot", "source"]).expect_code(1);
    assert!(ran.stderr().contains("writable"), "{}", ran.stderr());
}

#[test]
fn a_server_that_is_killed_and_comes_back_costs_time_and_nothing_else() {
    let Some(mut remote) = Remote::new() else { return };
    let folder = remote.place.path("store");
    let store = remote.store(&folder);
    let pack = |n: usize| Bytes::from(noise(&n.to_string(), 6_000_000));
    store.create("first", Bytes::new()).unwrap();
    let is_over = AtomicBool::new(false);
    let (made, kills) = std::thread::scope(|scope| {
        let made: Vec<_> = (0..3)
            .map(|thread| {
                let (store, is_over) = (&store, &is_over);
                scope.spawn(move || {
                    let mut made = Vec::new();
                    for n in (thread..).step_by(3) {
                        if is_over.load(Ordering::Relaxed) {
                            break;
                        }
                        store.create(&format!("packs/{}/{n}", n % 5), pack(n)).unwrap();
                        store.write(&format!("sessions/{thread}"), Bytes::from(n.to_string())).unwrap();
                        made.push(n);
                    }
                    made
                })
            })
            .collect();
        for n in 0..8u64 {
            std::thread::sleep(Duration::from_millis(150 + n * 37));
            remote.server.kill();
            std::thread::sleep(Duration::from_millis(n * 50));
            remote.server.restart();
        }
        is_over.store(true, Ordering::Relaxed);
        (made.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>(), 8)
    });
    let listed = store.list("packs").unwrap();
    assert_eq!(listed.len(), made.len());
    for n in &made {
        let name = format!("packs/{}/{n}", n % 5);
        assert!(store.read(&name, 6_000_000).unwrap() == pack(*n), "{name} is whole");
        assert_eq!(std::fs::metadata(folder.join(&name)).unwrap().len(), 6_000_000);
    }
    assert_eq!(store.list("sessions").unwrap().len(), 3);
    eprintln!("a server killed {kills} times: {} uploads, {} left beside", made.len(), halves(&folder).len());
    assert!(made.len() >= 3);
    drop(store);
    assert_eq!(remote.server.programs(), 0);
}

#[test]
fn a_snapshot_outlives_its_server() {
    let Some(mut remote) = Remote::with_repository() else { return };
    for n in 0..4 {
        remote.place.write(format!("source/{n}"), noise(&n.to_string(), 20_000_000));
    }
    let mut command = remote.place.command(&["snapshot", "source"]);
    command.env("ESTRATO_REPO", &remote.url).env("ESTRATO_SSH", remote.server.ssh());
    let mut child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
    let packs = remote.place.path("repo/tenants/default");
    while crate::support::files_below(&packs).len() < 4 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(2));
    }
    for _ in 0..2 {
        remote.server.kill();
        std::thread::sleep(Duration::from_millis(300));
        remote.server.restart();
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(child.wait().unwrap().success());
    remote.run(&["check", "--read-data"]).expect_code(0);
    remote.run(&["restore", "latest", "--target", "out", "--verify"]).expect_code(0);
    assert_eq!(std::fs::read(remote.place.path("out/source/3")).unwrap(), noise("3", 20_000_000));
}
