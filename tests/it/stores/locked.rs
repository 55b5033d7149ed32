//! Objects that a store keeps locked: a prune tells them as retained, ends all the same, and deletes them
//! once their locks have ended.

use super::double::Fate;
use super::enforced::request;
use super::far::Far;
use super::servers::Server;
use super::{ID, SECRET, brief, open};
use crate::support::{Place, Ran, noise};
use bytes::Bytes;
use estrato::error::StoreFault;
use serde_json::Value;

/// Two snapshots that have nothing in common, of which the first is forgotten.
fn forgotten(place: &Place, run: impl Fn(&[&str]) -> Ran) {
    for n in 0..2 {
        place.write("source/a", noise(&format!("a {n}"), 300_000));
        run(&["snapshot", "source"]);
    }
    run(&["forget", "--keep-last", "1"]);
}

#[test]
fn what_is_locked_is_retained_until_its_lock_ends() {
    let far = Far::new();
    let run = |arguments: &[&str]| far.run(arguments).expect_code(0);
    forgotten(&far.place, run);
    let before = far.objects("packs");
    far.double.decide(|asked| match asked.method.as_str() {
        "DELETE" if asked.name.contains("/packs/") => Fate::Refuse(
            403,
            "",
            "<Error><Code>AccessDenied</Code><Message>Access Denied because object protected by object lock.\
             </Message></Error>"
                .into(),
        ),
        "HEAD" => Fate::Refuse(200, "x-amz-object-lock-retain-until-date: 2031-02-03T04:05:06Z\r\n", String::new()),
        _ => Fate::Done,
    });
    let done = run(&["prune", "--json"]).json();
    let retained = done["retained"].as_array().unwrap();
    assert!(!retained.is_empty() && done["deleted_packs"] == 0, "{done}");
    for object in retained {
        assert_eq!(object["until"], "2031-02-03T04:05:06Z");
        let name = object["object"].as_str().unwrap().rsplit('/').next().unwrap();
        let (_, bytes) = before.iter().find(|(held, _)| held.ends_with(name)).unwrap();
        assert_eq!(object["bytes"], bytes.len());
    }
    assert!(before.keys().all(|name| far.objects("packs").contains_key(name)));
    // The plan is done: who backs up heeds none. The next prune tries again, and says so in words.
    let said = run(&["prune"]).stdout();
    assert!(said.contains("retained: the store keeps them locked, until 2031-02-03"), "{said}");
    run(&["check", "--read-data"]);
    run(&["restore", "latest", "--target", "restored"]);
    far.double.decide(|_| Fate::Done);
    let done = run(&["prune", "--json"]).json();
    assert_eq!((&done["retained"], &done["deleted_packs"]), (&Value::Array(Vec::new()), &retained.len().into()));
    run(&["check", "--read-data"]);
}

#[test]
fn who_may_not_delete_is_told_and_the_plan_waits_for_who_may() {
    let far = Far::new();
    let run = |arguments: &[&str]| far.run(arguments).expect_code(0);
    forgotten(&far.place, run);
    far.double.decide(|asked| match asked.method.as_str() {
        "DELETE" if asked.name.contains("/packs/") => {
            Fate::Refuse(403, "", "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>".into())
        }
        _ => Fate::Done,
    });
    let said = far.run(&["prune"]).expect_code(1).stderr();
    assert!(said.contains("access denied"), "{said}");
    far.double.decide(|_| Fate::Done);
    let done = run(&["prune", "--json"]).json();
    assert!(done["planned"]["taken_up"].is_u64() && done["deleted_packs"].as_u64() > Some(0), "{done}");
    run(&["check", "--read-data"]);
}

#[test]
fn a_bucket_with_versions_says_that_it_keeps_what_is_deleted() {
    let Some(moto) = Server::moto(false) else { return };
    assert_eq!(request(moto.port(), "PUT", "/locked", &["x-amz-bucket-object-lock-enabled: true"], b""), 200);
    let rule = b"<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>\
        <Mode>COMPLIANCE</Mode><Days>3</Days></DefaultRetention></Rule></ObjectLockConfiguration>";
    assert_eq!(request(moto.port(), "PUT", "/locked?object-lock", &[], rule), 200);
    let place = Place::new();
    let run = |arguments: &[&str]| {
        let mut command = place.command(arguments);
        command.env("ESTRATO_REPO", format!("s3://locked/p?endpoint={}", moto.endpoint()));
        command.env("ESTRATO_KEY_FILE", "key").env("AWS_ACCESS_KEY_ID", ID).env("AWS_SECRET_ACCESS_KEY", SECRET);
        Ran::of(&mut command).expect_code(0)
    };
    run(&["init", "--new-key-file", "key"]);
    forgotten(&place, run);
    let done = run(&["prune", "--json"]).json();
    assert!(done["deleted_packs"].as_u64() > Some(0) && done["retained"] == Value::Array(Vec::new()), "{done}");
    assert_eq!(done["kept_by_store"], "versioning, object lock");
    run(&["check", "--read-data"]);
    // Until when, of one that is there.
    let store = open(&format!("s3://locked/p?endpoint={}", moto.endpoint()), brief()).unwrap();
    let until = store.retained_until("repo.json").unwrap().seconds - jiff::Timestamp::now().as_second();
    assert!((2 * 86_400..4 * 86_400).contains(&until), "{until}");
    assert_eq!(store.retained_until("nothing"), None);
}

#[test]
fn google_and_azure_refuse_in_words_of_their_own() {
    let google = super::double::Double::new(super::double::Dialect::Google);
    for (location, status, headers, body) in [
        ("gs://bucket/p?", 403, "", "<Error><Code>RetentionPolicyNotMet</Code></Error>"),
        ("gs://bucket/p?", 403, "", "<Error><Code>ObjectUnderActiveHold</Code></Error>"),
        ("az://box/p?account=me&", 409, "x-ms-error-code: BlobImmutableDueToPolicy\r\n", ""),
    ] {
        let store = open(&format!("{location}endpoint={}", google.endpoint()), brief()).unwrap();
        google.decide(move |asked| match asked.method.as_str() {
            "GET" => {
                let text = "{\"retentionExpirationTime\": \"2030-01-01T00:00:00.000Z\"}";
                Fate::Refuse(200, "", text.into())
            }
            "HEAD" => {
                let header = "x-ms-immutability-policy-until-date: Tue, 01 Jan 2030 00:00:00 GMT\r\n";
                Fate::Refuse(200, header, String::new())
            }
            "PUT" => Fate::Refuse(201, "", String::new()),
            _ => Fate::Refuse(status, headers, body.to_owned()),
        });
        let _ = store.create("packs/a b", Bytes::new());
        let refused = store.delete("packs/a b").unwrap_err();
        assert_eq!(refused.fault, StoreFault::Retained, "{refused}");
        assert_eq!(store.retained_until("packs/a b").map(|time| time.seconds), Some(1_893_456_000), "{location}");
    }
}
