//! The host report for people: aligned, with colours only where they are wanted.

use std::fmt::{self, Display, Write};

use super::HostReport;
use super::modules::SecondLevel;
use super::probe::{DebugStops, Finding, Findings, RingZero, Syscall, Sysret};

/// Width of the column of names.
const NAME_WIDTH: usize = 17;

/// Whether to use the terminal's colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// Plain text.
    Never,
    /// ANSI escape sequences.
    Always,
}

impl HostReport {
    /// The report as text.
    #[must_use]
    pub fn render(&self, colour: Colour) -> String {
        let mut page = Page { text: String::new(), colour };
        self.render_identity(&mut page);
        self.render_probes(&mut page);
        self.render_capabilities(&mut page);
        self.render_meaning(&mut page);
        page.text
    }

    fn render_identity(&self, page: &mut Page) {
        page.heading("This host's KVM");
        page.line(
            "device",
            format_args!("{}, API version {}", self.device.display(), self.api_version),
        );
        page.line("Linux", &self.linux);
        page.line(
            "processor",
            format_args!("{}{}", self.cpu.model, self.describe_virtualization()),
        );
        let modules: Vec<_> = self
            .modules
            .loaded
            .iter()
            .map(|module| match module.parameters.as_slice() {
                [] => module.name.clone(),
                parameters => format!("{} ({})", module.name, parameters.join(", ")),
            })
            .collect();
        let none = "none to be seen (built in, or hidden from here)".to_owned();
        page.line("modules", if modules.is_empty() { none } else { modules.join(", ") });
        let second_level = match self.modules.second_level {
            Some(level) => level.description(),
            None => "not known from the modules",
        };
        page.line("second level", format_args!("{second_level}{}", self.describe_seen_faults()));
    }

    fn describe_virtualization(&self) -> String {
        let extension = match (self.cpu.vmx, self.cpu.svm) {
            (true, _) => "VMX",
            (false, true) => "SVM",
            (false, false) => "neither VMX nor SVM",
        };
        let place = if self.cpu.hypervisor { ", itself a virtual machine" } else { "" };
        format!(" ({extension}{place})")
    }

    /// What the probe saw of the second level.
    fn describe_seen_faults(&self) -> String {
        let trap = self.probes.trap.known();
        match trap.and_then(|trap| trap.through_kvm_per_fault) {
            Some(count) if count >= 0.5 => {
                format!("\n{:NAME_WIDTH$}   seen: the guest's own page faults pass through KVM", "")
            }
            Some(_) => {
                format!("\n{:NAME_WIDTH$}   seen: the guest's own page faults do not reach KVM", "")
            }
            None => String::new(),
        }
    }

    fn render_probes(&self, page: &mut Page) {
        page.heading("What tiny guests found here");
        let Findings { ring_zero, syscall, sysret, exit, trap, clear_page, string_output, .. } =
            &self.probes;
        page.finding("ring 0", ring_zero, describe_ring_zero);
        page.finding("ring 3", ring_zero, |found| {
            format!("{} an instruction", cycles(found.ring_three_cycles_per_instruction))
        });
        page.finding("SYSCALL", syscall, |found| match found {
            Syscall::EntersRingZero => "enters ring 0".to_owned(),
            Syscall::StaysInRingThree => {
                "stays in ring 3: a page fault (error code 0x15) at the entry".to_owned()
            }
        });
        page.finding("SYSRET", sysret, |found| match found {
            Sysret::Works => "returns to ring 3".to_owned(),
            Sysret::Refused => "refused with #GP: IRETQ must do".to_owned(),
        });
        page.finding("debugging", &self.probes.debug_stops, describe_debug_stops);
        page.finding("exit (out)", exit, |found| {
            format!(
                "{} there and back, at best {}",
                duration(found.nanoseconds),
                duration(found.fastest_nanoseconds)
            )
        });
        page.finding("page fault", trap, |found| {
            format!(
                "{}: ring 3, {} instructions of ring 0, ring 3",
                cost(found.cycles, found.nanoseconds),
                found.handler_instructions
            )
        });
        page.finding("clear a page", clear_page, |found| {
            format!("{} in ring 0 (rep stosq)", cost(found.cycles, found.nanoseconds))
        });
        page.finding("rep outsb", string_output, |found| {
            let kind = match found.exits {
                1 => "one for the whole buffer",
                exits if exits == found.bytes => "one for each byte",
                _ => "in pieces",
            };
            format!("{} exits for {} bytes: {kind}", found.exits, found.bytes)
        });
        page.finding("clock (TSC)", &self.probes.tsc_khz, |&khz| {
            format!("{:.3} GHz", f64::from(khz) / 1e6)
        });
        page.finding("in ring 0 work", &self.probes.kernel_instructions, |found| {
            found.work.join(", ")
        });
        if let Some(found) = self.probes.kernel_instructions.known() {
            for (name, list) in
                [("  KVM cannot", &found.not_emulated), ("  CPU has not", &found.absent)]
            {
                if !list.is_empty() {
                    page.line(name, list.join(", "));
                }
            }
        }
    }

