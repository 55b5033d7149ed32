//! Hostile sources, hostile repositories and key material. A hostile repository is made by someone
//! who holds a full key of his own, and who hands over both the repository and the key.

mod bombs;
mod child;
mod contents;
mod deltas;
mod hostile;
mod indexes;
mod memory;
mod nodes;
mod nonces;
mod races;
mod records;
mod secrets;
mod source;
