//! The one table of commands: it drives the parser, `help` and completion.

use super::answer::{Answer, Format};
use super::answers::{control, faults, general, memory, record};
use super::arguments::{Arguments, Kind, Parameter};
use super::lab::Lab;
use super::protocol::{Call, CommandError};

/// Carries a command out.
type Carry = fn(&mut Lab, &Arguments, Format) -> Result<Answer, CommandError>;

/// A command.
pub struct Command {
    /// Its name: also JSON-RPC's method.
    pub name: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
    /// What it takes.
    pub parameters: &'static [Parameter],
    /// How it is used.
    pub example: &'static str,
    carry: Carry,
}

const fn optional(name: &'static str, kind: Kind, help: &'static str) -> Parameter {
    Parameter { name, kind, required: false, keyword: false, help }
}

const fn required(name: &'static str, kind: Kind, help: &'static str) -> Parameter {
    Parameter { required: true, ..optional(name, kind, help) }
}

const fn keyword(name: &'static str, kind: Kind, help: &'static str) -> Parameter {
    Parameter { keyword: true, ..optional(name, kind, help) }
}

const OF_PID: Parameter = keyword("pid", Kind::Number, "a process by its number");
const KIND: Parameter = keyword("kind", Kind::FaultKinds, "only faults of these kinds");
const RANGE: Parameter = keyword("range", Kind::Range, "only faults at these addresses");
const ADDRESS: Parameter = required("address", Kind::Number, "a guest-virtual address");
const ROOT: Parameter = keyword(
    "root",
    Kind::Number,
    "another root table, a CR3 value; otherwise the paused processor's",
);

macro_rules! command {
    ($name:literal, $summary:literal, [$($parameter:expr),*], $example:literal, $carry:expr) => {
        Command {
            name: $name,
            summary: $summary,
            parameters: &[$($parameter),*],
            example: $example,
            carry: $carry,
        }
    };
}

/// Every command, in the order of `help`.
pub static COMMANDS: &[Command] = &[
    command!(
        "help",
        "this list, or all about one command",
        [optional("command", Kind::Text, "a command's name")],
        "help watch",
        general::help
    ),
    command!(
        "version",
        "versions of pagelab, of this protocol and of the guest's ABI",
        [],
        "version",
        general::version
    ),
    command!(
        "status",
        "what the guest is doing, and what is recorded",
        [],
        "status",
        general::status
    ),
    command!(
        "faults",
        "page faults by kind: how many and how long",
        [keyword("since", Kind::Text, "only those since this mark")],
        "faults since before-fork",
        faults::faults
    ),
    command!(
        "mark",
        "name this moment, for differences later",
        [required("name", Kind::Text, "the mark's name; one of that name is replaced")],
        "mark before-fork",
        faults::mark
    ),
    command!("marks", "the moments that have names", [], "marks", faults::marks),
    command!(
        "watch",
        "a stream of events until unwatch; lost ones are counted",
        [
            OF_PID,
            KIND,
            RANGE,
            optional("faults", Kind::Flag, "only faults, not fork, exec and exit")
        ],
        "watch pid 2 kind cow_copy,cow_reuse",
        record::watch
    ),
    command!("unwatch", "end the stream of events", [], "unwatch", record::unwatch),
    command!(
        "record",
        "keep events: off, on, or lossless (then a guest that is faster waits)",
        [required("what", Kind::Choice(&["off", "on", "lossless"]), "what is kept")],
        "record lossless",
        record::record
    ),
    command!(
        "events",
        "the events that were kept",
        [OF_PID, KIND, RANGE, keyword("since", Kind::Text, "only those since this mark")],
        "events kind cow_copy since before-fork",
        record::events
    ),
    command!(
        "trace",
        "the events that were kept, in the trace format of Chrome and Perfetto",
        [OF_PID, keyword("since", Kind::Text, "only those since this mark")],
        "trace > lab.json",
        record::trace
    ),
    command!("frames", "how guest-physical memory is used", [], "frames", faults::frames),
    command!(
        "kvm",
        "KVM's own statistics of this guest's processor, page faults of the second level among them",
        [],
        "kvm",
        general::kvm
    ),
    command!("pause", "stop the guest where it is", [], "pause", control::pause),
    command!("resume", "let the guest go on", [], "resume", control::resume),
    command!("wait", "wait until the guest is paused, and say why", [], "wait", control::wait),
    command!(
        "step",
        "execute one instruction, or some, and pause again",
        [
            optional("count", Kind::Number, "how many instructions; 1 if left out"),
            optional("user", Kind::Flag, "on to the next instruction of a program")
        ],
        "step user",
        control::step
    ),
    command!(
        "break",
        "pause at the next fault, mended but before the program goes on",
        [OF_PID, KIND, RANGE],
        "break pid 2 kind cow_copy",
        control::break_at
    ),
    command!("breaks", "faults that are waited for", [], "breaks", control::breaks),
    command!(
        "unbreak",
        "wait no more for a fault, or for any",
        [optional("number", Kind::Number, "its number, as break said it")],
        "unbreak",
        control::unbreak
    ),
    command!("regs", "the registers of a paused processor", [], "regs", control::regs),
    command!(
        "memory",
        "bytes of the guest's memory",
        [
            ADDRESS,
            optional("length", Kind::Number, "how many bytes; 64 if left out"),
            ROOT,
            optional("physical", Kind::Flag, "the address is guest-physical")
        ],
        "memory 0x401000 256",
        memory::memory
    ),
    command!(
        "disas",
        "instructions, by default from where the processor is",
        [
            optional("address", Kind::Number, "a guest-virtual address"),
            optional("count", Kind::Number, "how many instructions; 16 if left out"),
            ROOT
        ],
        "disas 0x401000 8",
        memory::disas
    ),
    command!(
        "walk",
        "an address through the page tables, step by step",
        [ADDRESS, ROOT],
        "walk 0x401000",
        memory::walk
    ),
    command!(
        "snapshot",
        "what most reports need, in one answer",
        [],
        "snapshot > report.txt",
        general::snapshot
    ),
    command!(
        "metrics",
        "all counters in the text form of Prometheus",
        [],
        "metrics",
        general::metrics
    ),
    command!(
        "auth",
        "say the lab's token: the first line of every client of a loopback port",
        [required("token", Kind::Text, "as the lab printed it")],
        "auth 0123456789abcdef0123456789abcdef",
        general::auth
    ),
    command!("quit", "end this connection; the lab goes on", [], "quit", general::quit),
];

