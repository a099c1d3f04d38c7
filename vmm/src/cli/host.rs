//! `pagelab host`: what this host's KVM is and can do.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::Args;

use crate::host::render::Colour;
use crate::host::{HostReport, OpenError, device};

/// Exit status when KVM is there but lacks what the lab requires.
const STATUS_NOT_ENOUGH: u8 = 6;

/// Says what this host's KVM is, what it can do, and what tiny guests found out
/// about it.
///
/// Exit status: 0 the lab can run here, 3 no KVM, 4 no permission, 5 not KVM or
/// another version of it, 6 it lacks something the lab requires.
#[derive(Args, Debug)]
pub struct HostArguments {
    /// Write JSON instead of text
    #[arg(long)]
    json: bool,
}

/// Runs the command.
#[must_use]
pub fn run(arguments: &HostArguments) -> ExitCode {
    match HostReport::gather(&device::device_path()) {
        Ok(report) => show(&report, arguments.json),
        Err(error) => refuse(&error, arguments.json),
    }
}

fn show(report: &HostReport, json: bool) -> ExitCode {
    let text = if json { to_json(report) } else { report.render(wanted_colour()) };
    if let Err(error) = io::stdout().write_all(text.as_bytes()) {
        // A reader that closed the pipe (`| head`) has seen enough.
        if error.kind() != io::ErrorKind::BrokenPipe {
            eprintln!("pagelab: {error}");
            return ExitCode::FAILURE;
        }
    }
    match report.missing_requirements().next() {
        None => ExitCode::SUCCESS,
        Some(_) => ExitCode::from(STATUS_NOT_ENOUGH),
    }
}

fn to_json(value: &impl serde::Serialize) -> String {
    match serde_json::to_string_pretty(value) {
        Ok(text) => text + "\n",
        Err(error) => format!("{{\"error\": {:?}}}\n", error.to_string()),
    }
}

fn refuse(error: &OpenError, json: bool) -> ExitCode {
    if json {
        let value = serde_json::json!({ "error": error.to_string(), "advice": error.advice() });
        println!("{value:#}");
    }
    complain(error);
    ExitCode::from(error.exit_status())
}

/// Says on standard error why KVM cannot be used and what to do about it.
pub fn complain(error: &OpenError) {
    eprintln!("pagelab: {error}");
    if let Some(cause) = std::error::Error::source(error) {
        eprintln!("  because: {cause}");
    }
    for line in error.advice() {
        eprintln!("  {line}");
    }
}

fn wanted_colour() -> Colour {
    let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if io::stdout().is_terminal() && !refused { Colour::Always } else { Colour::Never }
}
