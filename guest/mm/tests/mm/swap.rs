//! Swap: pages go out and come back as they were, shared if they were.

use pagelab_abi::fault::FaultKind;
use pagelab_mm::pagemap::{PRESENT, SWAPPED};
use pagelab_mm::{Access, MmError};

use crate::disk::World;
use crate::lab::{Lab, PAGE, PRIVATE, RW, page};

/// A process with `pages` pages of anonymous memory, page *n* holding *n* + 1.
fn filled(world: &World<'_>, pages: u64) -> (usize, pagelab_abi::addr::GuestVirt) {
    let one = world.spawn();
    let at = world.lab.map(&mut world.spaces.borrow_mut()[one], pages, RW, PRIVATE);
    (0..pages).for_each(|n| drop(world.store(one, page(at, n), n as u8 + 1)));
    (one, at)
}

fn fork(world: &World<'_>, process: usize) -> usize {
    let child = world.spaces.borrow_mut()[process].fork(&world.lab.memory).unwrap();
    world.spaces.borrow_mut().push(child);
    world.spaces.borrow().len() - 1
}

#[test]
fn pages_go_out_and_come_back() {
    let lab = Lab::new(512);
    let world = World::with_swap(&lab, 1, 101);
    let (one, at) = filled(&world, 20);
    assert_eq!(world.reclaim(20).swapped, 20);
    let usage = lab.memory.swap_use();
    assert_eq!((usage.total, usage.free, usage.cached), (100, 80, 0));
    let spaces = world.spaces.borrow();
    let space = &spaces[one];
    assert_eq!((space.resident().anonymous, space.swapped()), (0, 20));
    let stats = space.stats(&lab.memory);
    assert_eq!((stats.resident, stats.swapped), (0, 20 * PAGE));
    assert_eq!(stats.proportional_swapped, (20 * PAGE) << 12);
    let mut entry = [0];
    space.pagemap(&lab.memory, at, &mut entry);
    assert_eq!(entry[0] & (PRESENT | SWAPPED), SWAPPED);
    assert!(entry[0] & 0x1f == 0 && (entry[0] & ((1 << 55) - 1)) >> 5 > 0);
    drop(spaces);
    for n in 0..20 {
        let (frame, faults) = world.touch(one, page(at, n), Access::READ).unwrap();
        assert_eq!(world.lab.memory.machine.word(frame, 0) as u8, n as u8 + 1);
        assert_eq!(faults[0].kind, FaultKind::SwapIn);
        assert!(world.store(one, page(at, n), 7).is_empty(), "alone with it, so it may write");
    }
    assert_eq!((world.reads.get(), world.lab.memory.swap_use().free), (20, 100));
    world.end();
}

#[test]
fn what_was_shared_is_written_once_and_comes_back_shared() {
    let lab = Lab::new(512);
    let world = World::with_swap(&lab, 1, 101);
    let (one, at) = filled(&world, 4);
    let two = fork(&world, one);
    let three = fork(&world, two);
    assert_eq!(world.reclaim(4).swapped, 4);
    assert_eq!(lab.memory.swap_use().free, 96, "one slot a page");
    let stats = world.spaces.borrow()[two].stats(&lab.memory);
    assert_eq!(stats.proportional_swapped, 4 * ((PAGE << 12) / 3));
    let frame = world.touch(two, at, Access::READ).unwrap().0;
    assert_eq!(lab.memory.swap_use().cached, 1);
    let (again, faults) = world.touch(one, at, Access::READ).unwrap();
    assert_eq!((again, faults[0].kind), (frame, FaultKind::SwapIn));
    assert_eq!(world.reads.get(), 1, "read once");
    // Two share it, the third has not come yet: a write copies.
    assert_eq!(world.store(one, at, 50)[0].kind, FaultKind::CowCopy);
    assert_eq!(world.store(two, at, 51)[0].kind, FaultKind::CowCopy, "the third still needs it");
    let (theirs, faults) = world.touch(three, at, Access::WRITE).unwrap();
    assert_eq!((theirs, faults[0].kind), (frame, FaultKind::SwapIn));
    assert_eq!([one, two, three].map(|process| world.load(process, at)), [50, 51, 1]);
    assert_eq!((lab.memory.swap_use().cached, lab.memory.swap_use().free), (0, 97));
    // Not alone, and it writes: in one fault.
    let (copy, faults) = world.touch(one, page(at, 1), Access::WRITE).unwrap();
    assert_eq!((faults.len(), faults[0].kind), (1, FaultKind::SwapIn));
    assert_ne!(world.touch(two, page(at, 1), Access::READ).unwrap().0, copy);
    world.end();
}

