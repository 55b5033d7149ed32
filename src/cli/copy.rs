//! `estrato copy`, and `estrato check --against`: two repositories, or two places of one.

use super::args::{CheckArgs, FilterArgs, Global};
use super::context::Context;
use super::{exit, look, output, progress, snapshot};
use crate::error::Error;
use crate::format::manifest::Manifest;
use crate::id::SnapshotId;
use crate::limits;
use crate::maintenance::copy::{self, Compared, MirrorOptions, Mirrored};
use crate::monitor::{Event, Monitor as _};
use crate::repo::IdKey;
use crate::snapshot::Snapshot;
use anyhow::Result;
use clap::Args;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

/// Names that are shown; `--json` has more.
const SHOWN: usize = 20;

#[derive(Args)]
pub struct CopyArgs {
    /// Ids, their beginnings, 'latest' or 'latest~N' [default: all that pass the filters]
    #[arg(value_name = "SNAPSHOT", conflicts_with = "raw")]
    pub snapshots: Vec<String>,
    /// Where to
    #[arg(long, value_name = "LOCATION")]
    pub to: String,
    /// The tenant there [default: one of the same name]
    #[arg(long, value_name = "NAME", conflicts_with = "raw")]
    pub to_tenant: Option<String>,
    /// The key file there [default: the one in use]
    #[arg(long, value_name = "PATH", conflicts_with = "raw")]
    pub to_key_file: Option<PathBuf>,
    /// A file whose first line is the password there
    #[arg(long, value_name = "PATH", conflicts_with_all = ["raw", "to_key_file"])]
    pub to_password_file: Option<PathBuf>,
    /// A command that prints the password there
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["raw", "to_key_file", "to_password_file"])]
    pub to_password_command: Option<String>,
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Mirror the objects of all tenants as they lie; takes no key
    #[arg(long, conflicts_with_all = ["tag", "host", "path", "at"])]
    pub raw: bool,
    /// Of these tenants only; may be given several times
    #[arg(long, value_name = "NAME", requires = "raw")]
    pub only: Vec<String>,
    /// Delete at the mirror what is not here any more, and replace what is here otherwise
    #[arg(long, requires = "raw")]
    pub delete: bool,
    /// Compare what is there byte by byte, and not by its size
    #[arg(long, requires = "raw")]
    pub verify: bool,
    /// Only tell what would be copied
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

/// Another place, for a check.
#[derive(Args)]
pub struct Against {
    /// Compare with what lies there, and say what each lacks: a mirror by its objects, which takes no key; another
    /// repository by the snapshots that were copied there
    #[arg(long, value_name = "LOCATION", conflicts_with = "older_than")]
    pub against: Option<String>,
    /// The tenant there [default: one of the same name]
    #[arg(long, value_name = "NAME", requires = "against")]
    pub against_tenant: Option<String>,
    /// The key file there [default: the one in use]
    #[arg(long, value_name = "PATH", requires = "against")]
    pub against_key_file: Option<PathBuf>,
    /// A file whose first line is the password there
    #[arg(long, value_name = "PATH", requires = "against", conflicts_with = "against_key_file")]
    pub against_password_file: Option<PathBuf>,
}

/// A tenant whose ids a new one is to have.
#[derive(Args, Default)]
pub struct Like {
    /// Give content the ids that it has in this repository, so that copies need no cutting: takes one of its keys
    #[arg(long, value_name = "LOCATION")]
    pub like: Option<String>,
    /// The tenant there [default: one of the same name]
    #[arg(long, value_name = "NAME", requires = "like")]
    pub like_tenant: Option<String>,
    /// The key file there [default: the one in use]
    #[arg(long, value_name = "PATH", requires = "like")]
    pub like_key_file: Option<PathBuf>,
    /// A file whose first line is the password there
    #[arg(long, value_name = "PATH", requires = "like", conflicts_with = "like_key_file")]
    pub like_password_file: Option<PathBuf>,
}

/// The id key of the tenant that is named, if one is.
pub fn id_key(context: &Context, like: &Like) -> Result<Option<IdKey>> {
    let Some(location) = &like.like else { return Ok(None) };
    let keys = (like.like_key_file.as_ref(), like.like_password_file.as_ref(), None);
    let there = context.beside(options_there(&context.global, location, like.like_tenant.as_ref(), keys));
    let repo = there.open()?;
    there.tell_local();
    Ok(Some(repo.id_key()))
}

