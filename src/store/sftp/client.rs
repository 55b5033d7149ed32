//! A conversation with one SFTP server: many requests on their way at a time, each with its answer.
//! Moves blocks of files in both directions. What a file means, and what is tried again, is decided
//! above.

use super::link::{Link, Lost};
use super::wire::{self, Attributes, Entry, Handle, Known, Open, Reply, Request, Status};
use crate::error::{Malformed, StoreFault};
use crate::limits;
use crate::store::pace::Rates;
use bytes::Bytes;
use std::collections::{HashMap, HashSet, VecDeque};

/// Why a request was not done.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server says so; the conversation goes on.
    Refused(Status),
    /// Nobody knows whether it was done: the conversation is over.
    Lost(Lost),
    /// What the server tells is clear, and is not what it has to be.
    Unfit(StoreFault, String),
}

impl From<Lost> for Failure {
    fn from(lost: Lost) -> Self {
        Self::Lost(lost)
    }
}

/// The result of a request.
pub(super) type Answer<T> = Result<T, Failure>;

/// Takes refusals that a caller can do without for values.
pub(super) fn or_refused<T>(answer: Answer<T>) -> Answer<Result<T, Status>> {
    match answer {
        Ok(value) => Ok(Ok(value)),
        Err(Failure::Refused(status)) => Ok(Err(status)),
        Err(other) => Err(other),
    }
}

/// A conversation, owned by one thread at a time.
pub(super) struct Connection {
    link: Link,
    last: u32,
    /// Requests whose answers have not come.
    asked: HashSet<u32>,
    /// Those of them that nobody waits for.
    forgotten: HashSet<u32>,
    /// Answers that came before they were waited for.
    early: HashMap<u32, Reply>,
    /// What the server knows beyond the protocol.
    pub known: Known,
    pub rates: Rates,
}

impl Connection {
    /// Begins one.
    pub fn open(mut link: Link) -> Result<Self, Lost> {
        link.queue(wire::hello());
        let hello = link.packet().map_err(greeted)?;
        let known = wire::known(hello).map_err(|e| link.nonsense(&e.0))?;
        link.forget_complaints();
        let (asked, forgotten, early) = (HashSet::new(), HashSet::new(), HashMap::new());
        Ok(Self { link, last: 0, asked, forgotten, early, known, rates: Rates::default() })
    }

    /// Sends a request, soon; what it is known by.
    pub fn send(&mut self, request: &Request<'_>) -> u32 {
        self.last = self.last.wrapping_add(1);
        let (packet, more) = request.encode(self.last);
        self.link.queue(packet);
        self.link.queue(more.unwrap_or_default());
        self.asked.insert(self.last);
        self.last
    }

    /// The answer to a request that was sent; a refusal is an answer too.
    fn reply(&mut self, id: u32) -> Result<Reply, Lost> {
        loop {
            if let Some(reply) = self.early.remove(&id) {
                return Ok(reply);
            }
            let packet = self.link.packet()?;
            let (of, reply) = wire::decode(packet).map_err(|e| self.link.nonsense(&e.0))?;
            if !self.asked.remove(&of) {
                return Err(self.link.nonsense(&format!("an answer to request {of}, which was not asked")));
            }
            if !self.forgotten.remove(&of) {
                self.early.insert(of, reply);
            }
        }
    }

    /// Lets a request be answered whenever and however.
    pub fn forget(&mut self, id: u32) {
        if self.asked.contains(&id) {
            self.forgotten.insert(id);
        }
        self.early.remove(&id);
    }

    /// Has what was sent last go out although nobody waits for an answer.
    pub fn push(&mut self) {
        self.link.push();
    }

    /// Asks for a file or a folder to be closed; nobody waits for it.
    pub fn close(&mut self, handle: &Handle) {
        let id = self.send(&Request::Close(handle));
        self.forget(id);
    }

    /// What was answered is no answer to what was asked.
    fn strange(&self, reply: Reply) -> Failure {
        match reply {
            Reply::Status(Status { code: Status::OK, .. }) => self.link.nonsense("it was done, but what?").into(),
            // With these it says itself that it has lost whom it asks.
            Reply::Status(status) if matches!(status.code, Status::NO_CONNECTION | Status::CONNECTION_LOST) => {
                Lost::new(StoreFault::Unavailable, format!("the server: {}", status.words)).into()
            }
            Reply::Status(status) => Failure::Refused(status),
            _ => self.link.nonsense("an answer of the wrong kind").into(),
        }
    }

    /// The error of an answer that cannot be read.
    pub fn malformed(&self, e: &Malformed) -> Failure {
        self.link.nonsense(&e.0).into()
    }

    pub fn done(&mut self, id: u32) -> Answer<()> {
        match self.reply(id)? {
            Reply::Status(Status { code: Status::OK, .. }) => Ok(()),
            other => Err(self.strange(other)),
        }
    }

    pub fn handle(&mut self, id: u32) -> Answer<Handle> {
        match self.reply(id)? {
            Reply::Handle(handle) => Ok(handle),
            other => Err(self.strange(other)),
        }
    }

    pub fn attributes(&mut self, id: u32) -> Answer<Attributes> {
        match self.reply(id)? {
            Reply::Attributes(attributes) => Ok(attributes),
            other => Err(self.strange(other)),
        }
    }

