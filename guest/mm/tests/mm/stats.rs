//! smaps, pagemap, clear_refs.

use pagelab_abi::addr::GuestVirt;
use pagelab_abi::fault::FaultKind;
use pagelab_mm::pagemap::{EXCLUSIVE, FILE_OR_SHARED, PRESENT, SOFT_DIRTY};
use pagelab_mm::stats::whole_bytes;
use pagelab_mm::{Access, AddressSpace, AreaStats, ClearRefs, MapFlags};

use crate::lab::{Lab, PAGE, PRIVATE, RW, SHARED, page};

fn stats(lab: &Lab, space: &AddressSpace, at: GuestVirt) -> AreaStats {
    space.stats_of(&lab.memory, space.area_at(at).unwrap())
}

fn pagemap(lab: &Lab, space: &AddressSpace, at: GuestVirt) -> u64 {
    let mut entry = [0];
    space.pagemap(&lab.memory, at, &mut entry);
    entry[0]
}

#[test]
fn an_untouched_allocation_of_1025_pages_has_one_resident() {
    let lab = Lab::new(2048);
    let mut space = lab.space();
    let at = lab.map(&mut space, 1025, RW, PRIVATE);
    lab.write(&mut space, at);
    let area = *space.area_at(at).unwrap();
    assert_eq!((area.size() >> 10, stats(&lab, &space, at).resident >> 10), (4100, 4));
    for n in 1..1025 {
        assert_eq!(lab.write(&mut space, page(at, n)), Some(FaultKind::DemandZero));
    }
    let all = stats(&lab, &space, at);
    assert_eq!((all.resident >> 10, all.private_dirty >> 10), (4100, 4100));
    assert_eq!((whole_bytes(all.proportional) >> 10, all.anonymous >> 10), (4100, 4100));
    assert_eq!(all, space.stats(&lab.memory));
    let flags: Vec<_> = area.vm_flags().collect();
    assert_eq!(flags, ["rd", "wr", "mr", "mw", "me", "ac", "sd"]);
    lab.end(space);
    lab.check_balance();
}

#[test]
fn shared_pages_count_by_their_share() {
    let lab = Lab::new(512);
    let mut one = lab.space();
    let at = lab.map(&mut one, 4, RW, PRIVATE);
    for n in 0..3 {
        lab.write(&mut one, page(at, n));
    }
    lab.read(&mut one, page(at, 3));
    let mut two = one.fork(&lab.memory).unwrap();
    let three = one.fork(&lab.memory).unwrap();
    lab.write(&mut two, at);
    let ours = stats(&lab, &one, at);
    assert_eq!((ours.resident, ours.shared_dirty, ours.private_dirty), (3 * PAGE, 3 * PAGE, 0));
    let third = (PAGE << 12) / 3;
    assert_eq!(ours.proportional, (PAGE << 12) / 2 + 2 * third);
    let theirs = stats(&lab, &two, at);
    assert_eq!((theirs.private_dirty, theirs.shared_dirty), (PAGE, 2 * PAGE));
    assert_eq!(pagemap(&lab, &one, at) & EXCLUSIVE, 0);
    assert_eq!(pagemap(&lab, &two, at) & EXCLUSIVE, EXCLUSIVE);
    lab.end(three);
    lab.end(two);
    assert_eq!(stats(&lab, &one, at).private_dirty, 3 * PAGE);
    lab.end(one);
    lab.check_balance();
}

#[test]
fn pagemap_has_frames_and_bits() {
    let lab = Lab::new(512);
    let mut space = lab.space();
    let shared = lab.map(&mut space, 1, RW, SHARED);
    let at = lab.map_at(&mut space, 0x1000_0000, 3, RW, PRIVATE).unwrap();
    assert_eq!(pagemap(&lab, &space, GuestVirt(0x5000)), 0);
    assert_eq!(pagemap(&lab, &space, at), SOFT_DIRTY, "a new area");
    let (frame, _) = lab.touch(&mut space, at, Access::WRITE).unwrap();
    assert_eq!(pagemap(&lab, &space, at), PRESENT | EXCLUSIVE | SOFT_DIRTY | u64::from(frame.0));
    let (frame, _) = lab.touch(&mut space, shared, Access::WRITE).unwrap();
    let bits = PRESENT | EXCLUSIVE | SOFT_DIRTY | FILE_OR_SHARED;
    assert_eq!(pagemap(&lab, &space, shared), bits | u64::from(frame.0));
    lab.read(&mut space, page(at, 1));
    let zero = u64::from(lab.memory.zero_page().0);
    assert_eq!(pagemap(&lab, &space, page(at, 1)), PRESENT | SOFT_DIRTY | zero);
    lab.end(space);
    lab.check_balance();
}