/// Runs the command.
pub fn run(context: &Context, args: &CopyArgs) -> Result<ExitCode> {
    if args.raw {
        context.believe_no_copy()?;
        return mirror(context, args);
    }
    let keys = (args.to_key_file.as_ref(), args.to_password_file.as_ref(), args.to_password_command.as_ref());
    let there = context.beside(options_there(&context.global, &args.to, args.to_tenant.as_ref(), keys));
    let source = context.open()?;
    let target = there.open()?;
    progress::heed_interrupts(&context.progress);
    let mut listing = look::listing(context, &source)?;
    let filter = look::filter(&args.filter)?;
    let mut chosen = Vec::new();
    for name in &args.snapshots {
        chosen.push(listing.choose(name, &filter)?.id);
    }
    if args.snapshots.is_empty() {
        chosen = listing.filtered(&filter).map(|s| s.id).collect();
    }
    for problem in source.sync_index()? {
        context.progress.event(Event::Warning(problem.to_string()));
    }
    let options = copy::Options {
        host: snapshot::this_host(),
        dry_run: args.dry_run,
        again: !args.snapshots.is_empty(),
        level: limits::ZSTD_LEVEL,
        program: snapshot::program(),
    };
    let done = copy::copy(&source, &target, (&listing.snapshots, &chosen), &options, &*context.progress);
    context.progress.done();
    there.tell_local();
    let done = done?;
    if context.global.json {
        output::print_json(&copied_document(args.dry_run, &done))?;
    } else {
        output::print(&copied(args.dry_run, &listing.snapshots, &done, context.global.quiet))?;
    }
    Ok(if done.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(exit::DAMAGE) })
}

fn copied_document(is_dry: bool, done: &copy::Outcome) -> serde_json::Value {
    let copied = done.copied.iter().map(|c| {
        serde_json::json!({
            "source": c.source.to_string(), "copy": c.copy.map(|id| id.to_string()),
            "new_bytes": c.new_bytes, "stored_bytes": c.stored_bytes,
        })
    });
    let failed = done.failed.iter();
    serde_json::json!({
        "dry_run": is_dry, "copied": copied.collect::<Vec<_>>(), "known": done.known, "forgotten": done.forgotten,
        "failed": failed.map(|(id, why)| serde_json::json!({ "source": id.to_string(), "why": why })).collect::<Vec<_>>(),
        "same_ids": done.same_ids,
    })
}

fn copied(is_dry: bool, all: &[Snapshot], done: &copy::Outcome, is_quiet: bool) -> String {
    let mut text = String::new();
    for (id, why) in &done.failed {
        let _ = writeln!(text, "not copied: snapshot {}: {}", id.short(), output::escaped_text(why));
    }
    if is_quiet {
        return text;
    }
    let rows: Vec<Vec<String>> = done
        .copied
        .iter()
        .filter_map(|c| {
            let m = &all.iter().find(|s| s.id == c.source)?.manifest;
            let mut row = snapshot_row(c.source, m);
            row.insert(1, c.copy.map(|id| id.short()).unwrap_or_default());
            row.insert(2, if is_dry { String::new() } else { output::size(c.stored_bytes) });
            Some(row)
        })
        .collect();
    if !rows.is_empty() {
        let head = ["snapshot", "copy", "stored", "time", "host", "paths"];
        text.push_str(&output::table(&head, &rows, &[2]));
    }
    let copied = output::counted(done.copied.len() as u64, "snapshot", "snapshots");
    let verb = if is_dry { "to copy" } else { "copied" };
    let _ = writeln!(text, "{copied} {verb}, {} there already", output::count(done.known - done.forgotten));
    if done.forgotten > 0 {
        let many = output::counted(done.forgotten, "snapshot was", "snapshots were");
        let _ = writeln!(text, "{many} copied before and forgotten there since: name one to copy it again");
    }
    text
}

fn snapshot_row(id: SnapshotId, m: &Manifest) -> Vec<String> {
    vec![
        id.short(),
        output::local_time(m.time),
        output::escaped(m.host.as_bytes()).into_owned(),
        m.paths.iter().map(|p| output::escaped(p)).collect::<Vec<_>>().join(" "),
    ]
}

