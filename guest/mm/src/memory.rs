//! What all address spaces share.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize};

use pagelab_abi::addr::Frame;
use pagelab_paging::Entry;
use pagelab_paging::entry::ENTRIES;

use crate::commit::Commit;
use crate::error::{MmError, OutOfMemory};
use crate::frames::{Frames, Use};
use crate::machine::Machine;
use crate::object::{HoldsSlots, ObjectId, Objects};
use crate::swap::Swap;

/// First entry of a root that belongs to the kernel.
const KERNEL_HALF: usize = ENTRIES / 2;

/// How many entries of the kernel's half may be present: each is 512 GiB of
/// addresses, so even 16 TiB of memory are mapped by 32.
const MAX_KERNEL_ENTRIES: usize = 48;

/// Why [`Memory::new`] fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryError {
    /// There is no frame for the zero page.
    OutOfMemory,
    /// The kernel's root has more entries than can be kept.
    TooManyKernelEntries,
}

/// Machine, frames, objects and promises: the context of every operation. The
/// kernel has one.
pub struct Memory<M> {
    /// The hardware.
    pub machine: M,
    /// Physical memory.
    pub frames: &'static Frames,
    /// Shared memory, files, programs.
    pub objects: Objects,
    /// Promised memory.
    pub commit: Commit,
    /// Where anonymous pages go when memory runs short.
    pub swap: Swap,
    /// How many pages a fault on a file may map besides the one it needs, with
    /// that one; see `fault_around`.
    pub fault_around: AtomicU32,
    /// Some program gave up memory (`MADV_FREE`) that may not be dropped yet.
    pub(crate) given_up: AtomicBool,
    /// Where the next search for victims goes on; see [`crate::reclaim`].
    pub(crate) clock_hand: AtomicUsize,
    zero_page: Frame,
    /// The kernel's entries by index; the rest is not present.
    kernel_half: [(usize, Entry); MAX_KERNEL_ENTRIES],
}

impl<M: Machine> Memory<M> {
    /// Makes the zero page and notes the kernel's entries of `kernel_root`,
    /// which every address space gets; they must not change afterwards. Takes
    /// nothing from the heap, which may itself need `frames`.
    ///
    /// # Errors
    ///
    /// See [`MemoryError`].
    pub fn new(
        machine: M,
        frames: &'static Frames,
        kernel_root: Option<Frame>,
    ) -> Result<Self, MemoryError> {
        let zero_page =
            frames.alloc_zeroed(&machine, Use::Special).ok_or(MemoryError::OutOfMemory)?;
        let mut kernel_half = [(KERNEL_HALF, Entry::EMPTY); MAX_KERNEL_ENTRIES];
        let mut slots = kernel_half.iter_mut();
        for index in KERNEL_HALF..ENTRIES {
            let entry = kernel_root.map_or(Entry::EMPTY, |root| machine.read_entry(root, index));
            if entry.is_present() {
                *slots.next().ok_or(MemoryError::TooManyKernelEntries)? = (index, entry);
            }
        }
        let commit = Commit::new(frames.counters().total);
        Ok(Self {
            machine,
            frames,
            objects: Objects::new(),
            commit,
            swap: Swap::new(),
            fault_around: AtomicU32::new(1),
            given_up: AtomicBool::new(false),
            clock_hand: AtomicUsize::new(0),
            zero_page,
            kernel_half,
        })
    }

    fn kernel_entries(&self) -> impl Iterator<Item = &(usize, Entry)> {
        self.kernel_half.iter().take_while(|(_, entry)| entry.is_present())
    }

    /// The frame of zeros that every first read of anonymous memory shows.
    pub const fn zero_page(&self) -> Frame {
        self.zero_page
    }

    /// A new root with the kernel's half filled in.
    pub(crate) fn new_root(&self) -> Result<Frame, OutOfMemory> {
        let root = self.frames.alloc_zeroed(&self.machine, Use::Table).ok_or(OutOfMemory)?;
        for &(index, entry) in self.kernel_entries() {
            self.machine.write_entry(root, index, entry);
        }
        Ok(root)
    }

    /// Releases a root below which nothing is mapped any more.
    pub(crate) fn release_root(&self, root: Frame) {
        for &(index, _) in self.kernel_entries() {
            self.machine.write_entry(root, index, Entry::EMPTY);
        }
        self.machine.retire_table(root);
        self.frames.hold().release_zeroed(&self.machine, root);
    }

    /// One reference to an object less; with the last one it goes, and so do the
    /// promises made for it.
    pub fn release_object(&self, id: ObjectId) {
        loop {
            match self.objects.release(&self.machine, self.frames, id) {
                Ok(None) => return,
                Ok(Some(promised)) => return self.commit.take_back(promised),
                Err(HoldsSlots) => self.drop_slots(id, 0..u64::MAX),
            }
        }
    }

    /// Promises memory, see [`Commit::promise`].
    pub(crate) fn promise(&self, pages: u64, mapped: u64) -> Result<(), MmError> {
        self.commit.promise(pages, mapped)
    }
}
