//! What is granted, and how a place that is hard to name is written down. The screens are in `tests/it`.

use super::*;

fn names() -> TenantNames {
    TenantNames::new("clinic").unwrap()
}

fn granted(names: &[String], name: &str) -> bool {
    names.iter().any(|granted| if granted.ends_with('/') { name.starts_with(granted) } else { name == granted })
}

#[test]
fn a_writer_takes_nothing_away_that_a_restore_needs() {
    let writer = Grants::of(Holder::Writer, &names());
    for folder in ["packs", "index", "snapshots", "keys", "prune", "forgotten", "holds"] {
        let name = format!("tenants/clinic/{folder}/x");
        assert!(!granted(&writer.replace, &name) && !granted(&writer.delete, &name), "{name}");
    }
    for name in [
        REPO,
        "tenants/clinic/tenant",
        "tenants/clinic/keys/x",
        "tenants/clinic/prune/x",
        &names().damage(1),
        "tenants/clinic/forgotten/x",
    ] {
        assert!(!granted(&writer.create, name) && granted(&writer.read, name), "{name}");
    }
    assert!(!granted(&writer.read, "tenants/clinic/packs/ab/x"));
    assert!(!granted(&writer.list, "tenants/clinic/sessions/"));
    for granted_too in [&writer.create, &writer.read, &writer.list] {
        assert!(!granted(granted_too, "tenants/clinic/holds/x"));
    }
}

#[test]
fn nobody_is_granted_another_tenants_objects() {
    for holder in Holder::ALL {
        let grants = Grants::of(holder, &names());
        for granted in [grants.read, grants.list, grants.create, grants.replace, grants.delete].concat() {
            assert!(granted == REPO || granted.starts_with("tenants/clinic/"), "{holder:?}: {granted}");
        }
    }
    let reader = Grants::of(Holder::Reader, &names());
    assert!(reader.create.is_empty() && reader.replace.is_empty() && reader.delete.is_empty());
}

#[test]
fn a_prefix_that_a_language_cannot_name_is_refused_or_quoted() {
    let azure = Place::Azure { account: None, container: "box".into(), prefix: "it's".into() };
    assert!(policy(&azure, &names(), Holder::Writer).is_err());
    let google = Place::Gcs { bucket: "b".into(), prefix: "a\"b".into() };
    let text = serde_json::to_value(policy(&google, &names(), Holder::Reader).unwrap()).unwrap();
    let expression = text["bindings"][0]["condition"]["expression"].as_str().unwrap();
    assert!(expression.contains("objects/a\\\"b/repo.json\""), "{expression}");
}

#[test]
fn the_partition_follows_from_the_region() {
    for (region, partition) in [(None, "aws"), (Some("cn-north-1"), "aws-cn"), (Some("us-gov-west-1"), "aws-us-gov")]
    {
        let region = region.map(str::to_owned);
        let place = Place::S3 { bucket: "b".into(), prefix: String::new(), region };
        let text = serde_json::to_string(&policy(&place, &names(), Holder::Writer).unwrap()).unwrap();
        assert!(text.contains(&format!("\"arn:{partition}:s3:::b/repo.json\"")), "{text}");
    }
}
