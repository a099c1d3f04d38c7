//! mprotect, mremap, madvise, mincore, mlock, msync.

use pagelab_abi::addr::GuestVirt;
use pagelab_abi::fault::FaultKind;
use pagelab_mm::{
    Access, AddressSpace, Copies, FaultError, LockAll, MapFlags, MmError, Protection, RemapFlags,
    RemapRequest, SyncFlags, Use,
};

use crate::lab::{Lab, PAGE, PRIVATE, RW, SHARED, page};

const READ: u32 = 1;
const WRITE: u32 = 2;

fn remap(
    lab: &Lab,
    space: &mut AddressSpace,
    from: GuestVirt,
    (old, new): (u64, u64),
    flags: RemapFlags,
    to: u64,
) -> Result<GuestVirt, MmError> {
    let request = RemapRequest {
        address: from,
        old_length: old * PAGE,
        new_length: new * PAGE,
        flags,
        new_address: GuestVirt(to),
    };
    let result = space.mremap(&lab.memory, &request).map(|mapped| mapped.start);
    lab.memory.machine.check_tlb();
    result
}

fn resident(lab: &Lab, space: &AddressSpace, at: GuestVirt, pages: u64) -> Vec<bool> {
    let mut all = Vec::new();
    space.mincore(&lab.memory, at, pages * PAGE, |_, present| all.push(present)).unwrap();
    all
}

#[test]
fn protection_is_taken_and_given_back_without_a_fault() {
    let lab = Lab::new(2048);
    let mut space = lab.space();
    let at = lab.map(&mut space, 600, RW, PRIVATE);
    for n in 0..600 {
        lab.write(&mut space, page(at, n));
    }
    space.mprotect(&lab.memory, page(at, 10), 500 * PAGE, READ).unwrap();
    assert_eq!(lab.memory.machine.space_flushes.get(), 1, "many pages, one flush");
    assert_eq!(space.area_count(), 3);
    assert_eq!(lab.store(&mut space, page(at, 10), 1), Err(FaultError::Forbidden));
    assert_eq!(lab.load(&mut space, page(at, 10)), Ok((0, None)));
    assert_eq!(lab.write(&mut space, page(at, 9)), None);
    space.mprotect(&lab.memory, page(at, 10), 500 * PAGE, 0).unwrap();
    assert_eq!(lab.load(&mut space, page(at, 10)), Err(FaultError::Forbidden));
    space.mprotect(&lab.memory, at, 600 * PAGE, READ | WRITE).unwrap();
    assert_eq!(space.area_count(), 1);
    for n in 0..600 {
        assert_eq!(lab.write(&mut space, page(at, n)), None);
    }
    lab.end(space);
    lab.check_balance();
}

#[test]
fn protection_does_not_undo_copy_on_write() {
    let lab = Lab::new(512);
    let mut parent = lab.space();
    let at = lab.map(&mut parent, 2, RW, PRIVATE);
    lab.store(&mut parent, at, 1).unwrap();
    lab.read(&mut parent, page(at, 1));
    let mut child = parent.fork(&lab.memory).unwrap();
    for space in [&mut parent, &mut child] {
        space.mprotect(&lab.memory, at, 2 * PAGE, READ).unwrap();
        space.mprotect(&lab.memory, at, 2 * PAGE, READ | WRITE).unwrap();
    }
    assert_eq!(lab.store(&mut child, at, 2), Ok(Some(FaultKind::CowCopy)));
    assert_eq!(lab.load(&mut parent, at), Ok((1, None)));
    assert_eq!(lab.store(&mut child, page(at, 1), 2), Ok(Some(FaultKind::ZeroPageUpgrade)));
    lab.end(parent);
    lab.end(child);
    lab.check_balance();
}

