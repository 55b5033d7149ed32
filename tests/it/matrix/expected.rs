//! The matrix. A row is a kind and the damages that come out alike; its columns are those of
//! [`COMMANDS`](super::cell::COMMANDS): a snapshot by a machine that has taken some, by one that has
//! taken none, and by a writer; restore by both machines; ls; check; check of all data.

use super::cell::Outcome::{self, Fine, Found, Rests, Unread, Warned};
use super::damage::Damage::{self, *};
use super::damage::Kind::{self, *};

/// A restore that lacks what was damaged.
const LACKS: Outcome = Outcome::Partial(1);
/// A listing that lacks it.
const LISTS: Outcome = Outcome::Partial(4);
/// An error that names the object.
const NO: Outcome = Outcome::Refused(1);

/// Nothing can be opened.
const NOTHING: [Outcome; 8] = [NO; 8];
/// All can be read without it, by a full key; nothing is written.
const READ: [Outcome; 8] = [NO, NO, NO, Warned, Warned, Warned, Found, Found];
/// Nobody needs it.
const NOBODY: [Outcome; 8] = [Fine, Fine, Fine, Fine, Fine, Fine, Unread, Fine];
/// Nobody needs it, and a check names it.
const NAMED: [Outcome; 8] = [Fine, Fine, Fine, Fine, Fine, Fine, Found, Found];
/// This key opens nothing any more; others do.
const THIS_KEY: [Outcome; 8] = [NO, NO, Fine, NO, NO, NO, NO, NO];

