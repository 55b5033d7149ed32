//! `estrato tenant`.

use super::args::TenantCommand;
use super::context::{self, Context};
use super::{init, output};
use crate::crypto::slot::Credential;
use crate::format::parity::Parity;
use crate::repo::{self, NewKey, Secret, Terms};
use anyhow::Result;
use std::process::ExitCode;

/// Runs the command.
pub fn run(context: &Context, command: TenantCommand) -> Result<ExitCode> {
    match command {
        TenantCommand::List => {
            let tenants = repo::tenants(&*context.store()?)?;
            if context.global.json {
                output::print_json(&tenants)?;
            } else {
                output::print(
                    &tenants.iter().map(|t| format!("{}\n", output::escaped(t.as_bytes()))).collect::<String>(),
                )?;
            }
        }
        TenantCommand::Set { parity } => set(context, parity)?,
        TenantCommand::Add { name, secret, cipher, parity } => {
            let store = context.store()?;
            crate::format::names::TenantNames::new(&name)?;
            if repo::tenants(&*store)?.contains(&name) {
                return Err(crate::error::Error::Exists { what: format!("a tenant named {name}") }.into());
            }
            let new_key = secret.new_key_file.clone();
            let secret = match context.new_secret(&secret)? {
                Some(secret) => secret,
                None => match context.credential()? {
                    Credential::KeyFile(key) => Secret::KeyFile(key),
                    Credential::Password(password) => Secret::Password(password),
                },
            };
            let terms = Terms { cipher: context::cipher(cipher), parity };
            let made = repo::add_tenant(&*store, &*context.clock, &name, terms, &NewKey::full(secret, "first"))?;
            if context.global.json {
                output::print_json(
                    &serde_json::json!({ "tenant": name, "fingerprint": made.fingerprint.to_string() }),
                )?;
            } else if !context.global.quiet {
                let mut text = format!("made tenant {name}\n");
                if let Some(path) = new_key {
                    text.push_str(&init::key_advice(&path));
                    text.push('\n');
                }
                output::print(&text)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Changes what new packs are made of.
fn set(context: &Context, parity: Parity) -> Result<()> {
    let mut repo = context.open()?;
    let is_changed = repo.set_parity(parity)?;
    if context.global.json {
        output::print_json(&serde_json::json!({
            "tenant": repo.tenant_name(), "parity_per_mille": parity.number(), "changed": is_changed,
        }))?;
    } else if !context.global.quiet {
        let gets = match parity.is_none() {
            true => "no parity".to_owned(),
            false => format!("{} of parity", output::per_mille(parity.number())),
        };
        output::print(&match is_changed {
            true => format!("new packs get {gets}; those that are there stay as they are\n"),
            false => format!("new packs get {gets} already: nothing is changed\n"),
        })?;
    }
    Ok(())
}
