//! `estrato store`: what can be said of a place before a repository lies there.

use super::args::StoreCommand;
use super::context::Context;
use super::output;
use crate::error::Error;
use crate::store::probe::{Abilities, Finding, probe};
use crate::store::{self, Store};
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
            if context.global.json {
                output::print_json(&document(&*store, &found))?;
            } else {
                output::print(&text(&found))?;
            }
            Ok(if verdict(&found).is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
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

fn text(found: &Abilities) -> String {
    let rows = found.rows().map(|(what, finding)| match finding {
        Finding::Holds => vec![what.to_owned(), "yes".into(), String::new()],
        Finding::Fails(why) => vec![what.to_owned(), "no".into(), output::escaped_text(why)],
    });
    let mut text = output::table(&["what", "holds", "how it failed"], &rows, &[]);
    match verdict(found) {
        None => text.push_str("a repository can lie here\n"),
        Some(_) => text.push_str("no repository can lie here\n"),
    }
    text
}

fn document(store: &dyn Store, found: &Abilities) -> serde_json::Value {
    let abilities = found.rows().map(|(what, finding)| match finding {
        Finding::Holds => serde_json::json!({ "what": what, "holds": true }),
        Finding::Fails(why) => serde_json::json!({ "what": what, "holds": false, "why": why }),
    });
    serde_json::json!({
        "location": store.describe(), "abilities": abilities, "suitable": verdict(found).is_none(),
    })
}
