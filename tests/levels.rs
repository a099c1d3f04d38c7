//! Both levels of translation on a real virtual machine: page tables against
//! `KVM_TRANSLATE`, and the host's own faults against what a guest touched.
//!
//! The guest is a loop of a few instructions on tables made here.

use std::path::PathBuf;
use std::sync::Arc;

use kvm_bindings::kvm_segment;
use kvm_ioctls::{VcpuExit, VcpuFd};
use pagelab::inspect::pages::{DumpRequest, Shape, dump};
use pagelab::inspect::second_level::watch::HostFaultKind;
use pagelab::inspect::second_level::{
    FaultWatch, PageState, WatchError, backing, reclaim, use_huge_pages,
};
use pagelab::inspect::translate::translate;
use pagelab::memory::{GuestRam, MemorySize};
use pagelab::vstate::vm::{self, Vm};
use pagelab_abi::addr::{GuestPhys, GuestVirt, PAGE_SIZE};
use pagelab_paging::entry::entry_address;
use pagelab_paging::walk::walk;
use pagelab_paging::{Entry, EntryFlags, Level, TableMemory, TableMemoryMut};

const ROOT: GuestPhys = GuestPhys(0x1000);
const OPEN: EntryFlags = EntryFlags::PRESENT.union(EntryFlags::WRITABLE).union(EntryFlags::USER);

/// Numbers that are the same on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// Page tables in guest memory, from the root on.
struct Tables<'a> {
    ram: &'a GuestRam,
    next: u64,
}

impl Tables<'_> {
    fn map(&mut self, address: u64, physical: u64, level: Level, flags: EntryFlags) {
        let mut table = ROOT;
        for at in Level::DOWN.into_iter().take_while(|&at| at > level) {
            let slot = entry_address(table, at.index(GuestVirt(address)));
            let mut entry = self.ram.read_entry(slot).expect("a table");
            if entry.has(EntryFlags::HUGE) && at.can_be_huge() {
                return;
            }
            if !entry.is_present() {
                entry = Entry::new(GuestPhys(self.next), OPEN);
                self.next += PAGE_SIZE;
                assert!((&mut &*self.ram).write_entry(slot, entry));
            }
            table = entry.address();
        }
        let slot = entry_address(table, level.index(GuestVirt(address)));
        if self.ram.read_entry(slot) == Some(Entry::EMPTY) {
            let huge = if level == Level::One { EntryFlags::empty() } else { EntryFlags::HUGE };
            assert!(
                (&mut &*self.ram).write_entry(slot, Entry::new(GuestPhys(physical), flags | huge))
            );
        }
    }
}

fn machine(mib: u64) -> (Arc<GuestRam>, Vm, VcpuFd) {
    let kvm = vm::open(&vm::device_path()).expect("KVM");
    let size = MemorySize::new(mib << 20).expect("a size");
    let ram = Arc::new(GuestRam::new(size).expect("memory"));
    let vm = Vm::new(&kvm, Arc::clone(&ram)).expect("a virtual machine");
    let vcpu = vm.fd().create_vcpu(0).expect("a processor");
    vcpu.set_cpuid2(vm.cpuid()).expect("its features");
    (ram, vm, vcpu)
}

/// Puts the processor into 64-bit mode, ring 0, on the tables at [`ROOT`].
fn enter_long_mode(vcpu: &VcpuFd) {
    let mut special = vcpu.get_sregs().expect("registers");
    let flat = |kind, selector, long| kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_: kind,
        present: 1,
        s: 1,
        g: 1,
        l: long,
        db: 1 - long,
        ..kvm_segment::default()
    };
    special.cs = flat(11, 8, 1);
    let data = flat(3, 16, 0);
    (special.ds, special.es, special.ss) = (data, data, data);
    (special.fs, special.gs) = (data, data);
    special.cr0 = 0x8001_0033;
    special.cr3 = ROOT.0;
    special.cr4 = 1 << 5;
    special.efer = 1 << 8 | 1 << 10 | 1 << 11;
    vcpu.set_sregs(&special).expect("registers");
}

/// How many addresses are compared; fewer where the host is emulated itself.
fn rounds() -> u64 {
    let wanted = std::env::var("PAGELAB_TRANSLATIONS").ok();
    wanted.and_then(|text| text.parse().ok()).unwrap_or(1_000_000)
}

