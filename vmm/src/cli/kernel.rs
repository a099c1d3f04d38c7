//! `pagelab kernel`: writes the built-in kernel to a file, for a debugger or for
//! another VMM (`qemu-system-x86_64 -kernel`).

use std::fs;
use std::path::PathBuf;

use clap::Args;

use super::Failure;
use crate::embedded;
use crate::stop::STATUS_LAB_FAILED;

/// Arguments of `pagelab kernel`.
#[derive(Debug, Args)]
pub(super) struct Kernel {
    /// The file; what is there is replaced
    file: PathBuf,
}

impl Kernel {
    pub(super) fn execute(&self) -> Result<u8, Failure> {
        fs::write(&self.file, embedded::KERNEL).map_err(|error| {
            Failure::new(
                STATUS_LAB_FAILED,
                format_args!("cannot write the kernel to {}: {error}", self.file.display()),
            )
        })?;
        Ok(0)
    }
}
