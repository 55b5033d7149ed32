//! Classes of storage: what is seldom read goes to the one that is asked for, and only that; where it must
//! be thawed before it is read, nothing but a restore of it waits for that.

use super::program::run;
use super::servers::Server;
use super::{environment, open};
use crate::support::{Place, Ran, noise};
use estrato::clock::SystemClock;
use estrato::crypto::keyfile::KeyFile;
use estrato::crypto::slot::Credential;
use estrato::format::pack::StorageClass;
use estrato::repo::{Access, Repository};
use estrato::store::{Patience, Store, open_with};
use std::collections::HashMap;
use std::sync::Arc;

/// The packs of the tenant `default` by their objects' names, and the class of what is in them.
fn packs(place: &Place, store: Arc<dyn Store>) -> HashMap<String, StorageClass> {
    let key = KeyFile::from_text(&std::fs::read_to_string(place.path("key")).unwrap()).unwrap();
    let (clock, credential) = (Arc::new(SystemClock::default()), Credential::KeyFile(key));
    let access = Access { store, clock, tenant: "default".into(), credential, cache: None };
    let repo = Repository::open(access).unwrap();
    assert!(repo.sync_index().unwrap().is_empty());
    let known = repo.index().packs().unwrap();
    let classed = known.iter().map(|pack| {
        let map = repo.index().pack(pack.number).unwrap().unwrap();
        (repo.names().pack(&pack.name), map.frames()[0].1.kind.class())
    });
    classed.collect()
}

/// A source of large and small files, and of so many that their trees fill more than a small pack.
fn fill(place: &Place) {
    place.write("source/large", noise("large", 20_000_000));
    for n in 0..3000 {
        let name: String = noise(&format!("name {n}"), 50).iter().map(|byte| format!("{byte:02x}")).collect();
        place.write(format!("source/many/{name}"), format!("{n}"));
    }
}

#[test]
fn data_packs_and_only_those_go_to_the_class_that_is_asked_for() {
    let Some(moto) = Server::moto(false) else { return };
    let place = Place::new();
    let location = format!("s3://bucket/p?endpoint={}&storage-class=STANDARD_IA", moto.endpoint());
    let run = |arguments: &[&str]| run(&place, &location, arguments).expect_code(0);
    run(&["init", "--new-key-file", "key"]);
    fill(&place);
    run(&["snapshot", "source"]);
    place.write("source/small", noise("small", 5000));
    run(&["snapshot", "source"]);
    let store = open(&location, Patience::default()).unwrap();
    let packs = packs(&place, Arc::clone(&store));
    let (mut cold, mut hot_trees, mut small) = (0, 0, 0);
    for object in store.list("").unwrap() {
        let head = moto.head("HEAD", &format!("/bucket/p/{}", object.name));
        assert!(head.contains("200"), "{}: {head}", object.name);
        let is_cold = head.contains("x-amz-storage-class: standard_ia");
        assert!(is_cold || !head.contains("x-amz-storage-class"), "{head}");
        let class = packs.get(&object.name);
        let is_large = object.size >= 128 * 1024;
        assert_eq!(is_cold, class == Some(&StorageClass::Data) && is_large, "{} {}", object.name, object.size);
        cold += usize::from(is_cold);
        hot_trees += usize::from(class == Some(&StorageClass::Trees) && is_large);
        small += usize::from(class == Some(&StorageClass::Data) && !is_large);
    }
    assert!(cold >= 2 && hot_trees >= 1 && small >= 1, "{cold} {hot_trees} {small}");
    run(&["check", "--read-data"]);
}

/// What was said on standard error, but for the same object's.
fn warnings(ran: &Ran) -> Vec<String> {
    ran.stderr().lines().map(str::to_owned).collect()
}

