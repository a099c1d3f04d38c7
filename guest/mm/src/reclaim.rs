//! Taking frames from their owners when memory runs short.
//!
//! A hand goes round over the metadata of all frames (the clock, or second
//! chance). A frame that was used since the hand last came by is passed over
//! once: entries tell by their accessed bits, which the hand clears, other uses
//! by a bit of the frame's. What was not used is taken:
//!
//! * a clean page of a file is unmapped and dropped: it can be read again;
//! * a dirty one is unmapped and given to the kernel to write, then dropped;
//! * anonymous memory that its program gave up (`MADV_FREE`) is dropped;
//! * other anonymous memory, and shared memory, goes to swap, if there is any
//!   (`swap_out`, `swap_shared`).
//!
//! Pages of files are dealt with a run at a time where they lie in a row
//! (`reclaim_runs`).
//!
//! Left alone: pages of areas that are locked, pages of objects without a store,
//! and frames with an owner that is not found, such as the kernel itself. Who
//! holds a frame across something that may need memory takes a share of it.

use core::sync::atomic::Ordering;

use pagelab_abi::addr::Frame;
use pagelab_paging::{Entry, EntryFlags};

use crate::area::AreaFlags;
use crate::frames::{Candidate, Use};
use crate::machine::Machine;
use crate::memory::Memory;
use crate::object::{ObjectId, Store};
use crate::owner::Owner;
use crate::rmap::{Mapping, Search, Spaces, Wanted};
use crate::space::AddressSpace;
use crate::swap_out::Outgoing;

/// How many frames are worth taking at a time, at least.
pub const BATCH: u64 = 32;

/// What reclaim needs of the kernel.
pub trait Pager: Spaces {
    /// Writes a page of an object to its store and, as far as that is good, its
    /// dirty neighbours: with [`Memory::clean_pages`] before. Returns whether the
    /// page was written.
    fn write_back(&self, object: ObjectId, index: u64) -> bool;

    /// Writes frames to swap, the first to `slot`, the others to those behind it.
    /// Returns whether all were written.
    fn write_swap(&self, slot: u64, frames: &[Frame]) -> bool;
}

/// What reclaim did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Frames that were looked at.
    pub scanned: u64,
    /// Clean pages of files that were dropped.
    pub clean: u64,
    /// Pages of files that were written and dropped.
    pub written: u64,
    /// Pages of anonymous memory that their programs had given up.
    pub given_up: u64,
    /// Pages that went to swap, or were there already, and were dropped.
    pub swapped: u64,
}

impl Reclaimed {
    /// How many frames became free.
    #[must_use]
    pub const fn freed(&self) -> u64 {
        self.clean + self.written + self.given_up + self.swapped
    }
}

impl<M: Machine> Memory<M> {
    /// Frees `wanted` frames, or as many as can be in two rounds of the hand. No
    /// address space may be locked.
    pub fn reclaim<P: Pager + ?Sized>(&self, pager: &P, wanted: u64) -> Reclaimed {
        let mut sweep = Sweep::new(self, pager);
        sweep.run(wanted);
        sweep.finish()
    }
}

/// One call of reclaim.
pub(crate) struct Sweep<'a, M, P: ?Sized> {
    pub(crate) memory: &'a Memory<M>,
    pub(crate) pager: &'a P,
    pub(crate) search: Search<'a, M, P>,
    pub(crate) done: Reclaimed,
    pub(crate) outgoing: Outgoing,
}

/// Frames of programs.
pub(crate) const EITHER: [Use; 2] = [Use::Anonymous, Use::Cache];

impl<M: Machine> Memory<M> {
    /// The uses of frames among which a search may find something.
    fn worth_a_look(&self) -> Option<[Use; 2]> {
        let swap = self.swap_use();
        let anonymous = swap.free > 0 || swap.cached > 0 || self.given_up.load(Ordering::Relaxed);
        match (anonymous, swap.free > 0 || self.objects.any_stored()) {
            (true, true) => Some(EITHER),
            (true, false) => Some([Use::Anonymous; 2]),
            (false, true) => Some([Use::Cache; 2]),
            (false, false) => None,
        }
    }
}

/// What the entries that map a frame say.
#[derive(Default)]
struct Seen {
    used: bool,
    dirty: bool,
}

impl<'a, M: Machine, P: Pager + ?Sized> Sweep<'a, M, P> {
    pub(crate) fn new(memory: &'a Memory<M>, pager: &'a P) -> Self {
        Self {
            memory,
            pager,
            search: Search::new(memory, pager),
            done: Reclaimed::default(),
            outgoing: Outgoing::new(),
        }
    }

    /// Writes what waits for it.
    pub(crate) fn finish(mut self) -> Reclaimed {
        self.write_outgoing();
        self.done
    }

    fn run(&mut self, wanted: u64) {
        let Some(uses) = self.memory.worth_a_look() else { return };
        let clock_hand = &self.memory.clock_hand;
        let end = self.memory.frames.hold().metadata_len();
        // The first round may do no more than clear accessed bits.
        let mut left = 2 * end;
        let looks_at_all = uses.contains(&Use::Anonymous);
        while self.done.freed() + self.outgoing.count() < wanted && left > 0 {
            let hand = clock_hand.load(Ordering::Relaxed);
            let candidate = self.memory.frames.hold().next_candidate(hand, end, uses);
            let mut next = end;
            if let Some(candidate) = candidate {
                let more = wanted - self.done.freed() - self.outgoing.count();
                let mut looked_at = self.take_run(&candidate, more);
                if looked_at == 0 {
                    self.consider(&candidate);
                    looked_at = 1;
                }
                self.done.scanned += looked_at as u64;
                next = candidate.frame.index() + looked_at;
            }
            left = left.saturating_sub(next - hand);
            clock_hand.store(if next == end { 0 } else { next }, Ordering::Relaxed);
        }
        if left == 0 && looks_at_all && self.done.given_up == 0 {
            self.memory.given_up.store(false, Ordering::Relaxed);
        }
    }