#[test]
fn mprotect_has_linuxs_errors() {
    let lab = Lab::new(512);
    let mut space = lab.space();
    let memory = &lab.memory;
    let at = lab.map(&mut space, 3, RW, PRIVATE);
    let mut errno = |address: u64, length: u64, bits: u32| {
        space.mprotect(memory, GuestVirt(address), length, bits).map_or_else(MmError::errno, |()| 0)
    };
    assert_eq!(errno(at.0 + 1, PAGE, READ), 22);
    assert_eq!(errno(at.0, PAGE, 0x10), 22);
    assert_eq!(errno(at.0, 0, READ), 0);
    assert_eq!(errno(at.0, u64::MAX, READ), 12);
    assert_eq!(errno(at.0 - PAGE, 2 * PAGE, READ), 12);
    assert_eq!(errno(at.0, 4 * PAGE, READ), 12);
    assert_eq!(errno(at.0, PAGE, READ | 0x0100_0000), 22);
    assert_eq!(errno(at.0, PAGE, READ | 0x0300_0000), 22);
    let ours = space.area_at(at).unwrap();
    assert_eq!(ours.protection, Protection::READ, "what came before the hole was changed");
    lab.end(space);
    lab.check_balance();
}

#[test]
fn promises_follow_protection() {
    let lab = Lab::new(512);
    let memory = &lab.memory;
    let mut space = lab.space();
    let at = lab.map(&mut space, 4, Protection::READ, PRIVATE);
    assert_eq!(memory.commit.promised(), 0);
    space.mprotect(memory, at, 2 * PAGE, READ | WRITE).unwrap();
    assert_eq!(memory.commit.promised(), 2);
    lab.write(&mut space, at);
    space.mprotect(memory, at, 4 * PAGE, READ).unwrap();
    assert_eq!(memory.commit.promised(), 2, "a written page stays promised");
    lab.end(space);
    lab.check_balance();
}

#[test]
fn mappings_grow_shrink_and_move_with_their_pages() {
    let lab = Lab::new(2048);
    let mut space = lab.space();
    let may = RemapFlags::MAY_MOVE;
    let at = lab.map_at(&mut space, 0x1000_0000, 700, RW, PRIVATE).unwrap();
    for n in 0..700 {
        lab.store(&mut space, page(at, n), n as u8).unwrap();
    }
    assert_eq!(remap(&lab, &mut space, at, (700, 701), RemapFlags::empty(), 0), Ok(at));
    assert_eq!(remap(&lab, &mut space, at, (701, 700), RemapFlags::empty(), 0), Ok(at));
    lab.map_at(&mut space, page(at, 700).0, 1, Protection::READ, PRIVATE).unwrap();
    assert_eq!(
        remap(&lab, &mut space, at, (700, 800), RemapFlags::empty(), 0),
        Err(MmError::NoSpace)
    );
    let moved = remap(&lab, &mut space, at, (700, 800), may, 0).unwrap();
    assert_ne!(moved, at);
    for n in 0..700 {
        assert_eq!(lab.load(&mut space, page(moved, n)), Ok((n as u8, None)));
    }
    assert_eq!(lab.load(&mut space, at), Err(FaultError::NoMapping));
    assert_eq!(lab.write(&mut space, page(moved, 799)), Some(FaultKind::DemandZero));
    assert_eq!(space.resident().anonymous, 701);

    // The middle to a fixed place, across two tables there.
    let target = 0x2000_0000 - 100 * PAGE;
    let fixed = may | RemapFlags::FIXED;
    let middle = page(moved, 300);
    assert_eq!(remap(&lab, &mut space, middle, (200, 200), fixed, target), Ok(GuestVirt(target)));
    for n in 0..200 {
        let (byte, fault) = lab.load(&mut space, page(GuestVirt(target), n)).unwrap();
        assert_eq!((byte, fault), ((n + 300) as u8, None));
    }
    assert_eq!(lab.load(&mut space, middle), Err(FaultError::NoMapping));
    space.munmap(&lab.memory, GuestVirt(0x1_0000), 0x7fff_fffe_f000).unwrap();
    assert_eq!((space.area_count(), space.tables()), (0, 1));
    lab.end(space);
    lab.check_balance();
}

