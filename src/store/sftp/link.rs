//! The pipes to a program that speaks SFTP, and the program itself: whole packets in both directions,
//! and the last that it complained of. What packets mean is not known here.
//!
//! One thread owns a link at a time and waits for whatever comes first, so nothing else has to run:
//! no thread reads beside it, and the program is waited for when the link is dropped.

use super::wire;
use crate::error::StoreFault;
use crate::limits;
use bytes::{Buf as _, Bytes, BytesMut};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a program that is to end may take before it is killed.
const END: Duration = Duration::from_secs(2);
/// How long is waited for the last words of a program that has closed its end.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Parts of packets that one call of the kernel takes.
const PARTS: usize = 64;

/// Why a link is of no more use.
#[derive(Debug)]
pub(super) struct Lost {
    pub fault: StoreFault,
    pub why: String,
}

impl Lost {
    pub fn new(fault: StoreFault, why: impl Into<String>) -> Self {
        Self { fault, why: why.into() }
    }

    /// True if another link may fare better.
    pub fn is_passing(&self) -> bool {
        self.fault == StoreFault::Unavailable
    }
}

/// Pipes, and who is at their other end.
pub(super) struct Link {
    to: Option<File>,
    from: Option<File>,
    complaints: Option<File>,
    child: Option<Child>,
    /// What is still to be sent.
    out: VecDeque<Bytes>,
    inbox: BytesMut,
    /// The end of what was complained of.
    complained: Vec<u8>,
    silence: Duration,
}

/// Reads what is there, without waiting; `None` if there is nothing now, 0 at the end.
fn read_some(from: &mut File, into: &mut [u8]) -> io::Result<Option<usize>> {
    match from.read(into) {
        Ok(len) => Ok(Some(len)),
        Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
        Err(e) => Err(e),
    }
}

fn millis(time: Duration) -> Timespec {
    Timespec { tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX), tv_nsec: time.subsec_nanos().into() }
}

impl Link {
    /// Over these pipes; one on which nothing moves for so long is lost.
    pub fn new(to: OwnedFd, from: OwnedFd, complaints: Option<OwnedFd>, silence: Duration) -> io::Result<Self> {
        for end in [Some(&to), Some(&from), complaints.as_ref()].into_iter().flatten() {
            rustix::io::ioctl_fionbio(end, true)?;
        }
        Ok(Self {
            to: Some(to.into()),
            from: Some(from.into()),
            complaints: complaints.map(File::from),
            child: None,
            out: VecDeque::new(),
            inbox: BytesMut::new(),
            complained: Vec::new(),
            silence,
        })
    }

