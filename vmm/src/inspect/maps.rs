//! `maps` and `smaps` of a process in Linux's format, from outside the guest.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use pagelab_abi::addr::{PAGE_SHIFT, PAGE_SIZE};
use pagelab_abi::directory::{
    PROTECTION_EXECUTE, PROTECTION_READ, PROTECTION_WRITE, USE_ANONYMOUS, area,
};
use pagelab_paging::{EntryFlags, Level};
use serde::Serialize;

use super::PhysicalMemory;
use super::kernel::{Area, FrameTable, Kernel, KernelError, Process};
use super::pages::scan::{Problem, Range, Run, Visitor, scan};
use super::value::Consistency;

/// Column at which the name stands.
const NAME_COLUMN: usize = 73;
/// Bits behind the point of proportional shares.
const SHARE_SHIFT: u32 = 12;

/// Bytes of an area by what they are, as in `smaps`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// `Rss`.
    pub resident: u64,
    /// `Pss`, in bytes with 12 bits behind the point.
    #[serde(skip)]
    proportional: u64,
    /// `Pss_Dirty`, likewise.
    #[serde(skip)]
    proportional_dirty: u64,
    /// `Shared_Clean`.
    pub shared_clean: u64,
    /// `Shared_Dirty`.
    pub shared_dirty: u64,
    /// `Private_Clean`.
    pub private_clean: u64,
    /// `Private_Dirty`.
    pub private_dirty: u64,
    /// `Referenced`.
    pub referenced: u64,
    /// `Anonymous`.
    pub anonymous: u64,
    /// `LazyFree`.
    pub lazily_freed: u64,
    /// `Swap`.
    pub swap: u64,
    /// `SwapPss`, with 12 bits behind the point.
    #[serde(skip)]
    proportional_swap: u64,
    /// `Locked`, likewise with 12 bits behind the point.
    #[serde(skip)]
    proportional_locked: u64,
}

impl Usage {
    /// `Pss` in bytes.
    #[must_use]
    pub const fn proportional_bytes(&self) -> u64 {
        self.proportional >> SHARE_SHIFT
    }
}

/// An area with its name and, for `smaps`, what its pages are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NamedArea {
    /// The area.
    #[serde(flatten)]
    pub area: Area,
    /// Major and minor device number of the file system.
    pub device: (u32, u32),
    /// The file's number there.
    pub inode: u64,
    /// Its path, or `[heap]` and the like; may be empty.
    pub name: String,
    /// What its pages are.
    pub usage: Option<Usage>,
}

/// The areas of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Maps {
    /// The process.
    pub pid: u32,
    /// Its areas, in order.
    pub areas: Vec<NamedArea>,
    /// Whether all of this belongs together.
    pub consistency: Consistency,
}

/// `maps` of a process.
///
/// # Errors
///
/// If the guest's structures make no sense.
pub fn maps<M: PhysicalMemory>(
    kernel: &Kernel<'_, M>,
    process: &Process,
) -> Result<Maps, KernelError> {
    let (areas, consistency) = kernel.areas(process)?;
    let (names, names_consistency) = kernel.object_names()?;
    let heap = process.space.map_or((0, 0), |space| (space.heap.0.0, space.heap.1.0));
    let named = areas.into_iter().map(|area| {
        let (device, inode, name) = match area.object {
            None if area.has(area::STACK) => ((0, 0), 0, "[stack]".to_owned()),
            None if area.start.0 < heap.1 && area.end.0 > heap.0 => {
                ((0, 0), 0, "[heap]".to_owned())
            }
            None => ((0, 0), 0, String::new()),
            Some(object) if area.has(area::SHARED_MEMORY) && !names.contains_key(&object) => {
                ((0, 1), object.into(), "/dev/zero (deleted)".to_owned())
            }
            Some(object) => names.get(&object).map_or(((0, 0), 0, String::new()), |name| {
                (name.device, name.inode, name.path.clone())
            }),
        };
        NamedArea { area, device, inode, name, usage: None }
    });
    let areas = named.collect();
    Ok(Maps { pid: process.pid, areas, consistency: consistency.and(names_consistency) })
}

