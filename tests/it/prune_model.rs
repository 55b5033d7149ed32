//! The protocol of sessions, forget and prune, in a model of which every state is visited.
//!
//! Modelled: writers that announce a session, read plans, index, parent and packs, store plain blobs or deltas
//! in one pack or several, publish and commit; forgets of any snapshot at any moment; prunes that condemn much
//! or little, repack, fence, copy, replace the index and delete, or take up another's plan; answers that are
//! lost; index objects that get lost; condemned packs that are left there when the plan is done. Each request to the store is one step, and anybody may pause before any
//! step, for ever: that is a crash, a sleeper, and a writer that wakes after it was fenced. Whoever begins
//! again after a crash is another writer, or another prune.
//!
//! Not modelled: listings in pages, a list and then a read that fails (readers begin again), a request that
//! arrives after its sender has sent it again and was answered, merges of index objects, depth bounds, keys,
//! clocks (a fence may come at any time), who signed what, trees (a snapshot is a set of blobs).
//!
//! What must hold in each state: every snapshot that is there decodes, from packs that are there and that the
//! index names; and a commit that its writer was told of is there until it is forgotten. Each rule of the
//! protocol (`rules.rs`) has a setup in which breaking it alone is caught.
//!
//! Few states: sets are bit masks, every object has a place known beforehand, who is finished remembers
//! nothing, what a step no longer needs is forgotten at once, and those that may do the same begin in order.

mod forget;
mod model;
mod prune;
mod rules;
mod state;
mod writer;

use crate::support::{is_long, say};
use model::{DECODES, Extent, FENCED, FREED, Protocol, STANDS, Setup};
use rules::{RULES, Rule};
use state::{delta, plain};
use stateright::{Checker, HasDiscoveries, Model};

const A: u8 = 1;
const B: u8 = 2;
const C: u8 = 4;
const D: u8 = 8;

/// Two writers that want what is dead, and a prune. A is alive; B is not, and C rests on B.
fn small() -> Setup {
    Setup {
        writers: vec![vec![B, C], vec![B]],
        prunes: 1,
        forgets: 0,
        answers: 0,
        losses: 0,
        parents: false,
        deltas: false,
        several: false,
        leaves: false,
        extents: &[Extent::Dead, Extent::All],
        packs: [plain(B), plain(A) | delta(C, 1), 0],
        objects: [0b11, 0],
        snapshots: [A, 0],
    }
}

fn one_writer() -> Setup {
    Setup { writers: vec![vec![B, C]], ..small() }
}

/// With all that may happen, once.
fn all_of(setup: Setup) -> Setup {
    Setup { deltas: true, parents: true, forgets: 1, answers: 1, ..setup }
}

/// Two plain copies, and beside them two deltas that rest on each other.
fn circle() -> Setup {
    let packs = [plain(B | C), plain(A) | delta(C, 1), plain(D) | delta(B, 2)];
    Setup { packs, objects: [0b111, 0], snapshots: [A | D, 0], deltas: true, ..one_writer() }
}

/// Nothing is dead, but what writers begin and do not finish; one of them stores two packs.
fn several() -> Setup {
    Setup { several: true, writers: vec![vec![B | C], vec![C]], ..new() }
}

fn new() -> Setup {
    let extents = &[Extent::Dead];
    Setup { writers: vec![vec![C], vec![C]], packs: [plain(A), 0, 0], objects: [1, 0], extents, ..small() }
}

/// Nothing is alive.
fn dead() -> Setup {
    Setup { packs: [plain(C), 0, 0], objects: [1, 0], snapshots: [0, 0], ..new() }
}

/// A setup in which it is caught if these rules are broken.
fn caught_by(rule: Rule) -> Setup {
    match rule {
        Rule::ParentAfterPlans | Rule::ParentIfSeen => {
            Setup { writers: vec![vec![C], vec![C]], forgets: 1, parents: true, ..dead() }
        }
        Rule::PacksAfterPlans | Rule::CountsIfListed | Rule::SweepIndexBeforePacks | Rule::EmptiedLast => several(),
        Rule::CountsWithoutCircle => circle(),
        Rule::RemainsWithoutCircle => Setup { snapshots: [A | B | C | D, 0], ..circle() },
        Rule::PackNameOnce => Setup { prunes: 2, answers: 1, ..new() },
        Rule::CommitReadBack | Rule::TombstoneWhileSession | Rule::SessionStaysUntilTombstone => all_of(one_writer()),
        Rule::ForgetReadsAgain => Setup { forgets: 2, answers: 1, ..one_writer() },
        Rule::NumberFirst | Rule::RefusedStops | Rule::PlansStay => Setup { prunes: 2, ..one_writer() },
        Rule::PlanStopsAtDamage | Rule::SweepStopsAtDamage => Setup { losses: 1, ..one_writer() },
        Rule::LeftCountsForNobody => Setup { prunes: 2, leaves: true, ..new() },
        Rule::NeverSpares => Setup { prunes: 2, forgets: 1, ..dead() },
        _ => one_writer(),
    }
}

/// What was found: the states visited, and for each thing that was found the steps that lead to it.
struct Found {
    states: usize,
    paths: Vec<(&'static str, Vec<String>)>,
}

impl Found {
    fn steps(&self, name: &str) -> Option<&[String]> {
        self.paths.iter().find(|(found, _)| *found == name).map(|(_, steps)| &steps[..])
    }

