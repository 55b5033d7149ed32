//! What a person sees: the help, the usual results, errors with what to do next. And what a program
//! sees: results alone on standard output, one document with `--json`.

use crate::support::{Place, Ran, change, files_below, grow_old, noise};
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

/// Compares with the screen of that name in `tests/it/snapshots`.
macro_rules! screen {
    ($name:expr, $text:expr) => {
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!($name, $text);
        });
    };
}

fn help(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_estrato"));
    let ran = Ran::of(command.args(arguments).arg("--help").env_clear().env("COLUMNS", "100")).expect_code(0);
    assert_eq!(ran.stderr(), "");
    assert!(ran.stdout().lines().all(|l| l.chars().count() <= 100), "{}", ran.stdout());
    ran.stdout()
}

#[test]
fn help_of_the_program() {
    screen!("help", help(&[]));
}

#[test]
fn help_of_each_command() {
    let commands: [&[&str]; 34] = [
        &["init"],
        &["snapshot"],
        &["snapshots"],
        &["ls"],
        &["restore"],
        &["check"],
        &["forget"],
        &["prune"],
        &["copy"],
        &["hold"],
        &["hold", "add"],
        &["hold", "remove"],
        &["hold", "list"],
        &["key"],
        &["key", "add"],
        &["key", "list"],
        &["key", "remove"],
        &["key", "rotate"],
        &["key", "rekey"],
        &["key", "operator"],
        &["key", "operator", "add"],
        &["key", "show"],
        &["tenant"],
        &["tenant", "add"],
        &["tenant", "set"],
        &["tenant", "list"],
        &["tenant", "erase"],
        &["repair"],
        &["repair", "packs"],
        &["store"],
        &["store", "test"],
        &["store", "policy"],
        &["completions"],
        &["backup"],
    ];
    for command in commands {
        if command == ["backup"] {
            assert_eq!(help(command), help(&["snapshot"]));
            continue;
        }
        // The global options are the same everywhere: once is enough to look at.
        let text = help(command);
        let (own, global) = text.split_once("\nGlobal options:\n").unwrap();
        assert!(global.contains("--key-file") && global.contains("--json"));
        screen!(format!("help-{}", command.join("-")), own);
    }
}

/// Words of a screen that differ from run to run, and what stands for them.
struct Words(Vec<(String, String)>);

impl Words {
    fn of(place: &Place) -> Self {
        Self(vec![(place.path("").to_str().unwrap().trim_end_matches('/').to_owned(), "PLACE".into())])
    }

    fn put(&mut self, word: &str, name: &str) {
        self.0.push((word.to_owned(), name.to_owned()));
        if word.len() > 16 && word.bytes().all(|b| b.is_ascii_hexdigit()) {
            self.0.push((word[..8].to_owned(), name[..name.len().min(8)].to_owned()));
        }
    }

    /// The screen with these words, times and durations replaced.
    fn stable(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (word, name) in &self.0 {
            text = text.replace(word, name);
        }
        text.lines().map(|line| steady(line) + "\n").collect()
    }
}

/// A line whose moments are one moment, and whose durations and stored sizes are named.
fn steady(line: &str) -> String {
    let mut out = String::new();
    let bytes = line.as_bytes();
    let shape = |at: usize, shape: &str| {
        bytes.get(at..at + shape.len()).is_some_and(|found| {
            found.iter().zip(shape.bytes()).all(|(b, s)| if s == b'9' { b.is_ascii_digit() } else { *b == s })
        })
    };
    let mut at = 0;
    while at < bytes.len() {
        if shape(at, "9999-99-99 99:99:99") {
            out.push_str("2026-11-21 14:30:00");
            at += 19;
        } else {
            let c = line[at..].chars().next().unwrap();
            out.push(c);
            at += c.len_utf8();
        }
    }
    for (before, after, name) in [(", in ", " s", "0.1"), ("stored in ", "B", "SIZE k")] {
        if let Some((head, tail)) = out.rsplit_once(before)
            && let Some((number, rest)) = tail.split_once(after)
            && number.starts_with(|c: char| c.is_ascii_digit())
        {
            out = format!("{head}{before}{name}{after}{rest}");
        }
    }
    out
}

/// Standard output and standard error, told apart.
fn shown(words: &Words, ran: &Ran) -> String {
    format!(
        "exit {}\n--- stdout\n{}--- stderr\n{}",
        ran.code(),
        words.stable(&ran.stdout()),
        words.stable(&ran.stderr())
    )
}

