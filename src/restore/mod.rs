//! From a snapshot back to files. The tree is walked in rounds of bounded
//! size: a round makes folders and lists what each file needs; then its frames
//! are fetched pack by pack, decoded once each, and their blobs written where
//! they belong. Owner, mode, attributes and times come last.

mod fetch;
mod needs;
mod plan;
mod rounds;
mod run;
pub mod target;

pub use needs::{Need, Needs, needs};
pub use run::{Options, Outcome, run};
