//! What `store policy` prints, enforced: a proxy before an S3 server evaluates the document itself, so that
//! roles do their work with it, and stolen credentials of a writer destroy nothing that restores. What a
//! store says of versioning and object lock.

use super::double::{Dialect, Double, Fate};
use super::enforced::{Proxy, request};
use super::servers::Server;
use super::{ID, SECRET, assert_tells_nothing, brief, open};
use crate::support::{Place, Ran, noise};
use bytes::Bytes;
use estrato::store::{Protection, Store};
use std::collections::BTreeMap;
use std::sync::Arc;

const PREFIX: &str = "backups/of us";

/// A repository on S3 that was made with all permissions, and its roles.
struct World {
    place: Place,
    server: Server,
}

impl World {
    fn new() -> Option<Self> {
        let world = Self { place: Place::new(), server: Server::moto(false)? };
        world.owner("key", &["init", "--new-key-file", "key"]).expect_code(0);
        world.owner("key", &["key", "add", "--role", "writer", "--new-key-file", "writer"]).expect_code(0);
        Some(world)
    }

    fn run(&self, endpoint: &str, key: &str, arguments: &[&str]) -> Ran {
        let location = format!("s3://bucket/{PREFIX}?endpoint={endpoint}");
        let mut command = self.place.command(arguments);
        command.env("ESTRATO_REPO", location).env("AWS_ACCESS_KEY_ID", ID).env("AWS_SECRET_ACCESS_KEY", SECRET);
        // Each role has a machine of its own.
        command.env("ESTRATO_KEY_FILE", key).env("XDG_CACHE_HOME", self.place.path(format!("cache of {key}")));
        Ran::of(&mut command)
    }

    /// With all permissions.
    fn owner(&self, key: &str, arguments: &[&str]) -> Ran {
        self.run(&self.server.endpoint(), key, arguments)
    }

    /// Through the policy of a role.
    fn proxy(&self, role: &str) -> Proxy {
        let printed = self.owner("none", &["store", "policy", "--role", role]).expect_code(0);
        Proxy::new(self.server.port(), &printed.json())
    }

    fn source(&self, seed: &str, sizes: &[usize]) {
        for (n, size) in sizes.iter().enumerate() {
            self.place.write(format!("source/{n}"), noise(&format!("{seed} {n}"), *size));
        }
    }

    /// Every object below the bucket's root.
    fn objects(&self) -> BTreeMap<String, Bytes> {
        let store = open(&format!("s3://bucket?endpoint={}", self.server.endpoint()), brief()).unwrap();
        let listed = store.list("").unwrap().into_iter();
        listed.map(|object| (object.name.clone(), store.read(&object.name, 1 << 30).unwrap())).collect()
    }

    /// Restores every snapshot to a folder of its own, and compares with what it was taken of.
    fn restores(&self, expected: &[Vec<(String, Vec<u8>)>]) {
        let all = self.owner("key", &["snapshots", "--json"]).expect_code(0).json();
        assert_eq!(all.as_array().unwrap().len(), expected.len());
        for (n, files) in expected.iter().enumerate() {
            let target = format!("restored {n} {}", jiff::Timestamp::now().as_nanosecond());
            let which = format!("latest~{}", expected.len() - 1 - n);
            self.owner("key", &["restore", &which, "--target", &target]).expect_code(0);
            for (name, bytes) in files {
                assert!(std::fs::read(self.place.path(format!("{target}/source/{name}"))).unwrap() == *bytes);
            }
        }
        self.owner("key", &["check", "--read-data"]).expect_code(0);
    }

    fn sources(&self) -> Vec<(String, Vec<u8>)> {
        let read = |path: std::path::PathBuf| {
            (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(path).unwrap())
        };
        crate::support::files_below(&self.place.path("source")).into_iter().map(read).collect()
    }
}

