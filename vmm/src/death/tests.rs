//! Deaths in hand-made guests: what the reports name.

use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;
use std::{fs, io};

use pagelab_abi::lab::PanicState;

use super::*;
use crate::inspect::testing::TestGuest;
use crate::stop::InternalError;

const CODE: u64 = 0xffff_ffff_8020_0000;
const STACK: u64 = 0xffff_e000_0000_0000;
const IDT: u64 = 0xffff_ffff_8020_1000;
const TSS: u64 = 0xffff_ffff_8020_2000;
const GDT: u64 = 0xffff_ffff_8020_3000;

const SOURCE: &str = "\
void fail(void) { for (;;) __asm__ volatile(\"popcnt (%%rbx), %%rax\" ::: \"rax\"); }
void middle(void) { fail(); __asm__(\"nop\"); }
void _start(void) { middle(); __asm__(\"nop\"); }
";

/// A kernel of three functions, linked to where the guests here have code.
fn kernel() -> &'static [u8] {
    static KERNEL: OnceLock<Vec<u8>> = OnceLock::new();
    KERNEL.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("kernel.c");
        let program = folder.path().join("kernel");
        fs::write(&source, SOURCE).unwrap();
        let status = Command::new("cc")
            .args(["-O0", "-g", "-mpopcnt", "-mcmodel=kernel", "-nostdlib", "-static", "-no-pie"])
            .args(["-fno-pie", "-fno-omit-frame-pointer", "-Wl,--build-id=none"])
            .arg(format!("-Wl,-Ttext={CODE:#x}"))
            .arg("-o")
            .args([&program, &source])
            .status()
            .unwrap();
        assert!(status.success());
        fs::read(program).unwrap()
    })
}

fn text_section() -> Vec<u8> {
    let file = elf::ElfBytes::<elf::endian::LittleEndian>::minimal_parse(kernel()).unwrap();
    let header = file.section_header_by_name(".text").unwrap().unwrap();
    assert_eq!(header.sh_addr, CODE);
    file.section_data(&header).unwrap().0.to_vec()
}

/// Where `popcnt` lies.
fn popcnt() -> u64 {
    let code = text_section();
    let at = code.windows(4).position(|bytes| bytes == [0xf3, 0x48, 0x0f, 0xb8]).unwrap();
    CODE + at as u64
}

/// A guest that is set up as a kernel should be, inside `fail`.
fn healthy() -> (TestGuest, Registers) {
    let mut guest = TestGuest::new();
    guest.map(CODE, 0x1000, TestGuest::KERNEL_CODE);
    guest.map(IDT, 0x2000, TestGuest::KERNEL_DATA);
    guest.map(TSS, 0x3000, TestGuest::KERNEL_DATA);
    guest.map(GDT, 0x4000, TestGuest::KERNEL_DATA);
    guest.map(STACK, 0x5000, TestGuest::KERNEL_DATA);
    guest.write(0x1000, &text_section());
    for vector in 0..32 {
        set_gate(&mut guest, vector, CODE, 0xe, u64::from(vector == 8));
    }
    guest.write_u64(0x3000 + 4, STACK + 0x1000);
    guest.write_u64(0x3000 + 36, STACK + 0x800);
    let mut registers = Registers {
        rip: popcnt(),
        rflags: 2,
        cr0: 0x8001_0033,
        cr3: TestGuest::ROOT,
        cr4: 0x620,
        efer: 0xd01,
        cs: 8,
        idt: (IDT, 0x1ff),
        gdt: (GDT, 0x37),
        tr: (0x30, TSS),
        ..Registers::default()
    };
    registers.general[1] = 0x40_0000;
    registers.general[6] = STACK + 0xf00;
    registers.general[7] = STACK + 0xe00;
    // `fail` was called by `middle`, which was called by `_start`.
    let code = text_section();
    let calls: Vec<u64> = code
        .windows(6)
        .zip(CODE..)
        .filter(|(bytes, _)| bytes[0] == 0xe8 && bytes[5] == 0x90)
        .map(|(_, at)| at + 5)
        .collect();
    guest.write_u64(0x5f00, STACK + 0xf40);
    guest.write_u64(0x5f08, calls[0]);
    guest.write_u64(0x5f40, 0);
    guest.write_u64(0x5f48, calls[1]);
    (guest, registers)
}

fn set_gate(guest: &mut TestGuest, vector: u64, handler: u64, kind: u64, stack: u64) {
    let low = handler & 0xffff | 8 << 16 | stack << 32 | (0x80 | kind) << 40;
    let at = 0x2000 + vector * 16;
    guest.write_u64(at, low | (handler >> 16 & 0xffff) << 48);
    guest.write_u64(at + 8, handler >> 32);
}

fn triple_fault(guest: &TestGuest, registers: Registers) -> Report {
    let reason = StopReason::TripleFault(Box::new(registers));
    explain(&reason, guest, kernel()).unwrap()
}

fn likely(report: &Report) -> String {
    report.section("Likely").unwrap()
}

#[test]
fn a_report_has_code_and_callers_by_name_and_line() {
    let (guest, registers) = healthy();
    let report = triple_fault(&guest, registers);
    let code = report.section("Code").unwrap();
    assert!(code.starts_with("fail+0x"), "{code}");
    assert!(code.contains("kernel.c:1)"), "{code}");
    assert!(code.contains("> ") && code.contains("popcnt rax,[rbx]"), "{code}");
    assert!(code.contains("mov rbp,rsp"), "{code}");
    let callers = report.section("Called from").unwrap();
    let callers: Vec<_> = callers.lines().collect();
    assert_eq!(callers.len(), 2, "{callers:?}");
    assert!(callers[0].contains("middle+0x") && callers[0].contains("kernel.c:2)"), "{callers:?}");
    assert!(callers[1].contains("_start+0x") && callers[1].contains("kernel.c:3)"), "{callers:?}");
    assert!(likely(&report).contains("handlers themselves"), "{report}");
}

#[test]
fn a_triple_fault_names_what_is_broken() {
    let (guest, registers) = healthy();
    let of = |registers| likely(&triple_fault(&guest, registers));
    assert!(of(Registers { cr3: 0xf_f000_0000, ..registers }).contains("root table that is not"));
    assert!(of(Registers { rip: 0xdead, ..registers }).contains("cannot be fetched: 0xdead"));
    assert!(of(Registers { idt: (0, 0), ..registers }).contains("no IDT"));
    assert!(of(Registers { idt: (1 << 47, 0xfff), ..registers }).contains("IDT cannot be read"));
    assert!(of(Registers { idt: (IDT, 0xdf), ..registers }).contains("(14 vectors)"));
    assert!(of(Registers { gdt: (0x1000, 0x37), ..registers }).contains("GDT cannot be read"));
    assert!(of(Registers { tr: (0x30, 0x1000), ..registers }).contains("task state cannot"));
    assert!(of(Registers { tr: (0, 0), cs: 0x2b, ..registers }).contains("TR is null"));
    assert!(of(Registers { cr0: 0x10, ..registers }).contains("after reset"));
    let mut overflow = registers;
    overflow.general[7] = STACK;
    assert!(of(overflow).contains("RSP 0xffffe00000000000: 0xffffdffffffffff8 is not mapped"));
    overflow.general[7] = 0;
    assert!(of(overflow).contains("none was set up"));
    let report = triple_fault(&guest, Registers { cr2: 0x1234, ..registers });
    let last = report.section("Address of the last page fault (CR2)").unwrap();
    assert!(last.contains("0x1234 through the root table"), "{last}");
}

#[test]
fn a_triple_fault_names_broken_gates_and_stacks() {
    let (mut guest, registers) = healthy();
    set_gate(&mut guest, 14, STACK, 0xe, 0);
    set_gate(&mut guest, 13, CODE, 0x5, 0);
    guest.write_u64(0x3000 + 36, 0x1000);
    let text = likely(&triple_fault(&guest, registers));
    assert!(text.contains("#PF, page fault: its handler 0xffffe00000000000 is guest"), "{text}");
    assert!(text.contains("#GP, general protection: its gate is neither"), "{text}");
    assert!(text.contains("#DF, double fault: its own stack (IST1) cannot be used"), "{text}");
    guest.write_u64(0x2000 + 14 * 16, 0);
    guest.write_u64(0x3000 + 4, 0x10);
    let text = likely(&triple_fault(&guest, Registers { cs: 0x2b, ..registers }));
    assert!(text.contains("#PF, page fault: its gate is not present"), "{text}");
    assert!(text.contains("Ring 0's stack (RSP0) cannot be used"), "{text}");
}

#[test]
fn an_internal_error_names_instruction_and_memory() {
    let (mut guest, registers) = healthy();
    guest.map(0x40_0000, 0xf000_0000, TestGuest::USER_DATA);
    let error = InternalError {
        suberror: 1,
        data: vec![5],
        instruction: vec![0xf3, 0x48, 0x0f, 0xb8, 0x03],
    };
    for error in [error.clone(), InternalError { instruction: Vec::new(), ..error }] {
        let reason = StopReason::InternalError(Box::new(error), Box::new(registers));
        let report = explain(&reason, &guest, kernel()).unwrap();
        assert!(report.headline.contains("cannot emulate (suberror 1)"), "{}", report.headline);
        let text = likely(&report);
        assert!(text.contains("in ring 0: popcnt rax,[rbx]"), "{text}");
        assert!(text.contains("f3 48 0f b8 03"), "{text}");
        let memory = report.section("Memory that it names").unwrap();
        assert!(memory.contains("level 1"), "{memory}");
        assert!(memory.contains("0xf0000000, which is not memory"), "{memory}");
        assert!(report.section("Address of the instruction").unwrap().contains("execute"));
    }
}

#[test]
fn an_instruction_that_cannot_be_read_is_a_wild_jump() {
    let (guest, registers) = healthy();
    let error = InternalError { suberror: 1, ..InternalError::default() };
    let registers = Registers { rip: 0x1234_5678, ..registers };
    let reason = StopReason::InternalError(Box::new(error), Box::new(registers));
    let report = explain(&reason, &guest, kernel()).unwrap();
    assert!(likely(&report).contains("jumped to by mistake"), "{report}");
    assert!(report.section("Address of the instruction").unwrap().contains("not mapped"));
}

#[test]
fn a_failed_delivery_names_the_event() {
    let (guest, registers) = healthy();
    let error = InternalError { suberror: 3, data: vec![0x8000_0b0e], instruction: Vec::new() };
    let reason = StopReason::InternalError(Box::new(error), Box::new(registers));
    let report = explain(&reason, &guest, kernel()).unwrap();
    assert!(likely(&report).contains("hardware exception, vector 14 (#PF, page fault)"));
    assert!(report.section("What KVM gave besides").unwrap().contains("0x80000b0e"));
}

#[test]
fn a_refused_entry_names_contradictions() {
    let (guest, registers) = healthy();
    let explain_with = |reason, registers| {
        let registers = Box::new(registers);
        let reason = StopReason::FailEntry { reason, cpu: 1, registers };
        explain(&reason, &guest, kernel()).unwrap()
    };
    let report = explain_with(0x8000_0021, Registers { rflags: 0, cr4: 0, ..registers });
    assert!(report.headline.contains("its state is invalid (Intel)"), "{report}");
    assert!(likely(&report).contains("Bit 1 of the flags"));
    assert!(likely(&report).contains("without PAE"));
    let report = explain_with(u64::MAX, registers);
    assert!(report.headline.contains("(AMD)"));
    assert!(likely(&report).contains("Nothing in the registers"));
}

#[test]
fn a_panic_shows_message_cause_and_callers() {
    let (guest, registers) = healthy();
    let mut state = PanicState {
        general: registers.general,
        rip: popcnt(),
        cr2: 0x40_0000,
        cr3: TestGuest::ROOT,
        vector: 14,
        error_code: 2,
        pid: 7,
        depth: u64::MAX,
        ..PanicState::default()
    };
    state.backtrace[0] = popcnt() + 4;
    let message = "it broke\x1b[2J\nin two lines".to_owned();
    let panic = PanicReport { message, state: Some(state) };
    let reason = StopReason::Panicked(Box::new(panic), Box::new(registers));
    let report = explain(&reason, &guest, kernel()).unwrap();
    assert_eq!(report.headline, "the guest's kernel panicked: it broke\\u{1b}[2J");
    assert_eq!(report.section("Message, continued").unwrap(), "in two lines");
    let cause = report.section("Cause").unwrap();
    assert!(cause.contains("#PF") && cause.contains("write by ring 0 of a page"), "{cause}");
    assert!(cause.contains("process 7"), "{cause}");
    let callers = report.section("Called from").unwrap();
    assert!(callers.lines().next().unwrap().contains("fail+0x"), "{callers}");
    assert_eq!(callers.lines().count(), 1, "{callers}");
    assert!(report.section("Faulting address").unwrap().contains("is not mapped"));
}

#[test]
fn a_panic_without_state_still_shows_where_it_was() {
    let (guest, registers) = healthy();
    let panic = PanicReport { message: "gone".to_owned(), state: None };
    let reason = StopReason::Panicked(Box::new(panic), Box::new(registers));
    let report = explain(&reason, &guest, kernel()).unwrap();
    assert_eq!(report.section("Called from").unwrap().lines().count(), 2);
}

#[test]
fn stopped_from_outside_is_explained_only_with_registers() {
    let (guest, registers) = healthy();
    let stopped = |registers| StopReason::Timeout(Duration::from_secs(1), registers);
    assert!(explain(&stopped(None), &guest, kernel()).is_none());
    assert!(explain(&StopReason::PoweredOff(0), &guest, kernel()).is_none());
    let report = explain(&stopped(Some(Box::new(registers))), &guest, kernel()).unwrap();
    assert!(report.headline.contains("when it was stopped"));
    let failed = StopReason::RunFailed(io::Error::other("x"), Box::new(registers));
    assert!(explain(&failed, &guest, kernel()).unwrap().headline.contains("could not run"));
}

#[test]
fn garbage_everywhere_gives_a_report_all_the_same() {
    let mut guest = TestGuest::new();
    let garbage: Vec<u8> =
        (0..0x1_0000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    guest.write(0, &garbage);
    let wild = Registers {
        general: [u64::MAX; 16],
        rip: u64::MAX,
        cr0: u64::MAX,
        cr2: u64::MAX,
        cr3: TestGuest::ROOT,
        idt: (u64::MAX - 3, u16::MAX),
        gdt: (u64::MAX, 0),
        tr: (0x30, u64::MAX - 7),
        cs: 3,
        ..Registers::default()
    };
    let report = triple_fault(&guest, wild);
    assert!(!report.to_string().is_empty());
    let error =
        InternalError { suberror: 1, data: vec![u64::MAX; 16], instruction: vec![0x67; 15] };
    let reason = StopReason::InternalError(Box::new(error), Box::new(wild));
    assert!(explain(&reason, &guest, &garbage).is_some());
}
