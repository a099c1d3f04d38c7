//! A kernel that publishes what it should, and kernels that lie.

use std::mem::offset_of;

use pagelab_abi::addr::PAGE_SIZE;
use pagelab_abi::directory::{
    AreaRecord, BACKING_OBJECT, FrameCounts, FrameRecord, NameRecord, PROTECTION_READ,
    PROTECTION_WRITE, PlaceRecord, ProcessRecord, STATE_ALIVE, STATE_ENDED, SpaceRecord,
    USE_ANONYMOUS, USE_KERNEL, area,
};
use pagelab_abi::fault::FaultKind;
use pagelab_paging::{Entry, EntryFlags, Level};
use proptest::prelude::*;
use zerocopy::Immutable;

use super::*;
use crate::inspect::maps::{maps, smaps};
use crate::inspect::testing::{ROOT, Words};

const PAGES: usize = 96;
/// Where the kernel maps physical address 0.
const BASE: u64 = 0xffff_8000_0000_0000;
const DIRECTORY: u64 = 0x2_0000;
const PLACES: u64 = 0x2_1000;
const PROCESS: u64 = 0x2_2000;
const SPACE: u64 = 0x2_3000;
const SEQUENCE: u64 = 0x2_3800;
const LEAVES: u64 = 0x2_4000;
const AREAS: u64 = 0x2_5000;
const NAMES: u64 = 0x2_6000;
const PATH: u64 = 0x2_7000;
const FRAMES: u64 = 0x2_8000;
const COUNTS: u64 = 0x2_9000;
/// Root of the process's tables; its tables lie behind it.
const USER_ROOT: u64 = 0x3_0000;
const DATA: u64 = 0x4_0000;

const USER_DATA: EntryFlags = EntryFlags::PRESENT
    .union(EntryFlags::WRITABLE)
    .union(EntryFlags::USER)
    .union(EntryFlags::DIRTY)
    .union(EntryFlags::NO_EXECUTE);

fn put<T: IntoBytes + Immutable>(memory: &mut Words, at: u64, value: &T) {
    memory.put(at, value.as_bytes());
}

/// A guest with two processes: one lives, with two areas of which one page is
/// there; one has ended.
fn guest() -> Words {
    let mut memory = Words::new(PAGES);
    for page in 0..PAGES as u64 {
        let at = page * PAGE_SIZE;
        memory.map(BASE + at, at, Level::One, EntryFlags::PRESENT | EntryFlags::NO_EXECUTE);
    }
    let mut directory = Directory::empty();
    let fields = [
        (&directory.kernel_root, ROOT.0),
        (&directory.frames, BASE + FRAMES),
        (&directory.frame_count, PAGES as u64),
        (&directory.frame_counts, BASE + COUNTS),
        (&directory.processes, BASE + PLACES),
        (&directory.process_places, 2),
        (&directory.names, BASE + NAMES),
        (&directory.name_count, 1),
    ];
    for (field, value) in fields {
        field.store(value, Ordering::Relaxed);
    }
    directory.current_process.store(7, Ordering::Relaxed);
    memory.put(DIRECTORY, directory.as_mut_bytes());
    for (place, pid) in [(0_u64, 9_u32), (1, 7)] {
        let at = PROCESS + place * 0x800;
        let mut record = ProcessRecord::default();
        record.pid.store(pid, Ordering::Relaxed);
        record.parent.store(1, Ordering::Relaxed);
        let state = if pid == 7 { STATE_ALIVE } else { STATE_ENDED };
        record.state.store(state, Ordering::Relaxed);
        record.threads.store(1, Ordering::Relaxed);
        record.wait_status.store(0x2a00, Ordering::Relaxed);
        record.set_name(b"tester");
        record.space.store(BASE + SPACE, Ordering::Relaxed);
        record.space_sequence.store(BASE + SEQUENCE, Ordering::Relaxed);
        record.count_fault(FaultKind::CowCopy, 100);
        memory.put(at, record.as_mut_bytes());
        let record = PlaceRecord { record: BASE + at, pid: pid.into() };
        put(&mut memory, PLACES + place * 16, &record);
    }
    let space = SpaceRecord {
        heap_start: 0x60_0000,
        heap_end: 0x60_2000,
        anonymous: 1,
        leaves: BASE + LEAVES,
        leaf_count: 1,
        area_count: 2,
        root: u32::try_from(USER_ROOT / PAGE_SIZE).unwrap(),
        ..SpaceRecord::default()
    };
    put(&mut memory, SPACE, &space);
    memory.set(LEAVES, BASE + AREAS);
    memory.set(LEAVES + 8, 2);
    let file = AreaRecord {
        start: 0x40_0000,
        end: 0x40_2000,
        offset: 1,
        backing: BACKING_OBJECT,
        object: 5,
        protection: PROTECTION_READ,
        ..AreaRecord::default()
    };
    let heap = AreaRecord {
        start: 0x60_0000,
        end: 0x60_2000,
        protection: PROTECTION_READ | PROTECTION_WRITE,
        flags: area::ACCOUNTED | area::MAY_WRITE | area::SOFT_DIRTY,
        ..AreaRecord::default()
    };
    put(&mut memory, AREAS, &[file, heap]);
    let name = NameRecord {
        object: 5,
        device: 0x2_03,
        inode: 77,
        path: BASE + PATH,
        length: 9,
        deleted: 0,
    };
    put(&mut memory, NAMES, &name);
    memory.put(PATH, b"/bin/test");
    for (level, at) in (0..).zip([USER_ROOT, USER_ROOT + 0x1000, USER_ROOT + 0x2000]) {
        let index = if level == 2 { 3 } else { 0 };
        memory.set(at + index * 8, (at + 0x1000) | 7);
    }
    memory.set(USER_ROOT + 0x3000, DATA | USER_DATA.bits());
    for frame in 0..80 {
        let is_data = frame == DATA / PAGE_SIZE;
        let usage = if is_data { USE_ANONYMOUS } else { USE_KERNEL };
        let owner = if is_data { 0x600 } else { 0 };
        let record = FrameRecord { count: 1, usage, owner, ..FrameRecord::default() };
        put(&mut memory, FRAMES + frame * 16, &record);
    }
    let mut counts = FrameCounts { total: PAGES as u64, free: 16, ..FrameCounts::default() };
    counts.by_use[usize::from(USE_KERNEL)] = 79;
    counts.by_use[usize::from(USE_ANONYMOUS)] = 1;
    put(&mut memory, COUNTS, &counts);
    memory
}

