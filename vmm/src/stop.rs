//! Why a lab ended, with everything that is needed to explain it.
//!
//! [`StopReason`] is made where the end is noticed (a device, the vCPU, the
//! event loop) and says nothing about KVM's structures: [`Registers`] is a copy
//! of the processor's state in plain fields. Its `Display` states all the facts
//! in a few lines; explanations with page walks, disassembly and symbols are
//! built on top of it.

use std::fmt;
use std::time::Duration;

use pagelab_abi::lab::PanicState;

/// The processor's state when the guest stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// RAX, RBX, RCX, RDX, RSI, RDI, RBP, RSP, R8 to R15 (as in [`PanicState`]).
    pub general: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
    /// CR0.
    pub cr0: u64,
    /// Address of the last page fault.
    pub cr2: u64,
    /// Root page table.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// Extended features (IA32_EFER).
    pub efer: u64,
    /// Code segment selector.
    pub cs: u16,
    /// Stack segment selector.
    pub ss: u16,
    /// Base of FS.
    pub fs_base: u64,
    /// Base of GS.
    pub gs_base: u64,
    /// Base and limit of the interrupt descriptor table.
    pub idt: (u64, u16),
    /// Base and limit of the global descriptor table.
    pub gdt: (u64, u16),
    /// Task register: selector and base.
    pub tr: (u16, u64),
    /// An exception that was being delivered: vector and error code.
    pub exception: Option<(u8, Option<u32>)>,
}

/// Names of [`Registers::general`] and [`PanicState::general`].
pub const GENERAL_NAMES: [&str; 16] = [
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];

impl Registers {
    /// Privilege level of the code that ran.
    #[must_use]
    pub const fn privilege(&self) -> u16 {
        self.cs & 3
    }
}

/// What the guest's kernel said when it gave up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PanicReport {
    /// Its message.
    pub message: String,
    /// The processor's state, if the kernel sent it.
    pub state: Option<PanicState>,
}

/// What KVM said when it could not go on (`KVM_EXIT_INTERNAL_ERROR`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InternalError {
    /// Which kind.
    pub suberror: u32,
    /// KVM's data words.
    pub data: Vec<u64>,
    /// Bytes of the instruction that could not be emulated, if KVM gave them.
    pub instruction: Vec<u8>,
}

/// KVM could not emulate an instruction.
pub const SUBERROR_EMULATION: u32 = 1;
/// An event could not be delivered.
pub const SUBERROR_DELIVERY: u32 = 3;

impl InternalError {
    /// What the suberror means.
    #[must_use]
    pub const fn meaning(&self) -> &'static str {
        match self.suberror {
            SUBERROR_EMULATION => "it met an instruction that it cannot emulate",
            2 => "two exceptions came at once",
            SUBERROR_DELIVERY => "an event could not be delivered to the guest",
            4 => "the processor left the guest for an unexpected reason",
            _ => "for a reason that this version of pagelab does not know",
        }
    }
}

/// Why a lab ended.
#[derive(Debug)]
pub enum StopReason {
    /// The guest powered off with this status.
    PoweredOff(u32),
    /// The guest's kernel panicked; the registers are those at its report.
    Panicked(Box<PanicReport>, Box<Registers>),
    /// Triple fault: an exception while a double fault was delivered.
    TripleFault(Box<Registers>),
    /// KVM gave up.
    InternalError(Box<InternalError>, Box<Registers>),
    /// The processor refused to enter the guest.
    FailEntry {
        /// The processor's reason.
        reason: u64,
        /// The host's processor.
        cpu: u32,
        /// State of the vCPU.
        registers: Box<Registers>,
    },
    /// A guest access to memory that the host cannot provide.
    MemoryFault {
        /// KVM's flags.
        flags: u64,
        /// Guest-physical address.
        address: u64,
        /// Length in bytes.
        length: u64,
        /// State of the vCPU.
        registers: Box<Registers>,
    },
    /// An exit that the lab never asks for.
    UnexpectedExit(String, Box<Registers>),
    /// `KVM_RUN` failed.
    RunFailed(std::io::Error, Box<Registers>),
    /// The vCPU's thread ended without a reason: a bug of pagelab.
    VcpuLost(String),
    /// The time that was allowed is over.
    Timeout(Duration, Option<Box<Registers>>),
    /// A signal asked the lab to stop.
    Signal(i32, Option<Box<Registers>>),
    /// Nobody reads the output any more.
    OutputClosed,
    /// The output failed in another way.
    OutputFailed(std::io::Error),
    /// The event loop failed.
    LoopFailed(String),
}

