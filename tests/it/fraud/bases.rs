//! A stolen writer key that names further copies of what others rest on.

use super::writer::public_key;
use super::{MALLORY, with_mallory};
use crate::support::noise;
use crate::world::{FULL, WRITER, World};
use estrato::format::index::{IndexObject, PackEntry, Vouched};
use estrato::format::pack::{BlobKind, Codec, StorageClass};
use estrato::id::{BaseId, BlobId};
use estrato::limits;
use estrato::monitor::Silent;
use estrato::pack::{Bases, Compressor, EncodedFrame, PackBuilder, PlainFrame};
use estrato::repo::{Reading, Repository, Trust};
use estrato::store::Store;
use std::collections::HashMap;
use std::sync::Mutex;

/// Blobs of which each rests on the one before.
const BLOBS: usize = 14;

/// A stream's state on each day, and its ids.
fn days(repo: &Repository) -> Vec<(BlobId, Vec<u8>)> {
    let mut bytes = noise("the first day", 3000);
    let mut days = Vec::new();
    for n in 0..BLOBS {
        bytes.splice(n..n, noise(&format!("day {n}"), 20));
        days.push((repo.id_keys().blob_id(BlobKind::Chunk, &bytes), bytes.clone()));
    }
    days
}

/// The frames of a writer that stores each day as what changed since the one before.
fn honest(days: &[(BlobId, Vec<u8>)]) -> Vec<EncodedFrame> {
    let mut compressor = Compressor::new(1).unwrap();
    let plain = |n: usize| {
        let (id, bytes) = &days[n];
        let mut frame = PlainFrame::new(BlobKind::Chunk);
        frame.push(*id, bytes);
        frame
    };
    let delta = |n: usize| {
        let bases = Bases { ids: vec![days[n - 1].0.base()], plain: days[n - 1].1.clone(), depth: n as u8 - 1 };
        compressor.delta(&plain(n), &bases).unwrap().unwrap()
    };
    let mut frames: Vec<EncodedFrame> = (1..days.len()).map(delta).collect();
    frames.insert(0, compressor.encode(plain(0)).unwrap().0);
    frames
}

/// A frame that is to hold a day and holds nothing, on bases and in a depth of the forger's choice.
fn forged((id, bytes): &(BlobId, Vec<u8>), bases: &[BaseId], depth: usize) -> EncodedFrame {
    EncodedFrame {
        codec: Codec::Zstd,
        kind: BlobKind::Chunk,
        payload: b"nothing".to_vec(),
        depth: depth as u8,
        bases: bases.to_vec(),
        lens: vec![bytes.len() as u32],
        ids: vec![*id],
    }
}

/// Puts frames into a pack of the store.
fn pack(world: &World, repo: &Repository, frames: Vec<EncodedFrame>) -> PackEntry {
    let to = public_key(world);
    let mut builder = PackBuilder::new(&repo.realm(), repo.cipher(), StorageClass::Data, &to).unwrap();
    frames.into_iter().for_each(|frame| builder.push(frame).unwrap());
    let pack = builder.finish().unwrap();
    world.store.write(&repo.names().pack(&pack.entry.name), pack.bytes.into()).unwrap();
    pack.entry
}

fn packs(packs: Vec<PackEntry>) -> IndexObject {
    IndexObject { packs, ..IndexObject::default() }
}

/// Publishes forged packs, and behind them the honest one; its object, and a full key that has seen
/// them in this order.
fn published(world: &World, forged: Vec<Vec<EncodedFrame>>, honest: Vec<EncodedFrame>) -> (String, Repository) {
    let (mallory, full) = (world.open(MALLORY), world.open(FULL));
    let packs = forged.into_iter().map(|frames| pack(world, &mallory, frames)).collect();
    world.index(&mallory, &IndexObject { packs, ..IndexObject::default() }, &world.signing(&mallory, MALLORY));
    let seen = world.open(FULL);
    assert_eq!(seen.sync_index().unwrap().len(), 0, "what a stolen key signs is read");
    let entry = pack(world, &full, honest);
    let object = full.names().pack(&entry.name);
    world.index(&full, &IndexObject { packs: vec![entry], ..IndexObject::default() }, &world.signing(&full, FULL));
    assert_eq!(seen.sync_index().unwrap().len(), 0);
    (object, seen)
}

