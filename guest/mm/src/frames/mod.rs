//! The allocator of physical frames.
//!
//! Frames are organised in 2 MiB blocks ([`Block`]), so that contiguous runs
//! stay available. A block that was opened is in at most two lists: one says
//! that it has frames that hold something (`WARM`, or `EMPTY` if all of it is
//! free), the other that it has frames that are zero (`FRESH`), because they were
//! never used or were given back as such. Memory that
//! was never opened is only known as ranges: starting costs nothing per frame
//! or block, which matters on hosts that emulate every instruction of ring 0.
//!
//! Every frame has a reference count and a [`Use`]. The metadata is the
//! caller's, all zero at first. Freeing a frame twice, or one that is free, is
//! a bug of the kernel and panics.
//!
//! Locking: one spin lock around everything, taken for one call or, by
//! [`Frames::hold`], for a batch. Nothing under it allocates from the heap.

mod block;
mod held;
mod lists;
mod runs;

pub use block::Block;
use block::{BLOCK_FRAMES, Kind};
pub use held::{Candidate, Held};
use lists::Lists;
use pagelab_abi::addr::Frame;
use pagelab_abi::lab::FrameCounters;
pub use runs::FrameRun;
use spin::Mutex;

use crate::machine::Machine;

/// How many ranges of usable memory [`Frames`] can be given.
pub const MAX_RANGES: usize = 32;

/// What each word of a freed frame holds in builds with debug assertions.
pub const POISON: u64 = 0xdead_f4ee_dead_f4ee;

/// What a frame is used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Use {
    /// Nothing.
    #[default]
    Free = 0,
    /// A page table.
    Table = 1,
    /// The kernel's own: stacks, heap, indexes.
    Kernel = 2,
    /// Anonymous memory of programs.
    Anonymous = 3,
    /// A page of an object: a file, a program, shared memory.
    Cache = 4,
    /// The zero page.
    Special = 5,
}

const USES: usize = 6;

/// What is known of one frame. All zero is a free frame.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct FrameInfo {
    count: u32,
    usage: Use,
    dirty: bool,
    /// Free, and zero although it was used.
    zero_again: bool,
    /// Used since the search for victims last came by, other than through an
    /// entry, which has a bit of its own for that.
    referenced: bool,
    /// Who maps the frame: see [`crate::owner`].
    owner: u64,
}

const _: () = assert!(size_of::<FrameInfo>() == 16);

/// A range of usable memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameRange {
    /// First frame.
    pub first: Frame,
    /// The frame after the last.
    pub end: Frame,
    /// Every frame of it is known to be zero.
    pub zero: bool,
}

/// How much metadata [`Frames::new`] wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// How many [`FrameInfo`].
    pub frames: usize,
    /// How many [`Block`].
    pub blocks: usize,
}

impl Metadata {
    /// For memory that ends at frame `end`.
    #[must_use]
    pub const fn for_memory_to(end: Frame) -> Self {
        Self { frames: end.index(), blocks: end.index().div_ceil(BLOCK_FRAMES) }
    }
}

/// Why [`Frames::new`] refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FramesError {
    /// More than [`MAX_RANGES`].
    TooManyRanges,
    /// A range ends before it starts, or overlaps another one.
    BadRange(FrameRange),
    /// There is too little metadata for this range.
    NoMetadata(FrameRange),
}

/// Addresses of what the host reads, see `pagelab_abi::directory`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The table of frames.
    pub table: u64,
    /// How many it has.
    pub frames: u64,
    /// The counts.
    pub counts: u64,
}

const _: () = {
    use core::mem::offset_of;

    use pagelab_abi::directory::{FrameCounts, FrameRecord};
    assert!(size_of::<FrameInfo>() == size_of::<FrameRecord>());
    assert!(offset_of!(FrameInfo, count) == offset_of!(FrameRecord, count));
    assert!(offset_of!(FrameInfo, usage) == offset_of!(FrameRecord, usage));
    assert!(offset_of!(FrameInfo, dirty) == offset_of!(FrameRecord, dirty));
    assert!(offset_of!(FrameInfo, zero_again) == offset_of!(FrameRecord, zero_again));
    assert!(offset_of!(FrameInfo, referenced) == offset_of!(FrameRecord, referenced));
    assert!(offset_of!(FrameInfo, owner) == offset_of!(FrameRecord, owner));
    assert!(offset_of!(Inner, total) == offset_of!(FrameCounts, total));
    assert!(offset_of!(Inner, free) == offset_of!(FrameCounts, free));
    assert!(offset_of!(Inner, unopened_zero) == offset_of!(FrameCounts, unopened_zero));
    assert!(offset_of!(Inner, fresh) == offset_of!(FrameCounts, fresh));
    assert!(offset_of!(Inner, zero_again) == offset_of!(FrameCounts, zero_again));
    assert!(offset_of!(Inner, by_use) == offset_of!(FrameCounts, by_use));
    assert!(USES == pagelab_abi::directory::USES);
};

