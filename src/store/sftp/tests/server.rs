//! A small SFTP server in this process, over a folder of this machine: with the extensions that it is
//! told to know, and with a habit of hanging up. Not OpenSSH's: what that does is tested with it.

use super::super::client::Connection;
use super::super::link::{Link, Lost};
use crate::error::StoreFault;
use std::collections::HashMap;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// When the server hangs up: at a request, counted from 1 over all connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HangUp {
    Never,
    /// The request is not done.
    Before(usize),
    /// It is done, and not answered.
    After(usize),
    /// It is not done, and neither is any other.
    From(usize),
}

#[derive(Debug)]
pub struct Habits {
    pub extensions: Vec<(&'static str, &'static str)>,
    pub hang_up: HangUp,
    /// Links are refused although they are known, as on a disk without them.
    pub no_links: bool,
    /// A renaming replaces what is there, against the protocol.
    pub replaces: bool,
    /// What it is asked for is told as failed, by the kind of the request.
    pub refuses: Option<(u8, u32)>,
    /// Somebody else's object, which comes under its name when first such a request is made.
    pub rival: Option<(u8, PathBuf, &'static [u8])>,
    /// Bytes that it gives at most for one request to read.
    pub gives: usize,
    /// Connections that it takes at a time.
    pub takes: usize,
    pub turned_away: usize,
    pub connections: usize,
    pub opened: usize,
    /// The kinds of what it was asked, in order.
    pub asked: Vec<u8>,
}

#[derive(Clone)]
pub struct Server(Arc<Mutex<Habits>>);

pub const OPENSSH: [(&str, &str); 3] =
    [("posix-rename@openssh.com", "1"), ("hardlink@openssh.com", "1"), ("fsync@openssh.com", "1")];

impl Server {
    pub fn new(extensions: &[(&'static str, &'static str)]) -> Self {
        Self(Arc::new(Mutex::new(Habits {
            extensions: extensions.to_vec(),
            hang_up: HangUp::Never,
            no_links: false,
            replaces: false,
            refuses: None,
            rival: None,
            gives: usize::MAX,
            takes: usize::MAX,
            turned_away: 0,
            connections: 0,
            opened: 0,
            asked: Vec::new(),
        })))
    }

    pub fn habits(&self) -> MutexGuard<'_, Habits> {
        self.0.lock().unwrap()
    }

    /// From now on, and counts from 1 again.
    pub fn hangs_up(&self, when: HangUp) {
        let mut habits = self.habits();
        habits.hang_up = when;
        habits.asked.clear();
    }

    pub fn dial(&self) -> Result<Connection, Lost> {
        {
            let mut habits = self.habits();
            if habits.connections >= habits.takes {
                habits.turned_away += 1;
                return Err(Lost::new(StoreFault::Unavailable, "too many connections"));
            }
            habits.connections += 1;
            habits.opened += 1;
        }
        let (ours, theirs) = UnixStream::pair().unwrap();
        let server = self.clone();
        std::thread::spawn(move || {
            let mut talk = Talk { stream: theirs, server: server.clone(), files: HashMap::new(), last: 0 };
            let _ = talk.serve();
            drop(talk);
            server.habits().connections -= 1;
        });
        let from = ours.try_clone().unwrap();
        let link = Link::new(ours.into(), from.into(), None, Duration::from_secs(5)).unwrap();
        Connection::open(link)
    }
}

enum Opened {
    File(File),
    Folder(Vec<(Vec<u8>, Metadata)>),
}

struct Talk {
    stream: UnixStream,
    server: Server,
    files: HashMap<u32, Opened>,
    last: u32,
}

fn number(n: u32) -> [u8; 4] {
    n.to_be_bytes()
}

fn text(bytes: &[u8]) -> Vec<u8> {
    [&number(bytes.len() as u32)[..], bytes].concat()
}

/// Size, permissions, times.
fn attributes(of: &Metadata) -> Vec<u8> {
    let size = of.size().to_be_bytes();
    let time = number(of.mtime() as u32);
    [&number(1 | 4 | 8)[..], &size, &number(of.mode()), &time, &time].concat()
}

struct Asked<'a>(&'a [u8]);

impl<'a> Asked<'a> {
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len);
        self.0 = rest;
        taken
    }

    fn number(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().unwrap())
    }

    fn long(&mut self) -> u64 {
        u64::from_be_bytes(self.take(8).try_into().unwrap())
    }

    fn text(&mut self) -> &'a [u8] {
        let len = self.number() as usize;
        self.take(len)
    }

    fn path(&mut self) -> &'a str {
        std::str::from_utf8(self.text()).unwrap()
    }

    fn handle(&mut self) -> u32 {
        u32::from_be_bytes(self.text().try_into().unwrap())
    }
}

