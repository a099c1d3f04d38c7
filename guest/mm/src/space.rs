//! An address space: its areas, its page tables, and what is counted of it.
//!
//! The operations are in files of their own, one each: [`crate::fault`],
//! `fork`, `mmap`, `munmap`, `mprotect`, `mremap`, `madvise`, `mincore`,
//! `mlock`, `brk`. Here is what they share.

use pagelab_abi::addr::{Frame, GuestVirt, PAGE_SHIFT, PAGE_SIZE};
use pagelab_abi::layout::{USER_END, USER_START};

use crate::area::{Area, AreaFlags, Backing, Protection};
use crate::areas::{Areas, Place};
use crate::error::{MmError, OutOfMemory};
use crate::live::Edits;
use crate::machine::Machine;
use crate::memory::Memory;
use crate::table;

/// Where things are put. The same on every run unless `shift` says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// End of the stack.
    pub stack_top: GuestVirt,
    /// Mappings are placed below this address, downwards.
    pub mmap_base: GuestVirt,
}

/// What a layout is shifted by for `--aslr`, in pages; all zero otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayoutShift {
    /// The stack, down.
    pub stack: u64,
    /// The base of mappings, down.
    pub mmap: u64,
}

/// Least distance of the base of mappings from the top of the stack.
const MIN_STACK_GAP: u64 = 128 << 20;

impl Layout {
    /// As Linux does it: room for the stack's limit and its guard gap, at least
    /// 128 MiB and at most five sixths of the address space.
    #[must_use]
    pub fn new(stack_limit: u64, shift: LayoutShift) -> Self {
        let stack_top = USER_END.0 - shift.stack * PAGE_SIZE;
        let guard = (crate::area::STACK_GUARD_PAGES + shift.stack) * PAGE_SIZE;
        let most = USER_END.0 / 6 * 5;
        let gap = stack_limit.saturating_add(guard).clamp(MIN_STACK_GAP, most);
        let base = (USER_END.0 - gap - shift.mmap * PAGE_SIZE) & !(PAGE_SIZE - 1);
        Self { stack_top: GuestVirt(stack_top), mmap_base: GuestVirt(base) }
    }
}

/// Resource limits in bytes; `u64::MAX` is no limit. The kernel keeps them up to
/// date ([`AddressSpace::limits`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `RLIMIT_AS`.
    pub address_space: u64,
    /// `RLIMIT_DATA`.
    pub data: u64,
    /// `RLIMIT_STACK`.
    pub stack: u64,
    /// `RLIMIT_MEMLOCK`.
    pub locked: u64,
    /// The process may lock memory whatever the limit says (`CAP_IPC_LOCK`).
    pub may_lock: bool,
}

impl Default for Limits {
    /// Linux's defaults: 8 MiB of stack, 8 MiB locked, the rest unlimited.
    fn default() -> Self {
        Self {
            address_space: u64::MAX,
            data: u64::MAX,
            stack: 8 << 20,
            locked: 8 << 20,
            may_lock: false,
        }
    }
}

/// Pages that are present, by what they are. The zero page does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Resident {
    /// Anonymous memory.
    pub anonymous: u64,
    /// Files and programs.
    pub file: u64,
    /// Shared memory.
    pub shared_memory: u64,
}

impl Resident {
    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.anonymous + self.file + self.shared_memory
    }
}

/// Sizes of the areas in pages, as `/proc/PID/status` has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// All areas: `VmSize`.
    pub total: u64,
    /// Locked areas: `VmLck`.
    pub locked: u64,
    /// Private writable areas: `VmData`.
    pub data: u64,
    /// Areas with code.
    pub executable: u64,
    /// Areas that grow down: `VmStk`.
    pub stack: u64,
}

