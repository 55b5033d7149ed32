//! A server that is far: every byte takes its time in both directions, and blocks do not wait for one
//! another.

use super::Remote;
use crate::support::noise;
use bytes::Bytes;
use estrato::store::Store as _;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// One way.
const DELAY: Duration = Duration::from_millis(50);

/// Passes on what comes, each piece a while after it came.
fn carry(mut from: TcpStream, mut to: TcpStream) {
    let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>();
    std::thread::spawn(move || {
        for (due, bytes) in receiver {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
    let mut bytes = vec![0; 256 * 1024];
    while let Ok(len @ 1..) = from.read(&mut bytes) {
        if sender.send((Instant::now() + DELAY, bytes[..len].to_vec())).is_err() {
            break;
        }
    }
}

/// A port that leads to another one over a long way.
fn long_way(port: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for ours in listener.incoming().flatten() {
            let Ok(theirs) = TcpStream::connect(("127.0.0.1", port)) else { break };
            ours.set_nodelay(true).unwrap();
            theirs.set_nodelay(true).unwrap();
            let (back, there) = (theirs.try_clone().unwrap(), ours.try_clone().unwrap());
            std::thread::spawn(move || carry(ours, theirs));
            std::thread::spawn(move || carry(back, there));
        }
    });
    near
}

#[test]
fn a_pack_does_not_take_a_way_there_and_back_for_each_block() {
    let Some(remote) = Remote::new() else { return };
    let folder = remote.place.path("store");
    let path = folder.to_str().unwrap().strip_prefix('/').unwrap().to_owned();
    let store = remote.server.store_through(long_way(remote.server.port), &path);
    let pack = Bytes::from(noise("pack", 16 << 20));
    let timed = |what: &str, within: f64, go: &dyn Fn()| {
        let began = Instant::now();
        go();
        let took = began.elapsed().as_secs_f64();
        eprintln!("100 ms there and back: {what}: {took:.2} s");
        // Way beyond what it takes; one block after the other would be 51 s, one folder after the other 30.
        assert!(took < within, "{what}: {took} s");
    };
    timed("the first object, with the connection", 10.0, &|| store.create("packs/first", Bytes::new()).unwrap());
    timed("a pack is created", 10.0, &|| store.create("packs/ab", pack.clone()).unwrap());
    timed("and read", 10.0, &|| assert!(store.read("packs/ab", 16 << 20).unwrap() == pack));
    timed("a small one is read", 2.0, &|| assert!(store.read("packs/first", 9).unwrap().is_empty()));
    for n in 0..100 {
        remote.place.write(format!("store/many/{n}/a"), "text");
    }
    timed("a hundred folders are listed", 10.0, &|| assert_eq!(store.list("many").unwrap().len(), 100));
}