#[test]
fn a_stolen_writers_credentials_destroy_nothing_that_restores() {
    let Some(world) = World::new() else { return };
    let proxy = world.proxy("writer");
    let mut expected = Vec::new();
    world.source("first", &[100, 70_000, 3_000_000]);
    world.run(&proxy.endpoint(), "writer", &["snapshot", "source"]).expect_code(0);
    expected.push(world.sources());
    world.source("second", &[100, 80_000]);
    let second = world.run(&proxy.endpoint(), "writer", &["snapshot", "source", "-v"]).expect_code(0);
    assert_eq!(second.stderr(), "", "it sees what it took");
    expected.push(world.sources());
    assert_eq!(proxy.refused(), Vec::<String>::new(), "a writer asks for no more than it is granted");
    world.restores(&expected);

    let before = world.objects();
    assert!(before.keys().any(|name| name.contains("/packs/")) && before.len() >= 8, "{:?}", before.keys());
    let mut tried = 0;
    let mut attempt = |method: &str, target: &str, headers: &[&str], body: &str| {
        tried += 1;
        let status = request(proxy.port(), method, target, headers, body.as_bytes());
        assert!([403, 404, 412, 501].contains(&status), "{method} {target} {headers:?}: {status}");
    };
    let new = "If-None-Match: *";
    // It may read this one.
    let source = "x-amz-copy-source: /bucket/backups/of%20us/repo.json".to_owned();
    for name in before.keys() {
        let target = format!("/bucket/{}", name.replace(' ', "%20"));
        attempt("DELETE", &target, &[], "");
        attempt("DELETE", &format!("{target}?versionId=null"), &[], "");
        attempt("PUT", &target, &[], "garbage");
        attempt("PUT", &target, &[new], "garbage");
        attempt("PUT", &target, &["If-None-Match: \"another\""], "garbage");
        attempt("PUT", &target, &["If-Match: *"], "garbage");
        attempt("PUT", &target, &[&source], "");
        attempt("PUT", &target, &[new, &source], "");
        attempt("POST", &format!("{target}?uploads"), &[], "");
        attempt("PUT", &format!("{target}?partNumber=1&uploadId=x"), &[], "garbage");
        attempt("POST", &format!("{target}?uploadId=x"), &[], "<CompleteMultipartUpload/>");
        attempt("PUT", &format!("{target}?acl"), &["x-amz-acl: public-read"], "");
        attempt("PUT", &format!("{target}?tagging"), &[], "<Tagging/>");
        attempt("PUT", &format!("{target}?retention"), &[], "<Retention/>");
        let several = format!("<Delete><Object><Key>{name}</Key></Object></Delete>");
        attempt("POST", "/bucket?delete", &[], &several);
    }
    for query in ["", "?lifecycle", "?versioning", "?policy", "?acl"] {
        attempt("DELETE", &format!("/bucket{query}"), &[], "");
        attempt("PUT", &format!("/bucket{query}"), &[], "<X/>");
    }
    // Nor what an honest key would then believe: keys, plans and another tenant.
    let (hold, record) = (format!("holds/{}", "0".repeat(32)), format!("forgotten/{}", "0".repeat(32)));
    for name in ["keys/signers.00000099", "prune/00000001", "tenant", &hold, &record] {
        for tenant in ["default", "other"] {
            attempt("PUT", &format!("/bucket/backups/of%20us/tenants/{tenant}/{name}"), &[new], "garbage");
        }
    }
    // What it may not read, and whom it may not see.
    let pack = before.keys().find(|name| name.contains("/packs/")).unwrap().replace(' ', "%20");
    attempt("GET", &format!("/bucket/{pack}"), &[], "");
    for prefix in ["", "?list-type=2", "?list-type=2&prefix=backups/of%20us/tenants/", "?versions", "?uploads"] {
        attempt("GET", &format!("/bucket{prefix}"), &[], "");
    }
    attempt("GET", "/bucket?list-type=2&prefix=backups/of%20us/tenants/default/sessions/", &[], "");
    assert!(tried > before.len() * 14);
    assert!(world.objects() == before, "an object changed");
    world.restores(&expected);

    // What it may do: litter of every kind, which hides nothing and stops nobody.
    for name in ["packs/ab/x", "index/x", "snapshots/x", "sessions/x"] {
        let name = name.replace("/x", &format!("/{}", "0".repeat(if name.starts_with('i') { 64 } else { 32 })));
        let target = format!("/bucket/backups/of%20us/tenants/default/{name}");
        assert_eq!(request(proxy.port(), "PUT", &target, &[new], b"litter"), 200, "{target}");
        let again = request(proxy.port(), "PUT", &target, &[], b"more");
        assert_eq!(again, if name.starts_with("sessions/") { 200 } else { 403 }, "{target}");
    }
    // Without the proxy the server would have let it happen.
    let target = "/bucket/backups/of%20us/tenants/default/packs/ab/".to_owned() + &"0".repeat(32);
    assert_eq!(request(world.server.port(), "PUT", &target, &[], b"more"), 200);
    assert_eq!(request(world.server.port(), "DELETE", &target, &[], b""), 204);
    let after = world.objects();
    assert!(before.iter().all(|(name, bytes)| after.get(name) == Some(bytes)));
    for (n, files) in expected.iter().enumerate() {
        let which = format!("latest~{}", expected.len() - 1 - n);
        let target = format!("at last {n}");
        world.owner("key", &["restore", &which, "--target", &target]).expect_code(0);
        for (name, bytes) in files {
            assert!(std::fs::read(world.place.path(format!("{target}/source/{name}"))).unwrap() == *bytes);
        }
    }
}

