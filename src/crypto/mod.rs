//! Sealing and opening: AEAD, HPKE, signatures, slots, and the keys derived
//! for each use. No I/O, and no byte layout of its own: that is `format`.

pub mod aead;
pub mod derive;
pub mod envelope;
pub mod hpke;
pub mod keyfile;
pub mod random;
pub mod sign;
pub mod slot;
pub mod stack;
