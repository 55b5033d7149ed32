//! A prune, step by step: each but the choosing is one request to the store.

use super::model::{Extent, Protocol};
use super::rules::Rule;
use super::state::{
    ABSENT, Blobs, FIRST_OBJECTS, FIRST_PACKS, FIRST_SNAPSHOTS, OBJECTS, Packs, Plan, PlanStage, Prune, Snapshots,
    State, TOMBSTONE, WRITERS, bits, blobs, delta, plain,
};

/// A way of choosing, or of deleting packs: what was condemned is left there.
const LEAVES: u8 = 0x80;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Lists plans: takes up the one in force, or fixes the number of its own.
    Plans,
    /// Lists snapshots and walks them.
    Snapshots,
    /// Lists and reads index objects.
    Index,
    /// Lists packs.
    Packs,
    /// Chooses what to condemn. No request.
    Choose,
    /// Uploads repacked blobs, if any.
    Repack,
    /// Creates the plan.
    Propose,
    /// Lists sessions.
    Sessions,
    /// Creates the tombstone of a session that has not seen the plan and has no snapshot.
    Fence,
    /// Deletes a session's object, if the tombstone stands.
    Remove,
    /// Lists snapshots and walks those that the plan did not see.
    SnapshotsAgain,
    /// Lists and reads index objects.
    IndexAgain,
    /// Lists packs.
    PacksAgain,
    /// Decides what to copy, and what the new index holds. No request.
    Account,
    /// Uploads what it copies out of condemned packs, if anything.
    Copy,
    /// Creates the new index object.
    Publish,
    /// Deletes an index object that was replaced.
    DropObject,
    /// Deletes a condemned pack.
    DropPack,
    /// Empties the plan.
    Empty,
}

/// The order of a prune's steps.
pub fn program(without: &[Rule]) -> Vec<Step> {
    use Step::*;
    let mut steps = vec![
        Plans,
        Snapshots,
        Index,
        Packs,
        Choose,
        Repack,
        Propose,
        Sessions,
        Fence,
        Remove,
        SnapshotsAgain,
        IndexAgain,
        PacksAgain,
        Account,
        Copy,
        Publish,
        DropObject,
        DropPack,
        Empty,
    ];
    let order: &[Step] = match without.first() {
        Some(Rule::PlanSnapshotsBeforeIndex) => &[Index, Snapshots],
        Some(Rule::SessionsAfterPlan) => &[Sessions, Propose],
        Some(Rule::SnapshotsAfterFences) => &[SnapshotsAgain, Sessions, Fence, Remove],
        Some(Rule::SweepIndexBeforePacks) => &[PacksAgain, IndexAgain],
        Some(Rule::IndexBeforeDeletes) => &[DropObject, DropPack, Publish],
        Some(Rule::EmptiedLast) => &[Empty, DropObject, DropPack],
        _ => &[],
    };
    if let Some(from) = steps.iter().position(|step| order.contains(step)) {
        steps[from..from + order.len()].copy_from_slice(order);
    }
    steps
}

impl Protocol {
    /// The ways in which the prune's next step may go.
    pub fn prune_choices(&self, state: &State, p: usize, out: &mut Vec<u8>) {
        let me = &state.prunes[p];
        if usize::from(me.at) >= self.prune_steps.len() {
            return;
        }
        if self.prune_steps.get(usize::from(me.at) + 1) == Some(&Step::Choose) {
            let extents = 0..self.setup.extents.len() as u8;
            let ways = extents.flat_map(|extent| [extent << 1, extent << 1 | 1]);
            let ways = ways.filter(|way| way & 1 == 0 || self.setup.deltas);
            out.extend(ways.flat_map(|way| [way, way | LEAVES]).filter(|way| way & LEAVES == 0 || me.kept != 0));
        } else {
            out.push(0);
            if self.setup.leaves && self.prune_steps[usize::from(me.at)] == Step::DropPack {
                out.push(LEAVES);
            }
        }
    }

