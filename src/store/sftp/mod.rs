//! A store in a folder of a server that speaks SFTP, which is reached by the system's ssh.
//!
//! ssh is run as a program, so its configuration, agent, known hosts and jumps hold as everywhere, and
//! no secret passes through here. The protocol is spoken here (`wire`, `client`): a dozen requests of
//! version 3 in a few hundred lines. `openssh-sftp-client` was weighed: it is kept well, but needs an
//! asynchronous runtime, and tasks of its own, under a face of seven synchronous calls, and allocates
//! what a server claims that a packet is long.
//!
//! What it tells as done is durable where the server knows `fsync@openssh.com`; elsewhere as durable as
//! that server makes it. An object is created at once and whole (`upload`), also over a connection that
//! breaks: a request is sent again, over another connection, after pauses that grow, for half a minute.
//! A server that was never reached is not waited for.

mod client;
mod download;
mod folders;
mod link;
mod location;
mod pool;
mod upload;
mod walk;
mod wire;

use self::client::{Answer, Connection, Failure, or_refused};
use self::download::Read;
use self::link::{Link, Lost};
use self::location::Location;
use self::pool::Pool;
use self::upload::{Outcome, Upload};
use self::wire::{Request, Status};
use super::pace::Rates;
use super::staged::{self, Mode};
use super::{Listed, Store, fault, wrapped};
use crate::error::{Error, Result, StoreError, StoreFault};
use crate::limits;
use bytes::Bytes;
use std::collections::HashSet;
use std::ffi::OsString;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// The variable that names a program, and options, to be used in place of `ssh`.
const PROGRAM: &str = "ESTRATO_SSH";

/// Objects as files below a folder of a server. The folder is made by the first write, not before.
pub struct Sftp {
    location: Location,
    pool: Pool,
    /// Folders whose names are known to be durable, from the root, which is the empty one.
    durable: Mutex<HashSet<String>>,
    /// True once the root was there.
    was_there: AtomicBool,
    /// When this process last wrote here, by the server's clock; 0 if it has not.
    written: AtomicU32,
}

impl Sftp {
    /// The store that `sftp:` and this names. No connection is opened yet. `ESTRATO_SSH` may name
    /// another program than `ssh`, with options, in words as a shell takes them.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a location or a program that cannot be used.
    pub fn new(rest: &str) -> Result<Self> {
        let program = match std::env::var_os(PROGRAM).filter(|program| !program.is_empty()) {
            None => Vec::new(),
            Some(program) => {
                let words = program.to_str().and_then(shlex::split).filter(|words| !words.is_empty());
                let words = words.ok_or_else(|| Error::Invalid(format!("{PROGRAM} is no command")))?;
                words.into_iter().map(OsString::from).collect()
            }
        };
        Self::by(rest, program)
    }

    /// The same by a given program, with options; `ssh` if it is empty.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a location that cannot be used.
    pub fn by(rest: &str, program: Vec<OsString>) -> Result<Self> {
        let location = Location::parse(rest)?;
        let silence = Duration::from_secs(limits::SFTP_SILENCE_SECONDS);
        let there = location.clone();
        let dial = move || Link::start(there.command(&program), silence).and_then(Connection::open);
        Ok(Self::over(location, Box::new(dial), Duration::from_millis(limits::SFTP_PAUSE_MILLIS)))
    }

    /// The same, sending and receiving no faster than these rates.
    #[must_use]
    pub fn at(mut self, rates: Rates) -> Self {
        self.pool.rates = rates;
        self
    }

    /// The same over connections that are opened so.
    fn over(
        location: Location,
        dial: Box<dyn Fn() -> Result<Connection, Lost> + Send + Sync>,
        pause: Duration,
    ) -> Self {
        Self {
            location,
            pool: Pool::new(dial, pause),
            durable: Mutex::default(),
            was_there: AtomicBool::new(false),
            written: AtomicU32::new(0),
        }
    }

