//! What physical memory is used for, and who maps a frame.
//!
//! Who maps a frame is found by going through the page tables of all processes:
//! that needs no word of the guest's. Its own reverse map is shown beside it.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::atomic::Ordering;

use pagelab_abi::addr::{GuestPhys, PAGE_SHIFT};
use pagelab_abi::directory::{
    FrameCounts, FrameRecord, USE_ANONYMOUS, USE_CACHE, USE_FREE, USE_KERNEL, USE_SPECIAL,
    USE_TABLE, USES,
};
use serde::Serialize;
use zerocopy::FromBytes;

use super::{Kernel, KernelError};
use crate::inspect::PhysicalMemory;
use crate::inspect::pages::Range;
use crate::inspect::pages::alias::{Alias, aliases, find_aliases};
use crate::inspect::pages::scan::{Problem, Run, Visitor, scan};
use crate::inspect::value::{Consistency, Hex};

/// More frames than a guest can have: 16 TiB.
const MAX_FRAMES: u64 = 1 << 32;

/// Entries of page tables that are looked at for one question: many times more
/// than a guest has, unless it lies.
const MAX_ENTRIES: u64 = 1 << 28;
/// Frames of one run of entries that are counted one by one.
const MAX_RUN_FRAMES: u64 = 1 << 18;
/// Most pages of programs that are counted: 256 GiB. Large pages make more of few
/// entries, and a guest may have all processes share the tables that have them.
const MAX_COUNTED: u64 = 1 << 26;

/// What a frame is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FrameUse {
    /// Nothing.
    Free,
    /// A page table.
    Table,
    /// The kernel's own.
    Kernel,
    /// Anonymous memory of programs.
    Anonymous,
    /// A page of a file, a program or shared memory.
    Cache,
    /// The zero page.
    Zero,
    /// Something this version does not know.
    Unknown,
}

impl FrameUse {
    const fn from_record(record: &FrameRecord) -> Self {
        match record.usage {
            USE_FREE => Self::Free,
            USE_TABLE => Self::Table,
            USE_KERNEL => Self::Kernel,
            USE_ANONYMOUS => Self::Anonymous,
            USE_CACHE => Self::Cache,
            USE_SPECIAL => Self::Zero,
            _ => Self::Unknown,
        }
    }

    /// In words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Table => "page table",
            Self::Kernel => "kernel",
            Self::Anonymous => "anonymous",
            Self::Cache => "page cache",
            Self::Zero => "zero page",
            Self::Unknown => "unknown",
        }
    }
}

/// The table of all frames at one moment.
#[derive(Clone, Debug, Default)]
pub struct FrameTable {
    records: Vec<FrameRecord>,
}

impl FrameTable {
    /// What is known of a frame.
    #[must_use]
    pub fn get(&self, frame: u64) -> Option<&FrameRecord> {
        self.records.get(usize::try_from(frame).ok()?)
    }

    /// How many frames there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}

/// How physical memory is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FrameReport {
    /// Frames that the allocator manages.
    pub total: u64,
    /// Free frames.
    pub free: u64,
    /// Free frames that were never used.
    pub untouched: u64,
    /// Page tables.
    pub tables: u64,
    /// The kernel's stacks, heap and indexes.
    pub kernel: u64,
    /// Anonymous memory.
    pub anonymous: u64,
    /// Pages of files, programs and shared memory.
    pub cache: u64,
    /// The zero page.
    pub zero: u64,
    /// Frames in use by their number of owners.
    pub by_references: BTreeMap<u32, u64>,
    /// Whether the numbers belong together.
    pub consistency: Consistency,
}

/// Who maps a frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mapper {
    /// The process; 0 is the kernel.
    pub pid: u32,
    /// Name of its program.
    pub name: String,
    /// Where, and with what rights.
    pub alias: Alias,
}

/// A frame and who maps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MappersOfFrame {
    /// Its number.
    pub frame: u64,
    /// Where it lies.
    pub physical: Hex,
    /// What it is used for.
    pub usage: FrameUse,
    /// How many owners it has: mappings, and its object if it has one.
    pub references: u32,
    /// It holds something that its object's store does not.
    pub dirty: bool,
    /// The guest's own word for who maps it.
    pub owner: Hex,
    /// Who maps it, found in the page tables.
    pub mappers: Vec<Mapper>,
    /// Not all page tables were looked at: there are impossibly many entries.
    pub truncated: bool,
    /// Whether all of this belongs together.
    pub consistency: Consistency,
}