    fn broken(&self) -> Option<&[String]> {
        self.steps(DECODES).or_else(|| self.steps(STANDS))
    }
}

/// Visits every state, or those until the first that is wrong.
fn explore(setup: Setup, without: &'static [Rule]) -> Found {
    let protocol = Protocol::new(setup, without);
    let checker = protocol.clone().checker().finish_when(HasDiscoveries::AnyFailures).spawn_dfs().join();
    let words = |path: stateright::Path<_, _>| {
        path.into_vec().iter().filter_map(|(state, step)| Some(protocol.describe(state, (*step)?))).collect()
    };
    let paths = checker.discoveries().into_iter().map(|(name, path)| (name, words(path))).collect();
    Found { states: checker.unique_state_count(), paths }
}

/// Visits every state, under all rules; space is freed somewhere, and a writer fenced.
#[track_caller]
fn holds(name: &str, setup: Setup) {
    let (is_fenced, frees) = (!setup.writers.is_empty(), setup.packs[0] != plain(A));
    let found = explore(setup, &[]);
    if let Some(steps) = found.broken() {
        panic!("{name}: lost after\n{}", steps.join("\n"));
    }
    assert_eq!(found.steps(FENCED).is_some(), is_fenced, "{name}: a fence");
    assert_eq!(found.steps(FREED).is_some(), frees, "{name}: space");
    say(&format!("prune_model: {name}: {} states", found.states));
}

#[test]
fn every_snapshot_decodes_in_every_state() {
    holds("two writers and a prune", small());
    holds("two writers and a prune, with deltas and parents", Setup { deltas: true, parents: true, ..small() });
    holds("two writers with several packs, and a prune", several());
    holds("a writer, a forget and a prune, and a lost answer", all_of(one_writer()));
    holds("a writer, two forgets and a prune, and a lost answer", Setup { forgets: 2, answers: 1, ..one_writer() });
    holds("a writer and two prunes", Setup { prunes: 2, ..one_writer() });
    holds(
        "a writer and two prunes that leave what they condemned",
        Setup { leaves: true, prunes: 2, ..one_writer() },
    );
    holds("circles", circle());
    holds("circles that are alive", Setup { snapshots: [A | B | C | D, 0], ..circle() });
    holds("a lost index object", Setup { losses: 1, ..one_writer() });
}

#[test]
fn every_rule_is_needed() {
    for rule in RULES {
        let found = explore(caught_by(rule), rule.alone());
        let steps = found.broken().unwrap_or_else(|| panic!("{rule:?} may be broken: nothing is lost"));
        say(&format!("prune_model: without {rule:?}: lost after {} steps, {} states", steps.len(), found.states));
    }
}

/// What a plan is made from is listed in an order, and what does not decode stops the prune: of these two,
/// either alone saves what was committed meanwhile.
#[test]
fn either_the_order_of_lists_or_the_stop_saves_new_snapshots() {
    let both = &[Rule::PlanSnapshotsBeforeIndex, Rule::PlanStopsAtDamage];
    assert!(explore(new(), both).broken().is_some());
    assert!(explore(new(), &both[..1]).broken().is_none());
    assert!(explore(new(), &both[1..]).broken().is_none());
}

/// With nobody else there, one prune frees all that is dead: no path of it ends before that.
#[test]
fn alone_a_prune_frees_its_space_in_one_run() {
    let alone = Setup { writers: Vec::new(), extents: &[Extent::Wasted, Extent::All], ..small() };
    let protocol = Protocol::new(alone, &[]);
    let checker = protocol.checker().spawn_dfs().join();
    let mut ends = 0;
    assert!(checker.discovery(DECODES).is_none());
    checker.assert_any_discovery(FREED);
    let mut waiting = checker.model().init_states();
    while let Some(state) = waiting.pop() {
        let next = checker.model().next_states(&state);
        if next.is_empty() {
            ends += 1;
            assert_eq!(state.hold(state.there), A, "what is dead remains: {state:?}");
        }
        waiting.extend(next);
    }
    assert!(ends > 0);
}

/// Millions of states each: minutes. `ESTRATO_LONG_TESTS` asks for them.
#[test]
fn more_of_everything() {
    if !is_long() {
        return;
    }
    let tiny = Setup { packs: [plain(C), plain(A), 0], objects: [0b11, 0], ..new() };
    holds("two writers, a forget and a prune, and a lost answer", all_of(small()));
    holds("a writer, a forget and two prunes, and a lost answer", Setup { prunes: 2, ..all_of(one_writer()) });
    holds("a writer, two prunes and a lost index object", Setup { prunes: 2, losses: 1, ..one_writer() });
    holds("two writers, two prunes and a lost answer", Setup { prunes: 2, answers: 1, ..new() });
    holds("two writers with several packs, and two prunes", Setup { prunes: 2, ..several() });
    holds("two writers, a forget and two prunes", Setup { prunes: 2, forgets: 1, ..tiny.clone() });
    holds("two writers and two prunes that condemn all", Setup { prunes: 2, extents: &[Extent::All], ..small() });
    holds("two writers and two prunes that leave it", Setup { prunes: 2, leaves: true, ..new() });
    holds("a writer and three prunes that leave it", Setup { prunes: 3, leaves: true, ..one_writer() });
    holds("a writer and three prunes", Setup { prunes: 3, ..one_writer() });
}