#[test]
fn a_page_that_still_has_its_slot_is_not_written_again() {
    let lab = Lab::new(512);
    let world = World::with_swap(&lab, 1, 101);
    let (one, at) = filled(&world, 1);
    let two = fork(&world, one);
    world.reclaim(1);
    world.load(one, at);
    world.fail_after.set(0);
    let done = world.reclaim(1);
    assert_eq!((done.swapped, lab.memory.swap_use().cached), (1, 0), "dropped, not written");
    assert_eq!(lab.memory.swap.count(1), 2);
    assert_eq!((world.load(two, at), world.load(one, at)), (1, 1));
    world.end();
}

#[test]
fn what_cannot_be_written_stays() {
    let lab = Lab::new(512);
    let world = World::with_swap(&lab, 1, 101);
    let (one, at) = filled(&world, 10);
    world.fail_after.set(0);
    assert_eq!(world.reclaim(10).freed(), 0);
    assert_eq!((lab.memory.swap_use().cached, world.spaces.borrow()[one].swapped()), (10, 10));
    assert_eq!(world.load(one, at), 1);
    assert_eq!((world.reads.get(), lab.memory.swap_use().cached), (0, 9));
    world.fail_after.set(9);
    assert_eq!(world.reclaim(9).swapped, 9);
    (0..10).for_each(|n| assert_eq!(world.load(one, page(at, n)), n as u8 + 1));
    world.end();
}

#[test]
fn without_a_free_slot_pages_stay() {
    let lab = Lab::new(512);
    let world = World::with_swap(&lab, 1, 4);
    let (one, at) = filled(&world, 10);
    assert_eq!(world.reclaim(10).swapped, 3);
    assert_eq!(world.reclaim(10).swapped, 0);
    assert_eq!(lab.memory.swap_off(), Err(MmError::Busy));
    (0..10).for_each(|n| assert_eq!(world.load(one, page(at, n)), n as u8 + 1));
    assert_eq!(lab.memory.swap_use().free, 3);
    world.end();
}

#[test]
fn calls_work_on_what_is_in_swap() {
    let lab = Lab::new(512);
    let memory = &lab.memory;
    let world = World::with_swap(&lab, 1, 101);
    let (one, at) = filled(&world, 10);
    assert_eq!(world.reclaim(10).swapped, 10);
    {
        let space = &mut world.spaces.borrow_mut()[one];
        space.madvise(memory, at, PAGE, 4).unwrap();
        space.madvise(memory, page(at, 1), PAGE, 8).unwrap();
        space.munmap(memory, page(at, 2), PAGE).unwrap();
        space.mprotect(memory, page(at, 3), PAGE, 1).unwrap();
        let request = pagelab_mm::RemapRequest {
            address: page(at, 4),
            old_length: PAGE,
            new_length: PAGE,
            flags: pagelab_mm::RemapFlags::MAY_MOVE | pagelab_mm::RemapFlags::FIXED,
            new_address: page(at, 20),
        };
        space.mremap(memory, &request).unwrap();
        let mut there = Vec::new();
        space.mincore(memory, page(at, 5), 5 * PAGE, |_, resident| there.push(resident)).unwrap();
        assert_eq!(there, [false; 5]);
        assert_eq!((space.swapped(), memory.swap_use().free), (7, 93));
    }
    assert_eq!([0, 1, 3].map(|n| world.load(one, page(at, n))), [0, 0, 4]);
    assert_eq!(world.load(one, page(at, 20)), 5);
    world.touch(one, page(at, 3), Access::WRITE).unwrap_err();
    let locked = world.spaces.borrow_mut()[one].mlock(memory, page(at, 6), PAGE, false);
    let Err(MmError::NeedsPage(needed)) = locked else { panic!("{locked:?}") };
    world.page_in(needed).unwrap();
    world.spaces.borrow_mut()[one].mlock(memory, page(at, 6), PAGE, false).unwrap();
    world.reclaim(9);
    let resident = world.spaces.borrow()[one].resident();
    assert_eq!(resident.anonymous, 1, "the locked one");
    world.end();
}