impl<M: PhysicalMemory> Kernel<'_, M> {
    /// The table of all frames.
    ///
    /// # Errors
    ///
    /// If it is not where the guest says.
    pub fn frame_table(&self) -> Result<FrameTable, KernelError> {
        let directory = self.directory()?;
        let start = directory.frames.load(Ordering::Relaxed);
        let count = directory.frame_count.load(Ordering::Relaxed);
        // There are no more frames than memory has, so no more is read for them.
        let last = count.checked_sub(1).filter(|&last| last < MAX_FRAMES);
        let last = last.map(|last| GuestPhys(last << PAGE_SHIFT));
        let is_memory = last.is_some_and(|last| self.memory.is_memory(last, last));
        let size = usize::try_from(count).ok().filter(|_| is_memory);
        let size = size.and_then(|count| count.checked_mul(size_of::<FrameRecord>()));
        let too_many = KernelError::TooMany { what: "frames", number: count };
        let size = size.ok_or(too_many)?;
        let mut records = Vec::new();
        let each = size_of::<FrameRecord>();
        let mut at = 0;
        while at < size {
            const PIECE: usize = 1 << 20;
            let length = PIECE.min(size - at);
            let address = start.wrapping_add(at as u64);
            let bytes = self.read_bytes("the table of frames", address, length)?;
            let found = bytes.chunks_exact(each).map(FrameRecord::read_from_bytes);
            records.extend(found.filter_map(Result::ok));
            at += length;
        }
        Ok(FrameTable { records })
    }

    /// What is known of one frame.
    ///
    /// # Errors
    ///
    /// If there is no such frame.
    pub fn frame(&self, frame: u64) -> Result<FrameRecord, KernelError> {
        let directory = self.directory()?;
        let count = directory.frame_count.load(Ordering::Relaxed).min(MAX_FRAMES);
        if frame >= count {
            return Err(KernelError::NoFrame(frame));
        }
        let start = directory.frames.load(Ordering::Relaxed);
        self.read("the table of frames", start.wrapping_add(frame * 16))
    }

    /// How physical memory is used now.
    ///
    /// # Errors
    ///
    /// If the guest's tables are not where it says.
    pub fn frames(&self) -> Result<FrameReport, KernelError> {
        let address = self.directory()?.frame_counts.load(Ordering::Relaxed);
        let read = || self.read::<FrameCounts>("the counts of frames", address);
        let mut counts = read()?;
        let mut consistency = Consistency::Changing;
        for _ in 0..super::ATTEMPTS {
            let again = read()?;
            let sum = again.by_use.iter().fold(again.free, |sum, &used| sum.saturating_add(used));
            let is_whole = again == counts && sum == again.total;
            counts = again;
            if is_whole {
                consistency = Consistency::Consistent;
                break;
            }
        }
        let mut by_references = BTreeMap::new();
        let mut used = [0_u64; USES];
        for record in &self.frame_table()?.records {
            if let Some(count) = used.get_mut(usize::from(record.usage)) {
                *count += 1;
            }
            if record.count > 0 {
                *by_references.entry(record.count).or_insert(0) += 1;
            }
        }
        // The table was read later than the counts: do they still agree?
        let agrees = (1..USES).all(|usage| used[usage] == counts.by_use[usage]);
        if !agrees {
            consistency = Consistency::Changing;
        }
        let of = |usage: u8| counts.by_use[usize::from(usage)];
        Ok(FrameReport {
            total: counts.total,
            free: counts.free,
            untouched: (counts.unopened_zero.saturating_add(counts.fresh))
                .saturating_sub(counts.zero_again),
            tables: of(USE_TABLE),
            kernel: of(USE_KERNEL),
            anonymous: of(USE_ANONYMOUS),
            cache: of(USE_CACHE),
            zero: of(USE_SPECIAL),
            by_references,
            consistency,
        })
    }

    /// Who maps the frame: all processes, and with `kernel` the kernel too
    /// (which maps all memory).
    ///
    /// # Errors
    ///
    /// If there is no such frame, or the guest's tables make no sense.
    pub fn mappers(&self, frame: u64, kernel: bool) -> Result<MappersOfFrame, KernelError> {
        let record = self.frame(frame)?;
        let physical = GuestPhys(frame << PAGE_SHIFT);
        let list = self.processes()?;
        let mut consistency = list.consistency;
        let mut mappers = Vec::new();
        let mut seen = HashSet::new();
        let mut entries = 0_u64;
        for process in &list.processes {
            // Processes that share an address space are one mapper.
            let Some(root) = process.root().filter(|root| seen.insert(root.0)) else { continue };
            if entries > MAX_ENTRIES {
                break;
            }
            let ((found, cost), unchanged) = self.while_unchanged(process, || {
                find_aliases(self.memory, root, physical, Range::USER)
            });
            entries += cost.entries;
            consistency = consistency.and(unchanged);
            mappers.extend(found.into_iter().map(|alias| Mapper {
                pid: process.pid,
                name: process.name.clone(),
                alias,
            }));
        }
        if kernel {
            let found = aliases(self.memory, self.root, physical, Range::KERNEL);
            let name = "kernel".to_owned();
            mappers.extend(found.into_iter().map(|alias| Mapper {
                pid: 0,
                name: name.clone(),
                alias,
            }));
        }
        let again = self.frame(frame)?;
        if again != record {
            consistency = Consistency::Changing;
        }
        Ok(MappersOfFrame {
            frame,
            physical: physical.into(),
            usage: FrameUse::from_record(&record),
            references: record.count,
            dirty: record.dirty != 0,
            owner: Hex(record.owner),
            mappers,
            truncated: entries > MAX_ENTRIES,
            consistency,
        })
    }

    /// How many entries of programs' page tables map each frame.
    ///
    /// # Errors
    ///
    /// If the guest's table of processes makes no sense.
    pub fn mapping_counts(&self) -> Result<BTreeMap<u64, u32>, KernelError> {
        self.count_entries(|run, counts| {
            if !run.entry.is_present() {
                return;
            }
            let first = run.physical() >> PAGE_SHIFT;
            // Of a page of 1 GiB only the beginning: this guest has none.
            let pages = (run.bytes() >> PAGE_SHIFT).min(MAX_RUN_FRAMES);
            for frame in first..first + pages {
                *counts.entry(frame).or_insert(0) += 1;
            }
        })
    }

    /// How many entries of programs' page tables hold each slot of swap.
    ///
    /// # Errors
    ///
    /// If the guest's table of processes makes no sense.
    pub fn swap_holders(&self) -> Result<BTreeMap<u64, u32>, KernelError> {
        self.count_entries(|run, counts| {
            if let Some(slot) = run.entry.swap_slot() {
                *counts.entry(slot).or_insert(0) += 1;
            }
        })
    }

    /// Goes through the entries of all programs' page tables, each table once.
    fn count_entries(
        &self,
        count: impl FnMut(&Run, &mut BTreeMap<u64, u32>),
    ) -> Result<BTreeMap<u64, u32>, KernelError> {
        let mut counter = Counter { counts: BTreeMap::new(), count, left: MAX_COUNTED };
        let mut seen = HashSet::new();
        let mut entries = 0;
        for process in self.processes()?.processes {
            let Some(root) = process.root().filter(|root| seen.insert(root.0)) else { continue };
            if entries <= MAX_ENTRIES && counter.left > 0 {
                entries += scan(self.memory, root, &[Range::USER], &mut counter).entries;
            }
        }
        Ok(counter.counts)
    }
}

