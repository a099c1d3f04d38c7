//! Why a guest died, for a person who has to mend it.
//!
//! [`explain`] takes what is left (the [`StopReason`], guest memory, the
//! kernel's ELF) and says what happened in words, with the code around the
//! place, the callers by name and line, and the addresses in question walked
//! through the guest's page tables. Never a bare number.
//!
//! * [`scene`]: the guest as it lies there: code, callers, walks
//! * [`triple_fault`]: what made it impossible to deliver an exception
//! * [`internal_error`]: what KVM could not do
//! * [`entry_failure`]: why the processor refused the guest
//!
//! The guest may be hostile: whatever it wrote is escaped before it reaches a
//! terminal, and everything read from it is bounded.

mod entry_failure;
mod internal_error;
mod scene;
#[cfg(test)]
mod tests;
mod triple_fault;

use std::fmt;

use pagelab_abi::lab::PanicState;

use crate::inspect::{PhysicalMemory, exceptions};
use crate::stop::{PanicReport, Registers, StopReason};
use scene::Scene;

/// A part of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// What it is about.
    pub title: String,
    /// The text, line by line.
    pub lines: Vec<String>,
}

/// Why a guest died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// In one sentence.
    pub headline: String,
    /// In detail; none is empty.
    pub sections: Vec<Section>,
}

impl Report {
    fn new(headline: impl Into<String>) -> Self {
        Self { headline: headline.into(), sections: Vec::new() }
    }

    fn add(&mut self, title: impl Into<String>, lines: Vec<String>) {
        if !lines.is_empty() {
            self.sections.push(Section { title: title.into(), lines });
        }
    }

    /// The text of the section with this title.
    #[must_use]
    pub fn section(&self, title: &str) -> Option<String> {
        let section = self.sections.iter().find(|section| section.title == title)?;
        Some(section.lines.join("\n"))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.headline)?;
        for section in &self.sections {
            write!(f, "\n\n{}:", section.title)?;
            for line in &section.lines {
                write!(f, "\n  {line}")?;
            }
        }
        Ok(())
    }
}

/// Explains why a guest stopped. `None` where there is nothing to explain: it
/// powered off, or stopped for a reason outside it with no registers to show.
#[must_use]
pub fn explain<M: PhysicalMemory>(
    reason: &StopReason,
    memory: &M,
    kernel_elf: &[u8],
) -> Option<Report> {
    if let StopReason::Panicked(panic, at_report) = reason {
        return Some(explain_panic(panic, at_report, memory, kernel_elf));
    }
    let registers = reason.registers()?;
    let scene = Scene::new(memory, kernel_elf, registers);
    let report = match reason {
        StopReason::TripleFault(_) => triple_fault::explain(&scene),
        StopReason::InternalError(error, _) => internal_error::explain(&scene, error),
        StopReason::FailEntry { reason, cpu, .. } => entry_failure::explain(&scene, *reason, *cpu),
        StopReason::MemoryFault { address, length, .. } => {
            let mut report = Report::new(format!(
                "the host could not provide {length} bytes of guest memory at guest-physical \
                 {address:#x}"
            ));
            report.add(
                "Likely",
                vec![
                    "The host is out of memory, or what backs the guest was cut or taken away."
                        .to_owned(),
                ],
            );
            scene.describe_place(&mut report);
            report
        }
        StopReason::UnexpectedExit(exit, _) => {
            let mut report =
                Report::new(format!("the guest left KVM in an unexpected way: {exit}"));
            scene.describe_place(&mut report);
            report
        }
        StopReason::RunFailed(error, _) => {
            let mut report = Report::new(format!("KVM could not run the guest: {error}"));
            scene.describe_place(&mut report);
            report
        }
        // Stopped from outside: where the guest was is all there is to say.
        _ => {
            let mut report = Report::new("where the guest was when it was stopped");
            scene.describe_place(&mut report);
            report
        }
    };
    Some(report)
}

fn explain_panic<M: PhysicalMemory>(
    panic: &PanicReport,
    at_report: &Registers,
    memory: &M,
    kernel_elf: &[u8],
) -> Report {
    let mut message = printable(&panic.message);
    let more = message.split_off(message.find('\n').unwrap_or(message.len()));
    let mut report = Report::new(format!("the guest's kernel panicked: {message}"));
    report.add("Message, continued", more.lines().skip(1).map(str::to_owned).collect());
    let Some(state) = &panic.state else {
        Scene::new(memory, kernel_elf, at_report).describe_place(&mut report);
        return report;
    };
    let registers = registers_at_panic(state, at_report);
    let scene = Scene::new(memory, kernel_elf, &registers);
    report.add("Cause", describe_cause(state));
    report.add("Registers", scene.registers());
    report.add("Code", scene.code());
    report.add("Called from", scene.callers(&backtrace(state)));
    if state.vector == u64::from(exceptions::PAGE_FAULT) {
        report.add("Faulting address", scene.walk(state.cr2));
    }
    report
}

fn describe_cause(state: &PanicState) -> Vec<String> {
    let mut lines = Vec::new();
    if let Ok(vector) = u8::try_from(state.vector) {
        lines.push(format!("exception {vector} ({})", exceptions::name(vector)));
        match exceptions::describe_error_code(vector, state.error_code) {
            Some(words) => lines.push(format!("error code {:#x}: {words}", state.error_code)),
            None if state.error_code != 0 => {
                lines.push(format!("error code {:#x}", state.error_code));
            }
            None => {}
        }
    }
    if state.pid != 0 {
        lines.push(format!("process {} was running", state.pid));
    }
    lines
}

/// The state that the kernel sent, and what it does not send as it was when the
/// report was made.
fn registers_at_panic(state: &PanicState, at_report: &Registers) -> Registers {
    Registers {
        general: state.general,
        rip: state.rip,
        rflags: state.rflags,
        cr2: state.cr2,
        cr3: state.cr3,
        exception: None,
        ..*at_report
    }
}

fn backtrace(state: &PanicState) -> Vec<u64> {
    let depth = usize::try_from(state.depth).unwrap_or(usize::MAX);
    let given = state.backtrace.iter().copied().take(depth);
    given.take_while(|&address| address != 0).collect()
}

/// Text of the guest without anything that would steer a terminal.
fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let keep = !c.is_control() || c == '\n';
            let escaped = (!keep).then(|| c.escape_default());
            keep.then_some(c).into_iter().chain(escaped.into_iter().flatten())
        })
        .collect()
}
