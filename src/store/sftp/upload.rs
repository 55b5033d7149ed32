//! Puts an object in its place on a server all at once: a file is filled beside it (`NAME#` and a
//! number, as on this machine: `store/staged.rs`), synced, and linked or renamed there; then its folder
//! is synced.
//!
//! A connection may break at any step, and the step may have been done all the same, or be done later
//! by a server that has not noticed. So an upload knows how far it is sure to have come, and goes on
//! from there over the next connection. A link whose answer was lost is its own if, once there was
//! nothing under that name, there are its bytes.
//!
//! The name is given by a hard link, which fails if it is taken, on every server that knows
//! `hardlink@openssh.com`. Elsewhere, and where the server's disk knows no links, by `SSH_FXP_RENAME`,
//! which must fail then too: OpenSSH's does, by the same link, but looks and then renames on a disk
//! without links, where of two who come at once both may be told that they were first. Other servers
//! may replace what is there; so it is looked for first.

use super::client::{Answer, Connection, Failure, or_refused};
use super::folders;
use super::wire::{self, Handle, Open, Request, Status};
use crate::error::StoreFault;
use crate::store::staged::Mode;
use bytes::Bytes;

/// How an upload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The object has its name.
    Named,
    /// Another one has it.
    Taken,
}

pub(super) struct Upload<'a> {
    /// The object's path, and its folder's.
    place: &'a str,
    folder: &'a str,
    data: &'a Bytes,
    mode: Mode,
    /// The file beside, once it is whole.
    whole: Option<String>,
    /// Files beside that are to be removed: those of attempts that broke.
    left: Vec<String>,
    /// The name was asked for, and nobody knows what came of it.
    is_in_doubt: bool,
    outcome: Option<Outcome>,
    /// When the file was written, by the server's clock.
    pub written: Option<u32>,
}

impl<'a> Upload<'a> {
    pub fn new(place: &'a str, folder: &'a str, data: &'a Bytes, mode: Mode) -> Self {
        let left = Vec::new();
        Self { place, folder, data, mode, whole: None, left, is_in_doubt: false, outcome: None, written: None }
    }

    /// Goes on from where it is, over this connection.
    pub fn attempt(&mut self, connection: &mut Connection) -> Answer<Outcome> {
        self.clear(connection)?;
        if self.outcome.is_none() && self.whole.is_none() {
            self.fill(connection)?;
        }
        let outcome = match self.outcome {
            Some(outcome) => outcome,
            None => self.name(connection)?,
        };
        self.outcome = Some(outcome);
        if self.mode == Mode::Create || outcome == Outcome::Taken {
            self.left.extend(self.whole.take());
        }
        // In this order, so that a crash does not bring back what is removed.
        self.clear(connection)?;
        folders::sync(connection, self.folder)?;
        Ok(outcome)
    }

    /// Removes what broken attempts have left; what stays is removed when it has grown old.
    fn clear(&mut self, connection: &mut Connection) -> Answer<()> {
        while let Some(path) = self.left.last() {
            let _ = or_refused(connection.ask(&Request::Remove(path)))?;
            self.left.pop();
        }
        Ok(())
    }

    /// Fills a file beside, unless the name is taken already.
    fn fill(&mut self, connection: &mut Connection) -> Answer<()> {
        let number = getrandom::u64().map_err(|e| Failure::Unfit(StoreFault::Other, e.to_string()))?;
        let beside = format!("{}#{number}", self.place);
        self.left.push(beside.clone());
        let looks = (self.mode == Mode::Create).then(|| connection.send(&Request::LookAt(self.place)));
        let opens = connection.send(&Request::Open(&beside, Open::New));
        let looked = looks.map(|id| or_refused(connection.looked(id))).transpose()?;
        let opened = or_refused(connection.handle(opens))?;
        if let Some(Ok(Some(_))) = looked {
            if let Ok(file) = opened {
                connection.close(&file);
            }
            self.outcome = Some(Outcome::Taken);
            return Ok(());
        }
        let filled = match opened {
            Ok(file) => or_refused(self.write(connection, &file))?,
            Err(status) => Err(status),
        };
        if let Err(status) = filled {
            // Before what takes up the room is removed.
            let status = self.explained(connection, status)?;
            self.clear(connection)?;
            return Err(Failure::Refused(status));
        }
        self.whole = self.left.pop();
        Ok(())
    }

    fn write(&mut self, connection: &mut Connection, file: &Handle) -> Answer<()> {
        if let Err(e) = connection.write(file, self.data) {
            connection.close(file);
            return Err(e);
        }
        let syncs = connection.known.sync.then(|| connection.send(&Request::Sync(file)));
        let tells = connection.send(&Request::Attributes(file));
        let closes = connection.send(&Request::Close(file));
        let synced = or_refused(syncs.map_or(Ok(()), |id| folders::synced(connection, id)))?;
        let told = or_refused(connection.attributes(tells))?;
        let closed = or_refused(connection.done(closes))?;
        self.written = told.ok().and_then(|attributes| attributes.modified);
        synced.and(closed).map_err(Failure::Refused)
    }

