//! What is said must hold no secret: results, errors and logs of every command with right and wrong
//! keys, and what a program that uses the library could print by accident.

use super::hostile::{bundle, key_file, open};
use crate::support::Place;
use estrato::crypto::aead::Sealer;
use estrato::crypto::derive::IdKeys;
use estrato::crypto::envelope::Realm;
use estrato::crypto::hpke::PrivateKey;
use estrato::crypto::keyfile::KeyFile;
use estrato::crypto::sign::Signing;
use estrato::crypto::slot::{Credential, Holder};
use estrato::format::key::Bundle;
use estrato::id::to_hex;
use estrato::pack::PackKey;
use estrato::repo::{Access, NewKey, Repository, Secret};
use std::marker::PhantomData;

const PASSWORD: &str = "a very secret passphrase 5521";
const WRONG: &str = "not that passphrase 9917";

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 without the letters at either end, which depend on what stands beside.
fn base64(bytes: &[u8]) -> Vec<u8> {
    let mut letters = Vec::new();
    for three in bytes.as_chunks::<3>().0 {
        let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        letters.extend([18, 12, 6, 0].map(|by| BASE64[(bits >> by & 63) as usize]));
    }
    letters
}

/// Every way in which somebody might print a secret.
fn ways(secret: &[u8]) -> Vec<Vec<u8>> {
    let hex = to_hex(secret);
    let list = |mark: &str| secret.iter().map(u8::to_string).collect::<Vec<_>>().join(mark).into_bytes();
    vec![
        secret.to_vec(),
        hex.to_uppercase().into_bytes(),
        hex.into_bytes(),
        list(", "),
        list(","),
        base64(secret),
        base64(&secret[1..]),
        base64(&secret[2..]),
        secret.escape_ascii().to_string().into_bytes(),
    ]
}

fn holds(told: &[u8], needle: &[u8]) -> bool {
    told.windows(needle.len()).any(|w| w == needle)
}

