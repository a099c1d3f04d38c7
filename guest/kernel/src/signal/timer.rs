//! `alarm` and `setitimer(ITIMER_REAL)`: SIGALRM at a moment, and perhaps again.

use alloc::collections::BTreeSet;

use pagelab_hal::sync::Lock;
use pagelab_hal::time;

use super::info::SignalInfo;
use super::{SIGALRM, send};
use crate::process::{Pid, Process, find, scheduler};

/// A process's timer; moments and lengths in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IntervalTimer {
    /// When it expires, since the start; `None` if it is not set.
    pub moment: Option<u64>,
    /// How long after that it expires again; 0 for never.
    pub interval: u64,
}

impl IntervalTimer {
    /// How long it takes to expire; 0 if it is not set.
    pub fn remaining(&self) -> u64 {
        // A timer that is set is not over until its signal is sent.
        self.moment.map_or(0, |moment| moment.saturating_sub(time::since_start()).max(1))
    }

    /// The timer after it has expired.
    const fn next(&self, moment: u64, now: u64) -> Self {
        if self.interval == 0 {
            return Self { moment: None, interval: 0 };
        }
        // Moments that were missed are left out.
        let passed = now.saturating_sub(moment) / self.interval;
        let next = moment.saturating_add(self.interval.saturating_mul(passed + 1));
        Self { moment: Some(next), interval: self.interval }
    }
}

/// All timers that are set: when, and whose.
static TIMERS: Lock<BTreeSet<(u64, Pid)>> = Lock::new(BTreeSet::new());

/// The first moment that a timer expires at.
pub fn first_moment() -> Option<u64> {
    TIMERS.lock().first().map(|&(moment, _)| moment)
}

/// A process's timer.
pub fn get(process: &Process) -> IntervalTimer {
    *process.signals.timer.lock()
}

/// Sets a process's timer; returns what it was.
pub fn set(process: &Process, timer: IntervalTimer) -> IntervalTimer {
    let old = core::mem::replace(&mut *process.signals.timer.lock(), timer);
    {
        let mut timers = TIMERS.lock();
        if let Some(moment) = old.moment {
            timers.remove(&(moment, process.pid));
        }
        if let Some(moment) = timer.moment {
            timers.insert((moment, process.pid));
        }
    }
    scheduler::sleepers_changed();
    old
}

/// Stops the timer of a process that ends.
pub fn stop(process: &Process) {
    if get(process).moment.is_some() {
        set(process, IntervalTimer::default());
    }
}

/// Sends the signals of the timers that expire at `now` or earlier.
pub fn expire(now: u64) {
    loop {
        let (moment, pid) = match TIMERS.lock().first() {
            Some(&first) if first.0 <= now => first,
            _ => return,
        };
        TIMERS.lock().remove(&(moment, pid));
        let Some(process) = find(pid) else { continue };
        let next = get(&process).next(moment, now);
        set(&process, next);
        send::send_to_process(&process, SignalInfo::kernel(SIGALRM));
    }
}
