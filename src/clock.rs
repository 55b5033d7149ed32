//! Time, injected: nothing below reads the machine's clock but through this.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment: seconds since 1970-01-01 UTC, and nanoseconds from 0 to 999,999,999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    /// Seconds since the epoch; negative before it.
    pub seconds: i64,
    /// The fraction, always counted upwards.
    pub nanos: u32,
}

impl Timestamp {
    /// Nanoseconds since the epoch.
    pub fn as_nanos(self) -> i128 {
        i128::from(self.seconds) * 1_000_000_000 + i128::from(self.nanos)
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => {
                Timestamp { seconds: i64::try_from(after.as_secs()).unwrap_or(i64::MAX), nanos: after.subsec_nanos() }
            }
            Err(before) => {
                let before = before.duration();
                let seconds = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
                match before.subsec_nanos() {
                    0 => Timestamp { seconds: -seconds, nanos: 0 },
                    n => Timestamp { seconds: -seconds - 1, nanos: 1_000_000_000 - n },
                }
            }
        }
    }
}

/// Where time comes from.
pub trait Clock: Send + Sync {
    /// The time of day.
    fn now(&self) -> Timestamp;
    /// A time that never runs backwards, since any fixed moment.
    fn elapsed(&self) -> Duration;
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock(std::time::Instant);

impl Default for SystemClock {
    fn default() -> Self {
        Self(std::time::Instant::now())
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        SystemTime::now().into()
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_the_epoch_counts_upwards() {
        let t: Timestamp = (UNIX_EPOCH - Duration::from_millis(1)).into();
        assert_eq!(t, Timestamp { seconds: -1, nanos: 999_000_000 });
        assert_eq!(t.as_nanos(), -1_000_000);
    }
}
