//! What memory management needs of the hardware.
//!
//! The kernel implements [`Machine`] over its physical map; the tests over a
//! vector. Nothing else in this crate touches memory or the processor. All
//! methods take `&self`: an implementation has interior mutability, as memory
//! has.

use pagelab_abi::addr::{Frame, GuestVirt};
use pagelab_paging::Entry;

use crate::fault::{Access, Resolved};

/// Memory and translation caches.
pub trait Machine {
    /// Entry `index` (below 512) of the table in frame `table`.
    fn read_entry(&self, table: Frame, index: usize) -> Entry;

    /// Sets entry `index` (below 512) of the table in frame `table`.
    ///
    /// Only the modules `live` and `table` write entries that a
    /// processor may be using.
    fn write_entry(&self, table: Frame, index: usize, entry: Entry);

    /// A frame, which is empty, is no page table any more.
    fn retire_table(&self, _table: Frame) {}

    /// Fills a frame with zeros.
    fn zero_frame(&self, frame: Frame);

    /// Copies a whole frame.
    fn copy_frame(&self, from: Frame, to: Frame);

    /// Forgets the translation of one page in the address space of `root`.
    /// Nothing to do if no processor uses that address space.
    fn flush_page(&self, root: Frame, page: GuestVirt);

    /// Forgets all translations of the address space of `root` but global ones.
    fn flush_space(&self, root: Frame);

    /// Copies bytes out of a frame; `offset + into.len()` is at most a page.
    fn read_bytes(&self, frame: Frame, offset: usize, into: &mut [u8]);

    /// Copies bytes into a frame; `offset + from.len()` is at most a page.
    fn write_bytes(&self, frame: Frame, offset: usize, from: &[u8]);

    /// A fault was resolved that no instruction of the program took: the kernel
    /// read or wrote its memory, or populated it. Linux counts these for the
    /// process, so the kernel is told.
    fn software_fault(&self, _address: GuestVirt, _access: Access, _resolved: &Resolved) {}
}