#[test]
fn a_pack_whose_answer_was_lost_is_known_without_being_read() {
    let Some(world) = World::new() else { return };
    let proxy = world.proxy("writer");
    for folder in ["/packs/", "/index/", "/snapshots/", "/sessions/"] {
        world.source(folder, &[50_000, 2_000_000]);
        proxy.lose_answer_of_put(folder);
        world.run(&proxy.endpoint(), "writer", &["snapshot", "source"]).expect_code(0);
        assert!(proxy.has_lost(), "{folder}");
        let refused = proxy.refused();
        assert!(refused.iter().all(|line| line.starts_with("GET") && line.contains("/packs/")), "{refused:?}");
    }
    world.owner("key", &["check", "--read-data"]).expect_code(0);
    // One that was denied is not taken for one that was lost.
    let reader = world.proxy("reader");
    let denied = world.run(&reader.endpoint(), "key", &["snapshot", "source"]).expect_code(1);
    assert!(denied.stderr().contains("access denied"), "{}", denied.stderr());
}

#[test]
fn a_writer_whose_last_snapshot_is_gone_reads_everything_again() {
    let Some(world) = World::new() else { return };
    let proxy = world.proxy("writer");
    world.source("first", &[1000, 70_000]);
    world.run(&proxy.endpoint(), "writer", &["snapshot", "source"]).expect_code(0);
    let gone = world.objects().into_keys().find(|name| name.contains("/snapshots/")).unwrap();
    let target = format!("/bucket/{}", gone.replace(' ', "%20"));
    assert_eq!(request(world.server.port(), "DELETE", &target, &[], b""), 204);
    let second = world.run(&proxy.endpoint(), "writer", &["snapshot", "source"]).expect_code(0);
    assert!(second.stderr().contains("is missing; everything is read again"), "{}", second.stderr());
    world.owner("key", &["restore", "latest", "--target", "restored"]).expect_code(0);
    for (name, bytes) in world.sources() {
        assert!(std::fs::read(world.place.path(format!("restored/source/{name}"))).unwrap() == bytes);
    }
}

#[test]
fn readers_and_full_keys_need_no_more_than_is_printed() {
    let Some(world) = World::new() else { return };
    let full = world.proxy("full");
    let run = |proxy: &Proxy, arguments: &[&str]| world.run(&proxy.endpoint(), "key", arguments).expect_code(0);
    world.source("first", &[100, 70_000, 2_000_000]);
    run(&full, &["snapshot", "source"]);
    world.source("second", &[100, 80_000]);
    run(&full, &["snapshot", "source"]);
    let ids = run(&full, &["snapshots", "--json"]).json();
    let held = ids[1]["id"].as_str().unwrap();
    run(&full, &["hold", "add", "latest"]);
    run(&full, &["hold", "remove", held]);
    run(&full, &["hold", "add", "latest"]);
    // What has not changed adds no pack: what is lost below is one that the others need.
    run(&full, &["snapshot", "source"]);
    run(&full, &["forget", "latest"]);
    run(&full, &["key", "add", "--new-key-file", "another", "--label", "another"]);
    run(&full, &["key", "list"]);
    run(&full, &["key", "remove", "another"]);
    run(&full, &["stats"]);
    let reader = world.proxy("reader");
    for proxy in [&full, &reader] {
        run(proxy, &["snapshots"]);
        run(proxy, &["hold", "list"]);
        run(proxy, &["ls", "latest"]);
        run(proxy, &["check", "--read-data"]);
        let target = format!("restored by {}", proxy.port());
        run(proxy, &["restore", "latest", "--target", &target]);
        for (name, bytes) in world.sources() {
            assert!(std::fs::read(world.place.path(format!("{target}/source/{name}"))).unwrap() == bytes);
        }
        assert_eq!(proxy.refused(), Vec::<String>::new(), "no more is asked for than is granted");
    }
    // Which key opens nothing, and which pack is lost, they are told as everybody is.
    world.owner("key", &["key", "show", "--new-key-file", "stranger"]).expect_code(0);
    world.run(&reader.endpoint(), "stranger", &["snapshots"]).expect_code(12);
    let before = world.objects();
    for name in before.keys() {
        let target = format!("/bucket/{}", name.replace(' ', "%20"));
        for (method, headers) in [("DELETE", &[][..]), ("PUT", &[]), ("PUT", &["If-None-Match: *"])] {
            assert!(
                [403, 412].contains(&request(reader.port(), method, &target, headers, b"x")),
                "{method} {target}"
            );
        }
        // No role replaces an index object, nor the records at the ground.
        let may = ["keys", "packs", "snapshots", "sessions", "prune"];
        if !may.iter().any(|folder| target.contains(&format!("/{folder}/"))) {
            assert_eq!(request(full.port(), "PUT", &target, &[], b"x"), 403, "{target}");
        }
    }
    assert!(world.objects() == before, "an object changed");
    // The largest holds data that every snapshot needs; of others only some may.
    let packs = before.iter().filter(|(name, _)| name.contains("/packs/"));
    let (pack, _) = packs.max_by_key(|(_, bytes)| bytes.len()).unwrap();
    let gone = request(world.server.port(), "DELETE", &format!("/bucket/{}", pack.replace(' ', "%20")), &[], b"");
    assert_eq!(gone, 204);
    let checked = world.run(&reader.endpoint(), "key", &["check", "--read-data"]).expect_code(4);
    assert!(checked.stdout().contains(pack.rsplit('/').next().unwrap()), "{}", checked.stdout());
    // Copies on this machine might make up for it.
    let restore = ["--no-cache", "restore", "latest", "--target", "partial"];
    let partial = world.run(&reader.endpoint(), "key", &restore).expect_code(1);
    assert!(partial.stderr().contains("is missing"), "{}", partial.stderr());
}

