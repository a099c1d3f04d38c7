//! madvise: what a program says about its use of memory.

use pagelab_abi::addr::GuestVirt;
use pagelab_paging::EntryFlags;

use crate::area::{Area, AreaFlags};
use crate::error::{FaultError, MmError};
use crate::frames::Use;
use crate::live::Edits;
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
    /// `MADV_COLD` and `MADV_PAGEOUT`.
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
                self.mark_free(memory, part);
                part.flags
            }
            Advice::Cold if !locked => {
                self.mark_cold(memory, part);
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

    /// Pages of our own become clean: when memory runs short, a clean anonymous
    /// page may be dropped instead of being kept. A write makes it dirty again.
    fn mark_free<M: Machine>(&self, memory: &Memory<M>, part: &Area) {
        let machine = &memory.machine;
        let mut edits = Edits::new(machine, self.root);
        let used = EntryFlags::ACCESSED | EntryFlags::DIRTY;
        table::for_each(machine, self.root, part.start, part.end, |span| {
            let held = memory.frames.hold();
            for index in span.first..span.end {
                let entry = machine.read_entry(span.table, index);
                let ours = entry.is_present()
                    && !entry.has(EntryFlags::SPECIAL)
                    && entry.flags().intersects(used)
                    && held.use_of(entry.frame()) == Use::Anonymous
                    && held.count(entry.frame()) == 1;
                if ours {
                    let page = span.address_of(index);
                    edits.replace(span.table, index, page, entry.without(used));
                }
            }
            true
        });
    }

    /// Pages count as not accessed.
    fn mark_cold<M: Machine>(&self, memory: &Memory<M>, part: &Area) {
        let machine = &memory.machine;
        let mut edits = Edits::new(machine, self.root);
        table::for_each(machine, self.root, part.start, part.end, |span| {
            for index in span.first..span.end {
                let entry = machine.read_entry(span.table, index);
                if entry.has(EntryFlags::PRESENT | EntryFlags::ACCESSED) {
                    let page = span.address_of(index);
                    let cold = entry.without(EntryFlags::ACCESSED);
                    edits.replace(span.table, index, page, cold);
                }
            }
            true
        });
    }

    /// Takes pages out of the object behind a shared mapping. A kernel that wants
    /// them gone from other address spaces too, as on Linux, calls
    /// [`AddressSpace::unmap_object`] for those first: a page that is still
    /// mapped stays, as zeros.
    fn advise_remove<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        part: &Area,
    ) -> Result<(), MmError> {
        if part.flags.contains(AreaFlags::LOCKED) {
            return Err(MmError::Invalid);
        }
        let object = part.object().ok_or(MmError::Invalid)?;
        if part.is_private() || !part.flags.contains(AreaFlags::MAY_WRITE) {
            return Err(MmError::AccessDenied);
        }
        if memory.objects.kind(object) != ObjectKind::SharedMemory {
            return Err(MmError::NotSupported);
        }
        let mut edits = Edits::new(&memory.machine, self.root);
        self.unmap_pages(memory, &mut edits, part, part.start, part.end);
        drop(edits);
        remove_pages(memory, object, part.offset, part.index_of(part.end));
        Ok(())
    }
}

/// Makes pages of an object zero: those that nobody maps by taking them out,
/// others where they are, because their mappers are not known here.
fn remove_pages<M: Machine>(memory: &Memory<M>, object: ObjectId, first: u64, end: u64) {
    let (machine, frames) = (&memory.machine, &memory.frames);
    let mut at = first;
    loop {
        let mut found = None;
        memory.objects.for_each_page(machine, object, at, |index, frame| {
            found = (index < end).then_some((index, frame));
            false
        });
        let Some((index, frame)) = found else { return };
        if frames.count(frame) > 1 {
            machine.zero_frame(frame);
        } else if let Some(frame) = memory.objects.remove(machine, object, index) {
            frames.release(machine, frame);
        }
        at = index + 1;
    }
}
