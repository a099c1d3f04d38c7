//! The vCPU's end as an event, and what all subscribers need to begin.

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use vmm_sys_util::eventfd::EventFd;

use super::{Cause, Verdict};

/// Adds a descriptor to the loop. A subscriber cannot fail at that point, so the
/// lab ends instead.
pub(super) fn add(ops: &mut EventOps<'_>, events: Events, verdict: &Verdict) {
    if let Err(error) = ops.add(events) {
        verdict.set(Cause::Failed(error.to_string()));
    }
}

/// Waits for the end of the vCPU's thread.
pub(super) struct VcpuWatch {
    ended: EventFd,
    verdict: Verdict,
}

impl VcpuWatch {
    pub(super) const fn new(ended: EventFd, verdict: Verdict) -> Self {
        Self { ended, verdict }
    }
}

impl MutEventSubscriber for VcpuWatch {
    fn process(&mut self, _events: Events, ops: &mut EventOps<'_>) {
        self.verdict.set(Cause::VcpuEnded);
        // Said once: the descriptor stays readable.
        if let Err(error) = ops.remove(Events::empty(&self.ended)) {
            log::debug!("cannot stop watching the vCPU: {error}");
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        add(ops, Events::new(&self.ended, EventSet::IN), &self.verdict);
    }
}
