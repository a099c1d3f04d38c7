//! mprotect: what a program may do with memory it has.

use pagelab_abi::addr::{GuestVirt, PAGE_SHIFT};
use pagelab_paging::{Entry, EntryFlags};

use crate::area::{Area, AreaFlags, Protection};
use crate::error::MmError;
use crate::live::Edits;
use crate::machine::Machine;
use crate::memory::Memory;
use crate::modify::Holes;
use crate::populate::Populate;
use crate::space::{AddressSpace, page_round_up};
use crate::table;

/// `PROT_SEM`, which means nothing.
const SEMAPHORE: u32 = 0x8;
/// `PROT_GROWSDOWN`: from the start of the area on.
const GROWS_DOWN: u32 = 0x0100_0000;
/// `PROT_GROWSUP`: there are no such areas here.
const GROWS_UP: u32 = 0x0200_0000;

impl Protection {
    /// From `PROT_*` bits; unknown ones mean nothing, as for Linux's `mmap`.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "masked")]
    pub const fn from_linux(bits: u32) -> Self {
        Self::from_bits_truncate((bits & 0xff) as u8)
    }
}

impl AddressSpace {
    /// Sets what the program may do with a range; `protection` is `PROT_*` bits.
    ///
    /// # Errors
    ///
    /// `Invalid` (unaligned, unknown bits), `NotMapped` (a hole: what comes
    /// before it is changed), `AccessDenied` (write to a shared object that was
    /// opened for reading), `Overcommit`, `OverLimit`, `TooManyAreas`.
    pub fn mprotect<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        address: GuestVirt,
        length: u64,
        protection: u32,
    ) -> Result<(), MmError> {
        let known = u32::from(Protection::all().bits()) | SEMAPHORE | GROWS_DOWN | GROWS_UP;
        let grows = protection & (GROWS_DOWN | GROWS_UP);
        if grows == GROWS_DOWN | GROWS_UP || !address.is_page_aligned() {
            return Err(MmError::Invalid);
        }
        if length == 0 {
            return Ok(());
        }
        let length = page_round_up(length).filter(|&length| length > 0);
        let end = address.checked_add(length.ok_or(MmError::NotMapped)?);
        let end = end.ok_or(MmError::NotMapped)?;
        if protection & !known != 0 {
            return Err(MmError::Invalid);
        }
        let start = self.protect_from(address, end, grows)?;
        self.check_splits(start, end)?;
        let protection = Protection::from_linux(protection);
        let mut at = start;
        while at < end {
            let area = *self.area_at(at).ok_or(MmError::NotMapped)?;
            let stop = area.end.min(end);
            self.modify_areas(memory, at, stop, Holes::Stop, |space, part| {
                space.protect_part(memory, part, protection)
            })?;
            let was_writable = area.protection.contains(Protection::WRITE);
            let locked = area.is_private() && area.flags.contains(AreaFlags::LOCKED);
            if locked && !was_writable && protection.contains(Protection::WRITE) {
                // Written now, not later; protected even if this fails.
                let _ = self.populate(memory, at, stop, Populate::Mapping, false);
            }
            at = stop;
        }
        Ok(())
    }

    fn protect_from(
        &self,
        address: GuestVirt,
        end: GuestVirt,
        grows: u32,
    ) -> Result<GuestVirt, MmError> {
        let place = self.areas.find(address).ok_or(MmError::NotMapped)?;
        let area = self.areas.get(place);
        match grows {
            0 if area.start <= address => Ok(address),
            GROWS_DOWN if area.start < end => {
                if !area.flags.contains(AreaFlags::GROWS_DOWN) {
                    return Err(MmError::WrongArea);
                }
                Ok(area.start)
            }
            GROWS_UP if area.start <= address => Err(MmError::WrongArea),
            _ => Err(MmError::NotMapped),
        }
    }

    fn protect_part<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        part: &Area,
        protection: Protection,
    ) -> Result<Area, MmError> {
        let writes = protection.contains(Protection::WRITE);
        if writes && !part.flags.contains(AreaFlags::MAY_WRITE) {
            return Err(MmError::AccessDenied);
        }
        if protection == part.protection {
            return Ok(*part);
        }
        let mut new = Area { protection, ..*part };
        let pages = part.pages();
        if writes {
            let data = self.sizes.data + pages;
            if new.is_data() && !part.is_data() && data > self.limits.data >> PAGE_SHIFT {
                return Err(MmError::OverLimit);
            }
            let free_of_promise = AreaFlags::ACCOUNTED | AreaFlags::SHARED | AreaFlags::NO_RESERVE;
            let was_writable = part.protection.contains(Protection::WRITE);
            if !was_writable && !part.flags.intersects(free_of_promise) {
                memory.promise(pages, self.sizes.total)?;
                new.flags |= AreaFlags::ACCOUNTED;
            }
        } else if part.flags.contains(AreaFlags::ACCOUNTED)
            && part.is_anonymous()
            && part.family == 0
        {
            // Nothing was ever written there and nothing can be now.
            memory.commit.take_back(pages);
            new.flags -= AreaFlags::ACCOUNTED;
        }
        self.protect_pages(memory, &new);
        Ok(new)
    }

    /// Gives the pages of an area the rights that the area has now.
    fn protect_pages<M: Machine>(&self, memory: &Memory<M>, area: &Area) {
        let machine = &memory.machine;
        let mut edits = Edits::new(machine, self.root);
        let rights = Rights::of(area);
        table::for_each(machine, self.root, area.start, area.end, |span| {
            for index in span.first..span.end {
                let entry = machine.read_entry(span.table, index);
                if !entry.is_present() {
                    continue;
                }
                let new = rights.apply(entry);
                if new != entry {
                    edits.replace(span.table, index, span.address_of(index), new);
                }
            }
            true
        });
    }
}

/// The rights that entries of an area get, worked out once.
struct Rights {
    keep: u64,
    set: u64,
    /// Bits that an entry must have to become writable ...
    if_all: EntryFlags,
    /// ... and must not have; `None`: it must not be writable.
    if_none: Option<EntryFlags>,
}

impl Rights {
    fn of(area: &Area) -> Self {
        let changed = EntryFlags::USER | EntryFlags::NO_EXECUTE | EntryFlags::WRITABLE;
        let writable = area.protection.contains(Protection::WRITE);
        let mut if_all = EntryFlags::empty();
        let mut if_none = EntryFlags::empty();
        if area.is_private() {
            // Ours alone; everything else faults first.
            if_none = EntryFlags::COPY_ON_WRITE | EntryFlags::SPECIAL;
        } else if area.flags.contains(AreaFlags::NOTIFY_WRITE) {
            if_all |= EntryFlags::DIRTY;
        }
        if !area.flags.contains(AreaFlags::SOFT_DIRTY) {
            if_all |= EntryFlags::SOFT_DIRTY;
        }
        Self {
            keep: !changed.bits(),
            set: area.entry_flags().bits(),
            if_all,
            if_none: writable.then_some(if_none),
        }
    }

    #[inline]
    fn apply(&self, entry: Entry) -> Entry {
        let new = Entry((entry.0 & self.keep) | self.set);
        match self.if_none {
            Some(not) if entry.has(self.if_all) && !entry.flags().intersects(not) => {
                new.with(EntryFlags::WRITABLE)
            }
            Some(_) if entry.has(EntryFlags::WRITABLE) => new.with(EntryFlags::WRITABLE),
            _ => new,
        }
    }
}
