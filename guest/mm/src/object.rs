//! Objects: memory that belongs to no address space but is mapped by any number
//! of them: shared anonymous memory, files, programs.
//!
//! An object has at most one frame per page, however many map it. The frame has
//! one owner for the object itself and one for each entry that maps it, so it
//! stays as long as either wants it. Pages are found through an index
//! (`object_index`) whose tables are frames: growing it takes nothing
//! from the heap.
//!
//! Who has an object holds a reference: its creator one, each area one. With
//! the last one go its pages.
//!
//! Locking: one spin lock, taken before that of [`Frames`].

use alloc::vec::Vec;
use core::num::NonZeroU32;
use core::ops::Range;

use pagelab_abi::addr::Frame;
use spin::Mutex;

use crate::error::OutOfMemory;
use crate::frames::Frames;
use crate::machine::Machine;
use crate::object_index::Index;
use crate::owner;

/// Names an object as long as it is referenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct ObjectId(NonZeroU32);

impl ObjectId {
    /// The object with a number; whether there is one is another matter.
    pub(crate) const fn new(number: u32) -> Option<Self> {
        match NonZeroU32::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number, for a table of the kernel's own.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0.get()
    }

    const fn slot(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    /// Zeros until written; missing pages are made on the spot.
    SharedMemory,
    /// A file; missing pages must be read.
    File,
    /// A program; missing pages must be read. Only its faults are told apart
    /// from those of other files.
    Program,
    /// An area of swap; its pages by slot are those that are on their way in or
    /// out.
    Swap,
}

/// What is at a page of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// This frame.
    Present(Frame),
    /// Nothing yet.
    Missing,
    /// The object ends before it.
    PastEnd,
}

impl From<OutOfMemory> for InsertError {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

/// Where the pages of an object can go when memory runs short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    /// Nowhere, or there is no such object any more.
    Nowhere,
    /// To the object's store, see [`Objects::set_stored`].
    Own,
    /// To swap.
    Swap,
}

/// Why a page cannot be put into an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertError {
    /// No frame left for the index.
    OutOfMemory,
    /// The page is already there.
    Occupied(Frame),
    /// The object ends before it.
    PastEnd,
}

/// An object cannot go while its index holds slots of swap.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HoldsSlots;

pub(crate) struct Object {
    pub(crate) kind: ObjectKind,
    references: u32,
    /// How many pages it has, present or not.
    pub(crate) pages: u64,
    /// How many pages were promised for it.
    promised: u64,
    /// What its clean pages hold can be read again from a store.
    pub(crate) stored: bool,
    pub(crate) index: Index,
}

pub(crate) enum Slot {
    Free { next: usize },
    Used(Object),
}

/// End of the list of free slots.
const NO_SLOT: usize = usize::MAX;

pub(crate) struct Slots {
    slots: Vec<Slot>,
    free: usize,
    /// How many objects have a store.
    stored: usize,
}

/// All objects.
pub struct Objects {
    pub(crate) inner: Mutex<Slots>,
}

impl Default for Objects {
    fn default() -> Self {
        Self::new()
    }
}

impl Objects {
    /// No objects.
    #[must_use]
    pub const fn new() -> Self {
        Self { inner: Mutex::new(Slots { slots: Vec::new(), free: NO_SLOT, stored: 0 }) }
    }

    /// A new object of `pages` pages, none of them present, with one reference,
    /// the caller's. `promised` pages are taken off the promised memory again
    /// when it goes.
    ///
    /// # Errors
    ///
    /// If there is no heap left.
    pub fn create(
        &self,
        kind: ObjectKind,
        pages: u64,
        promised: u64,
    ) -> Result<ObjectId, OutOfMemory> {
        let mut inner = self.inner.lock();
        let stored = kind == ObjectKind::Swap;
        let object = Object { kind, references: 1, pages, promised, stored, index: Index::new() };
        let slot = inner.free;
        if slot == NO_SLOT {
            inner.slots.try_reserve(1)?;
            inner.slots.push(Slot::Used(object));
            let number = u32::try_from(inner.slots.len()).map_err(|_| OutOfMemory)?;
            return NonZeroU32::new(number).map(ObjectId).ok_or(OutOfMemory);
        }
        if let Slot::Free { next } = inner.slots[slot] {
            inner.free = next;
        }
        inner.slots[slot] = Slot::Used(object);
        let number = u32::try_from(slot + 1).map_err(|_| OutOfMemory)?;
        NonZeroU32::new(number).map(ObjectId).ok_or(OutOfMemory)
    }

