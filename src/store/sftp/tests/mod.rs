//! The store over a server in this process: servers of other makes, servers that hang up at every
//! request, and servers that lie. What OpenSSH does is tested from outside, with it.

mod server;

use self::server::{HangUp, OPENSSH, Server};
use super::client::Connection;
use super::link::Link;
use super::location::Location;
use super::*;
use crate::store::contract;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

fn dial(server: &Server) -> Box<dyn Fn() -> Result<Connection, Lost> + Send + Sync> {
    let server = server.clone();
    Box::new(move || server.dial())
}

/// A store in a folder, over a server.
fn store_at(server: &Server, folder: &Path) -> Sftp {
    let mut location = Location::parse("//host/").unwrap();
    folder.to_str().unwrap().clone_into(&mut location.path);
    Sftp::over(location, dial(server), Duration::from_millis(1))
}

/// The names of all files below a folder, with those beside objects.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            found.extend(files(&entry.path()).into_iter().map(|below| format!("{name}/{below}")));
        } else {
            found.push(name);
        }
    }
    found.sort();
    found
}

/// Bytes of so many blocks, the last of which is short.
fn blocks(n: usize) -> Bytes {
    (0..n * limits::SFTP_BLOCK - 77).map(|n| (n % 253) as u8).collect()
}

/// More than is on its way at a time.
fn long() -> Bytes {
    blocks(limits::SFTP_WINDOW + 30)
}

#[test]
fn keeps_the_contract_whatever_the_server_knows() {
    for extensions in [&OPENSSH[..], &OPENSSH[..1], &OPENSSH[1..], &[]] {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::new(extensions);
        if extensions.len() < 2 {
            // A server that looks and then renames is no store for several writers at once.
            server.habits().takes = 1;
        }
        contract::check(&store_at(&server, &folder.path().join("a/store")));
        assert!(files(folder.path()).iter().all(|name| !name.contains('#')), "{extensions:?}");
    }
}

#[test]
fn keeps_the_contract_on_a_disk_without_links() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::new(&OPENSSH);
    server.habits().no_links = true;
    server.habits().takes = 1;
    contract::check(&store_at(&server, &folder.path().join("store")));
}

#[test]
fn a_server_that_renames_over_what_is_there_is_not_let_to() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::new(&[]);
    server.habits().replaces = true;
    let store = store_at(&server, folder.path());
    store.create("a", Bytes::from_static(b"first")).unwrap();
    assert_eq!(store.create("a", Bytes::from_static(b"second")).unwrap_err().fault, StoreFault::Exists);
    assert_eq!(&store.read("a", 9).unwrap()[..], b"first");
}

#[test]
fn what_another_made_meanwhile_stays_even_if_it_is_the_same() {
    // While the file beside is filled, and when the name is asked for.
    for (extensions, kind) in [(&OPENSSH[..2], 6), (&OPENSSH[..2], 200), (&[], 6), (&[], 18)] {
        for text in [&b"same"[..], b"else"] {
            let folder = tempfile::tempdir().unwrap();
            let server = Server::new(extensions);
            let store = store_at(&server, folder.path());
            server.habits().replaces = kind == 6;
            server.habits().rival = Some((kind, folder.path().join("a"), text));
            let e = store.create("a", Bytes::from_static(b"same")).unwrap_err();
            assert_eq!(e.fault, StoreFault::Exists, "{kind}: {e}");
            assert_eq!(std::fs::read(folder.path().join("a")).unwrap(), text);
            assert_eq!(files(folder.path()), ["a"]);
        }
    }
}

#[test]
fn short_answers_are_put_together() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::new(&OPENSSH);
    server.habits().gives = 10_007;
    let store = store_at(&server, folder.path());
    store.create("a", long()).unwrap();
    assert_eq!(store.read("a", 9_000_000).unwrap(), long());
    assert_eq!(store.read_range("a", 100, 2_000_000).unwrap(), long().slice(100..2_000_100));
}

/// What is done over a server that hangs up, on a store that holds `old`, which is `before`.
type Request = fn(&Sftp) -> Result<(), StoreError>;

