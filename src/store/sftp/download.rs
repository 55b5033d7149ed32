//! Reads objects, whole or in part, from files on a server. Each is asked for in many blocks at a time;
//! one whose connection broke is read from its beginning again.

use super::client::{Answer, Connection};
use super::wire::{Attributes, Handle, Open, Request};
use crate::limits;
use bytes::Bytes;

/// What a file that was opened holds.
#[derive(Debug)]
pub(super) enum Read {
    Bytes(Bytes),
    /// It has so many bytes, and that is not what its reader counts on.
    Sized(u64),
    /// It is no file.
    Nothing,
}

/// The bytes of a whole object, if there are no more than that.
pub(super) fn whole(connection: &mut Connection, place: &str, max: u64) -> Answer<Read> {
    let file = connection.open_file(place, Open::Read)?;
    let tells = connection.send(&Request::Attributes(&file));
    // Most objects that are read whole are small.
    let first = connection.send(&Request::Read { file: &file, offset: 0, len: limits::SFTP_BLOCK as u32 });
    let told = connection.attributes(tells);
    let data = connection.data(first, limits::SFTP_BLOCK);
    if let Ok(Some(data)) = &data {
        connection.rates.wait_to_receive(data.len());
    }
    let read = told.and_then(|told| match size(told) {
        None => Ok(Read::Nothing),
        Some(size) => match usize::try_from(size) {
            Ok(len) if size <= max => rest(connection, &file, data?.unwrap_or_default(), len),
            _ => Ok(Read::Sized(size)),
        },
    });
    connection.close(&file);
    read
}

/// How long a file is; `None` for what is none.
fn size(told: Attributes) -> Option<u64> {
    told.size.filter(|_| told.is_file())
}

/// What follows the first block of a file of that length.
fn rest(connection: &mut Connection, file: &Handle, first: Bytes, len: usize) -> Answer<Read> {
    if first.len() >= len {
        return Ok(Read::Bytes(Bytes::copy_from_slice(&first[..len])));
    }
    let mut bytes = vec![0; len];
    bytes[..first.len()].copy_from_slice(&first);
    match connection.read(file, first.len() as u64, &mut bytes[first.len()..])? {
        true => Ok(Read::Bytes(bytes.into())),
        false => Ok(Read::Sized(0)),
    }
}

/// Some bytes of an object.
pub(super) fn range(connection: &mut Connection, place: &str, offset: u64, len: usize) -> Answer<Read> {
    let file = connection.open_file(place, Open::Read)?;
    let read = part(connection, &file, offset, len);
    connection.close(&file);
    read
}

fn part(connection: &mut Connection, file: &Handle, offset: u64, len: usize) -> Answer<Read> {
    let is_sound = len > 0 && offset.checked_add(len as u64).is_some();
    let mut bytes = vec![0; if is_sound { len } else { 0 }];
    let read = if is_sound { connection.read(file, offset, &mut bytes) } else { Ok(false) };
    if let Ok(true) = read {
        return Ok(Read::Bytes(bytes.into()));
    }
    // How long it is says why; and what is no file cannot be read.
    let tells = connection.send(&Request::Attributes(file));
    match size(connection.attributes(tells)?) {
        None => Ok(Read::Nothing),
        Some(size) if len == 0 && offset <= size => Ok(Read::Bytes(Bytes::new())),
        Some(size) => read.map(|_| Read::Sized(size)),
    }
}