    /// One more reference.
    pub fn retain(&self, id: ObjectId) {
        self.inner.lock().object(id).references += 1;
    }

    /// One reference less. With the last one the object goes, and the pages that
    /// were promised for it are returned.
    ///
    /// # Errors
    ///
    /// [`HoldsSlots`], with nothing done, if it is the last one and some pages are
    /// in swap: the caller takes their slots out first.
    pub(crate) fn release(
        &self,
        machine: &impl Machine,
        frames: &Frames,
        id: ObjectId,
    ) -> Result<Option<u64>, HoldsSlots> {
        let mut inner = self.inner.lock();
        let object = inner.object(id);
        if object.references > 1 {
            object.references -= 1;
            return Ok(None);
        }
        if object.index.swapped() > 0 {
            return Err(HoldsSlots);
        }
        let promised = object.promised;
        let file = object.stored && object.kind != ObjectKind::Swap;
        object.index.clear(machine, &mut frames.hold());
        inner.stored -= usize::from(file);
        let next = core::mem::replace(&mut inner.free, id.slot());
        inner.slots[id.slot()] = Slot::Free { next };
        Ok(Some(promised))
    }

    /// Says that the object has a store, from which its pages can be read again:
    /// clean ones may be taken when memory runs short, dirty ones once they are
    /// written. Pages of other objects are nowhere else.
    pub fn set_stored(&self, id: ObjectId) {
        let mut inner = self.inner.lock();
        let was_stored = core::mem::replace(&mut inner.object(id).stored, true);
        inner.stored += usize::from(!was_stored);
    }

    /// Whether any object has a store.
    pub(crate) fn any_stored(&self) -> bool {
        self.inner.lock().stored > 0
    }

    /// Where pages of an object can go.
    pub(crate) fn store_of(&self, id: ObjectId) -> Store {
        match self.inner.lock().existing(id) {
            Some(object) if object.stored => Store::Own,
            Some(Object { kind: ObjectKind::SharedMemory, .. }) => Store::Swap,
            _ => Store::Nowhere,
        }
    }

    /// What the object is.
    pub fn kind(&self, id: ObjectId) -> ObjectKind {
        self.inner.lock().object(id).kind
    }

    /// How many references there are.
    pub fn references(&self, id: ObjectId) -> u32 {
        self.inner.lock().object(id).references
    }

    /// How many pages the object has, present or not.
    pub fn pages(&self, id: ObjectId) -> u64 {
        self.inner.lock().object(id).pages
    }

    /// How many pages are present.
    pub fn resident(&self, id: ObjectId) -> u64 {
        self.inner.lock().object(id).index.resident()
    }

    /// How many pages are in swap.
    pub fn swapped(&self, id: ObjectId) -> u64 {
        self.inner.lock().object(id).index.swapped()
    }

    /// What is at a page, and what kind of object it is.
    #[inline]
    pub fn lookup(&self, machine: &impl Machine, id: ObjectId, index: u64) -> (Page, ObjectKind) {
        let mut inner = self.inner.lock();
        let object = inner.object(id);
        (object.page(machine, index), object.kind)
    }

    /// What is at a page; if it is a frame, it has one more owner now.
    #[inline]
    pub(crate) fn lookup_shared(
        &self,
        machine: &impl Machine,
        frames: &Frames,
        id: ObjectId,
        index: u64,
    ) -> (Page, ObjectKind) {
        let mut inner = self.inner.lock();
        let object = inner.object(id);
        let page = object.page(machine, index);
        if let Page::Present(frame) = page {
            frames.share(frame);
        }
        (page, object.kind)
    }

    /// Puts a frame (of [`crate::Use::Cache`]) at a page. The object takes over
    /// the caller's ownership of it.
    ///
    /// # Errors
    ///
    /// See [`InsertError`]; the frame stays the caller's.
    pub fn insert(
        &self,
        machine: &impl Machine,
        frames: &Frames,
        id: ObjectId,
        index: u64,
        frame: Frame,
    ) -> Result<(), InsertError> {
        let mut inner = self.inner.lock();
        let object = inner.object(id);
        if index >= object.pages {
            return Err(InsertError::PastEnd);
        }
        let owner = owner_of(object.kind, id, index);
        object.index.insert(machine, frames, index, (frame, owner))?;
        if object.kind == ObjectKind::Swap {
            frames.hold().set_slot(frame, index);
        }
        Ok(())
    }

