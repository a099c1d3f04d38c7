//! A page fault, from the trap to the program going on.
//!
//! `pagelab_mm` decides what the fault is and mends it (see its `fault.rs`);
//! here it is timed, counted, told to the host, and where it cannot be mended,
//! turned into a signal.

use pagelab_abi::addr::{Frame, GuestVirt};
use pagelab_abi::event::{EVENT_FAULT, Event};
use pagelab_abi::fault::FaultKind;
use pagelab_hal::trap::{self, TrapFrame, fault_code, vector};
use pagelab_hal::{cpu, lab};
use pagelab_mm::{Access, FaultError, Resolved};

use crate::files;
use crate::memory::memory;
use crate::process::{Process, oom, reclaim, scheduler};
use crate::signal::{self, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGTRAP, SignalInfo, Trap};
use crate::syscall::before_return;

/// A page fault in ring 3.
pub fn page_fault(frame: &mut TrapFrame, address: u64) {
    let start = cpu::timestamp();
    let thread = scheduler::current();
    let process = &*thread.process;
    let mut access = access_of(frame.error_code);
    let result = loop {
        let result = process.space().lock().fault(memory(), GuestVirt(address), access);
        match result {
            Err(FaultError::NeedsPage(page)) => {
                let pattern = files::pattern_at(&process.space().lock(), address);
                match files::page_in_for(page, pattern) {
                    Ok(read) => access.major |= read,
                    Err(FaultError::OutOfMemory) if reclaim::free_some() => {}
                    Err(error) => break Err(error),
                }
            }
            Err(FaultError::OutOfMemory) if reclaim::free_some() => {}
            result => break result,
        }
    };
    let fault = Fault { start, address, instruction: frame.rip, error_code: frame.error_code };
    match result {
        Ok(resolved) => record(process, &fault, &resolved),
        Err(error) => {
            let kind = error.kind().unwrap_or(FaultKind::NoMapping);
            record(process, &fault, &Resolved { kind, before: None, after: None });
            cannot_mend(frame, address, error);
        }
    }
    drop(thread);
    before_return(frame, None);
}

/// The program gets a signal, or memory is made.
fn cannot_mend(frame: &TrapFrame, address: u64, error: FaultError) {
    const SEGV_MAPERR: i32 = 1;
    const SEGV_ACCERR: i32 = 2;
    const BUS_ADRERR: i32 = 2;
    let (number, code, why) = match error {
        FaultError::NoBacking => (SIGBUS, BUS_ADRERR, "nothing is behind the mapping there"),
        FaultError::Forbidden => (SIGSEGV, SEGV_ACCERR, "the mapping forbids it"),
        FaultError::NoMapping => (SIGSEGV, SEGV_MAPERR, "nothing is mapped there"),
        FaultError::OutOfMemory | FaultError::NeedsPage(_) => {
            // With room made the program takes the same fault again.
            oom::make_room();
            return;
        }
    };
    let process = scheduler::current().process.clone();
    let (pid, rip) = (process.pid, frame.rip);
    log::debug!("process {pid}: access to {address:#x} by the instruction at {rip:#x}: {why}");
    let trap = Trap { vector: frame.vector, error_code: frame.error_code, address };
    signal::force(SignalInfo::fault(number, code, address), trap);
}

/// Another exception in ring 3.
pub fn exception(frame: &mut TrapFrame) {
    let at = frame.rip;
    let info = match frame.vector as u8 {
        vector::DIVIDE => SignalInfo::fault(SIGFPE, 1, at),
        vector::X87 | vector::SIMD => {
            SignalInfo::fault(SIGFPE, floating_point_code(frame.vector), at)
        }
        vector::DEBUG => SignalInfo::fault(SIGTRAP, 2, at),
        vector::BREAKPOINT => SignalInfo::kernel(SIGTRAP),
        vector::INVALID_OPCODE | vector::NO_FPU => SignalInfo::fault(SIGILL, 2, at),
        vector::ALIGNMENT => SignalInfo::fault(SIGBUS, 1, 0),
        vector::STACK | vector::NO_SEGMENT => SignalInfo::kernel(SIGBUS),
        _ => SignalInfo::kernel(SIGSEGV),
    };
    log::debug!("{} at {at:#x}", trap::exception_name(frame.vector));
    let trap = Trap { vector: frame.vector, error_code: frame.error_code, address: 0 };
    signal::force(info, trap);
    before_return(frame, None);
}

/// Why floating-point arithmetic failed: `FPE_*`.
fn floating_point_code(number: u64) -> i32 {
    const INVALID: i32 = 7;
    const CODES: [(u32, i32); 5] = [(0x01, INVALID), (0x04, 3), (0x08, 4), (0x12, 5), (0x20, 6)];
    let thread = scheduler::current();
    let mut user = thread.user.lock();
    let raised = user
        .look_at_fpu()
        .map_or(0, |fpu| fpu.unmasked_exceptions(number == u64::from(vector::SIMD)));
    CODES.into_iter().find(|(bits, _)| raised & bits != 0).map_or(INVALID, |(_, code)| code)
}

fn access_of(error_code: u64) -> Access {
    Access {
        write: error_code & fault_code::WRITE != 0,
        execute: error_code & fault_code::FETCH != 0,
        major: false,
    }
}

/// What is known of a fault besides how it was resolved.
pub struct Fault {
    /// When it began.
    pub start: u64,
    /// The address that was accessed.
    pub address: u64,
    /// The instruction that accessed it.
    pub instruction: u64,
    /// What the processor said of it.
    pub error_code: u64,
}

/// Counts a fault for its process and for all, and tells the host.
pub fn record(process: &Process, fault: &Fault, resolved: &Resolved) {
    if fault.error_code & fault_code::WRITE != 0 {
        files::write_back::note_write(resolved);
    }
    let cost = cpu::timestamp() - fault.start;
    process.count_fault(resolved.kind, cost);
    lab::count_fault(resolved.kind, cost);
    if lab::wants_events() {
        lab::emit(Event {
            tsc: fault.start,
            address: fault.address,
            instruction: fault.instruction,
            frame_before: resolved.before.map_or(0, |Frame(number)| number),
            frame_after: resolved.after.map_or(0, |Frame(number)| number),
            cost: u32::try_from(cost).unwrap_or(u32::MAX),
            pid: process.pid,
            class: EVENT_FAULT,
            kind: resolved.kind as u8,
            error_code: fault.error_code as u16,
            ..Event::default()
        });
    }
}
