//! Going through a whole tree of page tables, quickly and whatever it holds.
//!
//! A [`Visitor`] is told of tables, of runs of entries, and of what makes no
//! sense. A run is a number of neighbouring entries of one table that map
//! neighbouring pages in the same way, so that a visitor is called far less
//! often than once per entry.
//!
//! Each table is read once, 4 KiB at a time, and followed once: a table that
//! comes up again, below itself (a loop) or elsewhere (a shared table), is
//! reported. So even the worst tree costs no more than reading all memory once.

use std::collections::HashMap;

use pagelab_abi::addr::GuestPhys;
use pagelab_paging::entry::{ADDRESS_MASK, ENTRIES, entry_address};
use pagelab_paging::walk::narrow;
use pagelab_paging::{Entry, EntryFlags, Level};
use serde::Serialize;

use crate::inspect::value::{Hex, Rights};
use crate::inspect::{PhysicalMemory, Table};

/// Part of an address space: both bounds belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First address.
    pub first: u64,
    /// Last address.
    pub last: u64,
}

impl Range {
    /// All there is.
    pub const ALL: Self = Self { first: 0, last: u64::MAX };
    /// What programs use.
    pub const USER: Self = Self { first: 0, last: (1 << 47) - 1 };
    /// What the kernel uses.
    pub const KERNEL: Self = Self { first: 0xffff_8000_0000_0000, last: u64::MAX };

    /// From `first` on, `length` bytes; at least one and at most to the end.
    #[must_use]
    pub const fn new(first: u64, length: u64) -> Self {
        Self { first, last: first.saturating_add(length.saturating_sub(1)) }
    }

    /// Whether the two have an address in common.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// Whether the address belongs to it.
    #[must_use]
    pub const fn contains(self, address: u64) -> bool {
        self.first <= address && address <= self.last
    }
}

/// Neighbouring entries of one table that map neighbouring pages in the same
/// way; or one entry that is not present and not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Level of the table.
    pub level: Level,
    /// Where the table lies.
    pub table: GuestPhys,
    /// Index of the first entry.
    pub index: usize,
    /// How many entries there are.
    pub count: usize,
    /// First address that the first entry maps.
    pub start: u64,
    /// The first entry.
    pub entry: Entry,
    /// What all levels together allow.
    pub rights: Rights,
}

impl Run {
    /// Bytes that the run maps.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.level.entry_size() * self.count as u64
    }

    /// Last address that the run maps.
    #[must_use]
    pub const fn last(&self) -> u64 {
        self.start.wrapping_add(self.bytes() - 1)
    }

    /// Where the first page lies in guest-physical memory.
    #[must_use]
    pub const fn physical(&self) -> u64 {
        page_address(self.entry, self.level)
    }

    /// The entry at a place of the run.
    #[must_use]
    pub const fn entry_at(&self, place: usize) -> Entry {
        Entry(self.entry.0 + place as u64 * self.level.entry_size())
    }

    /// One entry of the run as a run of its own.
    #[must_use]
    pub const fn single(&self, place: usize) -> Self {
        Self {
            index: self.index + place,
            count: 1,
            start: self.start + place as u64 * self.level.entry_size(),
            entry: self.entry_at(place),
            ..*self
        }
    }

    /// The part of the run that lies in a range, as whole entries.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "at most 512 entries")]
    pub const fn clip(&self, range: Range) -> Option<Self> {
        if range.last < self.start || self.last() < range.first {
            return None;
        }
        let size = self.level.entry_size();
        let skip = (range.first.saturating_sub(self.start) / size) as usize;
        let last = if range.last < self.last() { range.last } else { self.last() };
        let end = ((last - self.start) / size) as usize + 1;
        let first = self.single(skip);
        Some(Self { count: end - skip, ..first })
    }
}

/// An entry that leads to a table of the next level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Branch {
    /// Level of the table that the entry is in.
    pub level: Level,
    /// Where that table lies.
    pub table: GuestPhys,
    /// Index of the entry.
    pub index: usize,
    /// First address that the entry covers.
    pub start: u64,
    /// The entry.
    pub entry: Entry,
    /// What all levels until here together allow.
    pub rights: Rights,
}

