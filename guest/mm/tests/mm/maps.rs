//! Areas: where they are put, how they are split and merged.

use pagelab_abi::addr::{Frame, GuestVirt};
use pagelab_mm::memory::MemoryError;
use pagelab_mm::{
    Access, AddressSpace, FrameRange, Layout, LayoutShift, Limits, Machine, MapFlags, MapRequest,
    MapSource, Memory, MmError, Protection, Use,
};
use pagelab_paging::{Entry, EntryFlags};

use crate::lab::{Lab, PAGE, PRIVATE, RW, SHARED, page};
use crate::machine::Ram;

#[test]
fn mappings_are_placed_downwards_and_merge() {
    let lab = Lab::new(512);
    let mut space = lab.space();
    let first = lab.map(&mut space, 2, RW, PRIVATE);
    assert_eq!(first, GuestVirt(0x7fff_f7ff_f000 - 2 * PAGE));
    let second = lab.map(&mut space, 3, RW, PRIVATE);
    assert_eq!(page(second, 3), first);
    assert_eq!(space.area_count(), 1);
    let third = lab.map(&mut space, 1, Protection::READ, PRIVATE);
    assert_eq!((page(third, 1), space.area_count()), (second, 2));
    space.munmap(&lab.memory, page(second, 1), PAGE).unwrap();
    assert_eq!(space.area_count(), 3);
    let gap = lab.map(&mut space, 1, RW, PRIVATE);
    assert_eq!((gap, space.area_count()), (page(second, 1), 2));
    lab.end(space);
    lab.check_balance();
}

#[test]
fn hints_are_taken_if_free() {
    let lab = Lab::new(512);
    let mut space = lab.space();
    let at = lab.map_at(&mut space, 0x1234_5678, 2, RW, PRIVATE).unwrap();
    assert_eq!(at, GuestVirt(0x1234_5000));
    let other = lab.map_at(&mut space, 0x1234_6000, 1, RW, PRIVATE).unwrap();
    assert_eq!(page(other, 1), space.layout().mmap_base);
    let fixed = PRIVATE | MapFlags::FIXED_NO_REPLACE;
    let error = lab.map_at(&mut space, 0x1234_4000, 2, RW, fixed).unwrap_err();
    assert_eq!(error, MmError::AlreadyMapped);
    lab.map_at(&mut space, 0x1234_4000, 1, RW, fixed).unwrap();
    lab.end(space);
    lab.check_balance();
}

#[test]
fn wrong_requests_have_linuxs_errors() {
    let lab = Lab::new(512);
    let mut space = lab.space();
    let mut errno = |address: u64, length: u64, flags: MapFlags| {
        let request = MapRequest {
            address: GuestVirt(address),
            length,
            protection: RW,
            flags,
            source: MapSource::Anonymous,
        };
        space.mmap(&lab.memory, &request).map_or_else(MmError::errno, |_| 0)
    };
    assert_eq!(errno(0, 0, PRIVATE), 22);
    assert_eq!(errno(0, u64::MAX, PRIVATE), 12);
    assert_eq!(errno(0, 1 << 48, PRIVATE), 12);
    assert_eq!(errno(0, PAGE, MapFlags::ANONYMOUS), 22);
    assert_eq!(errno(0, PAGE, MapFlags::ANONYMOUS | MapFlags::SHARED_VALIDATE), 22);
    assert_eq!(errno(0, PAGE, PRIVATE | MapFlags::from_bits_retain(4)), 22);
    assert_eq!(errno(0x1001, PAGE, PRIVATE | MapFlags::FIXED), 22);
    assert_eq!(errno(0, PAGE, PRIVATE | MapFlags::FIXED), 1);
    assert_eq!(errno(0x7fff_ffff_f000, PAGE, PRIVATE | MapFlags::FIXED), 12);
    assert_eq!(errno(0, PAGE, SHARED | MapFlags::GROWS_DOWN), 22);
    assert_eq!(errno(0, PAGE, PRIVATE | MapFlags::HUGE_TLB), 12);
    let huge = |log: u32| PRIVATE | MapFlags::HUGE_TLB | MapFlags::from_bits_retain(log << 26);
    assert_eq!((errno(0, PAGE, huge(21)), errno(0, PAGE, huge(63))), (12, 22));
    assert_eq!(errno(0, 1 << 44, PRIVATE), 12, "more than all memory");
    assert_eq!(errno(0, 1 << 44, PRIVATE | MapFlags::NO_RESERVE), 0);
    assert_eq!(space.munmap(&lab.memory, GuestVirt(1), PAGE), Err(MmError::Invalid));
    assert_eq!(space.munmap(&lab.memory, GuestVirt(0), 0), Err(MmError::Invalid));
    assert_eq!(space.munmap(&lab.memory, GuestVirt(0), u64::MAX), Err(MmError::Invalid));
    assert_eq!(space.munmap(&lab.memory, GuestVirt(0), PAGE), Ok(()));
    lab.end(space);
    lab.check_balance();
}

