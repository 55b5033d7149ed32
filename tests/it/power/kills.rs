//! Programs that are killed at any moment, again and again, beside one repository that nobody tidies
//! up between.

use super::{assert_same, copy, is_long, reported};
use crate::support::{Place, Ran, noise};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

/// Numbers that look random, and are the same in every run.
struct Dice {
    seed: String,
    rolls: usize,
}

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.rolls += 1;
        let bytes = noise(&format!("{} {}", self.seed, self.rolls), 8);
        usize::try_from(u64::from_le_bytes(bytes.try_into().unwrap()) % bound as u64).unwrap()
    }
}

/// A repository, and what is known of it.
struct Battered {
    place: Place,
    dice: Dice,
    /// Snapshots that were reported, with the folder that holds what was their source then.
    reported: Vec<(String, String)>,
    /// How long a command takes that nobody kills.
    takes: BTreeMap<&'static str, Duration>,
    killed: usize,
}

const COMMANDS: [&str; 8] =
    ["snapshot", "snapshot", "snapshot", "key add", "tenant add", "check", "restore", "restore"];

impl Battered {
    fn new(seed: usize) -> Self {
        let place = Place::with_repository();
        let dice = Dice { seed: format!("kill {seed}"), rolls: 0 };
        let mut it = Self { place, dice, reported: Vec::new(), takes: BTreeMap::new(), killed: 0 };
        for n in 0..40 {
            it.place.write(format!("source/small/{n}"), noise(&format!("small {n}"), 100 * n));
        }
        for (n, command) in COMMANDS.iter().enumerate() {
            it.change(n);
            let began = Instant::now();
            it.run(command, n, None);
            it.takes.insert(command, began.elapsed());
        }
        it
    }

    /// Changes the source, and keeps what it holds now.
    fn change(&mut self, round: usize) {
        for file in ["large", "folder/other"] {
            let len = 30_000 + self.dice.below(150_000);
            self.place.write(format!("source/{file}"), noise(&format!("{file} {round}"), len));
        }
        self.place.write(format!("source/small/{}", round % 40), format!("of round {round}"));
        copy(&self.place.path("source"), &self.place.path(format!("then-{round}")));
    }

    fn arguments(&self, command: &str, round: usize) -> Vec<String> {
        let name = |what: &str| format!("{what}-{round}");
        match command {
            "snapshot" => vec!["snapshot".into(), "source".into(), "--json".into()],
            "key add" => vec!["key".into(), "add".into(), "--new-key-file".into(), name("key")],
            "tenant add" => vec!["tenant".into(), "add".into(), name("tenant")],
            "check" => vec!["check".into(), "--read-data".into()],
            _ => vec!["restore".into(), "latest".into(), "--target".into(), name("out")],
        }
    }

    /// Runs a command, to its end or until it is killed; true if it came to its end. A snapshot counts
    /// once its report stands on the standard output, whatever happens then.
    fn run(&mut self, command: &str, round: usize, killed_after: Option<Duration>) -> bool {
        let arguments = self.arguments(command, round);
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (out, err) = (self.place.path("stdout"), self.place.path("stderr"));
        let mut command = self.place.command(&words);
        command.stdin(Stdio::null()).stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
        let mut child = command.spawn().unwrap();
        if let Some(after) = killed_after {
            std::thread::sleep(after);
            child.kill().unwrap();
        }
        let code = child.wait().unwrap().code();
        let stderr = fs::read_to_string(err).unwrap();
        assert!(code == Some(0) || code.is_none(), "{words:?} in round {round}: {code:?}: {stderr}");
        if let Some(id) = reported(&fs::read_to_string(out).unwrap()) {
            self.reported.push((id, format!("then-{round}")));
        }
        code.is_some()
    }

    fn restores(&self, (id, then): &(String, String)) {
        let target = format!("restored-{id}");
        self.place.run(&["restore", id, "--target", &target]).expect_code(0);
        assert_same(&self.place.path(then), &self.place.path(&target).join("source"));
        fs::remove_dir_all(self.place.path(&target)).unwrap();
    }

