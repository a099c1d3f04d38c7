//! The command line: one file per command.
//!
//! * [`tour`]: what `pagelab` alone does
//! * [`run`]: a program of the host in a lab
//! * [`debug`]: asking a running lab
//! * [`host`]: what this host's KVM is and can do
//! * [`mod@bench`]: how fast, and at what price
//! * [`kernel`]: the built-in kernel as a file
//! * [`options`]: what all labs have in common
//! * [`devices`]: folders of the host, and swap
//! * [`report`]: what is printed when a lab is over
//! * [`json`]: the same for machines
//!
//! Standard output belongs to the guest's program (and to what a command was
//! asked to print); everything that pagelab itself says goes to standard error.

mod bench;
mod debug;
mod devices;
mod host;
mod json;
mod kernel;
mod options;
mod report;
mod run;
mod tour;

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::host::OpenError;
use crate::stop::STATUS_LAB_FAILED;
use crate::timings::{self, Moment};

/// A virtual-machine lab on KVM for seeing how memory really works.
#[derive(Debug, Parser)]
#[command(name = "pagelab", version, about, after_help = AFTER_HELP)]
struct Arguments {
    /// What of pagelab's and the guest kernel's log is shown: error, warn, info,
    /// debug, trace, or per part as in `guest=debug,warn`
    #[arg(long, global = true, env = "PAGELAB_LOG", value_name = "LEVEL", default_value = "warn")]
    log: String,
    #[command(subcommand)]
    command: Option<Command>,
}

const AFTER_HELP: &str = "\
Without a command: the tour.

Examples:
  pagelab                                 boot, run a first program, show its page faults
  pagelab run --faults ./my-program       run a static Linux program and count its faults
  pagelab run --mem 1G --timeout 10 -- busybox ls -l /
  pagelab run --json report.json ./my-program
  pagelab run --share .:/work -- ./my-program /work/data
  pagelab run --debug lab.sock ./my-program        and, meanwhile, in another terminal:
  pagelab debug lab.sock faults

Exit status: the program's; 124 after --timeout, 128 + N after signal N, 125 where pagelab
or the guest's kernel failed, 126 and 127 where the program cannot be run or is not there.

Environment:
  PAGELAB_LOG   as --log
  PAGELAB_KVM   KVM's device, if it is not /dev/kvm";

#[derive(Debug, Subcommand)]
enum Command {
    /// Boot the kernel, run its first program and show what happened
    Tour(tour::Tour),
    /// Run a static Linux program of this host in a lab
    Run(run::Run),
    /// Ask a running lab: one command, or a prompt
    Debug(debug::Debug),
    /// Say what this host's KVM is, what it can do, and what tiny guests find out about it
    Host(host::Host),
    /// Measure how fast a lab boots and what it costs
    Bench(bench::Bench),
    /// Write the built-in kernel to a file, for a debugger or another VMM
    Kernel(kernel::Kernel),
}

/// An error as the user sees it: what happened, with its causes, and the exit
/// status that goes with it.
#[derive(Debug)]
struct Failure {
    message: String,
    status: u8,
}

impl Failure {
    fn new(status: u8, message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), status }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(STATUS_LAB_FAILED, error)
    }
}

/// Why KVM cannot be opened, and what to do about it.
fn with_advice(error: &OpenError) -> String {
    let mut message = error.to_string();
    if let Some(cause) = std::error::Error::source(error) {
        message.push_str(&format!(": {cause}"));
    }
    for line in error.advice() {
        message.push_str(&format!("\n  {line}"));
    }
    message
}

/// Runs the command that the command line names; its status is the process's.
#[must_use]
pub fn main() -> ExitCode {
    timings::note(Moment::Main);
    let arguments = Arguments::parse();
    start_log(&arguments.log);
    let result = match arguments.command {
        None => tour::Tour::default().execute(),
        Some(Command::Tour(tour)) => tour.execute(),
        Some(Command::Run(run)) => run.execute(),
        Some(Command::Debug(debug)) => debug.execute(),
        Some(Command::Host(host)) => host.execute(),
        Some(Command::Bench(bench)) => bench.execute(),
        Some(Command::Kernel(kernel)) => kernel.execute(),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            say(format_args!("{}", failure.message));
            ExitCode::from(failure.status)
        }
    }
}

/// Prints a line of pagelab's own. A standard error that is closed, or that
/// nobody reads, is no reason to fail or to wait for ever.
fn say(message: fmt::Arguments<'_>) {
    const PATIENCE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
    let stderr = io::stderr();
    let mut ready = [PollFd::new(&stderr, PollFlags::OUT)];
    if poll(&mut ready, Some(&PATIENCE)).is_ok_and(|count| count > 0) {
        let _ = writeln!(io::stderr(), "pagelab: {message}");
    }
}

fn start_log(filter: &str) {
    env_logger::Builder::new()
        .parse_filters(filter)
        .format_target(true)
        .format_timestamp_millis()
        .init();
}
