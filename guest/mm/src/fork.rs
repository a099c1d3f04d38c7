//! fork: a second address space with the same contents, copied on write.
//!
//! Only areas with anonymous pages have entries worth copying: the child finds
//! the pages of objects by itself, as on Linux. Of each page that is copied
//! both sides keep a read-only entry, and the frame gets one more owner; or the
//! slot, if the page is in swap.

use pagelab_abi::addr::Frame;
use pagelab_paging::EntryFlags;

use crate::area::{Area, AreaFlags, Backing};
use crate::areas::Areas;
use crate::error::{MmError, OutOfMemory};
use crate::frames::Use;
use crate::live::Edits;
use crate::machine::Machine;
use crate::memory::Memory;
use crate::space::{AddressSpace, Resident, Sizes};
use crate::table::{self, Span};

impl AddressSpace {
    /// The address space of a child.
    ///
    /// # Errors
    ///
    /// `OutOfMemory` or `Overcommit`. What was made so far is gone again then,
    /// and this side is as before, but that some pages of its own fault once
    /// when they are written ([`FaultKind::CowReuse`]).
    ///
    /// [`FaultKind::CowReuse`]: pagelab_abi::fault::FaultKind::CowReuse
    pub fn fork<M: Machine>(&mut self, memory: &Memory<M>) -> Result<Self, MmError> {
        let mut last_family = 0;
        let areas = self.areas.try_map(|area| inherited(area, &mut last_family))?;
        let root = memory.new_root()?;
        if let Err(error) = promise_again(memory, &areas, self.sizes.total) {
            memory.release_root(root);
            return Err(error);
        }
        let mut child = Self {
            root,
            areas: Areas::new(),
            layout: self.layout,
            limits: self.limits,
            resident: Resident::default(),
            swapped: 0,
            peak_resident: 0,
            peak_total: 0,
            sizes: Sizes::default(),
            tables: 0,
            last_family,
            heap_start: self.heap_start,
            heap_end: self.heap_end,
            program_data: self.program_data,
            lock_future: AreaFlags::empty(),
        };
        for area in areas.iter() {
            if let Backing::Object(object) = area.backing {
                memory.objects.retain(object);
            }
            child.count_area(area, true);
        }
        child.areas = areas;
        if let Err(error) = self.share_pages(memory, &mut child) {
            child.destroy(memory);
            return Err(error.into());
        }
        Ok(child)
    }

    /// Makes every anonymous page of this side one of the child's as well.
    fn share_pages<M: Machine>(
        &self,
        memory: &Memory<M>,
        child: &mut Self,
    ) -> Result<(), OutOfMemory> {
        let mut edits = Edits::new(&memory.machine, self.root);
        for area in self.areas.iter().filter(|area| copies_pages(area)) {
            let mut result = Ok(());
            let mut shared = Shared::default();
            table::for_each(&memory.machine, self.root, area.start, area.end, |span| {
                result = table::find_or_make(memory, child.root, span.start, &mut child.tables)
                    .map(|table| share_span(memory, &mut edits, span, table, &mut shared));
                result.is_ok()
            });
            child.resident.anonymous += shared.anonymous;
            child.swapped += shared.swapped;
            *child.resident_of(false, area.flags) += shared.cached;
            result?;
        }
        Ok(())
    }
}

/// How many pages were shared.
#[derive(Default)]
struct Shared {
    anonymous: u64,
    cached: u64,
    swapped: u64,
}

/// Shares the pages of one table.
fn share_span<M: Machine>(
    memory: &Memory<M>,
    edits: &mut Edits<'_, M>,
    span: Span,
    table: Frame,
    shared: &mut Shared,
) {
    let machine = &memory.machine;
    let mut held = memory.frames.hold();
    for index in span.first..span.end {
        let entry = machine.read_entry(span.table, index);
        if let Some(slot) = entry.swap_slot() {
            memory.swap.share(slot);
            shared.swapped += 1;
            machine.write_entry(table, index, entry);
            continue;
        }
        if !entry.is_present() {
            continue;
        }
        let mut copy = entry;
        if !entry.has(EntryFlags::SPECIAL) {
            copy = entry.without(EntryFlags::WRITABLE).with(EntryFlags::COPY_ON_WRITE);
            if held.share(entry.frame()) == Use::Anonymous {
                shared.anonymous += 1;
            } else {
                shared.cached += 1;
            }
            if copy != entry {
                edits.replace(span.table, index, span.address_of(index), copy);
            }
        }
        machine.write_entry(table, index, copy.without(EntryFlags::ACCESSED));
    }
}

const fn copies_pages(area: &Area) -> bool {
    let not = AreaFlags::DONT_FORK.union(AreaFlags::WIPE_ON_FORK);
    area.family != 0 && !area.flags.intersects(not)
}

/// What the child gets of an area.
fn inherited(area: &Area, last_family: &mut u32) -> Option<Area> {
    if area.flags.contains(AreaFlags::DONT_FORK) {
        return None;
    }
    let mut copy = *area;
    copy.flags -= AreaFlags::LOCKED | AreaFlags::LOCK_ON_FAULT | AreaFlags::INHERITED;
    copy.family = 0;
    if copies_pages(area) {
        *last_family += 1;
        copy.family = *last_family;
        copy.flags |= AreaFlags::INHERITED;
    }
    Some(copy)
}

/// Promises for the child what was promised for the areas it inherits.
fn promise_again<M: Machine>(
    memory: &Memory<M>,
    areas: &Areas,
    mapped: u64,
) -> Result<(), MmError> {
    let mut promised = 0;
    for area in areas.iter().filter(|area| area.flags.contains(AreaFlags::ACCOUNTED)) {
        if let Err(error) = memory.promise(area.pages(), mapped) {
            memory.commit.take_back(promised);
            return Err(error);
        }
        promised += area.pages();
    }
    Ok(())
}