fn said(double: &Double, location: &str, answers: Vec<(&'static str, Fate)>) -> Protection {
    let location =
        format!("{location}{}endpoint={}", if location.contains('?') { '&' } else { '?' }, double.endpoint());
    let store: Arc<dyn Store> = open(&location, brief()).unwrap();
    double.decide(move |asked| {
        let asks = |word: &str| asked.target.contains(word);
        answers
            .iter()
            .find(|(word, _)| asks(word))
            .map_or(Fate::Refuse(404, "", String::new()), |(_, fate)| fate.clone())
    });
    let found = store.protection();
    for asked in double.asked() {
        assert_eq!(asked.method, "GET", "nothing is changed");
        assert!(asked.headers.contains_key("authorization"));
    }
    if let Protection::Stands(text) | Protection::Unknown(text) = &found {
        assert_tells_nothing(text);
    }
    found
}

#[test]
fn what_s3_says_of_versioning_and_object_lock() {
    let double = Double::new(Dialect::S3);
    let text = |text: &str| Fate::Refuse(200, "", text.to_owned());
    let status =
        |status: &str| text(&format!("<VersioningConfiguration xmlns=\"x\">{status}</VersioningConfiguration>"));
    let (on, off) = (status("<Status>Enabled</Status>"), status("<Status>Suspended</Status>"));
    let locked =
        text("<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>");
    let denied = Fate::Refuse(403, "", "<Error><Code>AccessDenied</Code></Error>".into());
    let ask = |versioning: &Fate, lock: Option<&Fate>| {
        let mut answers = vec![("?versioning", versioning.clone())];
        answers.extend(lock.map(|lock| ("?object-lock", lock.clone())));
        said(&double, "s3://bucket/p", answers)
    };
    assert_eq!(ask(&on, None), Protection::Stands("versioning".into()));
    assert_eq!(ask(&on, Some(&locked)), Protection::Stands("versioning, object lock".into()));
    assert_eq!(ask(&denied, Some(&locked)), Protection::Stands("object lock".into()));
    for off in [&off, &status("")] {
        assert_eq!(ask(off, None), Protection::Missing);
        assert_eq!(ask(off, Some(&denied)), Protection::Missing);
    }
    let busy = Fate::Refuse(503, "", String::new());
    let unknown = |found: Protection, words: &str| match found {
        Protection::Unknown(why) => assert!(why.contains(words), "{why}"),
        found => panic!("{found:?}"),
    };
    unknown(ask(&denied, None), "access denied");
    unknown(ask(&denied, Some(&denied)), "access denied");
    unknown(ask(&text("<ListBucketResult></ListBucketResult>"), None), "does not say");
    unknown(ask(&busy, Some(&busy)), "503");
    assert!(double.asked().len() <= 6, "asked {} times", double.asked().len());
    let nobody = open("s3://bucket/p?endpoint=http://127.0.0.1:1", brief()).unwrap();
    unknown(nobody.protection(), "cannot be reached");
}

#[test]
fn what_google_and_azure_say() {
    let google = Double::new(Dialect::Google);
    let path = "/storage/v1/b/bucket?fields=versioning";
    let text = |text: &str| Fate::Refuse(200, "", text.to_owned());
    let ask = |fate: Fate| said(&google, "gs://bucket/p", vec![(path, fate)]);
    assert_eq!(ask(text("{\"versioning\":{\"enabled\":true}}")), Protection::Stands("versioning".into()));
    assert_eq!(ask(text("{}")), Protection::Missing);
    assert!(matches!(ask(Fate::Refuse(403, "", String::new())), Protection::Unknown(_)));
    assert!(matches!(said(&google, "gs://bucket/p", vec![]), Protection::Unknown(_)));
    let azure = Double::new(Dialect::Google);
    let ask = |answers| said(&azure, "az://box/p?account=me", answers);
    let soft = "<DeleteRetentionPolicy><Enabled>true</Enabled><Days>9</Days></DeleteRetentionPolicy>";
    let immutable = Fate::Refuse(200, "x-ms-has-immutability-policy: true\r\n", String::new());
    let found = ask(vec![("restype=service", text(soft)), ("/box?restype=container", text(""))]);
    assert_eq!(found, Protection::Stands("soft delete (9 days)".into()));
    let found = ask(vec![("restype=service", text("<X/>")), ("/box?restype=container", immutable)]);
    assert_eq!(found, Protection::Stands("immutability".into()));
    // Versions it does not tell of.
    let found = ask(vec![("restype=service", text("<X/>")), ("/box?restype=container", text(""))]);
    assert!(matches!(found, Protection::Unknown(why) if why.contains("manages the account")));
}

#[test]
fn azurite_answers_what_it_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let Some(azurite) = Server::azurite(folder.path()) else { return };
    let location = format!("az://box/p?account=devstoreaccount1&endpoint={}/devstoreaccount1", azurite.endpoint());
    let found = open(&location, brief()).unwrap().protection();
    assert!(matches!(&found, Protection::Unknown(why) if why.contains("manages the account")), "{found:?}");
}

