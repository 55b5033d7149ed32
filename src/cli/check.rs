//! `estrato check`.

use super::args::CheckArgs;
use super::context::Context;
use super::{exit, output, progress};
use crate::maintenance::{self, Damage, Depth, Part, Portion, Report};
use anyhow::Result;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::ExitCode;

/// Objects that are named where they are only told of.
const SHOWN: usize = 10;

/// Runs the command.
pub fn run(context: &Context, args: &CheckArgs) -> Result<ExitCode> {
    context.believe_no_copy()?;
    if let Some(there) = &args.against.against {
        return super::copy::compare(context, args, there);
    }
    let report = if args.store_only { without_key(context, args) } else { with_key(context, args) };
    context.progress.done();
    let report = report?;
    if context.global.json {
        output::print_json(&document(&report))?;
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
            summary(&mut text, args, &report);
        }
        output::print(&text)?;
    }
    Ok(if report.damages > 0 { ExitCode::from(exit::DAMAGE) } else { ExitCode::SUCCESS })
}

fn with_key(context: &Context, args: &CheckArgs) -> Result<Report> {
    let repo = context.open()?;
    progress::heed_interrupts(&context.progress);
    let portion = |part| Depth::Data(Portion { part, older_than: args.older_than });
    let depth = args.read_data.map_or(Depth::Structure, portion);
    let report = maintenance::check(&repo, depth, &*context.progress);
    Ok(report?)
}

fn without_key(context: &Context, args: &CheckArgs) -> Result<Report> {
    let store = context.store()?;
    progress::heed_interrupts(&context.progress);
    let part = args.read_data.unwrap_or(Part::All);
    Ok(maintenance::check_store(&*store, part, &*context.progress)?)
}

fn document(report: &Report) -> serde_json::Value {
    serde_json::json!({
        "damages": report.damages, "damage": report.damage, "snapshots": report.snapshots,
        "repaired": report.repaired, "packs": report.packs,
        "pack_bytes": report.pack_bytes, "read_packs": report.read_packs,
        "read_bytes": report.read_bytes, "blobs": report.blobs,
        "never_verified": report.never_verified, "oldest_verified": report.oldest_verified.map(output::utc_time),
        "unnamed_packs": report.unnamed, "unnamed": report.unnamed_packs,
        "unused_slots": report.unused_slots,
        "objects": report.objects, "stray_objects": report.stray_objects, "stray_bytes": report.stray_bytes,
        "strays": report.strays,
        "vouched": report.vouched, "unpublished": report.unpublished,
        "unindexed": report.unindexed, "unchecked": report.unchecked,
        "frozen": report.frozen, "frozen_packs": report.frozen_packs, "frozen_bytes": report.frozen_bytes,
        "frames_on_frozen": report.on_frozen,
    })
}

/// What was looked at, and what is to be told beside damage.
fn summary(text: &mut String, args: &CheckArgs, report: &Report) {
    let looked = if args.store_only {
        let objects = output::counted(report.objects, "object", "objects");
        format!("{objects}, {} packs of {} hashed", output::count(report.read_packs), output::count(report.packs))
    } else {
        let snapshots = output::counted(report.snapshots, "snapshot", "snapshots");
        format!("{snapshots}, {}", output::counted(report.packs, "pack", "packs"))
    };
    let of = match report.read_bytes == report.pack_bytes {
        true => String::new(),
        false => format!(" of {}", output::size(report.pack_bytes)),
    };
    let read = match (args.store_only, args.read_data) {
        (true, _) => format!(" ({}{of})", output::size(report.read_bytes)),
        (false, Some(_)) => {
            format!(", {}{of} read and {} blobs hashed", output::size(report.read_bytes), output::count(report.blobs))
        }
        (false, None) => String::new(),
    };
    let damaged = match report.damages {
        0 => "no damage".to_owned(),
        n => format!("{} damaged", output::counted(n, "object", "objects")),
    };
    let _ = writeln!(text, "{looked}{read}: {damaged}");
    let hurt: BTreeSet<&String> = report.damage.iter().flat_map(|damage| damage.needed_by.keys()).collect();
    for (of, by) in report.repaired.iter().filter(|(of, _)| hurt.contains(of)) {
        let _ =
            writeln!(text, "snapshot {} is incomplete: {} stands for it, without what is lost", &of[..8], &by[..8]);
    }
    covered(text, args, report);
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
    if report.stray_objects > 0 {
        let objects = output::counted(report.stray_objects, "object", "objects");
        let size = output::size(report.stray_bytes);
        let _ = writeln!(text, "{objects} ({size}) below tenants/ that belong to no repository");
        listed(text, &report.strays, report.stray_objects, ("object", "objects"));
    }
    if report.vouched > 0 {
        let entries = output::counted(report.vouched, "pack of another key is", "packs of other keys are");
        let _ = writeln!(text, "{entries} as they say: backups with every key may rely on them from now on");
    }
    if let Some(why) = &report.unpublished {
        let _ = writeln!(text, "what was found could not be published: {}", output::escaped_text(why));
    }
    for what in &report.unchecked {
        let _ = writeln!(text, "not checked: {what}");
    }
    if report.frozen_packs > 0 {
        frozen(text, report);
    }
}

/// When packs were last found whole, where not all of them were read.
fn covered(text: &mut String, args: &CheckArgs, report: &Report) {
    if args.store_only || args.read_data.is_none() || report.read_packs == report.packs {
        return;
    }
    if report.never_verified > 0 {
        let packs = output::counted(report.never_verified, "pack", "packs");
        let _ = writeln!(text, "{packs} that no check on this machine has found whole yet");
    }
    if let Some(time) = report.oldest_verified {
        let others = if report.never_verified > 0 { "of the others, " } else { "" };
        let _ = writeln!(text, "{others}the oldest verification is of {}", output::local_time(time));
    }
}

/// The first few names, and how many more there are.
fn listed(text: &mut String, names: &[String], all: u64, (one, many): (&str, &str)) {
    for name in names.iter().take(SHOWN) {
        let _ = writeln!(text, "  {}", output::escaped(name.as_bytes()));
    }
    let beyond = all.saturating_sub(SHOWN as u64);
    if beyond > 0 {
        let _ = writeln!(text, "  and {} more", output::counted(beyond, one, many));
    }
}

/// What was not read since it must be thawed before.
fn frozen(text: &mut String, report: &Report) {
    let packs = output::counted(report.frozen_packs, "pack", "packs");
    let _ = writeln!(text, "not checked: {packs} ({}) that must be thawed first", output::size(report.frozen_bytes));
    listed(text, &report.frozen, report.frozen_packs, ("pack", "packs"));
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
    if damage.mendable {
        text.push_str("  nothing of it is lost: its parity mends it, by 'estrato repair packs'\n");
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
