//! `estrato repair`: what is mended, and what cannot be.

mod index;
mod snapshots;

use super::context::Context;
use super::{exit, output, progress};
use crate::maintenance::repair::{self, Outcome, Remedy, Treated, Wanted};
use anyhow::Result;
use clap::{Args, Subcommand};
use std::fmt::Write as _;
use std::process::ExitCode;

#[derive(Subcommand)]
pub enum RepairCommand {
    /// Mend packs that are damaged or gone: by their parity, from another repository, or by what is whole of them
    Packs(PacksArgs),
    /// Make the index anew from packs, where it is damaged or gone, and put wrong entries away
    Index(index::IndexArgs),
    /// Make incomplete snapshots anew without what is lost of them; the old ones stay
    Snapshots(snapshots::SnapshotsArgs),
}

#[derive(Args)]
pub struct PacksArgs {
    /// Print what would be done, and do nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Read every pack, not only those that a check has found damaged, and those of the wrong size
    #[arg(long)]
    pub all: bool,
    /// Take from this repository what is damaged here: one with the same packs, such as a mirror
    #[arg(long, value_name = "LOCATION")]
    pub from: Option<String>,
}

/// Runs the command.
pub fn run(context: &Context, command: &RepairCommand) -> Result<ExitCode> {
    match command {
        RepairCommand::Packs(args) => packs(context, args),
        RepairCommand::Index(args) => index::run(context, args),
        RepairCommand::Snapshots(args) => snapshots::run(context, args),
    }
}

fn packs(context: &Context, args: &PacksArgs) -> Result<ExitCode> {
    context.believe_no_copy()?;
    let from = args.from.as_ref().map(|location| context.store_at(location)).transpose()?;
    let repo = context.open()?;
    if let Some(from) = &from {
        // What is mistyped is an empty place, and must not look like a copy in which nothing is whole.
        crate::repo::repository_id(&**from)?;
    }
    progress::heed_interrupts(&context.progress);
    let wanted = Wanted { all: args.all, from: from.as_deref(), is_dry: args.dry_run };
    let outcome = repair::repair_packs(&repo, &wanted, &*context.progress);
    context.progress.done();
    let outcome = outcome?;
    if context.global.json {
        let mut document = serde_json::to_value(&outcome)?;
        document["dry_run"] = args.dry_run.into();
        output::print_json(&document)?;
    } else if !context.global.quiet || outcome.damages > 0 {
        output::print(&text(args, &outcome))?;
    }
    Ok(if outcome.lost_blobs > 0 { ExitCode::from(exit::DAMAGE) } else { ExitCode::SUCCESS })
}

/// What is done about a pack, in words.
fn remedy(treated: &Treated, is_dry: bool) -> String {
    let (is, lie) = if is_dry { ("would be", "would lie") } else { ("is", "lie") };
    match treated.remedy {
        Remedy::Parity => format!("{is} mended by its parity"),
        Remedy::Other => format!("{is} taken from the other repository"),
        Remedy::Copied => {
            format!("its {} {lie} elsewhere", output::counted(treated.copied_frames, "whole frame", "whole frames"))
        }
        Remedy::Nothing if treated.lost_frames == 0 => "all that was in it lies elsewhere".into(),
        Remedy::Nothing => "nothing can be done here".into(),
        Remedy::Unneeded => "no index object names it, so nothing needs it".into(),
    }
}

fn text(args: &PacksArgs, outcome: &Outcome) -> String {
    let mut text = String::new();
    for treated in &outcome.damaged {
        let object = output::escaped(treated.object.as_bytes());
        let _ = writeln!(text, "{object}: {}", output::escaped_text(&treated.why));
        let _ = write!(text, "  {}", remedy(treated, args.dry_run));
        if treated.lost_frames > 0 {
            let _ = write!(text, "; {} lost", output::counted(treated.lost_frames, "frame", "frames"));
        }
        text.push('\n');
    }
    let beyond = outcome.damages - outcome.damaged.len() as u64;
    if beyond > 0 {
        let _ = writeln!(text, "and {} more", output::counted(beyond, "damaged pack", "damaged packs"));
    }
    let read = match outcome.read_packs == outcome.packs {
        true => format!("all {} packs read", output::count(outcome.packs)),
        false => format!("{} of {} packs read", output::count(outcome.read_packs), output::count(outcome.packs)),
    };
    let found = match outcome.damages {
        0 => "none is damaged, nothing was changed".to_owned(),
        n => {
            let mended = output::count(outcome.mended);
            let would = if args.dry_run { "of which can be mended " } else { "mended " };
            format!("{} damaged or gone, {would}{mended}", output::counted(n, "is", "are"))
        }
    };
    let _ = writeln!(text, "{read}: {found}");
    if !args.all && outcome.damages == 0 {
        text.push_str("read were those that a check has found damaged: --all reads every pack\n");
    }
    if outcome.frozen_packs > 0 {
        let packs = output::counted(outcome.frozen_packs, "pack", "packs");
        let _ = writeln!(text, "not read: {packs} that must be thawed first");
    }
    if outcome.written_bytes > 0 {
        let _ = writeln!(text, "{} written, of what was whole", output::size(outcome.written_bytes));
    }
    if outcome.damaged.iter().any(|t| matches!(t.remedy, Remedy::Copied | Remedy::Nothing | Remedy::Unneeded)) {
        text.push_str("what is left of damaged packs goes with the next prune, once nothing needs it\n");
    }
    if outcome.lost_blobs > 0 {
        let blobs = output::counted(outcome.lost_blobs, "blob is", "blobs are");
        let _ = writeln!(
            text,
            "{blobs} lost: 'estrato check' names what needs them. --from takes packs from a mirror, and a backup stores \
             again what its source still has"
        );
    }
    text
}
