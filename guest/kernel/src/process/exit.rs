//! A process ends.

use alloc::sync::Arc;

use pagelab_abi::event::{EVENT_EXIT, Event};
use pagelab_hal::trap::{self, TrapFrame};
use pagelab_hal::{cpu, lab};
use pagelab_mm::FaultError;

use super::space::Space;
use super::{ExitStatus, Process, forget, init, scheduler};

/// Signals that end a process here.
pub mod signal {
    /// Invalid instruction.
    pub const SIGILL: u8 = 4;
    /// Breakpoint or single step.
    pub const SIGTRAP: u8 = 5;
    /// Memory that is mapped but not there.
    pub const SIGBUS: u8 = 7;
    /// Arithmetic.
    pub const SIGFPE: u8 = 8;
    /// Memory ran out.
    pub const SIGKILL: u8 = 9;
    /// Memory that is not mapped, or not for this.
    pub const SIGSEGV: u8 = 11;
}

/// Ends the current process: all its threads, its memory.
pub fn exit_process(status: ExitStatus) -> ! {
    {
        let thread = scheduler::current();
        let process = &thread.process;
        if lab::wants_events() {
            lab::emit(Event {
                tsc: cpu::timestamp(),
                pid: process.pid,
                class: EVENT_EXIT,
                detail: status.as_shell(),
                ..Event::default()
            });
        }
        process.threads.lock().clear();
        release_memory(process);
        *process.ended.lock() = Some(status);
        process.end.wake_all();
        forget(process.pid);
    }
    scheduler::end_current()
}

/// Gives the process the empty address space of process 1, and its own back.
fn release_memory(process: &Arc<Process>) {
    let empty: Arc<Space> = init::process().space();
    let own = process.replace_space(empty);
    drop(own);
}

/// Ends the current process because of a fault that nothing mends.
pub fn killed_by_fault(frame: &TrapFrame, address: u64, error: FaultError) {
    let (signal, why) = match error {
        FaultError::NoBacking => (signal::SIGBUS, "nothing is behind the mapping there"),
        FaultError::OutOfMemory => (signal::SIGKILL, "memory has run out"),
        FaultError::Forbidden => (signal::SIGSEGV, "the mapping forbids it"),
        FaultError::NoMapping | FaultError::NeedsPage(_) => {
            (signal::SIGSEGV, "nothing is mapped there")
        }
    };
    {
        let thread = scheduler::current();
        log::warn!(
            "process {} ({}): access to {address:#x} by the instruction at {:#x}: {why}",
            thread.process.pid,
            thread.process.name.lock(),
            frame.rip
        );
    }
    exit_process(ExitStatus::Killed(signal))
}

/// Another exception in ring 3.
pub fn exception(frame: &mut TrapFrame) {
    use trap::vector;
    let signal = match frame.vector as u8 {
        vector::DIVIDE | vector::X87 | vector::SIMD => signal::SIGFPE,
        vector::DEBUG | vector::BREAKPOINT => signal::SIGTRAP,
        vector::INVALID_OPCODE | vector::NO_FPU => signal::SIGILL,
        vector::ALIGNMENT => signal::SIGBUS,
        _ => signal::SIGSEGV,
    };
    {
        let thread = scheduler::current();
        log::warn!(
            "process {} ({}): {} at {:#x}",
            thread.process.pid,
            thread.process.name.lock(),
            trap::exception_name(frame.vector),
            frame.rip
        );
    }
    exit_process(ExitStatus::Killed(signal))
}
