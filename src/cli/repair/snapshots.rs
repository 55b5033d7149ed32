//! `estrato repair snapshots`.

use crate::cli::context::Context;
use crate::cli::{exit, output, progress};
use crate::maintenance::repair::{self, HowSnapshots, Mended, SnapshotsReport};
use anyhow::Result;
use clap::Args;
use std::fmt::Write as _;
use std::process::ExitCode;

/// Things that are named of one snapshot.
const SHOWN: usize = 20;

#[derive(Args)]
pub struct SnapshotsArgs {
    /// Snapshots to repair (beginnings of ids, or latest); all that need it if none is given
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
    /// Print what is lost, and write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Runs the command.
pub fn run(context: &Context, args: &SnapshotsArgs) -> Result<ExitCode> {
    context.believe_no_copy()?;
    let repo = context.open()?;
    progress::heed_interrupts(&context.progress);
    let program = concat!("estrato ", env!("CARGO_PKG_VERSION")).to_owned();
    let how = HowSnapshots { named: args.snapshots.clone(), dry_run: args.dry_run, program };
    let report = repair::repair_snapshots(&repo, &how, &*context.progress);
    context.progress.done();
    let report = report?;
    context.tell_local();
    if context.global.json {
        let mut document = serde_json::to_value(&report)?;
        document["dry_run"] = args.dry_run.into();
        output::print_json(&document)?;
    } else if !context.global.quiet || !report.mended.is_empty() || !report.is_whole() {
        output::print(&told(&report))?;
    }
    Ok(if report.is_whole() { ExitCode::SUCCESS } else { ExitCode::from(exit::DAMAGE) })
}

fn told(report: &SnapshotsReport) -> String {
    let mut text = String::new();
    for mended in &report.mended {
        one(&mut text, mended);
    }
    for object in &report.damaged {
        let _ = writeln!(text, "{object}: it does not open, and nothing can be made of it");
    }
    let looked = output::counted(report.looked, "snapshot", "snapshots");
    let made = report.mended.iter().filter(|mended| mended.by.is_some() && !mended.was_there).count() as u64;
    let _ = match report.mended.len() as u64 {
        0 => writeln!(text, "{looked} looked at: nothing is lost"),
        n => writeln!(text, "{looked} looked at: {} incomplete, {made} repaired", output::count(n)),
    };
    text
}

/// One snapshot that has lost something.
fn one(text: &mut String, mended: &Mended) {
    let short = |id: &str| id.get(..8).unwrap_or(id).to_owned();
    let state = match (&mended.by, mended.was_there, &mended.why_not) {
        (Some(by), true, _) => format!("was repaired before: {}", short(by)),
        (Some(by), false, _) => format!("is repaired: {}", short(by)),
        (None, _, Some(why)) => format!("is not repaired: {why}"),
        (None, _, None) => "would be repaired".to_owned(),
    };
    let _ = writeln!(text, "snapshot {} {state}; without {}", short(&mended.snapshot), lacks(mended));
    for dropped in mended.dropped.iter().take(SHOWN) {
        let path = output::escaped(dropped.path.as_bytes());
        let what = match dropped.bytes {
            Some(bytes) => format!("{path} ({})", output::size(bytes)),
            None => format!("part of folder {path}"),
        };
        let _ = writeln!(text, "  {what}: {}", output::escaped_text(&dropped.why));
    }
    let beyond = (mended.files + mended.folders).saturating_sub(mended.dropped.len().min(SHOWN) as u64);
    if beyond > 0 {
        let _ = writeln!(text, "  and {} more", output::count(beyond));
    }
}

/// How much is left out.
fn lacks(mended: &Mended) -> String {
    let files = output::counted(mended.files, "file", "files");
    let files = format!("{files} ({})", output::size(mended.bytes));
    match (mended.files, mended.folders) {
        (_, 0) => files,
        (0, n) => format!("parts of {}", output::counted(n, "folder", "folders")),
        (_, n) => format!("{files} and parts of {}", output::counted(n, "folder", "folders")),
    }
}