/// The exit status where pagelab, not the guest's program, is the cause.
pub const STATUS_LAB_FAILED: u8 = 125;
/// The exit status after `--timeout`, as timeout(1) has it.
pub const STATUS_TIMEOUT: u8 = 124;
/// What a shell adds to the number of a signal that ended a program.
const STATUS_SIGNAL: u8 = 128;

impl StopReason {
    /// The exit status of a lab that ended so.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            // As with every program, eight bits of a status are seen.
            #[allow(clippy::cast_possible_truncation, reason = "as exit(2) does it")]
            Self::PoweredOff(status) => *status as u8,
            Self::Timeout(..) => STATUS_TIMEOUT,
            Self::Signal(number, _) => {
                u8::try_from(*number).map_or(STATUS_LAB_FAILED, |n| STATUS_SIGNAL.wrapping_add(n))
            }
            // What a shell shows for a program that wrote to a closed pipe.
            Self::OutputClosed => STATUS_SIGNAL + 13,
            _ => STATUS_LAB_FAILED,
        }
    }

    /// The processor's state, where there is one.
    #[must_use]
    pub fn registers(&self) -> Option<&Registers> {
        match self {
            Self::Panicked(_, registers)
            | Self::TripleFault(registers)
            | Self::InternalError(_, registers)
            | Self::FailEntry { registers, .. }
            | Self::MemoryFault { registers, .. }
            | Self::UnexpectedExit(_, registers)
            | Self::RunFailed(_, registers) => Some(registers),
            Self::Timeout(_, registers) | Self::Signal(_, registers) => registers.as_deref(),
            Self::PoweredOff(_)
            | Self::VcpuLost(_)
            | Self::OutputClosed
            | Self::OutputFailed(_)
            | Self::LoopFailed(_) => None,
        }
    }

    /// Whether the guest itself died: what explanations are for.
    #[must_use]
    pub const fn is_death(&self) -> bool {
        matches!(
            self,
            Self::Panicked(..)
                | Self::TripleFault(_)
                | Self::InternalError(..)
                | Self::FailEntry { .. }
                | Self::MemoryFault { .. }
                | Self::UnexpectedExit(..)
                | Self::RunFailed(..)
        )
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PoweredOff(status) => write!(f, "the guest powered off with status {status}")?,
            Self::Panicked(report, _) => {
                write!(f, "the guest's kernel panicked: {}", report.message)?;
                return report.state.as_ref().map_or(Ok(()), |state| write_panic(f, state));
            }
            Self::TripleFault(_) => f.write_str(
                "triple fault: an exception came while the guest's double-fault handler was \
                 being entered, and the processor shut down",
            )?,
            Self::InternalError(error, _) => write_internal(f, error)?,
            Self::FailEntry { reason, cpu, .. } => write!(
                f,
                "the processor refused to enter the guest: hardware reason {reason:#x} on CPU {cpu}"
            )?,
            Self::MemoryFault { flags, address, length, .. } => write!(
                f,
                "the host could not provide guest memory: {length} bytes at {address:#x} \
                 (flags {flags:#x})"
            )?,
            Self::UnexpectedExit(exit, _) => {
                write!(f, "KVM left the guest for a reason that was not expected: {exit}")?;
            }
            Self::RunFailed(error, _) => write!(f, "KVM could not run the guest: {error}")?,
            Self::VcpuLost(what) => write!(f, "the thread of the vCPU ended on its own: {what}")?,
            Self::Timeout(limit, _) => {
                write!(f, "stopped: the time limit of {} s is over", limit.as_secs_f64())?;
            }
            Self::Signal(number, _) => write!(f, "stopped by {}", signal_name(*number))?,
            Self::OutputClosed => f.write_str("nobody reads the output any more")?,
            Self::OutputFailed(error) => write!(f, "cannot write the guest's output: {error}")?,
            Self::LoopFailed(error) => write!(f, "the event loop failed: {error}")?,
        }
        // Where the guest was when it was stopped is no part of why.
        let dead = self.registers().filter(|_| self.is_death());
        dead.map_or(Ok(()), |registers| write!(f, "\n{registers}"))
    }
}

