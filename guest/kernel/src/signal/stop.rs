//! Job control: a process stops, goes on, and its parent learns of it.
//!
//! A stopped process is one whose threads do not get past `before_return`. What
//! they do in ring 0 goes on: a sleep that ends meanwhile has ended.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use super::actions::ActionFlags;
use super::info::SignalInfo;
use super::{SIGCHLD, SIGCONT, SIGHUP, send};
use crate::process::thread::Thread;
use crate::process::wait::Change;
use crate::process::{Pid, Process, State, all, find, init};
use crate::publish;

/// Whether a process is stopped, and what its parent has not seen yet.
#[derive(Debug, Default)]
pub struct Job {
    stopped: bool,
    change: Option<Change>,
}

impl Job {
    /// Whether it is stopped.
    pub const fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// What happened last, if it is wanted; it is gone then unless it is kept.
    pub fn take_change(&mut self, stopped: bool, continued: bool, keep: bool) -> Option<Change> {
        let change = self.change.filter(|change| match change {
            Change::Stopped(_) => stopped,
            Change::Continued => continued,
            Change::Ended(_) => false,
        })?;
        if !keep {
            self.change = None;
        }
        Some(change)
    }
}

/// Stops a process: its threads wait when they are about to return to ring 3.
pub fn stop(process: &Arc<Process>, signal: u8) {
    {
        let mut job = process.signals.job.lock();
        if job.stopped {
            return;
        }
        *job = Job { stopped: true, change: Some(Change::Stopped(signal)) };
    }
    for thread in process.threads.lock().iter() {
        thread.call_attention();
    }
    publish::state_changed(process);
    log::debug!("process {}: stopped by signal {signal}", process.pid);
    tell_parent(process, Change::Stopped(signal));
}

/// A stopped process goes on.
pub fn go_on(process: &Arc<Process>) {
    {
        let mut job = process.signals.job.lock();
        if !job.stopped {
            return;
        }
        *job = Job { stopped: false, change: Some(Change::Continued) };
    }
    publish::state_changed(process);
    process.signals.continued.wake_all();
    log::debug!("process {}: goes on", process.pid);
    tell_parent(process, Change::Continued);
}

/// Waits while the thread's process is stopped; the end of either cuts that
/// short, and is looked for by the caller.
pub fn wait_while_stopped(thread: &Thread) {
    let signals = &thread.process.signals;
    let goes_on = || {
        let may_go = !signals.job.lock().stopped || thread.ending.load(Ordering::Relaxed);
        may_go.then_some(())
    };
    let _ = signals.continued.wait_killable(goes_on);
}

fn tell_parent(process: &Arc<Process>, change: Change) {
    let Some(parent) = find(process.parent()) else { return };
    let action = parent.signals.action(SIGCHLD);
    if !action.is_ignore() && !action.flags().contains(ActionFlags::NO_CHILD_STOP) {
        send::send_to_process(&parent, SignalInfo::child(SIGCHLD, process.pid, change));
    }
    parent.child_changed.wake_all();
}

/// Whether nobody of the session is left who could make the group go on: no
/// member has a parent in the session but outside the group.
pub fn is_orphaned(group: Pid) -> bool {
    let members = living_members(group);
    !members.iter().any(|process| {
        let (parent, session) = {
            let family = process.family.lock();
            (family.parent, family.session)
        };
        parent != init::process().pid
            && find(parent).is_some_and(|parent| {
                let family = parent.family.lock();
                family.group != group && family.session == session
            })
    })
}

fn living_members(group: Pid) -> Vec<Arc<Process>> {
    let mut members = all();
    members
        .retain(|process| process.state() == State::Alive && process.family.lock().group == group);
    members
}

/// The groups that may become orphaned by the end of a process: its own, and
/// those of its children.
pub fn groups_in_care_of(process: &Process) -> Vec<Pid> {
    let (own, session, parent, children) = {
        let family = process.family.lock();
        (family.group, family.session, family.parent, family.children.clone())
    };
    let in_session = |other: &Process, member: Pid| {
        let family = other.family.lock();
        family.session == session && family.group != member
    };
    let mut groups: Vec<Pid> = children
        .iter()
        .filter(|child| in_session(child, own))
        .map(|child| child.family.lock().group)
        .collect();
    if find(parent).is_some_and(|parent| in_session(&parent, own)) {
        groups.push(own);
    }
    groups
}

/// Stopped processes of groups that are orphaned now would stop for ever: they
/// are told, and go on.
pub fn release_orphans(groups: &[Pid]) {
    for &group in groups {
        let members = living_members(group);
        if members.iter().any(|member| member.signals.job.lock().stopped) && is_orphaned(group) {
            for signal in [SIGHUP, SIGCONT] {
                send::to_group(group, Some(SignalInfo::kernel(signal)));
            }
        }
    }
}
