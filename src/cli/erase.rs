//! `estrato tenant erase`: asks for the name, destroys, and prints the receipt,
//! which is a JSON document whatever options say.

use super::context::Context;
use super::{output, progress};
use crate::error::Error;
use crate::format::key::Role;
use crate::format::names::TENANTS;
use crate::id::TenantId;
use crate::monitor::{Event, Monitor as _};
use crate::repo::{self, Erasure, Receipt, Survey};
use crate::store::{Cached, Protection, Store};
use anyhow::Result;
use clap::Args;
use std::io::{BufRead as _, IsTerminal as _};
use std::process::ExitCode;
use std::sync::Arc;

#[derive(Args)]
pub struct EraseArgs {
    /// Its name
    pub name: String,
    /// The name once more, where nobody can be asked to type it
    #[arg(long, value_name = "NAME")]
    pub yes: Option<String>,
    /// Erase it at this place too, which holds the same repository; may be given several times
    #[arg(long, value_name = "LOCATION")]
    pub also: Vec<String>,
    /// Take no key: for a tenant of which all keys are lost
    #[arg(long)]
    pub without_key: bool,
    /// Print what would be destroyed, and do nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

/// A place where the tenant lies.
struct Place {
    /// As it was given; nothing for the repository itself.
    location: Option<String>,
    store: Arc<dyn Store>,
    survey: Survey,
}

/// Runs the command.
pub fn run(context: &Context, args: &EraseArgs) -> Result<ExitCode> {
    if args.yes.as_ref().is_some_and(|yes| *yes != args.name) {
        return Err(Error::Invalid(format!("--yes names another tenant than {}", args.name)).into());
    }
    let own = context.at(None, &args.name);
    own.believe_no_copy()?;
    let places = places(&own, args)?;
    let tenant = one_tenant(&places)?;
    if let Some(place) = places.iter().find(|place| place.survey.holds > 0) {
        return Err(repo::held(&args.name, &place.survey.place, place.survey.holds).into());
    }
    // Once there is no slot nobody has a key.
    if let Some(place) = places.iter().find(|place| !place.survey.slots.is_empty())
        && !args.without_key
    {
        open(&own, place, tenant, &args.name)?;
    }
    if args.dry_run {
        let found: Vec<_> = places.iter().map(|place| planned(&place.survey)).collect();
        output::print_json(&serde_json::json!({ "dry_run": true, "tenant": args.name, "places": found }))?;
        return Ok(ExitCode::SUCCESS);
    }
    confirm(args, &places)?;
    progress::heed_interrupts(&own.progress);
    let receipts = erase(&own, &places, args)?;
    own.progress.done();
    forget_here(&own, args, &places, tenant);
    for receipt in &receipts {
        warn(&own, receipt);
    }
    output::print_json(&document(&receipts))?;
    Ok(ExitCode::SUCCESS)
}

/// Looks at each place. One where nothing is left is done with, if there is another.
fn places(context: &Context, args: &EraseArgs) -> Result<Vec<Place>> {
    let mut places: Vec<Place> = Vec::new();
    let mut none = None;
    let also = args.also.iter().map(|location| Some(location.clone()));
    for location in std::iter::once(None).chain(also) {
        let store = match &location {
            None => context.store()?,
            Some(location) => context.store_at(location)?,
        };
        if places.iter().any(|place| place.survey.place == store.describe()) {
            return Err(Error::Invalid(format!("{} is named twice", store.describe())).into());
        }
        match repo::survey(&*store, &args.name) {
            Ok(survey) => places.push(Place { location, store, survey }),
            Err(e @ Error::NoTenant { .. }) => none = Some(e),
            Err(e) => return Err(e.into()),
        }
    }
    match none {
        Some(e) if places.is_empty() => Err(e.into()),
        _ => Ok(places),
    }
}

/// That it is the same tenant everywhere. One whose own object is gone is taken for it if nobody can open it.
fn one_tenant(places: &[Place]) -> Result<Option<TenantId>> {
    let tenant = places.iter().find_map(|place| place.survey.tenant);
    for Place { survey, .. } in places {
        let is_same = survey.tenant == tenant || survey.tenant.is_none() && survey.slots.is_empty();
        if !is_same {
            let why = format!("the tenant at {} is not known to be the same as at the other places", survey.place);
            return Err(Error::Invalid(why).into());
        }
    }
    Ok(tenant)
}

/// That the key in use is a full one of this tenant.
fn open(context: &Context, place: &Place, tenant: Option<TenantId>, name: &str) -> Result<()> {
    let there = place.location.is_some().then(|| context.at(place.location.clone(), name));
    let repo = there.as_ref().unwrap_or(context).open()?;
    if repo.role() != Role::Full {
        return Err(Error::NotAllowed { what: "erase a tenant" }.into());
    }
    if tenant.is_some_and(|tenant| tenant != repo.tenant()) {
        return Err(Error::Invalid("the key opens another tenant".into()).into());
    }
    Ok(())
}

fn planned(survey: &Survey) -> serde_json::Value {
    serde_json::json!({
        "place": survey.place, "tenant_id": survey.tenant.map(|id| id.to_string()), "holds": survey.holds,
        "slots": survey.slots.iter().map(|(id, kind)| serde_json::json!({ "slot": id.to_string(), "kind": kind }))
            .collect::<Vec<_>>(),
        "objects": survey.sum.objects, "bytes": survey.sum.bytes,
    })
}

/// Whoever means it types the name.
fn confirm(args: &EraseArgs, places: &[Place]) -> Result<()> {
    if args.yes.is_some() {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        let why = format!("nobody can be asked: say --yes {} to destroy the tenant", args.name);
        return Err(Error::Invalid(why).into());
    }
    for Place { survey, .. } in places {
        output::complain(&format!(
            "tenant {} at {}: {} slots, {} objects, {}",
            args.name,
            output::escaped_text(&survey.place),
            survey.slots.len(),
            output::count(survey.sum.objects),
            output::size(survey.sum.bytes),
        ));
    }
    output::complain("Nobody will be able to read it again. Type its name to destroy it:");
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    if line.trim() != args.name {
        return Err(Error::Invalid("that is not its name: nothing was done".into()).into());
    }
    Ok(())
}

/// The slots at every place first.
fn erase(context: &Context, places: &[Place], args: &EraseArgs) -> Result<Vec<Receipt>> {
    let mut begun = Vec::with_capacity(places.len());
    for Place { store, survey, .. } in places {
        // Looked at anew: whoever was asked for the name may have taken long.
        let again = match repo::survey(&**store, &args.name) {
            Err(Error::NoTenant { .. }) => continue,
            other => other?,
        };
        if again.tenant != survey.tenant {
            return Err(Error::Busy { what: format!("tenant {} at {}", args.name, again.place) }.into());
        }
        begun.push(Erasure::begin(&**store, again, &*context.clock, &*context.progress)?);
    }
    begun.into_iter().map(|erasure| Ok(erasure.finish(&*context.progress)?)).collect()
}

/// What this machine has of the tenant.
fn forget_here(context: &Context, args: &EraseArgs, places: &[Place], tenant: Option<TenantId>) {
    let Ok(Some(root)) = context.cache() else { return };
    let at: Vec<String> = places.iter().map(|place| place.survey.place.clone()).collect();
    let folder = format!("{TENANTS}/{}", args.name);
    let mut failed: Vec<String> = Vec::new();
    for place in &at {
        failed.extend(Cached::remove_below(&root.join("far"), place, &folder).err().map(|e| e.to_string()));
    }
    let repository = places.iter().find_map(|place| place.survey.repository);
    if let (Some(repository), Some(tenant)) = (repository, tenant) {
        let dropped = repo::drop_tenant(&root, (repository, tenant), &args.name, &at);
        failed.extend(dropped.err().map(|e| e.to_string()));
    }
    for why in failed {
        context.progress.event(Event::Warning(format!("local state of the tenant was not removed: {why}")));
    }
}

fn warn(context: &Context, receipt: &Receipt) {
    let say = |text: String| context.progress.event(Event::Warning(text));
    let place = &receipt.place;
    if receipt.slots.iter().any(|slot| !slot.deleted) {
        say(format!("{place} keeps slots: who has their keys can still open what is left, and any copy"));
    }
    if receipt.retained_sum.objects > 0 {
        let many = output::counted(receipt.retained_sum.objects, "object", "objects");
        say(format!("{place} keeps {many} ({}); erase again later", output::size(receipt.retained_sum.bytes)));
    }
    if receipt.late > 0 {
        say(format!("{place}: {} objects were written meanwhile; erase again", output::count(receipt.late)));
    }
    if !receipt.running.is_empty() {
        let many = output::counted(receipt.running.len() as u64, "backup", "backups");
        say(format!("{place}: {many} ran, and cannot finish; erase again in an hour to remove what they leave"));
    }
    for slot in &receipt.slots {
        if let Some(until) = slot.kept_until {
            let until = output::utc_time(until);
            say(format!("{place} keeps slot {} under a lock until {until}", slot.slot.short()));
        }
    }
    if let Protection::Stands(means) = &receipt.protection {
        say(format!(
            "{place} keeps what was deleted ({means}): until its old versions are gone, who can read them and has a key opens the tenant"
        ));
    }
}

fn document(receipts: &[Receipt]) -> serde_json::Value {
    let places: Vec<serde_json::Value> = receipts.iter().map(of_place).collect();
    let first = receipts.first();
    serde_json::json!({
        "erased": first.map(|r| output::utc_time(r.when)),
        "repository": first.and_then(|r| r.repository).map(|id| id.to_string()),
        "tenant": first.map(|r| r.name.clone()),
        "tenant_id": receipts.iter().find_map(|r| r.tenant).map(|id| id.to_string()),
        "whole": receipts.iter().all(Receipt::is_whole),
        "places": places,
        "not_known_here": "copies of the slots at places that were not named (mirrors, snapshots of the store, disks): \
            erase them too ('--also LOCATION'); who has one, a key and a copy of the rest can read it",
    })
}

fn of_place(receipt: &Receipt) -> serde_json::Value {
    let slots = receipt.slots.iter().map(|slot| {
        serde_json::json!({
            "slot": slot.slot.to_string(), "kind": slot.kind, "deleted": slot.deleted,
            "kept_until": slot.kept_until.map(output::utc_time),
        })
    });
    let retained = receipt.retained.iter().map(|object| {
        serde_json::json!({
            "object": object.name, "bytes": object.bytes, "until": object.until.map(output::utc_time),
        })
    });
    let (versions, means) = match &receipt.protection {
        Protection::Stands(means) => ("kept", Some(means)),
        Protection::Missing => ("none", None),
        Protection::Unknown(why) => ("unknown", Some(why)),
    };
    serde_json::json!({
        "place": receipt.place,
        "slots": slots.collect::<Vec<_>>(),
        "deleted": receipt.deleted,
        "retained": retained.collect::<Vec<_>>(),
        "retained_objects": receipt.retained_sum.objects, "retained_bytes": receipt.retained_sum.bytes,
        "written_meanwhile": receipt.late,
        "running_backups": receipt.running.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "old_versions": versions, "old_versions_by": means,
    })
}
