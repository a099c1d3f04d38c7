//! One boot of QEMU's smallest machine on the same kernel ELF.
//!
//! `microvm` enters the kernel by its PVH note. Its firmware hands over no
//! program, so the kernel says so on the serial port and leaves by QEMU's debug
//! exit: that is also what the lab does that it is compared with.

use std::env;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use thiserror::Error;

use super::MEMORY;
use super::process::{Finished, Running};
use crate::resident::ResidentMemory;

const NAME: &str = "qemu-system-x86_64";
/// The port that the kernel tries for leaving QEMU.
const DEBUG_EXIT: &str = "isa-debug-exit,iobase=0xf4,iosize=4";
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// What to try, in order: one that works is enough for each accelerator. Some
/// hosts refuse an MSR that QEMU's `host` model wants to set.
const VARIANTS: [(&str, &str); 3] =
    [("kvm", "host"), ("kvm", "host,-arch-capabilities"), ("tcg", "max")];

/// Why QEMU could not be measured.
#[derive(Debug, Error)]
pub enum QemuError {
    /// It is not installed.
    #[error("{NAME} is not installed")]
    NotInstalled,
    /// It cannot be started, or hangs.
    #[error("QEMU cannot be run: {0}")]
    Run(#[from] io::Error),
    /// It runs but the kernel did not.
    #[error("QEMU ended with {status}: {output}")]
    Failed {
        /// Its status.
        status: std::process::ExitStatus,
        /// The first line of what it said.
        output: String,
    },
}

/// QEMU, as it is installed.
#[derive(Clone, Debug)]
pub struct Qemu {
    program: PathBuf,
    /// What it says about itself.
    pub version: String,
}

/// QEMU with one accelerator.
#[derive(Clone, Debug)]
pub struct Variant {
    program: PathBuf,
    /// The accelerator.
    pub accelerator: &'static str,
    /// The CPU model.
    pub cpu: &'static str,
}

/// A boot that was measured.
#[derive(Clone, Copy, Debug)]
pub struct QemuBoot {
    /// Milliseconds from exec to the first byte on the serial port.
    pub to_output: Option<f64>,
    /// Milliseconds from exec to exit.
    pub to_exit: f64,
}

impl Qemu {
    /// Looks for QEMU.
    ///
    /// # Errors
    ///
    /// If it is not there or does not run.
    pub fn find() -> Result<Self, QemuError> {
        let folders: OsString = env::var_os("PATH").unwrap_or_default();
        let program = env::split_paths(&folders)
            .map(|folder| folder.join(NAME))
            .find(|path| path.is_file())
            .ok_or(QemuError::NotInstalled)?;
        let finished =
            Running::start(Command::new(&program).arg("--version"))?.finish(TIME_LIMIT)?;
        let version = first_line(&finished.output);
        Ok(Self { program, version })
    }

    /// For each accelerator the first variant that boots the kernel; what does
    /// not goes to `problems`.
    #[must_use]
    pub fn working_variants(&self, kernel: &Path, problems: &mut Vec<String>) -> Vec<Variant> {
        let mut working: Vec<Variant> = Vec::new();
        for (accelerator, cpu) in VARIANTS {
            if working.iter().any(|variant| variant.accelerator == accelerator) {
                continue;
            }
            let variant = Variant { program: self.program.clone(), accelerator, cpu };
            match variant.boot(kernel) {
                Ok(_) => working.push(variant),
                Err(error) => problems.push(format!("-accel {accelerator} -cpu {cpu}: {error}")),
            }
        }
        working
    }
}

impl Variant {
    fn command(&self, kernel: &Path) -> Command {
        let backend = format!("memory-backend-memfd,id=ram,size={MEMORY},share=on");
        let mut command = Command::new(&self.program);
        command
            .args(["-M", "microvm,memory-backend=ram", "-object", &backend, "-m", MEMORY])
            .args(["-accel", self.accelerator, "-cpu", self.cpu])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .args(["-serial", "stdio", "-kernel"])
            .arg(kernel);
        command
    }

    /// Boots the kernel once.
    ///
    /// # Errors
    ///
    /// If it does not come to its end.
    pub fn boot(&self, kernel: &Path) -> Result<QemuBoot, QemuError> {
        let mut command = self.command(kernel);
        command.args(["-device", DEBUG_EXIT]);
        let finished = Running::start(&mut command)?.finish(TIME_LIMIT)?;
        if !left_by_debug_exit(&finished) {
            let output = first_line(&finished.output);
            return Err(QemuError::Failed { status: finished.status, output });
        }
        Ok(QemuBoot {
            to_output: finished.first_output.map(|moment| finished.since_exec(moment)),
            to_exit: finished.since_exec(finished.ended),
        })
    }

    /// Resident memory after a boot: without its debug exit, QEMU stays when the
    /// kernel has said its line and halted.
    ///
    /// # Errors
    ///
    /// If the kernel says nothing.
    pub fn memory(&self, kernel: &Path) -> Result<ResidentMemory, QemuError> {
        let mut running = Running::start(&mut self.command(kernel))?;
        running.wait_for_output(TIME_LIMIT)?;
        Ok(ResidentMemory::of_process(&running.id().to_string())?)
    }
}

/// The debug exit makes an odd status of whatever the guest says; QEMU's own
/// failures are silent on standard output.
fn left_by_debug_exit(finished: &Finished) -> bool {
    finished.first_output.is_some() && finished.status.code().is_some_and(|code| code % 2 == 1)
}

fn first_line(text: &str) -> String {
    text.lines().find(|line| !line.is_empty()).unwrap_or("it said nothing").to_owned()
}