    /// To a program that is started for it, in a process group of its own: a key pressed to interrupt
    /// this program does not cut it off from its store in the middle.
    pub fn start(mut command: Command, silence: Duration) -> Result<Self, Lost> {
        let program = command.get_program().to_string_lossy().into_owned();
        let failed = |e: &io::Error| Lost::new(StoreFault::Other, format!("cannot run {program}: {e}"));
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| failed(&e))?;
        let (to, from, complaints) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let link = match (to, from) {
            (Some(to), Some(from)) => Self::new(to.into(), from.into(), complaints.map(Into::into), silence),
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        };
        match link {
            Ok(mut link) => {
                link.child = Some(child);
                Ok(link)
            }
            Err(e) => {
                end(&mut child);
                Err(failed(&e))
            }
        }
    }

    /// Has something sent, now or while answers are waited for.
    pub fn queue(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.out.push_back(bytes);
        }
    }

    /// Sends of what waits as much as the other side takes at once.
    pub fn push(&mut self) {
        // What goes wrong here is met, and told, when an answer is waited for.
        let _ = self.send();
    }

    fn send(&mut self) -> io::Result<bool> {
        let Some(to) = &mut self.to else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let mut moved = false;
        while !self.out.is_empty() {
            let parts: Vec<IoSlice<'_>> = self.out.iter().take(PARTS).map(|part| IoSlice::new(part)).collect();
            let mut sent = match to.write_vectored(&parts) {
                Ok(sent) => sent,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            moved = true;
            while let Some(part) = self.out.front_mut() {
                let now = sent.min(part.len());
                part.advance(now);
                sent -= now;
                if !part.is_empty() {
                    break;
                }
                self.out.pop_front();
            }
        }
        Ok(moved)
    }

    /// A whole packet without its length, if one has come.
    fn arrived(&mut self) -> Result<Option<Bytes>, Lost> {
        let Some(first) = self.inbox.first_chunk::<4>() else { return Ok(None) };
        let len = wire::length(*first).map_err(|e| self.nonsense(&e.0))?;
        if self.inbox.len() < 4 + len {
            return Ok(None);
        }
        self.inbox.advance(4);
        Ok(Some(self.inbox.split_to(len).freeze()))
    }

    /// What came is no SFTP: trying again gets the same.
    pub fn nonsense(&self, why: &str) -> Lost {
        Lost::new(StoreFault::Other, format!("the server cannot be understood: {why}"))
    }

    /// The next packet, without its length; sends meanwhile what is to be sent.
    pub fn packet(&mut self) -> Result<Bytes, Lost> {
        let mut since = Instant::now();
        loop {
            if let Some(packet) = self.arrived()? {
                return Ok(packet);
            }
            let left = self.silence.saturating_sub(since.elapsed());
            if left.is_zero() {
                let why = format!("the server has not answered for {} s", self.silence.as_secs());
                return Err(Lost::new(StoreFault::Unavailable, why));
            }
            match self.moved(left) {
                Ok(true) => since = Instant::now(),
                Ok(false) => {}
                Err(e) => return Err(self.broken(&e)),
            }
        }
    }

    /// Waits until something can be sent or received, and does so; true if it was.
    fn moved(&mut self, wait: Duration) -> io::Result<bool> {
        let (Some(from), Some(to)) = (&self.from, &self.to) else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let sending = if self.out.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        let mut ends = vec![PollFd::new(from, PollFlags::IN), PollFd::new(to, sending)];
        ends.extend(self.complaints.as_ref().map(|end| PollFd::new(end, PollFlags::IN)));
        match poll(&mut ends, Some(&millis(wait))) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let is_ready = |n: usize| ends.get(n).is_some_and(|end| !end.revents().is_empty());
        let (receives, sends, complains) = (is_ready(0), is_ready(1), is_ready(2));
        let is_deaf = ends[1].revents().intersects(PollFlags::ERR | PollFlags::HUP);
        drop(ends);
        if complains {
            self.listen();
        }
        let received = receives && self.receive()?;
        // What came before it stopped to listen counts.
        if is_deaf && !received {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let sent = sends && !is_deaf && self.send()?;
        Ok(received || sent)
    }

    fn receive(&mut self) -> io::Result<bool> {
        let Some(from) = &mut self.from else { return Ok(false) };
        let had = self.inbox.len();
        self.inbox.resize(had + limits::SFTP_READ, 0);
        let read = read_some(from, &mut self.inbox[had..]);
        self.inbox.truncate(had + read.as_ref().ok().copied().flatten().unwrap_or(0));
        match read? {
            Some(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            read => Ok(read.is_some()),
        }
    }

    /// Takes in some of what is complained of, and keeps the end of it; false if there is nothing now.
    fn listen(&mut self) -> bool {
        let mut bytes = [0; 1024];
        let Some(complaints) = &mut self.complaints else { return false };
        match read_some(complaints, &mut bytes) {
            Ok(None) => return false,
            Ok(Some(0)) | Err(_) => self.complaints = None,
            Ok(Some(len)) => {
                self.complained.extend(&bytes[..len]);
                let too_many = self.complained.len().saturating_sub(limits::SFTP_COMPLAINTS_MAX);
                self.complained.drain(..too_many);
            }
        }
        true
    }

    /// What was complained of until now explains nothing of what is to come: a greeting, a warning.
    pub fn forget_complaints(&mut self) {
        // No more than a pipe holds: who never stops is heard later.
        for _ in 0..64 {
            if !self.listen() {
                break;
            }
        }
        self.complained.clear();
    }

    /// The last line of what was complained of.
    fn last_line(&self) -> Option<String> {
        let said = String::from_utf8_lossy(&self.complained);
        let line = said.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
        Some(line.chars().take(limits::SFTP_WORDS_MAX).collect())
    }

    /// The error of a link whose other end is gone, with its last words.
    fn broken(&mut self, e: &io::Error) -> Lost {
        let since = Instant::now();
        while let Some(complaints) = &self.complaints {
            let left = LAST_WORDS.saturating_sub(since.elapsed());
            let mut end = [PollFd::new(complaints, PollFlags::IN)];
            if left.is_zero() || !matches!(poll(&mut end, Some(&millis(left))), Ok(n) if n > 0) {
                break;
            }
            self.listen();
        }
        let why = match (self.last_line(), e.kind()) {
            (Some(line), _) => line,
            (None, io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe) => "the connection was closed".into(),
            (None, _) => e.to_string(),
        };
        Lost::new(StoreFault::Unavailable, why)
    }
}

/// Ends a program, and waits for it.
fn end(child: &mut Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // Not killed at once: ssh ends what it has started itself, such as a proxy.
        let _ = kill_process(pid, Signal::TERM);
    }
    let since = Instant::now();
    while since.elapsed() < END {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(Duration::from_millis(5)),
            Ok(Some(_)) | Err(_) => return,
        }
    }
    let _ = child.kill();
    let _ = child.wait();
}

