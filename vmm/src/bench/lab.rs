//! One boot of a lab: this very program, started again.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::time::Duration;

use thiserror::Error;

use super::MEMORY;
use super::process::{Finished, Running, milliseconds};
use crate::timings::{self, Timings};

/// Longer than any boot takes, even where the host itself is emulated.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// Why a lab could not be measured.
#[derive(Debug, Error)]
pub enum LabError {
    /// No folder for files.
    #[error("cannot write {}: {source}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// This program cannot be found or started again.
    #[error("cannot start a lab: {0}")]
    Start(io::Error),
    /// It failed.
    #[error("a lab ended with {status}:\n{output}")]
    Failed {
        /// Its status.
        status: process::ExitStatus,
        /// What it said.
        output: String,
    },
    /// It left no timings.
    #[error("a lab left no timings: {0}")]
    NoTimings(io::Error),
}

/// A boot that was measured.
#[derive(Clone, Debug)]
pub struct LabBoot {
    started: u64,
    /// Milliseconds from exec to exit.
    pub to_exit: f64,
    /// What the process noted.
    pub timings: Timings,
}

impl LabBoot {
    /// Milliseconds from exec to a moment, if it came.
    #[must_use]
    pub fn since_exec(&self, moment: Option<u64>) -> Option<f64> {
        moment.map(|moment| milliseconds(self.started, moment))
    }
}

/// Starts labs. Its files are removed with it.
#[derive(Debug)]
pub struct LabLauncher {
    program: PathBuf,
    folder: PathBuf,
    kernel: PathBuf,
    timings: PathBuf,
}

impl Drop for LabLauncher {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            log::warn!("cannot remove {}: {error}", self.folder.display());
        }
    }
}

impl LabLauncher {
    /// Prepares boots of `kernel`.
    ///
    /// # Errors
    ///
    /// If it cannot be written where QEMU can read it.
    pub fn new(kernel: &[u8]) -> Result<Self, LabError> {
        let program = env::current_exe().map_err(LabError::Start)?;
        let folder = env::temp_dir().join(format!("pagelab-bench-{}", process::id()));
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| LabError::File { path, source }
        };
        // Fails if it is there already: nobody else's folder is written to.
        fs::create_dir(&folder).map_err(failed(&folder))?;
        let launcher = Self {
            program,
            kernel: folder.join("kernel.elf"),
            timings: folder.join("timings.json"),
            folder,
        };
        fs::write(&launcher.kernel, kernel).map_err(failed(&launcher.kernel))?;
        Ok(launcher)
    }

    /// The kernel's ELF as a file.
    #[must_use]
    pub fn kernel_path(&self) -> &Path {
        &self.kernel
    }

    /// Boots the kernel with the built-in first program.
    ///
    /// # Errors
    ///
    /// If that fails.
    pub fn boot_first_program(&self) -> Result<LabBoot, LabError> {
        let finished = self.start(&["tour", "--mem", MEMORY])?;
        if !finished.status.success() {
            return Err(LabError::Failed { status: finished.status, output: finished.output });
        }
        self.measured(&finished)
    }

    /// Boots the kernel without a program: it says so and powers off.
    ///
    /// # Errors
    ///
    /// If that fails.
    pub fn boot_kernel_only(&self) -> Result<LabBoot, LabError> {
        let kernel = self.kernel.to_string_lossy();
        let finished = self.start(&["run", "--mem", MEMORY, "--kernel", &kernel])?;
        self.measured(&finished)
    }

    fn start(&self, arguments: &[&str]) -> Result<Finished, LabError> {
        let mut command = Command::new(&self.program);
        command.args(arguments).env(timings::VARIABLE, &self.timings);
        Running::start(&mut command)
            .and_then(|running| running.finish(TIME_LIMIT))
            .map_err(LabError::Start)
    }

    /// Adds what the process left, and removes it.
    fn measured(&self, finished: &Finished) -> Result<LabBoot, LabError> {
        let text = fs::read_to_string(&self.timings).map_err(|error| {
            if finished.status.success() {
                LabError::NoTimings(error)
            } else {
                let (status, output) = (finished.status, finished.output.clone());
                LabError::Failed { status, output }
            }
        })?;
        fs::remove_file(&self.timings).map_err(LabError::NoTimings)?;
        let timings = serde_json::from_str(&text)
            .map_err(|error| LabError::NoTimings(io::Error::other(error)))?;
        let to_exit = finished.since_exec(finished.ended);
        Ok(LabBoot { started: finished.started, to_exit, timings })
    }
}
