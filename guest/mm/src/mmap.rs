//! mmap: making areas and finding room for them.

use bitflags::bitflags;
use pagelab_abi::addr::{GuestVirt, PAGE_SHIFT, PAGE_SIZE};
use pagelab_abi::layout::USER_END;

use crate::area::{Area, AreaFlags, Backing, Protection};
use crate::areas::MAX_AREAS;
use crate::commit::Overcommit;
use crate::error::MmError;
use crate::machine::Machine;
use crate::memory::Memory;
use crate::object::{ObjectId, ObjectKind};
use crate::space::{AddressSpace, LOWEST, page_round_up};

bitflags! {
    /// Linux's `MAP_*`, with Linux's values.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct MapFlags: u32 {
        /// Writes are seen by all who map the same.
        const SHARED = 0x01;
        /// Writes are the mapping's own.
        const PRIVATE = 0x02;
        /// `MAP_SHARED` that refuses flags it does not know.
        const SHARED_VALIDATE = 0x03;
        /// Exactly here, whatever is there.
        const FIXED = 0x10;
        /// Zeros, no file.
        const ANONYMOUS = 0x20;
        /// Below 2 GiB.
        const LOW_2GIB = 0x40;
        /// Grows down.
        const GROWS_DOWN = 0x0100;
        /// Ignored since long ago.
        const DENY_WRITE = 0x0800;
        /// Ignored since long ago.
        const EXECUTABLE = 0x1000;
        /// Locked, as by `mlock`.
        const LOCKED = 0x2000;
        /// Not accounted.
        const NO_RESERVE = 0x4000;
        /// Pages at once.
        const POPULATE = 0x8000;
        /// Not waiting for pages to be read.
        const NON_BLOCK = 0x1_0000;
        /// For a stack: no large pages.
        const STACK = 0x2_0000;
        /// Large pages of a pool, which there is none of.
        const HUGE_TLB = 0x4_0000;
        /// Exactly here, unless something is there.
        const FIXED_NO_REPLACE = 0x10_0000;
    }
}

/// The bits that say whether a mapping is shared or private.
const TYPE_MASK: u32 = 0xf;
/// What `SHARED_VALIDATE` knows: Linux's legacy flags, which `FIXED_NO_REPLACE`
/// is not one of.
const VALIDATED: u32 = MapFlags::all().bits() & !MapFlags::FIXED_NO_REPLACE.bits();

impl MapFlags {
    /// Whether anonymous large pages that are asked for have a size that the
    /// processor knows: 2 MiB, 1 GiB, or the usual one.
    const fn has_known_page_size(self) -> bool {
        const SHIFT: u32 = 26;
        const MASK: u32 = 0x3f;
        let asks = self.contains(Self::HUGE_TLB) && self.contains(Self::ANONYMOUS);
        !asks || matches!(self.bits() >> SHIFT & MASK, 0 | 21 | 30)
    }

    /// What `MAP_SHARED_VALIDATE` asks for: that all flags are known.
    ///
    /// # Errors
    ///
    /// [`MmError::NotSupported`] if they are not.
    pub fn validate(self) -> Result<(), MmError> {
        let asks = self.bits() & TYPE_MASK == Self::SHARED_VALIDATE.bits();
        if asks && self.bits() & !VALIDATED != 0 {
            return Err(MmError::NotSupported);
        }
        Ok(())
    }
}

/// What to map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapSource {
    /// Zeros.
    Anonymous,
    /// Zeros of an open file: what `/dev/zero` gives.
    Zeros {
        /// It may be written through a shared mapping (opened for writing).
        may_write: bool,
    },
    /// Pages of an object. The mapping gets a reference of its own.
    Object {
        /// The object.
        object: ObjectId,
        /// Its page that comes first.
        offset: u64,
        /// It may be written through a shared mapping (opened for writing).
        may_write: bool,
        /// Shared mappings report the first write to each page.
        notify_write: bool,
    },
}

/// The arguments of `mmap`.
#[derive(Clone, Copy, Debug)]
pub struct MapRequest {
    /// Where, or a hint.
    pub address: GuestVirt,
    /// How many bytes; rounded up to pages.
    pub length: u64,
    /// What the program may do.
    pub protection: Protection,
    /// How.
    pub flags: MapFlags,
    /// What.
    pub source: MapSource,
}

/// A new mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// Where it is.
    pub start: GuestVirt,
    /// Its length in whole pages.
    pub length: u64,
    /// `MAP_POPULATE` or locked memory: call [`AddressSpace::populate`] next,
    /// bringing in the pages it asks for. Its failure is not the mapping's.
    pub populate: bool,
}

