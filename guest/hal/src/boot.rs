//! The kernel's entry.
//!
//! pagelab's VMM enters at `_start` in 64-bit mode on the kernel's final page
//! tables, so that a host which emulates ring 0 does not have to run the way
//! through 16- and 32-bit code. Other VMMs enter by PVH (see [`crate::pvh`]),
//! which ends in [`begin`], too.

use core::arch::global_asm;

use pagelab_abi::addr::{GuestPhys, PAGE_SIZE};
use pagelab_abi::boot::BootInfo;
use pagelab_abi::layout::{BOOT_INFO, BOOT_INFO_END, PHYSMAP_BASE};

use crate::lab::Milestone;
use crate::{console, cpu, descriptors, fpu, interrupts, lab, memory, power, serial, stack, time};

unsafe extern "Rust" {
    /// The kernel proper, once the hardware is set up.
    fn pagelab_kernel_main(info: &'static BootInfo) -> !;
}

global_asm!(
    ".section .text.entry, \"ax\"",
    ".global _start",
    "_start:",
    "lea rsp, [rip + pagelab_boot_stack_top]",
    "xor ebp, ebp",
    "call {enter}",
    "ud2",
    enter = sym enter_from_vmm,
);

/// RDI is the physical address of the boot information.
extern "C" fn enter_from_vmm(boot_info: u64) -> ! {
    // Only the place that the ABI names is trusted.
    let well_placed = boot_info >= BOOT_INFO.0
        && boot_info + size_of::<BootInfo>() as u64 <= BOOT_INFO_END.0
        && boot_info.is_multiple_of(8);
    if !well_placed {
        power::power_off(WRONG_ABI);
    }
    // SAFETY: in low memory, which is mapped and set aside; any bytes are valid.
    let info = unsafe { &*((PHYSMAP_BASE + boot_info) as *const BootInfo) };
    begin(info)
}

/// Power-off status of a kernel that was given boot information of another
/// version.
const WRONG_ABI: u32 = 71;

/// Sets up the hardware, in the order of what needs what, and starts the kernel.
pub(crate) fn begin(info: &'static BootInfo) -> ! {
    let entered = cpu::timestamp();
    memory::set_kernel_root(GuestPhys(info.root_table & !(PAGE_SIZE - 1)));
    descriptors::load();
    if !info.is_valid() {
        power::power_off(WRONG_ABI);
    }
    lab::init();
    lab::reach(Milestone::KernelEntry, entered);
    if !lab::is_present() {
        serial::init();
    }
    console::init(info.command_line());
    cpu::enable_features();
    memory::init(info);
    stack::unmap_image_guards();
    fpu::init();
    time::init(info);
    interrupts::init();
    // SAFETY: the kernel's main function, which has this type.
    unsafe { pagelab_kernel_main(info) }
}
