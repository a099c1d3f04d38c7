//! The tree of page tables: finding, making and freeing tables.
//!
//! Together with [`crate::live`] the only place that edits what a processor may
//! be using. A table is linked in before it maps anything, so nothing needs to
//! be flushed then; one that is freed maps nothing any more, and the whole
//! space is flushed by the [`Edits`] that it is reported to.

use pagelab_abi::addr::{Frame, GuestVirt, PAGE_SHIFT};
use pagelab_paging::{Entry, EntryFlags, Level};

use crate::error::OutOfMemory;
use crate::frames::{Held, Use};
use crate::live::Edits;
use crate::machine::Machine;
use crate::memory::Memory;

/// Entries of one table of level 1 that belong to a range.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// The table.
    pub(crate) table: Frame,
    /// First entry.
    pub(crate) first: usize,
    /// The entry after the last.
    pub(crate) end: usize,
    /// Address that the first entry maps.
    pub(crate) start: GuestVirt,
}

impl Span {
    /// Address that entry `index` maps.
    pub(crate) const fn address_of(&self, index: usize) -> GuestVirt {
        GuestVirt(self.start.0 + (((index - self.first) as u64) << PAGE_SHIFT))
    }
}

/// End of the user half of the tree: what bounds tables when nothing else does.
pub(crate) const TREE_END: GuestVirt = GuestVirt(1 << 47);

/// Bits of an entry that points to a table: rights are decided at level 1.
const TABLE_FLAGS: EntryFlags = EntryFlags::PRESENT
    .union(EntryFlags::WRITABLE)
    .union(EntryFlags::USER)
    .union(EntryFlags::ACCESSED);

/// The table of level 1 for an address, if there is one.
#[inline]
pub(crate) fn find<M: Machine>(machine: &M, root: Frame, address: GuestVirt) -> Option<Frame> {
    let mut table = root;
    for level in [Level::Four, Level::Three, Level::Two] {
        let entry = machine.read_entry(table, level.index(address));
        if !entry.is_present() {
            return None;
        }
        table = entry.frame();
    }
    Some(table)
}

/// The entry of level 1 for an address; empty if there is no table.
#[inline]
pub(crate) fn entry_at<M: Machine>(machine: &M, root: Frame, address: GuestVirt) -> Entry {
    find(machine, root, address)
        .map_or(Entry::EMPTY, |table| machine.read_entry(table, Level::One.index(address)))
}

/// The table of level 1 for an address, made if need be; `tables` counts those
/// that were.
#[inline]
pub(crate) fn find_or_make<M: Machine>(
    memory: &Memory<M>,
    root: Frame,
    address: GuestVirt,
    tables: &mut u64,
) -> Result<Frame, OutOfMemory> {
    let mut table = root;
    for level in [Level::Four, Level::Three, Level::Two] {
        let index = level.index(address);
        let entry = memory.machine.read_entry(table, index);
        table = if entry.is_present() {
            entry.frame()
        } else {
            let new = new_table(memory)?;
            memory.machine.write_entry(table, index, Entry::for_frame(new, TABLE_FLAGS));
            *tables += 1;
            new
        };
    }
    Ok(table)
}

fn new_table<M: Machine>(memory: &Memory<M>) -> Result<Frame, OutOfMemory> {
    memory.frames.alloc_zeroed(&memory.machine, Use::Table).ok_or(OutOfMemory)
}

/// Calls `visit` for each table of level 1 that exists for a range, until it
/// returns `false`.
#[inline]
pub(crate) fn for_each<M: Machine>(
    machine: &M,
    root: Frame,
    start: GuestVirt,
    end: GuestVirt,
    mut visit: impl FnMut(Span) -> bool,
) {
    let mut at = start.0;
    while at < end.0 {
        let mut table = root;
        let mut level = Level::Four;
        let found = loop {
            let entry = machine.read_entry(table, level.index(GuestVirt(at)));
            if !entry.is_present() {
                break false;
            }
            table = entry.frame();
            match level {
                Level::Four => level = Level::Three,
                Level::Three => level = Level::Two,
                Level::Two | Level::One => break true,
            }
        };
        // Past what this entry covers, whether a table was found or not.
        let covered = level.entry_size();
        let next = ((at & !(covered - 1)) + covered).min(end.0);
        if found {
            let first = Level::One.index(GuestVirt(at));
            let pages = index((next - at) >> PAGE_SHIFT);
            if !visit(Span { table, first, end: first + pages, start: GuestVirt(at) }) {
                return;
            }
        }
        at = next;
    }
}

/// Frees the tables that a range was mapped by, where they map nothing else:
/// between `floor` and `ceiling` nothing is mapped any more. Returns how many.
pub(crate) fn free<M: Machine>(
    edits: &mut Edits<'_, M>,
    held: &mut Held<'_>,
    range: (GuestVirt, GuestVirt),
    floor: GuestVirt,
    ceiling: GuestVirt,
) -> u64 {
    let root = edits.root();
    free_below(edits, held, root, Level::Four, range, (floor, ceiling))
}

fn free_below<M: Machine>(
    edits: &mut Edits<'_, M>,
    held: &mut Held<'_>,
    table: Frame,
    level: Level,
    (start, end): (GuestVirt, GuestVirt),
    bounds: (GuestVirt, GuestVirt),
) -> u64 {
    let size = level.entry_size();
    let below = level.below().filter(|&below| below != Level::One);
    let mut freed = 0;
    let mut at = start.0;
    while at < end.0 {
        let first = at & !(size - 1);
        let next = first + size;
        let slot = level.index(GuestVirt(at));
        let entry = edits.machine().read_entry(table, slot);
        if entry.is_present() {
            if let Some(below) = below {
                let part = (GuestVirt(at), GuestVirt(next.min(end.0)));
                freed += free_below(edits, held, entry.frame(), below, part, bounds);
            }
            if first >= bounds.0.0 && next <= bounds.1.0 {
                edits.unlink_table(table, slot);
                edits.machine().retire_table(entry.frame());
                held.release_zeroed(edits.machine(), entry.frame());
                freed += 1;
            }
        }
        at = next;
    }
    freed
}

/// A number of entries of one table.
#[allow(clippy::cast_possible_truncation, reason = "at most 512")]
const fn index(entries: u64) -> usize {
    entries as usize
}
