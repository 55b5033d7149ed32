//! What a prune writes anew because it rests badly: chains become short, what a writer stored whole becomes
//! deltas, and everything restores.

use super::beside::open;
use super::{Tree, assert_whole, day, prune, stored, take, tree};
use crate::support::{Place, Ran, noise};
use estrato::format::node::Kind;
use estrato::repo::Repository;
use estrato::snapshot::{Folder, leaves};
use serde_json::Value;
use std::fs;

/// How many frames of chunks there are at each depth.
fn depths(place: &Place) -> Vec<u64> {
    let stats = place.run(&["stats", "--json"]).expect_code(0).json();
    let frames = stats["frames"].as_array().unwrap();
    let chunks = frames.iter().find(|frames| frames["kind"] == "chunks").unwrap();
    chunks["depths"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect()
}

/// A table that changes all over, day by day.
fn table(place: &Place, n: usize) {
    let mut rows = noise("rows", 300_000);
    for day in 0..=n {
        for at in (day * 1_700..290_000).step_by(23_000) {
            rows[at..at + 60].copy_from_slice(&noise(&format!("{day} {at}"), 60));
        }
    }
    // What can be packed at all: half of it is the same byte.
    let text: Vec<u8> = rows.iter().flat_map(|b| [b'a' + b % 16, b'-']).collect();
    place.write("source/table", text);
    place.write(format!("source/day {n}"), noise(&format!("day {n}"), 2_000));
}

fn days(place: &Place, many: usize, mut take: impl FnMut(&Place) -> (String, Tree)) -> Vec<(String, Tree)> {
    let taken = |n| {
        table(place, n);
        take(place)
    };
    (0..many).map(taken).collect()
}

#[test]
fn the_newest_snapshot_rests_on_little_and_what_only_served_it_goes() {
    let chained = |keep: usize| {
        let place = Place::with_repository();
        let all = days(&place, 9, |place| take(place, &[]));
        place.run(&["forget", "--keep-last", &keep.to_string()]).expect_code(0);
        (place, all[9 - keep..].to_vec())
    };
    let (place, kept) = chained(1);
    prune(&place, &["--max-unused", "0%"]);
    assert!(depths(&place).len() > 2, "{:?}", depths(&place));
    let done = prune(&place, &["--max-unused", "0%", "--optimise"]);
    assert!(depths(&place).len() <= 2, "{done} {:?}", depths(&place));
    assert!(done["optimised"]["flattened"]["blobs"].as_u64() > Some(0), "{done}");
    assert_whole(&place, &kept);
    let done = prune(&place, &["--max-unused", "0%", "--optimise", "--max-depth", "0"]);
    assert_eq!(depths(&place).len(), 1, "{done}");
    assert_whole(&place, &kept);
    // Days that are kept rest on one another as before; but for what only served.
    let (place, mut kept) = chained(4);
    let done = prune(&place, &["--max-unused", "0%", "--optimise", "--max-depth", "1"]);
    assert!(done["optimised"]["flattened"]["blobs"].as_u64() > Some(0), "{done}");
    assert_whole(&place, &kept);
    table(&place, 9);
    kept.push(take(&place, &[]));
    assert_whole(&place, &kept);
}

#[test]
fn a_dry_run_tells_what_it_would_be() {
    let place = Place::with_repository();
    let kept = days(&place, 7, |place| take(place, &[]));
    let before = tree(place.path("repo"));
    let dry = prune(&place, &["--optimise", "--dry-run"]);
    assert!(tree(place.path("repo")) == before);
    let done = prune(&place, &["--optimise"]);
    assert_eq!(dry["optimised"], done["optimised"]);
    let said = place.run(&["prune", "--optimise"]).expect_code(0).stdout();
    assert!(said.contains("chains shortened") && said.contains("deltas of a writer's"), "{said}");
    assert_whole(&place, &kept);
    assert_eq!(place.run(&["prune", "--max-depth", "1"]).code(), 2);
}

/// A snapshot by a writer's key.
fn taken_by_a_writer(place: &Place, more: &[&str]) -> (String, Tree) {
    let mut command = place.command_in("source", &[&["snapshot", ".", "--json"], more].concat());
    let ran = Ran::of(command.env("ESTRATO_KEY_FILE", place.path("w"))).expect_code(0);
    (ran.json()["snapshot"].as_str().unwrap().to_owned(), tree(place.path("source")))
}

fn with_writer() -> Place {
    let place = Place::with_repository();
    place.run(&["key", "add", "--role", "writer", "--label", "w", "--new-key-file", "w"]).expect_code(0);
    place
}

#[test]
fn what_a_writer_stored_whole_becomes_deltas() {
    let place = with_writer();
    let mut kept = days(&place, 6, |place| taken_by_a_writer(place, &[]));
    let before = (stored(&place), depths(&place));
    assert_eq!(before.1.len(), 1, "a writer's key makes no deltas");
    prune(&place, &["--max-unused", "0%"]);
    assert_whole(&place, &kept);
    let whole = stored(&place);
    let done = prune(&place, &["--max-unused", "0%", "--optimise"]);
    let deltas = &done["optimised"]["deltas"];
    assert!(deltas["after_bytes"].as_u64().unwrap() * 3 < deltas["before_bytes"].as_u64().unwrap(), "{done}");
    assert!(stored(&place) * 10 < whole * 7, "{} of {whole}", stored(&place));
    assert_eq!(depths(&place).len(), 2);
    assert_whole(&place, &kept);
    // Once is enough, and the writer goes on.
    let again = prune(&place, &["--max-unused", "0%", "--optimise"]);
    let blobs = |done: &Value| done["optimised"]["deltas"]["blobs"].as_u64().unwrap();
    assert!(blobs(&again) * 8 < blobs(&done), "{again}");
    table(&place, 6);
    kept.push(taken_by_a_writer(&place, &[]));
    prune(&place, &["--max-unused", "0%", "--optimise"]);
    assert_whole(&place, &kept);
    let newest = kept.pop().unwrap();
    place.run(&["forget", "--keep-last", "1"]).expect_code(0);
    prune(&place, &["--max-unused", "0%", "--optimise"]);
    assert_whole(&place, &[newest]);
}

/// The blobs of the files below a snapshot that have no plain copy.
fn without_plain_copy(repo: &Repository, snapshot: &str) -> usize {
    let listing = estrato::snapshot::list(repo).unwrap();
    let found = listing.snapshots.iter().find(|s| s.id.to_string() == snapshot).unwrap();
    let (mut folders, mut bad) = (vec![found.manifest.root.clone()], 0);
    while let Some(folder) = folders.pop() {
        for node in Folder::new(repo, &folder).map(Result::unwrap) {
            match node.kind {
                Kind::Dir => folders.push(node.content),
                _ => {
                    let ids = leaves(repo, &node.content).filter_map(|extent| extent.unwrap().id);
                    let plain = |id| repo.index().copies(&id).unwrap().iter().any(|copy| copy.depth() == 0);
                    bad += ids.filter(|id| !plain(*id)).count();
                }
            }
        }
    }
    bad
}

#[test]
fn what_a_full_snapshot_needs_stays_plain() {
    let place = with_writer();
    let mut kept = days(&place, 4, |place| taken_by_a_writer(place, &[]));
    table(&place, 4);
    let full = taken_by_a_writer(&place, &["--kind", "full"]);
    kept.push(full.clone());
    for n in 5..8 {
        table(&place, n);
        kept.push(taken_by_a_writer(&place, &[]));
    }
    let done = prune(&place, &["--max-unused", "0%", "--optimise"]);
    assert!(done["optimised"]["deltas"]["blobs"].as_u64() > Some(0), "{done}");
    assert_whole(&place, &kept);
    let repo = open(&place, "key", "own");
    repo.sync_index().unwrap();
    assert_eq!(without_plain_copy(&repo, &full.0), 0);
    assert!(without_plain_copy(&repo, &kept[3].0) > 0, "the day before may be deltas");
}

#[test]
fn a_plan_in_force_comes_first() {
    let place = with_writer();
    let mut kept = days(&place, 4, |place| taken_by_a_writer(place, &[]));
    place.run(&["forget", &kept.remove(0).0]).expect_code(0);
    let mut backup = super::beside::waiting_backup(&place);
    let waits = prune(&place, &["--optimise"]);
    assert_eq!(waits["waiting"].as_array().unwrap().len(), 1, "{waits}");
    let packs = place.objects("packs");
    let next = prune(&place, &["--optimise"]);
    assert_eq!((&next["optimised"]["deltas"]["blobs"], next["planned"]["taken_up"].is_u64()), (&0.into(), true));
    assert_eq!(place.objects("packs"), packs);
    drop(backup.stdin.take());
    assert!(backup.wait_with_output().unwrap().status.success());
    prune(&place, &[]);
    let done = prune(&place, &["--optimise"]);
    assert_eq!(done["planned"]["taken_up"], Value::Null, "{done}");
    day(&place, 1);
    place.run(&["forget", "--keep-last", "1", "--group-by", ""]).expect_code(0);
    prune(&place, &["--optimise"]);
    let checked = place.run(&["check", "--read-data"]).expect_code(0);
    assert!(checked.stdout().contains("no damage") && fs::exists(place.path("repo")).unwrap());
}
