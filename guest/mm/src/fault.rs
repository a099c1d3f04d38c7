//! What happens at a page fault.
//!
//! ```text
//! area?  none ─ below one that grows down? ─ no → NoMapping
//!          │                    └ yes: grow it, go on
//!        forbidden by the area? → Forbidden
//!          │
//! entry? not present ─ holds a slot of swap: NeedsPage, or the frame (SwapIn)
//!          │         ├ private anonymous ─ read  → the zero page
//!          │         │                    └ write → a zeroed frame
//!          │         └ page of an object ─ missing: zeros, or NeedsPage
//!          │                             ├ past the end → NoBacking
//!          │                             ├ private write → a copy
//!          │                             └ else map the object's frame
//!        present, write, not writable
//!          ├ shared          → writable (WriteNotify)
//!          ├ zero page       → a zeroed frame
//!          ├ anonymous, ours alone → writable (CowReuse)
//!          └ else            → a copy (CowCopy)
//!        present, fetch, not executable → Forbidden
//!        present otherwise   → Spurious
//! ```
//!
//! Nothing on this path allocates from the heap, and a fault that fails leaves
//! everything as it was (but for page tables, which belong to the area).

use pagelab_abi::addr::{Frame, GuestVirt};
use pagelab_abi::fault::FaultKind;
use pagelab_paging::{Entry, EntryFlags, Level};

use crate::area::{Area, AreaFlags, Backing, Protection};
use crate::areas::Place;
use crate::error::{FaultError, NeedsPage, OutOfMemory};
use crate::frames::Use;
use crate::live;
use crate::machine::Machine;
use crate::memory::Memory;
use crate::object::{ObjectId, ObjectKind, Page};
use crate::owner;
use crate::space::AddressSpace;
use crate::table;

/// What the program tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// To write.
    pub write: bool,
    /// To fetch an instruction.
    pub execute: bool,
    /// A page was read for this fault: it counts as major.
    pub major: bool,
}

impl Access {
    /// A read.
    pub const READ: Self = Self { write: false, execute: false, major: false };
    /// A write.
    pub const WRITE: Self = Self { write: true, execute: false, major: false };
    /// An instruction fetch.
    pub const EXECUTE: Self = Self { write: false, execute: true, major: false };
}

/// What a fault turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Its one kind.
    pub kind: FaultKind,
    /// The frame that was mapped.
    pub before: Option<Frame>,
    /// The frame that is mapped now.
    pub after: Option<Frame>,
}

/// Bits of an entry that was just written through.
pub(crate) const WRITTEN: EntryFlags = EntryFlags::WRITABLE
    .union(EntryFlags::DIRTY)
    .union(EntryFlags::ACCESSED)
    .union(EntryFlags::SOFT_DIRTY);

/// A fault that is being resolved.
pub(crate) struct Fault<'a, M> {
    pub(crate) memory: &'a Memory<M>,
    /// The page.
    pub(crate) page: GuestVirt,
    /// The entry for it.
    pub(crate) slot: (Frame, usize),
    place: Place,
    pub(crate) area: Area,
    pub(crate) access: Access,
    grew: bool,
}

