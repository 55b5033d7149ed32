//! A store in memory, for tests and trials.

use super::wrapped::Wrapped;
use super::{Listed, Store};
use crate::error::StoreError;
use bytes::Bytes;
use object_store::memory::InMemory;
use std::sync::Arc;

/// Objects that are gone with the process.
pub struct Memory(Wrapped);

impl Default for Memory {
    fn default() -> Self {
        Self(Wrapped(Arc::new(InMemory::new())))
    }
}

impl Store for Memory {
    fn describe(&self) -> String {
        "memory".into()
    }

    fn create(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        self.0.create(name, data)
    }

    fn write(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        self.0.write(name, data)
    }

    fn read(&self, name: &str, max: u64) -> Result<Bytes, StoreError> {
        self.0.read(name, max)
    }

    fn read_range(&self, name: &str, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        self.0.read_range(name, offset, len)
    }

    fn size(&self, name: &str) -> Result<u64, StoreError> {
        self.0.size(name)
    }

    fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        self.0.list(folder)
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.0.delete(name)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn keeps_the_contract() {
        super::super::contract::check(&super::Memory::default());
    }
}
