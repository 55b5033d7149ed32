//! A store that takes its time: each request waits as long as its bytes may take. For stores that move
//! an object all at once; those that are far keep their rate while they move it.

use super::pace::Rates;
use super::{Listed, Store};
use crate::error::StoreError;
use bytes::Bytes;
use std::path::Path;

/// A store, and how fast it may be.
pub(super) struct Limited<S> {
    inner: S,
    rates: Rates,
}

impl<S: Store> Limited<S> {
    pub(super) fn new(inner: S, rates: Rates) -> Self {
        Self { inner, rates }
    }

    fn received(&self, answer: Result<Bytes, StoreError>) -> Result<Bytes, StoreError> {
        answer.inspect(|bytes| self.rates.wait_to_receive(bytes.len()))
    }
}

impl<S: Store> Store for Limited<S> {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn local_path(&self) -> Option<&Path> {
        self.inner.local_path()
    }

    fn is_far(&self) -> bool {
        self.inner.is_far()
    }

    fn freezes(&self) -> bool {
        self.inner.freezes()
    }

    fn create(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        self.rates.wait_to_send(data.len());
        self.inner.create(name, data)
    }

    fn create_cold(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        self.rates.wait_to_send(data.len());
        self.inner.create_cold(name, data)
    }

    fn write(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        self.rates.wait_to_send(data.len());
        self.inner.write(name, data)
    }

    fn read(&self, name: &str, max: u64) -> Result<Bytes, StoreError> {
        self.received(self.inner.read(name, max))
    }

    fn read_range(&self, name: &str, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        self.received(self.inner.read_range(name, offset, len))
    }

    fn size(&self, name: &str) -> Result<u64, StoreError> {
        self.inner.size(name)
    }

    fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        self.inner.list(folder)
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.inner.delete(name)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Memory, contract};
    use super::*;
    use crate::clock::{Clock, SystemClock};
    use crate::monitor::{Monitor, Silent};
    use std::num::NonZeroU64;
    use std::sync::Arc;

    #[test]
    fn keeps_the_contract() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let monitor: Arc<dyn Monitor> = Arc::new(Silent);
        let rate = NonZeroU64::new(1 << 40);
        contract::check(&Limited::new(Memory::default(), Rates::new(rate, rate, &clock, &monitor)));
    }
}
