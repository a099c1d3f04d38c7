//! The time limit, and the regular look at the event ring.

use std::sync::Arc;
use std::time::Duration;

use event_manager::{EventOps, EventSet, Events as Ready, MutEventSubscriber};
use vmm_sys_util::timerfd::TimerFd;

use super::{Cause, LoopError, Verdict, descriptor, watch};
use crate::machine::observer::Events;

/// A timer that goes off after `first`, then every `interval`.
pub(super) fn timer(first: Duration, interval: Option<Duration>) -> Result<TimerFd, LoopError> {
    let made = TimerFd::new().and_then(|mut timer| {
        timer.reset(first, interval)?;
        Ok(timer)
    });
    made.map_err(|error| descriptor("set a timer")(error.into()))
}

/// Ends the lab when its time is over.
pub(super) struct TimeLimit {
    timer: TimerFd,
    limit: Duration,
    verdict: Verdict,
}

impl TimeLimit {
    pub(super) fn new(limit: Duration, verdict: Verdict) -> Result<Self, LoopError> {
        // A timer of zero would be switched off instead of going off at once.
        let timer = timer(limit.max(Duration::from_nanos(1)), None)?;
        Ok(Self { timer, limit, verdict })
    }
}

impl MutEventSubscriber for TimeLimit {
    fn process(&mut self, _events: Ready, ops: &mut EventOps<'_>) {
        self.verdict.set(Cause::Timeout(self.limit));
        if let Err(error) = ops.remove(Ready::empty(&self.timer)) {
            log::debug!("cannot remove the time limit: {error}");
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        watch::add(ops, Ready::new(&self.timer, EventSet::IN), &self.verdict);
    }
}

/// How often the event ring is read while the guest runs.
const EVENT_INTERVAL: Duration = Duration::from_millis(20);

/// Reads the event ring now and then.
pub(super) struct EventTick {
    timer: TimerFd,
    events: Arc<Events>,
    verdict: Verdict,
}

impl EventTick {
    pub(super) fn new(events: Arc<Events>, verdict: Verdict) -> Result<Self, LoopError> {
        Ok(Self { timer: timer(EVENT_INTERVAL, Some(EVENT_INTERVAL))?, events, verdict })
    }
}

impl MutEventSubscriber for EventTick {
    fn process(&mut self, _events: Ready, _ops: &mut EventOps<'_>) {
        if let Err(error) = self.timer.wait() {
            log::debug!("event timer: {error}");
        }
        self.events.drain_running();
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        watch::add(ops, Ready::new(&self.timer, EventSet::IN), &self.verdict);
    }
}
