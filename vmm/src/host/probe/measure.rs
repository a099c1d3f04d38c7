//! What each probe does with the tiny guest, and what it concludes.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::code;
use crate::vstate::guest_debug::Condition;

use super::machine::{
    BREAKPOINT, BUFFER, GENERAL_PROTECTION, INVALID_OPCODE, Machine, NOT_PRESENT, PAGE_FAULT,
    ProbeError, RING_0_CODE, RING_3_CODE, Ring, SYSCALL_ENTRY, Stop,
};

/// Present, user mode, instruction fetch.
const FETCH_BY_USER: u64 = 0x15;
/// Few rounds first, the least of which is right where ring 0 is emulated;
/// elsewhere more, so that what the first execution of any code costs does not
/// count.
const RING_0_ROUNDS: [u32; 5] = [2_000, 2_000, 2_000, 20_000, 200_000];
const RING_3_ROUNDS: u32 = 1_000_000;
const FAULTS: u32 = 100;
const REPETITIONS: usize = 3;
const EXITS: usize = 256;
const STRING_BYTES: u64 = 64;

/// What `SYSCALL` does in ring 3.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Syscall {
    /// It enters ring 0, as the manual says.
    EntersRingZero,
    /// It jumps to the entry but stays in ring 3: a page fault there.
    StaysInRingThree,
}

/// What `SYSRET` does in ring 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Sysret {
    /// It returns to ring 3, as the manual says.
    Works,
    /// It raises a general-protection exception.
    Refused,
}

/// How ring 0 is executed.
#[derive(Clone, Debug, Serialize)]
pub struct RingZero {
    /// By KVM, instruction by instruction, instead of by the processor.
    pub emulated: bool,
    /// Instructions between the probe's two readings of the clock.
    pub instructions: u64,
    /// How many KVM says it emulated meanwhile (`insn_emulation`), the few
    /// around those included; `None` without KVM's statistics, when the time
    /// alone decides.
    pub emulated_instructions: Option<u64>,
    /// Ticks of the time-stamp counter for one instruction in ring 0.
    pub cycles_per_instruction: f64,
    /// The same in ring 3.
    pub ring_three_cycles_per_instruction: f64,
}

/// Cost of leaving the guest for this program and coming back (`out`).
#[derive(Clone, Debug, Serialize)]
pub struct Exit {
    /// Median in nanoseconds, this program's part included.
    pub nanoseconds: f64,
    /// The fastest.
    pub fastest_nanoseconds: f64,
}

/// Cost of a page fault in ring 3: to ring 0, a handler of
/// `handler_instructions` and back.
#[derive(Clone, Debug, Serialize)]
pub struct Trap {
    /// Ticks of the time-stamp counter, the least of a few tries.
    pub cycles: f64,
    /// In nanoseconds, where KVM knows the counter's frequency.
    pub nanoseconds: Option<f64>,
    /// Instructions of the handler.
    pub handler_instructions: u32,
    /// Faults that passed through KVM on their way to the guest, for each fault
    /// of the guest: 0 where the processor walks both levels, 1 or more with
    /// shadow page tables. `None` without KVM's statistics.
    pub through_kvm_per_fault: Option<f64>,
}

/// Cost of clearing a page of 4 KiB in ring 0 with `rep stosq`.
#[derive(Clone, Debug, Serialize)]
pub struct ClearPage {
    /// Ticks of the time-stamp counter, the least of a few tries.
    pub cycles: f64,
    /// In nanoseconds, where KVM knows the counter's frequency.
    pub nanoseconds: Option<f64>,
}

/// How `rep outsb` leaves the guest.
#[derive(Clone, Debug, Serialize)]
pub struct StringOutput {
    /// Bytes written by one instruction.
    pub bytes: u64,
    /// Exits that it took.
    pub exits: u64,
}

/// Which instructions a kernel can use in ring 0.
#[derive(Clone, Debug, Default, Serialize)]
pub struct KernelInstructions {
    /// They work.
    pub work: Vec<&'static str>,
    /// The processor does not have them (#UD), or not as set up here (#GP).
    pub absent: Vec<&'static str>,
    /// KVM stops the guest because it cannot emulate them.
    pub not_emulated: Vec<&'static str>,
}

