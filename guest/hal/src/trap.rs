//! The way into ring 0 and back.
//!
//! Everything that interrupts a program leaves the same [`TrapFrame`] at the top
//! of its kernel stack and then takes one path:
//!
//! ```text
//!  exception, interrupt ── stub ─┐
//!  SYSCALL (ring 0) ─────────────┼─ TrapFrame ── enter ── Handlers ── leave ── iretq
//!  SYSCALL that stayed in ring 3 ┘                                         └── sysretq
//!     (arrives as a page fault)
//! ```
//!
//! On some hosts SYSCALL jumps to the entry page but stays in ring 3. The entry
//! is a supervisor page, so the next thing is a page fault with a signature that
//! nothing else has: [`is_unprivileged_syscall`]. `enter` turns that frame into
//! the one SYSCALL would have left, and nobody above sees a difference. Such a
//! host refuses SYSRET as well; so SYSRET is used exactly for calls that came in
//! through the real entry.

use core::arch::global_asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

use pagelab_abi::layout::USER_END;

use crate::cpu::{self, msr};
use crate::descriptors::{KERNEL_CODE, USER_BASE, USER_CODE, USER_DATA, VECTORS};
use crate::{power, ring3, time, virtio};

/// Interrupt vectors that have names here.
pub mod vector {
    /// Division by zero or overflow of a quotient.
    pub const DIVIDE: u8 = 0;
    /// Single step and hardware breakpoints.
    pub const DEBUG: u8 = 1;
    /// Non-maskable interrupt.
    pub const NMI: u8 = 2;
    /// `int3`.
    pub const BREAKPOINT: u8 = 3;
    /// `into`.
    pub const OVERFLOW: u8 = 4;
    /// `bound`.
    pub const BOUND: u8 = 5;
    /// Invalid instruction.
    pub const INVALID_OPCODE: u8 = 6;
    /// No FPU.
    pub const NO_FPU: u8 = 7;
    /// A fault while delivering a fault.
    pub const DOUBLE_FAULT: u8 = 8;
    /// Invalid TSS.
    pub const INVALID_TSS: u8 = 10;
    /// Segment not present.
    pub const NO_SEGMENT: u8 = 11;
    /// Stack segment.
    pub const STACK: u8 = 12;
    /// General protection.
    pub const PROTECTION: u8 = 13;
    /// Page fault.
    pub const PAGE_FAULT: u8 = 14;
    /// x87 error.
    pub const X87: u8 = 16;
    /// Alignment check.
    pub const ALIGNMENT: u8 = 17;
    /// Machine check.
    pub const MACHINE_CHECK: u8 = 18;
    /// SSE error.
    pub const SIMD: u8 = 19;
    /// First vector of interrupts.
    pub const FIRST_INTERRUPT: u8 = 32;
    /// The local APIC's timer.
    pub const TIMER: u8 = 32;
    /// The lab's device.
    pub const LAB: u8 = 37;
    /// All virtio devices: one is waited for at a time.
    pub const VIRTIO: u8 = 38;
    /// Spurious interrupts of the local APIC.
    pub const SPURIOUS: u8 = 47;
}

/// What an exception is called.
#[must_use]
pub fn exception_name(vector: u64) -> &'static str {
    const NAMES: [&str; 22] = [
        "divide error",
        "debug exception",
        "non-maskable interrupt",
        "breakpoint",
        "overflow",
        "bound range exceeded",
        "invalid opcode",
        "device not available",
        "double fault",
        "coprocessor segment overrun",
        "invalid TSS",
        "segment not present",
        "stack-segment fault",
        "general protection fault",
        "page fault",
        "reserved exception",
        "x87 floating-point error",
        "alignment check",
        "machine check",
        "SIMD floating-point error",
        "virtualization exception",
        "control protection exception",
    ];
    usize::try_from(vector).ok().and_then(|v| NAMES.get(v)).copied().unwrap_or("unknown exception")
}

/// Bits of a page fault's error code.
pub mod fault_code {
    /// The page was present: a matter of rights.
    pub const PRESENT: u64 = 1 << 0;
    /// A write.
    pub const WRITE: u64 = 1 << 1;
    /// From ring 3.
    pub const USER: u64 = 1 << 2;
    /// A reserved bit was set in an entry.
    pub const RESERVED: u64 = 1 << 3;
    /// An instruction fetch.
    pub const FETCH: u64 = 1 << 4;
}

