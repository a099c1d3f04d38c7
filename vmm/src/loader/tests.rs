//! Loading: kernels that are refused, and what memory holds afterwards.

#[allow(unreachable_pub, reason = "shared with the tests that run the binary")]
#[path = "../../../tests/common/elf.rs"]
mod builder;

use std::fs;
use std::path::Path;

use builder::{BASE, CODE, DATA, Elf, IMAGE, Segment};
use pagelab_abi::boot::MEMORY_RESERVED;
use pagelab_abi::layout::{HOLE_END, IMAGE_BASE, IMAGE_PHYS, PHYSMAP_BASE};
use pagelab_paging::walk::{Outcome, walk};
use pagelab_paging::{EntryFlags, TableMemory};
use proptest::prelude::*;
use zerocopy::FromBytes;

use super::elf::KernelError;
use super::program::{self, ProgramError};
use super::*;
use crate::memory::MemorySize;

const MIB: u64 = 1 << 20;

fn ram(size: u64) -> GuestRam {
    GuestRam::new(MemorySize::new(size).unwrap()).unwrap()
}

fn refused(elf: &Elf) -> KernelError {
    refused_file(&elf.build())
}

fn refused_file(file: &[u8]) -> KernelError {
    let ram = ram(32 * MIB);
    let error = elf::load(&ram, file).unwrap_err();
    let mut start = [0xee; 16];
    ram.read(IMAGE_PHYS, &mut start).unwrap();
    assert_eq!(start, [0; 16], "a kernel that is refused leaves nothing behind");
    error
}

fn two_segments() -> Elf {
    Elf::of_segments(vec![
        Segment::new(IMAGE, CODE, &[0x90; 0x1800]),
        Segment::new(IMAGE + 0x2000, DATA, &[7; 0x800]),
    ])
}

fn boot_info(ram: &GuestRam) -> BootInfo {
    let mut bytes = [0; size_of::<BootInfo>()];
    ram.read(BOOT_INFO, &mut bytes).unwrap();
    BootInfo::read_from_bytes(&bytes).unwrap()
}

#[test]
fn files_that_are_no_kernels_are_told_apart() {
    assert!(matches!(refused_file(b""), KernelError::Empty));
    assert!(matches!(refused_file(b"#!/bin/sh\n"), KernelError::NotElf(_)));
    assert!(refused_file(b"#!/bin/sh\n").to_string().contains("‘#!/bin/s’"));
    assert!(matches!(refused_file(b"\x7fELF"), KernelError::Truncated));
    let good = two_segments();
    let wrong = |change: fn(&mut Elf)| {
        let mut elf = good.clone();
        change(&mut elf);
        refused(&elf)
    };
    assert!(matches!(wrong(|elf| elf.class = 1), KernelError::NotSixtyFourBits));
    assert!(matches!(wrong(|elf| elf.class = 9), KernelError::Headers(_)));
    assert!(matches!(wrong(|elf| elf.endian = 7), KernelError::Headers(_)));
    let machine = wrong(|elf| elf.machine = 183);
    assert!(matches!(machine, KernelError::WrongMachine(183)));
    assert!(machine.to_string().contains("AArch64"));
    assert!(matches!(wrong(|elf| elf.kind = 1), KernelError::NotExecutable(1)));
    assert!(matches!(wrong(|elf| elf.kind = 3), KernelError::NotExecutable(3)));
    assert!(matches!(wrong(|elf| elf.segments.clear()), KernelError::NoSegments));
    let many = |elf: &mut Elf| {
        for page in 4..100 {
            elf.segments.push(Segment::new(IMAGE + page * 0x1000, DATA, &[1]));
        }
    };
    assert!(matches!(wrong(many), KernelError::TooManySegments(98)));
}

#[test]
fn a_big_endian_file_is_refused() {
    // All its numbers are turned round too.
    let mut file = vec![0; 128];
    file[..7].copy_from_slice(b"\x7fELF\x02\x02\x01");
    file[16..24].copy_from_slice(&[0, 2, 0, 62, 0, 0, 0, 1]);
    file[52..58].copy_from_slice(&[0, 64, 0, 56, 0, 0]);
    assert!(matches!(refused_file(&file), KernelError::NotLittleEndian));
}

