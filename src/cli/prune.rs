//! `estrato prune`: what would be done is printed, then done.

use super::args::PruneArgs;
use super::context::Context;
use super::{output, progress};
use crate::maintenance::prune::{self, Bounds, Optimise, Optimised, Options, Outcome, Rewritten, Sum, Summary};
use crate::monitor::{Event, Monitor as _};
use crate::repo::{Announced, Repository, Retained};
use anyhow::Result;
use std::process::ExitCode;

/// Runs the command.
pub fn run(context: &Context, args: &PruneArgs) -> Result<ExitCode> {
    context.believe_no_copy()?;
    let repo = context.open()?;
    progress::heed_interrupts(&context.progress);
    let mut optimised = None;
    if args.optimise {
        let done = prune::optimise(&repo, Optimise { deepest: args.max_depth }, args.dry_run, &*context.progress);
        context.progress.done();
        optimised = Some(done?);
    }
    let is_shown = !context.global.json && (args.dry_run || !context.global.quiet);
    if let Some(optimised) = optimised.as_ref().filter(|_| is_shown) {
        output::print(&rested(optimised))?;
    }
    let options = Options {
        preferred: optimised.as_ref().map(|optimised| optimised.packs.clone()).unwrap_or_default(),
        bounds: Bounds { unused_percent: args.max_unused, repack: args.max_repack },
        keep_condemned: args.keep_condemned,
        is_dry: args.dry_run,
        ..Options::default()
    };
    let mut document = prune(context, &repo, &options)?;
    if let Some(optimised) = optimised {
        document["optimised"] = serde_json::to_value(optimised)?;
    }
    context.tell_local();
    if context.global.json {
        output::print_json(&document)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prunes, says so, and gives the document of what was done.
pub fn prune(context: &Context, repo: &Repository, options: &Options) -> Result<serde_json::Value> {
    let prepared = prune::prepare(repo, options, &*context.progress);
    context.progress.done();
    let prepared = prepared?;
    let summary = prepared.summary().clone();
    let is_shown = !context.global.json && (options.is_dry || !context.global.quiet);
    if is_shown {
        output::print(&planned(&summary))?;
    }
    let outcome = if options.is_dry {
        Outcome::default()
    } else {
        let done = prepared.execute(&*context.progress);
        context.progress.done();
        done?
    };
    for session in &outcome.waiting {
        context.progress.event(Event::Warning(who(session)));
    }
    if is_shown && !options.is_dry {
        output::print(&done(&outcome))?;
    }
    Ok(document(options.is_dry, &summary, &outcome))
}

/// What was written anew because it rested badly.
fn rested(optimised: &Optimised) -> String {
    let row = |what: &str, done: &Rewritten| {
        let bytes = [done.plain_bytes, done.before_bytes, done.after_bytes].map(output::size);
        [&[what.to_owned(), output::count(done.blobs)][..], &bytes].concat()
    };
    let rows = [row("chains shortened", &optimised.flattened), row("deltas of a writer's", &optimised.deltas)];
    let heads = ["written anew", "blobs", "plain", "took", "take now"];
    format!("{}{} read\n\n", output::table(&heads, &rows, &[1, 2, 3, 4]), output::size(optimised.read_bytes))
}

/// A backup that stands in the way.
pub(super) fn who(session: &Announced) -> String {
    let heard = output::local_time(session.heard);
    match &session.owner {
        Some((host, pid)) => {
            format!("a backup runs on {} (process {pid}), heard of at {heard}", output::escaped_text(host))
        }
        None => format!("a backup runs whose session {} cannot be read, heard of at {heard}", session.id),
    }
}

pub(super) fn planned(summary: &Summary) -> String {
    if let Some(number) = summary.taken_up {
        return format!("takes up plan {number}, which another prune left\n");
    }
    let row = |what: &str, sum: Sum, note: String| {
        vec![what.to_owned(), output::count(sum.packs), output::size(sum.bytes), note]
    };
    let mut rows = vec![
        row("deleted", summary.unused, "no snapshot needs any of it".into()),
        row("written anew", summary.repacked, format!("{} of it is needed", output::size(summary.rewritten))),
        row("kept", summary.kept, format!("{} of it is not needed", output::size(summary.idle))),
    ];
    if summary.spared.packs > 0 {
        rows.push(row("left alone", summary.spared, "they may belong to a backup that runs".into()));
    }
    if summary.left.packs > 0 {
        rows.push(row("left there", summary.left, "condemned before, for restores that read them still".into()));
    }
    let freed = (summary.unused.bytes + summary.repacked.bytes).saturating_sub(summary.rewritten);
    format!(
        "{}{} walked; about {} become free\n",
        output::table(&["packs", "number", "size", ""], &rows, &[1, 2]),
        output::counted(summary.snapshots, "snapshot", "snapshots"),
        output::size(freed),
    )
}

pub(super) fn done(outcome: &Outcome) -> String {
    let mut text = String::new();
    if !outcome.ended.is_empty() {
        let many = output::counted(outcome.ended.len() as u64, "backup", "backups");
        text.push_str(&format!("{many} gave no sign for an hour: ended\n"));
    }
    if !outcome.waiting.is_empty() {
        text.push_str("nothing is deleted while they run: the next prune goes on\n");
        return text;
    }
    text.push_str(&format!(
        "{} deleted, {} written anew, {} replaced\n",
        output::counted(outcome.deleted, "pack", "packs"),
        output::size(outcome.written),
        output::counted(outcome.indexes, "index object", "index objects"),
    ));
    if outcome.left > 0 {
        let many = output::counted(outcome.left, "pack is", "packs are");
        text.push_str(&format!("{many} left there for restores that read them still: a later prune deletes them\n"));
    }
    if !outcome.retained.is_empty() {
        let many = output::counted(outcome.retained.len() as u64, "object", "objects");
        let bytes = output::size(outcome.retained.iter().map(|o| o.bytes).sum());
        let until = outcome.retained.iter().filter_map(|o| o.until).max();
        let until =
            until.map_or_else(String::new, |until| format!(", until {} at the latest", output::local_time(until)));
        text.push_str(&format!(
            "{many} ({bytes}) retained: the store keeps them locked{until}; nothing needs them, and a later prune \
             deletes them\n"
        ));
    }
    if let Some(means) = &outcome.kept_by_store {
        let means = output::escaped_text(means);
        text.push_str(&format!(
            "the store keeps what is deleted ({means}): it becomes free as the store's rules say\n"
        ));
    }
    text
}

/// What the store would not delete yet, as JSON.
pub fn retained(object: &Retained) -> serde_json::Value {
    serde_json::json!({
        "object": object.name, "bytes": object.bytes, "until": object.until.map(output::utc_time),
    })
}

fn document(is_dry: bool, summary: &Summary, outcome: &Outcome) -> serde_json::Value {
    let waiting = outcome.waiting.iter().map(|session| {
        serde_json::json!({
            "session": session.id.to_string(),
            "host": session.owner.as_ref().map(|(host, _)| host),
            "pid": session.owner.as_ref().map(|(_, pid)| pid),
            "heard": output::utc_time(session.heard),
        })
    });
    serde_json::json!({
        "dry_run": is_dry, "planned": summary, "waiting": waiting.collect::<Vec<_>>(),
        "ended": outcome.ended.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "deleted_packs": outcome.deleted, "left_packs": outcome.left, "written_bytes": outcome.written,
        "replaced_indexes": outcome.indexes, "retained": outcome.retained.iter().map(retained).collect::<Vec<_>>(),
        "kept_by_store": outcome.kept_by_store,
    })
}
