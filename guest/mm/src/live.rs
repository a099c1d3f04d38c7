//! Edits of live entries: entries of level 1 that a processor may have cached.
//!
//! [`Edits`] collects what must be flushed and flushes it when dropped: page by
//! page while they are few, all at once when they are many. Entries that were
//! not present are cached by no processor; filling one needs no flush.
//!
//! With one processor nobody uses a stale translation between edit and flush,
//! so frames may be released in between. With several the release has to wait
//! for the flush: here is the place.

use pagelab_abi::addr::{Frame, GuestVirt};
use pagelab_paging::Entry;

use crate::machine::Machine;

/// From how many pages on the whole space is flushed.
pub(crate) const FLUSH_PAGES: usize = 16;

/// Edits of one address space, flushed when dropped.
pub(crate) struct Edits<'a, M: Machine> {
    machine: &'a M,
    root: Frame,
    pages: [GuestVirt; FLUSH_PAGES],
    /// How many pages to flush; more than [`FLUSH_PAGES`] means all.
    count: usize,
}

impl<'a, M: Machine> Edits<'a, M> {
    pub(crate) const fn new(machine: &'a M, root: Frame) -> Self {
        Self { machine, root, pages: [GuestVirt(0); FLUSH_PAGES], count: 0 }
    }

    pub(crate) const fn machine(&self) -> &'a M {
        self.machine
    }

    pub(crate) const fn root(&self) -> Frame {
        self.root
    }

    /// Replaces the entry for `page`, which was present.
    #[inline]
    pub(crate) fn replace(&mut self, table: Frame, index: usize, page: GuestVirt, new: Entry) {
        self.machine.write_entry(table, index, new);
        if let Some(slot) = self.pages.get_mut(self.count) {
            *slot = page;
        }
        self.count += 1;
    }

    /// The same for one of so many that the whole space is flushed.
    #[inline]
    pub(crate) fn replace_among_many(&mut self, table: Frame, index: usize, new: Entry) {
        self.machine.write_entry(table, index, new);
        self.count = FLUSH_PAGES + 1;
    }

    /// Clears the entry for a table that maps nothing any more.
    pub(crate) fn unlink_table(&mut self, parent: Frame, index: usize) {
        self.machine.write_entry(parent, index, Entry::EMPTY);
        // Processors cache the upper levels too.
        self.count = FLUSH_PAGES + 1;
    }
}

impl<M: Machine> Drop for Edits<'_, M> {
    #[inline]
    fn drop(&mut self) {
        match self.pages.get(..self.count) {
            Some(pages) => {
                pages.iter().for_each(|&page| self.machine.flush_page(self.root, page));
            }
            None => self.machine.flush_space(self.root),
        }
    }
}

/// Replaces one entry that was present, and flushes it.
#[inline]
pub(crate) fn replace<M: Machine>(
    machine: &M,
    root: Frame,
    (table, index): (Frame, usize),
    page: GuestVirt,
    new: Entry,
) {
    machine.write_entry(table, index, new);
    machine.flush_page(root, page);
}

/// Fills one entry that was not present.
#[inline]
pub(crate) fn fill<M: Machine>(machine: &M, (table, index): (Frame, usize), new: Entry) {
    machine.write_entry(table, index, new);
}
