//! `estrato snapshot`.

use super::args::{DeltaArg, InitArgs, KindArg, SnapshotArgs};
use super::context::Context;
use super::init::{self, Made};
use super::{exit, output, progress};
use crate::backup::{self, DeltaMode, Options, Outcome, Selection, Source, Stream};
use crate::error::Error;
use crate::format::key::Role;
use crate::format::manifest::{SnapshotKind, Summary};
use crate::monitor::{Event, Monitor as _};
use crate::repo::Repository;
use crate::source;
use anyhow::Result;
use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Runs the command.
pub fn run(context: &Context, args: SnapshotArgs) -> Result<ExitCode> {
    // What is wrong with the arguments must show before anything is made.
    let selection = if args.paths.is_empty() { None } else { Some(Selection::new(&args.paths)?) };
    let options = options(&args)?;
    let made = if args.init { init_if_missing(context)? } else { None };
    let repo = match made.as_ref().and_then(|m| m.key_file.as_deref()) {
        Some(path) => context.open_with_key(path)?,
        None => context.open()?,
    };
    progress::heed_interrupts(&context.progress);
    warn_of_same_disk(context, &repo, &args.paths);
    let name = args.name.as_deref().unwrap_or_default();
    let source = match selection {
        Some(selection) => Source::Files(selection),
        None if args.stdin => Source::Stream(Stream::standard_input(name)?),
        None => Source::Stream(Stream::command(name, &command(&args))?),
    };
    let started = context.clock.elapsed();
    let taken = with_total(context, &args, || backup::run(&repo, source, &options, &*context.progress));
    context.progress.done();
    let outcome = taken?;
    let seconds = (context.clock.elapsed() - started).as_secs_f64();
    if context.global.json {
        output::print_json(&document(&outcome))?;
    } else if !context.global.quiet {
        output::print(&text(context, &outcome, made.as_ref(), repo.role(), seconds))?;
    }
    let unreadable = outcome.manifest.summary.unreadable;
    if unreadable > 0 {
        if !context.global.json {
            let what = output::counted(unreadable, "entry was", "entries were");
            output::complain(&format!("estrato: {what} not stored as they should be: see the warnings above"));
        }
        return Ok(ExitCode::from(exit::INCOMPLETE));
    }
    Ok(ExitCode::SUCCESS)
}

/// `--command` may carry the program itself, or leave it to what follows `--`.
fn command(args: &SnapshotArgs) -> Vec<String> {
    let first = args.command.iter().filter(|c| !c.is_empty());
    first.chain(&args.words).cloned().collect()
}

fn options(args: &SnapshotArgs) -> Result<Options> {
    let host = match &args.host {
        Some(host) => host.clone(),
        None => this_host(),
    };
    let uid = nix::unistd::getuid().as_raw();
    Ok(Options {
        kind: match args.kind {
            KindArg::Full => SnapshotKind::Full,
            KindArg::Incremental => SnapshotKind::Incremental,
            KindArg::Differential => SnapshotKind::Differential,
        },
        host,
        user: source::users::Users::default().user_name(uid),
        tags: args.tag.clone(),
        time: args.time.as_deref().map(output::parse_time).transpose()?,
        exclude: args.exclude.clone(),
        exclude_files: args.exclude_file.clone(),
        one_file_system: args.one_file_system,
        dry_run: args.dry_run,
        level: args.compression,
        delta: match args.delta {
            DeltaArg::Auto => DeltaMode::Auto,
            DeltaArg::Always => DeltaMode::Always,
            DeltaArg::Never => DeltaMode::Never,
        },
        program: program(),
    })
}

fn init_if_missing(context: &Context) -> Result<Option<Made>> {
    match crate::repo::tenants(&*context.store()?) {
        Ok(tenants) if !tenants.is_empty() => Ok(None),
        Ok(_) | Err(Error::NoRepository { .. }) => {
            let args = InitArgs {
                secret: Default::default(),
                cipher: None,
                parity: Default::default(),
                like: Default::default(),
            };
            init::make(context, &args).map(Some)
        }
        Err(e) => Err(e.into()),
    }
}