/// What makes no sense in a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What it is.
    pub kind: ProblemKind,
    /// Level of the table with the entry; 5 for the root itself.
    pub level: u8,
    /// First address that the entry covers.
    pub address: Hex,
    /// Where the entry lies.
    pub entry_address: Hex,
    /// The entry.
    pub entry: Hex,
}

/// Kinds of problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// The table lies outside memory.
    OutsideMemory,
    /// The table is one of those that led to it: not followed again.
    Loop,
    /// The table was seen elsewhere already: not followed again.
    SharedTable {
        /// First address that it covers there.
        first_seen: Hex,
    },
    /// Bits are set that must not be: the processor refuses the entry.
    ReservedBits,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, level, address, entry_address, entry } = self;
        write!(f, "{address}: entry {entry} of level {level} at {entry_address} ")?;
        match kind {
            ProblemKind::OutsideMemory => f.write_str("leads to a table outside memory"),
            ProblemKind::Loop => {
                f.write_str("leads back to a table that led here: a loop, not followed")
            }
            ProblemKind::SharedTable { first_seen } => {
                write!(f, "leads to a table that was seen at {first_seen}: not followed again")
            }
            ProblemKind::ReservedBits => {
                f.write_str("has bits set that are reserved: the processor refuses it")
            }
        }
    }
}

/// Whoever wants to know what is in a tree.
pub trait Visitor {
    /// An entry that leads to a table; `false`: it is not to be followed.
    fn branch(&mut self, branch: &Branch) -> bool {
        let _ = branch;
        true
    }

    /// Entries that map pages.
    fn pages(&mut self, run: &Run);

    /// An entry that is not present and not empty.
    fn absent(&mut self, run: &Run) {
        let _ = run;
    }

    /// The entries of a table that covers the address space from `start` on,
    /// before they are gone through.
    fn table(&mut self, level: Level, start: u64, table: GuestPhys, entries: &Table) {
        let _ = (level, start, table, entries);
    }

    /// Something that makes no sense.
    fn problem(&mut self, problem: Problem);

    /// Whether nothing more is wanted.
    fn is_done(&self) -> bool {
        false
    }
}

/// What a scan cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Tables that were read.
    pub tables: u64,
    /// Entries that were looked at.
    pub entries: u64,
}

/// Goes through the tables below `root` (a CR3 value), as far as they cover one
/// of `ranges`, which are in order and do not overlap.
pub fn scan<M: PhysicalMemory>(
    memory: &M,
    root: GuestPhys,
    ranges: &[Range],
    visitor: &mut impl Visitor,
) -> Cost {
    let root = GuestPhys(root.0 & ADDRESS_MASK);
    let mut scanner =
        Scanner { memory, ranges, visitor, seen: HashMap::new(), cost: Cost::default() };
    let place = Branch {
        level: Level::Four,
        table: root,
        index: 0,
        start: 0,
        entry: Entry(root.0),
        rights: Rights::ALL,
    };
    scanner.table(Level::Four, root, &place);
    scanner.cost
}

struct Scanner<'a, M, V> {
    memory: &'a M,
    ranges: &'a [Range],
    visitor: &'a mut V,
    /// Tables that were read: where, and whether they are being gone through.
    seen: HashMap<u64, (u64, bool)>,
    cost: Cost,
}

