//! The system calls about signals.
//!
//! | part | calls |
//! | --- | --- |
//! | a thread's own | `rt_sigaction`, `rt_sigprocmask`, `rt_sigpending`, `sigaltstack`, `rt_sigreturn` |
//! | waiting | `rt_sigsuspend`, `rt_sigtimedwait`, `pause` |
//! | sending | `kill`, `tkill`, `tgkill`, `rt_sigqueueinfo`, `rt_tgsigqueueinfo`, `pidfd_send_signal` |

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use linux_raw_sys::general as linux;
use pagelab_abi::addr::GuestVirt;
use pagelab_hal::time;
use pagelab_hal::trap::TrapFrame;
use pagelab_vfs::Errno;

use super::actions::{Action, Effect, UNBLOCKABLE};
use super::deliver::take_one_of;
use super::info::{SignalInfo, code};
use super::pending::QueueFull;
use super::set::SignalSet;
use super::stack::{StackError, StackRecord};
use super::{
    SIGNALS, discard, refresh_attention, send, set_mask, sigreturn, timer_calls, wait_with_mask,
};
use crate::files::process_file::ProcessFile;
use crate::process::sleep::{NotYet, wait_alone};
use crate::process::thread::{Thread, Tid};
use crate::process::{Pid, State, find, find_thread, scheduler};
use crate::syscall::time::nanoseconds;
use crate::syscall::{Arguments, Failure, Outcome, files, int};
use crate::user;

impl From<QueueFull> for Errno {
    fn from(_: QueueFull) -> Self {
        Self::EAGAIN
    }
}

/// Signal calls; `None` for other calls.
pub fn dispatch(frame: &mut TrapFrame, call: u32, a: &Arguments) -> Option<Outcome> {
    Some(match call {
        linux::__NR_rt_sigaction => sigaction(a),
        linux::__NR_rt_sigprocmask => sigprocmask(a),
        linux::__NR_rt_sigpending => sigpending(a),
        linux::__NR_sigaltstack => sigaltstack(frame, a),
        linux::__NR_rt_sigreturn => {
            sigreturn::sigreturn(frame);
            Ok(frame.rax)
        }
        linux::__NR_rt_sigsuspend => sigsuspend(a),
        linux::__NR_rt_sigtimedwait => sigtimedwait(a),
        linux::__NR_pause => wait_for_signal(),
        linux::__NR_kill => kill(a),
        linux::__NR_tkill => thread_kill(None, int(a[0]), a[1], code::THREAD),
        linux::__NR_tgkill => thread_kill(Some(int(a[0])), int(a[1]), a[2], code::THREAD),
        linux::__NR_rt_sigqueueinfo => queue(a),
        linux::__NR_rt_tgsigqueueinfo => thread_queue(a),
        linux::__NR_pidfd_send_signal => send_to_file(a),
        _ => return timer_calls::dispatch(call, a),
    })
}

/// A signal's number; `None` for 0, which asks whether there is somebody.
fn signal_or_none(number: u64) -> Result<Option<u8>, Errno> {
    match u8::try_from(int(number)) {
        Ok(0) => Ok(None),
        Ok(signal) if signal <= SIGNALS => Ok(Some(signal)),
        _ => Err(Errno::EINVAL),
    }
}

/// A set that a program passed.
///
/// # Errors
///
/// EINVAL for another size than this kernel's, EFAULT.
pub fn read_set(address: u64, size: u64) -> Result<SignalSet, Errno> {
    check_size(size)?;
    user::read(GuestVirt(address))
}

fn check_size(size: u64) -> Result<(), Errno> {
    if size == size_of::<SignalSet>() as u64 { Ok(()) } else { Err(Errno::EINVAL) }
}