fn open(memory: &Words) -> Kernel<'_, Words> {
    Kernel::new(memory, Some(GuestPhys(DIRECTORY))).unwrap()
}

#[test]
fn processes_are_as_published() {
    let memory = guest();
    let kernel = open(&memory);
    let list = kernel.processes().unwrap();
    assert_eq!((list.current, list.consistency), (7, Consistency::Consistent));
    let pids: Vec<_> = list.processes.iter().map(|process| process.pid).collect();
    assert_eq!(pids, [7, 9]);
    let [alive, ended] = &list.processes[..] else { panic!("two processes") };
    assert_eq!((alive.name.as_str(), alive.parent), ("tester", 1));
    assert_eq!(alive.root(), Some(GuestPhys(USER_ROOT)));
    assert_eq!(alive.faults.count[FaultKind::CowCopy as usize], 1);
    assert_eq!(alive.state, ProcessState::Sleeping);
    assert_eq!((ended.state, ended.wait_status), (ProcessState::Ended, Some(0x2a00)));
    assert_eq!(ended.root(), None);
    assert_eq!(kernel.process(3).unwrap_err(), KernelError::NoProcess(3));
    let text = list.to_string();
    assert!(text.contains("7     1 S    1       4 K         1 0x30000    tester*"), "{text}");
    let json = serde_json::to_value(&list).unwrap();
    assert_eq!(json["processes"][0]["faults"]["cow_copy"]["cost"], 100);
}

#[test]
fn maps_and_smaps_have_linux_format() {
    let memory = guest();
    let kernel = open(&memory);
    let process = kernel.process(7).unwrap();
    let text = maps(&kernel, &process).unwrap().text();
    assert_eq!(
        text,
        "00400000-00402000 r--p 00001000 02:03 77                                 /bin/test\n\
         00600000-00602000 rw-p 00000000 00:00 0                                  [heap]\n"
    );
    let smaps = smaps(&kernel, &process).unwrap();
    assert_eq!(smaps.consistency, Consistency::Consistent);
    let text = smaps.text();
    let heap = text.split_once("[heap]\n").unwrap().1;
    for line in [
        "Size:                  8 kB",
        "Rss:                   4 kB",
        "Pss:                   4 kB",
        "Private_Dirty:         4 kB",
        "Anonymous:             4 kB",
        "Referenced:            0 kB",
        "VmFlags: rd wr mr mw me ac sd ",
    ] {
        assert!(heap.lines().any(|found| found == line), "‘{line}’ is not in\n{heap}");
    }
}

#[test]
fn pages_in_swap_are_shared_by_who_holds_their_slot() {
    let mut memory = guest();
    // Two entries of the heap hold the same slot.
    let swapped = Entry::for_swap(5, EntryFlags::empty());
    memory.set(USER_ROOT + 0x3000, swapped.0);
    memory.set(USER_ROOT + 0x3008, swapped.0);
    memory.set(SPACE + offset_of!(SpaceRecord, swapped) as u64, 2);
    let kernel = open(&memory);
    assert_eq!(kernel.swap_holders().unwrap().into_iter().collect::<Vec<_>>(), [(5, 2)]);
    let process = kernel.process(7).unwrap();
    let text = smaps(&kernel, &process).unwrap().text();
    let heap = text.split_once("[heap]\n").unwrap().1;
    for line in [
        "Rss:                   0 kB",
        "Swap:                  8 kB",
        "SwapPss:               4 kB",
    ] {
        assert!(heap.lines().any(|found| found == line), "‘{line}’ is not in\n{heap}");
    }
}

