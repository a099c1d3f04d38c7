//! The host's side of the shared pages (`pagelab_abi::lab`).
//!
//! [`SharedPages`] knows where they are once the guest has registered them and
//! reads counters while the guest runs. [`events`] reads the event ring and
//! [`input`] writes the input ring.
//!
//! The guest may write anything into these pages at any time. Nothing here
//! trusts a value in them: every read is of a fixed number of bytes, what the
//! host has written is kept in host memory, and loops are bounded by the size of
//! a ring.

pub mod events;
pub mod input;
#[cfg(test)]
mod tests;

use std::mem::offset_of;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use pagelab_abi::addr::{Frame, GuestPhys};
use pagelab_abi::fault::FAULT_KINDS;
use pagelab_abi::lab::{
    FaultCounters, FrameCounters, HEADER_OFFSET, Header, LAB_MAGIC, Milestones, Request,
    SHARED_PAGES, SHARED_SIZE,
};
use vm_memory::{AtomicAccess, Bytes, VolatileSlice};
use zerocopy::FromZeros;
use zerocopy::IntoBytes;

use crate::memory::{GuestRam, MemoryError};

/// Why pages are not taken as the shared pages.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// There are some already.
    #[error("the guest registered its shared pages a second time")]
    Twice,
    /// They are not all RAM.
    #[error("the guest's shared pages are not in RAM: {0}")]
    OutsideRam(#[from] MemoryError),
    /// They begin at address 0.
    #[error("the guest's shared pages begin at address 0, which is never used")]
    Null,
    /// Not what they should be.
    #[error("the guest's shared pages do not begin with their mark (found {0:#x})")]
    Magic(u64),
    /// Made for another version.
    #[error(
        "the guest's shared pages are of version {found}, this pagelab's of version {}: \
         kernel and pagelab are from different builds",
        pagelab_abi::VERSION
    )]
    Version {
        /// Their version.
        found: u32,
    },
    /// Another number of them.
    #[error("the guest says {0} shared pages; there are {SHARED_PAGES}")]
    Pages(u32),
}

/// Counters at one moment. Each is exact; together they are as consistent as a
/// running guest lets them be, and wholly so once it has stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Faults of all processes.
    pub faults: FaultCounters,
    /// Use of physical memory.
    pub frames: FrameCounters,
    /// When what happened.
    pub milestones: Milestones,
    /// Events that the guest has written.
    pub events_written: u64,
}

/// The shared pages, as the host sees them.
#[derive(Debug)]
pub struct SharedPages {
    ram: Arc<GuestRam>,
    /// Their address; 0 while there are none.
    start: AtomicU64,
    flags: AtomicU32,
    break_kinds: AtomicU32,
    terminal_size: AtomicU32,
}

impl SharedPages {
    /// No pages yet; `flags` are the `FLAG_*` that the guest will find.
    #[must_use]
    pub const fn new(ram: Arc<GuestRam>, flags: u32) -> Self {
        Self {
            ram,
            start: AtomicU64::new(0),
            flags: AtomicU32::new(flags),
            break_kinds: AtomicU32::new(0),
            terminal_size: AtomicU32::new(0),
        }
    }

    /// Takes the pages from `first` on, as the guest asks.
    ///
    /// # Errors
    ///
    /// If they are not what they should be, or if there are some already.
    pub fn register(&self, first: Frame) -> Result<(), RegisterError> {
        if self.start().is_some() {
            return Err(RegisterError::Twice);
        }
        let start = first.start();
        if start.0 == 0 {
            return Err(RegisterError::Null);
        }
        let pages = self.ram.slice(start, SHARED_SIZE as u64)?;
        let magic: u64 = load(&pages, offset_of!(Header, magic));
        if magic != LAB_MAGIC {
            return Err(RegisterError::Magic(magic));
        }
        let found: u32 = load(&pages, offset_of!(Header, version));
        if found != pagelab_abi::VERSION {
            return Err(RegisterError::Version { found });
        }
        let count: u32 = load(&pages, offset_of!(Header, pages));
        if count != SHARED_PAGES {
            return Err(RegisterError::Pages(count));
        }
        // Sequentially consistent with the setters below: whichever of the two
        // comes second writes the value into the page.
        self.start.store(start.0, Ordering::SeqCst);
        self.publish();
        Ok(())
    }

    /// The memory that they are in.
    #[must_use]
    pub const fn ram(&self) -> &Arc<GuestRam> {
        &self.ram
    }

