//! A thread takes its signals, on the way back to ring 3.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use pagelab_hal::cpu;
use pagelab_hal::fpu;
use pagelab_hal::trap::TrapFrame;
use zerocopy::IntoBytes;

use pagelab_abi::addr::GuestVirt;
use pagelab_vfs::Errno;

use super::actions::{Action, ActionFlags, Effect};
use super::frame::{
    CONTEXT_OFFSET, Extent, Frame, INFO_OFFSET, MachineContext, Place, RED_ZONE, UserContext,
};
use super::info::SignalInfo;
use super::set::SignalSet;
use super::{Interrupted, SIGSEGV, SIGSTOP, Trap, force, refresh_attention, set_mask, stop, timer};
use crate::memory::memory;
use crate::process::thread::Thread;
use crate::process::{ExitStatus, exit, rseq, scheduler};
use crate::user;

/// Length of the SYSCALL instruction.
const SYSCALL_LENGTH: u64 = 2;

/// Does what is due before the current thread returns to ring 3: stops, ends,
/// or lets handlers run. `interrupted` says that its system call ended early.
///
/// Handlers are stacked: the one of the last signal runs first.
#[cold]
pub fn before_return(frame: &mut TrapFrame, mut interrupted: Option<Interrupted>) {
    let thread = scheduler::current();
    loop {
        if is_ending(&thread) {
            return;
        }
        if thread.process.signals.is_stopped() {
            stop::wait_while_stopped(&thread);
        } else if let Some(info) = take(&thread) {
            act(&thread, frame, info, &mut interrupted);
        } else {
            if let Some(call) = interrupted.take() {
                begin_anew(frame, call.number);
            }
            let saved = thread.signals.saved_mask.lock().take();
            if let Some(mask) = saved {
                set_mask(&thread, mask);
            } else {
                refresh_attention(&thread);
            }
            if !thread.has_attention() {
                return;
            }
        }
    }
}

/// Whether a thread's sleep must end for a signal: a handler is to run, or the
/// thread ends. A signal that only stops the process does so here, and the sleep
/// goes on with the process.
pub fn cuts_short(thread: &Arc<Thread>) -> bool {
    loop {
        if is_ending(thread) {
            return true;
        }
        if thread.process.signals.is_stopped() {
            stop::wait_while_stopped(thread);
            // What is waited for may have come: that is looked for first.
            refresh_attention(thread);
            return false;
        }
        let wanted = SignalSet::ALL.without(thread.signals.mask());
        let own = thread.signals.pending.lock().next(wanted);
        let next = own.or_else(|| thread.process.signals.pending.lock().next(wanted));
        let Some(signal) = next else {
            refresh_attention(thread);
            return false;
        };
        match thread.process.signals.action(signal).effect(signal) {
            Effect::Handle | Effect::End => return true,
            effect => {
                take(thread);
                stop_if_wanted(thread, signal, effect);
            }
        }
    }
}

fn is_ending(thread: &Thread) -> bool {
    thread.ending.load(Ordering::Relaxed) || thread.process.ending.lock().is_some()
}

/// The next signal: the thread's own come first.
fn take(thread: &Thread) -> Option<SignalInfo> {
    take_one_of(thread, SignalSet::ALL.without(thread.signals.mask()))
}

/// The next signal of a set.
pub fn take_one_of(thread: &Thread, wanted: SignalSet) -> Option<SignalInfo> {
    let own = thread.signals.pending.lock().take(wanted);
    let info = own.or_else(|| thread.process.signals.pending.lock().take(wanted))?;
    Some(timer::taken(&thread.process, info))
}

/// The instruction SYSCALL is executed again.
fn begin_anew(frame: &mut TrapFrame, number: u64) {
    frame.rax = number;
    frame.rip = frame.rip.wrapping_sub(SYSCALL_LENGTH);
}

fn act(
    thread: &Arc<Thread>,
    frame: &mut TrapFrame,
    info: SignalInfo,
    interrupted: &mut Option<Interrupted>,
) {
    let signal = info.signal();
    let process = &thread.process;
    let action = process.signals.action(signal);
    match action.effect(signal) {
        effect @ (Effect::Nothing | Effect::Stop) => stop_if_wanted(thread, signal, effect),
        Effect::End => end(thread, frame, signal),
        Effect::Handle => {
            if action.flags().contains(ActionFlags::RESET) {
                process.signals.set_action(signal, action.without_handler());
            }
            if let Some(call) = interrupted.take()
                && call.if_handled
                && action.flags().contains(ActionFlags::RESTART)
            {
                begin_anew(frame, call.number);
            }
            if enter_handler(thread, frame, info, &action).is_err() {
                no_place_for_frame(thread, frame, signal);
            }
        }
    }
}

/// The effect of a signal that neither ends the process nor has a handler. A
/// process that nobody could make go on is stopped by SIGSTOP only.
fn stop_if_wanted(thread: &Thread, signal: u8, effect: Effect) {
    let process = &thread.process;
    let group = process.family.lock().group;
    if effect == Effect::Stop && (signal == SIGSTOP || !stop::is_orphaned(group)) {
        stop::stop(process, signal);
    }
}