    fn render_capabilities(&self, page: &mut Page) {
        page.heading("What KVM offers, and what the lab needs it for");
        for capability in &self.capabilities {
            page.mark(
                capability.is_present(),
                capability.required,
                capability.name,
                capability.purpose,
            );
        }
        page.heading("Processor features that guests have");
        for feature in &self.features {
            page.mark(feature.offered, false, feature.name, feature.purpose);
        }
    }

    /// What follows from it all for somebody who reads numbers of this host.
    fn render_meaning(&self, page: &mut Page) {
        page.heading("What that means");
        let ring_zero = self.probes.ring_zero.known();
        match ring_zero {
            Some(RingZero { emulated: true, cycles_per_instruction, .. }) => page.text(&format!(
                "Programs run at native speed, but each instruction of the kernel costs {}: time \
                 in\nthe kernel is the number of its instructions and of its traps.",
                cycles(*cycles_per_instruction)
            )),
            Some(_) => page.text("Programs and the kernel both run at native speed."),
            None => page.text("How the kernel is executed could not be found out."),
        }
        match self.modules.second_level {
            Some(SecondLevel::Ept | SecondLevel::Npt) => page.text(
                "A page fault of a program stays in the guest; only a frame without backing \
                 exits.",
            ),
            Some(SecondLevel::Shadow) => page.text(
                "Every page fault passes through KVM, which repairs its shadow tables or hands \
                 the\nfault on to the guest.",
            ),
            None => {}
        }
        let missing: Vec<_> = self.missing_requirements().map(|missing| missing.name).collect();
        if missing.is_empty() {
            page.text("The lab can run here.");
        } else {
            page.text(&format!("The lab cannot run here: missing {}.", missing.join(", ")));
        }
    }
}

/// What stops a guest for a debugger.
fn describe_debug_stops(found: &DebugStops) -> String {
    let what = |execute, write| match (execute, write) {
        (true, true) => "instructions and stores",
        (true, false) => "instructions, no stores",
        (false, true) => "stores, no instructions",
        (false, false) => "nothing",
    };
    format!(
        "debug registers stop in ring 0: {}; in ring 3: {}; int3 {}; steps in ring 3 {}",
        what(found.kernel_execute, found.kernel_write),
        what(found.program_execute, found.program_write),
        if found.int3 { "stops" } else { "does not stop" },
        if found.program_step { "stop" } else { "are the guest's" }
    )
}

fn describe_ring_zero(found: &RingZero) -> String {
    let how = if found.emulated { "emulated by KVM" } else { "executed by the processor" };
    let counted = match found.emulated_instructions {
        Some(count) => format!(" ({count} emulated for {} timed)", found.instructions),
        None => " (judged by time: no statistics)".to_owned(),
    };
    format!("{how}{counted}, {} an instruction", cycles(found.cycles_per_instruction))
}

