//! Pausing, stepping, stopping at faults, registers.

use serde_json::{Map, Value, json};

use super::record::filter;
use crate::debug::answer::{Answer, Format, Listed, Rows, Step};
use crate::debug::arguments::Arguments;
use crate::debug::breakpoints::BreakpointError;
use crate::debug::fault_stops;
use crate::debug::filter::{ALL_KINDS, FaultFilter, kind_names};
use crate::debug::lab::{Lab, describe, state_error};
use crate::debug::protocol::CommandError;
use crate::stop::GENERAL_NAMES;
use crate::vstate::control::{Activity, Pause, Resume};
use crate::vstate::guest_debug::{Condition, Means};

type Result = std::result::Result<Answer, CommandError>;

/// Waits for a pause; then its only row says why.
struct Waiting {
    format: Format,
    /// Whether the pause is asked for again and again.
    insist: bool,
    said: bool,
    why: Map<String, Value>,
}

impl Waiting {
    fn answer(format: Format, insist: bool) -> Answer {
        let waiting = Self { format, insist, said: false, why: Map::new() };
        Answer::default().with_rows(waiting)
    }
}

impl Rows for Waiting {
    fn next(&mut self, lab: &mut Lab, out: &mut String) -> Step {
        if self.said {
            return Step::Done;
        }
        let activity = lab.control.activity();
        if activity == Activity::Running {
            if self.insist {
                lab.control.pause();
            }
            return Step::Blocked;
        }
        self.said = true;
        let (value, text) = describe(activity);
        if let Value::Object(fields) = &value {
            self.why = fields.clone();
        }
        match self.format {
            Format::Json => Step::Done,
            _ => {
                out.push_str(&text);
                Step::Row
            }
        }
    }

    fn waits_for_a_moment(&self) -> bool {
        true
    }

    fn trailer(&mut self) -> Map<String, Value> {
        std::mem::take(&mut self.why)
    }
}

/// `pause`.
pub fn pause(lab: &mut Lab, _arguments: &Arguments, format: Format) -> Result {
    lab.control.pause();
    Ok(Waiting::answer(format, true))
}

/// `wait`.
pub fn wait(_lab: &mut Lab, _arguments: &Arguments, format: Format) -> Result {
    Ok(Waiting::answer(format, false))
}

/// `resume`.
pub fn resume(lab: &mut Lab, _arguments: &Arguments, _format: Format) -> Result {
    lab.control.resume(Resume::Run).map_err(state_error)?;
    Ok(Answer::new(json!({ "state": "running" }), "running\n"))
}

/// `step`.
pub fn step(lab: &mut Lab, arguments: &Arguments, format: Format) -> Result {
    /// On the slowest hosts a few seconds; `pause` ends it earlier.
    const MOST: usize = 1_000_000;
    let until_user = arguments.flag("user");
    let count = arguments.count("count", if until_user { MOST } else { 1 }, MOST)?;
    if count == 0 {
        return Err(CommandError::parameters("‘count’ is 0: at least one instruction is a step"));
    }
    let how = Resume::Step { count: count as u64, until_user };
    lab.control.resume(how).map_err(state_error)?;
    Ok(Waiting::answer(format, false))
}

/// `break`.
pub fn break_at(lab: &mut Lab, arguments: &Arguments, _format: Format) -> Result {
    let filter = FaultFilter { others: false, ..filter(arguments)? };
    let number = lab.stops.add(filter).ok_or_else(|| {
        CommandError::failed(format!("{} faults are waited for already", fault_stops::MOST))
    })?;
    lab.update_recording();
    let text = format!("{number}: the guest pauses at the next such fault; ‘wait’ waits for it\n");
    Ok(Answer::new(json!({ "number": number }), text))
}

/// `breaks`.
pub fn breaks(lab: &mut Lab, _arguments: &Arguments, format: Format) -> Result {
    let row = |(number, filter): (u64, FaultFilter)| {
        let value = json!({
            "number": number, "pid": filter.pid, "kinds": kind_names(filter.kinds),
            "range": filter.range.as_ref().map(|range| [format!("{:#x}", range.start), format!("{:#x}", range.end)]),
        });
        let mut text = format!("{number:>4}  {}", kind_words(filter.kinds));
        if let Some(pid) = filter.pid {
            text.push_str(&format!(", process {pid}"));
        }
        if let Some(range) = &filter.range {
            text.push_str(&format!(", at {:#x} to {:#x}", range.start, range.end));
        }
        (value, text)
    };
    let mut rows: Vec<_> = lab.stops.list().into_iter().map(row).collect();
    let breakpoints = lab.control.breakpoints();
    for software in breakpoints.software {
        let at = format!("{:#x}", software.address);
        rows.push((
            json!({ "at": at, "condition": "execute", "means": Means::Int3.to_string() }),
            format!("      at {at}: execute (int3)"),
        ));
    }
    let registers = breakpoints.hardware.into_iter().flatten();
    let registers = registers.map(|breakpoint| (breakpoint, Means::Register));
    let stepped = breakpoints.stepped.into_iter().map(|watch| (watch, Means::Stepping));
    for ((address, condition), means) in registers.chain(stepped) {
        let condition = format!("{condition:?}").to_lowercase();
        let value = json!({
            "at": format!("{address:#x}"), "condition": condition, "means": means.to_string(),
        });
        rows.push((value, format!("      at {address:#x}: {condition} ({means})")));
    }
    Ok(Answer::default().with_rows(Listed::new(format, rows)))
}