#[test]
fn dont_unmap_leaves_an_empty_mapping() {
    let lab = Lab::new(512);
    let mut space = lab.space();
    let at = lab.map(&mut space, 2, RW, PRIVATE);
    lab.store(&mut space, at, 9).unwrap();
    let flags = RemapFlags::MAY_MOVE | RemapFlags::DONT_UNMAP;
    let moved = remap(&lab, &mut space, at, (2, 2), flags, 0).unwrap();
    assert_eq!(lab.load(&mut space, moved), Ok((9, None)));
    assert_eq!(lab.load(&mut space, at), Ok((0, Some(FaultKind::ZeroPageRead))));
    assert_eq!(lab.memory.commit.promised(), 4);
    lab.end(space);
    lab.check_balance();
}

/// Start, length in pages and lock of the areas from `start` on.
fn areas_from(space: &AddressSpace, start: GuestVirt) -> Vec<(u64, u64, bool)> {
    let areas = space.areas().filter(|area| area.start >= start);
    let locked = |area: &pagelab_mm::Area| area.flags.contains(pagelab_mm::AreaFlags::LOCKED);
    areas.map(|area| ((area.start.0 - start.0) / PAGE, area.pages(), locked(area))).collect()
}

#[test]
fn a_target_that_became_one_with_its_source_is_unlocked_too() {
    let lab = Lab::new(512);
    let mut space = lab.space();
    let flags = RemapFlags::MAY_MOVE | RemapFlags::DONT_UNMAP | RemapFlags::FIXED;
    let at = lab.map_at(&mut space, 0x1000_0000, 5, Protection::READ, PRIVATE).unwrap();
    space.mlock(&lab.memory, page(at, 3), 2 * PAGE, false).unwrap();
    assert_eq!(areas_from(&space, at), [(0, 3, false), (3, 2, true)]);
    let target = page(at, 3).0;
    remap(&lab, &mut space, page(at, 4), (1, 1), flags, target).unwrap();
    // What lies before was looked at when the lock was still there.
    assert_eq!(areas_from(&space, at), [(0, 3, false), (3, 2, false)]);
    assert_eq!(space.sizes().locked, 0);

    // Without a neighbour of its kind the target keeps the lock.
    space.mlock(&lab.memory, page(at, 4), PAGE, false).unwrap();
    remap(&lab, &mut space, page(at, 4), (1, 1), flags, page(at, 8).0).unwrap();
    assert_eq!(areas_from(&space, page(at, 8)), [(0, 1, true)]);
    lab.end(space);
    lab.check_balance();
}

#[test]
fn what_grows_in_place_joins_what_follows_only() {
    let lab = Lab::new(512);
    let mut space = lab.space();
    let at = lab.map_at(&mut space, 0x1000_0000, 4, RW, PRIVATE).unwrap();
    space.mlock(&lab.memory, page(at, 2), PAGE, true).unwrap();
    let flags = RemapFlags::MAY_MOVE | RemapFlags::DONT_UNMAP;
    // Leaves the source unlocked beside areas that are like it.
    let moved = remap(&lab, &mut space, page(at, 2), (1, 1), flags, 0).unwrap();
    space.munmap(&lab.memory, moved, PAGE).unwrap();
    space.munmap(&lab.memory, page(at, 3), PAGE).unwrap();
    lab.map_at(&mut space, page(at, 4).0, 1, RW, PRIVATE).unwrap();
    assert_eq!(areas_from(&space, at)[..3], [(0, 2, false), (2, 1, false), (4, 1, false)]);
    remap(&lab, &mut space, page(at, 2), (1, 2), RemapFlags::empty(), 0).unwrap();
    assert_eq!(areas_from(&space, at), [(0, 2, false), (2, 3, false)]);
    lab.end(space);
    lab.check_balance();
}

