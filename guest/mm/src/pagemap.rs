//! `/proc/PID/pagemap` and `/proc/PID/clear_refs`: single pages, and the bits
//! that say whether they were used.

use pagelab_abi::addr::{GuestVirt, PAGE_SIZE};
use pagelab_paging::EntryFlags;

use crate::area::{Area, AreaFlags};
use crate::frames::Use;
use crate::live::Edits;
use crate::machine::Machine;
use crate::memory::Memory;
use crate::space::AddressSpace;
use crate::table;

/// Written since soft-dirty bits were last cleared.
pub const SOFT_DIRTY: u64 = 1 << 55;
/// Mapped only here.
pub const EXCLUSIVE: u64 = 1 << 56;
/// A page of a file or of shared memory.
pub const FILE_OR_SHARED: u64 = 1 << 61;
/// In swap; bits 0 to 4 are the number of the area, which is 0, and bits 5 to 54
/// the slot.
pub const SWAPPED: u64 = 1 << 62;
/// Where the slot is.
pub const SWAP_OFFSET_SHIFT: u32 = 5;
/// In memory; bits 0 to 54 are the frame's number.
pub const PRESENT: u64 = 1 << 63;

/// What `clear_refs` is told to clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClearRefs {
    /// 1: accessed bits of all pages.
    All,
    /// 2: those of anonymous areas.
    Anonymous,
    /// 3: those of areas that map objects.
    Mapped,
    /// 4: soft-dirty bits; the next write to each page faults.
    SoftDirty,
    /// 5: the peak of resident pages.
    Peak,
}

impl ClearRefs {
    /// From the number that is written to `clear_refs`.
    #[must_use]
    pub const fn from_linux(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::All),
            2 => Some(Self::Anonymous),
            3 => Some(Self::Mapped),
            4 => Some(Self::SoftDirty),
            5 => Some(Self::Peak),
            _ => None,
        }
    }

    fn concerns(self, area: &Area) -> bool {
        match self {
            Self::Anonymous => area.is_anonymous(),
            Self::Mapped => !area.is_anonymous(),
            Self::All | Self::SoftDirty => true,
            Self::Peak => false,
        }
    }
}

impl AddressSpace {
    /// Fills in the entries of pagemap from the page at `start` on.
    pub fn pagemap<M: Machine>(&self, memory: &Memory<M>, start: GuestVirt, entries: &mut [u64]) {
        let mut at = start;
        for entry in entries {
            *entry = self.area_at(at).map_or(0, |area| self.pagemap_entry(memory, area, at));
            at.0 = at.0.saturating_add(PAGE_SIZE);
        }
    }

    fn pagemap_entry<M: Machine>(&self, memory: &Memory<M>, area: &Area, at: GuestVirt) -> u64 {
        let mut bits = if area.flags.contains(AreaFlags::SOFT_DIRTY) { SOFT_DIRTY } else { 0 };
        let entry = table::entry_at(&memory.machine, self.root, at);
        if entry.has(EntryFlags::SOFT_DIRTY) {
            bits |= SOFT_DIRTY;
        }
        if let Some(slot) = entry.swap_slot() {
            return bits | SWAPPED | slot << SWAP_OFFSET_SHIFT;
        }
        if !entry.is_present() {
            return bits;
        }
        let frame = entry.frame();
        bits |= PRESENT | u64::from(frame.0);
        if entry.has(EntryFlags::SPECIAL) {
            return bits;
        }
        let held = memory.frames.hold();
        let anonymous = held.use_of(frame) == Use::Anonymous;
        if !anonymous {
            bits |= FILE_OR_SHARED;
        }
        if held.mappings(frame) == 1 {
            bits |= EXCLUSIVE;
        }
        bits
    }

    /// Clears the bits that say what was used.
    pub fn clear_refs<M: Machine>(&mut self, memory: &Memory<M>, what: ClearRefs) {
        let mut clear = EntryFlags::ACCESSED;
        match what {
            ClearRefs::Peak => self.reset_peak_resident(),
            ClearRefs::SoftDirty => {
                clear = EntryFlags::SOFT_DIRTY | EntryFlags::WRITABLE;
                self.areas.change_all(|area| area.flags -= AreaFlags::SOFT_DIRTY);
            }
            ClearRefs::All | ClearRefs::Anonymous | ClearRefs::Mapped => {}
        }
        let machine = &memory.machine;
        let mut edits = Edits::new(machine, self.root);
        for area in self.areas.iter().filter(|area| what.concerns(area)) {
            table::for_each(machine, self.root, area.start, area.end, |span| {
                for index in span.first..span.end {
                    let entry = machine.read_entry(span.table, index);
                    let cleared = entry.without(clear);
                    if cleared != entry {
                        edits.replace(span.table, index, span.address_of(index), cleared);
                    }
                }
                true
            });
        }
    }
}
