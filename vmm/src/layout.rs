//! Addresses that only the host decides, beside those of [`pagelab_abi::layout`]
//! that both sides know.
//!
//! ```text
//! ffff_d000  three pages that KVM needs on processors that cannot run real
//! fffb_d000  mode natively; in the hole, so no RAM is lost
//!            …
//! 0000_8000  BOOT_INFO_END
//! 0000_7f00  BOOT_GDT: the descriptor table that the entry state refers to
//!            room for the boot information to grow
//! 0000_6000  BOOT_INFO
//! ```

use pagelab_abi::addr::{GuestPhys, GuestVirt, HUGE_PAGE_SIZE, PAGE_SIZE};
use pagelab_abi::boot::BootInfo;
use pagelab_abi::layout::{BOOT_INFO, BOOT_INFO_END, HOLE_END, HOLE_START, IMAGE_PHYS};
use pagelab_abi::layout::{LAB_PORT, LAB_PORT_COUNT, PHYSMAP_BASE, SERIAL_PORT};

/// Bytes set aside for the boot descriptor table.
pub const BOOT_GDT_SIZE: u64 = 0x100;
/// Where the boot descriptor table lies.
pub const BOOT_GDT: GuestPhys = GuestPhys(BOOT_INFO_END.0 - BOOT_GDT_SIZE);
/// The same place in the map of all memory: what GDTR holds at the entry.
pub const BOOT_GDT_VIRT: GuestVirt = GuestVirt(PHYSMAP_BASE + BOOT_GDT.0);

/// Three pages for KVM's own use (`KVM_SET_TSS_ADDR`).
pub const KVM_TSS: GuestPhys = GuestPhys(0xfffb_d000);

/// Number of I/O ports of the serial console.
pub const SERIAL_PORT_COUNT: u16 = 8;

/// Least memory that a lab starts with: the kernel, its tables and room for a
/// program of some size.
pub const MIN_MEMORY: u64 = 16 << 20;
/// Most memory that a lab starts with: frame numbers have 32 bits, and the hole
/// below 4 GiB takes some of them.
pub const MAX_MEMORY: u64 = (1 << 44) - (HOLE_END.0 - HOLE_START.0);
/// Memory of a lab where nothing else is asked for.
pub const DEFAULT_MEMORY: u64 = 128 << 20;

const _: () = {
    assert!(BOOT_INFO.0 + size_of::<BootInfo>() as u64 <= BOOT_GDT.0);
    assert!(BOOT_GDT.0.is_multiple_of(8));
    assert!(KVM_TSS.is_page_aligned());
    assert!(KVM_TSS.0 >= HOLE_START.0 && KVM_TSS.0 + 3 * PAGE_SIZE <= HOLE_END.0);
    assert!(MIN_MEMORY > IMAGE_PHYS.0 + HUGE_PAGE_SIZE);
    assert!(DEFAULT_MEMORY >= MIN_MEMORY && DEFAULT_MEMORY <= MAX_MEMORY);
    assert!(SERIAL_PORT + SERIAL_PORT_COUNT <= LAB_PORT);
    assert!(LAB_PORT.checked_add(LAB_PORT_COUNT).is_some());
};
