//! `estrato check`.

use super::args::CheckArgs;
use super::context::Context;
use super::{exit, output, progress};
use crate::maintenance::{self, Depth};
use anyhow::Result;
use std::fmt::Write as _;
use std::process::ExitCode;

/// Runs the command.
pub fn run(context: &Context, args: &CheckArgs) -> Result<ExitCode> {
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
            "unchecked": report.unchecked,
        }))?;
    } else {
        let mut text = String::new();
        for damage in &report.damage {
            let by = match &damage.indexed_by[..] {
                [] => String::new(),
                labels => format!(" (indexed by {})", output::escaped_text(&labels.join(", "))),
            };
            let _ = writeln!(
                text,
                "{}: {}{by}",
                output::escaped(damage.object.as_bytes()),
                output::escaped_text(&damage.why)
            );
            for (snapshot, paths) in &damage.needed_by {
                for path in paths {
                    let _ = writeln!(
                        text,
                        "  needed by snapshot {}: {}",
                        &snapshot[..8],
                        output::escaped(path.as_bytes())
                    );
                }
            }
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
                let _ = writeln!(
                    text,
                    "{} that no snapshot needs, left by interrupted runs",
                    output::counted(report.unnamed, "pack", "packs")
                );
            }
            for what in &report.unchecked {
                let _ = writeln!(text, "not checked: {what}");
            }
        }
        output::print(&text)?;
    }
    Ok(if report.damages > 0 { ExitCode::from(exit::DAMAGE) } else { ExitCode::SUCCESS })
}
