//! `estrato key rotate`. A key file that is there already is taken up: an
//! interrupted run has left it.

use super::args::NewSecret;
use super::context::{self, Context};
use super::{init, key, output};
use crate::error::Error;
use crate::format::key::Role;
use crate::repo::{Rotated, Secret};
use anyhow::Result;
use clap::Args;
use std::path::Path;
use std::process::ExitCode;

#[derive(Args)]
pub struct RotateArgs {
    /// Which, by label or by the beginning of its slot or signer [default: the one in use]
    #[arg(long = "slot", value_name = "KEY")]
    pub which: Option<String>,
    #[command(flatten)]
    pub secret: NewSecret,
    /// The public half of someone's key ('key show' prints it), or @FILE that holds it
    #[arg(long, value_name = "TEXT|@FILE", group = "secret")]
    pub recipient: Option<String>,
}

/// Runs the command.
pub fn run(context: &Context, args: &RotateArgs) -> Result<ExitCode> {
    let left = args.secret.new_key_file.as_deref().filter(|path| path.exists());
    let mut repo = match (context.open(), left) {
        (Err(e @ (Error::NoKey { .. } | Error::WrongKey { .. })), Some(path)) => return finish(context, path, e),
        (opened, _) => opened?,
    };
    // Refused before a key is written that would open nothing.
    repo.writable()?;
    repo.private_key().map_err(|_| Error::NotAllowed { what: "rotate keys" })?;
    let secret = match (left, &args.recipient) {
        (Some(path), _) => Secret::KeyFile(context::read_key(path)?),
        (None, Some(text)) => Secret::Recipient(Box::new(key::read_recipient(text)?)),
        (None, None) => context.new_secret(&args.secret)?.ok_or_else(|| {
            Error::Invalid("say what the new key is: --new-key-file PATH, --new-password or --recipient TEXT".into())
        })?,
    };
    let rotated = match (repo.rotate_key(args.which.as_deref(), secret), &args.which) {
        (Err(e @ Error::NotFound(_)), Some(which)) => match repo.remove_key(which) {
            // The list says already that another key has its place.
            Ok(removed) => return finished(context, &removed.slot.to_string()),
            Err(_) => return Err(e.into()),
        },
        (rotated, _) => rotated?,
    };
    tell(context, args, &rotated)?;
    Ok(ExitCode::SUCCESS)
}

fn tell(context: &Context, args: &RotateArgs, rotated: &Rotated) -> Result<()> {
    if context.global.json {
        let document = serde_json::json!({
            "old_slot": rotated.old.slot.to_string(), "key": key::json(&rotated.new),
            "is_new_signer": rotated.begins_anew(),
        });
        return output::print_json(&document);
    }
    if context.global.quiet {
        return Ok(());
    }
    let mut text = format!(
        "{} key {} has the place of {}, whose slot is gone\n",
        rotated.new.role.name(),
        rotated.new.slot.short(),
        rotated.old.slot.short(),
    );
    if let (Some(path), Role::Full) = (&args.secret.new_key_file, rotated.new.role) {
        text.push_str(&init::key_advice(path));
        text.push('\n');
    }
    if rotated.begins_anew() {
        text.push_str(
            "it signs as another than before: 'estrato check --read-data' lets backups rely on what the old one stored\n",
        );
    }
    text.push_str(
        "The tenant's own keys are the same as before: whoever had the old key may know them; see 'key rekey'.\n",
    );
    output::print(&text)
}

/// The old key opens the tenant no more: what was interrupted is completed with the new one.
fn finish(context: &Context, path: &Path, refused: Error) -> Result<ExitCode> {
    let Ok(mut repo) = context.open_with_key(path) else { return Err(refused.into()) };
    match repo.remove_replaced(&context.credential()?)? {
        Some(slot) => finished(context, &slot.to_string()),
        None => Err(refused.into()),
    }
}

fn finished(context: &Context, slot: &str) -> Result<ExitCode> {
    if context.global.json {
        output::print_json(&serde_json::json!({ "old_slot": slot, "finished": true }))?;
    } else if !context.global.quiet {
        output::print("the new key had its place already; the old slot is gone now\n")?;
    }
    Ok(ExitCode::SUCCESS)
}
