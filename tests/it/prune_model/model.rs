//! The whole: who may take the next step, where it leads, and what must hold.

use super::rules::Rule;
use super::state::{
    Content, FIRST_OBJECTS, FIRST_PACKS, FIRST_SNAPSHOTS, FORGETS, Forget, MANIFEST, OBJECTS, PACKS, PRUNES, Plan,
    PlanStage, Prune, SNAPSHOTS, Snapshot, State, WRITERS, Writer,
};
use super::{forget, prune, writer};
use stateright::{Model, Property};

/// How much a prune condemns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Packs without which everything decodes.
    Dead,
    /// Packs that hold anything that nothing needs.
    Wasted,
    /// Every pack.
    All,
}

/// Who is there, and what the repository holds at the start.
#[derive(Clone, Debug)]
pub struct Setup {
    /// For each writer, what its snapshot may be of.
    pub writers: Vec<Vec<u8>>,
    pub prunes: usize,
    pub forgets: usize,
    /// Answers that are lost.
    pub answers: u8,
    /// Writers may choose a parent and take its trees unread.
    pub parents: bool,
    /// Writers and prunes may store deltas.
    pub deltas: bool,
    /// A writer puts each blob into a pack of its own; of such packs no answer is lost.
    pub several: bool,
    /// Index objects that get lost: then it is enough that packs hold what is needed, for a repair to find.
    pub losses: u8,
    /// A prune may leave there what it condemned, and what an earlier one left.
    pub leaves: bool,
    pub extents: &'static [Extent],
    pub packs: [Content; FIRST_PACKS],
    pub objects: [u16; FIRST_OBJECTS],
    pub snapshots: [u8; FIRST_SNAPSHOTS],
}

/// A setup under all rules, or under all but one.
#[derive(Clone, Debug)]
pub struct Protocol {
    pub setup: Setup,
    pub without: &'static [Rule],
    pub writer_steps: Vec<writer::Step>,
    pub prune_steps: Vec<prune::Step>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Writer(usize, u8),
    Prune(usize, u8),
    Forget(usize, u8),
    /// An index object gets lost.
    Lose(usize),
}

impl Protocol {
    pub fn new(setup: Setup, without: &'static [Rule]) -> Self {
        Self { setup, without, writer_steps: writer::program(without), prune_steps: prune::program(without) }
    }

    pub fn keeps(&self, rule: Rule) -> bool {
        !self.without.contains(&rule)
    }

    /// What an action is, in words.
    pub fn describe(&self, state: &State, action: Action) -> String {
        match action {
            Action::Writer(w, how) => {
                format!("writer {w}: {:?} {how:#x}", self.writer_steps[usize::from(state.writers[w].at)])
            }
            Action::Prune(p, how) => {
                format!("prune {p}: {:?} {how:#x}", self.prune_steps[usize::from(state.prunes[p].at)])
            }
            Action::Forget(f, how) => {
                let step = forget::PROGRAM[usize::from(state.forgets[f].at)];
                format!("forget {f}: {step:?} {how}")
            }
            Action::Lose(object) => format!("index object {object} gets lost"),
        }
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let setup = &self.setup;
        let mut packs = [0; PACKS];
        packs[..FIRST_PACKS].copy_from_slice(&setup.packs);
        let mut objects = [0; OBJECTS];
        objects[..FIRST_OBJECTS].copy_from_slice(&setup.objects);
        let mut snapshots: [Snapshot; SNAPSHOTS] = [0; SNAPSHOTS];
        for (place, needs) in setup.snapshots.iter().enumerate().filter(|(_, needs)| **needs != 0) {
            snapshots[place] = MANIFEST | needs;
        }
        vec![State {
            there: packs.iter().enumerate().filter(|(_, content)| **content != 0).map(|(p, _)| 1 << p).sum(),
            packs,
            objects,
            replaces: [0; OBJECTS],
            snapshots,
            sessions: [0; WRITERS],
            plans: [Plan::default(); PRUNES],
            writers: [Writer::default(); WRITERS],
            prunes: [Prune::default(); PRUNES],
            forgets: [Forget::default(); FORGETS],
            told: 0,
            fenced: 0,
            answers: setup.answers,
            losses: setup.losses,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let mut ways = Vec::new();
        for w in 0..self.setup.writers.len() {
            // Who may do the same begins in order: any other order is the same with other names.
            if w > 0 && self.setup.writers[w] == self.setup.writers[w - 1] && state.writers[w - 1].at == 0 {
                continue;
            }
            self.writer_choices(state, w, &mut ways);
            actions.extend(ways.drain(..).map(|how| Action::Writer(w, how)));
        }
        for p in 0..self.setup.prunes {
            if p > 0 && state.prunes[p - 1].at == 0 {
                continue;
            }
            self.prune_choices(state, p, &mut ways);
            actions.extend(ways.drain(..).map(|how| Action::Prune(p, how)));
        }
        for f in 0..self.setup.forgets {
            if f > 0 && state.forgets[f - 1].at == 0 {
                continue;
            }
            self.forget_choices(state, f, &mut ways);
            actions.extend(ways.drain(..).map(|how| Action::Forget(f, how)));
        }
        if state.losses > 0 {
            actions.extend((0..OBJECTS).filter(|o| state.objects[*o] != 0).map(Action::Lose));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = *last;
        match action {
            Action::Writer(w, how) => self.writer_step(&mut state, w, how),
            Action::Prune(p, how) => self.prune_step(&mut state, p, how),
            Action::Forget(f, how) => self.forget_step(&mut state, f, how),
            Action::Lose(object) => {
                state.delete_object(object);
                state.losses -= 1;
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(DECODES, |model: &Self, state: &State| {
                state.all_decode(if model.setup.losses > 0 { u16::MAX } else { state.indexed() })
            }),
            Property::always(STANDS, |_, state: &State| state.told & !state.manifests() == 0),
            Property::sometimes(FREED, |_, state: &State| {
                state.there & 1 == 0 && state.plans.iter().any(|plan| plan.stage == PlanStage::Emptied)
            }),
            Property::sometimes(FENCED, |_, state: &State| state.fenced != 0),
        ]
    }
}

pub const DECODES: &str = "every snapshot decodes";
pub const STANDS: &str = "a commit that was told of stands";
pub const FREED: &str = "space is freed";
pub const FENCED: &str = "a writer is fenced";
