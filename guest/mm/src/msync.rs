//! msync: writing back what was written through shared mappings. The writing is
//! the kernel's; here it learns what there is to write.

use bitflags::bitflags;
use pagelab_abi::addr::GuestVirt;
use pagelab_paging::EntryFlags;

use crate::area::{Area, AreaFlags};
use crate::error::MmError;
use crate::live::Edits;
use crate::machine::Machine;
use crate::memory::Memory;
use crate::object::ObjectId;
use crate::space::{AddressSpace, page_round_up};
use crate::table;

bitflags! {
    /// Linux's `MS_*`, with Linux's values.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct SyncFlags: u32 {
        /// Start writing.
        const ASYNC = 1;
        /// Forget other copies: nothing to do, but locked memory refuses.
        const INVALIDATE = 2;
        /// Wait until it is written.
        const SYNC = 4;
    }
}

impl AddressSpace {
    /// Checks the arguments, marks the frames of written pages as dirty, and
    /// with `SYNC` calls `write_back` with each object of the range that is
    /// mapped shared, and its first page and the one after its last.
    ///
    /// # Errors
    ///
    /// `Invalid` (unaligned, wrong flags), `NotMapped` (a hole; the rest is
    /// done), `Busy` (`INVALIDATE` on locked memory), or what `write_back` says.
    pub fn msync<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        address: GuestVirt,
        length: u64,
        flags: SyncFlags,
        mut write_back: impl FnMut(ObjectId, u64, u64) -> Result<(), MmError>,
    ) -> Result<(), MmError> {
        let both = SyncFlags::ASYNC | SyncFlags::SYNC;
        let unknown = flags.bits() & !SyncFlags::all().bits() != 0;
        if unknown || !address.is_page_aligned() || flags.contains(both) {
            return Err(MmError::Invalid);
        }
        let length = page_round_up(length).unwrap_or(0);
        let end = address.checked_add(length).ok_or(MmError::NotMapped)?;
        let mut at = address;
        let mut result = Ok(());
        while at < end {
            let next = self.areas.find(at).map(|place| *self.areas.get(place));
            let Some(area) = next.filter(|area| area.start < end) else {
                return Err(MmError::NotMapped);
            };
            if area.start > at {
                result = Err(MmError::NotMapped);
                at = area.start;
            }
            if flags.contains(SyncFlags::INVALIDATE) && area.flags.contains(AreaFlags::LOCKED) {
                return Err(MmError::Busy);
            }
            let stop = area.end.min(end);
            if let Some(object) = area.object().filter(|_| !area.is_private()) {
                self.note_written(memory, &area, at, stop);
                if flags.contains(SyncFlags::SYNC) {
                    write_back(object, area.index_of(at), area.index_of(stop))?;
                }
            }
            at = stop;
        }
        result
    }

    /// Marks the frames of written pages of a shared area as dirty. Their
    /// entries are clean then, and read-only where the next write shall be told.
    pub fn note_written<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        area: &Area,
        start: GuestVirt,
        end: GuestVirt,
    ) {
        let machine = &memory.machine;
        let mut clean = EntryFlags::DIRTY;
        clean.set(EntryFlags::WRITABLE, area.flags.contains(AreaFlags::NOTIFY_WRITE));
        let mut edits = Edits::new(machine, self.root);
        table::for_each(machine, self.root, start, end, |span| {
            let mut held = memory.frames.hold();
            for index in span.first..span.end {
                let entry = machine.read_entry(span.table, index);
                if entry.has(EntryFlags::PRESENT | EntryFlags::DIRTY) {
                    held.set_dirty(entry.frame(), true);
                    let page = span.address_of(index);
                    edits.replace(span.table, index, page, entry.without(clean));
                }
            }
            true
        });
    }
}
