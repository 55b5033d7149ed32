//! Reading one file: its extents, and whether it stood still meanwhile.

use super::content::ContentBuilder;
use super::replace::{Old, Replace};
use crate::chunker::{Chunker, LOOK_AHEAD};
use crate::error::{Error, Result};
use crate::format::content::{Content, Extent};
use crate::format::pack::BlobKind;
use crate::limits;
use crate::monitor::{Event, Monitor};
use crate::repo::Lane;
use crate::source::files::{Folder, Range, Stat, ranges};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

/// What one thread needs to read files.
pub struct FileReader<'w> {
    lane: Lane<'w>,
    chunker: &'w Chunker,
    monitor: &'w dyn Monitor,
    buffer: Vec<u8>,
    cuts: Vec<usize>,
}

/// Why reading stopped: the source's fault, or the repository's. They are told apart because one
/// costs an entry, the other the snapshot.
pub enum Stop {
    /// The file could not be read.
    Source(io::Error),
    /// The repository cannot go on.
    Repository(Error),
}

impl From<io::Error> for Stop {
    fn from(e: io::Error) -> Self {
        Stop::Source(e)
    }
}

impl From<Error> for Stop {
    fn from(e: Error) -> Self {
        Stop::Repository(e)
    }
}

/// A small file that was read.
pub struct Whole {
    /// What it was when it was opened.
    pub stat: Stat,
    /// What it was when it had been read.
    pub after: Stat,
    /// What it held: no more than `stat` says.
    pub bytes: Vec<u8>,
}

/// A file that was read.
pub struct ReadFile {
    /// What it was when it was opened.
    pub stat: Stat,
    /// What it is made of.
    pub content: Content,
    /// What happened to it while it was read, if anything.
    pub changed: Option<&'static str>,
    /// Bytes read; holes are not.
    pub read: u64,
}

impl ReadFile {
    /// A file that was `stat` when it was opened and `after` when it had been read: its length, and how much
    /// of it is not holes; `short` if it ended before.
    fn new(stat: Stat, after: &Stat, content: Content, (len, read): (u64, u64), short: bool) -> Self {
        let changed = if short || after.size < stat.size {
            Some("it shrank while it was read")
        } else if after.size > stat.size {
            Some("it grew while it was read; what it held at first is stored")
        } else if (after.mtime, after.ctime) != (stat.mtime, stat.ctime) {
            Some("it changed while it was read")
        } else {
            None
        };
        // What was stored is what the node must claim.
        Self { stat: Stat { size: len, ..stat }, content, changed, read }
    }
}

/// A stream under construction.
pub struct Building<'r> {
    chunks: Replace<'r>,
    content: ContentBuilder<'r>,
}

impl<'r> Building<'r> {
    fn new(Old { content, tries }: Old, lane: &Lane<'r>) -> Self {
        let chunks = Replace::new(BlobKind::Chunk, &content, 0, lane).sharing(tries);
        Self { chunks, content: ContentBuilder::new(content) }
    }
}

/// Reads at a place of a file, up to an end.
struct Span<'f> {
    file: &'f File,
    at: u64,
    end: u64,
}

impl Read for Span<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let n = self.file.read_at(&mut buffer[..want], self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

impl<'w> FileReader<'w> {
    /// A reader that puts chunks through `lane`.
    pub fn new(lane: Lane<'w>, chunker: &'w Chunker, monitor: &'w dyn Monitor) -> Self {
        Self { lane, chunker, monitor, buffer: Vec::new(), cuts: Vec::new() }
    }

    /// Hands over what the lane still holds.
    ///
    /// # Errors
    /// The lane's.
    pub fn finish(self) -> Result<()> {
        self.lane.finish()
    }

    /// Reads a file of a folder, and holds it against `old`.
    ///
    /// # Errors
    /// [`Stop`].
    pub fn read(&mut self, folder: &Folder, name: &[u8], old: Old) -> Result<ReadFile, Stop> {
        let (file, stat) = folder.open_file(name)?;
        let mut content = self.begin(old);
        let (mut end, mut total) = (0, 0);
        let mut short = false;
        for range in ranges(&file, &stat)? {
            match range {
                Range::Hole(_, len) => {
                    content.content.push(Extent { id: None, len }, &mut self.lane)?;
                    end += len;
                }
                Range::Data(at, len) => {
                    let span = Span { file: &file, at, end: at + len };
                    let read = self.stream(span, &mut content)?;
                    end += read;
                    total += read;
                    if read < len {
                        short = true;
                        break;
                    }
                }
            }
        }
        let content = self.close(content)?;
        Ok(ReadFile::new(stat, &Stat::of(&file)?, content, (end, total), short))
    }

    /// The same for a file that was fetched.
    ///
    /// # Errors
    /// [`Stop`].
    pub fn whole(&mut self, file: &Whole, old: Old) -> Result<ReadFile, Stop> {
        let mut content = self.begin(old);
        let read = self.stream(&file.bytes[..], &mut content)?;
        let content = self.close(content)?;
        Ok(ReadFile::new(file.stat, &file.after, content, (read, read), read < file.stat.size))
    }

    /// Cuts and puts a stream; returns its length.
    ///
    /// # Errors
    /// [`Stop`].
    pub fn stream(&mut self, mut source: impl Read, building: &mut Building<'w>) -> Result<u64, Stop> {
        if self.buffer.is_empty() {
            self.buffer.resize(limits::READ_BUFFER, 0);
        }
        let (mut held, mut total) = (0, 0);
        loop {
            let ended = fill(&mut source, &mut self.buffer, &mut held)?;
            let mut at = 0;
            while held > at && (ended || held - at >= LOOK_AHEAD) {
                self.cuts.clear();
                self.chunker.group(&self.buffer[at..held], &mut self.cuts);
                for len in &self.cuts {
                    let id = building.chunks.put(&self.buffer[at..at + len], *len as u64, &mut self.lane)?;
                    building.content.push(Extent { id: Some(id), len: *len as u64 }, &mut self.lane)?;
                    at += len;
                }
                if self.monitor.cancelled() {
                    return Err(Error::Interrupted.into());
                }
            }
            total += at as u64;
            self.monitor.event(Event::Bytes(at as u64));
            if ended {
                return Ok(total);
            }
            self.buffer.copy_within(at..held, 0);
            held -= at;
        }
    }

    /// A stream that is held against `old`, to be filled through [`FileReader::stream`].
    pub fn begin(&self, old: Old) -> Building<'w> {
        Building::new(old, &self.lane)
    }

    /// Adds a hole to a stream.
    ///
    /// # Errors
    /// The lane's.
    pub fn hole(&mut self, len: u64, building: &mut Building<'w>) -> Result<()> {
        building.content.push(Extent { id: None, len }, &mut self.lane)
    }

    /// Finishes a stream.
    ///
    /// # Errors
    /// The lane's.
    pub fn close(&mut self, building: Building<'w>) -> Result<Content> {
        building.chunks.finish(&mut self.lane)?;
        building.content.finish(&mut self.lane)
    }
}

/// Reads until the buffer is full or the source ends; true at the end.
fn fill(source: &mut impl Read, buffer: &mut [u8], held: &mut usize) -> io::Result<bool> {
    while *held < buffer.len() {
        match source.read(&mut buffer[*held..]) {
            Ok(0) => return Ok(true),
            Ok(n) => *held += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(false)
}
