//! fork and copy-on-write.

use pagelab_abi::addr::GuestVirt;
use pagelab_abi::fault::FaultKind;
use pagelab_mm::{Access, FaultError, MapFlags, MmError, Overcommit, Use};

use crate::lab::{Lab, PAGE, PRIVATE, RW, SHARED, page};

#[test]
fn the_first_writer_copies_and_the_last_owner_keeps() {
    let lab = Lab::new(512);
    let mut parent = lab.space();
    let at = lab.map(&mut parent, 2, RW, PRIVATE);
    lab.store(&mut parent, at, 7).unwrap();
    let mut child = parent.fork(&lab.memory).unwrap();
    lab.memory.machine.check_tlb();
    let (frame, none) = lab.touch(&mut parent, at, Access::READ).unwrap();
    assert!(none.is_empty());
    assert_eq!(lab.touch(&mut child, at, Access::READ).unwrap(), (frame, vec![]));
    assert_eq!(lab.memory.frames.count(frame), 2);

    assert_eq!(lab.store(&mut child, at, 8), Ok(Some(FaultKind::CowCopy)));
    assert_eq!(lab.store(&mut parent, at, 9), Ok(Some(FaultKind::CowReuse)));
    assert_eq!(lab.load(&mut child, at), Ok((8, None)));
    assert_eq!(lab.load(&mut parent, at), Ok((9, None)));
    assert_eq!(lab.touch(&mut parent, at, Access::READ).unwrap().0, frame);
    lab.end(child);
    lab.end(parent);
    lab.check_balance();
}

#[test]
fn a_page_of_three_is_copied_twice_and_reused_once() {
    let lab = Lab::new(512);
    let mut one = lab.space();
    let at = lab.map(&mut one, 1, RW, PRIVATE);
    lab.store(&mut one, at, 1).unwrap();
    let mut two = one.fork(&lab.memory).unwrap();
    let mut three = two.fork(&lab.memory).unwrap();
    assert_eq!(lab.store(&mut one, at, 1), Ok(Some(FaultKind::CowCopy)));
    assert_eq!(lab.store(&mut three, at, 3), Ok(Some(FaultKind::CowCopy)));
    assert_eq!(lab.store(&mut two, at, 2), Ok(Some(FaultKind::CowReuse)));
    for (space, byte) in [(&mut one, 1), (&mut two, 2), (&mut three, 3)] {
        assert_eq!(lab.load(space, at), Ok((byte, None)));
    }
    [one, two, three].into_iter().for_each(|space| lab.end(space));
    lab.check_balance();
}

#[test]
fn shared_memory_stays_shared_and_zero_pages_stay_zero() {
    let lab = Lab::new(512);
    let mut parent = lab.space();
    let shared = lab.map(&mut parent, 1, RW, SHARED);
    let zero = lab.map(&mut parent, 2, RW, PRIVATE);
    lab.store(&mut parent, shared, 5).unwrap();
    lab.store(&mut parent, page(zero, 1), 1).unwrap();
    assert_eq!(lab.load(&mut parent, zero), Ok((0, Some(FaultKind::ZeroPageRead))));
    let mut child = parent.fork(&lab.memory).unwrap();
    assert_eq!(lab.load(&mut child, shared), Ok((5, Some(FaultKind::FileMinor))));
    lab.store(&mut child, shared, 6).unwrap();
    assert_eq!(lab.load(&mut parent, shared), Ok((6, None)));
    assert_eq!(lab.load(&mut child, zero), Ok((0, None)), "the entry was copied");
    assert_eq!(lab.store(&mut child, zero, 1), Ok(Some(FaultKind::ZeroPageUpgrade)));
    assert_eq!(lab.store(&mut parent, zero, 1), Ok(Some(FaultKind::ZeroPageUpgrade)));
    lab.end(parent);
    lab.end(child);
    lab.check_balance();
}

