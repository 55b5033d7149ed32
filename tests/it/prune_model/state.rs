//! What the store holds, and how far everybody is. Small sets are bit masks, every object has a place of its
//! own that is known beforehand, and whoever is finished remembers nothing: few states, and small ones.

pub const BLOBS: usize = 4;
/// Of the repository at the start.
pub const FIRST_PACKS: usize = 3;
pub const FIRST_OBJECTS: usize = 2;
pub const FIRST_SNAPSHOTS: usize = 2;
/// At most, of each kind.
pub const WRITERS: usize = 3;
pub const PRUNES: usize = 3;
pub const FORGETS: usize = 2;
/// A writer seals a pack, and after a lost answer another; a prune has one of repacked blobs, and one of
/// those that it copies late.
pub const PACKS: usize = FIRST_PACKS + 2 * WRITERS + 2 * PRUNES;
pub const OBJECTS: usize = FIRST_OBJECTS + WRITERS + PRUNES;
pub const SNAPSHOTS: usize = FIRST_SNAPSHOTS + WRITERS;

pub type Blobs = u8;
pub type Packs = u16;
pub type Objects = u8;
pub type Snapshots = u8;
/// Four bits for each blob: 0 it is not there, 1 plain, 2 + b a delta on blob b.
pub type Content = u16;

