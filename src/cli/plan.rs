//! `estrato restore --plan`: the packs that a restore would read.

use super::context::Context;
use super::output;
use crate::format::pack::StorageClass;
use crate::restore::{Need, Needs};
use crate::snapshot::Snapshot;
use anyhow::Result;
use std::process::ExitCode;

fn kind(class: StorageClass) -> &'static str {
    match class {
        StorageClass::Data => "data",
        StorageClass::Trees => "trees",
    }
}

/// How many packs of a class there are, what is read of them, and their sizes.
fn sums(needs: &Needs, class: StorageClass) -> (u64, u64, u64) {
    let of_class = needs.packs.iter().filter(|need| need.class == class);
    of_class.fold((0, 0, 0), |(packs, read, size), need| (packs + 1, read + need.read, size + need.size))
}

/// Prints what a restore needs; fails where something of it is known to be lost.
pub fn print(context: &Context, chosen: &Snapshot, needs: &Needs) -> Result<ExitCode> {
    if context.global.json {
        let sums = |class| {
            let (packs, read, size) = sums(needs, class);
            serde_json::json!({ "packs": packs, "read": read, "size": size })
        };
        let pack = |need: &Need| {
            serde_json::json!({
                "object": need.object, "kind": kind(need.class), "read": need.read, "size": need.size,
            })
        };
        output::print_json(&serde_json::json!({
            "snapshot": chosen.id.to_string(),
            "plan": {
                "data": sums(StorageClass::Data), "trees": sums(StorageClass::Trees),
                "packs": needs.packs.iter().map(pack).collect::<Vec<_>>(),
                "failed": needs.failed, "failures": needs.failures,
            },
        }))?;
    } else {
        for failed in &needs.failed {
            output::complain(&format!("error: {}", output::escaped_text(failed)));
        }
        output::print(&text(context, chosen, needs))?;
    }
    Ok(if needs.failures > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn text(context: &Context, chosen: &Snapshot, needs: &Needs) -> String {
    let row = |need: &Need| {
        let object = output::escaped(need.object.as_bytes()).into_owned();
        vec![object, kind(need.class).to_owned(), output::size(need.read), output::size(need.size)]
    };
    let rows: Vec<Vec<String>> = needs.packs.iter().map(row).collect();
    let mut text = output::table(&["pack", "kind", "read", "size"], &rows, &[2, 3]);
    if !context.global.quiet {
        let part = |class, what: &str| {
            let (packs, read, size) = sums(needs, class);
            let packs = output::counted(packs, &format!("pack of {what}"), &format!("packs of {what}"));
            format!("{} of {packs} ({})", output::size(read), output::size(size))
        };
        text.push_str(&format!(
            "a restore from snapshot {} of {} reads {}, and {}\n",
            chosen.id.short(),
            output::local_time(chosen.manifest.time),
            part(StorageClass::Data, "data"),
            part(StorageClass::Trees, "trees"),
        ));
    }
    text
}
