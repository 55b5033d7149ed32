//! `estrato snapshots` and `estrato ls`.

use super::args::{FilterArgs, LsArgs};
use super::context::Context;
use super::output;
use crate::error::{Error, Result as OurResult};
use crate::format::content::Content;
use crate::format::manifest::Manifest;
use crate::format::node::{Kind, Node};
use crate::monitor::{Event, Monitor as _};
use crate::repo::Repository;
use crate::snapshot::{self, Filter, Folder, Listing, Snapshot};
use anyhow::Result;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::process::ExitCode;

/// The filter that the options mean.
pub fn filter(args: &FilterArgs) -> Result<Filter> {
    let mut paths = Vec::new();
    for path in &args.path {
        paths.push(path.as_os_str().as_bytes().to_vec());
        if let Ok(full) = std::path::absolute(path) {
            paths.push(full.as_os_str().as_bytes().to_vec());
        }
    }
    let at = args.at.as_deref().map(output::parse_time).transpose()?;
    Ok(Filter { tags: args.tag.clone(), hosts: args.host.clone(), paths, at })
}

/// Lists snapshots for choosing one; what cannot be read is told.
pub fn listing(context: &Context, repo: &Repository) -> OurResult<Listing> {
    let listing = snapshot::list(repo)?;
    for (id, e) in &listing.damaged {
        context.progress.event(Event::Warning(format!("snapshot {}: {e}", id.short())));
    }
    for gone in &listing.gone {
        context.progress.event(Event::Warning(gone.to_string()));
    }
    for s in listing.snapshots.iter().filter(|s| s.is_postdated()) {
        context.progress.event(Event::Warning(format!(
            "snapshot {} claims a later time than when the store took it ({}), by which it counts; {} signed it",
            s.id.short(),
            output::local_time(s.taken),
            repo.signer_label(&s.signer),
        )));
    }
    Ok(listing)
}

/// Splits `SNAP:PATH`.
fn split(text: &str) -> (&str, &str) {
    text.split_once(':').unwrap_or((text, ""))
}

/// The snapshot and path that `text` names; brings the index up to date first.
pub fn choose(
    context: &Context,
    repo: &Repository,
    text: &str,
    args: &FilterArgs,
) -> Result<(Snapshot, Option<Node>)> {
    let (name, path) = split(text);
    let mut listing = listing(context, repo)?;
    let filter = filter(args)?;
    let chosen = listing.choose(name, &filter)?.clone();
    for problem in repo.sync_index()? {
        context.progress.event(Event::Warning(problem.to_string()));
    }
    let node = snapshot::find(repo, &chosen.manifest.root, path.as_bytes())?;
    Ok((chosen, node))
}

/// A manifest for `--json`.
pub fn manifest_json(m: &Manifest) -> serde_json::Value {
    let paths = |list: &[Vec<u8>]| list.iter().map(|p| String::from_utf8_lossy(p).into_owned()).collect::<Vec<_>>();
    serde_json::json!({
        "time": output::utc_time(m.time), "started": output::utc_time(m.started), "ended": output::utc_time(m.ended),
        "host": m.host, "user": m.user, "paths": paths(&m.paths), "source": paths(&m.source), "source_kind": m.source_kind,
        "tags": m.tags, "kind": m.kind, "base": m.base.map(|b| b.to_string()), "summary": m.summary, "program": m.program,
        "repaired": m.repaired.map(|r| serde_json::json!({
            "of": r.of.to_string(), "files": r.files, "bytes": r.bytes, "folders": r.folders,
        })),
        "origin": m.origin.map(|o| serde_json::json!({ "snapshot": o.snapshot.to_string(), "tenant": o.tenant.to_string() })),
    })
}

/// Runs `estrato snapshots`.
pub fn snapshots(context: &Context, args: &FilterArgs) -> Result<ExitCode> {
    let repo = context.open()?;
    let listing = listing(context, &repo)?;
    let filter = filter(args)?;
    if context.global.json {
        let all: Vec<_> = listing
            .filtered(&filter)
            .map(|s| {
                let signer = repo.signer_label(&s.signer);
                serde_json::json!({
                    "id": s.id.to_string(), "signer": signer, "taken": output::utc_time(s.taken),
                    "postdated": s.is_postdated(), "manifest": manifest_json(&s.manifest),
                })
            })
            .collect();
        output::print_json(&all)?;
    } else {
        let rows: Vec<Vec<String>> = listing
            .filtered(&filter)
            .map(|s| {
                let m = &s.manifest;
                vec![
                    s.id.short(),
                    format!("{}{}", output::local_time(m.time), if s.is_postdated() { " (!)" } else { "" }),
                    format!("{}{}", m.kind.name(), if m.repaired.is_some() { ", repaired" } else { "" }),
                    output::size(m.summary.total.bytes),
                    output::size(m.summary.stored_bytes),
                    output::escaped(m.host.as_bytes()).into_owned(),
                    m.tags.iter().map(|t| output::escaped(t.as_bytes())).collect::<Vec<_>>().join(","),
                    m.paths.iter().map(|p| output::escaped(p)).collect::<Vec<_>>().join(" "),
                ]
            })
            .collect();
        let head = ["id", "time", "kind", "size", "stored", "host", "tags", "paths"];
        output::print(&output::table(&head, &rows, &[3, 4]))?;
        output::print(&repaired(listing.filtered(&filter)))?;
        if !context.global.quiet {
            output::complain(&output::counted(rows.len() as u64, "snapshot", "snapshots"));
        }
    }
    // Whoever lists must not believe that a lost snapshot never was.
    let whole = listing.damaged.is_empty() && listing.gone.is_empty();
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::from(super::exit::DAMAGE) })
}

