//! What the tests share: a place of their own with a repository, a key and caches in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A temporary place; `HOME` of every program that runs in it, and gone with it.
pub struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    /// An empty place.
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// A place with a repository in `repo` that the key file `key` opens.
    pub fn with_repository() -> Self {
        let place = Self::new();
        place.run(&["init", "--new-key-file", "key"]).expect_code(0);
        place
    }

    /// A path in it.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The program, to be run here, with the repository and the key named in its environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_estrato"));
        command.args(arguments).current_dir(self.folder.path()).env_clear();
        command.env("HOME", self.folder.path()).env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("ESTRATO_REPO", "repo").env("ESTRATO_KEY_FILE", "key").env("TZ", "UTC").env("LANG", "C.UTF-8");
        command
    }

    /// Runs the program here.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(&mut self.command(arguments))
    }
}

/// A program that has run.
pub struct Ran {
    output: Output,
    line: String,
}

impl Ran {
    /// Runs a command to its end.
    pub fn of(command: &mut Command) -> Self {
        let line = format!("{command:?}");
        Self { output: command.output().unwrap(), line }
    }

    /// Its exit code; -1 if a signal ended it.
    pub fn code(&self) -> i32 {
        self.output.status.code().unwrap_or(-1)
    }

    /// Panics, with everything it printed, unless it ended with this code.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "{}\nstdout: {}\nstderr: {}", self.line, self.stdout(), self.stderr());
        self
    }

    /// What it printed.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    /// What it complained of.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// What it printed, as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.output.stdout)
            .unwrap_or_else(|e| panic!("{}: {e}: {}", self.line, self.stdout()))
    }
}

impl Place {
    /// The program, to be run in a folder of this place, with the same repository and key.
    pub fn command_in(&self, folder: impl AsRef<Path>, arguments: &[&str]) -> Command {
        let mut command = self.command(arguments);
        command.current_dir(self.path(folder));
        command.env("ESTRATO_REPO", self.path("repo")).env("ESTRATO_KEY_FILE", self.path("key"));
        command
    }

    /// Takes a snapshot of what the folder `source` holds, and expects it to be whole; its JSON document.
    #[track_caller]
    pub fn snapshot(&self, more: &[&str]) -> serde_json::Value {
        let arguments = [&["snapshot", ".", "--json"], more].concat();
        Ran::of(&mut self.command_in("source", &arguments)).expect_code(0).json()
    }

    /// Restores the newest snapshot to a folder of this place, and expects everything to come back; its outcome.
    #[track_caller]
    pub fn restore(&self, target: &str, more: &[&str]) -> serde_json::Value {
        let arguments = [&["restore", "latest", "--target", target, "--json"], more].concat();
        let ran = self.run(&arguments).expect_code(0);
        assert_eq!(ran.stderr(), "", "a warning of {arguments:?}");
        ran.json()["outcome"].clone()
    }

    /// How many snapshots there are.
    #[track_caller]
    pub fn snapshots(&self) -> usize {
        self.run(&["snapshots", "--json"]).expect_code(0).json().as_array().unwrap().len()
    }
}

/// True if this test may do what only root may.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl Place {
    /// Writes a file of this place, with the folders above it.
    pub fn write(&self, name: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// The objects below a folder of the tenant `default`, sorted.
    pub fn objects(&self, folder: &str) -> Vec<PathBuf> {
        files_below(&self.path("repo/tenants/default").join(folder))
    }

    /// Runs the program here, with another key.
    pub fn run_as(&self, key: &str, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments).env("ESTRATO_KEY_FILE", key))
    }
}

/// The files below a folder at any depth, sorted; none if it is not there.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            // A file that a running program has just moved is not there any more.
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(_) => found.push(entry.path()),
                Err(_) => {}
            }
        }
    }
    found.sort();
    found
}

/// Bytes that neither compress nor repeat, the same for the same seed.
pub fn noise(seed: &str, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Changes a file's bytes.
pub fn change(path: &Path, how: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    how(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

/// Waits until a file is old enough for its times to be believed: nothing else makes a change time old.
pub fn grow_old(path: &Path) {
    let changed = std::fs::metadata(path).unwrap().modified().unwrap();
    while changed.elapsed().unwrap_or_default().as_millis() < 120 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// True if the tests that take minutes are to run too.
pub fn is_long() -> bool {
    std::env::var_os("ESTRATO_LONG_TESTS").is_some()
}

/// Says a line even if the test passes: counts that somebody wants to see.
pub fn say(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Numbers that look random, and are the same in every run.
pub struct Draw(pub u64);

impl Draw {
    pub fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}
