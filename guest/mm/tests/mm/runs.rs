//! Pages of files that come and go many at a time.

use pagelab_abi::addr::Frame;
use pagelab_mm::object::InsertError;
use pagelab_mm::{MapFlags, ObjectKind, Page, Protection, Use};

use crate::disk::World;
use crate::lab::{Lab, PAGE, RW, page};

const SHARED: MapFlags = MapFlags::SHARED;

#[test]
fn a_run_goes_as_its_pages_would_alone() {
    const PAGES: u64 = 700;
    let lab = Lab::new(2048);
    let world = World::new(&lab, PAGES);
    let (one, two) = (world.spawn(), world.spawn());
    let at = world.map_file(one, SHARED, RW);
    let theirs = world.map_file(two, SHARED, Protection::READ);
    world.load_all(one, at, 0..PAGES);
    // In runs of their own: mapped twice, locked, dirty. The last lie where a table
    // of the index ends.
    world.load_all(two, theirs, 100..110);
    world.spaces.borrow_mut()[one].mlock(&lab.memory, page(at, 200), 7 * PAGE, false).unwrap();
    for n in (300..320).chain(505..515) {
        world.store(one, page(at, n), 77);
    }
    let done = world.reclaim(PAGES);
    assert_eq!((done.clean, done.written), (PAGES - 7 - 30, 30));
    assert_eq!(world.resident(), 7);
    let file = |process: usize| world.spaces.borrow()[process].resident().file;
    assert_eq!((file(one), file(two)), (7, 0));
    let mut written = world.writes.borrow().clone();
    written.sort_unstable();
    assert!(written.into_iter().eq((300..320).chain(505..515)));
    for n in 0..PAGES {
        let expected = match n {
            300..320 | 505..515 => 77,
            _ => (n as u8).wrapping_add(1),
        };
        assert_eq!(world.load(one, page(at, n)), expected, "page {n}");
    }
    world.spaces.borrow_mut()[one].munlock(&lab.memory, page(at, 200), 7 * PAGE).unwrap();
    assert_eq!(world.reclaim(PAGES).clean, PAGES);
    assert_eq!(world.resident(), 0, "with the tables of the index");
    world.end();
}

#[test]
fn a_run_that_cannot_be_written_stays() {
    let lab = Lab::new(512);
    let world = World::new(&lab, 64);
    let one = world.spawn();
    let at = world.map_file(one, SHARED, RW);
    (0..64).for_each(|n| drop(world.store(one, page(at, n), 9)));
    world.fail_after.set(5);
    let done = world.reclaim(64);
    assert_eq!((done.clean, done.written, world.resident()), (0, 5, 59));
    (0..64).for_each(|n| assert_eq!(world.load(one, page(at, n)), 9));
    assert_eq!(world.reads.get(), 64 + 5);
    world.fail_after.set(usize::MAX);
    let done = world.reclaim(64);
    assert_eq!((done.clean, done.written, world.resident()), (5, 59, 0));
    world.end();
}

#[test]
fn no_more_are_taken_than_are_wanted() {
    let lab = Lab::new(512);
    let world = World::new(&lab, 100);
    let one = world.spawn();
    let at = world.map_file(one, SHARED, Protection::READ);
    world.load_all(one, at, 0..100);
    for wanted in [1, 2, 40, 57] {
        assert_eq!(world.reclaim(wanted).clean, wanted);
    }
    assert_eq!(world.reclaim(1).freed(), 0);
    world.end();
}

#[test]
fn frames_come_and_are_put_many_at_a_time() {
    let lab = Lab::new(2048);
    let memory = &lab.memory;
    let (machine, frames) = (&memory.machine, memory.frames);
    let file = memory.objects.create(ObjectKind::File, 1030, 0).unwrap();
    memory.objects.set_stored(file);
    let there = frames.alloc(Use::Cache).unwrap();
    memory.objects.insert(machine, frames, file, 900, there).unwrap();

    let mut run = Vec::new();
    let before = frames.free();
    assert_eq!(frames.hold().alloc_some(Use::Cache, 600, |frame| run.push(frame)), 600);
    assert_eq!(frames.free(), before - 600);
    let mut numbers: Vec<u32> = run.iter().map(|frame| frame.0).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 600, "each once");

    // Over the end of a table, up to what is there already.
    assert_eq!(memory.objects.insert_run(machine, frames, file, 500, &run), Ok(400));
    let occupied = memory.objects.insert_run(machine, frames, file, 900, &run[400..]);
    assert_eq!(occupied, Err(InsertError::Occupied(there)));
    // Up to the end of the file.
    assert_eq!(memory.objects.insert_run(machine, frames, file, 901, &run[400..]), Ok(129));
    let past = memory.objects.insert_run(machine, frames, file, 1030, &run[529..]);
    assert_eq!(past, Err(InsertError::PastEnd));
    for (index, &frame) in (500..900).zip(&run).chain((901..1030).zip(&run[400..])) {
        let found = memory.objects.lookup(machine, file, index).0;
        assert_eq!(found, Page::Present(frame), "page {index}");
    }
    for &frame in &run[529..] {
        frames.release(machine, frame);
    }
    memory.release_object(file);
    lab.check_balance();
}

#[test]
fn programs_get_no_more_than_the_reserve_leaves() {
    let lab = Lab::new(256);
    let frames = lab.memory.frames;
    frames.set_reserve(20);
    let available = usize::try_from(frames.available()).unwrap();
    let mut run: Vec<Frame> = Vec::new();
    let count = frames.hold().alloc_some(Use::Cache, available + 9, |frame| run.push(frame));
    assert_eq!((count, frames.available(), frames.free()), (available, 0, 20));
    assert_eq!(frames.hold().alloc_some(Use::Cache, 1, |frame| run.push(frame)), 0);
    for &frame in &run {
        frames.release(&lab.memory.machine, frame);
    }
    frames.set_reserve(0);
    lab.check_balance();
}