    /// Where an object lies.
    fn place(&self, operation: &'static str, name: &str) -> Result<String, StoreError> {
        let path = wrapped::path(operation, name)?;
        if name.is_empty() || staged::is_staged(name) {
            return Err(fault::not_found(operation, name));
        }
        Ok(self.location.below(path.as_ref()))
    }

    /// Makes the root if it is missing (only its owner may look into it), with the folders below it
    /// that will hold an object. Each is seen to once; one that goes away is not made again.
    fn make_folders(&self, operation: &'static str, name: &str) -> Result<(), StoreError> {
        let below = name.match_indices('/').map(|(at, _)| &name[..at]);
        for folder in std::iter::once("").chain(below) {
            let durable = || self.durable.lock().unwrap_or_else(PoisonError::into_inner);
            if durable().contains(folder) {
                continue;
            }
            let at = self.location.below(folder);
            let made = self.pool.run(|connection| match folder {
                "" => folders::make_all(connection, &at, 0o700),
                _ => folders::make(connection, &at, None),
            });
            made.map_err(|e| fault::of_write(failed(operation, name, e)))?;
            durable().insert(folder.to_owned());
        }
        self.was_there.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn put(&self, operation: &'static str, name: &str, data: &Bytes, mode: Mode) -> Result<(), StoreError> {
        let path = wrapped::path(operation, name)?;
        if name.is_empty() || staged::is_staged(name) {
            return Err(fault::new(StoreFault::Other, operation, name, "this is no object's name"));
        }
        self.make_folders(operation, name)?;
        let place = self.location.below(path.as_ref());
        let folder = self.location.below(name.rsplit_once('/').map_or("", |(folder, _)| folder));
        let mut upload = Upload::new(&place, &folder, data, mode);
        let outcome = self.pool.run(|connection| upload.attempt(connection));
        if let Some(written) = upload.written {
            self.written.store(written, Ordering::Relaxed);
        }
        match outcome.map_err(|e| fault::of_write(failed(operation, name, e)))? {
            Outcome::Named => Ok(()),
            Outcome::Taken => Err(fault::new(StoreFault::Exists, operation, name, "it exists already")),
        }
    }

    /// What a path leads to, if that is a file: its size.
    fn sized(&self, operation: &'static str, name: &str) -> Result<u64, StoreError> {
        let place = self.place(operation, name)?;
        let found = self.pool.run(|connection| connection.look(&Request::Look(&place)));
        let found = found.map_err(|e| failed(operation, name, e))?.filter(|found| found.is_file());
        found.and_then(|found| found.size).ok_or_else(|| fault::not_found(operation, name))
    }

    /// Everything below a folder. A root that was there is no store that is yet to be made.
    fn walk(&self, connection: &mut Connection, folder: &str) -> Answer<Vec<Listed>> {
        if let Some(found) = walk::below(connection, &self.location, folder)? {
            self.was_there.store(true, Ordering::Relaxed);
            self.tend(connection, folder, &found)?;
            return Ok(found.objects);
        }
        let root = self.location.below("");
        match connection.look(&Request::Look(&root))? {
            Some(found) if found.is_folder() || found.mode.is_none() => {
                self.was_there.store(true, Ordering::Relaxed);
                Ok(Vec::new())
            }
            Some(_) => Err(Failure::Unfit(StoreFault::Other, format!("{root}: not a directory"))),
            None if self.was_there.load(Ordering::Relaxed) => {
                Err(Failure::Unfit(StoreFault::Unavailable, format!("{root}: it is gone")))
            }
            None => Ok(Vec::new()),
        }
    }

    /// Sees to what was found in a folder: that its names are durable, and that what dead uploads have
    /// left is removed. Who has not written relies on nothing, may be forbidden to, and removes nothing.
    fn tend(&self, connection: &mut Connection, folder: &str, found: &walk::Found) -> Answer<()> {
        let written = self.written.load(Ordering::Relaxed);
        if written == 0 {
            return Ok(());
        }
        folders::sync(connection, &self.location.below(folder))?;
        let at = |seconds: u32| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.into());
        for (path, _) in found.staged.iter().filter(|(_, last)| staged::is_dead(at(*last), at(written))) {
            match or_refused(connection.ask(&Request::Remove(path)))? {
                Ok(()) => tracing::debug!("removed {path}, left by an upload that was killed"),
                Err(status) => tracing::debug!("{path} stays behind: {}", status.words),
            }
        }
        Ok(())
    }
}

