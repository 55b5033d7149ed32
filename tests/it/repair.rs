//! Mending what is damaged, so that what was kept restores and nobody is told that a thing is whole which is not.

mod packs;
