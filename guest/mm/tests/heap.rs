//! The heap runs out: calls fail with ENOMEM and nothing is lost.
//!
//! A program of its own, because it replaces the heap: one that can be told to
//! fail from some allocation of this thread on.

#[path = "mm/machine.rs"]
#[allow(dead_code, unreachable_pub, missing_docs, reason = "shared with another test program")]
mod machine;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use machine::Ram;
use pagelab_abi::addr::{Frame, GuestVirt};
use pagelab_mm::{
    Access, AddressSpace, Block, FrameInfo, FrameRange, Frames, Limits, MapFlags, MapRequest,
    MapSource, Memory, Metadata, MmError, Protection, RemapFlags, RemapRequest,
};

const PAGE: u64 = 4096;

thread_local! {
    /// How many allocations succeed before all fail.
    static LEFT: Cell<usize> = const { Cell::new(usize::MAX) };
}

struct Failing;

/// Counts an allocation; whether it may succeed.
fn permitted() -> bool {
    LEFT.try_with(|left| {
        let now = left.get();
        left.set(if now == usize::MAX { now } else { now.saturating_sub(1) });
        now > 0
    })
    .unwrap_or(true)
}

// SAFETY: everything is the system's allocator's, or a null pointer, which says
// that there is no memory.
unsafe impl GlobalAlloc for Failing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !permitted() {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !permitted() {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static HEAP: Failing = Failing;

/// The machine allocates nothing in what follows: its frames exist already.
fn memory() -> Memory<Ram> {
    let (first, end) = (Frame(0), Frame(2048));
    let need = Metadata::for_memory_to(end);
    let info = Box::leak(vec![FrameInfo::default(); need.frames].into_boxed_slice());
    let blocks = Box::leak(vec![Block::default(); need.blocks].into_boxed_slice());
    let frames = Frames::new(info, blocks, &[FrameRange { first, end, zero: true }]).unwrap();
    let ram = Ram::new(2048);
    (0..2048).for_each(|frame| ram.touch(Frame(frame)));
    Memory::new(ram, Box::leak(Box::new(frames)), None).unwrap()
}

fn map(
    memory: &Memory<Ram>,
    space: &mut AddressSpace,
    address: u64,
    pages: u64,
    shared: bool,
) -> Result<GuestVirt, MmError> {
    let kind = if shared { MapFlags::SHARED } else { MapFlags::PRIVATE };
    let request = MapRequest {
        address: GuestVirt(address),
        length: pages * PAGE,
        protection: Protection::READ | Protection::WRITE,
        flags: kind | MapFlags::ANONYMOUS | MapFlags::FIXED,
        source: MapSource::Anonymous,
    };
    space.mmap(memory, &request).map(|mapped| mapped.start)
}

/// A space whose last leaf of areas is nearly full, some of its pages written;
/// a child, because that has no leaves to spare.
fn space(memory: &Memory<Ram>) -> AddressSpace {
    let layout = pagelab_mm::Layout::new(8 << 20, pagelab_mm::LayoutShift::default());
    let mut space = AddressSpace::new(memory, layout, Limits::default()).unwrap();
    for n in 0..47 {
        map(memory, &mut space, (0x1000 + 4 * n) * PAGE, 3, n % 2 == 0).unwrap();
        space.fault(memory, GuestVirt((0x1001 + 4 * n) * PAGE), Access::WRITE).unwrap();
    }
    let child = space.fork(memory).unwrap();
    space.destroy(memory);
    child
}

/// Runs a call with 0, 1, 2, … allocations until it succeeds. Each failure must
/// be ENOMEM and leave frames and promises as they were. What succeeds is undone
/// by `undo`.
fn until_it_succeeds<R>(
    call: impl Fn(&Memory<Ram>, &mut AddressSpace) -> Result<R, MmError>,
    undo: impl Fn(&Memory<Ram>, R),
) -> usize {
    let memory = memory();
    let free = memory.frames.free();
    let mut failures = 0;
    loop {
        let mut space = space(&memory);
        let before = (memory.frames.free(), memory.commit.promised(), space.area_count());
        LEFT.set(failures);
        let result = call(&memory, &mut space);
        LEFT.set(usize::MAX);
        let done = match result {
            Ok(made) => {
                undo(&memory, made);
                true
            }
            Err(error) => {
                assert_eq!(error.errno(), 12, "{error}");
                let after = (memory.frames.free(), memory.commit.promised(), space.area_count());
                assert_eq!(after, before, "after {failures} allocations");
                failures += 1;
                false
            }
        };
        space.destroy(&memory);
        assert_eq!((memory.frames.free(), memory.commit.promised()), (free, 0));
        assert_eq!(memory.objects.count(), 0);
        if done {
            return failures;
        }
    }
}

#[test]
fn fork_without_heap_loses_nothing() {
    let failures = until_it_succeeds(
        |memory, space| space.fork(memory),
        |memory, child| child.destroy(memory),
    );
    assert_eq!(failures, 3, "the list and its two leaves");
}

#[test]
fn mmap_without_heap_loses_nothing() {
    for shared in [false, true] {
        let failures = until_it_succeeds(
            |memory, space| map(memory, space, 0x1001 * PAGE, 1, shared),
            |_, _| (),
        );
        assert!(failures > 0);
    }
}

#[test]
fn calls_that_split_areas_fail_without_heap() {
    type Call = fn(&Memory<Ram>, &mut AddressSpace) -> Result<(), MmError>;
    let calls: [Call; 4] = [
        |memory, space| space.munmap(memory, GuestVirt(0x1005 * PAGE), PAGE),
        |memory, space| space.mprotect(memory, GuestVirt(0x1005 * PAGE), PAGE, 1),
        |memory, space| space.madvise(memory, GuestVirt(0x1005 * PAGE), PAGE, 10),
        |memory, space| {
            let request = RemapRequest {
                address: GuestVirt(0x1005 * PAGE),
                old_length: PAGE,
                new_length: PAGE,
                flags: RemapFlags::MAY_MOVE | RemapFlags::FIXED,
                new_address: GuestVirt(0x2000 * PAGE),
            };
            space.mremap(memory, &request).map(|_| ())
        },
    ];
    for call in calls {
        assert!(until_it_succeeds(call, |_, ()| ()) > 0);
    }
}

#[test]
fn a_fault_needs_no_heap() {
    let memory = memory();
    let mut space = space(&memory);
    let mut child = space.fork(&memory).unwrap();
    LEFT.set(0);
    let fresh = space.fault(&memory, GuestVirt(0x1000 * PAGE), Access::WRITE);
    let copied = child.fault(&memory, GuestVirt(0x1005 * PAGE), Access::WRITE);
    let shared = child.fault(&memory, GuestVirt(0x1002 * PAGE), Access::READ);
    LEFT.set(usize::MAX);
    assert!(fresh.is_ok() && copied.is_ok() && shared.is_ok());
    child.destroy(&memory);
    space.destroy(&memory);
}
