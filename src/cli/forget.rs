//! `estrato forget`.

use super::args::ForgetArgs;
use super::context::Context;
use super::{look, output, progress, prune};
use crate::error::Error;
use crate::id::SnapshotId;
use crate::maintenance::prune::Options;
use crate::maintenance::{self, Choice, Common, Group};
use crate::monitor::{Event, Monitor as _};
use crate::repo::{Forgot, Repository};
use crate::snapshot::retention::{Reason, Rules};
use crate::snapshot::{Listing, Snapshot};
use anyhow::Result;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::fmt::Write as _;
use std::process::ExitCode;

/// What is to be done, as far as it is decided.
struct Decided {
    groups: Vec<Group>,
    doomed: Vec<SnapshotId>,
}

/// Runs the command.
pub fn run(context: &Context, args: &ForgetArgs) -> Result<ExitCode> {
    let rules = rules(args)?;
    if args.snapshots.is_empty() && rules.is_empty() {
        return Err(Error::Invalid(
            "no rule says what to keep, so all would go: give one such as --keep-daily 7, or name snapshots".into(),
        )
        .into());
    }
    if args.prune {
        context.believe_no_copy()?;
    }
    let repo = context.open()?;
    repo.writable()?;
    repo.private_key().map_err(|_| Error::NotAllowed { what: "forget snapshots" })?;
    progress::heed_interrupts(&context.progress);
    let mut listing = look::listing(context, &repo)?;
    let held = repo.held()?;
    let decided = decide(args, &rules, &mut listing, &held)?;
    tell_late(context, &decided);
    let emptied = decided.groups.iter().find(|group| group.is_emptied && !args.allow_empty_group);
    let emptied = emptied.map(|group| {
        Error::Invalid(format!(
            "no rule keeps anything of {}: add one, or allow that with --allow-empty-group",
            title(&repo, &group.common)
        ))
    });
    if args.dry_run {
        let mut document = show(context, &repo, &rules, &decided, &listing, None)?;
        if emptied.is_none() && args.prune && !decided.doomed.is_empty() {
            let forgotten = decided.doomed.iter().copied().collect();
            let options = Options { is_dry: true, forgotten, ..Options::default() };
            document["prune"] = prune::prune(context, &repo, &options)?;
        }
        print(context, &document)?;
        return emptied.map_or(Ok(ExitCode::SUCCESS), |e| Err(e.into()));
    }
    if let Some(e) = emptied {
        return Err(e.into());
    }
    let forgot = maintenance::forget(&repo, &listing, &decided.doomed, &held, &*context.progress)?;
    let mut document = show(context, &repo, &rules, &decided, &listing, Some(&forgot))?;
    if args.prune && (!forgot.gone.is_empty() || repo.plans()?.in_force.is_some()) {
        let pruned = prune::prune(context, &repo, &Options::default());
        document["prune"] = pruned?;
    }
    print(context, &document)?;
    match forgot.unfinished.first() {
        None => Ok(ExitCode::SUCCESS),
        Some(id) => Err(Error::Busy {
            what: format!(
                "snapshot {} (and {} more) stays: its session's object is there, and this store cannot end a \
                 session; it",
                id.short(),
                forgot.unfinished.len() - 1
            ),
        }
        .into()),
    }
}

fn rules(args: &ForgetArgs) -> Result<Rules> {
    let zone = match &args.timezone {
        None => TimeZone::system(),
        Some(name) => TimeZone::get(name).or_else(|e| TimeZone::posix(name).map_err(|_| e)).map_err(|e| {
            Error::Invalid(format!("there is no time zone {name:?}: give one such as Europe/Rome, or UTC ({e})"))
        })?,
    };
    Ok(Rules {
        last: args.keep_last,
        hourly: args.keep_hourly,
        daily: args.keep_daily,
        weekly: args.keep_weekly,
        monthly: args.keep_monthly,
        yearly: args.keep_yearly,
        within: args.keep_within,
        tags: args.keep_tag.clone(),
        zone,
    })
}

fn decide(args: &ForgetArgs, rules: &Rules, listing: &mut Listing, held: &HashSet<SnapshotId>) -> Result<Decided> {
    let filter = look::filter(&args.filter)?;
    if args.snapshots.is_empty() {
        let groups = maintenance::choose(listing, &filter, rules, args.group_by, held);
        let doomed = maintenance::dropped(&groups);
        return Ok(Decided { groups, doomed });
    }
    let mut doomed = Vec::new();
    for text in &args.snapshots {
        let id = listing.named(text, &filter)?;
        if held.contains(&id) {
            let id = id.short();
            return Err(Error::Invalid(format!(
                "snapshot {id} is under hold and nothing was forgotten: 'estrato hold remove {id}' ends that"
            ))
            .into());
        }
        if !doomed.contains(&id) {
            doomed.push(id);
        }
    }
    Ok(Decided { groups: Vec::new(), doomed })
}

/// What is late is so for good reasons, mostly: once for all is enough.
fn tell_late(context: &Context, decided: &Decided) {
    let choices = decided.groups.iter().flat_map(|group| &group.choices);
    let late = choices.filter(|c| c.snapshot.is_backdated()).count() as u64;
    if late > 0 {
        let what = output::counted(late, "snapshot claims", "snapshots claim");
        context.progress.event(Event::Warning(format!(
            "{what} a time long before the store took it (late): none of them takes the place of another"
        )));
    }
}