#[test]
fn old_length_zero_maps_shared_memory_twice() {
    let lab = Lab::new(512);
    let mut space = lab.space();
    let at = lab.map(&mut space, 2, RW, SHARED);
    lab.store(&mut space, page(at, 1), 3).unwrap();
    let twin = remap(&lab, &mut space, at, (0, 2), RemapFlags::MAY_MOVE, 0).unwrap();
    assert_eq!(lab.load(&mut space, page(twin, 1)), Ok((3, Some(FaultKind::FileMinor))));
    lab.store(&mut space, page(twin, 1), 4).unwrap();
    assert_eq!(lab.load(&mut space, page(at, 1)), Ok((4, None)));
    let private = lab.map(&mut space, 1, RW, PRIVATE);
    let error = remap(&lab, &mut space, private, (0, 1), RemapFlags::MAY_MOVE, 0);
    assert_eq!(error, Err(MmError::Invalid));
    // Growing does not make the object longer.
    let grown = remap(&lab, &mut space, at, (2, 3), RemapFlags::MAY_MOVE, 0).unwrap();
    assert_eq!(lab.load(&mut space, page(grown, 2)), Err(FaultError::NoBacking));
    lab.end(space);
    lab.check_balance();
}

#[test]
fn mremap_has_linuxs_errors() {
    let lab = Lab::new(512);
    let mut space = lab.space();
    let at = lab.map_at(&mut space, 0x1000_0000, 4, RW, PRIVATE).unwrap();
    let mut errno = |from: u64, sizes, flags: u32, to| {
        let flags = RemapFlags::from_bits_retain(flags);
        remap(&lab, &mut space, GuestVirt(from), sizes, flags, to)
            .map_or_else(MmError::errno, |_| 0)
    };
    assert_eq!(errno(at.0, (1, 1), 8, 0), 22);
    assert_eq!(errno(at.0 + 1, (1, 1), 0, 0), 22);
    assert_eq!(errno(at.0, (1, 0), 0, 0), 22);
    assert_eq!(errno(at.0, (4, 4), 2, 0x2000_0000), 22, "FIXED without MAYMOVE");
    assert_eq!(errno(at.0, (4, 4), 3, at.0 + PAGE), 22, "overlap");
    assert_eq!(errno(at.0, (4, 5), 5, 0), 22, "DONTUNMAP resizes");
    assert_eq!(errno(0x3000_0000, (1, 2), 1, 0), 14);
    assert_eq!(errno(at.0, (5, 6), 1, 0), 14, "past the area");
    assert_eq!(errno(at.0, (4, 4), 3, 0x1000), 1);
    let wrapping = u64::MAX / PAGE;
    assert_eq!(errno(0x3000_0000, (wrapping, 2), 3, 0x3001_0000), 14, "no overlap, no area");
    assert_eq!(errno(at.0, (wrapping, 2), 3, at.0 + 8 * PAGE), 22, "the end cannot be unmapped");
    assert_eq!(errno(at.0, (wrapping, 1), 3, at.0), 14, "the target was the source");
    lab.end(space);
    lab.check_balance();
}

#[test]
fn a_move_without_frames_changes_nothing() {
    let lab = Lab::new(600);
    let memory = &lab.memory;
    let mut space = lab.space();
    let at = lab.map_at(&mut space, 0x1000_0000, 4, RW, PRIVATE).unwrap();
    lab.store(&mut space, at, 5).unwrap();
    let taken: Vec<_> = std::iter::from_fn(|| memory.frames.alloc(Use::Kernel)).collect();
    let promised = memory.commit.promised();
    let fixed = RemapFlags::MAY_MOVE | RemapFlags::FIXED;
    let error = remap(&lab, &mut space, at, (4, 8), fixed, 0x40_0000_0000);
    assert_eq!(error, Err(MmError::OutOfMemory));
    assert_eq!((memory.commit.promised(), space.area_count()), (promised, 1));
    assert_eq!(lab.load(&mut space, at), Ok((5, None)));
    for frame in taken {
        memory.frames.release(&memory.machine, frame);
    }
    lab.end(space);
    lab.check_balance();
}