const REQUESTS: [(&str, Request); 8] = [
    ("create", |store| store.create("packs/ab", blocks(5))),
    ("create anew", |store| match store.create("old", Bytes::from_static(b"before")) {
        Err(e) if e.fault == StoreFault::Exists => Ok(()),
        other => panic!("{other:?}"),
    }),
    ("write", |store| store.write("old", Bytes::from_static(b"after"))),
    ("write anew", |store| store.write("new", Bytes::from_static(b"text"))),
    ("delete", |store| store.delete("old")),
    ("list", |store| store.list("").map(|found| assert_eq!(found.len(), 5))),
    ("read", |store| store.read("old", 9).map(|bytes| assert_eq!(&bytes[..], b"before"))),
    ("range", |store| store.read_range("long", 5, 150_000).map(|bytes| assert_eq!(bytes, blocks(5)[5..150_005]))),
];

/// What each leaves.
fn expected(request: &str) -> Vec<(&'static str, Bytes)> {
    let mut all = vec![("old", Bytes::from_static(b"before")), ("long", blocks(5))];
    match request {
        "create" => all.push(("packs/ab", blocks(5))),
        "write" => all[0].1 = Bytes::from_static(b"after"),
        "write anew" => all.push(("new", Bytes::from_static(b"text"))),
        "delete" => drop(all.remove(0)),
        _ => {}
    }
    all
}

#[test]
fn a_server_that_hangs_up_at_any_request_changes_nothing_of_what_is_done() {
    let mut points = 0;
    for extensions in [&OPENSSH[..], &OPENSSH[..1], &OPENSSH[2..], &[]] {
        for (name, request) in REQUESTS {
            for nth in 1.. {
                let mut is_reached = true;
                for when in [HangUp::Before(nth), HangUp::After(nth)] {
                    let folder = tempfile::tempdir().unwrap();
                    let server = Server::new(extensions);
                    let store = store_at(&server, folder.path());
                    store.create("old", Bytes::from_static(b"before")).unwrap();
                    store.create("long", blocks(5)).unwrap();
                    for more in ["x/1", "x/2", "y/1"] {
                        std::fs::create_dir_all(folder.path().join(more).parent().unwrap()).unwrap();
                        std::fs::write(folder.path().join(more), b"").unwrap();
                    }
                    server.hangs_up(when);
                    request(&store).unwrap_or_else(|e| panic!("{name}, {when:?}: {e}"));
                    is_reached &= server.habits().asked.len() >= nth;
                    let all = expected(name);
                    let found = files(folder.path());
                    for (object, bytes) in &all {
                        assert_eq!(std::fs::read(folder.path().join(object)).unwrap(), *bytes, "{name}, {when:?}");
                    }
                    assert_eq!(found.len(), all.len() + 3, "{name}, {when:?}: {found:?}");
                    points += 1;
                }
                if !is_reached {
                    break;
                }
            }
        }
    }
    eprintln!("a server that hangs up: {points} points");
    assert!(points > 500);
}

#[test]
fn of_a_create_whose_answers_are_lost_exactly_one_succeeds() {
    for nth in 1..20 {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::new(&OPENSSH);
        let stores = [b"one", b"two"].map(|text| (store_at(&server, folder.path()), Bytes::from_static(text)));
        stores[0].0.create("made", Bytes::new()).unwrap();
        stores[1].0.create("also", Bytes::new()).unwrap();
        server.hangs_up(HangUp::After(nth));
        let won: Vec<&Bytes> = std::thread::scope(|scope| {
            let runs = stores.each_ref().map(|(store, text)| scope.spawn(|| store.create("a", text.clone())));
            let ended = runs.map(|run| run.join().unwrap());
            let won = stores.iter().zip(ended).filter_map(|((_, text), ended)| match ended {
                Ok(()) => Some(text),
                Err(e) => {
                    assert_eq!(e.fault, StoreFault::Exists, "{e}");
                    None
                }
            });
            won.collect()
        });
        assert_eq!(won.len(), 1, "{nth}");
        assert_eq!(std::fs::read(folder.path().join("a")).unwrap(), *won[0]);
    }
}