/// A program's registers as an entry into ring 0 saves them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[allow(missing_docs, reason = "registers are named as in the manuals")]
pub struct TrapFrame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    /// What happened: an exception's or interrupt's vector, or [`SYSCALL`].
    pub vector: u64,
    pub error_code: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// [`TrapFrame::vector`] of a system call by the real SYSCALL entry: `leave`
/// may return by SYSRET.
pub const SYSCALL: u64 = 0x100;
/// [`TrapFrame::vector`] of a system call that has to be left by IRETQ.
pub const SYSCALL_VIA_FAULT: u64 = 0x101;

const FRAME_SIZE: usize = size_of::<TrapFrame>();
const _: () = assert!(FRAME_SIZE == 22 * 8 && core::mem::offset_of!(TrapFrame, rip) == 17 * 8);
/// The host reads it as this.
const _: () = {
    use core::mem::offset_of;
    use pagelab_abi::directory::UserFrame;
    assert!(FRAME_SIZE == size_of::<UserFrame>());
    assert!(offset_of!(TrapFrame, rbp) == offset_of!(UserFrame, rbp));
    assert!(offset_of!(TrapFrame, rax) == offset_of!(UserFrame, rax));
    assert!(offset_of!(TrapFrame, rdi) == offset_of!(UserFrame, rdi));
    assert!(offset_of!(TrapFrame, rip) == offset_of!(UserFrame, rip));
    assert!(offset_of!(TrapFrame, rsp) == offset_of!(UserFrame, rsp));
};

impl TrapFrame {
    /// The registers of a program about to start at `rip` with stack `rsp`.
    #[must_use]
    pub fn for_program(rip: u64, rsp: u64) -> Self {
        Self {
            rip,
            rsp,
            cs: u64::from(USER_CODE),
            ss: u64::from(USER_DATA),
            rflags: cpu::FLAG_INTERRUPT,
            vector: SYSCALL_VIA_FAULT,
            ..Self::default()
        }
    }

    /// Makes the frame safe to return with, whatever a program put into it
    /// (`rt_sigreturn`, `ptrace`): ring 3, its flags only, and by IRETQ, which
    /// restores every register.
    pub fn sanitize(&mut self) {
        self.cs = u64::from(USER_CODE);
        self.ss = u64::from(USER_DATA);
        self.rflags = self.rflags & cpu::FLAGS_USER | cpu::FLAG_INTERRUPT;
        if self.vector == SYSCALL {
            self.vector = SYSCALL_VIA_FAULT;
        }
        guard_return_address(self);
    }

    /// Whether the program was in a system call.
    #[must_use]
    pub const fn is_syscall(&self) -> bool {
        self.vector >= SYSCALL
    }

    const fn is_from_user(&self) -> bool {
        self.cs & 3 != 0
    }
}

/// What the kernel does about each way into ring 0. All run with interrupts
/// off on the program's kernel stack; when they return, the program goes on
/// with what is in the frame.
#[derive(Clone, Copy)]
pub struct Handlers {
    /// A system call.
    pub system_call: fn(&mut TrapFrame),
    /// A page fault in ring 3, with its address.
    pub page_fault: fn(&mut TrapFrame, u64),
    /// Another exception in ring 3.
    pub exception: fn(&mut TrapFrame),
    /// An interrupt, in ring 3 or while the kernel waits for one. The frame is
    /// the program's, or `None` while waiting.
    pub interrupt: fn(u8, Option<&mut TrapFrame>),
}

struct HandlerSlot(UnsafeCell<Option<Handlers>>);

// SAFETY: written once by `install` before the first program runs.
unsafe impl Sync for HandlerSlot {}

static HANDLERS: HandlerSlot = HandlerSlot(UnsafeCell::new(None));

/// SYSCALL has been seen to enter ring 0: from then on a fetch of the entry
/// page from ring 3 is what it looks like, a program's mistake.
static SYSCALL_ENTERS_RING0: AtomicBool = AtomicBool::new(false);

/// What the SYSCALL entry needs before it has a stack; GS points here just for
/// its first instructions.
#[repr(C)]
struct EntryScratch {
    kernel_stack: u64,
    user_stack: u64,
}

struct EntryScratchCell(UnsafeCell<EntryScratch>);

// SAFETY: used by the entry code with interrupts off, on the only processor.
unsafe impl Sync for EntryScratchCell {}

