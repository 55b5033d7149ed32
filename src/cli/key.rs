//! `estrato key`.

use super::args::{KeyCommand, RoleArg};
use super::context::{self, Context};
use super::{init, operator, output, rekey, rotate};
use crate::crypto::keyfile;
use crate::crypto::slot::Credential;
use crate::error::Error;
use crate::format::key::{Role, Signer};
use crate::id::SlotId;
use crate::repo::{NewKey, Secret};
use anyhow::Result;
use std::path::Path;
use std::process::ExitCode;

/// Runs the command.
pub fn run(context: &Context, command: KeyCommand) -> Result<ExitCode> {
    match command {
        KeyCommand::Add { role, label, secret, recipient } => {
            let mut repo = context.open()?;
            // Refused before a key is written that would open nothing.
            repo.writable()?;
            repo.private_key().map_err(|_| Error::NotAllowed { what: "admit keys" })?;
            let new_file = secret.new_key_file.clone();
            let secret = match (context.new_secret(&secret)?, recipient) {
                (Some(secret), _) => secret,
                (None, Some(text)) => Secret::Recipient(Box::new(read_recipient(&text)?)),
                (None, None) => {
                    return Err(Error::Invalid(
                        "say what opens the new key: --new-key-file PATH, --new-password or --recipient TEXT".into(),
                    )
                    .into());
                }
            };
            let role = match role {
                RoleArg::Writer => Role::Writer,
                RoleArg::Full => Role::Full,
            };
            let signer = repo.add_key(&NewKey { role, label, secret })?;
            if context.global.json {
                output::print_json(&json(&signer))?;
            } else if !context.global.quiet {
                let mut text = format!("admitted {} key {}\n", signer.role.name(), signer.slot.short());
                if let Some(path) = new_file {
                    let kept = output::escaped_text(&path.to_string_lossy());
                    match role {
                        Role::Full => text.push_str(&init::key_advice(&path)),
                        Role::Writer => {
                            text.push_str(&format!("it is in {kept}; it takes snapshots and can restore none"))
                        }
                    }
                    text.push('\n');
                }
                output::print(&text)?;
            }
        }
        KeyCommand::List => list(context)?,
        KeyCommand::Remove { which } => {
            let mut repo = context.open()?;
            let removed = match repo.remove_key(&which) {
                // It may be the slot that an interruption left, and no key's.
                Err(e @ Error::NotFound(_)) => match repo.remove_unused_slot(&which) {
                    Ok(slot) => return unused(context, &slot),
                    Err(_) => return Err(e.into()),
                },
                other => other?,
            };
            if context.global.json {
                output::print_json(&json(&removed))?;
            } else if !context.global.quiet {
                output::print(&format!(
                    "removed {} key {} ({}): its slot is gone and what it signs no longer counts.\n\
                     Whoever had it may still know the tenant's id key, and may reach the store: take back those credentials too.\n",
                    removed.role.name(),
                    removed.slot.short(),
                    output::escaped(removed.label.as_bytes()),
                ))?;
            }
        }
        KeyCommand::Rotate(args) => return rotate::run(context, &args),
        KeyCommand::Rekey(args) => return rekey::run(context, &args),
        KeyCommand::Operator(command) => return operator::run(context, command),
        KeyCommand::Show { new_key_file, recipient } => show(context, new_key_file.as_deref(), recipient)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn unused(context: &Context, slot: &SlotId) -> Result<ExitCode> {
    if context.global.json {
        output::print_json(&serde_json::json!({ "unused_slot": slot.to_string() }))?;
    } else if !context.global.quiet {
        output::print(&format!("removed slot {}, which no key had\n", slot.short()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Someone's public half, or the file that `@` names.
pub(super) fn read_recipient(text: &str) -> Result<crate::crypto::hpke::PublicKey> {
    let text = match text.strip_prefix('@') {
        Some(path) => context::read_text(Path::new(path))?,
        None => text.to_owned(),
    };
    Ok(keyfile::recipient_from_text(&text).map_err(|e| Error::Invalid(format!("the recipient's text {e}")))?)
}

/// A key, for programs.
pub(super) fn json(s: &Signer) -> serde_json::Value {
    serde_json::json!({
        "slot": s.slot.to_string(), "signer": s.id.to_string(), "role": s.role, "kind": s.kind, "label": s.label,
        "added": output::utc_time(s.added), "removed": s.removed.map(output::utc_time),
        "operator": s.is_operator,
    })
}

fn list(context: &Context) -> Result<()> {
    let repo = context.open()?;
    let signers = &repo.signers().signers;
    if context.global.json {
        return output::print_json(&signers.iter().map(json).collect::<Vec<_>>());
    }
    let rows: Vec<Vec<String>> = signers
        .iter()
        .map(|s| {
            let state = match (s.removed, s.id == repo.signer()) {
                (Some(at), _) => format!("removed {}", output::local_time(at)),
                (None, true) => "this one".into(),
                (None, false) => String::new(),
            };
            vec![
                s.slot.short(),
                s.role.name().into(),
                if s.is_operator { "recipient, operator".into() } else { s.kind.name().into() },
                output::local_time(s.added),
                output::escaped(s.label.as_bytes()).into_owned(),
                state,
            ]
        })
        .collect();
    output::print(&output::table(&["key", "role", "opened by", "added", "label", ""], &rows, &[]))
}

fn show(context: &Context, new: Option<&Path>, only_recipient: bool) -> Result<()> {
    let key = match new {
        Some(path) => context::write_new_key(path)?,
        None => match context.credential()? {
            Credential::KeyFile(key) => key,
            Credential::Password(_) => {
                return Err(Error::Invalid(
                    "a password is in nobody's hands but yours: only a key file can be shown".into(),
                )
                .into());
            }
        },
    };
    let recipient = key.recipient_text();
    if only_recipient || new.is_some() {
        if context.global.json {
            return output::print_json(&serde_json::json!({ "recipient": recipient }));
        }
        return output::print(&format!("{recipient}\n"));
    }
    if context.global.json {
        return output::print_json(&serde_json::json!({ "key": *key.to_text(), "recipient": recipient }));
    }
    output::print(&format!(
        "{}\n\nThis line is the whole key: written down, it restores everything that the key opens.\n\
         'estrato key show --recipient' prints the public half, which may be given away.\n",
        *key.to_text()
    ))
}