    /// What a killed command left can be gone on with.
    fn goes_on(&mut self, command: &str, round: usize) {
        let expect =
            |ran: Ran| assert!(ran.code() == 0 || ran.stderr().contains("exists already"), "{}", ran.stderr());
        match command {
            "key add" => {
                // A key file that was written before the kill may open nothing, and harms nobody.
                let again = format!("key-{round}-again");
                self.place.run(&["key", "add", "--new-key-file", &again]).expect_code(0);
                self.place.run_as(&again, &["snapshots"]).expect_code(0);
            }
            "tenant add" => {
                let name = format!("tenant-{round}");
                expect(self.place.run(&["tenant", "add", &name]));
                self.place.run(&["-t", &name, "check"]).expect_code(0);
            }
            "restore" => {
                let target = format!("out-{round}");
                // The same snapshot: a killed restore takes none.
                let (id, then) = self.reported.last().unwrap();
                self.place.run(&["restore", id, "--target", &target, "--verify"]).expect_code(0);
                assert_same(&self.place.path(then), &self.place.path(&target).join("source"));
            }
            _ => {}
        }
        assert!(self.run("snapshot", round, None));
        self.restores(self.reported.last().unwrap());
    }

    fn round(&mut self, round: usize) {
        let command = COMMANDS[self.dice.below(COMMANDS.len())];
        // A restore is of the newest snapshot, which is known only until the source changes.
        if command == "snapshot" || self.dice.below(3) == 0 {
            self.change(round);
        } else {
            copy(&self.place.path("source"), &self.place.path(format!("then-{round}")));
        }
        let takes = u64::try_from(self.takes[command].as_micros()).unwrap();
        let after = Duration::from_micros(takes * self.dice.below(1100) as u64 / 1000);
        if !self.run(command, round, Some(after)) {
            self.killed += 1;
        }
        self.place.run(&["check", "--read-data"]).expect_code(0);
        self.goes_on(command, round);
    }

    /// Every snapshot that was ever reported is listed, and whole.
    fn holds_all(&self) {
        let listed = self.place.run(&["snapshots", "--json"]).expect_code(0).stdout();
        for snapshot in &self.reported {
            assert!(listed.contains(&snapshot.0), "{snapshot:?} is not listed");
            self.restores(snapshot);
        }
    }
}

#[test]
fn programs_killed_at_any_moment_take_nothing_that_was_reported() {
    // Each check reads all that was stored: many small repositories, not one that grows.
    let (repositories, rounds) = if is_long() { (12, 30) } else { (1, 25) };
    let (mut killed, mut reported) = (0, 0);
    for seed in 0..repositories {
        let mut it = Battered::new(seed);
        for round in 100..100 + rounds {
            it.round(round);
        }
        it.holds_all();
        it.place.run(&["check", "--read-data"]).expect_code(0);
        killed += it.killed;
        reported += it.reported.len();
    }
    let programs = repositories * rounds;
    eprintln!("killed {killed} of {programs} programs; {reported} snapshots were reported");
    assert!(killed > 0, "the programs end before they are killed");
}

#[test]
fn what_a_killed_upload_left_is_removed_by_a_run_that_comes_a_day_later() {
    let place = Place::with_repository();
    place.write("source/a", noise("a", 50_000));
    place.snapshot(&[]);
    let left = ["packs/ab/abcd#17", "packs/ab/abcd#18", "index/ef#1"].map(|name| {
        let at = place.write(format!("repo/tenants/default/{name}"), noise(name, 1000));
        let hours = if name.ends_with("18") { 23 } else { 25 };
        let then = SystemTime::now() - Duration::from_secs(hours * 3600);
        File::options().write(true).open(&at).unwrap().set_modified(then).unwrap();
        at
    });
    for command in [&["check", "--read-data"][..], &["ls"], &["restore", "latest", "--target", "out"]] {
        place.run(command).expect_code(0);
        assert!(left.iter().all(|path| path.exists()), "{command:?} removes something");
    }
    place.snapshot(&[]);
    assert_eq!(left.map(|path| path.exists()), [false, true, false]);
    place.run(&["check", "--read-data"]).expect_code(0);
}

#[test]
fn an_init_that_was_killed_is_completed_by_the_next() {
    let whole = Place::new();
    let began = Instant::now();
    whole.run(&["init", "--new-key-file", "key"]).expect_code(0);
    let takes = began.elapsed();
    let rounds = if is_long() { 100 } else { 8 };
    let mut killed = 0;
    for round in 0..rounds {
        let place = Place::new();
        place.run(&["key", "show", "--new-key-file", "key"]).expect_code(0);
        let mut command = place.command(&["init"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(takes * round / rounds);
        child.kill().unwrap();
        killed += usize::from(!child.wait().unwrap().success());
        let again = place.run(&["init"]);
        assert!(again.code() == 0 || again.stderr().contains("exists already"), "{}", again.stderr());
        place.write("source/a", "x");
        place.snapshot(&[]);
        place.run(&["check", "--read-data"]).expect_code(0);
    }
    eprintln!("killed {killed} of {rounds} inits");
}
