//! Checks of a part of the packs, checks without a key, and what a check publishes.

mod keyless;
mod parts;
mod published;