#[test]
fn a_server_that_stays_away_is_given_up_and_one_that_never_was_is_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::new(&OPENSSH);
    let store = store_at(&server, folder.path());
    store.create("a", Bytes::new()).unwrap();
    server.hangs_up(HangUp::From(1));
    assert_eq!(store.read("a", 9).unwrap_err().fault, StoreFault::Unavailable);
    let opened = server.habits().opened;
    assert_eq!(opened, limits::SFTP_TRIES as usize, "the first try had a connection");
    server.habits().takes = 0;
    let e = store.read("a", 9).unwrap_err();
    assert!(e.fault == StoreFault::Unavailable && e.why.contains("too many"), "{e}");
    assert_eq!(server.habits().opened, opened);
    server.hangs_up(HangUp::Never);
    server.habits().takes = 9;
    assert!(store.read("a", 9).unwrap().is_empty());

    let server = Server::new(&OPENSSH);
    server.hangs_up(HangUp::Never);
    server.habits().takes = 0;
    let store =
        Sftp { pool: Pool::new(dial(&server), Duration::from_secs(3600)), ..store_at(&server, folder.path()) };
    assert_eq!(store.read("a", 9).unwrap_err().fault, StoreFault::Unavailable);
}

#[test]
fn connections_are_few_and_fewer_where_the_server_takes_fewer() {
    for (takes, most) in [(usize::MAX, limits::SFTP_CONNECTIONS), (2, 2), (1, 1)] {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::new(&OPENSSH);
        server.habits().takes = takes;
        let store = store_at(&server, folder.path());
        std::thread::scope(|scope| {
            for n in 0..8 {
                let store = &store;
                scope.spawn(move || {
                    for m in 0..5 {
                        store.create(&format!("{n}/{m}"), Bytes::from_static(b"text")).unwrap();
                    }
                });
            }
        });
        assert_eq!(store.list("").unwrap().len(), 40);
        let habits = server.habits();
        assert!(habits.opened <= most && habits.turned_away <= limits::SFTP_CONNECTIONS, "{habits:?}");
    }
}

#[test]
fn uploads_and_folders_are_synced_before_they_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::new(&OPENSSH);
    let store = store_at(&server, folder.path());
    store.create("packs/ab", Bytes::from_static(b"text")).unwrap();
    server.hangs_up(HangUp::Never);
    store.create("packs/cd", Bytes::from_static(b"text")).unwrap();
    // Look, open, write; sync, attributes, close; link; remove; open the folder, sync, close it.
    let asked = server.habits().asked.clone();
    // What the first one closed may come late.
    let asked: Vec<u8> = asked.into_iter().skip_while(|kind| *kind == 4).collect();
    assert_eq!(asked[..10], [7, 3, 6, 200, 8, 4, 200, 13, 3, 200]);
    server.habits().refuses = Some((200, 4));
    assert_eq!(store.create("packs/ef", Bytes::new()).unwrap_err().fault, StoreFault::Other);
    assert_eq!(files(folder.path()), ["packs/ab", "packs/cd"]);
}

#[test]
fn refusals_are_sorted() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::new(&OPENSSH);
    let store = store_at(&server, folder.path());
    store.create("packs/ab", Bytes::from_static(b"text")).unwrap();
    for (code, expected) in
        [(3, StoreFault::Denied), (12, StoreFault::Denied), (14, StoreFault::Full), (4, StoreFault::Other)]
    {
        for kind in [3, 6] {
            server.habits().refuses = Some((kind, code));
            let e = store.create("packs/cd", Bytes::from_static(b"text")).unwrap_err();
            assert_eq!(e.fault, expected, "{e}");
        }
        server.habits().refuses = Some((11, code));
        assert_eq!(store.list("packs").unwrap_err().fault, expected);
        server.habits().refuses = Some((5, code));
        assert_eq!(store.read("packs/ab", 9).unwrap_err().fault, expected);
    }
    server.habits().refuses = None;
    assert_eq!(files(folder.path()), ["packs/ab"], "nothing is left of what was refused");
}

