//! One address, step by step, as the processor translates it.
//!
//! The tables may be anything, also deliberately wrong: a walk takes at most
//! four steps, reads only what [`TableMemory`] calls memory, and reports what
//! it found.

use pagelab_abi::addr::{GuestPhys, GuestVirt};

use crate::TableMemory;
use crate::entry::{Entry, EntryFlags, Level, entry_address};

/// One step: an entry that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Level of the table.
    pub level: Level,
    /// Where the entry lies.
    pub address: GuestPhys,
    /// The entry.
    pub entry: Entry,
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A page.
    Mapped {
        /// Where the address lies in guest-physical memory.
        physical: GuestPhys,
        /// The level whose entry maps it.
        level: Level,
        /// Rights of all levels together: `WRITABLE`, `USER`, `NO_EXECUTE`.
        rights: EntryFlags,
    },
    /// An entry that is not present.
    NotPresent(Level),
    /// A table that does not lie in memory.
    TableOutsideMemory(Level),
    /// The address is not canonical.
    NotCanonical,
}

/// A walk: up to four steps and how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    steps: [Option<Step>; 4],
    /// How it ended.
    pub outcome: Outcome,
}

impl Walk {
    /// The steps, from the root down.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().flatten()
    }

    /// The physical address, if the walk ended at a page.
    #[must_use]
    pub const fn physical(&self) -> Option<GuestPhys> {
        match self.outcome {
            Outcome::Mapped { physical, .. } => Some(physical),
            _ => None,
        }
    }
}

/// Walks the tables below `root` (a CR3 value; its low bits are ignored).
pub fn walk(memory: &impl TableMemory, root: GuestPhys, address: GuestVirt) -> Walk {
    let mut steps = [None; 4];
    let outcome = descend(memory, root, address, &mut steps);
    Walk { steps, outcome }
}

fn descend(
    memory: &impl TableMemory,
    root: GuestPhys,
    address: GuestVirt,
    steps: &mut [Option<Step>; 4],
) -> Outcome {
    if !address.is_canonical() {
        return Outcome::NotCanonical;
    }
    let mut rights = EntryFlags::WRITABLE | EntryFlags::USER;
    let mut table = root;
    for (level, step) in Level::DOWN.into_iter().zip(steps) {
        let slot = entry_address(table, level.index(address));
        let Some(entry) = memory.read_entry(slot) else {
            return Outcome::TableOutsideMemory(level);
        };
        *step = Some(Step { level, address: slot, entry });
        if !entry.is_present() {
            return Outcome::NotPresent(level);
        }
        rights = narrow(rights, entry);
        if level == Level::One || (level.can_be_huge() && entry.has(EntryFlags::HUGE)) {
            let offset = address.0 & (level.entry_size() - 1);
            let base = entry.address().0 & !(level.entry_size() - 1);
            return Outcome::Mapped { physical: GuestPhys(base | offset), level, rights };
        }
        table = entry.address();
    }
    unreachable!("level 1 always ends a walk")
}

/// The rights left after one more entry: writable and user only if all levels
/// say so, not executable as soon as one does.
#[must_use]
pub fn narrow(rights: EntryFlags, entry: Entry) -> EntryFlags {
    let allowed = rights & entry.flags() & (EntryFlags::WRITABLE | EntryFlags::USER);
    let denied = (rights | entry.flags()) & EntryFlags::NO_EXECUTE;
    allowed | denied
}