#[test]
fn zeros_of_a_file_are_written_as_it_was_opened() {
    let lab = Lab::new(512);
    let mut space = lab.space();
    let mut map = |protection, flags, may_write| {
        let source = MapSource::Zeros { may_write };
        let request = MapRequest { address: GuestVirt(0), length: PAGE, protection, flags, source };
        space.mmap(&lab.memory, &request).map(|mapped| mapped.start)
    };
    let shared = MapFlags::SHARED;
    assert_eq!(map(RW, shared, false), Err(MmError::AccessDenied));
    assert_eq!(map(RW, MapFlags::PRIVATE | MapFlags::GROWS_DOWN, true), Err(MmError::Invalid));
    let read_only = map(Protection::READ, shared, false).unwrap();
    let writable = map(Protection::READ, MapFlags::SHARED_VALIDATE, true).unwrap();
    let private = map(Protection::READ, MapFlags::PRIVATE, false).unwrap();
    let both = u32::from(RW.bits());
    let refused = space.mprotect(&lab.memory, read_only, PAGE, both);
    assert_eq!(refused, Err(MmError::AccessDenied));
    for at in [writable, private] {
        space.mprotect(&lab.memory, at, PAGE, both).unwrap();
        assert_eq!(lab.load(&mut space, at).map(|(value, _)| value), Ok(0));
        lab.write(&mut space, at);
    }
    lab.end(space);
    lab.check_balance();
}

#[test]
fn limits_hold() {
    let lab = Lab::new(512);
    let mut space = lab.space();
    space.limits.address_space = 10 * PAGE;
    space.limits.data = 4 * PAGE;
    let try_map = |space: &mut _, pages, protection| {
        lab.map_at(space, 0, pages, protection, PRIVATE).map(|_| ())
    };
    assert_eq!(try_map(&mut space, 5, RW), Err(MmError::OverLimit));
    assert_eq!(try_map(&mut space, 4, RW), Ok(()));
    assert_eq!(try_map(&mut space, 1, RW), Err(MmError::OverLimit));
    assert_eq!(try_map(&mut space, 7, Protection::READ), Err(MmError::OverLimit));
    assert_eq!(try_map(&mut space, 6, Protection::READ), Ok(()));
    lab.end(space);
    lab.check_balance();
}

#[test]
fn holes_free_their_tables_and_nothing_else() {
    let lab = Lab::new(4096);
    let mut space = lab.space();
    let at = lab.map(&mut space, 2048, RW, PRIVATE);
    for n in 0..2048 {
        lab.write(&mut space, page(at, n));
    }
    let tables = space.tables();
    space.munmap(&lab.memory, page(at, 100), 1800 * PAGE).unwrap();
    lab.memory.machine.check_tlb();
    assert!(space.tables() < tables);
    assert_eq!((space.resident().anonymous, space.area_count()), (248, 2));
    for n in (0..100).chain(1900..2048) {
        assert_eq!(lab.write(&mut space, page(at, n)), None);
    }
    assert!(lab.touch(&mut space, page(at, 100), Access::READ).is_err());
    space.munmap(&lab.memory, at, 2048 * PAGE).unwrap();
    assert_eq!((space.resident().total(), space.tables()), (0, 1));
    lab.end(space);
    lab.check_balance();
}

#[test]
fn thousands_of_areas_stay_ordered() {
    let lab = Lab::new(4096);
    let mut space = lab.space();
    let at = lab.map(&mut space, 20_000, RW, PRIVATE | MapFlags::NO_RESERVE);
    for n in 0..10_000u64 {
        let scattered = n * 7919 % 10_000;
        space.munmap(&lab.memory, page(at, scattered * 2 + 1), PAGE).unwrap();
    }
    assert_eq!(space.area_count(), 10_000);
    let starts: Vec<_> = space.areas().map(|area| area.start.0).collect();
    assert!(starts.is_sorted());
    // One page fits into the highest hole, two fit only below everything.
    let one = lab.map(&mut space, 1, Protection::READ, PRIVATE);
    assert_eq!(one, page(at, 19_999));
    let two = lab.map(&mut space, 2, Protection::READ, PRIVATE);
    assert_eq!(page(two, 2), at);
    for n in 0..10_000u64 {
        let (even, odd) = (page(at, n * 2), page(at, n * 2 + 1));
        assert!(space.area_at(even).is_some());
        assert_eq!(space.area_at(odd).is_some(), odd == one);
    }
    lab.end(space);
    lab.check_balance();
}