struct Counter<F> {
    counts: BTreeMap<u64, u32>,
    count: F,
    /// How many pages are still counted.
    left: u64,
}

impl<F> Counter<F> {
    /// Whether a run is still counted; its pages are off what is left.
    fn takes(&mut self, run: &Run) -> bool {
        let takes = self.left > 0;
        self.left = self.left.saturating_sub((run.bytes() >> PAGE_SHIFT).min(MAX_RUN_FRAMES));
        takes
    }
}

impl<F: FnMut(&Run, &mut BTreeMap<u64, u32>)> Visitor for Counter<F> {
    fn pages(&mut self, run: &Run) {
        if self.takes(run) {
            (self.count)(run, &mut self.counts);
        }
    }

    fn absent(&mut self, run: &Run) {
        if self.takes(run) {
            (self.count)(run, &mut self.counts);
        }
    }

    fn is_done(&self) -> bool {
        self.left == 0
    }

    fn problem(&mut self, _: Problem) {}
}

impl fmt::Display for FrameReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = [
            ("total", self.total),
            ("free", self.free),
            ("  never used", self.untouched),
            ("page tables", self.tables),
            ("kernel", self.kernel),
            ("anonymous", self.anonymous),
            ("page cache", self.cache),
            ("zero page", self.zero),
        ];
        for (name, frames) in rows {
            writeln!(f, "{name:<14} {frames:>9} frames {:>9} K", frames.saturating_mul(4))?;
        }
        writeln!(f, "owners of frames in use")?;
        for (references, frames) in &self.by_references {
            writeln!(f, "{references:>6}         {frames:>9} frames")?;
        }
        writeln!(f, "{}", self.consistency)
    }
}

impl fmt::Display for MappersOfFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { frame, physical, usage, references, .. } = self;
        write!(f, "frame {frame:#x} at {physical}: {}, {references} owners", usage.name())?;
        if self.dirty {
            f.write_str(", dirty")?;
        }
        writeln!(f, ", owner word {}", self.owner)?;
        for Mapper { pid, name, alias } in &self.mappers {
            writeln!(f, "{pid:>6} {name:<15} {alias}")?;
        }
        if self.truncated {
            writeln!(f, "... and perhaps more: not all page tables were looked at")?;
        }
        if self.mappers.is_empty() {
            writeln!(f, "nobody maps it")?;
        }
        writeln!(f, "{}", self.consistency)
    }
}
