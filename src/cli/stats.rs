//! `estrato stats`.

use super::context::Context;
use super::{exit, output};
use crate::maintenance::{self, Frames, Stats};
use anyhow::Result;
use std::fmt::Write as _;
use std::process::ExitCode;

/// Runs the command.
pub fn run(context: &Context) -> Result<ExitCode> {
    let repo = context.open()?;
    let (stats, problems) = maintenance::stats(&repo)?;
    for problem in &problems {
        output::complain(&format!("warning: {}", output::escaped_text(&problem.to_string())));
    }
    if context.global.json {
        output::print_json(&stats)?;
    } else {
        output::print(&text(&stats))?;
    }
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(exit::DAMAGE) })
}

fn text(stats: &Stats) -> String {
    let mut text = format!(
        "{}; {}, {}; {}, {}\n",
        output::counted(stats.snapshots, "snapshot", "snapshots"),
        output::counted(stats.packs, "pack", "packs"),
        output::size(stats.pack_bytes),
        output::counted(stats.index_objects, "index object", "index objects"),
        output::size(stats.index_bytes),
    );
    let kinds: Vec<&Frames> = stats.frames.iter().filter(|f| f.plain.frames + f.delta.frames > 0).collect();
    let mut rows = Vec::new();
    for of in &kinds {
        for (name, sums) in [("plain", of.plain), ("delta", of.delta)] {
            if sums.frames > 0 {
                rows.push(vec![
                    of.kind.to_owned(),
                    name.to_owned(),
                    output::count(sums.frames),
                    output::count(sums.blobs),
                    output::size(sums.plain_bytes),
                    output::size(sums.stored_bytes),
                ]);
            }
        }
    }
    if !rows.is_empty() {
        let head = ["what", "frames", "number", "blobs", "plaintext", "stored"];
        text.push_str(&output::table(&head, &rows, &[2, 3, 4, 5]));
    }
    for of in kinds.iter().filter(|of| of.delta.frames > 0) {
        let depths: Vec<String> = of
            .depths
            .iter()
            .enumerate()
            .skip(1)
            .map(|(depth, n)| format!("{depth}: {}", output::count(*n)))
            .collect();
        let _ = writeln!(
            text,
            "{}: delta frames at depth {}; about {} saved",
            of.kind,
            depths.join(", "),
            output::size(of.saved)
        );
    }
    if stats.parity_per_mille > 0 {
        let _ = writeln!(text, "new packs get {} of parity", output::per_mille(stats.parity_per_mille));
    }
    text
}