#[test]
fn segments_that_cannot_be_are_refused() {
    let wrong = |change: fn(&mut Segment)| {
        let mut elf = two_segments();
        change(&mut elf.segments[1]);
        refused(&elf)
    };
    let error = wrong(|s| s.file_size = 0x900);
    assert!(matches!(error, KernelError::FileLargerThanMemory { index: 1, .. }));
    let error = wrong(|s| (s.file_size, s.memory_size) = (1 << 40, 1 << 40));
    assert!(matches!(error, KernelError::SegmentTruncated(1)));
    let error = wrong(|s| (s.virt, s.phys) = (s.virt + 8, s.phys + 8));
    assert!(matches!(error, KernelError::Unaligned { index: 1, .. }));
    let error = wrong(|s| (s.virt, s.phys) = (BASE + 0x10_0000, 0x10_0000));
    assert!(matches!(error, KernelError::BelowImage { index: 1, .. }));
    let error = wrong(|s| s.virt = 0x40_0000);
    assert!(matches!(error, KernelError::BelowImage { index: 1, .. }));
    let error = wrong(|s| s.phys = 0x30_0000);
    assert!(matches!(error, KernelError::PhysicalMismatch { index: 1, .. }));
    let error = wrong(|s| (s.virt, s.phys) = (BASE + 32 * MIB, 32 * MIB));
    assert!(matches!(error, KernelError::OutsideMemory { index: 1, .. }), "{error}");
    assert!(error.to_string().contains("RAM ends at 0x2000000"), "{error}");
    let error = wrong(|s| s.memory_size = 1 << 35);
    assert!(matches!(error, KernelError::AddressOverflow(1)), "{error}");
    let error = wrong(|s| s.memory_size = u64::MAX);
    assert!(matches!(error, KernelError::AddressOverflow(1)), "{error}");
    let error = wrong(|s| s.flags = 7);
    assert!(matches!(error, KernelError::WritableAndExecutable(1)));
    let error = wrong(|s| (s.virt, s.phys) = (IMAGE + 0x1000, 0x20_1000));
    assert!(matches!(error, KernelError::Overlap(0, 1)), "they share a page: {error}");
    let error = wrong(|s| (s.virt, s.phys) = (IMAGE, 0x20_0000));
    assert!(matches!(error, KernelError::Overlap(..)), "{error}");
}

#[test]
fn the_last_page_of_ram_may_hold_a_segment() {
    let mut elf = two_segments();
    elf.segments[1] = Segment::new(BASE + 32 * MIB - 0x1000, DATA, &[7; 0x1000]);
    assert_eq!(elf::load(&ram(32 * MIB), &elf.build()).unwrap().end, GuestPhys(32 * MIB));
}

#[test]
fn the_entry_must_be_code() {
    for entry in [0, 5, IMAGE - 1, IMAGE + 0x1800, IMAGE + 0x2000, u64::MAX] {
        let mut elf = two_segments();
        elf.entry = entry;
        assert!(matches!(refused(&elf), KernelError::EntryOutsideCode(_)), "{entry:#x}");
    }
    let mut elf = two_segments();
    elf.entry = IMAGE + 0x17ff;
    assert!(elf::load(&ram(32 * MIB), &elf.build()).is_ok());
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let file = two_segments().build();
    for length in (0..file.len()).step_by(97).chain(file.len() - 16..file.len()) {
        refused_file(&file[..length]);
    }
}

