//! Finding out by trying: tiny guests whose behaviour tells what this host does.
//!
//! Each probe has a guest of its own, a thread of its own and a time limit, so
//! that one that fails or hangs costs only its own answer. [`machine`] is the
//! guest, [`code`] its machine code, [`measure`] what is concluded from it.

mod code;
mod machine;
mod measure;

use std::os::raw::{c_int, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use kvm_ioctls::Kvm;
use serde::Serialize;
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

pub use measure::{
    ClearPage, DebugRegisters, Exit, KernelInstructions, RingZero, StringOutput, Syscall, Sysret,
    Trap,
};

use machine::{Machine, ProbeError};

/// Longer than any probe takes, even where the host itself is emulated.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// A probe's answer, or why there is none.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case", untagged)]
pub enum Finding<T> {
    /// The answer.
    Known(T),
    /// None.
    Unknown {
        /// Why.
        unknown: String,
    },
}

impl<T> Finding<T> {
    /// The answer, if there is one.
    pub const fn known(&self) -> Option<&T> {
        match self {
            Self::Known(answer) => Some(answer),
            Self::Unknown { .. } => None,
        }
    }
}

/// What the tiny guests found.
#[derive(Clone, Debug, Serialize)]
pub struct Findings {
    /// How ring 0 is executed.
    pub ring_zero: Finding<RingZero>,
    /// What SYSCALL does.
    pub syscall: Finding<Syscall>,
    /// What SYSRET does.
    pub sysret: Finding<Sysret>,
    /// Cost of an exit.
    pub exit: Finding<Exit>,
    /// Cost of a page fault in ring 3.
    pub trap: Finding<Trap>,
    /// Cost of clearing a page in ring 0.
    pub clear_page: Finding<ClearPage>,
    /// How string output leaves the guest.
    pub string_output: Finding<StringOutput>,
    /// Instructions for kernels.
    pub kernel_instructions: Finding<KernelInstructions>,
    /// What debug registers stop.
    pub debug_registers: Finding<DebugRegisters>,
    /// Frequency of the guest's time-stamp counter in kHz.
    pub tsc_khz: Finding<u32>,
}

/// Runs all probes.
#[must_use]
pub fn run(kvm: Kvm) -> Findings {
    let kvm = Arc::new(kvm);
    Findings {
        ring_zero: probe(&kvm, measure::ring_zero),
        syscall: probe(&kvm, measure::syscall),
        sysret: probe(&kvm, measure::sysret),
        exit: probe(&kvm, measure::exit),
        trap: probe(&kvm, measure::trap),
        clear_page: probe(&kvm, measure::clear_page),
        string_output: probe(&kvm, measure::string_output),
        kernel_instructions: probe_with(&kvm, |kvm, stop_wanted| {
            let new_machine = || Machine::new(kvm, Arc::clone(stop_wanted));
            measure::kernel_instructions(&mut new_machine()?, new_machine)
        }),
        debug_registers: probe(&kvm, measure::debug_registers),
        tsc_khz: probe(&kvm, |machine| {
            machine.tsc_khz().ok_or(ProbeError::Unexpected("KVM does not say".to_owned()))
        }),
    }
}

/// What debug registers stop, for a lab that runs: in the calling thread, and
/// without a time limit, whose signal would be the lab's own. The guest's code
/// ends by itself. Where nothing can be found out, they stop nothing.
#[must_use]
pub fn debug_registers(kvm: &Kvm) -> DebugRegisters {
    let found = Machine::new(kvm, Arc::default())
        .and_then(|mut machine| measure::debug_registers(&mut machine));
    found.unwrap_or_else(|error| {
        log::warn!("debug registers cannot be tried out: {}", describe(&error));
        DebugRegisters::default()
    })
}

extern "C" fn ignore_signal(_: c_int, _: *mut libc::siginfo_t, _: *mut c_void) {}

fn probe<T: Send + 'static>(
    kvm: &Arc<Kvm>,
    measure: impl FnOnce(&mut Machine) -> Result<T, ProbeError> + Send + 'static,
) -> Finding<T> {
    probe_with(kvm, |kvm, stop_wanted| measure(&mut Machine::new(kvm, Arc::clone(stop_wanted))?))
}

fn probe_with<T: Send + 'static>(
    kvm: &Arc<Kvm>,
    measure: impl FnOnce(&Kvm, &Arc<AtomicBool>) -> Result<T, ProbeError> + Send + 'static,
) -> Finding<T> {
    let kvm = Arc::clone(kvm);
    match with_time_limit(TIME_LIMIT, move |stop_wanted| measure(&kvm, stop_wanted)) {
        Ok(answer) => Finding::Known(answer),
        Err(error) => Finding::Unknown { unknown: describe(&error) },
    }
}

/// Runs `work` in a thread; after `limit` asks it to stop and interrupts it
/// until it does.
fn with_time_limit<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce(&Arc<AtomicBool>) -> Result<T, ProbeError> + Send + 'static,
) -> Result<T, ProbeError> {
    // The handler does nothing: the signal's only purpose is that KVM_RUN
    // returns. Without a handler it would end this program.
    register_signal_handler(SIGRTMIN(), ignore_signal).map_err(ProbeError::Signal)?;
    let stop_wanted = Arc::new(AtomicBool::new(false));
    let (sender, receiver) = mpsc::channel();
    let seen_by_thread = Arc::clone(&stop_wanted);
    let thread = thread::Builder::new()
        .name("probe".to_owned())
        .spawn(move || {
            // Nobody listening any more is no mistake of the probe's.
            let _ = sender.send(work(&seen_by_thread));
        })
        .map_err(ProbeError::Thread)?;
    let start = Instant::now();
    let mut patience = limit;
    loop {
        match receiver.recv_timeout(patience) {
            Ok(result) => return result,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(ProbeError::Unexpected("the probe's thread died".to_owned()));
            }
            Err(RecvTimeoutError::Timeout) if start.elapsed() > 2 * limit => {
                return Err(ProbeError::TimedOut);
            }
            Err(RecvTimeoutError::Timeout) => {
                stop_wanted.store(true, Ordering::Relaxed);
                if let Err(error) = thread.kill(SIGRTMIN()) {
                    log::debug!("the probe's thread cannot be interrupted: {error}");
                }
                patience = Duration::from_millis(10);
            }
        }
    }
}

fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_takes_too_long_is_told_to_stop() {
        let result = with_time_limit(Duration::from_millis(20), |stop_wanted| {
            while !stop_wanted.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(1));
            }
            Err::<(), _>(ProbeError::TimedOut)
        });
        assert!(matches!(result, Err(ProbeError::TimedOut)));
    }

    #[test]
    fn a_thread_that_dies_is_an_answer_too() {
        let result = with_time_limit(TIME_LIMIT, |_| -> Result<(), ProbeError> {
            std::panic::resume_unwind(Box::new("dies"))
        });
        assert!(matches!(result, Err(ProbeError::Unexpected(_))));
    }

    #[test]
    fn causes_are_told() {
        let error = ProbeError::Kvm("KVM_RUN", kvm_ioctls::Error::new(libc::EFAULT));
        assert_eq!(describe(&error), "KVM_RUN failed: Bad address (os error 14)");
    }
}