#[test]
fn advice_drops_pages() {
    let lab = Lab::new(512);
    let memory = &lab.memory;
    let mut space = lab.space();
    let at = lab.map(&mut space, 4, RW, PRIVATE | MapFlags::POPULATE);
    lab.store(&mut space, page(at, 1), 5).unwrap();
    space.madvise(memory, page(at, 1), 2 * PAGE, 4).unwrap();
    memory.machine.check_tlb();
    assert_eq!(resident(&lab, &space, at, 4), [true, false, false, true]);
    assert_eq!(lab.load(&mut space, page(at, 1)), Ok((0, Some(FaultKind::ZeroPageRead))));
    space.madvise(memory, at, PAGE, 8).unwrap();
    assert_eq!(lab.write(&mut space, at), None, "a page marked free stays while there is room");
    space.madvise(memory, at, PAGE, 8).unwrap();
    space.mprotect(memory, at, PAGE, READ).unwrap();
    space.mprotect(memory, at, PAGE, READ | WRITE).unwrap();
    assert_eq!(lab.write(&mut space, at), None, "clean, but ours alone");
    let shared = lab.map(&mut space, 2, RW, SHARED);
    lab.store(&mut space, shared, 1).unwrap();
    space.madvise(memory, shared, PAGE, 4).unwrap();
    assert_eq!(resident(&lab, &space, shared, 2), [true, false], "the object keeps it");
    assert_eq!(lab.load(&mut space, shared), Ok((1, Some(FaultKind::FileMinor))));
    space.madvise(memory, shared, PAGE, 9).unwrap();
    assert_eq!(lab.load(&mut space, shared), Ok((0, Some(FaultKind::DemandZero))));
    lab.end(space);
    lab.check_balance();
}

#[test]
fn removed_pages_are_named_up_to_the_first_failure() {
    let lab = Lab::new(512);
    let memory = &lab.memory;
    let mut space = lab.space();
    let at = 0x1000_0000;
    let start = GuestVirt(at);
    lab.map_at(&mut space, at, 4, RW, SHARED | MapFlags::FIXED).unwrap();
    lab.map_at(&mut space, at + 6 * PAGE, 2, RW, SHARED | MapFlags::FIXED).unwrap();
    lab.map_at(&mut space, at + 8 * PAGE, 1, RW, PRIVATE | MapFlags::FIXED).unwrap();
    lab.map_at(&mut space, at + 9 * PAGE, 1, RW, SHARED | MapFlags::FIXED).unwrap();
    let removed = |space: &AddressSpace, from, length| {
        let parts = space.removed_by_advice(memory, from, length);
        parts.map(|(_, pages)| (pages.start, pages.end)).collect::<Vec<_>>()
    };
    assert_eq!(
        removed(&space, page(start, 1), 9 * PAGE),
        [(1, 4), (0, 2)],
        "private memory ends it"
    );
    assert_eq!(removed(&space, page(start, 1), PAGE), [(1, 2)]);
    assert_eq!(removed(&space, GuestVirt(at + 1), PAGE), []);
    assert_eq!(removed(&space, start, u64::MAX), []);

    // A twin of the page, here standing for another process, keeps it alive
    // unless it is unmapped first.
    let object = space.area_at(start).unwrap().object().unwrap();
    let twin = remap(&lab, &mut space, start, (0, 2), RemapFlags::MAY_MOVE, 0).unwrap();
    lab.store(&mut space, page(twin, 1), 7).unwrap();
    space.unmap_object(memory, object, (1, 2), Copies::Stay);
    space.madvise(memory, page(start, 1), PAGE, 9).unwrap();
    assert_eq!(resident(&lab, &space, twin, 2), [false, false]);
    assert_eq!(lab.load(&mut space, page(twin, 1)), Ok((0, Some(FaultKind::DemandZero))));
    lab.end(space);
    lab.check_balance();
}

