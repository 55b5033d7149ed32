//! Checks of a part of the packs come around to all of them, and this machine remembers where they are.

use crate::support::{Place, change, noise};
use crate::world::{FULL, WRITER, World};
use estrato::clock::Timestamp;
use estrato::maintenance::{self, Depth, Part, Portion, Report};
use estrato::monitor::Silent;
use estrato::repo::Repository;
use estrato::store::Store as _;
use std::path::Path;
use std::time::Duration;

const DAY: u64 = 86_400;
const PACKS: u64 = 12;

/// A repository of as many packs.
fn grown() -> World {
    let world = World::new();
    let repo = world.open(FULL);
    for n in 0..PACKS {
        world.snapshot(&repo, &[&noise(&n.to_string(), 9_000)]);
    }
    world
}

fn check(repo: &Repository, portion: Portion) -> Report {
    maintenance::check(repo, Depth::Data(portion), &Silent).unwrap()
}

fn share(share: u32) -> Portion {
    Portion { part: Part::Share(share), older_than: None }
}

/// A machine of its own.
fn open(world: &World, key: u8, machine: &Path) -> Repository {
    world.open_with(key, Some(machine.into()))
}

#[test]
fn parts_in_a_row_read_everything_once_and_then_begin_again() {
    let world = grown();
    let machine = tempfile::tempdir().unwrap();
    for around in 0..2 {
        let begun = world.open(FULL).clock().now();
        for run in 0..4 {
            world.clock.forward(DAY);
            // Each time by another process.
            let report = check(&open(&world, FULL, machine.path()), share(2_500));
            assert_eq!((report.damages, report.packs, report.read_packs), (0, PACKS, 3));
            assert!(report.read_bytes * 4 >= report.pack_bytes && report.read_bytes < report.pack_bytes);
            let left = if around == 0 { PACKS - 3 * (run + 1) } else { 0 };
            assert_eq!(report.never_verified, left);
            let oldest = match (around, run) {
                // The first of this time around, once those of the last are all read again.
                (0, _) | (1, 3) => begun.seconds + DAY as i64,
                // Of the last time around, what is next.
                _ => begun.seconds - (3 - (run as i64 + 1)) * DAY as i64,
            };
            assert_eq!(report.oldest_verified, Some(Timestamp { seconds: oldest, nanos: 0 }), "{around} {run}");
        }
    }
}

#[test]
fn one_damaged_pack_is_found_by_one_check_of_each_time_around() {
    let world = grown();
    let machine = tempfile::tempdir().unwrap();
    let repo = open(&world, FULL, machine.path());
    let packs = world.names(&repo.names().packs());
    let mut bytes = world.store.read(&packs[5], 1 << 20).unwrap().to_vec();
    bytes[1_300] ^= 1;
    world.store.write(&packs[5], bytes.into()).unwrap();
    for _ in 0..2 {
        let mut found = Vec::new();
        for _ in 0..4 {
            world.clock.forward(DAY);
            let report = check(&repo, share(2_500));
            found.extend(report.damage.into_iter().map(|damage| damage.object));
        }
        found.dedup();
        assert_eq!(found, [packs[5].clone()]);
    }
    assert_eq!(check(&repo, share(1)).never_verified, 1, "it was read, and never whole");
}

#[test]
fn numbered_parts_are_all_of_it_on_machines_that_remember_nothing() {
    let world = grown();
    let read: u64 = (1..=5)
        .map(|nth| {
            let report = check(&world.open(FULL), Portion { part: Part::Nth { nth, of: 5 }, older_than: None });
            assert_eq!(report.never_verified, PACKS - report.read_packs);
            report.read_packs
        })
        .sum();
    assert_eq!(read, PACKS);
}

#[test]
fn what_was_verified_lately_is_not_read_again() {
    let world = grown();
    let machine = tempfile::tempdir().unwrap();
    let repo = open(&world, FULL, machine.path());
    let older = |days: u64| Portion { part: Part::All, older_than: Some(Duration::from_secs(days * DAY)) };
    assert_eq!(check(&repo, older(30)).read_packs, PACKS, "none ever was");
    world.clock.forward(29 * DAY);
    world.snapshot(&repo, &[b"one more"]);
    assert_eq!(check(&repo, older(30)).read_packs, 1);
    world.clock.forward(DAY);
    assert_eq!(check(&repo, older(30)).read_packs, PACKS);
    assert_eq!(check(&repo, older(30)).read_packs, 0);
}

#[test]
fn a_writers_checks_look_at_less_and_count_for_themselves() {
    let world = grown();
    let machine = tempfile::tempdir().unwrap();
    let all = Portion::ALL;
    assert_eq!(check(&open(&world, WRITER, machine.path()), all).never_verified, 0);
    let full = open(&world, FULL, machine.path());
    assert_eq!(check(&full, share(2_500)).never_verified, PACKS - 3, "nobody has opened the others");
}

#[test]
fn a_memory_that_is_lost_or_damaged_costs_time_alone() {
    let world = grown();
    let machine = tempfile::tempdir().unwrap();
    let repo = open(&world, FULL, machine.path());
    let file = repo.local().path().unwrap().join("verified");
    assert_eq!(check(&repo, share(5_000)).never_verified, PACKS / 2);
    change(&file, |bytes| bytes[40] ^= 1);
    assert_eq!(check(&repo, share(5_000)).never_verified, PACKS / 2, "it begins again");
    assert_eq!(check(&repo, share(5_000)).never_verified, 0);
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    let report = check(&repo, share(5_000));
    assert_eq!((report.damages, report.read_packs), (0, PACKS / 2));
    assert!(repo.local().take_warnings()[0].contains("local state cannot be kept"));
}

#[test]
fn the_program_says_how_much_it_read_and_what_is_left() {
    let place = Place::with_repository();
    for n in 0..4 {
        place.write(format!("source/{n}"), noise(&n.to_string(), 20_000));
        place.snapshot(&[]);
    }
    let json = |part: &str| place.run(&["check", part, "--json"]).expect_code(0).json();
    let first = json("--read-data=40k");
    assert_eq!(
        (&first["packs"], &first["never_verified"]),
        (&8.into(), &(8 - first["read_packs"].as_u64().unwrap()).into())
    );
    assert!(first["read_bytes"].as_u64().unwrap() <= 40_000 && first["oldest_verified"].is_string(), "{first}");
    let told = place.run(&["check", "--read-data=1%"]).expect_code(0).stdout();
    assert!(told.contains(" of ") && told.contains("that no check on this machine has found whole yet"), "{told}");
    assert!(told.contains("the oldest verification is of 20"), "{told}");
    let all = json("--read-data");
    assert_eq!((&all["read_packs"], &all["never_verified"]), (&8.into(), &0.into()));
    assert_eq!(all["read_bytes"], all["pack_bytes"]);
    let none = place.run(&["check", "--read-data", "--older-than", "1d"]).expect_code(0).stdout();
    assert!(none.contains("0 B of "), "{none}");
    for wrong in [&["--read-data=0%"][..], &["--read-data=8/7"], &["--read-data=x"], &["--older-than", "1d"]] {
        place.run(&[&["check"], wrong].concat()).expect_code(2);
    }
}