impl AddressSpace {
    /// Resolves a fault.
    ///
    /// # Errors
    ///
    /// See [`FaultError`].
    #[inline]
    pub fn fault<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        address: GuestVirt,
        access: Access,
    ) -> Result<Resolved, FaultError> {
        let (place, area, grew) = match self.areas.lookup(address) {
            Some((place, area)) => (place, *area, false),
            None => {
                let place = self.grow_stack(memory, address)?;
                (place, *self.areas.get(place), true)
            }
        };
        if !allows(area.protection, access) {
            return Err(FaultError::Forbidden);
        }
        let page = address.page_start();
        let table = table::find_or_make(memory, self.root, page, &mut self.tables)?;
        let slot = (table, Level::One.index(page));
        let entry = memory.machine.read_entry(slot.0, slot.1);
        let fault = Fault { memory, page, slot, place, area, access, grew };
        if entry.is_present() {
            self.fault_present(&fault, entry)
        } else if let Some(slot) = entry.swap_slot() {
            self.swap_in(&fault, (entry, slot))
        } else {
            match fault.area.backing {
                Backing::Anonymous if access.write => self.demand_zero(&fault),
                Backing::Anonymous => Ok(self.map_zero_page(&fault)),
                Backing::Object(object) => self.fault_object(&fault, object),
            }
        }
    }

    fn demand_zero<M: Machine>(&mut self, fault: &Fault<'_, M>) -> Result<Resolved, FaultError> {
        let frame = zeroed_anonymous(fault)?;
        self.fill_anonymous(fault, frame);
        self.resident.anonymous += 1;
        let kind = if fault.grew { FaultKind::StackGrowth } else { FaultKind::DemandZero };
        Ok(Resolved { kind, before: None, after: Some(frame) })
    }

    /// Maps an anonymous frame that was just filled, where nothing was.
    fn fill_anonymous<M: Machine>(&mut self, fault: &Fault<'_, M>, frame: Frame) {
        if fault.area.family == 0 {
            self.adopt_family(fault.place);
        }
        let entry = Entry::for_frame(frame, fault.area.entry_flags() | WRITTEN);
        live::fill(&fault.memory.machine, fault.slot, entry);
    }

    fn map_zero_page<M: Machine>(&self, fault: &Fault<'_, M>) -> Resolved {
        let frame = fault.memory.zero_page();
        let flags = fault.area.entry_flags() | EntryFlags::SPECIAL | EntryFlags::ACCESSED;
        live::fill(&fault.memory.machine, fault.slot, Entry::for_frame(frame, flags));
        let kind = if fault.grew { FaultKind::StackGrowth } else { FaultKind::ZeroPageRead };
        Resolved { kind, before: None, after: Some(frame) }
    }

    /// A page of an object that is not mapped here yet.
    pub(crate) fn fault_object<M: Machine>(
        &mut self,
        fault: &Fault<'_, M>,
        object: ObjectId,
    ) -> Result<Resolved, FaultError> {
        let memory = fault.memory;
        let index = fault.area.index_of(fault.page);
        let (page, object_kind) =
            memory.objects.lookup_shared(&memory.machine, memory.frames, object, index);
        let (frame, kind) = match page {
            Page::Present(frame) => (frame, page_in(object_kind, fault.access.major)),
            Page::PastEnd => {
                // As on Linux, which prepares for the copy first.
                let copies = fault.access.write && fault.area.is_private();
                if copies && fault.area.family == 0 {
                    self.adopt_family(fault.place);
                }
                return Err(FaultError::NoBacking);
            }
            Page::Missing if object_kind == ObjectKind::SharedMemory => {
                if let Some(slot) = memory.objects.slot_at(&memory.machine, object, index) {
                    return self.swap_in_shared(fault, (object, index), slot);
                }
                (new_shared_page(memory, object, index)?, FaultKind::DemandZero)
            }
            Page::Missing => return Err(FaultError::NeedsPage(NeedsPage { object, index })),
        };
        if fault.access.write && fault.area.is_private() {
            return self.copy_object_page(fault, frame, kind);
        }
        let mut flags = fault.area.entry_flags() | EntryFlags::ACCESSED;
        if fault.access.write {
            flags |= WRITTEN;
            memory.frames.hold().set_dirty(frame, true);
        } else if fault.area.maps_writable() {
            flags |= EntryFlags::WRITABLE;
        } else if fault.area.is_private() {
            flags |= EntryFlags::COPY_ON_WRITE;
        }
        live::fill(&memory.machine, fault.slot, Entry::for_frame(frame, flags));
        *self.resident_of(false, fault.area.flags) += 1;
        if object_kind == ObjectKind::File && !fault.access.write {
            self.fault_around(memory, (&fault.area, object), fault.page, fault.slot.0);
        }
        Ok(Resolved { kind, before: None, after: Some(frame) })
    }

    /// First access to a page of a private mapping, and it writes: the copy is
    /// made at once. `frame` was shared for us.
    fn copy_object_page<M: Machine>(
        &mut self,
        fault: &Fault<'_, M>,
        frame: Frame,
        kind: FaultKind,
    ) -> Result<Resolved, FaultError> {
        let memory = fault.memory;
        let owner = owner::anonymous(fault.page);
        let copy = memory.frames.hold().alloc_owned(Use::Anonymous, owner);
        if let Some(copy) = copy {
            memory.machine.copy_frame(frame, copy);
            self.fill_anonymous(fault, copy);
            self.resident.anonymous += 1;
        }
        memory.frames.release(&memory.machine, frame);
        let after = Some(copy.ok_or(OutOfMemory)?);
        let kind = if fault.access.major { kind } else { FaultKind::CowCopy };
        Ok(Resolved { kind, before: Some(frame), after })
    }

    /// A page that is mapped: not in the way that the access needs, or the
    /// processor remembered an older entry.
    fn fault_present<M: Machine>(
        &mut self,
        fault: &Fault<'_, M>,
        entry: Entry,
    ) -> Result<Resolved, FaultError> {
        let before = Some(entry.frame());
        if !fault.access.write || entry.has(EntryFlags::WRITABLE) {
            if fault.access.execute && !fault.area.protection.contains(Protection::EXECUTE) {
                return Err(FaultError::Forbidden);
            }
            // Flushed, or the processor would come back with the same.
            let used = if fault.access.write { WRITTEN } else { EntryFlags::ACCESSED };
            self.replace(fault, entry.with(used));
            return Ok(Resolved { kind: FaultKind::Spurious, before, after: before });
        }
        if !fault.area.is_private() {
            fault.memory.frames.hold().set_dirty(entry.frame(), true);
            self.replace(fault, entry.with(WRITTEN));
            return Ok(Resolved { kind: FaultKind::WriteNotify, before, after: before });
        }
        if entry.has(EntryFlags::SPECIAL) {
            return self.upgrade_zero_page(fault, entry.frame());
        }
        self.copy_on_write(fault, entry)
    }

    fn upgrade_zero_page<M: Machine>(
        &mut self,
        fault: &Fault<'_, M>,
        zero_page: Frame,
    ) -> Result<Resolved, FaultError> {
        let frame = zeroed_anonymous(fault)?;
        if fault.area.family == 0 {
            self.adopt_family(fault.place);
        }
        self.replace(fault, Entry::for_frame(frame, fault.area.entry_flags() | WRITTEN));
        self.resident.anonymous += 1;
        let kind = FaultKind::ZeroPageUpgrade;
        Ok(Resolved { kind, before: Some(zero_page), after: Some(frame) })
    }

    /// Copy-on-write: the last owner of an anonymous frame may write it, anybody
    /// else gets a copy.
    pub(crate) fn copy_on_write<M: Machine>(
        &mut self,
        fault: &Fault<'_, M>,
        entry: Entry,
    ) -> Result<Resolved, FaultError> {
        let memory = fault.memory;
        let frame = entry.frame();
        let mut held = memory.frames.hold();
        let anonymous = held.use_of(frame) == Use::Anonymous;
        if anonymous && held.count(frame) == 1 {
            drop(held);
            self.replace(fault, entry.without(EntryFlags::COPY_ON_WRITE).with(WRITTEN));
            let after = Some(frame);
            return Ok(Resolved { kind: FaultKind::CowReuse, before: after, after });
        }
        let owner = owner::anonymous(fault.page);
        let copy = held.alloc_owned(Use::Anonymous, owner).ok_or(OutOfMemory)?;
        drop(held);
        memory.machine.copy_frame(frame, copy);
        if fault.area.family == 0 {
            self.adopt_family(fault.place);
        }
        self.replace(fault, Entry::for_frame(copy, fault.area.entry_flags() | WRITTEN));
        memory.frames.release(&memory.machine, frame);
        if !anonymous {
            *self.resident_of(false, fault.area.flags) -= 1;
            self.resident.anonymous += 1;
        }
        Ok(Resolved { kind: FaultKind::CowCopy, before: Some(frame), after: Some(copy) })
    }

    fn replace<M: Machine>(&self, fault: &Fault<'_, M>, new: Entry) {
        live::replace(&fault.memory.machine, self.root, fault.slot, fault.page, new);
    }
}