/// An address space. It must be given back by [`AddressSpace::destroy`].
///
/// Its first fields are read by the host (`pagelab_abi::directory::SpaceRecord`).
#[repr(C)]
pub struct AddressSpace {
    pub(crate) heap_start: GuestVirt,
    pub(crate) heap_end: GuestVirt,
    pub(crate) resident: Resident,
    /// Entries that hold a slot of swap.
    pub(crate) swapped: u64,
    /// Page tables, the root not counted.
    pub(crate) tables: u64,
    pub(crate) root: Frame,
    pub(crate) areas: Areas,
    pub(crate) layout: Layout,
    /// Resource limits.
    pub limits: Limits,
    pub(crate) peak_resident: u64,
    pub(crate) peak_total: u64,
    pub(crate) sizes: Sizes,
    pub(crate) last_family: u32,
    /// Bytes of the program's data, see `RLIMIT_DATA`.
    pub(crate) program_data: u64,
    /// `mlockall(MCL_FUTURE)`: what new areas get.
    pub(crate) lock_future: AreaFlags,
}

const _: () = {
    use core::mem::offset_of;

    use pagelab_abi::directory::SpaceRecord;
    assert!(offset_of!(AddressSpace, heap_start) == offset_of!(SpaceRecord, heap_start));
    assert!(offset_of!(AddressSpace, heap_end) == offset_of!(SpaceRecord, heap_end));
    assert!(offset_of!(AddressSpace, resident) == offset_of!(SpaceRecord, anonymous));
    assert!(offset_of!(Resident, anonymous) == 0);
    assert!(offset_of!(Resident, file) == 8);
    assert!(offset_of!(Resident, shared_memory) == 16);
    assert!(offset_of!(AddressSpace, swapped) == offset_of!(SpaceRecord, swapped));
    assert!(offset_of!(AddressSpace, tables) == offset_of!(SpaceRecord, tables));
    assert!(offset_of!(AddressSpace, root) == offset_of!(SpaceRecord, root));
    assert!(offset_of!(AddressSpace, areas) == offset_of!(SpaceRecord, leaves));
};

impl AddressSpace {
    /// An empty address space.
    ///
    /// # Errors
    ///
    /// If there is no frame for the root.
    pub fn new<M: Machine>(
        memory: &Memory<M>,
        layout: Layout,
        limits: Limits,
    ) -> Result<Self, OutOfMemory> {
        Ok(Self {
            root: memory.new_root()?,
            areas: Areas::new(),
            layout,
            limits,
            resident: Resident::default(),
            swapped: 0,
            peak_resident: 0,
            peak_total: 0,
            sizes: Sizes::default(),
            tables: 0,
            last_family: 0,
            heap_start: GuestVirt(0),
            heap_end: GuestVirt(0),
            program_data: 0,
            lock_future: AreaFlags::empty(),
        })
    }

    /// Releases everything: pages, tables, references, promises. No processor
    /// may be using the address space any more.
    pub fn destroy<M: Machine>(mut self, memory: &Memory<M>) {
        self.clear(memory);
        memory.release_root(self.root);
    }

    /// Unmaps everything, as exec does before it maps the new program.
    pub fn clear<M: Machine>(&mut self, memory: &Memory<M>) {
        self.note_peak();
        let areas = core::mem::take(&mut self.areas);
        let mut edits = Edits::new(&memory.machine, self.root);
        for area in areas.iter() {
            self.unmap_pages(memory, &mut edits, area, area.start, area.end);
        }
        let ends = areas.iter().skip(1).map(|area| area.start).chain([table::TREE_END]);
        let mut held = memory.frames.hold();
        for (area, ceiling) in areas.iter().zip(ends) {
            // Whatever lies below is done, so nothing below bounds the tables.
            let range = (area.start, area.end);
            self.tables -= table::free(&mut edits, &mut held, range, GuestVirt(0), ceiling);
        }
        drop(held);
        drop(edits);
        for area in areas.iter() {
            self.forget_area(memory, area);
        }
        self.heap_start = GuestVirt(0);
        self.heap_end = GuestVirt(0);
        self.lock_future = AreaFlags::empty();
    }

    /// The frame of the root table, for CR3.
    #[must_use]
    pub const fn root(&self) -> Frame {
        self.root
    }

