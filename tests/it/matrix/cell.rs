//! One row of the matrix: a damaged copy of the repository, each command on it, and what came of it.

use super::damage::{Damage, Kind, apply};
use super::prepared::{Files, Prepared, copy, link};
use super::repaired::Mended;
use crate::support::{Ran, files_below};
use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// What came of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Exit code 0, everything right, and no word of the damage: it is not needed here.
    Fine,
    /// Exit code 0, everything right, and the object is named.
    Warned,
    /// Exit code 0, and told that what is damaged was not looked at.
    Unread,
    /// A snapshot that rests on what it did not read: restoring it is [`Outcome::Partial`].
    Rests,
    /// The object is named, and with it what is lost; all else is right.
    Partial(i32),
    /// The object is named, and nothing done.
    Refused(i32),
    /// Exit code 4: a check has named it.
    Found,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fine => f.write_str("fine"),
            Self::Warned => f.write_str("warned"),
            Self::Unread => f.write_str("not read"),
            Self::Rests => f.write_str("rests on it"),
            Self::Partial(code) => write!(f, "partial ({code})"),
            Self::Refused(code) => write!(f, "refused ({code})"),
            Self::Found => f.write_str("found (4)"),
        }
    }
}

/// The commands, in the order of the table's columns.
pub const COMMANDS: [&str; 8] = [
    "snapshot",
    "snapshot, new machine",
    "snapshot, writer",
    "restore",
    "restore, new machine",
    "ls",
    "check",
    "check all data",
];

/// A row under work.
pub struct Row<'p> {
    pub prepared: &'p Prepared,
    pub kind: Kind,
    pub damage: Damage,
    folder: PathBuf,
    /// What a message may call the object: what has changed places has two names.
    names: Vec<String>,
}

impl Drop for Row<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl<'p> Row<'p> {
    pub fn new(prepared: &'p Prepared, number: usize, kind: Kind, damage: Damage) -> Self {
        let folder = prepared.place.path(format!("cells/{number}"));
        let row = Self { prepared, kind, damage, folder, names: damage.names(prepared, kind) };
        row.copies("all");
        row
    }

    /// A damaged copy of the repository, and one of the state on the machine.
    fn copies(&self, name: &str) {
        let folder = self.folder.join(name);
        link(&self.prepared.place.path("repo"), &folder.join("repo"));
        copy(&self.prepared.place.path("cache"), &folder.join("cache"));
        apply(self.prepared, &folder.join("repo"), self.kind, self.damage);
    }

    /// Runs the program on the copies of that name.
    fn run(&self, copies: &str, key: &str, cache: &str, arguments: &[&str]) -> Ran {
        let place = &self.prepared.place;
        let folder = self.folder.join(copies);
        let mut command = place.command_in("source", arguments);
        command.env("ESTRATO_REPO", folder.join("repo")).arg("--cache-dir").arg(folder.join(cache));
        Ran::of(command.env("ESTRATO_KEY_FILE", place.path(key)))
    }

    /// What came of each command.
    pub fn outcomes(&self) -> [Result<Outcome, String>; 8] {
        let neighbour = self.neighbour();
        [
            self.snapshot("key", "cache"),
            self.snapshot("key", "fresh"),
            self.snapshot("writer", "cache"),
            self.restores("cache"),
            self.restores("fresh"),
            self.ls(),
            self.check(&[]),
            neighbour.and_then(|()| self.check(&["--read-data"])),
        ]
    }

    /// The other tenant's snapshot comes back whatever happens here, unless its own objects were touched.
    fn neighbour(&self) -> Result<(), String> {
        let target = self.folder.join("all/theirs");
        let arguments = ["-t", "other", "restore", "latest", "--target", target.to_str().unwrap()];
        let ran = self.run("all", "other", "other-cache", &arguments);
        let right = match fs::read(target.join("file")) {
            Ok(bytes) if bytes == self.prepared.other.file => ran.code() == 0,
            Ok(_) => false,
            Err(_) => ran.code() != 0 && (self.kind == Kind::Repo || matches!(self.damage, Damage::SwappedTenant)),
        };
        if right { Ok(()) } else { Err(format!("the other tenant: {}", told(&ran))) }
    }