fn mirror(context: &Context, args: &CopyArgs) -> Result<ExitCode> {
    let (source, target) = (context.store()?, context.store_at(&args.to)?);
    progress::heed_interrupts(&context.progress);
    let options =
        MirrorOptions { tenants: args.only.clone(), delete: args.delete, verify: args.verify, dry_run: args.dry_run };
    let done = copy::mirror(&*source, &*target, &options, &*context.progress);
    context.progress.done();
    let done = done?;
    for why in &done.withheld {
        context.progress.event(Event::Warning(why.clone()));
    }
    if context.global.json {
        output::print_json(
            &serde_json::json!({ "dry_run": args.dry_run, "whole": done.is_whole(), "mirror": done }),
        )?;
    } else {
        output::print(&mirrored(args, &done, context.global.quiet))?;
    }
    Ok(match (done.is_whole(), done.withheld.is_empty()) {
        (false, _) => ExitCode::from(exit::DAMAGE),
        (true, false) => ExitCode::FAILURE,
        (true, true) => ExitCode::SUCCESS,
    })
}

/// What a mirror run has done, for people.
fn mirrored(args: &CopyArgs, done: &Mirrored, is_quiet: bool) -> String {
    let mut text = String::new();
    for (name, why) in done.damaged.iter().take(SHOWN) {
        let _ = writeln!(text, "not copied: {}: {}", output::escaped(name.as_bytes()), output::escaped_text(why));
    }
    for name in done.differing.iter().take(SHOWN) {
        let _ = writeln!(text, "another object there: {}", output::escaped(name.as_bytes()));
    }
    if is_quiet {
        return text;
    }
    let row = |what: &str, kind: &str, count: copy::Count| {
        vec![what.to_owned(), kind.to_owned(), output::count(count.objects), output::size(count.bytes)]
    };
    let copied = if args.dry_run { "to copy" } else { "copied" };
    let mut rows: Vec<Vec<String>> = done.copied.iter().map(|(kind, count)| row(copied, kind, *count)).collect();
    for (what, count) in [
        ("there already", done.present),
        ("mended there", done.mended),
        (if args.dry_run { "to delete" } else { "deleted there" }, done.deleted),
        ("only there, kept", done.kept),
        ("to be thawed", done.frozen),
    ] {
        if count.objects > 0 {
            rows.push(row(what, "", count));
        }
    }
    text.push_str(&output::table(&["", "kind", "objects", "size"], &rows, &[2, 3]));
    if done.strays > 0 {
        let objects = output::counted(done.strays, "object", "objects");
        let _ = writeln!(text, "{objects} that belong to no repository are not mirrored");
    }
    if done.copied.is_empty() && done.mended.objects == 0 && done.is_whole() {
        text.push_str("the mirror has everything\n");
    }
    text
}

/// Runs `estrato check --against`.
pub fn compare(context: &Context, args: &CheckArgs, there: &str) -> Result<ExitCode> {
    let (ours, theirs) = (context.store()?, context.store_at(there)?);
    progress::heed_interrupts(&context.progress);
    let is_one = crate::repo::repository_id(&*ours)? == crate::repo::repository_id(&*theirs)?;
    if !is_one && args.store_only {
        let why = "they are different repositories: what was copied from one to the other only a key can tell";
        return Err(Error::Invalid(why.into()).into());
    }
    if !is_one {
        return snapshots(context, args, there);
    }
    objects(context, args, (&*ours, &*theirs))
}

