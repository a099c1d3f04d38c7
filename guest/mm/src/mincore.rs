//! mincore: which pages are in memory.

use pagelab_abi::addr::{GuestVirt, PAGE_SHIFT, PAGE_SIZE};

use crate::area::Area;
use crate::error::MmError;
use crate::machine::Machine;
use crate::memory::Memory;
use crate::object::Page;
use crate::space::{AddressSpace, user_range};
use crate::table;

impl AddressSpace {
    /// Calls `report` with number and residency of each page of a range, until
    /// the first that is not mapped. A page of an object is resident if the
    /// object has it, mapped or not; one that is in swap, if the swap cache has it.
    ///
    /// # Errors
    ///
    /// `Invalid` (unaligned), `NotMapped` (also for what is not user space).
    pub fn mincore<M: Machine>(
        &self,
        memory: &Memory<M>,
        address: GuestVirt,
        length: u64,
        mut report: impl FnMut(u64, bool),
    ) -> Result<(), MmError> {
        let (start, end) = user_range(address, length, MmError::NotMapped)?;
        let mut at = start;
        while at < end {
            let area = self.area_at(at).ok_or(MmError::NotMapped)?;
            let stop = area.end.min(end);
            while at < stop {
                let entry = table::entry_at(&memory.machine, self.root, at);
                let resident = match entry.swap_slot() {
                    Some(slot) => memory.is_cached(slot),
                    None => entry.is_present() || in_object(memory, area, at),
                };
                report((at.0 - start.0) >> PAGE_SHIFT, resident);
                at.0 += PAGE_SIZE;
            }
        }
        Ok(())
    }
}

fn in_object<M: Machine>(memory: &Memory<M>, area: &Area, address: GuestVirt) -> bool {
    area.object().is_some_and(|object| {
        let index = area.index_of(address);
        matches!(memory.objects.lookup(&memory.machine, object, index).0, Page::Present(_))
    })
}