impl Drop for Link {
    fn drop(&mut self) {
        self.to = None;
        self.from = None;
        if let Some(child) = &mut self.child {
            end(child);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    const SHORT: Duration = Duration::from_millis(300);

    fn to_shell(script: &str) -> Result<Link, Lost> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Link::start(command, SHORT)
    }

    fn lost(script: &str) -> Lost {
        let mut link = to_shell(script).unwrap();
        link.queue(Bytes::from_static(b"\0\0\0\x01?"));
        link.packet().unwrap_err()
    }

    #[test]
    fn packets_come_back_whole_however_they_are_cut() {
        let mut link = to_shell("cat").unwrap();
        let long: Vec<u8> = (0..limits::SFTP_PACKET_MAX as u32).map(|n| n as u8).collect();
        for body in [&b"a"[..], &long, b"bc"] {
            let head = u32::try_from(body.len()).unwrap().to_be_bytes();
            link.queue(Bytes::copy_from_slice(&head));
            link.queue(Bytes::copy_from_slice(body));
        }
        assert_eq!(&link.packet().unwrap()[..], b"a");
        assert_eq!(link.packet().unwrap(), long);
        assert_eq!(&link.packet().unwrap()[..], b"bc");
        assert_eq!(link.packet().unwrap_err().why, "the server has not answered for 0 s");
    }

    #[test]
    fn the_last_words_are_told() {
        let e = lost("echo first >&2; echo 'Host key verification failed.' >&2; echo >&2; exit 255");
        assert_eq!(e.why, "Host key verification failed.");
        let e = lost("echo first >&2; exec >&-; sleep 0.1; printf 'no such host\\n\\n' >&2");
        assert_eq!((e.fault, &*e.why), (StoreFault::Unavailable, "no such host"));
        assert_eq!(lost("exit 1").why, "the connection was closed");
        // Bounded, whatever is complained of.
        let e = lost("head -c 100000 /dev/zero | tr '\\0' a >&2; echo >&2; echo b >&2");
        assert_eq!(e.why, "b");
        let e = lost("head -c 100000 /dev/zero | tr '\\0' a >&2");
        assert_eq!(e.why.len(), limits::SFTP_WORDS_MAX);
        let mut link = to_shell("echo 'We watch you.' >&2; printf '\\0\\0\\0\\1a'; exec >&-; sleep 0.1").unwrap();
        link.packet().unwrap();
        link.forget_complaints();
        assert_eq!(link.packet().unwrap_err().why, "the connection was closed");
        let missing = Link::start(Command::new("/no/such/program"), SHORT).err().unwrap();
        assert!(!missing.is_passing() && missing.why.starts_with("cannot run /no/such/program: "), "{missing:?}");
    }

    #[test]
    fn what_a_login_script_prints_is_told() {
        let e = lost("echo Welcome to the server; cat");
        assert!(!e.is_passing() && e.why.contains("no SFTP") && e.why.contains("Welc"), "{e:?}");
    }

    #[test]
    fn a_program_that_will_not_end_is_ended() {
        let began = Instant::now();
        let link = to_shell("trap '' TERM; while :; do sleep 0.1; done").unwrap();
        let pid = Pid::from_raw(i32::try_from(link.child.as_ref().unwrap().id()).unwrap()).unwrap();
        std::thread::sleep(SHORT);
        drop(link);
        assert!(began.elapsed() < END * 3);
        assert!(rustix::process::test_kill_process(pid).is_err(), "it is gone, and was waited for");
    }

    #[test]
    fn a_server_that_neither_reads_nor_writes_is_given_up() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let from = ours.try_clone().unwrap();
        let mut link = Link::new(ours.into(), from.into(), None, SHORT).unwrap();
        link.queue(vec![0; 8 << 20].into());
        let began = Instant::now();
        assert_eq!(link.packet().unwrap_err().fault, StoreFault::Unavailable);
        assert!(began.elapsed() >= SHORT && began.elapsed() < SHORT * 10);
        drop(theirs);
    }
}