    pub fn prune_step(&self, state: &mut State, p: usize, how: u8) {
        let step = self.prune_steps[usize::from(state.prunes[p].at)];
        state.prunes[p].at += 1;
        match step {
            Step::Plans => self.look_for_plan(state, p),
            Step::Snapshots => {
                let (live, seen) = (state.needs(Snapshots::MAX), state.manifests());
                (state.prunes[p].live, state.prunes[p].seen) = (live, seen);
            }
            Step::SnapshotsAgain => {
                let seen = state.prunes[p].seen;
                state.prunes[p].live = if self.keeps(Rule::CopiesWhatIsNeeded) { state.needs(!seen) } else { 0 };
                state.prunes[p].seen = 0;
            }
            Step::Index => state.prunes[p].known = state.indexed(),
            Step::IndexAgain => self.read_index(state, p),
            Step::Packs | Step::PacksAgain => state.prunes[p].listed = state.there,
            Step::Choose | Step::Account => {}
            Step::Repack | Step::Copy => {
                let place = own_packs(p) + usize::from(step == Step::Copy);
                state.packs[place] = state.prunes[p].draft;
                state.there |= 1 << place;
                let me = &mut state.prunes[p];
                me.draft = 0;
                *(if step == Step::Repack { &mut me.repacked } else { &mut me.known }) |= 1 << place;
            }
            Step::Propose => self.propose(state, p),
            Step::Sessions => {
                let number = state.prunes[p].number;
                let blind = |w: &usize| state.sessions[*w] != 0 && state.sessions[*w] - 1 < number;
                let fence = (0..WRITERS).filter(blind).map(|w| 1 << w).sum();
                state.prunes[p].fence = if self.keeps(Rule::Fences) { fence } else { 0 };
            }
            Step::Fence => {
                let w = state.prunes[p].fence.trailing_zeros() as usize;
                let name = FIRST_SNAPSHOTS + w;
                if state.snapshots[name] == ABSENT || !self.keeps(Rule::CreateIfAbsent) {
                    state.snapshots[name] = TOMBSTONE;
                }
                let removes = state.snapshots[name] == TOMBSTONE || !self.keeps(Rule::SessionStaysUntilTombstone);
                if !removes {
                    self.next_fence(state, p);
                }
            }
            Step::Remove => {
                state.sessions[state.prunes[p].fence.trailing_zeros() as usize] = 0;
                self.next_fence(state, p);
            }
            Step::Publish => {
                state.objects[FIRST_OBJECTS + WRITERS + p] = state.prunes[p].known;
                state.replaces[FIRST_OBJECTS + WRITERS + p] = state.prunes[p].replaced;
            }
            Step::DropObject => {
                let object = state.prunes[p].replaced.trailing_zeros();
                state.delete_object(object as usize);
                state.prunes[p].replaced &= !(1 << object);
                state.prunes[p].at -= 1;
            }
            Step::DropPack => {
                let condemned = state.prunes[p].condemned & state.there;
                if how & LEAVES != 0 {
                    state.prunes[p].kept |= condemned;
                    state.prunes[p].condemned = 0;
                } else if condemned != 0 {
                    self.delete_pack(state, condemned.trailing_zeros() as usize);
                    state.prunes[p].at -= 1;
                }
            }
            Step::Empty => {
                let stage = if self.keeps(Rule::PlansStay) { PlanStage::Emptied } else { PlanStage::Absent };
                let number = usize::from(state.prunes[p].number);
                let kept = state.prunes[p].kept & state.there;
                state.plans[number - 1] = Plan { stage, kept, ..Plan::default() };
            }
        }
        self.proceed(state, p, how);
    }

    /// What needs no request happens at once, and steps that have nothing to do are left out.
    fn proceed(&self, state: &mut State, p: usize, how: u8) {
        while let Some(step) = self.prune_steps.get(usize::from(state.prunes[p].at)) {
            match step {
                Step::Choose if !self.choose(state, p, how) => break,
                Step::Account if !self.account(state, p) => break,
                _ => {}
            }
            let me = &state.prunes[p];
            let idle = match step {
                Step::Choose | Step::Account => true,
                Step::Repack | Step::Copy => me.draft == 0,
                Step::Fence | Step::Remove => me.fence == 0,
                Step::Publish => me.known == 0,
                Step::DropObject => me.replaced == 0,
                Step::DropPack => me.condemned & state.there == 0,
                _ => false,
            };
            if !idle {
                return;
            }
            state.prunes[p].at += 1;
        }
        self.finish_prune(state, p);
    }

    fn finish_prune(&self, state: &mut State, p: usize) {
        state.prunes[p] = Prune { at: self.prune_steps.len() as u8, ..Prune::default() };
    }

    fn place_of(&self, step: Step) -> u8 {
        self.prune_steps.iter().position(|s| *s == step).map_or(0, |at| at as u8)
    }

    fn look_for_plan(&self, state: &mut State, p: usize) {
        let in_force = state.plan_in_force();
        let (last, kept) = (state.last_plan(), state.newest_plan().kept);
        let me = &mut state.prunes[p];
        me.kept = kept;
        match in_force {
            None => me.number = last + 1,
            // That variant has no sweep that could begin in the middle.
            Some(_) if !self.keeps(Rule::SessionsAfterPlan) => me.at = self.prune_steps.len() as u8,
            Some((number, plan)) => {
                (me.number, me.condemned, me.repacked) = (number, plan.condemned, plan.repacked);
                // What it did not plan itself it walks as a whole.
                me.seen = 0;
                me.at = self.place_of(Step::Propose) + 1;
            }
        }
    }