/// A disk that fails takes both with it.
fn warn_of_same_disk(context: &Context, repo: &Repository, paths: &[PathBuf]) {
    let device = |path: &Path| std::fs::metadata(path).map(|m| m.dev()).ok();
    let Some(ours) = repo.store().local_path().and_then(device) else { return };
    if paths.iter().any(|p| device(p) == Some(ours)) && !context.global.quiet {
        context.progress.event(Event::Warning(
            "the repository lies on the same disk as what it backs up: if the disk fails, both are lost".into(),
        ));
    }
}

/// Measures the source beside the snapshot, if there is a bar to show how much is left.
fn with_total<T>(context: &Context, args: &SnapshotArgs, take: impl FnOnce() -> T) -> T {
    if !context.progress.is_shown() || args.paths.is_empty() {
        return take();
    }
    let stop = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        let measuring = {
            let stop = Arc::clone(&stop);
            scope.spawn(move || {
                let mut bytes = 0;
                for path in &args.paths {
                    bytes += source::measure::measure(path, &|| stop.load(Ordering::Relaxed));
                }
                if !stop.load(Ordering::Relaxed) {
                    context.progress.total(bytes);
                }
            })
        };
        let taken = take();
        stop.store(true, Ordering::Relaxed);
        // A total that could not be told is only a bar without an end.
        let _ = measuring.join();
        taken
    })
}

fn change(summary: &Summary) -> String {
    let part = |tally: &crate::format::manifest::Tally, what: &str| {
        format!("{} {what} ({})", output::count(tally.entries), output::size(tally.bytes))
    };
    [part(&summary.added, "added"), part(&summary.changed, "changed"), part(&summary.removed, "removed")].join(", ")
}

fn text(context: &Context, outcome: &Outcome, made: Option<&Made>, role: Role, seconds: f64) -> String {
    let (m, s) = (&outcome.manifest, &outcome.manifest.summary);
    let mut text = String::new();
    let paths: Vec<_> = m.paths.iter().map(|p| output::escaped(p)).collect();
    let total =
        format!("{} in {}", output::size(s.total.bytes), output::counted(s.total.entries, "entry", "entries"));
    let Some(id) = &outcome.snapshot else {
        let kind = m.kind.name();
        let article = if kind.starts_with('i') { "an" } else { "a" };
        let _ = writeln!(text, "would take {article} {kind} snapshot of {}: {total}", paths.join(" "));
        let _ = writeln!(text, "  {}; {} to read", change(s), output::size(s.read_bytes));
        return text;
    };
    if made.is_some() {
        let place = context.location().unwrap_or_default();
        let _ = writeln!(text, "made a repository at {}", output::escaped_text(&place));
    }
    let _ = writeln!(
        text,
        "{} snapshot {} of {}: {total}, in {seconds:.1} s",
        m.kind.name(),
        id.short(),
        paths.join(" ")
    );
    if let Some(base) = &m.base {
        let _ = writeln!(text, "  against {}: {}", base.short(), change(s));
    }
    let _ = writeln!(
        text,
        "  {} read, {} of it new, stored in {}",
        output::size(s.read_bytes),
        output::size(s.new_bytes),
        output::size(s.stored_bytes)
    );
    let key = match role {
        Role::Full => made.and_then(|m| m.key_file.as_deref()),
        Role::Writer => Some(Path::new("FULL-KEY")),
    };
    let with = if role == Role::Full { "restore it with" } else { "this key cannot restore it; with a full one" };
    let _ = writeln!(text, "{with}:\n  estrato{} restore {} --target DIR", context.options(key), id.short());
    if let Some(path) = made.filter(|m| m.new_key).and_then(|m| m.key_file.as_deref()) {
        let _ = writeln!(text, "{}", init::key_advice(path));
    }
    text
}

fn document(outcome: &Outcome) -> serde_json::Value {
    let troubles: Vec<_> = outcome
        .troubles
        .iter()
        .map(|t| serde_json::json!({ "path": t.path.to_string_lossy(), "why": t.why }))
        .collect();
    serde_json::json!({
        "snapshot": outcome.snapshot.map(|id| id.to_string()),
        "manifest": super::look::manifest_json(&outcome.manifest),
        "troubles": troubles,
    })
}

/// This machine's name.
pub fn this_host() -> String {
    nix::unistd::gethostname().map(|h| h.to_string_lossy().into_owned()).unwrap_or_default()
}

/// What writes snapshots.
pub fn program() -> String {
    format!("estrato {}", env!("CARGO_PKG_VERSION"))
}