#[test]
fn advice_decides_what_a_child_gets() {
    let lab = Lab::new(512);
    let mut parent = lab.space();
    let at = lab.map(&mut parent, 3, RW, PRIVATE | MapFlags::LOCKED);
    for n in 0..3 {
        lab.store(&mut parent, page(at, n), 5).unwrap();
    }
    parent.madvise(&lab.memory, at, PAGE, 10).unwrap();
    parent.madvise(&lab.memory, page(at, 1), PAGE, 18).unwrap();
    assert_eq!((parent.area_count(), parent.sizes().locked), (3, 3));
    let mut child = parent.fork(&lab.memory).unwrap();
    assert_eq!(lab.load(&mut child, at), Err(FaultError::NoMapping));
    assert_eq!(lab.load(&mut child, page(at, 1)), Ok((0, Some(FaultKind::ZeroPageRead))));
    assert_eq!(lab.load(&mut child, page(at, 2)), Ok((5, None)));
    assert_eq!((child.sizes().locked, child.resident().anonymous), (0, 1));
    lab.end(parent);
    lab.end(child);
    lab.check_balance();
}

#[test]
fn fork_without_frames_leaves_nothing_behind() {
    let lab = Lab::new(3000);
    let memory = &lab.memory;
    let mut parent = lab.space();
    let private = lab.map(&mut parent, 1500, RW, PRIVATE);
    let shared = lab.map(&mut parent, 10, RW, SHARED);
    let far = lab.map_at(&mut parent, 0x1000_0000, 600, RW, PRIVATE).unwrap();
    for at in (0..1500).map(|n| page(private, n)).chain((0..10).map(|n| page(shared, n))) {
        lab.store(&mut parent, at, 3).unwrap();
    }
    for n in 0..600 {
        lab.store(&mut parent, page(far, n), 4).unwrap();
    }
    let resident = parent.resident();
    let promised = memory.commit.promised();
    let mut failures = 0;
    let child = loop {
        let mut taken: Vec<_> = std::iter::from_fn(|| memory.frames.alloc(Use::Kernel)).collect();
        for _ in 0..failures {
            memory.frames.release(&memory.machine, taken.pop().unwrap());
        }
        let result = parent.fork(memory);
        memory.machine.check_tlb();
        for frame in taken {
            memory.frames.release(&memory.machine, frame);
        }
        match result {
            Ok(child) => break child,
            Err(error) => {
                assert_eq!(error, MmError::OutOfMemory);
                assert_eq!((parent.resident(), memory.commit.promised()), (resident, promised));
                assert_eq!(lab.load(&mut parent, page(private, 1)), Ok((3, None)));
                assert_eq!(memory.frames.counters().anonymous, 2100);
                failures += 1;
            }
        }
    };
    assert!(failures >= 9, "root, three levels, leaves: {failures}");
    lab.end(child);
    lab.end(parent);
    lab.check_balance();
}

#[test]
fn fork_keeps_to_the_overcommit_rules() {
    let lab = Lab::new(1000);
    let memory = &lab.memory;
    memory.commit.set_policy(Overcommit::Never);
    let mut parent = lab.space();
    lab.map(&mut parent, 200, RW, PRIVATE);
    lab.map(&mut parent, 100, RW, PRIVATE);
    let promised = memory.commit.promised();
    assert_eq!(parent.fork(memory).err(), Some(MmError::Overcommit));
    assert_eq!(memory.commit.promised(), promised);
    memory.commit.set_policy(Overcommit::Always);
    let child = parent.fork(memory).unwrap();
    assert_eq!(memory.commit.promised(), 2 * promised);
    lab.end(child);
    lab.end(parent);
    lab.check_balance();
}

#[test]
fn an_inherited_area_that_grows_joins_what_has_no_pages_yet() {
    let lab = Lab::new(512);
    let memory = &lab.memory;
    let mut parent = lab.space();
    let at = lab.map_at(&mut parent, 0x1000_0000, 2, RW, PRIVATE).unwrap();
    lab.store(&mut parent, at, 1).unwrap();
    lab.map_at(&mut parent, page(at, 3).0, 1, RW, PRIVATE).unwrap();
    let mut child = parent.fork(memory).unwrap();
    let request = pagelab_mm::RemapRequest {
        address: page(at, 1),
        old_length: PAGE,
        new_length: 2 * PAGE,
        flags: pagelab_mm::RemapFlags::empty(),
        new_address: GuestVirt(0),
    };
    child.mremap(memory, &request).unwrap();
    assert_eq!(child.area_count(), 1);
    // A mapping in the gap does not: nothing says whose its pages will be.
    child.munmap(memory, page(at, 2), PAGE).unwrap();
    lab.map_at(&mut child, page(at, 2).0, 1, RW, PRIVATE | MapFlags::FIXED).unwrap();
    assert_eq!(child.area_count(), 3);
    lab.end(parent);
    lab.end(child);
    lab.check_balance();
}