#[test]
fn no_command_prints_a_secret_with_right_or_wrong_keys() {
    let place = Place::with_repository();
    let key = |name: &str| KeyFile::from_text(&std::fs::read_to_string(place.path(name)).unwrap()).unwrap();
    place.run(&["key", "show", "--new-key-file", "stranger"]).expect_code(0);
    place.run(&["key", "add", "--role", "writer", "--label", "w", "--new-key-file", "writer"]).expect_code(0);
    let mut add = place.command(&["key", "add", "--new-password"]);
    assert!(add.env("ESTRATO_NEW_PASSWORD", PASSWORD).output().unwrap().status.success());
    place.write("password", PASSWORD);
    place.write("wrong", WRONG);
    // A key with a letter mistyped, one cut short, one with more behind it, and a binary file.
    let text = std::fs::read_to_string(place.path("key")).unwrap();
    let line = text.lines().last().unwrap().to_owned();
    let mistyped = if line.ends_with('7') { "8" } else { "7" };
    place.write("mistyped", format!("{}{mistyped}\n", &line[..line.len() - 1]));
    place.write("short", &line[..line.len() - 6]);
    place.write("raw", *key("key").0);
    place.write("source/file", "data");
    let mut secrets: Vec<Vec<u8>> = ["key", "writer", "stranger"].iter().map(|k| key(k).0.to_vec()).collect();
    let repo = open(&place);
    for name in ["key", "writer"] {
        let bundle = bundle(&repo, key(name));
        secrets.extend([bundle.id_key.to_vec(), bundle.signer_seed.to_vec()]);
        secrets.extend([bundle.private_key, bundle.tenant_seed].into_iter().flatten().map(|s| s.to_vec()));
    }
    let mut needles: Vec<Vec<u8>> = secrets.iter().flat_map(|s| ways(s)).collect();
    for text in [PASSWORD, WRONG] {
        needles.extend([text.as_bytes().to_vec(), to_hex(text.as_bytes()).into_bytes(), base64(text.as_bytes())]);
    }
    for name in ["key", "writer", "stranger"] {
        // Six groups of the line, as people write it, and as it is read.
        let text = key(name).to_text();
        let letters = text.split_once(' ').unwrap().1;
        needles.push(letters.as_bytes()[..35].to_vec());
        needles.push(letters.replace('-', "").as_bytes()[..30].to_vec());
    }
    let commands: [&[&str]; 16] = [
        &["snapshot", "source"],
        &["snapshot", "source", "--dry-run"],
        &["snapshot", "nowhere"],
        &["snapshot", "--name", "x", "--command", "--", "false"],
        &["snapshots"],
        &["ls", "latest"],
        &["ls", "ffff"],
        &["restore", "latest", "--target", "target"],
        &["check", "--read-data"],
        &["key", "list"],
        &["key", "add", "--recipient", "nonsense"],
        &["key", "add", "--new-key-file", "key"],
        &["key", "remove", "nobody"],
        &["tenant", "list"],
        &["tenant", "add", "default"],
        &["init"],
    ];
    let keys: [(&str, &[&str]); 9] = [
        ("key", &[]),
        ("writer", &["--json"]),
        ("stranger", &[]),
        ("mistyped", &["--json"]),
        ("short", &[]),
        ("raw", &[]),
        ("", &["--password-file", "password"]),
        ("", &["--password-file", "wrong"]),
        ("", &["--password-command", "cat wrong; exit 3"]),
    ];
    let mut codes = std::collections::BTreeSet::new();
    for (n, arguments) in commands.iter().enumerate() {
        for (at, (key, more)) in keys.iter().enumerate() {
            // A password costs its stretching: not with every command.
            if key.is_empty() && !(n + at).is_multiple_of(5) {
                continue;
            }
            let mut command = place.command(&[&["-v"][..], more, arguments].concat());
            command.env("RUST_LOG", "trace").env("RUST_BACKTRACE", "full");
            match *key {
                "" => command.env_remove("ESTRATO_KEY_FILE"),
                key => command.env("ESTRATO_KEY_FILE", key),
            };
            let output = command.output().unwrap();
            codes.insert(output.status.code().unwrap());
            for told in [&output.stdout, &output.stderr] {
                let secret = needles.iter().position(|needle| holds(told, needle));
                assert_eq!(secret, None, "{command:?}: {}", String::from_utf8_lossy(told));
            }
        }
    }
    assert!([0, 1, 2, 12].iter().all(|code| codes.contains(code)), "{codes:?}");
    // The search finds what is there: this command is for showing the key.
    let shown = place.run(&["key", "show"]).expect_code(0).stdout();
    assert!(needles.iter().any(|needle| holds(shown.as_bytes(), needle)));
}

/// Tells whether a type can be formatted for a person who looks for a fault: the constant of the type
/// itself, if it has one, is taken before the trait's.
struct Probe<T: ?Sized>(PhantomData<T>);

trait Hidden {
    const SHOWN: bool = false;
}

impl<T: ?Sized> Hidden for Probe<T> {}

impl<T: ?Sized + std::fmt::Debug> Probe<T> {
    const SHOWN: bool = true;
}

#[test]
fn types_that_hold_keys_cannot_be_formatted() {
    const { assert!(Probe::<String>::SHOWN, "the probe works") };
    let shown = [
        Probe::<KeyFile>::SHOWN,
        Probe::<Credential>::SHOWN,
        Probe::<Holder<'static>>::SHOWN,
        Probe::<Secret>::SHOWN,
        Probe::<NewKey>::SHOWN,
        Probe::<Access>::SHOWN,
        Probe::<Bundle>::SHOWN,
        Probe::<IdKeys>::SHOWN,
        Probe::<Realm<'static>>::SHOWN,
        Probe::<Signing>::SHOWN,
        Probe::<PrivateKey>::SHOWN,
        Probe::<Sealer>::SHOWN,
        Probe::<PackKey>::SHOWN,
        Probe::<Repository>::SHOWN,
    ];
    assert_eq!(shown, [false; 14]);
    // A password knows how to be formatted, and says nothing.
    let password = secrecy::SecretString::from(PASSWORD);
    assert!(!format!("{password:?}").contains(PASSWORD));
    assert_eq!(key_file(&Place::with_repository()).0.len(), 32);
}
