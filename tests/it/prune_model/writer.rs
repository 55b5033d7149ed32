//! A session, step by step: each but the weighing is one request to the store.

use super::model::Protocol;
use super::rules::Rule;
use super::state::{
    ABSENT, BLOBS, Blobs, FIRST_OBJECTS, FIRST_PACKS, FIRST_SNAPSHOTS, MANIFEST, NEEDS, SNAPSHOTS, Snapshots, State,
    TOMBSTONE, Writer, delta, plain,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Creates its session's object.
    Announce,
    /// Lists plans, and reads the one in force.
    Plans,
    /// Writes "seen n" into its object, if a plan is in force.
    Note,
    /// Lists and reads index objects.
    Index,
    /// Chooses its parent among the snapshots, or none.
    Parent,
    /// Lists packs.
    Packs,
    /// Decides what counts, and what it must store. No request.
    Weigh,
    /// Creates its pack, if it must store anything.
    Upload,
    /// Creates its index object.
    Publish,
    /// Creates its snapshot.
    Commit,
    /// Deletes its session's object.
    Leave,
}

/// The order of a session's steps.
pub fn program(without: &[Rule]) -> Vec<Step> {
    use Step::{Announce, Commit, Index, Leave, Note, Packs, Parent, Plans, Publish, Upload, Weigh};
    match without.first() {
        Some(Rule::PlansAfterSession) => {
            vec![Plans, Announce, Note, Index, Parent, Packs, Weigh, Upload, Publish, Commit, Leave]
        }
        Some(Rule::SeenBeforeCounting) => {
            vec![Announce, Plans, Note, Index, Parent, Packs, Weigh, Upload, Publish, Plans, Note, Commit, Leave]
        }
        Some(Rule::ParentAfterPlans) => {
            vec![Parent, Announce, Plans, Note, Index, Packs, Weigh, Upload, Publish, Commit, Leave]
        }
        Some(Rule::PacksAfterPlans) => {
            vec![Announce, Packs, Plans, Note, Index, Parent, Weigh, Upload, Publish, Commit, Leave]
        }
        Some(Rule::IndexBeforeSnapshot) => {
            vec![Announce, Plans, Note, Index, Parent, Packs, Weigh, Upload, Commit, Publish, Leave]
        }
        _ => vec![Announce, Plans, Note, Index, Parent, Packs, Weigh, Upload, Publish, Commit, Leave],
    }
}

/// What a step may do beside its plain outcome.
pub const LOST: u8 = 0x80;

impl Protocol {
    /// The ways in which the writer's next step may go.
    pub fn writer_choices(&self, state: &State, w: usize, out: &mut Vec<u8>) {
        let me = &state.writers[w];
        let Some(step) = self.writer_steps.get(usize::from(me.at)) else { return };
        match step {
            Step::Announce | Step::Plans | Step::Note | Step::Index if me.at != 0 => out.push(0),
            Step::Parent if me.at != 0 => self.parents(state, me.wants, out),
            // The first step also says what the snapshot is of.
            _ if me.at == 0 => {
                let parents = *step == Step::Parent;
                for (number, wants) in self.setup.writers[w].iter().enumerate() {
                    let mut ways = vec![0];
                    if parents {
                        ways.clear();
                        self.parents(state, *wants, &mut ways);
                    }
                    out.extend(ways.into_iter().map(|way| way | (number as u8) << 4));
                }
            }
            Step::Upload => {
                out.push(0);
                if me.sent == 0 && !self.setup.several {
                    if self.setup.deltas {
                        out.extend((0..BLOBS as u8).filter(|b| me.have >> b & 1 == 1).map(|b| b + 1));
                    }
                    if state.answers > 0 {
                        let ways = out.len();
                        out.extend_from_within(..ways);
                        out.iter_mut().skip(ways).for_each(|way| *way |= LOST);
                    }
                }
            }
            Step::Commit => {
                out.push(0);
                if state.answers > 0 {
                    out.push(LOST);
                }
            }
            _ => out.push(0),
        }
    }

    fn parents(&self, state: &State, wants: Blobs, out: &mut Vec<u8>) {
        out.push(0);
        if self.setup.parents {
            let useful = |s: &usize| state.is_manifest(*s) && state.snapshots[*s] & NEEDS & wants != 0;
            out.extend((0..SNAPSHOTS).filter(useful).map(|s| s as u8 + 1));
        }
    }

