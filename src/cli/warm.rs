//! What is done before a restore reads data that may be frozen: a command of the user's is given the names
//! of the packs, and then is waited. An interrupt ends both.

use super::context::Context;
use super::output;
use crate::error::Error;
use crate::limits;
use crate::monitor::{Event, Monitor as _};
use crate::restore::{Need, Needs};
use anyhow::{Context as _, Result, bail};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, Signal, kill_process_group};
use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long an interrupt may go unheard.
const STEP: Duration = Duration::from_millis(50);
/// How long a command that is to end may take before it is killed.
const END: Duration = Duration::from_secs(2);

/// Runs the command for all packs of data that are needed, in batches, and then waits; nothing of both if
/// there are none.
///
/// # Errors
/// [`Error::Interrupted`], and a command that failed.
pub fn up(context: &Context, command: &str, wait: Duration, needs: &Needs) -> Result<()> {
    let packs: Vec<&Need> = needs.data().collect();
    if packs.is_empty() {
        return Ok(());
    }
    context.progress.event(Event::Phase { name: "warming up", total_bytes: None });
    let tells = !context.global.quiet && !context.global.json;
    let what = || {
        let size = packs.iter().map(|need| need.size).sum();
        format!("{} ({})", output::counted(packs.len() as u64, "pack", "packs"), output::size(size))
    };
    if tells {
        context.progress.say(&format!("warming up {}", what()));
    }
    for batch in packs.chunks(limits::WARM_UP_PACKS) {
        run(context, command, batch)?;
    }
    if tells && !wait.is_zero() {
        context.progress.say(&format!("waiting {} s for {}", wait.as_secs(), what()));
    }
    let until = context.clock.elapsed().saturating_add(wait);
    loop {
        if context.progress.cancelled() {
            return Err(Error::Interrupted.into());
        }
        let left = until.saturating_sub(context.clock.elapsed());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(STEP));
    }
}

/// The packs' names, one on a line, as a file without a name: whoever reads it slowly, or not at all, keeps
/// nobody waiting.
fn names(batch: &[&Need]) -> io::Result<File> {
    let mut file = File::from(memfd_create("packs", MemfdFlags::CLOEXEC)?);
    let mut text = String::new();
    for need in batch {
        text.push_str(&need.object);
        text.push('\n');
    }
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

fn run(context: &Context, command: &str, batch: &[&Need]) -> Result<()> {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command).env("ESTRATO_REPO", context.location()?);
    shell.stdin(names(batch).context("the warm-up command cannot be given its packs")?);
    // What is printed here is the restore's own.
    shell.stdout(io::stderr()).stderr(Stdio::inherit());
    // A group of its own: all that it starts is ended with it.
    let mut child = shell.process_group(0).spawn().context("the warm-up command cannot be run")?;
    let status = loop {
        if context.progress.cancelled() {
            end(&mut child);
            return Err(Error::Interrupted.into());
        }
        match child.try_wait().context("the warm-up command cannot be waited for")? {
            Some(status) => break status,
            None => std::thread::sleep(STEP),
        }
    };
    if !status.success() {
        bail!("the warm-up command failed ({status}); nothing was restored: {command}");
    }
    Ok(())
}

/// Ends a command and what it has started, and waits for it.
fn end(child: &mut Child) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    for signal in [Signal::TERM, Signal::KILL] {
        // It may have ended by itself.
        let _ = group.map(|group| kill_process_group(group, signal));
        for _ in 0..END.as_millis() / STEP.as_millis() {
            if !matches!(child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(STEP);
        }
    }
}
