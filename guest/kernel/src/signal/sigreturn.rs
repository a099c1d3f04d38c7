//! The way back from a handler: `rt_sigreturn`.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use pagelab_abi::addr::GuestVirt;
use pagelab_hal::fpu::{self, FpuState};
use pagelab_hal::trap::TrapFrame;
use pagelab_vfs::Errno;
use zerocopy::FromBytes;

use super::frame::{Extent, LEGACY_SIZE, UserContext};
use super::info::SignalInfo;
use super::{SIGSEGV, Trap, force, set_mask};
use crate::process::scheduler;
use crate::process::thread::Thread;
use crate::user;

/// Gives the program back what the frame on its stack holds, which the handler
/// may have changed. A frame that cannot be read is SIGSEGV.
pub fn sigreturn(frame: &mut TrapFrame) {
    let thread = scheduler::current();
    if restore(&thread, frame).is_err() {
        log::debug!("process {}: no signal frame at {:#x}", thread.process.pid, frame.rsp);
        force(SignalInfo::kernel(SIGSEGV), Trap::default());
    }
}

fn restore(thread: &Arc<Thread>, frame: &mut TrapFrame) -> Result<(), Errno> {
    // The handler has returned to the restorer, which took its address away.
    let context: UserContext = user::read(GuestVirt(frame.rsp))?;
    set_mask(thread, context.mask);
    restore_floating_point(thread, GuestVirt(context.machine.floating_point))?;
    {
        let mut stack = thread.signals.stack.lock();
        // As on Linux, a stack that makes no sense is not an error here, and one
        // that the handler has set and still uses stays.
        if let Ok(restored) = stack.replaced_by(context.stack, frame.rsp) {
            *stack = restored;
        }
    }
    context.machine.restore(frame);
    Ok(())
}

fn restore_floating_point(thread: &Thread, at: GuestVirt) -> Result<(), Errno> {
    if at.0 == 0 {
        FpuState::restore_initial();
        return Ok(());
    }
    let legacy: [u8; LEGACY_SIZE] = user::read(at)?;
    let extended = read_extended(at, &legacy)?;
    let mut user = thread.user.lock();
    let fpu = user.fpu().ok_or(Errno::ENOMEM)?;
    fpu.load(&legacy, extended.as_deref());
    fpu.restore();
    Ok(())
}

/// What is behind the legacy part, if the frame says that it is there.
fn read_extended(at: GuestVirt, legacy: &[u8; LEGACY_SIZE]) -> Result<Option<Vec<u8>>, Errno> {
    let size = fpu::size();
    let extent = Extent::read_from_bytes(&legacy[Extent::OFFSET..]);
    if fpu::components() == 0 || !extent.is_ok_and(|extent| extent.describes(size)) {
        return Ok(None);
    }
    let mark: u32 = user::read(GuestVirt(at.0.wrapping_add(size as u64)))?;
    if mark != Extent::END_MARK {
        return Ok(None);
    }
    let behind = GuestVirt(at.0.wrapping_add(LEGACY_SIZE as u64));
    // Most handlers leave nothing but x87 and SSE, whose state is read already.
    let present: u64 = user::read(behind)?;
    let length = if fpu::is_legacy(present) { fpu::HEADER_SIZE } else { size - LEGACY_SIZE };
    let mut extended = vec![0; length];
    user::read_bytes(behind, &mut extended)?;
    Ok(Some(extended))
}
