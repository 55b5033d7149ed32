//! What the program asks of a store that is far, and what it does not ask twice.

use super::double::Fate;
use super::far::Far;
use crate::support::{files_below, noise};

/// A repository with two snapshots of a few files.
fn grown() -> Far {
    let far = Far::new();
    for n in 0..20 {
        far.place.write(format!("source/folder {}/{n}", n % 3), noise(&n.to_string(), 20_000));
    }
    far.run(&["snapshot", "source"]).expect_code(0);
    far.place.write("source/another", noise("another", 30_000));
    far.run(&["snapshot", "source"]).expect_code(0);
    far
}

#[test]
fn an_unchanged_source_takes_eight_calls() {
    let far = grown();
    let calls = far.calls(&["snapshot", "source"]);
    assert!(calls.len() <= 8, "{calls:#?}");
    // A machine that only comes to know the repository asks more once.
    let first = far.calls(&["snapshot", "source", "--cache-dir", "other"]);
    let second = far.calls(&["snapshot", "source", "--cache-dir", "other"]);
    assert!(second.len() <= 8 && first.len() > second.len(), "{first:#?} {second:#?}");
}

#[test]
fn what_was_seen_is_not_fetched_again() {
    let far = grown();
    assert_eq!(far.calls(&["snapshots"]), ["LIST keys/", "LIST snapshots/"]);
    assert_eq!(far.calls(&["ls", "latest"]), ["LIST keys/", "LIST snapshots/", "LIST index/"]);
    assert_eq!(far.calls(&["ls", "latest:source/folder 1"]).len(), 3);
    // Another machine takes one more.
    far.place.write("source/more", noise("more", 30_000));
    far.run(&["snapshot", "source", "--cache-dir", "other"]).expect_code(0);
    let calls = far.calls(&["snapshots"]);
    let manifests: Vec<_> = calls.iter().filter(|call| call.starts_with("GET snapshots/")).collect();
    assert_eq!((manifests.len(), calls.len()), (1, 3), "{calls:#?}");
    let calls = far.calls(&["ls", "latest"]);
    let packs: Vec<_> = calls.iter().filter(|call| call.starts_with("GET packs/")).collect();
    assert_eq!(packs.len(), 1, "its trees are in one pack: {calls:#?}");
    assert_eq!(far.calls(&["ls", "latest"]).len(), 3);
}

#[test]
fn no_listing_touches_a_pack_of_data() {
    let far = grown();
    far.run(&["ls", "latest", "--cache-dir", "other"]).expect_code(0);
    let read: Vec<String> = far.calls(&["ls", "latest~1", "--cache-dir", "third"]);
    let data: Vec<_> = far.objects("packs").into_iter().filter(|(_, bytes)| bytes.len() > 100_000).collect();
    assert_eq!(data.len(), 1, "the first snapshot's files");
    assert!(!read.iter().any(|call| call.starts_with("GET ") && data[0].0.ends_with(&call[4..])), "{read:#?}");
}

#[test]
fn what_is_gone_or_changed_is_told() {
    let far = grown();
    let snapshots: Vec<String> = far.objects("snapshots").into_keys().collect();
    let list = || far.run(&["snapshots"]);
    list().expect_code(0);
    let whole = far.double.objects()[&snapshots[0]].clone();
    // Of another length: a store's clock may show seconds, and all this takes less.
    far.double.plant(&snapshots[0], &whole[..whole.len() - 1]);
    let told = list();
    assert!(told.stderr().contains("damaged"), "{}", told.stderr());
    far.double.plant(&snapshots[0], &whole);
    list().expect_code(0);
    far.double.remove(&snapshots[1]);
    far.double.remove(&snapshots[0]);
    let told = list();
    assert!(told.stderr().contains("missing") || told.stderr().contains("not there"), "{}", told.stderr());
}

#[test]
fn a_check_believes_no_copy() {
    let far = grown();
    far.run(&["check"]).expect_code(0);
    let snapshots = far.objects("snapshots");
    let calls = far.calls(&["check"]);
    for name in snapshots.keys() {
        assert!(calls.iter().any(|call| call.starts_with("GET") && name.ends_with(&call[4..])), "{name}: {calls:#?}");
    }
    assert!(calls.contains(&"GET r/repo.json".to_owned()), "{calls:#?}");
}

