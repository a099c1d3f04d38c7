//! Whatever numbers a program passes, no call panics or breaks anything.

use pagelab_abi::addr::GuestVirt;
use pagelab_mm::{
    Access, Limits, LockAll, MapFlags, MapRequest, MapSource, Populate, Protection, RemapFlags,
    RemapRequest, SyncFlags,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::check;
use crate::lab::{Lab, PAGE, PRIVATE, RW};

/// Numbers that calculations go wrong with: around powers of two, the ends of
/// the address space, and what is mapped.
fn number() -> impl Strategy<Value = u64> {
    let near = |base: u64| {
        (0..6u64, any::<bool>()).prop_map(move |(pages, odd)| {
            base.wrapping_add(pages.wrapping_sub(3).wrapping_mul(PAGE)).wrapping_add(u64::from(odd))
        })
    };
    prop_oneof![
        4 => near(0x1000_0000),
        2 => near(0),
        2 => near(0x7fff_ffff_f000),
        1 => near(0x7fff_f7ff_f000),
        1 => near(1 << 47),
        1 => near(1 << 63),
        2 => (0..64u32).prop_map(|bit| 1 << bit),
        1 => any::<u64>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_number_breaks_anything(
        calls in vec((0..13u8, number(), number(), number(), any::<u32>(), 0..4u32), 1..40),
    ) {
        let lab = Lab::new(700);
        let memory = &lab.memory;
        let mut space = lab.space();
        space.set_heap(GuestVirt(0x2000_0000), 0);
        space.limits = Limits { may_lock: true, ..Limits::default() };
        space.map_stack(memory, 4).unwrap();
        lab.map_at(&mut space, 0x1000_0000, 8, RW, PRIVATE | MapFlags::FIXED).unwrap();
        for (call, a, b, c, bits, few) in calls {
            let (at, end) = (GuestVirt(a), GuestVirt(a.wrapping_add(b.min(64 * PAGE))));
            let bits = if few == 0 { bits } else { bits & 0x13_ffff & !MapFlags::HUGE_TLB.bits() };
            match call {
                0 => {
                    let request = MapRequest {
                        address: at,
                        length: b,
                        protection: Protection::from_linux(few),
                        flags: MapFlags::from_bits_retain(bits) | MapFlags::ANONYMOUS,
                        source: MapSource::Anonymous,
                    };
                    let _ = space.mmap(memory, &request);
                }
                1 => drop(space.munmap(memory, at, b)),
                2 => drop(space.mprotect(memory, at, b, bits & 0x0300_000f)),
                3 => drop(space.madvise(memory, at, b, bits % 30)),
                4 => {
                    let request = RemapRequest {
                        address: at,
                        old_length: b,
                        new_length: c,
                        flags: RemapFlags::from_bits_retain(bits % 9),
                        new_address: GuestVirt(c ^ b),
                    };
                    let _ = space.mremap(memory, &request);
                }
                5 => drop(space.mlock(memory, at, b, few == 1)),
                6 => drop(space.munlock(memory, at, b)),
                7 => {
                    let flags = SyncFlags::from_bits_retain(bits % 9);
                    let _ = space.msync(memory, at, b, flags, |_, _, _| Ok(()));
                }
                8 => drop(space.mincore(memory, at, b.min(1 << 20), |_, _| ())),
                9 => drop(space.brk(memory, at)),
                10 => {
                    let access = if few == 0 { Access::READ } else { Access::WRITE };
                    let _ = space.fault(memory, at, access);
                }
                11 => {
                    let _ = space.populate(memory, at, end, Populate::Write, false);
                    let _ = space.write_user(memory, at, &[1; 3]);
                    space.pagemap(memory, at, &mut [0; 3]);
                }
                _ => {
                    let _ = space.mlockall(memory, LockAll::from_bits_retain(bits % 9));
                    let _ = space.munlockall(memory);
                }
            }
            check::space(&lab, &space);
            memory.machine.check_tlb();
        }
        lab.end(space);
        lab.check_balance();
    }
}