/// `smaps` of a process.
///
/// # Errors
///
/// If the guest's structures make no sense.
pub fn smaps<M: PhysicalMemory>(
    kernel: &Kernel<'_, M>,
    process: &Process,
) -> Result<Maps, KernelError> {
    let (looked, unchanged) = kernel.while_unchanged(process, || {
        let mut maps = maps(kernel, process)?;
        let frames = kernel.frame_table()?;
        let has_swap = process.space.is_some_and(|space| space.swapped_pages > 0);
        let holders = if has_swap { kernel.swap_holders()? } else { BTreeMap::new() };
        if let Some(root) = process.root() {
            for named in &mut maps.areas {
                let mut counter = Counter::new(&frames, &holders, &named.area);
                let range = Range { first: named.area.start.0, last: named.area.end.0 - 1 };
                scan(kernel.memory(), root, &[range], &mut counter);
                named.usage = Some(counter.usage);
            }
        }
        Ok(maps)
    });
    let mut maps = looked?;
    maps.consistency = maps.consistency.and(unchanged);
    Ok(maps)
}

struct Counter<'a> {
    frames: &'a FrameTable,
    /// How many entries hold each slot of swap.
    holders: &'a BTreeMap<u64, u32>,
    area: &'a Area,
    usage: Usage,
}

impl<'a> Counter<'a> {
    fn new(frames: &'a FrameTable, holders: &'a BTreeMap<u64, u32>, area: &'a Area) -> Self {
        Self { frames, holders, area, usage: Usage::default() }
    }

    fn page(&mut self, frame: u64, flags: EntryFlags) {
        let record = self.frames.get(frame).copied().unwrap_or_default();
        let anonymous = record.usage == USE_ANONYMOUS;
        // A guest that lies about its counts gets shares of something.
        let mappings = u64::from(record.mappings()).max(1);
        let share = (PAGE_SIZE << SHARE_SHIFT) / mappings;
        let dirty = flags.contains(EntryFlags::DIRTY) || record.dirty != 0;
        let usage = &mut self.usage;
        usage.resident += PAGE_SIZE;
        usage.proportional += share;
        if flags.contains(EntryFlags::ACCESSED) {
            usage.referenced += PAGE_SIZE;
        }
        if anonymous {
            usage.anonymous += PAGE_SIZE;
            usage.lazily_freed += if dirty { 0 } else { PAGE_SIZE };
        }
        if dirty {
            usage.proportional_dirty += share;
        }
        if self.area.has(area::LOCKED) {
            usage.proportional_locked += share;
        }
        *match (mappings > 1, dirty) {
            (true, false) => &mut usage.shared_clean,
            (true, true) => &mut usage.shared_dirty,
            (false, false) => &mut usage.private_clean,
            (false, true) => &mut usage.private_dirty,
        } += PAGE_SIZE;
    }
}

impl Visitor for Counter<'_> {
    fn pages(&mut self, run: &Run) {
        let flags = run.entry.flags();
        if flags.contains(EntryFlags::SPECIAL) {
            return;
        }
        // A page that is not wholly in the area counts as far as it is.
        let start = run.start.max(self.area.start.0);
        let end = run.last().min(self.area.end.0 - 1);
        let first = (run.physical() + (start - run.start)) >> PAGE_SHIFT;
        for frame in first..=first + ((end - start) >> PAGE_SHIFT) {
            self.page(frame, flags);
        }
    }

    fn absent(&mut self, run: &Run) {
        let Some(slot) = run.entry.swap_slot().filter(|_| run.level == Level::One) else { return };
        if self.area.start.0 <= run.start && run.start < self.area.end.0 {
            let holders = self.holders.get(&slot).copied().unwrap_or(1).max(1);
            self.usage.swap += PAGE_SIZE;
            self.usage.proportional_swap += (PAGE_SIZE << SHARE_SHIFT) / u64::from(holders);
        }
    }

    fn problem(&mut self, _: Problem) {}
}

