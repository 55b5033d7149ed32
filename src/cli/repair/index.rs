//! `estrato repair index`.

use crate::cli::context::Context;
use crate::cli::{exit, output, progress};
use crate::maintenance::repair::{self, HowIndex, IndexReport};
use anyhow::Result;
use clap::Args;
use std::fmt::Write as _;
use std::process::ExitCode;

/// Things that are named where they are only told of.
const SHOWN: usize = 20;

#[derive(Args)]
pub struct IndexArgs {
    /// Print what is wrong, and how much would be read, and write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Put damaged index objects away even where a pack cannot be read: what only they said of it is given up
    #[arg(long)]
    abandon_unreadable: bool,
}

/// Runs the command.
pub fn run(context: &Context, args: &IndexArgs) -> Result<ExitCode> {
    context.believe_no_copy()?;
    let repo = context.open()?;
    progress::heed_interrupts(&context.progress);
    let how = HowIndex { dry_run: args.dry_run, abandon: args.abandon_unreadable };
    let report = repair::repair_index(&repo, how, &*context.progress);
    context.progress.done();
    let report = report?;
    context.tell_local();
    if context.global.json {
        let mut document = serde_json::to_value(&report)?;
        document["dry_run"] = args.dry_run.into();
        output::print_json(&document)?;
    } else if !context.global.quiet || !report.is_healthy() || !report.is_whole() {
        output::print(&told(&report, args.dry_run))?;
    }
    let is_wrong = if args.dry_run { report.is_damaged() } else { !report.is_whole() };
    Ok(if is_wrong { ExitCode::from(exit::DAMAGE) } else { ExitCode::SUCCESS })
}

fn told(report: &IndexReport, is_dry: bool) -> String {
    let mut text = String::new();
    if report.is_healthy() {
        text.push_str("nothing is wrong with the index\n");
        return text;
    }
    for bad in report.damaged.iter().take(SHOWN) {
        let object = output::escaped(bad.object.as_bytes());
        let _ = writeln!(text, "{object}: {}", output::escaped_text(&bad.why));
    }
    beyond(&mut text, report.damaged.len(), ("damaged object", "damaged objects"));
    for object in report.gone.iter().take(SHOWN) {
        let _ = writeln!(text, "{object}: it is gone: this machine has seen it");
    }
    beyond(&mut text, report.gone.len(), ("object that is gone", "objects that are gone"));
    for entry in report.false_entries.iter().take(SHOWN) {
        let signer = output::escaped_text(&entry.signer);
        let _ = writeln!(text, "{}: what {} says of it is not so (indexed by {signer})", entry.pack, entry.object);
    }
    beyond(&mut text, report.false_entries.len(), ("false entry", "false entries"));
    let packs = output::counted(report.packs, "pack", "packs");
    let size = output::size(report.bytes);
    if is_dry {
        let _ = writeln!(text, "{packs} ({size}) would be read: no full key has said yet what they hold");
        return text;
    }
    for bad in report.broken.iter().take(SHOWN) {
        let _ = writeln!(text, "{}: {}; what opens of it is indexed", bad.object, output::escaped_text(&bad.why));
    }
    beyond(&mut text, report.broken.len(), ("damaged pack", "damaged packs"));
    for unread in report.unread.iter().take(SHOWN) {
        let frame = unread.frame.map(|number| format!(" frame {number}:")).unwrap_or_default();
        let _ = writeln!(text, "{}:{frame} {}", unread.pack, output::escaped_text(&unread.why));
    }
    beyond(&mut text, report.unread_all as usize, ("thing that could not be read", "things that could not be read"));
    for why in report.kept.iter().take(SHOWN) {
        let _ = writeln!(text, "{}", output::escaped_text(why));
    }
    beyond(&mut text, report.kept.len(), ("object that stays", "objects that stay"));
    let named = output::counted(report.named, "pack", "packs");
    let blobs = output::counted(report.blobs, "blob", "blobs");
    let replaced = output::counted(report.replaced, "index object", "index objects");
    let _ = writeln!(text, "{packs} ({size}) read; {named} with {blobs} indexed anew, {replaced} replaced");
    if report.retained > 0 {
        let many = output::counted(report.retained, "object is", "objects are");
        let _ = writeln!(text, "{many} retained by the store: nothing reads what is replaced");
    }
    if report.unread_all > 0 || !report.broken.is_empty() {
        text.push_str("'estrato repair packs' may mend these packs; then repair the index again\n");
    }
    text
}

/// How many more there are than are shown.
fn beyond(text: &mut String, all: usize, (one, many): (&str, &str)) {
    if all > SHOWN {
        let _ = writeln!(text, "and {} more", output::counted((all - SHOWN) as u64, one, many));
    }
}
