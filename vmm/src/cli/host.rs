//! `pagelab host`: what this host's KVM is and can do.

use std::env;
use std::io::{self, IsTerminal, Write};

use clap::Args;

use super::{Failure, with_advice};
use crate::host::render::Colour;
use crate::host::{HostReport, OpenError};
use crate::stop::STATUS_LAB_FAILED;
use crate::vstate::vm::device_path;

/// Exit status when KVM is there but lacks what the lab requires.
const STATUS_NOT_ENOUGH: u8 = 6;

const EXIT_STATUS: &str = "\
Exit status: 0 a lab can run here, 3 there is no KVM, 4 no permission to use it, 5 it is not KVM
or another version of it, 6 it lacks something that a lab needs.";

/// Arguments of `pagelab host`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_STATUS)]
pub(super) struct Host {
    /// Write JSON instead of text
    #[arg(long)]
    json: bool,
}

impl Host {
    pub(super) fn execute(&self) -> Result<u8, Failure> {
        match HostReport::gather(&device_path()) {
            Ok(report) => self.show(&report),
            Err(error) => self.refuse(&error),
        }
    }

    fn show(&self, report: &HostReport) -> Result<u8, Failure> {
        let text = if self.json {
            serde_json::to_string_pretty(report)? + "\n"
        } else {
            report.render(wanted_colour())
        };
        print(&text)?;
        let missing = report.missing_requirements().next().is_some();
        Ok(if missing { STATUS_NOT_ENOUGH } else { 0 })
    }

    fn refuse(&self, error: &OpenError) -> Result<u8, Failure> {
        let status = error.exit_status();
        if self.json {
            let value = serde_json::json!({ "error": error.to_string(), "advice": error.advice() });
            print(&format!("{value:#}\n"))?;
        }
        Err(Failure::new(status, with_advice(error)))
    }
}

fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()) {
        // A reader that closed the pipe (`| head`) has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(STATUS_LAB_FAILED, format_args!("cannot write: {error}")))
        }
        _ => Ok(()),
    }
}

fn wanted_colour() -> Colour {
    let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if io::stdout().is_terminal() && !refused { Colour::Always } else { Colour::Never }
}