    /// More entries of a folder; `None` at its end.
    pub fn entries(&mut self, id: u32) -> Answer<Option<Vec<Entry>>> {
        match self.reply(id)? {
            Reply::Entries(entries) => Ok(Some(entries)),
            Reply::Status(Status { code: Status::EOF, .. }) => Ok(None),
            other => Err(self.strange(other)),
        }
    }

    /// The bytes of a block, of which that many were asked for; `None` beyond the end.
    pub fn data(&mut self, id: u32, asked: usize) -> Answer<Option<Bytes>> {
        match self.reply(id)? {
            Reply::Data(data) if (1..=asked).contains(&data.len()) => Ok(Some(data)),
            Reply::Data(data) => {
                Err(self.link.nonsense(&format!("{} bytes where {asked} were asked for", data.len())).into())
            }
            Reply::Status(Status { code: Status::EOF, .. }) => Ok(None),
            other => Err(self.strange(other)),
        }
    }

    pub fn extended(&mut self, id: u32) -> Answer<Bytes> {
        match self.reply(id)? {
            Reply::Extended(bytes) => Ok(bytes),
            other => Err(self.strange(other)),
        }
    }

    /// Sends a request that is only to be done, and waits until it is.
    pub fn ask(&mut self, request: &Request<'_>) -> Answer<()> {
        let id = self.send(request);
        self.done(id)
    }

    /// What is told of what a path leads to; `None` if it leads nowhere.
    pub fn look(&mut self, request: &Request<'_>) -> Answer<Option<Attributes>> {
        let id = self.send(request);
        self.looked(id)
    }

    /// The answer to such a request.
    pub fn looked(&mut self, id: u32) -> Answer<Option<Attributes>> {
        match self.attributes(id) {
            Err(Failure::Refused(Status { code: Status::NO_SUCH_FILE, .. })) => Ok(None),
            answer => answer.map(Some),
        }
    }

    pub fn open_file(&mut self, path: &str, how: Open) -> Answer<Handle> {
        let id = self.send(&Request::Open(path, how));
        self.handle(id)
    }

    /// Writes a new file's bytes, many blocks at a time.
    pub fn write(&mut self, file: &Handle, data: &Bytes) -> Answer<()> {
        let mut waiting = VecDeque::new();
        let mut at = 0;
        while at < data.len() || !waiting.is_empty() {
            while at < data.len() && waiting.len() < limits::SFTP_WINDOW {
                let block = data.slice(at..data.len().min(at + limits::SFTP_BLOCK));
                let len = block.len();
                self.rates.wait_to_send(len);
                waiting.push_back(self.send(&Request::Write { file, offset: at as u64, data: block }));
                self.push_if_paced();
                at += len;
            }
            let Some(id) = waiting.pop_front() else { break };
            if let Err(e) = self.done(id) {
                waiting.into_iter().for_each(|id| self.forget(id));
                return Err(e);
            }
        }
        Ok(())
    }

    /// Fills `into` from a file's bytes at `offset`, many blocks at a time; false if the file ends before.
    pub fn read(&mut self, file: &Handle, offset: u64, into: &mut [u8]) -> Answer<bool> {
        let mut waiting: VecDeque<(u32, usize, usize)> = VecDeque::new();
        let mut at = 0;
        loop {
            while at < into.len() && waiting.len() < limits::SFTP_WINDOW {
                let len = (into.len() - at).min(limits::SFTP_BLOCK);
                // What is not asked for does not come.
                self.rates.wait_to_receive(len);
                waiting.push_back((self.send_read(file, offset, at, len), at, len));
                self.push_if_paced();
                at += len;
            }
            let Some((id, from, len)) = waiting.pop_front() else { return Ok(true) };
            match self.data(id, len) {
                Ok(Some(data)) => {
                    into[from..from + data.len()].copy_from_slice(&data);
                    if data.len() < len {
                        // A server may give less than was asked for: the rest is asked for again.
                        let (from, len) = (from + data.len(), len - data.len());
                        waiting.push_front((self.send_read(file, offset, from, len), from, len));
                    }
                }
                ended => {
                    waiting.into_iter().for_each(|(id, ..)| self.forget(id));
                    return ended.map(|_| false);
                }
            }
        }
    }

    /// Within a rate each block goes when it is due, and not when the window is full.
    fn push_if_paced(&mut self) {
        if !self.rates.is_unbounded() {
            self.push();
        }
    }

    /// Asks for a block that lies `at` bytes beyond an offset.
    fn send_read(&mut self, file: &Handle, offset: u64, at: usize, len: usize) -> u32 {
        // Who asks has made sure that the range ends within what an offset can say.
        let offset = offset.saturating_add(at as u64);
        self.send(&Request::Read { file, offset, len: u32::try_from(len).unwrap_or(u32::MAX) })
    }
}

/// The error of a conversation that never began: what ssh says of that is final, or it is not.
fn greeted(lost: Lost) -> Lost {
    let final_words = ["Permission denied", "Host key verification failed", "Too many authentication failures"];
    let fault = match lost.fault {
        StoreFault::Unavailable if final_words.iter().any(|words| lost.why.contains(words)) => StoreFault::Denied,
        fault => fault,
    };
    Lost { fault, why: format!("no connection: {}", lost.why) }
}
