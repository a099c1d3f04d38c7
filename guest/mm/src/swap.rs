//! Swap: where anonymous pages are when they are not in memory.
//!
//! A *slot* is a page's worth of the swap device. An entry of a page table that
//! is not present may hold a slot ([`Entry::for_swap`]); a slot is in use as
//! long as an entry holds it, and counts how many do. A page that processes
//! share after fork is written once, and all their entries hold its slot.
//!
//! The *swap cache* is an object of kind [`ObjectKind::Swap`], whose page *n* is
//! a frame with what slot *n* holds: on its way out until it is written, and on
//! its way in until the last entry that held the slot has come back. So those
//! who shared a page find it shared again. A frame that is in the swap cache is
//! never written: who wants to write it gets a copy, as the others must find
//! what they left.
//!
//! Locking: one spin lock around the counts, the innermost of all.
//!
//! [`Entry::for_swap`]: pagelab_paging::Entry::for_swap

use alloc::vec::Vec;

use spin::Mutex;

use crate::error::{MmError, OutOfMemory};
use crate::machine::Machine;
use crate::memory::Memory;
use crate::object::{ObjectId, ObjectKind, Page};
use crate::owner::MAX_SLOTS;

/// The first slot holds no page, so that no entry with a slot is empty; swap
/// areas of Linux have their header there.
const FIRST_SLOT: usize = 1;

/// The swap area, if there is one.
pub struct Swap {
    inner: Mutex<Option<Slots>>,
}

struct Slots {
    object: ObjectId,
    /// How many hold each slot.
    counts: Vec<u32>,
    /// Where the search for a free one goes on.
    next: usize,
    free: u64,
}

/// How swap is used, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SwapUse {
    /// All slots.
    pub total: u64,
    /// Slots that nobody holds.
    pub free: u64,
    /// Slots whose page is in memory as well.
    pub cached: u64,
}

impl Swap {
    /// No swap.
    #[must_use]
    pub const fn new() -> Self {
        Self { inner: Mutex::new(None) }
    }

    /// The object that is the swap cache.
    pub fn object(&self) -> Option<ObjectId> {
        self.inner.lock().as_ref().map(|slots| slots.object)
    }

    /// Whether any slot is free.
    pub(crate) fn has_room(&self) -> bool {
        self.inner.lock().as_ref().is_some_and(|slots| slots.free > 0)
    }

    /// A free slot, held by the caller, preferably the one after the last: what
    /// goes out together is written together.
    pub(crate) fn take(&self) -> Option<(ObjectId, u64)> {
        let mut inner = self.inner.lock();
        let slots = inner.as_mut()?;
        let is_free = |&(_, &count): &(usize, &u32)| count == 0;
        let all = || slots.counts.iter().enumerate().skip(FIRST_SLOT);
        let behind = || slots.counts.iter().enumerate().skip(slots.next);
        let slot = (slots.free > 0).then(|| behind().find(is_free).or_else(|| all().find(is_free)));
        let slot = slot??.0;
        slots.counts[slot] = 1;
        slots.next = slot + 1;
        slots.free -= 1;
        Some((slots.object, slot as u64))
    }

    /// One more holds a slot.
    pub(crate) fn share(&self, slot: u64) {
        self.with_count(slot, |_, count| *count += 1);
    }

    /// How many hold a slot.
    pub fn count(&self, slot: u64) -> u32 {
        self.with_count(slot, |_, count| *count)
    }

    /// One less holds a slot, unless that one is the last. Returns the object if
    /// it is, and nothing was done.
    fn release_unless_last(&self, slot: u64) -> Option<ObjectId> {
        self.with_count(slot, |object, count| {
            if *count == 1 {
                return Some(object);
            }
            *count -= 1;
            None
        })
    }

    /// The last one who held a slot lets it go.
    fn free(&self, slot: u64) {
        self.with_count(slot, |_, count| *count = 0);
        if let Some(slots) = self.inner.lock().as_mut() {
            slots.free += 1;
        }
    }

    /// # Panics
    ///
    /// If the slot is free: using it is a bug, as with a frame.
    fn with_count<R>(&self, slot: u64, operation: impl FnOnce(ObjectId, &mut u32) -> R) -> R {
        let mut inner = self.inner.lock();
        let number = usize::try_from(slot).unwrap_or(usize::MAX);
        match inner.as_mut().and_then(|s| Some((s.object, s.counts.get_mut(number)?))) {
            Some((object, count)) if *count > 0 => operation(object, count),
            _ => panic!("slot {slot} of swap is used, and free"),
        }
    }
}

impl Default for Swap {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: Machine> Memory<M> {
    /// From now on anonymous pages may go to a device of `pages` pages, the first
    /// of which is left as it is. Returns the object whose missing pages are read
    /// from there.
    ///
    /// # Errors
    ///
    /// `Busy` if there is swap already, `Invalid` if that is too little or too
    /// much, `OutOfMemory`.
    pub fn swap_on(&self, pages: u64) -> Result<ObjectId, MmError> {
        if self.swap.object().is_some() {
            return Err(MmError::Busy);
        }
        if pages <= FIRST_SLOT as u64 || pages > MAX_SLOTS {
            return Err(MmError::Invalid);
        }
        let length = usize::try_from(pages).map_err(|_| MmError::Invalid)?;
        let mut counts = Vec::new();
        counts.try_reserve_exact(length).map_err(OutOfMemory::from)?;
        counts.resize(length, 0);
        let object = self.objects.create(ObjectKind::Swap, pages, 0)?;
        let free = pages - FIRST_SLOT as u64;
        *self.swap.inner.lock() = Some(Slots { object, counts, next: FIRST_SLOT, free });
        self.commit.add_swap(free);
        Ok(object)
    }

    /// No swap any more.
    ///
    /// # Errors
    ///
    /// `Busy` if somebody still holds a slot.
    pub fn swap_off(&self) -> Result<(), MmError> {
        let usage = self.swap_use();
        if usage.free < usage.total {
            return Err(MmError::Busy);
        }
        if let Some(slots) = self.swap.inner.lock().take() {
            self.commit.take_swap(usage.total);
            self.release_object(slots.object);
        }
        Ok(())
    }

    /// How swap is used.
    pub fn swap_use(&self) -> SwapUse {
        let Some((object, mut usage)) = self.swap.inner.lock().as_ref().map(|slots| {
            let total = (slots.counts.len() - FIRST_SLOT) as u64;
            (slots.object, SwapUse { total, free: slots.free, cached: 0 })
        }) else {
            return SwapUse::default();
        };
        usage.cached = self.objects.resident(object);
        usage
    }

    /// One entry less holds a slot. With the last one the slot is free, and a frame
    /// that was in the swap cache is an anonymous one like any other. Neither
    /// frames nor objects may be locked.
    pub(crate) fn release_slot(&self, slot: u64) {
        let Some(object) = self.swap.release_unless_last(slot) else { return };
        let (machine, frames) = (&self.machine, self.frames);
        if let Some(frame) = self.objects.remove(machine, frames, object, slot) {
            let mut held = frames.hold();
            held.set_slot(frame, 0);
            // Nowhere else any more.
            held.set_dirty(frame, true);
            held.release(machine, frame);
        }
        self.swap.free(slot);
    }

    /// Whether the page of a slot is in memory.
    pub(crate) fn is_cached(&self, slot: u64) -> bool {
        self.swap.object().is_some_and(|object| {
            matches!(self.objects.lookup(&self.machine, object, slot).0, Page::Present(_))
        })
    }
}
