//! What the threads of a reading share: the blobs on which frames rest that are
//! still to come, and which frames are being decoded. Holds no more than
//! `limits::READ_KEPT` bytes, and never believes a blob: whoever takes one holds
//! it against its id.
//!
//! A frame is in one pair of hands at a time. Were it in two, the first could
//! let go of its bases while the second is about to ask for them: they would be
//! decoded again from the ground, and so would theirs.

use crate::limits;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A frame's number in a plan.
pub type FrameNumber = u32;

/// A blob on which frames rest that are still to come.
struct KeptBlob {
    len: u32,
    uses: u32,
    bytes: Option<Arc<[u8]>>,
}

#[derive(Default)]
struct Inner {
    /// By frame and place in it; what does not fit has no bytes and is decoded again.
    blobs: BTreeMap<(FrameNumber, u32), KeptBlob>,
    bytes: usize,
    /// Frames that are being decoded.
    held: HashSet<FrameNumber>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Kept {
    inner: Mutex<Inner>,
    let_go: Condvar,
}

/// A frame that no other thread decodes meanwhile.
pub(super) struct Hold<'k> {
    kept: &'k Kept,
    frame: FrameNumber,
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.kept.lock().held.remove(&self.frame);
        self.kept.let_go.notify_all();
    }
}

impl Kept {
    /// With the blobs on which something rests, once for each time: frame, place in it, length.
    pub(super) fn new(bases: impl Iterator<Item = (FrameNumber, u32, u32)>) -> Self {
        let mut inner = Inner::default();
        for (frame, at, len) in bases {
            let blob = inner.blobs.entry((frame, at)).or_insert(KeptBlob { len, uses: 0, bytes: None });
            blob.uses += 1;
        }
        Self { inner: Mutex::new(inner), let_go: Condvar::new() }
    }

    /// Waits until no other thread decodes a frame. Whoever holds a frame waits only for frames of less
    /// depth, so none waits for ever.
    pub(super) fn hold(&self, frame: FrameNumber) -> Hold<'_> {
        let mut inner = self.lock();
        while !inner.held.insert(frame) {
            inner = self.let_go.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        Hold { kept: self, frame }
    }

    /// A blob of a frame, if it is kept.
    pub(super) fn get(&self, frame: FrameNumber, at: u32, len: u32) -> Option<Arc<[u8]>> {
        self.lock().blobs.get(&(frame, at)).filter(|blob| blob.len == len)?.bytes.clone()
    }

    /// Keeps what others need of a frame.
    pub(super) fn keep(&self, frame: FrameNumber, plain: &[u8]) {
        let inner = &mut *self.lock();
        for ((_, at), blob) in inner.blobs.range_mut((frame, 0)..=(frame, u32::MAX)) {
            let Some(bytes) = plain.get(*at as usize..*at as usize + blob.len as usize) else { continue };
            if blob.bytes.is_none() && inner.bytes + bytes.len() <= limits::READ_KEPT {
                inner.bytes += bytes.len();
                blob.bytes = Some(bytes.into());
            }
        }
    }

    /// One less that rests on each of these: frame, place in it.
    pub(super) fn release(&self, bases: impl Iterator<Item = (FrameNumber, u32)>) {
        let inner = &mut *self.lock();
        for base in bases {
            let Entry::Occupied(mut blob) = inner.blobs.entry(base) else { continue };
            blob.get_mut().uses -= 1;
            if blob.get().uses == 0
                && let Some(gone) = blob.remove().bytes
            {
                inner.bytes -= gone.len();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::Duration;

    #[test]
    fn a_blob_is_kept_until_nothing_more_rests_on_it() {
        let kept = Kept::new([(0, 1, 2), (0, 1, 2), (1, 0, 3)].into_iter());
        assert_eq!(kept.get(0, 1, 2), None);
        kept.keep(0, b"abcd");
        assert_eq!(kept.get(0, 1, 2).as_deref(), Some(&b"bc"[..]));
        assert_eq!(kept.get(0, 1, 3), None, "another length is another blob");
        kept.release([(0, 1)].into_iter());
        assert_eq!(kept.get(0, 1, 2).as_deref(), Some(&b"bc"[..]));
        kept.release([(0, 1)].into_iter());
        assert_eq!(kept.get(0, 1, 2), None);
        kept.keep(0, b"abcd");
        assert_eq!(kept.get(0, 1, 2), None, "nobody asks for it any more");
        assert_eq!(kept.lock().bytes, 0);
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for() {
        let len = limits::READ_KEPT as u32;
        let kept = Kept::new([(0, 0, len), (1, 0, 1)].into_iter());
        kept.keep(0, &vec![7; len as usize]);
        kept.keep(1, b"x");
        assert_eq!(kept.get(1, 0, 1), None);
        kept.release([(0, 0)].into_iter());
        kept.keep(1, b"x");
        assert_eq!(kept.get(1, 0, 1).as_deref(), Some(&b"x"[..]));
    }

    #[test]
    fn a_frame_is_in_one_pair_of_hands() {
        let kept = Kept::default();
        let first = kept.hold(3);
        let is_gone = AtomicBool::new(false);
        thread::scope(|scope| {
            let second = scope.spawn(|| {
                drop(kept.hold(4));
                let _held = kept.hold(3);
                assert!(is_gone.load(Ordering::SeqCst), "the first still held it");
            });
            thread::sleep(Duration::from_millis(50));
            is_gone.store(true, Ordering::SeqCst);
            drop(first);
            second.join().unwrap();
        });
    }
}