/// Compares two repositories by the snapshots that they have.
fn snapshots(context: &Context, args: &CheckArgs, location: &str) -> Result<ExitCode> {
    if args.read_data.is_some() {
        let why = "the bytes of two repositories with keys of their own differ: check each with --read-data";
        return Err(Error::Invalid(why.into()).into());
    }
    let a = &args.against;
    let keys = (a.against_key_file.as_ref(), a.against_password_file.as_ref(), None);
    let other = context.beside(options_there(&context.global, location, a.against_tenant.as_ref(), keys));
    let (ours, theirs) = (context.open()?, other.open()?);
    let found = copy::compare_snapshots(&ours, &theirs);
    context.progress.done();
    let found = found?;
    for e in &found.damaged {
        context.progress.event(Event::Warning(e.to_string()));
    }
    let ids = |all: &[Snapshot]| all.iter().map(|s| s.id.to_string()).collect::<Vec<_>>();
    if context.global.json {
        output::print_json(&serde_json::json!({
            "same": found.is_same(), "both": found.both,
            "only_here": ids(&found.only_here), "only_there": ids(&found.only_there),
            "damaged": found.damaged.iter().map(ToString::to_string).collect::<Vec<_>>(),
        }))?;
    } else {
        let mut rows = Vec::new();
        for (what, all) in [("only here", &found.only_here), ("only there", &found.only_there)] {
            rows.extend(all.iter().map(|s| {
                let mut row = snapshot_row(s.id, &s.manifest);
                row.insert(0, what.to_owned());
                row
            }));
        }
        let mut text = String::new();
        if !rows.is_empty() {
            text.push_str(&output::table(&["", "snapshot", "time", "host", "paths"], &rows, &[]));
        }
        let both = output::counted(found.both, "snapshot", "snapshots");
        let _ = writeln!(
            text,
            "{both} at both, {} only here, {} only there",
            output::count(found.only_here.len() as u64),
            output::count(found.only_there.len() as u64)
        );
        output::print(&text)?;
    }
    Ok(if found.is_same() { ExitCode::SUCCESS } else { ExitCode::from(exit::DAMAGE) })
}

/// Compares two places of one repository.
fn objects(
    context: &Context,
    args: &CheckArgs,
    (ours, theirs): (&dyn crate::store::Store, &dyn crate::store::Store),
) -> Result<ExitCode> {
    let found = copy::compare_stores(ours, theirs, args.read_data.is_some(), &*context.progress);
    context.progress.done();
    let found = found?;
    if context.global.json {
        output::print_json(&serde_json::json!({ "same": found.is_same(), "objects": found }))?;
    } else if !context.global.quiet || !found.is_same() {
        output::print(&compared(&found))?;
    }
    Ok(if found.is_same() { ExitCode::SUCCESS } else { ExitCode::from(exit::DAMAGE) })
}

fn compared(found: &Compared) -> String {
    let mut text = String::new();
    for (what, name) in found.names.iter().take(SHOWN) {
        let _ = writeln!(text, "{what}: {}", output::escaped(name.as_bytes()));
    }
    if found.names.len() > SHOWN {
        let _ = writeln!(text, "and more; --json names them");
    }
    for (name, why) in found.unread.iter().take(SHOWN) {
        let _ = writeln!(text, "cannot be read: {}: {}", output::escaped(name.as_bytes()), output::escaped_text(why));
    }
    let cell = |count: copy::Count| match count.objects {
        0 => String::new(),
        n => format!("{} ({})", output::count(n), output::size(count.bytes)),
    };
    let rows: Vec<Vec<String>> = found
        .kinds
        .iter()
        .map(|(kind, l)| vec![(*kind).to_owned(), cell(l.both), cell(l.here), cell(l.there), cell(l.differing)])
        .collect();
    let differ = if found.read_data { "not the same" } else { "other size" };
    text.push_str(&output::table(&["", "both", "only here", "only there", differ], &rows, &[1, 2, 3, 4]));
    let verdict = match (found.is_same(), found.read_data) {
        (true, true) => "both have the same objects, byte for byte",
        (true, false) => "both have the same objects, as far as names and sizes tell",
        (false, _) => "they differ: 'estrato copy --raw' brings what one lacks",
    };
    let _ = writeln!(text, "{verdict}");
    text
}

/// The options by which the other repository is opened: those in use, but for what is named.
pub fn options_there(
    global: &Global,
    location: &str,
    tenant: Option<&String>,
    (key_file, password_file, password_command): (Option<&PathBuf>, Option<&PathBuf>, Option<&String>),
) -> Global {
    let mut there = Global { repo: Some(location.to_owned()), ..global.clone() };
    if let Some(tenant) = tenant {
        there.tenant.clone_from(tenant);
    }
    if key_file.is_some() || password_file.is_some() || password_command.is_some() {
        there.key_file = key_file.cloned();
        there.password_file = password_file.cloned();
        there.password_command = password_command.cloned();
    }
    there
}