/// Whether debug registers that KVM is told of, `int3`, and single steps stop a
/// guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DebugStops {
    /// Before an instruction of ring 0.
    pub kernel_execute: bool,
    /// Behind a store of ring 0.
    pub kernel_write: bool,
    /// Before an instruction of ring 3.
    pub program_execute: bool,
    /// Behind a store of ring 3.
    pub program_write: bool,
    /// At an `int3` of either ring.
    pub int3: bool,
    /// Behind each instruction of ring 3, if it is stepped. Where KVM does not see
    /// that, the guest gets the exception: its ring 3 runs without virtualization
    /// hardware, with the host's own debug registers.
    pub program_step: bool,
}

pub(super) fn debug_stops(machine: &mut Machine) -> Result<DebugStops, ProbeError> {
    let store = |start| (start + code::STORE_OFFSET, Condition::Execute);
    let written = (BUFFER, Condition::Write(1));
    Ok(DebugStops {
        kernel_execute: stops(machine, Ring::Zero, store(RING_0_CODE))?,
        kernel_write: stops(machine, Ring::Zero, written)?,
        program_execute: stops(machine, Ring::Three, store(RING_3_CODE))?,
        program_write: stops(machine, Ring::Three, written)?,
        int3: int3_stops(machine, Ring::Zero)? && int3_stops(machine, Ring::Three)?,
        program_step: program_step_stops(machine)?,
    })
}

/// Whether a store to the buffer is stopped by a debug register.
fn stops(
    machine: &mut Machine,
    ring: Ring,
    breakpoint: (u64, Condition),
) -> Result<bool, ProbeError> {
    let program = [&code::STORE, end_of(ring)].concat();
    machine.load(ring, &program, |registers| registers.rbx = BUFFER)?;
    machine.arm(breakpoint)?;
    Ok(machine.run()? == Stop::Debug { hit: 1 })
}

fn int3_stops(machine: &mut Machine, ring: Ring) -> Result<bool, ProbeError> {
    machine.load(ring, &[&code::INT3, end_of(ring)].concat(), |_| {})?;
    machine.stop_at_int3()?;
    Ok(machine.run()? == Stop::Debug { hit: 0 })
}

fn program_step_stops(machine: &mut Machine) -> Result<bool, ProbeError> {
    let program = [&code::STORE, end_of(Ring::Three)].concat();
    machine.load(Ring::Three, &program, |registers| registers.rbx = BUFFER)?;
    machine.step()?;
    let stopped = matches!(machine.run()?, Stop::Debug { .. });
    Ok(stopped && machine.regs()?.rip > RING_3_CODE && machine.ring()? == 3)
}

/// How code in a ring ends.
const fn end_of(ring: Ring) -> &'static [u8] {
    match ring {
        Ring::Zero => &code::DONE,
        Ring::Three => &code::INVALID,
    }
}

pub(super) fn syscall(machine: &mut Machine) -> Result<Syscall, ProbeError> {
    machine.set_syscall_entry(&code::SYSCALL_ENTRY)?;
    machine.load(Ring::Three, &code::SYSCALL, |_| {})?;
    let stop = machine.run()?;
    let landed = Stop::Port { port: code::PORT_SYSCALL.into(), bytes: 1 };
    if stop == landed && machine.ring()? == 0 {
        return Ok(Syscall::EntersRingZero);
    }
    if stop == (Stop::Port { port: PAGE_FAULT, bytes: 1 }) {
        let frame = machine.frame(PAGE_FAULT)?;
        let at_entry = machine.cr2()? == SYSCALL_ENTRY && frame.rip == SYSCALL_ENTRY;
        if at_entry && frame.error_code == Some(FETCH_BY_USER) && frame.ring() == 3 {
            return Ok(Syscall::StaysInRingThree);
        }
    }
    Err(ProbeError::Unexpected(machine.describe(&stop)))
}

