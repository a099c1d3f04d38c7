//! What `/proc/PID/smaps` tells of an area, with Linux's rules.
//!
//! A page that is mapped once is private, one that is mapped more often shared,
//! whatever the mapping was called. A shared page counts for each of its *n*
//! mappings with one *n*-th (its proportional share), in fixed point with
//! [`PSS_SHIFT`] bits. The zero page does not count.

use core::ops::AddAssign;

use pagelab_abi::addr::PAGE_SIZE;
use pagelab_paging::{Entry, EntryFlags};

use crate::area::{Area, AreaFlags, Protection};
use crate::frames::{Held, Use};
use crate::machine::Machine;
use crate::memory::Memory;
use crate::space::AddressSpace;
use crate::table;

/// Bits behind the point of proportional shares.
pub const PSS_SHIFT: u32 = 12;

/// Bytes of an area by what they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AreaStats {
    /// Present: `Rss`.
    pub resident: u64,
    /// Proportional share, in fixed point: `Pss`.
    pub proportional: u64,
    /// The part of it that is dirty: `Pss_Dirty`.
    pub proportional_dirty: u64,
    /// The part of it that is anonymous: `Pss_Anon`.
    pub proportional_anonymous: u64,
    /// The part of it that is pages of files: `Pss_File`.
    pub proportional_file: u64,
    /// The part of it that is shared memory: `Pss_Shmem`.
    pub proportional_shared_memory: u64,
    /// The part of it that is locked: `Locked`.
    pub proportional_locked: u64,
    /// Mapped more than once and not written.
    pub shared_clean: u64,
    /// Mapped more than once and written.
    pub shared_dirty: u64,
    /// Mapped once and not written.
    pub private_clean: u64,
    /// Mapped once and written.
    pub private_dirty: u64,
    /// Used since the accessed bits were last cleared.
    pub referenced: u64,
    /// Anonymous.
    pub anonymous: u64,
    /// Anonymous and marked by `MADV_FREE`.
    pub lazily_freed: u64,
    /// In swap: `Swap`.
    pub swapped: u64,
    /// Proportional share of that, in fixed point: `SwapPss`.
    pub proportional_swapped: u64,
}

/// Bytes of a number in fixed point.
#[must_use]
pub const fn whole_bytes(proportional: u64) -> u64 {
    proportional >> PSS_SHIFT
}

impl AddAssign for AreaStats {
    fn add_assign(&mut self, other: Self) {
        self.resident += other.resident;
        self.proportional += other.proportional;
        self.proportional_dirty += other.proportional_dirty;
        self.proportional_anonymous += other.proportional_anonymous;
        self.proportional_file += other.proportional_file;
        self.proportional_shared_memory += other.proportional_shared_memory;
        self.proportional_locked += other.proportional_locked;
        self.shared_clean += other.shared_clean;
        self.shared_dirty += other.shared_dirty;
        self.private_clean += other.private_clean;
        self.private_dirty += other.private_dirty;
        self.referenced += other.referenced;
        self.anonymous += other.anonymous;
        self.lazily_freed += other.lazily_freed;
        self.swapped += other.swapped;
        self.proportional_swapped += other.proportional_swapped;
    }
}

impl AddressSpace {
    /// What smaps tells of one of the areas.
    pub fn stats_of<M: Machine>(&self, memory: &Memory<M>, area: &Area) -> AreaStats {
        let machine = &memory.machine;
        let mut stats = AreaStats::default();
        table::for_each(machine, self.root, area.start, area.end, |span| {
            let held = memory.frames.hold();
            for index in span.first..span.end {
                let entry = machine.read_entry(span.table, index);
                if let Some(slot) = entry.swap_slot() {
                    stats.swapped += PAGE_SIZE;
                    let holders = u64::from(memory.swap.count(slot)).max(1);
                    stats.proportional_swapped += (PAGE_SIZE << PSS_SHIFT) / holders;
                } else if entry.is_present() && !entry.has(EntryFlags::SPECIAL) {
                    stats.add_page(&held, area, entry);
                }
            }
            true
        });
        stats
    }

    /// All areas together, as in smaps_rollup.
    pub fn stats<M: Machine>(&self, memory: &Memory<M>) -> AreaStats {
        let mut sum = AreaStats::default();
        for area in self.areas() {
            sum += self.stats_of(memory, area);
        }
        sum
    }
}

impl AreaStats {
    fn add_page(&mut self, held: &Held<'_>, area: &Area, entry: Entry) {
        let frame = entry.frame();
        let anonymous = held.use_of(frame) == Use::Anonymous;
        let mappings = u64::from(held.mappings(frame));
        let share = (PAGE_SIZE << PSS_SHIFT) / mappings;
        let dirty = entry.has(EntryFlags::DIRTY) || held.is_dirty(frame);
        self.resident += PAGE_SIZE;
        self.proportional += share;
        if entry.has(EntryFlags::ACCESSED) {
            self.referenced += PAGE_SIZE;
        }
        let kind = if anonymous {
            self.anonymous += PAGE_SIZE;
            self.lazily_freed += if dirty { 0 } else { PAGE_SIZE };
            &mut self.proportional_anonymous
        } else if area.flags.contains(AreaFlags::SHARED_MEMORY) {
            &mut self.proportional_shared_memory
        } else {
            &mut self.proportional_file
        };
        *kind += share;
        if dirty {
            self.proportional_dirty += share;
        }
        if area.flags.contains(AreaFlags::LOCKED) {
            self.proportional_locked += share;
        }
        *match (mappings > 1, dirty) {
            (true, false) => &mut self.shared_clean,
            (true, true) => &mut self.shared_dirty,
            (false, false) => &mut self.private_clean,
            (false, true) => &mut self.private_dirty,
        } += PAGE_SIZE;
    }
}

impl Area {
    /// Linux's two-letter names of what is set, in its order: `VmFlags`.
    pub fn vm_flags(&self) -> impl Iterator<Item = &'static str> {
        let has = |flag: AreaFlags| self.flags.contains(flag);
        let may = |flag: Protection| self.protection.contains(flag);
        let shared = has(AreaFlags::SHARED);
        let may_write = has(AreaFlags::MAY_WRITE);
        [
            (may(Protection::READ), "rd"),
            (may(Protection::WRITE), "wr"),
            (may(Protection::EXECUTE), "ex"),
            (shared && may_write, "sh"),
            (true, "mr"),
            (may_write, "mw"),
            (true, "me"),
            (shared, "ms"),
            (has(AreaFlags::GROWS_DOWN), "gd"),
            (has(AreaFlags::LOCKED), "lo"),
            (has(AreaFlags::SEQUENTIAL), "sr"),
            (has(AreaFlags::RANDOM), "rr"),
            (has(AreaFlags::DONT_FORK), "dc"),
            (has(AreaFlags::LOCK_ON_FAULT), "lf"),
            (has(AreaFlags::ACCOUNTED), "ac"),
            (has(AreaFlags::NO_RESERVE), "nr"),
            (has(AreaFlags::WIPE_ON_FORK), "wf"),
            (has(AreaFlags::DONT_DUMP), "dd"),
            (has(AreaFlags::SOFT_DIRTY), "sd"),
            (has(AreaFlags::HUGE_PAGE), "hg"),
            (has(AreaFlags::NO_HUGE_PAGE), "nh"),
        ]
        .into_iter()
        .filter_map(|(is_set, name)| is_set.then_some(name))
    }
}
