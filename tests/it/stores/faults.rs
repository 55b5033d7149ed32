//! A fault at every call that a command makes of S3: the answer is lost, the upload or the answer is cut
//! off, the store is busy, or the process is killed before or after the call is done. Then the command is
//! run again and succeeds, nothing is damaged, and what was reported restores.

use super::assert_hides_secrets;
use super::double::Fate;
use super::far::Far;
use crate::support::{is_long, noise, say};
use rustix::process::{Pid, Signal, kill_process};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    LoseAnswer,
    CutUpload,
    CutAnswer,
    Busy,
    KillBefore,
    KillAfter,
    /// From this call on, credentials are no longer good.
    Expired,
    /// From this call on, nothing more can be stored.
    Full,
}

const FAULTS: [Fault; 6] =
    [Fault::LoseAnswer, Fault::CutUpload, Fault::CutAnswer, Fault::Busy, Fault::KillBefore, Fault::KillAfter];

/// Those that last until somebody does something about them.
const LASTING: [Fault; 2] = [Fault::Expired, Fault::Full];

const ACTS: [&[&str]; 8] = [
    &["init"],
    &["snapshot", "source"],
    &["snapshots"],
    &["ls", "latest"],
    &["restore", "latest", "--target", "target"],
    &["check", "--read-data"],
    &["key", "add", "--new-key-file", "key 2"],
    &["tenant", "add", "another"],
];

/// What a command finds: `init` nothing but a key, all others a snapshot, and a source that changed since.
fn before(act: &[&str]) -> Far {
    let far = Far::new();
    if act[0] == "init" {
        let empty = Far::empty();
        std::fs::copy(far.place.path("key"), empty.place.path("key")).unwrap();
        return empty;
    }
    for n in 0..6 {
        far.place.write(format!("source/{}/{n}", n % 2), noise(&n.to_string(), 30_000));
    }
    far.run(&["snapshot", "source"]).expect_code(0);
    far.place.write("source/0/0", noise("changed", 30_000));
    far
}

/// Runs a command to which something happens at its `number`th call; its exit code, -1 if it was killed.
fn struck(far: &Far, act: &[&str], number: usize, fault: Fault) -> i32 {
    let pid = Arc::new(AtomicI32::new(0));
    far.double.decide({
        let pid = Arc::clone(&pid);
        move |asked| {
            let kill = || {
                while pid.load(Ordering::SeqCst) == 0 {
                    std::thread::yield_now();
                }
                let _ = kill_process(Pid::from_raw(pid.load(Ordering::SeqCst)).unwrap(), Signal::KILL);
            };
            let refused = |status, code| Fate::Refuse(status, "", format!("<Error><Code>{code}</Code></Error>"));
            match fault {
                Fault::Expired if asked.number >= number => refused(400, "ExpiredToken"),
                Fault::Full if asked.number >= number && asked.method == "PUT" => refused(507, "QuotaExceeded"),
                _ if asked.number != number => Fate::Done,
                Fault::LoseAnswer => Fate::LoseAnswer,
                Fault::CutUpload => Fate::CutUpload(100),
                Fault::CutAnswer => Fate::CutAnswer(10),
                Fault::Busy => refused(503, "SlowDown"),
                Fault::Expired | Fault::Full => Fate::Done,
                Fault::KillBefore => {
                    kill();
                    Fate::Silence
                }
                Fault::KillAfter => {
                    kill();
                    Fate::LoseAnswer
                }
            }
        }
    });
    let mut command = far.command(act);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    pid.store(child.id() as i32, Ordering::SeqCst);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("panicked"), "{act:?}, call {number}, {fault:?}: {said}");
    assert_hides_secrets(&said);
    output.status.code().unwrap_or(-1)
}