/// A place with no options in its environment: what a newcomer has.
fn newcomer(place: &Place, arguments: &[&str]) -> Ran {
    let mut command = place.command(arguments);
    command.env_remove("ESTRATO_REPO").env_remove("ESTRATO_KEY_FILE").env("COLUMNS", "100");
    Ran::of(&mut command)
}

/// Files of one piece each: where a larger one is cut depends on the tenant's key.
fn source(place: &Place) {
    place.write("source/export.csv", "id;name\n1;A\n".repeat(300));
    place.write("source/folder/notes.txt", noise("notes", 2_345));
    for (name, mode) in [("export.csv", 0o640), ("folder/notes.txt", 0o600), ("folder", 0o755), ("", 0o755)] {
        let path = place.path("source").join(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

#[test]
fn a_newcomers_first_hour() {
    let place = Place::new();
    source(&place);
    let mut words = Words::of(&place);
    let snapshot = |more: &[&str]| newcomer(&place, &[&["snapshot", "--host", "db1"], more].concat());
    grow_old(&place.path("source/folder/notes.txt"));
    let first = snapshot(&["--init", "source"]).expect_code(0);
    let ids = newcomer(&place, &["snapshots", "--json"]).json();
    words.put(ids[0]["id"].as_str().unwrap(), "11111111");
    screen!("first-snapshot", shown(&words, &first));
    let more = place.write("source/folder/more.txt", "more\n");
    fs::set_permissions(&more, fs::Permissions::from_mode(0o644)).unwrap();
    grow_old(&more);
    let second = snapshot(&["--tag", "nightly", "source"]).expect_code(0);
    let ids = newcomer(&place, &["snapshots", "--json"]).json();
    words.put(ids[1]["id"].as_str().unwrap(), "22222222");
    screen!("second-snapshot", shown(&words, &second));
    screen!("dry-run", shown(&words, &snapshot(&["--dry-run", "source"])));

    // What is stored depends on compression, which may change.
    for id in ids.as_array().unwrap() {
        let stored = id["manifest"]["summary"]["stored_bytes"].as_u64().unwrap();
        words.put(&format!("{:>9}", sized(stored)), &format!("{:>9}", "SIZE"));
        words.put(&format!("  {}  db1", sized(stored)), "  SIZE  db1");
    }
    screen!("snapshots", shown(&words, &newcomer(&place, &["snapshots"])));
    screen!("ls", shown(&words, &newcomer(&place, &["ls", "-R"])));
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    if (uid, gid) == (0, 0) {
        screen!("ls-long", shown(&words, &newcomer(&place, &["ls", "-lR"])));
    }
    screen!("restore", shown(&words, &newcomer(&place, &["restore", "latest", "--target", "out", "--verify"])));
    screen!("restore-again", shown(&words, &newcomer(&place, &["restore", "latest", "--target", "out"])));
    screen!("check", shown(&words, &newcomer(&place, &["check"])));

    // The command that it printed is one that works.
    let printed = second.stdout();
    let line = printed.lines().map(str::trim).find(|l| l.starts_with("estrato ") && l.contains(" restore ")).unwrap();
    let line = line.replacen("estrato", env!("CARGO_BIN_EXE_estrato"), 1).replace("DIR", "printed");
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &line])
        .current_dir(place.path(""))
        .env_clear()
        .env("HOME", place.path(""))
        .env("PATH", "/usr/bin:/bin");
    Ran::of(&mut shell).expect_code(0);
    assert_eq!(fs::read(place.path("printed/source/folder/more.txt")).unwrap(), b"more\n");
}

/// A size as the program prints it.
fn sized(bytes: u64) -> String {
    match bytes {
        0..1000 => format!("{bytes} B"),
        _ if bytes < 99_500 => format!("{:.1} kB", bytes as f64 / 1000.0),
        _ => format!("{:.0} kB", bytes as f64 / 1000.0),
    }
}

#[test]
fn pruning() {
    let place = Place::with_repository();
    for n in 0..3 {
        place.write("source/one", noise(&format!("row {n}"), 3_000));
        place.snapshot(&[]);
    }
    let words = Words::of(&place);
    place.run(&["forget", "--keep-last", "1"]).expect_code(0);
    screen!("prune-dry-run", without_sizes(&shown(&words, &place.run(&["prune", "--dry-run"]))));
    screen!("prune", without_sizes(&shown(&words, &place.run(&["prune"]))));
    screen!("prune-again", without_sizes(&shown(&words, &place.run(&["prune"]))));
}

#[test]
fn init_and_keys() {
    let place = Place::new();
    let mut words = Words::of(&place);
    let init = place.run(&["init", "--new-key-file", "key"]);
    screen!("init", shown(&words, &init));
    let add = place.run(&["key", "add", "--role", "writer", "--label", "db1", "--new-key-file", "writer"]);
    let list = place.run(&["key", "list", "--json"]).json();
    for (key, name) in list.as_array().unwrap().iter().zip(["11111111", "22222222"]) {
        words.put(key["slot"].as_str().unwrap(), name);
    }
    screen!("key-add", shown(&words, &add));
    screen!("key-list", shown(&words, &place.run(&["key", "list"])));
    screen!("key-remove", shown(&words, &place.run(&["key", "remove", "db1"])));
    screen!("key-list-removed", shown(&words, &place.run(&["key", "list"])));
    let show = place.run(&["key", "show"]);
    let text = show.stdout();
    let key = text.lines().next().unwrap();
    assert!(key.starts_with("ESTRATO-KEY-0 ") && key.len() < 90, "one line, to be written down");
    words.put(key, "ESTRATO-KEY-0 …");
    screen!("key-show", shown(&words, &show));
    screen!(
        "tenant-add",
        shown(&words, &place.run(&["tenant", "add", "clinic-1", "--new-key-file", "clinic-1.key"]))
    );
    screen!("tenant-list", shown(&words, &place.run(&["tenant", "list"])));
}

#[test]
fn forgetting() {
    let place = Place::with_repository();
    place.write("source/a", "a");
    let mut words = Words::of(&place);
    let signer = place.run(&["key", "list", "--json"]).json()[0]["signer"].as_str().unwrap().to_owned();
    words.put(&signer, "SIGNER__");
    for (n, time) in ["2026-11-18T09:00Z", "2026-11-19T09:00Z", "2026-11-19T21:00Z"].iter().enumerate() {
        let taken = place.snapshot(&["--host", "db1", "--tag", "nightly", "--time", time]);
        words.put(taken["snapshot"].as_str().unwrap(), &(n + 1).to_string().repeat(8));
    }
    let first = place.run(&["snapshots", "--json"]).json()[0]["id"].as_str().unwrap().to_owned();
    screen!("hold-add", shown(&words, &place.run(&["hold", "add", &first, "--why", "case 17"])));
    screen!("hold-list", shown(&words, &place.run(&["hold", "list"])));
    let policy = ["forget", "--keep-daily", "1", "--keep-tag", "yearly", "--timezone", "UTC"];
    screen!("forget-dry-run", shown(&words, &place.run(&[&policy[..], &["--dry-run"]].concat())));
    screen!("forget", shown(&words, &place.run(&policy)));
    screen!("forget-held", shown(&words, &place.run(&["forget", &first])));
    screen!("hold-remove", shown(&words, &place.run(&["hold", "remove", &first])));
    screen!("forget-named", shown(&words, &place.run(&["forget", &first])));
    let emptied = place.run(&["forget", "--keep-tag", "yearly"]);
    screen!("forget-empty", shown(&words, &emptied));
}

/// Sizes depend on compression, which may change, and on records of random ids: each becomes SIZE, and
/// columns stand two spaces apart.
fn without_sizes(text: &str) -> String {
    let steady = |line: &str| {
        let mut out: Vec<String> = Vec::new();
        for word in line.split(' ') {
            let unit = word.trim_end_matches([',', ';']);
            match out.last_mut() {
                Some(number) if ["B", "kB", "MB"].contains(&unit) && number.parse::<f64>().is_ok() => {
                    *number = word.replace(unit, "SIZE");
                }
                _ => out.push(word.to_owned()),
            }
        }
        let mut line = out.join(" ");
        while line.contains("   ") {
            line = line.replace("   ", "  ");
        }
        line + "\n"
    };
    text.lines().map(steady).collect()
}

#[test]
fn statistics() {
    let place = Place::with_repository();
    let words = Words::of(&place);
    place.run(&["key", "add", "--role", "writer", "--label", "w", "--new-key-file", "w"]).expect_code(0);
    screen!("stats-empty", shown(&words, &place.run(&["stats"])));
    // One file of one piece: where a larger one is cut depends on the tenant's key, and which frame holds
    // the pieces of another on who reads it.
    let mut row = noise("row", 3_000);
    place.write("source/one", &row);
    place.snapshot(&[]);
    screen!("stats-plain", without_sizes(&shown(&words, &place.run(&["stats"]))));
    for n in 0..2 {
        row[1_000 + n] ^= 1;
        place.write("source/one", &row);
        place.snapshot(&[]);
    }
    let stats = place.run(&["stats"]);
    screen!("stats-deltas", without_sizes(&shown(&words, &stats)));
    assert_eq!(place.run_as("w", &["stats"]).expect_code(0).stdout(), stats.stdout(), "it needs no full key");
    let counted = place.run(&["stats", "--json"]).expect_code(0).json();
    let chunks = &counted["frames"][0];
    assert_eq!(chunks["plain"]["plain_bytes"], 3_000);
    assert_eq!((&chunks["delta"]["plain_bytes"], &chunks["bases"]), (&6_000.into(), &2.into()));
    let size: u64 = files_below(&place.path("repo/tenants/default/packs"))
        .iter()
        .map(|pack| fs::metadata(pack).unwrap().len())
        .sum();
    assert_eq!(counted["pack_bytes"], size);
}

#[test]
fn damage() {
    let place = Place::with_repository();
    // One piece, whatever the tenant's key.
    place.write("source/a", noise("a", 3_000));
    let mut words = Words::of(&place);
    words.put(place.snapshot(&[])["snapshot"].as_str().unwrap(), "11111111");
    let packs = place.objects("packs");
    let pack = packs.iter().max_by_key(|p| fs::metadata(p).unwrap().len()).unwrap();
    let name = pack.file_name().unwrap().to_str().unwrap();
    words.put(&format!("/{}/{name}", &name[..2]), "/pp/PACK");
    change(pack, |bytes| bytes[2_000] ^= 1);
    let read = place.run(&["check", "--read-data"]);
    let total: u64 = packs.iter().map(|p| fs::metadata(p).unwrap().len()).sum();
    words.put(&sized(total), "SIZE");
    screen!("check-damage", shown(&words, &read));
    fs::remove_file(pack).unwrap();
    screen!("check-lost", shown(&words, &place.run(&["check"])));
    screen!("restore-lost", lines_without_ids(&shown(&words, &place.run(&["restore", "latest", "--target", "out"]))));
}

/// Long ids in messages differ from run to run.
fn lines_without_ids(text: &str) -> String {
    let (mut out, mut run) = (String::new(), String::new());
    for c in text.chars().chain(['\n']) {
        if c.is_ascii_hexdigit() {
            run.push(c);
            continue;
        }
        out.push_str(if run.len() >= 32 { "ID" } else { &run });
        run.clear();
        out.push(c);
    }
    out.pop();
    out
}

#[test]
fn errors_say_what_to_do_next() {
    let place = Place::new();
    let words = Words::of(&place);
    let mut text = String::new();
    let mut show = |line: &str, ran: Ran| {
        text.push_str(&format!("$ estrato {line}\n{}\n", shown(&words, &ran)));
    };
    let run = |line: &str| place.run(&line.split(' ').collect::<Vec<_>>());
    for line in
        ["snapshots", "restore latest", "snapshot", "snapshot nowhere --init", "frobnicate", "ls --at yesterday"]
    {
        show(line, run(line));
    }
    run("init --new-key-file key").expect_code(0);
    for line in [
        "init --new-key-file key",
        "init --new-key-file other",
        "ls",
        "restore latest --target out",
        "-t nobody ls",
        "-t No! ls",
        "key remove first",
        "key remove nobody",
        "key add",
        "--key-file missing ls",
        "snapshot nowhere",
        "snapshot --stdin",
        "snapshot --name x --command",
        "ls abc",
        "ls latest~x",
    ] {
        show(line, run(line));
    }
    run("key show --new-key-file stranger").expect_code(0);
    show("--key-file stranger ls", run("--key-file stranger ls"));
    run("key add --role writer --new-key-file writer").expect_code(0);
    show("--key-file writer ls", run("--key-file writer ls"));
    screen!("errors", lines_without_ids(&text));
}

/// Every command that ends well, in an order that lets each do so.
fn all_commands(place: &Place) -> Vec<Vec<&'static str>> {
    place.write("source/a", "some text");
    [
        "init --new-key-file key",
        "snapshot source",
        "snapshot source --dry-run",
        "snapshot --name out --command -- echo hello",
        "snapshots",
        "ls latest~1:source",
        "restore latest --target out",
        "restore latest --target out --dry-run",
        "check",
        "check --read-data",
        "hold add latest",
        "hold list",
        "forget --keep-last 9 --dry-run",
        "forget latest~1",
        "key add --role writer --label w --new-key-file writer",
        "key list",
        "key show",
        "key show --recipient",
        "key show --new-key-file third",
        "key remove w",
        "tenant add other",
        "tenant list",
    ]
    .iter()
    .map(|line| line.split(' ').collect())
    .collect()
}

