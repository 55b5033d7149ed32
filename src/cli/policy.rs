//! `estrato store policy`: what the credentials of each role should be allowed. The documents go to standard
//! output, what is to be known besides to standard error.

use super::args::HolderArg;
use super::context::Context;
use super::output;
use crate::format::names::TenantNames;
use crate::repo::policy::{self, Holder, Policy};
use crate::store;
use anyhow::{Context as _, Result};
use std::process::ExitCode;

/// Prints the policy of one role, or of each.
pub fn run(context: &Context, location: Option<String>, only: Option<HolderArg>) -> Result<ExitCode> {
    let location = location.map_or_else(|| context.location(), Ok)?;
    let place = store::place(&location)?;
    let names = TenantNames::new(&context.global.tenant)?;
    let only = only.map(|holder| match holder {
        HolderArg::Writer => Holder::Writer,
        HolderArg::Reader => Holder::Reader,
        HolderArg::Full => Holder::Full,
    });
    let holders = Holder::ALL.into_iter().filter(|holder| only.is_none_or(|only| only == *holder));
    let policies: Vec<(Holder, Policy)> = holders
        .map(|holder| Ok((holder, policy::policy(&place, &names, holder)?)))
        .collect::<crate::error::Result<_>>()?;
    let notes = policy::notes(&place);
    if context.global.json {
        let policies: Vec<_> = policies
            .iter()
            .map(|(holder, policy)| serde_json::json!({ "role": holder, "does": holder.does(), "policy": policy }))
            .collect();
        output::print_json(&serde_json::json!({ "tenant": names.name(), "policies": policies, "notes": notes }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = String::new();
    for (holder, policy) in &policies {
        // Alone it is a document that can be handed on.
        if only.is_none() {
            let gap = if text.is_empty() { "" } else { "\n" };
            text.push_str(&format!("{gap}# {} of tenant {}: {}\n", holder.name(), names.name(), holder.does()));
        }
        match policy {
            Policy::Files(lines) => text.push_str(lines),
            document => {
                text.push_str(&serde_json::to_string_pretty(document).context("cannot make JSON")?);
                text.push('\n');
            }
        }
    }
    output::print(&text)?;
    if !context.global.quiet {
        for note in notes {
            output::complain(&format!("note: {note}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}
