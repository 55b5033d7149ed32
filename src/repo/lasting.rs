//! Which objects are worth a copy on this machine, where the store is far.

use crate::format::names::{Kind, kind_of};
use crate::store::Lasting;

/// Whether a copy of an object is kept, for [`crate::store::Cached`]. Index objects are not: what they say is
/// in the index on this machine. Nor is what changes: sessions, plans and holds.
pub fn lasting(name: &str) -> Lasting {
    match kind_of(name) {
        Some(Kind::Repo | Kind::Tenant) => Lasting::Unseen,
        Some(Kind::Key | Kind::Snapshot | Kind::Forgotten) => Lasting::Listed,
        Some(Kind::Pack) => Lasting::Part,
        Some(Kind::Index | Kind::Session | Kind::Plan | Kind::Damage | Kind::Hold) | None => Lasting::No,
    }
}