    /// What is meant by a failure that says no more: most likely that the disk is full.
    fn explained(&self, connection: &mut Connection, status: Status) -> Answer<Status> {
        if status.code != Status::FAILURE || !connection.known.room {
            return Ok(status);
        }
        let asks = connection.send(&Request::Room(self.folder));
        let Ok(room) = or_refused(connection.extended(asks))? else { return Ok(status) };
        let is_full = wire::is_full(room).map_err(|e| connection.malformed(&e))?;
        Ok(if is_full { Status { code: Status::NO_SPACE, ..status } } else { status })
    }

    fn name(&mut self, connection: &mut Connection) -> Answer<Outcome> {
        let Some(beside) = self.whole.clone() else { return Ok(Outcome::Taken) };
        let named = or_refused(match self.mode {
            Mode::Create => self.create(connection, &beside),
            Mode::Replace => self.replace(connection, &beside),
        })?;
        match named {
            Ok(outcome) => Ok(outcome),
            Err(status) => {
                let status = self.explained(connection, status)?;
                self.left.extend(self.whole.take());
                self.clear(connection)?;
                Err(Failure::Refused(status))
            }
        }
    }

    /// Asks for the name. While no answer has come, nobody knows.
    fn ask(&mut self, connection: &mut Connection, request: &Request<'_>) -> Answer<Result<(), Status>> {
        let before = std::mem::replace(&mut self.is_in_doubt, true);
        let answer = or_refused(connection.ask(request))?;
        self.is_in_doubt = before;
        Ok(answer)
    }

    fn create(&mut self, connection: &mut Connection, beside: &str) -> Answer<Outcome> {
        // It was looked for before the file was filled; a server without links may need it once more.
        if (self.is_in_doubt || !connection.known.link)
            && let Some(outcome) = self.found(connection)?
        {
            return Ok(outcome);
        }
        if connection.known.link {
            let link = Request::Link { from: beside, to: self.place };
            if self.ask(connection, &link)?.is_ok() {
                return Ok(Outcome::Named);
            }
            if let Some(outcome) = self.found(connection)? {
                return Ok(outcome);
            }
        }
        match self.ask(connection, &Request::Rename { from: beside, to: self.place })? {
            Ok(()) => Ok(Outcome::Named),
            Err(status) => self.found(connection)?.ok_or(Failure::Refused(status)),
        }
    }

    /// What came of it, if there is something under the name.
    fn found(&self, connection: &mut Connection) -> Answer<Option<Outcome>> {
        let Some(found) = connection.look(&Request::LookAt(self.place))? else { return Ok(None) };
        if !self.is_in_doubt || found.size != Some(self.data.len() as u64) {
            return Ok(Some(Outcome::Taken));
        }
        let file = match or_refused(connection.open_file(self.place, Open::Read))? {
            Ok(file) => file,
            Err(Status { code: Status::NO_SUCH_FILE, .. }) => return Ok(None),
            Err(_) => return Ok(Some(Outcome::Taken)),
        };
        let mut bytes = vec![0; self.data.len()];
        let read = connection.read(&file, 0, &mut bytes);
        connection.close(&file);
        let is_ours = read? && bytes == *self.data;
        Ok(Some(if is_ours { Outcome::Named } else { Outcome::Taken }))
    }

    fn replace(&mut self, connection: &mut Connection, beside: &str) -> Answer<Outcome> {
        if self.is_moved(connection, beside)? {
            return Ok(Outcome::Named);
        }
        let (from, to) = (beside, self.place);
        let mut answer = match connection.known.replace {
            true => self.ask(connection, &Request::Replace { from, to })?,
            false => self.ask(connection, &Request::Rename { from, to })?,
        };
        if answer.is_err() && !connection.known.replace && !self.is_moved(connection, beside)? {
            // Such a server cannot replace: for a moment there is nothing under the name.
            let _ = or_refused(connection.ask(&Request::Remove(self.place)))?;
            answer = self.ask(connection, &Request::Rename { from, to })?;
        }
        match answer {
            Err(status) if !self.is_moved(connection, beside)? => Err(Failure::Refused(status)),
            _ => Ok(Outcome::Named),
        }
    }

    /// True if a renaming whose answer was lost was done: the file beside is gone.
    fn is_moved(&self, connection: &mut Connection, beside: &str) -> Answer<bool> {
        Ok(self.is_in_doubt && connection.look(&Request::LookAt(beside))?.is_none())
    }
}
