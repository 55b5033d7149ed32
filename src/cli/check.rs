//! `estrato check`.

use super::args::CheckArgs;
use super::context::Context;
use super::{exit, output, progress};
use crate::maintenance::{self, Damage, Depth, Report};
use anyhow::Result;
use std::fmt::Write as _;
use std::process::ExitCode;

/// Packs that are named where they are only not read.
const FROZEN_SHOWN: usize = 10;

/// Runs the command.
pub fn run(context: &Context, args: &CheckArgs) -> Result<ExitCode> {
    context.believe_no_copy()?;
    let repo = context.open()?;
    progress::heed_interrupts(&context.progress);
    let depth = if args.read_data { Depth::AllData } else { Depth::Structure };
    let checked = maintenance::check(&repo, depth, &*context.progress);
    context.progress.done();
    let report = checked?;
    if context.global.json {
        output::print_json(&serde_json::json!({
            "damages": report.damages, "damage": report.damage, "snapshots": report.snapshots, "packs": report.packs,
            "read_bytes": report.read_bytes, "blobs": report.blobs, "unnamed_packs": report.unnamed,
            "unused_slots": report.unused_slots,
            "unindexed": report.unindexed, "unchecked": report.unchecked,
            "frozen": report.frozen, "frozen_packs": report.frozen_packs, "frozen_bytes": report.frozen_bytes,
            "frames_on_frozen": report.on_frozen,
        }))?;
    } else {
        let mut text = String::new();
        for damage in &report.damage {
            describe(&mut text, damage);
        }
        let beyond = report.damages - report.damage.len() as u64;
        if beyond > 0 {
            let _ = writeln!(text, "and {} more", output::counted(beyond, "damaged object", "damaged objects"));
        }
        if !context.global.quiet || report.damages > 0 {
            let read = if args.read_data {
                format!(", {} read and {} blobs hashed", output::size(report.read_bytes), output::count(report.blobs))
            } else {
                String::new()
            };
            let _ = writeln!(
                text,
                "{}, {}{read}: {}",
                output::counted(report.snapshots, "snapshot", "snapshots"),
                output::counted(report.packs, "pack", "packs"),
                match report.damages {
                    0 => "no damage".to_owned(),
                    n => format!("{} damaged", output::counted(n, "object", "objects")),
                }
            );
            if report.unnamed > 0 {
                let why = match report.unindexed {
                    true => "that no index object names: what the index lacks may lie there",
                    false => "that no snapshot needs, left by interrupted runs",
                };
                let _ = writeln!(text, "{} {why}", output::counted(report.unnamed, "pack", "packs"));
            }
            if report.unused_slots > 0 {
                let slots = output::counted(report.unused_slots, "slot", "slots");
                let _ = writeln!(text, "{slots} that no key has, left by interrupted runs or put back");
            }
            for what in &report.unchecked {
                let _ = writeln!(text, "not checked: {what}");
            }
            if report.frozen_packs > 0 {
                frozen(&mut text, &report);
            }
        }
        output::print(&text)?;
    }
    Ok(if report.damages > 0 { ExitCode::from(exit::DAMAGE) } else { ExitCode::SUCCESS })
}

/// What was not read since it must be thawed before.
fn frozen(text: &mut String, report: &Report) {
    let packs = output::counted(report.frozen_packs, "pack", "packs");
    let _ = writeln!(text, "not checked: {packs} ({}) that must be thawed first", output::size(report.frozen_bytes));
    for object in report.frozen.iter().take(FROZEN_SHOWN) {
        let _ = writeln!(text, "  {}", output::escaped(object.as_bytes()));
    }
    let beyond = report.frozen_packs.saturating_sub(FROZEN_SHOWN as u64);
    if beyond > 0 {
        let _ = writeln!(text, "  and {} more", output::counted(beyond, "pack", "packs"));
    }
    if report.on_frozen > 0 {
        let frames = output::counted(report.on_frozen, "frame", "frames");
        let _ = writeln!(text, "not checked: {frames} of other packs that rest on them");
    }
}

/// One damaged object: what is wrong with it, how much rests on it, and where.
fn describe(text: &mut String, damage: &Damage) {
    let mut why = damage.why.join("; ");
    if damage.more_reasons > 0 {
        let _ = write!(why, "; and {} more", output::count(damage.more_reasons));
    }
    let object = output::escaped(damage.object.as_bytes());
    if !damage.indexed_by.is_empty() {
        let _ = write!(why, " (indexed by {})", damage.indexed_by.join(", "));
    }
    let _ = writeln!(text, "{object}: {}", output::escaped_text(&why));
    if damage.frames > 0 {
        let frames = output::counted(damage.frames, "frame", "frames");
        let _ = writeln!(text, "  {} of {frames} damaged", output::count(damage.bad_frames));
    }
    if damage.entries == 0 {
        return;
    }
    let _ = writeln!(
        text,
        "  {} lost, needed by {} in {}",
        output::counted(damage.lost_blobs, "blob", "blobs"),
        output::counted(damage.entries, "file or folder", "files and folders"),
        output::counted(damage.needed_by.len() as u64 + damage.more_snapshots, "snapshot", "snapshots"),
    );
    for (snapshot, needed) in &damage.needed_by {
        let short = &snapshot[..8];
        for path in &needed.paths {
            let _ = writeln!(text, "  needed by snapshot {short}: {}", output::escaped(path.as_bytes()));
        }
        if needed.more > 0 {
            let _ = writeln!(text, "  needed by snapshot {short}: and {} more", output::count(needed.more));
        }
    }
    if damage.more_snapshots > 0 {
        let more = output::counted(damage.more_snapshots, "more snapshot", "more snapshots");
        let _ = writeln!(text, "  needed by {more}");
    }
}
