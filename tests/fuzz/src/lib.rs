//! A guest's memory made from a fuzzer's bytes.
//!
//! [`Input`] takes the bytes apart; [`Memory`] is a small guest whose words the
//! input writes. Random words hardly ever point into it, so a word is written in
//! one of several ways ([`Input::word`]), most of which do.

#![forbid(unsafe_code)]

use pagelab::inspect::PhysicalMemory;
use pagelab_abi::addr::{GuestPhys, PAGE_SIZE};
use pagelab_paging::entry::entry_address;
use pagelab_paging::{Entry, EntryFlags, Level, TableMemory};

/// Pages of a guest.
pub const PAGES: u64 = 32;
/// Where a kernel maps physical address 0.
pub const BASE: u64 = 0xffff_8000_0000_0000;

/// The fuzzer's bytes, taken one after the other; zeros once there are no more.
#[derive(Clone, Debug)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// These bytes.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether there are any left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let (&first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        first
    }

    /// A number of so many bytes, eight at most.
    pub fn number(&mut self, bytes: usize) -> u64 {
        (0..bytes).fold(0, |number, _| number << 8 | u64::from(self.byte()))
    }

    /// Where a word of the guest's memory lies.
    pub fn place(&mut self) -> u64 {
        self.number(2) * 8 % (PAGES * PAGE_SIZE)
    }

    /// A word for the guest's memory: an entry, a pointer of the kernel's, a small
    /// number, or anything.
    pub fn word(&mut self) -> u64 {
        match self.byte() % 4 {
            0 => {
                let flags = self.number(2);
                let page = u64::from(self.byte()) % (PAGES + 1);
                page * PAGE_SIZE | flags & 0xfff | (flags >> 12 & 1) << 63 | 1
            }
            1 => BASE + self.place(),
            2 => u64::from(self.byte()),
            _ => self.number(8),
        }
    }

    /// The rest.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.0
    }
}

/// Memory.
#[derive(Clone, Debug)]
pub struct Memory {
    bytes: Vec<u8>,
}

impl Default for Memory {
    fn default() -> Self {
        Self { bytes: vec![0; (PAGES * PAGE_SIZE) as usize] }
    }
}

impl Memory {
    /// Writes a word at a place of [`Input::place`].
    pub fn set(&mut self, address: u64, value: u64) {
        let at = address as usize;
        self.bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    /// Writes words from the input until it has no more, or `most` were written.
    pub fn fill(&mut self, input: &mut Input<'_>, most: usize) {
        for _ in 0..most {
            if input.is_empty() {
                break;
            }
            let place = input.place();
            self.set(place, input.word());
        }
    }

    /// Maps all of it at [`BASE`], with the root table at `root` and three more
    /// tables behind it.
    pub fn map_as_kernel(&mut self, root: u64) {
        let open = EntryFlags::PRESENT | EntryFlags::WRITABLE;
        let mut table = root;
        for level in [Level::Four, Level::Three, Level::Two] {
            let index = level.index(pagelab_abi::addr::GuestVirt(BASE));
            let next = table + PAGE_SIZE;
            self.set(entry_address(GuestPhys(table), index).0, Entry::new(GuestPhys(next), open).0);
            table = next;
        }
        for page in 0..PAGES {
            let entry = Entry::new(GuestPhys(page * PAGE_SIZE), open | EntryFlags::NO_EXECUTE);
            self.set(table + page * 8, entry.0);
        }
    }
}

impl TableMemory for Memory {
    fn read_entry(&self, address: GuestPhys) -> Option<Entry> {
        let mut word = [0; 8];
        let readable = address.0.is_multiple_of(8) && self.read_physical(address, &mut word);
        readable.then(|| Entry(u64::from_le_bytes(word)))
    }
}

impl PhysicalMemory for Memory {
    fn read_physical(&self, address: GuestPhys, buffer: &mut [u8]) -> bool {
        let Ok(start) = usize::try_from(address.0) else { return false };
        let end = start.checked_add(buffer.len());
        let bytes = end.and_then(|end| self.bytes.get(start..end));
        bytes.map(|bytes| buffer.copy_from_slice(bytes)).is_some()
    }
}
