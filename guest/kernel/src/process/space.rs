//! An address space that threads, and processes after `vfork`, may share.

use alloc::sync::Arc;

use pagelab_abi::addr::Frame;
use pagelab_hal::memory::retire;
use pagelab_hal::sync::{Guard, Lock};
use pagelab_mm::{AddressSpace, Layout, LayoutShift, Limits, OutOfMemory};

use crate::memory::memory;
use crate::random;

/// An address space; destroyed with its last user.
pub struct Space {
    root: Frame,
    /// `None` only while it is being destroyed.
    inner: Lock<Option<AddressSpace>>,
}

/// Access to an address space.
pub struct SpaceGuard<'a>(Guard<'a, Option<AddressSpace>>);

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
        Arc::new(Self { root: space.root(), inner: Lock::new(Some(space)) })
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
        SpaceGuard(self.inner.lock())
    }

    /// Access to it, unless somebody has it.
    pub fn try_lock(&self) -> Option<SpaceGuard<'_>> {
        self.inner.try_lock().map(SpaceGuard)
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
        self.0.as_ref().expect("an address space is there until it is dropped")
    }
}

impl core::ops::DerefMut for SpaceGuard<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut AddressSpace {
        self.0.as_mut().expect("an address space is there until it is dropped")
    }
}