#[test]
fn memory_and_tables_are_as_the_segments_say() {
    let ram = ram(64 * MIB);
    let mut elf = two_segments();
    elf.segments[1].memory_size = 0x3000;
    let values = BootValues { global_pages: true, tsc_khz: 5, ..BootValues::default() };
    let point = load(&ram, &elf.build(), &[], &values).unwrap();
    assert_eq!(point.entry.0, IMAGE);
    assert_eq!(point.boot_info, BOOT_INFO);
    let right = |virt: u64| match walk(&ram, point.root, GuestVirt(virt)).outcome {
        Outcome::Mapped { physical, rights, .. } => Some((
            physical.0,
            rights.contains(EntryFlags::WRITABLE),
            !rights.contains(EntryFlags::NO_EXECUTE),
        )),
        _ => None,
    };
    assert_eq!(right(IMAGE + 0x1004), Some((0x20_1004, false, true)));
    assert_eq!(right(IMAGE + 0x2000), Some((0x20_2000, true, false)));
    assert_eq!(right(IMAGE + 0x4fff), Some((0x20_4fff, true, false)), "zeroed part");
    assert_eq!(right(IMAGE_BASE), None);
    assert_eq!(right(PHYSMAP_BASE + 0x20_1004), Some((0x20_1004, false, false)), "W^X holds");
    assert_eq!(right(PHYSMAP_BASE + 0x7f00), Some((0x7f00, true, false)));
    assert_eq!(right(PHYSMAP_BASE + 64 * MIB - 1), Some((64 * MIB - 1, true, false)));
    assert_eq!(right(PHYSMAP_BASE + 64 * MIB), None);
    let mut bytes = [0; 2];
    ram.read(GuestPhys(0x20_27ff), &mut bytes).unwrap();
    assert_eq!(bytes, [7, 0]);
    assert!(ram.read_entry(point.root).is_some());

    let info = boot_info(&ram);
    assert!(info.is_valid());
    assert_eq!((info.tsc_khz, info.image_start), (5, 0x20_0000));
    assert_eq!(info.root_table, point.root.0);
    assert!(info.image_end > point.root.0 && info.image_end.is_multiple_of(4096));
    assert!(info.modules().is_empty());
    assert_eq!(info.memory().last().map(|range| range.kind), Some(MEMORY_USABLE));
}

#[test]
fn modules_lie_at_the_top_and_are_reserved() {
    let ram = ram(16 * MIB);
    let modules = [
        ModuleBytes { kind: ModuleKind::Program, bytes: Cow::Borrowed(&[1; 5000]) },
        ModuleBytes { kind: ModuleKind::Arguments, bytes: Cow::Borrowed(b"first\0") },
        ModuleBytes { kind: ModuleKind::Environment, bytes: Cow::Borrowed(b"") },
    ];
    let values = BootValues { command_line: "quiet", ..BootValues::default() };
    load(&ram, &two_segments().build(), &modules, &values).unwrap();
    let info = boot_info(&ram);
    assert_eq!(info.command_line(), "quiet");
    let placed = info.modules();
    assert_eq!(placed.len(), 3);
    assert_eq!((placed[0].start, placed[0].length), (16 * MIB - 4 * 4096, 5000));
    assert_eq!((placed[1].start, placed[1].length), (16 * MIB - 2 * 4096, 6));
    assert_eq!(placed[2].length, 0);
    let mut bytes = [0xee; 4];
    ram.read(GuestPhys(placed[0].start + 4998), &mut bytes).unwrap();
    assert_eq!(bytes, [1, 1, 0, 0]);
    let last = info.memory().last().unwrap();
    assert_eq!((last.start, last.kind), (16 * MIB - 4 * 4096, MEMORY_RESERVED));
}

#[test]
fn what_does_not_fit_is_said() {
    let big = vec![1; 14 << 20];
    let modules = [ModuleBytes { kind: ModuleKind::Program, bytes: Cow::Borrowed(&big) }];
    let values = BootValues::default();
    let error = load(&ram(16 * MIB), &two_segments().build(), &modules, &values).unwrap_err();
    assert!(matches!(error, LoadError::NoRoomForModules { .. }));
    assert!(error.to_string().contains("16 MiB of memory have no room for 14 MiB"), "{error}");

    let mut elf = two_segments();
    elf.segments[1] = Segment::new(BASE + 16 * MIB - 0x1000, DATA, &[7; 0x1000]);
    let error = load(&ram(16 * MIB), &elf.build(), &[], &values).unwrap_err();
    assert!(matches!(error, LoadError::NoRoomForTables { .. }), "{error}");

    let many = vec![
        ModuleBytes { kind: ModuleKind::Program, bytes: Cow::Borrowed(b"x") };
        MAX_MODULES + 1
    ];
    let error = load(&ram(16 * MIB), &two_segments().build(), &many, &values).unwrap_err();
    assert!(matches!(error, LoadError::TooManyModules(17)));

    let long = "x".repeat(MAX_COMMAND_LINE + 1);
    let values = BootValues { command_line: &long, ..BootValues::default() };
    let error = load(&ram(16 * MIB), &two_segments().build(), &[], &values).unwrap_err();
    assert!(matches!(error, LoadError::CommandLineTooLong(2049)));
}