impl<M: PhysicalMemory, V: Visitor> Scanner<'_, M, V> {
    /// Reads the table at `table`, which `place` leads to, and goes through it.
    fn table(&mut self, level: Level, table: GuestPhys, place: &Branch) {
        let is_root = level == Level::Four;
        let problem_level = if is_root { 5 } else { place.level as u8 };
        if let Some(&(start, open)) = self.seen.get(&table.0) {
            let first_seen = Hex(start);
            let kind =
                if open { ProblemKind::Loop } else { ProblemKind::SharedTable { first_seen } };
            return self.visitor.problem(problem(kind, problem_level, place));
        }
        let mut entries = [0; ENTRIES];
        if !self.memory.read_table(table, &mut entries) {
            return self.visitor.problem(problem(ProblemKind::OutsideMemory, problem_level, place));
        }
        self.seen.insert(table.0, (place.start, true));
        self.cost.tables += 1;
        self.visitor.table(level, place.start, table, &entries);
        self.entries(level, table, place, &entries);
        self.seen.insert(table.0, (place.start, false));
    }

    fn entries(&mut self, level: Level, table: GuestPhys, place: &Branch, entries: &Table) {
        let mut index = 0;
        let first = address_of(level, place.start, 0);
        let last = address_of(level, place.start, ENTRIES - 1).wrapping_add(level.entry_size() - 1);
        let all = self.ranges.iter().any(|range| range.first <= first && last <= range.last);
        while index < ENTRIES && !self.visitor.is_done() {
            let start = address_of(level, place.start, index);
            if !all {
                let Some(next) = self.first_wanted(level, start, index) else { break };
                if next > index {
                    index = next;
                    continue;
                }
            }
            self.cost.entries += 1;
            let entry = Entry(entries[index]);
            if entry.0 == 0 {
                index += 1;
                continue;
            }
            let run = Run { level, table, index, count: 1, start, entry, rights: place.rights };
            index += self.entry(run, place.rights, entries, all);
        }
    }

    /// One entry, and those that continue it; returns how many that are. `all` of
    /// the table is wanted, or what lies in the ranges.
    fn entry(&mut self, mut run: Run, above: Rights, entries: &Table, all: bool) -> usize {
        let Run { level, table, index, start, entry, .. } = run;
        if !entry.is_present() {
            self.visitor.absent(&run);
            return 1;
        }
        run.rights = Rights(narrow(above.0, entry));
        let branch = Branch { level, table, index, start, entry, rights: run.rights };
        if has_reserved_bits(entry, level) {
            let level = level as u8;
            self.visitor.problem(problem(ProblemKind::ReservedBits, level, &branch));
            return 1;
        }
        let below = level.below().filter(|_| !(level.can_be_huge() && entry.has(EntryFlags::HUGE)));
        if let Some(below) = below {
            if self.visitor.branch(&branch) {
                self.table(below, entry.address(), &branch);
            }
            return 1;
        }
        let size = level.entry_size();
        let mut expected = entry.0;
        let same = entries[index + 1..].iter().take_while(|&&next| {
            expected = expected.wrapping_add(size);
            // The address must not have run over into the bits above it.
            next == expected && (next ^ entry.0) & !ADDRESS_MASK == 0
        });
        run.count += same.count();
        self.cost.entries += run.count as u64 - 1;
        if all {
            self.visitor.pages(&run);
            return run.count;
        }
        for &range in self.ranges {
            if let Some(part) = run.clip(range) {
                self.visitor.pages(&part);
            }
        }
        run.count
    }

    /// The first entry from `index` on that covers something that is wanted.
    fn first_wanted(&self, level: Level, start: u64, index: usize) -> Option<usize> {
        let covered = Range::new(start, level.entry_size());
        let range = self.ranges.iter().find(|range| range.last >= covered.first)?;
        if range.first <= covered.last {
            return Some(index);
        }
        let skip = (range.first - start) >> level.shift();
        // Beyond the canonical hole the distance is larger than the table.
        Some(usize::try_from(skip).unwrap_or(ENTRIES).saturating_add(index).min(ENTRIES))
            .map(|next| if level == Level::Four && index < 256 && next >= 256 { 256 } else { next })
    }
}

fn problem(kind: ProblemKind, level: u8, place: &Branch) -> Problem {
    Problem {
        kind,
        level,
        address: Hex(place.start),
        entry_address: entry_address(place.table, place.index).into(),
        entry: Hex(place.entry.0),
    }
}

/// First address that entry `index` of a table covers whose first entry covers
/// `base`.
const fn address_of(level: Level, base: u64, index: usize) -> u64 {
    let address = base.wrapping_add((index as u64) << level.shift());
    if matches!(level, Level::Four) && index >= 256 {
        address | 0xffff_0000_0000_0000
    } else {
        address
    }
}

/// Where the page lies that an entry maps.
const fn page_address(entry: Entry, level: Level) -> u64 {
    entry.address().0 & !(level.entry_size() - 1)
}

/// Whether a present entry has bits set that must be clear: `HUGE` at level 4,
/// and address bits that a large page does not have (bit 12 is its PAT).
const fn has_reserved_bits(entry: Entry, level: Level) -> bool {
    match level {
        Level::Four => entry.has(EntryFlags::HUGE),
        Level::Three | Level::Two if entry.has(EntryFlags::HUGE) => {
            entry.address().0 & (level.entry_size() - 1) & !(1 << 12) != 0
        }
        _ => false,
    }
}
