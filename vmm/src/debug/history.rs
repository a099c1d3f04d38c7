//! The guest's latest events, for whoever asks later.
//!
//! One store for all clients: a client that watches has a place in it and reads
//! on from there. One that is too slow finds that the oldest events are gone,
//! and how many; it never holds anything up, and costs no memory.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pagelab_abi::event::Event;

/// How many events are kept: 8 MiB of them.
pub const CAPACITY: usize = 1 << 17;

#[derive(Default)]
struct Kept {
    events: VecDeque<Event>,
    /// The place of the first of them: how many came before it.
    first: u64,
    /// Events that the guest wrote and nobody read in time.
    lost: u64,
}

/// See the module's documentation.
#[derive(Default)]
pub struct History(Mutex<Kept>);

/// What a reader finds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Events, oldest first.
    pub events: Vec<Event>,
    /// The place behind them.
    pub next: u64,
    /// How many before them are gone.
    pub missed: u64,
}

impl History {
    /// Keeps an event.
    pub fn add(&self, event: &Event) {
        let mut kept = self.kept();
        if kept.events.len() == CAPACITY {
            kept.events.pop_front();
            kept.first += 1;
        }
        kept.events.push_back(*event);
    }

    /// Notes that events were lost before they could be kept.
    pub fn lose(&self, count: u64) {
        if count > 0 {
            self.kept().lost += count;
        }
    }

    /// The place behind the last event.
    #[must_use]
    pub fn end(&self) -> u64 {
        let kept = self.kept();
        kept.first + kept.events.len() as u64
    }

    /// How many events could not be kept.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.kept().lost
    }

    /// Up to `most` events from place `from` on.
    #[must_use]
    pub fn read(&self, from: u64, most: usize) -> Found {
        let kept = self.kept();
        let start = from.max(kept.first);
        let skip = usize::try_from(start - kept.first).unwrap_or(usize::MAX);
        let events: Vec<Event> = kept.events.iter().skip(skip).take(most).copied().collect();
        Found { next: start + events.len() as u64, missed: start - from, events }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_read_on_and_slow_ones_learn_what_they_missed() {
        let history = History::default();
        let add = |from: usize, to: usize| {
            for number in from..to {
                history.add(&Event { sequence: number as u64, ..Event::default() });
            }
        };
        add(0, 10);
        let found = history.read(0, 4);
        assert_eq!((found.events.len(), found.next, found.missed), (4, 4, 0));
        assert_eq!(history.read(10, 4), Found { events: vec![], next: 10, missed: 0 });
        add(10, CAPACITY + 7);
        let found = history.read(4, 2);
        assert_eq!((found.missed, found.events[0].sequence, found.next), (3, 7, 9));
        assert_eq!(history.end(), CAPACITY as u64 + 7);
    }
}
