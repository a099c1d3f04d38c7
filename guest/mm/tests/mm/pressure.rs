//! Files when memory runs short: who maps what, what is dirty, what is taken.

use pagelab_abi::fault::FaultKind;
use pagelab_mm::{Access, MapFlags, Protection};

use crate::disk::World;
use crate::lab::{Lab, PAGE, PRIVATE, RW, page};

const FILE_SHARED: MapFlags = MapFlags::SHARED;
const FILE_PRIVATE: MapFlags = MapFlags::PRIVATE;

#[test]
fn clean_pages_are_dropped_and_read_again() {
    let lab = Lab::new(512);
    let world = World::new(&lab, 64);
    let one = world.spawn();
    let at = world.map_file(one, FILE_SHARED, Protection::READ);
    (0..64).for_each(|n| assert_eq!(world.load(one, page(at, n)), n as u8 + 1));
    assert_eq!((world.reads.get(), world.resident()), (64, 64));
    // The first round clears accessed bits, the second takes.
    let done = world.reclaim(10);
    assert_eq!((done.clean, done.written, world.resident()), (10, 0, 54));
    assert_eq!(world.spaces.borrow()[one].resident().file, 54);
    (0..64).for_each(|n| assert_eq!(world.load(one, page(at, n)), n as u8 + 1));
    assert_eq!(world.reads.get(), 74);
    world.end();
}

#[test]
fn what_is_used_between_two_rounds_stays() {
    let lab = Lab::new(512);
    let world = World::new(&lab, 64);
    let one = world.spawn();
    let at = world.map_file(one, FILE_SHARED, Protection::READ);
    world.load_all(one, at, 0..64);
    // Takes half, and nothing has an accessed bit any more.
    world.reclaim(32);
    (32..40).for_each(|n| assert_eq!(world.load(one, page(at, n)), n as u8 + 1));
    assert_eq!(world.reads.get(), 64, "those were still there");
    let done = world.reclaim(24);
    assert_eq!((done.clean, world.resident()), (24, 8));
    world.load_all(one, at, 32..40);
    assert_eq!(world.reads.get(), 64, "and still are");
    world.end();
}

#[test]
fn pages_that_are_only_read_have_a_second_chance_too() {
    let lab = Lab::new(512);
    let world = World::new(&lab, 8);
    for index in 0..8 {
        world.page_in(pagelab_mm::NeedsPage { object: world.file, index }).unwrap();
    }
    let memory = &lab.memory;
    let pagelab_mm::Page::Present(used) = memory.objects.lookup(&memory.machine, world.file, 0).0
    else {
        panic!("page 0 was brought in");
    };
    memory.frames.note_used(used);
    assert_eq!(world.reclaim(7).clean, 7);
    assert_eq!(
        memory.objects.lookup(&memory.machine, world.file, 0).0,
        pagelab_mm::Page::Present(used)
    );
    assert_eq!(world.reclaim(1).clean, 1);
    world.end();
}

#[test]
fn dirty_pages_are_written_first_and_kept_if_that_fails() {
    let lab = Lab::new(512);
    let world = World::new(&lab, 16);
    let one = world.spawn();
    let at = world.map_file(one, FILE_SHARED, RW);
    world.load_all(one, at, 0..16);
    let kind = world.store(one, page(at, 3), 99)[0].kind;
    assert_eq!(kind, FaultKind::WriteNotify);
    assert!(world.store(one, page(at, 3), 100).is_empty());
    world.store(one, page(at, 5), 101);
    world.fail_after.set(1);
    let done = world.reclaim(16);
    assert_eq!((done.clean, done.written, world.resident()), (14, 1, 1));
    assert_eq!((world.disk.borrow()[3], world.disk.borrow()[5]), (100, 6));
    assert_eq!(world.load(one, page(at, 5)), 101, "not lost");
    world.fail_after.set(9);
    assert_eq!(world.reclaim(1).written, 1);
    assert_eq!(world.disk.borrow()[5], 101);
    assert_eq!((world.load(one, page(at, 3)), world.load(one, page(at, 5))), (100, 101));
    world.end();
}