    /// Takes a frame, if it was not used.
    pub(crate) fn consider(&mut self, candidate: &Candidate) {
        let owner = Owner::decode(candidate.usage, candidate.owner);
        let wanted = Wanted::new(candidate.frame, owner, candidate.count);
        if candidate.referenced {
            self.memory.frames.hold().set_referenced(candidate.frame, false);
            self.look(&wanted);
            return;
        }
        match owner {
            Owner::Unknown => {}
            Owner::Anonymous { slot: Some(slot), .. } if wanted.mappers == 0 => {
                self.send(slot, candidate.frame);
            }
            Owner::Anonymous { slot, .. } => self.anonymous(&wanted, slot, candidate.dirty),
            Owner::Page { object, index } => self.page(&wanted, (object, index), candidate.dirty),
        }
    }

    /// A page of an object.
    fn page(&mut self, wanted: &Wanted, place: (ObjectId, u64), dirty: bool) {
        let Memory { machine, frames, objects, .. } = self.memory;
        let store = objects.store_of(place.0);
        if store == Store::Nowhere
            || (store == Store::Swap && !self.memory.swap.has_room())
            || (wanted.mappers > 0 && !self.unmap_page(wanted))
        {
            return;
        }
        if store == Store::Swap {
            self.swap_out_shared(place, wanted.frame);
        } else if objects.drop_clean(machine, frames, place, wanted.frame) {
            self.done.clean += 1;
        } else if (dirty || frames.hold().is_dirty(wanted.frame))
            && self.pager.write_back(place.0, place.1)
            && objects.drop_clean(machine, frames, place, wanted.frame)
        {
            self.done.written += 1;
        }
    }

    /// Unmaps a page of an object where it was not used and is not locked.
    /// Returns whether nobody maps it any more.
    fn unmap_page(&mut self, wanted: &Wanted) -> bool {
        let Memory { machine, frames, .. } = self.memory;
        let mut kept = 0;
        let found = self.search.for_each(wanted, &mut |space, mapping| {
            let entry = mapping.entry;
            if mapping.was_used(machine, space) {
                kept += 1;
                return;
            }
            mapping.replace(machine, space, Entry::EMPTY);
            space.note_peak();
            *space.resident_of(false, mapping.flags) -= 1;
            let mut held = frames.hold();
            if entry.has(EntryFlags::DIRTY) {
                held.set_dirty(wanted.frame, true);
            }
            held.release(machine, wanted.frame);
        });
        kept == 0 && found == wanted.mappers
    }

    /// Anonymous memory. Most of it is mapped once, and needs one look.
    fn anonymous(&mut self, wanted: &Wanted, slot: Option<u64>, dirty: bool) {
        if wanted.mappers == 1 {
            self.take(wanted, slot, dirty);
        } else if let Some(seen) = self.look(wanted)
            && !seen.used
        {
            self.take(wanted, slot, dirty || seen.dirty);
        }
    }

    /// Clears the accessed bits of all entries and returns what they said; `None`
    /// if not all were found.
    fn look(&mut self, wanted: &Wanted) -> Option<Seen> {
        let machine = &self.memory.machine;
        let mut seen = Seen::default();
        let found = self.search.for_each(wanted, &mut |space, mapping| {
            seen.dirty |= mapping.entry.has(EntryFlags::DIRTY);
            seen.used |= mapping.was_used(machine, space);
        });
        (found == wanted.mappers).then_some(seen)
    }

    /// Takes an anonymous frame away from all who map it, and sends it to swap; or
    /// drops it, if its programs have given it up: it reads as zeros then.
    fn take(&mut self, wanted: &Wanted, slot: Option<u64>, dirty: bool) {
        let (memory, frame) = (self.memory, wanted.frame);
        // Held until it is known whether an entry holds it.
        let mut held_slot = None;
        let mut given_up = 0;
        let found = self.search.for_each(wanted, &mut |space, mapping| {
            if mapping.was_used(&memory.machine, space) {
                return;
            }
            let mut new = Entry::EMPTY;
            if dirty || slot.is_some() || mapping.entry.has(EntryFlags::DIRTY) {
                if held_slot.is_none() {
                    held_slot = memory.slot_for(frame, slot);
                }
                let Some(slot) = held_slot else { return };
                memory.swap.share(slot);
                new = Entry::for_swap(slot, mapping.entry.flags());
                space.swapped += 1;
            } else {
                given_up += 1;
            }
            mapping.replace(&memory.machine, space, new);
            space.note_peak();
            space.resident.anonymous -= 1;
            memory.frames.release(&memory.machine, frame);
        });
        if let Some(slot) = held_slot {
            memory.release_slot(slot);
            self.send(slot, frame);
        } else if given_up > 0 && given_up == found {
            self.done.given_up += 1;
        }
    }
}

impl Mapping {
    /// Whether the page must stay where it is: locked, or used since somebody last
    /// asked. Its accessed bit is clear then.
    #[inline]
    fn was_used<M: Machine>(&self, machine: &M, space: &AddressSpace) -> bool {
        if self.flags.contains(AreaFlags::LOCKED) {
            return true;
        }
        let used = self.entry.has(EntryFlags::ACCESSED);
        if used {
            self.replace(machine, space, self.entry.without(EntryFlags::ACCESSED));
        }
        used
    }
}
