//! A small change costs little, wherever it stands and whatever stands around it.
//!
//! What a snapshot stores at the least: two packs, of data and of trees, each with a sealed key, a
//! directory, a trailer and a hash (1.3 kB); a tree; content lists, which rest on older ones. About
//! 4 kB in all. New plaintext is counted before it is compressed: the pieces that a change lies in, of
//! 16 kB on average and 64 kB at the most, and those to which the cuts come back.

use super::{rows, summary};
use crate::support::{Place, noise};
use serde_json::Value;

/// What two packs and their records take, and room for what changes with sizes of records.
const PACKS: u64 = 6_000;

/// Takes a snapshot of a document and then of another in its place; the second, which must come back.
#[track_caller]
fn second(before: &[u8], after: &[u8]) -> Value {
    let place = Place::with_repository();
    place.write("source/document", before);
    let first = place.snapshot(&[]);
    assert!(summary(&first, "stored_bytes") > before.len() as u64 / 5, "{first}");
    place.write("source/document", after);
    let second = place.snapshot(&[]);
    assert!(super::restored(&place, &second, "document") == after);
    place.run(&["check", "--read-data"]).expect_code(0);
    second
}

/// Expects a change to cost no more than so much of each.
#[track_caller]
fn costs(before: &[u8], after: &[u8], new: u64, stored: u64) {
    let taken = second(before, after);
    let found = (summary(&taken, "new_bytes"), summary(&taken, "stored_bytes"));
    assert!(found.0 > 0 && found.0 <= new && found.1 <= stored, "{found:?}, not ({new}, {stored})");
}

/// 5 MB of rows.
fn table() -> Vec<u8> {
    rows(0, 58_000, "table")
}

#[test]
fn a_changed_header_costs_one_piece_and_is_stored_as_some_bytes() {
    let before = table();
    let header = |version: u8| format!("-- dump of visits, version {version}\n").into_bytes();
    costs(&[header(1), before.clone()].concat(), &[header(2), before].concat(), 200_000, PACKS);
}

#[test]
fn a_row_inserted_at_the_front_moves_five_megabytes_and_costs_one_piece() {
    let before = table();
    let after = [rows(99, 1, "new"), before.clone()].concat();
    costs(&before, &after, 200_000, PACKS);
}

#[test]
fn rows_appended_cost_themselves_and_the_last_piece() {
    let before = table();
    let more = rows(58_000, 500, "more");
    // The random third of 500 rows is 8 kB, and twice as much as they are packed at best.
    costs(&before, &[before.clone(), more].concat(), 300_000, PACKS + 20_000);
}

#[test]
fn a_row_removed_and_a_row_changed_in_the_middle_cost_two_pieces() {
    let before = table();
    let mut after = before.clone();
    after.drain(1_000_000..1_000_090);
    after[3_000_000] ^= 1;
    costs(&before, &after, 400_000, PACKS);
}

/// A header and a body, as tar lays them out.
fn member(name: &str, version: u32, body: &[u8]) -> Vec<u8> {
    let mut block = format!("{name}\0mode 644\0version {version:08}\0{}\0", body.len()).into_bytes();
    block.resize(512, 0);
    block.extend_from_slice(body);
    block.resize(block.len().next_multiple_of(512), 0);
    block
}

/// Twenty members, every other one compressed; what stands in the text of some differs by version.
fn archive(version: u32) -> Vec<u8> {
    (0..20)
        .flat_map(|n| {
            let name = format!("member-{n}");
            if n % 2 == 0 {
                let mut text = rows(n * 1000, 1500, &name);
                text[70_000] ^= u8::from(n % 6 == 0 && version > 1);
                member(&name, version, &text)
            } else {
                member(&name, version, &noise(&name, 150_000))
            }
        })
        .collect()
}

#[test]
fn an_archive_of_text_and_compressed_members_costs_what_changed_in_it() {
    // Every header has changed, and with it the piece or the chunk of a compressed member in which it
    // stands. What is new is stored against what it replaces, the compressed members too, and costs some
    // bytes for each change, and its bases' names: 64 bytes in both records for each of 16 kB.
    let (before, after) = (archive(1), archive(2));
    costs(&before, &after, after.len() as u64 / 2, PACKS + 14_000);
}

#[test]
fn compressed_parts_among_text_cost_what_changed_in_them() {
    let part = |name: &str| noise(name, 300_000);
    let text = |name: &str| rows(0, 3_000, name);
    let before = [text("a"), part("a"), text("b"), part("b"), text("c")].concat();
    // One compressed part is another one now, and so costs what it holds; one byte changed in the other,
    // which may be one chunk of up to a megabyte, and is stored as what it was but for that byte.
    let mut other = part("b");
    other[100_000] ^= 1;
    let after = [text("a"), part("new"), text("b"), other, text("c")].concat();
    costs(&before, &after, after.len() as u64 + 10_000, 300_000 + 150_000 + PACKS);
    let mut small = before.clone();
    small[before.len() / 2] ^= 1;
    costs(&before, &small, 1_100_000, PACKS);
}

#[test]
fn parts_that_change_places_cost_little() {
    let before = table();
    let mut after = before.clone();
    after.rotate_left(before.len() / 3);
    // Pieces at the two seams, of whatever size the tenant's key makes them; all of it were ten times as much.
    costs(&before, &after, 600_000, PACKS + 200_000);
}

#[test]
fn a_change_in_every_row_of_a_table_is_stored_as_the_changes() {
    let before = table();
    let after = super::touched(&before, 1000);
    // All of it is new, and lists of it. Some four bytes for each of the 5000 changes, and 64 for each
    // base.
    costs(&before, &after, after.len() as u64 + 50_000, 70_000);
}
