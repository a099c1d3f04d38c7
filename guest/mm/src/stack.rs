//! The stack: its area, and its growth on faults below it.

use pagelab_abi::addr::{GuestVirt, PAGE_SHIFT, PAGE_SIZE};

use crate::area::{Area, AreaFlags, STACK_GUARD_PAGES};
use crate::areas::Place;
use crate::error::{FaultError, MmError};
use crate::fault::grows_down;
use crate::machine::Machine;
use crate::memory::Memory;
use crate::space::{AddressSpace, LOWEST};

impl AddressSpace {
    /// Maps the stack that exec makes: `pages` pages below the layout's top,
    /// growing down to `RLIMIT_STACK`.
    ///
    /// # Errors
    ///
    /// As `mmap`.
    pub fn map_stack<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        pages: u64,
    ) -> Result<GuestVirt, MmError> {
        let end = self.layout.stack_top;
        let start = GuestVirt(end.0.checked_sub(pages * PAGE_SIZE).ok_or(MmError::NoSpace)?);
        if self.areas.overlapping(start, end).next().is_some() {
            return Err(MmError::AlreadyMapped);
        }
        self.check_limits(pages, false)?;
        let flags = AreaFlags::GROWS_DOWN
            | AreaFlags::STACK
            | AreaFlags::ACCOUNTED
            | AreaFlags::MAY_WRITE
            | AreaFlags::SOFT_DIRTY;
        self.add_anonymous(memory, start, end, flags)?;
        Ok(start)
    }

    /// Grows the area above `address`, if it is one that grows down and may.
    #[cold]
    pub(crate) fn grow_stack<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        address: GuestVirt,
    ) -> Result<Place, FaultError> {
        let place = self.areas.find(address).ok_or(FaultError::NoMapping)?;
        let start = address.page_start();
        let clear = self.is_clear_below(place, start);
        if !grows_down(self.areas.get(place)) || start < LOWEST || !clear {
            return Err(FaultError::NoMapping);
        }
        // Linux does this here too, so that the page offset stays from now on.
        if self.areas.get(place).family == 0 {
            self.adopt_family(place);
        }
        let area = *self.areas.get(place);
        if !self.may_grow(&area, start) {
            return Err(FaultError::NoMapping);
        }
        let pages = (area.start.0 - start.0) >> PAGE_SHIFT;
        if area.flags.contains(AreaFlags::ACCOUNTED) {
            memory.promise(pages, self.sizes.total).map_err(|_| FaultError::NoMapping)?;
        }
        self.count_area(&area, false);
        let grown = Area { start, offset: area.offset.wrapping_sub(pages), ..area };
        self.count_area(&grown, true);
        self.areas.replace(place, grown);
        Ok(place)
    }

    /// The guard gap to what lies below.
    fn is_clear_below(&self, place: Place, start: GuestVirt) -> bool {
        let Some(below) = self.areas.previous(place).map(|below| self.areas.get(below)) else {
            return true;
        };
        let guarded = !grows_down(below) && !below.protection.is_empty();
        !guarded || start.0 - below.end.0 >= STACK_GUARD_PAGES * PAGE_SIZE
    }

    /// The limits of growth: `RLIMIT_STACK`, `RLIMIT_AS`, locked memory.
    fn may_grow(&self, area: &Area, start: GuestVirt) -> bool {
        let pages = (area.start.0 - start.0) >> PAGE_SHIFT;
        if area.offset < pages || area.end.0 - start.0 > self.limits.stack {
            return false;
        }
        if self.check_limits(pages, false).is_err() {
            return false;
        }
        let locked = self.sizes.locked + pages;
        let over = locked > self.limits.locked >> PAGE_SHIFT && !self.limits.may_lock;
        !(area.flags.contains(AreaFlags::LOCKED) && over)
    }
}
