//! Signals: what is pending, what is done about it.
//!
//! A signal's way:
//!
//! ```text
//!   kill, tgkill, a child, a timer          a fault
//!        │ send                                │ force (never blocked or ignored)
//!        ▼                                     ▼
//!   ignored? dropped     pending of the process, or of one thread
//!                                 │ a thread that does not block it is told:
//!                                 ▼ Thread::call_attention, and woken
//!             before_return, on the way back to ring 3
//!        ┌────────────┬───────────┴──┬───────────────────┐
//!      nothing      stop          the end           a handler
//!        │       until SIGCONT   exit::kill    frame on the program's stack
//!        ▼            ▼                            ▼ ring 3: handler, restorer
//!   ring 3, or the interrupted call anew       rt_sigreturn: what was before
//! ```
//!
//! | file | what happens there |
//! | --- | --- |
//! | [`set`], [`info`] | sets of signals, `siginfo_t` |
//! | [`pending`], [`actions`], [`stack`] | the state of a process or thread |
//! | [`send`] | a signal comes to be pending |
//! | [`deliver`] | a thread takes it and acts on it |
//! | [`frame`], [`sigreturn`] | what a handler finds on its stack, and the way back |
//! | [`stop`] | stopping, going on, orphaned process groups |
//! | [`timer`], [`timer_calls`] | signals at a moment |
//! | [`calls`] | the system calls |
//!
//! Locks are held for a look or a change, never while a thread sleeps or is
//! woken. A thread blocks a signal itself and nobody else changes its mask.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use pagelab_hal::sync::Lock;
use pagelab_vfs::Errno;

use self::actions::{Action, ActionFlags, Actions, UNBLOCKABLE};
use self::pending::Pending;
pub use self::set::SignalSet;
use self::stack::AlternateStack;
use self::stop::Job;
use self::timer::Timers;
use crate::process::sleep::WaitQueue;
use crate::process::thread::Thread;
use crate::process::wait::Change;
use crate::process::{Process, scheduler};
use crate::syscall::Failure;

pub mod actions;
pub mod calls;
mod deliver;
mod frame;
mod info;
mod pending;
mod send;
mod set;
mod sigreturn;
mod stack;
pub mod stop;
pub mod timer;
mod timer_calls;

pub use self::deliver::{before_return, cuts_short};
pub use self::info::{SIGNAL_FILE_RECORD, SignalInfo, child_change};
pub use self::send::{force, retarget, send_to_process, send_to_thread, to_group};

/// The highest signal number.
pub const SIGNALS: u8 = 64;
/// The first signal that is queued as often as it is sent.
pub const FIRST_REALTIME: u8 = 32;
/// The terminal is gone.
pub const SIGHUP: u8 = 1;
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
/// A pipe that nobody reads.
pub const SIGPIPE: u8 = 13;
/// A timer.
pub const SIGALRM: u8 = 14;
/// A child ended, stopped or went on.
pub const SIGCHLD: u8 = 17;
/// Go on.
pub const SIGCONT: u8 = 18;
/// Stop.
pub const SIGSTOP: u8 = 19;
/// Stop, from the terminal.
pub const SIGTSTP: u8 = 20;
/// Stop: the terminal is read from the background.
pub const SIGTTIN: u8 = 21;
/// Stop: the terminal is written from the background.
pub const SIGTTOU: u8 = 22;
/// Urgent data.
pub const SIGURG: u8 = 23;
/// The terminal's size changed.
pub const SIGWINCH: u8 = 28;
/// A timer by a process's own time in ring 3.
pub const SIGVTALRM: u8 = 26;
/// A timer by a process's own time.
pub const SIGPROF: u8 = 27;
/// A system call that is not allowed.
pub const SIGSYS: u8 = 31;

/// What the threads of a process share.
#[derive(Default)]
pub struct ProcessSignals {
    /// Shared after `clone(CLONE_SIGHAND)`.
    actions: Lock<Arc<Lock<Actions>>>,
    /// Sent to the process; any of its threads takes them.
    pending: Lock<Pending>,
    /// Stopped or not.
    job: Lock<Job>,
    /// Where the threads of a stopped process wait.
    continued: WaitQueue,
    timers: Timers,
}

/// What each thread has of its own.
#[derive(Default)]
pub struct ThreadSignals {
    /// Blocked signals.
    mask: AtomicU64,
    /// Signals that `rt_sigtimedwait` waits for: blocked for everybody else.
    awaited: AtomicU64,
    /// The mask to return to after `rt_sigsuspend`.
    saved_mask: Lock<Option<SignalSet>>,
    /// Sent to this thread.
    pending: Lock<Pending>,
    stack: Lock<AlternateStack>,
    /// The last fault that became a signal.
    trap: Lock<Trap>,
}

/// What the processor said of a fault, for the handler's eyes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trap {
    /// The exception's vector.
    pub vector: u64,
    /// Its error code.
    pub error_code: u64,
    /// The address of a page fault.
    pub address: u64,
}

/// A system call that a signal has cut short and that may begin anew.
#[derive(Clone, Copy, Debug)]
pub struct Interrupted {
    /// The number of the call that begins.
    pub number: u64,
    /// It begins anew after a handler with `SA_RESTART`, too, not only if there
    /// is no handler.
    pub if_handled: bool,
}

impl ProcessSignals {
    /// What a child gets: actions, but nothing pending, no timer.
    pub fn for_child(&self, shared: bool, cleared: bool) -> Self {
        let own = self.actions.lock().clone();
        let actions = if shared {
            own
        } else {
            let mut copy = own.lock().clone();
            if cleared {
                copy.reset_handlers();
            }
            Arc::new(Lock::new(copy))
        };
        Self {
            actions: Lock::new(actions),
            pending: Lock::default(),
            job: Lock::default(),
            continued: WaitQueue::new(),
            timers: Timers::default(),
        }
    }

