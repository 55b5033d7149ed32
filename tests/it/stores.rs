//! Stores that are far: the contract on real servers and on a double of Google's, what a probe finds,
//! the program on them, what may be allowed there, and a network that fails. Servers that are not installed are said as SKIPPED.

mod calls;
mod cold;
mod contract;
mod double;
mod enforced;
mod erased;
mod far;
mod faults;
mod locked;
mod network;
mod policy;
mod program;
pub mod rates;
mod servers;
mod writers;

use estrato::error::Result;
use estrato::store::{self, Patience, Store};
use std::sync::Arc;
use std::time::Duration;

/// The access key of these tests: no error may show it.
const ID: &str = "AKIATESTTESTTEST";
/// Its secret.
const SECRET: &str = "topsecret/of+these/tests";

/// Credentials of every kind, as an environment has them.
fn environment(name: &str) -> Option<String> {
    let value = match name {
        "AWS_ACCESS_KEY_ID" => ID,
        "AWS_SECRET_ACCESS_KEY" => SECRET,
        "GOOGLE_OAUTH_ACCESS_TOKEN" => double::TOKEN,
        "AZURE_STORAGE_ACCOUNT" => "devstoreaccount1",
        "AZURE_STORAGE_KEY" => servers::AZURE_KEY,
        _ => return None,
    };
    Some(value.to_owned())
}

/// Patience for tests: the same in small.
fn brief() -> Patience {
    let millis = Duration::from_millis;
    Patience {
        idle: millis(400),
        connect: millis(400),
        answer: millis(400),
        retry: Duration::from_secs(20),
        first: Duration::from_secs(2),
        backoff: millis(5),
        backoff_max: millis(200),
        ..Patience::default()
    }
}

fn open(location: &str, patience: Patience) -> Result<Arc<dyn Store>> {
    store::open_with(location, &environment, patience)
}

/// Panics where a text shows what was signed, or what it was signed with.
#[track_caller]
fn assert_hides_secrets(text: &str) {
    let azure = &servers::AZURE_KEY[..20];
    for secret in [ID, SECRET, "topsecret", double::TOKEN, azure, "ignature=", "X-Amz", "x-amz", "AWS4", "?list", "<"]
    {
        assert!(!text.contains(secret), "{secret} in: {text}");
    }
}

/// The same, and the text must be one short line.
#[track_caller]
fn assert_tells_nothing(text: &str) {
    assert_hides_secrets(text);
    assert!(text.len() < 300 && !text.contains('\n'), "not one short line: {text}");
}
