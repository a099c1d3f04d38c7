//! Stopping the guest at its next fault of a kind.
//!
//! The shared pages tell the guest for which kinds it must ring the doorbell
//! after the fault's event. It does that when the fault has been mended and
//! before the program goes on; the vCPU's thread then looks at that very event
//! here, and if somebody waits for it, the guest stands still with the next
//! entry. No event passes unseen, and kinds that nobody waits for cost nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pagelab_abi::event::{EVENT_FAULT, Event};

use super::filter::FaultFilter;
use crate::devices::shared::SharedPages;
use crate::vstate::control::{Pause, VcpuControl};

/// How many can wait at once.
pub const MOST: usize = 64;

/// Faults that are waited for. Each stops the guest once.
#[derive(Debug)]
pub struct FaultStops {
    shared: Arc<SharedPages>,
    control: Arc<VcpuControl>,
    waiting: Mutex<Vec<(u64, FaultFilter)>>,
}

impl FaultStops {
    /// None yet.
    #[must_use]
    pub const fn new(shared: Arc<SharedPages>, control: Arc<VcpuControl>) -> Self {
        Self { shared, control, waiting: Mutex::new(Vec::new()) }
    }

    /// Stops the guest at the next fault that `filter` means; gives its number,
    /// unless there are too many.
    pub fn add(&self, filter: FaultFilter) -> Option<u64> {
        let mut waiting = self.waiting();
        if waiting.len() >= MOST {
            return None;
        }
        let number = waiting.last().map_or(1, |(number, _)| number + 1);
        waiting.push((number, filter));
        self.publish(&waiting);
        Some(number)
    }

    /// Forgets number `number`, or all; says how many were forgotten.
    pub fn remove(&self, number: Option<u64>) -> usize {
        let mut waiting = self.waiting();
        let before = waiting.len();
        waiting.retain(|(other, _)| number.is_some_and(|number| number != *other));
        self.publish(&waiting);
        before - waiting.len()
    }

    /// Those that have not been met.
    #[must_use]
    pub fn list(&self) -> Vec<(u64, FaultFilter)> {
        self.waiting().clone()
    }

    /// Whether there are any.
    #[must_use]
    pub fn any(&self) -> bool {
        !self.waiting().is_empty()
    }

    /// The guest waits behind this event: pauses it, if that is the one.
    pub fn look_at(&self, event: &Event) {
        let mut waiting = self.waiting();
        let before = waiting.len();
        waiting.retain(|(_, filter)| event.class != EVENT_FAULT || !filter.matches(event));
        if waiting.len() < before {
            self.publish(&waiting);
            self.control.pause_here(Pause::Fault(*event));
        }
    }

    fn publish(&self, waiting: &[(u64, FaultFilter)]) {
        let kinds = waiting.iter().fold(0, |kinds, (_, filter)| kinds | filter.kinds);
        self.shared.set_break_kinds(kinds);
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<(u64, FaultFilter)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
