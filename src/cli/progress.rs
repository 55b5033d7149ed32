//! What a running command tells on standard error: a bar on a terminal,
//! warnings always, and whether the user asked to stop.

use super::output;
use crate::monitor::{Event, Monitor};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// The monitor of the command line.
pub struct Progress {
    bar: Option<ProgressBar>,
    quiet: bool,
    json: bool,
    stop: AtomicBool,
    entries: AtomicU64,
}

const UNKNOWN: &str = "{spinner} {msg}: {bytes} in {elapsed}, {bytes_per_sec}, {prefix} entries";
const KNOWN: &str = "{msg}: [{wide_bar}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";

fn style(template: &str) -> ProgressStyle {
    // The templates are constants; were one wrong, the plain bar would do.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

impl Progress {
    /// `bar`: there is a terminal to draw on.
    pub fn new(bar: bool, quiet: bool, json: bool) -> Self {
        let bar = bar.then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(8));
            bar.set_style(style(UNKNOWN));
            bar
        });
        Self { bar, quiet, json, stop: AtomicBool::new(false), entries: AtomicU64::new(0) }
    }

    /// True if someone can see the bar.
    pub fn is_shown(&self) -> bool {
        self.bar.is_some()
    }

    /// How many bytes the phase will work through, once that is known.
    pub fn total(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(bytes);
            bar.set_style(style(KNOWN));
        }
    }

    /// The user asked to stop.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Removes the bar.
    pub fn done(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// Says a line beside the bar.
    pub fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| output::complain(text)),
            None => output::complain(text),
        }
    }
}

impl Monitor for Progress {
    fn event(&self, event: Event) {
        match (event, &self.bar) {
            (Event::Warning(text), _) => {
                if self.json {
                    self.say(&serde_json::json!({ "warning": text }).to_string());
                } else {
                    self.say(&format!("warning: {}", output::escaped_text(&text)));
                }
            }
            (Event::Phase { name, total_bytes }, Some(bar)) if !self.quiet => {
                bar.reset();
                bar.set_message(name);
                bar.enable_steady_tick(Duration::from_millis(200));
                match total_bytes {
                    Some(total) => self.total(total),
                    None => {
                        bar.unset_length();
                        bar.set_style(style(UNKNOWN));
                    }
                }
            }
            (Event::Bytes(n), Some(bar)) => bar.inc(n),
            (Event::Entries(n), Some(bar)) => {
                let entries = self.entries.fetch_add(n, Ordering::Relaxed) + n;
                if entries.is_multiple_of(64) {
                    bar.set_prefix(output::count(entries));
                }
            }
            _ => {}
        }
    }

    fn cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// From now on an interrupt asks the command to stop; a second one ends it at once.
pub fn heed_interrupts(progress: &std::sync::Arc<Progress>) {
    let progress = std::sync::Arc::clone(progress);
    let heard = AtomicBool::new(false);
    // Without a handler an interrupt ends the program at once, which is safe too.
    let _ = ctrlc::set_handler(move || {
        if heard.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        progress.stop();
    });
}