#[test]
fn init_warns_where_nothing_brings_back_what_is_deleted() {
    let Some(moto) = Server::moto(false) else { return };
    let place = Place::new();
    assert_eq!(request(moto.port(), "PUT", "/locked", &["x-amz-bucket-object-lock-enabled: true"], b""), 200);
    assert_eq!(request(moto.port(), "PUT", "/versioned", &[], b""), 200);
    let on = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
    assert_eq!(request(moto.port(), "PUT", "/versioned?versioning", &[], on), 200);
    let run = |bucket: &str, arguments: &[&str]| {
        let mut command = place.command(arguments);
        command.env("ESTRATO_REPO", format!("s3://{bucket}?endpoint={}", moto.endpoint()));
        command.env("AWS_ACCESS_KEY_ID", ID).env("AWS_SECRET_ACCESS_KEY", SECRET);
        Ran::of(&mut command).expect_code(0)
    };
    for (bucket, stands, detail) in [
        ("bucket", "no", "what is deleted or overwritten is gone"),
        ("versioned", "yes", "versioning"),
        ("locked", "yes", "versioning, object lock"),
    ] {
        let tested = run(bucket, &["store", "test"]).stdout();
        let line = tested.lines().find(|line| line.starts_with("versioning or object lock")).unwrap();
        let words: Vec<&str> = line.trim_start_matches("versioning or object lock").trim().splitn(2, ' ').collect();
        assert_eq!((words[0], words[1].trim()), (stands, detail));
        let json = run(bucket, &["store", "test", "--json"]).json();
        assert_eq!(json["protection"]["stands"], stands == "yes");
        let made = run(bucket, &["init", "--new-key-file", &format!("key of {bucket}")]);
        let warned = made.stderr().contains("turn on versioning or object lock, and see 'estrato store policy'");
        assert_eq!((warned, made.stderr().lines().count()), (stands == "no", usize::from(stands == "no")));
    }
    let tested = place.run(&["store", "test", "--json", "folder"]).expect_code(0).json();
    assert!(tested["protection"]["stands"].is_null() && tested["suitable"] == true);
}
