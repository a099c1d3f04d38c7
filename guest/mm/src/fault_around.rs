//! Fault-around: a read of a file's page maps its neighbours too, as far as they
//! are in memory already, so that a program that reads on takes no fault for
//! them.
//!
//! Their accessed bits stay clear: nobody used them yet. Programs handed over by
//! the host are left out, so that each of their pages is one fault; so are areas
//! that are read at random (`MADV_RANDOM`).

use core::sync::atomic::Ordering;

use pagelab_abi::addr::{Frame, GuestVirt, PAGE_SHIFT};
use pagelab_paging::{Entry, EntryFlags, Level};

use crate::area::{Area, AreaFlags};
use crate::live;
use crate::machine::Machine;
use crate::memory::Memory;
use crate::object::ObjectId;
use crate::space::AddressSpace;

impl AddressSpace {
    /// Maps what is in memory of the aligned window of pages around `page`, which
    /// was just mapped, within its area and its table.
    pub(crate) fn fault_around<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        (area, object): (&Area, ObjectId),
        page: GuestVirt,
        table: Frame,
    ) {
        let pages = u64::from(memory.fault_around.load(Ordering::Relaxed));
        if pages <= 1 || area.flags.contains(AreaFlags::RANDOM) {
            return;
        }
        let number = page.0 >> PAGE_SHIFT;
        let first = (number - number % pages) << PAGE_SHIFT;
        let start = first.max(area.start.0).max(page.0 & !(Level::Two.entry_size() - 1));
        let end = (first + (pages << PAGE_SHIFT))
            .min(area.end.0)
            .min((page.0 | (Level::Two.entry_size() - 1)) + 1);
        let from = area.index_of(GuestVirt(start));
        let to = area.index_of(GuestVirt(end));
        let mut flags = area.entry_flags();
        flags.set(EntryFlags::WRITABLE, area.maps_writable());
        flags.set(EntryFlags::COPY_ON_WRITE, area.is_private());
        let machine = &memory.machine;
        let mut mapped = 0;
        memory.objects.share_pages(machine, memory.frames, object, from..to, |index, frame| {
            let at = GuestVirt(start + ((index - from) << PAGE_SHIFT));
            let slot = Level::One.index(at);
            let is_free = machine.read_entry(table, slot) == Entry::EMPTY;
            if is_free {
                live::fill(machine, (table, slot), Entry::for_frame(frame, flags));
                mapped += 1;
            }
            is_free
        });
        *self.resident_of(false, area.flags) += mapped;
    }
}
