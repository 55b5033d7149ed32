//! Where data comes from. Reads only: nothing here writes, follows a symbolic
//! link that the user did not name, or knows of repositories.

pub mod files;
pub mod measure;
pub mod users;
pub(crate) mod xattr;
