//! Taking pages of files many at a time.
//!
//! A file that is read or written in order has its pages in frames that mostly
//! follow each other, and is mapped in order as well. So what the hand of
//! [`crate::reclaim`] comes upon is looked at a run at a time: one search for the
//! areas that show it, one walk to a page table, one flush. What is done to each
//! page is what would be done to it alone.

use pagelab_paging::{Entry, EntryFlags};

use crate::area::AreaFlags;
use crate::frames::{Candidate, FrameRun};
use crate::live::FLUSH_PAGES;
use crate::machine::Machine;
use crate::memory::Memory;
use crate::object::{ObjectId, Store};
use crate::owner::Owner;
use crate::reclaim::{Pager, Sweep};

/// Entries of one table of an object's index.
const TABLE: u64 = 512;

/// What became of the mappings of a run: a bit for each frame.
#[derive(Default)]
struct Unmapped {
    /// Nobody maps it any more. The entry's share of it is still to be given up,
    /// but where it is dirty.
    taken: u64,
    /// An entry was found that maps it.
    found: u64,
    /// Of those, it has to be written first.
    dirty: u64,
}

impl<M: Machine, P: Pager + ?Sized> Sweep<'_, M, P> {
    /// Takes what was not used of the run of a file's pages that begins with a
    /// frame, `most` frames of it at most. Returns how many frames were looked at:
    /// none if it is no such run, or one that is mapped more than once. A run of
    /// pages that can go nowhere is only passed over.
    pub(crate) fn take_run(&mut self, first: &Candidate, most: u64) -> usize {
        let owner = Owner::decode(first.usage, first.owner);
        let Owner::Page { object, index } = owner else { return 0 };
        // Its object and one mapping.
        const OWNERS: u32 = 2;
        if first.count > OWNERS {
            return 0;
        }
        let store = self.memory.objects.store_of(object);
        let can_go = match store {
            Store::Own => true,
            Store::Swap if self.memory.swap.has_room() => return 0,
            Store::Swap | Store::Nowhere => false,
        };
        let most = if can_go { most } else { u64::MAX };
        let most = usize::try_from(most.min(TABLE - index % TABLE)).unwrap_or(1);
        let run = self.memory.frames.hold().run_from(*first, most);
        if !can_go {
            // Passed over all at once, as nothing can be done with them.
            return run.length;
        }
        if run.length == 1 {
            return 0;
        }
        if first.referenced {
            self.pass_over(&run, (object, index));
            return run.length;
        }
        let unmapped = match first.count {
            OWNERS => self.unmap_run(&run, (object, index)),
            _ if first.dirty => Unmapped { taken: run.all(), dirty: run.all(), found: 0 },
            _ => Unmapped { taken: run.all(), ..Unmapped::default() },
        };
        if unmapped.taken != 0 {
            self.drop_run(&run, (object, index), &unmapped);
        }
        run.length
    }

    /// A run that was used other than through entries: it has its second chance.
    fn pass_over(&mut self, run: &FrameRun, place: (ObjectId, u64)) {
        {
            let mut held = self.memory.frames.hold();
            run.frames().for_each(|(_, frame)| held.set_referenced(frame, false));
        }
        if run.first.count > 1 {
            let count = run.length as u64;
            self.search.for_each_of_run(place, count, &mut |_, edits, shown| {
                for (slot, place) in (shown.span.first..shown.span.end).zip(shown.place..) {
                    let entry = edits.machine().read_entry(shown.span.table, slot);
                    if run.is_shown_by(entry, place)
                        && entry.has(EntryFlags::ACCESSED)
                        && !shown.flags.contains(AreaFlags::LOCKED)
                    {
                        let entry = entry.without(EntryFlags::ACCESSED);
                        edits.replace(shown.span.table, slot, shown.span.address_of(slot), entry);
                    }
                }
                true
            });
        }
    }

    /// Unmaps what was not used of a run, each frame of which is mapped once.
    fn unmap_run(&mut self, run: &FrameRun, place: (ObjectId, u64)) -> Unmapped {
        let frames = self.memory.frames;
        let mut all = Unmapped::default();
        self.search.for_each_of_run(place, run.length as u64, &mut |space, edits, shown| {
            let mut count = 0;
            let flushes_all = shown.span.end - shown.span.first > FLUSH_PAGES;
            for (slot, place) in (shown.span.first..shown.span.end).zip(shown.place..) {
                let entry = edits.machine().read_entry(shown.span.table, slot);
                if !run.is_shown_by(entry, place) {
                    continue;
                }
                let bit = 1 << place;
                all.found |= bit;
                if shown.flags.contains(AreaFlags::LOCKED) {
                    continue;
                }
                let new = if entry.has(EntryFlags::ACCESSED) {
                    entry.without(EntryFlags::ACCESSED)
                } else {
                    if entry.has(EntryFlags::DIRTY) {
                        all.dirty |= bit;
                    }
                    all.taken |= bit;
                    count += 1;
                    Entry::EMPTY
                };
                if flushes_all {
                    edits.replace_among_many(shown.span.table, slot, new);
                } else {
                    edits.replace(shown.span.table, slot, shown.span.address_of(slot), new);
                }
            }
            if count > 0 {
                space.note_peak();
                *space.resident_of(false, shown.flags) -= count;
            }
            all.found != run.all()
        });
        if all.taken == 0 {
            return all;
        }
        let mut held = frames.hold();
        if run.first.dirty {
            all.dirty = all.taken;
        } else if all.dirty != 0 {
            let dirty = run.frames().filter(|(place, _)| all.dirty >> place & 1 != 0);
            dirty.for_each(|(_, frame)| held.set_dirty(frame, true));
        }
        if all.dirty != 0 {
            held.unshare_run(run, all.dirty);
        }
        all
    }

    /// Drops frames of a run that nobody maps any more: those that are clean, and
    /// once they are written those that are dirty.
    fn drop_run(&mut self, run: &FrameRun, (object, index): (ObjectId, u64), unmapped: &Unmapped) {
        let Memory { machine, frames, objects, .. } = self.memory;
        let clean = unmapped.taken & !unmapped.dirty;
        if clean != 0 {
            // The entries' shares go with that of the object.
            let bits = (run, clean, run.first.count);
            self.done.clean += objects.drop_clean_run(machine, frames, (object, index), bits);
        }
        let dirty = unmapped.dirty;
        let mut left = dirty;
        while left != 0 {
            let place = left.trailing_zeros();
            if !self.pager.write_back(object, index + u64::from(place)) {
                // The others would fare no better.
                return;
            }
            // What is clean by now was written with it.
            let still = frames.hold().dirty_of_run(run, left) & !(1 << place);
            let written = left & !still;
            let bits = (run, written, 1);
            self.done.written += objects.drop_clean_run(machine, frames, (object, index), bits);
            left = still;
        }
    }
}

impl FrameRun {
    /// Whether an entry shows the frame at a place of the run.
    fn is_shown_by(&self, entry: Entry, place: usize) -> bool {
        entry.is_present() && entry.frame().index() == self.first.frame.index() + place
    }
}
