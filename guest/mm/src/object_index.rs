//! The pages of an object by number: a tree of tables of 512 entries, each
//! table a frame, as deep as the highest page needs. A tree of height 0 is one
//! page, number 0, without any table.
//!
//! A table's word for its owner ([`crate::owner`]) counts what it holds, so that
//! it is given back with its last page: of a file that is read from start to
//! end only the tables of the pages that are in memory remain.

use core::ops::Range;

use pagelab_abi::addr::Frame;
use pagelab_paging::entry::ENTRIES;
use pagelab_paging::{Entry, EntryFlags};

use crate::error::OutOfMemory;
use crate::frames::{FrameRun, Frames, Held, Use};
use crate::machine::Machine;
use crate::object::InsertError;

/// Bits of a page number that one level takes.
const LEVEL_BITS: u32 = 9;
/// Height at which every page number fits: more than 52 bits never come.
const MAX_HEIGHT: u32 = 6;

/// The tree.
pub(crate) struct Index {
    root: Option<Frame>,
    height: u32,
    resident: u64,
    /// Pages that are in swap.
    swapped: u64,
}

impl Index {
    pub(crate) const fn new() -> Self {
        Self { root: None, height: 0, resident: 0, swapped: 0 }
    }

    pub(crate) const fn resident(&self) -> u64 {
        self.resident
    }

    /// Pages whose slot of swap the index holds.
    pub(crate) const fn swapped(&self) -> u64 {
        self.swapped
    }

