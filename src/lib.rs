//! Estrato: a content-addressed, deduplicating, encrypted backup repository.
//!
//! ARCHITECTURE.md tells the floors and what stands on each; repo-format.md
//! tells every stored byte. The library never prints and never exits.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod backup;
pub mod chunker;
pub mod cli;
pub mod clock;
pub mod crypto;
pub mod error;
pub mod format;
pub mod id;
pub mod index;
pub mod limits;
pub mod maintenance;
pub mod monitor;
pub mod pack;
pub mod repo;
pub mod restore;
pub mod snapshot;
pub mod source;
pub mod store;
