//! mlock, mlock2, munlock, mlockall, munlockall: memory that stays resident.

use bitflags::bitflags;
use pagelab_abi::addr::{GuestVirt, PAGE_SHIFT};
use pagelab_abi::layout::USER_END;

use crate::area::{Area, AreaFlags};
use crate::error::{FaultError, MmError};
use crate::machine::Machine;
use crate::memory::Memory;
use crate::modify::Holes;
use crate::populate::{Populate, Stopped};
use crate::space::{AddressSpace, page_round_up};

bitflags! {
    /// Linux's `MCL_*`, with Linux's values.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct LockAll: u32 {
        /// What is mapped now.
        const CURRENT = 1;
        /// What will be mapped.
        const FUTURE = 2;
        /// Only pages that are touched, as they are touched.
        const ON_FAULT = 4;
    }
}

/// The flags that locking is about.
const LOCK_FLAGS: AreaFlags = AreaFlags::LOCKED.union(AreaFlags::LOCK_ON_FAULT);

impl AddressSpace {
    /// Locks a range, `on_fault` or at once.
    ///
    /// # Errors
    ///
    /// `NotPermitted`, `LockLimit`, `NotMapped` (a hole, or a page that cannot
    /// be made present), `LockLimitAgain` (no frames), `NeedsPage`: bring it in
    /// and call again.
    pub fn mlock<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        address: GuestVirt,
        length: u64,
        on_fault: bool,
    ) -> Result<(), MmError> {
        self.check_may_lock()?;
        let Some((start, end)) = lock_range(address, length)? else { return Ok(()) };
        self.check_lock_total(start, end)?;
        let flags = if on_fault { LOCK_FLAGS } else { AreaFlags::LOCKED };
        self.set_lock(memory, start, end, flags)?;
        self.populate(memory, start, end, Populate::Locking, false).map_err(lock_error)
    }

    /// Unlocks a range.
    ///
    /// # Errors
    ///
    /// `NotMapped` (a hole), `TooManyAreas`.
    pub fn munlock<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        address: GuestVirt,
        length: u64,
    ) -> Result<(), MmError> {
        let Some((start, end)) = lock_range(address, length)? else { return Ok(()) };
        self.set_lock(memory, start, end, AreaFlags::empty())
    }

    /// Locks everything.
    ///
    /// # Errors
    ///
    /// `Invalid` (`flags` empty or only `ON_FAULT`), `NotPermitted`, `LockLimit`,
    /// `NeedsPage`: bring it in and call again. Other pages that cannot be made
    /// present are passed over.
    pub fn mlockall<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        flags: LockAll,
    ) -> Result<(), MmError> {
        if flags.is_empty() || flags == LockAll::ON_FAULT || flags != flags & LockAll::all() {
            return Err(MmError::Invalid);
        }
        self.check_may_lock()?;
        let current = flags.contains(LockAll::CURRENT);
        let over = self.sizes.total > self.limits.locked >> PAGE_SHIFT;
        if current && over && !self.limits.may_lock {
            return Err(MmError::LockLimit);
        }
        let on_fault = flags.contains(LockAll::ON_FAULT);
        let lock = if on_fault { LOCK_FLAGS } else { AreaFlags::LOCKED };
        self.lock_future = if flags.contains(LockAll::FUTURE) { lock } else { AreaFlags::empty() };
        if !current {
            return Ok(());
        }
        self.set_lock_everywhere(memory, lock)?;
        self.populate(memory, GuestVirt(0), USER_END, Populate::Mapping, false).map_err(lock_error)
    }

    /// Unlocks everything.
    ///
    /// # Errors
    ///
    /// `OutOfMemory`, if there is no heap left.
    pub fn munlockall<M: Machine>(&mut self, memory: &Memory<M>) -> Result<(), MmError> {
        self.lock_future = AreaFlags::empty();
        self.set_lock_everywhere(memory, AreaFlags::empty())
    }

    fn check_may_lock(&self) -> Result<(), MmError> {
        if self.limits.locked == 0 && !self.limits.may_lock {
            return Err(MmError::NotPermitted);
        }
        Ok(())
    }

    /// `RLIMIT_MEMLOCK`, with what is locked already counted once.
    fn check_lock_total(&self, start: GuestVirt, end: GuestVirt) -> Result<(), MmError> {
        let already: u64 = self
            .areas
            .overlapping(start, end)
            .filter(|area| area.flags.contains(AreaFlags::LOCKED))
            .map(|area| (area.end.min(end).0 - area.start.max(start).0) >> PAGE_SHIFT)
            .sum();
        let locked = self.sizes.locked - already + ((end.0 - start.0) >> PAGE_SHIFT);
        if locked > self.limits.locked >> PAGE_SHIFT && !self.limits.may_lock {
            return Err(MmError::LockLimit);
        }
        Ok(())
    }

    fn set_lock<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        start: GuestVirt,
        end: GuestVirt,
        flags: AreaFlags,
    ) -> Result<(), MmError> {
        self.check_splits(start, end)?;
        self.modify_areas(memory, start, end, Holes::Stop, |_, part| Ok(locked(part, flags)))
    }

    fn set_lock_everywhere<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        flags: AreaFlags,
    ) -> Result<(), MmError> {
        let change = |_: &mut Self, part: &Area| Ok(locked(part, flags));
        match self.modify_areas(memory, GuestVirt(0), USER_END, Holes::PassOver, change) {
            Err(MmError::NotMapped) => Ok(()),
            result => result,
        }
    }
}

fn locked(part: &Area, flags: AreaFlags) -> Area {
    if part.flags.contains(AreaFlags::SPECIAL) {
        return *part;
    }
    Area { flags: (part.flags - LOCK_FLAGS) | flags, ..*part }
}

/// The pages that hold a range of bytes; `None` if it is empty. As on Linux the
/// length may wrap around to nothing, but the end may not.
fn lock_range(address: GuestVirt, length: u64) -> Result<Option<(GuestVirt, GuestVirt)>, MmError> {
    let start = address.page_start();
    let length = page_round_up(length.wrapping_add(address.page_offset())).unwrap_or(0);
    let end = start.checked_add(length).ok_or(MmError::Invalid)?;
    Ok((start < end).then_some((start, end)))
}

/// What Linux makes of a page that cannot be made present.
const fn lock_error(stopped: Stopped) -> MmError {
    match stopped.error {
        FaultError::NeedsPage(page) => MmError::NeedsPage(page),
        FaultError::OutOfMemory => MmError::LockLimitAgain,
        FaultError::NoMapping | FaultError::Forbidden | FaultError::NoBacking => MmError::NotMapped,
    }
}
