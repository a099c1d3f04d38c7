//! Signals: what is pending, what is done about it.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use pagelab_hal::trap::TrapFrame;

use crate::process::thread::Thread;
use crate::process::wait::Change;
use crate::process::{ExitStatus, Process, exit, scheduler};

pub mod calls;

/// The highest signal number.
pub const SIGNALS: u8 = 64;
/// Invalid instruction.
pub const SIGILL: u8 = 4;
/// Breakpoint or single step.
pub const SIGTRAP: u8 = 5;
/// Memory that is mapped but not there.
pub const SIGBUS: u8 = 7;
/// Arithmetic.
pub const SIGFPE: u8 = 8;
/// The end.
pub const SIGKILL: u8 = 9;
/// Memory that is not mapped, or not for this.
pub const SIGSEGV: u8 = 11;
/// A child ended, stopped or went on.
pub const SIGCHLD: u8 = 17;

/// Why a signal was sent, as `siginfo_t` has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SignalInfo {
    /// The signal.
    pub number: u8,
    /// `si_code`.
    pub code: i32,
    /// `si_addr` of a fault; sender's pid << 32 | uid otherwise.
    pub value: u64,
}

/// What the threads of a process share.
#[derive(Default)]
pub struct ProcessSignals {
    pending: AtomicU64,
}

/// What each thread has of its own.
#[derive(Default)]
pub struct ThreadSignals {
    /// Blocked signals.
    pub mask: AtomicU64,
}

impl ProcessSignals {
    /// What a child gets: actions, but nothing pending.
    pub fn for_child(&self, _shared: bool, _cleared: bool) -> Self {
        Self::default()
    }

    /// A stop or continuation that has not been waited for.
    pub fn take_stop_change(
        &self,
        _stopped: bool,
        _continued: bool,
        _keep: bool,
    ) -> Option<Change> {
        None
    }

    /// What exec leaves: handlers become default actions.
    pub fn reset_for_exec(&self) {}
}

impl ThreadSignals {
    /// What exec leaves: the mask.
    pub fn reset_for_exec(&self) {}

    /// What a child's thread or a new thread gets: the mask.
    pub fn for_child(&self, _shares_memory: bool) -> Self {
        Self { mask: AtomicU64::new(self.mask.load(Ordering::Relaxed)) }
    }
}

/// Sends a signal to a process.
pub fn send_to_process(process: &Arc<Process>, info: SignalInfo) {
    if info.number == SIGCHLD {
        return;
    }
    process.signals.pending.fetch_or(1 << info.number, Ordering::Relaxed);
    for thread in process.threads.lock().iter() {
        thread.attention.store(true, Ordering::Relaxed);
        scheduler::wake(thread);
    }
}

/// A fault of the current thread that nothing mends: its signal cannot be
/// blocked or ignored.
pub fn force(info: SignalInfo) {
    send_to_process(&scheduler::current().process.clone(), info);
}

/// A system call that a signal has cut short and that may begin anew.
#[derive(Clone, Copy, Debug)]
pub struct Interrupted {
    /// Its number.
    pub number: u64,
}

/// Does what is due before the current thread returns to ring 3. `interrupted`
/// says that its system call ended early.
#[cold]
pub fn before_return(_frame: &mut TrapFrame, _interrupted: Option<Interrupted>) {
    let thread: Arc<Thread> = scheduler::current();
    thread.attention.store(false, Ordering::Relaxed);
    let pending = thread.process.signals.pending.swap(0, Ordering::Relaxed);
    if pending != 0 {
        exit::kill(&thread.process, ExitStatus::Killed(pending.trailing_zeros() as u8));
    }
}
