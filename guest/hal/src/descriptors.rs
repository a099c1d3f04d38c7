//! GDT, TSS and IDT.
//!
//! Selectors have Linux's values, which some programs know. The TSS's I/O
//! bitmap lies beyond its limit: no port is open to ring 3. Double faults and
//! non-maskable interrupts have stacks of their own, so that a kernel stack
//! overflow is reported and not a reset.

use core::arch::asm;
use core::cell::UnsafeCell;

use crate::stack;
use crate::trap::{self, vector};

/// Kernel code.
pub const KERNEL_CODE: u16 = 0x10;
/// Kernel stack and data.
pub const KERNEL_DATA: u16 = 0x18;
/// Base that SYSRET computes the user selectors from.
pub const USER_BASE: u16 = 0x23;
/// User stack and data.
pub const USER_DATA: u16 = 0x2b;
/// User code.
pub const USER_CODE: u16 = 0x33;
const TASK_STATE: u16 = 0x40;

/// IDT entries: exceptions and the few interrupts of [`vector`].
pub const VECTORS: usize = 48;

const STACK_DOUBLE_FAULT: u8 = 1;
const STACK_NMI: u8 = 2;

const GATE_INTERRUPT: u8 = 0x8e;
const GATE_FOR_RING3: u8 = 0x60;

#[repr(C, packed(4))]
struct TaskState {
    reserved0: u32,
    stack_ring0: u64,
    stack_ring1: u64,
    stack_ring2: u64,
    reserved1: u64,
    interrupt_stacks: [u64; 7],
    reserved2: u64,
    reserved3: u16,
    io_bitmap: u16,
}

const TASK_STATE_SIZE: u16 = 104;
const _: () = assert!(size_of::<TaskState>() == TASK_STATE_SIZE as usize);

#[derive(Clone, Copy)]
#[repr(C)]
struct Gate {
    offset_low: u16,
    selector: u16,
    stack: u8,
    kind: u8,
    offset_middle: u16,
    offset_high: u32,
    reserved: u32,
}

const NO_GATE: Gate = Gate {
    offset_low: 0,
    selector: 0,
    stack: 0,
    kind: 0,
    offset_middle: 0,
    offset_high: 0,
    reserved: 0,
};

#[repr(C, align(16))]
struct Tables {
    gdt: [u64; 10],
    task_state: TaskState,
    idt: [Gate; VECTORS],
}

struct Shared(UnsafeCell<Tables>);

// SAFETY: written by `load` before anything else runs, and by `set_ring0_stack`
// with interrupts off on the only processor.
unsafe impl Sync for Shared {}

static TABLES: Shared = Shared(UnsafeCell::new(Tables {
    gdt: [
        0,
        0,
        0x00af_9b00_0000_ffff, // KERNEL_CODE: 64-bit, execute and read
        0x00cf_9300_0000_ffff, // KERNEL_DATA: read and write
        0x00cf_fb00_0000_ffff, // USER_BASE: 32-bit code, only there to count from
        0x00cf_f300_0000_ffff, // USER_DATA
        0x00af_fb00_0000_ffff, // USER_CODE: 64-bit
        0,
        0, // TASK_STATE, filled in by `load`
        0,
    ],
    task_state: TaskState {
        reserved0: 0,
        stack_ring0: 0,
        stack_ring1: 0,
        stack_ring2: 0,
        reserved1: 0,
        interrupt_stacks: [0; 7],
        reserved2: 0,
        reserved3: 0,
        io_bitmap: TASK_STATE_SIZE,
    },
    idt: [NO_GATE; VECTORS],
}));

#[repr(C, packed)]
struct TablePointer {
    limit: u16,
    base: u64,
}

/// Fills the tables and makes the processor use them.
pub(crate) fn load() {
    // SAFETY: nothing else uses the tables yet.
    let tables = unsafe { &mut *TABLES.0.get() };
    let task_state = &raw const tables.task_state as u64;
    tables.task_state.interrupt_stacks[usize::from(STACK_DOUBLE_FAULT) - 1] =
        stack::double_fault_top();
    tables.task_state.interrupt_stacks[usize::from(STACK_NMI) - 1] = stack::nmi_top();
    let (low, high) = task_state_descriptor(task_state);
    tables.gdt[usize::from(TASK_STATE) / 8] = low;
    tables.gdt[usize::from(TASK_STATE) / 8 + 1] = high;
    for (number, gate) in tables.idt.iter_mut().enumerate() {
        *gate = gate_for(number);
    }
    let gdt = pointer(&tables.gdt);
    let idt = pointer(&tables.idt);
    // SAFETY: the tables are static and complete; the segments loaded are flat.
    unsafe {
        asm!(
            "lgdt [{gdt}]",
            "lidt [{idt}]",
            "push {code}",
            "lea {scratch}, [rip + 2f]",
            "push {scratch}",
            "retfq",
            "2:",
            "mov ss, {data:e}",
            "mov ds, {zero:e}",
            "mov es, {zero:e}",
            "mov fs, {zero:e}",
            "mov gs, {zero:e}",
            "ltr {task:x}",
            gdt = in(reg) &raw const gdt,
            idt = in(reg) &raw const idt,
            code = in(reg) u64::from(KERNEL_CODE),
            data = in(reg) u32::from(KERNEL_DATA),
            zero = in(reg) 0_u32,
            task = in(reg) TASK_STATE,
            scratch = out(reg) _,
        );
    }
}

/// Sets the stack that exceptions and interrupts from ring 3 start on.
#[inline]
pub(crate) fn set_ring0_stack(top: u64) {
    // SAFETY: interrupts are off, one processor, and no reference is held.
    unsafe { ring0_stack().write_unaligned(top) };
}

/// Where that stack is noted; not aligned.
#[inline]
pub(crate) fn ring0_stack() -> *mut u64 {
    // SAFETY: inside the static.
    unsafe { &raw mut (*TABLES.0.get()).task_state.stack_ring0 }
}

fn pointer<T>(table: &T) -> TablePointer {
    TablePointer { limit: (size_of::<T>() - 1) as u16, base: core::ptr::from_ref(table) as u64 }
}

fn task_state_descriptor(base: u64) -> (u64, u64) {
    const AVAILABLE_TASK_STATE: u64 = 0x89 << 40;
    let limit = u64::from(TASK_STATE_SIZE) - 1;
    let low = limit | (base & 0x00ff_ffff) << 16 | AVAILABLE_TASK_STATE | (base >> 24 & 0xff) << 56;
    (low, base >> 32)
}

fn gate_for(number: usize) -> Gate {
    let address = trap::stub(number);
    let number = number as u8;
    let stack = match number {
        vector::DOUBLE_FAULT => STACK_DOUBLE_FAULT,
        vector::NMI => STACK_NMI,
        _ => 0,
    };
    // Programs may execute `int3` and `into`.
    let ring3 = matches!(number, vector::BREAKPOINT | vector::OVERFLOW);
    Gate {
        offset_low: address as u16,
        selector: KERNEL_CODE,
        stack,
        kind: if ring3 { GATE_INTERRUPT | GATE_FOR_RING3 } else { GATE_INTERRUPT },
        offset_middle: (address >> 16) as u16,
        offset_high: (address >> 32) as u32,
        reserved: 0,
    }
}
