//! The PVH entry: how QEMU (`-kernel`), Firecracker and others boot the kernel.
//!
//! An ELF note names a 32-bit entry. It gets to 64-bit mode on tables that map
//! the first GiB three times: where it is, in the physical map and where the
//! image is linked. Then the kernel's real map is built as pagelab's VMM builds
//! it, by the same code, and the boot information is made from the protocol's.

use core::arch::global_asm;
use core::cell::UnsafeCell;

use pagelab_abi::addr::{GuestPhys, PAGE_SIZE};
use pagelab_abi::boot::{
    BootInfo, MAX_COMMAND_LINE, MAX_MEMORY_RANGES, MAX_MODULES, MEMORY_RESERVED, MEMORY_USABLE,
    MODULE_ARGUMENTS, MODULE_PROGRAM, MemoryRange, Module,
};
use pagelab_abi::layout::{IMAGE_BASE, LOW_MEMORY_END, PHYSMAP_BASE};
use pagelab_paging::kernel_map::{ImageSegment, KernelMap};

use crate::memory::{self, KernelTables};
use crate::{boot, cpu};

const MAGIC: u32 = 0x336e_c578;
const MEMORY_MAP_RAM: u32 = 1;
const EARLY_MAP_END: u64 = 1 << 30;
/// The kernel's tables may take this much behind the image: enough for the
/// 4 KiB pages around the image and a directory for each GiB.
const TABLES_SIZE: u64 = 1 << 20;

global_asm!(
    ".section .note.pvh, \"a\", @note",
    ".balign 4",
    ".long 4",
    ".long 4",
    ".long 18", // XEN_ELFNOTE_PHYS32_ENTRY
    ".asciz \"Xen\"",
    ".long pagelab_pvh_start - {base}",
    ".section .text.entry, \"ax\"",
    ".code32",
    ".global pagelab_pvh_start",
    "pagelab_pvh_start:",
    "cld",
    // One directory of 2 MiB pages for the first GiB …
    "mov edi, offset pagelab_early_directory - {base}",
    "mov eax, 0x83", // present, writable, huge
    "mov ecx, 512",
    "2:",
    "mov [edi], eax",
    "add eax, 0x200000",
    "add edi, 8",
    "dec ecx",
    "jnz 2b",
    // … reached at 0, from PHYSMAP_BASE and from IMAGE_BASE.
    "mov eax, offset pagelab_early_directory - {base} + 3",
    "mov edi, offset pagelab_early_pointers - {base}",
    "mov [edi], eax",
    "mov [edi + 510 * 8], eax",
    "mov eax, offset pagelab_early_pointers - {base} + 3",
    "mov edi, offset pagelab_early_root - {base}",
    "mov [edi], eax",
    "mov [edi + 256 * 8], eax",
    "mov [edi + 511 * 8], eax",
    "mov cr3, edi",
    "mov eax, cr4",
    "or eax, 0x20", // PAE
    "mov cr4, eax",
    "mov ecx, 0xc0000080",
    "rdmsr",
    "or eax, 0x900", // LME, NXE
    "wrmsr",
    "mov eax, cr0",
    "or eax, 0x80000000",
    "mov cr0, eax",
    "lgdt [pagelab_early_gdt_pointer - {base}]",
    // A far return into 64-bit code.
    "mov esp, offset pagelab_boot_stack_top - {base}",
    "push 8",
    "mov eax, offset pagelab_pvh_long - {base}",
    "push eax",
    "retf",
    ".code64",
    "pagelab_pvh_long:",
    "mov rax, offset pagelab_pvh_high",
    "jmp rax",
    "pagelab_pvh_high:",
    "lea rsp, [rip + pagelab_boot_stack_top]",
    "xor ebp, ebp",
    "mov edi, ebx",
    "call {enter}",
    "ud2",
    ".section .rodata.early, \"a\"",
    ".balign 8",
    "pagelab_early_gdt:",
    ".quad 0",
    ".quad 0x00af9b000000ffff",
    "pagelab_early_gdt_pointer:",
    ".word 15",
    ".long pagelab_early_gdt - {base}",
    ".section .bss.early, \"aw\", @nobits",
    ".balign 4096",
    "pagelab_early_root: .skip 4096",
    "pagelab_early_pointers: .skip 4096",
    "pagelab_early_directory: .skip 4096",
    base = const IMAGE_BASE,
    enter = sym enter_from_pvh,
);

/// Xen's `hvm_start_info`, version 1.
#[repr(C)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    module_count: u32,
    modules: u64,
    command_line: u64,
    rsdp: u64,
    memory_map: u64,
    memory_map_count: u32,
    reserved: u32,
}

#[repr(C)]
struct StartModule {
    start: u64,
    size: u64,
    command_line: u64,
    reserved: u64,
}

#[repr(C)]
struct StartMemory {
    start: u64,
    size: u64,
    kind: u32,
    reserved: u32,
}

struct Storage(UnsafeCell<BootInfo>);

// SAFETY: written once, before anything else runs.
unsafe impl Sync for Storage {}

static STORAGE: Storage = Storage(UnsafeCell::new(BootInfo::empty()));

unsafe extern "C" {
    static pagelab_text_start: u8;
    static pagelab_text_end: u8;
    static pagelab_rodata_end: u8;
    static pagelab_stacks_start: u8;
    static pagelab_image_end: u8;
}

fn physical_of(symbol: *const u8) -> GuestPhys {
    GuestPhys(symbol as u64 - IMAGE_BASE)
}