#[test]
fn ram_above_the_hole_is_usable() {
    let ram = ram(HOLE_END.0);
    load(&ram, &two_segments().build(), &[], &BootValues::default()).unwrap();
    let high = *boot_info(&ram).memory().last().unwrap();
    assert_eq!((high.start, high.length, high.kind), (HOLE_END.0, 1 << 30, MEMORY_USABLE));
}

#[test]
fn programs_are_looked_at_before_the_boot() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let good = Elf::of_code(&[0x90]);
    let of = |change: fn(&mut Elf)| {
        let mut elf = good.clone();
        change(&mut elf);
        elf.build()
    };
    let missing = program::read(Path::new("/nonexistent/program")).unwrap_err();
    assert!(matches!(missing, ProgramError::Missing(_)));
    assert_eq!(missing.exit_status(), 127);
    let error = |name: &str, bytes: &[u8]| {
        let error = program::read(&write(name, bytes)).unwrap_err();
        assert_eq!(error.exit_status(), 126);
        error
    };
    assert!(matches!(error("empty", b""), ProgramError::Empty(_)));
    assert!(matches!(error("text", b"hello, world"), ProgramError::NotElf { .. }));
    assert!(matches!(error("script", b"#!/bin/sh\n"), ProgramError::Script(_)));
    assert!(matches!(error("short", b"\x7fELF\x02"), ProgramError::Broken(_)));
    assert!(matches!(error("cut", &good.build()[..40]), ProgramError::Broken(_)));
    let narrow = of(|elf| (elf.class, elf.machine) = (1, 3));
    assert!(matches!(error("narrow", &narrow), ProgramError::ThirtyTwoBits(_)));
    let x32 = of(|elf| elf.class = 1);
    assert!(matches!(error("x32", &x32), ProgramError::ThirtyTwoBits(_)));
    let arm = of(|elf| elf.machine = 183);
    assert!(matches!(error("arm", &arm), ProgramError::WrongMachine { machine: 183, .. }));
    let object = of(|elf| elf.kind = 1);
    assert!(matches!(error("object", &object), ProgramError::NotProgram { kind: 1, .. }));
    let sparse = folder.path().join("sparse");
    fs::File::create(&sparse).unwrap().set_len(1 << 42).unwrap();
    let sparse = program::read(&sparse).unwrap_err();
    assert!(sparse.to_string().contains("has 4 TiB; nothing of more than 1 GiB"), "{sparse}");
    let directory = program::read(folder.path()).unwrap_err();
    assert!(matches!(directory, ProgramError::Directory(_)));
    assert!(matches!(program::read(Path::new("/dev/null")), Err(ProgramError::NotRegular(_))));
    assert!(program::read(&write("static", &good.build())).is_ok());
    assert!(program::read(&write("pie", &of(|elf| elf.kind = 3))).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever bytes change in a kernel, loading it ends, and ends without a
    /// panic; if it is taken, its image lies where images lie.
    #[test]
    fn damaged_kernels_are_loaded_or_refused(
        damage in prop::collection::vec((0usize..0x100, any::<u8>()), 1..12),
    ) {
        let mut file = two_segments().build();
        for (at, byte) in damage {
            file[at] = byte;
        }
        let ram = ram(16 * MIB);
        if let Ok(kernel) = elf::load(&ram, &file) {
            prop_assert!(kernel.start >= IMAGE_PHYS && kernel.end <= ram.low_end());
            prop_assert!(kernel.segments.iter().all(|s| !(s.writable && s.executable)));
        }
    }
}
