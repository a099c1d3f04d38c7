//! KVM gave up on the guest (`KVM_EXIT_INTERNAL_ERROR`): mostly because it had
//! to emulate an instruction and does not know it.

use pagelab_abi::addr::GuestVirt;

use super::Report;
use super::scene::Scene;
use crate::inspect::disassemble::{self, MAX_INSTRUCTION_BYTES};
use crate::inspect::{PhysicalMemory, exceptions};
use crate::stop::{InternalError, SUBERROR_DELIVERY, SUBERROR_EMULATION};

pub(super) fn explain<M: PhysicalMemory>(scene: &Scene<'_, M>, error: &InternalError) -> Report {
    let mut report = Report::new(format!(
        "KVM gave up on the guest: {} (suberror {})",
        error.meaning(),
        error.suberror
    ));
    match error.suberror {
        SUBERROR_EMULATION => explain_emulation(scene, error, &mut report),
        SUBERROR_DELIVERY => report.add("Likely", describe_delivery(error)),
        _ => {}
    }
    scene.describe_place(&mut report);
    report.add("What KVM gave besides", describe_data(error));
    report
}

fn explain_emulation<M: PhysicalMemory>(
    scene: &Scene<'_, M>,
    error: &InternalError,
    report: &mut Report,
) {
    let rip = GuestVirt(scene.registers.rip);
    let from_memory = scene.space.read(rip, MAX_INSTRUCTION_BYTES);
    let bytes = if error.instruction.is_empty() { &from_memory } else { &error.instruction };
    let Some(instruction) = disassemble::decode(bytes, rip, 1).pop() else {
        report.add(
            "Likely",
            vec!["The instruction itself cannot be read: it was jumped to by mistake.".to_owned()],
        );
        report.add("Address of the instruction", scene.walk(rip.0));
        return;
    };
    let ring = scene.registers.privilege();
    let mut lines = vec![format!("The instruction, in ring {ring}: {}", instruction.text)];
    let bytes_text: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    lines.push(format!("Its bytes, and what follows: {}", bytes_text.join(" ")));
    if !error.instruction.is_empty()
        && !from_memory.is_empty()
        && !from_memory.starts_with(&error.instruction)
        && !error.instruction.starts_with(&from_memory)
    {
        lines.push("Guest memory holds something else there by now.".to_owned());
    }
    if ring == 0 {
        lines.push(
            "Hosts without hardware virtualization emulate ring 0, and their emulator does"
                .to_owned(),
        );
        lines.push(
            "not know every instruction; `pagelab host` lists some. Elsewhere only".to_owned(),
        );
        lines.push("instructions that reach devices are emulated.".to_owned());
    }
    report.add("Likely", lines);
    report.add("Address of the instruction", scene.walk(rip.0));
    for operand in disassemble::memory_operands(bytes, rip, scene.registers) {
        report.add("Memory that it names", scene.walk(operand.0));
    }
}

/// The first data word of a failed delivery: vector in bits 0 to 7, kind in
/// bits 8 to 10.
fn describe_delivery(error: &InternalError) -> Vec<String> {
    let Some(&event) = error.data.first() else { return Vec::new() };
    #[allow(clippy::cast_possible_truncation, reason = "the low eight bits are meant")]
    let vector = event as u8;
    let kind = match event >> 8 & 7 {
        0 => "an external interrupt",
        2 => "a non-maskable interrupt",
        3 => "a hardware exception",
        4 => "a software interrupt",
        6 => "a software exception",
        _ => "an event",
    };
    vec![
        format!("It was {kind}, vector {vector} ({}).", exceptions::name(vector)),
        "Its gate, its stack or the page tables that lead there are not memory.".to_owned(),
    ]
}

fn describe_data(error: &InternalError) -> Vec<String> {
    let words: Vec<_> = error.data.iter().map(|word| format!("{word:#x}")).collect();
    if words.is_empty() { Vec::new() } else { vec![format!("data words {}", words.join(", "))] }
}
