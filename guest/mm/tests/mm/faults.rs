//! Page faults: each has one kind.

use pagelab_abi::addr::GuestVirt;
use pagelab_abi::fault::FaultKind;
use pagelab_mm::{
    Access, Copies, FaultError, Machine, MapFlags, MapRequest, MapSource, NeedsPage, ObjectKind,
    Page, Protection,
};

use crate::lab::{Lab, PAGE, PRIVATE, RW, SHARED, page};

#[test]
fn anonymous_memory_has_no_frame_until_touched() {
    let lab = Lab::new(4096);
    let mut space = lab.space();
    let at = lab.map(&mut space, 1025, RW, PRIVATE);
    assert_eq!((space.resident().total(), space.sizes().total), (0, 1025));
    assert_eq!(lab.read(&mut space, at), Some(FaultKind::ZeroPageRead));
    assert_eq!(lab.read(&mut space, at), None);
    assert_eq!(space.resident().total(), 0, "the zero page does not count");
    assert_eq!(lab.write(&mut space, at), Some(FaultKind::ZeroPageUpgrade));
    for n in 1..1025 {
        assert_eq!(lab.write(&mut space, page(at, n)), Some(FaultKind::DemandZero));
        assert_eq!(lab.write(&mut space, page(at, n)), None);
    }
    assert_eq!(space.resident().anonymous, 1025);
    space.munmap(&lab.memory, at, 1025 * PAGE).unwrap();
    assert_eq!((space.resident().total(), space.tables(), space.area_count()), (0, 1, 0));
    assert_eq!(space.peak_resident(), 1025);
    lab.end(space);
    lab.check_balance();
}

#[test]
fn what_is_not_allowed_is_told_apart() {
    let lab = Lab::new(512);
    let mut space = lab.space();
    let fault = |space: &mut pagelab_mm::AddressSpace, at, access| {
        space.fault(&lab.memory, at, access).unwrap_err()
    };
    assert_eq!(fault(&mut space, GuestVirt(0), Access::READ), FaultError::NoMapping);
    let none = lab.map(&mut space, 1, Protection::empty(), PRIVATE);
    assert_eq!(fault(&mut space, none, Access::READ), FaultError::Forbidden);
    let read = lab.map(&mut space, 1, Protection::READ, PRIVATE);
    assert_eq!(fault(&mut space, read, Access::WRITE), FaultError::Forbidden);
    assert_eq!(lab.read(&mut space, read), Some(FaultKind::ZeroPageRead));
    assert_eq!(fault(&mut space, read, Access::EXECUTE), FaultError::Forbidden);
    assert_eq!(FaultError::Forbidden.kind(), Some(FaultKind::ProtectionViolation));
    let code = lab.map(&mut space, 1, Protection::EXECUTE, PRIVATE);
    let (_, faults) = lab.touch(&mut space, code, Access::EXECUTE).unwrap();
    assert_eq!(faults[0].kind, FaultKind::ZeroPageRead);
    assert_eq!(fault(&mut space, GuestVirt(0x7fff_ffff_f000), Access::READ), FaultError::NoMapping);
    lab.end(space);
    lab.check_balance();
}

#[test]
fn a_page_is_there_before_fetching_from_it_is_forbidden() {
    let lab = Lab::new(512);
    let mut space = lab.space();
    let private = lab.map(&mut space, 1, RW, PRIVATE);
    let first = space.fault(&lab.memory, private, Access::EXECUTE).unwrap();
    assert_eq!(first.kind, FaultKind::ZeroPageRead);
    let again = space.fault(&lab.memory, private, Access::EXECUTE);
    assert_eq!(again, Err(FaultError::Forbidden));
    assert_eq!(lab.write(&mut space, private), Some(FaultKind::ZeroPageUpgrade));
    let none = lab.map(&mut space, 1, Protection::empty(), PRIVATE);
    let fetched = space.fault(&lab.memory, none, Access::EXECUTE);
    assert_eq!(fetched, Err(FaultError::Forbidden), "no page to be had");
    // Past the end of shared memory there is no page that could forbid anything.
    let shared = lab.map_at(&mut space, 0x1000_0000, 1, RW, SHARED).unwrap();
    let request = pagelab_mm::RemapRequest {
        address: shared,
        old_length: PAGE,
        new_length: 2 * PAGE,
        flags: pagelab_mm::RemapFlags::empty(),
        new_address: GuestVirt(0),
    };
    space.mremap(&lab.memory, &request).unwrap();
    let past = space.fault(&lab.memory, page(shared, 1), Access::EXECUTE);
    assert_eq!(past, Err(FaultError::NoBacking));
    lab.end(space);
    lab.check_balance();
}