#[test]
fn locking_makes_what_may_be_thrown_away_dirty_again() {
    const MADV_FREE: u32 = 8;
    let lab = Lab::new(512);
    let mut space = lab.space();
    let start = lab.map(&mut space, 1, RW, PRIVATE);
    lab.store(&mut space, start, 1).unwrap();
    space.madvise(&lab.memory, start, PAGE, MADV_FREE).unwrap();
    let dirty = |space: &AddressSpace| {
        let area = *space.area_at(start).unwrap();
        space.stats_of(&lab.memory, &area).private_dirty
    };
    assert_eq!(dirty(&space), 0);
    space.mlock(&lab.memory, start, PAGE, false).unwrap();
    assert_eq!(dirty(&space), PAGE);
    lab.end(space);
    lab.check_balance();
}

#[test]
fn advice_has_linuxs_errors() {
    let lab = Lab::new(512);
    let mut space = lab.space();
    let at = lab.map(&mut space, 2, Protection::READ, PRIVATE);
    let shared = lab.map(&mut space, 1, RW, SHARED);
    let hole = lab.map_at(&mut space, 0x1000_0000, 3, RW, PRIVATE | MapFlags::POPULATE).unwrap();
    space.munmap(&lab.memory, page(hole, 1), PAGE).unwrap();
    let mut errno = |at: GuestVirt, length: u64, advice: u32| {
        space.madvise(&lab.memory, at, length, advice).map_or_else(MmError::errno, |()| 0)
    };
    assert_eq!(errno(at, PAGE, 99), 22);
    assert_eq!(errno(at, PAGE, 12), 22, "nothing merges pages");
    assert_eq!(errno(GuestVirt(at.0 + 1), PAGE, 4), 22);
    assert_eq!(errno(at, u64::MAX, 4), 22);
    assert_eq!(errno(at, 0, 4), 0);
    assert_eq!(errno(shared, PAGE, 8), 22, "FREE is for anonymous memory");
    assert_eq!(errno(shared, PAGE, 18), 22);
    assert_eq!(errno(at, PAGE, 9), 22);
    assert_eq!(errno(at, PAGE, 23), 22, "not writable");
    assert_eq!(errno(hole, 3 * PAGE, 22), 12);
    assert_eq!(errno(hole, 3 * PAGE, 4), 12);
    assert_eq!(space.resident().anonymous, 0, "behind the hole too");
    lab.end(space);
    lab.check_balance();
}

#[test]
fn locks_count_and_populate() {
    let lab = Lab::new(512);
    let memory = &lab.memory;
    let mut space = lab.space();
    space.limits.locked = 4 * PAGE;
    let at = lab.map(&mut space, 6, RW, PRIVATE);
    space.mlock(memory, GuestVirt(at.0 + PAGE + 1), PAGE, false).unwrap();
    assert_eq!(resident(&lab, &space, at, 6), [false, true, true, false, false, false]);
    assert_eq!((space.sizes().locked, space.area_count()), (2, 3));
    assert_eq!(space.mlock(memory, at, 5 * PAGE, false), Err(MmError::LockLimit));
    space.mlock(memory, at, 4 * PAGE, true).unwrap();
    assert_eq!(space.sizes().locked, 4);
    assert_eq!(space.madvise(memory, at, PAGE, 4), Err(MmError::Invalid));
    space.madvise(memory, at, PAGE, 24).unwrap();
    space.munlock(memory, at, 6 * PAGE).unwrap();
    assert_eq!((space.sizes().locked, space.area_count()), (0, 1));
    assert_eq!(space.munlock(memory, at, 7 * PAGE), Err(MmError::NotMapped));
    assert_eq!(space.mlockall(memory, LockAll::CURRENT), Err(MmError::LockLimit));
    space.limits.may_lock = true;
    space.mlockall(memory, LockAll::CURRENT | LockAll::FUTURE).unwrap();
    let new = lab.map(&mut space, 1, RW, PRIVATE);
    assert_eq!((space.sizes().locked, lab.write(&mut space, new)), (7, None));
    space.munlockall(memory).unwrap();
    assert_eq!(space.sizes().locked, 0);
    assert_eq!(space.mlockall(memory, LockAll::ON_FAULT), Err(MmError::Invalid));
    lab.end(space);
    lab.check_balance();
}

