//! Waiting: until a moment, or until a condition holds.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use pagelab_hal::sync::Lock;
use pagelab_hal::time;

use super::scheduler;
use super::thread::{Thread, Tid};
use crate::signal;

/// Who sleeps until when (nanoseconds since the start).
static SLEEPERS: Lock<BTreeMap<(u64, Tid), Arc<Thread>>> = Lock::new(BTreeMap::new());

/// The first moment that somebody sleeps until.
pub fn first_moment() -> Option<u64> {
    SLEEPERS.lock().keys().next().map(|&(moment, _)| moment)
}

/// Wakes who slept until `now` or earlier.
pub fn wake_sleepers(now: u64) {
    loop {
        let thread = {
            let mut sleepers = SLEEPERS.lock();
            match sleepers.first_entry() {
                Some(entry) if entry.key().0 <= now => entry.remove(),
                _ => return,
            }
        };
        scheduler::wake(&thread);
    }
}

/// Threads that wait for the same thing.
pub struct WaitQueue {
    waiting: Lock<Vec<Arc<Thread>>>,
}

impl Default for WaitQueue {
    fn default() -> Self {
        Self::new()
    }
}

/// Why a wait ended without what was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotYet {
    /// A signal came.
    Interrupted,
    /// The moment came.
    TimedOut,
}

/// What cuts a wait short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CutShort {
    BySignals,
    ByTheEnd,
}

impl WaitQueue {
    /// Nobody waits.
    pub const fn new() -> Self {
        Self { waiting: Lock::new(Vec::new()) }
    }

    /// Lets everybody look again; says whether anybody waited.
    pub fn wake_all(&self) -> bool {
        let waiting = core::mem::take(&mut *self.waiting.lock());
        for thread in &waiting {
            scheduler::wake(thread);
        }
        !waiting.is_empty()
    }

    /// Waits until `condition` gives something. It is asked at once, and again
    /// whenever the queue is woken.
    ///
    /// # Errors
    ///
    /// If a signal comes first, or the `deadline`.
    pub fn wait<T>(
        &self,
        deadline: Option<u64>,
        condition: impl FnMut() -> Option<T>,
    ) -> Result<T, NotYet> {
        self.wait_unless(CutShort::BySignals, deadline, condition)
    }

    /// The same, but only the end of the process cuts it short.
    ///
    /// # Errors
    ///
    /// If the process is to end.
    pub fn wait_killable<T>(&self, condition: impl FnMut() -> Option<T>) -> Result<T, NotYet> {
        self.wait_unless(CutShort::ByTheEnd, None, condition)
    }

    fn wait_unless<T>(
        &self,
        cut_short: CutShort,
        deadline: Option<u64>,
        condition: impl FnMut() -> Option<T>,
    ) -> Result<T, NotYet> {
        let enter = |thread: &Arc<Thread>| self.waiting.lock().push(thread.clone());
        let leave = |thread: &Arc<Thread>| {
            self.waiting.lock().retain(|other| !Arc::ptr_eq(other, thread));
        };
        wait_in(cut_short, deadline, condition, enter, leave)
    }
}

/// Waits for something that wakes this thread by name, or for a moment.
///
/// # Errors
///
/// If a signal comes first, or the `deadline`.
pub fn wait_alone<T>(
    deadline: Option<u64>,
    condition: impl FnMut() -> Option<T>,
) -> Result<T, NotYet> {
    wait_in(CutShort::BySignals, deadline, condition, |_| {}, |_| {})
}

/// Waits in several queues at once: `poll`.
///
/// # Errors
///
/// If a signal comes first, or the `deadline`.
pub fn wait_in_all<T>(
    queues: &[Arc<WaitQueue>],
    deadline: Option<u64>,
    condition: impl FnMut() -> Option<T>,
) -> Result<T, NotYet> {
    let enter = |thread: &Arc<Thread>| {
        for queue in queues {
            queue.waiting.lock().push(thread.clone());
        }
    };
    let leave = |thread: &Arc<Thread>| {
        for queue in queues {
            queue.waiting.lock().retain(|other| !Arc::ptr_eq(other, thread));
        }
    };
    wait_in(CutShort::BySignals, deadline, condition, enter, leave)
}

fn wait_in<T>(
    cut_short: CutShort,
    deadline: Option<u64>,
    mut condition: impl FnMut() -> Option<T>,
    enter: impl Fn(&Arc<Thread>),
    leave: impl Fn(&Arc<Thread>),
) -> Result<T, NotYet> {
    loop {
        if let Some(value) = condition() {
            return Ok(value);
        }
        let key = {
            let this = scheduler::current();
            match cut_short {
                CutShort::BySignals if this.has_attention() => {
                    if signal::cuts_short(&this) {
                        return Err(NotYet::Interrupted);
                    }
                    // Meanwhile the process may have stopped and gone on.
                    continue;
                }
                CutShort::ByTheEnd if this.process.ending.lock().is_some() => {
                    return Err(NotYet::Interrupted);
                }
                CutShort::BySignals | CutShort::ByTheEnd => {}
            }
            if deadline.is_some_and(|moment| moment <= time::since_start()) {
                return Err(NotYet::TimedOut);
            }
            enter(&this);
            let key = deadline.map(|moment| (moment, this.tid()));
            if let Some(key) = key {
                SLEEPERS.lock().insert(key, this);
            }
            key
        };
        scheduler::block();
        let this = scheduler::current();
        leave(&this);
        if let Some(key) = key {
            SLEEPERS.lock().remove(&key);
        }
    }
}
