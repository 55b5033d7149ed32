//! `estrato hold`.

use super::args::HoldCommand;
use super::context::Context;
use super::{exit, look, output};
use crate::error::Error;
use crate::id::SnapshotId;
use crate::repo::{Held, Repository};
use crate::snapshot::{Filter, Listing};
use anyhow::Result;
use std::process::ExitCode;

/// Runs the command.
pub fn run(context: &Context, command: HoldCommand) -> Result<ExitCode> {
    let repo = context.open()?;
    match command {
        HoldCommand::Add { snapshots, why } => {
            repo.writable()?;
            repo.private_key().map_err(|_| Error::NotAllowed { what: "put snapshots under hold" })?;
            let mut listing = look::listing(context, &repo)?;
            let named = |text: &String| listing.choose(text, &Filter::default()).map(|s| s.id);
            let ids = snapshots.iter().map(named).collect::<crate::error::Result<Vec<_>>>()?;
            for id in &ids {
                repo.hold(id, &why)?;
            }
            done(context, "under hold", &ids)?;
        }
        HoldCommand::Remove { snapshots } => {
            repo.writable()?;
            repo.private_key().map_err(|_| Error::NotAllowed { what: "end a hold" })?;
            let held: Vec<SnapshotId> = repo.holds()?.into_iter().map(|held| held.snapshot).collect();
            let ids = snapshots.iter().map(|text| of_held(&held, text)).collect::<crate::error::Result<Vec<_>>>()?;
            for id in &ids {
                repo.end_hold(id)?;
            }
            done(context, "no more under hold", &ids)?;
        }
        HoldCommand::List => return list(context, &repo),
    }
    Ok(ExitCode::SUCCESS)
}

/// The one snapshot under hold whose id begins so. It need not be there.
fn of_held(held: &[SnapshotId], text: &str) -> crate::error::Result<SnapshotId> {
    let text = text.to_ascii_lowercase();
    let found: Vec<SnapshotId> = held.iter().copied().filter(|id| id.to_string().starts_with(&text)).collect();
    match found[..] {
        [one] if text.len() >= 4 => Ok(one),
        [_, _, ..] => {
            Err(Error::Invalid(format!("several snapshots under hold begin with {text}; give more digits")))
        }
        _ => Err(Error::NotFound(format!("no snapshot under hold begins with {text} (4 digits at least)"))),
    }
}

fn done(context: &Context, what: &str, ids: &[SnapshotId]) -> Result<()> {
    if context.global.json {
        return output::print_json(&ids.iter().map(SnapshotId::to_string).collect::<Vec<_>>());
    }
    if context.global.quiet {
        return Ok(());
    }
    output::print(&ids.iter().map(|id| format!("snapshot {} is {what}\n", id.short())).collect::<String>())
}

/// Whether a snapshot under hold is there; only a full key can tell.
fn state(listing: Option<&Listing>, id: &SnapshotId) -> &'static str {
    match listing {
        None => "",
        Some(listing) if listing.snapshots.iter().any(|s| s.id == *id) => "there",
        Some(listing) if listing.damaged.iter().any(|(damaged, _)| damaged == id) => "damaged",
        Some(_) => "missing",
    }
}

fn list(context: &Context, repo: &Repository) -> Result<ExitCode> {
    let holds = repo.holds()?;
    let listing = repo.private_key().is_ok().then(|| look::listing(context, repo)).transpose()?;
    let state = |held: &Held| state(listing.as_ref(), &held.snapshot);
    if context.global.json {
        let one = |held: &Held| {
            serde_json::json!({
                "snapshot": held.snapshot.to_string(), "since": held.hold.as_ref().ok().map(|h| output::utc_time(h.time)),
                "why": held.hold.as_ref().ok().map(|h| &h.why), "state": state(held),
                "problem": held.hold.as_ref().err().map(ToString::to_string),
            })
        };
        output::print_json(&holds.iter().map(one).collect::<Vec<_>>())?;
    } else {
        let row = |held: &Held| {
            let (since, why) = match &held.hold {
                Ok(hold) => (output::local_time(hold.time), hold.why.clone()),
                Err(e) => (String::new(), e.to_string()),
            };
            vec![held.snapshot.short(), since, state(held).into(), output::escaped_text(&why)]
        };
        let rows: Vec<Vec<String>> = holds.iter().map(row).collect();
        output::print(&output::table(&["snapshot", "since", "is", "why"], &rows, &[]))?;
    }
    let whole = holds.iter().all(|held| held.hold.is_ok() && ["there", ""].contains(&state(held)));
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::from(exit::DAMAGE) })
}
