//! The bits of a page-table entry and the levels of the tree.

use bitflags::bitflags;
use pagelab_abi::addr::{Frame, GuestPhys, GuestVirt, PAGE_SHIFT};

/// How many entries a table has.
pub const ENTRIES: usize = 512;

bitflags! {
    /// The bits of an entry that are not an address.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct EntryFlags: u64 {
        /// The entry maps something.
        const PRESENT = 1 << 0;
        /// Writes are allowed.
        const WRITABLE = 1 << 1;
        /// Ring 3 has access.
        const USER = 1 << 2;
        /// Write-through caching.
        const WRITE_THROUGH = 1 << 3;
        /// No caching.
        const NO_CACHE = 1 << 4;
        /// Set by the processor when the entry is used.
        const ACCESSED = 1 << 5;
        /// Set by the processor when the page is written.
        const DIRTY = 1 << 6;
        /// The entry maps a large page (levels 2 and 3).
        const HUGE = 1 << 7;
        /// The translation survives a change of CR3.
        const GLOBAL = 1 << 8;
        /// Software: the page was written since the bit was last cleared.
        const SOFT_DIRTY = 1 << 9;
        /// Software: a private page that must not be written in place unless
        /// its frame has no other owner.
        const COPY_ON_WRITE = 1 << 10;
        /// Software: the frame is not counted (the shared zero page).
        const SPECIAL = 1 << 11;
        /// Instructions may not be fetched.
        const NO_EXECUTE = 1 << 63;
    }
}

/// Bits 12 to 51: the physical address in an entry.
pub const ADDRESS_MASK: u64 = 0x000f_ffff_ffff_f000;

/// One entry of a page table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Entry(pub u64);

impl Entry {
    /// An entry that maps nothing.
    pub const EMPTY: Self = Self(0);

    /// An entry for the page or table at `address`.
    #[must_use]
    pub const fn new(address: GuestPhys, flags: EntryFlags) -> Self {
        Self((address.0 & ADDRESS_MASK) | flags.bits())
    }

    /// An entry for a 4 KiB frame.
    #[must_use]
    pub const fn for_frame(frame: Frame, flags: EntryFlags) -> Self {
        Self::new(frame.start(), flags)
    }

    /// An entry that maps nothing, but says which slot of swap holds the page.
    /// The processor looks at no bit of it besides `PRESENT`, which is clear:
    ///
    /// ```text
    /// bits 12 to 51   the slot, never 0
    /// bit   9         SOFT_DIRTY, as it was when the page was mapped
    /// ```
    #[must_use]
    pub const fn for_swap(slot: u64, flags: EntryFlags) -> Self {
        Self((slot << PAGE_SHIFT) & ADDRESS_MASK | flags.bits() & EntryFlags::SOFT_DIRTY.bits())
    }

    /// The slot of swap that holds the page, if the entry says so.
    #[must_use]
    pub const fn swap_slot(self) -> Option<u64> {
        let slot = (self.0 & ADDRESS_MASK) >> PAGE_SHIFT;
        if self.is_present() || slot == 0 { None } else { Some(slot) }
    }

    /// The flags.
    #[must_use]
    pub const fn flags(self) -> EntryFlags {
        EntryFlags::from_bits_truncate(self.0)
    }

    /// The address of the page or table, as for a 4 KiB page.
    #[must_use]
    pub const fn address(self) -> GuestPhys {
        GuestPhys(self.0 & ADDRESS_MASK)
    }

    /// The frame that the entry points to.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "guest memory ends below 16 TiB")]
    pub const fn frame(self) -> Frame {
        Frame((self.address().0 >> PAGE_SHIFT) as u32)
    }

    /// Whether the entry maps something.
    #[must_use]
    pub const fn is_present(self) -> bool {
        self.0 & EntryFlags::PRESENT.bits() != 0
    }

    /// Whether all of `flags` are set.
    #[must_use]
    pub const fn has(self, flags: EntryFlags) -> bool {
        self.0 & flags.bits() == flags.bits()
    }

    /// The same entry with `flags` set.
    #[must_use]
    pub const fn with(self, flags: EntryFlags) -> Self {
        Self(self.0 | flags.bits())
    }

    /// The same entry with `flags` cleared.
    #[must_use]
    pub const fn without(self, flags: EntryFlags) -> Self {
        Self(self.0 & !flags.bits())
    }
}

/// A level of the tree of tables. Level 4 is the root (PML4); entries of level 1
/// map 4 KiB pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Level {
    /// Page table: 4 KiB pages.
    One = 1,
    /// Page directory: tables or 2 MiB pages.
    Two = 2,
    /// Page-directory-pointer table: tables or 1 GiB pages.
    Three = 3,
    /// The root.
    Four = 4,
}

impl Level {
    /// From the root down, in the order of a walk.
    pub const DOWN: [Self; 4] = [Self::Four, Self::Three, Self::Two, Self::One];

    /// The level below.
    #[must_use]
    pub const fn below(self) -> Option<Self> {
        match self {
            Self::One => None,
            Self::Two => Some(Self::One),
            Self::Three => Some(Self::Two),
            Self::Four => Some(Self::Three),
        }
    }

    /// log2 of the bytes that one entry of this level covers.
    #[must_use]
    pub const fn shift(self) -> u32 {
        PAGE_SHIFT + 9 * (self as u32 - 1)
    }

    /// Bytes that one entry of this level covers.
    #[must_use]
    pub const fn entry_size(self) -> u64 {
        1 << self.shift()
    }

    /// Index of `address` in a table of this level.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "masked to nine bits")]
    pub const fn index(self, address: GuestVirt) -> usize {
        ((address.0 >> self.shift()) & (ENTRIES as u64 - 1)) as usize
    }

    /// Whether an entry of this level can map a page by itself.
    #[must_use]
    pub const fn can_be_huge(self) -> bool {
        matches!(self, Self::Two | Self::Three)
    }
}

/// Where entry `index` of the table at `table` lies.
#[must_use]
pub const fn entry_address(table: GuestPhys, index: usize) -> GuestPhys {
    GuestPhys((table.0 & ADDRESS_MASK) + (index as u64 & (ENTRIES as u64 - 1)) * 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_follow_the_manual() {
        let address = GuestVirt(0xffff_ffff_8020_1000);
        assert_eq!(Level::Four.index(address), 511);
        assert_eq!(Level::Three.index(address), 510);
        assert_eq!(Level::Two.index(address), 1);
        assert_eq!(Level::One.index(address), 1);
        assert_eq!(Level::Two.entry_size(), 2 << 20);
    }

    #[test]
    fn an_entry_keeps_address_and_flags_apart() {
        let flags = EntryFlags::PRESENT | EntryFlags::NO_EXECUTE | EntryFlags::SOFT_DIRTY;
        let entry = Entry::for_frame(Frame(0x1234), flags);
        assert_eq!(entry.frame(), Frame(0x1234));
        assert_eq!(entry.flags(), flags);
        assert!(!entry.without(EntryFlags::PRESENT).is_present());
        assert_eq!(entry.swap_slot(), None);
    }

    #[test]
    fn a_swap_entry_keeps_its_slot_and_nothing_that_the_processor_sees() {
        let flags = EntryFlags::PRESENT | EntryFlags::SOFT_DIRTY | EntryFlags::WRITABLE;
        let entry = Entry::for_swap(0x9876_5432, flags);
        assert_eq!(entry.swap_slot(), Some(0x9876_5432));
        assert_eq!(entry.flags(), EntryFlags::SOFT_DIRTY);
        assert_eq!(Entry::EMPTY.swap_slot(), None);
    }
}
