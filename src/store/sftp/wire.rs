//! The packets of SFTP, version 3 (draft-ietf-secsh-filexfer-02), with five of OpenSSH's extensions:
//! requests to bytes, bytes to replies. No I/O. What a server sends is bounded before anything is
//! allocated for it, and is never trusted to be well made.

use crate::error::Malformed;
use crate::limits;
use bytes::Bytes;

/// What follows `SSH_FXP_INIT`: the version that is spoken.
const VERSION: u32 = 3;

const INIT: u8 = 1;
const HELLO: u8 = 2;
const EXTENDED: u8 = 200;

/// How a file is opened: for reading, or new and for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Open {
    /// What is there, a folder too: some servers sync one that is opened like a file.
    Read,
    /// A file that must not be there yet.
    New,
}

/// What a server calls an open file or folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Handle(Bytes);

/// What a server is asked. Paths are its own.
#[derive(Debug, Clone)]
pub(super) enum Request<'a> {
    Open(&'a str, Open),
    Close(&'a Handle),
    Read {
        file: &'a Handle,
        offset: u64,
        len: u32,
    },
    Write {
        file: &'a Handle,
        offset: u64,
        data: Bytes,
    },
    /// Of an open file.
    Attributes(&'a Handle),
    /// Of what a path leads to.
    Look(&'a str),
    /// Of what is at a path, be it a symbolic link.
    LookAt(&'a str),
    OpenFolder(&'a str),
    ReadFolder(&'a Handle),
    /// With permission bits, or the server's own.
    MakeFolder(&'a str, Option<u32>),
    Remove(&'a str),
    /// Which must fail if the new name is taken.
    Rename {
        from: &'a str,
        to: &'a str,
    },
    RealPath(&'a str),
    /// `posix-rename@openssh.com`: replaces what has the new name.
    Replace {
        from: &'a str,
        to: &'a str,
    },
    /// `hardlink@openssh.com`: fails if the new name is taken.
    Link {
        from: &'a str,
        to: &'a str,
    },
    /// `fsync@openssh.com`.
    Sync(&'a Handle),
    /// `statvfs@openssh.com`.
    Room(&'a str),
}

/// A packet that grows.
struct Packet(Vec<u8>);

impl Packet {
    fn new(kind: u8) -> Self {
        Self(vec![0, 0, 0, 0, kind])
    }

    fn number(mut self, n: u32) -> Self {
        self.0.extend(n.to_be_bytes());
        self
    }

    fn long(mut self, n: u64) -> Self {
        self.0.extend(n.to_be_bytes());
        self
    }

    fn text(self, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        // Paths and handles are bounded far below.
        let mut packet = self.number(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        packet.0.extend(bytes);
        packet
    }

    /// The packet, after which `more` bytes are sent.
    fn followed_by(mut self, more: usize) -> Bytes {
        let len = self.0.len() - 4 + more;
        self.0[..4].copy_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
        self.0.into()
    }
}

/// The first packet of all.
pub(super) fn hello() -> Bytes {
    Packet::new(INIT).number(VERSION).followed_by(0)
}

impl Request<'_> {
    /// The packet, and the bytes that follow it.
    pub(super) fn encode(&self, id: u32) -> (Bytes, Option<Bytes>) {
        let new = |kind| Packet::new(kind).number(id);
        let extended = |name: &str| new(EXTENDED).text(name);
        let packet = match self {
            Self::Open(path, Open::Read) => new(3).text(path).number(1).number(0),
            // Write, create, exclusively.
            Self::Open(path, Open::New) => new(3).text(path).number(2 | 8 | 32).number(0),
            Self::Close(handle) => new(4).text(&handle.0),
            Self::Read { file, offset, len } => new(5).text(&file.0).long(*offset).number(*len),
            Self::Write { file, offset, data } => {
                let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
                let head = new(6).text(&file.0).long(*offset).number(len);
                return (head.followed_by(data.len()), Some(data.clone()));
            }
            Self::LookAt(path) => new(7).text(path),
            Self::Attributes(handle) => new(8).text(&handle.0),
            Self::OpenFolder(path) => new(11).text(path),
            Self::ReadFolder(handle) => new(12).text(&handle.0),
            Self::Remove(path) => new(13).text(path),
            Self::MakeFolder(path, None) => new(14).text(path).number(0),
            Self::MakeFolder(path, Some(mode)) => new(14).text(path).number(PERMISSIONS).number(*mode),
            Self::RealPath(path) => new(16).text(path),
            Self::Look(path) => new(17).text(path),
            Self::Rename { from, to } => new(18).text(from).text(to),
            Self::Replace { from, to } => extended("posix-rename@openssh.com").text(from).text(to),
            Self::Link { from, to } => extended("hardlink@openssh.com").text(from).text(to),
            Self::Sync(handle) => extended("fsync@openssh.com").text(&handle.0),
            Self::Room(path) => extended("statvfs@openssh.com").text(path),
        };
        (packet.followed_by(0), None)
    }
}

/// Why a request was not done, or that it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Status {
    pub code: u32,
    /// The server's words.
    pub words: String,
}

impl Status {
    pub const OK: u32 = 0;
    pub const EOF: u32 = 1;
    pub const NO_SUCH_FILE: u32 = 2;
    pub const PERMISSION_DENIED: u32 = 3;
    pub const FAILURE: u32 = 4;
    pub const NO_CONNECTION: u32 = 6;
    pub const CONNECTION_LOST: u32 = 7;
    /// The following are of later versions; some servers use them in this one.
    pub const EXISTS: u32 = 11;
    pub const WRITE_PROTECT: u32 = 12;
    pub const NO_SPACE: u32 = 14;
    pub const QUOTA: u32 = 15;
}

const SIZE: u32 = 1;
const OWNERS: u32 = 2;
const PERMISSIONS: u32 = 4;
const TIMES: u32 = 8;
const MORE: u32 = 1 << 31;

/// What is told of a file; a server may tell less.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    pub size: Option<u64>,
    pub mode: Option<u32>,
    /// Seconds since 1970, by the server's clock.
    pub modified: Option<u32>,
}

impl Attributes {
    fn kind(self) -> Option<u32> {
        self.mode.map(|mode| mode & 0o170_000).filter(|kind| *kind != 0)
    }

    pub fn is_folder(self) -> bool {
        self.kind() == Some(0o040_000)
    }

    pub fn is_link(self) -> bool {
        self.kind() == Some(0o120_000)
    }

    /// True too where the server does not say.
    pub fn is_file(self) -> bool {
        self.kind().is_none_or(|kind| kind == 0o100_000)
    }
}

/// An entry of a folder, by the name that it has there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub name: Bytes,
    pub attributes: Attributes,
}

/// What a server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    Status(Status),
    Handle(Handle),
    Data(Bytes),
    Entries(Vec<Entry>),
    Attributes(Attributes),
    /// The answer to an extension.
    Extended(Bytes),
}

/// Which extensions a server knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Known {
    pub replace: bool,
    pub link: bool,
    pub sync: bool,
    pub room: bool,
}

/// What is left of a packet.
struct Rest(Bytes);

impl Rest {
    fn take(&mut self, len: usize) -> Result<Bytes, Malformed> {
        if len > self.0.len() {
            return Err(Malformed::new("a packet that ends too early"));
        }
        Ok(self.0.split_to(len))
    }

    fn number(&mut self) -> Result<u32, Malformed> {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.take(4)?);
        Ok(u32::from_be_bytes(bytes))
    }

    fn long(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from(self.number()?) << 32 | u64::from(self.number()?))
    }

    fn text(&mut self) -> Result<Bytes, Malformed> {
        let len = self.number()?;
        self.take(usize::try_from(len).unwrap_or(usize::MAX))
    }

    fn kind(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?[0])
    }

    fn attributes(&mut self) -> Result<Attributes, Malformed> {
        let flags = self.number()?;
        let mut found = Attributes::default();
        if flags & SIZE != 0 {
            found.size = Some(self.long()?);
        }
        if flags & OWNERS != 0 {
            self.long()?;
        }
        if flags & PERMISSIONS != 0 {
            found.mode = Some(self.number()?);
        }
        if flags & TIMES != 0 {
            self.number()?;
            found.modified = Some(self.number()?);
        }
        if flags & MORE != 0 {
            // Each takes at least its two lengths: a count that is too high ends with the packet.
            for _ in 0..self.number()? {
                self.text()?;
                self.text()?;
            }
        }
        Ok(found)
    }

    fn entries(&mut self) -> Result<Vec<Entry>, Malformed> {
        let count = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        // A name, a long name and attributes: three numbers at the least.
        if count == 0 || count > self.0.len() / 12 {
            return Err(Malformed::new(format!("a packet of {} bytes that claims {count} names", self.0.len())));
        }
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            let name = self.text()?;
            self.text()?;
            entries.push(Entry { name, attributes: self.attributes()? });
        }
        Ok(entries)
    }
}

/// How long the packet is whose first four bytes these are, without them.
pub(super) fn length(first: [u8; 4]) -> Result<usize, Malformed> {
    let len = usize::try_from(u32::from_be_bytes(first)).unwrap_or(usize::MAX);
    if (1..=limits::SFTP_PACKET_MAX).contains(&len) {
        return Ok(len);
    }
    // Most often the output of a login script, which the shell of the other side runs.
    Err(Malformed::new(format!("what it says is no SFTP; it begins with {:?}", String::from_utf8_lossy(&first))))
}

/// A server's first packet, without its length.
pub(super) fn known(packet: Bytes) -> Result<Known, Malformed> {
    let mut rest = Rest(packet);
    let (kind, version) = (rest.kind()?, rest.number()?);
    if kind != HELLO || version < VERSION {
        return Err(Malformed::new(format!("it speaks another version of SFTP ({version}, packet {kind})")));
    }
    let mut known = Known::default();
    while !rest.0.is_empty() {
        let (name, version) = (rest.text()?, rest.text()?);
        match (&*name, &*version) {
            (b"posix-rename@openssh.com", b"1") => known.replace = true,
            (b"hardlink@openssh.com", b"1") => known.link = true,
            (b"fsync@openssh.com", b"1") => known.sync = true,
            (b"statvfs@openssh.com", b"2") => known.room = true,
            _ => {}
        }
    }
    Ok(known)
}

/// Which request a packet answers, and how.
pub(super) fn decode(packet: Bytes) -> Result<(u32, Reply), Malformed> {
    let mut rest = Rest(packet);
    let (kind, id) = (rest.kind()?, rest.number()?);
    let reply = match kind {
        101 => {
            let code = rest.number()?;
            // Words are missing where a server speaks an older version.
            let words = rest.text().unwrap_or_default();
            let words = &words[..words.len().min(limits::SFTP_WORDS_MAX)];
            Reply::Status(Status { code, words: String::from_utf8_lossy(words).into_owned() })
        }
        102 => {
            let handle = rest.text()?;
            if handle.len() > limits::SFTP_HANDLE_MAX {
                return Err(Malformed::new(format!("a handle of {} bytes", handle.len())));
            }
            // Kept for long: not within the buffer that it was read into.
            Reply::Handle(Handle(Bytes::copy_from_slice(&handle)))
        }
        103 => Reply::Data(rest.text()?),
        104 => Reply::Entries(rest.entries()?),
        105 => Reply::Attributes(rest.attributes()?),
        201 => Reply::Extended(rest.0),
        _ => return Err(Malformed::new(format!("a packet of a kind that nobody knows ({kind})"))),
    };
    Ok((id, reply))
}

/// True if the answer to [`Request::Room`] says that not even a block can be written.
pub(super) fn is_full(answer: Bytes) -> Result<bool, Malformed> {
    let mut rest = Rest(answer);
    let mut fields = [0; 8];
    for field in &mut fields {
        *field = rest.long()?;
    }
    let [_, unit, _, _, blocks, files, _, names] = fields;
    let is_out_of_names = files > 0 && names == 0;
    Ok(is_out_of_names || blocks.saturating_mul(unit) < limits::SFTP_BLOCK as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(parts: &[&[u8]]) -> Bytes {
        parts.concat().into()
    }

    fn text(of: &[u8]) -> Vec<u8> {
        [&u32::try_from(of.len()).unwrap().to_be_bytes()[..], of].concat()
    }

    #[test]
    fn requests_are_as_the_draft_draws_them() {
        assert_eq!(&hello()[..], [0, 0, 0, 5, 1, 0, 0, 0, 3]);
        let (packet, more) = Request::Open("/a", Open::New).encode(7);
        assert_eq!(&packet[..], b"\0\0\0\x13\x03\0\0\0\x07\0\0\0\x02/a\0\0\0\x2a\0\0\0\0");
        assert!(more.is_none());
        let handle = Handle(Bytes::from_static(b"h"));
        let (packet, more) = Request::Write { file: &handle, offset: 1, data: Bytes::from_static(b"xyz") }.encode(9);
        assert_eq!(&packet[..], b"\0\0\0\x19\x06\0\0\0\x09\0\0\0\x01h\0\0\0\0\0\0\0\x01\0\0\0\x03");
        assert_eq!(more, Some(Bytes::from_static(b"xyz")));
        let (packet, _) = Request::Sync(&handle).encode(1);
        assert_eq!(&packet[..], b"\0\0\0\x1f\xc8\0\0\0\x01\0\0\0\x11fsync@openssh.com\0\0\0\x01h");
        let (packet, _) = Request::MakeFolder("/a", Some(0o700)).encode(1);
        assert_eq!(&packet[..], b"\0\0\0\x13\x0e\0\0\0\x01\0\0\0\x02/a\0\0\0\x04\0\0\x01\xc0");
        // The length is of all that follows it, for every kind.
        for request in [
            Request::Link { from: "a", to: "b" },
            Request::Replace { from: "a", to: "b" },
            Request::Rename { from: "a", to: "b" },
            Request::Read { file: &handle, offset: 5, len: 6 },
            Request::Room("/"),
            Request::ReadFolder(&handle),
        ] {
            let (packet, _) = request.encode(3);
            assert_eq!(length(packet[..4].try_into().unwrap()).unwrap(), packet.len() - 4, "{request:?}");
        }
    }

    #[test]
    fn a_server_tells_what_it_knows() {
        let hello = |version: u32, pairs: &[(&str, &str)]| {
            let mut packet = [&[HELLO][..], &version.to_be_bytes()].concat();
            for (name, version) in pairs {
                packet.extend([text(name.as_bytes()), text(version.as_bytes())].concat());
            }
            known(packet.into())
        };
        let all = [
            ("posix-rename@openssh.com", "1"),
            ("statvfs@openssh.com", "2"),
            ("strange", ""),
            ("hardlink@openssh.com", "1"),
            ("fsync@openssh.com", "1"),
        ];
        assert_eq!(hello(3, &all).unwrap(), Known { replace: true, link: true, sync: true, room: true });
        assert_eq!(hello(3, &[]).unwrap(), Known::default());
        assert_eq!(hello(3, &[("hardlink@openssh.com", "2")]).unwrap(), Known::default());
        assert!(hello(2, &[]).is_err());
        assert!(known(bytes(&[&[HELLO, 0, 0, 0, 3], b"\0\0\0\x09short"])).is_err());
    }

    #[test]
    fn replies() {
        let status = bytes(&[&[101, 0, 0, 0, 5, 0, 0, 0, 4], &text(b"Failure"), &text(b"")]);
        let failure = Status { code: Status::FAILURE, words: "Failure".into() };
        assert_eq!(decode(status).unwrap(), (5, Reply::Status(failure)));
        // Without words, as old servers send it.
        let status = bytes(&[&[101, 0, 0, 0, 5, 0, 0, 0, 0]]);
        assert_eq!(decode(status).unwrap().1, Reply::Status(Status { code: 0, words: String::new() }));
        // Size, owners, permissions, times, and one thing that nobody knows.
        let attributes = bytes(&[
            &[105, 0, 0, 0, 1, 0x80, 0, 0, 0x0f],
            &9u64.to_be_bytes(),
            &[0; 8],
            &0o100_644_u32.to_be_bytes(),
            &1u32.to_be_bytes(),
            &2u32.to_be_bytes(),
            &1u32.to_be_bytes(),
            &text(b"what"),
            &text(b"ever"),
        ]);
        let found = Attributes { size: Some(9), mode: Some(0o100_644), modified: Some(2) };
        assert_eq!(decode(attributes).unwrap(), (1, Reply::Attributes(found)));
        assert!(found.is_file() && !found.is_folder() && Attributes::default().is_file());
        let entry = [&text(b"a")[..], &text(b"-rw a"), &[0; 4]].concat();
        let names = bytes(&[&[104, 0, 0, 0, 1, 0, 0, 0, 2], &entry, &entry]);
        let one = Entry { name: Bytes::from_static(b"a"), attributes: Attributes::default() };
        assert_eq!(decode(names).unwrap().1, Reply::Entries(vec![one.clone(), one]));
    }

    #[test]
    fn claims_that_a_packet_cannot_hold_are_refused() {
        let entry = [&text(b"a")[..], &text(b"a"), &[0; 4]].concat();
        for packet in [
            bytes(&[]),
            bytes(&[&[101, 0, 0, 0]]),
            bytes(&[&[104, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff], &entry]),
            bytes(&[&[104, 0, 0, 0, 1, 0, 0, 0, 3], &entry, &entry]),
            bytes(&[&[104, 0, 0, 0, 1, 0, 0, 0, 0]]),
            bytes(&[&[105, 0, 0, 0, 1, 0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], &text(b"a"), &text(b"b")]),
            bytes(&[&[103, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff], b"data"]),
            bytes(&[&[102, 0, 0, 0, 1], &text(&[0; 300])]),
            bytes(&[&[77, 0, 0, 0, 1]]),
        ] {
            assert!(decode(packet.clone()).is_err(), "{packet:?}");
        }
        assert!(length(*b"Welc").unwrap_err().0.contains("Welc"));
        assert!(length([0; 4]).is_err() && length([0, 0, 0, 1]).is_ok());
        let long = bytes(&[&[101, 0, 0, 0, 5, 0, 0, 0, 4], &text(&[b'a'; 5000])]);
        let Reply::Status(status) = decode(long).unwrap().1 else { panic!("a status") };
        assert_eq!(status.words.len(), limits::SFTP_WORDS_MAX);
    }

    #[test]
    fn room() {
        let answer = |unit: u64, blocks: u64, files: u64, names: u64| {
            let fields = [4096, unit, 100, 100, blocks, files, names, names, 0, 0, 255];
            is_full(fields.iter().flat_map(|n| n.to_be_bytes()).collect()).unwrap()
        };
        assert!(answer(4096, 0, 10, 5) && answer(4096, 7, 10, 5) && answer(4096, 100, 10, 0));
        assert!(!answer(4096, 8, 10, 5) && !answer(4096, 100, 0, 0) && !answer(u64::MAX, u64::MAX, 0, 0));
        assert!(is_full(Bytes::from_static(b"short")).is_err());
    }

    proptest! {
        #[test]
        fn nothing_that_a_server_sends_panics(kind in any::<u8>(), body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let kinds = [kind, 101, 102, 103, 104, 105, 201];
            for kind in kinds {
                let _ = decode(bytes(&[&[kind], &body]));
            }
            let _ = known(bytes(&[&[HELLO], &body]));
            let _ = is_full(body.into());
        }

        #[test]
        fn names_are_given_back_as_they_were_sent(
            names in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 1..20),
            cut in any::<proptest::sample::Index>(),
        ) {
            let mut packet = [&[104u8, 0, 0, 0, 1][..], &u32::try_from(names.len()).unwrap().to_be_bytes()].concat();
            for name in &names {
                packet.extend([text(name), text(b"long"), vec![0, 0, 0, 1], 5u64.to_be_bytes().to_vec()].concat());
            }
            let Reply::Entries(found) = decode(packet.clone().into()).unwrap().1 else { panic!("names") };
            prop_assert!(found.iter().map(|e| &e.name[..]).eq(names.iter().map(|n| &n[..])));
            prop_assert!(found.iter().all(|e| e.attributes.size == Some(5)));
            packet.truncate(cut.index(packet.len()));
            prop_assert!(decode(packet.into()).is_err());
        }
    }
}
