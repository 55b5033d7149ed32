//! Waiting for a connection's turn within a rate that all share, where threads must not wait.

use crate::store::pace::{Pace, STEP};
use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// The time of some bytes, which is over at some moment.
pub(super) struct Turn {
    pace: Arc<Pace>,
    due: Duration,
    sleep: Pin<Box<Sleep>>,
}

impl Turn {
    /// Reserves the time of so many bytes.
    pub(super) fn of(pace: &Arc<Pace>, bytes: usize) -> Self {
        let due = pace.reserve(bytes);
        Self { pace: Arc::clone(pace), due, sleep: Box::pin(sleep_until(Instant::now())) }
    }

    /// How long it will last.
    pub(super) fn left(&self) -> Duration {
        self.pace.left(self.due)
    }

    /// Ready when it is over.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            let left = self.left();
            if left.is_zero() {
                return Poll::Ready(());
            }
            // In steps: the user may ask to stop meanwhile.
            self.sleep.as_mut().reset(Instant::now() + left.min(STEP));
        }
    }
}