#[test]
fn a_second_fault_for_the_same_is_spurious() {
    let lab = Lab::new(512);
    let mut space = lab.space();
    let at = lab.map(&mut space, 1, RW, PRIVATE);
    let first = space.fault(&lab.memory, at, Access::WRITE).unwrap();
    let second = space.fault(&lab.memory, at, Access::WRITE).unwrap();
    assert_eq!(second.kind, FaultKind::Spurious);
    assert_eq!((second.before, second.after), (first.after, first.after));
    lab.end(space);
    lab.check_balance();
}

#[test]
fn the_stack_grows_to_its_limit_and_keeps_its_gap() {
    let lab = Lab::new(4096);
    let mut space = lab.space();
    space.limits.stack = 64 * PAGE;
    let start = space.map_stack(&lab.memory, 2).unwrap();
    let top = space.layout().stack_top;
    assert_eq!(lab.write(&mut space, start), Some(FaultKind::DemandZero));
    let deep = GuestVirt(top.0 - 60 * PAGE);
    assert_eq!(lab.write(&mut space, deep), Some(FaultKind::StackGrowth));
    assert_eq!(lab.write(&mut space, page(deep, 1)), Some(FaultKind::DemandZero));
    assert_eq!(space.sizes().stack, 60);
    let limit = GuestVirt(top.0 - 64 * PAGE);
    let below = GuestVirt(limit.0 - 1);
    assert_eq!(lab.touch(&mut space, below, Access::WRITE).unwrap_err(), FaultError::NoMapping);
    assert_eq!(lab.write(&mut space, limit), Some(FaultKind::StackGrowth));

    // Something below keeps the stack 256 pages away.
    space.limits.stack = u64::MAX;
    let other = limit.0 - 300 * PAGE;
    lab.map_at(&mut space, other, 1, RW, PRIVATE | MapFlags::FIXED).unwrap();
    let least = GuestVirt(other + PAGE + 256 * PAGE);
    let too_deep = GuestVirt(least.0 - 1);
    assert_eq!(lab.touch(&mut space, too_deep, Access::READ).unwrap_err(), FaultError::NoMapping);
    assert_eq!(lab.write(&mut space, least), Some(FaultKind::StackGrowth));
    lab.end(space);
    lab.check_balance();
}

#[test]
fn program_pages_are_mapped_and_copied_when_written() {
    let lab = Lab::new(512);
    let memory = &lab.memory;
    let object = memory.objects.create(ObjectKind::Program, 3, 0).unwrap();
    for index in 0..2 {
        let frame = lab.page_of(10 + index as u8);
        memory.objects.insert(&memory.machine, memory.frames, object, index, frame).unwrap();
    }
    let mut space = lab.space();
    let request = MapRequest {
        address: GuestVirt(0x40_0000),
        length: 4 * PAGE,
        protection: RW,
        flags: MapFlags::PRIVATE | MapFlags::FIXED,
        source: MapSource::Object { object, offset: 0, may_write: false, notify_write: false },
    };
    let at = space.mmap(memory, &request).unwrap().start;
    assert_eq!(lab.load(&mut space, at), Ok((10, Some(FaultKind::PageInMinor))));
    assert_eq!(space.resident().file, 1);
    assert_eq!(lab.store(&mut space, at, 99), Ok(Some(FaultKind::CowCopy)));
    assert_eq!(lab.store(&mut space, page(at, 1), 98), Ok(Some(FaultKind::CowCopy)));
    assert_eq!((space.resident().file, space.resident().anonymous), (0, 2));
    assert_eq!(lab.load(&mut space, GuestVirt(at.0 + PAGE + 5)), Ok((11, None)));
    let needed = NeedsPage { object, index: 2 };
    assert_eq!(lab.load(&mut space, page(at, 2)), Err(FaultError::NeedsPage(needed)));
    let frame = lab.page_of(12);
    memory.objects.insert(&memory.machine, memory.frames, object, 2, frame).unwrap();
    let major = Access { major: true, ..Access::READ };
    let resolved = space.fault(memory, page(at, 2), major).unwrap();
    assert_eq!((resolved.kind, resolved.after), (FaultKind::PageInMajor, Some(frame)));
    assert_eq!(lab.load(&mut space, page(at, 3)), Err(FaultError::NoBacking));
    let mut byte = [0];
    let (Page::Present(first), _) = memory.objects.lookup(&memory.machine, object, 0) else {
        panic!("the page left its object")
    };
    memory.machine.read_bytes(first, 0, &mut byte);
    assert_eq!(byte, [10], "the object keeps its own");
    lab.end(space);
    memory.release_object(object);
    lab.check_balance();
}