/// A contiguous run of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its first frame.
    pub first: Frame,
    /// All of it is known to be zero.
    pub zero: bool,
}

/// The allocator. See the module.
pub struct Frames {
    inner: Mutex<Inner>,
}

/// The counts come first and in the order of `pagelab_abi::directory`, because the
/// host reads them here.
#[repr(C)]
struct Inner {
    total: u64,
    free: u64,
    unopened_zero: u64,
    /// Free frames of opened blocks that are zero ...
    fresh: u64,
    /// ... and those of them that were used.
    zero_again: u64,
    by_use: [u64; USES],
    info: &'static mut [FrameInfo],
    lists: Lists,
    /// Memory that was never opened, `next_range` the first that has some.
    ranges: [FrameRange; MAX_RANGES],
    next_range: usize,
    unopened: u64,
    /// Free frames that only the kernel itself gets.
    reserve: u64,
}

impl Frames {
    /// An allocator for `ranges`, with metadata that is all zero.
    ///
    /// # Errors
    ///
    /// See [`FramesError`].
    pub fn new(
        info: &'static mut [FrameInfo],
        blocks: &'static mut [Block],
        ranges: &[FrameRange],
    ) -> Result<Self, FramesError> {
        if ranges.len() > MAX_RANGES {
            return Err(FramesError::TooManyRanges);
        }
        let mut kept = [FrameRange::default(); MAX_RANGES];
        kept[..ranges.len()].copy_from_slice(ranges);
        let (mut total, mut zero) = (0, 0);
        for (index, range) in ranges.iter().enumerate() {
            let overlaps = |other: &FrameRange| other.first < range.end && range.first < other.end;
            if range.first > range.end || ranges[..index].iter().any(overlaps) {
                return Err(FramesError::BadRange(*range));
            }
            let need = Metadata::for_memory_to(range.end);
            if need.frames > info.len() || need.blocks > blocks.len() {
                return Err(FramesError::NoMetadata(*range));
            }
            let frames = u64::from(range.end.0 - range.first.0);
            total += frames;
            zero += if range.zero { frames } else { 0 };
        }
        let inner = Inner {
            info,
            lists: Lists::new(blocks),
            ranges: kept,
            next_range: 0,
            unopened: total,
            unopened_zero: zero,
            fresh: 0,
            zero_again: 0,
            total,
            free: total,
            reserve: 0,
            by_use: [0; USES],
        };
        Ok(Self { inner: Mutex::new(inner) })
    }

    /// Locks the allocator for several operations in a row.
    pub fn hold(&self) -> Held<'_> {
        Held { inner: self.inner.lock() }
    }

    /// A frame with one owner; what it holds is not defined. Prefers frames
    /// that were used before: for copies.
    pub fn alloc(&self, usage: Use) -> Option<Frame> {
        self.hold().alloc(usage)
    }

    /// A frame with one owner, full of zeros. Prefers frames that are zero
    /// already.
    #[inline]
    pub fn alloc_zeroed(&self, machine: &impl Machine, usage: Use) -> Option<Frame> {
        self.alloc_zeroed_owned(machine, usage, 0)
    }

    /// See [`Frames::alloc_zeroed`]; `owner` is the word that says who maps it.
    #[inline]
    pub(crate) fn alloc_zeroed_owned(
        &self,
        machine: &impl Machine,
        usage: Use,
        owner: u64,
    ) -> Option<Frame> {
        let (frame, zero) = self.hold().alloc_for_zero_owned(usage, owner)?;
        if !zero {
            machine.zero_frame(frame);
        }
        Some(frame)
    }

    /// `count` (1 to 512) contiguous frames, the first aligned to `align`
    /// frames (a power of two); each has one owner and is released by itself.
    pub fn alloc_run(&self, count: usize, align: usize, usage: Use) -> Option<Run> {
        self.inner.lock().alloc_run(count, align, usage)
    }

    /// A 2 MiB block.
    pub fn alloc_huge(&self, usage: Use) -> Option<Run> {
        self.alloc_run(BLOCK_FRAMES, BLOCK_FRAMES, usage)
    }

    /// Takes charge of a frame outside the usable ranges that holds something,
    /// such as a module: it has one owner now, and is free memory when released.
    ///
    /// # Panics
    ///
    /// If the frame has an owner or no metadata.
    pub fn adopt(&self, frame: Frame, usage: Use) {
        let mut inner = self.inner.lock();
        let info = &mut inner.info[frame.index()];
        assert!(info.count == 0, "adopting {frame:?}, which has an owner");
        *info = FrameInfo { count: 1, usage, ..FrameInfo::default() };
        inner.lists.claim(frame.index() / BLOCK_FRAMES);
        inner.total += 1;
        inner.by_use[usage as usize] += 1;
    }

    /// One more owner.
    pub fn share(&self, frame: Frame) {
        self.hold().share(frame);
    }

    /// One owner less; returns how many remain. With none the frame is free.
    pub fn release(&self, machine: &impl Machine, frame: Frame) -> u32 {
        self.hold().release(machine, frame)
    }

    /// How many owners the frame has.
    pub fn count(&self, frame: Frame) -> u32 {
        self.inner.lock().info[frame.index()].count
    }

    /// What the frame is used for.
    pub fn use_of(&self, frame: Frame) -> Use {
        self.inner.lock().info[frame.index()].usage
    }

    /// How physical memory is used. `free_expected` is the kernel's to fill.
    pub fn counters(&self) -> FrameCounters {
        let inner = self.inner.lock();
        FrameCounters {
            total: inner.total,
            free: inner.free,
            untouched: inner.unopened_zero + inner.fresh - inner.zero_again,
            tables: inner.by_use[Use::Table as usize],
            kernel: inner.by_use[Use::Kernel as usize] + inner.by_use[Use::Special as usize],
            anonymous: inner.by_use[Use::Anonymous as usize],
            cache: inner.by_use[Use::Cache as usize],
            free_expected: 0,
        }
    }

    /// The frame was used other than through an entry: by `read` or `write`. The
    /// search for victims passes it over once.
    pub fn note_used(&self, frame: Frame) {
        self.hold().set_referenced(frame, true);
    }

    /// Where the host finds the table of frames and the counts.
    pub fn published(&self) -> Published {
        let inner = self.inner.lock();
        Published {
            table: core::ptr::from_ref(&*inner.info).cast::<FrameInfo>() as u64,
            frames: inner.info.len() as u64,
            counts: core::ptr::from_ref(&*inner) as u64,
        }
    }

    /// How many frames are free.
    pub fn free(&self) -> u64 {
        self.inner.lock().free
    }

    /// Keeps the last `frames` free ones for [`Use::Kernel`], so that programs
    /// that take all memory leave the kernel some to go on with.
    pub fn set_reserve(&self, frames: u64) {
        self.inner.lock().reserve = frames;
    }

    /// Whether only the reserve is left: nothing new should be begun.
    pub fn is_short(&self) -> bool {
        let inner = self.inner.lock();
        inner.free <= inner.reserve
    }

    /// How many free frames programs may still be given.
    pub fn available(&self) -> u64 {
        let inner = self.inner.lock();
        inner.free.saturating_sub(inner.reserve)
    }
}