fn kind_words(kinds: u32) -> String {
    if kinds == ALL_KINDS { "any fault".to_owned() } else { kind_names(kinds).join(", ") }
}

/// `breakpoint`.
pub fn breakpoint(lab: &mut Lab, arguments: &Arguments, _format: Format) -> Result {
    let address = arguments.number("address").unwrap_or(0);
    let length = |name| {
        let length = arguments.number(name).and_then(|length| u8::try_from(length).ok());
        length.filter(|length| {
            matches!(length, 1 | 2 | 4 | 8) && address.is_multiple_of(u64::from(*length))
        })
    };
    let condition = match (arguments.flag("write"), arguments.flag("access")) {
        (false, false) => Some(Condition::Execute),
        (true, false) => length("write").map(Condition::Write),
        (false, true) => length("access").map(Condition::Access),
        (true, true) => None,
    };
    let condition = condition.ok_or_else(|| {
        CommandError::parameters(
            "either ‘write’ or ‘access’, of 1, 2, 4 or 8 bytes at a multiple of that",
        )
    })?;
    let means = lab.breaker().add(address, condition).map_err(breakpoint_error)?;
    let mut text = format!("breakpoint at {address:#x} ({means})\n");
    if means == Means::Stepping {
        text.push_str("this host has no debug register for it: the guest goes on step by step\n");
    }
    Ok(Answer::new(json!({ "at": format!("{address:#x}"), "means": means.to_string() }), text))
}

fn breakpoint_error(error: BreakpointError) -> CommandError {
    match error {
        BreakpointError::Control(error) => state_error(error),
        other => CommandError::failed(other.to_string()),
    }
}

/// `unbreak`.
pub fn unbreak(lab: &mut Lab, arguments: &Arguments, _format: Format) -> Result {
    let (number, at) = (arguments.number("number"), arguments.number("at"));
    let mut removed = 0;
    if at.is_none() {
        removed += lab.stops.remove(number);
        lab.update_recording();
    }
    if number.is_none() {
        removed += lab.breaker().remove(at, |_| true).map_err(breakpoint_error)?;
    }
    if removed == 0 && (number.is_some() || at.is_some()) {
        return Err(CommandError::parameters("that is not waited for"));
    }
    Ok(Answer::new(json!({ "removed": removed }), format!("{removed} removed\n")))
}

/// `regs`.
pub fn regs(lab: &mut Lab, _arguments: &Arguments, _format: Format) -> Result {
    let registers = lab.control.registers().map_err(state_error)?;
    let hex = |value: u64| Value::from(format!("{value:#x}"));
    let mut fields = Map::new();
    for (name, value) in GENERAL_NAMES.into_iter().zip(registers.general) {
        fields.insert(name.to_owned(), hex(value));
    }
    let others = [
        ("rip", registers.rip),
        ("rflags", registers.rflags),
        ("cr0", registers.cr0),
        ("cr2", registers.cr2),
        ("cr3", registers.cr3),
        ("cr4", registers.cr4),
        ("efer", registers.efer),
        ("cs", registers.cs.into()),
        ("ss", registers.ss.into()),
        ("fs_base", registers.fs_base),
        ("gs_base", registers.gs_base),
    ];
    for (name, value) in others {
        fields.insert(name.to_owned(), hex(value));
    }
    fields.insert("ring".to_owned(), registers.privilege().into());
    let mut text = format!("{registers}\n");
    // Where the program is that the kernel works for right now.
    if let Activity::Paused(Pause::Fault(event)) = lab.control.activity() {
        fields.insert("program_rip".to_owned(), hex(event.instruction));
        text.push_str(&format!(
            "the program of process {} is at {:#x}\n",
            event.pid, event.instruction
        ));
    }
    Ok(Answer::new(Value::Object(fields), text))
}
