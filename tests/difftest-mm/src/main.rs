//! Runs difftest's programs on the guest's memory management, without a VM.
//!
//! This stands in for a lab: as `difftest --lab target/debug/difftest-mm` it is
//! called with the tester's path and options, asks the tester what it would do
//! (`--plan`), does that on `pagelab-mm` over a machine made of a vector, and
//! prints what the tester would print. So the memory management alone is
//! compared with Linux, tens of thousands of operations a second.
//!
//! - [`plan`] reads the operations,
//! - [`windows`] names addresses as the tester does,
//! - [`process`] is one process: its address space, and accesses that fault,
//! - [`operations`] does each operation and writes its lines,
//! - [`observe`] writes maps and pagemap,
//! - `machine` is the one of the tests of `pagelab-mm`, with a translation cache
//!   as stale as a real one.
#![forbid(unsafe_code)]

#[path = "../../../guest/mm/tests/mm/machine.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::cast_possible_truncation,
    reason = "shared with the tests of pagelab-mm"
)]
mod machine;
mod observe;
mod operations;
mod plan;
mod process;
mod windows;

use std::io::{self, Write};
use std::process::{Command, ExitCode};

use thiserror::Error;

use crate::operations::Run;
use crate::plan::{PlanError, Program};
use crate::process::{Host, HostError};

/// Why nothing could be run.
#[derive(Debug, Error)]
enum Failure {
    #[error("usage: difftest-mm TESTER [OPTION]...")]
    Usage,
    #[error("cannot run the tester: {0}")]
    Tester(io::Error),
    #[error("the tester refuses: {0}")]
    Refused(String),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Host(#[from] HostError),
    #[error("cannot write: {0}")]
    Write(#[from] io::Error),
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("difftest-mm: {failure}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let tester = arguments.next().ok_or(Failure::Usage)?;
    let (modes, options): (Vec<_>, Vec<_>) = arguments.partition(|word| word == "--hash-only");
    let output =
        Command::new(tester).arg("--plan").args(options).output().map_err(Failure::Tester)?;
    if !output.status.success() {
        return Err(Failure::Refused(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    let programs = plan::parse(&String::from_utf8_lossy(&output.stdout))?;
    let mut out = io::stdout().lock();

    for program in &programs {
        let (text, operations) = transcript_of(program)?;
        if modes.is_empty() {
            if programs.len() > 1 {
                writeln!(out, "program {}", program.seed)?;
            }
            out.write_all(text.as_bytes())?;
        } else {
            writeln!(out, "{} {:016x} {operations}", program.seed, hash(text.as_bytes()))?;
        }
    }
    Ok(())
}

/// Runs a program; also returns how many operations it did.
fn transcript_of(program: &Program) -> Result<(String, u64), HostError> {
    let host = Host::new()?;
    let mut process = host.first_process(program.windows)?;
    let mut run = Run::new(&host, program);
    run.operations(&mut process, 0, program.end());
    let (mut text, count) = run.finish();
    host.end(process);
    for line in host.leaks() {
        text.push_str(&line);
        text.push('\n');
    }
    Ok((text, count))
}

/// The tester's hash: FNV-1a.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}
