//! The command line's entry.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use pagelab::cli;

/// A virtual-machine lab on KVM for seeing how memory really works
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Host(cli::host::HostArguments),
}

fn main() -> ExitCode {
    env_logger::init();
    match Arguments::parse().command {
        Command::Host(arguments) => cli::host::run(&arguments),
    }
}
