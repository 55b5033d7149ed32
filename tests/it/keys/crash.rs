//! A fault at every request of what changes a tenant's keys, or destroys it.

use crate::support::say;
use crate::world::key;
use bytes::Bytes;
use estrato::clock::{Clock, SystemClock};
use estrato::crypto::slot::Credential;
use estrato::error::{Result, StoreFault};
use estrato::repo::{Access, Repository};
use estrato::store::{Fault, Faulty, Memory, Store};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Everything that a store holds.
pub type Objects = BTreeMap<String, Bytes>;

const FAULTS: [Fault; 6] = [
    Fault::CrashBefore,
    Fault::CrashAfter,
    Fault::Fail(StoreFault::Unavailable),
    Fault::LoseAnswer,
    Fault::Tear,
    Fault::Duplicate,
];

/// Everything that a store holds.
pub fn objects(store: &dyn Store) -> Objects {
    let all = store.list("").unwrap();
    all.into_iter().map(|o| (o.name.clone(), store.read(&o.name, 1 << 30).unwrap())).collect()
}

/// A store that holds this, and to which faults happen.
pub fn stage(objects: &Objects) -> Arc<Faulty> {
    let inner = Memory::default();
    for (name, bytes) in objects {
        inner.create(name, bytes.clone()).unwrap();
    }
    Arc::new(Faulty::new(Arc::new(inner)))
}

/// Opens the tenant `default` by a key file, on a machine that keeps nothing.
pub fn open(store: &Arc<Faulty>, n: u8) -> Result<Repository> {
    open_by(store, Credential::KeyFile(key(n)))
}

/// The same by anything.
pub fn open_by(store: &Arc<Faulty>, credential: Credential) -> Result<Repository> {
    let store: Arc<dyn Store> = Arc::<Faulty>::clone(store);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    Repository::open(Access { store, clock, tenant: "default".into(), credential, cache: None })
}

/// Does it with each fault at each request, and then, with nothing more happening, what must hold.
pub fn at_every_request(
    what: &str,
    objects: &Objects,
    act: impl Fn(&Arc<Faulty>) -> Result<()>,
    then: impl Fn(&str, &Arc<Faulty>, Result<()>),
) {
    let whole = stage(objects);
    act(&whole).unwrap();
    let requests = whole.requests();
    let (mut tried, mut failed) = (0, 0);
    for number in 1..=requests + 1 {
        for fault in FAULTS {
            let store = stage(objects);
            store.at(number, fault);
            let outcome = act(&store);
            store.heal();
            failed += usize::from(outcome.is_err());
            tried += 1;
            then(&format!("{what}, request {number} of {requests}: {fault:?}"), &store, outcome);
        }
    }
    assert!(failed > tried / 6, "{what}: {failed} of {tried} failed");
    say(&format!("faults, {what}: {tried} points tried, {failed} ended with an error"));
}