#[test]
fn another_repository_in_the_same_place_is_recognised() {
    let far = grown();
    for name in far.double.objects().into_keys() {
        far.double.remove(&name);
    }
    let told = far.run(&["snapshots"]);
    assert_eq!(told.expect_code(10).stderr().lines().count(), 2);
    far.run(&["init", "--new-key-file", "key 2"]).expect_code(0);
    far.run(&["snapshots"]).expect_code(12);
    let second = ["--key-file", "key 2", "snapshot", "source"];
    far.run(&second).expect_code(0);
    far.run(&["--key-file", "key 2", "check"]).expect_code(0);
    let listed = far.run(&["--key-file", "key 2", "snapshots", "--json"]).expect_code(0).json();
    assert_eq!(listed.as_array().unwrap().len(), 1);
}

#[test]
fn neither_a_wrong_key_nor_a_store_that_is_away_costs_the_copies() {
    let far = grown();
    far.run(&["ls", "latest"]).expect_code(0);
    let kept = || files_below(&far.place.path(".cache/estrato/far"));
    let packs = || kept().into_iter().filter(|path| path.to_string_lossy().contains("/packs/")).collect::<Vec<_>>();
    let before = (kept(), packs());
    assert!(!before.1.is_empty());
    far.place.run(&["init", "-r", "elsewhere", "--new-key-file", "another"]).expect_code(0);
    far.run(&["--key-file", "another", "ls", "latest"]).expect_code(12);
    assert_eq!(packs(), before.1);
    far.run(&["ls", "latest"]).expect_code(0);
    assert_eq!(kept(), before.0);
    far.double.decide(|_| Fate::Refuse(403, "", "<Error><Code>AccessDenied</Code></Error>".into()));
    far.run(&["ls", "latest"]).expect_code(1);
    assert_eq!(far.double.asked().len(), 1, "it is not asked a second time");
    assert_eq!(kept(), before.0);
}

#[test]
fn without_a_cache_nothing_is_kept() {
    let far = grown();
    let kept = files_below(&far.place.path(".cache"));
    let calls = far.calls(&["--no-cache", "snapshots"]);
    assert!(calls.iter().filter(|call| call.starts_with("GET snapshots/")).count() == 2, "{calls:#?}");
    far.run(&["--no-cache", "snapshot", "source"]).expect_code(0);
    far.run(&["--no-cache", "restore", "latest", "--target", "target"]).expect_code(0);
    assert_eq!(files_below(&far.place.path(".cache")), kept);
    assert_eq!(far.run(&["--no-cache", "--cache-dir", "x", "snapshots"]).code(), 2);
}

#[test]
fn many_requests_go_side_by_side() {
    let far = grown();
    for n in 0..10 {
        far.place.write("source/more", noise(&format!("more {n}"), 30_000));
        far.run(&["snapshot", "source"]).expect_code(0);
    }
    // Each waits for company, not for ever.
    far.double.decide(|asked| match asked.name.contains("/snapshots/") {
        true => Fate::Late(std::time::Duration::from_millis(200)),
        false => Fate::Done,
    });
    far.run(&["snapshots", "--cache-dir", "other"]).expect_code(0);
    assert!(far.double.most() >= 4, "{}", far.double.most());
}

#[test]
fn a_repository_moves_from_one_kind_of_store_to_another_as_a_copy_of_objects() {
    let far = grown();
    let source = std::fs::read(far.place.path("source/another")).unwrap();
    for (name, bytes) in far.double.objects() {
        far.place.write(format!("repo/{}", name.strip_prefix("r/").unwrap()), bytes);
    }
    // In a folder: what was there is there, and more is added to it.
    assert_eq!(far.place.snapshots(), 2);
    far.place.run(&["restore", "latest", "--target", "here"]).expect_code(0);
    assert_eq!(std::fs::read(far.place.path("here/source/another")).unwrap(), source);
    far.place.write("source/last", noise("last", 50_000));
    far.place.run(&["snapshot", "source"]).expect_code(0);
    far.place.run(&["check", "--read-data"]).expect_code(0);
    // And back, to another bucket.
    let other = Far::empty();
    std::fs::copy(far.place.path("key"), other.place.path("key")).unwrap();
    let root = far.place.path("repo");
    for path in files_below(&root) {
        let name = path.strip_prefix(&root).unwrap_or(&path).to_string_lossy().into_owned();
        other.double.plant(&format!("r/{name}"), &std::fs::read(root.join(&name)).unwrap());
    }
    other.run(&["check", "--read-data"]).expect_code(0);
    other.run(&["restore", "latest", "--target", "there"]).expect_code(0);
    assert_eq!(std::fs::read(other.place.path("there/source/last")).unwrap(), noise("last", 50_000));
    other.place.write("more/a", noise("a", 50_000));
    other.run(&["snapshot", "more"]).expect_code(0);
}
