//! What changed in page tables between two moments, entry by entry, and which
//! fault did it.
//!
//! A [`Snapshot`] keeps every table of a tree. Two of them are compared table by
//! table: one that came or went counts with each entry that it has.

use std::collections::BTreeMap;
use std::fmt;

use pagelab_abi::addr::{GuestPhys, PAGE_SIZE};
use pagelab_abi::event::{EVENT_FAULT, Event};
use pagelab_abi::fault::FaultKind;
use pagelab_paging::entry::{ENTRIES, entry_address};
use pagelab_paging::{Entry, EntryFlags, Level};
use serde::Serialize;

use super::scan::{Problem, Range, Run, Visitor, scan};
use crate::inspect::value::{Flags, Hex};
use crate::inspect::{PhysicalMemory, Table};

/// All tables below a root at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// By level and first address: where the table lies and what it holds.
    tables: BTreeMap<(u8, u64), (GuestPhys, Box<Table>)>,
}

impl Snapshot {
    /// Keeps the tables that cover `range`.
    #[must_use]
    pub fn take<M: PhysicalMemory>(memory: &M, root: GuestPhys, range: Range) -> Self {
        let mut keeper = Self::default();
        scan(memory, root, &[range], &mut keeper);
        keeper
    }

    /// How many tables were kept.
    #[must_use]
    pub fn tables(&self) -> usize {
        self.tables.len()
    }
}

impl Visitor for Snapshot {
    fn table(&mut self, level: Level, start: u64, table: GuestPhys, entries: &Table) {
        self.tables.insert((level as u8, start), (table, Box::new(*entries)));
    }

    fn pages(&mut self, _: &Run) {}

    fn problem(&mut self, _: Problem) {}
}

/// How an entry changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It maps something now.
    Mapped,
    /// It maps nothing any more.
    Unmapped,
    /// It maps something else.
    Replaced,
    /// It maps the same with other bits.
    Bits,
    /// It was and is not present, and holds something else.
    Absent,
}

/// The fault that changed an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// Number of the event.
    pub event: u64,
    /// Its kind.
    pub kind: &'static str,
    /// The process.
    pub pid: u32,
    /// The address that was accessed.
    pub address: Hex,
    /// The instruction that accessed it.
    pub instruction: Hex,
}

/// One entry that changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// How.
    pub kind: ChangeKind,
    /// Level of its table.
    pub level: u8,
    /// First address that it covers.
    pub address: Hex,
    /// Where it lies now, or lay.
    pub entry_address: Hex,
    /// What it was.
    pub before: Hex,
    /// What it is.
    pub after: Hex,
    /// Its bits before.
    pub flags_before: Flags,
    /// Its bits now.
    pub flags_after: Flags,
    /// The fault that did it, if its event is at hand.
    pub cause: Option<Cause>,
}

/// What changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Entries, in order of address, upper levels first.
    pub changes: Vec<Change>,
    /// There were more.
    pub truncated: bool,
    /// Tables that are new.
    pub tables_made: u64,
    /// Tables that are gone.
    pub tables_freed: u64,
}

/// Compares two moments; lists at most `limit` entries.
#[must_use]
pub fn diff(before: &Snapshot, after: &Snapshot, limit: usize) -> Difference {
    const EMPTY: Table = [0; ENTRIES];
    let mut difference = Difference::default();
    let mut keys: Vec<_> = before.tables.keys().chain(after.tables.keys()).copied().collect();
    keys.sort_unstable_by_key(|&(level, start)| (start, std::cmp::Reverse(level)));
    keys.dedup();
    for (level, start) in keys {
        let old = before.tables.get(&(level, start));
        let new = after.tables.get(&(level, start));
        let (at, old, new) = match (old, new) {
            (Some((_, old)), Some((at, new))) => (*at, &**old, &**new),
            (None, Some((at, new))) => {
                difference.tables_made += 1;
                (*at, &EMPTY, &**new)
            }
            (Some((at, old)), None) => {
                difference.tables_freed += 1;
                (*at, &**old, &EMPTY)
            }
            (None, None) => continue,
        };
        if old == new {
            continue;
        }
        for (index, (&old, &new)) in old.iter().zip(new).enumerate().filter(|(_, (a, b))| a != b) {
            if difference.changes.len() >= limit {
                difference.truncated = true;
                return difference;
            }
            difference.changes.push(change(level, start, at, index, Entry(old), Entry(new)));
        }
    }
    difference
}

