//! `pagelab run`: a program of the host in a lab.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use clap::Args;

use super::options::LabOptions;
use super::{Failure, report};
use crate::loader::program::{self, ProgramError};
use crate::loader::{ModuleBytes, ModuleKind};
use crate::machine::InputMode;
use crate::share::config::Shares;

/// Arguments of `pagelab run`.
#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    lab: LabOptions,
    /// Set a variable of the program's environment, which is empty otherwise
    #[arg(long = "env", value_name = "K=V", value_parser = parse_variable)]
    environment: Vec<String>,
    /// Print how many page faults of each kind there were, on standard error
    #[arg(long)]
    faults: bool,
    /// Give the program every key at once: no line editing, no echo
    #[arg(short, long)]
    interactive: bool,
    /// The program, a static Linux executable of this host, and its arguments
    #[arg(value_name = "PROGRAM", trailing_var_arg = true, required_unless_present = "kernel")]
    command: Vec<OsString>,
}

impl Run {
    pub(super) fn execute(&self) -> Result<u8, Failure> {
        let input = if self.interactive { InputMode::Keys } else { InputMode::Lines };
        let devices = self.lab.devices.devices()?;
        let lab = self.lab.run(self.modules(&devices.shares)?, devices, input)?;
        if self.faults {
            report::print_faults(&lab.finished);
        }
        Ok(report::conclude(&lab))
    }
}

impl Run {
    /// The program with its arguments and environment, if there is one.
    fn modules(&self, shares: &Shares) -> Result<Vec<ModuleBytes<'static>>, Failure> {
        let Some(path) = self.command.first() else {
            return Ok(Vec::new());
        };
        let path = Path::new(path);
        let failed = |error: ProgramError| Failure::new(error.exit_status(), error);
        // A program that the guest can see is run from there, so that its pages
        // come as those of any file.
        let program = match shares.guest_path(path) {
            Some(mut guest_path) => {
                program::check_file(path).map_err(failed)?;
                guest_path.push(0);
                (ModuleKind::ProgramPath, guest_path)
            }
            None => (ModuleKind::Program, program::read(path).map_err(failed)?),
        };
        let arguments = nul_ended(self.command.iter().map(OsString::as_os_str));
        let environment = nul_ended(self.environment.iter().map(OsStr::new));
        let module = |kind, bytes| ModuleBytes { kind, bytes: Cow::Owned(bytes) };
        Ok(vec![
            module(program.0, program.1),
            module(ModuleKind::Arguments, arguments),
            module(ModuleKind::Environment, environment),
        ])
    }
}

/// Strings one after the other, each ended by a NUL.
fn nul_ended<'a>(strings: impl Iterator<Item = &'a OsStr>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for string in strings {
        bytes.extend_from_slice(string.as_bytes());
        bytes.push(0);
    }
    bytes
}

fn parse_variable(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((name, _)) if !name.is_empty() => Ok(text.to_owned()),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}
