//! Errors to exit codes and hints: the one place that knows both.

use super::output;
use crate::error::{Error, StoreFault};
use std::process::ExitCode;

/// Done, but some source could not be read.
pub const INCOMPLETE: u8 = 3;
/// A check found damage.
pub const DAMAGE: u8 = 4;

/// An error of the command line itself: clap has the words.
pub fn usage(e: &clap::Error) -> ExitCode {
    // Help and version are no errors. If even this cannot be printed, the code still tells.
    let _ = e.print();
    ExitCode::from(if e.use_stderr() { 2 } else { 0 })
}

fn code(e: &Error) -> u8 {
    match e {
        Error::Invalid(_) => 2,
        Error::NoRepository { .. } => 10,
        Error::Busy { .. } => 11,
        Error::WrongKey { .. } | Error::NoKey { .. } | Error::NotAllowed { .. } => 12,
        Error::Interrupted => 130,
        _ => 1,
    }
}

/// What to do next.
fn hint(e: &Error) -> Option<&'static str> {
    Some(match e {
        Error::NoRepository { .. } => "make one with 'estrato init', or name another with --repo or ESTRATO_REPO",
        Error::NoTenant { .. } => "'estrato tenant list' names the tenants there are; choose one with --tenant",
        Error::WrongKey { .. } => "name the right key with --key-file, or give its password",
        Error::NoKey { .. } => "name a key with --key-file or ESTRATO_KEY_FILE, or give a password",
        Error::NotAllowed { .. } => "use a full key for this",
        Error::Newer { .. } => "use a newer version of this program",
        Error::Damaged { .. } | Error::Missing { .. } => {
            "'estrato check' names everything that is damaged, and the snapshots and paths that need it"
        }
        Error::Busy { .. } => "wait until it has ended, and try again",
        Error::Fenced { .. } => "what was sent is kept: the next run does not send it again",
        Error::Store(e) => match e.fault {
            StoreFault::Full => "make room where the repository lies; nothing that was there is lost",
            StoreFault::Denied => "you must be let in where the repository lies, and its folder be writable for this",
            StoreFault::Retained => "the store lets it go when its lock ends; nothing else was harmed",
            StoreFault::Frozen => {
                "'estrato restore --plan' names the packs to thaw, and --warm-up-command has them thawed first"
            }
            StoreFault::Unavailable => "try again later; what was sent is kept",
            _ => return None,
        },
        _ => return None,
    })
}

/// Tells an error, and returns the exit code.
pub fn report(e: &anyhow::Error, json: bool) -> ExitCode {
    let ours = e.downcast_ref::<Error>();
    // Our errors say their cause themselves.
    let message = ours.map_or_else(|| format!("{e:#}"), Error::to_string);
    let code = ours.map_or(1, code);
    let hint = ours.and_then(hint);
    if json {
        let document = serde_json::json!({ "error": { "message": message, "hint": hint, "code": code } });
        output::complain(&document.to_string());
    } else {
        output::complain(&format!("estrato: {}", output::escaped_text(&message)));
        if let Some(hint) = hint {
            output::complain(&format!("  {hint}"));
        }
    }
    ExitCode::from(code)
}
