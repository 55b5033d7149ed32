//! Sorts the errors of what lies below by what a caller can do about them, and
//! says each in one line. Tries nothing again.

use crate::error::{StoreError, StoreFault};
use object_store::Error;
use std::error::Error as StdError;
use std::io;
use std::path::Path;

/// What an I/O error means for a store's caller.
fn sort(e: &io::Error) -> StoreFault {
    match e.kind() {
        io::ErrorKind::NotFound => StoreFault::NotFound,
        io::ErrorKind::AlreadyExists => StoreFault::Exists,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => StoreFault::Denied,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreFault::Full,
        io::ErrorKind::UnexpectedEof => StoreFault::Size,
        io::ErrorKind::TimedOut
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NotConnected
        | io::ErrorKind::StaleNetworkFileHandle => StoreFault::Unavailable,
        _ => StoreFault::Other,
    }
}

/// The error at the root of others; an I/O error is not looked into.
fn root<'e>(e: &'e (dyn StdError + 'static)) -> &'e (dyn StdError + 'static) {
    let mut at = e;
    while !at.is::<io::Error>() {
        match at.source() {
            Some(below) => at = below,
            None => break,
        }
    }
    at
}

/// An error of the given kind.
pub(super) fn new(fault: StoreFault, operation: &'static str, name: &str, why: &str) -> StoreError {
    let why = why.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    StoreError { fault, operation, object: name.to_owned(), why }
}

/// There is no such object.
pub(super) fn not_found(operation: &'static str, name: &str) -> StoreError {
    new(StoreFault::NotFound, operation, name, "there is no such object")
}

/// The object does not have the size that the caller counts on.
pub(super) fn size(operation: &'static str, name: &str, why: &str) -> StoreError {
    new(StoreFault::Size, operation, name, why)
}

/// An error of this machine's file system.
pub(super) fn of_io(operation: &'static str, name: &str, e: &io::Error) -> StoreError {
    new(sort(e), operation, name, &e.to_string())
}

/// The same, where a path says more than the object's name.
pub(super) fn at(operation: &'static str, name: &str, place: &Path, e: &io::Error) -> StoreError {
    new(sort(e), operation, name, &format!("{}: {e}", place.display()))
}

/// An error of `object_store`.
pub(super) fn below(operation: &'static str, name: &str, e: &Error) -> StoreError {
    let root = root(e);
    let fault = match e {
        Error::NotFound { .. } => StoreFault::NotFound,
        Error::AlreadyExists { .. } => StoreFault::Exists,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => StoreFault::Denied,
        _ => root.downcast_ref().map_or(StoreFault::Other, sort),
    };
    match fault {
        StoreFault::NotFound => not_found(operation, name),
        StoreFault::Exists => new(fault, operation, name, "it exists already"),
        _ => new(fault, operation, name, &root.to_string()),
    }
}

/// The same for a request that writes: what it did not find is the place, and no object.
pub(super) fn of_write(e: StoreError) -> StoreError {
    match e.fault {
        StoreFault::NotFound => {
            StoreError { fault: StoreFault::Other, why: "the place to write it is gone".into(), ..e }
        }
        _ => e,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(source: impl StdError + Send + Sync + 'static) -> StoreError {
        below("create", "packs/ab", &Error::Generic { store: "LocalFileSystem", source: Box::new(source) })
    }

    #[test]
    fn io_errors_are_found_below_others() {
        for (code, fault) in [
            (28, StoreFault::Full),
            (122, StoreFault::Full),
            (13, StoreFault::Denied),
            (1, StoreFault::Denied),
            (30, StoreFault::Denied),
            (2, StoreFault::NotFound),
            (110, StoreFault::Unavailable),
            (116, StoreFault::Unavailable),
            (5, StoreFault::Other),
            (20, StoreFault::Other),
        ] {
            assert_eq!(generic(io::Error::from_raw_os_error(code)).fault, fault, "errno {code}");
            let at = at("read", "name", Path::new("/place"), &io::Error::from_raw_os_error(code));
            assert_eq!(at.fault, fault, "errno {code}");
        }
    }

    #[test]
    fn why_is_one_line_without_the_layers() {
        let full = generic(io::Error::from_raw_os_error(28));
        assert_eq!(full.to_string(), "create packs/ab: No space left on device (os error 28)");
        let lines = generic(io::Error::other("<Error>\n\tslow down\n</Error>"));
        assert_eq!(lines.why, "<Error>  slow down </Error>");
    }

    #[test]
    fn a_write_finds_no_object_missing() {
        let e = of_write(generic(io::Error::from_raw_os_error(2)));
        assert_eq!(e.fault, StoreFault::Other);
        assert_eq!(of_write(generic(io::Error::from_raw_os_error(28))).fault, StoreFault::Full);
    }
}
