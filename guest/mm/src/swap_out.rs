//! Anonymous pages on their way to swap, as reclaim sends them.
//!
//! A victim gets a slot and goes into the swap cache; the entries that map it
//! get the slot in its place; it is written together with others that got the
//! slots next to its own, and only then dropped. Whoever wants it meanwhile
//! finds it in the cache. If it cannot be written it stays there, dirty, and the
//! next search for victims tries again.

use pagelab_abi::addr::Frame;

use crate::machine::Machine;
use crate::memory::Memory;
use crate::reclaim::{Pager, Sweep};

/// How many pages are written at once.
pub(crate) const MOST_AT_ONCE: usize = 32;

/// Frames in the swap cache that nobody maps, with slots one after the other,
/// waiting to be written.
pub(crate) struct Outgoing {
    first_slot: u64,
    frames: [Frame; MOST_AT_ONCE],
    count: usize,
}

impl Outgoing {
    pub(crate) const fn new() -> Self {
        Self { first_slot: 0, frames: [Frame(0); MOST_AT_ONCE], count: 0 }
    }

    pub(crate) const fn count(&self) -> u64 {
        self.count as u64
    }

    /// Whether a frame is among them.
    pub(crate) fn contains(&self, frame: Frame) -> bool {
        self.frames[..self.count].contains(&frame)
    }

    /// Whether a frame with this slot can be written with the others.
    const fn takes(&self, slot: u64) -> bool {
        self.count < MOST_AT_ONCE && (self.count == 0 || slot == self.first_slot + self.count())
    }

    fn push(&mut self, slot: u64, frame: Frame) {
        if self.count == 0 {
            self.first_slot = slot;
        }
        self.frames[self.count] = frame;
        self.count += 1;
    }
}

impl<M: Machine, P: Pager + ?Sized> Sweep<'_, M, P> {
    /// A frame in the swap cache that nobody maps: dropped if its slot holds the
    /// same, written otherwise.
    pub(crate) fn send(&mut self, slot: u64, frame: Frame) {
        let memory = self.memory;
        let Some(object) = memory.swap.object() else { return };
        if memory.objects.drop_clean(&memory.machine, memory.frames, (object, slot), frame) {
            self.done.swapped += 1;
        } else if memory.frames.count(frame) == 1 && !self.outgoing.contains(frame) {
            if !self.outgoing.takes(slot) {
                self.write_outgoing();
            }
            self.outgoing.push(slot, frame);
        }
    }

    /// Writes what waits for it, and drops it.
    pub(crate) fn write_outgoing(&mut self) {
        let outgoing = core::mem::replace(&mut self.outgoing, Outgoing::new());
        let sent = &outgoing.frames[..outgoing.count];
        let memory = self.memory;
        let Some(object) = memory.swap.object().filter(|_| !sent.is_empty()) else { return };
        if !self.pager.write_swap(outgoing.first_slot, sent) {
            return;
        }
        for (slot, &frame) in (outgoing.first_slot..).zip(sent) {
            memory.frames.hold().set_dirty(frame, false);
            let place = (object, slot);
            if memory.objects.drop_clean(&memory.machine, memory.frames, place, frame) {
                self.done.swapped += 1;
            }
        }
    }
}

impl<M: Machine> Memory<M> {
    /// The slot for a frame, held by the caller, with the frame in the swap cache:
    /// the one that holds the same already, or a new one.
    pub(crate) fn slot_for(&self, frame: Frame, slot: Option<u64>) -> Option<u64> {
        if let Some(slot) = slot {
            self.swap.share(slot);
            return Some(slot);
        }
        let (object, slot) = self.swap.take()?;
        let (machine, frames) = (&self.machine, self.frames);
        frames.share(frame);
        if self.objects.insert(machine, frames, object, slot, frame).is_err() {
            frames.release(machine, frame);
            self.release_slot(slot);
            return None;
        }
        frames.hold().set_dirty(frame, true);
        Some(slot)
    }
}
