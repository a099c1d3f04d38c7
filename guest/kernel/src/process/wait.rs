//! A parent learns that a child has ended, stopped or gone on.

use alloc::sync::Arc;

use bitflags::bitflags;
use pagelab_vfs::Errno;

use super::sleep::NotYet;
use super::usage::Counters;
use super::{ExitStatus, Pid, Process, State, forget, scheduler};
use crate::syscall::Failure;

bitflags! {
    /// Linux's `W*` options.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct WaitOptions: u32 {
        /// Do not sleep.
        const NO_HANG = 1;
        /// Also children that stopped (`wait4`), the same as `STOPPED`.
        const STOPPED = 2;
        /// Children that ended (`waitid`).
        const EXITED = 4;
        /// Children that went on.
        const CONTINUED = 8;
        /// Leave the child to be waited for again.
        const NO_WAIT = 0x0100_0000;
        /// Only children of this thread: there is no difference here.
        const NO_THREAD = 0x2000_0000;
        /// All kinds of children.
        const ALL = 0x4000_0000;
        /// Only children that send another signal than SIGCHLD.
        const CLONE = 0x8000_0000;
    }
}

/// Which children are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Any.
    Any,
    /// This one.
    Process(Pid),
    /// Those of a process group.
    Group(Pid),
}

/// What became of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It ended.
    Ended(ExitStatus),
    /// It was stopped by this signal.
    Stopped(u8),
    /// It goes on.
    Continued,
}

impl Change {
    /// As `wait4` reports it.
    pub const fn as_wait_status(self) -> u32 {
        match self {
            Self::Ended(status) => status.as_wait_status(),
            Self::Stopped(signal) => (signal as u32) << 8 | 0x7f,
            Self::Continued => 0xffff,
        }
    }
}

/// A child and what became of it.
pub struct Waited {
    /// Its number.
    pub pid: Pid,
    /// What became of it.
    pub change: Change,
    /// What it and its children had used.
    pub usage: Counters,
}

/// Waits for a child; `None` if nothing has happened and the call must not sleep.
///
/// # Errors
///
/// ECHILD if there is no such child, EINTR.
pub fn wait(which: Which, options: WaitOptions) -> Result<Option<Waited>, Failure> {
    let process = scheduler::current().process.clone();
    let waited = process.child_changed.wait(None, || match look(&process, which, options) {
        Ok(None) if !options.contains(WaitOptions::NO_HANG) => None,
        result => Some(result),
    });
    match waited {
        Ok(result) => result.map_err(Failure::from),
        Err(NotYet::Interrupted | NotYet::TimedOut) => Err(Failure::Restart),
    }
}

fn look(process: &Process, which: Which, options: WaitOptions) -> Result<Option<Waited>, Errno> {
    let mut family = process.family.lock();
    let is_meant = |child: &Arc<Process>| match which {
        Which::Any => true,
        Which::Process(pid) => child.pid == pid,
        Which::Group(group) => child.family.lock().group == group,
    };
    let mut found = false;
    for index in 0..family.children.len() {
        let child = family.children[index].clone();
        if !is_meant(&child) {
            continue;
        }
        found = true;
        let Some(change) = change_of(&child, options) else { continue };
        let usage = *child.usage.lock();
        let mut total = usage.own;
        total.add(&usage.children);
        if let Change::Ended(status) = change
            && !options.contains(WaitOptions::NO_WAIT)
        {
            family.remove_child(&child);
            child.set_state(State::Reaped(status));
            forget(child.pid);
            process.usage.lock().children.add(&total);
        }
        return Ok(Some(Waited { pid: child.pid, change, usage: total }));
    }
    if found { Ok(None) } else { Err(Errno::ECHILD) }
}

fn change_of(child: &Process, options: WaitOptions) -> Option<Change> {
    match child.state() {
        State::Ended(status) => {
            options.contains(WaitOptions::EXITED).then_some(Change::Ended(status))
        }
        State::Alive => child.signals.take_stop_change(
            options.contains(WaitOptions::STOPPED),
            options.contains(WaitOptions::CONTINUED),
            options.contains(WaitOptions::NO_WAIT),
        ),
        State::Reaped(_) => None,
    }
}