/// The command of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.name == name)
}

impl Command {
    /// Its name and parameters.
    #[must_use]
    pub fn usage(&self) -> String {
        let mut usage = self.name.to_owned();
        for parameter in self.parameters {
            usage.push(' ');
            usage.push_str(&parameter.usage());
        }
        usage
    }
}

/// Finds a command and checks its parameters.
///
/// # Errors
///
/// If there is no such command, or if it does not take these parameters.
pub fn prepare(call: Call) -> Result<(&'static Command, Arguments), CommandError> {
    let command = find(&call.method).ok_or_else(|| {
        let mut message = format!("there is no command ‘{}’; ‘help’ lists them", call.method);
        if let Some(similar) = similar(&call.method) {
            message.push_str(&format!("; did you mean ‘{similar}’?"));
        }
        CommandError::new(CommandError::UNKNOWN, message)
    })?;
    let arguments = Arguments::check(call.parameters, command.parameters).map_err(|error| {
        CommandError { message: format!("{} (usage: {})", error.message, command.usage()), ..error }
    })?;
    Ok((command, arguments))
}

impl Command {
    /// Carries it out.
    ///
    /// # Errors
    ///
    /// Why it failed.
    pub fn carry_out(
        &self,
        lab: &mut Lab,
        arguments: &Arguments,
        format: Format,
    ) -> Result<Answer, CommandError> {
        (self.carry)(lab, arguments, format)
    }
}

/// A command whose name begins in the same way.
fn similar(name: &str) -> Option<&'static str> {
    let start = |length: usize| name.get(..length).filter(|start| !start.is_empty());
    [4, 3, 2]
        .into_iter()
        .filter_map(start)
        .find_map(|start| COMMANDS.iter().find(|command| command.name.starts_with(start)))
        .map(|command| command.name)
}

#[cfg(test)]
mod tests {
    use super::super::protocol::{Line, parse};
    use super::*;

    #[test]
    fn every_example_is_taken_by_its_command() {
        for command in COMMANDS {
            // What comes behind > is for the client.
            let example = command.example.split(" > ").next().unwrap();
            let Line::Plain(Ok(call)) = parse(example.as_bytes()) else { panic!("{example}") };
            let (found, _) = prepare(call).unwrap_or_else(|error| panic!("{example}: {error}"));
            assert_eq!(found.name, command.name);
            assert!(command.summary.len() < 100 && !command.usage().is_empty());
        }
    }

    #[test]
    fn names_are_distinct_and_mistakes_are_understood() {
        for (index, command) in COMMANDS.iter().enumerate() {
            assert!(COMMANDS[index + 1..].iter().all(|other| other.name != command.name));
        }
        let Line::Plain(Ok(call)) = parse(b"fault") else { panic!() };
        let Err(error) = prepare(call) else { panic!() };
        assert!(error.message.contains("did you mean ‘faults’"), "{error}");
    }
}
