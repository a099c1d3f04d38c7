//! The frame allocator.

use pagelab_abi::addr::Frame;
use pagelab_mm::frames::FramesError;
use pagelab_mm::{Block, FrameInfo, FrameRange, Frames, Machine, Use};

use crate::lab::frames;
use crate::machine::Ram;

fn range(first: u32, end: u32, zero: bool) -> FrameRange {
    FrameRange { first: Frame(first), end: Frame(end), zero }
}

#[test]
fn every_frame_is_handed_out_once_and_comes_back() {
    let frames =
        frames(&[range(300, 1500, true), range(1501, 1600, false), range(2048, 2060, true)]);
    let ram = Ram::new(4096);
    let total = 1200 + 99 + 12;
    assert_eq!(frames.counters().total, total);
    assert_eq!(frames.counters().untouched, 1212);
    let mut all: Vec<_> = (0..total)
        .map(|n| {
            if n % 3 == 0 {
                frames.alloc(Use::Kernel)
            } else {
                frames.alloc_zeroed(&ram, Use::Anonymous)
            }
        })
        .map(Option::unwrap)
        .collect();
    assert_eq!(frames.alloc(Use::Kernel), None);
    assert_eq!(frames.alloc_zeroed(&ram, Use::Kernel), None);
    assert_eq!(frames.counters().free, 0);
    all.sort();
    all.dedup();
    assert_eq!(all.len() as u64, total);
    assert!(!all.contains(&Frame(1500)) && !all.contains(&Frame(299)));
    for &frame in &all {
        assert_eq!(frames.release(&ram, frame), 0);
    }
    let counters = frames.counters();
    assert_eq!((counters.free, counters.untouched), (total, 0));
    assert_eq!((counters.kernel, counters.anonymous), (0, 0));
}

#[test]
fn zeroed_frames_are_untouched_ones_and_copies_get_used_ones() {
    let frames = frames(&[range(0, 1024, true)]);
    let ram = Ram::new(1024);
    let first = frames.alloc_zeroed(&ram, Use::Anonymous).unwrap();
    ram.write_bytes(first, 0, &[7; 4096]);
    frames.release(&ram, first);
    let zeroed = frames.alloc_zeroed(&ram, Use::Anonymous).unwrap();
    assert_ne!(zeroed, first);
    assert_eq!(frames.alloc(Use::Anonymous), Some(first), "a copy takes the used frame");
    frames.release(&ram, first);
    while frames.counters().untouched > 0 {
        frames.alloc_zeroed(&ram, Use::Anonymous).unwrap();
    }
    assert_eq!(frames.alloc_zeroed(&ram, Use::Anonymous), Some(first));
    assert_eq!(ram.word(first, 0), 0, "a used frame was zeroed");
}

#[test]
fn runs_are_contiguous_aligned_and_leave_blocks_whole() {
    let frames = frames(&[range(256, 4096, true)]);
    let ram = Ram::new(4096);
    let run = frames.alloc_run(24, 16, Use::Kernel).unwrap();
    assert!(run.zero && run.first.0.is_multiple_of(16));
    let huge = frames.alloc_huge(Use::Anonymous).unwrap();
    assert!(huge.zero && huge.first.0.is_multiple_of(512));
    let single = frames.alloc_zeroed(&ram, Use::Anonymous).unwrap();
    assert!(!(huge.first.0..huge.first.0 + 512).contains(&single.0));
    for number in huge.first.0..huge.first.0 + 512 {
        frames.release(&ram, Frame(number));
    }
    // 6 whole blocks are left, one of them no longer zero.
    let runs: Vec<_> = std::iter::from_fn(|| frames.alloc_huge(Use::Kernel)).collect();
    assert_eq!(runs.len(), 7);
    assert_eq!(runs.iter().filter(|run| !run.zero).count(), 1);
    assert_eq!(frames.alloc_run(513, 1, Use::Kernel), None);
    assert_eq!(frames.alloc_run(0, 1, Use::Kernel), None);
}

#[test]
fn owners_are_counted() {
    let frames = frames(&[range(0, 512, true)]);
    let ram = Ram::new(512);
    let frame = frames.alloc(Use::Anonymous).unwrap();
    frames.share(frame);
    assert_eq!((frames.count(frame), frames.use_of(frame)), (2, Use::Anonymous));
    assert_eq!(frames.release(&ram, frame), 1);
    assert_eq!(frames.release(&ram, frame), 0);
    assert_eq!((frames.count(frame), frames.use_of(frame)), (0, Use::Free));
}

#[test]
#[should_panic(expected = "which is free")]
fn releasing_a_free_frame_is_found() {
    let frames = frames(&[range(0, 512, true)]);
    let ram = Ram::new(512);
    let frame = frames.alloc(Use::Kernel).unwrap();
    frames.release(&ram, frame);
    frames.release(&ram, frame);
}

