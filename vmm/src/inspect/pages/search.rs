//! Looking for bytes or numbers in a guest's memory.
//!
//! Memory is read page by page through the tables, or physically; what the
//! guest never touched is not read into existence. A pattern may reach over
//! the end of a page where the next page follows in the same address space.

use std::fmt;

use pagelab_abi::addr::{GuestPhys, PAGE_SIZE};
use serde::Serialize;

use super::filter::Filter;
use super::scan::{Problem, Range, Run, Visitor, scan};
use crate::inspect::PhysicalMemory;
use crate::inspect::value::Hex;

/// What is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<u8>);

/// Why a pattern cannot be looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It is empty.
    #[error("there is nothing to look for")]
    Empty,
    /// It is longer than a page.
    #[error("a pattern has at most {PAGE_SIZE} bytes")]
    TooLong,
}

impl Pattern {
    /// Bytes.
    ///
    /// # Errors
    ///
    /// If there are none, or more than a page of them.
    pub fn bytes(bytes: &[u8]) -> Result<Self, PatternError> {
        match bytes.len() as u64 {
            0 => Err(PatternError::Empty),
            1..=PAGE_SIZE => Ok(Self(bytes.to_vec())),
            _ => Err(PatternError::TooLong),
        }
    }

    /// A number of four bytes.
    #[must_use]
    pub fn four_bytes(value: u32) -> Self {
        Self(value.to_le_bytes().to_vec())
    }

    /// A number of eight bytes.
    #[must_use]
    pub fn eight_bytes(value: u64) -> Self {
        Self(value.to_le_bytes().to_vec())
    }
}

/// Where and how to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchRequest {
    /// What for.
    pub pattern: Pattern,
    /// Only at addresses that are a multiple of this; 0 and 1 are any address.
    pub alignment: u64,
    /// Where: virtual addresses, or physical ones for [`search_physical`].
    pub range: Range,
    /// In which pages; for [`search_physical`] it does not count.
    pub filter: Filter,
    /// How many places at most.
    pub limit: usize,
}

/// A place that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Its virtual address; for [`search_physical`] there is none.
    pub address: Option<Hex>,
    /// Its guest-physical address.
    pub physical: Hex,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Found {
    /// Where, in order of address.
    pub places: Vec<Place>,
    /// There would have been more.
    pub truncated: bool,
    /// How many bytes were looked at.
    pub bytes: u64,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for place in &self.places {
            match place.address {
                Some(address) => writeln!(f, "{address:>18} (physical {})", place.physical)?,
                None => writeln!(f, "{:>18}", place.physical)?,
            }
        }
        if self.truncated {
            writeln!(f, "... and more")?;
        }
        writeln!(f, "{} found in {} bytes", self.places.len(), self.bytes)
    }
}

/// Looks below `root`.
#[must_use]
pub fn search<M: PhysicalMemory>(memory: &M, root: GuestPhys, request: &SearchRequest) -> Found {
    let mut searcher = Searcher::new(memory, request);
    scan(memory, root, &[request.range], &mut searcher);
    searcher.found
}

/// Looks in guest-physical memory.
#[must_use]
pub fn search_physical<M: PhysicalMemory>(
    memory: &M,
    parts: impl IntoIterator<Item = (GuestPhys, u64)>,
    request: &SearchRequest,
) -> Found {
    let mut searcher = Searcher::new(memory, request);
    for (start, length) in parts {
        let mut at = start.0;
        while at < start.0.saturating_add(length) && !searcher.found.truncated {
            if request.range.overlaps(Range::new(at, PAGE_SIZE)) {
                searcher.page(at, GuestPhys(at), false);
            }
            at += PAGE_SIZE;
        }
    }
    searcher.found
}

struct Searcher<'a, M> {
    memory: &'a M,
    request: &'a SearchRequest,
    found: Found,
    /// The end of the page before, as long as the pattern less one byte, and
    /// where each was: address and physical address of its first byte.
    tail: Vec<u8>,
    tail_at: (u64, u64),
    buffer: Vec<u8>,
}

impl<'a, M: PhysicalMemory> Searcher<'a, M> {
    const fn new(memory: &'a M, request: &'a SearchRequest) -> Self {
        Self {
            memory,
            request,
            found: Found { places: Vec::new(), truncated: false, bytes: 0 },
            tail: Vec::new(),
            tail_at: (0, 0),
            buffer: Vec::new(),
        }
    }

    /// Looks in one page, which shows at `address`.
    fn page(&mut self, address: u64, physical: GuestPhys, is_virtual: bool) {
        const PAGE: usize = 4096;
        let follows = self.tail_at.0.checked_add(self.tail.len() as u64) == Some(address);
        if !follows {
            self.tail.clear();
        }
        let before = self.tail.len();
        self.buffer.clear();
        self.buffer.extend_from_slice(&self.tail);
        self.buffer.resize(before + PAGE, 0);
        if !self.memory.read_physical(physical, &mut self.buffer[before..]) {
            self.tail.clear();
            return;
        }
        self.found.bytes += PAGE_SIZE;
        let pattern = &self.request.pattern.0;
        let first_byte = pattern[0];
        let mut from = 0;
        // Only the first byte is compared until it fits.
        while let Some(skip) = self.buffer[from..].iter().position(|&byte| byte == first_byte) {
            let at = from + skip;
            if self.buffer.len() - at < pattern.len() {
                break;
            }
            from = at + 1;
            if self.buffer[at..].starts_with(pattern) {
                let (place, place_physical) = if at < before {
                    (self.tail_at.0 + at as u64, self.tail_at.1 + at as u64)
                } else {
                    let within = (at - before) as u64;
                    (address + within, physical.0 + within)
                };
                self.note(place, place_physical, is_virtual);
            }
        }
        let keep = (pattern.len() - 1).min(PAGE);
        let tail_start = self.buffer.len() - keep;
        self.tail.clear();
        self.tail.extend_from_slice(&self.buffer[tail_start..]);
        let back = keep as u64;
        self.tail_at = (address + PAGE_SIZE - back, physical.0 + PAGE_SIZE - back);
    }

    fn note(&mut self, address: u64, physical: u64, is_virtual: bool) {
        let Range { first, last } = self.request.range;
        let end = address.saturating_add(self.request.pattern.0.len() as u64 - 1);
        if address < first || end > last {
            return;
        }
        if self.request.alignment > 1 && !address.is_multiple_of(self.request.alignment) {
            return;
        }
        if self.found.places.len() >= self.request.limit {
            self.found.truncated = true;
            return;
        }
        let address = is_virtual.then_some(Hex(address));
        self.found.places.push(Place { address, physical: Hex(physical) });
    }
}

impl<M: PhysicalMemory> Visitor for Searcher<'_, M> {
    fn pages(&mut self, run: &Run) {
        let Some(run) = self.request.filter.wanted(run) else { return };
        let mut offset = 0;
        while offset < run.bytes() && !self.found.truncated {
            let address = run.start + offset;
            if self.request.range.overlaps(Range::new(address, PAGE_SIZE)) {
                self.page(address, GuestPhys(run.physical() + offset), true);
            }
            offset += PAGE_SIZE;
        }
    }

    fn problem(&mut self, _: Problem) {}

    fn is_done(&self) -> bool {
        self.found.truncated
    }
}
