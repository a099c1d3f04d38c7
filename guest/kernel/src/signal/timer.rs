//! Timers: a signal at a moment, and perhaps again.
//!
//! `alarm`, `setitimer` and `timer_create` make the same thing, which differs in
//! its clock and in whom it tells:
//!
//! | clock | its timers expire |
//! | --- | --- |
//! | real time | when the hardware's timer interrupts, in the order of [`MOMENTS`] |
//! | time of a process or thread | while it runs: the hardware's timer is armed for the earliest moment that one of them can expire at |

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use pagelab_hal::sync::Lock;
use pagelab_hal::time;

use super::info::SignalInfo;
use super::{SIGALRM, SIGPROF, SIGVTALRM, send};
use crate::process::thread::{Thread, Tid};
use crate::process::usage::CpuTime;
use crate::process::{Pid, Process, find, scheduler};

/// Which of a process's timers: those of `timer_create` count from 0.
pub type TimerId = i32;
/// `ITIMER_REAL`, and that of `alarm`.
pub const REAL: TimerId = -1;
/// `ITIMER_VIRTUAL`.
pub const VIRTUAL: TimerId = -2;
/// `ITIMER_PROF`.
pub const PROFILE: TimerId = -3;

/// What a timer goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Nanoseconds since the start.
    Real,
    /// The same; the program gives moments as nanoseconds since 1970.
    Wall,
    /// The process's time in ring 3.
    User,
    /// The process's time.
    Process,
    /// The time of one of its threads.
    Thread(Tid),
}

impl Clock {
    /// Whether it goes on while the process does not run.
    const fn is_real(self) -> bool {
        matches!(self, Self::Real | Self::Wall)
    }

    /// What it shows for a process.
    pub fn now(self, process: &Process) -> u64 {
        match self {
            Self::Real | Self::Wall => time::since_start(),
            Self::User => scheduler::time_of_process(process).user,
            Self::Process => scheduler::time_of_process(process).sum(),
            Self::Thread(tid) => {
                process.thread(tid).map_or(0, |thread| scheduler::time_of_thread(&thread).sum())
            }
        }
    }
}

/// Whom a timer tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notify {
    /// Nobody: it is asked.
    Nobody,
    /// The process, or one of its threads.
    Signal(SignalInfo, Option<Tid>),
}

/// When a timer expires, by its clock, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    /// When; `None` if it is not set.
    pub moment: Option<u64>,
    /// How long after that again; 0 for never.
    pub interval: u64,
}

impl Setting {
    /// How long it takes to expire; 0 if it is not set.
    pub fn remaining(&self, now: u64) -> u64 {
        // A timer that is set is not over until its signal is sent.
        self.moment.map_or(0, |moment| moment.saturating_sub(now).max(1))
    }

    /// The setting after it has expired, and how many moments were missed since.
    fn after(&self, now: u64) -> (Self, u64) {
        let Some(moment) = self.moment.filter(|_| self.interval > 0) else {
            return (Self { moment: None, ..*self }, 0);
        };
        let missed = now.saturating_sub(moment) / self.interval;
        let next = moment.saturating_add(self.interval.saturating_mul(missed + 1));
        (Self { moment: Some(next), ..*self }, missed)
    }
}

#[derive(Clone, Copy, Debug)]
struct Timer {
    clock: Clock,
    notify: Notify,
    setting: Setting,
    /// Its signal is pending: it goes on when that is taken.
    waits: bool,
    /// How often it had expired beyond once when the last one was taken.
    last_overrun: u64,
}

/// A process's timers.
#[derive(Default)]
pub struct Timers {
    timers: Lock<BTreeMap<TimerId, Timer>>,
    /// Some go by the process's or a thread's time.
    by_own_time: AtomicBool,
}

/// The moments of all timers by real time: when, whose, which.
static MOMENTS: Lock<BTreeSet<(u64, Pid, TimerId)>> = Lock::new(BTreeSet::new());

/// The first moment that a timer by real time expires at.
pub fn first_moment() -> Option<u64> {
    MOMENTS.lock().first().map(|&(moment, ..)| moment)
}

