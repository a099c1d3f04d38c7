//! x86-64 page tables as data: entry bits, index arithmetic, walks, and the map
//! that the kernel runs on.
//!
//! Nothing here touches hardware or memory: tables are reached through
//! [`TableMemory`], which is the physical map in the guest, `vm-memory` in the
//! VMM and a vector in the tests. Host and guest share this crate, so a bit has
//! one name and one place.
//!
//! * [`entry`]: [`Entry`] and [`EntryFlags`]
//! * [`walk`]: one address, step by step, as the processor does it
//! * [`kernel_map`]: the kernel's address space, built by the VMM (or by the
//!   kernel itself when another VMM booted it)

#![no_std]
#![forbid(unsafe_code)]

pub mod entry;
pub mod kernel_map;
pub mod walk;

pub use entry::{Entry, EntryFlags, Level};
use pagelab_abi::addr::GuestPhys;

/// Access to page tables in guest-physical memory.
pub trait TableMemory {
    /// The eight bytes at `address`, or `None` if that is not memory.
    fn read_entry(&self, address: GuestPhys) -> Option<Entry>;
}

/// Access to page tables that may be changed.
pub trait TableMemoryMut: TableMemory {
    /// Sets the eight bytes at `address`; `false` if that is not memory.
    fn write_entry(&mut self, address: GuestPhys, entry: Entry) -> bool;
}