fn cycles(count: f64) -> String {
    if count < 10.0 { format!("{count:.1} cycles") } else { format!("{count:.0} cycles") }
}

/// Ticks, and time where the clock's frequency is known.
fn cost(count: f64, nanoseconds: Option<f64>) -> String {
    let time = nanoseconds.map(|time| format!(", {}", duration(time)));
    format!("{}{}", cycles(count), time.unwrap_or_default())
}

/// Nanoseconds in the unit that suits them.
fn duration(nanoseconds: f64) -> String {
    match nanoseconds {
        small if small < 1e3 => format!("{small:.0} ns"),
        middle if middle < 1e6 => format!("{:.1} µs", middle / 1e3),
        large => format!("{:.1} ms", large / 1e6),
    }
}

/// Text being written.
struct Page {
    text: String,
    colour: Colour,
}

impl Page {
    fn heading(&mut self, heading: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        let heading = self.coloured("1", heading);
        self.put(format_args!("{heading}\n"));
    }

    fn line(&mut self, name: &str, value: impl Display) {
        self.put(format_args!("  {name:NAME_WIDTH$} {value}\n"));
    }

    fn text(&mut self, text: &str) {
        for line in text.lines() {
            self.put(format_args!("  {line}\n"));
        }
    }

    fn finding<T>(&mut self, name: &str, finding: &Finding<T>, say: impl FnOnce(&T) -> String) {
        match finding {
            Finding::Known(found) => self.line(name, say(found)),
            Finding::Unknown { unknown } => {
                let unknown = self.coloured("33", &format!("not known: {unknown}"));
                self.line(name, unknown);
            }
        }
    }

    fn mark(&mut self, present: bool, required: bool, name: &str, purpose: &str) {
        let (sign, code) = if present { ("yes", "32") } else { ("no ", "33") };
        let sign = self.coloured(if required && !present { "31" } else { code }, sign);
        let need = if required { " (required)" } else { "" };
        self.put(format_args!("  {sign} {name:NAME_WIDTH$} {purpose}{need}\n"));
    }

    fn coloured(&self, code: &str, text: &str) -> String {
        match self.colour {
            Colour::Always => format!("\x1b[{code}m{text}\x1b[0m"),
            Colour::Never => text.to_owned(),
        }
    }

    fn put(&mut self, text: fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.text.write_fmt(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_the_unit_that_suits_them() {
        assert_eq!(duration(240.4), "240 ns");
        assert_eq!(duration(13_040.0), "13.0 µs");
        assert_eq!(duration(2_500_000.0), "2.5 ms");
        assert_eq!(cycles(0.31), "0.3 cycles");
        assert_eq!(cycles(1_100.4), "1100 cycles");
    }

    #[test]
    fn emulation_is_told_with_and_without_statistics() {
        let mut found = RingZero {
            emulated: true,
            instructions: 4003,
            emulated_instructions: Some(4005),
            cycles_per_instruction: 900.0,
            ring_three_cycles_per_instruction: 0.5,
        };
        let text = describe_ring_zero(&found);
        assert_eq!(
            text,
            "emulated by KVM (4005 emulated for 4003 timed), 900 cycles an instruction"
        );
        found.emulated = false;
        found.emulated_instructions = None;
        assert!(describe_ring_zero(&found).contains("by the processor (judged by time"));
    }

    #[test]
    fn colours_are_only_used_where_they_are_wanted() {
        let text = |colour| {
            let mut page = Page { text: String::new(), colour };
            page.heading("Heading");
            page.mark(false, true, "thing", "purpose");
            let unknown: Finding<()> = Finding::Unknown { unknown: "hidden".to_owned() };
            page.finding("it", &unknown, |()| String::new());
            page.text
        };
        let plain = text(Colour::Never);
        assert!(plain.contains("no  thing") && plain.contains("not known: hidden"), "{plain}");
        assert!(!plain.contains('\x1b'));
        assert_eq!(text(Colour::Always).matches("\x1b[0m").count(), 3);
    }
}