static ENTRY_SCRATCH: EntryScratchCell =
    EntryScratchCell(UnsafeCell::new(EntryScratch { kernel_stack: 0, user_stack: 0 }));

/// Sets the handlers and the SYSCALL registers.
pub fn install(handlers: Handlers) {
    // SAFETY: called once, before the first program runs.
    unsafe { *HANDLERS.0.get() = Some(handlers) };
    let star = u64::from(USER_BASE) << 48 | u64::from(KERNEL_CODE) << 32;
    let masked = cpu::FLAG_INTERRUPT
        | cpu::FLAG_TRAP
        | cpu::FLAG_DIRECTION
        | cpu::FLAG_IOPL
        | cpu::FLAG_NESTED
        | cpu::FLAG_ALIGNMENT;
    for (register, value) in [
        (msr::STAR, star),
        (msr::LSTAR, syscall_entry_address()),
        (msr::FMASK, masked),
        (msr::KERNEL_GS_BASE, ENTRY_SCRATCH.0.get() as u64),
    ] {
        // SAFETY: architectural registers, with the selectors of our GDT, our
        // entry code, and a static for it to work with.
        unsafe { cpu::write_msr(register, value) };
    }
}

/// Sets the kernel stack that entries from ring 3 start on.
#[inline]
pub(crate) fn set_kernel_stack(top: u64) {
    crate::descriptors::set_ring0_stack(top);
    // SAFETY: interrupts are off, one processor, and no reference is held.
    unsafe { (*ENTRY_SCRATCH.0.get()).kernel_stack = top };
}

fn syscall_entry_address() -> u64 {
    unsafe extern "C" {
        fn pagelab_syscall_entry();
    }
    pagelab_syscall_entry as *const () as u64
}

/// Address of the stub for a vector.
pub(crate) fn stub(vector: usize) -> u64 {
    unsafe extern "C" {
        fn pagelab_trap_stubs();
    }
    pagelab_trap_stubs as *const () as u64 + (vector as u64) * STUB_SIZE
}

const STUB_SIZE: u64 = 16;
const _: () = assert!(VECTORS == 48, "as many stubs as the list below has");

global_asm!(
    // One stub for each vector: makes the stack look as if every exception had
    // an error code, and adds the vector.
    ".section .text.traps, \"ax\"",
    ".global pagelab_trap_stubs",
    ".balign 16",
    "pagelab_trap_stubs:",
    ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, \
             24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, \
             45, 46, 47",
    ".balign 16",
    ".if (\\n == 8) || (\\n >= 10 && \\n <= 14) || (\\n == 17) || (\\n == 21)",
    ".else",
    "push 0",
    ".endif",
    "push \\n",
    "jmp pagelab_trap_common",
    ".endr",
    ".balign 16",
    // SYSCALL in ring 0: RCX is the return address, R11 the flags, RSP still the
    // program's. GS is the kernel's from the first `swapgs` to the second.
    ".global pagelab_syscall_entry",
    "pagelab_syscall_entry:",
    "swapgs",
    "mov gs:[8], rsp",
    "mov rsp, gs:[0]",
    "push {user_data}",
    "push gs:[8]",
    "push r11",
    "push {user_code}",
    "push rcx",
    "swapgs",
    "push 0",
    "push {syscall}",
    "pagelab_trap_common:",
    "push rdi",
    "push rsi",
    "push rdx",
    "push rcx",
    "push rax",
    "push r8",
    "push r9",
    "push r10",
    "push r11",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov rdi, rsp",
    "cld",
    "call {enter}",
    // `enter` returns whether SYSRET may be used.
    "pagelab_trap_leave:",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "test al, al",
    "jnz 2f",
    "pop r11",
    "pop r10",
    "pop r9",
    "pop r8",
    "pop rax",
    "pop rcx",
    "pop rdx",
    "pop rsi",
    "pop rdi",
    "add rsp, 16",
    "iretq",
    "2:",
    "add rsp, 8",
    "pop r10",
    "pop r9",
    "pop r8",
    "pop rax",
    "add rsp, 8",
    "pop rdx",
    "pop rsi",
    "pop rdi",
    "mov rcx, [rsp + 16]",
    "mov r11, [rsp + 32]",
    "mov rsp, [rsp + 40]",
    "sysretq",
    // Starts a program: RDI is a frame at the top of the kernel stack.
    ".global pagelab_start_program",
    "pagelab_start_program:",
    "mov rsp, rdi",
    "xor eax, eax",
    "jmp pagelab_trap_leave",
    user_data = const USER_DATA,
    user_code = const USER_CODE,
    syscall = const SYSCALL,
    enter = sym enter,
);