    /// Takes a page out; the caller gets the object's ownership of the frame.
    /// Entries that map it stay.
    pub fn remove(
        &self,
        machine: &impl Machine,
        frames: &Frames,
        id: ObjectId,
        index: u64,
    ) -> Option<Frame> {
        self.inner.lock().object(id).index.remove(machine, &mut frames.hold(), index)
    }

    /// Takes a page out and frees its frame, if it is this frame, nobody but the
    /// object owns it, it is clean, and the object has a store (as swap has).
    /// Returns whether it was.
    pub(crate) fn drop_clean(
        &self,
        machine: &impl Machine,
        frames: &Frames,
        (id, index): (ObjectId, u64),
        frame: Frame,
    ) -> bool {
        let mut inner = self.inner.lock();
        let Some(object) = inner.existing(id).filter(|object| object.stored) else {
            return false;
        };
        let mut held = frames.hold();
        if held.count(frame) != 1 || held.is_dirty(frame) {
            return false;
        }
        let dropped = object.index.remove_if(machine, &mut held, index, frame);
        if dropped {
            held.release(machine, frame);
        }
        dropped
    }

    /// The first dirty page from number `from` up to `end`. Its frame stays the
    /// object's.
    pub fn next_dirty(
        &self,
        machine: &impl Machine,
        frames: &Frames,
        id: ObjectId,
        from: u64,
        end: u64,
    ) -> Option<(u64, Frame)> {
        let mut inner = self.inner.lock();
        let held = frames.hold();
        let mut found = None;
        inner.object(id).index.for_each(machine, from..end, &mut |index, frame| {
            if held.is_dirty(frame) {
                found = Some((index, frame));
            }
            found.is_none()
        });
        found
    }

    /// Sets the number of pages. Pages past a smaller end are released; the
    /// caller unmaps them first (see [`crate::AddressSpace::unmap_object`]).
    pub fn set_pages(&self, machine: &impl Machine, frames: &Frames, id: ObjectId, pages: u64) {
        let mut inner = self.inner.lock();
        let object = inner.object(id);
        let shrinks = pages < object.pages;
        object.pages = pages;
        if shrinks {
            object.index.truncate(machine, &mut frames.hold(), pages);
        }
    }

    /// Calls `visit` with number and frame of each page of a range that is
    /// present, in order, until it returns `false`. It must not use objects.
    pub fn for_each_page(
        &self,
        machine: &impl Machine,
        id: ObjectId,
        range: Range<u64>,
        mut visit: impl FnMut(u64, Frame) -> bool,
    ) {
        self.inner.lock().object(id).index.for_each(machine, range, &mut visit);
    }

    /// Gives back memory that was needed for more objects than there are now.
    pub fn shrink(&self) {
        let mut inner = self.inner.lock();
        while matches!(inner.slots.last(), Some(Slot::Free { .. })) {
            inner.slots.pop();
        }
        inner.slots.shrink_to_fit();
        inner.free = NO_SLOT;
        for slot in 0..inner.slots.len() {
            if let Slot::Free { .. } = inner.slots[slot] {
                inner.slots[slot] = Slot::Free { next: inner.free };
                inner.free = slot;
            }
        }
    }

    /// How many objects there are.
    pub fn count(&self) -> usize {
        let inner = self.inner.lock();
        inner.slots.iter().filter(|slot| matches!(slot, Slot::Used(_))).count()
    }
}

impl Slots {
    /// The object. A reference that was given back and used again is a bug.
    pub(crate) fn object(&mut self, id: ObjectId) -> &mut Object {
        match &mut self.slots[id.slot()] {
            Slot::Used(object) => object,
            Slot::Free { .. } => panic!("{id:?} was released"),
        }
    }

    /// The object, if there is one with that number.
    pub(crate) fn existing(&mut self, id: ObjectId) -> Option<&mut Object> {
        match self.slots.get_mut(id.slot())? {
            Slot::Used(object) => Some(object),
            Slot::Free { .. } => None,
        }
    }
}

impl Object {
    #[inline]
    fn page(&self, machine: &impl Machine, index: u64) -> Page {
        if index >= self.pages {
            return Page::PastEnd;
        }
        self.index.get(machine, index).map_or(Page::Missing, Page::Present)
    }
}

/// The word for a frame of an object, see [`crate::owner`]; `None` leaves it as it
/// is. A program's frames are never taken, and those of swap are anonymous ones.
pub(crate) fn owner_of(kind: ObjectKind, id: ObjectId, index: u64) -> Option<u64> {
    match kind {
        ObjectKind::SharedMemory | ObjectKind::File => Some(owner::of_page(id, index)),
        ObjectKind::Program | ObjectKind::Swap => None,
    }
}
