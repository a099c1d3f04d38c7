//! A thread ends, and with its last thread a process.
//!
//! A process that is to end ([`kill`], `exit_group`, a signal) is marked, its
//! threads are woken, and each ends by itself when it is about to return to
//! ring 3 ([`end_if_asked`]): so a thread is never torn out of the middle of a
//! system call, and nothing it holds is lost.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use pagelab_abi::addr::GuestVirt;
use pagelab_abi::event::{EVENT_EXIT, Event};
use pagelab_hal::{cpu, lab};
use pagelab_vfs::Readiness;

use super::thread::Thread;
use super::usage::Counters;
use super::wait::Change;
use super::{ExitStatus, Process, State, find, forget, futex, init, scheduler, usage};
use crate::files::{cache, wait};
use crate::publish;
use crate::signal::{self, SIGCHLD, SignalInfo};
use crate::syscall::files::locks;
use crate::user;

/// `exit_group`, or the end by a signal, of the current process.
pub fn exit_process(status: ExitStatus) -> ! {
    {
        let thread = scheduler::current();
        kill(&thread.process, status);
    }
    end_thread()
}

/// Has a process end: its threads end as soon as they can. The first status
/// counts.
pub fn kill(process: &Arc<Process>, status: ExitStatus) {
    {
        let mut ending = process.ending.lock();
        if ending.is_some() {
            return;
        }
        *ending = Some(status);
    }
    for thread in process.threads.lock().iter() {
        thread.call_attention();
        scheduler::wake(thread);
    }
}

/// Ends the current thread if it or its process is to end.
pub fn end_if_asked() {
    let asked = {
        let thread = scheduler::current();
        thread.ending.load(Ordering::Relaxed) || thread.process.ending.lock().is_some()
    };
    if asked {
        end_thread();
    }
}

/// `exit` of the current thread.
pub fn exit_thread(status: u8) -> ! {
    {
        let thread = scheduler::current();
        let last = thread.process.threads.lock().len() == 1;
        if last {
            kill(&thread.process, ExitStatus::Exited(status));
        }
    }
    end_thread()
}

fn end_thread() -> ! {
    {
        let thread = scheduler::current();
        clear_tid(&thread);
        futex::release_robust(&thread);
        let process = &thread.process;
        let last = {
            let mut threads = process.threads.lock();
            threads.retain(|other| !Arc::ptr_eq(other, &thread));
            threads.is_empty()
        };
        if last {
            end_process(process);
        }
        process.released.wake_all();
        signal::retarget(process);
    }
    scheduler::end_current()
}

/// `CLONE_CHILD_CLEARTID`: tells whoever joins the thread.
pub fn clear_tid(thread: &Thread) {
    let address = thread.clear_tid.swap(0, Ordering::Relaxed);
    if address == 0 {
        return;
    }
    let shared =
        Arc::strong_count(&thread.process.space()) > 2 || thread.process.threads.lock().len() > 1;
    // If nobody shares the memory, nobody can see it; and a bad address is the
    // program's own affair.
    if shared && user::write(GuestVirt(address), &0_u32).is_ok() {
        futex::wake_one(address);
    }
}

/// The last thread has gone: memory and files go, the children get a new
/// parent, the parent is told.
fn end_process(process: &Arc<Process>) {
    let status = process.ending.lock().unwrap_or(ExitStatus::Exited(0));
    note_usage(process);
    emit(process, status);
    let own = process.replace_space(init::process().space());
    drop(own);
    cache().unpin_unused();
    locks::process_ended(process);
    let files = core::mem::replace(&mut *process.files.lock(), init::process().files());
    drop(files);
    signal::timer::delete_all(process, true);
    let groups = signal::stop::groups_in_care_of(process);
    give_children_away(process);
    process.set_state(State::Ended(status));
    tell_parent(process, status);
    wait::wake(process.ended, Readiness::READ);
    signal::stop::release_orphans(&groups);
}

/// Notes what `wait` will report: the address space is about to go.
fn note_usage(process: &Process) {
    let own = current_usage(process);
    process.usage.lock().own = own;
}

/// What a process has used until now.
pub fn current_usage(process: &Process) -> Counters {
    let mut own = process.usage.lock().own;
    let (minor, major) = usage::minor_and_major(&process.faults());
    own.minor_faults = minor;
    own.major_faults = major;
    own.time = scheduler::time_of_process(process);
    if process.state() == State::Alive {
        own.peak_resident = own.peak_resident.max(process.space().lock().peak_resident());
    }
    own
}

fn emit(process: &Process, status: ExitStatus) {
    if lab::wants_events() {
        lab::emit(Event {
            tsc: cpu::timestamp(),
            pid: process.pid,
            class: EVENT_EXIT,
            detail: status.as_wait_status(),
            ..Event::default()
        });
    }
}

/// Children of a process that ends belong to process 1, which waits for none:
/// those that have ended are forgotten.
fn give_children_away(process: &Process) {
    let children = core::mem::take(&mut process.family.lock().children);
    for child in children {
        {
            let mut family = child.family.lock();
            family.parent = init::process().pid;
            publish::family_changed(&child, &family);
        }
        match child.state() {
            State::Alive => init::process().family.lock().children.push(child),
            State::Ended(_) | State::Reaped(_) => forget(child.pid),
        }
    }
}

/// The parent gets its signal and may wait; if it does not want to wait, the
/// process is forgotten at once.
fn tell_parent(process: &Arc<Process>, status: ExitStatus) {
    let (parent, exit_signal) = {
        let family = process.family.lock();
        (family.parent, family.exit_signal)
    };
    let Some(parent) = find(parent) else { return };
    let vanishes = parent.pid == init::process().pid
        || exit_signal == SIGCHLD && parent.signals.lets_children_vanish();
    if vanishes {
        parent.family.lock().remove_child(process);
        process.set_state(State::Reaped(status));
        forget(process.pid);
    }
    if exit_signal != 0 {
        let info = SignalInfo::child(exit_signal, process.pid, Change::Ended(status));
        signal::send_to_process(&parent, info);
    }
    parent.child_changed.wake_all();
}
