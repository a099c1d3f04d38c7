//! Taking frames from their owners when memory runs short.
//!
//! A hand goes round over the metadata of all frames (the clock, or second
//! chance). A frame that was used since the hand last came by is passed over
//! once: entries tell by their accessed bits, which the hand clears, other uses
//! by a bit of the frame's. What was not used is taken:
//!
//! * a clean page of a file is unmapped and dropped: it can be read again;
//! * a dirty one is unmapped and given to the kernel to write, then dropped;
//! * anonymous memory that its program gave up (`MADV_FREE`) is dropped.
//!
//! Left alone: pages of areas that are locked, pages of objects without a store,
//! and frames with an owner that is not found, such as the kernel itself. Who
//! holds a frame across something that may need memory takes a share of it.

use core::sync::atomic::Ordering;

use pagelab_paging::{Entry, EntryFlags};

use crate::area::AreaFlags;
use crate::frames::Candidate;
use crate::machine::Machine;
use crate::memory::Memory;
use crate::object::ObjectId;
use crate::owner::Owner;
use crate::rmap::{Search, Spaces, Wanted};

/// How many frames are taken at a time, unless more are needed.
pub const BATCH: u64 = 32;

/// What reclaim needs of the kernel.
pub trait Pager: Spaces {
    /// Writes a page of an object to its store and, as far as that is good, its
    /// dirty neighbours: with [`Memory::clean_page`] before. Returns whether the
    /// page was written.
    fn write_back(&self, object: ObjectId, index: u64) -> bool;
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
}

impl Reclaimed {
    /// How many frames became free.
    #[must_use]
    pub const fn freed(&self) -> u64 {
        self.clean + self.written + self.given_up
    }
}

impl<M: Machine> Memory<M> {
    /// Frees `wanted` frames, or as many as can be in two rounds of the hand. No
    /// address space may be locked.
    pub fn reclaim<P: Pager + ?Sized>(&self, pager: &P, wanted: u64) -> Reclaimed {
        let mut sweep = Sweep {
            memory: self,
            pager,
            search: Search::new(self, pager),
            done: Reclaimed::default(),
        };
        sweep.run(wanted);
        sweep.done
    }
}

/// One call of reclaim.
struct Sweep<'a, M, P: ?Sized> {
    memory: &'a Memory<M>,
    pager: &'a P,
    search: Search<'a, M, P>,
    done: Reclaimed,
}

/// What the entries that map a frame say.
#[derive(Default)]
struct Seen {
    referenced: bool,
    locked: bool,
    dirty: bool,
}

impl<M: Machine, P: Pager + ?Sized> Sweep<'_, M, P> {
    fn run(&mut self, wanted: u64) {
        let clock_hand = &self.memory.clock_hand;
        let end = self.memory.frames.hold().metadata_len();
        // The first round may do no more than clear accessed bits.
        let mut left = 2 * end;
        while self.done.freed() < wanted && left > 0 {
            let hand = clock_hand.load(Ordering::Relaxed);
            let candidate = self.memory.frames.hold().next_candidate(hand, end);
            let next = candidate.map_or(end, |candidate| candidate.frame.index() + 1);
            left = left.saturating_sub(next - hand);
            clock_hand.store(if next == end { 0 } else { next }, Ordering::Relaxed);
            if let Some(candidate) = candidate {
                self.done.scanned += 1;
                self.consider(&candidate);
            }
        }
    }

    fn consider(&mut self, candidate: &Candidate) {
        let frame = candidate.frame;
        if candidate.referenced {
            return self.memory.frames.hold().set_referenced(frame, false);
        }
        let owner = Owner::decode(candidate.usage, candidate.owner);
        let wanted = Wanted::new(frame, owner, candidate.count);
        match owner {
            Owner::Unknown => {}
            Owner::Anonymous { .. } => self.anonymous(&wanted),
            Owner::Page { object, index } => self.page(&wanted, (object, index)),
        }
    }

    /// A page of an object.
    fn page(&mut self, wanted: &Wanted, (object, index): (ObjectId, u64)) {
        let Memory { machine, frames, objects, .. } = self.memory;
        if !objects.is_stored(object) || !self.unmap_page(wanted) {
            return;
        }
        let place = (object, index);
        if objects.drop_clean(machine, frames, place, wanted.frame) {
            self.done.clean += 1;
        } else if frames.hold().is_dirty(wanted.frame)
            && self.pager.write_back(object, index)
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
            let locked = mapping.area.flags.contains(AreaFlags::LOCKED);
            if locked || entry.has(EntryFlags::ACCESSED) {
                kept += 1;
                if !locked {
                    mapping.replace(machine, space, entry.without(EntryFlags::ACCESSED));
                }
                return;
            }
            mapping.replace(machine, space, Entry::EMPTY);
            space.note_peak();
            *space.resident_of(false, mapping.area.flags) -= 1;
            let mut held = frames.hold();
            if entry.has(EntryFlags::DIRTY) {
                held.set_dirty(wanted.frame, true);
            }
            held.release(machine, wanted.frame);
        });
        kept == 0 && found == wanted.mappers
    }

    /// Anonymous memory.
    fn anonymous(&mut self, wanted: &Wanted) {
        let Some(seen) = self.look(wanted) else { return };
        if seen.referenced || seen.locked {
            return;
        }
        if !seen.dirty {
            self.give_up(wanted);
            self.done.given_up += 1;
        }
    }

    /// Clears the accessed bits of all entries and returns what they said; `None`
    /// if not all were found.
    fn look(&mut self, wanted: &Wanted) -> Option<Seen> {
        let Memory { machine, frames, .. } = self.memory;
        let mut seen = Seen::default();
        let found = self.search.for_each(wanted, &mut |space, mapping| {
            let entry = mapping.entry;
            seen.dirty |= entry.has(EntryFlags::DIRTY);
            seen.locked |= mapping.area.flags.contains(AreaFlags::LOCKED);
            if entry.has(EntryFlags::ACCESSED) {
                seen.referenced = true;
                mapping.replace(machine, space, entry.without(EntryFlags::ACCESSED));
            }
        });
        seen.dirty |= frames.hold().is_dirty(wanted.frame);
        (found == wanted.mappers).then_some(seen)
    }

    /// Drops anonymous memory that nobody wants any more: it reads as zeros.
    fn give_up(&mut self, wanted: &Wanted) {
        let Memory { machine, frames, .. } = self.memory;
        self.search.for_each(wanted, &mut |space, mapping| {
            mapping.replace(machine, space, Entry::EMPTY);
            space.note_peak();
            space.resident.anonymous -= 1;
            frames.release(machine, wanted.frame);
        });
    }
}
