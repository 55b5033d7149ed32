//! Hostile sources, hostile repositories and key material. A hostile repository is made by someone
//! who holds a full key of his own, and who hands over both the repository and the key.

mod child;
mod contents;
mod hostile;
mod nodes;
mod races;
mod source;