#[test]
fn a_clean_page_tells_of_its_next_write_wherever_that_is() {
    let lab = Lab::new(512);
    let world = World::new(&lab, 4);
    let memory = &lab.memory;
    let (one, two) = (world.spawn(), world.spawn());
    let ours = world.map_file(one, FILE_SHARED, RW);
    let again = world.map_file(one, FILE_SHARED, RW);
    let theirs = world.map_file(two, FILE_SHARED, RW);
    let places = [(one, ours), (one, again), (two, theirs)];
    for round in 0..3 {
        for (process, at) in places {
            let faults = world.store(process, page(at, 2), 7 + round);
            assert_eq!(faults.len(), 1, "round {round}");
            assert!(world.store(process, page(at, 2), 8 + round).is_empty());
        }
        let dirty =
            |from| memory.objects.next_dirty(&memory.machine, memory.frames, world.file, from, 4);
        assert_eq!(dirty(0).map(|found| found.0), Some(2));
        assert_eq!(dirty(3), None);
        assert!(world.clean_page(2).unwrap().1);
        assert!(!world.clean_page(2).unwrap().1);
        assert_eq!(dirty(0), None);
        memory.machine.check_tlb();
    }
    world.end();
}

#[test]
fn munmap_and_mremap_keep_a_page_dirty() {
    let lab = Lab::new(512);
    let world = World::new(&lab, 4);
    let memory = &lab.memory;
    let one = world.spawn();
    let at = world.map_file(one, FILE_SHARED, RW);
    world.store(one, at, 50);
    let child = world.spaces.borrow_mut()[one].fork(memory).unwrap();
    world.spaces.borrow_mut().push(child);
    let request = pagelab_mm::RemapRequest {
        address: at,
        old_length: 4 * PAGE,
        new_length: 4 * PAGE,
        flags: pagelab_mm::RemapFlags::MAY_MOVE | pagelab_mm::RemapFlags::FIXED,
        new_address: pagelab_abi::addr::GuestVirt(0x5000_0000),
    };
    let moved = world.spaces.borrow_mut()[one].mremap(memory, &request).unwrap().start;
    assert!(world.store(one, moved, 51).is_empty(), "still writable there");
    world.spaces.borrow_mut()[one].munmap(memory, moved, 4 * PAGE).unwrap();
    assert!(world.write_page(0));
    assert_eq!(world.disk.borrow()[0], 51);
    world.end();
}

#[test]
fn locked_pages_and_pages_that_the_kernel_holds_stay() {
    let lab = Lab::new(512);
    let world = World::new(&lab, 8);
    let memory = &lab.memory;
    let one = world.spawn();
    let at = world.map_file(one, FILE_SHARED, Protection::READ);
    let mut frames: Vec<_> =
        (0..8).map(|n| world.touch(one, page(at, n), Access::READ).unwrap().0).collect();
    world.spaces.borrow_mut()[one].mlock(memory, at, 3 * PAGE, false).unwrap();
    memory.frames.share(frames[5]);
    assert_eq!(world.reclaim(8).clean, 4);
    assert_eq!(world.resident(), 4);
    for n in [0, 1, 2, 5] {
        world.load(one, page(at, n));
    }
    assert_eq!(world.reads.get(), 8);
    memory.frames.release(&memory.machine, frames.remove(5));
    world.end();
}

#[test]
fn files_without_a_store_and_private_copies_stay() {
    let lab = Lab::new(512);
    let world = World::new(&lab, 8);
    let memory = &lab.memory;
    let one = world.spawn();
    let object = memory.objects.create(pagelab_mm::ObjectKind::File, 4, 0).unwrap();
    let frame = lab.page_of(3);
    memory.objects.insert(&memory.machine, memory.frames, object, 0, frame).unwrap();
    let at = world.map_file(one, FILE_PRIVATE, RW);
    world.store(one, page(at, 1), 77);
    assert_eq!(world.reclaim(9).freed(), 1, "the page that was copied");
    assert_eq!(world.load(one, page(at, 1)), 77);
    assert_eq!(memory.objects.resident(object), 1);
    memory.release_object(object);
    world.end();
}