#[test]
fn the_heap_grows_shrinks_and_stays_clear_of_others() {
    let lab = Lab::new(512);
    let mut space = lab.space();
    let start = GuestVirt(0x50_0000);
    space.set_heap(start, 0);
    let memory = &lab.memory;
    assert_eq!(space.brk(memory, GuestVirt(0)), start);
    let end = GuestVirt(start.0 + 5 * PAGE + 1);
    assert_eq!(space.brk(memory, end), end);
    assert_eq!(space.sizes().total, 6);
    lab.write(&mut space, page(start, 5));
    let less = GuestVirt(start.0 + PAGE);
    assert_eq!(space.brk(memory, less), less);
    assert_eq!((space.sizes().total, space.resident().total()), (1, 0));
    lab.map_at(&mut space, start.0 + 10 * PAGE, 1, RW, PRIVATE | MapFlags::FIXED).unwrap();
    assert_eq!(space.brk(memory, page(start, 10)), less, "a page must stay free");
    assert_eq!(space.brk(memory, page(start, 9)), page(start, 9));
    space.limits.data = 9 * PAGE;
    space.munmap(memory, page(start, 10), PAGE).unwrap();
    assert_eq!(space.brk(memory, page(start, 10)), page(start, 9));
    // Where the program has unmapped its end the heap does not shrink.
    space.munmap(memory, page(start, 7), 2 * PAGE).unwrap();
    assert_eq!(space.brk(memory, page(start, 7)), page(start, 9));
    assert_eq!(space.brk(memory, page(start, 6)), page(start, 6));
    lab.end(space);
    lab.check_balance();
}

#[test]
fn the_heap_is_populated_only_if_all_new_memory_is_locked() {
    let lab = Lab::new(512);
    let mut space = lab.space();
    let start = GuestVirt(0x50_0000);
    space.set_heap(start, 0);
    let memory = &lab.memory;
    space.brk(memory, page(start, 2));
    space.mlock(memory, page(start, 1), PAGE, false).unwrap();
    space.brk(memory, page(start, 4));
    assert_eq!((space.resident().total(), space.sizes().locked), (1, 1));
    space.mlockall(memory, pagelab_mm::LockAll::FUTURE).unwrap();
    space.brk(memory, page(start, 6));
    assert_eq!((space.resident().total(), space.sizes().locked), (3, 3));
    lab.end(space);
    lab.check_balance();
}

#[test]
fn there_is_a_limit_to_the_number_of_areas() {
    let lab = Lab::new(512);
    let memory = &lab.memory;
    let mut space = lab.space();
    let fixed = PRIVATE | MapFlags::FIXED | MapFlags::NO_RESERVE;
    let at = GuestVirt(0x1000_0000);
    for n in 0..65_531 {
        let protection = if n % 2 == 0 { RW } else { Protection::READ };
        lab.map_at(&mut space, page(at, n).0, 1, protection, fixed).unwrap();
    }
    assert_eq!(space.area_count(), 65_531);
    let more = lab.map_at(&mut space, 0x1_0000, 1, RW, fixed);
    assert_eq!(more, Err(MmError::TooManyAreas));
    assert_eq!(MmError::TooManyAreas.errno(), 12);
    space.munmap(memory, page(at, 10), 3 * PAGE).unwrap();
    let three = lab.map_at(&mut space, page(at, 10).0, 3, Protection::empty(), fixed);
    assert_eq!(three, Ok(page(at, 10)));
    // Splits are refused where they would make one too many.
    for n in 0..2 {
        lab.map_at(&mut space, 0x1_0000 + n * 0x1_0000, 1, RW, fixed).unwrap();
    }
    assert_eq!(space.munmap(memory, page(at, 11), PAGE), Err(MmError::TooManyAreas));
    assert_eq!(space.mprotect(memory, page(at, 11), PAGE, 1), Err(MmError::TooManyAreas));
    assert_eq!(space.munmap(memory, page(at, 10), 3 * PAGE), Ok(()));
    lab.end(space);
    lab.check_balance();
}

#[test]
fn every_space_gets_the_kernels_half_and_gives_its_root_back_zero() {
    let frames = crate::lab::frames(&[FrameRange { first: Frame(0), end: Frame(512), zero: true }]);
    let frames: &'static _ = Box::leak(Box::new(frames));
    let ram = Ram::new(512);
    let kernel_root = frames.alloc_zeroed(&ram, Use::Table).unwrap();
    let user = Entry::for_frame(Frame(7), EntryFlags::PRESENT);
    ram.write_entry(kernel_root, 3, user);
    let kernel = Entry::for_frame(Frame(9), EntryFlags::PRESENT | EntryFlags::GLOBAL);
    for index in [256, 448, 511] {
        ram.write_entry(kernel_root, index, kernel);
    }
    let memory = Memory::new(ram, frames, Some(kernel_root)).unwrap();
    let layout = Layout::new(8 << 20, LayoutShift::default());
    let space = AddressSpace::new(&memory, layout, Limits::default()).unwrap();
    let root = space.root();
    let present: Vec<_> =
        (0..512).filter(|&index| memory.machine.read_entry(root, index).is_present()).collect();
    assert_eq!(present, [256, 448, 511]);
    assert_eq!(memory.machine.read_entry(root, 448), kernel);
    space.destroy(&memory);
    assert!((0..512).all(|index| memory.machine.word(root, index) == 0));
    for index in 256..320 {
        memory.machine.write_entry(kernel_root, index, kernel);
    }
    let Memory { machine, frames, .. } = memory;
    let refused = Memory::new(machine, frames, Some(kernel_root)).err();
    assert_eq!(refused, Some(MemoryError::TooManyKernelEntries));
}
