//! What calls leave behind on the stack. Keys are wiped where they are kept, but on their way there
//! they are moved and hashed, and each call leaves its frame as it was. Whoever has made such calls
//! overwrites what they left, before it does anything else.

use zeroize::Zeroize;

/// Several times what the calls that handle keys leave behind, the public-key ones among them; and
/// little enough for the stack of any thread.
const DEPTH: usize = 128 * 1024;

/// Does the work of a thread that handles keys: when it ends, its stack may be kept for the next thread.
pub fn wiped<T>(work: impl FnOnce() -> T) -> T {
    #[inline(never)]
    fn apart<T>(work: impl FnOnce() -> T) -> T {
        work()
    }
    let done = apart(work);
    wipe();
    done
}

/// Overwrites what calls that have returned left behind.
#[inline(never)]
pub fn wipe() {
    let mut dead = [0u8; DEPTH];
    dead.zeroize();
    std::hint::black_box(&dead);
}
