//! madvise: what a program says about its use of memory.

use core::ops::Range;
use core::sync::atomic::Ordering;

use pagelab_abi::addr::GuestVirt;
use pagelab_paging::{Entry, EntryFlags};

use crate::area::{Area, AreaFlags};
use crate::error::{FaultError, MmError};
use crate::live::{self, Edits};
use crate::machine::Machine;
use crate::memory::Memory;
use crate::modify::Holes;
use crate::object::{ObjectId, ObjectKind};
use crate::populate::{Populate, Stopped};
use crate::space::{AddressSpace, page_round_up};
use crate::table;

/// Linux's `MADV_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// These flags are set and those cleared.
    Flags {
        /// To set.
        set: AreaFlags,
        /// To clear.
        clear: AreaFlags,
    },
    /// `MADV_WILLNEED`.
    WillNeed,
    /// `MADV_DONTNEED`; also for locked memory with `MADV_DONTNEED_LOCKED`.
    DontNeed {
        /// Locked memory too.
        locked: bool,
    },
    /// `MADV_FREE`.
    Free,
    /// `MADV_REMOVE`.
    Remove,
    /// `MADV_WIPEONFORK`.
    WipeOnFork,
    /// `MADV_COLD`, and the first half of `MADV_PAGEOUT` (see `page_out`).
    Cold,
    /// `MADV_POPULATE_READ`.
    PopulateRead,
    /// `MADV_POPULATE_WRITE`.
    PopulateWrite,
}

impl Advice {
    /// From Linux's number. Equal pages are not merged here: `MADV_MERGEABLE`
    /// and its opposite are unknown, as to a Linux that is built so.
    #[must_use]
    pub const fn from_linux(number: u32) -> Option<Self> {
        type Flags = AreaFlags;
        const NONE: AreaFlags = Flags::empty();
        const READING: AreaFlags = Flags::RANDOM.union(Flags::SEQUENTIAL);
        let (set, clear) = match number {
            0 => (NONE, READING),
            1 => (Flags::RANDOM, Flags::SEQUENTIAL),
            2 => (Flags::SEQUENTIAL, Flags::RANDOM),
            10 => (Flags::DONT_FORK, NONE),
            11 => (NONE, Flags::DONT_FORK),
            14 => (Flags::HUGE_PAGE, Flags::NO_HUGE_PAGE),
            15 => (Flags::NO_HUGE_PAGE, Flags::HUGE_PAGE),
            16 => (Flags::DONT_DUMP, NONE),
            17 => (NONE, Flags::DONT_DUMP),
            19 => (NONE, Flags::WIPE_ON_FORK),
            3 => return Some(Self::WillNeed),
            4 => return Some(Self::DontNeed { locked: false }),
            8 => return Some(Self::Free),
            9 => return Some(Self::Remove),
            18 => return Some(Self::WipeOnFork),
            20 | 21 => return Some(Self::Cold),
            22 => return Some(Self::PopulateRead),
            23 => return Some(Self::PopulateWrite),
            24 => return Some(Self::DontNeed { locked: true }),
            _ => return None,
        };
        Some(Self::Flags { set, clear })
    }
}