/// What a refusal means for a store's caller.
fn sort(status: &Status) -> StoreFault {
    match status.code {
        Status::NO_SUCH_FILE => StoreFault::NotFound,
        Status::PERMISSION_DENIED | Status::WRITE_PROTECT => StoreFault::Denied,
        Status::EXISTS => StoreFault::Exists,
        Status::NO_SPACE | Status::QUOTA => StoreFault::Full,
        _ => StoreFault::Other,
    }
}

/// The error of a request that was not done.
fn failed(operation: &'static str, name: &str, failure: Failure) -> StoreError {
    match failure {
        Failure::Lost(lost) => fault::new(lost.fault, operation, name, &lost.why),
        Failure::Unfit(fault, why) => fault::new(fault, operation, name, &why),
        Failure::Refused(status) => match sort(&status) {
            StoreFault::NotFound => fault::not_found(operation, name),
            StoreFault::Full => fault::new(StoreFault::Full, operation, name, "No space left on the server's disk"),
            StoreFault::Other if status.words.is_empty() => {
                fault::new(StoreFault::Other, operation, name, &format!("the server's error {}", status.code))
            }
            fault => fault::new(fault, operation, name, &format!("the server says: {}", status.words)),
        },
    }
}

impl Store for Sftp {
    fn describe(&self) -> String {
        self.location.to_string()
    }

    fn is_far(&self) -> bool {
        true
    }

    fn create(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        self.put("create", name, &data, Mode::Create)
    }

    fn write(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        self.put("write", name, &data, Mode::Replace)
    }

    fn read(&self, name: &str, max: u64) -> Result<Bytes, StoreError> {
        let place = self.place("read", name)?;
        let read = self.pool.run(|connection| download::whole(connection, &place, max));
        match read.map_err(|e| failed("read", name, e))? {
            Read::Bytes(bytes) => Ok(bytes),
            Read::Sized(size) if size > max => Err(wrapped::large(name, size, max)),
            Read::Sized(_) => Err(fault::size("read", name, "it was cut short while it was read")),
            Read::Nothing => Err(fault::not_found("read", name)),
        }
    }

    fn read_range(&self, name: &str, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        let place = self.place("read", name)?;
        let read = self.pool.run(|connection| download::range(connection, &place, offset, len));
        match read.map_err(|e| failed("read", name, e))? {
            Read::Bytes(bytes) => Ok(bytes),
            Read::Sized(size) => Err(wrapped::short(name, offset, len, size)),
            Read::Nothing => Err(fault::not_found("read", name)),
        }
    }

    fn size(&self, name: &str) -> Result<u64, StoreError> {
        self.sized("look at", name)
    }

    fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        let path = wrapped::path("list", folder)?;
        self.pool.run(|connection| self.walk(connection, path.as_ref())).map_err(|e| {
            let e = failed("list", folder, e);
            // A folder that went away in the middle is no store that is yet to be made.
            if e.fault == StoreFault::NotFound { StoreError { fault: StoreFault::Unavailable, ..e } } else { e }
        })
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.sized("delete", name)?;
        let place = self.place("delete", name)?;
        let mut is_in_doubt = false;
        let deleted = self.pool.run(|connection| {
            let was_in_doubt = std::mem::replace(&mut is_in_doubt, true);
            match or_refused(connection.ask(&Request::Remove(&place)))? {
                // By the request whose answer was lost.
                Err(status) if was_in_doubt && sort(&status) == StoreFault::NotFound => Ok(()),
                answer => answer.map_err(Failure::Refused),
            }
        });
        deleted.map_err(|e| failed("delete", name, e))
    }
}

#[cfg(test)]
mod tests;