pub(super) fn sysret(machine: &mut Machine) -> Result<Sysret, ProbeError> {
    machine.set_fault_handler(&code::SYSRET)?;
    let program = [code::LOAD.as_slice(), &code::INVALID].concat();
    machine.load(Ring::Three, &program, |registers| {
        registers.rbx = NOT_PRESENT;
        registers.rcx = RING_3_CODE + code::LOAD.len() as u64;
        registers.r11 = 2;
    })?;
    let stop = machine.run()?;
    if let Stop::Port { port, .. } = stop {
        let frame = machine.frame(port)?;
        match (port, frame.ring()) {
            (INVALID_OPCODE, 3) if frame.rip == RING_3_CODE + code::LOAD.len() as u64 => {
                return Ok(Sysret::Works);
            }
            (GENERAL_PROTECTION, 0) => return Ok(Sysret::Refused),
            _ => {}
        }
    }
    Err(ProbeError::Unexpected(machine.describe(&stop)))
}

pub(super) fn ring_zero(machine: &mut Machine) -> Result<RingZero, ProbeError> {
    let native = ring_three_speed(machine)?;
    let mut instructions = 0;
    let mut emulated_instructions = None;
    let mut cycles = f64::INFINITY;
    for rounds in RING_0_ROUNDS {
        if rounds > RING_0_ROUNDS[0] && emulated_instructions >= Some(instructions) {
            break;
        }
        machine.load(Ring::Zero, &code::counting_loop(rounds, code::DONE), |_| {})?;
        let before = machine.statistics();
        machine.run_to_port(code::PORT_DONE.into())?;
        let after = machine.statistics();
        cycles = cycles.min(per_instruction(machine, rounds)?);
        instructions = code::counted_instructions(rounds);
        emulated_instructions =
            after.zip(before).and_then(|(after, before)| after.growth(&before, "insn_emulation"));
    }
    let emulated = match emulated_instructions {
        Some(count) => count > instructions / 2,
        None => cycles > 50.0 * native,
    };
    Ok(RingZero {
        emulated,
        instructions,
        emulated_instructions,
        cycles_per_instruction: cycles,
        ring_three_cycles_per_instruction: native,
    })
}

/// Ticks for one instruction in ring 3.
fn ring_three_speed(machine: &mut Machine) -> Result<f64, ProbeError> {
    let mut cycles = f64::INFINITY;
    for _ in 0..REPETITIONS {
        machine.load(Ring::Three, &code::counting_loop(RING_3_ROUNDS, code::INVALID), |_| {})?;
        machine.run_to_port(INVALID_OPCODE)?;
        cycles = cycles.min(per_instruction(machine, RING_3_ROUNDS)?);
    }
    Ok(cycles)
}

fn per_instruction(machine: &Machine, rounds: u32) -> Result<f64, ProbeError> {
    let instructions = code::counted_instructions(rounds);
    #[allow(clippy::cast_precision_loss, reason = "a few million")]
    Ok(f64::from(elapsed_cycles(machine)?) / instructions as f64)
}

/// What the loops leave: the low halves of the clock in ESI and EAX.
#[allow(clippy::cast_possible_truncation, reason = "the low halves are meant")]
fn elapsed_cycles(machine: &Machine) -> Result<u32, ProbeError> {
    let registers = machine.regs()?;
    Ok((registers.rax as u32).wrapping_sub(registers.rsi as u32))
}