impl AddressSpace {
    /// Takes advice about a range; `advice` is Linux's number.
    ///
    /// # Errors
    ///
    /// `Invalid` (unaligned, unknown, not for such memory), `NotMapped` (a hole;
    /// the rest is done), `AccessDenied`, `NotSupported` (`MADV_REMOVE`),
    /// `NoBacking` (populating), `NeedsPage`: bring it in and call again.
    pub fn madvise<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        address: GuestVirt,
        length: u64,
        advice: u32,
    ) -> Result<(), MmError> {
        let advice = Advice::from_linux(advice).ok_or(MmError::Invalid)?;
        if !address.is_page_aligned() {
            return Err(MmError::Invalid);
        }
        let length = page_round_up(length).ok_or(MmError::Invalid)?;
        let end = address.checked_add(length).ok_or(MmError::Invalid)?;
        if address == end {
            return Ok(());
        }
        match advice {
            Advice::PopulateRead => self.advise_populate(memory, address, end, Populate::Read),
            Advice::PopulateWrite => self.advise_populate(memory, address, end, Populate::Write),
            _ => {
                self.note_peak();
                self.check_splits(address, end)?;
                self.modify_areas(memory, address, end, Holes::PassOver, |space, part| {
                    space.advise_part(memory, part, advice)
                })
            }
        }
    }

    fn advise_populate<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        start: GuestVirt,
        end: GuestVirt,
        how: Populate,
    ) -> Result<(), MmError> {
        self.populate(memory, start, end, how, false).map_err(|Stopped { error, .. }| match error {
            FaultError::NeedsPage(page) => MmError::NeedsPage(page),
            FaultError::NoMapping => MmError::NotMapped,
            FaultError::Forbidden => MmError::Invalid,
            FaultError::NoBacking => MmError::NoBacking,
            FaultError::OutOfMemory => MmError::OutOfMemory,
        })
    }

    fn advise_part<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        part: &Area,
        advice: Advice,
    ) -> Result<Area, MmError> {
        let locked = part.flags.contains(AreaFlags::LOCKED);
        let flags = match advice {
            Advice::Flags { set, clear } => (part.flags - clear) | set,
            Advice::WipeOnFork if part.is_anonymous() && part.is_private() => {
                part.flags | AreaFlags::WIPE_ON_FORK
            }
            Advice::DontNeed { locked: too } if too || !locked => {
                let mut edits = Edits::new(&memory.machine, self.root);
                self.unmap_pages(memory, &mut edits, part, part.start, part.end);
                part.flags
            }
            Advice::Free if !locked && part.is_anonymous() => {
                // Clean, also when shared after fork, as on Linux: when memory runs
                // short, a clean anonymous page may be dropped. A write makes it
                // dirty again.
                self.free_swapped(memory, part);
                self.clear_bits(memory, part, EntryFlags::ACCESSED | EntryFlags::DIRTY);
                part.flags
            }
            Advice::Cold if !locked => {
                self.clear_bits(memory, part, EntryFlags::ACCESSED);
                part.flags
            }
            Advice::Remove => {
                self.advise_remove(memory, part)?;
                part.flags
            }
            Advice::WillNeed | Advice::PopulateRead | Advice::PopulateWrite => part.flags,
            Advice::WipeOnFork | Advice::DontNeed { .. } | Advice::Free | Advice::Cold => {
                return Err(MmError::Invalid);
            }
        };
        Ok(Area { flags, ..*part })
    }

    /// Pages in swap are given up at once, and those that came back from there are
    /// as clean as their entries say.
    fn free_swapped<M: Machine>(&mut self, memory: &Memory<M>, part: &Area) {
        let machine = &memory.machine;
        memory.given_up.store(true, Ordering::Relaxed);
        let mut freed = 0;
        table::for_each(machine, self.root, part.start, part.end, |span| {
            for index in span.first..span.end {
                let entry = machine.read_entry(span.table, index);
                if let Some(slot) = entry.swap_slot() {
                    live::fill(machine, (span.table, index), Entry::EMPTY);
                    memory.release_slot(slot);
                    freed += 1;
                } else if entry.is_present() {
                    let mut held = memory.frames.hold();
                    if held.count(entry.frame()) == 1 {
                        held.set_dirty(entry.frame(), false);
                    }
                }
            }
            true
        });
        self.swapped -= freed;
    }

    /// Takes these bits from all entries of an area's part but those of the zero
    /// page, which has no state.
    fn clear_bits<M: Machine>(&self, memory: &Memory<M>, part: &Area, bits: EntryFlags) {
        let machine = &memory.machine;
        let mut edits = Edits::new(machine, self.root);
        table::for_each(machine, self.root, part.start, part.end, |span| {
            for index in span.first..span.end {
                let entry = machine.read_entry(span.table, index);
                let counts = entry.is_present() && !entry.has(EntryFlags::SPECIAL);
                if counts && entry.flags().intersects(bits) {
                    let page = span.address_of(index);
                    edits.replace(span.table, index, page, entry.without(bits));
                }
            }
            true
        });
    }

    /// The pages that `MADV_REMOVE` of a range takes out of objects, up to where it
    /// would fail. On Linux they are gone from every address space, so a kernel
    /// calls [`AddressSpace::unmap_object`] for all of those first: a page that
    /// is still mapped stays, as zeros.
    pub fn removed_by_advice<M: Machine>(
        &self,
        memory: &Memory<M>,
        start: GuestVirt,
        length: u64,
    ) -> impl Iterator<Item = (ObjectId, Range<u64>)> {
        let end = page_round_up(length).and_then(|length| start.checked_add(length));
        let end = end.filter(|_| start.is_page_aligned()).unwrap_or(start);
        let areas = self.areas.overlapping(start, end).take_while(move |_| start < end);
        let parts = areas.map(move |area| {
            let first = area.index_of(area.start.max(start));
            (removable(memory, area), first..area.index_of(area.end.min(end)))
        });
        parts.map_while(|(object, pages)| Some((object.ok()?, pages)))
    }

    /// Takes pages out of the object behind a shared mapping, see
    /// [`AddressSpace::removed_by_advice`].
    fn advise_remove<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        part: &Area,
    ) -> Result<(), MmError> {
        let object = removable(memory, part)?;
        let mut edits = Edits::new(&memory.machine, self.root);
        self.unmap_pages(memory, &mut edits, part, part.start, part.end);
        drop(edits);
        remove_pages(memory, object, part.offset, part.index_of(part.end));
        Ok(())
    }
}

/// The object that pages of an area may be taken out of.
fn removable<M: Machine>(memory: &Memory<M>, area: &Area) -> Result<ObjectId, MmError> {
    if area.flags.contains(AreaFlags::LOCKED) {
        return Err(MmError::Invalid);
    }
    let object = area.object().ok_or(MmError::Invalid)?;
    if area.is_private() || !area.flags.contains(AreaFlags::MAY_WRITE) {
        return Err(MmError::AccessDenied);
    }
    if memory.objects.kind(object) != ObjectKind::SharedMemory {
        return Err(MmError::NotSupported);
    }
    Ok(object)
}

/// Makes pages of an object zero: those that nobody maps by taking them out,
/// others where they are, because their mappers are not known here.
fn remove_pages<M: Machine>(memory: &Memory<M>, object: ObjectId, first: u64, end: u64) {
    memory.drop_slots(object, first..end);
    let (machine, frames) = (&memory.machine, &memory.frames);
    let mut at = first;
    loop {
        let mut found = None;
        memory.objects.for_each_page(machine, object, at..end, |index, frame| {
            found = Some((index, frame));
            false
        });
        let Some((index, frame)) = found else { return };
        if frames.count(frame) > 1 {
            machine.zero_frame(frame);
        } else if let Some(frame) = memory.objects.remove(machine, frames, object, index) {
            frames.release(machine, frame);
        }
        at = index + 1;
    }
}