    /// Whether it can hold slots.
    pub(crate) const fn has_tables(&self) -> bool {
        self.height > 0
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

    /// The table that holds the entry of a page.
    fn leaf(&self, machine: &impl Machine, index: u64) -> Option<Frame> {
        let mut at = self.root.filter(|_| self.height > 0 && self.covers(index))?;
        for level in (1..self.height).rev() {
            at = present(machine.read_entry(at, slot(index, level)))?;
        }
        Some(at)
    }

    /// The slot of swap where a page is.
    pub(crate) fn slot_at(&self, machine: &impl Machine, index: u64) -> Option<u64> {
        if self.swapped == 0 {
            return None;
        }
        machine.read_entry(self.leaf(machine, index)?, slot(index, 0)).swap_slot()
    }

    /// A page that is there is in swap now.
    pub(crate) fn put_slot(&mut self, machine: &impl Machine, index: u64, number: u64) {
        if let Some(leaf) = self.leaf(machine, index) {
            let entry = Entry::for_swap(number, EntryFlags::empty());
            machine.write_entry(leaf, slot(index, 0), entry);
            self.resident -= 1;
            self.swapped += 1;
        }
    }

    /// A page that is in swap is there now.
    pub(crate) fn put_frame(&mut self, machine: &impl Machine, index: u64, frame: Frame) {
        if let Some(leaf) = self.leaf(machine, index) {
            machine.write_entry(leaf, slot(index, 0), entry(frame));
            self.resident += 1;
            self.swapped -= 1;
        }
    }

    /// Takes the first slot out that is for one of these pages.
    pub(crate) fn take_slot(
        &mut self,
        machine: &impl Machine,
        held: &mut Held<'_>,
        pages: &Range<u64>,
    ) -> Option<u64> {
        if self.swapped == 0 {
            return None;
        }
        let most = 1 << (LEVEL_BITS * self.height);
        let mut index = pages.start;
        while index < pages.end.min(most) {
            let Some(leaf) = self.leaf(machine, index) else {
                index = (index | (ENTRIES as u64 - 1)) + 1;
                continue;
            };
            if let Some(found) = machine.read_entry(leaf, slot(index, 0)).swap_slot() {
                machine.write_entry(leaf, slot(index, 0), Entry::EMPTY);
                held.uncount_entry(leaf);
                self.swapped -= 1;
                return Some(found);
            }
            index += 1;
        }
        None
    }

    /// Puts a frame where there is none.
    ///
    /// # Errors
    ///
    /// `Occupied`, or `OutOfMemory` for a table.
    pub(crate) fn insert(
        &mut self,
        machine: &impl Machine,
        frames: &Frames,
        index: u64,
        (frame, owner): (Frame, Option<u64>),
    ) -> Result<(), InsertError> {
        if self.root.is_none() {
            self.height =
                (0..MAX_HEIGHT).find(|h| index >> (LEVEL_BITS * h) == 0).unwrap_or(MAX_HEIGHT);
        }
        while !self.covers(index) {
            let top = new_table(machine, frames)?;
            if let Some(root) = self.root {
                machine.write_entry(top, 0, entry(root));
                frames.hold().set_owner(top, 1);
            }
            self.root = Some(top);
            self.height += 1;
        }
        let leaf = if self.height == 0 {
            if let Some(there) = self.root {
                return Err(InsertError::Occupied(there));
            }
            self.root = Some(frame);
            None
        } else {
            Some(self.insert_below(machine, frames, index, frame)?)
        };
        let mut held = frames.hold();
        if let Some(leaf) = leaf {
            held.count_entry(leaf);
        }
        if let Some(owner) = owner {
            held.set_owner(frame, owner);
        }
        self.resident += 1;
        Ok(())
    }

    /// Puts frames where there are none, as far as one table goes; returns how many
    /// were put, at least one.
    ///
    /// # Errors
    ///
    /// As [`Index::insert`], for the first of them.
    pub(crate) fn insert_run(
        &mut self,
        machine: &impl Machine,
        frames: &Frames,
        index: u64,
        (run, owner_of): (&[Frame], impl Fn(u64) -> Option<u64>),
    ) -> Result<usize, InsertError> {
        let Some((&first, rest)) = run.split_first() else { return Ok(0) };
        self.insert(machine, frames, index, (first, owner_of(index)))?;
        let Some(leaf) = self.leaf(machine, index) else { return Ok(1) };
        let mut held = frames.hold();
        let mut done = 0;
        for (place, &frame) in (slot(index, 0) + 1..ENTRIES).zip(rest) {
            if machine.read_entry(leaf, place) != Entry::EMPTY {
                break;
            }
            machine.write_entry(leaf, place, entry(frame));
            done += 1;
            if let Some(owner) = owner_of(index + done) {
                held.set_owner(frame, owner);
            }
        }
        held.set_owner(leaf, held.owner(leaf) + done);
        self.resident += done;
        Ok(1 + usize::try_from(done).unwrap_or(0))
    }

    /// Takes the frames of a run out that `bits` names, the first of it from page
    /// `index`, and frees them, where they are there, clean, and only have these
    /// `owners`, of which the index is one; the others lose the owners besides the
    /// index. All these pages are in one table. Returns how many were freed.
    pub(crate) fn free_run(
        &mut self,
        machine: &impl Machine,
        held: &mut Held<'_>,
        index: u64,
        (run, bits, owners): (&FrameRun, u64, u32),
    ) -> u64 {
        let leaf = self.leaf(machine, index);
        let start = slot(index, 0);
        let freed = held.free_run(machine, run, (bits, owners), |place, frame| {
            let Some(leaf) = leaf else { return false };
            let is_there = machine.read_entry(leaf, start + place) == entry(frame);
            if is_there {
                machine.write_entry(leaf, start + place, Entry::EMPTY);
            }
            is_there
        });
        if let Some(leaf) = leaf {
            self.resident -= freed;
            held.set_owner(leaf, held.owner(leaf) - freed);
            if held.owner(leaf) == 0 {
                self.give_back_tables(machine, held, index);
            }
        }
        freed
    }

    /// Gives back the table that held the entry of a page, and those above it, as
    /// far as they are empty now.
    fn give_back_tables(&mut self, machine: &impl Machine, held: &mut Held<'_>, index: u64) {
        let Some(root) = self.root else { return };
        let mut path = [root; MAX_HEIGHT as usize + 1];
        for level in (1..self.height).rev() {
            let next = present(machine.read_entry(path[level as usize + 1], slot(index, level)));
            let Some(next) = next else { return };
            path[level as usize] = next;
        }
        for level in 1..=self.height {
            held.release_zeroed(machine, path[level as usize]);
            if level == self.height {
                self.root = None;
                self.height = 0;
                return;
            }
            let above = path[level as usize + 1];
            machine.write_entry(above, slot(index, level), Entry::EMPTY);
            if held.uncount_entry(above) > 0 {
                return;
            }
        }
    }

    fn insert_below(
        &mut self,
        machine: &impl Machine,
        frames: &Frames,
        index: u64,
        frame: Frame,
    ) -> Result<Frame, InsertError> {
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
                    frames.hold().count_entry(at);
                    table
                }
            };
        }
        let slot = slot(index, 0);
        if let Some(there) = present(machine.read_entry(at, slot)) {
            return Err(InsertError::Occupied(there));
        }
        machine.write_entry(at, slot, entry(frame));
        Ok(at)
    }

    /// Takes a page out.
    pub(crate) fn remove(
        &mut self,
        machine: &impl Machine,
        held: &mut Held<'_>,
        index: u64,
    ) -> Option<Frame> {
        let frame = self.get(machine, index)?;
        self.remove_if(machine, held, index, frame).then_some(frame)
    }

    /// Takes a page out if it is this frame, and the tables that are empty then.
    /// The frame stays as it is.
    pub(crate) fn remove_if(
        &mut self,
        machine: &impl Machine,
        held: &mut Held<'_>,
        index: u64,
        frame: Frame,
    ) -> bool {
        let Some(root) = self.root.filter(|_| self.covers(index)) else { return false };
        let mut path = [root; MAX_HEIGHT as usize + 1];
        for level in (0..self.height).rev() {
            let table = path[level as usize + 1];
            match present(machine.read_entry(table, slot(index, level))) {
                Some(next) => path[level as usize] = next,
                None => return false,
            }
        }
        if path[0] != frame {
            return false;
        }
        self.resident -= 1;
        if self.height == 0 {
            self.root = None;
            return true;
        }
        machine.write_entry(path[1], slot(index, 0), Entry::EMPTY);
        if held.uncount_entry(path[1]) == 0 {
            self.give_back_tables(machine, held, index);
        }
        true
    }

    /// Calls `visit` for each page of a range in order until it returns false.
    pub(crate) fn for_each(
        &self,
        machine: &impl Machine,
        range: Range<u64>,
        visit: &mut impl FnMut(u64, Frame) -> bool,
    ) {
        if let Some(root) = self.root
            && self.covers(range.start)
        {
            walk(machine, root, self.height, 0, &range, visit);
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

impl Held<'_> {
    /// One entry more in a table of an index.
    #[inline]
    fn count_entry(&mut self, table: Frame) {
        self.set_owner(table, self.owner(table) + 1);
    }

    /// One entry less in a table of an index; returns how many remain.
    #[inline]
    fn uncount_entry(&mut self, table: Frame) -> u64 {
        let remaining = self.owner(table) - 1;
        self.set_owner(table, remaining);
        remaining
    }
}

/// Visits what of a range lies below `node`, whose first page has number `base`.
fn walk(
    machine: &impl Machine,
    node: Frame,
    height: u32,
    base: u64,
    range: &Range<u64>,
    visit: &mut impl FnMut(u64, Frame) -> bool,
) -> bool {
    if height == 0 {
        return !range.contains(&base) || visit(base, node);
    }
    let shift = LEVEL_BITS * (height - 1);
    let first = range.start.saturating_sub(base) >> shift;
    let last = range.end.saturating_sub(base + 1) >> shift;
    let last = last.min(ENTRIES as u64 - 1);
    if height == 1 {
        // By far the most of it.
        for index in first..=last {
            let entry = machine.read_entry(node, slot(index, 0));
            if entry.is_present() && !visit(base + index, entry.frame()) {
                return false;
            }
        }
        return true;
    }
    (first..=last).all(|index| match present(machine.read_entry(node, slot(index, 0))) {
        Some(next) => walk(machine, next, height - 1, base + (index << shift), range, visit),
        None => true,
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
            if held.uncount_entry(table) == 0 {
                break;
            }
        }
    }
    released
}