    /// Chooses what to condemn, so that the rest, with what is repacked, decodes; false if the prune stops.
    fn choose(&self, state: &mut State, p: usize, how: u8) -> bool {
        let me = &state.prunes[p];
        let usable = me.known & me.listed & !me.kept;
        let decode = |packs| match self.keeps(Rule::RemainsWithoutCircle) {
            true => state.decode(packs),
            false => state.decode_in_circles(packs),
        };
        if me.live & !decode(usable) != 0 && self.keeps(Rule::PlanStopsAtDamage) {
            return false;
        }
        let live = me.live & decode(usable);
        let mut condemned = me.listed & !usable;
        if how & LEAVES != 0 {
            condemned &= !me.kept;
        }
        for pack in bits(usable) {
            let goes = match self.setup.extents[usize::from((how & !LEAVES) >> 1)] {
                Extent::Dead => live & !decode(usable & !condemned & !(1 << pack)) == 0,
                Extent::Wasted => blobs(state.packs[pack]) & !live != 0,
                Extent::All => true,
            };
            condemned |= Packs::from(goes) << pack;
        }
        let remains = decode(usable & !condemned);
        let lost = live & !remains;
        let base = if how & 1 == 1 { bits(remains.into()).next() } else { None };
        let me = &mut state.prunes[p];
        me.draft = base.map_or(plain(lost), |base| delta(lost, base));
        me.condemned = condemned;
        (me.live, me.known, me.listed) = (0, 0, 0);
        condemned != 0
    }

    fn propose(&self, state: &mut State, p: usize) {
        if !self.keeps(Rule::NumberFirst) {
            state.prunes[p].number = state.last_plan() + 1;
            if state.plan_in_force().is_some() {
                return self.finish_prune(state, p);
            }
        }
        let me = &mut state.prunes[p];
        let plan = &mut state.plans[usize::from(me.number) - 1];
        if plan.stage == PlanStage::Absent {
            me.kept &= !me.condemned;
            let (condemned, kept, repacked, seen) = (me.condemned, me.kept, me.repacked, me.seen);
            *plan = Plan { condemned, kept, repacked, seen, stage: PlanStage::InForce };
        } else if self.keeps(Rule::RefusedStops) {
            self.finish_prune(state, p);
        }
    }

    fn next_fence(&self, state: &mut State, p: usize) {
        let (fence, remove) = (self.place_of(Step::Fence), self.place_of(Step::Remove));
        let me = &mut state.prunes[p];
        me.fence &= me.fence - 1;
        me.at = if me.fence == 0 { remove + 1 } else { fence };
    }

    fn read_index(&self, state: &mut State, p: usize) {
        let live = state.live_objects();
        let condemned = state.prunes[p].condemned;
        let (mut entries, mut replaced) = (0, 0);
        for object in (0..OBJECTS).filter(|o| state.objects[*o] & condemned != 0) {
            replaced |= 1 << object;
            if live >> object & 1 == 1 {
                entries |= state.objects[object];
            }
        }
        let known = state.indexed();
        let me = &mut state.prunes[p];
        (me.known, me.entries, me.replaced) = (known, entries, replaced);
    }

    /// Decides what to copy, and what the new index holds; false if the prune stops.
    fn account(&self, state: &mut State, p: usize) -> bool {
        let me = state.prunes[p];
        let usable = (me.known | me.repacked) & me.listed & !me.kept;
        let decodes = state.decode(usable);
        if me.live & !decodes != 0 && self.keeps(Rule::SweepStopsAtDamage) {
            return false;
        }
        let live = me.live & decodes;
        let mut condemned = me.condemned;
        let lost = |condemned: Packs| live & !state.decode(usable & !condemned);
        if !self.keeps(Rule::NeverSpares) {
            let needed = lost(condemned);
            let spared = bits(condemned).filter(|pack| blobs(state.packs[*pack]) & needed != 0);
            condemned &= !spared.map(|pack| 1 << pack).sum::<Packs>();
        }
        let copied: Blobs = lost(condemned);
        let entries = if self.keeps(Rule::ReplacementKeepsEntries) { me.entries } else { 0 };
        let me = &mut state.prunes[p];
        me.draft = plain(copied);
        me.known = (entries | me.repacked) & me.listed & !condemned;
        me.condemned = condemned;
        (me.live, me.listed, me.entries, me.repacked) = (0, 0, 0, 0);
        true
    }

    fn delete_pack(&self, state: &mut State, pack: usize) {
        state.there &= !(1 << pack);
        // Its name never comes back, so nobody asks again what was in it; where a rule is broken, somebody may.
        if self.without.is_empty() {
            state.packs[pack] = 0;
        }
    }
}

/// The first of a prune's two packs.
pub fn own_packs(p: usize) -> usize {
    FIRST_PACKS + 2 * WRITERS + 2 * p
}
