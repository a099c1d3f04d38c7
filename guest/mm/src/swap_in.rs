//! A fault on a page that is in swap.

use pagelab_abi::addr::Frame;
use pagelab_abi::fault::FaultKind;
use pagelab_paging::{Entry, EntryFlags};

use crate::area::{AreaFlags, Protection};
use crate::error::{FaultError, NeedsPage};
use crate::fault::{Fault, Resolved, WRITTEN};
use crate::live;
use crate::machine::Machine;
use crate::object::Page;
use crate::space::AddressSpace;

impl AddressSpace {
    /// Maps what `slot` holds, which `entry` holds: from the swap cache, once the
    /// kernel has brought it there. Who is alone with it may write it; others share
    /// it as they did before, and get a copy if they write.
    pub(crate) fn swap_in<M: Machine>(
        &mut self,
        fault: &Fault<'_, M>,
        (entry, slot): (Entry, u64),
    ) -> Result<Resolved, FaultError> {
        let memory = fault.memory;
        let object = memory.swap.object().ok_or(FaultError::NoBacking)?;
        let (page, _) = memory.objects.lookup_shared(&memory.machine, memory.frames, object, slot);
        let Page::Present(frame) = page else {
            return Err(FaultError::NeedsPage(NeedsPage { object, index: slot }));
        };
        memory.release_slot(slot);
        let entry = self.returned(fault, entry, frame);
        live::fill(&memory.machine, fault.slot, entry);
        self.resident.anonymous += 1;
        self.swapped -= 1;
        let mut after = Some(frame);
        if fault.access.write && !entry.has(EntryFlags::WRITABLE) {
            after = self.copy_on_write(fault, entry)?.after;
        }
        Ok(Resolved { kind: FaultKind::SwapIn, before: None, after })
    }

    /// The entry for a frame that came back; `entry` is what was there.
    fn returned<M: Machine>(&self, fault: &Fault<'_, M>, entry: Entry, frame: Frame) -> Entry {
        let mut held = fault.memory.frames.hold();
        held.set_page(frame, fault.page);
        let soft_dirty = entry.flags() & EntryFlags::SOFT_DIRTY;
        let mut flags = fault.area.entry_flags() | EntryFlags::ACCESSED | soft_dirty;
        if held.count(frame) > 1 {
            return Entry::for_frame(frame, flags | EntryFlags::COPY_ON_WRITE);
        }
        let noticed = fault.area.flags.contains(AreaFlags::SOFT_DIRTY) || !soft_dirty.is_empty();
        if fault.access.write {
            flags |= WRITTEN;
        } else if noticed && fault.area.protection.contains(Protection::WRITE) {
            flags |= EntryFlags::WRITABLE;
        }
        Entry::for_frame(frame, flags)
    }
}
