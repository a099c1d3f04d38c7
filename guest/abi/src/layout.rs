//! Every fixed address that both sides know.
//!
//! Guest-virtual addresses while the kernel runs:
//!
//! ```text
//! ffff_ffff_ffff_ffff ┐
//! ffff_ffff_8000_0000 ┘ kernel image: virtual = physical + IMAGE_BASE, W^X
//!                       …
//! ffff_e040_0000_0000   device registers: virtual = physical + DEVICES_BASE
//! ffff_e000_0000_0000   kernel stacks, each with a guard page below it
//!                       …
//! ffff_8000_0000_0000   physical map: virtual = physical + PHYSMAP_BASE,
//!                       no-execute, read-only where the image is
//!   ── not canonical ──
//! 0000_7fff_ffff_f000   end of user space (the last page is never mapped)
//! 0000_0000_0001_0000   lowest address a program may map
//! ```
//!
//! Guest-physical addresses at the kernel's entry, as the VMM lays them out:
//!
//! ```text
//!            RAM, second part (if there is more than 3 GiB)
//! 1_0000_0000
//!            hole for the interrupt controllers
//! d000_0000  virtio devices, a page each
//! c000_0000  end of RAM, first part; modules end where RAM ends
//!            free
//!            kernel image, from IMAGE_PHYS on; page tables follow it
//! 0020_0000  IMAGE_PHYS
//! 0000_6000  boot information
//! 0000_0000  never used: a null physical address stays a mistake
//! ```

use crate::addr::{GuestPhys, GuestVirt};

/// Virtual address of physical address 0 in the kernel image's mapping.
pub const IMAGE_BASE: u64 = 0xffff_ffff_8000_0000;
/// Where the kernel image is linked to lie in physical memory.
pub const IMAGE_PHYS: GuestPhys = GuestPhys(0x20_0000);
/// Virtual address of physical address 0 in the map of all memory.
pub const PHYSMAP_BASE: u64 = 0xffff_8000_0000_0000;
/// Where kernel stacks are mapped.
pub const STACKS_BASE: u64 = 0xffff_e000_0000_0000;
/// Where device registers are mapped: in the same entry of the root table as
/// the stacks, so that it is there from the start.
pub const DEVICES_BASE: u64 = STACKS_BASE + (256 << 30);
/// First address that no program may use. One page below the canonical limit,
/// so that no return address can be the last canonical one, whose successor
/// faults inside the kernel on some processors.
pub const USER_END: GuestVirt = GuestVirt(0x7fff_ffff_f000);
/// Lowest address a program may map: null pointers stay mistakes.
pub const USER_START: GuestVirt = GuestVirt(0x1_0000);

/// Where the boot information lies.
pub const BOOT_INFO: GuestPhys = GuestPhys(0x6000);
/// End of the memory set aside for the boot information.
pub const BOOT_INFO_END: GuestPhys = GuestPhys(0x8000);
/// Memory below this address is never handed out as frames.
pub const LOW_MEMORY_END: GuestPhys = GuestPhys(0x10_0000);

/// End of the first part of RAM.
pub const HOLE_START: GuestPhys = GuestPhys(0xc000_0000);
/// Start of the second part of RAM.
pub const HOLE_END: GuestPhys = GuestPhys(0x1_0000_0000);

/// First of the lab device's I/O ports.
pub const LAB_PORT: u16 = 0x0b00;
/// Number of the lab device's I/O ports.
pub const LAB_PORT_COUNT: u16 = 16;
/// First port of the serial console (COM1).
pub const SERIAL_PORT: u16 = 0x3f8;
/// Global system interrupt of the serial console.
pub const SERIAL_IRQ: u32 = 4;
/// Global system interrupt of the lab device.
pub const LAB_IRQ: u32 = 5;

/// Registers of the first virtio device.
pub const VIRTIO_BASE: GuestPhys = GuestPhys(0xd000_0000);
/// How far the registers of one virtio device lie from those of the next.
pub const VIRTIO_STRIDE: u64 = 0x1000;
/// Global system interrupt of the first virtio device; each has its own.
pub const VIRTIO_IRQ_FIRST: u32 = 16;
/// Most virtio devices: an I/O APIC has 24 inputs.
pub const MAX_VIRTIO_DEVICES: u32 = 8;

/// Registers of virtio device `index`.
#[must_use]
pub const fn virtio_device(index: u32) -> GuestPhys {
    GuestPhys(VIRTIO_BASE.0 + index as u64 * VIRTIO_STRIDE)
}

const _: () = {
    assert!(BOOT_INFO.0 < BOOT_INFO_END.0);
    assert!(BOOT_INFO_END.0 <= LOW_MEMORY_END.0);
    assert!(LOW_MEMORY_END.0 <= IMAGE_PHYS.0);
    assert!(IMAGE_PHYS.0.is_multiple_of(crate::addr::HUGE_PAGE_SIZE));
    assert!(HOLE_START.0 < HOLE_END.0);
    assert!(VIRTIO_BASE.0 >= HOLE_START.0 && virtio_device(MAX_VIRTIO_DEVICES).0 <= HOLE_END.0);
    assert!(VIRTIO_BASE.is_page_aligned() && VIRTIO_IRQ_FIRST + MAX_VIRTIO_DEVICES <= 24);
    assert!(GuestVirt(PHYSMAP_BASE).is_canonical());
    assert!(STACKS_BASE > PHYSMAP_BASE && STACKS_BASE < IMAGE_BASE);
};