    /// Whether there are any.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        self.start().is_some()
    }

    /// Where they are.
    #[must_use]
    pub fn start(&self) -> Option<GuestPhys> {
        match self.start.load(Ordering::SeqCst) {
            0 => None,
            start => Some(GuestPhys(start)),
        }
    }

    /// The `FLAG_*` that the guest finds.
    #[must_use]
    pub fn flags(&self) -> u32 {
        self.flags.load(Ordering::SeqCst)
    }

    /// Tells the guest which events are wanted (`FLAG_*`).
    pub fn set_flags(&self, flags: u32) {
        self.flags.store(flags, Ordering::SeqCst);
        self.publish();
    }

    /// Has the guest ring the doorbell after each event of these fault kinds (a
    /// bit each).
    pub fn set_break_kinds(&self, kinds: u32) {
        self.break_kinds.store(kinds, Ordering::SeqCst);
        self.publish();
    }

    /// Tells the guest the size of the terminal.
    pub fn set_terminal_size(&self, rows: u16, columns: u16) {
        let size = u32::from(rows) << 16 | u32::from(columns);
        self.terminal_size.store(size, Ordering::SeqCst);
        self.publish();
    }

    /// The counters as they are now.
    #[must_use]
    pub fn snapshot(&self) -> Option<Snapshot> {
        let pages = self.pages()?;
        let mut snapshot = Snapshot {
            events_written: load(&pages, offset_of!(Header, events_written)),
            ..Snapshot::default()
        };
        load_words(&pages, offset_of!(Header, faults), snapshot.faults.as_mut_bytes());
        load_words(&pages, offset_of!(Header, frames), snapshot.frames.as_mut_bytes());
        load_words(&pages, offset_of!(Header, milestones), snapshot.milestones.as_mut_bytes());
        Some(snapshot)
    }

    /// Where the guest kernel's directory of its own structures is
    /// (`pagelab_abi::directory`), if it has said so.
    #[must_use]
    pub fn directory(&self) -> Option<GuestPhys> {
        match load(&self.pages()?, offset_of!(Header, directory)) {
            0 => None,
            address => Some(GuestPhys(address)),
        }
    }

    /// A copy of the request that the doorbell is about. Made once: what the
    /// guest changes afterwards is not seen.
    #[must_use]
    pub fn request(&self) -> Option<Request> {
        let pages = self.pages()?;
        let mut request = Request::new_zeroed();
        let place = pages.subslice(offset_of!(Header, request), size_of::<Request>()).ok()?;
        place.copy_to(request.as_mut_bytes());
        Some(request)
    }

    fn publish(&self) {
        if let Some(pages) = self.pages() {
            store(&pages, offset_of!(Header, host_flags), self.flags.load(Ordering::SeqCst));
            let kinds = self.break_kinds.load(Ordering::SeqCst);
            store(&pages, offset_of!(Header, break_kinds), kinds);
            let size = self.terminal_size.load(Ordering::SeqCst);
            store(&pages, offset_of!(Header, terminal_size), size);
        }
    }

    /// All of them, checked to be RAM when they were registered.
    fn pages(&self) -> Option<VolatileSlice<'_>> {
        self.ram.slice(self.start()?, SHARED_SIZE as u64).ok()
    }
}

/// Loads a field of the pages. Offsets are constants inside them and aligned,
/// so there is nothing that could fail.
fn load<T: AtomicAccess + Default>(pages: &VolatileSlice<'_>, offset: usize) -> T {
    pages.load(HEADER_OFFSET + offset, Ordering::Acquire).unwrap_or_default()
}

fn store<T: AtomicAccess>(pages: &VolatileSlice<'_>, offset: usize, value: T) {
    if let Err(error) = pages.store(value, HEADER_OFFSET + offset, Ordering::Release) {
        log::error!("shared page offset {offset:#x}: {error}");
    }
}

/// Loads counters of 64 bits one by one, so that none is ever torn.
fn load_words(pages: &VolatileSlice<'_>, offset: usize, into: &mut [u8]) {
    for (index, word) in into.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&load::<u64>(pages, offset + index * 8).to_ne_bytes());
    }
}

const _: () = {
    assert!(offset_of!(Header, faults).is_multiple_of(8));
    assert!(offset_of!(Header, frames).is_multiple_of(8));
    assert!(offset_of!(Header, milestones).is_multiple_of(8));
    assert!(size_of::<FaultCounters>() == FAULT_KINDS * 16);
};
