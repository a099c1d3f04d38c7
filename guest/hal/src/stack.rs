//! Kernel stacks, each with a guard page below it.
//!
//! Thread stacks are mapped in an area of their own (`STACKS_BASE`), in slots of
//! a power of two, most of a slot unmapped. The stacks for booting, double
//! faults and non-maskable interrupts are part of the image (`kernel.ld`), with
//! pages between them that [`unmap_image_guards`] takes out of the map.

use pagelab_abi::addr::{GuestPhys, GuestVirt, PAGE_SIZE};
use pagelab_abi::layout::{DEVICES_BASE, IMAGE_BASE, STACKS_BASE};
use pagelab_mm::frames::Use;
use pagelab_mm::numbers::Numbers;
use pagelab_paging::entry::{Entry, EntryFlags, Level, entry_address};
use pagelab_paging::{TableMemory, TableMemoryMut};

use crate::cpu::{self, Features};
use crate::memory::{self, KernelTables, Physical};
use crate::sync::Lock;

/// Pages of a thread's kernel stack.
pub const STACK_PAGES: u64 = 4;
const SLOT_SIZE: u64 = 2 * STACK_PAGES * PAGE_SIZE;

unsafe extern "C" {
    static pagelab_boot_stack_guard: u8;
    static pagelab_double_fault_guard: u8;
    static pagelab_double_fault_top: u8;
    static pagelab_nmi_guard: u8;
    static pagelab_nmi_top: u8;
}

pub(crate) fn double_fault_top() -> u64 {
    &raw const pagelab_double_fault_top as u64
}

pub(crate) fn nmi_top() -> u64 {
    &raw const pagelab_nmi_top as u64
}

/// Takes the pages below the image's stacks out of the kernel's map.
pub(crate) fn unmap_image_guards() {
    for guard in [
        &raw const pagelab_boot_stack_guard,
        &raw const pagelab_double_fault_guard,
        &raw const pagelab_nmi_guard,
    ] {
        let page = GuestVirt(guard as u64);
        debug_assert!(page.is_page_aligned() && page.0 > IMAGE_BASE);
        set_kernel_entry(page, Entry::EMPTY);
    }
}

/// A kernel stack; unmapped and freed when dropped.
#[derive(Debug)]
pub struct Stack {
    slot: u64,
}

static SLOTS: Lock<Numbers> = Lock::new(Numbers::new());

impl Stack {
    /// Maps a new stack, unless memory is short: what is left is for those that
    /// run already.
    #[must_use]
    pub fn new() -> Option<Self> {
        if memory::frames().is_short() {
            return None;
        }
        let stack = Self { slot: SLOTS.lock().lend()? };
        for page in stack.pages() {
            let frame = memory::frames().alloc(Use::Kernel)?;
            let flags = kernel_data();
            if !set_kernel_entry(page, Entry::for_frame(frame, flags)) {
                memory::frames().release(&Physical, frame);
                return None;
            }
        }
        Some(stack)
    }

    /// The address just above the stack.
    #[must_use]
    pub const fn top(&self) -> u64 {
        STACKS_BASE + (self.slot + 1) * SLOT_SIZE
    }

    fn pages(&self) -> impl Iterator<Item = GuestVirt> + use<> {
        let top = self.top();
        (1..=STACK_PAGES).map(move |n| GuestVirt(top - n * PAGE_SIZE))
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        for page in self.pages() {
            // A stack that was only half mapped when memory ran out ends here, too.
            let Some(slot) = kernel_slot(page, false) else { continue };
            let entry = TableMemory::read_entry(&KernelTables, slot).unwrap_or_default();
            if entry.is_present() {
                set_kernel_entry(page, Entry::EMPTY);
                memory::frames().release(&Physical, entry.frame());
            }
        }
        SLOTS.lock().give_back(self.slot);
    }
}

/// Maps a device's registers, uncached, in the part of the stacks' area that is
/// kept for that. They stay mapped.
pub(crate) fn map_device(registers: GuestPhys) -> Option<u64> {
    let page = GuestVirt(DEVICES_BASE + (registers.0 & 0xffff_f000));
    let flags = kernel_data() | EntryFlags::NO_CACHE | EntryFlags::WRITE_THROUGH;
    set_kernel_entry(page, Entry::new(registers, flags)).then_some(page.0)
}

/// Flags of a page of the kernel's own. It is global where the processor knows
/// that: it is the same in every address space, and forgetting its translation
/// in one of them has to be enough.
fn kernel_data() -> EntryFlags {
    let mut flags = EntryFlags::PRESENT
        | EntryFlags::WRITABLE
        | EntryFlags::NO_EXECUTE
        | EntryFlags::ACCESSED
        | EntryFlags::DIRTY;
    flags.set(EntryFlags::GLOBAL, cpu::features().has(Features::GLOBAL_PAGES));
    flags
}

/// Sets one entry of the kernel's map and flushes it; `false` if a table was
/// missing and there was no frame for it.
fn set_kernel_entry(page: GuestVirt, entry: Entry) -> bool {
    let Some(slot) = kernel_slot(page, true) else { return false };
    KernelTables.write_entry(slot, entry);
    cpu::invalidate_page(page.0);
    true
}

/// Where the last-level entry for `page` lies. Tables of the stack area are made
/// on the way if `create`; they stay for good, as the area is the kernel's.
fn kernel_slot(page: GuestVirt, create: bool) -> Option<GuestPhys> {
    let mut table = memory::kernel_root().start();
    for level in [Level::Four, Level::Three, Level::Two] {
        let slot = entry_address(table, level.index(page));
        let entry = TableMemory::read_entry(&KernelTables, slot)?;
        table = if entry.is_present() {
            entry.address()
        } else if create {
            let frame = memory::new_table()?;
            let flags = EntryFlags::PRESENT | EntryFlags::WRITABLE | EntryFlags::ACCESSED;
            KernelTables.write_entry(slot, Entry::for_frame(frame, flags));
            frame.start()
        } else {
            return None;
        };
    }
    Some(entry_address(table, Level::One.index(page)))
}
