//! A source that is one stream: standard input, or what a command prints. A
//! command that fails makes no snapshot.

use crate::error::{Error, Result};
use crate::format::node::check_name;
use std::io::{self, Read};
use std::process::{Child, ChildStdout, Command, Stdio};

enum From {
    Input(Box<dyn Read + Send>),
    Command { child: Child, output: ChildStdout, line: String },
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

    /// What a command prints on its standard output. It begins to run now.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name that is none, [`Error::Command`] if it cannot be started.
    pub fn command(name: &str, words: &[String]) -> Result<Self> {
        let name = checked(name)?;
        let line = words.join(" ");
        let [program, arguments @ ..] = words else {
            return Err(Error::Invalid("no command was given".into()));
        };
        let failed = |e: io::Error| Error::Command { command: line.clone(), status: e.to_string() };
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let output = child.stdout.take().ok_or_else(|| Error::Invalid("a command without an output".into()))?;
        Ok(Self { name, from: From::Command { child, output, line } })
    }

    pub(super) fn is_command(&self) -> bool {
        matches!(self.from, From::Command { .. })
    }

    /// What to call the stream in an error.
    pub(super) fn label(&self) -> String {
        match &self.from {
            From::Input(_) => "standard input".into(),
            From::Command { line, .. } => format!("the output of {line}"),
        }
    }

    /// Waits until the command has ended well.
    pub(super) fn ended(&mut self) -> Result<()> {
        let From::Command { child, line, .. } = &mut self.from else { return Ok(()) };
        let failed = |status: String| Error::Command { command: line.clone(), status };
        let status = child.wait().map_err(|e| failed(e.to_string()))?;
        if status.success() { Ok(()) } else { Err(failed(status.to_string())) }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.from {
            From::Input(input) => input.read(buffer),
            From::Command { output, .. } => output.read(buffer),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let From::Command { child, .. } = &mut self.from {
            // After a clean end there is nothing left to kill; otherwise nobody reads it any more.
            if !matches!(child.try_wait(), Ok(Some(_))) {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

fn checked(name: &str) -> Result<String> {
    check_name(name.as_bytes()).map_err(|_| {
        Error::Invalid(format!("{name:?} cannot name a stored stream: use a plain file name, without '/'"))
    })?;
    Ok(name.to_owned())
}
