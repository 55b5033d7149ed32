//! A stolen writer key that lies about when.

use crate::support::{Place, Ran, noise};
use crate::world::{FULL, World};
use estrato::id::SnapshotId;
use estrato::repo::Repository;
use estrato::snapshot::{self, Filter};

/// A repository with an honest snapshot, and a stolen writer key.
fn place() -> Place {
    let place = Place::with_repository();
    place.run(&["key", "add", "--role", "writer", "--label", "mallory", "--new-key-file", "mallory"]).expect_code(0);
    place.write("source/file", noise("honest", 20_000));
    place.snapshot(&[]);
    place
}

fn claim(place: &Place, time: &str) -> String {
    let mut command = place.command_in("source", &["snapshot", ".", "--json", "--time", time]);
    let ran = Ran::of(command.env("ESTRATO_KEY_FILE", place.path("mallory"))).expect_code(0);
    ran.json()["snapshot"].as_str().unwrap().to_owned()
}

#[test]
fn a_postdated_snapshot_is_marked_and_hides_no_honest_one() {
    let place = place();
    place.write("source/file", noise("forged", 20_000));
    let forged = claim(&place, "2100-01-01 00:00");
    place.write("source/file", noise("honest and newer", 20_000));
    let honest = place.snapshot(&[])["snapshot"].as_str().unwrap().to_owned();

    let ran = place.run(&["snapshots"]).expect_code(0);
    assert!(
        ran.stdout().lines().any(|l| l.contains(&forged[..8]) && l.contains("2100-01-01 00:00") && l.contains("(!)"))
    );
    assert!(ran.stdout().lines().last().unwrap().contains(&honest[..8]), "{}", ran.stdout());
    let told = ran.stderr();
    assert!(told.contains(&forged[..8]) && told.contains("mallory") && !told.contains(&honest[..8]), "{told}");
    let all = place.run(&["snapshots", "--json"]).expect_code(0).json();
    let flags: Vec<bool> = all.as_array().unwrap().iter().map(|s| s["postdated"].as_bool().unwrap()).collect();
    assert_eq!(flags, [false, true, false]);

    // `latest` is the honest one; what is chosen tells of the other.
    let ran = place.run(&["restore", "latest", "--target", "out"]).expect_code(0);
    assert!(ran.stderr().contains(&forged[..8]), "{}", ran.stderr());
    assert_eq!(std::fs::read(place.path("out/file")).unwrap(), noise("honest and newer", 20_000));
    place.run(&["restore", &forged, "--target", "forged"]).expect_code(0);
    assert_eq!(std::fs::read(place.path("forged/file")).unwrap(), noise("forged", 20_000), "it is read all the same");
    // As of a moment: it was taken today, whatever it says.
    place.run(&["restore", "latest", "--at", "2099-01-01 00:00", "--target", "at"]).expect_code(0);
    assert_eq!(std::fs::read(place.path("at/file")).unwrap(), noise("honest and newer", 20_000));
}

#[test]
fn a_backdated_snapshot_hides_nothing_and_is_no_ones_latest() {
    let place = place();
    place.write("source/file", noise("forged", 20_000));
    for time in ["1970-01-01 00:00", "0001-01-01 00:00"] {
        let forged = claim(&place, time);
        let listed = place.run(&["snapshots"]).expect_code(0);
        assert!(listed.stdout().lines().nth(1).unwrap().contains(&forged[..8]), "the oldest: {}", listed.stdout());
        place.restore("out", &[]);
        assert_eq!(std::fs::read(place.path("out/file")).unwrap(), noise("honest", 20_000));
        std::fs::remove_dir_all(place.path("out")).unwrap();
    }
}

fn latest(repo: &Repository) -> SnapshotId {
    snapshot::list(repo).unwrap().choose("latest", &Filter::default()).unwrap().id
}

#[test]
fn of_several_postdated_snapshots_the_order_is_the_stores() {
    let world = super::with_mallory();
    let mallory = world.open(super::MALLORY);
    let commit = |repo: &Repository, seconds: i64| {
        let mut manifest = crate::world::manifest();
        manifest.time.seconds = seconds;
        let session = estrato::repo::Session::begin(repo, "db1").unwrap();
        session.commit(&manifest).unwrap()
    };
    commit(&mallory, i64::MAX);
    std::thread::sleep(std::time::Duration::from_millis(2));
    let later = commit(&mallory, 4_102_444_800);
    // Numbers at the end of what there is overflow nothing.
    commit(&mallory, i64::MIN);
    let full = world.open(FULL);
    assert_eq!(latest(&full), later, "which claims less, and was taken later");
    let folder = super::Folder::new();
    World::backup(&world, &full, folder.path());
    assert_eq!(snapshot::list(&full).unwrap().snapshots.iter().filter(|s| s.is_postdated()).count(), 2);
}
