//! The command line: arguments in, text or JSON out, exit codes. Everything
//! that prints is here; nothing that a library user could need is.

mod args;
mod check;
mod context;
mod copy;
mod erase;
mod exit;
mod forget;
mod hold;
mod init;
mod key;
mod look;
mod operator;
mod output;
mod plan;
mod policy;
mod progress;
mod prune;
mod quantity;
mod rekey;
mod repair;
mod restore;
mod rotate;
mod snapshot;
mod stats;
mod store;
mod tenant;
mod warm;

use anyhow::Result;
use args::{Cli, Command};
use clap::Parser as _;
use context::Context;
use std::process::ExitCode;

/// Runs the program.
pub fn main() -> ExitCode {
    leave_no_core();
    // Restores hold many folders open; the usual soft limit is lower than need be.
    if let Ok((soft, hard)) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // Where it cannot be raised, work goes on within the limit there is.
        let _ = nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, hard, hard);
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => return exit::usage(&e),
    };
    let context = Context::new(cli.global);
    let json = context.global.json;
    let ran = run(&context, cli.command);
    context.tell_local();
    match ran {
        Ok(code) => code,
        Err(e) => exit::report(&e, json),
    }
}

/// The memory of this process holds keys: it must not become a file, nor be read by another process of
/// the same user. A command that is run for a snapshot gets the first of both too.
fn leave_no_core() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    // Where neither can be had, work goes on: whoever could forbid it could read the memory anyway.
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_CORE) {
        let _ = setrlimit(Resource::RLIMIT_CORE, 0, hard);
    }
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

fn run(context: &Context, command: Command) -> Result<ExitCode> {
    match command {
        Command::Init(args) => init::run(context, &args),
        Command::Snapshot(args) => snapshot::run(context, args),
        Command::Snapshots(args) => look::snapshots(context, &args),
        Command::Ls(args) => look::ls(context, &args),
        Command::Restore(args) => restore::run(context, &args),
        Command::Check(args) => check::run(context, &args),
        Command::Forget(args) => forget::run(context, &args),
        Command::Hold(args) => hold::run(context, args),
        Command::Prune(args) => prune::run(context, &args),
        Command::Repair(command) => repair::run(context, &command),
        Command::Stats => stats::run(context),
        Command::Copy(args) => copy::run(context, &args),
        Command::Key(args) => key::run(context, args),
        Command::Tenant(args) => tenant::run(context, args),
        Command::Store(args) => store::run(context, args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut <Cli as clap::CommandFactory>::command(), "estrato", &mut script);
            output::print(&String::from_utf8_lossy(&script))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