/// Leaves for ring 3 with `frame`; the current kernel stack starts afresh.
///
/// `stack_top` is the top of the current kernel stack.
pub(crate) fn start_program(frame: &TrapFrame, stack_top: u64) -> ! {
    unsafe extern "C" {
        fn pagelab_start_program(frame: u64) -> !;
    }
    time::end_kernel_time();
    let place = stack_top - FRAME_SIZE as u64;
    // SAFETY: the top of the current kernel stack holds no live frame of a
    // function that will ever be returned to, and `place` is aligned.
    unsafe { (place as *mut TrapFrame).write(*frame) };
    // SAFETY: the frame returns to ring 3 and never comes back here.
    unsafe { pagelab_start_program(place) }
}

/// Whether a page fault is SYSCALL on a host where it stays in ring 3: present,
/// user, instruction fetch, and both the fault's address and the program's
/// instruction pointer are the entry, where no program can put a page.
fn is_unprivileged_syscall(frame: &TrapFrame, address: u64) -> bool {
    const SIGNATURE: u64 = fault_code::PRESENT | fault_code::USER | fault_code::FETCH;
    frame.error_code == SIGNATURE
        && address == frame.rip
        && address == syscall_entry_address()
        && !SYSCALL_ENTERS_RING0.load(Ordering::Relaxed)
}

/// The one way in: decides what happened and calls the kernel. Returns whether
/// SYSRET may be used.
extern "C" fn enter(frame: &mut TrapFrame) -> bool {
    // SAFETY: written once, before the first program.
    let handlers = unsafe { (*HANDLERS.0.get()).as_ref() };
    let Some(handlers) = handlers.filter(|_| frame.is_from_user()) else {
        enter_from_kernel(frame, handlers);
        return false;
    };
    time::begin_kernel_time();
    let by_sysret = enter_from_program(frame, handlers);
    time::end_kernel_time();
    by_sysret
}

#[inline]
fn enter_from_program(frame: &mut TrapFrame, handlers: &Handlers) -> bool {
    if frame.vector == SYSCALL {
        SYSCALL_ENTERS_RING0.store(true, Ordering::Relaxed);
        (handlers.system_call)(frame);
        guard_return_address(frame);
        return frame.vector == SYSCALL && frame.rip < USER_END.0;
    }
    if frame.vector == u64::from(vector::PAGE_FAULT) {
        let address = cpu::read_cr2();
        if is_unprivileged_syscall(frame, address) {
            frame.vector = SYSCALL_VIA_FAULT;
            frame.rip = frame.rcx;
            frame.rflags = frame.r11;
            (handlers.system_call)(frame);
            guard_return_address(frame);
        } else {
            (handlers.page_fault)(frame, address);
        }
    } else if frame.vector >= u64::from(vector::FIRST_INTERRUPT) {
        (handlers.interrupt)(frame.vector as u8, Some(frame));
    } else if frame.vector == u64::from(vector::NMI)
        || frame.vector == u64::from(vector::MACHINE_CHECK)
    {
        power::die_of_exception(frame);
    } else {
        ring3::leave_if_called(frame);
        (handlers.exception)(frame);
    }
    false
}

/// SYSRET and IRETQ to an address that is not canonical fault in ring 0, the
/// former with the program's stack on some processors. A program that asked for
/// it (SYSCALL as the last instruction of its half) gets its fault at the first
/// address beyond what it can have, and by IRETQ.
fn guard_return_address(frame: &mut TrapFrame) {
    if frame.rip >= USER_END.0 {
        frame.rip = USER_END.0;
    }
}

/// Something happened in ring 0: an interrupt that the kernel was waiting for,
/// or the end.
#[cold]
fn enter_from_kernel(frame: &mut TrapFrame, handlers: Option<&Handlers>) {
    let interrupt = (vector::FIRST_INTERRUPT.into()..SYSCALL).contains(&frame.vector);
    if interrupt {
        frame.rip = cpu::behind_halt(frame.rip);
    }
    match handlers {
        Some(_) if interrupt && virtio::is_put_off(frame.vector as u8) => {}
        Some(handlers) if interrupt => (handlers.interrupt)(frame.vector as u8, None),
        _ => power::die_of_exception(frame),
    }
}