/// Every day is read by itself; and the frames of the honest pack in a plan of all that the index knows,
/// as a check makes it.
#[track_caller]
fn nothing_is_hidden(repo: &Repository, object: &str, days: &[(BlobId, Vec<u8>)]) {
    for (n, (id, bytes)) in days.iter().enumerate().rev() {
        assert!(repo.blob(BlobKind::Chunk, id).unwrap() == *bytes, "day {n}");
    }
    let (mut reading, mut wanted) = (Reading::default(), Vec::new());
    for known in repo.index().packs().unwrap() {
        let pack = repo.index().pack(known.number).unwrap().unwrap();
        for (n, (offset, frame)) in pack.frames().iter().enumerate() {
            let planned = reading.need_frame(repo, (pack.number, pack.name), (n as u32, *offset), frame).unwrap();
            if repo.names().pack(&pack.name) == object {
                wanted.push(planned.unwrap_or_else(|| panic!("frame {n} rests in vain")));
            }
        }
    }
    let shown = Mutex::new(HashMap::new());
    let read = reading.run(repo, Trust::Bases, &Silent, &|number, plain| {
        shown.lock().unwrap().insert(number, plain.map(|decoded| decoded.plain.to_vec()).map_err(|e| e.to_string()));
        Ok(())
    });
    read.unwrap();
    let mut shown = shown.into_inner().unwrap();
    for (n, (number, (_, bytes))) in wanted.iter().zip(days).enumerate() {
        match shown.remove(number).unwrap() {
            Ok(plain) => assert!(plain == *bytes, "day {n}"),
            Err(e) => panic!("day {n}: {e}"),
        }
    }
}

#[test]
fn forged_copies_of_every_base_of_a_chain_hide_none_of_it() {
    let world = with_mallory();
    let days = days(&world.open(FULL));
    // Each names the honest base: there is a way to it through every one below.
    let forged = || (1..BLOBS).map(|n| forged(&days[n], &[days[n - 1].0.base()], n)).collect();
    let (object, repo) = published(&world, vec![forged(), forged()], honest(&days));
    nothing_is_hidden(&repo, &object, &days);
}

#[test]
fn a_forged_copy_that_rests_on_what_nobody_has_is_no_reason_to_give_up_what_rests_on_an_honest_one() {
    let world = with_mallory();
    let days = days(&world.open(FULL));
    let forged = (1..BLOBS).map(|n| forged(&days[n], &[BaseId([9; 16])], 1)).collect();
    let (object, repo) = published(&world, vec![forged], honest(&days));
    nothing_is_hidden(&repo, &object, &days);
}

#[test]
fn a_plan_does_not_believe_how_long_a_forger_says_that_bases_are() {
    let world = with_mallory();
    let mut days = days(&world.open(FULL));
    let mut frames = honest(&days);
    // One more that rests on several: together they would be more than any frame may rest on.
    let newest = [&days[4].1[..], b"and what is new"].concat();
    let id = world.open(FULL).id_keys().blob_id(BlobKind::Chunk, &newest);
    let (ids, plain) = days[..6].iter().map(|(id, bytes)| (id.base(), &bytes[..])).unzip::<_, _, Vec<_>, Vec<_>>();
    let mut frame = PlainFrame::new(BlobKind::Chunk);
    frame.push(id, &newest);
    let bases = Bases { ids, plain: plain.concat(), depth: 5 };
    frames.push(Compressor::new(1).unwrap().delta(&frame, &bases).unwrap().unwrap());
    let mighty = |n: usize| EncodedFrame { lens: vec![1 << 20], ..forged(&days[n], &[days[0].0.base()], 1) };
    let forged = (1..6).map(mighty).collect();
    days.push((id, newest));
    let (object, repo) = published(&world, vec![forged], frames);
    nothing_is_hidden(&repo, &object, &days);
}

