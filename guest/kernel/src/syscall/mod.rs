//! System calls: Linux's numbers, arguments and results.
//!
//! RAX is the number, RDI, RSI, RDX, R10, R8, R9 are the arguments; the result
//! goes to RAX, errors as small negative numbers.
//!
//! | file | calls about |
//! | --- | --- |
//! | [`memory`] | mappings |
//! | [`process`] | processes, threads, programs |
//! | [`identity`] | users, groups, sessions, the machine's name |
//! | [`time`] | clocks, sleeping |
//! | [`names`] | what the others are called |

use alloc::collections::BTreeSet;

use linux_raw_sys::general as linux;
use pagelab_hal::memory::frames;
use pagelab_hal::sync::Lock;
use pagelab_hal::trap::TrapFrame;
use pagelab_vfs::Errno;

use crate::process::{exit, oom, scheduler};
use crate::signal::{self, Interrupted};

mod advice;
pub mod files;
pub mod identity;
pub mod memory;
mod names;
pub mod process;
pub mod time;

/// Why a call has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// An error.
    Error(Errno),
    /// A signal came. The call begins anew when it has been handled, if its
    /// handler was installed with `SA_RESTART` or there is none.
    Restart,
    /// A signal came. The call begins anew if there is no handler for it.
    RestartUnlessHandled,
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Error(errno)
    }
}

/// What a call gives.
pub type Outcome = Result<u64, Failure>;

/// A call's arguments.
pub type Arguments = [u64; 6];

/// The one entry of all system calls.
pub fn system_call(frame: &mut TrapFrame) {
    if let Some(number) = process::own_number(frame.rax) {
        frame.rax = number.into();
        before_return(frame, None);
    } else {
        any_call(frame);
    }
}

fn any_call(frame: &mut TrapFrame) {
    let number = frame.rax;
    let arguments = [frame.rdi, frame.rsi, frame.rdx, frame.r10, frame.r8, frame.r9];
    let outcome = dispatch(frame, number, &arguments);
    let interrupted = match outcome {
        Ok(value) => {
            frame.rax = value;
            None
        }
        Err(Failure::Error(errno)) => {
            frame.rax = errno.as_return_value() as u64;
            None
        }
        Err(failure) => {
            frame.rax = Errno::EINTR.as_return_value() as u64;
            Some(Interrupted { number, if_handled: failure == Failure::Restart })
        }
    };
    before_return(frame, interrupted);
}

/// What every way back to ring 3 passes: signals, and the end.
#[inline]
pub fn before_return(frame: &mut TrapFrame, interrupted: Option<Interrupted>) {
    if interrupted.is_some() || scheduler::looks_before_return() {
        signal::before_return(frame, interrupted);
        exit::end_if_asked();
        scheduler::look_before_return(false);
    }
}

fn dispatch(frame: &mut TrapFrame, number: u64, a: &Arguments) -> Outcome {
    let Ok(call) = u32::try_from(number) else { return unknown(number) };
    match call {
        linux::__NR_fork => process::fork(frame),
        linux::__NR_vfork => process::vfork(frame),
        linux::__NR_clone => process::clone(frame, a),
        linux::__NR_clone3 => process::clone3(frame, a),
        linux::__NR_execve => process::execve(frame, a),
        linux::__NR_exit => process::exit(a),
        linux::__NR_exit_group => process::exit_group(a),
        linux::__NR_wait4 => process::wait4(a),
        linux::__NR_waitid => process::waitid(a),
        linux::__NR_futex => process::futex(a),
        linux::__NR_set_tid_address => process::set_tid_address(a),
        linux::__NR_set_robust_list => process::set_robust_list(a),
        linux::__NR_get_robust_list => process::get_robust_list(a),
        linux::__NR_rseq => process::rseq(a),
        linux::__NR_arch_prctl => process::arch_prctl(a),
        linux::__NR_prctl => process::prctl(a),
        linux::__NR_prlimit64 => process::prlimit64(a),
        linux::__NR_getrlimit => process::getrlimit(a),
        linux::__NR_setrlimit => process::setrlimit(a),
        linux::__NR_getrusage => process::getrusage(a),
        linux::__NR_times => process::times(a),
        linux::__NR_sched_yield => process::sched_yield(),
        linux::__NR_mmap..=linux::__NR_munmap
        | linux::__NR_brk
        | linux::__NR_mremap..=linux::__NR_madvise
        | linux::__NR_mlock..=linux::__NR_munlockall
        | linux::__NR_mlock2 => memory::dispatch(call, a),
        linux::__NR_nanosleep
        | linux::__NR_clock_gettime
        | linux::__NR_clock_getres
        | linux::__NR_clock_nanosleep
        | linux::__NR_gettimeofday
        | linux::__NR_time => time::dispatch(call, a),
        _ => others(frame, call, a),
    }
}

/// Signals, files, and what is asked once in a while.
fn others(frame: &mut TrapFrame, call: u32, a: &Arguments) -> Outcome {
    if frames().is_short() {
        // Files and signals take memory of the kernel's own.
        oom::make_room();
    }
    signal::calls::dispatch(frame, call, a)
        .or_else(|| identity::dispatch(call, a))
        .or_else(|| files::dispatch(call, a))
        .unwrap_or_else(|| unknown(call.into()))
}

/// A call that is not there: said once each, so that a user knows what a
/// program misses.
#[cold]
fn unknown(number: u64) -> Outcome {
    static SAID: Lock<BTreeSet<u64>> = Lock::new(BTreeSet::new());
    if SAID.lock().insert(number) {
        let name = names::name(number);
        log::warn!("system call {number} ({name}) is not there: programs get ENOSYS");
    }
    Err(Errno::ENOSYS.into())
}

/// Lower 32 bits as a signed number: how `int` arguments arrive.
#[must_use]
pub const fn int(value: u64) -> i32 {
    value as u32 as i32
}
