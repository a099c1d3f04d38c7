//! Dirty pages of objects with a store, and how they become clean.
//!
//! A shared writable mapping of such an object ([`AreaFlags::NOTIFY_WRITE`])
//! shows clean pages read-only; the first write faults ([`WriteNotify`]) and
//! makes the frame dirty. Before a page is written to its store it is made clean
//! again: read-only for all who map it, so that the next write is noticed. What
//! is written while the store is busy makes it dirty again.
//!
//! [`AreaFlags::NOTIFY_WRITE`]: crate::AreaFlags::NOTIFY_WRITE
//! [`WriteNotify`]: pagelab_abi::fault::FaultKind::WriteNotify

use pagelab_abi::addr::Frame;
use pagelab_paging::EntryFlags;

use crate::machine::Machine;
use crate::memory::Memory;
use crate::object::ObjectId;
use crate::rmap::{Search, Spaces};

/// What an entry has that was, or may be, written through.
const WRITTEN: EntryFlags = EntryFlags::WRITABLE.union(EntryFlags::DIRTY);

impl<M: Machine> Memory<M> {
    /// Makes pages of an object in a row clean, the first of which is number `index`,
    /// for everybody who maps them. They are these frames. The caller writes them to
    /// the store next, and says so if that fails
    /// ([`crate::frames::Held::set_dirty`]).
    pub fn clean_pages<S: Spaces + ?Sized>(
        &self,
        spaces: &S,
        (object, index): (ObjectId, u64),
        frames: &[Frame],
    ) {
        {
            let mut held = self.frames.hold();
            frames.iter().for_each(|&frame| held.set_dirty(frame, false));
        }
        let place = (object, index);
        let count = frames.len() as u64;
        Search::new(self, spaces).for_each_of_run(place, count, &mut |_, edits, shown| {
            let span = &shown.span;
            for (slot, frame) in (span.first..span.end).zip(&frames[shown.place..]) {
                let entry = edits.machine().read_entry(span.table, slot);
                if entry.is_present()
                    && entry.frame() == *frame
                    && entry.flags().intersects(WRITTEN)
                {
                    let entry = entry.without(WRITTEN);
                    edits.replace(span.table, slot, span.address_of(slot), entry);
                }
            }
            true
        });
    }
}
