//! `estrato key operator`, and what other commands say of the operator.

use super::context::Context;
use super::{key, output};
use crate::crypto::hpke::PublicKey;
use crate::error::Error;
use crate::monitor::{Event, Monitor as _};
use crate::repo::{self, Repository};
use anyhow::Result;
use clap::{Args, Subcommand};
use std::process::ExitCode;

#[derive(Subcommand)]
pub enum OperatorCommand {
    /// Give the operator a full key of the tenant, and remember on this machine who it is
    Add {
        /// The public half of the operator's key ('key show --recipient' prints it), or @FILE that holds it
        #[arg(value_name = "TEXT|@FILE", env = "ESTRATO_OPERATOR")]
        recipient: String,
    },
}

#[derive(Args, Default)]
pub struct OperatorArgs {
    /// The public half of the key of whoever keeps the repository, or @FILE that holds it: it gets a full key
    /// of the tenant [default: the operator that this machine was told of]
    #[arg(long, value_name = "TEXT|@FILE", env = "ESTRATO_OPERATOR")]
    pub operator: Option<String>,
    /// Give no operator a key
    #[arg(long, conflicts_with = "operator")]
    pub no_operator: bool,
}

/// Runs the command.
pub fn run(context: &Context, command: OperatorCommand) -> Result<ExitCode> {
    let OperatorCommand::Add { recipient } = command;
    let operator = key::read_recipient(&recipient)?;
    let mut repo = context.open()?;
    repo.writable()?;
    repo.private_key().map_err(|_| Error::NotAllowed { what: "admit keys" })?;
    let admitted = match repo.add_operator(&operator) {
        Err(e @ Error::Exists { .. }) => {
            let marked = repo.signers().signers.iter().find(|s| {
                let theirs = s.recipient.as_deref() == Some(&*operator.to_bytes());
                s.is_operator && theirs && s.removed.is_none()
            });
            // Doing it again only makes this machine remember.
            marked.cloned().ok_or(e)?
        }
        other => other?,
    };
    remember(context, &repo, &operator);
    if context.global.json {
        output::print_json(&key::json(&admitted))?;
    } else if !context.global.quiet {
        output::print(&format!(
            "the operator's key {} opens tenant {}; tenants that are made on this machine give it a slot too\n",
            admitted.slot.short(),
            repo.tenant_name(),
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Without a memory it must be named each time: that stops nothing.
fn remember(context: &Context, repo: &Repository, operator: &PublicKey) {
    let Ok(Some(root)) = context.cache() else { return };
    if let Err(e) = repo::remember_operator(&root, repo.id(), operator) {
        context.progress.event(Event::Warning(format!("the operator is not remembered on this machine: {e}")));
    }
}

/// The operator that was named, or that this machine was told of.
pub fn known(context: &Context, args: &OperatorArgs) -> Result<Option<PublicKey>> {
    if args.no_operator {
        return Ok(None);
    }
    if let Some(text) = &args.operator {
        return key::read_recipient(text).map(Some);
    }
    let Some(root) = context.cache()? else { return Ok(None) };
    match repo::repository_id(&*context.store()?) {
        Ok(id) => Ok(repo::known_operator(&root, id)?),
        Err(_) => Ok(None),
    }
}

/// Gives the operator a key of a tenant that was just made.
pub fn admit(context: &Context, mut repo: Repository, operator: &PublicKey) -> Result<String> {
    let admitted = repo.add_operator(operator)?;
    remember(context, &repo, operator);
    Ok(admitted.slot.short())
}