#[test]
fn memory_given_up_by_its_program_is_dropped() {
    let lab = Lab::new(512);
    let world = World::new(&lab, 1);
    let memory = &lab.memory;
    let one = world.spawn();
    let at = lab.map(&mut world.spaces.borrow_mut()[one], 4, RW, PRIVATE);
    (0..4).for_each(|n| drop(world.store(one, page(at, n), 9)));
    world.spaces.borrow_mut()[one].madvise(memory, at, 3 * PAGE, 8).unwrap();
    world.store(one, page(at, 1), 10);
    assert_eq!(world.reclaim(4).given_up, 2);
    let bytes: Vec<_> = (0..4).map(|n| world.load(one, page(at, n))).collect();
    assert_eq!(bytes, [0, 10, 0, 9]);
    world.end();
}

#[test]
fn a_read_maps_the_neighbours_that_are_there() {
    let lab = Lab::new(512);
    let world = World::new(&lab, 64);
    let memory = &lab.memory;
    memory.fault_around.store(16, std::sync::atomic::Ordering::Relaxed);
    for index in [0, 16, 17, 18, 20, 31, 32] {
        world.page_in(pagelab_mm::NeedsPage { object: world.file, index }).unwrap();
    }
    let one = world.spawn();
    let at = world.map_file(one, FILE_SHARED, RW);
    assert_eq!(
        world.touch(one, page(at, 18), Access::READ).unwrap().1[0].kind,
        FaultKind::FileMinor
    );
    assert_eq!(world.spaces.borrow()[one].resident().file, 5);
    for n in [16, 17, 20, 31] {
        assert!(world.touch(one, page(at, n), Access::READ).unwrap().1.is_empty());
    }
    let write = world.store(one, page(at, 20), 5);
    assert_eq!(write[0].kind, FaultKind::WriteNotify, "mapped to be read");
    // At random: only what is asked for.
    world.spaces.borrow_mut()[one].madvise(memory, at, 64 * PAGE, 4).unwrap();
    world.spaces.borrow_mut()[one].madvise(memory, at, 64 * PAGE, 1).unwrap();
    world.load(one, page(at, 18));
    assert_eq!(world.spaces.borrow()[one].resident().file, 1);
    world.end();
}

#[test]
fn neighbours_mapped_on_the_side_are_the_first_to_go() {
    let lab = Lab::new(512);
    let world = World::new(&lab, 16);
    lab.memory.fault_around.store(16, std::sync::atomic::Ordering::Relaxed);
    for index in 0..16 {
        world.page_in(pagelab_mm::NeedsPage { object: world.file, index }).unwrap();
    }
    let one = world.spawn();
    let at = world.map_file(one, FILE_PRIVATE, Protection::READ);
    world.load(one, page(at, 4));
    let stats = world.spaces.borrow()[one].stats(&lab.memory);
    assert_eq!((stats.resident, stats.referenced), (16 * PAGE, PAGE));
    assert_eq!(world.reclaim(15).clean, 15);
    assert_eq!(world.load(one, page(at, 4)), 5);
    assert_eq!((world.reads.get(), world.resident()), (16, 1));
    world.end();
}

#[test]
fn a_file_read_from_end_to_end_needs_no_more_than_there_is() {
    let lab = Lab::new(256);
    let world = World::new(&lab, 3000);
    let one = world.spawn();
    let at = world.map_file(one, FILE_SHARED, Protection::READ);
    for n in 0..3000 {
        while lab.memory.frames.available() < 16 {
            assert!(world.reclaim(32).clean > 0);
        }
        assert_eq!(world.load(one, page(at, n)), (n as u8).wrapping_add(1));
    }
    assert_eq!(world.reads.get(), 3000);
    world.end();
}
