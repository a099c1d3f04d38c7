//! The kernel's one [`Memory`]: all frames, objects and promises.

use core::sync::atomic::Ordering;

use pagelab_abi::addr::{Frame, GuestVirt};
use pagelab_hal::cpu;
use pagelab_hal::memory::{Physical, frames, kernel_root};
use pagelab_hal::sync::Once;
use pagelab_hal::trap::fault_code;
use pagelab_mm::{Access, Machine, Memory, Resolved};
use pagelab_paging::Entry;

use crate::fault::{self, Fault};
use crate::process::scheduler;

/// Pages that a fault on a file maps if they are in memory, unless the command
/// line says otherwise; as on Linux.
const FAULT_AROUND: u32 = 16;

static MEMORY: Once<Memory<Kernel>> = Once::new();

/// Sets it up.
///
/// # Panics
///
/// If there is not a single frame.
pub fn init() {
    // For the kernel's heap, while programs are refused more memory.
    const SHARE: u64 = 64;
    const LEAST: u64 = 96;
    const MOST: u64 = 1024;
    frames().set_reserve((frames().counters().total / SHARE).clamp(LEAST, MOST));
    let memory = Memory::new(Kernel, frames(), Some(kernel_root()));
    MEMORY.set(memory.expect("there is memory for the zero page"));
    set_fault_around(FAULT_AROUND);
}

/// Sets how many pages of a file a fault maps, if they are in memory; 1: its own.
pub fn set_fault_around(pages: u32) {
    const MOST: u32 = 512;
    memory().fault_around.store(pages.clamp(1, MOST), Ordering::Relaxed);
}

/// The one.
#[inline]
pub fn memory() -> &'static Memory<Kernel> {
    MEMORY.get()
}

/// The hardware, and whom to tell of faults that the kernel resolves for a
/// program whose memory it reads or writes.
#[derive(Clone, Copy, Debug)]
pub struct Kernel;

impl Machine for Kernel {
    #[inline]
    fn read_entry(&self, table: Frame, index: usize) -> Entry {
        Physical.read_entry(table, index)
    }

    #[inline]
    fn write_entry(&self, table: Frame, index: usize, entry: Entry) {
        Physical.write_entry(table, index, entry);
    }

    #[inline]
    fn retire_table(&self, table: Frame) {
        Physical.retire_table(table);
    }

    fn zero_frame(&self, frame: Frame) {
        Physical.zero_frame(frame);
    }

    fn copy_frame(&self, from: Frame, to: Frame) {
        Physical.copy_frame(from, to);
    }

    #[inline]
    fn flush_page(&self, root: Frame, page: GuestVirt) {
        Physical.flush_page(root, page);
    }

    fn flush_space(&self, root: Frame) {
        Physical.flush_space(root);
    }

    fn read_bytes(&self, frame: Frame, offset: usize, into: &mut [u8]) {
        Physical.read_bytes(frame, offset, into);
    }

    fn write_bytes(&self, frame: Frame, offset: usize, from: &[u8]) {
        Physical.write_bytes(frame, offset, from);
    }

    fn software_fault(&self, address: GuestVirt, access: Access, resolved: &Resolved) {
        let Some(thread) = scheduler::try_current() else { return };
        let error_code = if access.write { fault_code::WRITE } else { 0 };
        let fault =
            Fault { start: cpu::timestamp(), address: address.0, instruction: 0, error_code };
        fault::record(&thread.process, &fault, resolved);
    }
}