/// A group, in words.
fn title(repo: &Repository, common: &Common) -> String {
    let mut text = format!("what {} signed", output::escaped(repo.signer_label(&common.signer).as_bytes()));
    if let Some(host) = &common.host {
        let _ = write!(text, ", of {}", output::escaped(host.as_bytes()));
    }
    if let Some(paths) = &common.paths {
        let _ = write!(text, ", {}", paths.iter().map(|p| output::escaped(p)).collect::<Vec<_>>().join(" "));
    }
    if let Some(tags) = &common.tags {
        let _ = write!(text, ", tags {}", tags_of(tags));
    }
    text
}

fn tags_of(tags: &[String]) -> String {
    tags.iter().map(|t| output::escaped(t.as_bytes())).collect::<Vec<_>>().join(",")
}

fn action(choice: &Choice) -> &'static str {
    if choice.reasons.is_empty() { "drop" } else { "keep" }
}

fn names(reasons: &std::collections::BTreeSet<Reason>) -> Vec<String> {
    reasons.iter().map(Reason::name).collect()
}

/// Prints what was decided and done; or gives the document of it.
fn show(
    context: &Context,
    repo: &Repository,
    rules: &Rules,
    decided: &Decided,
    listing: &Listing,
    forgot: Option<&Forgot>,
) -> Result<Value> {
    let named = decided.groups.is_empty();
    if context.global.json {
        let ids = |ids: &[SnapshotId]| ids.iter().map(SnapshotId::to_string).collect::<Vec<_>>();
        let none = Forgot::default();
        let done = forgot.unwrap_or(&none);
        return Ok(json!({
            "dry_run": forgot.is_none(), "timezone": rules.zone.iana_name(),
            "groups": decided.groups.iter().map(|group| group_json(repo, group)).collect::<Vec<_>>(),
            "drop": ids(&decided.doomed), "forgotten": ids(&done.gone), "tombstones": ids(&done.buried),
            "held": ids(&done.held), "retained": ids(&done.retained), "unfinished": ids(&done.unfinished),
        }));
    }
    let mut text = String::new();
    for group in &decided.groups {
        let _ = writeln!(text, "{}:", title(repo, &group.common));
        let rows: Vec<Vec<String>> = group.choices.iter().map(|c| row(c, &rules.zone)).collect();
        text.push_str(&output::table(&["id", "time", "tags", "", "why"], &rows, &[]));
        text.push('\n');
    }
    for id in decided.doomed.iter().filter(|_| named) {
        let found = listing.snapshots.iter().find(|s| s.id == *id);
        let what = found.map_or_else(|| "damaged".to_owned(), |s| time(s, &rules.zone));
        let _ = writeln!(text, "{}  {what}", id.short());
    }
    let choices = decided.groups.iter().map(|group| group.choices.len()).sum::<usize>();
    let kept = if named { listing.snapshots.len() } else { choices }.saturating_sub(decided.doomed.len());
    let counted = |n: usize| output::counted(n as u64, "snapshot", "snapshots");
    match forgot {
        None => {
            let _ = writeln!(text, "would forget {}, and keep {}", counted(decided.doomed.len()), counted(kept));
        }
        Some(forgot) => {
            let stays = decided.doomed.len() - forgot.gone.len();
            let _ = writeln!(text, "forgot {}, and kept {}", counted(forgot.gone.len()), counted(kept + stays));
            if !forgot.retained.is_empty() {
                let many = counted(forgot.retained.len());
                let _ = writeln!(text, "{many} retained: the store keeps them locked; a later run forgets them");
            }
            if !forgot.held.is_empty() {
                let _ = writeln!(text, "{} came under hold meanwhile, and stay", counted(forgot.held.len()));
            }
        }
    }
    if !context.global.quiet {
        output::print(&text)?;
    }
    Ok(json!({}))
}

/// Prints the document, where one is asked for.
fn print(context: &Context, document: &Value) -> Result<()> {
    if context.global.json { output::print_json(document) } else { Ok(()) }
}

fn time(s: &Snapshot, zone: &TimeZone) -> String {
    let mark = match (s.is_postdated(), s.is_backdated()) {
        (true, _) => " (!)",
        (_, true) => " (late)",
        _ => "",
    };
    format!("{}{mark}", output::time_in(s.manifest.time, zone))
}

fn row(choice: &Choice, zone: &TimeZone) -> Vec<String> {
    let s = &choice.snapshot;
    let why = names(&choice.reasons).join(", ");
    let why = output::escaped(why.as_bytes()).into_owned();
    vec![s.id.short(), time(s, zone), tags_of(&s.manifest.tags), action(choice).into(), why]
}

fn group_json(repo: &Repository, group: &Group) -> Value {
    let Common { signer, host, paths, tags } = &group.common;
    let lossy = |path: &Vec<u8>| String::from_utf8_lossy(path).into_owned();
    let snapshots: Vec<Value> = group
        .choices
        .iter()
        .map(|c| {
            let s = &c.snapshot;
            json!({
                "id": s.id.to_string(), "time": output::utc_time(s.manifest.time), "taken": output::utc_time(s.taken),
                "postdated": s.is_postdated(), "backdated": s.is_backdated(), "held": c.is_held,
                "tags": s.manifest.tags, "action": action(c), "reasons": names(&c.reasons),
            })
        })
        .collect();
    json!({
        "signer": signer.to_string(), "signer_label": repo.signer_label(signer), "host": host,
        "paths": paths.as_ref().map(|paths| paths.iter().map(lossy).collect::<Vec<_>>()), "tags": tags,
        "emptied": group.is_emptied, "snapshots": snapshots,
    })
}
