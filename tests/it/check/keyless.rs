//! What can be told without a key: rot, names that do not follow from bytes, and what lies there that should
//! not. The kinds of damage are in `matrix`.

use crate::support::{Place, Ran, change, noise};
use std::fs;

/// Runs the program where it can have no key.
fn run(place: &Place, arguments: &[&str]) -> Ran {
    Ran::of(place.command(&[&["check", "--store-only"], arguments].concat()).env_remove("ESTRATO_KEY_FILE"))
}

/// A repository of two tenants.
fn grown() -> Place {
    let place = Place::with_repository();
    place.write("source/a", noise("a", 3_000));
    place.snapshot(&[]);
    place.run(&["tenant", "add", "other"]).expect_code(0);
    place.snapshot(&["-t", "other"]);
    place
}

#[test]
fn all_tenants_are_looked_at_and_no_key_is_asked_for() {
    let place = grown();
    let report = run(&place, &["--json"]).expect_code(0).json();
    assert_eq!((&report["packs"], &report["read_packs"], &report["snapshots"]), (&4.into(), &4.into(), &2.into()));
    assert_eq!((&report["stray_objects"], &report["read_bytes"]), (&0.into(), &report["pack_bytes"]));
    let told = run(&place, &[]).expect_code(0).stdout();
    assert!(told.contains("4 packs of 4 hashed") && told.contains("not checked: what only a key can tell"), "{told}");
    change(&place.path("repo/tenants/other/tenant"), |bytes| bytes[20] ^= 1);
    let told = run(&place, &[]).expect_code(4).stdout();
    assert!(told.contains("tenants/other/tenant: its closing hash does not match"), "{told}");
}

#[test]
fn a_part_of_the_packs_is_chosen_by_name() {
    let place = grown();
    let part = |n: u64| run(&place, &[&format!("--read-data={n}/3"), "--json"]).expect_code(0).json();
    let read: Vec<u64> = (1..=3).map(|n| part(n)["read_packs"].as_u64().unwrap()).collect();
    assert_eq!(read.iter().sum::<u64>(), 4, "{read:?}");
    let told = run(&place, &["--read-data=5%"]).expect_code(2).stderr();
    assert!(told.contains("without a key nothing is remembered"), "{told}");
    run(&place, &["--read-data", "--older-than", "1d"]).expect_code(2);
}

#[test]
fn what_lies_there_and_should_not_is_named_and_no_damage() {
    let place = grown();
    let litter = [
        "repo/tenants/default/packs/00/notes",
        "repo/tenants/default/index/litter",
        "repo/tenants/default/prune/7",
        "repo/tenants/Default/tenant",
        "repo/tenants/letter",
    ];
    let pack = place.objects("packs").remove(0);
    litter.iter().for_each(|name| drop(place.write(name, "x")));
    // A pack that has gone astray is in another's folder.
    let name = pack.file_name().unwrap().to_str().unwrap();
    let folder = if name.starts_with("00") { "01" } else { "00" };
    place.write(format!("repo/tenants/default/packs/{folder}/{name}"), fs::read(&pack).unwrap());
    let report = run(&place, &["--json"]).expect_code(0).json();
    assert_eq!(report["stray_objects"], 6, "{report}");
    let told = run(&place, &[]).expect_code(0).stdout();
    assert!(told.contains("6 objects (") && told.contains("that belong to no repository"), "{told}");
    for name in litter {
        assert!(told.contains(&format!("  {}\n", &name[5..])), "{name} in {told}");
    }
    // With a key it is not taken for the pack, should that be lost.
    fs::remove_file(&pack).unwrap();
    let told = place.run(&["check"]).expect_code(4).stdout();
    assert!(told.contains(&format!("{name}: it is missing")), "{told}");
}

#[test]
fn what_a_tenant_cannot_do_without_is_missed_by_name() {
    let place = grown();
    fs::remove_file(place.path("repo/tenants/other/tenant")).unwrap();
    fs::remove_file(place.path("repo/tenants/default/keys/signers.00000001")).unwrap();
    let report = run(&place, &["--json"]).expect_code(4).json();
    let missing: Vec<&str> =
        report["damage"].as_array().unwrap().iter().map(|damage| damage["object"].as_str().unwrap()).collect();
    assert_eq!(missing, ["tenants/default/keys/signers.00000001", "tenants/other/tenant"]);
    let empty = Place::new();
    run(&empty, &[]).expect_code(10);
}
