//! Page tables written out: as the tree they are, as runs of pages, as ranges
//! of equal rights, or entry by entry.

use pagelab_abi::addr::GuestPhys;
use pagelab_paging::entry::entry_address;
use pagelab_paging::{Entry, Level};
use serde::{Deserialize, Serialize};

use super::filter::Filter;
use super::scan::{Branch, Cost, Problem, Range, Run, Visitor, scan};
use crate::inspect::PhysicalMemory;
use crate::inspect::value::{Flags, Hex, Rights};

/// How entries become rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// Every level: a row for each table, and one for each run of entries of a
    /// table that map neighbouring frames with the same bits.
    #[default]
    Tree,
    /// Pages only, runs joined across tables.
    Runs,
    /// Virtual ranges with the same rights, wherever their frames are.
    Rights,
    /// Pages only, one row for each entry.
    Entries,
}

/// What is to be dumped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpRequest {
    /// How entries become rows.
    pub shape: Shape,
    /// Which part of the address space; in order, not overlapping.
    pub ranges: Vec<Range>,
    /// Which pages.
    pub filter: Filter,
    /// Entries that are not present but not empty, too (swapped-out pages).
    pub absent: bool,
    /// How many rows at most.
    pub limit: usize,
}

impl Default for DumpRequest {
    fn default() -> Self {
        Self {
            shape: Shape::Tree,
            ranges: vec![Range::ALL],
            filter: Filter::default(),
            absent: false,
            limit: usize::MAX,
        }
    }
}

/// What a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RowKind {
    /// An entry that leads to a table.
    Table,
    /// Entries that map pages.
    Page,
    /// An entry that is not present and not empty.
    Absent,
}

/// One row of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// What it is about.
    pub kind: RowKind,
    /// Level of the (first) entry.
    pub level: u8,
    /// Where the first entry lies.
    pub entry_address: Hex,
    /// Index of the first entry in its table.
    pub index: u16,
    /// How many entries.
    pub entries: u64,
    /// First virtual address.
    pub first: Hex,
    /// Last virtual address.
    pub last: Hex,
    /// The first entry.
    pub entry: Hex,
    /// Where the (first) page or the table lies.
    pub physical: Hex,
    /// The bits that all the entries have.
    pub flags: Flags,
    /// What all levels together allow.
    pub rights: Rights,
    /// Whether the pages, or the table, lie in memory.
    pub in_memory: bool,
}

impl Row {
    /// How many bytes of the address space it is about.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        (self.last.0 - self.first.0).saturating_add(1)
    }

    fn of_run<M: PhysicalMemory>(memory: &M, run: &Run, kind: RowKind) -> Self {
        let first = run.physical();
        let last = first.saturating_add(run.bytes() - 1);
        Self {
            kind,
            level: run.level as u8,
            entry_address: entry_address(run.table, run.index).into(),
            index: index(run.index),
            entries: run.count as u64,
            first: Hex(run.start),
            last: Hex(run.last()),
            entry: Hex(run.entry.0),
            physical: Hex(first),
            flags: Flags(run.entry.flags()),
            rights: run.rights,
            in_memory: kind == RowKind::Page && memory.is_memory(GuestPhys(first), GuestPhys(last)),
        }
    }

    fn of_branch<M: PhysicalMemory>(memory: &M, branch: &Branch) -> Self {
        let table = branch.entry.address();
        Self {
            kind: RowKind::Table,
            level: branch.level as u8,
            entry_address: entry_address(branch.table, branch.index).into(),
            index: index(branch.index),
            entries: 1,
            first: Hex(branch.start),
            last: Hex(branch.start.wrapping_add(branch.level.entry_size() - 1)),
            entry: Hex(branch.entry.0),
            physical: table.into(),
            flags: Flags(branch.entry.flags()),
            rights: branch.rights,
            in_memory: memory.is_memory(table, GuestPhys(table.0.saturating_add(4095))),
        }
    }
}

/// A dump of page tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dump {
    /// The root table.
    pub root: Hex,
    /// How entries became rows.
    pub shape: Shape,
    /// The rows, in order of address.
    pub rows: Vec<Row>,
    /// What made no sense.
    pub problems: Vec<Problem>,
    /// More problems than are listed.
    pub problems_left_out: u64,
    /// There would have been more rows.
    pub truncated: bool,
    /// Pages that the rows are about, by size.
    pub pages: PageCounts,
    /// What it cost.
    pub cost: Cost,
}

/// Pages by size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PageCounts {
    /// Pages of 4 KiB.
    pub small: u64,
    /// Pages of 2 MiB.
    pub large: u64,
    /// Pages of 1 GiB.
    pub giant: u64,
}

impl PageCounts {
    /// All of them in bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        (self.small << 12) + (self.large << 21) + (self.giant << 30)
    }
}

