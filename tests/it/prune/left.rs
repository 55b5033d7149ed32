//! Packs that a prune leaves there for slow readers, and a forget that prunes.

use super::beside::open;
use super::{Tree, assert_whole, day, forgotten, prune, stored, take, tree};
use crate::support::{Place, Ran, noise};
use serde_json::Value;
use std::fs;
use std::process::Command;

fn packs(place: &Place) -> Tree {
    tree(place.path("repo/tenants/default/packs"))
}

#[test]
fn who_read_the_index_before_still_finds_everything_until_it_is_time() {
    let (place, mut kept) = forgotten(6, 2);
    let cache = place.path("cache of a reader");
    Ran::of(place.command(&["ls", "latest"]).arg("--cache-dir").arg(&cache)).expect_code(0);
    let stale = place.path("stale");
    assert!(Command::new("cp").arg("-a").arg(&cache).arg(&stale).status().unwrap().success());
    let before = packs(&place);
    let done = prune(&place, &["--max-unused", "0%", "--keep-condemned", "1h"]);
    let left = done["left_packs"].as_u64().unwrap();
    assert!(left > 0 && done["deleted_packs"] == 0, "{done}");
    assert!(before.iter().all(|(name, bytes)| packs(&place).get(name) == Some(bytes)));
    assert_whole(&place, &kept);
    let stale = if stale.join("estrato").exists() { "stale/estrato" } else { "stale" };
    let reader = open(&place, "key", stale);
    let known = reader.index().packs().unwrap();
    for (n, snapshot) in estrato::snapshot::list(&reader).unwrap().snapshots.iter().enumerate() {
        let (target, root) = (place.path(format!("read/{n}")), &snapshot.manifest.root);
        let options = estrato::restore::Options::default();
        let outcome =
            estrato::restore::run(&reader, root, None, &target, &options, &estrato::monitor::Silent).unwrap();
        assert_eq!(outcome.failed, Vec::<String>::new());
        assert!(
            kept.iter().any(|(id, expected)| *id == snapshot.id.to_string() && tree(target.clone()) == *expected)
        );
    }
    assert_eq!(reader.index().packs().unwrap(), known, "it had to read the index anew");
    // A later prune that keeps them goes about its own, and the one after deletes what is due.
    day(&place, 6);
    kept.push(take(&place, &[]));
    let gone = kept.remove(0).0;
    place.run(&["forget", &gone]).expect_code(0);
    let done = prune(&place, &["--max-unused", "0%", "--keep-condemned", "1h"]);
    assert_eq!(done["planned"]["left"]["packs"], left, "{done}");
    let both = left + done["left_packs"].as_u64().unwrap();
    assert_whole(&place, &kept);
    let dry = prune(&place, &["--keep-condemned", "1h", "--dry-run"]);
    assert_eq!(dry["planned"]["left"]["packs"], both, "{dry}");
    let done = prune(&place, &["--keep-condemned", "0s"]);
    assert_eq!((&done["deleted_packs"], &done["left_packs"]), (&both.into(), &0.into()), "{done}");
    assert_whole(&place, &kept);
    assert_eq!(prune(&place, &[])["deleted_packs"], 0);
}

#[test]
fn what_was_left_counts_for_nobody_whoever_names_it() {
    let place = Place::with_repository();
    place.write("source/x", noise("x", 50_000));
    let (doomed, _) = take(&place, &[]);
    let (repo, old) = (open(&place, "key", "own cache"), packs(&place));
    repo.sync_index().unwrap();
    let object = repo.index().objects().unwrap()[0].name;
    let (_, entries) = repo.read_index(&object).unwrap();
    place.run(&["forget", &doomed, "--quiet"]).expect_code(0);
    assert!(prune(&place, &["--keep-condemned", "1d"])["left_packs"].as_u64() > Some(0));
    // Somebody that woke late names them again.
    repo.publish_index(&entries).unwrap();
    let next = take(&place, &[]);
    // And a sweep of that plan that slept deletes them.
    for name in old.keys() {
        fs::remove_file(place.path("repo/tenants/default/packs").join(name)).unwrap();
    }
    for target in ["back", "once more"] {
        place.run(&["restore", &next.0, "--target", target]).expect_code(0);
        assert!(tree(place.path(target)) == next.1);
        prune(&place, &[]);
    }
}

#[test]
fn a_plan_that_is_taken_up_leaves_all_that_it_condemned() {
    let (place, kept) = forgotten(4, 1);
    let mut backup = super::beside::waiting_backup(&place);
    let before = packs(&place);
    assert_eq!(prune(&place, &[])["waiting"].as_array().unwrap().len(), 1);
    backup.kill().unwrap();
    backup.wait().unwrap();
    for session in place.objects("sessions") {
        fs::remove_file(session).unwrap();
    }
    let done = prune(&place, &["--keep-condemned", "1h"]);
    assert!(done["planned"]["taken_up"].is_u64() && done["left_packs"].as_u64() > Some(0), "{done}");
    assert!(before.keys().all(|name| packs(&place).contains_key(name)));
    assert_whole(&place, &kept);
    assert!(prune(&place, &[])["deleted_packs"].as_u64() >= done["left_packs"].as_u64());
    assert_whole(&place, &kept);
}

#[test]
fn a_forget_prunes_what_it_let_go() {
    let place = Place::with_repository();
    let mut kept = Vec::new();
    for n in 0..5 {
        day(&place, n);
        kept.push(take(&place, &[]));
    }
    let kept = kept.split_off(3);
    let before = (tree(place.path("repo")), stored(&place));
    let forget = |more: &[&str]| {
        let all = [&["forget", "--keep-last", "2", "--prune", "--json"], more].concat();
        place.run(&all).expect_code(0).json()
    };
    let dry = forget(&["--dry-run"]);
    assert!(tree(place.path("repo")) == before.0);
    assert_eq!((&dry["prune"]["dry_run"], &dry["prune"]["planned"]["snapshots"]), (&true.into(), &2.into()));
    let said = place.run(&["forget", "--keep-last", "2", "--prune", "--dry-run"]).expect_code(0).stdout();
    assert!(said.contains("would forget 3 snapshots") && said.contains("become free"), "{said}");
    let done = forget(&[]);
    assert_eq!(done["prune"]["planned"], dry["prune"]["planned"]);
    assert!(done["prune"]["deleted_packs"].as_u64() > Some(0) && stored(&place) < before.1, "{done}");
    assert_whole(&place, &kept);
    // Nothing is forgotten, and so nothing is looked at; but a plan that another left is taken up.
    assert_eq!(forget(&[])["prune"], Value::Null);
    let mut backup = super::beside::waiting_backup(&place);
    place.run(&["forget", &kept[0].0, "--prune"]).expect_code(0);
    drop(backup.stdin.take());
    let ended = backup.wait_with_output().unwrap();
    assert!(ended.status.success());
    assert!(forget(&[])["prune"]["planned"]["taken_up"].is_u64());
    // A forget that is refused prunes nothing.
    let refused = place.run(&["forget", "--keep-tag", "none", "--prune"]);
    assert!(refused.code() == 2 && !refused.stdout().contains("packs"), "{}", refused.stdout());
}