#[test]
fn translations_are_those_of_kvm() {
    let (ram, _vm, vcpu) = machine(64);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut tables = Tables { ram: &ram, next: 0x2000 };
    // Few values for each index, so that addresses hit what is mapped.
    let some_address = |random: &mut Random| {
        let pick = |random: &mut Random, values: &[u64]| {
            values[usize::try_from(random.below(values.len() as u64)).expect("an index")]
        };
        let top = pick(random, &[0, 1, 255, 256, 300, 511]);
        let address = top << 39
            | pick(random, &[0, 1, 2, 511]) << 30
            | pick(random, &[0, 1, 5, 511]) << 21
            | random.below(16) << 12
            | random.below(PAGE_SIZE);
        if top >= 256 { address | 0xffff << 48 } else { address }
    };
    for _ in 0..1500 {
        let address = some_address(&mut random);
        let level = match random.below(20) {
            0 => Level::Two,
            1 => Level::Three,
            _ => Level::One,
        };
        let physical = random.below(ram.size().bytes() * 2) & !(level.entry_size() - 1);
        let bits = random.next() & (0xe06 | 1 << 63);
        let present = if random.below(8) > 0 { 1 } else { 0 };
        tables.map(address, physical, level, EntryFlags::from_bits_truncate(bits | present));
    }
    // A few tables lie outside memory.
    for index in [1, 300] {
        let slot = entry_address(ROOT, index);
        assert!((&mut &*ram).write_entry(slot, Entry::new(GuestPhys(1 << 32), OPEN)));
    }
    enter_long_mode(&vcpu);
    let rounds = rounds();
    let (mut mapped, mut checked_below) = (0, 0);
    for round in 0..rounds {
        let address = some_address(&mut random);
        let kvm = vcpu.translate_gva(address).expect("KVM_TRANSLATE");
        let kvm = (kvm.valid != 0).then_some(GuestPhys(kvm.physical_address));
        let found = walk(&*ram, ROOT, GuestVirt(address)).physical();
        assert_eq!(found, kvm, "{address:#x}");
        mapped += u64::from(found.is_some());
        // The whole way down is slower: for some of them.
        if round % 50 == 0 {
            let whole = translate(&ram, ROOT, GuestVirt(address));
            assert_eq!(whole.physical.map(|physical| GuestPhys(physical.0)), kvm);
            checked_below += u64::from(whole.host_address.is_some());
        }
    }
    assert!(mapped > rounds / 10 && mapped < rounds, "{mapped} of {rounds} are mapped");
    assert!(checked_below > 0);
    // And every entry of a dump.
    let request = DumpRequest { shape: Shape::Entries, ..DumpRequest::default() };
    for row in dump(&*ram, ROOT, &request).rows {
        let kvm = vcpu.translate_gva(row.first.0).expect("KVM_TRANSLATE");
        assert_eq!((kvm.valid != 0, kvm.physical_address), (true, row.physical.0), "{row:?}");
    }
}

#[test]
fn walks_are_counted_reference_by_reference() {
    let (ram, _vm, _vcpu) = machine(64);
    let mut tables = Tables { ram: &ram, next: 0x2000 };
    tables.map(0x40_0000, 0x10_0000, Level::One, OPEN);
    tables.map(0x60_0000, 0x20_0000, Level::Two, OPEN);
    let small = translate(&ram, ROOT, GuestVirt(0x40_0123));
    assert_eq!((small.references.one_dimensional, small.references.two_dimensional), (4, 24));
    assert_eq!(small.physical.expect("mapped").0, 0x10_0123);
    let slot = small.slot.expect("memory");
    let host = small.host_address.expect("memory").0;
    assert_eq!(host - slot.host.0, 0x10_0123);
    let page = small.host.expect("a page");
    assert!(!page.present, "nobody touched it: {page:?}");
    ram.write(GuestPhys(0x10_0000), &[1]).expect("memory");
    assert!(translate(&ram, ROOT, GuestVirt(0x40_0123)).host.expect("a page").present);
    let large = translate(&ram, ROOT, GuestVirt(0x61_2345));
    assert_eq!((large.references.one_dimensional, large.references.two_dimensional), (3, 19));
    let missing = translate(&ram, ROOT, GuestVirt(0x80_0000));
    assert_eq!((missing.references.one_dimensional, missing.references.two_dimensional), (3, 15));
    let text = small.to_string();
    assert!(text.contains("4 through one set of tables, 24 through two"), "{text}");
    assert!(
        text.contains("the guest's entry of level 4: 4 at the second level + the entry itself"),
        "{text}"
    );
}

/// Pages that the guest touches, and where they begin.
const TOUCHED: u64 = 300;
const FIRST: u64 = 0x80_0000;

/// A guest that writes a byte to each of [`TOUCHED`] pages, then leaves.
fn toucher(ram: &GuestRam, vcpu: &VcpuFd) {
    // mov [rdi], cl; add rdi, 4096; dec rcx; jnz -14; out 0x80, al
    const CODE: [u8; 16] = [
        0x88, 0x0f, 0x48, 0x81, 0xc7, 0x00, 0x10, 0x00, 0x00, 0x48, 0xff, 0xc9, 0x75, 0xf2, 0xe6,
        0x80,
    ];
    let mut tables = Tables { ram, next: 0x2000 };
    for block in 0..8 {
        let at = block * 0x20_0000;
        tables.map(at, at, Level::Two, OPEN);
    }
    ram.write(GuestPhys(0x1_0000), &CODE).expect("memory");
    enter_long_mode(vcpu);
}

