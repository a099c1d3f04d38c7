//! The guest's RAM: a memfd, mapped once, split at the hole below 4 GiB.
//!
//! [`GuestRam`] is shared by everything that looks at the guest: the loader, the
//! devices, and later whatever inspects or snapshots it. The memfd stays
//! reachable ([`GuestRam::file`], [`RamPart::file_offset`]) so that others can
//! map it too. All access goes through `vm-memory`: the guest may change every
//! byte at any time, so no Rust reference into it ever exists.
//!
//! * [`scatter`]: buffers in pieces, to and from files
//!
//! [`size`] turns what a user wrote after `--mem` into a size that can work.

pub mod scatter;
pub mod size;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use pagelab_abi::addr::{GuestPhys, PAGE_SIZE};
use pagelab_abi::layout::{HOLE_END, HOLE_START};
use pagelab_paging::entry::ENTRIES;
use pagelab_paging::{Entry, TableMemory, TableMemoryMut};
use rustix::fs::MemfdFlags;
use vm_memory::{
    Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, VolatileSlice,
};

pub use size::{MemorySize, SizeError};

/// Why there is no guest memory, or not there.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The memfd could not be made.
    #[error("cannot create {size} of guest memory: {source}")]
    Create {
        /// How much was wanted.
        size: MemorySize,
        /// What the host said.
        source: io::Error,
    },
    /// The memfd could not be mapped.
    #[error("cannot map {size} of guest memory: {source}")]
    Map {
        /// How much was wanted.
        size: MemorySize,
        /// What the host said.
        source: vm_memory::mmap::FromRangesError,
    },
    /// An address range is not RAM.
    #[error("{length} bytes at guest-physical {start} are not all RAM")]
    OutsideRam {
        /// First byte.
        start: GuestPhys,
        /// Length in bytes.
        length: u64,
    },
    /// The host could not read the memfd.
    #[error("cannot read {length} bytes of guest memory at {start}: {source}")]
    Peek {
        /// First byte.
        start: GuestPhys,
        /// Length in bytes.
        length: u64,
        /// What the host said.
        source: io::Error,
    },
}

/// A contiguous part of RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RamPart {
    /// Its first byte in the guest.
    pub start: GuestPhys,
    /// Its length in bytes.
    pub length: u64,
    /// Where it begins in the memfd.
    pub file_offset: u64,
}

impl RamPart {
    /// The first address behind it.
    #[must_use]
    pub const fn end(&self) -> GuestPhys {
        GuestPhys(self.start.0 + self.length)
    }
}

/// The guest's RAM.
#[derive(Debug)]
pub struct GuestRam {
    mmap: GuestMemoryMmap<()>,
    file: Arc<File>,
    parts: Vec<RamPart>,
    size: MemorySize,
}

impl GuestRam {
    /// Creates RAM of `size`; the host only provides the pages that are touched.
    ///
    /// # Errors
    ///
    /// If the host cannot create or map it.
    pub fn new(size: MemorySize) -> Result<Self, MemoryError> {
        let create = |source: io::Error| MemoryError::Create { size, source };
        let descriptor = rustix::fs::memfd_create("pagelab-ram", MemfdFlags::CLOEXEC)
            .map_err(|errno| create(errno.into()))?;
        let file = File::from(descriptor);
        file.set_len(size.bytes()).map_err(create)?;
        let file = Arc::new(file);
        let parts = split(size.bytes());
        let ranges = parts.iter().map(|part| {
            // A 64-bit host: every length of a file fits a usize.
            #[allow(clippy::cast_possible_truncation, reason = "usize has 64 bits here")]
            let length = part.length as usize;
            let offset = FileOffset::from_arc(Arc::clone(&file), part.file_offset);
            (GuestAddress(part.start.0), length, Some(offset))
        });
        let mmap = GuestMemoryMmap::from_ranges_with_files(ranges.collect::<Vec<_>>())
            .map_err(|source| MemoryError::Map { size, source })?;
        Ok(Self { mmap, file, parts, size })
    }

    /// How much there is.
    #[must_use]
    pub const fn size(&self) -> MemorySize {
        self.size
    }

    /// The parts, in order.
    #[must_use]
    pub fn parts(&self) -> &[RamPart] {
        &self.parts
    }

    /// End of the first part.
    #[must_use]
    pub fn low_end(&self) -> GuestPhys {
        self.parts.first().map_or(GuestPhys(0), RamPart::end)
    }

    /// The memfd behind it.
    #[must_use]
    pub const fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// The mapping, for whoever needs host addresses (KVM's memory slots).
    #[must_use]
    pub const fn mapping(&self) -> &GuestMemoryMmap<()> {
        &self.mmap
    }