#[test]
fn cleared_soft_dirty_bits_come_back_with_a_fault() {
    let lab = Lab::new(512);
    let memory = &lab.memory;
    let mut space = lab.space();
    let shared = lab.map(&mut space, 1, RW, SHARED);
    let at = lab.map_at(&mut space, 0x1000_0000, 3, RW, PRIVATE | MapFlags::POPULATE).unwrap();
    lab.write(&mut space, shared);
    space.clear_refs(memory, ClearRefs::SoftDirty);
    memory.machine.check_tlb();
    for there in [shared, at] {
        assert_eq!(pagemap(&lab, &space, there) & SOFT_DIRTY, 0);
        assert_eq!(lab.read(&mut space, there), None);
    }
    // Taking and giving back the right to write does not hide the first write.
    space.mprotect(memory, at, 3 * PAGE, 1).unwrap();
    space.mprotect(memory, at, 3 * PAGE, 3).unwrap();
    assert_eq!(lab.write(&mut space, at), Some(FaultKind::CowReuse));
    assert_eq!(lab.write(&mut space, shared), Some(FaultKind::WriteNotify));
    let bits = |at| pagemap(&lab, &space, at) & SOFT_DIRTY;
    assert_eq!([at, shared, page(at, 1)].map(bits), [SOFT_DIRTY, SOFT_DIRTY, 0]);
    lab.end(space);
    lab.check_balance();
}

#[test]
fn referenced_pages_are_those_used_since_the_bits_were_cleared() {
    let lab = Lab::new(512);
    let memory = &lab.memory;
    let mut space = lab.space();
    let at = lab.map(&mut space, 3, RW, PRIVATE | MapFlags::POPULATE);
    space.clear_refs(memory, ClearRefs::Mapped);
    assert_eq!(stats(&lab, &space, at).referenced, 3 * PAGE);
    space.clear_refs(memory, ClearRefs::All);
    memory.machine.check_tlb();
    assert_eq!(stats(&lab, &space, at).referenced, 0);
    lab.read(&mut space, page(at, 1));
    let now = stats(&lab, &space, at);
    assert_eq!((now.referenced, now.private_dirty), (PAGE, 3 * PAGE));
    space.madvise(memory, at, PAGE, 8).unwrap();
    assert_eq!(stats(&lab, &space, at).lazily_freed, PAGE);
    space.madvise(memory, at, 3 * PAGE, 4).unwrap();
    space.clear_refs(memory, ClearRefs::Peak);
    assert_eq!(space.peak_resident(), 0);
    lab.end(space);
    lab.check_balance();
}

#[test]
fn pages_shared_after_fork_are_marked_free_on_one_side() {
    let lab = Lab::new(512);
    let memory = &lab.memory;
    let mut parent = lab.space();
    let at = lab.map(&mut parent, 2, RW, PRIVATE | MapFlags::POPULATE);
    lab.store(&mut parent, at, 7).unwrap();
    let mut child = parent.fork(memory).unwrap();
    child.madvise(memory, at, PAGE, 8).unwrap();
    memory.machine.check_tlb();
    let (ours, theirs) = (stats(&lab, &child, at), stats(&lab, &parent, at));
    assert_eq!((ours.shared_clean, ours.shared_dirty), (PAGE, PAGE));
    assert_eq!((theirs.shared_clean, theirs.shared_dirty), (0, 2 * PAGE));
    assert_eq!(lab.store(&mut child, at, 8), Ok(Some(FaultKind::CowCopy)));
    assert_eq!(stats(&lab, &child, at).private_dirty, PAGE);
    assert_eq!(lab.load(&mut parent, at), Ok((7, None)));
    lab.end(parent);
    lab.end(child);
    lab.check_balance();
}
