//! The options that all labs have in common, and what they come to.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::devices::DeviceOptions;
use super::{Failure, json, say, with_advice};
use crate::debug::{DebugAddress, DebugConfig, event_text};
use crate::embedded;
use crate::loader::{ModuleBytes, ModuleKind, program};
use crate::machine::{
    self, EventLog, Finished, InputMode, MachineConfig, MachineError, VirtioConfig,
};
use crate::memory::MemorySize;
use crate::memory::size::host_memory;
use crate::stop::STATUS_LAB_FAILED;
use crate::vstate::KvmError;
use crate::vstate::vm::device_path;

/// A lab that is over, and the kernel that ran in it.
pub(super) struct Lab {
    pub(super) finished: Finished,
    pub(super) kernel: Cow<'static, [u8]>,
}

/// Options of every lab.
#[derive(Debug, Default, Args)]
pub(super) struct LabOptions {
    /// Memory of the guest, with K, M or G behind the number
    #[arg(long, value_name = "SIZE", default_value = "128M", allow_negative_numbers = true)]
    mem: Option<MemorySize>,
    /// End the lab after so many seconds (exit status 124)
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, allow_negative_numbers = true)]
    timeout: Option<Duration>,
    /// Print each page fault as it happens, on standard error
    #[arg(long)]
    events: bool,
    /// Write what happened as JSON to a file, or to standard output with -
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Boot this kernel instead of the one that is built in
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Words for the kernel: log=LEVEL, or provoke=panic, fault, overflow, reset or hang to see
    /// how a lab reports the end of its kernel
    #[arg(long, value_name = "WORDS", default_value = "", hide_default_value = true)]
    kernel_args: String,
    /// Open the debug port: at the path of a Unix socket, or at 127.0.0.1:PORT (any free port if
    /// it is 0) with a token that is printed. `pagelab debug` speaks with it
    #[arg(long, value_name = "ADDR")]
    debug: Option<DebugAddress>,
    /// Let gdb connect (`target remote ADDR`): to the path of a Unix socket, for this user
    /// alone, or to 127.0.0.1:PORT, for every user of this machine: gdb knows no token
    #[arg(long, value_name = "ADDR")]
    gdb: Option<DebugAddress>,
    /// Stop before the guest's first instruction, until the debug port or gdb lets it go on
    #[arg(long)]
    paused: bool,
    /// Put stacks, mappings and position-independent programs at random addresses; otherwise
    /// they are the same in every run
    #[arg(long)]
    aslr: bool,
    #[command(flatten)]
    pub(super) devices: DeviceOptions,
}

impl LabOptions {
    /// Runs a lab with `modules`, and writes the JSON report if one is wanted.
    pub(super) fn run(
        &self,
        mut modules: Vec<ModuleBytes<'_>>,
        virtio: VirtioConfig,
        input: InputMode,
    ) -> Result<Lab, Failure> {
        let memory = self.mem.unwrap_or_default();
        memory
            .check_host(host_memory())
            .map_err(|error| Failure::new(STATUS_LAB_FAILED, format_args!("--mem: {error}")))?;
        let kernel = self.kernel()?;
        let events = if self.events { EventLog::Every(event_text::line) } else { EventLog::Off };
        if !virtio.shares.as_slice().is_empty() {
            let bytes = Cow::Owned(virtio.shares.module());
            modules.push(ModuleBytes { kind: ModuleKind::Shares, bytes });
        }
        let finished = machine::run(MachineConfig {
            kvm: device_path(),
            memory,
            kernel: &kernel,
            modules,
            command_line: &self.devices.command_line(&self.kernel_args),
            entropy: if self.aslr { entropy()? } else { [0; 32] },
            timeout: self.timeout,
            input,
            events,
            virtio,
            debug: DebugConfig {
                address: self.debug.clone(),
                gdb: self.gdb.clone(),
                paused: self.paused,
            },
            announce: say,
        })
        .map_err(|error| match &error {
            MachineError::Kvm(KvmError::Open(open)) => {
                Failure::new(STATUS_LAB_FAILED, with_advice(open))
            }
            other => Failure::new(STATUS_LAB_FAILED, other),
        })?;
        if let Some(path) = &self.json {
            json::write(path, &finished)?;
        }
        Ok(Lab { finished, kernel })
    }

    /// The kernel's ELF.
    fn kernel(&self) -> Result<Cow<'static, [u8]>, Failure> {
        match &self.kernel {
            None => Ok(Cow::Borrowed(embedded::KERNEL)),
            Some(path) => program::read_file(path).map(Cow::Owned).map_err(|error| {
                Failure::new(STATUS_LAB_FAILED, format_args!("--kernel: {error}"))
            }),
        }
    }
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let wrong = || format!("‘{text}’ is not a number of seconds above zero");
    let seconds: f64 = text.parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(seconds).ok().filter(|limit| !limit.is_zero()).ok_or_else(wrong)
}

/// Random bytes of the host's.
fn entropy() -> Result<[u8; 32], Failure> {
    let mut bytes = [0; 32];
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|error| {
        Failure::new(STATUS_LAB_FAILED, format_args!("--aslr: /dev/urandom: {error}"))
    })?;
    Ok(bytes)
}
