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

use pagelab_paging::EntryFlags;

use crate::machine::Machine;
use crate::memory::Memory;
use crate::object::{ObjectId, Page};
use crate::owner::Owner;
use crate::rmap::{Search, Spaces, Wanted};

impl<M: Machine> Memory<M> {
    /// Makes a page of an object clean, for everybody who maps it, and says
    /// whether it was dirty. The caller writes it to the store next, and says so if
    /// that fails ([`crate::frames::Held::set_dirty`]).
    pub fn clean_page<S: Spaces + ?Sized>(&self, spaces: &S, object: ObjectId, index: u64) -> bool {
        let (Page::Present(frame), _) = self.objects.lookup(&self.machine, object, index) else {
            return false;
        };
        let (was_dirty, count) = {
            let mut held = self.frames.hold();
            let was_dirty = held.is_dirty(frame);
            held.set_dirty(frame, false);
            (was_dirty, held.count(frame))
        };
        let wanted = Wanted::new(frame, Owner::Page { object, index }, count);
        let written = EntryFlags::WRITABLE | EntryFlags::DIRTY;
        let mut by_entry = false;
        Search::new(self, spaces).for_each(&wanted, &mut |space, mapping| {
            by_entry |= mapping.entry.has(EntryFlags::DIRTY);
            if mapping.entry.flags().intersects(written) {
                mapping.replace(&self.machine, space, mapping.entry.without(written));
            }
        });
        was_dirty || by_entry
    }
}
