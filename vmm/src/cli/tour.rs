//! `pagelab tour`: boots the kernel with its first program and shows what
//! happened.

use std::borrow::Cow;

use clap::Args;

use super::options::LabOptions;
use super::{Failure, report};
use crate::embedded;
use crate::loader::{ModuleBytes, ModuleKind};
use crate::machine::InputMode;

/// Arguments of `pagelab tour`.
#[derive(Debug, Default, Args)]
pub(super) struct Tour {
    #[command(flatten)]
    lab: LabOptions,
}

impl Tour {
    pub(super) fn execute(&self) -> Result<u8, Failure> {
        let modules = vec![
            ModuleBytes {
                kind: ModuleKind::Program,
                bytes: Cow::Borrowed(embedded::FIRST_PROGRAM),
            },
            ModuleBytes { kind: ModuleKind::Arguments, bytes: Cow::Borrowed(b"first\0") },
            ModuleBytes { kind: ModuleKind::Environment, bytes: Cow::Borrowed(b"") },
        ];
        let lab = self.lab.run(modules, self.lab.devices.devices()?, InputMode::None)?;
        report::print_tour(&lab.finished);
        Ok(report::conclude(&lab))
    }
}