    pub fn writer_step(&self, state: &mut State, w: usize, how: u8) {
        let step = self.writer_steps[usize::from(state.writers[w].at)];
        let mut how = how;
        if state.writers[w].at == 0 {
            state.writers[w].wants = self.setup.writers[w][usize::from(how >> 4)];
            how &= 0x0f;
        }
        state.writers[w].at += 1;
        match step {
            Step::Announce => state.sessions[w] = 1,
            Step::Plans => {
                let me = &mut state.writers[w];
                me.seen = Snapshots::MAX;
                if self.keeps(Rule::LeftCountsForNobody) {
                    state.writers[w].condemned = state.newest_plan().kept;
                }
                if let Some((number, plan)) = state.plan_in_force() {
                    let me = &mut state.writers[w];
                    (me.plan, me.condemned, me.seen) = (number, me.condemned | plan.condemned, plan.seen);
                }
            }
            // The whole object is written: if a prune removed it, it stands again.
            Step::Note => state.sessions[w] = 1 + state.writers[w].plan,
            Step::Index => state.writers[w].known = state.indexed(),
            Step::Parent => {
                let me = &mut state.writers[w];
                me.parent = how;
                me.have = how.checked_sub(1).map_or(0, |s| state.snapshots[usize::from(s)] & NEEDS);
            }
            Step::Packs => state.writers[w].listed = state.there,
            Step::Weigh => {}
            Step::Upload => self.upload(state, w, how),
            Step::Publish => {
                let me = &mut state.writers[w];
                state.objects[FIRST_OBJECTS + w] = me.packs;
                me.packs = 0;
            }
            Step::Commit => self.commit(state, w, how),
            Step::Leave => {
                state.sessions[w] = 0;
                self.finish_writer(state, w);
            }
        }
        self.follow(state, w);
    }

    /// What needs no request happens at once, and steps that have nothing to do are left out.
    fn follow(&self, state: &mut State, w: usize) {
        while let Some(step) = self.writer_steps.get(usize::from(state.writers[w].at)) {
            match step {
                Step::Weigh => self.weigh(state, w),
                Step::Note if state.writers[w].plan == 0 => {}
                Step::Upload if state.writers[w].wants == 0 => {}
                Step::Publish if state.writers[w].packs == 0 => {}
                _ => return,
            }
            state.writers[w].at += 1;
        }
    }

    fn weigh(&self, state: &mut State, w: usize) {
        let me = &state.writers[w];
        let mut packs = me.known;
        if self.keeps(Rule::CountsIfListed) {
            packs &= me.listed;
        }
        if self.keeps(Rule::CountsIfNotCondemned) {
            packs &= !me.condemned;
        }
        let counts = if !self.keeps(Rule::CountsIfBasesCount) {
            state.hold(packs)
        } else if !self.keeps(Rule::CountsWithoutCircle) {
            state.decode_in_circles(packs)
        } else {
            state.decode(packs)
        };
        let me = &mut state.writers[w];
        let parent_counts = me.parent > 0 && (me.seen >> (me.parent - 1) & 1 == 1 || !self.keeps(Rule::ParentIfSeen));
        let unread = if parent_counts { me.have } else { 0 };
        // What the snapshot needs goes into its name's place when it commits; until then it is kept here.
        let needs = me.wants;
        *me = Writer { at: me.at, wants: needs & !unread & !counts, have: counts, needs, ..Writer::default() };
    }

    fn upload(&self, state: &mut State, w: usize, how: u8) {
        let me = &mut state.writers[w];
        let again = me.sent != 0;
        // Several packs hold a blob each.
        let stored = if self.setup.several { me.wants & me.wants.wrapping_neg() } else { me.wants };
        let content = match how & !LOST {
            _ if again => me.sent,
            0 => plain(stored),
            base => delta(me.wants, usize::from(base) - 1),
        };
        let next = me.packs != 0 || again && self.keeps(Rule::PackNameOnce);
        let place = own_packs(w) + usize::from(next);
        if how & LOST != 0 {
            me.sent = content;
            me.at -= 1;
            state.answers -= 1;
        } else {
            me.packs |= 1 << place;
            me.wants &= !stored;
            (me.have, me.sent) = (0, 0);
            me.at -= u8::from(me.wants != 0);
        }
        state.packs[place] = content;
        state.there |= 1 << place;
    }

    fn commit(&self, state: &mut State, w: usize, how: u8) {
        let (me, name) = (&mut state.writers[w], FIRST_SNAPSHOTS + w);
        let mine = match state.snapshots[name] {
            ABSENT => {
                state.snapshots[name] = MANIFEST | me.needs;
                true
            }
            TOMBSTONE => me.unsure && !self.keeps(Rule::CommitReadBack),
            _ => true,
        };
        if how == LOST {
            (me.unsure, me.have) = (true, 0);
            me.at -= 1;
            state.answers -= 1;
        } else if mine {
            state.told |= 1 << name;
            *me = Writer { at: me.at, ..Writer::default() };
        } else {
            state.fenced |= 1 << w;
            self.finish_writer(state, w);
        }
    }

    fn finish_writer(&self, state: &mut State, w: usize) {
        state.writers[w] = Writer { at: self.writer_steps.len() as u8, ..Writer::default() };
    }
}

/// The first of a writer's two packs.
pub fn own_packs(w: usize) -> usize {
    FIRST_PACKS + 2 * w
}