impl Inner {
    /// Whether a frame may be had for something.
    #[inline]
    fn may_take(&self, usage: Use) -> bool {
        self.free > self.reserve || usage == Use::Kernel
    }
}

impl Inner {
    #[inline]
    fn hand_out(&mut self, number: u32, usage: Use, owner: u64) -> Frame {
        let frame = Frame(number);
        let info = &mut self.info[frame.index()];
        assert!(info.count == 0, "{frame:?} is free and has an owner");
        self.zero_again -= u64::from(info.zero_again);
        *info = FrameInfo { count: 1, usage, owner, ..FrameInfo::default() };
        self.free -= 1;
        self.by_use[usage as usize] += 1;
        frame
    }

    fn take_back(&mut self, frame: Frame, usage: Use, kind: Kind) {
        self.free += 1;
        self.by_use[usage as usize] -= 1;
        self.lists.give(frame.0, kind);
    }

    fn take_fresh(&mut self) -> Option<u32> {
        let number = self.lists.take_fresh()?;
        self.fresh -= 1;
        Some(number)
    }

    /// Opens the next block's worth of memory that was never used.
    fn open_next(&mut self) -> Option<usize> {
        while self.next_range < MAX_RANGES {
            let range = &mut self.ranges[self.next_range];
            if range.first >= range.end {
                self.next_range += 1;
                continue;
            }
            let first = range.first.index();
            let block = first / BLOCK_FRAMES;
            let end = range.end.index().min((block + 1) * BLOCK_FRAMES);
            let zero = range.zero;
            range.first = Frame(range.first.0 + narrow(end - first));
            let frames = (end - first) as u64;
            self.unopened -= frames;
            if zero {
                self.unopened_zero -= frames;
                self.fresh += frames;
            }
            self.lists.open(block, first % BLOCK_FRAMES, end - block * BLOCK_FRAMES, zero);
            return Some(block);
        }
        None
    }

    fn alloc_run(&mut self, count: usize, align: usize, usage: Use) -> Option<Run> {
        if count == 0 || count > BLOCK_FRAMES || !align.is_power_of_two() || align > BLOCK_FRAMES {
            return None;
        }
        let (block, index) = loop {
            if let Some(found) = self.lists.find_run(count, align) {
                break found;
            }
            self.open_next()?;
        };
        let fresh = self.lists.take_run(block, index, count);
        self.fresh -= fresh as u64;
        let first = narrow(block * BLOCK_FRAMES + index);
        for number in first..first + narrow(count) {
            self.hand_out(number, usage, 0);
        }
        Some(Run { first: Frame(first), zero: fresh == count })
    }
}

/// Frame numbers fit into 32 bits because [`Frame`] does.
#[allow(clippy::cast_possible_truncation, reason = "see above")]
const fn narrow(number: usize) -> u32 {
    number as u32
}