#[test]
fn what_is_frozen_is_needed_by_nothing_but_a_restore() {
    let Some(moto) = Server::moto(false) else { return };
    let place = Place::new();
    let usual = format!("s3://bucket/p?endpoint={}", moto.endpoint());
    let frozen = format!("{usual}&storage-class=DEEP_ARCHIVE");
    let at = |location: &str, arguments: &[&str]| run(&place, location, arguments);
    at(&frozen, &["init", "--new-key-file", "key"]).expect_code(0);
    let mut text: Vec<u8> =
        (0..200_000u32).flat_map(|n| format!("{n}: {}\n", n.wrapping_mul(2_654_435_761)).into_bytes()).collect();
    place.write("source/table", &text);
    at(&frozen, &["snapshot", "source"]).expect_code(0);
    // A delta would rest on what is there; with `always`, whatever that costs.
    text[1_000_000..1_000_100].fill(b'x');
    place.write("source/table", &text);
    let ran = at(&frozen, &["snapshot", "source", "--delta", "always"]).expect_code(0);
    assert_eq!(warnings(&ran), Vec::<String>::new());
    // Who does not know that it is frozen is told once, and waits for nothing.
    text[2_000_000..2_000_100].fill(b'y');
    place.write("source/table", &text);
    let ran = at(&usual, &["snapshot", "source", "--delta", "always"]).expect_code(0);
    assert!(ran.stderr().contains("it is frozen") && ran.stderr().contains("stored whole"), "{}", ran.stderr());
    at(&frozen, &["ls", "latest:source"]).expect_code(0);
    at(&frozen, &["--cache-dir", "new", "ls", "-R"]).expect_code(0);
    at(&frozen, &["check"]).expect_code(0);
    let checked = at(&frozen, &["check", "--read-data"]).expect_code(0);
    let said = checked.stdout();
    assert!(said.contains("no damage") && said.contains("that must be thawed first"), "{said}");
    let json = at(&frozen, &["check", "--read-data", "--json"]).expect_code(0).json();
    let named = json["frozen"].as_array().unwrap();
    assert!(!named.is_empty() && json["frozen_packs"] == named.len() && json["damages"] == 0, "{json}");
    assert!(named.iter().all(|name| said.contains(name.as_str().unwrap())), "{said}");
    let restored = at(&frozen, &["restore", "latest~2", "--target", "out"]).expect_code(1);
    assert!(restored.stderr().contains("it is frozen (it answered 403 InvalidObjectState)"), "{}", restored.stderr());
    assert!(restored.stderr().contains("--warm-up-command"), "{}", restored.stderr());
}

/// Thaws what is named on its standard input, as a user's script would.
const THAW: &str = r#"
import os, sys, urllib.parse, urllib.request
endpoint = urllib.parse.parse_qs(os.environ["ESTRATO_REPO"].split("?")[1])["endpoint"][0]
body = b"<RestoreRequest><Days>1</Days></RestoreRequest>"
# What moto takes for a signature.
anybody = {"Authorization": "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/aws4_request", "Content-Type": "text/xml"}
for name in sys.stdin.read().split():
    url = f"{endpoint}/bucket/p/{name}?restore"
    urllib.request.urlopen(urllib.request.Request(url, method="POST", data=body, headers=anybody))
"#;

#[test]
fn what_was_thawed_by_name_is_all_that_a_restore_needs() {
    let Some(moto) = Server::moto(false) else { return };
    let place = Place::new();
    let location = format!("s3://bucket/p?endpoint={}&storage-class=GLACIER", moto.endpoint());
    let run = |arguments: &[&str]| run(&place, &location, arguments);
    run(&["init", "--new-key-file", "key"]).expect_code(0);
    for n in 0..3 {
        place.write("source/file", noise(&format!("file {n}"), 5_000_000));
        place.write(format!("source/more/{n}"), noise(&format!("more {n}"), 200_000));
        run(&["snapshot", "source"]).expect_code(0);
    }
    place.write("thaw.py", THAW);
    let python = super::servers::python().unwrap().display().to_string();
    let thaw = format!("'{python}' thaw.py");
    let arguments =
        ["restore", "latest~1:source/file", "--target", "out", "--warm-up-command", &thaw, "--warm-up-wait", "0s"];
    run(&arguments).expect_code(0);
    assert_eq!(std::fs::read(place.path("out/file")).unwrap(), noise("file 1", 5_000_000));
    // What was not named is frozen still.
    let checked = run(&["check", "--read-data", "--json"]).expect_code(0).json();
    assert_eq!((checked["damages"].as_u64(), checked["frozen_packs"].as_u64()), (Some(0), Some(2)), "{checked}");
    run(&["restore", "latest", "--target", "newest"]).expect_code(1);
}

#[test]
fn azure_says_what_is_frozen_in_words_of_its_own() {
    let place = tempfile::tempdir().unwrap();
    let Some(azurite) = Server::azurite(place.path()) else { return };
    let location = format!("az://box/cold?endpoint={}/devstoreaccount1&storage-class=Archive", azurite.endpoint());
    let store = open_with(&location, &environment, Patience::default()).unwrap();
    let data = noise("azure", 200_000);
    store.create("hot", data.clone().into()).unwrap();
    store.create_cold("cold", data.clone().into()).unwrap();
    assert_eq!(store.read("hot", 200_000).unwrap(), data);
    let e = store.read("cold", 200_000).unwrap_err();
    assert_eq!(e.fault, estrato::error::StoreFault::Frozen, "{e}");
    super::assert_tells_nothing(&e.to_string());
    assert_eq!(store.read_range("cold", 5, 5).unwrap_err().fault, estrato::error::StoreFault::Frozen);
    assert_eq!(store.size("cold").unwrap(), 200_000);
    let again = store.create_cold("cold", data.into()).unwrap_err();
    assert_eq!(again.fault, estrato::error::StoreFault::Exists, "{again}");
}
