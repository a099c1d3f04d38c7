//! The state that a guest starts in: 64-bit mode, ring 0, interrupts off, on the
//! page tables that the loader built. No 16-bit or 32-bit instruction is ever
//! executed.

use kvm_bindings::{CpuId, kvm_regs, kvm_segment, kvm_sregs};
use pagelab_abi::addr::GuestPhys;

use super::KvmError;
use crate::layout::BOOT_GDT_VIRT;
use crate::loader::{BOOT_GDT_ENTRIES, EntryPoint};

const CR0_PE: u64 = 1 << 0;
const CR0_MP: u64 = 1 << 1;
const CR0_ET: u64 = 1 << 4;
const CR0_NE: u64 = 1 << 5;
const CR0_WP: u64 = 1 << 16;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const CR4_PGE: u64 = 1 << 7;
const CR4_OSFXSR: u64 = 1 << 9;
const CR4_OSXMMEXCPT: u64 = 1 << 10;
const EFER_SCE: u64 = 1 << 0;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const EFER_NXE: u64 = 1 << 11;
/// The one flag that is always set.
const RFLAGS_RESERVED: u64 = 1 << 1;

/// CPUID leaf 1, ECX: the TSC deadline timer.
const ECX_TSC_DEADLINE: u32 = 1 << 24;
/// CPUID leaf 1, ECX: there is a hypervisor.
const ECX_HYPERVISOR: u32 = 1 << 31;
/// CPUID leaf 1, EDX: global pages.
const EDX_PGE: u32 = 1 << 13;
/// CPUID leaf 0x8000_0001, EDX: no-execute pages.
const EDX_NX: u32 = 1 << 20;
/// CPUID leaf 0x8000_0001, EDX: 64-bit mode.
const EDX_LONG_MODE: u32 = 1 << 29;

/// Makes what KVM supports into what the only processor of a guest says.
pub(super) fn adjust_cpuid(cpuid: &mut CpuId, deadline_timer: bool) {
    for leaf in cpuid.as_mut_slice() {
        match leaf.function {
            1 => {
                leaf.ecx |= ECX_HYPERVISOR;
                if deadline_timer {
                    leaf.ecx |= ECX_TSC_DEADLINE;
                }
                // KVM copies the host's: this guest has one processor, number 0.
                leaf.ebx = (leaf.ebx & 0xffff) | 1 << 16;
            }
            // The same number in the topology leaves.
            0xb | 0x1f => leaf.edx = 0,
            0x8000_001e => leaf.eax = 0,
            _ => {}
        }
    }
}

/// The registers of CPUID leaf `function` (eax, ebx, ecx, edx).
fn leaf(cpuid: &CpuId, function: u32) -> (u32, u32, u32, u32) {
    cpuid
        .as_slice()
        .iter()
        .find(|leaf| leaf.function == function)
        .map_or((0, 0, 0, 0), |leaf| (leaf.eax, leaf.ebx, leaf.ecx, leaf.edx))
}

/// Refuses a processor that cannot run the kernel at all.
pub(super) fn check_cpuid(cpuid: &CpuId) -> Result<(), KvmError> {
    let (.., extended) = leaf(cpuid, 0x8000_0001);
    if extended & EDX_LONG_MODE == 0 {
        return Err(KvmError::Processor("64-bit mode"));
    }
    if extended & EDX_NX == 0 {
        return Err(KvmError::Processor("no-execute pages"));
    }
    Ok(())
}

/// Whether the guest's processor has global pages.
#[must_use]
pub fn has_global_pages(cpuid: &CpuId) -> bool {
    leaf(cpuid, 1).3 & EDX_PGE != 0
}

/// Sets the special registers for the entry.
pub(super) fn set_special(sregs: &mut kvm_sregs, root: GuestPhys, global_pages: bool) {
    let code = segment(1, BOOT_GDT_ENTRIES[1]);
    let data = segment(2, BOOT_GDT_ENTRIES[2]);
    sregs.cs = code;
    for register in [&mut sregs.ds, &mut sregs.es, &mut sregs.fs, &mut sregs.gs, &mut sregs.ss] {
        *register = data;
    }
    sregs.gdt.base = BOOT_GDT_VIRT.0;
    sregs.gdt.limit = GDT_LIMIT;
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
    sregs.cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
    sregs.cr3 = root.0;
    sregs.cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT;
    if global_pages {
        sregs.cr4 |= CR4_PGE;
    }
    sregs.efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
}

#[allow(clippy::cast_possible_truncation, reason = "three descriptors")]
const GDT_LIMIT: u16 = size_of_val(&BOOT_GDT_ENTRIES) as u16 - 1;

/// The general registers for the entry.
pub(super) fn general(entry: &EntryPoint) -> kvm_regs {
    kvm_regs {
        rip: entry.entry.0,
        rdi: entry.boot_info.0,
        rflags: RFLAGS_RESERVED,
        ..kvm_regs::default()
    }
}

/// What a segment register holds after loading descriptor `index` of the boot
/// table.
#[allow(clippy::cast_possible_truncation, reason = "fields are masked")]
fn segment(index: u16, descriptor: u64) -> kvm_segment {
    let field = |shift: u32, bits: u32| ((descriptor >> shift) & ((1 << bits) - 1)) as u8;
    let limit = (descriptor & 0xffff) as u32 | u32::from(field(48, 4)) << 16;
    let granular = field(55, 1);
    kvm_segment {
        base: 0,
        limit: if granular == 1 { limit << 12 | 0xfff } else { limit },
        selector: index * 8,
        type_: field(40, 4),
        present: field(47, 1),
        dpl: field(45, 2),
        db: field(54, 1),
        s: field(44, 1),
        l: field(53, 1),
        g: granular,
        avl: field(52, 1),
        unusable: 0,
        padding: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_descriptors_are_flat_and_64_bit() {
        let code = segment(1, BOOT_GDT_ENTRIES[1]);
        assert_eq!((code.selector, code.limit, code.type_), (8, u32::MAX, 0xb));
        assert_eq!((code.l, code.db, code.s, code.present, code.dpl), (1, 0, 1, 1, 0));
        let data = segment(2, BOOT_GDT_ENTRIES[2]);
        assert_eq!((data.selector, data.limit, data.type_), (16, u32::MAX, 3));
        assert_eq!((data.l, data.db, data.s, data.present, data.dpl), (0, 1, 1, 1, 0));
    }

    #[test]
    fn a_processor_without_long_mode_is_refused() {
        let empty = CpuId::from_entries(&[]).unwrap();
        assert!(matches!(check_cpuid(&empty), Err(KvmError::Processor("64-bit mode"))));
    }
}
