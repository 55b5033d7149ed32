//! A source that is one stream: standard input, or what a command prints. A
//! command that fails makes no snapshot.

use crate::error::{Error, Result};
use crate::format::node::check_name;
use crate::limits;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdout, Command, Stdio};

enum From {
    Input(Box<dyn Read + Send>),
    Command(Running),
}

/// A command: not started, or running.
struct Running {
    words: Vec<String>,
    started: Option<(Child, ChildStdout)>,
}

impl Running {
    fn line(&self) -> String {
        self.words.join(" ")
    }

    fn failed(&self, status: impl ToString) -> Error {
        Error::Command { command: self.line(), status: status.to_string() }
    }
}

/// One stream and the name under which it is stored.
pub struct Stream {
    /// The file's name in the snapshot.
    pub name: String,
    from: From,
}

impl Stream {
    /// What `input` gives.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name that is none.
    pub fn input(name: &str, input: Box<dyn Read + Send>) -> Result<Self> {
        Ok(Self { name: checked(name)?, from: From::Input(input) })
    }

    /// What this program is given on its standard input.
    ///
    /// # Errors
    /// As [`Stream::input`].
    pub fn standard_input(name: &str) -> Result<Self> {
        let input = io::stdin();
        widen(&input);
        Self::input(name, Box::new(input))
    }

    /// What a command prints on its standard output. It is started when the snapshot comes to read it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name that is none, or no command.
    pub fn command(name: &str, words: &[String]) -> Result<Self> {
        let name = checked(name)?;
        if words.is_empty() {
            return Err(Error::Invalid("no command was given".into()));
        }
        Ok(Self { name, from: From::Command(Running { words: words.to_vec(), started: None }) })
    }

    /// Starts the command, if it is one.
    pub(super) fn start(&mut self) -> Result<()> {
        let From::Command(running) = &mut self.from else { return Ok(()) };
        let [program, arguments @ ..] = &running.words[..] else { return Ok(()) };
        let spawned = Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = spawned.map_err(|e| running.failed(e))?;
        let output = child.stdout.take().ok_or_else(|| running.failed("it has no output"))?;
        widen(&output);
        running.started = Some((child, output));
        Ok(())
    }

    pub(super) fn is_command(&self) -> bool {
        matches!(self.from, From::Command(_))
    }

    /// What to call the stream in an error.
    pub(super) fn label(&self) -> String {
        match &self.from {
            From::Input(_) => "standard input".into(),
            From::Command(running) => format!("the output of {}", running.line()),
        }
    }

    /// Waits until the command has ended well.
    pub(super) fn ended(&mut self) -> Result<()> {
        let From::Command(running) = &mut self.from else { return Ok(()) };
        let Some((child, _)) = &mut running.started else { return Err(running.failed("it was never started")) };
        match child.wait() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(running.failed(status)),
            Err(e) => Err(running.failed(e)),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.from {
            From::Input(input) => input.read(buffer),
            From::Command(Running { started: Some((_, output)), .. }) => output.read(buffer),
            From::Command(_) => Err(io::Error::other("the command was not started")),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let From::Command(Running { started: Some((child, _)), .. }) = &mut self.from {
            // After a clean end there is nothing left to kill; otherwise nobody reads it any more.
            if !matches!(child.try_wait(), Ok(Some(_))) {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

/// Makes a pipe hold more, so that its ends wait for each other less often. What is no pipe, or may not
/// hold more, stays as it is.
fn widen(input: impl AsFd) {
    let _ = rustix::pipe::fcntl_setpipe_size(input, limits::PIPE_BYTES);
}

fn checked(name: &str) -> Result<String> {
    check_name(name.as_bytes()).map_err(|_| {
        Error::Invalid(format!("{name:?} cannot name a stored stream: use a plain file name, without '/'"))
    })?;
    Ok(name.to_owned())
}