fn write_internal(f: &mut fmt::Formatter<'_>, error: &InternalError) -> fmt::Result {
    write!(f, "KVM gave up: {} (suberror {})", error.meaning(), error.suberror)?;
    if !error.instruction.is_empty() {
        f.write_str("\n  instruction bytes:")?;
        for byte in &error.instruction {
            write!(f, " {byte:02x}")?;
        }
    }
    if !error.data.is_empty() {
        f.write_str("\n  data:")?;
        for word in &error.data {
            write!(f, " {word:#x}")?;
        }
    }
    Ok(())
}

fn write_general(f: &mut fmt::Formatter<'_>, general: &[u64; 16]) -> fmt::Result {
    for (index, (name, value)) in GENERAL_NAMES.iter().zip(general).enumerate() {
        let separator = if index % 4 == 0 { "\n  " } else { "  " };
        write!(f, "{separator}{name:>3} {value:016x}")?;
    }
    Ok(())
}

fn write_panic(f: &mut fmt::Formatter<'_>, state: &PanicState) -> fmt::Result {
    write!(f, "\n  rip {:016x}  flags {:x}", state.rip, state.rflags)?;
    write!(f, "  cr2 {:016x}  cr3 {:x}", state.cr2, state.cr3)?;
    if state.vector != u64::MAX {
        write!(f, "\n  exception {}, error code {:#x}", state.vector, state.error_code)?;
    }
    if state.pid != 0 {
        write!(f, "\n  process {}", state.pid)?;
    }
    write_general(f, &state.general)?;
    let depth = usize::try_from(state.depth).unwrap_or(usize::MAX);
    for address in state.backtrace.iter().take(depth) {
        write!(f, "\n  called from {address:016x}")?;
    }
    Ok(())
}

impl fmt::Display for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  ring {}", self.privilege())?;
        write!(f, "  rip {:016x}  flags {:x}", self.rip, self.rflags)?;
        write!(f, "  cs {:x}  ss {:x}", self.cs, self.ss)?;
        write_general(f, &self.general)?;
        write!(f, "\n  cr0 {:x}  cr2 {:016x}", self.cr0, self.cr2)?;
        write!(f, "  cr3 {:x}  cr4 {:x}  efer {:x}", self.cr3, self.cr4, self.efer)?;
        write!(f, "\n  fs {:016x}  gs {:016x}", self.fs_base, self.gs_base)?;
        write!(
            f,
            "  idt {:016x}+{:x}  gdt {:016x}+{:x}",
            self.idt.0, self.idt.1, self.gdt.0, self.gdt.1
        )?;
        match self.exception {
            Some((vector, Some(code))) => {
                write!(f, "\n  exception {vector} pending, error code {code:#x}")
            }
            Some((vector, None)) => write!(f, "\n  exception {vector} pending"),
            None => Ok(()),
        }
    }
}

/// A signal by name.
#[must_use]
pub fn signal_name(number: i32) -> String {
    let name = match number {
        libc::SIGHUP => "SIGHUP (the terminal was closed)",
        libc::SIGINT => "SIGINT (Ctrl-C)",
        libc::SIGQUIT => "SIGQUIT (Ctrl-\\)",
        libc::SIGTERM => "SIGTERM",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}
