//! Looking into a guest from outside: its memory through its own page tables,
//! its code as instructions, its addresses as functions and lines.
//!
//! Nothing here knows KVM; a guest is a [`PhysicalMemory`] and a root table.
//! The guest may be broken or hostile: whatever is read may be anything, every
//! loop has a bound, and what does not make sense is said, not followed.
//!
//! * [`mod@walk`]: a translation step by step, for people
//! * [`pages`]: whole trees of page tables: dumped, compared, searched
//! * [`translate`]: one address through both levels, down to the host's page
//! * [`kernel`]: what the guest kernel publishes: frames, processes, areas
//! * [`maps`]: `maps` and `smaps` of a process, from outside
//! * [`second_level`]: what the host has given the guest so far
//! * [`speed`]: how fast all that is
//! * [`value`]: addresses and flags as they are written out
//! * [`disassemble`]: the instructions at an address
//! * [`symbols`]: functions and lines from the kernel's ELF
//! * [`backtrace`]: who called whom, by frame pointers
//! * [`exceptions`]: names of exceptions, error codes in words

pub mod backtrace;
pub mod disassemble;
pub mod exceptions;
pub mod kernel;
pub mod maps;
pub mod pages;
pub mod second_level;
pub mod speed;
pub mod symbols;
#[cfg(test)]
pub(crate) mod testing;
pub mod translate;
pub mod value;
pub mod walk;

use pagelab_abi::addr::{GuestPhys, GuestVirt, PAGE_SIZE};
use pagelab_paging::TableMemory;
use pagelab_paging::entry::{ADDRESS_MASK, ENTRIES, entry_address};
use pagelab_paging::walk::{Walk, walk};

use crate::memory::GuestRam;

/// Guest-physical memory that can be read.
pub trait PhysicalMemory: TableMemory {
    /// Fills `buffer` from `address` on; `false`, and nothing promised about
    /// `buffer`, if not all of that is memory.
    fn read_physical(&self, address: GuestPhys, buffer: &mut [u8]) -> bool;

    /// Reads the table at `address` (its low bits are ignored), each entry as a
    /// whole; `false` if that is not memory.
    fn read_table(&self, address: GuestPhys, table: &mut Table) -> bool {
        for (index, slot) in table.iter_mut().enumerate() {
            match self.read_entry(entry_address(address, index)) {
                Some(entry) => *slot = entry.0,
                None => return false,
            }
        }
        true
    }

    /// Whether all bytes from `first` to `last` are memory, for all that can be
    /// told from these two.
    fn is_memory(&self, first: GuestPhys, last: GuestPhys) -> bool {
        [first, last].into_iter().all(|address| self.read_physical(address, &mut [0]))
    }
}

/// The entries of one table.
pub type Table = [u64; ENTRIES];

/// Reading leaves no trace: memory that the guest never touched is not provided
/// by the host just because somebody looked.
impl PhysicalMemory for GuestRam {
    fn read_physical(&self, address: GuestPhys, buffer: &mut [u8]) -> bool {
        self.peek(address, buffer).is_ok()
    }

    fn read_table(&self, address: GuestPhys, table: &mut Table) -> bool {
        self.peek_table(GuestPhys(address.0 & ADDRESS_MASK), table)
    }

    fn is_memory(&self, first: GuestPhys, last: GuestPhys) -> bool {
        let length = last.0.wrapping_sub(first.0).checked_add(1);
        length.is_some_and(|length| self.contains(first, length))
    }
}

/// Guest memory as one set of page tables shows it.
#[derive(Debug)]
pub struct AddressSpace<'a, M> {
    /// Physical memory.
    pub memory: &'a M,
    /// The root table, a CR3 value.
    pub root: GuestPhys,
}

// By hand, because `M` itself need not be copied.
impl<M> Clone for AddressSpace<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for AddressSpace<'_, M> {}

impl<'a, M: PhysicalMemory> AddressSpace<'a, M> {
    /// The address space below the root table that `cr3` names.
    #[must_use]
    pub const fn new(memory: &'a M, cr3: u64) -> Self {
        Self { memory, root: GuestPhys(cr3) }
    }

    /// Translates `address`, step by step.
    #[must_use]
    pub fn walk(&self, address: GuestVirt) -> Walk {
        walk(self.memory, self.root, address)
    }

    /// Reads up to `length` bytes from `address` on: fewer if a page in between
    /// is not mapped or not memory.
    #[must_use]
    pub fn read(&self, address: GuestVirt, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let mut done = 0;
        while done < length {
            let Some(at) = address.checked_add(done as u64) else { break };
            let Some(physical) = self.walk(at).physical() else { break };
            let rest_of_page = usize::try_from(PAGE_SIZE - at.page_offset()).unwrap_or(length);
            let end = length.min(done + rest_of_page);
            if !self.memory.read_physical(physical, &mut bytes[done..end]) {
                break;
            }
            done = end;
        }
        bytes.truncate(done);
        bytes
    }

    /// Reads eight bytes as a little-endian number.
    #[must_use]
    pub fn read_u64(&self, address: GuestVirt) -> Option<u64> {
        let bytes: [u8; 8] = self.read(address, 8).try_into().ok()?;
        Some(u64::from_le_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::testing::TestGuest;
    use super::*;

    #[test]
    fn reads_cross_pages_and_stop_where_nothing_is_mapped() {
        let mut guest = TestGuest::new();
        guest.map(0x40_0000, 0x9000, TestGuest::USER_DATA);
        guest.map(0x40_1000, 0x8000, TestGuest::USER_DATA);
        guest.write(0x9ffc, &[1, 2, 3, 4]);
        guest.write(0x8000, &[5, 6, 7, 8]);
        let space = guest.space();
        assert_eq!(space.read(GuestVirt(0x40_0ffc), 8), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(space.read_u64(GuestVirt(0x40_0ffc)), Some(0x0807_0605_0403_0201));
        assert_eq!(space.read(GuestVirt(0x40_1ffc), 8).len(), 4);
        assert_eq!(space.read_u64(GuestVirt(0x40_1ffc)), None);
        assert!(space.read(GuestVirt(0x50_0000), 8).is_empty());
    }

    #[test]
    fn the_end_of_the_address_space_is_an_end() {
        let mut guest = TestGuest::new();
        guest.map(0xffff_ffff_ffff_f000, 0x9000, TestGuest::USER_DATA);
        assert_eq!(guest.space().read(GuestVirt(u64::MAX - 3), 16).len(), 4);
    }
}
