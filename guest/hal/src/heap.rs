//! The kernel's heap: free lists by size over whole frames.
//!
//! Sizes are rounded up to a power of two from 16 bytes to half a page; each has
//! a list of free pieces, and a list that is empty gets one more frame. Larger
//! pieces are runs of frames. Both ways cost a handful of instructions, which is
//! what counts where each of them is emulated. Frames that once held small
//! pieces stay with the heap; [`in_use`] tells what is really used, so that a
//! leak shows.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicU64, Ordering};

use pagelab_abi::addr::{Frame, GuestPhys, PAGE_SIZE};
use pagelab_abi::layout::PHYSMAP_BASE;
use pagelab_mm::frames::Use;

use crate::memory::{self, Physical};

const SMALLEST_SHIFT: u32 = 4;
const LARGEST_SHIFT: u32 = 11;
const CLASSES: usize = (LARGEST_SHIFT - SMALLEST_SHIFT + 1) as usize;

/// A free piece: the next one of its size.
struct FreePiece {
    next: *mut FreePiece,
}

/// The pieces of one size.
#[derive(Clone, Copy)]
struct Class {
    free: *mut FreePiece,
    /// Where the last frame was not cut up yet.
    uncut: u64,
    uncut_end: u64,
}

const NO_PIECES: Class = Class { free: null_mut(), uncut: 0, uncut_end: 0 };

struct Heap {
    classes: UnsafeCell<[Class; CLASSES]>,
}

// SAFETY: one processor, ring 0 is not preempted, and the heap calls nothing
// that allocates.
unsafe impl Sync for Heap {}

#[global_allocator]
static HEAP: Heap = Heap { classes: UnsafeCell::new([NO_PIECES; CLASSES]) };

static IN_USE: AtomicU64 = AtomicU64::new(0);
static SMALL_FRAMES: AtomicU64 = AtomicU64::new(0);

/// Bytes that are allocated now, rounded up as the heap rounds them.
#[must_use]
pub fn in_use() -> u64 {
    IN_USE.load(Ordering::Relaxed)
}

/// Frames that the lists of small pieces keep.
#[must_use]
pub fn small_frames() -> u64 {
    SMALL_FRAMES.load(Ordering::Relaxed)
}

/// How a request is served.
enum Kind {
    Small(usize),
    Frames(usize),
}

fn kind_of(layout: Layout) -> Kind {
    let size = layout.size().max(layout.align()).max(1 << SMALLEST_SHIFT);
    if size > 1 << LARGEST_SHIFT {
        return Kind::Frames(size.div_ceil(PAGE_SIZE as usize));
    }
    let shift = usize::BITS - (size - 1).leading_zeros();
    Kind::Small((shift - SMALLEST_SHIFT) as usize)
}

const fn class_size(class: usize) -> u64 {
    1 << (class as u32 + SMALLEST_SHIFT)
}

fn count(bytes: u64, allocated: bool) {
    let before = IN_USE.load(Ordering::Relaxed);
    let after = if allocated { before.wrapping_add(bytes) } else { before.wrapping_sub(bytes) };
    IN_USE.store(after, Ordering::Relaxed);
}

// SAFETY: pieces come from frames that belong to the heap, are as large and as
// aligned as asked, and are handed out once until they come back.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match kind_of(layout) {
            Kind::Small(class) => self.take(class),
            Kind::Frames(frames) => {
                // One frame is had without a search.
                let first = if frames == 1 {
                    memory::frames().alloc(Use::Kernel)
                } else {
                    memory::frames().alloc_run(frames, 1, Use::Kernel).map(|run| run.first)
                };
                first.map_or(null_mut(), |first| {
                    count(frames as u64 * PAGE_SIZE, true);
                    (PHYSMAP_BASE + first.start().0) as *mut u8
                })
            }
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        match kind_of(layout) {
            Kind::Small(class) => {
                count(class_size(class), false);
                self.give(class, pointer.cast());
            }
            Kind::Frames(frames) => {
                count(frames as u64 * PAGE_SIZE, false);
                let physical = GuestPhys(pointer as u64 - PHYSMAP_BASE);
                let first = (physical.0 / PAGE_SIZE) as u32;
                for number in first..first + frames as u32 {
                    memory::frames().release(&Physical, Frame(number));
                }
            }
        }
    }
}

impl Heap {
    #[allow(clippy::mut_from_ref, reason = "one processor, and neither caller calls the other")]
    fn class(&self, class: usize) -> &mut Class {
        // SAFETY: `take` and `give` hold this reference alone while they run.
        unsafe { &mut (*self.classes.get())[class] }
    }

    fn take(&self, number: usize) -> *mut u8 {
        let size = class_size(number);
        let class = self.class(number);
        let piece = class.free;
        if !piece.is_null() {
            // SAFETY: a free piece of this size, written by `give`.
            class.free = unsafe { (*piece).next };
            count(size, true);
            return piece.cast();
        }
        if class.uncut == class.uncut_end {
            let Some(frame) = memory::frames().alloc(Use::Kernel) else { return null_mut() };
            SMALL_FRAMES.store(SMALL_FRAMES.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            class.uncut = PHYSMAP_BASE + frame.start().0;
            class.uncut_end = class.uncut + PAGE_SIZE;
        }
        let piece = class.uncut;
        class.uncut += size;
        count(size, true);
        piece as *mut u8
    }

    fn give(&self, number: usize, piece: *mut FreePiece) {
        let class = self.class(number);
        // SAFETY: the piece is free: at least 16 bytes that are the heap's.
        unsafe { piece.write(FreePiece { next: class.free }) };
        class.free = piece;
    }
}