#[test]
fn forged_frames_that_rest_on_forged_ones_a_thousand_times_leave_a_plan_enough_for_the_others() {
    let world = with_mallory();
    let days = days(&world.open(FULL));
    let wrong = (1..BLOBS).map(|n| forged(&days[n], &[days[0].0.base()], 1)).collect();
    let wide = (1..BLOBS).map(|n| forged(&days[n], &[days[n].0.base(); 1024], 16)).collect();
    let (object, repo) = published(&world, vec![wrong, wide], honest(&days));
    nothing_is_hidden(&repo, &object, &days);
}

/// More frames than a reader decodes for one blob, each whole and each said to hold this one.
fn flood((id, _): &(BlobId, Vec<u8>)) -> Vec<EncodedFrame> {
    let one = |n: u32| {
        let plain = format!("{n:010}").into_bytes();
        EncodedFrame::plain(Codec::Raw, BlobKind::Chunk, plain, vec![10], vec![*id])
    };
    (0..limits::BLOB_FRAMES_MAX as u32 + 4).map(one).collect()
}

#[test]
fn more_false_copies_of_a_base_than_may_be_decoded_hide_no_honest_one() {
    let world = with_mallory();
    let days = days(&world.open(FULL));
    let (object, repo) = published(&world, vec![flood(&days[0]), flood(&days[1])], honest(&days));
    nothing_is_hidden(&repo, &object, &days);
}

#[test]
fn more_false_copies_of_a_base_than_may_be_decoded_hide_none_of_another_writer() {
    let world = with_mallory();
    let mut days = days(&world.open(FULL));
    days.truncate(3);
    let mut frames = honest(&days);
    // The first day is a writer's, whom nobody vouches for, and what rests on it a full key's.
    let first = frames.remove(0);
    let (mallory, writer) = (world.open(MALLORY), world.open(WRITER));
    let forged = pack(&world, &mallory, flood(&days[0]));
    world.index(&mallory, &packs(vec![forged]), &world.signing(&mallory, MALLORY));
    let seen = world.open(FULL);
    assert_eq!(seen.sync_index().unwrap().len(), 0);
    let honest = pack(&world, &writer, vec![first]);
    world.index(&writer, &packs(vec![honest]), &world.signing(&writer, WRITER));
    let above = pack(&world, &seen, frames);
    world.index(&seen, &packs(vec![above]), &world.signing(&seen, FULL));
    assert_eq!(seen.sync_index().unwrap().len(), 0);
    for (n, (id, bytes)) in days.iter().enumerate().rev() {
        assert!(seen.blob(BlobKind::Chunk, id).unwrap() == *bytes, "day {n}");
    }
}

#[test]
fn copies_that_full_keys_answer_for_are_tried_first() {
    let world = with_mallory();
    let days = days(&world.open(FULL));
    let (mallory, writer) = (world.open(MALLORY), world.open(WRITER));
    let wrong = |n: u8| EncodedFrame::plain(Codec::Raw, BlobKind::Chunk, vec![n; 10], vec![10], vec![days[0].0]);
    let forged = pack(&world, &mallory, vec![wrong(1), wrong(2)]);
    world.index(&mallory, &packs(vec![forged.clone()]), &world.signing(&mallory, MALLORY));
    let seen = world.open(FULL);
    seen.sync_index().unwrap();
    let sound = pack(&world, &writer, honest(&days[..1]));
    let index = world.index(&writer, &packs(vec![sound.clone()]), &world.signing(&writer, WRITER));
    seen.sync_index().unwrap();
    let first = |repo: &Repository| repo.index().copies(&days[0].0).unwrap()[0].pack();
    assert_eq!(first(&seen), forged.name, "nobody has answered for either");
    for (n, own) in [(MALLORY, forged.name), (WRITER, sound.name)] {
        let repo = world.open(n);
        repo.sync_index().unwrap();
        assert_eq!(first(&repo), own, "one's own word");
    }
    seen.vouch(&[Vouched { index, pack: sound.name }]).unwrap();
    assert_eq!(first(&seen), sound.name, "vouched for");
}
