//! Streams and keys: which snapshots make deltas, and which cannot.

use super::{deltas, restored, rows, summary};
use crate::support::{Place, Ran};
use serde_json::Value;
use std::fs::File;

/// A snapshot of standard input under a name.
#[track_caller]
fn piped(place: &Place, name: &str, data: &[u8]) -> Value {
    let path = place.write("data", data);
    let mut command = place.command(&["snapshot", "--stdin", "--name", name, "--json"]);
    Ran::of(command.stdin(File::open(path).unwrap())).expect_code(0).json()
}

/// Entries added, changed and removed.
fn counts(document: &Value) -> [u64; 3] {
    ["added", "changed", "removed"].map(|what| document["manifest"]["summary"][what]["entries"].as_u64().unwrap())
}

#[test]
fn the_second_dump_of_a_name_is_stored_as_what_it_replaces() {
    let place = Place::with_repository();
    let first = rows(0, 20_000, "dump");
    let mut second = first.clone();
    second.drain(900_000..900_300);
    let taken = piped(&place, "dump.sql", &first);
    assert_eq!((counts(&taken), deltas(&place, "chunks")), ([1, 0, 0], 0));
    let taken = piped(&place, "dump.sql", &second);
    assert_eq!(counts(&taken), [0, 1, 0]);
    assert!(summary(&taken, "stored_bytes") < 6_000, "{taken}");
    assert_eq!(deltas(&place, "chunks"), 1);
    assert!(restored(&place, &taken, "dump.sql") == second);
    let same = piped(&place, "dump.sql", &second);
    assert_eq!((counts(&same), deltas(&place, "chunks")), ([0, 0, 0], 1));
    // Another name replaces nothing. What both hold is stored already.
    let other = piped(&place, "other.sql", &first[..500_000]);
    assert_eq!((counts(&other), deltas(&place, "chunks")), ([1, 0, 0], 1));
    assert!(restored(&place, &other, "other.sql") == first[..500_000]);
}

#[test]
fn a_stream_that_becomes_empty_and_comes_back_is_each_time_what_it_was() {
    let place = Place::with_repository();
    let (first, second) = (rows(0, 3_000, "one"), rows(0, 3_100, "one"));
    let taken = [piped(&place, "s", &first), piped(&place, "s", b""), piped(&place, "s", &second)];
    assert_eq!(taken.each_ref().map(counts), [[1, 0, 0], [0, 1, 0], [0, 1, 0]]);
    for (taken, expected) in taken.iter().zip([&first[..], b"", &second]) {
        assert!(restored(&place, taken, "s") == expected);
    }
}

#[test]
fn a_writer_stores_plain_frames_only_and_a_full_key_makes_deltas_of_the_same_source() {
    let place = Place::with_repository();
    place.run(&["key", "add", "--role", "writer", "--label", "w", "--new-key-file", "w"]).expect_code(0);
    let mut document = rows(0, 3_000, "clinic");
    let mut snapshot = |key: &str| {
        document[10_000] ^= 1;
        document[200_000] ^= 1;
        place.write("source/document", &document);
        let taken = place.run_as(key, &["snapshot", "source", "--json"]).expect_code(0).json();
        let delta: u64 = ["chunks", "trees", "content lists"].map(|kind| deltas(&place, kind)).iter().sum();
        assert!(restored(&place, &taken, "source/document") == document);
        delta
    };
    assert_eq!([snapshot("w"), snapshot("w"), snapshot("w")], [0, 0, 0]);
    // A full key takes nothing of a writer's unread, and so has nothing that it could replace.
    assert_eq!(snapshot("key"), 0);
    assert!(snapshot("key") > 0);
    let made = deltas(&place, "chunks");
    snapshot("w");
    assert_eq!(deltas(&place, "chunks"), made, "a writer rests nothing on what it cannot read");
    let (full, writer) = (place.run(&["stats", "--json"]), place.run_as("w", &["stats", "--json"]));
    assert_eq!(full.expect_code(0).json(), writer.expect_code(0).json(), "a writer can count as well");
    place.run(&["check", "--read-data"]).expect_code(0);
}