pub(super) fn exit(machine: &mut Machine) -> Result<Exit, ProbeError> {
    machine.load(Ring::Zero, &code::exits(EXITS), |_| {})?;
    let mut times = Vec::with_capacity(EXITS);
    machine.run_to_port(code::PORT_EXIT.into())?;
    for _ in 1..EXITS {
        let start = Instant::now();
        machine.run_to_port(code::PORT_EXIT.into())?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let nanoseconds = |time: Duration| time.as_secs_f64() * 1e9;
    Ok(Exit {
        nanoseconds: nanoseconds(times[times.len() / 2]),
        fastest_nanoseconds: nanoseconds(times[0]),
    })
}

pub(super) fn trap(machine: &mut Machine) -> Result<Trap, ProbeError> {
    machine.set_fault_handler(&code::TIMED_FAULT_HANDLER)?;
    let before = machine.statistics();
    let mut times = Vec::with_capacity(REPETITIONS);
    for _ in 0..REPETITIONS {
        let code = code::faulting_loop(FAULTS, code::INVALID);
        machine.load(Ring::Three, &code, |registers| registers.rbx = NOT_PRESENT)?;
        machine.run_to_port(INVALID_OPCODE)?;
        times.push(f64::from(elapsed_cycles(machine)?) / f64::from(FAULTS));
    }
    let after = machine.statistics();
    times.sort_unstable_by(f64::total_cmp);
    let cycles = times[0];
    #[allow(clippy::cast_precision_loss, reason = "a few hundred")]
    let through_kvm_per_fault = after
        .zip(before)
        .and_then(|(after, before)| after.growth(&before, "pf_guest"))
        .map(|count| count as f64 / (f64::from(FAULTS) * REPETITIONS as f64));
    Ok(Trap {
        cycles,
        nanoseconds: in_nanoseconds(machine, cycles),
        handler_instructions: code::TIMED_HANDLER_INSTRUCTIONS,
        through_kvm_per_fault,
    })
}

pub(super) fn clear_page(machine: &mut Machine) -> Result<ClearPage, ProbeError> {
    let mut cycles = f64::INFINITY;
    for _ in 0..REPETITIONS {
        machine.load(Ring::Zero, &code::clear_page(), |registers| registers.rdi = BUFFER)?;
        machine.run_to_port(code::PORT_DONE.into())?;
        cycles = cycles.min(elapsed_cycles(machine)?.into());
    }
    Ok(ClearPage { cycles, nanoseconds: in_nanoseconds(machine, cycles) })
}

fn in_nanoseconds(machine: &Machine, cycles: f64) -> Option<f64> {
    machine.tsc_khz().map(|khz| cycles * 1e6 / f64::from(khz))
}

pub(super) fn string_output(machine: &mut Machine) -> Result<StringOutput, ProbeError> {
    machine.load(Ring::Zero, &code::STRING_OUTPUT, |registers| {
        registers.rsi = BUFFER;
        registers.rcx = STRING_BYTES;
        registers.rdx = code::PORT_STRING.into();
    })?;
    let mut exits = 0;
    let mut bytes = 0;
    while bytes < STRING_BYTES {
        match machine.run()? {
            Stop::Port { port, bytes: more } if port == u16::from(code::PORT_STRING) => {
                exits += 1;
                bytes += more as u64;
            }
            stop => return Err(ProbeError::Unexpected(machine.describe(&stop))),
        }
    }
    Ok(StringOutput { bytes, exits })
}

/// Tries each instruction; `new_machine` makes a fresh guest after one that
/// KVM gave up on.
pub(super) fn kernel_instructions(
    machine: &mut Machine,
    new_machine: impl Fn() -> Result<Machine, ProbeError>,
) -> Result<KernelInstructions, ProbeError> {
    let mut result = KernelInstructions::default();
    let mut fresh = None;
    for instruction in code::KERNEL_INSTRUCTIONS {
        let machine = fresh.as_mut().unwrap_or(&mut *machine);
        let code = [instruction.bytes, &code::DONE].concat();
        machine.load(Ring::Zero, &code, |registers| registers.rbx = BUFFER)?;
        match machine.run()? {
            // The breakpoint arrives at its handler; all others go on.
            Stop::Port { port, .. } if [code::PORT_DONE.into(), BREAKPOINT].contains(&port) => {
                result.work.push(instruction.name);
            }
            Stop::Port { port: INVALID_OPCODE | GENERAL_PROTECTION, .. } => {
                result.absent.push(instruction.name);
            }
            Stop::InternalError => {
                result.not_emulated.push(instruction.name);
                fresh = Some(new_machine()?);
            }
            stop => return Err(ProbeError::Unexpected(machine.describe(&stop))),
        }
    }
    Ok(result)
}
