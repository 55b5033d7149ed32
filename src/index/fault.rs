//! What can be wrong with the database: it is damaged, or it cannot be used.

use crate::error::Error;
use rusqlite::ErrorCode;
use rusqlite::ffi;

/// Why a call did not do what it was asked.
#[derive(Debug)]
pub(super) enum Fault {
    /// What the file holds is not what was written there.
    Damaged(String),
    /// Another version of the program made the file.
    Foreign,
    /// The file cannot be read or written: a full disk, no permission, a lock that does not end.
    Unusable(String),
    /// No fault of the file's.
    Other(Error),
}

impl Fault {
    pub(super) fn damaged(why: impl Into<String>) -> Self {
        Self::Damaged(why.into())
    }
}

impl From<Error> for Fault {
    fn from(e: Error) -> Self {
        Self::Other(e)
    }
}

/// True if SQLite found that a file's bytes are wrong.
pub fn is_damage(e: &rusqlite::Error) -> bool {
    let Some(failure) = e.sqlite_error() else {
        // A column of another type than was written; a row that must be there and is not.
        return true;
    };
    match failure.code {
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::ConstraintViolation => true,
        // A table or column that is not there.
        ErrorCode::TypeMismatch | ErrorCode::Unknown => true,
        // A bad sector is as good as damage: a new file lies elsewhere.
        ErrorCode::SystemIoFailure => matches!(
            failure.extended_code,
            ffi::SQLITE_IOERR_READ | ffi::SQLITE_IOERR_SHORT_READ | ffi::SQLITE_IOERR_CORRUPTFS
        ),
        _ => false,
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(e: rusqlite::Error) -> Self {
        if is_damage(&e) { Self::Damaged(e.to_string()) } else { Self::Unusable(e.to_string()) }
    }
}