fn sigaction(a: &Arguments) -> Outcome {
    check_size(a[3])?;
    let signal = signal_or_none(a[0])?.ok_or(Errno::EINVAL)?;
    let new = if a[1] == 0 { None } else { Some(user::read::<Action>(GuestVirt(a[1]))?) };
    if new.is_some() && UNBLOCKABLE.contains(signal) {
        return Err(Errno::EINVAL.into());
    }
    let process = scheduler::current().process.clone();
    let old = process.signals.action(signal);
    if let Some(action) = new.map(Action::normalized) {
        process.signals.set_action(signal, action);
        if action.effect(signal) == Effect::Nothing {
            discard(&process, SignalSet::of(&[signal]));
        }
    }
    user::write_optional(GuestVirt(a[2]), &old)?;
    Ok(0)
}

fn sigprocmask(a: &Arguments) -> Outcome {
    check_size(a[3])?;
    let thread = scheduler::current();
    let old = thread.signals.mask();
    if a[1] != 0 {
        let given = read_set(a[1], a[3])?;
        set_mask(
            &thread,
            match a[0] as u32 {
                linux::SIG_BLOCK => old.union(given),
                linux::SIG_UNBLOCK => old.without(given),
                linux::SIG_SETMASK => given,
                _ => return Err(Errno::EINVAL.into()),
            },
        );
    }
    user::write_optional(GuestVirt(a[2]), &old)?;
    Ok(0)
}

fn sigpending(a: &Arguments) -> Outcome {
    if a[1] > size_of::<SignalSet>() as u64 {
        return Err(Errno::EINVAL.into());
    }
    let thread = scheduler::current();
    let own = thread.signals.pending.lock().set();
    let all = own.union(thread.process.signals.pending.lock().set());
    let pending = all.and(thread.signals.mask());
    user::write_bytes(GuestVirt(a[0]), &pending.0.to_le_bytes()[..a[1] as usize])?;
    Ok(0)
}

fn sigaltstack(frame: &TrapFrame, a: &Arguments) -> Outcome {
    let thread = scheduler::current();
    let old = *thread.signals.stack.lock();
    if a[0] != 0 {
        let record: StackRecord = user::read(GuestVirt(a[0]))?;
        let new = old.replaced_by(record, frame.rsp).map_err(|error| match error {
            StackError::InUse => Errno::EPERM,
            StackError::Flags => Errno::EINVAL,
            StackError::Size => Errno::ENOMEM,
        })?;
        *thread.signals.stack.lock() = new;
    }
    user::write_optional(GuestVirt(a[1]), &old.report(frame.rsp))?;
    Ok(0)
}

fn sigsuspend(a: &Arguments) -> Outcome {
    wait_with_mask(read_set(a[0], a[1])?, wait_for_signal)
}

/// Sleeps until a handler has run.
fn wait_for_signal() -> Outcome {
    // Nothing but a signal ends this.
    let _ = wait_alone::<()>(None, || None);
    Err(Failure::RestartUnlessHandled)
}

fn sigtimedwait(a: &Arguments) -> Outcome {
    let wanted = read_set(a[0], a[3])?.without(UNBLOCKABLE);
    let length = if a[2] == 0 { None } else { Some(nanoseconds(GuestVirt(a[2]))?) };
    let thread = scheduler::current();
    let mut taken = take_one_of(&thread, wanted);
    if taken.is_none() && length != Some(0) {
        let deadline = length.map(|length| time::since_start().saturating_add(length));
        // Meanwhile what is waited for is not blocked, so that it wakes.
        let mask = thread.signals.mask();
        thread.signals.awaited.store(mask.0, Ordering::Relaxed);
        set_mask(&thread, mask.without(wanted));
        let waited = wait_alone(deadline, || take_one_of(&thread, wanted));
        thread.signals.awaited.store(0, Ordering::Relaxed);
        set_mask(&thread, mask);
        taken = match waited {
            Ok(info) => Some(info),
            Err(NotYet::TimedOut) => None,
            Err(NotYet::Interrupted) => return Err(Errno::EINTR.into()),
        };
    }
    refresh_attention(&thread);
    let info = taken.ok_or(Errno::EAGAIN)?;
    if a[1] != 0 {
        user::write_bytes(GuestVirt(a[1]), &info.to_user())?;
    }
    Ok(info.signal().into())
}