    /// Takes a snapshot, and restores it elsewhere.
    fn snapshot(&self, key: &str, cache: &str) -> Result<Outcome, String> {
        let copies = format!("{key}-{cache}");
        self.copies(&copies);
        let before = self.snapshots(&copies);
        let ran = self.run(&copies, key, cache, &["snapshot", ".", "--json"]);
        if ran.code() != 0 {
            if self.snapshots(&copies) != before {
                return Err(format!("it failed, and there is a snapshot: {}", told(&ran)));
            }
            return self.refused(&ran);
        }
        let id = ran.json()["snapshot"].as_str().unwrap().to_owned();
        let restored = self.restored(&copies, "paper", "another", &id, &self.prepared.source);
        match (restored?, self.names(&ran.stderr())) {
            (Outcome::Fine | Outcome::Warned, true) => Ok(Outcome::Warned),
            (Outcome::Fine | Outcome::Warned, false) if complaints(&ran).is_empty() => Ok(Outcome::Fine),
            (Outcome::Partial(_), false) if complaints(&ran).is_empty() => Ok(Outcome::Rests),
            (outcome, _) => Err(format!("restored {outcome:?} after {}", told(&ran))),
        }
    }

    fn snapshots(&self, copies: &str) -> Vec<PathBuf> {
        files_below(&self.folder.join(copies).join("repo/tenants/default/snapshots"))
    }

    /// Restores every snapshot that there is or was; the outcome of the newest. Another is refused only
    /// if its own object is damaged, or everything is refused.
    fn restores(&self, cache: &str) -> Result<Outcome, String> {
        // A machine that knows nothing reads the newest: what it reads of others is the same.
        let first = if cache == "fresh" { 3 } else { 0 };
        let mut outcomes = Vec::new();
        for (id, files) in &self.prepared.snapshots[first..] {
            outcomes.push(self.restored("all", "key", cache, id, files)?);
        }
        let Some(newest) = outcomes.last().copied() else { return Err("there is no snapshot".into()) };
        let all_refused = matches!(newest, Outcome::Refused(_));
        for (nth, outcome) in (first..).zip(&outcomes) {
            let refused = matches!(outcome, Outcome::Refused(_));
            if refused != (all_refused || self.takes_away(nth)) {
                return Err(format!("snapshot {nth}: {outcome:?}, and the newest {newest:?}"));
            }
        }
        Ok(newest)
    }

    /// True if the damage is to the object of that snapshot.
    fn takes_away(&self, nth: usize) -> bool {
        self.kind == Kind::Snapshot
            && self.damage != Damage::Doubled
            && (nth == 1 || nth == 0 && self.damage == Damage::Swapped)
    }

    /// Restores a snapshot: every file that the damage does not touch must be there, and right; none
    /// may be wrong.
    fn restored(&self, copies: &str, key: &str, cache: &str, id: &str, files: &Files) -> Result<Outcome, String> {
        let target = self.folder.join(copies).join(format!("out-{cache}-{id}"));
        let ran = self.run(copies, key, cache, &["restore", id, "--target", target.to_str().unwrap()]);
        let there = there(&target);
        let mut lost = BTreeSet::new();
        for (name, bytes) in files {
            match there.iter().find(|(path, _)| path == name) {
                Some((_, found)) if found == bytes => {}
                Some(_) => return Err(format!("{name} is wrong: {}", told(&ran))),
                None => drop(lost.insert(*name)),
            }
        }
        if let Some((path, _)) = there.iter().find(|(path, _)| !files.contains_key(path.as_str())) {
            return Err(format!("{path} was never there: {}", told(&ran)));
        }
        let told = || told(&ran);
        match ran.code() {
            0 if !lost.is_empty() => Err(format!("{lost:?} lost in silence: {}", told())),
            0 if self.names(&ran.stderr()) => Ok(Outcome::Warned),
            0 if complaints(&ran).is_empty() => Ok(Outcome::Fine),
            code if target.exists() && self.names(&ran.stderr()) => {
                let touched = self.touched();
                if let Some(name) = lost.iter().find(|name| !touched.contains(*name)) {
                    return Err(format!("{name} is lost without need: {}", told()));
                }
                Ok(Outcome::Partial(code))
            }
            _ => self.refused(&ran),
        }
    }

