//! One area of an address space: a range of pages mapped in one way (Linux: a
//! VMA), and when two of them are really one.

use bitflags::bitflags;
use pagelab_abi::addr::{GuestVirt, PAGE_SHIFT, PAGE_SIZE};
use pagelab_abi::directory;
use pagelab_paging::EntryFlags;

use crate::object::ObjectId;

bitflags! {
    /// What a program may do with memory: Linux's `PROT_*`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    #[repr(transparent)]
    pub struct Protection: u8 {
        /// Read.
        const READ = 1;
        /// Write (and read: the processor cannot tell them apart).
        const WRITE = 2;
        /// Execute (and read).
        const EXECUTE = 4;
    }
}

bitflags! {
    /// Properties of an area.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    #[repr(transparent)]
    pub struct AreaFlags: u32 {
        /// Writes are seen by all who map the object.
        const SHARED = 1 << 0;
        /// Grows down on faults below it.
        const GROWS_DOWN = 1 << 1;
        /// Not accounted for overcommit.
        const NO_RESERVE = 1 << 2;
        /// Counted as promised memory (Linux: `VM_ACCOUNT`).
        const ACCOUNTED = 1 << 3;
        /// Pages stay resident.
        const LOCKED = 1 << 4;
        /// With `LOCKED`: only pages that are touched, as they are touched.
        const LOCK_ON_FAULT = 1 << 5;
        /// Not in the child after fork.
        const DONT_FORK = 1 << 6;
        /// Empty in the child after fork.
        const WIPE_ON_FORK = 1 << 7;
        /// Not in core dumps.
        const DONT_DUMP = 1 << 8;
        /// Read ahead of sequential access.
        const SEQUENTIAL = 1 << 9;
        /// No read-ahead.
        const RANDOM = 1 << 10;
        /// Large pages wanted.
        const HUGE_PAGE = 1 << 11;
        /// Large pages not wanted.
        const NO_HUGE_PAGE = 1 << 12;
        /// `mprotect` may allow writing: not for shared maps of objects that
        /// were opened for reading.
        const MAY_WRITE = 1 << 14;
        /// The object's pages are told of their first write.
        const NOTIFY_WRITE = 1 << 15;
        /// Pages of this area came by fork, so it merges with no new area.
        const INHERITED = 1 << 16;
        /// New pages count as soft-dirty by themselves (Linux: `VM_SOFTDIRTY`).
        const SOFT_DIRTY = 1 << 17;
        /// The stack that exec made: `[stack]` in maps.
        const STACK = 1 << 18;
        /// Never swapped nor counted with the object (kernel-provided pages).
        const SPECIAL = 1 << 19;
        /// The object is shared memory rather than a file.
        const SHARED_MEMORY = 1 << 20;
    }
}

impl AreaFlags {
    /// Flags that two areas may differ in and still be one.
    const IGNORED_IN_MERGE: Self = Self::INHERITED.union(Self::SOFT_DIRTY).union(Self::STACK);
}

/// What the pages of an area are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Backing {
    /// Private zeros.
    Anonymous = directory::BACKING_ANONYMOUS,
    /// Pages of an object; [`Area::offset`] says from which on.
    Object(ObjectId) = directory::BACKING_OBJECT,
}

/// A range of pages that are mapped in one way. The host reads it as it is
/// (`pagelab_abi::directory`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Area {
    /// First byte.
    pub start: GuestVirt,
    /// The byte after the last.
    pub end: GuestVirt,
    /// Page number in the object of the first page. Anonymous memory counts
    /// from address 0 of where it was when its first page came to be, so that
    /// only pieces of one mapping have matching offsets.
    pub offset: u64,
    /// What the pages are.
    pub backing: Backing,
    /// 0 until the area has an anonymous page; then areas whose pages may be
    /// managed together have the same number (Linux: `anon_vma`).
    pub family: u32,
    /// Everything else.
    pub flags: AreaFlags,
    /// What the program may do.
    pub protection: Protection,
}

const _: () = {
    use core::mem::offset_of;

    use directory::{AreaRecord, area};
    assert!(size_of::<Area>() == size_of::<AreaRecord>());
    assert!(offset_of!(Area, start) == offset_of!(AreaRecord, start));
    assert!(offset_of!(Area, end) == offset_of!(AreaRecord, end));
    assert!(offset_of!(Area, offset) == offset_of!(AreaRecord, offset));
    assert!(offset_of!(Area, backing) == offset_of!(AreaRecord, backing));
    assert!(offset_of!(Area, family) == offset_of!(AreaRecord, family));
    assert!(offset_of!(Area, flags) == offset_of!(AreaRecord, flags));
    assert!(offset_of!(Area, protection) == offset_of!(AreaRecord, protection));
    assert!(Protection::READ.bits() == directory::PROTECTION_READ);
    assert!(Protection::WRITE.bits() == directory::PROTECTION_WRITE);
    assert!(Protection::EXECUTE.bits() == directory::PROTECTION_EXECUTE);
    assert!(AreaFlags::SHARED.bits() == area::SHARED);
    assert!(AreaFlags::GROWS_DOWN.bits() == area::GROWS_DOWN);
    assert!(AreaFlags::NO_RESERVE.bits() == area::NO_RESERVE);
    assert!(AreaFlags::ACCOUNTED.bits() == area::ACCOUNTED);
    assert!(AreaFlags::LOCKED.bits() == area::LOCKED);
    assert!(AreaFlags::LOCK_ON_FAULT.bits() == area::LOCK_ON_FAULT);
    assert!(AreaFlags::DONT_FORK.bits() == area::DONT_FORK);
    assert!(AreaFlags::WIPE_ON_FORK.bits() == area::WIPE_ON_FORK);
    assert!(AreaFlags::DONT_DUMP.bits() == area::DONT_DUMP);
    assert!(AreaFlags::SEQUENTIAL.bits() == area::SEQUENTIAL);
    assert!(AreaFlags::RANDOM.bits() == area::RANDOM);
    assert!(AreaFlags::HUGE_PAGE.bits() == area::HUGE_PAGE);
    assert!(AreaFlags::NO_HUGE_PAGE.bits() == area::NO_HUGE_PAGE);
    assert!(AreaFlags::MAY_WRITE.bits() == area::MAY_WRITE);
    assert!(AreaFlags::SOFT_DIRTY.bits() == area::SOFT_DIRTY);
    assert!(AreaFlags::STACK.bits() == area::STACK);
    assert!(AreaFlags::SHARED_MEMORY.bits() == area::SHARED_MEMORY);
};