/// The timer of an interval timer's number (`ITIMER_*`), and its clock and
/// signal.
pub const fn interval_timer(which: i32) -> Option<(TimerId, Clock, u8)> {
    match which {
        0 => Some((REAL, Clock::Real, SIGALRM)),
        1 => Some((VIRTUAL, Clock::User, SIGVTALRM)),
        2 => Some((PROFILE, Clock::Process, SIGPROF)),
        _ => None,
    }
}

/// Makes a timer with the first free number.
pub fn create(process: &Process, clock: Clock, notify: impl Fn(TimerId) -> Notify) -> TimerId {
    let mut timers = process.signals.timers.timers.lock();
    let id = (0..).find(|id| !timers.contains_key(id)).unwrap_or(TimerId::MAX);
    let timer = Timer {
        clock,
        notify: notify(id),
        setting: Setting::default(),
        waits: false,
        last_overrun: 0,
    };
    timers.insert(id, timer);
    id
}

/// How many timers a process has.
pub fn count(process: &Process) -> usize {
    process.signals.timers.timers.lock().len()
}

/// A timer's clock; `None` if there is no such timer.
pub fn clock_of(process: &Process, id: TimerId) -> Option<Clock> {
    process.signals.timers.timers.lock().get(&id).map(|timer| timer.clock)
}

/// How a timer is set.
pub fn get(process: &Process, id: TimerId) -> Setting {
    let timer = process.signals.timers.timers.lock().get(&id).copied();
    match timer {
        // As if it had gone on meanwhile.
        Some(timer) if timer.waits => timer.setting.after(timer.clock.now(process)).0,
        Some(timer) => timer.setting,
        None => Setting::default(),
    }
}

/// How often a timer expired beyond once, before its last signal was taken.
pub fn overrun(process: &Process, id: TimerId) -> u64 {
    process.signals.timers.timers.lock().get(&id).map_or(0, |timer| timer.last_overrun)
}

/// Sets a timer that there is; returns what it was.
pub fn set(process: &Process, id: TimerId, setting: Setting) -> Setting {
    let old = get(process, id);
    arm(process, id, setting);
    old
}

fn arm(process: &Process, id: TimerId, setting: Setting) {
    let mut timers = process.signals.timers.timers.lock();
    let Some(timer) = timers.get_mut(&id) else { return };
    let old = core::mem::replace(&mut timer.setting, setting);
    timer.waits = false;
    if timer.clock.is_real() {
        let mut moments = MOMENTS.lock();
        if let Some(moment) = old.moment {
            moments.remove(&(moment, process.pid, id));
        }
        if let Some(moment) = setting.moment {
            moments.insert((moment, process.pid, id));
        }
    }
    let by_own_time = |timer: &Timer| !timer.clock.is_real() && timer.setting.moment.is_some();
    let some = timers.values().any(by_own_time);
    process.signals.timers.by_own_time.store(some, Ordering::Relaxed);
    drop(timers);
    scheduler::sleepers_changed();
}

/// Sets an interval timer; returns what it was.
pub fn set_interval_timer(
    process: &Process,
    (id, clock, signal): (TimerId, Clock, u8),
    setting: Setting,
) -> Setting {
    process.signals.timers.timers.lock().entry(id).or_insert(Timer {
        clock,
        notify: Notify::Signal(SignalInfo::kernel(signal), None),
        setting: Setting::default(),
        waits: false,
        last_overrun: 0,
    });
    set(process, id, setting)
}

/// Removes a timer; whether there was one.
pub fn delete(process: &Process, id: TimerId) -> bool {
    set(process, id, Setting::default());
    process.signals.timers.timers.lock().remove(&id).is_some()
}

/// Removes a process's timers: those that exec ends, or all.
pub fn delete_all(process: &Process, interval_timers_too: bool) {
    let ids: Vec<TimerId> = process.signals.timers.timers.lock().keys().copied().collect();
    for id in ids.into_iter().filter(|&id| id >= 0 || interval_timers_too) {
        delete(process, id);
    }
}

