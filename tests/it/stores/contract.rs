//! Every kind of store is held to the same contract, and probed.

use super::double::{Dialect, Double};
use super::servers::Server;
use super::{brief, environment, open};
use estrato::store::probe::{Finding, probe};
use estrato::store::{Patience, Store, contract, open_with};

/// Real servers on a busy machine need more than the tests' own double.
fn usual() -> Patience {
    Patience::default()
}

#[track_caller]
fn keeps_it(store: &dyn Store) {
    contract::check(store);
    let found = probe(store).unwrap();
    for (name, finding) in found.rows() {
        assert_eq!(*finding, Finding::Holds, "{name}");
    }
    assert!(store.list("probe").unwrap().is_empty());
}

#[test]
fn s3_keeps_it_on_moto() {
    let Some(moto) = Server::moto(false) else { return };
    let at = |place: &str| open(&format!("s3://{place}?endpoint={}", moto.endpoint()), usual()).unwrap();
    keeps_it(&*at("bucket/a prefix/of two"));
    // The root of a bucket, in which others have something.
    let root = at("bucket");
    let names: Vec<_> = root.list("").unwrap().into_iter().map(|object| object.name).collect();
    assert!(names.iter().all(|name| name.starts_with("a prefix/of two/")), "{names:?}");
    assert_eq!(root.list("a prefix").unwrap().len(), names.len());
    assert!(root.list("a pre").unwrap().is_empty());
    // A bucket that is not there is an error, and never an empty store.
    let none = at("nobucket/a");
    assert!(none.list("").unwrap_err().why.contains("no such bucket"));
    assert!(none.read("repo.json", 9).unwrap_err().why.contains("no such bucket"));
    assert!(none.create("a", "b".into()).unwrap_err().why.contains("no such bucket"));
}

#[test]
fn s3_keys_of_a_profile_do() {
    let Some(moto) = Server::moto(false) else { return };
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".aws")).unwrap();
    let keys = "[work]\naws_access_key_id = AKIAWORK\naws_secret_access_key = work\n";
    std::fs::write(home.path().join(".aws/credentials"), keys).unwrap();
    let config = format!("[profile work]\nregion = eu-west-1\nendpoint_url = {}\n", moto.endpoint());
    std::fs::write(home.path().join(".aws/config"), config).unwrap();
    let environment = |name: &str| match name {
        "HOME" => home.path().to_str().map(str::to_owned),
        "AWS_PROFILE" => Some("work".to_owned()),
        _ => None,
    };
    let store = open_with("s3://bucket/p", &environment, usual()).unwrap();
    assert_eq!(store.describe(), format!("s3://bucket/p at {}", moto.endpoint()));
    store.create("a", "1".into()).unwrap();
    assert_eq!(&store.read("a", 1).unwrap()[..], b"1");
}

#[test]
fn a_server_that_ignores_the_condition_is_recognised() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("bucket")).unwrap();
    let Some(rclone) = Server::rclone(folder.path(), super::ID, super::SECRET) else { return };
    let store = open(&format!("s3://bucket/p?endpoint={}", rclone.endpoint()), usual()).unwrap();
    let found = probe(&*store).unwrap();
    assert!(!found.creates_if_absent(), "{found:?}");
    assert!(matches!(&found.creates_once, Finding::Fails(why) if why.contains("ignored")), "{found:?}");
    assert!(found.can_hold_a_repository(), "{found:?}");
    assert_eq!((&found.replaces, &found.deletes), (&Finding::Holds, &Finding::Holds));
    let wrong = |name: &str| if name == "AWS_SECRET_ACCESS_KEY" { Some("wrong".into()) } else { environment(name) };
    let location = format!("s3://bucket/p?endpoint={}", rclone.endpoint());
    let e = open_with(&location, &wrong, usual()).unwrap().read("a", 1).unwrap_err();
    assert_eq!(e.fault, estrato::error::StoreFault::Denied, "{e}");
    super::assert_tells_nothing(&e.to_string());
}

#[test]
fn azure_keeps_it_on_azurite() {
    let place = tempfile::tempdir().unwrap();
    let Some(azurite) = Server::azurite(place.path()) else { return };
    let at = |place: &str| {
        let endpoint = format!("{}/devstoreaccount1", azurite.endpoint());
        open(&format!("az://{place}?endpoint={endpoint}"), usual()).unwrap()
    };
    keeps_it(&*at("box/a prefix/of two"));
    assert!(at("nobox/a").list("").unwrap_err().why.contains("no such container"));
    let location = format!("az://box/a?endpoint={}/devstoreaccount1", azurite.endpoint());
    let wrong = |name: &str| match name {
        "AZURE_STORAGE_KEY" => Some("dG9wc2VjcmV0".to_owned()),
        name => environment(name),
    };
    let e = open_with(&location, &wrong, usual()).unwrap().read("a", 1).unwrap_err();
    assert_eq!(e.fault, estrato::error::StoreFault::Denied, "{e}");
    super::assert_tells_nothing(&e.to_string());
}

#[test]
fn google_keeps_it_on_its_double() {
    let google = Double::new(Dialect::Google);
    keeps_it(&*open(&format!("gs://bucket/a prefix/of two?endpoint={}", google.endpoint()), brief()).unwrap());
    let conditions =
        google.asked().iter().filter(|asked| asked.headers.contains_key("x-goog-if-generation-match")).count();
    assert!(conditions > 10, "{conditions}");
    let wrong = |name: &str| (name == "GOOGLE_OAUTH_ACCESS_TOKEN").then(|| "topsecret".to_owned());
    let location = format!("gs://bucket?endpoint={}", google.endpoint());
    let e = open_with(&location, &wrong, brief()).unwrap().list("").unwrap_err();
    assert_eq!(e.fault, estrato::error::StoreFault::Denied, "{e}");
    super::assert_tells_nothing(&e.to_string());
}

#[test]
fn s3_keeps_it_on_the_double() {
    let double = Double::new(Dialect::S3);
    keeps_it(&*open(&format!("s3://bucket/p?endpoint={}", double.endpoint()), brief()).unwrap());
}