#[test]
fn a_hole_leaves_private_copies_where_an_end_takes_them() {
    let lab = Lab::new(512);
    let memory = &lab.memory;
    let object = memory.objects.create(ObjectKind::File, 2, 0).unwrap();
    for index in 0..2 {
        let frame = lab.page_of(5);
        memory.objects.insert(&memory.machine, memory.frames, object, index, frame).unwrap();
    }
    let request = MapRequest {
        address: GuestVirt(0),
        length: 2 * PAGE,
        protection: RW,
        flags: MapFlags::PRIVATE,
        source: MapSource::Object { object, offset: 0, may_write: true, notify_write: true },
    };
    let mut space = lab.space();
    let start = space.mmap(memory, &request).unwrap().start;
    lab.store(&mut space, start, 6).unwrap();
    lab.load(&mut space, page(start, 1)).unwrap();
    space.unmap_object(memory, object, (0, 2), Copies::Stay);
    assert_eq!((space.resident().anonymous, space.resident().file), (1, 0));
    assert_eq!(lab.load(&mut space, start), Ok((6, None)));
    space.unmap_object(memory, object, (0, 2), Copies::Go);
    assert_eq!(space.resident().anonymous, 0);
    assert_eq!(lab.load(&mut space, start), Ok((5, Some(FaultKind::FileMinor))));
    lab.end(space);
    memory.release_object(object);
    lab.check_balance();
}

#[test]
fn shared_pages_are_one_and_report_their_first_write() {
    let lab = Lab::new(512);
    let memory = &lab.memory;
    let object = memory.objects.create(ObjectKind::File, 1, 0).unwrap();
    let frame = lab.page_of(5);
    memory.objects.insert(&memory.machine, memory.frames, object, 0, frame).unwrap();
    let request = MapRequest {
        address: GuestVirt(0),
        length: PAGE,
        protection: RW,
        flags: MapFlags::SHARED,
        source: MapSource::Object { object, offset: 0, may_write: true, notify_write: true },
    };
    let (mut one, mut two) = (lab.space(), lab.space());
    let a = one.mmap(memory, &request).unwrap().start;
    let b = two.mmap(memory, &request).unwrap().start;
    assert_eq!(lab.load(&mut one, a), Ok((5, Some(FaultKind::FileMinor))));
    assert!(!memory.frames.hold().is_dirty(frame));
    assert_eq!(lab.store(&mut one, a, 6), Ok(Some(FaultKind::WriteNotify)));
    assert!(memory.frames.hold().is_dirty(frame));
    assert_eq!(lab.load(&mut two, b), Ok((6, Some(FaultKind::FileMinor))));
    assert_eq!(memory.frames.count(frame), 3);
    // Truncation: gone from all mappers, and nothing behind it.
    for space in [&mut one, &mut two] {
        space.unmap_object(memory, object, (0, u64::MAX), Copies::Go);
        assert_eq!(space.resident().file, 0);
    }
    memory.objects.set_pages(&memory.machine, memory.frames, object, 0);
    assert_eq!(lab.load(&mut one, a), Err(FaultError::NoBacking));
    lab.end(one);
    lab.end(two);
    memory.release_object(object);
    lab.check_balance();
}

