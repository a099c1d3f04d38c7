//! Making pages present before they are touched: `MAP_POPULATE`, `mlock`,
//! `MADV_POPULATE_READ` and `MADV_POPULATE_WRITE`.

use pagelab_abi::addr::{GuestVirt, PAGE_SIZE};
use pagelab_paging::EntryFlags;

use crate::area::{Area, AreaFlags, Protection};
use crate::error::FaultError;
use crate::fault::Access;
use crate::machine::Machine;
use crate::memory::Memory;
use crate::space::AddressSpace;
use crate::table;

/// How pages are made present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Populate {
    /// As mappings and locks want it: private pages that may be written as if
    /// written, others as if read. Gaps and pages that cannot be had are passed
    /// over.
    Mapping,
    /// The same, but stops at gaps and failures (`mlock`).
    Locking,
    /// As if read; stops at gaps and failures.
    Read,
    /// As if written; stops at gaps and failures.
    Write,
}

/// A page could not be made present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// The page.
    pub at: GuestVirt,
    /// Why. After `NeedsPage`, bring the page in and go on from `at`, where
    /// the fault will be a major one.
    pub error: FaultError,
}

impl AddressSpace {
    /// Makes a range of pages present. `major` says that a page was just brought
    /// in for `start`.
    ///
    /// # Errors
    ///
    /// [`Stopped`]. With [`Populate::Mapping`] only for `NeedsPage` and
    /// `OutOfMemory`.
    pub fn populate<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        start: GuestVirt,
        end: GuestVirt,
        how: Populate,
        major: bool,
    ) -> Result<(), Stopped> {
        let mut at = start;
        while at < end {
            let Some(place) = self.areas.find(at) else { break };
            let area = *self.areas.get(place);
            if area.start > at {
                if how != Populate::Mapping {
                    return Err(Stopped { at, error: FaultError::NoMapping });
                }
                if area.start >= end {
                    return Ok(());
                }
                at = area.start;
            }
            let stop = area.end.min(end);
            let first_major = major && at == start;
            match self.populate_area(memory, &area, (at, stop), how, first_major) {
                Ok(()) => {}
                Err(
                    stopped @ Stopped {
                        error: FaultError::NeedsPage(_) | FaultError::OutOfMemory,
                        ..
                    },
                ) => return Err(stopped),
                Err(_) if how == Populate::Mapping => {}
                Err(stopped) => return Err(stopped),
            }
            at = stop;
        }
        if at < end && how != Populate::Mapping {
            return Err(Stopped { at, error: FaultError::NoMapping });
        }
        Ok(())
    }

    fn populate_area<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        area: &Area,
        (start, end): (GuestVirt, GuestVirt),
        how: Populate,
        major: bool,
    ) -> Result<(), Stopped> {
        let mapping = matches!(how, Populate::Mapping | Populate::Locking);
        if mapping && area.flags.contains(AreaFlags::LOCK_ON_FAULT) {
            return Ok(());
        }
        let write = match how {
            Populate::Mapping | Populate::Locking => {
                area.is_private() && area.protection.contains(Protection::WRITE)
            }
            Populate::Read => false,
            Populate::Write => true,
        };
        // Without the right to read, the processor would still read; the call says no.
        if how == Populate::Read && !area.protection.contains(Protection::READ) {
            return Err(Stopped { at: start, error: FaultError::Forbidden });
        }
        let mut enough = EntryFlags::PRESENT | EntryFlags::USER;
        enough.set(EntryFlags::WRITABLE, write);
        let mut at = start;
        while at < end {
            let entry = table::entry_at(&memory.machine, self.root, at);
            if entry.has(enough) {
                if write && !entry.has(EntryFlags::DIRTY) {
                    // As if written: it is not to be thrown away (MADV_FREE).
                    memory.frames.hold().set_dirty(entry.frame(), true);
                }
            } else {
                let execute = !write && area.protection == Protection::EXECUTE;
                let access = Access { write, execute, major: major && at == start };
                let resolved =
                    self.fault(memory, at, access).map_err(|error| Stopped { at, error })?;
                memory.machine.software_fault(at, access, &resolved);
            }
            at.0 += PAGE_SIZE;
        }
        Ok(())
    }
}