    /// Where things are put.
    #[must_use]
    pub const fn layout(&self) -> Layout {
        self.layout
    }

    /// Changes where things are put from now on: exec, after `clear`.
    pub fn set_layout(&mut self, layout: Layout) {
        self.layout = layout;
    }

    /// The areas, in order.
    pub fn areas(&self) -> impl DoubleEndedIterator<Item = &Area> {
        self.areas.iter()
    }

    /// How many areas there are.
    #[must_use]
    pub const fn area_count(&self) -> usize {
        self.areas.len()
    }

    /// The area that holds an address.
    #[must_use]
    pub fn area_at(&self, address: GuestVirt) -> Option<&Area> {
        self.areas.containing(address).map(|place| self.areas.get(place))
    }

    /// Pages that are present.
    #[must_use]
    pub const fn resident(&self) -> Resident {
        self.resident
    }

    /// Pages that are in swap: `VmSwap`.
    #[must_use]
    pub const fn swapped(&self) -> u64 {
        self.swapped
    }

    /// Most pages that ever were present: `VmHWM`.
    #[must_use]
    pub fn peak_resident(&self) -> u64 {
        self.peak_resident.max(self.resident.total())
    }

    /// Most pages that ever were mapped: `VmPeak`.
    #[must_use]
    pub fn peak_total(&self) -> u64 {
        self.peak_total.max(self.sizes.total)
    }

    /// Starts [`Self::peak_resident`] anew.
    pub fn reset_peak_resident(&mut self) {
        self.peak_resident = self.resident.total();
    }

    /// Sizes of the areas.
    #[must_use]
    pub const fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// How many page tables there are, with the root.
    #[must_use]
    pub const fn tables(&self) -> u64 {
        self.tables + 1
    }

    /// Called before resident pages or areas become fewer.
    #[inline]
    pub(crate) fn note_peak(&mut self) {
        self.peak_resident = self.peak_resident();
        self.peak_total = self.peak_total();
    }

    /// Counts pages of an area's entries; `anonymous` says what the frame is.
    #[inline]
    pub(crate) fn resident_of(&mut self, anonymous: bool, flags: AreaFlags) -> &mut u64 {
        if anonymous {
            &mut self.resident.anonymous
        } else if flags.contains(AreaFlags::SHARED_MEMORY) {
            &mut self.resident.shared_memory
        } else {
            &mut self.resident.file
        }
    }

    /// The number by which the pages of an area are managed, see [`Area::family`].
    pub(crate) fn adopt_family(&mut self, place: Place) {
        let area = *self.areas.get(place);
        let related = |other: Option<Place>, before: bool| {
            let other = *self.areas.get(other?);
            // Rights do not matter here: they may yet become the same.
            let alike = Area { family: other.family, protection: other.protection, ..area };
            let continues =
                if before { other.continues_with(&alike) } else { alike.continues_with(&other) };
            (other.family != 0 && continues && !other.flags.contains(AreaFlags::INHERITED))
                .then_some(other.family)
        };
        let family = related(self.areas.next(place), false)
            .or_else(|| related(self.areas.previous(place), true))
            .unwrap_or_else(|| {
                self.last_family += 1;
                self.last_family
            });
        self.areas.change(place, |area| area.family = family);
    }

    /// Adds an area whose object reference and promises are made. Room for it
    /// was reserved.
    pub(crate) fn add_area(&mut self, area: Area) {
        self.count_area(&area, true);
        self.areas.insert(area);
    }