#[test]
fn json_is_one_document_and_nothing_else_is_on_standard_output() {
    let place = Place::new();
    for command in all_commands(&place) {
        let ran = place.run(&[&["--json"], &command[..]].concat()).expect_code(0);
        let text = ran.stdout();
        assert!(text.ends_with('\n') && text.lines().count() == 1, "{command:?}: {text}");
        assert!(
            serde_json::from_str::<Value>(&text).is_ok_and(|v| v.is_object() || v.is_array()),
            "{command:?}: {text}"
        );
        for line in ran.stderr().lines() {
            assert!(serde_json::from_str::<Value>(line).is_ok(), "{command:?} complains in words: {line}");
        }
    }
    for command in [&["restore", "ffff", "--target", "x"][..], &["-t", "nobody", "ls"], &["key", "remove", "nobody"]]
    {
        let ran = place.run(&[&["--json"], command].concat());
        let error = serde_json::from_str::<Value>(&ran.stderr()).unwrap()["error"].clone();
        assert_eq!((ran.stdout(), error["code"].as_i64()), (String::new(), Some(ran.code().into())));
        assert!(!error["message"].as_str().unwrap().is_empty());
    }
}

#[test]
fn a_warning_beside_json_is_json() {
    let place = Place::with_repository();
    place.write("source/a", noise("a", 50_000));
    place.snapshot(&[]);
    let id = place.snapshot(&[])["snapshot"].as_str().unwrap().to_owned();
    change(&place.path("repo/tenants/default/snapshots").join(id), |bytes| bytes.truncate(100));
    for pack in place.objects("packs").iter().filter(|p| fs::metadata(p).unwrap().len() > 40_000) {
        fs::remove_file(pack).unwrap();
    }
    for (command, code) in [(&["snapshots"][..], 4), (&["ls"], 0), (&["restore", "latest", "--target", "out"], 1)] {
        let ran = place.run(&[&["--json"], command].concat()).expect_code(code);
        assert!(!ran.stderr().is_empty());
        for line in ran.stderr().lines() {
            assert!(serde_json::from_str::<Value>(line).is_ok(), "{command:?} complains in words: {line}");
        }
    }
}

