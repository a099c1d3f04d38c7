//! The pages of an object by number: a tree of tables of 512 entries, each
//! table a frame, as deep as the highest page needs. A tree of height 0 is one
//! page, number 0, without any table.

use pagelab_abi::addr::Frame;
use pagelab_paging::entry::ENTRIES;
use pagelab_paging::{Entry, EntryFlags};

use crate::error::OutOfMemory;
use crate::frames::{Frames, Held, Use};
use crate::machine::Machine;

/// Bits of a page number that one level takes.
const LEVEL_BITS: u32 = 9;
/// Height at which every page number fits: more than 52 bits never come.
const MAX_HEIGHT: u32 = 6;

/// The tree.
pub(crate) struct Index {
    root: Option<Frame>,
    height: u32,
    resident: u64,
}

impl Index {
    pub(crate) const fn new() -> Self {
        Self { root: None, height: 0, resident: 0 }
    }

    pub(crate) const fn resident(&self) -> u64 {
        self.resident
    }

    const fn covers(&self, index: u64) -> bool {
        index >> (LEVEL_BITS * self.height) == 0
    }

    #[inline]
    pub(crate) fn get(&self, machine: &impl Machine, index: u64) -> Option<Frame> {
        if !self.covers(index) {
            return None;
        }
        let mut at = self.root?;
        for level in (0..self.height).rev() {
            at = present(machine.read_entry(at, slot(index, level)))?;
        }
        Some(at)
    }

    /// Puts a frame where there is none.
    pub(crate) fn insert(
        &mut self,
        machine: &impl Machine,
        frames: &Frames,
        index: u64,
        frame: Frame,
    ) -> Result<(), OutOfMemory> {
        if self.root.is_none() {
            self.height =
                (0..MAX_HEIGHT).find(|h| index >> (LEVEL_BITS * h) == 0).unwrap_or(MAX_HEIGHT);
        }
        while !self.covers(index) {
            let top = new_table(machine, frames)?;
            if let Some(root) = self.root {
                machine.write_entry(top, 0, entry(root));
            }
            self.root = Some(top);
            self.height += 1;
        }
        if self.height == 0 {
            self.root = Some(frame);
        } else {
            self.insert_below(machine, frames, index, frame)?;
        }
        self.resident += 1;
        Ok(())
    }

    fn insert_below(
        &mut self,
        machine: &impl Machine,
        frames: &Frames,
        index: u64,
        frame: Frame,
    ) -> Result<(), OutOfMemory> {
        let mut at = match self.root {
            Some(root) => root,
            None => *self.root.insert(new_table(machine, frames)?),
        };
        for level in (1..self.height).rev() {
            let slot = slot(index, level);
            at = match present(machine.read_entry(at, slot)) {
                Some(next) => next,
                None => {
                    let table = new_table(machine, frames)?;
                    machine.write_entry(at, slot, entry(table));
                    table
                }
            };
        }
        machine.write_entry(at, slot(index, 0), entry(frame));
        Ok(())
    }

    /// Takes a page out. Tables stay until the object goes or is truncated.
    pub(crate) fn remove(&mut self, machine: &impl Machine, index: u64) -> Option<Frame> {
        let frame = self.get(machine, index)?;
        if self.height == 0 {
            self.root = None;
        } else {
            let mut at = self.root?;
            for level in (1..self.height).rev() {
                at = present(machine.read_entry(at, slot(index, level)))?;
            }
            machine.write_entry(at, slot(index, 0), Entry::EMPTY);
        }
        self.resident -= 1;
        Some(frame)
    }

    /// Calls `visit` for each page from number `from` up until it returns false.
    pub(crate) fn for_each(
        &self,
        machine: &impl Machine,
        from: u64,
        visit: &mut impl FnMut(u64, Frame) -> bool,
    ) {
        if let Some(root) = self.root
            && self.covers(from)
        {
            walk(machine, root, self.height, 0, from, visit);
        }
    }

    /// Releases the pages from number `from` up, and the tables below them.
    pub(crate) fn truncate(&mut self, machine: &impl Machine, held: &mut Held<'_>, from: u64) {
        if from == 0 {
            return self.clear(machine, held);
        }
        if let Some(root) = self.root
            && self.covers(from)
            && self.height > 0
        {
            self.resident -= prune(machine, held, root, self.height, 0, from);
        }
    }

    /// Releases everything.
    pub(crate) fn clear(&mut self, machine: &impl Machine, held: &mut Held<'_>) {
        if let Some(root) = self.root.take() {
            if self.height > 0 {
                prune(machine, held, root, self.height, 0, 0);
                held.release_zeroed(machine, root);
            } else {
                held.release(machine, root);
            }
        }
        *self = Self::new();
    }
}

#[allow(clippy::cast_possible_truncation, reason = "masked to nine bits")]
const fn slot(index: u64, level: u32) -> usize {
    (index >> (LEVEL_BITS * level) & (ENTRIES as u64 - 1)) as usize
}

fn entry(frame: Frame) -> Entry {
    Entry::for_frame(frame, EntryFlags::PRESENT)
}

fn present(entry: Entry) -> Option<Frame> {
    entry.is_present().then(|| entry.frame())
}

fn new_table(machine: &impl Machine, frames: &Frames) -> Result<Frame, OutOfMemory> {
    frames.alloc_zeroed(machine, Use::Kernel).ok_or(OutOfMemory)
}

/// Visits what lies below `node`, whose first page has number `base`.
fn walk(
    machine: &impl Machine,
    node: Frame,
    height: u32,
    base: u64,
    from: u64,
    visit: &mut impl FnMut(u64, Frame) -> bool,
) -> bool {
    if height == 0 {
        return base < from || visit(base, node);
    }
    let span = 1 << (LEVEL_BITS * (height - 1));
    let first = from.saturating_sub(base) / span;
    (first..ENTRIES as u64).all(|index| {
        present(machine.read_entry(node, slot(index, 0)))
            .is_none_or(|next| walk(machine, next, height - 1, base + index * span, from, visit))
    })
}

/// Releases the pages from number `from` up below a table, and the tables that
/// are empty then; returns how many pages.
fn prune(
    machine: &impl Machine,
    held: &mut Held<'_>,
    table: Frame,
    height: u32,
    base: u64,
    from: u64,
) -> u64 {
    let span = 1 << (LEVEL_BITS * (height - 1));
    let mut released = 0;
    for index in from.saturating_sub(base) / span..ENTRIES as u64 {
        let slot = slot(index, 0);
        let Some(next) = present(machine.read_entry(table, slot)) else { continue };
        let start = base + index * span;
        released +=
            if height > 1 { prune(machine, held, next, height - 1, start, from) } else { 1 };
        if start >= from {
            machine.write_entry(table, slot, Entry::EMPTY);
            if height > 1 {
                held.release_zeroed(machine, next);
            } else {
                held.release(machine, next);
            }
        }
    }
    released
}