    /// Adds promised memory that may be read and written: heap and stack.
    pub(crate) fn add_anonymous<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        start: GuestVirt,
        end: GuestVirt,
        flags: AreaFlags,
    ) -> Result<(), MmError> {
        self.areas.reserve(1)?;
        memory.promise((end.0 - start.0) >> PAGE_SHIFT, self.sizes.total)?;
        self.add_area(Area {
            start,
            end,
            offset: start.0 >> PAGE_SHIFT,
            backing: Backing::Anonymous,
            family: 0,
            protection: Protection::READ | Protection::WRITE,
            flags,
        });
        Ok(())
    }

    /// Gives back what an area that was taken out holds.
    pub(crate) fn forget_area<M: Machine>(&mut self, memory: &Memory<M>, area: &Area) {
        self.count_area(area, false);
        if area.flags.contains(AreaFlags::ACCOUNTED) {
            memory.commit.take_back(area.pages());
        }
        if let Backing::Object(object) = area.backing {
            memory.release_object(object);
        }
    }

    /// Adds or subtracts an area in the sizes.
    pub(crate) fn count_area(&mut self, area: &Area, add: bool) {
        let pages = area.pages();
        let stack = area.flags.contains(AreaFlags::GROWS_DOWN);
        let code = area.protection.contains(Protection::EXECUTE)
            && !area.protection.contains(Protection::WRITE)
            && !stack;
        let sizes = &mut self.sizes;
        for (counted, size) in [
            (true, &mut sizes.total),
            (area.flags.contains(AreaFlags::LOCKED), &mut sizes.locked),
            (area.is_data(), &mut sizes.data),
            (code, &mut sizes.executable),
            (stack, &mut sizes.stack),
        ] {
            if counted {
                *size = if add { *size + pages } else { *size - pages };
            }
        }
    }

    /// Splits the area that holds `at` inside, if there is one. Room for one
    /// more was reserved.
    pub(crate) fn split_at<M: Machine>(&mut self, memory: &Memory<M>, at: GuestVirt) {
        let Some(place) = self.areas.containing(at) else { return };
        let area = *self.areas.get(place);
        if area.start == at {
            return;
        }
        let (left, right) = area.split(at);
        if let Backing::Object(object) = area.backing {
            memory.objects.retain(object);
        }
        self.areas.replace(place, left);
        self.areas.insert(right);
    }

    /// Makes one of neighbouring areas that are alike, from the one before
    /// `start` to the one after `end`.
    pub(crate) fn merge<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        start: GuestVirt,
        end: GuestVirt,
    ) {
        let Some(mut place) = self.areas.find(GuestVirt(start.0.saturating_sub(1))) else { return };
        while let Some(next) = self.areas.next(place) {
            let (left, right) = (*self.areas.get(place), *self.areas.get(next));
            if right.start > end {
                return;
            }
            if !left.continues_with(&right) {
                place = next;
                continue;
            }
            self.areas.remove(next);
            self.areas.replace(place, left.joined(&right));
            if let Backing::Object(object) = left.backing {
                memory.release_object(object);
            }
        }
    }

    /// Whether `RLIMIT_AS` and `RLIMIT_DATA` allow more pages.
    pub(crate) fn check_limits(&self, pages: u64, data: bool) -> Result<(), MmError> {
        let within = |have: u64, limit: u64| have + pages <= limit >> PAGE_SHIFT;
        let fits = within(self.sizes.total, self.limits.address_space)
            && (!data || within(self.sizes.data, self.limits.data));
        if fits { Ok(()) } else { Err(MmError::OverLimit) }
    }
}

/// Rounds up to whole pages; `None` if that leaves 64 bits.
pub(crate) const fn page_round_up(bytes: u64) -> Option<u64> {
    match bytes.checked_add(PAGE_SIZE - 1) {
        Some(sum) => Some(sum & !(PAGE_SIZE - 1)),
        None => None,
    }
}

/// The range of whole pages that a call names by address and length, if it lies
/// in user space; it may be empty.
pub(crate) fn user_range(
    address: GuestVirt,
    length: u64,
    outside: MmError,
) -> Result<(GuestVirt, GuestVirt), MmError> {
    if !address.is_page_aligned() {
        return Err(MmError::Invalid);
    }
    let length = page_round_up(length).ok_or(outside)?;
    let end = address.checked_add(length).filter(|&end| end <= USER_END).ok_or(outside)?;
    Ok((address, end))
}

/// Lowest address that anything is mapped at.
pub(crate) const LOWEST: GuestVirt = USER_START;