#[test]
fn strangers_dead_uploads_and_links() {
    let folder = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join("linked"), b"text").unwrap();
    let server = Server::new(&OPENSSH);
    let store = store_at(&server, folder.path());
    store.create("packs/ab", Bytes::from_static(b"text")).unwrap();
    let packs = folder.path().join("packs");
    let old = std::fs::File::create(packs.join("ab#12")).unwrap();
    old.set_modified(SystemTime::now() - Duration::from_secs(25 * 3600)).unwrap();
    std::fs::write(packs.join("ab#13"), b"").unwrap();
    std::fs::create_dir(packs.join("new\nline")).unwrap();
    symlink(other.path(), packs.join("cd")).unwrap();
    symlink("ab", packs.join("one")).unwrap();
    let names = |store: &Sftp| store.list("packs").map(|found| found.into_iter().map(|o| o.name).collect::<Vec<_>>());
    let reader = store_at(&server, folder.path());
    assert_eq!(names(&reader).unwrap(), ["packs/ab", "packs/cd/linked", "packs/one"]);
    assert!(packs.join("ab#12").exists(), "who has not written removes nothing");
    names(&store).unwrap();
    assert!(!packs.join("ab#12").exists() && packs.join("ab#13").exists());
    assert_eq!(store.read("packs/ab#13", 9).unwrap_err().fault, StoreFault::NotFound);

    symlink("..", other.path().join("up")).unwrap();
    symlink(&packs, other.path().join("back")).unwrap();
    assert!(names(&store).unwrap_err().why.contains("in a circle"));
    std::fs::remove_dir_all(other.path()).unwrap();
    let e = names(&store).unwrap_err();
    assert!(e.why.ends_with("packs/cd: a symbolic link that leads nowhere"), "{e}");
    assert!(store.list("packs/cd").unwrap_err().why.contains("leads nowhere"));
}

#[test]
fn a_root_that_goes_away_is_no_empty_one_and_is_not_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("a/store");
    let server = Server::new(&OPENSSH);
    let store = store_at(&server, &root);
    assert!(store.list("packs").unwrap().is_empty() && !folder.path().join("a").exists(), "looking makes nothing");
    assert_eq!(store.read("x", 9).unwrap_err().fault, StoreFault::NotFound);
    store.create("packs/ab", Bytes::new()).unwrap();
    std::fs::rename(&root, folder.path().join("moved")).unwrap();
    assert_eq!(store.list("packs").unwrap_err().fault, StoreFault::Unavailable);
    for name in ["packs/cd", "other/cd", "cd"] {
        let e = store.create(name, Bytes::new()).unwrap_err();
        assert!(e.fault == StoreFault::Other && e.why.contains("gone"), "{e}");
    }
    assert!(!root.exists());
    std::fs::write(&root, b"").unwrap();
    for request in [store.list("").map(drop), store_at(&server, &root).create("x", Bytes::new())] {
        let e = request.unwrap_err();
        assert!(e.fault == StoreFault::Other && e.why.contains("not a directory"), "{e}");
    }
}

#[test]
fn names_stay_within_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::new(&OPENSSH);
    let store = store_at(&server, &folder.path().join("store"));
    std::fs::write(folder.path().join("secret"), b"x").unwrap();
    store.create("a/b", Bytes::new()).unwrap();
    for name in ["../secret", "a/../../secret", "./a", "a//b", "a\nb", "", "a", "a/b/c", "ab#1"] {
        assert!(store.read(name, 9).is_err(), "{name:?}");
        assert!(store.read_range(name, 0, 0).is_err(), "{name:?}");
        assert!(store.create(name, Bytes::new()).is_err(), "{name:?}");
        assert!(store.delete(name).is_err(), "{name:?}");
    }
    assert!(store.list("..").is_err());
    assert_eq!(files(folder.path()), ["secret", "store/a/b"]);
}

/// A store over a server that answers everything with these packets, made for the request's id.
fn over_liar(answer: impl Fn(u8, u32) -> Vec<u8> + Send + Sync + 'static) -> Sftp {
    let answer = Arc::new(answer);
    let dial = move || {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let answer = Arc::clone(&answer);
        std::thread::spawn(move || {
            theirs.write_all(&[0, 0, 0, 5, 2, 0, 0, 0, 3]).unwrap();
            loop {
                let (mut len, mut packet) = ([0; 4], Vec::new());
                if theirs.read_exact(&mut len).is_err() {
                    return;
                }
                packet.resize(u32::from_be_bytes(len) as usize, 0);
                theirs.read_exact(&mut packet).unwrap();
                if packet[0] != 1 {
                    let id = u32::from_be_bytes(packet[1..5].try_into().unwrap());
                    let body = answer(packet[0], id);
                    let _ = theirs.write_all(&[&(body.len() as u32).to_be_bytes()[..], &body].concat());
                }
            }
        });
        let from = ours.try_clone().unwrap();
        Connection::open(Link::new(ours.into(), from.into(), None, Duration::from_millis(500)).unwrap())
    };
    Sftp::over(Location::parse("//host/store").unwrap(), Box::new(dial), Duration::from_millis(1))
}

