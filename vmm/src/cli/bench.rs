//! `pagelab bench`: how fast, and at what price.

use std::ffi::OsString;
use std::io::{self, Write};
use std::num::NonZeroUsize;

use clap::{Args, Subcommand};

use super::Failure;
use crate::bench::BootBench;
use crate::bench::debug::DebugBench;
use crate::embedded;
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
    /// Run a program alone and with clients of the debug port, and dump its page tables
    Debug(Debug),
}

#[derive(Debug, Args)]
struct Debug {
    /// How often the program is run in each way
    #[arg(long, value_name = "N", default_value = "5")]
    runs: NonZeroUsize,
    /// Write JSON instead of text
    #[arg(long)]
    json: bool,
    /// A program that faults a lot, for some seconds, and its arguments
    #[arg(value_name = "PROGRAM", trailing_var_arg = true, required = true)]
    program: Vec<OsString>,
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
        let bench = DebugBench { runs: self.runs.get(), program: self.program.clone() };
        let report = bench.run()?;
        let text = if self.json {
            serde_json::to_string_pretty(&report)? + "\n"
        } else {
            report.to_string()
        };
        print(&text)
    }
}

fn print(text: &str) -> Result<u8, Failure> {
    io::stdout().write_all(text.as_bytes()).map_err(|error| {
        Failure::new(STATUS_LAB_FAILED, format_args!("cannot write the report: {error}"))
    })?;
    Ok(0)
}
