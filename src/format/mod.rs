//! Every stored byte: how records are laid out, encoded and decoded.
//! repo-format.md is this folder in prose. No I/O, no keys, no policy.

pub mod cbor;
pub mod content;
pub mod header;
pub mod index;
pub mod key;
pub mod manifest;
pub mod names;
pub mod node;
pub mod pack;
pub mod parity;
pub mod records;
pub mod standing;

/// The format that this program writes, and the newest that it reads.
pub const FORMAT: u8 = 0;