#[test]
fn locks_fail_as_on_linux() {
    let lab = Lab::new(512);
    let memory = &lab.memory;
    let mut space = lab.space();
    let none = lab.map(&mut space, 1, Protection::empty(), PRIVATE);
    assert_eq!(space.mlock(memory, none, PAGE, false), Err(MmError::NotMapped));
    assert_eq!(space.mlock(memory, none, u64::MAX, false), Ok(()), "wraps around to nothing");
    assert_eq!(space.mlock(memory, none, u64::MAX - PAGE, false), Err(MmError::Invalid));
    space.limits.locked = 0;
    assert_eq!(space.mlock(memory, none, PAGE, false), Err(MmError::NotPermitted));
    let locked = lab.map_at(&mut space, 0, 1, RW, PRIVATE | MapFlags::LOCKED);
    assert_eq!(locked, Err(MmError::NotPermitted));
    lab.end(space);
    lab.check_balance();
}

#[test]
fn msync_names_what_was_written() {
    let lab = Lab::new(512);
    let memory = &lab.memory;
    let mut space = lab.space();
    let at = lab.map(&mut space, 3, RW, SHARED);
    let (frame, _) = lab.touch(&mut space, page(at, 1), Access::WRITE).unwrap();
    memory.frames.hold().set_dirty(frame, false);
    let mut written = Vec::new();
    let sync = |space: &mut AddressSpace, length, flags, written: &mut Vec<(u64, u64)>| {
        space.msync(memory, at, length, flags, |_, first, end| {
            written.push((first, end));
            Ok(())
        })
    };
    sync(&mut space, 2 * PAGE, SyncFlags::SYNC, &mut written).unwrap();
    assert!(memory.frames.hold().is_dirty(frame));
    assert_eq!(written, [(0, 2)]);
    memory.machine.check_tlb();
    let both = SyncFlags::SYNC | SyncFlags::ASYNC;
    assert_eq!(sync(&mut space, PAGE, both, &mut written), Err(MmError::Invalid));
    let hole = sync(&mut space, 4 * PAGE, SyncFlags::ASYNC, &mut written);
    assert_eq!(hole, Err(MmError::NotMapped));
    space.mlock(memory, at, PAGE, false).unwrap();
    let busy = sync(&mut space, PAGE, SyncFlags::INVALIDATE, &mut written);
    assert_eq!(busy, Err(MmError::Busy));
    lab.end(space);
    lab.check_balance();
}

#[test]
fn mincore_stops_at_the_first_hole() {
    let lab = Lab::new(512);
    let mut space = lab.space();
    let at = lab.map(&mut space, 2, RW, PRIVATE);
    lab.read(&mut space, at);
    let mut seen = Vec::new();
    let result = space.mincore(&lab.memory, at, 3 * PAGE, |n, there| seen.push((n, there)));
    assert_eq!((result, seen), (Err(MmError::NotMapped), vec![(0, true), (1, false)]));
    let odd = space.mincore(&lab.memory, GuestVirt(at.0 + 1), 1, |_, _| ());
    assert_eq!(odd, Err(MmError::Invalid));
    let outside = space.mincore(&lab.memory, GuestVirt(1 << 47), PAGE, |_, _| ());
    assert_eq!(outside, Err(MmError::NotMapped));
    lab.end(space);
    lab.check_balance();
}
