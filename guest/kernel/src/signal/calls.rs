//! The system calls about signals.

use pagelab_hal::trap::TrapFrame;

use crate::syscall::{Arguments, Outcome};

/// Signal calls; `None` for other calls.
pub fn dispatch(_frame: &mut TrapFrame, _call: u32, _a: &Arguments) -> Option<Outcome> {
    None
}
