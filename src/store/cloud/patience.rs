//! How long a store that is far is waited for, and how often it is asked again: exponential backoff
//! with jitter, bounded by time and by count.

use super::failure::{Again, Failure};
use crate::error::StoreError;
use crate::limits;
use std::time::Duration;
use tokio::time::Instant;

/// Bounds of waiting. [`Patience::default`] is what `limits` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patience {
    /// For a connection to come about.
    pub connect: Duration,
    /// While nothing of a request or its answer moves.
    pub idle: Duration,
    /// For an answer, once an upload was handed to the kernel.
    pub answer: Duration,
    /// For one request, however much moves.
    pub request: Duration,
    /// How long what fails in ways that pass is tried again, counted from its first failure since
    /// something was got done.
    pub retry: Duration,
    /// The same while the store has never answered.
    pub first: Duration,
    /// Requests for one thing, at most.
    pub tries: u32,
    /// The first wait.
    pub backoff: Duration,
    /// The longest.
    pub backoff_max: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(limits::CLOUD_CONNECT_SECONDS),
            idle: Duration::from_secs(limits::CLOUD_IDLE_SECONDS),
            answer: Duration::from_secs(limits::CLOUD_ANSWER_SECONDS),
            request: Duration::from_secs(limits::CLOUD_REQUEST_SECONDS),
            retry: Duration::from_secs(limits::CLOUD_RETRY_SECONDS),
            first: Duration::from_secs(limits::CLOUD_FIRST_SECONDS),
            tries: limits::CLOUD_TRIES,
            backoff: Duration::from_millis(limits::CLOUD_BACKOFF_MILLIS),
            backoff_max: Duration::from_millis(limits::CLOUD_BACKOFF_MAX_MILLIS),
        }
    }
}

/// The tries of one operation.
pub(super) struct Trial<'a> {
    patience: &'a Patience,
    operation: &'static str,
    name: &'a str,
    failures: u32,
    since: Option<Instant>,
    renewed: bool,
}

impl<'a> Trial<'a> {
    pub(super) fn new(patience: &'a Patience, operation: &'static str, name: &'a str) -> Self {
        Self { patience, operation, name, failures: 0, since: None, renewed: false }
    }

    /// Something was got done: what fails from here on is tried anew.
    pub(super) fn moved(&mut self) {
        (self.failures, self.since) = (0, None);
    }

    /// The error that this failure is to whoever asked.
    pub(super) fn error(&self, failure: Failure) -> StoreError {
        failure.into_error(self.operation, self.name)
    }

    /// Waits, if it is to be tried again; or else gives the failure back as an error. `is_known` says
    /// that the store has answered before.
    pub(super) async fn again(&mut self, failure: Failure, is_known: bool) -> Result<(), StoreError> {
        let after = match failure.again {
            Again::Never => return Err(self.error(failure)),
            Again::Once if self.renewed => return Err(self.error(failure)),
            Again::Once => {
                self.renewed = true;
                None
            }
            Again::Later(after) => after,
        };
        self.failures += 1;
        let since = *self.since.get_or_insert_with(Instant::now);
        let longest = if is_known { self.patience.retry } else { self.patience.first };
        let wait = self.wait(after);
        if self.failures >= self.patience.tries || since.elapsed() + wait > longest {
            let tries = self.failures;
            let mut e = self.error(failure);
            if tries > 1 {
                e.why = format!("{} (tried {tries} times)", e.why);
            }
            return Err(e);
        }
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// The next wait: between half and the whole of what doubles each time, and no shorter than the
    /// store asks for, up to the longest.
    fn wait(&self, after: Option<Duration>) -> Duration {
        let doubled = self.patience.backoff.saturating_mul(1 << (self.failures.saturating_sub(1)).min(20));
        let whole = doubled.min(self.patience.backoff_max);
        // Without randomness waits are still bounded.
        let random = getrandom::u32().unwrap_or(u32::MAX);
        let part = whole / 2 + whole.mul_f64(f64::from(random) / f64::from(u32::MAX) / 2.0);
        part.max(after.unwrap_or_default().min(self.patience.backoff_max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::StoreFault;

    fn busy() -> Failure {
        Failure::passing("busy")
    }

    fn run<T>(work: impl Future<Output = T>) -> T {
        super::super::engine::Engine::shared().unwrap().wait(work)
    }

    fn quick(tries: u32) -> Patience {
        let millis = Duration::from_millis;
        Patience { tries, backoff: millis(1), backoff_max: millis(4), retry: millis(500), ..Patience::default() }
    }

    #[test]
    fn waits_double_with_jitter_up_to_the_longest() {
        let patience = Patience::default();
        let mut trial = Trial::new(&patience, "read", "a");
        let mut least = Duration::from_millis(50);
        for failures in 1..=30 {
            trial.failures = failures;
            let waits: Vec<_> = (0..50).map(|_| trial.wait(None)).collect();
            assert!(waits.iter().all(|wait| *wait >= least && *wait <= least * 2), "{failures}: {waits:?}");
            assert!(waits.iter().any(|wait| *wait != waits[0]), "no jitter");
            least = (least * 2).min(patience.backoff_max / 2);
        }
        assert!(trial.wait(Some(Duration::from_secs(9999))) == patience.backoff_max);
    }

    #[test]
    fn tries_are_counted_and_progress_starts_anew() {
        run(async {
            let patience = quick(4);
            let mut trial = Trial::new(&patience, "read", "packs/a");
            for _ in 0..3 {
                trial.again(busy(), true).await.unwrap();
            }
            trial.moved();
            for _ in 0..3 {
                trial.again(busy(), true).await.unwrap();
            }
            let e = trial.again(busy(), true).await.unwrap_err();
            assert_eq!(e.to_string(), "read packs/a: busy (tried 4 times)");
        });
    }

    #[test]
    fn time_is_bounded_and_a_stranger_gets_less() {
        run(async {
            let patience = Patience { first: Duration::from_millis(20), ..quick(u32::MAX) };
            let mut trial = Trial::new(&patience, "list", "");
            let began = Instant::now();
            while trial.again(busy(), false).await.is_ok() {}
            assert!(began.elapsed() < Duration::from_millis(400), "{:?}", began.elapsed());
            let began = Instant::now();
            let mut trial = Trial::new(&patience, "list", "");
            while trial.again(busy(), true).await.is_ok() {}
            assert!(began.elapsed() > Duration::from_millis(400), "{:?}", began.elapsed());
        });
    }

    #[test]
    fn what_will_not_pass_is_not_tried_again() {
        run(async {
            let patience = quick(9);
            let mut trial = Trial::new(&patience, "write", "a");
            let denied = |again| Failure { again, ..Failure::new(StoreFault::Denied, "no") };
            assert_eq!(trial.again(denied(Again::Never), true).await.unwrap_err().to_string(), "write a: no");
            trial.again(denied(Again::Once), true).await.unwrap();
            assert_eq!(trial.again(denied(Again::Once), true).await.unwrap_err().fault, StoreFault::Denied);
        });
    }
}
