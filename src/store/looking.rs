//! A store that cannot create an object only where there is none: it is looked first. Of two who create the
//! same name within the time of a request, both may be told that they did; whoever stands on such a
//! store must do without more.

use super::{Listed, Protection, Store, fault};
use crate::error::{StoreError, StoreFault};
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;

/// See the module.
pub struct Looking(pub Arc<dyn Store>);

impl Looking {
    fn look(&self, name: &str) -> Result<(), StoreError> {
        match self.0.size(name) {
            Ok(_) => Err(fault::new(StoreFault::Exists, "create", name, "it is there already")),
            Err(e) if e.fault == StoreFault::NotFound => Ok(()),
            Err(e) => Err(e),
        }
    }
}

impl Store for Looking {
    fn describe(&self) -> String {
        self.0.describe()
    }

    fn local_path(&self) -> Option<&Path> {
        self.0.local_path()
    }

    fn is_far(&self) -> bool {
        self.0.is_far()
    }

    fn freezes(&self) -> bool {
        self.0.freezes()
    }

    fn protection(&self) -> Protection {
        self.0.protection()
    }

    fn retained_until(&self, name: &str) -> Option<crate::clock::Timestamp> {
        self.0.retained_until(name)
    }

    fn create(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        self.look(name)?;
        self.0.create(name, data)
    }

    fn create_cold(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        self.look(name)?;
        self.0.create_cold(name, data)
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

    fn read_lasting(&self, name: &str, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        self.0.read_lasting(name, offset, len)
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

#[cfg(all(test, feature = "fault-store"))]
mod tests {
    use super::super::{Fault, Faulty, Memory, contract};
    use super::*;

    #[test]
    fn what_is_there_is_not_replaced() {
        let replaces = Faulty::new(Arc::new(Memory::default()));
        replaces.decide(|request| (request.operation == "create").then_some(Fault::Overwrite));
        let store = Looking(Arc::new(replaces));
        store.create("a", "1".into()).unwrap();
        for create in [Looking::create, Looking::create_cold] {
            assert_eq!(create(&store, "a", "2".into()).unwrap_err().fault, StoreFault::Exists);
        }
        assert_eq!(&store.read("a", 9).unwrap()[..], b"1");
        contract::check(&Looking(Arc::new(Memory::default())));
    }
}