impl NamedArea {
    /// Its line in `maps`.
    #[must_use]
    pub fn line(&self) -> String {
        let Self { area, device, inode, name, .. } = self;
        let letter = |bit, letter| if area.protection & bit != 0 { letter } else { '-' };
        let mut line = format!(
            "{:08x}-{:08x} {}{}{}{} {:08x} {:02x}:{:02x} {inode} ",
            area.start.0,
            area.end.0,
            letter(PROTECTION_READ, 'r'),
            letter(PROTECTION_WRITE, 'w'),
            letter(PROTECTION_EXECUTE, 'x'),
            if area.has(area::SHARED) { 's' } else { 'p' },
            if area.object.is_some() { area.offset.wrapping_mul(PAGE_SIZE) } else { 0 },
            device.0,
            device.1,
        );
        if !name.is_empty() {
            let column = line.len().max(NAME_COLUMN - 1);
            line = format!("{line:<column$} {}", name.replace('\n', "\\012"));
        }
        line
    }

    /// The letters of `VmFlags`, in Linux's order.
    fn vm_flags(&self) -> String {
        let area = &self.area;
        let has = |flag| area.has(flag);
        let may = |bit| area.protection & bit != 0;
        let flags = [
            (may(PROTECTION_READ), "rd"),
            (may(PROTECTION_WRITE), "wr"),
            (may(PROTECTION_EXECUTE), "ex"),
            (has(area::SHARED | area::MAY_WRITE), "sh"),
            (true, "mr"),
            (has(area::MAY_WRITE), "mw"),
            (true, "me"),
            (has(area::SHARED), "ms"),
            (has(area::GROWS_DOWN), "gd"),
            (has(area::LOCKED), "lo"),
            (has(area::SEQUENTIAL), "sr"),
            (has(area::RANDOM), "rr"),
            (has(area::DONT_FORK), "dc"),
            (has(area::LOCK_ON_FAULT), "lf"),
            (has(area::ACCOUNTED), "ac"),
            (has(area::NO_RESERVE), "nr"),
            (has(area::WIPE_ON_FORK), "wf"),
            (has(area::DONT_DUMP), "dd"),
            (has(area::SOFT_DIRTY), "sd"),
            (has(area::HUGE_PAGE), "hg"),
            (has(area::NO_HUGE_PAGE), "nh"),
        ];
        let set = flags.iter().filter(|(is_set, _)| *is_set);
        set.fold(String::new(), |text, (_, name)| text + name + " ")
    }

    fn write_usage(&self, f: &mut fmt::Formatter<'_>, usage: &Usage) -> fmt::Result {
        let rows = [
            ("Size:", self.area.size()),
            ("KernelPageSize:", PAGE_SIZE),
            ("MMUPageSize:", PAGE_SIZE),
            ("Rss:", usage.resident),
            ("Pss:", usage.proportional >> SHARE_SHIFT),
            ("Pss_Dirty:", usage.proportional_dirty >> SHARE_SHIFT),
            ("Shared_Clean:", usage.shared_clean),
            ("Shared_Dirty:", usage.shared_dirty),
            ("Private_Clean:", usage.private_clean),
            ("Private_Dirty:", usage.private_dirty),
            ("Referenced:", usage.referenced),
            ("Anonymous:", usage.anonymous),
            ("KSM:", 0),
            ("LazyFree:", usage.lazily_freed),
            ("AnonHugePages:", 0),
            ("ShmemPmdMapped:", 0),
            ("FilePmdMapped:", 0),
            ("Shared_Hugetlb:", 0),
            ("Private_Hugetlb:", 0),
            ("Swap:", usage.swap),
            ("SwapPss:", usage.proportional_swap >> SHARE_SHIFT),
            ("Locked:", usage.proportional_locked >> SHARE_SHIFT),
        ];
        for (label, bytes) in rows {
            writeln!(f, "{label:<16}{:>8} kB", bytes >> 10)?;
        }
        writeln!(f, "{:<16}{:>8}", "THPeligible:", 0)?;
        writeln!(f, "VmFlags: {}", self.vm_flags())
    }
}

impl Maps {
    /// The whole text, as the guest's own `/proc/PID/maps` (or `smaps`) has it.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = write!(text, "{self}");
        text
    }
}

impl fmt::Display for Maps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for named in &self.areas {
            writeln!(f, "{}", named.line())?;
            if let Some(usage) = &named.usage {
                named.write_usage(f, usage)?;
            }
        }
        Ok(())
    }
}