#[test]
#[should_panic(expected = "which is free")]
fn sharing_a_free_frame_is_found() {
    frames(&[range(0, 512, true)]).share(Frame(3));
}

#[test]
fn freed_frames_are_poisoned() {
    let frames = frames(&[range(0, 512, true)]);
    let ram = Ram::new(512);
    let frame = frames.alloc(Use::Kernel).unwrap();
    frames.release(&ram, frame);
    if cfg!(debug_assertions) {
        assert_eq!(ram.word(frame, 511), pagelab_mm::frames::POISON);
    }
}

#[test]
fn adopted_frames_become_memory_when_released() {
    let frames = frames(&[range(0, 512, true)]);
    let ram = Ram::new(1024);
    let blocks: &'static mut [Block] = Box::leak(vec![Block::default(); 2].into_boxed_slice());
    let info = Box::leak(vec![FrameInfo::default(); 1024].into_boxed_slice());
    let adopting = Frames::new(info, blocks, &[range(0, 600, true)]).unwrap();
    adopting.adopt(Frame(700), Use::Cache);
    assert_eq!(adopting.counters().total, 601);
    assert_eq!(adopting.counters().cache, 1);
    adopting.release(&ram, Frame(700));
    let mut got = std::iter::from_fn(|| adopting.alloc(Use::Kernel));
    assert!(got.any(|frame| frame == Frame(700)));
    assert_eq!(adopting.free() + 601 - adopting.free(), 601);
    assert_eq!(frames.free(), 512);
}

#[test]
fn nonsense_is_refused() {
    let new = |ranges: &[FrameRange]| {
        let info = Box::leak(vec![FrameInfo::default(); 512].into_boxed_slice());
        let blocks = Box::leak(vec![Block::default(); 1].into_boxed_slice());
        Frames::new(info, blocks, ranges).err()
    };
    let bad = range(5, 4, false);
    assert_eq!(new(&[bad]), Some(FramesError::BadRange(bad)));
    assert!(matches!(
        new(&[range(0, 9, true), range(8, 10, true)]),
        Some(FramesError::BadRange(_))
    ));
    assert!(matches!(new(&[range(0, 513, true)]), Some(FramesError::NoMetadata(_))));
    assert_eq!(new(&[range(0, 1, true); 33]), Some(FramesError::TooManyRanges));
    assert_eq!(new(&[]), None);
}

#[test]
fn memory_that_is_not_known_to_be_zero_is_used_to_its_last_frame() {
    let frames = frames(&[range(512, 512 + 3 * 512, false)]);
    let got = std::iter::from_fn(|| frames.alloc(Use::Anonymous)).count();
    assert_eq!(got, 3 * 512);
    assert_eq!(frames.free(), 0);
}

#[test]
fn frames_given_back_zero_need_no_zeroing_and_were_used() {
    let frames = frames(&[range(0, 1024, true)]);
    let ram = Ram::new(1024);
    let used = frames.alloc_zeroed(&ram, Use::Table).unwrap();
    let table = frames.alloc_zeroed(&ram, Use::Table).unwrap();
    ram.write_bytes(table, 0, &[1]);
    ram.write_bytes(table, 0, &[0]);
    frames.hold().release_zeroed(&ram, table);
    let counters = frames.counters();
    assert_eq!((counters.free, counters.untouched), (1023, 1022));
    assert_eq!(frames.hold().alloc_for_zero(Use::Table), Some((table, true)));
    assert_eq!(frames.counters().untouched, 1022);
    frames.release(&ram, table);
    frames.release(&ram, used);
    assert_eq!(frames.counters().untouched, 1022);
    let all: Vec<_> = std::iter::from_fn(|| frames.alloc_zeroed(&ram, Use::Kernel)).collect();
    assert_eq!(all.len(), 1024);
    assert!(all.iter().all(|&frame| ram.word(frame, 0) == 0));
    all.iter().for_each(|&frame| ram.zero_frame(frame));
    all.iter().for_each(|&frame| frames.hold().release_zeroed(&ram, frame));
    assert_eq!((frames.free(), frames.counters().untouched), (1024, 0));
    assert_eq!(frames.alloc_huge(Use::Kernel).map(|run| run.zero), Some(true));
}

#[test]
fn the_reserve_is_for_the_kernel_alone() {
    let frames = frames(&[range(0, 512, true)]);
    let ram = Ram::new(512);
    frames.set_reserve(100);
    let taken = std::iter::from_fn(|| frames.alloc_zeroed(&ram, Use::Anonymous)).count();
    assert_eq!(taken, 412);
    assert!(frames.is_short());
    assert_eq!(frames.alloc(Use::Table), None);
    let kernel = std::iter::from_fn(|| frames.alloc(Use::Kernel)).count();
    assert_eq!(kernel, 100);
}