    /// What exec leaves: handlers become default actions, nobody shares them.
    pub fn reset_for_exec(&self) {
        let mut own = self.actions.lock();
        let mut copy = own.lock().clone();
        copy.reset_handlers();
        *own = Arc::new(Lock::new(copy));
    }

    /// Signals that are ignored, and those that are handled.
    pub fn ignored_and_handled(&self) -> (SignalSet, SignalSet) {
        let (mut ignored, mut handled) = (SignalSet::default(), SignalSet::default());
        for signal in 1..=SIGNALS {
            let action = self.action(signal);
            if action.is_ignore() {
                ignored = ignored.with(signal);
            } else if action.is_handler() {
                handled = handled.with(signal);
            }
        }
        (ignored, handled)
    }

    /// Whether the process is stopped.
    pub fn is_stopped(&self) -> bool {
        self.job.lock().is_stopped()
    }

    /// Signals that are pending for the process.
    pub fn pending(&self) -> SignalSet {
        self.pending.lock().set()
    }

    /// The action of a signal.
    pub fn action(&self, signal: u8) -> Action {
        self.actions.lock().lock().get(signal)
    }

    fn set_action(&self, signal: u8, action: Action) {
        self.actions.lock().lock().set(signal, action);
    }

    /// Children vanish without being waited for.
    pub fn lets_children_vanish(&self) -> bool {
        let action = self.action(SIGCHLD);
        action.is_ignore() || action.flags().contains(ActionFlags::NO_CHILD_WAIT)
    }

    /// A stop or continuation that has not been waited for.
    pub fn take_stop_change(&self, stopped: bool, continued: bool, keep: bool) -> Option<Change> {
        self.job.lock().take_change(stopped, continued, keep)
    }
}

impl ThreadSignals {
    /// What exec leaves: the mask and what is pending.
    pub fn reset_for_exec(&self) {
        *self.stack.lock() = AlternateStack::default();
    }

    /// What a child's thread or a new thread gets: the mask, and the alternate
    /// stack unless both would run on it.
    pub fn for_child(&self, shares_memory: bool) -> Self {
        let stack = if shares_memory { AlternateStack::default() } else { *self.stack.lock() };
        Self { mask: AtomicU64::new(self.mask().0), stack: Lock::new(stack), ..Self::default() }
    }

    /// Blocked signals.
    pub fn mask(&self) -> SignalSet {
        SignalSet(self.mask.load(Ordering::Relaxed))
    }

    /// Signals that are pending for the thread.
    pub fn pending(&self) -> SignalSet {
        self.pending.lock().set()
    }

    /// Whether a signal must be kept although it would be ignored: the thread
    /// may want to see it later.
    fn keeps(&self, signal: u8) -> bool {
        self.mask().contains(signal)
            || SignalSet(self.awaited.load(Ordering::Relaxed)).contains(signal)
    }
}

/// Waits with another mask, as `ppoll` does: a handler that ends the wait runs
/// with it, and the thread returns to its own afterwards.
///
/// # Errors
///
/// Those of `wait`.
pub fn wait_with_mask<T>(
    mask: SignalSet,
    wait: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let own = scheduler::current().signals.mask();
    set_mask(&scheduler::current(), mask);
    let result = wait();
    let thread = scheduler::current();
    match result {
        Err(Failure::Error(Errno::EINTR) | Failure::RestartUnlessHandled) => {
            *thread.signals.saved_mask.lock() = Some(own);
        }
        _ => set_mask(&thread, own),
    }
    result
}

/// Signals that a thread would take now.
fn deliverable(thread: &Thread) -> SignalSet {
    let pending = thread.signals.pending.lock().set();
    pending.union(thread.process.signals.pending.lock().set()).without(thread.signals.mask())
}

/// Whether one of these signals is pending for the current thread or its process.
pub fn is_pending(signals: SignalSet) -> bool {
    let thread = scheduler::current();
    let own = thread.signals.pending.lock().set();
    !own.union(thread.process.signals.pending()).and(signals).is_empty()
}

/// Takes one of these signals that is.
pub fn take_pending(signals: SignalSet) -> Option<SignalInfo> {
    let thread = scheduler::current();
    let info = deliver::take_one_of(&thread, signals);
    refresh_attention(&thread);
    info
}

/// Finds out whether a thread has something to do before it returns to ring 3.
fn refresh_attention(thread: &Thread) {
    let process = &thread.process;
    let due = !deliverable(thread).is_empty()
        || thread.ending.load(Ordering::Relaxed)
        || process.ending.lock().is_some()
        || process.signals.job.lock().is_stopped();
    if due {
        thread.call_attention();
    } else {
        thread.end_attention();
    }
}

/// Changes what the current thread blocks. Signals to the process that it
/// leaves become the affair of other threads.
fn set_mask(thread: &Arc<Thread>, mask: SignalSet) {
    let mask = mask.without(UNBLOCKABLE);
    let blocked_now = mask.without(thread.signals.mask());
    thread.signals.mask.store(mask.0, Ordering::Relaxed);
    refresh_attention(thread);
    let left = thread.process.signals.pending.lock().set().and(blocked_now);
    if !left.is_empty() {
        retarget(&thread.process);
    }
}

/// Forgets pending signals of a process and of all its threads.
fn discard(process: &Process, signals: SignalSet) {
    process.signals.pending.lock().discard(signals);
    for thread in process.threads.lock().iter() {
        thread.signals.pending.lock().discard(signals);
    }
}
