//! A tenant is erased where the store keeps what is deleted: that is said, and until when.

use super::enforced::request;
use super::servers::Server;
use super::{ID, SECRET};
use crate::support::{Place, Ran};

#[test]
fn what_a_bucket_keeps_is_said_in_the_receipt() {
    let Some(moto) = Server::moto(false) else { return };
    let place = Place::new();
    place.write("source/a", "some text");
    assert_eq!(request(moto.port(), "PUT", "/locked", &["x-amz-bucket-object-lock-enabled: true"], b""), 200);
    for (bucket, kept) in [("bucket", None), ("locked", Some("versioning, object lock"))] {
        let run = |arguments: &[&str], code| {
            let mut command = place.command(arguments);
            command.env("ESTRATO_REPO", format!("s3://{bucket}/of us?endpoint={}", moto.endpoint()));
            command.env("AWS_ACCESS_KEY_ID", ID).env("AWS_SECRET_ACCESS_KEY", SECRET);
            Ran::of(command.env("ESTRATO_KEY_FILE", format!("key of {bucket}"))).expect_code(code)
        };
        run(&["init", "--new-key-file", &format!("key of {bucket}")], 0);
        run(&["snapshot", "source"], 0);
        run(&["key", "rekey"], 0);
        if kept.is_some() {
            let slot = run(&["key", "list", "--json"], 0).json()[0]["slot"].as_str().unwrap().to_owned();
            let target = format!("/{bucket}/of%20us/tenants/default/keys/{slot}?retention");
            let until = b"<Retention><Mode>COMPLIANCE</Mode>\
                <RetainUntilDate>2090-01-01T00:00:00Z</RetainUntilDate></Retention>";
            assert_eq!(request(moto.port(), "PUT", &target, &[], until), 200);
        }
        let ran = run(&["tenant", "erase", "default", "--yes", "default"], 0);
        let receipt = ran.json();
        assert_eq!(receipt["whole"], true, "{receipt}");
        let there = &receipt["places"][0];
        assert_eq!(there["old_versions"], if kept.is_some() { "kept" } else { "none" });
        let until = there["slots"][0]["kept_until"].as_str();
        assert_eq!(until.is_some(), kept.is_some(), "{receipt}");
        match kept {
            None => assert_eq!(ran.stderr(), ""),
            Some(means) => {
                assert_eq!(there["old_versions_by"], means);
                assert!(
                    until.unwrap().starts_with("2090-01-01") && ran.stderr().contains(until.unwrap()),
                    "{}",
                    ran.stderr()
                );
                assert!(ran.stderr().contains("keeps what was deleted"), "{}", ran.stderr());
            }
        }
        run(&["snapshots"], 1);
    }
}
