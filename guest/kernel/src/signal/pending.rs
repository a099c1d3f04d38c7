//! Signals that were sent and not yet taken.
//!
//! A standard signal (below [`FIRST_REALTIME`]) is pending once however often it
//! is sent, with the first sender's information. A real-time signal is pending
//! as often as it was sent, in order. The queue is bounded: what does not fit
//! is refused, or for standard signals remembered without its information. So
//! it is when memory has run out.

use alloc::collections::VecDeque;

use super::FIRST_REALTIME;
use super::info::{SignalInfo, code};
use super::set::SignalSet;

/// There is no room for another real-time signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull;

/// Pending signals of a thread or a process.
#[derive(Default)]
pub struct Pending {
    set: SignalSet,
    /// In the order of their arrival.
    queue: VecDeque<SignalInfo>,
}

impl Pending {
    /// Which signals are pending.
    pub const fn set(&self) -> SignalSet {
        self.set
    }

    /// Adds a signal; at most `most` are queued.
    ///
    /// # Errors
    ///
    /// If a real-time signal does not fit that carries more than its sender.
    pub fn add(&mut self, info: SignalInfo, most: usize) -> Result<(), QueueFull> {
        let signal = info.signal();
        if signal < FIRST_REALTIME && self.set.contains(signal) {
            return Ok(());
        }
        if self.queue.len() < most && self.queue.try_reserve(1).is_ok() {
            self.queue.push_back(info);
        } else if signal >= FIRST_REALTIME && info.code != code::USER {
            return Err(QueueFull);
        }
        self.set = self.set.with(signal);
        Ok(())
    }

    /// Whether exactly this is queued.
    pub fn has(&self, info: &SignalInfo) -> bool {
        self.queue.contains(info)
    }

    /// The signal that comes next among `wanted`: those that the program itself
    /// caused, then the lowest.
    pub fn next(&self, wanted: SignalSet) -> Option<u8> {
        const SYNCHRONOUS: SignalSet = SignalSet::of(&[
            super::SIGSEGV,
            super::SIGBUS,
            super::SIGILL,
            super::SIGTRAP,
            super::SIGFPE,
            super::SIGSYS,
        ]);
        let ready = self.set.and(wanted);
        ready.and(SYNCHRONOUS).first().or(ready.first())
    }

    /// Takes that signal out.
    pub fn take(&mut self, wanted: SignalSet) -> Option<SignalInfo> {
        let signal = self.next(wanted)?;
        let place = self.queue.iter().position(|info| info.signal() == signal);
        let info = place.and_then(|place| self.queue.remove(place));
        if !self.queue.iter().any(|info| info.signal() == signal) {
            self.set = self.set.without(SignalSet::of(&[signal]));
        }
        Some(info.unwrap_or_else(|| SignalInfo::unknown(signal)))
    }

    /// Forgets these signals.
    pub fn discard(&mut self, signals: SignalSet) {
        if !self.set.and(signals).is_empty() {
            self.set = self.set.without(signals);
            self.queue.retain(|info| !signals.contains(info.signal()));
        }
    }
}
