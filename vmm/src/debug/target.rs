//! Which page tables are meant: those of a process, the kernel's, or any others.

use pagelab_abi::addr::GuestPhys;

use super::lab::{Lab, state_error};
use super::protocol::CommandError;
use super::report::{Source, kernel_error};
use crate::inspect::pages::scan::Range;

/// Page tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Those of a process.
    Process(u32),
    /// The kernel's own.
    Kernel,
    /// Those below this root.
    Root(u64),
}

impl Target {
    /// What a text means: a process's number, `kernel`, or a CR3 value with `0x`;
    /// without one, what the paused processor uses.
    ///
    /// # Errors
    ///
    /// If it means nothing.
    pub fn given(lab: &Lab, text: Option<&str>) -> Result<Self, CommandError> {
        let wrong = |text: &str| {
            CommandError::parameters(format!(
                "‘{text}’ means no page tables: a process's number, kernel, or a CR3 value with 0x"
            ))
        };
        match text {
            None => lab.control.registers().map(|registers| Self::Root(registers.cr3)).map_err(
                |error| {
                    let CommandError { code, message } = state_error(error);
                    CommandError {
                        code,
                        message: format!("{message}, or say which process is meant"),
                    }
                },
            ),
            Some("kernel") => Ok(Self::Kernel),
            Some(text) => match text.strip_prefix("0x") {
                Some(digits) => {
                    u64::from_str_radix(digits, 16).map(Self::Root).map_err(|_| wrong(text))
                }
                None => text.parse().map(Self::Process).map_err(|_| wrong(text)),
            },
        }
    }

    /// What of the address space is shown unless more is asked for: of a process
    /// not the kernel's half, which all have in common.
    #[must_use]
    pub const fn range(self) -> Range {
        match self {
            Self::Process(_) => Range::USER,
            Self::Kernel => Range::KERNEL,
            Self::Root(_) => Range::ALL,
        }
    }

    /// The root table.
    ///
    /// # Errors
    ///
    /// If there is no such process.
    pub fn root(self, source: &Source) -> Result<GuestPhys, CommandError> {
        match self {
            Self::Root(root) => Ok(GuestPhys(root)),
            Self::Kernel => Ok(source.kernel()?.root()),
            Self::Process(pid) => {
                let process = source.kernel()?.process(pid).map_err(kernel_error)?;
                process.root().ok_or_else(|| {
                    CommandError::failed(format!(
                        "process {pid} has ended and has no address space"
                    ))
                })
            }
        }
    }
}