pub const EXPECTED: &[(Kind, &[Damage], [Outcome; 8])] = &[
    (Repo, &[Missing, Truncated, Grown, Zeroed, Renamed], READ),
    (Repo, &[Bit("brace"), Bit("member"), Bit("no digit")], READ),
    // It says that it is newer, and has no hash that could say otherwise.
    (Repo, &[Bit("format")], NOTHING),
    // Another repository's: a machine that has met the tenant knows which it was.
    (Repo, &[Bit("hex digit")], [NO, Fine, NO, Warned, Fine, Warned, Found, Found]),
    (Repo, &[Doubled], NOBODY),
    (Tenant, &[Missing, Truncated, Grown, Zeroed, Renamed, SwappedTenant], READ),
    (Tenant, &[Bit("format"), Bit("type"), Bit("cipher"), Bit("id"), Bit("suite"), Bit("public key")], READ),
    (Tenant, &[Bit("verifying key"), Bit("signature"), Bit("closing hash"), Rehashed("public key")], READ),
    (Tenant, &[Rehashed("format")], NOTHING),
    (Tenant, &[Doubled], NOBODY),
    (Slot, &[Truncated, Grown, Zeroed, SwappedTenant, Old], THIS_KEY),
    (
        Slot,
        &[Bit("format"), Bit("type"), Bit("cipher"), Bit("kind"), Bit("salt"), Bit("sealed"), Bit("tag")],
        THIS_KEY,
    ),
    (Slot, &[Bit("tenant id"), Bit("closing hash"), Rehashed("format"), Rehashed("sealed")], THIS_KEY),
    (Slot, &[Missing, Renamed], KEY_UNKNOWN),
    (Slot, &[Swapped], THIS_KEY),
    // No key has it, and it opens nothing.
    (Slot, &[Doubled], NOBODY),
    (OtherSlot, &[Missing, Truncated, Grown, Zeroed, Renamed, SwappedTenant], NAMED),
    (OtherSlot, &[Doubled, Old], NOBODY),
    (
        OtherSlot,
        &[Bit("format"), Bit("type"), Bit("cipher"), Bit("kind"), Bit("salt"), Bit("sealed"), Bit("tag")],
        NAMED,
    ),
    (OtherSlot, &[Bit("tenant id"), Bit("closing hash")], NAMED),
    (OtherSlot, &[Swapped], THIS_KEY),
    // A machine that has seen none cannot know that there was a newer one.
    (Signers, &[Missing], [NO, Fine, NO, Warned, Fine, Warned, Found, Found]),
    (Signers, &[Truncated, Grown, Zeroed, Renamed, Doubled, Swapped, SwappedTenant, Old], READ),
    (Signers, &[Bit("format"), Bit("type"), Bit("cipher"), Bit("salt"), Bit("signer"), Bit("signature")], READ),
    (Signers, &[Bit("payload"), Bit("tag"), Bit("closing hash"), Rehashed("payload")], READ),
    (Signers, &[Rehashed("format")], NOTHING),
    (OldSigners, &[Missing, Truncated, Grown, Zeroed, Swapped, SwappedTenant, Old], NAMED),
    (OldSigners, &[Bit("format"), Bit("type"), Bit("cipher"), Bit("salt"), Bit("signer"), Bit("signature")], NAMED),
    (OldSigners, &[Bit("payload"), Bit("tag"), Bit("closing hash")], NAMED),
    // It passes for the newest.
    (OldSigners, &[Renamed, Doubled], READ),
    (Session, &[Missing], NOBODY),
    (Session, &[Truncated, Grown, Zeroed, Renamed, Doubled, SwappedTenant], NAMED),
    (Session, &[Bit("format"), Bit("type"), Bit("cipher"), Bit("salt"), Bit("signer"), Bit("signature")], NAMED),
    (Session, &[Bit("payload"), Bit("tag"), Bit("closing hash"), Rehashed("format"), Rehashed("payload")], NAMED),
    (
        Data,
        &[Missing, Truncated, Renamed, Swapped, SwappedTenant, Old],
        [Warned, Warned, Warned, LACKS, LACKS, Fine, Found, Found],
    ),
    (Data, &[Grown], [Warned, Warned, Warned, Fine, Fine, Fine, Found, Found]),
    (
        Data,
        &[
            Zeroed,
            Bit("format"),
            Bit("type"),
            Bit("cipher"),
            Bit("encapsulated key"),
            Bit("data key"),
            Bit("first frame"),
        ],
        [Rests, Rests, Rests, LACKS, LACKS, Fine, Unread, Found],
    ),
    // Neither is needed to read its frames.
    (
        Data,
        &[Bit("directory"), Bit("trailer"), Bit("closing hash"), Doubled],
        [Fine, Fine, Fine, Fine, Fine, Fine, Unread, Found],
    ),
    (
        Tree,
        &[Missing, Truncated, Renamed, Swapped, SwappedTenant, Old],
        [Warned, Warned, Warned, LACKS, LACKS, LISTS, Found, Found],
    ),
    (Tree, &[Grown], [Warned, Warned, Warned, Fine, Fine, Fine, Found, Found]),
    // A machine that knows nothing reads the trees of the newest snapshot; another has no need to.
    (
        Tree,
        &[
            Zeroed,
            Bit("format"),
            Bit("type"),
            Bit("cipher"),
            Bit("encapsulated key"),
            Bit("data key"),
            Bit("first frame"),
        ],
        [Rests, Warned, Rests, LACKS, LACKS, LISTS, Found, Found],
    ),
    (
        Tree,
        &[Bit("directory"), Bit("trailer"), Bit("closing hash"), Doubled],
        [Fine, Fine, Fine, Fine, Fine, Fine, Unread, Found],
    ),
    (Index, &[Missing, Renamed], [Warned, Warned, Warned, LACKS, LACKS, LISTS, Found, Found]),
    // A machine that has read it when it was whole does not read it again.
    (
        Index,
        &[Truncated, Grown, Zeroed, Swapped, SwappedTenant, Old],
        [Rests, Warned, Rests, Fine, LACKS, Fine, Found, Found],
    ),
    (
        Index,
        &[Bit("format"), Bit("type"), Bit("cipher"), Bit("salt"), Bit("signer"), Bit("signature"), Bit("payload")],
        [Rests, Warned, Rests, Fine, LACKS, Fine, Found, Found],
    ),
    (Index, &[Bit("tag"), Bit("closing hash")], [Rests, Warned, Rests, Fine, LACKS, Fine, Found, Found]),
    (Index, &[Doubled], [Warned, Warned, Warned, Warned, Warned, Warned, Found, Found]),
    // The newest one: only a machine that has seen it can miss it.
    (Snapshot, &[Missing], [Warned, Fine, Fine, Warned, Fine, Warned, Found, Found]),
    (
        Snapshot,
        &[Truncated, Grown, Zeroed, Doubled, Swapped, SwappedTenant, Old],
        [Fine, Warned, Fine, Warned, Warned, Warned, Found, Found],
    ),
    (Snapshot, &[Renamed], [Warned, Warned, Fine, Warned, Warned, Warned, Found, Found]),
    // Its header is read by whoever compares with it.
    (
        Snapshot,
        &[Bit("format"), Bit("type"), Bit("cipher"), Rehashed("format")],
        [Warned, Warned, Fine, Warned, Warned, Warned, Found, Found],
    ),
    (
        Snapshot,
        &[Bit("encapsulated key"), Bit("data key"), Bit("signer"), Bit("payload"), Bit("tag"), Bit("closing hash")],
        [Fine, Warned, Fine, Warned, Warned, Warned, Found, Found],
    ),
    (Snapshot, &[Rehashed("payload")], [Fine, Warned, Fine, Warned, Warned, Warned, Found, Found]),
    // Whatever lies there holds.
    (Hold, &[Missing], NOBODY),
    (Hold, &[Truncated, Grown, Zeroed, Renamed, Doubled], NAMED),
    (Hold, &[Bit("format"), Bit("type"), Bit("cipher"), Bit("salt"), Bit("signer"), Bit("signature")], NAMED),
    (Hold, &[Bit("payload"), Bit("tag"), Bit("closing hash"), Rehashed("format"), Rehashed("payload")], NAMED),
    // What it says nobody misses but who leads to it: here nobody does.
    (Forgotten, &[Missing], NOBODY),
    (Forgotten, &[Truncated, Grown, Zeroed, Renamed, Doubled], NAMED),
    (Forgotten, &[Bit("format"), Bit("type"), Bit("cipher"), Bit("salt"), Bit("signer"), Bit("signature")], NAMED),
    (Forgotten, &[Bit("payload"), Bit("tag"), Bit("closing hash"), Rehashed("format"), Rehashed("payload")], NAMED),
    // The one before is in force again: what is read whole is taken off it.
    (Damaged, &[Missing], [Warned, Warned, Warned, Fine, Fine, Fine, Found, Fine]),
    (Damaged, &[Truncated, Grown, Zeroed, Renamed, Doubled, Swapped, Old], DOUBTED),
    (Damaged, &[Bit("format"), Bit("type"), Bit("cipher"), Bit("salt"), Bit("signer"), Bit("signature")], DOUBTED),
    (Damaged, &[Bit("payload"), Bit("tag"), Bit("closing hash"), Rehashed("payload")], DOUBTED),
    // Where a newer program has written, an older one writes no more.
    (Damaged, &[Rehashed("format")], [NO, NO, NO, Fine, Fine, Fine, Found, Found]),
];

