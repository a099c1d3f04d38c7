//! `MADV_PAGEOUT`: pages that a program says it will not need for long go at
//! once, as if memory ran short. As on Linux only those that nobody else maps.
//!
//! The advice itself makes them unused (see [`crate::madvise`]); with the address
//! space unlocked again the kernel asks for their frames and has them taken.

use pagelab_abi::addr::{Frame, GuestVirt};
use pagelab_paging::EntryFlags;

use crate::machine::Machine;
use crate::memory::Memory;
use crate::owner::Owner;
use crate::reclaim::{EITHER, Pager, Reclaimed, Sweep};
use crate::rmap::Wanted;
use crate::space::AddressSpace;
use crate::table;

impl AddressSpace {
    /// The frames that a range shows, as many as fit: how many, and where to go on.
    pub fn mapped_frames<M: Machine>(
        &self,
        memory: &Memory<M>,
        (start, end): (GuestVirt, GuestVirt),
        into: &mut [Frame],
    ) -> (usize, GuestVirt) {
        let (mut count, mut next) = (0, end);
        table::for_each(&memory.machine, self.root, start, end, |span| {
            for index in span.first..span.end {
                let entry = memory.machine.read_entry(span.table, index);
                if !entry.is_present() || entry.has(EntryFlags::SPECIAL) {
                    continue;
                }
                let Some(place) = into.get_mut(count) else {
                    next = span.address_of(index);
                    return false;
                };
                *place = entry.frame();
                count += 1;
            }
            true
        });
        (count, next)
    }
}

impl<M: Machine> Memory<M> {
    /// Takes these frames, as far as they are unused and mapped once. No address
    /// space may be locked.
    pub fn page_out<P: Pager + ?Sized>(&self, pager: &P, frames: &[Frame]) -> Reclaimed {
        let mut sweep = Sweep::new(self, pager);
        for &frame in frames {
            let number = frame.index();
            let candidate = self.frames.hold().next_candidate(number, number + 1, EITHER);
            let Some(mut candidate) = candidate else { continue };
            let owner = Owner::decode(candidate.usage, candidate.owner);
            if Wanted::new(frame, owner, candidate.count).mappers == 1 {
                candidate.referenced = false;
                sweep.consider(&candidate);
            }
        }
        sweep.finish()
    }
}
