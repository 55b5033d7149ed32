//! A program under watch: its peak memory, and an end to it should it hang.

use rustix::process::{Pid, Signal, kill_process};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A program that hangs is killed after this; no test waits for it otherwise.
const HANGS: Duration = Duration::from_secs(120);
/// One mebibyte.
pub const MIB: u64 = 1024 * 1024;

/// Ends the threads that look at it, also where a test fails before it would have told them.
pub struct Ends<'a>(pub &'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A program that was watched to its end.
pub struct Watched {
    pub output: Output,
    /// The most memory that it ever had, bytes.
    pub peak: u64,
    line: String,
}

/// Runs a program, and sees how much memory it takes.
pub fn watch(command: &mut Command) -> Watched {
    watch_until(command, || false)
}

/// The same; once it heeds Ctrl-C and `stop` is true, it is asked to end by it.
pub fn watch_until(command: &mut Command, stop: impl Fn() -> bool) -> Watched {
    let line = format!("{command:?}");
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = Pid::from_child(&child);
    let (ended, peak) = (AtomicBool::new(false), AtomicU64::new(0));
    let output = thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let output = child.wait_with_output().unwrap();
            ended.store(true, Ordering::SeqCst);
            output
        });
        let (begun, mut asked) = (Instant::now(), false);
        while !ended.load(Ordering::SeqCst) {
            if let Some(now) = high_water(pid) {
                peak.fetch_max(now, Ordering::SeqCst);
            }
            if !asked && stop() && heeds_interrupts(pid) {
                asked = true;
                kill_process(pid, Signal::INT).unwrap();
            }
            if begun.elapsed() > HANGS {
                // Its end shows in the code that the caller expects.
                let _ = kill_process(pid, Signal::KILL);
            }
            thread::sleep(Duration::from_millis(1));
        }
        waiting.join().unwrap()
    });
    Watched { output, peak: peak.into_inner(), line }
}

fn status(pid: Pid, field: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).ok()?;
    status.lines().find_map(|l| l.strip_prefix(field)).map(|rest| rest.trim().to_owned())
}

fn heeds_interrupts(pid: Pid) -> bool {
    let caught = status(pid, "SigCgt:").and_then(|mask| u64::from_str_radix(&mask, 16).ok());
    caught.is_some_and(|mask| mask & 1 << (Signal::INT.as_raw() - 1) != 0)
}

/// The most memory that a process has had, bytes; `None` once it has ended, and before it runs a
/// program of its own: until then what it has is all that these tests have.
pub fn high_water(pid: Pid) -> Option<u64> {
    let program = std::fs::read_link(format!("/proc/{}/exe", pid.as_raw_nonzero())).ok()?;
    if program == std::env::current_exe().ok()? {
        return None;
    }
    status(pid, "VmHWM:")?.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

impl Watched {
    /// Panics, with the end of what it printed, unless it ended with this code and within this memory.
    #[track_caller]
    pub fn expect(self, code: i32, most: u64) -> Self {
        let found = self.output.status.code().unwrap_or(-1);
        assert_eq!(found, code, "{}\n{}\n{}", self.line, end_of(&self.stdout()), end_of(&self.stderr()));
        assert!(self.peak <= most, "{}: {} MiB", self.line, self.peak / MIB);
        self
    }

    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }
}

fn end_of(text: &str) -> String {
    let skipped = text.chars().count().saturating_sub(4000);
    text.chars().skip(skipped).collect()
}
