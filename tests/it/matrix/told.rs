//! What a check tells of a damaged object: the object once, with how much rests on it and where.

use super::damage::{Damage, Kind, apply};
use super::prepared::Prepared;
use crate::support::{Place, Ran, noise};
use serde_json::{Value, json};

/// Damages the prepared repository, and checks it: the report, and the damaged objects' names.
fn checked(p: &Prepared, kind: Kind, damage: Damage, arguments: &[&str]) -> (Value, Vec<String>) {
    apply(p, &p.place.path("repo"), kind, damage);
    let run = |more: &[&str]| p.place.run(&[&["--cache-dir", "cache", "check"], arguments, more].concat());
    let report = run(&["--json"]).expect_code(4).json();
    let text = run(&[]).expect_code(4).stdout();
    let damage = report["damage"].as_array().unwrap();
    let objects: Vec<String> = damage.iter().map(|d| d["object"].as_str().unwrap().to_owned()).collect();
    assert_eq!(report["damages"], objects.len());
    for damage in damage {
        let whole = Told { text: &text, damage };
        whole.stands_in_text();
    }
    (report, objects)
}

struct Told<'a> {
    text: &'a str,
    damage: &'a Value,
}

impl Told<'_> {
    /// The text says what the document says.
    fn stands_in_text(&self) {
        let object = self.damage["object"].as_str().unwrap();
        assert_eq!(self.text.matches(&format!("{object}: ")).count(), 1, "{}", self.text);
        for why in self.damage["why"].as_array().unwrap() {
            assert!(self.text.contains(why.as_str().unwrap()), "{why} in {}", self.text);
        }
        for (snapshot, needed) in self.damage["needed_by"].as_object().unwrap() {
            for path in needed["paths"].as_array().unwrap() {
                let line = format!("  needed by snapshot {}: {}\n", &snapshot[..8], path.as_str().unwrap());
                assert!(self.text.contains(&line), "{line} in {}", self.text);
            }
        }
    }
}

/// The paths that need an object, by the number of the snapshot.
fn paths(p: &Prepared, damage: &Value) -> Vec<Value> {
    p.snapshots.iter().map(|(id, _)| damage["needed_by"][id]["paths"].clone()).collect()
}

#[test]
fn a_damaged_pack_of_data_names_its_files_and_counts_once() {
    let p = Prepared::new();
    let (report, objects) = checked(&p, Kind::Data, Damage::Bit("first frame"), &["--read-data"]);
    assert_eq!(objects, [Kind::Data.name(&p)]);
    let damage = &report["damage"][0];
    assert_eq!(damage["why"].as_array().unwrap().len(), 2, "its hash, and its frame: {damage}");
    // Two threads may have put its two chunks into two frames.
    let count = |name: &str| damage[name].as_u64().unwrap();
    assert_eq!((count("frames") * count("lost_blobs"), count("bad_frames")), (2, 1), "{damage}");
    assert_eq!(count("entries"), 4 * count("lost_blobs"));
    let needed = paths(&p, damage);
    assert!(needed.iter().all(|paths| *paths == needed[0]), "each of the four snapshots: {damage}");
    assert_eq!(needed[0].as_array().unwrap().len() as u64, count("lost_blobs"));
}

#[test]
fn a_lost_pack_of_trees_names_the_folders_that_lack_entries() {
    let p = Prepared::new();
    let (report, objects) = checked(&p, Kind::Tree, Damage::Missing, &[]);
    assert_eq!(objects, [Kind::Tree.name(&p)]);
    let damage = &report["damage"][0];
    assert_eq!(damage["lost_blobs"], 2);
    let one = json!(["/one"]);
    assert_eq!(paths(&p, damage), [json!(["/"]), one.clone(), one.clone(), one]);
}