#[test]
fn shrinking_the_table_of_objects_keeps_those_in_use() {
    let lab = Lab::new(64);
    let objects = &lab.memory.objects;
    let new = || objects.create(ObjectKind::File, 1, 0).unwrap();
    let made: Vec<_> = (0..6).map(|_| new()).collect();
    for index in [1, 3, 4, 5] {
        lab.memory.release_object(made[index]);
    }
    objects.shrink();
    assert_eq!((objects.count(), objects.references(made[2])), (2, 1));
    // Numbers that are free again are used, none twice.
    let again = [new(), new()];
    assert_eq!(again[0], made[1]);
    assert!(!made[..3].contains(&again[1]));
    for object in [made[0], made[2], again[0], again[1]] {
        lab.memory.release_object(object);
    }
    objects.shrink();
    lab.check_balance();
}

#[test]
fn shared_anonymous_memory_needs_no_second_fault_to_be_written() {
    let lab = Lab::new(512);
    let mut space = lab.space();
    let at = lab.map(&mut space, 2, RW, SHARED);
    assert_eq!(lab.read(&mut space, at), Some(FaultKind::DemandZero));
    assert_eq!(lab.write(&mut space, at), None);
    assert_eq!(lab.write(&mut space, page(at, 1)), Some(FaultKind::DemandZero));
    assert_eq!(space.resident().shared_memory, 2);
    lab.end(space);
    lab.check_balance();
}

#[test]
fn the_kernel_faults_pages_in_for_the_program() {
    let lab = Lab::new(512);
    let memory = &lab.memory;
    let mut space = lab.space();
    let at = lab.map(&mut space, 3, RW, PRIVATE);
    let across = GuestVirt(at.0 + PAGE - 3);
    space.write_user(memory, across, b"across\0").unwrap();
    let kinds: Vec<_> = memory.machine.software_faults.take().into_iter().map(|f| f.1).collect();
    assert_eq!(kinds, [FaultKind::DemandZero; 2]);
    let mut back = [0; 16];
    assert_eq!(space.read_cstr(memory, across, &mut back), Ok(Some(6)));
    assert_eq!(&back[..6], b"across");
    assert_eq!(lab.load(&mut space, GuestVirt(across.0 + 4)), Ok((b's', None)));
    let end = page(at, 3);
    let partial = space.write_user(memory, GuestVirt(end.0 - 2), &[1; 4]).unwrap_err();
    assert_eq!((partial.done, partial.error), (2, FaultError::NoMapping));
    let partial = space.read_user(memory, GuestVirt(u64::MAX - 1), &mut back).unwrap_err();
    assert_eq!((partial.done, partial.error), (0, FaultError::NoMapping));
    lab.end(space);
    lab.check_balance();
}

#[test]
fn populated_memory_faults_no_more() {
    let lab = Lab::new(512);
    let mut space = lab.space();
    let at = lab.map(&mut space, 8, RW, PRIVATE | MapFlags::POPULATE);
    assert_eq!(space.resident().anonymous, 8);
    assert_eq!(lab.write(&mut space, page(at, 7)), None);
    let read_only = lab.map(&mut space, 8, Protection::READ, PRIVATE | MapFlags::POPULATE);
    assert_eq!(space.resident().anonymous, 8);
    assert_eq!(lab.read(&mut space, read_only), None);
    lab.end(space);
    lab.check_balance();
}

#[test]
fn without_frames_a_fault_fails_and_loses_nothing() {
    let lab = Lab::new(600);
    let memory = &lab.memory;
    let mut space = lab.space();
    let at = lab.map(&mut space, 1, RW, PRIVATE);
    let mut taken: Vec<_> =
        std::iter::from_fn(|| memory.frames.alloc(pagelab_mm::Use::Kernel)).collect();
    // Three tables and the page itself.
    for _ in 0..4 {
        assert_eq!(lab.touch(&mut space, at, Access::WRITE).unwrap_err(), FaultError::OutOfMemory);
        memory.frames.release(&memory.machine, taken.pop().unwrap());
    }
    assert_eq!(lab.write(&mut space, at), Some(FaultKind::DemandZero));
    for frame in taken {
        memory.frames.release(&memory.machine, frame);
    }
    lab.end(space);
    lab.check_balance();
}
