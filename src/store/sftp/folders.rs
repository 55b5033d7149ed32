//! Makes folders on a server, and names durable: those of folders, and those in them. The protocol has
//! nothing for that; but OpenSSH's server opens a folder like a file, and syncs what it has opened. A
//! server that refuses either keeps names as durable as it likes.

use super::client::{Answer, Connection, Failure, or_refused};
use super::wire::{Open, Request, Status};
use crate::error::StoreFault;

/// The folder that holds what has this path.
pub(super) fn holder(path: &str) -> Option<&str> {
    match path.rsplit_once('/') {
        Some(("", "")) => None,
        Some(("", _)) => Some("/"),
        Some((holder, _)) => Some(holder),
        None => (path != ".").then_some("."),
    }
}

/// Asks for a folder to be opened so that it can be synced, where the server knows that.
pub(super) fn open(connection: &mut Connection, folder: &str) -> Option<u32> {
    connection.known.sync.then(|| connection.send(&Request::Open(folder, Open::Read)))
}

/// Syncs the folder that was so opened, and closes it.
pub(super) fn sync_opened(connection: &mut Connection, opened: Option<u32>) -> Answer<()> {
    let Some(opened) = opened else { return Ok(()) };
    let Ok(folder) = or_refused(connection.handle(opened))? else { return Ok(()) };
    let syncs = connection.send(&Request::Sync(&folder));
    connection.close(&folder);
    synced(connection, syncs)
}

/// Syncs a folder: then the names in it are durable.
pub(super) fn sync(connection: &mut Connection, folder: &str) -> Answer<()> {
    let opened = open(connection, folder);
    sync_opened(connection, opened)
}

/// The answer to a request to sync. Some file systems cannot, and say so in other words than a disk
/// that fails.
pub(super) fn synced(connection: &mut Connection, id: u32) -> Answer<()> {
    match or_refused(connection.done(id))? {
        Err(status) if status.code == Status::FAILURE => Err(Failure::Refused(status)),
        _ => Ok(()),
    }
}

/// Makes a folder if it is missing, with permission bits or the server's own; the one above it must be
/// there. Its name is durable once this returns, whoever made it.
pub(super) fn make(connection: &mut Connection, path: &str, mode: Option<u32>) -> Answer<()> {
    let makes = connection.send(&Request::MakeFolder(path, mode));
    let looks = connection.send(&Request::Look(path));
    let opened = holder(path).and_then(|holder| open(connection, holder));
    let made = or_refused(connection.done(makes))?;
    let looked = or_refused(connection.looked(looks))?;
    sync_opened(connection, opened)?;
    match (made, looked) {
        (Ok(()), _) => Ok(()),
        (Err(_), Ok(Some(found))) if found.is_folder() => Ok(()),
        (Err(_), Ok(Some(_))) => Err(Failure::Unfit(StoreFault::Other, format!("{path}: not a directory"))),
        (Err(status), _) => Err(Failure::Refused(status)),
    }
}

/// The same with those above it that are missing; `mode` is for the last.
pub(super) fn make_all(connection: &mut Connection, path: &str, mode: u32) -> Answer<()> {
    let mut missing = Vec::new();
    let mut at = holder(path);
    while let Some(path) = at {
        if connection.look(&Request::Look(path))?.is_some() {
            break;
        }
        missing.push(path);
        at = holder(path);
    }
    for path in missing.into_iter().rev() {
        make(connection, path, None)?;
    }
    make(connection, path, Some(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders() {
        for (path, expected) in [
            ("/", None),
            ("/a", Some("/")),
            ("/a/b", Some("/a")),
            (".", None),
            ("./a", Some(".")),
            ("a", Some(".")),
            ("a/b", Some("a")),
        ] {
            assert_eq!(holder(path), expected, "{path}");
        }
    }
}