/// What repaired snapshots lack.
fn repaired<'s>(snapshots: impl Iterator<Item = &'s Snapshot>) -> String {
    let mut text = String::new();
    for (s, r) in snapshots.filter_map(|s| Some((s, s.manifest.repaired?))) {
        let files = output::counted(r.files, "file", "files");
        let _ = write!(text, "{} is {} without {files} ({})", s.id.short(), r.of.short(), output::size(r.bytes));
        if r.folders > 0 {
            let _ = write!(text, " and parts of {}", output::counted(r.folders, "folder", "folders"));
        }
        text.push_str(", which are lost\n");
    }
    text
}

/// Runs `estrato ls`.
pub fn ls(context: &Context, args: &LsArgs) -> Result<ExitCode> {
    let repo = context.open()?;
    let (chosen, node) = choose(context, &repo, &args.snapshot, &args.filter)?;
    let mut lister = Lister { repo: &repo, args, context, out: String::new(), lost: 0 };
    match node {
        Some(node) if node.kind != Kind::Dir => lister.show(&node, &[])?,
        Some(node) => lister.folder(&node.content, &[])?,
        None => lister.folder(&chosen.manifest.root, &[])?,
    }
    lister.flush()?;
    Ok(if lister.lost == 0 { ExitCode::SUCCESS } else { ExitCode::from(super::exit::DAMAGE) })
}

struct Lister<'a> {
    repo: &'a Repository,
    args: &'a LsArgs,
    context: &'a Context,
    out: String,
    lost: u64,
}

impl Lister<'_> {
    fn folder(&mut self, content: &Content, path: &[u8]) -> Result<()> {
        // One path for all levels, and where it ends for each: thousands of their own would be too many.
        let mut path = path.to_vec();
        let mut levels = vec![(Folder::new(self.repo, content), path.len())];
        while let Some((folder, end)) = levels.last_mut() {
            path.truncate(*end);
            match folder.next() {
                None => {
                    levels.pop();
                }
                Some(Ok(node)) => {
                    self.show(&node, &path)?;
                    if !self.args.recursive || node.kind != Kind::Dir {
                        continue;
                    }
                    path.extend_from_slice(&node.name);
                    if levels.len() >= crate::limits::DEPTH_MAX {
                        self.lost += 1;
                        let text = format!("{}: folders are too deep", String::from_utf8_lossy(&path));
                        self.context.progress.event(Event::Warning(text));
                        continue;
                    }
                    path.push(b'/');
                    levels.push((Folder::new(self.repo, &node.content), path.len()));
                }
                Some(Err(e)) if e.is_damage() => {
                    self.lost += 1;
                    let place = if path.is_empty() { &b"/"[..] } else { &path[..] };
                    let text = format!("{}: some entries are lost: {e}", String::from_utf8_lossy(place));
                    self.context.progress.event(Event::Warning(text));
                }
                Some(Err(e)) => return Err(e.into()),
            }
        }
        Ok(())
    }

    fn show(&mut self, node: &Node, folder: &[u8]) -> Result<(), Error> {
        let path = [folder, &node.name].concat();
        if self.context.global.json {
            let line = serde_json::json!({
                "path": String::from_utf8_lossy(&path), "kind": node.kind, "mode": format!("{:04o}", node.mode),
                "uid": node.uid, "gid": node.gid, "user": node.user, "group": node.group, "size": node.size,
                "mtime": output::utc_time(node.mtime), "target": (node.kind == Kind::Symlink)
                    .then(|| String::from_utf8_lossy(&node.target).into_owned()),
            });
            let _ = writeln!(self.out, "{line}");
        } else if self.args.long {
            let owner = |name: &str, number: u32| match name {
                "" => number.to_string(),
                name => output::escaped(name.as_bytes()).into_owned(),
            };
            let target = if node.kind == Kind::Symlink {
                format!(" -> {}", output::escaped(&node.target))
            } else {
                String::new()
            };
            let _ = writeln!(
                self.out,
                "{}{:04o}  {:8} {:8} {:>9}  {}  {}{target}",
                letter(node.kind),
                node.mode,
                owner(&node.user, node.uid),
                owner(&node.group, node.gid),
                output::size(node.size),
                output::local_time(node.mtime),
                output::escaped(&path),
            );
        } else {
            let slash = if node.kind == Kind::Dir { "/" } else { "" };
            let _ = writeln!(self.out, "{}{slash}", output::escaped(&path));
        }
        if self.out.len() > 1 << 16 {
            self.flush().map_err(|e| Error::Invalid(format!("{e:#}")))?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        output::print(&std::mem::take(&mut self.out))
    }
}

fn letter(kind: Kind) -> char {
    match kind {
        Kind::File => '-',
        Kind::Dir => 'd',
        Kind::Symlink => 'l',
        Kind::Fifo => 'p',
        Kind::Socket => 's',
        Kind::CharDevice => 'c',
        Kind::BlockDevice => 'b',
    }
}