    /// Whether all of the range is RAM, in one part.
    #[must_use]
    pub fn contains(&self, start: GuestPhys, length: u64) -> bool {
        start.checked_add(length).is_some_and(|end| {
            self.parts.iter().any(|part| part.start <= start && end <= part.end())
        })
    }

    /// The bytes of a range, where they lie.
    ///
    /// # Errors
    ///
    /// If the range is not RAM.
    pub fn slice(&self, start: GuestPhys, length: u64) -> Result<VolatileSlice<'_>, MemoryError> {
        let outside = || MemoryError::OutsideRam { start, length };
        if !self.contains(start, length) {
            return Err(outside());
        }
        let count = usize::try_from(length).map_err(|_| outside())?;
        self.mmap.get_slice(GuestAddress(start.0), count).map_err(|_| outside())
    }

    /// Copies from the guest.
    ///
    /// # Errors
    ///
    /// If the range is not RAM.
    pub fn read(&self, start: GuestPhys, buffer: &mut [u8]) -> Result<(), MemoryError> {
        self.slice(start, buffer.len() as u64)?.copy_to(buffer);
        Ok(())
    }

    /// Copies from the guest without a trace: pages that the host has not
    /// provided yet read as zeros and stay unprovided.
    ///
    /// # Errors
    ///
    /// If the range is not RAM, or the host cannot read its own memory.
    pub fn peek(&self, start: GuestPhys, buffer: &mut [u8]) -> Result<(), MemoryError> {
        let length = buffer.len() as u64;
        let offset = self.file_offset(start, length)?;
        self.file.read_exact_at(buffer, offset).map_err(|source| MemoryError::Peek {
            start,
            length,
            source,
        })
    }

    /// Reads the page table at `start`, each entry as a whole; `false` if it is
    /// not RAM.
    pub fn peek_table(&self, start: GuestPhys, table: &mut [u64; ENTRIES]) -> bool {
        let Ok(slice) = self.slice(start, PAGE_SIZE) else { return false };
        for (index, entry) in table.iter_mut().enumerate() {
            match slice.load(index * size_of::<u64>(), Ordering::Relaxed) {
                Ok(value) => *entry = value,
                Err(_) => return false,
            }
        }
        true
    }

    /// Where a range begins in the memfd.
    ///
    /// # Errors
    ///
    /// If the range is not RAM, in one part.
    pub fn file_offset(&self, start: GuestPhys, length: u64) -> Result<u64, MemoryError> {
        let end = start.checked_add(length);
        self.parts
            .iter()
            .find(|part| part.start <= start && end.is_some_and(|end| end <= part.end()))
            .map(|part| part.file_offset + (start.0 - part.start.0))
            .ok_or(MemoryError::OutsideRam { start, length })
    }

    /// Which guest-physical address a place in the memfd is, if any.
    #[must_use]
    pub fn address_of_offset(&self, offset: u64) -> Option<GuestPhys> {
        self.parts.iter().find_map(|part| {
            let inside = offset.checked_sub(part.file_offset)?;
            (inside < part.length).then_some(GuestPhys(part.start.0 + inside))
        })
    }

    /// Copies to the guest.
    ///
    /// # Errors
    ///
    /// If the range is not RAM.
    pub fn write(&self, start: GuestPhys, bytes: &[u8]) -> Result<(), MemoryError> {
        self.slice(start, bytes.len() as u64)?.copy_from(bytes);
        Ok(())
    }
}

/// Cuts RAM of `size` bytes at the hole.
fn split(size: u64) -> Vec<RamPart> {
    let low = size.min(HOLE_START.0);
    let mut parts = vec![RamPart { start: GuestPhys(0), length: low, file_offset: 0 }];
    if size > low {
        parts.push(RamPart { start: HOLE_END, length: size - low, file_offset: low });
    }
    parts
}

impl TableMemory for GuestRam {
    fn read_entry(&self, address: GuestPhys) -> Option<Entry> {
        self.mmap.load(GuestAddress(address.0), Ordering::Relaxed).ok().map(Entry)
    }
}

impl TableMemory for &GuestRam {
    fn read_entry(&self, address: GuestPhys) -> Option<Entry> {
        (**self).read_entry(address)
    }
}

impl TableMemoryMut for &GuestRam {
    fn write_entry(&mut self, address: GuestPhys, entry: Entry) -> bool {
        self.mmap.store(entry.0, GuestAddress(address.0), Ordering::Relaxed).is_ok()
    }
}
