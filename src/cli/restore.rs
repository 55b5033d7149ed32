//! `estrato restore`.

use super::args::RestoreArgs;
use super::context::Context;
use super::{look, output, plan, progress, warm};
use crate::format::node::Kind;
use crate::monitor::{Event, Monitor as _};
use crate::restore::{self, Options, Outcome};
use crate::snapshot::Snapshot;
use anyhow::Result;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

/// Runs the command.
pub fn run(context: &Context, args: &RestoreArgs) -> Result<ExitCode> {
    let repo = context.open()?;
    progress::heed_interrupts(&context.progress);
    let named = args.snapshot.as_deref().unwrap_or("latest");
    let (chosen, node) = look::choose(context, &repo, named, &args.filter)?;
    let mut options = Options {
        include: args.include.clone(),
        exclude: args.exclude.clone(),
        delete: args.delete,
        dry_run: args.dry_run,
        numeric_owner: args.numeric_owner,
        verify: args.verify,
        warmed: None,
    };
    // A folder's entries go right below the target; any other entry keeps its name there.
    let (root, only) = match node {
        None => (chosen.manifest.root.clone(), None),
        Some(node) if node.kind == Kind::Dir => (node.content, None),
        Some(node) => (Default::default(), Some(node)),
    };
    let Some(target) = args.target.as_deref().filter(|_| !args.plan) else {
        let needs = restore::needs(&repo, &root, only, &options, &*context.progress);
        context.progress.done();
        return plan::print(context, &chosen, &needs?);
    };
    if let Some(command) = &args.warm_up_command {
        let needs = restore::needs(&repo, &root, only.clone(), &options, &*context.progress);
        context.progress.done();
        let needs = needs?;
        warm::up(context, command, args.warm_up_wait.unwrap_or_default(), &needs)?;
        options.warmed = Some(needs.frames);
    }
    let whole = only.is_none() && !named.contains(':') && args.include.is_empty();
    let total = whole.then_some(chosen.manifest.summary.total.bytes);
    context.progress.event(Event::Phase { name: "restoring", total_bytes: total });
    let started = context.clock.elapsed();
    let restored = restore::run(&repo, &root, only, target, &options, &*context.progress);
    context.progress.done();
    let outcome = restored?;
    let seconds = (context.clock.elapsed() - started).as_secs_f64();
    if !context.global.json {
        for failed in &outcome.failed {
            output::complain(&format!("error: {}", output::escaped_text(failed)));
        }
        for warning in &outcome.warnings {
            output::complain(&format!("warning: {}", output::escaped_text(warning)));
        }
    }
    if context.global.json {
        // It holds what went wrong, too.
        output::print_json(&serde_json::json!({ "snapshot": chosen.id.to_string(), "outcome": outcome }))?;
    } else if !context.global.quiet {
        output::print(&summary(args, &chosen, &outcome, target, seconds))?;
    }
    if outcome.failures > 0 {
        let what = output::counted(outcome.failures, "entry was", "entries were");
        if !context.global.json {
            output::complain(&format!("estrato: {what} not restored"));
        }
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// What was restored, in words.
fn summary(args: &RestoreArgs, chosen: &Snapshot, outcome: &Outcome, target: &Path, seconds: f64) -> String {
    let mut text = String::new();
    let verb = if args.dry_run { "would restore" } else { "restored" };
    let _ = write!(
        text,
        "{verb} {} in {} from snapshot {} of {} to {}",
        output::size(outcome.bytes),
        output::counted(outcome.entries, "entry", "entries"),
        chosen.id.short(),
        output::local_time(chosen.manifest.time),
        output::escaped_text(&target.to_string_lossy()),
    );
    let _ = if args.dry_run { writeln!(text) } else { writeln!(text, ", in {seconds:.1} s") };
    if outcome.unchanged_bytes > 0 {
        let _ = writeln!(text, "  {} were there already", output::size(outcome.unchanged_bytes));
    }
    if outcome.deleted > 0 {
        let _ = writeln!(text, "  {} removed", output::counted(outcome.deleted, "entry", "entries"));
    }
    if args.verify {
        let _ = writeln!(text, "  {} compared with the snapshot", output::counted(outcome.verified, "file", "files"));
    }
    text
}
