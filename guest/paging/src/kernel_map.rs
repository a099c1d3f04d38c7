//! The address space that the kernel runs on (drawn in `pagelab_abi::layout`).
//!
//! * The image, each segment with just the rights it needs (W^X).
//! * All RAM in the physical map, writable and never executable, in 2 MiB
//!   pages; where the image is, in 4 KiB pages that are read-only wherever the
//!   image is, so that no alias undoes W^X.
//! * An empty table for kernel stacks, so that the upper half of the root is
//!   complete from the start and can be copied into every address space once.
//!
//! Tables are taken one after the other from a given place and must be zero
//! before. Everything is global: it is the same in every address space.

use pagelab_abi::addr::{GuestPhys, GuestVirt, HUGE_PAGE_SIZE, PAGE_SIZE};
use pagelab_abi::layout::{IMAGE_BASE, PHYSMAP_BASE, STACKS_BASE};

use crate::TableMemoryMut;
use crate::entry::{Entry, EntryFlags, Level, entry_address};

/// A loaded part of the kernel image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageSegment {
    /// First byte in physical memory, page-aligned.
    pub start: GuestPhys,
    /// End in physical memory, page-aligned.
    pub end: GuestPhys,
    /// It may be written.
    pub writable: bool,
    /// It may be executed.
    pub executable: bool,
}

/// What to map.
#[derive(Clone, Copy, Debug)]
pub struct KernelMap<'a> {
    /// The image, in order, not overlapping.
    pub image: &'a [ImageSegment],
    /// The RAM to map, in order: start and end of each part.
    pub ram: &'a [(GuestPhys, GuestPhys)],
    /// Where tables are put.
    pub tables: GuestPhys,
    /// The processor knows `GLOBAL`.
    pub global_pages: bool,
}

/// The finished tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuiltMap {
    /// The root, for CR3.
    pub root: GuestPhys,
    /// End of the tables.
    pub end: GuestPhys,
}

/// A table lies outside memory: there is not enough of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutsideMemory(pub GuestPhys);

impl KernelMap<'_> {
    /// Builds the tables.
    ///
    /// # Errors
    ///
    /// If a table would lie outside memory.
    pub fn build(&self, memory: &mut impl TableMemoryMut) -> Result<BuiltMap, OutsideMemory> {
        let root = self.tables;
        let mut builder = Builder {
            memory,
            root,
            next: GuestPhys(root.0 + PAGE_SIZE),
            global: self.global_pages,
        };
        for segment in self.image {
            let flags = image_flags(segment);
            let mut page = segment.start;
            while page < segment.end {
                builder.map(GuestVirt(IMAGE_BASE + page.0), page, flags, Level::One)?;
                page.0 += PAGE_SIZE;
            }
        }
        for &(start, end) in self.ram {
            self.map_ram(&mut builder, start, end)?;
        }
        builder.table_for(GuestVirt(STACKS_BASE), Level::Three)?;
        Ok(BuiltMap { root, end: builder.next })
    }

    fn map_ram<M: TableMemoryMut>(
        &self,
        builder: &mut Builder<'_, M>,
        start: GuestPhys,
        end: GuestPhys,
    ) -> Result<(), OutsideMemory> {
        let data = EntryFlags::PRESENT | EntryFlags::WRITABLE | EntryFlags::NO_EXECUTE;
        let mut at = start;
        while at < end {
            let virt = GuestVirt(PHYSMAP_BASE + at.0);
            let huge_end = GuestPhys(at.0 + HUGE_PAGE_SIZE);
            let aligned = at.0.is_multiple_of(HUGE_PAGE_SIZE) && huge_end <= end;
            let holds_image = self.image.iter().any(|s| s.start < huge_end && at < s.end);
            if aligned && !holds_image {
                builder.map(virt, at, data, Level::Two)?;
                at = huge_end;
                continue;
            }
            let read_only = self.image.iter().any(|s| s.start <= at && at < s.end && !s.writable);
            let flags = if read_only { data.difference(EntryFlags::WRITABLE) } else { data };
            builder.map(virt, at, flags, Level::One)?;
            at.0 += PAGE_SIZE;
        }
        Ok(())
    }
}

fn image_flags(segment: &ImageSegment) -> EntryFlags {
    let mut flags = EntryFlags::PRESENT;
    flags.set(EntryFlags::WRITABLE, segment.writable);
    flags.set(EntryFlags::NO_EXECUTE, !segment.executable);
    flags
}

struct Builder<'a, M> {
    memory: &'a mut M,
    root: GuestPhys,
    next: GuestPhys,
    global: bool,
}

impl<M: TableMemoryMut> Builder<'_, M> {
    /// Maps one page of the size that entries of `level` have.
    fn map(
        &mut self,
        virt: GuestVirt,
        phys: GuestPhys,
        mut flags: EntryFlags,
        level: Level,
    ) -> Result<(), OutsideMemory> {
        let table = self.table_for(virt, level)?;
        // Accessed and dirty from the start: nobody reads these bits of the
        // kernel's map, so the processor need not write them either.
        flags |= EntryFlags::ACCESSED | EntryFlags::DIRTY;
        flags.set(EntryFlags::GLOBAL, self.global);
        flags.set(EntryFlags::HUGE, level != Level::One);
        self.write(entry_address(table, level.index(virt)), Entry::new(phys, flags))
    }

    /// The table of `level` that covers `virt`, made where it is missing.
    fn table_for(&mut self, virt: GuestVirt, level: Level) -> Result<GuestPhys, OutsideMemory> {
        let mut table = self.root;
        for upper in Level::DOWN.into_iter().take_while(|&upper| upper > level) {
            let slot = entry_address(table, upper.index(virt));
            let entry = self.memory.read_entry(slot).ok_or(OutsideMemory(slot))?;
            table = if entry.is_present() { entry.address() } else { self.add_table(slot)? };
        }
        Ok(table)
    }

    fn add_table(&mut self, slot: GuestPhys) -> Result<GuestPhys, OutsideMemory> {
        let table = self.next;
        self.next.0 += PAGE_SIZE;
        let flags = EntryFlags::PRESENT | EntryFlags::WRITABLE | EntryFlags::ACCESSED;
        self.write(slot, Entry::new(table, flags))?;
        Ok(table)
    }

    fn write(&mut self, slot: GuestPhys, entry: Entry) -> Result<(), OutsideMemory> {
        if self.memory.write_entry(slot, entry) { Ok(()) } else { Err(OutsideMemory(slot)) }
    }
}
