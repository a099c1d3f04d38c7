//! What all address spaces share.

use alloc::vec::Vec;

use pagelab_abi::addr::Frame;
use pagelab_paging::Entry;
use pagelab_paging::entry::ENTRIES;

use crate::commit::Commit;
use crate::error::{MmError, OutOfMemory};
use crate::frames::{Frames, Use};
use crate::machine::Machine;
use crate::object::{ObjectId, Objects};

/// First entry of a root that belongs to the kernel.
const KERNEL_HALF: usize = ENTRIES / 2;

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
    zero_page: Frame,
    kernel_half: Vec<(usize, Entry)>,
}

impl<M: Machine> Memory<M> {
    /// Makes the zero page and notes the kernel's entries of `kernel_root`,
    /// which every address space gets; they must not change afterwards.
    ///
    /// # Errors
    ///
    /// If there is no memory.
    pub fn new(
        machine: M,
        frames: &'static Frames,
        kernel_root: Option<Frame>,
    ) -> Result<Self, OutOfMemory> {
        let zero_page = frames.alloc_zeroed(&machine, Use::Special).ok_or(OutOfMemory)?;
        let mut kernel_half = Vec::new();
        if let Some(root) = kernel_root {
            for index in KERNEL_HALF..ENTRIES {
                let entry = machine.read_entry(root, index);
                if entry.is_present() {
                    kernel_half.try_reserve(1)?;
                    kernel_half.push((index, entry));
                }
            }
        }
        let commit = Commit::new(frames.counters().total);
        Ok(Self { machine, frames, objects: Objects::new(), commit, zero_page, kernel_half })
    }

    /// The frame of zeros that every first read of anonymous memory shows.
    pub const fn zero_page(&self) -> Frame {
        self.zero_page
    }

    /// A new root with the kernel's half filled in.
    pub(crate) fn new_root(&self) -> Result<Frame, OutOfMemory> {
        let root = self.frames.alloc_zeroed(&self.machine, Use::Table).ok_or(OutOfMemory)?;
        for &(index, entry) in &self.kernel_half {
            self.machine.write_entry(root, index, entry);
        }
        Ok(root)
    }

    /// Releases a root below which nothing is mapped any more.
    pub(crate) fn release_root(&self, root: Frame) {
        for &(index, _) in &self.kernel_half {
            self.machine.write_entry(root, index, Entry::EMPTY);
        }
        self.frames.hold().release_zeroed(&self.machine, root);
    }

    /// One reference to an object less; with the last one it goes, and so do the
    /// promises made for it.
    pub fn release_object(&self, id: ObjectId) {
        if let Some(promised) = self.objects.release(&self.machine, self.frames, id) {
            self.commit.take_back(promised);
        }
    }

    /// Promises memory, see [`Commit::promise`].
    pub(crate) fn promise(&self, pages: u64, mapped: u64) -> Result<(), MmError> {
        self.commit.promise(pages, mapped)
    }
}
