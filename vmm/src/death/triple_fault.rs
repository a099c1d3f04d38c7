//! A triple fault: an exception could not be delivered, the double fault that
//! follows neither, and the processor shut down.
//!
//! The processor does not say which exception began it. So everything that it
//! needs to deliver one is checked, in the order in which it needs it: the root
//! table, the next instruction, the IDT, the handlers' gates, the task state,
//! the stacks. What is broken is named.

use pagelab_abi::addr::GuestVirt;
use pagelab_paging::entry::entry_address;

use super::Report;
use super::scene::{Access, RSP, Scene};
use crate::inspect::{PhysicalMemory, exceptions};

const CR0_PAGING: u64 = 1 << 31;
const GATE_BYTES: u64 = 16;
/// The vectors that matter for a kernel that dies: #DF, #GP, #PF.
const VECTORS: [u8; 3] = [exceptions::PAGE_FAULT, 13, exceptions::DOUBLE_FAULT];
/// Offsets in the task state.
const TSS_RSP0: u64 = 4;
const TSS_IST1: u64 = 36;

pub(super) fn explain<M: PhysicalMemory>(scene: &Scene<'_, M>) -> Report {
    let mut report = Report::new(
        "triple fault: an exception could not be delivered, nor the double fault that follows, \
         and the processor shut down",
    );
    let registers = scene.registers;
    if registers.cr0 & CR0_PAGING == 0 {
        report.add(
            "Likely",
            vec![
                "The registers are those of a processor after reset: this host's KVM resets it at"
                    .to_owned(),
                "a triple fault, and how the guest died is lost with them.".to_owned(),
            ],
        );
        report.add("Registers", scene.registers());
        return report;
    }
    let mut findings = findings(scene);
    if findings.is_empty() {
        findings.push(
            "The tables and stacks that exceptions need are all there: the handlers themselves \
             must have failed."
                .to_owned(),
        );
    }
    report.add("Likely", findings);
    scene.describe_place(&mut report);
    if registers.cr2 == 0 {
        let note = "0x0: there was none, or it went through a null pointer";
        report.add("Address of the last page fault (CR2)", vec![note.to_owned()]);
    } else {
        report.add("Address of the last page fault (CR2)", scene.walk(registers.cr2));
    }
    report
}

/// What is broken, the most telling first.
fn findings<M: PhysicalMemory>(scene: &Scene<'_, M>) -> Vec<String> {
    let registers = scene.registers;
    let root = entry_address(scene.space.root, 0);
    if scene.space.memory.read_entry(root).is_none() {
        return vec![format!(
            "CR3 ({:#x}) names a root table that is not memory: nothing can be translated.",
            registers.cr3
        )];
    }
    let mut found = Vec::new();
    if let Some(obstacle) = scene.obstacle(registers.rip, Access::Execute) {
        found.push(format!(
            "The next instruction cannot be fetched: {:#x} {obstacle}.",
            registers.rip
        ));
    }
    if registers.privilege() == 0
        && let Some(obstacle) = broken_stack(scene, registers.general[RSP])
    {
        let why = if registers.general[RSP] == 0 { "none was set up" } else { "overflow?" };
        found.push(format!("The stack cannot be used ({why}): RSP {obstacle}."));
    }
    let task = task_findings(scene, &mut found);
    idt_findings(scene, task, &mut found);
    if let Some(obstacle) = scene.obstacle(registers.gdt.0, Access::Read) {
        found.push(format!("The GDT cannot be read: {:#x} {obstacle}.", registers.gdt.0));
    }
    found
}

/// What is wrong with a stack whose pointer is `top`: the next push goes below.
fn broken_stack<M: PhysicalMemory>(scene: &Scene<'_, M>, top: u64) -> Option<String> {
    let below = top.wrapping_sub(8);
    scene.obstacle(below, Access::Write).map(|obstacle| format!("{top:#x}: {below:#x} {obstacle}"))
}

/// Checks the task state; its base, if it can be used.
fn task_findings<M: PhysicalMemory>(scene: &Scene<'_, M>, found: &mut Vec<String>) -> Option<u64> {
    let (selector, base) = scene.registers.tr;
    let from_program = scene.registers.privilege() == 3;
    if selector & !3 == 0 {
        if from_program {
            found.push("No task state is loaded (TR is null): ring 0 has no stack.".to_owned());
        }
        return None;
    }
    if let Some(obstacle) = scene.obstacle(base, Access::Read) {
        found.push(format!("The task state cannot be read: {base:#x} {obstacle}."));
        return None;
    }
    if from_program {
        let stack = scene.space.read_u64(GuestVirt(base.wrapping_add(TSS_RSP0)));
        if let Some(obstacle) = stack.and_then(|stack| broken_stack(scene, stack)) {
            found.push(format!("Ring 0's stack (RSP0) cannot be used: {obstacle}."));
        }
    }
    Some(base)
}

fn idt_findings<M: PhysicalMemory>(
    scene: &Scene<'_, M>,
    task: Option<u64>,
    found: &mut Vec<String>,
) {
    let (base, limit) = scene.registers.idt;
    if limit == 0 {
        found.push("There is no IDT (its limit is 0): any exception is the last one.".to_owned());
        return;
    }
    if let Some(obstacle) = scene.obstacle(base, Access::Read) {
        found.push(format!("The IDT cannot be read: {base:#x} {obstacle}."));
        return;
    }
    for vector in VECTORS {
        if let Some(problem) = gate_problem(scene, vector, task) {
            found.push(format!("{}: {problem}.", exceptions::name(vector)));
        }
    }
}

/// What is wrong with the gate of `vector`.
fn gate_problem<M: PhysicalMemory>(
    scene: &Scene<'_, M>,
    vector: u8,
    task: Option<u64>,
) -> Option<String> {
    let (base, limit) = scene.registers.idt;
    let offset = u64::from(vector) * GATE_BYTES;
    if offset + GATE_BYTES - 1 > u64::from(limit) {
        return Some(format!(
            "the IDT ends before its gate ({} vectors)",
            (u64::from(limit) + 1) / GATE_BYTES
        ));
    }
    let at = base.wrapping_add(offset);
    let (Some(low), Some(high)) =
        (scene.space.read_u64(GuestVirt(at)), scene.space.read_u64(GuestVirt(at.wrapping_add(8))))
    else {
        return Some("its gate cannot be read".to_owned());
    };
    let is_present = low >> 47 & 1 == 1;
    let kind = low >> 40 & 0xf;
    if !is_present {
        return Some("its gate is not present".to_owned());
    }
    if !matches!(kind, 0xe | 0xf) {
        return Some(format!("its gate is neither interrupt nor trap gate (type {kind:#x})"));
    }
    let handler = (low & 0xffff) | (low >> 48 << 16) | (high & 0xffff_ffff) << 32;
    if let Some(obstacle) = scene.obstacle(handler, Access::Execute) {
        return Some(format!("its handler {} {obstacle}", scene.place(handler)));
    }
    let stack_number = low >> 32 & 7;
    if stack_number != 0 {
        let slot = task?.wrapping_add(TSS_IST1 + (stack_number - 1) * 8);
        let stack = scene.space.read_u64(GuestVirt(slot))?;
        let obstacle = broken_stack(scene, stack)?;
        return Some(format!("its own stack (IST{stack_number}) cannot be used: {obstacle}"));
    }
    None
}