#[test]
fn pages_that_are_not_needed_for_long_go_at_once_unless_they_are_shared() {
    let lab = Lab::new(512);
    let memory = &lab.memory;
    let world = World::with_swap(&lab, 8, 101);
    let (one, at) = filled(&world, 4);
    let two = fork(&world, one);
    (0..2).for_each(|n| drop(world.store(one, page(at, n), 90)));
    let file = world.map_file(one, pagelab_mm::MapFlags::SHARED, RW);
    world.load_all(one, file, 0..8);
    let mut frames = [pagelab_abi::addr::Frame(0); 3];
    let mut next = at;
    let mut taken = 0;
    while next < page(at, 4) {
        world.spaces.borrow_mut()[one].madvise(memory, at, 4 * PAGE, 21).unwrap();
        let range = (next, page(at, 4));
        let found = world.spaces.borrow()[one].mapped_frames(memory, range, &mut frames);
        next = found.1;
        taken += memory.page_out(&world, &frames[..found.0]).swapped;
        memory.machine.check_tlb();
    }
    assert_eq!((taken, world.spaces.borrow()[one].swapped()), (2, 2), "two are shared");
    world.spaces.borrow_mut()[one].madvise(memory, file, PAGE, 21).unwrap();
    let range = (file, page(file, 1));
    let found = world.spaces.borrow()[one].mapped_frames(memory, range, &mut frames);
    assert_eq!(memory.page_out(&world, &frames[..found.0]).clean, 1);
    assert_eq!([0, 1, 2, 3].map(|n| world.load(one, page(at, n))), [90, 90, 3, 4]);
    assert_eq!((world.load(two, at), world.load(one, file)), (1, 1));
    world.end();
}

#[test]
fn shared_memory_goes_out_and_comes_back_for_all() {
    let lab = Lab::new(512);
    let memory = &lab.memory;
    let world = World::with_swap(&lab, 1, 101);
    let one = world.spawn();
    let at = lab.map(&mut world.spaces.borrow_mut()[one], 8, RW, crate::lab::SHARED);
    (0..8).for_each(|n| drop(world.store(one, page(at, n), n as u8 + 1)));
    let two = fork(&world, one);
    assert_eq!((world.load(two, page(at, 3)), world.reclaim(8).swapped), (4, 8));
    assert_eq!((memory.swap_use().free, memory.frames.counters().cache), (92, 0));
    assert_eq!(world.spaces.borrow()[one].resident().shared_memory, 0);
    let (frame, faults) = world.touch(two, page(at, 3), Access::WRITE).unwrap();
    assert_eq!(faults[0].kind, FaultKind::SwapIn);
    let (again, faults) = world.touch(one, page(at, 3), Access::READ).unwrap();
    assert_eq!((again, faults[0].kind, world.reads.get()), (frame, FaultKind::FileMinor, 1));
    (0..8).for_each(|n| assert_eq!(world.load(one, page(at, n)), n as u8 + 1));
    assert_eq!(memory.swap_use().free, 100);
    // What is in swap when it is removed, or when its last mapping goes, is gone.
    assert_eq!(world.reclaim(8).swapped, 8);
    world.spaces.borrow_mut()[one].madvise(memory, at, 2 * PAGE, 9).unwrap();
    assert_eq!((world.load(two, at), memory.swap_use().free), (0, 94));
    world.end();
}