/// One point; true if the command succeeded.
fn try_point(base: &Far, act: &[&str], number: usize, fault: Fault) -> bool {
    let label = format!("{act:?}, call {number}, {fault:?}");
    let far = base.copied();
    let code = struck(&far, act, number, fault);
    let is_killed = matches!(fault, Fault::KillBefore | Fault::KillAfter);
    let ends = code == 0 || is_killed && code == -1 || LASTING.contains(&fault) && code == 1;
    assert!(ends, "{label}: it ended with {code}");
    far.double.decide(|_| Fate::Done);
    let _ = std::fs::remove_file(far.place.path("key 2"));
    let _ = std::fs::remove_dir_all(far.place.path("target"));
    let again = far.run(act);
    let is_there = again.stderr().contains("exist");
    assert!(again.code() == 0 || again.code() == 1 && is_there, "{label}, again: {}", again.stderr());
    far.run(&["check", "--read-data"]).expect_code(0);
    let taken = far.run(&["snapshots", "--json"]).expect_code(0).json().as_array().unwrap().len();
    let expected = match act[0] {
        "init" => 0..=0,
        // Again is one more; and one that was killed may have been taken.
        "snapshot" if code == 0 => 3..=3,
        "snapshot" => 2..=3,
        _ => 1..=1,
    };
    assert!(expected.contains(&taken), "{label}: {taken} snapshots");
    if act[0] == "snapshot" {
        far.run(&["restore", "latest", "--target", "back"]).expect_code(0);
        for n in 0..6 {
            let name = format!("source/{}/{n}", n % 2);
            let back = std::fs::read(far.place.path(format!("back/{name}"))).unwrap();
            assert_eq!(back, std::fs::read(far.place.path(&name)).unwrap(), "{label}");
        }
    }
    code == 0
}

/// A minute with `--long`, else two seconds.
#[test]
fn a_store_that_is_busy_for_a_minute_and_then_slow_costs_time_and_nothing_else() {
    let far = before(&["snapshot"]);
    let busy = Duration::from_secs(if is_long() { 60 } else { 2 });
    let began = Instant::now();
    far.double.decide(move |asked| match asked.number > 3 && began.elapsed() < busy {
        true => Fate::Refuse(503, "", "<Error><Code>SlowDown</Code></Error>".into()),
        false => Fate::Done,
    });
    far.run(&["snapshot", "source"]).expect_code(0);
    assert!(began.elapsed() >= busy);
    far.double.decide(|asked| match asked.method == "GET" {
        true => Fate::Trickle(5_000, Duration::from_millis(40)),
        false => Fate::Done,
    });
    far.run(&["--no-cache", "restore", "latest", "--target", "back"]).expect_code(0);
    assert_eq!(std::fs::read(far.place.path("back/source/0/0")).unwrap(), noise("changed", 30_000));
    far.double.decide(|_| Fate::Done);
    assert_eq!(far.run(&["snapshots", "--json"]).expect_code(0).json().as_array().unwrap().len(), 2);
}

#[test]
fn refusals_that_last_from_any_call_on() {
    let mut tried = 0;
    for act in [ACTS[1], ACTS[6]] {
        let base = before(act);
        for number in 1..=base.copied().calls(act).len() {
            for fault in LASTING {
                try_point(&base, act, number, fault);
                tried += 1;
            }
        }
    }
    say(&format!("refusals that last: {tried} points tried"));
}

#[test]
fn every_call_of_every_command() {
    let mut points = Vec::new();
    let bases: Vec<Far> = ACTS.iter().map(|act| before(act)).collect();
    for (at, act) in ACTS.iter().enumerate() {
        let calls = bases[at].copied().calls(act).len();
        assert!(calls > 1, "{act:?} asks the store for something");
        // Most of what `init` asks is the probe.
        let step = if act[0] == "init" && !is_long() { 4 } else { 1 };
        for number in (1..=calls).rev().step_by(step) {
            points.extend(FAULTS.map(|fault| (at, number, fault)));
        }
        say(&format!("  {act:?}: {calls} calls"));
    }
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while let Some((at, number, fault)) = points.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let is_done = try_point(&bases[*at], ACTS[*at], *number, *fault);
                    done.fetch_add(usize::from(is_done), Ordering::SeqCst);
                }
            });
        }
    });
    let done = done.into_inner();
    say(&format!("faults on S3: {} points tried, {done} commands succeeded all the same", points.len()));
}
