//! How fast bytes may be sent to a store, and received from it: an even rate, kept by all connections
//! together. Whoever moves bytes reserves their time, one after the other, and waits until it is over:
//! time that nobody used is not saved up. Once the user has asked to stop nobody waits any more, so that
//! what is under way ends soon.

use crate::clock::Clock;
use crate::limits;
use crate::monitor::Monitor;
use std::fmt;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a request to stop may go unheard.
pub(super) const STEP: Duration = Duration::from_millis(100);

/// Bounds of how much is sent to a store and received from it in a second. The default is none.
#[derive(Debug, Clone, Default)]
pub struct Rates {
    pub(super) upload: Option<Arc<Pace>>,
    pub(super) download: Option<Arc<Pace>>,
}

impl Rates {
    /// So many bytes per second, by this clock, until the monitor says that the user wants to stop.
    pub fn new(
        upload: Option<NonZeroU64>,
        download: Option<NonZeroU64>,
        clock: &Arc<dyn Clock>,
        monitor: &Arc<dyn Monitor>,
    ) -> Self {
        let pace = |rate: NonZeroU64| {
            Arc::new(Pace { rate, clock: Arc::clone(clock), monitor: Arc::clone(monitor), free: Mutex::default() })
        };
        Self { upload: upload.map(pace), download: download.map(pace) }
    }

    /// True if there are none.
    pub(super) fn is_unbounded(&self) -> bool {
        self.upload.is_none() && self.download.is_none()
    }

    /// How long `bytes` may take at the slower of the two, at the most.
    pub(super) fn longest(&self, bytes: u64) -> Duration {
        let paces = [&self.upload, &self.download].into_iter().flatten();
        paces.map(|pace| pace.time(bytes)).max().unwrap_or_default()
    }

    /// Waits until so many bytes may be sent.
    pub(super) fn wait_to_send(&self, bytes: usize) {
        if let Some(pace) = &self.upload {
            pace.wait(bytes);
        }
    }

    /// Waits until so many bytes may have been received.
    pub(super) fn wait_to_receive(&self, bytes: usize) {
        if let Some(pace) = &self.download {
            pace.wait(bytes);
        }
    }
}

/// One direction.
pub(super) struct Pace {
    rate: NonZeroU64,
    clock: Arc<dyn Clock>,
    monitor: Arc<dyn Monitor>,
    /// Up to when all time is reserved, by the clock's `elapsed`.
    free: Mutex<Duration>,
}

impl fmt::Debug for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes per second", self.rate)
    }
}

impl Pace {
    /// How long so many bytes take.
    fn time(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.rate.get());
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Reserves the time of so many bytes; when it will be over.
    pub fn reserve(&self, bytes: usize) -> Duration {
        let now = self.clock.elapsed();
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        *free = (*free).max(now).saturating_add(self.time(bytes as u64));
        *free
    }

    /// What is left until then; nothing once the user wants to stop.
    pub fn left(&self, due: Duration) -> Duration {
        if self.monitor.cancelled() { Duration::ZERO } else { due.saturating_sub(self.clock.elapsed()) }
    }

    /// Waits for the time of so many bytes, in parts that others can come between.
    fn wait(&self, bytes: usize) {
        let mut rest = bytes;
        while rest > 0 {
            let part = rest.min(limits::PACE_PART);
            rest -= part;
            let due = self.reserve(part);
            loop {
                let left = self.left(due);
                if left.is_zero() {
                    break;
                }
                std::thread::sleep(left.min(STEP));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::monitor::Event;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// A clock that is set, and a user who may ask to stop.
    #[derive(Default)]
    struct Hand(Mutex<Duration>, AtomicBool);

    impl Hand {
        fn set(&self, to: Duration) {
            *self.0.lock().unwrap() = to;
        }
    }

    impl Clock for Hand {
        fn now(&self) -> Timestamp {
            Timestamp::default()
        }

        fn elapsed(&self) -> Duration {
            *self.0.lock().unwrap()
        }
    }

    impl Monitor for Hand {
        fn event(&self, _: Event) {}

        fn cancelled(&self) -> bool {
            self.1.load(Ordering::Relaxed)
        }
    }

    fn rates(hand: &Arc<Hand>, upload: u64, download: u64) -> Rates {
        let (clock, monitor): (Arc<dyn Clock>, Arc<dyn Monitor>) =
            (Arc::<Hand>::clone(hand), Arc::<Hand>::clone(hand));
        Rates::new(NonZeroU64::new(upload), NonZeroU64::new(download), &clock, &monitor)
    }

    /// Moves bytes in such parts, and waits for each; how long that takes.
    fn moved(hand: &Hand, pace: &Pace, parts: &[usize]) -> Duration {
        let began = hand.elapsed();
        for part in parts {
            let due = pace.reserve(*part);
            assert_eq!(pace.left(due), due.saturating_sub(hand.elapsed()));
            hand.set(due);
            assert_eq!(pace.left(due), Duration::ZERO);
        }
        hand.elapsed() - began
    }

    #[test]
    fn so_many_bytes_take_so_long() {
        let hand = Arc::new(Hand::default());
        let up = rates(&hand, 500_000, 0).upload.unwrap();
        assert_eq!(moved(&hand, &up, &[50_000; 40]), Duration::from_secs(4));
        // Nothing is saved up while nothing is moved: no burst follows.
        hand.set(Duration::from_secs(1000));
        assert_eq!(moved(&hand, &up, &[500_000]), Duration::from_secs(1));
        // Small parts lose nothing to rounding that anybody would see.
        let third = rates(&hand, 3, 0).upload.unwrap();
        let taken = moved(&hand, &third, &[1; 3000]);
        assert!(taken > Duration::from_millis(999_999) && taken <= Duration::from_secs(1000), "{taken:?}");
    }

    #[test]
    fn all_connections_share_a_rate_and_the_directions_do_not() {
        let hand = Arc::new(Hand::default());
        let rates = rates(&hand, 1000, 1000);
        let (up, down) = (rates.upload.unwrap(), rates.download.unwrap());
        let dues: Vec<Duration> = (0..4).map(|_| up.reserve(250)).collect();
        assert_eq!(dues, [250, 500, 750, 1000].map(Duration::from_millis), "one after the other");
        assert_eq!(down.reserve(250), Duration::from_millis(250));
    }

    #[test]
    fn who_asked_to_stop_waits_for_nothing() {
        let hand = Arc::new(Hand::default());
        let rates = rates(&hand, 1, 1);
        let due = rates.upload.as_ref().unwrap().reserve(1_000_000);
        assert_eq!(rates.upload.as_ref().unwrap().left(due), Duration::from_secs(1_000_000));
        hand.1.store(true, Ordering::Relaxed);
        assert_eq!(rates.upload.as_ref().unwrap().left(due), Duration::ZERO);
        // This would take a month.
        rates.wait_to_send(3_000_000);
        rates.wait_to_receive(3_000_000);
    }

    #[test]
    fn no_bound_is_none() {
        let hand = Arc::new(Hand::default());
        let none = rates(&hand, 0, 0);
        assert!(none.is_unbounded() && Rates::default().is_unbounded());
        none.wait_to_send(usize::MAX);
        assert_eq!(none.longest(u64::MAX), Duration::ZERO);
        let one = rates(&hand, 0, 10);
        assert!(!one.is_unbounded());
        assert_eq!(one.longest(100), Duration::from_secs(10));
    }
}