fn change(
    level: u8,
    start: u64,
    table: GuestPhys,
    index: usize,
    before: Entry,
    after: Entry,
) -> Change {
    let shift = 12 + 9 * u32::from(level - 1);
    let mut address = start.wrapping_add((index as u64) << shift);
    if address & 1 << 47 != 0 {
        address |= 0xffff_0000_0000_0000;
    }
    let kind = match (before.is_present(), after.is_present()) {
        (false, true) => ChangeKind::Mapped,
        (true, false) => ChangeKind::Unmapped,
        (false, false) => ChangeKind::Absent,
        (true, true) if before.address() == after.address() => ChangeKind::Bits,
        (true, true) => ChangeKind::Replaced,
    };
    Change {
        kind,
        level,
        address: Hex(address),
        entry_address: entry_address(table, index).into(),
        before: Hex(before.0),
        after: Hex(after.0),
        flags_before: Flags(before.flags()),
        flags_after: Flags(after.flags()),
        cause: None,
    }
}

impl Difference {
    /// Finds for each page's entry the last of `events` that is a fault of
    /// `pid` there. Events are in order; only those between the two moments
    /// must be given.
    pub fn attribute(&mut self, pid: u32, events: &[Event]) {
        let faults = events.iter().filter(|event| event.class == EVENT_FAULT && event.pid == pid);
        let mut by_page = BTreeMap::new();
        for event in faults {
            by_page.insert(event.address & !(PAGE_SIZE - 1), event);
        }
        for change in self.changes.iter_mut().filter(|change| change.level == 1) {
            let Some(event) = by_page.get(&change.address.0) else { continue };
            // A fault that left another frame there was not the last word.
            let frame = Entry(change.after.0).frame().0;
            if event.frame_after != 0 && event.frame_after != frame {
                continue;
            }
            let Ok(kind) = FaultKind::try_from(event.kind) else { continue };
            change.cause = Some(Cause {
                event: event.sequence,
                kind: kind.name(),
                pid,
                address: Hex(event.address),
                instruction: Hex(event.instruction),
            });
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { level, address, before, after, flags_before, flags_after, .. } = self;
        write!(f, "{level} {address:>18}  ")?;
        let place = |entry: &Hex| Hex(Entry(entry.0).address().0);
        match self.kind {
            ChangeKind::Mapped => write!(f, "+ {} {flags_after}", place(after))?,
            ChangeKind::Unmapped => write!(f, "- {} {flags_before}", place(before))?,
            ChangeKind::Replaced => {
                let (before, after) = (place(before), place(after));
                write!(f, "> {before} {flags_before} -> {after} {flags_after}")?;
            }
            ChangeKind::Bits => {
                write!(f, "~ {} {flags_before} -> {flags_after}", place(after))?;
                describe_bits(f, flags_before.0, flags_after.0)?;
            }
            ChangeKind::Absent => write!(f, "? {before} -> {after}, not present")?,
        }
        match &self.cause {
            Some(cause) => write!(
                f,
                "  by {} of process {} at {}, instruction {}",
                cause.kind, cause.pid, cause.address, cause.instruction
            ),
            None => Ok(()),
        }
    }
}

/// Says in words which bits came and went.
fn describe_bits(f: &mut fmt::Formatter<'_>, before: EntryFlags, after: EntryFlags) -> fmt::Result {
    for (sign, bits) in [('+', after - before), ('-', before - after)] {
        for (name, _) in bits.iter_names() {
            write!(f, " {sign}{}", name.to_ascii_lowercase())?;
        }
    }
    Ok(())
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for change in &self.changes {
            writeln!(f, "{change}")?;
        }
        if self.truncated {
            writeln!(f, "... and more")?;
        }
        writeln!(
            f,
            "{} entries changed, {} tables made, {} freed",
            self.changes.len(),
            self.tables_made,
            self.tables_freed
        )
    }
}
