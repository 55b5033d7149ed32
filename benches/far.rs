//! The program on a store that is far: what it takes when every call takes 50 ms longer, beside the same
//! without, and how many calls there are. The store is the tests' own double of S3, in this process.
//!
//! `ESTRATO_BENCH_SOURCE` names the folder that is stored (one day's exports, say); without it, 200 MB
//! of tables. Near and far take turns, each in a place that is empty; what is printed are medians.

mod data;
#[allow(dead_code, reason = "the tests ask it for more")]
#[path = "../tests/it/stores/double.rs"]
mod double;

use double::{Dialect, Double, Fate};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const DELAY: Duration = Duration::from_millis(50);
const ROUNDS: usize = 5;
const TABLES: u64 = 13;
const TABLE: usize = 15_000_000;

/// What is stored: a folder that is named, or tables below `place`.
fn source(place: &Path) -> PathBuf {
    if let Some(named) = std::env::var_os("ESTRATO_BENCH_SOURCE") {
        return named.into();
    }
    let folder = place.join("source");
    std::fs::create_dir(&folder).unwrap();
    for n in 0..TABLES {
        std::fs::write(folder.join(format!("{n}.csv")), data::table(n, TABLE)).unwrap();
    }
    folder
}

/// Runs one step; seconds and calls.
fn step(double: &Double, home: &Path, delay: Duration, arguments: &[&str]) -> (f64, usize) {
    double.decide(move |_| if delay.is_zero() { Fate::Done } else { Fate::Late(delay) });
    let mut command = Command::new(env!("CARGO_BIN_EXE_estrato"));
    command.args(arguments).env_clear().env("HOME", home).current_dir(home);
    command.env("ESTRATO_REPO", format!("s3://bucket/r?endpoint={}", double.endpoint()));
    command.env("AWS_ACCESS_KEY_ID", "a").env("AWS_SECRET_ACCESS_KEY", "b").env("AWS_REGION", "eu-west-1");
    let began = Instant::now();
    let status = command.stdout(Stdio::null()).status().unwrap();
    let seconds = began.elapsed().as_secs_f64();
    assert!(status.success(), "{arguments:?}");
    (seconds, double.asked().len())
}

fn main() {
    // Cargo's own arguments, such as `--bench`, mean nothing here.
    let place = tempfile::tempdir().unwrap();
    let source = source(place.path());
    let source = source.to_string_lossy();
    let steps: [(&str, &[&str]); 6] = [
        ("init", &["init"]),
        ("first backup", &["snapshot", &source]),
        ("unchanged", &["snapshot", &source]),
        ("snapshots", &["snapshots"]),
        ("ls", &["ls", "latest"]),
        ("restore", &["restore", "latest", "--target", "target"]),
    ];
    let mut near = vec![Vec::new(); steps.len()];
    let mut far = near.clone();
    let mut calls = vec![0; steps.len()];
    for _ in 0..ROUNDS {
        for (delay, rows) in [(Duration::ZERO, &mut near), (DELAY, &mut far)] {
            // Gone before the next one begins: both find as much memory and disk.
            let home = tempfile::tempdir_in(place.path()).unwrap();
            let double = Double::new(Dialect::S3);
            double.pages_of(1000);
            for ((row, calls), (_, arguments)) in rows.iter_mut().zip(&mut calls).zip(&steps) {
                let (seconds, asked) = step(&double, home.path(), delay, arguments);
                row.push(seconds);
                *calls = asked;
            }
        }
    }
    println!("{:<14}{:>10}{:>12}{:>8}{:>8}", "", "0 ms", "50 ms", "ratio", "calls");
    for (((name, _), calls), (near, far)) in steps.iter().zip(calls).zip(near.iter_mut().zip(&mut far)) {
        let (near, far) = (median(near), median(far));
        println!("{name:<14}{near:>8.2} s{far:>10.2} s{:>8.2}{calls:>8}", far / near);
    }
}

fn median(seconds: &mut [f64]) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}
