//! brk: the heap behind the program's data.

use pagelab_abi::addr::{GuestVirt, PAGE_SHIFT, PAGE_SIZE};
use pagelab_abi::layout::USER_END;

use crate::area::AreaFlags;
use crate::areas::MAX_AREAS;
use crate::error::MmError;
use crate::machine::Machine;
use crate::memory::Memory;
use crate::populate::Populate;
use crate::space::{AddressSpace, page_round_up};

impl AddressSpace {
    /// Says where the heap starts: behind the program's data, at a page. `data`
    /// is the size of that data in bytes, which `RLIMIT_DATA` counts.
    pub fn set_heap(&mut self, start: GuestVirt, data: u64) {
        self.heap_start = start;
        self.heap_end = start;
        self.program_data = data;
    }

    /// Start and end of the heap; the end need not be at a page.
    #[must_use]
    pub const fn heap(&self) -> (GuestVirt, GuestVirt) {
        (self.heap_start, self.heap_end)
    }

    /// Moves the end of the heap and returns where it is now: where it was, if
    /// it cannot be moved.
    pub fn brk<M: Machine>(&mut self, memory: &Memory<M>, end: GuestVirt) -> GuestVirt {
        if self.try_brk(memory, end).is_ok() {
            self.heap_end = end;
        }
        self.heap_end
    }

    fn try_brk<M: Machine>(&mut self, memory: &Memory<M>, end: GuestVirt) -> Result<(), MmError> {
        if end < self.heap_start {
            return Err(MmError::Invalid);
        }
        let size = (end.0 - self.heap_start.0).saturating_add(self.program_data);
        if size > self.limits.data {
            return Err(MmError::OverLimit);
        }
        let aligned = |address: GuestVirt| page_round_up(address.0).map(GuestVirt);
        let old = aligned(self.heap_end).ok_or(MmError::NoSpace)?;
        let new = aligned(end).filter(|&new| new <= USER_END).ok_or(MmError::NoSpace)?;
        if new < old {
            if self.areas.overlapping(new, old).next().is_none() {
                return Err(MmError::NotMapped);
            }
            self.check_hole(new, old)?;
            self.areas.reserve(2)?;
            self.unmap_range(memory, new, old);
        } else if new > old {
            self.grow_heap(memory, old, new)?;
        }
        Ok(())
    }

    fn grow_heap<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        start: GuestVirt,
        end: GuestVirt,
    ) -> Result<(), MmError> {
        let pages = (end.0 - start.0) >> PAGE_SHIFT;
        let flags =
            AreaFlags::ACCOUNTED | AreaFlags::MAY_WRITE | AreaFlags::SOFT_DIRTY | self.lock_future;
        self.check_lock_limit(flags, pages << PAGE_SHIFT)?;
        // A page between heap and neighbour stays free.
        let next = self.areas.find(start).map(|place| self.areas.get(place).guarded_start());
        if next.is_some_and(|next| end.0 + PAGE_SIZE > next.0) {
            return Err(MmError::NoSpace);
        }
        self.check_limits(pages, true)?;
        if self.areas.len() > MAX_AREAS {
            return Err(MmError::TooManyAreas);
        }
        self.add_anonymous(memory, start, end, flags)?;
        self.merge(memory, start, end);
        if flags.contains(AreaFlags::LOCKED) {
            // As on Linux the heap has grown even if frames run out here.
            let _ = self.populate(memory, start, end, Populate::Mapping, false);
        }
        Ok(())
    }
}
