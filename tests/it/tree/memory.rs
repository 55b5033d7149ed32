//! Keys in memory: what a running program holds, what it no longer holds, and that neither becomes a
//! core file. A program is held at a point, and its writable memory searched for what is secret.

use super::hostile::{bundle, key_file, open};
use crate::support::{Place, is_root};
use estrato::crypto::derive::subkey;
use estrato::crypto::keyfile::KeyFile;
use estrato::crypto::stack;
use estrato::format::key::Bundle;
use estrato::monitor::Silent;
use estrato::{restore, snapshot};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use zeroize::Zeroizing;

const PASSWORD: &str = "correct horse battery staple 7319";
/// Tells a child which place it is to work in.
const CHILD: &str = "ESTRATO_TEST_CHILD";

/// Where in a process's writable memory each of these stands; `None` where its memory may not be read.
fn found(pid: u32, needles: &[(&'static str, Vec<u8>)]) -> Option<Vec<&'static str>> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
    let mut first = [false; 256];
    needles.iter().for_each(|(_, needle)| first[usize::from(needle[0])] = true);
    let longest = needles.iter().map(|(_, n)| n.len()).max().unwrap();
    let (mut found, mut read) = (Vec::new(), 0);
    for line in maps.lines() {
        let mut parts = line.split_whitespace();
        let (range, mode) = (parts.next().unwrap(), parts.next().unwrap());
        let at = range.split_once('-').unwrap();
        let (from, to) = (u64::from_str_radix(at.0, 16).unwrap(), u64::from_str_radix(at.1, 16).unwrap());
        // What was never written to is not there to be read: a gigabyte of it is no work.
        if !mode.starts_with("rw") || to - from > 1 << 30 {
            continue;
        }
        const PAGE: usize = 1 << 16;
        let mut page = vec![0; PAGE + longest];
        let zeros = vec![0; PAGE + longest];
        for begin in (from..to).step_by(PAGE) {
            let len = (PAGE + longest).min((to - begin) as usize);
            let Ok(n) = memory.read_at(&mut page[..len], begin) else { continue };
            read += n;
            if page[..n] == zeros[..n] {
                continue;
            }
            for at in 0..n.min(PAGE) {
                if first[usize::from(page[at])] {
                    let hits = needles.iter().filter(|(_, needle)| page[at..n].starts_with(needle));
                    found.extend(hits.map(|(name, _)| *name));
                }
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    (read > 0).then_some(found)
}

/// A key as it lies in memory, and as people write it.
fn of_key_file(key: &KeyFile) -> Vec<(&'static str, Vec<u8>)> {
    let text = key.to_text();
    let letters: Vec<u8> = text.bytes().filter(|b| *b != b'-' && *b != b' ').collect();
    let line = text.split_once(' ').unwrap().1.as_bytes().to_vec();
    // Its own beginning is every key's.
    let letters = letters["ESTRATOKEY0".len()..].to_vec();
    vec![("key file", key.0.to_vec()), ("key file's line", line), ("key file's letters", letters)]
}

fn of_bundle(bundle: &Bundle) -> Vec<(&'static str, Vec<u8>)> {
    let mut all = vec![("id key", bundle.id_key.to_vec()), ("signer's seed", bundle.signer_seed.to_vec())];
    all.extend(bundle.private_key.map(|key| ("private key", key.to_vec())));
    all.extend(bundle.tenant_seed.map(|seed| ("tenant's seed", seed.to_vec())));
    all
}

/// A snapshot of a stream that does not come: the program holds its keys, and waits.
struct Held(Child);

impl Held {
    fn new(place: &Place, arguments: &[&str], change: impl FnOnce(&mut Command)) -> Self {
        let mut command =
            place.command(&[&["snapshot", "--stdin", "--name", "x", "--quiet"][..], arguments].concat());
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        change(&mut command);
        let mut held = Self(command.spawn().unwrap());
        // Announced: the repository is open, and only the stream is missing.
        while place.objects("sessions").is_empty() {
            assert!(held.0.try_wait().unwrap().is_none(), "it ended before it announced anything");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        held
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.0.stdin.as_mut().unwrap().write_all(bytes).unwrap();
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        let output = self.0.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// A place whose repository a full key, a writer's and a password open.
fn place() -> Place {
    let place = Place::with_repository();
    place.run(&["key", "add", "--role", "writer", "--new-key-file", "writer"]).expect_code(0);
    let mut add = place.command(&["key", "add", "--new-password"]);
    assert!(add.env("ESTRATO_NEW_PASSWORD", PASSWORD).output().unwrap().status.success());
    place.write("password", format!("{PASSWORD}\n"));
    place
}

#[test]
fn a_running_backup_holds_no_key_file_and_no_password_and_a_writers_no_private_key() {
    let place = place();
    let secrets = bundle(&open(&place), key_file(&place));
    let writer = KeyFile::from_text(&std::fs::read_to_string(place.path("writer")).unwrap()).unwrap();
    // What it must hold shows that the search finds what is there.
    let shared = ("chunk id key", subkey("estrato 0 chunk id", &secrets.id_key).to_vec());
    let private = || secrets.private_key.map(|key| ("private key", key.to_vec())).unwrap();
    let password = ("password", PASSWORD.as_bytes().to_vec());
    let cases: [(&str, &[&str], Vec<_>, Vec<_>); 4] = [
        ("writer", &[], of_key_file(&writer), vec!["chunk id key"]),
        ("key", &[], of_key_file(&key_file(&place)), vec!["chunk id key", "private key"]),
        ("", &["--password-file", "password"], vec![password.clone()], vec!["chunk id key", "private key"]),
        ("", &["--password-command", "cat password"], vec![password], vec!["chunk id key", "private key"]),
    ];
    for (key, arguments, gone, there) in cases {
        let mut held = Held::new(&place, arguments, |command| match key {
            "" => {
                command.env_remove("ESTRATO_KEY_FILE");
            }
            key => {
                command.env("ESTRATO_KEY_FILE", key);
            }
        });
        held.feed(b"something of it");
        let tenant = [private(), ("tenant's seed", secrets.tenant_seed.unwrap().to_vec())];
        let needles = [&gone[..], std::slice::from_ref(&shared), &tenant].concat();
        let Some(mut found) = found(held.0.id(), &needles) else {
            return eprintln!("skipped: memory of another process cannot be read here");
        };
        // The tenant's signing key keeps its seed, as long as it may be needed.
        found.retain(|name| *name != "tenant's seed" || key == "writer");
        assert_eq!(found, there, "{key} {arguments:?}");
        held.end();
    }
}

/// Not a test of its own: what the next one runs in a process of its own.
#[test]
fn child_that_opens_restores_and_lets_go() {
    let Some(folder) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    work(&folder);
    // What this test itself has left of the key's text.
    stack::wipe();
    println!("\nlet go");
    std::io::stdin().lock().read_line(&mut String::new()).unwrap();
}

#[inline(never)]
fn work(folder: &std::path::Path) {
    let repo = unlocked(folder);
    stack::wipe();
    let listing = snapshot::list(&repo).unwrap();
    repo.sync_index().unwrap();
    let options = restore::Options { numeric_owner: true, ..restore::Options::default() };
    let root = &listing.snapshots[0].manifest.root;
    let outcome = restore::run(&repo, root, None, &folder.join("target"), &options, &Silent).unwrap();
    assert_eq!((outcome.failures, outcome.bytes), (0, 300_000));
    drop(repo);
}

#[inline(never)]
fn unlocked(folder: &std::path::Path) -> estrato::repo::Repository {
    use estrato::crypto::slot::Credential;
    use std::io::Read as _;
    let mut text = Zeroizing::new(vec![0; 4096]);
    let n = File::open(folder.join("key")).unwrap().read(&mut text).unwrap();
    let key = KeyFile::from_text(std::str::from_utf8(&text[..n]).unwrap()).unwrap();
    estrato::repo::Repository::open(estrato::repo::Access {
        store: estrato::store::open(folder.join("repo").to_str().unwrap()).unwrap(),
        clock: std::sync::Arc::new(estrato::clock::SystemClock::default()),
        tenant: "default".into(),
        credential: Credential::KeyFile(key),
        cache: None,
    })
    .unwrap()
}

#[test]
fn a_repository_that_was_dropped_leaves_no_key_behind() {
    let place = Place::with_repository();
    place.write("source/file", crate::support::noise("file", 300_000));
    place.snapshot(&[]);
    let secrets = bundle(&open(&place), key_file(&place));
    let mut needles = [of_key_file(&key_file(&place)), of_bundle(&secrets)].concat();
    for context in ["chunk id", "tree id", "list id", "shared record", "hpke psk", "local state"] {
        needles.push((context, subkey(&format!("estrato 0 {context}"), &secrets.id_key).to_vec()));
    }
    // In its environment, so still there: the search finds what is there.
    needles.push(("control", place.path("").to_str().unwrap().as_bytes().to_vec()));
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tree::memory::child_that_opens_restores_and_lets_go", "--nocapture"])
        .env(CHILD, place.path(""))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("let go")), "the child ended before");
    let found = found(child.id(), &needles);
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    lines.for_each(drop);
    assert!(child.wait().unwrap().success());
    match found {
        None => eprintln!("skipped: memory of another process cannot be read here"),
        Some(found) => assert_eq!(found, ["control"]),
    }
}

#[test]
fn a_program_that_is_killed_leaves_no_core_and_lets_nobody_look_into_it() {
    let place = place();
    let mut uid = rustix::process::geteuid().as_raw();
    let held = Held::new(&place, &[], |command| {
        // As generous as a shell may be.
        // A copy: another user may not reach the place where it was built.
        let program = place.path("program");
        std::fs::copy(command.get_program(), &program).unwrap();
        let arguments: Vec<std::ffi::OsString> = command.get_args().map(Into::into).collect();
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -c unlimited 2>/dev/null; exec \"$0\" \"$@\""]).arg(program);
        shell.args(arguments).env_clear();
        shell.envs(command.get_envs().filter_map(|(k, v)| Some((k, v?)))).current_dir(place.path(""));
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        if is_root() {
            // Whether a process may be looked into shows in who owns its files, and root owns them anyway.
            uid = 65_534;
            give(&place.path(""), uid);
            shell.uid(uid).gid(uid);
        }
        *command = shell;
    });
    let pid = held.0.id();
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find(|l| l.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    if uid != 0 {
        assert_eq!(
            std::fs::metadata(format!("/proc/{pid}/mem")).unwrap().uid(),
            0,
            "others of this user may read it"
        );
    }
    kill_process(Pid::from_child(&held.0), Signal::ABORT).unwrap();
    let output = held.0.wait_with_output().unwrap();
    assert_eq!(output.status.signal(), Some(Signal::ABORT.as_raw()));
    assert!(!output.status.core_dumped());
    let core = |p: &PathBuf| p.file_name().unwrap().to_str().unwrap().starts_with("core");
    assert_eq!(std::fs::read_dir(place.path("")).unwrap().map(|e| e.unwrap().path()).find(core), None);
}

/// Gives a folder and all that is in it to another user, and opens the way to it.
fn give(folder: &std::path::Path, uid: u32) {
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(folder, Some(uid), Some(uid)).unwrap();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            give(&path, uid);
        } else {
            std::os::unix::fs::chown(&path, Some(uid), Some(uid)).unwrap();
        }
    }
}

#[test]
fn who_may_not_be_looked_into_still_reads_and_restores_attributes() {
    // Some calls know no handles and go through /proc/self/fd, which such a process does not own.
    if !is_root() {
        return eprintln!("skipped: this needs root, to become somebody else");
    }
    let place = Place::with_repository();
    let file = place.write("source/file", "data");
    let (link, name) = (place.path("source/fifo"), "user.note");
    rustix::fs::mknodat(rustix::fs::CWD, &link, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    if rustix::fs::setxattr(&file, name, b"value", rustix::fs::XattrFlags::empty()).is_err() {
        return eprintln!("skipped: there are no extended attributes here");
    }
    let uid = 65_534;
    give(&place.path(""), uid);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o444)).unwrap();
    std::os::unix::fs::chown(&link, Some(uid), Some(uid)).unwrap();
    let run = |command: &mut Command| match command.uid(uid).gid(uid).output() {
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
            eprintln!("skipped: another user cannot run the program here");
            None
        }
        output => Some(output.unwrap()),
    };
    let Some(taken) = run(&mut place.command_in("source", &["snapshot", "."])) else { return };
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    for _ in 0..2 {
        let restored = run(&mut place.command(&["restore", "latest", "--target", "target", "--verify"])).unwrap();
        assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
        assert_eq!(String::from_utf8_lossy(&restored.stderr), "");
    }
    let mut value = [0; 5];
    rustix::fs::getxattr(place.path("target/file"), name, &mut value).unwrap();
    assert_eq!(&value, b"value");
    let mode = |name: &str| std::fs::metadata(place.path("target").join(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode("file"), mode("fifo")), (0o444, 0o400));
}