    /// The files that the damage may take away.
    fn touched(&self) -> Vec<&'static str> {
        let mut touched = Vec::new();
        if matches!(self.kind, Kind::Data | Kind::Tree | Kind::Index) {
            touched.extend(["one/a", "one/b"]);
            if self.damage == Damage::Swapped {
                touched.push("two/c");
            }
        }
        touched
    }

    fn ls(&self) -> Result<Outcome, String> {
        let ran = self.run("all", "key", "cache", &["ls", "-R"]);
        let named = self.names(&ran.stderr());
        let listed = ran.stdout();
        let all = self.prepared.snapshots[3].1.keys().all(|name| listed.lines().any(|l| l == *name));
        match ran.code() {
            0 if all && named => Ok(Outcome::Warned),
            0 if all && complaints(&ran).is_empty() => Ok(Outcome::Fine),
            4 if named && !listed.is_empty() => Ok(Outcome::Partial(4)),
            0 | 4 => Err(told(&ran)),
            _ => self.refused(&ran),
        }
    }

    /// What a check says that has no key.
    pub fn keyless(&self) -> Result<Outcome, String> {
        self.check(&["--store-only"])
    }

    /// What comes of a repair, and what a check says then.
    pub fn repaired(&self, repair: &[&str]) -> Result<Mended, String> {
        let before = self.check(&["--read-data"]);
        let ran = self.run("all", "key", "cache", repair);
        let after = self.check(&["--read-data"]);
        // Once is enough.
        let stored = files_below(&self.folder.join("all/repo"));
        let again = self.run("all", "key", "cache", repair);
        if again.code() != ran.code() || files_below(&self.folder.join("all/repo")) != stored {
            return Err(format!("once more, after {}: {}", told(&ran), told(&again)));
        }
        match (ran.code(), &after) {
            (0, Ok(Outcome::Fine)) if before != after => Ok(Mended::Clean),
            (4, Ok(Outcome::Found)) => Ok(Mended::Told),
            (0, Ok(Outcome::Found)) if ran.stdout().contains("is repaired") => Ok(Mended::Told),
            (0, _) if before == after => Ok(Mended::Untouched),
            _ => Err(format!("{before:?} before, {after:?} after {}", told(&ran))),
        }
    }

    fn check(&self, more: &[&str]) -> Result<Outcome, String> {
        let ran = self.run("all", "key", "cache", &[&["check"], more].concat());
        match ran.code() {
            4 if self.names(&ran.stdout()) => Ok(Outcome::Found),
            0 if self.names(&ran.stdout()) => Ok(Outcome::Warned),
            0 if ran.stdout().contains("not checked:") => Ok(Outcome::Unread),
            0 => Ok(Outcome::Fine),
            4 => Err(told(&ran)),
            _ => self.refused(&ran),
        }
    }

    fn refused(&self, ran: &Ran) -> Result<Outcome, String> {
        if self.names(&ran.stderr()) { Ok(Outcome::Refused(ran.code())) } else { Err(told(ran)) }
    }

    /// True if the object is named.
    fn names(&self, text: &str) -> bool {
        self.names.iter().any(|name| text.contains(name))
    }
}

fn told(ran: &Ran) -> String {
    format!("exit {}, {}{}", ran.code(), ran.stdout(), ran.stderr())
}

/// The files below a folder, and what they hold.
fn there(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let below = files_below(folder);
    let name = |path: &PathBuf| path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
    below.iter().map(|path| (name(path), fs::read(path).unwrap())).collect()
}

/// What a command complains of, but that the repository lies beside its source.
fn complaints(ran: &Ran) -> String {
    ran.stderr().lines().filter(|line| !line.contains("lies on the same disk")).collect()
}