/// A structure at a physical address in the early map.
fn at<T>(address: u64) -> Option<&'static T> {
    let fits = address != 0 && address.checked_add(size_of::<T>() as u64)? <= EARLY_MAP_END;
    // SAFETY: in the early map; the protocol's structures are plain numbers and
    // aligned by the VMM that wrote them.
    (fits && address.is_multiple_of(align_of::<T>() as u64))
        .then(|| unsafe { &*((PHYSMAP_BASE + address) as *const T) })
}

extern "C" fn enter_from_pvh(start_info: u64) -> ! {
    memory::trust_memory_below(EARLY_MAP_END);
    // SAFETY: nothing else uses the storage yet.
    let info = unsafe { &mut *STORAGE.0.get() };
    if let Some(start) = at::<StartInfo>(start_info).filter(|start| start.magic == MAGIC) {
        fill(info, start);
    }
    // SAFETY: the map that was just built holds the kernel as it is now; without
    // it there is nothing to go on with.
    unsafe { cpu::write_cr3(info.root_table) };
    boot::begin(info)
}

fn fill(info: &mut BootInfo, start: &StartInfo) {
    let image_start = physical_of(&raw const pagelab_text_start);
    let image_end = physical_of(&raw const pagelab_image_end);
    let tables = GuestPhys(image_end.0.next_multiple_of(PAGE_SIZE));
    let tables_end = tables.0 + TABLES_SIZE;
    let mut ram = [(GuestPhys(0), GuestPhys(0)); MAX_MEMORY_RANGES];
    let mut ram_count = 0;
    add_modules(info, start);
    for index in 0..u64::from(start.memory_map_count) {
        let place = start.memory_map + index * size_of::<StartMemory>() as u64;
        let Some(range) = at::<StartMemory>(place).filter(|range| range.kind == MEMORY_MAP_RAM)
        else {
            continue;
        };
        let from = GuestPhys(range.start.next_multiple_of(PAGE_SIZE));
        let to = GuestPhys((range.start + range.size) & !(PAGE_SIZE - 1));
        if from < to && ram_count < ram.len() {
            ram[ram_count] = (from, to);
            ram_count += 1;
            add_memory(info, from.0, to.0, tables_end);
        }
    }
    // SAFETY: memory behind the image, in the early map, that nothing uses.
    unsafe {
        ((PHYSMAP_BASE + tables.0) as *mut u8).write_bytes(0, TABLES_SIZE as usize);
    }
    let image = [
        ImageSegment {
            start: image_start,
            end: physical_of(&raw const pagelab_text_end),
            writable: false,
            executable: true,
        },
        ImageSegment {
            start: physical_of(&raw const pagelab_text_end),
            end: physical_of(&raw const pagelab_rodata_end),
            writable: false,
            executable: false,
        },
        ImageSegment {
            start: physical_of(&raw const pagelab_stacks_start),
            end: tables,
            writable: true,
            executable: false,
        },
    ];
    let map = KernelMap { image: &image, ram: &ram[..ram_count], tables, global_pages: false };
    if let Ok(built) = map.build(&mut KernelTables) {
        info.root_table = built.root.0;
        info.image_start = image_start.0;
        info.image_end = built.end.0;
    }
    copy_command_line(info, start.command_line);
}

/// The first module is the program to run; the command line behind it, its
/// arguments.
fn add_modules(info: &mut BootInfo, start: &StartInfo) {
    for index in 0..u64::from(start.module_count).min(MAX_MODULES as u64) {
        let place = start.modules + index * size_of::<StartModule>() as u64;
        if let Some(module) = at::<StartModule>(place) {
            let kind = if index == 0 { MODULE_PROGRAM } else { MODULE_ARGUMENTS };
            info.modules[info.module_count as usize] =
                Module { start: module.start, length: module.size, kind, reserved: 0 };
            info.module_count += 1;
        }
    }
}

/// Adds a range of RAM, without what must be kept: low memory, the image with
/// its tables, the modules.
fn add_memory(info: &mut BootInfo, start: u64, end: u64, tables_end: u64) {
    let image_start = physical_of(&raw const pagelab_text_start).0;
    let mut keep = [(0, 0); MAX_MODULES + 2];
    keep[0] = (0, LOW_MEMORY_END.0);
    keep[1] = (image_start, tables_end);
    let mut count = 2;
    for module in info.modules() {
        keep[count] = (module.start, (module.start + module.length).next_multiple_of(PAGE_SIZE));
        count += 1;
    }
    keep[..count].sort_unstable();
    let mut from = start;
    for &(kept_start, kept_end) in &keep[..count] {
        add_range(info, from, kept_start.min(end), MEMORY_USABLE);
        add_range(info, kept_start.max(from), kept_end.min(end), MEMORY_RESERVED);
        from = from.max(kept_end);
    }
    add_range(info, from, end, MEMORY_USABLE);
}

fn add_range(info: &mut BootInfo, start: u64, end: u64, kind: u32) {
    let start = start & !(PAGE_SIZE - 1);
    if start < end && (info.memory_count as usize) < MAX_MEMORY_RANGES {
        let range = MemoryRange { start, length: end - start, kind, reserved: 0 };
        info.memory[info.memory_count as usize] = range;
        info.memory_count += 1;
    }
}

fn copy_command_line(info: &mut BootInfo, address: u64) {
    let mut length = 0;
    while length < MAX_COMMAND_LINE {
        match at::<u8>(address + length as u64) {
            Some(&byte) if byte != 0 => info.command_line[length] = byte,
            _ => break,
        }
        length += 1;
    }
    info.command_line_length = length as u32;
}
