//! A signal comes to be pending, and a thread that can take it learns of it.
//!
//! There is one user, who may send anything to anybody. Process 1 is the
//! kernel's own and takes no signals.

use alloc::sync::Arc;

use super::actions::{Effect, STOPPING};
use super::info::SignalInfo;
use super::pending::QueueFull;
use super::set::SignalSet;
use super::{SIGCONT, SIGKILL, Trap, discard, set_mask, stop};
use crate::files::signal_file;
use crate::process::limits::resource;
use crate::process::thread::Thread;
use crate::process::{ExitStatus, Pid, Process, State, all, exit, init, scheduler};

/// Whom a signal is for.
#[derive(Clone, Copy)]
enum Target<'a> {
    Process(&'a Arc<Process>),
    Thread(&'a Arc<Thread>),
}

impl<'a> Target<'a> {
    fn process(self) -> &'a Arc<Process> {
        match self {
            Self::Process(process) => process,
            Self::Thread(thread) => &thread.process,
        }
    }
}

/// Sends a signal to a process that must not fail: one that is not queued is
/// at least pending.
pub fn send_to_process(process: &Arc<Process>, info: SignalInfo) {
    // Only real-time signals with information are refused, and those come from
    // programs.
    let _ = to_process(process, info);
}

/// The same for one thread.
pub fn send_to_thread(thread: &Arc<Thread>, info: SignalInfo) {
    let _ = to_thread(thread, info);
}

/// Sends a signal to a process.
///
/// # Errors
///
/// If its queue is full.
pub fn to_process(process: &Arc<Process>, info: SignalInfo) -> Result<(), QueueFull> {
    send(Target::Process(process), info)
}

/// Sends a signal to one thread.
///
/// # Errors
///
/// If its queue is full.
pub fn to_thread(thread: &Arc<Thread>, info: SignalInfo) -> Result<(), QueueFull> {
    send(Target::Thread(thread), info)
}

/// Sends a signal to every process of a group; returns to how many.
pub fn to_group(group: Pid, info: Option<SignalInfo>) -> usize {
    to_all(info, |process| process.family.lock().group == group)
}

/// Sends a signal to every process that is chosen, except process 1; returns to
/// how many. Without a signal it only counts.
pub fn to_all(info: Option<SignalInfo>, chosen: impl Fn(&Process) -> bool) -> usize {
    let mut count = 0;
    for process in all() {
        if process.pid != init::process().pid && chosen(&process) {
            count += 1;
            if let Some(info) = info {
                send_to_process(&process, info);
            }
        }
    }
    count
}

/// A fault of the current thread that nothing mends: its signal cannot be
/// blocked or ignored, that would only repeat the fault.
pub fn force(info: SignalInfo, trap: Trap) {
    let thread = scheduler::current();
    let signal = info.signal();
    let process = &thread.process;
    let mask = thread.signals.mask();
    *thread.signals.trap.lock() = trap;
    let action = process.signals.action(signal);
    if mask.contains(signal) || action.is_ignore() {
        process.signals.set_action(signal, action.without_handler());
        set_mask(&thread, mask.without(SignalSet::of(&[signal])));
    }
    let added = thread.signals.pending.lock().add(info, usize::MAX);
    debug_assert!(added.is_ok(), "faults are standard signals");
    thread.call_attention();
}

fn send(target: Target<'_>, info: SignalInfo) -> Result<(), QueueFull> {
    let process = target.process();
    let signal = info.signal();
    if process.pid == init::process().pid
        || process.state() != State::Alive
        || process.ending.lock().is_some()
    {
        return Ok(());
    }
    if signal == SIGKILL {
        exit::kill(process, ExitStatus::Killed(SIGKILL));
        return Ok(());
    }
    if STOPPING.contains(signal) {
        discard(process, SignalSet::of(&[SIGCONT]));
    } else if signal == SIGCONT {
        discard(process, STOPPING);
        stop::go_on(process);
    }
    if is_dropped(target, signal) {
        return Ok(());
    }
    let most = process.limits.lock().0[resource::PENDING_SIGNALS].0;
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    match target {
        Target::Process(process) => {
            process.signals.pending.lock().add(info, most)?;
            signal_file::signal_arrived(signal);
            tell_one(process, signal);
        }
        Target::Thread(thread) => {
            thread.signals.pending.lock().add(info, most)?;
            signal_file::signal_arrived(signal);
            if !thread.signals.mask().contains(signal) {
                tell(thread);
            }
        }
    }
    Ok(())
}

/// Whether nobody will ever see the signal: it is ignored and not blocked.
fn is_dropped(target: Target<'_>, signal: u8) -> bool {
    let process = target.process();
    if process.signals.action(signal).effect(signal) != Effect::Nothing {
        return false;
    }
    match target {
        Target::Thread(thread) => !thread.signals.keeps(signal),
        Target::Process(process) => {
            !process.threads.lock().first().is_some_and(|thread| thread.signals.keeps(signal))
        }
    }
}

/// Tells one thread of a process that it can take a signal: the first that does
/// not block it.
fn tell_one(process: &Process, signal: u8) {
    let threads = process.threads.lock();
    if let Some(thread) = threads.iter().find(|thread| !thread.signals.mask().contains(signal)) {
        tell(thread);
    }
}

fn tell(thread: &Arc<Thread>) {
    thread.call_attention();
    scheduler::wake(thread);
}

/// A thread blocks signals that were meant for it, or has ended: others that can
/// take what is pending for the process learn of it.
pub fn retarget(process: &Process) {
    let pending = process.signals.pending.lock().set();
    if pending.is_empty() {
        return;
    }
    for thread in process.threads.lock().iter() {
        if !pending.without(thread.signals.mask()).is_empty() {
            tell(thread);
        }
    }
}
