//! `pagelab debug`: asks a running lab.

use clap::Args;

use super::Failure;
use crate::debug::DebugAddress;
use crate::debug::client::{Client, ClientError};
use crate::debug::prompt;
use crate::stop::STATUS_LAB_FAILED;

/// Exit status when a command failed.
const STATUS_COMMAND_FAILED: u8 = 1;

const AFTER_HELP: &str = "\
Examples:
  pagelab debug lab.sock                          a prompt; help lists the commands
  pagelab debug lab.sock faults
  pagelab debug lab.sock watch kind cow_copy
  pagelab debug --json lab.sock frames
  pagelab debug lab.sock trace lab.json           for Perfetto or chrome://tracing
  echo status | pagelab debug lab.sock            a script, line by line

Exit status: 0, 1 if a command failed, 125 if there is no lab.";

/// Arguments of `pagelab debug`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Debug {
    /// Show the answers as they come: JSON, one line each
    #[arg(long)]
    json: bool,
    /// The token that the lab printed, where its debug port is not a Unix socket
    #[arg(long, env = "PAGELAB_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Where the lab's debug port is
    #[arg(value_name = "ADDR")]
    address: DebugAddress,
    /// A command; without one, a prompt, or a script on standard input
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Debug {
    pub(super) fn execute(&self) -> Result<u8, Failure> {
        let mut client = Client::connect(&self.address, self.token.as_deref(), self.json)?;
        if self.command.is_empty() {
            let all_good = prompt::run(&mut client)?;
            return Ok(if all_good { 0 } else { STATUS_COMMAND_FAILED });
        }
        match client.run(&self.command) {
            Ok(()) | Err(ClientError::SeenEnough) => Ok(0),
            Err(error) => {
                let lost = matches!(error, ClientError::Connection(_) | ClientError::Ended);
                let status = if lost { STATUS_LAB_FAILED } else { STATUS_COMMAND_FAILED };
                Err(Failure::new(status, error))
            }
        }
    }
}