/// Pages kept free below an area that grows down.
pub const STACK_GUARD_PAGES: u64 = 256;

impl Area {
    /// Length in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.end.0 - self.start.0
    }

    /// Length in pages.
    #[must_use]
    pub const fn pages(&self) -> u64 {
        self.size() >> PAGE_SHIFT
    }

    /// Whether the address lies in the area.
    #[must_use]
    pub const fn contains(&self, address: GuestVirt) -> bool {
        self.start.0 <= address.0 && address.0 < self.end.0
    }

    /// Whether the area is private: writes are its own.
    #[must_use]
    pub const fn is_private(&self) -> bool {
        !self.flags.contains(AreaFlags::SHARED)
    }

    /// Whether it maps no object.
    #[must_use]
    pub const fn is_anonymous(&self) -> bool {
        matches!(self.backing, Backing::Anonymous)
    }

    /// The object that it maps.
    #[must_use]
    pub const fn object(&self) -> Option<ObjectId> {
        match self.backing {
            Backing::Anonymous => None,
            Backing::Object(object) => Some(object),
        }
    }

    /// Whether pages of the area are private, writable and promised: what the
    /// overcommit rules and `RLIMIT_DATA` count.
    #[must_use]
    pub fn is_data(&self) -> bool {
        self.protection.contains(Protection::WRITE)
            && !self.flags.intersects(AreaFlags::SHARED | AreaFlags::GROWS_DOWN)
    }

    /// Number in the object of the page at `address`.
    #[must_use]
    pub const fn index_of(&self, address: GuestVirt) -> u64 {
        self.offset + ((address.0 - self.start.0) >> PAGE_SHIFT)
    }

    /// First byte, with the guard gap of an area that grows down.
    #[must_use]
    pub const fn guarded_start(&self) -> GuestVirt {
        if self.flags.contains(AreaFlags::GROWS_DOWN) {
            GuestVirt(self.start.0.saturating_sub(STACK_GUARD_PAGES * PAGE_SIZE))
        } else {
            self.start
        }
    }

    /// Bits of an entry of this area, `WRITABLE` left out: who may set that
    /// depends on the page.
    #[must_use]
    pub fn entry_flags(&self) -> EntryFlags {
        let mut flags = EntryFlags::PRESENT;
        // An inaccessible page keeps its frame; only ring 3 cannot see it.
        flags.set(EntryFlags::USER, !self.protection.is_empty());
        flags.set(EntryFlags::NO_EXECUTE, !self.protection.contains(Protection::EXECUTE));
        flags
    }

    /// Whether an entry of this area may be writable from the start when its
    /// page belongs to an object.
    #[must_use]
    pub fn maps_writable(&self) -> bool {
        self.protection.contains(Protection::WRITE)
            && self.flags.contains(AreaFlags::SHARED | AreaFlags::SOFT_DIRTY)
            && !self.flags.contains(AreaFlags::NOTIFY_WRITE)
    }

    /// The two parts left and right of `at`, which lies inside.
    #[must_use]
    pub const fn split(self, at: GuestVirt) -> (Self, Self) {
        let mut left = self;
        let mut right = self;
        left.end = at;
        right.start = at;
        right.offset = self.index_of(at);
        (left, right)
    }

    /// Whether `next`, which starts where this ends, is more of the same.
    #[must_use]
    pub fn continues_with(&self, next: &Self) -> bool {
        let ignored = AreaFlags::IGNORED_IN_MERGE;
        self.end == next.start
            && self.protection == next.protection
            && self.backing == next.backing
            && self.flags.union(ignored) == next.flags.union(ignored)
            && self.index_of(self.end) == next.offset
            && self.families_match(next)
    }

    fn families_match(&self, other: &Self) -> bool {
        let inherited = (self.flags | other.flags).contains(AreaFlags::INHERITED);
        self.family == other.family || ((self.family == 0 || other.family == 0) && !inherited)
    }

    /// This area with `next`, which continues it.
    #[must_use]
    pub fn joined(mut self, next: &Self) -> Self {
        self.end = next.end;
        self.family = self.family.max(next.family);
        self.flags |= next.flags & AreaFlags::IGNORED_IN_MERGE;
        self
    }
}