/// How many problems a dump lists.
const MAX_PROBLEMS: usize = 1000;

/// Dumps the tables below `root`, a CR3 value.
#[must_use]
pub fn dump<M: PhysicalMemory>(memory: &M, root: GuestPhys, request: &DumpRequest) -> Dump {
    let root = Entry(root.0).address();
    let mut collector = Collector {
        memory,
        request,
        unfiltered: request.filter.is_empty(),
        pending: Vec::new(),
        dump: Dump {
            root: root.into(),
            shape: request.shape,
            rows: Vec::new(),
            problems: Vec::new(),
            problems_left_out: 0,
            truncated: false,
            pages: PageCounts::default(),
            cost: Cost::default(),
        },
    };
    let cost = scan(memory, root, &request.ranges, &mut collector);
    collector.dump.cost = cost;
    collector.dump
}

struct Collector<'a, M> {
    memory: &'a M,
    request: &'a DumpRequest,
    /// The request's filter asks for nothing.
    unfiltered: bool,
    dump: Dump,
    /// Rows of tables above the next page: shown only if a page is.
    pending: Vec<Row>,
}

impl<M: PhysicalMemory> Collector<'_, M> {
    fn push(&mut self, row: Row) {
        if self.dump.rows.len() < self.request.limit {
            self.dump.rows.push(row);
        } else {
            self.dump.truncated = true;
        }
    }

    /// Shows a row, in a tree below the tables that lead to it.
    fn show(&mut self, row: Row) {
        if !self.pending.is_empty() {
            for table in std::mem::take(&mut self.pending) {
                if table.last.0 >= row.first.0 {
                    self.push(table);
                }
            }
        }
        self.push(row);
    }

    fn count(&mut self, run: &Run) {
        let pages = &mut self.dump.pages;
        *match run.level {
            Level::One => &mut pages.small,
            Level::Two => &mut pages.large,
            Level::Three | Level::Four => &mut pages.giant,
        } += run.count as u64;
    }

    /// Makes the row part of the last one, if that is wanted and fits.
    fn join(&mut self, row: &Row) -> bool {
        let Some(last) = self.dump.rows.last_mut() else { return false };
        let follows = last.last.0.checked_add(1) == Some(row.first.0) && last.kind == row.kind;
        let alike = match self.request.shape {
            Shape::Runs => {
                last.level == row.level
                    && last.flags == row.flags
                    && last.rights == row.rights
                    && last.in_memory == row.in_memory
                    && last.physical.0.checked_add(last.bytes()) == Some(row.physical.0)
            }
            Shape::Rights => last.rights == row.rights,
            Shape::Tree | Shape::Entries => false,
        };
        if follows && alike {
            last.last = row.last;
            last.entries += row.entries;
            last.in_memory &= row.in_memory;
            last.flags = Flags(last.flags.0 & row.flags.0);
        }
        follows && alike
    }
}

impl<M: PhysicalMemory> Visitor for Collector<'_, M> {
    fn branch(&mut self, branch: &Branch) -> bool {
        if self.request.shape == Shape::Tree {
            let row = Row::of_branch(self.memory, branch);
            self.pending.retain(|table| table.last.0 >= row.first.0);
            self.pending.push(row);
            if self.unfiltered {
                for table in std::mem::take(&mut self.pending) {
                    self.push(table);
                }
            }
        }
        true
    }

    fn pages(&mut self, run: &Run) {
        let wanted = if self.unfiltered { Some(*run) } else { self.request.filter.wanted(run) };
        let Some(run) = wanted else { return };
        self.count(&run);
        if self.request.shape == Shape::Entries {
            for place in 0..run.count {
                let row = Row::of_run(self.memory, &run.single(place), RowKind::Page);
                self.push(row);
            }
            return;
        }
        let row = Row::of_run(self.memory, &run, RowKind::Page);
        if !self.join(&row) {
            self.show(row);
        }
    }

    fn absent(&mut self, run: &Run) {
        let wanted = self.unfiltered && run.clip_any(&self.request.ranges);
        if self.request.absent && wanted {
            let row = Row::of_run(self.memory, run, RowKind::Absent);
            self.show(row);
        }
    }

    fn problem(&mut self, problem: Problem) {
        if self.dump.problems.len() < MAX_PROBLEMS {
            self.dump.problems.push(problem);
        } else {
            self.dump.problems_left_out += 1;
        }
    }

    fn is_done(&self) -> bool {
        self.dump.truncated
    }
}

impl Run {
    /// Whether any of the ranges has an address of the run.
    fn clip_any(&self, ranges: &[Range]) -> bool {
        ranges.iter().any(|&range| self.clip(range).is_some())
    }
}

#[allow(clippy::cast_possible_truncation, reason = "an index into 512 entries")]
const fn index(index: usize) -> u16 {
    index as u16
}
