//! One key with a slot in every tenant.

use crate::support::{Place, Ran};

/// A place with a repository, and someone's key in the file `operator`; its public half.
fn place_with_operator() -> (Place, String) {
    let place = Place::with_repository();
    place.write("source/a", "some text");
    place.snapshot(&[]);
    let text = place.run(&["key", "show", "--new-key-file", "operator"]).expect_code(0).stdout().trim().to_owned();
    place.write("operator.txt", &text);
    (place, text)
}

fn opens(place: &Place, tenant: &str) -> bool {
    place.run_as("operator", &["-t", tenant, "snapshots"]).code() == 0
}

#[test]
fn the_operators_key_opens_every_tenant_that_is_made_where_it_is_known() {
    let (place, _) = place_with_operator();
    place.run(&["tenant", "add", "before"]).expect_code(0);
    let told = place.run(&["key", "operator", "add", "@operator.txt"]).expect_code(0).stdout();
    assert!(told.contains("opens tenant default"), "{told}");
    let made = place.run(&["tenant", "add", "after", "--new-key-file", "theirs"]).expect_code(0);
    assert!(made.stdout().contains("operator's key") && made.stderr().is_empty(), "{}", made.stdout());
    assert!(opens(&place, "default") && opens(&place, "after") && !opens(&place, "before"));
    place.run_as("operator", &["restore", "latest", "--target", "out"]).expect_code(0);
    assert_eq!(std::fs::read(place.path("out/a")).unwrap(), b"some text");

    let listed = place.run(&["tenant", "list"]).expect_code(0).stdout();
    assert_eq!(listed, "after\nbefore  (no slot for the operator)\ndefault\n");
    let listed = place.run(&["tenant", "list", "--json"]).expect_code(0).json();
    assert_eq!(listed[1], serde_json::json!({ "tenant": "before", "operator": false }));
    let keys = place.run(&["key", "list"]).expect_code(0).stdout();
    assert!(keys.lines().any(|l| l.contains("recipient, operator")), "{keys}");
    let keys = place.run_as("theirs", &["-t", "after", "key", "list", "--json"]).expect_code(0).json();
    assert_eq!((&keys[1]["operator"], &keys[1]["role"]), (&true.into(), &"full".into()));

    place.run(&["-t", "before", "key", "operator", "add", "@operator.txt"]).expect_code(0);
    assert!(opens(&place, "before"));
    // Again it changes nothing; another one must wait until it is removed.
    place.run(&["-t", "before", "key", "operator", "add", "@operator.txt"]).expect_code(0);
    let other = place.run(&["key", "show", "--new-key-file", "other"]).expect_code(0).stdout();
    let ran = place.run(&["key", "operator", "add", other.trim()]).expect_code(1);
    assert!(ran.stderr().contains("remove it first"), "{}", ran.stderr());
    place.run(&["key", "remove", "operator"]).expect_code(0);
    place.run(&["key", "operator", "add", other.trim()]).expect_code(0);
    assert!(!opens(&place, "default"));
}

#[test]
fn whoever_has_a_key_already_is_marked() {
    let (place, text) = place_with_operator();
    place.run(&["key", "add", "--recipient", &text, "--label", "boss"]).expect_code(0);
    place.run(&["key", "operator", "add", &text]).expect_code(0);
    let keys = place.run(&["key", "list", "--json"]).expect_code(0).json();
    assert_eq!(keys.as_array().unwrap().len(), 2);
    assert_eq!((&keys[1]["operator"], &keys[1]["label"]), (&true.into(), &"boss".into()));
    let ran = place.run(&["key", "add", "--role", "writer", "--new-key-file", "writer"]).expect_code(0);
    drop(ran);
    let ran = place.run_as("writer", &["key", "operator", "add", &text]).expect_code(12);
    assert!(ran.stderr().contains("a writer key cannot"), "{}", ran.stderr());
    place.run(&["key", "operator", "add", "nonsense"]).expect_code(2);
}

#[test]
fn a_machine_that_was_told_of_no_operator_asks_for_it_and_takes_none_from_the_store() {
    let (place, text) = place_with_operator();
    place.run(&["key", "operator", "add", &text]).expect_code(0);
    // Another machine: nothing in the store says who the operator is.
    let elsewhere = ["--cache-dir", "fresh"];
    let add = |name, more: &[&str]| place.run(&[&elsewhere[..], &["tenant", "add", name], more].concat());
    let ran = add("one", &[]).expect_code(0);
    assert!(ran.stderr().contains("tenant default has a slot for a recipient"), "{}", ran.stderr());
    assert!(!opens(&place, "one"));
    let ran = add("two", &["--no-operator"]).expect_code(0);
    assert_eq!(ran.stderr(), "");
    // To have opened a tenant with an operator makes it none for others: its list is that tenant's word.
    place.run(&[&elsewhere[..], &["key", "list"]].concat()).expect_code(0);
    add("three", &[]).expect_code(0);
    assert!(!opens(&place, "three"));
    // It is named, on the line or in the environment, and then it is known.
    add("four", &["--operator", "@operator.txt"]).expect_code(0);
    add("five", &[]).expect_code(0);
    assert!(opens(&place, "four") && opens(&place, "five"));
    let mut command = place.command(&["--no-cache", "tenant", "add", "six"]);
    Ran::of(command.env("ESTRATO_OPERATOR", &text)).expect_code(0);
    assert!(opens(&place, "six"));
    let ran = place.run(&[&elsewhere[..], &["tenant", "add", "seven", "--operator", "nonsense"]].concat());
    assert!(ran.code() == 2 && !place.path("repo/tenants/seven").exists(), "{}", ran.stderr());
}
