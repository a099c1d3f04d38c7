//! Waiting: until a moment, or until a condition holds.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use pagelab_hal::sync::Lock;
use pagelab_hal::time;

use super::scheduler;
use super::thread::{Thread, Tid};

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

/// Why a wait ended without what was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotYet {
    /// A signal came.
    Interrupted,
    /// The moment came.
    TimedOut,
}

impl WaitQueue {
    /// Nobody waits.
    pub const fn new() -> Self {
        Self { waiting: Lock::new(Vec::new()) }
    }

    /// Lets everybody look again.
    pub fn wake_all(&self) {
        let waiting = core::mem::take(&mut *self.waiting.lock());
        for thread in &waiting {
            scheduler::wake(thread);
        }
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
        mut condition: impl FnMut() -> Option<T>,
    ) -> Result<T, NotYet> {
        loop {
            if let Some(value) = condition() {
                return Ok(value);
            }
            let this = scheduler::current();
            if this.attention.load(Ordering::Relaxed) {
                return Err(NotYet::Interrupted);
            }
            if deadline.is_some_and(|moment| moment <= time::since_start()) {
                return Err(NotYet::TimedOut);
            }
            self.waiting.lock().push(this.clone());
            if let Some(moment) = deadline {
                SLEEPERS.lock().insert((moment, this.tid), this.clone());
            }
            let key = deadline.map(|moment| (moment, this.tid));
            drop(this);
            scheduler::block();
            self.forget_current(key);
        }
    }

    fn forget_current(&self, key: Option<(u64, Tid)>) {
        let this = scheduler::current();
        self.waiting.lock().retain(|thread| !Arc::ptr_eq(thread, &this));
        if let Some(key) = key {
            SLEEPERS.lock().remove(&key);
        }
    }
}
