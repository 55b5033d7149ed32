//! `estrato key rekey`: a new key pair, and on request all packs that lie under
//! older ones written anew.

use super::context::{self, Context};
use super::{key, output, progress, prune as prune_cli};
use crate::crypto::hpke::PublicKey;
use crate::crypto::keyfile::KeyFile;
use crate::error::Error;
use crate::format::key::Signer;
use crate::maintenance::prune::{self, Bounds, Options, Outcome, Summary};
use crate::monitor::{Event, Monitor as _};
use crate::repo::{Rekey, Repository, SlotFate};
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Args)]
pub struct RekeyArgs {
    /// Then write all packs anew that are sealed to older key pairs (snapshots themselves stay as they are)
    #[arg(long)]
    pub now: bool,
    /// Make no new key pair; only write anew what an interrupted '--now' has left
    #[arg(long, conflicts_with_all = ["now", "key_file_too", "recipient", "drop_others"])]
    pub finish: bool,
    /// The file of another full key, which is given the new private key; may be given several times
    #[arg(long, value_name = "PATH")]
    pub key_file_too: Vec<PathBuf>,
    /// The public half of a recipient that was admitted before lists of signers kept it, or @FILE; may be given
    /// several times
    #[arg(long, value_name = "TEXT|@FILE")]
    pub recipient: Vec<String>,
    /// Remove the full keys that cannot be given the new private key
    #[arg(long)]
    pub drop_others: bool,
    /// Print what would be done, and do nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

/// Runs the command.
pub fn run(context: &Context, args: &RekeyArgs) -> Result<ExitCode> {
    context.believe_no_copy()?;
    let mut repo = context.open()?;
    repo.writable()?;
    repo.private_key().map_err(|_| Error::NotAllowed { what: "rekey a tenant" })?;
    let keys = if args.finish { Vec::new() } else { keys(context, args, &mut repo)? };
    let is_shown = !context.global.json && (args.dry_run || !context.global.quiet);
    if is_shown && !keys.is_empty() {
        output::print(&told(args.dry_run, &keys))?;
    }
    let mut written = None;
    if args.dry_run && !args.finish {
        // All that is there now would lie under an older pair then.
        if args.now {
            let packs = repo.list_packs()?;
            let bytes = packs.iter().map(|(_, size)| size).sum();
            if is_shown {
                let many = output::counted(packs.len() as u64, "pack", "packs");
                output::print(&format!(
                    "{many} ({}) would be written anew, as far as needed\n",
                    output::size(bytes)
                ))?;
            }
        }
    } else if args.now || args.finish {
        written = Some(rewrite(context, &repo, args.dry_run, is_shown)?);
    }
    if context.global.json {
        let keys = keys.iter().map(|(signer, fate)| serde_json::json!({ "key": key::json(signer), "fate": fate }));
        let rewritten = written.as_ref().map(|(summary, outcome)| {
            serde_json::json!({
                "planned": summary, "deleted_packs": outcome.deleted, "written_bytes": outcome.written,
                "retained": outcome.retained.iter().map(prune_cli::retained).collect::<Vec<_>>(),
                "waiting": outcome.waiting.len(),
            })
        });
        output::print_json(&serde_json::json!({
            "dry_run": args.dry_run, "keys": keys.collect::<Vec<_>>(), "rewritten": rewritten,
        }))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes the new pair, or tells what would become of each key.
fn keys(context: &Context, args: &RekeyArgs, repo: &mut Repository) -> Result<Vec<(Signer, SlotFate)>> {
    let key_files: Vec<KeyFile> =
        args.key_file_too.iter().map(|path| context::read_key(path)).collect::<Result<_, Error>>()?;
    let recipients: Vec<PublicKey> =
        args.recipient.iter().map(|text| key::read_recipient(text)).collect::<Result<_>>()?;
    let credential = context.credential()?;
    let how = Rekey {
        credential: &credential,
        key_files: &key_files,
        recipients: &recipients,
        drop_others: args.drop_others,
    };
    Ok(if args.dry_run { repo.plan_rekey(&how)? } else { repo.rekey(&how)?.keys })
}

fn told(is_dry: bool, keys: &[(Signer, SlotFate)]) -> String {
    let rows: Vec<Vec<String>> = keys
        .iter()
        .map(|(signer, fate)| {
            let fate = match fate {
                SlotFate::InUse | SlotFate::AtHand => "sealed anew",
                SlotFate::Added => "new private key added",
                SlotFate::Dropped => "removed",
            };
            let label = output::escaped(signer.label.as_bytes()).into_owned();
            vec![signer.slot.short(), signer.kind.name().into(), label, fate.into()]
        })
        .collect();
    let table = output::table(&["full key", "opened by", "label", ""], &rows, &[]);
    let then = if is_dry {
        "nothing was changed\n"
    } else {
        "from now on all is sealed to a new key pair; backups that run now still use the old one.\n\
         What was stored before is readable with the old private key, which full keys keep: packs until they are\n\
         written anew ('key rekey --finish'), snapshots until they are forgotten.\n"
    };
    format!("{table}{then}")
}

/// Writes packs anew that lie under older pairs.
fn rewrite(context: &Context, repo: &Repository, is_dry: bool, is_shown: bool) -> Result<(Summary, Outcome)> {
    progress::heed_interrupts(&context.progress);
    // Nothing else is worth writing anew here.
    let bounds = Bounds { unused_percent: f64::MAX, repack: None };
    let options = Options { bounds, is_rekeyed: true, ..Options::default() };
    loop {
        let prepared = prune::prepare(repo, &options, &*context.progress);
        context.progress.done();
        let prepared = prepared?;
        let summary = prepared.summary().clone();
        if is_shown {
            output::print(&prune_cli::planned(&summary))?;
        }
        if is_dry {
            return Ok((summary, Outcome::default()));
        }
        let done = prepared.execute(&*context.progress);
        context.progress.done();
        let outcome = done?;
        context.tell_local();
        for session in &outcome.waiting {
            context.progress.event(Event::Warning(prune_cli::who(session)));
        }
        if is_shown {
            output::print(&prune_cli::done(&outcome))?;
        }
        // A plan that another prune left comes first.
        if summary.taken_up.is_none() || !outcome.waiting.is_empty() {
            return Ok((summary, outcome));
        }
    }
}