#[test]
fn results_are_on_standard_output_and_quiet_is_quiet() {
    let place = Place::new();
    for command in all_commands(&place) {
        let ran = place.run(&[&["-q"], &command[..]].concat()).expect_code(0);
        assert_eq!(ran.stderr(), "", "{command:?}");
        // What was asked for is shown; that it was done is not.
        let asks = ["snapshots", "ls", "list", "show"].iter().any(|word| command.contains(word));
        assert_eq!(!ran.stdout().is_empty(), asks, "{command:?}: {}", ran.stdout());
    }
    let ran = place.run(&["-q", "restore", "ffff", "--target", "x"]).expect_code(1);
    assert!(!ran.stderr().is_empty(), "errors are told all the same");
    assert!(files_below(&place.path("x")).is_empty());
}

#[test]
fn no_name_can_move_a_terminals_cursor() {
    let place = Place::with_repository();
    let evil = b"a\x1b[2J\rb\n\x07\xe2\x80\xaec\xff\xc2\x9b".as_slice();
    place.write("source/x", "x");
    fs::create_dir_all(place.path("source").join(OsStr::from_bytes(evil))).unwrap();
    fs::write(place.path("source").join(OsStr::from_bytes(evil)).join("inner"), noise("x", 40_000)).unwrap();
    std::os::unix::fs::symlink(OsStr::from_bytes(evil), place.path("source/link")).unwrap();
    let text = "h\u{1b}[31m\u{202e}";
    let named = ["--host", text, "--tag", text];
    let mut shown = Vec::new();
    let mut run = |arguments: &[&OsStr]| {
        let mut command = place.command(&[]);
        let ran = Ran::of(command.args(arguments));
        shown.push((format!("{arguments:?}"), ran.stdout(), ran.stderr()));
        ran
    };
    let os = |words: &[&'static str]| words.iter().map(|word| OsStr::new(*word)).collect::<Vec<&'static OsStr>>();
    let path = place.path("source").join(OsStr::from_bytes(evil));
    let mut snapshot = os(&["snapshot", "source"]);
    snapshot.push(path.as_os_str());
    snapshot.extend(named.iter().map(OsStr::new));
    run(&snapshot).expect_code(0);
    run(&os(&["snapshots"])).expect_code(0);
    run(&os(&["ls", "-lR"])).expect_code(0);
    run(&os(&["ls", "-R"])).expect_code(0);
    let target = place.path("out").join(OsStr::from_bytes(evil));
    run(&[OsStr::new("restore"), OsStr::new("latest"), OsStr::new("--target"), target.as_os_str()]).expect_code(0);
    run(&[OsStr::new("snapshot"), OsStr::from_bytes(b"no\x1b[2Jwhere")]).expect_code(1);
    run(&os(&["key", "add", "--label", "k\u{1b}]0;title\u{7}", "--new-password"]));
    run(&os(&["key", "list"])).expect_code(0);
    run(&os(&["key", "remove", "k\u{1b}[2J"])).expect_code(1);
    run(&os(&["-t", "\u{1b}[2J", "ls"])).expect_code(2);
    run(&os(&["--repo", "re\u{1b}[2Jpo", "snapshots"])).expect_code(10);
    run(&os(&["--repo", "re\u{1b}[2Jpo", "init"])).expect_code(0);
    run(&os(&["ls", "\u{1b}[2J"])).expect_code(2);
    run(&os(&["frobnicate\u{1b}[2J"])).expect_code(2);
    // The store's own names are no better.
    place.write("repo/tenants/default/index/litter\u{202e}", "x");
    place.write("repo/tenants/evil\u{202e}/tenant", "x");
    run(&os(&["ls"]));
    run(&os(&["tenant", "list"])).expect_code(0);
    for pack in place.objects("packs").iter().filter(|p| fs::metadata(p).unwrap().len() > 30_000) {
        fs::remove_file(pack).unwrap();
    }
    run(&os(&["check"])).expect_code(4);
    run(&os(&["restore", "latest", "--target", "again"])).expect_code(1);
    for (command, stdout, stderr) in shown {
        for text in [stdout, stderr] {
            let bad = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
            assert!(!text.contains(bad), "{command}: {text:?}");
            assert!(!text.contains("b\n"), "a name has broken a line: {command}: {text:?}");
        }
    }
}

#[test]
fn names_are_escaped_in_a_way_that_tells_them_apart() {
    let place = Place::with_repository();
    for name in [&b"plain \xc3\xa9"[..], b"back\\slash", b"tab\there", b"\xff"] {
        place.write("source/x", "");
        fs::write(place.path("source").join(OsStr::from_bytes(name)), "").unwrap();
    }
    place.snapshot(&[]);
    let listed = place.run(&["ls"]).expect_code(0).stdout();
    assert_eq!(listed, "back\\\\slash\nplain é\ntab\\there\nx\n\\xff\n");
}

#[test]
fn policies_of_each_kind_of_store() {
    let place = Place::new();
    for (name, location, more) in [
        ("policy-s3", "s3://backups/of us", &[][..]),
        ("policy-s3-writer", "s3://backups?region=cn-north-1", &["--role", "writer"]),
        ("policy-gcs", "gs://backups/ours", &["--role", "writer"]),
        ("policy-azure", "az://backups/ours?account=clinic", &["--role", "writer"]),
        ("policy-folder", "/srv/backups", &[]),
    ] {
        let arguments = [&["store", "policy", location, "-t", "clinic"], more].concat();
        let ran = place.run(&arguments).expect_code(0);
        let alone = more.contains(&"--role");
        assert_eq!(alone, serde_json::from_str::<Value>(&ran.stdout()).is_ok(), "alone it is a document");
        screen!(name, ran.stdout() + &ran.stderr());
        let json = place.run(&[&arguments[..], &["--json"]].concat()).expect_code(0).json();
        let policies = json["policies"].as_array().unwrap();
        assert_eq!((json["tenant"].as_str(), policies.len()), (Some("clinic"), if alone { 1 } else { 3 }));
        assert!(policies.iter().all(|policy| policy["role"].is_string() && !policy["policy"].is_null()));
    }
    let sftp = place.run(&["store", "policy", "sftp://me@host/a", "--role", "reader"]).expect_code(0);
    assert!(sftp.stdout().contains("internal-sftp -R"), "{}", sftp.stdout());
    place.run(&["store", "policy", "ftp://host/a"]).expect_code(2);
    place.run(&["store", "policy", "s3://b", "-t", "No"]).expect_code(2);
}