impl Talk {
    fn serve(&mut self) -> io::Result<()> {
        loop {
            let mut len = [0; 4];
            self.stream.read_exact(&mut len)?;
            let mut packet = vec![0; u32::from_be_bytes(len) as usize];
            self.stream.read_exact(&mut packet)?;
            let mut asked = Asked(&packet[1..]);
            if packet[0] == 1 {
                let pairs = self.server.habits().extensions.clone();
                let pairs = pairs.iter().flat_map(|(n, v)| [text(n.as_bytes()), text(v.as_bytes())].concat());
                let hello: Vec<u8> = [2, 0, 0, 0, 3].into_iter().chain(pairs).collect();
                self.stream.write_all(&text(&hello))?;
                continue;
            }
            let (nth, hang_up, refuses) = {
                let mut habits = self.server.habits();
                habits.asked.push(packet[0]);
                if let Some((_, path, bytes)) = habits.rival.take_if(|(kind, ..)| *kind == packet[0]) {
                    fs::write(path, bytes)?;
                }
                (habits.asked.len(), habits.hang_up, habits.refuses)
            };
            if hang_up == HangUp::Before(nth) || matches!(hang_up, HangUp::From(n) if nth >= n) {
                return Ok(());
            }
            let id = asked.number();
            let answer = match refuses {
                Some((kind, code)) if kind == packet[0] => Ok(self.status(code)),
                _ => self.answer(packet[0], &mut asked),
            };
            if hang_up == HangUp::After(nth) {
                return Ok(());
            }
            let answer = answer.unwrap_or_else(|e| match e.raw_os_error() {
                Some(2 | 20) => self.status(2),
                Some(13) => self.status(3),
                _ if e.kind() == io::ErrorKind::UnexpectedEof => self.status(1),
                _ => self.status(4),
            });
            self.stream.write_all(&text(&[&answer[..1], &number(id), &answer[1..]].concat()))?;
        }
    }

    fn status(&self, code: u32) -> Vec<u8> {
        let words = if code == 0 { "Success" } else { "Failure" };
        [&[101], &number(code)[..], &text(words.as_bytes()), &text(b"")].concat()
    }

    fn opened(&mut self, opened: Opened) -> Vec<u8> {
        self.last += 1;
        self.files.insert(self.last, opened);
        [&[102][..], &text(&number(self.last))].concat()
    }

    fn file(&self, handle: u32) -> io::Result<&File> {
        match self.files.get(&handle) {
            Some(Opened::File(file)) => Ok(file),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn answer(&mut self, kind: u8, asked: &mut Asked<'_>) -> io::Result<Vec<u8>> {
        let told = |found: Metadata| [&[105][..], &attributes(&found)].concat();
        match kind {
            3 => {
                let (path, flags) = (asked.path(), asked.number());
                let is_new = flags & 32 != 0;
                let file = OpenOptions::new().read(!is_new).write(is_new).create_new(is_new).open(path)?;
                Ok(self.opened(Opened::File(file)))
            }
            4 => {
                let handle = asked.handle();
                self.files.remove(&handle);
                Ok(self.status(0))
            }
            5 => {
                let (handle, offset, len) = (asked.handle(), asked.long(), asked.number() as usize);
                let mut bytes = vec![0; len.min(self.server.habits().gives)];
                let len = self.file(handle)?.read_at(&mut bytes, offset)?;
                if len == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok([&[103][..], &text(&bytes[..len])].concat())
            }
            6 => {
                let (handle, offset) = (asked.handle(), asked.long());
                self.file(handle)?.write_all_at(asked.text(), offset)?;
                Ok(self.status(0))
            }
            7 => Ok(told(fs::symlink_metadata(asked.path())?)),
            8 => Ok(told(self.file(asked.handle())?.metadata()?)),
            11 => {
                let entries = fs::read_dir(asked.path())?.map(|entry| {
                    let entry = entry?;
                    Ok((entry.file_name().into_encoded_bytes(), entry.metadata()?))
                });
                let entries = entries.collect::<io::Result<_>>()?;
                Ok(self.opened(Opened::Folder(entries)))
            }
            12 => match self.files.get_mut(&asked.handle()) {
                Some(Opened::Folder(entries)) if !entries.is_empty() => {
                    let some = entries.split_off(entries.len().saturating_sub(3));
                    let all = some.iter().flat_map(|(n, m)| [text(n), text(b"long"), attributes(m)].concat());
                    Ok([&[104][..], &number(some.len() as u32)].concat().into_iter().chain(all).collect())
                }
                _ => Err(io::ErrorKind::UnexpectedEof.into()),
            },
            13 => fs::remove_file(asked.path()).map(|()| self.status(0)),
            14 => fs::create_dir(asked.path()).map(|()| self.status(0)),
            16 => {
                let real = fs::canonicalize(asked.path())?.into_os_string().into_encoded_bytes();
                Ok([&[104, 0, 0, 0, 1][..], &text(&real), &text(b""), &number(0)].concat())
            }
            17 => Ok(told(fs::metadata(asked.path())?)),
            18 => {
                let (from, to) = (asked.path(), asked.path());
                if !self.server.habits().replaces && fs::symlink_metadata(to).is_ok() {
                    return Ok(self.status(4));
                }
                fs::rename(from, to).map(|()| self.status(0))
            }
            200 => self.extended(asked),
            _ => Ok(self.status(8)),
        }
    }

    fn extended(&mut self, asked: &mut Asked<'_>) -> io::Result<Vec<u8>> {
        match asked.text() {
            b"posix-rename@openssh.com" => fs::rename(asked.path(), asked.path())?,
            b"hardlink@openssh.com" if self.server.habits().no_links => return Ok(self.status(3)),
            b"hardlink@openssh.com" => fs::hard_link(asked.path(), asked.path())?,
            b"fsync@openssh.com" => self.file(asked.handle())?.sync_all()?,
            _ => return Ok(self.status(8)),
        }
        Ok(self.status(0))
    }
}
