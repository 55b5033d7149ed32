//! Building and reading packs: frames are compressed, sealed and laid one after
//! the other, and a directory closes them. In memory only: the store is the
//! business of whoever holds the bytes.

mod build;
mod codec;
mod open;
mod parity;

pub use build::{FinishedPack, PackBuilder};
pub use codec::{Bases, Compressor, Decompressor, EncodedFrame, PlainFrame};
pub use open::{PackKey, WholePack};
pub use parity::{Mended, Unmended, is_itself, mend};
