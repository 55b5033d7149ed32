//! Rates that are kept: by a clock that goes on whenever somebody looks at it, so many bytes take so long,
//! on every kind of store; and nobody who wants to stop is kept waiting.

use super::double::{Dialect, Double};
use super::{brief, environment};
use crate::support::{Place, noise};
use bytes::Bytes;
use estrato::clock::{Clock, Timestamp};
use estrato::monitor::{Event, Monitor, Silent};
use estrato::store::{self, Rates, Store};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A clock that goes on by a moment whenever it is looked at.
#[derive(Default)]
struct Tick(AtomicU64);

impl Tick {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

impl Clock for Tick {
    fn now(&self) -> Timestamp {
        Timestamp::default()
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.0.fetch_add(20, Ordering::Relaxed) + 20)
    }
}

/// Wants to stop once it was asked so often.
struct Impatient(AtomicU64);

impl Monitor for Impatient {
    fn event(&self, _: Event) {}

    fn cancelled(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err()
    }
}

/// Rates of so many kB per second, by such a clock.
fn rates(clock: &Arc<Tick>, upload: u64, download: u64, monitor: Arc<dyn Monitor>) -> Rates {
    let clock: Arc<dyn Clock> = Arc::<Tick>::clone(clock);
    Rates::new(NonZeroU64::new(upload * 1000), NonZeroU64::new(download * 1000), &clock, &monitor)
}

/// Holds the store that is opened with some rates to them.
pub fn keeps_them(open: &dyn Fn(Rates) -> Arc<dyn Store>) {
    let data = Bytes::from(noise("rates", 400_000));
    let took = |upload: u64, download: u64, go: &dyn Fn(&dyn Store)| {
        let clock = Arc::new(Tick::default());
        let store = open(rates(&clock, upload, download, Arc::new(Silent)));
        go(&*store);
        clock.now()
    };
    let create = |store: &dyn Store| store.create("rates/a", data.clone()).unwrap();
    let cold = |store: &dyn Store| store.create_cold("rates/b", data.clone()).unwrap();
    let write = |store: &dyn Store| store.write("rates/a", data.clone()).unwrap();
    let read = |store: &dyn Store| assert_eq!(store.read("rates/a", 400_000).unwrap(), data);
    let range =
        |store: &dyn Store| assert_eq!(store.read_range("rates/a", 100_000, 300_000).unwrap(), data[100_000..]);
    let at_least = Duration::from_millis;
    assert!(took(1000, 0, &create) >= at_least(400));
    assert!(took(1000, 0, &cold) >= at_least(400));
    assert!(took(2000, 0, &write) >= at_least(200));
    // The last part that is received need not be waited for.
    assert!(took(0, 500, &read) >= at_least(600));
    assert!(took(0, 500, &range) >= at_least(300));
    // Each direction has its own.
    for (upload, download, go) in [(0, 1, &write as &dyn Fn(&dyn Store)), (1, 0, &read), (0, 0, &write)] {
        assert!(took(upload, download, go) < at_least(400));
    }
    // A day's worth at that rate, but for who asks to stop in the middle.
    let began = Instant::now();
    let clock = Arc::new(Tick::default());
    let store = open(rates(&clock, 1, 1, Arc::new(Impatient(10.into()))));
    store.create("rates/c", data.clone()).unwrap();
    assert_eq!(store.read("rates/c", 400_000).unwrap(), data);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn a_cloud_store_keeps_them() {
    let double = Double::new(Dialect::S3);
    let location = format!("s3://bucket/p?endpoint={}", double.endpoint());
    keeps_them(&|rates| store::open_at(&location, &environment, brief(), rates).unwrap());
}

#[test]
fn a_folder_keeps_them() {
    let folder = tempfile::tempdir().unwrap();
    keeps_them(&|rates| store::open_limited(folder.path().to_str().unwrap(), rates).unwrap());
}

#[test]
fn the_program_takes_rates_and_an_interrupt() {
    let place = Place::with_repository();
    place.write("source/a", noise("a", 3_000_000));
    place.run(&["--limit-upload", "1G", "--limit-download=100M", "snapshot", "source"]).expect_code(0);
    place.run(&["restore", "latest", "--target", "out", "--limit-upload", "0"]).expect_code(0);
    for wrong in ["10MB", "fast", "-1"] {
        place.run(&["snapshots", &format!("--limit-upload={wrong}")]).expect_code(2);
    }
    // This would take ten minutes.
    let mut child =
        place.command(&["restore", "latest", "--target", "slow", "--limit-download", "5k"]).spawn().unwrap();
    while !place.path("slow").exists() {
        assert!(child.try_wait().unwrap().is_none(), "it has ended");
        std::thread::sleep(Duration::from_millis(5));
    }
    let began = Instant::now();
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
}