/// Sends the signals of the timers that have expired by now: by real time, and
/// by the time of the running thread and its process.
pub fn expire(now: u64) {
    loop {
        let (moment, pid, id) = match MOMENTS.lock().first() {
            Some(&first) if first.0 <= now => first,
            _ => break,
        };
        MOMENTS.lock().remove(&(moment, pid, id));
        if let Some(process) = find(pid) {
            expire_one(&process, id, now);
        }
    }
    let thread = scheduler::current();
    if thread.process.signals.timers.by_own_time.load(Ordering::Relaxed) {
        expire_by_own_time(&thread.process);
    }
}

fn expire_by_own_time(process: &Arc<Process>) {
    let set: Vec<_> = {
        let timers = process.signals.timers.timers.lock();
        let wanted = timers.iter().filter(|(_, timer)| !timer.clock.is_real());
        wanted.filter_map(|(&id, it)| Some((id, it.clock, it.setting.moment?))).collect()
    };
    for (id, clock, moment) in set {
        let now = clock.now(process);
        if moment <= now {
            expire_one(process, id, now);
        }
    }
}

/// How long the running thread can go on before one of its process's timers by
/// its own time expires. What it has `not_charged` is asked for only if there
/// are any.
pub fn shortest_own_time(thread: &Thread, not_charged: impl FnOnce() -> CpuTime) -> Option<u64> {
    let timers = &thread.process.signals.timers;
    if !timers.by_own_time.load(Ordering::Relaxed) {
        return None;
    }
    let mut own = thread.usage.lock().time;
    let mut process = thread.process.usage.lock().own.time;
    let rest = not_charged();
    own += rest;
    process += rest;
    let timers = timers.timers.lock();
    let remaining = timers.values().filter_map(|timer| {
        let now = match timer.clock {
            Clock::User => process.user,
            Clock::Process => process.sum(),
            Clock::Thread(tid) if tid == thread.tid() => own.sum(),
            Clock::Thread(_) | Clock::Real | Clock::Wall => return None,
        };
        timer.setting.moment.map(|moment| moment.saturating_sub(now).max(SHORTEST))
    });
    remaining.min()
}

/// No timer by own time is looked at more often, in nanoseconds, and none goes on
/// sooner whose signal nobody takes.
const SHORTEST: u64 = 4_000_000;

fn expire_one(process: &Arc<Process>, id: TimerId, now: u64) {
    let Some(timer) = process.signals.timers.timers.lock().get(&id).copied() else { return };
    let Notify::Signal(info, target) = timer.notify else {
        arm(process, id, timer.setting.after(now).0);
        return;
    };
    let thread = target.and_then(|tid| process.thread(tid));
    match &thread {
        Some(thread) => send::send_to_thread(thread, info),
        None if target.is_none() => send::send_to_process(process, info),
        None => {}
    }
    let pending = process.signals.pending.lock().has(&info)
        || thread.is_some_and(|thread| thread.signals.pending.lock().has(&info));
    if pending && timer.clock.is_real() {
        // It goes on when the signal is taken: however short the interval is, the
        // program comes to run.
        if let Some(timer) = process.signals.timers.timers.lock().get_mut(&id) {
            timer.waits = true;
        }
    } else {
        // Nobody takes it, or not by its name.
        let (next, _) = timer.setting.after(now);
        let moment = next.moment.map(|moment| moment.max(now + SHORTEST));
        arm(process, id, Setting { moment, ..next });
    }
}

/// A signal is taken: if it is a timer's, that goes on, and the signal says how
/// often it has expired meanwhile.
pub fn taken(process: &Process, info: SignalInfo) -> SignalInfo {
    let id = match info.timer() {
        Some(id) => id,
        None if info == SignalInfo::kernel(SIGALRM) => REAL,
        None => return info,
    };
    let Some(timer) = process.signals.timers.timers.lock().get(&id).copied() else { return info };
    let (next, missed) = timer.setting.after(timer.clock.now(process));
    let missed = if timer.waits { missed.min(MOST_OVERRUN) } else { 0 };
    if let Some(timer) = process.signals.timers.timers.lock().get_mut(&id) {
        timer.last_overrun = missed;
    }
    if timer.waits {
        arm(process, id, next);
    }
    if id == REAL { info } else { info.with_overrun(missed as u32) }
}

const MOST_OVERRUN: u64 = i32::MAX as u64;
