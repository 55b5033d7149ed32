//! A repository's life at random: backups of all kinds by full and by writers' keys, forgets, prunes, prunes that
//! optimise or leave packs there, packs that rot, checks that find it and backups that heal it, copies to two other
//! repositories, and forgets and prunes there. After every step each snapshot that is kept restores, byte by byte,
//! wherever it is. A seed tells a life; who adds a command that writes adds its step here.

use crate::support::{Draw, Place, Ran, change, files_below, is_long, noise, say};
use estrato::clock::SystemClock;
use estrato::crypto::keyfile::KeyFile;
use estrato::crypto::slot::Credential;
use estrato::monitor::Silent;
use estrato::repo::{Access, Repository};
use estrato::{restore, snapshot};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

type Tree = BTreeMap<PathBuf, Vec<u8>>;
/// Snapshots, and what each holds.
type Kept = Vec<(String, Tree)>;

fn below(draw: &mut Draw, most: usize) -> usize {
    draw.below(most as u64) as usize
}

fn one<'t, T>(draw: &mut Draw, of: &'t [T]) -> &'t T {
    &of[below(draw, of.len())]
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Backup,
    Forget,
    Prune,
    Optimise,
    Rot,
    Copy,
}

/// So often each, in so many steps.
const STEPS: [Step; 15] = [
    Step::Backup,
    Step::Backup,
    Step::Backup,
    Step::Backup,
    Step::Backup,
    Step::Forget,
    Step::Forget,
    Step::Prune,
    Step::Prune,
    Step::Optimise,
    Step::Optimise,
    Step::Rot,
    Step::Rot,
    Step::Copy,
    Step::Copy,
];

