//! At which virtual addresses a frame shows.

use std::fmt;

use pagelab_abi::addr::{GuestPhys, PAGE_SIZE};
use serde::Serialize;

use super::scan::{Cost, Problem, Range, Run, Visitor, scan};
use crate::inspect::PhysicalMemory;
use crate::inspect::value::{Flags, Hex, Rights};

/// A virtual address of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Alias {
    /// The address.
    pub address: Hex,
    /// Level of the entry that maps it: 1 for a page of 4 KiB.
    pub level: u8,
    /// Where the entry lies.
    pub entry_address: Hex,
    /// The entry.
    pub entry: Hex,
    /// Its bits.
    pub flags: Flags,
    /// What all levels together allow.
    pub rights: Rights,
}

impl fmt::Display for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, level, entry_address, flags, rights, .. } = self;
        write!(f, "{address:>18} {rights} {flags} by the entry of level {level} at {entry_address}")
    }
}

/// All addresses in `range` below `root` that show the frame at `physical`.
#[must_use]
pub fn aliases<M: PhysicalMemory>(
    memory: &M,
    root: GuestPhys,
    physical: GuestPhys,
    range: Range,
) -> Vec<Alias> {
    find_aliases(memory, root, physical, range).0
}

/// The same, with what it cost.
pub(crate) fn find_aliases<M: PhysicalMemory>(
    memory: &M,
    root: GuestPhys,
    physical: GuestPhys,
    range: Range,
) -> (Vec<Alias>, Cost) {
    let mut finder = Finder { frame: physical.page_start().0, found: Vec::new() };
    let cost = scan(memory, root, &[range], &mut finder);
    (finder.found, cost)
}

struct Finder {
    frame: u64,
    found: Vec<Alias>,
}

impl Visitor for Finder {
    fn pages(&mut self, run: &Run) {
        let Some(offset) = self.frame.checked_sub(run.physical()) else { return };
        if offset >= run.bytes() {
            return;
        }
        let place = usize::try_from(offset / run.level.entry_size()).unwrap_or(0);
        let single = run.single(place);
        let within = offset % run.level.entry_size();
        debug_assert!(within.is_multiple_of(PAGE_SIZE));
        self.found.push(Alias {
            address: Hex(single.start + within),
            level: run.level as u8,
            entry_address: pagelab_paging::entry::entry_address(run.table, single.index).into(),
            entry: Hex(single.entry.0),
            flags: Flags(single.entry.flags()),
            rights: single.rights,
        });
    }

    fn problem(&mut self, _: Problem) {}
}
