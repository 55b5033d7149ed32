//! `estrato init`.

use super::args::InitArgs;
use super::context::{self, Context};
use super::output;
use crate::error::Error;
use crate::repo::{self, NewKey, Secret, Terms};
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// A repository that was made.
pub struct Made {
    /// The key file that was written, or used.
    pub key_file: Option<PathBuf>,
    /// It was written just now.
    pub new_key: bool,
    /// The repository's id.
    pub repository: String,
    /// The tenant's fingerprint.
    pub fingerprint: String,
}

/// Makes a repository with the key that the options name, or a new one.
pub fn make(context: &Context, args: &InitArgs) -> Result<Made> {
    let store = context.store()?;
    // Refused before a key is written that would open nothing.
    crate::format::names::TenantNames::new(&context.global.tenant)?;
    match repo::tenants(&*store) {
        Ok(tenants) if tenants.is_empty() => {}
        Err(Error::NoRepository { .. }) => {}
        Ok(_) => return Err(Error::Exists { what: format!("a repository at {}", store.describe()) }.into()),
        Err(e) => return Err(e.into()),
    }
    super::store::refuse_unable(&*store)?;
    let id_key = super::copy::id_key(context, &args.like)?;
    let (secret, key_file, new_key) = secret(context, args)?;
    let key = NewKey::full(secret, "first");
    let terms = Terms { cipher: context::cipher(args.cipher), parity: args.parity };
    let like = (&key, id_key.as_ref());
    let (id, tenant) = repo::init_like(&*store, &*context.clock, &context.global.tenant, terms, like)?;
    super::store::warn_unprotected(context, &*store);
    Ok(Made { key_file, new_key, repository: id.to_string(), fingerprint: tenant.fingerprint.to_string() })
}

fn secret(context: &Context, args: &InitArgs) -> Result<(Secret, Option<PathBuf>, bool)> {
    if let Some(secret) = context.new_secret(&args.secret)? {
        let path = args.secret.new_key_file.clone();
        let new = path.is_some();
        return Ok((secret, path, new));
    }
    match context.credential() {
        Ok(crate::crypto::slot::Credential::KeyFile(key)) => Ok((Secret::KeyFile(key), context.key_file()?, false)),
        Ok(crate::crypto::slot::Credential::Password(password)) => Ok((Secret::Password(password), None, false)),
        Err(Error::NoKey { .. }) if context.global.key_file.is_none() => {
            let path = context::default_key_file()?;
            Ok((Secret::KeyFile(context::write_new_key(&path)?), Some(path), true))
        }
        Err(e) => Err(e.into()),
    }
}

/// What to tell of a key that was written just now.
pub fn key_advice(path: &Path) -> String {
    format!("copy this key, without it nothing can be restored: {}", output::escaped_text(&path.to_string_lossy()))
}

/// Runs the command.
pub fn run(context: &Context, args: &InitArgs) -> Result<ExitCode> {
    let made = make(context, args)?;
    let place = context.store()?.describe();
    if context.global.json {
        output::print_json(&serde_json::json!({
            "repository": made.repository, "location": place, "tenant": context.global.tenant,
            "fingerprint": made.fingerprint, "key_file": made.key_file,
        }))?;
    } else if !context.global.quiet {
        let place = output::escaped_text(&place);
        let mut text = format!("made a repository at {place}, with tenant {}\n", context.global.tenant);
        if let (Some(path), true) = (&made.key_file, made.new_key) {
            text.push_str(&key_advice(path));
            text.push('\n');
        }
        output::print(&text)?;
    }
    Ok(ExitCode::SUCCESS)
}