struct Life {
    label: String,
    draw: Draw,
    place: Place,
    kept: Kept,
    /// What was copied to the repositories of these names, by the copies' ids.
    copies: [(&'static str, Kept); 2],
    healed: usize,
}

fn tree(folder: PathBuf) -> Tree {
    let files = files_below(&folder).into_iter();
    files.map(|path| (path.strip_prefix(&folder).unwrap().to_owned(), fs::read(&path).unwrap())).collect()
}

/// Text that packs to about a half.
fn text(seed: &str, len: usize) -> Vec<u8> {
    noise(seed, len / 2).iter().flat_map(|b| [b'a' + b % 16, b'a' + b / 16]).collect()
}

impl Life {
    fn new(seed: u64) -> Self {
        let place = Place::with_repository();
        place.run(&["key", "add", "--role", "writer", "--label", "w", "--new-key-file", "w"]).expect_code(0);
        let like = ["-r", "like", "init", "--like", "repo", "--new-key-file", "key of like"];
        place.run(&like).expect_code(0);
        place.run(&["-r", "other", "init", "--parity", "10%", "--new-key-file", "key of other"]).expect_code(0);
        place.write("source/table", text("table", 200_000));
        place.write("source/log", text("log", 40_000));
        (0..12).for_each(|n| drop(place.write(format!("source/small/{n}"), text(&format!("small {n}"), 3_000))));
        Self {
            label: format!("seed {seed}"),
            draw: Draw(seed),
            place,
            kept: Vec::new(),
            copies: [("like", Vec::new()), ("other", Vec::new())],
            healed: 0,
        }
    }

    /// Changes the source in some way.
    fn edit(&mut self, n: usize) {
        let (draw, place) = (&mut self.draw, &self.place);
        for _ in 0..1 + below(draw, 3) {
            match below(draw, 5) {
                0 | 1 => change(&place.path("source/table"), |bytes| {
                    for row in 0..1 + below(draw, 20) {
                        let at = below(draw, bytes.len() - 100);
                        bytes[at..at + 80].copy_from_slice(&text(&format!("{n} {row}"), 80));
                    }
                }),
                2 => change(&place.path("source/log"), |bytes| bytes.extend(text(&format!("line {n}"), 5_000))),
                3 => drop(place.write(format!("source/small/{}", below(draw, 20)), text(&format!("new {n}"), 4_000))),
                _ => drop(fs::remove_file(place.path(format!("source/small/{}", below(draw, 20))))),
            }
        }
    }

    fn backup(&mut self) {
        let key = *one(&mut self.draw, &["key", "key", "w"]);
        let kind = *one(&mut self.draw, &["incremental", "incremental", "incremental", "differential", "full"]);
        // Each key has a machine of its own: what it remembers is its own.
        let arguments = ["snapshot", ".", "--json", "--kind", kind, "--cache-dir"];
        let mut command = self.place.command_in("source", &arguments);
        command.arg(self.place.path(format!("cache of {key}"))).env("ESTRATO_KEY_FILE", self.place.path(key));
        let ran = Ran::of(&mut command).expect_code(0);
        self.kept.push((ran.json()["snapshot"].as_str().unwrap().to_owned(), tree(self.place.path("source"))));
    }

    fn forget(&mut self) {
        while self.kept.len() > 3 {
            let (id, _) = self.kept.remove(below(&mut self.draw, self.kept.len() - 1));
            let prune = *one(&mut self.draw, &["--quiet", "--prune"]);
            self.place.run(&["forget", &id, prune]).expect_code(0);
            if below(&mut self.draw, 2) == 0 {
                break;
            }
        }
    }

    fn prune(&mut self, more: &[&str]) {
        let unused = *one(&mut self.draw, &["0%", "5%", "50%"]);
        let left = *one(&mut self.draw, &[&[][..], &["--keep-condemned", "1h"], &["--keep-condemned", "0s"]]);
        let depth = below(&mut self.draw, 4).to_string();
        let depth = if more.is_empty() { vec![] } else { vec!["--max-depth", &depth] };
        self.place.run(&[&["prune", "--max-unused", unused], left, more, &depth].concat()).expect_code(0);
    }

    /// A pack rots, a check finds it, and a backup of what was backed up last heals what it still has. What that
    /// cannot bring back is forgotten; nothing else may be lost.
    fn rot(&mut self) {
        if self.kept.is_empty() {
            return;
        }
        self.backup();
        let packs = self.place.objects("packs");
        let pack = packs[below(&mut self.draw, packs.len())].clone();
        change(&pack, |bytes| bytes.iter_mut().skip(1_300).step_by(97).for_each(|b| *b ^= 0x55));
        let found = self.place.run(&["check", "--read-data"]);
        assert!([0, 4].contains(&found.code()), "{}: {}", self.label, found.stderr());
        let whole = self.whole();
        self.place.run(&["snapshot", "source", "--host", "elsewhere", "--quiet"]).expect_code(0);
        let again = self.place.command_in("source", &["snapshot", ".", "--json", "--kind", "full"]);
        let again = Ran::of(&mut { again }).expect_code(0).json()["snapshot"].as_str().unwrap().to_owned();
        self.kept.push((again.clone(), tree(self.place.path("source"))));
        let now = self.whole();
        assert!(now.contains(&again), "{}: what is there still was not stored again", self.label);
        assert!(whole.iter().all(|id| now.contains(id)), "{}: healing has lost something", self.label);
        self.healed += usize::from(now.len() > whole.len() + 1);
        let lost: Vec<String> = self.kept.iter().map(|(id, _)| id.clone()).filter(|id| !now.contains(id)).collect();
        for id in &lost {
            self.place.run(&["forget", id, "--quiet"]).expect_code(0);
        }
        self.place
            .run(&["forget", "--host", "elsewhere", "--keep-tag", "none", "--allow-empty-group"])
            .expect_code(0);
        self.kept.retain(|(id, _)| !lost.contains(id));
    }

    /// All that is not there goes to another repository, in which something may be forgotten and pruned then.
    fn copy(&mut self) {
        let to = below(&mut self.draw, 2);
        let (name, kept) = &mut self.copies[to];
        let key = format!("key of {name}");
        let ran = self.place.run(&["copy", "--json", "--to", name, "--to-key-file", &key]).expect_code(0);
        for copied in ran.json()["copied"].as_array().unwrap() {
            let (_, tree) = self.kept.iter().find(|(id, _)| copied["source"] == **id).unwrap();
            kept.push((copied["copy"].as_str().unwrap().to_owned(), tree.clone()));
        }
        if kept.len() > 2 && below(&mut self.draw, 2) == 0 {
            let (id, _) = kept.remove(below(&mut self.draw, kept.len() - 1));
            self.place.run(&["-r", name, "--key-file", &key, "forget", &id, "--prune", "--quiet"]).expect_code(0);
        }
    }

    fn open(&self, repo: &str, key: &str) -> Repository {
        let text = fs::read_to_string(self.place.path(key)).unwrap();
        let access = Access {
            store: estrato::store::open(self.place.path(repo).to_str().unwrap()).unwrap(),
            clock: Arc::new(SystemClock::default()),
            tenant: "default".into(),
            credential: Credential::KeyFile(KeyFile::from_text(&text).unwrap()),
            cache: None,
        };
        Repository::open(access).unwrap()
    }

    /// The snapshots that are kept, and restore as they were.
    fn whole(&self) -> Vec<String> {
        self.whole_of(&self.open("repo", "key"), &self.kept)
    }

    fn whole_of(&self, repo: &Repository, kept: &Kept) -> Vec<String> {
        assert!(repo.sync_index().unwrap().is_empty(), "{}", self.label);
        let listing = snapshot::list(repo).unwrap();
        let mut whole = Vec::new();
        for (id, expected) in kept {
            let found = listing.snapshots.iter().find(|s| s.id.to_string() == *id);
            let found = found.unwrap_or_else(|| panic!("{}: snapshot {id} is gone", self.label));
            let target = tempfile::tempdir().unwrap();
            let options = restore::Options::default();
            let done = restore::run(repo, &found.manifest.root, None, target.path(), &options, &Silent).unwrap();
            if done.failed.is_empty() {
                assert!(tree(target.path().into()) == *expected, "{}: {id} gives back something else", self.label);
                whole.push(id.clone());
            }
        }
        whole
    }

    fn step(&mut self, n: usize) {
        let step = if self.kept.is_empty() { Step::Backup } else { *one(&mut self.draw, &STEPS) };
        self.label = format!("{} {step:?}", self.label);
        match step {
            Step::Backup => {
                self.edit(n);
                self.backup();
            }
            Step::Forget => self.forget(),
            Step::Prune => self.prune(&[]),
            Step::Optimise => self.prune(&["--optimise"]),
            Step::Rot => self.rot(),
            Step::Copy => self.copy(),
        }
        assert_eq!(self.whole().len(), self.kept.len(), "{}: a snapshot does not restore", self.label);
        if let Step::Copy = step {
            for (name, kept) in &self.copies {
                let there = self.whole_of(&self.open(name, &format!("key of {name}")), kept);
                assert_eq!(there.len(), kept.len(), "{}: a copy does not restore", self.label);
            }
        }
    }
}

#[test]
fn whatever_befalls_a_repository_what_is_kept_restores() {
    let (lives, steps) = if is_long() { (60, 40) } else { (3, 16) };
    let (mut restored, mut healed, mut copied) = (0, 0, 0);
    for seed in 1..=lives {
        let mut life = Life::new(seed);
        for n in 0..steps {
            life.step(n);
            restored += life.kept.len();
        }
        life.place.run(&["prune", "--max-unused", "0%"]).expect_code(0);
        assert_eq!(life.whole().len(), life.kept.len());
        let checked = life.place.run(&["check", "--read-data"]).expect_code(0);
        assert!(checked.stdout().contains("no damage"), "{}: {}", life.label, checked.stdout());
        healed += life.healed;
        copied += life.copies.iter().map(|(_, kept)| kept.len()).sum::<usize>();
    }
    assert!(healed > 0, "no backup has healed anything");
    assert!(copied > 0, "nothing was copied");
    say(&format!(
        "life: {lives} lives of {steps} steps, {restored} restores, healed in {healed}, {copied} copies kept"
    ));
}