/// Whether an area's protection allows to make a page present for an access. As
/// the processor has it: what may be written or executed may also be read. An
/// instruction fetch gets the page like a read; it is when the page is there
/// that fetching from it is forbidden.
#[inline]
pub(crate) const fn allows(protection: Protection, access: Access) -> bool {
    if access.write { protection.contains(Protection::WRITE) } else { !protection.is_empty() }
}

const fn page_in(kind: ObjectKind, major: bool) -> FaultKind {
    match (kind, major) {
        (ObjectKind::Program, false) => FaultKind::PageInMinor,
        (ObjectKind::Program, true) => FaultKind::PageInMajor,
        (_, false) => FaultKind::FileMinor,
        (_, true) => FaultKind::FileMajor,
    }
}

/// A frame of zeros for the page that a fault is about.
#[inline]
fn zeroed_anonymous<M: Machine>(fault: &Fault<'_, M>) -> Result<Frame, OutOfMemory> {
    let Memory { machine, frames, .. } = fault.memory;
    let owner = owner::anonymous(fault.page);
    frames.alloc_zeroed_owned(machine, Use::Anonymous, owner).ok_or(OutOfMemory)
}

/// A new page of shared memory, owned by its object and by the caller.
fn new_shared_page<M: Machine>(
    memory: &Memory<M>,
    object: ObjectId,
    index: u64,
) -> Result<Frame, FaultError> {
    let (machine, frames) = (&memory.machine, memory.frames);
    let frame = frames.alloc_zeroed(machine, Use::Cache).ok_or(OutOfMemory)?;
    if memory.objects.insert(machine, frames, object, index, frame).is_err() {
        frames.release(machine, frame);
        return Err(FaultError::OutOfMemory);
    }
    frames.share(frame);
    Ok(frame)
}

/// Whether an area is one that a fault below it may grow, and how.
pub(crate) const fn grows_down(area: &Area) -> bool {
    area.flags.contains(AreaFlags::GROWS_DOWN)
}