/// Whoever writes says so, and goes by what else there is.
const DOUBTED: [Outcome; 8] = [Warned, Warned, Warned, Fine, Fine, Fine, Found, Found];

/// As [`THIS_KEY`]: nothing tells it from a key that was never admitted.
const KEY_UNKNOWN: [Outcome; 8] = {
    const NO: Outcome = Outcome::Refused(12);
    [NO, NO, Fine, NO, NO, NO, NO, NO]
};

/// What a check without a key says of each damage: hashes and names are all that it has. Damages that a kind
/// does not know are passed over.
pub const WITHOUT_KEY: &[(&[Kind], &[Damage], Outcome)] = &[
    (&Kind::ALL, &[Truncated, Grown], Found),
    (&[Repo], &[Zeroed, Missing, Renamed], Found),
    (&[Tenant], &[Zeroed, Missing, Renamed], Found),
    (&[Slot, OtherSlot, Signers, OldSigners, Session, Data, Tree, Index, Snapshot], &[Zeroed], Found),
    (&[Hold, Forgotten, Damaged], &[Zeroed], Found),
    (&[Hold, Forgotten, Damaged], &[Missing, Renamed, Doubled, Swapped, Old], Unread),
    // Every version of the list stays; the newest may be the one before.
    (&[OldSigners], &[Missing, Renamed], Found),
    (&[Signers], &[Missing], Unread),
    (&[Signers], &[Renamed], Found),
    // Nothing says without a key that they were there, nor which of their kind they were.
    (&[Slot, OtherSlot, Session, Data, Tree, Index, Snapshot], &[Missing], Unread),
    (&[Slot, OtherSlot, Session, Snapshot], &[Renamed, Swapped, SwappedTenant, Old], Unread),
    (&[Tenant, Signers, OldSigners], &[Swapped, SwappedTenant, Old], Unread),
    // Their names are their hashes.
    (&[Data, Tree, Index], &[Renamed, Doubled, Swapped, SwappedTenant, Old], Found),
    (&[Repo, Tenant, Slot, OtherSlot, Signers, OldSigners, Session, Snapshot], &[Doubled], Unread),
];

/// The same of one bit.
pub fn bit_without_key(kind: Kind, damage: Damage) -> Outcome {
    match (kind, damage) {
        (Repo, Bit("format")) => NO,
        // It has no hash.
        (Repo, Bit("hex digit")) => Unread,
        (_, Bit(_) | Rehashed("format")) => Found,
        // What was changed on purpose a hash without a key cannot show.
        _ => Unread,
    }
}
