//! Kind of object × damage × command: what happens to whom, in every combination. The expected matrix
//! stands in `expected`; no cell may be silent, restore wrong bytes, or lose what the damage does not
//! touch. What a check tells of a damaged object is in `told`.

mod cell;
mod damage;
mod expected;
mod prepared;
mod repaired;
mod told;

use cell::{COMMANDS, Outcome, Row};
use damage::{Damage, Kind};
use expected::{EXPECTED, WITHOUT_KEY, bit_without_key};
use prepared::Prepared;
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

type Outcomes = [Result<Outcome, String>; 8];

/// What came of each row, on as many threads as there are cores.
fn run(p: &Prepared, rows: &[(Kind, Damage)]) -> Vec<Outcomes> {
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some((kind, damage)) = rows.get(at) else { break };
                    let outcomes = Row::new(p, at, *kind, *damage).outcomes();
                    found.lock().unwrap().push((at, outcomes));
                }
            });
        }
    });
    let mut found = found.into_inner().unwrap();
    found.sort_by_key(|(at, _)| *at);
    found.into_iter().map(|(_, outcomes)| outcomes).collect()
}

/// All damages of a row; but of changed bits that come out alike the first two, unless there is time.
fn chosen(damages: &[Damage]) -> impl Iterator<Item = Damage> {
    let all = std::env::var_os("ESTRATO_LONG_TESTS").is_some();
    let mut bits = 0;
    damages.iter().copied().filter(move |damage| {
        bits += usize::from(matches!(damage, Damage::Bit(_) | Damage::Rehashed(_)));
        all || bits <= 2 || !matches!(damage, Damage::Bit(_) | Damage::Rehashed(_))
    })
}

#[test]
fn every_damage_has_its_outcome_in_every_command() {
    let p = Prepared::new();
    let expected: Vec<(Kind, Damage, &[Outcome; 8])> = EXPECTED
        .iter()
        .flat_map(|(kind, damages, outcomes)| chosen(damages).map(move |damage| (*kind, damage, outcomes)))
        .collect();
    let rows: Vec<(Kind, Damage)> = expected.iter().map(|(kind, damage, _)| (*kind, *damage)).collect();
    let mut wrong = Vec::new();
    for ((kind, damage, expected), found) in expected.iter().zip(run(&p, &rows)) {
        for ((command, expected), found) in COMMANDS.iter().zip(*expected).zip(found) {
            if found.as_ref() != Ok(expected) {
                wrong.push(format!("{kind:?} × {damage:?} × {command}: {expected:?} was expected: {found:?}"));
            }
        }
    }
    println!("{}", table());
    assert!(wrong.is_empty(), "{} cells:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn without_a_key_a_check_finds_what_hashes_and_names_can_show() {
    let p = Prepared::new();
    let mut wrong = Vec::new();
    for (n, (kind, damage)) in
        Kind::ALL.iter().flat_map(|kind| kind.damages(&p).into_iter().map(|d| (*kind, d))).enumerate()
    {
        let expected = match damage {
            Damage::Bit(_) | Damage::Rehashed(_) => bit_without_key(kind, damage),
            _ => {
                let mut rows = WITHOUT_KEY.iter().filter(|row| row.0.contains(&kind) && row.1.contains(&damage));
                let row = rows.next().unwrap_or_else(|| panic!("{kind:?} × {damage:?} has no row"));
                assert!(rows.next().is_none(), "{kind:?} × {damage:?} has two rows");
                row.2
            }
        };
        let found = Row::new(&p, n, kind, damage).keyless();
        if found != Ok(expected) {
            wrong.push(format!("{kind:?} × {damage:?}: {expected:?} was expected: {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} cells:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_matrix_leaves_no_damage_out() {
    let p = Prepared::new();
    let title = |kind: Kind, damage: Damage| format!("{}: {}", kind.title(), damage.title());
    let expected: Vec<String> =
        EXPECTED.iter().flat_map(|(kind, damages, _)| damages.iter().map(|d| title(*kind, *d))).collect();
    let all: BTreeSet<String> =
        Kind::ALL.iter().flat_map(|kind| kind.damages(&p).into_iter().map(|d| title(*kind, d))).collect();
    assert_eq!(expected.len(), all.len(), "a row stands twice");
    assert_eq!(expected.into_iter().collect::<BTreeSet<_>>(), all);
}

/// The matrix, as ARCHITECTURE.md shows it: what comes out alike is one row.
fn table() -> String {
    let mut text = format!("| object | damage | {} |\n|---|---|{}\n", COMMANDS.join(" | "), "---|".repeat(8));
    for alike in EXPECTED.chunk_by(|a, b| (a.0, a.2) == (b.0, b.2)) {
        let Some((kind, _, outcomes)) = alike.first() else { continue };
        let damages: Vec<Damage> = alike.iter().flat_map(|(_, damages, _)| damages.iter().copied()).collect();
        let (mut words, mut bits, mut mended) = (Vec::new(), Vec::new(), Vec::new());
        for damage in damages {
            match damage {
                Damage::Bit(region) => bits.push(region),
                Damage::Rehashed(region) => mended.push(region),
                other => words.push(other.title()),
            }
        }
        words.extend((!bits.is_empty()).then(|| format!("a bit of {}", bits.join(", "))));
        words.extend((!mended.is_empty()).then(|| format!("the same with its hash mended: {}", mended.join(", "))));
        let outcomes: Vec<String> = outcomes.iter().map(Outcome::to_string).collect();
        text += &format!("| {} | {} | {} |\n", kind.title(), words.join("; "), outcomes.join(" | "));
    }
    text
}