#[test]
fn a_lost_index_object_names_what_it_knew() {
    let p = Prepared::new();
    apply(&p, &p.place.path("repo"), Kind::Index, Damage::Missing);
    // A machine that has seen it says which; another cannot.
    for (cache, object) in [("cache", Kind::Index.name(&p)), ("fresh", "tenants/default/index".into())] {
        let ran = p.place.run(&["--cache-dir", cache, "check", "--json"]).expect_code(4);
        let report = ran.json();
        assert_eq!(report["damages"], 1, "{report}");
        let damage = &report["damage"][0];
        assert_eq!(damage["object"], object);
        assert_eq!(damage["lost_blobs"], 2, "two trees, below which nobody can look: {damage}");
        assert_eq!(paths(&p, damage)[3], json!(["/one"]));
        assert_eq!((&report["unindexed"], &report["unnamed_packs"]), (&json!(true), &json!(2)));
    }
    let text = p.place.run(&["--cache-dir", "fresh", "check"]).expect_code(4).stdout();
    assert!(text.contains("2 packs that no index object names: what the index lacks may lie there"), "{text}");
}

#[test]
fn a_changed_index_object_names_what_only_this_machine_still_knows() {
    let p = Prepared::new();
    let (report, objects) = checked(&p, Kind::Index, Damage::Bit("payload"), &[]);
    assert_eq!(objects, [Kind::Index.name(&p)]);
    let damage = &report["damage"][0];
    assert_eq!(damage["lost_blobs"], 4, "two chunks and two trees: {damage}");
    assert_eq!(paths(&p, damage)[3], json!(["/one/a", "/one/b", "/one"]));
}

#[test]
fn what_nothing_rests_on_is_named_alone() {
    for kind in [Kind::OldSigners, Kind::OtherSlot, Kind::Session, Kind::Snapshot] {
        let p = Prepared::new();
        let (report, objects) = checked(&p, kind, Damage::Truncated, &[]);
        assert_eq!(objects, [kind.name(&p)]);
        assert_eq!(report["damage"][0]["needed_by"], json!({}), "{report}");
    }
}

#[test]
fn paths_beyond_a_bound_are_counted() {
    let place = Place::with_repository();
    for n in 0..25 {
        place.write(format!("source/{n:02}"), noise(&format!("{n}"), 1000));
    }
    let id = place.snapshot(&[])["snapshot"].as_str().unwrap().to_owned();
    let size = |path: &std::path::PathBuf| std::fs::metadata(path).unwrap().len();
    std::fs::remove_file(place.objects("packs").iter().max_by_key(|p| size(p)).unwrap()).unwrap();
    let report = place.run(&["check", "--json"]).expect_code(4).json();
    let needed = &report["damage"][0]["needed_by"][&id];
    assert_eq!((needed["paths"].as_array().unwrap().len(), &needed["more"]), (10, &json!(15)));
    assert_eq!(report["damage"][0]["entries"], 25);
    let text = place.run(&["check"]).expect_code(4).stdout();
    assert!(text.contains("  25 blobs lost, needed by 25 files and folders in 1 snapshot\n"), "{text}");
    assert!(text.contains(&format!("  needed by snapshot {}: and 15 more\n", &id[..8])), "{text}");
}

#[test]
fn a_restore_counts_only_what_it_restored() {
    let p = Prepared::new();
    apply(&p, &p.place.path("repo"), Kind::Data, Damage::Missing);
    let ran: Ran = p.place.run(&["--cache-dir", "cache", "restore", "latest", "--target", "out"]).expect_code(1);
    // Three folders, and the two files that lie elsewhere.
    assert!(ran.stdout().starts_with("restored 6.0 kB in 5 entries "), "{}", ran.stdout());
    let lost = format!("error: out/one/a: {} is missing\n", Kind::Data.name(&p));
    assert!(ran.stderr().contains(&lost), "{}", ran.stderr());
    assert!(ran.stderr().ends_with("estrato: 2 entries were not restored\n"), "{}", ran.stderr());
}