fn end(thread: &Thread, frame: &TrapFrame, signal: u8) {
    let pid = thread.process.pid;
    log::debug!("process {pid}: signal {signal} ends it at {:#x}", frame.rip);
    exit::kill(&thread.process, ExitStatus::Killed(signal));
}

/// A handler cannot run because its stack cannot be written: SIGSEGV, which ends
/// the process if it has no handler either.
fn no_place_for_frame(thread: &Thread, frame: &TrapFrame, signal: u8) {
    let (pid, rsp) = (thread.process.pid, frame.rsp);
    log::debug!("process {pid}: no place at {rsp:#x} for the frame of signal {signal}");
    if signal == SIGSEGV {
        end(thread, frame, signal);
    } else {
        force(SignalInfo::kernel(SIGSEGV), Trap::default());
    }
}

/// Has the program run a handler when it returns to ring 3.
fn enter_handler(
    thread: &Arc<Thread>,
    frame: &mut TrapFrame,
    info: SignalInfo,
    action: &Action,
) -> Result<(), Errno> {
    rseq::interrupted(frame);
    let mask = thread.signals.mask();
    let return_mask = thread.signals.saved_mask.lock().take().unwrap_or(mask);
    let at = push_frame(thread, frame, info, action, return_mask)?;
    let signal = info.signal();
    frame.rsp = at;
    frame.rip = action.handler;
    frame.rax = 0;
    frame.rdi = signal.into();
    frame.rsi = at + INFO_OFFSET;
    frame.rdx = at + CONTEXT_OFFSET;
    frame.rflags &= !(cpu::FLAG_DIRECTION | cpu::FLAG_TRAP);
    frame.sanitize();
    let mut stack = thread.signals.stack.lock();
    *stack = stack.after_entry();
    drop(stack);
    let mut blocked = mask.union(action.mask);
    if !action.flags().contains(ActionFlags::NO_DEFER) {
        blocked = blocked.with(signal);
    }
    set_mask(thread, blocked);
    Ok(())
}

/// Writes the frame; returns its address.
fn push_frame(
    thread: &Thread,
    frame: &TrapFrame,
    info: SignalInfo,
    action: &Action,
    mask: SignalSet,
) -> Result<u64, Errno> {
    if !action.flags().contains(ActionFlags::RESTORER) {
        return Err(Errno::EFAULT);
    }
    let state_size = save_floating_point(thread)?;
    let place = find_place(thread, frame, action, state_size).ok_or(Errno::EFAULT)?;
    let extended = fpu::components() != 0;
    let trap = *thread.signals.trap.lock();
    let stack = thread.signals.stack.lock().saved();
    let machine = MachineContext::save(frame, &trap, mask, place.floating_point);
    let context = UserContext::new(machine, stack, mask, extended);
    user::write(GuestVirt(place.frame), &Frame::new(action.restorer, context, info.to_user()))?;
    // The lock must not be held while a page comes in. Should another thread run
    // meanwhile, the same state is saved again.
    user::retry(&thread.process.space(), |space, done| {
        let mut user = thread.user.lock();
        let bytes = user.fpu().map_or(&[][..], |fpu| fpu.bytes_in_use());
        let at = GuestVirt(place.floating_point + done as u64);
        space.write_user(memory(), at, &bytes[done..])
    })?;
    if extended {
        let mark = GuestVirt(place.floating_point + state_size as u64);
        user::write(mark, &Extent::END_MARK)?;
    }
    // A handler starts with what a program starts with.
    if let Some(state) = thread.user.lock().fpu() {
        state.clear_processor();
    }
    Ok(place.frame)
}

/// Saves what the processor has, with what a frame says of it; returns its size.
fn save_floating_point(thread: &Thread) -> Result<usize, Errno> {
    let mut user = thread.user.lock();
    let state = user.look_at_fpu().ok_or(Errno::ENOMEM)?;
    let (size, components) = (fpu::size(), fpu::components());
    if components != 0 {
        let extent = Extent::new(size, components);
        state.software_bytes().copy_from_slice(extent.as_bytes());
    }
    Ok(size)
}

/// Where the frame goes; `None` if that is nowhere.
fn find_place(
    thread: &Thread,
    frame: &TrapFrame,
    action: &Action,
    state_size: usize,
) -> Option<Place> {
    let stack = *thread.signals.stack.lock();
    let below = frame.rsp.wrapping_sub(RED_ZONE);
    let wanted = action.flags().contains(ActionFlags::ON_STACK);
    let alternate = if wanted { stack.fresh_top(below) } else { None };
    let mark = if fpu::components() == 0 { 0 } else { size_of_val(&Extent::END_MARK) };
    let place = Place::below(alternate.unwrap_or(below), state_size + mark)?;
    let must_fit = alternate.is_some() || stack.in_use(frame.rsp);
    (!must_fit || stack.holds(place.frame)).then_some(place)
}
