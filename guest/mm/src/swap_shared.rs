//! Shared memory in swap.
//!
//! Entries of page tables never hold slots for it: its object does. Where the
//! index of an object of shared memory had the frame it has the slot then, all
//! entries that mapped the page are empty, and whoever touches it next moves the
//! frame back from the swap cache. So a slot of shared memory has one holder.
//!
//! An object of a single page has no table in its index, and stays in memory.

use core::ops::Range;

use pagelab_abi::addr::Frame;
use pagelab_abi::fault::FaultKind;

use crate::error::{FaultError, NeedsPage};
use crate::fault::{Fault, Resolved};
use crate::frames::{Frames, Use};
use crate::machine::Machine;
use crate::memory::Memory;
use crate::object::{ObjectId, Objects};
use crate::owner;
use crate::reclaim::{Pager, Sweep};
use crate::space::AddressSpace;

impl AddressSpace {
    /// A fault on a page of shared memory that is in swap.
    pub(crate) fn swap_in_shared<M: Machine>(
        &mut self,
        fault: &Fault<'_, M>,
        (object, index): (ObjectId, u64),
        slot: u64,
    ) -> Result<Resolved, FaultError> {
        let Memory { machine, frames, objects, swap, .. } = fault.memory;
        let cache = swap.object().ok_or(FaultError::NoBacking)?;
        if !objects.move_in(machine, frames, (object, index), (cache, slot)) {
            return Err(FaultError::NeedsPage(NeedsPage { object: cache, index: slot }));
        }
        fault.memory.release_slot(slot);
        let resolved = self.fault_object(fault, object)?;
        Ok(Resolved { kind: FaultKind::SwapIn, ..resolved })
    }
}

impl<M: Machine, P: Pager + ?Sized> Sweep<'_, M, P> {
    /// Sends a page of shared memory to swap that nobody maps.
    pub(crate) fn swap_out_shared(&mut self, page: (ObjectId, u64), frame: Frame) {
        let Memory { machine, frames, objects, swap, .. } = self.memory;
        let Some((cache, slot)) = swap.take() else { return };
        if objects.move_out(machine, frames, page, (cache, slot), frame) {
            self.send(slot, frame);
        } else {
            self.memory.release_slot(slot);
        }
    }
}

impl<M: Machine> Memory<M> {
    /// Forgets the pages of an object that are in swap.
    pub(crate) fn drop_slots(&self, object: ObjectId, pages: Range<u64>) {
        let Self { machine, frames, objects, .. } = self;
        while let Some(slot) = objects.take_slot(machine, frames, object, &pages) {
            self.release_slot(slot);
        }
    }
}

impl Objects {
    /// The slot that holds a page of an object.
    pub(crate) fn slot_at(&self, machine: &impl Machine, id: ObjectId, index: u64) -> Option<u64> {
        self.inner.lock().object(id).index.slot_at(machine, index)
    }

    /// Moves a page that only its object owns to the swap cache; the object's index
    /// holds the slot then, for the caller. Returns whether that could be done.
    fn move_out(
        &self,
        machine: &impl Machine,
        frames: &Frames,
        (id, index): (ObjectId, u64),
        (cache, slot): (ObjectId, u64),
        frame: Frame,
    ) -> bool {
        let mut inner = self.inner.lock();
        let Some(object) = inner.existing(id) else { return false };
        let is_there = object.index.get(machine, index) == Some(frame);
        if !is_there || !object.index.has_tables() || frames.count(frame) != 1 {
            return false;
        }
        let cached = &mut inner.object(cache).index;
        if cached.insert(machine, frames, slot, (frame, None)).is_err() {
            return false;
        }
        inner.object(id).index.put_slot(machine, index, slot);
        let mut held = frames.hold();
        held.set_use(frame, Use::Anonymous);
        held.set_owner(frame, 0);
        held.set_slot(frame, slot);
        held.set_dirty(frame, true);
        true
    }

    /// Moves a page from the swap cache, if it is there, to its object. The slot is
    /// the caller's then.
    fn move_in(
        &self,
        machine: &impl Machine,
        frames: &Frames,
        (id, index): (ObjectId, u64),
        (cache, slot): (ObjectId, u64),
    ) -> bool {
        let mut inner = self.inner.lock();
        let mut held = frames.hold();
        let Some(frame) = inner.object(cache).index.remove(machine, &mut held, slot) else {
            return false;
        };
        inner.object(id).index.put_frame(machine, index, frame);
        held.set_use(frame, Use::Cache);
        held.set_owner(frame, owner::of_page(id, index));
        held.set_dirty(frame, true);
        true
    }

    /// Takes the first slot out of the index of an object.
    fn take_slot(
        &self,
        machine: &impl Machine,
        frames: &Frames,
        id: ObjectId,
        pages: &Range<u64>,
    ) -> Option<u64> {
        let mut inner = self.inner.lock();
        inner.object(id).index.take_slot(machine, &mut frames.hold(), pages)
    }
}