#[test]
fn lies_are_errors_and_nothing_worse() {
    let id = |id: u32| id.to_be_bytes();
    type Answer = Box<dyn Fn(u8, u32) -> Vec<u8> + Send + Sync>;
    let liars: Vec<Answer> = vec![
        // Everything was done, and that is all that it says.
        Box::new(move |_, n| [&[101][..], &id(n), &[0; 12]].concat()),
        // An answer to what was not asked.
        Box::new(move |_, n| [&[101][..], &id(n + 1000), &[0; 12]].concat()),
        // More bytes than were asked for; a handle, and then the same.
        Box::new(move |kind, n| match kind {
            3 | 11 => [&[102][..], &id(n), &[0, 0, 0, 1, 7]].concat(),
            _ => [&[103][..], &id(n), &200_000u32.to_be_bytes(), &vec![1; 200_000]].concat(),
        }),
        // No bytes at all, for ever.
        Box::new(move |kind, n| match kind {
            3 => [&[102][..], &id(n), &[0, 0, 0, 1, 7]].concat(),
            7 | 8 | 17 => [&[105][..], &id(n), &[0, 0, 0, 1], &9u64.to_be_bytes()].concat(),
            _ => [&[103][..], &id(n), &[0; 4]].concat(),
        }),
        // A folder that holds a way out of it.
        Box::new(move |kind, n| match kind {
            11 => [&[102][..], &id(n), &[0, 0, 0, 1, 7]].concat(),
            _ => [&[104][..], &id(n), &[0, 0, 0, 1, 0, 0, 0, 4], b"../a", &[0; 8]].concat(),
        }),
        // Attributes, whatever was asked.
        Box::new(move |_, n| [&[105][..], &id(n), &[0; 4]].concat()),
        Box::new(|_, _| vec![9; 3]),
    ];
    for (nth, liar) in liars.into_iter().enumerate() {
        let store = over_liar(liar);
        let requests: [(&str, Result<(), StoreError>); 6] = [
            ("list", store.list("a").map(drop)),
            ("read", store.read("a", 100).map(drop)),
            ("range", store.read_range("a", 0, 100_000).map(drop)),
            ("create", store.create("a", Bytes::from_static(b"text"))),
            ("write", store.write("a/b", Bytes::from_static(b"text"))),
            ("size", store.size("a").map(drop)),
        ];
        for (what, answer) in requests {
            match answer {
                Err(e) => assert_ne!(e.fault, StoreFault::Exists, "{nth} {what}: {e}"),
                Ok(()) => assert!(what == "size" || what == "create" || what == "list", "{nth} {what}"),
            }
        }
    }
}

#[test]
fn what_is_told_to_be_too_large_is_not_fetched() {
    let id = |id: u32| id.to_be_bytes();
    let store = over_liar(move |kind, n| match kind {
        3 => [&[102][..], &id(n), &[0, 0, 0, 1, 7]].concat(),
        8 => [&[105][..], &id(n), &[0, 0, 0, 1], &u64::MAX.to_be_bytes()].concat(),
        _ => [&[101][..], &id(n), &[0, 0, 0, 1]].concat(),
    });
    assert_eq!(store.read("a", 1 << 20).unwrap_err().fault, StoreFault::Size);
    assert_eq!(store.read_range("a", u64::MAX - 5, 10).unwrap_err().fault, StoreFault::Size);
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    let store = over_liar(|_, _| {
        std::thread::sleep(Duration::from_secs(3));
        vec![1; 5]
    });
    let connection = store.pool.run(|connection| connection.ask(&wire::Request::Remove("a")));
    assert!(matches!(connection, Err(Failure::Lost(lost)) if lost.why.contains("has not answered")));
}
