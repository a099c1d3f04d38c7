//! What a handler finds on its stack: `struct rt_sigframe`, as Linux lays it out
//! for x86-64, so that unwinders and debuggers know their way.
//!
//! ```text
//!   higher   the program's stack, or the top of the alternate stack
//!     │      red zone: 128 bytes that the program may use without saying so
//!     │      floating-point state (xsave), aligned to 64
//!     │      Frame { siginfo, ucontext, restorer }
//!     ▼      ◄── RSP of the handler: 8 below a multiple of 16, as after a call
//! ```

use pagelab_hal::trap::TrapFrame;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Trap;
use super::info::USER_SIZE;
use super::set::SignalSet;
use super::stack::StackRecord;

/// Bytes below the stack pointer that belong to the program.
pub const RED_ZONE: u64 = 128;
/// Size of the floating-point state as `fxsave` has it.
pub const LEGACY_SIZE: usize = 512;

/// `ucontext::flags`: there is extended floating-point state.
const HAS_EXTENDED: u64 = 1;
/// `ucontext::flags`: SS is there, and is restored as it is.
const HAS_STACK_SEGMENT: u64 = 2 | 4;

/// `struct sigcontext`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MachineContext {
    r8: u64,
    r9: u64,
    r10: u64,
    r11: u64,
    r12: u64,
    r13: u64,
    r14: u64,
    r15: u64,
    rdi: u64,
    rsi: u64,
    rbp: u64,
    rbx: u64,
    rdx: u64,
    rax: u64,
    rcx: u64,
    rsp: u64,
    rip: u64,
    rflags: u64,
    cs: u16,
    gs: u16,
    fs: u16,
    ss: u16,
    error_code: u64,
    vector: u64,
    old_mask: u64,
    fault_address: u64,
    /// Where the floating-point state is; 0 if there is none.
    pub floating_point: u64,
    reserved: [u64; 8],
}

/// `struct ucontext`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct UserContext {
    flags: u64,
    link: u64,
    /// The alternate stack.
    pub stack: StackRecord,
    /// Registers.
    pub machine: MachineContext,
    /// The mask to return to.
    pub mask: SignalSet,
}

/// `struct rt_sigframe`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Frame {
    restorer: u64,
    context: UserContext,
    info: [u8; USER_SIZE],
}

/// Where the handler's second argument points, seen from the frame.
pub const CONTEXT_OFFSET: u64 = core::mem::offset_of!(Frame, context) as u64;
/// Where its third argument points.
pub const INFO_OFFSET: u64 = core::mem::offset_of!(Frame, info) as u64;

const _: () = assert!(size_of::<MachineContext>() == 256);
const _: () = assert!(size_of::<UserContext>() == 304);
const _: () = assert!(size_of::<Frame>() == 440 && CONTEXT_OFFSET == 8 && INFO_OFFSET == 312);

/// Where the parts of a frame go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// [`Frame`].
    pub frame: u64,
    /// The floating-point state.
    pub floating_point: u64,
}

impl Place {
    /// The place below `top` for a frame with so much floating-point state;
    /// `None` if there is no room above address 0.
    pub fn below(top: u64, floating_point: usize) -> Option<Self> {
        const FLOATING_POINT_ALIGNMENT: u64 = 64;
        const STACK_ALIGNMENT: u64 = 16;
        let align = |address: u64, alignment: u64| address & !(alignment - 1);
        let floating_point = top.checked_sub(floating_point as u64)?;
        let floating_point = align(floating_point, FLOATING_POINT_ALIGNMENT);
        let frame = floating_point.checked_sub(size_of::<Frame>() as u64)?;
        let frame = align(frame, STACK_ALIGNMENT).checked_sub(8)?;
        Some(Self { frame, floating_point })
    }
}

/// What the floating-point state says of itself, in bytes that `fxsave` leaves
/// to software.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Extent {
    magic: u32,
    /// With the mark at its end.
    whole_size: u32,
    components: u64,
    size: u32,
    padding: [u32; 7],
}

impl Extent {
    /// Where it is in the state.
    pub const OFFSET: usize = LEGACY_SIZE - size_of::<Self>();
    /// Stands behind extended state.
    pub const END_MARK: u32 = 0x4650_5845;
    const MAGIC: u32 = 0x4650_5853;

    /// Describes extended state.
    pub fn new(size: usize, components: u64) -> Self {
        let size = u32::try_from(size).unwrap_or_default();
        let whole_size = size + size_of::<u32>() as u32;
        Self { magic: Self::MAGIC, whole_size, components, size, padding: [0; 7] }
    }

    /// Whether it describes extended state of this size.
    pub fn describes(&self, size: usize) -> bool {
        self.magic == Self::MAGIC && self.size as usize == size
    }
}

impl Frame {
    /// The frame for a handler that interrupts a program with these registers.
    pub fn new(restorer: u64, context: UserContext, info: [u8; USER_SIZE]) -> Self {
        Self { restorer, context, info }
    }
}

impl UserContext {
    /// What the program is to return to.
    pub const fn new(
        machine: MachineContext,
        stack: StackRecord,
        mask: SignalSet,
        extended: bool,
    ) -> Self {
        let flags = if extended { HAS_EXTENDED | HAS_STACK_SEGMENT } else { HAS_STACK_SEGMENT };
        Self { flags, link: 0, stack, machine, mask }
    }
}

impl MachineContext {
    /// A program's registers.
    pub fn save(frame: &TrapFrame, trap: &Trap, mask: SignalSet, floating_point: u64) -> Self {
        Self {
            r8: frame.r8,
            r9: frame.r9,
            r10: frame.r10,
            r11: frame.r11,
            r12: frame.r12,
            r13: frame.r13,
            r14: frame.r14,
            r15: frame.r15,
            rdi: frame.rdi,
            rsi: frame.rsi,
            rbp: frame.rbp,
            rbx: frame.rbx,
            rdx: frame.rdx,
            rax: frame.rax,
            rcx: frame.rcx,
            rsp: frame.rsp,
            rip: frame.rip,
            rflags: frame.rflags,
            cs: frame.cs as u16,
            gs: 0,
            fs: 0,
            ss: frame.ss as u16,
            error_code: trap.error_code,
            vector: trap.vector,
            old_mask: mask.0,
            fault_address: trap.address,
            floating_point,
            reserved: [0; 8],
        }
    }

    /// Gives a program these registers, made safe.
    pub fn restore(&self, frame: &mut TrapFrame) {
        *frame = TrapFrame {
            r8: self.r8,
            r9: self.r9,
            r10: self.r10,
            r11: self.r11,
            r12: self.r12,
            r13: self.r13,
            r14: self.r14,
            r15: self.r15,
            rdi: self.rdi,
            rsi: self.rsi,
            rbp: self.rbp,
            rbx: self.rbx,
            rdx: self.rdx,
            rax: self.rax,
            rcx: self.rcx,
            rsp: self.rsp,
            rip: self.rip,
            rflags: self.rflags,
            ..*frame
        };
        frame.sanitize();
    }
}
