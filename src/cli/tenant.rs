//! `estrato tenant`.

use super::args::{NewSecret, TenantCommand};
use super::context::{self, Context};
use super::copy::Like;
use super::operator::{self, OperatorArgs};
use super::{erase, init, output};
use crate::crypto::slot::Credential;
use crate::format::parity::Parity;
use crate::monitor::{Event, Monitor as _};
use crate::repo::{self, NewKey, Secret, Terms};
use anyhow::Result;
use std::process::ExitCode;

/// Runs the command.
pub fn run(context: &Context, command: TenantCommand) -> Result<ExitCode> {
    match command {
        TenantCommand::List { operator } => list(context, &operator)?,
        TenantCommand::Set { parity } => set(context, parity)?,
        TenantCommand::Add { name, secret, cipher, parity, operator, like } => {
            let terms = Terms { cipher: context::cipher(cipher), parity };
            add(context, &name, &secret, terms, (&operator, &like))?;
        }
        TenantCommand::Erase(args) => return erase::run(context, &args),
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

fn list(context: &Context, operator: &OperatorArgs) -> Result<()> {
    let store = context.store()?;
    let tenants = repo::tenants(&*store)?;
    let operator = operator::known(context, operator)?;
    let lacking = operator.map(|operator| repo::lacking_operator(&*store, &operator)).transpose()?;
    if context.global.json {
        let one = |tenant: &String| {
            let has_operator = lacking.as_ref().map(|lacking| !lacking.contains(tenant));
            serde_json::json!({ "tenant": tenant, "operator": has_operator })
        };
        return output::print_json(&tenants.iter().map(one).collect::<Vec<_>>());
    }
    let line = |tenant: &String| {
        let note = match &lacking {
            Some(lacking) if lacking.contains(tenant) => "  (no slot for the operator)",
            _ => "",
        };
        format!("{}{note}\n", output::escaped(tenant.as_bytes()))
    };
    output::print(&tenants.iter().map(line).collect::<String>())
}

fn add(
    context: &Context,
    name: &str,
    secret: &NewSecret,
    terms: Terms,
    (operator, like): (&OperatorArgs, &Like),
) -> Result<()> {
    let store = context.store()?;
    crate::format::names::TenantNames::new(name)?;
    let others = repo::tenants(&*store)?;
    if others.iter().any(|other| other == name) {
        return Err(crate::error::Error::Exists { what: format!("a tenant named {name}") }.into());
    }
    // Read before anything is made.
    let told = operator::known(context, operator)?;
    let id_key = super::copy::id_key(context, like)?;
    let new_key = secret.new_key_file.clone();
    let secret = match context.new_secret(secret)? {
        Some(secret) => secret,
        None => match context.credential()? {
            Credential::KeyFile(key) => Secret::KeyFile(key),
            Credential::Password(password) => Secret::Password(password),
        },
    };
    let key = NewKey::full(secret, "first");
    let made = repo::add_tenant_like(&*store, &*context.clock, name, terms, (&key, id_key.as_ref()))?;
    let mut text = format!("made tenant {name}\n");
    let mut slot = None;
    if let (Some(operator), Some(credential)) = (&told, key.secret.credential()) {
        let opened = context.at(None, name).open_as(credential)?;
        let short = operator::admit(context, opened, operator)?;
        text.push_str(&format!("the operator's key {short} opens it too\n"));
        slot = Some(short);
    } else if !operator.no_operator
        && let Some(other) = repo::with_recipient(&*store, &others)?
    {
        let warning = format!(
            "tenant {other} has a slot for a recipient; if that is the repository's operator, give it one here: \
             'estrato -t {name} key operator add TEXT'"
        );
        context.progress.event(Event::Warning(warning));
    }
    if context.global.json {
        let fingerprint = made.fingerprint.to_string();
        let document = serde_json::json!({ "tenant": name, "fingerprint": fingerprint, "operator": slot });
        output::print_json(&document)?;
    } else if !context.global.quiet {
        if let Some(path) = new_key {
            text.push_str(&init::key_advice(&path));
            text.push('\n');
        }
        output::print(&text)?;
    }
    Ok(())
}
