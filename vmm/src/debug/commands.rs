//! The one table of commands: it drives the parser, `help` and completion.

use super::answer::{Answer, Format};
use super::answers::{
    control, faults, general, memory, pages, processes, record, second_level, snapshot,
};
use super::arguments::{Arguments, Kind, Parameter};
use super::lab::Lab;
use super::protocol::{Call, CommandError, Parameters};

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
const OF: Parameter = keyword(
    "of",
    Kind::Text,
    "whose address space: a process, kernel, or a CR3 value with 0x; else the paused processor's",
);
const TARGET: Parameter = optional(
    "target",
    Kind::Text,
    "a process, kernel, or a CR3 value with 0x; else what the paused processor uses",
);
const TARGET_FIRST: Parameter =
    required("target", Kind::Text, "a process, kernel, or a CR3 value with 0x");
const THE_PID: Parameter = required("pid", Kind::Number, "a process by its number");
const ONLY: Parameter = keyword(
    "only",
    Kind::Text,
    "pages that are w,ro,x,user,supervisor,accessed,dirty,global,huge,cow,zero,…; !x: not",
);
const LIMIT: Parameter = keyword("limit", Kind::Number, "how many rows at most");

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
        [
            optional("pid", Kind::Number, "of one process; of all if left out"),
            keyword("since", Kind::Text, "only those since this mark")
        ],
        "faults 2 since before-fork",
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
    command!("ps", "the processes", [], "ps", processes::ps),
    command!("current", "the process that runs, or ran last", [], "current", processes::current),
    command!("maps", "the areas of a process", [THE_PID], "maps 1", processes::maps),
    command!(
        "smaps",
        "the areas of a process and what their pages are",
        [THE_PID],
        "smaps 1",
        processes::smaps
    ),
    command!(
        "frames",
        "how guest-physical memory is used, and how many owners frames have",
        [],
        "frames",
        processes::frames
    ),
    command!(
        "frame",
        "what a frame is used for, and who maps it where",
        [
            required("number", Kind::Number, "the frame's number"),
            optional("kernel", Kind::Flag, "with the kernel's own mappings")
        ],
        "frame 0x1a0",
        processes::frame
    ),
    command!(
        "pt",
        "page tables: as a tree, as runs of pages, as ranges of equal rights, or each entry",
        [
            TARGET,
            keyword(
                "shape",
                Kind::Choice(&["tree", "runs", "rights", "entries"]),
                "how; a tree if left out"
            ),
            keyword("range", Kind::Range, "only these addresses"),
            ONLY,
            keyword("has", Kind::Number, "only the page that has this address"),
            keyword("before", Kind::Number, "only pages before this address"),
            keyword("after", Kind::Number, "only pages from this address on"),
            keyword("physical", Kind::Range, "only pages that lie there"),
            optional("absent", Kind::Flag, "also entries that are not present and not empty"),
            LIMIT
        ],
        "pt 1 shape runs only w,!x",
        pages::pt
    ),
    command!(
        "pt-diff",
        "which entries changed between two marks, or since one, and by which fault (or: pt diff)",
        [
            required("from", Kind::Text, "the earlier mark"),
            optional("to", Kind::Text, "the later mark; now if left out"),
            OF_PID,
            LIMIT
        ],
        "pt diff before-fork after-fork pid 1",
        pages::pt_diff
    ),
    command!(
        "translate",
        "an address through both levels: tables, guest-physical, slot, host page; and its price",
        [TARGET_FIRST, ADDRESS],
        "translate 1 0x401000",
        pages::translate
    ),
    command!(
        "aliases",
        "all virtual addresses of a guest-physical page",
        [TARGET_FIRST, required("physical", Kind::Number, "the page's guest-physical address")],
        "aliases 1 0x1a0000",
        pages::aliases
    ),
    command!(
        "search",
        "where bytes or a number are in memory",
        [
            required("target", Kind::Text, "a process, kernel, a CR3 value with 0x, or physical"),
            keyword("text", Kind::Text, "look for this text"),
            keyword("hex", Kind::Text, "look for these bytes, two digits each"),
            keyword("u32", Kind::Number, "look for this number of four bytes"),
            keyword("u64", Kind::Number, "look for this number of eight bytes"),
            keyword("align", Kind::Number, "only at multiples of this"),
            keyword("range", Kind::Range, "only at these addresses"),
            ONLY,
            LIMIT
        ],
        "search 1 u64 0x1234 align 8",
        pages::search
    ),
    command!(
        "second-level",
        "what the host has backed so far, and KVM's page faults with their meaning here",
        [optional("contents", Kind::Flag, "also which pages hold only zeros: reads all of them")],
        "second-level",
        second_level::second_level
    ),
    command!(
        "backing-history",
        "how the host's backing grew, as far as somebody looked",
        [],
        "backing-history",
        second_level::backing_history
    ),
    command!(
        "host-faults",
        "the host's page faults on guest memory, each of them (userfaultfd): on, off, or show them",
        [optional("what", Kind::Choice(&["on", "off", "show"]), "show if left out")],
        "host-faults on",
        second_level::host_faults
    ),
    command!(
        "hugepages",
        "back the guest's memory with large pages, or not",
        [required("what", Kind::Choice(&["on", "off"]), "whether")],
        "hugepages on",
        second_level::hugepages
    ),
    command!(
        "reclaim",
        "take backing back from the guest, to see it fault in again",
        [optional("range", Kind::Range, "guest-physical addresses; all below 3 GiB if left out")],
        "reclaim 0x1000000+0x200000",
        second_level::reclaim
    ),
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
    command!(
        "breakpoint",
        "pause where an instruction is about to be executed, or bytes are accessed",
        [
            ADDRESS,
            keyword(
                "write",
                Kind::Number,
                "instead, when so many bytes there are written: 1, 2, 4 or 8"
            ),
            keyword(
                "access",
                Kind::Number,
                "instead, when so many bytes there are read or written"
            )
        ],
        "breakpoint 0x401000",
        control::breakpoint
    ),
    command!("breaks", "faults and breakpoints that are waited for", [], "breaks", control::breaks),
    command!(
        "unbreak",
        "wait no more for a fault or at a breakpoint, or for nothing any more",
        [
            optional("number", Kind::Number, "its number, as break said it"),
            keyword("at", Kind::Number, "the breakpoint at this address")
        ],
        "unbreak",
        control::unbreak
    ),
    command!("regs", "the registers of a paused processor", [], "regs", control::regs),
    command!(
        "memory",
        "bytes of the guest's memory; pagelab debug also puts them into a file: … save FILE",
        [
            ADDRESS,
            optional("length", Kind::Number, "how many bytes; 64 if left out"),
            OF,
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
            OF
        ],
        "disas 0x401000 8",
        memory::disas
    ),
    command!(
        "walk",
        "an address through the page tables, step by step",
        [ADDRESS, OF],
        "walk 0x401000",
        memory::walk
    ),
    command!(
        "snapshot",
        "what most reports need, in one answer",
        [],
        "snapshot > report.txt",
        snapshot::snapshot
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
pub fn prepare(mut call: Call) -> Result<(&'static Command, Arguments), CommandError> {
    // Two words that people expect to be one command.
    if let Parameters::Words(words) = &mut call.parameters
        && call.method == "pt"
        && words.first().is_some_and(|word| word == "diff")
    {
        words.remove(0);
        call.method = "pt-diff".to_owned();
    }
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