#[test]
fn frames_are_counted_and_their_mappers_found() {
    let memory = guest();
    let kernel = open(&memory);
    let report = kernel.frames().unwrap();
    assert_eq!(report.consistency, Consistency::Consistent);
    assert_eq!((report.free, report.kernel, report.anonymous), (16, 79, 1));
    assert_eq!(report.by_references.get(&1), Some(&80));
    let frame = DATA / PAGE_SIZE;
    let found = kernel.mappers(frame, false).unwrap();
    assert_eq!((found.usage, found.references), (FrameUse::Anonymous, 1));
    assert_eq!(found.mappers.len(), 1);
    assert_eq!((found.mappers[0].pid, found.mappers[0].alias.address.0), (7, 0x60_0000));
    let with_kernel = kernel.mappers(frame, true).unwrap();
    assert_eq!(with_kernel.mappers[1].alias.address.0, BASE + DATA);
    assert_eq!(kernel.mapping_counts().unwrap().into_iter().collect::<Vec<_>>(), [(frame, 1)]);
    assert_eq!(kernel.mappers(1 << 40, false).unwrap_err(), KernelError::NoFrame(1 << 40));
}

#[test]
fn what_is_being_changed_is_said_to_be() {
    let mut memory = guest();
    memory.set(SEQUENCE, 3);
    let kernel = open(&memory);
    let process = kernel.process(7).unwrap();
    assert_eq!(process.consistency, Consistency::Changing);
    assert_eq!(kernel.areas(&process).unwrap().1, Consistency::Changing);
    assert_eq!(kernel.while_unchanged(&process, || 1), (1, Consistency::Changing));
    memory.set(SEQUENCE, 4);
    memory.set(DIRECTORY + offset_of!(Directory, sequence) as u64, 5);
    let kernel = open(&memory);
    let list = kernel.processes().unwrap();
    assert_eq!(list.consistency, Consistency::Changing);
    assert_eq!(list.processes[0].consistency, Consistency::Consistent);
}

#[test]
fn lies_are_refused() {
    let lie = |at: u64, value: u64| {
        let mut memory = guest();
        memory.set(at, value);
        memory
    };
    let field = |offset: usize| DIRECTORY + offset as u64;
    assert_eq!(Kernel::new(&guest(), None).unwrap_err(), KernelError::NotPublished);
    let memory = lie(DIRECTORY, 0);
    let version = Kernel::new(&memory, Some(GuestPhys(DIRECTORY)));
    assert_eq!(version.unwrap_err(), KernelError::Version);
    let outside = Kernel::new(&memory, Some(GuestPhys(u64::MAX - 7)));
    assert!(matches!(outside.unwrap_err(), KernelError::Unreadable { .. }));
    let memory = lie(field(offset_of!(Directory, process_places)), u64::MAX);
    assert!(matches!(open(&memory).processes().unwrap_err(), KernelError::TooMany { .. }));
    let memory = lie(field(offset_of!(Directory, processes)), 0x1000);
    assert!(matches!(open(&memory).processes().unwrap_err(), KernelError::Unreadable { .. }));
    let memory = lie(field(offset_of!(Directory, frame_count)), u64::MAX);
    assert!(matches!(open(&memory).frames().unwrap_err(), KernelError::TooMany { .. }));
    let memory = lie(field(offset_of!(Directory, frame_count)), PAGES as u64 + 1);
    assert!(matches!(open(&memory).frames().unwrap_err(), KernelError::TooMany { .. }));
    let last = BASE + (PAGES as u64 - 1) * PAGE_SIZE;
    let memory = lie(field(offset_of!(Directory, frames)), last + 0xb00);
    assert!(matches!(open(&memory).frames().unwrap_err(), KernelError::Unreadable { .. }));
    for (at, value) in [(LEAVES + 8, 3), (LEAVES + 8, 1), (AREAS, 0x50_0000), (AREAS + 8, 0)] {
        let memory = lie(at, value);
        let kernel = open(&memory);
        let process = kernel.process(7).unwrap();
        assert!(kernel.areas(&process).is_err(), "{at:#x} = {value:#x}");
    }
}

proptest! {
    #[test]
    fn no_lie_does_harm(
        lies in prop::collection::vec((0x2_0000_u64 / 8..0x4_0000 / 8, any::<u64>(), 0..4), 1..12),
        frame in any::<u64>(),
    ) {
        let mut memory = guest();
        for (word, value, kind) in lies {
            let old = memory.get(word * 8);
            memory.set(word * 8, match kind {
                0 => value,
                1 => BASE + value % (PAGES as u64 * PAGE_SIZE),
                2 => old ^ 1 << (value % 64),
                _ => value % 100,
            });
        }
        let Ok(kernel) = Kernel::new(&memory, Some(GuestPhys(DIRECTORY))) else { return Ok(()) };
        let _ = (kernel.frames(), kernel.object_names(), kernel.current());
        let _ = (kernel.mappers(frame % 128, true), kernel.frame(frame));
        for process in kernel.processes().map(|list| list.processes).unwrap_or_default() {
            let _ = (kernel.areas(&process), maps(&kernel, &process).map(|maps| maps.text()));
            let _ = smaps(&kernel, &process).map(|maps| maps.text());
        }
    }
}
