//! Reads the event ring (`pagelab_abi::event`).
//!
//! For every event that the guest says it has written, exactly one of two things
//! happens: it is handed to the caller, whole and in order, or it is counted as
//! lost. An event is lost when its slot was used again before it was read, or
//! when the slot does not hold what the guest said. One call looks at no more
//! slots than the ring has, whatever the guest says.

use std::mem::offset_of;
use std::sync::atomic::{Ordering, fence};

use pagelab_abi::event::{EVENT_SLOTS, Event};
use pagelab_abi::lab::{EVENTS_OFFSET, FLAG_LOSSLESS, Header};
use vm_memory::{Bytes, VolatileSlice};
use zerocopy::{FromZeros, IntoBytes};

use super::{SharedPages, load, store};

/// Whether the guest runs while the ring is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guest {
    /// It runs: the oldest slot may be in the middle of being overwritten.
    Running,
    /// It waits for the host, or has stopped for good.
    Waiting,
}

/// Takes events.
pub trait EventSink {
    /// Whether there is room for another one. While the guest runs, a sink that
    /// would have to wait says no, and is asked again later.
    fn is_ready(&mut self, guest: Guest) -> bool;

    /// Takes an event.
    fn take(&mut self, event: &Event);
}

/// How far the ring has been read. All events below `next` were delivered or
/// lost: `next` = `delivered` + `lost`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventReader {
    next: u64,
    delivered: u64,
    lost: u64,
}

const SLOTS: u64 = EVENT_SLOTS as u64;

impl EventReader {
    /// How many events were handed over.
    #[must_use]
    pub const fn delivered(&self) -> u64 {
        self.delivered
    }

    /// How many events were lost.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// Hands the events that are there to `sink`, oldest first, as long as it is
    /// ready for more.
    ///
    /// A guest whose count of events goes backwards gets nothing read until the
    /// count has caught up again.
    pub fn drain(&mut self, shared: &SharedPages, guest: Guest, sink: &mut impl EventSink) {
        let Some(pages) = shared.pages() else {
            return;
        };
        // A guest that waits for room never overwrites what was not read.
        let lossless = shared.flags() & FLAG_LOSSLESS != 0;
        let overwrites = guest == Guest::Running && !lossless;
        let written = written(&pages);
        if written <= self.next {
            return;
        }
        let waiting = written - self.next;
        if waiting > SLOTS {
            self.lost += waiting - SLOTS;
            self.next = written - SLOTS;
        }
        while self.next < written && sink.is_ready(guest) {
            match read_slot(&pages, self.next, overwrites) {
                Some(event) => {
                    self.delivered += 1;
                    sink.take(&event);
                }
                None => self.lost += 1,
            }
            self.next += 1;
        }
        store(&pages, offset_of!(Header, events_read), self.next);
    }
}

/// The event that was written last, for a guest that waits.
#[must_use]
pub fn latest(shared: &SharedPages) -> Option<Event> {
    let pages = shared.pages()?;
    read_slot(&pages, written(&pages).checked_sub(1)?, false)
}

fn written(pages: &VolatileSlice<'_>) -> u64 {
    load(pages, offset_of!(Header, events_written))
}

/// Event `number`, unless its slot holds another one or may just be changing.
fn read_slot(pages: &VolatileSlice<'_>, number: u64, overwrites: bool) -> Option<Event> {
    // The remainder is below the number of slots.
    #[allow(clippy::cast_possible_truncation, reason = "a slot's index")]
    let index = (number % SLOTS) as usize;
    let offset = EVENTS_OFFSET + index * size_of::<Event>();
    let slot = pages.subslice(offset, size_of::<Event>()).ok()?;
    let sequence =
        || -> Option<u64> { slot.load(offset_of!(Event, sequence), Ordering::Acquire).ok() };
    // `u64::MAX` events cannot have been written.
    let expected = number.checked_add(1)?;
    if sequence()? != expected {
        return None;
    }
    let mut event = Event::new_zeroed();
    slot.copy_to(event.as_mut_bytes());
    // The copy must be complete before the slot is looked at again.
    fence(Ordering::Acquire);
    if event.sequence != expected || sequence()? != expected {
        return None;
    }
    // The guest writes an event before its sequence: once it may be writing the
    // one that follows in this slot, the copy may be of both.
    let reused = overwrites && written(pages).saturating_sub(number) >= SLOTS;
    (!reused).then_some(event)
}