fn run(vcpu: &mut VcpuFd) {
    let mut registers = vcpu.get_regs().expect("registers");
    (registers.rip, registers.rflags) = (0x1_0000, 2);
    (registers.rdi, registers.rcx) = (FIRST, TOUCHED);
    vcpu.set_regs(&registers).expect("registers");
    loop {
        match vcpu.run().expect("the guest runs") {
            VcpuExit::IoOut(0x80, _) => return,
            VcpuExit::Intr => {}
            other => panic!("the guest left: {other:?}"),
        }
    }
}

/// Watches, or says why this host does not let it.
fn watch(ram: &Arc<GuestRam>) -> Option<FaultWatch> {
    match FaultWatch::start(ram) {
        Ok(watch) => Some(watch),
        Err(error @ (WatchError::NotAllowed(_) | WatchError::Unsupported(_))) => {
            let is_root = PathBuf::from("/dev/userfaultfd").exists();
            eprintln!("host faults cannot be watched here ({is_root}): {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn each_first_touch_is_one_fault_of_the_host() {
    let (ram, _vm, mut vcpu) = machine(64);
    toucher(&ram, &vcpu);
    let before = backing(&ram, false).expect("the backing");
    let Some(watch) = watch(&ram) else { return };
    run(&mut vcpu);
    let log = watch.log();
    assert_eq!((log.missing, log.minor), (TOUCHED, 0), "{log}");
    let pages: Vec<u64> = log.faults.iter().map(|fault| fault.physical.0).collect();
    let expected: Vec<u64> = (0..TOUCHED).map(|page| FIRST + page * PAGE_SIZE).collect();
    assert_eq!(pages, expected, "in order");
    assert!(log.faults.iter().all(|fault| fault.kind == HostFaultKind::Missing));
    let after = backing(&ram, false).expect("the backing");
    assert_eq!(after.backed - before.backed, TOUCHED);

    // The pages are there now: again without faults.
    run(&mut vcpu);
    assert_eq!(watch.counts(), (TOUCHED, 0));

    // Taken out of the tables, each faults once more and keeps what it holds.
    let reclaimed = reclaim(&ram, GuestPhys(FIRST), TOUCHED * PAGE_SIZE).expect("reclaim");
    assert_eq!(reclaimed.mapped_before - reclaimed.mapped_after, TOUCHED);
    assert_eq!(reclaimed.backed, after.backed);
    let mut byte = [0];
    ram.peek(GuestPhys(FIRST), &mut byte).expect("memory");
    assert_eq!(u64::from(byte[0]), TOUCHED & 0xff);
    run(&mut vcpu);
    let log = watch.log();
    let minor = if log.minor_watched { TOUCHED } else { 0 };
    assert_eq!((log.missing, log.minor), (TOUCHED, minor));

    // Without the watch the guest goes on as before.
    drop(watch);
    reclaim(&ram, GuestPhys(FIRST), TOUCHED * PAGE_SIZE).expect("reclaim");
    run(&mut vcpu);
}

#[test]
fn the_backing_is_a_map_of_what_was_touched() {
    let (ram, _vm, mut vcpu) = machine(64);
    toucher(&ram, &vcpu);
    run(&mut vcpu);
    ram.write(GuestPhys(0x300_0000), &[0; 4096]).expect("memory");
    let map = backing(&ram, true).expect("the backing");
    assert_eq!(map.pages, 64 << 8);
    assert_eq!(map.untouched + map.backed, map.pages);
    let covered: u64 = map.extents.iter().map(|extent| extent.last.0 - extent.first.0 + 1).sum();
    assert_eq!(covered, 64 << 20);
    let at = |address: u64| {
        let mut extents = map.extents.iter();
        let found = extents.find(|extent| extent.first.0 <= address && address <= extent.last.0);
        *found.expect("all memory is in the map")
    };
    assert_ne!(at(FIRST).state, PageState::Untouched);
    assert_eq!(at(FIRST).zero, Some(false));
    assert_eq!(at(FIRST + TOUCHED * PAGE_SIZE).state, PageState::Untouched);
    assert_eq!(at(0x300_0000).zero, Some(true));
    assert_eq!(at(0x300_1000).state, PageState::Untouched);
    // Looking at memory does not make it.
    let again = backing(&ram, true).expect("the backing");
    assert_eq!(again.backed, map.backed);
}

#[test]
fn large_pages_come_where_the_host_allows_them_and_change_nothing_else() {
    let (ram, _vm, mut vcpu) = machine(64);
    toucher(&ram, &vcpu);
    run(&mut vcpu);
    let on = use_huge_pages(&ram, true).expect("advice");
    // Whether it happens is the host's affair; if it does not, it says why.
    assert!(on.huge_after > 0 || on.reason.is_some() || on.unknown, "{on}");
    run(&mut vcpu);
    let off = use_huge_pages(&ram, false).expect("advice");
    assert_eq!(off.huge_after, 0, "{off}");
    run(&mut vcpu);
    let mut byte = [0];
    ram.peek(GuestPhys(FIRST + PAGE_SIZE), &mut byte).expect("memory");
    assert_eq!(u64::from(byte[0]), (TOUCHED - 1) & 0xff);
}
