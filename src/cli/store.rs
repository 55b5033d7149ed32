//! `estrato store`: what can be said of a place, before a repository lies there and after.

use super::args::StoreCommand;
use super::context::Context;
use super::{output, policy};
use crate::error::Error;
use crate::monitor::{Event, Monitor as _};
use crate::store::probe::{Abilities, Finding, probe};
use crate::store::{self, Protection, Store};
use anyhow::Result;
use std::process::ExitCode;

/// Runs the command.
pub fn run(context: &Context, command: StoreCommand) -> Result<ExitCode> {
    match command {
        StoreCommand::Test { location } => {
            let store = match location {
                Some(location) => store::open(&location)?,
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

/// Refuses a store that is far and cannot do what a repository needs: it is asked, not believed.
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
    let unable = |only: &dyn Fn(&str) -> bool| {
        let failed = found.rows().into_iter().filter_map(|(what, finding)| match finding {
            Finding::Fails(why) if only(what) => Some(format!("{what}: {why}")),
            _ => None,
        });
        failed.collect::<Vec<_>>().join("; ")
    };
    if !found.can_hold_a_repository() {
        return Some(format!("no repository can lie in this store: {}", unable(&|_| true)));
    }
    if !found.creates_if_absent() {
        let why = unable(&|what| what.starts_with("create"));
        return Some(format!(
            "the store cannot create an object only where there is none, and this version needs that to keep \
             writers apart: {why}"
        ));
    }
    None
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
    match verdict(found) {
        None => text.push_str("a repository can lie here\n"),
        Some(_) => text.push_str("no repository can lie here\n"),
    }
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
    })
}
