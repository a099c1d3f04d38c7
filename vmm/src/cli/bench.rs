//! `pagelab bench`: how fast, and at what price.

use std::ffi::OsString;
use std::io::{self, Write};
use std::num::{NonZeroU32, NonZeroUsize};

use clap::{Args, Subcommand};

use super::Failure;
use crate::bench::BootBench;
use crate::bench::debug::DebugBench;
use crate::embedded;
use crate::inspect::speed::{self, SpeedError};
use crate::stop::STATUS_LAB_FAILED;

/// Arguments of `pagelab bench`.
#[derive(Debug, Args)]
pub(super) struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Boot again and again, beside QEMU's microvm where that is installed
    Boot(Boot),
    /// Dump, compare and search the page tables of a large process; slow a program
    /// down by clients of the debug port; dump a process through the port and by gdb
    Debug(Debug),
}

#[derive(Debug, Args)]
struct Boot {
    /// How often each is booted
    #[arg(long, value_name = "N", default_value = "20")]
    runs: NonZeroUsize,
    /// Leave QEMU out
    #[arg(long)]
    no_qemu: bool,
    /// Write JSON instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Debug {
    /// How much memory the process has mapped, by pages of 4 KiB
    #[arg(long, value_name = "MIB", default_value = "1024")]
    mapped: NonZeroU32,
    /// How often the program is run in each way
    #[arg(long, value_name = "N", default_value = "5")]
    runs: NonZeroUsize,
    /// Write JSON instead of text
    #[arg(long)]
    json: bool,
    /// How much memory the process has touched that is also dumped by gdb
    #[arg(long, value_name = "MIB", default_value = "64", value_parser = clap::value_parser!(u32).range(1..=1984))]
    touched: u32,
    /// Measure no labs, only what needs no KVM
    #[arg(long)]
    no_labs: bool,
    /// A program to be slowed down, and its arguments, in place of the built-in one,
    /// which does nothing but fault
    #[arg(value_name = "PROGRAM", trailing_var_arg = true)]
    program: Vec<OsString>,
}

impl Bench {
    pub(super) fn execute(&self) -> Result<u8, Failure> {
        match &self.what {
            What::Boot(boot) => boot.execute(),
            What::Debug(debug) => debug.execute(),
        }
    }
}

impl Boot {
    fn execute(&self) -> Result<u8, Failure> {
        let bench =
            BootBench { runs: self.runs.get(), kernel: embedded::KERNEL, with_qemu: !self.no_qemu };
        let report = bench.run()?;
        let text =
            if self.json { serde_json::to_string_pretty(&report)? + "\n" } else { report.render() };
        print(&text)
    }
}

impl Debug {
    fn execute(&self) -> Result<u8, Failure> {
        let failed = |error: SpeedError| Failure::new(STATUS_LAB_FAILED, format_args!("{error}"));
        let mapped = u64::from(self.mapped.get()) << 20;
        let in_order = speed::measure(mapped, false).map_err(failed)?;
        let scattered = speed::measure(mapped, true).map_err(failed)?;
        let (runs, program) = (self.runs.get(), self.program.clone());
        let bench = DebugBench { runs, program, touched: self.touched };
        let clients = if self.no_labs { None } else { Some(bench.run()?) };
        if self.json {
            let report = serde_json::json!({
                "mapped_bytes": mapped,
                "in_order": in_order,
                "scattered": scattered,
                "clients": clients,
            });
            return print(&(serde_json::to_string_pretty(&report)? + "\n"));
        }
        let mut text = String::new();
        for (title, speeds) in [
            ("frames in order", in_order),
            ("frames scattered: no two entries are a run", scattered),
        ] {
            text += &format!("{} MiB mapped, {title}\n", self.mapped);
            for speed in speeds {
                text += &format!("  {speed}\n");
            }
        }
        if let Some(report) = clients {
            text += &report.to_string();
        }
        print(&text)
    }
}

fn print(text: &str) -> Result<u8, Failure> {
    io::stdout().write_all(text.as_bytes()).map_err(|error| {
        Failure::new(STATUS_LAB_FAILED, format_args!("cannot write the report: {error}"))
    })?;
    Ok(0)
}
