//! `estrato store`: what can be said of a place, before a repository lies there and after.

use super::args::StoreCommand;
use super::context::Context;
use super::{output, policy};
use crate::error::Error;
use crate::monitor::{Event, Monitor as _};
use crate::repo;
use crate::store::probe::{Abilities, Finding, probe};
use crate::store::{Protection, Store};
use anyhow::Result;
use std::process::ExitCode;

/// Runs the command.
pub fn run(context: &Context, command: StoreCommand) -> Result<ExitCode> {
    match command {
        StoreCommand::Test { location } => {
            let store = match location {
                Some(location) => context.store_at(&location)?,
                None => context.store()?,
            };
            let found = probe(&*store).map_err(Error::from)?;
            let protection = store.protection();
            if context.global.json {
                output::print_json(&document(&*store, &found, &protection))?;
            } else {
                output::print(&text(&found, &protection))?;
            }
            Ok(if verdict(&found).is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        StoreCommand::Policy { location, role } => policy::run(context, location, role),
    }
}

/// Refuses a store that is far and cannot do what a repository needs: it is asked, not believed. One that
/// ignores the condition of a create is none such; whoever opens the repository is told.
pub fn refuse_unable(store: &dyn Store) -> Result<()> {
    // A folder of this machine is held to the contract by tests.
    if !store.is_far() {
        return Ok(());
    }
    let found = probe(store).map_err(Error::from)?;
    match verdict(&found) {
        None => Ok(()),
        Some(why) => Err(Error::Invalid(format!("{}: {why}", store.describe())).into()),
    }
}

/// Says it where a store that is far brings nothing back. What it does not tell is no reason to warn.
pub fn warn_unprotected(context: &Context, store: &dyn Store) {
    if store.is_far() && store.protection() == Protection::Missing {
        context.progress.event(Event::Warning(
            "this store brings back nothing that is deleted or overwritten: turn on versioning or object lock, and \
             see 'estrato store policy' for what each role's credentials should be allowed"
                .into(),
        ));
    }
}

/// Why no repository can lie there; `None` if one can.
fn verdict(found: &Abilities) -> Option<String> {
    let failed = found.rows().into_iter().filter_map(|(what, finding)| match finding {
        Finding::Fails(why) => Some(format!("{what}: {why}")),
        Finding::Holds => None,
    });
    let failed = failed.collect::<Vec<_>>().join("; ");
    (!found.can_hold_a_repository()).then(|| format!("no repository can lie in this store: {failed}"))
}

fn text(found: &Abilities, protection: &Protection) -> String {
    let mut rows: Vec<Vec<String>> = found
        .rows()
        .map(|(what, finding)| match finding {
            Finding::Holds => vec![what.to_owned(), "yes".into(), String::new()],
            Finding::Fails(why) => vec![what.to_owned(), "no".into(), output::escaped_text(why)],
        })
        .to_vec();
    let (stands, detail) = match protection {
        Protection::Stands(how) => ("yes", how.as_str()),
        Protection::Missing => ("no", "what is deleted or overwritten is gone"),
        Protection::Unknown(why) => ("unknown", why.as_str()),
    };
    rows.push(vec!["versioning or object lock".into(), stands.into(), output::escaped_text(detail)]);
    let mut text = output::table(&["what", "holds", "details"], &rows, &[]);
    text.push_str(&match verdict(found) {
        None if found.creates_if_absent() => "a repository can lie here\n".into(),
        None => format!("a repository can lie here, with care: this store {}\n", repo::UNABLE),
        Some(_) => "no repository can lie here\n".into(),
    });
    text
}

fn document(store: &dyn Store, found: &Abilities, protection: &Protection) -> serde_json::Value {
    let abilities = found.rows().map(|(what, finding)| match finding {
        Finding::Holds => serde_json::json!({ "what": what, "holds": true }),
        Finding::Fails(why) => serde_json::json!({ "what": what, "holds": false, "why": why }),
    });
    let protection = match protection {
        Protection::Stands(how) => serde_json::json!({ "stands": true, "how": how }),
        Protection::Missing => serde_json::json!({ "stands": false }),
        Protection::Unknown(why) => serde_json::json!({ "stands": null, "why": why }),
    };
    serde_json::json!({
        "location": store.describe(), "abilities": abilities, "protection": protection,
        "suitable": verdict(found).is_none(),
        "creates_if_absent": found.creates_if_absent(),
    })
}
