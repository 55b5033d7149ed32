//! Delta frames: what is new is stored as what it replaces, and comes back byte for byte whatever
//! became of the source, of this machine's state or of the packs below.

mod damage;
mod far;
mod kinds;
mod local;
mod moved;
mod series;
mod streams;

use crate::support::{Place, noise};
use serde_json::Value;
use std::fs;

/// So many rows, from that number on, as a database prints them: a third of each compresses with
/// nothing, so that rows that stand in an older blob are worth resting on it.
fn rows(from: usize, count: usize, seed: &str) -> Vec<u8> {
    let random = noise(seed, count * 16);
    let mut text = Vec::with_capacity(count * 90);
    for (n, bytes) in random.chunks(16).enumerate() {
        let word = u128::from_le_bytes(bytes.try_into().unwrap());
        let row = format!("INSERT INTO visits VALUES ({:08}, '{word:032x}', {});\n", from + n, word % 9973);
        text.extend_from_slice(row.as_bytes());
    }
    text
}

/// Changes one byte of every so many: no chunk stays what it was.
fn touched(bytes: &[u8], every: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.iter_mut().step_by(every).for_each(|b| *b = b.wrapping_add(1));
    // The last piece is as short as the cuts of this key leave it.
    bytes.iter_mut().last().into_iter().for_each(|b| *b = b.wrapping_add(1));
    bytes
}

/// A number of the summary of a snapshot's JSON document.
#[track_caller]
fn summary(document: &Value, name: &str) -> u64 {
    document["manifest"]["summary"][name].as_u64().unwrap_or_else(|| panic!("no {name} in {document}"))
}

/// What `stats` says of one kind of blob.
#[track_caller]
fn frames(place: &Place, kind: &str) -> Value {
    let stats = place.run(&["stats", "--json"]).expect_code(0).json();
    let found = stats["frames"].as_array().unwrap().iter().find(|of| of["kind"] == kind);
    found.unwrap_or_else(|| panic!("no {kind} in {stats}")).clone()
}

/// Delta frames of one kind of blob.
#[track_caller]
fn deltas(place: &Place, kind: &str) -> u64 {
    frames(place, kind)["delta"]["frames"].as_u64().unwrap()
}

/// Restores a snapshot; one file of it.
#[track_caller]
fn restored(place: &Place, snapshot: &Value, file: &str) -> Vec<u8> {
    let id = snapshot["snapshot"].as_str().unwrap();
    place.run(&["restore", id, "--target", "out", "--delete", "--verify"]).expect_code(0);
    fs::read(place.path("out").join(file)).unwrap()
}