impl AddressSpace {
    /// Maps memory.
    ///
    /// # Errors
    ///
    /// Those of Linux's `mmap`, see [`MmError`].
    pub fn mmap<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        request: &MapRequest,
    ) -> Result<Mapped, MmError> {
        let (start, length) = self.place(request)?;
        let flags = self.area_flags(memory, request)?;
        self.check_lock_limit(flags, length)?;
        let end = GuestVirt(start.0 + length);
        let area = Area {
            start,
            end,
            offset: start.0 >> PAGE_SHIFT,
            backing: Backing::Anonymous,
            family: 0,
            protection: request.protection,
            flags,
        };
        self.install(memory, request, area)?;
        let lock = flags.contains(AreaFlags::LOCKED) && !flags.contains(AreaFlags::LOCK_ON_FAULT);
        let populate = request.flags.contains(MapFlags::POPULATE)
            && !request.flags.contains(MapFlags::NON_BLOCK);
        Ok(Mapped { start, length, populate: lock || populate })
    }

    /// Where a mapping would go, and its length in whole pages. What is wrong with
    /// these is said before what is wrong with the flags or the file.
    ///
    /// # Errors
    ///
    /// As of [`mmap`](Self::mmap).
    pub fn place(&self, request: &MapRequest) -> Result<(GuestVirt, u64), MmError> {
        if request.length == 0 {
            return Err(MmError::Invalid);
        }
        if !request.flags.has_known_page_size() {
            return Err(MmError::Invalid);
        }
        let length = page_round_up(request.length).ok_or(MmError::NoSpace)?;
        if let MapSource::Object { offset, .. } = request.source {
            // The offset of the end must have a number too (Linux: EOVERFLOW,
            // but no file is that long).
            offset.checked_add(length >> PAGE_SHIFT).ok_or(MmError::NoSpace)?;
        }
        if self.areas.len() > MAX_AREAS {
            return Err(MmError::TooManyAreas);
        }
        Ok((self.place_of_length(request, length)?, length))
    }

    fn place_of_length(&self, request: &MapRequest, length: u64) -> Result<GuestVirt, MmError> {
        let flags = request.flags;
        if length > USER_END.0 {
            return Err(MmError::NoSpace);
        }
        if flags.intersects(MapFlags::FIXED | MapFlags::FIXED_NO_REPLACE) {
            let start = request.address;
            if start.0 > USER_END.0 - length {
                return Err(MmError::NoSpace);
            }
            if !start.is_page_aligned() {
                return Err(MmError::Invalid);
            }
            if start < LOWEST {
                return Err(MmError::NotPermitted);
            }
            let end = GuestVirt(start.0 + length);
            if flags.contains(MapFlags::FIXED_NO_REPLACE)
                && self.areas.overlapping(start, end).next().is_some()
            {
                return Err(MmError::AlreadyMapped);
            }
            return Ok(start);
        }
        let hint = request.address.page_start().max(if request.address.0 == 0 {
            GuestVirt(0)
        } else {
            LOWEST
        });
        self.find_room(hint, length, flags.contains(MapFlags::LOW_2GIB))
    }

    /// Room for `length` bytes: at the hint if it is free, else as high as
    /// possible below the base, else as low as possible above a third of the
    /// address space, as Linux does.
    pub(crate) fn find_room(
        &self,
        hint: GuestVirt,
        length: u64,
        low: bool,
    ) -> Result<GuestVirt, MmError> {
        if low {
            // Linux's window for MAP_32BIT, searched upwards.
            let window = (GuestVirt(0x4000_0000), GuestVirt(0x8000_0000));
            return self.areas.lowest_gap(length, window.0, window.1).ok_or(MmError::NoSpace);
        }
        if hint.0 != 0 && hint.0 <= USER_END.0 - length {
            let end = hint.0 + length;
            let next = self.areas.find(hint).map(|place| self.areas.get(place).guarded_start());
            if next.is_none_or(|next| end <= next.0) {
                return Ok(hint);
            }
        }
        let bottom_up_from = GuestVirt((USER_END.0 / 3).next_multiple_of(PAGE_SIZE));
        self.areas
            .highest_gap(length, LOWEST, self.layout.mmap_base)
            .or_else(|| self.areas.lowest_gap(length, bottom_up_from, USER_END))
            .ok_or(MmError::NoSpace)
    }

    /// Checks the flags and translates them.
    fn area_flags<M: Machine>(
        &self,
        memory: &Memory<M>,
        request: &MapRequest,
    ) -> Result<AreaFlags, MmError> {
        let flags = request.flags;
        let mut area = AreaFlags::SOFT_DIRTY | AreaFlags::MAY_WRITE | self.lock_future;
        let shared = match MapFlags::from_bits_retain(flags.bits() & TYPE_MASK) {
            MapFlags::PRIVATE => false,
            MapFlags::SHARED => true,
            MapFlags::SHARED_VALIDATE if request.source != MapSource::Anonymous => {
                flags.validate()?;
                true
            }
            _ => return Err(MmError::Invalid),
        };
        if flags.contains(MapFlags::HUGE_TLB) {
            // Linux without reserved large pages.
            return Err(MmError::OutOfMemory);
        }
        if flags.contains(MapFlags::GROWS_DOWN) {
            if shared || request.source != MapSource::Anonymous {
                return Err(MmError::Invalid);
            }
            area |= AreaFlags::GROWS_DOWN;
        }
        if flags.contains(MapFlags::LOCKED) {
            if self.limits.locked == 0 && !self.limits.may_lock {
                return Err(MmError::NotPermitted);
            }
            area |= AreaFlags::LOCKED;
        }
        area.set(AreaFlags::SHARED, shared);
        area.set(
            AreaFlags::NO_RESERVE,
            flags.contains(MapFlags::NO_RESERVE) && memory.commit.policy() != Overcommit::Never,
        );
        area.set(AreaFlags::NO_HUGE_PAGE, flags.contains(MapFlags::STACK));
        let may_write = match request.source {
            MapSource::Anonymous => true,
            MapSource::Zeros { may_write } | MapSource::Object { may_write, .. } => may_write,
        };
        if shared && !may_write {
            if request.protection.contains(Protection::WRITE) {
                return Err(MmError::AccessDenied);
            }
            area.remove(AreaFlags::MAY_WRITE);
        }
        if let MapSource::Object { object, notify_write, .. } = request.source {
            let kind = memory.objects.kind(object);
            area.set(AreaFlags::SHARED_MEMORY, kind == ObjectKind::SharedMemory);
            area.set(AreaFlags::NOTIFY_WRITE, shared && notify_write);
        } else {
            area.set(AreaFlags::SHARED_MEMORY, shared);
        }
        Ok(area)
    }

    pub(crate) fn check_lock_limit(&self, flags: AreaFlags, length: u64) -> Result<(), MmError> {
        if !flags.contains(AreaFlags::LOCKED) || self.limits.may_lock {
            return Ok(());
        }
        let locked = self.sizes.locked + (length >> PAGE_SHIFT);
        if locked > self.limits.locked >> PAGE_SHIFT {
            return Err(MmError::LockLimitAgain);
        }
        Ok(())
    }

    /// Makes the area: limits, promises, backing; then, when nothing can fail
    /// any more, room and the area itself.
    fn install<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        request: &MapRequest,
        mut area: Area,
    ) -> Result<(), MmError> {
        // What a fixed mapping replaces counts no more.
        let (mut replaced, mut replaced_data) = (0, 0);
        for old in self.areas.overlapping(area.start, area.end) {
            let pages = (old.end.min(area.end).0 - old.start.max(area.start).0) >> PAGE_SHIFT;
            replaced += pages;
            replaced_data += if old.is_data() { pages } else { 0 };
        }
        let pages = area.pages();
        self.check_limits(pages.saturating_sub(replaced), false)?;
        if area.is_data() {
            self.check_limits_data(pages.saturating_sub(replaced_data))?;
        }
        self.check_hole(area.start, area.end)?;
        self.areas.reserve(3)?;
        let private_writable = area.is_private() && area.protection.contains(Protection::WRITE);
        let reserve = !area.flags.contains(AreaFlags::NO_RESERVE);
        if private_writable && reserve {
            memory.promise(pages, self.sizes.total)?;
            area.flags |= AreaFlags::ACCOUNTED;
        }
        match request.source {
            MapSource::Object { object, offset, .. } => {
                memory.objects.retain(object);
                area.backing = Backing::Object(object);
                area.offset = offset;
            }
            _ if !area.is_private() => {
                area.backing = Backing::Object(shared_memory(memory, pages, reserve)?);
                area.offset = 0;
            }
            MapSource::Anonymous | MapSource::Zeros { .. } => {}
        }
        self.unmap_range(memory, area.start, area.end);
        self.add_area(area);
        self.merge(memory, area.start, area.end);
        Ok(())
    }

    fn check_limits_data(&self, pages: u64) -> Result<(), MmError> {
        if self.sizes.data + pages > self.limits.data >> PAGE_SHIFT {
            return Err(MmError::OverLimit);
        }
        Ok(())
    }
}

/// A new object of shared anonymous memory, promised unless that is not wanted.
fn shared_memory<M: Machine>(
    memory: &Memory<M>,
    pages: u64,
    reserve: bool,
) -> Result<ObjectId, MmError> {
    let promised = if reserve { pages } else { 0 };
    memory.promise(promised, 0)?;
    memory.objects.create(ObjectKind::SharedMemory, pages, promised).map_err(|error| {
        memory.commit.take_back(promised);
        error.into()
    })
}
