//! An address space that threads, and processes after `vfork`, may share.

use alloc::sync::Arc;
use core::sync::atomic::AtomicU64;

use pagelab_abi::addr::Frame;
use pagelab_abi::directory::{begin_change, end_change};
use pagelab_hal::memory::retire;
use pagelab_hal::sync::{Guard, Lock};
use pagelab_mm::{AddressSpace, Layout, LayoutShift, Limits, OutOfMemory};
use pagelab_vfs::executing::Executing;

use crate::memory::memory;
use crate::random;

/// An address space; destroyed with its last user.
pub struct Space {
    root: Frame,
    /// Tells the host whether what it reads of the space belongs together.
    sequence: AtomicU64,
    /// `None` only while it is being destroyed.
    inner: Lock<Option<AddressSpace>>,
    /// The program that is in it.
    executing: Lock<Option<Executing>>,
}

/// Access to an address space.
pub struct SpaceGuard<'a> {
    guard: Guard<'a, Option<AddressSpace>>,
    sequence: &'a AtomicU64,
}

impl Space {
    /// An empty one.
    ///
    /// # Errors
    ///
    /// If there is no frame for its root table.
    pub fn new(limits: Limits) -> Result<Arc<Self>, OutOfMemory> {
        // As many bits as Linux moves them by.
        const STACK_BITS: u32 = 22;
        const MAPPING_BITS: u32 = 28;
        let shift = LayoutShift {
            stack: random::shift_in_pages(STACK_BITS),
            mmap: random::shift_in_pages(MAPPING_BITS),
        };
        let layout = Layout::new(limits.stack, shift);
        Ok(Self::with(AddressSpace::new(memory(), layout, limits)?))
    }

    /// One that was made by fork.
    pub fn with(space: AddressSpace) -> Arc<Self> {
        let root = space.root();
        Arc::new(Self {
            root,
            sequence: AtomicU64::new(0),
            inner: Lock::new(Some(space)),
            executing: Lock::new(None),
        })
    }

    /// Notes which program is in it, so that nobody writes the program meanwhile.
    pub fn set_executing(&self, program: Option<Executing>) {
        *self.executing.lock() = program;
    }

    /// The program that is in it.
    pub fn executing(&self) -> Option<Executing> {
        self.executing.lock().clone()
    }

    /// The root table.
    #[inline]
    pub fn root(&self) -> Frame {
        self.root
    }

    /// Access to it.
    #[inline]
    #[track_caller]
    pub fn lock(&self) -> SpaceGuard<'_> {
        let guard = self.inner.lock();
        begin_change(&self.sequence);
        SpaceGuard { guard, sequence: &self.sequence }
    }

    /// Where the host finds the address space, and its sequence.
    pub fn published(&self) -> (u64, u64) {
        let space = self.inner.lock().as_ref().map_or(0, |space| core::ptr::from_ref(space) as u64);
        (space, core::ptr::from_ref(&self.sequence) as u64)
    }

    /// Access to it, unless somebody has it.
    pub fn try_lock(&self) -> Option<SpaceGuard<'_>> {
        let guard = self.inner.try_lock()?;
        begin_change(&self.sequence);
        Some(SpaceGuard { guard, sequence: &self.sequence })
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        retire(self.root);
        if let Some(space) = self.inner.lock().take() {
            space.destroy(memory());
        }
    }
}

impl core::ops::Deref for SpaceGuard<'_> {
    type Target = AddressSpace;

    #[inline]
    fn deref(&self) -> &AddressSpace {
        self.guard.as_ref().expect("an address space is there until it is dropped")
    }
}

impl core::ops::DerefMut for SpaceGuard<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut AddressSpace {
        self.guard.as_mut().expect("an address space is there until it is dropped")
    }
}

impl Drop for SpaceGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        end_change(self.sequence);
    }
}