fn kill(a: &Arguments) -> Outcome {
    let signal = signal_or_none(a[1])?;
    let info = signal.map(|signal| SignalInfo::sent(signal, code::USER));
    let own = scheduler::current().process.clone();
    let count = match int(a[0]) {
        -1 => send::to_all(info, |process| process.pid != own.pid),
        0 => {
            let group = own.family.lock().group;
            send::to_group(group, info)
        }
        i32::MIN => 0,
        group if group < 0 => send::to_group(group.unsigned_abs(), info),
        pid => {
            let process = process_of(pid.unsigned_abs())?;
            if let Some(info) = info {
                send::to_process(&process, info).map_err(Errno::from)?;
            }
            1
        }
    };
    if count == 0 { Err(Errno::ESRCH.into()) } else { Ok(0) }
}

/// The process with a number, or that of the thread with it.
fn process_of(pid: Pid) -> Result<Arc<crate::process::Process>, Errno> {
    let process = find(pid).or_else(|| Some(find_thread(pid)?.process.clone()));
    process.ok_or(Errno::ESRCH)
}

fn thread_of(group: Option<i32>, tid: i32) -> Result<Arc<Thread>, Errno> {
    let positive = |number: i32| Tid::try_from(number).ok().filter(|&number| number != 0);
    let tid = positive(tid).ok_or(Errno::EINVAL)?;
    let group = group.map(|group| positive(group).ok_or(Errno::EINVAL)).transpose()?;
    let thread = find_thread(tid).ok_or(Errno::ESRCH)?;
    if group.is_some_and(|group| thread.process.pid != group) {
        return Err(Errno::ESRCH);
    }
    Ok(thread)
}

fn thread_kill(group: Option<i32>, tid: i32, signal: u64, code: i32) -> Outcome {
    let thread = thread_of(group, tid)?;
    if let Some(signal) = signal_or_none(signal)? {
        send::to_thread(&thread, SignalInfo::sent(signal, code)).map_err(Errno::from)?;
    }
    Ok(0)
}

/// What a program says of its signal. Only to itself may it pretend to be the
/// kernel or `kill`.
fn given_info(address: u64, is_self: bool) -> Result<SignalInfo, Errno> {
    let info: SignalInfo = user::read(GuestVirt(address))?;
    if !is_self && (info.code >= 0 || info.code == code::THREAD) {
        return Err(Errno::EPERM);
    }
    Ok(info)
}

fn queue(a: &Arguments) -> Outcome {
    let own = scheduler::current().process.pid;
    let pid = a[0] as Pid;
    let info = given_info(a[2], pid == own)?;
    let process = process_of(pid)?;
    if let Some(signal) = signal_or_none(a[1])? {
        send::to_process(&process, info.as_signal(signal)).map_err(Errno::from)?;
    }
    Ok(0)
}

/// `pidfd_send_signal`.
fn send_to_file(a: &Arguments) -> Outcome {
    if a[3] as u32 != 0 {
        return Err(Errno::EINVAL.into());
    }
    let file = files::file(a[0])?;
    let process = ProcessFile::process_of(&file)?;
    let signal = signal_or_none(a[1])?;
    let own = scheduler::current().process.pid;
    let info = if a[2] == 0 {
        signal.map(|signal| SignalInfo::sent(signal, code::USER))
    } else {
        let given: SignalInfo = user::read(GuestVirt(a[2]))?;
        if Some(given.signal()) != Some(signal.unwrap_or_default()) {
            return Err(Errno::EINVAL.into());
        }
        Some(given_info(a[2], process.pid == own)?)
    };
    if matches!(process.state(), State::Reaped(_)) {
        return Err(Errno::ESRCH.into());
    }
    if let (Some(_), Some(info)) = (signal, info) {
        send::to_process(process, info).map_err(Errno::from)?;
    }
    Ok(0)
}

fn thread_queue(a: &Arguments) -> Outcome {
    let own = scheduler::current().process.pid;
    let info = given_info(a[3], a[0] as Pid == own)?;
    let thread = thread_of(Some(int(a[0])), int(a[1]))?;
    if let Some(signal) = signal_or_none(a[2])? {
        send::to_thread(&thread, info.as_signal(signal)).map_err(Errno::from)?;
    }
    Ok(0)
}
