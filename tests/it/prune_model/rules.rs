//! The rules of the protocol, each with what goes wrong without it. A model is built with all of them, or
//! without one. Nothing here says how a rule is kept: the steps do.

/// One rule. "Without" is what the model does when it is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    // ---- a session ----
    /// Plans are listed after the session's object stands. Without: a prune plans and lists sessions between
    /// the two, neither sees the other, and the session counts what the prune deletes.
    PlansAfterSession,
    /// "Seen n" is written before anything is counted, and never later. Without: a session notes a plan when
    /// it has already counted what that plan condemns, and the prune takes the note for a promise.
    SeenBeforeCounting,
    /// The parent is chosen after plans were listed. Without: a parent that was found earlier is forgotten and
    /// swept by a plan that is over before plans are listed, and its trees are taken unread.
    ParentAfterPlans,
    /// Packs are listed after plans. Without: a pack that was listed earlier is swept by a plan that is over
    /// before plans are listed, and an index object of a writer that woke late still names it.
    PacksAfterPlans,
    /// A copy counts only if its pack is listed. Without: an index object of a writer that woke late names a
    /// pack that was swept as one that nobody names.
    CountsIfListed,
    /// A copy counts only if no plan in force condemns its pack. Without: the session has said that it saw the
    /// plan, so the prune waits for nobody and deletes the pack.
    CountsIfNotCondemned,
    /// A copy counts only if its bases count. Without: the pack of the delta stays, that of its base goes.
    CountsIfBasesCount,
    /// Bases count by the least fixpoint. Without: two deltas that rest on each other count, and no reader can
    /// begin with either.
    CountsWithoutCircle,
    /// A parent's trees are taken unread only if no plan is in force or the plan saw the parent. Without: the
    /// parent is forgotten before the sweep walks what the plan did not see, and its blobs go.
    ParentIfSeen,
    /// A pack's name is put once. Without: a pack that was swept comes back when it is sent again, counts for
    /// the next writer, and is deleted by another sweep that slept with it on its list.
    PackNameOnce,
    /// Index objects stand before the snapshot. Without: a committed snapshot needs blobs that nobody finds.
    IndexBeforeSnapshot,
    /// After a lost answer to the commit the writer reads whose object it is. Without: it takes the tombstone
    /// of the prune that gave it up for its own snapshot, and reports a backup that does not exist.
    CommitReadBack,

    // ---- forget ----
    /// While the session's object exists, a snapshot is overwritten with a tombstone. Without: the writer that
    /// had no answer sends its commit again, and brings back what the sweep no longer spared.
    TombstoneWhileSession,
    /// A manifest is deleted only if it was read once more after its session's object was seen gone. Without:
    /// the session was removed by a prune because a tombstone stood, the delete takes away that tombstone, and
    /// the commit that is sent again succeeds.
    ForgetReadsAgain,

    // ---- prune: the plan ----
    /// The plan's number is fixed before anything is listed. Without: a plan made from old lists is created
    /// under a new number, and condemns what was needed meanwhile.
    NumberFirst,
    /// A plan is created only if absent, and who is refused stops. Without: two sweeps with different plans
    /// run under one number, and sessions have seen only one of them.
    RefusedStops,
    /// Snapshots are listed before the index, for a plan. Without, and without the stop below: a snapshot that
    /// was committed between the two counts as seen, while its packs look as if nothing named them.
    PlanSnapshotsBeforeIndex,
    /// A live blob that does not decode stops the prune, before a plan is made. Without: if an index object is
    /// lost, packs that a repair would find again look as if nothing named them, and go.
    PlanStopsAtDamage,
    /// What remains decodes without a circle. Without: two deltas that rest on each other remain.
    RemainsWithoutCircle,
    /// A plan is emptied, never deleted, and its number never used again. Without: a prune that slept since
    /// before that plan creates its own, made from old lists, under the same number.
    PlansStay,

    // ---- prune: the sweep ----
    /// Sessions are listed after the plan was created. Without: a session that began between the two saw no
    /// plan, and no prune waited for it.
    SessionsAfterPlan,
    /// A session that has not seen the plan must be gone, committed or fenced. Without: it commits what the
    /// sweep deletes.
    Fences,
    /// Only an object that is absent is created. Without: a fence replaces a commit that the writer was told of.
    CreateIfAbsent,
    /// A session's object is removed only once a tombstone stands. Without: forget deletes the manifest, and
    /// the writer that had no answer sends it again.
    SessionStaysUntilTombstone,
    /// Snapshots are listed again after sessions were dealt with. Without: one that was committed after the
    /// list needs what the sweep deletes.
    SnapshotsAfterFences,
    /// In the sweep, the index is listed before packs. Without: an index object that names a pack too young to
    /// be listed is replaced by one that does not name it.
    SweepIndexBeforePacks,
    /// A live blob that does not decode stops the sweep. Without: if an index object is lost between plan and
    /// sweep, what should be copied is not found, and goes.
    SweepStopsAtDamage,
    /// What snapshots that the plan did not see need is copied out of condemned packs. Without: it goes.
    CopiesWhatIsNeeded,
    /// A condemned pack is never spared. Without: another sweep sleeps with it on its list, and deletes it when
    /// the plan is over and writers count it again.
    NeverSpares,
    /// The new index stands before old index objects and packs go. Without: until it stands, nobody finds what
    /// was repacked.
    IndexBeforeDeletes,
    /// Index objects that name condemned packs are replaced with all else that they name. Without: what shares
    /// an index object with a condemned pack is lost with it.
    ReplacementKeepsEntries,
    /// Packs that a plan condemned and left there count for nobody, and each plan says which those are. Without:
    /// another sweep of that plan sleeps with one on its list, a writer that woke late publishes an index object
    /// that names it, the next writer counts it, and the sweep deletes it.
    LeftCountsForNobody,
    /// Packs go before the plan is emptied. Without: a session finds no plan in force, and counts a pack that
    /// is about to go.
    EmptiedLast,
}

/// Those that are needed each for itself: all but the order that the stop makes up for.
pub const RULES: [Rule; 32] = [
    Rule::PlansAfterSession,
    Rule::SeenBeforeCounting,
    Rule::ParentAfterPlans,
    Rule::PacksAfterPlans,
    Rule::CountsIfListed,
    Rule::CountsIfNotCondemned,
    Rule::CountsIfBasesCount,
    Rule::CountsWithoutCircle,
    Rule::ParentIfSeen,
    Rule::PackNameOnce,
    Rule::IndexBeforeSnapshot,
    Rule::CommitReadBack,
    Rule::TombstoneWhileSession,
    Rule::ForgetReadsAgain,
    Rule::NumberFirst,
    Rule::RefusedStops,
    Rule::PlanStopsAtDamage,
    Rule::RemainsWithoutCircle,
    Rule::PlansStay,
    Rule::SessionsAfterPlan,
    Rule::Fences,
    Rule::CreateIfAbsent,
    Rule::SessionStaysUntilTombstone,
    Rule::SnapshotsAfterFences,
    Rule::SweepIndexBeforePacks,
    Rule::SweepStopsAtDamage,
    Rule::CopiesWhatIsNeeded,
    Rule::NeverSpares,
    Rule::IndexBeforeDeletes,
    Rule::ReplacementKeepsEntries,
    Rule::LeftCountsForNobody,
    Rule::EmptiedLast,
];

impl Rule {
    /// The set of rules that are broken, if this one alone is.
    pub fn alone(self) -> &'static [Self] {
        let at = RULES.iter().position(|rule| *rule == self);
        at.map_or(&[], |at| &RULES[at..=at])
    }
}
