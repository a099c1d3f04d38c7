//! munmap: taking areas, their pages and their page tables out.

use pagelab_abi::addr::{GuestVirt, PAGE_SIZE};

use crate::area::{Area, AreaFlags};
use crate::areas::MAX_AREAS;
use crate::error::MmError;
use crate::frames::Use;
use crate::live::{self, Edits};
use crate::machine::Machine;
use crate::memory::Memory;
use crate::space::{AddressSpace, user_range};
use crate::table;
use pagelab_paging::{Entry, EntryFlags};

/// What becomes of private copies when pages are taken out of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copies {
    /// They go as well: the object ends before them now.
    Go,
    /// They stay: the object has a hole there.
    Stay,
}

impl AddressSpace {
    /// Unmaps whole pages. Not an error where nothing is mapped.
    ///
    /// # Errors
    ///
    /// `Invalid` for a range that is unaligned, empty or not in user space;
    /// `TooManyAreas` if a hole would make one area too many; `OutOfMemory`.
    pub fn munmap<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        address: GuestVirt,
        length: u64,
    ) -> Result<(), MmError> {
        let (start, end) = user_range(address, length, MmError::Invalid)?;
        if start == end {
            return Err(MmError::Invalid);
        }
        self.check_hole(start, end)?;
        self.areas.reserve(2)?;
        self.unmap_range(memory, start, end);
        Ok(())
    }

    /// Whether a hole may be made: in the middle of one area it makes two.
    pub(crate) fn check_hole(&self, start: GuestVirt, end: GuestVirt) -> Result<(), MmError> {
        let inside = |area: &Area| area.start < start && end < area.end;
        if self.areas.len() >= MAX_AREAS && self.area_at(start).is_some_and(inside) {
            return Err(MmError::TooManyAreas);
        }
        Ok(())
    }

    /// Unmaps a range. Room for two more areas was reserved.
    pub(crate) fn unmap_range<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        start: GuestVirt,
        end: GuestVirt,
    ) {
        if self.areas.overlapping(start, end).next().is_none() {
            return;
        }
        self.note_peak();
        self.split_at(memory, start);
        self.split_at(memory, end);
        let mut edits = Edits::new(&memory.machine, self.root);
        while let Some(place) = self.areas.find(start)
            && self.areas.get(place).start < end
        {
            let area = self.areas.remove(place);
            self.unmap_pages(memory, &mut edits, &area, area.start, area.end);
            self.forget_area(memory, &area);
        }
        self.free_tables(memory, &mut edits, start, end);
    }

    /// Frees the tables of a range in which nothing is mapped any more.
    pub(crate) fn free_tables<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        edits: &mut Edits<'_, M>,
        start: GuestVirt,
        end: GuestVirt,
    ) {
        let floor = self.areas.before(start).map_or(GuestVirt(0), |area| area.end);
        let next = self.areas.find(start).map(|place| self.areas.get(place).start);
        let ceiling = next.unwrap_or(table::TREE_END);
        let mut held = memory.frames.hold();
        self.tables -= table::free(edits, &mut held, (start, end), floor, ceiling);
    }

    /// Unmaps the pages of a part of an area and releases their frames; area
    /// and tables stay.
    pub(crate) fn unmap_pages<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        edits: &mut Edits<'_, M>,
        area: &Area,
        start: GuestVirt,
        end: GuestVirt,
    ) {
        let machine = &memory.machine;
        let (mut anonymous, mut cached, mut swapped) = (0, 0, 0);
        table::for_each(machine, self.root, start, end, |span| {
            let mut held = memory.frames.hold();
            for index in span.first..span.end {
                let entry = machine.read_entry(span.table, index);
                if let Some(slot) = entry.swap_slot() {
                    drop(held);
                    live::fill(machine, (span.table, index), Entry::EMPTY);
                    memory.release_slot(slot);
                    swapped += 1;
                    held = memory.frames.hold();
                    continue;
                }
                if !entry.is_present() {
                    continue;
                }
                edits.replace(span.table, index, span.address_of(index), Entry::EMPTY);
                if entry.has(EntryFlags::SPECIAL) {
                    continue;
                }
                let frame = entry.frame();
                if held.use_of(frame) == Use::Anonymous {
                    anonymous += 1;
                } else {
                    cached += 1;
                    if entry.has(EntryFlags::DIRTY) {
                        held.set_dirty(frame, true);
                    }
                }
                held.release(machine, frame);
            }
            true
        });
        self.resident.anonymous -= anonymous;
        self.swapped -= swapped;
        if cached > 0 {
            *self.resident_of(false, area.flags) -= cached;
        }
    }

    /// Unmaps the pages `from..end` of an object wherever this address space
    /// maps them, with or without what private mappings have copied of them.
    pub fn unmap_object<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        object: crate::object::ObjectId,
        (from, end): (u64, u64),
        copies: Copies,
    ) {
        self.note_peak();
        let mut at = GuestVirt(0);
        while let Some(place) = self.areas.find(at) {
            let area = *self.areas.get(place);
            at = area.end;
            let (first, last) = (area.offset.max(from), area.index_of(area.end).min(end));
            if area.object() != Some(object)
                || first >= last
                || area.flags.contains(AreaFlags::SPECIAL)
            {
                continue;
            }
            let address_of = |index: u64| {
                GuestVirt(area.start.0 + ((index - area.offset) << pagelab_abi::addr::PAGE_SHIFT))
            };
            let mut edits = Edits::new(&memory.machine, self.root);
            if copies == Copies::Go || !area.is_private() {
                self.unmap_pages(memory, &mut edits, &area, address_of(first), address_of(last));
                continue;
            }
            for at in (first..last).map(address_of) {
                let entry = table::entry_at(&memory.machine, self.root, at);
                let is_own = entry.is_present()
                    && !entry.has(EntryFlags::SPECIAL)
                    && memory.frames.hold().use_of(entry.frame()) != Use::Anonymous;
                if is_own {
                    let next = GuestVirt(at.0 + PAGE_SIZE);
                    self.unmap_pages(memory, &mut edits, &area, at, next);
                }
            }
        }
    }
}
