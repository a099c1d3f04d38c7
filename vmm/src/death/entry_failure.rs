//! The processor refused to enter the guest (`KVM_EXIT_FAIL_ENTRY`), because
//! its state contradicts itself. What can be seen to be wrong is named.

use pagelab_abi::addr::GuestVirt;

use super::Report;
use super::scene::Scene;
use crate::inspect::PhysicalMemory;
use crate::stop::Registers;

const CR0_PROTECTION: u64 = 1 << 0;
const CR0_PAGING: u64 = 1 << 31;
const CR4_PHYSICAL_EXTENSION: u64 = 1 << 5;
const EFER_LONG_MODE: u64 = 1 << 8;
const EFER_LONG_MODE_ACTIVE: u64 = 1 << 10;
const FLAG_ALWAYS_SET: u64 = 1 << 1;
/// In Intel's reason: the entry failed after the checks of the controls.
const INTEL_ENTRY_FAILURE: u64 = 1 << 31;

pub(super) fn explain<M: PhysicalMemory>(scene: &Scene<'_, M>, reason: u64, cpu: u32) -> Report {
    let words = describe_reason(reason);
    let mut report = Report::new(format!(
        "the processor refused to enter the guest: {words} (reason {reason:#x}, on the host's \
         CPU {cpu})"
    ));
    let mut findings = contradictions(scene.registers);
    if findings.is_empty() {
        findings.push("Nothing in the registers below is plainly wrong.".to_owned());
    }
    report.add("Likely", findings);
    scene.describe_place(&mut report);
    report
}

/// Intel's exit reasons (Software Developer's Manual, appendix C) and VM
/// instruction errors (chapter on VM-instruction error numbers), AMD's
/// VMEXIT_INVALID.
fn describe_reason(reason: u64) -> &'static str {
    if reason == u64::MAX || reason == u64::from(u32::MAX) {
        return "its state or the control block is invalid (AMD)";
    }
    if reason & INTEL_ENTRY_FAILURE != 0 {
        return match reason & 0xffff {
            33 => "its state is invalid (Intel)",
            34 => "an MSR cannot be loaded (Intel)",
            41 => "a machine check came during the entry (Intel)",
            _ => "for a reason unknown to this version of pagelab (Intel)",
        };
    }
    match reason {
        4 => "it was entered twice (Intel)",
        5 => "it was resumed before it was launched (Intel)",
        7 => "a control field is invalid (Intel)",
        8 => "the host's own state is invalid (Intel)",
        _ => "for a reason unknown to this version of pagelab",
    }
}

fn contradictions(registers: &Registers) -> Vec<String> {
    let Registers { cr0, cr4, efer, rflags, rip, .. } = *registers;
    let has = |register: u64, bits: u64| register & bits == bits;
    let checks = [
        (has(cr0, CR0_PAGING) && !has(cr0, CR0_PROTECTION), "CR0 has paging without protection."),
        (
            has(efer, EFER_LONG_MODE_ACTIVE) && !has(efer, EFER_LONG_MODE),
            "EFER says that 64-bit mode is active but not enabled.",
        ),
        (
            has(efer, EFER_LONG_MODE_ACTIVE) && !has(cr0, CR0_PAGING),
            "64-bit mode is active without paging.",
        ),
        (
            has(cr0, CR0_PAGING) && has(efer, EFER_LONG_MODE) && !has(efer, EFER_LONG_MODE_ACTIVE),
            "Paging and 64-bit mode are enabled, but EFER does not say that it is active.",
        ),
        (
            has(efer, EFER_LONG_MODE_ACTIVE) && !has(cr4, CR4_PHYSICAL_EXTENSION),
            "64-bit mode is active without PAE in CR4.",
        ),
        (!has(rflags, FLAG_ALWAYS_SET), "Bit 1 of the flags, which is always set, is not."),
        (!GuestVirt(rip).is_canonical(), "RIP is not canonical."),
    ];
    checks.iter().filter(|check| check.0).map(|check| check.1.to_owned()).collect()
}