/// What lies under a snapshot's name: nothing, a tombstone, or a manifest and the blobs it needs.
pub type Snapshot = u8;
pub const ABSENT: Snapshot = 0;
pub const TOMBSTONE: Snapshot = 0x80;
pub const MANIFEST: Snapshot = 0x40;
pub const NEEDS: Snapshot = 0x0f;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Plan {
    pub condemned: Packs,
    /// Packs that it, or one before, condemned and left there: this stands when it was emptied.
    pub kept: Packs,
    pub repacked: Packs,
    pub seen: Snapshots,
    pub stage: PlanStage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PlanStage {
    #[default]
    Absent,
    InForce,
    Emptied,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Writer {
    /// Which step of its program comes next.
    pub at: u8,
    /// Blobs of its snapshot; once it has weighed, those of them that it must store.
    pub wants: Blobs,
    /// Once it has weighed: the blobs of its snapshot.
    pub needs: Blobs,
    /// The plan that it found in force, and what that says.
    pub plan: u8,
    pub condemned: Packs,
    pub seen: Snapshots,
    /// Packs that live index objects name, and packs that were listed.
    pub known: Packs,
    pub listed: Packs,
    /// The parent's place and one, and its blobs; later the blobs that count.
    pub parent: u8,
    pub have: Blobs,
    /// Its own packs, until the index names them.
    pub packs: Packs,
    /// The pack that it sent, and had no answer.
    pub sent: Content,
    /// It sent its commit, and had no answer.
    pub unsure: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Prune {
    pub at: u8,
    pub number: u8,
    pub condemned: Packs,
    /// Packs that were left there.
    pub kept: Packs,
    pub repacked: Packs,
    /// Snapshots that need no second walk.
    pub seen: Snapshots,
    pub live: Blobs,
    /// Packs that live index objects name; then those that the new index names.
    pub known: Packs,
    pub listed: Packs,
    /// Packs that index objects name which name a condemned pack, too.
    pub entries: Packs,
    /// Index objects that name condemned packs: they go.
    pub replaced: Objects,
    /// The pack to upload.
    pub draft: Content,
    /// Sessions to fence.
    pub fence: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Forget {
    pub at: u8,
    pub snapshot: u8,
    pub has_session: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// Packs that are in the store.
    pub there: Packs,
    /// What was put in each; forgotten once it is deleted, if all rules are kept.
    pub packs: [Content; PACKS],
    /// The packs that each index object names; none, if it is not there.
    pub objects: [Packs; OBJECTS],
    /// The index objects that each replaces.
    pub replaces: [Objects; OBJECTS],
    pub snapshots: [Snapshot; SNAPSHOTS],
    /// 0: no object; else one more than the plan that it says it saw.
    pub sessions: [u8; WRITERS],
    /// Plans 1, 2, …
    pub plans: [Plan; PRUNES],
    pub writers: [Writer; WRITERS],
    pub prunes: [Prune; PRUNES],
    pub forgets: [Forget; FORGETS],
    /// Snapshots that their writers were told of, and that nobody forgot since.
    pub told: Snapshots,
    /// Writers that were told that they were fenced.
    pub fenced: u8,
    /// Answers that may still be lost.
    pub answers: u8,
    /// Index objects that may still get lost.
    pub losses: u8,
}

pub fn bits(mask: u16) -> impl Iterator<Item = usize> {
    (0..16).filter(move |bit| mask >> bit & 1 == 1)
}

/// A pack with plain copies.
pub fn plain(blobs: Blobs) -> Content {
    bits(blobs.into()).map(|blob| 1 << (4 * blob)).sum()
}

/// A pack with deltas, all on one base.
pub fn delta(blobs: Blobs, base: usize) -> Content {
    bits(blobs.into()).map(|blob| (2 + base as u16) << (4 * blob)).sum()
}

/// The blobs of which a pack has a copy.
pub fn blobs(content: Content) -> Blobs {
    (0..BLOBS).filter(|blob| content >> (4 * blob) & 15 != 0).map(|blob| 1 << blob).sum()
}

/// The blobs of a pack that decode if these bases do.
fn decoded(content: Content, bases: Blobs) -> Blobs {
    let mut out = 0;
    for blob in 0..BLOBS {
        let readable = match content >> (4 * blob) & 15 {
            0 => false,
            1 => true,
            base => bases >> (base - 2) & 1 == 1,
        };
        out |= Blobs::from(readable) << blob;
    }
    out
}

impl State {
    /// The blobs that decode from these packs: the least fixpoint, in which no circle is.
    pub fn decode(&self, packs: Packs) -> Blobs {
        let mut found = 0;
        loop {
            let before = found;
            for pack in bits(packs) {
                found |= decoded(self.packs[pack], found);
            }
            if found == before {
                return found;
            }
        }
    }

    /// The greatest fixpoint: what rests on itself is in it.
    pub fn decode_in_circles(&self, packs: Packs) -> Blobs {
        let mut found = bits(packs).fold(0, |all, pack| all | blobs(self.packs[pack]));
        loop {
            let next = bits(packs).fold(0, |all, pack| all | decoded(self.packs[pack], found));
            if next == found {
                return found;
            }
            found = next;
        }
    }

    /// The blobs of which these packs have a copy, whatever it rests on.
    pub fn hold(&self, packs: Packs) -> Blobs {
        bits(packs).fold(0, |all, pack| all | blobs(self.packs[pack]))
    }

    /// The index objects that count: those that are there, and that none replaces that is there.
    pub fn live_objects(&self) -> Objects {
        let replaced = self.replaces.iter().fold(0, |all, some| all | some);
        (0..OBJECTS).filter(|o| self.objects[*o] != 0).map(|o| 1 << o).sum::<Objects>() & !replaced
    }

    /// The packs that live index objects name.
    pub fn indexed(&self) -> Packs {
        bits(self.live_objects().into()).fold(0, |all, object| all | self.objects[object])
    }

    pub fn is_manifest(&self, snapshot: usize) -> bool {
        self.snapshots[snapshot] & MANIFEST != 0
    }

    pub fn manifests(&self) -> Snapshots {
        (0..SNAPSHOTS).filter(|s| self.is_manifest(*s)).map(|s| 1 << s).sum()
    }

    /// What the manifests of these snapshots need.
    pub fn needs(&self, of: Snapshots) -> Blobs {
        bits((of & self.manifests()).into()).fold(0, |all, s| all | self.snapshots[s] & NEEDS)
    }

    /// The number of the newest plan, 0 if there is none.
    pub fn last_plan(&self) -> u8 {
        (0..PRUNES).rev().find(|p| self.plans[*p].stage != PlanStage::Absent).map_or(0, |p| p as u8 + 1)
    }

    /// The newest plan, whatever became of it.
    pub fn newest_plan(&self) -> Plan {
        usize::from(self.last_plan()).checked_sub(1).map_or_else(Plan::default, |newest| self.plans[newest])
    }

    /// The plan in force, if any: the newest, unless it was emptied.
    pub fn plan_in_force(&self) -> Option<(u8, Plan)> {
        let number = self.last_plan();
        let plan = self.plans[usize::from(number).checked_sub(1)?];
        (plan.stage == PlanStage::InForce).then_some((number, plan))
    }

    /// An index object goes, and with it the need to say that it is replaced: its name never comes back.
    pub fn delete_object(&mut self, object: usize) {
        self.objects[object] = 0;
        self.replaces[object] = 0;
        for replaces in &mut self.replaces {
            *replaces &= !(1 << object);
        }
    }

    /// Everything that snapshots need decodes from these packs, as far as they are there.
    pub fn all_decode(&self, packs: Packs) -> bool {
        self.needs(Snapshots::MAX) & !self.decode(packs & self.there) == 0
    }
}
